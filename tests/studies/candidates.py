"""Selection methods that are tried in the study and not shipped. What earns a place moves to `proxyds/selection/designs.py` and `proxyds/recipe/methods.py`; what does not is told on the study's page.

Rows and subsets go by a candidate's name: what is changed gets another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import materialize
from proxyds.recipe.methods import METHODS, N_SEEDS, Method
from proxyds.selection.designs import DESIGNS, Rule, take_first
from proxyds.selection.records import Measure, SampleScores
from proxyds.selection.sampling import Design, share_out

Floats = NDArray[np.float64]
OWN = "tried here"


def _stratify(weights: Floats, scores: SampleScores, n: int) -> Design:
    """These weights, of every label its share."""
    return Design(weights, materialize(scores.labels), share_out(scores.label_counts, n))


def _answers(scores: SampleScores, name: Measure) -> NDArray[np.float32]:
    """One measure, (R, E, N)."""
    assert scores.answers is not None
    answers = scores.answers
    return np.stack([[*answers.over_epochs(training, name)] for training in range(answers.n_trainings)])


def find_rank(score: Floats, scores: SampleScores, seed: int) -> Floats:
    """Each sample's place among those of its label by a score, the smallest first, in [0, 1)."""
    labels, rank = materialize(scores.labels), np.empty(len(score))
    jitter = np.random.default_rng(seed).random(len(score))  # equal scores in no order
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order = np.lexsort((jitter[places], score[places]))
        rank[places[order]] = np.arange(len(places)) / len(places)
    return rank


def final_loss(scores: SampleScores) -> Floats:
    """The heaviest probe's loss at the end of training."""
    loss: Floats = _answers(scores, "loss")[:, -1].mean(axis=0, dtype=np.float64)
    return loss


def area_loss(scores: SampleScores) -> Floats:
    """Its mean over all epochs."""
    loss: Floats = _answers(scores, "loss").mean(axis=(0, 1), dtype=np.float64)
    return loss


def between(low: float, high: float, score: Callable[[SampleScores], Floats] = final_loss) -> Rule:
    """At random from what lies between two places of each label's order by a score."""

    def design(scores: SampleScores, n: int, seed: int) -> Design:
        rank = find_rank(score(scores), scores, seed)
        return _stratify(((rank >= low) & (rank < high)).astype(np.float64), scores, n)

    return design


def easiest_by(score: Callable[[SampleScores], Floats]) -> Rule:
    """Of each label its share, those of the smallest score."""

    def design(scores: SampleScores, n: int, seed: int) -> Design:
        return Design(take_first(score(scores), n, scores, seed, within_labels=True))

    return design


def design_cases_easier(scores: SampleScores, n: int, seed: int) -> Design:
    """By the importance of cases, among the easier half of each label."""
    assert scores.importance is not None
    rank = find_rank(final_loss(scores), scores, seed)
    return _stratify(np.where(rank < 0.5, materialize(scores.importance), 0.0), scores, n)


def design_ambiguous(scores: SampleScores, n: int, seed: int) -> Design:
    """By how often the heaviest probe changes its mind: p (1 - p), with p the share of epochs in which it is right."""
    right = (_answers(scores, "margin") > 0).mean(axis=(0, 1), dtype=np.float64)
    return _stratify(right * (1 - right) + 1e-3, scores, n)


def falling(power: int, score: Callable[[SampleScores], Floats]) -> Rule:
    """Less of what is harder: a weight that falls from 1 for a label's easiest sample to 0 for its hardest, (1 - rank)^power."""

    def design(scores: SampleScores, n: int, seed: int) -> Design:
        return _stratify((1 - find_rank(score(scores), scores, seed) + 1e-6) ** power, scores, n)

    return design


def design_spread_easier(scores: SampleScores, n: int, seed: int) -> Design:
    """The easier half of each label, as far apart as features allow: k-centre within it."""
    rank = find_rank(final_loss(scores), scores, seed)
    easier = rank < 0.5
    taken = np.zeros(len(rank))
    taken[easier] = materialize(DESIGNS["k-center"](scores.take(easier), n, seed).weights)
    return Design(taken)


