"""One training as a record: what is trained on what, what its result depends on, and how it is done; and how long it will take.

Probes and the runs of a check are trained alike; what they ask the trained network, and what they keep of it, is theirs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from proxyds.data.chunked import materialize
from proxyds.data.pixels import ImageArray
from proxyds.data.samples import SHARD, Samples, StreamedSamples, join_samples
from proxyds.errors import TrainingError
from proxyds.progress import OnProgress, Progress
from proxyds.recipe.sections.training import Training
from proxyds.runtime.task import Report, Task
from proxyds.section import CodeSpec
from proxyds.seeding import derive_seed
from proxyds.space.architecture import Architecture, by_cost
from proxyds.space.networks.build import describe_origin
from proxyds.text import with_prefix
from proxyds.training.cuda_graph import N_EAGER
from proxyds.training.data_parallel import fit_batch, is_first
from proxyds.training.loop import Epoch, count_steps, train_network
from proxyds.training.model import PixelNetwork, make_network
from proxyds.training.trainer import is_out_of_memory, train_with

TIMING_FLOPS = 20_000_000_000
"""Cost of one step of `expect_image_seconds`, at most: under a second on one core."""
MIN_TIMED = 2
"""Images of a step that is timed, at least: batch norm refuses one."""
TIMED_STEP_SECONDS = 0.5
"""A training whose smallest step may take longer is not timed: its time is FLOPs over the machine's rate."""

TRIAL, TRIAL_VERSION = "trainer", 1
"""Stage of the training that tries a trainer out."""

AfterEpoch = Callable[[PixelNetwork, ImageArray, NDArray[np.int64], int], None]
"""Takes the network in evaluation mode, the training samples' pixels and labels, and the epoch's index."""


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """What all trainings of a build, or of a check, have in common.

    Attributes:
        n_labels: Size of a network's output.
        image_shape: (C, H, W).
        settings: How networks are trained, unless a training set of a check has its own.
        seed: The recipe's.
        device: `cpu` or a CUDA device.
        arithmetic: What a network's bits depend on besides: see `machine.describe_arithmetic`.
    """

    n_labels: int
    image_shape: tuple[int, int, int]
    settings: Training
    seed: int
    device: str
    arithmetic: dict[str, str]

    def make_network(self, architecture: Architecture, seed: int) -> PixelNetwork:
        """Builds an architecture whose initial weights depend on the seed alone."""
        return make_network(architecture.network, architecture.parameters, self.n_labels, self.image_shape, seed)


