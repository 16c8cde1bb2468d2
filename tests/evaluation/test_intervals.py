"""Estimates with intervals: the jackknife, draws, Wilson's ends, against double loops and by hand."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from proxyds.artifact.ranking_table import STATISTICS
from proxyds.evaluation.intervals import (
    CORRECTED_SHARE,
    MAX_IN_PAIRS,
    Estimate,
    LeftOut,
    compare_repeats,
    compare_seeds,
    find_freedom,
    jackknife,
    least_variance,
    leave_out,
    make_record,
    other_seeds,
    subtract,
)
from proxyds.evaluation.rank_metrics import kendall_tau
from tests.evaluation.made_up import taus
from tests.studies.weighing import average


def test_the_reference_of_a_seed_is_the_mean_of_the_others() -> None:
    full = np.array([[0.1, 0.2], [0.3, 0.6], [0.8, 0.1]])
    np.testing.assert_allclose(other_seeds(full), [[0.55, 0.35], [0.45, 0.15], [0.2, 0.4]])


def test_the_reference_of_one_seed_is_itself() -> None:
    assert other_seeds(np.array([[0.1, 0.2]])).tolist() == [[0.1, 0.2]]


def test_the_reference_of_two_seeds_is_exactly_the_other() -> None:
    full = np.array([[0.3, 0.9, 0.5, 0.7], [0.1, 0.1, 0.2, 0.3]])
    assert other_seeds(full).tolist() == full[::-1].tolist()


def test_architectures_that_the_other_seeds_measure_alike_stay_tied() -> None:
    # counts of 360 test samples; the first seed tells two architectures apart, the others do not
    full = np.array([[300, 310, 320, 330, 340, 333, 311, 307], [301] * 8, [317] * 8, [333] * 8]) / 360
    assert np.ptp(other_seeds(full)[0]) == 0


def test_architectures_with_as_many_right_answers_over_the_other_seeds_are_tied() -> None:
    right = np.random.default_rng(0).integers(300, 330, (3, 40))
    references = other_seeds(right / 360)
    for seed, reference in enumerate(references):
        answers = np.delete(right, seed, axis=0).sum(axis=0)
        expected = np.sign(answers[:, None] - answers[None, :])
        assert (np.sign(reference[:, None] - reference[None, :]) == expected).all()


# -- variance by architectures ----------------------------------------------------------------------------------------


def test_all_then_all_but_one_then_all_but_two_are_counted() -> None:
    assert leave_out(3, in_pairs=False).tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert leave_out(3, in_pairs=True)[4:].tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert leave_out(9, in_pairs=True).shape == (1 + 9 + 36, 9)


@pytest.mark.parametrize("in_pairs", [False, True])
def test_the_jackknife_of_a_mean_is_the_variance_over_n(in_pairs: bool) -> None:
    values = np.random.default_rng(0).normal(size=12)
    included = leave_out(12, in_pairs=in_pairs)
    means = included @ values / included.sum(axis=1)
    assert jackknife(means, 12) == pytest.approx(values.var(ddof=1) / 12)


def test_the_jackknife_of_a_statistic_of_pairs_is_a_double_loops_with_a_third_of_efron_and_steins_correction() -> None:
    rng = np.random.default_rng(1)
    n, reference = 9, np.arange(9.0)
    measured = reference + rng.normal(size=n) * 3

    def tau_without(*left_out: int) -> float:
        return taus(np.delete(reference, left_out), np.delete(measured, left_out))

    whole, single = tau_without(), [tau_without(i) for i in range(n)]
    plain = (n - 1) / n * sum((each - np.mean(single)) ** 2 for each in single)
    of_pairs = [
        n * whole - (n - 1) * (single[i] + single[j]) + (n - 2) * tau_without(i, j)
        for i, j in combinations(range(n), 2)
    ]
    correction = sum((each - np.mean(of_pairs)) ** 2 for each in of_pairs) / (n * (n - 1))
    assert 0 < correction < plain
    included = leave_out(n, in_pairs=True)
    values = kendall_tau(reference, measured, included)
    assert jackknife(values, n) == pytest.approx(plain - correction / 3)
    assert jackknife(values[: n + 1], n) == pytest.approx(plain)
    assert pytest.approx(1 / 3) == CORRECTED_SHARE


def test_the_jackknife_is_never_below_zero_and_none_where_a_value_is_missing() -> None:
    assert math.isnan(jackknife(np.array([0.5]), 9))
    assert math.isnan(jackknife(np.array([0.5, 0.5, math.nan, 0.5]), 3))
    assert jackknife(np.array([1.0, 1, 1, 1, 0, 3, 0]), 3) == 0


def test_the_least_variance_is_that_of_a_pair_over_the_number_of_pairs() -> None:
    rng = np.random.default_rng(2)
    n, reference = 9, np.arange(9.0)
    measured = reference + rng.normal(size=n) * 3
    signs = [np.sign(measured[j] - measured[i]) for i, j in combinations(range(n), 2)]
    values = kendall_tau(reference, measured, leave_out(n, in_pairs=True))
    assert least_variance(values, n) == pytest.approx(np.var(signs, ddof=1) / 36)
    assert least_variance(values[: n + 1], n) == 0


def test_an_order_with_one_swap_for_each_architecture_has_the_interval_of_independent_pairs() -> None:
    order = np.arange(12.0)
    swapped = order.reshape(6, 2)[:, ::-1].ravel()
    found = compare_repeats(order[None], swapped[None], np.zeros(1, int), order, "tau", has_common_draws=False)
    # leaving out any one changes tau alike, so that the jackknife sees no variance; 6 of 66 pairs are -1, the others 1
    assert jackknife(found.mean, 12) == pytest.approx(0)
    assert found.estimate().of_architectures == pytest.approx((1 - (54 / 66) ** 2) / 65)
    interval = found.estimate().as_agreement()
    assert interval.low == pytest.approx(0.59, abs=0.02)
    assert interval.high == pytest.approx(0.92, abs=0.02)
    same = subtract(found, found)
    assert same.of_architectures == pytest.approx(0)


def test_with_many_architectures_no_pair_is_left_out() -> None:
    for n, n_values in ((MAX_IN_PAIRS, 1 + 64 + 64 * 63 // 2), (MAX_IN_PAIRS + 1, 1 + 65)):
        values = np.arange(float(n))
        found = compare_repeats(values[None], values[None], np.zeros(1, int), values, "tau")
        assert found.values.shape == (1, n_values)
    nine = np.arange(9.0)
    for name, n_values in (("tau", 46), ("spearman", 10), ("regret", 1), ("tau_weighted", 1)):
        found = compare_repeats(nine[None], nine[None], np.zeros(1, int), nine, name)
        assert found.values.shape == (1, n_values)


# -- variance by draws ------------------------------------------------------------------------------------------------


def of_means(x: np.ndarray, *, has_common_draws: bool = True) -> LeftOut:
    """The mean over architectures of (D, n), as a statistic for each draw."""
    n = x.shape[1]
    included = leave_out(n, in_pairs=False)
    return LeftOut(x @ (included / included.sum(axis=1, keepdims=True)).T, n, n * (n - 1) // 2, has_common_draws)


def test_noise_of_trainings_is_that_around_the_means_over_draws_by_hand() -> None:
    # around the means of architectures, 2 and 4, are -1 and 1 in the first draw, 1 and -1 in the second
    found = of_means(np.array([[1.0, 5.0], [3.0, 3.0]]))
    of_each = 2 / 2  # s²/n of (-1, 1)
    assert found.noise_of_trainings == pytest.approx(2 * of_each / (1 * 2))
    assert of_means(np.array([[1.0, 5.0]])).noise_of_trainings == 0


def test_excess_of_draws_is_their_variance_less_the_noise_of_trainings_by_hand() -> None:
    apart = of_means(np.array([[0.1, 0.3], [0.4, 0.6], [0.7, 0.9]]))  # no noise: 0.09 / 3
    assert apart.noise_of_trainings == pytest.approx(0)
    assert apart.excess_of_draws == pytest.approx(0.03)
    assert apart.estimate().of_draws == pytest.approx(0.03)
    alike = of_means(np.array([[1.0, 5.0], [3.0, 3.0]]))
    assert alike.excess_of_draws == pytest.approx(-1)
    assert alike.estimate().of_draws == 0


def test_one_draw_has_no_excess_and_what_is_not_drawn_has_none_to_add() -> None:
    one = np.array([[0.1, 0.3, 0.2]])
    assert math.isnan(of_means(one).excess_of_draws)
    assert math.isnan(of_means(one).estimate().of_draws)
    assert of_means(one, has_common_draws=False).excess_of_draws == 0
    assert of_means(np.array([[0.1, 0.3], [0.8, 0.9]]), has_common_draws=False).excess_of_draws == 0


def test_excess_of_draws_is_what_all_architectures_of_a_draw_share() -> None:
    rng = np.random.default_rng(2)
    excess, whole = [], []
    for _ in range(600):
        x = 0.3 * rng.normal(size=(3, 1)) + rng.normal(size=(1, 10)) + 0.5 * rng.normal(size=(3, 10))
        estimated = of_means(x)
        excess.append(estimated.excess_of_draws)
        whole.append(estimated.estimate().of_architectures + estimated.excess_of_draws)
    assert np.mean(excess) == pytest.approx(0.09 / 3, abs=0.005)
    assert np.mean(whole) == pytest.approx(0.09 / 3 + 1 / 10 + 0.25 / 30, abs=0.01)  # the variance of the mean


# -- from variances to intervals --------------------------------------------------------------------------------------


def test_an_agreement_has_wilsons_ends_by_hand() -> None:
    found = Estimate(0.5, 0.01, 0.0, math.inf, 20, 190).as_agreement()
    # t of 19 degrees is 2.093; half a pair of 190 is in doubt: k = 2.093² (0.01 + 0.5/190²) / (0.75 + 0.5/190) = 0.0583
    assert found.value == 0.5
    assert found.low == pytest.approx(0.2674, abs=1e-4)
    assert found.high == pytest.approx(0.6776, abs=1e-4)
    for end in (found.low, found.high):  # Wilson's equation: so many standard errors of the end itself away
        assert (0.5 - end) ** 2 == pytest.approx(0.058286 * (1 - end**2), rel=1e-3)


def test_perfect_agreement_has_an_interval_that_is_no_point_by_hand() -> None:
    found = Estimate(1.0, 0.0, 0.0, math.inf, 20, 190).as_agreement()
    k = stats.t.ppf(0.975, 19) ** 2 / 190
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx((1 - k) / (1 + k))
    opposite = Estimate(-1.0, 0.0, 0.0, math.inf, 20, 190).as_agreement()
    assert (opposite.low, opposite.high) == (-1, pytest.approx(-found.low))


@pytest.mark.parametrize("n", [8, 20, 200])
@pytest.mark.parametrize("value", [-1, -0.97, -0.2, 0, 0.5, 0.99, 1])
@pytest.mark.parametrize("variance", [0, 1e-4, 0.02, 3])
def test_an_agreements_interval_stays_within_its_bounds_and_holds_the_value(
    n: int, value: float, variance: float
) -> None:
    found = Estimate(value, variance / 2, variance / 2, math.inf, n, n * (n - 1) // 2).as_agreement()
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_a_difference_has_a_normal_interval_and_a_gap_a_wider_one_by_hand() -> None:
    estimate = Estimate(0.3, 0.01, 0.0, math.inf, 20, 190)
    deviation = math.sqrt(0.01 + 1 / 190**2)
    found, gap = estimate.as_difference(), estimate.as_gap()
    assert (found.low, found.high) == pytest.approx((0.3 - 1.95996 * deviation, 0.3 + 1.95996 * deviation), abs=1e-5)
    assert (gap.low, gap.high) == pytest.approx((0.3 - 2.09302 * deviation, 0.3 + 2.09302 * deviation), abs=1e-5)


@pytest.mark.parametrize("of_draws", [0.0, 1e-4, 0.001, 0.01, 1.0])
@pytest.mark.parametrize("freedom", [1, 4, math.inf])
def test_an_interval_is_never_narrower_than_one_of_as_much_variance_by_architectures(
    of_draws: float, freedom: float
) -> None:
    given = Estimate(0.3, 0.01, of_draws, freedom, 12, 66)
    plain = Estimate(0.3, 0.01 + of_draws, 0.0, math.inf, 12, 66)
    for how in ("as_agreement", "as_difference", "as_gap"):
        one, other = getattr(given, how)(), getattr(plain, how)()
        assert one.low <= other.low
        assert one.high >= other.high


def test_few_draws_that_differ_widen_an_interval_by_satterthwaites_freedom_by_hand() -> None:
    # (.01 + .01)² / (.01² / 19 + .01² / 2) = 4 / (1/19 + 1/2) = 7.238 degrees, whose t is 2.348; without that of architectures 8: 2.306
    estimate = Estimate(0.3, 0.01, 0.01, 2, 20, 190)
    deviation = math.sqrt(0.02 + 1 / 190**2)
    assert estimate.as_gap().high == pytest.approx(0.3 + 2.3484 * deviation, abs=1e-4)
    assert estimate.as_difference().high == pytest.approx(0.3 + 2.3060 * deviation, abs=1e-4)
    assert find_freedom((0.0, 3), (0.0, math.inf)) == 3
    assert find_freedom((0.2, math.inf), (0.0, 2)) == math.inf
    assert find_freedom((0.2, 4), (0.2, 4)) == pytest.approx(8)


@pytest.mark.parametrize(
    "estimate",
    [
        Estimate(0.5, 0.01, 0.0, math.inf, 7, 21),  # too few architectures
        Estimate(0.5, 0.01, math.nan, math.inf, 20, 190),  # one draw
        Estimate(0.5, math.nan, 0.0, math.inf, 20, 190),
        Estimate(0.5, 0.01, 0.0, math.inf, 20, 0),  # no pairs of like cost
        Estimate(math.nan, math.nan, 0.0, math.inf, 20, 190),
    ],
)
def test_what_is_unknown_gives_no_interval(estimate: Estimate) -> None:
    records = [estimate.as_agreement(), *([estimate.as_difference(), estimate.as_gap()] if estimate.n_pairs else [])]
    for record in records:
        assert record.value == (None if math.isnan(estimate.value) else 0.5)
        assert (record.low, record.high) == (None, None)


def test_records_are_rounded_and_hold_what_is_finite() -> None:
    found = make_record(0.9999999999999998, -math.inf, math.nan)
    assert (found.value, found.low, found.high) == (1, None, None)


# -- several together -------------------------------------------------------------------------------------------------


def test_a_difference_turned_round_is_its_negative() -> None:
    rng = np.random.default_rng(3)
    one, other = of_means(rng.normal(size=(3, 9))), of_means(rng.normal(size=(2, 9)))
    there, back = subtract(one, other), subtract(other, one)
    assert there.value == pytest.approx(float(one.mean[0] - other.mean[0]))
    assert back.value == pytest.approx(-there.value)
    assert (back.of_architectures, back.of_draws) == pytest.approx((there.of_architectures, there.of_draws))


def test_what_two_have_in_common_is_not_in_their_difference() -> None:
    x = np.random.default_rng(4).normal(size=(3, 9))
    found = subtract(of_means(x), of_means(x + 0.25))
    assert found.value == pytest.approx(-0.25)
    assert found.of_architectures == pytest.approx(0, abs=1e-15)


def test_an_average_of_two_has_a_quarter_of_their_summed_variances() -> None:
    found = average([Estimate(0.2, 0.04, 0.01, math.inf, 20, 190), Estimate(0.6, 0.08, 0.03, math.inf, 10, 45)])
    assert found.value == pytest.approx(0.4)
    assert (found.of_architectures, found.of_draws) == pytest.approx((0.03, 0.01))
    assert (found.n_architectures, found.n_pairs) == (30, 235)


def test_repeats_are_averaged_over_every_reference_as_a_double_loop_does() -> None:
    rng = np.random.default_rng(0)
    references, measured, cost = rng.random((3, 9)), rng.random((2, 9)), rng.uniform(100, 130, 9)
    found = {name: compare_repeats(references, measured, np.arange(2), cost, name) for name in STATISTICS}
    value = {name: float(of.mean[0]) for name, of in found.items()}
    every = list(product(references, measured))
    assert value["tau"] == pytest.approx(np.mean([taus(x, y) for x, y in every]))
    assert value["spearman"] == pytest.approx(np.mean([stats.spearmanr(x, y).statistic for x, y in every]))
    assert value["pearson"] == pytest.approx(np.mean([stats.pearsonr(x, y).statistic for x, y in every]))
    assert value["same_best"] == pytest.approx(np.mean([x.argmax() == y.argmax() for x, y in every]))
    assert value["regret"] == pytest.approx(np.mean([x.max() - x[y.argmax()] for x, y in every]))
    without_first = np.mean([taus(x[1:], y[1:]) for x, y in every])
    assert found["tau"].mean[1] == pytest.approx(without_first)


def test_the_ceiling_compares_each_seed_with_its_own_reference() -> None:
    full = np.random.default_rng(2).random((3, 9))
    found = compare_seeds(other_seeds(full), full, np.arange(9.0), "tau")
    pairs = [(np.delete(full, seed, axis=0).mean(axis=0), full[seed]) for seed in range(3)]
    assert found.values.shape == (1, 46)
    assert found.mean[0] == pytest.approx(np.mean([taus(*pair) for pair in pairs]))
    assert found.mean[1] == pytest.approx(np.mean([taus(x[1:], y[1:]) for x, y in pairs]))
    assert found.excess_of_draws == 0


def test_a_statistic_over_pairs_of_like_cost_counts_these_pairs() -> None:
    cost = np.array([100, 105, 108, 200, 300, 400, 500, 600.0])
    found = compare_repeats(cost[None], cost[None], np.zeros(1, int), cost, "tau_like_cost")
    assert (found.n_pairs, found.n_architectures) == (3, 8)


@pytest.mark.parametrize("n", [12, 20])
def test_intervals_of_tau_hold_what_they_promise(n: int) -> None:
    """Tau of many architectures is inside about 95 of 100 times; `docs/coverage.md` has the whole of it."""
    rng = np.random.default_rng(n)

    def draw(n_drawn: int) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.normal(size=n_drawn)
        return truth + 0.3 * rng.normal(size=n_drawn), truth + 0.7 * rng.normal(size=n_drawn)

    truth = taus(*draw(20_000))
    held = 0
    for _ in range(200):
        reference, measured = draw(n)
        found = compare_repeats(
            reference[None], measured[None], np.zeros(1, int), np.arange(float(n)), "tau", has_common_draws=False
        )
        record = found.estimate().as_agreement()
        held += record.low <= truth <= record.high
    assert 0.91 <= held / 200 <= 0.99
