"""The documented RT-DETR classes against transformers' own: one set of weights, every field.

The oracle is transformers (RT-DETR, RT-DETRv2) in fp64, with eager attention.
"""

import inspect

import numpy as np
import pytest
import torch
from oracle import spread, transformers
from PIL import Image

import rtdetr_lab as lab
from rtdetr_lab.transformers_api.options import GONE

BACKBONE = {
    "embedding_size": 16,
    "hidden_sizes": [16, 24, 32, 48],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_indices": [2, 3, 4],
}
SMALL = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [24, 32, 48],
    "encoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "hidden_expansion": 0.5,
    "d_model": 32,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 40,
    "decoder_layers": 3,
    "decoder_attention_heads": 4,
    "num_queries": 12,
    "num_labels": 5,
    "num_denoising": 10,
}
KINDS = ("RTDetr", "RTDetrV2")


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """(theirs, ours), both for detection, ours read from the folder theirs wrote."""
    kind = request.param
    inner = transformers.RTDetrResNetConfig(**BACKBONE)
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=inner, attn_implementation="eager", **SMALL
    )
    theirs = spread(getattr(transformers, f"{kind}ForObjectDetection")(config))
    folder = tmp_path_factory.mktemp(kind)
    theirs.save_pretrained(folder)
    ours = getattr(lab, f"{kind}ForObjectDetection").from_pretrained(folder)
    return theirs.double(), ours.double()


