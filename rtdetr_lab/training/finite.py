r"""# Finite: who said NaN first?

A NaN spreads: one in a picture is in every score two hundred layers later, and in every weight one
step later. So a step that ends in one is not repaired and not skipped. It is made once more, with
the same pictures, the same weights and the same random numbers, and watched; the first thing that
is not finite is named, in the order in which a step computes:

| looked at   | named                                                              |
|-------------|--------------------------------------------------------------------|
| pictures    | the files whose pixels are not finite                              |
| weights     | the first parameter or buffer                                      |
| forward     | the first module whose output is not finite: the innermost one     |
| loss        | the first term                                                     |
| backward    | the module at whose output the gradient first is not finite        |

All of it costs nothing until it is needed, but for one copy of the state of torch's random numbers
per step (5 kB). Box logits may be infinite: an anchor that touches the border has no others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.checkpoints.strict import LARGEST
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures import Batch
from rtdetr_lab.training.parts import Part

MAY_BE_INFINITE = {"box_logits", "reference_logits"}
SLOWER = "lower --lr (it is {:g}) or --clip-norm, lengthen --warmup-steps, {}or see the pictures"
EXACTER = "compute in single precision (--fp32 in place of --amp), "

Terms = Callable[[Part], Mapping[str, Tensor]]

RandomState = tuple[Tensor, Tensor | None]
"""Where torch's random numbers stand, on the CPU and on the device of a run."""


def random_state(device: torch.device) -> RandomState:
    """The state before a step that may have to be made again."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_device


def set_random_state(device: torch.device, state: RandomState) -> None:
    """Go back to what `random_state` returned."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def first_fault(
    step: int, model: nn.Module, parts: Iterable[Part], terms: Terms | None, remedy: str
) -> TrainingError:
    """Name what is not finite first in a step, which `terms` makes once more, part by part; without
    it, only pictures and weights are looked at. The caller has put the random numbers back."""
    parts = list(parts)
    names = ", ".join(name for batch, _ in parts for name in batch.targets.pictures)
    where = f"step {step}" + (f" ({names})" if names else "")
    found = _in_weights(model, remedy)
    for part in parts:
        found = _in_pictures(part[0]) or found
        if terms and not found:
            found = _in_computation(model, part, terms, remedy)
        if found:
            return TrainingError(where, *found)
    if not terms:
        what = "the loss or its gradient is not finite in one of the processes"
        return TrainingError(where, what, "resume with one process, which says more")
    return TrainingError(where, "the gradient is finite, but too long to be measured", remedy)


def slower(lr: float, in_half_precision: bool) -> str:
    """What to do about a run that diverges: half precision is blamed only where it is used."""
    return SLOWER.format(lr, EXACTER if in_half_precision else "")


def check_weights(step: int, model: nn.Module, remedy: str) -> None:
    """Raise `TrainingError` where a run has diverged: a weight of its average is not finite, or
    larger than any that could be loaded again."""
    if found := _in_weights(model, remedy):
        raise TrainingError(f"step {step}", *found)


def _in_pictures(batch: Batch) -> tuple[str, str] | None:
    if not (rows := _bad_rows(batch.images)):
        return None
    called = [_name(batch.targets.pictures, row) for row in rows]
    remedy = "look at the file, and at the transforms that come between it and the model"
    return f"the pixels of {', '.join(called)} are not finite", remedy


def _in_weights(model: nn.Module, remedy: str) -> tuple[str, str] | None:
    remedy = f"the step before it, or the file it came from, is to blame: {remedy}"
    for kind, named in (("weight", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            if not bool(torch.isfinite(tensor).all()):
                return f"the {kind} {name} is not finite", remedy
            if tensor.numel() and (most := float(tensor.detach().abs().max())) > LARGEST:
                return f"the {kind} {name} has grown to {most:.0e}: the run diverges", remedy
    return None


def _in_computation(
    model: nn.Module, part: Part, terms: Terms, remedy: str
) -> tuple[str, str] | None:
    computed: Mapping[str, Tensor] = {}
    with Watch(model, part[0]) as watch:
        try:
            computed = terms(part)
        except TrainingError as error:  # the matching, which refuses what is not finite
            return f"{watch.output or f'{error.where}: {error.what}'}", remedy
        if watch.output:
            return watch.output, remedy
        for name, term in computed.items():
            if not bool(torch.isfinite(term)):
                return f"every module's output is finite, but the loss {name} is {term:g}", remedy
        model.zero_grad(set_to_none=True)
        torch.stack(list(computed.values())).sum().backward()
    grads = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    bad = next((n for n, grad in grads if not bool(torch.isfinite(grad).all())), None)
    gradient = watch.gradient or (bad and f"the gradient of {bad}")
    return (f"the loss is finite, but {gradient} is not", remedy) if gradient else None


class Watch:
    """While entered: the first module whose output, and the first whose output's gradient, is not
    finite. Modules are heard in the order in which they finish, so that inner ones come first."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model, self.pictures, self.size = model, batch.targets.pictures, len(batch)
        self.output: str | None = None
        self.gradient: str | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> "Watch":
        for name, module in self.model.named_modules():
            called = f"{name or 'the model'} ({type(module).__name__})"
            look = partial(self._forward, called)
            self._handles.append(module.register_forward_hook(look))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _forward(self, called: str, module: nn.Module, args: Any, output: Any) -> None:
        if self.output:
            return
        for tensor, may_be_infinite in floats(output):
            if bad := _bad_rows(tensor, may_be_infinite):
                self.output = f"the output of {called} is not finite{self._of(tensor, bad)}"
                return
            if tensor.requires_grad:
                tensor.register_hook(partial(self._backward, called))

    def _backward(self, called: str, gradient: Tensor) -> None:
        if not self.gradient and _bad_rows(gradient):
            self.gradient = f"the gradient that comes back to the output of {called}"

    def _of(self, tensor: Tensor, bad: list[int]) -> str:
        if tensor.shape[0] != self.size or len(bad) == self.size:
            return ""
        return f" for {', '.join(_name(self.pictures, row) for row in bad)}"


def floats(value: Any, name: str = "") -> Iterator[tuple[Tensor, bool]]:
    """Tensors of floats in what a module returned, and whether they may be infinite."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value, name in MAY_BE_INFINITE
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from floats(one, str(key))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from floats(one, name)
    elif is_dataclass(value):
        for field in fields(value):
            yield from floats(getattr(value, field.name), field.name)


def _bad_rows(tensor: Tensor, may_be_infinite: bool = False) -> list[int]:
    """Where along the first dimension (0 for a number) something is not finite."""
    bad = tensor.isnan() if may_be_infinite else ~tensor.isfinite()
    if not bool(bad.any()):
        return []
    rows = bad.reshape(bad.shape[0] if bad.ndim else 1, -1).any(1)
    return [int(row) for row in rows.nonzero()[:, 0]]


def _name(pictures: tuple[str, ...], row: int) -> str:
    return pictures[row] if pictures else f"picture {row} of the batch"
