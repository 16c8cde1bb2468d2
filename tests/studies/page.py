"""Estimates and tables become a study's page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from proxyds.artifact.card.plots import as_percent
from proxyds.artifact.ranking_table import FULL, RANDOM, STATISTICS
from proxyds.evaluation.rank_metrics import n_top
from proxyds.recipe.models import Recipe
from proxyds.space.architecture import Architecture
from tests.studies.candidates import ALL_METHODS
from tests.studies.parts import Part, Study
from tests.studies.report import tabulate, tabulate_averages, tabulate_differences, tabulate_sizes
from tests.studies.weighing import Found

ABOUT_INTERVALS = (
    "In brackets: 95 % intervals. They say what other architectures and other draws would give, and hold the noise of trainings. The variance of architectures is a jackknife's: each architecture is left out in turn, and for tau every two of them. It is at least what independent pairs would have. "
    "How far draws differ beyond that is added. [A simulation]({docs}/coverage.md) shows how often such intervals hold the truth. A statistic without brackets has no interval: it depends on few architectures. "
    "Where methods do not differ, about one of twenty intervals leaves out zero by chance. Nothing is corrected for that."
)
"""What stands in brackets; `docs` is the way to that folder."""
ABOUT_PARAMETERS = (
    "*With parameters*: tau where accuracy and the number of parameters rank together, which costs nothing. Both are turned into normal scores of their ranks, and parameters weigh half. "
    "*Minus random, both with parameters*: random samples get the same help."
)


def tell_expectation(found: Sequence[Found], method: str) -> str:
    """What a user may expect of a method at every ratio that it was run at, and where its tau is not shown to be above that of random samples; intervals are the tables' to show."""
    random = {each.ratio: each for each in found if each.method == RANDOM}
    told = [
        f"At {as_percent(each.ratio or 0)} tau {each.tau:.2f} and a regret of {_mean_points(each)} points "
        f"(random samples: {random[each.ratio].tau:.2f} and {_mean_points(random[each.ratio])}{'' if _is_ahead(each) else '; tau undecided'})."
        for each in _by_size(found, method)
    ]
    return " ".join(told)


def tell_cost(found: Sequence[Found], method: str, cost: int, mean_training: float) -> str:
    """What choosing by a method costs, when that is less than random samples of twice the size would have cost, and how well these rank.

    Args:
        found: Of `weigh`.
        method: Which.
        cost: FLOPs that it takes to choose.
        mean_training: FLOPs of one training of the mean architecture on everything.
    """
    if not cost:
        return ""
    sizes, random = _by_size(found, method), {each.ratio: each for each in found if each.method == RANDOM}
    until = [
        f"{math.floor(cost / ((each.ratio or 1) * mean_training)):,} at {as_percent(each.ratio or 0)}" for each in sizes
    ]
    doubled = [(each, random[twice]) for each in sizes if (twice := 2 * (each.ratio or 0)) in random]
    as_well = [
        f" {as_percent(each.ratio or 0)} by `{method}` have a tau of {each.tau:.2f}, {as_percent(twice.ratio or 0)} at random one of {twice.tau:.2f}."
        for each, twice in doubled
    ]
    return (
        f"Choosing takes at least as many FLOPs as {cost / mean_training:.1f} trainings of the mean architecture on everything. Random samples need no choosing. "
        f"Twice as many of them take fewer FLOPs in all where no more than this many architectures are ranked: {', '.join(until)}.{''.join(as_well)}"
    )


def _by_size(found: Sequence[Found], method: str) -> list[Found]:
    """A method at the ratios that random samples were run at too, the largest first."""
    ratios = {each.ratio for each in found if each.method == RANDOM}
    of_method = (each for each in found if each.method == method and each.ratio in ratios)
    return sorted(of_method, key=lambda each: -(each.ratio or 0))


def _is_ahead(found: Found) -> bool:
    """Whether the interval of its tau less that of random samples is above zero."""
    less = found.tau_less.get(RANDOM)
    return less is not None and less.low is not None and less.low > 0


