"""Checks a proxy: makes the runs, weighs them, and writes the evidence into the proxy.

recipe -> space -> training sets -> runs -> ranking table -> evidence -> card
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pyarrow as pa

from proxyds.arguments import as_path
from proxyds.artifact.card.render import render_card
from proxyds.artifact.manifest import EVIDENCE_FILES, RECIPE, RUNS_FILE, Manifest, version_with_evidence
from proxyds.artifact.ranking_table import (
    ALL_LABELS,
    PROXY,
    RANDOM,
    RANDOM_LABELS,
    STRATIFIED,
    TRAINED_HERE,
    make_runs_table,
)
from proxyds.artifact.reader import Built, read_manifest, verify_for_check
from proxyds.artifact.summary import Tables, summarize_tables
from proxyds.artifact.tables import read_proxy, read_soft_labels, read_weights
from proxyds.artifact.writer import encode_runs, rewrite_manifest
from proxyds.callables import is_handed_over
from proxyds.data.samples import SoftLabels, Source
from proxyds.errors import (
    ArtifactError,
    CallableError,
    EvidenceError,
    OutputExistsError,
    RecipeError,
    translate_os_errors,
)
from proxyds.evaluation.evidence import Provenance, weigh_evidence
from proxyds.evaluation.external import doubt_losses, find_reference, keep_listed, read_reference, read_runs
from proxyds.evaluation.intervals import MIN_ARCHITECTURES
from proxyds.evaluation.runs import (
    STAGE,
    DrawAgain,
    Run,
    all_ratios,
    list_runs,
    list_training_sets,
    sample_architectures,
    show_together,
    tabulate_runs,
)
from proxyds.pipeline.audit import refuse_without_tables
from proxyds.pipeline.reading import HandedOver, hand_over_to_check
from proxyds.pipeline.stages import (
    Session,
    ask_soft_labels,
    describe_machine,
    join_needs,
    list_probe_jobs,
    list_space,
    prepare_probes,
    read_moved_recipe,
    read_scores,
    reopen_session,
    score_samples,
    train_probes,
)
from proxyds.progress import StageEnded
from proxyds.progress_bars import showing_progress
from proxyds.recipe.methods import METHODS, Need
from proxyds.recipe.models import MIN_RANKED, Check, Recipe, Reference
from proxyds.recipe.sections.selection import LabelReduction
from proxyds.recipe.yaml import write_recipe
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.machine import choose_device
from proxyds.runtime.storage.atomic import replace_file
from proxyds.runtime.storage.store import Store, retry_if_damaged
from proxyds.runtime.task import run_each
from proxyds.seeding import derive_seed
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import check_ratio, design_by, draw_again, draw_control
from proxyds.selection.labels import count_kept, draw_random_labels, keeps_all
from proxyds.selection.records import Drawn, SampleScores
from proxyds.selection.soft_labels import store_soft_labels
from proxyds.space.architecture import Architecture
from proxyds.space.candidates import hand_over_again
from proxyds.space.listing import list_architectures
from proxyds.text import make_plain
from proxyds.training.job import list_trials
from proxyds.training.trainer import show_code, show_name

if TYPE_CHECKING:
    from proxyds.space.candidates import Candidates


@showing_progress
@retry_if_damaged
def check(
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path | None = None,
    source: Any = None,
    space: Candidates | None = None,
    trainer: object | None = None,
    **options: Unpack[Options],
) -> Built:
    """Measures how well a proxy ranks architectures, and writes the evidence into it.

    Every architecture is trained on everything, on the proxy and on its controls, as its own recipe says; finished runs
    are kept in the store, so that a check that was stopped goes on where it was.

    Args:
        folder: The proxy.
        overrides: `check.a=b` assignments to its recipe.
        runs: A CSV file of runs made elsewhere, so that nothing is trained here.
        source: Where the source lies, a folder or a recipe that says so, or the same data in memory; None for where this machine last
            read it.
        space: See `build.build`.
        trainer: Trains the architectures, see `build`; the evidence is of it. It may be another than the one of the build.
        options: How the work is done, such as `workers`, `device`, `store` and `quiet`; see docs/python.md.

    Raises:
        ProxydsError: Anything that the user can mend; each class says what.
    """
    execution, folder = Execution.take(options, check), as_path(folder, "folder").resolve()
    recipe, settings, moved = read_checked_recipe(folder, overrides)
    if runs is not None:
        asked = any(each.partition("=")[0].strip().startswith("check.reference") for each in overrides)
        useless = {
            "trainer": trainer,
            "source": moved if source is None else source,
            "check.reference (--reference)": settings.reference if asked else None,
        }
        if named := [name for name, value in useless.items() if value is not None]:
            raise RecipeError(
                f"{', '.join(named)}: must be left out with runs that were made elsewhere; nothing is trained, and they hold accuracies on "
                "everything"
            )
        hand_over_again(recipe.space, space)
        return Built(folder, check_known_runs(folder, recipe, settings, as_path(runs, "runs"), execution))
    given, manifest = HandedOver(moved if source is None else source, space, trainer), read_manifest(folder)
    settings = hand_over_to_check(recipe, settings, manifest, given, execution.store)
    with reopen_session(recipe, manifest, execution, given.source) as session:
        architectures = list_space(session)
        ranked = choose_ranked(session, settings, architectures)
        return Built(folder, check_ranking(session, folder, settings, architectures, ranked))


def read_checked_recipe(folder: Path, overrides: Sequence[str]) -> tuple[Recipe, Check, str | None]:
    """Reads a proxy's own recipe, how the proxy is to be checked, and the `source.path` of the overrides.

    Raises:
        ArtifactError: The folder is no proxy, or one that was made from an index.
        VerificationError: A file besides those that a check writes is damaged.
        RecipeError: An override changes what the proxy was made from.
    """
    manifest = verify_for_check(folder)
    refuse_without_tables(manifest, folder, "checked")
    recipe, moved = read_moved_recipe(folder, overrides)
    if recipe.sha256 != manifest.recipe_sha256:
        raise RecipeError(
            f"must be the recipe that the proxy was built from, but for the section check; "
            f"found another ({recipe.sha256[:16]} instead of {manifest.recipe_sha256[:16]}): set check.* alone, or build again",
            place=folder / RECIPE,
        )
    return recipe, recipe.check or Check(), moved


def choose_ranked(session: Session, settings: Check, architectures: Sequence[Architecture]) -> list[Architecture]:
    """Chooses the architectures of a space that a check ranks; refuses, before anything is trained, what the check could not do.

    Where only some of the space are ranked and a table is the reference, they are of its rows.

    Raises:
        EvidenceError: The space holds too few architectures.
        StarvedLabelError: A ratio leaves some label less than one sample.
        AccuracyTableError: The reference cannot be used.
    """
    recipe, data = session.recipe, session.data
    for ratio in settings.ratios:
        check_ratio(data.label_counts, data.label_names, ratio, recipe.selection.labels, field="check.ratios")
    if len(architectures) < MIN_RANKED:
        raise EvidenceError(
            f"check: must have at least {MIN_RANKED} architectures to speak of a ranking, the space holds {len(architectures)}; "
            "build a proxy for a larger space"
        )
    if settings.reference is not None and len(architectures) > settings.architectures:
        architectures = keep_listed(architectures, settings.reference)
    ranked = sample_architectures(architectures, settings.architectures, recipe.seed)
    recipe = session.for_check(settings).recipe
    read_reference(recipe, settings, _read_as(session, settings.reference), ranked)
    if len(ranked) < MIN_ARCHITECTURES:
        remedy = "raise check.architectures" if settings.architectures < MIN_ARCHITECTURES else "make the space larger"
        few = f"{len(ranked)} architectures are ranked; intervals of the evidence and chances of `rank` take {MIN_ARCHITECTURES} at least: {remedy}"
        session.on_progress(StageEnded("space", warning=few))
    return ranked


def _read_as(session: Session, reference: Reference | None) -> Source:
    """Reads the source by the rule that a reference proxy's ids follow, if by that rule the very same images are split from each other."""
    path = None if reference is None else find_reference(reference)
    if path is None or not path.is_dir():
        return session.data
    data = session.read_source(read_manifest(path).source.id_rule)
    splits = [
        [np.sort(samples.load().source_index) for samples in (each.train, each.test)] for each in (data, session.data)
    ]
    return data if all(map(np.array_equal, *splits)) else session.data


