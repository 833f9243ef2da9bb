"""However `detect` ends, what it has done is kept, and its counts add up."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from paths import child_environment, hear_signals
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.commands.pictures import ResultNames, listed
from rtdetr_lab.errors import OutputError
from rtdetr_lab.writing import ENDING, locked

TOO_LONG = 300


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with three pictures; it lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(f"photos/{name}.png")
    return tmp_path


def detect(*words):
    return main(["detect", "photos", *words, "--device", "cpu"])


def results():
    return json.loads(Path("out/detections.json").read_text(encoding="utf8"))


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_keeps_what_is_done(photos, number):
    for i in range(400):
        os.link("photos/a.png", f"photos/{i}.png")
    command = [sys.executable, "-m", "rtdetr_lab", "detect", "photos", "--batch-size", "1"]
    how = {"env": child_environment(), "preexec_fn": hear_signals}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, **how)
    deadline = time.monotonic() + TOO_LONG
    while len(list(Path("out").glob("*_detected.jpg"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=TOO_LONG)
    assert process.returncode == 130
    assert errors.decode().strip().splitlines()[-1] == "rtdetr-lab: interrupted"
    drawn = len(list(Path("out").glob("*_detected.jpg")))
    assert 2 <= len(results()["images"]) <= drawn < 400


def test_a_second_run_into_the_same_folder_is_refused(photos, capsys):
    with locked(Path("out"), name=".lock"):
        assert detect() == 1
    assert "out: another process writes into this folder; wait for it" in capsys.readouterr().err
    assert detect() == 0
    with pytest.raises(OutputError), locked(Path("out")), locked(Path("out")):
        pass


def test_a_picture_that_cannot_be_written_does_not_hide_the_next(photos, capsys):
    Path("out/b_detected.jpg").mkdir(parents=True)
    assert detect() == 1
    shown = capsys.readouterr()
    assert "3 done, 0 not read, 1 not drawn" in shown.out
    assert "b_detected.jpg: cannot be written" in shown.err
    rows = {Path(row["image"]).name: "annotated" in row for row in results()["images"]}
    assert rows == {"a.png": True, "b.png": False, "c.png": True}


def test_names_that_a_disk_would_confuse_or_refuse_get_their_own_file():
    names = ResultNames(Path("out"))
    stems = ["cat", "Cat", "cafe\u0301", "caf\u00e9", "x" * 250, "x" * 251, "\u732b" * 83, "CON"]
    made = [names(Path(f"{stem}.png")).name for stem in stems]
    assert len({name.casefold() for name in made}) == len(stems)
    assert max(len(os.fsencode(name)) for name in made) < 230
    assert made[:3:2] == ["cat_detected.jpg", "cafe\u0301_detected.jpg"]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("17", "5", "000000000139"), [17, 5, 139]),
        (("1", "01"), [1, 2]),  # both would be 1
        (("17", "cat", "5"), [1, 2, 3]),
    ],
)
def test_a_number_in_a_name_is_an_id_if_all_names_have_one_of_their_own(names, ids):
    assert [one.id for one in listed([Path(f"{name}.jpg") for name in names], None)] == ids


@pytest.mark.skipif(sys.platform != "linux", reason="only here a name may be any bytes")
def test_a_name_that_is_no_text_loses_no_result(photos, capsys):
    os.rename("photos/b.png", b"photos/b\xff\x1b[31m.png")
    assert detect("--json") == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert [len(tree["images"]) for tree in (results(), json.loads(printed))] == [3, 3]
    assert results()["images"][1]["image"].encode("utf8", "surrogateescape").count(b"\xff") == 1
