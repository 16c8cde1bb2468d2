"""Estimates with 95 % intervals, from variances: of architectures, by the jackknife, and of draws.

Each way to rank is compared with the mean of the *other* full seeds, draw by draw: with F full seeds every reference is
the mean of F - 1 of them, for all ways as for the full runs themselves (the noise ceiling), so that no way is flattered by
averaging.

An interval says what an estimate would be with other architectures and other draws:

- *Architectures.* The delete-one jackknife's variance. Where a statistic is of pairs, as Kendall's tau is, it counts the
  noise of pairs about twice, and Efron and Stein (1981, section 4) correct that by what leaving out two tells. With few
  architectures the correction is itself noisy, so a third of it is taken: a simulation chose that (`docs/coverage.md`). By
  chance, or in a grid of architectures, the jackknife may see nearly no variance. Where all pairs count, it is then raised to
  the least that independent pairs have. The noise of single trainings is in this variance, since every training belongs to
  one architecture; so is that of training seeds, which are others for every architecture.
- *Draws.* All architectures are trained on the same samples. How far draws differ beyond the noise of architectures is added.

An agreement has Wilson's score interval (1927), which stays within its bounds; a difference has a symmetric one. From few
draws a variance is uncertain, so quantiles are Student's, with the degrees of freedom of Satterthwaite (1946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.evaluation.rank_metrics import CORRELATIONS, OF_FEW, Floats, Included, are_alike, include_all

LEVEL = 0.95
MIN_ARCHITECTURES = 8
"""Fewer give no interval: the jackknife's variance is then too noisy."""
MAX_IN_PAIRS = 64
"""With more architectures the correction for pairs is left out: it is a few hundredths of the variance, and takes a statistic for each pair."""
OF_PAIRS = frozenset({"tau", "tau_given_cost", "tau_like_cost"})
"""Statistics that are corrected for pairs."""
CORRECTED_SHARE = 1 / 3
"""Share of the correction for pairs that is taken."""
PAIRS_IN_DOUBT = 0.5
"""How many pairs are taken to be in doubt where all agree, and the jackknife sees no variance."""


@dataclass(frozen=True)
class Estimate:
    """A value and how far it would vary.

    Attributes:
        value: NaN where there is none.
        of_architectures: Variance by architectures and all that belongs to one, such as the noise of a training; NaN where unknown.
        of_draws: Variance by draws; NaN with a single draw.
        freedom_of_draws: Degrees of freedom of that.
        n_architectures: How many.
        n_pairs: Pairs of architectures that the statistic looks at.
    """

    value: float
    of_architectures: float
    of_draws: float
    freedom_of_draws: float
    n_architectures: int
    n_pairs: int

    @property
    def variance(self) -> float:
        """The variance of both together; NaN where there are too few architectures for one."""
        return self.of_architectures + self.of_draws if self.n_architectures >= MIN_ARCHITECTURES else math.nan

    def as_agreement(self) -> EstimateRecord:
        """Gives the estimate an interval within [-1, 1]."""
        quantile = self._find_quantile(self.n_architectures - 1)
        left, doubt = 1 - self.value**2, PAIRS_IN_DOUBT / self.n_pairs if self.n_pairs else math.nan
        widening = quantile**2 * (self.variance + doubt / self.n_pairs) / (left + doubt) if self.n_pairs else math.nan
        half = math.sqrt(max(0.0, widening * left + widening**2))
        return make_record(self.value, (self.value - half) / (1 + widening), (self.value + half) / (1 + widening))

    def as_difference(self) -> EstimateRecord:
        """Gives the difference of two agreements its interval."""
        return self._around(self._find_quantile(math.inf))

    def as_gap(self) -> EstimateRecord:
        """Gives the difference of the noise ceiling and an agreement its interval: wider, since one is near its bound, the other not."""
        return self._around(self._find_quantile(self.n_architectures - 1))

    def _around(self, quantile: float) -> EstimateRecord:
        half = quantile * math.sqrt(self.variance + 1 / self.n_pairs**2)
        return make_record(self.value, self.value - half, self.value + half)

    def _find_quantile(self, freedom_of_architectures: float) -> float:
        of_each = (self.of_architectures, freedom_of_architectures), (self.of_draws, self.freedom_of_draws)
        return find_quantile(min(find_freedom(*of_each), freedom_of_architectures))


