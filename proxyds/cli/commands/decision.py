"""The command that decides between candidates: rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxyds.cli.names import complete_path
from proxyds.cli.options import PATH, as_json, plugins, quiet
from proxyds.progress_bars import show_progress

if TYPE_CHECKING:
    from proxyds.evaluation.decision.ranking import MeasuredOn


@click.command()
@click.argument("proxy", shell_complete=complete_path)
@click.argument("results", type=PATH)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, max_open=True),
    default=0.9,
    show_default=True,
    metavar="CHANCE",
    help="Chance that the best candidate is on the shortlist.",
)
@click.option(
    "--measured-on",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="What the accuracies were measured on: the proxy's validation split, or the source's test samples.",
)
@click.option("--plot", type=PATH, metavar="FILE", help="Draw the candidates with their intervals, as PNG, PDF or SVG.")
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
    file. It has the columns architecture and accuracy, as a share or in percent. Train the candidates on the proxy as the section
    training of its recipe.yaml says: the check did, and it tells nothing of other trainings. RESULTS may have more columns:

    \b
    training_seed, draw_seed  tell several trainings of a candidate apart
    n_parameters              number of weights; not needed for names of the
                              proxy's search space
    forward_flops             of one image; tells what the shortlist costs
    full_accuracy             of candidates already trained on everything
    loss                      mean cross-entropy with the true labels of the
                              same samples; where the check's networks learned
                              soft labels, candidates rank by it

    The proxy's own check tells what to expect on everything. Train the first few, add their full_accuracy and run the command again:
    it says when to stop.
    """  # noqa: D301 - \b keeps click from filling the lines below it
    if plot is not None:
        from proxyds.evaluation.decision.plot import check_picture, draw_ranking

        check_picture(plot)
    with show_progress(quiet=quiet) as on_progress:
        from proxyds.pipeline.rank import rank

        ranking = rank(proxy, results, confidence=confidence, measured_on=measured_on, on_progress=on_progress)
    from proxyds.cli.results import print_ranking

    if plot is not None:
        draw_ranking(ranking, plot)  # first: where it fails, nothing but the error is printed
    print_ranking(ranking, as_json=as_json)
