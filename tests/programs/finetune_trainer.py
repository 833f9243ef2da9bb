"""Fine-tune a small RT-DETR with `Trainer`, judge it, and go on from its checkpoint.

    python finetune_trainer.py FOLDER

A test runs this file as it is, and with `rtdetr_lab` in the first import line.
"""

import json
import sys
from pathlib import Path

import numpy as np
from finetune_data import CLASSES, Pictures, average_precision, collated, start_from
from transformers import Trainer, TrainingArguments, set_seed

from transformers import RTDetrForObjectDetection, RTDetrImageProcessorPil  # isort: skip

TOLD = {
    "save_steps": 3,
    "eval_steps": 3,
    "eval_strategy": "steps",
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "learning_rate": 1e-3,
    "remove_unused_columns": False,
    "eval_do_concat_batches": False,
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
}


def main(folder: Path) -> None:
    set_seed(0)
    start = start_from(folder)
    processor = RTDetrImageProcessorPil.from_pretrained(start)
    model = RTDetrForObjectDetection.from_pretrained(
        start, id2label=CLASSES, ignore_mismatched_sizes=True
    )
    train, judged = Pictures(processor, 10, seed=1), Pictures(processor, 4, seed=2)

    def metrics(answer):
        found = []
        for (_, logits, boxes, *_), labels in zip(*answer, strict=True):
            sizes = [tuple(one["orig_size"]) for one in labels]
            found += [(lo, bo, size) for lo, bo, size in zip(logits, boxes, sizes, strict=True)]
        return {"map": average_precision(found, judged, processor)}

    def trainer(steps: int) -> Trainer:
        told = TrainingArguments(str(folder / "run"), max_steps=steps, **TOLD)
        return Trainer(model, told, collated, train, judged, compute_metrics=metrics)

    before = trainer(6).evaluate()
    trainer(6).train()
    resumed = trainer(8).train(resume_from_checkpoint=True)
    after = trainer(8).evaluate()
    said = {"before": before["eval_loss"], "after": after["eval_loss"], "map": after["eval_map"]}
    said |= {"steps": resumed.global_step, "finite": bool(np.isfinite(resumed.training_loss))}
    model.save_pretrained(folder / "end")
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
