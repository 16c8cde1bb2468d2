"""Who is right on which evaluation sample decides its case, and the case its importance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from proxyds.records import AGAINST_ORDER, ALL_RIGHT, ALL_WRONG, WITH_ORDER, Outcomes


def score_importance(
    predictions: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], constants: Sequence[float]
) -> Outcomes:
    """Gives each evaluation sample its case and importance (paper, section 3 and Algorithm 1 step 3).

    For two probes: case 1 both right, case 2 both wrong, case 3 only the more accurate one right, case 4 only the less
    accurate one. Accuracies are those on these very samples.

    Deviations. Algorithm 1's printed c4 contradicts section 3 where the lower probe is the more accurate; section 3 is
    followed. Probes of equal accuracy have no order: a sample on which they differ is case 4. For k > 2 probes the paper
    says no more than «counting the number of configuration pairs»; here the importance is the mean of the pairs'
    constants, and the case is 1 or 2 where all agree, else 3 or 4 as most of the disagreeing pairs say, a tie being 4.

    Args:
        predictions: For each of k probes (M,) int64, its label for each evaluation sample.
        labels: (M,) int64, the true ones.
        constants: c1..c4, not negative.

    Returns:
        Cases, importances and pair counts of the M samples.
    """
    correct = np.stack([predicted == labels for predicted in predictions], axis=1)
    n_right = correct.sum(axis=0)
    pair_counts = np.zeros((len(labels), 4), np.int64)
    for first, second in combinations(range(correct.shape[1]), 2):
        better, worse = (first, second) if n_right[first] > n_right[second] else (second, first)
        has_order = n_right[better] > n_right[worse]
        right, wrong = correct[:, better], correct[:, worse]
        pair_counts[:, 0] += right & wrong
        pair_counts[:, 1] += ~right & ~wrong
        pair_counts[:, 2] += (right & ~wrong) & has_order
        pair_counts[:, 3] += (right ^ wrong) & ~((right & ~wrong) & has_order)
    case = np.where(pair_counts[:, 2] > pair_counts[:, 3], WITH_ORDER, AGAINST_ORDER)
    case[correct.all(axis=1)] = ALL_RIGHT
    case[~correct.any(axis=1)] = ALL_WRONG
    n_pairs = correct.shape[1] * (correct.shape[1] - 1) // 2
    importance = pair_counts @ np.asarray(constants, np.float64) / n_pairs
    return Outcomes(correct, case.astype(np.int64), importance, pair_counts)
