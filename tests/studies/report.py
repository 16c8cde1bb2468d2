"""Estimates become tables and the study's page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from candidates import CANDIDATES
from rows import OTHER_MEASURES
from weighing import CONTROLS, Found, make_table, resample_all

from proxyds.bootstrap import estimate
from proxyds.manifest import EstimateRecord
from proxyds.plots import as_percent
from proxyds.ranking import n_top
from proxyds.recipe import Recipe
from proxyds.records import Architecture
from proxyds.runs import FEWER_EPOCHS, FLOPS, FREE_RANKINGS, FULL, RANDOM

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
    rows = [row for row in rows if row["dataset"] not in lacking and row["ratio"] in (ratio, 1.0)]
    of = {
        measure: resample_all(make_table(rows, architectures, measure), seed, ["tau"]).values
        for measure in ("accuracy", *OTHER_MEASURES)
    }
    lines = [
        f"| trained on | by accuracy | {' | '.join(f'by {MEASURES[each]} | minus accuracy' for each in OTHER_MEASURES)} |",
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


def tell_expectation(found: Sequence[Found], method: str) -> str:
    """What a user may expect of a method at every ratio that it was run at, in one sentence; intervals are the tables' to show."""
    random = {each.ratio: each for each in found if each.method == RANDOM}
    told = [
        f"at {as_percent(each.ratio or 0)} tau {each.tau:.2f} and a regret of {_mean_points(each)} points "
        f"(random samples: {random[each.ratio].tau:.2f} and {_mean_points(random[each.ratio])})"
        for each in _by_size(found, method)
    ]
    return f"{'; '.join(told)}."


def tell_cost(found: Sequence[Found], method: str, cost: int, mean_training: float) -> str:
    """What choosing by a method costs, and when that is less than random samples of twice the size would have cost.

    Args:
        found: Of `weigh`.
        method: Which.
        cost: FLOPs that it takes to choose.
        mean_training: FLOPs of one training of the mean architecture on everything.
    """
    if not cost:
        return ""
    told = [
        f"{math.floor(cost / ((each.ratio or 1) * mean_training)):,} (at {as_percent(each.ratio or 0)})"
        for each in _by_size(found, method)
    ]
    return (
        f"Choosing takes at the least as many FLOPs as {cost / mean_training:.1f} trainings of the mean architecture on everything; twice as many samples at random, "
        f"which nothing has to choose, take fewer FLOPs in all until more than {', '.join(told)} architectures are ranked."
    )


def _by_size(found: Sequence[Found], method: str) -> list[Found]:
    """A method at the ratios that random samples were run at too, the largest first."""
    ratios = {each.ratio for each in found if each.method == RANDOM}
    of_method = (each for each in found if each.method == method and each.ratio in ratios)
    return sorted(of_method, key=lambda each: -(each.ratio or 0))


def _mean_points(found: Found) -> str:
    """Mean regret in accuracy points."""
    value = found.statistics["regret"].value
    return "unknown" if value is None else f"{100 * value:.1f}"


def tell_machines(rows: Sequence[dict[str, Any]]) -> str:
    """Where the rows were written, when, and with which torch: a machine's share, the largest first."""
    told = []
    for (processor, torch), n in Counter((row["processor"], row["torch"]) for row in rows).most_common():
        days = sorted({row["day"] for row in rows if (row["processor"], row["torch"]) == (processor, torch)})
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        told.append(f"{n:,} on an {processor} with torch {torch}, {when}")
    return "; ".join(told)


def show_points(regret: EstimateRecord) -> str:
    """A regret, or a difference of two, in accuracy points."""
    return regret.shown(scale=100, digits=1)


def tabulate(
    found: Sequence[Found], ratio: float, costs: dict[str, int], labels: dict[tuple[str, float], tuple[int, int]]
) -> str:
    """The table of one ratio in Markdown, the best tau first; ceiling and free rankings below.

    Args:
        found: Of `weigh`.
        ratio: Which.
        costs: FLOPs that a method takes to choose, by its name.
        labels: For methods and ratios how many samples of a label there are, at the least and at the most.
    """
    lines = [
        f"| trained on | draws | {' | '.join(SHOWN.values())} | accuracy | samples of a label | to choose |",
        f"|---|{'---|' * (len(SHOWN) + 4)}",
    ]
    for each in [*_of_ratio(found, ratio), *(each for each in found if each.ratio is None)]:
        cells = [
            show_points(each.statistics["regret"])
            if name == "regret"
            else each.statistics[name].shown()
            if name in each.statistics and not (each.method == FLOPS and name == "tau_given_cost")
            else ""
            for name in SHOWN
        ]
        cells.append("" if each.mean_accuracy is None else f"{each.mean_accuracy:.1%}")
        of_label = labels.get((each.method, ratio))
        cells.append("" if each.ratio is None or of_label is None else f"{of_label[0]} to {of_label[1]}")
        cost = costs.get(each.method, 0)
        cells.append("" if each.ratio is None else f"{cost / 1e12:.0f} TFLOP" if cost else "nothing")
        n_draws = str(each.n_draws or "")
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join([n_draws, *cells])} |")
    return "\n".join(lines) + "\n"


