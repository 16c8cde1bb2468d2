"""What a build or a check would do and how long it would take, before anything is trained."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from proxyds.arguments import as_path
from proxyds.artifact.ranking_table import ALL_LABELS, DATASETS, PROXY
from proxyds.artifact.reader import read_manifest
from proxyds.artifact.tables import read_proxy
from proxyds.data.readers import RawSource, RawSplit, open_splits, read_some
from proxyds.data.samples import Source
from proxyds.data.survey.folder import check_one_form, survey_folder
from proxyds.data.survey.proposal import MOST_OPENED, Look, look_at, propose_ratio, propose_source, tell_opened
from proxyds.errors import ArtifactError, NoPermissionError, SourceError, SourceNotFoundError
from proxyds.evaluation.runs import Run
from proxyds.layout import Readable, fill_in
from proxyds.pipeline.build import find_build_needs
from proxyds.pipeline.check import (
    choose_ranked,
    find_check_needs,
    find_reduction,
    list_check_runs,
    list_own_draws,
    prepare_probes_again,
    read_checked_recipe,
    read_own_soft_labels,
)
from proxyds.pipeline.reading import HandedOver, hand_over_to_build, hand_over_to_check
from proxyds.pipeline.stages import (
    Session,
    find_teacher,
    list_probe_jobs,
    list_space,
    open_build,
    open_session,
    prepare_probes,
    read_scores,
    reopen_session,
)
from proxyds.progress_bars import showing_progress
from proxyds.recipe.models import Recipe
from proxyds.recipe.presets import fill_folder_preset
from proxyds.recipe.sections.source import FolderSource
from proxyds.recipe.yaml import take_recipe
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.store import retry_if_damaged
from proxyds.runtime.task import Task
from proxyds.selection.probe import ProbeJob, choose_probes, warn_of_few, warn_of_small
from proxyds.selection.records import SampleScores
from proxyds.selection.soft_labels import are_stored, name_soft_labels
from proxyds.space.architecture import Architecture, by_cost
from proxyds.space.listing import list_architectures
from proxyds.text import duration, find_active_text, make_plain
from proxyds.training.job import Timing

if TYPE_CHECKING:
    from proxyds.space.candidates import Candidates

MOST_READ_BYTES = 200_000_000
"""Bytes of parquet files and tars that are read as a whole to count labels for a recipe, at most."""
TEXT = Path(__file__).with_name("plan.jinja")
"""What a plan says to people."""


@dataclass(frozen=True)
class Proposed:
    """A recipe that was written for a folder: its text; what was found, and what of it may not be meant so, for people."""

    text: str
    found: str
    warnings: list[str]


@dataclass(frozen=True)
class PlannedProbe:
    """A training of a probe that a build would do.

    Attributes:
        name: Name of the architecture, with the seed where it is not the first.
        architecture: The network.
        is_stored: Whether the store holds the training already.
        flops: FLOPs of the whole training, and of asking the probe on the way where a method needs that; None where a trainer trains.
        expected_seconds: Seconds of the training alone on this machine; 0 where it is stored; None where a trainer trains.
    """

    name: str
    architecture: Architecture
    is_stored: bool
    flops: int | None
    expected_seconds: float | None


@dataclass(frozen=True)
class PlannedRuns:
    """Trainings of a check on one kind of data set.

    Attributes:
        dataset: A key of `ranking_table.DATASETS`.
        ratio: See `runs.TrainingSet`.
        n_runs: Number of trainings.
        n_stored: Number of those that the store holds already, as far as that is known.
        flops: FLOPs of the others; None where a trainer trains.
        expected_seconds: Seconds of the others on this machine, one after the other; None where a trainer trains.
    """

    dataset: str
    ratio: float
    n_runs: int
    n_stored: int
    flops: int | None
    expected_seconds: float | None


@dataclass(frozen=True)
class CheckPlan(Readable):
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
    def expected_seconds(self) -> float | None:
        """Seconds of all trainings, side by side: an even share of the sum; None where a trainer trains."""
        seconds = _list_seconds([*self.probes, *self.runs])
        return None if seconds is None else sum(seconds) / self.n_workers

    def describe(self, width: int | None) -> str:
        """Writes what would be trained, and how long that takes; see `Readable.describe`."""
        return fill_in(TEXT, width, plan=self, source=None, check=self)

    def __repr__(self) -> str:
        n_runs, names = sum(each.n_runs for each in self.runs), len(self.architectures)
        return f"<CheckPlan: {n_runs:,} trainings of {names:,} architectures, expected {_tell(self.expected_seconds)}>"


@dataclass(frozen=True)
class BuildPlan(Readable):
    """What a build would do.

    Attributes:
        source: The data set, read and split.
        architectures: The space, from the lightest to the heaviest.
        probes: Cost of each probe.
        n_selected: Samples that the proxy would hold to train on.
        n_validation: Samples that it would hold to rank on, at most: where it keeps some labels only, they are fewer.
        n_workers: Trainings at once.
        check: What the check would do; None where the recipe has none.
        warnings: What build and check may fail to show, and why.
    """

    source: Source
    architectures: list[Architecture]
    probes: list[PlannedProbe]
    n_selected: int
    n_validation: int
    n_workers: int
    check: CheckPlan | None
    warnings: list[str] = field(default_factory=list)

    @property
    def expected_seconds(self) -> float | None:
        """Seconds of the build and then of its check; None as above."""
        of_check = self.check.expected_seconds if self.check else 0.0
        if self.expected_build_seconds is None or of_check is None:
            return None
        return self.expected_build_seconds + of_check

    @property
    def expected_build_seconds(self) -> float | None:
        """Seconds of the trainings of probes, side by side: the longest, or an even share of the sum. None as above."""
        seconds = _list_seconds(self.probes)
        return None if seconds is None else max(max(seconds), sum(seconds) / self.n_workers)

    def describe(self, width: int | None) -> str:
        """Writes what would be read, chosen and trained, and how long that takes; see `Readable.describe`."""
        return fill_in(TEXT, width, plan=self, source=self.source, check=self.check)

    def __repr__(self) -> str:
        of = f"{self.n_selected:,} of {len(self.source.train):,} samples, {len(self.architectures):,} architectures"
        return f"<BuildPlan: {of}, expected {_tell(self.expected_seconds)}>"


def _tell(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else duration(seconds)


def _list_seconds(work: Sequence[PlannedProbe | PlannedRuns]) -> list[float] | None:
    seconds = [each.expected_seconds for each in work if each.expected_seconds is not None]
    return seconds if len(seconds) == len(work) else None


@showing_progress
@retry_if_damaged
def plan_build(
    recipe: Recipe | str | Path,
    *,
    source: Any = None,
    space: Candidates | None = None,
    trainer: object | None = None,
    check: bool = True,
    **options: Unpack[Options],
) -> BuildPlan:
    """Says what `build` would do: decodes the source into the store and times a few steps, but trains nothing.

    Args:
        recipe: What to build, or the file that says so.
        source: What to build it from; see `build`.
        space: See `build.build`.
        trainer: See `build`; how long it takes nobody knows.
        check: Whether the recipe's check would follow.
        options: How the work is done, such as `workers`, `device`, `store` and `quiet`; see docs/python.md.

    Raises:
        ProxydsError: Whatever `build` would raise before it trains.
    """
    execution = Execution.take(options, plan_build)
    recipe = hand_over_to_build(take_recipe(recipe), HandedOver(source, space, trainer))
    with open_build(recipe, execution, source) as session:
        data, runs = session.data, None
        architectures = list_space(session)
        timing = Timing(session.set_up_training(), session.ask, session.on_progress)
        needs, (chosen, _) = find_build_needs(recipe), prepare_probes(session, architectures)
        probes = _plan_probes(session, timing, list_probe_jobs(session, chosen, needs))
        if check and recipe.check is not None:
            ranked = choose_ranked(session, recipe.check, architectures)
            scores = SampleScores(data.train.parsed_ids, data.train.labels)
            # no probe is trained yet, and no draw of the proxy is known
            own_draws = dict.fromkeys(
                [PROXY] if find_reduction(recipe, scores) is None else [PROXY, ALL_LABELS], lambda *_: None
            )
            teacher = find_teacher(session.for_check(recipe.check), architectures)
            soft_labels = None if teacher is None else name_soft_labels(teacher, session.store)
            listed = list_check_runs(session, recipe.check, ranked, scores, own_draws, soft_labels)
            runs = _plan_runs(session, timing, listed)
        n_selected = round(recipe.selection.ratio * len(data.train))
        is_paper, n_labels = recipe.importance.protocol == "paper", len(data.label_names)
        n_validation = 0 if is_paper else recipe.output.count_validation(len(data.evaluation))
        warnings = [*recipe.warnings, *data.warnings, *_warn_of_few(data, "evaluation")]
        if recipe.selection.labels is None:
            warnings += warn_of_small(n_selected, n_labels, "train on", "raise selection.ratio, or add images")
        more = data.facts.tell_how_to_have_more("evaluation")
        warnings += warn_of_small(len(data.evaluation), n_labels, "rank on", more)
        warnings += [*(runs.warnings if runs else []), *timing.warnings]
        n_workers = session.engine.n_workers
        return BuildPlan(data, architectures, probes, n_selected, n_validation, n_workers, runs, warnings)


@showing_progress
@retry_if_damaged
def plan_check(
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    source: Any = None,
    space: Candidates | None = None,
    trainer: object | None = None,
    **options: Unpack[Options],
) -> CheckPlan:
    """Says what `check` would do; see `plan_build` and `pipeline.check`."""
    execution, folder = Execution.take(options, plan_check), as_path(folder, "folder")
    recipe, settings, moved = read_checked_recipe(folder, overrides)
    given, manifest = HandedOver(moved if source is None else source, space, trainer), read_manifest(folder)
    settings = hand_over_to_check(recipe, settings, manifest, given, execution.store)
    with reopen_session(recipe, manifest, execution, given.source) as session:
        architectures = list_space(session)
        ranked = choose_ranked(session, settings, architectures)
        session = session.in_memory()
        manifest, tables = read_proxy(folder, with_ranking=False, images_of=())
        scores, needs = read_scores(session.data, manifest, tables), find_check_needs(recipe, settings)
        teacher = find_teacher(session.for_check(settings), architectures)
        timing = Timing(session.set_up_training(), session.ask, session.on_progress)
        probes: list[PlannedProbe] = []
        if not scores.has(needs):
            chosen, _ = prepare_probes_again(session, settings, architectures, needs)
            probes = _plan_probes(session, timing, list_probe_jobs(session, chosen, needs))
        elif teacher is not None and not are_stored(teacher, session.store):
            probes = _plan_probes(session, timing, [teacher])
        soft_labels = None if teacher is None else name_soft_labels(teacher, session.store)
        own_soft_labels = read_own_soft_labels(folder, manifest, session.store)
        own_draws = list_own_draws(recipe, scores, manifest, tables, own_soft_labels)
        runs = list_check_runs(session, settings, ranked, scores, own_draws, soft_labels)
        plan = _plan_runs(session, timing, runs, probes)
        return replace(plan, warnings=[*plan.warnings, *timing.warnings])


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
    with open_session(recipe, replace(Execution.take(options, survey_space), device="cpu")) as session:
        data = session.data
    architectures = list_architectures(recipe.space, len(data.label_names), data.image_shape, seed=recipe.seed)
    return architectures, choose_probes(architectures, recipe.probes), data


def propose_recipe(folder: str | Path, recipe: str | Path) -> Proposed:
    """Writes the text of a recipe for a folder of images, parquet files or tars, from what lies in it; reads some of the images.

    Args:
        folder: The folder; where it is relative, the recipe names it from its own place.
        recipe: Where the recipe is to be.

    Raises:
        SourceError: There is no such folder, or what lies in it can be read in several ways; says what to decide.
    """
    place = Path(os.path.expanduser(folder))  # noqa: PTH111 - nobody's home is no error here
    if os.path.isfile(place):  # noqa: PTH113
        raise SourceNotFoundError(
            "must be a folder with images, parquet files or tars, it is a file; name the folder that it lies in",
            place=place,
        )
    if not os.path.isdir(place):  # noqa: PTH112 - a name that is too long is none either
        raise SourceNotFoundError("must be a folder with images, parquet files or tars, there is none", place=place)
    full = place.resolve()
    if (trouble := find_active_text(str(full))) is not None:
        raise SourceError(f"must have a path of plain text for a recipe to name it, it holds {trouble}", place=place)
    spec = FolderSource(kind="folder", path=str(full), on_left_over="skip")
    try:
        check_one_form(survey_folder(full, spec))
        raw = open_splits(spec, True, 0)
    except SourceError as error:
        error.message += (
            "\nnothing was written: mend the folder, or decide it in the recipe of `proxyds init --preset folder`"
        )
        raise
    assert raw.survey is not None
    looks = {role: _look_into(raw, split) for role, split in raw.splits.items()}
    path = str(full) if place.is_absolute() else os.path.relpath(full, Path(recipe).absolute().parent)
    text = fill_folder_preset(
        f"A recipe for {make_plain(full.name)}, by what lies there. Read it, and change what you know better.",
        Path(recipe).name,
        re.sub(r"[^a-z0-9._-]+", "-", full.name.lower()).strip("-._")[:80] or "my",
        propose_source(path, raw.survey, looks),
        propose_ratio(looks),
    )
    found = raw.survey.describe() + tell_opened(looks, Path(recipe))
    return Proposed(text, found, [*_tell_proxy(full, place), *raw.survey.warnings])


def _tell_proxy(folder: Path, place: Path) -> list[str]:
    """Says that a folder is a proxy, if it is."""
    try:
        manifest = read_manifest(folder)
    except (ArtifactError, NoPermissionError):
        return []
    return [
        f"{place} is itself a proxy, {manifest.name} {manifest.version}: this recipe would choose among its samples alone. What it was made "
        f"from is in {place / 'recipe.yaml'}"
    ]


def _look_into(raw: RawSource, split: RawSplit) -> Look:
    """Looks at some of a split's images, and counts its labels where that costs little."""
    labels = raw.survey.splits[split.name].labels if raw.survey and raw.survey.form == "images" else ()
    is_sampled = bool(labels) or raw.n_bytes > MOST_READ_BYTES
    look = look_at(read_some(split, MOST_OPENED if is_sampled else None))
    if is_sampled:  # the labels of some tell nothing of the fewest
        look.labels = Counter(labels)
    return look


