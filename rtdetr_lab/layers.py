r"""# Layers: bricks without a chapter

Common parts of detectors that none of the papers here is about.

| brick | what it does | Elsewhere |
|---|---|---|
| `ConvNormAct` | convolution without bias, batch norm, activation | authors' `ConvNormLayer` |
| `FrozenBatchNorm2d` | batch norm whose four vectors are constants | the same name everywhere |
| `MLP` | linear layers with ReLU between them | `MLPPredictionHead` |
| `FeedForward` | the two linear layers after an attention | `linear1`, `linear2` |
| `Attention` | multi-head attention whose weights can be looked at | `nn.MultiheadAttention` |
| `sine_2d` | 2-D sine position embedding of a map | `build_2d_sincos…` |
| `cached_by_size` | remembers constants that depend on sizes only | `eval_size`, `lru_cache` |

Batch norm is passed as a *value*. Use `norm=FrozenBatchNorm2d` for a backbone with ImageNet
weights, which bring their statistics, and `norm=nn.BatchNorm2d` for one that starts from random
weights. A batch norm frozen at mean 0 and variance 1 normalises nothing, and a model trained from
scratch with it does not learn.
"""

import copy
import math
from collections.abc import Callable
from functools import lru_cache, wraps
from itertools import chain, pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.taps import tap, watched

Activation = Callable[[Tensor], Tensor]
Norm = Callable[[int], nn.Module]
Module = TypeVar("Module", bound=nn.Module)


def identity(x: Tensor) -> Tensor:
    """No activation."""
    return x


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the tanh approximation; elsewhere `gelu_new` or `gelu_pytorch_tanh`."""
    return F.gelu(x, approximate="tanh")


def cached_by_size(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache a function of sizes, device and dtype, outside the state dict.

    The arguments are the key, so a new picture size never gets an old table. Nothing is cached
    while a graph is traced: the tracer makes the result a constant, and its placeholder tensors
    must not outlive it. Callers must not write into the result.
    """
    remembered = lru_cache(maxsize=64)(function)

    @wraps(function)
    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*args)
        with torch.inference_mode(False), torch.no_grad():  # usable in training later
            return remembered(*args)

    return call


def has_float64(device: torch.device | str) -> bool:
    """Tell whether a device supports float64: a Mac's GPU does not."""
    return torch.device(device).type in ("cpu", "cuda")


def sharing_tensors(module: Module) -> Module:
    """Copy a module but share its parameters and buffers; modes and settings are copied."""
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with constant statistics and affine part, as buffers (Eq. 05.2, notebook 05)."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        starts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        for name, value in starts.items():
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class ConvNormAct(nn.Module):
    """Convolution (no bias, "same" padding if the kernel is odd), batch norm, activation.

    `groups` cuts the channels into that many parts that are convolved alone; as many groups as
    channels make a depthwise convolution.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        act: Activation = identity,
        norm: Norm = nn.BatchNorm2d,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = (kernel - 1) // 2
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False
        )
        self.norm = norm(channels_out)
        self.act = act

    def forward(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.act(self.norm(self.conv(x)))


class MLP(nn.Module):
    """`num_layers` linear layers with ReLU between them: box heads and position queries."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int, num_layers: int) -> None:
        super().__init__()
        dims = [dim_in, *[dim_hidden] * (num_layers - 1), dim_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Float[Tensor, "*n Di"]) -> Float[Tensor, "*n Do"]:
        for layer in list(self.layers)[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Widen, activate, narrow: the per-token half of a transformer layer."""

    def __init__(
        self, dim: int, hidden: int, act: Activation = F.relu, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.act = act
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(self.dropout(self.act(self.fc1(x))))


class Attention(nn.Module):
    r"""Multi-head attention $\mathrm{softmax}(QK^\top/\sqrt{d})\,V$, in the fastest form torch has.

    The fused kernel never stores the weights. While the tap `weights` (`B M Q N`) is recorded, an
    explicit softmax computes them instead; both forms agree up to rounding.
    """

    mix: Callable[..., Tensor] = staticmethod(F.scaled_dot_product_attention)

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise like `nn.MultiheadAttention`: the three input maps as one (3D, D) matrix."""
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=1 / math.sqrt(2))
            nn.init.zeros_(projection.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        key: Float[Tensor, "B N D"],
        value: Float[Tensor, "B N D"],
        blocked: Bool[Tensor, "*#mask #Q N"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """`blocked` is True where a query must not look."""
        q = self._heads(self.q_proj(query))
        k = self._heads(self.k_proj(key))
        v = self._heads(self.v_proj(value))
        if watched("weights"):
            mixed = self._in_the_open(q, k, v, blocked)
        else:
            allowed = None if blocked is None else ~blocked
            mixed = self.mix(q, k, v, attn_mask=allowed, dropout_p=self.dropout * self.training)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B M N d"]:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _in_the_open(
        self,
        q: Float[Tensor, "B M Q d"],
        k: Float[Tensor, "B M N d"],
        v: Float[Tensor, "B M N d"],
        blocked: Bool[Tensor, "*#mask #Q N"] | None,
    ) -> Float[Tensor, "B M Q d"]:
        score = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if blocked is not None:
            score = score.masked_fill(blocked, -torch.inf)
        weights = tap("weights", score.softmax(-1))
        return F.dropout(weights, self.dropout, self.training) @ v


@cached_by_size
def sine_2d(
    height: int,
    width: int,
    dim: int,
    temperature: float = 10000.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "1 N D"]:
    r"""Sine and cosine of row and column at D/4 frequencies (Eq. 06.2, notebook 06), row by row.

    The row owns the first half of the channels, the column the second; trained checkpoints rely on
    that order. Angles are computed in float64, on the CPU where the device has none.
    """
    place = device if has_float64(device) else "cpu"
    exponent = torch.arange(dim // 4, dtype=torch.float64, device=place) / (dim // 4)
    frequency = temperature**-exponent
    row = torch.arange(height, dtype=torch.float64, device=place).outer(frequency)
    column = torch.arange(width, dtype=torch.float64, device=place).outer(frequency)
    rows = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(-1, width, -1)
    columns = torch.cat([column.sin(), column.cos()], dim=1).expand(height, -1, -1)
    table = torch.cat([rows, columns], dim=2).flatten(0, 1)
    return table.to(dtype).to(device).unsqueeze(0)


def sine_2d_authors(
    height: int,
    width: int,
    dim: int,
    temperature: float = 10000.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "1 N D"]:
    """Position embedding in the order of the authors' code: column by column.

    Tokens go row by row, so on a map that is not square the n-th embedding belongs to another cell
    than the n-th token. On a square map the authors' code also swaps the roles of row and column,
    and the two swaps cancel: the result equals `sine_2d`. Checkpoints trained at 640² are not
    affected.
    """
    return sine_2d(width, height, dim, temperature, device, dtype)