def find_check_needs(recipe: Recipe, settings: Check) -> frozenset[Need]:
    """Finds what a check's controls are drawn by; also what the proxy is, where its table is not enough to draw it again."""
    own = recipe.selection.method
    is_drawn_again = settings.draws > 1 or len(all_ratios(settings, recipe.selection.ratio)) > 1
    return join_needs(*settings.controls, *([own] if is_drawn_again and not METHODS[own].is_weighting else []))


def prepare_probes_again(
    session: Session, settings: Check, architectures: Sequence[Architecture], needs: frozenset[Need]
) -> tuple[list[Architecture], str]:
    """Chooses the probes that a check must ask anew, see `stages.prepare_probes`.

    Raises:
        CallableError: They must be trained for it by the trainer of the build, and this program passes another.
    """
    recipe, (chosen, layer) = session.recipe, prepare_probes(session, architectures)
    own = recipe.training.trainer
    if own is None or is_handed_over(own.sha256):
        return chosen, layer
    tasks = [job.task for job in list_probe_jobs(session, chosen, needs)]
    if all(session.store.find(task.stage, task.key) is not None for task in tasks):
        return chosen, layer
    asking = ", ".join(name for name in settings.controls if not METHODS[name].needs <= {"cases"})
    causes = [f"{asking} among check.controls"] if asking else []
    if not find_check_needs(recipe, settings.model_copy(update={"controls": ()})) <= {"cases"}:
        causes.append(f"the method {recipe.selection.method} is drawn again, by check.draws above 1 or by check.ratios")
    raise CallableError(
        f"check: must ask the proxy's probes again, which only their trainer {show_code(own)} may train. The cause: {'; '.join(causes)}. "
        f"Leave that out, or pass that trainer: proxyds.check(folder, trainer={show_name(own)})"
    )


