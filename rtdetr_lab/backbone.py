r"""# Backbone: from pixels to three maps

- **Paper**     RT-DETR §4.1, Fig. 4; ResNet: He et al. 2016; variant D: "Bag of Tricks", §4.2
- **Notebook**  `notebooks/05_backbone.ipynb`
- **Elsewhere** authors' `PResNet` (`variant="d"`, "vd"); transformers' `RTDetrResNetBackbone`

A detector needs to know *what* and *where*. From stage to stage, the maps of a ResNet get coarser
and richer: S3 still shows where an edge is, S5 shows that the edge belongs to a cat. RT-DETR uses
S3, S4 and S5, with strides 8, 16 and 32. It does not use S2 (stride 4), which has three times as
many cells as the other three maps together.

Variant D ("ResNet-vd") changes two places of a plain ResNet:

| where | plain ResNet | variant D |
|---|---|---|
| stem | one 7×7 convolution, stride 2 | three 3×3 convolutions, the first with stride 2 |
| stride-2 shortcut | 1×1, stride 2: reads one cell in four | mean of 2×2, then 1×1: reads all |

In the first ResNet, a bottleneck that halves the map has its stride in the first 1×1 convolution of
the branch, which skips three positions in four. Variant B moves the stride to the 3×3, whose
windows overlap, so no position is skipped ("Bag of Tricks", §4.2, Fig. 2a). Variant D includes this
change.

The stem and a max pool after it have stride 4 together. Then every stage is a chain of residual
blocks. A block adds a learned function $F$ to a shortcut $G$, then applies an activation (act):

$$ y = \mathrm{act}\bigl(F(x) + G(x)\bigr), \qquad
   G = \begin{cases} x & \text{other blocks} \\
       \mathrm{norm}(W\,\mathrm{pool}(x)) & \text{first block of a stage} \end{cases}
   \tag{05.1} $$

$W$ is a 1×1 convolution, and pool is the mean of 2×2. In the first stage there is no pool, because
this stage does not halve the map.

| preset | block        | blocks (`depths`) | channels (`widths`) | parameters (frozen norm) |
|--------|--------------|-------------------|---------------------|--------------------------|
| r18    | `BasicBlock` | 2 2 2 2           | 64 128 256 512      | 11.2 M                   |
| r34    | `BasicBlock` | 3 4 6 3           | 64 128 256 512      | 21.3 M                   |
| r50    | `Bottleneck` | 3 4 6 3           | 256 512 1024 2048   | 23.5 M                   |
| r101   | `Bottleneck` | 3 4 23 3          | 256 512 1024 2048   | 42.4 M                   |

A larger backbone has better pretrained features, which should change less in training. So in
RT-DETRv2 (§2.2) a larger backbone has a lower learning rate: 1e-4 (r18), 5e-5 (r34), 1e-5 (r50),
1e-6 (r101). The rest of the model has 1e-4. The first version uses 1e-5 for every backbone.

**Any** module can be a backbone. It returns its maps from fine to coarse, and declares their
`strides` and `channels`. The rest of the model asks for nothing else.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import require, require_at_least, require_divisible
from rtdetr_lab.errors import ImageError
from rtdetr_lab.layers import Activation, ConvNormAct, FrozenBatchNorm2d, Norm, identity
from rtdetr_lab.notation import LEVEL_NAMES
from rtdetr_lab.taps import tap


class Backbone(Protocol):
    """Interface of a backbone: maps from fine to coarse, with their strides and channels."""

    strides: tuple[int, ...]
    channels: tuple[int, ...]

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Return one map per entry of `strides`."""


