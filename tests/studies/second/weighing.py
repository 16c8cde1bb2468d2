"""What the second study's rows say, by the rules of its protocol; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import FEWER_EPOCHS
from proxyds.evaluation.intervals import LeftOut, leave_out, subtract
from proxyds.evaluation.rank_metrics import Floats, add_parameters, kendall_tau, normal_scores, regret_of
from proxyds.space.architecture import Architecture
from tests.studies.second.plan import BASE, GROUPS, LENGTHS, VARIANTS

Rows = Sequence[Mapping[str, str]]
LEAST_GAIN = 0.03
"""What a value has to gain in tau to be taken, and again for each doubling of the cost."""
LEAST_LONGER = 0.005
"""What the longer training on everything has to gain in accuracy."""


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


def choose_length(rows: Rows) -> str:
    """Chooses the longer training on everything if it gains half a point on the mean, the shorter one otherwise."""
    of_stage = [row for row in rows if row["stage"] == "reference-length"]
    means = {
        variant: np.mean([float(row["accuracy"]) for row in of_stage if row["variant"] == variant])
        for variant in LENGTHS
    }
    shorter, longer = LENGTHS
    return longer if means[longer] - means[shorter] >= LEAST_LONGER else shorter


def keep_whole(rows: Rows, architectures: Sequence[Architecture]) -> list[Mapping[str, str]]:
    """Keeps the rows of draws that every one of some networks was trained on."""

    def draw_of(row: Mapping[str, str]) -> tuple[str, ...]:
        return row["stage"], row["variant"], row["method"], row["ratio"], row["number"]

    names = {each.name for each in architectures}
    trained: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        trained.setdefault(draw_of(row), set()).add(row["architecture"])
    return [row for row in rows if names <= trained[draw_of(row)]]


@dataclass(frozen=True)
class Ranked:
    """Networks that are ranked on one data set.

    Attributes:
        rows: Of their trainings on parts of it, of one stage.
        architectures: Those that count.
        reference: (n,) what they reach on everything, of `read_reference`.
    """

    rows: Rows
    architectures: Sequence[Architecture]
    reference: Floats


def read_reference(rows: Rows, architectures: Sequence[Architecture]) -> Floats | None:
    """Reads the mean accuracy of the trainings on everything, (n,), over the seeds that are whole; None where none is."""
    seeds = read_seeds(rows, architectures)
    return np.round(seeds.mean(axis=0), 12) if len(seeds) else None


def read_first_seed(rows: Rows, architectures: Sequence[Architecture]) -> Floats:
    """Reads the accuracies of the first training on everything, (n,), which part A chooses by; NaN where one is missing."""
    found = {
        row["architecture"]: row["accuracy"] for row in rows if row["stage"] == "reference" and row["number"] == "0"
    }
    return np.array([float(found.get(one.name) or "nan") for one in architectures])


def read_seeds(rows: Rows, architectures: Sequence[Architecture]) -> Floats:
    """Reads the accuracies of the trainings on everything, (F, n), of the seeds that are whole."""
    of = keep_whole([row for row in rows if row["stage"] == "reference" and row["accuracy"]], architectures)
    found = {(row["number"], row["architecture"]): float(row["accuracy"]) for row in of}
    seeds = sorted({seed for seed, _ in found})
    return np.array([[found[seed, one.name] for one in architectures] for seed in seeds]).reshape(
        -1, len(architectures)
    )


PARAMETERS_ALONE = "n_parameters"


@dataclass(frozen=True)
class Way:
    """One way to rank networks.

    Attributes:
        variant: How they are trained.
        methods: How samples are chosen; tau is the mean over these, unless they are combined.
        n_draws: Of each method.
        score: The column that ranks; or `n_parameters`, for which nothing is trained.
        parameter_weight: What the number of parameters counts beside it.
        is_combined: Whether the mean of the methods' normal scores ranks, of the draws of the same number.
    """

    variant: str
    methods: tuple[str, ...] = ("random", "stratified")
    n_draws: int = 3
    score: str = "accuracy"
    parameter_weight: float = 0.0
    is_combined: bool = False


def rank(ranked: Sequence[Ranked], way: Way) -> LeftOut | None:
    """Computes the tau of a way to rank with each network left out: the mean over data sets, methods and draws.

    A network that is left out is left out on every data set: it is the same one.

    Returns:
        None where there is no data set, or a row is missing or has no score.
    """
    names = list(dict.fromkeys(each.name for one in ranked for each in one.architectures))
    if not names:
        return None
    included = leave_out(len(names), in_pairs=True)
    taus = []
    for one in ranked:
        measured = read_rankings(one, way)
        if measured is None:
            return None
        columns = [names.index(each.name) for each in one.architectures]
        taus += [
            [kendall_tau(one.reference, of_draw, included[:, columns]) for of_draw in of_draws] for of_draws in measured
        ]
    return LeftOut(
        np.mean(taus, axis=0),
        len(names),
        len(names) * (len(names) - 1) // 2,
        has_common_draws=way.methods != (FEWER_EPOCHS,) and way.score != PARAMETERS_ALONE,
    )


def find_regret(ranked: Ranked, way: Way, n_finalists: int) -> float | None:
    """Finds the regret, the accuracy that is lost by training so many finalists on everything and taking the best, as a share; None where a row is missing."""
    measured = read_rankings(ranked, way)
    if measured is None:
        return None
    lost = [regret_of(n_finalists, ranked.reference, of_draw) for of_draw in measured.reshape(-1, measured.shape[-1])]
    return float(np.mean(lost))


def read_rankings(ranked: Ranked, way: Way) -> Floats | None:
    """Reads what ranks in the end, (M, D, n), methods combined and parameters added; None where a row is missing or has no score."""
    measured = read_scores(ranked, way)
    if measured is None:
        return None
    if way.is_combined:
        measured = np.round(normal_scores(measured).mean(axis=0, keepdims=True), 12)  # equal ones stay equal
    if not way.parameter_weight:
        return measured
    n_parameters = np.array([float(each.n_parameters) for each in ranked.architectures])
    return np.array([add_parameters(of_draws, n_parameters, way.parameter_weight) for of_draws in measured])


def read_scores(ranked: Ranked, way: Way) -> Floats | None:
    """Reads what ranks, (M, D, n): methods, draws, networks; higher is better. None where one is missing."""
    if way.score == PARAMETERS_ALONE:
        return np.array([[[float(each.n_parameters) for each in ranked.architectures]]])
    of = [row for row in ranked.rows if row["variant"] == way.variant and row["method"] in way.methods]
    found = {(row["method"], int(row["number"]), row["architecture"]): row[way.score] for row in of}
    texts = [
        [[found.get((method, draw, each.name), "") for each in ranked.architectures] for draw in range(way.n_draws)]
        for method in way.methods
    ]
    if not all(text for of_method in texts for of_draw in of_method for text in of_draw):
        return None
    return np.array(texts, dtype=float) * (-1 if way.score in ("loss", "train_loss_sum") else 1)


def weigh_variants(ranked: Ranked, beside: Ranked | None = None) -> list[Gain]:
    """Weighs every variant against the base, in the order of the rows; what lacks a row is left out.

    Args:
        ranked: Of the variants.
        beside: Of the base, where another stage has its rows.
    """
    base = rank([beside or ranked], Way(BASE))
    if base is None:
        return []
    gains = []
    for variant in dict.fromkeys(row["variant"] for row in ranked.rows):
        of_variant = rank([ranked], Way(variant))
        if of_variant is None or variant == BASE:
            continue
        accuracies = [float(row["accuracy"]) for row in ranked.rows if row["variant"] == variant]
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
