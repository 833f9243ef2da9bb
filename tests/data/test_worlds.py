"""Worlds of drawn shapes: what decides a class is drawn, exactly, and nothing else tells it."""

from dataclasses import replace

import numpy as np
import pytest

from rtdetr_lab.ablations.bases import miniature, small_world
from rtdetr_lab.ablations.task import content_of
from rtdetr_lab.data.shapes import ShapesDataset, draw
from rtdetr_lab.data.shapes_outlines import CLASSES
from rtdetr_lab.data.shapes_paint import CLUTTER
from rtdetr_lab.data.shapes_plan import ShapesConfig, Thing, plan
from rtdetr_lab.data.shapes_worlds import CARRIERS, KINDS, Marked, Nested, Signed, Tailed
from rtdetr_lab.data.shapes_worlds import WORLDS as MADE
from rtdetr_lab.errors import ConfigError

WORLDS = {name: made(128) for name, made in MADE.items()}


def generator(index):
    return np.random.Generator(np.random.PCG64(index))


def planned(world, index):
    return plan(WORLDS[world], generator(index))


@pytest.mark.parametrize("world", WORLDS)
def test_every_world_draws_each_of_its_classes_with_exact_boxes(world):
    known = set(KINDS if world in ("far", "marks") else range(10))
    assert {t.label for i in range(150) for t in planned(world, i)} - {None} == known
    for picture in (draw(WORLDS[world], 3, index) for index in range(3)):
        for number, box in enumerate(picture.boxes_xyxy, 1):
            y, x = np.nonzero(picture.instances == number)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize("size", [96, 160])
@pytest.mark.parametrize("world", WORLDS)
def test_every_world_can_be_drawn_at_other_sizes(world, size):
    assert draw(MADE[world](size), 1, 2).image.shape == (size, size, 3)


def test_the_sign_in_a_corner_decides_the_class_of_all_objects():
    corners = set()
    for index in range(60):
        sign, *things = planned("far", index)
        labels = {thing.label for thing in things} - {None}
        assert labels == {CLASSES.index(sign.outline)}
        assert {t.outline for t in things if t.label is not None} <= set(CARRIERS)
        corners.add(tuple(place > 64 for place in sign.near))
    assert len(corners) == 4


def test_nothing_hides_a_sign():
    rule = Signed(side=20.0)
    crowded = replace(WORLDS["far"], rule=rule, min_objects=30, max_objects=30, min_visible=0.1)
    for index in range(3):
        clutter = draw(crowded, 5, index).regions == CLUTTER
        assert clutter.sum() > 0.9 * rule.side**2


def test_a_mark_lies_inside_its_object_and_the_carrier_does_not_know_the_class():
    with_marks, without = WORLDS["marks"], replace(WORLDS["marks"], rule=_Unmarked())
    kinds = {(t.outline.name, t.label) for i in range(200) for t in planned("marks", i) if t.mark}
    assert kinds == {(name, label) for name in ("circle", "square") for label in KINDS}
    flat = {"light": 0.0, "noise": 0.0, "distractors": 0, "max_objects": 1}
    for index in range(5):
        one, other = (draw(replace(w, **flat), 4, index) for w in (with_marks, without))
        different = (one.image != other.image).any(-1)
        assert different.any() == bool(len(one.labels))
        assert not (different & (one.instances == 0)).any()


class _Unmarked(Marked):
    def _marked(self, thing):
        return thing


def test_a_tail_belongs_to_the_box():
    body, tailed = (
        WORLDS["tight"],
        replace(WORLDS["tight"], rule=lambda config, rng, things: things),
    )
    sides = [
        np.mean([np.ptp(box[::2]) for i in range(15) for box in draw(world, 2, i).boxes_xyxy])
        for world in (body, tailed)
    ]
    assert sides[0] > 1.3 * sides[1]


def test_a_tail_begins_at_the_body_and_has_its_length():
    thing = Tailed()._tailed(generator(0), Thing(CLASSES[0], 0, 30.0))
    reach = thing.outline.reach(1.0)
    grid = np.linspace(-reach, reach, 801, dtype=np.float32)
    across, down = np.meshgrid(grid, grid)
    inside = thing.outline.distance(across, down, 1.0) <= 0
    y, x = np.nonzero(inside)
    far = np.hypot(grid[x], grid[y])
    assert far.max() == pytest.approx(reach, rel=0.01)
    assert 2.0 <= far.max() / np.sqrt(np.pi) <= 3.5
    rings = np.histogram(far, bins=20, range=(0, far.max()))[0]
    assert (rings > 0).all()


def test_small_objects_lie_on_large_ones():
    inside = total = 0
    for index in range(25):
        picture = draw(WORLDS["scales"], 6, index)
        sides = np.sqrt(np.maximum(picture.areas, 1))
        for box in picture.boxes_xyxy[sides < Nested.large / 2]:
            middle = (box[:2] + box[2:]) / 2
            large = picture.boxes_xyxy[sides > Nested.large * 0.7]
            over = (large[:, :2] <= middle) & (middle <= large[:, 2:])
            inside, total = inside + bool(over.all(1).any()), total + 1
    assert inside > 0.5 * total > 10


def test_the_plain_world_is_what_it_was_before_there_were_rules():
    """Runs and studies that were made with it must be found again."""
    assert type(WORLDS["plain"]) is ShapesConfig
    data = ShapesDataset(WORLDS["plain"], count=10)
    assert content_of(data) == "05526d5c59856d9b"
    assert "rule" not in repr(data)


@pytest.mark.parametrize("world", ["marks", "crowds"])
def test_a_world_that_needs_larger_pictures_says_so(world):
    with pytest.raises(
        ConfigError, match=f"--size: is 64; give 96 or more for the world '{world}'"
    ):
        small_world(64, world=world)
    assert small_world(64)[0].dataset.config.size == 64


def test_a_world_that_does_not_exist_is_refused_with_the_ones_that_do():
    with pytest.raises(ConfigError, match="'fog' is not a world; use one of plain, far"):
        small_world(world="fog")


def test_a_model_for_crowds_has_a_query_for_each_object():
    queries = miniature("crowds").cfg.selection.num_queries
    assert queries > WORLDS["crowds"].max_objects > miniature().cfg.selection.num_queries
