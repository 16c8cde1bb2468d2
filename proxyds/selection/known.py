"""What may be known of the training samples when some of them are chosen: what a selection method asks for is found before it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import Values, hold

Need = Literal["cases", "features", "answers"]
"""What a method asks for: importances by cases; features of the heaviest probe; what that said of every sample after each epoch."""


Measure = Literal["loss", "entropy", "el2n", "margin"]
"""What is measured of a network's answer: cross-entropy and entropy of the predicted distribution, both in nats; length of the difference
between predicted and true distribution (Paul et al. 2021); probability of the true label less the largest of the others, right where above 0."""
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True)
class Answers:
    """What a network said of every training sample after each epoch of some trainings; read from where it is kept when it is asked for.

    Attributes:
        read: Takes a training's number, a measure's place in `MEASURES` and an epoch's number, all from 0; returns (N,) float32.
        n_trainings: R.
        n_epochs: E.
        places: Which of the N samples it is about, (N,) bool; None for all.
    """

    read: Callable[[int, int, int], NDArray[np.float32]]
    n_trainings: int
    n_epochs: int
    places: NDArray[np.bool_] | None = None

    def over_epochs(self, training: int, measure: Measure) -> Iterator[NDArray[np.float32]]:
        """One measure after the first epoch of a training, after the second and so on: (N,) each."""
        for epoch in range(self.n_epochs):
            values = self.read(training, MEASURES.index(measure), epoch)
            yield values if self.places is None else values[self.places]

    def at(self, epoch: int, measure: Measure) -> NDArray[np.float64]:
        """One measure after an epoch, by its number from 0: (N,) the mean over trainings."""
        total = np.zeros(1)  # (N,) with the first
        for training in range(self.n_trainings):
            total = total + self.read(training, MEASURES.index(measure), epoch)
        mean = total / self.n_trainings
        return mean if self.places is None else mean[self.places]

    def at_end(self, measure: Measure) -> NDArray[np.float64]:
        """One measure at the end of training, (N,) the mean over trainings."""
        return self.at(self.n_epochs - 1, measure)

    def take(self, places: NDArray[np.bool_]) -> Answers:
        """Those about some of its samples, (N,) bool."""
        if self.places is None:
            return replace(self, places=places)
        both = self.places.copy()
        both[both] = places
        return replace(self, places=both)


@dataclass(frozen=True)
class Known:
    """What is known of N samples that may be drawn; None what no method at hand needs.

    Attributes:
        ids: (N,) parsed.
        labels: (N,) int64.
        importance: (N,) float64, by the cases of the nearest evaluation samples.
        features: (N, d) float32, of the heaviest probe, after PCA.
        answers: Of the heaviest probe.
    """

    ids: Values
    labels: Values
    importance: Values | None = None
    features: NDArray[np.float32] | None = None
    answers: Answers | None = None

    def has(self, needs: Iterable[Need]) -> bool:
        """Whether all of that is known."""
        held = {"cases": self.importance, "features": self.features, "answers": self.answers}
        return all(held[need] is not None for need in needs)

    def take(self, places: NDArray[np.bool_]) -> Known:
        """What is known of some of the samples, (N,) bool; in memory."""
        return Known(
            hold(self.ids)[places],
            hold(self.labels)[places],
            None if self.importance is None else hold(self.importance)[places],
            None if self.features is None else self.features[places],
            None if self.answers is None else self.answers.take(places),
        )
