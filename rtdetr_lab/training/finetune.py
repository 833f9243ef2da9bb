r"""# Fine-tuning: start from a trained model, on data with other classes

    ready = prepare(load_pretrained("r18"), data.names, freeze=("backbone",))
    print(ready)                       # which heads are new, what is frozen
    train(ready.model, data, "runs/cells", fine_tune(ready.model.cfg, 15_000))

**Heads.** A class head stays only if its classes stay. Three kinds of cells are not the three
animals that the model was trained on, so the names decide, not the number of classes:

- The data has exactly the model's classes, in the same order: all heads are kept.
- The model's classes have no names, as in the authors' files, and the data has as many classes: all
  heads are kept. The classes then have the data's names, and `prepare` reports it.
- Otherwise the class heads (`checkpoints/strict.py`) and the embedding of noised labels are built
  for the data's classes. A class that the model knows by name keeps its rows, in its new place; the
  rows of the others are new. `prepare` lists both. Everything else is kept, also the box heads.

**Frozen** modules get no gradient and are not in the optimizer. Their batch norms keep their
statistics: in training mode a norm learns from every batch, even without an optimizer
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
from rtdetr_lab.masks.query_masks import with_masks
from rtdetr_lab.model import DetectionModel, Metadata, declared
from rtdetr_lab.writing import first_few

Shape = tuple[int, ...]


@dataclass(frozen=True)
class NewTensor:
    """A tensor with new values, or with another length."""

    name: str
    old: Shape
    new: Shape

    @classmethod
    def of(cls, name: str, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> "NewTensor":
        """Compare the tensor of this name in two models."""
        return cls(name, tuple(old[name].shape if name in old else ()), tuple(new[name].shape))

    def __str__(self) -> str:
        return f"{self.name} {self.old} → {self.new}"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model to fine-tune, and what was changed in it; `str` gives one line per change."""

    model: nn.Module
    names: tuple[str, ...]
    known: tuple[str, ...]
    """The classes that the model was trained on; empty if they have no names."""
    kept: tuple[str, ...]
    """The classes whose rows in the new heads are those of the model."""
    new_heads: tuple[NewTensor, ...]
    grown: tuple[NewTensor, ...]
    """Tensors with one row per query, if the number of queries changed."""
    frozen: tuple[str, ...]
    num_frozen: int
    num_learning: int

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return what the reader must know before the model trains, line by line."""
        return [*self._about_heads(), *self._about_queries(), self._about_parameters()]

    def _about_heads(self) -> list[str]:
        names, known = first_few(self.names, 5), first_few(self.known, 5)
        if self.new_heads:
            line = self._about_rows() if self.kept else f"new class heads for {names}"
            line += f"; the model had {known or 'unnamed classes'}"
            return [line, *(f"  {head}" for head in self.new_heads)]
        if known:
            return [f"class heads kept: the data has the model's classes ({names})"]
        count = f"the model's {len(self.names)} classes have no names, and the data has as many"
        return [f"class heads kept: {count}; their names are now {names}"]

    def _about_rows(self) -> str:
        new = [name for name in self.names if name not in self.kept]
        line = f"class heads keep their rows for {first_few(self.kept, 5)}"
        return f"{line}, and have new ones for {first_few(new, 5)}" if new else line

    def _about_queries(self) -> list[str]:
        return [f"queries resized, additional ones begin at random: {one}" for one in self.grown]

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
    """Give `model` heads for `names` and `queries` queries, and freeze the modules in `freeze`.

    Do not use the given model afterwards: the returned one may be the same object. New tensors are
    drawn from `seed`. Raises `ConfigError` for a module or queries that the model does not have.
    """
    says = declared(model)
    known, size = says.metadata.names, says.num_classes
    new_heads: tuple[NewTensor, ...] = ()
    grown: tuple[NewTensor, ...] = ()
    kept: tuple[str, ...] = ()
    if known != tuple(names) and (known or size != len(names)):
        kept = tuple(name for name in names if known.count(name) == 1)
        model, new_heads = rehead(model, names, seed)
    if queries is not None:
        model, grown = requery(model, queries, seed)
    for name in freeze:
        freeze_module(model, name)
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    learning = sum(n for n, learns in counts if learns)
    what = f"{', '.join(freeze)} is the whole model: nothing would learn"
    require(learning, "freeze", what, "freeze fewer modules")
    frozen = sum(n for n, learns in counts if not learns)
    changes = (tuple(names), known, kept, new_heads, grown, tuple(freeze))
    return Prepared(model, *changes, frozen, learning)


def rehead(
    model: nn.Module, names: Sequence[str], seed: int = 0
) -> tuple[nn.Module, tuple[NewTensor, ...]]:
    """Rebuild the model for other classes; return it and the new tensors.

    Classes that the model knows by name keep their rows. With them stays a last row that belongs to
    no class: DETR's "no object", and the label of padding.
    """
    known = declared(model).metadata.names
    cfg = replace_at(model.cfg, "num_classes", len(names))
    fresh, heads = _rebuilt(model, cfg, seed, is_new=is_class_head)
    fresh.metadata = replace(fresh.metadata, names=(), category_ids=())
    place = {name: label for label, name in enumerate(known) if known.count(name) == 1}
    rows = [(label, place[name]) for label, name in enumerate(names) if name in place]
    old, new = model.state_dict(), fresh.state_dict()
    for name in (head.name for head in heads if rows):
        for mine, theirs in rows:
            new[name][mine] = old[name][theirs]
        new[name][len(names) :] = old[name][len(known) :]
    return fresh, heads


def add_masks(model: nn.Module, seed: int = 0) -> DetectionModel:
    """Rebuild the model with a new mask head; all its tensors are kept.

    Raises `ConfigError` for a model that is no RT-DETR.
    """
    return _rebuilt(model, with_masks(declared(model).cfg), seed)[0]


def requery(model: nn.Module, count: int, seed: int = 0) -> tuple[nn.Module, tuple[NewTensor, ...]]:
    """Rebuild the model with `count` queries; return it and the tensors that have another length.

    RT-DETR selects its queries among the tokens, so no tensor changes. DETR's queries are learned:
    the old ones are kept, and the additional ones begin at random.
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
    """Build `cfg`, and copy the model's tensors except those with another shape and those where
    `is_new(name)`. The global random numbers do not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh: DetectionModel = cfg.build()
    old, new = model.state_dict(), fresh.state_dict()
    known = {name for name in new if name in old and new[name].shape == old[name].shape}
    anew = [name for name in new if is_new(name) or name not in known]
    fresh.load_state_dict(old | {name: new[name] for name in anew})
    fresh.metadata = replace(declared(model).metadata, sha256=None)
    return fresh, tuple(NewTensor.of(name, old, new) for name in anew)


def with_queries(cfg: Any, count: int) -> Any:
    """Set the number of queries in a configuration, at any depth."""
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
    """Freeze the module of this name, at any depth: `backbone`, `decoder.layers.0`."""
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
    """Return the metadata of a model that trains on `data`: the classes and the picture size.

    The size comes from `augment`, else from what is `known` of the model, else from the pictures.
    """
    size, edges = known.image_size, known.edges
    if augment is not None and (augment.size or augment.edges):
        size, edges = augment.size, augment.edges
    elif size is None and edges is None:
        height, width = data[0].image.shape[-2:]
        edges = edges_of(data)
        size = (height, width) if edges is None else (edges[0], edges[0])
    return Metadata(tuple(data.names), tuple(data.category_ids), size, edges=edges)


def check_classes(model: nn.Module, names: Sequence[str]) -> None:
    """Raise `TrainingError` for a model with another number of classes than the data has."""
    has = declared(model).num_classes
    what = f"has {has} classes, the data has {len(names)}: {first_few(names, 5)}"
    remedy = "use training.finetune.prepare(model, data.names), or build it with num_classes"
    require(has == len(names), "model", what, remedy, TrainingError)
