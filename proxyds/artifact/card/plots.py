"""The card's pictures: tables in, figures out, and these as PNG. Colours are safe for colour blindness (Okabe and Ito 2008)."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageOps

from proxyds.artifact.manifest import Manifest
from proxyds.artifact.summary import N_SHOWN, Summary
from proxyds.data.images import DECODE_ERRORS, open_image
from proxyds.errors import ArtifactError
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.selection.records import CASE_MEANINGS

CASE_COLOURS = {1: "#56B4E9", 2: "#BBBBBB", 3: "#D55E00", 4: "#F0E442"}
BEFORE, AFTER = "#0072B2", "#E69F00"
LONG_NAME = 60
"""Letters of an architecture's name that fit beside another; a longer name takes a line as wide as the picture."""
MAX_NAMED_LABELS = 30
MAX_POWERS = 5
"""Powers of ten of weights that are told apart."""
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "savefig.dpi": 130,
    "svg.hashsalt": "proxyds",
    "text.parse_math": False,
}


Draw = Callable[[], Figure]
"""Draws one picture; `as_png` and `as_figure` call it in a card's style."""


def list_pictures(manifest: Manifest, summary: Summary) -> dict[str, Draw]:
    """Lists every picture of a card by file name, with what draws it.

    The gallery is there only where the recipe allows it; of a proxy that was made from an index it is all.
    """
    pictures: dict[str, Draw] = {}
    if manifest.index_of is None:
        pictures["labels.png"] = partial(_draw_labels, manifest, summary)
        if manifest.has_losses:
            pictures["probes.png"] = partial(_draw_probes, manifest)
        if manifest.draw.method == BY_IMPORTANCE:
            pictures |= {
                "cases.png": partial(_draw_cases, summary),
                "importance.png": partial(_draw_importance, summary),
            }
        else:
            pictures["weights.png"] = partial(_draw_weights, summary)
    if manifest.gallery:
        pictures["gallery.png"] = partial(_draw_gallery, summary)
    return pictures


