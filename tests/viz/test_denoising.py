"""The group that is drawn is the group that trains, and the mask is the mask."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.structures import Targets
from rtdetr_lab.viz.denoising import mask_matrix, noised_boxes

IMAGE = np.full((100, 200, 3), 90, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture
def targets():
    two = {"labels": [0, 1], "boxes": [[0.3, 0.3, 0.2, 0.3], [0.7, 0.6, 0.3, 0.4]]}
    return Targets.of([two, {"labels": [2], "boxes": [[0.5, 0.5, 0.4, 0.4]]}])


@pytest.fixture
def batch(targets):
    return DenoisingConfig(num_queries=8).build(3, 16)(targets, num_matching=5)


def frames(ax):
    """gid → cxcywh in [0, 1]."""
    found = {}
    for frame in ax.patches:
        (x, y), w, h = frame.get_xy(), frame.get_width(), frame.get_height()
        box = [(x + w / 2) / 200, (y + h / 2) / 100, w / 200, h / 100]
        found.setdefault(frame.get_gid(), []).append(box)
    return found


def test_one_group_is_drawn_as_it_trains(batch, targets):
    drawn = frames(noised_boxes(batch, targets.boxes[0], IMAGE, group=2))
    np.testing.assert_allclose(drawn.pop("object"), targets.boxes[0], atol=1e-6)
    # Two objects: four queries per group, positives first.
    assert list(drawn) == ["positive 8", "positive 9", "negative 10", "negative 11"]
    for gid, box in drawn.items():
        recorded = batch.reference_logits[0, int(gid.split()[1])].sigmoid()
        np.testing.assert_allclose(box[0], recorded.detach(), atol=1e-6)


def test_padding_is_not_drawn(batch, targets):
    drawn = frames(noised_boxes(batch, targets.boxes[1], IMAGE, picture=1))
    assert list(drawn) == ["object", "positive 0", "negative 2"]
    own = batch.reference_logits[1, [0, 2]].sigmoid().detach()
    np.testing.assert_allclose(drawn["positive 0"] + drawn["negative 2"], own, atol=1e-6)


def test_the_mask_is_shown_as_it_is(batch):
    ax = mask_matrix(batch.blocked, batch.num_queries, batch.num_groups)
    shown = np.asarray(ax.images[0].get_array())
    assert np.array_equal(shown, (~batch.blocked).numpy())
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        "16 denoising\n(4 groups)",
        "5 matching",
    ]
