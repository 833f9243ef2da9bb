r"""# Journal: what a study remembers, one line at a time

`journal.jsonl` is appended to and never rewritten. A line is one write followed by a flush to disk,
so a process killed at any moment leaves whole lines and, at most, one torn tail, which the next
start cuts off: finished rows stay byte for byte what they were.

| `kind`    | a line for                                                                       |
|-----------|----------------------------------------------------------------------------------|
| `plan`    | each start with another plan: variants, hypotheses, differences, seeds, budget   |
| `row`     | each finished run (`job.py`)                                                     |
| `failed`  | each failed one, with its traceback; tried again at the next start               |
| `latency` | the measurement in turn, at the end                                              |
"""

import json
import os
from pathlib import Path
from typing import Any

from rtdetr_lab.errors import DataError, TrainingError

Line = dict[str, Any]


class Journal:
    """The lines of a study, in memory and on disk. One process at a time may write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        texts = _whole_lines(path).decode().splitlines()
        self.lines = [_parsed(text, path, n) for n, text in enumerate(texts, 1)]

    def append(self, line: Line) -> None:
        """Write a line so that it is on the disk, whole, when this returns, or `TrainingError`."""
        text = json.dumps(line, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _add(self.path, text.encode())
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            remedy = "make room, or give a folder that can be written; the same call then goes on"
            raise TrainingError(str(self.path), what, remedy) from error
        self.lines.append(json.loads(text))

    def of_kind(self, kind: str) -> list[Line]:
        """All lines of a kind, oldest first."""
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def plan(self) -> Line:
        """The plan that was last begun; empty if there is none."""
        return next(reversed(self.of_kind("plan")), {})


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _add(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.truncate(path, len(_whole_lines(path)))  # a torn tail goes
        while content:  # a disk that is almost full takes a part
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
    remedy = "remove the line: its run is then judged again, without training"
    raise DataError(f"{path}:{number}", "is no line of a journal", remedy)
