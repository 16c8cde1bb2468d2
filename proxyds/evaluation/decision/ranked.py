"""A ranking: candidates in order, with what is expected of them on everything, chances, a shortlist and what to do next; and its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from proxyds.layout import Readable, fill_in

MOST_SHOWN = 24
"""Candidates that the text shows, at most, besides the shortlist: the best."""


@dataclass(frozen=True)
class RankedCandidate:
    """One candidate; accuracies in [0, 1].

    Attributes:
        name: As the results have it.
        accuracy: On the proxy, the mean of its trainings.
        n_runs: How many these are.
        full_accuracy: On everything, where it is known.
        loss: On the proxy, the mean of its trainings, in nats; None unless all have one.
        expected: The accuracy that is expected on everything; None without evidence.
        low: Lower end of its 90 % interval; of a known accuracy, by the noise of trainings.
        high: Upper end.
        chance_of_best: Chance to be the best of the candidates.
        chance_of_close: Chance to lack one point at most.
        group: Number of its group. Nobody in a group is clearly worse than its first: the chance of that stays below the confidence.
        is_listed: Whether it is on the shortlist.
    """

    name: str
    accuracy: float
    n_runs: int
    full_accuracy: float | None = None
    loss: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    chance_of_best: float | None = None
    chance_of_close: float | None = None
    group: int | None = None
    is_listed: bool = False


@dataclass(frozen=True)
class NextStep:
    """Something that would help to decide.

    Attributes:
        kind: `everything` for a training on everything, `proxy` for one more on the proxy.
        name: The candidate to train.
        gain: Accuracy that knowing the outcome is worth on average, if one decided after it.
        flops: What it costs; None where unknown.
    """

    kind: Literal["everything", "proxy"]
    name: str
    gain: float
    flops: float | None


@dataclass(frozen=True)
class Ranking(Readable):
    """What to take, and how sure that is.

    Attributes:
        candidates: The best first: by what is expected on everything, without evidence by loss or accuracy on the proxy.
        confidence: With which the best is on the shortlist.
        shortlist: The fewest among which the best is, the likeliest first. Empty without evidence.
        to_train: Those of the shortlist to train on everything: the ones that are not known yet.
        chance_of_shortlist: That the best is on it.
        shortlist_flops: What training those costs that are not known yet; None where unknown.
        all_flops: The same for all candidates.
        loss_of_first: Accuracy that is lost on average by taking the first and training no other.
        loss_of_known: The same by taking the best whose accuracy on everything is known; None where none is.
        best_known: Candidate with the highest known accuracy on everything; None where none is known.
        chance_of_known: That this one is the best of all; None where none is.
        is_settled: Whether everything on the shortlist is known.
        steps: What would help most.
        n_fitted: Architectures that the expectations rest on; 0 without evidence.
        uses_parameters: Whether the number of parameters counts in them.
        uses_loss: Whether the loss on the proxy counts, not the accuracy.
        order_only: Why there is only an order, by loss or accuracy on the proxy; None where there are chances and a shortlist.
        notes: What must be known of this ranking, a sentence each.
    """

    candidates: tuple[RankedCandidate, ...]
    confidence: float
    shortlist: tuple[str, ...] = ()
    to_train: tuple[str, ...] = ()
    chance_of_shortlist: float | None = None
    shortlist_flops: float | None = None
    all_flops: float | None = None
    loss_of_first: float | None = None
    loss_of_known: float | None = None
    best_known: str | None = None
    chance_of_known: float | None = None
    is_settled: bool = False
    steps: tuple[NextStep, ...] = ()
    n_fitted: int = 0
    uses_parameters: bool = False
    uses_loss: bool = False
    order_only: str | None = None
    notes: tuple[str, ...] = ()

    def describe(self, width: int | None, others_in: str = "`candidates`") -> str:
        """Writes the best `MOST_SHOWN` candidates and the shortlist, and what to do next; or why there is an order only.

        Args:
            width: See `Readable.describe`.
            others_in: What lists the candidates that are not shown.
        """
        shown = [each for place, each in enumerate(self.candidates) if place < MOST_SHOWN or each.is_listed]
        marks = {name: "train" if name in self.to_train else "known" for name in self.shortlist}
        if self.is_settled and self.best_known is not None:
            marks[self.best_known] = "take"
        elif len(self.shortlist) == 1:
            marks[self.shortlist[0]] = "take"
        return fill_in(
            Path(__file__).with_name("ranking.jinja"),
            width,
            ranking=self,
            shown=shown,
            n_hidden=len(self.candidates) - len(shown),
            others_in=others_in,
            marks=marks,
            known_listed=[name for name in self.shortlist if name not in self.to_train],
            best_known=next((each for each in self.candidates if each.name == self.best_known), None),
        )

    def __repr__(self) -> str:
        if self.order_only is not None:
            return f"<Ranking of {len(self.candidates):,} candidates, order only: {self.order_only}>"
        if self.is_settled:
            advice = f"take {self.best_known}"
        elif len(self.shortlist) == 1:
            advice = f"take {self.shortlist[0]}"
        else:
            advice = f"train on everything: {', '.join(self.to_train)}"
        return f"<Ranking of {len(self.candidates):,} candidates; {advice}>"
