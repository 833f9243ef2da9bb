"""Small data sets on disk, as other tools write them."""

import json

from damaged_data import save

SIZE = (30, 40)


def write_json(path, names=("images/a.png", "images/b.png")):
    """A COCO file of pictures 5, 6, …, each with a box, which need not be there."""
    images = [{"id": 5 + i, "file_name": n, "height": 30, "width": 40} for i, n in enumerate(names)]
    boxes = [
        {"id": 1 + i, "image_id": 5 + i, "category_id": 2 - i % 2, "bbox": [3 + i, 4, 9, 8]}
        for i in range(len(names))
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = {"images": images, "annotations": boxes, "categories": categories}
    path.write_text(json.dumps(tree), encoding="utf8")
    return path


def write_yolo(folder, places, yaml="names: [cat, dog]\n", lines="1 .5 .5 .25 .5\n"):
    """One picture per place, with its text file; places are folders of pictures."""
    for i, place in enumerate(places):
        save(folder / place / f"p{i}.png", SIZE, i)
        labels = folder / place.replace("images", "labels") / f"p{i}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(lines, encoding="utf8")
    if yaml:
        (folder / "data.yaml").write_text(yaml, encoding="utf8")
    return folder
