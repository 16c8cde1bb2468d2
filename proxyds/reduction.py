"""Label reduction: where a proxy is too small for all labels of its source, it keeps some (paper, section 3.3).

The paper gives two orders of the same two steps. Section 3.3: drop labels down to 20 % of the data, then samples down to 10 %.
Section 4, for CIFAR-100: draw 50 % of the samples, then drop the labels of lowest keep probability until 10 % of the samples are
left, which are those of 20 labels. Both keep L of C labels and the share ratio * C / L (there 0.5) of the samples of the kept ones, so
one setting, L, says both sizes; the share is of all kept labels together, not of each. A label's importance is the sum over its samples.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from proxyds.draws import DRAW_LAWS, ControlLaw, draw_random
from proxyds.errors import LabelError, ShortageError
from proxyds.recipe import LabelReduction
from proxyds.records import Drawn
from proxyds.seeding import derive_seed, uniform_keys


def count_kept(reduction: LabelReduction, labels: NDArray[np.int64], ratio: float) -> int:
    """How many labels a proxy keeps; refuses what cannot be, before anything is trained.

    Args:
        reduction: The recipe's.
        labels: (N,) int64 of the samples that may be drawn.
        ratio: Size of the proxy as a share of N.

    Raises:
        LabelError: More labels are asked for than there are, or fewer than two are left.
        ShortageError: As few labels do not have as many samples.
    """
    counts = np.sort(np.bincount(labels))[::-1]
    n_labels, n = int((counts > 0).sum()), round(ratio * len(labels))
    if isinstance(reduction.keep, int):
        kept = reduction.keep
    elif isinstance(reduction.keep, float):
        kept = round(reduction.keep * n_labels)
    else:  # auto
        kept = max(2, min(n_labels, n // reduction.samples_per_label))
    if not 2 <= kept <= n_labels:
        raise LabelError(
            f"selection.labels.keep: must be between 2 and the {n_labels:,} labels that have training samples, got {reduction.keep}"
            + (f", which is {kept}" if isinstance(reduction.keep, float) else "")
        )
    if counts[:kept].sum() < n:
        enough = int(np.searchsorted(np.cumsum(counts), n)) + 1
        raise _too_few_samples(ratio, n, kept, int(counts[:kept].sum()), len(labels), f"at least {enough:,}")
    return kept


def draw_reduced(
    ids: NDArray[np.str_],
    labels: NDArray[np.int64],
    importance: NDArray[np.float64],
    ratio: float,
    reduction: LabelReduction,
    *,
    law: str,
    seed: int,
) -> Drawn:
    """Keeps labels and draws a proxy of their samples.

    Under `samples-first` the first draw is by importance, the last, down to the exact size, even: drawing by importance a second time
    would weigh it twice.

    Args:
        ids: (N,) of the samples that may be drawn.
        labels: (N,) int64.
        importance: (N,).
        ratio: Size of the proxy as a share of N.
        reduction: How many labels, in which order, how chosen.
        law: A key of `DRAW_LAWS`.
        seed: Of this draw.

    Returns:
        round(ratio * N) samples and the labels that they are of.

    Raises:
        LabelError: More labels are asked for than there are.
        ShortageError: The kept labels have fewer samples than that.
    """
    n, n_kept = round(ratio * len(ids)), count_kept(reduction, labels, ratio)
    possible = importance > 0
    if reduction.order == "samples-first":
        share = min(1.0, ratio * len(np.unique(labels)) / n_kept)
        n_first = min(round(share * len(ids)), int(possible.sum()))
        possible = DRAW_LAWS[law](importance, n_first, ids, derive_seed(seed, "intermediate"))
    of_label: NDArray[np.float64] = np.bincount(labels, weights=importance * possible).astype(np.float64)
    kept = _choose_labels(of_label, n_kept, reduction.choice, derive_seed(seed, "labels"))
    possible &= np.isin(labels, kept)
    if possible.sum() < n:
        raise _too_few_samples(
            ratio, n, n_kept, int(possible.sum()), len(ids), f"more than {n_kept:,}", "with an importance, as drawn, "
        )
    weights = np.where(possible, importance if reduction.order == "labels-first" else 1.0, 0.0)
    return Drawn(DRAW_LAWS[law](weights, n, ids, seed), kept)


def draw_random_labels(ids: NDArray[np.str_], labels: NDArray[np.int64], n: int, n_kept: int, seed: int) -> Drawn:
    """The control of label reduction: as many labels, every one with the same chance, and as many samples at random of them.

    Where the labels that come first have fewer samples than that, others are drawn.

    Args:
        ids: (N,) sample ids.
        labels: (N,) int64.
        n: Samples to draw.
        n_kept: Labels to keep; some n_kept of them have n samples.
        seed: Of the draw.

    Raises:
        ShortageError: A hundred draws of labels have not enough samples.
    """
    counts = np.bincount(labels)
    there = np.flatnonzero(counts)
    for attempt in range(100):
        keys = uniform_keys(_label_ids(there), derive_seed(seed, "labels", *([attempt] if attempt else [])))
        kept = np.sort(there[np.argsort(keys, kind="stable")[:n_kept]])
        if counts[kept].sum() >= n:
            return Drawn(draw_among(ids, labels, kept, n, seed, draw_random), kept)
    raise ShortageError(
        f"check: {n_kept:,} labels chosen at random must have {n:,} samples to be a control, a hundred choices had fewer; use a "
        "larger selection.labels.keep or a smaller ratio"
    )


def draw_among(
    ids: NDArray[np.str_], labels: NDArray[np.int64], kept: NDArray[np.int64], n: int, seed: int, law: ControlLaw
) -> NDArray[np.bool_]:
    """Draws n samples of some labels as a control's law draws; as (N,) bool."""
    among = np.isin(labels, kept)
    selected = np.zeros(len(ids), np.bool_)
    selected[among] = law(ids[among], labels[among], n, seed)
    return selected


def _choose_labels(of_label: NDArray[np.float64], n_kept: int, choice: str, seed: int) -> NDArray[np.int64]:
    """The labels with the largest sums, of equal ones the first; or labels drawn one after the other in proportion to them."""
    if choice == "top":
        return np.sort(np.argsort(-of_label, kind="stable")[:n_kept])
    if (of_label > 0).sum() < n_kept:
        raise ShortageError(
            f"selection.labels: {n_kept:,} labels are to be drawn, but only {(of_label > 0).sum():,} have samples of an importance "
            "above zero; keep fewer"
        )
    return np.flatnonzero(DRAW_LAWS["successive"](of_label, n_kept, _label_ids(np.arange(len(of_label))), seed))


def _label_ids(labels: NDArray[np.int64]) -> NDArray[np.str_]:
    """What random keys are hashed from, for labels as for samples."""
    return np.array([hashlib.sha256(str(label).encode()).hexdigest() for label in labels])


def _too_few_samples(
    ratio: float, n: int, n_kept: int, n_possible: int, n_all: int, enough: str, what: str = ""
) -> ShortageError:
    fits = math.floor(1000 * n_possible / n_all) / 1000
    return ShortageError(
        f"selection.labels.keep: {n_kept:,} labels must hold the {n:,} samples of selection.ratio {ratio:g}, they hold {what}"
        f"{n_possible:,}; keep {enough} labels, or use a ratio of {fits:g} or less"
    )