@dataclass(frozen=True, kw_only=True)
class TrainingJob(TrainingSetup):
    """One training of one architecture.

    Its fields are the arguments of its task, so that an engine can set the device, and send a data set to a machine once.

    Attributes:
        architecture: Which network.
        train: What it is trained on.
        held_out: What the trained network is asked about.
        seed: Of initial weights, the order of samples and augmentation.
        n_steps: Batches that it takes; None for as many epochs as the settings say.
        data_parallel: Parts of every batch, and processes that compute them where the engine can.
    """

    architecture: Architecture
    train: Samples | StreamedSamples
    held_out: Samples
    n_steps: int | None = None
    data_parallel: int = 1

    @property
    def training_seed(self) -> int:
        """The seed that all random numbers of the training come from; a subclass may derive it from `seed` and more."""
        return self.seed

    @property
    def n_seen(self) -> int:
        """Images that the whole training computes on: every epoch leaves out what fills no batch."""
        n_steps = self.n_steps or count_steps(self.settings, len(self.train))
        return n_steps * fit_batch(self.settings.batch_size, len(self.train), self.data_parallel)

    def list_inputs(self, held_out_as: str) -> dict[str, Any]:
        """Lists what the result depends on, as JSON can hold it.

        Args:
            held_out_as: What the store's keys call the samples that the network is asked about.
        """
        return {
            "network": self.architecture.network,
            **describe_origin(self.architecture.network),
            "parameters": self.architecture.parameters,
            "settings": self._list_settings(),
            **({"n_steps": self.n_steps} if self.n_steps is not None else {}),
            **({"data_parallel": self.data_parallel} if self.data_parallel != 1 else {}),
            "seed": self.seed,
            "n_labels": self.n_labels,
            "image_shape": self.image_shape,
            "train": self.train.fingerprint,
            held_out_as: self.held_out.fingerprint,
            **self.arithmetic,
        }

    def _list_settings(self) -> dict[str, Any]:
        """Lists how the network is trained; of a trainer the code, whatever its name."""
        trainer = self.settings.trainer
        return self.settings.model_dump(mode="json") if trainer is None else {"trainer": trainer.sha256}

    def run(self, report: Report, after_epoch: AfterEpoch | None = None) -> tuple[PixelNetwork, list[float], float]:
        """Trains the network.

        Where `torch.distributed` is set up, every process of it calls this; the first alone reports.

        Args:
            report: Called at every epoch's end.
            after_epoch: Called at every epoch's end, by the first process; changes nothing of the training. Of a trainer that does not
                tell of its epochs once, at the end.

        Returns:
            The network in evaluation mode; the mean loss of each epoch, in nats, none where a trainer does not tell; the seconds of the
            training alone.

        Raises:
            DivergedError: The loss became infinite or not a number.
            CallableError: A trainer does not do what it must, or was not handed over.
            TrainingError: Too few samples for the parts of a batch, or another number of processes than parts.
        """
        network = self.make_network(self.architecture, derive_seed(self.training_seed, "weights"))
        if self.settings.trainer is not None:
            return self._run_trainer(self.settings.trainer, network, report, after_epoch)
        n_epochs, seconds_between = self.settings.epochs, 0.0
        if self.n_steps is not None:
            n_epochs = math.ceil(self.n_steps * self.settings.epochs / count_steps(self.settings, len(self.train)))

        def end_epoch(index: int, epoch: Epoch) -> None:
            nonlocal seconds_between
            report(index + 1, n_epochs, f"loss {epoch.loss:.3f}")
            if after_epoch is not None:
                ended = time.perf_counter()
                after_epoch(network.eval(), pixels, labels, index)
                network.train()
                seconds_between += time.perf_counter() - ended

        if is_first():
            report(0, n_epochs, "")
        pixels, labels = self.train.pixels(), materialize(self.train.labels)
        started = time.perf_counter()
        history = train_network(
            network,
            pixels,
            self.train.read_targets(),
            self.settings,
            seed=self.training_seed,
            n_steps=self.n_steps,
            n_parts=self.data_parallel,
            device=self.device,
            name=self.architecture.name,
            on_epoch=end_epoch if is_first() else None,
        )
        seconds = time.perf_counter() - started - seconds_between
        return network, [epoch.loss for epoch in history], seconds

    def _run_trainer(
        self, trainer: CodeSpec, network: PixelNetwork, report: Report, after_epoch: AfterEpoch | None
    ) -> tuple[PixelNetwork, list[float], float]:
        """Lets a trainer train the network; see `run`."""
        pixels, labels = self.train.pixels(), materialize(self.train.labels)
        n_epochs, seconds_between = 0, 0.0

        def end_epoch(index: int, reported: PixelNetwork, loss: float | None) -> None:
            nonlocal n_epochs, seconds_between
            started, n_epochs = time.perf_counter(), index + 1
            report(
                0, 1, f"epoch {n_epochs}{'' if loss is None else f', loss {loss:.3f}'}"
            )  # how many are to come it alone knows
            if after_epoch is not None:
                after_epoch(reported, pixels, labels, index)
            seconds_between += time.perf_counter() - started

        report(0, 1, "")
        started = time.perf_counter()
        network, losses = train_with(
            trainer,
            network,
            pixels,
            labels,
            seed=derive_seed(self.training_seed, "trainer"),
            device=self.device,
            name=self.architecture.name,
            on_epoch=end_epoch,
        )
        seconds = time.perf_counter() - started - seconds_between
        if after_epoch is not None and n_epochs == 0:
            after_epoch(network, pixels, labels, 0)
        report(1, 1, "")
        return network, losses, seconds

    @contextmanager
    def within_memory(self) -> Iterator[None]:
        """Raises `TrainingError` where memory runs out; see the function `within_memory`."""
        of_step = f"batch_size, now {self.settings.batch_size}"
        fewer = f"fewer samples a step ({of_step if self.settings.trainer is None else 'in the trainer'})"
        with within_memory(self.architecture.name, self.device, fewer):
            yield


