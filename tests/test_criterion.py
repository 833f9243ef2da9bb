"""The criterion: every layer pays, and however a batch is cut up, it costs the same."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.multiprocessing

from rtdetr_lab.config import replace_at
from rtdetr_lab.criterion import CriterionConfig, denoising_pairs, matched_layers
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.losses import BinaryCrossEntropy, CrossEntropy, Focal, Varifocal
from rtdetr_lab.matching import MatcherConfig, SoftmaxCost
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.structures import Denoised, LayerPrediction, Prediction, Proposals, Targets

NUM_CLASSES, NUM_QUERIES = 4, 6


def targets_of(*counts, dtype=torch.float32):
    return Targets.of(
        {
            "labels": torch.randint(NUM_CLASSES, (count,)),
            "boxes": torch.rand(count, 4, dtype=dtype) * 0.4 + 0.2,
        }
        for count in counts
    )


def layer_of(num_pictures, num_queries=NUM_QUERIES, dtype=torch.float32):
    logits = torch.randn(num_pictures, num_queries, NUM_CLASSES, dtype=dtype)
    return LayerPrediction(
        logits, torch.rand(num_pictures, num_queries, 4, dtype=dtype) * 0.4 + 0.2
    )


def prediction_of(targets, num_layers=3, dtype=torch.float32, denoising=True):
    """A whole training prediction; every tensor in it is a leaf that wants a gradient."""
    layers = tuple(layer_of(len(targets), dtype=dtype) for _ in range(num_layers))
    proposals = layer_of(len(targets), dtype=dtype)
    index = torch.zeros(len(targets), NUM_QUERIES, dtype=torch.long)
    denoised = None
    if denoising:
        batch = DenoisingConfig(num_queries=8).build(NUM_CLASSES, 4)(targets, NUM_QUERIES)
        noised = (layer_of(len(targets), batch.num_queries, dtype) for _ in range(num_layers))
        denoised = Denoised(tuple(noised), batch)
    prediction = Prediction(
        layers[-1].logits,
        layers[-1].boxes,
        layers,
        Proposals(index, proposals.logits, proposals.boxes),
        denoised,
    )
    for leaf in leaves(prediction):
        leaf.requires_grad_()
    return prediction


def leaves(prediction):
    layers = [layer for _, layer in matched_layers(prediction)]
    layers += prediction.denoising.layers if prediction.denoising else ()
    return [t for layer in layers for t in (layer.logits, layer.boxes)]


def terms_of(targets, **settings):
    prediction = prediction_of(targets)
    return CriterionConfig(**settings).build()(prediction, targets), prediction


def test_every_layer_the_proposals_and_every_denoising_layer_have_three_terms():
    """The sum of Eq. 04.4"""
    terms, _ = terms_of(targets_of(2, 3))
    places = ["", ".layer0", ".layer1", ".proposals"]
    places += [".denoising0", ".denoising1", ".denoising2"]
    assert sorted(terms) == sorted(
        f"{kind}{at}" for kind in ("class", "l1", "giou") for at in places
    )
    assert all(term.ndim == 0 and term > 0 for term in terms.values())


def test_a_prediction_without_proposals_and_denoising_has_the_terms_of_its_layers():
    """What DETR, or a model in eval mode, hands over."""
    targets = targets_of(2)
    full = prediction_of(targets, num_layers=1, denoising=False)
    terms = CriterionConfig().build()(replace(full, proposals=None), targets)
    assert set(terms) == {"class", "l1", "giou"}


def test_a_perfect_prediction_costs_nothing_but_its_doubts():
    targets = targets_of(3)
    boxes = torch.cat([targets.boxes[0], torch.rand(3, 4) * 0.1 + 0.8])
    logits = torch.full((6, NUM_CLASSES), -20.0)
    logits[range(3), targets.labels[0]] = 20.0
    layer = LayerPrediction(logits[None], boxes[None])
    terms = CriterionConfig().build()(Prediction(layer.logits, layer.boxes, (layer,)), targets)
    assert sum(terms.values()).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("field", "kind"), [("class_weight", "class"), ("l1_weight", "l1"), ("giou_weight", "giou")]
)
def test_a_weight_multiplies_its_own_terms_only(field, kind):
    targets = targets_of(2, 1)
    prediction = prediction_of(targets)
    before = CriterionConfig().build()(prediction, targets)
    cfg = replace(CriterionConfig(), **{field: 3 * getattr(CriterionConfig(), field)})
    after = cfg.build()(prediction, targets)
    for name in before:
        factor = 3 if name.split(".")[0] == kind else 1
        assert after[name].item() == pytest.approx(factor * before[name].item(), rel=1e-6)


def test_every_layer_is_matched_by_itself():
    """The same boxes in another order cost the same: no layer is judged by another's matching."""
    targets = targets_of(3)
    one = layer_of(1)
    order = torch.randperm(NUM_QUERIES)
    other = LayerPrediction(one.logits[:, order], one.boxes[:, order])
    terms = CriterionConfig().build()(Prediction(one.logits, one.boxes, (other, one)), targets)
    for kind in ("class", "l1", "giou"):
        torch.testing.assert_close(terms[kind], terms[f"{kind}.layer0"])


