r"""# Verifying: do these weights give the same results here and in transformers?

    print(verify("r18"))

`verify` loads the weights into our model and, if transformers is installed, into theirs. Both get
the same picture, and are compared stage by stage in float64 (`compare.py`). If anything differs,
the report names the first module that differs. If the output contains NaN, the error names the
first layer with NaN.

transformers reads its own folders and hub ids. It cannot read our files or the authors', so it
gets them through `save_pretrained(…, layout="transformers")`. transformers needs timm for a DETR
with timm's names. Without timm, such a model is saved in this way, too.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.compare import Comparison, compare
from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.checkpoints.hooks import after_each
from rtdetr_lab.checkpoints.hub import origin
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.source import locate
from rtdetr_lab.checkpoints.transformers_config import draws
from rtdetr_lab.checkpoints.transformers_resnet import speaks_timm
from rtdetr_lab.config import require
from rtdetr_lab.deformable_attention import points_per_level
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.predict import look_of
from rtdetr_lab.notation import Size

PREFIXES = {"rt_detr": "RTDetr", "rt_detr_v2": "RTDetrV2", "d_fine": "DFine", "detr": "Detr"}
"""First part of the names of transformers' classes, by `model_type`."""


@dataclass(frozen=True)
class Verification:
    """Result of `verify`; printing it shows a table."""

    name: str
    metadata: Metadata
    size: Size
    oracle: str | None
    comparison: Comparison | None
    why_not: str = "Install transformers to compare: pip install transformers"
    """The reason, if `comparison` is None."""

    @property
    def ok(self) -> bool:
        """Return whether the weights loaded, ran, and agreed with what they were compared with."""
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
) -> Verification:
    """Load weights here and in transformers, and compare them on a picture (scikit-image's cat).

    `size` is (height, width) in pixels, by default that of the model's training. Raises what
    `load_pretrained` raises, and `ImageError` for a picture that cannot be read.
    """
    name = os.fspath(id_or_path)
    model = load_pretrained(id_or_path, revision, config=config, classes=classes)
    metadata: Metadata = model.metadata  # type: ignore[assignment]
    images = look_of(model, size)(decode(_cat() if image is None else image))[None]
    size = (images.shape[-2], images.shape[-1])
    check_answer(model, images, name)
    if find_spec("transformers") is None:
        return Verification(name, metadata, size, None, None)
    try:
        oracle, theirs = _in_transformers(model, id_or_path, revision)
    except ConfigError as error:  # no transformers config, so no transformers model
        why = f"transformers cannot express it: {error}"
        return Verification(name, metadata, size, None, None, why)
    found = compare(model, theirs, images, _tolerance(model))
    return Verification(name, metadata, size, oracle, found)


def _tolerance(model: nn.Module) -> float:
    cfg: Any = model.get_submodule("decoder").cfg
    points = getattr(cfg, "num_points", 1)  # DETR's decoder has none
    per_level = points_per_level(points, getattr(cfg, "num_levels", 1))
    # transformers' v2 stores 1/K in float32, which is exact only for powers of two.
    return 1e-9 if all(k & (k - 1) == 0 for k in per_level) else 1e-5


def _cat() -> Any:
    from skimage.data import chelsea

    return chelsea()


@torch.no_grad()
def check_answer(model: nn.Module, images: Float[Tensor, "B 3 H W"], name: str) -> None:
    """Raise `CheckpointError` if the output is not finite, and name the first such layer."""
    prediction = model(images)
    answers = (prediction.logits, prediction.boxes, prediction.masks)
    if all(a is None or bool(a.isfinite().all()) for a in answers):
        return
    layers = {path: m for path, m in model.named_modules() if not list(m.children())}
    odd: list[str] = []

    def note(path: str, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not bool(output.isfinite().all()):
            odd.append(path)

    with after_each(layers, note):
        model(images)
    what = f"the output is not finite, from {(*odd, 'an operation between layers')[0]} on"
    remedy = "download the weights again; if that changes nothing, they were saved broken"
    raise CheckpointError(name, what, remedy)


def _in_transformers(
    model: nn.Module, id_or_path: str | os.PathLike[str], revision: str | None
) -> tuple[str, nn.Module]:
    import transformers

    config = locate(id_or_path, revision).config
    cfg: Any = model.cfg
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if config is not None and _is_readable_there(read_json(config)):
            folder = config.parent
        else:
            save_pretrained(model, folder, "transformers")
        tree = read_json(folder / "config.json")
        kind = tree["model_type"]
        what, remedy = "names a backbone that transformers takes from timm", "pip install timm"
        require(_is_readable_there(tree), "backbone", what, remedy)
        task = "Segmentation" if draws(cfg) else "ObjectDetection"
        theirs = getattr(transformers, f"{PREFIXES[kind]}For{task}")
        # DETR's fused attention misreads a single-precision mask beside double precision.
        options = {"attn_implementation": "eager"} if kind == "detr" else {}
        loaded: nn.Module = theirs.from_pretrained(folder, **options)
        return f"transformers {transformers.__version__}, {kind}", loaded


def _is_readable_there(tree: Mapping[str, Any]) -> bool:
    """Return whether transformers, as installed, can read this config."""
    if tree.get("model_type") != "detr":
        return "model_type" in tree
    return not speaks_timm(tree) or find_spec("timm") is not None


def _head(report: Verification) -> list[str]:
    height, width = report.size
    known = report.metadata
    return [
        f"{report.name}: {len(known.names)} classes, licence {known.licence or 'not stated'}",
        *origin(report.name, known.revision, known.sha256),
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


def _verdict(report: Verification) -> str:
    found = report.comparison
    if found is None:
        return f"The weights load and run. {report.why_not}"
    if found.agrees:
        return "Everything agrees."
    lines = ["They differ."]
    if found.module:
        lines.append(f"First module that differs: {found.module} (theirs: {found.their_module})")
    if found.tensors:
        lines.append(f"Tensors that differ: {', '.join(found.tensors[:5])}")
    return "\n".join(lines)
