r"""# D-FINE's losses: teach distributions, and let the last layer teach the others

- **Paper**     D-FINE (arXiv 2410.13842) §4.1 (FGL), §4.2 (GO-LSD, with DDF)
- **Notebook**  `notebooks/21_dfine.ipynb`
- **Elsewhere** authors' `DFINECriterion` (`loss_local`, `_get_go_indices`); transformers'
  `DFineLoss`

RT-DETR's criterion (`criterion.py`) judges scores and boxes. D-FINE adds two losses on the
distributions of the edges, and changes which queries the box losses see.

**FGL** (fine-grained localization) asks: *is the distribution at the right place?* Seen from the
first box, an edge of the object is at a distance $d^*$. It lies between two distances of the table,
$W(n) \le d^* < W(n+1)$. The two bins share the target in proportion, and the loss is their
cross-entropy, weighted by the IoU of the layer's box:

$$ \mathcal L_{\text{FGL}} = \frac1{\text{pairs}} \sum_t \mathrm{IoU}_t \sum_{\text{4 edges}}
   \bigl(-(1 - \omega) \log p_n - \omega \log p_{n+1}\bigr), \qquad
   \omega = \frac{d^* - W(n)}{W(n+1) - W(n)} \tag{21.7} $$

Outside the table, the outermost bin alone is the target.

**DDF** (decoupled distillation focal) asks: *is the distribution where the last layer's is?* The
last layer knows best, so all earlier layers learn from it, without any label, on **all** queries.
With $q$ the last layer's probabilities at temperature $\theta = 5$, $p$ those of the layer, both
from scores divided by $\theta$:

$$ \ell_{k} = w_k\, \theta^2\, \tfrac14 \sum_{\text{4 edges}} \mathrm{KL}(q_k \,\|\, p_k), \qquad
   \mathcal L_{\text{DDF}} = \frac{\sqrt{P}\; \overline{\ell}_{\text{matched}}
   + \sqrt{R}\; \overline{\ell}_{\text{rest}}}{\sqrt P + \sqrt R} \tag{21.8} $$

A matched query weighs its IoU, another its best class score in the last layer. $P$ and $R$ are
their numbers. There are far fewer matched queries; the square roots keep the rest from deciding
alone. A good layer so gets better at no cost at inference ("self-distillation").

**One matching for all boxes** (global optimal). Every layer is matched alone, and two layers may
disagree about which query answers. A query that one layer trains and the next one ignores has a
distribution that flickers. So the box losses, FGL and DDF use the **union** of the pairs of all
layers. A query that is paired with several objects keeps the one it was paired with most often:

$$ \sigma^\cup(q) = \operatorname{argmax}_t \; \#\{\text{layers} : \sigma(t) = q\} \tag{21.9} $$

The scores keep the matching of their own layer: two queries must not both say "yes".

| term                         | theirs        | weight | on                                       |
|------------------------------|---------------|--------|------------------------------------------|
| `class…`                     | `loss_vfl`    | 1      | as RT-DETR                               |
| `l1…`, `giou…`               | as RT-DETR    | 5, 2   | the union                                |
| `class.start`, `l1.start`, … | `…_pre`       | same   | the first layer's box, before it moves   |
| `fgl`, `fgl.layer0`, …       | `loss_fgl`    | 0.15   | the union, every layer                   |
| `ddf.layer0`, …              | `loss_ddf`    | 1.5    | all queries, every layer but the last    |
| `fgl.denoising0`, …          | `loss_fgl_dn` | same   | denoising queries; their pairs are known |

For denoising queries $P$ and $R$ are those of the ordinary ones, as in the authors' code.
transformers' loss differs in several places (`docs/differences.md`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.boxes import paired_iou, xyxy_from_cxcywh
from rtdetr_lab.config import require, require_weights
from rtdetr_lab.criterion import Criterion, CriterionConfig, Pairs, denoising_pairs
from rtdetr_lab.structures import Assignment, Denoised, LayerPrediction, Prediction, Targets
from rtdetr_lab.structures.ranks import mean_over_ranks
from rtdetr_lab.successors.fdr import EdgePrediction, edges_away

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class DFINECriterionConfig(CriterionConfig):
    """RT-DETR's criterion, the weights of FGL and DDF, and DDF's temperature.

    With `one_matching=False` every layer keeps its own pairs, as in RT-DETR.
    """

    fgl_weight: float = 0.15
    ddf_weight: float = 1.5
    temperature: float = 5.0
    one_matching: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_weights("criterion", self.fgl_weight, self.ddf_weight, 1.0)
        what = f"is {self.temperature}"
        require(self.temperature > 0, "criterion.temperature", what, "give a positive number")

    def build(self) -> "DFINECriterion":
        return DFINECriterion(self)


class DFINECriterion(Criterion):
    """Compute RT-DETR's terms, and those of the distributions of the edges."""

    cfg: DFINECriterionConfig

    def layers(self, prediction: Prediction) -> Iterator[tuple[str, LayerPrediction]]:
        """Every prediction that needs a matching: also the first box, before it moves."""
        yield from super().layers(prediction)
        yield ".start", edges(prediction.layers)[0].start

    def terms(
        self, prediction: Prediction, targets: Targets, pairs: Pairs, num_boxes: float
    ) -> Terms:
        """Compute all terms, given the assignment of every layer."""
        shared, pairs_of_boxes = num_boxes, pairs
        if self.cfg.one_matching:
            joined = union(pairs.values())
            shared = mean_over_ranks(sum(map(len, joined.queries)), prediction.boxes.device)
            pairs_of_boxes = dict.fromkeys(pairs, joined)
        terms: Terms = {}
        for name, layer in self.layers(prediction):
            own = self._terms(name, layer, targets, pairs[name], num_boxes)
            boxes = self._terms(name, layer, targets, pairs_of_boxes[name], shared)
            terms |= boxes | {f"class{name}": own[f"class{name}"]}
        *before, last = edges(prediction.layers)
        roots = roots_of(pairs_of_boxes[""], last)
        for name, layer in (("", last), *((f".layer{i}", b) for i, b in enumerate(before))):
            among = pairs_of_boxes[name]
            terms |= self.edge_terms(name, layer, last, targets, among, shared, roots)
        if prediction.denoising is not None:
            terms |= self._denoising_terms(prediction.denoising, targets, num_boxes)
            terms |= self._denoised_edges(prediction.denoising, targets, num_boxes, roots)
        return terms

    def _denoised_edges(
        self, denoised: Denoised, targets: Targets, num_boxes: float, roots: tuple[float, float]
    ) -> Terms:
        """Terms of the denoising queries that RT-DETR does not have; zero without an object."""
        layers, pairs = edges(denoised.layers), denoising_pairs(denoised.batch)
        start = Denoised((layers[0].start,), denoised.batch)
        first = self._denoising_terms(start, targets, num_boxes)
        terms = {n.replace("denoising0", "denoising_start"): t for n, t in first.items()}
        count = num_boxes * max(sum(map(len, pairs.queries)) / max(targets.num_boxes, 1), 1.0)
        for i, layer in enumerate(layers):
            name = f".denoising{i}"
            found = self.edge_terms(name, layer, layers[-1], targets, pairs, count, roots)
            terms |= found if targets.num_boxes else {n: 0 * t for n, t in found.items()}
        return terms

    def edge_terms(
        self,
        name: str,
        layer: EdgePrediction,
        teacher: EdgePrediction,
        targets: Targets,
        pairs: Assignment,
        count: float,
        roots: tuple[float, float],
    ) -> Terms:
        """Compute FGL of a layer, and DDF unless it is its own teacher.

        FGL is divided by `count`; `roots` are those of P and R in Eq. 21.8.
        """
        cfg, matched = self.cfg, pairs.flat
        dtype = torch.promote_types(layer.corner_logits.dtype, torch.float32)
        wanted = pairs.gather(targets.boxes).to(dtype)
        found = layer.boxes[matched].detach().to(dtype)
        iou = paired_iou(xyxy_from_cxcywh(found), xyxy_from_cxcywh(wanted))
        scores, start = layer.corner_logits.to(dtype), layer.start.boxes[matched].detach()
        error = edge_error(scores[matched], layer.distances, edges_away(start.to(dtype), wanted))
        terms = {f"fgl{name}": cfg.fgl_weight * (iou[:, None] * error).sum() / count}
        if layer is not teacher:
            weight = teacher.logits.detach().to(dtype).sigmoid().amax(-1)
            weight[matched] = iou
            target = teacher.corner_logits.detach().to(dtype)
            away = weight * divergence(scores, target, cfg.temperature)
            terms[f"ddf{name}"] = cfg.ddf_weight * balanced(away, matched, roots)
        return terms


