"""# Report: an examination as a folder to read

    report.md   report.json   precision_recall.png   thresholds.png   calibration.png
    confusion.png   layers.png   queries.png
    worst/01_….png …

`report.md` shows the tables and the pictures; `report.json` contains the same numbers.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.evaluation.advice import (
    about_duplicates,
    about_mirrors,
    about_scores,
    about_thresholds,
)
from rtdetr_lab.evaluation.coco import NAMES, Metrics, shown
from rtdetr_lab.evaluation.examine import Examination
from rtdetr_lab.evaluation.mistakes import MISTAKES, Judgement, confusion_matrix
from rtdetr_lab.evaluation.thresholds import GRID
from rtdetr_lab.viz.evaluation import (
    NO_OBJECT,
    draw_bars,
    draw_calibration,
    draw_confusion,
    draw_mistakes,
    draw_precision_recall,
    draw_thresholds,
)
from rtdetr_lab.writing import (
    file_stem,
    markdown_table,
    markdown_text,
    printable,
    shorten,
    write_text,
)

LONGEST = 900
"""Length of the longer side of a drawn picture, in pixels."""


def write_report(
    folder: str | Path, exam: Examination, dataset: Dataset, worst: int = 20
) -> dict[str, Any]:
    """Write the folder and return the content of `report.json`.

    `dataset` is the one that was examined.
    """
    folder = Path(folder)
    (folder / "worst").mkdir(parents=True, exist_ok=True)
    counts = confusion_matrix(list(exam.judgements), len(exam.names))
    drawn = [_draw_worst(folder, exam, dataset, n, i) for n, i in enumerate(exam.worst[:worst], 1)]
    _save(draw_precision_recall(exam.scored.precision, exam.names), folder / "precision_recall.png")
    curves = (exam.curves.F1, exam.names, exam.curves.recommended)
    _save(draw_thresholds(GRID, *curves), folder / "thresholds.png")
    bins = exam.curves.calibration
    _save(draw_calibration(bins.score, bins.right, bins.count), folder / "calibration.png")
    _save(draw_confusion(counts, exam.names), folder / "confusion.png")
    _save(draw_bars(exam.layers, "after"), folder / "layers.png")
    if exam.queries:
        by_count = {str(n): m for n, m in exam.queries.items()}
        _save(draw_bars(by_count, "queries"), folder / "queries.png")
    record = _record(exam, counts, drawn)
    write_text(folder / "report.json", json.dumps(record, indent=1))
    write_text(folder / "report.md", _markdown(exam, record))
    return record


def _record(exam: Examination, counts: np.ndarray, drawn: list[dict[str, Any]]) -> dict[str, Any]:
    metrics = exam.scored.metrics
    total = sum((one.counts for one in exam.judgements), Counter())
    return {
        "pictures": len(exam.judgements),
        "metrics": dict(metrics),
        "classes": [vars(row) for row in metrics.classes],
        "layers": {n: {k: m[k] for k in NAMES} for n, m in exam.layers.items()},
        "queries": {str(n): {k: m[k] for k in NAMES} for n, m in exam.queries.items()},
        "recommended_threshold": exam.curves.recommended,
        "best_thresholds": [vars(point) for point in exam.curves.best],
        "calibration": {name: a.tolist() for name, a in vars(exam.curves.calibration).items()},
        "calibration_error": exam.curves.calibration.error,
        "threshold": exam.threshold,
        "mistakes": {kind: total[kind] for kind in MISTAKES},
        "mirror": list(exam.mirror),
        "confusion": {
            "rows": [*exam.names, *NO_OBJECT],
            "columns": [*exam.names, "not found"],
            "counts": counts.tolist(),
        },
        "worst": drawn,
    }


def _draw_worst(
    folder: Path, exam: Examination, dataset: Dataset, place: int, index: int
) -> dict[str, Any]:
    sample, one = dataset[index], exam.judgements[index]
    height, width = sample.size
    scale = min(1.0, LONGEST / max(height, width))
    pixels = sample.image.permute(1, 2, 0).numpy()
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().astype(np.uint8)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    names = [shorten(printable(name), 40) for name in exam.names]
    boxes, kinds, texts = _frames(one, names)
    file = f"worst/{place:02d}_{file_stem(Path(sample.name).stem)}.png"
    title = f"{shorten(printable(sample.name), 60)}: {_counted(one)}"
    _save(draw_mistakes(image, boxes * scale, kinds, texts, title), folder / file)
    said = {"file": file, "picture": sample.name, "image_id": sample.image_id}
    return {**said, "mistakes": dict(one.counts)}


def _frames(one: Judgement, names: Sequence[str]) -> tuple[torch.Tensor, list[str], list[str]]:
    """Return boxes, kinds and texts of all detections, and of the objects that were not found."""
    lost = [n for n, kind in enumerate(one.of_objects) if kind not in ("right", "confusion")]
    boxes = torch.cat([one.found.boxes_xyxy.cpu(), one.truth.boxes_xyxy[lost]])
    true_of = {answer: int(one.truth.labels[n]) for n, answer in one.pairs}
    texts = []
    columns = (one.of_found, one.found.labels.tolist(), one.found.scores.tolist())
    for answer, (kind, label, score) in enumerate(zip(*columns, strict=True)):
        is_wrong = kind == "confusion"
        instead = f", is {names[true_of[answer]]}" if is_wrong else ""
        texts.append(f"{names[label]} {score:.2f}{instead}")
    kinds = [*one.of_found, *(one.of_objects[n] for n in lost)]
    texts += [names[int(one.truth.labels[n])] for n in lost]
    return boxes, kinds, texts


def _counted(one: Judgement) -> str:
    return ", ".join(f"{kind} {one.counts[kind]}" for kind in MISTAKES if one.counts[kind])


def _save(ax: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    ax.figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(ax.figure)


def _table(head: str, rows: dict[str, Metrics]) -> str:
    keys = ("AP", "AP50", "AP75", "AR100")
    lines = ([name, *(shown(metrics[key]) for key in keys)] for name, metrics in rows.items())
    return markdown_table([head, *keys], lines)


def _markdown(exam: Examination, record: dict[str, Any]) -> str:
    metrics = exam.scored.metrics
    classes = (
        [row.name, *map(shown, (row.AP, row.AP50, row.AR100)), row.num_objects]
        for row in metrics.classes
    )
    parts = [
        f"# Evaluation on {record['pictures']} pictures",
        "" if metrics.num_objects else "There is no object to find: AP is not defined.",
        markdown_table(["number", "value"], ([name, shown(metrics[name])] for name in NAMES)),
        markdown_table(["class", "AP", "AP50", "AR100", "objects"], classes),
        "## Precision and recall\n\n![curves](precision_recall.png)",
        *about_thresholds(exam),
        *about_scores(exam),
        "## After every layer, in one run\n\n" + _table("after", exam.layers),
        "![layers](layers.png)",
    ]
    if exam.queries:
        by_count = {str(n): m for n, m in exam.queries.items()}
        parts += ["## With fewer queries, run again for each\n\n" + _table("queries", by_count)]
        parts += ["![queries](queries.png)"]
    parts += [
        f"## Mistakes\n\nDetections above a score of {exam.threshold}, at an IoU of 0.5.",
        markdown_table(["kind", "number"], record["mistakes"].items()),
        *about_duplicates(record["mistakes"]),
        *about_mirrors(exam),
        "![confusion](confusion.png)",
        "## The worst pictures",
        *(f"![{markdown_text(one['picture'])}]({one['file']})" for one in record["worst"]),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"
