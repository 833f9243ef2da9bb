"""An exported file is a model: it detects what the checkpoint detects, and says what it is."""

import subprocess
from dataclasses import replace

import pytest
import torch

from rtdetr_lab.cli import main
from rtdetr_lab.commands.export import trtexec_line
from rtdetr_lab.deployment.onnx_file import export_onnx, facts_of, written
from rtdetr_lab.deployment.onnx_model import load_onnx
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.model import by_softmax

pytest.importorskip("onnxscript", reason="torch's exporter needs it; runs with the extra [export]")
pytest.importorskip("onnxruntime", reason="runs the file; comes with the extra [export]")
SIZE = (96, 64)


@pytest.fixture(scope="module")
def file(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    path.write_bytes(plain)
    return path


def test_a_detector_of_the_file_finds_what_the_model_finds(model, file):
    picture = torch.randint(0, 256, (3, 75, 110), dtype=torch.uint8)
    ours = Detector(model, threshold=0)(picture)
    found = Detector.from_pretrained(file, threshold=0)(picture)
    assert len(found) == len(ours) > 0
    torch.testing.assert_close(found.scores, ours.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes_xyxy[0], ours.boxes_xyxy[0], atol=1e-2, rtol=0)
    assert found.names[0] == ours.names[0]
    assert found.classes.category_ids == (7, 2, 5)


def test_the_file_holds_all_that_a_detector_needs(model, file):
    detector = Detector.from_pretrained(file, threshold="auto")
    assert detector.threshold == 0.3
    assert detector.preprocess.size == SIZE
    assert replace(detector.model.metadata, source=None) == model.metadata
    assert detector.model.num_classes == 3


def test_a_softmax_is_kept(model, file, tmp_path, monkeypatch):
    import onnx

    monkeypatch.setattr(model, "rank", by_softmax, raising=False)
    proto = onnx.load(file)
    onnx.helper.set_model_props(proto, facts_of(model, SIZE))
    onnx.save(proto, tmp_path / "m.onnx")
    loaded = load_onnx(tmp_path / "m.onnx")
    assert loaded.rank is by_softmax
    assert loaded.num_classes == 2  # the last column is "nothing"


def test_a_file_of_one_size_takes_no_other(file):
    with pytest.raises(ConfigError, match=r"\(64, 64\) in a file of \(96, 64\)"):
        load_onnx(file)(torch.zeros(1, 3, 64, 64))


def test_a_file_for_any_size_says_which_size_was_trained(model, file, tmp_path):
    import onnx

    proto = onnx.load(file)
    onnx.helper.set_model_props(proto, facts_of(model, None))
    onnx.save(proto, tmp_path / "m.onnx")
    loaded = load_onnx(tmp_path / "m.onnx")
    assert (loaded.fixed, loaded.metadata.image_size) == (None, SIZE)


@pytest.mark.full
def test_a_file_for_any_size_detects_at_the_size_that_was_trained(model, tmp_path):
    free = export_onnx(model, tmp_path / "free.onnx", None)
    picture = torch.randint(0, 256, (3, 75, 110), dtype=torch.uint8)
    detector = Detector.from_pretrained(free, threshold=0)
    assert detector.preprocess.size == SIZE
    wanted = Detector(model, threshold=0)(picture).scores
    torch.testing.assert_close(detector(picture).scores, wanted, atol=1e-5, rtol=0)
    assert load_onnx(free)(torch.zeros(2, 3, 32, 64)).logits.shape[0] == 2
    with pytest.raises(ConfigError, match=r"size: \(33, 64\) cannot be computed: .*32 divides"):
        load_onnx(free)(torch.zeros(1, 3, 33, 64))


def test_what_an_onnx_file_cannot_take_is_refused(file):
    with pytest.raises(ConfigError, match="num_classes: is not for an ONNX file"):
        Detector.from_pretrained(file, num_classes=3)
    with pytest.raises(ConfigError, match="revision: is not for an ONNX file"):
        Detector.from_pretrained(file, revision="main")


@pytest.mark.parametrize("words", [["eval", "{}"], ["detect", "picture.png", "--model", "{}"]])
def test_it_runs_on_the_cpu_and_says_so(file, capsys, words):
    assert main([*(word.format(file) for word in words), "--device", "cuda:1"]) == 1
    said = "--device: is cuda:1, but an ONNX file runs on the CPU here; leave it out"
    assert said in capsys.readouterr().err


def test_in_python_too_and_a_gpu_is_not_asked_for_it(file, monkeypatch):
    with pytest.raises(ConfigError, match="device: is cuda, but an ONNX file runs on the CPU"):
        Detector.from_pretrained(file, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for given in (None, "cpu", torch.device("cpu", 0)):
        assert Detector.from_pretrained(file, device=given).model.metadata.names


def test_files_that_are_not_ours_are_named(tmp_path):
    other, broken = tmp_path / "other.onnx", tmp_path / "broken.onnx"
    other.write_bytes(written(torch.nn.Linear(2, 3), (torch.zeros(1, 2),), ["x"], ["y"]))
    broken.write_bytes(b"\x08\n\x12\x07pytorch")
    with pytest.raises(CheckpointError, match=r"other.onnx.*exported.*rtdetr-lab export"):
        load_onnx(other)
    for path in (broken, tmp_path / "missing.onnx"):
        with pytest.raises(CheckpointError, match=rf"{path.name}: cannot be read"):
            load_onnx(path)


def test_training_from_a_file_is_refused(file, capsys):
    assert main(["export", str(file)]) == 1
    assert "is an ONNX file" in capsys.readouterr().err


def test_detect_takes_the_file(file, tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (70, 50)).save(tmp_path / "a.png")
    words = ["detect", str(tmp_path / "a.png"), "--model", str(file), "--out", str(tmp_path / "o")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "3 classes: owl, fox, elk" in said
    assert "CC-BY-4.0" in said


def test_the_engine_line_is_printed_and_run_where_trtexec_is(tmp_path, monkeypatch, capsys):
    line = trtexec_line(tmp_path / "m.onnx", (96, 64), with_sizes=True)
    assert line[-1] == "--maxShapes=images:8x3x96x64,sizes:8x2"
    words = ["export", "nano", "--out", str(tmp_path / "n.onnx"), "--engine"]
    monkeypatch.setattr("rtdetr_lab.deployment.onnx_file.onnx_bytes", lambda *a, **k: b"onnx")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(words) == 0
    assert "run the line where it is" in capsys.readouterr().out
    ran = []
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    answer = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr("subprocess.run", lambda line, check: ran.append(line) or answer)
    assert main(words) == 1
    assert ran == [trtexec_line(tmp_path / "n.onnx", (256, 256))]
