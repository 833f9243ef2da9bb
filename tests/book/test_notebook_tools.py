"""A notebook is made from text in one way, and what a run leaves behind is made the same."""

import base64
import io

import nbformat
import numpy as np
import pytest
from PIL import Image

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.notebook_tools import build, outputs, percent

v4 = nbformat.v4

TEXT = """\
# %% [markdown]
# # 42 · Answers
#
# Prose.

# %% tags=["imports"]
import torch

# %%
# alt: A line
#   that goes up.
# alt: A dot.
x = 1
x

# %% tags=["solution"]
x + 1

# %%
x = 1
x
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "42_answers.py"
    path.write_text(TEXT, encoding="utf8")
    return path


def test_a_text_becomes_the_same_notebook_every_time(source):
    one, two = percent.read(source), percent.read(source)
    assert percent.contents(one) == percent.contents(two)
    assert len({c.id for c in one.cells}) == len(one.cells)
    nbformat.validate(one)


def test_badge_and_install_cell_are_added_and_can_be_taken_off(source):
    title, install, *_ = percent.read(source).cells
    assert "colab.research.google.com" in title.source
    assert "%pip install -q rtdetr_lab" in install.source
    assert percent.without_badge(title.source) == "# 42 · Answers\n\nProse."


def test_alternative_texts_leave_the_code_and_what_readers_skip_is_folded(source):
    _, _, imports, drawn, solution, again = percent.read(source).cells
    assert drawn.source == "x = 1\nx"
    assert drawn.metadata["alt"] == ["A line that goes up.", "A dot."]
    for folded in (imports, solution):
        assert folded.metadata["jupyter"] == {"source_hidden": True}
    assert again.source == drawn.source


def test_prose_does_not_make_a_notebook_run_again_but_code_does(source):
    before = percent.code_digest(percent.read(source))
    source.write_text(TEXT.replace("Prose.", "Better prose."), encoding="utf8")
    assert percent.code_digest(percent.read(source)) == before
    source.write_text(TEXT.replace("x + 1", "x + 2"), encoding="utf8")
    assert percent.code_digest(percent.read(source)) != before


def test_a_text_without_a_title_is_refused(source):
    source.write_text("# %%\nx = 1\n", encoding="utf8")
    with pytest.raises(ConfigError, match="title"):
        percent.read(source)


def test_comments_and_docstrings_of_the_library_do_not_count(tmp_path):
    def substance(text):
        path = tmp_path / "m.py"
        path.write_text(text, encoding="utf8")
        return build._substance(path)

    plain = substance('"""A."""\ndef f():\n    """B."""\n    return 1\n')
    assert plain == substance('"""C."""\n# why\ndef f():\n    """D."""\n    return 1  # so\n')
    assert plain != substance('"""A."""\ndef f():\n    """B."""\n    return 2\n')


# --- outputs ------------------------------------------------------------------------------------


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def cell(*outs, **metadata):
    made = v4.new_code_cell("f()", outputs=list(outs), metadata=metadata)
    made.execution_count = 7
    return made


def tidy(*cells):
    return outputs.normalised(v4.new_notebook(cells=list(cells)), "x").cells


def shown(data):
    return v4.new_output("display_data", data)


def test_counts_times_and_widget_state_are_gone():
    out = v4.new_output("execute_result", {"text/plain": "3"}, execution_count=7)
    notebook = v4.new_notebook(cells=[cell(out, execution={"iopub.status.busy": "2026"})])
    notebook.metadata["widgets"] = {"state": {}}
    made = outputs.normalised(notebook, "x")
    assert "widgets" not in made.metadata
    assert made.cells[0].execution_count is None
    assert made.cells[0].metadata == {}
    assert "execution_count" not in made.cells[0].outputs[0]


def test_a_stream_in_pieces_becomes_one():
    pieces = [v4.new_output("stream", text=t) for t in ("a\n", "b\n")]
    (out,) = tidy(cell(*pieces))[0].outputs
    assert out.text == "a\nb\n"


def test_a_widget_leaves_what_it_shows_without_a_kernel():
    live = {outputs.VIEW: {"model_id": "1"}, "text/plain": "W()"}
    (slider,) = tidy(cell(shown(live)))[0].outputs
    assert slider.data["text/html"] == outputs.STILL
    (explorer,) = tidy(cell(shown({**live, "text/html": "<b>still</b>"})))[0].outputs
    assert explorer.data["text/html"] == "<b>still</b>"
    assert outputs.VIEW not in explorer.data


def test_a_figure_without_words_is_refused_and_one_with_them_is_described():
    picture = {"image/png": png(np.zeros((4, 4, 3), np.uint8)), "text/plain": "<Figure>"}
    with pytest.raises(ConfigError, match="1 figures and 0 alternative texts"):
        tidy(cell(shown(dict(picture))))
    artist = shown({"text/plain": "[<Axes: title='a'>]"})
    (out,) = tidy(cell(artist, shown(dict(picture)), alt=["A black square."]))[0].outputs
    assert out.metadata["image/png"]["alt"] == out.data["text/plain"] == "A black square."


def test_a_figure_is_made_compact_once_and_stays_as_it_is(rng):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    large = png(noise)
    once = tidy(cell(shown({"image/png": large}), alt=["Noise."]))[0]
    (kind,) = set(once.outputs[0].data) - {"text/plain"}
    assert len(once.outputs[0].data[kind]) < 0.6 * len(large)
    before = once.outputs[0].data[kind]
    assert tidy(once)[0].outputs[0].data[kind] == before


def test_figures_are_sharp_and_the_largest_loses_pixels_first():
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    plain = np.zeros((60, 90, 3), np.uint8)
    figures = [cell(shown({"image/png": png(p)}), alt=["A dot."]) for p in (plain, noise)]
    notebook = outputs.normalised(v4.new_notebook(cells=figures), "x")

    def widths():
        for made in (c.outputs[0] for c in notebook.cells):
            (kind,) = made.metadata
            picture = Image.open(io.BytesIO(base64.b64decode(made.data[kind])))
            yield picture.width, made.metadata[kind].get("width"), made.metadata[kind]["alt"]

    assert [*widths()] == [(90, 45, "A dot."), (160, 80, "A dot.")]
    assert outputs.halved(notebook)
    assert [*widths()] == [(90, 45, "A dot."), (80, None, "A dot.")]
    assert outputs.halved(notebook)
    assert not outputs.halved(notebook), "there is nothing left to halve"


def test_a_large_notebook_halves_figures_and_is_refused_when_there_is_none_left(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    notebook = v4.new_notebook(cells=[cell(shown({"image/png": png(noise)}), alt=["A dot."])])
    outputs.normalised(notebook, "x")
    whole = len(build._small(notebook, "x"))
    monkeypatch.setattr(build, "MAX_BYTES", whole - 1)
    assert len(build._small(notebook, "x")) < 0.7 * whole
    monkeypatch.setattr(build, "MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"draw smaller or fewer figures \(cell 0: \d+ kB\)"):
        build._small(notebook, "x")


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        (v4.new_output("stream", name="stderr", text="UserWarning: old"), "UserWarning: old"),
        (v4.new_output("error", ename="ValueError", evalue="no", traceback=[]), "ValueError: no"),
        (shown({"text/plain": "<object at 0x7f0011223344>"}), "address"),
        (v4.new_output("stream", text="at 0x7f0011223344"), "address"),
    ],
)
def test_what_cannot_be_the_same_next_time_is_refused(out, complaint):
    with pytest.raises(ConfigError, match=complaint):
        tidy(cell(out))
