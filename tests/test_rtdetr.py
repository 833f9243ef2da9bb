"""The complete model: its numbers, its freedoms, and what it refuses."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from small import pictures, rebuilt, shaken, small, targets
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rtdetr_lab import rtdetr
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import ConfigError, ImageError, TargetError
from rtdetr_lab.layers import ConvNormAct, FrozenBatchNorm2d
from rtdetr_lab.query_selection import LearnedContent
from rtdetr_lab.structures import Targets
from rtdetr_lab.taps import inventory, record

PUBLISHED = {
    # preset: parameters and GFLOPs at 640², train form, 80 classes, frozen norms not counted
    "r18": (20_174_608, 61.07),
    "r34": (31_424_388, 93.10),
    "r50_m": (36_593_772, 105.67),
    "r50": (42_891_372, 137.12),
    "r101": (76_556_268, 259.83),
}


def on_meta(size):
    with torch.device("meta"):
        cfg = getattr(rtdetr, f"rtdetr_{size}")()
        return replace_at(cfg, "decoder.inference_layers", None).build().eval()


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_operations_are_the_published_ones(size):
    parameters, gflops = PUBLISHED[size]
    model = on_meta(size)
    assert sum(p.numel() for p in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 640, 640, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, rel=0.01)


def test_nano_is_small_and_learns_from_scratch():
    model = rtdetr.rtdetr_nano().build()
    assert sum(p.numel() for p in model.parameters()) < 2_000_000
    assert not [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]


def test_classes_reach_every_head():
    model = small(num_classes=3).build()
    assert model.denoising.label_embedding.weight.shape[0] == 4
    heads = [model.proposal_head.class_head, *model.decoder.class_heads]
    assert {head.out_features for head in heads} == {3}


# --- freedoms -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return rebuilt(small())


def same(a, b, tolerance=0.0):
    pairs = zip(a.layers, b.layers, strict=True)
    return all(
        (x.boxes - y.boxes).abs().max() <= tolerance
        and (x.logits - y.logits).abs().max() <= tolerance
        for x, y in pairs
    )


def test_the_prediction_is_its_last_layer(model):
    out = model(pictures().double())
    assert out.logits is out.layers[-1].logits
    assert out.boxes is out.layers[-1].boxes
    assert len(out.layers) == 3
    assert out.denoising is None


def test_a_batch_of_two_is_two_singles(model):
    images = pictures().double()
    both = model(images)
    for b in range(2):
        alone = model(images[b : b + 1])
        assert torch.equal(alone.proposals.index[0], both.proposals.index[b])
        for x, y in zip(alone.layers, both.layers, strict=True):
            assert (x.boxes[0] - y.boxes[b]).abs().max() <= 1e-12
            assert (x.logits[0] - y.logits[b]).abs().max() <= 1e-12


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_trimmed_model_is_its_intermediate_layer_bit_for_bit(model, k):
    images = pictures().double()
    trimmed, whole = model.trim(k)(images), model(images)
    assert len(trimmed.layers) == k
    assert torch.equal(trimmed.logits, whole.layers[k - 1].logits)
    assert torch.equal(trimmed.boxes, whole.layers[k - 1].boxes)


def test_a_trimmed_model_shares_its_weights_and_describes_itself(model):
    trimmed = model.trim(2)
    for name, tensor in trimmed.state_dict(keep_vars=True).items():
        assert tensor is model.state_dict(keep_vars=True)[name]
    assert trimmed.cfg.build().state_dict().keys() == trimmed.state_dict().keys()
    assert len(model.decoder.layers) == 3, "the original keeps all"
    trimmed.num_queries = 4
    assert model.num_queries == 10


def test_r50_m_runs_three_of_six_and_trim_can_run_more(model):
    cfg = small({"decoder.inference_layers": 1})
    fast = cfg.build().double().eval()
    fast.load_state_dict(model.state_dict())
    images = pictures().double()
    assert len(fast(images).layers) == 1
    assert same(fast.trim(3)(images), model(images))


@pytest.mark.parametrize("k", [0, 4])
def test_a_trim_that_leaves_nothing_or_invents_layers_is_refused(model, k):
    with pytest.raises(ConfigError, match=f"cannot keep {k} of 3"):
        model.trim(k)


def test_the_number_of_queries_changes_at_run_time():
    model, images = rebuilt(small()), pictures().double()
    index = model(images).proposals.index
    for count in (1, 4, 25):
        model.num_queries = count
        proposals = model(images).proposals
        assert proposals.index.shape == (2, count)
        shared = min(count, 10)
        assert torch.equal(proposals.index[:, :shared], index[:, :shared])
    assert model.cfg.selection.num_queries == 10


@pytest.mark.parametrize("size", [(100, 75), (33, 47), (64, 65), (31, 200)], ids=str)
def test_any_picture_size_runs_and_trains(size):
    model = shaken(small().build()).train()
    found = targets(2, 1)
    prediction = model(pictures(2, *size), found)
    sum(model.cfg.criterion.build()(prediction, found).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


LEVELS = {
    "S5": {"backbone.outputs": (4,), "decoder.num_levels": 1},
    "S4 S5": {"backbone.outputs": (3, 4), "decoder.num_levels": 2},
    "S3 S4 S5": {},
    "S2 S3 S4 S5": {"backbone.outputs": (1, 2, 3, 4), "decoder.num_levels": 4},
    "one more": {"decoder.num_levels": 4},
    "two more": {"decoder.num_levels": 5},
    "one more of one": {"backbone.outputs": (3,), "decoder.num_levels": 2},
}


@pytest.mark.parametrize("changes", LEVELS.values(), ids=LEVELS)
def test_any_levels(changes):
    model = shaken(small({**changes, "selection.num_queries": 5}).build()).train()
    found = targets(2, 0)
    prediction = model(pictures(), found)
    sum(model.cfg.criterion.build()(prediction, found).values()).backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == set()


@dataclass(frozen=True)
class PatchesConfig:
    """A reader's backbone: patches of 16 and 32 pixels, no ResNet at all."""

    width: int = 6

    def build(self):
        return Patches(self.width)


