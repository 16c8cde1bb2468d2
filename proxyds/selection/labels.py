"""Label reduction: where a proxy is too small for all labels of its source, it keeps some (paper, section 3.3).

The paper gives two orders of the same two steps. Section 3.3: drop labels down to 20 % of the data, then samples down to 10 %.
Section 4, for CIFAR-100: draw 50 % of the samples, then drop the labels of lowest keep probability until 10 % of the samples are
left, which are those of 20 labels. Both keep L of C labels and the share ratio * C / L (there 0.5) of the samples of the kept ones, so
one setting, L, says both sizes; the share is of all kept labels together, not of each. A label's importance is the sum over its samples,
of cases also where samples are drawn by other weights: those of `easier` have the same sum for every label.
"""

from __future__ import annotations

import hashlib
import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import Values, count, map_chunks, materialize, sum_by
from proxyds.errors import LabelError, ShortageError
from proxyds.recipe.models import LabelReduction
from proxyds.seeding import ParsedIds, derive_seed, parse_ids, uniform_keys
from proxyds.selection.records import Drawn
from proxyds.selection.sampling import DRAW_LAWS

ATTEMPTS = 100
"""Choices of labels that are drawn, at most, until one has samples enough."""


def count_kept(reduction: LabelReduction, labels: Values, ratio: float, *, field: str = "selection.ratio") -> int:
    """How many labels a proxy keeps; refuses what cannot be, before anything is trained.

    Args:
        reduction: The recipe's.
        labels: (N,) int64 of the samples that may be drawn.
        ratio: Size of the proxy as a share of N.
        field: Where the ratio stands, for messages.

    Raises:
        LabelError: More labels are asked for than there are, or fewer than two are left.
        ShortageError: As few labels do not have as many samples.
    """
    counts = np.sort(count(labels))[::-1]
    n_labels, n = int((counts > 0).sum()), round(ratio * len(labels))
    if isinstance(reduction.keep, int):
        kept = reduction.keep
    elif isinstance(reduction.keep, float):
        kept = round(reduction.keep * n_labels)
    else:  # auto
        kept = min(n_labels, n // reduction.samples_per_label)
        if kept < 2:
            raise LabelError(
                f"selection.labels.samples_per_label: must leave two labels, {field} {ratio:g} gives {n:,} samples, "
                f"{reduction.samples_per_label:,} each; ask for {n // 2:,} or fewer, or use a larger ratio"
            )
    if not 2 <= kept <= n_labels:
        raise LabelError(
            f"selection.labels.keep: must be between 2 and the {n_labels:,} labels that have training samples, got {reduction.keep}"
            + (f", which is {kept}" if isinstance(reduction.keep, float) else "")
        )
    if counts[:kept].sum() < n:
        enough = int(np.searchsorted(np.cumsum(counts), n)) + 1
        n_held = int(counts[:kept].sum())
        fits = math.floor(1000 * n_held / len(labels)) / 1000
        raise ShortageError(
            f"selection.labels.keep: {kept:,} labels must hold the {n:,} samples of {field} {ratio:g}, they hold {n_held:,}; keep "
            f"at least {enough:,} labels, or use a ratio of {fits:g} or less"
        )
    return kept


def keeps_all(reduction: LabelReduction, labels: Values, ratio: float) -> bool:
    """Whether a proxy of this size keeps every label that has samples, so that nothing is reduced."""
    return count_kept(reduction, labels, ratio) == np.count_nonzero(count(labels))


def draw_reduced(
    ids: Values,
    labels: Values,
    weights: Values,
    importance: Values,
    ratio: float,
    reduction: LabelReduction,
    *,
    law: str,
    seed: int,
) -> Drawn:
    """Keeps labels and draws a proxy of their samples.

    Under `samples-first` the first draw is by weights, the last, down to the exact size, even: drawing by weights a second time
    would weigh them twice. What was drawn first may be of too few labels, or those that are then kept may hold too few samples, most of all where
    labels are drawn too; then both draws are made again.

    Args:
        ids: (N,) parsed, of the samples that may be drawn.
        labels: (N,) int64.
        weights: (N,) to draw samples by: for the paper's method the importance.
        importance: (N,), whose sums labels are kept by.
        ratio: Size of the proxy as a share of N.
        reduction: How many labels, in which order, how chosen.
        law: A key of `DRAW_LAWS`.
        seed: Of this draw.

    Returns:
        round(ratio * N) samples and the labels that they are of.

    Raises:
        LabelError: More labels are asked for than there are.
        ShortageError: The kept labels have fewer samples than that, as often as they are chosen.
    """
    n, n_kept = round(ratio * len(ids)), count_kept(reduction, labels, ratio)
    is_samples_first = reduction.order == "samples-first"
    counts = count(labels)
    share = min(1.0, ratio * np.count_nonzero(counts) / n_kept)
    is_positive = materialize(map_chunks(lambda tile: tile > 0, weights))
    n_first = min(round(share * len(ids)), int(is_positive.sum()))
    n_attempts = ATTEMPTS if is_samples_first or reduction.choice == "drawn" else 1
    for attempt in range(n_attempts):
        again = [attempt] if attempt else []
        possible = is_positive.copy()
        if is_samples_first:
            possible = DRAW_LAWS[law](weights, n_first, ids, derive_seed(seed, "intermediate", *again))
        of_label = sum_by(labels, map_chunks(np.multiply, importance, possible), len(counts))
        if is_samples_first and (of_label > 0).sum() < n_kept and attempt < n_attempts - 1:
            continue  # of too few labels something was drawn
        kept = _choose_labels(of_label, n_kept, reduction.choice, derive_seed(seed, "labels", *again))
        possible &= materialize(map_chunks(partial(np.isin, test_elements=kept), labels))
        if possible.sum() >= n:
            last = possible.astype(np.float64) if is_samples_first else map_chunks(np.multiply, weights, possible)
            return Drawn(DRAW_LAWS[law](last, n, ids, seed), kept)
    raise ShortageError(
        f"selection.labels.keep: {n_kept:,} labels must hold the {n:,} samples of selection.ratio {ratio:g} with an importance above "
        f"zero; {'as they were chosen they hold' if n_attempts == 1 else f'in {n_attempts} choices of them they held fewer, last'} "
        f"{int(possible.sum()):,}; keep more labels" + ("" if not is_samples_first else ", or use order: labels-first")
    )


def draw_random_labels(ids: ParsedIds, labels: NDArray[np.int64], n: int, n_kept: int, seed: int) -> Drawn:
    """The control of label reduction: as many labels, every one with the same chance, and as many samples at random of them.

    Where the labels that come first have fewer samples than that, others are drawn.

    Args:
        ids: (N,) parsed sample ids.
        labels: (N,) int64.
        n: Samples to draw.
        n_kept: Labels to keep; some n_kept of them have n samples.
        seed: Of the draw.

    Raises:
        ShortageError: No draw of labels has enough samples.
    """
    counts = np.bincount(labels)
    there = np.flatnonzero(counts)
    for attempt in range(ATTEMPTS):
        keys = uniform_keys(_label_ids(there), derive_seed(seed, "labels", *([attempt] if attempt else [])))
        kept = np.sort(there[np.argsort(keys, kind="stable")[:n_kept]])
        if counts[kept].sum() >= n:
            return Drawn(DRAW_LAWS["systematic"](np.isin(labels, kept).astype(np.float64), n, ids, seed), kept)
    raise ShortageError(
        f"check: {n_kept:,} labels chosen at random must have {n:,} samples to be a control, {ATTEMPTS} choices had fewer; use a "
        "larger selection.labels.keep or a smaller ratio"
    )


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


def _label_ids(labels: NDArray[np.int64]) -> ParsedIds:
    """What random keys are hashed from, for labels as for samples."""
    return parse_ids(np.array([hashlib.sha256(str(label).encode()).hexdigest() for label in labels]))
