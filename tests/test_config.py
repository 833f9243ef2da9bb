"""Configs are values: changed by path, compared by path, and the same after a trip through JSON."""

import json
import string
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rtdetr_lab import config_json, rtdetr
from rtdetr_lab.config import (
    build,
    diff,
    extend,
    replace_at,
    require,
    require_at_least,
    require_below_one,
    require_between,
    require_divisible,
    require_weights,
)
from rtdetr_lab.config_json import from_dict, from_json, to_json
from rtdetr_lab.decoder import look_forward_once
from rtdetr_lab.detr.segmentation import detr_r50_panoptic
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.layers import sine_2d_authors
from rtdetr_lab.losses import BinaryCrossEntropy
from rtdetr_lab.query_selection import LearnedContent
from rtdetr_lab.samplers import Discrete


@dataclass(frozen=True)
class Part:
    num_heads: int = 8
    scale: float = 0.5
    act: Callable[..., Any] = F.relu
    points: int | tuple[int, ...] = 4

    def __post_init__(self):
        require(self.num_heads >= 1, "num_heads", f"is {self.num_heads}", "have at least one")

    def build(self):
        return f"{self.num_heads} heads"


@dataclass(frozen=True)
class Other:
    num_heads: int = 8


@dataclass(frozen=True)
class Whole:
    dim: int = 256
    live: bool = False
    name: str = ""
    depth: int | None = None
    encoder: Any = field(default_factory=Part)
    parts: tuple[Part, ...] = (Part(), Part())


OWN = [Part, Other, Whole]

parts = st.builds(
    Part,
    num_heads=st.integers(1, 64),
    scale=st.floats(allow_nan=False, allow_infinity=False),
    act=st.sampled_from([F.relu, F.gelu, F.silu, torch.tanh, torch.nn.BatchNorm2d]),
    points=st.integers(1, 9) | st.lists(st.integers(1, 9)).map(tuple),
)
wholes = st.builds(
    Whole,
    dim=st.integers(),
    live=st.booleans(),
    name=st.text(),
    depth=st.none() | st.integers(),
    encoder=parts | st.builds(Other) | st.none(),
    parts=st.lists(parts, max_size=3).map(tuple),
)


@given(wholes)
def test_a_config_is_itself_after_a_trip_through_json(cfg):
    back = from_json(to_json(cfg), classes=OWN)
    assert back == cfg
    assert diff(cfg, back) == {}
    assert isinstance(back.parts, tuple)


@given(wholes, st.integers(1, 99))
def test_replacing_then_diffing_names_exactly_what_was_replaced(cfg, heads):
    cfg = replace_at(cfg, "encoder", Part(num_heads=100))
    new = replace_at(cfg, "encoder.num_heads", heads)
    assert diff(cfg, new) == {"encoder.num_heads": (100, heads)}
    assert replace_at(new, "encoder.num_heads", 100) == cfg


def test_a_config_of_another_class_has_the_values_that_both_have():
    part = Part(4, points=(3, 1))
    assert extend(part, Other) == Other(4)
    back = extend(Other(2), Part, scale=0.25)
    assert back == Part(2, scale=0.25), "its own defaults for the rest"
    with pytest.raises(ConfigError, match="have at least one"):
        extend(Other(0), Part)


def test_a_step_of_a_path_may_be_an_index_into_a_tuple():
    new = replace_at(Whole(), "parts.1.scale", 2.0)
    assert diff(Whole(), new) == {"parts.1.scale": (0.5, 2.0)}


def test_parts_of_another_class_differ_as_a_whole():
    a, b = Whole(), Whole(encoder=Other())
    assert diff(a, b) == {"encoder": (Part(), Other())}
    assert diff(1, True) == {"": (1, True)}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("encoder.num_head", "num_heads"),
        ("encodr.num_heads", "encoder"),
        ("parts.2.scale", "0 … 1"),
        ("parts.first", "0 … 1"),
        ("dim.x", "end the path"),
        ("", "dim"),
    ],
)
def test_a_wrong_path_names_the_nearest_field(path, says):
    with pytest.raises(ConfigError, match=says):
        replace_at(Whole(), path, 1)


