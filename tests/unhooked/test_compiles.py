"""The type-checking hook is off here, as it is for a reader: what must compile is compiled."""

import torch

from rtdetr_lab import boxes


def test_boxes_compile_into_one_graph(rng):
    a, b = torch.rand(5, 4, generator=rng), torch.rand(3, 4, generator=rng)

    def overlap(a, b):
        return boxes.giou(boxes.xyxy_from_cxcywh(a), boxes.xyxy_from_cxcywh(b))

    compiled = torch.compile(overlap, fullgraph=True, backend="eager")
    assert torch.equal(compiled(a, b), overlap(a, b))
