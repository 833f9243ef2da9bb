"""One query, told from the token to the detection, is the query that ran."""

import matplotlib

matplotlib.use("Agg")

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rtdetr_lab.errors import RecordError
from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.structures import Targets
from rtdetr_lab.taps import record
from rtdetr_lab.viz.life import life_of_query
from rtdetr_lab.viz.marks import steps
from rtdetr_lab.viz.refinement import box_trails, draw_life, refinement_curves

SHAPES = [(16, 24), (8, 12), (4, 6)]
IMAGE = np.full((128, 192, 3), 90, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    """A nano whose heads have something to say: fresh ones keep every box where it is."""
    torch.manual_seed(1)
    model = rtdetr_nano(num_classes=5).build()
    model.num_queries = 20
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "head" in name and name.endswith("weight"):
                value.normal_(0, 0.15)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def run(model, images):
    with torch.no_grad(), record(model) as seen:
        prediction = model(images)
    return prediction, dict(seen)


def rectangles(ax):
    """cxcywh in [0, 1] of all unnamed frames, in the order they were drawn."""
    found = []
    for frame in [p for p in ax.patches if p.get_gid() is None]:
        x, y = frame.get_xy()
        w, h = frame.get_width(), frame.get_height()
        found.append([(x + w / 2) / 192, (y + h / 2) / 128, w / 192, h / 128])
    return np.array(found)


def test_a_life_begins_at_the_token_and_ends_at_the_detection(run):
    prediction, seen = run
    for query in (0, 7, 19):
        life = life_of_query(prediction, seen, SHAPES, query, picture=1)
        order = seen["selection.score"][1].argsort(descending=True)
        assert order[life.rank - 1] == life.token
        assert life.num_tokens == len(order)
        proposed = seen["proposal_head.box_logits"][1, life.token].sigmoid()
        torch.testing.assert_close(life.boxes[0], proposed, atol=1e-6, rtol=0)
        assert torch.equal(life.boxes[-1], prediction.boxes[1, query])
        assert life.score == pytest.approx(float(prediction.logits[1, query].sigmoid().max()))
        assert life.label == int(prediction.logits[1, query].argmax())
    level, row, column = life.cell
    start = [0, 384, 480][level]
    assert start + row * SHAPES[level][1] + column == life.token


def test_the_best_detection_is_the_end_of_its_querys_life(run):
    prediction, seen = run
    found = postprocess(prediction, [(128, 192)] * 2, threshold=0.0)[0]
    life = life_of_query(prediction, seen, SHAPES, int(found.queries[0]))
    assert life.score == pytest.approx(float(found.scores[0]))
    assert life.label == int(found.labels[0])


def test_in_training_denoising_queries_are_stepped_over(model, images):
    targets = Targets.of([{"labels": [1], "boxes": [[0.5, 0.5, 0.2, 0.2]]}] * 2)
    model.train()
    with torch.no_grad(), record(model) as seen:
        prediction = model(images, targets)
    model.eval()
    assert seen["decoder.reference.0"].shape[1] > prediction.boxes.shape[1]
    life = life_of_query(prediction, seen, SHAPES, 3)
    assert torch.equal(life.boxes[-1], prediction.boxes[0, 3])


@pytest.mark.parametrize("name", ["selection.index", "decoder.reference.0", "decoder.boxes.2"])
def test_taps_of_another_run_are_refused(run, name):
    prediction, seen = run
    with pytest.raises(RecordError, match="take both from one call"):
        life_of_query(prediction, seen | {name: seen[name].flip(0)}, SHAPES, 0)


def test_a_model_without_proposals_has_no_such_life(run):
    prediction, seen = run
    with pytest.raises(RecordError, match="no query 0"):
        life_of_query(replace(prediction, proposals=None), seen, SHAPES, 0)
    with pytest.raises(RecordError, match="no query 20"):
        life_of_query(prediction, seen, SHAPES, 20)


def test_the_drawing_shows_every_box_and_every_score(run):
    prediction, seen = run
    life = life_of_query(prediction, seen, SHAPES, 2)
    picture, scores = draw_life(life, IMAGE, names=["a", "b", "c", "d", "e"])
    np.testing.assert_allclose(rectangles(picture), life.boxes, atol=1e-6)
    drawn = scores.collections[0].get_offsets()
    np.testing.assert_allclose(drawn, list(enumerate(life.scores.tolist())), atol=1e-6)
    assert scores.get_title() == f"final score {life.score:.2f}"
    assert f"token {life.token} " in picture.get_title()
    (token,) = [p for p in picture.patches if p.get_gid() == "token"]
    level, row, column = life.cell
    height, width = SHAPES[level]
    np.testing.assert_allclose(token.get_xy(), [column * 192 / width, row * 128 / height])
    spoken = [t.get_text() for t in scores.texts]
    changes = [0, *(i for i in range(1, 4) if life.labels[i] != life.labels[i - 1])]
    assert spoken == ["abcde"[life.labels[i]] for i in changes]


def test_trails_lead_from_the_reference_to_the_last_box(run):
    prediction, _ = run
    boxes = torch.stack([prediction.proposals.boxes[0], *(p.boxes[0] for p in prediction.layers)])
    ax = box_trails(boxes, IMAGE, queries=[1, 5])
    expected = torch.stack([boxes[0, 1], boxes[-1, 1], boxes[0, 5], boxes[-1, 5]])
    np.testing.assert_allclose(rectangles(ax), expected, atol=1e-6)
    for line, query in zip(ax.lines, [1, 5], strict=False):
        way = boxes[:, query, :2].double().numpy() * [192, 128]
        np.testing.assert_allclose(line.get_xydata(), way, atol=1e-6)
    from matplotlib.colors import to_hex

    shown = [to_hex(c) for c in ax.collections[0].get_facecolors()]
    assert shown == [c.lower() for c in steps(4)]


def test_curves_are_the_overlap_with_ones_own_object():
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2]], [[0.5, 0.5, 0.4, 0.2]]])
    ax = refinement_curves(boxes, torch.tensor([[0.5, 0.5, 0.4, 0.2]]))
    (curve,) = [line for line in ax.lines if line.get_gid() == "query 0"]
    np.testing.assert_allclose(curve.get_ydata(), [0.5, 1.0], atol=1e-6)


def test_the_thick_curve_is_the_mean_over_queries_after_every_step():
    heights = [[0.05, 0.2, 0.1], [0.1, 0.2, 0.2]]  # two steps of three queries; objects have 0.2
    boxes = torch.tensor([[[0.5, 0.5, 0.4, height] for height in step] for step in heights])
    ax = refinement_curves(boxes, torch.tensor([[0.5, 0.5, 0.4, 0.2]] * 3))
    (mean,) = [line for line in ax.lines if line.get_label() == "mean"]
    np.testing.assert_allclose(mean.get_ydata(), [1.75 / 3, 2.5 / 3], atol=1e-6)
