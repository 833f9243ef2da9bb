"""Which files make a data set, where its pictures lie, and which picture a file is."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from damaged_data import save
from data_folders import SIZE, write_json, write_yolo
from PIL import Image

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.layout import find_layout, find_pictures
from rtdetr_lab.data.preflight import check_folder
from rtdetr_lab.errors import DataError

# --- which files, which splits --------------------------------------------------------------------

NAMES_OF_FILES = [
    # files below the folder; the file of train, that of val
    (("train.json", "valid.json"), "train.json", "valid.json"),
    (("train/_annotations.coco.json", "valid/_annotations.coco.json"), None, None),
    (("training/labels.json", "validation/labels.json"), None, None),
    (("annotations/instances_train2017.json", "annotations/instances_val2017.json"), None, None),
    (("cells_train.json", "cells_val.json"), None, None),
    (("train.json", "train_old.json", "val.json"), "train.json", "val.json"),
]


@pytest.mark.parametrize(("files", "train", "val"), NAMES_OF_FILES)
def test_splits_are_found_by_what_others_call_them(tmp_path, files, train, val):
    for name in files:
        write_json(tmp_path / name)
    layout = find_layout(tmp_path)
    assert layout.format == "COCO JSON"
    assert layout["train"].path == tmp_path / (train or files[0])
    for name in ("val", "valid", "validation"):
        assert layout[name].path == tmp_path / (val or files[1])


def test_other_tasks_logs_and_results_are_no_annotations(tmp_path):
    write_json(tmp_path / "annotations/instances_val2017.json")
    for name in ("captions_val2017", "person_keypoints_val2017", "panoptic_val2017"):
        write_json(tmp_path / f"annotations/{name}.json")
    (tmp_path / "annotations/val_results.json").write_text('[{"image_id": 5, "score": 0.5}]')
    assert find_layout(tmp_path)["val"].path.name == "instances_val2017.json"


def test_one_file_of_any_name_is_a_training_set(tmp_path):
    write_json(tmp_path / "result.json")
    (tmp_path / "notes.json").write_text('{"categories": [], "info": {}}')  # Label Studio's
    assert find_layout(tmp_path)["train"].path.name == "result.json"
    assert find_layout(tmp_path / "result.json")["train"].path.name == "result.json"
    with pytest.raises(DataError, match=r"no annotations for 'val'; there is result\.json"):
        find_layout(tmp_path)["val"]


@pytest.mark.parametrize("place", ["annotations", "val", ""])
def test_a_file_that_is_given_belongs_to_the_folder_of_its_pictures(tmp_path, place):
    path = write_json(tmp_path / place / "cells_val.json")
    layout = find_layout(path)
    assert (layout.folder, list(layout.splits)) == (tmp_path, ["val"])


def test_categories_that_are_only_names_are_numbered_from_1(tmp_path):
    found = find_layout(write_yolo(tmp_path, ["images/train"]))["train"].load()
    assert (found.names, found.category_ids) == (("cat", "dog"), (1, 2))
    assert [p.id for p in found.pictures] == [1]


def test_splits_of_ones_own_keep_their_names(tmp_path):
    for name in ("fold1", "fold2"):
        write_json(tmp_path / f"{name}.json")
    assert find_layout(tmp_path)["fold2"].path.name == "fold2.json"
    with pytest.raises(DataError, match=r"no annotations for 'train'; there is fold1\.json, fold2"):
        find_layout(tmp_path)["train"]


@pytest.mark.parametrize(
    "files",
    [
        ("val.json", "valid.json"),
        ("val.json", "val/_annotations.coco.json"),
        ("a_val.json", "b-val.json"),
    ],
)
def test_two_files_for_one_split_are_named_and_neither_is_taken(tmp_path, files):
    for name in (*files, "train.json"):
        write_json(tmp_path / name)
    layout = find_layout(tmp_path)
    assert layout["train"].path.name == "train.json"
    with pytest.raises(DataError, match=r"has .*val.*\.json and .*val.*\.json for 'val'"):
        layout["val"]


def test_what_is_there_instead_is_said(tmp_path):
    with pytest.raises(DataError, match="is empty"):
        find_layout(tmp_path)
    write_json(tmp_path / "inner/train.json")
    with pytest.raises(DataError, match=r"contains one; give .*inner"):
        find_layout(tmp_path)
    write_yolo(tmp_path / "yolo", ["images/train"], yaml="")
    with pytest.raises(DataError, match=r"no class names; write the names into data\.yaml"):
        find_layout(tmp_path / "yolo")
    (tmp_path / "yolo/classes.txt").write_text("cat\ndog\n")
    (tmp_path / "yolo/Annotations").mkdir()
    (tmp_path / "yolo/Annotations/p0.xml").write_text("<annotation/>")
    with pytest.raises(DataError, match="is a YOLO and a Pascal VOC folder"):
        find_layout(tmp_path / "yolo")


# --- YOLO and VOC, as they are --------------------------------------------------------------------


def test_a_roboflow_export_has_each_picture_once(tmp_path):
    yaml = "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n"
    folder = write_yolo(tmp_path, ["train/images", "train/images", "valid/images"], yaml)
    layout = find_layout(folder)
    assert {name: len(layout[name].load().pictures) for name in layout.splits} == {
        "train": 2,
        "val": 1,
    }


def test_a_list_of_one_split_does_not_hide_the_folder_of_another(tmp_path):
    yaml = "train: images/train\nnames: {'0': cat, '1': dog}\n"
    folder = write_yolo(tmp_path, ["images/train", "images/val", "images/test"], yaml)
    assert list(find_layout(folder / "data.yaml").splits) == ["train", "val", "test"]


def test_two_folders_of_pictures_for_one_split_are_named(tmp_path):
    folder = write_yolo(tmp_path, ["val/images", "valid/images"])
    with pytest.raises(DataError, match=r"pictures for 'val' in val and in valid"):
        find_layout(folder)


@pytest.mark.parametrize("entry", ["/content/x-1/train/images", "C:\\x\\train\\images", "train"])
def test_a_description_of_another_machine_is_understood(tmp_path, entry):
    folder = write_yolo(tmp_path, ["train/images"], f"train: {entry}\nnames: [cat, dog]\n")
    assert len(find_layout(folder)["train"].load().pictures) == 1


def test_a_yolo_folder_is_read_as_it_is_and_refers_to_the_upright_picture(tmp_path):
    folder = write_yolo(tmp_path, ["images/train"], lines="1 0.875 0.25 0.25 0.5\n")
    save(folder / "images/train/p0.png", (40, 30), 0, orientation=6)
    sample = CocoDataset.from_folder(folder)[0]
    upright = np.rot90(np.asarray(Image.open(folder / "images/train/p0.png")), -1)
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), upright)
    assert sample.truth.boxes_xyxy.tolist() == [[30, 0, 40, 15]]
    (report,) = check_folder(folder)
    assert report.ok
    assert not report.of(rules.TURNED), "its boxes are those of the turned picture"


def test_text_is_read_as_other_tools_write_it(tmp_path):
    folder = write_yolo(tmp_path, ["images/train"], yaml="")
    (folder / "classes.txt").write_bytes("chat\r\nrenard b\xe9b\xe9\r\n\r\n".encode("cp1252"))
    (folder / "labels/train/p0.txt").write_bytes(b"\xef\xbb\xbf1.0 .5 .5 .25 .5\r\n\r\n")
    data = CocoDataset.from_folder(folder)
    assert data.names == ("chat", "renard bébé")
    assert data[0].labels.tolist() == [1]
    path = write_json(tmp_path / "coco/train.json")
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text(path.read_text().replace("dog", "dög"), encoding=encoding)
        assert find_layout(path)["train"].load().names == ("cat", "dög")
        path.write_text(path.read_text(encoding=encoding).replace("dög", "dog"))


def test_a_latin_xml_without_a_word_about_it_is_understood(tmp_path):
    save(tmp_path / "a.png", SIZE, 0)
    xml = "<annotation><filename>a.png</filename><object><name>Bär</name><bndbox><xmin>3</xmin>"
    xml += "<ymin>2.0</ymin><xmax>12</xmax><ymax>20</ymax></bndbox></object></annotation>"
    (tmp_path / "a.xml").write_bytes(xml.encode("latin1"))
    data = CocoDataset.from_folder(tmp_path)
    assert data.names == ("Bär",)
    assert data[0].truth.boxes_xyxy.tolist() == [[2, 1, 12, 20]]


def test_voc_files_of_one_name_in_two_folders_keep_their_pictures(tmp_path):
    for i, camera in enumerate(("cam0", "cam1")):
        save(tmp_path / f"JPEGImages/{camera}/01.png", SIZE, i)
        box = f"<xmin>{2 + i}</xmin><ymin>2</ymin><xmax>12</xmax><ymax>20</ymax>"
        entry = f"<object><name>cat</name><bndbox>{box}</bndbox></object>"
        xml = tmp_path / f"Annotations/{camera}/01.xml"
        xml.parent.mkdir(parents=True)
        xml.write_text(f"<annotation><filename>01.png</filename>{entry}</annotation>")
    pictures = find_layout(tmp_path)["train"].load().pictures
    assert [p.file_name for p in pictures] == ["JPEGImages/cam0/01.png", "JPEGImages/cam1/01.png"]
    assert [p.annotations[0].box_xywh[0] for p in pictures] == [1, 2]


# --- where a picture lies -------------------------------------------------------------------------

ACCENT = unicodedata.normalize("NFC", "caf\u00e9.png")
WAYS_TO_WRITE = [
    # the file below images/, how the annotations call it
    ("a b.png", "images\\a b.png"),
    ("a b.png", "a%20b.png"),
    ("a%20b.png", "a b.png"),
    (ACCENT, unicodedata.normalize("NFD", ACCENT)),
    ("A.PNG", "images/a.png"),
    ("deep/a.png", "C:\\Users\\x\\data\\images\\deep\\a.png"),
    ("deep/a.png", "/home/x/images/deep/a.png"),
    ("a.png", "https://host/project/images/a.png"),
    ("a.png", "/data/local-files/?d=images/a.png"),
    ("a.png", ".\\images\\a.png"),
]


@pytest.mark.parametrize(("stored", "written"), WAYS_TO_WRITE)
def test_a_picture_is_found_however_its_name_was_written(tmp_path, stored, written):
    save(tmp_path / "images" / stored, SIZE, 0)
    save(tmp_path / "images/other.png", SIZE, 1)
    write_json(tmp_path / "train.json", (written, "other.png"))
    data = CocoDataset.from_folder(tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "images" / stored))
    assert torch.equal(data[0].image, torch.from_numpy(pixels.copy()).permute(2, 0, 1))


def test_a_name_may_climb_from_its_annotations_but_not_out_of_the_folder(tmp_path):
    save(tmp_path / "data/images/a.png", SIZE, 0)
    save(tmp_path / "secret.png", SIZE, 1)
    names = (
        "../images/a.png",
        "../../secret.png",
        "..\\..\\secret.png",
        "%2e%2e/%2e%2e/secret.png",
    )
    write_json(tmp_path / "data/annotations/train.json", names)
    data = CocoDataset.from_folder(tmp_path / "data")
    assert data[0].size == SIZE
    for i in (1, 2):
        with pytest.raises(DataError, match="leaves the folder"):
            data[i]
    with pytest.raises(DataError, match="is not in"):
        data[3]


def test_a_basename_in_another_folder_is_another_picture(tmp_path):
    save(tmp_path / "images/cam0/01.png", SIZE, 0)
    write_json(tmp_path / "train.json", ("01.png", "cam0/01.png"))
    data = CocoDataset.from_folder(tmp_path)
    assert data[1].size == SIZE
    with pytest.raises(DataError, match=r"write the path as it is on disk: .*cam0.01\.png"):
        data[0]


def test_a_name_that_could_be_two_files_is_neither(tmp_path):
    for i, stored in enumerate(("a b.png", "a%20b.png")):
        save(tmp_path / "images" / stored, SIZE, i)
    write_json(tmp_path / "train.json", ("a%20%62.png",))
    with pytest.raises(DataError, match=r"as it is on disk: .*a b\.png, .*a%20b\.png"):
        CocoDataset.from_folder(tmp_path)[0]


def test_two_names_of_another_machine_that_are_one_file_here_are_refused(tmp_path):
    save(tmp_path / "images/01.png", SIZE, 0)
    write_json(tmp_path / "train.json", ("D:\\cam0\\01.png", "D:\\cam1\\01.png"))
    (report,) = check_folder(tmp_path)
    (found,) = report.of(rules.SAME_FILE)
    assert "'D:\\\\cam1\\\\01.png' and 'D:\\\\cam0\\\\01.png' are both" in found.what


# --- which picture a file is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("cam0/01.png", "cam1/01.png"),
        ("images\\cam0\\01.png", "images\\cam1\\01.png"),
        ("/home/x/images/cam0/01.png", "/home/x/images/cam1/01.png"),
    ],
)
def test_ids_are_those_of_the_path_and_not_of_the_basename(tmp_path, names, monkeypatch):
    paths = [tmp_path / f"data/images/cam{i}/01.png" for i in (1, 0)]
    for i, path in enumerate(paths):
        save(path, SIZE, i)
    annotations = write_json(tmp_path / "data/train.json", names)
    assert [p.id for p in find_pictures(paths, annotations)] == [6, 5]
    monkeypatch.chdir(tmp_path / "data/images")
    relative = [Path("cam1/01.png"), Path("cam0/../cam0/01.png")]
    assert [p.id for p in find_pictures(relative, annotations)] == [6, 5]


def test_pictures_may_lie_far_from_the_file_that_lists_them(tmp_path):
    paths = [tmp_path / "disk/val2017/01.png", tmp_path / "disk/val2017/02.png"]
    annotations = write_json(tmp_path / "annotations/val.json", ("02.png", "01.png"))
    assert [p.id for p in find_pictures(paths, annotations)] == [6, 5]
    with pytest.raises(DataError, match=r"does not list .*03\.png"):
        find_pictures([tmp_path / "disk/03.png"], annotations)
    twice = [tmp_path / "disk/a/01.png", tmp_path / "disk/b/01.png"]
    with pytest.raises(DataError, match="lists one picture, and"):
        find_pictures(twice, annotations)
