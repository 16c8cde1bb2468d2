"""The study's rows become estimates, a table and pictures. Nothing is trained: whoever has the rows can weigh them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from candidates import ALL_METHODS
from rows import OTHER_MEASURES

from proxyds.bootstrap import compare_repeats, compare_seeds, estimate, other_seeds, resample
from proxyds.manifest import EstimateRecord
from proxyds.plots import STYLE, as_percent, as_png, new_figure
from proxyds.ranking import Floats, n_top
from proxyds.recipe import Recipe
from proxyds.records import Architecture
from proxyds.runs import (
    FEWER_EPOCHS,
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

SHOWN = {
    "tau": "tau",
    "tau_given_cost": "given FLOPs",
    "tau_like_cost": "at like FLOPs",
    "tau_top": "at the top",
    "regret": "regret, points",
}
"""Statistics of the table, and their headings."""
NAMES = {
    FULL: "full data, another seed",
    FEWER_EPOCHS: "full data, fewer epochs",
    "flops": "counting FLOPs",
    "parameters": "counting parameters",
}
"""What is no method, for people."""
MEASURES = {
    "loss": "test loss",
    "train_loss": "training loss of the last epoch",
    "train_loss_sum": "its sum over epochs",
}
"""What else might rank architectures, for people."""

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
    """

    method: str
    ratio: float | None
    n_draws: int
    mean_accuracy: float | None
    statistics: dict[str, EstimateRecord]
    less_random: EstimateRecord | None
    less_stratified: EstimateRecord | None


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


def resample_all(table: pa.Table, seed: int) -> tuple[Measured, dict[_Key, dict[str, Floats]]]:
    """Every statistic of every data set in the table, the noise ceiling's and the free rankings', for each resample.

    The same resamples for any table of the same architectures, seeds and draws: differences may be taken between tables.

    Args:
        table: Of `make_table`.
        seed: Of the bootstrap.
    """
    measured = collect_accuracies(table)
    full, cost = measured.accuracies[FULL, 1.0], measured.costs[FLOPS]
    references = other_seeds(full)
    n_draws = {len(set(draws)) for draws in measured.draws.values()}
    counts = resample(len(measured.names), len(references), n_draws, seed)
    values: dict[_Key, dict[str, Floats]] = {(FULL, None): compare_seeds(references, full, cost, counts)}
    for free in FREE_RANKINGS:
        values[free, None] = compare_repeats(
            references, measured.costs[free][None], np.zeros(1, np.int64), cost, counts
        )
    for key, accuracies in measured.accuracies.items():
        if key[0] != FULL:
            values[key] = compare_repeats(references, accuracies, measured.draws[key], cost, counts)
    return measured, values


def weigh(table: pa.Table, seed: int) -> list[Found]:
    """Weighs the runs of a study.

    Args:
        table: Of `make_table`.
        seed: Of the bootstrap.

    Returns:
        The noise ceiling, the free rankings, then every data set at each ratio.
    """
    measured, values = resample_all(table, seed)

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
        )
        for key, of_key in values.items()
    ]


