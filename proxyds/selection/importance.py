"""Finds each evaluation sample's case, by which probes are right on it, and its importance, by the case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proxyds.selection.records import (
    AGAINST_ORDER,
    ALL_RIGHT,
    ALL_WRONG,
    CASE_MEANINGS,
    WITH_ORDER,
    Agreement,
    Outcomes,
)


def score_importance(
    predictions: Sequence[Sequence[NDArray[np.int64]]], labels: NDArray[np.int64], constants: Sequence[float]
) -> Outcomes:
    """Gives each evaluation sample its case and importance (paper, section 3 and Algorithm 1 step 3).

    For two probes: case 1 both right, case 2 both wrong, case 3 only the more accurate one right, case 4 only the less
    accurate one. Accuracies are those on these very samples, the mean over repeats.

    Deviations. Algorithm 1's printed c4 contradicts section 3 where the lower probe is the more accurate; section 3 is
    followed. Probes of equal accuracy have no order: a sample on which they differ is case 4. For k > 2 probes the paper
    says no more than «counting the number of configuration pairs»; here the importance is the mean of the pairs'
    constants, and the case is 1 or 2 where all agree, else 3 or 4 as most of the disagreeing pairs say, a tie being 4.
    The paper trains each probe once. Trained R times with seeds of their own, a sample's importance is the mean over the
    repeats, its case the one that most of them give it (of several, the one that came first); a pair is of one repeat.

    Args:
        predictions: For each of R repeats and k probes (M,) int64, the probe's label for each evaluation sample.
        labels: (M,) int64, the true labels.
        constants: c1..c4, not negative.
    """
    correct = np.stack([np.stack([each == labels for each in of_repeat], axis=1) for of_repeat in predictions])
    n_right = correct.sum(axis=(0, 1))
    pair_counts = np.zeros((len(labels), 4), np.int64)
    cases = np.empty((len(correct), len(labels)), np.int8)
    for repeat, of_repeat in enumerate(correct):
        counts = _count_pairs(of_repeat, n_right)
        cases[repeat] = _find_case(of_repeat, counts)
        pair_counts += counts
    votes = np.stack([(cases == case).sum(axis=0) for case in CASE_MEANINGS])  # (4, M)
    return Outcomes(
        predictions=np.stack([each for of_repeat in predictions for each in of_repeat], axis=1),
        correct=correct.transpose(1, 0, 2).reshape(len(labels), -1),
        case=_most_frequent(cases, votes),
        importance=pair_counts @ np.asarray(constants, np.float64) / pair_counts.sum(axis=1),
        pair_counts=pair_counts,
        agreement=_measure_agreement(cases, votes) if len(cases) > 1 else None,
    )


def _count_pairs(correct: NDArray[np.bool_], n_right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts how many pairs of one repeat's probes (M, k) fall into each case, as (M, 4)."""
    n_probes = correct.shape[1]
    right = correct.sum(axis=1)
    wrong = n_probes - right
    all_right, all_wrong = right * (right - 1) // 2, wrong * (wrong - 1) // 2
    is_less_accurate = n_right[:, None] < n_right  # of the first than the second
    weaker_wrong = ~correct @ is_less_accurate.astype(np.int64)  # (M, k): less accurate probes that are wrong
    with_order = (correct * weaker_wrong).sum(axis=1)
    return np.stack([all_right, all_wrong, with_order, right * wrong - with_order], axis=1)


def _find_case(correct: NDArray[np.bool_], pair_counts: NDArray[np.int64]) -> NDArray[np.int64]:
    case = np.where(pair_counts[:, 2] > pair_counts[:, 3], WITH_ORDER, AGAINST_ORDER)
    case[correct.all(axis=1)] = ALL_RIGHT
    case[~correct.any(axis=1)] = ALL_WRONG
    return case.astype(np.int64)


def _most_frequent(cases: NDArray[np.int8], votes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Finds the case that most repeats (R, M) give each sample; of several, the one that came first."""
    firsts = np.stack([(cases == case).argmax(axis=0) for case in CASE_MEANINGS])
    best = (votes * (len(cases) + 1) - firsts).argmax(axis=0)  # a case without votes stays below one with any
    most_frequent: NDArray[np.int64] = np.array(list(CASE_MEANINGS), np.int64)[best]
    return most_frequent


def _measure_agreement(cases: NDArray[np.int8], votes: NDArray[np.int64]) -> Agreement:
    """Measures how far the cases (R, M) of repeats are the same, over all pairs of repeats."""
    n_repeats, n_samples = cases.shape
    n_pairs = n_repeats * (n_repeats - 1) / 2
    both = (votes * (votes - 1) // 2).sum(axis=1)  # (4,) pairs of repeats that agree on a case, over the samples
    either = votes.sum(axis=1) * (n_repeats - 1) / 2
    shares = np.stack([(cases == case).mean(axis=1) for case in CASE_MEANINGS])  # (4, R)
    by_chance = (shares.sum(axis=1) ** 2 - (shares**2).sum(axis=1)) / 2
    return Agreement(
        share=float(both.sum() / (n_pairs * n_samples)),
        by_chance=float(by_chance.sum() / n_pairs),
        of_cases=tuple(float(b / e) if e else None for b, e in zip(both, either, strict=True)),
    )
