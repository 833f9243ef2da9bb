"""What notebooks use: source as it is, answers that are checked, counts one can do by hand."""

import socket
from pathlib import Path

import pytest
import torch
from torch import nn

from rtdetr_lab import notebook as N
from rtdetr_lab.commands import notebooks as command
from rtdetr_lab.query_selection import QuerySelection, TopScore, anchors
from rtdetr_lab.structures import LayerPrediction, Targets


def test_source_is_the_code_without_its_docstrings():
    shown = N.source(TopScore)
    assert shown.code.startswith(
        "@dataclass(frozen=True)\nclass TopScore:\n    num_queries: int = 300"
    )
    assert '"""' not in shown.code
    assert '"""Keep the tokens' in N.source(TopScore, doc=True).code
    assert "rtdetr_lab/query_selection.py, line " in shown.place
    assert "```python\n@dataclass" in shown._repr_markdown_()


def test_source_knows_what_a_decorator_wraps_and_dedents_methods():
    assert "def anchors(" in N.source(anchors).code
    assert N.source(QuerySelection.forward).code.startswith("def forward(")
    compile(N.source(QuerySelection).code, "shown", "exec")


def only_a_docstring():
    """It is all there is."""


def test_a_body_that_is_a_docstring_stays():
    code = N.source(only_a_docstring).code
    compile(code, "shown", "exec")
    assert '"""It is all there is."""' in code


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (..., 3, "No answer yet"),
        (3, 3, "Right."),
        (3.0004, 3, "Right."),
        (4, 3, "Not 4. Count again."),
        (True, True, "Right."),
        (False, True, "Not False."),
        ([0.6667, 0.9608], [2 / 3, 0.9608], "Right."),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0], "Right."),
        ([1.0], [1.0, 2.0], "Not [1.0]."),
        ("aifi", "aifi", "Right."),
        ({"a"}, {"a", "b"}, "Not {'a'}."),
        (None, 3, "Not None."),
    ],
)
def test_an_answer_is_missing_right_or_not(capsys, answer, expected, said):
    N.check(answer, expected, hint="Count again.")
    assert capsys.readouterr().out.startswith(said)


def test_an_object_is_found_by_a_sure_box_that_fits_and_hit_by_each():
    """Two pictures: one object with a good, a loose and an unsure box; two objects, one of them
    hit twice."""
    at = torch.tensor
    good, loose = [0.5, 0.5, 0.4, 0.2], [0.5, 0.5, 0.4, 0.3]  # an IoU of 1 and of 2/3
    far, other = [0.1, 0.1, 0.1, 0.1], [0.2, 0.8, 0.2, 0.1]
    boxes = at([[loose, good, far], [other, loose, other]])
    logits = at([[[2.0, -3], [-2, -2], [2, 2]], [[1.0, -9], [-9, 1], [0.1, -9]]])
    answer = LayerPrediction(logits, boxes)
    targets = Targets((at([0]), at([0, 1])), (at([good]), at([good, other])))
    assert N.count_hits(answer, targets).tolist() == [1, 1, 2]
    assert N.count_hits(answer, targets, 0.7).tolist() == [0, 0, 2]
    assert (N.count_found(answer, targets), N.count_good(answer, targets)) == (3, 1)
    unsure = LayerPrediction(logits - 5, boxes)
    assert N.count_found(unsure, targets) == 0


def test_cost_counts_two_operations_per_multiplication():
    model = nn.Sequential(nn.Linear(10, 20, bias=False), nn.ReLU(), nn.Conv1d(1, 4, 3, padding=1))
    found = N.cost(model, torch.zeros(1, 10))
    assert found.rows == (
        ("0", 200, 2 * 200),
        ("1", 0, 0),
        ("2", 16, 2 * 20 * 4 * 3),
        ("all", 216, 880),
    )
    assert (found.params, found.flops) == (216, 880)
    assert "| all | 216 | 0.0 |" in found._repr_markdown_()


def test_milliseconds_is_a_median_of_calls():
    calls = []
    assert N.milliseconds(lambda: calls.append(1), repeat=4) >= 0
    assert len(calls) == 5


def test_seeded_gives_the_same_numbers_twice():
    first = (torch.rand(3, generator=N.seeded(7)), torch.rand(3))
    again = (torch.rand(3, generator=N.seeded(7)), torch.rand(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_pictures_are_batches_in_the_unit_interval():
    for picture in (N.chelsea((64, 96)), N.coffee((64, 96)), N.astronaut((64, 96))):
        assert picture.shape == (1, 3, 64, 96)
        assert 0 <= picture.min() < 0.3 < 0.7 < picture.max() <= 1
    images, targets = N.shapes(3, 5)
    assert images.shape == (2, 3, 320, 320)
    assert targets.counts == [7, 1]


def test_online_says_so_if_it_is_not(monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not N.online()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", here)
        assert N.online()
    assert not N.online()
    assert capsys.readouterr().out.count("Skipped: ") == 2


def test_notebooks_are_copied_once_and_answers_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    mine = tmp_path / "mine"
    assert command.Notebooks(folder=mine, copy_only=True).run() == 0
    names = {path.name for path in mine.iterdir()}
    assert "00_tour.ipynb" in names
    (mine / "00_tour.ipynb").write_text("my answers", encoding="utf8")
    command.Notebooks(folder=mine, copy_only=True).run()
    assert (mine / "00_tour.ipynb").read_text(encoding="utf8") == "my answers"
    command.Notebooks(folder=mine, copy_only=True, fresh=True).run()
    assert "my answers" not in (mine / "00_tour.ipynb").read_text(encoding="utf8")
    assert f"0 notebooks copied to {mine}, {len(names)} kept" in capsys.readouterr().out


def test_an_installation_without_notebooks_says_what_to_do(monkeypatch):
    monkeypatch.setattr(command, "HOMES", (Path("/nowhere"),))
    with pytest.raises(command.ConfigError, match="has none"):
        command.home_of_notebooks()
