"""# Shipped: the journals of the studies in the documentation

    shipped("denoising").markdown

The package contains the journals, so every installation can make the reports without training.
"""

from pathlib import Path

from rtdetr_lab.ablations.journal import Journal
from rtdetr_lab.ablations.report import Report, report_of
from rtdetr_lab.config import require

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "ablations"


def shipped(name: str) -> Report:
    """Return the report of a shipped study. Raises `ConfigError` for another name."""
    path = FOLDER / f"{name}.jsonl"
    require(path.exists(), name, "is not a shipped study", f"use one of {', '.join(names())}")
    return report_of(Journal(path))


def names() -> tuple[str, ...]:
    """Return the names of the shipped studies."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.jsonl")))
