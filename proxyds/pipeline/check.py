"""The check's table of contents: the runs in order, then the evidence, written into the proxy.

recipe -> space -> training sets -> runs -> ranking table -> evidence -> card
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from proxyds.artifact import writer as artifact
from proxyds.artifact.card import render_card
from proxyds.artifact.manifest import CARD, EVIDENCE_FILES, FORMAT_VERSION, RECIPE, Manifest
from proxyds.artifact.ranking_table import (
    ALL_LABELS,
    PROXY,
    RANDOM,
    RANDOM_LABELS,
    STRATIFIED,
    TRAINED_HERE,
    make_runs_table,
)
from proxyds.artifact.reader import read_manifest, verify_proxy
from proxyds.artifact.summary import Tables, summarize_tables
from proxyds.artifact.tables import read_proxy, read_weights
from proxyds.data import source
from proxyds.data.chunked import count
from proxyds.data.samples import Source
from proxyds.errors import (
    ArtifactError,
    EvidenceError,
    OutputExistsError,
    RecipeError,
    translate_os_errors,
)
from proxyds.evaluation import evidence
from proxyds.evaluation import runs as verification
from proxyds.evaluation.external import keep_listed, read_reference, read_runs
from proxyds.pipeline import probes as probing
from proxyds.pipeline.provenance import Ledger, describe_machine
from proxyds.progress import OnProgress, Progress
from proxyds.recipe.methods import METHODS, Need
from proxyds.recipe.models import MIN_RANKED, Check, LabelReduction, Recipe
from proxyds.recipe.yaml import read_recipe, write_recipe
from proxyds.runtime.storage.atomic import replace_file, sweep_half_files
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Engine, run_each, run_stored
from proxyds.seeding import derive_seed
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import check_ratio, design_by, draw_again, draw_control
from proxyds.selection.labels import count_kept, draw_random_labels, keeps_all
from proxyds.selection.records import Drawn, SampleScores
from proxyds.space import listing as space
from proxyds.space.architecture import Architecture
from proxyds.text import make_plain


def verify_for_check(folder: Path) -> Manifest:
    """Verifies all of a proxy but what a check writes, which a stopped one may have left half-way, and sweeps its remains.

    Raises:
        ArtifactError: It is no proxy.
        VerificationError: Another file is damaged.
    """
    manifest = read_manifest(folder)
    with translate_os_errors(folder, "copy the proxy to another place"):
        sweep_half_files(folder)
    of_card = {name for name in manifest.files if name.startswith("assets/")}
    return verify_proxy(folder, but_for={CARD, RECIPE, *EVIDENCE_FILES, *of_card})


def read_checked_recipe(folder: Path, overrides: Sequence[str]) -> tuple[Recipe, Check]:
    """Reads a proxy's own recipe and how it is to be checked.

    Raises:
        ArtifactError: It is no proxy.
        VerificationError: A file besides those that a check writes is damaged.
        RecipeError: An override changes what the proxy was made from.
    """
    manifest = verify_for_check(folder)
    recipe = read_recipe(folder / RECIPE, overrides)
    if recipe.sha256 != manifest.recipe_sha256:
        raise RecipeError(
            f"must be the recipe that the proxy was built from, but for the section check; "
            f"found another ({recipe.sha256[:16]} instead of {manifest.recipe_sha256[:16]}): set check.* alone, or build again",
            place=folder / RECIPE,
        )
    return recipe, recipe.check or Check()


def choose_ranked(recipe: Recipe, settings: Check, data: Source, every: Sequence[Architecture]) -> list[Architecture]:
    """Chooses the architectures that a check ranks; refuses, before anything is trained, what it could not do.

    Where only some of the space are ranked and a table is the reference, they are of its rows.

    Args:
        recipe: The proxy's.
        settings: How it is checked.
        data: Its source.
        every: The whole space, from the lightest to the heaviest.

    Raises:
        EvidenceError: The space holds too few architectures.
        StarvedLabelError: A ratio leaves some label less than one sample.
        AccuracyTableError: The reference cannot be used.
    """
    counts = count(data.train.labels)
    for ratio in settings.ratios:
        check_ratio(counts, data.label_names, ratio, recipe.selection.labels, field="check.ratios")
    if len(every) < MIN_RANKED:
        raise EvidenceError(
            f"check: must have at least {MIN_RANKED} architectures to speak of a ranking, the space holds {len(every)}; build a "
            "proxy for a space with more choices"
        )
    if settings.reference is not None and len(every) > settings.architectures:
        every = keep_listed(every, settings.reference)
    ranked = verification.sample_architectures(every, settings.architectures, recipe.seed)
    read_reference(recipe, settings.reference, data, ranked)
    return ranked


def list_check_runs(
    recipe: Recipe,
    settings: Check,
    data: Source,
    ranked: Sequence[Architecture],
    scores: SampleScores,
    own_draws: Mapping[str, verification.DrawAgain],
    device: str,
    engine: Engine,
) -> list[verification.Run]:
    """Lists every training of a check of the architectures `ranked`.

    Args:
        recipe: The proxy's.
        settings: How it is checked.
        data: Its source.
        ranked: The architectures of `choose_ranked`.
        scores: Of its training samples; controls that need more are listed without samples.
        own_draws: Of `redraw`; may not know their samples yet.
        device: `cpu` or a CUDA device.
        engine: Where they would run.
    """
    draws = {**own_draws, **_list_controls(recipe, settings, scores, own_draws[PROXY])}
    return verification.list_runs(
        ranked,
        verification.list_training_sets(data.train.load(), draws, settings, recipe.selection.ratio, recipe.training),
        data.test,
        probing.set_up_training(recipe, data, device, engine),
    )


def _list_controls(
    recipe: Recipe, settings: Check, scores: SampleScores, draw_proxy: verification.DrawAgain
) -> dict[str, verification.DrawAgain]:
    """Lists how each control is drawn: of the labels that the same draw of the proxy keeps; and of as many others at random."""
    reduction = reduction_in_force(recipe, scores)

    def draw_method(name: str, ratio: float, draw: int) -> Drawn | None:
        n, seed, method = round(ratio * len(scores.ids)), derive_seed(recipe.seed, name, draw), METHODS[name]
        of_proxy = None if reduction is None else draw_proxy(ratio, draw)
        if not scores.has(method.needs) or (reduction is not None and of_proxy is None):
            return None
        kept = None if of_proxy is None else of_proxy.kept_labels
        return draw_control(DESIGNS[name], scores, n, law=recipe.selection.draw, seed=seed, kept=kept)

    names = dict.fromkeys((RANDOM, STRATIFIED, *settings.controls))
    controls: dict[str, verification.DrawAgain] = {name: partial(draw_method, name) for name in names}
    if reduction is None:
        return controls

    def draw_others(ratio: float, draw: int) -> Drawn:
        n_kept = count_kept(reduction, scores.label_counts, ratio)
        return draw_random_labels(
            scores, round(ratio * len(scores.ids)), n_kept, derive_seed(recipe.seed, RANDOM_LABELS, draw)
        )

    return {**controls, RANDOM_LABELS: draw_others}


def know_from_table(data: Source, manifest: Manifest, tables: Tables) -> SampleScores:
    """What a proxy's own table tells of its training samples.

    Raises:
        ChangedSourceError: The source is not the one that the proxy was made from.
    """
    ids = [table["sample_id"].to_pylist() for table in (tables.importance, tables.evaluation)]
    source.check_same(data, manifest.source.fingerprint, *ids)
    train = data.train.load()
    return SampleScores(train.parsed_ids, train.labels, tables.importance["importance"].to_numpy())


def find_needs(recipe: Recipe, settings: Check) -> frozenset[Need]:
    """What must be known to draw a check's controls, and the proxy again where its table is not enough for that."""
    own = recipe.selection.method
    is_drawn_again = settings.draws > 1 or len(verification.all_ratios(settings, recipe.selection.ratio)) > 1
    return probing.find_needs(*settings.controls, *([own] if is_drawn_again and not METHODS[own].is_weighting else []))


