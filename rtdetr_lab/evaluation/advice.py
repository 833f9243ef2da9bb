"""# Advice: what a report says about thresholds, scores and duplicates

Each function returns paragraphs of Markdown; none if there is nothing to say.
"""

from rtdetr_lab.evaluation.coco import shown
from rtdetr_lab.evaluation.examine import Examination
from rtdetr_lab.evaluation.mistakes import DUPLICATE
from rtdetr_lab.writing import markdown_table, markdown_text

MANY_DUPLICATES = 0.2
"""The part of all mistakes above which the report gives advice about duplicates."""


def about_thresholds(exam: Examination) -> list[str]:
    """Say which threshold to use, for each class and for all of them."""
    rows = (
        [one.name, *map(shown, (one.threshold, one.precision, one.recall, one.F1))]
        for one in exam.curves.best
    )
    advice = "No detection is right at an IoU of 0.5, so no threshold is recommended."
    if exam.curves.recommended is not None:
        advice = f"Recommended for all classes: **{exam.curves.recommended:.2f}**, where the mean"
        advice += " F1 is largest. If these are test pictures, choose on validation pictures."
    head = ["class", "best threshold", "precision", "recall", "F1"]
    return ["## Which threshold?", advice, markdown_table(head, rows), "![F1](thresholds.png)"]


def about_scores(exam: Examination) -> list[str]:
    """Say how far scores are from the share of detections that is right."""
    error = exam.curves.calibration.error
    if error is None:
        return []
    said = (
        f"The expected calibration error is **{error:.3f}**: on average, a score is this far from"
    )
    said += " the share of the detections with such scores that is right at an IoU of 0.5."
    return ["## What does a score mean?", said, "![calibration](calibration.png)"]


def about_mirrors(exam: Examination) -> list[str]:
    """Say which classes a mirror exchanges."""
    lines = [f"{markdown_text(line)}." for line in exam.mirror]
    return ["## In a mirror", *lines] if lines else []


def about_duplicates(mistakes: dict[str, int]) -> list[str]:
    """Say what helps if many mistakes are duplicates."""
    if mistakes[DUPLICATE] < MANY_DUPLICATES * max(sum(mistakes.values()), 1):
        return []
    return [
        "Many mistakes are duplicates: a second box on an object that was found. A model that is"
        " trained longer learns to suppress them; until then, `--max-iou 0.7` removes boxes that"
        " overlap a better one."
    ]
