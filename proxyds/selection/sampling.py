"""Ways to draw samples without replacement, by weight and within strata. Random keys are hashes of ids."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import Values, chunks_of, find_nth_smallest, in_key_order, map_chunks, materialize, total
from proxyds.seeding import ParsedIds, derive_seed, uniform_keys

_CERTAIN = 1.0 - 1e-9

DrawLaw = Callable[[Values, int, Values, int], NDArray[np.bool_]]
"""Takes weights (N,), how many to draw, parsed ids (N,) and a seed; returns (N,) bool with that many true."""


@dataclass(frozen=True)
class Design:
    """How n of N samples are drawn: a sampling design.

    Attributes:
        weights: (N,) float64, not negative.
        strata: (N,) int64, each sample's stratum; None where there is one.
        quotas: (S,) int64, samples drawn of each stratum, n in sum; None where there is one.
    """

    weights: Values
    strata: NDArray[np.int64] | None = None
    quotas: NDArray[np.int64] | None = None


def inclusion_probabilities(weights: Values, n: int) -> Values:
    """Scales weights (N,) to the chances that samples are drawn, (N,) float64 in [0, 1] that sum to n; at least n weights are positive.

    Chances are capped at 1, the excess shared out again: two passes, and one more as often as others reach the cap.
    """
    if n == 0:
        return map_chunks(lambda tile: np.zeros(len(tile)), weights)
    scale = _find_scale(weights, n)

    def cap(tile: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = tile * scale
        scaled[scaled >= _CERTAIN] = 1.0
        return scaled

    return map_chunks(cap, weights)


def _find_scale(weights: Values, n: int) -> float:
    """Finds the factor by which weights become `inclusion_probabilities`."""
    scale, n_certain = n / total(weights), 0
    while True:
        n_reached, rest = 0, 0.0
        for tile in chunks_of(weights):
            is_certain = tile * scale >= _CERTAIN
            n_reached += int(np.count_nonzero(is_certain))
            rest += np.where(is_certain, 0.0, tile).sum()
        if n_reached == n_certain:
            return float(scale)
        n_certain = n_reached
        scale = max(scale, (n - n_certain) / max(rest, np.finfo(np.float64).tiny))


def draw_systematic(weights: Values, n: int, ids: Values, seed: int) -> NDArray[np.bool_]:
    """Samples systematically in random order (Madow 1949): the chance of a sample is exactly proportional to its weight, 1 at most.

    The samples' inclusion probabilities are laid end to end in a random order; of n marks at distance 1 with a random
    start, each takes the sample that it falls upon.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.
        ids: (N,) parsed sample ids; the order is a hash of id and seed.
        seed: Seed of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    probabilities = inclusion_probabilities(weights, n)
    selected = materialize(map_chunks(lambda tile: tile >= _CERTAIN, probabilities))
    n_marks = n - int(np.count_nonzero(selected))
    if not n_marks:
        return selected
    uncertain = map_chunks(lambda tile: np.where(tile >= _CERTAIN, 0.0, tile), probabilities)
    keys = map_chunks(partial(uniform_keys, seed=derive_seed(seed, "order")), ids)
    stretch, start = n_marks / total(uncertain), derive_seed(seed, "start") / 2**63
    end, n_before = 0.0, 0.0  # of what is laid so far; marks that lie before it
    for indices, chances in in_key_order(keys, uncertain):
        if not len(indices):
            continue
        ends = np.cumsum(np.concatenate([[end], chances]))[1:]
        marks = np.ceil(np.minimum(ends * stretch, n_marks) - start)
        selected[indices[np.diff(marks, prepend=n_before) > 0]] = True
        end, n_before, last = ends[-1], marks[-1], indices[-1]
    if n_before < n_marks:  # the end fell short of the last mark, by rounding
        selected[last] = True
    return selected


