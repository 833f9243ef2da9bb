r"""# Renaming: a table, read in both directions

`to_ours` and `to_theirs` turn one name into another, or say that the table has none.
`import_tensors` and `export_tensors` do it for a whole file and take care of the one thing that is
not a name: the authors keep $W_q, W_k, W_v$ of an attention stacked in one matrix.

| theirs                        | ours                                                     |
|-------------------------------|----------------------------------------------------------|
| `self_attn.in_proj_weight`    | `self_attn.{q_proj, k_proj, v_proj}.weight`, thirds of it |
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from rtdetr_lab.checkpoints.tables import TABLES, Table
from rtdetr_lab.checkpoints.tables_detr import DETR_MASK_TABLES, DETR_TABLES
from rtdetr_lab.errors import CheckpointError

NUMBERS = {"i": r"\d+", "j": r"\d+", "k": r"\d+", "n": r"[1-9]\d*", "p": r".+"}
ALL_TABLES = (*TABLES, *DETR_TABLES, *DETR_MASK_TABLES)
THIRDS = ("q_proj", "k_proj", "v_proj")


def to_ours(table: Table, name: str) -> str | None:
    """Our name of their tensor (`in_proj` where it has to be split), `None` if there is none."""
    for pattern, replacement in table.aliases:
        name = re.sub(pattern, replacement, name)
    return _translate(_rules(table.title)[1], name)


def to_theirs(table: Table, name: str) -> str | None:
    """Their name, in a file, of our tensor; `None` if there is none."""
    return _translate(_rules(table.title)[0], name)


def table_of(names: Iterable[str]) -> Table | None:
    """The table a file's names are written in, `None` for ours or a foreign file."""
    names = list(names)
    found = [t for t in ALL_TABLES if any(n.startswith(t.probes) for n in names)]

    def count(table: Table) -> int:
        return sum(to_ours(table, name) is not None for name in names)

    # Two papers' files may begin alike: the table that can name most of the tensors is the one.
    return max(found, key=count, default=None)


def is_derived(table: Table, name: str) -> bool:
    """Whether the tensor follows from the configuration, so that it need not be read."""
    return any(re.search(pattern, name) for pattern in table.derived)


def under_our_names(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of any file: as they are, or imported by the table they are named in."""
    table = table_of(tensors)
    return import_tensors(table, tensors, where) if table else dict(tensors)


def import_tensors(table: Table, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A file of theirs under our names; what the table cannot name keeps its own.

    Raises `CheckpointError` if two names for one tensor hold different values.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_derived(table, name):
            continue
        for new, part in _split(to_ours(table, name) or name, tensor).items():
            if new in ours and not torch.equal(ours[new], part):
                what = f"differs from another tensor that is also our {new!r}"
                raise CheckpointError(f"{where}[{name}]", what, "remove the one that is wrong")
            ours[new] = part
    return ours


def export_tensors(table: Table, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Our state dict under their names. Raises `CheckpointError` for what they cannot hold."""
    theirs = {}
    joined = _join(tensors) if table.stacks_attention else tensors
    for name, tensor in joined.items():
        new = to_theirs(table, name)
        if new is None:
            what, remedy = f"has no name in {table.title}", 'save with layout="lab"'
            raise CheckpointError(f"{where}[{name}]", what, remedy)
        theirs[new] = tensor
    return theirs


def _split(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if ".in_proj." not in name or tensor.ndim == 0 or len(tensor) % 3:
        return {name: tensor}
    parts = zip(THIRDS, tensor.chunk(3), strict=True)
    return {name.replace("in_proj", third): part for third, part in parts}


def _join(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = re.sub(r"_attn\.[qkv]_proj\.", "_attn.in_proj.", name)
        if whole == name:
            joined[name] = tensor
        elif whole not in joined:
            parts = [tensors[whole.replace("in_proj", third)] for third in THIRDS]
            joined[whole] = torch.cat(parts)
    return joined


Rule = tuple[re.Pattern[str], str]


@lru_cache
def _rules(title: str) -> tuple[list[Rule], list[Rule]]:
    """Both directions of a table: patterns, and what a name that fits becomes."""
    table = next(t for t in ALL_TABLES if t.title == title)
    rows = table.rows
    for word, pairs in table.words.items():
        rows = tuple(
            (ours.replace(f"<{word}>", a), theirs.replace(f"<{word}>", b))
            for ours, theirs in rows
            for a, b in (pairs if f"<{word}>" in ours else pairs[:1])
        )
    return (
        [_compiled(ours, theirs) for ours, theirs in rows],
        [_compiled(theirs, ours) for ours, theirs in rows],
    )


def _compiled(old: str, new: str) -> Rule:
    pattern = re.escape(old)
    for letter, number in NUMBERS.items():
        pattern = pattern.replace(f"<{letter}>", f"(?P<{letter}>{number})")
    return re.compile(pattern), re.sub(r"<(\w)>", r"\\g<\1>", new)


def _translate(rules: list[Rule], name: str) -> str | None:
    matches = ((pattern.fullmatch(name), template) for pattern, template in rules)
    return next((match.expand(template) for match, template in matches if match), None)
