"""# Graphs: a model as one recorded sequence of kernels

A batch of one keeps a large GPU busy for a millisecond, and Python needs ten to ask for it, kernel
by kernel. A CUDA graph is recorded once and replayed with a single call, always on the same memory:
pictures are copied into its input, answers read from its output. Nothing is allocated in a replay.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Run = Callable[[Tensor], tuple[Tensor, Tensor]]
WARM_UP = 3


class Graphed:
    """One graph per batch size, sharing their memory."""

    def __init__(
        self, run: Run, example: Callable[[int | None], Tensor], batches: Sequence[int]
    ) -> None:
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, Tensor]]] = {}
        pool = None
        for batch in sorted(batches, reverse=True):  # the largest first: its memory holds the rest
            given = example(batch)
            self._warm_up(run, given)
            graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph, pool=pool):
                answer = run(given)
            pool = graph.pool()
            self._graphs[batch] = (graph, given, answer)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        graph, given, answer = self._graphs[len(images)]
        given.copy_(images, non_blocking=True)
        graph.replay()
        return answer

    @staticmethod
    def _warm_up(run: Run, given: Tensor) -> None:
        """On a stream of its own, as recording demands: lazy libraries load, caches fill."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run(given)
        torch.cuda.current_stream().wait_stream(side)
