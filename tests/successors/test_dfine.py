"""D-FINE: distributions that move edges, a gate, a judge of sharpness, and a neck that keeps."""

import copy

import pytest
import torch
from small import SMALL_DFINE, pictures, rebuilt, shaken, targets

from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.checkpoints.infer import infer_config
from rtdetr_lab.config import diff, replace_all, replace_at
from rtdetr_lab.decoder import look_forward_once
from rtdetr_lab.deployment.form import deploy, fuse_inside
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.layers import ConvNormAct
from rtdetr_lab.notebook import cost
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.successors import dfine
from rtdetr_lab.successors.deim import MatchabilityAware
from rtdetr_lab.successors.fdr import (
    EdgePrediction,
    FDRConfig,
    Gate,
    QualityHead,
    UnprojectedAttention,
    edges_away,
    moved_edges,
)
from rtdetr_lab.successors.gelan import GELANConfig, GELANLayer
from rtdetr_lab.taps import record

CONTENT = {"batch": 2, "queries": 7, "dim": 16}


def size(module):
    return sum(p.numel() for p in module.parameters())


# --- the neck -----------------------------------------------------------------------------------


def test_a_fusion_keeps_both_halves_and_both_branches():
    """Eq. 21.1."""
    layer = GELANLayer(GELANConfig(0.5, 2), 12).double().eval()
    x = torch.randn(2, 24, 5, 7).double()
    left, right = layer.split(x)[:, :12], layer.split(x)[:, 12:]
    csp, conv = layer.branch1
    first = conv(csp(right))
    second = layer.branch2[1](layer.branch2[0](first))
    assert first.shape[1] == second.shape[1] == 3
    expected = layer.merge(torch.cat([left, right, first, second], dim=1))
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize(("expansion", "dim", "hidden"), [(0.34, 128, 21), (0.5, 256, 64)])
def test_the_width_of_a_branch_is_rounded_down(expansion, dim, hidden):
    assert GELANConfig(expansion).hidden(dim) == hidden


def test_a_branch_without_a_channel_is_refused():
    with pytest.raises(ConfigError, match="leaves no channel of 8"):
        GELANConfig(0.2).build(8, 3)


def test_scdown_needs_a_ninth_of_the_weights():
    down = GELANConfig().downsample(256)
    dense = ConvNormAct(256, 256, 3, 2)
    convs = [sum(p.numel() for n, p in m.named_parameters() if "conv" in n) for m in (down, dense)]
    assert convs == [256 * 256 + 9 * 256, 9 * 256 * 256]
    assert [round(c / 1000) for c in convs] == [68, 590]
    assert down(torch.rand(2, 256, 7, 9)).shape == (2, 256, 4, 5)


def test_a_lateral_has_no_activation():
    lateral = GELANConfig().lateral(8).eval()
    assert (lateral(torch.randn(1, 8, 5, 5)) < 0).any()


# --- distances ----------------------------------------------------------------------------------


