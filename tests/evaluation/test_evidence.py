"""From runs to evidence: rows to arrays, the record, draws and trainings, thresholds, refusals."""

from __future__ import annotations

import math
import re
from itertools import product
from typing import Any

import numpy as np
import pytest

from proxyds.artifact.evidence_records import EstimateRecord, EvidenceRecord
from proxyds.artifact.ranking_table import (
    BY_ACCURACY,
    BY_BOTH,
    BY_LOSS,
    FEWER_EPOCHS,
    FULL,
    PROXY,
    RANDOM,
    STATISTICS,
    WITH_PARAMETERS,
    collect_accuracies,
    make_runs_table,
)
from proxyds.errors import EvidenceError
from proxyds.evaluation import evidence
from proxyds.recipe.models import Check
from tests.evaluation.made_up import (
    COSTS,
    QUALITY,
    SOFT,
    N,
    around,
    difference_to,
    everything,
    hopeless,
    rows_of,
    taus,
    trained_again,
    weigh,
)

UNRELATED = np.random.default_rng(5).permutation(N)
"""A ranking that has nothing to do with quality."""


def test_accuracies_are_arrays_of_repeats_by_architectures_the_cheapest_first() -> None:
    full, proxy = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [[0.7, 0.8, 0.9]]
    rows = rows_of(FULL, full, costs=[30, 10, 20]) + rows_of(PROXY, proxy, costs=[30, 10, 20])
    measured = collect_accuracies(make_runs_table(rows[::-1]))
    assert measured.names == ["net 01", "net 02", "net 00"]
    assert measured.costs["flops"].tolist() == [10, 20, 30]
    assert measured.costs["parameters"].tolist() == [11, 22, 30]
    assert measured.accuracies[FULL, 1.0].tolist() == [[0.2, 0.3, 0.1], [0.5, 0.6, 0.4]]
    assert measured.accuracies[PROXY, 0.1].tolist() == [[0.8, 0.9, 0.7]]
    assert set(measured.accuracies) == {(FULL, 1.0), (PROXY, 0.1)}
    assert measured.left_out == ()


def test_equal_flops_are_ordered_by_parameters_then_name() -> None:
    rows = rows_of(FULL, [[0.1, 0.2, 0.3]], costs=[5, 5, 5])
    for row, n_parameters in zip(rows, [9, 9, 4], strict=True):
        row["n_parameters"] = n_parameters
    assert collect_accuracies(make_runs_table(rows)).names == ["net 02", "net 00", "net 01"]


def test_each_ratio_is_a_method_of_its_own() -> None:
    rows = rows_of(PROXY, [[0.1, 0.2]], ratio=0.05) + rows_of(PROXY, [[0.3, 0.4]], ratio=0.2)
    measured = collect_accuracies(make_runs_table(rows))
    assert measured.accuracies[PROXY, 0.05].tolist() == [[0.1, 0.2]]
    assert measured.accuracies[PROXY, 0.2].tolist() == [[0.3, 0.4]]


@pytest.mark.parametrize("dataset", [FULL, PROXY])
@pytest.mark.parametrize("accuracy", ["absent", None, math.nan, math.inf])
def test_an_architecture_that_lacks_a_run_is_left_out_of_all(dataset: str, accuracy: Any) -> None:
    rows = rows_of(FULL, [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]) + rows_of(PROXY, [[0.7, 0.8, 0.9], [0.6, 0.5, 0.4]])
    [found] = [
        row for row in rows if (row["architecture"], row["dataset"], row["training_seed"]) == ("net 01", dataset, 1)
    ]
    if accuracy == "absent":
        rows.remove(found)
    else:
        found["accuracy"] = accuracy
    measured = collect_accuracies(make_runs_table(rows))
    assert measured.names == ["net 00", "net 02"]
    assert measured.left_out == ("net 01",)
    assert measured.accuracies[FULL, 1.0].tolist() == [[0.1, 0.3], [0.4, 0.6]]
    assert measured.accuracies[PROXY, 0.1].tolist() == [[0.7, 0.9], [0.6, 0.4]]
    assert [len(costs) for costs in measured.costs.values()] == [2, 2]


