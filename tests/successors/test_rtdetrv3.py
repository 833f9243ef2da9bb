"""RT-DETRv3: more positives in training, and an RT-DETR in use."""

import pytest
import torch
from small import SMALL, pictures, shaken, small, targets

from rtdetr_lab.boxes import iou, xyxy_from_cxcywh
from rtdetr_lab.config import diff, replace_all, replace_at
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.criterion import Criterion
from rtdetr_lab.deployment.form import deploy
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.structures import Targets
from rtdetr_lab.successors import rtdetrv3
from rtdetr_lab.successors.rtdetrv3 import (
    DensePrediction,
    TaskAligned,
    as_rtdetrv3,
    random_blocks,
)

CFG = as_rtdetrv3(SMALL)


@pytest.fixture
def model():
    torch.manual_seed(5)
    return shaken(CFG.build()).double()


# --- what is left in use --------------------------------------------------------------------------


def test_in_use_it_is_an_rtdetr_bit_for_bit(model):
    plain = SMALL.build().double()
    ours = model.state_dict()
    plain.load_state_dict({name: ours[name] for name in plain.state_dict()})
    images = pictures(2, 71, 133).double()
    with torch.no_grad():
        one, other = model.eval()(images), plain.eval()(images)
    assert type(one) is type(other)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.boxes, other.boxes)
    deployed = deploy(model)
    assert size(deployed) == size(deploy(plain)) < size(model)


def size(module):
    return sum(p.numel() for p in module.parameters())


def test_without_targets_nothing_is_added_in_training(model):
    out = model.train()(pictures().double())
    assert not hasattr(out, "groups")


# --- groups ---------------------------------------------------------------------------------------


