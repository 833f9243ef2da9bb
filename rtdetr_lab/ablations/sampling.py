r"""# Sampling: how many points, on which level, and how are they read?

- **Paper**     RT-DETRv2 §2.1, Table 3 (v2-S; heads × points × queries × layers) and Table 4
- **Studies**   `rtdetr-lab ablate sampling-points`, `discrete`

| points per level | points per picture | AP   |
|------------------|--------------------|------|
| 4                | 86,400             | 47.9 |
| 3                | 64,800             | 47.8 |
| 2                | 43,200             | 47.7 |
| 1                | 21,600             | 47.3 |

Discrete sampling reads whole cells and does not interpolate. It costs 0.5 AP (v2-S 47.9 → 47.4),
after a short fine-tune with frozen offsets. A fair comparison gives the bilinear model the same
fine-tune.
"""

from dataclasses import dataclass, replace

from rtdetr_lab.ablations.variant import Put, Setup, Variant, variant
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.rtdetrv2 import discrete

FEWER = "Fewer points cost little, because every layer samples again: a quarter costs 0.6 AP."
FINE = "If points are scarce, small objects need them on the finest level."
COARSE = "If points are scarce, a point on the coarse level covers the whole object."

_AT = "decoder.num_points"
POINTS = (
    Variant("4 per level", Put(_AT, 4), "Four points per head and level: the published setting."),
    *(Variant(f"{n} per level", Put(_AT, n), FEWER) for n in (3, 2, 1)),
    Variant("4, 2, 1", Put(_AT, (4, 2, 1)), FINE),
    Variant("1, 2, 4", Put(_AT, (1, 2, 4)), COARSE),
)
"""Rows of Table 3, and two unequal splits of seven points."""


@dataclass(frozen=True)
class FineTune:
    """Train the base, then fine-tune it: a part of its pictures, a tenth of its learning rate."""

    discrete: bool
    part: float = 0.25

    def __call__(self, base: Setup) -> Setup:
        recipe = base.recipe
        later = replace(
            recipe,
            num_pictures=max(recipe.batch_size, int(recipe.num_pictures * self.part)),
            lr=recipe.lr / 10,
            backbone_lr=recipe.backbone_lr / 10,
        )
        cfg = discrete(base.cfg) if self.discrete else base.cfg
        return replace(base, cfg=cfg, recipe=later, start=base)


def as_trained(cfg: RTDETRConfig) -> RTDETRConfig:
    """The bilinear model before any fine-tune."""
    return cfg


def from_scratch_discrete(cfg: RTDETRConfig) -> RTDETRConfig:
    """A gather has no derivative with respect to its index, so offsets never learn. They stay the
    initial star of rays, and the result is worse than the fine-tune."""
    return discrete(cfg)


DISCRETE = (
    variant(as_trained, "bilinear"),
    Variant("bilinear, fine-tuned", FineTune(discrete=False), "The control: more training."),
    Variant(
        "discrete, fine-tuned",
        FineTune(discrete=True),
        "With offsets that are already learned, reading whole cells costs half a point of AP.",
    ),
    variant(from_scratch_discrete, "discrete from scratch"),
)
"""Rows of Table 4, with the controls it needs."""