@pytest.fixture(autouse=True)
def double():
    """Their denoising draws in the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def labels():
    rng = torch.Generator().manual_seed(3)
    return [
        {
            "class_labels": torch.randint(5, (count,), generator=rng),
            "boxes": 0.3 + 0.3 * torch.rand(count, 4, generator=rng),
        }
        for count in (3, 1)
    ]


def same(mine, theirs, name):
    assert type(mine) is type(theirs) or isinstance(mine, list | tuple), name
    if isinstance(theirs, torch.Tensor):
        assert mine.shape == theirs.shape, (name, mine.shape, theirs.shape)
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9, msg=name)
    elif isinstance(theirs, dict):
        assert set(mine) == set(theirs), name
        for key, value in theirs.items():
            same(mine[key], value, f"{name}[{key}]")
    elif isinstance(theirs, list | tuple):
        assert len(mine) == len(theirs), name
        for i, value in enumerate(theirs):
            same(mine[i], value, f"{name}[{i}]")
    else:
        assert mine == theirs, name


ALL = {"output_attentions": True, "output_hidden_states": True}


@torch.no_grad()
def test_every_field_is_theirs(pair, rng):
    theirs, ours = pair
    images = torch.rand(2, 3, 96, 128, generator=rng, dtype=torch.float64)
    for settings in ({}, ALL, {"labels": labels()}, {"labels": labels(), **ALL}):
        expected, mine = theirs(images, **settings), ours(images, **settings)
        assert list(mine.keys()) == list(expected.keys())
        for name in list(expected):
            same(mine[name], expected[name], name)


@torch.no_grad()
def test_the_model_without_its_answer_is_theirs(pair, rng):
    theirs, ours = pair
    kind = type(ours).__name__.removesuffix("ForObjectDetection")
    images = torch.rand(1, 3, 96, 96, generator=rng, dtype=torch.float64)
    model = getattr(lab, f"{kind}Model").around(ours.config, ours.lab)
    expected, mine = theirs.model(images), model(images)
    assert list(mine.keys()) == list(expected.keys())
    for name in list(expected):
        same(mine[name], expected[name], name)


def test_training_terms_and_denoising_are_theirs(pair, rng):
    theirs, ours = pair
    images = torch.rand(2, 3, 96, 96, generator=rng, dtype=torch.float64)
    for model in pair:
        model.train()
        for module in model.modules():  # so that one call does not change the next
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    torch.manual_seed(5)
    expected = theirs(images, labels=labels())
    torch.manual_seed(5)
    mine = ours(images, labels=labels())
    theirs.eval(), ours.eval()
    assert any("_dn_" in name for name in expected.loss_dict)
    same(mine.loss_dict, dict(expected.loss_dict), "loss_dict")
    same(mine.loss, expected.loss, "loss")
    split = expected.denoising_meta_values["dn_num_split"]
    same(mine.denoising_meta_values["dn_num_split"], list(split), "split")
    same(mine.intermediate_logits, expected.intermediate_logits, "intermediate_logits")
    assert mine.logits.shape == (2, 12, 5)


def test_one_weight_off_by_one_percent_would_be_seen(pair, rng):
    theirs, ours = pair
    images = torch.rand(1, 3, 96, 96, generator=rng, dtype=torch.float64)
    weight = ours.lab.decoder.layers[0].ffn.state_dict(keep_vars=True)
    first = next(iter(weight.values()))
    with torch.no_grad():
        first *= 1.01
        off = (ours(images).logits - theirs(images).logits).abs().max()
        first /= 1.01
    assert off > 1e-6


def test_what_we_save_theirs_reads(pair, tmp_path, rng):
    theirs, ours = pair
    ours.save_pretrained(tmp_path)
    back = type(theirs).from_pretrained(tmp_path, attn_implementation="eager").double().eval()
    images = torch.rand(1, 3, 96, 96, generator=rng, dtype=torch.float64)
    same(back(images).logits, theirs(images).logits, "logits")
    assert back.config.id2label == ours.config.id2label


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_defaults_are_theirs(kind):
    theirs, ours = getattr(transformers, f"{kind}Config"), getattr(lab, f"{kind}Config")
    own = {n: f.default for n, f in theirs.__dataclass_fields__.items()}
    base = {*transformers.PreTrainedConfig.__dataclass_fields__, "tie_word_embeddings"}
    made = ours()
    found = {n: getattr(made, n) for n in own.keys() - base - {"backbone_config"}}
    assert {n: _flat(v) for n, v in found.items()} == {n: _flat(own[n]) for n in found}
    assert "backbone_config" in own
    documented = (set(own) - base) | {*GONE, "is_encoder_decoder"}
    assert len(documented) == {"RTDetr": 56, "RTDetrV2": 58}[kind]
    assert documented <= set(inspect.signature(ours).parameters)


def _flat(value):
    return list(value) if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("kind", KINDS)
def test_json_goes_both_ways(kind, tmp_path):
    inner = transformers.RTDetrResNetConfig(**BACKBONE)
    theirs = getattr(transformers, f"{kind}Config")(backbone_config=inner, **SMALL)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(lab, f"{kind}Config").from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    back = type(theirs).from_pretrained(tmp_path / "ours")
    there, here = theirs.to_dict(), back.to_dict()
    assert {k: v for k, v in there.items() if here.get(k) != v and k != "backbone_config"} == {}
    for key, value in BACKBONE.items():
        assert list(np.atleast_1d(getattr(back.backbone_config, key))) == list(np.atleast_1d(value))


def test_the_backbone_alone_is_theirs(pair, rng):
    theirs, ours = pair
    config = lab.RTDetrResNetConfig(**BACKBONE)
    own = lab.RTDetrResNetBackbone.around(config, ours.lab.backbone)
    images = torch.rand(1, 3, 96, 64, generator=rng, dtype=torch.float64)
    expected = theirs.model.backbone.model(images, output_hidden_states=True)
    mine = own(images, output_hidden_states=True)
    same(mine.feature_maps, expected.feature_maps, "feature_maps")
    same(mine.hidden_states, expected.hidden_states, "hidden_states")


# --- the processor ------------------------------------------------------------------------------


def picture(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def annotation():
    boxes = [[2.0, 3.0, 20.0, 11.0], [-4.0, 10.0, 60.0, 30.0], [5.0, 5.0, 0.0, 4.0]]
    return {
        "image_id": 7,
        "annotations": [
            {"bbox": box, "category_id": i, "area": 10.0 + i, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }


OPTIONS = [
    {},
    {"do_normalize": True},
    {"do_rescale": False},
    {"do_resize": False},
    {"resample": 3},
    {"rescale_factor": 1 / 127},
    {"size": {"height": 40, "width": 72}},
    {"size": {"shortest_edge": 30, "longest_edge": 50}, "do_pad": True},
    {"size": {"max_height": 30, "max_width": 33}},
    {"size": {"height": 32, "width": 32}, "do_pad": True, "pad_size": {"height": 40, "width": 48}},
    {"do_convert_annotations": False},
    {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_processor_is_theirs_to_the_last_bit(options):
    theirs = transformers.RTDetrImageProcessorPil
    given = {"images": picture(57, 41), "annotations": annotation(), "return_tensors": "pt"}
    options = {"size": {"height": 64, "width": 64}, **options}
    expected, mine = theirs(**options)(**given), lab.RTDetrImageProcessor(**options)(**given)
    assert set(mine) == set(expected)
    assert torch.equal(mine["pixel_values"], expected["pixel_values"])
    assert mine["pixel_values"].dtype == expected["pixel_values"].dtype
    if "pixel_mask" in expected:
        assert torch.equal(mine["pixel_mask"], expected["pixel_mask"])
    one, other = mine["labels"][0], expected["labels"][0]
    assert set(one) == set(other)
    for key, value in other.items():
        assert torch.equal(one[key], value), key


@torch.no_grad()
def test_boxes_found_are_theirs(pair, rng):
    theirs, ours = pair
    images = torch.rand(2, 3, 96, 96, generator=rng, dtype=torch.float64)
    outputs = theirs(images)
    for sizes in (None, torch.tensor([[480, 640], [33, 77]]), [(20, 30), (40, 50)]):
        expected = transformers.RTDetrImageProcessorPil().post_process_object_detection(
            outputs, threshold=0.3, target_sizes=sizes
        )
        mine = lab.RTDetrImageProcessor().post_process_object_detection(
            ours(images), threshold=0.3, target_sizes=sizes
        )
        for one, other in zip(mine, expected, strict=True):
            assert len(other["scores"])
            same(one, other, "found")
