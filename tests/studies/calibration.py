"""Whether the chances of `proxyds rank` come true, on the committed rows of the first study: `make calibration`.

Half of the study's architectures, at random, stand for those of a check; the others are candidates with one training each on
one draw. What is expected of them is compared with what they had on everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from proxyds.artifact.ranking_table import (
    FEWER_EPOCHS,
    FULL,
    Measured,
    best_first,
    collect_accuracies,
)
from proxyds.evaluation.decision.ranking import CONFIDENCE, expect
from proxyds.evaluation.decision.rehearsal import take, take_candidates
from proxyds.evaluation.decision.shortlist import choose_shortlist, find_chances
from proxyds.evaluation.rank_metrics import Floats
from proxyds.recipe.yaml import read_recipe
from proxyds.seeding import derive_seed
from proxyds.space.architecture import Architecture
from proxyds.space.listing import list_architectures
from tests.studies import parts
from tests.studies.rows import read_rows
from tests.studies.weighing import make_table

RESULTS = Path(__file__).parent.parent.parent / "docs" / "calibration"
N_SPLITS = 200
STUDIES = {"cifar10": 10, "cifar100": 100}
"""Studies whose rows are taken, with how many labels."""
MIN_RATIO = 0.05
BUDGETS = (0.05, 0.1)
"""Shares of the epochs on everything that successive halving trains for."""


@dataclass(frozen=True)
class Split:
    """What came of one half.

    Attributes:
        study: Whose rows.
        method: How samples were chosen.
        ratio: Their share.
        number: Of the split.
        n_held: Candidates whose accuracy lies in its 90 % interval.
        n_candidates: How many there are.
        width: Mean width of the intervals, in points.
        chance_of_best: What the best candidate was given.
        claimed: The chance that the shortlist says of itself.
        has_best: Whether the shortlist holds the best.
        n_listed: Candidates on the shortlist.
        lost_by_list: Points lost by training the shortlist on everything and taking its best.
        lost_by_first: By taking the first of what is expected.
        lost_by_accuracy: By taking the first on the proxy.
        lost_by_three: By training the three first on the proxy on everything.
        list_cost: Of ranking and the shortlist, as a share of training all candidates on everything.
        three_cost: Of ranking and three.
        halving_cost: Of successive halving on everything; NaN where there are no rows of it.
        lost_by_halving: What that loses.
    """

    study: str
    method: str
    ratio: float
    number: int
    n_held: int
    n_candidates: int
    width: float
    chance_of_best: float
    claimed: float
    has_best: bool
    n_listed: int
    lost_by_list: float
    lost_by_first: float
    lost_by_accuracy: float
    lost_by_three: float
    list_cost: float
    three_cost: float
    halving_cost: float
    lost_by_halving: float


Bins = dict[int, list[float]]
"""By tenth of the chance: how many candidates, the sum of their chances, how many were the best."""


def read_study(name: str) -> tuple[Measured, list[Architecture]]:
    """Reads a study's accuracies, and its architectures."""
    recipe = read_recipe(Path(__file__).parent / f"{name}.yaml")
    architectures = list_architectures(recipe.space, STUDIES[name], (3, 16, 16), seed=recipe.seed)
    rows = read_rows(parts.RESULTS / name / "rows.csv")
    return collect_accuracies(make_table(rows, architectures)), architectures


def list_ways(measured: Measured) -> Iterator[tuple[str, float]]:
    """Lists what is ranked on: methods and ratios of 5 and 10 %."""
    for method, ratio in measured.accuracies:
        if method != FULL and ratio >= MIN_RATIO:
            yield method, ratio


