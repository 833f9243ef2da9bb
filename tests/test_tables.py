"""Detections of many pictures become files that other tools, and we, read as the same boxes."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas
import pytest
import torch
from green_things import GreenThings, meadow
from odd_names import ODD
from PIL import Image

from rtdetr_lab.boxes import xyxy_from_xywh
from rtdetr_lab.cli import main
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.detections import COLUMNS, Classes
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError, ImageError, MissingExtraError, OutputError
from rtdetr_lab.images.frames import Frame
from rtdetr_lab.tables import to_pandas, write_coco, write_csv, write_label_studio, write_yolo

BOX = [30, 12, 60, 36]
"""The green part of the meadow, 60 px high and 90 wide; all sides differ."""


@pytest.fixture
def photos(tmp_path):
    """A plain meadow, one that EXIF turns (orientation 6), and one without anything green."""
    place = tmp_path / "photos"
    (place / "cam1").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Frame((90, 60), 6).pixels_as_stored(meadow())
    Image.fromarray(meadow()).save(place / "plain.png")
    Image.fromarray(turned).save(place / "cam1" / "tür ned.png", exif=exif)
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(place / "cam1" / "empty.png")
    return [place / "plain.png", place / "cam1" / "tür ned.png", place / "cam1" / "empty.png"]


@pytest.fixture
def many(photos):
    detector = Detector(GreenThings().eval(), names=["stone", "grass"], size=(60, 90))
    return detector(photos)


def over_the_edge(found):
    """Three boxes: one over the edge at the top left, one outside, one inside."""
    boxes = torch.tensor([[-9.0, -6, 45, 30], [95, 5, 99, 9], [60, 30, 75, 57]])
    columns = {"scores": torch.tensor([0.9, 0.8, 0.7]), "labels": torch.tensor([1, 0, 0])}
    return replace(found, boxes_xyxy=boxes, queries=torch.tensor([1, 0, 0]), **columns)


def test_a_data_frame_has_a_row_per_detection(many):
    frame = to_pandas(many)
    assert tuple(frame.columns) == COLUMNS
    assert [Path(name).name for name in frame.image] == ["plain.png", "tür ned.png"]
    assert (frame.name == "grass").all()
    np.testing.assert_allclose(frame[["x0", "y0", "x1", "y1"]], [BOX, BOX], atol=1e-3)
    assert frame.score.tolist() == pytest.approx([0.952574] * 2, abs=1e-6)
    pandas.testing.assert_frame_equal(many[1].to_pandas(), frame[1:].reset_index(drop=True))
    assert tuple(many[2].to_pandas().columns) == COLUMNS


def test_without_pandas_the_error_says_what_to_install(many, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for make in (many[0].to_pandas, lambda: to_pandas(many)):
        with pytest.raises(MissingExtraError, match=r"pip install 'rtdetr_lab\[notebooks\]'"):
            make()


def test_csv_has_the_rows_of_the_data_frame(many, tmp_path):
    path = write_csv([over_the_edge(many[0]), *many], tmp_path / "deep" / "found.csv")
    wanted = to_pandas([over_the_edge(many[0]), *many])
    pandas.testing.assert_frame_equal(pandas.read_csv(path), wanted)
    assert wanted.x0[0] == -9, "a table keeps what reaches over the edge"


def test_csv_keeps_names_with_commas_quotes_and_line_ends(many, tmp_path):
    names = [*ODD[:6], 'a,b "c"', "\rd"]
    found = over_the_edge(replace(many[0], classes=Classes(tuple(names))))
    found = replace(found, labels=torch.tensor([7, 6, 4]))
    path = write_csv([found], tmp_path / "found.csv")
    with open(path, newline="", encoding="utf8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [names[7], names[6], names[4]]


def test_a_name_that_a_spreadsheet_would_compute_is_text(many, tmp_path):
    names = ("=1+1", "-x", "@a", "+b", "a=b")
    labels = torch.tensor([0, 2, 4])
    found = replace(over_the_edge(replace(many[0], classes=Classes(names))), labels=labels)
    with open(write_csv([found], tmp_path / "found.csv"), newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["'=1+1", "'@a", "a=b"]
    assert rows[0]["x0"] == "-9.0", "a number stays a number"


def test_a_yolo_folder_with_its_pictures_is_a_data_set_with_these_boxes(many, photos, tmp_path):
    folder = write_yolo([over_the_edge(many[0]), *many[1:]], tmp_path / "yolo")
    shutil.copytree(tmp_path / "photos", folder / "images")
    found = find_layout(folder)["train"].load()
    assert list(found.names) == ["stone", "grass"]
    boxes = {
        Path(p.file_name).name: [(one.label, *one.box_xywh) for one in p.annotations]
        for p in found.pictures
    }
    assert boxes["empty.png"] == []
    (turned,) = boxes["tür ned.png"]
    assert turned == pytest.approx((1, 30, 12, 30, 24), abs=1e-3), "upright, as YOLO's are"
    clipped, inside = boxes["plain.png"]
    assert clipped == pytest.approx((1, 0, 0, 45, 30), abs=1e-3)
    assert inside == pytest.approx((0, 60, 30, 15, 27), abs=1e-3)


def test_two_pictures_with_one_yolo_file_are_refused(many, tmp_path):
    twin = replace(many[1], source=str(Path(many[0].source).with_suffix(".JPG")))
    with pytest.raises(OutputError, match=r"plain\.JPG: and .*plain\.png would share"):
        write_yolo([many[0], twin], tmp_path / "yolo")


def test_class_names_survive_yaml(many, tmp_path):
    found = replace(many[0], classes=Classes(ODD))
    folder = write_yolo([found], tmp_path / "yolo")
    shutil.copytree(tmp_path / "photos", folder / "images")
    assert tuple(find_layout(folder)["train"].load().names) == ODD


def test_label_studio_gets_percent_of_the_upright_picture(many, tmp_path):
    path = write_label_studio([over_the_edge(many[0]), *many[1:]], tmp_path / "tasks.json")
    first, turned, empty = json.loads(path.read_text())
    assert unquote(turned["data"]["image"]) == f"/data/local-files/?d={many[1].source}"
    assert " " not in turned["data"]["image"]
    assert empty["predictions"] == [{"result": []}]
    (region,) = turned["predictions"][0]["result"]
    assert (region["original_width"], region["original_height"]) == (90, 60)
    assert region["type"] == "rectanglelabels"
    assert region["value"].pop("rectanglelabels") == ["grass"]
    wanted = {"x": 100 / 3, "y": 20, "width": 100 / 3, "height": 40, "rotation": 0}
    assert region["value"] == pytest.approx(wanted, abs=1e-3)
    clipped, inside = first["predictions"][0]["result"]
    assert clipped["value"]["x"] == clipped["value"]["y"] == 0
    assert clipped["value"]["width"] == clipped["value"]["height"] == 50
    assert (clipped["score"], inside["score"]) == pytest.approx((0.9, 0.7))


def test_a_coco_file_beside_the_pictures_is_a_data_set_in_the_stored_frame(many, tmp_path):
    path = write_coco(many, tmp_path / "photos" / "train.json")
    tree = json.loads(path.read_text())
    assert [image["file_name"] for image in tree["images"]] == [
        "plain.png",
        "cam1/tür ned.png",
        "cam1/empty.png",
    ]
    assert tree["annotations"][1]["score"] == pytest.approx(0.952574, abs=1e-6)
    plain, turned, empty = CocoDataset.from_folder(tmp_path / "photos")
    assert len(empty.labels) == 0
    for sample, size in ((plain, (60, 90)), (turned, (90, 60))):
        assert sample.truth.size == size, "as stored"
        ys, xs = np.nonzero(sample.image[1].numpy())
        around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert sample.truth.boxes_xyxy[0].tolist() == pytest.approx(around, abs=1e-3)
    _, row = tree["annotations"]
    x0, y0, x1, y1 = xyxy_from_xywh(torch.tensor(row["bbox"])).tolist()
    assert row["area"] == pytest.approx((x1 - x0) * (y1 - y0))


@pytest.mark.parametrize("write", [write_yolo, write_coco, write_label_studio])
def test_a_picture_without_a_file_has_no_name_to_write(write, many, tmp_path):
    with pytest.raises(ImageError, match="have no name of their picture"):
        write([many[0], replace(many[1], source="")], tmp_path / "out")


@pytest.mark.parametrize("write", [write_yolo, write_coco])
def test_detections_of_two_models_do_not_share_a_list_of_classes(write, many, tmp_path):
    other = replace(many[1], classes=Classes(("grass", "stone")))
    with pytest.raises(ConfigError, match=r"tür ned\.png: has other classes than .*plain\.png"):
        write([many[0], other], tmp_path / "out")


# --- the command ---------------------------------------------------------------------------------


def test_detect_writes_the_formats_that_are_named(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    formats = "csv, yolo,label_studio,coco"
    assert main(["detect", "photos", "--threshold", "0.1", "--write", formats]) == 0
    tree = json.loads(Path("out/detections.json").read_text(encoding="utf8"))
    rows = [d for image in tree["images"] for d in image["detections"]]
    assert rows
    assert len(pandas.read_csv("out/detections.csv")) == len(rows)
    assert len(json.loads(Path("out/coco.json").read_text())["annotations"]) == len(rows)
    assert len(json.loads(Path("out/label_studio.json").read_text())) == 3
    texts = sorted(str(path) for path in Path("out/yolo/labels").rglob("*.txt"))
    assert [Path(text).name for text in texts] == ["empty.txt", "tür ned.txt", "plain.txt"]
    assert "label_studio → out/label_studio.json" in capsys.readouterr().out


def test_an_unknown_format_and_a_shared_file_are_errors_before_the_model_is_read(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", "photos", "--model", "none", "--write", "csv,excel"]) == 1
    assert "--write: 'excel' is no format; give csv, yolo" in capsys.readouterr().err
    shutil.copyfile("photos/plain.png", "photos/plain.jpg")
    assert main(["detect", "photos", "--model", "none", "--write", "yolo"]) == 1
    assert "would share the text file plain.txt" in capsys.readouterr().err
    assert not Path("out").exists()