def design_typical(scores: SampleScores, n: int, seed: int) -> Design:
    """Of each label its share, those nearest to its mean feature."""
    assert scores.features is not None
    labels, distance = materialize(scores.labels), np.empty(len(scores.features))
    for label in np.unique(labels):
        places = labels == label
        of_label = scores.features[places].astype(np.float64)
        distance[places] = np.linalg.norm(of_label - of_label.mean(axis=0), axis=1)
    return Design(take_first(distance, n, scores, seed, within_labels=True))


def design_easier_of_any_label(scores: SampleScores, n: int, seed: int) -> Design:
    """As `easier`, with one order for all labels, so that easy labels get more."""
    of_one_label = np.zeros(len(scores.labels), np.int64)
    return DESIGNS["easier"](replace(scores, labels=of_one_label), n, seed)


def stratified(method: str) -> Rule:
    """A method's weights, of every label its share."""

    def design(scores: SampleScores, n: int, seed: int) -> Design:
        return _stratify(materialize(DESIGNS[method](scores, n, seed).weights), scores, n)

    return design


_ANSWERS, _CASES, _FEATURES = (frozenset((need,)) for need in ("answers", "cases", "features"))
CANDIDATES: dict[str, Method] = {
    "easier-half": Method("at random from the easier half of each label", OWN, _ANSWERS),
    "easier-quarter": Method("at random from the easier quarter", OWN, _ANSWERS),
    "easier-three-quarters": Method("at random from all but the hardest quarter", OWN, _ANSWERS),
    "middle-half": Method("at random from the middle half", OWN, _ANSWERS),
    "easier-half-area": Method("at random from the easier half by the mean loss of all epochs", OWN, _ANSWERS),
    "easier-tenth": Method("at random from the easier tenth", OWN, _ANSWERS),
    "easiest-area": Method("the smallest mean loss of all epochs", OWN, _ANSWERS),
    "easiest-averaged": Method("the smallest loss, the mean over trainings of the probe", OWN, _ANSWERS, N_SEEDS),
    "easiest-area-averaged": Method("the smallest mean loss of all epochs and trainings", OWN, _ANSWERS, N_SEEDS),
    "cases-easier-half": Method("by cases from the easier half", OWN, _ANSWERS | _CASES),
    "ambiguous": Method("what the probe changes its mind about", OWN, _ANSWERS),
    "smooth-area-2": Method("the less the larger the mean loss of all epochs", OWN, _ANSWERS),
    "smooth-area-4": Method("the same, steeper", OWN, _ANSWERS),
    "spread-easier-half": Method("k-centre of the easier half", OWN, _ANSWERS | _FEATURES),
    "typical": Method("nearest to the label's mean feature", OWN, _FEATURES),
    "entropy-tails-stratified": Method("entropy tails, of every label its share", OWN, _ANSWERS),
    "easier-of-any-label": Method("as `easier`, with no balance of labels", OWN, _ANSWERS),
}
_RULES: dict[str, Rule] = {
    "easier-half": between(0.0, 0.5),
    "easier-quarter": between(0.0, 0.25),
    "easier-three-quarters": between(0.0, 0.75),
    "middle-half": between(0.25, 0.75),
    "easier-half-area": between(0.0, 0.5, area_loss),
    "easier-tenth": between(0.0, 0.1),
    "easiest-area": easiest_by(area_loss),
    "easiest-averaged": easiest_by(final_loss),
    "easiest-area-averaged": easiest_by(area_loss),
    "cases-easier-half": design_cases_easier,
    "ambiguous": design_ambiguous,
    "smooth-area-2": falling(2, area_loss),
    "smooth-area-4": falling(4, area_loss),
    "spread-easier-half": design_spread_easier,
    "typical": design_typical,
    "entropy-tails-stratified": stratified("entropy-tails"),
    "easier-of-any-label": design_easier_of_any_label,
}
CHEAPER: dict[str, Method] = {
    "easier-by-middle": Method("as `easier`, by the middle network after a fifth of the epochs", OWN, _ANSWERS),
    "easier-by-start": Method("as `easier`, by the heaviest network after a fifth of the epochs", OWN, _ANSWERS),
}
"""Tried in the second study; `second.plan` says what their probes are."""
ALL_METHODS = {**METHODS, **CANDIDATES, **CHEAPER}
ALL_RULES = {**DESIGNS, **_RULES, **dict.fromkeys(CHEAPER, DESIGNS["easier"])}