class Patches(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.strides, self.channels = (16, 32), (width, 2 * width)
        self.fine = nn.Conv2d(3, width, 16, 16)
        self.coarse = nn.Conv2d(width, 2 * width, 2, 2)

    def forward(self, images):
        fine = self.fine(images)
        return fine, self.coarse(fine)


def test_a_readers_own_backbone_is_a_value():
    model = small({"backbone": PatchesConfig(), "decoder.num_levels": 2}).build()
    assert model(pictures()).boxes.shape == (2, 10, 4)


def test_learned_contents_are_learned():
    model = shaken(small(selection=LearnedContent(10)).build()).train()
    found = targets(1, 2)
    prediction = model(pictures(), found)
    sum(model.cfg.criterion.build()(prediction, found).values()).backward()
    assert (model.selection.content.grad.abs().sum(-1) > 0).all()


# --- training -----------------------------------------------------------------------------------


def test_denoising_queries_go_along_only_in_training_with_targets():
    model, found = small().build(), targets(2, 1)
    assert model.train()(pictures()).denoising is None
    assert model.eval()(pictures(), found).denoising is None
    noised = model.train()(pictures(), found)
    assert noised.denoising.batch.num_queries == 2 * 2 * (6 // 2)
    assert [x.boxes.shape[1] for x in noised.denoising.layers] == [12] * 3
    assert noised.boxes.shape == (2, 10, 4)
    assert small(denoising=None).build().train()(pictures(), found).denoising is None


def test_matching_answers_do_not_depend_on_the_denoising_queries():
    model, images = shaken(small().build()).double().train(), pictures().double()
    outs = [model(images, targets(*counts)) for counts in ((3, 2), (1, 5))] + [model(images)]
    assert same(outs[0], outs[1], 1e-12)
    assert same(outs[0], outs[2], 1e-12)


@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0)], ids=str)
def test_every_parameter_learns(counts):
    model = shaken(small().build()).train()
    found = targets(*counts)
    terms = model.cfg.criterion.build()(model(pictures(), found), found)
    sum(terms.values()).backward()
    missing = {n for n, p in model.named_parameters() if p.grad is None}
    assert missing == set()
    embedding = model.denoising.label_embedding.weight.grad
    assert bool(embedding.any()) == (sum(counts) > 0)
    assert not embedding[-1].any(), "padding never learns"


# --- looking inside -----------------------------------------------------------------------------


