r"""# Journal: the record of a study, one line at a time

We append to `journal.jsonl` and never rewrite it. A line is one write and a flush to disk. So a
process that is killed at any moment leaves whole lines and at most one incomplete line at the end.
The next start cuts that off, and finished rows stay the same byte for byte.

| `kind`    | a line for                                                                       |
|-----------|----------------------------------------------------------------------------------|
| `plan`    | each start with a new plan: variants, hypotheses, differences, seeds, budget     |
| `row`     | each finished run (`job.py`)                                                     |
| `failed`  | each failed run, with its traceback; tried again at the next start               |
| `latency` | the measurement of all variants in turn, at the end                              |
"""

import json
import os
from pathlib import Path
from typing import Any

from rtdetr_lab.errors import DataError, TrainingError, converting

Line = dict[str, Any]


class Journal:
    """The lines of a study, in memory and on disk. One process at a time may write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        texts = _whole_lines(path).decode().splitlines()
        self.lines = [_parsed(text, path, n) for n, text in enumerate(texts, 1)]

    def append(self, line: Line) -> None:
        """Write a whole line to the disk before returning. Raises `TrainingError`."""
        text = json.dumps(line, allow_nan=False) + "\n"
        remedy = "make room, or give a folder that can be written; then the same call resumes"
        with converting(OSError, TrainingError, self.path, "cannot be written: {}", remedy):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _add(self.path, text.encode())
        self.lines.append(json.loads(text))

    def of_kind(self, kind: str) -> list[Line]:
        """Return all lines of a kind, oldest first."""
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def plan(self) -> Line:
        """Latest plan; empty if there is none."""
        return next(reversed(self.of_kind("plan")), {})


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _add(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.truncate(path, len(_whole_lines(path)))  # cut off an incomplete line
        while content:  # on a disk that is almost full, `os.write` may write only a part
            content = content[os.write(file, content) :]
        os.fsync(file)
    finally:
        os.close(file)


def _parsed(text: str, path: Path, number: int) -> Line:
    try:
        line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("kind"), str):
            return line
    except json.JSONDecodeError:
        pass
    remedy = "remove the line: its run is then evaluated again, without training"
    raise DataError(f"{path}:{number}", "is not a line of a journal", remedy)
