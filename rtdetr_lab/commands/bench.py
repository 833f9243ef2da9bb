"""# Bench: how fast is a model, compared with others, and where does the time go?"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_lab.commands.base import DONE, Command, say, shown_size, size_of
from rtdetr_lab.config import require
from rtdetr_lab.writing import write_text

if TYPE_CHECKING:
    from rtdetr_lab.deployment.bench.subjects import Case


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measure latency and throughput, compared with transformers and the runtimes."""

    model: tuple[str, ...] = ("r18",)
    """Presets, with random weights: r18 r34 r50_m r50 r101 nano, v2_r18 …"""
    against: str = "transformers"
    """Compare with, separated by commas: transformers,onnxruntime,openvino,compile; or empty."""
    size: str = "640"
    """Size of the models' input: one number, or HxW."""
    batch: tuple[int, ...] = (1,)
    """Batch sizes: 1 for latency, more for throughput."""
    rounds: int = 10
    """Interleaved rounds; the tables show medians."""
    threads: int | None = None
    """Threads of every runtime; default: torch's own number."""
    device: str = "cpu"
    """cpu or cuda."""
    clock: str = "wall"
    """wall, or cpu: the CPU time of this process, for a shared machine."""
    parts: bool = True
    """Split a picture's time into parts, with a roofline; --no-parts turns it off."""
    memory: bool = False
    """Also measure peak memory, with one process per subject."""
    training: bool = False
    """Also measure a training step with batch 4, or with the last of --batch if that is given."""
    nms: bool = False
    """Also measure what NMS would cost."""
    precision: int = 0
    """Also measure how half precision changes detections, on this number of pictures of shapes.
    nano has its trained weights, other models have random weights with spread predictions."""
    out: Path | None = None
    """Folder for bench.json, bench.md and the roofline."""

    def run(self) -> int:
        import torch

        from rtdetr_lab.deployment.bench.report import machine
        from rtdetr_lab.deployment.bench.timing import CLOCKS

        require(self.rounds >= 1, "rounds", f"is {self.rounds}", "give at least 1")
        known = ", ".join(CLOCKS)
        what = f"{self.clock!r} is not a clock"
        require(self.clock in CLOCKS, "clock", what, f"use one of {known}")
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
        pages: list[str] = []
        results = [self._one(p, batch, pages) for p in self.model for batch in self.batch]
        record: dict[str, Any] = {"machine": machine(), "results": results}
        if self.nms:
            record["nms"] = self._nms(pages)
        if self.out is not None:
            text = json.dumps(record, indent=1) + "\n"
            write_text(self.out / "bench.json", text)
            write_text(self.out / "bench.md", "\n".join(pages) + "\n")
            say(f"→ {self.out / 'bench.json'}")
        return DONE

    def _one(self, preset: str, batch: int, pages: list[str]) -> dict[str, Any]:
        from rtdetr_lab.deployment.bench.memory import peak_of
        from rtdetr_lab.deployment.bench.report import best_of_ours, latency_table, plain
        from rtdetr_lab.deployment.bench.subjects import Case, chosen
        from rtdetr_lab.deployment.bench.timing import CLOCKS, interleaved

        case = Case(preset, size_of(self.size), batch, self.device)
        subjects = {}
        for name, build in chosen(self.against, self.device).items():
            say(f"building {name}", aside=True)
            subjects[name] = build(case)
        times = interleaved(subjects, self.rounds, clock=CLOCKS[self.clock])
        measured = subjects if self.memory and batch == 1 else ()
        peaks = {name: peak_of(case, name, self.against) for name in measured}
        best = best_of_ours(times)
        entry = {"case": asdict(case), "times": plain(times), "peak_mb": peaks, "best": best}
        title = f"{preset}, batch {batch}, {shown_size(case.size)}"
        _add(pages, title, latency_table(times, batch, peaks))
        del subjects  # frees their memory
        if self.parts and batch == self.batch[0]:
            entry["parts"] = self._parts(case, pages)
        if self.training and batch == self.batch[-1]:
            entry["training"] = self._training(case, pages)
        if self.precision and batch == self.batch[0]:
            entry["precision"] = self._precision(case, pages)
        return entry

    def _parts(self, case: "Case", pages: list[str]) -> dict[str, Any]:
        import torch

        from rtdetr_lab.deployment.bench.parts import split
        from rtdetr_lab.deployment.bench.report import parts_table
        from rtdetr_lab.deployment.bench.roofline import ceilings, draw

        found: dict[str, Any] = {}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            parts = split(case, dtype, self.rounds, self.clock)
            top = ceilings(self.device, dtype, clock=self.clock)
            _add(pages, f"{case.preset}, {name}: parts", parts_table(parts, top))
            found[name] = {"parts": {n: asdict(p) for n, p in parts.items()}, "top": asdict(top)}
            if self.out is not None:
                draw(parts, top, self.out / f"roofline_{case.preset}_{name}.png")
        return found

    def _training(self, case: "Case", pages: list[str]) -> dict[str, Any]:
        from rtdetr_lab.deployment.bench.report import latency_table, plain
        from rtdetr_lab.deployment.bench.training import bench_training

        case = replace(case, batch=4 if self.batch == (1,) else case.batch)
        times = bench_training(case, max(1, self.rounds // 3), self.clock)
        title = f"{case.preset}: a training step, batch {case.batch}"
        _add(pages, title, latency_table(times, case.batch, {}))
        return plain(times)

    def _precision(self, case: "Case", pages: list[str]) -> dict[str, Any]:
        from rtdetr_lab.deployment.bench.drifts import drifts, plain_drift
        from rtdetr_lab.deployment.precision import drift_table

        found = drifts(case, self.precision)
        title = "what lower precision changes in detections"
        _add(pages, f"{case.preset}, {shown_size(case.size)}: {title}", drift_table(found))
        return {name: plain_drift(one) for name, one in found.items()}

    def _nms(self, pages: list[str]) -> dict[str, Any]:
        from rtdetr_lab.deployment.bench.nms import bench_nms
        from rtdetr_lab.deployment.bench.report import plain
        from rtdetr_lab.deployment.bench.timing import times_table

        times = bench_nms(rounds=self.rounds, clock=self.clock)
        _add(pages, "with NMS, and without", times_table(times))
        return plain(times)


def _add(pages: list[str], title: str, table: str) -> None:
    pages.append(f"\n### {title}\n\n{table}")
    say(pages[-1])
