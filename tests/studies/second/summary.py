"""The page of what the second study judges, over its data sets, from their rows; `python -m tests.studies.second.page` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import FEWER_EPOCHS
from proxyds.recipe.models import Recipe
from proxyds.selection.probe import choose_probes
from proxyds.space.architecture import Architecture
from tests.studies.parts import N_EVALUATION, N_TRAIN
from tests.studies.second.choosing import PARAMETER_WEIGHT
from tests.studies.second.judging import (
    TRAININGS,
    find_gain,
    find_leading,
    find_methods,
    read_judging,
    tabulate_ways,
)
from tests.studies.second.plan import CHEAPER_PROBES, LENGTH, METHODS, TRAINING, VARIANTS
from tests.studies.second.run import TEACHER, TEACHER_AT
from tests.studies.second.weighing import Ranked, Rows, read_seeds
from tests.studies.weighing import find_cost

N_SEEDS = 3
"""The reference has so many seeds when it is whole."""
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def render_summary(of_each: Mapping[str, Rows], recipe: Recipe, architectures: Sequence[Architecture]) -> str:
    """Writes the page in Markdown; empty where nothing is judged yet.

    Args:
        of_each: Rows by data set.
        recipe: Of CIFAR-10.
        architectures: Of both halves; they are the same on each data set.
    """
    ranked = read_judging(of_each, architectures)
    trainings = tabulate_ways(_name(ranked), TRAININGS, ["base", "base for as much"])
    if not trainings:
        return ""
    seeds = ", ".join(
        f"{len(read_seeds(of_each[name], each.architectures))} of {N_SEEDS} seeds on {TITLES[name]}"
        for name, each in ranked.items()
    )
    networks = " and ".join(f"{len(each.architectures)} networks on {TITLES[name]}" for name, each in ranked.items())
    lines = [
        "# The second study: what is judged",
        "",
        f"[The protocol](../protocol.md) says what was chosen where. Here it is judged where nothing was chosen: {networks}, 5 % of the samples, five draws.",
        f"What is ranked is compared with {seeds} of trainings on everything for 80 epochs. In brackets are [95 % intervals](../../../docs/coverage.md).",
        "",
        "## Training on a subset",
        "",
        *(f"- {sentence}" for sentence in judge_training(ranked)),
        "",
        "Kendall's tau, on random samples:",
        "",
        *trainings,
        "",
    ]
    rows = of_each.get("cifar10", ())
    for told, score, weight in (
        ("accuracy and parameters", "accuracy", PARAMETER_WEIGHT),
        ("accuracy", "accuracy", 0.0),
        ("the margin", "margin", 0.0),
        ("margin and parameters", "margin", PARAMETER_WEIGHT),
    ):
        ways = find_methods(ranked, score, weight)
        table = tabulate_ways(_name(ranked), ways, ["random"]) if len(ways) > 1 and "random" in ways else []
        if table and weight and score == "accuracy":
            lines += ["## Choosing samples", "", f"- {judge_choosing(ranked, rows, architectures)}", ""]
        if table:
            lines += [f"Ranked by {told}:", "", *table, ""]
    lines += ["## What it costs", "", *tabulate_costs(recipe, architectures), ""]
    return "\n".join(lines)


def _name(ranked: Mapping[str, Ranked]) -> dict[str, Ranked]:
    return {TITLES[name]: each for name, each in ranked.items()}


def judge_training(ranked: Mapping[str, Ranked]) -> list[str]:
    """Says which training becomes the default, and by what it ranks, in sentences."""
    every, plain, chosen = [*ranked.values()], TRAININGS["without soft labels"], TRAININGS["chosen"]
    gains = [find_gain(every, plain, TRAININGS[name]) for name in ("base", "base for as much")]
    by_teacher = find_gain(every, chosen, plain)
    by_margin = find_gain(every, TRAININGS["without soft labels, by margin"], plain)
    if gains[0] is None or gains[1] is None or by_teacher is None or by_margin is None:
        return []
    is_default = all(is_above_zero(gain) for gain in gains)
    return [
        f"52 epochs in batches of 32 (`{plain.variant}`) gain {gains[0].shown()} over the base, and {gains[1].shown()} over the base for as much computation. "
        + (
            "Both are above zero, so they become the default."
            if is_default
            else "It takes both to be above zero to become the default."
        ),
        f"Soft labels gain {by_teacher.shown()} over the same training without them. "
        + (
            "That is above zero, so they belong to the default."
            if is_above_zero(by_teacher)
            else "That is not shown to be worth a teacher."
        ),
        f"Ranking by the mean margin gains {by_margin.shown()} over ranking by accuracy. "
        + (
            "That is above zero, so it replaces accuracy."
            if is_above_zero(by_margin)
            else "So accuracy stays what ranks."
        ),
    ]


def judge_choosing(ranked: Mapping[str, Ranked], rows: Rows, architectures: Sequence[Architecture]) -> str:
    """Says whether choosing samples helps, in a sentence."""
    methods = find_methods(ranked, "accuracy", PARAMETER_WEIGHT)
    leading = [name for name in find_leading(rows, architectures, PARAMETER_WEIGHT) if name in methods]
    if not leading or leading[0] == "random":
        return "Random samples lead on the tuning half, so choosing does not help."
    gain = find_gain([*ranked.values()], methods[leading[0]], methods["random"])
    assert gain is not None
    told = f"`{leading[0]}` leads on the tuning half. Where nothing was chosen it gains {gain.shown()} over random samples, both ranked with parameters. "
    return told + ("Choosing helps." if is_above_zero(gain) else "So choosing is not shown to help.")


def is_above_zero(gain: EstimateRecord | None) -> bool:
    """Whether an interval lies above zero."""
    return gain is not None and gain.low is not None and gain.low > 0


def tabulate_costs(recipe: Recipe, architectures: Sequence[Architecture]) -> list[str]:
    """Tabulates what a teacher and each method cost once, and the chosen training for each network, as trainings of the mean network on everything."""
    mean = float(np.mean([each.training_flops for each in architectures]))
    full = VARIANTS[LENGTH].settings["epochs"] * N_TRAIN * mean
    lines = ["| paid once | trainings of the mean network on everything |", "|---|---|"]
    heaviest = architectures[TEACHER_AT]
    paid = N_TRAIN * (TEACHER["epochs"] * heaviest.training_flops + 2 * heaviest.forward_flops)
    lines.append(f"| soft labels | {paid / full:.2f} |")
    for method in (*(name for name in METHODS if name != FEWER_EPOCHS), *CHEAPER_PROBES):
        n_networks, epochs = CHEAPER_PROBES.get(method, (len(architectures), recipe.training.epochs))
        changed = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})
        probes = choose_probes(architectures[:n_networks], recipe.probes)
        lines.append(f"| {method} | {find_cost(method, changed, probes, N_TRAIN, N_EVALUATION) / full:.2f} |")
    share = 0.05 * VARIANTS[TRAINING].settings.get("epochs", recipe.training.epochs) * N_TRAIN * mean / full
    return [*lines, "", f"A training on 5 % takes {100 * share:.1f} % of one on everything."]
