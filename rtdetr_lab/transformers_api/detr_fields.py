r"""# DETR's fields: the documented outputs, from the records of a forward pass

As documented, we return the loss terms without weights, and their sum with weights. For this the
criterion runs with all weights 1, and we multiply its terms by the weights afterwards.
"""

from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from rtdetr_lab.config import replace_all
from rtdetr_lab.detr.model import cardinality_error
from rtdetr_lab.errors import ImageError
from rtdetr_lab.structures import Prediction, Targets
from rtdetr_lab.taps import Edit
from rtdetr_lab.transformers_api.fields import Seen, values

TERMS = {
    "class": ("loss_ce", "class_weight"),
    "l1": ("loss_bbox", "l1_weight"),
    "giou": ("loss_giou", "giou_weight"),
    "mask": ("loss_mask", "masks.mask_weight"),
    "dice": ("loss_dice", "masks.dice_weight"),
}
"""Our term: its documented name, and its weight in the criterion's config."""


def padding_of(pixel_mask: Tensor | None, images: Tensor) -> Bool[Tensor, "B H W"] | None:
    """Convert a pixel mask (1 inside the picture) to padding; None if there is no padding.

    Raises `ImageError` for a mask of another shape.
    """
    if pixel_mask is None:
        return None
    wanted = (len(images), *images.shape[-2:])
    if tuple(pixel_mask.shape) != wanted:
        what = f"has shape {tuple(pixel_mask.shape)}, the pictures {tuple(images.shape)}"
        raise ImageError("pixel_mask", what, f"pass {wanted}, 1 inside the picture and 0 outside")
    padding = ~pixel_mask.bool()
    return padding.to(images.device) if bool(padding.any()) else None


def edits(query_mask: Tensor | None, num_queries: int) -> dict[str, Edit] | None:
    """Edits that apply `decoder_attention_mask` (1 for queries that may be attended to).

    The weights of masked queries become zero, and the others are scaled to a sum of 1.
    """
    if query_mask is None:
        return None
    allowed, wanted = query_mask.bool(), (query_mask.shape[0], num_queries)
    if tuple(allowed.shape) != wanted or not bool(allowed.any(1).all()):
        what = f"has shape {tuple(allowed.shape)}, or hides all queries of a picture"
        remedy = f"pass {wanted}, 1 for queries that may be attended to"
        raise ImageError("decoder_attention_mask", what, remedy)

    def hide(weights: Tensor) -> Tensor:
        weights = weights * allowed.to(weights)[:, None, None]
        return weights / weights.sum(-1, keepdim=True)

    return {"decoder.layers.*.self_attn.weights": hide}


def kept(asked: Mapping[str, bool]) -> list[str]:
    """Return the names that a call needs."""
    names = ["encoder", "decoder"] + ["weights"] * asked["output_attentions"]
    return names + ["content"] * asked["output_hidden_states"]


def inner_fields(
    lab: Any, seen: Seen, asked: Mapping[str, bool], start: Tensor | None
) -> dict[str, Any]:
    """Make all fields of `DetrModelOutput`."""
    ((cells, *_), encoder), (_, read) = values(seen, "encoder")[-1], values(seen, "decoder")[-1]
    count, layers = len(lab.encoder.layers), len(lab.decoder.layers)
    found = {
        "last_hidden_state": read[-1],
        "intermediate_hidden_states": torch.stack(read),
        "encoder_last_hidden_state": encoder,
    }
    if asked["output_hidden_states"]:
        content = values(seen, "content")
        between = content[count : count + layers - 1]
        start = torch.zeros_like(read[-1]) if start is None else start
        found["decoder_hidden_states"] = (start, *between, read[-1])
        found["encoder_hidden_states"] = (cells, *content[:count])
    if asked["output_attentions"]:
        # Every layer of the decoder attends to queries, then to cells; a mask head comes last.
        weights = values(seen, "weights")[: count + 2 * layers]
        found["encoder_attentions"] = tuple(weights[:count])
        found["decoder_attentions"] = tuple(weights[count::2])
        found["cross_attentions"] = tuple(weights[count + 1 :: 2])
    return found


def judged(
    cfg: Any, prediction: Prediction, targets: Targets, every: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the weighted loss and its unweighted terms, of the last layer only unless `every`."""
    layers = prediction.layers if every else prediction.layers[-1:]
    masked = cfg.masks is not None
    paths = [path for _, path in TERMS.values() if masked or not path.startswith("masks.")]
    weights = {path: attrgetter(path)(cfg) for path in paths}
    ones = replace_all(cfg, dict.fromkeys(paths, 1.0))
    terms = ones.build()(replace(prediction, layers=layers), targets)
    loss, named = prediction.logits.new_zeros(()), {}
    for term, value in terms.items():
        kind, _, layer = term.partition(".layer")
        name, path = TERMS[kind]
        named[f"{name}_{layer}" if layer else name] = value
        loss = loss + weights[path] * value
    for i, layer in enumerate(layers):
        of_layer = Prediction(layer.logits, layer.boxes, ())
        suffix = "" if i == len(layers) - 1 else f"_{i}"
        named[f"cardinality_error{suffix}"] = cardinality_error(of_layer, targets)
    return loss, named
