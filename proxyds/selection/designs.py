"""The rules of selection methods: each makes, of the training samples' scores, the sampling design that the proxy is drawn by.

A design gives every sample a weight, and where a method deals samples out by class or by score, strata with a quota each; `sampling.py`
draws by it. A method that ranks and cuts off gives a weight of 1 to what it takes and 0 to the rest: nothing is left to chance but
ties. Scores are those of the heaviest probe, the mean over its trainings. Features are the heaviest probe's too, after PCA, where authors
take a network's last layer as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import map_chunks, materialize
from proxyds.seeding import derive_seed, uniform_keys
from proxyds.selection.records import Answers, SampleScores
from proxyds.selection.sampling import Design, share_out

_Value = TypeVar("_Value")

Floats = NDArray[np.float64]
Rule = Callable[[SampleScores, int, int], Design]
"""A method's rule: takes the samples' scores, how many are drawn and a seed."""

EARLY = 0.1
"""Share of the epochs after which samples are scored by `el2n`: Paul et al. take 20 of 200."""
STEEPNESS = 9
"""Exponent of `easier`: half of the chances lie with the easiest 7 % of each label, as long as the proxy has no more than a tenth of all."""
N_STRATA = 50
"""Strata of scores in `ccs`: the authors' number."""
SMALLEST_ENTROPY = 1e-12


