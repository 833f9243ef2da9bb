"""# Build: `make notebooks`

Every `notebooks/NN_name.py` becomes an executed `.ipynb` beside it. A notebook runs again only if
its code has changed, or the code of an `rtdetr_lab` module that its last run imported. If only
prose has changed, the outputs are kept.

    python -m rtdetr_lab.notebook_tools.build            # stale notebooks
    python -m rtdetr_lab.notebook_tools.build 09 --force # notebook 09, stale or not
"""

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.notebook_tools.outputs import halved, normalised
from rtdetr_lab.notebook_tools.percent import code_digest, contents, digest, read

PACKAGE = Path(__file__).resolve().parents[1]
HOME = PACKAGE.parent / "notebooks"
MAX_BYTES = 150_000
CELL_SECONDS = 1800
KEY = "rtdetr_lab"
"""Key in the metadata of a notebook for the digests of its sources."""

HAS_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

ENVIRONMENT = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "HF_HUB_OFFLINE": "1",  # the committed outputs are those without a network
    "TQDM_DISABLE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
"""Environment variables of a kernel, so that two machines print the same."""

PREPARE = """\
%config InlineBackend.rc = {"figure.dpi": 176, "savefig.dpi": 176, "figure.facecolor": "white"}
import warnings; warnings.filterwarnings("ignore", category=DeprecationWarning)"""
ASK_MODULES = """\
import json, sys
print(json.dumps(sorted(m for m in sys.modules if m.split(".")[0] == "rtdetr_lab")))"""


def sources_digest(modules: Iterable[str]) -> str:
    """Compute a digest of the code of these modules, without comments and docstrings."""
    return digest("\n".join(f"{m} {_substance(_file_of(m))}" for m in sorted(modules)))


def _file_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _substance(path: Path) -> str:
    if not path.is_file():
        return "gone"
    tree = ast.parse(path.read_text(encoding="utf8"))
    for node in ast.walk(tree):
        if isinstance(node, HAS_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return ast.dump(tree)


def stale(path: Path) -> str:
    """Return why the notebook of this `.py` must run again; empty if it is up to date."""
    import nbformat

    target = path.with_suffix(".ipynb")
    if not target.is_file():
        return "never executed"
    made = nbformat.read(target, as_version=4).metadata.get(KEY, {})
    if made.get("code") != code_digest(read(path)):
        return "its code changed"
    if made.get("sources") != sources_digest(made.get("uses", [])):
        return "rtdetr_lab changed"
    return ""


def execute(notebook: Any, folder: Path, kernel: Mapping[str, str] = ENVIRONMENT) -> list[str]:
    """Run every cell in a new kernel; return the modules of `rtdetr_lab` that it imported."""
    import nbformat
    from nbclient import NotebookClient

    first, last = (nbformat.v4.new_code_cell(c) for c in (PREPARE, ASK_MODULES))
    own = notebook.cells
    notebook.cells = [first, *own, last]
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute(env={**os.environ, **kernel, "PYTHONPATH": path})
    notebook.cells = own
    modules: list[str] = json.loads(last.outputs[0].text)
    return modules


def build(path: Path, force: bool = False) -> str:
    """Update the notebook of this `.py`; return a message about it."""
    import nbformat

    target, notebook, reason = path.with_suffix(".ipynb"), read(path), stale(path)
    if force or reason:
        began = time.perf_counter()
        uses = execute(notebook, path.parent)
        normalised(notebook, path.stem)
        made = {"code": code_digest(notebook), "sources": sources_digest(uses), "uses": uses}
        notebook.metadata[KEY] = made
        took = f"executed in {time.perf_counter() - began:.0f} s ({reason or 'forced'})"
    else:
        old = nbformat.read(target, as_version=4)
        if contents(old) == contents(notebook):
            return "up to date"
        _keep_outputs(notebook, old)
        took = "new prose, outputs kept"
    data = _small(notebook, path.stem)
    target.write_bytes(data)
    return f"{took}, {len(data) / 1000:.0f} kB"


def _keep_outputs(notebook: Any, old: Any) -> None:
    now, before = ([c for c in n.cells if c.cell_type == "code"] for n in (notebook, old))
    for cell, earlier in zip(now, before, strict=True):
        cell.outputs = earlier.outputs
    normalised(notebook, "kept outputs")
    notebook.metadata[KEY] = old.metadata[KEY]


def _small(notebook: Any, stem: str) -> bytes:
    """Write the notebook; if it is too large, its largest figures lose half of their pixels."""
    import nbformat

    while len(data := f"{nbformat.writes(notebook, version=4)}\n".encode()) > MAX_BYTES:
        if halved(notebook):
            continue
        sizes = [(len(json.dumps(c.get("outputs", []))), i) for i, c in enumerate(notebook.cells)]
        worst = ", ".join(f"cell {i}: {n / 1000:.0f} kB" for n, i in sorted(sizes)[:-5:-1])
        remedy = f"draw smaller or fewer figures ({worst})"
        raise ConfigError(stem, f"has {len(data) / 1000:.0f} kB of {MAX_BYTES // 1000}", remedy)
    return data


def main(argv: Sequence[str] | None = None) -> int:
    """Build stale notebooks; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].lstrip("# "))
    parser.add_argument("only", nargs="*", help="numbers or names, like 09 or 09_query_selection")
    parser.add_argument("--force", action="store_true", help="execute even if not stale")
    asked = parser.parse_args(argv)
    wanted = tuple(asked.only)
    paths = [p for p in sorted(HOME.glob("*.py")) if not wanted or p.stem.startswith(wanted)]
    failed = not paths
    for path in paths:
        try:
            print(f"{path.stem}: {build(path, asked.force)}", flush=True)
        except Exception as error:  # the message of nbclient has the cell and the traceback
            print(f"{path.stem}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
