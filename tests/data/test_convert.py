"""YOLO and VOC folders become COCO: the same pictures, names and boxes come out that went in."""

import json
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.cli import main
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.convert import convert
from rtdetr_lab.data.preflight import check_folder
from rtdetr_lab.data.shapes import SHAPE_NAMES, TRAIN, VAL, ShapesConfig, draw
from rtdetr_lab.errors import DataError

SMALL = ShapesConfig(size=96, max_side=40.0, max_objects=4)
PICTURES = {"train": [draw(SMALL, TRAIN, i) for i in range(3)], "val": [draw(SMALL, VAL, 0)]}
USED = sorted({int(n) for pictures in PICTURES.values() for p in pictures for n in p.labels})


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture.image)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")


def yolo_lines(picture):
    for label, (x0, y0, x1, y1) in zip(picture.labels, picture.boxes_xyxy / 96, strict=True):
        yield f"{label} {(x0 + x1) / 2:.8f} {(y0 + y1) / 2:.8f} {x1 - x0:.8f} {y1 - y0:.8f}"


def write_yolo(folder, images="images/{split}", labels="labels/{split}", description=True):
    for split, pictures in PICTURES.items():
        for i, picture in enumerate(pictures):
            save(folder / images.format(split=split) / f"p{i}.png", picture)
            write(folder / labels.format(split=split) / f"p{i}.txt", "\n".join(yolo_lines(picture)))
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(SHAPE_NAMES))
    places = "".join(f"{split}: ../{images.format(split=split)}\n" for split in PICTURES)
    if description:
        write(folder / "data.yaml", f"path: /somewhere/else\n{places}names:\n{names}\n")
    else:
        write(folder / "classes.txt", "\n".join(SHAPE_NAMES) + "\n")


def voc_object(name, box):
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{escape(name)}</name><bndbox>{corners}</bndbox></object>"


def voc_xml(file_name, size, objects):
    height, width = size
    shape = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{file_name}</filename>{shape}{''.join(objects)}</annotation>"


def write_voc(folder, origin=1):
    for split, pictures in PICTURES.items():
        stems = [f"{split}{i}" for i in range(len(pictures))]
        for stem, picture in zip(stems, pictures, strict=True):
            save(folder / f"JPEGImages/{stem}.png", picture)
            ends = np.array([origin, origin, origin - 1, origin - 1])  # the last pixel is inside
            inside = picture.boxes_xyxy.astype(int) + ends
            names = [SHAPE_NAMES[label] for label in picture.labels]
            objects = map(voc_object, names, inside.tolist())
            xml = voc_xml(f"{stem}.png", (96, 96), objects)
            write(folder / f"Annotations/{stem}.xml", xml)
        write(folder / f"ImageSets/Main/{split}.txt", "\n".join(stems) + "\n")


def assert_is_the_shapes_world(folder, names):
    for split, pictures in PICTURES.items():
        data = CocoDataset.from_folder(folder, split)
        assert data.names == names
        assert len(data) == len(pictures)
        for i, picture in enumerate(pictures):
            sample = data[i]
            assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), picture.image)
            assert [names[n] for n in sample.labels] == [SHAPE_NAMES[n] for n in picture.labels]
            boxes = xyxy_from_cxcywh(sample.boxes) * 96
            assert torch.allclose(boxes, torch.from_numpy(picture.boxes_xyxy), atol=1e-3)
    assert all(report.ok for report in check_folder(folder))


# --- round trips ----------------------------------------------------------------------------------

LAYOUTS = [
    ("images/{split}", "labels/{split}", True),
    ("images/{split}", "labels/{split}", False),
    ("{split}/images", "{split}/labels", True),
    ("{split}/images", "{split}/labels", False),
    ("{split}", "{split}", False),
]


@pytest.mark.parametrize(("images", "labels", "description"), LAYOUTS)
def test_a_yolo_folder_comes_back_as_it_was(tmp_path, images, labels, description):
    write_yolo(tmp_path / "yolo", images, labels, description)
    paths = convert(tmp_path / "yolo", tmp_path / "coco")
    assert [p.name for p in paths] == ["train.json", "val.json"]
    assert_is_the_shapes_world(tmp_path / "coco", SHAPE_NAMES)


@pytest.mark.parametrize("origin", [0, 1])
def test_a_voc_folder_comes_back_as_it_was(tmp_path, origin):
    write_voc(tmp_path / "voc", origin)
    convert(tmp_path / "voc", tmp_path / "coco", voc_origin=origin)
    used = tuple(sorted(SHAPE_NAMES[n] for n in USED))
    assert_is_the_shapes_world(tmp_path / "coco", used)


def test_the_command_converts_and_says_what_comes_next(tmp_path, capsys):
    write_voc(tmp_path / "voc")
    assert main(["data", "convert", str(tmp_path / "voc"), str(tmp_path / "coco")]) == 0
    assert "rtdetr-lab data check" in capsys.readouterr().out
    assert main(["data", "convert", str(tmp_path / "voc"), str(tmp_path / "coco")]) == 1
    assert "is not empty" in capsys.readouterr().err


