"""What both fine-tuning programs need: pictures with boxes, a model to start from, and AP."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from faster_coco_eval import COCO, COCOeval_faster
from small_api import SMALL

CLASSES = {0: "dark", 1: "light"}


class Pictures(torch.utils.data.Dataset):
    """Rectangles, dark or light, on noise; as COCO annotations and as inputs of a model."""

    def __init__(self, processor, count, seed):
        rng = np.random.default_rng(seed)
        self.processor, self.pictures, self.annotations = processor, [], []
        for number in range(count):
            picture = rng.integers(90, 160, (48, 70, 3), dtype=np.uint8)
            objects = []
            for _ in range(1 + number % 3):
                width, height = rng.integers(12, 30, 2).tolist()
                x, y = int(rng.integers(0, 70 - width)), int(rng.integers(0, 48 - height))
                kind = int(rng.integers(2))
                picture[y : y + height, x : x + width] = 235 * kind + 10
                box, area = [x, y, width, height], width * height
                objects.append({"bbox": box, "category_id": kind, "area": area, "iscrowd": 0})
            self.pictures.append(picture)
            self.annotations.append({"image_id": number, "annotations": objects})

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        picture, annotation = self.pictures[i], self.annotations[i]
        found = self.processor(images=picture, annotations=annotation, return_tensors="pt")
        return {"pixel_values": found["pixel_values"][0], "labels": found["labels"][0]}

    def coco(self):
        """The annotations, numbered from 1 as COCO's are."""
        rows = [
            {**row, "image_id": one["image_id"]}
            for one in self.annotations
            for row in one["annotations"]
        ]
        images = [{"id": i, "height": 48, "width": 70} for i in range(len(self))]
        numbered = [{**row, "id": i} for i, row in enumerate(rows, 1)]
        categories = [{"id": i, "name": name} for i, name in CLASSES.items()]
        return COCO({"images": images, "annotations": numbered, "categories": categories})


def collated(batch):
    """Stack pictures of one size; labels stay a list."""
    pictures = torch.stack([one["pixel_values"] for one in batch])
    return {"pixel_values": pictures, "labels": [one["labels"] for one in batch]}


def average_precision(found, pictures, processor):
    """AP of (logits, boxes, size) for every picture, by faster-coco-eval."""
    rows = []
    for number, (logits, boxes, size) in enumerate(found):
        answer = {"logits": logits[None], "pred_boxes": boxes[None]}
        outputs = SimpleNamespace(**{k: torch.as_tensor(v) for k, v in answer.items()})
        (one,) = processor.post_process_object_detection(outputs, 0.0, target_sizes=[size])
        corners = zip(*(one[k].tolist() for k in ("scores", "labels", "boxes")), strict=True)
        rows += [
            {
                "image_id": number,
                "category_id": label,
                "score": score,
                "bbox": [x, y, right - x, bottom - y],
            }
            for score, label, (x, y, right, bottom) in corners
        ]
    truth = pictures.coco()
    judge = COCOeval_faster(truth, truth.loadRes(rows), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return float(judge.stats[0])


def start_from(folder: Path) -> Path:
    """Save a small model of transformers with two classes, to start from."""
    transformers.set_seed(5)
    inner = {k: v for k, v in SMALL["backbone_config"].items() if k != "model_type"}
    told = {**SMALL, "backbone_config": transformers.RTDetrResNetConfig(**inner)}
    told |= {"freeze_backbone_batch_norms": False, "num_denoising": 0}
    told |= {"id2label": {0: "one", 1: "other"}}
    start = folder / "start"
    transformers.RTDetrForObjectDetection(transformers.RTDetrConfig(**told)).save_pretrained(start)
    size = {"height": 64, "width": 96}
    transformers.RTDetrImageProcessorPil(size=size).save_pretrained(start)
    return start
