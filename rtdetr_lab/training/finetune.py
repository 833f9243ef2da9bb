r"""# Fine-tuning: a model that knows something, and data with other classes

    ready = prepare(load_pretrained("r18"), data.names, freeze=("backbone",))
    print(ready)                       # which heads are new, what is frozen
    train(ready.model, data, "runs/cells", fine_tune(ready.model.cfg, 15_000))

**Heads.** Whether a head may stay is a question of names, not of numbers: three cells are not the
three animals it was trained for. If the data has exactly the model's classes, in its order, every
head stays. So it does where nobody named the model's classes, as in the authors' own files, and the
data has as many: `prepare` says that it took them for the same. Otherwise all heads
(`checkpoints/strict.py`) begin anew, the embedding of noised labels included, and `prepare` says
which. Everything else, boxes too, is kept.

**Frozen** modules get no gradient and no place in the optimizer, and their batch norms keep their
statistics: a norm in training mode learns from every batch, whatever the optimizer does
(`optim.learning_mode`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.checkpoints.strict import is_class_head
from rtdetr_lab.config import replace_at, require
from rtdetr_lab.data.augment import AspectAugmentation, Augmentation
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.data.canvas import edges_of
from rtdetr_lab.errors import ConfigError, TrainingError
from rtdetr_lab.model import DetectionModel, Metadata, declared
from rtdetr_lab.writing import first_few

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NewTensor:
    """A tensor that begins anew, or has another length."""

    name: str
    old: Shape
    new: Shape

    @classmethod
    def of(cls, name: str, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> "NewTensor":
        """The tensor of this name in two models."""
        return cls(name, tuple(old[name].shape), tuple(new[name].shape))

    def __str__(self) -> str:
        return f"{self.name} {self.old} → {self.new}"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model to fine-tune, and what was done to it; `str` tells, line by line."""

    model: nn.Module
    names: tuple[str, ...]
    known: tuple[str, ...]
    """The classes it was trained for; empty where nobody said."""
    new_heads: tuple[NewTensor, ...]
    grown: tuple[NewTensor, ...]
    """Tensors with a row for every query, where there are more or fewer than before."""
    frozen: tuple[str, ...]
    num_frozen: int
    num_learning: int

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """What a reader must know before it trains."""
        return [*self._about_heads(), *self._about_queries(), self._about_parameters()]

    def _about_heads(self) -> list[str]:
        names, known = first_few(self.names, 5), first_few(self.known, 5)
        if self.new_heads:
            knew = known or "classes nobody named"
            line = f"new class heads for {names}; the model knew {knew}"
            return [line, *(f"  {head}" for head in self.new_heads)]
        if known:
            return [f"class heads kept: the data has the model's classes ({names})"]
        count = f"nobody named the model's {len(self.names)} classes, and the data has as many"
        return [f"class heads kept: {count}; they are now called {names}"]

    def _about_queries(self) -> list[str]:
        return [f"queries beyond those it has begin anew: {one}" for one in self.grown]

    def _about_parameters(self) -> str:
        learning = f"{self.num_learning:,} parameters learn"
        if not self.frozen:
            return learning
        return f"{learning}; frozen: {', '.join(self.frozen)} ({self.num_frozen:,} parameters)"


def prepare(
    model: nn.Module,
    names: Sequence[str],
    freeze: Sequence[str] = (),
    seed: int = 0,
    queries: int | None = None,
) -> Prepared:
    """`model` with heads for `names`, so many `queries`, and the modules `freeze` names frozen.

    The model given is used up: its tensors are those of the one that comes back. What is new
    follows from `seed`. Raises `ConfigError` for a module or queries the model does not have.
    """
    says = declared(model)
    known, size = says.metadata.names, says.num_classes
    new_heads, grown = tuple[NewTensor, ...](), tuple[NewTensor, ...]()
    if known != tuple(names) and (known or size != len(names)):
        model, new_heads = rehead(model, len(names), seed)
    if queries is not None:
        model, grown = requery(model, queries, seed)
    for name in freeze:
        freeze_module(model, name)
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    learning = sum(n for n, learns in counts if learns)
    what = f"{', '.join(freeze)} is all there is: nothing would learn"
    require(learning, "freeze", what, "freeze less")
    frozen = sum(n for n, learns in counts if not learns)
    return Prepared(model, tuple(names), known, new_heads, grown, tuple(freeze), frozen, learning)


