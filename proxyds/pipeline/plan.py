"""What a build or a check would do and how long it would take, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Unpack

from proxyds.artifact.ranking_table import ALL_LABELS, DATASETS, PROXY
from proxyds.artifact.reader import read_manifest
from proxyds.artifact.tables import read_proxy
from proxyds.data.samples import Samples, Source
from proxyds.evaluation.runs import Run
from proxyds.pipeline.build import find_build_needs
from proxyds.pipeline.check import (
    choose_ranked,
    find_check_needs,
    find_reduction,
    list_check_runs,
    list_own_draws,
    read_checked_recipe,
)
from proxyds.pipeline.stages import Session, list_probe_jobs, list_space, open_session, prepare_probes, read_scores
from proxyds.recipe.methods import Need
from proxyds.recipe.models import Recipe
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.store import retry_if_damaged
from proxyds.runtime.task import Task
from proxyds.selection.probe import choose_probes, warn_of_few
from proxyds.selection.records import SampleScores
from proxyds.space.architecture import Architecture, by_cost
from proxyds.space.listing import list_architectures
from proxyds.training.job import expect_image_seconds


@dataclass(frozen=True)
class PlannedProbe:
    """A training of a probe that a build would do.

    Attributes:
        name: Name of the architecture, with the seed where it is not the first.
        architecture: The network.
        is_stored: Whether the store holds the training already.
        flops: FLOPs of the whole training, and of asking the probe on the way where a method needs that.
        expected_seconds: Seconds of the training alone on this machine; 0 where it is stored.
    """

    name: str
    architecture: Architecture
    is_stored: bool
    flops: int
    expected_seconds: float


@dataclass(frozen=True)
class PlannedRuns:
    """Trainings of a check on one kind of data set.

    Attributes:
        dataset: A key of `ranking_table.DATASETS`.
        ratio: See `runs.TrainingSet`.
        n_runs: Number of trainings.
        n_stored: Number of those that the store holds already, as far as that is known.
        flops: FLOPs of the others.
        expected_seconds: Seconds of the others on this machine, one after the other.
    """

    dataset: str
    ratio: float
    n_runs: int
    n_stored: int
    flops: int
    expected_seconds: float


@dataclass(frozen=True)
class CheckPlan:
    """What a check would do.

    Attributes:
        architectures: The architectures that would be ranked, from the lightest to the heaviest.
        runs: Cost of each data set.
        n_workers: Trainings at once.
        probes: Probes to train anew, where controls or other draws of the proxy need more than the proxy's tables hold.
        warnings: What the check may fail to show, and why.
    """

    architectures: list[Architecture]
    runs: list[PlannedRuns]
    n_workers: int
    probes: list[PlannedProbe] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def expected_seconds(self) -> float:
        """Seconds of all trainings, side by side: an even share of the sum."""
        work: list[PlannedProbe | PlannedRuns] = [*self.probes, *self.runs]
        return sum(each.expected_seconds for each in work) / self.n_workers


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do.

    Attributes:
        source: The data set, read and split.
        architectures: The space, from the lightest to the heaviest.
        probes: Cost of each probe.
        n_selected: Samples that the proxy would hold.
        n_workers: Trainings at once.
        check: What the check would do; None where the recipe has none.
        warnings: What build and check may fail to show, and why.
    """

    source: Source
    architectures: list[Architecture]
    probes: list[PlannedProbe]
    n_selected: int
    n_workers: int
    check: CheckPlan | None
    warnings: list[str] = field(default_factory=list)

    @property
    def expected_seconds(self) -> float:
        """Seconds of all trainings, side by side: the longest probe, or an even share of the sum; then the check."""
        seconds = [each.expected_seconds for each in self.probes]
        probes = max(max(seconds), sum(seconds) / self.n_workers)
        return probes + (self.check.expected_seconds if self.check else 0.0)


