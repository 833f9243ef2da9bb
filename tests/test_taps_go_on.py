"""The model goes on with what an edit returns: every tap of every family, in both modes.

`READERS` says who reads a tap next. No tap is without a reader: the last ones are read by the
prediction.
"""

import re
from dataclasses import fields, is_dataclass

import pytest
import torch
from families import FAMILIES, batch, built, is_detr

from rtdetr_lab.errors import RecordError
from rtdetr_lab.taps import record

LAYER = r"(\d)"

RTDETR = {
    "backbone.S2": ["backbone.S3", "mask_head.pixels"],
    "mask_head.embed": ["mask_head.logits"],
    "mask_head.pixels": ["mask_head.logits"],
    "mask_head.logits": ["prediction.masks"],
    "backbone.S3": ["backbone.S4", "encoder.ccff.top_down.0"],
    "backbone.S4": ["backbone.S5", "encoder.ccff.top_down.1"],
    "backbone.S5": ["encoder.aifi.layers.0.self_attn.weights", "encoder.aifi.F5"],
    f"encoder.aifi.layers.{LAYER}.self_attn.weights": ["encoder.aifi.F5"],
    "encoder.aifi.F5": ["encoder.ccff.top_down.2"],
    f"encoder.ccff.top_down.{LAYER}": [
        "encoder.ccff.top_down.{before}",
        "encoder.ccff.bottom_up.{i}",
    ],
    f"encoder.ccff.bottom_up.{LAYER}": ["encoder.ccff.bottom_up.{after}", "proposal_head.logits"],
    "proposal_head.logits": ["selection.score", "prediction.proposals.logits"],
    "proposal_head.box_logits": ["decoder.reference.0", "prediction.proposals.boxes"],
    "selection.score": ["selection.index"],
    "selection.index": ["decoder.reference.0", "prediction.proposals.index"],
    f"decoder.reference.{LAYER}": [
        "decoder.layers.{i}.self_attn.weights",
        "decoder.layers.{i}.cross_attn.locations",
        "decoder.boxes.{i}",
        "decoder.reference.{after}",
    ],
    f"decoder.layers.{LAYER}.self_attn.weights": ["decoder.layers.{i}.cross_attn.weights"],
    f"decoder.layers.{LAYER}.cross_attn.weights": ["decoder.content.{i}"],
    f"decoder.layers.{LAYER}.cross_attn.locations": ["decoder.content.{i}"],
    f"decoder.layers.{LAYER}.gate.weights": ["decoder.content.{i}"],
    f"decoder.corner_logits.{LAYER}": [
        "decoder.boxes.{i}",
        "decoder.logits.{i}",
        "decoder.corner_logits.{after}",
    ],
    f"decoder.content.{LAYER}": [
        "decoder.boxes.{i}",
        "decoder.logits.{i}",
        "decoder.layers.{after}.self_attn.weights",
    ],
    f"decoder.boxes.{LAYER}": ["decoder.reference.{after}", "prediction.layers.{i}.boxes"],
    f"decoder.logits.{LAYER}": ["prediction.layers.{i}.logits"],
}  # fmt: skip

DETR = {
    "backbone.S2": ["backbone.S3", "prediction.masks"],
    "backbone.S3": ["backbone.S4", "prediction.masks"],
    "backbone.S4": ["backbone.S5", "prediction.masks"],
    "backbone.S5": ["encoder.layers.0.self_attn.weights", "prediction.masks"],
    f"encoder.layers.{LAYER}.self_attn.weights": ["encoder.content.{i}"],
    f"encoder.content.{LAYER}": [
        "encoder.layers.{after}.self_attn.weights",
        "decoder.layers.0.cross_attn.weights",
        "decoder.layers.1.cross_attn.weights",
        "mask_attention.weights",
    ],
    f"decoder.layers.{LAYER}.self_attn.weights": ["decoder.layers.{i}.cross_attn.weights"],
    f"decoder.layers.{LAYER}.cross_attn.weights": ["decoder.content.{i}"],
    f"decoder.content.{LAYER}": [
        "decoder.layers.{after}.self_attn.weights",
        "logits.{i}",
        "boxes.{i}",
        "mask_attention.weights",
    ],
    f"logits.{LAYER}": ["prediction.layers.{i}.logits"],
    f"boxes.{LAYER}": ["prediction.layers.{i}.boxes"],
    "mask_attention.weights": ["prediction.masks"],
}


