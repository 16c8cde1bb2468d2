"""Makes another proxy without training: drawn from a published importance table (size, draw law, seed), or the samples of an index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proxyds.arguments import as_path, as_place
from proxyds.artifact.index import HEADER, format_rows
from proxyds.artifact.manifest import INDEX, INDEXES, MANIFEST, RECIPE, FileFacts, IndexedRecord, Manifest
from proxyds.artifact.reader import (
    Built,
    list_index,
    list_tables,
    measure_file,
    read_manifest,
    read_own_recipe,
    refused,
    verify_proxy,
)
from proxyds.artifact.summary import Tables
from proxyds.artifact.tables import read_weights
from proxyds.artifact.writer import another_proxy, check_output, write_indexed, write_tables
from proxyds.data.samples import Samples, Source, StreamedSamples, join_samples
from proxyds.errors import (
    ArtifactError,
    ChangedSourceError,
    OutputExistsError,
    RecipeError,
    translate_os_errors,
)
from proxyds.pipeline.audit import audit_index, audit_tables, refuse_without_tables
from proxyds.pipeline.build import check_destination, write_proxy
from proxyds.pipeline.provenance import describe_indexed, describe_resampling, tell_same_version
from proxyds.pipeline.sharing.pull import open_tables
from proxyds.pipeline.stages import read_moved_recipe, read_scores, reopen_session
from proxyds.progress import OnProgress, ignore_progress
from proxyds.progress_bars import showing_progress
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Recipe
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.atomic import whole_folder
from proxyds.runtime.storage.store import retry_if_damaged
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import add_validation, check_ratio, design_by, draw_samples
from proxyds.selection.records import PAIRS, NearestMap, Outcomes

MAY_CHANGE = {"name", "version", "licence", "selection", "output", "check"}
"""Parts of a recipe that the importance of its samples does not depend on."""


@showing_progress
@retry_if_damaged
def resample(
    place: str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    source: Any = None,
    force: bool = False,
    **options: Unpack[Options],
) -> Built:
    """Draws another proxy from a proxy's importance table and its source.

    A build with the same recipe gives the same bytes of `data/`, `importance/`, `evaluation/` and `webdataset/`.

    Args:
        place: The proxy: a folder, `user/name@v1.0.0`, or an address.
        out: The folder to make.
        overrides: `a.b=c` assignments to the parts of its recipe that are in `MAY_CHANGE`.
        source: Where the source lies, a folder or a recipe that says so, or the same data in memory; None for where this machine last
            read it.
        force: Replace another proxy at `out`.
        options: How the work is done, such as `workers`, `device`, `store` and `quiet`; see docs/python.md. No network runs, so no device is chosen.

    Raises:
        RecipeError: An override changes what importance was measured with.
        ChangedSourceError: The source is not the one that the table is of; says how many samples differ.
        ProxydsError: Anything else that the user can mend; each class says what.
    """
    execution, out = replace(Execution.take(options, resample), device="cpu"), as_path(out, "out").absolute()
    existing = check_destination(out, force)
    out = out.resolve()
    with open_tables(as_place(place, "place"), execution.on_progress) as (folder, name):
        parent, tables = audit_tables(folder)
        refuse_without_tables(parent, name, "drawn from again")
        parent_sha256 = measure_file(folder / MANIFEST).sha256
        recipe, moved = _read_changed_recipe(folder, name, parent, overrides)
    with reopen_session(recipe, parent, execution, moved if source is None else source) as session:
        scores = read_scores(session.data, parent, tables)
        remedy = "give it a version of its own, or nobody can tell the two apart"
        same = tell_same_version(recipe, parent, "is drawn from", remedy)
        warnings = [*recipe.warnings, *session.data.warnings, *same]
        session.clock.end_stage("source", warning="; ".join(warnings))

        data, chosen_by = session.data, recipe.selection
        check_ratio(data.label_counts, data.label_names, chosen_by.ratio, chosen_by.labels)
        if existing is not None and not force:
            found = (existing.recipe_sha256, existing.source.fingerprint, existing.index_of)
            if found != (recipe.sha256, parent.source.fingerprint, None):
                raise another_proxy(out, existing)
            return Built(out, verify_proxy(out), was_there=True)
        has_weights = METHODS[chosen_by.method].is_weighting and chosen_by.method == parent.draw.method
        rule = design_by(read_weights(tables.importance)) if has_weights else DESIGNS[chosen_by.method]
        case = tables.importance["case"].to_numpy().astype(np.int64)
        draw = draw_samples(scores, case, data.label_names, rule, chosen_by, recipe.draw_seed)
        draw = add_validation(draw, data.evaluation, recipe)
        session.clock.end_stage("selection")

        write = partial(
            write_tables,
            source=data,
            outcomes=_read_outcomes(tables),
            mapping=_read_mapping(parent, tables),
            draw=draw,
            samples_per_shard=recipe.output.samples_per_shard,
        )
        describe = partial(describe_resampling, session, parent, parent_sha256, draw)
        return Built(out, write_proxy(session, out, write, describe, force=force))


@showing_progress
def index(
    place: str | Path,
    out: str | Path,
    *,
    on_progress: OnProgress = ignore_progress,
    quiet: bool | None = None,  # noqa: ARG001 - for `showing_progress`
) -> Path:
    """Takes the index of a proxy: its list of samples, with the recipe and the manifest that tell what it is of.

    Args:
        place: The proxy: a folder, `user/name@v1.0.0`, or an address, of which no images are fetched.
        out: The folder to make.
        on_progress: Called as files arrive.
        quiet: See `runtime.execution.Options`.

    Returns:
        The file of the list.

    Raises:
        ProxydsError: Anything that the user can mend; each class says what.
    """
    out = as_path(out, "out").absolute()
    with translate_os_errors(out, "choose another folder"):
        if check_output(out) is not None:
            why = "must be a new folder, found a proxy or an index; it was not touched: choose another folder"
            raise OutputExistsError(why, place=out)
    with (
        open_tables(as_place(place, "place"), on_progress, _list_index_or_tables) as (folder, _),
        translate_os_errors(out, "choose another folder"),
        whole_folder(out, "refuse") as taken,
    ):
        listed = list_index(read_manifest(folder))
        if INDEX in listed:
            audit_index(folder)
        else:  # of a format before 1.7
            manifest, tables = audit_tables(folder)
            split = getattr(read_own_recipe(folder).source, "train_split", "train")
            rows = format_rows(tables.data, manifest.proxy_label_names, split)
            (taken / INDEX).write_bytes((HEADER + rows).encode())
        for name in (*listed, MANIFEST):
            shutil.copyfile(folder / name, taken / name)
    return out / INDEX


@showing_progress
@retry_if_damaged
def apply(
    place: str | Path,
    out: str | Path,
    *,
    source: Any = None,
    force: bool = False,
    **options: Unpack[Options],
) -> Built:
    """Makes a proxy from an index and its source: nothing is trained and nothing drawn.

    Its files in `data/` and `webdataset/` have the bytes of the indexed proxy's where the source has them, in the same order. It has
    no other tables: it can be trained on and ranked on, but neither checked nor drawn from again.

    Args:
        place: The index: a folder with `indices.csv`, `manifest.json` and `recipe.yaml`, and `validation.csv` where the manifest
            lists it (of `index`, a proxy's own or a card's), the file `indices.csv` in it, `user/name@v1.0.0`, or an address, of which no images are fetched.
        out: The folder to make.
        source: Where the source lies: a folder, or a recipe whose section `source` says so, or the same data in memory; None for where
            the index's own recipe says, or where this machine last read it. How the source is split is always as in the index's own recipe.
        force: Replace another proxy at `out`.
        options: How the work is done, such as `workers`, `device`, `store` and `quiet`; see docs/python.md. No network runs, so no device is chosen.

    Raises:
        ArtifactError: The index is none, or is not what its manifest says.
        ChangedSourceError: The source lacks samples of the index; says how many.
        ProxydsError: Anything else that the user can mend; each class says what.
    """
    execution, out = replace(Execution.take(options, apply), device="cpu"), as_path(out, "out").absolute()
    existing = check_destination(out, force)
    out = out.resolve()
    with open_tables(_find_index(as_place(place, "place")), execution.on_progress, list_index) as (folder, name):
        parent, indexes = audit_index(folder)
        recipe = read_own_recipe(folder)
        _check_own_recipe(recipe, parent, name)
        index_of = IndexedRecord(
            name=parent.name,
            version=parent.version,
            recipe_sha256=parent.recipe_sha256,
            manifest_sha256=measure_file(folder / MANIFEST).sha256,
            index_sha256=measure_file(folder / INDEX).sha256,
            fingerprint=parent.source.fingerprint,
        )
    with reopen_session(recipe, parent, execution, source) as session:
        indexed = {
            table: (_find_samples(session.data, table, rows, parent, name), rows) for table, rows in indexes.items()
        }
        learned = parent.training is not None and parent.training.list_settings().get("soft_labels")
        lacking = "the proxy has no soft labels, which an index does not list; build it from its recipe to have them"
        session.clock.end_stage("source", warning=lacking if learned else "")
        if existing is not None and not force:
            if (existing.index_of, existing.source.fingerprint) != (index_of, session.data.facts.fingerprint):
                raise another_proxy(out, existing)
            return Built(out, verify_proxy(out), was_there=True)
        write = partial(
            write_indexed,
            source=session.data,
            indexed=indexed,
            kept_labels=None if parent.kept_labels is None else np.array(parent.kept_labels),
            samples_per_shard=recipe.output.samples_per_shard,
        )
        describe = partial(describe_indexed, session, parent, index_of)
        return Built(out, write_proxy(session, out, write, describe, force=force))


def _list_index_or_tables(manifest: Manifest) -> dict[str, FileFacts]:
    """Lists the files of a proxy's index, or where it has none what one can be made from."""
    return list_index(manifest) if INDEX in manifest.files else list_tables(manifest)


