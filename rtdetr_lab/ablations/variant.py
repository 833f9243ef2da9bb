r"""# Variant: one change, one reason

A variant is a pure function, and its docstring is the hypothesis:

    def no_aifi(cfg: RTDETRConfig) -> RTDETRConfig:
        '''Attention on S5 is worth its time: without it, AP falls.'''
        return replace_at(cfg, "encoder.aifi", None)

The annotation of its argument determines what it changes:

| annotation    | changes                                                      |
|---------------|--------------------------------------------------------------|
| any other     | the model's configuration                                    |
| `TrainConfig` | the training recipe                                          |
| `Setup`       | both, or the source of its weights (a fine-tune)             |

A function that returns its argument unchanged is the **reference**, under its name in the paper.
Every difference in a report is a difference to it.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_origin

from rtdetr_lab.config import diff, field_names, is_config, join, replace_all, replace_at, require
from rtdetr_lab.config_json import fits, hints_of, spelled
from rtdetr_lab.training import TrainConfig

Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Setup:
    """Configuration, recipe and initial weights of a run.

    `backbone_weights` (a model's name, hub id or file) fill the backbone, like the ImageNet weights
    of the papers. `weights` fill every tensor whose name and shape fit, for rows that differ only
    in parts that a trained model already has. With `start`, that run is trained first, and this one
    starts from all its weights.
    """

    cfg: Any
    recipe: TrainConfig
    backbone_weights: str | None = None
    weights: str | None = None
    start: "Setup | None" = None


@dataclass(frozen=True)
class Variant:
    """A change with its name and hypothesis; `variant(function)` makes one from a function."""

    name: str
    change: Change
    hypothesis: str

    def __call__(self, base: Setup) -> Setup:
        """Return the setup of this variant. The base is not changed.

        Raises `ConfigError` if the change returns something else, or a value that does not fit its
        field, such as text in the place of a number.
        """
        argument, *_ = inspect.signature(self.change, eval_str=True).parameters.values()
        changes = argument.annotation
        part = {Setup: "", TrainConfig: "recipe"}.get(changes, "cfg")
        changed = self.change(getattr(base, part) if part else base)
        wanted = changes if changes in (Setup, TrainConfig) else object
        fitting = isinstance(changed, wanted) and is_config(changed)
        what = f"returns {'nothing' if changed is None else type(changed).__name__}"
        remedy = f"return the changed {part or 'Setup'}: a frozen dataclass"
        require(fitting, self.name, what, remedy)
        setup = replace(base, **{part: changed}) if part else changed
        _check_values(setup, self.name)
        return setup

    def changes_nothing(self, base: Setup) -> bool:
        """Return True for a reference. A change that raises is none; the plan reports it."""
        with suppress(Exception):
            return self(base) == base
        return False

    def describe(self, base: Setup) -> dict[str, Any]:
        """Return name, hypothesis and differences to the base, as the journal stores them.

        A difference is (path, before, after) for readers: model settings without their `cfg.`,
        large parts by name.
        """
        found = diff(base, self(base)).items()
        shown = [[path.removeprefix("cfg."), _short(a), _short(b)] for path, (a, b) in found]
        return {"name": self.name, "hypothesis": self.hypothesis, "differences": shown}


@dataclass(frozen=True)
class Put:
    """Change that puts a value at a path of the model's configuration."""

    path: str
    value: Any

    def __call__(self, cfg: Any) -> Any:
        return replace_at(cfg, self.path, self.value)


def derived(cls: type, value: Any, **changes: Any) -> Any:
    """Return a configuration of a derived class with the fields of `value`, and `changes`."""
    return cls(**{name: getattr(value, name) for name in field_names(value)} | changes)


@dataclass(frozen=True)
class Settings:
    """Change that puts values at several paths of a setup at once."""

    values: tuple[tuple[str, Any], ...]

    def __call__(self, setup: Setup) -> Setup:
        return replace_all(setup, dict(self.values))


def sweep(hypothesis: str, **values: Sequence[Any]) -> tuple[Variant, ...]:
    """Make a variant for every combination of values; a path has `__` in place of its dots.

        sweep("A lower rate learns less.", recipe__lr=(3e-5, 1e-4), cfg__num_classes=(9, 10))

    Paths begin at the `Setup`: with `recipe`, or with `cfg`, the model's configuration. The
    combination that the base has is the reference.
    """
    paths = [name.replace("__", ".") for name in values]
    steps = [path.rpartition(".")[2] for path in paths]
    found = []
    for chosen in product(*values.values()):
        name = ", ".join(f"{step} {value}" for step, value in zip(steps, chosen, strict=True))
        change = Settings(tuple(zip(paths, chosen, strict=True)))
        found.append(Variant(name, change, hypothesis))
    return tuple(found)


def variant(change: "Change | Variant", name: str | None = None) -> Variant:
    """Make a `Variant` from a function; its docstring is the hypothesis. A `Variant` is returned.

    The name is `name`, or that of the function. Raises `ConfigError` for a function without a
    docstring: without a hypothesis, the result of a change cannot be interpreted.
    """
    if isinstance(change, Variant):
        return change
    own = getattr(change, "__name__", type(change).__name__)
    reason = " ".join((inspect.getdoc(change) or "").split())
    require(reason, own, "has no docstring", "write the hypothesis there: what you expect")
    return Variant(name or own.replace("_", " "), change, reason)


def _check_values(value: Any, path: str) -> None:
    """Raise `ConfigError` for a number, text or None that does not fit its field's annotation."""
    hints = hints_of(type(value))
    for name in field_names(value) if is_config(value) else ():
        inner, where = getattr(value, name), join(path, name)
        expected = hints.get(name, Any)
        is_plain = inner is None or isinstance(inner, bool | int | float | str)
        if is_plain and get_origin(expected) is not Literal:
            require(fits(inner, expected), where, f"is {inner!r}", f"give {spelled(expected)}")
        _check_values(inner, where)


def with_seed(setup: Setup, seed: int) -> Setup:
    """Return the setup, and the one it starts from, with this seed."""
    start = None if setup.start is None else with_seed(setup.start, seed)
    return replace(setup, recipe=replace(setup.recipe, seed=seed), start=start)


def _short(value: Any) -> str:
    if isinstance(value, Setup):
        return f"a run of {value.recipe.num_pictures} pictures"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__}(…)"
