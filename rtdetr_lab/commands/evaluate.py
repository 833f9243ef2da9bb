"""# Eval: COCO's numbers of a model on a data set"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro

from rtdetr_lab.commands.base import DONE, Command, say


@dataclass(frozen=True, kw_only=True)
class Eval(Command):
    """Average precision of a model on `shapes`, or on a COCO folder."""

    model: Annotated[str, tyro.conf.Positional] = "nano"
    """A short name, a hub id, a folder (RUN/model of a training run) or a weights file."""
    data: str = "shapes"
    """`shapes`, or a folder with COCO annotations."""
    split: str = "val"
    """Which annotations of the folder."""
    size: int | None = None
    """Height and width the model sees; default: what it was trained for."""
    batch_size: int = 16
    """Pictures at a time."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU where there is one."""
    limit: int | None = None
    """Stop after this many pictures."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        import torch
        from tqdm import tqdm

        from rtdetr_lab.checkpoints.load import load_pretrained
        from rtdetr_lab.commands.sets import validation_set
        from rtdetr_lab.evaluation.evaluate import evaluate

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = load_pretrained(self.model).to(device)
        size = self.size or max(model.metadata.image_size)
        data = validation_set(self.data, size, self.limit, self.split)
        check_classes(model.metadata.names, data.names, self.model)
        total = -(-len(data) // self.batch_size)
        metrics = evaluate(
            model, data, self.batch_size, progress=lambda batches: tqdm(batches, total=total)
        )
        if self.json:
            print(json.dumps(asdict(metrics)))
        else:
            say(f"{metrics}\n{len(data)} pictures")
        return DONE


def check_classes(model: Sequence[str], data: Sequence[str], where: str) -> None:
    """A model is judged by the data only if both mean the same by every label."""
    from rtdetr_lab.errors import DataError

    if tuple(model) == tuple(data):
        return
    what = f"knows {len(model)} classes ({', '.join(model[:3])} …), the data has {len(data)} others"
    raise DataError(where, what, "give a model that was trained on these classes")
