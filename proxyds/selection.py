"""Which samples become the proxy: keep probabilities and the draw (paper, Algorithm 1 steps 7 to 9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from proxyds.errors import ShortageError, StarvedLabelError
from proxyds.records import Draw, Mapping, Outcomes
from proxyds.seeding import derive_seed, uniform_keys

_CERTAIN = 1.0 - 1e-9

DrawLaw = Callable[[NDArray[np.float64], int, NDArray[np.str_], int], NDArray[np.bool_]]
"""Takes weights (N,), how many to draw, ids (N,) and a seed; returns (N,) bool with that many true."""


def check_ratio(
    labels: NDArray[np.int64], label_names: Sequence[str], ratio: float, *, field: str = "selection.ratio"
) -> None:
    """Refuses, before anything is trained, a ratio that leaves some label less than one sample in an even draw.

    Labels that no training sample has are left out of account: nothing can be drawn of them, at any ratio.

    Raises:
        StarvedLabelError: It does; names the smallest label and the ratio that would do.
    """
    counts = np.bincount(labels, minlength=len(label_names))
    smallest = int(np.where(counts > 0, counts, len(labels) + 1).argmin())
    n_drawn = round(ratio * len(labels))
    expected = counts[smallest] * n_drawn / len(labels)
    if expected < 1:
        raise StarvedLabelError(
            f"{field}: must leave every label a sample; {ratio:g} of {len(labels):,} is {n_drawn:,} "
            f"sample{'' if n_drawn == 1 else 's'}, and "
            f"label {label_names[smallest]!r} with its {counts[smallest]:,} can expect {expected:.2g}; use "
            f"{_round_up(math.ceil(len(labels) / counts[smallest]) / len(labels))} or more"
        )


def draw_samples(
    ids: NDArray[np.str_],
    labels: NDArray[np.int64],
    label_names: Sequence[str],
    mapping: Mapping,
    outcomes: Outcomes,
    *,
    ratio: float,
    law: str,
    seed: int,
) -> Draw:
    """Draws the proxy.

    Args:
        ids: (N,) of the samples that may be drawn.
        labels: (N,) int64.
        label_names: Text for each label.
        mapping: Each one's nearest evaluation samples, whose mean importance it takes (one in the paper).
        outcomes: The evaluation samples' cases and importances.
        ratio: Size of the proxy as a share of N.
        law: A key of `DRAW_LAWS`.
        seed: The recipe's.

    Raises:
        ShortageError: Fewer than round(ratio * N) samples have an importance above zero.
        StarvedLabelError: A label has no sample in the draw.
    """
    importance = outcomes.importance[mapping.nearest].mean(axis=1)
    n = round(ratio * len(ids))
    selected = draw_again(ids, importance, ratio, 0, law=law, seed=seed)
    had, has = (np.bincount(those, minlength=len(label_names)) for those in (labels, labels[selected]))
    missing = np.flatnonzero((had > 0) & (has == 0))
    if len(missing):
        raise StarvedLabelError(
            f"selection: every label must have a sample in the proxy, {label_names[missing[0]]!r}"
            + (f" and {len(missing) - 1} more have" if len(missing) > 1 else " has")
            + f" none among the {n:,} drawn; use a larger selection.ratio (now {ratio:g}): what was trained is kept"
        )
    return Draw(
        case=outcomes.case[mapping.nearest[:, 0]],
        importance=importance,
        keep_probability=importance / importance.sum(),
        inclusion_probability=inclusion_probabilities(importance, n) if law == "systematic" else None,
        selected=selected,
    )


def draw_again(
    ids: NDArray[np.str_], importance: NDArray[np.float64], ratio: float, draw: int, *, law: str, seed: int
) -> NDArray[np.bool_]:
    """Draws a proxy from importances that are known.

    Args:
        ids: (N,) of the samples that may be drawn.
        importance: (N,).
        ratio: Size of the proxy as a share of N.
        draw: Number of the draw; 0 is the proxy that a build gives.
        law: A key of `DRAW_LAWS`.
        seed: The recipe's.

    Returns:
        (N,) bool, round(ratio * N) of them true.

    Raises:
        ShortageError: Fewer samples than that have an importance above zero.
    """
    n = round(ratio * len(ids))
    n_possible = int((importance > 0).sum())
    if n_possible < n:
        raise ShortageError(
            f"selection.ratio: {ratio:g} of {len(ids):,} asks for {n:,} samples, but only {n_possible:,} have an importance "
            f"above zero; use {math.floor(1000 * n_possible / len(ids)) / 1000:g} or less, or no zero in importance.constants"
        )
    return DRAW_LAWS[law](importance, n, ids, derive_seed(seed, "draw", *([draw] if draw else [])))


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
    heaviest_first = np.sort(weights)[::-1]
    # sums[k] is the weight left when the k heaviest are certain; the first k for which the next one is not suffices
    sums = np.cumsum(heaviest_first[::-1])[::-1]
    n_left = n - np.arange(len(weights))
    is_enough = (n_left <= 0) | (heaviest_first * n_left < sums * _CERTAIN)
    n_certain = min(n, int(np.argmax(is_enough)) if is_enough.any() else len(weights))
    scale = np.inf if n_certain >= n else (n - n_certain) / sums[n_certain]
    with np.errstate(invalid="ignore"):
        return np.where(weights > 0, np.minimum(1.0, weights * scale), 0.0)


def draw_systematic(weights: NDArray[np.float64], n: int, ids: NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    """Systematic sampling in random order (Madow 1949): inclusion exactly proportional to importance, capped at 1.

    The samples' inclusion probabilities are laid end to end in a random order; of n marks at distance 1 with a random
    start, each takes the sample that it falls upon.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.
        ids: (N,) sample ids; the order is a hash of id and seed.
        seed: Of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    probabilities = inclusion_probabilities(weights, n)
    selected = probabilities >= _CERTAIN
    order = np.argsort(uniform_keys(ids, derive_seed(seed, "order")), kind="stable")
    order = order[(probabilities[order] > 0) & ~selected[order]]
    n_marks = n - int(selected.sum())
    ends = np.cumsum(probabilities[order])
    if n_marks:
        ends *= n_marks / ends[-1]
        start = derive_seed(seed, "start") / 2**63
        selected[order[np.searchsorted(ends, np.arange(n_marks) + start, side="right")]] = True
    return selected


