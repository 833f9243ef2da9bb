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
    """The package a tenth of what torch takes; all its names, that is all it offers, less than
    torch. Processor time, the least of three."""
    code = """
import sys
from time import process_time
times = [process_time()]
import torch
times.append(process_time())
import rtdetr_lab as lab
times.append(process_time())
for name in dir(lab): getattr(lab, name)
times.append(process_time())
slow = {"scipy", "matplotlib", "huggingface_hub", "skimage", "transformers", "IPython"}
print(*(b - a for a, b in zip(times, times[1:])), sorted(slow & set(sys.modules)))
"""
    runs = [fresh(code).split(maxsplit=3) for _ in range(3)]
    torch, package, names = (min(float(run[i]) for run in runs) for i in range(3))
    assert package < torch / 10
    assert names < torch
    assert {slow.strip() for *_, slow in runs} == {"[]"}
