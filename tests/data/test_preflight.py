"""Preflight finds each planted fault, names it with its id, and agrees with what training does."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damaged_data import (
    SIZES,
    append,
    at,
    box,
    boxes,
    crowded,
    every,
    fourth_picture,
    on_disk,
    put,
    remove_boxes,
    save,
    shift_categories,
    sound,
    truncate,
    turned,
)
from paths import ROOT
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.batch import collate
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.findings import RULES, Severity
from rtdetr_lab.data.preflight import check_folder, first_look, usable
from rtdetr_lab.data.report import draw_reports, histogram_of_sides
from rtdetr_lab.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Writes a data set that `damage(tree, folder)` has been at, and returns its folder."""

    def write(damage=lambda tree, where: None, tree=None, split="train"):
        where, tree = tmp_path / "data", tree or sound()
        for i, size in SIZES.items():
            if not (where / f"images/{i}.png").exists():
                save(where / f"images/{i}.png", size, i)
        damage(tree, where)
        (where / f"{split}.json").write_text(json.dumps(tree))
        return where

    return write


HOPELESS = (
    rules.NO_PICTURES,
    rules.NOTHING,
    rules.FRACTIONS,
    rules.MISREAD,
    rules.MISFIT,
    rules.SAME_FILE,
)
"""What can be read, and teaches nothing."""

FAULTS = [
    # fault, rule, kind and id in the finding, words in it
    (put("images", 2, id="two"), rules.BAD_ID, ("picture", None), "'two'"),
    (put("annotations", 3, id=4), rules.DUPLICATE_ID, ("annotation", 4), "twice"),
    (
        append("images", id=2, file_name="x", width=1, height=1),
        rules.DUPLICATE_ID,
        ("picture", 2),
        "",
    ),
    (append("categories", id=1, name="x"), rules.DUPLICATE_ID, ("category", 1), "twice"),
    (put("images", 2, width=None), rules.BAD_SIZE, ("picture", 2), "None"),
    (put("annotations", 3, image_id=99), rules.UNLISTED_PICTURE, ("annotation", 3), "99"),
    (put("annotations", 3, category_id=7), rules.UNKNOWN_CATEGORY, ("annotation", 3), "7"),
    (box(1, 2, 3), rules.BAD_BOX, ("annotation", 3), "[1, 2, 3]"),
    (put("annotations", 3, iscrowd="yes"), rules.BAD_CROWD, ("annotation", 3), "'yes'"),
    (every(iscrowd=1), rules.NOTHING, ("", None), "crowd region: 6"),
    (
        boxes(lambda x, y, w, h: [x / 40, y / 40, w / 40, h / 40]),
        rules.FRACTIONS,
        ("", None),
        "12 of 12",
    ),
    (
        boxes(lambda x, y, w, h: [x + 9, y + 1, x + 9 + w, y + 1 + h]),
        rules.MISREAD,
        ("", None),
        "read as left, top, right, bottom",
    ),
    (boxes(lambda x, y, w, h: [x - 25, y, w + 31, h]), rules.MISFIT, ("", None), "12 of 12"),
    (
        lambda tree, where: (
            at(tree, "images", 1).update(file_name="2.png", height=20, width=50)
            or at(tree, "images", 2).update(file_name="images\\2.png")
        ),
        rules.SAME_FILE,
        ("picture", 2),
        "are both",
    ),
    (crowded, rules.TOO_MANY, ("picture", 3), "has 303 objects"),
    (box(5, 5, 0.5, 4), rules.TINY, ("annotation", 3), "0.5"),
    (
        put("annotations", 3, bbox=[2, 3, 8, 9], category_id=1),
        rules.SAME_BOX,
        ("annotation", 3),
        "of annotation 2",
    ),
    (fourth_picture, rules.ONE_BOX, ("", None), "all 4 boxes are [3.0, 4.0, 11.0, 9.0]"),
    (boxes(lambda x, y, w, h: [x / 4, y / 4, 3, 4]), rules.ONE_CORNER, ("", None), "all 12"),
    (every(category_id=2), rules.ONE_CLASS, ("", None), "all 6 boxes are 'platelet'"),
    (
        lambda tree, where: tree.update(annotations=tree["annotations"][:2]),
        rules.MOSTLY_EMPTY,
        ("", None),
        "2 of them",
    ),
    (
        on_disk(lambda path: Image.new("L", (50, 20), 3).save(path)),
        rules.FLAT,
        ("picture", 2),
        "values from 3 to 3",
    ),
    (put("annotations", 3, image_id=1.0), rules.POINTS, ("", None), "1 numbers such as 1.0"),
    (put("images", 2, file_name="../2.png"), rules.LEAVES_FOLDER, ("picture", 2), "../2.png"),
    (put("images", 2, file_name="/etc/hostname"), rules.LEAVES_FOLDER, ("picture", 2), "/etc"),
    (on_disk(os.remove), rules.MISSING, ("picture", 2), "2.png"),
    (on_disk(truncate), rules.UNDECODABLE, ("picture", 2), "truncated"),
    (on_disk(lambda p: p.write_text("no picture")), rules.UNDECODABLE, ("picture", 2), ""),
    (put("images", 2, width=51), rules.WRONG_SIZE, ("picture", 2), "is 50×20"),
    (box(5, 5, 0, 4), rules.NO_AREA, ("annotation", 3), "[5.0, 5.0, 0.0, 4.0]"),
    (box(9, 9, -4, -4), rules.NEGATIVE, ("annotation", 3), "-4.0"),
    (box(60, 3, 8, 9), rules.OUTSIDE, ("annotation", 3), "of 40×30"),
    (put("annotations", 3, iscrowd=1), rules.CROWD, ("annotation", 3), ""),
    (box(35, 3, 9, 9), rules.OVER_EDGE, ("annotation", 3), "4 px"),
    (box(-5, 3, 9, 8), rules.OVER_EDGE, ("annotation", 3), "5 px"),
    (box(3, -6, 9, 8), rules.OVER_EDGE, ("annotation", 3), "6 px"),
    (box(3, 29, 9, 8), rules.OVER_EDGE, ("annotation", 3), "7 px"),
    (turned("stored"), rules.TURNED, ("picture", 2), "orientation 6"),
    (
        lambda tree, where: (
            save(where / "images/3.png", (40, 40), 1)
            or (where / "images/2.png").unlink()
            or at(tree, "images", 2).update(file_name="3.png", height=40, width=40)
        ),
        rules.SAME_PICTURE,
        ("picture", 3),
        "picture 2",
    ),
    (put("annotations", 3, id=0), rules.ZERO_ANNOTATION, ("annotation", 0), ""),
    (append("categories", id=3, name="cyst"), rules.NO_BOXES, ("category", 3), "cyst"),
    (put("categories", 2, name="cell"), rules.SAME_NAME, ("category", 2), "[1, 2]"),
    (shift_categories, rules.ZERO_CATEGORY, ("category", 0), "cell"),
    (append("categories", id=9, name="cyst"), rules.GAPS, ("", None), "3, 4, 5, 6, 7, 8"),
    (remove_boxes, rules.NO_OBJECTS, ("picture", 2), ""),
    (lambda tree, where: tree.update(images=[], annotations=[]), rules.NO_PICTURES, ("", None), ""),
    (lambda tree, where: tree.pop("categories"), rules.NOT_COCO, ("", None), "categories"),
]