# --- denoising ----------------------------------------------------------------------------------


def test_denoising_positives_are_paired_with_their_object_and_negatives_with_none():
    targets = targets_of(3, 1, 0)
    batch = DenoisingConfig(num_queries=6).build(NUM_CLASSES, 4)(targets, NUM_QUERIES)
    pairs = [(q.tolist(), t.tolist()) for q, t in denoising_pairs(batch)]
    assert pairs == [([0, 1, 2, 6, 7, 8], [0, 1, 2] * 2), ([0, 6], [0, 0]), ([], [])]


def test_restored_queries_cost_no_box_error_and_groups_do_not_add_up():
    """One object restored badly in every group costs as much as in one group."""
    targets = targets_of(2)
    costs = []
    for num_queries in (2, 20):
        batch = DenoisingConfig(num_queries=num_queries).build(NUM_CLASSES, 4)(targets, NUM_QUERIES)
        boxes = targets.boxes[0][batch.target_index] + torch.tensor([0.0, 0.0, 0.01, 0.0])
        layer = LayerPrediction(torch.zeros(1, batch.num_queries, NUM_CLASSES), boxes)
        prediction = replace(
            prediction_of(targets, denoising=False), denoising=Denoised((layer,), batch)
        )
        terms = CriterionConfig().build()(prediction, targets)
        costs.append([terms[f"{kind}.denoising0"].item() for kind in ("class", "l1", "giou")])
    assert costs[0][1] == pytest.approx(5 * 0.01, rel=1e-4)
    assert costs[0] == pytest.approx(costs[1], rel=1e-4)


def test_objects_that_the_cap_left_out_do_not_make_the_others_count_less():
    targets = targets_of(40)
    batch = DenoisingConfig(max_queries=10).build(NUM_CLASSES, 4)(targets, NUM_QUERIES)
    boxes = targets.boxes[0][batch.target_index] + torch.tensor([0.0, 0.0, 0.01, 0.0])
    layer = LayerPrediction(torch.zeros(1, batch.num_queries, NUM_CLASSES), boxes)
    prediction = prediction_of(targets, denoising=False)
    terms = CriterionConfig().build()(
        replace(prediction, denoising=Denoised((layer,), batch)), targets
    )
    assert terms["l1.denoising0"].item() == pytest.approx(5 * 0.01, rel=1e-4)


# --- batches without objects --------------------------------------------------------------------


def test_without_objects_boxes_and_denoising_cost_exactly_zero_and_scores_are_pushed_down():
    targets = targets_of(0, 0)
    terms, prediction = terms_of(targets)
    for name, term in terms.items():
        silent = not name.startswith("class") or "denoising" in name
        assert (term.item() == 0) == silent, name
    sum(terms.values()).backward()
    assert all(leaf.grad is not None for leaf in leaves(prediction))
    for layer in prediction.denoising.layers:
        assert not layer.logits.grad.any()
        assert not layer.boxes.grad.any()
    assert not prediction.boxes.grad.any()
    assert (prediction.logits.grad > 0).all()


