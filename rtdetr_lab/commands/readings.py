r"""# Readings: what a detector looks at, for one detection

    maps = lab.heatmap(detector, "picture.png")              # of the best detection
    maps = lab.heatmap(detector, "picture.png", found_one)   # of a row of `Detections`, or a query
    maps.plot()

"What does the model look at?" is three questions. Each has its own map:

- `sampling`: how much weight the query gives to each cell when it reads the picture, averaged over
  decoder layers and heads.
- `attention`: how much the cells of S5 under the box attend to each cell of S5, averaged over these
  cells (by the area under the box), and over the layers and heads of AIFI.
- `gradient`: how much the score would change, to first order, if a cell of S3, S4 or S5 were zero.

None of them is an explanation. A weight says *where* a layer reads, not whether what it reads
matters (Jain and Wallace, "Attention is not Explanation", 2019). A gradient is *local*: it is exact
only for very small changes, and erasing a cell is a large one.

**Sampling.** A point between cells reads its neighbours, so we ask the model's own sampler for the
share of every cell: its derivative by the value of the cell. This holds for any sampler, discrete
ones too. Points outside the picture read zeros and are not on the map. DETR has no sampling points;
its map is the cross-attention from the query to all cells.

**Gradient.** For channel $c$ of cell $n$ of level $l$, with features $x$ and score $s$:

$$ g_{l,n} = \Bigl| \sum_c x_{l,n,c} \frac{\partial s}{\partial x_{l,n,c}} \Bigr| $$

This is gradient × input (Shrikumar et al. 2016), summed over channels as in HiResCAM (Draelos and
Carin 2020). We prefer it to the norm of the gradient: features end in a ReLU, so zero means
"nothing found here", and the product estimates the effect of erasing a cell. A norm ignores how
much there is to erase. All levels have the same unit, so the map is their sum. S4 is computed from
S3. To count nothing twice, each level is what the *encoder* reads, with the others fixed. The model
stops the gradient where it selects queries, so the map does not show why this token became a query.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.boxes import scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.commands.explore import level_shapes
from rtdetr_lab.config import require
from rtdetr_lab.deformable_attention import points_per_level
from rtdetr_lab.detections import Detection
from rtdetr_lab.detector import Detector
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.postprocess import at_least_single
from rtdetr_lab.model import Rank
from rtdetr_lab.notation import Size, num_tokens
from rtdetr_lab.samplers import SamplingPlan
from rtdetr_lab.structures import Prediction
from rtdetr_lab.taps import record
from rtdetr_lab.viz.heatmaps import Heatmaps, inside, spread

POINTS = "decoder.layers.0.cross_attn.locations"
"""A tap that only deformable attention has."""
TOLERANCE = 0.01
"""Largest difference of score, and of corners as a fraction of the picture, between two runs."""
MAPS = "backbone.S[345]"
"""Taps of the maps that the encoder reads; DETR's reads S5 alone."""


def heatmap(
    model: nn.Module | Detector, picture: Any, detection: Detection | int | None = None
) -> Heatmaps:
    """Compute three maps of one detection: sampling, attention and gradient (see the header).

    `picture` is anything that a `Detector` takes. `detection` is a row of its `Detections` or the
    number of a query (with its best class); default: the best detection. Give a `Detector` instead
    of a model if it has a size of its own.

    Raises `ConfigError` if the detection is not of this picture and model or the model has no such
    attention, `RecordError` for an exported or compiled model, and `ImageError` for a picture that
    cannot be read.
    """
    detector = model if isinstance(model, Detector) else Detector(model)
    net: Any = detector.model
    require(not net.training, "heatmap", "the model is in training mode", "call model.eval()")
    rgb = decode(picture, detector.limits)
    size = rgb.shape[0], rgb.shape[1]
    image = detector.preprocess(rgb).to(next(net.parameters()))
    leaves = {MAPS: lambda features: features.detach().requires_grad_()}
    with torch.enable_grad(), record(net, edit=leaves, keep="*", grad=True) as seen:
        prediction = net(image[None])
    score, label, query = _row(net.rank, prediction, detection, size)
    box = xyxy_from_cxcywh(prediction.boxes[0, query].detach().cpu())
    return Heatmaps(
        sampling=_sampling(net.cfg.decoder, seen, query, size),
        attention=_attention(seen, box, size),
        gradient=_gradient(score, seen, size),
        box_xyxy=scale_boxes(box, size),
        name=detector.classes.names[label],
        score=score.item(),
        query=query,
        image=rgb,
        reads="sampling points" if POINTS in seen else "cross-attention",
    )


