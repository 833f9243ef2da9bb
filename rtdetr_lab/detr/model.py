r"""# DETR: detection as a set, whole

- **Paper**     "End-to-End Object Detection with Transformers", arXiv 2005.12872
- **Notebook**  `notebooks/02_detr.ipynb`
- **Elsewhere** authors' `DETR`; transformers' `DetrForObjectDetection`

Before DETR, a detector proposed thousands of boxes and then removed nearly all of them. DETR uses a
hundred learned *queries*. They exchange information, agree on which query takes which object, and
each answers with a class and a box. The model has one coarse map, one transformer, one class head
and one box head. Its parts are in `detr/resnet.py`, `detr/positions.py` and `detr/transformer.py`.

```
images ─ backbone ─ S5 ─ project ─ cells + positions ─ encoder ─ memory ─┐
                                                                         decoder ─ content
                                     100 learned position queries ───────┘            │
                                             class head (C + "nothing"), box head ────┘
```

$$ \hat c = \mathrm{softmax}(W c), \qquad b = \sigma(\mathrm{MLP}(c)) $$

Scores are a softmax over the classes **and "no object", which comes last**: they compete, so a
query can be sure of one class only. The box is predicted directly, without a reference; RT-DETR
moves a reference box, layer by layer.

What does RT-DETR change, and why? Chapter by chapter:

| in DETR                                     | costs                    | what came instead      |
|---------------------------------------------|--------------------------|------------------------|
| one map of stride 32                        | misses small objects     | `ccff`: three maps     |
| every query attends to all cells            | 500 epochs of training   | `deformable_attention` |
| in the encoder all cells attend to all      | no finer maps affordable | `aifi`: on S5 only     |
| queries are the same for every picture      | more epochs              | `query_selection`      |
| the matching changes from step to step      | noisy gradients          | `denoising`            |
| a box without a reference                   | imprecise boxes          | `decoder`: refinement  |

**Padding.** Pictures of different sizes share a canvas; `padding` is True where the canvas is
empty. Padded pixels get the mean colour (zero after normalisation). Padded cells are blocked in
every attention and do not count in positions. So the values of padded pixels change nothing.

**One set of heads.** All decoder layers share the same two heads and the norm before them (§3.2).
So every layer gets a loss, and no parameters are added.

| preset           | AP (COCO) | parameters | tokens of an 800 × 1066 picture |
|------------------|-----------|------------|---------------------------------|
| `detr_r50`       | 42.0      | 41.5 M     | 850                             |
| `detr_r101`      | 43.5      | 60.5 M     | 850                             |
| `detr_r50_dc5`   | 43.3      | 41.5 M     | 3350                            |
| `detr_r101_dc5`  | 44.9      | 60.5 M     | 3350                            |
| `detr_nano`      |           | 1.1 M      | ours, to learn from scratch     |

Parameters are measured, without frozen batch norm. Classes are COCO's ids, 0 to 90 with gaps: 91
classes, of which 80 occur.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.backbone import BasicBlock
from rtdetr_lab.config import require, require_at_least
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.detr.positions import SinePositions
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.errors import ImageError
from rtdetr_lab.layers import MLP, cached_by_size
from rtdetr_lab.losses import CrossEntropy
from rtdetr_lab.matching import MatcherConfig, SoftmaxCost
from rtdetr_lab.model import DetectionModel, by_softmax
from rtdetr_lab.notation import tokens_of
from rtdetr_lab.structures import LayerPrediction, Prediction, Targets, check_batch
from rtdetr_lab.taps import tap

RGB = tuple[float, float, float]

IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)


def detr_criterion() -> CriterionConfig:
    """Cross-entropy with weight 0.1 for "no object", L1 and GIoU (§A.4)."""
    return CriterionConfig(MatcherConfig(1.0, 5.0, 2.0, SoftmaxCost()), CrossEntropy(no_object=0.1))


@dataclass(frozen=True)
class DETRConfig:
    """Complete configuration. `mean` and `std` belong to the weights of the backbone: the model
    gets pictures in [0, 1] and normalises them itself."""

    num_classes: int = 91
    dim: int = 256
    backbone: Any = field(default_factory=lambda: ResNetConfig(frozen_stages=1))
    positions: Any = field(default_factory=SinePositions)
    encoder: DETREncoderConfig = field(default_factory=DETREncoderConfig)
    decoder: DETRDecoderConfig = field(default_factory=DETRDecoderConfig)
    criterion: Any = field(default_factory=detr_criterion)
    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD

    def __post_init__(self) -> None:
        require_at_least(1, "", num_classes=self.num_classes)
        usable = len(self.mean) == len(self.std) == 3 and min(self.std) > 0
        require(usable, "std", f"{self.std} is no spread of RGB", "give three positive numbers")

    def build(self) -> "DETR":
        return DETR(self)


@dataclass(frozen=True, eq=False)
class Seen:
    """Inner tensors of DETR before its heads. `content` has one entry per decoder layer."""

    maps: tuple[Float[Tensor, "B _ _ _"], ...]
    projected: Float[Tensor, "B D H W"]
    memory: Float[Tensor, "B N D"]
    padding: Bool[Tensor, "B H W"] | None
    content: tuple[Float[Tensor, "B Q D"], ...]


class DETR(DetectionModel):
    """Predict Q boxes with C + 1 class logits each for every picture."""

    rank = staticmethod(by_softmax)
    takes_padding = True

    def __init__(self, cfg: DETRConfig) -> None:
        super().__init__(cfg)
        dim = cfg.dim
        self.backbone = cfg.backbone.build()
        self.project = nn.Conv2d(self.backbone.channels[-1], dim, 1)
        self.positions = cfg.positions.build(dim)
        self.encoder = cfg.encoder.build(dim)
        self.decoder = cfg.decoder.build(dim)
        self.class_head = nn.Linear(dim, cfg.num_classes + 1)
        self.box_head = MLP(dim, dim, 4, num_layers=3)
        self.num_queries = len(self.decoder.query_positions)  # each is learned: never more

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        targets: Targets | None = None,
        padding: Bool[Tensor, "B H W"] | None = None,
    ) -> Prediction:
        """Images are RGB in [0, 1]; `padding` is True outside the picture.

        `targets` are only checked: DETR trains without denoising. Raises `ImageError` or
        `TargetError`.
        """
        check_batch(images, targets, self.cfg.num_classes)
        return self.answer(self.look(images, padding))

    def look(
        self, images: Float[Tensor, "B 3 H W"], padding: Bool[Tensor, "B H W"] | None = None
    ) -> Seen:
        """Compute everything up to the content of the queries."""
        maps = self.backbone(self.normalise(images, padding))
        projected = self.project(maps[-1])
        size = projected.shape[-2:]
        nothing = torch.zeros((1, *size), dtype=torch.bool, device=images.device)
        hidden = None if padding is None else _shrink(padding, size)
        positions = self.positions(nothing if hidden is None else hidden, projected.dtype)

        blocked = None if hidden is None else hidden.flatten(1)[:, None, None]
        memory = self.encoder(tokens_of(projected), positions, blocked)
        content = self.decoder(memory, positions, blocked)
        return Seen(tuple(maps), projected, memory, hidden, content)

    def answer(self, seen: Seen) -> Prediction:
        """Apply the two heads to every decoder layer."""
        layers = []
        for i, content in enumerate(seen.content):
            logits = tap(f"logits.{i}", self.class_head(content))
            boxes = tap(f"boxes.{i}", self.box_head(content).sigmoid())
            layers.append(LayerPrediction(logits, boxes))
        return Prediction(layers[-1].logits, layers[-1].boxes, tuple(layers))

    def normalise(
        self, images: Float[Tensor, "B 3 H W"], padding: Bool[Tensor, "B H W"] | None
    ) -> Float[Tensor, "B 3 H W"]:
        """Normalise to mean 0 and standard deviation 1; padded pixels become exactly 0."""
        mean = _channels(self.cfg.mean, images.device, images.dtype)
        images = (images - mean) / _channels(self.cfg.std, images.device, images.dtype)
        if padding is None:
            return images
        _check_padding(images, padding)
        return images.masked_fill(padding.unsqueeze(1), 0.0)


@cached_by_size
def _channels(values: RGB, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(values, device=device, dtype=dtype)[:, None, None]


def _shrink(padding: Bool[Tensor, "B H W"], size: tuple[int, int]) -> Bool[Tensor, "B h w"]:
    # Nearest: a cell is padding if the pixel at its upper left is, so a picture always has a cell.
    return F.interpolate(padding[None].float(), size=size)[0].bool()


def _check_padding(images: Tensor, padding: Tensor) -> None:
    wanted = (len(images), *images.shape[-2:])
    if padding.dtype != torch.bool or padding.shape != wanted:
        raise ImageError(
            "padding",
            f"a tensor of shape {tuple(padding.shape)} and type {padding.dtype}",
            f"pass {wanted} truth values, True where a picture has ended (1 - pixel_mask)",
        )
    if bool(padding[:, 0, 0].any()):
        first = int(padding[:, 0, 0].nonzero()[0])
        raise ImageError(
            f"padding[{first}]",
            "is True at the first pixel",
            "pad at the right and below; True means padding, not picture",
        )


@torch.no_grad()
def cardinality_error(prediction: Prediction, targets: Targets) -> Float[Tensor, ""]:
    """Mean absolute difference between the number of queries that answer and of objects.

    Logged during training; no part of the loss.
    """
    nothing = prediction.logits.shape[-1] - 1
    found = (prediction.logits.argmax(-1) != nothing).sum(1)
    return (found - found.new_tensor(targets.counts)).abs().float().mean()


def detr_r50(num_classes: int = 91) -> DETRConfig:
    """The paper's main model: 42.0 AP."""
    return DETRConfig(num_classes)


