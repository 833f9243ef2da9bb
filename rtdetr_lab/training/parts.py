r"""# Parts: a step on more pictures than fit into memory

$$ \nabla \mathcal L = \sum_k \frac{N_k}{N}\, \nabla \mathcal L_k $$

With `accumulate` K, the pictures of a step go through the model in K parts, one after the other.
The gradients are added up. The loss of a part is divided by its own number of objects $N_k$. But a
picture must have the same weight in every part, so each part is weighted by its share of the step's
objects. A plain mean of the parts would be another loss.

`batch_size` is still the number of pictures in a step. Order, augmentation (one size per step),
schedule and resume do not depend on K. The step in K parts compares to the whole step like this:

| what                         | in parts                                                         |
|------------------------------|------------------------------------------------------------------|
| matched and proposal terms   | the same, if the class loss is divided by objects                |
| DETR's cross-entropy         | close: it is divided by class weights, which are summed per part |
| denoising terms              | the same mean per object; groups and noise are drawn per part    |
| dense head of RT-DETRv3      | close: it is divided by the cells that learn, counted per part   |
| batch norm in training mode  | uses the statistics of a part (frozen: the same)                 |
"""

from collections.abc import Iterator

import torch

from rtdetr_lab.structures import Batch
from rtdetr_lab.structures.ranks import mean_over_ranks

Part = tuple[Batch, float]
"""Some pictures of a step, and their weight in the loss of the step."""


def split(batch: Batch, count: int) -> Iterator[Part]:
    """Cut a batch into `count` parts of nearly equal size, each with its weight in the loss."""
    if count == 1:
        yield batch, 1.0
        return
    device = batch.images.device
    total = mean_over_ranks(batch.targets.num_boxes, device)
    for rows in torch.arange(len(batch)).tensor_split(count):
        part = batch[int(rows[0]) : int(rows[-1]) + 1]
        yield part, mean_over_ranks(part.targets.num_boxes, device) / total
