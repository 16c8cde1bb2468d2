"""Draws the samples of the proxy, and finds their keep probabilities (paper, Algorithm 1 steps 7 to 9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import Values, map_chunks, materialize, sum_by
from proxyds.data.samples import Samples
from proxyds.errors import ShortageError, StarvedLabelError
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import Recipe
from proxyds.recipe.sections.selection import LabelReduction, Selection
from proxyds.seeding import derive_seed
from proxyds.selection.designs import DESIGNS, Rule
from proxyds.selection.labels import count_kept, draw_reduced, keeps_all
from proxyds.selection.records import Draw, Drawn, SampleScores
from proxyds.selection.sampling import Design, draw_designed, find_inclusion, find_keep_probability, find_supply
from proxyds.text import round_down


def check_ratio(
    counts: NDArray[np.int64],
    label_names: Sequence[str],
    ratio: float,
    reduction: LabelReduction | None = None,
    *,
    field: str = "selection.ratio",
) -> None:
    """Refuses, before anything is trained, a ratio that leaves some label less than one sample in an even draw.

    Labels without training samples do not count: nothing can be drawn of them, at any ratio. Where labels are dropped, it is not
    known yet which. So one sample is asked for each label that is kept.

    Args:
        counts: Samples that may be drawn of each label.
        label_names: Text for each label.
        ratio: Size of the proxy as a share of all samples.
        reduction: Which labels to keep; None for all.
        field: Where the ratio stands, for messages.

    Raises:
        StarvedLabelError: The ratio does; names the smallest label, and the ratio and number of labels that would do.
        LabelError: More labels are to be kept than there are.
        ShortageError: The labels that are kept do not have so many samples.
    """
    n_all = int(counts.sum())
    n_drawn = round(ratio * n_all)
    n_kept = None if reduction is None else count_kept(reduction, counts, ratio, field=field)
    if n_kept is not None and n_kept < np.count_nonzero(counts):
        if n_kept > n_drawn:
            raise StarvedLabelError(
                f"{field}: must leave every label that is kept a sample, {ratio:g} of {n_all:,} is "
                f"{n_drawn:,} for {n_kept:,} labels; use a larger ratio, or a smaller selection.labels.keep"
            )
        return
    smallest = int(np.where(counts > 0, counts, n_all + 1).argmin())
    expected = counts[smallest] * n_drawn / n_all
    if expected < 1:
        raise StarvedLabelError(
            f"{field}: must leave every label a sample; {ratio:g} of {n_all:,} is {n_drawn:,} "
            f"sample{'' if n_drawn == 1 else 's'}, and "
            f"label {label_names[smallest]!r} with its {counts[smallest]:,} can expect {expected:.2g}; use "
            f"{_round_up(math.ceil(n_all / counts[smallest]) / n_all)} or more" + _advise_reduction(counts, n_drawn)
        )


def _advise_reduction(counts: NDArray[np.int64], n: int) -> str:
    """Says how many labels could be kept so that each can expect a sample; nothing where not even two."""
    largest_first = np.sort(counts)[::-1]
    n_together = np.cumsum(largest_first)
    fits = np.flatnonzero((largest_first * n >= n_together) & (n_together >= n)) + 1
    return f", or keep fewer labels: selection.labels: {{keep: {fits[-1]}}}" if len(fits) and fits[-1] >= 2 else ""


def draw_samples(
    scores: SampleScores, case: Values, label_names: Sequence[str], rule: Rule, selection: Selection, seed: int
) -> Draw:
    """Draws the proxy.

    Args:
        scores: The N samples that may be drawn, with their importance.
        case: (N,) int64 in 1..4, see `similarity.carry_importance`.
        label_names: Text for each label.
        rule: The method's rule.
        selection: Method, ratio, draw law, and which labels to keep.
        seed: Seed of the draws.

    Raises:
        ShortageError: Fewer than round(ratio * N) samples have a weight above zero, or are of the labels that are kept.
        StarvedLabelError: A label has no sample in the draw.
    """
    assert scores.importance is not None
    n, draw_seed = round(selection.ratio * len(scores.ids)), derive_seed(seed, "draw")
    design = rule(scores, n, draw_seed)
    drawn = _draw(design, n, scores, selection, draw_seed)
    counts, kept = scores.label_counts, drawn.kept_labels
    missing = np.flatnonzero((counts > 0) & (sum_by(scores.labels, drawn.selected, len(counts)) == 0))
    missing = missing if kept is None else np.intersect1d(missing, kept)
    if len(missing):
        raise StarvedLabelError(
            f"selection: every label must have a sample in the proxy, {label_names[missing[0]]!r}"
            + (f" and {len(missing) - 1} more have" if len(missing) > 1 else " has")
            + f" none among the {n:,} drawn; use a larger selection.ratio (now {selection.ratio:g}): what was trained is kept"
        )
    return Draw(
        case=case,
        importance=scores.importance,
        weight=None if selection.method == BY_IMPORTANCE else design.weights,
        keep_probability=find_keep_probability(design, n),
        inclusion_probability=_find_inclusion(design, n, scores.labels, selection, kept),
        selected=drawn.selected,
        kept_labels=kept,
    )


def add_validation(draw: Draw, evaluation: Samples, recipe: Recipe) -> Draw:
    """Adds the evaluation samples that the proxy holds: all of the labels that it keeps, or as many as the recipe says.

    Of more samples the same share of every label is drawn by the recipe's seed: another draw of the proxy ranks on the same samples.
    """
    kept = draw.kept_labels
    n_of_kept = len(evaluation) if kept is None else int(np.isin(evaluation.labels, kept).sum())
    n = recipe.output.count_validation(n_of_kept)
    if not n or recipe.importance.protocol == "paper":  # whose evaluation samples are the test samples
        return draw
    scores, seed = (
        SampleScores(evaluation.parsed_ids, evaluation.labels),
        derive_seed(recipe.seed, "validation samples"),
    )
    drawn = draw_control(DESIGNS["stratified"], scores, n, law="systematic", seed=seed, kept=kept)
    return replace(draw, validation=drawn.selected)


def draw_again(scores: SampleScores, rule: Rule, selection: Selection, seed: int, number: int = 0) -> Drawn:
    """Draws a proxy, number 0, or draws it another time; every draw chooses its own labels. A label may be without samples.

    Arguments and errors are else those of `draw_samples`.
    """
    n, draw_seed = round(selection.ratio * len(scores.ids)), derive_seed(seed, "draw", number=number)
    return _draw(rule(scores, n, draw_seed), n, scores, selection, draw_seed)


def _draw(design: Design, n: int, scores: SampleScores, selection: Selection, seed: int) -> Drawn:
    """Draws n samples by a design, of some labels where the selection keeps some; `seed` is that of this draw."""
    _check_supply("selection.ratio", design, n, len(scores.ids))
    if selection.labels is not None and not keeps_all(selection.labels, scores.label_counts, selection.ratio):
        return draw_reduced(scores, design.weights, selection, seed)
    return Drawn(draw_designed(design, n, scores.ids, selection.draw, seed))


def _find_inclusion(
    design: Design, n: int, labels: Values, selection: Selection, kept: NDArray[np.int64] | None
) -> Values | None:
    """Finds each sample's chance of being in the proxy, where draw law and label reduction leave it a closed form."""
    if selection.draw != "systematic":
        return None
    if selection.labels is None or kept is None:
        return find_inclusion(design, n)
    if (selection.labels.order, selection.labels.choice) != ("labels-first", "top"):
        return None
    of_kept = map_chunks(lambda label, tile: np.where(np.isin(label, kept), tile, 0.0), labels, design.weights)
    return find_inclusion(Design(of_kept), n)


