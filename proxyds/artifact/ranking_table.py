"""The table `ranking`: one row for each training and test behind the evidence. `docs/format.md` says what a column means."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from proxyds.recipe.methods import METHODS
from proxyds.space.architecture import Architecture

FULL, PROXY, RANDOM, STRATIFIED, FEWER_EPOCHS = "full", "proxy", "random", "stratified", "fewer-epochs"
RANDOM_LABELS, ALL_LABELS = "random-labels", "all-labels"
OTHER_METHODS = tuple(name for name in METHODS if name not in (RANDOM, STRATIFIED))
"""Selection methods that a check may be asked to compare with."""

DATASETS = (FULL, PROXY, RANDOM, STRATIFIED, *OTHER_METHODS, RANDOM_LABELS, ALL_LABELS, FEWER_EPOCHS)
"""What architectures are trained on, as the table `ranking` names it and in its order; `docs/format.md` says what each is."""

AT_ONE_RATIO = tuple(name for name in DATASETS if name != FULL)
"""Data sets that there are for each ratio."""

FLOPS, PARAMETERS = "flops", "parameters"
FREE_RANKINGS = {FLOPS: "training_flops", PARAMETERS: "n_parameters"}
"""Rankings that cost nothing to find, and their column."""

METHOD_LABELS = {
    FULL: "full data, another seed",
    **{name: name if name in METHODS else name.replace("-", " ") for name in AT_ONE_RATIO},
    FLOPS: "counting FLOPs",
    PARAMETERS: "counting parameters",
}
"""Ways to rank architectures, as tables and pictures call them; full data against itself is the noise ceiling."""

Score = Literal["accuracy", "loss"]
RankedBy = Literal[Score, "accuracy-and-parameters", "loss-and-parameters"]
BY_ACCURACY: Score = "accuracy"
BY_BOTH: RankedBy = "accuracy-and-parameters"
BY_LOSS: Score = "loss"
WITH_PARAMETERS: dict[Score, RankedBy] = {BY_ACCURACY: BY_BOTH, BY_LOSS: "loss-and-parameters"}
"""What a training set is ranked by, on test samples: accuracy or loss, alone or with the number of parameters (`rank_metrics.add_parameters`)."""

MAX_RANKED = 2000
"""Architectures that a check ranks, at most: every statistic looks at all pairs of them."""
TRAINED_HERE = "trained here"
"""Where accuracies come from, if not from a table or another proxy."""

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
COLUMNS = pa.schema(
    {
        **dict.fromkeys(("architecture", "network", "parameters"), _TEXT),
        **dict.fromkeys(("forward_flops", "training_flops", "n_parameters"), _WHOLE),
        "dataset": _TEXT,
        "ratio": _REAL,
        **dict.fromkeys(("draw_seed", "training_seed", "n_samples", "n_labels", "n_steps"), _WHOLE),
        "n_epochs": _REAL,
        "run_flops": _WHOLE,
        **dict.fromkeys(("accuracy", "evaluation_accuracy", "loss", "evaluation_loss"), _REAL),
        **dict.fromkeys(("training_seconds", "test_seconds"), _REAL),
        **dict.fromkeys(("device", "origin"), _TEXT),
    }
)
LATER_COLUMNS = ("n_labels", "evaluation_accuracy", "loss", "evaluation_loss")
"""Columns that tables of older proxies lack: they came with formats 1.2 and 2.0."""


@dataclass(frozen=True)
class Measured:
    """Accuracies of the architectures that have every run.

    Attributes:
        names: (n,) names of the architectures, the cheapest first.
        costs: (n,) each of `FREE_RANKINGS`.
        accuracies: For each data set and ratio (R, n): repeats by architectures.
        draws: For each of them (R,): the number of each repeat's draw; where nothing is drawn, of its training.
        left_out: Architectures that lack a run.
        on_evaluation: Of those that were measured on the evaluation samples too, the accuracies there, as `accuracies`.
        losses: Of those whose loss on test samples is known, this, as `accuracies`.
        losses_on_evaluation: The same on the evaluation samples.
    """

    names: list[str]
    costs: dict[str, NDArray[np.float64]]
    accuracies: dict[tuple[str, float], NDArray[np.float64]]
    draws: dict[tuple[str, float], NDArray[np.int64]]
    left_out: tuple[str, ...]
    on_evaluation: dict[tuple[str, float], NDArray[np.float64]] = field(default_factory=dict)
    losses: dict[tuple[str, float], NDArray[np.float64]] = field(default_factory=dict)
    losses_on_evaluation: dict[tuple[str, float], NDArray[np.float64]] = field(default_factory=dict)

    def count_draws(self, dataset: str, ratio: float) -> int:
        """Counts the draws of a data set; 1 where there is no training, as of a ranking that costs nothing."""
        return len(set(self.draws.get((dataset, ratio), (0,))))


def describe_architecture(architecture: Architecture) -> dict[str, Any]:
    """Describes an architecture in the columns that the table has for it."""
    return {
        "architecture": architecture.name,
        "network": architecture.network,
        "parameters": parameters_text(architecture),
        "forward_flops": architecture.forward_flops,
        "training_flops": architecture.training_flops,
        "n_parameters": architecture.n_parameters,
    }


def parameters_text(architecture: Architecture) -> str:
    """Writes an architecture's parameters as JSON, keys sorted: the same text for the same network."""
    return json.dumps(architecture.parameters, sort_keys=True)


