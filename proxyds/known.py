"""What may be known of the training samples when some of them are chosen: what a selection method asks for is found before it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from proxyds.columns import Values, hold

Need = Literal["cases", "features", "answers"]
"""What a method asks for: importances by cases; features of the heaviest probe; what that said of every sample after each epoch."""


@dataclass(frozen=True)
class Answers:
    """What a network said of every training sample after each epoch, for each of R trainings with E epochs.

    Attributes:
        loss: (R, E, N) cross-entropy, in nats.
        entropy: (R, E, N) of the predicted distribution, in nats.
        el2n: (R, E, N) length of the difference between predicted and true distribution (Paul et al. 2021).
        margin: (R, E, N) probability of the true label less the largest of the others; right where above 0.
    """

    loss: NDArray[np.float32]
    entropy: NDArray[np.float32]
    el2n: NDArray[np.float32]
    margin: NDArray[np.float32]

    def take(self, places: NDArray[np.bool_]) -> Answers:
        """Those about some samples, (N,) bool."""
        return Answers(*(each[:, :, places] for each in (self.loss, self.entropy, self.el2n, self.margin)))


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
