"""# Tables: the results of a study as CSV and JSON, for other programs"""

import csv
import io
import json

import numpy as np

from rtdetr_lab.ablations.findings import SHOWN, Entry, Findings
from rtdetr_lab.ablations.journal import Line


def csv_of(found: Findings) -> str:
    """Table as CSV: one line per row and seed, without times."""
    out = io.StringIO()
    names = [n for e in found.entries for row in e.rows for n in row["scores"][e.view]]
    scores = [n for n in dict.fromkeys(names) if n not in ("resampled", "pictures")]
    writer = csv.writer(out, lineterminator="\n")
    head = ["variant", "view", "seed", "run", "pictures", "parameters", "gflops"]
    writer.writerow([*head, *scores, *found.measures])
    for entry in found.entries:
        size = [entry.variant.get(n) for n in ("parameters", "gflops")]
        for row in entry.rows:
            first = [row["variant"], entry.view, row["seed"], row["run"], row["pictures"]]
            values = [row["scores"][entry.view][n] for n in scores]
            said = [row["measures"].get(n, "") for n in found.measures]
            writer.writerow([*first, *size, *values, *said])
    return out.getvalue()


def pictures_csv_of(found: Findings) -> str:
    """AP on each validation picture alone, as CSV; empty if the journal has none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for entry in found.entries:
        for row in entry.rows:
            first = [row["variant"], entry.view, row["seed"]]
            pictures = row["scores"][entry.view].get("pictures", [])
            writer.writerows([*first, *pair] for pair in pictures)
    head = "variant,view,seed,image_id,AP\n"
    return head + out.getvalue() if out.getvalue() else ""


def json_of(found: Findings) -> str:
    """Table as JSON: means, spreads, differences, verdicts, plan and cost."""
    tree = {
        "plan": found.plan,
        "cost": found.cost,
        "latency_ms": found.latency,
        "rows": [_as_data(entry, found.measures) for entry in found.entries],
    }
    return json.dumps(tree, indent=1) + "\n"


def _as_data(entry: Entry, measures: list[str]) -> Line:
    d, spoken = entry.difference, [n for n in measures if entry.measured(n)]
    return {
        "name": entry.name,
        "seeds": [row["seed"] for row in entry.rows],
        "mean_sd": {n: _mean_sd(entry.values(n)) for n in SHOWN},
        "measures": {n: _mean_sd(entry.measured(n)) for n in spoken},
        "difference": None if d is None else vars(d),
        "p_holm": entry.p_value,
        "verdict": entry.verdict,
        "failures": [f["traceback"] for f in entry.failures],
    }


def _mean_sd(values: list[float]) -> list[float | None]:
    mean = round(float(np.mean(values)), 6) if values else None
    return [mean, round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None]
