"""`python tests/campaign/bugs.py [--only N …] [--out FILE]`: plant every bug, ask the tests.

The package and its tests are copied; one bug is written into the copy; a fork that has torch loaded
already runs the chapter's tests there, then the wider ones. A bug that passes all of them survived.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDER = ("rtdetr", "variants", "criterion", "training")
PARITY = ("parity/test_rtdetr.py", "parity/test_losses.py", "parity/test_training_mode.py")
PARITY += ("parity/test_denoising.py", "parity/test_detr.py")


def planted(folder: Path, module: str, old: str, new: str) -> None:
    """Write the bug into the copy; the text must be there exactly once."""
    path = folder / "rtdetr_lab" / f"{module}.py"
    text = (ROOT / "rtdetr_lab" / f"{module}.py").read_text(encoding="utf8")
    if text.count(old) != 1:
        raise SystemExit(f"{module}: {old!r} occurs {text.count(old)} times; mend mutants.py")
    path.write_text(text.replace(old, new), encoding="utf8")


def healed(folder: Path, module: str) -> None:
    shutil.copy(ROOT / "rtdetr_lab" / f"{module}.py", folder / "rtdetr_lab" / f"{module}.py")


def fails(folder: Path, tests: list[str]) -> bool:
    """Whether these tests notice, in a fork of this process."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    import pytest

    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def stages(folder: Path, module: str) -> list[list[str]]:
    """The tests to ask, the nearest first."""
    near = [f"tests/test_{module}.py"]
    wide = [f"tests/test_{name}.py" for name in WIDER]
    oracle = [f"tests/{name}" for name in PARITY]
    stages = [[t for t in tests if (folder / t).exists()] for tests in (near, wide, oracle)]
    return [tests for tests in stages if tests]


def copied(folder: Path) -> Path:
    for name in ("rtdetr_lab", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def main() -> int:
    """Run them; 1 if more than one in twenty survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    import hypothesis  # noqa: F401
    import jaxtyping  # noqa: F401
    import scipy.optimize  # noqa: F401
    import torch
    from mutants import MUTANTS

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    results = []
    with tempfile.TemporaryDirectory() as place:
        folder = copied(Path(place))
        for number in asked.only or range(len(MUTANTS)):
            module, old, new, words = MUTANTS[number]
            planted(folder, module, old, new)
            begun = time.monotonic()
            asked_in = stages(folder, module)
            caught = next((i for i, tests in enumerate(asked_in) if fails(folder, tests)), None)
            healed(folder, module)
            by = None if caught is None else ("chapter", "package", "oracle")[caught]
            took = round(time.monotonic() - begun, 1)
            results.append({"number": number, "module": module, "bug": words, "caught_by": by})
            print(f"{number:3} {module:22} {by or 'SURVIVED':9} {took:5.1f} s  {words}", flush=True)
    survived = [r for r in results if r["caught_by"] is None]
    print(f"{len(results) - len(survived)} of {len(results)} caught")
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(results, indent=2), encoding="utf8")
    return len(survived) > len(results) // 20


if __name__ == "__main__":
    sys.exit(main())