def readers(tap, table, known):
    """Who reads `tap` next, among the names that this model knows."""
    patterns = [p for p in table if re.fullmatch(p.replace(".", r"\."), tap)]
    assert len(patterns) == 1, f"give {tap} one row in READERS: who reads it next?"
    i = int(re.search(r"\d", tap)[0]) if LAYER in patterns[0] else 0
    named = [t.format(i=i, before=i - 1, after=i + 1) for t in table[patterns[0]]]
    return [n for n in named if n in known]


def flat(record, path="prediction"):
    """Every tensor of a record of records, by its path."""
    if isinstance(record, torch.Tensor):
        return {path: record}
    if isinstance(record, tuple):
        return {k: v for i, part in enumerate(record) for k, v in flat(part, f"{path}.{i}").items()}
    if not is_dataclass(record):
        return {}
    parts = [flat(getattr(record, f.name), f"{path}.{f.name}") for f in fields(record)]
    return {k: v for part in parts for k, v in part.items()}


def run(model, given, edit=None, grad=False):
    """All taps and all tensors of the prediction, in order. Draws the same noise every time."""
    torch.manual_seed(1)
    with record(model, keep="*", edit=edit, grad=grad) as seen:
        prediction = model(*given)
    return {**seen, **flat(prediction)}


def another(value):
    """Something else of the same kind: random numbers in [0, 1], or the indices the other way."""
    if not value.is_floating_point():
        return value.flip(1)
    return torch.rand(value.shape, generator=torch.Generator().manual_seed(2)).to(value)


MODES = [(name, "eval") for name in FAMILIES] + [("rtdetr", "train"), ("segmentation", "train")]


@pytest.mark.parametrize(("name", "mode"), MODES)
@torch.no_grad()
def test_an_edited_tap_is_what_everything_after_it_reads(name, mode):
    model, given = built(name).train(mode == "train"), batch(name)
    plain = run(model, given)
    taps = [tap for tap in plain if not tap.startswith("prediction")]
    for place, tap in enumerate(taps):
        edited = run(model, given, {tap: another})
        assert not torch.equal(plain[tap], edited[tap])
        for earlier in taps[:place]:
            assert torch.equal(plain[earlier], edited[earlier]), f"{tap} reached back to {earlier}"
        expected = readers(tap, DETR if is_detr(name) else RTDETR, plain)
        assert expected, f"nobody reads {tap}"
        for reader in expected:
            assert not torch.equal(plain[reader], edited[reader]), f"{reader} overlooks {tap}"


@torch.no_grad()
def test_a_tap_edited_into_itself_changes_nothing():
    for mode in (True, False):
        model, given = built("rtdetr").train(mode), batch("rtdetr")
        plain, cloned = run(model, given), run(model, given, {"*": torch.clone})
        assert plain.keys() == cloned.keys()
        assert all(torch.equal(plain[k], cloned[k]) for k in plain)


@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()
def test_a_box_set_by_hand_is_judged_and_is_where_the_next_layer_starts(mode):
    model, given = built("rtdetr").train(mode == "train"), batch("rtdetr")
    middle = run(model, given, {"decoder.boxes.0": lambda b: torch.full_like(b, 0.5)})
    assert (middle["decoder.reference.1"] == 0.5).all()
    assert (middle["prediction.layers.0.boxes"] == 0.5).all()
    start = run(model, given, {"decoder.reference.0": lambda b: torch.full_like(b, 0.5)})
    step = model.decoder.box_heads[0](start["decoder.content.0"])
    assert torch.equal(start["decoder.boxes.0"], step.sigmoid()), "0.5 is 0 in logit space"


# --- an edit that asks for what came before -----------------------------------------------------


def towards_the_centre(locations, reference):
    """Points half as far from the centre of their reference box."""
    centre = reference[:, :, None, None, :2]
    return centre + (locations - centre) / 2