def list_check_runs(
    session: Session,
    settings: Check,
    ranked: Sequence[Architecture],
    scores: SampleScores,
    own_draws: Mapping[str, DrawAgain],
    soft_labels: SoftLabels | None = None,
) -> list[Run]:
    """Lists every training of a check.

    Args:
        session: The proxy's recipe at work.
        settings: How the proxy is checked.
        ranked: The architectures of `choose_ranked`.
        scores: Scores of the training samples; controls that need more are listed without samples.
        own_draws: The draws of `list_own_draws`; they may not know their samples yet.
        soft_labels: Of all training samples, where networks learn them; None where they are not known yet.
    """
    session = session.for_check(settings)
    recipe, data = session.recipe, session.data
    draws = {**own_draws, **_list_controls(recipe, settings, scores, own_draws[PROXY])}
    sets = list_training_sets(data.train.load(), draws, settings, recipe.selection.ratio, recipe.training, soft_labels)
    evaluation = None if recipe.importance.protocol == "paper" else data.evaluation  # else the test samples themselves
    return list_runs(ranked, sets, data.test, session.set_up_training(), evaluation)


def find_reduction(recipe: Recipe, scores: SampleScores) -> LabelReduction | None:
    """Finds the recipe's label reduction, unless the proxy keeps every label all the same."""
    reduction, ratio = recipe.selection.labels, recipe.selection.ratio
    return None if reduction is None or keeps_all(reduction, scores.label_counts, ratio) else reduction


def read_own_soft_labels(folder: Path, manifest: Manifest, store: Store) -> SoftLabels | None:
    """Reads the soft labels that a proxy has of its own samples, from which its own draw is trained; None where it has none."""
    return store_soft_labels(read_soft_labels(folder, manifest), store) if manifest.has_soft_labels else None