def rehead(
    model: nn.Module, num_classes: int, seed: int = 0
) -> tuple[nn.Module, tuple[NewTensor, ...]]:
    """The same model for other classes, and its tensors that began anew."""
    cfg = replace_at(model.cfg, "num_classes", num_classes)
    fresh, heads = _rebuilt(model, cfg, seed, is_new=is_class_head)
    fresh.metadata = replace(fresh.metadata, names=(), category_ids=())
    return fresh, heads


def requery(model: nn.Module, count: int, seed: int = 0) -> tuple[nn.Module, tuple[NewTensor, ...]]:
    """The same model with so many queries, and its tensors that have another length.

    RT-DETR selects its queries among the tokens: nothing begins anew. DETR's are learned: those it
    has are kept, and more begin at random.
    """
    fresh, longer = _rebuilt(model, with_queries(model.cfg, count), seed)
    old, new = model.state_dict(), fresh.state_dict()
    for tensor in longer:
        both = min(tensor.old[0], tensor.new[0])
        new[tensor.name][:both] = old[tensor.name][:both]
    return fresh, longer


def _rebuilt(
    model: nn.Module, cfg: Any, seed: int, is_new: Callable[[str], bool] = lambda name: False
) -> tuple[DetectionModel, tuple[NewTensor, ...]]:
    """What `cfg` describes, with the model's tensors but for those that begin anew: those of
    another shape, and those whose name says so. The random numbers of others stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh: DetectionModel = cfg.build()
    old, new = model.state_dict(), fresh.state_dict()
    anew = [name for name in new if is_new(name) or new[name].shape != old[name].shape]
    fresh.load_state_dict(old | {name: new[name] for name in anew})
    fresh.metadata = replace(declared(model).metadata, sha256=None)
    return fresh, tuple(NewTensor.of(name, old, new) for name in anew)


def with_queries(cfg: Any, count: int) -> Any:
    """A configuration with so many queries, wherever it keeps their number."""
    path = next(_paths_to("num_queries", cfg), None)
    if path is None:
        raise ConfigError("queries", f"{type(cfg).__name__} has no num_queries", "leave it out")
    return replace_at(cfg, path, count)


def _paths_to(name: str, cfg: Any, inside: str = "") -> Iterator[str]:
    for field in fields(cfg) if is_dataclass(cfg) else ():
        if field.name == name:
            yield inside + name
        yield from _paths_to(name, getattr(cfg, field.name), f"{inside}{field.name}.")


def freeze_module(model: nn.Module, name: str) -> None:
    """No gradient for the module of this name, however deep: `backbone`, `decoder.layers.0`."""
    modules = dict(model.named_modules())
    modules.pop("", None)
    if name not in modules:
        top = [n for n, _ in model.named_children()]
        near = get_close_matches(name, modules, n=3, cutoff=0.6)
        remedy = f"did you mean {', '.join(near)}?" if near else f"use {', '.join(top)}"
        raise ConfigError("freeze", f"the model has no module {name!r}", remedy)
    modules[name].requires_grad_(False)


def metadata_of(
    data: Dataset, augment: Augmentation | AspectAugmentation | None, known: Metadata
) -> Metadata:
    """What a model that is trained on `data` must remember of it: the classes, and the size that
    `augment` gives pictures, or the model is `known` to have, or the pictures come in."""
    size, edges = known.image_size, known.edges
    if augment is not None:
        size, edges = augment.size, augment.edges
    elif size is None and edges is None:
        height, width = data[0].image.shape[-2:]
        edges = edges_of(data)
        size = (height, width) if edges is None else (edges[0], edges[0])
    return Metadata(tuple(data.names), tuple(data.category_ids), size, edges=edges)


def check_classes(model: nn.Module, names: Sequence[str]) -> None:
    """Raises `TrainingError` for a model with another number of classes than the data has."""
    has = declared(model).num_classes
    what = f"has {has} classes, the data has {len(names)}: {first_few(names, 5)}"
    remedy = "use training.finetune.prepare(model, data.names), or build it for as many"
    require(has == len(names), "model", what, remedy, TrainingError)
