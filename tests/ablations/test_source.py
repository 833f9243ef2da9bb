"""The code and the contents that a run depends on: an edit makes another run, a copy does not."""

import functools
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from types import FunctionType

import numpy as np
import pytest
import torch
from ablation_toy import WORLD, study, tiny
from damaged_data import save
from data_folders import SIZE, write_json

from rtdetr_lab.ablations.source import code_of, digest_of
from rtdetr_lab.ablations.task import Task, codes, content_of, fingerprint, weights_digest
from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.data.batch import First, Mapped, Sample, Truth
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.shapes import VAL, ShapesDataset
from rtdetr_lab.training import TrainConfig

OWN = '''
"""A reader's own module."""
import functools
from dataclasses import dataclass, field
import helpers
from helpers import scaled
from rtdetr_lab.query_selection import QuerySelection, TopScore

FACTOR = 1.0
TABLE = {{"a": 1, "b": (2, 3)}}
KEPT = frozenset({{"x", "y", "z"}})

class Base(QuerySelection):
    power = 2

    def inner(self, x):
        return x ** self.power

def cached(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@cached
def wrapped(x):
    return x + 5

def maker(offset):
    return lambda x: x - offset

shifted = maker(7)
halved = functools.partial(scaled, by=2)

class Chosen(Base):
    def content_of(self, tokens, by=3):
        import later
        def local(x):
            return x * FACTOR + len(TABLE) + len(KEPT)
        tokens = halved(shifted(wrapped(helpers.added(self.inner(local(tokens))))))
        return later.last(tokens) * by

    @property
    def size(self):
        return 11

@dataclass(frozen=True)
class Mine(TopScore):
    note: int = 1

    def build(self, dim):
        return Chosen(self)
'''
HELPERS = """
def scaled(x, by):
    return deeper(x) / by

def deeper(x):
    return x + 13

def added(x):
    return x + 17

def unused(x):
    return x + 19
"""
LATER = "def last(x):\n    return x + 23\n"
COUNT = """
import sys
sys.path.insert(0, sys.argv[1])
from ablation_toy import tiny
from dataclasses import replace
from rtdetr_lab.ablations.task import codes
from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.training import TrainConfig
from own import Mine
print(codes(Setup(replace(tiny(), selection=Mine(10)), TrainConfig())))
"""


