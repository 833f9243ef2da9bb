"""Measure time and memory of scoring 300 answers a picture.

    python tests/programs/evaluation_speed.py PICTURES CLASSES

The detections are made up: seven objects a picture, a third of the answers near one of them.
"""

import resource
import sys
import time

import numpy as np

from rtdetr_lab.evaluation.coco import scored
from rtdetr_lab.evaluation.table import Table

OBJECTS, ANSWERS = 7, 300


def boxes(rng, count):
    places, sizes = rng.uniform(0, 400, (count, 2)), rng.uniform(10, 200, (count, 2))
    return np.concatenate([places, sizes], axis=1)


def truth_of(rng, pictures, classes):
    """COCO's tree, and the boxes and classes in it."""
    count = pictures * OBJECTS
    box, category = boxes(rng, count), rng.integers(1, classes + 1, count)
    annotations = [
        {
            "id": k + 1,
            "image_id": k // OBJECTS,
            "category_id": int(category[k]),
            "bbox": box[k].tolist(),
            "area": float(box[k, 2] * box[k, 3]),
            "iscrowd": int(k % 100 == 0),
        }
        for k in range(count)
    ]
    images = [{"id": i, "height": 640, "width": 640} for i in range(pictures)]
    categories = [{"id": c + 1, "name": f"c{c}"} for c in range(classes)]
    tree = {"images": images, "categories": categories, "annotations": annotations}
    return tree, box, category


def answers_to(rng, box, category, pictures, classes):
    count = pictures * ANSWERS
    image = np.repeat(np.arange(pictures), ANSWERS)
    near, hit = image * OBJECTS + rng.integers(0, OBJECTS, count), rng.random(count) < 0.3
    found = np.where(hit[:, None], box[near] + rng.normal(0, 4, (count, 4)), boxes(rng, count))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    named = np.where(hit, category[near], rng.integers(1, classes + 1, count))
    return Table(image, named, found, rng.random(count) * np.where(hit, 1, 0.6))


def main(pictures, classes):
    rng = np.random.default_rng(0)
    tree, box, category = truth_of(rng, pictures, classes)
    table = answers_to(rng, box, category, pictures, classes)
    wall, own = time.perf_counter(), time.process_time()
    metrics = scored(tree, table).metrics
    wall, own = time.perf_counter() - wall, time.process_time() - own
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{pictures} pictures, {classes} classes: AP {metrics.AP:.3f}, {wall:.1f} s wall,")
    print(f"{own:.1f} s of this process, peak {peak} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
