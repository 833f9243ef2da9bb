r"""# Folding: a constant batch norm is part of the convolution before it

In eval mode, and always when it is frozen, a batch norm multiplies and shifts every channel by
constants. A convolution can do that too, so one convolution replaces both:

$$ \mathrm{norm}(W x) = \frac{\gamma}{\sqrt{v + \varepsilon}} (W x - \mu) + \beta = W' x + b' $$

The sum of a 3×3 and a 1×1 convolution is one 3×3, whose middle tap contains both (RepVGG §3.3).
`fused` handles the chapters' own blocks of these two kinds. A subclass may compute anything, so it
is left alone. Products are computed in double precision, on the CPU, and rounded once.
"""

import copy
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.backbone import Shortcut
from rtdetr_lab.ccff import RepVggBlock, upsample_to
from rtdetr_lab.layers import Activation, ConvNormAct


@runtime_checkable
class ChannelNorm(Protocol):
    """Batch norm, trainable or frozen, with a mean, a variance, a scale and a shift per channel."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float


class ConvAct(nn.Module):
    """Convolution with bias, and activation: what is left of a `ConvNormAct`."""

    def __init__(self, conv: nn.Conv2d, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = conv
        self.act = act

    def forward(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.act(self.conv(x))


class SplitConv(nn.Module):
    """1×1 convolution of two stacked maps, computed as a sum of one convolution for each.

    It commutes with repeating cells, so the coarse map is convolved before it is enlarged.
    """

    def __init__(self, coarse: nn.Conv2d, fine: nn.Conv2d, act: Activation) -> None:
        super().__init__()
        self.coarse, self.fine, self.act = coarse, fine, act

    def forward(
        self, coarse: Float[Tensor, "B D h w"], fine: Float[Tensor, "B D H W"]
    ) -> Float[Tensor, "B Do H W"]:
        return self.act(self.fine(fine) + upsample_to(self.coarse(coarse), fine))


def fused(block: nn.Module) -> nn.Module:
    """Return the same function with fewer steps, or the block itself if we have no shorter form."""
    if type(block) is ConvNormAct and (conv := fold(block.conv, block.norm)):
        return ConvAct(conv, block.act)
    if type(block) is Shortcut and (conv := fold(block.conv, block.norm)):
        return nn.Sequential(block.pool, conv)
    if type(block) is RepVggBlock:
        dense, pointwise = fused(block.dense), fused(block.pointwise)
        if isinstance(dense, ConvAct) and isinstance(pointwise, ConvAct):
            return ConvAct(side_by_side(dense.conv, pointwise.conv), block.act)
    return block


def fold(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d | None:
    """Merge both into one convolution (Eq. 17.2, notebook 17); None if the norm is not constant."""
    if not isinstance(norm, ChannelNorm) or not isinstance(norm.weight, Tensor):
        return None
    factor = _exact(norm.weight) / (_exact(norm.running_var) + norm.eps).sqrt()
    shift = _exact(norm.bias) + (_bias(conv) - _exact(norm.running_mean)) * factor
    return _with(conv, _exact(conv.weight) * factor[:, None, None, None], shift)


def side_by_side(dense: nn.Conv2d, pointwise: nn.Conv2d) -> nn.Conv2d:
    """Merge a 3×3 and a 1×1 whose results are added into one 3×3 (Eq. 07.2, notebook 07)."""
    weight = _exact(dense.weight) + F.pad(_exact(pointwise.weight), (1, 1, 1, 1))
    return _with(dense, weight, _bias(dense) + _bias(pointwise))


def _exact(values: Tensor) -> Tensor:
    # A tensor on `meta` has no values that could move to the CPU.
    return (values if values.is_meta else values.cpu()).double()


def _bias(conv: nn.Conv2d) -> Float[Tensor, " Co"]:
    none = conv.weight.new_zeros(conv.out_channels)
    return _exact(none if conv.bias is None else conv.bias)


@torch.no_grad()
def _with(
    conv: nn.Conv2d, weight: Float[Tensor, "Co Ci kh kw"], bias: Float[Tensor, " Co"]
) -> nn.Conv2d:
    """Copy `conv` with other values, and the same stride, padding and dilation."""
    like = conv.weight
    made = copy.deepcopy(conv).requires_grad_(False)
    made.weight = nn.Parameter(weight.to(like), requires_grad=False)
    made.bias = nn.Parameter(bias.to(like), requires_grad=False)
    return made
