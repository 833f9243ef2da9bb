"""Fine-tuning: what stays, what begins anew, what is frozen, and that all of it is said."""

from dataclasses import replace

import pytest
import torch
from small import small, targets
from training_toy import Toy, ToyData

from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.strict import is_class_head
from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.model import detr_nano, detr_r50
from rtdetr_lab.errors import ConfigError, TrainingError
from rtdetr_lab.rtdetr import rtdetr_nano, rtdetr_r18, rtdetr_r34, rtdetr_r50, rtdetr_r101
from rtdetr_lab.rtdetrv2 import rtdetrv2_r50_m
from rtdetr_lab.structures import Batch
from rtdetr_lab.training import fine_tune, from_scratch, paper, prepare, train, v2
from rtdetr_lab.training.finetune import check_classes, with_queries
from rtdetr_lab.training.optim import parameter_groups
from rtdetr_lab.training.recipe import backbone_ratio
from rtdetr_lab.training.trainer import Trainer

NAMES = ("ant", "bee", "cat", "dog", "elk")


def pretrained(**changes):
    model = small(**changes).build()
    model.metadata = Metadata(NAMES, (1, 2, 3, 4, 5))
    return model


# --- heads ----------------------------------------------------------------------------------------


def test_the_same_classes_keep_their_heads():
    model = pretrained()
    ready = prepare(model, NAMES)
    assert ready.model is model
    assert ready.new_heads == ()
    assert "class heads kept" in str(ready)


def test_other_classes_get_new_heads_and_keep_the_rest():
    model = pretrained()
    before = model.state_dict()
    ready = prepare(model, ("red", "white"))
    after = ready.model.state_dict()
    anew = {head.name for head in ready.new_heads}
    assert anew == {name for name in before if is_class_head(name)}
    assert all(torch.equal(after[name], before[name]) for name in before.keys() - anew)
    assert after["decoder.class_heads.2.weight"].shape == (2, 16)
    assert "decoder.class_heads.2.weight (5, 16) → (2, 16)" in str(ready)
    assert "for red, white; the model had ant, bee, cat, dog, elk" in str(ready)


def test_a_class_that_the_model_knows_keeps_its_rows_in_its_new_place():
    """One class is new, two are gone, three are in another order."""
    model = pretrained()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    names = ("dog", "fox", "ant", "cat")
    ready = prepare(model, names)
    after = ready.model.state_dict()
    heads = [name for name in before if is_class_head(name)]
    for label, name in enumerate(names):
        for head in heads:
            same = name in NAMES and torch.equal(
                after[head][label], before[head][NAMES.index(name)]
            )
            assert same == (name != "fox"), (head, name)
    padding = "denoising.label_embedding.weight"
    assert padding in heads
    assert torch.equal(after[padding][len(names) :], before[padding][len(NAMES) :])
    assert ready.kept == ("dog", "ant", "cat")
    said = "class heads keep their rows for dog, ant, cat, and have new ones for fox; the model had"
    assert said in str(ready)


