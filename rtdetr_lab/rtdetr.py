r"""# RT-DETR: the complete model

- **Paper**     "DETRs Beat YOLOs on Real-time Object Detection", arXiv 2304.08069v3, Fig. 4
- **Notebook**  `notebooks/13_complete_model.ipynb`
- **Elsewhere** authors' `RTDETR`; transformers' `RTDetrForObjectDetection`

The complete model, in one forward pass: *the backbone makes maps, the hybrid encoder relates them,
every token proposes a box, the best proposals become queries, the decoder refines them, and no box
is suppressed afterwards.*

```
images ─ backbone ─ S3 S4 S5 ─ encoder ─ to_memory ─ N tokens ─ proposal_head ─ selection ─ Q
                                                        │                                   │
                       targets ─ denoising ─ R (training only) ──┐                          │
                                                        └─────── decoder ◄──────────────────┘
                                                                    └─ boxes, class logits
```

| preset | backbone | encoder width, expansion | decoder layers | parameters | AP (COCO) |
|---|---|---|---|---|---|
| `rtdetr_r18` | ResNet-18-D | 256, 0.5 | 3 | 20.2 M | 46.5 |
| `rtdetr_r34` | ResNet-34-D | 256, 0.5 | 4 | 31.4 M | 48.9 |
| `rtdetr_r50_m` | ResNet-50-D | 256, 0.5 | 6, runs 3 | 36.6 M | 51.3 |
| `rtdetr_r50` | ResNet-50-D | 256, 1.0 | 6 | 42.9 M | 53.1 |
| `rtdetr_r101` | ResNet-101-D | 384, 1.0 | 6 | 76.6 M | 54.3 |
| `rtdetr_nano` | 4 blocks | 96, 0.5 | 3 | 1.6 M | knows shapes, not COCO |

Parameters are counted in the training form with 80 classes, without frozen batch norm. AP is from
the paper's Table 2 and the authors' repository.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, cat, nn

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.backbone import Bottleneck, ResNetDConfig, check_room
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.config import require, require_at_least
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig, MemoryProjection
from rtdetr_lab.layers import sharing_tensors
from rtdetr_lab.model import DetectionModel
from rtdetr_lab.notation import tokens_from_maps
from rtdetr_lab.query_selection import ProposalHead, TopScore
from rtdetr_lab.structures import CDNBatch, Prediction, Targets, check_batch


@dataclass(frozen=True)
class RTDETRConfig:
    """Complete configuration; `replace_at(cfg, "encoder.aifi.num_heads", 4)` makes another one.

    `backbone`, `encoder`, `selection`, `decoder` and `denoising` may be any object with a suitable
    `build()`; `denoising=None` trains without denoising. The criterion belongs here too: a detector
    is not fully described without its training loss. The two `eps` belong to the norms behind the
    backbone; the projections of its maps keep 1e-5, as in transformers. `masks` adds a mask head
    (`masks/query_masks.py`), which reads the first map of the backbone; the encoder gets the
    others. It learns from the last layer, so all layers must run.
    """

    num_classes: int = 80
    backbone: Any = field(default_factory=ResNetDConfig)
    encoder: Any = field(default_factory=HybridEncoderConfig)
    selection: Any = field(default_factory=TopScore)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    denoising: DenoisingConfig | None = field(default_factory=DenoisingConfig)
    criterion: Any = field(default_factory=CriterionConfig)
    layer_norm_eps: float = 1e-5
    batch_norm_eps: float = 1e-5
    masks: Any = None

    def __post_init__(self) -> None:
        require_at_least(1, "", num_classes=self.num_classes)

    def build(self) -> "RTDETR":
        return RTDETR(self)


class RTDETR(DetectionModel):
    """Predict Q boxes with class logits for every picture; no suppression is needed."""

    takes_fewer_queries = True

    def __init__(self, cfg: RTDETRConfig) -> None:
        super().__init__(cfg)
        dim = cfg.decoder.dim
        self.backbone = cfg.backbone.build()
        self.draws_masks = cfg.masks is not None
        self.encoder = cfg.encoder.build(self.backbone.channels[self.draws_masks :])
        self.to_memory = self.make_memory(self.encoder.channels)
        self.proposal_head = ProposalHead(dim, cfg.num_classes)
        self.selection = cfg.selection.build(dim)
        self.denoising: Any = cfg.denoising and cfg.denoising.build(cfg.num_classes, dim)
        self.decoder = cfg.decoder.build(cfg.num_classes)
        parts = [part for name, part in self.encoder.named_children() if name != "project"]
        parts += [self.to_memory, self.proposal_head, self.decoder]
        for norm in nn.ModuleList(parts).modules():
            # A part with an eps of its own keeps it.
            if isinstance(norm, nn.LayerNorm | nn.BatchNorm2d) and norm.eps == 1e-5:
                is_layer = isinstance(norm, nn.LayerNorm)
                norm.eps = cfg.layer_norm_eps if is_layer else cfg.batch_norm_eps
        channels = (self.backbone.channels[0], *self.encoder.channels)
        self.mask_head = cfg.masks and cfg.masks.build(cfg.decoder, channels)

    def make_memory(self, channels: tuple[int, ...]) -> MemoryProjection:
        """Make the projection of encoder maps with these channels to the decoder's levels."""
        return MemoryProjection(channels, self.cfg.decoder.dim, self.cfg.decoder.num_levels)

    def forward(
        self, images: Float[Tensor, "B 3 H W"], targets: Targets | None = None
    ) -> Prediction:
        """Images are RGB in [0, 1], not normalised further, of any size.

        With `targets`, in training mode, denoising queries are added. Raises `ImageError`,
        `TargetError`, or `ConfigError` if the picture has fewer tokens than queries.
        """
        check_batch(images, targets, self.cfg.num_classes)
        if self.training:
            check_room(images, self.backbone.strides[-1])
        maps = self.backbone(images)
        fused = self.encoder(maps[self.draws_masks :])
        found = self.predict(self.to_memory(fused), targets)
        return self.mask_head(found, (maps[0], *fused)) if self.mask_head else found

    def predict(
        self, levels: Sequence[Float[Tensor, "B D _ _"]], targets: Targets | None
    ) -> Prediction:
        """Predict from the maps of the memory."""
        shapes = [(m.shape[-2], m.shape[-1]) for m in levels]
        memory = tokens_from_maps(levels)

        proposed = self.proposal_head(memory, shapes)
        chosen = self.selection(proposed.tokens, proposed.logits, proposed.box_logits)
        content = chosen.content
        reference_logits = chosen.reference_logits

        noised = self._noised(targets, content.shape[1])
        if noised is not None:
            content = cat([noised.content.to(content.dtype), content], dim=1)
            noisy = noised.reference_logits.to(reference_logits.dtype)
            reference_logits = cat([noisy, reference_logits], dim=1)
        blocked = None if noised is None else noised.blocked

        layers = self.decoder(content, reference_logits, memory, shapes, blocked)
        return Prediction.of(layers, proposed.at(chosen.index), noised)

    def _noised(self, targets: Targets | None, num_queries: int) -> CDNBatch | None:
        if not self.training or targets is None or self.denoising is None:
            return None
        return self.denoising(targets, num_queries)

    @property
    def num_queries(self) -> int:
        """Queries per picture; may be set at any time.

        A smaller Q is faster, a larger Q finds more objects in crowds. A checkpoint stores the
        number that the model was built with.
        """
        return self.selection.num_queries

    @num_queries.setter
    def num_queries(self, count: int) -> None:
        require_at_least(1, "", num_queries=count)
        self.selection.num_queries = count

    def trim(self, num_layers: int) -> "RTDETR":
        """Return the model with its first `num_layers` decoder layers only; tensors are shared."""
        available = len(self.decoder.layers)
        what = f"cannot keep {num_layers} of {available} decoder layers"
        require(1 <= num_layers <= available, "trim", what, f"give a number from 1 to {available}")
        whole, what = num_layers == available, "masks are learned for the last layer only"
        require(whole or not self.draws_masks, "trim", what, "keep all, or leave masks out")
        model = sharing_tensors(self)
        decoder = replace(self.cfg.decoder, num_layers=num_layers, inference_layers=None)
        model.cfg = replace(self.cfg, decoder=decoder)
        model.decoder.cfg = decoder
        for name in model.decoder.per_layer:
            setattr(model.decoder, name, getattr(model.decoder, name)[:num_layers])
        return model


