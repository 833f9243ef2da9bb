r"""# Hooks: record the outputs of a model's modules where there is no tap"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn


@contextmanager
def after_each(
    modules: Mapping[str, nn.Module], note: Callable[[str, Any, Any], None]
) -> Iterator[None]:
    """Call `note(name, inputs, output)` after every run of one of the modules, inside the block."""

    def hook(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        note(name, inputs, output)

    handles = [m.register_forward_hook(partial(hook, name)) for name, m in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """Record, by name, the last output of each module that runs inside the block."""
    seen: dict[str, Any] = {}
    with after_each(modules, lambda name, inputs, output: seen.update({name: output})):
        yield seen
