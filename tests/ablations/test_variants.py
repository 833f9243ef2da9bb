"""Every row of every table: it builds, learns, differs as it says, and is in the documentation."""

import pytest
import torch
from paths import ROOT

from rtdetr_lab.ablations.bases import FULL_SIZE, full_size, miniature
from rtdetr_lab.ablations.denoising import MatchingStability
from rtdetr_lab.ablations.encoder import ENCODERS, CoarsestScale, EachScale
from rtdetr_lab.ablations.family import FAMILY
from rtdetr_lab.ablations.measure import profile
from rtdetr_lab.ablations.page import catalogue
from rtdetr_lab.ablations.sampling import FineTune
from rtdetr_lab.ablations.selection import ProposalCriterion, ProposalQuality
from rtdetr_lab.ablations.studies import TABLES
from rtdetr_lab.ablations.variant import with_seed
from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.data.batch import collate
from rtdetr_lab.data.shapes import ShapesConfig, ShapesDataset
from rtdetr_lab.losses import Varifocal

NANO, R50 = miniature(), full_size("r50")
ROWS = [
    pytest.param(table, v, id=f"{name}: {v.name}")
    for name, table in TABLES.items()
    for v in table.rows(NANO.cfg)
]
ROWS_R50 = [
    pytest.param(v, id=f"{name}: {v.name}")
    for name, table in TABLES.items()
    for v in table.rows(R50.cfg)
]
DOCS = ROOT / "docs" / "ablations.md"


@pytest.fixture(scope="module")
def samples():
    world = ShapesDataset(ShapesConfig(size=96, max_side=40.0), count=2)
    return [world[0], world[1]]


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_learns_at_nano_size(table, row, samples):
    setup = row(NANO)
    model = setup.cfg.build().train()
    batch = collate(samples)
    prediction = model(batch.images, batch.targets)
    loss = sum(setup.cfg.criterion.build()(prediction, batch.targets).values())
    loss.backward()
    learns = [p for p in model.parameters() if p.requires_grad]
    assert torch.isfinite(loss)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learns)
    assert sum(p.grad is not None and bool(p.grad.any()) for p in learns) > 0.5 * len(learns)


@pytest.mark.parametrize(("base", "rows"), [(NANO, ROWS), (R50, ROWS_R50)], ids=["nano", "r50"])
def test_the_difference_a_report_prints_is_the_whole_difference(base, rows):
    for row in (param.values[-1] for param in rows):
        setup = row(base)
        again = base
        for path, (_, value) in diff(base, setup).items():
            again = replace_at(again, path, value)
        assert again == setup
        assert from_json(to_json(setup)) == setup


@pytest.mark.parametrize("row", ROWS_R50)
def test_every_row_builds_at_full_size(row):
    with torch.device("meta"):
        model = row(R50).cfg.build()
    assert sum(p.numel() for p in model.parameters()) > 20e6


