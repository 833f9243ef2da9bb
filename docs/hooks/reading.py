"""The reading order, read from the README: one table, in one place."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| *(\d\d)? *\| *(\[.*?)\| *(.*?) *\|$", re.M)
LINK = re.compile(r"\[(\w+)\]\(rtdetr_lab/([\w/]+)\.py\)")


@dataclass(frozen=True)
class Step:
    """One line of the reading order."""

    number: str
    chapters: tuple[str, ...]
    question: str


def reading_order() -> list[Step]:
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    table = readme.split("## Reading order")[1].split("\n## ")[0]
    steps = []
    for number, chapters, question in ROW.findall(table):
        steps.append(Step(number, tuple(stem for _, stem in LINK.findall(chapters)), question))
    return steps


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def reading_table() -> str:
    """The table of the page: number, notebook if there is one, chapters, question."""
    left = {path.stem[:2]: path.stem for path in notebooks()}
    rows = []
    for step in reading_order():
        chapters = ", ".join(f"[{c}](chapters/{c}.md)" for c in step.chapters)
        stem = left.pop(step.number, None)
        rows.append(f"| {step.number} | {_link(stem)} | {chapters} | {step.question} |")
    rows += [f"| {number} | {_link(stem)} | | |" for number, stem in left.items()]
    head = ["| | notebook | chapters | the question |", "|---|---|---|---|"]
    return "\n".join([*head, *sorted(rows, key=lambda row: row.split("|")[1].strip())])


def _link(stem: str | None) -> str:
    return f"[{stem[3:].replace('_', ' ')}](notebooks/{stem}.md)" if stem else ""
