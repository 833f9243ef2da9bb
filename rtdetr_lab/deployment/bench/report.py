"""# Report: Markdown tables, and a JSON record"""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_lab.deployment.bench.parts import PARTS, Part
from rtdetr_lab.deployment.bench.roofline import Ceilings
from rtdetr_lab.deployment.bench.subjects import BASE
from rtdetr_lab.deployment.bench.timing import Times, by_median, times_table
from rtdetr_lab.structures.environment import environment, num_cores
from rtdetr_lab.writing import markdown_table

LIBRARIES = ("torch", "transformers", "onnxruntime", "openvino", "triton", "rtdetr_lab")


def machine() -> dict[str, Any]:
    """Describe the machine and the versions that the numbers depend on, without a host name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf8").splitlines() if info.exists() else []
    name = next((x.split(":")[1].strip() for x in lines if "model name" in x), "")
    known = environment()
    return {key: known[key] for key in ("date", "threads", "gpu", "python")} | {
        "cpu": name or platform.processor(),
        "cores": num_cores(),
        "load": os.getloadavg()[0],
        "versions": {name: v for name in LIBRARIES if (v := _version(name))},
    }


def latency_table(times: Mapping[str, Times], batch: int, peaks: Mapping[str, float]) -> str:
    """Format Markdown: median, spread, ratio to transformers eager, pictures per second, memory.

    Bold is our fastest backend in each precision: the one to use.
    """
    base = times[BASE].median if BASE in times else None
    columns = {
        "ratio": lambda name: f"{times[name].median / base:.2f}" if base else "–",
        "pictures/s": lambda name: f"{batch / times[name].median:.1f}",
        "peak MB": lambda name: f"{peaks[name]:.0f}" if name in peaks else "–",
    }
    return times_table(by_median(times), columns, best_of_ours(times).values())


def best_of_ours(times: Mapping[str, Times]) -> dict[str, str]:
    """Return our fastest subject per precision, for precisions with more than one of ours."""
    ours = [name for name in times if name.startswith("ours")]
    kinds = {name: next((k for k in ("bf16", "fp16") if k in name), "fp32") for name in ours}
    found = {}
    for kind in dict.fromkeys(kinds.values()):
        rivals = [name for name in ours if kinds[name] == kind]
        if len(rivals) > 1:
            found[kind] = min(rivals, key=lambda name: times[name].median)
    return found


def parts_table(parts: Mapping[str, Part], top: Ceilings) -> str:
    """Format Markdown: where the time goes, and how near each part is to its limit."""
    total = sum(p.seconds for p in parts.values())
    rows = []
    for name, part in parts.items():
        work, limit = ["–"] * 4, top.limit(part)
        if name in PARTS:
            work = [f"{part.flops / 1e9:.2f}", f"{part.bytes / 1e6:.0f}"]
            work += [f"{limit * 1e3:.2f}", f"{limit / part.seconds:.0%}"]
        rows.append([name, f"{part.seconds * 1e3:.2f}", f"{part.seconds / total:.0%}", *work])
    head = ["part", "ms", "share", "GFLOP", "MB moved", "limit ms", "of the limit"]
    below = f"Ceilings: {top.flops / 1e9:.0f} GFLOP/s, {top.bytes / 1e9:.1f} GB/s."
    return f"{markdown_table(head, rows)}\n\n{below}"


def plain(times: Mapping[str, Times]) -> dict[str, Any]:
    """Convert times for the JSON record."""
    return {
        n: {"median": t.median, "spread": t.spread, "rounds": t.rounds} for n, t in times.items()
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
