"""From what candidates may have on everything to a decision: chances, groups, a shortlist, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from proxyds.evaluation.decision.prediction import Architectures, Model
from proxyds.evaluation.rank_metrics import Floats

INTERVAL = 0.9
"""Share of the draws that an interval of expected accuracies holds."""
CLOSE = 0.01
"""A candidate is close to the best where it lacks so much accuracy at most."""
LEAST_GAIN = 5e-5
"""Accuracy that a step must be worth to be told: less is 0.00 points."""
LEAST_SHARE = 0.1
"""A step is told if it is worth this share of the best one, at least."""


@dataclass(frozen=True)
class Chances:
    """What m candidates may have on everything; accuracies in [0, 1].

    Attributes:
        expected: (m,) means.
        low: (m,) lower ends of the 90 % intervals.
        high: (m,) their upper ends.
        best: (m,) chances to be the best; they sum to 1.
        close: (m,) chances to lack `CLOSE` at most.
    """

    expected: Floats
    low: Floats
    high: Floats
    best: Floats
    close: Floats


@dataclass(frozen=True)
class Step:
    """Something that would help to decide.

    Attributes:
        kind: `everything` for a training on everything, `proxy` for one more on the proxy.
        position: Of the candidate that would be trained.
        gain: Accuracy that knowing the outcome is worth on average, if one decided after it.
    """

    kind: Literal["everything", "proxy"]
    position: int
    gain: float


def find_chances(samples: Floats) -> Chances:
    """Finds expectations, intervals and chances from draws of what candidates may have, (n_samples, m)."""
    best = samples.max(axis=1, keepdims=True)
    low, high = np.quantile(samples, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], axis=0)
    return Chances(
        expected=samples.mean(axis=0),
        low=low,
        high=high,
        best=count_best(samples),
        close=(samples >= best - CLOSE).mean(axis=0),
    )


def choose_shortlist(samples: Floats, confidence: float) -> tuple[NDArray[np.int64], float]:
    """Chooses the fewest candidates among which the best is with some confidence.

    One half of the draws says which candidates come first, the other how many are needed: on the draws that chose them, lists
    would hold the best too often.

    Args:
        samples: (n_samples, m) of what candidates may have.
        confidence: In (0, 1).

    Returns:
        Their positions, the likeliest first, and the chance that the best is among them.
    """
    choosing, counting = count_best(samples[::2]), count_best(samples[1::2])
    order = np.argsort(-choosing, kind="stable")
    reached = np.cumsum(counting[order])
    n_needed = min(int(np.searchsorted(reached, confidence - 1e-9)) + 1, len(order))
    return order[:n_needed], min(float(reached[n_needed - 1]), 1.0)


def count_best(samples: Floats) -> Floats:
    """Counts each candidate's share of the draws, (n_samples, m), in which it is the best, (m,); ties share a draw."""
    is_best = samples == samples.max(axis=1, keepdims=True)
    shares: Floats = (is_best / is_best.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def find_groups(samples: Floats, order: NDArray[np.int64], confidence: float) -> NDArray[np.int64]:
    """Numbers groups of candidates, from 1: nobody in a group is clearly worse than its first.

    The chance of being worse stays below the confidence within a group; the first of the next group reaches it.

    Args:
        samples: (n_samples, m) of what candidates may have.
        order: (m,) positions, the best first.
        confidence: In (0, 1).

    Returns:
        (m,) each candidate's group.
    """
    groups = np.empty(len(order), np.int64)
    number, first = 0, -1
    for position in order:
        if first < 0 or (samples[:, position] < samples[:, first]).mean() >= confidence:
            number, first = number + 1, position
        groups[position] = number
    return groups


def weigh_steps(samples: Floats, expected: Floats, candidates: Architectures, model: Model) -> list[Step]:
    """Weighs what to do next: the training on everything that is worth most, and the further one on the proxy.

    The worth is the knowledge gradient (Frazier, Powell and Dayanik 2008): how much better the best expectation is after it, on average.
    What others are expected to have is held as it is, so that the worth is a rough one.

    Args:
        samples: (n_samples, m) of what candidates may have.
        expected: (m,) their means.
        candidates: What is known of them.
        model: Of `fit_model`.

    Returns:
        At most one of each kind, none that is worth next to nothing.
    """
    open_ones = np.flatnonzero(~np.isfinite(candidates.on_everything))
    second, first = np.sort(expected)[-2:]
    others = np.where(np.arange(len(expected)) == expected.argmax(), second, first)
    of_everything = np.maximum(samples, others).mean(axis=0) - expected.max()
    steps = [_best_of("everything", open_ones, of_everything)]
    if model.noise > 0:
        less = {
            int(n): model.find_scatter(int(n)) - model.find_scatter(int(n) + 1) for n in np.unique(candidates.n_runs)
        }
        told = np.sqrt([max(less[int(n)], 0.0) for n in candidates.n_runs]) * expected * (1 - expected)
        distance = np.abs(expected - others)
        z = distance / np.maximum(told, 1e-12)
        steps.append(_best_of("proxy", open_ones, told * (stats.norm.pdf(z) - z * stats.norm.sf(z))))
    helpful = [step for step in steps if step is not None]
    most = max((step.gain for step in helpful), default=0.0)
    return [step for step in helpful if step.gain >= LEAST_SHARE * most]


def _best_of(kind: Literal["everything", "proxy"], open_ones: NDArray[np.int64], gains: Floats) -> Step | None:
    worth = [(float(gains[i]), int(i)) for i in open_ones if gains[i] >= LEAST_GAIN]
    if not worth:
        return None
    gain, position = max(worth, key=lambda each: (each[0], -each[1]))
    return Step(kind, position, gain)
