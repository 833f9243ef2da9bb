"""# Planar: the form of deformable attention for runtimes that read ONNX

`GridSample` reads maps, channel by channel. The chapter projects *tokens* and turns the result into
maps: a transposition of 8400 × 256 numbers in every layer. A runtime computes the projection in two
milliseconds, and the transposition in fifteen (OpenVINO in bfloat16, one thread).

A linear map of tokens is a 1×1 convolution of maps. So the memory is joined as maps, the values are
convolutions of it, and only the part that needs tokens transposes, once. Every level is weighted
and summed by itself, so that the values of all points need not be stacked.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.deployment.inference_form import InferenceRTDETR
from rtdetr_lab.notation import Size
from rtdetr_lab.samplers import Bilinear


def planar(form: nn.Module) -> nn.Module:
    """Give a deployed model this form, in place, where its attention is the chapter's."""
    for path, module in list(form.named_modules()):
        if type(module) is DeformableAttention and type(module.sampler) is Bilinear:
            form.set_submodule(path, PlanarAttention(module))
    if isinstance(form, InferenceRTDETR):
        form.join = planar_tokens
    return form


def planar_tokens(maps: Sequence[Float[Tensor, "B D _ _"]]) -> Float[Tensor, "B N D"]:
    """Lay the cells of all levels end to end like `tokens_from_maps`, and transpose last."""
    return torch.cat([each.flatten(2) for each in maps], dim=2).transpose(1, 2)


class PlanarAttention(DeformableAttention):
    """Deformable attention whose values never become tokens."""

    def __init__(self, attention: DeformableAttention) -> None:
        nn.Module.__init__(self)  # we take over the parts and make no new ones
        self.num_heads, self.points = attention.num_heads, attention.points
        self.sampling_offsets = attention.sampling_offsets
        self.attention_weights = attention.attention_weights
        self.value_proj, self.output_proj = attention.value_proj, attention.output_proj

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        reference_boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[Size],
    ) -> Float[Tensor, "B Q D"]:
        plan = self.plan(queries, reference_boxes)
        weight, bias = self.value_proj.weight, self.value_proj.bias
        column = memory.transpose(1, 2).unsqueeze(3)  # B D N 1
        value = F.conv2d(column, weight[:, :, None, None], bias).squeeze(3)
        cells = [height * width for height, width in shapes]
        by_head = value.unflatten(1, (self.num_heads, -1)).flatten(0, 1).split(cells, dim=2)
        grid = (2 * plan.locations - 1).transpose(1, 2).flatten(0, 1)  # BM Q P 2, in [-1, 1]
        shares = plan.weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)  # BM 1 Q P
        points = list(self.points)
        levels = zip(by_head, shapes, grid.split(points, 2), shares.split(points, 3), strict=True)
        read = [
            (F.grid_sample(flat.unflatten(2, shape), at, align_corners=False) * share).sum(-1)
            for flat, shape, at, share in levels
        ]
        mixed = sum(read[1:], read[0])
        return self.output_proj(mixed.unflatten(0, (-1, self.num_heads)).flatten(1, 2).mT)


def without_undone(program: Any) -> Any:
    """Remove, from an exported program, every transposition that undoes the one before it."""
    swap = torch.ops.aten.transpose.int
    for node in program.graph.nodes:
        if node.target is swap and getattr(node.args[0], "target", None) is swap:
            before = node.args[0]
            if set(before.args[1:]) == set(node.args[1:]):
                node.replace_all_uses_with(before.args[0])
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program