def test_a_run_without_accuracy_is_named_and_never_averaged_in() -> None:
    proxy = around(QUALITY - 0.3, 0.01, seed=2)
    holed = proxy.copy()
    holed[1, 4] = math.nan
    record = weigh(everything(proxy=holed))
    assert record.left_out == ("net 04",)
    assert record.n_architectures == N - 1
    assert record.of(PROXY, 0.1).mean_accuracy == pytest.approx(np.delete(proxy, 4, axis=1).mean())
    assert record.of(PROXY, 0.1).n_draws == 2
    without = [row for row in everything(proxy=proxy) if row["architecture"] != "net 04"]
    assert record.methods == weigh(without).methods


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_intervals_contain_the_value(seed: int) -> None:
    full, proxy = around(QUALITY, 0.05, seed=seed, repeats=3), around(QUALITY, 0.1, seed=seed + 100, repeats=3)
    record = weigh(rows_of(FULL, full, costs=COSTS) + rows_of(PROXY, proxy, costs=COSTS))
    for method in record.methods:
        for name in ("tau", "tau_like_cost", "spearman", "pearson", "tau_given_cost"):
            if (method.method, name) == ("parameters", "tau_given_cost"):  # here both costs rank alike: none is left
                assert method.statistics[name] == EstimateRecord(value=None, low=None, high=None)
            elif name in method.statistics:
                found = method.statistics[name]
                assert found.low <= found.value <= found.high, (method.method, name)
                assert -1 <= found.low < found.high <= 1


def test_more_draws_that_disagree_widen_the_interval() -> None:
    full = around(QUALITY, 0, seed=1)
    alike, apart = np.array([QUALITY, QUALITY]), np.array([QUALITY, QUALITY[UNRELATED]])
    narrow, wide = (
        weigh(rows_of(FULL, full) + rows_of(PROXY, proxy)).of(PROXY, 0.1).statistics["tau"] for proxy in (alike, apart)
    )
    assert narrow.low > 0.9
    assert narrow.high == 1
    assert wide.low < 0.2
    assert wide.high > 0.8


@pytest.mark.parametrize(("n", "has_interval"), [(7, False), (8, True)])
def test_fewer_than_eight_architectures_give_no_interval(n: int, has_interval: bool) -> None:
    full, proxy = around(QUALITY[:n], 0.02, seed=1), around(QUALITY[:n], 0.02, seed=2)
    record = weigh(rows_of(FULL, full) + rows_of(PROXY, proxy) + rows_of(RANDOM, hopeless(3, n=n)))
    estimates = [record.of(PROXY, 0.1).statistics["tau"], record.own_tau, record.below_ceiling]
    estimates += [each.difference for each in record.comparisons if each.control == RANDOM]
    for each in estimates:
        assert each.value is not None
        assert ((each.low is not None), (each.high is not None)) == (has_interval, has_interval)


def test_one_draw_gives_no_interval_but_the_proxys_own_samples_have_one() -> None:
    record = weigh(rows_of(FULL, around(QUALITY, 0.02, seed=1)) + rows_of(PROXY, QUALITY[None]))
    tau = record.of(PROXY, 0.1).statistics["tau"]
    assert (tau.low, tau.high) == (None, None)
    assert record.own_tau.value == tau.value
    assert -1 <= record.own_tau.low < tau.value < record.own_tau.high <= 1
    assert (record.below_ceiling.low, record.below_ceiling.high) == (None, None)


def test_statistics_that_depend_on_few_architectures_have_no_interval() -> None:
    found = weigh(everything()).of(PROXY, 0.1).statistics
    assert set(found) == set(STATISTICS)
    with_interval = {name for name, estimate in found.items() if estimate.low is not None}
    assert with_interval == {"tau", "tau_given_cost", "tau_like_cost", "spearman", "pearson"}


def test_a_data_set_is_ranked_by_accuracy_and_parameters_too_and_weight_0_is_by_accuracy() -> None:
    record = weigh(everything(proxy=around(QUALITY, 0.1, seed=2)), Check(parameter_weight=0))
    assert {each.ranked_by for each in record.methods if each.method == FULL or each.ratio is None} == {BY_ACCURACY}
    for name in (PROXY, RANDOM, FEWER_EPOCHS):
        plain, both = record.of(name, 0.1).statistics, record.of(name, 0.1, BY_BOTH).statistics
        assert both == {name: estimate for name, estimate in plain.items() if name != "pearson"}
    weighted = weigh(everything(proxy=around(QUALITY, 0.1, seed=2)), Check(parameter_weight=0.5))
    assert weighted.of(PROXY, 0.1) == record.of(PROXY, 0.1)
    assert weighted.of(PROXY, 0.1, BY_BOTH).statistics["tau"] != record.of(PROXY, 0.1).statistics["tau"]
    against = difference_to(weighted, RANDOM, ranked_by=BY_BOTH).difference.value
    of_both = [weighted.of(name, 0.1, BY_BOTH).statistics["tau"].value for name in (PROXY, RANDOM)]
    assert against == pytest.approx(of_both[0] - of_both[1])


