"""Which samples become the proxy: keep probabilities and the draw (paper, Algorithm 1 steps 7 to 9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import Values, count, map_chunks, materialize, sum_by
from proxyds.errors import ShortageError, StarvedLabelError
from proxyds.recipe.models import LabelReduction
from proxyds.seeding import derive_seed
from proxyds.selection.designs import Rule
from proxyds.selection.labels import count_kept, draw_reduced, keeps_all
from proxyds.selection.records import Draw, Drawn, SampleScores
from proxyds.selection.sampling import Design, draw_designed, find_inclusion, find_keep_probability, find_supply

DesignFor = Callable[[int, int], Design]
"""Takes how many samples to draw and a seed: a method to which what is known is given already."""


def check_ratio(
    labels: Values,
    label_names: Sequence[str],
    ratio: float,
    *,
    reduction: LabelReduction | None = None,
    field: str = "selection.ratio",
) -> None:
    """Refuses, before anything is trained, a ratio that leaves some label less than one sample in an even draw.

    Labels that no training sample has are left out of account: nothing can be drawn of them, at any ratio. Where labels are
    dropped, those that stay are not known yet, and as few as possible must have the samples.

    Raises:
        StarvedLabelError: It does; names the smallest label, the ratio and the number of labels that would do.
        LabelError: More labels are to be kept than there are.
        ShortageError: So few labels do not have so many samples.
    """
    counts = count(labels, len(label_names))
    n_kept = None if reduction is None else count_kept(reduction, labels, ratio, field=field)
    if n_kept is not None and n_kept < (counts > 0).sum():
        if n_kept > round(ratio * len(labels)):
            raise StarvedLabelError(
                f"{field}: must leave every label that is kept a sample, {ratio:g} of {len(labels):,} is "
                f"{round(ratio * len(labels)):,} for {n_kept:,} labels; use a larger ratio, or a smaller selection.labels.keep"
            )
        return
    smallest = int(np.where(counts > 0, counts, len(labels) + 1).argmin())
    n_drawn = round(ratio * len(labels))
    expected = counts[smallest] * n_drawn / len(labels)
    if expected < 1:
        raise StarvedLabelError(
            f"{field}: must leave every label a sample; {ratio:g} of {len(labels):,} is {n_drawn:,} "
            f"sample{'' if n_drawn == 1 else 's'}, and "
            f"label {label_names[smallest]!r} with its {counts[smallest]:,} can expect {expected:.2g}; use "
            f"{_round_up(math.ceil(len(labels) / counts[smallest]) / len(labels))} or more"
            + _advise_reduction(counts, n_drawn)
        )


def _advise_reduction(counts: NDArray[np.int64], n: int) -> str:
    """How many labels could be kept so that each can expect a sample; nothing where not even two."""
    largest_first = np.sort(counts)[::-1]
    held = np.cumsum(largest_first)
    fits = np.flatnonzero((largest_first * n >= held) & (held >= n)) + 1
    return f", or keep fewer labels: selection.labels: {{keep: {fits[-1]}}}" if len(fits) and fits[-1] >= 2 else ""


def draw_samples(
    ids: Values,
    labels: Values,
    label_names: Sequence[str],
    case: Values,
    importance: Values,
    design_for: DesignFor,
    *,
    ratio: float,
    law: str,
    seed: int,
    reduction: LabelReduction | None = None,
    by_importance: bool = True,
) -> Draw:
    """Draws the proxy.

    Args:
        ids: (N,) parsed, of the samples that may be drawn.
        labels: (N,) int64.
        label_names: Text for each label.
        case: (N,) int64 in 1..4, see `similarity.carry_importance`.
        importance: (N,) float64, not negative.
        design_for: The method's.
        ratio: Size of the proxy as a share of N.
        law: A key of `DRAW_LAWS`.
        seed: The draws'.
        reduction: Which labels to keep, of a method that weighs; None for all.
        by_importance: Whether the method's weights are the importances, and need not be told beside them.

    Raises:
        ShortageError: Fewer than round(ratio * N) samples have a weight above zero, or are of the labels that are kept.
        StarvedLabelError: A label has no sample in the draw.
    """
    n = round(ratio * len(ids))
    design = design_for(n, _seed_of_draw(seed, 0))
    drawn = draw_again(
        ids, labels, lambda *_: design, ratio, 0, law=law, seed=seed, reduction=reduction, importance=importance
    )
    selected, kept = drawn.selected, drawn.kept_labels
    had, has = count(labels, len(label_names)), sum_by(labels, selected, len(label_names))
    is_kept = np.ones(len(label_names), np.bool_) if kept is None else np.isin(np.arange(len(label_names)), kept)
    missing = np.flatnonzero(is_kept & (had > 0) & (has == 0))
    if len(missing):
        raise StarvedLabelError(
            f"selection: every label must have a sample in the proxy, {label_names[missing[0]]!r}"
            + (f" and {len(missing) - 1} more have" if len(missing) > 1 else " has")
            + f" none among the {n:,} drawn; use a larger selection.ratio (now {ratio:g}): what was trained is kept"
        )
    return Draw(
        case=case,
        importance=importance,
        weight=None if by_importance else design.weights,
        keep_probability=find_keep_probability(design, n),
        inclusion_probability=_find_inclusion(design, labels, n, law, reduction, kept),
        selected=selected,
        kept_labels=kept,
    )


def _find_inclusion(
    design: Design,
    labels: Values,
    n: int,
    law: str,
    reduction: LabelReduction | None,
    kept: NDArray[np.int64] | None,
) -> Values | None:
    """Each sample's chance of being in the proxy, where draw law and label reduction leave it a closed form."""
    if law != "systematic":
        return None
    if reduction is None or kept is None:
        return find_inclusion(design, n)
    if (reduction.order, reduction.choice) != ("labels-first", "top"):
        return None
    of_kept = map_chunks(lambda label, tile: np.where(np.isin(label, kept), tile, 0.0), labels, design.weights)
    return find_inclusion(Design(of_kept), n)


