"""# ONNX and `.pt2`: the deployed model in a file that needs no Python

    export_onnx(model, "r18.onnx")                             # any batch, 640 × 640
    export_onnx(model, "r18.onnx", size=None)                  # any batch, any multiple of 32
    export_onnx(model, "r18.onnx", postprocessing=True)        # boxes in pixels, scores, labels
    export_pt2(model, "r18.pt2")                               # torch.export.load("r18.pt2")

We export `deploy(model)` with the chapter's samplers, because `grid_sample` is an ONNX operator
(`GridSample`, opset 16) and a bag of rows is not; `planar.py` gives it maps instead of tokens.
`Discrete` becomes a gather, which every runtime supports. Both files go through `torch.export`: no
value of the example picture enters the file.

| | name | shape | |
|---|---|---|---|
| in | `images` | `B 3 H W` | RGB in [0, 1], stretched to the size |
| in, with post-processing | `sizes` | `B 2` | (height, width) of the pictures, in pixels |
| out | `logits`, `boxes` | `B Q C`, `B Q 4` | before the sigmoid; cxcywh in [0, 1] |
| out, post-processed | `boxes`, `scores`, `labels` | `B Q 4`, `B Q`, `B Q` | corners in pixels |
| out, of a model that draws | `masks` | `B Q h w` | before the sigmoid; the last output |

The metadata of the ONNX file has the class names, category ids, size (null for any), the size that
the model was trained for, preprocessing, licence, the recommended threshold, and how logits become
scores. `onnx_model.py` reads it.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.deployment.form import ALL_REWRITES, Rewrites, deploy, same
from rtdetr_lab.deployment.planar import planar, without_undone
from rtdetr_lab.errors import import_extra
from rtdetr_lab.images.postprocess import ranked_table, rows_at
from rtdetr_lab.model import by_softmax, declared
from rtdetr_lab.notation import Size

OPSET = 20
MULTIPLE = 32
"""The sides of a dynamic size must be multiples of this, the coarsest stride."""


class Raw(nn.Module):
    """Model from pictures to class logits, boxes and maybe masks, as plain tensors for a compiler.

    `boxes` is the name of the boxes in the model's output.
    """

    def __init__(self, model: nn.Module, boxes: str = "boxes", masks: bool = False) -> None:
        super().__init__()
        self.model, self.boxes, self.masks = model, boxes, masks

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        found = self.model(images)
        answer = (found.logits, getattr(found, self.boxes))
        return (*answer, found.masks) if self.masks else answer


class Ranked(nn.Module):
    """Model from pictures and their sizes to corners in pixels, scores, labels and maybe masks,
    best first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rank = model, declared(model).rank
        self.masks = declared(model).draws_masks

    def forward(
        self, images: Float[Tensor, "B 3 H W"], sizes: Float[Tensor, "B 2"]
    ) -> tuple[Tensor, ...]:
        found = self.model(images)
        rows = ranked_table(self.rank, found.logits, found.boxes, sizes)
        answer = (rows[..., :4], rows[..., 4], rows[..., 5].long())
        if not self.masks:
            return answer
        masks = rows_at(found.masks.flatten(2), rows[..., 6].long())
        return (*answer, masks.unflatten(2, found.masks.shape[2:]))


def export_onnx(
    model: nn.Module,
    path: str | Path,
    size: Size | None = (640, 640),
    *,
    postprocessing: bool = False,
) -> Path:
    """Write `path` and return it. Raises `MissingExtraError` without onnx."""
    target = Path(path)
    target.write_bytes(onnx_bytes(model, size, postprocessing=postprocessing))
    return target


def onnx_bytes(
    model: nn.Module,
    size: Size | None = (640, 640),
    *,
    postprocessing: bool = False,
    rewrites: Rewrites = ALL_REWRITES,
) -> bytes:
    """Return the content of the ONNX file, which includes the weights."""
    module, given = _prepared(model, size, postprocessing, rewrites)
    names = ["boxes", "scores", "labels"] if postprocessing else ["logits", "boxes"]
    names += ["masks"] if declared(model).draws_masks else []
    with _quiet():
        program = program_of(module, given, size)
    return written(program, inputs=list(given), outputs=names, facts=facts_of(model, size))


def facts_of(model: nn.Module, size: Size | None) -> dict[str, str]:
    """Return what a program must know to use the file: texts, lists as JSON."""
    known = declared(model).metadata
    return {
        "names": json.dumps(known.names),
        "category_ids": json.dumps(known.category_ids),
        "size": json.dumps(size),
        "trained_size": json.dumps(known.fixed_size),
        "preprocessing": "RGB, float32 in [0, 1], stretched to size (height, width)",
        "licence": known.licence or "not stated",
        "scores": "softmax" if declared(model).rank is by_softmax else "sigmoid",
        "threshold": json.dumps(known.threshold),
    }


def written(
    program: Any,
    given: tuple[Tensor, ...] = (),
    inputs: Sequence[str] = ("images",),
    outputs: Sequence[str] = ("logits", "boxes"),
    facts: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Export a program, or a module with example inputs `given`, and return the file's bytes.

    `facts` become the metadata of the file.
    """
    onnx = import_extra("onnx", "export")
    import_extra("onnxscript", "export")  # torch's exporter needs it
    with _quiet(), torch.no_grad():
        form: dict[str, Any] = {"opset_version": OPSET, "dynamo": True}
        made = torch.onnx.export(program, given, input_names=inputs, output_names=outputs, **form)
    assert made is not None
    proto = made.model_proto
    onnx.helper.set_model_props(proto, dict(facts))
    file = bytes(proto.SerializeToString())
    onnx.checker.check_model(file)
    return file


def export_pt2(model: nn.Module, path: str | Path, size: Size | None = (640, 640)) -> Path:
    """Write the deployed model as a `torch.export` archive; `torch.export.load` reads it."""
    target = Path(path)
    what = f"{target.name} is not a .pt2 file"
    require(target.suffix == ".pt2", "path", what, "choose a name that ends in .pt2")
    module, given = _prepared(model, size, postprocessing=False)
    with _quiet():
        torch.export.save(program_of(module, given, size), target)
    return target


def _prepared(
    model: nn.Module,
    size: Size | None,
    postprocessing: bool,
    rewrites: Rewrites = ALL_REWRITES,
) -> tuple[nn.Module, dict[str, Tensor]]:
    form = deploy(model, same, rewrites)
    if rewrites.planar:
        form = planar(form)
    like = next(form.parameters(), torch.zeros(()))
    height, width = size or (9 * MULTIPLE, 10 * MULTIPLE)
    given = {"images": torch.rand(2, 3, height, width).to(like)}
    if postprocessing:
        given["sizes"] = torch.tensor([[480.0, 640.0], [300.0, 200.0]]).to(like)
    raw = Raw(form, masks=declared(model).draws_masks)
    return (Ranked(form) if postprocessing else raw).eval(), given


def program_of(module: nn.Module, given: Mapping[str, Tensor], size: Size | None) -> Any:
    """Trace a module with example inputs for any batch; without `size`, any multiple of 32."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    dynamic: dict[str, dict[int, Any]] = {name: {0: batch} for name in given}
    if size is None:
        dynamic["images"][2] = MULTIPLE * torch.export.Dim("rows", min=2, max=64)
        dynamic["images"][3] = MULTIPLE * torch.export.Dim("columns", min=2, max=64)
    with torch.no_grad():
        return without_undone(
            torch.export.export(module, tuple(given.values()), dynamic_shapes=dynamic)
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: it prints its progress and warns about its own future."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
