"""Probe networks: trained on everything that may be drawn, asked about every evaluation sample (paper, section 3.1)."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxyds.engine import Report, Task
from proxyds.errors import ChanceLevelError
from proxyds.recipe import Training
from proxyds.records import Architecture, Probe, Samples
from proxyds.seeding import derive_seed
from proxyds.store import Entry
from proxyds.training import Epoch, make_network, predict_labels, save_network, time_training, train_network

STAGE = "probes"
STAGE_VERSION = 1


def probe_task(
    architecture: Architecture,
    train: Samples,
    evaluation: Samples,
    *,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    seed: int,
    device: str,
    content: dict[str, str],
) -> Task:
    """Describes the training of one probe.

    Args:
        architecture: Which network.
        train: What it is trained on.
        evaluation: What it is asked about.
        n_labels: Size of its output.
        image_shape: (C, H, W).
        settings: How it is trained.
        seed: The recipe's; initial weights and the order of samples are derived from it and the parameters.
        device: `cpu` or a CUDA device.
        content: What else the result depends on: fingerprints of the samples, versions, kind of device.
    """
    parameters = json.dumps(architecture.parameters, sort_keys=True)
    return Task(
        stage=STAGE,
        name=f"probe {architecture.name}",
        inputs={
            "version": STAGE_VERSION,
            "network": architecture.network,
            "parameters": architecture.parameters,
            "settings": settings.model_dump(mode="json"),
            "seed": seed,
            **content,
        },
        function=train_probe,
        arguments={
            "architecture": architecture,
            "train": train,
            "evaluation": evaluation,
            "n_labels": n_labels,
            "image_shape": image_shape,
            "settings": settings,
            "seed": derive_seed(seed, "probe", architecture.network, parameters),
            "device": device,
        },
    )


def train_probe(
    *,
    folder: Path,
    report: Report,
    architecture: Architecture,
    train: Samples,
    evaluation: Samples,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    seed: int,
    device: str,
) -> None:
    """Trains one probe; writes `weights.safetensors`, `predictions.npy` and `training.json` to the folder.

    Raises:
        DivergedError: The loss became infinite or not a number.
    """
    network = make_network(
        architecture.network, architecture.parameters, n_labels, image_shape, derive_seed(seed, "weights")
    )

    def show(index: int, epoch: Epoch) -> None:
        report(index + 1, settings.epochs, f"loss {epoch.loss:.3f}")

    started = time.perf_counter()
    report(0, settings.epochs, "")
    history = train_network(
        network, train.pixels(), train.labels, settings, seed=seed, device=device, name=architecture.name, on_epoch=show
    )
    seconds = time.perf_counter() - started
    np.save(folder / "predictions.npy", predict_labels(network, evaluation.pixels(), device))
    save_network(network, folder / "weights.safetensors", n_labels, image_shape)
    about = {"losses": [epoch.loss for epoch in history], "seconds": seconds}
    (folder / "training.json").write_text(json.dumps(about))


def expect_seconds(task: Task) -> float:
    """Times a few steps of a probe's training and says how long the whole would take on this machine, alone."""
    arguments = task.arguments
    architecture, settings = arguments["architecture"], arguments["settings"]
    network = make_network(
        architecture.network, architecture.parameters, arguments["n_labels"], arguments["image_shape"], seed=0
    )
    n_train = len(arguments["train"])
    return time_training(
        network, n_train, arguments["n_labels"], arguments["image_shape"], settings, arguments["device"]
    )


def read_probe(
    entry: Entry, architecture: Architecture, labels: NDArray[np.int64], settings: Training, n_train: int
) -> Probe:
    """Reads a finished probe.

    Args:
        entry: What `train_probe` left in the store.
        architecture: Which network.
        labels: (M,) true labels of the evaluation samples.
        settings: How it was trained.
        n_train: Samples that it was trained on.
    """
    about = json.loads((entry.folder / "training.json").read_text())
    predictions: NDArray[np.int64] = np.load(entry.folder / "predictions.npy")
    batch_size = min(settings.batch_size, n_train)
    n_seen = settings.epochs * (n_train // batch_size) * batch_size
    return Probe(
        architecture=architecture,
        predictions=predictions,
        accuracy=float((predictions == labels).mean()),
        losses=tuple(about["losses"]),
        training_seconds=about["seconds"],
        training_flops=n_seen * architecture.training_flops,
        weights_file=entry.folder / "weights.safetensors",
    )


def check_above_chance(probe: Probe, labels: NDArray[np.int64]) -> None:
    """Refuses a probe that has learnt nothing: the cases of its outcomes would be noise.

    Chance is the share of the most frequent label; the probe must be three standard errors above it.

    Raises:
        ChanceLevelError: It is not.
    """
    n = len(labels)
    chance = float(np.bincount(labels).max() / n)
    needed = min(chance + 3 * math.sqrt(chance * (1 - chance) / n), 1.0)
    if probe.accuracy < needed:
        raise ChanceLevelError(
            f"probe {probe.architecture.name}: must be better than chance, that is right on more than {needed:.1%} of the "
            f"{n:,} evaluation samples; it is right on {probe.accuracy:.1%}. Train longer (training.epochs, now "
            f"{len(probe.losses)}), change training.learning_rate, or leave out the smallest choices of the space"
        )
