"""# Fastest: which backend, on this machine, for this model

    found = fastest(model, size=(640, 640), batch=1)
    print(found)                        # the measured times, the fastest first
    engine = found.engine               # ready to be called

The fastest backend depends on the processor, the picture size, the batch and the model, and the
differences are often small. So we measure instead of guessing: every installed backend gets an
engine, and all engines run a few interleaved rounds on the sizes and the batch that you pass. The
table also names the runtimes that are not installed; the extra [export] adds two.

Half precision is not exact: `precision.py` measures what it changes in detections. Pass
`dtypes=(torch.float32,)` to leave it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
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
from rtdetr_lab.errors import MissingExtraError
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

    def __str__(self) -> str:
        best = self.times[self.name].median
        columns = {"to the fastest": lambda name: f"{self.times[name].median / best:.2f}"}
        missing = [[name, why, "", ""] for name, why in self.missing.items()]
        return times_table(by_median(self.times), columns, [self.name], missing)


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
    **more: Any,
) -> Fastest:
    """Build an `Engine` on the backend that is fastest here; other arguments go to the engine.

    We time one call per size, with the largest batch. Raises `ConfigError` if no backend can run.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    engines: dict[str, Engine] = {}
    missing: dict[str, str] = {}
    for choice in offered(device, dtypes) if choices is None else choices:
        given = {**more, "backend": choice.backend}
        try:
            engines[choice.name] = Engine(model, size, batch, choice.dtype, device, **given)
        except MissingExtraError as error:
            missing[choice.name] = error.what
    what = f"not installed: {', '.join(missing)}" if missing else "no backend can run here"
    require(engines, "choices", what, "install a runtime, or choose another precision")
    times = interleaved({n: _call(e) for n, e in engines.items()}, rounds, clock=CLOCKS["wall"])
    name = min(times, key=lambda n: times[n].median)
    return Fastest(engines[name], name, times, missing)


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
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def _call(engine: Engine) -> Subject:
    """Run noise through every size: the time does not depend on the content."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(engine.batches[-1], 3, *size) for size in engine.sizes]
    given = [torch.rand(shape, generator=generator).to(engine.device) for shape in shapes]
    return lambda: [engine.answer(images) for images in given]
