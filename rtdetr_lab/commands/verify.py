"""# Verify: do these weights give the same outputs in our code and in transformers?"""

from dataclasses import dataclass
from importlib.util import find_spec

from rtdetr_lab.commands.base import DONE, FAILED, ModelCommand, say


@dataclass(frozen=True, kw_only=True)
class Verify(ModelCommand):
    """Load the same weights here and in transformers, and compare stage by stage."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    image: str | None = None
    """Picture for the comparison; default: scikit-image's cat."""

    def run(self) -> int:
        from rtdetr_lab.checkpoints.verify import verify

        _hush_transformers()
        report = verify(self.name, self.image, revision=self.revision)
        say(str(report))
        return DONE if report.ok else FAILED


def _hush_transformers() -> None:
    """Turn off transformers' progress bar: it would break our table."""
    if find_spec("transformers") is not None:
        from transformers.utils import logging

        logging.disable_progress_bar()
