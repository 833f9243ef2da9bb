"""The page "From a folder to a product": what it says to type, from a zip to an annotated clip."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from skimage.data import chelsea

from rtdetr_lab.data.shapes import DEFAULT, SHAPE_NAMES, VAL, draw

av = pytest.importorskip("av", reason="no [video] extra; runs where it is installed")
pytest.importorskip("onnxscript", reason="no [export] extra; runs where it is installed")
pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")

PAGE = (ROOT / "docs/product.md").read_text(encoding="utf8")
FILES = ROOT / "docs/product"
BUDGET = "2000"
"""Pictures of the training on the page."""


def blocks(title: str) -> list[str]:
    """The blocks of code of a file, as the page prints them."""
    return re.findall(rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```$', PAGE, re.S | re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder, but for twelve photographs with one annotation file, in a zip; the files of
    the page; and commands that train for a moment."""
    folder = tmp_path_factory.mktemp("day")
    for path in FILES.iterdir():
        text = path.read_text(encoding="utf8")
        assert text.count(BUDGET) == (path.stem == "product")
        (folder / path.name).write_text(text.replace(BUDGET, "24"), encoding="utf8")
    with zipfile.ZipFile(folder / "photos.zip", "w") as file:
        write_photos(file, folder)
    return folder


def write_photos(file: zipfile.ZipFile, folder: Path) -> None:
    """Scenes of shapes, each above a part of a photograph of a cat, with their boxes."""
    categories = [{"id": 7 + 2 * i, "name": name} for i, name in enumerate(SHAPE_NAMES)]
    tree = {"images": [], "annotations": [], "categories": categories}
    for number in range(12):
        scene, name = draw(DEFAULT, VAL, number), f"photos/{number:02}.jpg"
        cat = chelsea()[number * 15 :][:80, number * 9 :][:, : DEFAULT.size]
        pixels = np.concatenate([np.rint(scene.image * 255).astype(np.uint8), cat])
        Image.fromarray(pixels).save(folder / "one.jpg", quality=92)
        file.write(folder / "one.jpg", name)
        about = {"id": 100 - number, "file_name": name, "height": len(pixels), "width": 320}
        tree["images"].append(about)
        for label, (x0, y0, x1, y1) in zip(scene.labels, scene.boxes_xyxy.tolist(), strict=True):
            box = {"image_id": about["id"], "category_id": 7 + 2 * int(label), "iscrowd": 0}
            box |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            tree["annotations"].append(box | {"id": 1 + len(tree["annotations"])})
    file.writestr("annotations.json", json.dumps(tree))


def run(folder: Path, *words: str) -> str:
    """Run a program of the page in its folder, with our programs first; return what it prints."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": programs, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def frames(clip: Path) -> int:
    with av.open(str(clip)) as file:
        return sum(1 for _ in file.decode(video=0))


def lines_of(text: str) -> list[str]:
    """What is typed: no comments, no blank lines."""
    return [line for line in text.splitlines() if line and not line.startswith(("#", "set -"))]


@pytest.mark.parametrize("name", ["product.sh", "product.py", "clip.py", "onnx_alone.py"])
def test_the_page_says_everything_that_the_files_type(name):
    said = "".join(blocks(name))
    assert lines_of(said) == lines_of((FILES / name).read_text(encoding="utf8"))


@pytest.mark.full
def test_the_commands_lead_from_a_zip_to_a_report_an_onnx_file_and_an_annotated_clip(folder):
    told = run(folder, "sh", "product.sh")
    assert "12 pictures" in told
    assert "recommends the threshold" in told
    assert "<img" in (folder / "look.html").read_text(encoding="utf8")
    assert "Recommended for all classes" in (folder / "report/report.md").read_text(encoding="utf8")
    found = json.loads((folder / "found/detections.json").read_text(encoding="utf8"))
    again = json.loads((folder / "again/detections.json").read_text(encoding="utf8"))
    assert len(found["images"]) == 5
    for ours, theirs in zip(found["images"], again["images"], strict=True):
        assert [d["name"] for d in ours["detections"]] == [d["name"] for d in theirs["detections"]]
    assert re.search(r"^(\w+) 0\.\d+ \[", told, re.M).group(1) in SHAPE_NAMES
    assert frames(folder / "clip_boxes.mp4") == frames(folder / "clip.mp4") == 12
    lines = (folder / "clip_boxes.jsonl").read_text(encoding="utf8").splitlines()
    assert any(json.loads(line)["detections"] for line in lines)


def test_python_leads_from_a_zip_to_a_report_an_onnx_file_and_an_annotated_clip(folder, tmp_path):
    zipfile.ZipFile(folder / "photos.zip").extractall(tmp_path / "filmed/my_data/images")
    (tmp_path / "filmed/my_data/images/annotations.json").unlink()
    run(tmp_path / "filmed", sys.executable, str(FILES / "clip.py"))
    for path in (folder / "photos.zip", folder / "product.py", tmp_path / "filmed/clip.mp4"):
        shutil.copy(path, tmp_path)
    told = run(tmp_path, sys.executable, "product.py")
    assert re.search(r"recommended by the validation pictures: 0\.\d+", told)
    assert (tmp_path / "report_python/report.md").is_file()
    assert frames(tmp_path / "clip_python.mp4") == 12
    (tmp_path / "product_python.onnx").rename(tmp_path / "product.onnx")
    told = run(tmp_path, sys.executable, str(FILES / "onnx_alone.py"))
    assert re.search(r"^(\w+) 0\.\d+ \[", told, re.M).group(1) in SHAPE_NAMES
