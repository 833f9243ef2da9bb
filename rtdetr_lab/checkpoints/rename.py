r"""# Renaming: apply a table in both directions

`to_ours` and `to_theirs` translate one name, or return None if the table does not have it.
`import_tensors` and `export_tensors` translate a whole file. They also handle the one difference
that is more than a name: the authors stack $W_q, W_k, W_v$ of an attention in one matrix.

| theirs                        | ours                                                     |
|-------------------------------|----------------------------------------------------------|
| `self_attn.in_proj_weight`    | `self_attn.{q_proj, k_proj, v_proj}.weight`, a third each |
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from rtdetr_lab.checkpoints.tables import TABLES, Table
from rtdetr_lab.checkpoints.tables_detr import DETR_MASK_TABLES, DETR_TABLES
from rtdetr_lab.checkpoints.tables_dfine import DFINE_TABLES
from rtdetr_lab.checkpoints.tables_foreign import FOREIGN_TABLES
from rtdetr_lab.errors import CheckpointError

NUMBERS = {"i": r"\d+", "j": r"\d+", "k": r"\d+", "n": r"[1-9]\d*", "p": r".+"}
ALL_TABLES = (*TABLES, *DFINE_TABLES, *DETR_TABLES, *DETR_MASK_TABLES, *FOREIGN_TABLES)
THIRDS = ("q_proj", "k_proj", "v_proj")
INNER = ("backbone.model.", "backbone.conv_encoder.")
"""First letters of a backbone in the files of transformers' models without heads: their names lack
the prefix `model.`."""


def to_ours(table: Table, name: str) -> str | None:
    """Return our name of their tensor (`in_proj` if it must be split), or None."""
    for pattern, replacement in table.aliases:
        name = re.sub(pattern, replacement, name)
    return _translate(_rules(table.title)[1], name)


def to_theirs(table: Table, name: str) -> str | None:
    """Return the name of our tensor in their files, or None."""
    return _translate(_rules(table.title)[0], name)


def table_of(names: Iterable[str]) -> Table | None:
    """Return the table that names these tensors, or None for our names and unknown ones."""
    names = list(names)
    found = [t for t in ALL_TABLES if any(n.startswith(t.probes) for n in names)]

    def count(table: Table) -> int:
        return sum(to_ours(table, name) is not None for name in names)

    # Files of two papers may begin alike: take the table that names most of the tensors.
    return max(found, key=count, default=None)


def is_derived(table: Table, name: str) -> bool:
    """Return whether the tensor follows from the configuration and need not be read."""
    return any(re.search(pattern, name) for pattern in table.derived)


def under_our_names(
    tensors: Mapping[str, Tensor], where: str, table: Table | None = None
) -> dict[str, Tensor]:
    """Return the tensors of any file under our names; unknown names stay.

    Without a `table`, the names tell it.
    """
    if any(name.startswith(INNER) for name in tensors):
        tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
    table = table or table_of(tensors)
    return import_tensors(table, tensors, where) if table else dict(tensors)


def import_tensors(table: Table, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return their tensors under our names; a name that the table does not have stays.

    Raises `CheckpointError` if two names of one tensor have different values.
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
    """Return our tensors under their names; raise `CheckpointError` if one has no name."""
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
    """Return both directions of a table: patterns, and their replacements."""
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
