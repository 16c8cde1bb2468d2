"""Architectures trained on everything, on the proxy and on its controls: the runs behind the evidence.

Every run is a task of its own: the recipe's training settings, a data set, a training seed; then the accuracy on the test
samples, which chose nothing, and besides on the evaluation samples, which may have chosen the proxy. What is equal for all data sets: settings and epochs (a proxy of 5 % takes a twentieth of the
steps) unless `check.full_training` says otherwise for everything, and test samples. The control `fewer epochs` trains on everything for as many steps as the proxy takes.

The paper shows one run of each (section 4); here draws and training seeds are repeated, and nothing is trained twice.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from proxyds.artifact.ranking_table import (
    FEWER_EPOCHS,
    FULL,
    MAX_RANKED,
    describe_architecture,
    make_runs_table,
    parameters_text,
)
from proxyds.artifact.tables import MAX_RANKING_ROWS
from proxyds.data.samples import Samples, SoftLabels
from proxyds.errors import DivergedError, EvidenceError, LabelError
from proxyds.progress import OnProgress, Progress, StageEnded
from proxyds.recipe.models import Check
from proxyds.recipe.sections.training import Training
from proxyds.runtime.task import Done, Report, Task
from proxyds.seeding import derive_seed
from proxyds.selection.records import Drawn
from proxyds.space.architecture import Architecture
from proxyds.training.inference import measure_network, prepare_network
from proxyds.training.job import TrainingJob, TrainingSetup
from proxyds.training.loop import count_steps
from proxyds.training.model import PixelNetwork

STAGE = "check"
STAGE_VERSION = 2

DrawAgain = Callable[[float, int], Drawn | None]
"""Takes a ratio and a draw's number; returns what is drawn, or None where the importances are not computed yet."""


@dataclass(frozen=True)
class TrainingSet:
    """What every architecture is trained on once.

    Attributes:
        dataset: A key of `ranking_table.DATASETS`.
        ratio: The ratio of the proxy that it is, or is measured against; 1 for everything.
        draw_seed: Number of the draw; None where nothing is drawn.
        training_seed: Number of the training.
        n_samples: How many samples.
        samples: The samples, their labels numbered without gaps; None where the importances are not computed yet.
        settings: How networks are trained on it.
        n_steps: Batches that a training takes; None where a trainer decides that.
        kept_labels: (L,) the labels that training and test are confined to; None for all.
    """

    dataset: str
    ratio: float
    draw_seed: int | None
    training_seed: int
    n_samples: int
    samples: Samples | None
    settings: Training
    n_steps: int | None
    kept_labels: NDArray[np.int64] | None = None

    @property
    def name(self) -> str:
        """The name for people: `random 0.05, number 2`."""
        return f"{self.dataset}{'' if self.dataset == FULL else f' {self.ratio:g}'}, number {self.training_seed + 1}"


@dataclass(frozen=True, kw_only=True)
class RunJob(TrainingJob):
    """The training of a run; the samples held out are those of its test.

    Attributes:
        evaluation: Samples that the accuracy is measured on besides; None for none.
    """

    evaluation: Samples | None = None

    def list_inputs(self, held_out_as: str) -> dict[str, Any]:
        """Lists what the result depends on; a run without evaluation samples has the key that it always had."""
        besides = {} if self.evaluation is None else {"evaluation": self.evaluation.fingerprint}
        return super().list_inputs(held_out_as) | besides


@dataclass(frozen=True)
class Run:
    """One training and test of one architecture.

    Attributes:
        architecture: Which network.
        training_set: What it is trained on.
        flops: Of training and test; of a single epoch where a trainer decides how many there are.
        job: The training, and the samples held out for its test; None where the training set has no samples yet.
    """

    architecture: Architecture
    training_set: TrainingSet
    flops: int
    job: RunJob | None

    @cached_property
    def task(self) -> Task | None:
        """The work; None where there is no job."""
        if self.job is None:
            return None
        return make_task(self.job, f"{self.architecture.name} on {self.training_set.name}")


