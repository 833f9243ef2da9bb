"""Commands read YOLO, VOC and COCO folders as they are, and refuse hopeless ones in one voice."""

import json
import re

import numpy as np
import pytest
from damaged_data import save, sound
from data_folders import SIZE, write_json, write_yolo
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.preflight import check_folder, first_look
from rtdetr_lab.errors import DataError
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.training import train

SHORT = ("--size", "96", "--batch-size", "2", "--pictures", "4", "--device", "cpu")


def test_a_yolo_folder_is_checked_trained_on_and_judged_as_it_is(tmp_path, capsys):
    folder = write_yolo(tmp_path / "yolo", ["images/train", "images/train", "images/val"])
    assert main(["data", "check", str(folder)]) == 0
    run = tmp_path / "run"
    assert main(["train", "--data", str(folder), "--out", str(run), *SHORT]) == 0
    told = capsys.readouterr().err
    assert "a YOLO folder, read as it is" in told
    assert "rtdetr-lab data convert" in told
    data = ["--data", str(folder / "data.yaml")]
    assert main(["eval", str(run / "model"), *data, "--device", "cpu"]) == 0
    assert "1 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iscrowd": 1}, r"no box that training sees (crowd region: 6)"),
        ({"bbox": [0.1, 0.2, 0.3, 0.2]}, "6 of 6 boxes are smaller than a pixel"),
    ],
)
def test_check_train_and_python_refuse_a_hopeless_set_in_the_same_words(
    tmp_path, capsys, changes, said
):
    tree = sound()
    for i, size in enumerate(((30, 40), (20, 50), (40, 40)), 1):
        save(tmp_path / f"data/{i}.png", size, i)
    for annotation in tree["annotations"]:
        annotation |= changes
    for split in ("train", "val"):
        (tmp_path / f"data/{split}.json").write_text(json.dumps(tree))
    data = ["--data", str(tmp_path / "data")]
    assert main(["data", "check", data[1]]) == 1
    assert said in capsys.readouterr().out
    assert main(["train", *data, "--out", str(tmp_path / "run"), *SHORT]) == 1
    assert said in capsys.readouterr().err
    with pytest.raises(DataError, match=re.escape(said)):
        train(rtdetr_nano(2), CocoDataset.from_folder(data[1]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_set_without_validation_is_split_once_for_train_and_eval(tmp_path, capsys):
    places = [f"images/{i}" for i in range(8)]
    folder = write_yolo(tmp_path / "yolo", places, yaml="names: [cat, dog]\ntrain: images\n")
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        pixels = np.random.default_rng(i).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(SIZE[::-1]).save(path)
    words = ["train", "--data", str(folder), "--val-split", "0.25", *SHORT]
    run = tmp_path / "run"
    assert main([*words, "--out", str(run)]) == 0
    assert "2 of 8 pictures are held out" in capsys.readouterr().err
    parts = json.loads((run / "split.json").read_text(encoding="utf8"))
    assert (len(parts["train"]), len(parts["val"])) == (6, 2)
    judged = [
        "eval",
        str(run),
        "--data",
        str(folder),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "r"),
    ]
    assert main([*judged, "--val-split", "0.25"]) == 0
    assert "2 pictures" in capsys.readouterr().out
    assert main([*judged, "--val-split", "7"]) == 1
    assert "--val-split: is 7; give a part of the pictures" in capsys.readouterr().err


def test_a_part_for_validation_is_not_held_out_of_a_set_that_has_one(tmp_path, capsys):
    folder = write_yolo(tmp_path / "yolo", ["images/train", "images/val"])
    words = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*words, "--val-split", "0.3"]) == 1
    assert "has train, val; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["train"], ["eval"], ["data", "check"]])
def test_every_verb_that_reads_one_has_the_options(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb, "--help"])
    said = capsys.readouterr().out
    assert "--bits" in said
    assert "--voc-origin" in said


def test_check_train_and_eval_read_pictures_of_fewer_bits_when_they_are_told(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    write_yolo(data, ["images/train", "images/val"])
    for i, path in enumerate(sorted(data.glob("images/*/*.png"))):
        values = np.random.default_rng(i).integers(0, 1024, SIZE).astype(np.uint16)
        Image.fromarray(values).save(path)
    for words in (
        ["data", "check", str(data)],
        ["train", "--data", str(data), "--out", str(run), *SHORT],
        ["eval", str(run), "--data", str(data), "--device", "cpu"],
    ):
        if words[0] != "eval":  # without a run there is nothing to judge
            assert main(words) == 1
            said = capsys.readouterr()
            assert "--bits 10" in said.out + said.err
        assert main([*words, "--bits", "10"]) == 0
    before = (run / "last.pt").read_bytes()
    assert main(["train", "--data", str(data), "--out", str(run), *SHORT, "--bits", "11"]) == 1
    assert "CocoDataset.bits was 10, is 11" in capsys.readouterr().err
    assert (run / "last.pt").read_bytes() == before


def test_splits_that_mean_other_things_by_their_labels_are_refused(tmp_path, capsys):
    train = write_json(tmp_path / "train.json", ("a.png", "b.png"))
    for i, name in enumerate(("a.png", "b.png")):
        save(tmp_path / name, SIZE, i)
    tree = json.loads(train.read_text())
    tree["categories"].reverse()
    for category, number in zip(tree["categories"], (1, 2), strict=True):
        category["id"] = number
    (tmp_path / "val.json").write_text(json.dumps(tree))
    said = "train has the classes cat, dog, val has dog, cat"
    assert main(["data", "check", str(tmp_path)]) == 1
    assert said in capsys.readouterr().out
    run = ["--out", str(tmp_path / "run"), *SHORT]
    assert main(["train", "--data", str(tmp_path), *run]) == 1
    assert said in capsys.readouterr().err


def test_a_test_split_may_have_no_boxes(tmp_path):
    folder = write_yolo(tmp_path, ["images/train", "images/test"])
    (folder / "labels/test/p1.txt").unlink()
    train, test = check_folder(folder)
    assert train.ok
    assert test.ok
    assert [f.rule for f in test.findings if f.kind == ""] == [rules.UNANNOTATED]
    with pytest.raises(DataError, match=r"no box that training sees; put a text file per picture"):
        first_look(CocoDataset.from_folder(folder, "test"))


def test_train_says_in_its_first_seconds_what_is_odd(tmp_path, capsys):
    folder = write_yolo(tmp_path, ["images/train", "images/val"])
    lines = "".join(
        f"1 {x / 12 + 0.04:.3f} {y / 12 + 0.04:.3f} .05 .05\n" for x in range(12) for y in range(12)
    )
    (folder / "labels/train/p0.txt").write_text(lines)
    assert main(["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]) == 0
    said = capsys.readouterr().err
    assert "has 144 objects, but 100 queries find at most 100" in said
    assert "--queries N" in said
    assert "one class for all boxes: all 144 boxes are 'dog', one of 2 classes" in said
