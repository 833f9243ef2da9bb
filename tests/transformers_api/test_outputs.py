"""Outputs are dictionaries with attributes, trees of tensors, and what gradients flow through."""

import copy

import pytest
import torch
from small_api import SMALL, SMALL_DETR, label
from torch.utils import _pytree as tree

import rtdetr_lab as lab
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.transformers_api.outputs import DetrModelOutput, RTDetrObjectDetectionOutput

EVERYTHING = {"output_attentions": True, "output_hidden_states": True}


def output(**more):
    fields = {"pred_boxes": torch.rand(1, 4, 4), "logits": torch.rand(1, 4, 3)}
    return RTDetrObjectDetectionOutput(**fields, **more)


def test_keys_are_the_fields_that_are_not_none_in_the_documented_order():
    found = output()
    assert isinstance(found, dict)
    assert list(found) == ["logits", "pred_boxes"]
    assert found.get("loss") is None
    found.loss = torch.tensor(2.0)
    assert list(found) == ["loss", "logits", "pred_boxes"]
    assert found[0] is found.loss is found["loss"]
    found["logits"] = found.logits + 1
    assert found.logits is found["logits"]
    found.pred_boxes = None
    assert "pred_boxes" not in found
    with pytest.raises(KeyError):
        found["pred_boxes"]
    for change in (lambda: found.pop("logits"), lambda: found.update(loss=1), found.clear):
        with pytest.raises(ConfigError, match="keeps its fields"):
            change()


def test_what_clients_do_to_a_dictionary_gives_the_same_class_back():
    """accelerate rebuilds every mapping from a dictionary to change the type of its numbers."""
    found = output(intermediate_logits=torch.rand(1, 2, 4, 3))
    halved = type(found)({name: value.half() for name, value in found.items()})
    assert halved.logits.dtype == torch.float16
    assert list(halved) == list(found)
    mapped = tree.tree_map(torch.zeros_like, found)
    assert type(mapped) is type(found)
    assert mapped.logits.sum() == 0
    again = copy.deepcopy(found)
    assert list(again) == list(found)
    assert torch.equal(again.logits, found["logits"])


def test_the_documented_field_of_keys_and_values_is_there_and_empty():
    assert DetrModelOutput(last_hidden_state=torch.zeros(1)).past_key_values is None


@pytest.mark.parametrize("kind", ["RTDetr", "RTDetrV2", "Detr"])
def test_hidden_states_and_attentions_keep_their_gradient(kind):
    torch.manual_seed(0)
    config = getattr(lab, f"{kind}Config")(**(SMALL_DETR if kind == "Detr" else SMALL))
    model = getattr(lab, f"{kind}ForObjectDetection")(config).eval()
    found = model(torch.rand(2, 3, 64, 96), **EVERYTHING)
    kept = [
        getattr(found, f"{part}_{what}")[0]
        for part, what in [
            ("encoder", "hidden_states"),
            ("encoder", "attentions"),
            ("decoder", "attentions"),
        ]
    ] + [found.decoder_hidden_states[1]]
    if kind != "RTDetr":  # its cross attentions are a view with an axis of levels
        kept.append(found.cross_attentions[0])
    for one in kept:
        one.retain_grad()
    (found.logits**2).sum().backward()
    assert [one.grad is not None for one in kept] == [True] * len(kept)
    assert kept[1].grad.any()


def test_labels_in_half_precision_give_a_loss_under_autocast():
    torch.manual_seed(0)
    model = lab.RTDetrForObjectDetection(lab.RTDetrConfig(**SMALL))
    assert model.training, "a new model trains, as documented"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.rand(2, 3, 64, 64), labels=[label(), label((1, 2))]).loss
    loss.backward()
    assert torch.isfinite(loss)
