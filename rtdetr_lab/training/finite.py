r"""# Finite: where does the first NaN come from?

A NaN spreads. One NaN in a picture is in every score two hundred layers later, and in every weight
one step later. So a step with a NaN is neither repaired nor skipped. The step runs once more, with
the same pictures, weights and random numbers, and we check every value. The error names the first
one that is not finite, in the order in which a step computes:

| checked     | the error names                                                    |
|-------------|--------------------------------------------------------------------|
| pictures    | the files with pixels that are not finite                          |
| weights     | the first parameter or buffer                                      |
| forward     | the first module with an output that is not finite: the innermost one |
| loss        | the first term                                                     |
| backward    | the module at whose output the gradient first is not finite        |

A step without a fault pays only for one copy of the state of the random numbers (10 kB). Box logits
may be infinite: an anchor that touches the border has infinite logits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.checkpoints.hooks import after_each
from rtdetr_lab.checkpoints.strict import LARGEST
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures import Batch
from rtdetr_lab.training.memory import Part

MAY_BE_INFINITE = {"box_logits", "reference_logits"}
SLOWER = "lower --lr (it is {:g}) or --clip-norm, raise --warmup-steps, {}or look at the pictures"
EXACTER = "compute in single precision (--fp32 in place of --amp), "

Terms = Callable[[Part], Mapping[str, Tensor]]
Fault = tuple[str, str]
"""Two texts: which value is not finite, and the remedy."""


def first_fault(
    step: int, model: nn.Module, parts: Iterable[Part], terms: Terms | None, remedy: str
) -> TrainingError:
    """Return an error that names what is not finite first in a step.

    `terms` computes the step again, part by part; without it, only pictures and weights are
    checked. The caller has restored the random numbers.
    """
    parts = list(parts)
    names = ", ".join(name for batch, _ in parts for name in batch.targets.pictures)
    where = f"step {step}" + (f" ({names})" if names else "")
    return TrainingError(where, *next(_faults(model, parts, terms, remedy)))


def _faults(
    model: nn.Module, parts: Iterable[Part], terms: Terms | None, remedy: str
) -> Iterator[Fault]:
    for part in parts:
        yield from _in_pictures(part[0])
        yield from _in_weights(model, remedy)
        if terms and (what := _in_computation(model, part, terms)):
            yield what, remedy
    if not terms:
        what = "the loss or its gradient is not finite in one of the processes"
        yield what, "resume with one process: it can name the module"
    yield "the gradient is finite, but its norm is not", remedy


def slower(lr: float, in_half_precision: bool) -> str:
    """Return the advice for a run that diverges; half precision only if the run uses it."""
    return SLOWER.format(lr, EXACTER if in_half_precision else "")


def check_weights(step: int, model: nn.Module, remedy: str) -> None:
    """Raise `TrainingError` if a run has diverged: a weight of its average is not finite, or larger
    than any that could be loaded again."""
    for fault in _in_weights(model, remedy):
        raise TrainingError(f"step {step}", *fault)


def _in_pictures(batch: Batch) -> Iterator[Fault]:
    if rows := _bad_rows(batch.images):
        remedy = "check the file, and the transforms between the file and the model"
        yield f"the pixels of {_names(batch, rows)} are not finite", remedy


def _in_weights(model: nn.Module, remedy: str) -> Iterator[Fault]:
    remedy = f"the cause is the step before, or the file of the weights: {remedy}"
    for kind, named in (("weight", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            if not bool(torch.isfinite(tensor).all()):
                yield f"the {kind} {name} is not finite", remedy
            elif tensor.numel() and (most := float(tensor.detach().abs().max())) > LARGEST:
                yield f"the {kind} {name} has grown to {most:.0e}: the run diverges", remedy


def _in_computation(model: nn.Module, part: Part, terms: Terms) -> str | None:
    with watch(model, part[0]) as (outputs, gradients):
        try:
            computed = terms(part)
        except TrainingError as error:  # the matching raises it for a cost that is not finite
            return outputs[0] if outputs else f"{error.where}: {error.what}"
        if outputs:
            return outputs[0]
        for name, term in computed.items():
            if not bool(torch.isfinite(term)):
                return f"every module's output is finite, but the loss {name} is {term:g}"
        model.zero_grad(set_to_none=True)
        torch.stack(list(computed.values())).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and _bad_rows(parameter.grad):
            gradients.append(f"the gradient of {name}")
    return f"the loss is finite, but {gradients[0]} is not" if gradients else None


@contextmanager
def watch(model: nn.Module, batch: Batch) -> Iterator[tuple[list[str], list[str]]]:
    """Yield two lists that fill while the block runs: modules with an output, and with a gradient
    at their output, that is not finite.

    A module is checked when it finishes, so inner modules come first.
    """
    outputs, gradients = list[str](), list[str]()

    def look(called: str, _: Any, output: Any) -> None:
        for tensor, may_be_infinite in floats(output):
            if bad := _bad_rows(tensor, may_be_infinite):
                some = tensor.shape[0] == len(batch) > len(bad)
                of = f" for {_names(batch, bad)}" if some else ""
                outputs.append(f"the output of {called} is not finite{of}")
                return
            if tensor.requires_grad:
                tensor.register_hook(partial(look_back, called))

    def look_back(called: str, gradient: Tensor) -> None:
        if _bad_rows(gradient):
            gradients.append(f"the gradient that comes back to the output of {called}")

    modules = {f"{n or 'the model'} ({type(m).__name__})": m for n, m in model.named_modules()}
    with after_each(modules, look):
        yield outputs, gradients


def floats(value: Any, name: str = "") -> Iterator[tuple[Tensor, bool]]:
    """Yield the float tensors in a module's output, each with whether it may be infinite."""
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
    """Return the indices along the first dimension (0 for a number) where a value is not finite."""
    bad = tensor.isnan() if may_be_infinite else ~tensor.isfinite()
    if not bool(bad.any()):
        return []
    rows = bad.reshape(bad.shape[0] if bad.ndim else 1, -1).any(1)
    return [int(row) for row in rows.nonzero()[:, 0]]


def _names(batch: Batch, rows: list[int]) -> str:
    pictures = batch.targets.pictures
    return ", ".join(pictures[row] if pictures else f"picture {row} of the batch" for row in rows)
