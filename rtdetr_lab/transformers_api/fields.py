r"""# Fields: the documented outputs, from the records of a forward pass

The loss terms are ours under their names: `class.layer0` is their `loss_vfl_aux_0`, and the
proposals are their last `_aux_`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.structures import Prediction, Targets

KINDS = {"class": "loss_vfl", "l1": "loss_bbox", "giou": "loss_giou"}


Seen = Sequence[tuple[str, Any]]
"""Own names of taps and parts, and their values, in the order of the forward pass."""


def kept(asked: Mapping[str, bool]) -> list[str]:
    """Return the names that a call needs."""
    names = ["content", "logits", "box_logits", "bottom_up", "decoder", "aifi"]
    return names + ["weights"] * asked["output_attentions"]


def values(seen: Seen, name: str) -> list[Any]:
    """Return the values of a name, with all its numbers."""
    return [value for own, value in seen if own.partition(".")[0] == name]


def fields_of(
    lab: Any, prediction: Prediction, seen: Seen, asked: Mapping[str, bool]
) -> dict[str, Any]:
    """Make all fields of `RTDetrModelOutput`."""
    content = values(seen, "content")
    (start, reference_logits), layers = values(seen, "decoder")[-1][0][:2], _layers(lab)
    proposals = prediction.proposals
    assert proposals is not None
    found = {
        "last_hidden_state": content[-1],
        "intermediate_hidden_states": torch.stack(content, dim=1),
        "intermediate_logits": _all(prediction, "logits"),
        "intermediate_reference_points": _all(prediction, "boxes"),
        "encoder_last_hidden_state": values(seen, "bottom_up"),
        "init_reference_points": reference_logits.detach(),
        "enc_topk_logits": proposals.logits,
        "enc_topk_bboxes": proposals.boxes,
        "enc_outputs_class": values(seen, "logits")[0],
        "enc_outputs_coord_logits": values(seen, "box_logits")[0],
        "denoising_meta_values": _meta(prediction),
    }
    if asked["output_hidden_states"]:
        found["decoder_hidden_states"] = (start, *content)
        if layers:
            (before, *_), after = values(seen, "aifi")[-1]
            found["encoder_hidden_states"] = (before, after)
    if asked["output_attentions"]:
        found |= _attentions(lab, values(seen, "weights"), layers, asked["by_level"])
    return found


def _layers(lab: Any) -> int:
    return len(getattr(lab.encoder.aifi, "layers", ()))


def _attentions(lab: Any, weights: Sequence[Tensor], layers: int, by_level: bool) -> dict[str, Any]:
    # AIFI comes first; every layer of the decoder attends to queries, then to maps.
    encoder, own, cross = weights[:layers], weights[layers::2], weights[layers + 1 :: 2]
    if by_level:  # v1 has an axis of levels; v2 has not, as its levels may differ in points
        levels = lab.cfg.decoder.num_levels
        cross = [one.unflatten(-1, (levels, -1)) for one in cross]
    found = {"decoder_attentions": tuple(own), "cross_attentions": tuple(cross)}
    return found | ({"encoder_attentions": tuple(encoder)} if encoder else {})


def _all(prediction: Prediction, name: str) -> Tensor:
    """Stack a field of all layers; the denoising queries come first."""
    parts = [getattr(layer, name) for layer in prediction.layers]
    if prediction.denoising is not None:
        before = [getattr(layer, name) for layer in prediction.denoising.layers]
        parts = [torch.cat(pair, dim=1) for pair in zip(before, parts, strict=True)]
    return torch.stack(parts, dim=1)


def _meta(prediction: Prediction) -> dict[str, Any] | None:
    if prediction.denoising is None:
        return None
    batch = prediction.denoising.batch
    return {
        "dn_positive_idx": [row.nonzero()[:, 0] for row in batch.is_positive],
        "dn_num_group": batch.num_groups,
        "dn_num_split": [batch.num_queries, prediction.logits.shape[1]],
    }


def judged(
    criterion: Any, prediction: Prediction, targets: Targets, every: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss and its terms under their names, of the last layer only unless `every`."""
    layers = prediction.layers
    if not every:
        prediction = Prediction(prediction.logits, prediction.boxes, layers[-1:])
    terms = criterion.build()(prediction, targets)
    named = {}
    for name, value in terms.items():
        kind, _, place = name.partition(".")
        suffix = f"_aux_{len(layers) - 1}" if place == "proposals" else ""
        for ours, theirs in (("layer", "_aux_"), ("denoising", "_dn_")):
            if place.startswith(ours):
                suffix = theirs + place.removeprefix(ours)
        named[KINDS[kind] + suffix] = value
    return torch.stack(list(terms.values())).sum(), named
