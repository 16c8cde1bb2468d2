"""Estimates become pictures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.lines import Line2D

from proxyds.artifact.card.plots import STYLE, as_percent, as_png, new_figure
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import FREE_RANKINGS, FULL, PARAMETERS, RANDOM
from tests.studies.candidates import ALL_METHODS
from tests.studies.report import NAMES, list_sized, take_ratio
from tests.studies.weighing import Found

KINDS = {
    "the default method": "#D55E00",
    "other methods": "#0072B2",
    "other trainings": "#009E73",
    "no subset": "#000000",
}
"""What stands beside each other in a picture, and its colour."""


def draw_taus(found: Sequence[Found], ratio: float, default: str, where: str) -> bytes:
    """Kendall's tau of everything at one ratio with its interval, and the difference to random; PNG bytes.

    Args:
        found: Of `weigh`; all ratios are drawn to the same scale.
        ratio: Which.
        default: The method that stands out.
        where: What was trained on, for the title.
    """
    of_ratio = take_ratio(found, ratio)
    less_random = {each.method: each.tau_less.get(RANDOM) for each in of_ratio}
    for of_random in (each.tau_less for each in of_ratio if each.method == RANDOM):
        less_random |= {name: _turn(of_random[name]) for name in FREE_RANKINGS if name in of_random}
    shown = [
        *(each for each in found if each.method == FULL),
        *of_ratio,
        *(each for each in found if each.method in FREE_RANKINGS),
    ]
    with mpl.rc_context(STYLE):
        figure = new_figure(height=1.2 + 0.28 * len(shown))
        left, right = figure.subplots(1, 2, sharey=True)
        for place, each in enumerate(shown):
            colour = KINDS["no subset"] if each.ratio is None else KINDS[_find_kind(each.method, default)]
            for axes, tau in ((left, each.statistics["tau"]), (right, less_random.get(each.method))):
                if tau is None or tau.value is None:
                    continue
                if tau.low is not None and tau.high is not None:
                    axes.plot([tau.low, tau.high], [place, place], color=colour, linewidth=2)
                axes.plot([tau.value], [place], "o", color=colour)
        for random in (each for each in of_ratio if each.method == RANDOM):
            left.axvline(random.tau, color="#999999", linewidth=0.8, zorder=0)
        right.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        for axes, estimates in (
            (left, [e.statistics["tau"] for e in found]),
            (right, [*(e.tau_less.get(RANDOM) for e in found), *less_random.values()]),
        ):
            axes.set_xlim(*_find_limits(estimates))
        left.set_yticks(range(len(shown)), [NAMES.get(each.method, each.method) for each in shown])
        left.set_ylim(len(shown) - 0.5, -0.5)
        left.set_xlabel("Kendall tau with full data")
        right.set_xlabel("tau minus that of random")
        kinds = {_find_kind(each.method, default) for each in of_ratio} | {"no subset"}
        dots = [Line2D([], [], color=KINDS[kind], marker="o", linewidth=2) for kind in KINDS if kind in kinds]
        figure.legend(dots, [kind for kind in KINDS if kind in kinds], loc="outside lower center", ncols=4)
        figure.suptitle(f"{where}, subsets of {as_percent(ratio)}: 95 % intervals; grey: random samples", fontsize=11)
        return as_png(lambda: figure)


def _turn(less: EstimateRecord) -> EstimateRecord:
    """The difference the other way round."""
    value, low, high = (None if end is None else -end for end in (less.value, less.high, less.low))
    return EstimateRecord(value=value, low=low, high=high)


def _find_kind(name: str, default: str) -> str:
    return "the default method" if name == default else "other methods" if name in ALL_METHODS else "other trainings"


def _find_limits(estimates: Sequence[EstimateRecord | None]) -> tuple[float, float]:
    """The ends of an axis that shows all of these."""
    ends = [
        end for each in estimates if each is not None for end in (each.low, each.value, each.high) if end is not None
    ]
    room = 0.03 * (max(ends, default=1) - min(ends, default=0))
    return min(ends, default=0) - room, max(ends, default=1) + room


def draw_overview(found: Sequence[Found], default: str, title: str) -> bytes:
    """The same for who sees a proxy for the first time: the default method and random samples between what costs nothing and what costs most; PNG bytes."""
    shown = {default: ("on a proxy", "o-"), RANDOM: ("on random images", "s-")}
    free = {FULL: ("on everything, again", ":"), PARAMETERS: ("not at all: parameters are counted", "--")}
    colours = {default: KINDS["the default method"], RANDOM: KINDS["other methods"]}
    with mpl.rc_context({**STYLE, "font.size": 12}):
        figure = new_figure(height=4.4)
        figure.set_figwidth(5.8)
        axes = figure.subplots()
        for method, shift in ((default, 1.02), (RANDOM, 1 / 1.02)):
            points = sorted((each for each in found if each.method == method), key=lambda each: each.ratio or 0)
            x = [(each.ratio or 0) * shift for each in points]
            label, style = shown[method]
            axes.plot(x, [each.tau for each in points], style, color=colours[method], linewidth=2, label=label)
            for at, each in zip(x, points, strict=True):
                tau = each.statistics["tau"]
                if tau.low is not None and tau.high is not None:
                    axes.plot([at, at], [tau.low, tau.high], color=colours[method], linewidth=1.2)
        for each in found:
            if each.method in free:
                label, style = free[each.method]
                axes.axhline(each.tau, color="#000000", linewidth=1.2, linestyle=style, label=label)
        ratios = sorted({each.ratio for each in found if each.method == default and each.ratio})
        axes.set_xscale("log")
        axes.set_xticks(ratios, [as_percent(ratio) for ratio in ratios])
        axes.minorticks_off()
        axes.set_ylim(0.4, 1)
        axes.set_xlabel("share of the images that networks are trained on")
        axes.set_ylabel("Kendall's tau, 95 % interval")
        figure.suptitle(title, fontsize=13)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            title="networks are trained",
            loc="outside lower center",
            ncols=2,
            columnspacing=1,
            handlelength=1.6,
        )
        return as_png(lambda: figure)


def draw_ratios(found: Sequence[Found], default: str, where: str) -> bytes:
    """Tau over the size, of what was run at more ratios than one, the default method standing out; PNG bytes."""
    methods, ratios = list_sized(found)
    with mpl.rc_context(STYLE):
        figure = new_figure(height=3.8)
        axes = figure.subplots()
        for i, method in enumerate(methods):
            points = sorted(
                (each for each in found if each.method == method and each.ratio), key=lambda each: each.ratio or 0
            )
            x = [(each.ratio or 0) * 10 ** (0.008 * (i - (len(methods) - 1) / 2)) for each in points]
            colour = (
                KINDS["the default method"] if method == default else mpl.colormaps["Dark2"]((0, 2, 3, 5, 6, 7)[i % 6])
            )
            axes.plot(x, [each.tau for each in points], marker="o", color=colour, label=NAMES.get(method, method))
            for at, each in zip(x, points, strict=True):
                tau = each.statistics["tau"]
                if tau.low is not None and tau.high is not None:
                    axes.plot([at, at], [tau.low, tau.high], color=colour, linewidth=1, alpha=0.7)
        free = [each for each in found if each.ratio is None]
        for i, (each, style) in enumerate(zip(free, (":", "--", "-."), strict=True)):
            line = {"color": "#000000", "linewidth": 0.8, "linestyle": style}
            axes.axhline(each.tau, label=NAMES[each.method], **line)
            at, tau = max(ratios) * 10 ** (0.08 + 0.04 * i), each.statistics["tau"]
            if tau.low is not None and tau.high is not None:
                axes.plot([at, at], [tau.low, tau.high], **line)
            axes.plot([at], [each.tau], ".", color="#000000")
        axes.set_xscale("log")
        axes.set_xticks(ratios, [as_percent(ratio) for ratio in ratios])
        axes.minorticks_off()
        axes.set_xlabel("size of the subset")
        axes.set_ylabel("Kendall tau, 95 % interval")
        figure.suptitle(f"{where}: points of one size stand beside each other", fontsize=11)
        figure.legend(fontsize=9, loc="outside right center")
        return as_png(lambda: figure)
