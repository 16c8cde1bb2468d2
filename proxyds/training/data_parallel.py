"""One training whose batches are computed in parts: one after the other here, or each in a process of its own.

For networks too big for one device. Whoever computes them, the parts go through the network by themselves (batch norm normalises each
alone), the gradient is the mean of the parts', and buffers such as running statistics are the first part's, as torch's
`DistributedDataParallel` has it. So the result is the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from proxyds.errors import TrainingError
from proxyds.seeding import derive_seed


class Parts:
    """The parts of every batch of a training, and which of them this process computes.

    Where `torch.distributed` is set up, every process calls the same code, and each computes the part of its rank.

    Args:
        n: Parts of a batch.
        name: The network's, for messages.
        device: `cpu` or the CUDA device that this process computes on.

    Attributes:
        own: Numbers of the parts that this process computes.
        is_shared: Whether other processes compute the other parts.

    Raises:
        TrainingError: `torch.distributed` is set up for another number of processes.
    """

    def __init__(self, n: int, name: str, device: str) -> None:
        n_processes = dist.get_world_size() if _is_set_up() else None
        if n_processes not in (None, n):
            raise TrainingError(
                f"{name}: must be trained by as many processes as a batch has parts (probes.data_parallel, now {n}), "
                f"torch.distributed is set up for {n_processes}; start {n} of them, or leave torch.distributed alone "
                "to have one compute all parts"
            )
        self.n, self.name, self._device = n, name, device
        self.is_shared = n_processes is not None and n > 1
        self.own = (dist.get_rank(),) if self.is_shared else tuple(range(n))
        self._states: dict[int, _State] = {}

    def fit_batch(self, batch_size: int, n_samples: int) -> int:
        """Says how many samples a step takes, as the function of this name does.

        Raises:
            TrainingError: There are fewer than two samples for each part.
        """
        if self.n > 1 and n_samples < 2 * self.n:
            raise TrainingError(
                f"{self.name}: must have two training samples or more for each part of a batch, {2 * self.n} in all, there are "
                f"{n_samples}; lower probes.data_parallel (now {self.n})"
            )
        return fit_batch(batch_size, n_samples, self.n)

    def find_own(self, batch_size: int) -> slice:
        """Finds where this process's samples stand in a batch."""
        size = batch_size // self.n
        return slice(self.own[0] * size, (self.own[-1] + 1) * size)

    def share(self, network: nn.Module) -> nn.Module:
        """Returns what forward passes are to call, so that gradients become the mean over the processes."""
        if not self.is_shared:
            return network
        # anybody's network may leave some out, at some steps; where none does, torch says so once on standard error
        return DistributedDataParallel(network, find_unused_parameters=True)

    @contextmanager
    def drawing_from(self, seed: int) -> Iterator[None]:
        """Gives each part a seed of its own for what draws from torch's global generators (dropout, stochastic depth)."""
        with torch.random.fork_rng(devices=[self._device] if self._device.startswith("cuda") else []):
            for part in self.own:
                torch.manual_seed(derive_seed(seed, "part", part) if part else seed)
                self._states[part] = _take_state(self._device)
            yield

    def in_turn(self, network: nn.Module, n_samples: int) -> Iterator[slice]:
        """Goes through this process's parts, within `drawing_from`; the first part comes last, and its buffers are those that stay.

        Args:
            network: Its buffers are changed by the first part alone.
            n_samples: This process's samples in a batch.

        Yields:
            The slice of one part's samples among this process's.
        """
        if len(self.own) == 1:
            yield slice(None)
            return
        size = n_samples // len(self.own)
        before = [buffer.clone() for buffer in network.buffers()]
        for part in reversed(self.own):
            _set_state(self._states[part], self._device)
            yield slice(part * size, (part + 1) * size)
            self._states[part] = _take_state(self._device)
            if part:
                for buffer, earlier in zip(network.buffers(), before, strict=True):
                    buffer.copy_(earlier)

    def average(self, value: Tensor) -> Tensor:
        """Takes the mean of a number over the processes."""
        if self.is_shared:
            dist.all_reduce(value)
            value /= self.n
        return value

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Gives every process the first one's buffers."""
        if self.is_shared:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


def fit_batch(batch_size: int, n_samples: int, n_parts: int) -> int:
    """Says how many samples a step takes: `batch_size`, or where there are fewer as many as make equal parts."""
    return min(batch_size, n_samples - n_samples % n_parts)


def is_first() -> bool:
    """Says whether this process is the one that reports and writes, of those that train a network together."""
    return not _is_set_up() or dist.get_rank() == 0


def _is_set_up() -> bool:
    return dist.is_available() and dist.is_initialized()


_State = tuple[Tensor, Tensor | None]
"""The states of torch's global generators: the CPU's, and a CUDA device's where there is one."""


def _take_state(device: str) -> _State:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.startswith("cuda") else None


def _set_state(state: _State, device: str) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
