"""What a build or a check would do and how long it would take, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from proxyds.artifact.ranking_table import ALL_LABELS, DATASETS, PROXY
from proxyds.artifact.tables import read_proxy
from proxyds.data import source
from proxyds.data.samples import Source
from proxyds.evaluation import runs as verification
from proxyds.pipeline import check as checking
from proxyds.pipeline import probes as probing
from proxyds.pipeline.build import find_needs, list_space
from proxyds.recipe.methods import Need
from proxyds.recipe.models import Recipe
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.store import Store, again_if_damaged
from proxyds.runtime.task import Engine, run_stored
from proxyds.selection import probe
from proxyds.selection.records import Drawn, SampleScores
from proxyds.space import listing as space
from proxyds.space.architecture import Architecture


@dataclass(frozen=True)
class PlannedProbe:
    """A training of a probe that a build would do.

    Attributes:
        name: The architecture's, with the seed where it is not the first.
        architecture: Which network.
        is_stored: Whether the store holds it already.
        flops: Of the whole training, and of asking it on the way where a method needs that.
        expected_seconds: Of the training alone on this machine; 0 where it is stored.
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
        n_runs: How many.
        n_stored: How many of them the store holds already, as far as that is known.
        flops: Of those that it does not.
        expected_seconds: Of these on this machine, one after the other.
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
        architectures: That would be ranked, from the lightest to the heaviest.
        runs: What each data set would cost.
        n_workers: Trainings at once.
        probes: That it trains anew, because its controls, or other draws of the proxy, need them and the proxy's tables are not enough.
    """

    architectures: list[Architecture]
    runs: list[PlannedRuns]
    n_workers: int
    probes: list[PlannedProbe] = field(default_factory=list)

    @property
    def expected_seconds(self) -> float:
        """Of all trainings, side by side: an even share of the sum."""
        work = [*(each.expected_seconds for each in self.probes), *(each.expected_seconds for each in self.runs)]
        return sum(work) / self.n_workers


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do.

    Attributes:
        source: The data set, read and split.
        architectures: The space, from the lightest to the heaviest.
        probes: What each would cost.
        n_selected: Samples that the proxy would hold.
        n_workers: Trainings at once.
        check: What its check would do; None where the recipe has none.
    """

    source: Source
    architectures: list[Architecture]
    probes: list[PlannedProbe]
    n_selected: int
    n_workers: int
    check: CheckPlan | None

    @property
    def expected_seconds(self) -> float:
        """Of all trainings, side by side: the longest probe, or an even share of the sum; then the check."""
        seconds = [each.expected_seconds for each in self.probes]
        probes = max(max(seconds), sum(seconds) / self.n_workers)
        return probes + (self.check.expected_seconds if self.check else 0.0)


@again_if_damaged
def plan_build(
    recipe: Recipe | str | Path,
    **options: Unpack[Options],
) -> BuildPlan:
    """Says what `build` would do: decodes the source into the store and times a few steps, but trains nothing.

    Raises:
        ProxydsError: Whatever `build` would raise before it trains.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    execution = Execution(**options)
    device, engine = execution.choose_engine()
    with engine:
        run = partial(run_stored, store=execution.store, engine=engine, on_progress=execution.on_progress)
        data = source.load_source(recipe, run, execution.streamed)
        architectures = list_space(recipe, data)
        planned = _plan_probes(recipe, data, architectures, find_needs(recipe), execution.store, device, engine)
        n_workers = engine.n_workers
        n_selected = round(recipe.selection.ratio * len(data.train))
        check = None
        if recipe.check is not None:
            ranked = checking.choose_ranked(recipe, recipe.check, data, architectures)
            scores = SampleScores(data.train.parsed_ids, data.train.labels)
            is_reduced = checking.reduction_in_force(recipe, scores) is not None
            own_draws = dict.fromkeys([PROXY, ALL_LABELS] if is_reduced else [PROXY], _not_known)
            runs = checking.list_check_runs(recipe, recipe.check, data, ranked, scores, own_draws, device, engine)
            check = _plan_runs(runs, execution.store, device, engine)
    return BuildPlan(data, architectures, planned, n_selected, n_workers, check)


@dataclass(frozen=True)
class SearchSpace:
    """A recipe's search space, measured.

    Attributes:
        network: The family.
        architectures: From the lightest to the heaviest.
        probes: Those that a build trains, from the lightest to the heaviest.
        n_listed: Architectures before bounds and sample.
    """

    network: str
    architectures: list[Architecture]
    probes: list[Architecture]
    n_listed: int


@again_if_damaged
def survey_space(
    recipe: Recipe | str | Path,
    **options: Unpack[Options],
) -> SearchSpace:
    """Lists what a recipe searches, with what each architecture costs; reads the source, but trains nothing.

    Raises:
        ProxydsError: Whatever `build` would raise about source and space.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    execution = replace(Execution(**options), device="cpu")
    _, engine = execution.choose_engine()
    with engine:
        run = partial(run_stored, store=execution.store, engine=engine, on_progress=execution.on_progress)
        data = source.load_source(recipe, run, execution.streamed)
    architectures = space.list_architectures(recipe.space, len(data.label_names), data.image_shape, seed=recipe.seed)
    probes = probe.choose_probes(architectures, recipe.probes)
    return SearchSpace(recipe.space.network, architectures, probes, recipe.space.n_listed)


