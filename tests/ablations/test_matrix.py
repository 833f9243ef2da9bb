"""A matrix of parts and worlds: cells are a study's own differences, adjusted for all of them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from rtdetr_lab.ablations.bases import miniature
from rtdetr_lab.ablations.matrix import Matrix
from rtdetr_lab.ablations.parts import PARTS, Alone, OneWay, RandomTokens
from rtdetr_lab.ablations.shipped import shipped
from rtdetr_lab.ablations.statistics import holm
from rtdetr_lab.commands.ablate import Ablate
from rtdetr_lab.data.shapes_worlds import WORLDS
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.taps import record
from rtdetr_lab.viz.ablation import heat_map

REPORTS = {name: shipped(name) for name in ("selection", "denoising")}
"""Two studies with other rows: a cell that only one of them has is empty in the other column."""


def test_cells_are_the_differences_of_the_reports_adjusted_for_all_of_them():
    cells = Matrix(REPORTS).cells
    differences = {
        (entry.name, world): entry.difference
        for world, report in REPORTS.items()
        for entry in report.entries
        if entry.difference
    }
    assert {at: cell.difference for at, cell in cells.items()} == differences
    adjusted = holm([d.p_value for d in differences.values()])
    assert [cell.p_value for cell in cells.values()] == adjusted
    assert any(c.p_value > c.difference.p_value for c in cells.values())
    clear = [cell.is_clear for cell in cells.values()]
    assert clear == [p <= 0.05 for p in adjusted]


def test_a_saved_matrix_has_the_numbers_it_shows(tmp_path):
    paths = Matrix(REPORTS).save(tmp_path)
    endings = ("md", "json", "png", "svg", "pdf")
    assert [path.name for path in paths] == [f"matrix.{ending}" for ending in endings]
    head, _, reference, *lines = (tmp_path / "matrix.md").read_text(encoding="utf8").splitlines()
    assert head == "| without | selection | denoising |"
    assert reference.startswith("| the whole model: AP | ")
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines}
    for cell in json.loads((tmp_path / "matrix.json").read_text()):
        column = list(REPORTS).index(cell["world"])
        shown = [*rows[cell["row"]], ""][column].strip("*| ")
        difference = cell["difference"]
        half = (difference["high"] - difference["low"]) / 2
        assert shown == f"{100 * difference['mean']:+.1f} ± {100 * half:.1f}"
        assert cell["p_holm"] == Matrix(REPORTS).cells[cell["row"], cell["world"]].p_value


def test_only_clear_cells_are_strong():
    ax = heat_map({("a", "x"): (-0.05, True), ("a", "y"): (0.04, False), ("b", "y"): (0.02, True)})
    strengths = [patch.get_alpha() for patch in ax.patches]
    assert strengths[0] > strengths[2] > strengths[1]
    assert [text.get_text() for text in ax.texts] == ["-5.0", "+4.0", "+2.0"]
    assert [patch.get_x() + 0.48 for patch in ax.patches] == pytest.approx([0, 1, 1])
    plt.close(ax.figure)


def row(name):
    setup = next(part for part in PARTS if part.name == name)(miniature())
    return setup.cfg


def test_one_way_leaves_the_other_path_out():
    down, up = row("no bottom up").encoder.ccff, row("no top down").encoder.ccff
    assert (down, up) == (OneWay(0.5, down=True), OneWay(0.5, down=False))
    maps = [torch.rand(1, 8, side, side + 1) for side in (12, 6, 3)]
    for cfg, unchanged in ((down, -1), (up, 0)):
        seen = cfg.build(8, 3).eval()(maps)
        assert [m.shape for m in seen] == [m.shape for m in maps]
        same = [torch.equal(a, b) for a, b in zip(seen, maps, strict=True)]
        assert same[unchanged] == (cfg is up)
        assert sum(same) == (cfg is up)


def test_queries_alone_attend_to_themselves_only():
    cfg = row("no query attention")
    assert isinstance(cfg.decoder, Alone)
    model, name = cfg.build().eval(), "decoder.layers.1.self_attn.weights"
    with record(model, keep=name) as seen:
        model(torch.rand(1, 3, 64, 96))
    weights = seen[name]
    assert torch.equal(weights, torch.eye(weights.shape[-1]).expand_as(weights))


def test_random_tokens_do_not_depend_on_the_picture():
    cfg = row("random tokens")
    assert isinstance(cfg.selection, RandomTokens)
    model = cfg.build().eval()
    pictures = torch.rand(3, 3, 64, 96)
    chosen = model(pictures).proposals.index
    assert (chosen == chosen[0]).all()
    assert len(set(chosen[0].tolist())) == cfg.selection.num_queries
    assert chosen[0].sort().values.tolist() != list(range(cfg.selection.num_queries))


def test_all_worlds_are_studies_of_their_own_and_one_matrix(monkeypatch, tmp_path, capsys):
    asked = []

    def study(command):
        asked.append((command.world, command.study))
        return _Finished(REPORTS["selection"])

    monkeypatch.setattr(Ablate, "_study", study)
    monkeypatch.setattr("rtdetr_lab.data.shapes_worlds.WORLDS", {"plain": 0, "far": 0})
    assert Ablate(study="parts", world="all", report=tmp_path, report_only=True).run() == 0
    assert set(asked) == {("plain", "parts"), ("far", "parts")}
    assert f"{tmp_path}/matrix.md" in capsys.readouterr().out.split()


@dataclass(frozen=True)
class _Finished:
    found: object
    home: Path = Path()

    def report(self):
        return self.found


def test_a_study_of_another_world_has_its_own_name_pictures_and_queries():
    far, crowds = (Ablate(study="parts", world=w, pictures=16)._study() for w in ("far", "crowds"))
    assert (far.name, crowds.name) == ("parts-far", "parts-crowds")
    assert far.data[0].dataset.config == WORLDS["far"](128)
    assert crowds.base.cfg.selection.num_queries == 60


def test_a_world_is_not_for_pictures_on_a_disk(tmp_path):
    for world in ("far", "all"):
        with pytest.raises(ConfigError, match="--world: is for drawn shapes, not for"):
            Ablate(study="parts", data=str(tmp_path), world=world).run()


def test_a_matrix_without_a_difference_has_a_table_and_no_figure(tmp_path):
    paths = Matrix({"far": replace(REPORTS["selection"], lines=())}).save(tmp_path)
    assert [path.name for path in paths] == ["matrix.md", "matrix.json"]
    assert paths[0].read_text(encoding="utf8").splitlines()[-1].startswith("| the whole model")
