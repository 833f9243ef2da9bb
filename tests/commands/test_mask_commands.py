"""Models that draw masks on the command line: made, trained, measured and asked."""

import json

import numpy as np
import pytest
from PIL import Image

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.cli import main
from rtdetr_lab.data.rle import run_lengths

pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")

QUICK = ("--size", "96", "--pictures", "4", "--batch-size", "2", "--threads", "1")


def write_set(folder, segmentation=True):
    """A set of two pictures with a bright rectangle each: one as a polygon, one as run lengths."""
    tree = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "card"}]}
    for number, (left, top) in enumerate([(8, 5), (20, 12)], 1):
        pixels, mask = np.full((40, 60, 3), 30, np.uint8), np.zeros((40, 60), bool)
        mask[top : top + 20, left : left + 25] = True
        pixels[mask] = 220
        Image.fromarray(pixels).save(folder / f"{number}.png")
        about = {"id": number, "file_name": f"{number}.png", "width": 60, "height": 40}
        corners = [left, top, left + 25, top, left + 25, top + 20, left, top + 20]
        drawn = [corners] if number == 1 else run_lengths(mask)
        box = {"id": number, "image_id": number, "category_id": 4, "area": 500, "iscrowd": 0}
        box["bbox"] = [left, top, 25, 20]
        tree["images"].append(about)
        tree["annotations"].append(box | ({"segmentation": drawn} if segmentation else {}))
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(tree), encoding="utf8")
    return str(folder)


def test_a_model_gets_a_mask_head_learns_from_polygons_and_run_lengths_and_is_measured(
    tmp_path, capsys
):
    data, out = write_set(tmp_path), tmp_path / "run"
    words = ["train", "--model", "nano", "--masks", "--freeze", "backbone", "--data", data]
    assert main([*words, "--out", str(out), *QUICK]) == 0
    model = load_pretrained(out / "model")
    assert model.draws_masks
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    best = max((line for line in lines if "AP" in line), key=lambda line: line["AP"])

    capsys.readouterr()
    judged = ["eval", str(out / "model"), "--data", data]
    assert main([*judged, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mask_AP"] == pytest.approx(best["mask_AP"])
    assert main(judged) == 0
    assert "by the IoU of masks:" in capsys.readouterr().out
    assert main([*judged, "--no-masks"]) == 0
    assert "masks" not in capsys.readouterr().out


def test_data_without_masks_is_named_before_a_model_learns_from_it(tmp_path, capsys):
    data = write_set(tmp_path, segmentation=False)
    words = ["train", "--preset", "nano_seg", "--data", data, "--out", str(tmp_path / "run")]
    assert main([*words, *QUICK]) == 1
    told = capsys.readouterr().err
    assert "train.json: annotation" in told
    assert "has no segmentation; give it one, or use a model without masks" in told


def test_a_detr_is_told_that_its_mask_head_is_another_one(tmp_path, capsys):
    words = ["train", "--preset", "detr_nano", "--masks", "--out", str(tmp_path / "run")]
    assert main([*words, *QUICK]) == 1
    assert "DETR has a mask head of its own" in capsys.readouterr().err
