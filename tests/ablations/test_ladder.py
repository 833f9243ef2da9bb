"""Five ideas lead from DETR to RT-DETR; each row of the ladder has exactly those that it names."""

import pytest
import torch
from small import pictures, shaken, small, targets

from rtdetr_lab.ablations.ladder import IDEAS, LADDER, Learned, OneMap
from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.decoder import DecoderLayer
from rtdetr_lab.losses import Focal, Varifocal
from rtdetr_lab.training import TrainConfig

ROWS = {row.name: row for row in LADDER}


@pytest.fixture(scope="module")
def base():
    return Setup(small({"decoder.num_points": (3, 2, 1)}), TrainConfig())


def ideas_of(cfg):
    """Which ideas a configuration has, told from its parts."""
    found = {
        "maps": not isinstance(cfg.encoder, OneMap) and cfg.decoder.num_levels == 3,
        "deformable": type(cfg.decoder.layer()) is DecoderLayer,
        "selected": not isinstance(cfg.selection, Learned),
        "denoising": cfg.denoising is not None,
        "varifocal": isinstance(cfg.criterion.classification, Varifocal),
    }
    assert found["varifocal"] != isinstance(cfg.criterion.classification, Focal)
    return {idea for idea, has in found.items() if has}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_ideas_of_its_name(base, name):
    wanted = {"none": set(), "RT-DETR": set(IDEAS)}.get(name, set(name.split(" + ")))
    assert ideas_of(ROWS[name](base).cfg) == wanted


def test_both_ways_climb_one_idea_at_a_time_and_meet_at_the_ends():
    assert len(LADDER) == 10
    names = list(ROWS)
    for way in ([names[0], *names[1:5], names[9]], [names[0], *names[5:9], names[9]]):
        count = [0 if n == "none" else 5 if n == "RT-DETR" else len(n.split(" + ")) for n in way]
        assert count == [0, 1, 2, 3, 4, 5]
    assert set(names[1].split(" + ")) == {"maps"}
    assert set(names[5].split(" + ")) == {"varifocal"}


def test_only_the_whole_changes_nothing(base):
    assert [row.name for row in LADDER if row.changes_nothing(base)] == ["RT-DETR"]


@pytest.mark.parametrize("name", ROWS)
def test_every_row_learns(base, name):
    cfg = ROWS[name](base).cfg
    model = shaken(cfg.build()).train()
    goal = targets(3, 1)
    terms = cfg.criterion.build()(model(pictures(2), goal), goal)
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    has = ideas_of(cfg)
    assert any(term.endswith(".proposals") for term in terms) == ("selected" in has)
    assert any("denoising" in term for term in terms) == ("denoising" in has)
    if "selected" not in has:
        assert model.selection.content.grad.abs().sum() > 0
        assert model.selection.box_logits.grad.abs().sum() > 0
    assert model.eval()(pictures(1, 64, 96)).boxes.shape == (1, 10, 4)


@torch.no_grad()
def test_one_map_is_the_middle_one(base):
    model = shaken(ROWS["none"](base).cfg.build()).eval()
    maps = model.backbone(pictures(1))
    alone = model.encoder(maps)
    assert [m.shape[-2:] for m in alone] == [maps[1].shape[-2:]]
    changed = [torch.zeros_like(maps[0]), maps[1], torch.zeros_like(maps[2])]
    assert torch.equal(model.encoder(changed)[0], alone[0])
    assert model.cfg.decoder.points == (2,), "the points of the middle level"


@torch.no_grad()
def test_dense_attention_reads_every_token_with_its_place(base):
    model = shaken(ROWS["maps"](base).cfg.build()).eval()
    attention = model.decoder.layers[0].cross_attn
    shapes = [(4, 3), (2, 2)]
    memory, queries = torch.randn(2, 16, 16), torch.randn(2, 5, 16)
    boxes = torch.full((2, 5, 4), 0.1)
    before = attention(queries, boxes, memory, shapes)
    for token in (0, 11, 12, 15):
        changed = memory.clone()
        changed[1, token] += 1
        after = attention(queries, boxes, changed, shapes)
        assert torch.equal(after[0], before[0])
        assert (after[1] - before[1]).abs().amax(-1).min() > 0
    swapped = memory[:, [5, *range(1, 5), 0, *range(6, 16)]]
    assert (attention(queries, boxes, swapped, shapes) - before).abs().max() > 1e-6


@torch.no_grad()
def test_learned_queries_do_not_depend_on_the_picture(base):
    chosen = ROWS["maps + deformable"](base).cfg.build().selection
    tokens, boxes = torch.randn(2, 30, 16), torch.randn(2, 30, 4)
    a, b = (chosen(tokens * s, torch.randn(2, 30, 5), boxes * s) for s in (1.0, 2.0))
    assert torch.equal(a.content, b.content)
    assert torch.equal(a.reference_logits[0], b.reference_logits[1])
    assert a.reference_logits.std(0).max() == 0
    assert a.reference_logits[0].std(0).min() == 0, "all sizes begin alike"
    assert a.reference_logits[0, :, 0].std() > 0.1, "centres do not"