@dataclass(frozen=True)
class LeftOut:
    """A statistic for each draw, of all architectures and with some left out.

    Attributes:
        values: (D, B): the draws, in the order of `leave_out`.
        n_architectures: How many.
        n_pairs: Pairs of architectures that the statistic looks at.
        has_common_draws: Whether all architectures of a draw are trained on the same samples.
    """

    values: Floats
    n_architectures: int
    n_pairs: int
    has_common_draws: bool

    @cached_property
    def mean(self) -> Floats:
        """The mean over draws, (B,)."""
        mean: Floats = self.values.mean(axis=0)
        return mean

    @cached_property
    def excess_of_draws(self) -> float:
        """The variance of the mean by draws that no architecture's own noise explains; it may be negative, and is NaN with one draw."""
        n_draws = len(self.values)
        if not self.has_common_draws:
            return 0.0
        if n_draws == 1:
            return math.nan
        return float(self.values[:, 0].var(ddof=1)) / n_draws - self.noise_of_trainings

    @property
    def freedom_of_draws(self) -> float:
        """The degrees of freedom of the variance by draws; with one draw 1, and the variance is NaN."""
        return max(len(self.values) - 1, 1) if self.has_common_draws else math.inf

    @cached_property
    def noise_of_trainings(self) -> float:
        """The variance of the mean by what belongs to one architecture and one draw, such as the noise of its training; 0 with one draw."""
        n_draws = len(self.values)
        if n_draws == 1:
            return 0.0
        around = self.values - self.mean
        return sum(jackknife(each, self.n_architectures) for each in around) / ((n_draws - 1) * n_draws)

    def estimate(self) -> Estimate:
        """Estimates the mean over draws."""
        n = self.n_architectures
        draws, freedom = _above_zero(self.excess_of_draws), self.freedom_of_draws
        architectures = _vary_architectures(self.mean, n, self.n_pairs)
        return Estimate(float(self.mean[0]), architectures, draws, freedom, n, self.n_pairs)


def subtract(one: LeftOut, other: LeftOut) -> Estimate:
    """Estimates by how much one agreement is above another of the same architectures."""
    difference = one.mean - other.mean
    draws = _above_zero(one.excess_of_draws + other.excess_of_draws)
    freedom = find_freedom(*((_above_zero(each.excess_of_draws), each.freedom_of_draws) for each in (one, other)))
    n, n_pairs = one.n_architectures, min(one.n_pairs, other.n_pairs)
    architectures = _vary_architectures(difference, n, n_pairs)
    return Estimate(float(difference[0]), architectures, draws, freedom, n, n_pairs)


def find_quantile(freedom: float) -> float:
    """Finds how many standard errors an interval reaches, with so many degrees of freedom."""
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def find_freedom(*variances: tuple[float, float]) -> float:
    """Finds the degrees of freedom of a sum of variances, each with its own (Welch and Satterthwaite); the first one's where all are 0."""
    total = sum(variance for variance, _ in variances)
    squares = sum(variance**2 / freedom for variance, freedom in variances)
    if total == 0:
        return variances[0][1]
    return total**2 / squares if squares else math.inf


@lru_cache(maxsize=8)
def leave_out(n: int, *, in_pairs: bool) -> Included:
    """Selects all architectures, all but one, and where asked for all but two; (B, n)."""
    single = ~np.eye(n, dtype=np.bool_)
    first, second = np.triu_indices(n if in_pairs else 0, 1)
    return np.concatenate([include_all(n), single, single[first] & single[second]])


def jackknife(values: Floats, n: int) -> float:
    """Estimates the variance of a statistic over architectures.

    Args:
        values: (B,) in the order of `leave_out`.
        n: Architectures.

    Returns:
        The variance; NaN where the statistic has no value without some architecture, or was not computed without any.
    """
    single, double = values[1 : n + 1], values[n + 1 :]
    if not len(single):
        return math.nan
    variance = (n - 1) / n * ((single - single.mean()) ** 2).sum()
    if len(double):
        first, second = np.triu_indices(n, 1)
        of_pairs = n * values[0] - (n - 1) * (single[first] + single[second]) + (n - 2) * double
        variance -= ((of_pairs - of_pairs.mean()) ** 2).sum() / (n * (n - 1)) * CORRECTED_SHARE
    return float(np.maximum(variance, 0.0))


