"""The checkpoint inside the package: it is what its record says, and it really detects."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_lab import load_pretrained
from rtdetr_lab.boxes import iou
from rtdetr_lab.checkpoints import source
from rtdetr_lab.config_json import to_json
from rtdetr_lab.data.shapes import DEFAULT, SHAPE_NAMES, VAL, draw
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.training import TrainConfig, ship
from rtdetr_lab.training.ship import LICENCE, _record, _rounded, validation

ASSETS = source.ASSETS
RECORD = json.loads((ASSETS / "nano.json").read_text(encoding="utf8"))


@pytest.fixture(scope="module")
def nano():
    return load_pretrained("nano")


def test_the_record_says_what_was_trained_how_and_under_which_licence(nano):
    assert RECORD["licence"] == LICENCE == nano.metadata.licence
    assert RECORD["command"].startswith("rtdetr-lab train --preset nano --data shapes")
    assert RECORD["pictures_seen"] > 0
    assert RECORD["curves"]["loss"][-1] < RECORD["curves"]["loss"][0] / 2
    assert nano.metadata.names == SHAPE_NAMES
    assert (ASSETS / "nano.safetensors").stat().st_size < 8e6


def test_the_record_has_the_command_that_was_typed_and_the_day(tmp_path):
    typed = ["/bin/rtdetr-lab", "train", "--out", "my runs/7", "--pictures", "700"]
    began = {"command": typed, "date": "2026-03-02T23:59:00+00:00", "torch": "2.11.0"}
    later = {"command": ["again"], "date": "2026-03-03", "torch": "2.12.0"}
    (tmp_path / "run.json").write_text(json.dumps({"sessions": [began, later]}))
    (tmp_path / "metrics.jsonl").write_text('{"seconds": 7200, "loss": 2.5, "pictures": 700}\n')
    state = {"cfg": to_json(rtdetr_nano(3)), "config": to_json(TrainConfig()), "step": 44}
    record = ship._record(tmp_path, state, 256, "nano")
    assert record["command"] == "rtdetr-lab train --out 'my runs/7' --pictures 700"
    assert (record["date"], record["torch"], record["hours"]) == ("2026-03-02", "2.11.0", 2.0)
    assert record["pictures_seen"] == 44 * TrainConfig().batch_size


def test_the_floor_of_what_a_shipped_detector_must_reach():
    assert RECORD["metrics"]["AP"] >= 0.50
    assert RECORD["metrics"]["AP50"] >= 0.75


def test_the_recorded_numbers_come_out_again(nano):
    world = RECORD["validation"]
    data = validation(world["world"]["size"], world["count"])
    scores = evaluate(nano, data)
    assert scores["AP"] == pytest.approx(RECORD["metrics"]["AP"], abs=0.002)
    assert scores["AP50"] == pytest.approx(RECORD["metrics"]["AP50"], abs=0.002)


def test_the_numbers_are_those_of_rounded_weights_after_so_many_pictures(tmp_path):
    model = rtdetr_nano(3).build()
    state = {"cfg": to_json(model.cfg), "ema": model.state_dict(), "step": 7}
    state["config"] = to_json(TrainConfig(num_pictures=40, batch_size=4))
    rounded = _rounded(state)
    assert {p.dtype for p in rounded.parameters()} == {torch.half}
    assert not rounded.training
    line = {"seconds": 5400, "pictures": 28, "loss": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line), encoding="utf8")
    began = {"command": ["rtdetr-lab"], "date": "2026-03-02", "torch": "2.11.0"}
    (tmp_path / "run.json").write_text(json.dumps({"sessions": [began]}), encoding="utf8")
    record = _record(tmp_path, state, 256, "nano")
    assert (record["pictures_seen"], record["hours"]) == (28, 1.5)


def test_a_nano_that_draws_is_nano_bit_for_bit_and_its_masks_fit(nano):
    pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")
    drawing = load_pretrained("nano-seg")
    known, record = drawing.state_dict(), json.loads((ASSETS / "nano-seg.json").read_text())
    assert all(torch.equal(tensor, known[name]) for name, tensor in nano.state_dict().items())
    assert drawing.metadata.names == SHAPE_NAMES
    assert record["command"].startswith("rtdetr-lab train --model nano --masks")
    assert record["metrics"]["AP"] == pytest.approx(RECORD["metrics"]["AP"], abs=0.002)
    assert record["metrics"]["mask_AP"] > 0.45
    assert evaluate(drawing, validation(256, 12, masks=True))["mask_AP50"] > 0.7
    assert sum(f.stat().st_size for f in ASSETS.glob("nano*.safetensors")) < 8e6


def test_it_finds_most_of_the_large_things_in_the_sample_picture(nano):
    truth = draw(DEFAULT, VAL, 8)
    sample = np.asarray(Image.open(ASSETS / "shapes.png"))
    assert np.array_equal(sample, truth.image)
    found = Detector(nano, threshold=0.3)(sample)
    large = torch.from_numpy(truth.boxes_xyxy[truth.areas > 32**2])
    labels = torch.from_numpy(truth.labels[truth.areas > 32**2])
    overlap = iou(large, torch.as_tensor(found.boxes_xyxy))
    right = (overlap > 0.5) & (labels[:, None] == torch.as_tensor(found.labels)[None])
    assert right.any(1).float().mean() >= 0.75


def test_a_tampered_checkpoint_is_refused(tmp_path, monkeypatch):
    for name in ("nano.safetensors", "nano.json"):
        shutil.copy(ASSETS / name, tmp_path)
    content = bytearray((tmp_path / "nano.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "nano.safetensors").write_bytes(content)
    monkeypatch.setattr(source, "ASSETS", tmp_path)
    with pytest.raises(CheckpointError, match=r"nano\.safetensors"):
        load_pretrained("nano")


def test_nano_can_be_handed_to_transformers(nano, tmp_path):
    transformers = pytest.importorskip("transformers")
    from rtdetr_lab import save_pretrained

    save_pretrained(nano, tmp_path, layout="transformers")
    theirs, report = transformers.RTDetrForObjectDetection.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    images = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        wanted, got = theirs.eval()(images), nano(images)
    torch.testing.assert_close(got.logits, wanted.logits, atol=2e-4, rtol=0)
    torch.testing.assert_close(got.boxes, wanted.pred_boxes, atol=2e-4, rtol=0)
