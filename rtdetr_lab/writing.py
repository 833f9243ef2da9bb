r"""# Writing: a file appears as a whole, or not at all

A process may be killed in the middle of a write, and a disk may fill up. So we never write directly
under the final name. We fill a temporary file in the same folder, flush it to the disk and rename
it; then we flush the folder, too. The old file stays until the rename.

An error of the system becomes one typed error. The file gets the permissions of a new file of its
user. A link is replaced and not followed: in the hub's cache it would lead to a shared file.

Reports write their tables with `markdown_table`, and messages list names with `first_few`.
"""

import glob
import os
import secrets
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rtdetr_lab.errors import LabError, OutputError

HOUR = 3600.0

ENDING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that ask a process to end: Ctrl-C, a cluster, a closed terminal (not on Windows)."""

MAKE_ROOM = "make room, or give another place"


@contextmanager
def writing(path: Path, error: type[LabError] = OutputError) -> Iterator[None]:
    """Convert the system's errors about writing `path` to `error`."""
    try:
        yield
    except LabError:
        raise
    except OSError as problem:
        what = f"cannot be written: {problem.strerror or problem}"
        raise error(str(path), what, MAKE_ROOM) from problem


@contextmanager
def locked(folder: Path, error: type[LabError] = OutputError, name: str = "lock") -> Iterator[None]:
    """Create a folder and lock it, so that one process writes there. Raises `error` if it cannot.

    The system frees the lock when the process ends, even if it is killed. A loader worker that
    lives longer does not keep it (filelock closes the lock in a fork).
    """
    from filelock import FileLock, Timeout  # slow to import, and a command that reads needs none

    held = FileLock(folder / name, blocking=False)
    with writing(folder, error):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire()
        except Timeout as problem:
            what = "another process writes into this folder"
            raise error(str(folder), what, "wait for it, or give another folder") from problem
    with held:
        yield


@contextmanager
def replacing(
    path: Path, error: type[LabError] = OutputError, keep_old_as: Path | None = None
) -> Iterator[Path]:
    """Yield a temporary file to fill; when the block ends, it becomes `path`.

    The old file can be kept under another name. Raises `error` if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path, error):
        try:
            _sweep(path)
            with open(temporary, "xb") as file:
                permissions = os.fstat(file.fileno()).st_mode
            yield temporary
            os.chmod(temporary, permissions)  # the block may have replaced the file
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            if keep_old_as and path.exists():
                os.replace(path, keep_old_as)  # if killed here, the owner resumes from this
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):  # the disk may be gone
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
    """Replace a file by this text. A file name that is not Unicode becomes escapes (`\\udc80`)."""
    write_bytes(path, text.encode("utf8", "backslashreplace"), error=error)


def markdown_table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Format a table in Markdown, every value with `str`; bars are escaped, new lines removed.

    >>> print(markdown_table(["class", "AP"], [["cat", 0.5]]))
    | class | AP |
    | --- | --- |
    | cat | 0.5 |
    """
    head = list(head)
    lines: list[Iterable[object]] = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)


def markdown_text(value: object) -> str:
    """Format a value for a cell, or for the brackets of a link."""
    return printable(str(value).replace("\n", " ")).replace("|", "\\|")


def printable(text: str) -> str:
    r"""Put a text on one line: characters that cannot be printed become escapes (`\n`, `\x1b`)."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """List the first names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def remove_left_overs(folder: Path) -> None:
    """Delete half-written files of a killed process. No process may write there meanwhile."""
    for half in folder.glob(".*.tmp"):
        half.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove half-written files of killed processes; young files may belong to a running one."""
    for half in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):  # its process has just renamed it
            if time.time() - half.stat().st_mtime > HOUR:
                half.unlink()


def _sync_folder(folder: Path) -> None:
    with suppress(PermissionError):  # Windows cannot open a folder, and needs no sync
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