def design_by(weights: Values) -> Rule:
    """Makes the rule of a method by the weights (N,) that it gives to samples."""
    return lambda scores, n, seed: Design(weights)  # noqa: ARG005


def draw_control(
    rule: Rule, scores: SampleScores, n: int, *, law: str, seed: int, kept: NDArray[np.int64] | None = None
) -> Drawn:
    """Draws n samples by a method, to compare a proxy with.

    Args:
        rule: The method's rule.
        scores: The samples that may be drawn.
        n: Samples to draw.
        law: A key of `DRAW_LAWS`.
        seed: Seed of the draw.
        kept: (L,) the labels that the proxy keeps, and samples are drawn of; None for all.

    Raises:
        ShortageError: Too few samples have a weight above 0.
    """
    if kept is None:
        selected, of_kept = np.ones(len(scores.ids), np.bool_), scores
    else:
        selected = np.isin(materialize(scores.labels), kept)
        of_kept = scores.take(selected)
    design = rule(of_kept, n, seed)
    _check_supply("check.controls", design, n, len(of_kept.ids))
    selected[selected] = draw_designed(design, n, of_kept.ids, law, seed)
    return Drawn(selected, kept)


def _check_supply(field: str, design: Design, n: int, n_all: int) -> None:
    """Refuses to draw more samples, of all or of a label, than have a weight above 0: as by cases, where their constants are 0."""
    if (supply := find_supply(design, n)) < 1:
        n_possible = math.floor(supply * n)
        asked = f"{n / n_all:.3g} of {n_all:,} asks for {n:,} samples"
        smaller = f"use {round_down(n_possible / n_all)} or less, or " if n_possible else ""
        raise ShortageError(
            f"{field}: {asked}, but only {n_possible:,} {'have' if design.strata is None else 'in the same shares have'} an importance above "
            f"zero; {smaller}have no zero in importance.constants"
        )


def _round_up(share: float) -> str:
    """Writes two digits that are not below the share."""
    scale = 10 ** (1 - math.floor(math.log10(share)))
    return f"{min(1.0, math.ceil(share * scale) / scale):g}"