def by_hand(n, count, scale, reach):
    """W(n) of Eq. 21.4, one number at a time."""
    m, bound = abs(n - count // 2), reach * scale
    value = 2 * reach if m == count // 2 else ((bound + 1) ** (2 * m / (count - 2)) - 1) / scale
    return value if n > count // 2 else -value


@pytest.mark.parametrize(("count", "scale", "reach"), [(32, 4.0, 0.5), (32, 8.0, 0.5), (6, 3, 0.7)])
def test_distances_are_fine_in_the_middle_and_coarse_at_the_ends(count, scale, reach):
    """Eq. 21.4."""
    cfg = FDRConfig(num_bins=count, scale=float(scale), reach=reach)
    found = cfg.distances(torch.zeros(1).double())
    expected = torch.tensor([by_hand(n, count, scale, reach) for n in range(count + 1)])
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)
    assert torch.equal(found, -found.flip(0))
    steps = found[count // 2 :].diff()
    assert (steps.diff() > 0).all()


def test_the_table_of_the_chapter_is_true():
    found = FDRConfig().distances(torch.zeros(1))
    table = {16: 0, 17: 0.019, 20: 0.085, 24: 0.199, 28: 0.352, 31: 0.5, 32: 1}
    assert {n: round(found[n].item(), 3) for n in table} == table


def test_edges_move_away_from_the_centre_in_parts_of_the_size():
    """Eq. 21.3: left, top, right, bottom."""
    boxes = torch.tensor([[0.5, 0.6, 0.2, 0.4], [0.3, 0.3, 0.1, 0.2]]).double()
    away = torch.tensor([[1.0, 0.0, -0.25, 0.5], [0.0, 0.0, 0.0, 0.0]]).double()
    before = xyxy_from_cxcywh(boxes)
    moved = moved_edges(boxes, away)
    found = xyxy_from_cxcywh(moved)
    w, h = 0.2, 0.4
    wanted = before + torch.tensor([[-w, 0.0, -w / 4, h / 2], [0.0] * 4]).double()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(edges_away(boxes, moved), away)


# --- the decoder --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    return rebuilt(SMALL_DFINE, scale=2.0)


def test_scores_add_up_and_move_the_edges_of_the_first_box(model):
    """Eq. 21.2."""
    images = pictures().double()
    keep = ["decoder.content.*", "decoder.reference.*"]
    with torch.no_grad(), record(model, keep=keep) as seen:
        layers = model(images).layers
    decoder, cfg = model.decoder, model.cfg.decoder
    total, before = 0, 0
    start = layers[0].start
    for i, layer in enumerate(layers):
        content = seen[f"decoder.content.{i}"]
        total = total + decoder.box_heads[i](content + before).unflatten(2, (4, 9))
        away = (total.softmax(-1) * cfg.distances(images)).sum(-1)
        boxes = moved_edges(start.boxes, away)
        torch.testing.assert_close(layer.corner_logits, total)
        torch.testing.assert_close(layer.boxes, boxes)
        assert layer.start is start
        if i:
            torch.testing.assert_close(seen[f"decoder.reference.{i}"], layers[i - 1].boxes)
        before = content
    assert (layers[2].boxes - layers[0].boxes).abs().max() > 0.01


def test_a_sharp_edge_raises_all_classes_alike(model):
    """Eq. 21.5, with a judge that adds the largest probabilities."""
    head = QualityHead(SMALL_DFINE.decoder).double()
    flat = torch.full((1, 2, 4, 9), 1 / 9).double()
    assert head(flat).abs().max() == 0, "at the start it has no say"
    with torch.no_grad():
        head.mlp.layers[0].weight.fill_(1.0)
        head.mlp.layers[0].bias.zero_()
        head.mlp.layers[1].weight.fill_(1.0)
    sharp = torch.zeros(1, 2, 4, 9).double()
    sharp[..., 3] = 1.0
    # Per edge: the four largest and their mean, so 5/4 of what the four sum up to; eight units.
    torch.testing.assert_close(head(flat), torch.full((1, 2, 1), 8 * 4 * 1.25 * 4 / 9).double())
    torch.testing.assert_close(head(sharp), torch.full((1, 2, 1), 8 * 4 * 1.25).double())


def test_lqe_adds_one_number_to_all_classes_of_a_query(model):
    with torch.no_grad(), record(model, keep=["decoder.content.2"]) as seen:
        last = model(pictures().double()).layers[-1]
    plain = model.decoder.class_heads[2](seen["decoder.content.2"])
    added = last.logits - plain
    torch.testing.assert_close(added, added[..., :1].expand_as(added))
    assert added[..., 0].std() > 1e-3


def test_a_gate_starts_as_the_mean_and_can_choose():
    """Eq. 21.6."""
    gate = Gate(6).double()
    x, y = torch.randn(2, 3, 6).double(), torch.randn(2, 3, 6).double()
    torch.testing.assert_close(gate(x, y), gate.norm((x + y) / 2))
    with torch.no_grad():
        gate.gate.bias[:6], gate.gate.bias[6:] = 50.0, -50.0
    torch.testing.assert_close(gate(x, y), gate.norm(x))


def test_attention_without_projections_returns_what_it_read():
    """A memory of one value everywhere is read as that value: nothing projects it."""
    cfg = replace_at(SMALL_DFINE.decoder, "num_levels", 3)
    attention = shaken(UnprojectedAttention(cfg)).double()
    shapes, value = [(6, 8), (3, 4), (2, 2)], torch.randn(16).double()
    boxes = torch.tensor([0.5, 0.5, 0.1, 0.1]).double().expand(2, 7, 4)
    memory = value.expand(2, 48 + 12 + 4, 16)
    found = attention(torch.randn(2, 7, 16).double() * 0.1, boxes, memory, shapes)
    torch.testing.assert_close(found, value.expand(2, 7, 16))
    assert not any("proj" in name for name, _ in attention.named_parameters())


@pytest.mark.parametrize("rule", ["twice", "once"])
def test_a_loss_reaches_all_earlier_scores_or_only_its_own(rule):
    cfg = SMALL_DFINE
    if rule == "once":
        cfg = replace_at(cfg, "decoder.box_gradient", look_forward_once)
    torch.manual_seed(3)
    model = shaken(cfg.build()).double().train()
    last = model(pictures().double(), targets(2, 1)).layers[-1]
    last.boxes.square().sum().backward()
    reached = [head.layers[-1].bias.grad is not None for head in model.decoder.box_heads]
    assert reached == [rule == "twice", rule == "twice", True]
    assert model.decoder.start_head.layers[-1].bias.grad is None, "the first box is a constant"


def test_the_rule_changes_no_number(model):
    other = copy.deepcopy(model)
    other.decoder.cfg = replace_at(model.cfg.decoder, "box_gradient", look_forward_once)
    images = pictures().double()
    with torch.no_grad():
        assert torch.equal(model(images).boxes, other(images).boxes)


def test_denoising_queries_carry_their_own_edges_and_first_boxes(model):
    made = copy.deepcopy(model).train()
    out = made(pictures().double(), targets(3, 1))
    count = out.denoising.batch.num_queries
    for side, queries in ((out.layers, 10), (out.denoising.layers, count)):
        for layer in side:
            assert isinstance(layer, EdgePrediction)
            assert layer.corner_logits.shape == (2, queries, 4, 9)
            assert layer.start.boxes.shape == (2, queries, 4)


def test_a_map_of_the_decoders_width_is_memory_as_it_is():
    same, other = SMALL_DFINE.build(), replace_at(SMALL_DFINE, "decoder.dim", 24).build()
    assert size(same.to_memory) == 0
    assert all(isinstance(p, ConvNormAct) for p in other.to_memory)
    other.eval()(pictures())


def test_fewer_layers_are_the_first_layers_with_their_judges(model):
    images = pictures().double()
    short = model.trim(2)
    assert len(short.decoder.quality_heads) == 2
    with torch.no_grad():
        assert torch.equal(short(images).logits, model(images).layers[1].logits)


@pytest.mark.parametrize("shape", [(96, 64), (100, 75), (71, 133)], ids=str)
def test_pictures_of_any_size(model, shape):
    with torch.no_grad():
        out = model(pictures(2, *shape).double())
    assert out.logits.shape == (2, 10, 5)
    assert out.boxes.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"num_bins": 7}, "num_bins"),
        ({"num_bins": 2}, "num_bins"),
        ({"scale": 0.0}, "scale"),
        ({"reach": -1.0}, "reach"),
        ({"top_bins": 10}, "top_bins"),
        ({"quality_dim": 0}, "quality_dim"),
        ({"num_points": (3, 6)}, "num_points"),
    ],
    ids=str,
)
def test_an_impossible_decoder_is_refused_by_name(changes, where):
    with pytest.raises(ConfigError) as refused:
        replace_all(SMALL_DFINE, {f"decoder.{n}": v for n, v in changes.items()})
    assert refused.value.where == f"decoder.{where}"


