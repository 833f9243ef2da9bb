"""Memory and precision: what a step may take, and what is computed in how many bits."""

from dataclasses import replace

import pytest
import torch
from small import small, targets
from training_toy import Toy, ToyData

from rtdetr_lab import matching, query_selection
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures import Batch, LayerPrediction
from rtdetr_lab.training import TrainConfig, train
from rtdetr_lab.training.memory import remedy, uses_amp
from rtdetr_lab.training.trainer import Trainer

CONFIG = TrainConfig(num_pictures=32, batch_size=8, eval_every=2)


class Full(torch.nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [OUT, ON_CPU])
def test_out_of_memory_names_batch_and_size_and_what_to_lower(error):
    model = Toy().build()
    model.dropout = Full(error)
    with pytest.raises(TrainingError) as caught:
        train(model, ToyData(), config=replace(CONFIG, accumulate=3), progress=False)
    said = str(caught.value)
    assert said.startswith("step 1: out of memory on cpu with 3 of 8 pictures of 8×8")
    ways = ("--accumulate 6 ", "--amp", "--batch-size to 4", "--size")
    assert all(way in caught.value.remedy for way in ways)
    assert caught.value.__cause__ is error


def test_a_step_is_not_cut_into_more_parts_than_pictures():
    for parts, advice in ((3, "--accumulate 6 "), (5, "--accumulate 8 "), (7, "--accumulate 8 ")):
        config = replace(CONFIG, accumulate=parts)
        assert advice in remedy(config, torch.device("cpu"))
        replace(CONFIG, accumulate=int(advice.split()[1]))  # what is advised can be typed
    assert "--accumulate" not in remedy(replace(CONFIG, accumulate=8), torch.device("cpu"))


def test_what_cannot_be_lowered_is_not_proposed():
    model = Toy().build()
    model.dropout = Full(OUT)
    least = replace(CONFIG, batch_size=1, amp=True)
    with pytest.raises(TrainingError) as caught:
        train(model, ToyData(), config=least, progress=False)
    assert caught.value.remedy == "lower --size"


def test_out_of_memory_in_a_validation_is_said_too():
    def validate(model):
        raise OUT

    with pytest.raises(TrainingError, match=r"step 2: out of memory .* 8×8"):
        train(Toy(), ToyData(), config=CONFIG, validate=validate, progress=False)


def test_another_runtime_error_keeps_its_name():
    model = Toy().build()
    model.dropout = Full(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match=r"^shapes differ"):
        train(model, ToyData(), config=CONFIG, progress=False)


@pytest.mark.parametrize(("asked", "on_cpu"), [(None, False), (True, True), (False, False)])
def test_bfloat16_is_asked_for_on_the_cpu(asked, on_cpu):
    assert uses_amp(asked, torch.device("cpu")) is on_cpu


@pytest.mark.parametrize("can", [True, False])
def test_bfloat16_is_the_default_where_a_gpu_has_it(monkeypatch, can):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: can)
    assert uses_amp(None, torch.device("cuda")) is can
    assert uses_amp(False, torch.device("cuda")) is False


def test_matching_losses_and_anchors_stay_in_single_precision(monkeypatch):
    seen = {"costs": [], "anchors": [], "logits": []}
    cost_matrix, anchors = matching.HungarianMatcher.cost_matrix, query_selection.anchors

    def costs(self, logits, *rest):
        seen["costs"].append(cost_matrix(self, logits, *rest).dtype)
        return cost_matrix(self, logits, *rest)

    def of_tokens(*args):
        seen["anchors"].append(anchors(*args)[0].dtype)
        return anchors(*args)

    monkeypatch.setattr(matching.HungarianMatcher, "cost_matrix", costs)
    monkeypatch.setattr(query_selection, "anchors", of_tokens)
    torch.manual_seed(0)
    learner = Trainer(small().build(), replace(CONFIG, amp=True), torch.device("cpu"))
    learner.model.proposal_head.class_head.register_forward_hook(
        lambda module, args, output: seen["logits"].append(output.dtype)
    )
    batch = Batch(torch.rand(2, 3, 64, 64), targets(2, 1))
    terms = learner._terms((batch, 1.0), learner.model)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert set(seen["costs"]) == {torch.float32}
    assert set(seen["anchors"]) == {torch.float32}
    assert set(seen["logits"]) == {torch.bfloat16}, "or autocast was never on"


def test_a_matching_in_half_precision_would_choose_others():
    """What the islands are for: two boxes that bfloat16 cannot tell apart."""
    exact = matching.MatcherConfig().build()
    logits = torch.zeros(2, 1)
    boxes = torch.tensor([[0.5, 0.5, 0.2501, 0.25], [0.5, 0.5, 0.25, 0.25]])
    layer = LayerPrediction(logits[None], boxes[None])
    truth = replace(targets(1), labels=(torch.tensor([0]),), boxes=(boxes[1:],))
    assert exact(layer, truth).queries[0].tolist() == [1]
    rough = LayerPrediction(logits[None], boxes.bfloat16().float()[None])
    assert exact(rough, truth).queries[0].tolist() == [0]
