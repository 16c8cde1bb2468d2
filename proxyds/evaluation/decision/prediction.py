"""What accuracies on a proxy tell about accuracies on everything: a Bayesian linear regression on the check's architectures.

The log odds of an architecture's accuracy on everything are taken to be linear in those on the proxy and in the logarithm of
its number of parameters, with normal deviations that differ from architecture to architecture (Gelman et al., Bayesian Data
Analysis, 2013, section 14.2: flat prior, Student's t). Log odds, since accuracies are bounded and scatter less near their
ends. Parameters, since short training ranks large networks too low (`rank_metrics.add_parameters`).

Where networks learn soft labels, the logarithm of the loss may take the place of the log odds of accuracies on the proxy.

An accuracy on the proxy has the noise of its trainings. The regression is fitted to accuracies that have it, too. Where
candidates were trained more or less often than the check's architectures, the normal equations are corrected by the difference
in noise (Fuller, Measurement Error Models, 1987, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from proxyds.evaluation.rank_metrics import Floats

LEAST_LOSS = 1e-4
"""Losses below this, in nats, count as this."""
ENDS = 1e-4
"""Accuracies are kept so far from 0 and 1, where log odds have no end."""
MOST_CORRECTED = 0.5
"""Share of what tells accuracies on the proxy apart, and of the scatter, that may be taken for noise, at most."""
NEXT_TO_NOTHING = 1e-9
"""Share of the normal equations that keeps them solvable where nothing tells architectures apart."""


@dataclass(frozen=True)
class Architectures:
    """What is known of some architectures.

    Attributes:
        on_proxy: (n,) what trainings on the proxy tell, their mean: log odds of the accuracy; or logarithms of the loss, with a minus.
        n_runs: (n,) how many trainings that is the mean of.
        log_parameters: (n,) logarithm of the number of parameters; None where unknown.
        on_everything: (n,) log odds of the accuracy on everything; NaN where unknown.
        noise: (n,) variance of these that their trainings leave; None for none.
    """

    on_proxy: Floats
    n_runs: NDArray[np.int64]
    log_parameters: Floats | None
    on_everything: Floats
    noise: Floats | None = None

    def take(self, chosen: NDArray[np.bool_]) -> Architectures:
        """Takes some of the architectures, (n,) bool."""
        parameters = None if self.log_parameters is None else self.log_parameters[chosen]
        return Architectures(self.on_proxy[chosen], self.n_runs[chosen], parameters, self.on_everything[chosen])

    def join(self, others: Architectures) -> Architectures:
        """Puts other architectures behind these; parameters are known where both know them."""
        known = self.log_parameters is not None and others.log_parameters is not None
        return Architectures(
            np.concatenate([self.on_proxy, others.on_proxy]),
            np.concatenate([self.n_runs, others.n_runs]),
            np.concatenate([self.log_parameters, others.log_parameters]) if known else None,
            np.concatenate([self.on_everything, others.on_everything]),
        )


@dataclass(frozen=True)
class Model:
    """How accuracies on everything follow from those on the proxy.

    Attributes:
        fitted: The architectures that it is fitted to.
        noise: Variance of what one training on the proxy tells; 0 where unknown.
        uses_parameters: Whether the number of parameters counts.
    """

    fitted: Architectures
    noise: float
    uses_parameters: bool

    @property
    def freedom(self) -> int:
        """Degrees of freedom that are left for the scatter of architectures."""
        return len(self.fitted.on_proxy) - int(self._columns.shape[1])

    def solve(self, n_runs: int) -> tuple[Floats, Floats, float]:
        """Fits the model for architectures that are trained so many times on the proxy.

        Args:
            n_runs: Trainings of a candidate.

        Returns:
            Coefficients (p,), a square root (p, p) of their covariance over the scatter, and the variance of the scatter.
        """
        columns, y = self._columns, self.fitted.on_everything - self.fitted.on_everything.mean()
        product, towards = columns.T @ columns, columns.T @ y
        product += NEXT_TO_NOTHING * np.trace(product) * np.eye(len(product))
        inverse = np.linalg.inv(product)
        least = (1 - MOST_CORRECTED) * float(y @ y - towards @ inverse @ towards)
        told_apart = 1 / inverse[1, 1]  # what only the accuracy on the proxy explains
        more_noise = self.noise * float((1 / n_runs - 1 / self.fitted.n_runs).sum())
        product[1, 1] += max(more_noise, -MOST_CORRECTED * told_apart)
        inverse = np.linalg.inv(product)
        coefficients = inverse @ towards
        left = max(float(y @ y - coefficients @ towards), least, 1e-12)
        return coefficients, np.linalg.cholesky(inverse), left / self.freedom

    def sample(self, candidates: Architectures, n_samples: int, seed: int) -> Floats:
        """Draws what the candidates may have on everything, together.

        Args:
            candidates: What is known of m candidates; a known accuracy on everything stays, but for its noise.
            n_samples: How many draws.
            seed: Of the draws.

        Returns:
            (n_samples, m) accuracies in [0, 1].
        """
        generator = np.random.default_rng(seed)
        of_scatter = self.freedom / generator.chisquare(self.freedom, n_samples)
        of_coefficients = generator.standard_normal((n_samples, self._columns.shape[1]))
        deviations = generator.standard_normal((n_samples, len(candidates.on_proxy)))
        columns, centre = self._columns_of(candidates), self.fitted.on_everything.mean()
        drawn = np.empty_like(deviations)
        for n_runs in np.unique(candidates.n_runs):
            of_these = candidates.n_runs == n_runs
            coefficients, root, scatter = self.solve(int(n_runs))
            deviation = np.sqrt(scatter * of_scatter)[:, None]
            slopes = coefficients + deviation * (of_coefficients @ root.T)
            drawn[:, of_these] = centre + slopes @ columns[of_these].T + deviation * deviations[:, of_these]
        known = np.isfinite(candidates.on_everything)
        left = 0.0 if candidates.noise is None else np.sqrt(candidates.noise[known])
        drawn[:, known] = candidates.on_everything[known] + left * deviations[:, known]
        return to_accuracy(drawn)

    def find_scatter(self, n_runs: int) -> float:
        """Finds how far log odds on everything scatter around what so many trainings on the proxy tell, as a variance."""
        return self.solve(n_runs)[2]

    @cached_property
    def _columns(self) -> Floats:
        return self._columns_of(self.fitted)

    def _columns_of(self, architectures: Architectures) -> Floats:
        columns = [np.ones(len(architectures.on_proxy)), architectures.on_proxy - self.fitted.on_proxy.mean()]
        if self.uses_parameters:
            assert architectures.log_parameters is not None
            assert self.fitted.log_parameters is not None
            columns.append(architectures.log_parameters - self.fitted.log_parameters.mean())
        return np.stack(columns, axis=1)


def fit_model(known: Architectures, candidates: Architectures, is_fitted: NDArray[np.bool_], noise: float) -> Model:
    """Fits the model to the check's architectures and some of the candidates.

    Parameters count where they are known of all and differ.

    Args:
        known: The check's architectures.
        candidates: All candidates, m.
        is_fitted: (m,) which of them it is fitted to besides: their accuracy on everything is known.
        noise: Variance of what one training on the proxy tells.
    """
    fitted = known.join(candidates.take(is_fitted))
    differ = fitted.log_parameters is not None and np.ptp(fitted.log_parameters) > 0
    return Model(fitted, noise, bool(differ))


def to_log_odds(accuracies: Floats) -> Floats:
    """Turns accuracies in [0, 1] into log odds."""
    within = np.clip(accuracies, ENDS, 1 - ENDS)
    odds: Floats = np.log(within / (1 - within))
    return odds


def to_negative_log(losses: Floats) -> Floats:
    """Turns losses, in nats, into their negative logarithms: these grow as networks get better, without ends, as log odds do."""
    score: Floats = -np.log(np.maximum(losses, LEAST_LOSS))
    return score


def to_accuracy(log_odds: Floats) -> Floats:
    """Turns log odds into accuracies."""
    accuracies: Floats = expit(log_odds)
    return accuracies


def find_noise(repeats: Sequence[Floats]) -> float:
    """Estimates the variance of what one training tells, from the repeats of each architecture; 0 where nothing was repeated.

    Args:
        repeats: For each architecture its log odds, or what `to_negative_log` gives, (k,), less what their draws add to all architectures.
    """
    freedom = sum(len(each) - 1 for each in repeats)
    return float(sum(((each - each.mean()) ** 2).sum() for each in repeats)) / freedom if freedom > 0 else 0.0


def find_full_noise(accuracies: Floats, full: Floats, n_test: int | None) -> Floats:
    """Estimates the variance of the log odds that one training on everything has.

    The check's repeats tell it, for all architectures alike. Where nothing was repeated, it is that of counts of right answers
    (binomial). This is rather too large for comparisons, since the same samples test all.

    Args:
        accuracies: (R, n) in [0, 1]: the check's trainings by its architectures.
        full: (m,) in (0, 1), those of candidates; NaN where unknown.
        n_test: Test samples; None where unknown.

    Returns:
        (m,) variances; 0 where nothing tells.
    """
    if len(accuracies) > 1:
        return np.full(len(full), find_noise(list(to_log_odds(accuracies).T)))
    if n_test is None:
        return np.zeros(len(full))
    return 1 / (n_test * full * (1 - full))
