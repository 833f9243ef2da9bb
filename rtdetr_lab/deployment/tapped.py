r"""# Taps in a file: an ONNX graph that returns what a record keeps

    onnx_with_taps(model, ["decoder.boxes.*", "selection.index"], size=(256, 256))
    onnx_with_taps(model, "decoder.*", size=(256, 256), switches=True)

After `logits` and `boxes` the graph returns every tap that a pattern matches, under its full name
(`docs/taps.md`). The names are in the file's metadata too, as `taps`. A record inside the traced
forward pass keeps the values, so an output equals what `record` keeps in Python.

The graph is the training form with folded convolutions, not the deploy form: that form leaves out
the proposals and the class heads of earlier layers. The training form needs about 5 % more time.

With `switches`, an RT-DETR's graph has five inputs more. Each one edits the running model. At its
rest value it changes nothing:

| input | shape | at rest | edit |
|---|---|---|---|
| `queries` | `1` | Q | queries from this rank on are attended to by no other query |
| `self_attention` | `1` | 1 | 0: in the decoder a query attends only to itself |
| `levels` | `L` | 1 | factors of the sampling weights, level by level |
| `positions` | `1` | 1 | factor of the decoder's position embedding (Eq. 11.2, notebook 11) |
| `added` | `N` | 0 | is added to the tokens' scores before the selection (Eq. 09.1, notebook 09) |

A run with fewer queries needs no other graph: only self-attention connects the queries, so the
first n of Q answers equal those of a model with n queries. Fewer layers need none either: every
layer's boxes and logits are outputs, and layers of a trimmed model do not change. Large random
numbers in `added` select random tokens.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.deployment.form import fused_copy
from rtdetr_lab.deployment.onnx_file import facts_of, program_of, written
from rtdetr_lab.errors import import_extra
from rtdetr_lab.model import declared
from rtdetr_lab.notation import Size
from rtdetr_lab.rtdetr import RTDETR
from rtdetr_lab.taps import Edit, inventory, record


def onnx_with_taps(
    model: nn.Module, taps: str | Sequence[str], size: Size, *, switches: bool = False
) -> bytes:
    """Return the content of an ONNX file for any batch whose extra outputs are the taps.

    Raises `ConfigError` for a pattern without a tap, and for switches of a model that is no
    RT-DETR; `MissingExtraError` without onnx.
    """
    form = declared(fused_copy(model))
    images = torch.rand(1 if switches else 2, 3, *size).to(next(form.parameters()))
    shapes = dict(inventory(form, images))
    names = matching([taps] if isinstance(taps, str) else taps, list(shapes))
    given = {"images": images}
    if switches:
        what = f"{type(model).__name__} has no selection to edit"
        require(isinstance(form, RTDETR), "switches", what, "take an RT-DETR or RT-DETRv2")
        given |= at_rest(form, shapes["selection.score"][1])
    facts = {**facts_of(model, size), "taps": json.dumps(names)}
    outputs = ["logits", "boxes", *names]
    module = Tapped(form, names).eval()
    if switches:
        return written(module, tuple(given.values()), list(given), outputs, facts)
    return written(program_of(module, given, size), (), list(given), outputs, facts)


def taps_of(file: bytes) -> list[str]:
    """Return the names of the taps that a file of `onnx_with_taps` returns."""
    facts = import_extra("onnx", "export").load_from_string(file).metadata_props
    return json.loads(next(fact.value for fact in facts if fact.key == "taps"))


def matching(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the names that a pattern matches, in the order of the forward pass."""
    for pattern in patterns:
        found = any(fnmatchcase(name, pattern) for name in names)
        remedy = f"use * or names such as {', '.join(names[-3:])}"
        require(found, "taps", f"{pattern!r} matches no tap of this model", remedy)
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def at_rest(model: Any, num_tokens: int) -> dict[str, Tensor]:
    """Return the switches of an RT-DETR with values that change nothing."""
    # Tensors of their own: a tracer takes one object given twice for one input.
    values = {name: torch.ones(1) for name in ("queries", "self_attention", "positions")}
    values["queries"] *= model.num_queries
    levels = torch.ones(model.cfg.decoder.num_levels)
    return values | {"levels": levels, "added": torch.zeros(num_tokens)}


class Tapped(nn.Module):
    """Model that returns logits, boxes and the taps in `names`; more inputs are switches."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        queries: Float[Tensor, "1"] | None = None,
        self_attention: Float[Tensor, "1"] | None = None,
        positions: Float[Tensor, "1"] | None = None,
        levels: Float[Tensor, "L"] | None = None,
        added: Float[Tensor, "N"] | None = None,
    ) -> tuple[Tensor, ...]:
        edit = {}
        with ExitStack() as undo:
            if queries is not None:  # then all are there
                edit = edits(queries, self_attention, levels, added, self.model.cfg.decoder.points)
                scale = partial(_scaled, positions)
                hook = self.model.decoder.query_position.register_forward_hook(scale)
                undo.callback(hook.remove)
            seen = undo.enter_context(record(self.model, keep=self.names, edit=edit))
            found = self.model(images)
        return found.logits, found.boxes, *(seen[name] for name in self.names)


def _scaled(factor: Any, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * factor


def edits(
    queries: Any, self_attention: Any, levels: Any, added: Any, points: Sequence[int]
) -> dict[str, Edit]:
    """Return the edits of the taps that the switches stand for.

    `points` are the sampling points of a head on every level.
    """
    factors = levels[[level for level, count in enumerate(points) for _ in range(count)]]

    def attended(weights: Float[Tensor, "B M Q Q"]) -> Float[Tensor, "B M Q Q"]:
        ranks = torch.arange(weights.shape[-1], device=weights.device)
        among = weights * (ranks < queries)
        among = among / among.sum(-1, keepdim=True)
        itself = torch.eye(weights.shape[-1]).to(weights)
        return torch.lerp(itself, among, self_attention)

    return {
        "selection.score": lambda score: score + added,
        "decoder.layers.*.self_attn.weights": attended,
        "decoder.layers.*.cross_attn.weights": lambda weights: weights * factors,
    }
