"""Names from files are text wherever they go: no markup, no code of a terminal, no formula."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ablation_toy import study
from damaged_data import save
from hypothesis import example, given, settings
from hypothesis import strategies as st
from odd_names import ODD, Page, pages
from PIL import Image
from small_api import SMALL

from rtdetr_lab.ablations.executors import Errand
from rtdetr_lab.ablations.journal import Journal
from rtdetr_lab.ablations.report import report_of
from rtdetr_lab.ablations.shipped import shipped
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.cli import main
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.model import Metadata
from rtdetr_lab.transformers_api.config import RTDetrConfig
from rtdetr_lab.transformers_api.rtdetr import RTDetrForObjectDetection
from rtdetr_lab.writing import (
    file_stem,
    markdown_block,
    markdown_code,
    markdown_table,
    markdown_text,
    printable,
)

TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
quick = settings(max_examples=25, deadline=None, derandomize=True)
texts = st.text(st.sampled_from("a1 _*`~[]()!<>&|\\{}$#:-\n\x1b\udc80é\u202e")) | st.text()


def words(text):
    return " ".join(text.split())


def as_shown(name):
    return words(printable(name.replace("\n", " ")))


@quick
@given(texts)
@example("a\\|b")
def test_a_cell_shows_its_text_and_nothing_else(text):
    for page in pages(markdown_table(["head"], [[text]])):
        assert page.tags <= TABLE
        assert words(page.text) == words(f"head {as_shown(text)}")


@quick
@given(texts)
def test_a_line_shows_its_text_and_nothing_else(text):
    for page in pages(f"so: {markdown_text(text)} end"):
        assert page.tags == {"p"}
        assert words(page.text) == words(f"so: {as_shown(text)} end")


@quick
@given(texts)
def test_code_stays_code(text):
    for page in pages(f"so:\n\n{markdown_block(text)}\n\nend {markdown_code('x' + text)}"):
        assert page.tags <= {"p", "pre", "code"}
        assert page.text.rstrip().split("\n")[-1].startswith("end x")


@quick
@given(st.text(), st.text())
@example("CON", "com7")
@example("", "\udc80")
@example("x" * 300, "猫" * 300)
def test_a_stem_is_a_name_on_every_disk(one, other):
    for text in (one, other):
        stem = file_stem(text)
        assert 0 < len(os.fsencode(f"{stem}_page.html")) < 128
        assert stem == Path(stem).name == stem.strip(". ")
        assert not set(stem) & set('<>:"/\\|?* #()')
        assert stem.casefold() not in {"con", "nul", "aux", "prn", "com7"}
    assert file_stem("two-stage_3") == "two-stage_3"


# --- the commands ---


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model and a data set of odd classes; the pictures' names are as odd as a disk allows."""
    home = tmp_path_factory.mktemp("odd")
    metadata = replace(load_pretrained("nano").metadata, names=ODD, category_ids=tuple(range(10)))
    assert isinstance(metadata, Metadata)
    save_pretrained(load_pretrained("nano"), home / "model", metadata=metadata)
    files = [f"{name.replace('/', '-')[:240]}.png" for name in ODD if "\ud83d" not in name]
    images, boxes = [], []
    for i, name in enumerate(files):
        save(home / "data/val" / name, (40, 56 + i), i)
        images.append({"id": i + 1, "file_name": name, "height": 40, "width": 56 + i})
        box = {"id": i + 1, "image_id": i + 1, "category_id": i, "bbox": [3 + i, 4, 20, 17]}
        boxes.append(box)
    categories = [{"id": i, "name": name} for i, name in enumerate(ODD)]
    tree = {"images": images, "annotations": boxes, "categories": categories}
    path = home / "data/annotations/instances_val.json"
    path.parent.mkdir()
    path.write_text(json.dumps(tree))
    return home


def obeyed(shown):
    """Characters of an output that a terminal would obey; a picture of a line is none."""
    return {c for c in shown.out + shown.err if not c.isprintable() and c not in "\r\n"}


