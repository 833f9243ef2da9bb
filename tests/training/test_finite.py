"""What is not finite is located: the step, its pictures, and who said so first."""

import math
from dataclasses import replace

import pytest
import torch
from small import small, targets
from torch import nn
from training_toy import Toy, ToyData

from rtdetr_lab.commands.sets import world
from rtdetr_lab.data.shapes import ShapesDataset
from rtdetr_lab.errors import ImageError, TrainingError
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.images.postprocess import NotFinite
from rtdetr_lab.structures import Batch
from rtdetr_lab.training import TrainConfig, train
from rtdetr_lab.training.finite import floats, watch
from rtdetr_lab.training.trainer import Trainer

CONFIG = TrainConfig(num_pictures=12, batch_size=4, warmup_steps=0, clip_norm=1.0)
CPU = torch.device("cpu")
NOT_FINITE = "the model's output contains NaN or infinity"


class Poisoned(nn.Module):
    """Lets values and gradients through, and one of them not."""

    def __init__(self, forward=1.0, backward=1.0, from_call=0):
        super().__init__()
        self.factors, self.left = (forward, backward), from_call

    def forward(self, x):
        self.left -= 1
        forward, backward = self.factors if self.left < 0 else (1.0, 1.0)
        x.register_hook(lambda gradient: gradient * backward)
        return x * forward


def detector(config=CONFIG):
    torch.manual_seed(0)
    return Trainer(small().build(), config, CPU)


def batch(*counts):
    torch.manual_seed(1)
    named = tuple(f"{letter}.png" for letter in "abcdefgh"[: len(counts)])
    return Batch(torch.rand(len(counts), 3, 64, 64), replace(targets(*counts), pictures=named))


def fault(learner, batch) -> str:
    with pytest.raises(TrainingError) as caught:
        learner.learn(batch)
    return f"{caught.value.where}: {caught.value.what}"


def test_a_weight_is_named_with_the_step_and_its_pictures():
    learner = detector()
    learner.learn(batch(2, 1))
    learner.model.proposal_head.norm.weight.data[3] = math.nan
    found = fault(learner, batch(2, 1))
    assert found == "step 2 (a.png, b.png): the weight proposal_head.norm.weight is not finite"


def test_a_picture_is_named_by_its_file():
    spoilt = batch(1, 2, 0)
    spoilt.images[1, 0, 5, 5] = math.nan
    assert "the pixels of b.png are not finite" in fault(detector(), spoilt)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_innermost_module_whose_output_is_not_finite_is_named(value):
    learner = detector()
    first = learner.model.decoder.layers[1]
    first.ffn = nn.Sequential(first.ffn, Poisoned(forward=value))
    found = fault(learner, batch(2, 1))
    assert "the output of decoder.layers.1.ffn.1 (Poisoned) is not finite" in found


def test_only_the_pictures_it_happened_to_are_named():
    learner = detector()
    learner.model.proposal_head.class_head.register_forward_hook(
        lambda module, args, output: output.index_fill(0, torch.tensor([2]), math.nan)
    )
    found = fault(learner, batch(2, 1, 1))
    assert found.endswith("is not finite for c.png")


def test_a_gradient_is_followed_to_where_it_breaks():
    learner = detector()
    learner.model.to_memory[1] = nn.Sequential(learner.model.to_memory[1], Poisoned(1, math.nan))
    found = fault(learner, batch(2, 1))
    assert "the loss is finite, but the gradient that comes back to the output of" in found
    assert "to_memory.1.0" in found


def test_a_loss_that_is_not_finite_although_the_answer_is():
    learner = detector()
    exact = learner.criterion
    learner.criterion = lambda *args: {**exact(*args), "l1": torch.tensor(math.nan)}
    found = fault(learner, batch(2, 1))
    assert found.endswith("every module's output is finite, but the loss l1 is nan")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_step_is_made_again_with_its_own_random_numbers(monkeypatch, accumulate):
    """Dropout decides whether the toy overflows; another draw would not find it."""

    class Unlucky(nn.Module):
        def forward(self, x):
            return x / 0 if torch.rand(()) < 0.02 else x

    config = replace(CONFIG, num_pictures=4000, accumulate=accumulate)

    def run():
        torch.manual_seed(3)
        model = Toy().build()
        model.dropout = Unlucky()
        train(model, ToyData(), config=config, progress=False)

    with pytest.raises(TrainingError, match=r"picture 2.*: the output of dropout \(Unlucky\)"):
        run()
    monkeypatch.setattr("rtdetr_lab.training.state.set_rng_state", lambda *_: None)
    with pytest.raises(TrainingError) as caught:
        run()
    assert "Unlucky" not in caught.value.what


