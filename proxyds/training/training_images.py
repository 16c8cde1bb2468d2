"""A training set as a trainer of the program's own gets it: a torch data set of normalised images and their labels."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from proxyds.data.pixels import ImageArray
from proxyds.training.model import PixelNetwork


class TrainingImages(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image, float32 (C, H, W), and its label, int64.

    Images are normalised as networks see them ever after: each channel less its mean over the training set, over its deviation (1 at least).

    Args:
        pixels: (N, C, H, W) uint8; read as they are indexed where they lie on disk.
        labels: (N,) in [0, n_labels).
        network: That normalises the same pixels.

    Attributes:
        labels: (N,) int64.
        mean: (C, 1, 1) float32, of the pixels, from 0 to 255: `image * deviation + mean` gives them back.
        deviation: (C, 1, 1) float32, 1 at least.
    """

    def __init__(self, pixels: ImageArray, labels: NDArray[np.int64], network: PixelNetwork) -> None:
        self._pixels = pixels
        self.labels = torch.from_numpy(labels.copy())  # a trainer may write into it
        self.mean, self.deviation = network.mean[0].clone(), network.deviation[0].clone()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number, n = operator.index(index), len(self)
        if not -n <= number < n:
            raise IndexError(f"index {number} of {n:,} samples")
        return self.__getitems__([number % n])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Returns the samples at some indices, which torch's loaders ask for a batch at a time."""
        chosen = np.asarray(indices, np.int64)
        images = (torch.from_numpy(self._pixels[chosen]).float() - self.mean) / self.deviation
        return list(zip(images, self.labels[torch.from_numpy(chosen)], strict=True))