# --- one picture, 60 × 40 -------------------------------------------------------------------------


@pytest.fixture
def one(tmp_path):
    """Writes a YOLO folder of one picture, 60 wide and 40 high; returns what it converts to."""

    def convert_one(lines, orientation=None, suffix="png"):
        folder = tmp_path / "yolo"
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[:10, :15] = 255
        folder.mkdir()
        Image.fromarray(pixels).save(folder / f"a.{suffix}", exif=exif)
        write(folder / "classes.txt", "cat\ndog\n")
        if lines is not None:
            write(folder / "a.txt", lines)
        (path,) = convert(folder, tmp_path / "coco")
        return json.loads(path.read_text()), CocoDataset.from_json(
            path, with_masks="segm" in path.read_text()
        )

    return convert_one


@pytest.mark.parametrize("lines", [None, "", "\n \n"])
def test_a_picture_without_lines_has_no_objects(one, lines):
    tree, data = one(lines)
    assert tree["annotations"] == []
    assert data[0].boxes.shape == (0, 4)


def test_a_polygon_becomes_its_box_its_area_and_its_mask(one):
    tree, data = one("1 0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75")
    (row,) = tree["annotations"]
    assert row["bbox"] == [6, 10, 24, 20]
    assert row["area"] == 480
    assert row["segmentation"] == [[6, 10, 30, 10, 30, 30, 6, 30]]
    assert row["category_id"] == 2
    assert int(data[0].masks.sum()) == 480


def test_a_turned_photo_is_stored_as_a_viewer_shows_it(one):
    tree, data = one("0 0.875 0.125 0.25 0.25", orientation=6)
    (image,) = tree["images"]
    assert (image["width"], image["height"]) == (40, 60)
    assert tree["annotations"][0]["bbox"] == [30, 0, 10, 15]
    assert (data[0].image[:, :15, 30:] == 255).all(), "the box lies on what it was drawn around"
    assert int(data[0].image.sum()) == 10 * 15 * 3 * 255


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0 0.5 0.5 0.2", r"a\.txt: line 1: has 3 numbers after the class"),
        ("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2 0.9", "line 2: has 5 numbers"),
        ("0 30 20 10 10", r"line 1: 30 is not a fraction of the picture.*divide"),
        ("2 0.5 0.5 0.2 0.2", "class 2, but there are 2 names"),
        ("0.5 0.5 0.5 0.2 0.2", r"class 0\.5"),
        ("cat 0.5 0.5 0.2 0.2", "has words that are not numbers"),
        ("0 nan 0.5 0.2 0.2", "nan is not a fraction"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named_and_nothing_is_written(
    one, lines, words, tmp_path
):
    with pytest.raises(DataError, match=words):
        one(lines)
    assert not (tmp_path / "coco").exists()


def test_names_are_those_of_their_numbers_whatever_the_order_of_the_file(tmp_path):
    write_yolo(tmp_path / "yolo")
    names = "".join(f"  {i}: {SHAPE_NAMES[i]}\n" for i in reversed(range(len(SHAPE_NAMES))))
    write(tmp_path / "yolo/data.yaml", f"names:\n{names}")
    convert(tmp_path / "yolo", tmp_path / "coco")
    assert_is_the_shapes_world(tmp_path / "coco", SHAPE_NAMES)


# --- what a VOC file can be -----------------------------------------------------------------------


@pytest.fixture
def xml(tmp_path):
    """Writes a flat VOC folder of one stored picture 60 × 40 and returns what it converts to."""

    def convert_xml(text, orientation=None):
        folder, exif = tmp_path / "voc", Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        write(folder / "a.xml", text)
        Image.new("RGB", (60, 40)).save(folder / "a.jpg", exif=exif)
        (path,) = convert(folder, tmp_path / "coco")
        return json.loads(path.read_text())

    return convert_xml


def test_voc_counts_from_one_and_includes_the_last_pixel(xml):
    tree = xml(voc_xml("a.jpg", (40, 60), [voc_object("a & b", (1, 1, 10, 40))]))
    assert tree["annotations"][0]["bbox"] == [0, 0, 10, 40]
    assert tree["categories"] == [{"id": 1, "name": "a & b"}]


@pytest.mark.parametrize("size", [(0, 0), ("", 60), (40, "nan"), ("unknown", 60)])
def test_a_size_that_the_tool_did_not_know_is_not_held_against_the_picture(xml, size):
    tree = xml(voc_xml("a.jpg", size, [voc_object("cat", (1, 1, 10, 40))]))
    assert (tree["images"][0]["width"], tree["images"][0]["height"]) == (60, 40)


def test_the_size_in_the_xml_says_which_way_is_up(xml):
    tree = xml(voc_xml("a.jpg", (60, 40), [voc_object("cat", (1, 1, 40, 60))]), orientation=8)
    assert (tree["images"][0]["width"], tree["images"][0]["height"]) == (40, 60)
    assert tree["images"][0]["file_name"].endswith("a.png")


@pytest.mark.parametrize("orientation", [8, 3])
def test_a_photo_annotated_as_stored_is_copied_as_it_is(xml, tmp_path, orientation):
    """Upside down, both frames have the size in the XML; the stored one counts."""
    xml(voc_xml("a.jpg", (40, 60), []), orientation)
    copies = [(tmp_path / p).read_bytes() for p in ("voc/a.jpg", "coco/images/train/a.jpg")]
    assert copies[0] == copies[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            voc_xml("a.jpg", (40, 60), [voc_object("cat", (0, 1, 9, 9))]),
            "begins at 0.*--voc-origin 0",
        ),
        (
            voc_xml("a.jpg", (40, 60), [voc_object("cat", (1, 0, 9, 9))]),
            "begins at 0.*--voc-origin 0",
        ),
        (voc_xml("a.jpg", (41, 60), []), r"a\.xml: says 60×41, .*a\.jpg is 60×40"),
        (voc_xml("a.jpg", (40, 60), ["<object><name>cat</name></object>"]), "no complete bnd"),
        (voc_xml("a.jpg", (40, 60), [voc_object("cat", ("x", 1, 9, 9))]), "has no complete bndbox"),
        ("<annotation>", "is not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "defines entities"),
    ],
)
def test_an_xml_that_cannot_be_understood_is_named(xml, text, words):
    with pytest.raises(DataError, match=words):
        xml(text)