def edges(layers: tuple[LayerPrediction, ...]) -> list[EdgePrediction]:
    """Return the layers; raise `TypeError` if a decoder does not predict distributions."""
    found = [layer for layer in layers if isinstance(layer, EdgePrediction)]
    if len(found) != len(layers):
        raise TypeError("D-FINE's criterion needs D-FINE's decoder: build it from FDRConfig")
    return found


def edge_error(
    scores: Float[Tensor, "T 4 n"],
    distances: Float[Tensor, " n"],
    away: Float[Tensor, "T 4"],
) -> Float[Tensor, "T 4"]:
    """Cross-entropy of each edge with the two bins around its distance (Eq. 21.7)."""
    low, share = bins_around(distances.to(away.dtype), away)
    log = scores.log_softmax(-1)
    both = torch.stack([low, low + 1], dim=-1)
    left, right = log.gather(-1, both).unbind(-1)
    return -((1 - share) * left + share * right)


def bins_around(
    distances: Float[Tensor, " n"], away: Float[Tensor, "T 4"]
) -> tuple[Int[Tensor, "T 4"], Float[Tensor, "T 4"]]:
    """Return the bin below each distance, and the share of the bin above it, from 0 to 1."""
    low = torch.searchsorted(distances, away.contiguous(), right=True) - 1
    low = low.clamp(0, len(distances) - 2)
    share = (away - distances[low]) / (distances[low + 1] - distances[low])
    return low, share.clamp(0, 1)