@contextmanager
def within_memory(name: str, device: str, advice: str) -> Iterator[None]:
    """Raises `TrainingError` where memory runs out, and frees what the device kept.

    Args:
        name: Of the network.
        device: It computes on.
        advice: What needs less, besides fewer workers.

    Raises:
        TrainingError: There is not memory enough.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{name}: must fit into memory, it does not; {advice} or fewer workers (--workers) need less"
        ) from error
    finally:
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def list_trials(
    setup: TrainingSetup, architecture: Architecture, train: Samples | StreamedSamples, ratio: float
) -> list[Task]:
    """Lists a training that nobody needs, where a trainer of the program's own trains: what is wrong with it shows before hours are lost.

    Args:
        setup: Who trains; with the shipped loop nothing is listed.
        architecture: A light one.
        train: The samples that may be drawn.
        ratio: Of the smallest proxy that it will be asked to train on.
    """
    if setup.settings.trainer is None:
        return []
    n = round(ratio * len(train))
    some = join_samples([train.part(shard).load() for shard in range(-(-n // SHARD))])[
        :n
    ]  # of as many shards as it takes
    job = TrainingJob(**vars(setup) | {"architecture": architecture, "train": some, "held_out": some})
    inputs = {"version": TRIAL_VERSION, **job.list_inputs(held_out_as="held_out")}
    name = f"trial of {setup.settings.trainer.name} on {architecture.name}"
    return [Task(stage=TRIAL, name=name, inputs=inputs, function=try_trainer, arguments=dict(vars(job)))]


def try_trainer(*, folder: Path, report: Report, **job_fields: Any) -> None:
    """Trains one network and keeps how long it took, `trial.json` in the folder; see `TrainingJob.run`."""
    job = TrainingJob(**job_fields)
    with job.within_memory():
        _, _, seconds = job.run(report)
    (folder / "trial.json").write_text(json.dumps({"seconds": seconds}))


def measure_rate(device: str) -> float:
    """Measures FLOPs a second, in one thread, of a convolution's training step: a fraction of a second."""
    n, channels, side, kernel = 8, 64, 32, 3
    n_flops = 3 * 2 * n * side**2 * channels**2 * kernel**2  # forward, and as many for the gradient of each factor
    images = torch.zeros(n, channels, side, side, device=device, requires_grad=True)
    convolution = torch.nn.Conv2d(channels, channels, kernel, padding=1, bias=False, device=device)

    def take_step() -> float:
        started = time.perf_counter()
        convolution(images).sum().backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    with in_one_thread():
        take_step()  # the first one sets up
        return n_flops / float(np.median([take_step() for _ in range(5)]))


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Lets torch compute in one thread, as workers do."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def expect_image_seconds(setup: TrainingSetup, architecture: Architecture) -> float:
    """Times a few small steps on made-up images, in one thread.

    Args:
        setup: How the architecture would be trained, and on what device.
        architecture: Its training FLOPs keep the steps short.

    Returns:
        Seconds that one image of a training takes on this machine, alone.
    """
    settings, is_cuda = setup.settings, setup.device.startswith("cuda")
    n = int(np.clip(TIMING_FLOPS // architecture.training_flops, MIN_TIMED, settings.batch_size))
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (n, *setup.image_shape), np.uint8), rng.integers(0, setup.n_labels, n)
    n_warming_up = N_EAGER + 1 if is_cuda else 1
    short = settings.model_copy(update={"epochs": n_warming_up + 4, "batch_size": n})
    network = setup.make_network(architecture, seed=0)
    with in_one_thread():
        steps = train_network(network, pixels, labels, short, seed=0, device=setup.device)
    return float(np.median([step.seconds for step in steps[n_warming_up:]])) / n


class Timing:
    """Expects how long trainings take on this machine, by a few steps of each architecture; of large ones by their FLOPs alone.

    Args:
        setup: What all trainings have in common.
        ask: Calls a function where the trainings will run.
        on_progress: Called as work goes on.
    """

    def __init__(self, setup: TrainingSetup, ask: Callable[..., Any], on_progress: OnProgress) -> None:
        self._setup, self._ask, self._on_progress = setup, ask, on_progress
        self._seconds_per_flop: dict[tuple[str, int], float] = {}
        self._estimated: dict[str, Architecture] = {}

    @cached_property
    def rate(self) -> float:
        """FLOPs a second of one training here."""
        rate: float = self._ask(measure_rate, self._setup.device)
        return rate

    def time(self, trainings: Iterable[tuple[Architecture, Training]]) -> None:
        """Times architectures in the batches of some settings, unless that was done."""
        new = {(each.name, settings.batch_size): (each, settings) for each, settings in trainings}
        new = {key: training for key, training in new.items() if key not in self._seconds_per_flop}
        for number, (key, (each, settings)) in enumerate(new.items()):
            self._on_progress(Progress("time a few steps", "time a few steps", number, len(new), each.name))
            if MIN_TIMED * each.training_flops > TIMED_STEP_SECONDS * self.rate:
                self._seconds_per_flop[key] = 1 / self.rate
                self._estimated[each.name] = each
            else:
                seconds = self._ask(expect_image_seconds, replace(self._setup, settings=settings), each)
                self._seconds_per_flop[key] = seconds / each.training_flops

    def expect(self, architecture: Architecture, settings: Training, flops: int) -> float:
        """Returns the seconds of a training that was timed, of so many FLOPs."""
        return flops * self._seconds_per_flop[architecture.name, settings.batch_size]

    @property
    def warnings(self) -> list[str]:
        """Says which architectures were too large to be timed."""
        if not self._estimated:
            return []
        n, largest = len(self._estimated), max(self._estimated.values(), key=by_cost)
        return [
            f"expected: {n:,} architecture{'' if n == 1 else 's'} too large to time in a moment, such as {largest.name}: FLOPs over the "
            f"{with_prefix(self.rate, 'FLOP')} a second that this machine does in one training; fewer layers or filters, or a smaller "
            "source.image_size, make it quicker"
        ]
