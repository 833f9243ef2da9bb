r"""# CCFF: mix coarse and fine maps, with convolutions

- **Paper**     RT-DETR §4.2, Eq. 1, Fig. 5 ("CNN-based cross-scale feature fusion"; the preprint
  calls it CCFM); RepVGG: Ding et al. 2021; CSP: Wang et al. 2020
- **Notebook**  `notebooks/07_ccff.ipynb`
- **Elsewhere** authors' and transformers' `lateral_convs`, `fpn_blocks`, `downsample_convs`,
  `pan_blocks`

After AIFI, F5 shows what is in the picture, and S3 shows where the edges are. A small object needs
both. CCFF first carries meaning from coarse maps to fine ones (top-down), then detail from fine
maps back to coarse ones (bottom-up). Arrows down are top-down, arrows up are bottom-up. `fuse`
stacks the maps that enter it, and mixes them:

```
F5─lateral─F̂5───────────────────────fuse─O5
           ↓ up ×2                  ↑ stride 2
S4────────fuse─F4─lateral─F̂4───fuse─O4
                          ↓ up  ↑ stride 2
S3───────────────────────fuse───O3 = F3
```

$$ \hat F_l = \mathrm{lateral}(F_l), \quad F_l = \mathrm{fuse}([\,\uparrow_2 \hat F_{l+1},\, S_l]),
   \quad O_{l+1} = \mathrm{fuse}([\downarrow_2 O_l,\, \hat F_{l+1}]), \quad O_3 = F_3 \tag{07.1} $$

We compute F4, F3 = O3, O4 and O5, in this order. The square brackets stack two maps along the
channels, $\uparrow_2$ doubles their sides, and $\downarrow_2$ is a 3×3 convolution with stride 2.

The fusion block `fuse` is a `CSPRepLayer` with two parallel paths: one is a 1×1 convolution, the
other a 1×1 convolution and three `RepVggBlock`s. A RepVggBlock *trains* as a 3×3 and a 1×1
convolution whose outputs are added, as in the code below. For inference `kernels/folding.py` can
merge the two into one 3×3 convolution: a sum of linear maps is a linear map
(Eq. 07.2, notebook 07).

The paper scales the encoder by the number of RepVggBlocks in a fusion block and by the width D
(§4.4). The published ResNet models all have three, and D = 256 (r101: 384). In addition, a fusion
block has `expansion` × D channels inside: 1.0 × D in r50 and r101, 0.5 × D in the smaller models.

Upsampling repeats every cell 2×2, and cuts the result to the size of the finer map. For
example, 4 cells become 8 and are cut to 7. Cell $i$ of the finer map always reads cell $\lfloor i/2
\rfloor$. So any picture size works.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import require, require_at_least
from rtdetr_lab.layers import Activation, ConvNormAct
from rtdetr_lab.taps import tap


class RepVggBlock(nn.Module):
    """Add a 3×3 and a 1×1 convolution, then activate. `kernels/folding.py` merges the two."""

    def __init__(self, channels: int, act: Activation) -> None:
        super().__init__()
        self.dense = ConvNormAct(channels, channels, 3)
        self.pointwise = ConvNormAct(channels, channels, 1)
        self.act = act

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return self.act(self.dense(x) + self.pointwise(x))


class CSPRepLayer(nn.Module):
    """Add two 1×1 paths, one with RepVGG blocks; a last 1×1 only if the width changes."""

    def __init__(
        self, channels_in: int, channels_out: int, hidden: int, num_blocks: int, act: Activation
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels_in, hidden, 1, act=act)
        self.conv2 = ConvNormAct(channels_in, hidden, 1, act=act)
        self.blocks = nn.Sequential(*[RepVggBlock(hidden, act) for _ in range(num_blocks)])
        widen = hidden != channels_out
        self.conv3 = ConvNormAct(hidden, channels_out, 1, act=act) if widen else nn.Identity()

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co H W"]:
        return self.conv3(self.blocks(self.conv1(x)) + self.conv2(x))


@dataclass(frozen=True)
class CCFFConfig:
    """Width inside the fusion blocks (a fraction of D), and the number of RepVGG blocks in each."""

    expansion: float = 1.0
    num_blocks: int = 3
    act: Activation = F.silu

    def build(self, dim: int, num_levels: int) -> "CCFF":
        what = f"{self.expansion} leaves no channel of {dim}"
        remedy = "choose a number from 0.25 to 2"
        require(self.hidden(dim) >= 1, "encoder.ccff.expansion", what, remedy)
        require_at_least(0, "encoder.ccff", num_blocks=self.num_blocks)
        return CCFF(self, dim, num_levels)

    def hidden(self, dim: int) -> int:
        """Width inside a fusion block."""
        return int(dim * self.expansion)

    def lateral(self, dim: int) -> nn.Module:
        """Make the unit that a coarse map goes through on its way down."""
        return ConvNormAct(dim, dim, 1, act=self.act)

    def fuse(self, dim: int) -> nn.Module:
        """Make the fusion of two stacked maps."""
        return CSPRepLayer(2 * dim, dim, self.hidden(dim), self.num_blocks, self.act)

    def downsample(self, dim: int) -> nn.Module:
        """Make the unit that halves a fine map on its way up."""
        return ConvNormAct(dim, dim, 3, 2, self.act)


class CCFF(nn.Module):
    """Fuse top-down, then bottom-up (Eq. 07.1); any number of levels, a single one is unchanged.

    The config makes the parts: one that makes others fuses in another way.
    """

    def __init__(self, cfg: CCFFConfig, dim: int, num_levels: int) -> None:
        super().__init__()
        steps = range(num_levels - 1)
        self.lateral = nn.ModuleList(cfg.lateral(dim) for _ in steps)
        self.top_down = nn.ModuleList(cfg.fuse(dim) for _ in steps)
        self.downsample = nn.ModuleList(cfg.downsample(dim) for _ in steps)
        self.bottom_up = nn.ModuleList(cfg.fuse(dim) for _ in steps)

    def forward(self, maps: Sequence[Float[Tensor, "B D _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        """Fuse maps, ordered from fine to coarse, into as many maps of the same sizes."""
        return self._bottom_up(self._top_down(list(maps)))

    def _top_down(self, maps: list[Tensor]) -> list[Tensor]:
        down = [maps[-1]]
        for finer, lateral, fuse in zip(
            reversed(maps[:-1]), self.lateral, self.top_down, strict=True
        ):
            down[0] = tap(f"top_down.{len(maps) - len(down)}", lateral(down[0]))
            down.insert(0, fuse(torch.cat([upsample_to(down[0], finer), finer], dim=1)))
        return [tap("top_down.0", down[0]), *down[1:]]

    def _bottom_up(self, maps: list[Tensor]) -> list[Tensor]:
        up = [tap("bottom_up.0", maps[0])]
        for coarser, downsample, fuse in zip(
            maps[1:], self.downsample, self.bottom_up, strict=True
        ):
            fused = fuse(torch.cat([downsample(up[-1]), coarser], dim=1))
            up.append(tap(f"bottom_up.{len(up)}", fused))
        return up


def upsample_to(
    coarse: Float[Tensor, "B D h w"], fine: Float[Tensor, "B _ H W"]
) -> Float[Tensor, "B D H W"]:
    """Repeat every cell 2×2 and cut to the finer map's size."""
    height, width = fine.shape[-2:]
    return F.interpolate(coarse, scale_factor=2.0, mode="nearest")[..., :height, :width]
