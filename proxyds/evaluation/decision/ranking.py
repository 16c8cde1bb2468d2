"""Ranks candidates by what is expected of them on everything: an order, chances, a shortlist, what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from proxyds.artifact.evidence_records import EvidenceRecord
from proxyds.artifact.ranking_table import BY_LOSS, FULL, PARAMETERS, PROXY, Measured, best_first, collect_accuracies
from proxyds.evaluation.decision.prediction import (
    ENDS,
    Architectures,
    Model,
    find_full_noise,
    find_noise,
    fit_model,
    to_log_odds,
    to_negative_log,
)
from proxyds.evaluation.decision.ranked import NextStep, RankedCandidate, Ranking
from proxyds.evaluation.decision.results import Candidate
from proxyds.evaluation.decision.shortlist import choose_shortlist, find_chances, find_groups, weigh_steps
from proxyds.evaluation.intervals import MIN_ARCHITECTURES
from proxyds.evaluation.rank_metrics import Floats
from proxyds.seeding import derive_seed

CONFIDENCE = 0.9
"""With which the best candidate is on a shortlist, unless another is asked for."""
N_SAMPLES = 8_000
"""Draws of what candidates may have, at most: a chance of 10 % is known to a third of a point."""
MAX_DRAWN = 40_000_000
"""Accuracies that are drawn in all, at most: of more than 5,000 candidates fewer draws."""
RANGE_MARGIN = 0.5
"""Candidates may lie so far outside of the check's accuracies on the proxy, in widths of their range."""
MeasuredOn = Literal["validation", "test"]
"""Samples that accuracies on the proxy are measured on: the proxy's split of that name, or the source's test samples."""
MIN_KNOWN = 3
"""With so many known accuracies on everything, these are compared with what was expected."""
ROUNDED = 5e-5
"""Accuracies on everything that differ by no more are the same, but for rounding."""


def rank_candidates(
    candidates: Sequence[Candidate],
    evidence: EvidenceRecord | None,
    runs: pa.Table | None,
    *,
    n_test: int | None,
    seed: int,
    confidence: float,
    measured_on: MeasuredOn,
    have_soft_labels: bool = False,
) -> Ranking:
    """Ranks candidates by what is expected of them on everything.

    Args:
        candidates: Each with a training on the proxy at least.
        evidence: The proxy's; None where its ranking was not checked.
        runs: The table `ranking` behind the evidence.
        n_test: The source's test samples; None where unknown.
        seed: The recipe's; of the draws that chances are counted in.
        confidence: With which the best is on the shortlist, in (0, 1).
        have_soft_labels: Whether the proxy has soft labels. Then candidates stand in the order of their losses, where all are given and nothing tells more.
        measured_on: Which samples the accuracies on the proxy are of; where the check did not measure on `validation`, its test samples stand for them.
    """
    means = np.array([each.mean for each in candidates])
    losses = _list_losses(candidates)
    of_order = losses if have_soft_labels else None
    if evidence is None or runs is None:
        return _order(
            candidates,
            of_order,
            confidence,
            "No check says what accuracies on this proxy tell: run `proxyds check` on it for chances and a shortlist.",
        )
    measured = collect_accuracies(runs)
    if len(measured.names) < MIN_ARCHITECTURES:
        why = f"The check ranks {len(measured.names)} architectures, and chances take {MIN_ARCHITECTURES} at least: check more of them, or build a proxy for a larger space."
        return _order(candidates, of_order, confidence, why)
    way, notes = (PROXY, evidence.own_ratio), list[str]()
    if evidence.ranked_by != BY_LOSS:  # its networks learned labels, so that losses rank badly
        measured = replace(measured, losses={}, losses_on_evaluation={})
    if measured_on == "validation" and way in measured.on_evaluation:
        measured = _take_validation(measured, way)
    elif measured_on == "validation":
        notes.append("The check measured on test samples alone: these stand for the split validation.")
    if unlike := _explain_unlike(means, measured.accuracies[way]):
        return _order(candidates, of_order, confidence, unlike)
    if evidence.ranked_by == BY_LOSS and (unused := _explain_unused(candidates, measured.losses.get(way))):
        notes.append(unused)
        measured = replace(measured, losses={})
    notes += _note_known(candidates, measured)
    candidates = [_take_known(each, measured) for each in candidates]
    expected = expect(candidates, measured, evidence.own_ratio, derive_seed(seed, "rank"), n_test=n_test)
    ranking = _decide(candidates, means, expected, evidence, confidence)
    notes += [*_list_notes(evidence, candidates, expected), *_list_beyond(ranking, measured, way)]
    return replace(ranking, notes=tuple(notes))


