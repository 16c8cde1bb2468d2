"""Architectures trained on everything, on the proxy and on its controls: the runs behind the evidence.

Every run is a task of its own: the recipe's training settings, a data set, a training seed; then the accuracy on the test
samples, which chose nothing. What is equal for all data sets: settings, epochs (a proxy of 5 % takes a twentieth of the
steps), test samples. The control `fewer epochs` trains on everything for as many steps as the proxy takes.

The paper shows one run of each (section 4); here draws and training seeds are repeated, and nothing is trained twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from proxyds.artifact.ranking_table import FEWER_EPOCHS, FULL, about_architecture, make_runs_table, parameters_text
from proxyds.data.samples import Samples
from proxyds.errors import LabelError, TrainingError
from proxyds.progress import OnProgress, Progress
from proxyds.recipe.models import Check, Training
from proxyds.runtime.task import Done, Report, Task
from proxyds.seeding import derive_seed
from proxyds.selection.records import Drawn
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import describe_origin, sketch_network
from proxyds.training.inference import measure_network
from proxyds.training.loop import Epoch, count_steps, time_training, train_network
from proxyds.training.model import make_network
from proxyds.training.numerics import choose_computation

STAGE = "check"
STAGE_VERSION = 2

DrawAgain = Callable[[float, int], Drawn | None]
"""Takes a ratio and a draw's number; returns what is drawn, or None where that is not known yet."""


@dataclass(frozen=True)
class TrainingSet:
    """What every architecture is trained on once.

    Attributes:
        dataset: A key of `ranking_table.DATASETS`.
        ratio: Of the proxy that it is, or is measured against; 1 for everything.
        draw_seed: Number of the draw; None where nothing is drawn.
        training_seed: Number of the training.
        n_samples: How many samples.
        samples: The samples, their labels numbered without gaps; None where they are not known yet.
        n_steps: Batches that a training takes.
        kept_labels: (L,) the labels that training and test are confined to; None for all.
    """

    dataset: str
    ratio: float
    draw_seed: int | None
    training_seed: int
    n_samples: int
    samples: Samples | None
    n_steps: int
    kept_labels: NDArray[np.int64] | None = None

    @property
    def name(self) -> str:
        """For people: `random 0.05, number 2`."""
        return f"{self.dataset}{'' if self.dataset == FULL else f' {self.ratio:g}'}, number {self.training_seed + 1}"


@dataclass(frozen=True)
class Run:
    """One training and test of one architecture.

    Attributes:
        architecture: Which network.
        training_set: What it is trained on.
        n_seen: Images that the training computes on.
        flops: Of training and test.
        task: The work; None where the samples are not known yet.
    """

    architecture: Architecture
    training_set: TrainingSet
    n_seen: int
    flops: int
    task: Task | None


def sample_architectures(architectures: Sequence[Architecture], n: int, seed: int) -> list[Architecture]:
    """Takes at most n architectures, one from each of n equal parts of the space by cost, each part's by the seed.

    Args:
        architectures: From the lightest to the heaviest.
        n: How many.
        seed: The recipe's.
    """
    if len(architectures) <= n:
        return list(architectures)
    parts = np.array_split(np.arange(len(architectures)), n)
    return [architectures[part[derive_seed(seed, "check", "part", i) % len(part)]] for i, part in enumerate(parts)]


def list_training_sets(
    train: Samples,
    draws: Mapping[str, DrawAgain],
    check: Check,
    own_ratio: float,
    settings: Training,
) -> list[TrainingSet]:
    """Lists what every architecture is trained on: everything, then for each ratio and draw the proxy and its controls.

    Args:
        train: The samples that may be drawn.
        draws: How each data set that is drawn is drawn.
        check: How many of each; with a reference nothing is trained on everything.
        own_ratio: The proxy's.
        settings: How networks are trained.
    """
    n_all = count_steps(settings, len(train))
    seeds = range(0 if check.reference else check.full_seeds)
    sets = [TrainingSet(FULL, 1.0, None, seed, len(train), train, n_all) for seed in seeds]
    for ratio in all_ratios(check, own_ratio):
        n = round(ratio * len(train))
        n_steps = count_steps(settings, n)
        for draw in range(check.draws):
            for dataset, draw_again in draws.items():
                drawn = draw_again(ratio, draw)
                samples = None if drawn is None else train.take(drawn.selected)
                kept = None if drawn is None else drawn.kept_labels
                samples = samples if samples is None or kept is None else samples.keep_labels(kept)
                sets.append(TrainingSet(dataset, ratio, draw, draw, n, samples, n_steps, kept))
            sets.append(TrainingSet(FEWER_EPOCHS, ratio, None, draw, len(train), train, n_steps))
    return sets


