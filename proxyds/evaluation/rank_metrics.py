"""Rank statistics on arrays: how well one measurement of some architectures agrees with another.

Every statistic is computed for many choices of architectures at once, because its interval needs it with some left out:
`counts` (B, n) says how often each of the n architectures is counted in each of B choices. Counts of one give the plain
statistic. Two copies of one architecture are tied with each other and tell nothing, as tau-b wants it.

`reference` is the full-data accuracy and `measured` what is compared with it: an accuracy on the proxy, or a cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from proxyds.artifact.ranking_table import best_first

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

LIKE_COST = 0.1
"""Two architectures are of like cost where theirs differ by at most this share of the larger."""


def pearson(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes Pearson's correlation, the paper's «correlation score».

    Args:
        reference: (n,).
        measured: (n,).
        counts: (B, n).

    Returns:
        (B,) in [-1, 1]; NaN where one of the two is constant.
    """
    return _weighted_pearson(np.broadcast_to(reference, counts.shape), np.broadcast_to(measured, counts.shape), counts)


def spearman(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes Spearman's correlation: Pearson's of the ranks, ties at their mean rank. See `pearson`."""
    return _weighted_pearson(_ranks(reference, counts), _ranks(measured, counts), counts)


def kendall_tau(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes Kendall's tau-b (1945): pairs in the same order less pairs in the opposite one, ties left out. See `pearson`."""
    return _tau(reference, measured, counts, np.ones((len(reference), len(reference))))


def weighted_tau(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes Vigna's weighted tau (2015) with additive hyperbolic weights, ranks by the reference. See `pearson`.

    A pair weighs 1 / (r + 1) + 1 / (s + 1) where the best architecture by the reference has rank 0: the top counts most. The
    ranks are those among all architectures, in every resample.
    """
    rank = np.empty(len(reference))
    rank[best_first(reference)] = np.arange(len(reference))
    weight = 1 / (rank + 1)
    return _tau(reference, measured, counts, weight[:, None] + weight[None, :])


def top_tau(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes tau-b among the top of the reference (`n_top`): what a search needs. See `pearson`."""
    is_top = np.zeros(len(reference), np.int64)
    is_top[best_first(reference)[: n_top(len(reference))]] = 1
    return kendall_tau(reference, measured, counts * is_top)


def top_overlap(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes the share of the top of the reference (`n_top`) that is in the top of the measurement, (B,) in [0, 1]."""
    n = n_top(len(reference))
    common = np.minimum(_copies_in_top(reference, counts, n), _copies_in_top(measured, counts, n))
    overlap: Floats = common.sum(axis=1) / np.minimum(n, counts.sum(axis=1))
    return overlap


def same_best(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Tells whether both name the same best architecture: (B,) of 1 and 0, or the share where several are measured best."""
    best = _is_best(measured, counts)
    share: Floats = (best & _is_best(reference, counts)).sum(axis=1) / best.sum(axis=1)
    return share


def regret(reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes what choosing by the measurement costs: the best reference accuracy less that of the architecture chosen.

    Returns:
        (B,) not negative, in the unit of the reference; the mean where several are measured best.
    """
    best = _is_best(measured, counts)
    chosen = (best * reference).sum(axis=1) / best.sum(axis=1)
    lost: Floats = np.where(counts > 0, reference, -np.inf).max(axis=1) - chosen
    return lost


def regret_of(k: int, reference: Floats, measured: Floats, counts: Counts) -> Floats:
    """Computes what is lost if the k best by the measurement are known by the reference, too; ties in their own order.

    Returns:
        (B,) not negative, in the unit of the reference.
    """
    order = best_first(measured)
    there = counts[:, order] > 0
    is_among = there & (np.cumsum(there, axis=1) <= k)
    chosen = np.where(is_among, reference[order], -np.inf).max(axis=1)
    lost: Floats = np.where(counts > 0, reference, -np.inf).max(axis=1) - chosen
    return lost


def add_parameters(accuracies: Floats, n_parameters: Floats, weight: float) -> Floats:
    """Scores architectures by accuracy and the number of parameters together, each as van der Waerden's normal scores (1952).

    Short training ranks large networks too low, and this takes it back, for nothing. The weight is fixed beforehand.

    Args:
        accuracies: (R, n).
        n_parameters: (n,).
        weight: What the scores of parameters count beside those of accuracies.

    Returns:
        (R, n).
    """
    scores: Floats = normal_scores(accuracies) + weight * normal_scores(n_parameters)
    return np.round(scores, 12)  # equal ones stay equal


def normal_scores(values: Floats) -> Floats:
    """Replaces values by the normal quantiles of their ranks over n + 1, along the last axis; ties share their mean score."""
    n = values.shape[-1]
    quantiles = stats.norm.ppf(np.arange(1, n + 1) / (n + 1))
    below = stats.rankdata(values, method="min", axis=-1).astype(int) - 1
    last = stats.rankdata(values, method="max", axis=-1).astype(int)
    summed = np.concatenate([[0.0], np.cumsum(quantiles)])
    scores: Floats = (summed[last] - summed[below]) / (last - below)
    return scores


def partial_tau(reference: Floats, measured: Floats, counts: Counts, cost: Floats) -> Floats:
    """Computes Kendall's partial tau given cost (1942): how far the two agree beyond what cost explains. See `pearson`.

    Cost is (n,), for example FLOPs. NaN where cost ranks as one of the two does, so that nothing is left to explain.
    """
    tau = kendall_tau(reference, measured, counts)
    of_reference, of_measured = kendall_tau(reference, cost, counts), kendall_tau(measured, cost, counts)
    rest = (1 - of_reference**2) * (1 - of_measured**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(rest > 1e-12, (tau - of_reference * of_measured) / np.sqrt(rest), np.nan)


def like_cost_tau(reference: Floats, measured: Floats, counts: Counts, cost: Floats) -> Floats:
    """Computes tau-b over the pairs of like cost alone (`LIKE_COST`), where cost cannot rank; NaN without such pairs."""
    return _tau(reference, measured, counts, are_alike(cost).astype(np.float64))


def are_alike(cost: Floats) -> NDArray[np.bool_]:
    """Tells which pairs of architectures are of like cost, (n, n) bool, false on the diagonal."""
    larger = np.maximum(cost[:, None], cost[None, :])
    alike: NDArray[np.bool_] = np.abs(cost[:, None] - cost[None, :]) <= LIKE_COST * larger
    return alike & ~np.eye(len(cost), dtype=np.bool_)


def n_top(n: int) -> int:
    """Counts the architectures that are the «top» of n: the best fifth, five at least."""
    return max(5, n // 5)


def _without_cost(function: Callable[[Floats, Floats, Counts], Floats]) -> Callable[..., Floats]:
    return lambda reference, measured, counts, _cost: function(reference, measured, counts)


Metric = Callable[[Floats, Floats, Counts, Floats], Floats]
METRICS: dict[str, Metric] = {
    "tau": _without_cost(kendall_tau),
    "tau_given_cost": partial_tau,
    "tau_like_cost": like_cost_tau,
    "tau_top": _without_cost(top_tau),
    "tau_weighted": _without_cost(weighted_tau),
    "spearman": _without_cost(spearman),
    "pearson": _without_cost(pearson),
    "top_overlap": _without_cost(top_overlap),
    "same_best": _without_cost(same_best),
    "regret": _without_cost(regret),
    "regret_of_3": _without_cost(partial(regret_of, 3)),
    "regret_of_5": _without_cost(partial(regret_of, 5)),
}
"""Each of `ranking_table.STATISTICS`: takes reference (n,), measured (n,), counts (B, n) and cost (n,); returns (B,)."""


def _tau(reference: Floats, measured: Floats, counts: Counts, weights: Floats) -> Floats:
    """Computes tau-b with a weight for each pair of architectures."""
    x, y = (np.sign(values[:, None] - values[None, :]) for values in (reference, measured))
    copies = counts.astype(np.float64)
    agreement = _over_pairs(weights * x * y, copies)
    untied = _over_pairs(weights * x**2, copies) * _over_pairs(weights * y**2, copies)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(untied > 0, agreement / np.sqrt(untied), np.nan)


def _over_pairs(of_pair: Floats, copies: Floats) -> Floats:
    summed: Floats = np.einsum("bi,bi->b", copies @ of_pair, copies)
    return summed


def _weighted_pearson(x: Floats, y: Floats, counts: Counts) -> Floats:
    n = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / n
    y = y - (counts * y).sum(axis=1, keepdims=True) / n
    variances = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variances > 1e-24, (counts * x * y).sum(axis=1) / np.sqrt(variances), np.nan)


def _ranks(values: Floats, counts: Counts) -> Floats:
    """Computes the mean rank of each architecture in each resample, (B, n)."""
    below = (values[None, :] < values[:, None]).astype(np.float64)
    tied = (values[None, :] == values[:, None]).astype(np.float64)
    ranks: Floats = counts @ below.T + (counts @ tied.T + 1) / 2
    return ranks


def _copies_in_top(values: Floats, counts: Counts, n: int) -> Counts:
    """Counts the copies of each architecture that are among the n best of each resample, (B, n_architectures)."""
    order = best_first(values)
    ordered = counts[:, order]
    copies = np.empty_like(counts)
    copies[:, order] = np.clip(n - (np.cumsum(ordered, axis=1) - ordered), 0, ordered)
    return copies


def _is_best(values: Floats, counts: Counts) -> NDArray[np.bool_]:
    present = np.where(counts > 0, values, -np.inf)
    best: NDArray[np.bool_] = present == present.max(axis=1, keepdims=True)
    return best
