"""Draws another proxy from a published importance table: another size, draw law or seed. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import pyarrow.compute as pc

from proxyds.artifact.manifest import MANIFEST, RECIPE, Manifest
from proxyds.artifact.reader import measure_file, read_own_recipe, verify_proxy
from proxyds.artifact.summary import Tables
from proxyds.artifact.tables import read_weights
from proxyds.artifact.writer import another_proxy
from proxyds.errors import ArtifactError, RecipeError
from proxyds.pipeline.audit import audit_tables
from proxyds.pipeline.build import check_destination, write_proxy
from proxyds.pipeline.provenance import describe_resampling
from proxyds.pipeline.pull import open_tables
from proxyds.pipeline.stages import Built, open_session, read_scores
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Recipe
from proxyds.recipe.source import Images
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.store import retry_if_damaged
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import check_ratio, design_by, draw_samples
from proxyds.selection.records import PAIRS, NearestMap, Outcomes

MAY_CHANGE = {"name", "version", "licence", "selection", "output", "check"}
"""Parts of a recipe that the importance of its samples does not depend on."""


@retry_if_damaged
def resample(
    place: str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    force: bool = False,
    **options: Unpack[Options],
) -> Built:
    """Draws another proxy from a proxy's importance table and its source.

    A build with the same recipe gives the same bytes of `data/`, `importance/`, `evaluation/` and `webdataset/`.

    Args:
        place: The proxy: a folder, `user/name@v1.0.0`, or an address.
        out: The folder to make.
        overrides: `a.b=c` assignments to the parts of its recipe that are in `MAY_CHANGE`; also `source.path`, where the source
            has moved.
        force: Replace another proxy at `out`.
        options: How the work is done; see `Execution`. No network runs, so no device is chosen.

    Raises:
        RecipeError: An override changes what importance was measured with.
        ChangedSourceError: The source is not the one that the table is of; says how many samples differ.
        ProxydsError: Anything else that the user can mend; each class says what.
    """
    execution, out = replace(Execution(**options), device="cpu"), Path(out).absolute()
    existing = check_destination(out, force)
    out = out.resolve()
    with open_tables(str(place), execution.on_progress) as (folder, name):
        parent, tables = audit_tables(folder)
        parent_sha256 = measure_file(folder / MANIFEST).sha256
        recipe, source = _read_changed_recipe(folder, name, parent, overrides)
    with open_session(recipe.model_copy(update={"source": source}), execution) as session:
        session = replace(session, recipe=recipe)
        scores = read_scores(session.data, parent, tables)
        session.clock.end_stage("source", warning="; ".join([*recipe.warnings, *session.data.warnings]))

        data, chosen_by = session.data, recipe.selection
        check_ratio(data.label_counts, data.label_names, chosen_by.ratio, chosen_by.labels)
        if existing is not None and not force:
            if (existing.recipe_sha256, existing.source.fingerprint) != (recipe.sha256, parent.source.fingerprint):
                raise another_proxy(out, existing)
            return Built(out, verify_proxy(out), was_there=True)
        has_weights = METHODS[chosen_by.method].is_weighting and chosen_by.method == parent.draw.method
        rule = design_by(read_weights(tables.importance)) if has_weights else DESIGNS[chosen_by.method]
        case = tables.importance["case"].to_numpy().astype(np.int64)
        draw = draw_samples(scores, case, data.label_names, rule, chosen_by, recipe.draw_seed)
        session.clock.end_stage("selection")

        describe = partial(describe_resampling, session, parent, parent_sha256, draw)
        outcomes, mapping = _read_outcomes(tables), _read_mapping(parent, tables)
        return Built(out, write_proxy(session, out, outcomes, mapping, draw, describe, force=force))


def _read_changed_recipe(folder: Path, name: str, parent: Manifest, overrides: Sequence[str]) -> tuple[Recipe, Images]:
    """Reads the new proxy's recipe, and where the source lies now, which is no part of it; refuses changes beyond `MAY_CHANGE`."""
    before, after = (read_own_recipe(folder, changes) for changes in ((), overrides))
    if before.sha256 != parent.recipe_sha256:
        raise ArtifactError(
            f"{name}: {RECIPE} must be the recipe that the proxy was built from, it is another; fetch or build it again"
        )
    fixed = [each.model_dump(exclude=MAY_CHANGE | {"source"}) for each in (before, after)]
    sources = [each.source.model_dump(exclude={"path"}) for each in (before, after)]
    if fixed[0] != fixed[1] or sources[0] != sources[1]:
        changed = [part for part in fixed[0] if fixed[0][part] != fixed[1][part]] or ["source"]
        draws = "; the draw's own seed is --seed" if changed == ["seed"] else "; build a proxy with it"
        raise RecipeError(
            f"--set: nothing is trained here, so only {', '.join(sorted(MAY_CHANGE))} and source.path may change, {changed[0]} would "
            f"make other importances{draws}"
        )
    method = METHODS[after.selection.method]
    if not method.needs <= {"cases"} and not (method.is_weighting and after.selection.method == parent.draw.method):
        fitting = ", ".join(name for name, each in METHODS.items() if each.needs <= {"cases"})
        raise RecipeError(
            f"--set: nothing is trained here, and the method {after.selection.method} must ask the probes anew; build a proxy with it, "
            f"or set selection.method to one that a proxy's tables are enough for: {fitting}"
        )
    return after.model_copy(update={"source": before.source}), after.source


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
