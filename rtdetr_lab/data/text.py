"""# Text: annotation files as other tools write them

Editors on Windows write a byte order mark first, old tools write Latin-1, and spreadsheets turn the
id 7 into 7.0. None of this changes the meaning, so we accept all of it.
"""

import json
import math
from pathlib import Path
from typing import Any

from rtdetr_lab.errors import DataError, converting

MARKED = ("utf-8-sig", "utf-16", "utf-32")
"""Names that `json` gives to encodings with a byte order mark."""


def text_of(path: Path) -> str:
    """Return the text of a file: decoded by its byte order mark, else as UTF-8, else as Latin-1.
    Raises `DataError`."""
    kinds = (OSError, ValueError)  # ValueError: a name that no file can have
    with converting(kinds, DataError, path, "cannot be read ({})", "check the path"):
        content = path.read_bytes()
    encoding = json.detect_encoding(content)
    marked = encoding if encoding in MARKED else None
    try:
        text = content.decode(marked or "utf8")
    except UnicodeDecodeError as error:
        if marked:
            what = f"begins like {marked} but is not ({error.reason})"
            raise DataError(str(path), what, "write it again, as UTF-8") from error
        text = content.decode("cp1252", errors="replace")  # the Latin-1 of Windows
    if "\0" in text:
        raise DataError(str(path), "is not text: it has zero bytes", "write it again, as UTF-8")
    return text


def lines_of(path: Path) -> list[tuple[int, str]]:
    """Return (number, line) for the lines of a text file that are not blank."""
    lines = enumerate(text_of(path).splitlines(), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def json_of(path: Path) -> Any:
    """Read a JSON file. Raises `DataError`."""
    text = text_of(path)
    kinds = (ValueError, RecursionError)
    with converting(kinds, DataError, path, "is not JSON ({})", "write it again"):
        return json.loads(text)


def whole(value: object) -> int | None:
    """Return a whole number, also if it is written 7.0; None for anything else."""
    if type(value) is float and math.isfinite(value) and value == int(value):
        return int(value)
    return value if type(value) is int else None


def is_finite(value: object) -> bool:
    """Return True for a finite int or float."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
