"""Runs what is missing of the second study, a row for each training: `make study-2 DATA=cifar10 STAGES="tune-reference factors"`.

Every row is written as its training ends, so that a run that was stopped goes on where it was. A row is that of its key and fingerprint.
"""

from __future__ import annotations

import csv
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from proxyds.progress_bars import show_progress
from proxyds.recipe.models import Training
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import WORKER_ENVIRONMENT
from proxyds.seeding import derive_seed
from proxyds.space.architecture import Architecture
from proxyds.space.networks.plugins import load_plugins
from proxyds.text import duration
from proxyds.training.model import make_network
from tests.benchmarks.timing import processor
from tests.studies.fidelity import prepare
from tests.studies.parts import Study
from tests.studies.rows import read_whole_lines
from tests.studies.second.plan import CHEAPER_PROBES, FULL, STAGES, VARIANTS, Set, list_draws
from tests.studies.second.training import Extras, ask, measure, train
from tests.studies.subsets import Probes, find_subset

PLUGIN = "tests.studies.second.networks"
SCORES = (
    "accuracy",
    "loss",
    "margin",
    "train_loss_sum",
    "accuracy_mirrored",
    "accuracy_statistics",
    "accuracy_mean_weights",
)
COLUMNS = (
    "stage",
    "variant",
    "method",
    "ratio",
    "number",
    "architecture",
    "fingerprint",
    "n_steps",
    *SCORES,
    "seconds",
    "day",
    "processor",
    "torch",
)
TEACHER = {"epochs": 13, "batch_size": 128}
"""How the network is trained on everything whose answers are targets."""
TEACHER_OF_CELLS = {**TEACHER, "epochs": 8}
"""How that of part C is."""
TEACHER_AT = -2
"""Its place by cost: the heaviest network of the tuning half."""
CODE = [Path(__file__).parent / name for name in ("networks.py", "training.py")]
STUDIES = {
    "cifar10": Study("second-cifar10", "second/cifar10", ()),
    "cifar100": Study("second-cifar100", "second/cifar100", (), n_labels=100),
    "nasbench201": Study("second-nasbench201", "second/nasbench201", ()),
}
"""Each data set, and the field's own benchmark, has a folder of rows."""


class Key(NamedTuple):
    """What a row is of."""

    stage: str
    variant: str
    method: str
    ratio: float
    number: int
    architecture: str