@pytest.mark.parametrize("counts", [(0, 0), (2, 0)], ids=["no objects", "some"])
def test_every_parameter_of_a_model_has_a_gradient_whatever_the_batch_holds(counts):
    cfg = rtdetr_nano(NUM_CLASSES)
    model = replace_at(cfg, "selection.num_queries", 20).build().train()
    targets = targets_of(*counts)
    terms = cfg.criterion.build()(model(torch.rand(2, 3, 64, 64), targets), targets)
    sum(terms.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.denoising.label_embedding.weight.grad.any() == (sum(counts) > 0)


def test_an_empty_picture_in_a_batch_is_pushed_towards_nothing():
    targets = targets_of(2, 0)
    terms, prediction = terms_of(targets)
    sum(terms.values()).backward()
    assert (prediction.logits.grad[1] > 0).all()
    assert not prediction.boxes.grad[1].any()


# --- precision, devices, processes --------------------------------------------------------------


def test_losses_are_computed_in_single_precision_under_autocast():
    targets = targets_of(2, 1)
    exact = prediction_of(targets, denoising=False)
    coarse = [t.detach().bfloat16() for t in leaves(exact)]
    layers = tuple(LayerPrediction(*coarse[i : i + 2]) for i in (2, 4, 0))
    rounded = tuple(LayerPrediction(p.logits.float(), p.boxes.float()) for p in layers)
    criterion = CriterionConfig().build()
    with torch.autocast("cpu", torch.bfloat16):
        mine = criterion(Prediction(layers[-1].logits, layers[-1].boxes, layers), targets)
    expected = criterion(Prediction(rounded[-1].logits, rounded[-1].boxes, rounded), targets)
    for name, term in mine.items():
        assert term.dtype == torch.float32
        assert torch.equal(term, expected[name])


def test_double_precision_stays_double():
    targets = targets_of(2, dtype=torch.float64)
    terms = CriterionConfig().build()(prediction_of(targets, dtype=torch.float64), targets)
    assert {term.dtype for term in terms.values()} == {torch.float64}


SPREAD = [(5, 1), (2, 0)]
"""How many objects each of two processes sees."""


def halves(counts):
    """Predictions and targets, one picture per process: the same ones in whatever process."""
    torch.manual_seed(5)
    targets = [targets_of(count, dtype=torch.float64) for count in counts]
    return [
        prediction_of(t, num_layers=2, dtype=torch.float64, denoising=False) for t in targets
    ], targets


def one_process(rank, folder):
    """What process `rank` of two computes from its half of every batch: gradients, in a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    found = []
    for counts in SPREAD:
        predictions, targets = halves(counts)
        sum(CriterionConfig().build()(predictions[rank], targets[rank]).values()).backward()
        found.append([leaf.grad for leaf in leaves(predictions[rank])])
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=one_process, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=600)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", range(len(SPREAD)), ids=[str(counts) for counts in SPREAD])
def test_two_processes_learn_what_one_learns_from_the_whole_batch(case, of_two_processes):
    parts, targets = halves(SPREAD[case])
    labels, boxes = ([t for p in targets for t in getattr(p, n)] for n in ("labels", "boxes"))
    pairs = zip(*map(leaves, parts), strict=True)
    joined = [torch.cat(pair).detach().requires_grad_() for pair in pairs]
    last, first, (logits, proposed) = zip(joined[::2], joined[1::2], strict=True)
    index = torch.zeros(2, NUM_QUERIES, dtype=torch.long)
    prediction = Prediction(
        *last,
        (LayerPrediction(*first), LayerPrediction(*last)),
        Proposals(index, logits, proposed),
    )
    terms = CriterionConfig().build()(prediction, Targets(tuple(labels), tuple(boxes)))
    sum(terms.values()).backward()
    for rank in range(2):
        for mine, whole in zip(of_two_processes[rank][case], joined, strict=True):
            # DistributedDataParallel takes the mean over processes.
            torch.testing.assert_close(mine[0] / 2, whole.grad[rank], rtol=1e-9, atol=1e-12)


# --- other losses, other matchers ---------------------------------------------------------------


@dataclass(frozen=True)
class OnlyTheMatched:
    """A class loss a reader might write in a cell."""

    power: float = 2.0

    def __call__(self, logits, is_class, iou, num_boxes):
        return ((1 - logits.sigmoid()) ** self.power * is_class).sum() / num_boxes


@pytest.mark.parametrize(
    "classification",
    [Varifocal(iou_target=False), Focal(), Focal(iou_target=True), BinaryCrossEntropy(),
     BinaryCrossEntropy(iou_target=True), CrossEntropy(), OnlyTheMatched()],
    ids=str,
)  # fmt: skip
def test_any_class_loss_fits_and_changes_class_terms_only(classification):
    targets = targets_of(2, 1)
    prediction = prediction_of(targets)
    usual = CriterionConfig().build()(prediction, targets)
    other = CriterionConfig(classification=classification).build()(prediction, targets)
    for name in usual:
        assert (other[name] == usual[name]) == (not name.startswith("class")), name
    sum(other.values()).backward()
    assert prediction.logits.grad.any()


def test_detrs_criterion_is_another_value():
    cfg = CriterionConfig(
        matcher=MatcherConfig(class_cost=1.0, classification=SoftmaxCost()),
        classification=CrossEntropy(),
    )
    targets = targets_of(2)
    layer = LayerPrediction(torch.randn(1, 6, NUM_CLASSES + 1), torch.rand(1, 6, 4))
    terms = cfg.build()(Prediction(layer.logits, layer.boxes, (layer,)), targets)
    assert set(terms) == {"class", "l1", "giou"}


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, -5.0, 2.0)])
def test_weights_that_teach_nothing_are_refused(weights):
    names = ("class_weight", "l1_weight", "giou_weight")
    with pytest.raises(ConfigError, match="criterion"):
        CriterionConfig(**dict(zip(names, weights, strict=True)))
