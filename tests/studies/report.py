"""Estimates become tables in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from proxyds.artifact.card.plots import as_percent
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import (
    BY_ACCURACY,
    FEWER_EPOCHS,
    FLOPS,
    FREE_RANKINGS,
    FULL,
    RANDOM,
    collect_accuracies,
)
from proxyds.evaluation.evidence import measure_ways
from proxyds.evaluation.intervals import LeftOut, other_seeds
from proxyds.evaluation.rank_metrics import CORRELATIONS
from proxyds.space.architecture import Architecture
from tests.studies.rows import OTHER_MEASURES
from tests.studies.weighing import CONTROLS, WITH_PARAMETERS, Found, make_table

WITH_PARAMETERS_TAU = "tau_with_parameters"
SHOWN = {
    "tau": "tau",
    WITH_PARAMETERS_TAU: "with parameters",
    "tau_given_cost": "given FLOPs",
    "tau_like_cost": "at like FLOPs",
    "tau_top": "at the top",
    "regret": "regret, points",
}
"""What the table shows, and its headings."""
SIZED = ("tau", WITH_PARAMETERS_TAU, "regret")
"""What the table of sizes shows."""
NAMES = {
    FULL: "full data, another seed",
    FEWER_EPOCHS: "full data, fewer epochs",
    "flops": "counting FLOPs",
    "parameters": "counting parameters",
    WITH_PARAMETERS: "random, both with parameters",
}
"""What is no method, for people."""
MEASURES = {
    "loss": ("test loss", "test loss"),
    "train_loss": ("training loss of the last epoch", "training loss"),
    "train_loss_sum": ("its sum over epochs", "sum"),
}
"""What else might rank architectures, for people, in full and in short; the last is of Ru et al. (2021)."""


def tabulate_measures(rows: Sequence[dict[str, Any]], architectures: Sequence[Architecture], ratio: float) -> str:
    """Tabulates tau of what is trained on at one ratio if it ranks by something else than accuracy, in Markdown.

    Args:
        rows: Of `rows.read_rows`; data sets that lack a measure are left out.
        architectures: Those whose rows are taken.
        ratio: Which.
    """
    lacking = {
        row["dataset"] for row in rows if row["dataset"] != FULL and any(row[each] is None for each in OTHER_MEASURES)
    }
    rows = [row for row in rows if row["dataset"] not in lacking and row["ratio"] in (ratio, 1.0)]
    by_accuracy, *others = (_find_taus(rows, architectures, each, ratio) for each in ("accuracy", *OTHER_MEASURES))
    lines = [
        f"| trained on | by accuracy | {' | '.join(f'by {name} | {short} minus accuracy' for name, short in MEASURES.values())} |",
        f"|---|---|{'---|---|' * len(OTHER_MEASURES)}",
    ]
    for name, plain in sorted(by_accuracy.items(), key=lambda item: -item[1].mean[0]):
        cells = [plain.estimate().as_agreement().shown()]
        for taus in others:
            # of the same runs, and so of the same draws
            less = replace(plain, values=taus[name].values - plain.values)
            cells += [taus[name].estimate().as_agreement().shown(), less.estimate().as_difference().shown()]
        lines.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _find_taus(
    rows: Sequence[dict[str, Any]], architectures: Sequence[Architecture], measure: str, ratio: float
) -> dict[str, LeftOut]:
    measured = collect_accuracies(make_table(rows, architectures, measure))
    ways = measure_ways(measured, other_seeds(measured.accuracies[FULL, 1.0]), 0.0, ["tau"])
    return {name: of["tau"] for (name, at, ranked_by), of in ways.items() if (at, ranked_by) == (ratio, BY_ACCURACY)}


def show_points(regret: EstimateRecord) -> str:
    """Shows a regret, or a difference of two, in accuracy points; there is no interval."""
    return "none" if regret.value is None else f"{100 * regret.value:.1f}"


def show_statistic(found: Found, name: str) -> str:
    """Shows a statistic of the table, or tau with parameters: with an interval where it ever has one."""
    if name == WITH_PARAMETERS_TAU:
        return found.with_parameters["tau"].shown() if found.with_parameters else ""
    if name not in found.statistics or (found.method == FLOPS and name == "tau_given_cost"):
        return ""
    estimate = found.statistics[name]
    if name == "regret":
        return show_points(estimate)
    if name not in CORRELATIONS:
        return "none" if estimate.value is None else f"{estimate.value:.2f}"
    return estimate.shown()


def tabulate(
    found: Sequence[Found],
    ratio: float,
    costs: dict[str, int],
    labels: dict[tuple[str, float], tuple[int, int] | None],
) -> str:
    """The table of one ratio in Markdown, the best tau first; ceiling and free rankings below.

    Args:
        found: Of `weigh`.
        ratio: Which.
        costs: FLOPs that a method takes to choose, by its name.
        labels: For methods and ratios how many samples of a label there are, at the least and at the most; None where that was not kept.
    """
    lines = [
        f"| trained on | draws | {' | '.join(SHOWN.values())} | accuracy | samples of a label | to choose |",
        f"|---|{'---|' * (len(SHOWN) + 4)}",
    ]
    for each in [*take_ratio(found, ratio), *(each for each in found if each.ratio is None)]:
        cells = [show_statistic(each, name) for name in SHOWN]
        cells.append("" if each.mean_accuracy is None else f"{each.mean_accuracy:.1%}")
        of_label = labels.get((each.method, ratio))
        cells.append("" if of_label is None else f"{of_label[0]} to {of_label[1]}")
        cost = costs.get(each.method, 0)
        cells.append("" if each.ratio is None else f"{cost / 1e12:.0f} TFLOP" if cost else "nothing")
        n_draws = str(each.n_draws or "")
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join([n_draws, *cells])} |")
    return "\n".join(lines) + "\n"


def tabulate_differences(found: Sequence[Found], ratio: float) -> str:
    """Tabulates what taus at one ratio are above those of the controls, and regrets above that of random, in Markdown; the best tau first."""
    of_ratio = take_ratio(found, ratio)
    controls = list_controls(of_ratio)
    lines = [
        f"| trained on | {' | '.join(f'minus {NAMES.get(each, each)}' for each in controls)} | more regret than random, points |",
        f"|---|{'---|' * (len(controls) + 1)}",
    ]
    for each in of_ratio:
        more = each.regret_less.get(RANDOM)
        cells = [*show_differences(each, controls), "" if more is None else show_points(more)]
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def list_controls(found: Sequence[Found]) -> list[str]:
    """The controls that something was compared with."""
    return [control for control in CONTROLS if any(control in each.tau_less for each in found)]


def show_differences(found: Found, controls: Sequence[str]) -> list[str]:
    """What its tau is above that of each control."""
    return [found.tau_less[control].shown() if control in found.tau_less else "" for control in controls]


def take_ratio(found: Sequence[Found], ratio: float) -> list[Found]:
    """What was run at a ratio, the best tau first."""
    return sorted((each for each in found if each.ratio == ratio), key=lambda each: -each.tau)


def list_sized(found: Sequence[Found]) -> tuple[list[str], list[float]]:
    """What was run at more ratios than one, in the order of `found`, and the ratios, the largest first."""
    ratios = sorted({each.ratio for each in found if each.ratio is not None}, reverse=True)
    n_ratios = Counter(each.method for each in found if each.ratio is not None)
    return [method for method, n in n_ratios.items() if n > 1], ratios


def tabulate_sizes(found: Sequence[Found]) -> str:
    """Tabulates taus and regret of what was run at more ratios than one, in Markdown, the best on average first; ceiling above, free rankings below."""
    methods, ratios = list_sized(found)
    of = {(each.method, ratio): each for each in found for ratio in (ratios if each.ratio is None else [each.ratio])}
    lines = [
        f"| trained on | {' | '.join(f'tau at {as_percent(ratio)} | with parameters | regret, points' for ratio in ratios)} |",
        f"|---|{'---|' * (len(SIZED) * len(ratios))}",
    ]
    mean = {method: float(np.mean([of[method, r].tau for r in ratios if (method, r) in of])) for method in methods}
    for method in [FULL, *sorted(methods, key=lambda method: -mean[method]), *FREE_RANKINGS]:
        of_ratios = [of.get((method, ratio)) for ratio in ratios]
        cells = [
            cell
            for each in of_ratios
            for cell in ([show_statistic(each, name) for name in SIZED] if each else ["not whole yet", "–", "–"])
        ]
        lines.append(f"| {NAMES.get(method, method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tabulate_averages(found: Sequence[Found]) -> str:
    """Tau by one draw and by the mean of all of them, and what they cost, in Markdown; the best mean first."""
    lines = [
        "| trained on | size | tau by one draw | draws | cost of all, of training on everything | tau by their mean |",
        "|---|---|---|---|---|---|",
    ]
    averaged = [(each, mean) for each in found if (mean := each.averaged) and each.n_draws > 1]
    for each, mean in sorted(averaged, key=lambda pair: -(pair[1].value or 0)):
        name, ratio = NAMES.get(each.method, each.method), each.ratio or 0
        cells = (as_percent(ratio), each.statistics["tau"].shown(), str(each.n_draws), as_percent(each.n_draws * ratio))
        lines.append(f"| {name} | {' | '.join(cells)} | {mean.shown()} |")
    return "\n".join(lines) + "\n"
