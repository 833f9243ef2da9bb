r"""# Studies: the papers' tables, each with its rows

Each entry here describes a study: a function from a base configuration to variants, and the views
and measures of a table. It works for a base of any size. `rtdetr-lab ablate NAME` runs it at nano
size on the shapes world. With `--preset r50 --data coco` the rows are the paper's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rtdetr_lab.ablations.decoder import LOOKING_FORWARD, EveryDepth, depths, queries
from rtdetr_lab.ablations.denoising import MatchingStability, positives
from rtdetr_lab.ablations.encoder import ENCODERS
from rtdetr_lab.ablations.family import FAMILY
from rtdetr_lab.ablations.ladder import LADDER
from rtdetr_lab.ablations.line import BACKBONES, LINE
from rtdetr_lab.ablations.losses import LOSSES
from rtdetr_lab.ablations.parts import PARTS
from rtdetr_lab.ablations.sampling import DISCRETE, POINTS
from rtdetr_lab.ablations.selection import SELECTIONS, ProposalQuality
from rtdetr_lab.ablations.task import AsTrained, Measure, Views
from rtdetr_lab.ablations.variant import Variant
from rtdetr_lab.rtdetr import RTDETRConfig

Rows = Callable[[RTDETRConfig], tuple[Variant, ...]]


@dataclass(frozen=True)
class PaperTable:
    """Table of a paper: its source, rows, views, measures, and published AP."""

    source: str
    question: str
    rows: Rows
    views: Views = field(default_factory=AsTrained)
    measures: tuple[Measure, ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)


def _always(variants: tuple[Variant, ...]) -> Rows:
    return lambda cfg: variants


_RUNNING = (49.1, 51.3, 52.4, 52.7, 53.0)
"""AP of the model with six layers, by number of running layers: a column of Table 5."""

TABLES = {
    "encoder": PaperTable(
        "RT-DETR §4.2, Table 3 (R50, 12 epochs)",
        "What should happen to the scales before boxes are proposed?",
        _always(ENCODERS),
        published={"A": 43.0, "B": 44.9, "C": 45.6, "D": 46.4, "D_S5": 46.8, "E": 47.9},
    ),
    "selection": PaperTable(
        "RT-DETR §4.3, Table 4 (R50, 12 epochs)",
        "Should the score of a token reflect the quality of its box?",
        _always(SELECTIONS),
        measures=(ProposalQuality(),),
        published={"vanilla": 47.9, "uncertainty-minimal": 48.7},
    ),
    "decoder-depth": PaperTable(
        "RT-DETR §5.4, Table 5 (R50, 72 epochs)",
        "How many decoder layers must be trained, and how many must run?",
        depths,
        views=EveryDepth(),
        published={
            **{f"train {n}": ap for n, ap in {4: 52.7, 5: 52.9, 6: 53.1, 7: 52.6}.items()},
            **{f"train 6, run {n}": ap for n, ap in enumerate(_RUNNING, 1)},
        },
    ),
    "sampling-points": PaperTable(
        "RT-DETRv2 §2.1, Table 3 (v2-S)",
        "How many points does a query need, and on which level?",
        _always(POINTS),
        published={f"{n} per level": ap for n, ap in {4: 47.9, 3: 47.8, 2: 47.7, 1: 47.3}.items()},
    ),
    "discrete": PaperTable(
        "RT-DETRv2 §2.1, Table 4 (v2-S)",
        "What does it cost to read whole cells, without interpolation?",
        _always(DISCRETE),
        published={"bilinear": 47.9, "discrete, fine-tuned": 47.4},
    ),
    "denoising": PaperTable(
        "DN-DETR §3, DINO §3.3; no table in RT-DETR",
        "Does practice on noised boxes help to find real ones?",
        positives,
        measures=(MatchingStability(),),
    ),
    "look-forward-twice": PaperTable(
        "DINO §3.5; no table in RT-DETR",
        "Should a box head also learn from the loss of the next layer?",
        _always(LOOKING_FORWARD),
    ),
    "losses": PaperTable(
        "RT-DETR §4.3; no table of its own",
        "What should a score learn?",
        _always(LOSSES),
        measures=(ProposalQuality(),),
    ),
    "queries": PaperTable(
        "no table in RT-DETR, which uses 300",
        "How many queries does a picture need?",
        queries,
    ),
    "detr-vs-rtdetr": PaperTable(
        "DETR Table 1 against RT-DETR Table 2 (500 against 72 epochs)",
        "How much better is RT-DETR than DETR?",
        _always(FAMILY),
        published={"RT-DETR": 53.1, "DETR": 42.0},
    ),
    "line": PaperTable(
        "RT-DETR Table 2, D-FINE Table 3, RT-DETRv3 Table 1 (R50 or L, 72 epochs)",
        "What does each successor of RT-DETR add?",
        _always(LINE),
        published={"RT-DETR": 53.1, "D-FINE": 54.0, "RT-DETRv3": 53.4},
    ),
    "ladder": PaperTable(
        "no paper; the ideas are of Deformable DETR, DN-DETR, DINO and RT-DETR",
        "Which idea between DETR and RT-DETR is worth how much, alone and on top of the others?",
        _always(LADDER),
    ),
    "parts": PaperTable(
        "no table in RT-DETR, which changes one part on one data set",
        "What does it cost to leave a part out?",
        _always(PARTS),
    ),
    "backbone": PaperTable(
        "RT-DETR Table 2 (R50 and L, 72 epochs)",
        "Is HGNetv2 as good as ResNet-D with fewer weights?",
        _always(BACKBONES),
        published={"ResNet-D": 53.1, "HGNetv2": 53.0},
    ),
}
"""Name on the command line → table."""
