"""Heat maps say what they define: what a query reads, what cells attend to, what a score needs."""

import numpy as np
import pytest
import torch
from families import built

import rtdetr_lab as lab
from rtdetr_lab.commands.explore import level_shapes
from rtdetr_lab.data.shapes import DEFAULT, VAL, draw
from rtdetr_lab.deformable_attention import points_per_level
from rtdetr_lab.errors import ConfigError, ImageError, RecordError
from rtdetr_lab.query_selection import Selection
from rtdetr_lab.samplers import SamplingPlan
from rtdetr_lab.viz.heatmaps import spread

SIZE = (96, 64)
LEVELS = ("backbone.S3", "backbone.S4", "backbone.S5")
RTDETRS = ["rtdetr", "rtdetr_four_levels", "rtdetrv2_points", "rtdetrv2_discrete"]


def picture(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def small_detector(family):
    return lab.Detector(built(family), size=SIZE)


@pytest.fixture(scope="module")
def nano():
    return lab.Detector.from_pretrained("nano", device="cpu")


def seen_by(detector, image, batch=2, **how):
    images = detector.preprocess(image)[None].to(next(detector.model.parameters()))
    with torch.no_grad(), lab.record(detector.model, **how) as seen:
        prediction = detector.model(images.expand(batch, -1, -1, -1))
    return prediction, seen


@pytest.mark.parametrize(
    "family", [*RTDETRS, "rtdetr_hgnet", "rtdetr_dfine", "detr", "detr_dilated"]
)
@pytest.mark.parametrize("size", [SIZE, (41, 77)])
def test_the_maps_have_the_size_of_the_picture_and_the_sums_that_they_promise(family, size):
    maps = lab.heatmap(small_detector(family), picture(*size), 3)
    for values in (maps.sampling, maps.attention, maps.gradient):
        assert values.shape == size
        assert (values >= 0).all()
    assert maps.attention.sum() == pytest.approx(1, abs=1e-6)
    assert 0 < maps.sampling.sum() <= 1 + 1e-6
    assert maps.gradient.sum() > 0
    if "discrete" in family or "detr" == family[:4]:  # a point outside reads the border
        assert maps.sampling.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("family", RTDETRS)
def test_the_sampling_of_a_cell_is_what_the_query_reads_if_that_cell_alone_is_one(family):
    detector, image = small_detector(family), picture(*SIZE)
    maps = lab.heatmap(detector, image, 3)
    _, seen = seen_by(detector, image)
    cfg = detector.model.cfg.decoder
    shapes, points = (
        level_shapes(seen, cfg.num_levels),
        points_per_level(cfg.num_points, cfg.num_levels),
    )
    total = sum(h * w for h, w in shapes)
    alone = torch.eye(total, dtype=torch.float64)[:, :, None, None].expand(-1, -1, 4, -1)
    read = torch.zeros(total, dtype=torch.float64)
    for layer in range(3):
        where = f"decoder.layers.{layer}.cross_attn"
        plan = [seen[f"{where}.{name}"][:1, 3:4] for name in ("locations", "weights")]
        plan = SamplingPlan(*(one.expand(total, *one.shape[1:]) for one in plan))
        read += cfg.sampler(alone, shapes, points, plan).sum((1, 2)) / (3 * 4)
    levels = read.split([h * w for h, w in shapes])
    by_hand = sum(spread(r.view(s), SIZE) for r, s in zip(levels, shapes, strict=True))
    torch.testing.assert_close(maps.sampling, by_hand)


def test_the_sampling_of_detr_is_its_cross_attention():
    detector, image = small_detector("detr"), picture(*SIZE)
    _, seen = seen_by(detector, image)
    rows = [seen[f"decoder.layers.{i}.cross_attn.weights"][0, :, 4] for i in range(2)]
    by_hand = torch.stack(rows).mean((0, 1)).view(3, 2)
    torch.testing.assert_close(lab.heatmap(detector, image, 4).sampling, spread(by_hand, SIZE))


def test_the_attention_averages_the_cells_by_their_area_under_the_box():
    detector, image = small_detector("rtdetr"), picture(*SIZE)
    maps = lab.heatmap(detector, image, 5)  # its box is in two rows and one column
    _, seen = seen_by(detector, image)
    rows = seen["encoder.aifi.layers.0.self_attn.weights"][0].mean(0)
    x0, y0, x1, y1 = maps.box_xyxy.tolist()
    by_hand, area = torch.zeros(6, dtype=torch.float64), 0.0
    for row in range(3):
        for column in range(2):
            wide = max(0, min(x1, 32 * column + 32) - max(x0, 32 * column))
            high = max(0, min(y1, 32 * row + 32) - max(y0, 32 * row))
            by_hand += wide * high * rows[2 * row + column]
            area += wide * high
    torch.testing.assert_close(maps.attention, spread((by_hand / area).view(3, 2), SIZE))


class Held(torch.nn.Module):
    """A selection that always returns what it was given."""

    def __init__(self, selected):
        super().__init__()
        self.selected = selected

    def forward(self, tokens, *proposals):
        one = vars(self.selected).items()
        return Selection(**{k: v[:1].expand(len(tokens), *v.shape[1:]) for k, v in one})


def held(model, images):
    """Hold the selected queries, through which the model lets no gradient pass."""
    caught = []
    hook = model.selection.register_forward_hook(lambda m, a, out: caught.append(out))
    with torch.no_grad():
        model(images)
    hook.remove()
    model.selection = Held(caught[0])


@pytest.mark.parametrize("family", ["rtdetr", "rtdetrv2_discrete", "rtdetr_hgnet", "detr"])
def test_the_gradient_is_the_slope_of_the_score_when_a_cell_grows(family):
    """Central differences in float64, for every cell of every level, with the others fixed."""
    detector, image = small_detector(family), picture(*SIZE)
    model = detector.model
    if family != "detr":
        held(model, detector.preprocess(image)[None].double().expand(2, -1, -1, -1))
    maps = lab.heatmap(detector, image, 1)
    label = detector.classes.label_of(maps.name)
    _, base = seen_by(detector, image, keep="backbone.S[345]")

    def scores(level, scale):
        """Scores of a batch that has one picture per cell of the level, with that cell scaled."""
        count = base[level][0, 0].numel()
        factors = torch.ones(count, count, dtype=torch.float64).fill_diagonal_(scale)
        all_of = {n: m[:1].expand(count, -1, -1, -1) for n, m in base.items()}
        all_of[level] = all_of[level] * factors.view(count, 1, *base[level].shape[-2:])
        edit = {n: lambda _, put=m: put for n, m in all_of.items()}
        logits = seen_by(detector, image, batch=count, edit=edit)[0].logits[:, 1]
        return (logits.softmax(-1) if family == "detr" else logits.sigmoid())[:, label]

    by_hand = torch.zeros(SIZE, dtype=torch.float64)
    for level in base:
        slopes = (scores(level, 1 + 1e-5) - scores(level, 1 - 1e-5)).abs() / 2e-5
        by_hand += spread(slopes.view(base[level].shape[-2:]), SIZE)
    torch.testing.assert_close(maps.gradient, by_hand, rtol=1e-3, atol=1e-4 * by_hand.max())


def test_erasing_what_the_gradient_calls_important_changes_the_score_more(nano):
    """A quarter of the picture, in cells of S5: the most important one against the least."""
    gaps = []
    for index in range(5):
        image = draw(DEFAULT, VAL, index).image
        found = next(iter(nano(image)))
        maps = lab.heatmap(nano, image, found)
        cells = torch.nn.functional.adaptive_avg_pool2d(maps.gradient[None], 8).flatten()
        _, seen = seen_by(nano, image, keep=(*LEVELS, "selection.index"))

        def change(erased, seen=seen, image=image, found=found):
            keep = torch.ones(64)
            keep[erased] = 0
            edit = {"selection.index": lambda _: seen["selection.index"]}
            for name in LEVELS:
                times = seen[name].shape[-1] // 8
                mask = keep.view(8, 8).repeat_interleave(times, 0).repeat_interleave(times, 1)
                edit[name] = lambda _, erased=seen[name] * mask: erased
            after = seen_by(nano, image, edit=edit)[0].logits[0, found.query, found.label]
            return abs(after.sigmoid().item() - found.score)

        order = cells.argsort()
        gaps.append(change(order[-16:]) - change(order[:16]))
    gaps = np.array(gaps)
    assert gaps.mean() - 2 * gaps.std(ddof=1) / 5**0.5 > 0.3


def test_a_detection_that_moves_with_the_picture_moves_its_maps(nano):
    image = draw(DEFAULT, VAL, 1).image
    moved = np.roll(image, 32, axis=1)
    before, *_ = nano(image)
    x0, y0, x1, y1 = before.box_xyxy
    found = [d for d in nano(moved) if d.name == before.name]
    after = min(found, key=lambda d: abs(d.box_xyxy[0] - x0 - 32) + abs(d.box_xyxy[1] - y0))
    assert np.allclose(after.box_xyxy, (x0 + 32, y0, x1 + 32, y1), atol=3)
    one, two = lab.heatmap(nano, image, before), lab.heatmap(nano, moved, after)
    for name in ("sampling", "gradient"):
        first, second = getattr(one, name), getattr(two, name)
        alike = [
            np.corrcoef(first.roll(by, 1).flatten(), second.flatten())[0, 1] for by in (32, 0, -32)
        ]
        assert alike[0] > 0.6
        assert alike[0] > max(alike[1:]) + 0.3


def test_without_a_detection_it_is_the_best_and_batches_do_not_matter(nano):
    images = [draw(DEFAULT, VAL, 1).image[:233], draw(DEFAULT, VAL, 2).image[:, 40:]]
    found = nano(images)
    best = lab.heatmap(nano, images[1])
    same = lab.heatmap(nano.model, images[1], next(iter(found[1])))
    assert (best.query, best.name) == (found[1].queries[0].item(), found[1].names[0])
    assert best.score == pytest.approx(found[1].scores[0].item(), abs=1e-4)
    torch.testing.assert_close(best.gradient, same.gradient)
    torch.testing.assert_close(best.box_xyxy, found[1].boxes_xyxy[0], atol=0.05, rtol=0)
    deployed = lab.heatmap(lab.deploy(nano.model), images[1])
    torch.testing.assert_close(deployed.sampling, best.sampling, atol=1e-5, rtol=1e-2)


def test_it_refuses_what_it_cannot_answer(nano):
    images = [draw(DEFAULT, VAL, index).image for index in (0, 1)]
    with pytest.raises(ConfigError, match=r"does not find this .* in this picture.*alone"):
        lab.heatmap(nano, images[0], next(iter(nano(images[1]))))
    with pytest.raises(ConfigError, match="100 is not a query of the model; give 0 to 99"):
        lab.heatmap(nano, images[0], 100)
    with pytest.raises(RecordError, match=r"compiled.*record the plain model"):
        lab.heatmap(torch.compile(nano.model), images[0])
    with pytest.raises(ConfigError, match="Identity: has no metadata, num_classes"):
        lab.heatmap(torch.fx.symbolic_trace(torch.nn.Identity()), images[0])
    with pytest.raises(ConfigError, match=r"call model\.eval"):
        lab.heatmap(built("rtdetr").train(), images[0])
    with pytest.raises(ImageError, match=r"none\.png"):
        lab.heatmap(nano, "none.png")


def test_the_command_draws_the_query_that_was_asked_for(tmp_path, capsys):
    from PIL import Image

    from rtdetr_lab.cli import main

    path, out = tmp_path / "odd.png", tmp_path / "deep" / "maps.png"
    Image.fromarray(draw(DEFAULT, VAL, 1).image[:160, :233]).save(path)
    assert main(["heatmap", str(path), "--query", "7", "--out", str(out)]) == 0
    assert "(query 7)" in capsys.readouterr().out
    assert Image.open(out).size[0] == 1260
    assert main(["heatmap", str(path), "--query", "-1", "--out", str(out)]) == 1
    assert "-1 is not a query" in capsys.readouterr().err
