"""From runs to evidence: what is measured of every way to rank, the proxy against its controls, a verdict.

Differences to controls are taken resample by resample (`bootstrap.py`), since what makes a set of architectures easy to rank
makes it easy for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pyarrow as pa

from proxyds.artifact.manifest import (
    CheckRecord,
    ComparisonRecord,
    EstimateRecord,
    EvidenceRecord,
    MachineRecord,
    Manifest,
    MethodRecord,
    Verdict,
)
from proxyds.artifact.ranking_table import (
    AT_ONE_RATIO,
    FEWER_EPOCHS,
    FLOPS,
    FREE_RANKINGS,
    FULL,
    PARAMETERS,
    PROXY,
    RANDOM,
    Measured,
    collect_accuracies,
)
from proxyds.errors import EvidenceError
from proxyds.evaluation.bootstrap import compare_repeats, compare_seeds, draw_resamples, estimate, other_seeds
from proxyds.evaluation.cost import weigh_spending
from proxyds.evaluation.rank_metrics import Floats, are_alike, kendall_tau, n_top
from proxyds.recipe.models import MIN_RANKED, Check

MAX_RANKED = 2000
"""Architectures at most: every statistic looks at all pairs of them."""

_Key = tuple[str, float | None]
NEGLIGIBLE = 0.05
"""A gain in tau that is not worth having: «no better» means that the difference's upper end is below it."""

