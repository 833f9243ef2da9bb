r"""# Comparing: the same picture through two models, side by side

Two questions, in this order. **Do the stages agree?** One row each for S3–S5, AIFI, every CCFF map,
the proposals, every decoder layer and the final detections. **If not, which module is to blame?**
The names in `tables.py` pair every layer of ours with one of theirs, so both are watched: the first
one, in the order in which ours run, whose output differs is where it begins. Tensors are compared
as well, which catches those that no inference reads, and those that no layer of its own reads, as
learned queries. DETR has other stages (`stages_detr.py`), and the same two questions.

In float64 two honest implementations differ by rounding, some 1e-13; a wrong weight by much more.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.rename import import_tensors, is_derived, table_of, to_ours
from rtdetr_lab.checkpoints.stages_detr import (
    SHARED,
    listening,
    our_detr_stages,
    their_detr_stages,
)
from rtdetr_lab.checkpoints.tables import TRANSFORMERS
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.structures import Prediction

SAMPLES = 4096
"""Values kept of every layer's output; comparing all of them would fill the memory."""


@dataclass(frozen=True)
class Stage:
    """One row of the report: the largest difference, and the largest value beside it."""

    name: str
    shape: tuple[int, ...]
    difference: float
    magnitude: float
    agrees: bool


@dataclass(frozen=True)
class Comparison:
    """All rows, and where the difference begins: our module, theirs, and tensors that differ."""

    stages: tuple[Stage, ...]
    module: str | None
    their_module: str | None
    tensors: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Is everything the same?"""
        return self.module is None and not self.tensors and all(s.agrees for s in self.stages)


@torch.no_grad()
def compare(
    ours: nn.Module,
    theirs: nn.Module,
    images: Float[Tensor, "B 3 H W"],
    tolerance: float = 1e-9,
) -> Comparison:
    """Run both in float64. `tolerance` is relative to the largest value of a stage or layer."""
    ours, theirs, images = ours.double().eval(), theirs.double().eval(), images.double()
    pairs = _paired_modules(ours, theirs)
    is_detr = isinstance(getattr(ours, "cfg", None), DETRConfig)
    our_stages = our_detr_stages if is_detr else _our_stages
    their_stages = partial(their_detr_stages, ours=ours) if is_detr else _their_stages
    heard = {m: t for m, t in pairs.items() if not (is_detr and m.startswith(SHARED))}
    with _fingerprints(ours, heard) as mine, _fingerprints(theirs, heard.values()) as other:
        left, right = our_stages(ours, images), their_stages(theirs, images)
    stages = tuple(_stage(name, left[name], right.get(name), tolerance) for name in left)
    module = next((m for m in mine if not _same(mine[m], other.get(pairs[m]), tolerance)), None)
    tensors = _differing_tensors(ours, theirs)
    owners = [name.rpartition(".")[0] for name in tensors]
    if owners and module not in owners:
        # A tensor whose owner's output cannot be compared shows in a layer that is not to blame.
        unseen = (o for o in owners if not _alike(mine.get(o), other.get(pairs.get(o, ""))))
        module = next(unseen, module or owners[0])
    return Comparison(stages, module, pairs.get(module or ""), tensors)


def _paired_modules(ours: nn.Module, theirs: nn.Module) -> dict[str, str]:
    """Our layer → theirs, for every layer that owns a tensor; read off the tensors' names."""
    names = {n.rpartition(".")[0] for n in ours.state_dict()}
    pairs: dict[str, str] = {}
    state = theirs.state_dict()
    table = table_of(state) or TRANSFORMERS
    for theirs_name in state:
        mine = (to_ours(table, theirs_name) or "").rpartition(".")[0]
        if mine in names:
            pairs.setdefault(mine, theirs_name.rpartition(".")[0])
    return pairs


