r"""# Measure: how large, how much arithmetic, how fast

**Latency is measured in turn.** A machine is faster in one minute than in the next. If we measured
one variant after the other, this would look like a difference between them. So every round times
each variant once. We compare medians over rounds, with the quartiles as spread.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from timeit import timeit
from typing import Any

import numpy as np
import torch

from rtdetr_lab.ablations.task import Task
from rtdetr_lab.ablations.variant import Setup

STEPS = 2
"""Timed steps of an estimate, after one that is not timed."""

BACKWARD = 3
"""Arithmetic of a training step, in forward passes."""


def profile(cfg: Any, size: Sequence[int]) -> dict[str, Any]:
    """Count `parameters`, and `gflops` of one picture.

    As in published numbers, GFLOPs are 2 · multiply-adds of convolutions and matrix products.
    """
    try:
        return _counted(cfg, size, "meta")  # shapes without numbers: in no time
    except Exception:  # a part needs numbers, or the model cannot be built: then this says why
        return _counted(cfg, size, "cpu")


def _counted(cfg: Any, size: Sequence[int], device: str) -> dict[str, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.random.fork_rng(devices=[]):
        model = cfg.build().eval().requires_grad_(False)  # learned queries disturb the counter
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.to(device)(torch.zeros(1, 3, *size, device=device))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": round(counter.get_total_flops() / 1e9, 4),
    }


def rough_seconds(cfg: Any, gflops: Mapping[str, float], size: Sequence[int]) -> dict[str, float]:
    """Estimate the training time per picture of every variant from its GFLOPs.

    We time `cfg` once, forward, on a picture of at most 256 pixels. A step costs three times that.
    """
    small = [min(side, 256) for side in size]
    model, picture = cfg.build().eval(), torch.rand(1, 3, *small)
    with torch.inference_mode():
        seconds = min(timeit(partial(model, picture), number=1) for _ in range(STEPS))
    per_gflop = BACKWARD * seconds / max(profile(cfg, small)["gflops"], 1e-9)
    return {name: per_gflop * count for name, count in gflops.items()}


def seconds_per_picture(setup: Setup, task: Task) -> float:
    """Measure training time per picture from a few steps on the study's own pictures."""
    from rtdetr_lab.training.stream import Steps
    from rtdetr_lab.training.trainer import Trainer

    device = torch.device(task.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    recipe = setup.recipe
    trainer = Trainer(setup.cfg.build(), recipe, device)
    steps = Steps(task.train, recipe.batch_size, 0, STEPS + 1, recipe.augment)
    times = [timeit(partial(trainer.learn, batch), number=1) for batch in steps.batches()]
    before = setup.start.recipe.num_pictures if setup.start else 0
    return min(times[1:]) / recipe.batch_size * (1 + before / max(1, recipe.num_pictures))


def latencies(
    setups: Mapping[str, Setup], size: Sequence[int], rounds: int
) -> dict[str, dict[str, float]]:
    """Measure variant → median and quartiles (ms) of one picture in a newly built model."""
    models = {name: setup.cfg.build().eval() for name, setup in setups.items()}
    picture = torch.rand(1, 3, *size)
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, model in models.items():
                times[name].append(1000 * timeit(partial(model, picture), number=1))
    return {name: _summary(found[1:]) for name, found in times.items()}  # the first round warms up


def _summary(milliseconds: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.percentile(milliseconds, [25, 50, 75])
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}
