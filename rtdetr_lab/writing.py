r"""# Writing: a file appears as a whole, or not at all

A process may be killed, and a disk may fill up, in the middle of any write. So nothing is written
under its own name: a temporary file beside it is filled, brought to the disk and renamed, and then
the folder is brought to the disk, too. What stood there before stays until the rename.

What the system says against it becomes one typed error. The file gets the permissions of any new
file of its user; a link is replaced and not followed: in the hub's cache it would lead to a file
that others share.

`markdown_table` is how a report writes its tables, and `first_few` how a message lists names.
"""

import glob
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rtdetr_lab.errors import LabError, OutputError

HOUR = 3600.0

MAKE_ROOM = "make room, or give another place"


@contextmanager
def writing(path: Path, error: type[LabError] = OutputError) -> Iterator[None]:
    """Raise what the system says against writing `path` as `error`."""
    try:
        yield
    except LabError:
        raise
    except OSError as problem:
        what = f"cannot be written: {problem.strerror or problem}"
        raise error(str(path), what, MAKE_ROOM) from problem


@contextmanager
def replacing(
    path: Path, error: type[LabError] = OutputError, keep_old_as: Path | None = None
) -> Iterator[Path]:
    """Give a temporary file to fill; when the block ends it becomes `path`.

    What was there may be kept under another name. Raises `error` where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path, error):
        try:
            _sweep(path)
            with open(temporary, "xb") as file:
                permissions = os.fstat(file.fileno()).st_mode
            yield temporary
            os.chmod(temporary, permissions)  # whoever filled it may have put another in its place
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            if keep_old_as and path.exists():
                os.replace(path, keep_old_as)  # killed here, its owner goes on from what was kept
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):  # the disk may have been taken away
                temporary.unlink(missing_ok=True)


def write_bytes(
    path: Path,
    *content: bytes | memoryview,
    error: type[LabError] = OutputError,
    keep_old_as: Path | None = None,
) -> None:
    """Replace a file by these bytes."""
    with replacing(path, error, keep_old_as) as temporary, open(temporary, "wb") as file:
        for part in content:
            file.write(part)


def write_text(path: Path, text: str, error: type[LabError] = OutputError) -> None:
    """Replace a file by this text."""
    write_bytes(path, text.encode(), error=error)


def markdown_table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown, every value as `str` shows it; a bar or a new line in one breaks none.

    >>> print(markdown_table(["class", "AP"], [["cat", 0.5]]))
    | class | AP |
    | --- | --- |
    | cat | 0.5 |
    """
    head = list(head)
    lines: list[Iterable[object]] = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)


def markdown_text(value: object) -> str:
    """A value as it can stand in a cell, or in the brackets of a link."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def remove_left_overs(folder: Path) -> None:
    """Delete half-written files of a process that was killed. Call it while nobody writes there."""
    for half in folder.glob(".*.tmp"):
        half.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove half-written files of processes that were killed; another may be writing just now."""
    for half in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):  # its process has just given it its name
            if time.time() - half.stat().st_mtime > HOUR:
                half.unlink()


def _sync_folder(folder: Path) -> None:
    with suppress(PermissionError):  # Windows opens no folder, and needs no sync of it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
