"""# Text: annotation files as other tools write them

Editors on Windows put a byte order mark in front, old tools write Latin-1, and table programs turn
the id 7 into 7.0. None of this changes what is meant.
"""

import json
import math
from pathlib import Path
from typing import Any

from rtdetr_lab.errors import DataError

MARKED = ("utf-8-sig", "utf-16", "utf-32")
"""What `json` calls text with a byte order mark."""


def text_of(path: Path) -> str:
    """The text of a file: by its byte order mark, else UTF-8, else Latin-1. Raises `DataError`."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        reason = getattr(error, "strerror", None) or error
        raise DataError(str(path), f"cannot be read ({reason})", "check the path") from error
    encoding = json.detect_encoding(content)
    marked = encoding if encoding in MARKED else None
    try:
        text = content.decode(marked or "utf8")
    except UnicodeDecodeError as error:
        if marked:
            what = f"begins like {marked} and is not ({error.reason})"
            raise DataError(str(path), what, "write it again, as UTF-8") from error
        text = content.decode("cp1252", errors="replace")  # Latin-1 as Windows has it
    if "\0" in text:
        raise DataError(str(path), "is no text: it holds zero bytes", "write it again, as UTF-8")
    return text


def lines_of(path: Path) -> list[tuple[int, str]]:
    """(number, line) of the lines of a text file that are not blank."""
    lines = enumerate(text_of(path).splitlines(), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def json_of(path: Path) -> Any:
    """What a JSON file holds. Raises `DataError`."""
    text = text_of(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"is not JSON ({error})", "write it again") from error


def whole(value: object) -> int | None:
    """A whole number, also where it is written 7.0; None for anything else."""
    if type(value) is float and math.isfinite(value) and value == int(value):
        return int(value)
    return value if type(value) is int else None


def is_finite(value: object) -> bool:
    """Whether a value is a number that one can compute with."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
