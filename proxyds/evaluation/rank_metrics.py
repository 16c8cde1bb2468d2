"""Rank statistics on arrays: how well one measurement of some architectures agrees with another.

`reference` is the full-data accuracy and `measured` what is compared with it: an accuracy on the proxy, or a cost.

A correlation is computed for many selections of architectures at once, because its interval needs it with some left out:
`included` (B, n) says which of the n architectures each of B selections holds. What depends on few architectures, such as
regret, has no interval and is computed once, of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from proxyds.artifact.ranking_table import REGRETS, best_first

Floats = NDArray[np.float64]
Included = NDArray[np.bool_]

LIKE_COST = 0.1
"""Two architectures are of like cost where theirs differ by at most this share of the larger."""


def pearson(reference: Floats, measured: Floats, included: Included) -> Floats:
    """Computes Pearson's correlation, the paper's «correlation score».

    Args:
        reference: (n,).
        measured: (n,).
        included: (B, n).

    Returns:
        (B,) in [-1, 1]; NaN where one of the two is constant.
    """
    shape = included.shape
    return _pearson_of(np.broadcast_to(reference, shape), np.broadcast_to(measured, shape), included)


def spearman(reference: Floats, measured: Floats, included: Included) -> Floats:
    """Computes Spearman's correlation: Pearson's of the ranks, ties at their mean rank. See `pearson`."""
    return _pearson_of(_ranks(reference, included), _ranks(measured, included), included)


def kendall_tau(reference: Floats, measured: Floats, included: Included) -> Floats:
    """Computes Kendall's tau-b (1945): pairs in the same order less pairs in the opposite one, ties left out. See `pearson`."""
    return _tau(reference, measured, included, np.ones((len(reference), len(reference))))


