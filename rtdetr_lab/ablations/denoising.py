r"""# Denoising: does practising on spoilt boxes help to find real ones?

- **Paper**     DN-DETR §3.1; DINO §3.3; RT-DETR Table A ("200": about 200 queries, 100 positives)
- **Study**     `rtdetr-lab ablate denoising`

Matching is decided anew in every step, and early in training nearly at random: the same query is
taught one object now and another one next. Denoising queries know their object beforehand, so the
decoder learns to refine boxes while the matching is still unsettled. `MatchingStability` measures
how unsettled: the share of objects that are given to another query after the next decoder layer.
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

WITHOUT = "Without denoising the decoder waits for the matching to settle: slower, lower AP."
MORE = "More spoilt copies per object help with a falling gain, and each costs time in training."


def positives(cfg: RTDETRConfig) -> tuple[Variant, ...]:
    """None, half, as many and twice as many as the base: 0, 50, 100 and 200 for the presets."""
    base = cfg.denoising or DenoisingConfig()
    counts = (base.num_queries // 2, base.num_queries, base.num_queries * 2)
    some = {n: Put("denoising", replace(base, num_queries=n)) for n in counts}
    none = Variant("0 positives", Put("denoising", None), WITHOUT)
    return (none, *(Variant(f"{n} positives", change, MORE) for n, change in some.items()))


@dataclass(frozen=True)
class MatchingStability:
    """Share of objects, in percent, that the next layer matches with another query."""

    def __call__(self, model: nn.Module, batches: list[list[Sample]]) -> dict[str, Any]:
        """`unstable`: over validation pictures, layers and objects."""
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
    """Per picture: which query answers for object 0, 1, …"""
    return [query[objects.argsort()] for query, objects in assignment]
