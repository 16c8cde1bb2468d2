"""Ranks candidates that were trained on a proxy: which to train on everything, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxyds.artifact.manifest import Manifest
from proxyds.artifact.reader import read_own_recipe
from proxyds.errors import AccuracyTableError, ProxydsError
from proxyds.evaluation.decision.ranking import CONFIDENCE, MeasuredOn, Ranking, rank_candidates
from proxyds.evaluation.decision.results import Candidate, read_results
from proxyds.pipeline.audit import audit_tables
from proxyds.pipeline.sharing.pull import open_tables
from proxyds.progress import OnProgress, ignore_progress
from proxyds.recipe.models import Recipe
from proxyds.space.architecture import Architecture
from proxyds.space.cost import measure_network
from proxyds.space.listing import list_architectures

if TYPE_CHECKING:
    from torch import nn


def rank(
    proxy: str,
    results: Any,
    *,
    networks: Mapping[str, nn.Module] | None = None,
    confidence: float = CONFIDENCE,
    measured_on: MeasuredOn = "validation",
    on_progress: OnProgress = ignore_progress,
) -> Ranking:
    """Ranks candidates by their accuracies on a proxy.

    What is expected of a candidate on everything follows from the proxy's own check, by `evaluation.decision.prediction`.

    Args:
        proxy: A folder, `user/name@v1.0.0` on the Hub, or an address; no images are fetched.
        results: Path of a CSV, JSON or parquet file, a data frame, rows as mappings, or a mapping from names to accuracies.
            Columns: `architecture`, `accuracy`; where there are any `draw_seed`, `training_seed`, `n_parameters`, `forward_flops`, `full_accuracy`.
        networks: Candidates by name, to count parameters and FLOPs of that the results do not give.
        confidence: With which the best candidate is on the shortlist, in [0.5, 1).
        measured_on: Samples that the accuracies are of: the proxy's split `validation`, or the source's `test` samples. Those of a
            check's own table are of test samples.
        on_progress: Called as files arrive.

    Raises:
        AccuracyTableError: Results cannot be used.
        ArtifactError: There is no proxy, or one that says of itself what is not so.
        RemoteError: The place cannot be reached.
    """
    if not 0.5 <= confidence < 1:
        raise AccuracyTableError(f"confidence: must be in [0.5, 1), got {confidence:g}")
    with open_tables(str(proxy), on_progress) as (folder, _):
        manifest, tables = audit_tables(folder)
        recipe = read_own_recipe(folder)
    read = read_results(results, manifest.draw.ratio)
    candidates, notes = _count_costs(read.candidates, networks or {}, manifest, recipe)
    evidence = manifest.evidence
    ranking = rank_candidates(
        candidates,
        evidence,
        tables.ranking,
        seed=manifest.seed,
        confidence=confidence,
        measured_on="test" if read.is_ranking else measured_on,
    )
    if read.unused:
        notes.append(f"Not read of the results: {', '.join(read.unused)}.")
    if manifest.protocol == "paper" and evidence is not None:
        notes.append("The check's test samples chose this proxy, too (the paper's protocol): chances may flatter.")
    return replace(ranking, notes=(*ranking.notes, *notes))


def _count_costs(
    candidates: Sequence[Candidate], networks: Mapping[str, nn.Module], manifest: Manifest, recipe: Recipe
) -> tuple[list[Candidate], list[str]]:
    """Counts parameters and FLOPs of candidates that are given as networks or are of the proxy's search space; returns notes besides."""
    of_space: dict[str, Any] = (
        {} if manifest.evidence is None else {each.name: each for each in manifest.evidence.architectures}
    )
    if any(each.name not in of_space for each in candidates):
        of_space |= _list_space(recipe, manifest)
    costs = {**of_space, **{name: _measure(name, network, manifest) for name, network in networks.items()}}
    counted = [each if each.name not in costs else _complete(each, costs[each.name]) for each in candidates]
    others = [each.name for each in candidates if each.name not in of_space]
    if not others or manifest.evidence is None:
        return counted, []
    of_others = "its evidence is of other architectures"
    return counted, [
        f"{len(others)} of {len(candidates)} candidates are not of the proxy's search space, such as {others[0]!r}: {of_others}."
    ]


def _complete(candidate: Candidate, cost: Any) -> Candidate:
    return replace(
        candidate,
        n_parameters=candidate.n_parameters or cost.n_parameters,
        forward_flops=candidate.forward_flops or cost.forward_flops,
    )


def _measure(name: str, network: nn.Module, manifest: Manifest) -> Architecture:
    if manifest.image_shape is None:
        raise AccuracyTableError(
            f"networks: {name} cannot be counted, since this old proxy does not say what images it is for"
        )
    return measure_network(name, network, manifest.image_shape)


def _list_space(recipe: Recipe, manifest: Manifest) -> dict[str, Architecture]:
    """Lists the proxy's search space by name; nothing where it cannot be listed here, such as for want of its plugin."""
    if manifest.image_shape is None:
        return {}
    try:
        listed = list_architectures(recipe.space, len(manifest.label_names), manifest.image_shape, seed=recipe.seed)
    except ProxydsError:
        return {}
    return {each.name: each for each in listed}