def test_architectures_are_listed_with_their_places_the_best_first() -> None:
    full = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.2, 0.3, 0.4, 0.5]])
    proxy = np.array([[0.5, 0.4, 0.3, 0.2, 0.1]])
    first, *_, last = weigh(rows_of(FULL, full) + rows_of(PROXY, proxy)).architectures
    assert (first.name, first.full_place, first.proxy_place, first.n_parameters) == ("net 04", 1, 5, 1044)
    assert (first.full_accuracy, first.full_deviation, first.proxy_deviation) == (0.5, 0, None)
    # 0.1 and 0.3 have the mean 0.2, as net 01 has: ties in the order of cost
    assert (last.name, last.full_place, last.proxy_accuracy, last.proxy_place) == ("net 01", 5, 0.4, 2)


def test_the_noise_ceiling_of_identical_seeds_is_one() -> None:
    record = weigh(everything(full=np.array([QUALITY] * 3)))
    ceiling = record.of(FULL, None)
    for name in ("tau", "spearman", "pearson", "tau_weighted", "same_best", "top_overlap"):
        found = ceiling.statistics[name]
        assert found.value == pytest.approx(1), name
        assert found.high in (None, 1), name
    assert 0.9 < ceiling.statistics["tau"].low < 1  # other architectures need not agree as well
    assert ceiling.statistics["tau_top"].value == pytest.approx(1)
    assert ceiling.statistics["regret"].value == pytest.approx(0, abs=1e-12)
    assert ceiling.tau_of_repeats == pytest.approx((1, 1, 1))
    assert ceiling.n_draws == record.n_full_seeds == 3


def test_one_full_seed_has_no_noise_ceiling() -> None:
    record = weigh(everything(full=np.array([QUALITY])))
    ceiling = record.of(FULL, None)
    assert ceiling.statistics == {}
    assert ceiling.tau_of_repeats == ()
    assert ceiling.mean_accuracy == pytest.approx(0.7)
    assert record.of(PROXY, 0.1).statistics["tau"].value is not None
    assert record.below_ceiling is None
    assert "noise ceiling is unknown" in record.explanation
    assert record.verdict != "preserves the ranking"
    assert "unknown" not in weigh(everything()).explanation


def test_what_was_compared_is_counted() -> None:
    costs = np.array([100, 109, 200, 215, 1000, 5000, 9000])
    rng = np.random.default_rng(0)
    rows = rows_of(FULL, rng.random((3, 7)), costs=costs) + rows_of(PROXY, rng.random((2, 7)), costs=costs)
    rows += rows_of(PROXY, rng.random((4, 7)), ratio=0.3, costs=costs)
    record = weigh(rows, failures=["net 09 on full: it diverged"], reference="table t.csv")
    assert record.n_architectures == 7
    assert record.n_like_cost_pairs == 2  # 100 and 109, 200 and 215
    assert record.n_top == 5
    assert record.n_full_seeds == 3
    assert record.n_draws == 2  # of the proxy at its own ratio
    assert record.failures == ("net 09 on full: it diverged",)
    assert record.reference == "table t.csv"
    assert record.own_ratio == 0.1
    assert record.model_dump(mode="json")["check"] == Check().model_dump(mode="json")
    assert [(each.method, each.ratio, each.ranked_by, each.n_draws) for each in record.methods] == [
        (FULL, None, BY_ACCURACY, 3),
        ("flops", None, BY_ACCURACY, 1),
        ("parameters", None, BY_ACCURACY, 1),
        (PROXY, 0.1, BY_ACCURACY, 2),
        (PROXY, 0.1, BY_BOTH, 2),
        (PROXY, 0.3, BY_ACCURACY, 4),
        (PROXY, 0.3, BY_BOTH, 4),
    ]


