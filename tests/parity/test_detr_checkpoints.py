"""DETR's checkpoints against transformers: they read what we write, we read what they write.

timm cannot be imported here, so a folder in its naming is made of one in transformers' own.
"""

import json

import pytest
import torch
from detr_oracle import SMALL, as_theirs, pictures, theirs, transformers

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.rename import export_tensors
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.tables_detr import DETR_MASKS_TIMM, DETR_TIMM
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
    weights = (taught.l1_weight, taught.giou_weight, taught.mask_weight, taught.dice_weight)
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
