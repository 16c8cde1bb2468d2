"""The rules of selection methods: from what is known of the training samples to the sampling design that the proxy is drawn by.

A design gives every sample a weight, and where a method deals samples out by class or by score, strata with a quota each; `sampling.py`
draws by it. A method that ranks and cuts off gives a weight of 1 to what it takes and 0 to the rest: nothing is left to chance but
ties. Scores of training samples are those of the heaviest probe, the mean over its trainings. Features are its own too, after PCA, where
authors take a network's last layer as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import count, map_chunks, materialize
from proxyds.seeding import ParsedIds, derive_seed, uniform_keys
from proxyds.selection.records import Answers, SampleScores
from proxyds.selection.sampling import Design, share_out

_Value = TypeVar("_Value")

Floats = NDArray[np.float64]
Rule = Callable[[SampleScores, int, int], Design]
"""A method's rule: takes what is known of the samples, how many are drawn and a seed."""

EARLY = 0.1
"""Share of the epochs after which samples are scored by `el2n`: Paul et al. take 20 of 200."""
STEEPNESS = 9
"""Of `easier`: half of the chances lie with the easiest 7 % of each label, as long as the proxy has no more than a tenth of all samples."""
N_STRATA = 50
"""Of scores, in `ccs`: the authors' number."""
SMALLEST_ENTROPY = 1e-12