def detr_r101(num_classes: int = 91) -> DETRConfig:
    """A deeper backbone: 43.5 AP."""
    return DETRConfig(num_classes, backbone=ResNetConfig((3, 4, 23, 3), frozen_stages=1))


def detr_r50_dc5(num_classes: int = 91) -> DETRConfig:
    """A finer last map (dilated, DC5), at twice the cost: 43.3 AP."""
    return DETRConfig(num_classes, backbone=ResNetConfig(dilated=True, frozen_stages=1))


def detr_r101_dc5(num_classes: int = 91) -> DETRConfig:
    """A deeper backbone and a finer last map: 44.9 AP."""
    backbone = ResNetConfig((3, 4, 23, 3), dilated=True, frozen_stages=1)
    return DETRConfig(num_classes, backbone=backbone)


def detr_nano(num_classes: int = 91) -> DETRConfig:
    """A small model of ours, not in the paper: trains from scratch on a laptop.

    It has the width and the backbone sizes of `rtdetr_nano`, and live batch norm, for pictures of
    256 to 320 pixels.
    """
    return DETRConfig(
        num_classes,
        dim=96,
        backbone=ResNetConfig(
            (1, 1, 1, 1), (32, 64, 96, 128), BasicBlock, stem_width=32, norm=nn.BatchNorm2d
        ),
        encoder=DETREncoderConfig(num_layers=3, num_heads=6, ffn_dim=192, dropout=0.0),
        decoder=DETRDecoderConfig(num_layers=3, num_heads=6, ffn_dim=192, dropout=0.0),
    )
