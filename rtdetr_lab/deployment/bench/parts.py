"""# Parts: where a picture's time goes, and what each part has to do

Seconds are measured by hooks around the parts of the model that an engine really runs. FLOPs are
torch's own count (2 per multiply-add) for the deployed model. Bytes are what the layers of a part
read and write: weights, inputs and outputs, once each, as if there were no cache.
"""

import io
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from rtdetr_lab.checkpoints.hooks import after_each
from rtdetr_lab.deployment.backends import Plan, deployed
from rtdetr_lab.deployment.bench.subjects import Case, model_of
from rtdetr_lab.deployment.bench.timing import CLOCKS, wait
from rtdetr_lab.deployment.form import deploy, same
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.postprocess import found_in, ranked_table, sizes_beside
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.model import by_sigmoid

PARTS = ("backbone", "encoder", "to_memory", "proposals", "decoder")
TRAINED = {"proposals": ("proposal_head", "selection")}
"""Modules of a part that is several modules in the training form."""


@dataclass(frozen=True)
class Part:
    """Median seconds of a part; FLOPs and bytes where they are counted."""

    seconds: float
    flops: int = 0
    bytes: int = 0


def split(case: Case, dtype: torch.dtype, rounds: int, clock: str = "wall") -> dict[str, Part]:
    """Measure decoding, preprocessing, the parts of the model, and postprocessing."""
    images, read = case.images(), CLOCKS[clock]
    work = work_of(deploy(model_of(case.preset), same).to(case.device), images)
    plan = Plan(case.size, [case.batch], dtype, torch.device(case.device))
    model = deployed(model_of(case.preset), plan)
    images = images.to(dtype, memory_format=torch.channels_last)
    taken: dict[str, list[float]] = defaultdict(list)
    for name in PARTS:
        _clock(model.get_submodule(name), taken[name], read)
    photo, sizes = _photo(), sizes_beside(images, [(480, 640)] * case.batch)
    with torch.inference_mode():
        for _ in range(rounds + 1):
            rgb = _timed(taken["decode"], partial(decode, photo), read)
            stretch = partial(Preprocess(case.size).batch, [rgb] * case.batch)
            _timed(taken["preprocess"], stretch, read)
            found = model(images)
            finish = partial(_finish, found.logits, found.boxes, sizes)
            _timed(taken["postprocess"], finish, read)
    order = ("decode", "preprocess", *PARTS, "postprocess")
    medians = {name: statistics.median(taken[name][1:]) for name in order}
    counted = {name: work.get(name, (0, 0)) for name in order}
    size = dtype.itemsize / torch.float32.itemsize
    return {n: Part(medians[n], flops, int(moved * size)) for n, (flops, moved) in counted.items()}


@torch.inference_mode()
def seconds_of(
    model: nn.Module, images: Tensor, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Time every part of a model, in its training or its deploy form.

    We return the minimum over all rounds, so that other work on the machine does not count.
    """
    taken: dict[str, list[float]] = {m: [] for part in PARTS for m in modules_of(model, part)}
    handles = []
    for module, seconds in taken.items():
        handles += _clock(model.get_submodule(module), seconds, clock)
    for _ in range(rounds + 1):
        model(images)
    for handle in handles:
        handle.remove()
    least = {module: min(each[1:]) for module, each in taken.items()}
    return {part: sum(least[m] for m in modules_of(model, part)) for part in PARTS}


def modules_of(model: nn.Module, part: str) -> tuple[str, ...]:
    """Return the names of the submodules that make up a part of RT-DETR."""
    return (part,) if hasattr(model, part) else TRAINED[part]


def work_of(model: nn.Module, images: Tensor) -> dict[str, tuple[int, int]]:
    """Count the FLOPs and the bytes moved by every part of a deployed model, before packing."""
    moved: dict[str, int] = defaultdict(int)
    layers = {path: m for path, m in model.named_modules() if not list(m.children())}

    def note(path: str, given: Any, made: Any) -> None:
        tensors = [t for t in (*given, made, *layers[path].parameters()) if isinstance(t, Tensor)]
        moved[path.partition(".")[0]] += sum(t.numel() * t.element_size() for t in tensors)

    counter = FlopCounterMode(display=False, depth=3)
    with torch.no_grad(), counter, after_each(layers, note):
        model(images)
    flops = counter.get_flop_counts()
    root = type(model).__name__
    return {p: (sum(flops[f"{root}.{p}"].values()), moved[p]) for p in PARTS}


def _clock(
    module: nn.Module, taken: list[float], clock: Callable[[], float] = time.perf_counter
) -> list[RemovableHandle]:
    started: list[float] = []

    def before(module: nn.Module, given: Any) -> None:
        wait()
        started.append(clock())

    def after(module: nn.Module, given: Any, made: Any) -> None:
        wait()
        taken.append(clock() - started.pop())

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def _timed(taken: list[float], run: Callable[[], Any], clock: Callable[[], float]) -> Any:
    start = clock()
    made = run()
    taken.append(clock() - start)
    return made


def _finish(logits: Tensor, boxes: Tensor, sizes: Tensor) -> object:
    return found_in(ranked_table(by_sigmoid, logits, boxes, sizes).cpu(), 0.5)


def _photo() -> bytes:
    noise = torch.randint(0, 256, (60, 80, 3), dtype=torch.uint8).numpy()
    picture = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()