def _mean_points(found: Found) -> str:
    """Mean regret in accuracy points."""
    value = found.statistics["regret"].value
    return "unknown" if value is None else f"{100 * value:.1f}"


def tell_machines(rows: Sequence[dict[str, Any]]) -> str:
    """Where the rows were written, when, and with which torch, a sentence each: a machine's share, the largest first."""
    told = []
    for (processor, torch), n in Counter((row["processor"], row["torch"]) for row in rows).most_common():
        days = sorted({row["day"] for row in rows if (row["processor"], row["torch"]) == (processor, torch)})
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        told.append(f"Of them {n:,} ran on an {processor} with torch {torch}, {when}.")
    return " ".join(told)


def list_names(found: Sequence[Found]) -> str:
    """What every method that was run chooses, and whose it is, in Markdown."""
    methods = [name for name in dict.fromkeys(each.method for each in found) if name in ALL_METHODS]
    lines = ["| name | chooses | source |", "|---|---|---|"]
    lines += [f"| {name} | {ALL_METHODS[name].summary} | {ALL_METHODS[name].source} |" for name in methods]
    return "\n".join(lines) + "\n"


def list_trainings(study: Study) -> str:
    """What of a study is not trained as its recipe says, and how, in Markdown; nothing where there is none."""
    lines = [f"| {part.dataset} | {part.method} | {', '.join(told)} |" for part in study.parts if (told := _tell(part))]
    return "\n".join(["| name | chosen by | what is changed |", "|---|---|---|", *lines]) + "\n" if lines else ""


def _tell(part: Part) -> list[str]:
    """How a part differs from a subset of its ratio with the recipe's training."""
    told = [f"`{name}: {value}`" for name, value in part.settings.items()]
    if part.method and part.size:
        told.append(f"{as_percent(part.size)} of the samples, for as many steps as {as_percent(part.ratio)} take")
    if part.n_labels:
        told.append(f"{part.n_labels} of the labels, at random; as many samples, and tests of these labels alone")
    return told


