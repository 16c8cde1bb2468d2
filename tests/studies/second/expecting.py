"""What `proxyds rank` says of candidates by accuracy and by loss: half of the networks stand for those of a check, the others are candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from proxyds.artifact.ranking_table import FULL, Measured, collect_accuracies
from proxyds.evaluation.decision.ranking import CONFIDENCE, expect
from proxyds.evaluation.decision.rehearsal import take, take_candidates
from proxyds.evaluation.decision.shortlist import choose_shortlist, find_chances
from proxyds.seeding import derive_seed
from proxyds.space.architecture import Architecture
from tests.studies.second.choosing import list_runs
from tests.studies.second.judging import is_judged
from tests.studies.second.plan import CHOSEN_TRAINING
from tests.studies.second.weighing import Rows, keep_whole
from tests.studies.weighing import make_table

N_SPLITS = 200
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


def rehearse(measured: Measured) -> dict[str, float]:
    """Ranks half of the networks by what the other half tells, `N_SPLITS` times, one training of each candidate on random samples.

    Returns:
        By what it is, on the mean: the share of accuracies in their 90 % intervals, the intervals' width in points, the chance that the best
        candidate is given, points lost by taking the first, the share of shortlists with the best, candidates on them.
    """
    true, n = measured.accuracies[FULL, 1.0].mean(axis=0), len(measured.names)
    found = []
    for number in range(N_SPLITS):
        generator = np.random.default_rng(derive_seed(0, "expecting", number))
        order = generator.permutation(n)
        fitted, asked = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        candidates = take_candidates(measured, asked, WAY, int(generator.integers(len(measured.accuracies[WAY]))))
        samples = expect(candidates, take(measured, fitted, WAY), WAY[1], derive_seed(0, "samples", number)).samples
        chances, of_asked = find_chances(samples), true[asked]
        listed, _ = choose_shortlist(samples, CONFIDENCE)
        best = int(of_asked.argmax())
        found.append(
            {
                "intervals hold": float(((of_asked >= chances.low) & (of_asked <= chances.high)).mean()),
                "width": 100 * float((chances.high - chances.low).mean()),
                "chance of the best": float(chances.best[best]),
                "lost by the first": 100 * float(of_asked.max() - of_asked[chances.expected.argmax()]),
                "shortlists hold": float(best in listed),
                "shortlist": float(len(listed)),
            }
        )
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def tabulate_expecting(of_each: Mapping[str, Measured]) -> list[str]:
    """Tabulates `rehearse` by accuracy and by loss, in Markdown.

    Args:
        of_each: What was measured, by the title of the data set.
    """
    lines = [
        "| data, ranked by | 90 % intervals hold | their width, points | chance given to the best | points lost by the first | shortlists hold the best | their mean size |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, measured in of_each.items():
        for score, of_score in (("accuracy", replace(measured, losses={})), ("loss", measured)):
            of = rehearse(of_score)
            lines.append(
                f"| {title}, by {score} | {100 * of['intervals hold']:.0f} % | {of['width']:.1f} | {100 * of['chance of the best']:.0f} % | {of['lost by the first']:.1f} | "
                f"{100 * of['shortlists hold']:.0f} % | {of['shortlist']:.1f} |"
            )
    return lines