@dataclass(frozen=True)
class Expected:
    """What candidates may have on everything.

    Attributes:
        samples: (n_samples, m) accuracies in [0, 1], drawn together.
        asked: What is known of the candidates.
        model: Fitted to the check's architectures and the candidates that are known.
        before: Fitted to the check's architectures alone.
        learned: (m,) bool, candidates that the model is fitted to besides.
        uses_loss: Whether losses on the proxy count, not accuracies.
    """

    samples: Floats
    asked: Architectures
    model: Model
    before: Model
    learned: NDArray[np.bool_]
    uses_loss: bool = False


def expect(
    candidates: Sequence[Candidate],
    measured: Measured,
    own_ratio: float,
    seed: int,
    n_samples: int = N_SAMPLES,
    n_test: int | None = None,
) -> Expected:
    """Finds what candidates may have on everything.

    Args:
        candidates: Each with a training on the proxy at least; with its loss, where `measured` has losses on the proxy.
        measured: The check's accuracies. Losses on the proxy count in their place, where there are any.
        own_ratio: The proxy's.
        seed: Of the draws.
        n_samples: How many, at most.
        n_test: The source's test samples; None where unknown.
    """
    known, asked, noise = _align(candidates, measured, own_ratio, n_test)
    is_of_check = np.isin([each.name for each in candidates], measured.names)
    learned = ~is_of_check & np.isfinite(asked.on_everything)
    model = fit_model(known, asked, learned, noise)
    before = fit_model(known, asked, np.zeros(len(candidates), np.bool_), noise)
    n_samples = min(n_samples, max(MAX_DRAWN // len(candidates), 100))
    uses_loss = (PROXY, own_ratio) in measured.losses
    return Expected(model.sample(asked, n_samples, seed), asked, model, before, learned, uses_loss)


def _take_validation(measured: Measured, way: tuple[str, float]) -> Measured:
    """Takes what a data set's networks reached on the split `validation` for what they reached on test samples."""
    losses = {way: measured.losses_on_evaluation[way]} if way in measured.losses_on_evaluation else {}
    return replace(measured, accuracies={**measured.accuracies, way: measured.on_evaluation[way]}, losses=losses)


def _list_losses(candidates: Sequence[Candidate]) -> Floats | None:
    """Lists the mean losses of candidates on the proxy, (m,); None unless all are given."""
    losses = [each.mean_loss for each in candidates]
    return None if None in losses else np.array(losses, float)


def _explain_unused(candidates: Sequence[Candidate], of_check: Floats | None) -> str | None:
    """Says why candidates of a proxy with soft labels do not rank by loss; None where they do.

    Args:
        candidates: Their losses are missing, or are given.
        of_check: (R, n) of its architectures on the proxy; None where they were not measured on these samples.
    """
    if of_check is None:
        return (
            "Accuracies count, not losses: the check did not measure losses on the split validation. Check the proxy again, or measure "
            "candidates on the source's test samples and say so: measured_on (--measured-on)."
        )
    losses = _list_losses(candidates)
    if losses is None:
        lacking = [each.name for each in candidates if each.mean_loss is None]
        return (
            f"Accuracies count, not losses, by which the check ranked: {len(lacking)} of {len(candidates)} candidates lack the loss of a "
            f"training, such as {lacking[0]!r}. It is the mean cross-entropy with the true labels of the same samples."
        )
    own = of_check.mean(axis=0)
    if _are_far(to_negative_log(losses), to_negative_log(own)).mean() <= 0.5:
        return None
    return (
        f"Accuracies count, not losses: most lie outside of the check's on the proxy, {own.min():.3g} to {own.max():.3g}. Is the "
        "loss the mean cross-entropy with the true labels, in nats?"
    )


def _order(candidates: Sequence[Candidate], losses: Floats | None, confidence: float, why: str) -> Ranking:
    """Orders candidates by loss on the proxy, (m,), or without these by accuracy, where nothing tells more."""
    scores = np.array([each.mean for each in candidates]) if losses is None else -losses
    ordered = [
        RankedCandidate(each.name, each.mean, len(each.runs), each.full_accuracy, each.mean_loss)
        for each in (candidates[i] for i in best_first(scores))
    ]
    return Ranking(tuple(ordered), confidence, order_only=why, uses_loss=losses is not None)


def _explain_unlike(means: Floats, own: Floats) -> str | None:
    """Says where the candidates' accuracies are unlike the check's: they were trained or measured otherwise."""
    of_check = own.mean(axis=0)
    if _are_far(means, of_check).mean() <= 0.5:
        return None
    low, high = float(of_check.min()), float(of_check.max())
    outside = (means < low) | (means > high)
    return (
        f"{outside.sum()} of {len(means)} candidates lie outside of the check's accuracies on the proxy, {low:.1%} to {high:.1%}. They were "
        "trained or measured otherwise, so the check says nothing of them. Train them on the proxy as its recipe's section training says, or "
        "check the proxy with your own trainings: runs (--runs) of `proxyds check`."
    )


def _are_far(means: Floats, of_check: Floats) -> NDArray[np.bool_]:
    """Tells which candidates, (m,), lie outside of the check's architectures by `RANGE_MARGIN` of their range."""
    low, high = of_check.min(), of_check.max()
    margin = RANGE_MARGIN * (high - low)
    far: NDArray[np.bool_] = (means < low - margin) | (means > high + margin)
    return far


def _note_known(candidates: Sequence[Candidate], measured: Measured) -> list[str]:
    """Says which candidates the check has trained on everything, and where the results say otherwise of one."""
    of_check = dict(zip(measured.names, measured.accuracies[FULL, 1.0].mean(axis=0).tolist(), strict=True))
    trained = [each for each in candidates if each.name in of_check]
    replaced = [
        each
        for each in trained
        if each.full_accuracy is not None and abs(each.full_accuracy - of_check[each.name]) > ROUNDED
    ]
    notes = [
        f"{each.name}: its full_accuracy in the results, {each.full_accuracy:.2%}, is taken, not the check's own {of_check[each.name]:.2%}."
        for each in replaced
    ]
    if n_taken := len(trained) - len(replaced):
        those = f"all {n_taken}" if n_taken == len(candidates) else f"{n_taken} of {len(candidates)}"
        notes.append(
            f"The check has trained {those} candidates on everything already: the proxy was not needed to rank these."
        )
    return notes


def _take_known(candidate: Candidate, measured: Measured) -> Candidate:
    """Takes a candidate's accuracy on everything from the check, where that trained it and the results do not say."""
    if candidate.full_accuracy is not None or candidate.name not in measured.names:
        return candidate
    of_check = measured.accuracies[FULL, 1.0][:, measured.names.index(candidate.name)]
    return replace(candidate, full_accuracy=float(of_check.mean()), n_full=len(of_check))


def _align(
    candidates: Sequence[Candidate], measured: Measured, own_ratio: float, n_test: int | None
) -> tuple[Architectures, Architectures, float]:
    """Puts the check's architectures and the candidates on one scale: trained on the same draws, less what these add to all.

    Where the check has the very draws that candidates were trained on, only its trainings on these count: what a draw does to
    some kinds of architectures is then in both. Losses on the proxy count where `measured` has them, else accuracies.

    Returns:
        The check's architectures, the candidates, and the variance of one training.
    """
    losses, draws = measured.losses.get((PROXY, own_ratio)), measured.draws[PROXY, own_ratio]
    own = to_log_odds(measured.accuracies[PROXY, own_ratio]) if losses is None else to_negative_log(losses)
    drawn = {run.draw for each in candidates for run in each.runs}
    are_there = drawn <= set(draws.tolist())
    chosen = np.isin(draws, list(drawn)) if are_there else np.ones(len(draws), np.bool_)
    of_draw = {int(draw): float(own[draws == draw].mean()) for draw in np.unique(draws)}
    level = float(own[chosen].mean())

    def centre(each: Candidate) -> Floats:
        told: Floats = (
            to_log_odds(np.array([run.accuracy for run in each.runs]))
            if losses is None
            else to_negative_log(np.array([run.loss for run in each.runs], float))
        )
        centred: Floats = told - np.array([of_draw.get(run.draw, level) for run in each.runs])
        return centred

    centred = own - np.array([of_draw[int(draw)] for draw in draws])[:, None]
    repeats = [centre(each) for each in candidates]
    noise = find_noise([*repeats, *centred[chosen].T]) or find_noise(list(centred.T))
    counts = [each.n_parameters for each in candidates]
    parameters = None if None in counts else np.log(np.array(counts, float))
    known = Architectures(
        on_proxy=centred[chosen].mean(axis=0),
        n_runs=np.full(len(measured.names), int(chosen.sum())),
        log_parameters=np.log(measured.costs[PARAMETERS]),
        on_everything=to_log_odds(measured.accuracies[FULL, 1.0].mean(axis=0)),
    )
    end = ENDS if n_test is None else max(ENDS, 0.5 / n_test)  # all answers right may be half an answer less
    full = np.array([math.nan if each.full_accuracy is None else each.full_accuracy for each in candidates])
    full = np.clip(full, end, 1 - end)
    of_check = np.clip(measured.accuracies[FULL, 1.0], end, 1 - end)
    n_full = np.array([max(each.n_full, 1) for each in candidates])
    asked = Architectures(
        on_proxy=np.array([each.mean() for each in repeats]),
        n_runs=np.array([len(each) for each in repeats]),
        log_parameters=parameters,
        on_everything=to_log_odds(full),
        noise=find_full_noise(of_check, full, n_test) / n_full,
    )
    return known, asked, noise


def _list_notes(evidence: EvidenceRecord, candidates: Sequence[Candidate], expected: Expected) -> list[str]:
    """Lists what must be known of a ranking."""
    notes, asked = [], expected.asked
    if evidence.verdict.startswith(("no better", "worse")):
        notes.append(f"The check's verdict on this proxy is «{evidence.verdict}».")
    if asked.log_parameters is None:
        notes.append(
            "The number of parameters does not count here: it is not known of all candidates. Give n_parameters, which mostly ranks better. "
            "`proxyds inspect RECIPE` lists it for the search space; of a network in torch it is sum(p.numel() for p in network.parameters()), "
            "and proxyds.rank counts it where it is given the networks (space=)."
        )
    learned = expected.learned
    if learned.sum() >= MIN_KNOWN:
        unknown = replace(asked, on_everything=np.full(len(candidates), np.nan))
        chances = find_chances(expected.before.sample(unknown, len(expected.samples), 0))
        true = np.array([math.nan if each.full_accuracy is None else each.full_accuracy for each in candidates])
        outside = learned & ((true < chances.low) | (true > chances.high))
        if outside.sum() > learned.sum() / 2:
            notes.append(
                f"{outside.sum()} of {learned.sum()} known accuracies on everything lie outside of what the check lets expect: the "
                "candidates are trained otherwise than its architectures. Trust the known ones more than the chances."
            )
    return notes


def _decide(
    candidates: Sequence[Candidate], means: Floats, expected: Expected, evidence: EvidenceRecord, confidence: float
) -> Ranking:
    samples, asked, model = expected.samples, expected.asked, expected.model
    chances = find_chances(samples)
    order = best_first(chances.expected)
    listed, chance_of_shortlist = choose_shortlist(samples, confidence)
    groups = find_groups(samples, order, confidence)
    known = np.isfinite(asked.on_everything)
    full_flops, proxy_flops = (
        _price(candidates, evidence, flops) for flops in (evidence.spending.full_flops, evidence.spending.proxy_flops)
    )
    ranked = tuple(
        RankedCandidate(
            name=candidates[i].name,
            accuracy=float(means[i]),
            n_runs=len(candidates[i].runs),
            full_accuracy=candidates[i].full_accuracy,
            loss=candidates[i].mean_loss,
            expected=float(chances.expected[i]),
            low=float(chances.low[i]),
            high=float(chances.high[i]),
            chance_of_best=float(chances.best[i]),
            chance_of_close=float(chances.close[i]),
            group=int(groups[i]),
            is_listed=i in listed,
        )
        for i in order
    )
    best = samples.max(axis=1)
    on_everything = {i: each.full_accuracy for i, each in enumerate(candidates) if each.full_accuracy is not None}
    best_known = max(on_everything, key=lambda i: on_everything[i], default=None)
    open_listed = [i for i in listed if not known[i]]
    return Ranking(
        candidates=ranked,
        confidence=confidence,
        shortlist=tuple(candidates[i].name for i in listed),
        to_train=tuple(candidates[i].name for i in open_listed),
        chance_of_shortlist=chance_of_shortlist,
        shortlist_flops=None if full_flops is None else float(full_flops[open_listed].sum()),
        all_flops=None if full_flops is None else float(full_flops.sum()),
        loss_of_first=float((best - samples[:, order[0]]).mean()),
        loss_of_known=None if best_known is None else float((best - samples[:, best_known]).mean()),
        best_known=None if best_known is None else candidates[best_known].name,
        chance_of_known=None if best_known is None else float(chances.best[best_known]),
        is_settled=not open_listed,
        steps=tuple(
            NextStep(
                each.kind,
                candidates[each.position].name,
                each.gain,
                None if prices is None else float(prices[each.position]),
            )
            for each in weigh_steps(samples, chances.expected, asked, model)
            for prices in [full_flops if each.kind == "everything" else proxy_flops]
        ),
        n_fitted=len(model.fitted.on_proxy),
        uses_parameters=model.uses_parameters,
        uses_loss=expected.uses_loss,
    )


def _list_beyond(ranking: Ranking, measured: Measured, way: tuple[str, float]) -> list[str]:
    """Says where candidates of the shortlist lie outside of what the check had on the proxy: accuracies, or losses where these count."""
    own = (measured.losses if ranking.uses_loss else measured.accuracies)[way]
    low, high = float(own.min()), float(own.max())
    listed = {
        each.name: each.loss if ranking.uses_loss else each.accuracy for each in ranking.candidates if each.is_listed
    }
    beyond = [name for name, value in listed.items() if value is not None and not low <= value <= high]
    if not beyond:
        return []
    shown = f"losses of {low:.3g} to {high:.3g}" if ranking.uses_loss else f"{low:.1%} to {high:.1%}"
    return [f"{', '.join(beyond)}: on the proxy outside of the check's {shown}, so that what is expected is less sure."]


def _price(candidates: Sequence[Candidate], evidence: EvidenceRecord, flops: float | None) -> Floats | None:
    """Prices a training of each candidate, (m,), by its forward FLOPs beside those of the check's architectures; None where one is unknown."""
    counts = [each.forward_flops for each in candidates]
    if flops is None or not evidence.architectures or None in counts:
        return None
    prices: Floats = flops * np.array(counts, float) / np.mean([each.forward_flops for each in evidence.architectures])
    return prices
