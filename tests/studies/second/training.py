"""The trainings of the second study: the shipped loop, with what it does not have and what else may rank architectures.

Where nothing is asked for that the shipped loop lacks, weights are the same to the bit; a test holds that.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from proxyds.data.pixels import ImageArray
from proxyds.recipe.models import Training
from proxyds.seeding import derive_seed
from proxyds.training.loop import cut_batch, draw_epoch, make_optimizer, make_schedule, pad_images
from proxyds.training.model import PixelNetwork
from proxyds.training.numerics import choose_computation

AVERAGED_SHARE = 0.25
"""Share of the steps, the last ones, over which weights are averaged."""
BATCH = 250
"""Images of a batch that is only asked about."""


@dataclass(frozen=True)
class Extras:
    """What the shipped loop does not have.

    Attributes:
        smoothing: Share of each target that is spread over all labels.
        teacher: (N, L) float32 probabilities that are the targets instead of labels; None for labels.
    """

    smoothing: float = 0.0
    teacher: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        network: In evaluation mode.
        mean_weights: A network whose weights are means over the last steps; batch norm statistics are the network's own.
        losses: Mean training loss of each epoch.
        seconds: Of the training.
    """

    network: PixelNetwork
    mean_weights: PixelNetwork
    losses: tuple[float, ...]
    seconds: float


def train(
    network: PixelNetwork,
    pixels: ImageArray,
    labels: NDArray[np.int64],
    settings: Training,
    extras: Extras,
    *,
    seed: int,
    n_steps: int,
) -> Trained:
    """Trains a network in place, as `train_network` does on a CPU.

    Args:
        network: With initial weights.
        pixels: (N, C, H, W) uint8.
        labels: (N,).
        settings: Of the training.
        extras: What the shipped loop does not have.
        seed: Of order and augmentation.
        n_steps: Batches in all.

    Raises:
        ArithmeticError: The loss became infinite or not a number.
        ValueError: Another precision than float32 is asked for.
    """
    if settings.precision == "bfloat16":
        raise ValueError("the second study trains in float32")
    started = time.perf_counter()
    network.fit_normalisation(pixels)
    memory_format = choose_computation(network).torch_format
    network.to(memory_format=memory_format).train()  # type: ignore[call-overload]
    images = pad_images(pixels, settings, "cpu")
    targets = torch.from_numpy(labels if extras.teacher is None else extras.teacher)
    batch_size = min(settings.batch_size, len(labels))
    optimizer = make_optimizer(network, settings, "cpu")
    schedule = make_schedule(optimizer, settings, n_steps)
    sums = [torch.zeros_like(weight) for weight in network.parameters()]
    first_averaged = math.floor((1 - AVERAGED_SHARE) * n_steps)
    epoch_steps, losses, step = len(labels) // batch_size, [], 0
    for epoch, first in enumerate(range(0, n_steps, epoch_steps)):
        n_now = min(epoch_steps, n_steps - first)
        generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
        loss_sum = torch.zeros(())
        for chosen, offsets, mirrored in zip(
            *draw_epoch(len(labels), batch_size, n_now, settings, generator, "cpu"), strict=True
        ):
            optimizer.zero_grad(set_to_none=True)
            batch = cut_batch(images, settings, chosen, offsets, mirrored).contiguous(memory_format=memory_format)
            loss = F.cross_entropy(network(batch), targets[chosen], label_smoothing=extras.smoothing)
            torch.autograd.backward(loss)
            loss_sum.add_(loss.detach())
            optimizer.step()
            schedule.step()
            if step >= first_averaged:
                for total, weight in zip(sums, network.parameters(), strict=True):
                    total.add_(weight.detach())
            step += 1
        losses.append(float(loss_sum) / n_now)
        if not math.isfinite(losses[-1]):
            raise ArithmeticError(f"the loss is {losses[-1]} after epoch {epoch + 1}")
    network.eval()
    averaged = copy.deepcopy(network)
    with torch.no_grad():
        for weight, total in zip(averaged.parameters(), sums, strict=True):
            weight.copy_(total / (n_steps - first_averaged))
    return Trained(network, averaged, tuple(losses), time.perf_counter() - started)


@torch.inference_mode()
def ask(network: PixelNetwork, pixels: ImageArray, *, mirrored: bool = False) -> Tensor:
    """Asks a network about images (N, C, H, W); returns log probabilities (N, L), with those of the mirror image averaged where asked for."""
    memory_format = choose_computation(network).torch_format
    answers = []
    for start in range(0, len(pixels), BATCH):
        batch = torch.from_numpy(np.array(pixels[start : start + BATCH]))
        log_p = network(batch.contiguous(memory_format=memory_format)).log_softmax(1)
        if mirrored:
            other = network(batch.flip(3).contiguous(memory_format=memory_format)).log_softmax(1)
            log_p = torch.logaddexp(log_p, other) - math.log(2)
        answers.append(log_p)
    return torch.cat(answers)


@torch.no_grad()
def take_statistics_again(network: PixelNetwork, pixels: ImageArray) -> PixelNetwork:
    """Copies a network with batch norm statistics that are means over images as they are, not moving averages over training's."""
    again = copy.deepcopy(network)
    norms = [module for module in again.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    memory_format = choose_computation(again).torch_format
    for start in range(0, len(pixels) - BATCH + 1, BATCH):
        again(torch.from_numpy(np.array(pixels[start : start + BATCH])).contiguous(memory_format=memory_format))
    return again.eval()


def measure(
    trained: Trained, train_pixels: ImageArray, pixels: ImageArray, labels: NDArray[np.int64], *, all_scores: bool
) -> dict[str, float]:
    """Measures what may rank architectures on held-out images.

    Args:
        trained: Of `train`.
        train_pixels: What it was trained on, for batch norm statistics.
        pixels: (M, C, H, W).
        labels: (M,).
        all_scores: Whether more is measured than accuracy, loss and margin.

    Returns:
        Scores by their column; `margin` is the mean of the true label's probability less the highest other one.
    """
    true = torch.from_numpy(labels)

    def accuracy(log_p: Tensor) -> float:
        return float((log_p.argmax(1) == true).double().mean())

    log_p = ask(trained.network, pixels)
    p = log_p.exp()
    other = p.scatter(1, true[:, None], -1.0).amax(1)
    scores = {
        "accuracy": accuracy(log_p),
        "loss": float(F.nll_loss(log_p, true)),
        "margin": float((p.gather(1, true[:, None])[:, 0] - other).mean()),
        "train_loss_sum": sum(trained.losses),
    }
    if all_scores:
        statistics = take_statistics_again(trained.network, train_pixels)
        mean_weights = take_statistics_again(trained.mean_weights, train_pixels)
        scores |= {
            "accuracy_mirrored": accuracy(ask(trained.network, pixels, mirrored=True)),
            "accuracy_statistics": accuracy(ask(statistics, pixels)),
            "accuracy_mean_weights": accuracy(ask(mean_weights, pixels)),
        }
    return scores