# --- folders that are not what they should be -----------------------------------------------------


def test_a_folder_that_is_neither_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither a YOLO nor a VOC folder"):
        convert(tmp_path, tmp_path / "coco")
    with pytest.raises(DataError, match="is not a folder"):
        convert(tmp_path / "nowhere", tmp_path / "coco")
    write(tmp_path / "classes.txt", "cat\n")
    with pytest.raises(DataError, match="holds no pictures"):
        convert(tmp_path, tmp_path / "coco")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [cat\n", "is not YAML"),
        ("names: 80\n", "has the names 80"),
        ("names: {0: cat, 2: dog}\n", "number them from 0"),
        ("names: [cat]\ntrain: ../../etc\n", r"names '../../etc', which is not there"),
        ("names: [cat]\ntrain: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_a_description_that_leads_nowhere_is_refused(tmp_path, text, words):
    write(tmp_path / "yolo/data.yaml", text)
    with pytest.raises(DataError, match=words):
        convert(tmp_path / "yolo", tmp_path / "coco")


def test_lists_of_pictures_are_followed(tmp_path):
    write_yolo(tmp_path / "yolo")
    names = ", ".join(SHAPE_NAMES)
    write(tmp_path / "yolo/data.yaml", f"train: train.txt\nval: [images/val]\nnames: [{names}]\n")
    write(tmp_path / "yolo/train.txt", "".join(f"./images/train/p{i}.png\n" for i in range(3)))
    convert(tmp_path / "yolo", tmp_path / "coco")
    assert_is_the_shapes_world(tmp_path / "coco", SHAPE_NAMES)


def test_a_missing_or_broken_picture_is_named(tmp_path):
    write_voc(tmp_path / "voc")
    path = tmp_path / "voc/JPEGImages/train1.png"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"train1\.png: is not a picture"):
        convert(tmp_path / "voc", tmp_path / "coco")
    path.unlink()
    with pytest.raises(DataError, match=r"train1\.xml: its picture 'train1\.png' is not there"):
        convert(tmp_path / "voc", tmp_path / "coco")
    Path(tmp_path / "voc/ImageSets/Main/train.txt").write_text("other 1\n")
    with pytest.raises(DataError, match="lists 'other', which has no XML"):
        convert(tmp_path / "voc", tmp_path / "coco")


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path):
    """Nor on a disk where letters differ in case and names do not."""
    for place, name in (("x", "same"), ("y", "same"), ("z", "Same")):
        save(tmp_path / f"yolo/{place}/{name}.png", PICTURES["train"][0])
        write(tmp_path / f"yolo/{place}/{name}.txt", "0 0.5 0.5 0.1 0.1")
    write(tmp_path / "yolo/classes.txt", "cat")
    convert(tmp_path / "yolo", tmp_path / "coco")
    assert len({p.name.lower() for p in (tmp_path / "coco/images/train").iterdir()}) == 3
    assert len(CocoDataset.from_folder(tmp_path / "coco")) == 3


def test_check_train_and_eval_read_voc_from_0_when_they_are_told(tmp_path, capsys):
    data, run = tmp_path / "voc", tmp_path / "run"
    write_voc(data, origin=0)
    for split in PICTURES:
        xml = voc_xml(f"{split}0.png", (96, 96), [voc_object("circle", (0, 0, 30, 30))])
        write(data / f"Annotations/{split}0.xml", xml)
    short = ["--size", "96", "--batch-size", "2", "--pictures", "4", "--device", "cpu"]
    for words in (
        ["data", "check", str(data)],
        ["train", "--data", str(data), "--out", str(run), *short],
        ["eval", str(run), "--data", str(data), "--device", "cpu"],
    ):
        if words[0] != "eval":  # without a run there is nothing to judge
            assert main(words) == 1
            said = capsys.readouterr()
            assert "give --voc-origin 0" in said.out + said.err
        assert main([*words, "--voc-origin", "0"]) == 0
