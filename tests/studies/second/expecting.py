"""What `proxyds rank` says of candidates by accuracy and by loss: half of the networks stand for those of a check, the others are candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from proxyds.artifact.evidence_records import RehearsalRecord
from proxyds.artifact.ranking_table import FULL, Measured, collect_accuracies
from proxyds.evaluation.decision import rehearsal
from proxyds.space.architecture import Architecture
from tests.studies.second.choosing import list_runs
from tests.studies.second.judging import is_judged
from tests.studies.second.plan import CHOSEN_TRAINING
from tests.studies.second.weighing import Rows, keep_whole
from tests.studies.weighing import make_table

WAY = "random", 0.05
"""The samples that candidates are trained on, and their share."""


def read_measured(rows: Rows, architectures: Sequence[Architecture]) -> Measured | None:
    """Reads what networks reach on everything and on random samples with soft labels, with their losses; None where rows are missing."""
    of_way = [row for row in rows if is_judged(row) and (row["variant"], row["method"]) == (CHOSEN_TRAINING, WAY[0])]
    pooled = [{**row, "stage": "judging"} for row in of_way]  # draws of random samples are of two stages
    reference = [row for row in rows if row["stage"] == "reference"]
    runs = list_runs(keep_whole([*pooled, *reference], architectures))
    if {(each["dataset"], each["ratio"]) for each in runs} != {(FULL, 1.0), WAY}:
        return None
    measured, by_loss = (collect_accuracies(make_table(runs, architectures, score)) for score in ("accuracy", "loss"))
    return replace(measured, losses={WAY: -by_loss.accuracies[WAY]})


def rehearse(measured: Measured) -> RehearsalRecord:
    """Rehearses `proxyds rank` as a check's card does, with random samples for the proxy."""
    everybody = np.arange(len(measured.names))
    found = rehearsal.rehearse(rehearsal.take(measured, everybody, WAY), WAY[1], seed=0)
    assert found is not None, "there are too few networks"
    return found


def tabulate_expecting(of_each: Mapping[str, Measured]) -> list[str]:
    """Tabulates `rehearse` by accuracy and by loss, in Markdown.

    Args:
        of_each: What was measured, by the title of the data set.
    """
    lines = [
        "| data, ranked by | 90 % intervals hold | chance given to the best | shortlists hold the best | candidates on a shortlist |",
        "|---|---|---|---|---|",
    ]
    for title, measured in of_each.items():
        for score, of_score in (("accuracy", replace(measured, losses={})), ("loss", measured)):
            of = rehearse(of_score)
            lines.append(
                f"| {title}, by {score} | {100 * of.intervals_hold:.0f} % | {100 * of.chance_of_best:.0f} % | {100 * of.shortlists_hold:.0f} % | {of.shortlist_size:.1f} of {of.n_candidates} |"
            )
    return lines