def sample_architectures(architectures: Sequence[Architecture], n: int, seed: int) -> list[Architecture]:
    """Takes at most n architectures, one from each of n equal parts of the space by cost, each part's by the seed.

    Args:
        architectures: From the lightest to the heaviest.
        n: How many.
        seed: The recipe's.

    Raises:
        EvidenceError: These are more than can be compared with each other.
    """
    if (n_taken := min(len(architectures), n)) > MAX_RANKED:
        raise EvidenceError(
            f"check.architectures: must be at most {MAX_RANKED:,}, the check would take {n_taken:,}; lower it"
        )
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
    soft_labels: SoftLabels | None = None,
) -> list[TrainingSet]:
    """Lists what every architecture is trained on: everything, then for each ratio and draw the proxy and its controls.

    A trainer has epochs of its own, so that none is told to train on everything for fewer.

    Args:
        train: The samples that may be drawn.
        draws: How each data set that is drawn is drawn.
        check: How many of each; with a reference nothing is trained on everything.
        own_ratio: The proxy's.
        settings: How networks are trained on a proxy.
        soft_labels: Of all these samples, where networks learn them in place of labels, but for those on everything; None where they are
            not known yet.
    """

    def count(how: Training, n: int) -> int | None:
        return count_steps(how, n) if how.trainer is None else None

    learned: Samples | None = train
    if settings.soft_labels:
        learned = None if soft_labels is None else replace(train, soft_labels=soft_labels)
    in_full = check.choose_full_training(settings)
    n_all = count(in_full, len(train))
    seeds = range(0 if check.reference else check.full_seeds)
    sets = [TrainingSet(FULL, 1.0, None, seed, len(train), train, in_full, n_all) for seed in seeds]
    for ratio in all_ratios(check, own_ratio):
        n = round(ratio * len(train))
        n_steps = count(settings, n)
        for draw in range(check.draws):
            for dataset, draw_again in draws.items():
                samples, kept = None, None
                if learned is not None and (drawn := draw_again(ratio, draw)) is not None:
                    samples, kept = learned.take(drawn.selected), drawn.kept_labels
                    samples = samples if kept is None else samples.keep_labels(kept)
                    if settings.soft_labels and drawn.soft_labels is not None:
                        samples = replace(samples, soft_labels=drawn.soft_labels)
                sets.append(TrainingSet(dataset, ratio, draw, draw, n, samples, settings, n_steps, kept))
            if n_steps is not None:
                sets.append(TrainingSet(FEWER_EPOCHS, ratio, None, draw, len(train), learned, settings, n_steps))
    return sets


def all_ratios(check: Check, own_ratio: float) -> list[float]:
    """Lists the proxy's own ratio and the others to be checked, the smallest first."""
    return sorted({own_ratio, *check.ratios})


def list_runs(
    architectures: Sequence[Architecture],
    sets: Sequence[TrainingSet],
    test: Samples,
    setup: TrainingSetup,
    evaluation: Samples | None = None,
) -> list[Run]:
    """Lists every architecture on every training set, the most expensive first.

    Where a training set keeps some labels only, its networks tell these apart and are tested on the samples of these.

    Args:
        architectures: Which networks.
        sets: What they are trained on.
        test: What they are tested on.
        setup: What all trainings have in common but for settings, which each training set has.
        evaluation: What they are measured on besides; None for nothing.

    Raises:
        EvidenceError: There are more runs than the table of runs may hold.
        LabelError: A training set's labels have no test sample.
    """
    if (n_runs := len(architectures) * len(sets)) > MAX_RANKING_ROWS:
        raise EvidenceError(
            f"check: must have at most {MAX_RANKING_ROWS:,} runs, it has {n_runs:,}: lower check.architectures or check.draws"
        )
    runs = []
    for each in sets:
        held_out, besides, n_labels = test, evaluation, setup.n_labels
        if each.kept_labels is not None:
            held_out, n_labels = test.keep_labels(each.kept_labels), len(each.kept_labels)
            besides = evaluation.keep_labels(each.kept_labels) if evaluation is not None else None
            if not len(held_out):
                raise LabelError(
                    f"check: the labels of {each.name} must have test samples, its {n_labels} have none; keep more labels "
                    "(selection.labels.keep)"
                )
        use = "full" if each.dataset == FULL else "draw"  # no method shares initial weights with what it is measured by
        n_seen = each.n_samples
        if each.n_steps is not None:
            n_seen = each.n_steps * min(each.settings.batch_size, each.n_samples)
        fields = vars(setup) | {"settings": each.settings, "n_labels": n_labels}
        fields |= {"held_out": held_out, "n_steps": each.n_steps}
        fields |= {"evaluation": besides or None}  # of the labels that it keeps there may be none
        for architecture in architectures:
            parameters = parameters_text(architecture)
            seed = derive_seed(setup.seed, STAGE, use, each.training_seed, architecture.network, parameters)
            own = {"architecture": architecture, "train": each.samples, "seed": seed}
            job = None if each.samples is None else RunJob(**fields | own)
            flops = n_seen * architecture.training_flops + len(held_out) * architecture.forward_flops
            runs.append(Run(architecture, each, flops, job))
    return sorted(runs, key=lambda run: -run.flops)


