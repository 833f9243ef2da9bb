r"""# Strict: every tensor accounted for

`load_state_dict` complains about names in one long line and lets a `nan` through. Here a tensor
that is missing, left over, of another shape or kind of number, not finite or beyond all bounds is
refused, with its name, how many more there are, and what to do. The one mismatch that is wanted
every day has its own door: another number of classes. Then, **on request only**, the heads below
start anew and the rest is loaded.

| head                              | shape      |
|-----------------------------------|------------|
| `proposal_head.class_head`        | `C D`, `C` |
| `decoder.class_heads.<i>`         | `C D`, `C` |
| `denoising.label_embedding`       | `(C+1) D`  |
| `class_head` of DETR              | `(C+1) D`, `C+1` |
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from rtdetr_lab.errors import CheckpointError

CLASS_HEADS = (
    r"proposal_head\.class_head\..+",
    r"decoder\.class_heads\.\d+\..+",
    r"denoising\.label_embedding\.weight",
    r"class_head\..+",
)
"""Tensors whose shape depends on the number of classes."""

LARGEST = 1e8
"""No weight or statistic of a detector that works comes near: one turned bit of an exponent does,
and what is computed from it overflows."""


def is_class_head(name: str) -> bool:
    """Does the shape of this tensor depend on the number of classes?"""
    return any(re.fullmatch(pattern, name) for pattern in CLASS_HEADS)


def num_classes_of(tensors: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights were trained for, `None` if they have no class head."""
    for name in ("decoder.class_heads.0.weight", "proposal_head.class_head.weight"):
        if name in tensors and tensors[name].ndim:
            return len(tensors[name])
    if "class_head.weight" in tensors and tensors["class_head.weight"].ndim:
        return len(tensors["class_head.weight"]) - 1  # DETR's last class is "no object"
    return None


def fit(model: nn.Module, tensors: Mapping[str, Tensor], where: str, *, reheaded: bool) -> None:
    """Copy `tensors` into `model`, all of them and nothing else; heads stay new if `reheaded`."""
    wanted = {n: t for n, t in model.state_dict().items() if not (reheaded and is_class_head(n))}
    given = {n: t for n, t in tensors.items() if not (reheaded and is_class_head(n))}
    given = _counters_settled(wanted, given)
    _check_names(wanted, given, where)
    _check_shapes(wanted, given, where)
    _check_kinds(wanted, given, where)
    _check_finite(given, where)
    model.load_state_dict(given, strict=not reheaded)


def _counters_settled(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    # How many batches a norm has seen is a counter for training, not a weight: frozen norms have
    # none, and files written with frozen norms lack it.
    ends = ".num_batches_tracked"
    settled = {n: t for n, t in given.items() if n in wanted or not n.endswith(ends)}
    for name in wanted:
        if name.endswith(ends) and name not in settled:
            settled[name] = torch.zeros((), dtype=torch.long)
    return settled


def _check_names(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing and extra and len(missing) > len(wanted) // 2:
        what = f"does not look like this model at all: it has {_few(extra)}"
        raise CheckpointError(where, what, "give the config it was trained with as config=")
    for names, what in ((missing, "lacks"), (extra, "has, unexpectedly,")):
        if names:
            remedy = "give the config it was trained with as config=, or download it again"
            raise CheckpointError(f"{where}[{names[0]}]", f"the file {what} {_few(names)}", remedy)


def _check_shapes(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    other = [n for n in wanted if wanted[n].shape != given[n].shape]
    if not other:
        return
    name = other[0]
    found, needs = tuple(given[name].shape), tuple(wanted[name].shape)
    if all(is_class_head(n) for n in other):
        has, model_has = num_classes_of(given), num_classes_of(wanted)
        what = f"was trained for {has} classes, the model has {model_has}"
        remedy = f"pass num_classes={has} to keep its class heads, or num_classes={model_has} "
        remedy += "to let them start anew and load the rest"
        raise CheckpointError(where, what, remedy)
    what = f"has shape {found}, the model needs {needs}"
    what += f" ({len(other) - 1} more such tensors)" if len(other) > 1 else ""
    remedy = "give the config it was trained with as config="
    raise CheckpointError(f"{where}[{name}]", what, remedy)


def _check_kinds(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in given.items():
        # copy_ would cast: a whole or complex number silently becomes a weight.
        if _kind(tensor) != _kind(wanted[name]):
            what = f"holds {tensor.dtype}, the model needs {_kind(wanted[name])} numbers"
            raise CheckpointError(f"{where}[{name}]", what, "convert it as it was meant")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            count = int((tensor < 0).sum())
            what = f"{count} of its {tensor.numel()} variances are negative"
            raise CheckpointError(f"{where}[{name}]", what, "download it again")


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "real" if tensor.is_floating_point() else "whole"


def _check_finite(given: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in given.items():
        if not tensor.is_floating_point():
            continue
        for ok, what in (
            (torch.isfinite(tensor), "are not finite"),
            (tensor.abs() <= LARGEST, f"are larger than {LARGEST:.0e}, which no weight is"),
        ):
            if count := int((~ok).sum()):
                what = f"{count} of its {tensor.numel()} values {what}"
                remedy = "download it again, or take an earlier checkpoint"
                raise CheckpointError(f"{where}[{name}]", what, remedy)


def _few(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