def draw_successive(weights: Values, n: int, ids: Values, seed: int) -> NDArray[np.bool_]:
    """Draws one after the other, in proportion to the weight left (numpy's `choice`): takes samples of large weight less than in proportion.

    Takes the n smallest of exponential keys -log(u) / w (Efraimidis and Spirakis 2006); u is a hash of id and seed. Inclusion
    probabilities have no closed form. Arguments are those of `draw_systematic`.
    """
    if not n:
        return np.zeros(len(weights), np.bool_)
    order_seed = derive_seed(seed, "order")

    def find_arrival(of_ids: ParsedIds, of_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            arrival: NDArray[np.float64] = -np.log(uniform_keys(of_ids, order_seed)) / of_weights
        return arrival

    arrivals = map_chunks(find_arrival, ids, weights)
    last = find_nth_smallest(arrivals, n)
    selected = materialize(map_chunks(lambda tile: tile <= last, arrivals))
    if (n_over := int(np.count_nonzero(selected)) - n) > 0:  # of equal ones the first
        equal = materialize(map_chunks(lambda tile: tile == last, arrivals))
        selected[np.flatnonzero(equal)[-n_over:]] = False
    return selected


def share_out(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Shares n out in proportion to counts; what is left over goes to the largest remainders, of equal ones to the first."""
    quotas, left_over = np.divmod(counts * n, counts.sum())
    quotas[np.lexsort((np.arange(len(counts)), -left_over))[: n - quotas.sum()]] += 1
    shared: NDArray[np.int64] = quotas
    return shared


DRAW_LAWS: dict[str, DrawLaw] = {"systematic": draw_systematic, "successive": draw_successive}


def draw_designed(design: Design, n: int, ids: Values, law: str, seed: int) -> NDArray[np.bool_]:
    """Draws n samples by a design, each stratum by itself, and a law, a key of `DRAW_LAWS`; ids and result are those of a `DrawLaw`.

    In each stratum as many samples as its quota must have a weight above 0: see `find_supply`.
    """
    if design.strata is None or design.quotas is None:
        return DRAW_LAWS[law](design.weights, n, ids, seed)
    ids, weights, selected = materialize(ids), materialize(design.weights), np.zeros(len(ids), np.bool_)
    for stratum, quota in enumerate(design.quotas):
        indices = np.flatnonzero(design.strata == stratum)
        of_stratum = derive_seed(seed, "stratum", stratum)
        selected[indices] = DRAW_LAWS[law](weights[indices], int(quota), ids[indices], of_stratum)
    return selected


def find_supply(design: Design, n: int) -> float:
    """Finds how many times the n samples could be drawn, in the stratum that has the fewest of a weight above 0."""
    is_possible = map_chunks(lambda tile: tile > 0, design.weights)
    if design.strata is None or design.quotas is None:
        return float(total(is_possible) / n) if n else math.inf
    of_strata = np.bincount(design.strata[materialize(is_possible)], minlength=len(design.quotas))
    asked = design.quotas > 0
    return float((of_strata[asked] / design.quotas[asked]).min(initial=math.inf))


def find_keep_probability(design: Design, n: int) -> Values:
    """Finds each sample's weight over the sum of its stratum, times the stratum's share of the n that are drawn; sums to 1."""
    if design.strata is None or design.quotas is None:
        whole = total(design.weights)
        return map_chunks(lambda tile: tile / whole, design.weights)
    weights = materialize(design.weights)
    sums = np.bincount(design.strata, weights=weights, minlength=len(design.quotas))
    shares = design.quotas / n / np.where(sums > 0, sums, 1.0)
    return np.asarray(weights * shares[design.strata])


def find_inclusion(design: Design, n: int) -> Values:
    """Finds each sample's chance of being drawn by the law `systematic`, (N,) float64 in [0, 1]; see `draw_designed`."""
    if design.strata is None or design.quotas is None:
        return inclusion_probabilities(design.weights, n)
    weights = materialize(design.weights)
    chances = np.zeros(len(weights))
    for stratum, quota in enumerate(design.quotas):
        indices = np.flatnonzero(design.strata == stratum)
        chances[indices] = materialize(inclusion_probabilities(weights[indices], int(quota)))
    return chances
