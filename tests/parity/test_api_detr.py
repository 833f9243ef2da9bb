"""The documented DETR classes against transformers' own: one set of weights, every field.

The oracle is transformers over its own ResNet, fp64, eager attention (`detr_oracle.py`).
"""

import inspect
import json

import numpy as np
import pytest
import torch
from detr_oracle import (
    SMALL,
    as_theirs,
    doubles,
    labels_of,
    learn_everything,
    pictures,
    run,
    theirs,
    transformers,
)

import rtdetr_lab as lab
from rtdetr_lab.transformers_api.options import GONE

KINDS = {"DetrForObjectDetection": False, "DetrForSegmentation": True}
ALL = {"output_attentions": True, "output_hidden_states": True}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """(theirs, ours), ours read from the folder theirs wrote."""
    kind = request.param
    with torch.random.fork_rng():
        model = theirs(masks=KINDS[kind])
    folder = tmp_path_factory.mktemp(kind)
    model.float().save_pretrained(folder)
    read = type(model).from_pretrained(folder, attn_implementation="eager").double().eval()
    return read, getattr(lab, kind).from_pretrained(folder).double()


def same(mine, expected, name):
    if isinstance(expected, torch.Tensor):
        assert mine.shape == expected.shape, (name, mine.shape, expected.shape)
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9, msg=name)
    elif isinstance(expected, dict):
        assert set(mine) == set(expected), name
        for key, value in expected.items():
            same(mine[key], value, f"{name}[{key}]")
    else:
        assert len(mine) == len(expected), name
        for i, value in enumerate(expected):
            same(mine[i], value, f"{name}[{i}]")


def labels(rng, masks):
    return labels_of((3, 1), rng, size=(64, 97) if masks else None)


@torch.no_grad()
def test_every_field_is_theirs_where_pictures_are_padded(pair, rng):
    model, ours = pair
    given = as_theirs(*pictures(2, 64, 97, rng, padded=True))
    taught = {"labels": labels(rng, ours.masks)}
    for settings in (ALL, taught):
        with doubles():
            expected, mine = model(**given, **settings), ours(**given, **settings)
        assert list(mine.keys()) == list(expected.keys())
        for name in list(expected):
            same(mine[name], expected[name], name)


@torch.no_grad()
def test_the_model_without_its_answer_is_theirs(pair, rng):
    model, ours = pair
    given = as_theirs(*pictures(1, 64, 64, rng))
    inner = lab.DetrModel.around(ours.config, ours.lab).double()
    expected = getattr(model, "detr", model).model(**given, **ALL)
    mine = inner(**given, **ALL)
    assert list(mine.keys()) == list(expected.keys())
    for name in list(expected):
        same(mine[name], expected[name], name)


@torch.no_grad()
def test_queries_hidden_from_the_others_are_hidden_as_theirs_are(pair, rng):
    model, ours = pair
    given = as_theirs(*pictures(2, 64, 64, rng))
    hidden = (torch.arange(12) % 3 != 1).long().expand(2, -1)
    expected = model(**given, decoder_attention_mask=hidden)
    same(ours(**given, decoder_attention_mask=hidden).logits, expected.logits, "logits")
    assert (ours(**given).logits - expected.logits).abs().max() > 1e-6


@torch.no_grad()
def test_a_model_trained_with_auxiliary_losses_answers_as_it_does_there(pair, rng, tmp_path):
    """It normalises the queries between the layers, there and here."""
    model, ours = pair
    given, config = as_theirs(*pictures(2, 64, 97, rng)), model.config
    plain = ours(**given).logits
    config.auxiliary_loss = True
    model.save_pretrained(tmp_path)
    taught = type(ours).from_pretrained(tmp_path).double()
    expected = model(**given)
    config.auxiliary_loss = False
    same(taught(**given).logits, expected.logits, "logits")
    assert (plain - expected.logits).abs().max() > 1e-3
    taught.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, attn_implementation="eager").double().eval()
    same(again(**given).logits, expected.logits, "logits")


def test_terms_of_all_layers_and_their_gradient_are_theirs(pair, rng):
    """Their `auxiliary_loss=True` changes the answer, so layers are judged by hand (`run`)."""
    model, ours = pair
    images, padding = pictures(2, 64, 97, rng, padded=True)
    taught = labels(rng, ours.masks)
    learn_everything(model, ours)
    expected = run(model, images, padding)
    masks = [expected.out.pred_masks] if ours.masks else []
    model.config.auxiliary_loss = ours.config.auxiliary_loss = True
    with doubles():
        loss, terms, extra = model.loss_function(
            expected.out.logits, taught, "cpu", expected.out.pred_boxes, *masks, model.config,
            expected.layer_logits, expected.layer_boxes,
        )  # fmt: skip
    mine = ours(**as_theirs(images, padding), labels=taught)
    model.config.auxiliary_loss = ours.config.auxiliary_loss = False
    same({k: v.double() for k, v in mine.loss_dict.items()}, _double(terms), "loss_dict")
    same(mine.loss, loss, "loss")
    same(mine.auxiliary_outputs, extra, "auxiliary_outputs")
    for one in (loss, mine.loss):
        one.backward()
    there = getattr(model, "detr", model).class_labels_classifier.weight.grad
    same(ours.lab.class_head.weight.grad, there, "gradient")
    model.zero_grad(), ours.zero_grad()


def _double(terms):
    return {k: v.double() for k, v in terms.items()}


@torch.no_grad()
def test_one_weight_off_by_one_percent_would_be_seen(pair, rng):
    model, ours = pair
    given = as_theirs(*pictures(1, 64, 64, rng))
    weight = ours.lab.decoder.layers[0].ffn.fc1.weight
    kept = weight.clone()
    weight *= 1.01
    off = (ours(**given).logits - model(**given).logits).abs().max()
    weight.copy_(kept)
    assert off > 1e-6


@torch.no_grad()
def test_what_we_save_theirs_reads(pair, tmp_path, rng):
    model, ours = pair
    ours.save_pretrained(tmp_path)
    read, info = type(model).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values())
    given = as_theirs(*pictures(1, 64, 64, rng))
    same(read.double().eval()(**given).logits, model(**given).logits, "logits")
    assert read.config.id2label == ours.config.id2label
    pixels = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert np.allclose(pixels["image_mean"], [0.485, 0.456, 0.406])


def test_parameters_and_defaults_are_theirs():
    own = {n: f.default for n, f in transformers.DetrConfig.__dataclass_fields__.items()}
    base = {*transformers.PreTrainedConfig.__dataclass_fields__, "backbone_config"}
    made = lab.DetrConfig()
    assert {n: getattr(made, n) for n in own.keys() - base} == {
        n: own[n] for n in own.keys() - base
    }
    documented = (own.keys() - base) | {"backbone_config", "is_encoder_decoder", *GONE}
    assert documented <= set(inspect.signature(lab.DetrConfig).parameters)


@pytest.mark.parametrize("dilation", [False, True])
def test_json_goes_both_ways(dilation, tmp_path):
    settings = {**SMALL, "dilation": dilation, "class_cost": 3, "decoder_layerdrop": 0.1}
    first = transformers.DetrConfig(**settings)
    first.save_pretrained(tmp_path / "theirs")
    ours = lab.DetrConfig.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    read = json.loads((tmp_path / "ours" / "config.json").read_text())
    there = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert {k: v for k, v in there.items() if read.get(k) != v} == {}
    assert lab.DetrConfig(**settings).backbone_config.items() <= there["backbone_config"].items()