@pytest.mark.parametrize(
    ("preset", "millions", "channels"),
    [("n", 3.8, 2), ("s", 10.3, 3), ("m", 19.6, 3), ("l", 31.2, 3), ("x", 62.6, 3)],
)
def test_the_table_of_presets_is_true(preset, millions, channels):
    with torch.device("meta"):
        made = getattr(dfine, f"dfine_{preset}")().build()
    assert round(size(made) / 1e6, 1) == millions
    assert len(made.backbone.channels) == channels


def test_nano_is_rtdetr_nano_with_other_parts_and_the_same_size():
    one, other = rtdetr_nano(7), dfine.dfine_nano(7)
    kept = ("num_classes", "backbone", "selection", "denoising")
    assert all(getattr(one, name) == getattr(other, name) for name in kept)
    inner = {"dim": 96, "num_layers": 3, "num_heads": 6, "ffn_dim": 192}
    assert {name: getattr(other.decoder, name) for name in inner} == inner
    sizes = [size(cfg.build()) for cfg in (one, other)]
    assert abs(sizes[1] / sizes[0] - 1) < 0.02


def test_a_class_loss_of_an_rtdetr_is_kept_on_the_way():
    cfg = replace_at(rtdetr_nano(7), "criterion.classification", MatchabilityAware())
    made = dfine.as_dfine(cfg)
    assert made.criterion.classification == MatchabilityAware()
    assert made.criterion.fgl_weight == 0.15


@pytest.mark.parametrize("preset", [dfine.dfine_nano, rtdetr_nano], ids=lambda p: p.__name__)
def test_weights_of_either_nano_are_recognised(preset):
    with torch.device("meta"):
        tensors = preset(7).build().state_dict()
    assert diff(infer_config(tensors, "weights"), preset(7)) == {}


def test_a_deployed_model_answers_alike(model):
    """Blocks are folded, and only chosen tokens get a box. All layers stay: each adds scores."""
    images = pictures(2, 100, 75).double()
    fast = deploy(model)
    assert not [m for m in fast.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        a, b = model(images), fast(images)
    assert (a.logits - b.logits).abs().max() < 1e-9
    assert (a.boxes - b.boxes).abs().max() < 1e-9
    assert (a.layers[-1].corner_logits - b.layers[0].corner_logits).abs().max() < 1e-9
    assert cost(fast, images).flops < cost(fuse_inside(copy.deepcopy(model)), images).flops