@again_if_damaged
def plan_check(
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    **options: Unpack[Options],
) -> CheckPlan:
    """Says what `check` would do; see `plan_build` and `pipeline.check`."""
    folder, execution = Path(folder), Execution(**options)
    recipe, settings = checking.read_checked_recipe(folder, overrides)
    device, engine = execution.choose_engine()
    with engine:
        run = partial(run_stored, store=execution.store, engine=engine, on_progress=execution.on_progress)
        data = source.load_source(recipe, run, execution.streamed)
        architectures = list_space(recipe, data)
        ranked = checking.choose_ranked(recipe, settings, data, architectures)
        manifest, tables = read_proxy(folder, with_ranking=False)
        known, probes = checking.know_from_table(data, manifest, tables), []
        if not known.has(needs := checking.find_needs(recipe, settings)):
            probes = _plan_probes(recipe, data, architectures, needs, execution.store, device, engine)
        own_draws = checking.redraw(recipe, known, manifest, tables)
        runs = checking.list_check_runs(recipe, settings, data, ranked, known, own_draws, device, engine)
        return replace(_plan_runs(runs, execution.store, device, engine), probes=probes)


def _plan_probes(
    recipe: Recipe,
    data: Source,
    architectures: Sequence[Architecture],
    needs: frozenset[Need],
    store: Store,
    device: str,
    engine: Engine,
) -> list[PlannedProbe]:
    chosen, _ = probing.prepare_probes(recipe, data, architectures)
    jobs = probing.list_probe_jobs(recipe, data, chosen, needs, device, engine)
    planned = []
    expected: dict[str, float] = {}
    for job in jobs:
        architecture, task = job.architecture, job.task
        is_stored = store.find(task.stage, task.key) is not None
        if not is_stored and architecture.name not in expected:
            expected[architecture.name] = engine.ask(device, probe.expect_seconds, job)
        seconds = 0.0 if is_stored else expected[architecture.name]
        flops = job.training_flops + job.asking_flops
        planned.append(PlannedProbe(job.name.removeprefix("probe "), architecture, is_stored, flops, seconds))
    return planned


def _not_known(ratio: float, draw: int) -> Drawn | None:  # noqa: ARG001
    """The draws of a proxy whose probes are not trained yet."""
    return None


def _plan_runs(runs: Sequence[verification.Run], store: Store, device: str, engine: Engine) -> CheckPlan:
    first = {run.architecture.name: run for run in reversed(runs) if run.job is not None}
    seconds_per_image = engine.ask(device, verification.expect_seconds, list(first.values()))
    planned: dict[tuple[str, float], PlannedRuns] = {}
    for run in runs:
        key = run.training_set.dataset, run.training_set.ratio
        before = planned.get(key, PlannedRuns(*key, 0, 0, 0, 0.0))
        is_stored = run.task is not None and store.find(run.task.stage, run.task.key) is not None
        seconds = seconds_per_image[run.architecture.name] * run.flops / run.architecture.training_flops
        planned[key] = PlannedRuns(
            *key,
            before.n_runs + 1,
            before.n_stored + is_stored,
            before.flops + (0 if is_stored else run.flops),
            before.expected_seconds + (0.0 if is_stored else seconds),
        )
    architectures = {run.architecture.name: run.architecture for run in runs}
    by_cost = sorted(architectures.values(), key=lambda a: (a.training_flops, a.n_parameters, a.name))
    order = sorted(planned.values(), key=lambda each: (list(DATASETS).index(each.dataset), each.ratio))
    return CheckPlan(by_cost, order, engine.n_workers)