def reduction_in_force(recipe: Recipe, scores: SampleScores) -> LabelReduction | None:
    """Returns the recipe's label reduction, unless the proxy keeps every label all the same."""
    reduction, ratio = recipe.selection.labels, recipe.selection.ratio
    return None if reduction is None or keeps_all(reduction, scores.label_counts, ratio) else reduction


def redraw(
    recipe: Recipe, scores: SampleScores, manifest: Manifest, tables: Tables
) -> dict[str, verification.DrawAgain]:
    """Draws the proxy again at any ratio; and, where it drops labels, as it would be with all of them.

    By the weights of its importance table, where its method weighs; else by the scores, where these are enough.
    """
    table = tables.importance
    method, selected = METHODS[recipe.selection.method], np.array(table["selected"].to_pylist())
    kept = None if manifest.kept_labels is None else np.array(manifest.kept_labels)
    reduction = reduction_in_force(recipe, scores)
    rule = design_by(read_weights(table)) if method.is_weighting else DESIGNS[recipe.selection.method]

    def draw(labels: LabelReduction | None, ratio: float, number: int) -> Drawn:
        changed = recipe.selection.model_copy(update={"ratio": ratio, "labels": labels})
        return draw_again(scores, rule, changed, recipe.draw_seed, number)

    @cache  # the controls want the labels of the same draw
    def draw_proxy(ratio: float, number: int) -> Drawn | None:
        if number == 0 and ratio == recipe.selection.ratio:
            return Drawn(selected, kept)
        if not method.is_weighting and not scores.has(method.needs):
            return None
        return draw(reduction, ratio, number)

    return {PROXY: draw_proxy} if reduction is None else {PROXY: draw_proxy, ALL_LABELS: partial(draw, None)}