def test_a_sound_data_set_has_nothing_to_complain_about(folder):
    (report,) = check_folder(folder())
    assert report.findings == ()
    assert report.ok
    assert (report.num_pictures, report.num_boxes) == (3, 6)
    assert report.classes == (("cell", 3), ("platelet", 3))
    assert "ready: nothing is left out" in str(report)


@pytest.mark.parametrize(
    ("fault", "rule", "place", "words"), FAULTS, ids=lambda f: getattr(f, "name", "")
)
def test_a_planted_fault_is_found_and_named(folder, fault, rule, place, words):
    (report,) = check_folder(folder(fault))
    (found,) = report.of(rule)
    assert (found.kind, found.id) == place
    assert words in found.what
    assert found.remedy
    if rule in (rules.UNKNOWN_CATEGORY, rules.BAD_BOX, rules.BAD_CROWD):
        assert found.picture == 1, "data look shows it beside its picture"
    assert report.ok == (rule.severity is not Severity.ERROR)
    assert rule.name in str(report)


@pytest.mark.parametrize(
    ("fault", "rule", "place", "words"), FAULTS, ids=lambda f: getattr(f, "name", "")
)
def test_training_refuses_drops_and_sees_what_preflight_says(folder, fault, rule, place, words):
    where = folder(fault)
    (report,) = check_folder(where)
    named = [f.error() for f in report.findings if f.rule.severity is Severity.ERROR]
    if report.ok or rule in HOPELESS:  # can be read, if not trained on
        data = CocoDataset.from_folder(where)
        assert data.dropped == report.dropped
        assert (
            sum(len(s.labels) for s in map(data.__getitem__, range(len(data)))) == report.num_boxes
        )
        if rule in HOPELESS:
            with pytest.raises(DataError) as caught:
                first_look(data)
            assert str(caught.value) in map(str, named)
        return
    with pytest.raises(DataError) as caught:
        data = CocoDataset.from_folder(where)
        [data[i] for i in range(len(data))]
    assert str(caught.value) in map(str, named)


