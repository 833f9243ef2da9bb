"""The loader keeps up with training: a picture is ready before a model has looked at another."""

import json
import subprocess
import sys

import pytest
from PIL import Image

FEED = """
import sys
from time import process_time
import torch
from rtdetr_lab.data.augment import Place, paper_augmentation
from rtdetr_lab.data.batch import collate
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.rtdetr import rtdetr_nano
torch.set_num_threads(1)
data, recipe = CocoDataset.from_folder(sys.argv[1]), paper_augmentation()
model, images = rtdetr_nano(80).build().eval(), torch.rand(1, 3, 640, 640)
made, seen = [], []
for step in range(12):
    at = range(8 * step, 8 * step + 8)
    before = process_time()
    collate([recipe(data[p % len(data)], Place(0, p, step, 0.0)) for p in at])
    between = process_time()
    with torch.inference_mode():
        model(images)
    made.append((between - before) / len(at))
    seen.append(process_time() - between)
print(1e3 * min(made), 1e3 * min(seen))
"""


@pytest.mark.full
def test_a_picture_with_the_full_recipe_costs_less_than_the_smallest_model_at_640(tmp_path):
    """Reading JPEG photos included; processor time of one core, in turns, without the checks of
    tests. Training takes three times what looking takes, and a larger model more."""
    from skimage.data import chelsea, coffee

    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number, photo in enumerate((chelsea(), coffee()), 1):
        name, size = f"{number}.jpg", {"width": 640, "height": 480}
        Image.fromarray(photo).resize((640, 480)).save(tmp_path / "images" / name, quality=90)
        images.append({"id": number, "file_name": name, **size})
        row = {"image_id": number, "category_id": 1}
        annotations += [
            {"id": 10 * number + i, "bbox": [60 * i, 40 * i, 90, 120], **row} for i in range(8)
        ]
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "it"}]}
    (tmp_path / "train.json").write_text(json.dumps(tree))
    command = [sys.executable, "-c", FEED, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    made, seen = map(float, run.stdout.split())
    print(f"{made:.1f} ms to make a picture, {seen:.1f} ms for nano to look at it")
    assert made < seen
