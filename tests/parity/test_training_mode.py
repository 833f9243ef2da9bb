"""One step of training: the same noise, the same terms, the same gradients as transformers.

The oracle is transformers, which detaches the reference between layers (`look_forward_once`). The
authors' rule, `look_forward_twice`, has no oracle that runs: finite differences judge it.
"""

import copy
from types import SimpleNamespace

import pytest
import torch
from oracle import preset, same_weights, spread, theirs

from rtdetr_lab.checkpoints.rename import import_tensors
from rtdetr_lab.checkpoints.tables import TRANSFORMERS
from rtdetr_lab.config import replace_at
from rtdetr_lab.decoder import Decoder, DecoderConfig, look_forward_once, look_forward_twice
from rtdetr_lab.structures import Targets
from rtdetr_lab.taps import record

COUNTS = (3, 0, 7)
TERMS = {"class": "loss_vfl", "l1": "loss_bbox", "giou": "loss_giou"}


CASES = {"v1": ("v1", torch.float64), "v2": ("v2", torch.float64), "v1 fp32": ("v1", torch.float32)}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def step(request):
    """One forward and backward of both, on the same pictures and the same seed."""
    version, dtype = request.param
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # their noise is drawn in it
    yield one_step(version, dtype)
    torch.set_default_dtype(before)


def one_step(version, dtype):
    model = spread(theirs("r18", version, num_queries=100))
    # torch's fused attention misreads an fp32 mask beside fp64 queries, and theirs is fp32.
    model.set_attn_implementation("eager")
    cfg = replace_at(preset("r18", version), "selection.num_queries", 100)
    cfg = replace_at(cfg, "decoder.box_gradient", look_forward_once)
    ours = same_weights(model, cfg).to(dtype).train()
    model = model.to(dtype).train()
    images, pictures = batch(dtype)

    torch.manual_seed(7)
    out = model(images, labels=pictures)
    out.loss.backward()
    torch.manual_seed(7)
    targets = Targets.of({"labels": p["class_labels"], "boxes": p["boxes"]} for p in pictures)
    prediction = ours(images, targets)
    terms = ours.cfg.criterion.build()(prediction, targets)
    sum(terms.values()).backward()
    return SimpleNamespace(
        out=out, theirs=model, prediction=prediction, terms=terms, ours=ours, dtype=dtype
    )


def batch(dtype):
    """Three pictures, one of them without objects."""
    rng = torch.Generator().manual_seed(3)
    images = torch.rand(len(COUNTS), 3, 96, 128, generator=rng, dtype=torch.float32).to(dtype)
    pictures = []
    for count in COUNTS:
        labels = torch.randint(80, (count,), generator=rng)
        boxes = 0.2 + 0.4 * torch.rand(count, 4, generator=rng, dtype=torch.float32).to(dtype)
        pictures.append({"class_labels": labels, "boxes": boxes})
    return images, pictures


