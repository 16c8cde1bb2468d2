"""Probe networks: trained on everything that may be drawn, asked about every evaluation sample (paper, section 3.1)."""

from __future__ import annotations

import difflib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import materialize
from proxyds.data.samples import Samples, StreamedSamples
from proxyds.errors import ChanceLevelError, RecipeError, UnknownNameError
from proxyds.recipe.models import Probes, Training
from proxyds.runtime.storage.store import Entry
from proxyds.runtime.task import Report, Task
from proxyds.seeding import derive_seed
from proxyds.selection.records import Answers, Probe
from proxyds.space.architecture import Architecture, by_cost
from proxyds.space.cost import read_parameters
from proxyds.space.networks.build import describe_origin
from proxyds.training.data_parallel import fit_batch, is_first
from proxyds.training.inference import measure_answers, predict_labels
from proxyds.training.loop import Epoch, count_steps, time_training, train_network
from proxyds.training.model import make_network, save_network

STAGE = "probes"
STAGE_VERSION = 2


def probe_task(
    architecture: Architecture,
    train: Samples | StreamedSamples,
    evaluation: Samples,
    *,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    seed: int,
    repeat: int,
    device: str,
    arithmetic: dict[str, str],
    data_parallel: int = 1,
    keep_answers: bool = False,
) -> Task:
    """Describes one training of a probe.

    Args:
        architecture: Which network.
        train: What it is trained on.
        evaluation: What it is asked about.
        n_labels: Size of its output.
        image_shape: (C, H, W).
        settings: How it is trained.
        seed: The recipe's; initial weights and the order of samples are derived from it, the parameters and the repeat.
        repeat: Number of the training, from 0.
        device: `cpu` or a CUDA device.
        arithmetic: What its bits depend on besides: see `machine.describe_arithmetic`.
        data_parallel: Parts of every batch, and processes that compute them where the engine can.
        keep_answers: Whether it is asked about every training sample after each epoch; 16 bytes of each are kept, epoch by epoch.
    """
    parameters = json.dumps(architecture.parameters, sort_keys=True)
    return Task(
        stage=STAGE,
        name=f"probe {architecture.name}{f', seed {repeat + 1}' if repeat else ''}",
        inputs={
            "version": STAGE_VERSION,
            "network": architecture.network,
            **describe_origin(architecture.network),
            "parameters": architecture.parameters,
            "settings": settings.model_dump(mode="json"),
            "seed": seed,
            **({"repeat": repeat} if repeat else {}),
            **({"data_parallel": data_parallel} if data_parallel != 1 else {}),
            **({"answers": True} if keep_answers else {}),
            "n_labels": n_labels,
            "image_shape": image_shape,
            "train": train.fingerprint,
            "evaluation": evaluation.fingerprint,
            **arithmetic,
        },
        function=train_probe,
        arguments={
            "architecture": architecture,
            "train": train,
            "evaluation": evaluation,
            "n_labels": n_labels,
            "image_shape": image_shape,
            "settings": settings,
            "seed": derive_seed(seed, "probe", architecture.network, parameters, *([repeat] if repeat else [])),
            "device": device,
            "data_parallel": data_parallel,
            "keep_answers": keep_answers,
        },
        n_processes=data_parallel,
    )


def train_probe(
    *,
    folder: Path,
    report: Report,
    architecture: Architecture,
    train: Samples | StreamedSamples,
    evaluation: Samples,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    seed: int,
    device: str,
    data_parallel: int,
    keep_answers: bool,
) -> None:
    """Trains one probe; writes `weights.safetensors`, `predictions.npy` and `training.json` to the folder.

    With `keep_answers` also `answers.npy`, (4, E, N) float32: what the network says of each training sample after each of E epochs, see
    `inference.measure_answers`. Nothing of the training depends on it.

    Where `torch.distributed` is set up, every process of it calls this; the first alone reports, tests and writes.

    Raises:
        DivergedError: The loss became infinite or not a number.
        TrainingError: Too few samples for the parts of a batch, or another number of processes than parts.
    """
    network = make_network(
        architecture.network, architecture.parameters, n_labels, image_shape, derive_seed(seed, "weights")
    )

    asking_seconds = 0.0

    def ask(index: int, epoch: Epoch) -> None:
        nonlocal asking_seconds
        report(index + 1, settings.epochs, f"loss {epoch.loss:.3f}")
        if keep_answers:
            asked = time.perf_counter()
            network.eval()
            measured = measure_answers(network, train.pixels(), materialize(train.labels), device)
            write_answers(folder / "answers.npy", measured, index, settings.epochs)
            network.train()
            asking_seconds += time.perf_counter() - asked

    started = time.perf_counter()
    if is_first():
        report(0, settings.epochs, "")
    history = train_network(
        network,
        train.pixels(),
        materialize(train.labels),
        settings,
        seed=seed,
        n_parts=data_parallel,
        device=device,
        name=architecture.name,
        on_epoch=ask if is_first() else None,
    )
    if not is_first():
        return
    seconds = time.perf_counter() - started - asking_seconds
    np.save(folder / "predictions.npy", predict_labels(network, evaluation.pixels(), device))
    save_network(network, folder / "weights.safetensors", n_labels, image_shape)
    about = {"losses": [epoch.loss for epoch in history], "seconds": seconds}
    (folder / "training.json").write_text(json.dumps(about))


