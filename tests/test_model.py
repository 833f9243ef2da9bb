"""A model says what it is: equipment asks it, and names what a class of a reader leaves unsaid."""

import copy

import pytest
import torch
from small import shaken, small
from small_detr import SEGMENTER as SMALL
from torch import nn

from rtdetr_lab.data.batch import First
from rtdetr_lab.data.shapes import VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.deployment.form import deploy
from rtdetr_lab.detector import Detector
from rtdetr_lab.detr.model import detr_nano
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.model import (
    TO_DECLARE,
    DetectionModel,
    Metadata,
    by_sigmoid,
    by_softmax,
    declared,
)
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.structures import LayerPrediction, Prediction

WORLD = ShapesDataset(ShapesConfig(size=64, max_side=64.0), VAL, 3)


@pytest.mark.parametrize(
    ("cfg", "rank", "takes_padding", "takes_fewer", "draws"),
    [
        (rtdetr_nano(5), by_sigmoid, False, True, False),
        (detr_nano(5), by_softmax, True, False, False),
        (SMALL, by_softmax, True, False, True),
    ],
)
def test_each_chapter_says_what_it_is_and_its_deploy_form_says_the_same(
    cfg, rank, takes_padding, takes_fewer, draws
):
    model = declared(cfg.build())
    for one in (model, declared(deploy(model))):
        assert one.rank is rank
        assert (one.takes_padding, one.draws_masks) == (takes_padding, draws)
        assert (one.num_classes, one.num_queries) == (cfg.num_classes, model.num_queries)
    assert model.takes_fewer_queries is takes_fewer
    assert model.metadata == Metadata(), "from birth, and nothing is known yet"


class Everywhere(nn.Module):
    """Says with three queries that class 1 is everywhere; knows nothing of our classes."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[-3.0, 2.0], [-3.0, 1.0], [-3.0, 0.0]]))

    def forward(self, images):
        logits = self.logits.expand(len(images), -1, -1)
        boxes = torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(len(images), 3, 4)
        return Prediction(logits, boxes, (LayerPrediction(logits, boxes),))


class Declared(Everywhere):
    metadata, num_classes, num_queries = Metadata(("stone", "grass"), (1, 2)), 2, 3
    rank = staticmethod(by_sigmoid)
    takes_padding = takes_fewer_queries = draws_masks = False


def test_a_class_of_ones_own_is_taken_if_it_declares_the_same():
    (found,) = Detector(Declared().eval(), size=(32, 48))([WORLD[0].image])
    assert set(found.names) == {"grass"}
    assert found.boxes_xyxy[0].tolist() == [0, 0, 64, 64]


@pytest.mark.parametrize("use", [Detector, lambda m: evaluate(m, WORLD), deploy])
def test_one_that_declares_nothing_is_refused_by_the_name_of_what_is_missing(use):
    with pytest.raises(ConfigError, match="Everywhere: has no metadata, num_cl") as told:
        use(Everywhere().eval())
    assert all(example in told.value.remedy for example in TO_DECLARE.values())


@pytest.mark.parametrize("name", TO_DECLARE)
def test_each_word_that_is_missing_is_named_alone(name):
    class Forgetful(DetectionModel):
        num_queries = 3

    model = Forgetful(rtdetr_nano(4))
    assert declared(model) is model
    short = type("Short", (Everywhere,), {n: getattr(model, n) for n in TO_DECLARE if n != name})
    with pytest.raises(ConfigError, match=f"Short: has no {name};"):
        declared(short())


def test_metadata_is_each_models_own():
    one, other = (rtdetr_nano(3).build() for _ in range(2))
    one.metadata = Metadata(("a", "b", "c"), (4, 5, 6), (64, 96))
    assert copy.deepcopy(one).metadata == one.metadata
    assert other.metadata.names == ()


@pytest.mark.parametrize(
    ("known", "size"),
    [
        (Metadata(), (640, 640)),
        (Metadata(image_size=(96, 160)), (96, 160)),
        (Metadata(edges=(64, 106)), (64, 64)),
        (Metadata(edges=(64, 106), image_size=(48, 80)), (48, 80)),
    ],
)
def test_what_must_have_one_size_gets_one(known, size):
    assert known.fixed_size == size


def test_metadata_that_contradicts_itself_is_refused():
    for wrong in ({"image_size": (0, 64)}, {"edges": (9, 8)}, {"category_ids": (1, 1)}):
        with pytest.raises(CheckpointError, match="metadata"):
            Metadata(names=("a", "b") if "category_ids" in wrong else (), **wrong)


def test_fewer_queries_are_asked_for_only_where_the_model_takes_them():
    from rtdetr_lab.evaluation.examine import examine

    pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")
    data, count = First(WORLD, 2), len(WORLD.names)
    ours = shaken(small(num_classes=count).build()).float()
    few = examine(ours, data, queries=(2, 4))
    assert list(few.queries) == [2, 4, ours.num_queries]
    theirs = shaken(detr_nano(count).build()).float()
    assert examine(theirs, data, queries=(2, 4)).queries == {}
