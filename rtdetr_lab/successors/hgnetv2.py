r"""# HGNetv2: a backbone that forgets nothing inside a block

- **Paper**     RT-DETR §5.2, Table 2 (L and X). HGNetv2 itself has no paper: it is code of
  PaddleClas; its blocks are those of VoVNet (Lee et al. 2019, §3), its light convolution is the
  depthwise separable one of MobileNet (Howard et al. 2017, §3.1)
- **Notebook**  `notebooks/20_hgnetv2.ipynb`
- **Elsewhere** `HGNetv2` with `HG_Stage`, `HG_Block`, `LightConvBNAct` (D-FINE's authors);
  `HGNetV2Backbone` (transformers)

RT-DETR was published with two backbones. The ResNet-D of `backbone.py` makes the models r18 to
r101; HGNetv2 makes **L** and **X**, and after them the whole family of D-FINE. Nothing else in the
model changes: the maps have the same strides.

A block of a ResNet adds its result to its input, and what its inner layers computed is lost. A
block of HGNetv2 keeps it. Every layer reads the one before it; in the end *all* of them, the input
too, are stacked and mixed by two 1×1 convolutions:

```
x0 ─┬─ layer ─┬─ layer ─┬─ … ─┬─ layer ─┐
    │         │x1       │x2   │         │xn
    └─────────┴─────────┴─────┴─────────┴─ cat ─ 1×1 squeeze ─ 1×1 excite ─ (+ x0) ─ y
```

$$ x_k = \mathrm{layer}_k(x_{k-1}), \qquad
   y = W_{\text{excite}} \circ W_{\text{squeeze}}\,[x_0, x_1, \dots, x_n]\ (+\,x_0) \tag{20.1} $$

The first layer of a block sees 3×3 cells, the second 5×5, and so on. So a block sees its map at
$n + 1$ sizes at once. Squeeze narrows to half the stage's width, excite widens to all of it. $x_0$
is added from the second block of a stage on, where the widths agree.

**Light blocks.** A dense $k \times k$ convolution does two jobs at once: it mixes channels, and it
mixes cells. In stages 3 and 4 the two are separated: a 1×1 convolution mixes channels, then a
depthwise one (each channel alone) mixes cells. For widths $C_i \to C_o$ the weights are

$$ k^2\, C_i\, C_o \quad\text{(dense)} \qquad\text{and}\qquad
   C_i\, C_o + k^2\, C_o \quad\text{(light)} \tag{20.2} $$

With $k = 5$ and 192 channels: 921,600 and 41,664, that is 22 times fewer. So the coarse stages can
afford 5×5 filters. Every stage but the first begins with a depthwise 3×3 of stride 2.

**The stem** halves the map twice. Between the two steps, two 2×2 convolutions and a 2×2 max pool
look at the same map side by side. A 2×2 filter has no centre; the map is padded with one row below
and one column on the right.

**Scale and shift.** The small backbones of D-FINE (B0, B2) learn two more numbers after every
activation: $s \cdot \mathrm{act}(x) + b$. That is `affine=True`. L and X do not have it.

| name | stem  | inner widths   | blocks  | layers | parameters (frozen norm) | used by   |
|------|-------|----------------|---------|--------|--------------------------|-----------|
| B4   | 32 48 | 48 96 192 384  | 1 1 3 1 | 6      | 13.5 M                   | RT-DETR-L |
| B5   | 32 64 | 64 128 256 512 | 1 2 5 2 | 6      | 33.2 M                   | RT-DETR-X |

Both have the widths 128, 512, 1024 and 2048: those of a ResNet-50, with an `S2` of half the width.

| preset      | encoder width | parameters | GFLOPs at 640² | AP (COCO) | FPS (T4, TensorRT FP16) |
|-------------|---------------|------------|----------------|-----------|-------------------------|
| `rtdetr_l`  | 256           | 32.9 M     | 111            | 53.0      | 114                     |
| `rtdetr_x`  | 384           | 67.4 M     | 235            | 54.8      | 74                      |

Beside r50 (42.9 M, 53.1 AP, 108 FPS) L saves a quarter of the parameters. X gains half a point on
r101 (76.6 M, 54.3 AP) at the same speed.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, cat, nn, ones, zeros

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.backbone import ResNetD, require_stages
from rtdetr_lab.config import require, require_at_least, require_divisible
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig
from rtdetr_lab.layers import Activation, ConvNormAct, FrozenBatchNorm2d, Norm, identity
from rtdetr_lab.rtdetr import RTDETRConfig


@dataclass(frozen=True)
class HGNetV2Config:
    """An HGNetv2; the defaults are B4, RT-DETR-L's.

    `stem` are the inner and the outer width of the stem. Per stage: `widths`, `mid_widths` (of the
    layers inside a block), `depths` (blocks), `num_layers` (in a block), `kernels`. `light` and
    `outputs` are stage numbers; 2 3 4 give S3 S4 S5.
    """

    stem: tuple[int, int] = (32, 48)
    widths: tuple[int, ...] = (128, 512, 1024, 2048)
    mid_widths: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (1, 1, 3, 1)
    num_layers: tuple[int, ...] = (6, 6, 6, 6)
    kernels: tuple[int, ...] = (3, 3, 5, 5)
    light: tuple[int, ...] = (3, 4)
    outputs: tuple[int, ...] = (2, 3, 4)
    affine: bool = False
    norm: Norm = FrozenBatchNorm2d
    act: Activation = F.relu

    def __post_init__(self) -> None:
        require_at_least(2, "backbone", stem=min(self.stem))
        require_divisible("backbone.stem.0", self.stem[0], 2)
        require_stages(
            self.widths,
            self.outputs,
            depths=self.depths,
            mid_widths=self.mid_widths,
            num_layers=self.num_layers,
            kernels=self.kernels,
        )
        for kernel in self.kernels:
            require(kernel % 2, "backbone.kernels", f"has {kernel}", "give odd numbers")
        for index, width in enumerate(self.widths):
            require_divisible(f"backbone.widths.{index}", width, 2)
        stages = range(1, len(self.widths) + 1)
        what = f"{self.light} are not stages of a backbone with {len(stages)}"
        require(set(self.light) <= set(stages), "backbone.light", what, "name stages, from 1 on")

    def build(self) -> "HGNetV2":
        return HGNetV2(self)

    @property
    def stem_width(self) -> int:
        """Channels of the stem's map."""
        return self.stem[1]

    def unit(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> ConvNormAct:
        """Make a convolution with this backbone's norm and activation."""
        act = AffineActivation(self.act) if self.affine else self.act
        return ConvNormAct(channels_in, channels_out, kernel, stride, act, self.norm, groups)

    def layer(self, stage: int, channels_in: int) -> nn.Module:
        """Make a layer of a block: one dense convolution, or two light ones (Eq. 20.2)."""
        width, kernel = self.mid_widths[stage - 1], self.kernels[stage - 1]
        if stage not in self.light:
            return self.unit(channels_in, width, kernel)
        pointwise = ConvNormAct(channels_in, width, norm=self.norm)
        return nn.Sequential(pointwise, self.unit(width, width, kernel, groups=width))


class AffineActivation(nn.Module):
    """Activate, then scale and shift by two learned numbers, the same for all channels."""

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.act = act
        self.scale = nn.Parameter(ones(1))
        self.bias = nn.Parameter(zeros(1))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return self.scale * self.act(x) + self.bias


class Stem(nn.Module):
    """Halve the map, look at it in two ways side by side, and halve it again."""

    def __init__(self, cfg: HGNetV2Config) -> None:
        super().__init__()
        inner, outer = cfg.stem
        self.stem1 = cfg.unit(3, inner, 3, stride=2)
        self.stem2a = cfg.unit(inner, inner // 2, 2)
        self.stem2b = cfg.unit(inner // 2, inner, 2)
        self.stem3 = cfg.unit(2 * inner, inner, 3, stride=2)
        self.stem4 = cfg.unit(inner, outer, 1)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B _ _ _"]:
        x = padded(self.stem1(images))
        learned = self.stem2b(padded(self.stem2a(x)))
        largest = F.max_pool2d(x, 2, stride=1)
        return self.stem4(self.stem3(cat([largest, learned], dim=1)))


def padded(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C Hp Wp"]:
    """Add a row of zeros below and a column on the right: 2×2 filters then keep the size."""
    return F.pad(x, (0, 1, 0, 1))


class HGBlock(nn.Module):
    """A chain of layers; all of their maps are stacked and mixed (Eq. 20.1)."""

    def __init__(self, cfg: HGNetV2Config, stage: int, channels_in: int, residual: bool) -> None:
        super().__init__()
        width, mid, count = (of[stage - 1] for of in (cfg.widths, cfg.mid_widths, cfg.num_layers))
        entries = (channels_in, *[mid] * (count - 1))
        self.layers = nn.ModuleList(cfg.layer(stage, c) for c in entries)
        squeeze = cfg.unit(channels_in + count * mid, width // 2, 1)
        self.aggregation = nn.Sequential(squeeze, cfg.unit(width // 2, width, 1))
        self.residual = residual

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co H W"]:
        kept = [x]
        for layer in self.layers:
            kept.append(layer(kept[-1]))
        mixed = self.aggregation(cat(kept, dim=1))
        return mixed + x if self.residual else mixed


class HGNetV2(ResNetD):
    """Stem, then stages that each halve the map (all but the first) and widen it.

    It shares with a ResNet-D how stages follow each other, and nothing inside them.
    """

    cfg: HGNetV2Config  # type: ignore[assignment]

    def __init__(self, cfg: HGNetV2Config) -> None:
        super().__init__(cfg)
        self.pool = nn.Identity()  # type: ignore[assignment]

    def make_stem(self) -> nn.Module:
        """Make a stem that brings stride 4 alone."""
        return Stem(self.cfg)

    def make_stage(self, index: int, channels_in: int) -> nn.Sequential:
        """Halve the map with a depthwise convolution, except in the first stage; then blocks."""
        cfg, width, stage = self.cfg, self.cfg.widths[index], index + 1
        halve: nn.Module = nn.Identity()
        if index > 0:
            halve = ConvNormAct(channels_in, channels_in, 3, 2, identity, cfg.norm, channels_in)
        blocks = [
            HGBlock(cfg, stage, width if number else channels_in, residual=number > 0)
            for number in range(cfg.depths[index])
        ]
        return nn.Sequential(OrderedDict(downsample=halve, blocks=nn.Sequential(*blocks)))


def hgnetv2_b4() -> HGNetV2Config:
    """Backbone of RT-DETR-L and D-FINE-L."""
    return HGNetV2Config()


def hgnetv2_b5() -> HGNetV2Config:
    """Backbone of RT-DETR-X and D-FINE-X."""
    return HGNetV2Config((32, 64), mid_widths=(64, 128, 256, 512), depths=(1, 2, 5, 2))


def rtdetr_l(num_classes: int = 80) -> RTDETRConfig:
    """RT-DETR-L: r50 with another backbone; 53.0 AP, 114 FPS."""
    return RTDETRConfig(num_classes, backbone=hgnetv2_b4())


def rtdetr_x(num_classes: int = 80) -> RTDETRConfig:
    """RT-DETR-X: r101 with another backbone; 54.8 AP, 74 FPS."""
    return RTDETRConfig(
        num_classes,
        backbone=hgnetv2_b5(),
        encoder=HybridEncoderConfig(dim=384, aifi=AIFIConfig(ffn_dim=2048)),
    )
