"""DETR's tensors under three names: every table is a bijection, over real lists."""

import pytest
import torch
from name_lists import build_shapes, comparable, read_list

from rtdetr_lab.checkpoints.rename import (
    ALL_TABLES,
    export_tensors,
    import_tensors,
    table_of,
    to_ours,
    to_theirs,
)
from rtdetr_lab.checkpoints.tables import TABLES
from rtdetr_lab.checkpoints.tables_detr import (
    DETR,
    DETR_AUTHORS,
    DETR_MASK_TABLES,
    DETR_MASKS_AUTHORS,
    DETR_TABLES,
    DETR_TIMM,
)
from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.model import detr_nano, detr_r50
from rtdetr_lab.detr.positions import LearnedPositions
from rtdetr_lab.detr.segmentation import detr_r50_panoptic
from rtdetr_lab.rtdetr import rtdetr_nano

LEARNED = replace_at(detr_nano(), "positions", LearnedPositions())
AUTHORS_LISTS = {
    "keys_fb_detr_r50": (DETR_AUTHORS, detr_r50),
    "keys_fb_detr_r50_panoptic": (DETR_MASKS_AUTHORS, detr_r50_panoptic),
}
MODELS = {
    **{
        (t.title, n): (t, c)
        for t in DETR_TABLES
        for n, c in (("r50", detr_r50()), ("learned", LEARNED))
    },
    **{(t.title, "panoptic"): (t, detr_r50_panoptic()) for t in DETR_MASK_TABLES},
}


@pytest.mark.parametrize("stem", AUTHORS_LISTS)
def test_the_authors_names_and_shapes_are_exactly_the_presets(stem):
    table, preset = AUTHORS_LISTS[stem]
    tensors = read_list(stem)
    assert table_of(tensors) is table
    ours = import_tensors(table, tensors, stem)
    classes = len(ours["class_head.bias"]) - 1
    assert comparable({n: t.shape for n, t in ours.items()}) == build_shapes(preset(classes))
    assert all(to_theirs(table, to_ours(table, name)) == name for name in tensors)


@pytest.mark.parametrize(("table", "cfg"), MODELS.values(), ids=map(str, MODELS))
def test_all_our_names_go_out_and_come_back(table, cfg):
    with torch.device("meta"):
        ours = cfg.build().state_dict()
    theirs = export_tensors(table, ours, "")
    assert table_of(theirs) is table
    back = import_tensors(table, {n: torch.zeros(t.shape) for n, t in theirs.items()}, "")
    assert comparable({n: t.shape for n, t in back.items()}) == comparable(
        {n: t.shape for n, t in ours.items()}
    )
    assert len(set(theirs)) == len(theirs)


def test_both_namings_of_transformers_differ_below_the_backbones_roof_only():
    with torch.device("meta"):
        ours = detr_r50().build().state_dict()
    own, timm = (set(export_tensors(t, ours, "")) for t in (DETR, DETR_TIMM))
    assert len(own ^ timm) == 2 * sum(n.startswith("backbone.") for n in ours)
    assert all(name.startswith("model.backbone.conv_encoder.model.") for name in own ^ timm)
    assert "model.backbone.conv_encoder.model.layer4.2.bn3.running_var" in timm
    last = "encoder.stages.3.layers.2.layer.2.normalization.running_var"
    assert f"model.backbone.conv_encoder.model.{last}" in own


def test_no_table_takes_the_files_of_another_for_its_own():
    with torch.device("meta"):
        rtdetr, detr = rtdetr_nano().build().state_dict(), detr_nano().build().state_dict()
        masks = detr_r50_panoptic().build().state_dict()
    for tables, ours in ((TABLES, rtdetr), (DETR_TABLES, detr), (DETR_MASK_TABLES, masks)):
        for table in tables:
            assert table in ALL_TABLES
            assert table_of(export_tensors(table, ours, "")) is table
    assert table_of(detr_nano().build().state_dict()) is None


def test_a_name_of_another_model_has_no_translation():
    assert to_ours(DETR, "model.encoder_input_proj.0.0.weight") is None
    assert to_theirs(DETR_AUTHORS, "denoising.label_embedding.weight") is None
