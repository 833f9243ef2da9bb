r"""# Optimizer: learning rates, schedule and weight decay

$$ \eta_t = \eta\,\min\!\bigl(1, \tfrac{t + 1}{W}\bigr)\; s\bigl(t / T\bigr) \tag{15.1} $$

Step $t$ of $T$ has the group's rate $\eta$, times a linear warm-up of $W$ steps, times a schedule
$s$. A schedule is any callable that maps the finished part of the run, in [0, 1], to a factor.
`Constant()` is the paper's; `Cosine(0.05)` falls to a twentieth.

| group            | rate          | weight decay |
|------------------|---------------|--------------|
| backbone, matrix | `backbone_lr` | yes          |
| backbone, vector | `backbone_lr` | none         |
| rest, matrix     | `lr`          | yes          |
| rest, vector     | `lr`          | none         |

"Vectors" are the parameters with one dimension: all biases, and the weights of all norms. Decay
would pull them to zero, and that shrinks the signal but not its complexity.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtdetr_lab.config import require

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Constant:
    """Keeps the full rate from the end of the warm-up to the end of the run."""

    def __call__(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Falls from the full rate to `floor` times the rate, along half a cosine."""

    floor: float = 0.05

    def __post_init__(self) -> None:
        require(0 <= self.floor <= 1, "floor", f"is {self.floor}", "give a number from 0 to 1")

    def __call__(self, progress: float) -> float:
        wave = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        return self.floor + (1 - self.floor) * wave


def lr_factor(step: int, num_steps: int, warmup_steps: int, schedule: Schedule) -> float:
    """Return the factor for the rates of all groups in step `step` (the first is 0): Eq. 15.1."""
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * schedule(step / max(1, num_steps))


def parameter_groups(
    model: nn.Module, lr: float, backbone_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return the groups of the table above, without empty ones; `names` lists the parameters of a
    group."""
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_backbone, is_vector = name.startswith("backbone."), parameter.ndim <= 1
        rate = backbone_lr if in_backbone else lr
        new = {"params": [], "names": [], "lr": rate, "base_lr": rate}
        new["weight_decay"] = 0.0 if is_vector else weight_decay
        group = groups.setdefault((in_backbone, is_vector), new)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def learning_mode(model: nn.Module) -> nn.Module:
    """Set training mode, but eval mode for frozen modules.

    A batch norm without learning parameters must not learn statistics either, and dropout in front
    of a fixed weight is only noise.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()
    return model


def adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Return AdamW in its one-kernel form: else a step of a small model is mostly overhead."""
    return torch.optim.AdamW(groups, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group `factor` times its own rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
