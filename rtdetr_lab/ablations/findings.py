r"""# Findings: the numbers of a journal

Everything here is computed from the journal, without a model and without training. A row is a
variant, or a view of it (`train 3, run 2`). A cell is the mean over seeds ± standard deviation. The
difference to the reference is taken seed by seed (`statistics.py`).
"""

import csv
import io
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rtdetr_lab.ablations.journal import Line
from rtdetr_lab.ablations.statistics import Difference, paired_difference, verdict

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
        if self.difference is None:
            return "reference" if self.rows else "no result"
        return verdict(self.difference)


@dataclass(frozen=True, eq=False)
class Findings:
    """Results of a study; `csv` and `json` hold all of them, `Report` makes pages and figures."""

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
            missing = sorted(set(failed) - {row["seed"] for row in rows})
            failures = tuple(failed[seed] for seed in missing)
            views = sorted({v for row in rows for v in row["scores"]}) or [""]
            for view in views:
                name = f"{variant['name']}, {view}" if view else variant["name"]
                difference = self._difference(variant["name"], view, rows)
                found.append(Entry(name, variant, view, rows, difference, failures))
        return tuple(found)

    @property
    def latency(self) -> dict[str, dict[str, float]]:
        """Variant → median, low, high in milliseconds; empty if not measured."""
        found = [line for line in self.lines if line["kind"] == "latency"]
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

    @property
    def csv(self) -> str:
        """Table as CSV: one line per row and seed, without times."""
        out = io.StringIO()
        names = [n for e in self.entries for row in e.rows for n in row["scores"][e.view]]
        scores = [n for n in dict.fromkeys(names) if n != "resampled"]
        writer = csv.writer(out, lineterminator="\n")
        head = ["variant", "view", "seed", "run", "pictures", "parameters", "gflops"]
        writer.writerow([*head, *scores, *self.measures])
        for entry in self.entries:
            size = [entry.variant["parameters"], entry.variant["gflops"]]
            for row in entry.rows:
                first = [row["variant"], entry.view, row["seed"], row["run"], row["pictures"]]
                found = [row["scores"][entry.view][n] for n in scores]
                said = [row["measures"].get(n, "") for n in self.measures]
                writer.writerow([*first, *size, *found, *said])
        return out.getvalue()

    @property
    def json(self) -> str:
        """Table as JSON: means, spreads, differences, verdicts, plan and cost."""
        tree = {
            "plan": self.plan,
            "cost": self.cost,
            "latency_ms": self.latency,
            "rows": [_as_data(entry, self.measures) for entry in self.entries],
        }
        return json.dumps(tree, indent=1) + "\n"

    def _latest(self, kind: str, name: str) -> dict[int, Line]:
        """Return seed → the latest line of a variant, of the runs in this plan."""
        runs = self.plan["runs"][name]
        lines = [line for line in self.lines if line["kind"] == kind and line["variant"] == name]
        return {line["seed"]: line for line in lines if line["run"] in runs}

    def _rows(self, name: str) -> tuple[Line, ...]:
        found = self._latest("row", name)
        return tuple(found[seed] for seed in self.plan["seeds"] if seed in found)

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


def _as_data(entry: Entry, measures: list[str]) -> Line:
    d, spoken = entry.difference, [n for n in measures if entry.measured(n)]
    return {
        "name": entry.name,
        "seeds": [row["seed"] for row in entry.rows],
        "mean_sd": {n: _mean_sd(entry.values(n)) for n in SHOWN},
        "measures": {n: _mean_sd(entry.measured(n)) for n in spoken},
        "difference": None if d is None else vars(d),
        "verdict": entry.verdict,
        "failures": [f["traceback"] for f in entry.failures],
    }


def _mean_sd(values: list[float]) -> list[float | None]:
    mean = round(float(np.mean(values)), 6) if values else None
    return [mean, round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None]
