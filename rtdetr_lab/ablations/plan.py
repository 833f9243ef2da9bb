r"""# Plan: what a study will do, as one line of its journal

The plan has everything that a report needs, except the results: names, hypotheses, differences,
sizes, the fingerprint of each variant and seed, and that of the evaluation. So a report can be made
again years later, without the notebook that defines the variants. Rows of other fingerprints are
not in it: if code, data or measures change, the study appends a new plan.

A variant that raises here has no runs. Its line in the journal has the traceback, and the others go
on.

Here a budget in time becomes a number of pictures: we time some steps of every variant, and give
all variants the same number.
"""

import json
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rtdetr_lab.ablations.job import Job
from rtdetr_lab.ablations.journal import Line
from rtdetr_lab.ablations.measure import profile, seconds_per_picture
from rtdetr_lab.ablations.task import Task
from rtdetr_lab.ablations.variant import Setup, Variant
from rtdetr_lab.config import require
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.training.stop import seconds_of

RESERVE = 0.8
"""Part of a time budget for training steps; the rest is for evaluation."""

MOMENTARY = {"command", "s_per_picture"}
"""Parts of a plan that may differ between two starts of the same study."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Variants as setups, as lines of a plan, and the tracebacks of those that raised."""

    setups: Mapping[str, Setup]
    lines: Sequence[Line]
    failures: Mapping[str, str]

    def failed_lines(self) -> list[Line]:
        """Return an entry of the journal for every variant that cannot run."""
        return [
            {"kind": "failed", "variant": name, "seed": None, "run": None, "traceback": text}
            for name, text in self.failures.items()
        ]


def prepare(variants: Sequence[Variant], base: Setup, reference: str, task: Task) -> Prepared:
    """Apply and size every variant. Raises `ConfigError` if the reference itself fails."""
    size = task.val[0].image.shape[-2:]
    setups, lines, failures = {}, [], {}
    for row in variants:
        try:
            setup = row(base)
            to_dict(setup)
            lines.append(row.describe(base) | profile(setup.cfg, size))
            setups[row.name] = setup
        except Exception as error:  # any error of a reader's own code: the others go on
            failures[row.name] = traceback.format_exc()
            lines.append({"name": row.name, "hypothesis": row.hypothesis, "differences": []})
            if row.name == reference:
                what = f"is the reference, and raises {type(error).__name__}: {error}"
                remedy = "correct it first: the others are compared with it"
                raise ConfigError(row.name, what, remedy) from error
    return Prepared(setups, lines, failures)


def measured(setups: Mapping[str, Setup], task: Task) -> dict[str, float]:
    """Time steps of every variant; return the seconds per picture of those that can train."""
    found = {}
    for name, setup in setups.items():
        try:
            found[name] = seconds_per_picture(setup, task)
        except Exception:  # its run will fail, too, and the journal will have the traceback
            continue
    require(found, "budget", "no variant can be timed", "give a number of pictures to see why")
    return found


def pictures_for(
    budget: str, speed: Mapping[str, float], num_seeds: int, batch_size: int, began: float
) -> int:
    """Return the pictures per run for a budget like "20m"; `began` is the time of its start."""
    free = RESERVE * seconds_of(budget) - (time.monotonic() - began)
    return max(1, int(free / (sum(speed.values()) * num_seeds)) // batch_size) * batch_size


def plan_line(prepared: Prepared, jobs: Iterable[Job], reference: str, task: Task) -> Line:
    """Describe variants, runs and evaluation; the study adds its name, seeds and budget."""
    base = prepared.setups[reference]
    runs: dict[str, list[str]] = {name: [] for name in prepared.setups}
    for job in jobs:
        runs[job.variant].append(job.fingerprint)
    return {
        "kind": "plan",
        "reference": reference,
        "variants": list(prepared.lines),
        "runs": runs,
        "judged": task.judgement,
        "pictures": base.recipe.num_pictures,
        "val_pictures": len(task.val),
        "picture_size": list(task.val[0].image.shape[-2:]),
        "base": to_dict(base),
        "command": _command(sys.argv),
    }


def pictures_of(plan: Line, asked: Line, names: Sequence[str]) -> int:
    """Return the pictures per run of a plan for the same budget in time, or 0."""
    same = asked == {name: plan.get(name) for name in asked}
    return int(plan["pictures"]) if same and names == [v["name"] for v in plan["variants"]] else 0


def is_same(one: Line, other: Line) -> bool:
    """Return True if two plans differ only in what may differ between two starts."""
    kept = [{n: v for n, v in plan.items() if n not in MOMENTARY} for plan in (one, other)]
    return bool(json.loads(json.dumps(kept[0])) == kept[1])


def belongs(line: Line, plan: Line) -> bool:
    """Return True for a row or failure of a run in this plan, with the plan's evaluation."""
    if line["run"] is None:  # it failed before it had a run
        return line["variant"] not in plan["runs"]
    same = line["kind"] == "failed" or line.get("judged") == plan.get("judged")
    return same and line["run"] in plan["runs"].get(line["variant"], ())


def _command(argv: Sequence[str]) -> list[str]:
    """Return the command line, or nothing if Python code, such as a notebook, made the call."""
    return ["rtdetr-lab", *argv[1:]] if list(argv[1:2]) == ["ablate"] else []