def _resnet(depths: tuple[int, ...], bottleneck: bool = False) -> ResNetDConfig:
    if bottleneck:
        return ResNetDConfig(depths, (256, 512, 1024, 2048), Bottleneck)
    return ResNetDConfig(depths)


def rtdetr_r18(num_classes: int = 80) -> RTDETRConfig:
    """Smallest preset: 46.5 AP, 217 FPS (T4, TensorRT FP16)."""
    return RTDETRConfig(
        num_classes,
        backbone=_resnet((2, 2, 2, 2)),
        encoder=HybridEncoderConfig(ccff=CCFFConfig(expansion=0.5)),
        decoder=DecoderConfig(num_layers=3),
    )


def rtdetr_r34(num_classes: int = 80) -> RTDETRConfig:
    """ResNet-34 preset: 48.9 AP, 161 FPS."""
    return RTDETRConfig(
        num_classes,
        backbone=_resnet((3, 4, 6, 3)),
        encoder=HybridEncoderConfig(ccff=CCFFConfig(expansion=0.5)),
        decoder=DecoderConfig(num_layers=4),
    )


def rtdetr_r50_m(num_classes: int = 80) -> RTDETRConfig:
    """r50 with a narrow encoder; trains six decoder layers, runs three: 51.3 AP, 145 FPS."""
    return RTDETRConfig(
        num_classes,
        backbone=_resnet((3, 4, 6, 3), bottleneck=True),
        encoder=HybridEncoderConfig(ccff=CCFFConfig(expansion=0.5)),
        decoder=DecoderConfig(inference_layers=3),
    )


