r"""# Verifying: do these weights mean here what they mean elsewhere?

    print(verify("r18"))

Loads the weights into our model and, where transformers is installed, into theirs, shows both the
same picture, and compares them stage by stage in float64 (`compare.py`). If anything differs, the
report names the first module that does.

transformers reads its own folders and hub ids by itself. Ours and the authors' files it cannot
read, so it gets them through `save_pretrained(…, layout="transformers")`.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.compare import Comparison, compare
from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.source import locate
from rtdetr_lab.deformable_attention import points_per_level
from rtdetr_lab.detr import DETRConfig
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.notation import Size


@dataclass(frozen=True)
class Report:
    """What `verify` found; printing it shows a table."""

    name: str
    metadata: Metadata
    size: Size
    oracle: str | None
    comparison: Comparison | None
    why_not: str = "Install transformers to compare: pip install transformers"
    """Read where `comparison` is None."""

    @property
    def ok(self) -> bool:
        """Did the weights load, run, and agree with whatever they were compared with?"""
        return self.comparison is None or self.comparison.agrees

    def __str__(self) -> str:
        return "\n".join([*_head(self), *_table(self.comparison), _verdict(self)])


def verify(
    id_or_path: str | os.PathLike[str],
    image: object = None,
    revision: str | None = None,
    *,
    config: Any = None,
    classes: Sequence[Any] = (),
    size: Size | None = None,
) -> Report:
    """Load weights here and in transformers, and compare them on a picture (scikit-image's cat).

    `size` is (height, width) in pixels, by default what the model was trained for. Raises what
    `load_pretrained` raises, and `ImageError` for a picture that cannot be read.
    """
    model = load_pretrained(id_or_path, revision, config=config, classes=classes)
    metadata: Metadata = model.metadata  # type: ignore[assignment]
    size = size or metadata.image_size
    images = Preprocess(size)(decode(_cat() if image is None else image))[None]
    if find_spec("transformers") is None:
        _check_runs(model, images, os.fspath(id_or_path))
        return Report(os.fspath(id_or_path), metadata, size, None, None)
    name = os.fspath(id_or_path)
    if isinstance(getattr(model, "cfg", None), DETRConfig):
        _check_runs(model, images, name)
        why = "DETR is not compared stage by stage; tests/parity does it."
        return Report(name, metadata, size, None, None, why)
    try:
        oracle, theirs = _in_transformers(model, id_or_path, revision)
    except ConfigError as error:  # what only we can say, only we can run
        _check_runs(model, images, name)
        why = f"transformers cannot express it: {error}"
        return Report(name, metadata, size, None, None, why)
    decoder: Any = model.get_submodule("decoder").cfg
    points = points_per_level(decoder.num_points, decoder.num_levels)
    # transformers' v2 keeps 1/K as a float32, which is exact for powers of two only.
    tolerance = 1e-9 if all(k & (k - 1) == 0 for k in points) else 1e-5
    return Report(
        os.fspath(id_or_path), metadata, size, oracle, compare(model, theirs, images, tolerance)
    )


def _cat() -> Any:
    from skimage.data import chelsea

    return chelsea()


def _check_runs(model: nn.Module, images: Float[Tensor, "B 3 H W"], name: str) -> None:
    with torch.no_grad():
        prediction = model(images)
    if not (prediction.logits.isfinite().all() and prediction.boxes.isfinite().all()):
        raise CheckpointError(name, "the answer is not finite", "download the weights again")


def _in_transformers(
    model: nn.Module, id_or_path: str | os.PathLike[str], revision: str | None
) -> tuple[str, nn.Module]:
    import transformers

    config = locate(id_or_path, revision).config
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if config is not None and "model_type" in read_json(config):
            folder = config.parent
        else:
            save_pretrained(model, folder, "transformers")
        name = read_json(folder / "config.json")["model_type"]
        classes: dict[str, Any] = {
            "rt_detr": transformers.RTDetrForObjectDetection,
            "rt_detr_v2": transformers.RTDetrV2ForObjectDetection,
        }
        return f"transformers {transformers.__version__}, {name}", classes[name].from_pretrained(
            folder
        )


def _head(report: Report) -> list[str]:
    height, width = report.size
    known = report.metadata
    return [
        f"{report.name}: {len(known.names)} classes, licence {known.licence or 'not stated'}",
        f"sha256 {known.sha256}",
        f"compared at {height}×{width} in float64 with {report.oracle or 'nothing'}",
    ]


def _table(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return []
    lines = [f"{'stage':<20} {'shape':<20} {'difference':>10} {'largest':>10}"]
    for stage in comparison.stages:
        shape = "×".join(map(str, stage.shape))
        mark = "" if stage.agrees else "  ← differs"
        numbers = f"{stage.difference:>10.1e} {stage.magnitude:>10.3g}"
        lines.append(f"{stage.name:<20} {shape:<20} {numbers}{mark}")
    return lines


def _verdict(report: Report) -> str:
    found = report.comparison
    if found is None:
        return f"The weights load and run. {report.why_not}"
    if found.agrees:
        return "Everything agrees."
    lines = ["They differ."]
    if found.module:
        lines.append(f"The first module that does: {found.module} (theirs: {found.their_module})")
    if found.tensors:
        lines.append(f"Tensors that are not the same: {', '.join(found.tensors[:5])}")
    return "\n".join(lines)