def code_after(monkeypatch, folder, own=OWN, helpers=HELPERS, later=LATER):
    """The digest of a configuration with a class of a freshly imported module."""
    folder.mkdir(exist_ok=True)
    monkeypatch.syspath_prepend(folder)
    for name, text in {"own": own.format(), "helpers": helpers, "later": later}.items():
        (folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    mine = importlib.import_module("own").Mine(10)
    sys.dont_write_bytecode = before
    return codes(Setup(replace(tiny(), selection=mine), TrainConfig()))


EDITS = {
    "a method of what build() returns": ("own", "by=3", "by=4"),
    "a constant of its module": ("own", "FACTOR = 1.0", "FACTOR = 2.0"),
    "inside a table": ("own", "(2, 3)", "(2, 4)"),
    "a set": ("own", '"z"', '"w"'),
    "a base class": ("own", "x ** self.power", "x * self.power"),
    "an attribute of a base class": ("own", "power = 2", "power = 3"),
    "behind a decorator": ("own", "x + 5", "x + 6"),
    "a closure": ("own", "maker(7)", "maker(8)"),
    "a partial": ("own", "by=2", "by=1"),
    "a property": ("own", "return 11", "return 12"),
    "another module's function": ("helpers", "/ by", "* by"),
    "what that function calls": ("helpers", "x + 13", "x + 14"),
    "a function taken from a module": ("helpers", "x + 17", "x + 18"),
    "an import inside a method": ("later", "x + 23", "x + 24"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_what_a_class_reaches_is_another_run(tmp_path, monkeypatch, edit):
    name, before, after = EDITS[edit]
    texts = {"own": OWN, "helpers": HELPERS, "later": LATER}
    assert before in texts[name]
    first = code_after(monkeypatch, tmp_path / "a")
    assert code_after(monkeypatch, tmp_path / "b") == first, "a copy elsewhere is the same code"
    texts[name] = texts[name].replace(before, after)
    assert code_after(monkeypatch, tmp_path / "c", **texts) != first


@pytest.mark.parametrize(
    "harmless",
    [
        {"helpers": HELPERS.replace("x + 19", "x + 20")},
        {"helpers": "# a comment\n\n" + HELPERS},
        {"own": OWN.replace("A reader's own module.", "Another sentence.")},
    ],
    ids=["unused", "comment", "module docstring"],
)
def test_an_edit_of_what_it_does_not_use_is_the_same_run(tmp_path, monkeypatch, harmless):
    first = code_after(monkeypatch, tmp_path)
    assert code_after(monkeypatch, tmp_path, **harmless) == first


def test_another_process_finds_the_same_code(tmp_path, monkeypatch):
    """Sets have another order there, and objects another address."""
    here = code_after(monkeypatch, tmp_path)
    path = ":".join(sys.path)
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", COUNT, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.stdout.strip() == str(here), done.stderr


def test_a_method_put_into_a_class_of_the_package_is_other_code(monkeypatch):
    from rtdetr_lab.query_selection import QuerySelection

    setup = Setup(tiny(), TrainConfig())
    before = codes(setup)
    monkeypatch.setattr(QuerySelection, "content_of", lambda self, tokens: tokens * 0)
    assert codes(setup) != before


def test_a_function_that_was_edited_in_a_cell_needs_no_file():
    def cell(text):
        return FunctionType(compile(text, "<cell>", "eval").co_consts[0], {"__name__": "__main__"})

    first, again, edited = map(cell, ("lambda x: x + 1", "lambda x: x + 1", "lambda x: x + 2"))
    assert code_of(first) == code_of(again) != code_of(edited)


def test_code_that_refers_to_itself_ends():
    class Ring:
        def __init__(self):
            self.me = self

        def turn(self):
            return recursive(Ring)

    def recursive(x):
        return recursive(x)

    assert json.dumps(code_of(Ring(), recursive, functools.partial(recursive, Ring)))


# --- contents -----------------------------------------------------------------------------------


class Own:
    """A data set of a reader's own: no dataclass, nothing to compare but its samples."""

    names, category_ids = ("dot", "dash"), (1, 2)

    def __init__(self, shade=3, label=1):
        self.shade, self.label = shade, label

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if not 0 <= index < 3:
            raise IndexError(index)
        image = torch.full((3, 8, 12), 9, dtype=torch.uint8)
        image[1, 2, index] = self.shade
        boxes = torch.tensor([[1.0, 2.0, 5.0, 7.0]])
        truth = Truth(
            index, (8, 12), torch.tensor([self.label]), boxes, torch.tensor([20.0]), boxes[:, 0] < 0
        )
        return Sample.of(image, truth)


def test_a_data_set_of_the_same_length_with_other_pixels_or_labels_is_another():
    assert content_of(Own()) == content_of(Own())
    found = {content_of(data) for data in (Own(), Own(shade=4), Own(label=0), First(Own(), 2))}
    assert len(found) == 4


def darker(sample):
    return replace(sample, image=sample.image // 2)


def lighter(sample):
    return replace(sample, image=sample.image // 3)


def test_another_transform_or_world_or_seed_is_other_data():
    drawn = ShapesDataset(WORLD, VAL, 4)
    several = [drawn, replace(drawn, seed=9), replace(drawn, config=replace(WORLD, noise=0.01))]
    several += [Mapped(drawn, darker), Mapped(drawn, lighter), First(drawn, 4)]
    assert len({content_of(data) for data in several}) == 6


def test_a_picture_of_the_same_size_in_bytes_is_other_data(tmp_path):
    path = write_json(tmp_path / "train.json")
    for number, name in enumerate(("a", "b")):
        save(tmp_path / "images" / f"{name}.png", SIZE, number)
    before = content_of(CocoDataset.from_json(path))
    picture = tmp_path / "images" / "b.png"
    content = bytearray(picture.read_bytes())
    content[-1] ^= 1
    picture.write_bytes(bytes(content))
    after = content_of(CocoDataset.from_json(path))
    path.write_text(path.read_text().replace('"category_id": 1', '"category_id": 2'))
    assert len({before, after, content_of(CocoDataset.from_json(path))}) == 3


def test_other_weights_under_the_same_name_are_another_run(tmp_path):
    path = tmp_path / "start.safetensors"
    setup = Setup(tiny(), TrainConfig(), weights=str(path))
    found = []
    for content in (b"first", b"other"):
        path.write_bytes(content)
        found.append(fingerprint(setup, "data", ()))
    assert found[0] != found[1]
    assert weights_digest("PekingU/rtdetr_r50vd") == "PekingU/rtdetr_r50vd"


@dataclass(frozen=True)
class Counting:
    """A measure with a setting."""

    threshold: float = 0.5
    table: tuple[int, ...] = field(default=(1, 2))

    def __call__(self, model, batches):
        return {"count": len(batches)}


def test_other_measures_or_pictures_are_another_judgement_and_not_another_run(tmp_path):
    made = study(tmp_path)
    tasks = [
        made.task,
        replace(made.task, measures=(Counting(),)),
        replace(made.task, measures=(Counting(0.6),)),
        replace(made, data=(made.data[0], First(made.data[1], 3))).task,
    ]
    assert isinstance(made.task, Task)
    assert len({task.judgement for task in tasks}) == 4
    assert len({task.contents[0] for task in tasks}) == 1


def test_arrays_of_the_same_numbers_differ_by_type_and_shape():
    x = np.arange(6)
    arrays = [x, x.reshape(2, 3), x.astype(np.float32), x[::-1].copy()]
    assert len({digest_of(a) for a in arrays}) == 4
    assert digest_of(x[::-1]) == digest_of(x[::-1].copy())
