r"""# Writing: a file appears as a whole, or not at all

A process may be killed in the middle of a write, and a disk may fill up. So we never write directly
under the final name. We fill a temporary file in the same folder, flush it to the disk and rename
it; then we flush the folder, too. The old file stays until the rename.

An error of the system becomes one typed error. The file gets the permissions of a new file of its
user. A link is replaced and not followed: in the hub's cache it would lead to a shared file.

Text from outside (names of files, classes, variants) is escaped here, for every place it goes to:

| place                     | function                                            |
|---------------------------|-----------------------------------------------------|
| a line of text, a tag     | `printable`, `shorten`                              |
| a report in Markdown      | `markdown_text`, `_code`, `_block` and `_table`     |
| a label of a figure       | `figure_text`                                       |
| a part of a file name     | `file_stem`                                         |

In HTML, `html.escape` does it. Messages list names with `first_few`.
"""

import glob
import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rtdetr_lab.errors import LabError, OutputError

HOUR = 3600.0

ENDING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that ask a process to end: Ctrl-C, a cluster, a closed terminal (not on Windows)."""

LONGEST_STEM = 100
"""Bytes of `file_stem`; file systems allow names of 255."""

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
    path: Path,
    error: type[LabError] = OutputError,
    keep_old_as: Path | None = None,
    outdates: Path | None = None,
) -> Iterator[Path]:
    """Yield a temporary file to fill; when the block ends, it becomes `path`.

    The old file can be kept under another name. `outdates` describes the old file: it is removed,
    so that it never lies beside the new one. Raises `error` if the file cannot be written.
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
            if outdates:
                outdates.unlink(missing_ok=True)
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


def cache_folder() -> Path:
    """Return where we keep what can be made again: `~/.cache/rtdetr_lab`, by `XDG_CACHE_HOME`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtdetr_lab"


def write_text(path: Path, text: str, error: type[LabError] = OutputError) -> None:
    """Replace a file by this text. A file name that is not Unicode becomes escapes (`\\udc80`)."""
    write_bytes(path, text.encode("utf8", "backslashreplace"), error=error)


class Markdown(str):
    """Text that is Markdown already, so that a table does not escape it."""


def markdown_table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Format a table in Markdown, every value with `markdown_text`.

    >>> print(markdown_table(["class", "AP"], [["cat", 0.5]]))
    | class | AP |
    | --- | --- |
    | cat | 0.5 |
    """
    head = list(head)
    lines: list[Iterable[object]] = [head, [Markdown("---")] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)


MARKUP = {c: f"\\{c}" for c in "\\`*[]{}|"} | {c: f"&#{ord(c)};" for c in "$~"}
MARKUP |= {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""Replacements for Markdown. Not every reader of Markdown knows `\\$` or `\\<`."""


def markdown_text(value: object) -> str:
    """Format a value as text inside a line of Markdown: no markup, no link, no end of a cell."""
    if isinstance(value, Markdown):
        return value
    text = printable(str(value).replace("\n", " "))
    text = "".join(MARKUP.get(c, c) for c in text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # inside a word it is no markup


def markdown_code(text: str) -> Markdown:
    """Format a text as code inside a line of Markdown."""
    return Markdown(f"`{printable(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`")


def markdown_block(text: str) -> str:
    """Format lines of text as a block of code in Markdown; no line can end it."""
    return "\n".join(f"    {printable(line)}" for line in text.splitlines())


def printable(text: str) -> str:
    r"""Put a text on one line: characters that cannot be printed become escapes (`\n`, `\x1b`)."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(text: str, width: float | int, measure: Callable[[str], float | int] = len) -> str:
    """Shorten a text to `width` as `measure` counts it; the end (a score) stays readable."""
    if measure(text) <= width:
        return text
    head, tail = text[:-5], text[-5:]
    while head and measure(head + "…" + tail) > width:
        head = head[:-1]
    return head.rstrip() + "…" + tail


def figure_text(text: str, longest: int = 40) -> str:
    """Format a text for matplotlib: `$` begins no formula, and `_` hides no entry of a legend."""
    shown = shorten(printable(text), longest).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def file_stem(text: str) -> str:
    """Make a part of a file name that every system allows and no link has to escape.

    Letters and digits stay; other characters become `_`, and a long name is cut. Windows reserves
    names such as CON: they get a `_` more.
    """
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in text)
    stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
    return stem + "_" * bool(re.fullmatch(r"(?i)con|prn|aux|nul|(com|lpt)\d|", stem))


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
