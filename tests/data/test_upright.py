"""A set that EXIF turns becomes one in which boxes and masks lie on the same pixels."""

import json

import numpy as np
from data_folders import write_yolo
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.preflight import check_folder
from rtdetr_lab.data.rle import run_lengths
from rtdetr_lab.data.upright import write_upright
from rtdetr_lab.images.frames import Frame

RED, GREEN = (255, 0, 0), (0, 255, 0)


def painted(size=(40, 60)):
    """A stored raster with a red and a green object; all sides and places differ."""
    raster = np.zeros((*size, 3), np.uint8)
    raster[4:14, 6:31], raster[20:37, 41:47] = RED, GREEN
    return raster


def boxes_of(raster, rows=((RED, 1), (GREEN, 2))):
    """The annotations of a raster, counted in its pixels: a polygon for red, run lengths else."""
    for colour, category in rows:
        mask = (raster == colour).all(-1)
        (x, y), (x1, y1) = np.argwhere(mask.T).min(0).tolist(), np.argwhere(mask.T).max(0).tolist()
        w, h = x1 + 1 - x, y1 + 1 - y
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        drawn = polygon if category == 1 else run_lengths(mask)
        yield {"category_id": category, "bbox": [x, y, w, h], "area": w * h, "segmentation": drawn}


def write_set(folder, orientations):
    """Pictures of the same raster, and of each EXIF another orientation."""
    images, annotations = [], []
    folder.mkdir()
    for number, orientation in enumerate(orientations, 5):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(painted()).save(folder / f"{number}.png", exif=exif)
        height, width = painted().shape[:2]
        name = f"{number}.png"
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for row in boxes_of(painted()):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **row})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(tree))
    return folder


def test_pictures_boxes_and_masks_turn_together(tmp_path):
    source = write_set(tmp_path / "lying", range(1, 9))
    (path,), turned = write_upright(source, tmp_path / "up")
    assert turned == 7
    data = CocoDataset.from_folder(tmp_path / "up", with_masks=True)
    for orientation, sample in enumerate(data, 1):
        upright = Frame((40, 60), orientation).pixels_upright(painted())
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), upright)
        wanted = [row["bbox"] for row in boxes_of(upright)]
        for box, mask, colour, (x, y, w, h) in zip(
            sample.truth.boxes_xyxy.tolist(), sample.masks, (RED, GREEN), wanted, strict=True
        ):
            assert box == [x, y, x + w, y + h]
            assert np.array_equal(mask.numpy(), (upright == colour).all(-1))
    (report,) = check_folder(tmp_path / "up")
    assert report.ok
    assert not report.of(rules.TURNED)
    assert [i["file_name"] for i in json.loads(path.read_text())["images"]][:2] == [
        "images/train/5.png",
        "images/train/6.png",
    ]


def test_pictures_that_nothing_turns_are_copied_byte_by_byte(tmp_path):
    source = write_set(tmp_path / "lying", [1, 6])
    write_upright(source, tmp_path / "up")
    before, after = source / "5.png", tmp_path / "up/images/train/5.png"
    assert before.read_bytes() == after.read_bytes()


def test_the_size_of_the_turned_picture_says_that_boxes_refer_to_it(tmp_path):
    source = write_set(tmp_path / "lying", [8])
    tree = json.loads((source / "train.json").read_text())
    upright = Frame((40, 60), 8).pixels_upright(painted())
    tree["images"][0] |= {"height": 60, "width": 40}
    for row, turned in zip(tree["annotations"], boxes_of(upright), strict=True):
        row |= turned
    (source / "train.json").write_text(json.dumps(tree))
    write_upright(source, tmp_path / "up")
    (sample,) = CocoDataset.from_folder(tmp_path / "up")
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), upright)
    assert sample.truth.boxes_xyxy[0].tolist() == [4, 29, 14, 54]


def test_boxes_that_are_upright_already_stay_where_they_are(tmp_path):
    """YOLO's boxes refer to the picture as a viewer shows it, also to one that is upside down."""
    source = write_yolo(tmp_path / "yolo", ["images"], lines="1 .25 .75 .5 .25\n")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(painted()).save(source / "images/p0.png", exif=exif)
    write_upright(source, tmp_path / "up")
    (sample,) = CocoDataset.from_folder(tmp_path / "up")
    assert sample.truth.boxes_xyxy.tolist() == [[0, 25, 30, 35]]


def test_the_command_turns_and_says_how_many(tmp_path, capsys):
    source = write_set(tmp_path / "lying", [3, 1, 6])
    assert main(["data", "upright", str(source), str(tmp_path / "up")]) == 0
    assert "2 pictures turned; now check: rtdetr-lab data check" in capsys.readouterr().out


def test_a_missing_picture_is_named_and_nothing_is_written(tmp_path, capsys):
    source = write_set(tmp_path / "lying", [6, 1])
    (source / "6.png").unlink()
    assert main(["data", "upright", str(source), str(tmp_path / "up")]) == 1
    assert "'6.png' is not in" in capsys.readouterr().err
    assert not (tmp_path / "up").exists()