def test_a_method_says_each_repeats_own_tau() -> None:
    full, proxy = around(QUALITY, 0.05, seed=1, repeats=3), around(QUALITY, 0.1, seed=2, repeats=2)
    record = weigh(rows_of(FULL, full) + rows_of(PROXY, proxy))
    references = [np.delete(full, seed, axis=0).mean(axis=0) for seed in range(3)]
    of_proxy = record.of(PROXY, 0.1)
    assert of_proxy.tau_of_repeats == pytest.approx([np.mean([taus(x, y) for x in references]) for y in proxy])
    assert of_proxy.statistics["tau"].value == pytest.approx(np.mean(of_proxy.tau_of_repeats))
    own = [taus(x, y) for x, y in zip(references, full, strict=True)]
    assert record.of(FULL, None).tau_of_repeats == pytest.approx(own)


def test_a_free_ranking_is_measured_as_a_method_but_has_no_accuracy() -> None:
    record = weigh(everything())
    counted = record.of("flops", None)
    assert counted.mean_accuracy is None
    assert {"pearson", "tau_given_cost"}.isdisjoint(counted.statistics)
    assert "pearson" not in record.of("parameters", None).statistics
    full = around(QUALITY, 0.005, seed=1)
    assert counted.statistics["tau"].value == pytest.approx(np.mean([taus(x, COSTS) for x in full]))
    best = [x.max() - x[COSTS.argmax()] for x in full]
    assert counted.statistics["regret"].value == pytest.approx(np.mean(best))


def test_counting_parameters_has_a_tau_given_flops_and_counting_flops_has_none() -> None:
    rows = everything()
    for row in rows:
        row["n_parameters"] = 100 + 7 * (int(row["architecture"][-2:]) * 11 % N)  # another order than FLOPs
    record = weigh(rows)
    assert "tau_given_cost" not in record.of("flops", None).statistics
    found = record.of("parameters", None).statistics["tau_given_cost"]
    assert -1 < found.low < found.value < found.high < 1
    parameters = np.array([100 + 7 * (i * 11 % N) for i in range(N)])
    expected = []
    for reference in around(QUALITY, 0.005, seed=1):
        of_cost, of_parameters = taus(reference, COSTS), taus(parameters, COSTS)
        rest = (1 - of_cost**2) * (1 - of_parameters**2)
        expected.append((taus(reference, parameters) - of_cost * of_parameters) / math.sqrt(rest))
    assert found.value == pytest.approx(np.mean(expected))


def test_the_proxys_own_tau_is_that_of_its_first_draw_over_every_reference() -> None:
    full, proxy = around(QUALITY, 0.05, seed=1, repeats=3), around(QUALITY, 0.1, seed=2, repeats=3)
    rows = rows_of(FULL, full) + rows_of(PROXY, proxy) + rows_of(PROXY, hopeless(3), ratio=0.3)
    record = weigh(rows)
    references = [np.delete(full, seed, axis=0).mean(axis=0) for seed in range(3)]
    assert record.own_tau.value == pytest.approx(np.mean([taus(x, proxy[0]) for x in references]))
    assert record.own_tau.value == pytest.approx(record.of(PROXY, 0.1).tau_of_repeats[0])
    assert record.own_tau.value != pytest.approx(record.of(PROXY, 0.1).statistics["tau"].value)
    assert -1 <= record.own_tau.low < record.own_tau.value < record.own_tau.high <= 1
    # whatever the other draws are
    rows = rows_of(FULL, full) + rows_of(PROXY, np.array([proxy[0], *hopeless(4)]))
    assert weigh(rows).own_tau == record.own_tau


def test_a_planned_architecture_without_any_row_is_left_out_by_name() -> None:
    planned = [f"net {i:02}" for i in range(N)] + ["net 98", "net 99"]
    proxy = around(QUALITY - 0.3, 0.01, seed=2)
    proxy[1, 4] = math.nan
    record = weigh(everything(proxy=proxy), planned=planned)
    assert record.left_out == ("net 04", "net 98", "net 99")
    assert record.n_architectures == N - 1
    assert record.methods == weigh(everything(proxy=proxy)).methods


