"""Networks trained on pixels and asked about pixels that stay on disk: the same bits, and no more memory than a few batches."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from proxyds.data.pixels import Pixels
from proxyds.recipe.models import Training
from proxyds.training.inference import extract_features, predict_labels
from proxyds.training.loop import N_AHEAD, train_network
from proxyds.training.model import PixelNetwork, make_network

FAMILIES = [
    ("resnet", {"depth": 8, "base_filters": 8}),  # channels last
    ("resnet", {"depth": 8, "base_filters": 4}),
    ("efficientnet", {"width": 0.25, "small_stem": True}),  # with dropout and stochastic depth
]
SETTINGS = Training(epochs=3, batch_size=32, crop_padding=2)


pytestmark = pytest.mark.usefixtures("one_thread")


class Lying:
    """A file that lies here."""

    def __init__(self, path: Path) -> None:
        self.path = path


class Noting(Pixels):
    """Notes how many images are read at a time, and by which thread."""

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        if not hasattr(self, "reads"):
            self.reads: list[tuple[int, str]] = []
        found = super().__getitem__(wanted)
        self.reads.append((len(found), threading.current_thread().name))
        return found


def write_images(folder: Path, n: int, side: int = 16) -> tuple[Noting, np.ndarray]:
    """Images in three files of unequal length, in an order of their own, and their labels."""
    rng = np.random.default_rng(0)
    starts = [0, n // 4, n // 4 + 1]
    for i, length in enumerate(np.diff([*starts, n])):
        np.save(folder / f"{i}.npy", rng.integers(0, 256, (length, 3, side, side), np.uint8))
    files = [Lying(folder / f"{i}.npy") for i in range(3)]
    return Noting(files, starts, rng.permutation(n)), rng.integers(0, 4, n)


def network_of(family: tuple[str, dict[str, object]] = FAMILIES[0], side: int = 16) -> PixelNetwork:
    return make_network(*family, 4, (3, side, side), seed=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_from_disk_gives_the_same_bits(tmp_path: Path, family: tuple[str, dict[str, object]]) -> None:
    pixels, labels = write_images(tmp_path, 150)  # an epoch leaves out 22
    held, read = network_of(family), network_of(family)
    expected = train_network(held, pixels[:], labels, SETTINGS, seed=3)
    found = train_network(read, pixels, labels, SETTINGS, seed=3)
    assert [epoch.loss for epoch in found] == [epoch.loss for epoch in expected]
    assert all(torch.equal(a, b) for a, b in zip(held.state_dict().values(), read.state_dict().values(), strict=True))
    assert len({epoch.loss for epoch in found}) == 3


def test_a_training_that_is_cut_short_gives_the_same_bits(tmp_path: Path) -> None:
    pixels, labels = write_images(tmp_path, 150)
    losses = [
        [epoch.loss for epoch in train_network(network_of(), given, labels, SETTINGS, seed=3, n_steps=5)]
        for given in (pixels[:], pixels)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_a_few_batches_are_read_ahead_by_a_thread_that_ends(tmp_path: Path) -> None:
    pixels, labels = write_images(tmp_path, 320)
    network, n_read = network_of(), []
    network.register_forward_hook(lambda *_: n_read.append(sum(n == 32 for n, _ in pixels.reads)))
    train_network(network, pixels, labels, SETTINGS, seed=3)
    assert len(n_read) == 30
    for step, n in enumerate(n_read):
        assert step + 1 <= n <= step + 1 + N_AHEAD
    names = {name for n, name in pixels.reads if n == 32}
    assert len(names) == 1
    assert names != {threading.main_thread().name}
    assert not names & {thread.name for thread in threading.enumerate()}


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    peaks = []
    for n in (2_000, 8_000):
        pixels, labels = write_images(tmp_path, n)
        tracemalloc.start()
        train_network(network_of(), pixels, labels, SETTINGS, seed=3, n_steps=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 8_000 * 3 * 16 * 16


def test_an_error_of_the_reading_thread_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_threads = threading.active_count()
    pixels, labels = write_images(tmp_path, 150)
    network = network_of()
    monkeypatch.setattr(network, "fit_normalisation", lambda pixels: None)  # which would find it first
    pixels[:]
    with (tmp_path / "2.npy").open("r+b") as file:
        file.truncate(2_000)
    with pytest.raises(EOFError, match="shorter than when it was written"):
        train_network(network, pixels, labels, SETTINGS, seed=3)
    assert threading.active_count() == n_threads


def test_the_reading_thread_ends_when_the_training_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_threads = threading.active_count()
    pixels, labels = write_images(tmp_path, 320)

    def fail(*_: object) -> torch.Tensor:
        assert threading.active_count() == n_threads + 1
        raise MemoryError("no more")

    monkeypatch.setattr("proxyds.training.loop.cut_batch", fail)
    with pytest.raises(MemoryError, match="no more"):
        train_network(network_of(), pixels, labels, SETTINGS, seed=3)
    assert threading.active_count() == n_threads
    assert sum(n == 32 for n, _ in pixels.reads) <= 1 + N_AHEAD


def test_networks_are_asked_about_pixels_on_disk_a_batch_at_a_time(tmp_path: Path) -> None:
    pixels, _ = write_images(tmp_path, 150)
    network = network_of().eval()
    assert (predict_labels(network, pixels) == predict_labels(network, pixels[:])).all()
    features = extract_features(network, "stages.1", pixels)
    assert (features == extract_features(network, "stages.1", pixels[:])).all()
    assert features.shape == (150, 16)
    assert sorted({n for n, _ in pixels.reads}) == [8, 22, 64, 150]  # compared, the last batch, a batch; and `load`
