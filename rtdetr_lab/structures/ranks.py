r"""# Ranks: numbers that several processes must agree on

Under `torchrun` every process gets its own pictures. All processes must agree on two numbers of a
batch: the number of objects in it (the losses divide by it), and the number of objects in its
fullest picture (it sets the number of denoising groups). Without a process group both functions
return their input.
"""

import torch


def mean_over_ranks(count: int, device: torch.device | str) -> float:
    """Average the number of objects over all processes; at least 1."""
    if not several():
        return max(float(count), 1.0)
    total = torch.tensor([float(count)], device=device)
    torch.distributed.all_reduce(total)
    return max(total.item() / torch.distributed.get_world_size(), 1.0)


def max_over_ranks(count: int, device: torch.device | str) -> int:
    """Return the largest count of all processes."""
    if not several():
        return count
    largest = torch.tensor([count], device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest.item())


def several() -> bool:
    """Return whether the run has several processes."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
