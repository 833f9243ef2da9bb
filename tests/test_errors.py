"""docs/errors.md lists every error there is, and its examples say what the code says."""

import ast
import copy
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap

import pytest
from paths import ROOT

from rtdetr_lab import errors
from rtdetr_lab.cli import main
from rtdetr_lab.errors import LabError

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf8")
CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, LabError) and kind is not LabError
}
EXAMPLE = r"^## (\w+)\n(.*?)^```python\n(.*?)^```\n\n^```text\n(.*?)\n```"
EXAMPLES = {name: (code, said) for name, _, code, said in re.findall(EXAMPLE, PAGE, re.M | re.S)}
TRIED = """
try:
{code}
    said.append(["nothing", ""])
except LabError as error:
    said.append([type(error).__name__, str(error), error.where, error.what, error.remedy])
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the examples raise, all in one process."""
    program = "import json\nfrom rtdetr_lab.errors import LabError\nsaid = []\n"
    for code, _ in EXAMPLES.values():
        program += TRIED.format(code=textwrap.indent(code, "    "))
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    env["HF_HOME"] = str(tmp_path_factory.mktemp("hub"))
    command = [sys.executable, "-c", program + "print(json.dumps(said))"]
    folder = tmp_path_factory.mktemp("examples")
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    return dict(zip(EXAMPLES, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_every_error_has_a_section_and_a_row():
    assert sorted(EXAMPLES) == sorted(CLASSES)
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \| `(\w+)` \|", PAGE, re.M))
    assert rows == {name: kind.__bases__[1].__name__ for name, kind in CLASSES.items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_raises_its_error_with_these_words(said, name):
    kind, text, *parts = said[name]
    assert kind == name
    assert text == EXAMPLES[name][1]
    assert all(parts), "where, what, remedy"


def test_the_message_that_is_taken_apart_is_one_of_them():
    shown = re.search(r"^UnknownModelError: (.*)$", PAGE, re.M)[1]
    assert shown == EXAMPLES["UnknownModelError"][1]


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_survives_a_process_boundary(name):
    error = CLASSES[name]("a file", "is bad.", "mend it.")
    again = copy.copy(error)  # what a process boundary does, too
    assert str(again) == str(error) == "a file: is bad; mend it"


def test_the_package_raises_no_other_kind_about_what_it_was_given():
    """What is left of others' errors: protocols that demand them, and abstract methods."""
    own = set(CLASSES) | {
        "AttributeError",
        "IndexError",
        "KeyError",
        "TypeError",
        "NotImplementedError",
    }
    own |= {"traitlets.TraitError"}
    for path in (ROOT / "rtdetr_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                kind = ast.unparse(node.exc.func)
                assert kind in own or not kind.endswith("Error"), f"{path}: {kind}"


def test_debug_shows_where_in_the_code(tmp_path, capsys):
    words = ["detect", str(tmp_path), "--model", "r19", "--out", str(tmp_path)]
    assert main(words) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(LabError) as shown:
        main([*words, "--debug"])
    assert len(shown.traceback) > 3


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (OSError(28, "No space left on device", "a.txt"), "No space left on device"),
        (ValueError("first line\nsecond"), "first line"),
        (KeyError("boxes"), "KeyError: 'boxes'"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("\n"), "RuntimeError"),
    ],
)
def test_an_error_of_another_library_is_told_in_one_line_that_says_something(problem, said):
    with (
        pytest.raises(errors.DataError) as caught,
        errors.converting(Exception, errors.DataError, "a.json", "cannot be read: {}", "try again"),
    ):
        raise problem
    assert str(caught.value) == f"a.json: cannot be read: {said}; try again"
    assert caught.value.__cause__ is problem


def test_an_error_of_ours_keeps_its_words():
    ours = errors.ConfigError("dim", "is 0", "give 1 or more")
    with (
        pytest.raises(errors.ConfigError) as caught,
        errors.converting(Exception, errors.DataError, "a", "b", "c"),
    ):
        raise ours
    assert caught.value is ours
