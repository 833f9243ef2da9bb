"""The run folder: what it knows of a run, whose data it refuses, and what a full disk does."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections import namedtuple
from dataclasses import dataclass, replace

import pytest
import torch
from training_toy import Toy, ToyData

from rtdetr_lab.commands.sets import training_set, world
from rtdetr_lab.data.batch import First
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.convert import export_coco
from rtdetr_lab.data.shapes import ShapesDataset
from rtdetr_lab.errors import CheckpointError, OutputError, TrainingError
from rtdetr_lab.model import Metadata
from rtdetr_lab.structures.environment import commit
from rtdetr_lab.training import TrainConfig, train
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.folder import check_same_data, fingerprint
from rtdetr_lab.training.state import load_state
from rtdetr_lab.writing import locked

CONFIG = TrainConfig(num_pictures=48, batch_size=4, lr=1e-2, save_every=4, eval_every=3)


def run_toy(folder=None, data=None, **how):
    data = ToyData() if data is None else data
    return train(Toy(), data, folder, CONFIG, progress=False, **how)


def mean_weight(model):
    return {"AP": float(model.head.weight.mean())}


def same_weights(a, b):
    expected = b.model.state_dict()
    return all(torch.equal(t, expected[name]) for name, t in a.model.state_dict().items())


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


# --- what it knows --------------------------------------------------------------------------------


def test_run_json_says_on_what_and_how_often_a_run_was_started(tmp_path):
    run_toy(tmp_path, stop_after=5)
    run_toy(tmp_path)
    tree = json.loads((tmp_path / "run.json").read_text())
    assert [s["step"] for s in tree["sessions"]] == [0, 5]
    session = tree["sessions"][0]
    assert session["torch"] == torch.__version__
    assert session["threads"] == torch.get_num_threads()
    assert session["command"]
    assert {"python", "platform", "commit", "rtdetr_lab", "date", "device"} <= session.keys()
    assert tree["names"] == ["thing"]
    assert tree["fingerprint"]["ToyData.pictures"] == "10"


def test_a_checkout_names_its_commit_and_says_when_files_differ_from_it(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    assert commit(package) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
    (package / "file.py").write_text("one")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = commit(package)
    assert len(clean) == 40
    (package / "file.py").write_text("two")
    assert commit(package) == clean + "+"


# --- whose data it is -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "coco"
    export_coco(folder, 4, 1, replace(world(64), max_objects=3))
    return folder


@pytest.fixture
def copy(coco, tmp_path):
    return shutil.copytree(coco, tmp_path / "copy")


def side(pixels):
    return Metadata(image_size=(pixels, pixels))


def changed(before, after):
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def seen(folder, metadata, seed):
    return fingerprint(training_set(CocoDataset.from_folder(folder), metadata, seed))


def test_data_that_moved_is_the_same_data(coco, copy):
    assert seen(coco, side(64), 0) == seen(copy, side(64), 0)


def test_each_change_of_the_data_is_seen_and_named(coco, copy):
    before = seen(coco, side(64), 0)
    assert changed(before, seen(coco, side(64), 1)) == {"Augmented.seed"}
    assert changed(before, seen(coco, side(32), 0)) == {"Mapped.transform"}
    tree = json.loads((copy / "train.json").read_text())
    picture = CocoDataset.from_folder(copy).annotations.pictures[0].file_name
    path = next(copy.rglob(picture))
    path.write_bytes(path.read_bytes() + b" ")
    assert changed(before, seen(copy, side(64), 0)) == {"CocoDataset.files"}
    tree["annotations"][0]["bbox"][2] += 1
    (copy / "train.json").write_text(json.dumps(tree))
    other = seen(copy, side(64), 0)
    assert changed(before, other) == {"CocoDataset.files", "CocoDataset.annotations"}


def test_a_drawn_world_is_its_parameters():
    shapes = ShapesDataset(world(64), 0, 10)
    assert fingerprint(shapes) == fingerprint(ShapesDataset(world(64), 0, 10))
    assert changed(fingerprint(shapes), fingerprint(replace(shapes, seed=1))) == {
        "ShapesDataset.seed"
    }
    assert changed(fingerprint(shapes), fingerprint(replace(shapes, config=world(96)))) == {
        "ShapesDataset.config"
    }


@dataclass(frozen=True)
class Renamed(ToyData):
    called: str = "thing"
    length: int = 10
    delay: float = 0.0

    @property
    def names(self):
        return (self.called,)


def test_a_run_is_not_continued_on_other_data_and_both_are_named(tmp_path):
    run_toy(tmp_path, First(Renamed(), 8), stop_after=2)
    with pytest.raises(
        TrainingError, match=r"other data: Renamed\.called was 'thing', is 'other'; give another"
    ):
        run_toy(tmp_path, First(Renamed("other"), 8))
    assert run_toy(tmp_path, First(Renamed(), 8)).finished
    with pytest.raises(TrainingError, match="data: bits was absent, is 12; give"):
        check_same_data(tmp_path, {"pictures": "9"}, {"pictures": "9", "bits": "12"})


def test_a_run_is_not_continued_with_parameters_frozen_or_thawed(tmp_path):
    names = {False: "learns", True: "is frozen"}
    for frozen, named in names.items():
        folder, models = tmp_path / named, [Toy().build(), Toy().build()]
        models[frozen].head.bias.requires_grad_(False)
        train(models[0], ToyData(), folder, CONFIG, progress=False, stop_after=2)
        with pytest.raises(TrainingError, match=rf"other parameters learn: now head\.bias {named}"):
            train(models[1], ToyData(), folder, CONFIG, progress=False)


# --- disks ----------------------------------------------------------------------------------------


def test_a_disk_without_room_is_named_before_anything_is_learned(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 4000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(TrainingError, match=r"needs 0\.0 MB for checkpoints, 0\.0 MB are free"):
        run_toy(tmp_path)
    assert not (tmp_path / "last.pt").exists()
    run_toy()  # nothing is kept, nothing is asked


def test_what_is_asked_for_is_about_what_is_written(tmp_path, monkeypatch):
    full = namedtuple("usage", "total used free")(0, 0, 0)
    wide = Toy(width=4096)  # so that numbers outweigh what a file says about itself

    def asked():
        with monkeypatch.context() as disk, pytest.raises(TrainingError) as refused:
            disk.setattr(shutil, "disk_usage", lambda folder: full)
            train(wide, ToyData(), tmp_path, CONFIG, progress=False)
        return float(refused.value.what.split()[1])

    first = asked()
    assert first == asked()
    train(wide, ToyData(), tmp_path, CONFIG, mean_weight, progress=False)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.pt")) / 1e6
    assert 0.8 * written < 3 / 4 * first < 1.3 * written
    there = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) / 1e6
    assert asked() == pytest.approx(first - there, abs=0.06)  # to go on, what is there is enough


@pytest.fixture(scope="module")
def whole():
    return run_toy(validate=mean_weight)


@pytest.mark.parametrize(
    ("call", "good"),
    [
        ("fsync", 6),  # the first best is being written
        ("fsync", 8),  # the weights of its model
        ("fsync", 10),  # what describes them
        ("fsync", 12),  # the second last
        ("fsync", 13),  # it is there, its folder is not yet on the disk
        ("replace", 5),  # the weights of the model are there, and nothing that describes them
        ("replace", 6),  # the first last becomes the one before
        ("replace", 7),  # it has, and there is no other yet
    ],
)
def test_a_disk_that_fills_up_during_a_save_leaves_the_one_before(
    tmp_path, monkeypatch, whole, call, good
):
    original, calls = getattr(os, call), []

    def full(*args, **how):
        calls.append(args)
        if len(calls) > good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args, **how)

    monkeypatch.setattr(os, call, full)
    errors = (TrainingError, CheckpointError)
    with pytest.raises(errors, match="cannot be written: No space left"):
        run_toy(tmp_path, validate=mean_weight)
    monkeypatch.undo()
    state, damaged = keep.load_last(tmp_path)
    assert state is not None
    assert not damaged
    assert not list(tmp_path.glob(".*.tmp"))
    assert same_weights(run_toy(tmp_path, validate=mean_weight), whole)


@pytest.mark.full
def test_a_run_on_a_real_full_disk_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system; runs as root")
    try:
        run_toy(disk, validate=mean_weight, stop_after=2)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 20_000))
        with pytest.raises(TrainingError, match=r"MB are free|No space left"):
            run_toy(disk, validate=mean_weight)
        assert load_state(disk / "last.pt")["step"] == 2
        (disk / "filler").unlink()
        assert same_weights(run_toy(disk, validate=mean_weight), run_toy(validate=mean_weight))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- damage and left-overs ------------------------------------------------------------------------


def test_a_damaged_best_is_named_set_aside_and_found_again(tmp_path, capsys):
    run_toy(tmp_path, validate=lambda model: {"AP": 0.9}, stop_after=7)
    flip_a_byte(tmp_path / "best.pt")
    run_toy(tmp_path, validate=lambda model: {"AP": 0.1})  # worse than what was lost
    said = capsys.readouterr().err
    assert "best.pt: is damaged" in said
    assert "The next validation counts as the best" in said
    assert (tmp_path / "damaged_best.pt").exists()
    assert load_state(tmp_path / "best.pt")["step"] > 7


def test_half_written_files_of_a_killed_process_are_swept_out(tmp_path):
    run_toy(tmp_path, stop_after=2)
    (tmp_path / ".last.pt.123.tmp").write_bytes(b"half")
    run_toy(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


# --- who holds it ---------------------------------------------------------------------------------


def test_a_second_process_or_a_second_call_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(TrainingError, match="another process writes"):
        run_toy(tmp_path)
    assert run_toy(tmp_path).finished


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are forks where os.fork is")
def test_a_killed_run_lets_go_although_its_loader_lives_on(tmp_path):
    reader, writer = os.pipe()
    if (holder := os.fork()) == 0:
        with locked(tmp_path):
            if (loader := os.fork()) == 0:
                time.sleep(600)
            os.write(writer, str(loader).encode())
            time.sleep(600)
    loader = int(os.read(reader, 20))
    try:
        with pytest.raises(OutputError, match="another process writes"), locked(tmp_path):
            pass
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with locked(tmp_path):
            os.kill(loader, 0)  # it lives
    finally:
        os.kill(loader, signal.SIGKILL)
