r"""# Matrix: what each part is for, one study in several worlds

A `Matrix` joins the reports of one study: a column per world, a row per variant. A cell is the
paired difference to the reference of its own world. Five of 100 intervals of 95 % exclude zero by
chance. So a cell is called clear only if its p-value, adjusted for the number of *all* cells
(Holm), is at most 0.05.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rtdetr_lab.ablations.findings import Findings
from rtdetr_lab.ablations.report import rendered
from rtdetr_lab.ablations.statistics import Difference, holm
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.viz import ablation as viz
from rtdetr_lab.writing import Markdown, markdown_table, write_bytes

CLEAR = 0.05
"""The largest adjusted p-value of a clear cell."""


@dataclass(frozen=True, eq=False)
class Cell:
    """The difference of a row to the reference in one world, and its adjusted p-value."""

    difference: Difference
    p_value: float

    @property
    def is_clear(self) -> bool:
        """True if the difference is clear among all cells of the matrix."""
        return self.p_value <= CLEAR

    @property
    def text(self) -> Markdown:
        """Points of AP with half the interval; bold if it is clear."""
        d = self.difference
        text = f"{100 * d.mean:+.1f} ± {100 * d.half_width:.1f}"
        return Markdown(f"**{text}**" if self.is_clear else text)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Reports of one study, by world."""

    reports: Mapping[str, Findings]

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """(row, world) → cell, for all rows that have a result and a difference."""
        found = {
            (entry.name, world): entry.difference
            for world, report in self.reports.items()
            for entry in report.entries
            if entry.difference is not None
        }
        adjusted = holm([difference.p_value for difference in found.values()])
        return {at: Cell(d, p) for (at, d), p in zip(found.items(), adjusted, strict=True)}

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in the study's order."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def markdown(self) -> str:
        """The matrix as a table: points of AP with half the 95 % interval; bold cells are clear."""
        worlds = list(self.reports)
        reference = ["the whole model: AP", *map(self._reference, worlds)]
        lines = [[row, *(self._shown(row, world) for world in worlds)] for row in self.rows]
        return markdown_table(["without", *worlds], [reference, *lines])

    def _shown(self, row: str, world: str) -> str:
        cell = self.cells.get((row, world))
        return "" if cell is None else cell.text

    def _reference(self, world: str) -> str:
        report = self.reports[world]
        scores = [e.values("AP") for e in report.entries if e.name == report.plan["reference"]]
        values = scores[0] if scores else []
        return f"{100 * sum(values) / len(values):.1f}" if values else ""

    def figure(self) -> object:
        """Draw the heat map; cells that are not clear stay pale."""
        shown = {at: (cell.difference.mean, cell.is_clear) for at, cell in self.cells.items()}
        return viz.heat_map(shown)

    def save(self, folder: str | Path) -> list[Path]:
        """Write table, figure and numbers; return the files, the Markdown first."""
        cells = [
            {"row": row, "world": world, "p_holm": c.p_value, "difference": vars(c.difference)}
            for (row, world), c in self.cells.items()
        ]
        contents = {
            "matrix.md": self.markdown.encode(),
            "matrix.json": (json.dumps(cells, indent=1) + "\n").encode(),
        }
        if cells:
            contents |= {f"matrix.{kind}": drawn for kind, drawn in rendered(self.figure).items()}
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_bytes(Path(folder) / name, content, error=TrainingError)
        return [Path(folder) / name for name in contents]
