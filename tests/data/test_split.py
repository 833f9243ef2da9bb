"""Splits: every class on both sides, copies on one, and the same parts everywhere."""

import json
from collections import Counter

import numpy as np
import pytest
from data_folders import write_yolo
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.data.convert import split_set
from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.data.places import Places
from rtdetr_lab.data.split import difference_hash, divide, groups_of
from rtdetr_lab.errors import ConfigError, DataError

SHARES = {"train": 0.75, "val": 0.25}


def write_set(folder, pictures):
    """A COCO set of `{file name: (pixels, labels)}` with the class ids 7, 3 and 12."""
    ids, images, boxes = (7, 3, 12), [], []
    (folder / "images").mkdir(parents=True)
    for number, (name, (pixels, labels)) in enumerate(pictures.items(), 1):
        Image.fromarray(pixels).save(folder / "images" / name, quality=80)
        height, width = pixels.shape[:2]
        images.append({"id": 9 * number, "file_name": name, "width": width, "height": height})
        for label in labels:
            box = {"bbox": [2, 3, 11, 7], "area": 70.0, "iscrowd": 0}
            found = {"id": len(boxes) + 1, "image_id": 9 * number, "category_id": ids[label]}
            boxes.append(box | found)
    categories = [{"id": i, "name": f"class {i}"} for i in ids]
    tree = {"images": images, "annotations": boxes, "categories": categories}
    path = folder / "annotations.json"
    path.write_text(json.dumps(tree), encoding="utf8")
    return path


