"""Rank statistics: against scipy, worked out by hand, by their properties, and on the tables of the paper."""

from __future__ import annotations

import csv
import math
from functools import partial
from itertools import combinations, permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from proxyds.artifact.ranking_table import STATISTICS, best_first
from proxyds.evaluation.rank_metrics import (
    CORRELATIONS,
    LIKE_COST,
    OF_FEW,
    add_parameters,
    are_alike,
    include_all,
    kendall_tau,
    like_cost_tau,
    n_top,
    normal_scores,
    partial_tau,
    pearson,
    regret_of,
    same_best,
    spearman,
    top_overlap,
    top_tau,
    weighted_tau,
)
from proxyds.space.cost import measure_cost

TWO = {"tau": kendall_tau, "spearman": spearman, "pearson": pearson}
"""Correlations of two arrays, of any selection of architectures."""
OF_THE_TOP = {"weighted": weighted_tau, "top": top_tau}
"""Correlations that know all architectures alone."""
regret = partial(regret_of, 1)


def plain(statistic, reference, measured, *cost) -> float:
    """A statistic of all architectures."""
    arrays = [np.asarray(values, np.float64) for values in (reference, measured, *cost)]
    if statistic in (*TWO.values(), partial_tau, like_cost_tau):
        [value] = statistic(arrays[0], arrays[1], include_all(len(arrays[0])), *arrays[2:])
        return float(value)
    return float(statistic(*arrays))


def by_name(name: str, reference, measured, cost) -> float:
    arrays = [np.asarray(values, np.float64) for values in (reference, measured, cost)]
    if name in OF_FEW:
        return OF_FEW[name](arrays[0], arrays[1])
    [value] = CORRELATIONS[name](arrays[0], arrays[1], include_all(len(arrays[0])), arrays[2])
    return float(value)


