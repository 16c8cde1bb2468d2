"""Ways to rank networks, judged where nothing was chosen: on the judging half of CIFAR-10 and on all networks of CIFAR-100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import FEWER_EPOCHS
from proxyds.evaluation.intervals import subtract
from proxyds.space.architecture import Architecture
from tests.studies.parts import take_half
from tests.studies.second.choosing import PARAMETER_WEIGHT
from tests.studies.second.plan import BASE, CHOSEN_TRAINING, FORMER, LONGER, METHODS, TRAINING
from tests.studies.second.weighing import PARAMETERS_ALONE, Ranked, Rows, Way, find_regret, rank, read_reference

JUDGED_AT, N_DRAWS = "0.05", 5
"""The ratio that is judged at, and draws of each training."""
N_DRAWS_OF_METHODS = 3
"""Draws of each way to choose samples."""
TWICE = "0.1"
"""The ratio with twice as many samples as what judges."""
SIZES = ("0.02", JUDGED_AT, TWICE)
"""Ratios that methods are compared at."""
_ON_RANDOM = Way(BASE, ("random",), N_DRAWS)
SHORT, LONG, OLD = "13 epochs, the base", "63 epochs", "30 epochs in batches of 128, rate .001"
PLAIN, SOFT, BY_MARGIN, BY_LOSS = (
    "52 epochs in batches of 32",
    "the same with soft labels",
    "52 epochs in batches of 32, by margin",
    "the same with soft labels, by loss",
)
TRAININGS: dict[str, Way] = {
    SHORT: _ON_RANDOM,
    LONG: replace(_ON_RANDOM, variant=LONGER),
    PLAIN: replace(_ON_RANDOM, variant=TRAINING),
    SOFT: replace(_ON_RANDOM, variant=CHOSEN_TRAINING),
    BY_LOSS: replace(_ON_RANDOM, variant=CHOSEN_TRAINING, score="loss"),
    BY_MARGIN: replace(_ON_RANDOM, variant=TRAINING, score="margin"),
    OLD: replace(_ON_RANDOM, variant=FORMER),
}
"""Trainings that are judged, on random samples, and the score that may replace accuracy."""
FINALISTS = (1, 3)
"""Networks that are trained on everything after a search, of which the best is taken."""
COMBINED = "random and fewer epochs"
COUNTING = "counting parameters"
DEFAULT_WAY = "easier, default training"
BESIDE_SOFT_LABELS = Way(CHOSEN_TRAINING, n_draws=N_DRAWS_OF_METHODS, score="loss")
"""How methods are compared with soft labels: the training, and what ranks."""
BESIDE_LABELS = Way(BASE, n_draws=N_DRAWS_OF_METHODS, parameter_weight=PARAMETER_WEIGHT)
"""The same with the default training."""


@dataclass(frozen=True)
class OtherSizes:
    """A comparison of methods at other sizes than what judges.

    Attributes:
        stage: Whose rows are of these sizes.
        way: How networks are trained and ranked; its draws are those at the size that judges.
        n_draws: Of each method at the other sizes.
    """

    stage: str
    way: Way
    n_draws: int


SIZES_BESIDE_SOFT_LABELS = OtherSizes("sizes", BESIDE_SOFT_LABELS, 2)
SIZES_BESIDE_LABELS = OtherSizes("sizes-base", BESIDE_LABELS, 3)


def read_judging(of_each: Mapping[str, Rows], architectures: Mapping[str, Sequence[Architecture]]) -> dict[str, Ranked]:
    """Takes what judges of the rows of each data set; one without a whole seed of the reference is left out.

    Args:
        of_each: Rows by data set.
        architectures: Of both halves by data set, by cost: where there are more labels, parameters and costs are others.
    """
    ranked = {}
    for name, rows in of_each.items():
        judging = take_half(architectures[name], "judging" if name == "cifar10" else None)
        reference = read_reference(rows, judging)
        if reference is not None:
            ranked[name] = Ranked([row for row in rows if is_judged(row)], judging, reference)
    return ranked


def find_gain_of_combined(rows: Rows, architectures: Sequence[Architecture]) -> EstimateRecord | None:
    """Finds what random samples and fewer epochs together gain over random samples of as high a cost: twice as many.

    Args:
        rows: Of CIFAR-10.
        architectures: Of both halves; the judging half judges.

    Returns:
        None where rows are missing.
    """
    judging = take_half(architectures, "judging")
    reference = read_reference(rows, judging)
    if reference is None:
        return None
    ways = list_methods(BESIDE_SOFT_LABELS)
    together = rank([Ranked([row for row in rows if is_judged(row)], judging, reference)], ways[COMBINED])
    twice = [row for row in rows if (row["stage"], row["ratio"]) == (SIZES_BESIDE_SOFT_LABELS.stage, TWICE)]
    random = rank(
        [Ranked(twice, judging, reference)], replace(ways["random"], n_draws=SIZES_BESIDE_SOFT_LABELS.n_draws)
    )
    return None if together is None or random is None else subtract(together, random).as_difference()


def is_judged(row: Mapping[str, str]) -> bool:
    """Whether a row is of a stage that judges, at 5 %."""
    return row["stage"] in ("judging", "methods", "methods-base", "looked-for") and row["ratio"] == JUDGED_AT


def tabulate_sizes(rows: Rows, architectures: Sequence[Architecture], sizes: OtherSizes) -> list[str]:
    """Tabulates tau of methods at other sizes than 5 % too, on the judging half; empty while there are none.

    Args:
        rows: Of CIFAR-10.
        architectures: Of both halves.
        sizes: What is compared.
    """
    judging = take_half(architectures, "judging")
    reference = read_reference(rows, judging)
    if reference is None or not any(row["stage"] == sizes.stage for row in rows):
        return []
    ranked = {}
    for ratio in SIZES:
        of_ratio = [row for row in rows if row["ratio"] == ratio and (row["stage"] == sizes.stage or is_judged(row))]
        ranked[ratio] = Ranked(of_ratio, judging, reference)
    titles = [f"{100 * float(ratio):.0f} %" for ratio in SIZES]
    lines = [f"| | {' | '.join([*titles, *(f'less random at {title}' for title in titles)])} |", f"|---|{'---|' * 6}"]
    ways = list_methods(sizes.way)
    random = ways["random"]
    n_draws = {ratio: sizes.way.n_draws if ratio == JUDGED_AT else sizes.n_draws for ratio in SIZES}
    for name, way in ways.items():
        at = {ratio: (replace(way, n_draws=n), replace(random, n_draws=n)) for ratio, n in n_draws.items()}
        taus = [rank([ranked[ratio]], one) for ratio, (one, _) in at.items()]
        gains = [find_gain([ranked[ratio]], one, other) for ratio, (one, other) in at.items() if one != other]
        if name != COMBINED and sum(tau is not None for tau in taus) > 1:  # at 5 % alone there is nothing to compare
            cells = ["–" if tau is None else tau.estimate().as_agreement().shown() for tau in taus]
            cells += ["–" if gain is None else gain.shown() for gain in gains] or [""] * len(SIZES)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def find_gain(ranked: Sequence[Ranked], way: Way, than: Way) -> EstimateRecord | None:
    """Finds how much higher the tau of a way is than that of another: the mean over data sets; None where rows are missing."""
    one, other = rank(ranked, way), rank(ranked, than)
    return None if one is None or other is None else subtract(one, other).as_difference()


def tabulate_ways(ranked: Mapping[str, Ranked], ways: Mapping[str, Way], than: Sequence[str]) -> list[str]:
    """Tabulates tau of some ways on each data set, their mean, and what each gains over some of them.

    Args:
        ranked: By data set.
        ways: By the name they have in the table; one without rows is left out of it.
        than: Names of those that the others are compared with.
    """
    every = [*ranked.values()]
    sets = [[each] for each in every] + ([every] if len(every) > 1 else [])
    columns = [*ranked, *(["mean"] if len(every) > 1 else []), *(f"less {name}" for name in than)]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, way in ways.items():
        taus = [rank(each, way) for each in sets]
        if not any(taus):
            continue
        cells = ["–" if each is None else each.estimate().as_agreement().shown() for each in taus]
        for other in than:
            gain = None if other == name else find_gain(every, way, ways[other])
            cells.append("" if gain is None else gain.shown())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def tabulate_regrets(ranked: Mapping[str, Ranked], ways: Mapping[str, Way]) -> list[str]:
    """Tabulates the regret with some numbers of finalists, in points, on each data set; empty where no way has all rows.

    Args:
        ranked: By data set.
        ways: By the name they have in the table; one that lacks rows of a data set is left out.
    """
    columns = [(name, n) for n in FINALISTS for name in ranked]
    lines = [f"| | {' | '.join(f'{name}, regret of {n}' for name, n in columns)} |", f"|---|{'---|' * len(columns)}"]
    for title, way in ways.items():
        lost = [find_regret(ranked[name], way, n) for name, n in columns]
        points = [f"{100 * each:.1f}" for each in lost if each is not None]
        if len(points) == len(columns):
            lines.append(f"| {title} | {' | '.join(points)} |")
    return lines if len(lines) > 2 else []


def list_methods(way: Way) -> dict[str, Way]:
    """Lists the methods as ways to rank that are like one but for how samples are chosen; then, at twice the cost, two of them combined; last, what costs nothing."""
    combined = replace(way, methods=("random", FEWER_EPOCHS), is_combined=True)
    counting = Way(way.variant, score=PARAMETERS_ALONE)
    return {**{name: replace(way, methods=(name,)) for name in METHODS}, COMBINED: combined, COUNTING: counting}


def list_good_ways() -> dict[str, Way]:
    """Lists the ways that pages recommend, beside what costs less: by accuracy and parameters after the default training, by loss after soft labels."""
    by_labels, by_soft_labels = list_methods(BESIDE_LABELS), list_methods(BESIDE_SOFT_LABELS)
    return {
        COUNTING: by_labels[COUNTING],
        "random, default training": by_labels["random"],
        DEFAULT_WAY: by_labels["easier"],
        "random, soft labels": by_soft_labels["random"],
        "stratified, soft labels": by_soft_labels["stratified"],
    }


def find_leading(rows: Rows, architectures: Sequence[Architecture], way: Way) -> list[str]:
    """Finds the method with the highest tau on the tuning half of CIFAR-10, or those that share it; none while one lacks rows.

    Args:
        rows: Of CIFAR-10.
        architectures: Of both halves.
        way: How networks are trained and ranked.
    """
    tuning = take_half(architectures, "tuning")
    reference = read_reference(rows, tuning)
    if reference is None:
        return []
    ranked = Ranked([row for row in rows if is_judged(row)], tuning, reference)
    ways = list_methods(way)
    found = {name: rank([ranked], way) for name, way in ways.items() if name not in (FEWER_EPOCHS, COMBINED, COUNTING)}
    taus = {name: round(float(tau.mean[0]), 9) for name, tau in found.items() if tau is not None}
    return [name for name, tau in taus.items() if tau == max(taus.values())] if len(taus) == len(found) else []
