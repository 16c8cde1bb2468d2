"""What the stages hand to each other, besides samples and probes: frozen records of arrays, one value a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import Values, count, materialize
from proxyds.data.samples import SoftLabels
from proxyds.recipe.methods import Need

ALL_RIGHT, ALL_WRONG, WITH_ORDER, AGAINST_ORDER = 1, 2, 3, 4
CASE_MEANINGS = {
    ALL_RIGHT: "every probe right",
    ALL_WRONG: "every probe wrong",
    WITH_ORDER: "probes differ, the more accurate right",
    AGAINST_ORDER: "probes differ, the less accurate right",
}
PAIRS = ("pairs_all_right", "pairs_all_wrong", "pairs_with_order", "pairs_against_order")
"""Columns of the table `evaluation`: how many pairs of probes fall into each case."""


@dataclass(frozen=True)
class Agreement:
    """How far two trainings of the same probes, with other seeds, give evaluation samples the same case.

    Attributes:
        share: Share of the samples that have the same case in two repeats, the mean over pairs of repeats.
        by_chance: What `share` would be if cases were dealt at random in the same shares.
        of_cases: For each case, of the samples that have it in one repeat, the share that have it in another; None where
            no sample has it.
    """

    share: float
    by_chance: float
    of_cases: tuple[float | None, ...]


@dataclass(frozen=True)
class Outcomes:
    """Who was right on which evaluation sample, case by case.

    Attributes:
        predictions: (M, R * k) int64, each probe's label for each evaluation sample, one repeat after the other.
        correct: (M, R * k) bool, whether that label is right.
        case: (M,) int64 in 1..4.
        importance: (M,) float64.
        pair_counts: (M, 4) int64, how many pairs of probes fall into each case, over all repeats.
        agreement: Agreement of the repeats' cases; None where each probe was trained once.
    """

    predictions: NDArray[np.int64]
    correct: NDArray[np.bool_]
    case: NDArray[np.int64]
    importance: NDArray[np.float64]
    pair_counts: NDArray[np.int64]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class NearestMap:
    """Each training sample's nearest evaluation samples.

    Attributes:
        nearest: (N, n_neighbours) int64, positions in the evaluation samples, nearest first.
        distance: (N,) float64, to the nearest, in the metric of the recipe.
        n_neighbours: Neighbours of each sample.
        n_dimensions: Dimensions of the features after PCA.
        explained_variance: Share of the evaluation features' variance that these keep, in [0, 1].
    """

    nearest: Values
    distance: Values
    n_neighbours: int
    n_dimensions: int
    explained_variance: float


@dataclass(frozen=True)
class Drawn:
    """Samples that were drawn to be trained on.

    Attributes:
        selected: (N,) bool.
        kept_labels: (L,) int64, sorted: the labels that training and test are confined to; None for all.
        soft_labels: Of the selected samples and the kept labels, where a proxy holds them; None where they are to be found.
    """

    selected: NDArray[np.bool_]
    kept_labels: NDArray[np.int64] | None = None
    soft_labels: SoftLabels | None = None


@dataclass(frozen=True, kw_only=True)
class Draw(Drawn):
    """The samples of the proxy, exactly round(ratio * N), and why; and those that it holds to rank on.

    Attributes:
        case: (N,) whole numbers in 1..4, of the nearest evaluation sample.
        importance: (N,) float64, by cases.
        weight: (N,) float64, what the samples were drawn by; None where that is the importance.
        keep_probability: (N,) float64, the weight over its sum (the paper's; a draw distribution); by strata where the method deals them out.
        inclusion_probability: (N,) float64, chance of being in the proxy; None where draw law or choice of labels leave it no closed form.
        validation: (M,) bool, the evaluation samples that the proxy holds; None where it holds none.
    """

    case: Values
    importance: Values
    weight: Values | None
    keep_probability: Values
    inclusion_probability: Values | None
    validation: NDArray[np.bool_] | None = None


Measure = Literal["loss", "entropy", "el2n", "margin"]
"""What is measured of a network's answer: cross-entropy and entropy of the predicted distribution, both in nats; length of the difference
between predicted and true distribution (Paul et al. 2021); probability of the true label less the largest of the others, right where above 0."""


MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True)
class Answers:
    """What a network said of every training sample after each epoch of some trainings, read when it is asked for.

    Attributes:
        read: Takes a training's number, a measure's place in `MEASURES` and an epoch's number, all from 0; returns (N,) float32.
        n_trainings: R.
        n_epochs: E.
    """

    read: Callable[[int, int, int], NDArray[np.float32]]
    n_trainings: int
    n_epochs: int

    def over_epochs(self, training: int, measure: Measure) -> Iterator[NDArray[np.float32]]:
        """Reads one measure after the first epoch of a training, after the second and so on: (N,) each."""
        for epoch in range(self.n_epochs):
            yield self.read(training, MEASURES.index(measure), epoch)

    def at(self, epoch: int, measure: Measure) -> NDArray[np.float64]:
        """Reads one measure after an epoch, by its number from 0: (N,) the mean over trainings."""
        total = np.zeros(1)  # (N,) with the first
        for training in range(self.n_trainings):
            total = total + self.read(training, MEASURES.index(measure), epoch)
        return total / self.n_trainings

    def at_end(self, measure: Measure) -> NDArray[np.float64]:
        """Reads one measure at the end of training, (N,) the mean over trainings."""
        return self.at(self.n_epochs - 1, measure)

    def take(self, mask: NDArray[np.bool_]) -> Answers:
        """Keeps the answers about some of the samples, (N,) bool."""
        return replace(self, read=lambda training, measure, epoch: self.read(training, measure, epoch)[mask])


@dataclass(frozen=True)
class SampleScores:
    """What methods choose by, of N samples that may be drawn; what no method at hand needs is None.

    Attributes:
        ids: (N,) parsed sample ids.
        labels: (N,) int64.
        importance: (N,) float64, by the cases of the nearest evaluation samples.
        features: (N, d) float32, features of the heaviest probe, after PCA.
        answers: Answers of the heaviest probe.
    """

    ids: Values
    labels: Values
    importance: Values | None = None
    features: NDArray[np.float32] | None = None
    answers: Answers | None = None

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        """Counts the samples of each label, in one pass over the labels."""
        return count(self.labels)

    @property
    def n_labels(self) -> int:
        """Counts the labels that have samples."""
        return int(np.count_nonzero(self.label_counts))

    def has(self, needs: Iterable[Need]) -> bool:
        """Tells whether all of these are there."""
        by_need = {"cases": self.importance, "features": self.features, "answers": self.answers}
        return all(by_need[need] is not None for need in needs)

    def take(self, mask: NDArray[np.bool_]) -> SampleScores:
        """Keeps some of the samples, (N,) bool, in memory."""
        return SampleScores(
            materialize(self.ids)[mask],
            materialize(self.labels)[mask],
            None if self.importance is None else materialize(self.importance)[mask],
            None if self.features is None else self.features[mask],
            None if self.answers is None else self.answers.take(mask),
        )
