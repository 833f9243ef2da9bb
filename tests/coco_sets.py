"""Random ground truth and detections in COCO's format, with everything that makes AP hard."""

import numpy as np


def random_set(seed, pictures=6, classes=3, each=25):
    """Empty pictures, crowds, annotated areas unlike the boxes, ties, duplicates, near misses."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "height": 240, "width": 320} for i in range(pictures)]
    categories = [{"id": c + 1, "name": f"class {c}"} for c in range(classes)]
    annotations, detections = [], []
    for image in range(pictures):
        for _ in range(rng.integers(0, 7)):
            box = [*rng.uniform(0, 150, 2), *rng.choice([20, 32, 60, 96, 130], 2) * 1.0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, classes + 1)),
                    "bbox": [float(v) for v in box],
                    "area": float(box[2] * box[3] * rng.choice([1.0, 0.6])),
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
        mine = [a for a in annotations if a["image_id"] == image]
        for _ in range(each if rng.random() < 0.9 else 0):
            box = [*rng.uniform(0, 150, 2), *rng.uniform(5, 140, 2)]
            category = int(rng.integers(1, classes + 1))
            if mine and rng.random() < 0.7:
                near = mine[rng.integers(len(mine))]
                box = np.array(near["bbox"]) + rng.choice([0, 3, 12]) * rng.normal(size=4)
                box[2:] = np.maximum(box[2:], 1)
                category = near["category_id"] if rng.random() < 0.8 else category
            score = float(rng.choice([0.2, 0.5, 0.9]) if rng.random() < 0.4 else rng.random())
            row = {"image_id": image, "category_id": category, "score": score}
            detections.append(row | {"bbox": [float(v) for v in box]})
    tree = {"images": images, "annotations": annotations, "categories": categories}
    return tree, detections
