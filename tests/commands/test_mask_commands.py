"""Models that draw masks on the command line: made, trained, measured and asked."""

import json

import numpy as np
import pytest
from PIL import Image

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.cli import main
from rtdetr_lab.data.coco_panoptic import PanopticDataset
from rtdetr_lab.data.rle import run_lengths
from rtdetr_lab.data.segment_map import id_to_rgb
from rtdetr_lab.evaluation.panoptic import evaluate_panoptic

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


def write_panoptic(folder):
    """Two pictures of a card on a table: things and stuff, as colours of a PNG."""
    images, annotations = [], []
    for number, (left, top) in enumerate([(8, 5), (20, 12)], 1):
        ids = np.full((40, 60), 7)
        ids[top : top + 20, left : left + 25] = 300
        name = f"{number}.png"
        for split in ("train", "val"):
            for place in (f"panoptic_{split}", split):
                (folder / place).mkdir(exist_ok=True)
            Image.fromarray(id_to_rgb(ids)).save(folder / f"panoptic_{split}" / name)
            bright = np.where(ids == 300, 220, 30).astype(np.uint8)
            Image.fromarray(np.stack([bright] * 3, axis=-1)).save(folder / split / name)
        images.append({"id": number, "file_name": name, "width": 60, "height": 40})
        segments = [{"id": 7, "category_id": 9}, {"id": 300, "category_id": 4}]
        annotations.append({"image_id": number, "file_name": name, "segments_info": segments})
    categories = [{"id": 9, "name": "table", "isthing": 0}, {"id": 4, "name": "card", "isthing": 1}]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        (folder / f"panoptic_{split}.json").write_text(json.dumps(tree), encoding="utf8")
    return folder


def test_a_panoptic_folder_trains_a_model_with_masks_and_has_a_panoptic_quality(tmp_path, capsys):
    data, out = write_panoptic(tmp_path), tmp_path / "run"
    words = ["train", "--model", "nano", "--masks", "--freeze", "backbone", "--data", str(data)]
    assert main([*words, "--out", str(out), *QUICK]) == 0
    model = load_pretrained(out / "model")
    assert model.metadata.names == ("card", "table")
    right = evaluate_panoptic(model, PanopticDataset.from_folder(data), batch_size=16)

    capsys.readouterr()
    judged = ["eval", str(out / "model"), "--data", str(data)]
    assert main([*judged, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {name: said[name] for name in right} == pytest.approx(right, nan_ok=True)
    assert main(judged) == 0
    assert f"PQ {right['PQ']:.3f}  " in capsys.readouterr().out
    assert main([*judged, "--no-masks"]) == 0
    assert "PQ" not in capsys.readouterr().out


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