def partial_tau(reference: Floats, measured: Floats, included: Included, cost: Floats) -> Floats:
    """Computes Kendall's partial tau given cost (1942): how far the two agree beyond what cost explains. See `pearson`.

    Cost is (n,), for example FLOPs. NaN where cost ranks as one of the two does, so that nothing is left to explain.
    """
    tau = kendall_tau(reference, measured, included)
    of_reference, of_measured = kendall_tau(reference, cost, included), kendall_tau(measured, cost, included)
    rest = (1 - of_reference**2) * (1 - of_measured**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(rest > 1e-12, (tau - of_reference * of_measured) / np.sqrt(rest), np.nan)


def like_cost_tau(reference: Floats, measured: Floats, included: Included, cost: Floats) -> Floats:
    """Computes tau-b over the pairs of like cost alone (`LIKE_COST`), where cost cannot rank; NaN without such pairs."""
    return _tau(reference, measured, included, are_alike(cost).astype(np.float64))


def weighted_tau(reference: Floats, measured: Floats) -> float:
    """Computes Vigna's weighted tau (2015) with additive hyperbolic weights, ranks by the reference.

    A pair weighs 1 / (r + 1) + 1 / (s + 1) where the best architecture by the reference has rank 0: the top counts most.

    Args:
        reference: (n,).
        measured: (n,).

    Returns:
        The value, in [-1, 1]; NaN where one of the two is constant.
    """
    rank = np.empty(len(reference))
    rank[best_first(reference)] = np.arange(len(reference))
    weight = 1 / (rank + 1)
    return float(_tau(reference, measured, include_all(len(rank)), weight[:, None] + weight[None, :])[0])


def top_tau(reference: Floats, measured: Floats) -> float:
    """Computes tau-b among the top of the reference (`n_top`): what a search needs. See `weighted_tau`."""
    top = best_first(reference)[: n_top(len(reference))]
    return float(kendall_tau(reference[top], measured[top], include_all(len(top)))[0])


def top_overlap(reference: Floats, measured: Floats) -> float:
    """Computes the share of the top of the reference (`n_top`) that is in the top of the measurement, in [0, 1]."""
    n = min(n_top(len(reference)), len(reference))
    return len(np.intersect1d(best_first(reference)[:n], best_first(measured)[:n])) / n


def same_best(reference: Floats, measured: Floats) -> float:
    """Tells whether both name the same best architecture: 1 or 0, or the share where several are measured best."""
    return float((reference[measured == measured.max()] == reference.max()).mean())


def regret_of(k: int, reference: Floats, measured: Floats) -> float:
    """Computes what is lost if the k best by the measurement are known by the reference, too.

    Of those that are tied at the k-th place any may be taken: their mean counts.

    Args:
        k: From 1 on; as many as there are at most are taken.
        reference: (n,).
        measured: (n,).

    Returns:
        The best reference accuracy less the best among the k; not negative, in the unit of the reference.
    """
    border = measured[best_first(measured)[min(k, len(measured)) - 1]]
    taken, tied = reference[measured > border], np.sort(reference[measured == border])[::-1]
    n_open = min(k, len(measured)) - len(taken)
    best = np.maximum(tied, taken.max(initial=-np.inf))
    # the i-th best of the tied is the best taken, if all other places go to worse ones
    ways = [math.comb(len(tied) - 1 - i, n_open - 1) for i in range(len(tied))]
    return float(np.average(reference.max() - best, weights=ways))


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


def are_alike(cost: Floats) -> NDArray[np.bool_]:
    """Tells which pairs of architectures are of like cost, (n, n) bool, false on the diagonal."""
    larger = np.maximum(cost[:, None], cost[None, :])
    alike: NDArray[np.bool_] = np.abs(cost[:, None] - cost[None, :]) <= LIKE_COST * larger
    return alike & ~np.eye(len(cost), dtype=np.bool_)


def n_top(n: int) -> int:
    """Counts the architectures that are the «top» of n: the best fifth, five at least."""
    return max(5, n // 5)


def include_all(n: int) -> Included:
    """Selects all of n architectures, (1, n)."""
    return np.ones((1, n), np.bool_)


def _without_cost(function: Callable[[Floats, Floats, Included], Floats]) -> Callable[..., Floats]:
    return lambda reference, measured, included, _cost: function(reference, measured, included)


CORRELATIONS: dict[str, Callable[[Floats, Floats, Included, Floats], Floats]] = {
    "tau": _without_cost(kendall_tau),
    "tau_given_cost": partial_tau,
    "tau_like_cost": like_cost_tau,
    "spearman": _without_cost(spearman),
    "pearson": _without_cost(pearson),
}
"""The statistics of `ranking_table.STATISTICS` that have an interval. Each takes reference (n,), measured (n,), included (B, n) and cost (n,), and returns (B,)."""

OF_FEW: dict[str, Callable[[Floats, Floats], float]] = {
    "tau_top": top_tau,
    "tau_weighted": weighted_tau,
    "top_overlap": top_overlap,
    "same_best": same_best,
    **{name: partial(regret_of, k) for k, name in REGRETS.items()},
}
"""The others, which depend on few architectures and have none: each takes reference (n,) and measured (n,)."""


def _tau(reference: Floats, measured: Floats, included: Included, weights: Floats) -> Floats:
    """Computes tau-b with a weight for each pair of architectures."""
    x, y = (np.sign(values[:, None] - values[None, :]) for values in (reference, measured))
    selected = included.astype(np.float64)
    agreement = _over_pairs(weights * x * y, selected)
    untied = _over_pairs(weights * x**2, selected) * _over_pairs(weights * y**2, selected)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(untied > 0, agreement / np.sqrt(untied), np.nan)


def _over_pairs(of_pair: Floats, selected: Floats) -> Floats:
    summed: Floats = np.einsum("bi,bi->b", selected @ of_pair, selected)
    return summed


def _pearson_of(x: Floats, y: Floats, included: Included) -> Floats:
    """Computes Pearson's correlation within each selection; all three are (B, n)."""
    n = included.sum(axis=1, keepdims=True)
    x = x - (included * x).sum(axis=1, keepdims=True) / n
    y = y - (included * y).sum(axis=1, keepdims=True) / n
    variances = (included * x * x).sum(axis=1) * (included * y * y).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variances > 1e-24, (included * x * y).sum(axis=1) / np.sqrt(variances), np.nan)


def _ranks(values: Floats, included: Included) -> Floats:
    """Computes the mean rank of each architecture within each selection, (B, n)."""
    selected = included.astype(np.float64)
    below = (values[None, :] < values[:, None]).astype(np.float64)
    tied = (values[None, :] == values[:, None]).astype(np.float64)
    ranks: Floats = selected @ below.T + (selected @ tied.T + 1) / 2
    return ranks
