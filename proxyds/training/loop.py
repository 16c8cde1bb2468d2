"""The one training loop: a network, pixels, settings, a seed.

Pixels that fit in memory lie as uint8 on the device and are augmented a batch at a time, each sample with its own crop and flip. Others
are read from disk, the next batches while one is computed on, and give the same bits. A step waits for nothing: an epoch's random
numbers are drawn before it (25 bytes a sample), and its loss is read after it. On a GPU a step is one CUDA graph.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from proxyds.data.pixels import ImageArray, Pixels
from proxyds.errors import DivergedError
from proxyds.recipe.sections.training import Training
from proxyds.seeding import derive_seed
from proxyds.training.cuda_graph import GraphedStep
from proxyds.training.data_parallel import Parts
from proxyds.training.model import PixelNetwork
from proxyds.training.numerics import choose_computation

N_AHEAD = 2
"""Batches that are read from disk before they are needed."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training left behind.

    Attributes:
        loss: Mean cross-entropy over the epoch's training batches, in nats.
        seconds: Wall-clock time of the epoch.
    """

    loss: float
    seconds: float


def train_network(
    network: PixelNetwork,
    pixels: ImageArray,
    targets: NDArray[np.int64] | NDArray[np.float32],
    settings: Training,
    *,
    seed: int,
    n_steps: int | None = None,
    n_parts: int = 1,
    device: str = "cpu",
    name: str = "network",
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> tuple[Epoch, ...]:
    """Trains a network in place with cross-entropy.

    Args:
        network: With initial weights; left in evaluation mode.
        pixels: (N, C, H, W) uint8; N of two or more, and of `2 * n_parts`. `Pixels` are read a batch at a time.
        targets: What it learns: labels, (N,) int64 in [0, n_labels), or probabilities of all labels, (N, n_labels) float32.
        settings: Epochs, batch size, optimiser, schedule, augmentation.
        seed: Of the order of samples and the augmentation.
        n_steps: Batches in all, with the schedule fitted to them; None for `count_steps`.
        n_parts: Parts of each batch that go through the network by themselves, see `data_parallel.py`; divides the batch size.
        device: `cpu` or a CUDA device.
        name: Of the network, for messages.
        on_epoch: Called after each epoch with its index and record.

    Returns:
        One record for each epoch, the same in every process that trains the network.

    Raises:
        DivergedError: The loss is infinite or not a number after an epoch.
        TrainingError: Too few samples for the parts of a batch, or `torch.distributed` is set up for other than `n_parts` processes.
        DeviceError: The device does not compute in `settings.precision`.
    """
    parts = Parts(n_parts, name, device)
    batch_size = parts.fit_batch(settings.batch_size, len(targets))
    network.fit_normalisation(pixels)
    computation = choose_computation(network, device, settings.precision)
    memory_format = computation.torch_format
    network.to(device=device, memory_format=memory_format).train()  # type: ignore[call-overload]
    model = parts.share(network)
    images = None if isinstance(pixels, Pixels) else pad_images(pixels, settings, device)
    learned = torch.from_numpy(targets).to(device)

    epoch_steps = len(targets) // batch_size  # the rest of an epoch waits for another: no batch is short
    n_steps = n_steps or count_steps(settings, len(targets))
    optimizer = make_optimizer(network, settings, device)
    schedule = make_schedule(optimizer, settings, n_steps)
    loss_sum = torch.zeros((), device=device)
    own = parts.find_own(batch_size)
    n_own = own.stop - own.start
    in_order = torch.arange(n_own, device=device)

    def take_step(chosen: Tensor, offsets: Tensor, mirrored: Tensor, *read: Tensor) -> None:
        padded, indices = (images, chosen) if images is not None else (*read, in_order)
        optimizer.zero_grad(set_to_none=True)
        for part in parts.in_turn(network, n_own):
            batch = cut_batch(padded, settings, indices[part], offsets[:, part], mirrored[part])
            with computation.arithmetic():
                logits = model(batch.contiguous(memory_format=memory_format))
                loss = F.cross_entropy(logits.float(), learned[chosen[part]]) / len(parts.own)
            torch.autograd.backward(loss)
            loss_sum.add_(loss.detach())
        optimizer.step()

    history = []
    with (
        ThreadPoolExecutor(1) as reader,  # whose thread starts with the first thing to read, and is waited for
        computation.on_device(),
        parts.drawing_from(derive_seed(seed, "dropout")),
    ):
        # parts are for networks that keep a GPU busy without a graph, and draw from several generators in turn
        step = GraphedStep(take_step) if device.startswith("cuda") and n_parts == 1 else take_step
        for index, first_step in enumerate(range(0, n_steps, epoch_steps)):
            started = time.perf_counter()
            n_now = min(epoch_steps, n_steps - first_step)
            generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", index))
            drawn = draw_epoch(len(targets), batch_size, n_now, settings, generator, device)
            feeds: list[Iterable[Tensor]] = [numbers[..., own] for numbers in drawn]
            if isinstance(pixels, Pixels):
                feeds.append(read_batches(reader, pixels, drawn[0][:, own], settings))
            for fed in zip(*feeds, strict=True):
                step(*fed)
                schedule.step()
            epoch = Epoch(loss=parts.average(loss_sum).item() / n_now, seconds=time.perf_counter() - started)
            loss_sum.zero_()
            if not math.isfinite(epoch.loss):
                raise DivergedError(
                    f"{name}: the training loss must stay finite, it is {epoch.loss} after epoch {index + 1}; "
                    f"lower training.learning_rate (now {settings.learning_rate:g})"
                )
            history.append(epoch)
            if on_epoch is not None:
                on_epoch(index, epoch)
    parts.broadcast_buffers(network)
    network.eval()
    return tuple(history)


def count_steps(settings: Training, n_train: int) -> int:
    """Counts the batches of a whole training: every epoch leaves out what fills none."""
    return settings.epochs * (n_train // min(settings.batch_size, n_train))


def draw_epoch(
    n: int, batch_size: int, n_steps: int, settings: Training, generator: torch.Generator, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws an epoch's random numbers, one batch after the other on the CPU: the same whatever the device.

    Args:
        n: Samples to choose from.
        batch_size: Samples of every step.
        n_steps: Steps of the epoch.
        settings: `crop_padding` p.
        generator: On the CPU.
        device: Where the numbers go.

    Returns:
        For each step the samples chosen (n_steps, batch_size) int64, no sample twice; for each of them its window's offsets
        (n_steps, 2, batch_size) int64 in 0..2p; and whether it is mirrored (n_steps, batch_size) bool.
    """
    order = torch.randperm(n, generator=generator)[: n_steps * batch_size].view(n_steps, batch_size)
    offsets = torch.empty(n_steps, 2, batch_size, dtype=torch.int64)
    mirrored = torch.empty(n_steps, batch_size, dtype=torch.bool)
    for step in range(n_steps):
        offsets[step] = torch.randint(2 * settings.padding + 1, (2, batch_size), generator=generator)
        mirrored[step] = torch.rand(batch_size, generator=generator) < 0.5
    return order.to(device), offsets.to(device), mirrored.to(device)


