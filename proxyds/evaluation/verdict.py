"""From comparisons to a verdict in words: what is certain first, and what would settle the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from proxyds.artifact.evidence_records import ComparisonRecord, EstimateRecord, Verdict
from proxyds.artifact.ranking_table import (
    BY_ACCURACY,
    BY_BOTH,
    BY_LOSS,
    FEWER_EPOCHS,
    FLOPS,
    METHOD_LABELS,
    PARAMETERS,
    PROXY,
    RANDOM,
    WITH_PARAMETERS,
    RankedBy,
    Score,
)
from proxyds.evaluation.intervals import LeftOut, find_freedom, find_quantile, subtract

NEGLIGIBLE = 0.05
"""A gain in tau that is not worth having: «no better» means that no gain is certain, and the difference's upper end is below this."""
NEAR_CEILING = 0.1
"""A proxy preserves the ranking where its tau is surely not so far below the noise ceiling."""
MOST_TIMES = 100
"""So many times as many runs are as good as never."""

Outcome = Literal["better", "no better", "worse", "undecided"]


@dataclass(frozen=True)
class Rival:
    """A control that decides the verdict.

    Attributes:
        control: A data set or a free ranking.
        words: Its name within a sentence.
        verdict: What a proxy is called that is no better.
        worse: What it is called that is worse, where that has a name of its own.
        ranked_by: What both are ranked by.
        is_needed: Whether there is no verdict without it.
    """

    control: str
    words: str
    verdict: Verdict
    worse: Verdict | None = None
    ranked_by: RankedBy = BY_ACCURACY
    is_needed: bool = True


@dataclass(frozen=True)
class Compared:
    """The proxy against one control, with what is needed to say how it would be settled."""

    record: ComparisonRecord
    proxy: LeftOut
    control: LeftOut


_RANDOM = Rival(RANDOM, "random subsets of its size", "no better than random", "worse than random")
_FREE = {
    FLOPS: Rival(FLOPS, "counting FLOPs", "no better than counting FLOPs"),
    PARAMETERS: Rival(PARAMETERS, "counting parameters", "no better than counting parameters"),
}
_FEWER_EPOCHS = Rival(FEWER_EPOCHS, "fewer epochs on everything", "no better than fewer epochs")
_WITH_PARAMETERS = Rival(
    RANDOM, "random subsets, both ranked with parameters", "no better than random with parameters", is_needed=False
)


def judge(
    compared: Iterable[Compared],
    below_ceiling: EstimateRecord | None,
    n_in_space: int,
    *,
    ranked_by: Score = BY_ACCURACY,
    is_random: bool = False,
    has_own_epochs: bool = False,
) -> tuple[Verdict, str]:
    """Puts comparisons into words.

    What is certain comes first, against random, the better free ranking, fewer epochs, and random with parameters, in this order.

    Args:
        compared: The proxy at its own ratio with its controls.
        below_ceiling: By how much the proxy's tau is below the noise ceiling; None where that is unknown.
        n_in_space: Architectures of the search space.
        ranked_by: What candidates rank by.
        is_random: Whether the proxy's own samples are random, so that random samples are no rival.
        has_own_epochs: Whether a trainer trained for as long as it liked, so that fewer epochs are no rival.

    Returns:
        The verdict, and a sentence or two that say why.
    """
    of = {(each.record.control, each.record.ranked_by): each for each in compared}
    rivals = _list_rivals(of, ranked_by)
    if is_random:
        rivals = [each for each in rivals if each.control != RANDOM]
    if has_own_epochs:
        rivals = [replace(each, is_needed=False) if each.control == FEWER_EPOCHS else each for each in rivals]
    by_loss = ", ranked by loss," if ranked_by == BY_LOSS else ""
    found = [(each, of[each.control, each.ranked_by]) for each in rivals if (each.control, each.ranked_by) in of]
    for rival, against in found:
        if against.record.outcome == "worse":
            return rival.worse or rival.verdict, f"{_tell(rival, against)}: it is surely lower."
        if against.record.outcome == "no better":
            return rival.verdict, f"{_tell(rival, against)}: a gain of {NEGLIGIBLE} is ruled out."
    if missing := [each.words for each in rivals if each.is_needed and (each.control, each.ranked_by) not in of]:
        runs = "losses" if ranked_by == BY_LOSS else "runs"
        return "not enough evidence", f"There are no {runs} of {' or of '.join(missing)} to compare it with."
    if not found:
        return "not enough evidence", "There are no runs of other ways to rank that it could be compared with."
    for rival, against in found:
        if against.record.outcome == "undecided":
            return "not enough evidence", _tell_undecided(rival, against, n_in_space, is_random=is_random)
    differences = ", ".join(f"{against.record.difference.shown()} above {rival.words}" for rival, against in found)
    why = f"The proxy's Kendall tau{by_loss} is {differences}."
    if is_random:
        why += " Its own samples are random, so that random samples are no rival."
    if has_own_epochs:
        why += " Fewer epochs on everything were no rival: how long it trains is the trainer's own matter."
    if below_ceiling is None:
        return "ranks better than its controls", f"{why} The noise ceiling is unknown: train twice on everything."
    if below_ceiling.high is not None and below_ceiling.high < NEAR_CEILING:
        return "preserves the ranking", f"{why} It is {below_ceiling.shown()} below the noise ceiling."
    return (
        "ranks better than its controls",
        f"{why} It is {below_ceiling.shown()} below the noise ceiling; to preserve the ranking that must be surely less than {NEAR_CEILING}.",
    )