def draw_successive(weights: NDArray[np.float64], n: int, ids: NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    """One after the other, in proportion to the importance left (numpy's `choice`): under-includes the important.

    Done as exponential keys -log(u) / w, of which the n smallest are taken (Efraimidis and Spirakis 2006). Inclusion
    probabilities have no closed form.

    Args:
        weights: (N,) not negative, at least n of them positive.
        n: Samples to draw.
        ids: (N,) sample ids; u is a hash of id and seed.
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


def draw_random(ids: NDArray[np.str_], labels: NDArray[np.int64], n: int, seed: int) -> NDArray[np.bool_]:  # noqa: ARG001
    """Every sample with the same chance, whatever its label: the control that a proxy must beat.

    Args:
        ids: (N,) sample ids.
        labels: (N,) int64.
        n: Samples to draw.
        seed: Of the draw.

    Returns:
        (N,) bool, n of them true.
    """
    return draw_successive(np.ones(len(ids)), n, ids, seed)


def draw_stratified(ids: NDArray[np.str_], labels: NDArray[np.int64], n: int, seed: int) -> NDArray[np.bool_]:
    """The same share of every label, at random within it; what is left over goes to the largest remainders.

    Args:
        ids: (N,) sample ids.
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


ControlLaw = Callable[[NDArray[np.str_], NDArray[np.int64], int, int], NDArray[np.bool_]]
"""Takes ids (N,), labels (N,), how many to draw and a seed; returns (N,) bool with that many true."""

CONTROLS: dict[str, ControlLaw] = {"random": draw_random, "stratified": draw_stratified}
"""What a proxy is compared with, by the name of its data set in the table `ranking`."""

DRAW_LAWS: dict[str, DrawLaw] = {"systematic": draw_systematic, "successive": draw_successive}


def _round_up(share: float) -> str:
    """Two digits that are not below the share."""
    scale = 10 ** (1 - math.floor(math.log10(share)))
    return f"{min(1.0, math.ceil(share * scale) / scale):g}"