def test_trainings_of_one_draw_are_one_draw_whatever_their_seeds() -> None:
    full, proxy = np.array([QUALITY] * 3), around(QUALITY - 0.3, 0.001, seed=2, repeats=3)
    rows = [
        *rows_of(FULL, full, costs=COSTS),
        *trained_again(PROXY, proxy[None], 3, costs=COSTS),
        *rows_of(RANDOM, hopeless(3, repeats=3), costs=COSTS),
        *rows_of(FEWER_EPOCHS, hopeless(4, repeats=3), costs=COSTS),
    ]
    record = weigh(rows, Check(threshold=-1))
    assert (record.of(PROXY, 0.1).n_draws, record.n_draws) == (1, 1)
    assert len(record.of(PROXY, 0.1).tau_of_repeats) == 1
    assert {each.outcome for each in record.comparisons} == {"undecided"}
    assert record.verdict == "not enough evidence"
    assert "There is one draw of the proxy" in record.explanation
    assert (record.passed, record.sufficient_ratio) == (False, None)


def test_copies_of_a_draws_training_change_no_interval() -> None:
    full, proxy = around(QUALITY, 0.02, seed=1, repeats=3), around(QUALITY - 0.3, 0.05, seed=2, repeats=3)
    controls = rows_of(RANDOM, hopeless(3, repeats=3), costs=COSTS)
    controls += rows_of(FEWER_EPOCHS, hopeless(4, repeats=3), costs=COSTS) + rows_of(FULL, full, costs=COSTS)
    once = weigh(trained_again(PROXY, proxy, 1, costs=COSTS) + controls)
    thrice = weigh(trained_again(PROXY, proxy, 3, costs=COSTS) + controls)
    assert once.n_draws == thrice.n_draws == 3
    of_once, of_thrice = once.of(PROXY, 0.1), thrice.of(PROXY, 0.1)
    assert len(of_thrice.tau_of_repeats) == 3
    for name, expected in of_once.statistics.items():
        found = of_thrice.statistics[name]
        for end in ("value", "low", "high"):
            assert getattr(found, end) == pytest.approx(getattr(expected, end), abs=1e-9), (name, end)
    for found, expected in zip(thrice.comparisons, once.comparisons, strict=True):
        assert found.outcome == expected.outcome
        assert found.difference.low == pytest.approx(expected.difference.low, abs=1e-9)
        assert found.difference.high == pytest.approx(expected.difference.high, abs=1e-9)
    assert (once.own_tau.low, once.own_tau.high) == pytest.approx((thrice.own_tau.low, thrice.own_tau.high))


def test_draws_with_unlike_many_trainings_count_alike() -> None:
    full, proxy = around(QUALITY, 0.02, seed=1), around(QUALITY, 0.1, seed=2, repeats=4)
    rows = rows_of(FULL, full) + trained_again(PROXY, proxy[None, :3], 3)
    rows += [{**row, "draw_seed": 7, "training_seed": 99} for row in rows_of(PROXY, proxy[3:])]
    of_proxy = weigh(rows).of(PROXY, 0.1)
    assert of_proxy.n_draws == 2
    references = full[::-1]
    of_each = [np.mean([taus(x, y) for x in references]) for y in proxy]
    assert of_proxy.tau_of_repeats == pytest.approx([np.mean(of_each[:3]), of_each[3]])
    expected = (np.mean(of_each[:3]) + of_each[3]) / 2
    assert of_proxy.statistics["tau"].value == pytest.approx(expected)


def test_one_draw_passes_no_threshold_and_is_of_no_sufficient_ratio() -> None:
    full = np.array([QUALITY] * 3)
    rows = rows_of(FULL, full) + rows_of(PROXY, full[:1]) + rows_of(PROXY, full[:2], ratio=0.3)
    record = weigh(rows, Check(threshold=0.5))
    assert record.of(PROXY, 0.1).statistics["tau"] == EstimateRecord(value=1, low=None, high=None)
    assert (record.passed, record.sufficient_ratio) == (False, 0.3)
    record = weigh([row for row in rows if row["ratio"] != 0.3], Check(threshold=0.5))
    assert (record.passed, record.sufficient_ratio) == (False, None)
    assert weigh(rows, Check(target=0.5)).passed is None


