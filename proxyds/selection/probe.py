"""Probe networks: trained on everything that may be drawn, asked about every evaluation sample (paper, section 3.1)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyds.data.pixels import ImageArray
from proxyds.errors import CallableError, ChanceLevelError, RecipeError, SaturatedError, UnknownNameError
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Probes
from proxyds.runtime.storage.store import Entry
from proxyds.runtime.task import Done, Report, Task
from proxyds.seeding import derive_seed
from proxyds.selection.records import Answers
from proxyds.space.architecture import Architecture, by_cost
from proxyds.space.cost import read_parameters
from proxyds.text import MAX_SUGGESTED, suggest_names
from proxyds.training.data_parallel import is_first
from proxyds.training.inference import measure_answers, predict_labels
from proxyds.training.job import TrainingJob
from proxyds.training.model import PixelNetwork, save_network

STAGE = "probes"
STAGE_VERSION = 2
MIN_MEASURED = 30
"""Samples to measure accuracies on, without which nobody can tell one network from another."""


@dataclass(frozen=True, kw_only=True)
class ProbeJob(TrainingJob):
    """One training of a probe.

    Attributes:
        seed: The recipe's; the training's own is derived from it, the architecture and the repeat.
        repeat: Number of the training, from 0.
        keep_answers: Whether the network is asked about every training sample after each epoch; 16 bytes of each are kept, epoch by epoch.
    """

    repeat: int = 0
    keep_answers: bool = False

    @property
    def name(self) -> str:
        """Name of the training, for people: `probe resnet depth=8, seed 2`."""
        return f"probe {self.architecture.name}{f', seed {self.repeat + 1}' if self.repeat else ''}"

    @property
    def training_seed(self) -> int:
        """Seed of all random numbers of the training."""
        parameters = json.dumps(self.architecture.parameters, sort_keys=True)
        return derive_seed(self.seed, "probe", self.architecture.network, parameters, number=self.repeat)

    @property
    def training_flops(self) -> int | None:
        """FLOPs of the whole training; None where a trainer does it, whose steps nobody counts."""
        return None if self.settings.trainer is not None else self.n_seen * self.architecture.training_flops

    @property
    def flops(self) -> int | None:
        """FLOPs of the training, and of asking the probe about every training sample after each epoch where that is done; None as above."""
        asking = self.keep_answers * self.settings.epochs * len(self.train) * self.architecture.forward_flops
        return None if self.training_flops is None else self.training_flops + asking

    @property
    def task(self) -> Task:
        """The training as work that can be stored."""
        return Task(
            stage=STAGE,
            name=self.name,
            inputs={
                "version": STAGE_VERSION,
                **self.list_inputs(held_out_as="evaluation"),
                **({"repeat": self.repeat} if self.repeat else {}),
                **({"answers": True} if self.keep_answers else {}),
            },
            function=train_probe,
            arguments=dict(vars(self)),
            n_processes=self.data_parallel,
        )


@dataclass(frozen=True)
class Probe:
    """A trained probe network and what it made of the evaluation samples.

    Attributes:
        job: Its training.
        result: Its weights, and the rest of its files, in the store.
        predictions: (M,) int64, the label it gives each evaluation sample.
        accuracy: Share of the evaluation samples that it gets right, in [0, 1].
        losses: Mean training loss of each epoch, in nats; none where a trainer does not tell.
        training_seconds: Time of the training alone, in whichever build it was done.
    """

    job: ProbeJob
    result: Done
    predictions: NDArray[np.int64]
    accuracy: float
    losses: tuple[float, ...]
    training_seconds: float


def train_probe(*, folder: Path, report: Report, **job_fields: Any) -> None:
    """Trains one probe; writes `weights.safetensors`, `predictions.npy` and `training.json` to the folder.

    With `keep_answers` also `answers.npy`, (4, E, N) float32: what the network says of each training sample after each of E epochs, see
    `inference.measure_answers`. Nothing of the training depends on it.

    Where `torch.distributed` is set up, every process of it calls this; the first alone reports, tests and writes.

    Args:
        folder: Filled with the result.
        report: Told of every epoch's end.
        job_fields: Those of a `ProbeJob`.

    Raises:
        DivergedError: The loss became infinite or not a number.
        TrainingError: Too few samples for the parts of a batch, another number of processes than parts, or not memory enough.
        CallableError: A trainer does not do what it must.
    """
    job = ProbeJob(**job_fields)
    n_reported = 0

    def keep_answers(network: PixelNetwork, pixels: ImageArray, labels: NDArray[np.int64], epoch: int) -> None:
        nonlocal n_reported
        answers, n_reported = measure_answers(network, pixels, labels, job.device, job.settings.precision), epoch + 1
        if job.settings.trainer is None:
            write_answers(folder / "answers.npy", answers, epoch, job.settings.epochs)
        else:  # how many epochs there are shows at their end
            np.save(folder / f"epoch-{epoch}.npy", answers)

    with job.within_memory():
        network, losses, seconds = job.run(report, keep_answers if job.keep_answers else None)
        if not is_first():
            return
        if job.settings.trainer is not None:
            for epoch in range(n_reported):
                of_epoch = folder / f"epoch-{epoch}.npy"
                write_answers(folder / "answers.npy", np.load(of_epoch), epoch, n_reported)
                of_epoch.unlink()
        predictions = predict_labels(network, job.held_out.pixels(), job.device, job.settings.precision)
        np.save(folder / "predictions.npy", predictions)
    save_network(network, folder / "weights.safetensors", job.n_labels, job.image_shape)
    (folder / "training.json").write_text(json.dumps({"losses": losses, "seconds": seconds}))


def read_probe(job: ProbeJob, result: Done) -> Probe:
    """Reads a finished probe, as `train_probe` left it in the store."""
    folder = result.entry.folder
    training = json.loads((folder / "training.json").read_text())
    predictions: NDArray[np.int64] = np.load(folder / "predictions.npy")
    accuracy = float((predictions == job.held_out.labels).mean())
    return Probe(job, result, predictions, accuracy, tuple(training["losses"]), training["seconds"])


def write_answers(path: Path, measured: NDArray[np.float32], epoch: int, n_epochs: int) -> None:
    """Writes one epoch's answers, (4, N), to their place in a file as `np.save` makes of (4, E, N); epoch 0 must come first.

    A memory map would be shorter, but a full disk, or a file that another machine removes, ends a process that has mapped it without a word.
    """
    shape = (len(measured), n_epochs, measured.shape[1])
    header = {"descr": np.lib.format.dtype_to_descr(measured.dtype), "fortran_order": False, "shape": shape}
    with path.open("r+b" if epoch else "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for i, values in enumerate(measured):
            file.seek(start + (i * n_epochs + epoch) * values.nbytes)
            file.write(values.tobytes())


def open_answers(entries: Sequence[Entry]) -> Answers:
    """Opens what trainings with `keep_answers` said of every training sample after each epoch; reads nothing yet.

    Raises:
        CallableError: A trainer told of more epochs in one than in another.
    """
    paths = [entry.file("answers.npy").path for entry in entries]
    lengths = set()
    for path in paths:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            (_, n_epochs, n), _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            lengths.add(n_epochs)
    if len(lengths) > 1:
        raise CallableError(
            f"trainer: must call after_epoch equally often in every training of the heaviest probe, whose scores are averaged; found "
            f"{' and '.join(map(str, sorted(lengths)))} times. Train for a fixed number of epochs, or set probes.seeds: 1"
        )

    def read(training: int, measure: int, epoch: int) -> NDArray[np.float32]:
        offset = start + (measure * n_epochs + epoch) * n * dtype.itemsize
        return np.fromfile(paths[training], dtype, count=n, offset=offset)

    return Answers(read, len(paths), n_epochs)


def find_needed_accuracy(chance: float, n: int) -> float:
    """Computes the accuracy on n samples that is three standard errors above chance; 1 where that is more."""
    return min(chance + 3 * math.sqrt(chance * (1 - chance) / n), 1.0)


def find_chance(labels: NDArray[np.int64]) -> float:
    """Finds the accuracy on samples (M,) of a network that always answers their most frequent label."""
    return float(np.bincount(labels).max() / len(labels))


def check_above_chance(probes: Sequence[Probe], doubts: Sequence[str] = ()) -> None:
    """Refuses probes that have learnt nothing, that are not three standard errors above chance: the cases of their outcomes would be noise.

    Args:
        probes: The probes, all asked about the same samples.
        doubts: What may be wrong with the source.

    Raises:
        ChanceLevelError: Some are not; the message says which of them, and which have learnt.
    """
    job = probes[0].job
    needed = find_needed_accuracy(find_chance(job.held_out.labels), len(job.held_out.labels))
    failed = [each for each in probes if each.accuracy < needed]
    if not failed:
        return
    learned = [each for each in probes if each.accuracy >= needed]
    if job.settings.trainer is None:
        advice = f"Train longer ({_name_epochs(probes[0])}), or change training.learning_rate"
    else:
        advice = "Let the trainer train longer or at another rate, on images as it gets them and no others"
    if learned:
        advice += ". Or leave what does not learn out of the space, or name probes that do (probes.architectures)"
    raise ChanceLevelError(
        f"probes: all must be better than chance, that is right on more than {needed:.1%} of the "
        f"{len(job.held_out.labels):,} evaluation samples. "
        f"Not so: {_tell_accuracies(failed)}. {f'Learned: {_tell_accuracies(learned)}' if learned else 'No probe learned'}. {advice}"
        + "".join(f". {doubt}" for doubt in doubts)
    )


def _tell_accuracies(probes: Sequence[Probe]) -> str:
    return ", ".join(f"{each.job.name.removeprefix('probe ')} ({each.accuracy:.1%})" for each in probes)


FEW_OF_LABEL = 10
"""Samples of a label, on average, of which fewer are warned of."""


def warn_of_few(labels: NDArray[np.int64], use: str, more: str) -> str:
    """Says that samples are too few to tell a network from chance.

    There must be at least 30. And there must be so many that an accuracy of 90 % is three standard errors above chance. Where chance is above
    80 %, the accuracy half-way from chance to 100 % counts instead.

    Args:
        labels: (M,) the labels of the samples.
        use: What they are for, as people call them.
        more: What to do to have more of them.

    Returns:
        The warning; empty where they are enough.
    """
    n, chance = len(labels), find_chance(labels)
    room = max(0.9, (1 + chance) / 2) - chance
    n_needed = max(MIN_MEASURED, math.ceil(round(9 * chance * (1 - chance) / room**2, 6)) if room else 0)
    if n >= n_needed:
        return ""
    return (
        f"source: should have {n_needed:,} {use} samples or more to tell networks from chance ({chance:.1%}, the most frequent label); "
        f"it has {n:,}: with so few, a network is three standard errors above chance only at {find_needed_accuracy(chance, n):.1%}. "
        f"To mend it, {more}"
    )


def warn_of_small(n: int, n_labels: int, use: str, more: str) -> list[str]:
    """Says that a label has few samples on average.

    Args:
        n: Samples of all labels.
        n_labels: Labels.
        use: What the samples are to do, as people say it.
        more: What to do to have more of them.
    """
    if n >= FEW_OF_LABEL * n_labels:
        return []
    return [
        f"samples to {use}: {n:,}, {n / n_labels:.1f} of a label on average; with fewer than {FEW_OF_LABEL} a ranking is uncertain. "
        f"To mend it, {more}"
    ]


def check_some_wrong(probes: Sequence[Probe], method: str) -> None:
    """Refuses probes that are right on everything where the method chooses by their outcomes: all importances would be the same.

    Raises:
        SaturatedError: They are, and it does.
    """
    if "cases" in METHODS[method].needs and all(probe.accuracy == 1 for probe in probes):
        raise SaturatedError(
            f"probes: some must be wrong on some evaluation sample for the method {method} to choose by; all are right on all "
            f"{len(probes[0].predictions):,}, so that every sample is as important as the others. {_advise(probes[0])}; or choose by "
            "another method (selection.method)"
        )


def warn_of_likeness(lightest: Sequence[Probe], heaviest: Sequence[Probe], more: str, method: str) -> str:
    """Says why the probes' outcomes may not tell the architectures of a space apart.

    Args:
        lightest: The lightest probe, once for each of its trainings.
        heaviest: The heaviest one.
        more: What to do to have more evaluation samples.
        method: The recipe's selection method.

    Returns:
        The warning; empty where the heaviest is wrong somewhere, and more than two standard errors from the lightest.
    """
    labels = heaviest[0].job.held_out.labels
    light, heavy = (np.stack([probe.predictions == labels for probe in each]) for each in (lightest, heaviest))
    if heavy.all():
        return (
            f"saturated: {heaviest[0].job.architecture.name}, the heaviest, is right on all {len(labels):,} evaluation samples, so that "
            f"no architecture can be seen to be better. {_advise(heaviest[0])}; training longer does not help"
        )
    difference, error = compare_accuracies(light, heavy)
    if abs(difference) > 2 * error:
        return ""
    n_light, n_heavy = ((each & ~other).sum() / len(each) for each, other in ((light, heavy), (heavy, light)))
    is_chosen_by = "cases" in METHODS[method].needs
    what_for = (
        ""
        if is_chosen_by
        else f"The method {method} does not choose by these samples, but a ranking on them is just as unsure. "
    )
    return (
        f"too close: the lightest is right on {light.mean():.1%} of the {len(labels):,} evaluation samples and the heaviest on "
        f"{heavy.mean():.1%}; on {n_light:g} the lightest alone is right, on {n_heavy:g} the heaviest. Accuracies must differ by two "
        f"standard errors, {2 * error:.1%}, to be told apart. {what_for}Widen the space, or {more}; "
        "where both are near 100 %, train shorter (training.epochs, and probes.epochs where it is set) or on smaller images (source.image_size)"
    )


def compare_accuracies(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, float]:
    """Compares two networks on the same samples.

    On b samples the one alone is right, on c the other: the difference of accuracies is (c - b) / M, its variance
    (b + c - (c - b)^2 / M) / M^2 (McNemar). Of R trainings a sample's difference is the mean; the noise of training is in no standard error.

    Args:
        one: (R, M) on which samples it is right, training by training.
        other: The same of the other.

    Returns:
        The other's accuracy less that of the one, and the standard error of that.
    """
    differences = other.mean(axis=0) - one.mean(axis=0)
    return float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))


def _advise(probe: Probe) -> str:
    epochs = _name_epochs(probe) if probe.job.settings.trainer is None else "in the trainer"
    return f"Train shorter ({epochs}), on smaller images (source.image_size) or harder data, or widen the space"


def _name_epochs(probe: Probe) -> str:
    return f"training.epochs, or probes.epochs where it is set; probes had {len(probe.losses)}"


def choose_probes(architectures: Sequence[Architecture], probes: Probes) -> list[Architecture]:
    """Takes the bounds of a space by cost, and others evenly spread between them where more are asked for; or takes some by name.

    Paper, section 3.1: two probes, «the upper boundary model is the most complex model we can make during search
    process, and the lower boundary model is the lightest one»; more where the space needs more. Architectures whose output
    the image does not reach (`Parameters.is_connected`) are none, unless named.

    Args:
        architectures: The space, from the lightest to the heaviest.
        probes: How many, or which.

    Returns:
        The probes, from the lightest to the heaviest.

    Raises:
        RecipeError: The space holds fewer architectures than probes.
        UnknownNameError: The space holds no architecture of a name.
    """
    if probes.architectures is not None:
        by_name = {each.name: each for each in architectures}
        for name in probes.architectures:
            if name not in by_name:
                of_all = (
                    f"; `proxyds inspect RECIPE` lists all {len(by_name):,}" if len(by_name) > MAX_SUGGESTED else ""
                )
                raise UnknownNameError(
                    f"probes.architectures: must be architectures of the space, got {name!r}; {suggest_names(name, by_name)}{of_all}"
                )
        return sorted((by_name[name] for name in probes.architectures), key=by_cost)
    connected = [each for each in architectures if read_parameters(each.network, each.parameters).is_connected()]
    n, count = len(connected), probes.count
    if n < count:
        raise RecipeError(
            f"space: must hold at least probes.count = {count} architectures, it holds {n}"
            + ("" if n == len(architectures) else f" whose output the image reaches (of {len(architectures)})")
            + "; give more choices, wider bounds or a larger sample"
        )
    return [connected[round(i * (n - 1) / (count - 1))] for i in range(count)]