def tabulate_measures(
    rows: Sequence[dict[str, Any]], architectures: Sequence[Architecture], ratio: float, seed: int
) -> str:
    """Tau of what is trained on at one ratio if it ranks by something else than accuracy, in Markdown.

    Args:
        rows: Of `rows.read_rows`; data sets that lack a measure are left out.
        architectures: Those whose rows are taken.
        ratio: Which.
        seed: Of the bootstrap.
    """
    lacking = {
        row["dataset"] for row in rows if row["dataset"] != FULL and any(row[each] is None for each in OTHER_MEASURES)
    }
    rows = [row for row in rows if row["dataset"] not in lacking]
    of = {
        measure: resample_all(make_table(rows, architectures, measure), seed)[1]
        for measure in ("accuracy", *OTHER_MEASURES)
    }
    lines = [
        f"| trained on | by accuracy | {' | '.join(f'by {MEASURES[each]} | less accuracy' for each in OTHER_MEASURES)} |",
        f"|---|---|{'---|---|' * len(OTHER_MEASURES)}",
    ]
    keys = [key for key in of["accuracy"] if key[1] == ratio]
    for key in sorted(keys, key=lambda key: -of["accuracy"][key]["tau"][0]):
        plain, cells = of["accuracy"][key]["tau"], []
        for measure in OTHER_MEASURES:
            tau = of[measure][key]["tau"]
            cells += [estimate(tau).shown(), estimate(tau - plain).shown()]
        lines.append(f"| {NAMES.get(key[0], key[0])} | {estimate(plain).shown()} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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


def tabulate(found: Sequence[Found], ratio: float, costs: dict[str, int]) -> str:
    """The table of one ratio in Markdown, the best tau first; ceiling and free rankings below.

    Args:
        found: Of `weigh`.
        ratio: Which.
        costs: FLOPs that a method takes to choose, by its name.
    """
    of_ratio = sorted((each for each in found if each.ratio == ratio), key=lambda each: -_value(each, "tau"))
    lines = [
        f"| trained on | {' | '.join(SHOWN.values())} | less random | less stratified | accuracy | to choose |",
        f"|---|{'---|' * (len(SHOWN) + 4)}",
    ]
    for each in [*of_ratio, *(each for each in found if each.ratio is None)]:
        cells = [
            each.statistics[name].shown(scale=100 if name == "regret" else 1, digits=1 if name == "regret" else 2)
            if name in each.statistics and not (each.method == FLOPS and name == "tau_given_cost")
            else ""
            for name in SHOWN
        ]
        cells += ["" if less is None else less.shown() for less in (each.less_random, each.less_stratified)]
        cells.append("" if each.mean_accuracy is None else f"{each.mean_accuracy:.1%}")
        cost = costs.get(each.method, 0)
        cells.append("" if each.ratio is None else f"{cost / 1e12:.0f} TFLOP" if cost else "nothing")
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_taus(found: Sequence[Found], ratio: float) -> bytes:
    """Kendall's tau of everything at one ratio with its interval, and the difference to random; PNG bytes."""
    of_ratio = sorted((each for each in found if each.ratio == ratio), key=lambda each: -_value(each, "tau"))
    shown = [
        *(each for each in found if each.method == FULL),
        *of_ratio,
        *(each for each in found if each.method in FREE_RANKINGS),
    ]
    with mpl.rc_context(STYLE):
        figure = new_figure(height=1.2 + 0.28 * len(shown))
        left, right = figure.subplots(1, 2, sharey=True)
        for place, each in enumerate(shown):
            colour = "#000000" if each.ratio is None else "#D55E00" if each.method in ALL_METHODS else "#009E73"
            for axes, tau in ((left, each.statistics["tau"]), (right, each.less_random)):
                if tau is None or tau.value is None:
                    continue
                if tau.low is not None and tau.high is not None:
                    axes.plot([tau.low, tau.high], [place, place], color=colour, linewidth=2)
                axes.plot([tau.value], [place], "o", color=colour)
        for random in (each for each in of_ratio if each.method == RANDOM):
            left.axvline(_value(random, "tau"), color="#999999", linewidth=0.8)
        right.axvline(0, color="#999999", linewidth=0.8)
        left.set_yticks(range(len(shown)), [NAMES.get(each.method, each.method) for each in shown])
        left.set_ylim(len(shown) - 0.5, -0.5)
        left.set_xlabel("Kendall tau with full data")
        right.set_xlabel("tau less that of random")
        figure.suptitle(f"Subsets of {as_percent(ratio)}: means and 95 % intervals", fontsize=11)
        return as_png(figure)


def draw_ratios(found: Sequence[Found], ratios: Sequence[float]) -> bytes:
    """Tau over the size, of what was run at every ratio; PNG bytes."""
    methods = [
        m
        for m in dict.fromkeys(each.method for each in found if each.ratio)
        if all((m, r) in _keys(found) for r in ratios)
    ]
    with mpl.rc_context(STYLE):
        figure = new_figure(height=3.8)
        axes = figure.subplots()
        for i, method in enumerate(methods):
            points = sorted(
                (each for each in found if each.method == method and each.ratio), key=lambda each: each.ratio or 0
            )
            x = [(each.ratio or 0) * 10 ** (0.012 * (i - len(methods) / 2)) for each in points]
            colour = mpl.colormaps["tab10"](i)
            axes.plot(
                x, [_value(each, "tau") for each in points], marker="o", color=colour, label=NAMES.get(method, method)
            )
            for at, each in zip(x, points, strict=True):
                tau = each.statistics["tau"]
                if tau.low is not None and tau.high is not None:
                    axes.plot([at, at], [tau.low, tau.high], color=colour, linewidth=1, alpha=0.7)
        ceiling = next(each for each in found if each.method == FULL)
        axes.axhline(_value(ceiling, "tau"), color="#000000", linestyle=":", label=NAMES[FULL])
        axes.set_xscale("log")
        axes.set_xticks(ratios, [as_percent(ratio) for ratio in ratios])
        axes.minorticks_off()
        axes.set_xlabel("size of the subset")
        axes.set_ylabel("Kendall tau, 95 % interval")
        axes.legend(ncols=2, fontsize=9)
        return as_png(figure)


def write_results(path: Path, found: Sequence[Found]) -> None:
    """Writes the estimates as JSON, for whoever wants the figures."""
    rows = [
        {
            **asdict(each),
            "statistics": {name: each.statistics[name].model_dump() for name in each.statistics},
            "less_random": each.less_random and each.less_random.model_dump(),
            "less_stratified": each.less_stratified and each.less_stratified.model_dump(),
        }
        for each in found
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def _value(found: Found, name: str) -> float:
    value = found.statistics[name].value
    return float("nan") if value is None else value


def _keys(found: Sequence[Found]) -> set[tuple[str, float | None]]:
    return {(each.method, each.ratio) for each in found}


def render_page(
    study: str,
    recipe: Recipe,
    table: pa.Table,
    found: Sequence[Found],
    costs: dict[str, int],
    n_train: int,
    measures: dict[float, str],
    spent: float,
) -> str:
    """The study's page in Markdown: what was held equal, the tables, the pictures.

    Args:
        study: Its name.
        recipe: What was held equal.
        table: The runs.
        found: Of `weigh`.
        costs: FLOPs that a method takes to choose, by its name.
        n_train: Samples to choose from.
        measures: For each ratio the table of `tabulate_measures`.
        spent: Seconds of all trainings, one after the other.
    """
    assert recipe.check is not None
    settings, names = recipe.training, sorted(set(table["architecture"].to_pylist()))
    cost_of = dict(zip(table["architecture"].to_pylist(), table["training_flops"].to_pylist(), strict=True))
    full = [row for row in table.to_pylist() if row["dataset"] == FULL]
    accuracy_of = {
        name: float(np.mean([row["accuracy"] for row in full if row["architecture"] == name])) for name in names
    }
    ratios = sorted({each.ratio for each in found if each.ratio is not None}, key=lambda ratio: (ratio != 0.05, -ratio))
    text = [
        f"# Which selection keeps the ranking: {study}",
        "",
        f"`make study` wrote this from [`rows.csv`](rows.csv), {table.num_rows:,} trainings and tests ({spent / 3600:.1f} hours, one after the other). "
        f"{len(names)} architectures of {min(cost_of.values()) / 1e6:.1f} to {max(cost_of.values()) / 1e6:.1f} MFLOP an image (forward and backward), whose accuracies on "
        f"everything are {min(accuracy_of.values()):.1%} to {max(accuracy_of.values()):.1%}.",
        "",
        f"**Held equal**: the source ({getattr(recipe.source, 'name', recipe.source.kind)} at {recipe.source.image_size}x{recipe.source.image_size}), the architectures, the training ({settings.epochs} epochs of whatever it is trained on, batches of "
        f"{settings.batch_size}, {settings.optimizer} at {settings.learning_rate:g}, {settings.schedule}, crops and flips), the test samples, the size of a subset, and for draw d of everything the training's seed. "
        f"Full data: {recipe.check.full_seeds} seeds, every subset {recipe.check.draws} draws, each with a training seed of its own. Draw d is chosen by the probes' training d, so that the intervals hold "
        "the noise of probes too; but those of `el2n` and `forgetting`, whose scores are the mean over trainings d to d + 2, share trainings, and their intervals hold too little of it. `fewer epochs` sees everything for as many steps as the subset takes.",
        "",
        "Intervals are 95 % percentile bootstraps over architectures, draws and full seeds together. *Less random*, *less stratified*: the difference of the two taus, "
        f"resample by resample. With so many methods beside each other, one interval in twenty leaves out zero by luck. *At the top*: among the best {n_top(len(names))}. Regret: the full-data accuracy that is lost by "
        "taking the architecture called best. *To choose*: the least FLOPs that a method needs, of probes, of asking them and of features (`proxyds build` trains two probes for any; `el2n` looks at the first epochs alone, and is charged whole trainings); a training of the mean architecture on everything is "
        f"{np.mean(list(cost_of.values())) * settings.epochs * n_train / 1e12:.1f} TFLOP.",
    ]
    for ratio in ratios:
        text += [
            "",
            f"## {100 * ratio:g} %",
            "",
            tabulate(found, ratio, costs).rstrip(),
            "",
            f"![Kendall tau at {100 * ratio:g} %](taus-{100 * ratio:g}pct.png)",
        ]
    if len(ratios) > 1:
        text += ["", "## How large must it be?", "", "![Kendall tau over size](ratios.png)"]
    text += [
        "",
        "## Ranking by something else than accuracy",
        "",
        "The same runs, with subsets ranking by another measure of theirs; the full data rank by accuracy. In brackets as above; *less accuracy*: what is gained.",
    ]
    for ratio in ratios:
        text += ["", f"At {100 * ratio:g} %:", "", measures[ratio].rstrip()]
    text += ["", "## The architectures", "", "| architecture | MFLOP | accuracy on everything |", "|---|---|---|"]
    text += [
        f"| {name} | {cost_of[name] / 1e6:.1f} | {accuracy_of[name]:.1%} |"
        for name in sorted(names, key=lambda name: -accuracy_of[name])
    ]
    return "\n".join(text) + "\n"
