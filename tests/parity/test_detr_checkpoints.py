"""DETR's checkpoints against transformers: they read what we write, we read what they write.

timm cannot be imported here, so a folder in its naming is made of one in transformers' own.
"""

import json
from importlib.util import find_spec

import pytest
import torch
from detr_oracle import (
    SMALL,
    as_theirs,
    our_config,
    pictures,
    same_weights,
    theirs,
    transformers,
)

from rtdetr_lab.checkpoints.compare import compare
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.rename import export_tensors
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.tables_detr import DETR_MASKS_TIMM, DETR_TIMM
from rtdetr_lab.checkpoints.verify import verify
from rtdetr_lab.config import diff
from rtdetr_lab.detector import Detector

KINDS = {
    "detection": {},
    "basic blocks": {"basic": True},
    "learned positions": {"settings": {**SMALL, "position_embedding_type": "learned"}},
    "masks": {"masks": True},
}


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    """(their model, their folder)."""
    with torch.random.fork_rng():
        model = theirs(**KINDS[request.param])
    model.float().save_pretrained(tmp_path / "theirs")
    return model.double(), tmp_path / "theirs"


@torch.no_grad()
def off(ours, model, rng):
    images, padding = pictures(2, 75, 101, rng, padded=True)
    a, b = ours.double()(images, padding=padding), model(**as_theirs(images, padding))
    pairs = [(a.logits, b.logits), (a.boxes, b.pred_boxes)]
    if a.masks is not None:
        pairs.append((a.masks, b.pred_masks))
    assert b.logits.std() > 0.1
    return max((x - y).abs().max().item() for x, y in pairs)


def test_their_folder_gives_the_same_answers_here(folder, rng):
    model, path = folder
    # What the folder holds is single precision, and so is what they would read.
    model = type(model).from_pretrained(path, attn_implementation="eager").double().eval()
    assert off(load_pretrained(path), model, rng) < 1e-9


def test_what_we_save_they_load_and_answer_the_same(folder, tmp_path, rng):
    model, path = folder
    ours = load_pretrained(path)
    save_pretrained(ours, tmp_path / "ours", "transformers")
    read, info = type(model).from_pretrained(
        tmp_path / "ours", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values())
    assert off(load_pretrained(tmp_path / "ours"), read.double().eval(), rng) < 1e-9
    assert not diff(load_pretrained(tmp_path / "ours").cfg, ours.cfg)
    processor = transformers.DetrImageProcessorPil.from_pretrained(tmp_path / "ours")
    assert processor.size.shortest_edge == 800
    assert processor.size.longest_edge == 1333


def test_values_that_are_not_the_defaults_survive_the_way_through_transformers(tmp_path):
    settings = {
        **SMALL, "class_cost": 3, "bbox_cost": 4, "giou_cost": 1, "bbox_loss_coefficient": 7,
        "giou_loss_coefficient": 3, "eos_coefficient": 0.25, "mask_loss_coefficient": 2,
        "dice_loss_coefficient": 5, "encoder_layerdrop": 0.1, "decoder_layerdrop": 0.2,
    }  # fmt: skip
    theirs(settings=settings, masks=True, spread_out=False).float().save_pretrained(tmp_path / "a")
    first = load_pretrained(tmp_path / "a")
    cfg = first.cfg
    assert (cfg.encoder.layer_drop, cfg.decoder.layer_drop) == (0.1, 0.2)
    taught = cfg.criterion
    costs = (taught.matcher.class_cost, taught.matcher.l1_cost, taught.matcher.giou_cost)
    weights = (taught.l1_weight, taught.giou_weight)
    weights += (taught.masks.mask_weight, taught.masks.dice_weight)
    assert (*costs, *weights, taught.classification.no_object) == (3, 4, 1, 7, 3, 2, 5, 0.25)
    save_pretrained(first, tmp_path / "b", "transformers")
    written = transformers.DetrConfig.from_pretrained(tmp_path / "b").to_dict()
    read = transformers.DetrConfig.from_pretrained(tmp_path / "a").to_dict()
    assert {key: written[key] for key in settings if key != "num_labels"} == {
        key: read[key] for key in settings if key != "num_labels"
    }