def divergence(
    scores: Float[Tensor, "B Q 4 n"], target: Float[Tensor, "B Q 4 n"], temperature: float
) -> Float[Tensor, "B Q"]:
    """KL divergence from the target's distributions, mean of four edges, times the squared
    temperature: the first part of Eq. 21.8."""
    log, wanted = ((s / temperature).log_softmax(-1) for s in (scores, target))
    away = F.kl_div(log, wanted, reduction="none", log_target=True).sum(-1)
    return temperature**2 * away.mean(-1)


def roots_of(pairs: Assignment, layer: LayerPrediction) -> tuple[float, float]:
    """Square roots of the numbers of matched queries and of the others, in a batch."""
    matched = sum(map(len, pairs.queries))
    return matched**0.5, (layer.logits[..., 0].numel() - matched) ** 0.5


def balanced(
    error: Float[Tensor, "B Q"],
    matched: tuple[Int[Tensor, "_"], Int[Tensor, "_"]],
    roots: tuple[float, float],
) -> Float[Tensor, ""]:
    """Weigh the mean over matched queries and that over the rest by `roots` (Eq. 21.8)."""
    chosen = torch.zeros_like(error, dtype=torch.bool)
    chosen[matched] = True
    means = [part.sum() / max(len(part), 1) for part in (error[chosen], error[~chosen])]
    return (roots[0] * means[0] + roots[1] * means[1]) / sum(roots)


def union(assignments: Iterable[Assignment]) -> Assignment:
    """Join the pairs of all layers; a query keeps its most frequent object (Eq. 21.9).

    Of equally frequent objects it keeps the one with the lower number.
    """
    queries, objects = [], []
    for layers in zip(*assignments, strict=True):
        pairs = torch.cat([torch.stack(pair, dim=1) for pair in layers])
        different, counts = pairs.unique(dim=0, return_counts=True)
        order = counts.argsort(descending=True, stable=True)
        best: dict[int, int] = {}
        for query, item in different[order].tolist():
            best.setdefault(query, item)
        queries.append(pairs.new_tensor(list(best)))
        objects.append(pairs.new_tensor(list(best.values())))
    return Assignment(tuple(queries), tuple(objects))
