"""A mask for every query: an agreement of embeddings, inside the query's own box."""

import pytest
import torch
from small import SMALL, SMALL_DFINE, pictures, shaken, targets

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.batch import collate
from rtdetr_lab.data.shapes import VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.deployment.form import deploy
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.images.masks import masks_of
from rtdetr_lab.images.tiling import Tiling
from rtdetr_lab.masks.query_masks import QueryMasks, distance_beyond, rtdetr_nano_seg, with_masks
from rtdetr_lab.rtdetr import rtdetr_nano, rtdetr_r50_m
from rtdetr_lab.rtdetrv2 import with_points
from rtdetr_lab.structures import LayerPrediction, Prediction
from rtdetr_lab.taps import record

MODELS = {
    "RT-DETR": SMALL,
    "RT-DETRv2": with_points(SMALL, (4, 2, 1)),
    "D-FINE": SMALL_DFINE,
    "D-FINE with two maps": replace_at(
        replace_at(SMALL_DFINE, "backbone.outputs", (3, 4)), "decoder.num_levels", 2
    ),
}
HEAD = QueryMasks(dim=8, slope=1.5)


def built(cfg):
    return shaken(with_masks(cfg, HEAD).build()).double().eval()


def head_and_maps(queries=5):
    head = shaken(HEAD.build(DecoderConfig(dim=16), (6, 12, 10))).double()
    maps = [torch.randn(2, c, *s).double() for c, s in ((6, (9, 7)), (12, (5, 4)), (10, (3, 2)))]
    boxes = 0.2 + 0.5 * torch.rand(2, queries, 4).double()
    content = torch.randn(2, queries, 16).double()
    return head, maps, boxes, content


def drawn(head, maps, boxes, content):
    last = LayerPrediction(boxes[..., :1], boxes, content=content)
    return head(Prediction(last.logits, boxes, (last,)), maps).masks


@torch.no_grad()
def test_a_mask_is_the_product_of_two_embeddings_less_the_way_from_the_box():
    """Eq. 18.3"""
    head, maps, boxes, content = head_and_maps()
    got, pixels = drawn(head, maps, boxes, content), head.of_pixels(maps)
    assert got.shape == (2, 5, 9, 7)
    for b, q, row, column in ((0, 3, 8, 0), (1, 0, 2, 6), (1, 4, 0, 3)):
        x, y, width, height = boxes[b, q].tolist()
        across = max(abs(column + 0.5 - 7 * x) - 7 * width / 2, 0)
        down = max(abs(row + 0.5 - 9 * y) - 9 * height / 2, 0)
        agree = head.embed(content[b, q]) @ pixels[b, :, row, column]
        torch.testing.assert_close(got[b, q, row, column], agree - 1.5 * (across + down))


def test_the_distance_is_zero_inside_and_counts_cells_outside():
    beyond = distance_beyond(torch.tensor([[[0.5, 0.25, 0.25, 0.5]]]), (4, 8))
    assert beyond[0, 0, 0].tolist() == [2.5, 1.5, 0.5, 0, 0, 0.5, 1.5, 2.5]
    assert beyond[0, 0, :, 3].tolist() == [0, 0, 0.5, 1.5]
    assert beyond[0, 0, 3, 0] == 1.5 + 2.5


@torch.no_grad()
def test_mask_logits_are_linear_in_the_embedding():
    model, images = shaken(with_masks(SMALL, QueryMasks(8, slope=0.0)).build()).double(), pictures()
    seen = []
    for factor in (1.0, -3.0, 0.0):
        with record(model.eval(), edit={"mask_head.embed": lambda e, f=factor: f * e}):
            seen.append(model(images.double()).masks)
    torch.testing.assert_close(seen[1], -3 * seen[0])
    assert (seen[2] == 0).all()


def test_a_mask_depends_on_its_own_query_and_moves_no_box():
    head, maps, boxes, content = head_and_maps(queries=3)
    boxes.requires_grad_()

    def masks(content):
        return drawn(head, maps, boxes, content)[0].sum((1, 2))

    (by_content,) = torch.autograd.functional.jacobian(masks, (content,))
    reached = by_content[:, 0].abs().sum(-1)
    assert (reached.diagonal() > 0).all()
    assert (reached - reached.diagonal().diag() == 0).all()
    drawn(head, maps, boxes, content).sum().backward()
    assert boxes.grad is None


