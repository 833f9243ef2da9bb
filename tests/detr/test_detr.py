"""DETR whole: pictures of many sizes on one canvas in, one hundred answers out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import pictures, shaken, targets
from small_detr import DETECTOR as SMALL
from small_detr import corner

from rtdetr_lab.backbone import ResNetDConfig
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.config import replace_at
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.data.shapes import ShapesDataset
from rtdetr_lab.detector import Detector
from rtdetr_lab.detr import model as detr
from rtdetr_lab.detr.model import cardinality_error
from rtdetr_lab.detr.positions import LearnedPositions
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.errors import ConfigError, ImageError, TargetError
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.losses import CrossEntropy
from rtdetr_lab.structures import LayerPrediction, Prediction, Targets
from rtdetr_lab.taps import inventory
from rtdetr_lab.training import TrainConfig, train

PRESETS = (
    detr.detr_r50,
    detr.detr_r101,
    detr.detr_r50_dc5,
    detr.detr_r101_dc5,
    detr.detr_nano,
)


def built(cfg=SMALL):
    return shaken(cfg.build()).double().eval()


# --- the answer ---------------------------------------------------------------------------------


@torch.no_grad()
def test_a_layer_gives_logits_with_nothing_as_last_class_and_boxes_in_the_picture():
    out = built()(pictures().double())
    assert out.logits.shape == (2, 6, 5 + 1)
    assert len(out.layers) == 2
    assert torch.equal(out.layers[-1].boxes, out.boxes)
    assert ((out.boxes > 0) & (out.boxes < 1)).all()
    assert out.proposals is None
    assert out.masks is None


@torch.no_grad()
def test_all_layers_are_judged_by_the_same_heads():
    model = built()
    seen = model.look(pictures().double())
    out = model.answer(seen)
    for content, layer in zip(seen.content, out.layers, strict=True):
        assert torch.equal(layer.logits, model.class_head(content))
        assert torch.equal(layer.boxes, model.box_head(content).sigmoid())


@torch.no_grad()
def test_a_picture_is_answered_alike_alone_and_in_company():
    model, images = built(), pictures(3).double()
    together = model(images)
    for i in range(3):
        torch.testing.assert_close(model(images[i : i + 1]).boxes[0], together.boxes[i])


def test_pictures_are_normalised_with_mean_and_spread_of_the_backbones_training():
    model, images = built(), pictures()
    got = model.normalise(images, None)
    for c in range(3):
        by_hand = (images[:, c] - detr.IMAGENET_MEAN[c]) / detr.IMAGENET_STD[c]
        torch.testing.assert_close(got[:, c], by_hand)


# --- padding ------------------------------------------------------------------------------------


@torch.no_grad()
def test_what_padded_pixels_hold_changes_nothing():
    model, images, padding = built(), pictures().double(), corner()
    noise = torch.where(padding[:, None], 50 * torch.randn_like(images), images)
    a, b = model(images, padding=padding), model(noise, padding=padding)
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.boxes, b.boxes)
    assert not torch.allclose(a.boxes, model(noise).boxes)


def test_padded_pixels_have_no_gradient_and_all_others_have():
    model, images, padding = built(), pictures().double().requires_grad_(), corner()
    out = model(images, padding=padding)
    (out.logits * torch.randn_like(out.logits)).sum().backward()
    assert (images.grad.permute(1, 0, 2, 3)[:, padding] == 0).all()
    assert (images.grad[0] != 0).any()


@torch.no_grad()
def test_padding_nowhere_is_no_padding():
    model, images = built(), pictures().double()
    plain, padded = model(images), model(images, padding=torch.zeros(2, 96, 64, dtype=torch.bool))
    torch.testing.assert_close(plain.logits, padded.logits, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_padded_cells_are_heard_by_no_query():
    """The map is changed by hand below padding, behind the backbone, which mixes neighbours."""
    model, images, padding = built(), pictures(height=128, width=128).double(), corner(2, 128, 128)
    before = model(images, padding=padding)
    hidden = detr._shrink(padding, (4, 4))
    assert hidden[1].sum() == 12
    hook = model.project.register_forward_hook(
        lambda _m, _i, out: torch.where(hidden[:, None], torch.randn_like(out), out)
    )
    after = model(images, padding=padding)
    hook.remove()
    torch.testing.assert_close(before.logits, after.logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 95), (96, 1)])
def test_even_the_smallest_picture_keeps_a_cell(size):
    padding = corner(2, 96, 97, size)
    assert not detr._shrink(padding, (3, 4)).flatten(1).all(1).any()
    out = built()(pictures(2, 96, 97).double(), padding=padding)
    assert torch.isfinite(out.boxes).all()


PADDINGS = {
    "numbers for truth values": corner().long(),
    "another size": corner(2, 96, 65),
    "another batch": corner(3),
    "the wrong way round": ~corner(),
}


@pytest.mark.parametrize("padding", PADDINGS.values(), ids=PADDINGS)
def test_a_padding_that_is_none_is_refused(padding):
    with pytest.raises(ImageError, match="padding"):
        detr._check_padding(pictures(), padding)


# --- bad input, presets, switches ---------------------------------------------------------------


def test_labels_of_the_class_nothing_are_refused():
    wrong = Targets.of([{"labels": [5], "boxes": [[0.5, 0.5, 0.1, 0.1]]}] * 2)
    with pytest.raises(TargetError, match=r"label 5 is outside 0 … 4"):
        built()(pictures().double(), wrong)


@pytest.mark.parametrize("path", ["num_classes", "std"])
def test_a_config_of_nothing_is_refused(path):
    with pytest.raises(ConfigError, match=path):
        replace_at(SMALL, path, 0 if path == "num_classes" else (1.0, 0.0, 1.0))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.__name__)
def test_a_preset_is_what_its_table_says(preset):
    cfg = preset()
    with torch.device("meta"):
        model = cfg.build()
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    row = next(r for r in detr.__doc__.splitlines() if r.startswith(f"| `{preset.__name__}`"))
    assert f"{millions:.1f} M" in row
    assert model.num_queries == 100
    assert cfg.num_classes == 91
    stride = 16 if "dc5" in preset.__name__ else 32
    assert model.backbone.strides == (stride,)
    if "nano" not in preset.__name__:
        assert f" {-(-800 // stride) * -(-1066 // stride)} " in row
        assert not model.backbone.stem.conv.weight.requires_grad
    assert from_json(to_json(cfg)) == cfg


OTHER = {
    "num_classes": 7,
    "dim": 32,
    "backbone": ResNetDConfig((1, 1, 1, 1), (8, 8, 8, 8), stem_width=4, outputs=(4,)),
    "backbone.dilated": True,
    "backbone.frozen_stages": 2,
    "positions": LearnedPositions(),
    "encoder": DETREncoderConfig(1, 2, 8, 0.0),
    "decoder": DETRDecoderConfig(3, 1, 2, 8, 0.0),
    "criterion": CriterionConfig(classification=CrossEntropy(0.5)),
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}


def terms_of(cfg):
    torch.manual_seed(1)
    model, images, wanted = shaken(cfg.build()).train(), pictures(2), targets(2, 1)
    terms = cfg.criterion.build()(model(images, wanted), wanted)
    sum(terms.values()).backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    return sum(terms.values()).item(), grads


@pytest.mark.parametrize("path", OTHER)
def test_every_switch_runs_learns_and_matters(path):
    plain, grads = terms_of(SMALL)
    other, other_grads = terms_of(replace_at(SMALL, path, OTHER[path]))
    learned = {n for n, g in other_grads.items() if g is not None}
    if path == "backbone.frozen_stages":
        assert other == plain
        assert learned < {n for n, g in grads.items() if g is not None}
    else:
        assert other != plain
        assert learned == set(other_grads)


def test_taps_show_attention_contents_and_answers():
    names = {name for name, _ in inventory(built(), pictures().double())}
    assert {
        "backbone.S5",
        "encoder.layers.1.self_attn.weights",
        "encoder.content.1",
        "decoder.layers.0.cross_attn.weights",
        "decoder.content.0",
        "logits.1",
        "boxes.1",
    } <= names


def test_it_overfits_one_batch():
    model, images, wanted = SMALL.build().train(), pictures(2, 64, 64), targets(2, 1)
    criterion, losses = SMALL.criterion.build(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = sum(criterion(model(images, wanted), wanted).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_the_cardinality_error_counts_answers_that_are_not_nothing():
    says = torch.tensor([[0, 2, 2, 1], [2, 2, 2, 2]])  # class 2 is "nothing"
    logits = F.one_hot(says, 3).double()
    boxes = torch.full((2, 4, 4), 0.5).double()
    out = Prediction(logits, boxes, (LayerPrediction(logits, boxes),))
    assert cardinality_error(out, targets(5, 1)) == (abs(2 - 5) + abs(0 - 1)) / 2


# --- the equipment ------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same_and_takes_new_classes(tmp_path):
    model = built().float()
    back = load_pretrained(save_pretrained(model, tmp_path))
    assert back.cfg == model.cfg
    images = pictures()
    assert torch.equal(back(images).logits, model(images).logits)
    other = load_pretrained(tmp_path, num_classes=3)
    assert other(images).logits.shape == (2, 6, 3 + 1)
    assert torch.equal(other.box_head.layers[0].weight, model.box_head.layers[0].weight)


def test_the_detector_never_finds_nothing():
    """No object is a class of the model and no class of an answer."""
    model = built().float()
    with torch.no_grad():
        model.class_head.bias[-1] = 20.0  # every query says: nothing
    found = Detector(model, size=(64, 64), threshold=0.0)(np.zeros((50, 40, 3), np.uint8))
    assert len(found) == 6
    assert max(found.scores) < 1e-6
    assert max(found.labels) <= 4


def test_training_it_on_the_shapes_world_ends_in_a_measured_model(tmp_path):
    pytest.importorskip("faster_coco_eval", reason="COCO's AP; runs with the extra [eval]")
    data = ShapesDataset(count=4)
    cfg = replace_at(SMALL, "num_classes", len(data.names))
    run = train(cfg, data, tmp_path, TrainConfig(num_pictures=4, batch_size=2), progress=False)
    assert run.finished
    assert 0 <= evaluate(run.model, data).AP <= 1