def make_runs_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Sorts rows into a table of runs, whatever order the runs ended in; a column that a row lacks is null."""

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        of_set = (DATASETS.index(row["dataset"]), row["ratio"], row.get("draw_seed") or 0, row["training_seed"])
        return (*of_set, row["training_flops"], row["n_parameters"], row["architecture"])

    return pa.Table.from_pylist(sorted(rows, key=order), schema=COLUMNS)


def collect_accuracies(runs: pa.Table, planned: Sequence[str] = ()) -> Measured:
    """Puts the accuracies of a table of runs into arrays; an architecture that lacks a run is left out of all.

    Args:
        runs: A table of runs.
        planned: Architectures that were to be in it.
    """
    repeats: dict[tuple[str, float], dict[tuple[int, int], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    costs: dict[str, tuple[int, int]] = {}
    besides: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in runs.to_pylist():
        name = row["architecture"]
        costs[name] = (row["training_flops"], row["n_parameters"])
        if row["accuracy"] is not None and math.isfinite(row["accuracy"]):
            repeat = (row["training_seed"] if row["draw_seed"] is None else row["draw_seed"], row["training_seed"])
            repeats[row["dataset"], row["ratio"]][repeat][name] = row["accuracy"]
            besides[row["dataset"], row["ratio"], repeat, name] = row
    ordered = sorted(costs, key=lambda name: (costs[name], name))
    kept = set(costs).intersection(*(of_repeat for of_set in repeats.values() for of_repeat in of_set.values()))
    names = [name for name in ordered if name in kept]

    def collect(column: str) -> dict[tuple[str, float], NDArray[np.float64]]:
        """Collects what not every run was measured by; of data sets that all were."""
        values = {
            key: [[besides[(*key, repeat, name)].get(column) for name in names] for repeat in sorted(of_set)]
            for key, of_set in repeats.items()
        }
        return {key: np.array(rows) for key, rows in values.items() if not any(None in row for row in rows)}

    return Measured(
        names=names,
        costs={free: np.array([float(costs[name][i]) for name in names]) for i, free in enumerate(FREE_RANKINGS)},
        accuracies={
            key: np.array([[of_set[repeat][name] for name in names] for repeat in sorted(of_set)])
            for key, of_set in repeats.items()
        },
        draws={key: np.array([draw for draw, _ in sorted(of_set)]) for key, of_set in repeats.items()},
        on_evaluation=collect("evaluation_accuracy"),
        losses=collect("loss"),
        losses_on_evaluation=collect("evaluation_loss"),
        left_out=tuple(dict.fromkeys(name for name in [*ordered, *planned] if name not in kept)),
    )


@dataclass(frozen=True)
class Statistic:
    """One way to say how well two rankings agree.

    Attributes:
        heading: For tables.
        explanation: One line.
    """

    heading: str
    explanation: str


STATISTICS: dict[str, Statistic] = {
    "tau": Statistic("Kendall tau", "pairs in the same order less pairs in the other, tau-b"),
    "tau_given_cost": Statistic("tau given FLOPs", "partial tau: agreement beyond what FLOPs explain"),
    "tau_like_cost": Statistic("tau at like FLOPs", "over pairs whose FLOPs differ by a tenth at most"),
    "tau_top": Statistic("tau at the top", "among the best fifth by full data, five at least"),
    "tau_weighted": Statistic("weighted tau", "Vigna's, the top counts most"),
    "spearman": Statistic("Spearman", "Pearson's correlation of the ranks"),
    "pearson": Statistic("Pearson", "the paper's «correlation score»"),
    "top_overlap": Statistic("top overlap", "share of the top that is in the top"),
    "same_best": Statistic("same best", "how often the best architecture is the best"),
    "regret": Statistic("regret", "full-data accuracy lost by choosing the best"),
    "regret_of_3": Statistic(
        "regret of 3", "the same if the three best are trained on everything, and the best of them is chosen"
    ),
    "regret_of_5": Statistic("regret of 5", "the same with the five best"),
}
"""How a ranking is compared with another, by the name that `manifest.json` uses; `evaluation.rank_metrics` computes them."""


REGRETS = {1: "regret", 3: "regret_of_3", 5: "regret_of_5"}
"""The statistic by the number of architectures that are trained on everything in the end."""


def best_first(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sorts positions from the largest value to the smallest, ties in their own order."""
    return np.argsort(-values, kind="stable")