def check_ranking(
    folder: Path,
    recipe: Recipe,
    settings: Check,
    data: Source,
    architectures: Sequence[Architecture],
    ranked: Sequence[Architecture],
    device: str,
    store: Store,
    engine: Engine,
    on_progress: OnProgress,
) -> Manifest:
    """Trains what is not trained yet, weighs the evidence and writes it into the proxy.

    Args:
        folder: The proxy.
        recipe: Its recipe.
        settings: How it is checked.
        data: Its source.
        architectures: The whole space, from the lightest to the heaviest.
        ranked: Those of `choose_ranked`.
        device: `cpu` or a CUDA device.
        store: Where finished runs are kept.
        engine: Where they run.
        on_progress: Called as work goes on.

    Returns:
        The proxy's new manifest.

    Raises:
        EvidenceError: The runs cannot support the statistics.
        AccuracyTableError: The reference cannot be used.
        ChangedSourceError: The source is not the one that the proxy was made from.
        OutputExistsError: Another command has written to the proxy meanwhile.
    """
    started = time.perf_counter()
    manifest, tables = read_proxy(folder, with_ranking=False)
    scores = know_from_table(data, manifest, tables)
    if not scores.has(needs := find_needs(recipe, settings)):
        run = partial(run_stored, store=store, engine=engine, on_progress=on_progress)
        again = probing.know_samples(recipe, data, architectures, needs, device, engine, run, Ledger(on_progress))
        scores = replace(again, importance=scores.importance)  # of the proxy's own probes
    own_draws = redraw(recipe, scores, manifest, tables)
    runs = list_check_runs(recipe, settings, data, ranked, scores, own_draws, device, engine)
    reference, reference_rows = read_reference(recipe, settings.reference, data, ranked)
    tasks = [run.task for run in runs if run.task is not None]
    watch = partial(verification.show_together, runs=runs, on_progress=on_progress)
    results, failures = run_each(tasks, store, engine, watch)
    table = verification.tabulate_runs(runs, results, recipe.training)
    on_progress(Progress(verification.STAGE, "", 1, 1, ""))
    provenance = evidence.Provenance(
        planned=[each.name for each in ranked],
        runs=TRAINED_HERE,
        reference=reference,
        failures=[make_plain(f"{failure.task.name}: {failure.error}")[:1000] for failure in failures],
        elapsed_seconds=time.perf_counter() - started,
        machine=engine.ask(
            device,
            describe_machine,
            device,
            engine.n_workers,
            engine.ask(
                device, verification.describe_computations, ranked, len(data.label_names), data.image_shape, device
            ),
        ),
    )
    table = make_runs_table([*reference_rows, *table.to_pylist()])
    return _write_evidence(folder, recipe, settings, manifest, tables, table, provenance)


def check_known_runs(folder: Path, recipe: Recipe, settings: Check, path: Path, device: str) -> Manifest:
    """Weighs runs that were made elsewhere, a CSV file, and writes the evidence into the proxy; see `check_ranking`."""
    manifest, tables = read_proxy(folder, with_ranking=False)
    if manifest.image_shape is None:
        raise ArtifactError("must say its images' shape, which format 1.0 did not; build it again", place=folder)
    architectures = space.list_architectures(
        recipe.space, len(manifest.label_names), manifest.image_shape, seed=recipe.seed
    )
    table = read_runs(path, architectures, recipe.selection.ratio)
    settings, origin = settings.model_copy(update={"reference": None}), f"table {make_plain(path.name)}"
    provenance = evidence.Provenance([], origin, origin, [], 0.0, describe_machine(device))
    return _write_evidence(folder, recipe, settings, manifest, tables, table, provenance)


def _write_evidence(
    folder: Path,
    recipe: Recipe,
    settings: Check,
    manifest: Manifest,
    tables: Tables,
    table: pa.Table,
    provenance: evidence.Provenance,
) -> Manifest:
    """Weighs the runs and writes evidence, card and recipe into the proxy, the manifest last."""
    found = evidence.weigh_evidence(table, settings, provenance, manifest)
    checked = manifest.model_copy(update={"evidence": found, "format_version": FORMAT_VERSION})
    kept = settings.model_copy(update={"reference": None})  # a file that does not travel with the proxy
    recipe = recipe.model_copy(update={"check": kept})
    files = render_card(checked, summarize_tables(replace(tables, ranking=table))).files()
    files |= {RECIPE: write_recipe(recipe).encode(), EVIDENCE_FILES[0]: artifact.encode_runs(table)}
    if read_manifest(folder) != manifest:
        raise OutputExistsError(
            "must stay as it is while it is checked, another command has written to it; finished runs are kept: "
            "check again",
            place=folder,
        )
    with translate_os_errors(folder, "copy the proxy to another place"):
        for name, held in files.items():
            replace_file(folder / name, held)
        gone = set(EVIDENCE_FILES) - set(files)  # pictures of an earlier check
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        return artifact.rewrite_manifest(folder, checked, written=files, gone=gone)


def has_evidence(manifest: Manifest, settings: Check) -> bool:
    """Whether a proxy holds the evidence of a check with the very same settings, trained by a check."""
    evidence = manifest.evidence
    if evidence is None or evidence.runs != TRAINED_HERE or evidence.failures:
        return False
    if settings.reference is not None:  # a file of that name may hold something else by now
        return False
    return evidence.check.model_dump() == settings.model_dump()
