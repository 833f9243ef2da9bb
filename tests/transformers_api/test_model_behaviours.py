"""What transformers asks of every model in its own tests, asked of the documented classes."""

import copy
import inspect
import json
from pathlib import Path

import pytest
import torch
from small_api import SMALL, SMALL_DETR, label
from torch.utils import _pytree as tree

import rtdetr_lab as lab
from rtdetr_lab.errors import ConfigError

KINDS = {
    "RTDetrForObjectDetection": (lab.RTDetrConfig, SMALL),
    "RTDetrV2ForObjectDetection": (lab.RTDetrV2Config, SMALL),
    "DetrForObjectDetection": (lab.DetrConfig, SMALL_DETR),
    "DetrForSegmentation": (lab.DetrConfig, SMALL_DETR),
}
IMAGES = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(2))


@pytest.fixture(params=KINDS)
def model(request):
    config, small = KINDS[request.param]
    torch.manual_seed(0)
    return getattr(lab, request.param)(config(**copy.deepcopy(small))).eval()


def wanted(model):
    """A label for every picture; masks where the model has them."""
    found = [label((0,)), label((2, 1)), label((1,), (0.3, 0.4, 0.5, 0.2))]
    if type(model).masks:
        for one in found:
            one["masks"] = torch.ones(len(one["class_labels"]), 64, 96)
    return found


@torch.no_grad()
def test_a_picture_alone_has_the_answer_it_has_in_a_batch(model):
    whole = model.double()(IMAGES.double())
    for i, picture in enumerate(IMAGES.double()):
        alone = model(picture[None])
        assert (alone.logits[0] - whole.logits[i]).abs().max() < 1e-9
        assert (alone.pred_boxes[0] - whole.pred_boxes[i]).abs().max() < 1e-9


@torch.no_grad()
def test_the_same_picture_has_the_same_answer_again_and_from_a_copy(model):
    first = model(IMAGES).logits
    for other in (model, copy.deepcopy(model)):
        assert torch.equal(other(IMAGES).logits, first)


@torch.no_grad()
def test_a_tuple_holds_what_the_output_holds_in_its_order(model):
    asked = {"output_attentions": True, "output_hidden_states": True}
    named = model(IMAGES, **asked)
    plain = model(IMAGES, return_dict=False, **asked)
    flat = [tree.tree_leaves(one) for one in (tuple(named.values()), plain)]
    assert len(flat[0]) == len(flat[1]) > 10
    assert all(torch.equal(*pair) for pair in zip(*flat, strict=True))


def test_every_parameter_learns_from_labels(model):
    model.train()(IMAGES, labels=wanted(model)).loss.backward()
    silent = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == set()


def test_a_configuration_is_the_same_after_its_dictionary_and_its_text(model):
    config, kind = model.config, type(model.config)
    assert kind.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert config.to_json_string() == kind.from_dict(config.to_dict()).to_json_string()


def test_a_model_can_be_built_without_memory(model):
    with torch.device("meta"):
        empty = type(model)(model.config)
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (empty, model)]
    assert shapes[0] == shapes[1]
    assert {p.device.type for p in empty.parameters()} == {"meta"}


def test_unknown_keys_of_a_configuration_are_kept_and_named(tmp_path, caplog):
    """As in transformers, where a misspelled parameter gives no message at all."""
    config = lab.RTDetrConfig(**SMALL, decoder_layer=7, note="ours")
    assert "keeps decoder_layer, note, but nothing reads it" in caplog.text
    assert (config.note, config.decoder_layers) == ("ours", 2)
    config.save_pretrained(tmp_path)
    assert lab.RTDetrConfig.from_pretrained(tmp_path).decoder_layer == 7
    assert copy.deepcopy(config) == config
    assert config.dtype is None
    config.dtype = "float16"
    assert config.dtype == "float16"
    with pytest.raises(AttributeError, match="RTDetrConfig has no notes"):
        _ = config.notes
    assert "num_queries" in inspect.signature(lab.RTDetrConfig).parameters
    config.note = "theirs"
    assert config.to_dict()["note"] == "theirs"
    typed = lab.RTDetrConfig(**SMALL, dtype=torch.float16, extra=None)
    assert json.loads(typed.to_json_string())["dtype"] == "float16"


def test_a_keyword_cannot_change_what_a_class_is_and_other_names_are_the_same_parameters():
    first = lab.RTDetrConfig(**SMALL)
    second = lab.RTDetrV2Config(**first.to_dict())
    assert second.model_type == second.to_dict()["model_type"] == "rt_detr_v2"
    named = {name: value for name, value in SMALL.items() if name != "d_model"}
    config = lab.RTDetrConfig(**named, hidden_size=SMALL["d_model"])
    assert config.d_model == config.hidden_size == config.to_dict()["d_model"] == SMALL["d_model"]
    assert "hidden_size" not in config.to_dict()


def test_a_configuration_of_your_own_keeps_its_arguments():
    class Mine(lab.RTDetrConfig):
        def __init__(self, mine=3, **rest):
            self.__dict__["mine"] = mine
            super().__init__(**rest)

    config = Mine(mine=7, **SMALL)
    assert (config.mine, config.d_model) == (7, SMALL["d_model"])


def test_a_parameter_that_is_read_at_the_start_cannot_change_later():
    config = lab.RTDetrConfig(**SMALL)
    with pytest.raises(ConfigError, match=r"RTDetrConfig\[use_timm_backbone\]: is read only when"):
        config.use_timm_backbone = True
    assert {"d_model", "id2label", "backbone_config"} <= set(config) == set(config.to_dict())


@torch.no_grad()
def test_a_model_without_heads_has_no_logits_and_one_inside_a_detector_has():
    config = lab.RTDetrConfig(**SMALL)
    assert lab.RTDetrModel(config).eval()(IMAGES).intermediate_logits == ()
    inner = lab.RTDetrForObjectDetection(config).eval().model
    assert inner(IMAGES).intermediate_logits.shape == (3, 2, 10, 3)


@pytest.mark.parametrize("kind", ["RTDetrImageProcessor", "DetrImageProcessor"])
def test_a_processor_keeps_unknown_keys_in_its_file_and_says_where_it_is(kind, tmp_path):
    processor = getattr(lab, kind)(do_normalize=False, note="night shift")
    (path,) = processor.save_pretrained(tmp_path / "deep" / "folder")
    assert json.loads(Path(path).read_text())["note"] == "night shift"
    again = getattr(lab, kind).from_pretrained(tmp_path / "deep" / "folder")
    assert again.note == "night shift"
    assert again.to_dict() == processor.to_dict()