@dataclass(frozen=True)
class Images:
    """What all trainings share; pixels are (N, 3, 16, 16) uint8, labels (N,).

    Attributes:
        train: Pixels and labels that may be drawn.
        evaluation: Those that settings are chosen by.
        test: Those that accuracies are measured on.
        n_labels: How many labels there are.
        seed: Of the recipe.
        settings: The recipe's.
    """

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    evaluation: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]
    n_labels: int
    seed: int
    settings: Training


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        key: Of its row.
        architecture: The network.
        chosen: (N,) bool, packed as bits; None for everything.
        on_evaluation: Whether accuracy is that on the evaluation samples.
        teacher: File of the answers that are targets where the variant asks for that.
    """

    key: Key
    architecture: Architecture
    chosen: NDArray[np.uint8] | None
    on_evaluation: bool
    teacher: Path


_images: Images | None = None  # in a worker


def _start_worker(images: Images) -> None:
    global _images
    torch.set_num_threads(1)
    threadpool_limits(1)
    load_plugins([PLUGIN])
    _images = images


def run_job(job: Job) -> dict[str, Any]:
    """Trains and measures; returns the row."""
    assert _images is not None
    variant = VARIANTS[job.key.variant]
    settings = _images.settings.model_copy(update=variant.settings)
    pixels, labels = _images.train
    teacher = None if variant.temperature is None else soften(job.teacher, variant.temperature)
    if job.chosen is not None:
        chosen = np.unpackbits(job.chosen, count=len(labels)).astype(np.bool_)
        pixels, labels = pixels[chosen], labels[chosen]
        teacher = None if teacher is None else teacher[chosen]
    held_out, true = _images.evaluation if job.on_evaluation else _images.test
    if variant.side is not None:
        pixels, held_out = shrink(pixels, variant.side), shrink(held_out, variant.side)
    n_steps = settings.epochs * (round(job.key.ratio * len(_images.train[1])) // settings.batch_size)
    use = "full" if job.key.method == FULL else "draw"
    parts = ("second", use, job.key.number, job.architecture.name)
    seed = derive_seed(_images.seed, *parts)
    channels, height, width = pixels.shape[1:]
    network = make_network(
        job.architecture.network,
        job.architecture.parameters,
        _images.n_labels,
        (channels, height, width),
        derive_seed(seed, "weights"),
    )
    extras = Extras(variant.smoothing, teacher)
    started, scores = time.monotonic(), {}
    try:
        trained = train(network, pixels, labels, settings, extras, seed=seed, n_steps=n_steps)
        scores = measure(trained, pixels, held_out, true, all_scores=variant.all_scores)
    except ArithmeticError:
        pass  # a row without scores: the protocol says how it counts
    return {
        **job.key._asdict(),
        "fingerprint": fingerprint(job),
        "n_steps": n_steps,
        **{name: round(value, 5) for name, value in scores.items()},
        "seconds": round(time.monotonic() - started, 1),
        "day": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "torch": torch.__version__,
    }


def teach(images: Images, architecture: Architecture, path: Path, how: Mapping[str, Any]) -> None:
    """Trains a network on everything, and keeps its log probabilities of all training samples and their mirror images, (N, L) float32."""
    settings = images.settings.model_copy(update=how)
    pixels, labels = images.train
    seed = derive_seed(images.seed, "second", "teacher")
    channels, height, width = pixels.shape[1:]
    network = make_network(
        architecture.network,
        architecture.parameters,
        images.n_labels,
        (channels, height, width),
        derive_seed(seed, "weights"),
    )
    n_steps = settings.epochs * (len(labels) // settings.batch_size)
    trained = train(network, pixels, labels, settings, Extras(), seed=seed, n_steps=n_steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, ask(trained.network, pixels, mirrored=True).numpy())


def soften(path: Path, temperature: float) -> NDArray[np.float32]:
    """Reads a teacher's answers as probabilities (N, L) at a temperature."""
    return np.asarray((torch.from_numpy(np.load(path)) / temperature).softmax(1).numpy(), np.float32)


def shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrinks images (N, C, H, W) to a smaller side by averaging areas."""
    resized = torch.nn.functional.interpolate(torch.from_numpy(pixels).float(), size=(side, side), mode="area")
    return np.asarray(resized.round().to(torch.uint8).numpy())


def fingerprint(job: Job) -> str:
    """Names what a row is of besides its key: variant, parameters, code of the networks and of the training."""
    held = [VARIANTS[job.key.variant], job.architecture.parameters, *(file.read_text() for file in CODE)]
    return hashlib.sha256(repr(held).encode()).hexdigest()[:12]


def list_jobs(
    stages: Mapping[str, Sequence[Set]], probes: Probes, path: Path, subsets: Path, teacher: Path
) -> Iterator[Job]:
    """Lists the trainings of some stages that have no row yet.

    Args:
        stages: By their name.
        probes: To choose samples by.
        path: Of the rows.
        subsets: File of the samples that were chosen.
        teacher: File of the answers that are targets.

    Raises:
        SystemExit: A row is of another variant, network or code than those at hand.
    """
    done = {key_of(row): row["fingerprint"] for row in read_whole_lines(path)}
    for stage, sets in stages.items():
        for each in sets:
            for number in range(each.n_draws):
                chosen = None
                for architecture in each.choose(probes.architectures):
                    key = Key(stage, each.variant, each.method, each.ratio, number, architecture.name)
                    job = Job(key, architecture, chosen, each.on_evaluation, teacher)
                    if key in done:
                        if done[key] != fingerprint(job):
                            raise SystemExit(
                                f"{path}: the row {key} is of another variant, network or code; move the file away"
                            )
                        continue
                    done[key] = fingerprint(job)  # another set of the stage may hold it too
                    if each.is_drawn and chosen is None:
                        chosen = np.packbits(find(subsets, each.method, each.ratio, number, probes))
                    yield replace(job, chosen=chosen)


def keep_draws(sets: Sequence[Set], n: int | None) -> list[Set]:
    """Keeps the first n draws of some sets; None for all."""
    return [each if n is None else replace(each, n_draws=min(n, each.n_draws)) for each in sets]


def find(subsets: Path, method: str, ratio: float, number: int, probes: Probes) -> NDArray[np.bool_]:
    """Finds the samples of a draw; see `find_subset`."""
    return find_subset(subsets, method, ratio, number, change_probes(probes, method))


def change_probes(probes: Probes, method: str) -> Probes:
    """Takes other networks and epochs for the probes of a method that has its own."""
    if method not in CHEAPER_PROBES:
        return probes
    n_networks, epochs = CHEAPER_PROBES[method]
    training = probes.recipe.training.model_copy(update={"epochs": epochs})
    recipe = probes.recipe.model_copy(update={"training": training})
    return replace(probes, recipe=recipe, architectures=probes.architectures[:n_networks])


def key_of(row: dict[str, str]) -> Key:
    """Reads a row's key."""
    return Key(
        row["stage"], row["variant"], row["method"], float(row["ratio"]), int(row["number"]), row["architecture"]
    )


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a row, and the header before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


