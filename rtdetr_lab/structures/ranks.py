r"""# Ranks: numbers that several processes must agree on

Under `torchrun` every process sees its own pictures. Two numbers of a batch belong to all of them:
how many objects it holds (the losses divide by it) and how many the fullest picture has (denoising
makes its groups by it). Without a process group both functions are the identity.
"""

import torch


def mean_over_ranks(count: int, device: torch.device | str) -> float:
    """Objects per process, averaged over all of them, at least 1."""
    if not several():
        return max(float(count), 1.0)
    total = torch.tensor([float(count)], device=device)
    torch.distributed.all_reduce(total)
    return max(total.item() / torch.distributed.get_world_size(), 1.0)


def max_over_ranks(count: int, device: torch.device | str) -> int:
    """The largest of all processes' counts."""
    if not several():
        return count
    largest = torch.tensor([count], device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest.item())


def several() -> bool:
    """Whether other processes take part."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