def test_every_ratio_is_compared_with_the_controls_of_its_own() -> None:
    rows = everything() + rows_of(PROXY, hopeless(8, repeats=6), ratio=0.02, costs=COSTS)
    rows += rows_of(RANDOM, around(QUALITY, 0.005, seed=9), ratio=0.02, costs=COSTS)
    record = weigh(rows)
    of = {(each.control, each.ratio): each.outcome for each in record.comparisons if each.ranked_by == BY_ACCURACY}
    assert set(of) == {
        *product((RANDOM, "flops", "parameters"), (0.02, 0.1)),
        (FEWER_EPOCHS, 0.1),
    }
    assert of[RANDOM, 0.1] == "better"
    assert of[RANDOM, 0.02] == "worse"
    assert record.verdict == "preserves the ranking"  # of the proxy at its own ratio


def test_the_record_survives_json() -> None:
    alone = rows_of(FULL, QUALITY[None]) + rows_of(PROXY, QUALITY[None])
    settings = Check(ratios=(0.02, 0.2), draws=1, threshold=0.5, target=0.9, reference={"path": "t.csv"})
    for record in (weigh(everything()), weigh(alone), weigh(alone, settings, failures=["one", "two"])):
        assert EvidenceRecord.model_validate_json(record.model_dump_json()) == record


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = everything() + rows_of(PROXY, around(QUALITY, 0.1, seed=7), ratio=0.2, costs=COSTS)
    first = weigh(rows)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert make_runs_table(shuffled).equals(make_runs_table(rows))
    assert weigh(shuffled).model_copy(update={"created": first.created}) == first


@pytest.mark.parametrize(
    ("above", "passed"), [(None, None), (-0.01, True), (0.0, True), (0.01, False)], ids=["none", "below", "at", "above"]
)
def test_a_threshold_is_reached_by_the_lower_end_of_taus_interval(above: float | None, passed: bool | None) -> None:
    rows = rows_of(FULL, around(QUALITY, 0.02, seed=1)) + rows_of(PROXY, around(QUALITY, 0.05, seed=2))
    low = weigh(rows).of(PROXY, 0.1).statistics["tau"].low
    assert 0.2 < low < 0.95
    record = weigh(rows, Check(threshold=None if above is None else low + above))
    assert record.passed is passed
    assert record.sufficient_ratio == (0.1 if passed else None)


def test_the_smallest_ratio_that_reaches_the_target_is_named() -> None:
    full = np.array([QUALITY] * 2)
    rows = rows_of(FULL, full)
    rows += rows_of(PROXY, hopeless(3), ratio=0.02) + rows_of(PROXY, around(QUALITY, 0.02, seed=2), ratio=0.1)
    rows += rows_of(PROXY, full, ratio=0.3)
    low = weigh(rows).of(PROXY, 0.1).statistics["tau"].low
    assert 0.6 < low < 0.95
    for target, sufficient in ((-1.0, 0.02), (0.6, 0.1), (0.95, 0.3)):
        record = weigh(rows, Check(target=target))
        assert (record.sufficient_ratio, record.target, record.passed) == (sufficient, target, None)
    # the target comes before the threshold, which is for the proxy's own ratio
    record = weigh(rows, Check(target=0.6, threshold=0.95))
    assert (record.sufficient_ratio, record.target, record.passed) == (0.1, 0.6, False)
    record = weigh(rows, Check(threshold=0.95))
    assert (record.sufficient_ratio, record.target, record.passed) == (0.3, 0.95, False)
    assert weigh(rows, Check(threshold=0.95), own_ratio=0.3).passed is True
    assert weigh([row for row in rows if row["ratio"] != 0.3], Check(target=0.95)).sufficient_ratio is None


@pytest.mark.parametrize("control", [RANDOM, FEWER_EPOCHS])
def test_another_constant_repeat_leaves_its_statistics_without_value_and_its_comparison_undecided(control: str) -> None:
    rows = everything()
    for row in rows:
        if (row["dataset"], row["training_seed"]) == (control, 1):
            row["accuracy"] = 0.125
    record = weigh(rows)
    of_control = record.of(control, 0.1)
    assert of_control.statistics["tau"] == EstimateRecord(value=None, low=None, high=None)
    assert of_control.tau_of_repeats[1] is None
    assert of_control.tau_of_repeats[0] is not None
    against = difference_to(record, control)
    assert (against.difference.value, against.outcome) == (None, "undecided")
    assert record.verdict == "not enough evidence"
    other = FEWER_EPOCHS if control == RANDOM else RANDOM
    assert difference_to(record, other) == difference_to(weigh(everything()), other)


