"""The stages that build, check and plan share: a recipe's source, space and probes, and the samples' scores.

source -> space -> probes -> importance -> features -> similarity
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import loky

from proxyds.artifact.evidence_records import MachineRecord
from proxyds.artifact.manifest import SOFT_LABELS, Manifest, StageRecord
from proxyds.artifact.reader import read_own_recipe
from proxyds.artifact.summary import Tables
from proxyds.data.chunked import Values
from proxyds.data.images import ID_RULE
from proxyds.data.samples import Samples, SoftLabels, Source, tell_repeats
from proxyds.data.source import check_same
from proxyds.pipeline.reading import (
    Place,
    choose_source,
    find_source,
    name_data,
    naming_place,
    read_source,
    remember_source,
)
from proxyds.progress import OnProgress, StageEnded
from proxyds.recipe.methods import METHODS, Need
from proxyds.recipe.models import Check, Recipe
from proxyds.recipe.sections.training import choose_crop_padding
from proxyds.runtime.execution import Execution
from proxyds.runtime.machine import describe_arithmetic
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Done, Engine, Task, run_stored
from proxyds.selection.draw import check_ratio
from proxyds.selection.importance import score_importance
from proxyds.selection.probe import (
    Probe,
    ProbeJob,
    check_above_chance,
    check_some_wrong,
    choose_probes,
    open_answers,
    read_probe,
    warn_of_likeness,
)
from proxyds.selection.records import NearestMap, Outcomes, SampleScores
from proxyds.selection.similarity import (
    Features,
    carry_importance,
    check_layer,
    check_neighbours,
    feature_tasks,
    gather_features,
    mapping_tasks,
    open_mapping,
    projection_task,
)
from proxyds.selection.soft_labels import (
    are_stored,
    count_flops,
    find_weights,
    name_soft_labels,
    soft_label_tasks,
)
from proxyds.space.architecture import Architecture
from proxyds.space.listing import list_architectures
from proxyds.training.job import TrainingSetup
from proxyds.training.numerics import describe_computations

_Answer = TypeVar("_Answer")
LIBRARIES = ("proxyds", "torch", "numpy", "datasets", "pillow", "pyarrow", "webdataset", "scikit-learn", "matplotlib")


class StageClock:
    """Records stages that follow one another, and tells of each end; a stage begins where the one before ended."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.stages: list[StageRecord] = []
        self._on_progress = on_progress
        self._started = time.perf_counter()

    def end_stage(self, name: str, results: Sequence[Done] = (), flops: int | None = 0, warning: str = "") -> None:
        """Ends a stage: with its tasks' results, if it has any, the operations of its networks, None where nobody knows, and a warning."""
        now = time.perf_counter()
        elapsed = now - self._started
        record = StageRecord(
            stage=name,
            work_seconds=sum(result.entry.seconds for result in results) if results else elapsed,
            elapsed_seconds=elapsed,
            flops=flops,
            was_stored=bool(results) and all(result.was_stored for result in results),
        )
        self.stages.append(record)
        self._started = now
        self._on_progress(StageEnded(name, record.was_stored, warning))