SCIPY = {
    "tau": lambda x, y: stats.kendalltau(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "weighted": lambda x, y: stats.weightedtau(x, y, rank=stats.rankdata(-x, method="ordinal") - 1).statistic,
}

whole = st.integers(-6, 6).map(float)
"""Few values, so that ties are common."""


@st.composite
def paired(draw: st.DrawFn, rows: int = 2, smallest: int = 2, values: st.SearchStrategy[float] = whole) -> np.ndarray:
    """Arrays (rows, n)."""
    n = draw(st.integers(smallest, 14))
    return np.array([draw(st.lists(values, min_size=n, max_size=n)) for _ in range(rows)])


# -- against scipy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCIPY)
@pytest.mark.parametrize("has_ties", [False, True])
def test_correlations_are_scipys(name: str, has_ties: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        n = int(rng.integers(2, 25))
        reference, measured = rng.integers(0, 5, (2, n)) / 5 if has_ties else rng.normal(size=(2, n))
        if np.ptp(reference) and np.ptp(measured):
            expected = SCIPY[name](reference, measured)
            assert plain((TWO | OF_THE_TOP)[name], reference, measured) == pytest.approx(expected, abs=1e-12)


@st.composite
def selections(draw: st.DrawFn, n: int) -> np.ndarray:
    """Which of n architectures are included, (1, n); two at least."""
    included = np.array([draw(st.lists(st.booleans(), min_size=n, max_size=n))])
    assume(included.sum() > 1)
    return included


@given(paired(), st.data())
def test_a_correlation_of_a_selection_is_scipys_of_its_architectures(arrays: np.ndarray, data: st.DataObject) -> None:
    included = data.draw(selections(arrays.shape[1]))
    reference, measured = arrays[:, included[0]]
    for name, statistic in TWO.items():
        [value] = statistic(*arrays, included)
        if np.ptp(reference) and np.ptp(measured):
            assert value == pytest.approx(SCIPY[name](reference, measured), abs=1e-9), name
        else:
            assert math.isnan(value)


@given(paired(rows=3), st.data())
def test_partial_tau_is_its_formula_on_scipys_taus(arrays: np.ndarray, data: st.DataObject) -> None:
    included = data.draw(selections(arrays.shape[1]))
    selected = arrays[:, included[0]]
    assume(all(np.ptp(values) for values in selected))
    tau, of_reference, of_measured = (stats.kendalltau(*pair).statistic for pair in combinations(selected, 2))
    [value] = partial_tau(arrays[0], arrays[1], included, arrays[2])
    if max(abs(of_reference), abs(of_measured)) > 1 - 1e-9:
        assert math.isnan(value)
    else:
        rest = math.sqrt((1 - of_reference**2) * (1 - of_measured**2))
        assert value == pytest.approx((tau - of_reference * of_measured) / rest, abs=1e-9)


def sign(value: float) -> int:
    return (value > 0) - (value < 0)


@given(paired(), st.data())
def test_tau_at_like_cost_counts_pairs_one_by_one(arrays: np.ndarray, data: st.DataObject) -> None:
    n = arrays.shape[1]
    cost = np.array(data.draw(st.lists(st.integers(80, 130), min_size=n, max_size=n)), np.float64)
    included = data.draw(selections(n))
    x, y, c = (values[included[0]].tolist() for values in (*arrays, cost))
    agreement = untied_x = untied_y = 0
    for i, j in combinations(range(len(x)), 2):
        if 10 * abs(c[i] - c[j]) <= max(c[i], c[j]):
            agreement += sign(x[i] - x[j]) * sign(y[i] - y[j])
            untied_x += x[i] != x[j]
            untied_y += y[i] != y[j]
    [value] = like_cost_tau(arrays[0], arrays[1], included, cost)
    if untied_x and untied_y:
        assert value == pytest.approx(agreement / math.sqrt(untied_x * untied_y), abs=1e-12)
    else:
        assert math.isnan(value)


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_tau_with_ties_by_hand() -> None:
    # six pairs: 0-1 tied in the reference, 1-2 tied in the measurement, 0-2 0-3 1-3 2-3 in the same order
    # untied in the reference 5, in the measurement 5: 4 / sqrt(5 * 5)
    assert plain(kendall_tau, [1, 1, 2, 3], [1, 2, 2, 4]) == pytest.approx(4 / 5)
    # 0-1 opposite, 0-2 and 1-2 same, none tied: (2 - 1) / 3
    assert plain(kendall_tau, [1, 2, 3], [2, 1, 3]) == pytest.approx(1 / 3)
    # all of the measurement but one tied: three pairs untied there and in the same order, six untied in the reference
    assert plain(kendall_tau, [1, 2, 3, 4], [1, 1, 1, 2]) == pytest.approx(3 / math.sqrt(6 * 3))


def test_weighted_tau_by_hand() -> None:
    # ranks 0, 1, 2 weigh 1, 1/2, 1/3; pairs 3/2 (opposite), 4/3 (same), 5/6 (same)
    assert plain(weighted_tau, [9, 8, 7], [5, 6, 4]) == pytest.approx(
        (-3 / 2 + 4 / 3 + 5 / 6) / (3 / 2 + 4 / 3 + 5 / 6)
    )
    # a change at the bottom costs less
    assert plain(weighted_tau, [9, 8, 7], [6, 4, 5]) == pytest.approx((3 / 2 + 4 / 3 - 5 / 6) / (3 / 2 + 4 / 3 + 5 / 6))


def test_spearman_and_pearson_by_hand() -> None:
    # ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15)
    assert plain(spearman, [1, 10, 100, 1000], [5, 4, 9, 8]) == pytest.approx(0.6)
    # about their means -1 0 1 and -2 1 1: 3 / sqrt(2 * 6)
    assert plain(pearson, [1, 2, 3], [0, 3, 3]) == pytest.approx(3 / math.sqrt(12))


@pytest.mark.parametrize(("n", "expected"), [(1, 5), (5, 5), (12, 5), (25, 5), (29, 5), (30, 6), (100, 20)])
def test_the_top_is_the_best_fifth_and_five_at_least(n: int, expected: int) -> None:
    assert n_top(n) == expected


def test_best_first_keeps_ties_in_their_order() -> None:
    assert best_first(np.array([1.0, 3, 2, 3, 1])).tolist() == [1, 3, 2, 0, 4]


TWELVE = [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_tau_at_the_top_by_hand() -> None:
    # among the first five one neighbouring pair of ten is turned round: (9 - 1) / 10; what is below does not count
    assert plain(top_tau, TWELVE, [20, 19, 17, 18, 16, *range(7)]) == pytest.approx(0.8)
    assert plain(top_tau, TWELVE, [20, 19, 17, 18, 16, *range(30, 37)]) == pytest.approx(0.8)
    # of five all are the top
    assert plain(top_tau, [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]) == -1


def test_overlap_of_the_top_by_hand() -> None:
    assert plain(top_overlap, TWELVE, TWELVE) == 1
    assert plain(top_overlap, TWELVE, TWELVE[::-1]) == 0
    # first, second and fifth of the reference are among the measured five
    assert plain(top_overlap, TWELVE, [5, 9, 1, 2, 8, 7, 6, 0, 0, 0, 0, 0]) == pytest.approx(3 / 5)
    assert plain(top_overlap, [3, 2, 1], [1, 2, 3]) == 1  # of three all are the top


def test_same_best_by_hand() -> None:
    assert plain(same_best, [1, 2, 3], [1, 1, 9]) == 1
    assert plain(same_best, [1, 2, 3], [1, 9, 8]) == 0
    assert plain(same_best, [1, 2, 3], [1, 5, 5]) == pytest.approx(1 / 2)  # one of the two measured best is the best
    assert plain(same_best, [1, 2, 3], [5, 5, 5]) == pytest.approx(1 / 3)
    assert plain(same_best, [1, 3, 3], [1, 2, 9]) == 1  # either of the two best is the best


def test_regret_by_hand() -> None:
    assert plain(regret, [0.5, 0.7, 0.9], [0.1, 0.3, 0.2]) == pytest.approx(0.9 - 0.7)
    assert plain(regret, [0.5, 0.7, 0.9], [0.3, 0.3, 0.2]) == pytest.approx(0.9 - (0.5 + 0.7) / 2)
    assert plain(regret, [0.5, 0.7, 0.9], [0.3, 0.3, 0.3]) == pytest.approx(0.9 - 0.7)
    assert plain(regret, [0.5, 0.9, 0.9], [0.1, 0.3, 0.2]) == 0


def test_partial_tau_by_hand() -> None:
    reference, measured, cost = [1, 2, 3, 4], [1, 2, 4, 3], [2, 1, 3, 4]
    # tau is 4/6 of reference and measurement, 4/6 of reference and cost, 2/6 of measurement and cost
    expected = (2 / 3 - 2 / 3 * 1 / 3) / math.sqrt((1 - 4 / 9) * (1 - 1 / 9))
    assert plain(partial_tau, reference, measured, cost) == pytest.approx(expected)


@pytest.mark.parametrize("cost", [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 1, 2, 5, 4]])
def test_partial_tau_has_no_value_where_cost_explains_all_of_one(cost: list[float]) -> None:
    assert math.isnan(plain(partial_tau, [1, 2, 3, 4, 5], [3, 1, 2, 5, 4], cost))


def test_tau_at_like_cost_by_hand() -> None:
    cost = [90, 100, 111, 200, 220]
    alike = are_alike(np.array(cost, float))
    # 90-100: 10 of 100; 100-111: 11 of 111; 200-220: 20 of 220; 90-111: 21 of 111 is more than a tenth
    assert sorted(zip(*np.nonzero(alike), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)]
    # same, opposite, same: 1/3, whatever the other pairs say
    assert plain(like_cost_tau, [1, 2, 3, 8, 9], [1, 3, 2, 0, 1], cost) == pytest.approx(1 / 3)
    assert plain(like_cost_tau, [1, 2, 3, 8, 9], [1, 3, 2, 8, 9], cost) == pytest.approx(1 / 3)
    # the second is tied in the measurement: 2 / sqrt(3 * 2)
    assert plain(like_cost_tau, [1, 2, 3, 8, 9], [1, 2, 2, 8, 9], cost) == pytest.approx(2 / math.sqrt(6))
    assert math.isnan(plain(like_cost_tau, [1, 2, 3], [1, 2, 3], [100, 200, 400]))
    assert LIKE_COST == 0.1


def test_every_named_statistic_is_its_function() -> None:
    reference, measured, cost = [5, 1, 4, 2, 3, 7], [4, 1, 5, 2, 6, 3], [100, 101, 102, 103, 150, 160]
    functions = {
        "tau": kendall_tau,
        "tau_top": top_tau,
        "tau_weighted": weighted_tau,
        "spearman": spearman,
        "pearson": pearson,
        "top_overlap": top_overlap,
        "same_best": same_best,
        "regret": partial(regret_of, 1),
        "regret_of_3": partial(regret_of, 3),
        "regret_of_5": partial(regret_of, 5),
    }
    given_cost = {"tau_given_cost": partial_tau, "tau_like_cost": like_cost_tau}
    assert set(STATISTICS) == set(functions) | set(given_cost)
    for name, function in functions.items():
        assert by_name(name, reference, measured, cost) == plain(function, reference, measured), name
    for name, function in given_cost.items():
        assert by_name(name, reference, measured, cost) == plain(function, reference, measured, cost), name
    headings = [statistic.heading for statistic in STATISTICS.values()]
    assert len(set(headings)) == len(headings)
    assert all(statistic.explanation for statistic in STATISTICS.values())


# -- properties -------------------------------------------------------------------------------------------------------


@given(paired(rows=3))
def test_every_statistic_stays_within_its_bounds(arrays: np.ndarray) -> None:
    reference, measured, cost = arrays
    for name in STATISTICS:
        value = by_name(name, reference, measured, cost + 10)
        if name.startswith("regret"):
            assert 0 <= value <= np.ptp(reference) + 1e-12
        elif name in ("top_overlap", "same_best"):
            assert 0 <= value <= 1
        else:
            assert math.isnan(value) or -1 - 1e-12 <= value <= 1 + 1e-12, name


@pytest.mark.parametrize("statistic", [kendall_tau, spearman, pearson, top_overlap])
@given(arrays=paired())
def test_either_may_be_called_the_reference(statistic, arrays: np.ndarray) -> None:
    there, back = plain(statistic, *arrays), plain(statistic, *arrays[::-1])
    assert there == pytest.approx(back, nan_ok=True, abs=1e-12)


@given(paired(rows=3), st.sampled_from([np.exp, np.arctan, lambda x: x**3, lambda x: x * 100 - 7]))
def test_all_but_pearson_see_nothing_of_a_measurement_but_its_order(arrays: np.ndarray, transform) -> None:
    reference, measured, cost = arrays
    for name in set(STATISTICS) - {"pearson"}:
        value = by_name(name, reference, measured, cost + 10)
        assert by_name(name, reference, transform(measured), cost + 10) == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize("statistic", (TWO | OF_THE_TOP).values(), ids=TWO | OF_THE_TOP)
@given(arrays=paired())
def test_a_measurement_turned_round_turns_the_sign(statistic, arrays: np.ndarray) -> None:
    reference, measured = arrays
    there, back = plain(statistic, reference, measured), plain(statistic, reference, -measured)
    assert there == pytest.approx(-back, nan_ok=True, abs=1e-12)


@given(paired(rows=2))
def test_a_measurement_that_is_the_reference_is_perfect(arrays: np.ndarray) -> None:
    reference, cost = arrays
    assert plain(regret, reference, reference) == 0
    assert plain(same_best, reference, reference) == 1
    assert plain(top_overlap, reference, reference) == 1
    for statistic in (TWO | OF_THE_TOP).values():
        value = plain(statistic, reference, reference)
        assert math.isnan(value) or value == pytest.approx(1)
    value = plain(partial_tau, reference, reference, cost)
    assert math.isnan(value) or value == pytest.approx(1)
    assert len(set(reference)) == 1 or not math.isnan(plain(kendall_tau, reference, reference))


@given(paired(rows=1), whole)
def test_what_is_constant_correlates_with_nothing(arrays: np.ndarray, constant: float) -> None:
    varied, same = arrays[0], np.full(arrays.shape[1], constant / 7)
    for x, y in ((varied, same), (same, varied), (same, same)):
        for name, statistic in (TWO | OF_THE_TOP).items():
            assert math.isnan(plain(statistic, x, y)), name
        assert math.isnan(plain(partial_tau, x, y, varied))
        assert math.isnan(plain(like_cost_tau, x, y, np.full(len(x), 100.0)))
    assert plain(regret, same, varied) == pytest.approx(0)


@pytest.mark.parametrize("statistic", [pearson, spearman])
@given(arrays=paired(), scale=st.integers(-4, 12))
def test_a_correlation_does_not_depend_on_units(statistic, arrays: np.ndarray, scale: int) -> None:
    reference, measured = arrays
    assume(len(set(reference)) > 1 and len(set(measured)) > 1)
    expected = plain(statistic, reference, measured)
    assert plain(statistic, reference, measured * 10.0**scale) == pytest.approx(expected, abs=1e-9)


@given(paired(rows=3))
def test_two_copies_of_everything_change_no_correlation(arrays: np.ndarray) -> None:
    reference, measured, cost = arrays
    doubled = [np.concatenate([values, values]) for values in arrays]
    for name in CORRELATIONS:
        single = by_name(name, reference, measured, cost + 10)
        assert by_name(name, *doubled[:2], doubled[2] + 10) == pytest.approx(single, nan_ok=True, abs=1e-12), name


@given(paired(rows=3), st.randoms(use_true_random=False))
def test_the_order_of_architectures_tells_nothing_where_none_are_tied(arrays: np.ndarray, random) -> None:
    reference, measured, cost = arrays + np.arange(arrays.shape[1]) / 100
    order = list(range(len(reference)))
    random.shuffle(order)
    for name in STATISTICS:
        value = by_name(name, reference, measured, cost + 10)
        moved = by_name(name, reference[order], measured[order], cost[order] + 10)
        assert moved == pytest.approx(value, nan_ok=True, abs=1e-12), name


def test_selections_are_computed_each_for_itself() -> None:
    rng = np.random.default_rng(4)
    reference, measured = rng.normal(size=(2, 12))
    cost, included = rng.uniform(100, 150, 12), rng.random((25, 12)) < 0.7
    for name, correlate in CORRELATIONS.items():
        together = correlate(reference, measured, included, cost)
        one_by_one = [correlate(reference, measured, row[None], cost)[0] for row in included]
        np.testing.assert_allclose(together, one_by_one, atol=1e-12, err_msg=name)


# -- the paper's tables -----------------------------------------------------------------------------------------------

RESNETS = [f"B{b} K{k} M{m}" for b, k, m in product((8, 16, 32), (3, 5), (2, 4))]

# Park, Data Proxy Generation for Fast and Efficient Neural Architecture Search (arXiv 1911.09322, 2019)
PRINTED = Path(__file__).parent.parent / "studies" / "printed.csv"


def read_printed(number: int) -> dict[str, list[float]]:
    """The columns of one of the paper's tables; 1 and 2 in the order of RESNETS, 3: r in {1, 2}, k in {1, 2}, f in {1, 2, 3}."""
    rows = [row for row in csv.DictReader(PRINTED.read_text().splitlines()) if row["table"] == str(number)]
    columns = [name for name in rows[0] if name not in ("table", "architecture") and rows[0][name]]
    return {name.replace("_", " "): [float(row[name]) for row in rows] for name in columns}


TABLE_1, TABLE_2, TABLE_3 = (read_printed(number) for number in (1, 2, 3))
PAPER = [  # recomputed from the accuracies printed: Pearson, Spearman, tau-b, the same best, regret
    pytest.param(TABLE_1, "random 10", 0.978, 0.967, 0.901, 1, 0, id="table-1-random-10"),
    pytest.param(TABLE_1, "proxy 10", 0.970, 0.981, 0.931, 1, 0, id="table-1-proxy-10"),
    pytest.param(TABLE_1, "random 5", 0.927, 0.883, 0.748, 0, 0.9123 - 0.9096, id="table-1-random-5"),
    pytest.param(TABLE_1, "proxy 5", 0.967, 0.960, 0.870, 1, 0, id="table-1-proxy-5"),
    pytest.param(TABLE_2, "random 10", 0.955, 0.930, 0.818, 0, 0.6959 - 0.6907, id="table-2-random-10"),
    pytest.param(TABLE_2, "proxy 10", 0.975, 0.979, 0.939, 1, 0, id="table-2-proxy-10"),
    pytest.param(TABLE_3, "random 10", 0.171, 0.287, 0.182, 0, 0.8970 - 0.8917, id="table-3-random-10"),
    pytest.param(TABLE_3, "proxy 10", 0.612, 0.587, 0.394, 1, 0, id="table-3-proxy-10"),
]


@pytest.mark.parametrize(("table", "column", "linear", "of_ranks", "tau", "is_same", "lost"), PAPER)
def test_the_papers_tables_recomputed(
    table: dict[str, list[float]],
    column: str,
    linear: float,
    of_ranks: float,
    tau: float,
    is_same: int,
    lost: float,
) -> None:
    full, measured = table["full"], table[column]
    assert round(plain(pearson, full, measured), 3) == linear
    assert round(plain(spearman, full, measured), 3) == of_ranks
    assert round(plain(kendall_tau, full, measured), 3) == tau
    assert plain(same_best, full, measured) == is_same == (measured.index(max(measured)) == full.index(max(full)))
    assert plain(regret, full, measured) == pytest.approx(lost, abs=1e-12)
    assert lost == pytest.approx(max(full) - full[measured.index(max(measured))], abs=1e-12)


@pytest.mark.parametrize(
    ("table", "column", "printed"),
    [
        (TABLE_2, "random 10", 0.955),
        (TABLE_2, "proxy 10", 0.975),
        (TABLE_3, "random 10", 0.171),
        (TABLE_3, "proxy 10", 0.612),
    ],
)
def test_pearson_is_the_papers_correlation_score(table: dict[str, list[float]], column: str, printed: float) -> None:
    assert f"{plain(pearson, table['full'], table[column]):.3f}" == f"{printed:.3f}"


@pytest.mark.parametrize(
    ("table", "n_labels", "of_ranks", "tau"), [(TABLE_1, 10, 0.883, 0.748), (TABLE_2, 100, 0.895, 0.758)]
)
def test_counting_flops_ranks_the_papers_resnets_for_nothing(
    table: dict[str, list[float]], n_labels: int, of_ranks: float, tau: float
) -> None:
    flops = []
    for name in RESNETS:
        base, kernel, multiplier = (int(part[1:]) for part in name.split())
        parameters = {"depth": 20, "base_filters": base, "kernel_size": kernel, "multiplier": multiplier}
        flops.append(measure_cost(name, "resnet", parameters, n_labels, (3, 32, 32)).training_flops)
    assert round(plain(spearman, table["full"], flops), 3) == of_ranks
    assert round(plain(kendall_tau, table["full"], flops), 3) == tau
    # what the paper's own proxy of 10 % says beyond that, and what counting chooses
    assert plain(partial_tau, table["full"], table["proxy 10"], flops) > 0.5
    assert flops.index(max(flops)) == RESNETS.index("B32 K5 M4")
    assert plain(regret, table["full"], flops) == pytest.approx(table["full"][9] - table["full"][11])


# -- what is ranked by accuracy and parameters, and what a search loses -------------------------------------------------


def test_regret_of_the_best_by_the_measurement_by_hand() -> None:
    reference, measured = np.array([0.9, 0.5, 0.7, 0.8, 0.6]), np.array([1.0, 5, 4, 2, 3])
    for k, lost in ((1, 0.4), (2, 0.2), (3, 0.2), (4, 0.1), (5, 0.0), (9, 0.0)):
        assert regret_of(k, reference, measured) == pytest.approx(lost)
    # .5 surely, and one of .9, .7, .8: the mean of 0, .2 and .1
    assert regret_of(2, reference, np.array([1.0, 5, 1, 1, 0])) == pytest.approx(0.1)
    # .5 surely, and two of .9, .7, .8: the best is .9 in two of three pairs, else .8
    assert regret_of(3, reference, np.array([1.0, 5, 1, 1, 0])) == pytest.approx(0.1 / 3)


@given(paired(values=st.integers(0, 4).map(float)), st.integers(1, 15))
def test_regret_is_the_mean_over_all_ways_to_break_ties(arrays: np.ndarray, k: int) -> None:
    reference, measured = arrays[:, :6]
    losses = []
    for order in permutations(range(len(measured))):
        taken = sorted(order, key=lambda i: -measured[i])[:k]
        losses.append(reference.max() - reference[taken].max())
    assert regret_of(k, reference, measured) == pytest.approx(np.mean(losses))


@given(st.lists(st.integers(0, 20), min_size=2, max_size=12), st.randoms())
def test_more_trained_on_everything_never_lose_more(measured: list[int], random) -> None:
    reference = np.array([random.random() for _ in measured])
    losses = [regret_of(k, reference, np.array(measured)) for k in range(1, len(measured) + 1)]
    assert (np.diff(losses) <= 1e-12).all()
    assert losses[-1] == 0


def test_normal_scores_are_scipys_quantiles_and_ties_share_their_mean_score() -> None:
    values = np.array([[3.0, 1, 2, 5, 4], [0.1, 0.1, 0.9, 0.5, 0.9]])
    quantiles = stats.norm.ppf(np.arange(1, 6) / 6)
    first, second = normal_scores(values)
    assert first == pytest.approx(stats.norm.ppf(stats.rankdata(values[0]) / 6))
    low, high = quantiles[:2].mean(), quantiles[3:].mean()
    assert second == pytest.approx([low, low, high, 0, high])
    assert normal_scores(np.ones(4)) == pytest.approx(np.zeros(4))


def test_parameters_are_added_by_hand() -> None:
    # three architectures: scores are -q, 0, q where q is the quantile of 3/4
    q = stats.norm.ppf(0.75)
    found = add_parameters(np.array([[0.3, 0.2, 0.1], [0.1, 0.1, 0.9]]), np.array([10.0, 20, 30]), 0.5)
    assert found[0] == pytest.approx([q - 0.5 * q, 0, -q + 0.5 * q])
    assert found[1] == pytest.approx([-q / 2 - 0.5 * q, -q / 2, q + 0.5 * q])


def test_weight_0_ranks_by_accuracy_and_a_large_one_by_parameters() -> None:
    rng = np.random.default_rng(0)
    accuracies, n_parameters = rng.random((2, 15)), rng.random(15)
    for each, by in zip(accuracies, add_parameters(accuracies, n_parameters, 0.0), strict=True):
        assert (np.argsort(by) == np.argsort(each)).all()
    for by in add_parameters(accuracies, n_parameters, 1000.0):
        assert (np.argsort(by) == np.argsort(n_parameters)).all()


def test_architectures_with_equal_sums_of_scores_stay_tied() -> None:
    found = add_parameters(np.array([[0.1, 0.2, 0.3]]), np.array([3.0, 2, 1]), 1.0)
    assert np.ptp(found) == 0