_RIVALS: tuple[tuple[str, str, Verdict], ...] = (
    (RANDOM, "random subsets of its size", "no better than random"),
    (FLOPS, "counting FLOPs", "no better than counting FLOPs"),
    (FEWER_EPOCHS, "fewer epochs on everything", "no better than fewer epochs"),
)


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
        manifest: The proxy's: its ratio and seed, how many samples there are, and what the build took.

    Raises:
        EvidenceError: Fewer than five architectures have every run, or more than `MAX_RANKED`; accuracies on full data or on
            the proxy are constant, or there are none.
    """
    own_ratio = manifest.draw.ratio
    measured = collect_accuracies(table, provenance.planned)
    _check_enough(measured, own_ratio, provenance.failures)
    full, cost = measured.accuracies[FULL, 1.0], measured.costs[FLOPS]
    references = other_seeds(full)
    n_draws = {len(set(draws)) for draws in measured.draws.values()}
    counts = draw_resamples(len(measured.names), len(references), n_draws, manifest.seed)

    values: dict[_Key, dict[str, Floats]] = {
        key: compare_repeats(references, accuracies, measured.draws[key], cost, counts)
        for key, accuracies in measured.accuracies.items()
        if key[0] != FULL
    }
    values[FULL, None] = compare_seeds(references, full, cost, counts) if len(full) > 1 else {}
    for method in FREE_RANKINGS:
        draws = np.zeros(1, np.int64)
        values[method, None] = compare_repeats(references, measured.costs[method][None], draws, cost, counts)
    draws = measured.draws[PROXY, own_ratio]
    own, own_tau = measured.accuracies[PROXY, own_ratio][draws == 0], EstimateRecord(value=None, low=None, high=None)
    if len(own):
        own_tau = estimate(compare_repeats(references, own, draws[draws == 0], cost, counts, ["tau"])["tau"])

    methods = tuple(_describe(key, measured, references, of_key) for key, of_key in values.items())
    comparisons = tuple(_compare_with_controls(values, measured))
    own_draws = measured.count_draws(PROXY, own_ratio)
    at_own_ratio = sum(ratio in (1.0, own_ratio) for ratio in table["ratio"].to_pylist())
    verdict, explanation = judge(comparisons, own_ratio, own_draws, at_own_ratio)
    if len(full) == 1:
        explanation += " There is one training on everything: its noise is in no interval."
    evidence = EvidenceRecord(
        check=CheckRecord.model_validate(check.model_dump()),
        own_ratio=own_ratio,
        runs=provenance.runs,
        reference=provenance.reference,
        n_architectures=len(measured.names),
        n_like_cost_pairs=int(are_alike(cost).sum()) // 2,
        n_top=n_top(len(measured.names)),
        n_full_seeds=len(full),
        n_draws=own_draws,
        left_out=measured.left_out,
        failures=tuple(provenance.failures),
        methods=methods,
        comparisons=comparisons,
        verdict=verdict,
        explanation=explanation,
        own_tau=own_tau,
        passed=None,
        sufficient_ratio=None,
        spending=weigh_spending(table, own_ratio, manifest.counts.train, manifest.counts.test, manifest.stages),
        elapsed_seconds=provenance.elapsed_seconds,
        machine=provenance.machine,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return evidence.model_copy(update=_gate(evidence))


def _gate(evidence: EvidenceRecord) -> dict[str, bool | float | None]:
    """Tells whether the threshold is reached, and the smallest ratio that reaches the target; one draw reaches nothing."""

    def reaches(ratio: float, goal: float | None) -> bool:
        method = evidence.of(PROXY, ratio)
        low = method.statistics["tau"].low if method is not None and method.n_draws > 1 else None
        return goal is not None and low is not None and low >= goal

    threshold = evidence.check.threshold
    return {
        "passed": None if threshold is None else reaches(evidence.own_ratio, threshold),
        "sufficient_ratio": min((ratio for ratio in evidence.ratios if reaches(ratio, evidence.target)), default=None),
    }


def judge(comparisons: Sequence[ComparisonRecord], own_ratio: float, n_draws: int, n_runs: int) -> tuple[Verdict, str]:
    """Puts the comparisons into words: first what is certain, against random, FLOPs and fewer epochs in this order.

    Args:
        comparisons: Of the proxy with its controls.
        own_ratio: The proxy's.
        n_draws: Draws of the proxy.
        n_runs: Runs behind the comparisons.

    Returns:
        The verdict, and a sentence or two that say why.
    """
    of: dict[str, ComparisonRecord] = {each.control: each for each in comparisons if each.ratio == own_ratio}
    alike_in_cost = FLOPS in of and of[FLOPS].difference.value is None  # there is nothing to count
    rivals = [each for each in _RIVALS if not (alike_in_cost and each[0] == FLOPS)]
    compared = [(of[control], words, verdict) for control, words, verdict in rivals if control in of]
    for against, words, verdict in compared:
        less = f"The proxy's Kendall tau less that of {words} is {against.difference.shown()}"
        if against.outcome == "worse":
            is_random = against.control == RANDOM
            return "worse than random" if is_random else verdict, f"{less}: all of the interval is below zero."
        if against.outcome == "no better":
            return verdict, f"{less}: a gain of 0.05 is ruled out."
    if missing := [words for control, words, _ in rivals if control not in of]:
        return "not enough evidence", f"There are no runs of {' or of '.join(missing)} to compare it with."
    for against, words, _ in compared:
        if against.outcome == "undecided":
            explanation = "There is one draw of the proxy, so that nobody can tell its luck from its worth; check with 3 draws or more."
            if n_draws > 1:
                less = f"The proxy's Kendall tau less that of {words} is {against.difference.shown()}"
                settles = _runs_to_settle(against.difference, n_runs)
                explanation = f"{less}, which neither shows a gain nor rules out one of 0.05. {settles}"
            return "not enough evidence", explanation
    differences = ", ".join(f"{against.difference.shown()} above {words}" for against, words, _ in compared)
    free = of.get(PARAMETERS)
    beside = f" Less that of counting parameters it is {free.difference.shown()} ({free.outcome})." if free else ""
    return "preserves the ranking", f"The proxy's Kendall tau is {differences}.{beside}"


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
                longer = "train longer (training.epochs), or on more samples (selection.ratio)"
                shorter = "they are saturated: train shorter (training.epochs), on smaller images (source.image_size) or harder data"
                raise EvidenceError(
                    f"check: accuracies must differ to be ranked; all {n} architectures have {row[0]:.4g} on {name}, number "
                    f"{number}; {shorter if row[0] == 1 else longer}"
                )


def _describe(key: _Key, measured: Measured, references: Floats, values: dict[str, Floats]) -> MethodRecord:
    method, ratio = key
    accuracies = measured.accuracies.get((method, ratio or 1.0))
    each = measured.costs[method][None] if accuracies is None else accuracies
    # a cost is no accuracy
    says_nothing = {FLOPS: ("pearson", "tau_given_cost"), PARAMETERS: ("pearson",)}.get(method, ())
    return MethodRecord(
        method=method,
        ratio=ratio,
        n_draws=measured.count_draws(method, ratio or 1.0),
        mean_accuracy=None if accuracies is None else float(accuracies.mean()),
        tau_of_repeats=_tau_of_repeats(references, each, is_itself=method == FULL) if values else (),
        statistics={name: estimate(values[name]) for name in values if name not in says_nothing},
    )


def _tau_of_repeats(references: Floats, measured: Floats, *, is_itself: bool) -> tuple[float | None, ...]:
    """Computes each repeat's own tau: the mean over the references, or for a full seed its own reference alone."""
    one = np.ones((1, measured.shape[1]), np.int64)
    against = references[:, None] if is_itself else [references] * len(measured)
    pairs = zip(measured, against, strict=True)
    taus = [float(np.mean([kendall_tau(each, accuracies, one) for each in others])) for accuracies, others in pairs]
    return tuple(tau if math.isfinite(tau) else None for tau in taus)