@dataclass(frozen=True)
class Session:
    """A recipe at work.

    Attributes:
        recipe: The recipe as run: with the crop padding of its images, where it names none.
        data: Its source.
        device: `cpu` or a CUDA device.
        engine: Where tasks run.
        store: Where finished tasks are kept.
        on_progress: Called as work goes on.
        clock: Records each stage's end.
        place: Where the source lies, or the data themselves; None for where the recipe says.
        streamed: Whether its samples stay on disk; see `execution.Options`.
    """

    recipe: Recipe
    data: Source
    device: str
    engine: Engine
    store: Store
    on_progress: OnProgress
    clock: StageClock
    place: Place | None = None
    streamed: bool | None = None

    def run(self, tasks: Sequence[Task]) -> list[Done]:
        """Runs the tasks that the store does not hold; returns every task's result in the order given."""
        return run_stored(tasks, self.store, self.engine, self.on_progress)

    def ask(self, function: Callable[..., _Answer], *arguments: object) -> _Answer:
        """Calls a function where tasks that compute on the device run."""
        return self.engine.ask(self.device, function, *arguments)

    def set_up_training(self) -> TrainingSetup:
        """Says what all trainings for the recipe have in common."""
        return TrainingSetup(
            n_labels=len(self.data.label_names),
            image_shape=self.data.image_shape,
            settings=self.recipe.training,
            seed=self.recipe.seed,
            device=self.device,
            arithmetic=self.ask(describe_arithmetic, self.device),
        )

    def describe_machine(self, architectures: Sequence[Architecture]) -> MachineRecord:
        """Describes where some networks are trained, and how each computes there, unless that is a trainer's matter."""
        n_labels, image_shape = len(self.data.label_names), self.data.image_shape
        training, computations = self.recipe.training, {}
        if training.trainer is None:
            known = architectures, n_labels, image_shape, self.device, training.precision
            computations = self.ask(describe_computations, *known)
        return self.ask(describe_machine, self.device, self.engine.n_workers, computations)

    def for_check(self, settings: Check) -> Session:
        """Returns the session with networks trained as in a check."""
        training = settings.choose_training(self.recipe.training)
        return replace(self, recipe=self.recipe.model_copy(update={"training": training}))

    def read_source(self, id_rule: int) -> Source:
        """Returns the source with ids by a rule, and split by them; see `reading.read_source`."""
        if id_rule == self.data.facts.id_rule:
            return self.data
        return read_source(self.recipe, self.place, self.run, self.streamed, id_rule)

    def in_memory(self) -> Session:
        """Returns the session with the columns of its training samples in memory."""
        return replace(self, data=replace(self.data, train=self.data.train.load()))


@contextmanager
def open_session(
    recipe: Recipe, execution: Execution, place: Place | None = None, id_rule: int = ID_RULE
) -> Iterator[Session]:
    """Starts an engine, and reads a recipe's source with it; the store remembers where that lies.

    Args:
        recipe: The recipe.
        execution: How the work is done.
        place: Where the source lies, or the data themselves; None for where the recipe says.
        id_rule: By which rule the source's ids are made; for a proxy that is there its own, `Manifest.source.id_rule`.

    Raises:
        SourceError: The source cannot be read; see `load_source`.
        DeviceError: There is no such device or engine.
    """
    clock = StageClock(execution.on_progress)
    device, engine = execution.choose_engine()
    with engine:
        run = partial(run_stored, store=execution.store, engine=engine, on_progress=execution.on_progress)
        data = read_source(recipe, place, run, execution.streamed, id_rule)
        remember_source(recipe, data, place, execution.store)
        recipe = recipe.with_crop_padding(choose_crop_padding(min(data.image_shape[1:])))
        yield Session(
            recipe, data, device, engine, execution.store, execution.on_progress, clock, place, execution.streamed
        )


@contextmanager
def open_build(recipe: Recipe, execution: Execution, source: Any) -> Iterator[Session]:
    """Starts an engine, and reads what a proxy is to be made from.

    Args:
        recipe: The recipe.
        execution: How the work is done.
        source: What takes the place of the recipe's section `source`, see `reading.choose_source`; None to read that.

    Raises:
        ChangedSourceError: The recipe is of data in memory, and others were passed.
        SourceError: The source cannot be found or read.
    """
    recipe, data = choose_source(recipe, source)
    with open_session(recipe, execution, data) as session:
        yield replace(session, recipe=name_data(session.recipe, session.data))


@contextmanager
def reopen_session(recipe: Recipe, manifest: Manifest, execution: Execution, source: Any) -> Iterator[Session]:
    """Starts an engine, and reads the source again that a proxy was made from.

    Args:
        recipe: The proxy's.
        manifest: The proxy's; where an index is applied, the indexed proxy's.
        execution: How work is done.
        source: Where the user says that the source lies; see `reading.find_source`.

    Raises:
        ChangedSourceError: In the block: what lies there is another; the error names the place.
        SourceError: The source cannot be found or read.
    """
    found = find_source(recipe.source, manifest, source, execution.store)
    with open_session(recipe, execution, found, manifest.source.id_rule) as session, naming_place(found):
        yield session


def list_space(session: Session) -> list[Architecture]:
    """Lists a recipe's architectures, from the lightest to the heaviest, once it is known that the ratio leaves every label samples.

    Raises:
        RecipeError: The space cannot be listed; see `list_architectures`.
        StarvedLabelError: A label can expect less than one sample.
        LabelError: More labels are to be kept than there are.
        ShortageError: The labels that are kept do not have so many samples.
    """
    recipe, data = session.recipe, session.data
    check_ratio(data.label_counts, data.label_names, recipe.selection.ratio, recipe.selection.labels)
    return list_architectures(recipe.space, len(data.label_names), data.image_shape, seed=recipe.seed)


