"""A network that takes uint8 pixels: made from a registered family, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from proxyds.data.pixels import ImageArray
from proxyds.space.networks.build import build_network


class PixelNetwork(nn.Module):
    """A network that takes uint8 pixels: it normalises each channel by the training set's mean and deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, n_channels: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1, n_channels, 1, 1))
        self.register_buffer("deviation", torch.ones(1, n_channels, 1, 1))

    def fit_normalisation(self, pixels: ImageArray) -> None:
        """Sets mean and deviation from pixels (N, C, H, W), by counting values: both are exact, but a deviation under 1 is set to 1."""
        counts = np.zeros((pixels.shape[1], 256))
        for images in (pixels[start : start + 1024] for start in range(0, len(pixels), 1024)):
            for channel in range(pixels.shape[1]):
                counts[channel] += np.bincount(images[:, channel].ravel(), minlength=256)
        values, n = np.arange(256.0), counts.sum(axis=1)
        mean = counts @ values / n
        variance = counts @ values**2 / n - mean**2
        self.mean.copy_(torch.from_numpy(mean).view_as(self.mean))
        self.deviation.copy_(torch.from_numpy(np.sqrt(np.maximum(variance, 1.0))).view_as(self.deviation))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps uint8 (n, C, h, w) to logits (n, n_labels)."""
        # spread over one image first: torch is slow where a few channels stand innermost
        mean, deviation = (
            torch.empty_like(pixels[:1], dtype=torch.float32).copy_(of_channel)
            for of_channel in (self.mean, self.deviation)
        )
        logits: Tensor = self.network((pixels.float() - mean) / deviation)
        return logits


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
    with safe_open(file, framework="pt") as saved:
        metadata = saved.metadata()
        image_shape: tuple[int, int, int] = tuple(json.loads(metadata["image_shape"]))
        built = PixelNetwork(build_network(network, parameters, int(metadata["n_labels"]), image_shape), image_shape[0])
        built.load_state_dict({name: saved.get_tensor(name) for name in saved.keys()})  # noqa: SIM118 - no mapping
    return built.eval()