@torch.no_grad()
def test_an_edit_reads_the_taps_before_it_from_the_record_of_the_same_block():
    model, given = built("rtdetr"), batch("rtdetr")
    plain = run(model, given)
    edit = {
        f"decoder.layers.{i}.cross_attn.locations": lambda points, i=i: towards_the_centre(
            points, seen[f"decoder.reference.{i}"]
        )
        for i in range(3)
    }
    with record(model, "*", edit) as seen:
        model(*given)
    first = "decoder.layers.0.cross_attn.locations"
    assert torch.equal(seen[first], towards_the_centre(plain[first], plain["decoder.reference.0"]))
    assert not torch.equal(seen["decoder.reference.1"], plain["decoder.reference.1"])


@torch.no_grad()
def test_an_edit_that_asks_for_what_is_not_kept_is_told_to_keep_it():
    model, given = built("rtdetr"), batch("rtdetr")
    edit = {"decoder.layers.0.*.locations": lambda p: p + seen["decoder.reference.0"].mean()}
    remedy = "keep='decoder.reference.0'"
    with pytest.raises(RecordError, match=remedy), record(model, edit=edit) as seen:
        model(*given)


# --- gradients ----------------------------------------------------------------------------------


def answer(seen, outputs):
    """A number that depends on every output, each element with a weight of its own."""
    parts = [seen[name] for name in outputs]
    return sum((p * torch.linspace(-1, 2, p.numel()).to(p).view_as(p)).sum() for p in parts)


def slope(model, given, tap, direction, outputs, step=1e-8):
    """Central difference of `answer` as the tap moves in a direction."""
    values = []
    for sign in (step, -step):
        with torch.no_grad():
            moved = run(model, given, {tap: lambda v, sign=sign: v + sign * direction})
        values.append(answer(moved, outputs).item())
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize(
    ("name", "queries", "taps", "judged", "count"),
    [
        # Selection lets no gradient through: before it are the proposals, here of every token.
        ("rtdetr", 126, r"backbone|encoder|proposal_head", r"\.proposals\.(logits|boxes)", 13),
        ("rtdetr", 10, r"decoder", r"\.layers", 20),
        ("segmentation", 6, r".*", r"\.layers|\.masks", 19),
    ],
)
def test_the_gradient_by_a_kept_tensor_is_its_finite_difference(name, queries, taps, judged, count):
    model, given = built(name), batch(name)
    if not is_detr(name):
        model.num_queries = queries
    plain = run(model, given, grad=True)
    outputs = [n for n in plain if re.match(rf"prediction({judged})", n)]
    taps = [n for n in plain if re.match(taps, n) and n not in outputs and plain[n].requires_grad]
    taps = [n for n in taps if not n.startswith("prediction")]
    assert len(taps) == count
    for tap in taps:
        (gradient,) = torch.autograd.grad(answer(plain, outputs), plain[tap], retain_graph=True)
        direction = torch.randn_like(gradient)
        numeric = slope(model, given, tap, direction, outputs)
        analytic = (gradient * direction).sum().item()
        assert abs(analytic) > 1e-3, f"nothing reaches {tap}"
        assert analytic == pytest.approx(numeric, rel=1e-4, abs=1e-4), tap


def test_an_edit_can_make_a_leaf_of_a_tensor_that_has_no_graph():
    model, given = built("rtdetr"), batch("rtdetr")
    leaf = {"decoder.reference.0": lambda box: box.requires_grad_()}
    with record(model, "decoder.reference.0", leaf, grad=True) as seen:
        prediction = model(*given)
    gradient = torch.autograd.grad(prediction.boxes.sum(), seen["decoder.reference.0"])[0]
    assert gradient.abs().sum() > 0


def test_a_record_with_a_graph_leaves_the_gradients_of_training_as_they_are():
    found = []
    for keep in ((), ("decoder.reference.*", "decoder.boxes.*", "backbone.*", "encoder.ccff.*")):
        torch.manual_seed(0)
        model, (images, wanted) = built("rtdetr").train(), batch("rtdetr")
        with record(model, ("decoder.logits.*", *keep), grad=True):
            terms = model.cfg.criterion.build()(model(images, wanted), wanted)
        sum(terms.values()).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
