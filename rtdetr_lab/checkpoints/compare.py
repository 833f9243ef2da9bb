r"""# Comparing: the same picture through two models, side by side

We ask two questions, in this order. **Do the stages agree?** The report has one row per stage, from
the backbone's maps to the final detections (`stages.py`). **If not, which module is the cause?**
The names in `tables.py` pair each of our layers with one of theirs, and we record the outputs of
both. The cause is the first layer, in the order in which ours run, whose output differs. We also
compare the tensors. This finds a tensor that inference does not read, and one without a layer of
its own, such as learned queries.

In float64 two correct implementations differ only by rounding, by some 1e-13. A wrong weight
differs by much more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.hooks import after_each
from rtdetr_lab.checkpoints.rename import import_tensors, table_of, to_ours
from rtdetr_lab.checkpoints.stages import SHARED, paired_stages
from rtdetr_lab.checkpoints.tables import TRANSFORMERS, Table

SAMPLES = 4096
"""Number of values kept per layer's output; all values would fill the memory."""


@dataclass(frozen=True)
class Stage:
    """Row of the report: the largest difference in a stage, and its largest value."""

    name: str
    shape: tuple[int, ...]
    difference: float
    magnitude: float
    agrees: bool


@dataclass(frozen=True)
class Comparison:
    """Rows of the report, and the start of the difference: our module, theirs, and tensors."""

    stages: tuple[Stage, ...]
    module: str | None
    their_module: str | None
    tensors: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Return whether all stages, layers and tensors agree."""
        return self.module is None and not self.tensors and all(s.agrees for s in self.stages)


@torch.no_grad()
def compare(
    ours: nn.Module, theirs: nn.Module, images: Float[Tensor, "B 3 H W"], tolerance: float = 1e-9
) -> Comparison:
    """Run both models in float64.

    `tolerance` is relative to the largest value of a stage or layer.
    """
    ours, theirs, images = ours.double().eval(), theirs.double().eval(), images.double()
    mine, state = ours.state_dict(), theirs.state_dict()
    table = table_of(state) or TRANSFORMERS
    pairs = _paired_modules(mine, state, table)
    watched = {m: t for m, t in pairs.items() if not m.startswith(SHARED)}
    here: dict[str, Tensor] = {}
    there: dict[str, Tensor] = {}
    with (
        after_each({m: ours.get_submodule(m) for m in watched}, partial(_keep, here)),
        after_each({t: theirs.get_submodule(t) for t in watched.values()}, partial(_keep, there)),
    ):
        left, right = paired_stages(ours, theirs, images)
    stages = tuple(_stage(name, left[name], right.get(name), tolerance) for name in left)
    module = next((m for m in here if not _same(here[m], there.get(pairs[m]), tolerance)), None)
    renamed = import_tensors(table, state, "transformers")
    shared = [n for n in mine if n in renamed]
    tensors = tuple(n for n in shared if not torch.equal(mine[n], renamed[n]))
    owners = [name.rpartition(".")[0] for name in tensors]
    if owners and module not in owners:
        # If the owner's output cannot be compared, the difference first shows in a later layer.
        unseen = (o for o in owners if not _alike(here.get(o), there.get(pairs.get(o, ""))))
        module = next(unseen, module or owners[0])
    return Comparison(stages, module, pairs.get(module or ""), tensors)


def _paired_modules(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], table: Table
) -> dict[str, str]:
    """Map each of our layers with tensors to theirs, by the names of the tensors."""
    names = {n.rpartition(".")[0] for n in ours}
    pairs: dict[str, str] = {}
    for name in theirs:
        mine = (to_ours(table, name) or "").rpartition(".")[0]
        if mine in names:
            pairs.setdefault(mine, name.rpartition(".")[0])
    return pairs


def _keep(seen: dict[str, Tensor], path: str, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor):
        seen.setdefault(path, _fingerprint(output))


def _fingerprint(x: Tensor) -> Tensor:
    flat = x.detach().flatten()
    step = max(1, flat.numel() // SAMPLES)
    # Means along the channels too: samples alone could miss a single wrong channel.
    rows = x.detach().reshape(x.shape[0], -1).mean(1)
    return torch.cat([flat[::step], flat.abs().mean()[None], rows])


def _stage(name: str, ours: Tensor, theirs: Tensor | None, tolerance: float) -> Stage:
    magnitude = float(ours.double().abs().amax())
    if theirs is None or theirs.shape != ours.shape:
        return Stage(name, tuple(ours.shape), float("inf"), magnitude, agrees=False)
    difference = float((ours.double() - theirs.double()).abs().amax())
    agrees = difference <= _allowed(magnitude, tolerance)  # NaN agrees with nothing
    return Stage(name, tuple(ours.shape), difference, magnitude, agrees)


def _same(ours: Tensor, theirs: Tensor | None, tolerance: float) -> bool:
    if theirs is None or not _alike(ours, theirs):
        return True  # they arrange this layer differently: only the stages compare it
    return float((ours - theirs).abs().amax()) <= _allowed(float(ours.abs().amax()), tolerance)


def _alike(ours: Tensor | None, theirs: Tensor | None) -> bool:
    return ours is not None and theirs is not None and ours.shape == theirs.shape


def _allowed(magnitude: float, tolerance: float) -> float:
    return tolerance * magnitude + 1e-3 * tolerance  # an expected 0 may be a rounding error
