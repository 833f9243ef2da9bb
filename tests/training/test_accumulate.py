"""A batch that is learned in parts teaches what it would teach in one piece."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.query_selection import TopScore
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.structures import Batch, Targets
from rtdetr_lab.training import TrainConfig
from rtdetr_lab.training.trainer import Trainer

CONFIG = TrainConfig(num_pictures=16, batch_size=8, warmup_steps=0, clip_norm=1e9)
COUNTS = (1, 9, 0, 5, 2, 0, 0, 3)


def frozen_norms(model: nn.Module) -> nn.Module:
    """Batch norm that neither learns nor counts: `learning_mode` leaves it in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return model


def trainer(config: TrainConfig = CONFIG) -> Trainer:
    torch.manual_seed(0)
    cfg = replace_at(rtdetr_nano(3), "selection", TopScore(num_queries=12))
    cfg = replace_at(replace_at(cfg, "denoising", None), "decoder.num_layers", 2)
    return Trainer(frozen_norms(cfg.build().double()), config, torch.device("cpu"))


def batch() -> Batch:
    torch.manual_seed(1)
    images = torch.rand(len(COUNTS), 3, 64, 64, dtype=torch.float64)
    labels = tuple(torch.randint(0, 3, (n,)) for n in COUNTS)
    boxes = tuple(0.3 + 0.3 * torch.rand(n, 4, dtype=torch.float64) for n in COUNTS)
    return Batch(images, Targets(labels, boxes))


def gradients(learned: Trainer) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in learned.parameters])


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("count", [2, 3, 8])
def test_parts_have_the_gradient_and_the_loss_of_the_whole(count):
    whole, parts = trainer(), trainer(replace(CONFIG, accumulate=count))
    for learning in (whole, parts):
        learning.learn(batch())
    assert difference(gradients(parts), gradients(whole)) < 1e-6
    in_parts, at_once = parts.take_means(), whole.take_means()
    assert in_parts.keys() == at_once.keys()
    assert in_parts == pytest.approx(at_once, rel=1e-6)


def test_the_mean_of_the_means_would_be_noticed(monkeypatch):
    whole, parts = trainer(), trainer(replace(CONFIG, accumulate=2))
    monkeypatch.setattr("rtdetr_lab.training.memory.mean_over_ranks", lambda count, device: 1.0)
    for learning in (whole, parts):
        learning.learn(batch())
    assert difference(gradients(parts), gradients(whole)) > 1e-2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_only_measured_is_the_mean_of_the_parts(monkeypatch, count):
    found = lambda prediction, targets: torch.tensor(6.0)  # noqa: E731
    monkeypatch.setattr("rtdetr_lab.training.trainer.cardinality_error", found)
    learning = trainer(replace(CONFIG, accumulate=count))
    monkeypatch.setattr(type(learning.model), "takes_padding", True)
    learning.learn(batch())
    assert learning.take_means()["cardinality_error"] == pytest.approx(6)


@pytest.mark.parametrize("count", [0, 9])
def test_more_parts_than_pictures_are_refused(count):
    with pytest.raises(ConfigError, match="accumulate"):
        replace(CONFIG, accumulate=count)
