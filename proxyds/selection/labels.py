"""Label reduction: a proxy that is too small for all labels of its source keeps some (paper, section 3.3).

The paper gives two orders of the same two steps. Section 3.3: drop labels down to 20 % of the data, then samples down to 10 %.
Section 4, for CIFAR-100: draw 50 % of the samples, then drop the labels of lowest keep probability until 10 % of the samples are
left, which are those of 20 labels. Both keep L of C labels and the share ratio * C / L (there 0.5) of the samples of the kept ones, so
one setting, L, says both sizes; the share is of all kept labels together, not of each. A label's importance is the sum over its samples,
of cases also where samples are drawn by other weights: those of `easier` have the same sum for every label.
"""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import Values, map_chunks, materialize, sum_by
from proxyds.errors import LabelError, ShortageError
from proxyds.recipe.sections.selection import LabelReduction, Selection
from proxyds.seeding import ParsedIds, derive_seed, parse_ids, uniform_keys
from proxyds.selection.records import Drawn, SampleScores
from proxyds.selection.sampling import DRAW_LAWS, draw_successive, draw_systematic
from proxyds.text import round_down

ATTEMPTS = 100
"""Choices of labels that are drawn, at most, until one has samples enough."""


def count_kept(
    reduction: LabelReduction, counts: NDArray[np.int64], ratio: float, *, field: str = "selection.ratio"
) -> int:
    """Counts the labels that a proxy keeps; refuses what cannot be, before anything is trained.

    Args:
        reduction: How labels are kept.
        counts: Samples that may be drawn of each label, N in sum.
        ratio: Size of the proxy as a share of N.
        field: Where the ratio stands, for messages.

    Raises:
        LabelError: More labels are asked for than there are, or fewer than two are left.
        ShortageError: The labels that are kept do not have so many samples.
    """
    largest_first, n_all = np.sort(counts)[::-1], int(counts.sum())
    n_labels, n = int(np.count_nonzero(counts)), round(ratio * n_all)
    if isinstance(reduction.keep, int):
        kept = reduction.keep
    elif isinstance(reduction.keep, float):
        kept = round(reduction.keep * n_labels)
    else:  # auto
        kept = min(n_labels, n // reduction.samples_per_label)
        if kept < 2:
            raise LabelError(
                f"selection.labels.samples_per_label: must leave two labels, {field} {ratio:g} gives {n:,} samples, "
                f"{reduction.samples_per_label:,} each; {f'ask for {n // 2:,} or fewer, or ' if n > 1 else ''}use a larger ratio"
            )
    if not 2 <= kept <= n_labels:
        raise LabelError(
            f"selection.labels.keep: must be between 2 and the {n_labels:,} labels that have training samples, got {reduction.keep}"
            + (f", which is {kept}" if isinstance(reduction.keep, float) else "")
        )
    n_possible = int(largest_first[:kept].sum())
    if n_possible < n:
        enough = int(np.searchsorted(np.cumsum(largest_first), n)) + 1
        raise ShortageError(
            f"selection.labels.keep: {kept:,} labels must hold the {n:,} samples of {field} {ratio:g}, they hold {n_possible:,}; keep "
            f"at least {enough:,} labels, or use a ratio of {round_down(n_possible / n_all)} or less"
        )
    return kept


def keeps_all(reduction: LabelReduction, counts: NDArray[np.int64], ratio: float) -> bool:
    """Tells whether a proxy of this size keeps every label that has samples, so that nothing is reduced; see `count_kept`."""
    return count_kept(reduction, counts, ratio) == np.count_nonzero(counts)


def draw_reduced(scores: SampleScores, weights: Values, selection: Selection, seed: int) -> Drawn:
    """Keeps labels and draws a proxy of their samples.

    Under `samples-first` the first draw is by weights, the last, down to the exact size, even: drawing by weights a second time
    would weigh them twice. The first draw may be of too few labels, or the labels that are then kept may hold too few samples, most of all where
    labels are drawn too; then both draws are made again.

    Args:
        scores: The N samples that may be drawn; labels are kept by the sums of their importance.
        weights: (N,) to draw samples by: for the paper's method the importance.
        selection: Ratio, draw law, and how many labels are kept, in which order, how chosen.
        seed: Seed of this draw.

    Returns:
        round(ratio * N) samples and the labels that they are of.

    Raises:
        LabelError: More labels are asked for than there are.
        ShortageError: The kept labels have fewer samples than that, as often as they are chosen.
    """
    reduction, ids, labels, counts = selection.labels, scores.ids, scores.labels, scores.label_counts
    assert reduction is not None
    assert scores.importance is not None
    draw = DRAW_LAWS[selection.draw]
    n, n_kept = round(selection.ratio * len(ids)), count_kept(reduction, counts, selection.ratio)
    is_samples_first = reduction.order == "samples-first"
    share = min(1.0, selection.ratio * scores.n_labels / n_kept)
    is_positive = materialize(map_chunks(lambda tile: tile > 0, weights))
    n_first = min(round(share * len(ids)), int(is_positive.sum()))
    n_attempts = ATTEMPTS if is_samples_first or reduction.choice == "drawn" else 1
    for attempt in range(n_attempts):
        possible = is_positive.copy()
        if is_samples_first:
            possible = draw(weights, n_first, ids, derive_seed(seed, "intermediate", number=attempt))
        of_label = sum_by(labels, map_chunks(np.multiply, scores.importance, possible), len(counts))
        if is_samples_first and (of_label > 0).sum() < n_kept and attempt < n_attempts - 1:
            continue  # of too few labels something was drawn
        kept = _choose_labels(of_label, n_kept, reduction.choice, derive_seed(seed, "labels", number=attempt))
        possible &= materialize(map_chunks(partial(np.isin, test_elements=kept), labels))
        if possible.sum() >= n:
            last = possible.astype(np.float64) if is_samples_first else map_chunks(np.multiply, weights, possible)
            return Drawn(draw(last, n, ids, seed), kept)
    raise ShortageError(
        f"selection.labels.keep: {n_kept:,} labels must hold the {n:,} samples of selection.ratio {selection.ratio:g} with an importance above "
        f"zero; {'as they were chosen they hold' if n_attempts == 1 else f'in {n_attempts} choices of them they held fewer, last'} "
        f"{int(possible.sum()):,}; keep more labels" + ("" if not is_samples_first else ", or use order: labels-first")
    )


def draw_random_labels(scores: SampleScores, n: int, n_kept: int, seed: int) -> Drawn:
    """Draws the control of label reduction: n_kept labels, every one with the same chance, and n samples of them at random.

    Labels with fewer than n samples are drawn again.

    Raises:
        ShortageError: No draw of labels has enough samples.
    """
    with_samples = np.flatnonzero(scores.label_counts)
    for attempt in range(ATTEMPTS):
        keys = uniform_keys(_label_ids(with_samples), derive_seed(seed, "labels", number=attempt))
        kept = np.sort(with_samples[np.argsort(keys, kind="stable")[:n_kept]])
        if scores.label_counts[kept].sum() >= n:
            weights = np.isin(materialize(scores.labels), kept).astype(np.float64)
            return Drawn(draw_systematic(weights, n, scores.ids, seed), kept)
    raise ShortageError(
        f"check: {n_kept:,} labels chosen at random must have {n:,} samples to be a control, {ATTEMPTS} choices had fewer; use a "
        "larger selection.labels.keep or a smaller ratio"
    )


def _choose_labels(of_label: NDArray[np.float64], n_kept: int, choice: str, seed: int) -> NDArray[np.int64]:
    """Takes the labels with the largest sums, of equal ones the first; or draws labels one after the other in proportion to them."""
    if choice == "top":
        return np.sort(np.argsort(-of_label, kind="stable")[:n_kept])
    if (of_label > 0).sum() < n_kept:
        raise ShortageError(
            f"selection.labels: {n_kept:,} labels are to be drawn, but only {(of_label > 0).sum():,} have samples of an importance "
            "above zero; keep fewer"
        )
    return np.flatnonzero(draw_successive(of_label, n_kept, _label_ids(np.arange(len(of_label))), seed))


def _label_ids(labels: NDArray[np.int64]) -> ParsedIds:
    """Makes parsed ids of labels, so that random keys are hashed from these as from samples'."""
    return parse_ids(np.array([hashlib.sha256(str(label).encode()).hexdigest() for label in labels]))
