"""Ways to rank networks, judged where nothing was chosen: on the judging half of CIFAR-10 and on all networks of CIFAR-100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import FEWER_EPOCHS
from proxyds.evaluation.intervals import subtract
from proxyds.space.architecture import Architecture
from tests.studies.parts import take_half
from tests.studies.second.plan import BASE, CHOSEN_TRAINING, LONGER, TRAINING
from tests.studies.second.weighing import Ranked, Rows, Way, rank, read_reference

JUDGED_AT = "0.05"
"""The ratio that is judged at."""
_RANDOM = ("random",)
TRAININGS: dict[str, Way] = {
    "base": Way(BASE, _RANDOM),
    "base for as much": Way(LONGER, _RANDOM),
    "without soft labels": Way(TRAINING, _RANDOM),
    "chosen": Way(CHOSEN_TRAINING, _RANDOM),
    "base, by margin": Way(BASE, _RANDOM, "margin"),
    "base for as much, by margin": Way(LONGER, _RANDOM, "margin"),
    "without soft labels, by margin": Way(TRAINING, _RANDOM, "margin"),
    "chosen, by margin": Way(CHOSEN_TRAINING, _RANDOM, "margin"),
}
"""Trainings that are judged, on random samples, and the score that may replace accuracy."""


def read_judging(of_each: Mapping[str, Rows], architectures: Sequence[Architecture]) -> dict[str, Ranked]:
    """Takes what judges of the rows of each data set; one without a whole seed of the reference is left out."""
    ranked = {}
    for name, rows in of_each.items():
        judging = take_half(architectures, "judging" if name == "cifar10" else None)
        reference = read_reference(rows, judging)
        if reference is not None:
            ranked[name] = Ranked([row for row in rows if is_judged(row)], judging, reference)
    return ranked


def is_judged(row: Mapping[str, str]) -> bool:
    """Whether a row is of a stage that judges, at 5 %."""
    return row["stage"] in ("judging", "methods") and row["ratio"] == JUDGED_AT


def find_gain(ranked: Sequence[Ranked], way: Way, than: Way) -> EstimateRecord | None:
    """Finds how much higher the tau of a way is than that of another: the mean over data sets; None where rows are missing."""
    one, other = rank(ranked, way), rank(ranked, than)
    return None if one is None or other is None else subtract(one, other).as_difference()


def tabulate_ways(ranked: Mapping[str, Ranked], ways: Mapping[str, Way], than: Sequence[str]) -> list[str]:
    """Tabulates tau of some ways on each data set, their mean, and what each gains over some of them.

    Args:
        ranked: By data set.
        ways: By the name they have in the table; one that lacks rows is left out of it.
        than: Names of those that the others are compared with.
    """
    every = [*ranked.values()]
    if not every:
        return []
    columns = [*ranked, *(["mean"] if len(ranked) > 1 else []), *(f"less {name}" for name in than)]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    sets = [[each] for each in every] + ([every] if len(every) > 1 else [])
    for name, way in ways.items():
        taus = [rank(each, way) for each in sets]
        if any(each is None for each in taus):
            continue
        cells = [each.estimate().as_agreement().shown() for each in taus if each is not None]
        for other in than:
            gain = None if other == name else find_gain(every, way, ways[other])
            cells.append("" if gain is None else gain.shown())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def find_methods(ranked: Mapping[str, Ranked], score: str, parameter_weight: float) -> dict[str, Way]:
    """Lists each method that has rows on every data set, as ways to rank that are alike but for it."""
    found = [{row["method"] for row in each.rows if row["variant"] == TRAINING} for each in ranked.values()]
    common = set.intersection(*found) if found else set()
    way = Way(TRAINING, score=score, parameter_weight=parameter_weight)
    return {name: replace(way, methods=(name,)) for name in sorted(common)}


def find_leading(rows: Rows, architectures: Sequence[Architecture], parameter_weight: float) -> list[str]:
    """Lists methods by tau with parameters on the tuning half, the best first; those that lack rows are left out.

    Args:
        rows: Of CIFAR-10.
        architectures: Of both halves.
        parameter_weight: What parameters count beside accuracy.
    """
    tuning = take_half(architectures, "tuning")
    reference = read_reference(rows, tuning)
    if reference is None:
        return []
    ranked = Ranked([row for row in rows if is_judged(row)], tuning, reference)
    found = {
        name: rank([ranked], way) for name, way in find_methods({"": ranked}, "accuracy", parameter_weight).items()
    }
    taus = {name: float(tau.mean[0]) for name, tau in found.items() if tau is not None and name != FEWER_EPOCHS}
    return sorted(taus, key=lambda name: -taus[name])
