"""The bench makes its tables in seconds where it is asked for little, and counts what it says."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.boxes import iou
from rtdetr_lab.cli import main
from rtdetr_lab.commands.bench import Bench
from rtdetr_lab.deployment import fastest
from rtdetr_lab.deployment.bench import drifts, roofline
from rtdetr_lab.deployment.bench import nms as suppression
from rtdetr_lab.deployment.bench import parts as parts_of
from rtdetr_lab.deployment.bench.drifts import plain_drift
from rtdetr_lab.deployment.bench.nms import bench_nms, nms
from rtdetr_lab.deployment.bench.parts import PARTS, Part, seconds_of, split
from rtdetr_lab.deployment.bench.report import best_of_ours, latency_table
from rtdetr_lab.deployment.bench.roofline import Ceilings, ceilings
from rtdetr_lab.deployment.bench.spread import spread
from rtdetr_lab.deployment.bench.subjects import BASE, Case, chosen, model_of
from rtdetr_lab.deployment.bench.timing import Times, interleaved
from rtdetr_lab.deployment.form import deploy
from rtdetr_lab.deployment.precision import Drift
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.rtdetr import rtdetr_r18

TINY = ["bench", "--model", "nano", "--size", "128", "--rounds", "2"]


def test_rounds_are_interleaved_and_rotate():
    order, now = [], iter(range(1000))
    subjects = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = interleaved(subjects, 3, warm_up=0, clock=lambda: float(next(now)))
    assert order == list("abcbcacab")
    assert times["a"].rounds == (1.0, 1.0, 1.0)


def test_median_and_spread():
    assert Times((5.0, 1.0, 3.0)).median == 3.0
    assert math.isclose(Times((1.0, 2.0, 3.0, 4.0, 5.0)).spread, 1 / 3)
    assert Times((2.0,)).spread == 0.0


def test_the_command_writes_tables_record_and_picture(tmp_path, capsys):
    pytest.importorskip("transformers", reason="the peer; runs with the extra [dev]")
    assert main([*TINY, "--training", "--batch", "1", "2", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert BASE in said
    assert "| backbone |" in said
    record = json.loads((tmp_path / "bench.json").read_text())
    latency, throughput = record["results"]
    assert latency["case"]["batch"] == 1
    assert throughput["case"]["batch"] == 2
    assert {BASE, "ours fp32", "ours bf16"} <= set(latency["times"])
    steps = {BASE, f"{BASE}, autocast bf16", "ours", "ours, bf16"}
    assert set(throughput["training"]) == steps
    assert record["machine"]["versions"]["torch"] == torch.__version__
    assert (tmp_path / "roofline_nano_fp32.png").stat().st_size > 1000
    assert "ratio" in (tmp_path / "bench.md").read_text()


def test_parts_are_all_of_the_model_and_their_work_is_counted():
    from torch.utils.flop_counter import FlopCounterMode

    from rtdetr_lab.deployment.bench.subjects import model_of
    from rtdetr_lab.deployment.form import deploy, same

    case = Case("nano", (128, 128))
    parts = split(case, torch.float32, 1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        deploy(model_of("nano"), same)(case.images())
    assert sum(parts[p].flops for p in PARTS) == counter.get_total_flops()
    weights = sum(p.numel() * 4 for p in deploy(model_of("nano"), same).parameters())
    assert sum(parts[p].bytes for p in PARTS) > weights
    assert all(part.seconds > 0 for part in parts.values())


def test_parts_and_their_limits_are_read_from_the_clock_that_is_asked_for(monkeypatch):
    asked = []

    def measured(case, dtype, rounds, clock):
        asked.append(clock)
        return {}

    def highest(device, dtype, clock):
        asked.append(clock)
        return Ceilings(1e9, 1e9)

    monkeypatch.setattr(parts_of, "split", measured)
    monkeypatch.setattr(roofline, "ceilings", highest)
    Bench(clock="cpu")._parts(Case("nano"), [])
    assert asked == ["cpu"] * 4


def test_a_part_is_limited_by_its_work_or_by_its_bytes():
    """Eq. 17.1."""
    top = Ceilings(flops=100.0, bytes=10.0)
    assert top.limit(Part(1.0, flops=100, bytes=1)) == 1.0
    assert top.limit(Part(1.0, flops=1, bytes=100)) == 10.0


def test_ceilings_are_measured():
    top = ceilings("cpu", torch.float32, side=128, rounds=2)
    assert 0 < top.flops < float("inf")
    assert 0 < top.bytes < float("inf")


def test_suppression_keeps_the_best_of_each_place():
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3], [0, 0, 1, 1]]).float()
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.1]])
    assert nms(boxes, scores, 0.2, 0.5)[0].tolist() == [0, 2]
    assert nms(boxes, scores, 0.2, 0.95)[0].tolist() == [0, 1, 2]
    assert len(nms(boxes, scores, 0.95, 0.5)[0]) == 0
    assert nms(boxes, scores, 0.2, 0.95, most=2)[0].tolist() == [0, 1]
    assert nms(boxes, scores, 0.05, 0.95, most_pairs=1)[0].tolist() == [0]


def naive_nms(boxes, scores, confidence, max_iou):
    """As it is told: pair by pair, best first, in plain Python."""
    pairs = [(s, i, c) for i, row in enumerate(scores.tolist()) for c, s in enumerate(row)]
    kept = []
    for score, i, label in sorted(pairs, key=lambda pair: -pair[0]):
        rivals = [j for j, other in kept if other == label]
        if score > confidence and not (iou(boxes[[i]], boxes[rivals]) > max_iou).any():
            kept.append((i, label))
    return kept


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.data())
def test_suppression_in_blocks_is_the_loop_over_pairs(count, classes, max_iou, data):
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    corner = torch.randint(-3, 12, (count, 2), generator=rng)
    size = torch.randint(1, 9, (count, 2), generator=rng)
    boxes = torch.cat([corner, corner + size], 1).float()
    # Few different scores, so that ties occur: the first of equals wins.
    scores = torch.randint(0, 6, (count, classes), generator=rng) / 6
    row, label = nms(boxes, scores, 0.2, max_iou, most=10**6)
    found = list(zip(row.tolist(), label.tolist(), strict=True))
    assert found == naive_nms(boxes, scores, 0.2, max_iou)
    whole = suppression.greedy(boxes, max_iou, 10**6)
    assert torch.equal(suppression.greedy(boxes, max_iou, 10**6, block=3), whole)


def test_a_chain_of_boxes_is_settled_link_by_link():
    """0 removes 1, so that 2 stays, and removes 3."""
    boxes = torch.tensor([[i, 0.0, i + 2.0, 1.0] for i in range(6)])
    assert suppression.greedy(boxes, 0.3, 10).tolist() == [0, 2, 4]


def test_a_dense_answer_has_more_to_remove_the_lower_the_threshold():
    boxes, scores = suppression.dense_answer(500)
    above = [int((scores > confidence).sum()) for confidence in (0.001, 0.05, 0.25)]
    assert 500 > above[0] > above[1] > above[2] > 0
    assert len(nms(boxes, scores, 0.05, 0.5)[0]) < above[1] / 2


def test_the_nms_bench_has_a_row_per_threshold_and_ours():
    rows = bench_nms((20,), (0.1, 0.5), (0.5,), rounds=1)
    assert len(rows) == 3
    assert suppression.TOP_K in rows


def test_the_fastest_of_ours_in_each_precision_is_bold():
    seconds = {BASE: 3.0, "ours fp32": 2.0, "ours in OpenVINO fp32": 1.5, "ours bf16": 1.0}
    times = {name: Times((each,)) for name, each in seconds.items()}
    assert best_of_ours(times) == {"fp32": "ours in OpenVINO fp32"}, "bf16 has one, and no rival"
    table = latency_table(times, 4, {})
    assert [row for row in table.splitlines() if "**" in row] == [
        "| **ours in OpenVINO fp32** | 1500.00 | 0% | 0.50 | 2.7 | – |"
    ]


def test_the_command_says_what_bfloat16_changes(tmp_path, capsys, monkeypatch):
    torch_only = [c for c in fastest.offered("cpu", [torch.bfloat16]) if "PyTorch" in c.name]
    monkeypatch.setattr(drifts, "offered", lambda *_: torch_only)
    command = [*TINY, "--against", "", "--no-parts", "--precision", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "| found in fp32 |" in capsys.readouterr().out
    record = json.loads((tmp_path / "bench.json").read_text())["results"][0]["precision"]
    assert record["PyTorch bf16"]["pictures"] == 2


def test_the_record_holds_the_largest_changes():
    shifts, changes = torch.tensor([3.0, 0.5]), torch.tensor([0.125, 0.25])
    found = plain_drift(Drift(1, 0.5, 2, 0, 0, 0, 0, 1, shifts, changes))
    assert (found["max_shift_px"], found["max_score_change"]) == (3.0, 0.25)
    assert (found["kept"], found["relabelled"]) == (2, 1)


@torch.no_grad()
def test_spread_weights_find_some_things_and_not_everything():
    torch.manual_seed(0)
    model = spread(rtdetr_r18().build())
    images = torch.rand(2, 3, 128, 128)
    scores = model(images).logits.sigmoid()
    assert 5 < (scores > 0.5).sum() < 600
    assert (scores > 0.5).any(1).sum() > 10, "of many classes"
    boxes = model(images).boxes
    assert boxes.std((0, 1)).min() > 0.02
    assert (boxes[0] - boxes[1]).abs().max() > 0.1, "it looks at the picture"


def test_parts_of_the_training_form_are_timed_too():
    images = torch.rand(1, 3, 128, 128)
    for model in (model_of("nano"), deploy(model_of("nano"))):
        taken = seconds_of(model, images, 1)
        assert tuple(taken) == PARTS
        assert all(seconds > 0 for seconds in taken.values())
        assert not any(m._forward_hooks for m in model.modules()), "no clock is left behind"


def test_a_part_of_two_modules_takes_the_seconds_of_both():
    clock = itertools.count(0.0).__next__  # goes on by one with every question
    taken = seconds_of(model_of("nano"), torch.rand(1, 3, 128, 128), 1, clock)
    assert taken == {part: 2.0 if part == "proposals" else 1.0 for part in PARTS}


@pytest.mark.parametrize(
    "bad", [["--model", "r17"], ["--model", "detr_r50"], ["--against", "yolo"], ["--clock", "moon"]]
)
def test_what_it_does_not_know_is_named(bad, capsys):
    assert main([*TINY, *bad]) == 1
    assert bad[1] in capsys.readouterr().err


def test_every_peer_of_the_issue_can_be_asked_for():
    assert len(chosen("transformers,onnxruntime,openvino,compile", "cpu")) >= 12
    with pytest.raises(ConfigError):
        chosen("yolo", "cpu")


@pytest.mark.full
@pytest.mark.parametrize("peer", ["onnxruntime", "openvino"])
def test_the_runtimes_run(peer, tmp_path):
    pytest.importorskip("openvino", reason="runs with the extra [export]")
    command = [*TINY, "--against", peer, "--no-parts", "--memory", "--out", str(tmp_path)]
    assert main(command) == 0
    peaks = json.loads((tmp_path / "bench.json").read_text())["results"][0]["peak_mb"]
    assert all(value > 0 for value in peaks.values())
