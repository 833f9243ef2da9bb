"""One process of a run on several.

    RANK=… WORLD_SIZE=… python tests/programs/ranks_run.py KIND OUT

`steps`: two steps of a small detector on a batch with (1, 9) boxes for rank 0, (0, 5) for rank 1;
weights, and the gradients of the first step, go to OUT. `train`: the toy through `lab.train`, whose
run folder is OUT.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from small import shaken, small
from training_toy import Toy, ToyData

from rtdetr_lab.structures import Batch, Targets
from rtdetr_lab.training import TrainConfig, train
from rtdetr_lab.training.distributed import join_processes
from rtdetr_lab.training.trainer import Trainer

CPU = torch.device("cpu")
COUNTS = (1, 0, 9, 5)
QUIET = {"denoising.label_noise": 0.0, "denoising.box_noise": 0.0}


def batch(seed):
    """Four pictures; every second one is a rank's."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 64, 64, generator=generator, dtype=torch.float64)
    pictures = []
    for count in COUNTS:
        labels = torch.randint(5, (count,), generator=generator)
        boxes = 0.25 + 0.5 * torch.rand(count, 4, generator=generator, dtype=torch.float64)
        pictures.append({"labels": labels, "boxes": boxes})
    return images, pictures


def steps():
    """Weights and first gradients after two steps; no clipping, which would hide their scale."""
    torch.set_default_dtype(torch.float64)
    with join_processes(CPU, 4) as world:
        torch.manual_seed(0)
        model = shaken(small(QUIET).build())
        for module in model.modules():  # live statistics would be those of a rank
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)
        config = TrainConfig(num_pictures=40, batch_size=4, warmup_steps=0, clip_norm=1e9)
        trainer, gradients = Trainer(model, config, CPU), {}
        for seed in (1, 2):
            images, pictures = batch(seed)
            share = Targets.of(world.share(pictures))
            trainer.learn(Batch(images[world.rank :: world.size], share))
            if not gradients:
                named = trainer.model.named_parameters()
                gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}
    return {"weights": trainer.model.state_dict(), "gradients": gradients}


def main(kind, out):
    torch.set_num_threads(1)
    if kind == "steps":
        torch.save(steps(), out)
    else:
        config = TrainConfig(num_pictures=24, batch_size=4, log_every=1, save_every=3)
        run = train(Toy(), ToyData(), out, config, stop_after=4, device="cpu", progress=False)
        print(run.step, run.folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
