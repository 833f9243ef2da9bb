r"""# EMA: the average of where the weights have been

$$ \bar\theta \leftarrow d_t\,\bar\theta + (1 - d_t)\,\theta, \qquad
   d_t = d\,(1 - e^{-t/W}) \tag{15.2} $$

The average is what we evaluate and ship: the weights circle around a minimum, their mean lies
nearer to it. The warm-up $W$ keeps the random start from lingering: with $d = 0.9999$ alone, a
third of it would still be there after 10,000 steps.

Running statistics of batch norm are averaged too, counters are copied: the averaged model is
complete and can be saved as it is.
"""

import copy
import math

import torch
from torch import Tensor, nn


def ema_decay(step: int, decay: float, warmup: int) -> float:
    """d_t of step t, Eq. 15.2; the first step is 1."""
    return decay * (1 - math.exp(-step / warmup)) if warmup else decay


class EMA:
    """`ema.model` is the average of a model: a twin in eval mode that is never trained itself."""

    def __init__(self, model: nn.Module, decay: float, warmup: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.warmup = decay, warmup
        own, other = _tensors(self.model), _tensors(model)
        floating = [k for k, t in own.items() if t.is_floating_point()]
        self._averages, self._current = [own[k] for k in floating], [other[k] for k in floating]
        self._counters = [(t, other[k]) for k, t in own.items() if not t.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model as it is after step `step` (the first is 1)."""
        weight = 1 - ema_decay(step, self.decay, self.warmup)
        torch._foreach_lerp_(self._averages, self._current, weight)
        for own, other in self._counters:
            own.copy_(other)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once; those not kept in checkpoints left out."""
    kept = model.state_dict(keep_vars=True)
    seen: dict[int, str] = {}
    for name, tensor in kept.items():
        seen.setdefault(id(tensor), name)
    return {name: kept[name].detach() for name in seen.values()}