def least_variance(values: Floats, n: int) -> float:
    """Estimates the least variance over architectures that a mean over pairs can have: that of one pair, over the number of pairs.

    Any two pairs with an architecture in common add to it or add nothing (Hoeffding 1948, section 5).

    Args:
        values: (B,) in the order of `leave_out`.
        n: Architectures.

    Returns:
        The variance; 0 where the statistic was not computed without two.
    """
    single, double = values[1 : n + 1], values[n + 1 :]
    if not len(double):
        return 0.0
    first, second = np.triu_indices(n, 1)
    sums = math.comb(n, 2) * values[0], math.comb(n - 1, 2) * single, math.comb(n - 2, 2) * double
    pairs = sums[0] - sums[1][first] - sums[1][second] + sums[2]
    return float(pairs.var(ddof=1)) / len(pairs)


def other_seeds(full: Floats) -> Floats:
    """Computes the reference for each full seed: the mean of the other ones, (F, n); of one seed, itself.

    Rounded to twelve digits, so that architectures with as many right answers stay tied.
    """
    if len(full) == 1:
        return full
    return np.round([np.delete(full, seed, axis=0).mean(axis=0) for seed in range(len(full))], 12)


def compare_repeats(
    references: Floats,
    measured: Floats,
    draws: NDArray[np.int64],
    cost: Floats,
    name: str,
    *,
    has_common_draws: bool = True,
) -> LeftOut:
    """Computes a statistic of a method's repeats, each the mean over every reference.

    Args:
        references: (F, n).
        measured: (R, n): accuracies, or one row of costs.
        draws: (R,) the number of each repeat's draw: trainings on one draw are averaged.
        cost: (n,) FLOPs.
        name: Of `ranking_table.STATISTICS`.
        has_common_draws: See `LeftOut`; false for what is not drawn.
    """
    of_repeats = [
        np.mean([_compute(name, reference, repeat, cost) for reference in references], axis=0) for repeat in measured
    ]
    of_draws = np.array([np.mean(np.array(of_repeats)[draws == draw], axis=0) for draw in np.unique(draws)])
    return LeftOut(of_draws, len(cost), _count_pairs(name, cost), has_common_draws)


def compare_seeds(references: Floats, full: Floats, cost: Floats, name: str) -> LeftOut:
    """Computes the noise ceiling: every full seed against the mean of the others; see `compare_repeats`."""
    return compare_pairs(references, full, np.zeros(len(full), np.int64), cost, name, has_common_draws=False)


def compare_pairs(
    references: Floats,
    measured: Floats,
    draws: NDArray[np.int64],
    cost: Floats,
    name: str,
    *,
    has_common_draws: bool,
) -> LeftOut:
    """Computes a statistic of repeats, each with a reference of its own, (R, n); see `compare_repeats`."""
    pairs = zip(references, measured, strict=True)
    of_repeats = np.array([_compute(name, reference, repeat, cost) for reference, repeat in pairs])
    of_draws = np.array([of_repeats[draws == draw].mean(axis=0) for draw in np.unique(draws)])
    return LeftOut(of_draws, len(cost), _count_pairs(name, cost), has_common_draws)


def make_record(value: float, low: float = math.nan, high: float = math.nan) -> EstimateRecord:
    """Makes a record of what is finite; rounded, since means of thirds make 0.9999999999999998."""
    ends = value, low, high
    rounded = [round(float(end), 12) if math.isfinite(end) else None for end in ends]
    return EstimateRecord(value=rounded[0], low=rounded[1], high=rounded[2])


def _compute(name: str, reference: Floats, measured: Floats, cost: Floats) -> Floats:
    """Computes a statistic of all architectures, and where it has an interval also with some left out, (B,)."""
    if name in OF_FEW:
        return np.array([OF_FEW[name](reference, measured)])
    n = len(cost)
    included = leave_out(n, in_pairs=name in OF_PAIRS and n <= MAX_IN_PAIRS)
    return CORRELATIONS[name](reference, measured, included, cost)


def _vary_architectures(values: Floats, n: int, n_pairs: int) -> float:
    """Estimates the variance over architectures: the jackknife's, and of a mean over all pairs the least there is, if that is more."""
    least = least_variance(values, n) if n_pairs == math.comb(n, 2) else 0.0
    return float(np.maximum(jackknife(values, n), least))  # NaN stays NaN


def _count_pairs(name: str, cost: Floats) -> int:
    return int(are_alike(cost).sum()) // 2 if name == "tau_like_cost" else len(cost) * (len(cost) - 1) // 2


def _above_zero(variance: float) -> float:
    return variance if math.isnan(variance) else max(0.0, variance)
