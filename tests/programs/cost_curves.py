"""Measure what a picture costs against batch, size, queries, layers and threads.

python tests/programs/cost_curves.py [PRESET [ROUNDS]]

It prints the rows of the table in `docs/results/performance.md`. Each row runs its values in
interleaved rounds in one precision; milliseconds are those of one picture.
"""

import sys
import time
from dataclasses import replace
from functools import partial

import torch

from rtdetr_lab.checkpoints.presets import preset_of
from rtdetr_lab.config import replace_at
from rtdetr_lab.deployment.backends import Plan, PyTorch
from rtdetr_lab.deployment.bench.subjects import Case
from rtdetr_lab.deployment.bench.timing import interleaved

PLAIN = {"size": 640, "batch": 1, "threads": 1, "queries": 300, "layers": 3}
ROWS = {
    "batch": (1, 4, 16),
    "threads": (1, 2),
    "size": (320, 480, 640, 800),
    "queries": (100, 300, 900),
    "layers": (1, 2, 3),
}


def subject(preset, dtype, size, batch, threads, queries, layers):
    """Return a function without arguments that answers for a batch."""
    cfg = preset_of(preset, option="PRESET")
    cfg = replace_at(cfg, "selection.num_queries", queries)
    cfg = replace(cfg, decoder=replace(cfg.decoder, inference_layers=layers))
    torch.manual_seed(0)
    plan = Plan((size, size), [batch], dtype, torch.device("cpu"))
    run = PyTorch().build(cfg.build().eval(), plan)
    images = Case(preset, (size, size), batch).images()
    images = images.to(dtype, memory_format=torch.channels_last)

    def answer():
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return run(images)

    return answer


def main(preset="r18", rounds=9):
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for what, values in ROWS.items():
            build = partial(subject, preset, dtype)
            some = {v: build(**PLAIN | {what: v}) for v in values}
            timed = interleaved(some, int(rounds), clock=time.perf_counter)
            count = {v: v if what == "batch" else 1 for v in values}
            each = [f"{1e3 * timed[v].median / count[v]:.1f} ({v})" for v in values]
            print(f"{preset} {name} {what}: {', '.join(each)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
