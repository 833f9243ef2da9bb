"""A file appears as a whole, or not at all; what was there stays."""

import errno
import os
import stat
import time

import pytest
import torch

from rtdetr_lab import writing
from rtdetr_lab.checkpoints.files import read_weights, write_weights
from rtdetr_lab.data.convert import write_annotations
from rtdetr_lab.errors import CheckpointError, OutputError, TrainingError
from rtdetr_lab.writing import (
    markdown_table,
    remove_left_overs,
    replacing,
    write_bytes,
    write_text,
)


def weights(path):
    write_weights(path, {"a": torch.ones(1)}, {})


def annotations(path):
    write_annotations(path, ("cat",), [])


WRITERS = {
    "text": (lambda path: write_text(path, "new"), OutputError),
    "bytes": (lambda path: write_bytes(path, b"n", b"ew", error=TrainingError), TrainingError),
    "weights": (weights, CheckpointError),
    "annotations": (annotations, OutputError),
}


def test_a_write_that_is_interrupted_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "config.json"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["config.json"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_on_the_disk_before_it_gets_its_name_and_then_its_folder(
    tmp_path, monkeypatch, kind
):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (order.append("sync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("name"), replace(a, b)))
    WRITERS[kind][0](tmp_path / "file")
    assert order == ["sync", "name", "sync"]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, monkeypatch, call, kind):
    write, error = WRITERS[kind]
    path = tmp_path / "file.safetensors"
    write(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    said = r"file\.safetensors: cannot be written: No space left on device; make room"
    with pytest.raises(error, match=said):
        write(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"nowhere/a\.txt: cannot be written: No such file"):
        write_text(tmp_path / "nowhere" / "a.txt", "text")


def test_the_old_file_may_be_kept_under_another_name(tmp_path):
    path, before = tmp_path / "last", tmp_path / "previous"
    for text in (b"one", b"two", b"three"):
        write_bytes(path, text, keep_old_as=before)
    assert (path.read_bytes(), before.read_bytes()) == (b"three", b"two")


def test_a_file_is_as_readable_as_any_other_of_its_user(tmp_path):
    before = os.umask(0o027)
    try:
        weights(tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o640


def test_a_link_is_replaced_and_what_it_led_to_stays(tmp_path):
    """In the hub's cache a file is a link to one that other commits share."""
    shared, link = tmp_path / "blob", tmp_path / "snapshot"
    shared.write_text("of another commit")
    link.symlink_to(shared)
    write_text(link, "mine")
    assert (link.read_text(), shared.read_text()) == ("mine", "of another commit")
    assert not link.is_symlink()


def test_half_files_of_killed_processes_are_swept_out_when_nobody_can_be_writing_them(tmp_path):
    old, new = tmp_path / ".m.safetensors.old", tmp_path / ".m.safetensors.new"
    for path in (old, new, tmp_path / ".other.old"):
        path.write_bytes(b"half")
        os.utime(path, 2 * (time.time() - 2 * writing.HOUR * (path != new),))
    weights(tmp_path / "m.safetensors")
    assert sorted(os.listdir(tmp_path)) == [".m.safetensors.new", ".other.old", "m.safetensors"]


def test_left_overs_of_any_age_are_removed_by_who_holds_the_folder(tmp_path):
    (tmp_path / ".last.pt.0a1b.tmp").write_bytes(b"half")
    (tmp_path / ".keep").touch()
    remove_left_overs(tmp_path)
    assert os.listdir(tmp_path) == [".keep"]


def test_a_half_file_that_gets_its_name_meanwhile_is_no_trouble(tmp_path, monkeypatch):
    gone = [tmp_path / ".m.safetensors.gone"]
    monkeypatch.setattr(type(tmp_path), "glob", lambda *_: gone)
    weights(tmp_path / "m.safetensors")
    assert read_weights(tmp_path / "m.safetensors").tensors["a"] == 1


def test_where_folders_cannot_be_opened_files_are_written_all_the_same(tmp_path, monkeypatch):
    """As on Windows."""
    original = os.open

    def windows(path, flags, *more, **how):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path, flags, *more, **how)

    monkeypatch.setattr(os, "open", windows)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_a_table_keeps_its_shape_whatever_stands_in_its_cells():
    table = markdown_table(["class", "objects"], iter([["cat|dog\nor cow", 3], ["a", 1]]))
    assert table.splitlines() == [
        "| class | objects |",
        "| --- | --- |",
        "| cat\\|dog or cow | 3 |",
        "| a | 1 |",
    ]