def rtdetr_r50(num_classes: int = 80) -> RTDETRConfig:
    """The paper's main model: 53.1 AP, 108 FPS."""
    return RTDETRConfig(num_classes, backbone=_resnet((3, 4, 6, 3), bottleneck=True))


def rtdetr_r101(num_classes: int = 80) -> RTDETRConfig:
    """A deeper backbone and a wider encoder (384): 54.3 AP, 74 FPS."""
    return RTDETRConfig(
        num_classes,
        backbone=_resnet((3, 4, 23, 3), bottleneck=True),
        encoder=HybridEncoderConfig(dim=384, aifi=AIFIConfig(ffn_dim=2048)),
    )


def rtdetr_nano(num_classes: int = 80) -> RTDETRConfig:
    """A small model of ours, not in the paper: trains from scratch on a laptop.

    About 1.6 M parameters, live batch norm, for pictures of 256 to 320 pixels.
    """
    return RTDETRConfig(
        num_classes,
        backbone=ResNetDConfig((1, 1, 1, 1), (32, 64, 96, 128), stem_width=32, norm=nn.BatchNorm2d),
        encoder=HybridEncoderConfig(
            dim=96,
            aifi=AIFIConfig(num_heads=6, ffn_dim=192),
            ccff=CCFFConfig(expansion=0.5),
        ),
        selection=TopScore(num_queries=100),
        decoder=DecoderConfig(dim=96, num_layers=3, num_heads=6, ffn_dim=192),
        denoising=DenoisingConfig(num_queries=50),
    )