def find_outcome(difference: EstimateRecord) -> Outcome:
    """Says what an interval of a difference allows to say."""
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "no better" if difference.high < NEGLIGIBLE else "undecided"


def find_settling(
    gain: float, proxy: LeftOut, control: LeftOut, most: float = math.inf
) -> tuple[int | None, int | None]:
    """Finds how many architectures, or how many draws, would settle a comparison.

    The difference is taken to stay as it is. The variance of architectures falls with their number, that of draws and of
    single trainings with the number of draws.

    Args:
        gain: The difference of taus.
        proxy: The proxy's taus.
        control: The control's.
        most: Architectures that there are.

    Returns:
        The number of architectures alone, and of draws alone; None where these alone do not help.
    """
    difference = subtract(proxy, control)
    n, n_draws = proxy.n_architectures, len(proxy.values)
    of_trainings = min(proxy.noise_of_trainings + control.noise_of_trainings, difference.of_architectures)
    of_architectures_alone = difference.of_architectures - of_trainings
    room = max(gain, NEGLIGIBLE - gain)

    def is_settled(n_then: int, n_draws_then: int) -> bool:
        of_architectures = of_architectures_alone * n / n_then + of_trainings * n / n_then * n_draws / n_draws_then
        of_draws = difference.of_draws * n_draws / n_draws_then
        freedom = difference.freedom_of_draws * (n_draws_then - 1) / max(n_draws - 1, 1)
        doubt = (2 / (n_then * (n_then - 1))) ** 2
        quantile = find_quantile(find_freedom((of_architectures, math.inf), (of_draws, freedom)))
        return quantile**2 * (of_architectures + of_draws + doubt) <= room**2

    most_architectures = int(min(most, MOST_TIMES * n - 1))
    architectures = next((m for m in range(n + 1, most_architectures + 1) if is_settled(m, n_draws)), None)
    draws = next((d for d in range(n_draws + 1, MOST_TIMES * n_draws) if is_settled(n, d)), None)
    return architectures, draws


def _list_rivals(of: dict[tuple[str, RankedBy], Compared], ranked_by: Score) -> Sequence[Rival]:
    """Lists who decides: of the free rankings the better one, none where all architectures cost alike."""
    free = [rival for name, rival in _FREE.items() if of[name, ranked_by].record.difference.value is not None]
    best = sorted(free, key=lambda rival: of[rival.control, ranked_by].record.difference.value or 0.0)[:1]
    alone = [replace(each, ranked_by=ranked_by) for each in (_RANDOM, *best, _FEWER_EPOCHS)]
    return [*alone, replace(_WITH_PARAMETERS, ranked_by=WITH_PARAMETERS[ranked_by])]


def _tell(rival: Rival, against: Compared) -> str:
    by_loss = "" if rival.ranked_by in (BY_ACCURACY, BY_BOTH) else ", ranked by loss,"
    return f"The proxy's Kendall tau{by_loss} less that of {rival.words} is {against.record.difference.shown()}"


def _tell_undecided(rival: Rival, against: Compared, n_in_space: int, *, is_random: bool) -> str:
    """Says what is missing, or how many architectures or draws would settle it."""
    difference, n_draws = against.record.difference, len(against.proxy.values)
    if n_draws == 1:
        return "There is one draw of the proxy, so that nobody can tell its luck from its worth; check with 3 draws or more."
    told = f"{_tell(rival, against)}, which neither shows a gain nor rules out one of {NEGLIGIBLE}."
    if difference.value is None:
        return f"{told} Draws whose accuracies are all the same have no ranking: train longer, or on more samples."
    if difference.low is None:
        return f"{told} There is no interval: that takes 8 architectures, and 2 draws of {METHOD_LABELS[PROXY]} and control."
    architectures, draws = find_settling(difference.value, against.proxy, against.control, n_in_space)
    ways = []
    if architectures is not None:
        ways.append(f"about {architectures:,} architectures (here {against.proxy.n_architectures:,})")
    if draws is not None:
        ways.append(f"about {draws:,} draws (here {n_draws:,})")
    if not ways:
        return (
            f"{told} If it stays so, neither more draws nor all {n_in_space:,} architectures of the space settle it. Train longer, or give "
            f"the space choices that differ more{'' if is_random else '; or take random samples, which nobody has to choose'}."
        )
    return f"{told} If it stays so, {' or '.join(ways)} would settle it."
