"""transformers' configuration becomes ours and comes back; what we cannot do is refused by name."""

import json
from dataclasses import fields

import pytest
import torch.nn.functional as F
from torch import nn

from rtdetr_lab.backbone import Bottleneck
from rtdetr_lab.checkpoints.preprocessor import image_size_of, pixels_of, preprocessor_config
from rtdetr_lab.checkpoints.transformers_config import from_transformers, to_transformers
from rtdetr_lab.checkpoints.transformers_fields import DetrFields, ResNetFields, RTDetrV2Fields
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.decoder import look_forward_once
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.layers import sine_2d_authors
from rtdetr_lab.losses import BinaryCrossEntropy
from rtdetr_lab.query_selection import LearnedContent
from rtdetr_lab.rtdetr import (
    rtdetr_r18,
    rtdetr_r34,
    rtdetr_r50,
    rtdetr_r50_m,
    rtdetr_r101,
)
from rtdetr_lab.rtdetrv2 import discrete, with_points
from rtdetr_lab.samplers import Naive

NAMES = tuple("abcd")


def minimal(**changes):
    """All that a config.json may be: the rest is transformers' defaults."""
    names = {str(i): name for i, name in enumerate(NAMES)}
    return {"model_type": "rt_detr", "id2label": names, **changes}


def test_left_out_values_are_transformers_defaults_which_is_r50():
    cfg, names = from_transformers(minimal(), "config.json")
    assert names == NAMES
    assert diff(cfg, rtdetr_r50(4)) == {}
    assert diff(from_transformers(minimal(model_type="rt_detr_v2"), "")[0], rtdetr_r50(4)) == {}


def test_without_labels_there_are_transformers_two():
    _, names = from_transformers({"model_type": "rt_detr"}, "")
    assert names == ("LABEL_0", "LABEL_1")


def test_classes_come_in_the_order_of_their_numbers_not_of_the_file():
    _, names = from_transformers(minimal(id2label={"2": "c", "0": "a", "1": "b"}), "")
    assert names == ("a", "b", "c")


@pytest.mark.parametrize("preset", [rtdetr_r18, rtdetr_r34, rtdetr_r50, rtdetr_r101])
def test_every_published_size_goes_there_and_comes_back(preset):
    tree = json.loads(json.dumps(to_transformers(preset(4), NAMES)))
    cfg, names = from_transformers(tree, "")
    assert (diff(cfg, preset(4)), names) == ({}, NAMES)
    assert tree["model_type"] == "rt_detr"


VARIANTS = {
    "selection": LearnedContent(num_queries=50),
    "backbone.norm": nn.BatchNorm2d,
    "decoder.num_levels": 4,
    "decoder.num_points": 3,
    "decoder.act": F.gelu,
    "encoder.aifi.temperature": 20.0,
    "encoder.aifi.num_layers": 2,
    "denoising": None,
    "denoising.label_noise": 0.2,
    "criterion.l1_weight": 3.0,
    "criterion.classification.gamma": 1.5,
    "criterion.matcher.classification.alpha": 0.5,
    "num_classes": 4,
}


@pytest.mark.parametrize("path", VARIANTS)
def test_a_variant_both_can_say_survives_the_trip(path):
    cfg = replace_at(rtdetr_r18(4), path, VARIANTS[path])
    assert diff(from_transformers(to_transformers(cfg, NAMES), "")[0], cfg) == {}


def test_discrete_sampling_is_their_v2():
    cfg = discrete(rtdetr_r18(4), shift=0.5)
    tree = to_transformers(cfg, NAMES)
    assert (tree["model_type"], tree["decoder_method"]) == ("rt_detr_v2", "discrete")
    assert tree["architectures"] == ["RTDetrV2ForObjectDetection"]
    assert from_transformers(tree, "")[0] == cfg


def test_equal_points_per_level_are_one_number():
    tree = to_transformers(with_points(rtdetr_r18(4), (2, 2, 2)), NAMES)
    assert tree["decoder_n_points"] == 2


def test_what_changes_learning_only_does_not_stop_a_save():
    cfg = replace_at(rtdetr_r18(4), "decoder.box_gradient", look_forward_once)
    cfg = replace_at(cfg, "criterion", CriterionConfig(classification=BinaryCrossEntropy()))
    assert to_transformers(cfg, NAMES)["decoder_layers"] == 3