@dataclass(frozen=True)
class Scored:
    """What probes tell of the samples.

    Attributes:
        probes: The probes; for each repeat from the lightest to the heaviest.
        layer: The layer of the heaviest that features come from.
        outcomes: Cases and importances of the evaluation samples.
        mapping: Each training sample's nearest evaluation samples.
        case: (N,) case of each training sample.
        scores: What selection methods choose training samples by.
    """

    probes: Sequence[Probe]
    layer: str
    outcomes: Outcomes
    mapping: NearestMap
    case: Values
    scores: SampleScores


def join_needs(*methods: str) -> frozenset[Need]:
    """Joins what some methods need."""
    return frozenset[Need]().union(*(METHODS[method].needs for method in methods))


def prepare_probes(session: Session, architectures: Sequence[Architecture]) -> tuple[list[Architecture], str]:
    """Chooses a build's probes, and the layer of the heaviest that features come from; refuses what they could not do.

    Raises:
        RecipeError: There are fewer evaluation samples than neighbours.
        UnknownNameError: The space has no such architecture, or the network no such layer.
    """
    recipe, data = session.recipe, session.data
    chosen = choose_probes(architectures, recipe.probes)
    check_neighbours(recipe.similarity.neighbours, len(data.evaluation))
    return chosen, check_layer(chosen[-1], recipe.similarity.layer, len(data.label_names), data.image_shape)


def list_probe_jobs(session: Session, chosen: Sequence[Architecture], needs: frozenset[Need]) -> list[ProbeJob]:
    """Lists the trainings of a build's probes, for each repeat every probe; the heaviest is asked on the way where that is needed."""
    recipe, data, setup = session.recipe, session.data, session.set_up_training()
    fields = vars(setup) | {"settings": recipe.probes.choose_training(setup.settings)}
    return [
        ProbeJob(
            **fields,
            architecture=architecture,
            train=data.train,
            held_out=data.evaluation,
            data_parallel=recipe.probes.data_parallel,
            repeat=repeat,
            keep_answers="answers" in needs and architecture == chosen[-1],
        )
        for repeat in range(recipe.probes.seeds)
        for architecture in chosen
    ]


def train_probes(session: Session, chosen: Sequence[Architecture], needs: frozenset[Need]) -> list[Probe]:
    """Trains every probe with every seed; returns the probes in the order of `list_probe_jobs`.

    Raises:
        ChanceLevelError: A probe has learnt nothing.
        SaturatedError: All are right on everything, and the recipe's method chooses by that.
    """
    jobs = list_probe_jobs(session, chosen, needs)
    order = sorted(range(len(jobs)), key=lambda i: (-(i % len(chosen)), i))  # the heaviest start first
    results = dict(zip(order, session.run([jobs[i].task for i in order]), strict=True))
    probes = [read_probe(job, results[i]) for i, job in enumerate(jobs)]
    facts = session.data.facts
    check_above_chance(probes, tell_repeats(facts.n_conflicting, facts.n_shared))
    check_some_wrong(probes, session.recipe.selection.method)
    lightest, heaviest = probes[:: len(chosen)], probes[len(chosen) - 1 :: len(chosen)]
    more = facts.tell_how_to_have_more("evaluation")
    warning = warn_of_likeness(lightest, heaviest, more, session.recipe.selection.method)
    known = [job.flops for job in jobs if job.flops is not None]
    flops = sum(known) if len(known) == len(jobs) else None
    session.clock.end_stage("probes", [probe.result for probe in probes], flops, warning)
    return probes


def find_teacher(session: Session, architectures: Sequence[Architecture]) -> ProbeJob | None:
    """Finds the training of a probe that soft labels come from, the heaviest's first; None where the recipe asks for none."""
    if not session.recipe.training.soft_labels:
        return None
    heaviest = choose_probes(architectures, session.recipe.probes)[-1]
    return list_probe_jobs(session, [heaviest], frozenset())[0]