def test_every_tap_has_its_name_and_shape(model):
    shapes = dict(inventory(model, pictures(1, 96, 64).double()))  # 12×8, 6×4, 3×2: 126 tokens
    assert {n: s for n, s in shapes.items() if not n.startswith("decoder")} == {
        "backbone.S3": (1, 12, 12, 8),
        "backbone.S4": (1, 16, 6, 4),
        "backbone.S5": (1, 24, 3, 2),
        "encoder.aifi.layers.0.self_attn.weights": (1, 4, 6, 6),
        "encoder.aifi.F5": (1, 16, 3, 2),
        **{f"encoder.ccff.top_down.{i}": (1, 16, 12 >> i, 8 >> i) for i in range(3)},
        **{f"encoder.ccff.bottom_up.{i}": (1, 16, 12 >> i, 8 >> i) for i in range(3)},
        "proposal_head.logits": (1, 126, 5),
        "proposal_head.box_logits": (1, 126, 4),
        "selection.score": (1, 126),
        "selection.index": (1, 10),
    }
    of_layer = {
        f"decoder.layers.{i}.{n}": s
        for i in range(3)
        for n, s in {
            "self_attn.weights": (1, 4, 10, 10),
            "cross_attn.weights": (1, 10, 4, 12),
            "cross_attn.locations": (1, 10, 4, 12, 2),
        }.items()
    }
    answers = {"reference": 4, "content": 16, "boxes": 4, "logits": 5}
    of_layer |= {f"decoder.{n}.{i}": (1, 10, s) for i in range(3) for n, s in answers.items()}
    assert {n: s for n, s in shapes.items() if n.startswith("decoder")} == of_layer


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_recording_changes_nothing(dtype, tolerance):
    model, images = rebuilt(small()).to(dtype), pictures().to(dtype)
    plain = model(images)
    with record(model):
        watched = model(images)
    assert same(plain, watched, tolerance)
    assert same(plain, model(images)), "and leaves nothing behind"


def test_edited_attention_changes_the_answer(model):
    images = pictures().double()
    plain = model(images)
    for name in ("encoder.aifi.layers.0.self_attn.weights", "decoder.layers.0.cross_attn.weights"):
        with record(model, edit={name: lambda w: torch.zeros_like(w)}):
            assert not same(model(images), plain, 1e-6)


# --- what is refused (what the shape check itself refuses here: unhooked/test_refusals.py) --------


def test_targets_that_do_not_fit_are_refused():
    model = small().build().train()
    with pytest.raises(ImageError, match="2 pictures and 1 targets"):
        model(pictures(), targets(2))
    wrong = Targets.of([{"labels": [5], "boxes": [[0.5, 0.5, 0.1, 0.1]]}] * 2)
    with pytest.raises(TargetError, match=r"label 5 is outside 0 … 4"):
        model(pictures(), wrong)


def test_fewer_tokens_than_queries_are_refused_by_name(model):
    with pytest.raises(ConfigError, match=r"10 queries, but the picture has only 6 tokens"):
        model(pictures(1, 16, 16).double())


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("num_classes", 0, "num_classes"),
        ("selection.num_queries", 0, "selection.num_queries"),
        ("decoder.num_levels", 2, "decoder.num_levels"),
        ("decoder.dim", 18, "decoder.num_heads"),
        ("encoder.dim", 18, "encoder.aifi.num_heads"),
        ("encoder.ccff.expansion", 0.0, "encoder.ccff.expansion"),
        ("backbone.outputs", (9,), "backbone.outputs"),
    ],
)
def test_an_impossible_model_is_refused_by_name(path, value, where):
    with pytest.raises(ConfigError) as refused:
        small({path: value}).build()
    assert refused.value.where == where


def test_no_queries_are_refused_at_run_time():
    with pytest.raises(ConfigError, match="num_queries: is 0"):
        small().build().num_queries = 0


def test_a_single_cell_is_too_little_to_train_on():
    model = rtdetr.rtdetr_nano(3).build()
    with pytest.raises(ImageError, match="batch norm a single value"):
        model(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_for_one_picture_is_half_of_that_for_the_same_picture_twice(training):
    """torch's batch norm is wrong on a CPU for one picture and a gradient laid out like tokens."""
    model = shaken(small({"denoising": None}).build()).double().train(training)
    image = torch.rand(1, 3, 96, 64).double()
    found = []
    for count in (1, 2):
        model.zero_grad()
        prediction = model(image.expand(count, -1, -1, -1))
        weights = torch.linspace(-1, 1, prediction.logits[0].numel()).view_as(prediction.logits[0])
        loss = (prediction.logits * weights.double()).sum() + prediction.boxes.square().sum()
        loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    one, two = found
    assert len(one) > 50
    for name, grad in one.items():
        torch.testing.assert_close(2 * grad, two[name], rtol=1e-7, atol=1e-9, msg=name)


def test_a_part_with_an_eps_of_its_own_keeps_it():
    class Lateral(CCFFConfig):
        def lateral(self, dim):
            return ConvNormAct(dim, dim, 1, norm=partial(torch.nn.BatchNorm2d, eps=0.25))

    cfg = replace_at(small(), "encoder.ccff", Lateral(0.5, 1))
    encoder = replace_at(cfg, "batch_norm_eps", 0.125).build().encoder
    assert encoder.ccff.lateral[0].norm.eps == 0.25
    assert encoder.ccff.downsample[0].norm.eps == 0.125
    assert encoder.project[0].norm.eps == 1e-5, "as in transformers"
