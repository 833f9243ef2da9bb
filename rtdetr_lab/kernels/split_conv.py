"""# Split convolution: a 1×1 convolution of two stacked maps, without stacking them

A 1×1 convolution and repeating cells commute. So the coarse map is convolved before it is
enlarged, and the two halves of the weights act on one map each.
"""

from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.ccff import upsample_to
from rtdetr_lab.layers import Activation


class SplitConv(nn.Module):
    """A 1×1 convolution of two stacked maps as a sum of one for each."""

    def __init__(self, coarse: nn.Conv2d, fine: nn.Conv2d, act: Activation) -> None:
        super().__init__()
        self.coarse, self.fine, self.act = coarse, fine, act

    def forward(
        self, coarse: Float[Tensor, "B D h w"], fine: Float[Tensor, "B D H W"]
    ) -> Float[Tensor, "B Do H W"]:
        return self.act(self.fine(fine) + upsample_to(self.coarse(coarse), fine))
