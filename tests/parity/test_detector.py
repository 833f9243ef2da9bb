"""Oracle: transformers' image processor, model and post-processing, on a folder that it saved.

Compared one to one: the same label, scores within 1e-4, boxes within 0.05 px. Which of two queries
with equal tokens comes first is left to rounding.
"""

import json
from functools import lru_cache

import numpy as np
import pytest
import torch
from oracle import transformers, twins
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.detector import Detector

THRESHOLD = 0.93


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The oracle's r18 as its own `save_pretrained` writes it, with its processor."""
    theirs, _ = twins("r18")
    path = tmp_path_factory.mktemp("saved_by_transformers")
    theirs.float().save_pretrained(path)
    transformers.RTDetrImageProcessorPil().save_pretrained(path)
    return path


@lru_cache(maxsize=1)
def loaded(folder):
    """Their processor and model, from their folder."""
    processor = transformers.RTDetrImageProcessorPil.from_pretrained(folder)
    return processor, transformers.RTDetrForObjectDetection.from_pretrained(folder)


@torch.no_grad()
def expected(folder, image):
    """(label, score, box) of everything transformers finds above the threshold."""
    processor, model = loaded(folder)
    outputs = model(**processor(image, return_tensors="pt"))
    (found,) = processor.post_process_object_detection(
        outputs, THRESHOLD, target_sizes=[image.size[::-1]]
    )
    return [
        (model.config.id2label[label], score, box)
        for label, score, box in zip(
            found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True
        )
    ]


def unmatched(ours, theirs, scores=1e-4, pixels=0.05):
    """Detections of either side that the other does not have, far from the threshold."""
    left = list(ours)
    missing = []
    for row in theirs:
        pairs = (r for r in left if same(r, row, scores, pixels))
        if (pair := next(pairs, None)) is not None:
            left.remove(pair)
        else:
            missing.append(row)
    return [r for r in left + missing if r[1] > THRESHOLD + scores]


def same(a, b, scores, pixels):
    near = np.abs(np.subtract(a[2], b[2])).max() < pixels
    return a[0] == b[0] and abs(a[1] - b[1]) < scores and near


def rows(found):
    return [(d.name, d.score, d.box_xyxy) for d in found]


def test_photos_give_what_transformers_finds_in_them(folder):
    from skimage.data import chelsea, coffee

    detector = Detector.from_pretrained(folder, "cpu", THRESHOLD)
    for photo in (chelsea(), coffee()):
        theirs = expected(folder, Image.fromarray(photo))
        assert len(theirs) > 10
        assert unmatched(rows(detector(photo)), theirs) == []


WEIGHTS = (
    "backbone.stem.0.conv.weight",
    "encoder.aifi.layers.0.ffn.fc1.weight",
    "encoder.ccff.lateral.0.conv.weight",
    "proposal_head.box_head.layers.2.weight",
    "decoder.layers.1.cross_attn.value_proj.weight",
    "decoder.class_heads.2.weight",
    "decoder.box_heads.2.layers.2.weight",
)


def test_the_comparison_sees_another_size_and_one_percent_in_any_part(folder):
    from skimage.data import chelsea

    photo = chelsea()
    theirs = expected(folder, Image.fromarray(photo))
    detector = Detector.from_pretrained(folder, "cpu", THRESHOLD)
    other_size = Detector(detector.model, threshold=THRESHOLD, size=(640, 608))
    assert unmatched(rows(other_size(photo)), theirs)
    weights = dict(detector.model.named_parameters())
    for name in WEIGHTS:
        right = weights[name].detach().clone()
        weights[name].data.mul_(1.01)
        assert unmatched(rows(detector(photo)), theirs), name
        weights[name].data.copy_(right)
    assert unmatched(rows(detector(photo)), theirs) == []


def test_the_command_line_on_a_folder_of_shared_photos(folder, shared, tmp_path, capsys):
    photos = sorted(shared("data/coco_ccby/images").rglob("*.jpg"))[:2]
    assert photos
    words = [*map(str, photos), "--model", str(folder), "--threshold", str(THRESHOLD)]
    options = ["--out", str(tmp_path), "--no-pictures", "--batch-size", "2", "--device", "cpu"]
    assert main(["detect", *words, *options]) == 0
    tree = json.loads((tmp_path / "detections.json").read_text(encoding="utf8"))
    for photo, row in zip(photos, tree["images"], strict=True):
        ours = [(d["name"], d["score"], d["box_xyxy"]) for d in row["detections"]]
        assert unmatched(ours, expected(folder, Image.open(photo).convert("RGB"))) == []