def test_in_parts_the_part_is_found_in_which_it_happened():
    model = Toy().build()
    model.dropout = Poisoned(math.inf, from_call=3)
    with pytest.raises(TrainingError, match=r"step 2 .* the output of dropout"):
        train(model, ToyData(), config=replace(CONFIG, accumulate=2), progress=False)


def test_steps_that_are_too_long_end_in_a_located_error():
    with pytest.raises(TrainingError, match=r"step \d+ \(picture .*\): .*(loss_count|head|back)"):
        train(Toy(), ToyData(), config=replace(CONFIG, lr=1e30, backbone_lr=1e30), progress=False)


def test_a_healthy_model_raises_no_alarm():
    learner = detector()
    healthy = batch(2, 1)
    with watch(learner.model, healthy) as found:
        prediction = learner.model(healthy.images, healthy.targets)
        sum(learner.criterion(prediction, healthy.targets).values()).backward()
    assert found == ([], [])
    proposals = learner.model.proposal_head(torch.rand(1, 3600, 16), [(60, 60)])
    assert not proposals.box_logits.isfinite().all(), "anchors at the border have infinite logits"
    with watch(learner.model.proposal_head, healthy) as (outputs, _):
        learner.model.proposal_head(torch.rand(1, 3600, 16), [(60, 60)])
    assert not outputs
    assert len(list(floats(proposals))) == 3


# --- a run that diverges --------------------------------------------------------------------------


class Validator:
    """What a validation meets: nothing wrong, an answer that is not finite, a bad picture."""

    def __init__(self, error=None):
        self.error = error

    def __call__(self, model):
        if self.error:
            raise self.error
        return {"AP": 0.5}


def said_of(validate, model=None, **changes):
    config = replace(CONFIG, eval_every=2, **changes)
    with pytest.raises(TrainingError) as caught:
        train(model or Toy().build(), ToyData(), None, config, validate, progress=False)
    return str(caught.value)


def test_a_rate_that_is_too_high_is_named_where_a_validation_meets_it():
    """An r18 in everything but size: weights stay finite, its answers do not."""
    torch.manual_seed(0)
    data = ShapesDataset(world(64), 0, 4)
    config = replace(CONFIG, num_pictures=40, lr=30.0, backbone_lr=30.0, clip_norm=1e9)
    with pytest.raises(TrainingError) as caught:
        train(
            small({"encoder.ccff.num_blocks": 3}, num_classes=len(data.names)),
            data,
            config=config,
            validate=lambda model: evaluate(model, data, 4),
            progress=False,
        )
    assert "lower --lr (it is 30)" in str(caught.value)
    assert "single precision" not in str(caught.value)


def test_an_answer_that_is_not_finite_is_the_runs_fault_and_a_bad_picture_is_not():
    answer = NotFinite("pictures[0]", NOT_FINITE, "check the weights")
    said = said_of(Validator(answer), lr=0.5)
    assert said.startswith(f"step 2: in the validation {NOT_FINITE}: the run diverges; lower --lr")
    with pytest.raises(ImageError, match=r"a\.png: is truncated"):
        train(
            Toy(),
            ToyData(),
            config=CONFIG,
            validate=Validator(ImageError("a.png", "is truncated", "replace it")),
            progress=False,
        )


def test_half_precision_is_blamed_only_where_it_is_used():
    answer = NotFinite("pictures[0]", NOT_FINITE, "check the weights")
    assert "--fp32" not in said_of(Validator(answer))
    assert "--fp32 in place of --amp" in said_of(Validator(answer), amp=True)


@pytest.mark.parametrize(("value", "said"), [(math.nan, "not finite"), (1e9, "has grown to 1e+09")])
def test_weights_no_model_has_are_named_before_a_validation(value, said):
    """Larger than what a checkpoint may hold: it could not be loaded again."""
    model = Toy().build()
    model.head.register_buffer("far", torch.tensor([value]))
    assert f"the buffer head.far {said}" in said_of(Validator(), model).replace("is not", "not")
