"""DETR: every answer, every loss and every gradient as transformers' DetrForObjectDetection.

fp64 decides; 1e-9 is allowed, 1e-13 is what is found.
"""

import copy
import re
from pathlib import Path

import pytest
import torch
from detr_oracle import (
    SMALL,
    WHOLE,
    WHOLE_RESNET,
    as_targets,
    differences,
    doubles,
    labels_of,
    learn_everything,
    our_config,
    pictures,
    run,
    same_weights,
    theirs,
    twins,
)

from rtdetr_lab.checkpoints.rename import export_tensors, import_tensors, table_of
from rtdetr_lab.checkpoints.tables_detr import DETR
from rtdetr_lab.detr.model import cardinality_error
from rtdetr_lab.taps import record

SHAPES = [(1, 64, 64), (2, 64, 96), (2, 75, 101), (1, 97, 66)]
KINDS = {
    "bottlenecks": {},
    "basic blocks": {"basic": True},
    "DC5": {"dc5": True},
    "learned positions": {"settings": {**SMALL, "position_embedding_type": "learned"}},
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    with torch.random.fork_rng():
        return twins(**KINDS[request.param])


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_every_layer_says_what_theirs_says(pair, shape, padded, rng):
    model, ours = pair
    images, padding = pictures(*shape, rng, padded)
    expected = run(model, images, padding)
    assert max(differences(ours(images, padding=padding), expected).values()) <= 1e-9
    assert expected.layer_logits.std(dim=2).mean() > 0.1  # queries, layers, pictures differ
    assert (expected.layer_boxes[1] - expected.layer_boxes[0]).abs().mean() > 0.01
    if shape[0] > 1:
        assert (expected.out.logits[0] - expected.out.logits[1]).abs().mean() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("dc5", [False, True], ids=["r50", "r50-dc5"])
def test_the_whole_resnet_50_too(dc5, rng):
    model, ours = twins(settings=WHOLE, resnet=WHOLE_RESNET, dc5=dc5)
    images, padding = pictures(2, 64, 97, rng, padded=True)
    got = differences(ours(images, padding=padding), run(model, images, padding))
    assert max(got.values()) <= 1e-9


@torch.no_grad()
def test_in_single_precision_we_are_as_near_as_they_are(pair, rng):
    model, ours = pair
    images, padding = pictures(2, 64, 96, rng, padded=True)
    exact = run(model, images, padding)
    rounded = run(copy.deepcopy(model).float(), images.float(), padding)
    mine = copy.deepcopy(ours).float()(images.float(), padding=padding)
    for name in ("layer_logits", "layer_boxes"):
        layers = [getattr(p, name.removeprefix("layer_")) for p in mine.layers]
        truth = getattr(exact, name)
        allowed = (getattr(rounded, name).double() - truth).abs().max()
        assert (torch.stack(layers).double() - truth).abs().max() <= 2 * allowed + 1e-6


@torch.no_grad()
def test_every_attention_weight_is_theirs(pair, rng):
    model, ours = pair
    images, padding = pictures(2, 64, 97, rng, padded=True)
    out = run(model, images, padding, output_attentions=True).out
    with record(ours, keep="*.weights") as seen:
        ours(images, padding=padding)
    for name, expected in (
        ("encoder.layers.{}.self_attn.weights", out.encoder_attentions),
        ("decoder.layers.{}.self_attn.weights", out.decoder_attentions),
        ("decoder.layers.{}.cross_attn.weights", out.cross_attentions),
    ):
        assert len(expected) == 2
        for i, weights in enumerate(expected):
            assert (seen[name.format(i)] - weights).abs().max() <= 1e-12


@torch.no_grad()
def test_one_percent_of_any_tensor_would_be_seen(rng):
    """The comparison above is not blind."""
    model, ours = twins()
    images, padding = pictures(2, 64, 97, rng, padded=True)
    expected, blind = run(model, images, padding), []
    for name, tensor in ours.state_dict().items():
        kept = tensor.clone()
        tensor *= 1.01
        if max(differences(ours(images, padding=padding), expected).values()) <= 1e-9:
            blind.append(name)
        tensor.copy_(kept)
    # A softmax ignores what it adds to all scores alike. And the first layer's queries have nothing
    # to tell each other yet: all content is zero, so the values are all the same.
    first = "decoder.layers.0.self_attn."
    idle = {
        f"{first}{p}" for p in ("q_proj.weight", "q_proj.bias", "k_proj.weight", "v_proj.weight")
    }
    assert {n for n in blind if not n.endswith("attn.k_proj.bias")} == idle


# --- a step of training -------------------------------------------------------------------------

COUNTS = {"usual": (3, 0, 5), "more objects than queries": (15, 2), "nothing at all": (0, 0)}
TERMS = {"class": ("loss_ce", 1), "l1": ("loss_bbox", 5), "giou": ("loss_giou", 2)}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_every_loss_term_and_every_gradient_is_theirs(counts, rng):
    labels = labels_of(counts, rng)
    images, padding = pictures(len(counts), 64, 97, rng, padded=True)
    model, ours = twins()
    learn_everything(model, ours)
    expected = run(model.train(), images, padding)
    model.config.auxiliary_loss = True
    with doubles():
        loss, terms, _ = model.loss_function(
            expected.out.logits, labels, "cpu", expected.out.pred_boxes, model.config,
            expected.layer_logits, expected.layer_boxes,
        )  # fmt: skip
    loss.backward()

    targets = as_targets(labels)
    prediction = ours.train()(images, targets, padding)
    mine = ours.cfg.criterion.build()(prediction, targets)
    sum(mine.values()).backward()

    assert set(mine) == {f"{kind}{where}" for kind in TERMS for where in ("", ".layer0")}
    for name, value in mine.items():
        kind, _, layer = name.partition(".layer")
        theirs_, weight = TERMS[kind]
        key = f"{theirs_}_{layer}" if layer else theirs_
        assert value.item() == pytest.approx(weight * terms[key].item(), rel=1e-9, abs=1e-12)
    cardinality = cardinality_error(prediction, targets)
    assert cardinality.item() == pytest.approx(terms["cardinality_error"].item())

    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    wanted = import_tensors(DETR, gradients, "their gradients")
    assert set(wanted) == {n for n, p in ours.named_parameters() if p.grad is not None}
    for name, parameter in ours.named_parameters():
        off = (parameter.grad - wanted[name]).norm()
        assert off <= 1e-8 * wanted[name].norm() + 1e-12, name


# --- where theirs is not to be followed ---------------------------------------------------------


@torch.no_grad()
def test_their_auxiliary_loss_changes_their_answer(rng):
    """Why `run` applies the heads by hand: with it, theirs normalises what the next layer gets."""
    model, ours = twins()
    images, _ = pictures(1, 64, 64, rng)
    plain = run(model, images).out.logits
    model.config.auxiliary_loss = True
    assert (model(**{"pixel_values": images * 0 + 0.1}).logits - plain).abs().max() > 0.01
    assert (run(model, images).out.logits - plain).abs().max() > 0.01
    assert (ours(images).logits - plain).abs().max() <= 1e-9


def test_theirs_freezes_all_of_its_own_resnet_and_ours_what_is_asked():
    """Their test of names was made for timm's; `frozen_stages=1` does what it was meant to do."""
    model = theirs(spread_out=False)
    assert not any(p.requires_grad for p in model.model.backbone.parameters())
    ours = same_weights(model, our_config(model))
    assert all(p.requires_grad for p in ours.parameters())


def test_the_pages_name_the_version_of_the_oracle_that_is_pinned():
    """Before a new pin: read docs/differences.md and docs/names.md against that release."""
    root = Path(__file__).parents[2]
    pin = re.search(
        r"^transformers==(\d+\.\d+)", (root / "constraints.txt").read_text("utf8"), re.M
    )
    for page in ("differences", "names"):
        named = re.findall(r"transformers (\d+\.\d+)", (root / f"docs/{page}.md").read_text("utf8"))
        assert set(named) == {pin[1]}, page


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_theirs_is_read_and_written_name_by_name(kind, tmp_path):
    """In the file the names are those of the table, in memory others that mean the same."""
    from safetensors.torch import load_file

    model = theirs(**KINDS[kind], spread_out=False)
    model.save_pretrained(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    file, memory = load_file(path), model.state_dict()
    assert set(file) != set(memory)
    assert table_of(file) is table_of(memory) is DETR
    ours = import_tensors(DETR, file, "file")
    same = import_tensors(DETR, memory, "memory")
    assert ours.keys() == same.keys() == our_config(model).build().state_dict().keys()
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    back = export_tensors(DETR, ours, "ours")
    assert back.keys() == file.keys()
    assert all(torch.equal(back[name], file[name]) for name in file)
