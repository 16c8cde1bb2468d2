"""Ways to draw samples without replacement: by weight for proxies, evenly for their controls. Random keys are hashes of ids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from proxyds.seeding import ParsedIds, derive_seed, uniform_keys

_CERTAIN = 1.0 - 1e-9

DrawLaw = Callable[[NDArray[np.float64], int, ParsedIds, int], NDArray[np.bool_]]
"""Takes weights (N,), how many to draw, parsed ids (N,) and a seed; returns (N,) bool with that many true."""


def inclusion_probabilities(weights: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Proportional to the weights, capped at 1, the excess shared out again until they sum to n.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.

    Returns:
        (N,) float64 in [0, 1].
    """
    if n == 0:
        return np.zeros(len(weights))
    assert np.count_nonzero(weights > 0) >= n
    n_certain = 0
    probabilities: NDArray[np.float64] = weights * (n / weights.sum())
    while (n_reached := int(np.count_nonzero(is_certain := probabilities >= _CERTAIN))) > n_certain:
        n_certain = n_reached
        others = np.where(is_certain, 0.0, weights)
        probabilities = others * ((n - n_certain) / max(others.sum(), np.finfo(np.float64).tiny))
        probabilities[is_certain] = 1.0
    return probabilities


def draw_systematic(weights: NDArray[np.float64], n: int, ids: ParsedIds, seed: int) -> NDArray[np.bool_]:
    """Systematic sampling in random order (Madow 1949): inclusion exactly proportional to importance, capped at 1.

    The samples' inclusion probabilities are laid end to end in a random order; of n marks at distance 1 with a random
    start, each takes the sample that it falls upon.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.
        ids: (N,) parsed sample ids; the order is a hash of id and seed.
        seed: Of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    probabilities = inclusion_probabilities(weights, n)
    selected = probabilities >= _CERTAIN
    n_marks = n - int(np.count_nonzero(selected))
    if n_marks:
        open_ones = np.flatnonzero((probabilities > 0) & ~selected)
        order = open_ones[_sort_distinct(uniform_keys(ids[open_ones], derive_seed(seed, "order")))]
        ends = np.cumsum(probabilities[order])
        ends *= n_marks / ends[-1]
        n_before = np.ceil(ends - derive_seed(seed, "start") / 2**63)  # marks that lie before each end
        selected[order[np.diff(n_before, prepend=0.0) > 0]] = True
    return selected


def _sort_distinct(keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order of keys that are hardly ever equal: the fast sort puts equal ones in any order, the stable one never does."""
    order = np.argsort(keys)
    in_order = keys[order]
    return np.argsort(keys, kind="stable") if (in_order[1:] == in_order[:-1]).any() else order


def draw_successive(weights: NDArray[np.float64], n: int, ids: ParsedIds, seed: int) -> NDArray[np.bool_]:
    """One after the other, in proportion to the importance left (numpy's `choice`): under-includes the important.

    Done as exponential keys -log(u) / w, of which the n smallest are taken (Efraimidis and Spirakis 2006). Inclusion
    probabilities have no closed form.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.
        ids: (N,) parsed sample ids; u is a hash of id and seed.
        seed: Of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    selected = np.zeros(len(weights), np.bool_)
    if n:
        with np.errstate(divide="ignore"):
            arrival = -np.log(uniform_keys(ids, derive_seed(seed, "order"))) / weights
        selected[np.argpartition(arrival, n - 1)[:n]] = True
    return selected


def draw_random(ids: ParsedIds, labels: NDArray[np.int64], n: int, seed: int) -> NDArray[np.bool_]:  # noqa: ARG001
    """Every sample with the same chance, whatever its label: the control that a proxy must beat.

    Args:
        ids: (N,) parsed sample ids.
        labels: (N,) int64.
        n: Samples to draw.
        seed: Of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    return draw_successive(np.ones(len(ids)), n, ids, seed)


def draw_stratified(ids: ParsedIds, labels: NDArray[np.int64], n: int, seed: int) -> NDArray[np.bool_]:
    """The same share of every label, at random within it; what is left over goes to the largest remainders.

    Args:
        ids: (N,) parsed sample ids.
        labels: (N,) int64.
        n: Samples to draw.
        seed: Of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    keys = uniform_keys(ids, derive_seed(seed, "order"))
    counts = np.bincount(labels)
    quotas, left_over = np.divmod(counts * n, len(labels))
    quotas[np.lexsort((np.arange(len(counts)), -left_over))[: n - quotas.sum()]] += 1
    order = np.lexsort((keys, labels))
    rank_in_label = np.empty(len(labels), np.int64)
    rank_in_label[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    selected: NDArray[np.bool_] = rank_in_label < quotas[labels]
    return selected


ControlLaw = Callable[[ParsedIds, NDArray[np.int64], int, int], NDArray[np.bool_]]
"""Takes parsed ids (N,), labels (N,), how many to draw and a seed; returns (N,) bool with that many true."""

CONTROLS: dict[str, ControlLaw] = {"random": draw_random, "stratified": draw_stratified}
"""What a proxy is compared with, by the name of its data set in the table `ranking`."""

DRAW_LAWS: dict[str, DrawLaw] = {"systematic": draw_systematic, "successive": draw_successive}
