"""The printed world: the symbol on a sheet decides its class, and boxes are exact."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from rtdetr_lab.commands.sets import names_of, training_set, validation_set
from rtdetr_lab.data import photographs
from rtdetr_lab.data.photographs import PHOTOS, photograph
from rtdetr_lab.data.shapes import ShapesDataset, draw
from rtdetr_lab.data.shapes_paint import CLUTTER
from rtdetr_lab.data.shapes_plan import ShapesConfig, Thing, plan
from rtdetr_lab.data.shapes_printed import Printed, printed
from rtdetr_lab.data.shapes_scene import Scene
from rtdetr_lab.data.sheets import FONTS, SYMBOLS, Sheet, Sticker, typeface
from rtdetr_lab.model import Metadata


def generator(index):
    return np.random.Generator(np.random.PCG64(index))


def test_the_same_arguments_give_the_same_picture_and_others_another():
    one, again, other = (draw(printed(128), 3, index) for index in (4, 4, 5))
    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.boxes_xyxy, again.boxes_xyxy)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("size", [96, 256])
def test_boxes_are_the_extent_of_what_can_be_seen(size):
    found = Counter()
    for picture in (draw(printed(size), 3, index) for index in range(12)):
        assert picture.image.shape == (size, size, 3)
        for number, box in enumerate(picture.boxes_xyxy, 1):
            y, x = np.nonzero(picture.instances == number)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        found += Counter(picture.labels.tolist())
        assert (picture.visible >= 0.6).all()
    assert {label >= len(ShapesConfig.names) for label in found} == {True, False}


def test_every_symbol_and_every_shape_occurs_and_has_a_name():
    config = printed(128)
    seen = Counter(t.label for i in range(700) for t in plan(config, generator(i)))
    assert set(seen) - {None} == set(range(38))
    for index in range(20):
        for thing in plan(config, generator(index)):
            if isinstance(thing.outline, Sheet):
                assert config.names[thing.label] == f"sheet {thing.outline.symbol}"
            elif thing.label is not None:
                assert config.names[thing.label] == thing.outline.name
    assert len(set(config.names)) == 38


def test_half_of_the_pictures_hold_sheets_only_and_none_holds_no_sheet():
    plans = [plan(printed(128), generator(i)) for i in range(400)]
    sheets = [sum(isinstance(t.outline, Sheet) for t in things) for things in plans]
    alone = [n for n, things in zip(sheets, plans, strict=True) if n == len(things)]
    assert min(sheets) == 1
    assert 160 <= len(alone) <= 260
    assert max(alone) == 6
    assert max(n for n, t in zip(sheets, plans, strict=True) if n < len(t)) == 4


def test_a_turned_symbol_is_no_other_symbol():
    """Nor is it like itself mirrored and another: sheets lie in any direction."""
    upright = {s: _printed_alone(s) for s in SYMBOLS}
    for name, glyph in upright.items():
        for other, theirs in upright.items():
            if other != name:
                turns = [np.asarray(Image.fromarray(theirs).rotate(a)) for a in range(0, 360, 15)]
                assert max(_alike(glyph, t) for t in turns) < 0.93, (name, other)


def _printed_alone(symbol):
    """The symbol in the middle of a square of 64 pixels, white on black, as high as it can be."""
    font = typeface("DejaVuSans", 48)
    mask = font.getmask(symbol)
    glyph = Image.frombytes("L", mask.size, bytes(mask)).crop(mask.getbbox())
    square = Image.new("L", (64, 64))
    square.paste(glyph, ((64 - glyph.width) // 2, (64 - glyph.height) // 2))
    return np.asarray(square)


def _alike(one, other):
    one, other = one.astype(float), other.astype(float)
    return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


def test_the_symbol_alone_tells_two_sheets_apart():
    """With the same random numbers, two sheets differ only where the symbols are."""
    for seed in range(6):
        one, other = (Sheet(s).drawn(generator(seed), 120, 160) for s in ("K", "Q"))
        different = np.argwhere((np.asarray(one) != np.asarray(other)).any(-1))
        assert len(different)
        assert len(different) < 0.5 * 120 * 160
        assert np.asarray(one)[..., 3].min() == 255


@pytest.mark.parametrize("side", [20.0, 60.0, 150.0])
def test_a_sticker_has_the_area_of_its_sheet_or_less_if_it_is_tilted(side):
    for seed in range(8):
        sticker = Sticker.of(Sheet("A"), side, generator(seed))
        assert sticker.pixels.shape == (4, 2 * sticker.half, 2 * sticker.half)
        assert 0.5 * side**2 < sticker.mask.sum() < 1.25 * side**2
        edge = np.ones_like(sticker.mask)
        edge[1:-1, 1:-1] = False
        assert not (sticker.mask & edge).any()
        assert 0 <= sticker.pixels.min() <= sticker.pixels.max() <= 1.06


def test_a_sheet_covers_what_lies_behind_it_and_nothing_else():
    canvas = np.full((3, 96, 96), 0.5, np.float32)
    scene = Scene(replace(printed(96), min_visible=1.0), generator(1), canvas)
    scene.add(Thing(Sheet("7"), 33, 40.0, near=(48.0, 48.0)))
    changed = (canvas != 0.5).any(0)
    inside = scene.instances == 1
    assert inside.sum() > 800
    assert not (changed & ~_wider(inside)).any()
    assert changed[inside].mean() > 0.99


def _wider(mask):
    return binary_dilation(mask, np.ones((3, 3)))


def test_photographs_are_in_the_wheel_and_vary():
    drawn = [photograph(generator(seed), (40, 60)) for seed in range(30)]
    assert {p.shape for p in drawn} == {(3, 40, 60)}
    assert all(p.dtype == np.float32 and 0 <= p.min() <= p.max() <= 1 for p in drawn)
    assert len({p.tobytes() for p in drawn}) == 30
    assert len(PHOTOS) == 7


def test_a_photograph_is_not_stretched(monkeypatch):
    """A slope across is as steep as the same slope down, in a part that is wider than high."""
    down, across = np.mgrid[:300, :400] / 4 + 70
    ramps = np.stack([across, down, np.full((300, 400), 100.0)], -1)
    slopes = (Image.fromarray(ramps.astype(np.uint8)),) * len(PHOTOS)
    monkeypatch.setattr(photographs, "_photos", lambda: slopes)
    for seed in range(6):
        mean = photograph(generator(seed), (40, 120)).mean(0)
        right = abs(mean[:, -20:] - mean[:, :20]).mean() / 100
        below = abs(mean[-10:] - mean[:10]).mean() / 30
        assert right == pytest.approx(below, rel=0.1)


def test_every_font_comes_with_matplotlib():
    assert all(typeface(name, 20).getbbox("Q")[2] > 0 for name in FONTS)


def test_share_of_photographs_behind():
    pictures = [draw(replace(printed(96), photos=p), 1, i) for p in (0.0, 1.0) for i in range(6)]
    clutter = [(p.regions == CLUTTER).mean() for p in pictures]
    assert max(clutter[:6]) < 0.6
    assert min(clutter[6:]) == 1.0


def test_the_plain_world_has_no_sheets():
    assert ShapesDataset().names == ShapesConfig.names
    assert len(Printed.names) == 38
    assert not any(isinstance(t.outline, Sheet) for t in plan(ShapesConfig(), generator(3)))


def test_the_command_line_knows_the_printed_world():
    known = Metadata(image_size=(96, 96))
    learn, judge = training_set("printed", known, 0), validation_set("printed", known, 5)
    assert learn.names == judge.names == names_of("printed") == Printed.names
    assert learn.category_ids == tuple(range(1, 39))
    assert len(judge) == 5
    assert not np.array_equal(learn[0].image, judge[0].image)
    assert names_of("shapes") == ShapesConfig.names
