"""The study's rows become estimates. Nothing is trained: whoever has the rows can weigh them again."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from candidates import ALL_METHODS

from proxyds import ranking
from proxyds.bootstrap import compare_repeats, compare_seeds, estimate, other_seeds, resample
from proxyds.manifest import EstimateRecord
from proxyds.methods import BY_IMPORTANCE
from proxyds.ranking import Floats
from proxyds.recipe import Recipe
from proxyds.records import Architecture
from proxyds.runs import (
    FLOPS,
    FREE_RANKINGS,
    FULL,
    RANDOM,
    STRATIFIED,
    Measured,
    about_architecture,
    collect_accuracies,
)
from proxyds.training import count_steps

_Key = tuple[str, float | None]


@dataclass(frozen=True)
class Found:
    """What is found of one way to rank, at one ratio.

    Attributes:
        method: A data set's name, or a free ranking's.
        ratio: Of the subset; None where there is none.
        n_draws: How often it was drawn.
        mean_accuracy: Of all its runs; None where nothing is trained.
        statistics: By name, with intervals.
        less_random: Its tau less that of random subsets, resample by resample.
        less_stratified: The same with stratified ones.
        less_cases: The same with those of the paper's method.
        averaged: Tau where the mean accuracy of all draws ranks, with no noise of draws in its interval.
    """

    method: str
    ratio: float | None
    n_draws: int
    mean_accuracy: float | None
    statistics: dict[str, EstimateRecord]
    less_random: EstimateRecord | None
    less_stratified: EstimateRecord | None
    less_cases: EstimateRecord | None
    averaged: EstimateRecord | None

    @property
    def tau(self) -> float:
        """Kendall's, NaN where there is none."""
        value = self.statistics["tau"].value
        return float("nan") if value is None else value


def make_table(
    rows: Sequence[dict[str, Any]], architectures: Sequence[Architecture], measure: str = "accuracy"
) -> pa.Table:
    """Puts rows into what `runs.collect_accuracies` reads.

    Args:
        rows: Of `rows.read_rows`.
        architectures: Those whose rows are taken.
        measure: What subsets rank by; a loss ranks the other way round. Full data rank by accuracy whatever it is.
    """
    about = {each.name: about_architecture(each) for each in architectures}

    def find_score(row: dict[str, Any]) -> float:
        return row["accuracy"] if measure == "accuracy" or row["dataset"] == FULL else -row[measure]

    held = [
        {
            **about[row["architecture"]],
            "dataset": row["dataset"],
            "ratio": row["ratio"],
            "draw_seed": int(row["draw_seed"]) if row["draw_seed"] else None,
            "training_seed": int(row["training_seed"]),
            "accuracy": find_score(row),
        }
        for row in rows
        if row["architecture"] in about
    ]
    return pa.Table.from_pylist(held)


def resample_all(
    table: pa.Table, seed: int, names: Collection[str] = ranking.STATISTICS
) -> tuple[Measured, dict[_Key, dict[str, Floats]], dict[_Key, Floats]]:
    """Statistics of every data set in the table, the noise ceiling's and the free rankings', for each resample; and tau by the mean of all draws.

    The same resamples for any table of the same architectures, seeds and draws: differences may be taken between tables.

    Args:
        table: Of `make_table`.
        seed: Of the bootstrap.
        names: Of `ranking.STATISTICS`.
    """
    measured = collect_accuracies(table)
    full, cost = measured.accuracies[FULL, 1.0], measured.costs[FLOPS]
    references = other_seeds(full)
    n_draws = {len(set(draws)) for draws in measured.draws.values()}
    counts = resample(len(measured.names), len(references), n_draws, seed)
    ceiling = compare_seeds(references, full, cost, counts, names)
    values: dict[_Key, dict[str, Floats]] = {(FULL, None): ceiling}
    for free in FREE_RANKINGS:
        by_cost = measured.costs[free][None]
        values[free, None] = compare_repeats(references, by_cost, np.zeros(1, np.int64), cost, counts, names)
    averaged = {}
    for key, accuracies in measured.accuracies.items():
        if key[0] != FULL:
            values[key] = compare_repeats(references, accuracies, measured.draws[key], cost, counts, names)
            mean = np.round(accuracies.mean(axis=0, keepdims=True), 12)  # equal ones stay equal
            of_mean = compare_repeats(references, mean, np.zeros(1, np.int64), cost, counts, ["tau"])
            averaged[key] = of_mean["tau"]
    return measured, values, averaged


def weigh(table: pa.Table, seed: int) -> list[Found]:
    """Weighs the runs of a study.

    Args:
        table: Of `make_table`.
        seed: Of the bootstrap.

    Returns:
        The noise ceiling, the free rankings, then every data set at each ratio.
    """
    measured, values, averaged = resample_all(table, seed)

    def less(key: _Key, control: str) -> EstimateRecord | None:
        of_control = values.get((control, key[1]))
        if of_control is None or key[0] == control:
            return None
        return estimate(values[key]["tau"] - of_control["tau"])

    return [
        Found(
            key[0],
            key[1],
            0 if key[0] in FREE_RANKINGS else len(set(measured.draws[key[0], key[1] or 1.0])),
            None if key[0] in FREE_RANKINGS else float(measured.accuracies[key[0], key[1] or 1.0].mean()),
            {name: estimate(of_key[name]) for name in of_key},
            less(key, RANDOM),
            less(key, STRATIFIED),
            less(key, BY_IMPORTANCE),
            estimate(averaged[key]) if key in averaged else None,
        )
        for key, of_key in values.items()
    ]


def find_cost(
    method: str | None, recipe: Recipe, probes: Sequence[Architecture], n_train: int, n_evaluation: int
) -> int:
    """FLOPs that a method takes to choose: its probes, what they are asked, features.

    Args:
        method: A method's name; None costs nothing.
        recipe: The study's.
        probes: From the lightest to the heaviest.
        n_train: Samples to choose from.
        n_evaluation: Evaluation samples.
    """
    if method is None or not ALL_METHODS[method].needs:
        return 0
    needs, n_seeds = ALL_METHODS[method].needs, ALL_METHODS[method].n_seeds
    n_all, heaviest, settings = n_train + n_evaluation, probes[-1], recipe.training
    n_seen = count_steps(settings, n_train) * settings.batch_size
    trained = probes if "cases" in needs else probes[-1:]
    cost = sum(n_seen * each.training_flops for each in trained)
    if "answers" in needs:
        cost += settings.epochs * n_train * heaviest.forward_flops
    if needs & {"cases", "features"}:
        cost += n_all * heaviest.forward_flops
    return n_seeds * cost


def write_results(path: Path, found: Sequence[Found]) -> None:
    """Writes the estimates as JSON, for whoever wants the figures."""
    path.write_text(json.dumps([asdict(each) for each in found], indent=1, default=EstimateRecord.model_dump) + "\n")
