r"""# Fields: the documented outputs, from the records of a forward pass

The loss terms are ours under their names: `class.layer0` is their `loss_vfl_aux_0`, and the
proposals are their last `_aux_`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.structures import Prediction, Targets

KINDS = {"class": "loss_vfl", "l1": "loss_bbox", "giou": "loss_giou"}


def kept(lab: Any, asked: Mapping[str, bool]) -> list[str]:
    """Return the names of the taps that a call needs."""
    names = ["decoder.content.*", "proposal_head.*", "encoder.ccff.bottom_up.*"]
    if asked["output_attentions"]:
        names.append("decoder.layers.*.weights")
        if _layers(lab):
            names.append("encoder.aifi.layers.*.weights")
    if asked["output_hidden_states"] and _layers(lab):
        names.append("encoder.aifi.F5")
    return names


def _layers(lab: Any) -> int:
    return len(getattr(lab.encoder.aifi, "layers", ()))


def fields_of(
    lab: Any,
    prediction: Prediction,
    seen: Any,
    started: Mapping[str, tuple[Any, ...]],
    asked: Mapping[str, bool],
) -> dict[str, Any]:
    """Make all fields of `RTDetrModelOutput`; `started` are the inputs of decoder and AIFI."""
    start, reference_logits = started["decoder"][:2]
    count, levels = len(prediction.layers), len(lab.encoder.channels)
    content = [seen[f"decoder.content.{i}"] for i in range(count)]
    proposals = prediction.proposals
    assert proposals is not None
    found = {
        "last_hidden_state": content[-1],
        "intermediate_hidden_states": torch.stack(content, dim=1),
        "intermediate_logits": _all(prediction, "logits"),
        "intermediate_reference_points": _all(prediction, "boxes"),
        "encoder_last_hidden_state": [seen[f"encoder.ccff.bottom_up.{i}"] for i in range(levels)],
        "init_reference_points": reference_logits.detach(),
        "enc_topk_logits": proposals.logits,
        "enc_topk_bboxes": proposals.boxes,
        "enc_outputs_class": seen["proposal_head.logits"],
        "enc_outputs_coord_logits": seen["proposal_head.box_logits"],
        "denoising_meta_values": _meta(prediction),
    }
    if asked["output_hidden_states"]:
        found["decoder_hidden_states"] = (start, *content)
        if _layers(lab):
            found["encoder_hidden_states"] = (started["aifi"][0], seen["encoder.aifi.F5"])
    if asked["output_attentions"]:
        found |= _attentions(lab, seen, count, asked["by_level"])
    return found


def _attentions(lab: Any, seen: Any, count: int, by_level: bool) -> dict[str, Any]:
    own = tuple(seen[f"decoder.layers.{i}.self_attn.weights"] for i in range(count))
    cross = [seen[f"decoder.layers.{i}.cross_attn.weights"] for i in range(count)]
    if by_level:  # v1 has an axis of levels; v2 has not, as its levels may differ in points
        levels = lab.cfg.decoder.num_levels
        cross = [weights.unflatten(-1, (levels, -1)) for weights in cross]
    layers = range(_layers(lab))
    encoder = tuple(seen[f"encoder.aifi.layers.{i}.self_attn.weights"] for i in layers)
    found = {"decoder_attentions": own, "cross_attentions": tuple(cross)}
    return found | ({"encoder_attentions": encoder} if encoder else {})


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
