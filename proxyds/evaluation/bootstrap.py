"""Rank statistics with their intervals: percentile bootstraps (95 %) over architectures, draws and full seeds together.

Each method's accuracies are compared with the mean of the *other* full seeds, draw by draw: with F full seeds every
reference is the mean of F - 1 of them, for the methods as for the full runs themselves (the noise ceiling), so that no
method is flattered by averaging.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from proxyds.artifact.manifest import EstimateRecord
from proxyds.artifact.ranking_table import STATISTICS
from proxyds.evaluation.rank_metrics import METRICS, Counts, Floats
from proxyds.seeding import derive_seed

N_RESAMPLES = 2000

MAX_WITHOUT_VALUE = 0.1
"""Share of resamples that may have no value where an interval is given."""


@dataclass(frozen=True)
class Resamples:
    """What the bootstrap draws again; the first resample is the sample itself.

    Attributes:
        architectures: (B, n) how often each architecture stands in a resample.
        references: (B, F) the weights of the references, which sum to 1.
        draws: (B, D) the weights of the draws, by their number D.
    """

    architectures: Counts
    references: Floats
    draws: dict[int, Floats]


def other_seeds(full: Floats) -> Floats:
    """Computes the reference for each full seed: the mean of the other ones, (F, n); of one seed, itself.

    Rounded to twelve digits, so that architectures with as many right answers stay tied.
    """
    if len(full) == 1:
        return full
    return np.round([np.delete(full, seed, axis=0).mean(axis=0) for seed in range(len(full))], 12)


def draw_resamples(n: int, n_references: int, n_draws: Iterable[int], seed: int) -> Resamples:
    """Draws the bootstrap's resamples: architectures, references and draws, each with replacement.

    D draws that are drawn with replacement have (D - 1) / D of the variance, so their deviations are widened. References that
    are means of all seeds but one vary less still: their deviations are widened to the variance of the delete-one
    jackknife (Efron 1982), (F - 1) / F of their sum of squares.

    Args:
        n: Architectures.
        n_references: References.
        n_draws: Every number of draws that some method has.
        seed: The recipe's.
    """

    def draw(what: str, size: int) -> Counts:
        rng = np.random.default_rng(derive_seed(seed, "bootstrap", what, size))
        drawn = rng.multinomial(size, np.full(size, 1 / size), N_RESAMPLES)
        return np.concatenate([np.ones((1, size), np.int64), drawn])

    def weigh(what: str, size: int, widening: float) -> Floats:
        return (1 + (draw(what, size) - 1) * math.sqrt(widening)) / size

    draws = {size: weigh("draws", size, size / max(1, size - 1)) for size in {1, n_references, *n_draws}}
    references = weigh("references", n_references, n_references * (n_references - 1))
    return Resamples(draw("architectures", n), references, draws)


def compare_repeats(
    references: Floats,
    measured: Floats,
    draws: NDArray[np.int64],
    cost: Floats,
    counts: Resamples,
    names: Iterable[str] = METRICS,
) -> dict[str, Floats]:
    """Computes statistics of a method's repeats against every reference, averaged within each resample.

    Args:
        references: (F, n).
        measured: (R, n): accuracies, or one row of costs.
        draws: (R,) the number of each repeat's draw: trainings on one draw count as one.
        cost: (n,) FLOPs.
        counts: The resamples, B of them.
        names: Of `METRICS`.

    Returns:
        For each of the names (B,), the plain value first.
    """
    _, draw, n_trainings = np.unique(draws, return_inverse=True, return_counts=True)
    repeats = (counts.draws[len(n_trainings)] / n_trainings)[:, draw]
    weights = repeats[:, :, None] * counts.references[:, None, :]
    every = product(range(len(measured)), range(len(references)))
    return _average([(references[f], measured[r], weights[:, r, f]) for r, f in every], cost, counts, names)


def compare_seeds(
    references: Floats, full: Floats, cost: Floats, counts: Resamples, names: Iterable[str] = METRICS
) -> dict[str, Floats]:
    """Computes the noise ceiling: every full seed against the mean of the others; see `compare_repeats`.

    Two seeds give one pair, and an interval that holds no noise of training.
    """
    weights = counts.draws[len(full)]
    pairs = [(references[f], full[f], weights[:, f]) for f in range(len(full))]
    return _average(pairs, cost, counts, names)


def estimate(values: Floats) -> EstimateRecord:
    """Estimates a statistic: the first value, and the middle 95 % of the others.

    There is no interval where more than `MAX_WITHOUT_VALUE` of the others are not finite.
    """
    resampled, ends = values[1:][np.isfinite(values[1:])], np.full(2, np.nan)
    if len(resampled) >= (1 - MAX_WITHOUT_VALUE) * (len(values) - 1):
        ends = np.percentile(resampled, [2.5, 97.5])
    # rounded: weights of thirds make 0.9999999999999998
    value, low, high = (round(float(x), 12) if math.isfinite(x) else None for x in (values[0], *ends))
    return EstimateRecord(value=value, low=low, high=high)


def _average(
    pairs: Sequence[tuple[Floats, Floats, Floats]], cost: Floats, counts: Resamples, names: Iterable[str]
) -> dict[str, Floats]:
    """Averages statistics over pairs of a reference (n,), a measurement (n,) and the weights (B,) of the two."""
    averages: dict[str, Floats] = {}
    for name in names:
        taken = [w * METRICS[name](reference, m, counts.architectures, cost) for reference, m, w in pairs]
        averages[name] = np.clip(np.sum(taken, axis=0), STATISTICS[name].least, 1.0)  # widened weights may be below 0
    return averages