def _find_index(place: str) -> str:
    """Finds the folder of an index that may be named by its file."""
    if not os.path.isfile(place):  # noqa: PTH113 - a name that is too long is no error here
        return place
    folder = Path(place).parent
    if Path(place).name != INDEX or not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"must be a folder with {INDEX}, {MANIFEST} and {RECIPE}, or the first beside the others, as `proxyds index` makes them",
            place=Path(place),
        )
    return str(folder)


_AMONG = {"data": "those that may be drawn", "validation": "its evaluation samples"}
"""Where a source must hold the samples of each index."""


def _find_samples(data: Source, table: str, rows: pa.Table, parent: Manifest, name: str) -> Samples:
    """Finds the samples of an index among those of a source that may be drawn or are measured on, by their ids.

    Raises:
        ChangedSourceError: Some are not there, or labels have other names.
        ArtifactError: The index gives some another label than they have.
    """
    ids = rows["sample_id"].to_pylist()
    wanted, label_names = set(ids), parent.label_names
    own, others = (data.train, data.evaluation) if table == "data" else (data.evaluation, data.train)
    samples = _take_those(own, wanted)
    if missing := wanted - set(samples.ids.tolist()):
        n_elsewhere = len(_take_those(others, missing)) + len(_take_those(data.test, missing))
        elsewhere = f", {n_elsewhere:,} of them stand among its other samples" if n_elsewhere else ""
        at = f" at revision {parent.source.revision}" if parent.source.revision else ""
        raise ChangedSourceError(
            f"source: must hold all {len(ids):,} samples of the index among {_AMONG[table]}, {data.facts.name} lacks "
            f"{len(missing):,}{elsewhere} (the first is {min(missing)}); give the source that the index is of, {parent.source.name}{at}"
        )
    if data.label_names != label_names:
        raise ChangedSourceError(
            f"source: must have the labels of the index, {len(label_names)} in its order, {data.facts.name} has others; give the source "
            f"that the index is of, {parent.source.name}"
        )
    kept = np.arange(len(label_names)) if parent.kept_labels is None else np.array(parent.kept_labels)
    if not np.array_equal(samples.labels, kept[rows["label"].to_numpy()]):
        raise refused(Path(name) / INDEXES[table], "label must be that of the sample with the id, it is another")
    return samples


