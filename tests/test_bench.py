"""The bench makes its tables in seconds where it is asked for little, and counts what it says."""

import json
import math

import pytest
import torch

from rtdetr_lab.cli import main
from rtdetr_lab.deployment.bench.nms import bench_nms, nms
from rtdetr_lab.deployment.bench.parts import PARTS, Part, split
from rtdetr_lab.deployment.bench.roofline import Ceilings, ceilings
from rtdetr_lab.deployment.bench.subjects import BASE, Case, chosen
from rtdetr_lab.deployment.bench.timing import Times, interleaved
from rtdetr_lab.errors import ConfigError

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
    assert set(throughput["training"]) == {BASE, "ours", "ours, bf16"}
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


def test_a_part_is_limited_by_its_work_or_by_its_bytes():
    top = Ceilings(flops=100.0, bytes=10.0)
    assert top.limit(Part(1.0, flops=100, bytes=1)) == 1.0
    assert top.limit(Part(1.0, flops=1, bytes=100)) == 10.0


def test_ceilings_are_measured():
    top = ceilings("cpu", torch.float32, side=128, rounds=2)
    assert top.flops > 1e8
    assert top.bytes > 1e7


def test_suppression_keeps_the_best_of_each_place():
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3], [0, 0, 1, 1]]).float()
    scores = torch.tensor([0.9, 0.8, 0.7, 0.1])
    assert nms(boxes, scores, 0.2, 0.5).tolist() == [0, 2]
    assert nms(boxes, scores, 0.2, 0.95).tolist() == [0, 1, 2]
    assert len(nms(boxes, scores, 0.95, 0.5)) == 0


def test_the_nms_bench_has_a_row_per_threshold_and_ours():
    rows = bench_nms((20,), (0.1, 0.5), (0.5,), rounds=1)
    assert len(rows) == 3
    assert "our top-k of 300 × 80" in rows


@pytest.mark.parametrize("bad", [["--model", "r17"], ["--against", "yolo"], ["--clock", "moon"]])
def test_what_it_does_not_know_is_named(bad, capsys):
    assert main([*TINY, *bad]) == 1
    assert bad[1] in capsys.readouterr().err


def test_every_peer_of_the_issue_can_be_asked_for():
    assert len(chosen(["transformers", "onnxruntime", "openvino", "compile"], "cpu")) >= 12
    with pytest.raises(ConfigError):
        chosen(["yolo"], "cpu")


@pytest.mark.full
@pytest.mark.parametrize("peer", ["onnxruntime", "openvino"])
def test_the_runtimes_run(peer, tmp_path):
    pytest.importorskip("openvino", reason="runs with the extra [export]")
    command = [*TINY, "--against", peer, "--no-parts", "--memory", "--out", str(tmp_path)]
    assert main(command) == 0
    peaks = json.loads((tmp_path / "bench.json").read_text())["results"][0]["peak_mb"]
    assert all(value > 0 for value in peaks.values())