@contextmanager
def _fingerprints(model: nn.Module, paths: Any) -> Iterator[dict[str, Tensor]]:
    """Path → a sample of the last output of that layer, in the order in which layers ran."""
    seen: dict[str, Tensor] = {}
    layers = [(path, model.get_submodule(path)) for path in paths]
    handles = [m.register_forward_hook(partial(_keep_fingerprint, seen, p)) for p, m in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keep_fingerprint(
    seen: dict[str, Tensor], path: str, module: nn.Module, args: Any, output: Any
) -> None:
    if isinstance(output, Tensor):
        seen.setdefault(path, _fingerprint(output))


def _fingerprint(x: Tensor) -> Tensor:
    flat = x.detach().flatten()
    step = max(1, flat.numel() // SAMPLES)
    # Means along the channels too: a sample alone could miss the one channel that is wrong.
    rows = x.detach().reshape(x.shape[0], -1).mean(1)
    return torch.cat([flat[::step], flat.abs().mean()[None], rows])


def _our_stages(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    parts = {n: model.get_submodule(n) for n in ("backbone", "encoder.aifi", "encoder")}
    with listening(parts) as seen:
        prediction = model(images)
    assert prediction.proposals is not None
    layers = [(p.logits, p.boxes) for p in prediction.layers]
    proposals = (prediction.proposals.logits, prediction.proposals.boxes)
    return _rows(seen["backbone"], seen["encoder.aifi"], seen["encoder"], proposals, layers)


def _their_stages(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    inner: Any = model.model
    parts = {"backbone": inner.backbone, "encoder": inner.encoder}
    parts |= {"aifi": inner.encoder.aifi[0]} if len(inner.encoder.aifi) else {}
    with listening(parts) as seen:
        out = model(images)
    maps = [feature for feature, _ in seen["backbone"]]
    proposals = (out.enc_topk_logits, out.enc_topk_bboxes)
    layers = list(
        zip(
            out.intermediate_logits.unbind(1),
            out.intermediate_reference_points.unbind(1),
            strict=True,
        )
    )
    layers[-1] = (out.logits, out.pred_boxes)
    fused = seen["encoder"].last_hidden_state
    return _rows(maps, seen.get("aifi", maps[-1]), fused, proposals, layers)


def _rows(
    maps: Any, attended: Tensor, fused: Any, proposals: Any, layers: Any
) -> dict[str, Tensor]:
    rows = {f"backbone S{6 - len(maps) + i}": m for i, m in enumerate(maps)}
    rows["AIFI F5"] = attended
    rows |= {f"CCFF {i}": m for i, m in enumerate(fused)}
    rows |= {"proposals logits": proposals[0], "proposals boxes": proposals[1]}
    for i, (logits, boxes) in enumerate(layers):
        rows |= {f"decoder {i} logits": logits, f"decoder {i} boxes": boxes}
    logits, boxes = layers[-1]
    if not (logits.isfinite().all() and boxes.isfinite().all()):
        return rows  # nothing can be found in NaN; the rows above say where it begins
    found = postprocess(Prediction(logits, boxes, ()), [(1, 1)] * len(logits), 0.0)
    rows["detections boxes"] = torch.stack([f.boxes_xyxy for f in found])
    rows["detections scores"] = torch.stack([f.scores for f in found])
    rows["detections labels"] = torch.stack([f.labels for f in found])
    return rows


def _stage(name: str, ours: Tensor, theirs: Tensor | None, tolerance: float) -> Stage:
    magnitude = float(ours.double().abs().amax())
    if theirs is None or theirs.shape != ours.shape:
        return Stage(name, tuple(ours.shape), float("inf"), magnitude, agrees=False)
    difference = float((ours.double() - theirs.double()).abs().amax())
    agrees = difference <= _allowed(magnitude, tolerance)  # NaN agrees with nothing
    return Stage(name, tuple(ours.shape), difference, magnitude, agrees)


def _same(ours: Tensor, theirs: Tensor | None, tolerance: float) -> bool:
    if theirs is None or not _alike(ours, theirs):
        return True  # they compute this layer in another arrangement: the stages judge it
    return float((ours - theirs).abs().amax()) <= _allowed(float(ours.abs().amax()), tolerance)


def _alike(ours: Tensor | None, theirs: Tensor | None) -> bool:
    return ours is not None and theirs is not None and ours.shape == theirs.shape


def _allowed(magnitude: float, tolerance: float) -> float:
    return tolerance * magnitude + 1e-3 * tolerance  # what should be 0 may be a rounding error


def _differing_tensors(ours: nn.Module, theirs: nn.Module) -> tuple[str, ...]:
    state: Mapping[str, Tensor] = theirs.state_dict()
    table = table_of(state) or TRANSFORMERS
    kept = {n: t for n, t in state.items() if not is_derived(table, n)}
    renamed = import_tensors(table, kept, "transformers")
    mine = ours.state_dict()
    shared = [n for n in mine if n in renamed]
    return tuple(n for n in shared if not torch.equal(mine[n], renamed[n]))
