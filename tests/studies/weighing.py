"""The study's rows become estimates. Nothing is trained: whoever has the rows can weigh them again."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from proxyds.evaluation.bootstrap import compare_repeats, compare_seeds, draw_resamples, estimate, other_seeds

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import (
    FLOPS,
    FREE_RANKINGS,
    FULL,
    RANDOM,
    STATISTICS,
    STRATIFIED,
    collect_accuracies,
    describe_architecture,
)
from proxyds.evaluation.rank_metrics import Floats
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import Recipe, Selection
from proxyds.seeding import derive_seed
from proxyds.space.architecture import Architecture
from proxyds.training.loop import count_steps
from tests.studies.candidates import ALL_METHODS

CONTROLS = (RANDOM, STRATIFIED, BY_IMPORTANCE, Selection().method, "parameters")
"""What everything else is compared with."""
_Key = tuple[str, float | None]


@dataclass(frozen=True)
class Resampled:
    """A study's statistics for each of B resamples, by what ranks and its ratio; the plain value stands first.

    Attributes:
        values: By the statistic's name: (B,).
        averaged: Tau where the mean accuracy of all draws ranks: (B,).
        n_draws: How often it was drawn; free rankings are not.
        mean_accuracies: Of all its runs.
    """

    values: dict[_Key, dict[str, Floats]]
    averaged: dict[_Key, Floats]
    n_draws: dict[_Key, int]
    mean_accuracies: dict[_Key, float]


@dataclass(frozen=True)
class Found:
    """What is found of one way to rank, at one ratio.

    Attributes:
        method: A data set's name, or a free ranking's.
        ratio: Of the subset; None where there is none.
        n_draws: How often it was drawn.
        mean_accuracy: Of all its runs; None where nothing is trained.
        statistics: By name, with intervals.
        tau_less: Its tau less that of a control, resample by resample, by the control's name.
        regret_less: The same with regrets, so that above zero is worse.
        averaged: Tau where the mean accuracy of all draws ranks, with no noise of draws in its interval.
    """

    method: str
    ratio: float | None
    n_draws: int
    mean_accuracy: float | None
    statistics: dict[str, EstimateRecord]
    tau_less: dict[str, EstimateRecord]
    regret_less: dict[str, EstimateRecord]
    averaged: EstimateRecord | None

    @property
    def tau(self) -> float:
        """Kendall's, NaN where there is none."""
        value = self.statistics["tau"].value
        return float("nan") if value is None else value


def make_table(
    rows: Sequence[dict[str, Any]], architectures: Sequence[Architecture], measure: str = "accuracy"
) -> pa.Table:
    """Puts rows into what `ranking_table.collect_accuracies` reads.

    Args:
        rows: Of `rows.read_rows`.
        architectures: Those whose rows are taken.
        measure: What subsets rank by; a loss ranks the other way round. Full data rank by accuracy whatever it is.
    """
    about = {each.name: describe_architecture(each) for each in architectures}

    def find_score(row: dict[str, Any]) -> float:
        return row["accuracy"] if measure == "accuracy" or row["dataset"] == FULL else -row[measure]

    records = [
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
    return pa.Table.from_pylist(records)


def resample_all(table: pa.Table, seed: int, names: Collection[str] = STATISTICS) -> Resampled:
    """Statistics of every data set in the table, the noise ceiling's and the free rankings', for each resample.

    The same resamples for any table of the same architectures, seeds and draws: differences may be taken between tables.

    Args:
        table: Of `make_table`.
        seed: Of the bootstrap.
        names: Of `STATISTICS`.
    """
    measured = collect_accuracies(table)
    full, cost = measured.accuracies[FULL, 1.0], measured.costs[FLOPS]
    references = other_seeds(full)
    of = {(name, None if name == FULL else ratio): (name, ratio) for name, ratio in measured.accuracies}
    n_draws = {key: len(set(measured.draws[of_table])) for key, of_table in of.items()}
    mean_accuracies = {key: float(measured.accuracies[of_table].mean()) for key, of_table in of.items()}
    counts = draw_resamples(len(measured.names), len(references), set(n_draws.values()), seed)
    values: dict[_Key, dict[str, Floats]] = {(FULL, None): compare_seeds(references, full, cost, counts, names)}
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
    return Resampled(values, averaged, n_draws, mean_accuracies)


def take_mean(studies: Sequence[Resampled], seed: int) -> Resampled:
    """The mean of several studies, of what is in all of them; each counts the same.

    Args:
        studies: Of `resample_all`, with as many resamples, and as many draws of what is in all; they must share no run.
        seed: Of the order in which the resamples of one meet those of another: what they were drawn by may be the same numbers.

    Raises:
        ValueError: Something was drawn more often in one study than in another.
    """
    orders = []
    for number, study in enumerate(studies):
        n_resamples = len(study.values[FULL, None]["tau"]) - 1
        rng = np.random.default_rng(derive_seed(seed, "study", "together", number))
        orders.append(np.concatenate([[0], 1 + rng.permutation(n_resamples)]))
    first = studies[0]
    in_all = [key for key in first.values if all(key in study.values for study in studies)]
    for key in in_all:
        if len({study.n_draws.get(key) for study in studies}) > 1:
            raise ValueError(
                f"{key[0]} must be drawn as often in every study, got {[study.n_draws.get(key) for study in studies]}"
            )

    def average(of_studies: Sequence[Floats]) -> Floats:
        taken: Floats = np.mean([each[order] for each, order in zip(of_studies, orders, strict=True)], axis=0)
        return taken

    return Resampled(
        {
            key: {name: average([study.values[key][name] for study in studies]) for name in first.values[key]}
            for key in in_all
        },
        {key: average([study.averaged[key] for study in studies]) for key in in_all if key in first.averaged},
        {key: first.n_draws[key] for key in in_all if key in first.n_draws},
        {
            key: float(np.mean([study.mean_accuracies[key] for study in studies]))
            for key in in_all
            if key in first.mean_accuracies
        },
    )


def weigh(resampled: Resampled) -> list[Found]:
    """Weighs the runs of a study, or of several.

    Args:
        resampled: Of `resample_all` with every statistic, or of `take_mean`.

    Returns:
        The noise ceiling, the free rankings, then every data set at each ratio.
    """
    values = resampled.values

    def subtract(key: _Key, statistic: str) -> dict[str, EstimateRecord]:
        controls = {name: (name, None if name in FREE_RANKINGS else key[1]) for name in CONTROLS}
        return {
            name: estimate(values[key][statistic] - values[control][statistic])
            for name, control in controls.items()
            if key[1] is not None and control in values and control != key
        }

    return [
        Found(
            *key,
            resampled.n_draws.get(key, 0),
            resampled.mean_accuracies.get(key),
            {name: estimate(of_key[name]) for name in of_key},
            subtract(key, "tau"),
            subtract(key, "regret"),
            estimate(resampled.averaged[key]) if key in resampled.averaged else None,
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
