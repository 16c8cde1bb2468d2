"""The picture of a ranking: candidates with what is expected of them on everything, and the shortlist."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from proxyds.artifact.card.plots import STYLE, as_percent, new_axes
from proxyds.errors import ArgumentError, translate_os_errors
from proxyds.evaluation.decision.ranked import Ranking

MOST_DRAWN = 40
"""Candidates that are drawn, at most, besides the shortlist: the best."""
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Formats by suffix, and what would make two files of one picture differ."""
_LISTED, _OTHER, _KNOWN = "#D55E00", "#999999", "#000000"


def check_picture(path: Path) -> None:
    """Refuses a picture's name that does not end in the name of a format.

    Raises:
        ArgumentError: It does not.
    """
    if path.suffix.lower() not in _METADATA:
        raise ArgumentError(
            f"{path}: a picture's name must end in .png, .pdf or .svg, it ends in {path.suffix or 'nothing'}"
        )


def draw_ranking(ranking: Ranking, path: Path) -> None:
    """Draws the best candidates with their 90 % intervals, the shortlist in colour; without evidence accuracies on the proxy.

    Args:
        ranking: Of `pipeline.rank`.
        path: The file to write; its suffix says the format: PNG, PDF or SVG.

    Raises:
        ArgumentError: The suffix is another.
        ProxydsError: The file cannot be written.
    """
    check_picture(path)
    shown = [each for place, each in enumerate(ranking.candidates) if place < MOST_DRAWN or each.is_listed]
    with mpl.rc_context(STYLE):
        figure, axes = new_axes(height=1.2 + 0.24 * len(shown))
        for position, each in enumerate(shown):
            colour = _LISTED if each.is_listed else _OTHER
            if each.full_accuracy is not None:
                if each.low is not None and each.high is not None:
                    axes.plot([each.low, each.high], [position, position], color=_KNOWN, linewidth=1)
                axes.plot(
                    [each.full_accuracy],
                    [position],
                    "D",
                    color=_KNOWN,
                    markeredgecolor=colour if each.is_listed else _KNOWN,
                    markeredgewidth=2,
                    markersize=7,
                )
            elif each.expected is None or each.low is None or each.high is None:
                axes.plot([each.accuracy], [position], "o", color=_OTHER, markersize=6)
            else:
                axes.plot([each.low, each.high], [position, position], color=colour, linewidth=2)
                axes.plot([each.expected], [position], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(shown)), [each.name for each in shown], fontsize=8)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(as_percent)
        if ranking.n_fitted:
            axes.set_xlabel("accuracy on everything: expected, 90 % interval (known: black diamond)")
            n, chance = len(ranking.shortlist), f"{ranking.chance_of_shortlist:.0%}"
            listed = "the one in orange" if n == 1 else f"one of {n}, in orange"
            axes.set_title(f"The best of {len(ranking.candidates)} is {listed} with a chance of {chance}")
        else:
            axes.set_xlabel("accuracy on the proxy")
            axes.set_title("Candidates by accuracy on the proxy")
        with translate_os_errors(path, "name another file"):
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata=_METADATA[path.suffix.lower()])
