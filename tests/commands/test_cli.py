"""`rtdetr-lab`: results on stdout and in files, trouble in one line on stderr, exit codes 0 1 2."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image

from rtdetr_lab.cli import COMMANDS, main
from rtdetr_lab.commands.wanted import Wanted


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a small seeded model whose scores and boxes are spread widely."""
    from rtdetr_lab.checkpoints.metadata import Metadata
    from rtdetr_lab.checkpoints.save import save_pretrained
    from rtdetr_lab.rtdetr import rtdetr_nano

    torch.manual_seed(3)
    net = rtdetr_nano(num_classes=3).build().eval()
    scores = net.decoder.class_heads[-1]
    with torch.no_grad():
        for head in net.decoder.box_heads:
            head.layers[-1].weight.normal_(std=0.2)
        scores.weight.normal_()
        logits = net(torch.rand(1, 3, 96, 96)).logits[0]
        scores.weight /= logits.std(0, keepdim=True).T
        scores.bias.copy_((scores.bias - logits.mean(0)) / logits.std(0))
    known = Metadata(("stone", "grass", "two words"), (3, 7, 9), (96, 96), "CC0-1.0")
    return str(save_pretrained(net, tmp_path_factory.mktemp("model"), metadata=known))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with three pictures, one of them deeper; it is also the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("photos/1.png", "photos/2.jpg", "photos/deeper/17.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(name)
    Path("photos/notes.txt").write_text("no picture")
    return tmp_path


def detect(model, *words):
    return main(["detect", *map(str, words), "--model", model, "--device", "cpu"])


def results():
    return json.loads(Path("out/detections.json").read_text(encoding="utf8"))


# --- detect --------------------------------------------------------------------------------------


def test_a_folder_is_detected_annotated_and_written_down(model, photos, capsys):
    assert detect(model, "photos") == 0
    tree = results()
    assert [row["image"] for row in tree["images"]] == [
        "photos/1.png",
        "photos/2.jpg",
        "photos/deeper/17.png",
    ]
    assert tree["classes"] == ["stone", "grass", "two words"]
    assert tree["unread"] == []
    for row in tree["images"]:
        assert Image.open(row["annotated"]).size == (70, 50)
        assert row["detections"]
        assert all(d["score"] > 0.5 for d in row["detections"])
    out = capsys.readouterr().out
    assert "has 3 classes: stone, grass, two words" in out
    assert "licence of its weights: CC0-1.0" in out
    assert "photos/1.png: " in out
    assert "3 done, 0 not read" in out


def test_the_command_line_and_the_library_say_the_same(model, photos):
    from rtdetr_lab.detector import Detector

    detect(model, "photos/1.png", "--threshold", "0.7", "--no-pictures")
    found = Detector.from_pretrained(model, "cpu", threshold=0.7)("photos/1.png")
    row = results()["images"][0]
    assert row == found.to_json()
    assert "annotated" not in row
    assert sorted(os.listdir("out")) == [".lock", "detections.json"]


def names_and_scores():
    rows = [d for image in results()["images"] for d in image["detections"]]
    return [(row["name"], row["score"]) for row in rows]


def test_every_class_may_have_its_own_threshold_and_classes_may_be_left_out(model, photos):
    detect(model, "photos", "--threshold", "0", "--no-pictures")
    everything = names_and_scores()
    cut = sorted(score for name, score in everything if name == "two words")[2]
    words = ("--threshold", f"two words={cut}, stone=0.99", "--no-pictures")
    least = {"two words": cut, "stone": 0.99, "grass": 0.5}
    wanted = [(name, score) for name, score in everything if score > least[name]]
    detect(model, "photos", *words)
    assert names_and_scores() == wanted != everything
    detect(model, "photos", *words, "--only", "grass,two words")
    assert names_and_scores() == [one for one in wanted if one[0] != "stone"]


def test_a_class_that_is_not_named_keeps_the_usual_threshold():
    from rtdetr_lab.detections import Classes, Detections
    from rtdetr_lab.images.frames import Frame

    labels, scores = torch.tensor([0, 1, 0, 1]), torch.tensor([0.6, 0.45, 0.4, 0.2])
    about = {"frame": Frame((30, 40)), "classes": Classes(("stone", "grass"))}
    found = Detections(torch.ones(4, 4), scores, labels, torch.arange(4), **about)
    wanted = Wanted.read("grass=0.25", None)
    assert wanted.threshold == 0.25
    assert wanted.of(found).queries.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "2"], "--threshold: '2' is not a score"),
        (["--threshold", "stone=high"], "--threshold: 'high' is not a score"),
        (["--threshold", "gras=0.4"], "class: 'gras' is unknown; nearest: grass"),
        (["--only", "stones"], "class: 'stones' is unknown; nearest: stone"),
        (["--threshold", "auto"], "threshold: is auto, but the model stores no threshold"),
    ],
)
def test_an_odd_threshold_or_class_is_refused(model, photos, capsys, words, said):
    assert detect(model, "photos", *words) == 1
    assert said in capsys.readouterr().err
    assert not Path("out/detections.json").exists()


