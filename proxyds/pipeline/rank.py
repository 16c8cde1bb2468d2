"""Ranks candidates that were trained on a proxy: which to train on everything, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from proxyds.arguments import as_place
from proxyds.artifact.evidence_records import RankedRecord
from proxyds.artifact.manifest import Manifest
from proxyds.artifact.ranking_table import BY_LOSS
from proxyds.artifact.reader import read_own_recipe
from proxyds.errors import AccuracyTableError, ArgumentError, RecipeError, UnavailableError
from proxyds.evaluation.decision.ranked import Ranking
from proxyds.evaluation.decision.ranking import CONFIDENCE, MeasuredOn, rank_candidates
from proxyds.evaluation.decision.results import COLUMNS, Candidate, Results, read_results
from proxyds.pipeline.audit import audit_tables
from proxyds.pipeline.sharing.pull import open_tables
from proxyds.progress import OnProgress, ignore_progress
from proxyds.progress_bars import showing_progress
from proxyds.space.architecture import Architecture
from proxyds.space.candidates import count_costs, list_identities, name_candidates
from proxyds.space.listing import list_architectures
from proxyds.space.networks.families import HANDED_OVER
from proxyds.text import suggest_names

if TYPE_CHECKING:
    from proxyds.space.candidates import Candidate as Network
    from proxyds.space.candidates import Candidates

BELOW_CHANCE = 0.5
"""Accuracies that are all below this share of chance were not measured by guessing, nor by knowing."""


@showing_progress
def rank(
    proxy: str | Path,
    results: Any,
    *,
    space: Candidates | None = None,
    confidence: float = CONFIDENCE,
    measured_on: MeasuredOn = "validation",
    on_progress: OnProgress = ignore_progress,
    quiet: bool | None = None,  # noqa: ARG001 - for `showing_progress`
) -> Ranking:
    """Ranks candidates by their accuracies on a proxy.

    What is expected of a candidate on everything follows from the proxy's own check, by `evaluation.decision.prediction`.

    Args:
        proxy: A folder, `user/name@v1.0.0` on the Hub, or an address; no images are fetched.
        results: Path of a CSV, JSON or parquet file, a data frame, rows as mappings, or a mapping from names to accuracies.
            Columns: `architecture`, `accuracy`; where there are any `draw_seed`, `training_seed`, `n_parameters`, `forward_flops`;
            `full_accuracy`, which is on the source's test samples; and `loss`, the mean cross-entropy with the true labels, in nats,
            which candidates rank by where the check's networks learned soft labels.
        space: Candidates at hand, as `proxyds.Recipe(space=...)` takes them: to count parameters and FLOPs that the results do not give.
            Those of the proxy's recipe need not be passed where their names stand in the check.
        confidence: With which the best candidate is on the shortlist, in [0.5, 1).
        measured_on: Samples that the accuracies are of: the proxy's split `validation`, or the source's `test` samples. Those of a
            check's own table are of test samples.
        on_progress: Called as files arrive.
        quiet: See `runtime.execution.Options`.

    Raises:
        AccuracyTableError: Results cannot be used.
        ArgumentError: The confidence, or what accuracies were measured on, is nothing that this takes.
        CallableError: What is passed as a network is none.
        RecipeError: A network does not work on the proxy's images.
        ArtifactError: There is no proxy, or one that says of itself what is not so.
        RemoteError: The place cannot be reached.
    """
    if not isinstance(confidence, Real) or not 0.5 <= confidence < 1:
        raise ArgumentError(f"confidence: must be a number in [0.5, 1), got {confidence!r}")
    if measured_on not in get_args(MeasuredOn):
        raise ArgumentError(f"measured_on: must be one of {', '.join(get_args(MeasuredOn))}, got {measured_on!r}")
    with open_tables(as_place(proxy, "proxy"), on_progress) as (folder, _):
        manifest, tables = audit_tables(folder)
        read = read_results(results, manifest.draw.ratio)
        candidates, notes = _count_costs(
            read.candidates, {} if space is None else name_candidates(space), manifest, folder
        )
    ranking = rank_candidates(
        candidates,
        manifest.evidence,
        tables.ranking,
        n_test=manifest.counts.test or None,
        seed=manifest.seed,
        confidence=confidence,
        have_soft_labels=manifest.has_soft_labels,
        measured_on="test" if read.is_ranking else measured_on,
    )
    notes += _list_odd(read, manifest)
    if manifest.index_of is not None:
        notes.append(
            f"This proxy was made from an index: rank with {manifest.index_of.name} {manifest.index_of.version}, which has the check."
        )
    if (trainer := manifest.check_trainer) is not None:
        notes.append(
            f"The check's networks were trained by a program's own trainer, {trainer.name} (code {trainer.sha256[:12]}): chances and "
            "expectations hold for candidates that it trained."
        )
    elif manifest.has_soft_labels and manifest.evidence is not None:
        notes.append(
            "The check's networks learned soft labels: chances hold for candidates that learned the column soft_label."
        )
    if manifest.protocol == "paper" and manifest.evidence is not None:
        notes.append("The check's test samples chose this proxy, too (the paper's protocol): chances may flatter.")
    return replace(ranking, notes=(*ranking.notes, *notes))


def _list_odd(read: Results, manifest: Manifest) -> list[str]:
    """Says what in the results may not be meant so."""
    notes, n_labels = [], len(manifest.label_names)
    if max(each.mean for each in read.candidates) < BELOW_CHANCE / n_labels:
        notes.append(
            f"All accuracies are far below chance, which is {1 / n_labels:.1%} with {n_labels} labels. Are they a loss? Then the order is the wrong way round."
        )
    if read.is_ranking:
        return notes
    if means := [each.name for each in read.candidates if each.n_full > 1]:
        notes.append(
            f"The full_accuracy differs between the rows of a candidate: the mean is taken, as of several trainings ({', '.join(means)})."
        )
    has_losses = any(run.loss is not None for each in read.candidates for run in each.runs)
    if has_losses and manifest.evidence is not None and manifest.evidence.ranked_by != BY_LOSS:
        why = (
            "it had no losses of its runs"
            if manifest.has_soft_labels and manifest.evidence.check.trainer is None
            else "after learning hard labels, the loss may rank the wrong way round"
        )
        notes.append(f"The column loss does not count, since the check ranked by accuracy: {why}.")
    if read.unused:
        notes.append(
            f"These columns of the results are not read: {', '.join(read.unused)}. Known: {', '.join(COLUMNS)}."
        )
    return notes


def _count_costs(
    candidates: Sequence[Candidate], networks: Mapping[str, Network], manifest: Manifest, folder: Path
) -> tuple[list[Candidate], list[str]]:
    """Counts parameters and FLOPs of candidates that are given as networks or are of the proxy's search space; returns notes besides."""
    names = {each.name for each in candidates}
    of_space = (
        {} if manifest.evidence is None else {each.name: _Cost.of(each) for each in manifest.evidence.architectures}
    )
    named: Set[str] = set()
    why = None
    if not names | networks.keys() <= set(of_space):
        listed, named, why = _list_space(manifest, folder)
        of_space |= listed
    if unknown := [name for name in networks if name not in names and name not in of_space and name not in named]:
        raise AccuracyTableError(
            f"space: must hold candidates of the results, {unknown[0]!r} is none; {suggest_names(unknown[0], sorted(names))}"
        )
    asked = {name: network for name, network in networks.items() if name in names}
    counted = count_costs(asked, len(manifest.label_names), _shape_of(manifest)) if asked else {}
    costs = of_space | {name: _Cost(*cost) for name, cost in counted.items()}
    complete = [each if each.name not in costs else costs[each.name].complete(each) for each in candidates]
    others = [each.name for each in candidates if each.name not in of_space and each.name not in named]
    if not others:
        return complete, []
    if why is not None:
        return complete, [
            f"The proxy's search space cannot be listed here, so that candidates may be of another one: {why}"
        ]
    known = [*of_space, *named]
    example = f", where names are like {known[0]!r}" if known else ""
    so = (
        ""
        if manifest.evidence is None
        else " The check is of that space, and tells less of others; build a proxy for a space that holds them."
    )
    return complete, [
        f"{len(others)} of {len(candidates)} candidates are not of the proxy's search space{example}; {others[0]!r} is one of them.{so}"
    ]