def test_a_report_of_odd_names_is_complete_and_harmless(odd, tmp_path, capsys):
    given = ["--model", str(odd / "model"), "--data", str(odd / "data"), "--threshold", "0.05"]
    assert main(["eval", *given, "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert obeyed(capsys.readouterr()) == set()
    text = (tmp_path / "report.md").read_text(encoding="utf8")
    record = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in record["classes"]] == list(ODD)
    assert len(list((tmp_path / "worst").iterdir())) == len(record["worst"]) == 9
    for page in pages(text):
        assert page.tags <= TABLE | {"h1", "h2", "p", "img", "strong"}
        assert page.wrong == []
        for name in ODD:
            assert as_shown(name) in words(page.text)


def test_classes_detections_and_checks_send_no_codes_to_a_terminal(odd, tmp_path, capsys):
    model, pictures = str(odd / "model"), str(odd / "data/val")
    words = ["--threshold", "0.02", "--out", str(tmp_path), "--device", "cpu"]
    assert main(["classes", model]) == 0
    assert main(["detect", pictures, "--model", model, *words]) == 0
    main(["data", "check", str(odd / "data"), "--picture", str(tmp_path / "look.png")])
    assert obeyed(capsys.readouterr()) == set()
    with Image.open(tmp_path / "look.png") as picture:
        assert max(picture.size) < 3000
    assert main(["detect", pictures, "--model", model, "--json", *words]) == 0
    shown = capsys.readouterr()
    assert obeyed(shown) == set()
    assert json.loads(shown.out)["classes"] == list(ODD)
    main(["data", "check", str(odd / "data"), "--json"])
    shown = capsys.readouterr()
    assert shown.out.isascii()
    assert {row["name"] for row in json.loads(shown.out)[0]["classes"]} == set(ODD)


def test_the_explorer_of_odd_names_has_one_script_and_odd_text(odd, tmp_path):
    (picture, *_) = (odd / "data/val").glob("<*")
    page = tmp_path / "page.html"
    given = [str(picture), "--model", str(odd / "model"), "--out", str(page), "--device", "cpu"]
    assert main(["explore", *given]) == 0
    text = page.read_text(encoding="utf8")
    assert text.count("<script") == text.count("</script>") == 3
    assert Page(text).wrong == []


# --- reports of studies ---


def odd_journal(folder, name):
    """A shipped study that a stranger's journal might hold."""
    lines = [dict(line) for line in shipped("selection").lines]
    plan = shipped("selection").plan
    renamed = dict(zip([v["name"] for v in plan["variants"]], ODD, strict=False))
    again = json.dumps([{**plan, "name": name}, *[x for x in lines if x["kind"] != "plan"]])
    for before, after in renamed.items():
        again = again.replace(json.dumps(before), json.dumps(after))
    lines = json.loads(again)
    for variant in lines[0]["variants"]:
        variant["hypothesis"] = ODD[0] + ODD[2]
        variant["differences"] = [[ODD[3], ODD[1], ODD[0]]]
    row = next(x for x in lines if x["kind"] == "row")
    bad = "```\n</code></pre><script>alert(1)</script>\n\x1b[31m[a](javascript:b)"
    failed = {k: row[k] for k in ("variant", "run")} | {"kind": "failed", "traceback": bad}
    lines += [failed | {"seed": row["seed"]}]
    lines.remove(row)
    path = folder / "journal.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return report_of(Journal(path))


def test_a_study_of_odd_names_becomes_a_harmless_page_in_its_folder(tmp_path):
    report = odd_journal(tmp_path, "../../" + ODD[0])
    files = report.save(tmp_path / "a" / "report")
    assert {path.parent for path in files} == {tmp_path / "a" / "report"}
    assert len({path.name for path in files}) == len(files)
    page = next(p for p in files if p.name.endswith("_page.html")).read_text(encoding="utf8")
    shown = [*pages(files[0].read_text(encoding="utf8")), Page(page)]
    for one in shown:
        marks = {"h1", "h2", "p", "img", "strong", "ul", "li", "code", "pre"}
        assert one.tags <= TABLE | marks | {"html", "head", "body", "meta", "title", "style"}
        assert one.wrong == []
        assert as_shown(ODD[0]) in words(one.text)
        assert "</code></pre><script>" in one.text
        assert "\x1b" not in one.text
    for link in [p for p in files if p.suffix == ".png"]:
        assert f"]({link.name})" in files[0].read_text(encoding="utf8")


def test_a_study_has_the_name_of_one_folder(tmp_path):
    for name in ("", "..", "a/b", "../b"):
        with pytest.raises(ConfigError, match=r"name: .* is no name of a folder"):
            study(tmp_path, name=name)


def test_jobs_of_like_names_lie_in_files_of_their_own(tmp_path):
    names = ["a b", "a_b", "A_b", "cafe\u0301", "caf\u00e9", "n" * 250, "n" * 251, "../b", "\udc80"]
    (job,) = study(tmp_path, [], seeds=(0,)).jobs(16)
    jobs = [replace(job, variant=name) for name in names]
    files = [Errand.of(one, tmp_path, tmp_path).path for one in jobs]
    assert len({path.name.casefold() for path in files}) == len(names)
    assert {path.parent for path in files} == {tmp_path / "jobs"}


# --- model cards ---


def test_a_card_shows_class_names_as_text_and_a_licence_in_its_line(tmp_path):
    model = RTDetrForObjectDetection(RTDetrConfig(**SMALL | {"id2label": dict(enumerate(ODD[:4]))}))
    licence = "mine\ntags: [yours]\n\x1b[31m"
    model.lab.metadata = replace(model.lab.metadata, licence=licence)
    model.write_upload("me/odd", tmp_path)
    _, front, body = (tmp_path / "README.md").read_text(encoding="utf8").split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["license"] == licence
    assert told["tags"] == ["object-detection", "rt_detr"]
    for page in pages(body):
        assert page.wrong == []
        assert page.tags <= {"h1", "p", "pre", "code"}
        assert words(", ".join(map(as_shown, ODD[:4]))) in words(page.text)