def list_own_draws(
    recipe: Recipe,
    scores: SampleScores,
    manifest: Manifest,
    tables: Tables,
    soft_labels: SoftLabels | None = None,
) -> dict[str, DrawAgain]:
    """Lists how the proxy is drawn again at any ratio; and, where it drops labels, as it would be with all of them.

    A method that weighs draws by the weights of the importance table, another by the scores, where these are enough. The first
    draw at the proxy's own ratio is the proxy, with its own soft labels.
    """
    table = tables.importance
    method, selected = METHODS[recipe.selection.method], np.array(table["selected"].to_pylist())
    kept = None if manifest.kept_labels is None else np.array(manifest.kept_labels)
    reduction = find_reduction(recipe, scores)
    rule = design_by(read_weights(table)) if method.is_weighting else DESIGNS[recipe.selection.method]

    def draw(labels: LabelReduction | None, ratio: float, number: int) -> Drawn:
        changed = recipe.selection.model_copy(update={"ratio": ratio, "labels": labels})
        return draw_again(scores, rule, changed, recipe.draw_seed, number)

    @cache  # the controls want the labels of the same draw
    def draw_proxy(ratio: float, number: int) -> Drawn | None:
        if number == 0 and ratio == recipe.selection.ratio:
            return Drawn(selected, kept, soft_labels)
        if not method.is_weighting and not scores.has(method.needs):
            return None
        return draw(reduction, ratio, number)

    return {PROXY: draw_proxy} if reduction is None else {PROXY: draw_proxy, ALL_LABELS: partial(draw, None)}


def _list_controls(
    recipe: Recipe, settings: Check, scores: SampleScores, draw_proxy: DrawAgain
) -> dict[str, DrawAgain]:
    """Lists how each control is drawn: of the labels that the same draw of the proxy keeps; and of as many others at random."""
    reduction = find_reduction(recipe, scores)

    def draw_method(name: str, ratio: float, number: int) -> Drawn | None:
        n, seed = round(ratio * len(scores.ids)), derive_seed(recipe.seed, name, number)
        of_proxy = None if reduction is None else draw_proxy(ratio, number)
        if not scores.has(METHODS[name].needs) or (reduction is not None and of_proxy is None):
            return None
        kept = None if of_proxy is None else of_proxy.kept_labels
        return draw_control(DESIGNS[name], scores, n, law=recipe.selection.draw, seed=seed, kept=kept)

    names = dict.fromkeys((RANDOM, STRATIFIED, *settings.controls))
    controls: dict[str, DrawAgain] = {name: partial(draw_method, name) for name in names}
    if reduction is None:
        return controls

    def draw_others(ratio: float, number: int) -> Drawn:
        n_kept = count_kept(reduction, scores.label_counts, ratio)
        seed = derive_seed(recipe.seed, RANDOM_LABELS, number)
        return draw_random_labels(scores, round(ratio * len(scores.ids)), n_kept, seed)

    return {**controls, RANDOM_LABELS: draw_others}


