r"""# Plan: what a study will do, as one line of its journal

The plan has everything that a report needs, except the results: names, hypotheses, differences,
sizes, and the run folder of each variant and seed. So a report can be made again years later,
without the notebook that defines the variants.

Here a budget in time becomes a number of pictures: we time some steps of every variant, and give
all variants the same number.
"""

import sys
import time
from collections.abc import Mapping, Sequence

from rtdetr_lab.ablations.job import Task, fingerprint
from rtdetr_lab.ablations.journal import Line
from rtdetr_lab.ablations.measure import profile, seconds_per_picture
from rtdetr_lab.ablations.variant import Setup, Variant, with_seed
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.training.stop import seconds_of

RESERVE = 0.8
"""Part of a time budget for training steps; the rest is for evaluation."""


def pictures_and_speed(
    budget: int | str, setups: Mapping[str, Setup], task: Task, num_seeds: int
) -> tuple[int, dict[str, float]]:
    """Return (pictures per run, seconds per picture of every variant).

    `budget` is a time like "20m", or a number of pictures.
    """
    began = time.monotonic()
    speed = {name: seconds_per_picture(setup, task) for name, setup in setups.items()}
    if isinstance(budget, int):
        return budget, speed
    free = RESERVE * seconds_of(budget) - (time.monotonic() - began)
    size = next(iter(setups.values())).recipe.batch_size
    count = int(free / (sum(speed.values()) * num_seeds)) // size * size
    return max(size, count), speed


def plan_line(
    variants: Sequence[Variant],
    setups: Mapping[str, Setup],
    reference: str,
    task: Task,
    seeds: Sequence[int],
    speed: Mapping[str, float],
) -> Line:
    """Describe the variants and their evaluation; the study adds its name and budget."""
    height, width = task.val[0].image.shape[-2:]
    base = setups[reference]
    return {
        "kind": "plan",
        "reference": reference,
        "variants": [
            v.describe(base)
            | {"s_per_picture": round(speed[v.name], 5)}
            | profile(setups[v.name].cfg, (height, width))
            for v in variants
        ],
        "runs": {
            name: [fingerprint(with_seed(setup, s), task.train) for s in seeds]
            for name, setup in setups.items()
        },
        "seeds": list(seeds),
        "pictures": base.recipe.num_pictures,
        "val_pictures": len(task.val),
        "picture_size": [height, width],
        "base": to_dict(base),
        "command": _command(sys.argv),
    }


def _command(argv: Sequence[str]) -> list[str]:
    """Return the command line, or nothing if Python code, such as a notebook, made the call."""
    return ["rtdetr-lab", *argv[1:]] if list(argv[1:2]) == ["ablate"] else []