class Shortcut(nn.Module):
    """Variant D's projection: average, then 1×1. `ceil_mode` keeps the last row of odd maps."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.norm = norm(channels_out)

    def forward(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.norm(self.conv(self.pool(x)))


class Residual(nn.Module):
    """Activate the sum of branch and shortcut (Eq. 05.1); base class of both blocks."""

    def __init__(
        self, channels_in: int, width: int, stride: int, first: bool, act: Activation, norm: Norm
    ) -> None:
        super().__init__()
        self.act = act
        self.shortcut: nn.Module = nn.Identity()
        if first:
            self.shortcut = Shortcut(channels_in, width, stride, norm)

    def branch(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        """The residual function F."""
        raise TypeError(f"{type(self).__name__} must define branch()")

    def forward(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.act(self.branch(x) + self.shortcut(x))


class BasicBlock(Residual):
    """Two 3×3 convolutions (r18, r34)."""

    def __init__(
        self, channels_in: int, width: int, stride: int, first: bool, act: Activation, norm: Norm
    ) -> None:
        super().__init__(channels_in, width, stride, first, act, norm)
        self.conv1 = ConvNormAct(channels_in, width, 3, stride, act, norm)
        self.conv2 = ConvNormAct(width, width, 3, 1, identity, norm)

    def branch(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.conv2(self.conv1(x))


class Bottleneck(Residual):
    """1×1 to a quarter of the channels, 3×3 with the stride, 1×1 to all channels (r50, r101)."""

    def __init__(
        self, channels_in: int, width: int, stride: int, first: bool, act: Activation, norm: Norm
    ) -> None:
        super().__init__(channels_in, width, stride, first, act, norm)
        self.conv1 = ConvNormAct(channels_in, width // 4, 1, 1, act, norm)
        self.conv2 = ConvNormAct(width // 4, width // 4, 3, stride, act, norm)
        self.conv3 = ConvNormAct(width // 4, width, 1, 1, identity, norm)

    def branch(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.conv3(self.conv2(self.conv1(x)))


@dataclass(frozen=True)
class ResNetDConfig:
    """A ResNet-D. `outputs` are stage numbers: 2 3 4 give S3 S4 S5; 1 is S2, with stride 4."""

    depths: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: type[Residual] = BasicBlock
    stem_width: int = 64
    outputs: tuple[int, ...] = (2, 3, 4)
    norm: Norm = FrozenBatchNorm2d
    act: Activation = F.relu

    def __post_init__(self) -> None:
        require_at_least(2, "backbone", stem_width=self.stem_width)
        require_divisible("backbone.stem_width", self.stem_width, 2)
        require_stages(self.widths, outputs=self.outputs, depths=self.depths)

    def build(self) -> "ResNetD":
        return ResNetD(self)


def require_stages(
    widths: tuple[int, ...], outputs: tuple[int, ...], **per_stage: tuple[int, ...]
) -> None:
    """Raise `ConfigError` unless there is one number per stage each, and outputs are stages."""
    count = len(widths)
    for name, values in per_stage.items():
        what = f"{values} are {name} for {count} widths"
        require(count == len(values), f"backbone.{name}", what, "give one per stage each")
        require_at_least(1, "backbone", **{name: min(values, default=0)})
    require_at_least(1, "backbone", widths=min(widths, default=0))
    what = f"{outputs} are not stages of a backbone with {count}"
    remedy = "name stages in rising order, 1 being the one with stride 4"
    rising = [stage for stage in range(1, count + 1) if stage in outputs]
    require(rising and rising == list(outputs), "backbone.outputs", what, remedy)


class ResNetD(nn.Module):
    """Stem, then stages of more and more channels; each but the first halves the map.


    A subclass that makes other stages has a config with `outputs`, `widths` and `stem_width`, too.
    """

    cfg: ResNetDConfig

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.strides = tuple(2 ** (stage + 1) for stage in cfg.outputs)
        self.channels = tuple(cfg.widths[stage - 1] for stage in cfg.outputs)
        self.stem = self.make_stem()
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        entries = (cfg.stem_width, *cfg.widths[:-1])
        # Stages after the last output are not built: they would only cost parameters and time.
        stages = range(cfg.outputs[-1])
        self.stages = nn.ModuleList(self.make_stage(i, entries[i]) for i in stages)
        self.reset_parameters()

    def make_stem(self) -> nn.Module:
        """Three small convolutions, the first with stride 2."""
        cfg = self.cfg
        half = cfg.stem_width // 2
        return nn.Sequential(
            ConvNormAct(3, half, 3, 2, cfg.act, cfg.norm),
            ConvNormAct(half, half, 3, 1, cfg.act, cfg.norm),
            ConvNormAct(half, cfg.stem_width, 3, 1, cfg.act, cfg.norm),
        )

    def make_stage(self, index: int, channels_in: int) -> nn.Sequential:
        """Blocks of one width; the first of them halves the map, except in the first stage."""
        cfg = self.cfg
        width = cfg.widths[index]
        stride = 1 if index == 0 else 2
        blocks = [cfg.block(channels_in, width, stride, True, cfg.act, cfg.norm)]
        for _ in range(cfg.depths[index] - 1):
            blocks.append(cfg.block(width, width, 1, False, cfg.act, cfg.norm))
        return nn.Sequential(*blocks)

    def reset_parameters(self) -> None:
        """Initialise so that activations keep their variance across layers (He et al. 2015)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                # torch counts the filters of all groups; a channel is read by those of its own.
                module.weight.data *= module.groups**0.5

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        x = self.pool(self.stem(images))
        maps = []
        for number, stage in enumerate(self.stages, start=1):
            x = stage(x)
            if number in self.cfg.outputs:
                x = tap(LEVEL_NAMES[number - 1], x)
                maps.append(x)
        return tuple(maps)


def check_room(images: Float[Tensor, "B 3 H W"], stride: int) -> None:
    """Raise `ImageError` if the coarsest map has one value per channel: batch norm needs two."""
    height, width = (-(-side // stride) for side in images.shape[-2:])
    if len(images) * height * width < 2:
        raise ImageError(
            "images",
            f"one picture of {tuple(images.shape[-2:])} leaves batch norm a single value",
            f"train on more pictures at once, or on sides of more than {stride} pixels",
        )
