"""The doctor names each planted fault, with its numbers, and is silent where there is none."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from small import small
from training_toy import Toy, ToyData

from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.commands.sets import First
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.batch import Sample, Truth, collate
from rtdetr_lab.data.shapes import ShapesConfig, ShapesDataset
from rtdetr_lab.detr.model import detr_nano
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.query_selection import TopScore
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.training import Constant, TrainConfig, from_scratch, train
from rtdetr_lab.training.doctor import (
    Doctor,
    case_of,
    diagnose,
    examine_average,
    examine_learning,
    examine_loss,
    examine_samples,
)
from rtdetr_lab.training.recipe import to_overfit
from rtdetr_lab.training.symptoms import SIDE, Case, examine_answers
from rtdetr_lab.training.trainer import Trainer

NAMES = ("ant", "bee", "cow", "dog")
CONFIG = TrainConfig(num_pictures=40, batch_size=2, warmup_steps=0)


def sample(number, count, sides=(0.2, 0.3)):
    """A picture of 64×48 pixels with objects of different places, sizes and classes."""
    generator = torch.Generator().manual_seed(number)
    centres = 0.3 + 0.4 * torch.rand(count, 2, generator=generator)
    low, high = sides
    size = low + (high - low) * torch.rand(count, 2, generator=generator)
    size[:, 1] *= 0.5  # no squares: width and height must be tellable apart
    boxes = torch.cat([centres, size], 1)
    labels = (torch.arange(count) + number) % len(NAMES)
    pixels = xyxy_from_cxcywh(boxes) * torch.tensor([48.0, 64, 48, 64])
    areas = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])
    crowd = torch.zeros(count, dtype=torch.bool)
    truth = Truth(number, (64, 48), labels, pixels, areas, crowd)
    return Sample(torch.zeros(3, 64, 48, dtype=torch.uint8), labels, boxes, truth)


SAMPLES = [sample(n, 4) for n in range(1, 5)]


def answered(how=lambda boxes: boxes, score=0.9, label=lambda labels: labels) -> Case:
    """Every object is answered; `how` maps its (cx, cy, w, h) to what the model says instead."""
    found = []
    for one in SAMPLES:
        said = xyxy_from_cxcywh(how(one.boxes)) * SIDE
        scores = torch.linspace(score, score - 0.05, len(said))
        found.append(Found(said, scores, label(one.labels), torch.arange(len(said))))
    return Case.of([one.truth for one in SAMPLES], found, NAMES)


def faults(findings) -> list[str]:
    return [finding.fault for finding in findings]


# --- answers --------------------------------------------------------------------------------------


def test_right_answers_have_no_symptoms():
    case = answered()
    assert case.metrics().AP == pytest.approx(1)
    assert examine_answers(case) == []


@pytest.mark.parametrize("shift", [1, 3])
def test_shifted_class_ids_are_named_with_what_they_cost(shift):
    (found,) = faults(examine_answers(answered(label=lambda labels: (labels + shift) % 4)))
    assert f"labels are shifted by {shift}: ant is called {NAMES[shift]}" in found
    assert "AP50 goes 0.00 → 1.00" in found


def test_two_exchanged_classes_are_named_and_the_others_are_not():
    exchanged = torch.tensor([1, 0, 2, 3])
    (found,) = faults(examine_answers(answered(label=lambda labels: exchanged[labels])))
    assert "bee is called ant" in found
    assert "ant is called bee" in found
    assert "cow" not in found


FORMATS = [
    (lambda b: b[:, [0, 1, 3, 2]], "height before width"),
    (lambda b: b[:, [1, 0, 3, 2]], "y before x"),
    (xyxy_from_cxcywh, "corners (x1, y1, x2, y2)"),
    (lambda b: torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, 2:]], 1), "corner and size"),
]


@pytest.mark.parametrize(("how", "named"), FORMATS)
def test_boxes_in_another_format_are_named(how, named):
    (found,) = faults(examine_answers(answered(how)))
    assert found.startswith("boxes were learned as ")
    assert named in found
    assert found.endswith("→ 1.00")


def test_right_boxes_that_nobody_trusts_are_named():
    (found,) = faults(examine_answers(answered(score=0.1)))
    assert found.startswith("16 of 16 objects have the right box and label, but a median score of ")
    assert found.endswith(" 0.07")


def test_answers_that_are_merely_bad_have_no_symptom():
    assert examine_answers(answered(lambda b: b * torch.tensor([0.3, 0.3, 1.0, 1.0]))) == []


# --- samples --------------------------------------------------------------------------------------


def test_good_samples_pass():
    assert examine_samples(SAMPLES, 10) == []


def test_boxes_too_small_to_be_seen_are_counted():
    tiny = [sample(1, 4), sample(2, 4, sides=(0.02, 0.03))]
    (found,) = faults(examine_samples(tiny, 10))
    assert found.startswith("4 of 8 boxes are narrower than 2 px at this size, the smallest 0.")


def test_a_width_is_a_part_of_the_width():
    narrow = sample(1, 1)
    narrow.boxes[0, 2] = 0.03
    (found,) = faults(examine_samples([narrow], 10))
    assert found.endswith("the smallest 1.44 px")


def test_boxes_without_a_side_are_counted():
    flat = sample(1, 2)
    flat.boxes[0, 2] = 0
    (found,) = faults(examine_samples([flat], 10))
    assert found == "1 of 2 boxes have no width or no height"


def test_more_objects_than_queries_are_named():
    (found,) = faults(examine_samples([sample(1, 13), sample(2, 3)], 10))
    assert found == "1 pictures hold up to 13 objects, the model has 10 queries"


def test_pictures_without_objects_are_named():
    (found,) = faults(examine_samples([sample(1, 0)], 10))
    assert found == "1 pictures contain no object: AP is undefined"


# --- learning -------------------------------------------------------------------------------------


def toy_after_a_step(config=CONFIG, change=lambda model: None):
    torch.manual_seed(0)
    model = Toy().build()
    change(model)
    trainer = Trainer(model, config, torch.device("cpu"))
    trainer.parameters[0].sum().backward()
    for parameter in trainer.parameters:
        parameter.grad = torch.ones_like(parameter)
    return trainer


def test_what_learns_passes():
    assert examine_learning(toy_after_a_step()) == []


def test_frozen_parameters_are_named():
    trainer = toy_after_a_step(change=lambda model: model.backbone.requires_grad_(False))
    (found,) = faults(examine_learning(trainer))
    assert found.startswith("4 of 6 parameters are frozen (backbone.0.weight, backbone.0.bias, ")


@pytest.mark.parametrize("gradient", [None, 0])
def test_parameters_without_a_gradient_are_named(gradient):
    trainer = toy_after_a_step()
    weight = trainer.model.head.weight
    weight.grad = None if gradient is None else torch.zeros_like(weight)
    assert faults(examine_learning(trainer)) == ["1 parameters get no gradient (head.weight)"]


def test_what_a_healthy_detr_computes_from_zero_is_no_fault():
    torch.manual_seed(0)
    model = detr_nano(10).build()
    trainer = Trainer(model, CONFIG, torch.device("cpu"))
    data = ShapesDataset(ShapesConfig(size=128, max_side=64.0), 0, 2)
    batch = collate([data[0], data[1]])
    prediction = model(batch.images, batch.targets)
    sum(model.cfg.criterion.build()(prediction, batch.targets).values()).backward()
    for name in ("self_attn.v_proj", "self_attn.q_proj", "norm1"):
        assert not model.get_parameter(f"decoder.layers.0.{name}.weight").grad.any()
    assert not [f for f in faults(examine_learning(trainer)) if "gradient" in f]
    model.class_head.weight.grad = None
    (found,) = [f for f in faults(examine_learning(trainer)) if "gradient" in f]
    assert found == "1 parameters get no gradient (class_head.weight)"


def test_a_rate_of_zero_is_named():
    (found,) = faults(examine_learning(toy_after_a_step(replace(CONFIG, backbone_lr=0.0))))
    assert found.startswith("the learning rate of 4 parameters is 0 (backbone.0.weight")


def test_a_run_that_is_all_warm_up_is_named():
    (found,) = faults(examine_learning(toy_after_a_step(replace(CONFIG, warmup_steps=50))))
    assert found == "the warm-up takes 50 of 20 steps"


def test_a_loss_that_stays_is_named_and_one_that_falls_is_not():
    def record(*losses):
        return [{"step": i, "loss": loss} for i, loss in enumerate(losses, 1)]

    (found,) = faults(examine_loss(record(30, 29.0, 28.5)))
    assert found == "the loss does not fall: 30 at step 1, 28.5 at step 3"
    assert examine_loss(record(30, 12, 4)) == []


def test_an_average_that_lags_is_named():
    good, bad = answered().metrics(), answered(lambda b: b / 2).metrics()
    assert "the weights reach AP 1.00, their average only 0.00" in str(examine_average(good, bad))
    assert examine_average(good, good) is None


# --- the whole ------------------------------------------------------------------------------------


def test_a_model_that_has_not_learned_is_diagnosed_causes_first():
    torch.manual_seed(0)
    model = small(num_classes=4).build()
    model.backbone.requires_grad_(False)
    trainer = Trainer(model, CONFIG, torch.device("cpu"))
    history = [{"step": 1, "loss": 30.0}, {"step": 9, "loss": 29.0}]
    crowded = [sample(1, 12, sides=(0.3, 0.4)), sample(2, 1, sides=(0.3, 0.4))]
    found = faults(diagnose(trainer, crowded, NAMES, history))
    order = ["pictures hold up to 12 objects", "are frozen", "the loss does not fall"]
    assert [next(o for o in order if o in fault) for fault in found[:3]] == order
    assert trainer.model.training
    assert not trainer.ema.model.training


def test_a_model_without_known_faults_is_sent_back_to_learn():
    torch.manual_seed(0)
    trainer = Trainer(small(num_classes=4).build(), CONFIG, torch.device("cpu"))
    (found,) = diagnose(trainer, SAMPLES[:1], NAMES, [])
    assert found.fault.startswith("none of the known faults; AP 0.0")
    assert len(case_of(trainer.model, SAMPLES[:1], NAMES, trainer.device).found) == 1


def test_the_doctor_ends_a_run_that_is_healthy_and_looks_no_further():
    trainer = toy_after_a_step()
    doctor = Doctor([ToyData()[1]], ["thing"])
    doctor.recorded(trainer, {"step": 1, "loss": 3.0})
    doctor.recorded(trainer, {"step": 1, "AP": 0.9})
    assert doctor.reason == ""
    doctor.recorded(trainer, {"step": 2, "AP": 0.995})
    assert doctor.reason == "AP 0.995: the batch is overfitted"
    doctor.ends(trainer)
    assert doctor.findings == []


def test_overfitting_changes_nothing_about_the_pictures():
    recipe = to_overfit(TrainConfig(num_pictures=400, batch_size=2, schedule=Constant()))
    assert (recipe.weight_decay, recipe.augment, recipe.steps(recipe.warmup_steps)) == (0, None, 10)
    assert recipe.decay == 0.95


@pytest.mark.full
def test_a_healthy_detector_overfits_two_pictures_and_corners_are_caught():
    """Some minutes: the real thing, once as it should be and once with boxes in another format."""

    class Corners(First):
        def __getitem__(self, index):
            one = super().__getitem__(index)
            corners = xyxy_from_cxcywh(one.boxes).clamp(1e-3, 1)
            return replace(one, boxes=corners)

    world = ShapesConfig(size=64, max_side=30.0, max_objects=2, crowding=0.0, distractors=0)
    right = First(ShapesDataset(world), 2)
    cfg = replace_at(rtdetr_nano(len(right.names)), "selection", TopScore(num_queries=20))
    cfg = replace_at(replace_at(cfg, "denoising", None), "decoder.num_layers", 2)
    verdicts = []
    for data in (right, Corners(right.dataset, 2)):
        doctor = Doctor([right[i] for i in range(2)], right.names)
        made = to_overfit(from_scratch(2 * 400, batch_size=2))
        judged = partial(evaluate, dataset=right)
        run = train(cfg, data, None, made, judged, progress=False, callbacks=[doctor])
        verdicts.append((doctor.healthy, run.step, " ".join(faults(doctor.findings))))
    assert verdicts[0][0], verdicts
    assert not verdicts[1][0]
    assert "boxes were learned as corners" in verdicts[1][2]
