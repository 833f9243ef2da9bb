"""A deployed model says what its training form says, in fewer steps."""

from dataclasses import replace

import pytest
import torch
from small import SMALL_HGNET, pictures, rebuilt, shaken, small
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.ccff import CCFF, RepVggBlock
from rtdetr_lab.config import replace_at
from rtdetr_lab.deployment.form import ALL_REWRITES, deploy, same
from rtdetr_lab.deployment.inference_form import InferenceRTDETR
from rtdetr_lab.deployment.planar import PlanarAttention, planar
from rtdetr_lab.errors import ConfigError, RecordError
from rtdetr_lab.kernels.embedding_bag_samplers import (
    BagAttention,
    BilinearBag,
    DiscreteBag,
    GatherFirst,
    to_embedding_bag,
)
from rtdetr_lab.kernels.folding import fold, fused, side_by_side
from rtdetr_lab.kernels.fused_sampler import Fused
from rtdetr_lab.layers import ConvNormAct, FrozenBatchNorm2d
from rtdetr_lab.model import Metadata
from rtdetr_lab.rtdetrv2 import discrete, with_points
from rtdetr_lab.samplers import Bilinear, Discrete, Naive, SamplingPlan

SIZES = ["r18", "r34", "r50_m", "r50", "r101"]


@torch.no_grad()
def lively(model):
    """`model` with batch norms that have seen something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    return model


def furthest(a, b):
    return max((a.logits - b.logits).abs().max(), (a.boxes - b.boxes).abs().max()).item()


@torch.no_grad()
def check(model, images, tolerance=1e-9):
    a, b = model(images), deploy(model)(images)
    assert furthest(a, b) <= tolerance
    assert len(b.layers) == 1


VARIANTS = {
    "plain": small(),
    "frozen": small({"backbone.norm": FrozenBatchNorm2d}),
    "full width": small({"encoder.ccff.expansion": 1.0}),
    "no blocks": small({"encoder.ccff.num_blocks": 0}),
    "no positions": small({"encoder.aifi.positions": None}),
    "hgnet": small({"backbone": SMALL_HGNET}),
    "hgnet with scales": small({"backbone": replace_at(SMALL_HGNET, "affine", True)}),
    "no aifi": small({"encoder.aifi": None}),
    "four levels": small({"decoder.num_levels": 4}),
    "one output": small(
        {"backbone.outputs": (4,), "decoder.num_levels": 1, "selection.num_queries": 5}
    ),
    "two of three layers": small({"decoder.inference_layers": 2}),
    "uneven points": with_points(small(), (4, 2, 1)),
    "a level without points": with_points(small(), (3, 0, 1)),
    "discrete": discrete(small()),
    "as the references": discrete(small(), shift=0.5),
    "naive": small({"decoder.sampler": Naive(), "selection.num_queries": 2}),
}


@pytest.mark.parametrize("cfg", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_answers_as_before(cfg):
    check(lively(rebuilt(cfg)), pictures(2, 96, 64).double())


def test_a_live_norm_that_follows_the_picture_is_left_alone():
    assert fold(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)) is None
    block = ConvNormAct(3, 4, norm=lambda c: nn.GroupNorm(2, c))
    assert fused(block) is block


def test_a_norm_folds_into_the_convolution_before_it():
    """Eq. 17.2."""
    block = lively(ConvNormAct(3, 4, 3, stride=2, act=torch.tanh)).double().eval()
    x = torch.randn(2, 3, 9, 7).double()
    assert (fused(block)(x) - block(x)).abs().max() <= 1e-12


def test_a_bias_before_a_norm_is_scaled_like_the_weights():
    conv, norm = nn.Conv2d(3, 4, 1).double(), lively(nn.BatchNorm2d(4)).double().eval()
    x = torch.randn(2, 3, 5, 7).double()
    assert (fold(conv, norm)(x) - norm(conv(x))).abs().max() <= 1e-12


def test_a_block_without_values_folds_to_one_without_values():
    with torch.device("meta"):
        block, x = RepVggBlock(4, torch.tanh).eval(), torch.rand(1, 4, 5, 6)
    assert fused(block)(x).is_meta


def test_a_block_with_another_forward_is_left_alone():
    class Doubled(ConvNormAct):
        def forward(self, x):
            return 2 * super().forward(x)

    block = Doubled(3, 4).eval()
    assert fused(block) is block


def test_two_convolutions_side_by_side_are_one():
    dense, pointwise = nn.Conv2d(3, 4, 3, padding=1).double(), nn.Conv2d(3, 4, 1).double()
    x = torch.randn(1, 3, 5, 6).double()
    one = side_by_side(dense, pointwise)
    assert (one(x) - dense(x) - pointwise(x)).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ("preset", "size"),
    [
        ("rtdetr_r18", (128, 160)),
        ("rtdetr_nano", (160, 128)),
        *[pytest.param(f"rtdetr_{s}", (128, 160), marks=pytest.mark.full) for s in SIZES[1:]],
        *[pytest.param(f"rtdetrv2_{s}", (640, 640), marks=pytest.mark.full) for s in SIZES],
    ],
)
def test_every_preset_answers_as_before(preset, size):
    cfg = replace_at(getattr(lab, preset)(), "selection.num_queries", 60)
    check(lively(rebuilt(cfg)), pictures(1, *size).double())


@pytest.mark.parametrize("preset", ["detr_nano", pytest.param("detr_r50", marks=pytest.mark.full)])
def test_detr_answers_as_before_padded_or_not(preset):
    model = lively(rebuilt(getattr(lab, preset)(3)))
    images = pictures(2, 96, 128).double()
    check(model, images)
    padding = torch.zeros(2, 96, 128, dtype=torch.bool)
    padding[1, 64:] = True
    with torch.no_grad():
        assert (
            furthest(model(images, padding=padding), deploy(model)(images, padding=padding)) <= 1e-9
        )


def test_tokens_at_the_border_of_a_long_picture_have_no_values():
    """Eight cells of a map of 4 × 60 are too near the border for an anchor; every token is kept."""
    long = small({"selection.num_queries": 4 * 60 + 2 * 30 + 15})
    check(lively(rebuilt(long)), pictures(2, 32, 480).double())


def test_masks_come_along():
    from small_detr import SEGMENTER as SMALL

    model, images = lively(rebuilt(SMALL)), pictures(1, 32, 64).double()
    with torch.no_grad():
        a, b = model(images), deploy(model)(images)
    assert furthest(a, b) <= 1e-9
    assert (a.masks - b.masks).abs().max() <= 1e-9


@torch.no_grad()
def test_in_single_precision_it_is_as_exact_as_the_training_form():
    model, images = lively(rebuilt(small())), pictures(2, 96, 64)
    exact = model(images.double())
    training, deployed = model.float()(images), deploy(model)(images)
    assert furthest(deployed, exact) <= 2 * furthest(training, exact) + 1e-6


def test_the_model_itself_is_untouched_and_shares_nothing():
    model = rebuilt(small())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    made = deploy(model)
    for tensor in [*made.parameters(), *made.buffers()]:
        tensor.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_it_knows_the_names_and_the_size_of_the_model():
    model = rebuilt(small())
    model.metadata = Metadata(tuple("abcde"), (2, 3, 5, 7, 11), image_size=(96, 64))
    assert deploy(model).metadata == model.metadata


def test_less_is_left_and_none_of_it_learns():
    model = rebuilt(small())
    made = deploy(model)
    count = [sum(p.numel() for p in m.parameters()) for m in (model, made)]
    assert count[1] < count[0]
    assert not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in made.modules())
    assert not any(p.requires_grad for p in made.parameters())
    assert not made.training
    assert isinstance(made, InferenceRTDETR)


def test_a_part_from_a_notebook_is_kept_and_fused_inside():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.strides, self.channels = (8, 16), (4, 6)
            self.a, self.b = ConvNormAct(3, 4, 3, 8), ConvNormAct(4, 6, 3, 2)

        def forward(self, images):
            a = self.a(images)
            return a, self.b(a)

    class Backbone:
        def build(self):
            return Own()

    cfg = small({"backbone": Backbone(), "decoder.num_levels": 2})
    check(lively(rebuilt(cfg)), pictures(1, 96, 64).double())


def test_a_deployed_model_refuses_what_the_training_form_refuses():
    made = deploy(rebuilt(small()))
    with pytest.raises(ConfigError, match="tokens"):
        made(pictures(1, 16, 16).double())


def test_taps_that_are_gone_are_missed_by_name():
    made, images = deploy(rebuilt(small())), pictures(1).double()
    with pytest.raises(RecordError, match="logits"), lab.record(made, keep="decoder.logits.0"):
        made(images)


CASES = {
    "one cell": ([(1, 1)], (3,)),
    "a row": ([(1, 7)], (2,)),
    "odd and even": ([(5, 4), (2, 3)], (2, 3)),
    "an unused level": ([(4, 4), (2, 2), (1, 1)], (2, 0, 1)),
}


def read_plan(shapes, points, spread):
    num, total = sum(h * w for h, w in shapes), sum(points)
    value = torch.randn(2, num, 2, 3).double()
    locations = torch.rand(2, 5, 2, total, 2).double() * spread - (spread - 1) / 2
    locations[0, 0, 0, 0] = torch.tensor([0.0, 1.0])  # on the border
    locations[0, 1, 0, 0] = torch.tensor([1e9, -1e9])  # far outside
    return value, SamplingPlan(locations, torch.randn(2, 5, 2, total).double().softmax(-1))


@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize(("shapes", "points"), CASES.values(), ids=CASES)
def test_bags_read_what_the_samplers_read(shapes, points, spread):
    value, plan = read_plan(shapes, points, spread)
    for bag, chapter in (
        (BilinearBag(), Naive()),
        (DiscreteBag(), Discrete()),
        (DiscreteBag(0.5), Discrete(0.5)),
    ):
        a, b = (s(value, shapes, points, plan) for s in (bag, chapter))
        assert (a - b).abs().max() <= 1e-12


FORMS = {
    "reads first": lambda module, bag: GatherFirst(module, bag),
    "projects first": lambda module, bag: BagAttention(module, bag),
    "keeps maps": lambda module, bag: PlanarAttention(module),
}


@torch.no_grad()
@pytest.mark.parametrize("points", [4, (2, 0, 3)])
@pytest.mark.parametrize("sampler", [Bilinear(), Discrete()], ids=repr)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_deformable_attention_is_the_same(form, sampler, points):
    """Eq. 17.3, and the plan from one product."""
    if form == "keeps maps" and isinstance(sampler, Discrete):
        return  # it is for `GridSample`
    cfg = small({"decoder.sampler": sampler, "decoder.num_points": points})
    chapter = rebuilt(cfg).double().decoder.layers[0].cross_attn
    for part in (chapter.sampling_offsets, chapter.attention_weights):
        part.weight.normal_()
    shapes = [(6, 4), (3, 2), (2, 1)]
    memory, queries = torch.randn(2, 32, 16).double(), torch.randn(2, 10, 16).double()
    # Boxes that leave the picture: outside, the bias of the projection is not read either.
    boxes = torch.rand(2, 10, 4).double() * 1.5
    expected = chapter(queries, boxes, memory, shapes)
    made = FORMS[form](chapter, to_embedding_bag(sampler))
    assert (made(queries, boxes, memory, shapes) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_point_that_is_no_number_reads_inside_the_table(bad):
    _, plan = read_plan([(5, 4), (2, 3)], (2, 3), 1.0)
    plan.locations[1, 2, 0, 1, 0] = bad
    index, weights = BilinearBag().rows([(5, 4), (2, 3)], (2, 3), plan)
    assert index.min() >= 0
    assert index.max() < 26
    assert weights.isnan().any() == (bad != bad)


@torch.no_grad()
@pytest.mark.parametrize("left_out", [None, "split_fusion"])
def test_a_rewrite_can_be_left_out(left_out):
    model, images = lively(rebuilt(small())).double(), pictures(2, 96, 64).double()
    rewrites = replace(ALL_REWRITES, **({left_out: False} if left_out else {}))
    made = planar(deploy(model, same, rewrites))
    assert isinstance(made.encoder.ccff, CCFF) == (left_out == "split_fusion")
    assert isinstance(made.decoder.layers[0].cross_attn, PlanarAttention)
    assert furthest(model(images), made(images)) <= 1e-9


def test_the_chapters_sampler_can_be_kept():
    model = deploy(rebuilt(small()), sampler=same)
    assert model.decoder.layers[0].cross_attn.sampler == Bilinear()
    assert deploy(rebuilt(small())).decoder.layers[0].cross_attn.sampler == BilinearBag()


def test_the_sampler_of_training_on_cuda_is_not_deployed():
    model = rebuilt(small())
    for layer in model.decoder.layers:
        layer.cross_attn.sampler = Fused()
    assert deploy(model, sampler=same).decoder.layers[0].cross_attn.sampler == Bilinear()
    assert deploy(model).decoder.layers[0].cross_attn.sampler == BilinearBag()


def test_a_shaken_weight_is_seen():
    """The comparison above would notice one weight of one layer being 1 % off."""
    model, images = lively(shaken(small().build()).double().eval()), pictures(1).double()
    made = deploy(model)
    with torch.no_grad():
        model.encoder.ccff.top_down[0].blocks[0].pointwise.conv.weight[0] *= 1.01
        assert furthest(model(images), made(images)) > 1e-9