def _take_those(samples: Samples | StreamedSamples, ids: Collection[str]) -> Samples:
    """Takes the samples that have one of some ids."""
    shards = samples.shards()
    return join_samples(
        [shard.take(np.array([each in ids for each in shard.ids.tolist()], np.bool_)) for shard in shards]
    )


def _check_own_recipe(recipe: Recipe, parent: Manifest, name: str) -> None:
    """Refuses a proxy whose recipe is not the one that its manifest names."""
    if recipe.sha256 != parent.recipe_sha256:
        raise ArtifactError(
            f"{name}: {RECIPE} must be the recipe that the proxy was built from, it is another; fetch or build it again"
        )


def _read_changed_recipe(
    folder: Path, name: str, parent: Manifest, overrides: Sequence[str]
) -> tuple[Recipe, str | None]:
    """Reads the new proxy's recipe, and the `source.path` of the overrides; refuses changes beyond `MAY_CHANGE`."""
    before, (after, moved) = read_own_recipe(folder), read_moved_recipe(folder, overrides)
    _check_own_recipe(before, parent, name)
    fixed = [each.model_dump(exclude=MAY_CHANGE) for each in (before, after)]
    if fixed[0] != fixed[1]:
        changed = [part for part in fixed[0] if fixed[0][part] != fixed[1][part]]
        draws = "; the draw's own seed is selection.seed (--seed)" if changed == ["seed"] else "; build a proxy with it"
        raise RecipeError(
            f"overrides (--set): nothing is trained here, so only {', '.join(sorted(MAY_CHANGE))} may change, {changed[0]} would "
            f"make other importances{draws}"
        )
    if after.training.soft_labels:
        raise RecipeError(
            "training.soft_labels: must be false for a proxy that is drawn again, it is true: only a build asks the heaviest probe for soft "
            f"labels of other samples. Build from {name}/{RECIPE} with the same changes, which finds the probes in the store"
        )
    method = METHODS[after.selection.method]
    if not method.needs <= {"cases"} and not (method.is_weighting and after.selection.method == parent.draw.method):
        fitting = ", ".join(name for name, each in METHODS.items() if each.needs <= {"cases"})
        raise RecipeError(
            f"overrides (--set): nothing is trained here, and the method {after.selection.method} must ask the probes anew; build a proxy with it, "
            f"or set selection.method to one that a proxy's tables are enough for: {fitting}"
        )
    return after, moved


def _read_outcomes(tables: Tables) -> Outcomes:
    """Reads what the probes made of the evaluation samples, from the table `evaluation`."""
    evaluation = tables.evaluation
    return Outcomes(
        predictions=np.array(evaluation["predicted"].to_pylist()),
        correct=np.array(evaluation["correct"].to_pylist()),
        case=evaluation["case"].to_numpy().astype(np.int64),
        importance=evaluation["importance"].to_numpy(),
        pair_counts=np.stack([evaluation[name].to_numpy() for name in PAIRS], axis=1),
    )


def _read_mapping(parent: Manifest, tables: Tables) -> NearestMap:
    """Reads each training sample's nearest evaluation sample, from the table `importance`."""
    nearest = pc.index_in(tables.importance["nearest_evaluation_id"], tables.evaluation["sample_id"])
    return NearestMap(
        nearest=nearest.to_numpy().astype(np.int64)[:, None],
        distance=tables.importance["nearest_distance"].to_numpy(),
        n_neighbours=1,
        n_dimensions=parent.mapping.n_dimensions,
        explained_variance=parent.mapping.explained_variance,
    )
