"""# Kernels: is the fused sampler right on this card, and how fast is it?

The reference is the naive loop in double precision, from the same rounded inputs, so that only the
arithmetic of the kernel counts. At full size the loop would take minutes; there the reference is
`Bilinear`, which the tests compare with the loop. An error is a part of the largest value (or of
one, if all values are smaller). At a cell's centre the output has a kink: each side has its own
gradient, and autograd takes neither in the loop. So no location is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.deployment.bench.gpu.record import Row, Skipped, Task
from rtdetr_lab.deployment.bench.report import plain
from rtdetr_lab.deployment.bench.timing import CLOCKS, Subject, interleaved
from rtdetr_lab.deployment.fastest import NAMES
from rtdetr_lab.kernels.embedding_bag_samplers import layout
from rtdetr_lab.kernels.fused_sampler import Fused, runs_on
from rtdetr_lab.notation import Size
from rtdetr_lab.samplers import Bilinear, Naive, Sampler, SamplingPlan

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Reading:
    """Shape of one deformable attention."""

    shapes: Sequence[Size]
    points: Sequence[int]
    batch: int = 2
    queries: int = 7
    heads: int = 3
    dim: int = 32

    def inputs(self, dtype: torch.dtype, device: str) -> list[Tensor]:
        """Draw values, locations (a third outside the maps) and weights."""
        rng = torch.Generator().manual_seed(0)
        lead = (self.batch, self.queries, self.heads, sum(self.points))
        tokens = sum(h * w for h, w in self.shapes)
        value = torch.randn(self.batch, tokens, self.heads, self.dim, generator=rng)
        where = 1.4 * torch.rand(*lead, 2, generator=rng) - 0.2
        weights = torch.randn(lead, generator=rng).softmax(-1)
        sides = layout(tuple(self.shapes), tuple(self.points), where.device)[:, [1, 0]]
        cells = where.to(dtype).double() * sides - 0.5
        where = where.masked_fill((cells - cells.round()).abs() < 1e-3, 0.37)
        return [t.to(device, dtype).requires_grad_() for t in (value, where, weights)]

    def read(self, sampler: Sampler, inputs: Sequence[Tensor]) -> Tensor:
        """Run the forward pass."""
        value, where, weights = inputs
        return sampler(value, self.shapes, self.points, SamplingPlan(where, weights))

    def both(self, sampler: Sampler, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run both passes; return the output and the gradients of all inputs."""
        out = self.read(sampler, inputs)
        slope = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
        return (out, *torch.autograd.grad(out, inputs, slope))


SMALL = {
    "odd maps": Reading([(5, 7), (3, 4)], (2, 1), dim=24),
    "an unused level": Reading([(6, 3), (3, 2), (1, 1)], (3, 0, 1)),
}
LEVELS = [(80, 80), (40, 40), (20, 20)]
FULL = Reading(LEVELS, (4, 4, 4), batch=8, queries=300, heads=8)


def rows(task: Task) -> dict[str, Row]:
    """Return the rows of this section."""
    found: dict[str, Row] = {}
    for dtype in (torch.float32, *HALF):
        kind = NAMES[dtype]
        for name, reading in SMALL.items():
            found[f"{name}, {kind}"] = partial(errors, reading, dtype, Naive(), task.device)
        if not task.tiny:
            found[f"full size, {kind}"] = partial(errors, FULL, dtype, Bilinear(), task.device)
            found[f"time, {kind}"] = partial(times, FULL, dtype, task)
    return found


def errors(reading: Reading, dtype: torch.dtype, exact: Sampler, device: str) -> dict[str, Any]:
    """Compare output and gradients with those of `exact` in double precision."""
    check_kernel(device)
    inputs = reading.inputs(dtype, device)
    at = device if isinstance(exact, Bilinear) else "cpu"  # a loop is faster on the CPU
    precise = [t.detach().to(at, torch.float64).requires_grad_() for t in inputs]
    names = ("output", "values", "locations", "weights")
    pairs = zip(reading.both(Fused(), inputs), reading.both(exact, precise), strict=True)
    found = {name: part_off(*pair) for name, pair in zip(names, pairs, strict=True)}
    most = max(8 * torch.finfo(dtype).eps, 2e-5)
    return {"errors": found, "most": most, "right": all(error <= most for error in found.values())}


def part_off(got: Tensor, want: Tensor) -> float:
    """Return the largest error, as a part of the largest value or of one."""
    got, want = got.detach().to(want), want.detach()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1))


def times(reading: Reading, dtype: torch.dtype, task: Task) -> dict[str, Any]:
    """Time both samplers, forward and with backward."""
    check_kernel(task.device)
    inputs = reading.inputs(dtype, task.device)
    fixed = [t.detach() for t in inputs]
    subjects: dict[str, Subject] = {}
    for name, sampler in (("fused", Fused()), ("grid_sample", Bilinear())):
        subjects[f"{name}, forward"] = partial(reading.read, sampler, fixed)
        subjects[f"{name}, with backward"] = partial(reading.both, sampler, inputs)
    return {"times": plain(interleaved(subjects, task.rounds, clock=CLOCKS["wall"]))}


def check_kernel(device: str) -> None:
    """Raise `Skipped` where the kernel cannot run."""
    if not runs_on(torch.device(device)):
        raise Skipped("the kernel needs Triton and CUDA (or TRITON_INTERPRET=1, on the CPU)")