def test_the_denoising_queries_are_identical(step):
    ours, meta = step.prediction.denoising.batch, step.out.denoising_meta_values
    assert ours.num_queries == meta["dn_num_split"][0] == 2 * 7 * (100 // 7)
    assert ours.num_groups == meta["dn_num_group"] == 100 // 7
    expected = step.out.init_reference_points[:, : ours.num_queries]
    assert torch.equal(ours.reference_logits, expected)
    for row, positive in zip(ours.is_positive, meta["dn_positive_idx"], strict=True):
        assert torch.equal(row.nonzero()[:, 0], positive)


def test_every_loss_term_is_theirs(step):
    layers = len(step.prediction.layers)
    suffixes = {"": "", ".proposals": f"_aux_{layers - 1}"}
    suffixes |= {f".layer{i}": f"_aux_{i}" for i in range(layers - 1)}
    suffixes |= {f".denoising{i}": f"_dn_{i}" for i in range(layers)}
    names = {a + s: b + t for a, b in TERMS.items() for s, t in suffixes.items()}
    assert set(step.terms) == set(names)
    assert set(step.out.loss_dict) == set(names.values())
    allowed = 1e-11 if step.dtype == torch.float64 else 1e-5
    for ours, theirs_ in names.items():
        expected = step.out.loss_dict[theirs_].item()
        assert step.terms[ours].item() == pytest.approx(expected, rel=allowed), ours


def gradients(model):
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_every_gradient_is_theirs(step):
    if step.dtype != torch.float64:
        pytest.skip("fp64 decides about gradients; runs in the fp64 cases")
    expected = import_tensors(TRANSFORMERS, gradients(step.theirs), "their gradients")
    mine = gradients(step.ours)
    assert set(mine) == set(expected) == {n for n, _ in step.ours.named_parameters()}

    # Some are zero by nature (a softmax ignores what it adds to all scores, a live batch norm
    # what it adds to all cells): what is left there is rounding, on both sides.
    zero = {n for n, g in expected.items() if g.norm() < 1e-11}
    assert max(mine[n].norm() for n in zero) < 1e-11
    assert zero <= {n for n in mine if n.endswith(("k_proj.bias", "norm.bias", "norm2.bias"))}
    off = {
        n: ((mine[n] - g).norm() / g.norm()).item() for n, g in expected.items() if n not in zero
    }
    assert {n: e for n, e in off.items() if e > 1e-6} == {}


def test_batch_statistics_move_as_theirs_do(step):
    expected = import_tensors(TRANSFORMERS, dict(step.theirs.named_buffers()), "their statistics")
    live = {n: b for n, b in step.ours.named_buffers() if "tracked" not in n}
    assert len(live) > 100
    for name, buffer in live.items():
        torch.testing.assert_close(buffer, expected[name], rtol=1e-4, atol=1e-5)


# --- look forward twice: what each box head answers for ------------------------------------------


@pytest.fixture
def tiny():
    """A decoder of four layers in fp64 whose boxes move, and something for it to decode."""
    cfg = DecoderConfig(dim=16, num_layers=4, num_heads=2, ffn_dim=16, num_levels=1, num_points=2)
    decoder = Decoder(cfg, num_classes=3).double().train()
    for parameter in decoder.box_heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    content, memory = torch.randn(1, 5, 16).double(), torch.randn(1, 12, 16).double()
    return decoder, (content, torch.randn(1, 5, 4).double(), memory, [(3, 4)])


def judged(decoder, inputs, layer):
    """A number that depends on the boxes of one layer."""
    boxes = decoder(*inputs)[layer].boxes
    return (boxes * torch.linspace(-1, 2, boxes.numel()).view_as(boxes)).sum()


def with_rule(decoder, rule):
    decoder = copy.deepcopy(decoder)
    decoder.cfg = replace_at(decoder.cfg, "box_gradient", rule)
    return decoder


@torch.no_grad()
def slope(decoder, inputs, layer, head, direction, still, step=1e-6):
    """Central difference of `judged` along a direction in the weights of one box head, with all
    `still` that is a constant to the loss of this layer: where the layers before it start, and
    its own content. Its own start moves: that is the step before it."""
    held = {name: value for name, value in still.items() if name != f"reference.{layer}"}
    hold = {name: lambda _, value=value: value for name, value in held.items()}
    values = []
    for sign in (1, -1):
        moved = copy.deepcopy(decoder)
        for p, d in zip(moved.box_heads[head].parameters(), direction, strict=True):
            p += sign * step * d
        with record(moved, edit=hold):
            values.append(judged(moved, inputs, layer).item())
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("head", range(4))
def test_two_steps_answer_for_a_box_with_references_held_still(tiny, layer, head):
    decoder, inputs = tiny
    with torch.no_grad(), record(decoder, ["reference.*", f"content.{layer}"]) as still:
        decoder(*inputs)
    direction = [torch.randn_like(p) for p in decoder.box_heads[head].parameters()]
    numeric = slope(decoder, inputs, layer, head, direction, still)

    judged(decoder, inputs, layer).backward()
    found = [p.grad for p in decoder.box_heads[head].parameters()]
    if head not in (layer, layer - 1):
        assert found == [None] * len(found)
        assert numeric == 0
    else:
        analytic = sum((g * d).sum() for g, d in zip(found, direction, strict=True)).item()
        assert abs(analytic) > 1e-3
        assert analytic == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("layer", range(1, 4))
def test_one_step_answers_when_the_step_before_is_detached(tiny, layer):
    decoder, inputs = tiny
    twice, once = (with_rule(decoder, r) for r in (look_forward_twice, look_forward_once))
    assert torch.equal(judged(twice, inputs, layer), judged(once, inputs, layer))
    for model in (twice, once):
        judged(model, inputs, layer).backward()
    assert all(p.grad is None for p in once.box_heads[layer - 1].parameters())
    pairs = zip(once.box_heads.parameters(), twice.box_heads.parameters(), strict=True)
    own = [(a.grad, b.grad) for a, b in pairs if a.grad is not None]
    assert len(own) == 6
    assert all(torch.equal(a, b) for a, b in own)