def test_replacing_runs_the_checks_again():
    with pytest.raises(ConfigError, match="at least one"):
        replace_at(Whole(), "encoder.num_heads", 0)


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda: require_at_least(1, "decoder", dim=3, ffn_dim=0), r"decoder\.ffn_dim: is 0; .*1"),
        (lambda: require_at_least(1, "", num_classes=0), r"^num_classes: is 0; give at least 1"),
        (lambda: require_at_least(0, "a", b=float("nan")), r"a\.b: is nan"),
        (lambda: require_between(0, 2, "a", b=2.5), r"a\.b: is 2\.5; .*from 0 to 2"),
        (lambda: require_below_one("a", b=0.5, c=1.0), r"a\.c: is 1\.0; .*below 1"),
        (lambda: require_below_one("a", b=-0.1), r"a\.b: is -0\.1"),
        (lambda: require_divisible("a", 24, 8, 5), r"24 cannot be divided by 5; .+multiple of 5"),
        (lambda: require_divisible("a", 24, 0), r"a: 24 cannot be divided by 0"),
        (lambda: require_weights("a", 0.0, 0.0), r"a: weights \(0\.0, 0\.0\) are all zero, or one"),
        (lambda: require_weights("a", 3.0, -1.0), r"a: weights \(3\.0, -1\.0\) are all zero"),
    ],
)
def test_a_guard_names_the_field_its_value_and_what_to_give(check, says):
    with pytest.raises(ConfigError, match=says):
        check()


def test_a_guard_lets_pass_what_is_on_the_edge():
    require_at_least(1, "a", b=1, c=1.5)
    require_between(0, 2, "a", b=0, c=2.0)
    require_below_one("a", b=0.0, c=0.999)
    require_divisible("a", 24, 8, 24, 1)
    require_weights("a", 0.0, 2)


def test_build_asks_for_a_config():
    assert build(Part()) == "8 heads"
    with pytest.raises(ConfigError, match="give a config"):
        build(torch.nn.ReLU())


def _spoil(change):
    tree = config_json.to_dict(Whole())
    change(tree)
    return tree


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        (lambda t: t.update(dmi=3), "dmi", "did you mean dim"),
        (lambda t: t.update(dim="3"), "dim", "give int"),
        (lambda t: t.update(dim=True), "dim", "give int"),
        (lambda t: t.update(dim=None), "dim", "give int"),
        (lambda t: t.update(live=1), "live", "give bool"),
        (lambda t: t["encoder"].update(num_heads=0), "encoder: num_heads", "at least one"),
        (lambda t: t["encoder"].update(points=["a"]), "encoder.points", "give int"),
        (lambda t: t["encoder"].update(points={"function": "relu"}), "encoder.points", "give int"),
        (lambda t: t["encoder"].update(act=3), "encoder.act", "give"),
        (lambda t: t["encoder"].update(act={"function": "system"}), "encoder.act", "gelu"),
        (lambda t: t["encoder"].update(act={"function": "os:system"}), "encoder.act", "gelu"),
        (lambda t: t["parts"][1].pop("class"), "parts.1", 'no "class"'),
        (lambda t: t["parts"].append(7), "parts", "give"),
        (lambda t: t.update({"class": "os:system"}), "class", "not a class of rtdetr_lab"),
        (lambda t: t.update({"class": ["x"]}), "class", "not a class of rtdetr_lab"),
        (lambda t: t.update({"class": "rtdetr_lab.nowhere:A"}), "class", "does not exist"),
        (lambda t: t.update({"class": "rtdetr_lab.__main__:Main"}), "class", "not a class"),
        (lambda t: t.update({"class": "rtdetr_lab.errors:ConfigError"}), "class", "not a config"),
        (lambda t: t.update({"class": "rtdetr_lab.config:Any"}), "class", "not a config"),
        (lambda t: t.pop("class"), "config", "to_json"),
    ],
)
def test_a_spoilt_tree_is_refused_with_the_place_and_the_remedy(change, where, says):
    with pytest.raises(ConfigError, match=says) as caught:
        from_dict(_spoil(change), classes=OWN)
    assert caught.value.where == where


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, '"class"'])
def test_text_that_is_no_config_is_refused(text):
    with pytest.raises(ConfigError):
        from_json(text)


def test_numbers_that_are_not_finite_are_refused_both_ways():
    with pytest.raises(ConfigError, match="finite"):
        to_json(Part(scale=float("inf")))
    text = to_json(Part()).replace("0.5", "NaN")
    with pytest.raises(ConfigError, match="finite"):
        from_json(text, classes=OWN)


