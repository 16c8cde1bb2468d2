"""The one training loop, and inference beside it: a network, pixels in memory, settings, a seed.

Choices and their cost. The data set is held as uint8 and augmented a batch at a time, each sample with its own crop and
flip: many times faster than a loader of PIL images, and it must fit in memory. Everything that changes floating-point
results follows from the network's shape and the kind of device alone, never from timing or load: one thread for each run
(`engine.py` runs as many at once as there are cores), `choose_memory_format`, fp32.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from proxyds.errors import DivergedError
from proxyds.networks import build_network
from proxyds.recipe import Training
from proxyds.seeding import derive_seed

INFERENCE_BATCH = 256
TIMING_FLOPS = 20_000_000_000
"""Cost of one step of `time_training`, at most (two images at least): under a second on one core."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training left behind.

    Attributes:
        loss: Mean cross-entropy over the epoch's training batches, in nats.
        seconds: Wall-clock time of the epoch.
    """

    loss: float
    seconds: float


class PixelNetwork(nn.Module):
    """A network that takes uint8 pixels: it normalises each channel by the training set's mean and deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, n_channels: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1, n_channels, 1, 1))
        self.register_buffer("deviation", torch.ones(1, n_channels, 1, 1))

    def fit_normalisation(self, pixels: NDArray[np.uint8]) -> None:
        """Sets mean and deviation from pixels (N, C, H, W), exactly, by counting values."""
        counts = np.zeros((pixels.shape[1], 256))
        for image_tile in np.array_split(pixels, -(-len(pixels) // 1024)):
            for channel in range(pixels.shape[1]):
                counts[channel] += np.bincount(image_tile[:, channel].ravel(), minlength=256)
        values, n = np.arange(256.0), counts.sum(axis=1)
        mean = counts @ values / n
        variance = counts @ values**2 / n - mean**2
        self.mean.copy_(torch.from_numpy(mean).view_as(self.mean))
        self.deviation.copy_(torch.from_numpy(np.sqrt(np.maximum(variance, 1.0))).view_as(self.deviation))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps uint8 (n, C, h, w) to logits (n, n_labels)."""
        logits: Tensor = self.network((pixels.float() - self.mean) / self.deviation)
        return logits


def train_network(
    network: PixelNetwork,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    settings: Training,
    *,
    seed: int,
    n_steps: int | None = None,
    device: str = "cpu",
    name: str = "network",
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> tuple[Epoch, ...]:
    """Trains a network in place with cross-entropy.

    Args:
        network: With initial weights; left in evaluation mode.
        pixels: (N, C, H, W) uint8; N of two or more.
        labels: (N,) in [0, n_labels).
        settings: Epochs, batch size, optimiser, schedule, augmentation.
        seed: Of the order of samples and the augmentation.
        n_steps: Batches in all, with the schedule fitted to them; None for `count_steps`.
        device: `cpu` or a CUDA device.
        name: Of the network, for messages.
        on_epoch: Called after each epoch with its index and record.

    Returns:
        One record for each epoch.

    Raises:
        DivergedError: The loss is infinite or not a number after an epoch.
    """
    _forbid_shortcuts()
    network.fit_normalisation(pixels)
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    memory_format = choose_memory_format(network)
    network.to(device=device, memory_format=memory_format).train()  # type: ignore[call-overload]
    images, targets = images.to(device), torch.from_numpy(labels).to(device)

    batch_size = min(settings.batch_size, len(labels))
    epoch_steps = len(labels) // batch_size  # the rest of an epoch waits for another: no batch is short
    n_steps = n_steps or count_steps(settings, len(labels))
    optimizer = _make_optimizer(network, settings)
    schedule = _make_schedule(optimizer, settings, n_steps)
    history = []
    with _drawing_from(derive_seed(seed, "dropout"), device):
        for index, first_step in enumerate(range(0, n_steps, epoch_steps)):
            started = time.perf_counter()
            generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", index))
            order = torch.randperm(len(labels), generator=generator)
            loss_sum = torch.zeros((), device=device)
            n_now = min(epoch_steps, n_steps - first_step)
            for step in range(n_now):
                chosen = order[step * batch_size : (step + 1) * batch_size].to(device)
                batch = augment(images[chosen], settings, generator)
                optimizer.zero_grad(set_to_none=True)
                logits = network(batch.contiguous(memory_format=memory_format))
                loss = F.cross_entropy(logits, targets[chosen])
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                loss_sum += loss.detach()
            epoch = Epoch(loss=loss_sum.item() / n_now, seconds=time.perf_counter() - started)
            if not math.isfinite(epoch.loss):
                raise DivergedError(
                    f"{name}: the training loss must stay finite, it is {epoch.loss} after epoch {index + 1}; "
                    f"lower training.learning_rate (now {settings.learning_rate:g})"
                )
            history.append(epoch)
            if on_epoch is not None:
                on_epoch(index, epoch)
    network.eval()
    return tuple(history)


def count_steps(settings: Training, n_train: int) -> int:
    """Batches of a whole training: every epoch leaves out what fills none."""
    return settings.epochs * (n_train // min(settings.batch_size, n_train))


def time_training(
    network: PixelNetwork,
    n_seen: int,
    n_labels: int,
    image_shape: tuple[int, int, int],
    training_flops: int,
    settings: Training,
    device: str,
) -> float:
    """Expects the seconds of a whole training from a few small steps on made-up images, in one thread.

    Args:
        network: Left in an unusable state.
        n_seen: Images that the whole training computes on, over all epochs.
        n_labels: Size of the output.
        image_shape: (C, H, W).
        training_flops: Of one image, to keep the steps short.
        settings: How it would be trained.
        device: `cpu` or a CUDA device.
    """
    n = int(np.clip(TIMING_FLOPS // training_flops, 2, settings.batch_size))
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (n, *image_shape), np.uint8), rng.integers(0, n_labels, n)
    short = settings.model_copy(update={"epochs": 5, "batch_size": n})
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = train_network(network, pixels, labels, short, seed=0, device=device)
    finally:
        torch.set_num_threads(n_threads)
    return float(np.median([step.seconds for step in steps[1:]])) / n * n_seen  # the first warms up


def augment(images: Tensor, settings: Training, generator: torch.Generator) -> Tensor:
    """Shifts every image of a batch and mirrors half of them, each with its own draw.

    Args:
        images: (n, C, H, W) uint8, on any device; may be changed.
        settings: `crop_padding` p (a window of H x W is cut out of the image padded by p black pixels), `horizontal_flip`.
        generator: On the CPU; the same draws whatever the device.

    Returns:
        (n, C, H, W) uint8.
    """
    n, _, height, width = images.shape
    padding = settings.crop_padding
    offsets = torch.randint(2 * padding + 1, (2, n), generator=generator).to(images.device)
    mirrored = (torch.rand(n, generator=generator) < 0.5).nonzero().squeeze(1).to(images.device)
    if padding:
        windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        images = windows[torch.arange(n, device=images.device), :, offsets[0], offsets[1]]
    if settings.horizontal_flip:
        images[mirrored] = images[mirrored].flip(3)
    return images


@torch.inference_mode()
def predict_labels(network: PixelNetwork, pixels: NDArray[np.uint8], device: str = "cpu") -> NDArray[np.int64]:
    """Returns the label with the largest logit for uint8 pixels (N, C, H, W), as (N,) int64."""
    return np.concatenate([network(batch).argmax(1).cpu().numpy() for batch in _batches(network, pixels, device)])


@torch.inference_mode()
def extract_features(
    network: PixelNetwork, layer: str, pixels: NDArray[np.uint8], device: str = "cpu"
) -> NDArray[np.float32]:
    """Reads one layer's output for each sample.

    Args:
        network: In evaluation mode.
        layer: A name of `list_layers`.
        pixels: (N, C, H, W) uint8.
        device: `cpu` or a CUDA device.

    Returns:
        (N, D) float32. A spatial output (n, D, h, w) is averaged over its positions, one of tokens (n, tokens, D) over these:
        the paper does not say how a layer becomes a vector, and this keeps D small at every layer. Outputs (n, h, w, D), of some
        transformers' inner layers, are not told apart from (n, D, h, w): take a later layer of those.
    """
    outputs: list[Tensor] = []
    handle = network.network.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: outputs.append(output.clone())  # noqa: ARG005 - what follows may write into it
    )
    features = []
    try:
        for batch in _batches(network, pixels, device):
            network(batch)
            last = outputs[-1]  # of a layer that is used more than once
            if last.dim() > 2:
                last = last.mean(1) if last.dim() == 3 else last.flatten(2).mean(2)
            features.append(last.float().cpu().numpy())
            outputs.clear()
    finally:
        handle.remove()
    return np.concatenate(features)


def make_network(
    network: str, parameters: dict[str, Any], n_labels: int, image_shape: tuple[int, int, int], seed: int
) -> PixelNetwork:
    """Builds a registered network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PixelNetwork(build_network(network, parameters, n_labels, image_shape), image_shape[0])


def save_network(network: PixelNetwork, file: Path, n_labels: int, image_shape: tuple[int, int, int]) -> None:
    """Writes weights, batch norm statistics and normalisation as safetensors."""
    # clones, since layers may share weights
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    # through Python's own writing, whose errors tell a full disk
    file.write_bytes(save(tensors, {"n_labels": str(n_labels), "image_shape": json.dumps(image_shape)}))


def load_network(file: Path, network: str, parameters: dict[str, Any]) -> PixelNetwork:
    """Reads what `save_network` wrote, on the CPU, in evaluation mode."""
    with safe_open(file, framework="pt") as held:
        about = held.metadata()
        image_shape: tuple[int, int, int] = tuple(json.loads(about["image_shape"]))
        built = PixelNetwork(build_network(network, parameters, int(about["n_labels"]), image_shape), image_shape[0])
        built.load_state_dict({name: held.get_tensor(name) for name in held.keys()})  # noqa: SIM118 - no mapping
    return built.to(memory_format=choose_memory_format(built)).eval()


def list_layers(network: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """Names every layer that features can be read from, in the order of computation.

    Args:
        network: On the meta device: nothing is computed.
        image_shape: (C, H, W).

    Returns:
        The modules whose output for n images is one tensor (n, D) or (n, D, ...).
    """
    layers: list[str] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() > 1:
            layers.append(name)

    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(lambda module, inputs, output, name=name: note(name, output))  # noqa: ARG005
    network.eval()(torch.zeros(2, *image_shape, device="meta"))
    return layers


def choose_memory_format(network: nn.Module) -> torch.memory_format:
    """Decides between channels-last and contiguous from the network's shape alone.

    Channels-last is faster on CPUs and GPUs, but oneDNN corrupts the heap in it where a convolution has 4 channels
    (seen with torch 2.13 to 2.15 on AVX2). So it is used only where every convolution has multiples of 8 channels,
    the input's own 1 or 3 aside.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    fits = all(c.out_channels % 8 == 0 and (c.in_channels % 8 == 0 or c.in_channels == 3) for c in convolutions)
    return torch.channels_last if convolutions and fits else torch.contiguous_format


@contextmanager
def _drawing_from(seed: int, device: str) -> Iterator[None]:
    """Lets what draws from torch's global generator (dropout, stochastic depth) draw from a seed of its own."""
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def _forbid_shortcuts() -> None:
    """Keeps CUDA's convolutions in fp32 and to algorithms that give the same bits twice."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _batches(network: nn.Module, pixels: NDArray[np.uint8], device: str) -> Iterator[Tensor]:
    _forbid_shortcuts()
    memory_format = choose_memory_format(network)
    for start in range(0, len(pixels), INFERENCE_BATCH):
        batch = torch.from_numpy(np.array(pixels[start : start + INFERENCE_BATCH]))
        yield batch.to(device).contiguous(memory_format=memory_format)


def _make_optimizer(network: nn.Module, settings: Training) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _make_schedule(optimizer: torch.optim.Optimizer, settings: Training, n_steps: int) -> LRScheduler:
    """One-cycle (Smith 2018): up to the learning rate and down to nothing; step: a tenth at 1/2 and at 3/4."""
    if settings.schedule == "one-cycle":
        return OneCycleLR(optimizer, settings.learning_rate, total_steps=n_steps + 1, cycle_momentum=False)
    return MultiStepLR(optimizer, milestones=[max(1, n_steps // 2), max(2, n_steps * 3 // 4)], gamma=0.1)
