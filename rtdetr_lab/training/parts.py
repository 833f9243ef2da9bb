r"""# Parts: a step on more pictures than fit into memory

$$ \nabla \mathcal L = \sum_k \frac{N_k}{N}\, \nabla \mathcal L_k $$

With `accumulate` K, the pictures of a step go through the model in K parts, one after the other,
and their gradients are added up. The loss of a part is divided by its own number of objects $N_k$;
a picture must weigh the same whoever it shares its part with, so each part counts by its share of
the objects of the step. The mean of the means would be another loss.

`batch_size` stays the pictures of a step: order, augmentation (one size per step), schedule and the
place of a resume do not change with K. What is the same as in one piece, and what is not:

| what                         | in parts                                                         |
|------------------------------|------------------------------------------------------------------|
| matched and proposal terms   | the same, where the class loss is divided by objects             |
| DETR's cross-entropy         | near it: it is divided by weights, which are counted per part    |
| denoising terms              | the same mean per object, over groups and noise drawn per part   |
| live batch norm              | sees the statistics of a part (frozen: the same)                 |
"""

from collections.abc import Iterator

import torch

from rtdetr_lab.structures import Batch
from rtdetr_lab.structures.ranks import mean_over_ranks

Part = tuple[Batch, float]
"""Some pictures of a step, and their weight in its loss."""


def split(batch: Batch, count: int) -> Iterator[Part]:
    """Cut a batch into `count` parts as even as can be, each with its weight in the loss."""
    if count == 1:
        yield batch, 1.0
        return
    device = batch.images.device
    total = mean_over_ranks(batch.targets.num_boxes, device)
    for rows in torch.arange(len(batch)).tensor_split(count):
        part = batch[int(rows[0]) : int(rows[-1]) + 1]
        yield part, mean_over_ranks(part.targets.num_boxes, device) / total
