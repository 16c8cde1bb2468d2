"""Whether the accuracies of a check lie so near to 100 %, or to chance, that the test samples cannot rank them."""

from __future__ import annotations

from proxyds.evaluation.rank_metrics import Floats
from proxyds.selection.probe import find_needed_accuracy

_EXPLANATIONS = (
    (
        "no better than chance ({floor:.1%} is three standard errors above it)",
        "train longer (training.epochs, and check.full_training where it is set), or on more samples",
    ),
    (
        "as good as 100 % ({ceiling:.1%} is three standard errors below it)",
        "train shorter (training.epochs, and check.full_training where it is set), on smaller images (source.image_size) or on harder data; training longer does not help",
    ),
)


def find_ceiling(n_test: int) -> float:
    """Computes the least accuracy a on n test samples that is within three standard errors of 1.

    The condition 1 - a <= 3 sqrt(a (1 - a) / n) is the same as a >= n / (n + 9): hardly nine wrong answers.
    """
    return n_test / (n_test + 9)


def explain_saturation(full: Floats, proxy: Floats, n_labels: int, n_test: int) -> str | None:
    """Says whether more than half of the architectures are at chance or at the ceiling, and what helps.

    Args:
        full: (F, n) accuracies after training on everything: trainings by architectures.
        proxy: (R, n) accuracies after training on the proxy.
        n_labels: Labels of the test samples; chance is one of them.
        n_test: Test samples.

    Returns:
        One sentence; None where neither everything nor the proxy is concerned.
    """
    floor, ceiling = find_needed_accuracy(1 / n_labels, n_test), find_ceiling(n_test)
    found: list[list[str]] = [[], []]  # for each of the explanations, on what
    for name, accuracies in (("everything", full), ("the proxy", proxy)):
        means = accuracies.mean(axis=0)
        is_at_chance = means < floor
        is_at_ceiling = ~is_at_chance & (means >= ceiling)
        for places, concerned in zip(found, (is_at_chance, is_at_ceiling), strict=True):
            if 2 * concerned.sum() > len(means):
                places.append(f"{concerned.sum()} of {len(means)} architectures trained on {name}")
    parts = [
        f"{' and '.join(places)} are {what.format(floor=floor, ceiling=ceiling)} on the {n_test:,} test samples, so that their order is "
        f"mostly noise: {remedy}"
        for places, (what, remedy) in zip(found, _EXPLANATIONS, strict=True)
        if places
    ]
    return "; ".join(parts) + "." if parts else None
