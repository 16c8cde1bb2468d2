"""A training step as one CUDA graph: small networks spend most of a step on launching kernels, and a graph launches once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

N_EAGER = 3
"""Steps that run one kernel at a time before the graph is recorded, as torch asks: they allocate what a recording may not."""


class GraphedStep:
    """Takes steps like the function it is made from: the first ones as they are, the others by replaying a recording.

    A step that cannot be recorded, since it waits for a value or for the CPU (anybody's network may), is always taken as it is.

    Args:
        step: Takes tensors of always the same shapes on the current CUDA device; reads and writes no others but those that it
            makes or that outlive it, and returns nothing.
    """

    def __init__(self, step: Callable[..., None]) -> None:
        self._step = step
        self._n_taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @property
    def is_recorded(self) -> bool:
        """Whether steps are replayed by now."""
        return self._graph is not None

    def __call__(self, *inputs: Tensor) -> None:
        """Takes one step."""
        if self._n_taken == N_EAGER:
            self._record(inputs)
        if self._graph is None:
            self._side_stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side_stream):
                self._step(*inputs)
            torch.cuda.current_stream().wait_stream(self._side_stream)
        else:
            for recorded, new in zip(self._inputs, inputs, strict=True):
                recorded.copy_(new)
            self._graph.replay()
        self._n_taken += 1

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Records a step without taking it."""
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, stream=self._side_stream):
                self._step(*self._inputs)
        except RuntimeError:  # what CUDA and torch raise for whatever a recording may not do
            torch.cuda.synchronize()
        else:
            self._graph = graph
