"""# Shipped: the studies that were run for the documentation, as their journals

    shipped("denoising").markdown

Journals lie in the package, so a report is made again anywhere, with nothing trained.
"""

from pathlib import Path

from rtdetr_lab.ablations.journal import Journal
from rtdetr_lab.ablations.report import Report, report_of
from rtdetr_lab.config import require

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "ablations"


def shipped(name: str) -> Report:
    """The report of a shipped study. Raises `ConfigError` for one that is not."""
    path = FOLDER / f"{name}.jsonl"
    require(path.exists(), name, "is no shipped study", f"use one of {', '.join(names())}")
    return report_of(Journal(path))


def names() -> tuple[str, ...]:
    """Names of the shipped studies."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.jsonl")))
