"""What Windows does not have is not needed: every module is imported and a run is started without.

Windows itself cannot be had here; what is taken away is what POSIX modules and calls the package
could have used.
"""

import subprocess
import sys

import pytest
from paths import child_environment

from rtdetr_lab.cli import main

WITHOUT = """
import os, signal, sys, warnings

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
calls = ("fork", "forkpty", "sched_getaffinity", "sync", "getuid", "geteuid", "mkfifo")
for name in (*calls, "O_DIRECTORY", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM"):
    delattr(signal, name)
original = os.open

def no_folders(path, flags, *more, **how):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return original(path, flags, *more, **how)

os.open = no_folders
warnings.simplefilter("ignore")
"""

IMPORT_ALL = """
import importlib, pkgutil
import rtdetr_lab

programs = ("rtdetr_lab.__main__", "rtdetr_lab.kernels.triton_kernels")
for found in pkgutil.walk_packages(rtdetr_lab.__path__, "rtdetr_lab."):
    if found.name not in programs:
        importlib.import_module(found.name)
"""

RUN = """
from rtdetr_lab.cli import main

sys.exit(main(sys.argv[1:]))
"""


def run(program, *words):
    environment = child_environment()
    command = [sys.executable, "-c", WITHOUT + program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_every_module_can_be_imported():
    run(IMPORT_ALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    words = ("--count", "3", "--val-count", "2", "--size", "96")
    assert main(["data", "shapes", str(folder), *words]) == 0
    return folder


def test_a_run_is_started_and_continued(folder, tmp_path):
    words = ["train", "--data", folder, "--size", "96", "--batch-size", "2", "--pictures", "4"]
    words += ["--device", "cpu", "--out", tmp_path / "run"]
    run(RUN, *words, "--stop-after", "0s")
    assert "step 2, finished" in run(RUN, *words).stdout
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
