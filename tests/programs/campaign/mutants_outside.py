"""Bugs that were planted from outside, and judged before a test was written for them."""

ROUNDS = ((20, 13), (20, 12), (20, 11), (20, 11), (15, 14))
"""Planted and caught: a round of 2026-11-27 and four of 2026-11-28. Each other one has a test now.
The bugs of the later rounds are in `mutants_outside2.py`."""

_EACH = ", ".join(f"{caught} of {planted}" for planted, caught in ROUNDS)
SAID = f"""In {len(ROUNDS)} rounds, bugs were planted from outside before there was a test for one.
Caught were {_EACH}. Each of the others has a test now. Where a kind came twice, the kind has one:
every option of a command line reaches its function, and every option of a function is read and
handed on (`tests/commands/test_options_arrive.py`, `tests/test_options.py`)."""
"""For the page."""

OUTSIDE = (
    (
        "evaluation/thresholds",
        "wanted = torch.cat([truth.labels[~truth.is_crowd] for truth in truths])",
        "wanted = torch.cat([truth.labels for truth in truths])",
        "crowds are objects in a recall",
        "evaluation/test_thresholds.py",
    ),
    (
        "evaluation/thresholds",
        "return float(GRID[first + (length - 1) // 2])",
        "return float(GRID[first + length // 2])",
        "the later of two middle thresholds",
        "evaluation/test_thresholds.py",
    ),
    (
        "data/split",
        "room[name] -= len(groups[i])",
        "room[name] -= 1",
        "copies take the room of one picture",
        "data/test_split.py",
    ),
    (
        "data/split",
        "first = [min(heads) if head in heads else head for head in first]",
        "first[known[later]] = min(heads)",
        "a picture that joins two groups leaves them apart",
        "data/test_split.py",
    ),
    (
        "data/split",
        "sorted(total, key=lambda label: (total[label], label))",
        "sorted(total, key=lambda label: (-total[label], label))",
        "the commonest class is divided first",
        "data/test_split.py",
    ),
    (
        "tables",
        "height, width = found.frame.stored",
        "height, width = found.size",
        "upright sizes beside boxes of the stored raster",
        "test_tables.py",
    ),
    (
        "tables",
        "for row in _clipped(found).rows():",
        "for row in found.rows():",
        "YOLO's boxes reach over the edge",
        "test_tables.py",
    ),
    (
        "detections",
        "least = torch.full((len(self.classes),), -1.0, dtype=self.scores.dtype)",
        "least = torch.full((len(self.classes),), 1.0, dtype=self.scores.dtype)",
        "classes without a threshold of their own are lost",
        "test_detector.py",
    ),
    (
        "images/tiling",
        "if max(size) <= self.tile:",
        "if min(size) <= self.tile:",
        "a long and narrow picture has no tiles",
        "images/test_tiling.py",
    ),
    (
        "data/upright",
        "frame = Frame(lies.upright) if picture.upright else lies",
        "frame = lies",
        "boxes that are upright are turned again",
        "data/test_upright.py",
    ),
    (
        "data/canvas",
        "hidden[: size[0], : size[1]] = False",
        "hidden[-size[0] :, -size[1] :] = False",
        "the padding is that of pictures in the other corner",
        "data/test_detr_canvas.py",
    ),
    (
        "viz/heatmaps",
        "covered = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)",
        "covered = (edges[1:] > low).double() * (edges[:-1] < high) / count",
        "a cell that is covered in part counts in full",
        "viz/test_heatmaps.py",
    ),
    (
        "commands/readings",
        "torch.outer(inside(top, bottom, rows), inside(left, right, columns))",
        "torch.outer(inside(left, right, rows), inside(top, bottom, columns))",
        "cells under the transposed box",
        "commands/test_readings.py",
    ),
    (
        "training/callbacks",
        "purge_step=trainer.step + 1",
        "purge_step=trainer.step",
        "a resumed run removes its last point from TensorBoard",
        "training/test_callbacks.py",
    ),
    (
        "training/session",
        "threshold=recommended)",
        "threshold=known.threshold or recommended)",
        "a model keeps the first threshold that was recommended",
        "training/test_training.py",
    ),
    (
        "successors/fdr",
        "torch.cat([top, top.mean(-1, keepdim=True)], dim=-1)",
        "torch.cat([top, probabilities.mean(-1, keepdim=True)], dim=-1)",
        "the mean of all bins for that of the largest",
        "successors/test_dfine.py",
    ),
    (
        "successors/dfine_losses",
        "found = layer.boxes[matched].detach().to(dtype)",
        "found = layer.start.boxes[matched].detach().to(dtype)",
        "weighed by the IoU of the first box",
        "successors/test_dfine_losses.py",
    ),
    (
        "successors/deim",
        "weight = torch.where(is_class, 1.0, score**self.gamma)",
        "weight = torch.where(is_class, target, score**self.gamma)",
        "poor matches are hardly heard",
        "successors/test_deim.py",
    ),
    (
        "deployment/onnx_file",
        '"category_ids": json.dumps(known.category_ids),',
        '"category_ids": json.dumps(list(range(1, len(known.names) + 1))),',
        "an exported model numbers its categories from 1",
        "unhooked/test_onnx.py",
    ),
    (
        "commands/wanted",
        "found = found.above(others | dict(self.by_class))",
        "found = found.above(dict(self.by_class))",
        "classes that are not named keep every score",
        "commands/test_cli.py",
    ),
    (
        "evaluation/mistakes",
        "chosen[max(free, key=lambda n: float(overlaps[answer, n]))]",
        "chosen[free[0]]",
        "the first of the objects that fit is taken",
        "evaluation/test_report.py",
    ),
)