def all_ratios(check: Check, own_ratio: float) -> list[float]:
    """The proxy's own ratio and the others to be checked, the smallest first."""
    return sorted({own_ratio, *check.ratios})


def list_runs(
    architectures: Sequence[Architecture],
    sets: Sequence[TrainingSet],
    test: Samples,
    *,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    seed: int,
    device: str,
    arithmetic: dict[str, str],
) -> list[Run]:
    """Lists every architecture on every training set, the most expensive first; see `run_task`.

    Where a training set keeps some labels only, its networks tell these apart and are tested on the samples of these.

    Raises:
        LabelError: A training set's labels have no test sample.
    """
    runs = []
    for each in sets:
        asked, n_outputs = test, n_labels
        if each.kept_labels is not None:
            asked, n_outputs = test.keep_labels(each.kept_labels), len(each.kept_labels)
            if not len(asked):
                raise LabelError(
                    f"check: the labels of {each.name} must have test samples, its {n_outputs} have none; keep more labels "
                    "(selection.labels.keep)"
                )
        use = "full" if each.dataset == FULL else "draw"  # no method shares initial weights with what it is measured by
        for architecture in architectures:
            seed_of_run = derive_seed(
                seed, STAGE, use, each.training_seed, architecture.network, parameters_text(architecture)
            )
            task = (
                None
                if each.samples is None
                else run_task(
                    architecture,
                    each.samples,
                    asked,
                    name=f"{architecture.name} on {each.name}",
                    n_steps=each.n_steps,
                    n_labels=n_outputs,
                    image_shape=image_shape,
                    settings=settings,
                    seed=seed_of_run,
                    device=device,
                    arithmetic=arithmetic,
                )
            )
            n_seen = each.n_steps * min(settings.batch_size, each.n_samples)
            flops = n_seen * architecture.training_flops + len(asked) * architecture.forward_flops
            runs.append(Run(architecture, each, n_seen, flops, task))
    return sorted(runs, key=lambda run: -run.flops)


def run_task(
    architecture: Architecture,
    train: Samples,
    test: Samples,
    *,
    name: str,
    n_steps: int,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    seed: int,
    device: str,
    arithmetic: dict[str, str],
) -> Task:
    """Describes one training and its test.

    Args:
        architecture: Which network.
        train: What it is trained on.
        test: What it is tested on.
        name: What the run is, for people.
        n_steps: Batches that it takes.
        n_labels: Size of its output.
        image_shape: (C, H, W).
        settings: How it is trained.
        seed: Of initial weights, the order of samples and augmentation.
        device: `cpu` or a CUDA device.
        arithmetic: What its bits depend on besides: see `machine.describe_arithmetic`.
    """
    return Task(
        stage=STAGE,
        name=name,
        inputs={
            "version": STAGE_VERSION,
            "network": architecture.network,
            **describe_origin(architecture.network),
            "parameters": architecture.parameters,
            "settings": settings.model_dump(mode="json"),
            "n_steps": n_steps,
            "seed": seed,
            "n_labels": n_labels,
            "image_shape": image_shape,
            "train": train.fingerprint,
            "test": test.fingerprint,
            **arithmetic,
        },
        function=train_and_test,
        arguments={
            "architecture": architecture,
            "train": train,
            "test": test,
            "n_steps": n_steps,
            "n_labels": n_labels,
            "image_shape": image_shape,
            "settings": settings,
            "seed": seed,
            "device": device,
        },
    )