@pytest.mark.full
@pytest.mark.parametrize("row", ROWS_R50)
def test_every_row_learns_at_full_size(row, samples):
    setup = row(R50)
    model = setup.cfg.build().train()
    world = ShapesDataset(ShapesConfig(size=160, max_side=80.0), count=1)
    batch = collate([world[0]])
    prediction = model(batch.images, batch.targets)
    sum(setup.cfg.criterion.build()(prediction, batch.targets).values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", TABLES)
def test_every_study_has_one_reference_and_rows_that_differ(name):
    for base in (NANO, R50):
        setups = [row(base) for row in TABLES[name].rows(base.cfg)]
        assert sum(setup == base for setup in setups) == 1
        assert len({to_json(setup) for setup in setups}) == len(setups)


def test_the_papers_rows_have_the_papers_names_at_full_size():
    for name, table in TABLES.items():
        rows = {row.name for row in table.rows(R50.cfg)}
        published = {n.split(", run")[0] for n in table.published}
        assert published <= rows, name


def test_the_encoders_have_about_the_papers_sizes():
    """Table 3, in millions; theirs counts 80 classes and R50 as ours does, rounded down."""
    paper = {"A": 31, "B": 32, "C": 32, "D": 35, "D_S5": 35, "E": 42}
    for row in ENCODERS:
        with torch.device("meta"):
            model = row(R50).cfg.build()
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        assert millions == pytest.approx(paper[row.name], abs=1.5), row.name


@pytest.mark.parametrize(
    ("within", "unchanged"),
    [(CoarsestScale(), [True, True, False]), (EachScale(), [False, False, False])],
)
def test_attention_on_the_coarsest_scale_leaves_the_finer_maps_as_they_are(within, unchanged):
    maps = [torch.randn(2, 64, side, side + 1) for side in (8, 4, 2)]
    seen = within.build(64, num_levels=3).eval()(maps)
    assert [torch.equal(a, b) for a, b in zip(seen, maps, strict=True)] == unchanged


def test_every_preset_can_be_a_base():
    assert {full_size(name).cfg.num_classes for name in FULL_SIZE} == {80}


def test_the_documentation_lists_every_row_with_its_hypothesis():
    assert catalogue() in DOCS.read_text(encoding="utf8"), (
        "python -m rtdetr_lab.ablations.page prints what docs/ablations.md should hold"
    )


# --- what is measured besides AP ----------------------------------------------------------------


def test_proposals_that_are_the_objects_are_counted_as_good(samples):
    class Knows(torch.nn.Module):
        def forward(self, images):
            from rtdetr_lab.structures import Prediction, Proposals

            boxes = torch.stack([s.boxes[:1].expand(4, 4) for s in samples])
            logits = torch.tensor([5.0, 5.0, -5.0, -5.0]).expand(2, 4)[..., None]
            wrong = boxes.clone()
            wrong[:, 1] = torch.tensor([0.99, 0.99, 0.001, 0.001])
            proposals = Proposals(torch.zeros(2, 4, dtype=torch.long), logits, wrong)
            return Prediction(logits, wrong, (), proposals)

    found = ProposalQuality()(Knows(), [samples])
    assert found["Prop_cls"] == 50.0
    assert found["Prop_both"] == 25.0
    assert len(found["score_iou"][0]) == len(found["score_iou"][1]) == 8


def test_stability_counts_objects_that_change_their_query(samples):
    class Swaps(torch.nn.Module):
        """Two layers that swap the queries of the first picture's first two objects."""

        def forward(self, images):
            from rtdetr_lab.structures import LayerPrediction, Prediction

            most = max(len(s.boxes) for s in samples)
            rows = [
                torch.cat([s.boxes, torch.full((most - len(s.boxes), 4), 0.01)]) for s in samples
            ]
            boxes = torch.stack(rows)
            swapped = boxes.clone()
            swapped[0, [0, 1]] = boxes[0, [1, 0]]
            logits = torch.zeros(2, most, 10)
            layers = (LayerPrediction(logits, boxes), LayerPrediction(logits, swapped))
            return Prediction(logits, swapped, layers)

    objects = sum(len(s.boxes) for s in samples)
    assert len(samples[0].boxes) > 1
    found = MatchingStability()(Swaps(), [samples])["unstable"]
    assert found == pytest.approx(100 * 2 / objects, abs=1e-3)


@pytest.mark.parametrize("variant", FAMILY, ids=lambda v: v.name)
def test_both_families_can_be_measured_for_the_plan(variant):
    found = profile(variant.change(miniature().cfg), (64, 64))
    assert found["parameters"] > 1e6
    assert found["gflops"] > 0


def test_a_fine_tune_has_a_tenth_of_the_rates_and_the_seed_of_its_start():
    later = with_seed(FineTune(discrete=True)(NANO), 7)
    rates = [(one.recipe.lr, one.recipe.backbone_lr) for one in (later, NANO)]
    assert rates[0] == pytest.approx([rate / 10 for rate in rates[1]])
    assert (later.recipe.seed, later.start.recipe.seed) == (7, 7)


def test_proposals_alone_learn_by_a_loss_of_their_own(samples):
    usual = CriterionConfig(classification=Varifocal())
    own = ProposalCriterion(classification=Varifocal(), of_proposals=Varifocal(alpha=0.25))
    model, batch = NANO.cfg.build().train(), collate(samples)
    prediction = model(batch.images, batch.targets)
    terms = [cfg.build()(prediction, batch.targets) for cfg in (usual, own)]
    other = {name for name in terms[0] if not torch.equal(terms[0][name], terms[1][name])}
    assert other == {"class.proposals"}


def test_a_multiply_add_counts_as_two_operations():
    class Convolution:
        def build(self):
            return torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)

    found = profile(Convolution(), (64, 96))
    assert found == {"parameters": 27 * 64, "gflops": round(2 * 27 * 64 * 64 * 96 / 1e9, 4)}


@pytest.mark.parametrize("variant", FAMILY, ids=lambda v: v.name)
def test_both_families_begin_with_the_same_backbone_and_see_the_same_pixels(variant):
    model = variant.change(miniature().cfg).build()
    load_backbone(model, "nano")
    nano = load_pretrained("nano").backbone.state_dict()
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, nano[name]), name
    seen = {}
    model.backbone.register_forward_pre_hook(lambda m, given: seen.update(pixels=given[0]))
    images = torch.rand(1, 3, 64, 64)
    model.eval()(images)
    assert torch.equal(seen["pixels"], images)
