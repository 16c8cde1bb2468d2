"""What the second study's rows say, by the rules of its protocol; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.evaluation.intervals import LeftOut, compare_repeats, subtract
from proxyds.evaluation.rank_metrics import Floats
from proxyds.space.architecture import Architecture
from tests.studies.second.plan import BASE, FULL, GROUPS, VARIANTS

Rows = Sequence[Mapping[str, str]]
LEAST_GAIN = 0.03
"""What a value has to gain in tau to be taken, and again for each doubling of the cost."""


@dataclass(frozen=True)
class Gain:
    """What one variant gains over the base.

    Attributes:
        variant: Its name.
        tau: Of the variant: the mean over draws and methods.
        gain: In tau, with its interval.
        cost: Of a training beside the base's, its share of a teacher included.
        accuracy: Mean of all its trainings.
    """

    variant: str
    tau: float
    gain: EstimateRecord
    cost: float
    accuracy: float

    @property
    def needed(self) -> float:
        """The gain that it has to reach."""
        return LEAST_GAIN + LEAST_GAIN * max(0.0, math.log2(self.cost))

    @property
    def is_taken(self) -> bool:
        """Whether it reaches that."""
        return self.gain.value is not None and self.gain.value >= self.needed


def choose_reference(rows: Rows) -> str:
    """Chooses the training on everything with the highest mean accuracy on the evaluation samples; one that diverged is none."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["stage"] == "tune-reference":
            found.setdefault(row["variant"], []).append(row["accuracy"])
    means = {variant: np.mean([float(each) for each in of]) for variant, of in found.items() if all(of)}
    return max(means, key=lambda variant: means[variant])


def read_reference(rows: Rows, architectures: Sequence[Architecture]) -> Floats:
    """Reads the mean accuracy of the trainings on everything, (1, n)."""
    of = [row for row in rows if row["stage"] == "reference" and row["accuracy"]]
    seeds = sorted({row["number"] for row in of})
    found = {(row["number"], row["architecture"]): float(row["accuracy"]) for row in of}
    each = [[found[seed, one.name] for one in architectures] for seed in seeds]
    return np.round(np.mean(each, axis=0, keepdims=True), 12)


def rank(
    rows: Rows, architectures: Sequence[Architecture], reference: Floats, variant: str, score: str
) -> LeftOut | None:
    """Computes the tau of a variant with each architecture left out, the mean over its methods; None where a score is missing.

    Args:
        rows: Of one stage.
        architectures: Those that count.
        reference: (1, n) of `read_reference`.
        variant: Whose rows are taken.
        score: The column that ranks.
    """
    of = [row for row in rows if row["variant"] == variant and row["method"] != FULL]
    found = {(row["method"], int(row["number"]), row["architecture"]): row[score] for row in of}
    methods, draws = sorted({key[0] for key in found}), np.array(sorted({key[1] for key in found}))
    cost = np.array([float(each.training_flops) for each in architectures])
    ranked = []
    for method in methods:
        texts = [[found.get((method, draw, each.name), "") for each in architectures] for draw in draws]
        if not all(text for of_draw in texts for text in of_draw):
            return None
        measured = np.array(texts, dtype=float) * (-1 if score in ("loss", "train_loss_sum") else 1)
        ranked.append(compare_repeats(reference, measured, draws, cost, "tau"))
    return replace(ranked[0], values=np.mean([each.values for each in ranked], axis=0)) if ranked else None


def weigh_factors(rows: Rows, architectures: Sequence[Architecture], reference: Floats) -> list[Gain]:
    """Weighs every variant against the base, in the order of the plan; what lacks a row is left out."""
    of_stage = [row for row in rows if row["stage"] == "factors"]
    base = rank(of_stage, architectures, reference, BASE, "accuracy")
    if base is None:
        return []
    gains = []
    for variant in dict.fromkeys(row["variant"] for row in of_stage):
        of_variant = rank(of_stage, architectures, reference, variant, "accuracy")
        if of_variant is None or variant == BASE:
            continue
        accuracies = [float(row["accuracy"]) for row in of_stage if row["variant"] == variant]
        gain = subtract(of_variant, base).as_difference()
        cost = find_cost(variant)
        gains.append(Gain(variant, float(of_variant.mean[0]), gain, cost, float(np.mean(accuracies))))
    return gains


def find_cost(variant: str) -> float:
    """Finds what a variant's training costs beside the base's; images of another side cost by their pixels, a teacher by its share.

    The teacher trains on twenty times as many images as the base; its answers serve all 24 networks.
    """
    given = VARIANTS[variant]
    cost = given.settings.get("epochs", 13) / 13
    if given.side is not None:
        cost *= (given.side / 16) ** 2
    return cost + (20 / 24 if given.temperature is not None else 0)


def choose(gains: Sequence[Gain], n: int = 3) -> list[str]:
    """Chooses the best value of each factor that gains enough, then the factors that gain most, the best first."""
    best = []
    for variants in GROUPS.values():
        taken = [each for each in gains if each.variant in variants and each.is_taken]
        if taken:
            best.append(max(taken, key=lambda each: each.gain.value or 0.0))
    return [each.variant for each in sorted(best, key=lambda each: -(each.gain.value or 0.0))][:n]
