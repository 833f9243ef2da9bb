r"""# Strict: every tensor accounted for

`load_state_dict` reports names in one long line and accepts `nan`. This file refuses a tensor that
is missing, left over, of another shape or kind of number, not finite, or too large. The error gives
its name, the number of other such tensors, and the remedy. One mismatch is common and has its own
way: another number of classes. **On request only**, the heads below start with new weights, and the
rest is loaded.

| head                              | shape      |
|-----------------------------------|------------|
| `proposal_head.class_head`        | `C D`, `C` |
| `decoder.class_heads.<i>`         | `C D`, `C` |
| `denoising.label_embedding`       | `(C+1) D`  |
| `class_head` of DETR              | `(C+1) D`, `C+1` |
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.writing import first_few

CLASS_HEADS = (
    r"proposal_head\.class_head\..+",
    r"decoder\.class_heads\.\d+\..+",
    r"denoising\.label_embedding\.weight",
    r"class_head\..+",
)
"""Tensors whose shape depends on the number of classes."""

OTHER_CONFIG = "give the config it was trained with as config="

LARGEST = 1e8
"""Limit far above every weight and statistic of a working detector.

One flipped bit of an exponent exceeds it, and the model's output overflows."""


def is_class_head(name: str) -> bool:
    """Return whether the shape of this tensor depends on the number of classes."""
    return any(re.fullmatch(pattern, name) for pattern in CLASS_HEADS)


def num_classes_of(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of the weights, or None without a class head."""
    heads = ("decoder.class_heads.0.weight", "proposal_head.class_head.weight", "class_head.weight")
    for name in heads:
        if name in tensors and tensors[name].ndim:
            return len(tensors[name]) - (name == heads[-1])  # DETR's last class is "no object"
    return None


def fit(
    model: nn.Module, tensors: Mapping[str, Tensor], where: str, *, new: Collection[str] = ()
) -> None:
    """Copy all of `tensors` into `model` and nothing else; tensors in `new` keep their values."""
    wanted = {n: t for n, t in model.state_dict().items() if n not in new}
    given = {n: t for n, t in tensors.items() if n not in new}
    given = _counters_settled(wanted, given)
    _check_names(wanted, given, where)
    _check_shapes(wanted, given, where)
    _check_values(wanted, given, where)
    model.load_state_dict(given, strict=not new)


def _counters_settled(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    # The number of batches that a norm has seen is a counter for training, not a weight. Frozen
    # norms have no counter, and neither do files that were written with frozen norms.
    ends = ".num_batches_tracked"
    unseen = {n: torch.zeros((), dtype=torch.long) for n in wanted if n.endswith(ends)}
    return unseen | {n: t for n, t in given.items() if n in wanted or not n.endswith(ends)}


def _check_names(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    alike = not (missing and extra and len(missing) > len(wanted) // 2)
    what = f"does not look like this model at all: it has {first_few(extra)}"
    require(alike, where, what, OTHER_CONFIG, CheckpointError)
    for names, what in ((missing, "lacks"), (extra, "has, unexpectedly,")):
        if names:
            at, remedy = f"{where}[{names[0]}]", f"{OTHER_CONFIG}, or download it again"
            raise CheckpointError(at, f"the file {what} {first_few(names)}", remedy)


def _check_shapes(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    other = [n for n in wanted if wanted[n].shape != given[n].shape]
    if not other:
        return
    if all(is_class_head(n) for n in other):
        has, model_has = num_classes_of(given), num_classes_of(wanted)
        what = f"was trained for {has} classes, the model has {model_has}"
        remedy = f"pass num_classes={has} to keep its class heads, or num_classes={model_has} "
        remedy += "to get new ones and load the rest"
        raise CheckpointError(where, what, remedy)
    found, needs = tuple(given[other[0]].shape), tuple(wanted[other[0]].shape)
    what = f"has shape {found}, the model needs {needs}"
    what += f" ({len(other) - 1} more such tensors)" if len(other) > 1 else ""
    raise CheckpointError(f"{where}[{other[0]}]", what, OTHER_CONFIG)


def _check_values(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in given.items():
        # copy_ would cast whole or complex numbers to weights without a warning.
        at, needs = f"{where}[{name}]", _kind(wanted[name])
        what = f"holds {tensor.dtype}, the model needs {needs} numbers"
        same = _kind(tensor) == needs
        require(same, at, what, "convert it to such numbers", CheckpointError)
        if needs == "real":
            _check_real(tensor, at, may_be_negative=not name.endswith("running_var"))


def _check_real(tensor: Tensor, where: str, *, may_be_negative: bool) -> None:
    kinds = {
        "variances are negative": (tensor < 0) & (not may_be_negative),
        "values are not finite": ~torch.isfinite(tensor),
        f"values are larger than {LARGEST:.0e}, too large for a weight": tensor.abs() > LARGEST,
    }
    for what, odd in kinds.items():
        if count := int(odd.sum()):
            remedy = "download it again, or take an earlier checkpoint"
            raise CheckpointError(where, f"{count} of its {tensor.numel()} {what}", remedy)


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "real" if tensor.is_floating_point() else "whole"
