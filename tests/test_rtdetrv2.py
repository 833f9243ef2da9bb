"""v2 with v1's settings is v1; what it frees is points per level and how a point is read."""

import pytest
import torch
from small import pictures, rebuilt, shaken, small, targets

from rtdetr_lab import rtdetr, rtdetrv2
from rtdetr_lab.config import diff
from rtdetr_lab.rtdetrv2 import discrete, with_points
from rtdetr_lab.samplers import Bilinear, Discrete


@pytest.mark.parametrize("size", ["r18", "r34", "r50_m", "r50", "r101"])
def test_the_presets_are_those_of_v1(size):
    v1, v2 = getattr(rtdetr, f"rtdetr_{size}"), getattr(rtdetrv2, f"rtdetrv2_{size}")
    assert v2() == v1()
    assert v2(num_classes=3) == v1(num_classes=3)


@pytest.mark.parametrize("points", [1, 2, 3, 4, 5])
def test_equal_points_are_v1_to_the_last_bit(points):
    v1 = rebuilt(small({"decoder.num_points": points}))
    v2 = with_points(small(), (points,) * 3).build().double().eval()
    v2.load_state_dict(v1.state_dict())
    images = pictures().double()
    for a, b in zip(v1(images).layers, v2(images).layers, strict=True):
        assert torch.equal(a.logits, b.logits)
        assert torch.equal(a.boxes, b.boxes)


def test_the_points_read_per_picture_are_those_of_table_3():
    for points, expected in [(4, 86_400), (3, 64_800), (2, 43_200), (1, 21_600)]:
        cfg = with_points(rtdetrv2.rtdetrv2_r18(), points)
        with torch.device("meta"):
            decoder = cfg.build().decoder
        per_query = sum(layer.cross_attn.attention_weights.out_features for layer in decoder.layers)
        assert per_query * cfg.selection.num_queries == expected


def test_a_level_without_points_is_not_read():
    model = rebuilt(with_points(small(), (3, 0, 1)))
    with torch.no_grad():
        assert model(pictures().double()).boxes.shape == (2, 10, 4)
    weights = model.decoder.layers[0].cross_attn.attention_weights
    assert weights.out_features == 4 * (3 + 0 + 1)


def test_each_helper_changes_only_what_it_says():
    cfg = small()
    assert diff(cfg, with_points(cfg, (4, 2, 1))) == {"decoder.num_points": (4, (4, 2, 1))}
    changed = diff(cfg, discrete(cfg, shift=0.5))
    assert changed == {"decoder.sampler": (Bilinear(), Discrete(0.5))}


def test_a_bilinear_checkpoint_is_fine_tuned_discretely_with_its_offsets_frozen():
    bilinear = shaken(small().build())
    model = discrete(bilinear.cfg).build()
    model.load_state_dict(bilinear.state_dict())
    model.train()
    offsets = [p for n, p in model.named_parameters() if "sampling_offsets" in n]
    before = [p.clone() for p in offsets]

    found = targets(2, 1)
    prediction = model(pictures(), found)
    sum(model.cfg.criterion.build()(prediction, found).values()).backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5).step()
    assert all(torch.equal(a, b) for a, b in zip(before, offsets, strict=True))
    assert model.decoder.layers[0].cross_attn.value_proj.weight.grad.abs().sum() > 0


def test_discrete_and_bilinear_agree_where_points_sit_on_cell_centres():
    """Every head of every query looks at the middle of an odd map, and nowhere else."""
    bilinear = rebuilt(small())
    for layer in bilinear.decoder.layers:
        torch.nn.init.zeros_(layer.cross_attn.sampling_offsets.weight)
        torch.nn.init.zeros_(layer.cross_attn.sampling_offsets.bias)
    gather = discrete(bilinear.cfg).build().double().eval()
    gather.load_state_dict(bilinear.state_dict())
    content, memory = torch.randn(1, 2, 16).double(), torch.randn(1, 35, 16).double()
    centre = torch.tensor([0.0, 0.0, -1.0, -1.0]).expand(1, 2, 4).double()
    shapes = [(3, 5), (3, 5), (5, 1)]
    a, b = (m.decoder(content, centre, memory, shapes)[0].logits for m in (bilinear, gather))
    assert (a - b).abs().max() <= 1e-12