def test_fewer_than_five_architectures_are_refused_and_what_was_left_out_is_named() -> None:
    full = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    proxy = np.array([[0.1, 0.2, math.nan, 0.4, None, 0.6]])
    with pytest.raises(EvidenceError, match=r"at least 5 architectures .*found 4") as caught:
        weigh(rows_of(FULL, full) + rows_of(PROXY, proxy), failures=["net 04 on proxy: it diverged", "another"])
    assert "net 02, net 04" in str(caught.value)
    assert "2 runs failed, the first: net 04 on proxy: it diverged" in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "repeat", "named"),
    [(FULL, 0, "on full, number 1"), (PROXY, 1, "on proxy 0.1, number 2")],
)
def test_accuracies_that_are_all_the_same_are_refused_by_name(dataset: str, repeat: int, named: str) -> None:
    rows = everything()
    for row in rows:
        if (row["dataset"], row["training_seed"]) == (dataset, repeat):
            row["accuracy"] = 0.125
    with pytest.raises(EvidenceError, match=rf"all 20 architectures have 0\.125 {re.escape(named)};"):
        weigh(rows)


def test_a_constant_repeat_of_the_proxy_at_another_ratio_is_not_refused() -> None:
    rows = everything() + rows_of(PROXY, [[0.1] * N, [0.1] * N], ratio=0.02, costs=COSTS)
    record = weigh(rows, Check(target=0.5))
    assert record.of(PROXY, 0.02).statistics["tau"].value is None
    assert record.verdict == weigh(everything()).verdict
    of_smaller = [each for each in record.comparisons if (each.ratio, each.ranked_by) == (0.02, BY_ACCURACY)]
    assert {each.outcome for each in of_smaller} == {"undecided"}
    assert record.sufficient_ratio == 0.1


def test_more_architectures_than_can_be_weighed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_RANKED", N)
    assert weigh(everything()).n_architectures == N
    monkeypatch.setattr(evidence, "MAX_RANKED", N - 1)
    with pytest.raises(EvidenceError, match=r"at most 19 architectures, found 20; take a sample of them"):
        weigh(everything())


@pytest.mark.parametrize(
    ("absent", "named"), [(FULL, "full data, there are none"), (PROXY, "the proxy at its ratio 0.1, there are none")]
)
@pytest.mark.parametrize("how", ["no rows", "no accuracies"])
def test_no_accuracies_on_full_data_or_the_proxy_are_refused(absent: str, named: str, how: str) -> None:
    rows = everything()
    if how == "no rows":
        rows = [row for row in rows if row["dataset"] != absent]
    else:
        rows = [{**row, "accuracy": None} if row["dataset"] == absent else row for row in rows]
    with pytest.raises(EvidenceError, match=named):
        weigh(rows, failures=["net 00: it diverged"])


def test_a_proxy_at_another_ratio_alone_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"its ratio 0\.05, there are none"):
        weigh(everything(), own_ratio=0.05)


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(EvidenceError, match="full data, there are none"):
        weigh([])


def test_five_architectures_are_enough() -> None:
    five = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    record = weigh(rows_of(FULL, five) + rows_of(PROXY, five))
    assert record.of(PROXY, 0.1).statistics["tau"].value == pytest.approx(1)


@pytest.mark.parametrize(("accuracy", "advice"), [(1.0, "train shorter"), (0.1, "train longer")])
def test_what_helps_against_accuracies_that_are_all_the_same_depends_on_them(accuracy: float, advice: str) -> None:
    rows = [{**row, "accuracy": accuracy} if row["dataset"] == PROXY else row for row in everything()]
    with pytest.raises(EvidenceError, match=advice):
        weigh(rows)


# On evaluation samples


def on_evaluation_too(rows: list[dict[str, Any]], noise: float) -> list[dict[str, Any]]:
    """Adds to each run an accuracy on evaluation samples."""
    rng = np.random.default_rng(7)
    return [
        {**row, "evaluation_accuracy": float(np.clip(row["accuracy"] + noise * rng.normal(), 0, 1))} for row in rows
    ]