@pytest.mark.parametrize("cfg", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("size", [(96, 64), (75, 101)])
@torch.no_grad()
def test_boxes_stay_bit_for_bit_and_a_batch_is_its_pictures(cfg, size):
    torch.manual_seed(0)
    model, images = built(cfg), pictures(3, *size).double()
    boxes_only = cfg.build().double().eval()
    known = model.state_dict()
    boxes_only.load_state_dict({n: known[n] for n in boxes_only.state_dict()})
    assert {n for n in known if not n.startswith("mask_head.")} == set(boxes_only.state_dict())
    found, plain = model(images), boxes_only(images)
    assert torch.equal(found.boxes, plain.boxes)
    assert torch.equal(found.logits, plain.logits)
    assert plain.masks is None
    assert found.masks.shape == (3, 10, *(-(-side // 4) for side in size))
    alone = torch.cat([model(one).masks for one in images.split(1)])
    torch.testing.assert_close(found.masks, alone, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(deploy(model)(images).masks, found.masks, rtol=1e-8, atol=1e-8)


def test_denoising_queries_have_no_masks_and_every_parameter_learns():
    model, wanted = with_masks(SMALL_DFINE, HEAD).build().train(), targets(3, 1)
    masks = tuple(torch.rand(n, 96, 64) > 0.5 for n in wanted.counts)
    wanted = wanted._changed(masks=masks)
    found = model(pictures(), wanted)
    assert found.denoising.batch.num_queries > 0
    assert found.masks.shape[1] == found.boxes.shape[1] == 10
    sum(model.cfg.criterion.build()(found, wanted).values()).backward()
    assert all(p.grad is not None for p in model.mask_head.parameters())
    assert all(p.grad is not None for p in model.backbone.parameters())


@torch.no_grad()
def test_a_saved_model_draws_the_same_masks(tmp_path):
    model = shaken(with_masks(SMALL_DFINE, HEAD).build()).eval()
    save_pretrained(model, tmp_path)
    images, again = pictures(), load_pretrained(tmp_path)
    assert again.cfg == model.cfg
    assert torch.equal(again(images).masks, model(images).masks)


def test_a_picture_in_tiles_is_drawn_as_each_tile_is_alone():
    """Six scenes side by side; no window but the whole has objects of two."""
    scenes = ShapesDataset(ShapesConfig(size=160, max_objects=3), VAL, 6)
    large = torch.cat(
        [torch.cat([scenes[r * 3 + c].image for c in range(3)], 2) for r in (0, 1)], 1
    )
    alone, tiled = (
        Detector.from_pretrained("nano-seg", threshold=0.6, tiling=t)
        for t in (None, Tiling(160, 0.0))
    )
    found = tiled(large)
    assert found.masks.shape == (len(found), 320, 480)
    agreed = total = 0
    for place in range(6):
        top, left = 160 * (place // 3), 160 * (place % 3)
        for mask in alone(scenes[place].image).masks:
            part = found.masks[:, top : top + 160, left : left + 160]
            shared = (part & mask).flatten(1).sum(1) / (part | mask).flatten(1).sum(1)
            agreed, total = agreed + bool((shared > 0.9).any()), total + 1
    assert total >= 10
    assert agreed >= total - 1  # an object at the border of a tile may be left to the whole


def test_layers_are_not_left_out_of_a_model_that_draws():
    with pytest.raises(ConfigError, match=r"decoder.inference_layers: leaves out the layer"):
        with_masks(rtdetr_r50_m()).build()
    model = built(SMALL)
    assert model.trim(3).draws_masks
    with pytest.raises(ConfigError, match="masks are learned for the last layer only"):
        model.trim(2)


def test_a_nano_that_draws_is_a_nano_with_a_head():
    nano, drawing = rtdetr_nano(3).build(), rtdetr_nano_seg(3).build()
    added = drawing.state_dict().keys() - nano.state_dict().keys()
    assert {name.split(".")[0] for name in added} == {"mask_head"}
    assert sum(p.numel() for p in drawing.mask_head.parameters()) < 60_000


def test_a_head_learns_to_draw_the_objects_of_three_pictures():
    """Only the head learns, on what embedded nano sees."""
    nano = load_pretrained("nano")
    model = with_masks(nano.cfg, QueryMasks(16)).build().eval()
    model.load_state_dict(nano.state_dict(), strict=False)
    data = ShapesDataset(ShapesConfig(size=128, max_side=100.0), 5, 3, with_masks=True)
    batch = collate([data[i] for i in range(3)])
    with torch.no_grad():
        finest, *maps = model.backbone(batch.images)
        maps, found = (finest, *model.encoder(maps)), model(batch.images)
    pairs = model.cfg.criterion.matcher.build()(found.layers[-1], batch.targets)
    loss, head = model.cfg.criterion.masks, model.mask_head
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        sum(loss(head(found, maps), batch.targets, pairs, 12.0).values()).backward()
        optimizer.step()
    masks = head(found, maps).masks.detach()
    drawn = torch.cat([masks_of(m[q], (128, 128)) for m, (q, _) in zip(masks, pairs, strict=True)])
    wanted = pairs.gather(batch.targets.masks)
    overlap = (drawn & wanted).sum((1, 2)) / (drawn | wanted).sum((1, 2))
    assert overlap.mean() > 0.8, overlap