def test_groups_of_one_call_do_not_see_each_other(model, rng):
    """One call with the mask of Eq. 12.2 gives what a call per group gives; its Jacobian from one
    group to another is zero, and inside a group it is not."""
    counts, shapes = (4, 7, 5), [(6, 8), (3, 4), (2, 2)]
    number = torch.tensor([0] * 4 + [1] * 7 + [2] * 5)
    content = torch.randn(1, 16, 16, generator=rng).double().requires_grad_()
    start = torch.randn(1, 16, 4, generator=rng).double()
    memory = torch.randn(1, 64, 16, generator=rng).double()
    inner = [random_blocks(count, 0.3) for count in counts]
    blocked = number[:, None] != number
    blocked[4:11, 4:11] = inner[1]
    together = model.decoder(content, start, memory, shapes, blocked)[-1]
    alone = model.decoder(content[:, 4:11], start[:, 4:11], memory, shapes, inner[1])[-1]
    torch.testing.assert_close(together.logits[:, 4:11], alone.logits, rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(together.logits[:, 4:11].square().sum(), content)
    reached = slope[0].abs().amax(1) > 0
    assert reached.tolist() == (number == 1).tolist()


def test_a_blocked_pair_has_no_slope_and_every_other_has(model, rng):
    """Eq. 23.1, in one self-attention."""
    attention = model.decoder.layers[0].self_attn
    blocked = random_blocks(9, 0.4)
    assert blocked.any()

    def attended(x):
        return attention(x, x, x, blocked)[0].sum(-1)

    x = torch.randn(1, 9, 16, generator=rng).double()
    slope = torch.autograd.functional.jacobian(attended, x)[:, 0].abs().amax(-1)
    assert torch.equal(slope == 0, blocked)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_share_of_the_pairs_is_blocked_and_every_query_sees_itself(share):
    torch.manual_seed(1)
    blocked = random_blocks(400, share)
    assert not blocked.diagonal().any()
    assert blocked.double().mean().item() == pytest.approx(share, abs=0.005)


def test_every_group_starts_from_other_tokens(model):
    out = model.train()(pictures().double(), targets(3, 1))
    chosen = [frozenset(p.proposals.index[0].tolist()) for p in (out, *out.groups, out.many)]
    assert [len(c) for c in chosen] == [10, 10, 10, 10, 15]
    assert len(set(chosen)) == 5


# --- positives ------------------------------------------------------------------------------------


def test_three_objects_give_as_many_positives_as_the_table_says(model):
    found = targets(3, 1)
    out = model.train()(pictures().double(), found)
    match = CFG.criterion.build().matcher

    def positives(layer, wanted):
        return [len(queries) for queries in match(layer, wanted).queries]

    assert positives(out.layers[-1], found) == [3, 1]
    assert [positives(group.layers[0], found) for group in out.groups] == 3 * [[3, 1]]
    copies = found.repeated(4)
    assert positives(out.many.layers[1], copies) == [12, 4]
    objects = match(out.many.layers[1], copies).objects[0] % 3
    assert objects.bincount().tolist() == [4, 4, 4]
    cells = CFG.criterion.cells(out.dense, found)
    assert len(cells.queries[0]) <= 39


def test_repeated_targets_are_the_objects_over_and_over():
    found = targets(2, 0)
    twice = found.repeated(2)
    assert twice.counts == [4, 0]
    assert torch.equal(twice.boxes[0], torch.cat([found.boxes[0], found.boxes[0]]))


def by_hand(layer, picture, found, num_cells):
    """Eq. 23.2, cell by cell."""
    aligned, overlaps = {}, {}
    for t, (label, box) in enumerate(zip(found.labels[picture], found.boxes[picture], strict=True)):
        x1, y1, x2, y2 = xyxy_from_cxcywh(box).tolist()
        for cell, (x, y) in enumerate(layer.centres.tolist()):
            pair = (xyxy_from_cxcywh(b)[None] for b in (layer.boxes[picture, cell], box.double()))
            overlaps[cell, t] = iou(*pair).item()
            score = layer.logits[picture, cell, label].sigmoid().item()
            inside = x1 < x < x2 and y1 < y < y2
            aligned[cell, t] = score * overlaps[cell, t] ** 6 if inside else 0.0
    wants = {}
    for t in range(found.counts[picture]):
        best = sorted((a, cell) for (cell, of), a in aligned.items() if of == t and a > 0)
        for _, cell in best[-num_cells:]:
            wants.setdefault(cell, []).append(t)
    return {cell: max(ts, key=lambda t: overlaps[cell, t]) for cell, ts in wants.items()}


def dense_prediction(rng, wanted):
    """A grid of 7 × 9 cells with boxes near the objects, and two objects that share cells."""
    y, x = torch.meshgrid(torch.arange(7) + 0.5, torch.arange(9) + 0.5, indexing="ij")
    centres = torch.stack([x / 9, y / 7], -1).flatten(0, 1).double()
    size = 0.3 + 0.2 * torch.rand(2, 63, 2, generator=rng).double()
    boxes = torch.cat([centres.expand(2, -1, -1), size], -1)
    return DensePrediction(torch.randn(2, 63, 5, generator=rng).double(), boxes, centres)


@pytest.mark.parametrize("num_cells", [13, 4])
def test_cells_are_those_a_reader_would_pick_by_hand(rng, num_cells):
    wanted = [[0.4, 0.5, 0.4, 0.5], [0.5, 0.55, 0.35, 0.6], [0.9, 0.1, 0.2, 0.3]]
    found = Targets.of(
        [
            {"labels": torch.tensor([3, 0, 3]), "boxes": torch.tensor(wanted)},
            {"labels": torch.empty(0, dtype=torch.long), "boxes": torch.empty(0, 4)},
        ]
    )
    layer = dense_prediction(rng, wanted)
    pairs = TaskAligned(num_cells)(layer, found)
    ours = dict(zip(pairs.queries[0].tolist(), pairs.objects[0].tolist(), strict=True))
    assert ours == by_hand(layer, 0, found, num_cells)
    assert set(ours.values()) == {0, 1, 2}
    assert len(pairs.queries[1]) == len(pairs.objects[1]) == 0


# --- the loss -------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_of_the_groups_and_the_other_two(model):
    """Eq. 23.3."""
    found = targets(3, 1)
    out = model.train()(pictures().double(), found)
    terms = CFG.criterion.build()(out, found)
    plain = Criterion(CFG.criterion)
    main, *groups = (plain(part, found) for part in (out, *out.groups))
    for name in groups[0]:
        mean = sum(part[name] for part in (main, *groups)) / 4
        torch.testing.assert_close(terms[name], mean)
    denoising = [name for name in main if "denoising" in name]
    assert len(denoising) == 9
    assert all(torch.equal(terms[name], main[name]) for name in denoising)
    many = plain(out.many, found.repeated(4))
    assert {n for n in terms if n.endswith(".many")} == {f"{name}.many" for name in many}
    torch.testing.assert_close(terms["giou.layer0.many"], many["giou.layer0"])
    dense = {"class.dense", "l1.dense", "giou.dense"}
    assert set(terms) == {*main, *(f"{name}.many" for name in many), *dense}


@pytest.mark.parametrize("counts", [(3, 1), (0, 0)], ids=str)
def test_every_parameter_learns_with_objects_and_without(model, counts):
    found = targets(*counts)
    terms = CFG.criterion.build()(model.train()(pictures().double(), found), found)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_dense_loss_reaches_the_maps_and_not_the_decoder(model):
    found = targets(3, 2)
    terms = CFG.criterion.build()(model.train()(pictures().double(), found), found)
    sum(terms[f"{name}.dense"] for name in ("class", "l1", "giou")).backward()
    assert model.encoder.project[0].conv.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.decoder.parameters())


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r18", "r34", "r50", "r101"])
def test_a_preset_is_the_rtdetr_with_more_in_training(name):
    made = getattr(rtdetrv3, f"rtdetrv3_{name}")(7)
    plain = getattr(rtdetrv3.rtdetr, f"rtdetr_{name}")(7)
    assert (made.num_groups, made.num_many, made.criterion.copies) == (3, 450, 4)
    kept = ("num_classes", "backbone", "encoder", "selection", "decoder", "denoising")
    assert all(getattr(made, part) == getattr(plain, part) for part in kept)
    assert from_json(to_json(made)) == made


def test_a_class_loss_is_kept():
    cfg = small({"criterion.class_weight": 2.0})
    assert set(diff(as_rtdetrv3(cfg).criterion, CFG.criterion)) == {"class_weight"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("num_groups", -1),
        ("num_many", 0),
        ("perturbation", 1.0),
        ("criterion.copies", 0),
        ("criterion.cells.num_cells", 0),
        ("criterion.cells.beta", -1.0),
    ],
)
def test_an_impossible_value_is_refused_by_name(path, value):
    with pytest.raises(ConfigError) as refused:
        replace_at(CFG, path, value)
    assert refused.value.where == path


def test_without_masked_groups_the_main_queries_count_alone(model):
    cfg = replace_all(CFG, {"num_groups": 0})
    found = targets(3, 1)
    made = shaken(cfg.build()).double().train()
    out = made(pictures().double(), found)
    terms = cfg.criterion.build()(out, found)
    torch.testing.assert_close(terms["l1"], Criterion(cfg.criterion)(out, found)["l1"])
