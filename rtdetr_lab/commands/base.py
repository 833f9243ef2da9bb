"""# Base: what all commands share"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rtdetr_lab.config import require
from rtdetr_lab.writing import printable

if TYPE_CHECKING:
    from rtdetr_lab.detector import Detector
    from rtdetr_lab.images.decode import Limits
    from rtdetr_lab.model import DetectionModel, Metadata
    from rtdetr_lab.notation import Size

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes: done; bad input, with one line on stderr; wrong usage."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb of the command line. `run` returns the exit code, or raises `LabError`."""

    debug: bool = False
    """Show where in the code an error comes from."""

    def run(self) -> int:
        """Run the command."""
        raise TypeError(f"{type(self).__name__} must define run()")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Choose how to read a data set."""

    bits: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: all)")] = None
    """Used bits of 16-bit pictures, if the file does not give them: 10, 12 or 14."""
    voc_origin: int = 1
    """Index of VOC's first column of pixels: 1 by its definition, 0 in some tools."""

    @property
    def limits(self) -> "Limits":
        """Return the limits for decoding pictures."""
        from rtdetr_lab.images.decode import Limits

        return Limits(bits=self.bits)


VAL_SPLIT = 0.15
"""The part of the pictures that validates, if a data set has no validation set."""

HELD_OUT = tyro.conf.arg(
    help_behavior_hint=f"(default: {VAL_SPLIT} if the data has no validation set)"
)

NANO = tyro.conf.arg(help_behavior_hint="(default: nano)")


@dataclass(frozen=True, kw_only=True)
class ModelCommand(Command):
    """A verb about one model, given as the first word or, as in other verbs, with `--model`."""

    model: Annotated[str | None, tyro.conf.Positional, NANO] = None
    """A short name, a hub id, a folder (also that of a training run) or a weights file."""
    model_option: Annotated[str | None, tyro.conf.arg(name="model"), NANO] = None
    """The same, as an option."""

    @property
    def name(self) -> str:
        """Return the model that was given either way; default: nano."""
        said, option = self.model, self.model_option
        what = f"is {option}, but the first word is {said}"
        require(not (said and option) or said == option, "--model", what, "give one of them")
        return said or option or "nano"


@dataclass(frozen=True, kw_only=True)
class PictureCommand(Command):
    """A verb that looks into a model while it sees one picture."""

    image: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="IMG")] = None
    """A picture; default: a sample from the shapes world."""
    model: str = "nano"
    """A short name (r18, v2_r50 …; nano is for shapes), a hub id, a folder or a weights file."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; a commit pins it."""
    size: str | None = None
    """Size of the model's input: one number, or HxW; default: the size it was trained for."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU, if there is one."""

    def detector(self) -> "Detector":
        """Return the detector of this model."""
        from rtdetr_lab.detector import Detector

        model = model_of(self.model, self.size, revision=self.revision)
        return Detector(model, device=device_of(self.device))

    def picture(self) -> Any:
        """Return what the detector reads: the path, or the drawn sample."""
        from rtdetr_lab.data.shapes import DEFAULT, VAL, draw

        return self.image or draw(DEFAULT, VAL, 0).image


def say(text: str, *, aside: bool = False) -> None:
    """Print lines without breaking a progress bar; `aside` prints to stderr, so that stdout has
    only JSON. A file name or a class name cannot send codes to the terminal.

    Of the processes of `torchrun`, only rank 0 prints.
    """
    if os.environ.get("RANK", "0") == "0":
        shown = "\n".join(map(printable, text.split("\n")))
        _write(shown, sys.stderr if aside else sys.stdout)


def _write(text: str, file: Any) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=file)


def complain(error: BaseException) -> None:
    """Print an error as one line on stderr, even if its message has several lines."""
    _write(f"rtdetr-lab: {printable(str(error)) or type(error).__name__}", sys.stderr)


def size_of(text: str) -> "Size":
    """Read (height, width) from `640` or `480x640`. Raises `ConfigError`."""
    parts = str(text).lower().replace("×", "x").split("x")
    sides = [int(part) for part in parts if part.strip().isdecimal()]
    good = len(sides) == len(parts) <= 2 and min(sides) > 0
    require(good, "--size", f"{text!r} is not a size", "give one number or HxW: 640, 480x640")
    return sides[0], sides[-1]


def square_of(text: str) -> int:
    """Read the side of a square from `320` or `320x320`. Raises `ConfigError`."""
    height, width = size_of(text)
    require(height == width, "--size", f"{text} is not a square", "shapes need one number")
    return height


def device_of(given: str | None, model: "DetectionModel | None" = None) -> str:
    """Return the given device, else the GPU if there is one; see `deployment.onnx_model`."""
    from rtdetr_lab.deployment.onnx_model import device_for

    return device_for(model, given, "--device")


def shown_size(size: "Size") -> str:
    """Write a size as `256 px` or `128 × 256 px`."""
    height, width = size
    return f"{height} px" if height == width else f"{height} × {width} px"


def resized_for(metadata: "Metadata", size: str | None, takes_padding: bool) -> "Metadata":
    """Return a model's metadata with another size.

    For a model that keeps the shape of pictures, one number is the shortest side. Height and width
    together are always exact.
    """
    if size is None:
        return metadata
    from rtdetr_lab.images.preprocess import PAPER_EDGES

    height, width = size_of(size)
    longest = height * PAPER_EDGES[1] // PAPER_EDGES[0]
    edges = (height, longest) if takes_padding and str(size).isdecimal() else None
    return replace(metadata, image_size=(height, width), edges=edges)


def model_of(
    name: str,
    size: str | None = None,
    names: str | None = None,
    revision: str | None = None,
    *,
    to_run: bool = False,
) -> "DetectionModel":
    """Load a model by its name; set its size and class names (with commas) if they are given.

    With `to_run` it may be an ONNX file, too.
    """
    from rtdetr_lab.checkpoints.load import load_pretrained
    from rtdetr_lab.deployment.onnx_model import model_to_run
    from rtdetr_lab.model import declared

    model = declared((model_to_run if to_run else load_pretrained)(name, revision))
    model.metadata = resized_for(model.metadata, size, model.takes_padding)
    if names is not None:
        said = tuple(one.strip() for one in names.split(","))
        what = f"{len(said)} names for the {model.num_classes} classes of {name}"
        require(len(said) == model.num_classes, "--names", what, "give one name per class")
        ids = tuple(range(len(said)))
        model.metadata = replace(model.metadata, names=said, category_ids=ids)
    return model


def bar() -> Callable[..., Any]:
    """Return a progress bar for an iterable; it shows only in a terminal."""
    from functools import partial

    from tqdm import tqdm

    return partial(tqdm, unit="picture", file=sys.stderr, disable=not sys.stderr.isatty())
