"""# Training: one step, theirs and ours, from the same weights

A step is the forward pass with denoising, the matching, all losses, and the backward pass. It has
no optimiser step, because both use torch's optimiser.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.deployment.bench.subjects import BASE, Case, model_of, theirs
from rtdetr_lab.deployment.bench.timing import CLOCKS, Subject, Times, interleaved
from rtdetr_lab.kernels.fused_sampler import fast_training
from rtdetr_lab.structures import Targets


def bench_training(case: Case, rounds: int, clock: str = "wall") -> dict[str, Times]:
    """Time their training step and ours."""
    subjects = {
        BASE: their_step(case),
        f"{BASE}, autocast bf16": their_step(case, True),
        "ours": our_step(case),
        "ours, bf16": our_step(case, True),
    }
    return interleaved(subjects, rounds, 1, clock=CLOCKS[clock])


def objects(case: Case, each: int = 7) -> list[dict[str, Tensor]]:
    """Make as many objects in every picture as COCO has on average."""
    generator = torch.Generator().manual_seed(1)

    def one() -> dict[str, Tensor]:
        centre = 0.3 + 0.4 * torch.rand(each, 2, generator=generator)
        side = 0.05 + 0.4 * torch.rand(each, 2, generator=generator)
        labels = torch.randint(80, (each,), generator=generator)
        return {"labels": labels, "boxes": torch.cat([centre, side], 1)}

    return [{k: v.to(case.device) for k, v in one().items()} for _ in range(case.batch)]


def our_step(case: Case, amp: bool = False) -> Subject:
    """Make our step, like `lab.train`: channels last, and in bfloat16 if `amp`."""
    model: Any = copy.deepcopy(model_of(case.preset)).to(case.device).train()
    model = fast_training(model.to(memory_format=torch.channels_last), torch.device(case.device))
    criterion = model.cfg.criterion.build()
    images = case.images().contiguous(memory_format=torch.channels_last)
    targets = Targets.of(objects(case))

    def step() -> object:
        model.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            prediction = model(images, targets)
        losses: Mapping[str, Tensor] = criterion(prediction, targets)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        return total.detach()

    return step


def their_step(case: Case, amp: bool = False) -> Subject:
    """Make a step with transformers' model and loss."""
    model, images = theirs(case).train(), case.images()
    labels = [{"class_labels": o["labels"], "boxes": o["boxes"]} for o in objects(case)]

    def step() -> object:
        model.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            loss = model(images, labels=labels).loss
        loss.backward()
        return loss.detach()

    return step
