"""A training step as one CUDA graph: small networks spend most of a step on launching kernels, and a graph launches once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

N_EAGER = 3
"""Steps that run one kernel at a time before the graph is recorded, as torch asks: they allocate what a recording may not."""


class GraphedStep:
    """Takes steps like the function it is made from: the first ones as they are, the others by replaying a recording.

    Args:
        step: Takes tensors of always the same shapes, on a CUDA device; reads and writes no others but those that it made or
            that outlive it, synchronises with nothing, and returns nothing.
    """

    def __init__(self, step: Callable[..., None]) -> None:
        self._step = step
        self._n_taken = 0
        self._graph = torch.cuda.CUDAGraph()
        self._inputs: tuple[Tensor, ...] = ()
        self._beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, *inputs: Tensor) -> None:
        """Takes one step."""
        if self._n_taken < N_EAGER:
            self._take_beside(inputs)
        else:
            if self._n_taken == N_EAGER:
                self._record(inputs)
            for held, given in zip(self._inputs, inputs, strict=True):
                held.copy_(given)
            self._graph.replay()
        self._n_taken += 1

    def _take_beside(self, inputs: tuple[Tensor, ...]) -> None:
        self._beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._beside):
            self._step(*inputs)
        torch.cuda.current_stream().wait_stream(self._beside)

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Records a step, which is not taken by that."""
        self._inputs = tuple(given.clone() for given in inputs)
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph):
            self._step(*self._inputs)