def test_every_rule_has_a_planted_fault():
    elsewhere = {rules.UNREADABLE, rules.OTHER_CLASSES, rules.UNANNOTATED}
    assert {rule for _, rule, _, _ in FAULTS} | elsewhere == set(RULES)


def test_missing_category_numbers_are_counted_from_the_first_id(folder):
    def damage(tree, where):
        at(tree, "categories", 1)["id"] = 4
        at(tree, "categories", 2)["id"] = 9
        for entry in tree["annotations"]:
            entry["category_id"] = {1: 4, 2: 9}[entry["category_id"]]

    (report,) = check_folder(folder(damage))
    (found,) = report.of(rules.GAPS)
    assert found.what == "from 4 to 9, 4 numbers are not used: 5, 6, 7, 8"


def test_as_many_objects_as_queries_are_not_too_many(folder):
    where = folder(append("annotations", id=50, image_id=2, category_id=1, bbox=[20, 3, 8, 9]))
    (enough,), (too_few,) = (check_folder(where, num_queries=n) for n in (3, 2))
    assert enough.of(rules.TOO_MANY) == ()
    (found,) = too_few.of(rules.TOO_MANY)
    assert (found.id, found.what[:13]) == (2, "has 3 objects")


def test_one_box_of_two_classes_is_not_the_same_box_twice(folder):
    (report,) = check_folder(folder(put("annotations", 3, bbox=[2, 3, 8, 9])))
    assert report.of(rules.SAME_BOX) == ()


def test_a_first_look_opens_pictures_from_all_over_the_set(folder):
    def damage(tree, where):
        fourth_picture(tree, where)
        for i in (2, 3):
            Image.new("L", SIZES[i][::-1], 3).save(where / f"images/{i}.png")

    found = first_look(CocoDataset.from_folder(folder(damage)), count=2)
    assert [f.id for f in found if f.rule is rules.FLAT] == [3]


@pytest.mark.parametrize(
    ("darkest", "found"), [(240, ["has only values from 240 to 255"]), (239, [])]
)
def test_a_bright_picture_needs_contrast_too(folder, darkest, found):
    values = np.full((20, 50), 255, np.uint8)
    values[4, 9] = darkest
    (report,) = check_folder(folder(on_disk(Image.fromarray(values).save)))
    assert [f.what for f in report.of(rules.FLAT)] == found


def test_several_faults_are_all_found_at_once(folder):
    def damage(tree, where):
        box(5, 5, 0, 4)(tree, where)
        put("annotations", 5, category_id=7)(tree, where)
        on_disk(truncate)(tree, where)

    (report,) = check_folder(folder(damage))
    found = [(f.rule, f.id) for f in report.findings]
    assert found == [(rules.NO_AREA, 3), (rules.UNKNOWN_CATEGORY, 5), (rules.UNDECODABLE, 2)]
    assert "2 errors: training would stop" in str(report)


def test_a_picture_in_two_splits_is_named(folder):
    folder()
    only_new = sound()
    for entry in only_new["images"][1:]:
        entry["file_name"] = f"new{entry['id']}.png"

    def add(tree, where):
        for i in (2, 3):
            save(where / f"images/new{i}.png", SIZES[i], 10 + i)

    reports = check_folder(folder(add, only_new, "val"))
    assert [Path(r.file).name for r in reports] == ["train.json", "val.json"]
    assert reports[0].findings == ()
    (found,) = reports[1].findings
    assert found.rule is rules.SAME_PICTURE
    assert (found.id, found.what) == (1, "has the same file as picture 1 of train.json")


def test_a_data_set_without_boxes_can_be_read_and_teaches_nothing(folder):
    where = folder(lambda tree, where: tree.update(annotations=[]))
    (report,) = check_folder(where)
    assert not report.ok
    assert report.num_boxes == 0
    assert len(report.of(rules.NO_OBJECTS)) == 3
    assert len(report.of(rules.NO_BOXES)) == 2
    data = CocoDataset.from_folder(where)
    assert collate([data[0], replace(data[0])]).targets.counts == [0, 0]


