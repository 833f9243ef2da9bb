"""Precisions a device lacks are not asked of it, and those it has are used rightly.

A Mac's GPU knows no float64; here a mode stands for it, in which a float64 tensor is an error. On
the CPU, half precision has to answer as single precision does, one picture or several.
"""

import pytest
import torch
from families import FAMILIES, batch, built, is_detr
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.data.shapes import ShapesDataset
from rtdetr_lab.images.panoptic import ByArea, panoptic
from rtdetr_lab.images.postprocess import of_the_canvas, postprocess
from rtdetr_lab.layers import has_float64
from rtdetr_lab.samplers import Bilinear, Discrete, SamplingPlan
from rtdetr_lab.taps import record

HALVES = {torch.float16: 0.01, torch.bfloat16: 0.08}
"""Precision → by how much a stage may differ from single precision, relative to its length."""


class NoFloat64(TorchDispatchMode):
    """Where a float64 tensor on a device of this type is an error, as on a Mac's GPU."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            is_one = isinstance(t, torch.Tensor) and t.dtype == torch.float64
            if is_one and t.device.type == self.device:
                raise TypeError(f"Cannot convert a {self.device} tensor to float64 ({func})")
        return out


def test_the_mode_catches_what_it_is_for():
    with NoFloat64("cpu"), pytest.raises(TypeError, match="float64"):
        torch.ones(2).double()


@pytest.mark.parametrize("name", FAMILIES)
def test_no_float64_on_the_device_of_any_model(name):
    with torch.device("meta"):
        model = FAMILIES[name].build().eval()
    height, width = 123, 77  # of its own: what is remembered of a size is not computed again
    images = torch.empty(2, 3, height, width, device="meta")
    assert not has_float64(images.device)
    with NoFloat64("meta"):
        out = model(images)
        assert model.train()(images).boxes.dtype == torch.float32
    assert out.logits.is_meta
    assert out.logits.dtype == torch.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_no_float64_in_a_whole_step_of_training_and_after_it(name):
    model, given = built(name, torch.float32).train(), batch(name, torch.float32)
    model(*given)  # position tables are made once, on the CPU, whatever the device
    with NoFloat64("cpu"):
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
        terms = model.cfg.criterion.build()(model(*given), given[1])
        loss = sum(terms.values())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            out, sizes = model.eval()(given[0]), [(50, 40), (30, 70)]
        padding, masks = given[2] if is_detr(name) else None, out.masks is not None
        options = {"padding": padding, "fractions": of_the_canvas, "with_masks": masks}
        assert len(postprocess(out, sizes, 0.0, rank=model.rank, **options)) == 2
        assert not masks or len(panoptic(out, sizes, (), ByArea(0.1), padding=padding)) == 2


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_stage_in_half_precision_is_that_of_single_precision(name, dtype, batch_size):
    model, (images, _, *padding) = built(name, torch.float32), batch(name, torch.float32)
    images, padding = images[:batch_size], [p[:batch_size] for p in padding]
    with record(model) as single:
        model(images, None, *padding)
    # The same tokens go on: near scores may change places in half precision.
    hold = {n: lambda _, v=v: v for n, v in single.items() if n == "selection.index"}
    with record(model.to(dtype), "*", hold) as half:
        out = model(images.to(dtype), None, *padding)
    assert out.boxes.dtype == dtype
    for tap, wanted in single.items():
        finite = wanted.isfinite()  # boxes of invalid anchors are infinite in both
        assert torch.equal(half[tap].isfinite(), finite), tap
        off = (half[tap].to(wanted.dtype) - wanted)[finite]
        assert off.float().norm() <= HALVES[dtype] * wanted[finite].float().norm(), tap


@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_in_half_precision_can_take_a_step_of_training(dtype):
    for name in ("rtdetr", "segmentation"):
        model, given = built(name, torch.float32).to(dtype).train(), batch(name, dtype)
        terms = model.cfg.criterion.build()(model(*given), given[1])
        sum(terms.values()).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("sampler", [Bilinear(), Discrete()])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(40, 30), (9, 300), (200, 190)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_map_is_too_large_or_too_strided_for_half_precision(sampler, dtype, shape, batch_size):
    """torch counts cells in 16 bits there; with one picture heads are a stride apart."""
    cells = shape[0] * shape[1]
    value = torch.randn(batch_size, cells, 4, 16).to(dtype)
    weights = torch.rand(batch_size, 20, 4, 3).softmax(-1).to(dtype)
    # Multiples of 1/256 are exact in either half precision: all read the same points.
    locations = (torch.randint(1, 256, (batch_size, 20, 4, 3, 2)) / 256).to(dtype)
    read = sampler(value, [shape], [3], SamplingPlan(locations, weights))
    plan = SamplingPlan(locations.float(), weights.float())
    wanted = sampler(value.float(), [shape], [3], plan)
    assert read.dtype == dtype
    if isinstance(sampler, Bilinear):
        assert (read.float() - wanted).abs().max() <= HALVES[dtype]
    assert read.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
@torch.no_grad()
def test_nano_in_half_precision_finds_alone_what_it_finds_in_a_batch(dtype):
    images = torch.stack([ShapesDataset()[i].image for i in range(4)])
    images = torch.nn.functional.interpolate(images.float() / 255, (256, 192))
    single, half = load_pretrained("nano"), load_pretrained("nano").to(dtype)
    wanted = [int(s) for s in (single(images).logits.sigmoid().amax(-1) > 0.5).sum(1)]
    assert min(wanted) >= 2
    together = half(images.to(dtype)).logits
    for i, count in enumerate(wanted):
        alone = half(images[i : i + 1].to(dtype)).logits
        assert alone.isfinite().all()
        for logits in (together[i], alone[0]):
            assert abs(int((logits.sigmoid().amax(-1) > 0.5).sum()) - count) <= 1
