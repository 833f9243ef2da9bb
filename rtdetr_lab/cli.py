"""# The command line: `rtdetr-lab VERB …`

A thin dispatcher. Every verb is a dataclass in `commands/`; `COMMANDS` gives the verbs their names.
To add a verb, write its module and a line in `COMMANDS`.

Exit codes: 0 done; 1 bad input, with one line on stderr (`--debug` shows where in the code); 2
usage; 130 interrupted (Ctrl-C, SIGTERM, SIGHUP).
"""

import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import tyro

from rtdetr_lab.commands.base import FAILED, Command, complain
from rtdetr_lab.errors import LabError
from rtdetr_lab.writing import ENDING

COMMANDS = {
    "demo": "demo.Demo",
    "detect": "detect.Detect",
    "explore": "explore.Explore",
    "heatmap": "heatmap.Heatmap",
    "verify": "verify.Verify",
    "classes": "classes.Classes",
    "train": "train.Train",
    "eval": "evaluate.Eval",
    "data": "data.Data",
    "bench": "bench.Bench",
    "export": "export.Export",
    "ablate": "ablate.Ablate",
    "notebooks": "notebooks.Notebooks",
}
"""Verb → module.Class in `rtdetr_lab.commands`."""

DESCRIPTION = "Read, run and take apart real-time detection transformers."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    code = 0
    try:
        try:
            code = _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # a program that we print to, such as head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(argv: list[str]) -> int:
    if argv == ["--version"]:
        print(import_module("rtdetr_lab").__version__)
        return 0
    command = _parsed(argv or ["--help"])
    # Pillow warns about odd metadata for every picture; we raise an ImageError where it matters.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with interruptible():
            return command.run()
    except (LabError, OSError) as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            raise
        if command.debug:
            raise
        complain(error)
        return FAILED
    except KeyboardInterrupt:
        complain(KeyboardInterrupt("interrupted"))
        return 130


def reader_is_gone() -> bool:
    """Return whether the program that reads our stdout has ended; True where nothing can tell."""
    if not hasattr(select, "poll"):  # Windows
        return True
    stdout = select.poll()
    stdout.register(1, 0)  # errors are always reported
    return any(event & select.POLLERR for _, event in stdout.poll(0))


@contextmanager
def interruptible() -> Iterator[None]:
    """End on SIGTERM and SIGHUP (a closed terminal) as on Ctrl-C: a command keeps what it has done.

    A signal that is ignored already, as under nohup, stays ignored.
    """
    in_main = threading.current_thread() is threading.main_thread()
    ours = [n for n in ENDING if in_main and signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _parsed(argv: list[str]) -> Command:
    argv = re.sub(r"(^|\0)--amp\0auto(?=\0|$)", r"\1--amp-auto", "\0".join(argv)).split("\0")
    verbs: dict[str, Any] = {verb: _command(home) for verb, home in COMMANDS.items()}
    command = tyro.extras.subcommand_cli_from_dict(
        verbs,
        prog="rtdetr-lab",
        description=DESCRIPTION,
        args=argv,
        config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
    )
    assert isinstance(command, Command)
    return command


def _command(home: str) -> type[Command]:
    module, name = home.split(".")
    found: type[Command] = getattr(import_module(f"rtdetr_lab.commands.{module}"), name)
    return found


if __name__ == "__main__":
    sys.exit(main())