def noise(seed, size=(48, 70)):
    """A picture unlike every other: smooth blobs."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def divided(path, shares=SHARES, seed=0):
    layout = find_layout(path)
    found = layout["train"].load()
    return divide(found, Places(layout.folder, found.path), shares, seed)


def names_of(part):
    return {picture.file_name for picture in part.pictures}


def test_a_rare_class_has_its_share_of_both_parts(tmp_path):
    """Forty of one class, eight of another, four of the third, which never comes alone."""
    labels = [[0]] * 28 + [[0, 1]] * 8 + [[0, 2, 2]] * 4
    path = write_set(tmp_path, {f"{i}.png": (noise(i), one) for i, one in enumerate(labels)})
    parts = divided(path)
    counts = {n: Counter(a.label for q in p.pictures for a in q.objects) for n, p in parts.items()}
    ids = parts["val"].category_ids
    assert ids == parts["train"].category_ids == (3, 7, 12)
    assert [counts["val"][ids.index(i)] for i in (7, 3, 12)] == [10, 2, 2]
    assert len(parts["val"].pictures) == 10
    assert names_of(parts["train"]) | names_of(parts["val"]) == {f"{i}.png" for i in range(40)}
    assert not names_of(parts["train"]) & names_of(parts["val"])


def test_a_seed_is_one_division_and_another_seed_another(tmp_path):
    path = write_set(tmp_path, {f"{i}.png": (noise(i), [0]) for i in range(20)})
    found = [names_of(divided(path, seed=seed)["val"]) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def test_a_class_in_one_picture_is_learned_and_pictures_without_objects_are_divided(tmp_path):
    labels = [[1]] * 9 + [[2]] + [[]] * 10
    path = write_set(tmp_path, {f"{i}.png": (noise(i), one) for i, one in enumerate(labels)})
    for seed in range(5):
        parts = divided(path, seed=seed)
        assert "9.png" in names_of(parts["train"])
        assert 2 <= sum(not p.annotations for p in parts["val"].pictures) <= 4


def test_copies_stay_together_whatever_their_size_format_and_light(tmp_path):
    pictures = {}
    for i in range(12):
        one = noise(i, (60, 90))
        darker = (one * 0.8).astype(np.uint8)
        smaller = np.array(Image.fromarray(one).resize((61, 40)))
        pictures |= {f"{i}.png": (one, [0]), f"{i}_dark.jpg": (darker, [1])}
        pictures |= {f"{i}_small.webp": (smaller, [2])}
    for seed in range(3):
        val = names_of(divided(write_set(tmp_path / str(seed), pictures), seed=seed)["val"])
        numbers = {name.split(".")[0].split("_")[0] for name in val}
        assert len(val) == 9 == 3 * len(numbers)


def test_a_group_of_copies_takes_the_room_of_all_its_pictures(tmp_path):
    sizes = [3] * 8 + [1] * 12
    pictures = {
        f"{i}_{n}.png": (noise(i), []) for i, count in enumerate(sizes) for n in range(count)
    }
    for seed in range(3):
        path = write_set(tmp_path / str(seed), pictures)
        assert 8 <= len(divided(path, seed=seed)["val"].pictures) <= 10, "a quarter of 36"


def test_a_chain_of_near_duplicates_is_one_group_and_an_unreadable_picture_is_alone():
    first = np.zeros(256, dtype=bool)
    second, third, other = first.copy(), first.copy(), ~first
    second[:20], third[:40] = True, True
    assert groups_of([third, None, first, other, second, None]) == [[0, 2, 4], [1], [3], [5]]


def test_a_hash_says_where_a_picture_becomes_brighter_to_the_right():
    ramp = np.tile(np.arange(0, 255, 3, dtype=np.uint8), (40, 1))
    half = np.concatenate([ramp, ramp[:, ::-1]])
    bits = difference_hash(np.stack([half] * 3, axis=-1)).reshape(16, 16)
    assert bits[:8].all()
    assert not bits[8:].any()


def test_parts_follow_from_pictures_and_seed_alone(tmp_path):
    pictures = {f"{i}.png": (noise(i), [i % 3]) for i in range(20)}
    path = write_set(tmp_path / "a", pictures)
    first = names_of(divided(path)["val"])
    assert first == names_of(divided(path)["val"])
    assert first != names_of(divided(path, seed=1)["val"])
    moved = write_set(tmp_path / "elsewhere", pictures)
    assert first == names_of(divided(moved)["val"])


@pytest.mark.parametrize("shares", [{"train": 0.9, "val": 0.2}, {"train": 1.0, "val": 0.0}])
def test_shares_that_are_no_division_are_refused(tmp_path, shares):
    path = write_set(tmp_path, {"a.png": (noise(0), [0])})
    with pytest.raises(ConfigError, match="give parts above 0 that add up to 1"):
        divided(path, shares)


def test_a_part_that_would_be_empty_is_refused(tmp_path):
    path = write_set(tmp_path, {"a.png": (noise(0), [0]), "b.png": (noise(0), [0])})
    with pytest.raises(DataError, match="2 pictures in 1 groups of near duplicates"):
        divided(path)


def test_a_split_set_is_written_with_ids_masks_and_crowds(tmp_path):
    pictures = {f"{i}.png": (noise(i), [i % 3, -(i % 2)]) for i in range(12)}
    path = write_set(tmp_path / "in", pictures)
    tree = json.loads(path.read_text())
    for one in tree["annotations"]:
        one |= {"iscrowd": one["id"] % 2, "segmentation": [[2.5, 3, 13, 3, 13, 10]]}
    path.write_text(json.dumps(tree))
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    made = split_set(path, tmp_path / "out", shares)
    assert [one.name for one in made] == ["train.json", "val.json", "test.json"]
    trees = [json.loads(one.read_text()) for one in made]
    assert [len(one["images"]) for one in trees] == [6, 3, 3]
    rows = [row for one in trees for row in one["annotations"]]
    assert sum(row["iscrowd"] for row in rows) == 12
    assert all(row["segmentation"] == [[2.5, 3, 13, 3, 13, 10]] for row in rows)
    assert main(["data", "check", str(tmp_path / "out")]) == 0


def test_the_command_splits_a_yolo_folder_and_refuses_one_that_is_split(tmp_path, capsys):
    whole = write_yolo(tmp_path / "yolo", ["images/train"] * 8)
    for i, picture in enumerate(sorted(whole.rglob("*.png"))):
        Image.fromarray(noise(i, (30, 40))).save(picture)
    assert main(["data", "split", str(whole), str(tmp_path / "out"), "--val", "0.25"]) == 0
    assert len(find_layout(tmp_path / "out")["val"].load().pictures) == 2
    assert "rtdetr-lab train --data" in capsys.readouterr().out
    assert main(["data", "split", str(tmp_path / "out"), str(tmp_path / "again")]) == 1
    assert "is split already: train, val" in capsys.readouterr().err
