"""A detector's shape without its weight: what the loop asks of a model, in a few thousand numbers.

It has batch norm (buffers) and dropout (random numbers of the run), so that a resume that forgot
either of them is caught. Run as a script it trains until it is stopped, for the tests of signals.
"""

import sys
import time
import types
from dataclasses import dataclass

import torch
from torch import nn

from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.model import DetectionModel
from rtdetr_lab.training import Cosine, TrainConfig, train

NUM_PICTURES = 10


@dataclass(frozen=True)
class ToyCriterion:
    def build(self):
        def terms(prediction, targets):
            wanted = torch.tensor([float(count) for count in targets.counts])
            return {"loss_count": (prediction - wanted).square().mean()}

        return terms


@dataclass(frozen=True)
class Toy:
    width: int = 8
    criterion: ToyCriterion = ToyCriterion()

    def build(self):
        return ToyModel(self)


class ToyModel(DetectionModel):
    """Counts the objects of a picture, badly."""

    num_classes, num_queries = 1, 1

    def __init__(self, cfg):
        super().__init__(cfg)
        self.backbone = nn.Sequential(nn.Conv2d(3, cfg.width, 3), nn.BatchNorm2d(cfg.width))
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(cfg.width, 1)

    def forward(self, images, targets=None):
        features = self.backbone(images).relu().mean((2, 3))
        return self.head(self.dropout(features)).squeeze(-1)


class StandInForWandb(types.ModuleType):
    """What `WandB` calls of the package, written down."""

    def __init__(self):
        super().__init__("wandb")
        self.calls = []

    def Settings(self, **given):
        return given

    def init(self, **given):
        self.calls.append(given)
        return self

    id = "made by W&B"

    def log(self, values, step):
        self.calls.append((step, values))

    def finish(self):
        self.calls.append("finished")


class ToyData:
    """Grey pictures; how many objects there are shows in how bright they are."""

    def __init__(self, length=NUM_PICTURES, delay=0.0):
        self.length, self.delay = length, delay

    def __len__(self):
        return self.length

    @property
    def names(self):
        return ("thing",)

    @property
    def category_ids(self):
        return (1,)

    def __getitem__(self, index):
        time.sleep(self.delay)
        count = index % 3
        labels, boxes = torch.zeros(count, dtype=torch.long), torch.full((count, 4), 0.5)
        crowd = torch.zeros(count, dtype=torch.bool)
        truth = Truth(index, (8, 8), labels, 8 * boxes, torch.ones(count), crowd)
        return Sample(torch.full((3, 8, 8), 80 * count + index).byte(), labels, boxes, truth)


def main(folder, stop_after=None):
    config = TrainConfig(num_pictures=10**6, batch_size=2, log_every=1, save_every=3)
    run = train(Toy(), ToyData(delay=0.01), folder, config, stop_after=stop_after, progress=False)
    print(run.step, run.finished)


CONFIG = TrainConfig(
    num_pictures=48,  # 12 steps of 4 over 10 pictures: rounds end inside batches
    batch_size=4,
    lr=1e-2,
    backbone_lr=1e-3,
    warmup_steps=3,
    schedule=Cosine(0.1),
    ema_decay=0.9,
    ema_warmup=4,
    log_every=5,
    save_every=4,
    eval_every=3,
)


def same(a, b) -> bool:
    """Equal to the bit, tensors and containers."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def untimed(history) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in ("seconds", "pictures_per_s")} for r in history]


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
