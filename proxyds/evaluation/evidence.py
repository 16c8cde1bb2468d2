"""From runs to evidence: what is measured of every way to rank, the proxy against its controls, a verdict.

Every data set is ranked twice: by accuracy, and by accuracy and parameters together; where networks learn soft labels by the loss, too. Differences to controls are those of
the same architectures, since what makes a set of architectures easy to rank makes it easy for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from proxyds.artifact.evidence_records import (
    CheckRecord,
    ComparisonRecord,
    EstimateRecord,
    EvidenceRecord,
    MachineRecord,
    MethodRecord,
    OnEvaluationRecord,
    RankedRecord,
)
from proxyds.artifact.manifest import Manifest
from proxyds.artifact.ranking_table import (
    AT_ONE_RATIO,
    BY_ACCURACY,
    BY_LOSS,
    FEWER_EPOCHS,
    FLOPS,
    FREE_RANKINGS,
    FULL,
    MAX_RANKED,
    PARAMETERS,
    PROXY,
    RANDOM,
    STATISTICS,
    STRATIFIED,
    TRAINED_HERE,
    WITH_PARAMETERS,
    Measured,
    RankedBy,
    Score,
    best_first,
    collect_accuracies,
)
from proxyds.errors import EvidenceError
from proxyds.evaluation.cost import find_teaching_flops, weigh_spending
from proxyds.evaluation.decision.rehearsal import rehearse
from proxyds.evaluation.intervals import (
    LeftOut,
    compare_pairs,
    compare_repeats,
    compare_seeds,
    make_record,
    other_seeds,
    subtract,
)
from proxyds.evaluation.rank_metrics import (
    Floats,
    add_parameters,
    are_alike,
    include_all,
    kendall_tau,
    n_top,
)
from proxyds.evaluation.saturation import explain_saturation
from proxyds.evaluation.search_cost import list_searches, open_search
from proxyds.evaluation.verdict import Compared, find_outcome, judge
from proxyds.recipe.models import MIN_RANKED, Check

_Way = tuple[str, float | None, RankedBy]
"""A way to rank: a data set or free ranking, its ratio, what it ranks by."""


@dataclass(frozen=True)
class Provenance:
    """Where a table of runs comes from.

    Attributes:
        planned: Architectures that were to be ranked.
        runs: Where the accuracies on the proxy and its controls come from.
        reference: Where the full-data accuracies come from.
        failures: Runs that failed, with the reason.
        elapsed_seconds: Of this check, by the clock.
        machine: Where it ran.
    """

    planned: Sequence[str]
    runs: str
    reference: str
    failures: Sequence[str]
    elapsed_seconds: float
    machine: MachineRecord


def weigh_evidence(table: pa.Table, check: Check, provenance: Provenance, manifest: Manifest) -> EvidenceRecord:
    """Measures how well the proxy ranks.

    Args:
        table: The table `ranking`.
        check: How it was checked.
        provenance: Where the table comes from.
        manifest: The proxy's: its ratio, how many samples there are, and what the build took.

    Raises:
        EvidenceError: Fewer than five architectures have every run, or more than `MAX_RANKED`; accuracies on full data or on
            the proxy are constant, or there are none.
    """
    own_ratio = manifest.draw.ratio
    measured = collect_accuracies(table, provenance.planned)
    learns_soft_labels = manifest.has_soft_labels and check.trainer is None
    if not learns_soft_labels:  # by the loss after learning labels some rank the wrong way round
        measured = replace(measured, losses={})
    _check_enough(measured, own_ratio, provenance.failures)
    full, cost = measured.accuracies[FULL, 1.0], measured.costs[FLOPS]
    references = other_seeds(full)
    ways = measure_ways(measured, references, check.parameter_weight)
    compared = list(_compare_with_controls(ways))
    ranked_by: Score = BY_LOSS if (PROXY, own_ratio) in measured.losses else BY_ACCURACY
    ceiling, own = ways[FULL, None, BY_ACCURACY].get("tau"), ways[PROXY, own_ratio, ranked_by]["tau"]
    below = None if ceiling is None else subtract(ceiling, own).as_gap()
    at_own_ratio = [each for each in compared if each.record.ratio == own_ratio]
    is_by_trainer = (check.trainer or manifest.trainer) is not None and provenance.runs == TRAINED_HERE
    verdict, explanation = judge(
        at_own_ratio,
        below,
        manifest.space.n_architectures,
        ranked_by=ranked_by,
        is_random=manifest.draw.method in (RANDOM, STRATIFIED) and manifest.major >= 2,  # verdicts of 1.x did not ask
        has_own_epochs=is_by_trainer,
    )
    if len(full) == 1 and verdict != "ranks better than its controls":
        explanation += " There is one training on everything: the noise ceiling is unknown."
    spending = weigh_spending(table, own_ratio, manifest.counts.train, manifest.counts.test, manifest.stages)
    teaching = find_teaching_flops(manifest) if learns_soft_labels else 0.0
    scores = list_scores(measured, check.parameter_weight)
    searched = {
        way: each for way, each in scores.items() if way[1] is None or way[2] in (ranked_by, WITH_PARAMETERS[ranked_by])
    }
    search = open_search(measured, references, table, spending.build_flops, manifest.counts, teaching)
    evidence = EvidenceRecord(
        check=CheckRecord.model_validate(check.model_dump()),
        ranked_by=ranked_by,
        own_ratio=own_ratio,
        runs=provenance.runs,
        reference=provenance.reference,
        n_architectures=len(measured.names),
        n_like_cost_pairs=int(are_alike(cost).sum()) // 2,
        n_top=n_top(len(measured.names)),
        n_full_seeds=len(full),
        n_draws=measured.count_draws(PROXY, own_ratio),
        left_out=measured.left_out,
        failures=tuple(provenance.failures),
        methods=tuple(_describe(way, measured, references, of) for way, of in ways.items()),
        comparisons=tuple(each.record for each in compared),
        verdict=verdict,
        explanation=explanation,
        own_tau=_estimate_own(scores[PROXY, own_ratio, ranked_by], measured, references, own_ratio),
        below_ceiling=below,
        on_evaluation=_compare_held_out(measured, own_ratio, ranked_by),
        caution=_find_caution(measured, manifest),
        architectures=tuple(_list_architectures(scores[PROXY, own_ratio, ranked_by], measured, table, own_ratio)),
        searches=tuple(list_searches(search, searched, measured, own_ratio)),
        rehearsal=rehearse(measured, own_ratio, manifest.seed),
        passed=None,
        sufficient_ratio=None,
        spending=spending,
        elapsed_seconds=provenance.elapsed_seconds,
        machine=provenance.machine,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return evidence.model_copy(update=_gate(evidence))


def measure_ways(
    measured: Measured, references: Floats, parameter_weight: float, names: Sequence[str] = tuple(STATISTICS)
) -> dict[_Way, dict[str, LeftOut]]:
    """Computes statistics of every way to rank: the noise ceiling, the free rankings, every data set by either score.

    Args:
        measured: Accuracies.
        references: Of `other_seeds`.
        parameter_weight: What parameters count beside accuracy.
        names: Of `STATISTICS`.
    """
    full, cost = measured.accuracies[FULL, 1.0], measured.costs[FLOPS]
    ways: dict[_Way, dict[str, LeftOut]] = {}
    is_known = len(full) > 1
    ways[FULL, None, BY_ACCURACY] = {n: compare_seeds(references, full, cost, n) for n in names if is_known}
    for (method, ratio, ranked_by), scores in list_scores(measured, parameter_weight).items():
        draws = measured.draws.get((method, ratio or 1.0), np.zeros(1, np.int64))
        is_drawn = method not in (FEWER_EPOCHS, *FREE_RANKINGS)
        ways[method, ratio, ranked_by] = {
            name: compare_repeats(references, scores, draws, cost, name, has_common_draws=is_drawn)
            for name in names
            if ranked_by == BY_ACCURACY or name != "pearson"  # others are no accuracy
        }
    return ways


def list_scores(measured: Measured, parameter_weight: float) -> dict[_Way, Floats]:
    """Lists what every way but training on everything ranks by: the free rankings (1, n), and every data set (R, n) by each score."""
    scores: dict[_Way, Floats] = {(free, None, BY_ACCURACY): measured.costs[free][None] for free in FREE_RANKINGS}
    for (dataset, ratio), accuracies in measured.accuracies.items():
        if dataset != FULL:
            alone: dict[Score, Floats] = {BY_ACCURACY: accuracies}
            if (losses := measured.losses.get((dataset, ratio))) is not None:
                alone[BY_LOSS] = -losses
            for score, each in alone.items():
                scores[dataset, ratio, score] = each
                with_parameters = add_parameters(each, measured.costs[PARAMETERS], parameter_weight)
                scores[dataset, ratio, WITH_PARAMETERS[score]] = with_parameters
    return scores


def _find_caution(measured: Measured, manifest: Manifest) -> str | None:
    """Says whether accuracies lie too near to chance or to 100 %. Where the proxy keeps some labels only, those on everything alone are judged."""
    full, proxy = measured.accuracies[FULL, 1.0], measured.accuracies[PROXY, manifest.draw.ratio]
    if manifest.counts.test == 0:
        return None
    of_proxy = proxy if manifest.kept_labels is None else full
    return explain_saturation(full, of_proxy, len(manifest.label_names), manifest.counts.test)


def _estimate_own(scores: Floats, measured: Measured, references: Floats, own_ratio: float) -> EstimateRecord:
    """Estimates tau of the very samples of the proxy, its first draw: what other draws would give is no matter."""
    is_own = measured.draws[PROXY, own_ratio] == 0
    if not is_own.any():
        return make_record(math.nan)
    own, draws = scores[is_own], measured.draws[PROXY, own_ratio][is_own]
    cost = measured.costs[FLOPS]
    return compare_repeats(references, own, draws, cost, "tau", has_common_draws=False).estimate().as_agreement()


def _compare_held_out(measured: Measured, own_ratio: float, ranked_by: Score) -> OnEvaluationRecord | None:
    """Compares how each training ranks on evaluation samples with how it ranks on test samples; None where none was measured on both."""
    by_accuracy = measured.accuracies, measured.on_evaluation
    by_loss = measured.losses, measured.losses_on_evaluation
    taus = {}
    for name, key, (on_test, on_evaluation) in (
        ("full", (FULL, 1.0), by_accuracy),
        ("proxy", (PROXY, own_ratio), by_loss if ranked_by == BY_LOSS else by_accuracy),
    ):
        if key in on_evaluation:
            draws, cost, is_drawn = measured.draws[key], measured.costs[FLOPS], name == "proxy"
            compared = compare_pairs(on_test[key], on_evaluation[key], draws, cost, "tau", has_common_draws=is_drawn)
            taus[name] = compared.estimate().as_agreement()
    return OnEvaluationRecord(full=taus.get("full"), proxy=taus.get("proxy")) if taus else None


def _list_architectures(
    scores: Floats, measured: Measured, table: pa.Table, own_ratio: float
) -> Iterator[RankedRecord]:
    """Lists the architectures, the best on everything first, with their places there and, by (R, n) scores, on the proxy."""
    about = {row["architecture"]: row for row in table.to_pylist()}
    full, proxy = measured.accuracies[FULL, 1.0], measured.accuracies[PROXY, own_ratio]
    losses = measured.losses.get((PROXY, own_ratio))
    places = {}
    for name, ranked in (("full", full), ("proxy", scores)):
        order = best_first(ranked.mean(axis=0))
        places[name] = np.empty(len(order), int)
        places[name][order] = np.arange(1, len(order) + 1)
    for i in best_first(full.mean(axis=0)):
        row = about[measured.names[i]]
        yield RankedRecord(
            name=measured.names[i],
            n_parameters=row["n_parameters"],
            forward_flops=row["forward_flops"],
            full_accuracy=float(full[:, i].mean()),
            full_deviation=_deviate(full[:, i]),
            full_place=int(places["full"][i]),
            proxy_accuracy=float(proxy[:, i].mean()),
            proxy_deviation=_deviate(proxy[:, i]),
            proxy_place=int(places["proxy"][i]),
            proxy_loss=None if losses is None else float(losses[:, i].mean()),
        )


def _deviate(repeats: Floats) -> float | None:
    return float(repeats.std(ddof=1)) if len(repeats) > 1 else None


def _gate(evidence: EvidenceRecord) -> dict[str, bool | float | None]:
    """Tells whether the threshold is reached, and the smallest ratio that reaches the target; one draw reaches nothing."""

    def reaches(ratio: float, goal: float | None) -> bool:
        method = evidence.of(PROXY, ratio)
        low = method.statistics["tau"].low if method is not None else None
        return goal is not None and low is not None and low >= goal

    threshold = evidence.check.threshold
    return {
        "passed": None if threshold is None else reaches(evidence.own_ratio, threshold),
        "sufficient_ratio": min((ratio for ratio in evidence.ratios if reaches(ratio, evidence.target)), default=None),
    }


def _check_enough(measured: Measured, own_ratio: float, failures: Sequence[str]) -> None:
    """Refuses what no statistic can be made of; see `weigh_evidence`."""
    failed = f" ({len(failures)} runs failed, the first: {failures[0]})" if failures else ""
    needed = {(FULL, 1.0): "full data", (PROXY, own_ratio): f"the proxy at its ratio {own_ratio:g}"}
    for key, words in needed.items():
        if key not in measured.accuracies:
            raise EvidenceError(f"check: must have accuracies on {words}, there are none{failed}")
    n = len(measured.names)
    if n < MIN_RANKED:
        left = f"; left out for want of a run: {', '.join(measured.left_out)}" if measured.left_out else ""
        raise EvidenceError(
            f"check: must have at least {MIN_RANKED} architectures with every run to speak of a ranking, found {n}{left}"
            f"{failed}; give more choices in the recipe's space, or the runs that are missing"
        )
    if n > MAX_RANKED:
        raise EvidenceError(
            f"check: must have at most {MAX_RANKED:,} architectures, found {n:,}; take a sample of them"
        )
    for key, name in zip(needed, (FULL, f"{PROXY} {own_ratio:g}"), strict=True):
        for number, row in enumerate(measured.accuracies[key], start=1):
            if np.ptp(row) == 0:
                longer = "train longer (training.epochs, and check.full_training where it is set), or on more samples (selection.ratio)"
                shorter = "they are saturated: train shorter (training.epochs, and check.full_training where it is set), on smaller images (source.image_size) or harder data"
                raise EvidenceError(
                    f"check: accuracies must differ to be ranked; all {n} architectures have {row[0]:.4g} on {name}, number "
                    f"{number}; {shorter if row[0] == 1 else longer}"
                )


def _describe(way: _Way, measured: Measured, references: Floats, values: Mapping[str, LeftOut]) -> MethodRecord:
    method, ratio, ranked_by = way
    accuracies = measured.accuracies.get((method, ratio or 1.0))
    # a cost is no accuracy
    says_nothing = {FLOPS: ("pearson", "tau_given_cost"), PARAMETERS: ("pearson",)}.get(method, ())
    taus = [] if not values else values["tau"].values[:, 0].tolist()
    if method == FULL and values:
        taus = _list_taus_of_seeds(references, measured.accuracies[FULL, 1.0])
    return MethodRecord(
        method=method,
        ratio=ratio,
        ranked_by=ranked_by,
        n_draws=measured.count_draws(method, ratio or 1.0),
        mean_accuracy=None if accuracies is None else float(accuracies.mean()),
        tau_of_repeats=tuple(tau if math.isfinite(tau) else None for tau in taus),
        statistics={n: of.estimate().as_agreement() for n, of in values.items() if n not in says_nothing},
    )


def _list_taus_of_seeds(references: Floats, full: Floats) -> list[float]:
    everything = include_all(full.shape[1])
    return [float(kendall_tau(*pair, everything)[0]) for pair in zip(references, full, strict=True)]


def _compare_with_controls(ways: Mapping[_Way, Mapping[str, LeftOut]]) -> Iterator[Compared]:
    """Compares the proxy at each ratio, by either score, with everything of that ratio and with the free rankings."""
    for (method, ratio, ranked_by), of in ways.items():
        if method != PROXY or ratio is None:
            continue
        for control in (*AT_ONE_RATIO[1:], *FREE_RANKINGS):
            is_free = control in FREE_RANKINGS
            way: _Way = (control, None, BY_ACCURACY) if is_free else (control, ratio, ranked_by)
            if way in ways:
                tau = ways[way]["tau"]
                difference = subtract(of["tau"], tau).as_difference()
                outcome = find_outcome(difference)
                record = ComparisonRecord(
                    control=control, ratio=ratio, ranked_by=ranked_by, difference=difference, outcome=outcome
                )
                yield Compared(record, of["tau"], tau)
