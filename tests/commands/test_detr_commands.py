"""From the command line a DETR keeps the shape of pictures: trained, judged and asked."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small import shaken
from small_detr import SEGMENTER as SMALL

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.cli import main
from rtdetr_lab.commands.base import resized_for
from rtdetr_lab.commands.sets import training_set, validation_set
from rtdetr_lab.data.canvas import edges_of
from rtdetr_lab.data.rle import decode_mask
from rtdetr_lab.detector import Detector


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


def test_a_model_that_draws_is_asked_for_boxes_and_gives_masks_too(tmp_path):
    pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")
    torch.manual_seed(0)
    names = ("cat", "dog", "cup", "sky", "grass")
    known = Metadata(names, (3, 7, 9, 11, 13), edges=(64, 106))
    folder = save_pretrained(shaken(SMALL.build()).eval(), tmp_path / "model", metadata=known)
    wide = tmp_path / "1.png"
    Image.fromarray(np.full((50, 90, 3), 80, np.uint8)).save(wide)
    asked = ["detect", str(wide), "--model", str(folder), "--threshold", "0", "--device", "cpu"]
    out, results = tmp_path / "out", tmp_path / "results.json"
    assert main([*asked, "--out", str(out), "--coco", str(results)]) == 0
    found = Detector.from_pretrained(folder, "cpu", threshold=0.0)(wide)
    rows = json.loads(results.read_text())
    told = json.loads((out / "detections.json").read_text())["images"][0]["detections"]
    for mask, row, one in zip(found.masks.numpy(), rows, told, strict=True):
        for given in (row, one):
            assert np.array_equal(decode_mask(given["segmentation"], (50, 90), "1.png"), mask)
    plain = replace(found, masks=None).save(tmp_path / "plain.jpg")
    drawn = np.asarray(Image.open(out / "1_detected.jpg")).astype(int)
    assert np.abs(drawn - np.asarray(Image.open(plain))).max() > 50


def test_a_detr_does_not_turn_pictures(tmp_path, capsys):
    words = ["train", "--preset", "detr_nano", "--turn", "--out", str(tmp_path / "run")]
    assert main([*words, "--device", "cpu"]) == 1
    assert "--turn: a DETR keeps the shape of pictures" in capsys.readouterr().err


def test_the_edges_of_the_paper_shrink_in_proportion():
    for size, edges in (("800", (800, 1333)), ("64", (64, 106)), ("32", (32, 53))):
        known = resized_for(Metadata(), size, takes_padding=True)
        assert known.edges == edges
        assert edges_of(training_set("shapes", known, seed=0)) == edges
    assert validation_set("shapes", known, 1)[0].image.shape == (3, 32, 32)


def test_height_and_width_together_are_exact_also_for_a_model_that_keeps_shapes():
    known = resized_for(Metadata(edges=(64, 106)), "48x80", takes_padding=True)
    assert (known.image_size, known.edges) == ((48, 80), None)
    assert validation_set("shapes", known, 1)[0].image.shape == (3, 48, 80)