@retry_if_damaged
def plan_build(recipe: Recipe | str | Path, **options: Unpack[Options]) -> BuildPlan:
    """Says what `build` would do: decodes the source into the store and times a few steps, but trains nothing.

    Args:
        recipe: What to build, or the file that says so.
        options: How the work is done; see `Execution`.

    Raises:
        ProxydsError: Whatever `build` would raise before it trains.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    with open_session(recipe, Execution(**options)) as session:
        data, check = session.data, None
        architectures = list_space(session)
        probes = _plan_probes(session, architectures, find_build_needs(recipe))
        if recipe.check is not None:
            ranked = choose_ranked(session, recipe.check, architectures)
            scores = SampleScores(data.train.parsed_ids, data.train.labels)
            # no probe is trained yet, and no draw of the proxy is known
            own_draws = dict.fromkeys(
                [PROXY] if find_reduction(recipe, scores) is None else [PROXY, ALL_LABELS], lambda *_: None
            )
            check = _plan_runs(session, list_check_runs(session, recipe.check, ranked, scores, own_draws))
        n_selected = round(recipe.selection.ratio * len(data.train))
        fraction = "test_fraction" if recipe.importance.protocol == "paper" else "validation_fraction"
        warnings = [*recipe.warnings, *data.warnings, *_warn_of_few(data.evaluation, "evaluation", fraction)]
        warnings += check.warnings if check else []
        return BuildPlan(data, architectures, probes, n_selected, session.engine.n_workers, check, warnings)


@retry_if_damaged
def plan_check(folder: str | Path, *, overrides: Sequence[str] = (), **options: Unpack[Options]) -> CheckPlan:
    """Says what `check` would do; see `plan_build` and `pipeline.check`."""
    folder = Path(folder)
    recipe, settings = read_checked_recipe(folder, overrides)
    with open_session(recipe, Execution(**options), read_manifest(folder).source.id_rule) as session:
        architectures = list_space(session)
        ranked = choose_ranked(session, settings, architectures)
        session = session.in_memory()
        manifest, tables = read_proxy(folder, with_ranking=False, images_of=("data",))
        scores, needs = read_scores(session.data, manifest, tables), find_check_needs(recipe, settings)
        probes = [] if scores.has(needs) else _plan_probes(session, architectures, needs)
        own_draws = list_own_draws(recipe, scores, manifest, tables)
        return _plan_runs(session, list_check_runs(session, settings, ranked, scores, own_draws), probes)


@retry_if_damaged
def survey_space(recipe: Recipe, **options: Unpack[Options]) -> tuple[list[Architecture], list[Architecture], Source]:
    """Lists what a recipe searches, with what each architecture costs; reads the source, but trains nothing.

    Args:
        recipe: The recipe.
        options: How the source is read; see `Execution`. No network runs, so no device is chosen.

    Returns:
        The space, and those of it that a build trains as probes, both from the lightest to the heaviest; the source.

    Raises:
        ProxydsError: Whatever `build` would raise about source and space.
    """
    with open_session(recipe, replace(Execution(**options), device="cpu")) as session:
        data = session.data
    architectures = list_architectures(recipe.space, len(data.label_names), data.image_shape, seed=recipe.seed)
    return architectures, choose_probes(architectures, recipe.probes), data


def _warn_of_few(samples: Samples, use: str, fraction: str) -> list[str]:
    warning = warn_of_few(samples.labels, use, f"source.{fraction}")
    return [warning] if warning else []


def _is_stored(session: Session, task: Task | None) -> bool:
    return task is not None and session.store.find(task.stage, task.key) is not None


def _plan_probes(session: Session, architectures: Sequence[Architecture], needs: frozenset[Need]) -> list[PlannedProbe]:
    chosen, _ = prepare_probes(session, architectures)
    jobs = [(job, _is_stored(session, job.task)) for job in list_probe_jobs(session, chosen, needs)]
    seconds_per_flop = _time_architectures(session, [job.architecture for job, is_stored in jobs if not is_stored])
    planned = []
    for job, is_stored in jobs:
        flops = job.training_flops + job.asking_flops
        seconds = 0.0 if is_stored else flops * seconds_per_flop[job.architecture.name]
        planned.append(PlannedProbe(job.name.removeprefix("probe "), job.architecture, is_stored, flops, seconds))
    return planned


def _time_architectures(session: Session, architectures: Iterable[Architecture]) -> dict[str, float]:
    """Times a few steps of each architecture's training; returns seconds for one FLOP, by name."""
    setup, by_name = session.set_up_training(), {each.name: each for each in architectures}
    return {
        name: session.ask(expect_image_seconds, setup, each) / each.training_flops for name, each in by_name.items()
    }


def _plan_runs(session: Session, runs: Sequence[Run], probes: Sequence[PlannedProbe] = ()) -> CheckPlan:
    seconds_per_flop = _time_architectures(session, [run.architecture for run in runs if run.job is not None])

    def find_kind(run: Run) -> tuple[int, float]:
        return DATASETS.index(run.training_set.dataset), run.training_set.ratio

    planned = []
    for (dataset, ratio), group in groupby(sorted(runs, key=find_kind), find_kind):
        of_kind = list(group)
        missing = [run for run in of_kind if not _is_stored(session, run.task)]
        flops = sum(run.flops for run in missing)
        seconds = sum(run.flops * seconds_per_flop[run.architecture.name] for run in missing)
        n_stored = len(of_kind) - len(missing)
        planned.append(PlannedRuns(DATASETS[dataset], ratio, len(of_kind), n_stored, flops, seconds))
    architectures = {run.architecture.name: run.architecture for run in runs}
    by_weight = sorted(architectures.values(), key=by_cost)
    warnings = _warn_of_few(session.data.test, "test", "test_fraction")
    return CheckPlan(by_weight, planned, session.engine.n_workers, list(probes), warnings)