def make_task(job: TrainingJob, name: str) -> Task:
    """Makes one training and its test a piece of work that can be stored."""
    inputs = {"version": STAGE_VERSION, **job.list_inputs(held_out_as="test")}
    return Task(stage=STAGE, name=name, inputs=inputs, function=train_and_test, arguments=dict(vars(job)))


def train_and_test(*, folder: Path, report: Report, **job_fields: Any) -> None:
    """Trains one architecture and tests it; writes `run.json` to the folder.

    Args:
        folder: Filled with the result.
        report: Told of every epoch's end.
        job_fields: Those of a `RunJob`.

    Raises:
        DivergedError: The loss became infinite or not a number.
        TrainingError: There is not memory enough.
    """
    job = RunJob(**job_fields)

    with job.within_memory():
        network, losses, training_seconds = job.run(report)
        result = {**_test(network, job), "losses": losses, "training_seconds": training_seconds}
    (folder / "run.json").write_text(json.dumps(result))


def _test(network: PixelNetwork, job: RunJob) -> dict[str, float | None]:
    """Measures a network on the test samples, which `test_seconds` is of, then on the evaluation samples.

    Raises:
        DivergedError: Its loss there is infinite or not a number: what it answers then, and its accuracy, mean nothing.
    """
    started = time.perf_counter()
    pixels = job.held_out.pixels()
    prepared = prepare_network(network, pixels, job.device, job.settings.precision)
    accuracy, loss = measure_network(prepared, pixels, job.held_out.labels)
    test_seconds = time.perf_counter() - started
    del pixels  # before the others are read
    evaluation_accuracy = evaluation_loss = None
    if job.evaluation is not None:
        evaluation_accuracy, evaluation_loss = measure_network(prepared, job.evaluation.pixels(), job.evaluation.labels)
    for samples, measured in (("test", loss), ("evaluation", evaluation_loss)):
        if measured is not None and not math.isfinite(measured):
            raise DivergedError(
                f"{job.architecture.name}: the loss on {samples} samples must be finite, it is {measured}; "
                f"lower training.learning_rate (now {job.settings.learning_rate:g})"
            )
    return {
        "accuracy": accuracy,
        "evaluation_accuracy": evaluation_accuracy,
        "loss": loss,
        "evaluation_loss": evaluation_loss,
        "test_seconds": test_seconds,
    }


def tabulate_runs(runs: Sequence[Run], results: Sequence[Done | None]) -> pa.Table:
    """Puts finished runs into a table of runs, one row each; runs without a result are left out.

    Args:
        runs: In any order.
        results: Of each run's task; None where it failed.
    """
    rows = []
    for run, result in zip(runs, results, strict=True):
        if result is None or run.job is None:
            continue
        measured, each = json.loads((result.entry.folder / "run.json").read_text()), run.training_set
        n_steps, settings = each.n_steps, run.job.settings
        n_epochs = None if n_steps is None else settings.epochs * n_steps / count_steps(settings, each.n_samples)
        row = {
            **describe_architecture(run.architecture),
            **vars(each),  # of this and of what was measured the table takes its own columns
            **measured,
            **{
                name: _finite(measured.get(name)) for name in ("loss", "evaluation_loss")
            },  # older runs lack the second, or hold no number
            "n_labels": run.job.n_labels,
            "n_epochs": n_epochs,
            "run_flops": None if n_steps is None else run.flops,
            "device": run.job.arithmetic["device"],
            "origin": "trained",
        }
        rows.append(row)
    return make_runs_table(rows)


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def show_together(tasks: Sequence[Task], runs: Sequence[Run], on_progress: OnProgress) -> OnProgress:
    """Makes one bar of many runs, each in proportion to its FLOPs.

    Args:
        tasks: The tasks that are to be done.
        runs: Every run.
        on_progress: Told how far all tasks are together.
    """
    names = {task.name for task in tasks}
    flops = {run.task.name: run.flops for run in runs if run.task is not None and run.task.name in names}
    done: dict[str, float] = {}
    total = sum(flops.values())

    def show(step: Progress | StageEnded) -> None:
        assert isinstance(step, Progress)  # engines tell of tasks alone
        done[step.task] = step.done / step.total
        n_done = sum(share >= 1 for share in done.values())
        seen = sum(share * flops[name] for name, share in done.items())
        on_progress(Progress(STAGE, "runs", seen, total, f"{n_done} of {len(flops)} runs, {step.task}"))

    return show
