"""Bugs that were planted from outside, a second time.

Sixty were judged, twenty at a time, before a test was written for them; `ROUNDS` in
`mutants_outside.py` counts how many were caught. Here are those that were not, and five more that
no test saw; `mutants_options.py` has the options.
"""

OUTSIDE2 = (
    (
        "evaluation/panoptic",
        "ids = metadata.category_ids or data.category_ids",
        "ids = data.category_ids or metadata.category_ids",
        "labels of a model are read with the ids of the data, not with its own",
        "data/test_panoptic_data.py",
    ),
    (
        "evaluation/table",
        'row |= {"segmentation": mask, "area": area}',
        'row |= {"segmentation": mask}',
        "a mask is small or large by the area of its box",
        "evaluation/test_evaluation.py",
    ),
    (
        "images/panoptic",
        "return panoptic(prediction, sizes, (), rule, padding=padding, alone=alone)",
        "return panoptic(prediction, sizes, (), rule, alone=alone)",
        "instance segments forget the padding of the canvas",
        "images/test_panoptic.py",
    ),
    (
        "deployment/video",
        "if seconds <= last:  # a clock",
        "if seconds < last:  # a clock",
        "two frames of a clip have the same time",
        "deployment/test_video.py",
    ),
    (
        "commands/video",
        "self._take(frame, wanted.of(found), lines, clip)",
        "self._take(frame, found, lines, clip)",
        "--only and thresholds by class are ignored for a video",
        "deployment/test_video.py",
    ),
    (
        "training/distributed",
        'int(os.environ.get("LOCAL_RANK", "0"))',
        'int(os.environ.get("RANK", "0"))',
        "a process on a second machine asks for a GPU that is not there",
        "training/test_distributed.py",
    ),
    (
        "training/folder",
        "+ 2 * model - there",
        "+ 2 * model",
        "the room that the run takes already is asked for again",
        "training/test_folder.py",
    ),
    (
        "ablations/resample",
        "best = found.at(order[found.labels[order] == label][:MOST])",
        "best = found.at(order[:MOST][found.labels[order[:MOST]] == label])",
        "a hundred detections of a picture count, not a hundred of each class",
        "ablations/test_statistics.py",
    ),
    (
        "ablations/matrix",
        '"p_holm": c.p_value,',
        '"p_holm": c.difference.p_value,',
        "the p-value in the file of the matrix is not adjusted",
        "ablations/test_matrix.py",
    ),
    (
        "data/coco_json",
        "if is_finite(area) and area > 0 else w * h",
        "if is_finite(area) and area >= 0 else w * h",
        "an annotated area of zero is taken for the size of an object",
        "data/test_coco.py",
    ),
    (
        "data/coco_panoptic",
        'if not c.get("isthing", 1))',
        'if not c.get("isthing", 0))',
        "a category that does not say what it is counts as stuff",
        "data/test_panoptic_data.py",
    ),
    (
        "data/dense",
        "other = sized._tiled(place.another(rng), far, rng)",
        "other = sized._tiled(place.another(rng), place, rng)",
        "both pictures of a mixup are changed by the same random numbers",
        "data/test_dense.py",
    ),
    (
        "data/preflight",
        "report = check(data.annotations, data.folder, progress, limits=data.limits)",
        "report = check(data.annotations, data.folder, progress)",
        "pictures are checked without the number of bits that the data set has",
        "data/test_coco.py",
    ),
    (
        "data/voc",
        "elif min(x0, y0) < self.origin:",
        "elif x0 < self.origin:",
        "a box above the first row is not refused",
        "data/test_convert.py",
    ),
    (
        "training/session",
        (
            "        trainer.ema.model.metadata = replace(known, threshold=recommended)\n"
            '        if scores["AP"] > trainer.best:\n'
            '            trainer.best = float(scores["AP"])\n'
            "            if self.folder:\n"
            '                keep.save_state(self.folder / "best.pt", self._state())\n'
            "            self._publish()\n"
        ),
        (
            '        if scores["AP"] > trainer.best:\n'
            '            trainer.best = float(scores["AP"])\n'
            "            if self.folder:\n"
            '                keep.save_state(self.folder / "best.pt", self._state())\n'
            "            self._publish()\n"
            "        trainer.ema.model.metadata = replace(known, threshold=recommended)\n"
        ),
        "the best model is written with the threshold of the validation before",
        "training/test_model.py",
    ),
    (
        "training/recipe",
        ('lr = changes.get("lr", TrainConfig.lr)\n'),
        ("lr = TrainConfig.lr\n"),
        "another rate for v2's recipe leaves the rate of the backbone as it was",
        "training/test_finetune.py",
    ),
    (
        "training/finetune",
        "place = {name: label for label, name in enumerate(known) if known.count(name) == 1}",
        "place = {name: label for label, name in enumerate(known)}",
        "a class that the model has twice takes one of the two rows",
        "training/test_finetune.py",
    ),
    (
        "ablations/findings",
        'return dict(found[-1]["milliseconds"]) if found else {}',
        'return dict(found[0]["milliseconds"]) if found else {}',
        "the report shows the first measured latency, not the latest",
        "ablations/test_page.py",
    ),
    (
        "transformers_api/pipeline",
        "device_map=place, dtype=dtype, **options)",
        "device_map=place, **options)",
        "the dtype of a pipeline is ignored",
        "transformers_api/test_pipeline.py",
    ),
    (
        "checkpoints/load",
        'kept = ("image_size", "edges", "canvas_boxes", *SOURCE)',
        'kept = ("image_size", "edges", *SOURCE)',
        "a model with new classes forgets what its boxes are fractions of",
        "checkpoints/test_load.py",
    ),
    (
        "checkpoints/source",
        ("    licence = licence_in(path.parent)\n"),
        ("    licence = None\n"),
        "the licence beside a weights file is not read",
        "checkpoints/test_load.py",
    ),
    (
        "checkpoints/preprocessor",
        '"longest_edge": tree.get("max_size", 1333)}',
        '"longest_edge": 1333}',
        "the longest edge in an old processor file is ignored",
        "checkpoints/test_config.py",
    ),
    (
        "deployment/precision",
        "other = Engine(model, size, 1, dtype, device, backend=backend)",
        "other = Engine(model, size, 1, dtype, device)",
        "the backend of a comparison is ignored",
        "deployment/test_fastest.py",
    ),
    (
        "ablations/study",
        "task = Task(train, val, self.views, self.measures, self.device)",
        "task = Task(train, val, self.views, self.measures)",
        "the device of a study is ignored",
        "ablations/test_plan.py",
    ),
    (
        "training/memory",
        "more = min(2 * config.accumulate, config.batch_size)",
        "more = 2 * config.accumulate",
        "the advice names more parts than there are pictures",
        "training/test_memory.py",
    ),
    (
        "viz/panoptic",
        "ys, xs = np.nonzero(depth == depth.max())",
        "ys, xs = np.nonzero(depth > 0)",
        "the name of a segment is at its mean, not where it is widest",
        "images/test_panoptic_pictures.py",
    ),
    (
        "viz/ablation",
        "low, high = list(map(min, found)), list(map(max, found))",
        "low, high = list(map(min, found)), list(map(min, found))",
        "the band of the curves has no upper end",
        "viz/test_ablation.py",
    ),
    (
        "commands/pictures",
        "len(set(map(int, stems))) == len(stems)",
        "len(set(stems)) == len(stems)",
        "1.jpg and 01.jpg get one id",
        "commands/test_detect_ends.py",
    ),
)
