"""The page of what the second study judges, over its data sets, from their rows; `python -m tests.studies.second.page` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from proxyds.artifact.card.plots import Draw
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import FEWER_EPOCHS
from proxyds.evaluation.decision import rehearsal
from proxyds.recipe.models import Recipe
from proxyds.selection.probe import choose_probes
from proxyds.space.architecture import Architecture
from tests.studies.parts import N_EVALUATION, N_TRAIN, take_half
from tests.studies.second.choosing import PARAMETER_WEIGHT
from tests.studies.second.expecting import read_measured, tabulate_expecting
from tests.studies.second.judging import (
    BESIDE_LABELS,
    BESIDE_SOFT_LABELS,
    BY_LOSS,
    BY_MARGIN,
    COUNTING,
    DEFAULT_WAY,
    LONG,
    OLD,
    PLAIN,
    SHORT,
    SIZES_BESIDE_LABELS,
    SIZES_BESIDE_SOFT_LABELS,
    SOFT,
    TRAININGS,
    find_gain,
    find_gain_of_combined,
    find_leading,
    is_judged,
    list_good_ways,
    list_methods,
    read_judging,
    tabulate_regrets,
    tabulate_sizes,
    tabulate_ways,
)
from tests.studies.second.pictures import draw_networks, draw_ways
from tests.studies.second.plan import BASE, CHEAPER_PROBES, LENGTH, LOOKED_FOR, METHODS, TRAINING, VARIANTS
from tests.studies.second.run import TEACHER, TEACHER_AT
from tests.studies.second.weighing import Ranked, Rows, Way, rank, read_reference, read_seeds
from tests.studies.weighing import find_cost

N_SEEDS = 3
"""The reference has so many seeds when it is whole."""
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
RANKED_BY: dict[str, dict[str, Any]] = {
    "loss": {"score": "loss", "parameter_weight": 0.0},
    "accuracy and parameters": {"score": "accuracy", "parameter_weight": PARAMETER_WEIGHT},
    "accuracy": {"score": "accuracy", "parameter_weight": 0.0},
}
PICTURES = {
    "trainings.png": "Tau of each training, and what it gains over the base",
    "networks.png": "Accuracy of each network on 5 % over that on everything",
    "methods.png": "Tau of each way to choose samples by soft labels, and what it gains over random ones",
    "methods-base.png": "Tau of each way to choose samples by the default training, and what it gains over random ones",
}
"""Files, and what each shows."""
UNDECIDED = "Nothing is decided before all rows are there, on both data sets."


def render_summary(
    of_each: Mapping[str, Rows], recipe: Recipe, architectures: Mapping[str, Sequence[Architecture]]
) -> str:
    """Writes the page in Markdown; empty where nothing is judged yet.

    Args:
        of_each: Rows by data set.
        recipe: Of CIFAR-10.
        architectures: Of both halves by data set, by cost.
    """
    ranked = read_judging(of_each, architectures)
    whole = {name: each for name, each in ranked.items() if all(rank([each], way) for way in TRAININGS.values())}
    ranked = whole or ranked  # a data set that lacks rows would leave every gain empty
    titled = {TITLES[name]: each for name, each in ranked.items()}
    trainings = tabulate_ways(titled, TRAININGS, [SHORT, LONG])
    if not trainings:
        return ""
    seeds = ", ".join(
        f"{len(read_seeds(of_each[name], each.architectures))} of {N_SEEDS} seeds on {TITLES[name]}"
        for name, each in ranked.items()
    )
    networks = " and ".join(f"{len(each.architectures)} networks on {title}" for title, each in titled.items())
    pictures = list_summary_pictures(of_each, architectures)
    every = [*ranked.values()] if ranked.keys() == of_each.keys() else []
    lines = [
        "# The second study: what is judged",
        "",
        "[The protocol](../protocol.md) says what is chosen where, and lists what was changed later. Settings and methods are chosen on the *tuning half* of the networks: every second",
        f"one by cost, on CIFAR-10. This page judges elsewhere: {networks}, at 5 % of the samples. One thing was chosen after its rows were seen: to rank by loss.",
        "",
        f"The true order is that after 80 epochs on everything: {seeds}. In brackets are [95 % intervals](../../../docs/coverage.md).",
        "",
        "## Training on a subset",
        "",
        *(f"- {sentence}" for sentence in judge_training(every)),
        "",
        "Kendall's tau on random samples, five draws. The *base* is the default training: 13 epochs in batches of 64, up to a rate of .01. Soft labels are what a *teacher* makes of each image,",
        "a network that was trained on everything. 63 epochs cost as much as 52 and a share of that teacher. The *margin* is the probability of the true label less the highest other one.",
        "",
        *trainings,
        "",
        *show_pictures(pictures, "trainings.png", "networks.png"),
    ]
    compared = Comparison(titled, every, of_each["cifar10"], architectures["cifar10"])
    if "methods-base.png" in pictures:
        lines += ["## Choosing samples, with the default training", ""]
        lines += compare_methods(compared, BESIDE_LABELS, ("accuracy and parameters", "accuracy"))
        lines += show_pictures(pictures, "methods-base.png")
        lines += compare_looked_for(compared)
    if "methods.png" in pictures:
        lines += ["## Choosing samples, with soft labels", ""]
        lines += compare_methods(compared, BESIDE_SOFT_LABELS, RANKED_BY)
        lines += show_pictures(pictures, "methods.png")
        lines += compare_combined(of_each["cifar10"], architectures["cifar10"])
    lines += show_sizes(of_each["cifar10"], architectures["cifar10"])
    lines += show_good_ways(titled)
    lines += show_expecting(of_each, architectures)
    return "\n".join([*lines, "## What it costs", "", *tabulate_costs(recipe, architectures["cifar10"]), ""])


def show_sizes(rows: Rows, architectures: Sequence[Architecture]) -> list[str]:
    """Tells how methods rank at other sizes, with each training that has rows there."""
    told = {
        "the default training": (SIZES_BESIDE_LABELS, "ranked by accuracy and parameters; three draws of each"),
        "soft labels": (SIZES_BESIDE_SOFT_LABELS, "ranked by loss; three draws at 5 %, two at 2 and at 10 %"),
    }
    lines = []
    for training, (sizes, how) in told.items():
        if table := tabulate_sizes(rows, architectures, sizes):
            lines += [f"## Other sizes, with {training}", ""]
            lines += [f"The judging half of CIFAR-10, {how}.", "", *table, ""]
    return lines


@dataclass(frozen=True)
class Comparison:
    """Where methods are compared.

    Attributes:
        titled: What judges, by the title of the data set.
        every: The same where no data set lacks its reference, else nothing.
        rows: Of CIFAR-10, whose tuning half chooses.
        architectures: Of both halves.
    """

    titled: Mapping[str, Ranked]
    every: Sequence[Ranked]
    rows: Rows
    architectures: Sequence[Architecture]


def compare_methods(compared: Comparison, way: Way, told: Iterable[str]) -> list[str]:
    """Says which method leads and whether it helps, and tabulates all, by some of `RANKED_BY`."""
    leading = find_leading(compared.rows, compared.architectures, way)
    lines = [f"- {judge_choosing(compared.every, leading, way)}", "", f"Tau of {way.n_draws} draws of each.", ""]
    training = "Default training" if way.variant == BASE else "Soft labels"
    for score in told:
        table = tabulate_ways(compared.titled, list_methods(replace(way, **RANKED_BY[score])), ["random"])
        lines += [f"{training}, ranked by {score}:", "", *table, ""]
    return lines


def compare_looked_for(compared: Comparison) -> list[str]:
    """Says what cheaper probes do to `easier`, and tabulates the other methods that were looked at; nothing without rows."""
    ways = {name: replace(BESIDE_LABELS, methods=(name,)) for name in ("random", "easier", *LOOKED_FOR)}
    tuning = take_half(compared.architectures, "tuning")
    reference = read_reference(compared.rows, tuning)
    if reference is None:
        return []
    chosen = {"tuning half": Ranked([row for row in compared.rows if is_judged(row)], tuning, reference)}
    if all(rank([*chosen.values()], ways[name]) is None for name in LOOKED_FOR):
        return []
    judged = {name: way for name, way in ways.items() if name not in LOOKED_FOR or name in CHEAPER_PROBES}
    n_networks, epochs = CHEAPER_PROBES["easier-by-middle"]
    return [
        "## Other ways to choose, with the default training",
        "",
        *(f"- {sentence}" for sentence in judge_cheaper(compared.every, ways)),
        "",
        f"`easier-by-start` is `easier` by the heaviest network after {epochs} epochs, `easier-by-middle` by network {n_networks} of {len(compared.architectures)} by cost. Both cost less than `easier`, so both are judged.",
        "The others have to lead on the tuning half. Ranked by accuracy and parameters, three draws of each.",
        "",
        *tabulate_ways(chosen, ways, ["random", "easier"]),
        "",
        "Where nothing was chosen:",
        "",
        *tabulate_ways(compared.titled, judged, ["random", "easier"]),
        "",
    ]


def judge_cheaper(ranked: Sequence[Ranked], ways: Mapping[str, Way]) -> list[str]:
    """Says of each method with cheaper probes whether it does in place of `easier`, in sentences; nothing while rows are missing."""
    told = []
    for name in CHEAPER_PROBES:
        over_random, over_easier = (find_gain(ranked, ways[name], ways[other]) for other in ("random", "easier"))
        if over_random is None or over_easier is None:
            continue
        is_below = over_easier.high is not None and over_easier.high < 0
        verdict = (
            "It does in place of"
            if is_above_zero(over_random) and not is_below
            else "It is not shown to do in place of"
        )
        told.append(
            f"`{name}` gains {over_random.shown()} over random samples, and {over_easier.shown()} over `easier`. {verdict} `easier`."
        )
    return told


def show_good_ways(titled: Mapping[str, Ranked]) -> list[str]:
    """Tabulates what pages recommend side by side; nothing where rows are missing."""
    table = tabulate_ways(titled, list_good_ways(), [DEFAULT_WAY])
    if not any(line.startswith(f"| {DEFAULT_WAY} |") for line in table):
        return []
    return [
        "## Side by side",
        "",
        "The default training ranks by accuracy and parameters, soft labels by loss. Three draws of each.",
        "",
        *table,
        "",
        "## What a search loses",
        "",
        "A search trains its first network, or its first three, on everything, and takes the best. *Regret* is the accuracy that this loses, in points: the mean over draws.",
        "",
        *tabulate_regrets(titled, list_good_ways()),
        "",
    ]


def show_expecting(of_each: Mapping[str, Rows], architectures: Mapping[str, Sequence[Architecture]]) -> list[str]:
    """Says what `proxyds rank` makes of accuracies and of losses; nothing where rows are missing."""
    read = {TITLES[name]: read_measured(rows, architectures[name]) for name, rows in of_each.items()}
    found = {title: measured for title, measured in read.items() if measured is not None}
    if not found:
        return []
    return [
        "## What to expect of candidates",
        "",
        "`proxyds rank` says what to expect on everything of candidates that were trained on 5 %. Here half of the 24 networks stand for those of a check, at random,",
        f"{rehearsal.N_SPLITS} times. The others are candidates, each trained once on the first draw of random samples, with soft labels. What is expected of them is compared with the reference.",
        "All splits are of the same 24 networks, the tuning half among them, so that they are no hundred trials.",
        "",
        *tabulate_expecting(found),
        "",
    ]


def list_summary_pictures(
    of_each: Mapping[str, Rows], architectures: Mapping[str, Sequence[Architecture]]
) -> dict[str, Draw]:
    """Lists the pictures of the page by file name, with what draws them; see `render_summary`."""
    ranked = {TITLES[name]: each for name, each in read_judging(of_each, architectures).items()}
    compared = {SHORT: TRAININGS[SHORT], "52 epochs, soft labels": TRAININGS[SOFT]}
    whole = {name: each for name, each in ranked.items() if all(rank([each], way) for way in compared.values())}
    if not whole:
        return {}
    samples = "random 5 % of the samples, where nothing was chosen"
    pictures = {
        "trainings.png": partial(draw_ways, whole, TRAININGS, [SHORT, LONG], f"How well trainings rank on {samples}"),
        "networks.png": partial(draw_networks, whole, compared, f"Networks on {samples}"),
    }
    for file, way, told in (
        ("methods-base.png", BESIDE_LABELS, "the default training, by accuracy and parameters"),
        ("methods.png", BESIDE_SOFT_LABELS, "soft labels, by loss"),
    ):
        methods = {
            name: way for name, way in list_methods(way).items() if any(rank([one], way) for one in ranked.values())
        }
        with_methods = {
            title: each
            for title, each in ranked.items()
            if any(rank([each], way) for name, way in methods.items() if name not in ("random", COUNTING))
        }
        if with_methods:
            title = f"How well samples of 5 % rank with {told}"
            pictures[file] = partial(draw_ways, with_methods, methods, ["random"], title)
    return pictures


def show_pictures(pictures: Mapping[str, Draw], *names: str) -> list[str]:
    """Writes lines that show some pictures, those that there are."""
    return [line for name in names if name in pictures for line in (f"![{PICTURES[name]}]({name})", "")]


def judge_training(ranked: Sequence[Ranked]) -> list[str]:
    """Says which training becomes the default, and by what it ranks, in sentences.

    Args:
        ranked: On all data sets; none while one lacks its reference.
    """
    gains = {
        (name, than): find_gain(ranked, TRAININGS[name], TRAININGS[than])
        for name, than in (
            (PLAIN, SHORT),
            (PLAIN, LONG),
            (SOFT, SHORT),
            (SOFT, LONG),
            (SOFT, PLAIN),
            (BY_MARGIN, PLAIN),
            (BY_LOSS, SOFT),
            (OLD, SHORT),
        )
    }
    found = {pair: gain for pair, gain in gains.items() if gain is not None}
    if len(found) < len(gains):
        return [UNDECIDED]
    said = {pair: gain.shown() for pair, gain in found.items()}
    is_above = {pair: is_above_zero(gain) for pair, gain in found.items()}
    is_default = is_above[PLAIN, SHORT] and is_above[PLAIN, LONG]
    stays = is_above[OLD, SHORT] and not is_default
    is_soft_better = is_above[SOFT, SHORT] and is_above[SOFT, LONG]
    return [
        f"52 epochs in batches of 32 gain {said[PLAIN, SHORT]} over the base, and {said[PLAIN, LONG]} over 63 epochs, which cost a fifth more. "
        + (
            "Both are above zero, so this is the default."
            if is_default
            else "Both have to be above zero for a default."
        ),
        f"The former defaults, 30 epochs in batches of 128 up to a rate of .001, cost more than twice as much as the base. They gain {said[OLD, SHORT]} over it. "
        + (
            "So they stay."
            if stays
            else "So they go."
            if is_default
            else "That gain is not certain, so the base is the default."
        ),
        f"With soft labels, 52 epochs in batches of 32 gain {said[SOFT, SHORT]} over the base, and {said[SOFT, LONG]} over 63 epochs. "
        + (
            "If you can train a teacher, train like this."
            if is_soft_better
            else "That is not shown to be worth a teacher."
        ),
        f"Of that, soft labels gain {said[SOFT, PLAIN]} over the same training without them. "
        + ("Their share is above zero." if is_above[SOFT, PLAIN] else "Their share is not settled."),
        f"Without soft labels, ranking by the mean margin gains {said[BY_MARGIN, PLAIN]} over ranking by accuracy. "
        + ("So the margin ranks." if is_above[BY_MARGIN, PLAIN] else "So accuracy ranks."),
        f"With soft labels, ranking by the loss on held-out samples gains {said[BY_LOSS, SOFT]} over ranking by accuracy. "
        "The protocol did not foresee this score: it was looked at when all these rows were there.",
    ]


def judge_choosing(ranked: Sequence[Ranked], leading: Sequence[str], way: Way) -> str:
    """Says whether choosing samples helps, in sentences.

    Args:
        ranked: On all data sets; none while one lacks its reference.
        leading: The methods of `find_leading`.
        way: How networks are trained and ranked.
    """
    ways = list_methods(way)
    controls = {name: rank(ranked, ways[name]) for name in ("random", "stratified")}
    gains = {name: find_gain(ranked, ways[name], ways["random"]) for name in leading}
    found = {name: gain for name, gain in gains.items() if gain is not None}
    if not leading or len(found) < len(gains) or any(each is None for each in controls.values()):
        return UNDECIDED
    names = " and ".join(f"`{name}`" for name in leading)
    told = f"{names} {'leads' if len(leading) == 1 else 'lead, with the same tau,'} on the tuning half."
    said = " and ".join(f"`{name}` gains {gain.shown()}" for name, gain in found.items() if name != "random")
    if said:
        told += f" Where nothing was chosen {said} over random samples."
    if helpful := [f"`{name}`" for name, gain in found.items() if is_above_zero(gain)]:
        luck = (
            " Several methods were judged, not one as planned: that gives luck more chances."
            if len(leading) > 1
            else ""
        )
        return f"{told} Choosing helps, by {' or '.join(helpful)}.{luck}"
    taus = {name: float(each.mean[0]) for name, each in controls.items() if each is not None}
    better = max(taus, key=lambda name: taus[name])
    return f"{told} So choosing is not shown to help. Of random and stratified samples, `{better}` ones have the higher tau."


def compare_combined(rows: Rows, architectures: Sequence[Architecture]) -> list[str]:
    """Says what random samples and fewer epochs gain together over twice as many random samples; nothing while rows are missing."""
    gain = find_gain_of_combined(rows, architectures)
    if gain is None:
        return []
    verdict = "So they are worth it." if is_above_zero(gain) else "So they are not shown to be better."
    return [
        f"A network may be trained twice, on random samples and on everything for fewer epochs, and rank by both. This gains {gain.shown()} on the judging half of "
        f"CIFAR-10 over twice as many random samples, which cost as much. {verdict}",
        "",
    ]


def is_above_zero(gain: EstimateRecord) -> bool:
    """Whether an interval lies above zero."""
    return gain.low is not None and gain.low > 0


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
    share = 0.05 * VARIANTS[TRAINING].settings["epochs"] / VARIANTS[LENGTH].settings["epochs"]
    return [*lines, "", f"A training on 5 % takes {100 * share:.1f} % of one on everything."]
