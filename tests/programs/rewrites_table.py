"""Measure what each rewrite of `deployment/form.py` saves in every runtime, and the plan's product.

python tests/programs/rewrites_table.py [PRESET [THREADS [ROUNDS]]]

It prints the rows of the table in `docs/results/performance.md`: the median of the ratios of
interleaved rounds, with all rewrites to without one. It needs the extra [export].
"""

import sys
import time
from statistics import median

import torch

from rtdetr_lab.deployment.backends import OnnxRuntime, OpenVINO, Plan, PyTorch
from rtdetr_lab.deployment.bench.subjects import AGAINST, Case, model_of
from rtdetr_lab.deployment.bench.timing import interleaved
from rtdetr_lab.deployment.fastest import Choice, forms_of

IN = {
    "PyTorch fp32": (PyTorch(), torch.float32, None),
    "PyTorch bf16": (PyTorch(), torch.bfloat16, None),
    "onnxruntime fp32": (OnnxRuntime(), torch.float32, "onnxruntime"),
    "OpenVINO fp32": (OpenVINO(), torch.float32, "openvino"),
    "OpenVINO bf16": (OpenVINO(), torch.bfloat16, "openvino"),
}


def subjects(name, case):
    """Return what → a function without arguments that answers for one picture."""
    backend, dtype, theirs = IN[name]
    device = torch.device("cpu")
    made = {}
    for choice in (Choice("all", backend, dtype), *forms_of(Choice(name, backend, dtype), device)):
        plan = Plan(case.size, [case.batch], dtype, device)
        run = choice.backend.build(model_of(case.preset), plan)
        images = case.images().to(dtype if theirs is None else torch.float32)
        images = images.contiguous(memory_format=torch.channels_last)

        def answer(run=run, images=images):
            with torch.inference_mode():
                return run(images)

        made[choice.name.removeprefix(f"{name} ")] = answer
    if theirs:
        kind = "fp32" if dtype == torch.float32 else "bf16"
        found = {n: b for n, b in AGAINST[theirs].items() if n.startswith("transformers")}
        _, build = next((n, b) for n, b in found.items() if kind in n or theirs == "onnxruntime")
        made["transformers' graph"] = build(case)
    return made


def main(preset="r18", threads=2, rounds=15):
    torch.set_num_threads(int(threads))
    for name in IN:
        timed = interleaved(subjects(name, Case(preset)), int(rounds), clock=time.perf_counter)
        whole = timed["all"].rounds
        ratios = {
            what: median(a / b for a, b in zip(whole, each.rounds, strict=True))
            for what, each in timed.items()
            if what != "all"
        }
        text = ", ".join(f"{what} {ratio:.3f}" for what, ratio in ratios.items())
        print(f"{preset} {name}: {1e3 * median(whole):.1f} ms; to {text}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
