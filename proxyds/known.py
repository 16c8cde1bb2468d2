"""What may be known of the training samples when some of them are chosen: what a selection method asks for is found before it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from proxyds.columns import Values, hold

Need = Literal["cases", "features", "answers"]
"""What a method asks for: importances by cases; features of the heaviest probe; what that said of every sample after each epoch."""


Measure = Literal["loss", "entropy", "el2n", "margin"]
"""What is measured of a network's answer: cross-entropy and entropy of the predicted distribution, both in nats; length of the difference
between predicted and true distribution (Paul et al. 2021); probability of the true label less the largest of the others, right where above 0."""
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True)
class Answers:
    """What a network said of every training sample after each epoch.

    Attributes:
        trainings: For each training (4, E, N) float32: the `MEASURES` after each of E epochs. On disk, where they are a store's: what is
            not asked for is not read.
    """

    trainings: tuple[NDArray[np.float32], ...]

    def over_epochs(self, measure: Measure) -> list[NDArray[np.float32]]:
        """One measure, (E, N) for each training."""
        return [each[MEASURES.index(measure)] for each in self.trainings]

    def after(self, epoch: int, measure: Measure) -> NDArray[np.float64]:
        """One measure after an epoch, (N,) the mean over trainings; -1 is the last."""
        total = sum(each[epoch].astype(np.float64) for each in self.over_epochs(measure))
        mean: NDArray[np.float64] = total / len(self.trainings)
        return mean

    @property
    def n_epochs(self) -> int:
        """E."""
        return len(self.trainings[0][0])

    def take(self, places: NDArray[np.bool_]) -> Answers:
        """Those about some samples, (N,) bool; in memory."""
        return Answers(tuple(each[:, :, places] for each in self.trainings))


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
