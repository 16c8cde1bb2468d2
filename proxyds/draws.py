"""Ways to draw samples without replacement: by weight for proxies, evenly for their controls. Random keys are hashes of ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from proxyds.columns import Values, derive, find_nth_smallest, hold, in_key_order, tiles_of, total
from proxyds.seeding import ParsedIds, derive_seed, uniform_keys

_CERTAIN = 1.0 - 1e-9

DrawLaw = Callable[[Values, int, Values, int], NDArray[np.bool_]]
"""Takes weights (N,), how many to draw, parsed ids (N,) and a seed; returns (N,) bool with that many true."""


@dataclass(frozen=True)
class Plan:
    """How n of N samples are drawn.

    Attributes:
        weights: (N,) float64, not negative.
        strata: (N,) int64, each sample's stratum; None where there is one.
        quotas: (S,) int64, samples drawn of each stratum, n in sum; None where there is one.
    """

    weights: NDArray[np.float64]
    strata: NDArray[np.int64] | None = None
    quotas: NDArray[np.int64] | None = None


def find_scale(weights: Values, n: int) -> float:
    """The factor by which weights become the chances that a sample is drawn: capped at 1, the excess shared out again until they sum to n.

    One pass, and one more as often as others reach the cap.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.
    """
    scale, n_certain = n / total(weights), 0
    while n:
        of_tiles = [
            (int(np.count_nonzero(is_certain)), np.where(is_certain, 0.0, tile).sum())
            for tile in tiles_of(weights)
            for is_certain in (tile * scale >= _CERTAIN,)
        ]
        n_reached, rest = (sum(each) for each in zip(*of_tiles, strict=True))
        if n_reached == n_certain:
            break
        n_certain = n_reached
        scale = max(scale, (n - n_certain) / max(rest, np.finfo(np.float64).tiny))
    return float(scale)


def inclusion_probabilities(weights: Values, n: int) -> Values:
    """Proportional to the weights, capped at 1, the excess shared out again until they sum to n.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.

    Returns:
        (N,) float64 in [0, 1].
    """
    if n == 0:
        return derive(lambda tile: np.zeros(len(tile)), weights)
    scale = find_scale(weights, n)

    def cap(tile: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = tile * scale
        scaled[scaled >= _CERTAIN] = 1.0
        return scaled

    return derive(cap, weights)


def draw_systematic(weights: Values, n: int, ids: Values, seed: int) -> NDArray[np.bool_]:
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
    selected = hold(derive(lambda tile: tile >= _CERTAIN, probabilities))
    n_marks = n - int(np.count_nonzero(selected))
    if not n_marks:
        return selected
    open_ones = derive(lambda tile: np.where(tile >= _CERTAIN, 0.0, tile), probabilities)
    keys = derive(partial(uniform_keys, seed=derive_seed(seed, "order")), ids)
    stretch, start = n_marks / total(open_ones), derive_seed(seed, "start") / 2**63
    end, n_before = 0.0, 0.0  # of what is laid so far; marks that lie before it
    for places, chances in in_key_order(keys, open_ones):
        if not len(places):
            continue
        ends = np.cumsum(np.concatenate([[end], chances]))[1:]
        marks = np.ceil(np.minimum(ends * stretch, n_marks) - start)
        selected[places[np.diff(marks, prepend=n_before) > 0]] = True
        end, n_before, last = ends[-1], marks[-1], places[-1]
    if n_before < n_marks:  # the end fell short of the last mark, by rounding
        selected[last] = True
    return selected


def draw_successive(weights: Values, n: int, ids: Values, seed: int) -> NDArray[np.bool_]:
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
    if not n:
        return np.zeros(len(weights), np.bool_)
    order_seed = derive_seed(seed, "order")

    def find_arrival(of_ids: ParsedIds, of_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            arrival: NDArray[np.float64] = -np.log(uniform_keys(of_ids, order_seed)) / of_weights
        return arrival

    arrivals = derive(find_arrival, ids, weights)
    last = find_nth_smallest(arrivals, n)
    selected = hold(derive(lambda tile: tile <= last, arrivals))
    if (n_over := int(np.count_nonzero(selected)) - n) > 0:  # of equal ones the first
        equal = hold(derive(lambda tile: tile == last, arrivals))
        selected[np.flatnonzero(equal)[-n_over:]] = False
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


def share_out(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Shares n out in proportion to counts; what is left over goes to the largest remainders, of equal ones to the first."""
    quotas, left_over = np.divmod(counts * n, counts.sum())
    quotas[np.lexsort((np.arange(len(counts)), -left_over))[: n - quotas.sum()]] += 1
    shared: NDArray[np.int64] = quotas
    return shared


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
    quotas = share_out(counts, n)
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


def draw_planned(plan: Plan, n: int, ids: ParsedIds, law: str, seed: int) -> NDArray[np.bool_]:
    """Draws what a plan says, each stratum by itself.

    Args:
        plan: Weights, strata and quotas; of each stratum as many samples as its quota have a weight above 0.
        n: Samples to draw.
        ids: (N,) parsed.
        law: A key of `DRAW_LAWS`.
        seed: Of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    if plan.strata is None or plan.quotas is None:
        return DRAW_LAWS[law](plan.weights, n, ids, seed)
    selected = np.zeros(len(ids), np.bool_)
    for stratum, quota in enumerate(plan.quotas):
        places = np.flatnonzero(plan.strata == stratum)
        of_stratum = derive_seed(seed, "stratum", stratum)
        selected[places] = DRAW_LAWS[law](plan.weights[places], int(quota), ids[places], of_stratum)
    return selected


def find_inclusion(plan: Plan, n: int) -> NDArray[np.float64]:
    """Each sample's chance of being drawn by the law `systematic`, (N,) float64 in [0, 1]; see `draw_planned`."""
    if plan.strata is None or plan.quotas is None:
        return np.asarray(inclusion_probabilities(plan.weights, n))
    chances = np.zeros(len(plan.weights))
    for stratum, quota in enumerate(plan.quotas):
        places = np.flatnonzero(plan.strata == stratum)
        chances[places] = np.asarray(inclusion_probabilities(plan.weights[places], int(quota)))
    return chances