def test_unusable_pictures_can_be_left_out_and_are_counted(folder):
    where = folder(on_disk(truncate))
    data = CocoDataset.from_folder(where)
    with pytest.raises(DataError, match=r"2\.png: picture 2: is truncated"):
        data[1]
    fewer = usable(data)
    assert [fewer[i].image_id for i in range(len(fewer))] == [1, 3]
    assert fewer.dropped == {"picture that cannot be decoded": 1}
    assert data.dropped == {}


def test_the_histogram_counts_boxes_by_the_root_of_their_area():
    boxes = [(0.0, 0.0, w, h) for w, h in ((4.0, 16.0), (17.0, 4.0), (16.0, 64.0), (2000.0, 500.0))]
    assert histogram_of_sides(boxes) == (1, 1, 1, 0, 0, 0, 0, 0, 1)


def test_numbers_of_a_report_can_be_kept(folder):
    def damage(tree, where):
        box(5, 5, 0, 4)(tree, where)
        put("images", 2, id=["two"])(tree, where)

    (report,) = check_folder(folder(damage))
    kept = json.loads(json.dumps(report.to_dict()))
    assert kept["ok"] is False
    assert kept["dropped"] == {"box without area": 1}
    assert kept["boxes"] == sum(c["boxes"] for c in kept["classes"]) == 3
    assert len(kept["box_sides"]["counts"]) == len(kept["box_sides"]["edges"]) + 1
    severities = {f["severity"] for f in kept["findings"]}
    assert severities == {"error", "dropped"}


def test_the_last_row_of_a_report_counts_the_boxes_of_all_other_classes(folder):
    (report,) = check_folder(folder())
    many = tuple((f"class {i}", 2 + 7 * i % 16) for i in range(1, 16))  # 3 to 17 boxes, mixed
    rows = re.findall(r"^ +(\d+)  (.*)$", str(replace(report, classes=many)), flags=re.MULTILINE)
    assert [int(count) for count, _ in rows] == [*range(17, 5, -1), 3 + 4 + 5]
    assert rows[-1] == ("12", "3 more classes")


def test_a_report_is_drawn_for_one_class_and_for_a_hundred(folder, tmp_path):
    (report,) = check_folder(folder())
    many = replace(report, classes=tuple((f"class {i}", i) for i in range(100)))
    none = replace(report, classes=(), sides=(0,) * 9)
    draw_reports([report, many, none], tmp_path / "report.png")
    drawn = np.asarray(Image.open(tmp_path / "report.png").convert("RGB"))
    assert drawn.std() > 10
    with pytest.raises(DataError, match="is no format"):
        draw_reports([report], tmp_path / "report.txt")


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_a_report_and_ends_well(folder, capsys, tmp_path):
    assert main(["data", "check", str(folder()), "--picture", str(tmp_path / "r.png")]) == 0
    printed = capsys.readouterr().out
    assert "3 pictures, 6 boxes, 2 classes" in printed
    assert (tmp_path / "r.png").stat().st_size > 5000


def test_the_command_ends_with_1_where_training_would_stop(folder, capsys):
    where = folder(on_disk(os.remove))
    assert main(["data", "check", str(where), "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["findings"][0]["rule"] == "missing picture"
    assert main(["data", "check", str(where / "train.json")]) == 1
    assert main(["data", "check", str(where), "--split", "val"]) == 1
    assert "no annotations for 'val'" in capsys.readouterr().err


def test_pictures_may_lie_elsewhere(folder, tmp_path):
    where = folder()
    (where / "images").rename(tmp_path / "elsewhere")
    assert not check_folder(where / "train.json")[0].ok
    assert check_folder(where / "train.json", images=tmp_path / "elsewhere")[0].ok


# --- the documentation and the shared data --------------------------------------------------------


def test_the_page_on_data_lists_every_rule_with_its_severity():
    page = (ROOT / "docs/data.md").read_text(encoding="utf8")
    rows = re.findall(
        r"^\| `(error|dropped|warning|note)` +\| ([^|]+?) +\|", page, flags=re.MULTILINE
    )
    assert rows == [(rule.severity.value, rule.name) for rule in RULES]


@pytest.mark.parametrize(("name", "boxes"), [("bccd", (2804, 1137)), ("coco_ccby", (409, 399))])
def test_the_shared_data_pass(shared, name, boxes):
    reports = check_folder(shared(f"data/{name}"))
    assert all(report.ok for report in reports)
    assert tuple(report.num_boxes for report in reports) == boxes
    for report, split in zip(reports, ("train", "val"), strict=True):
        assert CocoDataset.from_folder(shared(f"data/{name}"), split).dropped == report.dropped