def _compare_with_controls(values: dict[_Key, dict[str, Floats]], measured: Measured) -> Iterable[ComparisonRecord]:
    """Compares the proxy at each ratio with everything of that ratio and with the free rankings.

    Where one of the two was drawn once nothing is decided: the interval does not hold the noise of drawing it.
    """
    for method, ratio in values:
        if method != PROXY or ratio is None:
            continue
        for control in (*AT_ONE_RATIO[1:], *FREE_RANKINGS):
            of_control = values.get((control, None if control in FREE_RANKINGS else ratio))
            if of_control is not None:
                difference = estimate(values[PROXY, ratio]["tau"] - of_control["tau"])
                n_draws = [measured.count_draws(each, ratio) for each in (PROXY, control) if each not in FREE_RANKINGS]
                outcome = "undecided" if min(n_draws) == 1 else _outcome(difference)
                yield ComparisonRecord(control=control, ratio=ratio, difference=difference, outcome=outcome)


def _outcome(difference: EstimateRecord) -> Literal["better", "no better", "worse", "undecided"]:
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "no better" if difference.high < NEGLIGIBLE else "undecided"


def _runs_to_settle(difference: EstimateRecord, n_runs: int) -> str:
    """Says how many more runs would settle an undecided comparison, if the difference stays and its interval shrinks as 1 / sqrt(n)."""
    if difference.value is None:
        return "Draws whose accuracies are all the same have no ranking: train longer, or on more samples."
    if difference.low is None or difference.high is None:
        return "More architectures and draws are needed."
    gain, factors = difference.value, []
    if gain > 0:  # until the lower end is above 0
        factors.append(((gain - difference.low) / gain) ** 2)
    if gain < NEGLIGIBLE:  # until the upper end is below what would matter
        factors.append(((difference.high - gain) / (NEGLIGIBLE - gain)) ** 2)
    factor = min(factors)
    fewest, most = (max(1, math.ceil((times - 1) * n_runs)) for times in (factor, factor**2))
    return (
        f"If it stays so, about {factor:,.1f} times as many architectures, draws or both would settle it, whichever holds the "
        f"noise: {fewest:,} to {most:,} runs more than the {n_runs:,} here."
    )