def test_auto_is_the_threshold_that_is_stored_with_the_model(model, photos, capsys, tmp_path):
    from rtdetr_lab.checkpoints.load import load_pretrained
    from rtdetr_lab.checkpoints.save import save_pretrained

    trained = load_pretrained(model)
    trained.metadata = replace(trained.metadata, threshold=0.62)
    save_pretrained(trained, tmp_path / "trained")
    detect(model, "photos", "--threshold", "0.62", "--no-pictures")
    wanted = names_and_scores()
    assert detect(str(tmp_path / "trained"), "photos", "--threshold", "auto", "--no-pictures") == 0
    assert names_and_scores() == wanted
    assert results()["threshold"] == 0.62
    assert "its validation recommends the threshold 0.62 (used)" in capsys.readouterr().out


def test_json_is_all_there_is_on_stdout(model, photos, capsys):
    assert detect(model, "photos/1.png", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == results()
    assert "has 3 classes" in printed.err


def test_coco_results_carry_category_ids_and_image_ids_from_names(model, photos):
    detect(model, "photos", "--coco", "deep/results.json", "--threshold", "0")
    rows = json.loads(Path("deep/results.json").read_text())
    assert {r["image_id"] for r in rows} == {1, 2, 17}
    assert {r["category_id"] for r in rows} <= {3, 7, 9}
    assert len(rows) == 300
    assert all(len(r["bbox"]) == 4 for r in rows)


def test_coco_image_ids_can_be_looked_up(model, photos, capsys):
    images = [{"id": 500 + i, "file_name": f"photos/{n}"} for i, n in enumerate(("1.png", "2.jpg"))]
    Path("val.json").write_text(json.dumps({"images": images}))
    options = ["--coco", "r.json", "--annotations", "val.json"]
    assert detect(model, "photos/1.png", "photos/2.jpg", *options) == 0
    assert {r["image_id"] for r in json.loads(Path("r.json").read_text())} == {500, 501}
    assert detect(model, "photos", *options) == 1
    assert "does not list photos/deeper/17.png" in capsys.readouterr().err
    Path("val.json").write_text("[]")
    assert detect(model, "photos", *options) == 1
    assert "no COCO annotation file" in capsys.readouterr().err


def test_globs_files_and_folders_give_each_picture_once(model, photos):
    assert detect(model, "photos/*.png", "photos/1.png", "photos", "photos/**/*.png") == 0
    assert len(results()["images"]) == 3
    Path("photos/a[1].png").write_bytes(Path("photos/1.png").read_bytes())
    assert detect(model, "photos/a[1].png") == 0
    assert results()["images"][0]["image"] == "photos/a[1].png"


def test_limit_stops_early(model, photos):
    assert detect(model, "photos", "--limit", "2") == 0
    assert len(results()["images"]) == 2


def test_our_own_results_are_no_input_the_second_time(model, photos):
    for _ in range(2):
        assert detect(model, "photos", "--out", "photos/out") == 0
        tree = json.loads(Path("photos/out/detections.json").read_text())
        assert len(tree["images"]) == 3


def test_two_pictures_of_the_same_name_keep_their_results_apart(model, photos):
    Path("photos/deeper/1.png").write_bytes(Path("photos/1.png").read_bytes())
    detect(model, "photos")
    annotated = [row["annotated"] for row in results()["images"]]
    assert len(set(annotated)) == 4
    assert all(Path(p).is_file() for p in annotated)


def test_batches_and_sizes_are_options_that_work(model, photos):
    seen = []
    for options in (["--batch-size", "1"], ["--batch-size", "3"], ["--size", "96x96"]):
        assert detect(model, "photos", *options) == 0
        rows = [d for row in results()["images"] for d in row["detections"]]
        seen.append(sorted(d["score"] for d in rows))
    assert len(seen[0]) > 100
    assert seen[1] == pytest.approx(seen[0], abs=1e-3)
    assert seen[2] == pytest.approx(seen[0], abs=1e-3)


def test_tiles_and_duplicate_removal_are_options_that_work(model, photos):
    detect(model, "photos/1.png", "--threshold", "0.6")
    plain = results()["images"][0]["detections"]
    detect(model, "photos/1.png", "--threshold", "0.6", "--max-iou", "0.1")
    assert 0 < len(results()["images"][0]["detections"]) < len(plain)
    detect(model, "photos/1.png", "--threshold", "0.6", "--tile", "40")
    assert results()["images"][0]["detections"] != plain


@pytest.mark.parametrize(("batch", "bar"), [("1", True), ("8", False)])
def test_only_long_work_on_a_terminal_shows_a_bar(model, photos, capsys, monkeypatch, batch, bar):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert detect(model, "photos", "--batch-size", batch) == 0
    assert ("3/3" in capsys.readouterr().err) is bar


# --- what goes wrong -----------------------------------------------------------------------------


def test_one_unreadable_picture_is_named_the_rest_done_and_the_exit_code_is_1(
    model, photos, capsys
):
    Path("photos/0.jpg").write_bytes(b"\xff\xd8\xff nothing")
    assert detect(model, "photos", "nowhere.png") == 1
    tree = results()
    assert len(tree["images"]) == 3
    assert [row["image"] for row in tree["unread"]] == ["photos/0.jpg", "nowhere.png"]
    complaints = [x for x in capsys.readouterr().err.splitlines() if x.startswith("rtdetr-lab:")]
    assert len(complaints) == 2
    assert "photos/0.jpg" in complaints[0]
    assert "nowhere.png: does not exist" in complaints[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photos/*.bmp"], "matches no file"),
        (["empty"], "holds no picture"),
        (["photos", "--model", "r19"], "nearest: r18"),
        (["photos", "--model", "nowhere/"], "nowhere"),
        (["photos", "--threshold", "7"], "not a score"),
        (["photos", "--size", "0x96"], "not a size"),
        (["photos", "--tile", "3"], "too small"),
        (["photos", "--batch-size", "0"], "batch_size"),
        (["photos", "--limit", "0"], "limit"),
        (["photos", "--device", "warp"], "warp cannot be used"),
        (["photos", "--out", "photos/notes.txt"], "notes.txt"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_1(model, photos, capsys, words, says):
    Path("empty").mkdir()
    given = words if "--model" in words else [*words, "--model", model]
    given = given if "--device" in words else [*given, "--device", "cpu"]
    assert main(["detect", *given]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert says in errors[-1]
    assert errors[-1].startswith("rtdetr-lab: ")
    assert not any("Traceback" in line for line in errors)


@pytest.mark.parametrize("verb", [["explore"], ["demo"]])
def test_a_result_that_cannot_be_written_is_one_line_with_a_remedy(photos, capsys, verb):
    Path("taken").write_text("a file")
    assert main([*verb, "--out", "taken/here"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"rtdetr-lab: taken/here: cannot be written: .+; make room, or give another place", last
    )


def test_debug_shows_where_it_comes_from(photos):
    from rtdetr_lab.errors import UnknownModelError

    with pytest.raises(UnknownModelError):
        main(["detect", "photos", "--model", "r19", "--debug"])


def test_a_file_name_cannot_break_the_line(model, photos, capsys):
    assert detect(model, "two\nlines.png") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("rtdetr-lab: two\\nlines.png: does not exist")


@pytest.mark.parametrize(
    "words", [["fly"], ["detect", "x.png", "--thresold", "1"], ["verify", "r18", "r34"]]
)
def test_usage_errors_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2


def test_detecting_nothing_is_a_usage_error(capsys):
    assert main(["detect"]) == 2
    assert "no picture given" in capsys.readouterr().err


# --- the other verbs -----------------------------------------------------------------------------


def test_classes_lists_label_category_and_name(model, capsys):
    assert main(["classes", model]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split(maxsplit=2) == ["2", "9", "two words"]
    assert main(["classes", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"label": 0, "category_id": 3, "name": "stone"}


def test_demo_shows_shapes_and_says_what_nano_cannot_do(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "o")]) == 0
    out = capsys.readouterr().out
    assert "shapes.png (320 × 320)" in out
    assert "nothing but shapes" in out
    assert "--model r18" in out
    assert Image.open(tmp_path / "o" / "demo_shapes.png").size == (320, 320)
    assert Image.open(tmp_path / "o" / "demo_photo.png").size == (451, 300)


def test_verify_agrees_or_names_what_does_not(tmp_path, capsys):
    pytest.importorskip("transformers")
    picture = tmp_path / "grey.png"
    Image.new("L", (30, 30), 99).save(picture)
    assert main(["verify", "nano", "--image", str(picture)]) == 0
    assert "agrees" in capsys.readouterr().out
    assert main(["verify", "nano", "--image", str(tmp_path / "no.png")]) == 1
    assert "no.png: does not exist" in capsys.readouterr().err


def test_help_imports_no_torch_and_is_quick_for_that():
    code = "import sys; from rtdetr_lab.cli import main\n"
    code += "try: main(['detect', '--help'])\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
    code += "sys.exit(f'imported {heavy}' if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--threshold" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["classes", "nano"], ["train", "--help"]])
def test_a_reader_that_stops_early_is_no_error(words):
    command = [sys.executable, "-m", "rtdetr_lab", *words]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_breaks_elsewhere_is_an_error(monkeypatch, capsys):
    def broken(self):
        raise BrokenPipeError("a worker is gone")

    monkeypatch.setattr("rtdetr_lab.commands.classes.Classes.run", broken)
    assert main(["classes", "nano"]) == 1
    assert "a worker is gone" in capsys.readouterr().err


def test_every_verb_is_in_the_help_and_explains_its_options(capsys):
    for verb in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert "--debug" in capsys.readouterr().out


def test_the_module_can_be_run():
    command = [sys.executable, "-m", "rtdetr_lab", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.strip()
