r"""# GELAN fusion: the neck of D-FINE

- **Paper**     D-FINE (arXiv 2410.13842) Table 3; GELAN: YOLOv9 (Wang et al. 2024); SCDown: YOLOv10
  (Wang et al. 2024)
- **Notebook**  `notebooks/21_dfine.ipynb`
- **Elsewhere** authors' `RepNCSPELAN4`, `SCDown`; transformers' `DFineRepNCSPELAN4`, `DFineSCDown`

D-FINE keeps the hybrid encoder of RT-DETR, with its two paths: meaning down, detail up (`ccff.py`).
Only the parts along the paths change. Its fusion block keeps what every step computed, as a block
of HGNetv2 does:

```
cat(2D) ─ 1×1 ─┬─ left half (D) ────────────────────────────────┐
               └─ right half (D) ─┬─────────────────────────────┤
                                  └─ CSP ─ 3×3 (h) ─┬───────────┤
                                                    └─ CSP ─ 3×3┴─ cat ─ 1×1 ─ D
```

$$ [y_0, y_1] = W x, \qquad y_2 = \mathrm{branch}(y_1), \quad y_3 = \mathrm{branch}(y_2), \qquad
   \mathrm{fuse}(x) = W' [y_0, y_1, y_2, y_3] \tag{21.1} $$

A branch is a `CSPRepLayer` and a 3×3 convolution. Its width is $h = \lfloor e D / 2 \rfloor$, with
`expansion` $e$.

| unit       | CCFF (RT-DETR)              | GELAN fusion (D-FINE)                            |
|------------|-----------------------------|--------------------------------------------------|
| lateral    | 1×1, norm, SiLU             | 1×1, norm                                        |
| fuse       | `CSPRepLayer`, three blocks | `GELANLayer`, `num_blocks` in each branch        |
| downsample | dense 3×3, stride 2         | 1×1, then a depthwise 3×3 with stride 2 (SCDown) |

SCDown ("spatial-channel decoupled") separates two jobs: the 1×1 mixes channels, the depthwise one
halves the map. With $D = 256$ that is 68 thousand weights, where the dense 3×3 has 590 thousand.

Table 3 of the paper builds D-FINE-L in steps. GELAN of full width brings 52.8 AP to 53.5; half the
width, which is what `expansion` means here, takes it back to 52.8.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.ccff import CCFFConfig, CSPRepLayer
from rtdetr_lab.layers import ConvNormAct


@dataclass(frozen=True)
class GELANConfig(CCFFConfig):
    """A CCFF made of other parts. A branch is `expansion` · D / 2 wide."""

    def hidden(self, dim: int) -> int:
        """Width of a branch."""
        return int(self.expansion * dim // 2)

    def lateral(self, dim: int) -> nn.Module:
        """Make a 1×1 convolution without activation."""
        return ConvNormAct(dim, dim)

    def fuse(self, dim: int) -> nn.Module:
        """Make a `GELANLayer`."""
        return GELANLayer(self, dim)

    def downsample(self, dim: int) -> nn.Module:
        """Make SCDown: mix the channels, then halve each of them alone."""
        return nn.Sequential(ConvNormAct(dim, dim), ConvNormAct(dim, dim, 3, 2, groups=dim))


class GELANLayer(nn.Module):
    """Fuse two stacked maps; both halves and both branches are kept and mixed (Eq. 21.1)."""

    def __init__(self, cfg: GELANConfig, dim: int) -> None:
        super().__init__()
        hidden = cfg.hidden(dim)
        self.split = ConvNormAct(2 * dim, 2 * dim, act=cfg.act)
        self.branch1 = self.make_branch(cfg, dim, hidden)
        self.branch2 = self.make_branch(cfg, hidden, hidden)
        self.merge = ConvNormAct(2 * dim + 2 * hidden, dim, act=cfg.act)

    def make_branch(self, cfg: GELANConfig, channels_in: int, hidden: int) -> nn.Sequential:
        """Make RepVGG blocks beside a shortcut, then a 3×3 convolution."""
        csp = CSPRepLayer(channels_in, hidden, hidden, cfg.num_blocks, cfg.act)
        return nn.Sequential(csp, ConvNormAct(hidden, hidden, 3, act=cfg.act))

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B D H W"]:
        left, right = self.split(x).chunk(2, dim=1)
        first = self.branch1(right)
        return self.merge(torch.cat([left, right, first, self.branch2(first)], dim=1))
