"""Fine-tune a small RT-DETR with a loop of one's own and `accelerate`, and judge it.

    python finetune_loop.py FOLDER

A test runs this file as it is, and with `rtdetr_lab` in the last import line.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from finetune_data import CLASSES, Pictures, average_precision, collated, start_from
from torch.utils.data import DataLoader

from transformers import RTDetrForObjectDetection, RTDetrImageProcessorPil  # isort: skip


def main(folder: Path) -> None:
    torch.manual_seed(0)
    start, accelerator = start_from(folder), Accelerator(cpu=True)
    processor = RTDetrImageProcessorPil.from_pretrained(start)
    model = RTDetrForObjectDetection.from_pretrained(
        start, id2label=CLASSES, ignore_mismatched_sizes=True
    )
    train, judged = Pictures(processor, 10, seed=1), Pictures(processor, 4, seed=2)
    batches = DataLoader(train, batch_size=2, shuffle=True, collate_fn=collated)
    model, optimizer, batches = accelerator.prepare(
        model, torch.optim.AdamW(model.parameters(), lr=1e-3), batches
    )
    losses = []
    model.train()
    for batch in batches:
        outputs = model(**batch)
        accelerator.backward(outputs.loss)
        accelerator.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(outputs.loss.item())

    model.eval()
    found = []
    with torch.no_grad():
        for picture in judged:
            outputs = model(pixel_values=picture["pixel_values"][None])
            size = tuple(picture["labels"]["orig_size"].tolist())
            found.append((outputs.logits[0].numpy(), outputs.pred_boxes[0].numpy(), size))
    accelerator.unwrap_model(model).save_pretrained(folder / "end")
    said = {"steps": len(losses), "finite": all(map(torch.isfinite, torch.tensor(losses)))}
    print(json.dumps({**said, "map": average_precision(found, judged, processor)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
