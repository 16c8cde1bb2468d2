"""Selection methods that are tried in the study and not shipped. What earns a place moves to `proxyds/designs.py` and `proxyds/methods.py`; what does not is told on the study's page.

Rows and subsets go by a candidate's name: what is changed gets another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import count, hold
from proxyds.recipe.methods import METHODS, N_SEEDS, Method
from proxyds.selection.designs import take_first
from proxyds.selection.known import Known, Measure
from proxyds.selection.sampling import Design, share_out

Floats = NDArray[np.float64]
OWN = "tried here"


def _stratify(weights: Floats, known: Known, n: int) -> Design:
    """These weights, of every label its share."""
    return Design(weights, hold(known.labels), share_out(count(known.labels), n))


def _answers(known: Known, name: Measure) -> NDArray[np.float32]:
    """One measure, (R, E, N)."""
    assert known.answers is not None
    answers = known.answers
    return np.stack([[*answers.over_epochs(training, name)] for training in range(answers.n_trainings)])


def find_rank(score: Floats, known: Known, seed: int) -> Floats:
    """Each sample's place among those of its label by a score, the smallest first, in [0, 1)."""
    labels, rank = hold(known.labels), np.empty(len(score))
    jitter = np.random.default_rng(seed).random(len(score))  # equal scores in no order
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order = np.lexsort((jitter[places], score[places]))
        rank[places[order]] = np.arange(len(places)) / len(places)
    return rank


def final_loss(known: Known) -> Floats:
    """The heaviest probe's loss at the end of training."""
    loss: Floats = _answers(known, "loss")[:, -1].mean(axis=0, dtype=np.float64)
    return loss


def area_loss(known: Known) -> Floats:
    """Its mean over all epochs."""
    loss: Floats = _answers(known, "loss").mean(axis=(0, 1), dtype=np.float64)
    return loss


def between(
    low: float, high: float, score: Callable[[Known], Floats] = final_loss
) -> Callable[[Known, int, int], Design]:
    """At random from what lies between two places of each label's order by a score."""

    def design(known: Known, n: int, seed: int) -> Design:
        rank = find_rank(score(known), known, seed)
        return _stratify(((rank >= low) & (rank < high)).astype(np.float64), known, n)

    return design


def easiest_by(score: Callable[[Known], Floats]) -> Callable[[Known, int, int], Design]:
    """Of each label its share, those of the smallest score."""

    def design(known: Known, n: int, seed: int) -> Design:
        return Design(take_first(score(known), n, hold(known.ids), seed, hold(known.labels)))

    return design


def design_cases_easier(known: Known, n: int, seed: int) -> Design:
    """By the importance of cases, among the easier half of each label."""
    assert known.importance is not None
    rank = find_rank(final_loss(known), known, seed)
    return _stratify(np.where(rank < 0.5, hold(known.importance), 0.0), known, n)


def design_ambiguous(known: Known, n: int, seed: int) -> Design:
    """By how often the heaviest probe changes its mind: p (1 - p), with p the share of epochs in which it is right."""
    right = (_answers(known, "margin") > 0).mean(axis=(0, 1), dtype=np.float64)
    return _stratify(right * (1 - right) + 1e-3, known, n)


def falling(power: int, score: Callable[[Known], Floats]) -> Callable[[Known, int, int], Design]:
    """Less of what is harder: a weight that falls from 1 for a label's easiest sample to 0 for its hardest, (1 - rank)^power."""

    def design(known: Known, n: int, seed: int) -> Design:
        return _stratify((1 - find_rank(score(known), known, seed) + 1e-6) ** power, known, n)

    return design


def design_spread_easier(known: Known, n: int, seed: int) -> Design:
    """The easier half of each label, as far apart as features allow: k-centre within it."""
    rank = find_rank(final_loss(known), known, seed)
    easier = rank < 0.5
    taken = np.zeros(len(rank))
    taken[easier] = hold(METHODS["k-center"].design(known.take(easier), n, seed).weights)
    return Design(taken)


def design_typical(known: Known, n: int, seed: int) -> Design:
    """Of each label its share, those nearest to its mean feature."""
    assert known.features is not None
    labels, distance = hold(known.labels), np.empty(len(known.features))
    for label in np.unique(labels):
        places = labels == label
        of_label = known.features[places].astype(np.float64)
        distance[places] = np.linalg.norm(of_label - of_label.mean(axis=0), axis=1)
    return Design(take_first(distance, n, hold(known.ids), seed, labels))


def design_easier_of_any_label(known: Known, n: int, seed: int) -> Design:
    """As `easier`, with one order for all labels, so that easy labels get more."""
    of_one_label = np.zeros(len(known.labels), np.int64)
    return METHODS["easier"].design(replace(known, labels=of_one_label), n, seed)


def stratified(method: str) -> Callable[[Known, int, int], Design]:
    """A method's weights, of every label its share."""

    def design(known: Known, n: int, seed: int) -> Design:
        return _stratify(hold(METHODS[method].design(known, n, seed).weights), known, n)

    return design


_ANSWERS, _CASES, _FEATURES = (frozenset((need,)) for need in ("answers", "cases", "features"))
CANDIDATES: dict[str, Method] = {
    "easier-half": Method("at random from the easier half of each label", OWN, between(0.0, 0.5), _ANSWERS),
    "easier-quarter": Method("at random from the easier quarter", OWN, between(0.0, 0.25), _ANSWERS),
    "easier-three-quarters": Method("at random from all but the hardest quarter", OWN, between(0.0, 0.75), _ANSWERS),
    "middle-half": Method("at random from the middle half", OWN, between(0.25, 0.75), _ANSWERS),
    "easier-half-area": Method(
        "at random from the easier half by the mean loss of all epochs", OWN, between(0.0, 0.5, area_loss), _ANSWERS
    ),
    "easier-tenth": Method("at random from the easier tenth", OWN, between(0.0, 0.1), _ANSWERS),
    "easiest-area": Method("the smallest mean loss of all epochs", OWN, easiest_by(area_loss), _ANSWERS),
    "easiest-averaged": Method(
        "the smallest loss, the mean over trainings of the probe", OWN, easiest_by(final_loss), _ANSWERS, N_SEEDS
    ),
    "easiest-area-averaged": Method(
        "the smallest mean loss of all epochs and trainings", OWN, easiest_by(area_loss), _ANSWERS, N_SEEDS
    ),
    "cases-easier-half": Method("by cases from the easier half", OWN, design_cases_easier, _ANSWERS | _CASES),
    "ambiguous": Method("what the probe changes its mind about", OWN, design_ambiguous, _ANSWERS),
    "smooth-area-2": Method("the less the larger the mean loss of all epochs", OWN, falling(2, area_loss), _ANSWERS),
    "smooth-area-4": Method("the same, steeper", OWN, falling(4, area_loss), _ANSWERS),
    "spread-easier-half": Method("k-centre of the easier half", OWN, design_spread_easier, _ANSWERS | _FEATURES),
    "typical": Method("nearest to the label's mean feature", OWN, design_typical, _FEATURES),
    "entropy-tails-stratified": Method(
        "entropy tails, of every label its share", OWN, stratified("entropy-tails"), _ANSWERS
    ),
    "easier-of-any-label": Method("as `easier`, with no balance of labels", OWN, design_easier_of_any_label, _ANSWERS),
}
ALL_METHODS = {**METHODS, **CANDIDATES}
