"""From comparisons to a verdict: of made-up tables, of outcomes by hand, and what would settle the undecided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from proxyds.artifact.evidence_records import ComparisonRecord, EstimateRecord
from proxyds.artifact.manifest import DrawRecord
from proxyds.artifact.ranking_table import BY_ACCURACY, BY_BOTH, BY_LOSS, FEWER_EPOCHS, FULL, PROXY, RANDOM, STRATIFIED
from proxyds.evaluation.intervals import LeftOut, leave_out, subtract
from proxyds.evaluation.verdict import Compared, find_outcome, find_settling, judge
from tests.evaluation.made_up import COSTS, QUALITY, N, around, difference_to, everything, hopeless, rows_of, weigh

BETTER, NO_BETTER, WORSE, UNDECIDED = (0.3, 0.1, 0.5), (0.0, -0.1, 0.04), (-0.3, -0.5, -0.1), (0.1, -0.1, 0.3)
BOTH = (RANDOM, BY_BOTH)
FAR = (0.9, 0.8, 1.0)
NEAR = EstimateRecord(value=0.02, low=-0.05, high=0.09)


def test_a_good_proxy_beside_hopeless_controls_preserves_the_ranking() -> None:
    record = weigh(everything(proxy=np.array([QUALITY - 0.3] * 2), full=np.array([QUALITY] * 2)))
    assert record.of(PROXY, 0.1).statistics["tau"].value == pytest.approx(1)
    assert record.verdict == "preserves the ranking"
    for control in (RANDOM, "flops", FEWER_EPOCHS):
        against = difference_to(record, control)
        assert against.outcome == "better"
        assert against.difference.low > 0
        assert against.difference.shown() in record.explanation


def test_a_proxy_as_good_as_random_is_no_better_than_random() -> None:
    same = around(QUALITY - 0.3, 0.01, seed=2, repeats=6)
    record = weigh(everything(proxy=same, random=same))
    assert difference_to(record, RANDOM).difference.value == 0
    assert record.verdict == "no better than random"
    assert "random subsets" in record.explanation
    assert "ruled out" in record.explanation


def test_a_proxy_that_ranks_the_other_way_round_is_worse_than_random() -> None:
    record = weigh(everything(proxy=around(1 - QUALITY, 0.01, seed=2)))
    assert difference_to(record, RANDOM).outcome == "worse"
    assert record.verdict == "worse than random"
    assert "lower" in record.explanation


def test_a_proxy_that_ranks_as_cost_does_is_no_better_than_counting_flops() -> None:
    worth = np.arange(N)
    costs = 1000 + 10 * (worth + 5 * (worth % 3))  # related to quality, not the same
    rows = everything(proxy=np.array([costs / 5000, costs / 4000]), random=hopeless(3), costs=costs)
    record = weigh([{**row, "n_parameters": int(COSTS[int(row["architecture"][-2:])])} for row in rows])
    assert difference_to(record, RANDOM).outcome == "better"
    assert difference_to(record, "flops").difference.value == pytest.approx(0)
    assert record.verdict == "no better than counting FLOPs"
    assert "counting FLOPs" in record.explanation


def test_a_proxy_as_good_as_fewer_epochs_on_everything_is_no_better() -> None:
    same = around(QUALITY - 0.3, 0.01, seed=2, repeats=6)
    record = weigh(everything(proxy=same, fewer_epochs=same + 0.1))
    assert record.verdict == "no better than fewer epochs"
    assert "fewer epochs on everything" in record.explanation


@pytest.mark.parametrize(
    ("absent", "words"), [(RANDOM, "random subsets of its size"), (FEWER_EPOCHS, "fewer epochs on everything")]
)
def test_without_a_control_there_is_not_enough_evidence_and_it_is_named(absent: str, words: str) -> None:
    record = weigh([row for row in everything() if row["dataset"] != absent])
    assert record.verdict == "not enough evidence"
    assert words in record.explanation


def test_without_any_control_all_that_lack_runs_are_named() -> None:
    record = weigh([row for row in everything() if row["dataset"] in (FULL, PROXY)])
    assert record.verdict == "not enough evidence"
    assert "random subsets of its size" in record.explanation
    assert "fewer epochs on everything" in record.explanation
    assert "FLOPs" not in record.explanation


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.01, 0.4, "better"),
        (0.01, 0.04, "better"),
        (0.0, 0.4, "undecided"),
        (-0.1, 0.1, "undecided"),
        (-0.1, 0.05, "undecided"),
        (-0.1, 0.049, "no better"),
        (0.0, 0.0, "no better"),
        (-0.3, 0.0, "no better"),
        (-0.3, -0.01, "worse"),
        (None, None, "undecided"),
    ],
)
def test_an_interval_says_the_outcome_by_hand(low: float | None, high: float | None, outcome: str) -> None:
    assert find_outcome(EstimateRecord(value=0, low=low, high=high)) == outcome


def test_one_draw_decides_nothing() -> None:
    full, proxy = around(QUALITY, 0.001, seed=1, repeats=3), around(QUALITY, 0.001, seed=2, repeats=1)
    rows = rows_of(FULL, full) + rows_of(PROXY, proxy)
    for number, control in enumerate((RANDOM, STRATIFIED, FEWER_EPOCHS)):
        rows += rows_of(control, hopeless(number, repeats=1))
    found = weigh(rows)
    assert {each.outcome for each in found.comparisons} == {"undecided"}
    assert {each.difference.low for each in found.comparisons} == {None}
    assert found.verdict == "not enough evidence"
    assert "check with 3 draws or more" in found.explanation


@pytest.mark.parametrize("control", [RANDOM, STRATIFIED])
def test_a_control_with_one_draw_leaves_its_comparison_undecided(control: str) -> None:
    rows = [
        *rows_of(FULL, np.array([QUALITY] * 3), costs=COSTS),
        *rows_of(PROXY, around(QUALITY, 0.001, seed=2, repeats=3), costs=COSTS),
    ]
    for number, name in enumerate((RANDOM, STRATIFIED, FEWER_EPOCHS)):
        rows += rows_of(name, hopeless(number + 20, repeats=1 if name == control else 3), costs=COSTS)
    record = weigh(rows)
    outcomes = {each.control: each.outcome for each in record.comparisons if each.ranked_by == BY_ACCURACY}
    assert outcomes.pop(control) == "undecided"
    assert set(outcomes.values()) == {"better"}
    assert difference_to(record, control).difference.low is None
    expected = "preserves the ranking" if control == STRATIFIED else "not enough evidence"
    assert record.verdict == expected


def test_where_all_cost_the_same_free_rankings_take_no_part_in_the_verdict() -> None:
    rows = [{**row, "n_parameters": 9} for row in everything(costs=np.full(N, 1000))]
    record = weigh(rows)
    for free in ("flops", "parameters"):
        assert difference_to(record, free).difference.value is None
        assert difference_to(record, free).outcome == "undecided"
    assert record.verdict in ("preserves the ranking", "ranks better than its controls")
    assert "counting" not in record.explanation
    for random, verdict in ((WORSE, "worse than random"), (UNDECIDED, "not enough evidence")):
        every = [
            compared("flops", None),
            compared("parameters", None),
            compared(RANDOM, random),
            compared(FEWER_EPOCHS, BETTER),
            compared(*BOTH, BETTER),
        ]
        found, explanation = judge(every, NEAR, 1000)
        assert found == verdict
        assert "FLOPs" not in explanation


# -- by hand ----------------------------------------------------------------------------------------------------------


def left_out(values: Sequence[float], n: int = 20) -> LeftOut:
    """A statistic for each draw that no architecture changes."""
    return LeftOut(np.tile(np.array(values)[:, None], n + 1), n, n * (n - 1) // 2, has_common_draws=True)


def compared(control: str, *about: Any, ratio: float = 0.1, n_draws: int = 3) -> Compared:
    """A comparison with a control: what both are ranked by, if not by accuracy, and value, low and high or None."""
    *ranked_by, ends = about
    value, low, high = (None, None, None) if ends is None else ends
    difference = EstimateRecord(value=value, low=low, high=high)
    record = ComparisonRecord(
        control=control,
        ratio=ratio,
        ranked_by=ranked_by[0] if ranked_by else BY_ACCURACY,
        difference=difference,
        outcome=find_outcome(difference),
    )
    return Compared(record, left_out([0.5] * n_draws), left_out([0.5] * n_draws))


@pytest.mark.parametrize(
    ("random", "flops", "fewer", "both", "verdict"),
    [
        (BETTER, BETTER, BETTER, BETTER, "preserves the ranking"),
        (WORSE, BETTER, BETTER, BETTER, "worse than random"),
        (NO_BETTER, WORSE, WORSE, WORSE, "no better than random"),
        (BETTER, NO_BETTER, NO_BETTER, NO_BETTER, "no better than counting FLOPs"),
        (BETTER, WORSE, BETTER, BETTER, "no better than counting FLOPs"),
        (BETTER, BETTER, NO_BETTER, NO_BETTER, "no better than fewer epochs"),
        (BETTER, BETTER, WORSE, BETTER, "no better than fewer epochs"),
        (BETTER, BETTER, BETTER, NO_BETTER, "no better than random with parameters"),
        (BETTER, BETTER, BETTER, WORSE, "no better than random with parameters"),
        (UNDECIDED, NO_BETTER, BETTER, BETTER, "no better than counting FLOPs"),  # what is certain comes first
        (UNDECIDED, UNDECIDED, UNDECIDED, WORSE, "no better than random with parameters"),
        (UNDECIDED, BETTER, BETTER, BETTER, "not enough evidence"),
        (BETTER, UNDECIDED, BETTER, BETTER, "not enough evidence"),
        (BETTER, BETTER, UNDECIDED, BETTER, "not enough evidence"),
        (BETTER, BETTER, BETTER, UNDECIDED, "not enough evidence"),
        ("absent", BETTER, BETTER, BETTER, "not enough evidence"),
        (BETTER, BETTER, "absent", BETTER, "not enough evidence"),
        (BETTER, BETTER, BETTER, "absent", "preserves the ranking"),
        ("absent", WORSE, BETTER, BETTER, "no better than counting FLOPs"),
    ],
)
def test_a_verdict_says_first_what_is_certain(random: Any, flops: Any, fewer: Any, both: Any, verdict: str) -> None:
    about = ((RANDOM,), random), (("flops",), flops), ((FEWER_EPOCHS,), fewer), (BOTH, both)
    every = [compared(*way, found) for way, found in about if found != "absent"]
    others = [
        compared("parameters", FAR),
        compared("flops", BY_BOTH, WORSE),
        compared(STRATIFIED, WORSE),
    ]  # shown, but no part of the verdict
    for order in (every + others, (every + others)[::-1]):
        assert judge(order, NEAR, 1000)[0] == verdict


@pytest.mark.parametrize(
    ("flops", "parameters", "verdict"),
    [
        (BETTER, NO_BETTER, "no better than counting parameters"),
        (BETTER, WORSE, "no better than counting parameters"),
        (WORSE, NO_BETTER, "no better than counting FLOPs"),
        (UNDECIDED, BETTER, "not enough evidence"),
        (None, WORSE, "no better than counting parameters"),
        (BETTER, (0.2, 0.1, 0.4), "preserves the ranking"),
    ],
)
def test_the_better_free_ranking_decides(flops: Any, parameters: Any, verdict: str) -> None:
    rest = [compared(RANDOM, BETTER), compared(FEWER_EPOCHS, BETTER), compared(*BOTH, BETTER)]
    every = [compared("flops", flops), compared("parameters", parameters), *rest]
    assert judge(every, NEAR, 1000)[0] == verdict
    assert judge(every[::-1], NEAR, 1000)[0] == verdict


@pytest.mark.parametrize(
    ("below", "verdict"),
    [
        (NEAR, "preserves the ranking"),
        (EstimateRecord(value=-0.3, low=-0.5, high=-0.1), "preserves the ranking"),
        (EstimateRecord(value=0.02, low=-0.06, high=0.1), "ranks better than its controls"),
        (EstimateRecord(value=0.7, low=0.6, high=0.8), "ranks better than its controls"),
        (EstimateRecord(value=0.02, low=None, high=None), "ranks better than its controls"),
        (None, "ranks better than its controls"),
    ],
)
def test_only_what_is_surely_near_the_noise_ceiling_preserves_the_ranking(below: Any, verdict: str) -> None:
    every = [compared(each, BETTER) for each in (RANDOM, "flops", FEWER_EPOCHS)] + [compared(*BOTH, BETTER)]
    every.append(compared("parameters", FAR))
    found, explanation = judge(every, below, 1000)
    assert found == verdict
    assert "noise ceiling" in explanation


@pytest.mark.parametrize("random", [WORSE, NO_BETTER, UNDECIDED, BETTER, "absent"])
def test_samples_that_are_random_themselves_have_no_rival_in_random_ones(random: Any) -> None:
    rest = [compared("flops", BETTER), compared("parameters", FAR), compared(FEWER_EPOCHS, BETTER)]
    every = rest if random == "absent" else [compared(RANDOM, random), compared(*BOTH, random), *rest]
    found, explanation = judge(every, NEAR, 1000, is_random=True)
    assert found == "preserves the ranking"
    assert "no rival" in explanation
    worse = [each for each in every if each.record.control != FEWER_EPOCHS] + [compared(FEWER_EPOCHS, WORSE)]
    assert judge(worse, NEAR, 1000, is_random=True)[0] == "no better than fewer epochs"


@pytest.mark.parametrize(
    ("method", "version", "expected"),
    [
        ("cases", "2.0", "not enough evidence"),
        ("stratified", "2.0", "preserves the ranking"),
        ("random", "1.7", "not enough evidence"),
    ],
)
def test_a_proxy_of_random_samples_is_judged_by_the_rest(method: str, version: str, expected: str) -> None:
    rows = [row for row in everything() if row["dataset"] != RANDOM]
    draw = DrawRecord.model_construct(ratio=0.1, method=method)
    assert weigh(rows, draw=draw, format_version=version).verdict == expected


def test_what_ranks_by_loss_is_judged_by_its_losses_alone() -> None:
    controls = ("flops", "parameters", RANDOM, FEWER_EPOCHS)
    by_accuracy = [compared(each, WORSE) for each in controls]
    by_loss = [compared(each, BY_LOSS, BETTER) for each in controls]
    every = [*by_accuracy, *by_loss, compared(*BOTH, BETTER)]
    assert judge(every, NEAR, 1000)[0] == "worse than random"
    found, explanation = judge(every, NEAR, 1000, ranked_by=BY_LOSS)
    assert found == "preserves the ranking"
    assert "loss" in explanation
    worse = [*(compared(each, BETTER) for each in controls), compared(RANDOM, BY_LOSS, WORSE), *by_loss[:2], by_loss[3]]
    assert judge(worse, NEAR, 1000, ranked_by=BY_LOSS)[0] == "worse than random"
    lacking, why = judge([*by_accuracy, *by_loss[:3]], NEAR, 1000, ranked_by=BY_LOSS)
    assert lacking == "not enough evidence"
    assert "no losses of fewer epochs" in why


def test_where_nothing_is_left_to_compare_with_there_is_no_verdict() -> None:
    alike = [compared("flops", None), compared("parameters", None), compared(RANDOM, BETTER)]
    assert judge(alike, NEAR, 1000, is_random=True, has_own_epochs=True)[0] == "not enough evidence"


def test_a_trainer_with_epochs_of_its_own_has_no_rival_of_fewer_epochs_and_the_verdict_says_so() -> None:
    every = [compared(each, BETTER) for each in (RANDOM, "flops")] + [
        compared(*BOTH, BETTER),
        compared("parameters", FAR),
    ]
    assert judge(every, NEAR, 1000)[0] == "not enough evidence"
    found, explanation = judge(every, NEAR, 1000, has_own_epochs=True)
    assert found == "preserves the ranking"
    assert "fewer epochs" in explanation.lower()


def test_a_proxy_far_below_the_ceiling_that_beats_worse_controls_does_not_preserve_the_ranking() -> None:
    rng = np.random.default_rng(0)
    quality = rng.permutation(np.linspace(0.5, 0.9, 60))
    weak = [[0.05 * q + 0.05 * rng.normal() for q in quality] for _ in range(3)]
    against = [[-0.2 * q + 0.05 * rng.normal() for q in quality] for _ in range(3)]
    costs = np.argsort(np.argsort(-quality)) * 10 + 1000
    rows = everything(
        full=around(quality, 0.005, seed=1, repeats=3),
        proxy=np.array(weak) + 0.2 * quality * 0.2,
        random=np.array(against) + 0.5,
        fewer_epochs=np.array(against) + 0.5,
        costs=costs,
    )
    record = weigh(rows)
    assert record.of(FULL, None).statistics["tau"].value > 0.9
    assert 0.1 < record.of(PROXY, 0.1).statistics["tau"].value < 0.4
    assert record.below_ceiling.low > 0.3
    assert record.verdict == "ranks better than its controls"
    assert record.below_ceiling.shown() in record.explanation


def test_networks_at_chance_are_cautioned_whatever_the_verdict() -> None:
    chance = np.linspace(0.09, 0.11, N)
    record = weigh(everything(full=np.array([chance] * 2), proxy=np.array([chance] * 2)))
    assert "train longer" in record.caution
    assert "chance" in record.caution
    assert weigh(everything()).caution is None


def test_networks_near_100_percent_are_cautioned_against_training_longer() -> None:
    nearly = np.linspace(0.98, 1.0, N)
    record = weigh(everything(full=np.array([nearly] * 2), proxy=np.array([nearly] * 2)))
    assert "train shorter" in record.caution
    assert "train longer" not in record.caution


# -- what would settle it ---------------------------------------------------------------------------------------------


def two_sets(rng: np.random.Generator, n: int, n_draws: int) -> tuple[LeftOut, LeftOut]:
    """Means over n architectures of two sets, the first 0.1 above, with noise of draws, architectures and trainings."""
    counts = leave_out(n, in_pairs=False)
    weights = (counts / counts.sum(axis=1, keepdims=True)).T
    found = []
    for gain in (0.1, 0.0):
        noise = 0.03 * rng.normal(size=(n_draws, 1)) + 0.3 * rng.normal(size=(1, n))
        x = gain + noise + 0.5 * rng.normal(size=(n_draws, n))
        found.append(LeftOut(x @ weights, n, n * (n - 1) // 2, has_common_draws=True))
    return found[0], found[1]


@pytest.mark.parametrize("which", ["architectures", "draws"])
def test_at_the_number_that_settles_the_lower_end_is_near_0(which: str) -> None:
    rng = np.random.default_rng(5)
    n, n_draws = (20, 3) if which == "architectures" else (60, 3)
    found = [find_settling(0.1, *two_sets(rng, n, n_draws))[which == "draws"] for _ in range(20)]
    number = int(np.median([each for each in found if each is not None]))
    settled = (number, n_draws) if which == "architectures" else (n, number)
    assert settled > (n, n_draws)
    lows = [subtract(*two_sets(rng, *settled)).as_difference().low for _ in range(60)]
    assert np.mean(lows) == pytest.approx(0, abs=0.03)


def test_what_would_settle_a_comparison_by_hand() -> None:
    # draws alone differ: variance 0.01 / 2 each, together 0.01, that of d draws 0.02 / d; no architectures help
    apart = left_out([0.4, 0.5414213562])
    # with 2 (d - 1) degrees of freedom: t² (0.02 / d + (1 / 190)²) <= 0.1², of d = 9 it is .0101, of 10 .0090
    assert find_settling(0.1, apart, apart) == (None, 10)
    # no gain: one of 0.05 must be ruled out, of d = 33 it is .00253, of 34 .00246
    assert find_settling(0.0, apart, apart) == (None, 34)
    # never as few as there are
    assert find_settling(9.0, apart, apart) == (21, 3)


def explain(random: Any, n_in_space: int, **about: Any) -> str:
    rest = [
        compared("flops", BETTER),
        compared("parameters", FAR),
        compared(FEWER_EPOCHS, BETTER),
        compared(*BOTH, BETTER),
    ]
    verdict, explanation = judge([compared(RANDOM, random, **about), *rest], NEAR, n_in_space)
    assert verdict == "not enough evidence"
    return explanation


def test_an_undecided_verdict_says_how_many_would_settle_it_if_the_space_has_as_many() -> None:
    rng = np.random.default_rng(6)
    pairs = (two_sets(rng, 20, 3) for _ in range(50))
    proxy, control = next(pair for pair in pairs if find_settling(0.1, *pair)[0] is not None)
    record = compared(RANDOM, (0.1, -0.1, 0.3)).record
    rest = [
        compared("flops", BETTER),
        compared("parameters", FAR),
        compared(FEWER_EPOCHS, BETTER),
        compared(*BOTH, BETTER),
    ]
    needed, _ = find_settling(0.1, proxy, control)
    for n_in_space, is_named in ((needed, True), (needed - 1, False)):
        verdict, explanation = judge([Compared(record, proxy, control), *rest], NEAR, n_in_space)
        assert verdict == "not enough evidence"
        assert "0.10 [-0.10, 0.30]" in explanation
        assert (f"about {needed:,} architectures (here 20)" in explanation) == is_named


def test_a_comparison_without_an_interval_or_a_value_says_what_it_takes() -> None:
    assert "8 architectures" in explain((0.1, None, None), 1000)
    assert "the same" in explain(None, 1000)
    assert "3 draws or more" in explain((0.1, None, None), 1000, n_draws=1)
