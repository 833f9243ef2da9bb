"""Cells that listen, queries that ask: what DETR's transformer can and cannot know."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from small import shaken

from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.taps import record

DIM, CELLS = 16, 10


def encoder(**more):
    cfg = DETREncoderConfig(
        **{"num_layers": 3, "num_heads": 4, "ffn_dim": 24, "dropout": 0.0} | more
    )
    return shaken(cfg.build(DIM)).double().eval()


def decoder(**more):
    start = {"num_queries": 5, "num_layers": 3, "num_heads": 4, "ffn_dim": 24, "dropout": 0.0}
    return shaken(DETRDecoderConfig(**start | more).build(DIM)).double().eval()


@pytest.fixture
def cells():
    return torch.randn(2, CELLS, DIM).double(), torch.randn(1, CELLS, DIM).double()


@pytest.fixture
def blocked():
    """The last three cells of the second picture are padding."""
    mask = torch.zeros(2, 1, 1, CELLS, dtype=torch.bool)
    mask[1, ..., -3:] = True
    return mask


@torch.no_grad()
def test_cells_and_their_positions_may_come_in_any_order(cells):
    x, positions = cells
    order = torch.randperm(CELLS)
    model, ask = encoder(), decoder()
    memory = model(x, positions)
    shuffled = model(x[:, order], positions[:, order])
    torch.testing.assert_close(shuffled, memory[:, order])
    for a, b in zip(ask(memory, positions), ask(shuffled, positions[:, order]), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_queries_are_told_apart_by_what_they_ask_for_and_by_nothing_else(cells):
    """In Eq. 02.1 content starts at zero, which leaves p."""
    model, order = decoder(), torch.tensor([3, 1, 4, 0, 2])
    before = model(*cells)[-1]
    model.query_positions.copy_(model.query_positions[order])
    torch.testing.assert_close(model(*cells)[-1], before[:, order])
    model.query_positions.copy_(model.query_positions[:1].expand(5, -1))
    assert (model(*cells)[-1].std(1) < 1e-12).all()


def test_a_blocked_cell_is_heard_by_nobody(cells, blocked):
    x, positions = cells
    x.requires_grad_()
    memory = encoder()(x, positions, blocked)
    read = decoder()(memory, positions, blocked)[-1]
    (memory[1, :-3].sum() + (read[1] * torch.randn_like(read[1])).sum()).backward()
    assert (x.grad[1, -3:] == 0).all()
    assert (x.grad[1, :-3] != 0).all()


@torch.no_grad()
def test_a_picture_without_its_padding_says_the_same(cells, blocked):
    x, positions = cells
    model = encoder()
    padded = model(x, positions, blocked)[1:, :-3]
    torch.testing.assert_close(padded, model(x[1:, :-3], positions[:, :-3]))


@torch.no_grad()
def test_every_layer_is_read_through_the_same_norm(cells):
    model = decoder()
    with record(model, keep="content.*") as seen:
        read = model(*cells)
    assert len(read) == len(seen) == 3
    for i, content in enumerate(read):
        by_hand = F.layer_norm(seen[f"content.{i}"], (DIM,), model.norm.weight, model.norm.bias)
        torch.testing.assert_close(content, by_hand)


@torch.no_grad()
@pytest.mark.parametrize("of", [encoder, decoder])
def test_dropout_is_for_training(of, cells):
    model = of(dropout=0.3)

    def run():
        out = model(*cells)
        return out if torch.is_tensor(out) else out[-1]

    assert torch.equal(run(), run())
    model.train()
    assert not torch.equal(run(), run())


@torch.no_grad()
@pytest.mark.parametrize("of", [encoder, decoder])
def test_a_dropped_layer_hands_on_what_it_was_given(of, cells):
    model, still, total = of(num_layers=8, layer_drop=0.3).train(), 0, 0
    for _ in range(25):
        with record(model, keep="content.*") as seen:
            model(*cells)
        values = [seen[f"content.{i}"] for i in range(8)]
        still += sum(torch.equal(a, b) for a, b in pairwise(values))
        total += 7
    assert 0.15 < still / total < 0.45
    with record(model.eval(), keep="content.*") as seen:
        model(*cells)
    assert not any(torch.equal(seen[f"content.{i}"], seen[f"content.{i + 1}"]) for i in range(7))


@pytest.mark.parametrize("of", [encoder, decoder])
def test_the_gradients_of_a_dropped_layer_are_there_and_zero(of, cells):
    """So that a distributed run does not wait for them; and one per layer is judged, always."""
    model = of(layer_drop=0.999999).train()
    out = model(*cells)
    assert torch.is_tensor(out) or len(out) == 3
    (out if torch.is_tensor(out) else torch.stack(out)).square().sum().backward()
    grads = [p.grad for layer in model.layers for p in layer.parameters()]
    assert all(g is not None and (g == 0).all() for g in grads)


@pytest.mark.parametrize("act", [F.relu, F.gelu])
def test_every_other_number_of_everything_runs_and_learns(act, cells):
    model = encoder(num_layers=1, num_heads=2, ffn_dim=8, act=act).train()
    ask = decoder(num_queries=7, num_layers=1, num_heads=8, ffn_dim=8, act=act).train()
    (read,) = ask(model(*cells), cells[1])
    assert read.shape == (2, 7, DIM)
    (read * torch.randn_like(read)).sum().backward()
    assert all(p.grad is not None for p in [*model.parameters(), *ask.parameters()])


def test_without_an_encoder_the_cells_stay_as_they_are(cells):
    assert torch.equal(encoder(num_layers=0)(*cells), cells[0])


@pytest.mark.parametrize(
    ("cfg", "where"),
    [
        (DETREncoderConfig(num_heads=3), "encoder.num_heads"),
        (DETRDecoderConfig(num_layers=0), "decoder.num_layers"),
        (DETREncoderConfig(layer_drop=1.0), "encoder.layer_drop"),
        (DETRDecoderConfig(dropout=-0.1), "decoder.dropout"),
        (DETRDecoderConfig(num_queries=0), "decoder.num_queries"),
    ],
)
def test_what_no_model_can_be_built_from_is_refused(cfg, where):
    with pytest.raises(ConfigError) as error:
        cfg.build(DIM)
    assert error.value.where == where