@click.command(help=__doc__)
@click.argument("names", metavar="[STAGES]...", nargs=-1)
@click.option("--data", type=click.Choice([*STUDIES]), default="cifar10", show_default=True)
@click.option("--draws", type=click.IntRange(1), help="Only the first so many draws, or seeds of the reference.")
@click.option("--minutes", type=float, help="Begin no training after so many minutes.")
@click.option("--jobs", "n_workers", default=2, help="Trainings at once.")
def main(names: tuple[str, ...], data: str, draws: int | None, minutes: float | None, n_workers: int) -> None:
    """Runs what is missing of some stages of a data set, all unless some are named."""
    if unknown := sorted({*names} - {*STAGES[data]}):
        raise click.BadParameter(f"no stage of {data}: {', '.join(unknown)}; known: {', '.join(STAGES[data])}")
    load_plugins([PLUGIN])
    os.environ.update(WORKER_ENVIRONMENT)
    study, store = STUDIES[data], Store()
    stages = {name: keep_draws(STAGES[data][name], draws) for name in names or STAGES[data]}
    rows, subsets = study.folder / "rows.csv", study.folder / "subsets.npz"
    with show_progress(quiet=False) as on_progress, LocalWorkers() as engine:
        probes = prepare(study, store, engine, on_progress)
        for method, ratio, number in list_draws(stages.values()):
            find(subsets, method, ratio, number, probes)  # before any worker is busy
        images = read_images(probes)
        teacher = store.root / f"{study.name}-teacher.npy"
        jobs = list(list_jobs(stages, probes, rows, subsets, teacher))
    print(f"{len(jobs)} trainings to do", flush=True)
    if any(VARIANTS[job.key.variant].temperature is not None for job in jobs) and not teacher.exists():
        torch.set_num_threads(1)
        teach(images, probes.architectures[TEACHER_AT], teacher, TEACHER_OF_CELLS if data == "nasbench201" else TEACHER)
    ends = time.monotonic() + 60 * minutes if minutes else float("inf")
    with ProcessPoolExecutor(
        n_workers, get_context("spawn"), initializer=_start_worker, initargs=(images,)
    ) as pool:  # without the threads of this process
        run_all(pool, jobs, n_workers, ends, lambda row: append_row(rows, row))


def read_images(probes: Probes) -> Images:
    """Reads the images of a study into memory."""
    data = probes.data
    pixels = [(each.pixels(), each.load().labels) for each in (data.train, data.evaluation, data.test)]
    return Images(
        *((np.ascontiguousarray(x), np.asarray(y)) for x, y in pixels),
        n_labels=len(data.label_names),
        seed=probes.recipe.seed,
        settings=probes.recipe.training,
    )


def run_all(
    pool: Executor, jobs: Sequence[Job], n_workers: int, ends: float, keep: Callable[[dict[str, Any]], object]
) -> None:
    """Runs jobs, so many at once, and keeps each one's row as it ends; begins none after a time."""
    started, n_done, waiting = time.monotonic(), 0, iter(jobs)
    running = {pool.submit(run_job, job) for job in islice(waiting, n_workers)}
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for each in ended:
            keep(each.result())
            n_done += 1
            if n_done % 20 == 0:
                left = duration((time.monotonic() - started) / n_done * (len(jobs) - n_done))
                print(f"{time.strftime('%H:%M')} {n_done} of {len(jobs)}, about {left} left", flush=True)
            if time.monotonic() < ends and (job := next(waiting, None)) is not None:
                running.add(pool.submit(run_job, job))


if __name__ == "__main__":
    main()