@pytest.mark.parametrize(
    ("cfg", "where"),
    [
        (with_points(rtdetr_r18(4), (4, 2, 1)), "decoder.num_points"),
        (discrete(rtdetr_r18(4)), "decoder.sampler"),
        (replace_at(rtdetr_r18(4), "decoder.sampler", Naive()), "decoder.sampler"),
        (replace_at(rtdetr_r18(4), "encoder.aifi", None), "encoder.aifi"),
        (replace_at(rtdetr_r18(4), "encoder.aifi.positions", None), "encoder.aifi.positions"),
        (
            replace_at(rtdetr_r18(4), "encoder.aifi.positions", sine_2d_authors),
            "encoder.aifi.positions",
        ),
        (replace_at(rtdetr_r18(4), "encoder.ccff.num_blocks", 2), "encoder.ccff.num_blocks"),
        (replace_at(rtdetr_r18(4), "decoder.act", F.mish), "decoder.act"),
        (rtdetr_r50_m(4), "decoder.inference_layers"),
    ],
)
def test_what_theirs_cannot_say_is_refused_by_path(cfg, where):
    with pytest.raises(ConfigError, match='layout="lab"') as caught:
        to_transformers(cfg, NAMES)
    assert caught.value.where.startswith(where)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model_type": "yolos"}, "model_type"),
        ({"normalize_before": "yes"}, "normalize_before"),
        ({"with_box_refine": False}, "with_box_refine"),
        ({"eval_size": [640, 640]}, "eval_size"),
        ({"attention_dropout": 1.5}, "attention_dropout"),
        ({"decoder_offset_scale": 1.0}, "decoder_offset_scale"),
        ({"decoder_method": "nearest"}, "decoder_method"),
        ({"activation_function": "quick_gelu"}, "activation_function"),
        ({"decoder_layers": "six"}, "decoder_layers"),
        ({"decoder_layers": 0}, "decoder"),
        ({"decoder_n_points": 0}, "num_points"),
        ({"num_queries": -1}, "num_queries"),
        ({"d_model": 2.5}, "d_model"),
        ({"encoder_in_channels": [1, 2, 3]}, "encoder_in_channels"),
        ({"encode_proj_layers": [0, 2]}, "encode_proj_layers"),
        ({"decoder_in_channels": [384, 384, 384]}, "decoder_in_channels"),
        ({"backbone_config": {"model_type": "resnet"}}, "out_indices"),
        ({"backbone_config": {"downsample_in_bottleneck": True}}, "downsample_in_bottleneck"),
        ({"backbone_config": {"depths": [2, 2]}}, "depths"),
        ({"backbone_config": {"layer_type": "wide"}}, "layer_type"),
        ({"backbone_config": {"hidden_sizes": [64, "a"]}}, "hidden_sizes"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"id2label": {"zero": "a"}}, "zero"),
    ],
)
def test_what_we_cannot_do_is_refused_by_key(change, key):
    with pytest.raises(ConfigError, match=key) as caught:
        from_transformers(minimal(**change), "config.json")
    assert caught.value.where.startswith("config.json")


def test_keys_no_computation_reads_are_left_alone():
    extra = {"torch_dtype": "float32", "initializer_range": 0.03, "anchor_image_size": None}
    assert from_transformers(minimal(**extra), "")[0] == rtdetr_r50(4)


def test_the_backbones_outputs_may_be_given_as_names():
    tree = minimal(backbone_config={"out_features": ["stage2", "stage3", "stage4"]})
    assert from_transformers(tree, "")[0].backbone.outputs == (2, 3, 4)
    assert from_transformers(tree, "")[0].backbone.block is Bottleneck


def test_no_field_is_a_repeat_of_another():
    for kind in (RTDetrV2Fields, ResNetFields, DetrFields):
        paths = [path for f in fields(kind) for path in f.metadata.get("paths", ())]
        assert len(set(paths)) == len(paths) > 4


@pytest.mark.parametrize(
    ("tree", "edges"),
    [
        ({"size": 400, "max_size": 700}, (400, 700)),  # files of the first release
        ({"size": 400}, (400, 1333)),
        ({"size": {"shortest_edge": 300, "longest_edge": 500}, "max_size": 700}, (300, 500)),
        ({}, (800, 1333)),
    ],
)
def test_the_edges_of_a_detr_are_read_from_old_and_new_files(tmp_path, tree, edges):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(tree))
    assert pixels_of(path).edges == edges


def test_the_picture_size_is_read_and_other_pixels_are_refused(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    assert image_size_of(path) == (640, 640)
    path.write_text(json.dumps(preprocessor_config((384, 512))))
    assert image_size_of(path) == (384, 512)
    for change in ({"do_normalize": True}, {"rescale_factor": 1.0}):
        path.write_text(json.dumps(preprocessor_config((384, 512)) | change))
        with pytest.raises(CheckpointError, match="normalises"):
            image_size_of(path)
    path.write_text(json.dumps({"size": {"shortest_edge": 800}}))
    with pytest.raises(CheckpointError, match="shortest_edge"):
        image_size_of(path)


def test_the_colours_of_a_detr_are_read_and_stay_without_normalisation(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    tree = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    path.write_text(json.dumps(tree))
    found = pixels_of(path)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    path.write_text(json.dumps(tree | {"do_normalize": False}))
    found = pixels_of(path)
    assert (found.mean, found.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
