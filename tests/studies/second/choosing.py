"""Parts B and C: how well ways to choose samples rank, in tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from proxyds.artifact.card.plots import as_percent
from proxyds.artifact.ranking_table import FEWER_EPOCHS, FULL
from proxyds.evaluation.external import find_reference, read_accuracies
from proxyds.recipe.models import Reference
from proxyds.space.architecture import Architecture
from tests.studies import weighing
from tests.studies.report import NAMES, show_points
from tests.studies.second.weighing import Rows
from tests.studies.weighing import Found

PARAMETER_WEIGHT = 0.5
PUBLISHED = {"cifar10_test_acc_200ep": (FULL, 1.0), "cifar10_test_acc_12ep": (FEWER_EPOCHS, 12 / 200)}
"""Columns of NAS-Bench-201's table, as trainings on everything and on everything for fewer epochs."""


def list_runs(rows: Rows) -> list[dict[str, Any]]:
    """Puts rows into what `studies.weighing.make_table` reads, with their loss; one of a training that diverged is left out."""
    return [
        {
            "architecture": row["architecture"],
            "dataset": row["method"],
            "ratio": float(row["ratio"]),
            "draw_seed": "" if row["method"] in (FULL, FEWER_EPOCHS) else row["number"],
            "training_seed": row["number"],
            "accuracy": float(row["accuracy"]),
            "loss": float(row["loss"] or "nan"),
        }
        for row in rows
        if row["accuracy"]
    ]


def list_published(reference: Reference, architectures: Sequence[Architecture]) -> list[dict[str, Any]]:
    """Reads published accuracies as runs; they need the benchmark's table (`PROXYDS_DATA`).

    Raises:
        AccuracyTableError: There is none, or it lacks an architecture.
    """
    path, runs = find_reference(reference), []
    for column, (dataset, ratio) in PUBLISHED.items():
        of_column = reference.model_copy(update={"accuracy_column": column})
        for name, accuracy in read_accuracies(path, of_column, architectures).items():
            run = {"architecture": name, "dataset": dataset, "ratio": ratio, "draw_seed": "", "training_seed": 0}
            runs.append({**run, "accuracy": accuracy})
    return runs


def weigh(runs: Sequence[dict[str, Any]], architectures: Sequence[Architecture]) -> list[Found]:
    """Weighs runs, of `list_runs` or `list_published`, with everything and the rankings that cost nothing."""
    return weighing.weigh(weighing.estimate_all(weighing.make_table(runs, architectures), PARAMETER_WEIGHT))


def weigh_by_loss(runs: Sequence[dict[str, Any]], architectures: Sequence[Architecture]) -> list[Found]:
    """Weighs runs as `weigh` does, but for those that rank by their loss: without those on everything, and without accuracies."""
    table = weighing.make_table([each for each in runs if each["dataset"] != FEWER_EPOCHS], architectures, "loss")
    found = weighing.weigh(weighing.estimate_all(table, PARAMETER_WEIGHT))
    return [replace(each, mean_accuracy=None) for each in found if each.n_draws and each.method != FULL]


def tabulate(found: Sequence[Found]) -> list[str]:
    """Tabulates how well each way ranks, in Markdown: by size, the best with parameters first; what costs nothing last."""
    lines = [
        "| trained on | size | draws | tau | tau with parameters | Spearman | regret, points | of the best of three | accuracy, points |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in sorted((each for each in found if each.statistics), key=_order):
        statistics = each.statistics
        cells = (
            "" if each.ratio is None else as_percent(each.ratio),
            str(each.n_draws or ""),
            statistics["tau"].shown(),
            each.with_parameters["tau"].shown() if each.with_parameters else "",
            statistics["spearman"].shown(),
            show_points(statistics["regret"]),
            show_points(statistics["regret_of_3"]),
            "" if each.mean_accuracy is None else f"{100 * each.mean_accuracy:.1f}",
        )
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join(cells)} |")
    return lines


def _order(each: Found) -> tuple[float, float]:
    tau = (each.with_parameters or each.statistics)["tau"].value
    return (-each.ratio if each.ratio else 1.0), -(tau or 0.0)