def _draw_cases(summary: Summary) -> Figure:
    rows = [("evaluation", summary.evaluation), ("training", summary.training), ("proxy", summary.proxy)]
    figure, axes = new_axes(height=2.9)
    for position, (_, samples) in enumerate(rows):
        left, counts = 0.0, samples.count("case")
        for case in CASE_MEANINGS:
            share = counts.get(case, 0) / max(1, samples.n)
            axes.barh(position, share, left=left, color=CASE_COLOURS[case], edgecolor="white", height=0.72)
            if share > 0.035:
                axes.text(left + share / 2, position, as_percent(round(share, 2)), ha="center", va="center", fontsize=9)
            left += share
    axes.set_yticks(range(len(rows)), [f"{name}\n{samples.n:,}" for name, samples in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(as_percent)
    axes.set_title("Share of the four cases")
    handles = [Patch(color=CASE_COLOURS[case], label=f"{case}: {text}") for case, text in CASE_MEANINGS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def count_labels(manifest: Manifest, summary: Summary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts the samples of each of the source's labels, (C,) each: those that could be drawn, and the proxy's."""
    before, after = np.zeros((2, len(manifest.label_names)), np.int64)
    for label, n in summary.training.count("label").items():
        before[label] = n
    for label, n in summary.proxy.count("label").items():
        after[label if manifest.kept_labels is None else manifest.kept_labels[label]] = n
    return before, after


def _draw_labels(manifest: Manifest, summary: Summary) -> Figure:
    n = len(manifest.label_names)
    before, after = (counts / counts.sum() for counts in count_labels(manifest, summary))
    figure, axes = new_axes(height=3.2)
    if n <= MAX_NAMED_LABELS:
        positions = np.arange(n)
        axes.bar(positions - 0.2, before, 0.4, color=BEFORE, label="training")
        axes.bar(positions + 0.2, after, 0.4, color=AFTER, label="proxy")
        names = [name if len(name) <= 18 else name[:17] + "…" for name in manifest.label_names]
        fits = n <= 12 and max(map(len, names)) <= 10
        axes.set_xticks(positions, names, rotation=0 if fits else 60, ha="center" if fits else "right", fontsize=9)
    else:
        order = np.lexsort((-after, -before))  # among equals what was kept comes first
        axes.step(np.arange(n), before[order], where="mid", color=BEFORE, label="training")
        axes.plot(np.arange(n), after[order], ".", color=AFTER, label="proxy")
        axes.set_xlabel(f"the {n:,} labels, most frequent first")
    axes.yaxis.set_major_formatter(as_percent)
    axes.set_ylim(0, 1.25 * max(before.max(), after.max()))
    axes.set_title("Share of each label, before and after")
    axes.legend(ncols=2, loc="upper right")
    return figure


def _draw_importance(summary: Summary) -> Figure:
    distinct = list(summary.training.count("importance"))
    figure, axes = new_axes(height=3)
    positions, edges = np.arange(len(distinct)), np.linspace(distinct[0], distinct[-1], 31).tolist()
    is_few = len(distinct) <= 12
    rows = [(summary.training, BEFORE, "training", -0.2), (summary.proxy, AFTER, "proxy", 0.2)]
    for samples, colour, name, shift in rows:
        shares = {value: n / samples.n for value, n in samples.count("importance").items()}
        if is_few:
            axes.bar(positions + shift, [shares.get(value, 0.0) for value in distinct], 0.4, color=colour, label=name)
        else:
            axes.hist(list(shares), edges, weights=list(shares.values()), color=colour, alpha=0.6, label=name)
    if is_few:
        axes.set_xticks(positions, [f"{value:.3g}" for value in distinct])
    axes.yaxis.set_major_formatter(as_percent)
    axes.set_xlabel("importance")
    axes.set_title("Share of samples by importance")
    axes.legend()
    return figure


def list_weights(summary: Summary) -> list[dict[str, Any]]:
    """Counts samples by what they were drawn by: a row for each power of ten, the heaviest first, the lightest together.

    Returns:
        The range of weights as text, and counts and shares of training samples and of the proxy; no rows where samples were drawn by importance.
    """
    before, after = summary.training.powers, summary.proxy.powers
    powers = sorted((power for power in before if power is not None), reverse=True)
    groups: dict[str, list[int | None]] = {
        f"{10.0 ** (power - 1):g} to {10.0**power:g}": [power] for power in powers[:MAX_POWERS]
    }
    if rest := powers[MAX_POWERS:]:
        groups[f"up to {10.0 ** rest[0]:g}"] = [*rest]
    if None in before:
        groups["0, never drawn"] = [None]
    rows = []
    for shown, members in groups.items():
        n_before, n_after = (sum(counts.get(power, 0) for power in members) for counts in (before, after))
        shares = {"train_share": n_before / summary.training.n, "proxy_share": n_after / summary.proxy.n}
        rows.append({"weight": shown, "train": n_before, "proxy": n_after, **shares})
    return rows


def _draw_weights(summary: Summary) -> Figure:
    rows = list_weights(summary)[::-1]
    figure, axes = new_axes(height=3)
    positions = np.arange(len(rows))
    axes.bar(positions - 0.2, [row["train_share"] for row in rows], 0.4, color=BEFORE, label="training")
    axes.bar(positions + 0.2, [row["proxy_share"] for row in rows], 0.4, color=AFTER, label="proxy")
    axes.set_xticks(positions, [row["weight"].replace(" to ", " to\n") for row in rows], fontsize=9)
    axes.yaxis.set_major_formatter(as_percent)
    axes.set_xlabel("weight, by which samples are drawn")
    axes.set_title("Share of samples by weight")
    axes.legend()
    return figure


def _draw_probes(manifest: Manifest) -> Figure:
    """Draws the loss over epochs of each probe."""
    labels = [f"{manifest.name_of(probe)}: {probe.accuracy:.1%} right" for probe in manifest.probes]
    is_long = max(map(len, labels)) > LONG_NAME
    figure, axes = new_axes(height=3 + (0.17 * len(labels) if is_long else 0))
    styles = itertools.cycle(["-", "--", "-.", ":"])
    colours = itertools.cycle(["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"])
    for probe, label, style, colour in zip(manifest.probes, labels, styles, colours, strict=False):
        epochs = range(1, len(probe.losses) + 1)
        axes.plot(epochs, probe.losses, style, marker="o", markersize=3, color=colour, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss (nats)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Probe networks")
    if is_long:
        figure.legend(loc="outside lower center", fontsize=8)
    else:
        axes.legend(fontsize=9)
    return figure


def _draw_gallery(summary: Summary) -> Figure:
    """Draws samples of the proxy for each case, the first of each in the order of ids (which is random)."""
    counts = dict.fromkeys(CASE_MEANINGS, 0) | summary.proxy.count("case")
    shares = [1.0 if counts[case] else 0.1 for case in CASE_MEANINGS]  # a case without samples takes one line
    figure = new_figure(height=0.4 + 1.05 * sum(shares))
    side, gap = 64, 6
    rows = figure.subplots(4, height_ratios=shares)
    for axes, (case, meaning) in zip(rows, CASE_MEANINGS.items(), strict=True):
        strip = Image.new("RGB", (N_SHOWN * (side + gap) - gap, side), "white")
        for column, encoded in enumerate(summary.images.get(case, [])):
            try:
                with open_image(encoded) as image:
                    picture = ImageOps.pad(image.convert("RGB"), (side, side), Image.Resampling.NEAREST)
            except DECODE_ERRORS as error:
                raise ArtifactError(f"data: every image must decode, one of case {case} does not: {error}") from None
            strip.paste(picture, (column * (side + gap), 0))
        if counts[case]:
            axes.imshow(strip)
        axes.set_axis_off()
        axes.set_anchor("W")
        axes.set_title(f"{case}: {meaning} ({counts[case]:,} in the proxy)", fontsize=9)
    return figure


class Picture(Figure):
    """A figure that a notebook shows, whether `pyplot` was imported or not."""

    def _repr_png_(self) -> bytes:
        return as_png(lambda: self)


def new_figure(height: float) -> Figure:
    """Makes an empty figure as wide as a card, `height` inches high."""
    return Picture(figsize=(8, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))


def new_axes(height: float) -> tuple[Figure, Axes]:
    """Makes a figure with one pair of axes."""
    figure = new_figure(height)
    return figure, figure.subplots()


def as_percent(value: float, position: float = 0.0) -> str:  # noqa: ARG001 - matplotlib passes it
    """Writes a share as text, also for an axis."""
    return f"{100 * value:.3g} %"


def as_png(draw: Draw) -> bytes:
    """Draws a picture as PNG, the same bytes every time."""
    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        draw().savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def as_figure(draw: Draw) -> Figure:
    """Draws a picture for a program to show; what names of strangers it holds stays text, whatever the program's own style."""
    with mpl.rc_context(STYLE):
        figure = draw()
        figure.draw_without_rendering()  # makes the texts of axes now, in this style
    return figure
