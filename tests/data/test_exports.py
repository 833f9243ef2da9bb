"""What annotation tools export is read as it is: stand-ins of their layouts, as they document them.

Each export lists two pictures with one dog each, of another size and place, and the classes cat and
dog. Label Studio counts ids from 0; Roboflow puts a class of its own in front.
"""

import json

import pytest
from damaged_data import save

from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.data.preflight import check_folder
from rtdetr_lab.errors import DataError

SIZES = {"a": (30, 40), "b": (20, 50)}
BOXES = {"a": (6, 9, 10, 12), "b": (20, 5, 25, 10)}


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf8")


def pictures(folder, *stems):
    for stem in stems or SIZES:
        save(folder / f"{stem}.jpg", SIZES[stem], ord(stem))


def yolo_line(stem, label=1):
    (height, width), (x, y, w, h) = SIZES[stem], BOXES[stem]
    return f"{label} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}"


def coco(path, names, stems="ab", first=1, categories=((1, "cat"), (2, "dog"))):
    tree = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": []}
    tree["categories"] = [{"id": i, "name": name, "supercategory": ""} for i, name in categories]
    dog = next(i for i, name in categories if name == "dog")
    for number, stem in enumerate(stems, first):
        (height, width), box = SIZES[stem], list(BOXES[stem])
        about = {"id": number, "width": width, "height": height, "file_name": names.format(stem)}
        tree["images"].append(about)
        row = {"id": number, "image_id": number, "category_id": dog, "bbox": box, "iscrowd": 0}
        tree["annotations"].append({**row, "segmentation": [], "area": box[2] * box[3]})
    text(path, json.dumps(tree))


def roboflow_coco(folder):
    for split, stem in (("train", "a"), ("valid", "b")):
        pictures(folder / split, stem)
        classes = ((0, "animals"), (1, "cat"), (2, "dog"))
        coco(folder / split / "_annotations.coco.json", "{}.jpg", stem, 0, classes)
    text(folder / "README.dataset.txt", "exported")


def roboflow_yolo(folder):
    for split, stem in (("train", "a"), ("valid", "b")):
        pictures(folder / split / "images", stem)
        text(folder / split / "labels" / f"{stem}.txt", yolo_line(stem))
    places = ("train: ../train/images", "val: ../valid/images", "test: ../test/images")
    text(folder / "data.yaml", *places, "", "nc: 2", "names: ['cat', 'dog']")


def test_a_test_set_that_is_spelt_wrong_is_named(tmp_path):
    roboflow_yolo(tmp_path)
    found = (tmp_path / "data.yaml").read_text(encoding="utf8")
    text(tmp_path / "data.yaml", found.replace("test: ../test/images", "test: ../tset/images"))
    with pytest.raises(DataError, match=r"names '\.\./tset/images', which is not there; corr"):
        find_layout(tmp_path)


@pytest.mark.parametrize("usual", ["images/test", "./images/test", "test-dev2017.txt"])
def test_a_usual_name_for_a_test_that_was_not_exported_is_no_fault(tmp_path, usual):
    roboflow_yolo(tmp_path)
    found = (tmp_path / "data.yaml").read_text(encoding="utf8")
    text(tmp_path / "data.yaml", found.replace("test: ../test/images", f"test: {usual}"))
    assert set(find_layout(tmp_path).splits) == {"train", "val"}


def roboflow_voc(folder):
    for split, stem in (("train", "a"), ("valid", "b")):
        pictures(folder / split, stem)
        (height, width), (x, y, w, h) = SIZES[stem], BOXES[stem]
        corners = {"xmin": x + 1, "xmax": x + w, "ymin": y + 1, "ymax": y + h}
        box = "".join(f"<{side}>{value}</{side}>" for side, value in corners.items())
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        objects = f"<object><name>dog</name><bndbox>{box}</bndbox></object>"
        inside = f"<folder/><filename>{stem}.jpg</filename>{size}{objects}"
        text(folder / split / f"{stem}.xml", f"<annotation>{inside}</annotation>")


def cvat_coco(folder):
    pictures(folder / "images" / "default")
    coco(folder / "annotations" / "instances_default.json", "{}.jpg")


def cvat_coco_subsets(folder):
    for split, stem in (("Train", "a"), ("Validation", "b")):
        pictures(folder / "images" / split, stem)
        coco(folder / "annotations" / f"instances_{split}.json", "{}.jpg", stem)


def cvat_yolo(folder):
    for split, stem in (("train", "a"), ("valid", "b")):
        pictures(folder / f"obj_{split}_data" / "cam1", stem)
        text(folder / f"obj_{split}_data" / "cam1" / f"{stem}.txt", yolo_line(stem))
        text(folder / f"{split}.txt", f"data/obj_{split}_data/cam1/{stem}.jpg")
    text(folder / "obj.names", "cat", "dog")
    places = ("train = data/train.txt", "valid = data/valid.txt", "names = data/obj.names")
    text(folder / "obj.data", "classes = 2", *places, "backup = backup/")


def cvat_ultralytics(folder):
    for split, stem in (("train", "a"), ("val", "b")):
        pictures(folder / "images" / split, stem)
        text(folder / "labels" / split / f"{stem}.txt", yolo_line(stem))
        text(folder / f"{split}.txt", f"data/images/{split}/{stem}.jpg")
    names = ("names:", "  0: cat", "  1: dog")
    text(folder / "data.yaml", "path: .", "train: train.txt", "val: val.txt", *names)


def label_studio_coco(folder):
    pictures(folder / "images")
    coco(folder / "result.json", "images\\{}.jpg", first=0, categories=((0, "cat"), (1, "dog")))


def label_studio_coco_by_address(folder):
    pictures(folder / "images")
    names = "/data/local-files/?d=photos/images/{}.jpg"
    coco(folder / "result_coco.json", names, first=0, categories=((0, "cat"), (1, "dog")))


def label_studio_yolo(folder):
    pictures(folder / "images")
    for stem in SIZES:
        text(folder / "labels" / f"{stem}.txt", yolo_line(stem))
    text(folder / "classes.txt", "cat", "dog")
    classes = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    text(folder / "notes.json", json.dumps({"categories": classes, "info": {"year": 2026}}))


WHOLE = [cvat_coco, label_studio_coco, label_studio_coco_by_address, label_studio_yolo]
PARTS = [roboflow_coco, roboflow_yolo, roboflow_voc, cvat_coco_subsets, cvat_yolo, cvat_ultralytics]


@pytest.mark.parametrize("export", WHOLE + PARTS, ids=lambda export: export.__name__)
def test_an_export_gives_the_boxes_that_were_drawn(tmp_path, export):
    export(tmp_path)
    layout = find_layout(tmp_path)
    assert list(layout.splits) == (["train", "val"] if export in PARTS else ["train"])
    found = {}
    for split in layout.splits:
        annotations = layout[split].load()
        for picture in annotations.pictures:
            (one,) = picture.annotations
            assert annotations.names[one.label] == "dog"
            stem = picture.file_name[-5]
            found[stem] = (picture.size, pytest.approx(one.box_xywh))
    assert found == {stem: (SIZES[stem], BOXES[stem]) for stem in SIZES}
    assert all(report.ok for report in check_folder(tmp_path)), "each picture is found"
