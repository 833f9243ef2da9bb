"""What fails around a program: children that may hang or complain, disks that fill up."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tally import Wrong

from rtdetr_lab.errors import LabError

SECONDS = 600.0
"""After which something hangs."""

LAST_WORDS = 2_000
"""Bytes a child needs to say what went wrong, where even its log is limited."""

NEW_MOUNTS = 0x20000
"""CLONE_NEWNS: a process with a view of its own on what is mounted."""


@dataclass
class End:
    """How a child ended: its exit code, and the lines it wrote."""

    code: int
    lines: list[str]

    def in_one_line(self, *says: str) -> str:
        """The one complaint, or `Wrong`."""
        complaints = [line for line in self.lines if line.startswith("rtdetr-lab: ")]
        if self.code == 0 or len(complaints) != 1:
            raise Wrong(f"exit code {self.code}, {self.lines[-5:]}")
        if any("Traceback" in line for line in self.lines):
            raise Wrong(f"a traceback: {self.lines[-5:]}")
        if missing := [word for word in says if word not in complaints[0]]:
            raise Wrong(f"{complaints[0]!r} does not say {missing}")
        return complaints[0].removeprefix("rtdetr-lab: ")


def typed(work: Callable[[], object], kind: type[LabError]) -> Callable[[], int]:
    """Work that ends with exit code 1 and its message as one line if it raises this error."""

    def tried() -> int:
        try:
            work()
        except kind as error:
            print(f"rtdetr-lab: {error}", file=sys.stderr)
            return 1
        return 0

    return tried


def in_a_fork(
    work: Callable[[], int],
    log: Path,
    first: Callable[[], object] = lambda: None,
    interrupt: Callable[[], bool] | None = None,
) -> End:
    """Do it in a child. `first` prepares the child; ^C is sent once `interrupt()` says so."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _work(work, log, first)
    began, code = time.monotonic(), None
    while code is None:
        if time.monotonic() - began > SECONDS:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise Wrong(f"hangs: {log.read_text('utf8')[-500:]}")
        if interrupt is not None and interrupt():
            interrupt = os.kill(process, signal.SIGINT)
        ended, status = os.waitpid(process, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else time.sleep(0.005)
    return End(code, log.read_text("utf8", errors="replace").splitlines())


def _work(work: Callable[[], int], log: Path, first: Callable[[], object]) -> None:
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        first()
        code = work()
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# --- disks --------------------------------------------------------------------------------------


@dataclass
class Disk:
    """A folder that can be filled up, and made read-only."""

    folder: Path
    mounted: bool

    @property
    def how(self) -> str:
        return "tmpfs" if self.mounted else "limit on file size; mode of the folder"

    def fill(self, leave: int) -> Callable[[], object]:
        """What a child must do first so that it finds no more than this many bytes."""
        if not self.mounted:
            limit = max(leave, LAST_WORDS)
            return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        free = shutil.disk_usage(self.folder).free
        with open(self.folder / "filler", "wb") as file:
            file.write(bytes(max(0, free - leave)))
        return lambda: None

    def empty(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def writable(self, yes: bool) -> None:
        if self.mounted:
            how = "remount,rw" if yes else "remount,ro"
            subprocess.run(["mount", "-o", how, str(self.folder)], check=True)
            return
        for path in [self.folder, *self.folder.rglob("*")]:
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if yes else mode & ~0o222)


@contextmanager
def disk(folder: Path, size: str = "24m"):
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    found = Disk(place, subprocess.run(mount, capture_output=True).returncode == 0)
    try:
        yield found
    finally:
        if found.mounted:
            subprocess.run(["umount", str(place)], check=True)
        else:
            found.writable(True)


def without_shared_memory() -> None:
    """An empty /dev/shm that nobody may write, for this process alone."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS):
        raise PermissionError("unshare")
    for words in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", "ro", "tmpfs", "/dev/shm"]):
        subprocess.run(["mount", *words], check=True)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def untouched(before: dict[str, bytes], folder: Path, but: tuple[str, ...] = ("filler",)) -> None:
    """Every file that was there is there, and no half one has come."""
    now = bytes_of(folder)
    for path, content in before.items():
        if Path(path).name not in but and now.get(path) != content:
            raise Wrong(f"{path} was lost or changed")
    if halves := [p for p in now if p.endswith(".tmp") and p not in before]:
        raise Wrong(f"half-written: {halves}")
