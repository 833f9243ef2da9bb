r"""# Findings: the numbers of a journal

Everything here is computed from the journal, without a model and without training. A row is a
variant, or a view of it (`train 3, run 2`). A cell is the mean over seeds ± standard deviation. The
difference to the reference is taken seed by seed (`statistics.py`).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rtdetr_lab.ablations.journal import Line
from rtdetr_lab.ablations.plan import belongs
from rtdetr_lab.ablations.statistics import NOTHING, Difference, holm, paired_difference, verdict

SHOWN = ("AP", "AP50", "APs", "APm", "APl")
"""Scores in the table; all twelve are in the CSV."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of the table: a trained variant, or a view of it."""

    name: str
    variant: Line
    view: str
    rows: tuple[Line, ...]
    difference: Difference | None
    failures: tuple[Line, ...] = ()
    p_value: float | None = None
    """Adjusted for the number of differences in the table (`statistics.holm`)."""
    learned_nothing: bool = False

    def values(self, score: str) -> list[float]:
        """Return a score, seed by seed; values of -1 (no such objects) are left out."""
        found = [row["scores"][self.view][score] for row in self.rows]
        return [v for v in found if v >= 0]

    def measured(self, name: str) -> list[float]:
        """Return a measure, seed by seed."""
        return [row["measures"][name] for row in self.rows if name in row["measures"]]

    @property
    def verdict(self) -> str:
        """Result in words."""
        if self.learned_nothing:
            return f"no verdict: nothing learned yet (AP below {100 * NOTHING:g})"
        if self.difference is None:
            return "reference" if self.rows else "no result"
        return verdict(self.difference)


@dataclass(frozen=True, eq=False)
class Findings:
    """Results of a study; `Report` makes pages, tables and figures of them."""

    plan: Line
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.plan["name"])

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Rows of the table, in the study's order."""
        found = []
        for variant in self.plan["variants"]:
            rows = self._rows(variant["name"])
            failed = self._latest("failed", variant["name"])
            seeds = {row["seed"] for row in rows}
            failures = tuple(line for seed, line in failed.items() if seed not in seeds)
            views = sorted({v for row in rows for v in row["scores"]}) or [""]
            for view in views:
                name = f"{variant['name']}, {view}" if view else variant["name"]
                nothing = self._learned_nothing(view, rows)
                difference = None if nothing else self._difference(variant["name"], view, rows)
                entry = Entry(name, variant, view, rows, difference, failures)
                found.append(replace(entry, learned_nothing=nothing))
        compared = [entry.difference for entry in found if entry.difference]
        adjusted = iter(holm([difference.p_value for difference in compared]))
        return tuple(replace(e, p_value=next(adjusted)) if e.difference else e for e in found)

    @property
    def latency(self) -> dict[str, dict[str, float]]:
        """Variant → median, low, high in milliseconds; empty if not measured for this plan."""
        runs = self.plan["runs"]
        found = [line for line in self.lines if line["kind"] == "latency"]
        found = [line for line in found if line.get("runs", runs) == runs]
        return dict(found[-1]["milliseconds"]) if found else {}

    @property
    def cost(self) -> dict[str, Any]:
        """Hours of training, share of time that was not training, machine, dates."""
        rows = [row for v in self.plan["variants"] for row in self._rows(v["name"])]
        runs = {row["run"]: row for row in rows}.values()  # count a run that two rows share once
        train = sum(row["cost"]["train_s"] for row in runs)
        last = max((row["cost"]["date"] for row in rows), default="")
        machine = sorted({f"{r['cost']['platform']}, torch {r['cost']['torch']}" for r in rows})
        return {
            "runs": len(runs),
            "train_hours": round(train / 3600, 3),
            "machine": machine,
            "date": last[:10],
            "threads": sorted({row["cost"]["threads"] for row in rows}),
            "commits": sorted({_brief(row["cost"]["commit"]) for row in rows}),
        }

    @property
    def measures(self) -> list[str]:
        """Names of the measures that are one number."""
        found = [row["measures"] for entry in self.entries for row in entry.rows]
        return sorted({n for m in found for n, v in m.items() if not isinstance(v, list)})

    def _latest(self, kind: str, name: str) -> dict[int | None, Line]:
        """Return seed → the latest line of a variant, of the runs in this plan."""
        lines = [line for line in self.lines if line["kind"] == kind and line["variant"] == name]
        return {line["seed"]: line for line in lines if belongs(line, self.plan)}

    def _rows(self, name: str) -> tuple[Line, ...]:
        found = self._latest("row", name)
        return tuple(found[seed] for seed in self.plan["seeds"] if seed in found)

    def _learned_nothing(self, view: str, rows: tuple[Line, ...]) -> bool:
        """Return True if neither these rows nor those of the reference have an AP to speak of."""
        others = [row["scores"][""]["AP"] for row in self._rows(self.plan["reference"])]
        mine = [row["scores"][view]["AP"] for row in rows]
        means = [np.mean(values) for values in (mine, others) if values]
        return bool(mine and max(means) < NOTHING)

    def _difference(self, name: str, view: str, rows: tuple[Line, ...]) -> Difference | None:
        if name == self.plan["reference"] and not view:
            return None
        others = {row["seed"]: row["scores"][""] for row in self._rows(self.plan["reference"])}
        pairs = [
            (row["scores"][view], others[row["seed"]]) for row in rows if row["seed"] in others
        ]
        if not pairs:
            return None
        return paired_difference(
            [a["AP"] for a, _ in pairs],
            [b["AP"] for _, b in pairs],
            np.array([a["resampled"] for a, _ in pairs], float),
            np.array([b["resampled"] for _, b in pairs], float),
            self.plan["val_pictures"],
        )


def _brief(commit: str | None) -> str:
    """Return eight digits, and the `+` of a checkout with uncommitted changes."""
    text = str(commit)
    return text[:8] + ("+" if text.endswith("+") else "")
