"""Three questions per layer, and a box that moves: forward, gradients, and who sees whom."""

import copy

import pytest
import torch
from small import shaken

from rtdetr_lab.boxes import inverse_sigmoid
from rtdetr_lab.config import replace_at
from rtdetr_lab.decoder import Decoder, DecoderConfig, look_forward_once, look_forward_twice, move
from rtdetr_lab.denoising import who_may_not_see
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.taps import record

SHAPES = [(3, 4), (2, 2)]
TINY = DecoderConfig(dim=8, num_layers=3, num_heads=2, ffn_dim=12, num_levels=2, num_points=2)


def tiny(**changes):
    cfg = TINY
    for name, value in changes.items():
        cfg = replace_at(cfg, name, value)
    return shaken(Decoder(cfg, num_classes=3)).double().eval()


@pytest.fixture
def inputs():
    """(content, reference logits, memory, shapes)."""
    content, reference, memory = torch.randn(2, 5, 8), torch.randn(2, 5, 4), torch.randn(2, 16, 8)
    return content.double(), reference.double(), memory.double(), SHAPES


def same(a, b):
    pairs = zip(a, b, strict=True)
    return all(torch.equal(x.boxes, y.boxes) and torch.equal(x.logits, y.logits) for x, y in pairs)


def test_the_decoder_is_the_loop_of_its_equation(inputs):
    """Eq. 11.1 and Eq. 11.2, written out."""
    decoder, (content, reference_logits, memory, shapes) = tiny(), inputs
    reference = reference_logits.sigmoid()
    for i, prediction in enumerate(decoder(*inputs)):
        position, layer = decoder.query_position(reference), decoder.layers[i]
        where = content + position
        content = layer.norm1(content + layer.self_attn(where, where, content))
        seen = layer.cross_attn(content + position, reference, memory, shapes)
        content = layer.norm2(content + seen)
        content = layer.norm3(content + layer.ffn(content))
        reference = torch.sigmoid(decoder.box_heads[i](content) + inverse_sigmoid(reference))
        assert torch.equal(prediction.boxes, reference)
        assert torch.equal(prediction.logits, decoder.class_heads[i](content))


def test_before_training_every_layer_keeps_the_box_it_is_given(inputs):
    decoder = Decoder(TINY, num_classes=3).double().eval()
    for prediction in decoder(*inputs):
        assert torch.allclose(prediction.boxes, inputs[1].sigmoid())
    assert all(head.bias.sigmoid()[0].item() == pytest.approx(0.01) for head in decoder.class_heads)


def test_a_box_never_leaves_the_picture():
    boxes = move(torch.tensor([[[1e9, -1e9, 50.0, -50.0]]]), torch.tensor([[[0.0, 1.0, 0.5, 0.5]]]))
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_the_order_of_the_queries_does_not_matter(inputs):
    decoder, order = tiny(), torch.randperm(5)
    content, reference, memory, shapes = inputs
    shuffled = decoder(content[:, order], reference[:, order], memory, shapes)
    for a, b in zip(shuffled, decoder(*inputs), strict=True):
        assert (a.boxes - b.boxes[:, order]).abs().max() <= 1e-12
        assert (a.logits - b.logits[:, order]).abs().max() <= 1e-12


def test_queries_see_each_other_unless_blocked(inputs):
    decoder, (content, reference, memory, shapes) = tiny(), inputs
    nobody = ~torch.eye(5, dtype=torch.bool)
    alone = decoder(*inputs, nobody)
    each = [
        decoder(content[:, i : i + 1], reference[:, i : i + 1], memory, shapes) for i in range(5)
    ]
    for i in range(5):
        assert (alone[-1].boxes[:, i] - each[i][-1].boxes[:, 0]).abs().max() <= 1e-12
    assert not torch.allclose(alone[-1].boxes, decoder(*inputs)[-1].boxes)