def _row(
    rank: Rank, prediction: Prediction, detection: Detection | int | None, size: Size
) -> tuple[Tensor, int, int]:
    """Return score (with its gradient), label and query of a detection."""
    logits, boxes = at_least_single(prediction.logits), prediction.boxes[0]
    if isinstance(detection, int):
        what, count = f"{detection} is not a query of the model", logits.shape[1]
        require(0 <= detection < count, "detection", what, f"give 0 to {count - 1}")
        score, label, _ = rank(logits[:, detection : detection + 1])
        return score[0, 0], int(label[0, 0]), detection
    scores, labels, queries = (column[0] for column in rank(logits))
    row = 0
    if detection is not None:
        corners = scale_boxes(xyxy_from_cxcywh(boxes[queries]), size)
        far = (corners.detach() - corners.new_tensor(detection.box_xyxy)).abs().amax(-1) / max(size)
        near = (scores - detection.score).abs().maximum(far) < TOLERANCE
        same = near & (queries == detection.query) & (labels == detection.label)
        what = f"query {detection.query} does not find this {detection.name} in this picture"
        remedy = "detect in this picture alone, without tiles, with the same model and size"
        require(bool(same.any()), "detection", what, remedy)
        row = int(same.nonzero()[0])
    return scores[row], int(labels[row]), int(queries[row])


def _sampling(cfg: Any, seen: Mapping[str, Tensor], query: int, size: Size) -> Tensor:
    """Average the weight of every cell over layers and heads; spread it over the pixels."""
    weights = _layers(seen, "decoder.", "cross_attn.weights")
    if POINTS not in seen:  # DETR: one weight per cell of S5
        return _spread([weights[:, :, query].mean((0, 1))], [_shape(seen["backbone.S5"])], size)
    shapes = level_shapes(seen, cfg.num_levels)
    locations = _layers(seen, "decoder.", "cross_attn.locations")
    plan = SamplingPlan(locations[:, query, None], weights[:, query, None])
    num_layers, _, heads, _ = plan.weights.shape
    ones = plan.weights.new_ones(num_layers, num_tokens(shapes), heads, 1).requires_grad_()
    with torch.enable_grad():
        read = cfg.sampler(ones, shapes, points_per_level(cfg.num_points, cfg.num_levels), plan)
    (share,) = torch.autograd.grad(read.sum(), ones)
    levels = share.mean((0, 2))[:, 0].split([height * width for height, width in shapes])
    return _spread(levels, shapes, size)


def _attention(seen: Mapping[str, Tensor], box: Tensor, size: Size) -> Tensor:
    """Average the rows of the cells under a box (corners in [0, 1])."""
    rows, columns = _shape(seen["backbone.S5"])
    left, top, right, bottom = box.tolist()
    under = torch.outer(inside(top, bottom, rows), inside(left, right, columns)).flatten()
    weights = _layers(seen, "encoder.", "self_attn.weights").mean((0, 1)).double().cpu()
    what = f"attends between {len(weights)} cells, and S5 has {len(under)}"
    require(len(weights) == len(under), "encoder", what, "use an encoder with AIFI on S5")
    return _spread([under / under.sum() @ weights], [(rows, columns)], size)


def _gradient(score: Tensor, seen: Mapping[str, Tensor], size: Size) -> Tensor:
    """Compute |gradient × input| of every cell; add the levels."""
    maps = [features for name, features in seen.items() if fnmatchcase(name, MAPS)]
    slopes = torch.autograd.grad(score, maps, allow_unused=True)
    pairs = [(m[0], g[0]) for m, g in zip(maps, slopes, strict=True) if g is not None]
    cells = [(features * slope).detach().sum(0).abs() for features, slope in pairs]
    return _spread(cells, list(map(_shape, cells)), size)


def _layers(seen: Mapping[str, Tensor], part: str, tap: str) -> Tensor:
    """Stack the taps of this name in a part of the model, for the only picture: one per layer."""
    names = [name for name in seen if name.startswith(part) and name.endswith(tap)]
    require(bool(names), "heatmap", f"the model has no {part}{tap}", "give an RT-DETR or a DETR")
    return torch.stack([seen[name][0].detach() for name in names])


def _spread(levels: Sequence[Tensor], shapes: Sequence[Size], size: Size) -> Tensor:
    """Spread the cells of every level over the pixels, and add the levels."""
    maps = [spread(one.reshape(shape), size) for one, shape in zip(levels, shapes, strict=True)]
    return torch.stack(maps).sum(0)


def _shape(features: Tensor) -> Size:
    return features.shape[-2], features.shape[-1]
