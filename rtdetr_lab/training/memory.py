r"""# Memory: what a step needs, and what to lower if there is too little

Activations take most of the memory. They grow with the area of the pictures, and with the number of
pictures that are in the model at the same time. torch reports how many bytes were missing; we
report which step needed them, and what to change.

## A step on more pictures than fit into memory

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
from contextlib import contextmanager

import torch

from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures import Batch
from rtdetr_lab.structures.ranks import mean_over_ranks
from rtdetr_lab.training.recipe import TrainConfig

ON_CPU = ("DefaultCPUAllocator", "not enough memory")


@contextmanager
def explain_full_memory(
    step: int, config: TrainConfig, size: tuple[int, ...], device: torch.device
) -> Iterator[None]:
    """Raise `TrainingError` with batch, size and remedy if torch runs out of memory.

    `size` is the shape of a batch.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        at_once = -(-config.batch_size // config.accumulate)
        height, width = size[-2:]
        what = f"out of memory on {device} with {at_once} of {config.batch_size} pictures of "
        what += f"{height}×{width} in the model at a time"
        raise TrainingError(f"step {step}", what, remedy(config, device)) from error


def is_full(error: RuntimeError) -> bool:
    """Return True if torch raised the error because memory is full. On the CPU it has no class for
    it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ON_CPU)


def remedy(config: TrainConfig, device: torch.device) -> str:
    """Name what to lower. What changes the result least comes first."""
    ways = []
    if config.accumulate < config.batch_size:
        more = min(2 * config.accumulate, config.batch_size)
        ways.append(f"use --accumulate {more} (the same step in smaller parts)")
    if not uses_amp(config.amp, device):
        ways.append("compute in bfloat16 with --amp")
    if config.batch_size > 1:
        ways.append(f"lower --batch-size to {config.batch_size // 2}")
    return ", or ".join([*ways, "lower --size"])


def uses_amp(asked: bool | None, device: torch.device) -> bool:
    """Return `asked`; if it is None, return True on a GPU that has bfloat16."""
    if asked is not None:
        return asked
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions for bfloat16: without them it is slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


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
