"""The best-scored tokens become queries; anchors know the size of every picture."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import pictures, rebuilt, shaken, small
from torch import nn

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.query_selection import (
    LearnedContent,
    ProposalHead,
    QuerySelection,
    TokenProposals,
    TopScore,
    anchors,
    reset_heads,
)


@pytest.fixture
def tokens():
    """(tokens, logits, box_logits) of two pictures with seven tokens."""
    return torch.randn(2, 7, 4), torch.randn(2, 7, 3), torch.randn(2, 7, 4)


def test_keeps_the_tokens_a_reader_would_pick_by_hand(tokens):
    """Eq. 09.1."""
    features, logits, box_logits = tokens
    out = TopScore(num_queries=3).build(4)(*tokens)
    for b in range(2):
        by_hand = sorted(range(7), key=lambda n: -logits[b, n].max().item())[:3]
        assert out.index[b].tolist() == by_hand
        assert torch.equal(out.content[b], features[b, by_hand])
        assert torch.equal(out.reference_logits[b], box_logits[b, by_hand])


def test_the_best_single_class_decides_and_not_the_sum(tokens):
    features, logits, box_logits = tokens
    logits[:] = -9.0
    logits[0, 5, 0] = 4.0
    logits[0, 2] = 2.0
    assert TopScore(1).build(4)(features, logits, box_logits).index[0].item() == 5


@given(st.integers(1, 20), st.integers(1, 20))
def test_fewer_queries_are_a_prefix_of_more(a, b):
    few, many = sorted((a, b))
    inputs = torch.randn(2, 20, 4), torch.randn(2, 20, 3), torch.randn(2, 20, 4)
    short, long = (TopScore(q).build(4)(*inputs) for q in (few, many))
    assert torch.equal(short.index, long.index[:, :few])
    assert torch.equal(short.content, long.content[:, :few])


def test_the_order_of_the_tokens_does_not_matter(tokens):
    order = torch.randperm(7)
    select = TopScore(4).build(4)
    plain, shuffled = select(*tokens), select(*(t[:, order] for t in tokens))
    assert torch.equal(order[shuffled.index], plain.index)
    assert torch.equal(shuffled.content, plain.content)


def test_nothing_flows_back_from_the_decoder_but_proposals_learn(tokens):
    inputs = [t.requires_grad_() for t in tokens]
    out = TopScore(3).build(4)(*inputs)
    assert not out.content.requires_grad
    assert not out.reference_logits.requires_grad
    proposals = TokenProposals(*inputs).at(out.index)
    (proposals.logits.sum() + proposals.boxes.sum()).backward()
    for t in inputs[1:]:
        chosen = t.grad.abs().sum(-1) > 0
        assert [set(row.nonzero()[:, 0].tolist()) for row in chosen] == [
            set(row.tolist()) for row in out.index
        ]


def test_learned_contents_belong_to_ranks_and_not_to_pictures(tokens):
    select = LearnedContent(num_queries=5).build(4)
    out = select(*tokens)
    top = TopScore(5).build(4)(*tokens)
    assert torch.equal(out.index, top.index)
    assert torch.equal(out.reference_logits, top.reference_logits)
    assert torch.equal(out.content[0], select.content)
    assert torch.equal(out.content[1], select.content)
    out.content.sum().backward()
    assert torch.equal(select.content.grad, torch.full((5, 4), 2.0))

    select.num_queries = 3
    assert torch.equal(select(*tokens).content[0], select.content[:3])


def test_more_queries_than_there_are_is_refused_by_name(tokens):
    with pytest.raises(
        ConfigError, match=r"num_queries: 8 queries.*only 7 tokens.*larger pictures"
    ):
        TopScore(8).build(4)(*tokens)
    learned = LearnedContent(5).build(4)
    learned.num_queries = 6
    with pytest.raises(ConfigError, match="only 5 contents were learned"):
        learned(*tokens)
    with pytest.raises(ConfigError, match="num_queries: is 0"):
        TopScore(0)


def test_a_readers_own_selection_is_a_value(tokens):
    class Random(QuerySelection):
        def forward(self, tokens, logits, box_logits):
            return super().forward(tokens, torch.rand_like(logits), box_logits)

    class RandomConfig(TopScore):
        def build(self, dim):
            return Random(self)

    model = rebuilt(small(selection=RandomConfig(4)))
    assert model(pictures().double()).logits.shape == (2, 4, 5)


# --- anchors and proposals ----------------------------------------------------------------------


def levels(side):
    return tuple((side // stride, side // stride) for stride in (8, 16, 32))


@pytest.mark.parametrize(("side", "invalid"), [(320, 0), (640, 316), (1280, 1580)])
def test_anchors_at_the_border_are_invalid(side, invalid):
    logits, valid = anchors(levels(side))
    assert int((~valid).sum()) == invalid
    assert torch.equal(logits.isinf().all(-1, keepdim=True), ~valid)


def test_an_anchor_is_the_centre_of_its_cell_and_doubles_with_the_level():
    logits, valid = anchors(((4, 5), (2, 3)), "cpu", torch.float64)
    boxes = logits.sigmoid()
    assert valid.all()
    for n, (x, y, w, h) in enumerate(boxes[:20].tolist()):
        assert (x, y) == pytest.approx((((n % 5) + 0.5) / 5, ((n // 5) + 0.5) / 4))
        assert (w, h) == pytest.approx((0.05, 0.05))
    assert boxes[20:, 2:].unique().item() == pytest.approx(0.1)


def test_an_anchor_far_up_covers_the_picture_and_is_invalid():
    logits, valid = anchors(((2, 2),) * 6)
    assert valid[:20].all()  # 0.05 … 0.8
    assert not valid[20:].any()  # 1.6
    assert not logits.isnan().any()


def test_anchors_are_remembered_by_size_and_never_mixed_up():
    a, b = ((2, 3), (1, 2)), ((3, 2), (2, 1))
    assert anchors(a) is anchors(a)
    assert not torch.equal(anchors(a)[0], anchors(b)[0])
    assert anchors(a, "cpu", torch.float64)[0].dtype == torch.float64
    model = rebuilt(small())
    first, other = pictures().double(), pictures(2, 64, 128).double()
    before = model(first).boxes
    model(other)
    assert torch.equal(model(first).boxes, before)
    assert not [n for n in model.state_dict() if "anchor" in n or "position" in n.split(".")]


def test_anchors_made_in_inference_mode_can_be_trained_with():
    head, shapes = shaken(ProposalHead(8, 3)), [(3, 7), (2, 4)]
    memory = torch.randn(1, 29, 8)
    with torch.inference_mode():
        head(memory, shapes)
    proposed = head(memory, shapes)
    (proposed.logits.sum() + proposed.box_logits.sigmoid().sum()).backward()
    assert head.project.weight.grad.abs().sum() > 0


def test_a_proposal_is_its_anchor_moved_in_logit_space():
    """Eq. 09.2."""
    head, shapes, memory = shaken(ProposalHead(8, 3)), [(3, 7), (2, 4)], torch.randn(1, 29, 8)
    proposed = head(memory, shapes)
    step = head.box_head(proposed.tokens)
    a = anchors(tuple(shapes))[0].sigmoid()
    expected = (step + (a / (1 - a)).log()).sigmoid()
    everything = torch.arange(29)[None]
    torch.testing.assert_close(proposed.at(everything).boxes, expected)
    assert step.abs().max() > 1e-3


def test_an_invalid_token_is_blank_and_still_competes():
    head, shapes = shaken(ProposalHead(8, 3)), [(80, 80)]
    memory = torch.randn(1, 6400, 8)
    valid = anchors(tuple(shapes))[1][:, 0]
    assert not valid[0]
    proposed = head(memory, shapes)
    assert torch.equal(proposed.tokens[0, 0], head.norm(head.project.bias))
    assert proposed.box_logits[0, 0].eq(torch.inf).all()
    logits = proposed.logits.clone()
    logits[0, 0] = 99.0
    chosen = TopScore(1).build(8)(proposed.tokens, logits, proposed.box_logits)
    assert chosen.index.item() == 0
    assert chosen.reference_logits.sigmoid().tolist() == [[[1.0] * 4]]


def test_before_training_every_class_is_improbable_and_boxes_are_anchors():
    head, shapes = ProposalHead(8, 3), [(4, 4)]
    proposed = head(torch.zeros(1, 16, 8), shapes)
    nothing = head.class_head(torch.zeros(8)).sigmoid()
    assert nothing.tolist() == pytest.approx([0.01] * 3)
    assert torch.equal(proposed.box_logits[0], anchors(((4, 4),))[0])


def test_heads_are_reset_by_their_last_layer():
    class_head = nn.Linear(2, 3)
    box_head = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 4))
    reset_heads(class_head, box_head)
    assert class_head.bias.sigmoid().tolist() == pytest.approx([0.01] * 3)
    assert not box_head(torch.randn(5, 2)).any()
    assert box_head[0].weight.any()
