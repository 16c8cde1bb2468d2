"""The study's rows become estimates. Nothing is trained: whoever has the rows can weigh them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import (
    BY_ACCURACY,
    BY_BOTH,
    FLOPS,
    FREE_RANKINGS,
    FULL,
    PARAMETERS,
    RANDOM,
    STRATIFIED,
    Measured,
    collect_accuracies,
    describe_architecture,
)
from proxyds.evaluation.evidence import measure_ways
from proxyds.evaluation.intervals import Estimate, compare_repeats, find_freedom, make_record, other_seeds, subtract
from proxyds.evaluation.rank_metrics import Floats
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import Recipe
from proxyds.space.architecture import Architecture
from proxyds.training.loop import count_steps
from tests.studies.candidates import ALL_METHODS

WITH_PARAMETERS = "random with parameters"
"""Random samples, where both they and what is compared with them are ranked with parameters."""
LED_THE_FIRST_STUDY = "easier"
CONTROLS = (RANDOM, WITH_PARAMETERS, STRATIFIED, BY_IMPORTANCE, LED_THE_FIRST_STUDY, PARAMETERS)
"""What everything else is compared with; both are ranked by accuracy, but for `WITH_PARAMETERS`."""


Value = TypeVar("Value", Estimate, EstimateRecord)


@dataclass(frozen=True)
class Weighed(Generic[Value]):
    """What the rows say of one way to rank, at one ratio: in one study, or on the mean of several; as variances, or as intervals.

    Attributes:
        method: A data set's name, or a free ranking's.
        ratio: Of the subset; None where there is none.
        n_draws: How often it was drawn; 0 where nothing is trained.
        mean_accuracy: Of all its runs; None where nothing is trained.
        statistics: By name.
        with_parameters: The same where accuracy and parameters rank together; empty where that is not done.
        tau_less: Its tau less that of a control, by the control's name.
        averaged: Tau where the mean accuracy of all draws ranks, with the noise of architectures alone.
        regret_less: Its regret less that of a control, so that above zero is worse; without intervals, and empty among variances.
    """

    method: str
    ratio: float | None
    n_draws: int
    mean_accuracy: float | None
    statistics: dict[str, Value]
    with_parameters: dict[str, Value]
    tau_less: dict[str, Value]
    averaged: Value | None
    regret_less: dict[str, EstimateRecord] = field(default_factory=dict)

    @property
    def tau(self) -> float:
        """Kendall's, NaN where there is none."""
        value = self.statistics["tau"].value
        return float("nan") if value is None else value


Estimated = Weighed[Estimate]
Found = Weighed[EstimateRecord]


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


def estimate_all(table: pa.Table, parameter_weight: float) -> list[Estimated]:
    """Estimates statistics of every data set in the table, of the noise ceiling and of the free rankings.

    Args:
        table: Of `make_table`.
        parameter_weight: What parameters count beside accuracy.

    Returns:
        The noise ceiling, the free rankings, then every data set at each ratio.
    """
    measured = collect_accuracies(table)
    references = other_seeds(measured.accuracies[FULL, 1.0])
    ways = measure_ways(measured, references, parameter_weight)

    def subtract_controls(method: str, ratio: float) -> dict[str, Estimate]:
        differences = {}
        for name in CONTROLS:
            ranked_by = BY_BOTH if name == WITH_PARAMETERS else BY_ACCURACY
            control = RANDOM if name == WITH_PARAMETERS else name
            way = (control, None if control in FREE_RANKINGS else ratio, ranked_by)
            if way in ways and control != method:
                differences[name] = subtract(ways[method, ratio, ranked_by]["tau"], ways[way]["tau"])
        return differences

    estimated = []
    for (method, ratio, ranked_by), of in ways.items():
        if ranked_by == BY_BOTH:
            continue
        both = ways.get((method, ratio, BY_BOTH), {})
        key = (method, 1.0 if ratio is None else ratio)
        accuracies = measured.accuracies.get(key)
        each = Estimated(
            method,
            ratio,
            0 if accuracies is None else measured.count_draws(*key),
            None if accuracies is None else float(accuracies.mean()),
            {name: values.estimate() for name, values in of.items()},
            {name: values.estimate() for name, values in both.items()},
            {} if ratio is None else subtract_controls(method, ratio),
            None if ratio is None else _average_draws(measured, references, method, ratio),
        )
        estimated.append(each)
    return estimated


