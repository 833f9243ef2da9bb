"""# Page: what a folder of records says, as pages of the site

`docs/results/gpu.md` gets the tables, `gpu_notebook.md` beside it the notebook as a GPU ran it.
Without a finished row the page says how to measure. Every title names the card of its figures.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rtdetr_lab.deployment.bench.gpu.learning import NOTEBOOK, PICTURES
from rtdetr_lab.deployment.bench.gpu.record import all_rows
from rtdetr_lab.deployment.bench.parts import Part
from rtdetr_lab.deployment.bench.report import latency_table, parts_table
from rtdetr_lab.deployment.bench.roofline import Ceilings
from rtdetr_lab.deployment.bench.timing import Times
from rtdetr_lab.notebook_tools.build import PACKAGE
from rtdetr_lab.notebook_tools.pages import page as notebook_page
from rtdetr_lab.writing import markdown_block, markdown_table, write_bytes, write_text

DOCS = PACKAGE.parent / "docs" / "results"
MODULE = "rtdetr_lab.deployment.bench.gpu"
HEAD = f"""\
# GPU

`python -m {MODULE} OUT --write` makes this page from the records in OUT.
[Deploying](../deploy.md#a-gpu-for-minutes) says how to fill them on a machine with a GPU.
"""
NOTHING = "\nNothing was measured on a GPU yet: every figure of this page is missing.\n"
SHIP = f"""
The weights are in the archive of the run. To put them into the package:

```
mkdir -p runs/gpu && cat OUT/learning.tar.* | tar x -C runs/gpu
python -m rtdetr_lab.training.ship runs/gpu/nano
rtdetr-lab ablate STUDY --report-only --out runs/gpu/ablations --report docs/results/ablations
```

The goal was {PICTURES:,} pictures.
"""

Rows = dict[str, dict[str, Any]]


def write(out: Path, docs: Path) -> list[Path]:
    """Write the pages from the records of a folder; return their paths."""
    docs.mkdir(parents=True, exist_ok=True)
    made = [docs / "gpu.md"]
    write_text(made[0], text(all_rows(out)))
    executed = out / f"{NOTEBOOK.stem}.ipynb"
    if executed.exists():
        import nbformat

        stem = "gpu_notebook"
        found = notebook_page(nbformat.read(executed, as_version=4), stem)
        files = found.files | {f"{stem}.ipynb": executed.read_bytes()}
        files[f"{stem}.md"] = found.markdown.encode()
        for name, content in files.items():
            made.append(docs / name)
            write_bytes(made[-1], content)
    return made


def text(records: dict[str, Rows]) -> str:
    """Format the page."""
    done = {
        section: {name: row for name, row in rows.items() if row["state"] == "done"}
        for section, rows in records.items()
    }
    blocks = [HEAD]
    if not any(done.values()):
        blocks.append(NOTHING)
    if goals := list(goal_rows(done)):
        blocks.append("\n## Goals\n\n" + markdown_table(["what", "goal", "measured", "on"], goals))
    tables = {"kernels": kernel_tables, "speed": speed_tables, "steps": speed_tables}
    tables |= {"learning": learning_tables}
    for section, table in tables.items():
        blocks += [f"\n## {title}\n\n{shown}\n" for title, shown in table(done[section])]
    if done["notebook"]:
        blocks.append("\n[Notebook 13 as a GPU executed it](gpu_notebook.md)\n")
    blocks += unfinished(records)
    return "\n".join(blocks)


def card(row: dict[str, Any]) -> str:
    """Return the name of the card, or of the processor, that a row was measured on."""
    return str(row["machine"]["gpu"] or row["machine"]["cpu"])


def times_of(row: dict[str, Any]) -> dict[str, Times]:
    """Read the times of a row."""
    return {name: Times(tuple(t["rounds"])) for name, t in row["found"]["times"].items()}


def fastest(row: dict[str, Any], ours: bool, *kinds: str) -> float:
    """Return the least median of ours or of transformers, in one of the precisions."""
    found = [
        t.median
        for name, t in times_of(row).items()
        if name.startswith("ours") == ours and any(kind in name for kind in kinds)
    ]
    return min(found, default=math.nan)


def goal_rows(done: dict[str, Rows]) -> Iterator[list[str]]:
    """Yield what was aimed at, and what was measured, where both sides are known."""
    for name, row in done["speed"].items():
        if "batch 1" in name and "parts" not in name:
            least, most = fastest(row, True, "16"), fastest(row, False, "16")
            goal = "0.70" if "compiled" in name else "0.12"
            what = f"{name}: time of ours to the fastest of transformers"
            yield [what, f"≤ {goal}", f"{least / most:.2f}", card(row)]
    parts, whole = (done["speed"].get(f"r50, batch 32{end}") for end in (": parts", ""))
    if parts and whole:
        flops = sum(part["flops"] for part in parts["found"]["parts"].values())
        share = flops / fastest(whole, True, "bf16") / parts["found"]["top"]["flops"]
        what = "r50, batch 32: part of the measured ceiling of matrix products, bf16"
        yield [what, "≥ 45%", f"{share:.0%}", card(whole)]
    for name, row in done["kernels"].items():
        if "times" in row["found"]:
            times = times_of(row)
            for way, goal in (("forward", "5"), ("with backward", "3")):
                gain = times[f"grid_sample, {way}"].median / times[f"fused, {way}"].median
                yield [f"fused attention, {name}, {way}", f"≥ {goal}×", f"{gain:.1f}×", card(row)]
    for name, row in done["steps"].items():
        gain = fastest(row, False, "bf16") / fastest(row, True, "bf16")
        yield [f"{name}, bf16", "≥ 1.5×", f"{gain:.2f}×", card(row)]


def kernel_tables(rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield the errors of the kernel, as one table."""
    lines = []
    for name, row in rows.items():
        if "errors" in row["found"]:
            errors, most = row["found"]["errors"], row["found"]["most"]
            right = "yes" if row["found"]["right"] else "**no**"
            lines.append([name, *(f"{e:.1e}" for e in errors.values()), f"{most:.0e}", right])
            head = ["reading", *errors, "at most", "right"]
            last = card(row)
    if lines:
        yield f"Errors of the fused sampler, {last}", markdown_table(head, lines)


def speed_tables(rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield a table per comparison."""
    for name, row in rows.items():
        found, title = row["found"], f"{name}, {card(row)}"
        if "parts" in found:
            parts = {n: Part(**values) for n, values in found["parts"].items()}
            yield title, parts_table(parts, Ceilings(**found["top"]))
        else:
            yield title, latency_table(times_of(row), found["case"]["batch"], {})


def learning_tables(rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield what nano and the studies learned."""
    if "nano" in rows:
        found = rows["nano"]["found"]
        names = [n for n in ("pictures", "seconds", "pictures_per_s", "AP", "AP50") if n in found]
        table = markdown_table(names, [[f"{found[n]:,.5g}" for n in names]])
        yield f"nano, {card(rows['nano'])}", table + "\n" + SHIP
    for name, row in rows.items():
        if name != "nano":
            scores = row["found"]["AP"].items()
            lines = [[variant, f"{mean:.3f} ± {sd or 0:.3f}"] for variant, (mean, sd) in scores]
            yield f"{name}, {card(row)}", markdown_table(["variant", "AP"], lines)


def unfinished(records: dict[str, Rows]) -> Iterator[str]:
    """Yield what is missing, and why."""
    lines = []
    for section, rows in records.items():
        for name, row in rows.items():
            if row["state"] != "done":
                why = row.get("why") or json.dumps(row.get("found", ""))
                lines += [f"{section}: {name}: {row['state']}", *why.splitlines()[-3:]]
            for subject, why in row.get("found", {}).get("broken", {}).items():
                lines += [f"{section}: {name}: {subject}: failed", *why.splitlines()[-3:]]
    if lines:
        yield "\n## Not finished\n\n" + markdown_block("\n".join(lines)) + "\n"
