"""One panel per level, one number per cell, and the number is the one it says."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rtdetr_lab.viz.canvas import as_rgb, page_of, show_picture, themed
from rtdetr_lab.viz.features import feature_maps, feature_stages, strength
from rtdetr_lab.viz.marks import steps
from rtdetr_lab.viz.palette import DARK, LIGHT, luminance

IMAGE = np.arange(64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture
def maps(rng):
    return [torch.randn(5, 8 >> i, 12 >> i, generator=rng) for i in range(3)]


def values(ax):
    return np.asarray(ax.images[-1].get_array())


def test_a_panel_holds_the_root_mean_square_of_every_cell(maps):
    picture, *panels = feature_maps(maps, IMAGE)
    assert np.array_equal(picture.images[0].get_array(), IMAGE)
    for ax, features in zip(panels, maps, strict=True):
        by_hand = (features.numpy().astype(float) ** 2).mean(0) ** 0.5
        np.testing.assert_allclose(values(ax), by_hand, atol=1e-6)
        assert ax.images[-1].get_extent() == [0, 96, 64, 0]
    assert [ax.get_title() for ax in panels] == ["S3 · 8×12", "S4 · 4×6", "S5 · 2×3"]


def test_or_one_channel_as_it_is(maps):
    for ax, features in zip(feature_maps(maps, IMAGE, channel=2)[1:], maps, strict=True):
        np.testing.assert_allclose(values(ax), features[2], atol=1e-6)
        assert ax.images[-1].get_clim() == pytest.approx(
            (features[2].min().item(), features[2].max().item())
        )


def test_stages_are_rows_and_levels_are_columns(maps):
    after = [2 * m for m in maps]
    axes = feature_stages({"before": maps, "after": after}, IMAGE)
    assert [axes[i].get_ylabel() for i in (0, 3)] == ["before", "after"]
    for ax, features in zip(axes, [*maps, *after], strict=True):
        np.testing.assert_allclose(values(ax), strength(features), atol=1e-6)


def test_a_shared_scale_is_the_same_for_all_levels(maps):
    axes = feature_stages({"only": maps}, IMAGE, shared=True)
    assert len({ax.images[-1].get_clim() for ax in axes}) == 1


def test_a_theme_colours_the_page_and_figures_notice():
    for palette in (LIGHT, DARK):
        with themed(palette):
            assert page_of(plt.subplots()[1]) == palette


def test_a_quiet_picture_is_darker_and_a_loud_one_untouched():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    loud, quiet = (plt.subplots()[1] for _ in range(2))
    assert show_picture(loud, image) == (20, 30)
    show_picture(quiet, torch.from_numpy(image).permute(2, 0, 1) / 255, quiet=0.7)
    assert np.array_equal(loud.images[0].get_array(), as_rgb(image))
    assert quiet.images[0].get_array().mean() < 0.8 * image.mean()
    assert loud.get_xlim() == (0, 30)
    assert loud.get_ylim() == (20, 0)


def test_later_steps_are_darker():
    light = [luminance(color) for color in steps(7)]
    assert light == sorted(light, reverse=True)
    assert len(set(steps(7))) == 7