def _average_draws(measured: Measured, references: Floats, method: str, ratio: float) -> Estimate:
    """Estimates tau where the mean accuracy of all draws ranks."""
    mean = np.round(measured.accuracies[method, ratio].mean(axis=0, keepdims=True), 12)  # equal ones stay equal
    cost = measured.costs[FLOPS]
    return compare_repeats(references, mean, np.zeros(1, np.int64), cost, "tau", has_common_draws=False).estimate()


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Averages estimates that share nothing, such as those of several data sets."""
    n = len(estimates)
    return Estimate(
        sum(each.value for each in estimates) / n,
        sum(each.of_architectures for each in estimates) / n**2,
        sum(each.of_draws for each in estimates) / n**2,
        find_freedom(*((each.of_draws, each.freedom_of_draws) for each in estimates)),
        sum(each.n_architectures for each in estimates),
        sum(each.n_pairs for each in estimates),
    )


def take_mean(studies: Sequence[Sequence[Estimated]]) -> list[Estimated]:
    """Takes the mean of several studies, of what is in all of them; each counts the same.

    Args:
        studies: Of `estimate_all`; they must share no run.

    Raises:
        ValueError: Something was drawn more often in one study than in another.
    """
    keyed = [{(each.method, each.ratio): each for each in study} for study in studies]
    means = []
    for key, first in keyed[0].items():
        if not all(key in study for study in keyed):
            continue
        same = [study[key] for study in keyed]
        if len({each.n_draws for each in same}) > 1:
            raise ValueError(
                f"{key[0]} must be drawn as often in every study, got {', '.join(str(each.n_draws) for each in same)}"
            )
        accuracies = [each.mean_accuracy for each in same if each.mean_accuracy is not None]
        averaged = [each.averaged for each in same if each.averaged is not None]
        mean = Estimated(
            *key,
            first.n_draws,
            float(np.mean(accuracies)) if accuracies else None,
            _average_each([each.statistics for each in same]),
            _average_each([each.with_parameters for each in same]),
            _average_each([each.tau_less for each in same]),
            average(averaged) if averaged else None,
        )
        means.append(mean)
    return means


def _average_each(of_studies: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    return {name: average([each[name] for each in of_studies]) for name in of_studies[0]}


def weigh(estimated: Sequence[Estimated]) -> list[Found]:
    """Gives estimates their intervals, in the same order.

    Args:
        estimated: Of `estimate_all` or `take_mean`.
    """
    regrets = {
        (each.method, each.ratio): each.statistics["regret"].value for each in estimated if "regret" in each.statistics
    }

    def subtract_regrets(each: Estimated) -> dict[str, EstimateRecord]:
        own = regrets.get((each.method, each.ratio))  # none of everything, trained once
        controls = {name: (name, None if name in FREE_RANKINGS else each.ratio) for name in each.tau_less}
        return {name: make_record(own - regrets[way]) for name, way in controls.items() if way in regrets}

    return [
        Found(
            each.method,
            each.ratio,
            each.n_draws,
            each.mean_accuracy,
            {name: of.as_agreement() for name, of in each.statistics.items()},
            {name: of.as_agreement() for name, of in each.with_parameters.items()},
            {name: of.as_difference() for name, of in each.tau_less.items()},
            None if each.averaged is None else each.averaged.as_agreement(),
            subtract_regrets(each),
        )
        for each in estimated
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
