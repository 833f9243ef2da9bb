"""A tap changes nothing until somebody looks, and a look never shows nothing in silence."""

import threading

import pytest
import torch
from torch import nn

from rtdetr_lab import taps
from rtdetr_lab.errors import RecordError
from rtdetr_lab.taps import inventory, record, tap, watched


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        if watched("weights"):
            tap("weights", self.linear.weight.softmax(-1))
        return tap("content", self.linear(x))


class Model(nn.Module):
    def __init__(self, fail=False):
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.fail = fail

    def forward(self, x):
        x = tap("in", x)
        for layer in self.layers:
            x = layer(x)
            if self.fail:
                raise ValueError("half way")
        return tap("out", x)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def x():
    return torch.randn(2, 3)


def test_an_idle_tap_is_the_identity(x):
    assert tap("anything", x) is x
    assert not watched("anything")


def test_names_are_the_path_of_the_module_and_the_name_of_the_tap(model, x):
    with record(model) as seen:
        out = model(x)
    assert list(seen) == [
        "in",
        "layers.0.weights", "layers.0.content",
        "layers.1.weights", "layers.1.content",
        "out",
    ]  # fmt: skip
    assert torch.equal(seen["out"], out)
    assert torch.equal(seen["layers.0.content"], model.layers[0](x))


def test_names_are_relative_to_the_recorded_model(model, x):
    with record(model.layers[1]) as seen:
        model(x)
    assert list(seen) == ["weights", "content"]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("layers.*.content", ["layers.0.content", "layers.1.content"]),
        (["in", "*.1.content"], ["in", "layers.1.content"]),
        ("layers.[1]*", ["layers.1.weights", "layers.1.content"]),
    ],
)
def test_patterns_choose_what_is_kept(model, x, keep, kept):
    with record(model, keep) as seen:
        model(x)
    assert list(seen) == kept


def test_only_what_is_kept_is_watched(model, x):
    with record(model, "out") as seen:
        model(x)
    assert list(seen) == ["out"]  # `weights` would have been computed had it been watched


def test_a_tap_hit_several_times_keeps_a_list_and_shows_the_last(model, x):
    with record(model, "out") as seen:
        first, second = model(x), model(2 * x)
    assert [t.tolist() for t in seen.all("out")] == [first.tolist(), second.tolist()]
    assert torch.equal(seen["out"], second)


def test_kept_tensors_are_detached_unless_the_graph_is_asked_for(model, x):
    with record(model, "out") as seen:
        model(x)
    assert not seen["out"].requires_grad
    with record(model, "out", grad=True) as seen:
        model(x)
    seen["out"].sum().backward()
    assert model.layers[0].linear.weight.grad is not None


def test_an_edit_changes_what_the_model_goes_on_with(model, x):
    with record(model, "layers.0.*", {"layers.0.content": torch.zeros_like}) as seen:
        out = model(x)
    assert torch.equal(out, model.layers[1](torch.zeros_like(x)))
    assert not seen["layers.0.content"].any(), "a record keeps what came out of the edit"


def test_with_edits_alone_nothing_is_kept(model, x):
    with record(model, edit={"in": lambda t: t + 1}) as seen:
        model(x)
    assert len(seen) == 0


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t[:1], r"\(2, 3\).*\(1, 3\)"),
        (lambda t: t.double(), "float32.*float64"),
        (lambda t: None, "NoneType"),
    ],
)
def test_an_edit_must_return_what_it_was_given_a_kind_of(model, x, edit, says):
    with pytest.raises(RecordError, match=says), record(model, edit={"in": edit}):
        model(x)


def test_gathered_values_come_by_own_name_in_order_and_only_on_their_thread(model, x):
    from threading import Thread

    from rtdetr_lab.gathering import gathered

    with gathered(["out"]) as seen:
        other = Thread(target=model, args=(x,))
        other.start(), other.join()
        assert seen == []
        with gathered(["out"]) as inner:
            model(x)
        assert seen == [], "the inner one gathers alone"
        first = model(x)
    assert [name for name, _ in seen] == [name for name, _ in inner] != []
    assert {name.partition(".")[0] for name, _ in seen} == {"out"}
    model(x)
    assert len(seen) == len(inner)
    assert seen[-1][1].requires_grad == first.requires_grad, "values stay in their graph"


def test_nested_records_see_the_same_and_edits_add_up(model, x):
    plain = model(x)
    with record(model, "out") as outer:
        with record(model, "out", {"out": lambda t: t + 1}) as inner:
            model(x)
        model(x)
    assert torch.equal(inner["out"], plain + 1)
    assert [torch.equal(t, plain + n) for n, t in zip((1, 0), outer.all("out"), strict=True)]
    assert torch.equal(outer.all("out")[0], plain + 1)


def test_every_record_hears_of_a_watched_tap(model, x):
    with record(model, "layers.0.weights") as outer, record(model, "layers.0.weights") as inner:
        model(x)
    assert torch.equal(outer["layers.0.weights"], inner["layers.0.weights"])


def test_a_pattern_that_matched_nothing_names_the_nearest_tap(model, x):
    with (
        pytest.raises(RecordError, match=r"layers\.0\.content"),
        record(model, ["out", "layers.0.contents"]),
    ):
        model(x)
    with pytest.raises(RecordError, match="weights"), record(model, edit={"*.weihgts": torch.exp}):
        model(x)


def test_a_model_that_never_ran_is_an_error(model, x):
    with pytest.raises(RecordError, match="has not run"), record(model):
        model.layers[0](x)


def test_an_exception_from_the_block_passes_unchanged_and_everything_is_undone(x):
    model = Model(fail=True)
    with pytest.raises(ValueError, match="half way"), record(model, "nothing at all"):
        model(x)
    assert taps._open_records == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model.fail = False
    with record(model) as seen:
        model(x)
    assert "out" in seen


def test_a_failed_run_leaves_no_path_behind(x):
    model = Model(fail=True)
    with record(model, "*") as seen:
        with pytest.raises(ValueError, match="half way"):
            model(x)
        model.fail = False
        model(x)
    assert len(seen.all("layers.1.content")) == 1
    assert "layers.0.in" not in seen


def test_another_thread_is_not_recorded(model, x):
    with record(model, "out") as seen:
        here = model(x)
        thread = threading.Thread(target=model, args=(x + 1,))
        thread.start()
        thread.join()
    assert [t.tolist() for t in seen.all("out")] == [here.tolist()]


def test_asking_for_a_name_that_was_not_kept_names_the_nearest(model, x):
    with record(model) as seen:
        model(x)
    with pytest.raises(RecordError, match=r"layers\.0\.content"):
        seen["layer.0.content"]
    assert seen.get("nothing") is None
    assert "nothing" not in seen


def test_the_inventory_lists_every_tap_with_its_shape(model, x):
    assert inventory(model, x) == [
        ("in", (2, 3)),
        ("layers.0.weights", (3, 3)), ("layers.0.content", (2, 3)),
        ("layers.1.weights", (3, 3)), ("layers.1.content", (2, 3)),
        ("out", (2, 3)),
    ]  # fmt: skip
