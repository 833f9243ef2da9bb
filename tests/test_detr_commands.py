"""From the command line a DETR keeps the shape of pictures: trained, judged and asked."""

import json

import numpy as np
from PIL import Image

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.cli import main
from rtdetr_lab.commands.sets import edges_for, training_set, validation_set
from rtdetr_lab.data.canvas import edges_of


def test_a_detr_is_trained_judged_and_asked_at_its_edges(tmp_path, capsys):
    words = ("--size", "64", "--pictures", "4", "--batch-size", "2", "--val-limit", "2")
    run = ["train", "--preset", "detr_nano", "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*run, *words]) == 0
    model = str(tmp_path / "run" / "model")
    assert load_pretrained(model).metadata.edges == (64, 106)

    capsys.readouterr()
    assert main(["eval", model, "--limit", "2", "--json", "--device", "cpu"]) == 0
    judged = json.loads(capsys.readouterr().out)
    record = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert judged["AP"] == json.loads(record[-1])["AP"]

    wide = tmp_path / "wide.png"
    Image.fromarray(np.zeros((50, 90, 3), np.uint8)).save(wide)
    out = tmp_path / "out"
    asked = ["detect", str(wide), "--model", model, "--threshold", "0", "--out", str(out)]
    assert main([*asked, "--device", "cpu"]) == 0
    (row,) = json.loads((out / "detections.json").read_text())["images"]
    assert row["size"] == [50, 90]
    assert len(row["detections"]) == 100


def test_the_edges_of_the_paper_shrink_in_proportion():
    assert edges_for(800) == (800, 1333)
    assert edges_of(training_set("shapes", 64, seed=0, edges=(64, 106))) == (64, 106)
    assert edges_of(training_set("shapes", 64, seed=0)) is None
    pictures = validation_set("shapes", 64, 1, edges=(32, 53))
    assert pictures[0].image.shape == (3, 32, 32)
