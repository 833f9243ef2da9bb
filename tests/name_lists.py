"""Names and shapes of other people's checkpoints, as lists beside the parity tests."""

import torch
from paths import TESTS

LISTS = TESTS / "parity" / "names"


def read_list(stem: str) -> dict[str, torch.Tensor]:
    """Names and shapes as tensors without memory."""
    shapes = {}
    for line in (LISTS / f"{stem}.txt").read_text().splitlines():
        name, _, shape = line.partition(" ")
        numbers = [int(n) for n in shape.strip("()").split(",") if n.strip()]
        shapes[name] = torch.empty(numbers, device="meta")
    return shapes


def build_shapes(cfg) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {n: tuple(t.shape) for n, t in cfg.build().state_dict().items()}


def comparable(shapes) -> dict[str, tuple[int, ...]]:
    return {n: tuple(s) for n, s in shapes.items() if not n.endswith("num_batches_tracked")}
