"""Whether chances come true: some of a check's own architectures are ranked by what the others tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from proxyds.artifact.evidence_records import RehearsalRecord
from proxyds.artifact.ranking_table import FULL, PARAMETERS, PROXY, Measured
from proxyds.evaluation.decision.ranking import CONFIDENCE, expect
from proxyds.evaluation.decision.results import Candidate, Run
from proxyds.evaluation.decision.shortlist import choose_shortlist, find_chances
from proxyds.evaluation.intervals import MIN_ARCHITECTURES
from proxyds.seeding import derive_seed

N_SPLITS = 100
N_SAMPLES = 1_000
"""Draws of each part: shares over a hundred parts need no more."""
MIN_CANDIDATES = 3


def rehearse(measured: Measured, own_ratio: float, seed: int) -> RehearsalRecord | None:
    """Ranks random parts of a check's architectures by what the others tell, and compares with what they had on everything.

    Each candidate counts with one training on the proxy's own samples, or on the first draw that was trained on.

    Args:
        measured: The check's accuracies.
        own_ratio: The proxy's.
        seed: Of the parts.

    Returns:
        How often intervals and shortlists held what they say; None where too few architectures are left to fit.
    """
    n = len(measured.names)
    n_candidates = min(n // 2, n - MIN_ARCHITECTURES)
    if n_candidates < MIN_CANDIDATES:
        return None
    true = measured.accuracies[FULL, 1.0].mean(axis=0)
    held, chances_of_best, has_best, sizes = [], [], [], []
    for number in range(N_SPLITS):
        order = np.random.default_rng(derive_seed(seed, "rehearsal", number)).permutation(n)
        asked, fitted = np.sort(order[:n_candidates]), np.sort(order[n_candidates:])
        candidates = take_candidates(measured, asked, (PROXY, own_ratio), repeat=0)
        of_check = take(measured, fitted, (PROXY, own_ratio))
        samples = expect(candidates, of_check, own_ratio, seed, N_SAMPLES).samples
        chances, best = find_chances(samples), int(true[asked].argmax())
        listed, _ = choose_shortlist(samples, CONFIDENCE)
        held.append(float(((true[asked] >= chances.low) & (true[asked] <= chances.high)).mean()))
        chances_of_best.append(float(chances.best[best]))
        has_best.append(best in listed)
        sizes.append(len(listed))
    return RehearsalRecord(
        n_fitted=n - n_candidates,
        n_candidates=n_candidates,
        intervals_hold=_average(held),
        chance_of_best=_average(chances_of_best),
        shortlists_hold=_average(has_best),
        shortlist_size=_average(sizes),
    )


def take(measured: Measured, chosen: NDArray[np.int64], way: tuple[str, float]) -> Measured:
    """Takes some architectures' accuracies on everything, and those on one data set, with their losses, as a proxy's.

    Args:
        measured: All accuracies.
        chosen: Positions of the architectures.
        way: The data set and its ratio.
    """
    return Measured(
        names=[measured.names[i] for i in chosen],
        costs={name: cost[chosen] for name, cost in measured.costs.items()},
        accuracies={
            (FULL, 1.0): measured.accuracies[FULL, 1.0][:, chosen],
            (PROXY, way[1]): measured.accuracies[way][:, chosen],
        },
        draws={(FULL, 1.0): measured.draws[FULL, 1.0], (PROXY, way[1]): measured.draws[way]},
        left_out=(),
        losses={(PROXY, way[1]): measured.losses[way][:, chosen]} if way in measured.losses else {},
    )


def take_candidates(
    measured: Measured, chosen: NDArray[np.int64], way: tuple[str, float], repeat: int
) -> list[Candidate]:
    """Takes some architectures as candidates that were trained once, in one of a data set's repeats; see `take`."""
    draw, accuracies = int(measured.draws[way][repeat]), measured.accuracies[way][repeat].tolist()
    losses = measured.losses[way][repeat].tolist() if way in measured.losses else [None] * len(accuracies)
    return [
        Candidate(
            measured.names[i],
            (Run(draw, draw, accuracies[i], losses[i]),),
            n_parameters=int(measured.costs[PARAMETERS][i]),
        )
        for i in chosen
    ]


def _average(values: list[float] | list[bool] | list[int]) -> float:
    return round(float(np.mean(np.array(values, float))), 4)
