r"""# D-FINE: what do distributions, their losses and the other neck give?

- **Paper**     D-FINE (arXiv 2410.13842) §5, Tables 3 and 5
- **Study**     `rtdetr-lab ablate dfine`

The paper builds D-FINE-L in steps from RT-DETR-L, from 53.0 to 54.0 AP
(`successors/dfine.py` has the steps). The steps change speed and quality in turn. Our rows ask a
simpler question: which of the three parts gives what, on the same backbone? The first row after the
reference has all of them; each of the others has one part more, or one part less.
"""

from typing import Any

from rtdetr_lab.ablations.variant import variant
from rtdetr_lab.config import replace_all, replace_at
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.successors.dfine import DFINEConfig, as_dfine


def rt_detr(cfg: RTDETRConfig) -> RTDETRConfig:
    """The model that all others change: a box moves by one step per layer."""
    return cfg


def d_fine(cfg: RTDETRConfig) -> DFINEConfig:
    """Distributions of edges, their losses and GELAN fusion find the same objects with tighter
    boxes, at the same size: AP rises, and AP50 less."""
    ccff = cfg.encoder.ccff
    # GELAN's half width: 0.5 where RT-DETR has it (nano, r18), else 1.0, as in the presets.
    return as_dfine(cfg, ccff.expansion, ccff.num_blocks - (ccff.expansion < 1))


def gelan(cfg: RTDETRConfig) -> Any:
    """The other neck alone is a trade: fewer weights, about the same AP (Table 3: +0.7, and back
    by the half width)."""
    return replace_at(cfg, "encoder.ccff", d_fine(cfg).encoder.ccff)


def no_distribution_losses(cfg: RTDETRConfig) -> Any:
    """A distribution that only L1 and GIoU train has no reason to be sharp: most of the gain is in
    its losses."""
    return replace_all(d_fine(cfg), {"criterion.fgl_weight": 0.0, "criterion.ddf_weight": 0.0})


def no_distillation(cfg: RTDETRConfig) -> Any:
    """Early layers also learn from their own labels: without the last layer as a teacher, the last
    layer loses little."""
    return replace_at(d_fine(cfg), "criterion.ddf_weight", 0.0)


def one_matching_per_layer(cfg: RTDETRConfig) -> Any:
    """If every layer trains its own pairs, a query that loses its object loses its distribution,
    too: lower AP, most of all early in training."""
    return replace_at(d_fine(cfg), "criterion.one_matching", False)


DFINE = (
    variant(rt_detr, "RT-DETR"),
    variant(d_fine, "D-FINE"),
    variant(gelan, "GELAN alone"),
    variant(no_distribution_losses),
    variant(no_distillation),
    variant(one_matching_per_layer),
)
"""RT-DETR, D-FINE, and what lies between."""
