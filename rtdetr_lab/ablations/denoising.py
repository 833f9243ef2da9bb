r"""# Denoising: does practice on noised boxes help to find real ones?

- **Paper**     DN-DETR §3; DINO §3.3; RT-DETR Table A ("200": about 200 queries, 100 positives)
- **Study**     `rtdetr-lab ablate denoising`

Every step computes a new matching. Early in training it is nearly random: the same query gets one
object now and another one in the next step. The object of a denoising query is fixed, so the
decoder learns to refine boxes while the matching still changes. `MatchingStability` measures these
changes: the share of objects that the next decoder layer matches with another query.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from rtdetr_lab.ablations.variant import Put, Variant
from rtdetr_lab.data.batch import Sample, collate
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.matching import MatcherConfig
from rtdetr_lab.rtdetr import RTDETRConfig

WITHOUT = "Without denoising the decoder must wait for a stable matching: slower, lower AP."
MORE = "More noised copies per object help, with a falling gain, and each costs training time."


def positives(cfg: RTDETRConfig) -> tuple[Variant, ...]:
    """Use no positives, half the base's, as many and twice as many: 0, 50, 100, 200 (presets)."""
    base = cfg.denoising or DenoisingConfig()
    counts = (base.num_queries // 2, base.num_queries, base.num_queries * 2)
    some = {n: Put("denoising", replace(base, num_queries=n)) for n in counts}
    none = Variant("0 positives", Put("denoising", None), WITHOUT)
    return (none, *(Variant(f"{n} positives", change, MORE) for n, change in some.items()))


@dataclass(frozen=True)
class MatchingStability:
    """Share of objects, in percent, that the next layer matches with another query."""

    def __call__(self, model: nn.Module, batches: list[list[Sample]]) -> dict[str, Any]:
        """Return `unstable`, measured over validation pictures, layers and objects."""
        matcher, changed, total = MatcherConfig().build(), 0, 0
        for samples in batches:
            batch = collate(samples)
            layers = [_answers(matcher(p, batch.targets)) for p in model(batch.images).layers]
            for before, after in pairwise(layers):
                for earlier, later in zip(before, after, strict=True):
                    changed += int((earlier != later).sum())
                    total += len(earlier)
        return {"unstable": round(100 * changed / max(total, 1), 3)}


def _answers(assignment: Any) -> list[torch.Tensor]:
    """Return, per picture, the queries of the objects 0, 1, …"""
    return [query[objects.argsort()] for query, objects in assignment]