def design_random(scores: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """Gives every sample the same chance."""
    return Design(map_chunks(lambda labels: np.ones(len(labels)), scores.labels))


def design_cases(scores: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """Weighs in proportion to the importance of cases (Park 2019, Algorithm 1)."""
    assert scores.importance is not None
    return Design(scores.importance)


def within_labels(design: Rule) -> Rule:
    """Makes a rule of the same weights that takes of every label its share of the samples."""

    def design_within_labels(scores: SampleScores, n: int, seed: int) -> Design:
        quotas = share_out(scores.label_counts, n)
        return replace(design(scores, n, seed), strata=materialize(scores.labels), quotas=quotas)

    return design_within_labels


def take_extreme(find_score: Callable[[Answers], Floats], *, largest: bool, within_labels: bool = False) -> Rule:
    """Makes a rule that takes the samples with the smallest, or the largest, score, (N,); with `within_labels` each label's share of them."""

    def design(scores: SampleScores, n: int, seed: int) -> Design:
        score = find_score(_declared(scores.answers))
        return Design(take_first(-score if largest else score, n, scores, seed, within_labels=within_labels))

    return design


def find_loss(answers: Answers) -> Floats:
    """Finds the loss at the end of training.

    Shleifer and Prokop (2019) take the easiest or hardest of all by it; the methods `easiest` and `hardest` take equal shares of labels,
    which are ours.
    """
    return answers.at_end("loss")


def find_el2n(answers: Answers) -> Floats:
    """Finds the EL2N score, the length of the error vector early in training (Paul et al. 2021)."""
    return answers.at(max(1, round(EARLY * answers.n_epochs)) - 1, "el2n")


def design_easier(scores: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """Weighs what is easier more: (1 - u)^k, u in [0, 1] a sample's place among those of its label by its loss at the end of training.

    Ours. Shleifer and Prokop (2019) cut off all but the easiest; this is a soft cut-off, so that draws differ. A sample's weight is the mean of
    (1 - u)^k over the places that it takes, or that it and those of the same loss take: so every label has its share, in expectation, whatever
    its losses are and however few samples it has.
    """
    loss, power = find_loss(_declared(scores.answers)), STEEPNESS + 1
    labels, weights = materialize(scores.labels), np.empty(len(loss))
    for label in np.unique(labels):
        of_label = labels == label
        _, inverse, n_equal = np.unique(loss[of_label], return_inverse=True, return_counts=True)
        n_harder = n_equal.sum() - np.cumsum(n_equal)
        above, below = (n_harder + n_equal) / n_equal.sum(), n_harder / n_equal.sum()  # 1 - u at both ends
        weights[of_label] = ((above**power - below**power) / (power * (above - below)))[inverse]
    return Design(weights)


def design_entropy_tails(power: int) -> Rule:
    """Makes a rule, P1, P2 or P3, that weighs more what is rare in a histogram of log10 entropies: what the network is most and least sure of.

    Na et al. (2021) give a bin of height h the chance (P1) max h - h + 1, (P2) the same for all, (P3) 1 / h, shared by its samples.
    They set the bins' width for each data set: 0.5 for CIFAR-10 and 0.25 for CIFAR-100, taken here for up to ten labels and for
    more. Their network is trained apart; here it is the heaviest probe. P2 gives empty bins a chance too, which changes nothing.
    """

    def design(scores: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
        entropy = _declared(scores.answers).at_end("entropy")
        width = 0.5 if scores.n_labels <= 10 else 0.25
        bins = np.floor(np.log10(np.maximum(entropy, SMALLEST_ENTROPY)) / width).astype(np.int64)
        bins -= bins.min()
        heights = np.bincount(bins)
        with np.errstate(divide="ignore"):
            chances = {1: heights.max() - heights + 1.0, 2: np.ones(len(heights)), 3: 1.0 / heights}[power]
            each = chances / heights
        return Design(each[bins])

    return design


def count_forgetting(answers: Answers) -> Floats:
    """Counts how often each sample was right after one epoch and wrong after the next (Toneva et al. 2019), (N,) the mean over trainings.

    What was never right counts as often as there are epochs, which is more than can be forgotten; the authors count such samples as
    forgotten without end. They look at a sample when a batch holds it; here it is looked at after each epoch.
    """

    def count_falls(margins: Iterator[NDArray[np.float32]]) -> NDArray[np.int64]:
        forgotten, was_right, was_ever_right = np.zeros(1, np.int64), np.zeros(1, np.bool_), np.zeros(1, np.bool_)
        for margin in margins:
            right = margin > 0
            forgotten = forgotten + (was_right & ~right)
            was_right, was_ever_right = right, was_ever_right | right
        return np.where(was_ever_right, forgotten, answers.n_epochs)

    return _average_margins(answers, count_falls)


def _average_margins(answers: Answers, summarize: Callable[[Iterator[NDArray[np.float32]]], NDArray[Any]]) -> Floats:
    """Averages over trainings what is made of each one's margins, (N,) after every epoch."""
    of_trainings = (summarize(answers.over_epochs(training, "margin")) for training in range(answers.n_trainings))
    mean: Floats = sum(of_trainings, np.zeros(1)) / answers.n_trainings
    return mean


def find_cutoff(ratio: float, n_labels: int) -> float:
    """Finds the share of the hardest samples that `ccs` leaves out (Zheng et al. 2023), that of the nearest ratio from above.

    That of 0.1 for up to ten labels, also taken for smaller ratios, is what the authors' code gives for CIFAR-10. The others, and all
    for more labels (CIFAR-100), are of the paper's appendix as we remember it: not yet compared with it.
    """
    of_ratio = (
        {0.7: 0.0, 0.5: 0.0, 0.3: 0.1, 0.2: 0.1, 0.1: 0.3}
        if n_labels <= 10
        else {0.7: 0.1, 0.5: 0.2, 0.3: 0.2, 0.2: 0.4, 0.1: 0.5}
    )
    return of_ratio[min((each for each in of_ratio if each >= ratio - 1e-9), default=max(of_ratio))]


def design_ccs(scores: SampleScores, n: int, seed: int) -> Design:
    """Selects coverage-centric (Zheng et al. 2023): without the hardest, evenly over the range of scores.

    Scores are the area under the margin, the sum over epochs; of the network after each epoch, where the authors take what it says in
    training as batches come. Fifty strata of equal width have equal quotas as far as they hold so
    many; what small ones leave goes to the larger.
    """
    score = _average_margins(_declared(scores.answers), lambda margins: sum(margins, np.zeros(1)))
    n_cut = round(find_cutoff(n / len(score), scores.n_labels) * len(score))
    n_cut = min(n_cut, len(score) - n)
    is_cut = take_first(score, n_cut, scores, seed) > 0
    low, high = score[~is_cut].min(), score[~is_cut].max()
    strata = np.floor((score - low) / max(high - low, 1e-12) * N_STRATA).clip(0, N_STRATA - 1).astype(np.int64)
    quotas = fill_evenly(np.bincount(strata[~is_cut], minlength=N_STRATA), n)
    return Design(np.where(is_cut, 0.0, 1.0), strata, quotas)


def fill_evenly(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Shares n out evenly among strata of so many samples, from the smallest; what one cannot take is shared among the rest."""
    quotas = np.zeros(len(counts), np.int64)
    left = n
    for n_filled, stratum in enumerate(np.argsort(counts, kind="stable")):
        quotas[stratum] = min(counts[stratum], left // (len(counts) - n_filled))
        left -= quotas[stratum]
    return quotas


def design_k_center(scores: SampleScores, n: int, seed: int) -> Design:
    """Takes greedy k-centres of the features (Sener and Savarese 2018): from one sample by the seed, always the farthest from all that were taken."""
    features, taken = _declared(scores.features), np.zeros(len(scores.ids))
    norms = (features**2).sum(axis=1)
    nearest = np.full(len(features), np.inf, np.float32)
    chosen = int(uniform_keys(materialize(scores.ids), derive_seed(seed, "first")).argmin())
    for _ in range(n):
        taken[chosen] = 1.0
        distance = norms - 2 * (features @ features[chosen]) + norms[chosen]
        np.minimum(nearest, distance, out=nearest)
        nearest[chosen] = -np.inf
        chosen = int(nearest.argmax())
    return Design(taken)


def design_herding(scores: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """Herds each label's share (Welling 2009, as Rebuffi et al. 2017): always the sample that brings the mean nearest to the label's.

    On features of length 1, as they do; these are features after PCA, which are centred on the mean of the evaluation samples.
    """
    features = _declared(scores.features)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    labels, taken = materialize(scores.labels), np.zeros(len(features))
    for label, quota in enumerate(share_out(scores.label_counts, n)):
        indices = np.flatnonzero(labels == label)
        if not quota:
            continue
        of_label = features[indices].astype(np.float64)
        mean, total, squares = of_label.mean(axis=0), np.zeros(of_label.shape[1]), (of_label**2).sum(axis=1)
        is_left = np.ones(len(indices), np.bool_)
        for n_taken in range(1, quota + 1):
            # |mean - (total + x) / k|^2 is smallest where x . (x + 2 total - 2 k mean) is: norms are 1, but for rows of zeros
            towards = of_label @ (2 * (total - n_taken * mean)) + squares
            chosen = int(np.where(is_left, towards, np.inf).argmin())
            is_left[chosen] = False
            total += of_label[chosen]
        taken[indices[~is_left]] = 1.0
    return Design(taken)


def design_moderate(scores: SampleScores, n: int, seed: int) -> Design:
    """Takes the n samples whose distance from their label's median feature is nearest to the median distance (Moderate, Xia et al. 2023).

    By rank, as the authors' code: the middle n of all samples in the order of their distance.
    """
    features, labels = _declared(scores.features), materialize(scores.labels)
    distance = np.empty(len(features))
    for label in np.unique(labels):
        of_label = features[labels == label].astype(np.float64)
        distance[labels == label] = np.linalg.norm(of_label - np.median(of_label, axis=0), axis=1)
    start = (len(features) - n) // 2
    return Design(_mark(_order(distance, scores, seed)[start : start + n], len(features)))


def take_first(values: Floats, n: int, scores: SampleScores, seed: int, *, within_labels: bool = False) -> Floats:
    """Marks the n samples of the smallest values, or of every label its share of n, equal ones by the seed; (N,) of 1 and 0."""
    order = _order(values, scores, seed)
    if not within_labels:
        return _mark(order[:n], len(order))
    labels, quotas = materialize(scores.labels)[order], share_out(scores.label_counts, n)
    return _mark(np.concatenate([order[labels == label][:quota] for label, quota in enumerate(quotas)]), len(order))


def _order(values: Floats, scores: SampleScores, seed: int) -> NDArray[np.int64]:
    """Orders samples by a value, the smallest first, equal ones by the seed."""
    return np.lexsort((uniform_keys(materialize(scores.ids), derive_seed(seed, "ties")), values))


def _mark(indices: NDArray[np.int64], n_all: int) -> Floats:
    """Makes (n_all,) weights of 1 for what is taken and 0 for the rest."""
    taken = np.zeros(n_all)
    taken[indices] = 1.0
    return taken


def _declared(value: _Value | None) -> _Value:
    """Returns what a method has declared that it needs."""
    assert value is not None, "a method declares what it needs"
    return value


DESIGNS: dict[str, Rule] = {
    "random": design_random,
    "stratified": within_labels(design_random),
    "cases": design_cases,
    "cases-stratified": within_labels(design_cases),
    "easier": design_easier,
    "easiest": take_extreme(find_loss, largest=False, within_labels=True),
    "hardest": take_extreme(find_loss, largest=True, within_labels=True),
    "entropy-tails": design_entropy_tails(1),
    "entropy-tails-p2": design_entropy_tails(2),
    "entropy-tails-p3": design_entropy_tails(3),
    "el2n": take_extreme(find_el2n, largest=True),
    "forgetting": take_extreme(count_forgetting, largest=True),
    "ccs": design_ccs,
    "k-center": design_k_center,
    "herding": design_herding,
    "moderate": design_moderate,
}
"""The rule of each of `recipe.methods.METHODS`."""
