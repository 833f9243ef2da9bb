"""Boxes are answered in the frame that is asked for: upright to look at, COCO's for COCO."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from green_things import GreenThings, meadow
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.data.rle import decode_mask
from rtdetr_lab.data.shapes import SHAPE_NAMES
from rtdetr_lab.deployment.engine import Engine
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.frames import Frame

UPRIGHT_BOX = [30, 12, 60, 36]


def lying(path, orientation, upright=None):
    """A file whose EXIF asks a viewer for the meadow; returns the raster inside."""
    upright = meadow() if upright is None else upright
    size = upright.shape[:2] if orientation < 5 else upright.shape[1::-1]
    stored = Frame(size, orientation).pixels_as_stored(upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    return stored


def box_of(green):
    """Left, top, width and height of what is green, counted in the pixels."""
    ys, xs = np.nonzero(green[..., 1] > 128)
    return [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]


@pytest.fixture
def detector():
    return Detector(GreenThings().eval(), names=["stone", "grass"], size=(60, 90))


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_coco_gets_the_box_where_it_lies_in_the_file(detector, tmp_path, orientation, ending):
    path = tmp_path / f"a.{ending}"
    stored = lying(path, orientation)
    found = detector(path)
    assert found.boxes_xyxy[0].tolist() == pytest.approx(UPRIGHT_BOX, abs=1e-4)
    assert found.size == (60, 90)
    assert found.frame == Frame(stored.shape[:2], orientation)
    (row,) = found.to_coco(7)
    assert row["bbox"] == pytest.approx(box_of(stored), abs=1e-4)
    (same,) = found.to_coco(7, size=stored.shape[:2])
    assert same == row
    if orientation > 4:
        (upright,) = found.to_coco(7, size=(60, 90))
        assert upright["bbox"] == pytest.approx(box_of(meadow()), abs=1e-4)
    with pytest.raises(ImageError, match=r"a\..*stored with.*annotations have \(61, 90\)"):
        found.to_coco(7, size=(61, 90))


def test_a_square_that_could_lie_either_way_is_taken_as_stored(detector, tmp_path):
    stored = lying(tmp_path / "a.png", 6, meadow(70, 70))
    (row,) = detector(tmp_path / "a.png").to_coco(1, size=(70, 70))
    assert row["bbox"] == pytest.approx(box_of(stored), abs=0.6)


def test_masks_go_with_their_boxes(detector, tmp_path):
    pytest.importorskip("faster_coco_eval", reason="runs with the extra [eval]")
    stored = lying(tmp_path / "a.png", 6)
    found = detector(tmp_path / "a.png")
    drawn = replace(found, masks=torch.from_numpy(found.image[None, ..., 1] > 128))
    mask = decode_mask(drawn.to_coco(1)[0]["segmentation"], stored.shape[:2], "row")
    assert np.array_equal(mask, stored[..., 1] > 128)
    upright = decode_mask(drawn.to_coco(1, size=(60, 90))[0]["segmentation"], (60, 90), "row")
    assert np.array_equal(upright, meadow()[..., 1] > 128)


def test_json_and_pictures_are_upright_and_json_says_so(detector, tmp_path):
    lying(tmp_path / "a.png", 8)
    found = detector(tmp_path / "a.png")
    told = json.loads(json.dumps(found.to_json()))
    assert told["frame"] == "upright"
    assert told["size"] == [60, 90]
    assert told["size_stored"] == [90, 60]
    assert told["orientation"] == 8
    assert told["detections"][0]["box_xyxy"] == pytest.approx(UPRIGHT_BOX, abs=1e-4)
    assert Image.open(found.save(tmp_path / "drawn.png")).size == (90, 60)


def test_an_engine_says_the_same(tmp_path):
    from rtdetr_lab.rtdetr import rtdetr_nano

    torch.manual_seed(0)
    model = rtdetr_nano(num_classes=3).build().eval()
    lying(tmp_path / "a.png", 6)
    one = Detector(model, size=(96, 96), threshold=0.0)(tmp_path / "a.png")
    engine = Engine(model, (96, 96), device="cpu", threshold=0.0)
    for other in (engine(tmp_path / "a.png"), *engine.stream([tmp_path / "a.png"])):
        assert other.frame == one.frame == Frame((90, 60), 6)
        ours, theirs = one.to_coco(1)[:5], other.to_coco(1)[:5]
        for row, same in zip(ours, theirs, strict=True):
            assert row["bbox"] == pytest.approx(same["bbox"], abs=1e-2)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def cameras(tmp_path, monkeypatch):
    """Two folders in which pictures have the same names; some lie on their side."""
    from rtdetr_lab.data.shapes import DEFAULT, VAL, draw

    monkeypatch.chdir(tmp_path)
    images = []
    for number, name in enumerate(("cam1/0.png", "cam0/1.png", "cam0/0.png"), 11):
        Path("x", name).parent.mkdir(parents=True, exist_ok=True)
        stored = lying(Path("x", name), (1, 6, 3)[number - 11], draw(DEFAULT, VAL, number).image)
        height, width = stored.shape[:2]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    return images


def detect(images, *words):
    tree = {"images": images, "annotations": [], "categories": []}
    Path("x/val.json").write_text(json.dumps(tree))
    options = ["--coco", "r.json", "--annotations", "x/val.json", "--no-pictures"]
    return main(["detect", *words, *options, "--threshold", "0.3", "--device", "cpu"])


def test_ids_go_by_the_whole_name_and_boxes_by_the_frame(cameras):
    assert detect(cameras, "x/cam0", "x/cam1") == 0
    rows = json.loads(Path("r.json").read_text())
    told = json.loads(Path("out/detections.json").read_text())["images"]
    ids = {image["file_name"]: image["id"] for image in cameras}
    assert {row["image_id"] for row in rows} == set(ids.values())
    for image in told:
        mine = [r for r in rows if r["image_id"] == ids[image["image"].removeprefix("x/")]]
        assert len(mine) == len(image["detections"])
        frame = Frame(tuple(image["size_stored"]), image["orientation"])
        upright = torch.tensor([d["box_xyxy"] for d in image["detections"]])
        x0, y0, x1, y1 = frame.boxes_as_stored(upright).unbind(-1)
        boxes = torch.tensor([r["bbox"] for r in mine])
        assert torch.allclose(boxes, torch.stack([x0, y0, x1 - x0, y1 - y0], -1), atol=1e-3)


def test_a_name_of_another_machine_is_found_by_its_folders(cameras, monkeypatch):
    names = ("cam1\\0.png", "./cam0/1.png", "x/cam0/0.png")
    images = [image | {"file_name": n} for image, n in zip(cameras, names, strict=True)]
    assert detect(images, "x") == 0
    assert {r["image_id"] for r in json.loads(Path("r.json").read_text())} == {11, 12, 13}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["0.png", "1.png"], "both x/cam0/0.png and x/cam1/0.png match it"),
        (["cam1/0.png", "cam0/1.png", "cam2/0.png"], "does not list x/cam0/0.png"),
        (["cam1/0.png", "cam0/1.png", "am0/0.png"], "does not list x/cam0/0.png"),
        (["cam0/0.png"] * 2, "lists x/cam0/0.png several times: ids 50, 51"),
    ],
)
def test_a_picture_that_is_not_clearly_listed_is_named_before_anything_runs(
    cameras, capsys, names, says
):
    images = [{"id": 50 + i, "file_name": name} for i, name in enumerate(names)]
    assert detect(images, "x") == 1
    said = capsys.readouterr()
    assert says in said.err
    assert "knows" not in said.out
    assert not Path("r.json").exists()


def test_a_picture_of_another_size_than_listed_is_named_and_the_others_are_done(cameras, capsys):
    cameras[1]["width"] += 5
    assert detect(cameras, "x") == 1
    assert "x/cam0/1.png" in capsys.readouterr().err
    assert {r["image_id"] for r in json.loads(Path("r.json").read_text())} == {11, 13}


def test_a_folder_without_pictures_says_what_is_there(cameras, capsys):
    Path("clips").mkdir()
    for name in ("a.mp4", "b.MP4", "notes.txt"):
        Path("clips", name).write_bytes(b"\0\0\0\x18ftypisom")
    assert main(["detect", "clips"]) == 1
    assert "clips: holds no picture, but 2 .mp4, 1 .txt" in capsys.readouterr().err
    Path("clips/a.mp4").rename("clips/a.jpg")
    assert main(["detect", "clips/a.jpg"]) == 1
    assert "is a video; give it alone" in capsys.readouterr().err


def test_bits_that_no_file_says_are_said_on_the_command_line(tmp_path, monkeypatch, capsys):
    from rtdetr_lab.data.shapes import DEFAULT, VAL, draw

    monkeypatch.chdir(tmp_path)
    grey = np.asarray(Image.fromarray(draw(DEFAULT, VAL, 0).image).convert("L"))
    Image.fromarray(grey).save("eight.png")
    Image.fromarray(grey.astype(np.uint16) << 4).save("twelve.png")
    words = ["detect", "eight.png", "twelve.png", "--no-pictures", "--device", "cpu"]
    assert main(words) == 1
    assert "--bits 12" in capsys.readouterr().err
    assert main([*words, "--bits", "12"]) == 0
    eight, twelve = json.loads(Path("out/detections.json").read_text())["images"]
    assert eight["detections"] == twelve["detections"]


def test_a_data_set_of_fewer_bits_is_no_data_set_to_train_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = []
    for number in (3, 5):
        values = rng.integers(0, 4096, (20, 30)).astype(np.uint16)
        Image.fromarray(values).save(f"{number}.tif")
        images.append({"id": number, "file_name": f"{number}.tif", "width": 30, "height": 20})
    box = {"id": 1, "image_id": 3, "category_id": 1, "bbox": [2, 3, 9, 8], "area": 72, "iscrowd": 0}
    known = [{"id": i, "name": name} for i, name in enumerate(SHAPE_NAMES)]
    tree = {"images": images, "annotations": [box], "categories": known}
    Path("val.json").write_text(json.dumps(tree))
    assert main(["data", "check", "."]) == 1
    assert "12 bits in a wider type" in capsys.readouterr().out
    assert main(["eval", "nano", "--data", "."]) == 1
    assert "12 bits in a wider type" in capsys.readouterr().err
    for number in (3, 5):
        values = np.asarray(Image.open(f"{number}.tif"))
        Image.fromarray((values >> 4).astype(np.uint8)).save(f"{number}.tif")
    main(["data", "check", "."])
    assert "bits" not in capsys.readouterr().out
