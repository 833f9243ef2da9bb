"""# Notebook: helpers that all notebooks need

    from rtdetr_lab.notebook import check, cost, count_found, online, seeded, shapes, source

`source` shows code of the package, so that a notebook never repeats it. `check` compares the answer
to an exercise with a computed one. `cost` counts parameters and floating-point operations,
`count_found` counts the objects that a prediction finds. `shapes`, `chelsea`, `coffee` and
`astronaut` return pictures without a network; `online` returns True if there is one.
"""

import os
import socket
import textwrap
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlparse

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rtdetr_lab.boxes import iou, xyxy_from_cxcywh
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import LayerPrediction, Prediction, Targets


def seeded(seed: int = 0) -> torch.Generator:
    """Seed torch's random numbers, and return a separate generator."""
    torch.manual_seed(seed)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=100)
    return torch.Generator().manual_seed(seed)


# --- pictures -----------------------------------------------------------------------------------


def shapes(*indices: int) -> tuple[Float[Tensor, "B 3 H W"], Targets]:
    """Return validation pictures of the shapes world, and their targets."""
    from rtdetr_lab.data.batch import collate
    from rtdetr_lab.data.shapes import VAL, ShapesDataset

    world = ShapesDataset(seed=VAL)
    batch = collate([world[i] for i in indices])
    return batch.images, batch.targets


def chelsea(size: Size = (256, 256)) -> Float[Tensor, "1 3 h w"]:
    """Return scikit-image's cat, resized for the model."""
    return _photo("chelsea", size)


def coffee(size: Size = (256, 256)) -> Float[Tensor, "1 3 h w"]:
    """Return a cup, a spoon and a table."""
    return _photo("coffee", size)


def astronaut(size: Size = (256, 256)) -> Float[Tensor, "1 3 h w"]:
    """Return Eileen Collins; NASA, public domain."""
    return _photo("astronaut", size)


def _photo(name: str, size: Size) -> Tensor:
    import skimage.data

    return Preprocess(size)(getattr(skimage.data, name)())[None]


def online(seconds: float = 2.0) -> bool:
    """Return True if the hub can be reached, else print a line. Respects `HF_HUB_OFFLINE`."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in {"1", "true", "yes", "on"}:
        home = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
        port = home.port or (443 if home.scheme == "https" else 80)
        try:
            socket.create_connection((home.hostname or "", port), timeout=seconds).close()
            return True
        except OSError:
            pass
    print("Skipped: this cell loads weights from the hub, and the hub cannot be reached.")
    return False


# --- code ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Code with its file and line. A notebook shows it highlighted, a terminal as plain text."""

    code: str
    place: str

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.code}\n```\n*{self.place}*"

    def __repr__(self) -> str:
        return f"{self.code}\n# {self.place}"


def source(thing: Any, doc: bool = False) -> Source:
    """Return the source of a function, method or class; `doc` keeps its docstrings."""
    import inspect

    lines, first = inspect.getsourcelines(thing)
    code = textwrap.dedent("".join(lines)).rstrip()
    module = inspect.getmodule(thing)
    name = module.__name__ if module else "notebook"
    where = f"{name.replace('.', '/')}.py, line {first}"
    return Source(code if doc else _without_docstrings(code), where)


def _without_docstrings(code: str) -> str:
    import ast

    lines, kinds = code.split("\n"), (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(ast.parse(code)):
        # If the body is only a docstring, it must stay.
        if isinstance(node, kinds) and ast.get_docstring(node) and len(node.body) > 1:
            first, after = node.body[0], node.body[1]
            start = min([after.lineno] + [d.lineno for d in getattr(after, "decorator_list", [])])
            for number in range(first.lineno - 1, min(start - 1, first.end_lineno or 0)):
                lines[number] = "\0"
            if lines[first.end_lineno or 0].strip() == "":
                lines[first.end_lineno or 0] = "\0"
    return "\n".join(line for line in lines if line != "\0")


# --- exercises ----------------------------------------------------------------------------------


def check(answer: Any, expected: Any, hint: str = "", tolerance: float = 1e-3) -> None:
    """Print whether an answer is right; `...` means that there is none yet.

    Numbers and tensors may differ by `tolerance`, relative or absolute; other values must be equal.
    """
    if answer is ...:
        print("No answer yet: replace the `...` above. This cell, unfolded, is one way to find it.")
    elif _same(answer, expected, tolerance):
        print("Right.")
    else:
        print(f"Not {answer}." + (f" {hint}" if hint else ""))


def _same(answer: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(answer, bool | str | set | dict) or isinstance(expected, bool | str | set | dict):
        return bool(answer == expected)
    try:
        a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (answer, expected))
    except (TypeError, ValueError, RuntimeError):
        return bool(answer == expected)
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


# --- counts -------------------------------------------------------------------------------------


def count_hits(
    answer: Prediction | LayerPrediction, targets: Targets, overlap: float = 0.5
) -> Int[Tensor, "_"]:
    """Count the boxes on every object, picture by picture: score above 0.5, IoU above `overlap`."""
    hits = []
    for logits, boxes, objects in zip(answer.logits, answer.boxes, targets.boxes, strict=True):
        sure = logits.sigmoid().amax(-1) > 0.5
        ious = iou(xyxy_from_cxcywh(objects), xyxy_from_cxcywh(boxes[sure]))
        hits.append((ious > overlap).sum(1))
    return torch.cat(hits)


def count_found(
    answer: Prediction | LayerPrediction, targets: Targets, overlap: float = 0.5
) -> int:
    """Count the objects that have a box with a score above 0.5 and an IoU above `overlap`."""
    return int((count_hits(answer, targets, overlap) > 0).sum())


def count_good(answer: Prediction | LayerPrediction, targets: Targets) -> int:
    """Count the objects with a good box: score above 0.5, IoU above 0.75."""
    return count_found(answer, targets, 0.75)


# --- cost ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Parameters and floating-point operations (two per multiply-add) of a module's parts."""

    rows: tuple[tuple[str, int, int], ...]

    @property
    def params(self) -> int:
        """Parameters of the whole module."""
        return self.rows[-1][1]

    @property
    def flops(self) -> int:
        """Floating-point operations of the whole module in one call."""
        return self.rows[-1][2]

    def _repr_markdown_(self) -> str:
        lines = [f"| {n} | {p:,} | {f / 1e6:,.1f} |" for n, p, f in self.rows]
        return "\n".join(["| part | parameters | MFLOPs |", "|---|---:|---:|", *lines])

    def __repr__(self) -> str:
        wide = max(len(n) for n, *_ in self.rows)
        lines = [f"{n:<{wide}}  {p:>12,}  {f / 1e6:>12,.1f}" for n, p, f in self.rows]
        return "\n".join([f"{'part':<{wide}}  {'parameters':>12}  {'MFLOPs':>12}", *lines])


def cost(module: nn.Module, *inputs: Any) -> Cost:
    """Count one call of `module`, part by part.

    Convolutions and matrix products count; sampling, norms and activations do not, as in the
    papers' tables.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    counts, root = counter.get_flop_counts(), type(module).__name__
    rows = []
    for name, child in module.named_children():
        flops = sum(counts.get(f"{root}.{name}", {}).values())
        rows.append((name, num_parameters(child), int(flops)))
    return Cost((*rows, ("all", num_parameters(module), int(counter.get_total_flops()))))


def num_parameters(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def milliseconds(call: Callable[[], Any], repeat: int = 5) -> float:
    """Measure the median time of a call, after a warm-up. Its cell needs the tag `varies`."""
    call()
    return 1000 * median(timeit.repeat(call, number=1, repeat=repeat))
