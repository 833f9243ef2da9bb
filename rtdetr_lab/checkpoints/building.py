"""# Building: stop if a file describes a larger model than it can fill

A `config.json` with one digit too many describes a backbone of a thousand million blocks. Building
it would use up the memory of the machine. So we count the parameters while a model is built from a
file, before they get their values, and stop at a multiple of what the file contains. The margin
above that is for new heads and for parts that a file may leave out.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from rtdetr_lab.errors import ConfigError

TIMES = 4
MORE_VALUES = 60_000_000
MORE_TENSORS = 2_000


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor], where: str) -> Iterator[None]:
    """Limit what this thread builds inside the block.

    The limit is `TIMES` the contents of `tensors`, and a margin. Raises `ConfigError` above it.
    """
    most = TIMES * len(tensors) + MORE_TENSORS
    room = TIMES * sum(t.numel() for t in tensors.values()) + MORE_VALUES
    me, count, values = threading.get_ident(), 0, 0

    def note(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count, values
        if parameter is None or threading.get_ident() != me:
            return
        count, values = count + 1, values + parameter.numel()
        if count > most or values > room:
            what = f"describes a model with more than {count - 1:,} tensors and {room:,} values, "
            what += f"and the weights beside it have {len(tensors):,} tensors"
            raise ConfigError(where, what, "correct its depths and widths")

    handle = register_module_parameter_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()
