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

from rtdetr_lab.ablations.job import Task
from rtdetr_lab.ablations.variant import Setup

STEPS = 2
"""Timed steps of an estimate, after one that is not timed."""


def profile(cfg: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Count `parameters`, and `gflops` of one picture.

    As in published numbers, GFLOPs are 2 · multiply-adds of convolutions and matrix products.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = cfg.build().eval().requires_grad_(False)  # learned queries would disturb the counter
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": round(counter.get_total_flops() / 1e9, 4),
    }


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
