"""The whole thing learns: a small detector, the shapes world, 200 steps, and what AP says."""

import math

import pytest
import torch

from rtdetr_lab.config import replace_at
from rtdetr_lab.data.batch import First
from rtdetr_lab.data.shapes import SHAPE_NAMES, ShapesConfig, ShapesDataset
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.query_selection import TopScore
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.training import from_scratch, train


@pytest.fixture(scope="module")
def pictures():
    """Eight small, calm pictures."""
    world = ShapesConfig(size=64, max_side=30.0, max_objects=2, crowding=0.0, distractors=0)
    return First(ShapesDataset(world), 8)


@pytest.fixture(scope="module")
def tiny():
    cfg = replace_at(rtdetr_nano(len(SHAPE_NAMES)), "selection", TopScore(num_queries=20))
    cfg = replace_at(cfg, "denoising", DenoisingConfig(num_queries=20))
    return replace_at(cfg, "decoder.num_layers", 2)


def recipe(num_steps, **changes):
    quick = {"batch_size": 4, "lr": 2e-3, "backbone_lr": 2e-3, "warmup_steps": 20}
    quick |= {"ema_decay": 0.97, "ema_warmup": 20, "log_every": 20}
    return from_scratch(4 * num_steps, **(quick | changes))


def test_200_steps_divide_the_loss_by_three_and_find_what_was_seen(pictures, tiny):
    torch.manual_seed(0)
    chance = evaluate(tiny.build(), pictures).AP50
    run = train(tiny, pictures, config=recipe(200), progress=False)
    losses = [r["loss"] for r in run.history]
    assert losses[-1] < losses[0] / 3
    assert chance < 0.05
    assert evaluate(run.model, pictures).AP50 > 0.8


def test_a_detector_resumes_to_the_bit(pictures, tiny, tmp_path):
    whole = train(tiny, pictures, config=recipe(6), progress=False)
    train(tiny, pictures, tmp_path, recipe(6), progress=False, stop_after=3)
    parts = train(tiny, pictures, tmp_path, recipe(6), progress=False)
    expected = whole.model.state_dict()
    assert all(torch.equal(t, expected[k]) for k, t in parts.model.state_dict().items())


def test_bfloat16_learns_much_the_same(pictures, tiny):
    exact = train(tiny, pictures, config=recipe(10, log_every=10), progress=False)
    rough = train(tiny, pictures, config=recipe(10, log_every=10, amp=True), progress=False)
    losses = [run.history[-1]["loss"] for run in (exact, rough)]
    assert losses[0] != losses[1]
    assert math.isclose(*losses, rel_tol=0.1)
    assert {p.dtype for p in rough.model.parameters()} == {torch.float32}
