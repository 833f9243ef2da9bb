r"""# Roofline: what the machine could do, and how much of it we use

We measure two ceilings beside the model: matrix products (FLOP/s) and copies (bytes/s). A part that
does $F$ FLOPs and moves $M$ bytes takes at least $\max(F / P, M / B)$ seconds. The ratio of that
limit to the measured time shows how much we can still gain without computing less.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

from rtdetr_lab.deployment.bench.parts import PARTS, Part
from rtdetr_lab.deployment.bench.timing import CLOCKS, interleaved
from rtdetr_lab.viz.speed import roofline


@dataclass(frozen=True)
class Ceilings:
    """FLOP/s of matrix products, bytes/s of copies."""

    flops: float
    bytes: float

    def limit(self, part: Part) -> float:
        """Least time a part can take, in seconds (Eq. 17.1, notebook 17)."""
        return max(part.flops / self.flops, part.bytes / self.bytes)


def ceilings(
    device: str, dtype: torch.dtype, side: int = 2048, rounds: int = 5, clock: str = "wall"
) -> Ceilings:
    """Measure both ceilings on this machine."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.empty(16 * side * side, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    subjects = {"product": lambda: a @ b, "copy": lambda: target.copy_(source)}
    times = interleaved(subjects, rounds, clock=CLOCKS[clock])
    best = {name: min(t.rounds) for name, t in times.items()}
    return Ceilings(2 * side**3 / best["product"], 2 * source.numel() / best["copy"])


def draw(parts: Mapping[str, Part], top: Ceilings, path: Path) -> Path:
    """Draw FLOP per byte against FLOP/s, both logarithmic, and save the picture."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(7.0, 3.6), layout="compressed").subplots()
    roofline({name: astuple(parts[name]) for name in PARTS}, top.flops, top.bytes, axes)
    axes.set_title("Roofline of the deployed model")
    axes.figure.savefig(path, dpi=120)
    return path