def _warn_of_few(data: Source, use: Literal["evaluation", "test"]) -> list[str]:
    samples = data.evaluation if use == "evaluation" else data.test
    warning = warn_of_few(samples.labels, use, data.facts.tell_how_to_have_more(use))
    return [warning] if warning else []


def _is_stored(session: Session, task: Task | None) -> bool:
    return task is not None and session.store.find(task.stage, task.key) is not None


def _plan_probes(session: Session, timing: Timing, listed: Sequence[ProbeJob]) -> list[PlannedProbe]:
    jobs = [(job, _is_stored(session, job.task)) for job in listed]
    is_known = session.recipe.training.trainer is None
    timing.time([(job.architecture, job.settings) for job, is_stored in jobs if is_known and not is_stored])
    planned = []
    for job, is_stored in jobs:
        seconds = 0.0 if is_stored else None
        if job.flops is not None and not is_stored:
            seconds = timing.expect(job.architecture, job.settings, job.flops)
        planned.append(PlannedProbe(job.name.removeprefix("probe "), job.architecture, is_stored, job.flops, seconds))
    return planned


def _plan_runs(session: Session, timing: Timing, runs: Sequence[Run], probes: Sequence[PlannedProbe] = ()) -> CheckPlan:
    is_known = all(run.training_set.n_steps is not None for run in runs)
    timing.time((run.architecture, run.training_set.settings) for run in runs if is_known)

    def find_kind(run: Run) -> tuple[int, float]:
        return DATASETS.index(run.training_set.dataset), run.training_set.ratio

    planned = []
    for (dataset, ratio), group in groupby(sorted(runs, key=find_kind), find_kind):
        of_kind = list(group)
        missing = [run for run in of_kind if not _is_stored(session, run.task)]
        flops = seconds = None
        if is_known:
            flops = sum(run.flops for run in missing)
            seconds = sum(timing.expect(run.architecture, run.training_set.settings, run.flops) for run in missing)
        n_stored = len(of_kind) - len(missing)
        planned.append(PlannedRuns(DATASETS[dataset], ratio, len(of_kind), n_stored, flops, seconds))
    architectures = {run.architecture.name: run.architecture for run in runs}
    by_weight = sorted(architectures.values(), key=by_cost)
    warnings = _warn_of_few(session.data, "test")
    return CheckPlan(by_weight, planned, session.engine.n_workers, list(probes), warnings)
