"""A matrix of parts and worlds: cells are a study's own differences, adjusted for all of them."""

import json
from dataclasses import replace

import ablation_toy as toy
import matplotlib.pyplot as plt
import pytest
import torch

from rtdetr_lab.ablations.bases import miniature
from rtdetr_lab.ablations.matrix import Matrix
from rtdetr_lab.ablations.parts import PARTS, Alone, OneWay, RandomTokens
from rtdetr_lab.ablations.statistics import holm
from rtdetr_lab.commands.ablate import Ablate
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesDataset
from rtdetr_lab.taps import record
from rtdetr_lab.viz.ablation import heat_map


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    found = {}
    for name, side in (("small", 20.0), ("large", 40.0)):
        world = replace(toy.WORLD, max_side=side)
        data = (ShapesDataset(world, TRAIN, 16), ShapesDataset(world, VAL, 4))
        found[name] = toy.study(folder, name=name, data=data).run()
    return found


def test_cells_are_the_differences_of_the_reports_adjusted_for_all_of_them(reports, monkeypatch):
    monkeypatch.setattr("rtdetr_lab.ablations.findings.NOTHING", 0.0)
    matrix = Matrix(reports)
    differences = {
        (entry.name, world): entry.difference
        for world, report in reports.items()
        for entry in report.entries
        if entry.difference
    }
    assert list(matrix.cells) == [("no aifi", "small"), ("no aifi", "large")]
    assert {at: cell.difference for at, cell in matrix.cells.items()} == differences
    adjusted = holm([d.p_value for d in differences.values()])
    assert [cell.p_value for cell in matrix.cells.values()] == adjusted


def test_a_saved_matrix_has_the_numbers_it_shows(reports, monkeypatch, tmp_path):
    monkeypatch.setattr("rtdetr_lab.ablations.findings.NOTHING", 0.0)
    matrix = Matrix(reports)
    paths = matrix.save(tmp_path)
    assert [path.name for path in paths] == [
        f"matrix.{e}" for e in ("md", "json", "png", "svg", "pdf")
    ]
    cells = json.loads((tmp_path / "matrix.json").read_text())
    head, _, reference, row = (tmp_path / "matrix.md").read_text().splitlines()
    assert head == "| without | small | large |"
    assert reference.startswith("| the whole model: AP | ")
    for cell in cells:
        assert f"{100 * cell['difference']['mean']:+.1f}" in row


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


def test_a_dry_run_of_all_worlds_says_each(capsys):
    command = Ablate(study="parts", world="all", only=("no AIFI",), pictures=16, dry_run=True)
    assert command.run() == 0
    said = capsys.readouterr().out
    for name in ("parts: 2", "parts-far: 2", "parts-marks: 2"):
        assert name in said
