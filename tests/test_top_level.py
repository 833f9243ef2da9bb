"""`import rtdetr_lab as lab` shows every public name and loads none of them."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rtdetr_lab as lab

NAMES = [name for name in dir(lab) if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_name_is_there(name):
    assert getattr(lab, name) is not None


def test_an_unknown_name_is_an_attribute_error_as_everywhere():
    with pytest.raises(AttributeError, match="Detektor"):
        _ = lab.Detektor


def test_every_name_is_defined_by_the_module_that_the_list_gives():
    tree = ast.parse(Path(lab.__file__).with_suffix(".pyi").read_text(encoding="utf8"))
    listed = {
        a.asname: n.module for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    assert set(listed) == set(NAMES)
    for name, module in listed.items():
        home = importlib.import_module(f"rtdetr_lab.{module}")
        assert getattr(lab, name) is getattr(home, name)


def fresh(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


def test_importing_the_package_loads_none_of_its_modules_and_no_library():
    loaded = fresh("import sys, rtdetr_lab; print([m for m in sys.modules])")
    for name in ("torch", "numpy", "scipy", "matplotlib", "huggingface_hub", "rtdetr_lab.boxes"):
        assert f"'{name}'" not in loaded


def test_after_torch_the_front_door_costs_little_and_loads_no_slow_library():
    """The package at most 0.3 s; all its names, that is all it offers, at most another second.

    Processor time, best of three: how busy the machine is does not count.
    """
    code = """
import sys, time, torch
start = time.process_time()
import rtdetr_lab as lab
package = time.process_time() - start
for name in dir(lab): getattr(lab, name)
names = time.process_time() - start - package
slow = {"scipy", "matplotlib", "huggingface_hub", "skimage", "transformers", "IPython"}
print(package, names, sorted(slow & set(sys.modules)))
"""
    runs = [fresh(code).split(maxsplit=2) for _ in range(3)]
    assert min(float(package) for package, _, _ in runs) < 0.3
    assert min(float(names) for _, names, _ in runs) < 1.0
    assert {slow.strip() for _, _, slow in runs} == {"[]"}