def test_reordered_classes_give_the_same_scores_in_another_order():
    model, images = pretrained().eval(), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        before = model(images).logits
        ready = prepare(model, NAMES[::-1])
        after = ready.model.eval()(images).logits
    torch.testing.assert_close(after, before.flip(-1), rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 0.1
    assert "class heads keep their rows for elk, dog, cat, bee, ant;" in str(ready)


def test_two_classes_of_one_name_cannot_say_which_row_is_theirs():
    model = pretrained()
    model.metadata = Metadata(("ant", "bee", "ant", "dog", "elk"), (1, 2, 3, 4, 5))
    head = "decoder.class_heads.0.weight"
    before = model.state_dict()[head].clone()
    ready = prepare(model, ("ant", "dog"))
    ant, dog = ready.model.state_dict()[head]
    assert ready.kept == ("dog",)
    assert torch.equal(dog, before[3])
    assert not any(torch.equal(ant, row) for row in before)


def test_a_detr_keeps_the_row_of_no_object_with_the_classes_it_knows():
    model = detr_nano(5).build()
    model.metadata = Metadata(NAMES, (1, 2, 3, 4, 5))
    before = model.class_head.weight.detach().clone()
    after = prepare(model, ("yak", "bee"), seed=7).model.class_head.weight
    assert torch.equal(after[1:], before[[1, 5]])
    assert not torch.equal(after[0], before[0])


def test_as_many_other_classes_are_still_other_classes():
    ready = prepare(pretrained(), ("v", "w", "x", "y", "z"))
    assert len(ready.new_heads) == 9
    assert all(head.old == head.new for head in ready.new_heads)


def test_a_detr_keeps_its_place_for_no_object():
    model = detr_nano(5).build()
    model.metadata = Metadata(NAMES, (1, 2, 3, 4, 5))
    ready = prepare(model, ("red", "white"))
    assert {head.name for head in ready.new_heads} == {"class_head.weight", "class_head.bias"}
    assert len(ready.model.class_head.bias) == 3


def test_new_heads_follow_from_the_seed_and_touch_no_other_random_numbers():
    heads = [
        prepare(pretrained(), ("red",), seed=s).model.proposal_head.class_head.weight
        for s in (0, 0, 1)
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    model, state = pretrained(), torch.get_rng_state()
    prepare(model, ("red",))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_with_other_classes_than_the_data_is_refused_before_it_is_trained():
    with pytest.raises(TrainingError, match=r"has 5 classes, the data has 1: thing; .*prepare"):
        train(pretrained(), ToyData(), progress=False)
    check_classes(pretrained(), NAMES)


# --- freezing -------------------------------------------------------------------------------------


def test_what_is_frozen_does_not_change_not_even_its_statistics(tmp_path):
    model = prepare(pretrained(), NAMES, freeze=("backbone", "encoder.aifi")).model
    trainer = Trainer(model, replace(from_scratch(40), warmup_steps=0), torch.device("cpu"))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for _ in range(2):
        trainer.learn(Batch(torch.rand(2, 3, 64, 64), targets(1, 2)))
    still = ("backbone.", "encoder.aifi.")
    after = model.state_dict()
    assert all(torch.equal(t, before[n]) for n, t in after.items() if n.startswith(still))
    moving = [n for n in after if n.endswith("running_mean") and not n.startswith(still)]
    assert moving
    assert not any(torch.equal(after[n], before[n]) for n in moving)


def test_the_optimizer_never_hears_of_what_is_frozen():
    ready = prepare(pretrained(), NAMES, freeze=("backbone",))
    groups = parameter_groups(ready.model, 1e-3, 1e-4, 0.0)
    assert not [n for g in groups for n in g["names"] if n.startswith("backbone.")]
    frozen = sum(p.numel() for p in ready.model.backbone.parameters())
    assert ready.num_frozen == frozen
    assert f"frozen: backbone ({frozen:,} parameters)" in str(ready)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("backbon", "did you mean backbone"), ("decoder.layers.9", "decoder.layers"), ("zz", "use b")],
)
def test_a_module_the_model_does_not_have_is_named_with_the_nearest(name, remedy):
    with pytest.raises(ConfigError, match=f"no module '{name}'.*{remedy}"):
        prepare(pretrained(), NAMES, freeze=(name,))


def test_freezing_everything_is_refused():
    parts = [name for name, _ in pretrained().named_children()]
    with pytest.raises(ConfigError, match="nothing would learn"):
        prepare(pretrained(), NAMES, freeze=parts)