@dataclass(frozen=True)
class _Cost:
    n_parameters: int
    forward_flops: int

    @classmethod
    def of(cls, counted: Architecture | RankedRecord) -> _Cost:
        return cls(counted.n_parameters, counted.forward_flops)

    def complete(self, candidate: Candidate) -> Candidate:
        """Adds what the results do not give."""
        return replace(
            candidate,
            n_parameters=candidate.n_parameters or self.n_parameters,
            forward_flops=candidate.forward_flops or self.forward_flops,
        )


def _shape_of(manifest: Manifest) -> tuple[int, int, int]:
    if manifest.image_shape is None:
        raise AccuracyTableError(
            "space: cannot be counted, since this proxy of format 1.0 does not say what images it is for"
        )
    return manifest.image_shape


def _list_space(manifest: Manifest, folder: Path) -> tuple[dict[str, _Cost], Set[str], str | None]:
    """Lists the proxy's search space by name; or says why it cannot be listed here, such as for want of its plugin.

    Returns:
        What architectures cost; the names of those whose cost cannot be told, since they are code of another program; why there are no others.
    """
    if manifest.image_shape is None:
        return {}, set(), "a proxy of format 1.0 does not say what images it is for."
    named: Set[str] = set()
    try:
        recipe = read_own_recipe(folder)
        if recipe.space.network == HANDED_OVER:
            named = list_identities(recipe.space).keys()
        listed = list_architectures(recipe.space, len(manifest.label_names), manifest.image_shape, seed=recipe.seed)
    except (RecipeError, UnavailableError) as error:
        return {}, named, None if named else str(error)  # handed-over networks are known by name
    return {each.name: _Cost.of(each) for each in listed}, named, None
