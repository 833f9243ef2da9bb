r"""# Taps: look inside a model, or edit values, without changing its code

- **Elsewhere** forward hooks in torch; `HookPoint` in TransformerLens; `self.sow` in flax

A chapter returns what the next stage needs. A value that only an observer needs gets one line,

    weights = tap("weights", weights)

A tap returns its value unchanged and only reads a global list, until you record:

    with record(model, keep="decoder.*") as seen:
        model(images)
    seen["decoder.layers.0.cross_attn.weights"]

**The full name of a tap is the path of its module, a dot, and the tap's own name**, relative to the
recorded model. A tap in that model itself has its bare name. A module does not store its path,
so `record` puts two hooks on every submodule that push and pop the path. It removes them at the
end, even after an error.

| argument | meaning                                                                          |
|----------|----------------------------------------------------------------------------------|
| `keep`   | one pattern or several, as in a shell: `*` is any text, dots included            |
| `edit`   | pattern → function; the model continues with what the function returns           |
| `grad`   | keep tensors attached to their graph; otherwise they are detached                |

A kept tensor is the one that the model continues with: after all edits, detached but **not
copied**. (So a chapter must never write in place into a tensor it has tapped.) A `record` sees only
its own thread.

An edit may read earlier taps from the record:

    near = lambda points: towards(points, seen["decoder.reference.0"])
    where = "decoder.layers.0.cross_attn.locations"
    with record(model, keep="decoder.reference.0", edit={where: near}) as seen:
        model(images)

With `grad=True`, the gradient with respect to a kept tensor covers everything that reads the tensor
after its tap; it equals the effect of a small change made by an edit. A tensor without a graph
(such as the first reference box, which selection detaches) becomes a leaf by an edit: `lambda box:
box.requires_grad_()`.

A `record` around code that becomes a graph raises. `gathering.py` is for `torch.compile`. A record
that is opened inside a non-strict `torch.export` becomes part of the graph, with its edits
(`deployment/tapped.py`).

`record` never fails silently. It raises `RecordError` if a pattern matched no tap, if the model
never ran, or if the model is compiled, scripted or exported (its Python lines are then gone).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.errors import RecordError
from rtdetr_lab.gathering import gather, gathers

Edit = Callable[[Tensor], Tensor]
"""Function of an edit; it must keep shape, dtype and device."""

_open_records: list["Record"] = []  # of the whole process; an idle tap reads only this


def tap(name: str, value: Tensor) -> Tensor:
    """Return `value`, unless a `record` on this thread keeps or edits it."""
    if _open_records and not torch.compiler.is_dynamo_compiling():
        value = _observe(name, value)
    gather(name, value)
    return value


def watched(name: str) -> bool:
    """Return True if this tap is kept or edited right now.

    Attention calls it, because its fused kernel never stores the weights: if they are watched, it
    uses the explicit softmax. The call also tells the record that a tap of this name exists.
    """
    return _asked(Record.wants, name) or gathers(name)


def edited(name: str) -> bool:
    """Return True if this tap is edited right now.

    The decoder calls it: in training it continues with a separate copy of the box, unless the box
    is edited.
    """
    return _asked(Record.edits, name)


class NoSuchTap(RecordError, KeyError):
    """Raised for a name that the record did not keep; the message lists similar names."""


@dataclass(eq=False)
class Record(Mapping[str, Tensor]):
    """Kept tensors by name; if a tap was hit several times, the last tensor."""

    _model: nn.Module
    _keep: tuple[str, ...]
    _edit: dict[str, Edit]
    _grad: bool
    _kept: dict[str, list[Tensor]] = field(default_factory=dict)
    _met: dict[str, None] = field(default_factory=dict)  # every tap hit, kept or not, in order
    _matched: set[str] = field(default_factory=set)
    _path: list[str] = field(default_factory=list)
    _ran: bool = False
    _owner: tuple[int, bool] = field(default_factory=lambda: _here())
    __eq__, __hash__ = object.__eq__, object.__hash__  # a Mapping would compare tensors

    def __getitem__(self, name: str) -> Tensor:
        return self.all(name)[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def all(self, name: str) -> list[Tensor]:
        """Return all tensors of this tap, in the order in which it was hit."""
        if name not in self._kept:
            keep = f"record(…, keep={name!r}) keeps it"
            remedy = keep if name in self._met else _nearest(name, self._kept)
            raise NoSuchTap(f"record[{name!r}]", "was not kept", remedy)
        return list(self._kept[name])

    def meet(self, name: str) -> str:
        """Return the full name of a tap of the running module; empty outside the recorded model."""
        if not self._path:
            return ""
        full = f"{self._path[-1]}.{name}" if self._path[-1] else name
        self._met[full] = None
        return full

    def wants(self, full: str) -> bool:
        """Return True if a pattern of `keep` or `edit` matches."""
        return self.edits(full) or bool(_matching(self._keep, full))

    def edits(self, full: str) -> bool:
        """Return True if a pattern of `edit` matches."""
        return bool(_matching(self._edit, full))

    def edited(self, full: str, value: Tensor) -> Tensor:
        """Apply the edits that match; with `grad`, return a separate graph node for the tap.

        Other modules may read the tensor before the tap; their gradients do not belong to the tap.
        """
        for pattern in _matching(self._edit, full):
            self._matched.add(pattern)
            value = _check_edit(full, value, self._edit[pattern](value))
        own = self._grad and value.requires_grad and not value.is_leaf
        return value.view_as(value) if own and self.wants(full) else value

    def keep(self, full: str, value: Tensor) -> None:
        """Keep `value` if a pattern matches."""
        if hits := _matching(self._keep, full):
            self._matched.update(hits)
            self._kept.setdefault(full, []).append(value if self._grad else value.detach())

    def check(self) -> None:
        """Raise `RecordError` if the model never ran, or a pattern matched nothing."""
        if not self._ran:
            what = "the recorded model has not run inside the block"
            remedy = "call the same object that you gave to record(), on the same thread"
            raise RecordError(f"record({type(self._model).__name__})", what, remedy)
        for pattern in (*self._keep, *self._edit):
            if pattern not in self._matched:
                what, remedy = "matches no tap that has run", _nearest(pattern, self._met)
                raise RecordError(f"record({pattern!r})", what, remedy)

    def attach(self, undo: ExitStack) -> None:
        """Put the path-tracking hooks on every submodule, until `undo` is closed."""
        for path, module in self._model.named_modules():
            before = partial(self._enter, path)
            undo.callback(module.register_forward_pre_hook(before, prepend=True).remove)
            undo.callback(module.register_forward_hook(self._leave, always_call=True).remove)

    def is_of_this_run(self) -> bool:
        """Return True if the record was opened in this thread and, in an export, in this export."""
        return self._owner == _here()

    def _enter(self, path: str, module: nn.Module, args: Any) -> None:
        if self.is_of_this_run():
            if not path:
                self._path.clear()  # left over if an interrupt ended the last run
                self._ran = True
            self._path.append(path)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.is_of_this_run() and self._path:
            self._path.pop()


@contextmanager
def record(
    model: nn.Module,
    keep: str | Sequence[str] | None = None,
    edit: Mapping[str, Edit] | None = None,
    *,
    grad: bool = False,
) -> Iterator[Record]:
    """Keep or edit the values at the taps of `model` while the block runs.

    Without `keep` all taps are kept, or none if there are edits. Raises `RecordError` if nothing
    was recorded. An exception from inside the block passes unchanged.
    """
    _refuse_opaque(model)
    if keep is None:
        keep = () if edit else ("*",)
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    seen = Record(model, keep, dict(edit or {}), grad)
    with ExitStack() as undo:
        seen.attach(undo)
        _open_records.append(seen)
        undo.callback(_open_records.remove, seen)
        yield seen
    seen.check()


def inventory(model: nn.Module, *inputs: Any) -> list[tuple[str, tuple[int, ...]]]:
    """List (name, shape) of every tap that `model(*inputs)` hits, in order."""
    with torch.no_grad(), record(model) as seen:
        model(*inputs)
    return [(name, tuple(value.shape)) for name, value in seen.items()]


def _here() -> tuple[int, bool]:
    return threading.get_ident(), torch.compiler.is_compiling()


def _asked(question: Callable[[Record, str], bool], name: str) -> bool:
    if _open_records and not torch.compiler.is_dynamo_compiling():
        # A list, not a generator: every record must meet the tap.
        return any([question(r, r.meet(name)) for r in _records()])
    return False


def _matching(patterns: Iterable[str], full: str) -> list[str]:
    return [p for p in patterns if full and fnmatchcase(full, p)]


def _records() -> list[Record]:
    return [r for r in list(_open_records) if r.is_of_this_run()]


def _observe(name: str, value: Tensor) -> Tensor:
    # All edits come first, so that every record keeps the value that the model continues with.
    met = [(active, active.meet(name)) for active in _records()]
    for active, full in met:
        value = active.edited(full, value)
    for active, full in met:
        active.keep(full, value)
    return value


def _nearest(name: str, among: Mapping[str, Any]) -> str:
    near = get_close_matches(name, among, n=5, cutoff=0.3) or list(among)[:5]
    return f"the nearest of {len(among)} are: {', '.join(near)}" if near else "there are none"


def _check_edit(name: str, old: Tensor, new: Any) -> Tensor:
    got = _kind(new) if isinstance(new, Tensor) else type(new).__name__
    if got != _kind(old):
        what = f"the edit was given {_kind(old)} and returned {got}"
        raise RecordError(name, what, "return a tensor of the same shape, dtype and device")
    return new


def _kind(value: Tensor) -> str:
    return f"{tuple(value.shape)} {value.dtype} on {value.device}"


def _refuse_opaque(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if kind := next((k for k, test in _OPAQUE.items() if test(module)), None):
            what = f"is {kind}: its Python code does not run, so taps would record nothing"
            where = f"record({path or type(model).__name__})"
            raise RecordError(where, what, "record the plain model it was made from")


_OPAQUE: dict[str, Callable[[nn.Module], bool]] = {
    "a scripted or traced model": lambda m: isinstance(m, torch.jit.ScriptModule),
    "an exported graph": lambda m: isinstance(m, torch.fx.GraphModule),
    "a compiled model": lambda m: (
        bool(getattr(m, "_compiled_call_impl", 0)) or "_orig_mod" in dir(m)
    ),
}