def ask_soft_labels(session: Session, architectures: Sequence[Architecture]) -> SoftLabels | None:
    """Asks the heaviest probe about every training sample: what networks learn in place of labels; None where they learn labels.

    What the store has is not done again: a probe is trained only where the store lacks it, and its answers.
    """
    teacher = find_teacher(session, architectures)
    if teacher is None:
        return None
    weights = find_weights(teacher, session.store)
    if weights is None and not are_stored(teacher, session.store):
        weights = session.run([teacher.task])[0].entry
    if weights is not None:  # a build records the stage, whether the store has its results or not
        results = session.run(soft_label_tasks(teacher, weights, session.device))
        session.clock.end_stage(SOFT_LABELS, results, count_flops(teacher))
    return name_soft_labels(teacher, session.store)


def score_samples(session: Session, probes: Sequence[Probe], needs: frozenset[Need], layer: str) -> Scored:
    """Scores the samples by what trained probes tell of them.

    Args:
        session: The recipe at work.
        probes: The probes of `train_probes`; features are those of the heaviest one's first training.
        needs: What methods choose by.
        layer: The layer that features come from.
    """
    recipe, data, clock = session.recipe, session.data, session.clock
    repeats = [list(of_repeat) for _, of_repeat in groupby(probes, lambda probe: probe.job.repeat)]
    predictions = [[probe.predictions for probe in of_repeat] for of_repeat in repeats]
    outcomes = score_importance(predictions, data.evaluation.labels, recipe.importance.constants)
    clock.end_stage("importance")

    heaviest = [of_repeat[-1] for of_repeat in repeats]
    architecture, weights = heaviest[0].job.architecture, heaviest[0].result.entry
    how = session.device, recipe.training.precision
    training = feature_tasks(architecture, weights, layer, data.train, "training", *how)
    evaluation = feature_tasks(architecture, weights, layer, data.evaluation, "evaluation", *how)
    results = session.run([*training, *evaluation])
    arithmetic = session.engine.ask("cpu", describe_arithmetic, "cpu")
    features = Features(results[: len(training)], results[len(training) :], recipe.similarity, arithmetic)
    n_featured = len(data.train) + len(data.evaluation)
    clock.end_stage("features", results, n_featured * architecture.forward_flops)

    (projection,) = session.run([projection_task(features)])
    results = session.run(mapping_tasks(features, projection))
    in_memory = isinstance(data.train, Samples)
    mapping = open_mapping([result.entry for result in results], len(data.train), in_memory=in_memory)
    clock.end_stage("similarity", [projection, *results])

    case, importance = carry_importance(mapping, outcomes)
    scores = SampleScores(
        data.train.parsed_ids,
        data.train.labels,
        importance,
        gather_features(features, projection) if "features" in needs else None,
        open_answers([probe.result.entry for probe in heaviest]) if "answers" in needs else None,
    )
    return Scored(probes, layer, outcomes, mapping, case, scores)


def read_moved_recipe(folder: Path, overrides: Sequence[str]) -> tuple[Recipe, str | None]:
    """Reads a proxy's own recipe, and the `source.path` of the overrides, which is no part of it; None where they hold none."""
    before, after = (read_own_recipe(folder, changes) for changes in ((), overrides))
    paths = [getattr(each.source, "path", None) for each in (before, after)]
    if None in paths or paths[0] == paths[1]:
        return after, None
    return after.model_copy(update={"source": after.source.model_copy(update={"path": paths[0]})}), paths[1]


def read_scores(data: Source, manifest: Manifest, tables: Tables) -> SampleScores:
    """Reads what a proxy's own table tells of its training samples.

    Raises:
        ChangedSourceError: The source is not the one that the proxy was made from.
    """
    ids = [table["sample_id"].to_pylist() for table in (tables.importance, tables.evaluation)]
    check_same(data, manifest.source.fingerprint, *ids)
    return SampleScores(data.train.parsed_ids, data.train.labels, tables.importance["importance"].to_numpy())


def describe_machine(
    device: str, n_workers: int | None = None, computations: Mapping[str, str] | None = None
) -> MachineRecord:
    """Describes the machine, for the manifest: no host name, no path; `n_workers` is None where nothing was trained."""
    return MachineRecord(
        device=describe_arithmetic(device)["device"],
        processor=_processor(),
        n_cores=loky.cpu_count(),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
        n_workers=n_workers,
        computations=dict(computations or {}),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
