"""# NMS: what suppression costs (RT-DETR Fig. 2 and Table 1, in miniature)

A YOLO answers with thousands of boxes, and how many survive the confidence threshold depends on the
picture: so does the time of what comes after. A DETR's top-k is the same work for every picture.
"""

from jaxtyping import Float, Int
from torch import Tensor, rand, randn

from rtdetr_lab.boxes import iou, xyxy_from_cxcywh
from rtdetr_lab.deployment.answers import by_sigmoid
from rtdetr_lab.deployment.bench.timing import CLOCKS, Times, interleaved
from rtdetr_lab.images.postprocess import survivors


def nms(
    boxes_xyxy: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], confidence: float, max_iou: float
) -> Int[Tensor, " k"]:
    """Greedy suppression in plain torch: indices of those that stay, best first."""
    index = (scores > confidence).nonzero().squeeze(1)
    index = index[scores[index].argsort(descending=True, stable=True)]
    kept = boxes_xyxy[index]
    return index[survivors(iou(kept, kept) > max_iou)]


def bench_nms(
    counts: tuple[int, ...] = (300, 1000, 3000),
    confidences: tuple[float, ...] = (0.001, 0.05, 0.25),
    max_ious: tuple[float, ...] = (0.5, 0.7),
    rounds: int = 5,
    clock: str = "wall",
) -> dict[str, Times]:
    """Times by "boxes, confidence, IoU", and of the top-k that does without."""
    subjects = {}
    for count in counts:
        boxes = xyxy_from_cxcywh(0.1 + 0.8 * rand(count, 4) * rand(count, 1))
        scores = rand(count) ** 4  # most of what a detector says, it says with little conviction
        for confidence in confidences:
            for most in max_ious:
                given = (boxes, scores, confidence, most)
                subjects[f"NMS of {count}, score > {confidence}, IoU ≤ {most}"] = _call(given)
    logits, boxes = randn(1, 300, 80), rand(1, 300, 4)
    sizes = rand(1, 2) + 640
    subjects["our top-k of 300 × 80"] = lambda: by_sigmoid(logits, boxes, sizes)
    return interleaved(subjects, rounds, 1, clock=CLOCKS[clock])


def _call(given: tuple[Tensor, Tensor, float, float]):  # type: ignore[no-untyped-def]
    return lambda: nms(*given)
