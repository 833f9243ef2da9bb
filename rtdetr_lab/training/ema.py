r"""# EMA: the average of the weights over the run

$$ \bar\theta \leftarrow d_t\,\bar\theta + (1 - d_t)\,\theta, \qquad
   d_t = d\,(1 - e^{-t/W}) \tag{15.2} $$

We evaluate and ship the average. The weights circle around a minimum, and their mean lies nearer to
it. The warm-up $W$ makes the average forget the random start: with $d = 0.9999$ and no warm-up, a
third of the start would still be in the average after 10,000 steps.

Running statistics of batch norm are averaged too; counters are copied. So the averaged model is
complete and can be saved as it is.
"""

import copy
import math

import torch
from torch import Tensor, nn


def ema_decay(step: int, decay: float, warmup: int) -> float:
    """Return d_t of step t (Eq. 15.2); the first step is 1."""
    return decay * (1 - math.exp(-step / warmup)) if warmup else decay


class EMA:
    """Keeps the average of a model in `ema.model`: a copy in eval mode that the optimizer never
    changes."""

    def __init__(self, model: nn.Module, decay: float, warmup: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.warmup = decay, warmup
        own, other = _tensors(self.model), _tensors(model)
        floating = [k for k, t in own.items() if t.is_floating_point()]
        self._averages, self._current = [own[k] for k in floating], [other[k] for k in floating]
        self._counters = [(t, other[k]) for k, t in own.items() if not t.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after step `step` (the first is 1)."""
        weight = 1 - ema_decay(step, self.decay, self.warmup)
        torch._foreach_lerp_(self._averages, self._current, weight)
        for own, other in self._counters:
            own.copy_(other)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once; only those that checkpoints keep."""
    kept = model.state_dict(keep_vars=True)
    seen: dict[int, str] = {}
    for name, tensor in kept.items():
        seen.setdefault(id(tensor), name)
    return {name: kept[name].detach() for name in seen.values()}