def rehearse(study: str, measured: Measured, cost: Floats, way: tuple[str, float], number: int, bins: Bins) -> Split:
    """Ranks one half of the architectures by what the other half tells.

    Args:
        study: Its name.
        measured: All accuracies.
        cost: (n,) of a training on everything.
        way: What is ranked on.
        number: Of the split.
        bins: The chances of candidates are added here.
    """
    generator = np.random.default_rng(derive_seed(0, "calibration", study, number))
    order = generator.permutation(len(measured.names))
    fitted, asked = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    repeat = int(generator.integers(len(measured.accuracies[way])))
    on_proxy = measured.accuracies[way][repeat][asked]
    candidates = take_candidates(measured, asked, way, repeat)
    expected = expect(candidates, take(measured, fitted, way), way[1], derive_seed(0, "samples", study, number))
    chances = find_chances(expected.samples)
    true = measured.accuracies[FULL, 1.0].mean(axis=0)[asked]
    best = int(true.argmax())
    for position, chance in enumerate(chances.best):
        of = bins.setdefault(min(int(10 * chance), 9), [0, 0.0, 0])
        of[0], of[1], of[2] = of[0] + 1, of[1] + float(chance), of[2] + (position == best)
    (listed, claimed), first = choose_shortlist(expected.samples, CONFIDENCE), int(best_first(chances.expected)[0])
    by_accuracy = best_first(on_proxy)
    full = measured.accuracies[FULL, 1.0][:, asked]
    one, judge = full[0], full[1:].mean(axis=0)  # one training on everything chooses among the kept, others judge

    def lose(kept: NDArray[np.int64]) -> float:
        chosen = kept[int(one[kept].argmax())]
        return 100 * float(judge.max() - judge[chosen])

    def pay(kept: NDArray[np.int64]) -> float:
        return way[1] + float(cost[asked][kept].sum() / cost[asked].sum())

    halving_cost, halved = halve(measured, cost, asked, generator)
    return Split(
        study,
        *way,
        number,
        n_held=int(((true >= chances.low) & (true <= chances.high)).sum()),
        n_candidates=len(asked),
        width=round(100 * float((chances.high - chances.low).mean()), 3),
        chance_of_best=round(float(chances.best[best]), 4),
        claimed=round(claimed, 4),
        has_best=best in listed,
        n_listed=len(listed),
        lost_by_list=round(lose(listed), 3),
        lost_by_first=round(lose(np.array([first])), 3),
        lost_by_accuracy=round(lose(by_accuracy[:1]), 3),
        lost_by_three=round(lose(by_accuracy[:3]), 3),
        list_cost=round(pay(listed), 4),
        three_cost=round(pay(by_accuracy[:3]), 4),
        halving_cost=round(halving_cost, 4),
        lost_by_halving=round(lose(halved), 3) if len(halved) else float("nan"),
    )