def read_batches(reader: Executor, pixels: Pixels, order: Tensor, settings: Training) -> Iterator[Tensor]:
    """Reads an epoch's images from disk, the next batches while one is computed on.

    Args:
        reader: Of one thread.
        pixels: Where they lie.
        order: (n_steps, n) int64, which images each step takes.
        settings: `crop_padding`.

    Yields:
        For each step what `pad_images` makes of its images, in their order, on the device of `order`.
    """
    batches, device = order.cpu().numpy(), order.device

    def read(chosen: NDArray[np.int64]) -> Tensor:  # nothing of CUDA in here: it would break a recording under way
        return pad_images(pixels[chosen], settings, "cpu")

    ahead = deque(reader.submit(read, chosen) for chosen in batches[:N_AHEAD])
    for step in range(len(batches)):
        padded = ahead.popleft().result()
        ahead.extend(reader.submit(read, chosen) for chosen in batches[step + N_AHEAD : step + N_AHEAD + 1])
        yield padded.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else padded


def pad_images(pixels: NDArray[np.uint8], settings: Training, device: str) -> Tensor:
    """Puts a border of `crop_padding` p black pixels around every image.

    Args:
        pixels: (N, C, H, W) uint8.
        settings: p.
        device: Where they go.

    Returns:
        (N, H + 2 p, W + 2 p, C) uint8: with the channels last, a row of a window is one piece of memory.
    """
    n, n_channels, height, width = pixels.shape
    padding = settings.padding
    padded = np.zeros((n, height + 2 * padding, width + 2 * padding, n_channels), np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = pixels.transpose(0, 2, 3, 1)
    return torch.from_numpy(padded).to(device)


def cut_batch(padded: Tensor, settings: Training, chosen: Tensor, offsets: Tensor, mirrored: Tensor) -> Tensor:
    """Cuts a window out of each image of a batch and mirrors some: all in one copy of rows, and one more of whole images.

    Args:
        padded: Of `pad_images`.
        settings: `crop_padding` p, `horizontal_flip`.
        chosen: (n,) int64, which images.
        offsets: (2, n) int64 in 0..2p, where each one's window begins, from above and from the left.
        mirrored: (n,) bool.

    Returns:
        (n, C, H, W) uint8, in memory with the channels last.
    """
    n_images, padded_height, padded_width, n_channels = padded.shape
    height, width = padded_height - 2 * settings.padding, padded_width - 2 * settings.padding
    n, device = len(chosen), padded.device
    n_pixels = n_images * padded_height * padded_width - width + 1
    row_at = padded.view(-1).as_strided((n_pixels, width * n_channels), (n_channels, 1))  # the row from any pixel on
    first_rows = chosen * padded_height + offsets[0]
    rows = first_rows[:, None] + torch.arange(height, device=device)
    first_pixels = rows * padded_width + offsets[1][:, None]
    images = row_at.index_select(0, first_pixels.view(-1)).view(n, height, width, n_channels)
    if settings.horizontal_flip:
        both = torch.cat([images, images.flip(2)]).view(2 * n, -1)
        images = both.index_select(0, torch.arange(n, device=device) + n * mirrored).view_as(images)
    return images.permute(0, 3, 1, 2)


def make_optimizer(network: PixelNetwork, settings: Training, device: str) -> torch.optim.Optimizer:
    """Makes the optimiser of a training's settings."""
    graphed = device.startswith("cuda")
    # a CUDA graph reads a tensor anew at every step
    rate = torch.tensor(settings.learning_rate, device=device) if graphed else settings.learning_rate
    common: dict[str, Any] = {"lr": rate, "weight_decay": settings.weight_decay, "fused": True}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, **common)
    adam = torch.optim.Adam(network.parameters(), capturable=graphed, **common)
    adam._warned_capturable_if_run_uncaptured = True  # as the first steps are meant to be
    return adam


def make_schedule(optimizer: torch.optim.Optimizer, settings: Training, n_steps: int) -> LRScheduler:
    """Makes one-cycle (Smith 2018): up to the learning rate and down to nothing; step: a tenth at 1/2 and at 3/4."""
    if settings.schedule == "one-cycle":
        return OneCycleLR(optimizer, settings.learning_rate, total_steps=n_steps + 1, cycle_momentum=False)
    return MultiStepLR(optimizer, milestones=[max(1, n_steps // 2), max(2, n_steps * 3 // 4)], gamma=0.1)
