r"""# Publish: from a run to a model that others can load

`RUN/model/` holds the averaged weights of the best validation, or the newest where none was made,
with class names and picture size: `Detector.from_pretrained("RUN/model")` knows what it sees.
"""

import copy
import sys
from pathlib import Path

from torch import nn

from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.data.augment import Augmentation
from rtdetr_lab.data.augment_detr import AspectAugmentation
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.data.canvas import edges_of
from rtdetr_lab.model import Metadata
from rtdetr_lab.training.state import load_best


def metadata_of(
    data: Dataset, augment: Augmentation | AspectAugmentation | None, known: Metadata
) -> Metadata:
    """What a model that is trained on `data` must remember of it: the classes, and the size that
    `augment` gives pictures, or the model is `known` to have, or the pictures come in."""
    size, edges = known.image_size, known.edges
    if augment is not None:
        size, edges = augment.size, augment.edges
    elif size is None and edges is None:
        height, width = data[0].image.shape[-2:]
        edges = edges_of(data)
        size = (height, width) if edges is None else (edges[0], edges[0])
    return Metadata(tuple(data.names), tuple(data.category_ids), size, edges=edges)


def publish(folder: Path, model: nn.Module) -> None:
    """Write `folder / "model"`: the best weights of the run, else those of `model`. A damaged best
    is named on stderr."""
    best, damaged = load_best(folder)
    if damaged:
        print(f"{damaged} The newest weights are published instead.", file=sys.stderr)
    if best:
        model = copy.deepcopy(model)
        model.load_state_dict(best["ema"])
    save_pretrained(model, folder / "model")
