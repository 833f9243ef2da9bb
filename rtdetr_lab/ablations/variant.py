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
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rtdetr_lab.config import diff, replace_at, require
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
        """Return the setup of this variant. The base is not changed."""
        argument, *_ = inspect.signature(self.change, eval_str=True).parameters.values()
        changes = argument.annotation
        if changes is Setup:
            return self.change(base)
        if changes is TrainConfig:
            return replace(base, recipe=self.change(base.recipe))
        return replace(base, cfg=self.change(base.cfg))

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
