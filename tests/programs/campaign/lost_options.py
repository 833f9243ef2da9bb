"""Bugs that are made by rule: an argument that is handed on by its own name gets lost.

    python tests/programs/campaign/bugs.py --list tests/programs/campaign/lost_options.py --out FILE

For every call `f(…, limits=limits)` of the package, the argument is left out. Of the bugs that were
planted from outside, this kind survived most often: the function has a default, so nothing raises.
Modules of chapters are left alone; `mutants.py` has bugs for those.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[3] / "rtdetr_lab"
ROOMS = ("ablations", "checkpoints", "commands", "data", "deployment", "evaluation", "images")
ROOMS += ("training", "transformers_api", "viz")


def handed_on(call: ast.Call) -> Iterator[ast.keyword]:
    """Yield the keywords of a call whose value is a variable or field of the same name."""
    for word in call.keywords:
        value = word.value
        name = value.id if isinstance(value, ast.Name) else getattr(value, "attr", None)
        if word.arg is not None and word.arg == name:
            yield word


def without(call: ast.Call, word: ast.keyword) -> str:
    """Return the source of a call without one keyword."""
    rest = [other for other in call.keywords if other is not word]
    return ast.unparse(ast.Call(call.func, call.args, rest))


def of_module(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield the bugs of a module: (module, old, new, words)."""
    text = path.read_text(encoding="utf8")
    module = str(path.relative_to(PACKAGE).with_suffix(""))
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        call = ast.get_source_segment(text, node) or ""
        if text.count(call) == 1:
            for word in handed_on(node):
                yield module, call, without(node, word), f"{word.arg} is not handed on"


MUTANTS = tuple(
    bug
    for room in ROOMS
    for path in sorted((PACKAGE / room).rglob("*.py"))
    for bug in of_module(path)
)