def train_and_test(
    *,
    folder: Path,
    report: Report,
    architecture: Architecture,
    train: Samples,
    test: Samples,
    n_steps: int,
    n_labels: int,
    image_shape: tuple[int, int, int],
    settings: Training,
    seed: int,
    device: str,
) -> None:
    """Trains one architecture and tests it; writes `run.json` to the folder.

    Raises:
        DivergedError: The loss became infinite or not a number.
        TrainingError: There is not memory enough.
    """
    network = make_network(
        architecture.network, architecture.parameters, n_labels, image_shape, derive_seed(seed, "weights")
    )
    batch_size = min(settings.batch_size, len(train))
    n_epochs = -(-n_steps // (len(train) // batch_size))

    def show(index: int, epoch: Epoch) -> None:
        report(index + 1, n_epochs, f"loss {epoch.loss:.3f}")

    report(0, n_epochs, "")
    with named_without_memory(architecture.name, settings, device):
        pixels = train.pixels()
        started = time.perf_counter()
        history = train_network(
            network,
            pixels,
            train.labels,
            settings,
            seed=seed,
            n_steps=n_steps,
            device=device,
            name=architecture.name,
            on_epoch=show,
        )
        trained = time.perf_counter()
        accuracy, loss = measure_network(network, test.pixels(), test.labels, device)
    about = {
        "accuracy": accuracy,
        "loss": loss,
        "losses": [epoch.loss for epoch in history],
        "training_seconds": trained - started,
        "test_seconds": time.perf_counter() - trained,
    }
    (folder / "run.json").write_text(json.dumps(about))


@contextmanager
def named_without_memory(name: str, settings: Training, device: str) -> Iterator[None]:
    """Makes a run that does not fit into memory a run that failed, and leaves the device's memory to the next."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(
            f"{name}: must fit into memory, it does not; fewer samples a step (training.batch_size, now "
            f"{settings.batch_size}) or fewer workers (--workers 1) need less"
        ) from error
    finally:
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def tabulate_runs(runs: Sequence[Run], results: Sequence[Done | None], settings: Training) -> pa.Table:
    """Puts finished runs into a table of runs, one row each; runs without a result are left out.

    Args:
        runs: In any order.
        results: Of each run's task; None where it failed.
        settings: How networks were trained.
    """
    rows = []
    for run, result in zip(runs, results, strict=True):
        if result is None or run.task is None:
            continue
        about = json.loads((result.entry.folder / "run.json").read_text())
        each, architecture = run.training_set, run.architecture
        rows.append(
            {
                **about_architecture(architecture),
                "dataset": each.dataset,
                "ratio": each.ratio,
                "draw_seed": each.draw_seed,
                "training_seed": each.training_seed,
                "n_samples": each.n_samples,
                "n_labels": run.task.inputs["n_labels"],
                "n_steps": each.n_steps,
                "n_epochs": settings.epochs * each.n_steps / count_steps(settings, each.n_samples),
                "run_flops": run.flops,
                "accuracy": about["accuracy"],
                "training_seconds": about["training_seconds"],
                "test_seconds": about["test_seconds"],
                "device": run.task.inputs["device"],
                "origin": "trained",
            }
        )
    return make_runs_table(rows)


def expect_seconds(runs: Sequence[Run]) -> dict[str, float]:
    """How long one image of each architecture's training takes on this machine, alone: seconds, by the architecture's name."""
    seconds = {}
    for run in runs:
        if run.task is None or run.architecture.name in seconds:
            continue
        given = {what: run.task.arguments[what] for what in ("n_labels", "image_shape", "settings", "device")}
        seconds[run.architecture.name] = expect_image_seconds(run.architecture, **given)
    return seconds


def expect_image_seconds(
    architecture: Architecture, n_labels: int, image_shape: tuple[int, int, int], settings: Training, device: str
) -> float:
    """Times a few steps of an architecture's training; seconds for one image."""
    network = make_network(architecture.network, architecture.parameters, n_labels, image_shape, seed=0)
    return time_training(network, 1, n_labels, image_shape, architecture.training_flops, settings, device)


def describe_computations(
    architectures: Sequence[Architecture], n_labels: int, image_shape: tuple[int, int, int], device: str
) -> dict[str, str]:
    """How each network computes on a device, by its name; see `numerics.Computation`."""
    described = {}
    for each in architectures:
        network = sketch_network(each.network, each.parameters, n_labels, image_shape)
        described[each.name] = str(choose_computation(network, device))
    return described


def show_together(tasks: Sequence[Task], runs: Sequence[Run], on_progress: OnProgress) -> OnProgress:
    """Makes one bar of many runs, each in proportion to its FLOPs.

    Args:
        tasks: Those of the runs that are to be done.
        runs: Every run.
        on_progress: Told how far all are together.
    """
    names = {task.name for task in tasks}
    flops = {run.task.name: run.flops for run in runs if run.task is not None and run.task.name in names}
    done: dict[str, float] = {}
    total = sum(flops.values())

    def show(step: Progress) -> None:
        done[step.task] = step.done / step.total
        n_done = sum(share >= 1 for share in done.values())
        seen = sum(share * flops[name] for name, share in done.items())
        on_progress(Progress(STAGE, "runs", seen, total, f"{n_done} of {len(flops)} runs, {step.task}"))

    return show
