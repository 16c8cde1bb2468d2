"""One of several processes that train together, for `test_data_parallel.py`: `python tests/ranks.py RANK FOLDER WHAT`."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import distributed as dist

from proxyds.data.pixels import Pixels
from proxyds.data.samples import Origin, Samples
from proxyds.errors import ProxydsError
from proxyds.recipe.models import Training
from proxyds.selection.probe import ProbeJob, train_probe
from proxyds.space.architecture import Architecture
from proxyds.training.loop import Epoch, train_network
from proxyds.training.model import make_network

N_RANKS = 2
RESNET = ("resnet", {"depth": 8, "base_filters": 8})
DRAWING = ("efficientnet", {"width": 0.25, "small_stem": True})  # with dropout and stochastic depth
LEAVING_OUT = (
    "nasbench201",  # computes two convolutions of each cell that nothing reads
    {"cell": "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", "channels": 8, "cells": 1},
)
PLAIN = Training(
    epochs=20, batch_size=64, optimizer="sgd", learning_rate=0.02, crop_padding=0, horizontal_flip=False
)  # of 64 samples: an epoch is a step, and tells its loss
SHORT = PLAIN.model_copy(update={"epochs": 4, "learning_rate": 0.005})
AUGMENTED = SHORT.model_copy(update={"batch_size": 16, "crop_padding": 2, "horizontal_flip": True})
DIVERGING = PLAIN.model_copy(update={"learning_rate": 100.0, "weight_decay": 1.0})


class Lying:
    """A file that lies here."""

    def __init__(self, path: Path) -> None:
        self.path = path


def images() -> tuple[np.ndarray, np.ndarray]:
    """64 images whose brighter half tells the label."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    pixels = rng.integers(0, 200, (64, 3, 16, 16), np.uint8)
    pixels[labels == 1, :, :8] += 50
    return pixels, labels


def on_disk(folder: Path, pixels: np.ndarray) -> Pixels:
    """The same images, read from three files where they are asked for."""
    files, starts = [], [0, 10, 11]
    for i, part in enumerate(np.split(pixels, starts[1:])):
        file = folder / f"{i}.npy"
        if not file.exists():
            np.save(file, part)
        files.append(Lying(file))
    return Pixels(files, starts, np.arange(len(pixels)))


def samples_of(file: Path, labels: np.ndarray) -> Samples:
    """Samples whose pixels stay in a file."""
    n = len(labels)
    ids = np.array([f"{i:064x}" for i in range(n)])
    origin = Origin("train", (Lying(file),), (0,), "RGB 16")
    return Samples(ids, labels, np.arange(n), ids, np.arange(n), origin, stay_on_disk=True)


def make_probe_job(folder: Path, **changes: Any) -> ProbeJob:
    """Describes a probe that two processes train together."""
    pixels, labels = images()
    if not (folder / "all.npy").exists():
        np.save(folder / "all.npy", pixels)
    samples = samples_of(folder / "all.npy", labels)
    job = ProbeJob(
        architecture=Architecture("small", *RESNET, 1, 1, 1),
        train=samples,
        held_out=samples,
        n_labels=2,
        image_shape=(3, 16, 16),
        settings=SHORT,
        seed=9,
        device="cpu",
        arithmetic={"torch": "2", "device": "cpu x86_64"},
        data_parallel=N_RANKS,
        keep_answers=True,
    )
    return replace(job, **changes)


def train(
    kind: tuple[str, dict[str, Any]], settings: Training, pixels: np.ndarray | Pixels, n_parts: int, **given: Any
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Trains a network; returns its losses, and its weights and statistics."""
    network = make_network(*kind, 2, (3, 16, 16), seed=1)
    history = train_network(network, pixels, images()[1], settings, seed=9, n_parts=n_parts, **given)
    return [epoch.loss for epoch in history], network.state_dict()


CASES = {
    "plain": (RESNET, PLAIN),
    "drawing": (DRAWING, SHORT),
    "leaving-out": (LEAVING_OUT, SHORT),
    "disk": (RESNET, AUGMENTED),
}


def _train_all(rank: int, folder: Path) -> None:
    pixels, _ = images()
    for name, case in CASES.items():
        losses, state = train(*case, on_disk(folder, pixels) if name == "disk" else pixels, N_RANKS)
        (folder / f"{name}-{rank}.json").write_text(json.dumps(losses))
        save_file({key: held.contiguous() for key, held in state.items()}, folder / f"{name}-{rank}.safetensors")
    own = folder / f"probe-{rank}"
    own.mkdir()
    said: list[float] = []
    train_probe(folder=own, report=lambda done, total, note: said.append(done), **vars(make_probe_job(folder)))
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
    refused = {}
    for name, settings, n_parts in (("diverged", DIVERGING, N_RANKS), ("mismatch", SHORT, 4), ("alone", SHORT, 1)):
        try:
            train(RESNET, settings, pixels, n_parts)
        except ProxydsError as error:
            refused[name] = f"{type(error).__name__}: {error}"
    (folder / f"refused-{rank}.json").write_text(json.dumps(refused))


def _die_midway(rank: int, folder: Path) -> None:
    def die(index: int, epoch: Epoch) -> None:
        if rank == 1 and index == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    train(RESNET, PLAIN, images()[0], N_RANKS, on_epoch=die)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=N_RANKS,
        timeout=timedelta(seconds=120),
    )
    {"train": _train_all, "die": _die_midway}[sys.argv[3]](rank, folder)
    dist.destroy_process_group()
