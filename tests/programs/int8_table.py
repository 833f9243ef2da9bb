"""Measure nano in eight bits: AP, size of the file, and processor time of one thread.

python tests/programs/int8_table.py [PICTURES [ROUNDS]]

It prints the rows of the table in `docs/results/performance.md`. It needs the extra [int8].
"""

import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import openvino
import torch

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.commands.sets import world
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesDataset, draw
from rtdetr_lab.deployment import int8
from rtdetr_lab.deployment.backends import OnnxRuntime, OpenVINO
from rtdetr_lab.deployment.bench.timing import interleaved
from rtdetr_lab.deployment.onnx_file import onnx_bytes
from rtdetr_lab.evaluation.evaluate import evaluate

SIZE, CALIBRATION = (256, 256), 100


def files():
    """Return name → (backend, file): float32, eight bits up to the top-k, and everything."""
    plain = onnx_bytes(load_pretrained("nano"), SIZE)
    given = [np.asarray(draw(world(256), TRAIN, i).image) for i in range(CALIBRATION)]
    found = {"float32": (plain, plain)}
    found["int8"] = int8.onnx_int8(plain, given, SIZE), int8.openvino_int8(plain, given, SIZE)
    with mock.patch.object(int8, "after_selection", return_value=[]):
        everything = int8.onnx_int8(plain, given, SIZE), int8.openvino_int8(plain, given, SIZE)
    return found | {"everything in int8": everything}


def megabytes(file):
    if isinstance(file, bytes):
        return len(file) / 1e6
    with TemporaryDirectory() as folder:
        openvino.save_model(file, f"{folder}/m.xml", compress_to_fp16=False)
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6


def main(pictures=200, rounds=41):
    torch.set_num_threads(1)
    model, data = load_pretrained("nano"), ShapesDataset(world(256), VAL, pictures)
    runs, sizes = {}, {}
    for name, (for_onnx, for_openvino) in files().items():
        runs[f"{name}, onnxruntime"] = OnnxRuntime(1).load(for_onnx)
        runs[f"{name}, OpenVINO"] = OpenVINO(1).load(for_openvino)
        runs[f"{name} and bfloat16, OpenVINO"] = OpenVINO(1).load(for_openvino, torch.bfloat16)
        for key in list(runs)[-3:]:
            sizes[key] = megabytes(for_onnx if "onnxruntime" in key else for_openvino)
    image = torch.rand(1, 3, *SIZE)
    tried = {name: partial(run, image) for name, run in runs.items()}
    timed = interleaved(tried, rounds, 3, clock=time.process_time)
    base = timed["float32, onnxruntime"].rounds
    for name, run in runs.items():
        ratio = median(a / b for a, b in zip(timed[name].rounds, base, strict=True))
        score = evaluate(int8.Ran(model, run), data).AP
        print(f"| {name} | {score:.3f} | {sizes[name]:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
