"""A slider shows, for every value, the figure drawn for it: live, and without a kernel."""

import base64
import io
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.viz.slider import slider


def draw(grey):
    figure, ax = plt.subplots(figsize=(1, 1))
    ax.axis("off")
    figure.patch.set_facecolor(str(grey))


@pytest.fixture(scope="module")
def frames():
    open_before = plt.get_fignums()
    made = slider(draw, "how grey <it> is", grey=(0.0, 0.5, 1.0))
    assert plt.get_fignums() == open_before, "no figure may stay open, and nobody else's be closed"
    return made


def test_every_frame_is_the_figure_of_its_value(frames):
    means = [np.asarray(Image.open(io.BytesIO(p))).mean() for p in frames.pictures]
    assert means == pytest.approx([0, 127, 255], abs=12)


def test_moving_the_widget_changes_the_picture(frames):
    chosen, picture, _ = frames.widget().children
    assert picture.value == frames.pictures[0]
    chosen.value = 2
    assert picture.value == frames.pictures[2]


def test_the_page_holds_all_frames_a_label_for_each_and_no_script(frames):
    page = frames.page()
    coded = re.findall(r"base64,([^\"]+)", page)
    assert tuple(base64.b64decode(c) for c in coded) == frames.pictures
    assert re.findall(r"<label[^>]*>([^<]*)", page) == ["grey 0.0", "grey 0.5", "grey 1.0"]
    assert page.count(" checked>") == 1
    assert "<script" not in page
    assert "how grey &lt;it&gt; is" in page
    assert frames.page() != page, "two sliders on one page must not share their buttons"


def test_a_notebook_gets_both(frames):
    data, _ = frames._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"].startswith('<div class="frames"')


def test_one_keyword_with_values_is_asked_for():
    with pytest.raises(ConfigError, match="one"):
        slider(draw, "", a=[1], b=[2])
    with pytest.raises(ConfigError, match="no values"):
        slider(draw, "", grey=[])