RESNET18 = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
TIMM_CONFIGS = {
    "as the hub has it": {"backbone": "resnet18", "use_timm_backbone": True},
    "as transformers 5 writes it": {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": "resnet18",
            "out_indices": [1, 2, 3, 4],
        }
    },
}


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
@pytest.mark.parametrize("words", TIMM_CONFIGS.values(), ids=TIMM_CONFIGS)
def test_a_folder_under_timms_names_gives_the_same_answers(words, masks, tmp_path, rng):
    from safetensors.torch import save_file

    model = theirs(resnet=RESNET18, basic=True, masks=masks)
    model.float().save_pretrained(tmp_path / "own")
    ours = load_pretrained(tmp_path / "own")
    tree = json.loads((tmp_path / "own" / "config.json").read_text()) | {"backbone_config": None}
    tree.pop("use_timm_backbone", None)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "config.json").write_text(json.dumps(tree | words))
    tensors = export_tensors(DETR_MASKS_TIMM if masks else DETR_TIMM, ours.state_dict(), "")
    save_file({n: t.clone() for n, t in tensors.items()}, tmp_path / "timm" / "model.safetensors")
    again = load_pretrained(tmp_path / "timm")
    model = type(model).from_pretrained(tmp_path / "own", attn_implementation="eager").double()
    assert off(again, model.eval(), rng) < 1e-9
    assert not diff(again.cfg, ours.cfg)
    assert Detector.from_pretrained(tmp_path / "timm", device="cpu").preprocess.edges == (800, 1333)
    assert verify(tmp_path / "timm", size=(64, 96)).ok, "through a folder in their own names"


def test_what_transformers_takes_from_timm_is_compared_where_timm_is(tmp_path):
    """timm cannot be imported here: a DC5 is run and not compared, and it is said why."""
    cfg = our_config(theirs(resnet=RESNET18, basic=True, spread_out=False), dc5=True)
    save_pretrained(cfg.build().eval(), tmp_path)
    report = verify(tmp_path, size=(64, 96))
    if find_spec("timm") is None:
        assert report.comparison is None
        assert "pip install timm" in str(report)
    assert report.ok


# --- verify ---------------------------------------------------------------------------------------


def test_verify_finds_that_every_stage_agrees(folder):
    model, path = folder
    report = verify(path, size=(96, 128))
    assert report.ok
    text = str(report)
    assert "Everything agrees" in text
    draws = hasattr(model, "mask_head")
    rows = ["backbone S5", "project", "positions", "encoder 1", "decoder 1 boxes", "detections"]
    for row in rows + ["backbone S2", "masks"] * draws:
        assert row in text
    assert ("backbone S2" in text) is draws


def test_a_picture_is_compared_at_the_checkpoints_edges(tmp_path):
    theirs(spread_out=False).float().save_pretrained(tmp_path)
    pixels = {"image_processor_type": "DetrImageProcessor"}
    pixels["size"] = {"shortest_edge": 64, "longest_edge": 106}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    report = verify(tmp_path)
    assert report.ok
    assert report.size == (64, 96)


CORRUPTED = {
    "backbone.stages.0.0.shortcut.conv.weight": "backbone S2",
    "backbone.stages.3.1.conv2.norm.running_mean": "backbone S5",
    "project.bias": "project",
    "positions.rows": "positions",
    "encoder.layers.0.self_attn.k_proj.weight": "encoder 0",
    "encoder.layers.1.ffn.fc2.bias": "encoder 1",
    "decoder.query_positions": "decoder 0 logits",
    "decoder.layers.1.cross_attn.v_proj.weight": "decoder 1 logits",
    "decoder.norm.weight": "decoder 0 logits",
    "class_head.bias": "decoder 0 logits",
    "box_head.layers.2.weight": "decoder 0 boxes",
    "mask_attention.q_proj.weight": "masks",
    "mask_head.levels.1.refine.conv.weight": "masks",
}


@pytest.fixture(scope="module")
def learned():
    """Their model with everything that can be wrong, and our configuration of it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {**SMALL, "position_embedding_type": "learned"}
        model = theirs(settings=settings, masks=True)
    return model, our_config(model)


@pytest.mark.parametrize("name", CORRUPTED)
def test_one_wrong_value_names_its_module_and_its_first_stage(name, learned, rng):
    model, cfg = learned
    ours = same_weights(model, cfg)
    images, _ = pictures(1, 64, 96, rng)
    assert compare(ours, model, images).agrees
    with torch.no_grad():
        ours.state_dict()[name].view(-1)[1] += 0.05
    found = compare(ours, model, images)
    assert found.tensors == (name,)
    assert found.module == name.rpartition(".")[0]
    assert next(stage.name for stage in found.stages if not stage.agrees) == CORRUPTED[name]