def draw_again(
    ids: Values,
    labels: Values,
    design_for: DesignFor,
    ratio: float,
    draw: int,
    *,
    law: str,
    seed: int,
    reduction: LabelReduction | None = None,
    importance: Values | None = None,
) -> Drawn:
    """Draws a proxy from what is known of the samples.

    Args:
        ids: (N,) parsed, of the samples that may be drawn.
        labels: (N,) int64.
        design_for: The method's.
        ratio: Size of the proxy as a share of N.
        draw: Number of the draw; 0 is the proxy that a build gives.
        law: A key of `DRAW_LAWS`.
        seed: The draws'.
        reduction: Which labels to keep, of a method that weighs; every draw chooses its own. None for all, as where it keeps all at this
            ratio.
        importance: (N,), whose sums labels are kept by; None where all are.

    Returns:
        round(ratio * N) samples, and the labels that were kept.

    Raises:
        ShortageError: Fewer samples than that have a weight above zero, or are of the labels that are kept.
    """
    n, draw_seed = round(ratio * len(ids)), _seed_of_draw(seed, draw)
    design = design_for(n, draw_seed)
    _check_supply("selection.ratio", design, n, len(ids))
    if reduction is not None and not keeps_all(reduction, labels, ratio):
        assert importance is not None
        return draw_reduced(ids, labels, design.weights, importance, ratio, reduction, law=law, seed=draw_seed)
    return Drawn(draw_designed(design, n, ids, law, draw_seed))


def design_by(weights: Values) -> DesignFor:
    """Of a method that weighs, whose weights are known."""
    return lambda n, seed: Design(weights)  # noqa: ARG005


def draw_control(
    rule: Rule, known: SampleScores, n: int, *, law: str, seed: int, kept: NDArray[np.int64] | None = None
) -> Drawn:
    """Draws n samples by a method, to compare a proxy with: of some labels alone where it keeps these.

    Args:
        rule: Of a method: one of `DESIGNS`.
        known: What is known of the samples.
        n: Samples to draw.
        law: A key of `DRAW_LAWS`.
        seed: Of the draw.
        kept: (L,) the labels; None for all.

    Raises:
        ShortageError: Too few samples have a weight above 0.
    """
    selected = np.isin(materialize(known.labels), kept) if kept is not None else np.ones(len(known.ids), np.bool_)
    some = known if kept is None else known.take(selected)
    design = rule(some, n, seed)
    _check_supply("check.controls", design, n, len(some.ids))
    selected[selected] = draw_designed(design, n, some.ids, law, seed)
    return Drawn(selected, kept)


def _check_supply(place: str, design: Design, n: int, n_all: int) -> None:
    """Refuses to draw what is not there: of a method that draws by cases, where their constants are 0.

    Raises:
        ShortageError: Fewer samples than are asked for have a weight above 0, of all or of a label's.
    """
    if (supply := find_supply(design, n)) < 1:
        n_possible = math.floor(supply * n)
        asked = f"{n / n_all:.3g} of {n_all:,} asks for {n:,} samples"
        raise ShortageError(
            f"{place}: {asked}, but only {n_possible:,} {'have' if design.strata is None else 'in the same shares have'} an importance above "
            f"zero; use {math.floor(1000 * supply * n / n_all) / 1000:g} or less, or no zero in importance.constants"
        )


def _seed_of_draw(seed: int, draw: int) -> int:
    """Of the proxy itself, number 0, or of another draw of it."""
    return derive_seed(seed, "draw", *([draw] if draw else []))


def _round_up(share: float) -> str:
    """Two digits that are not below the share."""
    scale = 10 ** (1 - math.floor(math.log10(share)))
    return f"{min(1.0, math.ceil(share * scale) / scale):g}"