def test_a_missing_value_without_a_default_is_named():
    needs = make_dataclass("Needs", [("dim", int)], frozen=True)
    with pytest.raises(ConfigError, match="dim"):
        from_dict({"class": config_json._path_of(needs)}, classes=[needs])


def test_what_cannot_be_kept_is_refused_when_writing():
    with pytest.raises(ConfigError, match="encoder"):
        to_json(Whole(encoder=[1, 2]))
    with pytest.raises(ConfigError, match="frozen dataclass"):
        to_json({"a": 1})


def test_a_readers_own_class_and_function_come_back_only_when_passed():
    def squared_relu(x):
        return F.relu(x) ** 2

    text = to_json(Whole(encoder=Part(act=squared_relu)))
    with pytest.raises(ConfigError, match="classes"):
        from_json(text)
    with pytest.raises(ConfigError, match="classes"):
        from_json(text, classes=OWN)
    assert from_json(text, classes=[*OWN, squared_relu]).encoder.act is squared_relu


def test_json_is_for_people_too():
    tree = json.loads(to_json(Part(points=(4, 4, 2))))
    name = tree.pop("class")
    assert name.endswith("test_config:Part")
    assert tree == {
        "num_heads": 8, "scale": 0.5, "act": {"function": "relu"}, "points": [4, 4, 2]
    }  # fmt: skip


def test_every_function_of_the_table_exists_and_is_found_again():
    for name, at in config_json.FUNCTIONS.items():
        assert config_json._encode(config_json._resolve(at), "") == {"function": name}


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5) | st.just("class"), inner),
))  # fmt: skip
def test_no_tree_raises_anything_but_a_config_error(tree):
    with pytest.raises(ConfigError):
        from_dict(tree, classes=OWN)


@pytest.mark.parametrize("name", ["r18", "r34", "r50_m", "r50", "r101", "nano"])
def test_every_preset_is_itself_after_a_trip_through_json(name):
    cfg = getattr(rtdetr, f"rtdetr_{name}")(7)
    assert from_json(to_json(cfg)) == cfg


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("decoder.sampler", Discrete(shift=0.5)),
        ("decoder.num_points", (4, 2, 1)),
        ("decoder.box_gradient", look_forward_once),
        ("encoder.aifi.positions", sine_2d_authors),
        ("encoder.aifi", None),
        ("selection", LearnedContent(num_queries=30)),
        ("backbone.norm", torch.nn.BatchNorm2d),
        ("criterion.classification", BinaryCrossEntropy(iou_target=True)),
    ],
)
def test_every_kind_of_variant_is_itself_after_a_trip_through_json(path, value):
    cfg = replace_at(rtdetr.rtdetr_r18(), path, value)
    assert from_json(to_json(cfg)) == cfg


OLD_PATHS = {
    "rtdetr_lab.detr:DETRConfig": "rtdetr_lab.detr.model",
    "rtdetr_lab.resnet:ResNetConfig": "rtdetr_lab.detr.resnet",
    "rtdetr_lab.detr_positions:SinePositions": "rtdetr_lab.detr.positions",
    "rtdetr_lab.detr_transformer:DETRDecoderConfig": "rtdetr_lab.detr.transformer",
    "rtdetr_lab.mask_losses:MaskCriterionConfig": "rtdetr_lab.detr.mask_losses",
    "rtdetr_lab.segmentation:SegmentationConfig": "rtdetr_lab.detr.segmentation",
}


@pytest.mark.parametrize("path", OLD_PATHS)
def test_a_class_is_found_by_the_path_that_older_files_hold(path):
    name = path.partition(":")[2]
    found = config_json._find_class(path, "")
    assert (found.__module__, found.__name__) == (OLD_PATHS[path], name)


def test_a_detr_saved_before_the_move_loads_equal():
    cfg = detr_r50_panoptic(num_classes=3)
    text = to_json(cfg)
    for before, now in config_json.MOVED.items():
        text = text.replace(f'"{now}:', f'"{before}:')
    assert '"rtdetr_lab.segmentation:' in text
    assert '"rtdetr_lab.detr.' not in text
    assert from_json(text) == cfg