def test_a_ranking_on_evaluation_samples_is_compared_run_by_run_with_that_on_test_samples() -> None:
    rows = on_evaluation_too(everything(), 0.1)
    record = weigh(rows).on_evaluation
    assert record is not None
    for name, dataset in (("full", FULL), ("proxy", PROXY)):
        of_runs = []
        for repeat in range(2):
            of_run = [row for row in rows if (row["dataset"], row["training_seed"]) == (dataset, repeat)]
            of_runs.append(taus(*(np.array([row[on] for row in of_run]) for on in ("accuracy", "evaluation_accuracy"))))
        estimate = getattr(record, name)
        assert estimate.value == pytest.approx(np.mean(of_runs))
        assert estimate.low < estimate.value < estimate.high
    same = weigh(on_evaluation_too(everything(), 0.0)).on_evaluation
    assert same is not None
    assert (same.full.value, same.proxy.value) == (1, 1)


def test_what_was_not_measured_on_evaluation_samples_is_not_compared() -> None:
    rows = on_evaluation_too(everything(), 0.1)
    assert weigh(everything()).on_evaluation is None
    record = weigh(
        [{**row, "evaluation_accuracy": None} if row["dataset"] == FULL else row for row in rows]
    ).on_evaluation
    assert record is not None
    assert record.full is None
    assert record.proxy is not None
    one = next(number for number, row in enumerate(rows) if row["dataset"] == PROXY)
    holed = [{**row, "evaluation_accuracy": None} if number == one else row for number, row in enumerate(rows)]
    assert weigh(holed).on_evaluation.proxy is None


def test_one_draw_gives_a_comparison_on_evaluation_samples_without_an_interval() -> None:
    rows = [row for row in on_evaluation_too(everything(), 0.1) if row["dataset"] != PROXY or row["draw_seed"] == 0]
    record = weigh(rows).on_evaluation
    assert record is not None
    assert record.proxy.value is not None
    assert record.proxy.low is None


def with_losses(rows: list[dict[str, Any]], losses: list[list[float]]) -> list[dict[str, Any]]:
    return [{**row, "loss": losses[row["training_seed"]][int(row["architecture"][4:])]} for row in rows]


def test_what_learnt_soft_labels_ranks_by_its_loss_too_the_lower_the_better() -> None:
    full, wrong, n = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95], [0.3, 0.1, 0.2, 0.6, 0.4, 0.5], 6
    right = [[float(n - i) for i in range(n)]] * 2  # the better the lower
    rows = rows_of(FULL, [full] * 2) + with_losses(rows_of(PROXY, [wrong] * 2), right)
    rows += with_losses(rows_of(RANDOM, [wrong] * 2), [right[0][::-1]] * 2)
    found = weigh(rows, **SOFT)
    by_accuracy, by_loss = (found.of(PROXY, 0.1, score) for score in (BY_ACCURACY, BY_LOSS))
    assert by_accuracy is not None
    assert by_loss is not None
    assert by_accuracy.statistics["tau"].value == pytest.approx(7 / 15)
    assert by_loss.statistics["tau"].value == 1
    assert by_loss.statistics["regret"].value == 0
    assert "pearson" not in by_loss.statistics
    compared = found.compare_with(RANDOM, 0.1, BY_LOSS)
    assert compared is not None
    assert compared.difference.value == 2
    ranking = {each.ranked_by for each in found.searches if each.method in (PROXY, RANDOM)}
    assert ranking == {BY_LOSS, WITH_PARAMETERS[BY_LOSS]}
    assert found.ranked_by == BY_LOSS
    assert found.of(PROXY, 0.1) == by_loss
    assert found.compare_with(RANDOM, 0.1) == compared
    assert found.own_tau.value == 1
    assert [each.proxy_place for each in found.architectures] == [1, 2, 3, 4, 5, 6]


def test_what_learnt_labels_or_lacks_a_loss_does_not_rank_by_it() -> None:
    rows = with_losses([each for each in everything() if each["training_seed"] < 2], [[1.0 + i for i in range(N)]] * 2)
    lacking = [*rows[:-1], {**rows[-1], "loss": None}]
    assert {each.method for each in weigh(rows, **SOFT).methods if each.ranked_by == BY_LOSS} >= {PROXY, RANDOM}
    assert not [each for each in weigh(rows).methods if each.ranked_by == BY_LOSS]
    last = rows[-1]["dataset"]
    assert last not in {each.method for each in weigh(lacking, **SOFT).methods if each.ranked_by == BY_LOSS}
