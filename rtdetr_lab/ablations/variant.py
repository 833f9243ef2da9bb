r"""# Variant: one change, one reason

A variant is a pure function, and its docstring is the hypothesis:

    def no_aifi(cfg: RTDETRConfig) -> RTDETRConfig:
        '''Attention on S5 is worth its time: without it, AP falls.'''
        return replace_at(cfg, "encoder.aifi", None)

The annotation of its argument says what it changes:

| annotation    | changes                                                      |
|---------------|--------------------------------------------------------------|
| any other     | the model's configuration                                    |
| `TrainConfig` | how it learns                                                |
| `Setup`       | both, or where its weights come from (a fine-tune)           |

A function that returns what it was given is the **base** under the name it has in the paper. Every
difference in a report is a difference to that one.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rtdetr_lab.config import diff, replace_at, require
from rtdetr_lab.training import TrainConfig

Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Setup:
    """What a run is made of. `backbone_weights` (a model's name, hub id or file) fill the backbone,
    as the papers begin with ImageNet's; `weights` fill whatever has their names and shapes, for
    rows that only differ in what a trained model has already. With `start`, that run comes first
    and all its weights are the beginning of this one."""

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
        """The setup of this variant. The base stays what it was."""
        argument, *_ = inspect.signature(self.change, eval_str=True).parameters.values()
        changes = argument.annotation
        if changes is Setup:
            return self.change(base)
        if changes is TrainConfig:
            return replace(base, recipe=self.change(base.recipe))
        return replace(base, cfg=self.change(base.cfg))

    def describe(self, base: Setup) -> dict[str, Any]:
        """Name, hypothesis and differences to the base, as the journal keeps them: (path, before,
        after) for people, model settings without their `cfg.`, parts by name."""
        found = diff(base, self(base)).items()
        shown = [[path.removeprefix("cfg."), _short(a), _short(b)] for path, (a, b) in found]
        return {"name": self.name, "hypothesis": self.hypothesis, "differences": shown}


@dataclass(frozen=True)
class Put:
    """The change that puts a value at a path of the model's configuration."""

    path: str
    value: Any

    def __call__(self, cfg: Any) -> Any:
        return replace_at(cfg, self.path, self.value)


def variant(change: "Change | Variant", name: str | None = None) -> Variant:
    """A `Variant` as it is; a function under a name, or its own, with its docstring as hypothesis.

    Raises `ConfigError` for a function without one: a change nobody can say the reason of cannot be
    judged by its outcome.
    """
    if isinstance(change, Variant):
        return change
    own = getattr(change, "__name__", type(change).__name__)
    reason = " ".join((inspect.getdoc(change) or "").split())
    require(reason, own, "has no docstring", "write the hypothesis there: what do you expect?")
    return Variant(name or own.replace("_", " "), change, reason)


def with_seed(setup: Setup, seed: int) -> Setup:
    """The setup, and what it starts from, with this seed."""
    start = None if setup.start is None else with_seed(setup.start, seed)
    return replace(setup, recipe=replace(setup.recipe, seed=seed), start=start)


def _short(value: Any) -> str:
    if isinstance(value, Setup):
        return f"a run of {value.recipe.num_pictures} pictures"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__}(…)"