def check_ranking(
    session: Session,
    folder: Path,
    settings: Check,
    architectures: Sequence[Architecture],
    ranked: Sequence[Architecture],
) -> Manifest:
    """Trains what is not trained yet, weighs the evidence and writes it into the proxy; see `list_check_runs`.

    Returns:
        The proxy's new manifest.

    Raises:
        EvidenceError: The runs cannot support the statistics.
        AccuracyTableError: The reference cannot be used.
        ChangedSourceError: The source is not the one that the proxy was made from.
        OutputExistsError: Another command has written to the proxy meanwhile.
    """
    started = time.perf_counter()
    session, recipe = session.in_memory(), session.recipe
    manifest, tables = read_proxy(folder, with_ranking=False, images_of=())
    scores, needs = read_scores(session.data, manifest, tables), find_check_needs(recipe, settings)
    setup, smallest = session.for_check(settings).set_up_training(), all_ratios(settings, recipe.selection.ratio)[0]
    asked = None if scores.has(needs) else prepare_probes_again(session, settings, architectures, needs)
    session.run(list_trials(setup, ranked[0], session.data.train, smallest))
    if asked is not None:
        scored = score_samples(session, train_probes(session, asked[0], needs), needs, asked[1])
        scores = replace(scored.scores, importance=scores.importance)  # of the proxy's own probes
    soft_labels = ask_soft_labels(session, architectures) if setup.settings.soft_labels else None
    own_draws = list_own_draws(recipe, scores, manifest, tables, read_own_soft_labels(folder, manifest, session.store))
    runs = list_check_runs(session, settings, ranked, scores, own_draws, soft_labels)
    data, session = _read_as(session, settings.reference), session.for_check(settings)
    reference, reference_rows = read_reference(session.recipe, settings, data, ranked)
    tasks = [run.task for run in runs if run.task is not None]
    watch = partial(show_together, runs=runs, on_progress=session.on_progress)
    try:
        results, failures = run_each(tasks, session.store, session.engine, watch)
    except KeyboardInterrupt as stop:
        stop.add_note(f"The proxy at {folder} is whole, but this check is not finished.")
        raise
    rows = [*reference_rows, *tabulate_runs(runs, results).to_pylist()]
    failed = f"{len(failures)} of {len(tasks)} runs failed, the first: {failures[0].error}" if failures else ""
    session.on_progress(StageEnded(STAGE, warning=failed))
    provenance = Provenance(
        planned=[each.name for each in ranked],
        runs=TRAINED_HERE,
        reference=reference,
        failures=[make_plain(f"{failure.task.name}: {failure.error}")[:1000] for failure in failures],
        elapsed_seconds=time.perf_counter() - started,
        machine=session.describe_machine(ranked),
    )
    return _write_evidence(folder, recipe, settings, manifest, make_runs_table(rows), provenance)


def check_known_runs(folder: Path, recipe: Recipe, settings: Check, path: Path, execution: Execution) -> Manifest:
    """Weighs runs that were made elsewhere, a CSV file, and writes the evidence into the proxy; see `check_ranking`."""
    manifest = read_manifest(folder)
    if manifest.image_shape is None:
        raise ArtifactError("must say its images' shape, which format 1.0 did not; build it again", place=folder)
    architectures = list_architectures(recipe.space, len(manifest.label_names), manifest.image_shape, seed=recipe.seed)

    def warn(message: str) -> None:
        execution.on_progress(StageEnded("runs", warning=message))

    runs = read_runs(path, architectures, recipe.selection.ratio, warn)
    if doubt := doubt_losses(runs, len(manifest.label_names), has_soft_labels=manifest.has_soft_labels):
        warn(doubt)
    settings = settings.model_copy(update={"reference": None, "full_training": None, "trainer": None})
    origin = f"table {make_plain(path.name)}"
    provenance = Provenance([], origin, origin, [], 0.0, describe_machine(choose_device(execution.device)))
    return _write_evidence(folder, recipe, settings, manifest, runs, provenance)


def _write_evidence(
    folder: Path, recipe: Recipe, settings: Check, manifest: Manifest, runs: pa.Table, provenance: Provenance
) -> Manifest:
    """Weighs the runs, the table `ranking`, and writes evidence, card and recipe into the proxy, the manifest last."""
    evidence = weigh_evidence(runs, settings, provenance, manifest)
    checked = manifest.model_copy(update={"evidence": evidence, "format_version": version_with_evidence(manifest)})
    lasting = settings.model_copy(update={"reference": None})  # a file that does not travel with the proxy
    recipe = recipe.model_copy(update={"check": lasting})
    # The images are large and trainings long: they are read now, not before.
    _, tables = read_proxy(folder, with_ranking=False, images_of=("data",))
    files = render_card(checked, summarize_tables(replace(tables, ranking=runs)))
    files |= {RECIPE: write_recipe(recipe).encode(), RUNS_FILE: encode_runs(runs)}
    if read_manifest(folder) != manifest:
        raise OutputExistsError(
            "must stay as it is while it is checked, another command has written to it; finished runs are kept: "
            "check again",
            place=folder,
        )
    with translate_os_errors(folder, "copy the proxy to another place"):
        for name, content in files.items():
            replace_file(folder / name, content)
        pictures = {name for name in manifest.files if name.startswith("assets/")}
        gone = {*EVIDENCE_FILES, *pictures} - set(files)  # of an earlier check or card
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        return rewrite_manifest(folder, checked, written=files, gone=gone)