def test_no_matching_output_depends_on_a_denoising_query(inputs):
    """The Jacobian is zero to the last bit; the other way round is open."""
    decoder, (_, _, memory, shapes) = tiny(), inputs
    num_matching, size, groups = 3, 1, 2
    blocked = who_may_not_see(size, groups, num_matching)
    num_noised = len(blocked) - num_matching

    def answers(content, reference):
        layers = decoder(content, reference, memory[:1], shapes, blocked)
        return torch.stack([torch.cat([p.boxes, p.logits], dim=-1)[0] for p in layers], dim=1)

    start = torch.randn(1, len(blocked), 8).double(), torch.randn(1, len(blocked), 4).double()
    for jacobian in torch.autograd.functional.jacobian(answers, start):
        by_query = jacobian[:, :, :, 0].abs().amax(dim=(1, 2, 4))  # answer × query
        matching, noised = slice(num_noised, None), slice(0, num_noised)
        assert not by_query[matching, noised].any()
        assert (by_query[noised, noised].diagonal() > 0).all()
        assert (by_query[noised, matching] > 0).all()
        assert not by_query[0:2, 2:4].any(), "groups do not see each other"
        assert by_query[0, 1] > 0, "within a group all is open"


@pytest.mark.parametrize("rule", [look_forward_once, look_forward_twice])
def test_training_changes_gradients_and_not_a_bit_of_the_answer(inputs, rule):
    decoder = tiny(box_gradient=rule)
    assert same(decoder.eval()(*inputs), decoder.train()(*inputs))


@pytest.mark.parametrize(
    ("rule", "reached"), [(look_forward_once, {2}), (look_forward_twice, {1, 2})]
)
def test_the_loss_of_the_last_layer_reaches(inputs, rule, reached):
    decoder = tiny(box_gradient=rule).train()
    decoder(*inputs)[-1].boxes.sum().backward()
    got = {i for i, head in enumerate(decoder.box_heads) if head.layers[0].weight.grad is not None}
    assert got == reached


def test_fewer_layers_run_in_eval_mode_if_asked(inputs):
    decoder = tiny(inference_layers=2)
    whole = copy.deepcopy(decoder)
    whole.cfg = TINY
    assert decoder.num_running == 2
    assert same(decoder(*inputs), whole(*inputs)[:2])
    assert len(decoder.train()(*inputs)) == 3


def test_every_layer_is_tapped_and_an_edited_box_goes_on(inputs):
    decoder = tiny()
    with record(decoder) as seen:
        plain = decoder(*inputs)
    for i, prediction in enumerate(plain):
        assert torch.equal(seen[f"boxes.{i}"], prediction.boxes)
        assert torch.equal(seen[f"logits.{i}"], prediction.logits)
        assert seen[f"content.{i}"].shape == (2, 5, 8)
        assert seen[f"layers.{i}.self_attn.weights"].shape == (2, 2, 5, 5)
        assert seen[f"layers.{i}.cross_attn.locations"].shape == (2, 5, 2, 4, 2)
    assert torch.equal(seen["reference.1"], plain[0].boxes)

    middle = torch.full_like(plain[0].boxes, 0.5)
    with record(decoder, "reference.1", {"boxes.0": lambda _: middle}) as seen:
        edited = decoder(*inputs)
    assert torch.equal(seen["reference.1"], middle)
    assert not torch.equal(edited[-1].boxes, plain[-1].boxes)


def test_dropout_drops_in_training_only(inputs):
    decoder = tiny(dropout=0.5)
    assert same(decoder(*inputs), decoder(*inputs))
    decoder.train()
    assert not same(decoder(*inputs), decoder(*inputs))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"num_heads": 3}, "decoder.num_heads"),
        ({"num_layers": 0}, "decoder.num_layers"),
        ({"inference_layers": 4}, "decoder.inference_layers"),
        ({"inference_layers": 0}, "decoder.inference_layers"),
        ({"num_points": (4, 2, 1)}, "decoder.num_points"),
        ({"num_points": 0}, "decoder.num_points"),
    ],
    ids=str,
)
def test_an_impossible_decoder_is_refused_by_name(changes, where):
    with pytest.raises(ConfigError) as refused:
        tiny(**changes)
    assert refused.value.where == where
