"""The figures of the README are drawn by a command, and say so when they cannot be."""

import importlib.util

import numpy as np
import pytest
from paths import ROOT
from PIL import Image

from rtdetr_lab.errors import ConfigError, UnknownModelError
from rtdetr_lab.viz.training import validation_curves

PROGRAM = ROOT / "docs" / "hooks" / "figures.py"
SPEC = importlib.util.spec_from_file_location("figures", PROGRAM)
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)


def test_a_row_keeps_every_picture_and_a_white_gap():
    black, grey = np.zeros((4, 5, 3), np.uint8), np.full((4, 3, 3), 128, np.uint8)
    row = figures.in_a_row([black, grey], gap=2)
    assert row.shape == (4, 10, 3)
    assert (row[:, :5] == 0).all()
    assert (row[:, 5:7] == 255).all()
    assert (row[:, 7:] == 128).all()


def test_the_shapes_world_is_drawn_with_its_truth():
    plain = figures.in_a_row(
        [figures.draw(figures.DEFAULT, figures.VAL, index).image for index in figures.PICTURES]
    )
    figure = figures.world()
    assert figure.shape == plain.shape
    changed = (figure != plain).any(-1).mean()
    assert 0.01 < changed < 0.6, "boxes and labels, and not over everything"


def test_a_figure_that_cannot_be_drawn_is_named_and_the_others_are_drawn(
    tmp_path, monkeypatch, capsys
):
    def fails():
        raise UnknownModelError("nano", "nobody knows it", "train it")

    white = np.full((2, 2, 3), 255, np.uint8)
    monkeypatch.setattr(figures, "FIGURES", {"no.png": fails, "yes.png": lambda: white})
    assert figures.main(tmp_path) == 1
    assert "no.png not drawn: nano" in capsys.readouterr().err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "yes.png").convert("RGB")), white)


def test_runs_are_compared_over_the_pictures_they_have_seen():
    runs = {
        "a": [{"pictures": 16, "loss": 9.0}, {"pictures": 16, "AP50": 0.2}],
        "b": [{"pictures": 8, "AP50": 0.1}, {"pictures": 16, "AP50": 0.5}],
    }
    axes = validation_curves(runs)
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"a": [[16, 0.2]], "b": [[8, 0.1], [16, 0.5]]}
    assert len({line.get_color() for line in axes.lines}) == 2
    assert len({line.get_marker() for line in axes.lines}) == 2
    assert figures.drawn(axes).shape[2] == 3
    with pytest.raises(ConfigError, match="b: has no line with AP"):
        validation_curves({"b": [{"pictures": 8, "loss": 1.0}]})


@pytest.mark.parametrize("name", ["shapes.png", "heatmap.webp", "heatmap_dark.webp"])
def test_what_the_site_shows_is_small_enough_to_load(name):
    assert (figures.HOME / name).stat().st_size < 400_000
