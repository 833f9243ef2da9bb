r"""# Report: what a study found, as a page, a file, or in a notebook"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rtdetr_lab.ablations.files import figures, save
from rtdetr_lab.ablations.findings import Findings
from rtdetr_lab.ablations.journal import Journal
from rtdetr_lab.ablations.page import markdown_of
from rtdetr_lab.config import require


@dataclass(frozen=True, eq=False)
class Report(Findings):
    """`markdown`, `csv`, `json`; `save(folder)` writes them with their figures."""

    @property
    def markdown(self) -> str:
        """The whole report as a page, without figures."""
        return markdown_of(self)

    def figures(self) -> Mapping[str, object]:
        """Title → axes, drawn now: for a notebook."""
        return {title: draw() for title, (_, draw) in figures(self).items()}

    def save(self, folder: str | Path) -> list[Path]:
        """Write report and figures; returns the files, the Markdown first."""
        return save(self, Path(folder))

    def _repr_markdown_(self) -> str:
        return self.markdown


def report_of(journal: Journal) -> Report:
    """Of the journal's last plan. Raises `ConfigError` where nothing was begun."""
    plan = journal.plan
    require(plan, str(journal.path), "holds no study", "run it first, or give its folder")
    assert plan is not None
    return Report(plan, tuple(journal.lines))