def test_a_run_goes_on_only_with_the_same_parts_frozen(tmp_path):
    def run(freeze, **how):
        model = Toy().build()
        if freeze:
            model.backbone.requires_grad_(False)
        return train(model, ToyData(), tmp_path, from_scratch(40), progress=False, **how)

    run(True, stop_after=1)
    with pytest.raises(TrainingError, match=r"other parameters learn: now backbone\.\S+ learns"):
        run(False)
    assert run(True).finished


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "rate"),
    [
        (rtdetr_r18, 1e-4),
        (rtdetr_r34, 5e-5),
        (rtdetr_r50, 1e-5),
        (rtdetrv2_r50_m, 1e-5),
        (rtdetr_r101, 1e-6),
        (detr_r50, 1e-5),
    ],
)
def test_backbones_learn_as_rtdetrv2_prescribes(preset, rate):
    cfg = preset(3)
    for recipe in (fine_tune(cfg, 100_000), v2(cfg, 100_000)):
        assert recipe.lr == 1e-4
        assert recipe.backbone_lr == pytest.approx(rate)


def test_a_small_backbone_learns_as_fast_as_the_rest_and_a_foreign_one_slowly():
    nano = fine_tune(rtdetr_nano(3), 6000)
    assert nano.backbone_lr == nano.lr > 1e-4
    assert backbone_ratio(Toy()) == 0.1


def test_another_rate_takes_the_backbone_with_it():
    assert fine_tune(rtdetr_r50(3), 1000, lr=1e-3).backbone_lr == pytest.approx(1e-4)
    assert fine_tune(rtdetr_r50(3), 1000, backbone_lr=0.0).backbone_lr == 0
    assert v2(rtdetr_r50(3), 1000, lr=1e-3).backbone_lr == pytest.approx(1e-4)
    assert v2(rtdetr_r50(3), 1000, lr=1e-3, backbone_lr=0.5).backbone_lr == 0.5


@pytest.mark.parametrize(("pictures", "tenth"), [(16, 1), (6000, 37), (10**6, 2000)])
def test_warm_up_and_average_fit_the_length_of_a_run(pictures, tenth):
    recipe = fine_tune(rtdetr_r18(3), pictures)
    assert recipe.steps(recipe.warmup_steps) == recipe.steps(recipe.ema_warmup) == tenth
    assert recipe.decay == pytest.approx(min(1 - 1 / (pictures // 160 or 1), 0.9999))


def test_the_papers_recipes_bring_their_augmentation():
    assert paper(1000).augment.until == 1
    assert v2(rtdetr_r18(), 1000, size=320).augment.size == (320, 320)
    assert paper(1000, augment=None).augment is None


# --- more queries ---------------------------------------------------------------------------------


def test_queries_that_are_selected_may_become_more_and_nothing_begins_anew():
    model = small(num_classes=3).build().eval()
    model.metadata = Metadata(("a", "b", "c"), (1, 2, 3), (64, 64))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ready = prepare(model, ("a", "b", "c"), queries=17)
    assert (ready.model.num_queries, ready.model.cfg.selection.num_queries) == (17, 17)
    assert (ready.new_heads, ready.grown) == ((), ())
    assert ready.model.metadata.names == ("a", "b", "c")
    after = ready.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert ready.model(torch.rand(1, 3, 64, 64)).boxes.shape[1] == 17


@pytest.mark.parametrize("count", [9, 4])
def test_learned_queries_keep_those_there_are_and_say_which_are_new(count):
    cfg = replace_at(detr_nano(3), "decoder.num_queries", 6)
    model = cfg.build()
    known = model.state_dict()["decoder.query_positions"].clone()
    ready = prepare(model, ("x", "y"), queries=count)
    found = ready.model.state_dict()["decoder.query_positions"]
    both = min(count, 6)
    assert torch.equal(found[:both], known[:both])
    assert found.shape[0] == ready.model.num_queries == count
    width = known.shape[1]
    said = f"decoder.query_positions (6, {width}) → ({count}, {width})"
    assert f"queries resized, additional ones begin at random: {said}" in ready.lines()
    assert any("class_head" in head.name for head in ready.new_heads)


@pytest.mark.parametrize(("cfg", "said"), [(small(), "is 0; give at least 1"), (Toy(), "has no")])
def test_queries_that_cannot_be_are_refused_by_name(cfg, said):
    with pytest.raises(ConfigError, match=f"queries.*{said}"):
        with_queries(cfg, 0)