def render_page(
    study: Study,
    recipe: Recipe,
    rows: Sequence[dict[str, Any]],
    architectures: Sequence[Architecture],
    found: Sequence[Found],
    *,
    costs: dict[str, int],
    labels: dict[tuple[str, float], tuple[int, int] | None],
    n_train: int,
    measures: dict[float, str],
    missing: Sequence[tuple[str, float]],
    tables: Sequence[str],
) -> str:
    """The study's page in Markdown: what was held equal, the tables, the pictures.

    Args:
        study: Which.
        recipe: What was held equal.
        rows: Those that are weighed.
        architectures: Those that were trained.
        found: Of `weigh`.
        costs: FLOPs that a method takes to choose, by its name.
        labels: For methods and ratios how many samples of a label there are, at the least and at the most; None where that was not kept.
        n_train: Samples to choose from.
        measures: For each ratio the table of `report.tabulate_measures`.
        missing: Data sets and ratios that belong to the study and are not whole yet.
        tables: Where the rows are, from the page's folder.
    """
    assert recipe.check is not None
    settings, method = recipe.training, recipe.selection.method
    flops = [each.training_flops for each in architectures]
    full = {
        name: [row["accuracy"] for row in rows if (row["dataset"], row["architecture"]) == (FULL, name)]
        for name in (each.name for each in architectures)
    }
    accuracies = {name: float(np.mean(of_seeds)) for name, of_seeds in full.items()}
    mean_training = float(np.mean(flops)) * settings.epochs * n_train
    ratios = sorted({each.ratio for each in found if each.ratio is not None}, key=lambda ratio: (ratio != 0.05, -ratio))
    source = (
        f"{getattr(recipe.source, 'name', recipe.source.kind)} at {recipe.source.image_size}x{recipe.source.image_size}"
    )
    others = list_trainings(study)
    text = [
        f"# Which selection keeps the ranking: {study.name}",
        "",
        f"`make study` wrote this from {' and '.join(f'[{where}]({where})' for where in tables)}, {len(rows):,} trainings and tests ({sum(row['seconds'] for row in rows) / 3600:.1f} hours, one after the other, in one thread). {tell_machines(rows)} "
        f"The {len(architectures)} architectures take {min(flops) / 1e6:.1f} to {max(flops) / 1e6:.1f} MFLOP an image, forward and backward. On everything, "
        f"trained as briefly, they reach {min(accuracies.values()):.1%} to {max(accuracies.values()):.1%}. {study.note}".rstrip(),
        "",
        f"**Held equal**: the source ({source}), the architectures, the training, the test samples and the size of a subset{', but for what is named at the end' if others else ''}. "
        f"The training takes {settings.epochs} epochs of whatever it is trained on, in batches of {settings.batch_size}, with {settings.optimizer} at {settings.learning_rate:g}, {settings.schedule}, crops and flips. "
        f"`fewer epochs` sees everything for as many steps as the subset takes. Everything was trained {recipe.check.full_seeds} times. Draw d of every method has training seed d, and is chosen by probes of their seed d. "
        "So the intervals hold the noise of probes too. `el2n` and `forgetting` take the mean of three probes, which draws share: their intervals are too narrow.",
        "",
        f"{ABOUT_INTERVALS.format(docs='../../../docs')} Differences of regrets have none either.",
        "",
        f"*Tau*: Kendall's with the ranking by full-data accuracy, {STATISTICS['tau'].explanation}. {ABOUT_PARAMETERS} *Given FLOPs*: {STATISTICS['tau_given_cost'].explanation}. *At like FLOPs*: {STATISTICS['tau_like_cost'].explanation}. "
        f"*At the top*: {STATISTICS['tau_top'].explanation}, here {n_top(len(architectures))}. *Regret*: {STATISTICS['regret'].explanation}. *Accuracy*: the mean of what was trained so. "
        "*Samples of a label*: of the one that has the fewest in any draw, and the most. *To choose*: the least FLOPs that a method needs to train its probes, to ask them, to take features. `proxyds build` trains two probes for any method. "
        f"`el2n` looks at the first epochs alone, and is charged whole trainings. A training of the mean architecture on everything is {mean_training / 1e12:.1f} TFLOP.",
    ]
    if study.half is None and any(each.method == method for each in found):
        told = f"{tell_expectation(found, method)} {tell_cost(found, method, costs.get(method, 0), mean_training)}"
        text += ["", f"**What to expect of `{method}`** on {study.name}: {told}".rstrip()]
    if missing:
        named = ", ".join(f"{name} at {as_percent(ratio)}" for name, ratio in missing)
        text += ["", f"**Not run yet**, or not with every draw: {named}."]
    for ratio in ratios:
        text += [
            "",
            f"## {100 * ratio:g} %",
            "",
            tabulate(found, ratio, costs, labels).rstrip(),
            "",
            "The same taus less those of the controls, on the same architectures. The last column tells how many points more are lost than by random samples: above zero is worse.",
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
        "Every architecture is trained on all draws, and ranked by the mean of its accuracies. The interval is over architectures alone. One draw of a larger size may cost less than several of a smaller.",
        "",
        tabulate_averages(found).rstrip(),
        "",
        "## Ranking by something else than accuracy",
        "",
        "The same runs, where subsets rank by another measure of theirs, and the full data by accuracy. *Minus accuracy*: what is gained, draw by draw. The sum over epochs is that of [Ru et al. 2021](https://arxiv.org/abs/2006.04492).",
    ]
    for ratio in ratios:
        text += ["", f"At {100 * ratio:g} %:", "", measures[ratio].rstrip()]
    text += ["", "## What the names mean", "", list_names(found).rstrip()]
    if others:
        text += ["", "These are trained otherwise, at the same cost:", "", others.rstrip()]
    text += ["", "## The architectures", "", "| architecture | MFLOP | accuracy on everything |", "|---|---|---|"]
    text += [
        f"| {each.name} | {each.training_flops / 1e6:.1f} | {accuracies[each.name]:.1%} |"
        for each in sorted(architectures, key=lambda each: -accuracies[each.name])
    ]
    return "\n".join(text) + "\n"
