"""The command that decides between candidates: rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxyds.cli.options import PATH, as_json, plugins, quiet
from proxyds.progress_bars import show_progress

if TYPE_CHECKING:
    from proxyds.evaluation.decision.ranking import MeasuredOn


@click.command()
@click.argument("proxy")
@click.argument("results", type=PATH)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="With which the best candidate is on the shortlist.",
)
@click.option(
    "--measured-on",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="Samples that the accuracies are of: the proxy's split, or the source's test samples.",
)
@click.option(
    "--plot", type=PATH, metavar="FILE", help="Draw the candidates with their intervals: a PNG, PDF or SVG file."
)
@plugins
@quiet
@as_json
def rank(
    proxy: str,
    results: Path,
    confidence: float,
    measured_on: MeasuredOn,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Say which of the candidates in RESULTS to train on everything.

    PROXY is what they were trained on: a folder, user/name@v1.0.0 on the Hub or an address. RESULTS is a CSV, JSON or parquet
    file with the columns architecture and accuracy (as a share or in percent). More columns, where you have them:

    \b
    training_seed, draw_seed   several trainings of one candidate
    n_parameters               weights; counted here for names of the proxy's search space
    forward_flops              of one image, for what the shortlist costs
    full_accuracy              of candidates that were trained on everything already

    What to expect on everything follows from the proxy's own check. Run the command again with the full_accuracy of the first few: it
    says when to stop.
    """  # noqa: D301 - \b keeps click from filling the lines below it
    with show_progress(quiet=quiet) as on_progress:
        from proxyds.pipeline.rank import rank

        ranking = rank(proxy, results, confidence=confidence, measured_on=measured_on, on_progress=on_progress)
        if plot is not None:
            from proxyds.evaluation.decision.plot import draw_ranking

            draw_ranking(ranking, plot)
    from proxyds.cli.results import print_ranking

    print_ranking(ranking, as_json=as_json)
