r"""# Loading: from the arguments of `from_pretrained` to the tensors of a model

A tensor that the model needs and the file lacks is new, and a warning names it. This happens on
request only: if the caller changes the configuration, or asks for a class with other heads than the
file has. All other tensors must fit (`checkpoints/strict.py`).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.checkpoints.load import Opened
from rtdetr_lab.checkpoints.strict import fit, is_class_head, num_classes_of
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.writing import first_few

log = logging.getLogger("rtdetr_lab")

HEADS = ("mask_", "class_head.", "box_head.", "decoder.class_heads.", "decoder.box_heads.")
"""First letters of the tensors that one documented class has and another has not."""


class NoHead(nn.Module):
    """Stands for a head that a model does not have: zeros of a width, which move no box."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, content: Tensor) -> Tensor:
        """Return zeros."""
        return content.new_zeros(*content.shape[:-1], self.width)


def draw_anew(lab: nn.Module, spread: float, *, kept: tuple[str, ...]) -> None:
    """Draw the weights of convolutions and linear maps anew from N(0, spread²); biases become zero.

    Modules with a name in `kept` keep their own start: heads, sampling points.
    """
    for name, part in lab.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and not any(word in name for word in kept):
            nn.init.normal_(part.weight, std=spread)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def changes_among(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the changes of the configuration among `told`; refuse what would have no effect."""
    changes = dict(told)
    kind, known = changes.pop("attn_implementation", None), (None, "eager", "sdpa")
    remedy = 'give "eager" or "sdpa", or leave it out'
    require(kind in known, "attn_implementation", f"is {kind!r}", remedy)
    there, wanted = (folder / "model.safetensors").is_file(), changes.pop("use_safetensors", None)
    what = f"is {wanted}, but the folder has {'a' if there else 'no'} model.safetensors"
    require(wanted in (None, there), "use_safetensors", what, "leave it out", CheckpointError)
    return changes


def device_of(given: Any) -> torch.device | None:
    if isinstance(given, Mapping) and len(given) == 1:
        (given,) = given.values()
    if given == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return None if given is None else torch.device(given)
    except (RuntimeError, TypeError) as error:
        what, remedy = f"is {given!r}", 'give one device, or "auto": we do not split models'
        raise ConfigError("device_map", what, remedy) from error


def dtype_of(given: Any, tree: Mapping[str, Any], found: Opened) -> torch.dtype | None:
    if given == "auto":
        first = next(t.dtype for t in found.tensors.values() if t.is_floating_point())
        given = tree.get("dtype") or tree.get("torch_dtype") or first
    kind = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    usable = kind is None or (isinstance(kind, torch.dtype) and kind.is_floating_point)
    usable = usable and (kind is not None or given is None)
    require(usable, "dtype", f"is {given!r}", 'give torch.float16, "float16" or "auto"')
    return kind


def fill(
    lab: Any, found: Opened, anything: bool = False, new_shapes: bool = False
) -> dict[str, list[str]]:
    """Copy the tensors of a checkpoint into `lab`; return what was missing or left over.

    Heads may differ, because the documented classes differ in them. With `anything`, because the
    caller changed the configuration, other tensors may be missing or left over, too. Tensors of
    another shape are an error unless `new_shapes`. New tensors are named in a warning. Raises
    `CheckpointError`.
    """
    mine, given = lab.state_dict(), found.tensors
    missing = [n for n in _apart(mine, given, anything) if not n.endswith("num_batches_tracked")]
    extra = _apart(given, mine, anything)
    odd = [n for n in mine if n in given and mine[n].shape != given[n].shape]
    if odd and not new_shapes:
        classes = all(is_class_head(name) for name in odd)
        what = f"has {first_few(odd)} in other shapes than the configuration asks for"
        if classes:
            what = f"was trained for {num_classes_of(given)} classes, "
            what += f"but {num_classes_of(mine)} are requested"
        remedy = "set ignore_mismatched_sizes=True to train these tensors anew"
        raise CheckpointError(found.where, what, remedy)
    fit(lab, {n: t for n, t in given.items() if n not in extra}, found.where, new=missing + odd)
    if missing or odd:
        names = first_few(missing + odd)
        log.warning("%s: these tensors are new and must be trained: %s", found.where, names)
    return {"missing_keys": missing, "unexpected_keys": extra, "mismatched_keys": odd}


def _apart(names: Mapping[str, Tensor], other: Mapping[str, Tensor], anything: bool) -> list[str]:
    """Return the names that `other` lacks and may lack."""
    gone = [head for head in HEADS if not any(name.startswith(head) for name in other)]
    apart = [name for name in names if name not in other]
    return [name for name in apart if anything or name.startswith(tuple(gone))]
