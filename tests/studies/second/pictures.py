"""The second study in pictures: rows become figures; `as_png` calls what draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from proxyds.artifact.card.plots import as_percent, new_figure
from proxyds.artifact.evidence_records import EstimateRecord
from tests.studies.second.judging import find_gain
from tests.studies.second.weighing import Gain, Ranked, Way, rank, read_scores

DATA_COLOURS = ("#0072B2", "#E69F00", "#000000")
"""Tells data sets apart; the last colour is that of their mean."""
REACHES, FALLS_SHORT = "#009E73", "#999999"
TOO_HIGH, TOO_LOW, RIGHT = "#D55E00", "#56B4E9", "#999999"
FACTOR_NAMES = {
    "padding-0": "crops not padded",
    "padding-1": "crops padded by 1",
    "padding-4": "crops padded by 4",
    "not-mirrored": "not mirrored",
    "rate-.003": "learning rate .003",
    "rate-.03": "learning rate .03",
    "batch-32": "batches of 32",
    "batch-128": "batches of 128",
    "epochs-6": "6 epochs",
    "epochs-26": "26 epochs",
    "epochs-52": "52 epochs",
    "decay": "weight decay",
    "smoothing": "smoothed labels",
    "soft-1": "soft labels",
    "soft-4": "softer labels",
    "side-12": "images of 12 pixels",
    "side-8": "images of 8 pixels",
}


def draw_gains(gains: Sequence[Gain], title: str) -> Figure:
    """What each variant of the training gains in tau over the base, with its interval, and how much it would have to, by its cost."""
    are_together = np.array(["+" in each.variant for each in gains])
    places = np.arange(len(gains)) + (are_together & ~are_together[0])  # a gap before what stands together
    figure = new_figure(height=1.6 + 0.27 * len(gains))
    axes = figure.subplots()
    for place, each in zip(places, gains, strict=True):
        _draw_estimate(axes, each.gain, place, REACHES if each.is_taken else FALLS_SHORT)
        axes.plot([each.needed], [place], "|", color="#000000", markersize=11)
    for name, colour in (("reaches what its cost asks for", REACHES), ("falls short of it", FALLS_SHORT)):
        axes.plot([], [], "o-", color=colour, linewidth=2, label=name)
    axes.plot([], [], "|", color="#000000", markersize=11, label="what its cost asks for")
    names = [", ".join(FACTOR_NAMES[part] for part in each.variant.split("+")) for each in gains]
    axes.set_yticks(places, [f"{name}: cost x {each.cost:.2f}" for name, each in zip(names, gains, strict=True)])
    axes.set_ylim(places[-1] + 0.5, -0.5)
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    axes.set_xlabel("gain in Kendall's tau over the base, 95 % interval")
    figure.legend(loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_ways(ranked: Mapping[str, Ranked], ways: Mapping[str, Way], than: Sequence[str], title: str) -> Figure:
    """Tau of ways to rank on each data set and on the mean, and what they gain on the mean over some of them.

    Args:
        ranked: By data set.
        ways: By the name they have in the picture; one without rows has no dot.
        than: Names of those that the others are compared with, each in a picture of its own.
        title: Of the picture.
    """
    sets = {name: [each] for name, each in ranked.items()}
    if len(sets) > 1:
        sets["mean"] = [*ranked.values()]
    every, colours = [*ranked.values()], dict(zip(sets, DATA_COLOURS, strict=False))
    figure = new_figure(height=1.4 + 0.4 * len(ways))
    left, *others = figure.subplots(1, 1 + len(than), sharey=True)
    for place, (name, way) in enumerate(ways.items()):
        for i, (of, each) in enumerate(sets.items()):
            if (tau := rank(each, way)) is not None:
                shift = 0.16 * (i - (len(sets) - 1) / 2)
                _draw_estimate(left, tau.estimate().as_agreement(), place + shift, colours[of])
        for axes, other in zip(others, than, strict=True):
            gain = None if name == other else find_gain(every, way, ways[other])
            if gain is not None:
                _draw_estimate(axes, gain, place, [*colours.values()][-1])
    left.set_yticks(range(len(ways)), [*ways])
    left.set_ylim(len(ways) - 0.5, -0.5)
    left.set_xlabel("Kendall's tau,\n95 % interval")
    for axes, other in zip(others, than, strict=True):
        axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        axes.set_xlabel(f"tau gained over\n{other}")
    for name, colour in colours.items():
        left.plot([], [], "o-", color=colour, linewidth=2, label=name)
    figure.legend(loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_networks(ranked: Mapping[str, Ranked], ways: Mapping[str, Way], title: str) -> Figure:
    """Accuracy of each network on a part, the mean of its draws, over that on everything: a column of pictures for each way to train.

    Networks that this ranks too high by two places or more are marked, and those that it ranks too low.

    Args:
        ranked: By data set; a row of pictures for each.
        ways: By the name they have in the picture; each has rows on every data set.
        title: Of the picture.
    """
    figure = new_figure(height=1 + 2.9 * len(ranked))
    grid = figure.subplots(len(ranked), len(ways), squeeze=False, sharex="row")
    for of_set, (data, each) in zip(grid, ranked.items(), strict=True):
        for axes, (name, way) in zip(of_set, ways.items(), strict=True):
            measured = read_scores(each, way)
            assert measured is not None, f"{name} lacks rows on {data}"
            reached = measured.mean(axis=(0, 1))
            off = rankdata(reached) - rankdata(each.reference)
            for kind, (marker, colour, is_of) in {
                "in its place, or next to it": ("o", RIGHT, np.abs(off) < 2),
                "two places or more too high": ("^", TOO_HIGH, off >= 2),
                "two places or more too low": ("v", TOO_LOW, off <= -2),
            }.items():
                axes.plot(each.reference[is_of], reached[is_of], marker, color=colour, label=kind)
            axes.set_title(f"{data}, {name}")
            axes.xaxis.set_major_formatter(as_percent)
            axes.yaxis.set_major_formatter(as_percent)
            axes.set_xlabel("accuracy on everything")
        of_set[0].set_ylabel("accuracy on 5 %, mean of five draws")
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
