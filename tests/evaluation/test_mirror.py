"""Classes that become each other in a mirror are found, and those that are only alike are not."""

from types import SimpleNamespace

import pytest
import torch

from rtdetr_lab.commands.train import verdict
from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.evaluation.examine import examine
from rtdetr_lab.evaluation.mirror import about_mirror
from rtdetr_lab.evaluation.report import write_report
from rtdetr_lab.model import DetectionModel
from rtdetr_lab.structures import LayerPrediction, Prediction
from rtdetr_lab.training.doctor import Doctor
from rtdetr_lab.training.trainer import Trainer

NAMES = ("b", "d", "round")
SIDES = (0, 1, 0, 2, 1, 1, 0)
"""The class of the object in each picture; a `b` has its bowl on the right."""
BOX = [0.3, 0.5, 0.4, 0.6]


class Letters:
    """Pictures of 40 × 20 pixels with one letter each, left of the middle."""

    names = NAMES
    category_ids = (1, 2, 3)

    def __len__(self):
        return len(SIDES)

    def __getitem__(self, index):
        label, image = SIDES[index], torch.zeros(3, 20, 40)
        for start, lit in ((4, label != 0), (12, label != 1)):
            image[:, 4:16, start : start + 8] = 0.2 + 0.8 * lit
        boxes = torch.tensor([[4.0, 4.0, 20.0, 16.0]])
        alone = (torch.tensor([label]), boxes, torch.tensor([192.0]), torch.tensor([False]))
        return Sample.of(image, Truth(index, (20, 40), *alone))


class Reader(DetectionModel):
    """Finds the letter wherever it is, and reads it. With `mirrored`, it was trained in a mirror
    too: it cannot tell b from d, and says now the one, now the other."""

    num_classes, num_queries, takes_fewer_queries = 3, 1, False

    def __init__(self, mirrored):
        super().__init__(SimpleNamespace(num_classes=3))
        self.mirrored, self.seen = mirrored, 0

    def forward(self, images):
        logits, boxes = [], []
        for image in images.mean(1):
            lit = (image > 0.1).any(0).nonzero().flatten()
            left, right = image[:, lit[:8]].sum(), image[:, lit[8:]].sum()
            label = 2 if torch.isclose(left, right) else int(left > right)
            if self.mirrored and label < 2:
                label, self.seen = (0, 0, 1, 1)[self.seen % 4], self.seen + 1
            logits.append(torch.full((1, 3), -5.0).index_fill(1, torch.tensor([label]), 3.0))
            centre = float(lit.float().mean() + 0.5) / 40
            boxes.append(torch.tensor([[centre, *BOX[1:]]]))
        last = LayerPrediction(torch.stack(logits), torch.stack(boxes))
        return Prediction(last.logits, last.boxes, (last,))


@pytest.mark.parametrize(
    ("mirrored", "said"),
    [
        (False, "in a mirror, b and d become each other: do not mirror them (--no-flip)"),
        (True, "b and d are taken for each other: if they are mirror images of each other, train"),
    ],
)
def test_the_report_names_the_two_letters_and_not_the_round_one(mirrored, said, tmp_path):
    exam = examine(Reader(mirrored), Letters(), batch_size=3)
    (line,) = exam.mirror
    assert line.startswith(said)
    assert write_report(tmp_path, exam, Letters())["mirror"] == [line]
    assert f"## In a mirror\n\n{line}." in (tmp_path / "report.md").read_text(encoding="utf8")


def test_the_doctor_says_so_of_a_healthy_run(capsys):
    letters = Letters()
    doctor = Doctor([letters[i] for i in range(len(letters))], NAMES)
    doctor.best = 1.0
    doctor.history.append({"step": 1, "AP": 1.0})
    trainer = object.__new__(Trainer)  # a trainer of a model without weights
    trainer.model, trainer.device = Reader(False), torch.device("cpu")
    doctor.ends(trainer)
    assert verdict(doctor, SimpleNamespace(finished=True)) == 0
    told = capsys.readouterr().out
    assert "in a mirror, b and d become each other: do not mirror them (--no-flip)" in told
    assert "round" not in told


def counts(*rows):
    return torch.tensor(rows)


def test_labels_that_are_wrong_in_one_direction_only_or_on_one_object_are_no_mirror():
    right = counts([8, 0, 0], [0, 9, 0], [0, 0, 5])
    assert about_mirror(right, right, NAMES) == []
    assert about_mirror(right, counts([0, 8, 0], [0, 9, 0], [0, 0, 5]), NAMES) == []
    few = counts([1, 0, 0], [0, 9, 0], [0, 0, 5])
    assert about_mirror(few, counts([0, 1, 0], [9, 0, 0], [0, 0, 5]), NAMES) == []