def halve(
    measured: Measured, cost: Floats, asked: NDArray[np.int64], generator: np.random.Generator
) -> tuple[float, NDArray[np.int64]]:
    """Halves candidates after each budget of fewer epochs on everything, down to three that are trained in full; see `search_cost`.

    Returns:
        What it costs as a share of training all candidates on everything, and the positions of the three; NaN and none without rows.
    """
    if any((FEWER_EPOCHS, budget) not in measured.accuracies for budget in BUDGETS):
        return float("nan"), np.array([], np.int64)
    kept, paid = np.arange(len(asked)), 0.0
    for budget in BUDGETS:
        repeats = measured.accuracies[FEWER_EPOCHS, budget]
        paid += budget * float(cost[asked][kept].sum())
        n_left = 3 if budget == BUDGETS[-1] else max(3, len(kept) // 2)
        kept = kept[best_first(repeats[int(generator.integers(len(repeats)))][asked][kept])[:n_left]]
    return (paid + float(cost[asked][kept].sum())) / float(cost[asked].sum()), kept


def tabulate(splits: Sequence[Split], bins: Mapping[tuple[str, str, float], Bins]) -> str:
    """Writes the page in Markdown."""
    ways = list(dict.fromkeys((each.study, each.method, each.ratio) for each in splits))
    of = {way: [each for each in splits if (each.study, each.method, each.ratio) == way] for way in ways}

    def mean(name: str, those: Sequence[Split]) -> float:
        values = np.array([getattr(each, name) for each in those], float)
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")

    def held(those: Sequence[Split]) -> float:
        return sum(each.n_held for each in those) / sum(each.n_candidates for each in those)

    def sizes(those: Sequence[Split]) -> str:
        return f"{np.median([each.n_listed for each in those]):.0f}"

    def share(value: float) -> str:
        return "–" if np.isnan(value) else f"{100 * value:.0f} %"

    def points(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:.2f}"

    lines = [
        "# Do the chances of `proxyds rank` come true?",
        "",
        f"`make calibration` makes this page from the committed rows of the first study. {N_SPLITS} times, half of its 24 architectures stand for those",
        "of a check, and the other half are candidates. Each candidate was trained once on a subset. The ranking says what to expect of it on",
        "everything; its accuracy there, the mean of three trainings, tells whether that was right.",
        "",
        "## Intervals and shortlists",
        "",
        "An interval of 90 % should hold nine accuracies of ten. A shortlist says with which chance it holds the best candidate: 90 % or more, since its",
        "last candidate takes it above that. All splits share their 24 architectures, so that a row's figures vary by more",
        f"than {N_SPLITS} independent splits would. The form of the model was chosen on these rows, its coefficients never on those that judge.",
        "",
        "| data | samples | ratio | intervals hold | width, points | chance given to the best | shortlist says | holds the best | its median size |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {study} | {method} | {ratio:g} | {share(held(of[study, method, ratio]))} | {mean('width', of[study, method, ratio]):.1f} | "
        f"{share(mean('chance_of_best', of[study, method, ratio]))} | {share(mean('claimed', of[study, method, ratio]))} | {share(mean('has_best', of[study, method, ratio]))} | {sizes(of[study, method, ratio])} |"
        for study, method, ratio in ways
    ]
    lines += [
        f"| all | | | {share(held(splits))} | {mean('width', splits):.1f} | {share(mean('chance_of_best', splits))} | {share(mean('claimed', splits))} | {share(mean('has_best', splits))} | {sizes(splits)} |",
        "",
        "## Chances to be the best",
        "",
        "Candidates by the chance that they were given. «Were the best» should be near the mean chance.",
        "",
        "| chance | candidates | mean chance | were the best |",
        "|---|---|---|---|",
    ]
    for number in range(10):
        rows = [each[number] for each in bins.values() if number in each]
        n, total, right = (sum(row[i] for row in rows) for i in range(3))
        if n:
            lines.append(
                f"| {10 * number} to {10 * number + 10} % | {n:,.0f} | {share(total / n)} | {share(right / n)} |"
            )
    lines += [
        "",
        "## What it saves",
        "",
        "Accuracy that is lost, in points, and what is paid, as a share of training all twelve candidates on everything. Choosing the samples is not",
        "counted, nor is the check that the shortlist rests on: it costs more than training these twelve candidates, and serves all that are ranked later.",
        "One training on everything chooses among those that are kept, and the mean of the others says what was lost.",
        "«Halving» is successive halving on everything, down to three; CIFAR-100 has no rows of it.",
        "",
        "| data | samples | ratio | lost: first on the proxy | first of what is expected | three first on the proxy | shortlist | halving | paid: three | shortlist | halving |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lost, paid = (
        ("lost_by_accuracy", "lost_by_first", "lost_by_three", "lost_by_list", "lost_by_halving"),
        ("three_cost", "list_cost", "halving_cost"),
    )
    for way in (*ways, None):
        those = splits if way is None else of[way]
        told = "all | | " if way is None else f"{way[0]} | {way[1]} | {way[2]:g} "
        cells = [*(points(mean(name, those)) for name in lost), *(share(mean(name, those)) for name in paid)]
        lines.append(f"| {told}| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


@click.command(help=__doc__)
def main() -> None:
    """Rehearses every way to rank, and writes the page."""
    started = time.monotonic()
    splits: list[Split] = []
    bins: dict[tuple[str, str, float], Bins] = {}
    for study in STUDIES:
        measured, architectures = read_study(study)
        by_name = {each.name: float(each.training_flops) for each in architectures}
        cost = np.array([by_name[name] for name in measured.names])
        for way in list_ways(measured):
            of_way: Bins = bins.setdefault((study, *way), {})
            splits += [rehearse(study, measured, cost, way, number, of_way) for number in range(N_SPLITS)]
            print(f"{time.monotonic() - started:.0f} s: {study} {way[0]} {way[1]:g}", flush=True)
    RESULTS.with_suffix(".md").write_text(tabulate(splits, bins), encoding="utf-8")


if __name__ == "__main__":
    main()