def design_random(known: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """Every sample with the same chance."""
    return Design(map_chunks(lambda labels: np.ones(len(labels)), known.labels))


def design_cases(known: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """In proportion to the importance of cases (Park 2019, Algorithm 1)."""
    assert known.importance is not None
    return Design(known.importance)


def within_labels(design: Rule) -> Rule:
    """The same weights, and of every label its share of the samples."""

    def design_within_labels(known: SampleScores, n: int, seed: int) -> Design:
        quotas = share_out(count(known.labels), n)
        return replace(design(known, n, seed), strata=materialize(known.labels), quotas=quotas)

    return design_within_labels


def design_by_loss(*, hardest: bool) -> Rule:
    """Of every label its share of the samples, those with the smallest, or the largest, loss at the end of training.

    After Shleifer and Prokop (2019), who speak of the easiest and hardest of all; equal shares of labels are ours.
    """

    def design(known: SampleScores, n: int, seed: int) -> Design:
        loss = _given(known.answers).at_end("loss")
        return Design(
            take_first(-loss if hardest else loss, n, materialize(known.ids), seed, materialize(known.labels))
        )

    return design


def design_easier(known: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """More of what is easier: (1 - u)^k, u in [0, 1] a sample's place among those of its label by its loss at the end of training.

    Ours. Shleifer and Prokop (2019) cut off all but the easiest; this is a soft cut-off, so that draws differ. A sample's weight is the mean of
    (1 - u)^k over the places that it takes, or that it and those of the same loss take: so every label has its share, in expectation, whatever
    its losses are and however few samples it has.
    """
    loss, power = _given(known.answers).at_end("loss"), STEEPNESS + 1
    labels, weights = materialize(known.labels), np.empty(len(loss))
    for label in np.unique(labels):
        of_label = labels == label
        _, inverse, n_equal = np.unique(loss[of_label], return_inverse=True, return_counts=True)
        n_harder = n_equal.sum() - np.cumsum(n_equal)
        above, below = (n_harder + n_equal) / n_equal.sum(), n_harder / n_equal.sum()  # 1 - u at both ends
        weights[of_label] = ((above**power - below**power) / (power * (above - below)))[inverse]
    return Design(weights)


def design_entropy_tails(power: int) -> Rule:
    """More of what is rare in a histogram of log10 entropies: what the network is most and least certain of.

    Na et al. (2021) give a bin of height h the chance (P1) max h - h + 1, (P2) the same for all, (P3) 1 / h, shared by its samples.
    They set the bins' width for each data set: 0.5 for CIFAR-10 and 0.25 for CIFAR-100, taken here for up to ten labels and for
    more. Their network is trained apart; here it is the heaviest probe. P2 gives empty bins a chance too, which changes nothing.

    Args:
        power: Which of P1, P2, P3.
    """

    def design(known: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
        entropy = _given(known.answers).at_end("entropy")
        width = 0.5 if _count_labels(known) <= 10 else 0.25
        bins = np.floor(np.log10(np.maximum(entropy, SMALLEST_ENTROPY)) / width).astype(np.int64)
        bins -= bins.min()
        heights = np.bincount(bins)
        with np.errstate(divide="ignore"):
            chances = {1: heights.max() - heights + 1.0, 2: np.ones(len(heights)), 3: 1.0 / heights}[power]
            each = chances / heights
        return Design(each[bins])

    return design


def design_el2n(known: SampleScores, n: int, seed: int) -> Design:
    """The n samples with the largest EL2N score, the length of the error vector early in training (Paul et al. 2021)."""
    answers = _given(known.answers)
    epoch = max(1, round(EARLY * answers.n_epochs)) - 1
    return Design(take_first(-answers.at(epoch, "el2n"), n, materialize(known.ids), seed))


def design_forgetting(known: SampleScores, n: int, seed: int) -> Design:
    """The n samples that were most often right after one epoch and wrong after the next (Toneva et al. 2019)."""
    return Design(take_first(-count_forgetting(_given(known.answers)), n, materialize(known.ids), seed))


def count_forgetting(answers: Answers) -> Floats:
    """How often each sample was forgotten, (N,) the mean over trainings; what was never right counts as often as there are epochs.

    That is more than can be forgotten; the authors count such samples as forgotten without end. They look at a sample when a batch holds
    it; here it is looked at after each epoch.
    """
    of_all = np.zeros(1)
    for training in range(answers.n_trainings):
        forgotten, was_right, was_ever_right = np.zeros(1, np.int64), np.zeros(1, np.bool_), np.zeros(1, np.bool_)
        for margin in answers.over_epochs(training, "margin"):
            right = margin > 0
            forgotten = forgotten + (was_right & ~right)
            was_right, was_ever_right = right, was_ever_right | right
        of_all = of_all + np.where(was_ever_right, forgotten, answers.n_epochs)
    counted: Floats = of_all / answers.n_trainings
    return counted


def find_cutoff(ratio: float, n_labels: int) -> float:
    """Share of the hardest samples that `ccs` leaves out (Zheng et al. 2023), of the nearest ratio from above.

    That of 0.1 for up to ten labels, also taken for smaller ratios, is what the authors' code gives for CIFAR-10. The others, and all
    for more labels (CIFAR-100), are of the paper's appendix as we remember it: not yet compared with it.
    """
    of_ratio = (
        {0.7: 0.0, 0.5: 0.0, 0.3: 0.1, 0.2: 0.1, 0.1: 0.3}
        if n_labels <= 10
        else {0.7: 0.1, 0.5: 0.2, 0.3: 0.2, 0.2: 0.4, 0.1: 0.5}
    )
    return of_ratio[min((each for each in of_ratio if each >= ratio - 1e-9), default=max(of_ratio))]


def design_ccs(known: SampleScores, n: int, seed: int) -> Design:
    """Coverage-centric (Zheng et al. 2023): without the hardest, evenly over the range of scores.

    Scores are the area under the margin, the sum over epochs; of the network after each epoch, where the authors take what it says in
    training as batches come. Fifty strata of equal width have equal quotas as far as they hold so
    many; what small ones leave goes to the larger.
    """
    answers, score = _given(known.answers), np.zeros(1)
    for training in range(answers.n_trainings):
        area = np.zeros(1)
        for margin in answers.over_epochs(training, "margin"):
            area = area + margin
        score = score + area
    score = score / answers.n_trainings
    n_cut = round(find_cutoff(n / len(score), _count_labels(known)) * len(score))
    n_cut = min(n_cut, len(score) - n)
    is_cut = take_first(score, n_cut, materialize(known.ids), seed) > 0
    low, high = score[~is_cut].min(), score[~is_cut].max()
    strata = np.floor((score - low) / max(high - low, 1e-12) * N_STRATA).clip(0, N_STRATA - 1).astype(np.int64)
    quotas = fill_evenly(np.bincount(strata[~is_cut], minlength=N_STRATA), n)
    return Design(np.where(is_cut, 0.0, 1.0), strata, quotas)


def fill_evenly(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Shares n out evenly among strata of so many samples, from the smallest; what one cannot take is shared among the rest."""
    quotas = np.zeros(len(counts), np.int64)
    left = n
    for place, stratum in enumerate(np.argsort(counts, kind="stable")):
        quotas[stratum] = min(counts[stratum], left // (len(counts) - place))
        left -= quotas[stratum]
    return quotas


def design_k_center(known: SampleScores, n: int, seed: int) -> Design:
    """Greedy k-centre on features (Sener and Savarese 2018): from one sample by the seed, always the farthest from all that were taken."""
    features = _given(known.features)
    taken = np.zeros(len(features))
    norms = (features**2).sum(axis=1)
    nearest = np.full(len(features), np.inf, np.float32)
    chosen = int(uniform_keys(materialize(known.ids), derive_seed(seed, "first")).argmin())
    for _ in range(n):
        taken[chosen] = 1.0
        distance = norms - 2 * (features @ features[chosen]) + norms[chosen]
        np.minimum(nearest, distance, out=nearest)
        nearest[chosen] = -np.inf
        chosen = int(nearest.argmax())
    return Design(taken)


def design_herding(known: SampleScores, n: int, seed: int) -> Design:  # noqa: ARG001
    """Herding of each label's share (Welling 2009, as Rebuffi et al. 2017): always the sample that brings the mean nearest to the label's.

    On features of length 1, as they do; these are features after PCA, which are centred on the mean of the evaluation samples.
    """
    features = _given(known.features)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    labels, taken = materialize(known.labels), np.zeros(len(features))
    for label, quota in enumerate(share_out(np.bincount(labels), n)):
        places = np.flatnonzero(labels == label)
        if not quota:
            continue
        of_label = features[places].astype(np.float64)
        mean, total, squares = of_label.mean(axis=0), np.zeros(of_label.shape[1]), (of_label**2).sum(axis=1)
        is_left = np.ones(len(places), np.bool_)
        for n_taken in range(1, quota + 1):
            # |mean - (total + x) / k|^2 is smallest where x . (x + 2 total - 2 k mean) is: norms are 1, but for rows of zeros
            towards = of_label @ (2 * (total - n_taken * mean)) + squares
            chosen = int(np.where(is_left, towards, np.inf).argmin())
            is_left[chosen] = False
            total += of_label[chosen]
        taken[places[~is_left]] = 1.0
    return Design(taken)


def design_moderate(known: SampleScores, n: int, seed: int) -> Design:
    """Moderate (Xia et al. 2023): the n samples whose distance from their label's median feature is nearest to the median distance.

    By rank, as the authors' code: the middle n of all samples in the order of their distance.
    """
    features, labels = _given(known.features), materialize(known.labels)
    distance = np.empty(len(features))
    for label in np.unique(labels):
        of_label = features[labels == label].astype(np.float64)
        distance[labels == label] = np.linalg.norm(of_label - np.median(of_label, axis=0), axis=1)
    order = _order(distance, materialize(known.ids), seed)
    taken = np.zeros(len(features))
    start = (len(features) - n) // 2
    taken[order[start : start + n]] = 1.0
    return Design(taken)


def take_first(score: Floats, n: int, ids: ParsedIds, seed: int, labels: NDArray[np.int64] | None = None) -> Floats:
    """Marks the n samples of the smallest score, equal ones by the seed.

    Args:
        score: (N,).
        n: How many.
        ids: (N,) parsed.
        seed: Of the order of equal ones.
        labels: (N,): of every label its share; None: whatever their label.

    Returns:
        (N,) of 1 and 0.
    """
    order = _order(score, ids, seed)
    taken = np.zeros(len(score))
    if labels is None:
        taken[order[:n]] = 1.0
        return taken
    for label, quota in enumerate(share_out(np.bincount(labels), n)):
        taken[order[labels[order] == label][:quota]] = 1.0
    return taken


def _count_labels(known: SampleScores) -> int:
    """Labels that have samples."""
    return int(np.count_nonzero(count(known.labels)))


def _order(score: Floats, ids: ParsedIds, seed: int) -> NDArray[np.int64]:
    """Places by score, the smallest first, equal ones by the seed."""
    return np.lexsort((uniform_keys(ids, derive_seed(seed, "ties")), score))


def _given(value: _Value | None) -> _Value:
    """What a method has declared that it needs."""
    assert value is not None, "a method declares what it needs"
    return value


DESIGNS: dict[str, Rule] = {
    "random": design_random,
    "stratified": within_labels(design_random),
    "cases": design_cases,
    "cases-stratified": within_labels(design_cases),
    "easier": design_easier,
    "easiest": design_by_loss(hardest=False),
    "hardest": design_by_loss(hardest=True),
    "entropy-tails": design_entropy_tails(1),
    "entropy-tails-p2": design_entropy_tails(2),
    "entropy-tails-p3": design_entropy_tails(3),
    "el2n": design_el2n,
    "forgetting": design_forgetting,
    "ccs": design_ccs,
    "k-center": design_k_center,
    "herding": design_herding,
    "moderate": design_moderate,
}
"""The rule of each of `recipe.methods.METHODS`."""