def expect_seconds(task: Task) -> float:
    """Times a few steps of a probe's training and says how long the whole would take on this machine, alone."""
    given = task.arguments
    architecture, n_labels, image_shape = given["architecture"], given["n_labels"], given["image_shape"]
    network = make_network(architecture.network, architecture.parameters, n_labels, image_shape, seed=0)
    n_seen = count_seen(given["settings"], len(given["train"]), given["data_parallel"])
    cost = architecture.training_flops
    seconds = time_training(network, n_seen, n_labels, image_shape, cost, given["settings"], given["device"])
    return float(seconds * (1 + count_asking_flops(task) / (n_seen * cost)))


def count_asking_flops(task: Task) -> int:
    """FLOPs of asking a probe about every training sample after each epoch; 0 where it is not asked."""
    given = task.arguments
    if not given["keep_answers"]:
        return 0
    return int(given["settings"].epochs * len(given["train"]) * given["architecture"].forward_flops)


def count_seen(settings: Training, n_train: int, data_parallel: int) -> int:
    """Images that a whole training computes on: every epoch leaves out what fills no batch."""
    return count_steps(settings, n_train) * fit_batch(settings.batch_size, n_train, data_parallel)


def read_probe(
    entry: Entry,
    architecture: Architecture,
    repeat: int,
    labels: NDArray[np.int64],
    settings: Training,
    n_train: int,
    data_parallel: int,
    asking_flops: int,
) -> Probe:
    """Reads a finished probe.

    Args:
        entry: What `train_probe` left in the store.
        architecture: Which network.
        repeat: Number of the training.
        labels: (M,) true labels of the evaluation samples.
        settings: How it was trained.
        n_train: Samples that it was trained on.
        data_parallel: Parts of every batch.
        asking_flops: Of asking it about every training sample after each epoch.
    """
    about = json.loads((entry.folder / "training.json").read_text())
    predictions: NDArray[np.int64] = np.load(entry.folder / "predictions.npy")
    return Probe(
        architecture=architecture,
        repeat=repeat,
        predictions=predictions,
        accuracy=float((predictions == labels).mean()),
        losses=tuple(about["losses"]),
        training_seconds=about["seconds"],
        training_flops=count_seen(settings, n_train, data_parallel) * architecture.training_flops,
        asking_flops=asking_flops,
        weights_file=entry.file("weights.safetensors"),
    )


def write_answers(path: Path, measured: NDArray[np.float32], epoch: int, n_epochs: int) -> None:
    """Writes one epoch's answers, (4, N), to their place in a file as `np.save` makes of (4, E, N): all epochs need never be held at once.

    Epoch 0 first. Written and read plainly, where a memory map would be shorter: a full disk, or a file that another machine removes, ends
    a process that has mapped it without a word.
    """
    shape = (len(measured), n_epochs, measured.shape[1])
    about = {"descr": np.lib.format.dtype_to_descr(measured.dtype), "fortran_order": False, "shape": shape}
    with path.open("r+b" if epoch else "wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        start = file.tell()
        for i, values in enumerate(measured):
            file.seek(start + (i * n_epochs + epoch) * values.nbytes)
            file.write(values.tobytes())


def open_answers(entries: Sequence[Entry]) -> Answers:
    """What a probe said of every training sample after each epoch; of trainings with `keep_answers`, in this order. Nothing is read yet."""
    paths = [entry.file("answers.npy").path for entry in entries]
    with paths[0].open("rb") as file:
        np.lib.format.read_magic(file)
        (_, n_epochs, n), _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()

    def read(training: int, measure: int, epoch: int) -> NDArray[np.float32]:
        offset = start + (measure * n_epochs + epoch) * n * dtype.itemsize
        return np.fromfile(paths[training], dtype, count=n, offset=offset)

    return Answers(read, len(paths), n_epochs)


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
            f"probe {probe.architecture.name}{f', seed {probe.repeat + 1}' if probe.repeat else ''}: must be better than chance, that is right on more than {needed:.1%} of the "
            f"{n:,} evaluation samples; it is right on {probe.accuracy:.1%}. Train longer (training.epochs, now "
            f"{len(probe.losses)}), change training.learning_rate, or leave out the smallest choices of the space"
        )


def choose_probes(architectures: Sequence[Architecture], probes: Probes) -> list[Architecture]:
    """Takes the bounds of a space by cost, and more evenly spread between them where more are asked for; or by name.

    Paper, section 3.1: two probes, «the upper boundary model is the most complex model we can make during search
    process, and the lower boundary model is the lightest one»; more where the space needs more. Architectures whose output
    the image does not reach (`Parameters.is_connected`) are none, unless named.

    Args:
        architectures: From the lightest to the heaviest.
        probes: How many, or which.

    Returns:
        From the lightest to the heaviest.

    Raises:
        RecipeError: The space holds fewer architectures than probes.
        UnknownNameError: It holds none of that name.
    """
    if probes.architectures is not None:
        by_name = {each.name: each for each in architectures}
        for name in probes.architectures:
            if name not in by_name:
                near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.3) or list(by_name)[:3]
                raise UnknownNameError(
                    f"probes.architectures: must be architectures of the space, got {name!r}; near: "
                    f"{', '.join(map(repr, near))}; `proxyds inspect RECIPE` lists all {len(by_name):,}"
                )
        return sorted((by_name[name] for name in probes.architectures), key=by_cost)
    connected = [each for each in architectures if _is_connected(each)]
    n, count = len(connected), probes.count
    if n < count:
        raise RecipeError(
            f"space: must hold at least probes.count = {count} architectures, it holds {n}"
            + ("" if n == len(architectures) else f" whose output the image reaches (of {len(architectures)})")
            + "; give more choices, wider bounds or a larger sample"
        )
    return [connected[round(i * (n - 1) / (count - 1))] for i in range(count)]


def _is_connected(architecture: Architecture) -> bool:
    return read_parameters(architecture.network, architecture.parameters).is_connected()
