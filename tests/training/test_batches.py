"""Batches that end other trainings: empty ones, crowded ones, and boxes that are none."""

import math
from dataclasses import replace

import pytest
import torch
from small import small, targets
from training_toy import ToyData

from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.errors import TargetError
from rtdetr_lab.structures import Batch
from rtdetr_lab.training import TrainConfig, train
from rtdetr_lab.training.trainer import Trainer

CONFIG = TrainConfig(num_pictures=4, batch_size=2, warmup_steps=0, clip_norm=1.0)


def learned(*counts, config=CONFIG):
    """One step of a whole detector; what it recorded, and by how much it moved."""
    torch.manual_seed(0)
    trainer = Trainer(small().build(), config, torch.device("cpu"))
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.learn(Batch(torch.rand(len(counts), 3, 64, 64), targets(*counts)))
    pairs = zip(before, trainer.parameters, strict=True)
    moved = sum(float((a - b.detach()).abs().sum()) for a, b in pairs)
    without = [g for g in trainer.parameters if g.grad is None]
    return trainer.take_means(), moved, without


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (3, 0), (12, 1), (11, 12)])
def test_empty_and_crowded_pictures_teach(counts, accumulate):
    terms, moved, without = learned(*counts, config=replace(CONFIG, accumulate=accumulate))
    assert all(math.isfinite(value) for value in terms.values())
    assert moved > 0
    assert without == [], "a distributed run would wait for them for ever"
    assert (terms["l1"] == 0) == (sum(counts) == 0)
    assert terms["class"] > 0


class Pictures(ToyData):
    """Pictures of 64 × 64 with one box each, or none."""

    def __init__(self, box=None):
        super().__init__(4)
        self.box = box

    def __getitem__(self, index):
        boxes = torch.tensor([self.box] if self.box else []).reshape(-1, 4)
        labels = torch.zeros(len(boxes), dtype=torch.long)
        crowd = torch.zeros(len(boxes), dtype=torch.bool)
        truth = Truth(index, (64, 64), labels, boxes, torch.ones(len(boxes)), crowd)
        return Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), labels, boxes, truth)


def test_a_data_set_without_a_box_is_learned_from():
    cfg = small(num_classes=1)
    run = train(cfg, Pictures(), config=replace(CONFIG, log_every=1), progress=False)
    assert run.finished
    assert all(r["l1"] == 0 and r["class"] > 0 for r in run.history)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_boxes_in_pixels_are_refused_with_the_value_seen(num_workers):
    config = replace(CONFIG, num_workers=num_workers)
    data = Pictures((320.0, 240.0, 64.0, 48.0))
    seen = r"\(320, 240, 64, 48\) leaves the picture.*divide pixels"
    with pytest.raises(TargetError, match=seen):
        train(small(num_classes=1), data, config=config, progress=False)
