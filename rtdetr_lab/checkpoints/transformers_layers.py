r"""# What transformers varies in a layer

Their configuration has a number for every dropout; ours has None where it is that of `dropout`.

`normalize_before` moves both norms of an AIFI layer before their part. transformers adds the result
of the feed-forward to its *normalised* input; the authors' code adds it to the input itself. No
published model uses either, so this form stands here and not in the chapter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.aifi import AIFIConfig, AIFILayer
from rtdetr_lab.checkpoints.transformers_table import value_at
from rtdetr_lab.config import given, replace_all


class NormFirstLayer(AIFILayer):
    """Layer of AIFI whose norms come first, as transformers computes it."""

    def forward(
        self, x: Float[Tensor, "B N D"], positions: Float[Tensor, "1 N D"] | None
    ) -> Float[Tensor, "B N D"]:
        read = self.norm1(x)
        where = read if positions is None else read + positions
        x = self.norm2(x + self.dropout(self.self_attn(where, where, read)))
        return x + self.dropout(self.ffn(x))


@dataclass(frozen=True)
class NormFirstConfig(AIFIConfig):
    """Settings of AIFI with `normalize_before`."""

    def layer(self, dim: int) -> NormFirstLayer:
        """Make a layer."""
        return NormFirstLayer(self, dim)


def every_dropout(cfg: Any) -> Any:
    """Give a number to every dropout of our config that is None, as their config does."""
    return _with_dropouts(cfg, given)


def own_dropouts(cfg: Any) -> Any:
    """Undo `every_dropout`: None where the number is that of `dropout`."""
    return _with_dropouts(cfg, lambda value, usual: None if value == usual else value)


def _with_dropouts(cfg: Any, changed: Callable[[Any, Any], Any]) -> Any:
    values = {}
    for place in ("encoder", "encoder.aifi", "decoder"):
        part = value_at(cfg, place)
        for name in ("attention_dropout", "activation_dropout"):
            if hasattr(part, name):
                values[f"{place}.{name}"] = changed(getattr(part, name), part.dropout)
    return replace_all(cfg, values)
