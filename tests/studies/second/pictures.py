"""The second study in pictures: rows become figures; `as_png` calls what draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from proxyds.artifact.card.plots import as_percent, new_figure
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.evaluation.intervals import subtract
from tests.studies.second.weighing import Gain, Ranked, Way, rank, read_scores

COLOURS = ("#0072B2", "#D55E00", "#000000")
"""Of the data sets, and last of their mean."""
CHOSEN, OTHERS = "#D55E00", "#0072B2"


def draw_gains(gains: Sequence[Gain], title: str) -> Figure:
    """What each variant of the training gains in tau over the base, with its interval, and what it costs."""
    figure = new_figure(height=1.6 + 0.26 * len(gains))
    axes = figure.subplots()
    for place, each in enumerate(gains):
        _draw_estimate(axes, each.gain, place, CHOSEN if each.is_taken else OTHERS)
    for name, colour in (("gains enough for its cost", CHOSEN), ("does not", OTHERS)):
        axes.plot([], [], "o-", color=colour, linewidth=2, label=name)
    axes.set_yticks(range(len(gains)), [f"{each.variant}, cost x {each.cost:.1f}" for each in gains])
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    axes.set_xlabel("gain in Kendall's tau, 95 % interval")
    figure.legend(loc="outside lower center", ncols=2)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_ways(ranked: Mapping[str, Ranked], ways: Mapping[str, Way], than: str, title: str) -> Figure:
    """Tau of ways to rank on each data set and on the mean, and their gains on the mean over one of them.

    Args:
        ranked: By data set.
        ways: By the name they have in the picture; one without rows has no dot.
        than: The name of the one that the others are compared with.
        title: Of the picture.
    """
    sets = {name: [each] for name, each in ranked.items()}
    if len(sets) > 1:
        sets["mean"] = [*ranked.values()]
    every, colours = [*ranked.values()], dict(zip(sets, COLOURS, strict=False))
    figure = new_figure(height=1.4 + 0.4 * len(ways))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (name, way) in enumerate(ways.items()):
        for i, (of, each) in enumerate(sets.items()):
            if (tau := rank(each, way)) is not None:
                shift = 0.16 * (i - (len(sets) - 1) / 2)
                _draw_estimate(left, tau.estimate().as_agreement(), place + shift, colours[of])
        one, other = rank(every, way), rank(every, ways[than])
        if one is not None and other is not None and name != than:
            _draw_estimate(right, subtract(one, other).as_difference(), place, [*colours.values()][-1])
    left.set_yticks(range(len(ways)), [*ways])
    left.set_ylim(len(ways) - 0.5, -0.5)
    right.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    left.set_xlabel("Kendall's tau, 95 % interval")
    right.set_xlabel(f"less that of {than}")
    for name, colour in colours.items():
        left.plot([], [], "o-", color=colour, linewidth=2, label=name)
    figure.legend(loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_networks(ranked: Mapping[str, Ranked], ways: Mapping[str, Way], title: str) -> Figure:
    """Accuracy of each network on a part over that on everything, a column of pictures for each way to train.

    Networks that stand too high by two ranks or more among these are marked, and those that stand too low.

    Args:
        ranked: By data set; a row of pictures for each.
        ways: By the name they have in the picture; each has rows on every data set.
        title: Of the picture.
    """
    figure = new_figure(height=0.8 + 2.9 * len(ranked))
    grid = figure.subplots(len(ranked), len(ways), squeeze=False, sharex="row")
    for of_set, (data, each) in zip(grid, ranked.items(), strict=True):
        for axes, (name, way) in zip(of_set, ways.items(), strict=True):
            measured = read_scores(each, way)
            assert measured is not None, f"{name} lacks rows on {data}"
            reached = measured.mean(axis=(0, 1))
            off = rankdata(reached) - rankdata(each.reference)
            for kind, (marker, colour, is_of) in {
                "ranked right, or one rank off": ("o", "#999999", np.abs(off) < 2),
                "too high": ("^", CHOSEN, off >= 2),
                "too low": ("v", OTHERS, off <= -2),
            }.items():
                axes.plot(each.reference[is_of], reached[is_of], marker, color=colour, label=kind)
            axes.set_title(f"{data}, {name}")
            axes.xaxis.set_major_formatter(as_percent)
            axes.yaxis.set_major_formatter(as_percent)
            axes.set_xlabel("accuracy on everything")
        of_set[0].set_ylabel("accuracy on 5 %")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=11)
    return figure


def _draw_estimate(axes: Axes, estimate: EstimateRecord, place: float, colour: str) -> None:
    if estimate.value is None:
        return
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2)
    axes.plot([estimate.value], [place], "o", color=colour)
