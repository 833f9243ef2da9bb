"""# Fastest: which backend, on this machine, for this model

    found = fastest(model, size=(640, 640), batch=1)
    print(found)                        # the measured times, the fastest first
    engine = found.engine               # ready to be called

The fastest backend depends on the processor, the picture size, the batch and the model, and the
differences are often small. So we measure instead of guessing: every installed backend gets an
engine, and all engines run a few interleaved rounds on the sizes and the batch that you pass. Those
within 15 % of the best run again without each of the `Rewrites` that concern them. The table also
names the runtimes that are not installed; the extra [export] adds two.

The result is kept in `~/.cache/rtdetr_lab/fastest`, by model, sizes, batches, precisions,
processor, threads and versions. The next call for the same builds only the winner. `again=True`
measures anew.

Half precision is not exact: `precision.py` measures what it changes in detections. Pass
`dtypes=(torch.float32,)` to leave it out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rtdetr_lab.config import require
from rtdetr_lab.deployment.backends import Backend, OnnxRuntime, OpenVINO, PyTorch, Runtime
from rtdetr_lab.deployment.bench.timing import (
    CLOCKS,
    Subject,
    Times,
    by_median,
    interleaved,
    times_table,
)
from rtdetr_lab.deployment.engine import Engine
from rtdetr_lab.deployment.notes import keep_note, note_of, read_note
from rtdetr_lab.errors import MissingExtraError
from rtdetr_lab.model import declared
from rtdetr_lab.notation import Size


@dataclass(frozen=True)
class Choice:
    """Backend and precision, with the name of this pair."""

    name: str
    backend: Backend
    dtype: torch.dtype


@dataclass(frozen=True)
class Fastest:
    """The fastest engine, its name, and the times of all engines; prints as a table."""

    engine: Engine
    name: str
    times: dict[str, Times]
    missing: dict[str, str] = field(default_factory=dict)
    measured: str | None = None
    """Day of the measurement, if it was made before."""

    def __str__(self) -> str:
        best = self.times[self.name].median
        columns = {"to the fastest": lambda name: f"{self.times[name].median / best:.2f}"}
        missing = [[name, why, "", ""] for name, why in self.missing.items()]
        table = times_table(by_median(self.times), columns, [self.name], missing)
        return f"{table}\n\nMeasured {self.measured}." if self.measured else table


def offered(
    device: torch.device | str, dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16)
) -> list[Choice]:
    """List the backends that suit a device and these precisions, installed or not."""
    on_cpu = torch.device(device).type == "cpu"
    found = []
    for dtype in dtypes:
        kind = NAMES.get(dtype, str(dtype).removeprefix("torch."))
        for name, backend in (ON_CPU if on_cpu else ON_CUDA).items():
            if isinstance(backend, PyTorch) or dtype in backend.dtypes:
                found.append(Choice(name.format(kind), backend, dtype))
    return found


def fastest(
    model: nn.Module,
    size: Size | Sequence[Size] | None = None,
    batch: int | Sequence[int] = 1,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    device: torch.device | str | None = None,
    *,
    rounds: int = 5,
    choices: Sequence[Choice] | None = None,
    again: bool = False,
    **more: Any,
) -> Fastest:
    """Build an `Engine` on the backend that is fastest here; other arguments go to the engine.

    We time one call per size, with the largest batch. `choices` are measured as they are, and not
    kept. Raises `ConfigError` if no backend can run.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def build(choice: Choice) -> Any:
        return Engine(model, size, batch, choice.dtype, device, backend=choice.backend, **more)

    if choices is not None:
        return _measured(build, choices, rounds)
    sizes = size or declared(model).metadata.fixed_size
    asked, note = offered(device, dtypes), note_of(model, (sizes, batch, dtypes, device))
    forms = {choice: forms_of(choice, device) for choice in asked}
    if not again and (kept := read_note(note)):
        every = [form for choice in asked for form in (choice, *forms[choice])]
        winner = next((choice for choice in every if choice.name == kept["name"]), None)
        if winner:
            times = {name: Times(tuple(each)) for name, each in kept["seconds"].items()}
            return Fastest(build(winner), winner.name, times, kept["missing"], kept["date"])
    found = _measured(build, asked, rounds, forms)
    seconds = {name: each.rounds for name, each in found.times.items()}
    keep_note(note, {"name": found.name, "seconds": seconds, "missing": found.missing})
    return found


def _measured(
    build: Callable[[Choice], Any],
    asked: Sequence[Choice],
    rounds: int,
    forms: Mapping[Choice, Sequence[Choice]] = MappingProxyType({}),
) -> Fastest:
    """Build and time every choice, and the other forms of those that come near the best."""
    engines: dict[str, Engine] = {}
    missing: dict[str, str] = {}

    def measure(some: Sequence[Choice]) -> dict[str, Times]:
        for choice in some:
            try:
                engines[choice.name] = engines.get(choice.name) or build(choice)
            except MissingExtraError as error:
                missing[choice.name] = error.what
        what = f"not installed: {', '.join(missing)}" if missing else "no backend can run here"
        require(engines, "choices", what, "install a runtime, or choose another precision")
        built = {c.name: _call(engines[c.name]) for c in some if c.name in engines}
        return interleaved(built, rounds, clock=CLOCKS["wall"])

    times = measure(asked)
    near = NEAR * min(each.median for each in times.values())
    rivals = [c for c in asked if forms.get(c) and c.name in times and times[c.name].median <= near]
    if rivals:
        times |= measure([form for c in rivals for form in (c, *forms[c])])
    name = min(times, key=lambda n: times[n].median)
    return Fastest(engines[name], name, times, missing)


def forms_of(choice: Choice, device: torch.device) -> list[Choice]:
    """Return the choice without each of the rewrites that concern its backend on the CPU."""
    backend = choice.backend
    if device.type != "cpu" or not isinstance(backend, PyTorch | Runtime):
        return []
    elsewhere = "planar" if isinstance(backend, PyTorch) else "read_first"
    names = [f.name for f in fields(backend.rewrites) if f.name != elsewhere]
    return [
        Choice(
            f"{choice.name} without {name}",
            replace(backend, rewrites=replace(backend.rewrites, **{name: False})),
            choice.dtype,
        )
        for name in names
    ]


Offer = dict[str, PyTorch | Runtime]
ON_CPU: Offer = {
    "PyTorch {}": PyTorch(),
    "onnxruntime {}": OnnxRuntime(),
    "OpenVINO {}": OpenVINO(),
}
ON_CUDA: Offer = {
    "PyTorch {}, graph": PyTorch(graphed=True),
    "PyTorch {}, compiled, graph": PyTorch(compiled=True, graphed=True),
}
NEAR = 1.15
"""Backends up to this ratio to the fastest are tried in other forms."""
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def _call(engine: Engine) -> Subject:
    """Run noise through every size: the time does not depend on the content."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(engine.batches[-1], 3, *size) for size in engine.sizes]
    given = [torch.rand(shape, generator=generator).to(engine.device) for shape in shapes]
    return lambda: [engine.answer(images) for images in given]
