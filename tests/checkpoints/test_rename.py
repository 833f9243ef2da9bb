"""The same tensor under three names: every table is a bijection, over real lists."""

import pytest
import torch
from name_lists import LISTS, build_shapes, comparable, read_list

from rtdetr_lab.checkpoints.infer import PRESETS, infer_config, points_from_scale, signature
from rtdetr_lab.checkpoints.rename import (
    export_tensors,
    import_tensors,
    is_derived,
    table_of,
    to_ours,
    to_theirs,
)
from rtdetr_lab.checkpoints.strict import num_classes_of
from rtdetr_lab.checkpoints.tables import AUTHORS, TABLES, TRANSFORMERS
from rtdetr_lab.config import diff
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.rtdetrv2 import with_points

OF_THESE_TABLES = [preset for preset in PRESETS if not preset.__name__.startswith("dfine")]
"""D-FINE has tables of its own: tests/successors."""

AUTHORS_LISTS = sorted(path.stem for path in LISTS.glob("keys_rtdetr*.txt"))


def test_the_lists_of_the_authors_names_are_there():
    assert len(AUTHORS_LISTS) == 6


@pytest.mark.parametrize("stem", AUTHORS_LISTS)
def test_the_authors_names_and_shapes_are_exactly_a_presets(stem):
    tensors = read_list(stem)
    assert table_of(tensors) is AUTHORS
    ours = import_tensors(AUTHORS, tensors, stem)
    cfg = infer_config(ours, stem)
    assert comparable({n: t.shape for n, t in ours.items()}) == comparable(build_shapes(cfg))
    named = stem.removeprefix("keys_").replace("rtdetrv2", "rtdetr")
    assert diff(cfg, next(p for p in PRESETS if p.__name__ == named)(80)) == {}


@pytest.mark.parametrize("stem", AUTHORS_LISTS)
def test_the_authors_names_come_back_unless_they_are_v2s_synonyms(stem):
    for name in read_list(stem):
        ours = to_ours(AUTHORS, name)
        if is_derived(AUTHORS, name):
            continue
        assert ours is not None, name
        back = to_theirs(AUTHORS, ours)
        synonym = "v2" in stem and ("input_proj" in name or "enc_output" in name)
        assert back == name or (synonym and to_ours(AUTHORS, back) == ours)


@pytest.mark.parametrize("preset", OF_THESE_TABLES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.title)
def test_all_our_names_go_out_and_come_back(preset, table):
    with torch.device("meta"):
        ours = preset(80).build().state_dict()
    theirs = export_tensors(table, ours, "")
    assert table_of(theirs) is table
    back = import_tensors(table, theirs, "")
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in ours.items()}


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.title)
def test_no_two_of_our_tensors_share_a_name_of_theirs(table):
    with torch.device("meta"):
        ours = rtdetr_nano(5).build().state_dict()
    theirs = export_tensors(table, ours, "")
    stacked = sum(".q_proj." in n for n in ours) * 2 if table.stacks_attention else 0
    assert len(theirs) == len(ours) - stacked


def test_every_row_has_the_same_placeholders_on_both_sides():
    import re

    for table in TABLES:
        for ours, theirs in table.rows:
            assert sorted(re.findall(r"<\w+>", ours)) == sorted(re.findall(r"<\w+>", theirs))
            for word in re.findall(r"<(\w+)>", ours):
                pairs = table.words.get(word, ())
                assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def test_the_three_input_maps_are_thirds_of_the_authors_one():
    whole = torch.arange(24.0).reshape(6, 4)
    name = "decoder.decoder.layers.0.self_attn.in_proj_weight"
    ours = import_tensors(AUTHORS, {name: whole}, "")
    parts = [ours[f"decoder.layers.0.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(export_tensors(AUTHORS, ours, "")[name], whole)


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (
            "model.encoder.aifi.0.layers.0.self_attn.o_proj.weight",
            "model.encoder.encoder.0.layers.0.self_attn.out_proj.weight",
        ),
        ("model.decoder.layers.1.mlp.fc1.bias", "model.decoder.layers.1.fc1.bias"),
        ("class_embed.2.weight", "model.decoder.class_embed.2.weight"),
        ("bbox_embed.0.layers.2.bias", "model.decoder.bbox_embed.0.layers.2.bias"),
    ],
)
def test_names_in_memory_and_tied_copies_are_the_names_in_the_file(newer, older):
    assert to_ours(TRANSFORMERS, newer) == to_ours(TRANSFORMERS, older) is not None


def test_two_names_of_one_tensor_must_agree():
    one = {"class_embed.0.weight": torch.ones(2, 2)}
    same = one | {"model.decoder.class_embed.0.weight": torch.ones(2, 2)}
    assert list(import_tensors(TRANSFORMERS, same, "f")) == ["decoder.class_heads.0.weight"]
    other = one | {"model.decoder.class_embed.0.weight": torch.zeros(2, 2)}
    with pytest.raises(CheckpointError, match=r"f\[model.decoder.class_embed.0.weight\]"):
        import_tensors(TRANSFORMERS, other, "f")


def test_a_tensor_their_format_cannot_name_is_refused():
    with pytest.raises(CheckpointError, match=r"explorer\.weight"):
        export_tensors(TRANSFORMERS, {"explorer.weight": torch.ones(1)}, "out")


def test_foreign_names_have_no_table():
    assert table_of(["roi_heads.box_head.fc6.weight"]) is None


def test_points_are_read_from_shapes_and_unequal_ones_from_v2s_vector():
    assert points_from_scale(torch.tensor([1 / 4] * 4 + [1 / 2] * 2 + [1.0])) == (4, 2, 1)
    for points in (3, (4, 2, 1)):
        cfg = with_points(rtdetr_nano(7), points)
        with torch.device("meta"):
            tensors = cfg.build().state_dict()
        scale = None if points == 3 else torch.tensor([1 / 4] * 4 + [1 / 2] * 2 + [1.0])
        assert infer_config(tensors, "", scale) == cfg


def test_what_is_no_rtdetr_or_no_published_size_is_named():
    with pytest.raises(CheckpointError, match=r"holds no RT-DETR.*fc\.weight"):
        infer_config({"fc.weight": torch.ones(1)}, "x.pth")
    with torch.device("meta"):
        tensors = rtdetr_nano(7).build().trim(2).state_dict()
    assert num_classes_of(tensors) == 7
    assert signature(tensors)["decoder_layers"] == 2
    with pytest.raises(CheckpointError, match="config="):
        infer_config(tensors, "x.pth")
