"""A sound data set of three pictures, and what can be done to it: each fault is a function of the
tree of its annotations and of its folder."""

import numpy as np
from PIL import Image

SIZES = {1: (30, 40), 2: (20, 50), 3: (40, 40)}


def sound():
    """Three pictures with two boxes each, two classes, ids from 1: nothing to complain about."""
    images = [
        {"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in SIZES.items()
    ]
    annotations = [
        {"id": 2 * i + k, "image_id": i, "category_id": 1 + k, "bbox": [2 + 9 * k, 3, 8, 9]}
        for i in SIZES
        for k in (0, 1)
    ]
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "platelet"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def picture(size, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def save(path, size, seed, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(size, seed).save(path, exif=exif)


def at(tree, kind, number):
    return next(entry for entry in tree[kind] if entry["id"] == number)


def put(kind, number, **changes):
    """A fault: fields of one entry changed."""
    return lambda tree, where: at(tree, kind, number).update(changes)


def box(*xywh):
    return put("annotations", 3, bbox=list(xywh))


def append(kind, **entry):
    return lambda tree, where: tree[kind].append(entry)


def every(**changes):
    """A fault: fields of all annotations changed."""
    return lambda tree, where: [a.update(changes) for a in tree["annotations"]]


def boxes(change):
    """A fault: `change(x, y, w, h)` in place of all boxes, of which there are twelve."""

    def damage(tree, where):
        more = [dict(a, id=a["id"] + 100, category_id=2) for a in tree["annotations"]]
        for i, a in enumerate(more):
            a["bbox"] = [9, 7 + i, 11, 5]
        tree["annotations"] += more
        for a in tree["annotations"]:
            a["bbox"] = change(*a["bbox"])

    return damage


def fourth_picture(tree, where):
    save(where / "images/4.png", (30, 40), 4)
    tree["images"].append({"id": 4, "file_name": "4.png", "height": 30, "width": 40})
    tree["annotations"].append({"id": 8, "image_id": 4, "category_id": 1})
    every(bbox=[3, 4, 11, 9])(tree, where)
    tree["annotations"] = tree["annotations"][::2]


def crowded(tree, where):
    for i in range(301):
        box = [i % 40, i // 40, 1.5, 1.5]
        tree["annotations"].append({"id": 50 + i, "image_id": 3, "category_id": 1, "bbox": box})


def remove_boxes(tree, where):
    tree["annotations"] = [a for a in tree["annotations"] if a["image_id"] != 2]


def on_disk(act):
    return lambda tree, where: act(where / "images/2.png")


def truncate(path):
    path.write_bytes(path.read_bytes()[:150])


def shift_categories(tree, where):
    for entry in tree["categories"]:
        entry["id"] -= 1
    for entry in tree["annotations"]:
        entry["category_id"] -= 1


def turned(size):
    """Stored lying on its side, with the JSON's size as the one that is stored, or shown."""

    def damage(tree, where):
        save(where / "images/2.png", SIZES[2], 2, orientation=6)
        height, width = SIZES[2] if size == "stored" else SIZES[2][::-1]
        at(tree, "images", 2).update(height=height, width=width)

    return damage
