r"""# Exploration: all data of the queries of one run, packed for a page

The explorer reacts to a click without running the model again. So the page contains all data that
it can show. For the best `most` queries these are the sampling points of every layer and head, and
the few queries that each head attends to most. For all queries they are the boxes, scores and
classes after every step.

    with record(model) as seen:
        prediction = model(images)
    explored = exploration(prediction, seen, picture, names, points=(4, 4, 4), shapes=shapes)
    explored.save("page.html")                     # `explorer_page.py`
    explored.widget()                              # `explorer.py`, in a notebook

Numbers are float32 and integers. They are not rounded: the page draws the values of the taps.
`life_of_query` checks for every kept query that record and prediction are of the same run.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.errors import RecordError
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.notation import Size, num_tokens, token_grid
from rtdetr_lab.structures import Prediction
from rtdetr_lab.viz.cells import DECODER_LEVELS
from rtdetr_lab.viz.life import life_of_query
from rtdetr_lab.viz.palette import DARK
from rtdetr_lab.writing import printable, shorten

if TYPE_CHECKING:
    from rtdetr_lab.viz.explorer import Explorer

LISTENED_TO = 6
"""Number of attended queries that are kept for every query, layer and head."""

LONGEST_SIDE = 900
"""Longest side of the picture in the page; boxes and points are fractions and stay exact."""


@dataclass(frozen=True, eq=False)
class Exploration:
    """Contents of the explorer page.

    K of Q queries are explored; the S steps are the proposal and L layers.
    """

    arrays: Mapping[str, np.ndarray] = field(repr=False)
    meta: Mapping[str, Any] = field(repr=False)

    @property
    def num_queries(self) -> int:
        """K, the number of queries that can be selected."""
        return len(self.arrays["kept"])

    @property
    def payload(self) -> tuple[dict[str, Any], bytes]:
        """Pair (description for JSON, bytes); `layout` has the offset of every array."""
        layout, data = {}, b""
        for name, array in self.arrays.items():
            kind = "f4" if array.dtype.kind == "f" else "i4"
            layout[name] = {"at": len(data), "kind": kind, "shape": list(array.shape)}
            data += np.ascontiguousarray(array, dtype="<" + kind).tobytes()
        return {**self.meta, "layout": layout}, data

    def widget(self) -> "Explorer":
        """Return the live explorer for a notebook, with mouse, sliders and keyboard."""
        from rtdetr_lab.viz.explorer import Explorer

        return Explorer(self)

    def save(self, path: str | Path) -> Path:
        """Write the explorer as one HTML file that opens offline."""
        from rtdetr_lab.viz.explorer_page import write_page

        return write_page(self, path)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget()._repr_mimebundle_(**kwargs)


def exploration(
    prediction: Prediction,
    seen: Mapping[str, Tensor],
    image: RGB,
    names: Sequence[str],
    points: Sequence[int],
    shapes: Sequence[Size],
    *,
    most: int = 60,
    title: str = "",
) -> Exploration:
    """Pack picture 0 of one run of RT-DETR that recorded `decoder.*`, `selection.*`, `proposal_*`.

    `points` are the numbers of points per level, `shapes` the levels' (height, width). Raises
    `RecordError` if record and prediction are not of the same run.
    """
    require(most >= 1, "most", f"{most} queries show nothing", "keep at least one")
    if prediction.proposals is None:
        raise RecordError("exploration", "the model has no proposals", "explore an RT-DETR")
    classes = prediction.logits.shape[-1]
    what = f"{len(names)} names for {classes} classes"
    require(classes == len(names), "names", what, "give every class one name")
    scores = prediction.logits[0].sigmoid().amax(-1)
    kept = scores.argsort(descending=True, stable=True)[:most]
    for query in kept.tolist():
        life_of_query(prediction, seen, shapes, query)
    cells = token_grid(shapes)[prediction.proposals.index[0].cpu()]
    arrays = {"kept": kept, "cells": cells, **_steps(prediction)}
    arrays |= _samplings(seen, kept, len(prediction.layers))
    meta = {"title": printable(title), "image": data_uri(image), "size": list(image.shape[:2])}
    meta |= _words(names, points, shapes)
    return Exploration({k: tensor.detach().cpu().numpy() for k, tensor in arrays.items()}, meta)


def _words(names: Sequence[str], points: Sequence[int], shapes: Sequence[Size]) -> dict[str, Any]:
    return {
        "names": [shorten(printable(name), 40) for name in names],
        "colors": [DARK.color(label) for label in range(len(names))],
        "levels": list(DECODER_LEVELS[: len(points)]),
        "points": list(points),
        "shapes": [list(shape) for shape in shapes],
        "num_tokens": num_tokens(shapes),
    }


def _steps(prediction: Prediction) -> dict[str, Tensor]:
    """Collect boxes, scores and classes of all queries after every step: `S Q …`."""
    assert prediction.proposals is not None
    steps = [prediction.proposals.layer, *prediction.layers]
    logits = torch.stack([step.logits[0] for step in steps])
    return {
        "boxes": torch.stack([step.boxes[0] for step in steps]).float(),
        "scores": logits.sigmoid().amax(-1).float(),
        "labels": logits.argmax(-1),
        "tokens": prediction.proposals.index[0],
    }


def _samplings(seen: Mapping[str, Tensor], kept: Tensor, num_layers: int) -> dict[str, Tensor]:
    """Collect sampling points of the kept queries, and the queries they attend to: `L K M …`."""
    layers = [f"decoder.layers.{i}" for i in range(num_layers)]
    attention = torch.stack([seen[f"{at}.self_attn.weights"][0][:, kept] for at in layers])
    # L M K Q; a last head is the mean of all.
    attention = torch.cat([attention, attention.mean(1, keepdim=True)], dim=1)
    top = attention.transpose(1, 2).topk(min(LISTENED_TO, attention.shape[-1]), dim=-1)
    locations = torch.stack([seen[f"{at}.cross_attn.locations"][0, kept] for at in layers])
    weights = torch.stack([seen[f"{at}.cross_attn.weights"][0, kept] for at in layers])
    return {
        "locations": locations.float(),
        "weights": weights.float(),
        "listens": top.indices,
        "hears": top.values.float(),
    }


def data_uri(image: RGB, longest: int = LONGEST_SIDE) -> str:
    """Encode the picture as a `data:` address in WebP, at most `longest` pixels long."""
    from PIL import Image

    picture = Image.fromarray(image)
    scale = longest / max(picture.size)
    if scale < 1:
        width, height = (max(1, math.ceil(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
