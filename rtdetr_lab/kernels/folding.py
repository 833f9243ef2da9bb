r"""# Folding: a batch norm that stands still is part of the convolution before it

In eval mode, and always when it is frozen, batch norm multiplies and shifts every channel by
constants. A convolution does too, so the two are one:

$$ \mathrm{norm}(W x) = \frac{\gamma}{\sqrt{v + \varepsilon}} (W x - \mu) + \beta = W' x + b' $$

And a 3×3 beside a 1×1 convolution is one 3×3, whose middle tap holds both (RepVGG §3.3). `fused`
knows the chapters' blocks that are one of the two; what derives from one may compute anything, and
is left alone. Products are taken in double precision, on the CPU, and rounded once.
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
    """Batch norm, live or frozen: per channel a mean, a variance, a factor and a summand."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float


class ConvAct(nn.Module):
    """Convolution with bias, activation: what is left of a `ConvNormAct`."""

    def __init__(self, conv: nn.Conv2d, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = conv
        self.act = act

    def forward(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.act(self.conv(x))


class SplitConv(nn.Module):
    """A 1×1 convolution of two stacked maps, without stacking them, as a sum of one for each.

    It commutes with repeating cells: the coarse map is convolved before it is enlarged.
    """

    def __init__(self, coarse: nn.Conv2d, fine: nn.Conv2d, act: Activation) -> None:
        super().__init__()
        self.coarse, self.fine, self.act = coarse, fine, act

    def forward(
        self, coarse: Float[Tensor, "B D h w"], fine: Float[Tensor, "B D H W"]
    ) -> Float[Tensor, "B Do H W"]:
        return self.act(self.fine(fine) + upsample_to(self.coarse(coarse), fine))


def fused(block: nn.Module) -> nn.Module:
    """The same function with fewer steps, or the block itself where none is known."""
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
    # What has no values (`meta`) can only stay where it is.
    return (values if values.is_meta else values.cpu()).double()


def _bias(conv: nn.Conv2d) -> Float[Tensor, " Co"]:
    none = conv.weight.new_zeros(conv.out_channels)
    return _exact(none if conv.bias is None else conv.bias)


@torch.no_grad()
def _with(
    conv: nn.Conv2d, weight: Float[Tensor, "Co Ci kh kw"], bias: Float[Tensor, " Co"]
) -> nn.Conv2d:
    """`conv` with other values, the same stride, padding and dilation."""
    like = conv.weight
    made = copy.deepcopy(conv).requires_grad_(False)
    made.weight = nn.Parameter(weight.to(like), requires_grad=False)
    made.bias = nn.Parameter(bias.to(like), requires_grad=False)
    return made
