"""The evidence in pictures: runs and estimates in, figures out; see `plots.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from proxyds.artifact.card.plots import LONG_NAME, Draw, as_percent, new_axes, new_figure
from proxyds.artifact.evidence_records import HALVING, EvidenceRecord, SearchRecord
from proxyds.artifact.ranking_table import (
    ALL_LABELS,
    AT_ONE_RATIO,
    BY_ACCURACY,
    BY_BOTH,
    BY_LOSS,
    FEWER_EPOCHS,
    FLOPS,
    FULL,
    METHOD_LABELS,
    OTHER_METHODS,
    PARAMETERS,
    PROXY,
    RANDOM,
    RANDOM_LABELS,
    STRATIFIED,
    WITH_PARAMETERS,
    Measured,
    RankedBy,
    best_first,
    collect_accuracies,
)

_LOOKS: dict[str, tuple[Any, str]] = {
    PROXY: ("#D55E00", "o"),
    RANDOM: ("#0072B2", "s"),
    STRATIFIED: ("#56B4E9", "D"),
    RANDOM_LABELS: ("#E69F00", "v"),
    ALL_LABELS: ("#CC79A7", "P"),
    FEWER_EPOCHS: ("#009E73", "^"),
    FULL: ("#000000", "*"),
    FLOPS: ("#999999", "x"),
    PARAMETERS: ("#999999", "+"),
    **{name: (mpl.colormaps["tab20"](i % 20), "<>hpdXH8"[i % 8]) for i, name in enumerate(OTHER_METHODS)},
}
COLOURS = {method: colour for method, (colour, _) in _LOOKS.items()}
MARKERS = {method: marker for method, (_, marker) in _LOOKS.items()}
MAX_NAMED = 24
"""Architectures that a picture names, at most."""

_BY: dict[RankedBy, str] = {BY_ACCURACY: "", BY_BOTH: ", with parameters", BY_LOSS: ", by loss"}
_BY[WITH_PARAMETERS[BY_LOSS]] = ", by loss and parameters"
"""What titles and names say of what ranks."""
_CHANGED = ListedColormap(mpl.colormaps["cividis_r"](np.linspace(0, 1, 256)))


def list_evidence_pictures(evidence: EvidenceRecord, runs: pa.Table) -> dict[str, Draw]:
    """Lists the pictures of a check by file name, with what draws them.

    Args:
        evidence: Estimates.
        runs: The table `ranking`.

    Returns:
        `searches.png` is there only where operations are known, `ratios.png` only where several ratios were checked.
    """
    measured = collect_accuracies(runs)
    pictures: dict[str, Draw] = {
        "correlation.png": partial(_draw_correlation, evidence),
        "orders.png": partial(_draw_orders, evidence, measured),
        "accuracy.png": partial(_draw_accuracy, evidence, measured),
    }
    if evidence.searches:
        pictures["searches.png"] = partial(_draw_searches, evidence)
    if len(evidence.ratios) > 1:
        pictures["ratios.png"] = partial(_draw_ratios, evidence)
    return pictures


def _draw_correlation(evidence: EvidenceRecord) -> Figure:
    """Draws Kendall's tau of every way to rank, with its interval; the noise ceiling first."""
    methods = evidence.list_ways()
    figure, axes = new_axes(height=0.9 + 0.36 * len(methods))
    for position, each in enumerate(methods):
        tau, colour = each.statistics["tau"], COLOURS[each.method]
        if tau.low is not None and tau.high is not None:
            axes.plot([tau.low, tau.high], [position, position], color=colour, linewidth=2)
        repeats = [own for own in each.tau_of_repeats if own is not None]
        if len(repeats) > 1:
            axes.plot(repeats, [position + 0.22] * len(repeats), "|", color=colour, markersize=6)
        if tau.value is not None:
            axes.plot([tau.value], [position], MARKERS[each.method], color=colour, markersize=8)
    axes.set_yticks(range(len(methods)), [METHOD_LABELS[each.method] for each in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set_xlim(right=1.02)
    axes.set_xlabel("Kendall tau with full data: mean, 95 % interval, each draw or seed (ticks)")
    axes.set_title(f"How well each ranks {evidence.n_architectures} architectures{_BY[evidence.ranked_by]}")
    return figure


def _draw_orders(evidence: EvidenceRecord, measured: Measured) -> Figure:
    """Draws the paper's figure 2: which pairs of architectures change order against full data, in how many of the repeats."""
    reference = measured.accuracies[FULL, 1.0].mean(axis=0)
    order = best_first(reference)
    scores = measured.accuracies
    if evidence.ranked_by == BY_LOSS:
        scores = {way: -losses for way, losses in measured.losses.items()}
    of_ratio = {method: scores.get((method, evidence.own_ratio)) for method in AT_ONE_RATIO}
    panels = [(method, of_method) for method, of_method in of_ratio.items() if of_method is not None]
    panels += [(method, cost[None]) for method, cost in measured.costs.items()]
    n_rows = -(-len(panels) // 3)
    figure = new_figure(height=0.7 + 2.6 * n_rows)
    grid = figure.subplots(n_rows, 3, squeeze=False)
    for axes, (method, of_method) in zip(grid.flat, panels, strict=False):
        changed = changed_pairs(reference[order], of_method[:, order])
        axes.imshow(changed, cmap=_CHANGED, vmin=0, vmax=1)
        best = np.mean([row == row.max() for row in of_method[:, order]], axis=0)
        for position in np.flatnonzero(best):
            axes.plot(position, position, "o", color="#D55E00", markersize=3 + 4 * best[position], clip_on=False)
        axes.add_patch(Rectangle((-0.5, -0.5), 1, 1, fill=False, edgecolor="#000000", linewidth=1.5, clip_on=False))
        share = changed[np.triu_indices(len(order), 1)].mean()
        axes.set_title(f"{METHOD_LABELS[method]}: {share:.0%}", fontsize=10)
        ticks = np.arange(0, len(order), 1 if len(order) <= 16 else len(order) // 8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [str(t + 1) for t in ticks], fontsize=7)
        axes.spines[:].set_visible(False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    bar = figure.colorbar(grid[0, 0].images[0], ax=grid, shrink=0.6, format=as_percent)
    bar.set_label("repeats in which the pair changes order")
    handles: list[Any] = [
        Line2D([], [], linestyle="", marker="s", fillstyle="none", color="#000000", label="the best on full data"),
        Line2D([], [], linestyle="", marker="o", color="#D55E00", label="found best here (larger: more often)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(
        f"Share of pairs of architectures that change order{_BY[evidence.ranked_by]}; 1 is the best on full data",
        fontsize=11,
    )
    return figure


def changed_pairs(reference: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts in what share of the repeats each pair is ordered otherwise than by the reference; a tie counts half.

    Args:
        reference: (n,).
        measured: (R, n).

    Returns:
        (n, n) in [0, 1], symmetric, zero on the diagonal.
    """
    ordered = np.sign(reference[:, None] - reference[None, :])
    signs = np.sign(measured[:, :, None] - measured[:, None, :])
    shares: NDArray[np.float64] = (np.abs(signs - ordered) / 2).mean(axis=0)
    return shares


def _draw_accuracy(evidence: EvidenceRecord, measured: Measured) -> Figure:
    """Draws accuracy on the proxy, or loss where that ranks, and on random subsets, against accuracy on full data; architectures named by number."""
    full = measured.accuracies[FULL, 1.0]
    by_loss = evidence.ranked_by == BY_LOSS
    scores = measured.losses if by_loss else measured.accuracies
    reference = full.mean(axis=0)
    order = best_first(reference)
    methods = [m for m in (PROXY, RANDOM) if (m, evidence.own_ratio) in scores]
    n_columns = 1 if max(map(len, measured.names)) > LONG_NAME else 2
    n_lines = -(-len(order) // n_columns) if len(order) <= MAX_NAMED else 0
    figure = new_figure(height=3.6 + 0.17 * n_lines)
    panels = figure.subplots(1, len(methods), squeeze=False, sharex=True, sharey=True)[0]
    for axes, method in zip(panels, methods, strict=True):
        on_subset = scores[method, evidence.own_ratio]
        mean = on_subset.mean(axis=0)
        axes.errorbar(
            reference,
            mean,
            xerr=_reach(full),
            yerr=_reach(on_subset),
            fmt=MARKERS[method],
            color=COLOURS[method],
            ecolor="#BBBBBB",
            markersize=5,
        )
        for rank, i in enumerate(order if n_lines else (), start=1):
            offset = (4, 4) if rank % 2 else (-4 - 5 * len(str(rank)), -10)  # neighbours on opposite sides
            axes.annotate(str(rank), (reference[i], mean[i]), offset, textcoords="offset points", fontsize=8)
        axes.set_title(f"{METHOD_LABELS[method]} {evidence.own_ratio:.3g}")
        axes.set_xlabel("accuracy after training on everything")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(as_percent)
        if not by_loss:
            axes.yaxis.set_major_formatter(as_percent)
    if by_loss:
        panels[0].invert_yaxis()  # all panels share it: the better is higher, as with accuracy
    panels[0].set_ylabel(f"{evidence.ranked_by} after training on the subset")
    if n_lines:
        labels = [f"{rank}  {measured.names[i]}" for rank, i in enumerate(order, start=1)]
        handles = [Line2D([], [], linestyle="", label=label) for label in labels]
        looks: dict[str, Any] = {"ncols": n_columns, "fontsize": 8, "handlelength": 0, "handletextpad": 0}
        figure.legend(handles=handles, loc="outside lower center", **looks)
    return figure


def _reach(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measures how far the lowest and the highest of (R, A) values lie from their mean; (2, A). Rounding may put a mean of equal values outside."""
    mean = values.mean(axis=0)
    reach: NDArray[np.float64] = np.maximum(0.0, [mean - values.min(axis=0), values.max(axis=0) - mean])
    return reach


def label_search(search: SearchRecord) -> str:
    """Names a way to search, for people."""
    names = METHOD_LABELS | {FULL: "everything", HALVING: "successive halving"}
    return names[search.method] + _BY[search.ranked_by]


def _draw_searches(evidence: EvidenceRecord) -> Figure:
    """Draws what a search would have paid and lost with each way to rank, by the number of finalists."""
    figure, axes = new_axes(height=4.2)
    for method, ranked_by in dict.fromkeys((each.method, each.ranked_by) for each in evidence.searches):
        points = [each for each in evidence.searches if (each.method, each.ranked_by) == (method, ranked_by)]
        with_parameters = ranked_by in WITH_PARAMETERS.values()
        axes.plot(
            [each.flops for each in points],
            [100 * each.lost for each in points],
            marker=MARKERS.get(method, "d"),
            color=COLOURS.get(method, "#882255"),
            linestyle=":" if with_parameters else "-",
            linewidth=1,
            markerfacecolor="none" if with_parameters else None,
            label=label_search(points[0]),
            zorder=4 if method == PROXY else 3,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(EngFormatter(unit="FLOP"))
    axes.minorticks_off()
    axes.set_ylim(bottom=-0.05 * axes.get_ylim()[1])  # what is lost is 0 at least
    axes.set_xlabel("operations of the whole search, logarithmic (the best 1, 3, 5 trained on everything)")
    axes.set_ylabel("accuracy lost, points")
    axes.set_title("What a search pays and loses")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw_ratios(evidence: EvidenceRecord) -> Figure:
    """Draws Kendall's tau over the proxy's size, for the proxy and what is drawn or trained as it is."""
    figure, axes = new_axes(height=3.8)
    methods = evidence.at_one_ratio
    for shift, method in zip(np.linspace(-0.012, 0.012, len(methods)), methods, strict=True):
        points = sorted(
            (m for m in evidence.methods if m.method == method and m.ratio and m.ranked_by == evidence.ranked_by),
            key=lambda m: m.ratio or 0,
        )
        x = [(each.ratio or 0) * 10**shift for each in points]
        taus = [each.statistics["tau"] for each in points]
        values = [np.nan if tau.value is None else tau.value for tau in taus]
        axes.plot(x, values, marker=MARKERS[method], color=COLOURS[method], label=METHOD_LABELS[method])
        for at, tau in zip(x, taus, strict=True):
            if tau.low is not None and tau.high is not None:
                axes.plot([at, at], [tau.low, tau.high], color=COLOURS[method], linewidth=1, alpha=0.7)
    ceiling = evidence.of(FULL, None)
    if ceiling is not None and ceiling.statistics:
        axes.axhline(ceiling.statistics["tau"].value or 0, color=COLOURS[FULL], linestyle=":", label="noise ceiling")
    if evidence.target is not None:
        axes.axhline(evidence.target, color="#999999", linestyle="--", linewidth=1, label=f"target {evidence.target:g}")
    axes.set_xscale("log")
    axes.set_xticks(evidence.ratios, [as_percent(ratio) for ratio in evidence.ratios])
    axes.minorticks_off()
    axes.set_xlabel("size of the subset")
    axes.set_ylabel("Kendall tau, 95 % interval")
    axes.set_title(f"How large must it be?{' Ranked by loss' if evidence.ranked_by == BY_LOSS else ''}")
    axes.legend(ncols=3, fontsize=9)
    return figure
