"""# Speed: latency, throughput, parts and training steps, against transformers

A row is a comparison: its subjects run in turn, in one process. Compiled models have rows of their
own, because the compiler needs a minute for each; ours run beside them again.
"""

import traceback
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from rtdetr_lab.deployment.backends import PyTorch
from rtdetr_lab.deployment.bench.gpu.record import Row, Skipped, Task
from rtdetr_lab.deployment.bench.parts import split
from rtdetr_lab.deployment.bench.report import plain
from rtdetr_lab.deployment.bench.roofline import ceilings
from rtdetr_lab.deployment.bench.subjects import BASE, Build, Case, eager, ours
from rtdetr_lab.deployment.bench.timing import CLOCKS, Subject, interleaved
from rtdetr_lab.deployment.bench.training import bench_training
from rtdetr_lab.deployment.fastest import NAMES

BF16, FP16 = torch.bfloat16, torch.float16
CASES = [(preset, batch) for batch in (1, 32, 8) for preset in ("r18", "r50", "r101")]
COMPILED = [("r18", 1, BF16), ("r50", 1, BF16), ("r50", 32, BF16), ("r101", 1, BF16)]
COMPILED += [("r50", 1, FP16)]


def rows(task: Task) -> dict[str, Row]:
    """Return the rows of latency and throughput: plain, by parts, compiled."""
    cases = [case_of(task, *c) for c in ([("nano", 2)] if task.tiny else CASES)]
    found: dict[str, Row] = {named(c): partial(compare, c, plain_ones(task), task) for c in cases}
    found |= {f"{named(c)}: parts": partial(parts_of, c, task) for c in cases if c.batch != 8}
    for preset, batch, dtype in [("nano", 1, BF16)] if task.tiny else COMPILED:
        case = case_of(task, preset, batch)
        row = partial(compare_compiled, case, dtype, task)
        found[f"{named(case)}: compiled, {NAMES[dtype]}"] = row
    return found


def step_rows(task: Task) -> dict[str, Row]:
    """Return the rows of training steps."""
    presets = [("nano", 2)] if task.tiny else [("r18", 8), ("r50", 8)]
    cases = [case_of(task, *preset) for preset in presets]
    return {f"training step, {named(c)}": partial(steps, c, task) for c in cases}


def named(case: Case) -> str:
    """Name a case."""
    return f"{case.preset}, batch {case.batch}"


def case_of(task: Task, preset: str, batch: int) -> Case:
    """Return the case on this machine."""
    return Case(preset, task.size, batch, task.device)


def plain_ones(task: Task) -> dict[str, Build]:
    """Return the subjects that need no compiler: graphs on CUDA only."""
    found = {BASE: eager()}
    for dtype in (BF16,) if task.tiny else (FP16, BF16):
        kind = NAMES[dtype]
        found[f"{BASE} {kind}"] = eager(dtype=dtype)
        found[f"{BASE} {kind}, channels_last"] = eager(channels_last=True, dtype=dtype)
        found[f"ours {kind}"] = ours(dtype, PyTorch())
        if task.device == "cuda":
            found[f"ours {kind}, graph"] = ours(dtype, PyTorch(graphed=True))
    return found


def compare(case: Case, builds: dict[str, Build], task: Task) -> dict[str, Any]:
    """Time all subjects in turn; one that cannot run is named with its traceback."""
    subjects: dict[str, Subject] = {}
    broken: dict[str, str] = {}
    for name, build in builds.items():
        try:
            run = build(case)
            run()
            subjects[name] = run
        except Exception:
            broken[name] = traceback.format_exc()
    times = interleaved(subjects, task.rounds, clock=CLOCKS["wall"])
    return {"case": asdict(case), "times": plain(times), "broken": broken}


def compare_compiled(case: Case, dtype: torch.dtype, task: Task) -> dict[str, Any]:
    """Time both compiled models, with graphs and without, and ours with a graph only."""
    if task.device != "cuda":
        raise Skipped("graphs and compiled models are measured on CUDA")
    kind, reduced = NAMES[dtype], "reduce-overhead"
    builds = {
        f"transformers compiled {kind}": eager(compiled=True, dtype=dtype),
        f"transformers compiled {kind}, graph": eager(compiled=True, dtype=dtype, mode=reduced),
        f"ours {kind}, graph": ours(dtype, PyTorch(graphed=True)),
        f"ours {kind}, compiled, graph": ours(dtype, PyTorch(compiled=True, graphed=True)),
    }
    return compare(case, builds, task)


def parts_of(case: Case, task: Task) -> dict[str, Any]:
    """Measure the parts in bfloat16, and the ceilings that their limits come from."""
    top = ceilings(case.device, BF16, side=128 if task.tiny else 8192)
    parts = {n: asdict(p) for n, p in split(case, BF16, task.rounds).items()}
    return {"case": asdict(case), "parts": parts, "top": asdict(top)}


def steps(case: Case, task: Task) -> dict[str, Any]:
    """Time a training step, theirs and ours."""
    rounds = max(1, task.rounds // 2)
    return {"case": asdict(case), "times": plain(bench_training(case, rounds))}