def tabulate_differences(found: Sequence[Found], ratio: float) -> str:
    """What taus at one ratio are above those of the controls, and regrets above that of random, in Markdown; the best tau first."""
    lines = [
        f"| trained on | {' | '.join(f'minus {NAMES.get(each, each)}' for each in CONTROLS)} | regret minus random, points |",
        f"|---|{'---|' * (len(CONTROLS) + 1)}",
    ]
    for each in _of_ratio(found, ratio):
        cells = [each.less[name].shown() if name in each.less else "" for name in CONTROLS]
        cells.append(show_points(each.regret_less[RANDOM]) if RANDOM in each.regret_less else "")
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _of_ratio(found: Sequence[Found], ratio: float) -> list[Found]:
    """What was run at a ratio, the best tau first."""
    return sorted((each for each in found if each.ratio == ratio), key=lambda each: -each.tau)


def list_sized(found: Sequence[Found]) -> tuple[list[str], list[float]]:
    """What was run at more ratios than one, in the order of `found`, and the ratios, the largest first."""
    ratios = sorted({each.ratio for each in found if each.ratio is not None}, reverse=True)
    n_ratios = Counter(each.method for each in found if each.ratio is not None)
    return [method for method, n in n_ratios.items() if n > 1], ratios


def tabulate_sizes(found: Sequence[Found]) -> str:
    """Tau and regret of what was run at more ratios than one, in Markdown, the best on average first; ceiling above, free rankings below."""
    methods, ratios = list_sized(found)
    of = {(each.method, ratio): each for each in found for ratio in (ratios if each.ratio is None else [each.ratio])}
    lines = [
        f"| trained on | {' | '.join(f'tau at {as_percent(ratio)} | regret, points' for ratio in ratios)} |",
        f"|---|{'---|---|' * len(ratios)}",
    ]
    mean = {method: float(np.mean([of[method, r].tau for r in ratios if (method, r) in of])) for method in methods}
    for method in [FULL, *sorted(methods, key=lambda method: -mean[method]), *FREE_RANKINGS]:
        of_ratios = [of.get((method, ratio)) for ratio in ratios]
        cells = [
            cell
            for e in of_ratios
            for cell in (
                (e.statistics["tau"].shown(), show_points(e.statistics["regret"])) if e else ("not whole yet", "–")
            )
        ]
        lines.append(f"| {NAMES.get(method, method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tabulate_averages(found: Sequence[Found]) -> str:
    """Tau by one draw and by the mean of all of them, in Markdown, the best mean first."""
    lines = ["| trained on | size | draws | tau by one | by their mean |", "|---|---|---|---|---|"]
    averaged = [(each, mean) for each in found if (mean := each.averaged) and each.n_draws > 1]
    for each, mean in sorted(averaged, key=lambda pair: -(pair[1].value or 0)):
        name, size = NAMES.get(each.method, each.method), as_percent(each.ratio or 0)
        lines.append(f"| {name} | {size} | {each.n_draws} | {each.statistics['tau'].shown()} | {mean.shown()} |")
    return "\n".join(lines) + "\n"


def render_page(
    study: str,
    recipe: Recipe,
    table: pa.Table,
    found: Sequence[Found],
    costs: dict[str, int],
    labels: dict[tuple[str, float], tuple[int, int]],
    n_train: int,
    measures: dict[float, str],
    rows: Sequence[dict[str, Any]],
    missing: Sequence[tuple[str, float]],
    tables: Sequence[str],
) -> str:
    """The study's page in Markdown: what was held equal, the tables, the pictures.

    Args:
        study: Its name.
        recipe: What was held equal.
        table: The runs.
        found: Of `weigh`.
        costs: FLOPs that a method takes to choose, by its name.
        labels: For methods and ratios how many samples of a label there are, at the least and at the most.
        n_train: Samples to choose from.
        measures: For each ratio the table of `tabulate_measures`.
        rows: Those that the table is of.
        missing: Data sets and ratios that belong to the study and are not whole yet.
        tables: Where the rows are, from the page's folder.
    """
    assert recipe.check is not None
    spent = sum(row["seconds"] for row in rows)
    settings, names = recipe.training, sorted(set(table["architecture"].to_pylist()))
    cost_of = dict(zip(table["architecture"].to_pylist(), table["training_flops"].to_pylist(), strict=True))
    full = [row for row in table.to_pylist() if row["dataset"] == FULL]
    accuracy_of = {
        name: float(np.mean([row["accuracy"] for row in full if row["architecture"] == name])) for name in names
    }
    mean_training = float(np.mean(list(cost_of.values()))) * settings.epochs * n_train
    ratios = sorted({each.ratio for each in found if each.ratio is not None}, key=lambda ratio: (ratio != 0.05, -ratio))
    text = [
        f"# Which selection keeps the ranking: {study}",
        "",
        f"`make study` wrote this from {' and '.join(f'[{where}]({where})' for where in tables)}, {table.num_rows:,} trainings and tests ({spent / 3600:.1f} hours, one after the other, in one thread): {tell_machines(rows)}. "
        f"{len(names)} architectures of {min(cost_of.values()) / 1e6:.1f} to {max(cost_of.values()) / 1e6:.1f} MFLOP an image (forward and backward), whose accuracies on "
        f"everything are {min(accuracy_of.values()):.1%} to {max(accuracy_of.values()):.1%}.",
        "",
        f"**Held equal**: the source ({getattr(recipe.source, 'name', recipe.source.kind)} at {recipe.source.image_size}x{recipe.source.image_size}), the architectures, the training ({settings.epochs} epochs of whatever it is trained on, batches of "
        f"{settings.batch_size}, {settings.optimizer} at {settings.learning_rate:g}, {settings.schedule}, crops and flips), the test samples, the size of a subset, and for draw d of everything the training's seed. "
        f"Full data: {recipe.check.full_seeds} seeds; every draw of a subset has a training seed of its own. Draw d is chosen by the probes' training d, so that the intervals hold "
        "the noise of probes too; but those of `el2n` and `forgetting`, whose scores are the mean over trainings d to d + 2, share trainings, and their intervals hold too little of it. `fewer epochs` sees everything for as many steps as the subset takes.",
        "",
        "Intervals are 95 % percentile bootstraps over architectures, draws and full seeds together. *Minus random* and the like: the difference of the two taus, "
        f"resample by resample. With so many methods beside each other, one interval in twenty leaves out zero by luck. *At the top*: among the best {n_top(len(names))}. Regret: the full-data accuracy that is lost by "
        "taking the architecture called best. *Samples of a label*: of the one that has the fewest, and the most, in any draw. *To choose*: the least FLOPs that a method needs, of probes, of asking them and of features (`proxyds build` trains two probes for any; `el2n` looks at the first epochs alone, and is charged whole trainings); a training of the mean architecture on everything is "
        f"{mean_training / 1e12:.1f} TFLOP.",
        "",
        *(
            f"**What to expect of `{method}`**: {tell_expectation(found, method)} {tell_cost(found, method, costs.get(method, 0), mean_training)}".rstrip()
            for method in (recipe.selection.method,)
            if any(each.method == method for each in found)
        ),
        *(
            (
                "",
                f"**Not run yet**, or not with every draw: {', '.join(f'{name} at {as_percent(r)}' for name, r in missing)}.",
            )
            if missing
            else ()
        ),
    ]
    for ratio in ratios:
        text += [
            "",
            f"## {100 * ratio:g} %",
            "",
            tabulate(found, ratio, costs, labels).rstrip(),
            "",
            "The same taus less those of the controls:",
            "",
            tabulate_differences(found, ratio).rstrip(),
            "",
            f"![Kendall tau at {100 * ratio:g} %](taus-{100 * ratio:g}pct.png)",
        ]
    if len(ratios) > 1:
        text += ["", "## How large must it be?", "", tabulate_sizes(found), "![Kendall tau over size](ratios.png)"]
    text += [
        "",
        "## One draw, or the mean of several?",
        "",
        "Every architecture trained on all draws, and ranked by the mean of its accuracies; the interval holds no noise of draws. It costs as many trainings: five draws of 2 % as much as one of 10 %.",
        "",
        tabulate_averages(found).rstrip(),
        "",
        "## Ranking by something else than accuracy",
        "",
        "The same runs, with subsets ranking by another measure of theirs; the full data rank by accuracy. In brackets as above; *minus accuracy*: what is gained.",
    ]
    for ratio in ratios:
        text += ["", f"At {100 * ratio:g} %:", "", measures[ratio].rstrip()]
    if tried := [each for each in dict.fromkeys(each.method for each in found) if each in CANDIDATES]:
        text += ["", "## What the names mean", "", "| tried here, and not shipped | chooses |", "|---|---|"]
        text += [f"| {name} | {CANDIDATES[name].summary} |" for name in tried]
        text += ["", "What begins with the name of a method is trained otherwise, at the same cost."]
    text += ["", "## The architectures", "", "| architecture | MFLOP | accuracy on everything |", "|---|---|---|"]
    text += [
        f"| {name} | {cost_of[name] / 1e6:.1f} | {accuracy_of[name]:.1%} |"
        for name in sorted(names, key=lambda name: -accuracy_of[name])
    ]
    return "\n".join(text) + "\n"
