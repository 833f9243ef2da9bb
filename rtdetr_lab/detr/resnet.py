r"""# ResNet: the plain backbone of DETR, and DC5

- **Paper**     He et al. 2016, with the stride on the 3×3 as torchvision has it; DC5: DETR §4
- **Notebook**  `notebooks/02_detr.ipynb`
- **Elsewhere** torchvision's `resnet50` in the authors' `Backbone`; transformers' `ResNetBackbone`,
  or timm's

This is `backbone.py` without the two changes of variant D. The stem is one 7×7 convolution with
stride 2. A shortcut with stride 2 reads one cell in four and ignores the others.

| where                | variant D (RT-DETR)          | plain (DETR)                             |
|----------------------|------------------------------|------------------------------------------|
| stem                 | `stem.{0,1,2}`, three 3×3    | `stem`, one 7×7                          |
| shrinking shortcut   | mean of 2×2, then 1×1        | 1×1 with stride 2                        |
| first stage, r18/r34 | shortcut projects            | nothing changes shape, nothing projects  |

**DC5.** DETR attends to one coarse map with stride 32, where small objects are hard to see.
`dilated=True` removes the stride of the last stage and dilates its 3×3 filters instead. Every
filter sees as far as before, on a map with four times as many cells. The encoder then compares
sixteen times as many pairs of tokens; later multi-scale detectors avoid this cost. No filter
changes its shape, so the pretrained weights still fit. The stem and the earlier stages do not
change, so the whole model costs only about twice as much. The filter that had the stride is not
dilated, because it reads the map of the stage before. Every second cell of the new map then equals
the old map exactly.

**Frozen.** `frozen_stages=1` keeps the ImageNet weights of the stem and the first stage, as the
authors do. With random weights nothing could be learned through them, so `detr_nano` freezes
nothing.
"""

from dataclasses import dataclass

from torch import nn

from rtdetr_lab.backbone import Bottleneck, Residual, ResNetD, ResNetDConfig
from rtdetr_lab.config import require_between
from rtdetr_lab.layers import ConvNormAct, identity


@dataclass(frozen=True)
class ResNetConfig(ResNetDConfig):
    """Settings of a plain ResNet; the default is ResNet-50, with its last map only."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    block: type[Residual] = Bottleneck
    outputs: tuple[int, ...] = (4,)
    dilated: bool = False
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(0, len(self.depths), "backbone", frozen_stages=self.frozen_stages)

    def build(self) -> "ResNet":
        return ResNet(self)


class ResNet(ResNetD):
    """`ResNetD` with the plain stem and the plain shortcuts."""

    cfg: ResNetConfig

    def __init__(self, cfg: ResNetConfig) -> None:
        super().__init__(cfg)
        last = len(cfg.depths)
        self.strides = tuple(
            stride // 2 if cfg.dilated and stage == last else stride
            for stage, stride in zip(cfg.outputs, self.strides, strict=True)
        )
        if cfg.frozen_stages:
            for part in (self.stem, *self.stages[: cfg.frozen_stages]):
                part.requires_grad_(False)

    def make_stem(self) -> nn.Module:
        """Make one 7×7 convolution with stride 2."""
        return ConvNormAct(3, self.cfg.stem_width, 7, 2, self.cfg.act, self.cfg.norm)

    def make_stage(self, index: int, channels_in: int) -> nn.Sequential:
        """Make the blocks of a stage; a dilated stage keeps the size of the map."""
        cfg = self.cfg
        width = cfg.widths[index]
        dilated = cfg.dilated and index == len(cfg.depths) - 1
        stride = 1 if index == 0 or dilated else 2
        blocks = [self._block(channels_in, width, stride)]
        blocks += [self._block(width, width, 1) for _ in range(cfg.depths[index] - 1)]
        stage = nn.Sequential(*blocks)
        if dilated:
            _spread(stage)
        return stage

    def _block(self, channels_in: int, width: int, stride: int) -> Residual:
        cfg = self.cfg
        block = cfg.block(channels_in, width, stride, False, cfg.act, cfg.norm)
        if stride != 1 or channels_in != width:
            block.shortcut = ConvNormAct(channels_in, width, 1, stride, identity, cfg.norm)
        return block


def _spread(stage: nn.Sequential) -> None:
    """Dilate the 3×3 filters after the removed stride, and pad to match."""
    convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    for conv in convs[1:]:
        conv.dilation = conv.padding = (2, 2)
