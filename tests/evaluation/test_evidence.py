"""From runs to evidence: arrays, resamples, intervals, verdicts and spending, on small tables of runs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from proxyds.evaluation.bootstrap import compare_repeats, compare_seeds, draw_resamples, estimate, other_seeds
from scipy import stats

from proxyds.artifact.evidence_records import ComparisonRecord, EstimateRecord, EvidenceRecord, MachineRecord
from proxyds.artifact.manifest import CountsRecord, DrawRecord, Manifest, StageRecord
from proxyds.artifact.ranking_table import (
    FEWER_EPOCHS,
    FULL,
    PROXY,
    RANDOM,
    STATISTICS,
    STRATIFIED,
    collect_accuracies,
    make_runs_table,
)
from proxyds.errors import EvidenceError
from proxyds.evaluation import bootstrap, evidence
from proxyds.evaluation.cost import weigh_spending
from proxyds.evaluation.evidence import Provenance, judge, weigh_evidence
from proxyds.recipe.models import Check

Rows = list[dict[str, Any]]
MACHINE = MachineRecord(device="cpu", processor="any", n_cores=2, python="3.11", libraries={"numpy": "2"})
N_RESAMPLES = bootstrap.N_RESAMPLES

N = 20
QUALITY = np.linspace(0.5, 0.9, N)
"""What the architectures are worth on full data, the last the best."""
UNRELATED = np.random.default_rng(5).permutation(N)
"""A ranking that has nothing to do with quality."""
COSTS = 1000 + 100 * np.random.default_rng(10).permutation(N)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "N_RESAMPLES", 400)


@pytest.fixture
def all_resamples(_few_resamples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "N_RESAMPLES", N_RESAMPLES)


def rows_of(
    dataset: str,
    accuracies: Sequence[Sequence[float | None]] | np.ndarray,
    *,
    ratio: float = 0.1,
    costs: Sequence[int] | np.ndarray | None = None,
    **about: Any,
) -> Rows:
    """Rows of a data set: accuracies are repeats by architectures."""
    rows = []
    for repeat, of_each in enumerate(accuracies):
        for i, accuracy in enumerate(of_each):
            cost = int(costs[i]) if costs is not None else 1000 + 10 * i
            rows.append(
                {
                    "architecture": f"net {i:02}",
                    "network": "resnet",
                    "parameters": f'{{"depth": {i}}}',
                    "forward_flops": cost // 3,
                    "training_flops": cost,
                    "n_parameters": cost + i,
                    "dataset": dataset,
                    "ratio": 1.0 if dataset == FULL else ratio,
                    "draw_seed": None if dataset in (FULL, FEWER_EPOCHS) else repeat,
                    "training_seed": repeat,
                    "n_samples": 100,
                    "n_steps": 10,
                    "n_epochs": 5.0,
                    "run_flops": 50 * cost,
                    "accuracy": accuracy,
                    "training_seconds": 1.0,
                    "test_seconds": 0.5,
                    "device": "cpu",
                    "origin": "trained",
                    **about,
                }
            )
    return rows


def weigh(rows: Rows, check: Check | None = None, *, own_ratio: float = 0.1, **about: Any) -> EvidenceRecord:
    """Weighs rows; `about` replaces what a provenance or a manifest says."""
    provenance: dict[str, Any] = {
        "planned": [],
        "runs": "trained here",
        "reference": "trained here",
        "failures": [],
        "elapsed_seconds": 3.0,
        "machine": MACHINE,
    }
    said: dict[str, Any] = {
        "draw": DrawRecord.model_construct(ratio=own_ratio),
        "counts": CountsRecord.model_construct(train=1000, test=359),
        "seed": 0,
        "stages": [StageRecord(stage="probe", work_seconds=2, elapsed_seconds=1, flops=10, was_stored=False)],
    }
    for name, value in about.items():
        (provenance if name in provenance else said)[name] = value
    manifest = Manifest.model_construct(**said)
    return weigh_evidence(make_runs_table(rows), check or Check(), Provenance(**provenance), manifest)


def around(truth: np.ndarray, noise: float, *, seed: int, repeats: int = 2) -> np.ndarray:
    """Repeats of accuracies around a truth."""
    return truth + noise * np.random.default_rng(seed).normal(size=(repeats, len(truth)))


def hopeless(seed: int, repeats: int = 2, n: int = N) -> np.ndarray:
    """Repeats that say nothing."""
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(n) / 100 + 0.2 for _ in range(repeats)])


def everything(
    *,
    full: np.ndarray | None = None,
    proxy: np.ndarray | None = None,
    random: np.ndarray | None = None,
    fewer_epochs: np.ndarray | None = None,
    costs: np.ndarray = COSTS,
) -> Rows:
    """A good proxy, controls that say nothing, costs that say nothing; replace what a test is about."""
    return [
        *rows_of(FULL, around(QUALITY, 0.005, seed=1) if full is None else full, costs=costs),
        *rows_of(PROXY, around(QUALITY - 0.3, 0.01, seed=2) if proxy is None else proxy, costs=costs),
        *rows_of(RANDOM, hopeless(3) if random is None else random, costs=costs),
        *rows_of(FEWER_EPOCHS, hopeless(4) if fewer_epochs is None else fewer_epochs, costs=costs),
    ]


def difference_to(record: EvidenceRecord, control: str, ratio: float = 0.1) -> ComparisonRecord:
    [found] = [each for each in record.comparisons if (each.control, each.ratio) == (control, ratio)]
    return found


# -- from rows to arrays ----------------------------------------------------------------------------------------------


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


# -- resamples and intervals ------------------------------------------------------------------------------------------


def test_the_first_resample_is_the_sample_and_all_have_its_size(all_resamples: None) -> None:
    counts = draw_resamples(12, 3, {2, 4}, seed=0)
    drawn = counts.architectures
    assert drawn.shape == (N_RESAMPLES + 1, 12)
    assert (drawn[0] == 1).all()
    assert (drawn.sum(axis=1) == 12).all()
    assert drawn.min() >= 0
    # with replacement, each with the same chance: the mean is 1, the variance 1 - 1 / size
    assert drawn.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert drawn[1:].var(axis=0) == pytest.approx(1 - 1 / 12, abs=0.12)


def test_draws_and_references_are_weighed_so_that_means_vary_as_they_should(all_resamples: None) -> None:
    counts = draw_resamples(12, 3, {2, 4}, seed=0)
    assert set(counts.draws) == {1, 2, 3, 4}
    rng = np.random.default_rng(3)
    for weights in (*counts.draws.values(), counts.references):
        n = weights.shape[1]
        assert (weights[0] == 1 / n).all()
        assert weights.sum(axis=1) == pytest.approx(1)
        values = rng.normal(size=n)
        # the variance of a mean of n, or the delete-one jackknife's for references that are means of all but one
        squares = ((values - values.mean()) ** 2).sum()
        expected = (n - 1) / n * squares if weights is counts.references else squares / max(1, n - 1) / n
        assert (weights[1:] @ values).var() == pytest.approx(expected, rel=0.1, abs=1e-12)


def test_the_jackknife_of_other_seeds_is_as_wide_as_the_noise_of_seeds(all_resamples: None) -> None:
    """The spread of a linear statistic over fresh sets of seeds is what the widened weights give, on average."""
    rng = np.random.default_rng(4)
    weights = draw_resamples(5, 3, {1}, seed=0).references[1:]
    found, spread = [], []
    for _ in range(400):
        references = other_seeds(rng.normal(size=(3, 1)))
        found.append(references.mean())
        spread.append((weights @ references[:, 0]).var())
    assert np.mean(spread) == pytest.approx(np.var(found), rel=0.15)


def test_resamples_depend_on_the_seed_alone() -> None:
    first, again, other = (
        draw_resamples(12, 3, {2}, seed=7),
        draw_resamples(12, 3, [2, 2, 1], seed=7),
        draw_resamples(12, 3, {2}, seed=8),
    )
    for name in ("architectures", "references"):
        assert (getattr(first, name) == getattr(again, name)).all()
        assert (getattr(first, name) != getattr(other, name)).any()
    assert (first.draws[2] == again.draws[2]).all()
    assert (first.draws[2] != other.draws[2]).any()


def test_architectures_references_and_draws_are_drawn_each_for_itself() -> None:
    counts = draw_resamples(3, 3, {3}, seed=0)
    assert (counts.architectures != counts.references).any()
    assert (counts.references != counts.draws[3]).any()
    assert (counts.architectures != counts.draws[3]).any()


def taus(reference: np.ndarray, measured: np.ndarray, counts: np.ndarray | None = None) -> float:
    of_each = np.ones(len(reference), int) if counts is None else counts
    return stats.kendalltau(np.repeat(reference, of_each), np.repeat(measured, of_each)).statistic


def test_repeats_are_averaged_over_every_reference_as_a_double_loop_does() -> None:
    rng = np.random.default_rng(0)
    references, measured, cost = rng.random((3, 9)), rng.random((2, 9)), rng.uniform(100, 130, 9)
    counts = draw_resamples(9, 3, {2}, seed=0)
    values = compare_repeats(references, measured, np.arange(2), cost, counts)
    assert set(values) == set(STATISTICS)
    assert {len(of_one) for of_one in values.values()} == {401}
    every = list(product(references, measured))
    assert values["tau"][0] == pytest.approx(np.mean([taus(x, y) for x, y in every]))
    assert values["spearman"][0] == pytest.approx(np.mean([stats.spearmanr(x, y).statistic for x, y in every]))
    assert values["pearson"][0] == pytest.approx(np.mean([stats.pearsonr(x, y).statistic for x, y in every]))
    assert values["same_best"][0] == pytest.approx(np.mean([x.argmax() == y.argmax() for x, y in every]))
    assert values["regret"][0] == pytest.approx(np.mean([x.max() - x[y.argmax()] for x, y in every]))


def test_a_resample_is_averaged_over_the_references_and_repeats_that_it_draws() -> None:
    rng = np.random.default_rng(1)
    references, measured = rng.random((3, 9)), rng.random((2, 9))
    counts = draw_resamples(9, 3, {2}, seed=0)
    values = compare_repeats(references, measured, np.arange(2), rng.random(9), counts)
    for b in range(1, 40):
        of_each = [[taus(x, y, counts.architectures[b]) for x in references] for y in measured]
        expected = counts.draws[2][b] @ np.array(of_each) @ counts.references[b]
        assert values["tau"][b] == pytest.approx(np.clip(expected, -1, 1))


def test_the_ceiling_compares_each_seed_with_its_own_reference() -> None:
    rng = np.random.default_rng(2)
    full = rng.random((3, 9))
    counts = draw_resamples(9, 3, {3}, seed=0)
    values = compare_seeds(other_seeds(full), full, rng.random(9), counts)
    expected = [taus(np.delete(full, seed, axis=0).mean(axis=0), full[seed]) for seed in range(3)]
    assert values["tau"][0] == pytest.approx(np.mean(expected))
    for b in range(1, 20):
        references = [np.delete(full, seed, axis=0).mean(axis=0) for seed in range(3)]
        of_each = [taus(x, y, counts.architectures[b]) for x, y in zip(references, full, strict=True)]
        assert values["tau"][b] == pytest.approx(np.clip(counts.draws[3][b] @ np.array(of_each), -1, 1))


def test_an_estimate_is_the_first_value_and_the_middle_of_the_others_by_hand() -> None:
    found = estimate(np.array([7.0, *range(41)]))
    assert (found.value, found.low, found.high) == (7, pytest.approx(1), pytest.approx(39))


def test_resamples_without_a_value_are_left_out_unless_they_are_more_than_one_in_ten() -> None:
    found = estimate(np.array([7.0, *range(41), *[math.nan] * 4]))
    assert (found.value, found.low, found.high) == (7, pytest.approx(1), pytest.approx(39))
    found = estimate(np.array([7.0, *range(90), *[math.nan] * 10]))  # exactly one in ten
    assert (found.low, found.high) == (pytest.approx(2.225), pytest.approx(86.775))
    found = estimate(np.array([7.0, *range(41), *[math.nan] * 5]))
    assert (found.value, found.low, found.high) == (7, None, None)
    assert estimate(np.array([math.nan] * 9)) == EstimateRecord(value=None, low=None, high=None)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_intervals_contain_the_value(seed: int) -> None:
    full, proxy = around(QUALITY, 0.05, seed=seed, repeats=3), around(QUALITY, 0.1, seed=seed + 100, repeats=3)
    record = weigh(rows_of(FULL, full, costs=COSTS) + rows_of(PROXY, proxy, costs=COSTS))
    for method in record.methods:
        for name in ("tau", "tau_weighted", "tau_like_cost", "spearman", "pearson", "tau_given_cost"):
            if (method.method, name) == ("parameters", "tau_given_cost"):  # here both costs rank alike: none is left
                assert method.statistics[name] == EstimateRecord(value=None, low=None, high=None)
            elif name in method.statistics:
                found = method.statistics[name]
                assert found.low <= found.value <= found.high, (method.method, name)
                assert -1 <= found.low < found.high <= 1


def test_the_interval_of_tau_is_scipys_bootstrap_over_architectures(all_resamples: None) -> None:
    full, proxy = around(QUALITY, 0.05, seed=1, repeats=1), around(QUALITY, 0.1, seed=2, repeats=1)
    tau = weigh(rows_of(FULL, full, costs=COSTS) + rows_of(PROXY, proxy, costs=COSTS)).of(PROXY, 0.1).statistics["tau"]
    theirs = stats.bootstrap(
        (full[0], proxy[0]),
        taus,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1500,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert tau.value == pytest.approx(taus(full[0], proxy[0]))
    assert (tau.low, tau.high) == pytest.approx(tuple(theirs), abs=0.05)


def test_more_draws_that_disagree_widen_the_interval() -> None:
    full = around(QUALITY, 0, seed=1)
    alike, apart = np.array([QUALITY, QUALITY]), np.array([QUALITY, QUALITY[UNRELATED]])
    narrow, wide = (
        weigh(rows_of(FULL, full) + rows_of(PROXY, proxy)).of(PROXY, 0.1).statistics["tau"] for proxy in (alike, apart)
    )
    assert (narrow.low, narrow.high) == pytest.approx((1, 1))
    assert wide.low < 0.3
    assert wide.high > 0.9


# -- the record -------------------------------------------------------------------------------------------------------


def test_the_noise_ceiling_of_identical_seeds_is_one() -> None:
    record = weigh(everything(full=np.array([QUALITY] * 3)))
    ceiling = record.of(FULL, None)
    for name in ("tau", "spearman", "pearson", "tau_weighted", "same_best", "top_overlap"):
        found = ceiling.statistics[name]
        assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1)), name
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
    assert record.explanation.endswith(" There is one training on everything: its noise is in no interval.")
    assert "There is one training" not in weigh(everything()).explanation


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
    assert [(each.method, each.ratio, each.n_draws) for each in record.methods] == [
        (PROXY, 0.1, 2),
        (PROXY, 0.3, 4),
        (FULL, None, 3),
        ("flops", None, 1),
        ("parameters", None, 1),
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


# -- draws and trainings on them --------------------------------------------------------------------------------------


def trained_again(dataset: str, accuracies: np.ndarray, n_trainings: int, **about: Any) -> Rows:
    """Rows of (D, T, n) or (D, n) accuracies: every draw with as many training seeds, copies where there is one."""
    rows = []
    for draw, of_draw in enumerate(accuracies):
        trainings = [of_draw] * n_trainings if of_draw.ndim == 1 else of_draw
        for seed, of_training in enumerate(trainings):
            rows += [{**row, "draw_seed": draw, "training_seed": 10 * draw + seed}
                     for row in rows_of(dataset, [of_training], **about)]  # fmt: skip
    return rows


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
    assert len(record.of(PROXY, 0.1).tau_of_repeats) == 3
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
    assert len(of_thrice.tau_of_repeats) == 9
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
    expected = (np.mean(of_proxy.tau_of_repeats[:3]) + of_proxy.tau_of_repeats[3]) / 2
    assert of_proxy.statistics["tau"].value == pytest.approx(expected)


@pytest.mark.parametrize("control", [RANDOM, STRATIFIED, FEWER_EPOCHS])
def test_a_control_with_one_draw_leaves_its_comparison_undecided(control: str) -> None:
    rows = [
        *rows_of(FULL, np.array([QUALITY] * 3), costs=COSTS),
        *rows_of(PROXY, around(QUALITY, 0.001, seed=2, repeats=3), costs=COSTS),
    ]
    for number, name in enumerate((RANDOM, STRATIFIED, FEWER_EPOCHS)):
        rows += rows_of(name, hopeless(number + 20, repeats=1 if name == control else 3), costs=COSTS)
    record = weigh(rows)
    outcomes = {each.control: each.outcome for each in record.comparisons}
    assert outcomes.pop(control) == "undecided"
    assert set(outcomes.values()) == {"better"}
    assert difference_to(record, control).difference.low > 0  # its interval alone would say better
    expected = "preserves the ranking" if control == STRATIFIED else "not enough evidence"
    assert record.verdict == expected


def test_one_draw_passes_no_threshold_and_is_of_no_sufficient_ratio() -> None:
    full = np.array([QUALITY] * 3)
    rows = rows_of(FULL, full) + rows_of(PROXY, full[:1]) + rows_of(PROXY, full[:2], ratio=0.3)
    record = weigh(rows, Check(threshold=0.5))
    assert record.of(PROXY, 0.1).statistics["tau"].low == pytest.approx(1)
    assert (record.passed, record.sufficient_ratio) == (False, 0.3)
    record = weigh([row for row in rows if row["ratio"] != 0.3], Check(threshold=0.5))
    assert (record.passed, record.sufficient_ratio) == (False, None)
    assert weigh(rows, Check(target=0.5)).passed is None


def test_differences_are_taken_resample_by_resample() -> None:
    # the control ranks as the proxy does: whatever is drawn, nothing is between them
    proxy = around(QUALITY, 0.1, seed=2)
    record = weigh([*everything(proxy=proxy), *rows_of(STRATIFIED, proxy**2, costs=COSTS)])
    assert record.of(PROXY, 0.1).statistics["tau"].low < record.of(PROXY, 0.1).statistics["tau"].high - 0.1
    against = difference_to(record, STRATIFIED)
    assert (against.difference.value, against.difference.low, against.difference.high) == pytest.approx((0, 0, 0))
    assert against.outcome == "no better"


def test_every_ratio_is_compared_with_the_controls_of_its_own() -> None:
    rows = everything() + rows_of(PROXY, hopeless(8), ratio=0.02, costs=COSTS)
    rows += rows_of(RANDOM, around(QUALITY, 0.005, seed=9), ratio=0.02, costs=COSTS)
    record = weigh(rows)
    of = {(each.control, each.ratio): each.outcome for each in record.comparisons}
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


def test_another_seed_draws_other_resamples_of_the_same_values() -> None:
    first, other = weigh(everything(), seed=1), weigh(everything(), seed=2)
    one, two = (record.of(PROXY, 0.1).statistics["tau"] for record in (first, other))
    assert one.value == two.value
    assert (one.low, one.high) != (two.low, two.high)
    assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=0.05)


# -- verdicts ---------------------------------------------------------------------------------------------------------


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
    same = around(QUALITY - 0.3, 0.01, seed=2)
    record = weigh(everything(proxy=same, random=same))
    assert difference_to(record, RANDOM).difference == EstimateRecord(value=0, low=0, high=0)
    assert record.verdict == "no better than random"
    assert "random subsets" in record.explanation
    assert "ruled out" in record.explanation


def test_a_proxy_that_ranks_the_other_way_round_is_worse_than_random() -> None:
    record = weigh(everything(proxy=around(1 - QUALITY, 0.01, seed=2)))
    assert difference_to(record, RANDOM).outcome == "worse"
    assert record.verdict == "worse than random"
    assert "below zero" in record.explanation


def test_a_proxy_that_ranks_as_cost_does_is_no_better_than_counting_flops() -> None:
    worth = np.arange(N)
    costs = 1000 + 10 * (worth + 5 * (worth % 3))  # related to quality, not the same
    record = weigh(everything(proxy=np.array([costs / 5000, costs / 4000]), random=hopeless(3), costs=costs))
    assert difference_to(record, RANDOM).outcome == "better"
    assert difference_to(record, "flops").difference.value == pytest.approx(0)
    assert record.verdict == "no better than counting FLOPs"
    assert "counting FLOPs" in record.explanation


def test_a_proxy_as_good_as_fewer_epochs_on_everything_is_no_better() -> None:
    same = around(QUALITY - 0.3, 0.01, seed=2)
    record = weigh(everything(proxy=same, fewer_epochs=same + 0.1))
    assert record.verdict == "no better than fewer epochs"
    assert "fewer epochs on everything" in record.explanation


def test_too_few_and_noisy_runs_are_not_enough_evidence_and_say_how_many_there_are() -> None:
    rng = np.random.default_rng(0)
    truth = np.linspace(0.5, 0.6, 12)
    rows = [
        *rows_of(FULL, around(truth, 0.01, seed=0)),
        *rows_of(PROXY, around(truth, 0.03, seed=1)),
        *rows_of(RANDOM, around(truth, 0.03, seed=2)),
        *rows_of(FEWER_EPOCHS, rng.random((2, 12))),
    ]
    for row in rows:
        row["training_flops"] += (7919 * int(row["architecture"][-2:])) % 400
    record = weigh(rows)
    assert difference_to(record, RANDOM).outcome == "undecided"
    assert record.verdict == "not enough evidence"
    assert f"runs more than the {len(rows)} here" in record.explanation
    assert "whichever holds the noise" in record.explanation


@pytest.mark.parametrize(
    ("absent", "words"), [(RANDOM, "random subsets of its size"), (FEWER_EPOCHS, "fewer epochs on everything")]
)
def test_without_a_control_there_is_not_enough_evidence_and_it_is_named(absent: str, words: str) -> None:
    record = weigh([row for row in everything() if row["dataset"] != absent])
    assert record.verdict == "not enough evidence"
    assert words in record.explanation
    assert record.explanation.count(" of ") == 1 + words.count(" of ")


def test_without_any_control_all_that_lack_runs_are_named() -> None:
    record = weigh([row for row in everything() if row["dataset"] in (FULL, PROXY)])
    assert record.verdict == "not enough evidence"
    assert "random subsets of its size" in record.explanation
    assert "fewer epochs on everything" in record.explanation
    assert "FLOPs" not in record.explanation


def compared(control: str, value: float, low: float | None, high: float | None, ratio: float = 0.1) -> ComparisonRecord:
    difference = EstimateRecord(value=value, low=low, high=high)
    return ComparisonRecord(control=control, ratio=ratio, difference=difference, outcome=evidence._outcome(difference))


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
    assert compared(RANDOM, 0.0, low, high).outcome == outcome


BETTER, NO_BETTER, WORSE, UNDECIDED = (0.3, 0.1, 0.5), (0.0, -0.1, 0.04), (-0.3, -0.5, -0.1), (0.1, -0.1, 0.3)


@pytest.mark.parametrize(
    ("random", "flops", "fewer", "verdict"),
    [
        (BETTER, BETTER, BETTER, "preserves the ranking"),
        (WORSE, BETTER, BETTER, "worse than random"),
        (NO_BETTER, WORSE, WORSE, "no better than random"),
        (BETTER, NO_BETTER, NO_BETTER, "no better than counting FLOPs"),
        (BETTER, WORSE, BETTER, "no better than counting FLOPs"),
        (BETTER, BETTER, NO_BETTER, "no better than fewer epochs"),
        (BETTER, BETTER, WORSE, "no better than fewer epochs"),
        (UNDECIDED, NO_BETTER, BETTER, "no better than counting FLOPs"),  # what is certain comes first
        (UNDECIDED, UNDECIDED, WORSE, "no better than fewer epochs"),
        (UNDECIDED, BETTER, BETTER, "not enough evidence"),
        (BETTER, UNDECIDED, BETTER, "not enough evidence"),
        (BETTER, BETTER, UNDECIDED, "not enough evidence"),
        (None, BETTER, BETTER, "not enough evidence"),
        (BETTER, BETTER, None, "not enough evidence"),
        (None, WORSE, BETTER, "no better than counting FLOPs"),
    ],
)
def test_a_verdict_says_first_what_is_certain(random: Any, flops: Any, fewer: Any, verdict: str) -> None:
    every = [
        compared(name, *found)
        for name, found in ((RANDOM, random), ("flops", flops), (FEWER_EPOCHS, fewer))
        if found is not None
    ]
    others = [compared(name, *WORSE, ratio=0.5) for name in (RANDOM, "flops", FEWER_EPOCHS)]
    others += [compared("parameters", *WORSE), compared(STRATIFIED, *WORSE)]  # shown, but no part of the verdict
    for order in (every + others, (every + others)[::-1]):
        assert judge(order, 0.1, 3, 100)[0] == verdict


def explain(value: float, low: float, high: float, n_runs: int) -> str:
    rest = [compared("flops", *BETTER), compared(FEWER_EPOCHS, *BETTER)]
    verdict, explanation = judge([compared(RANDOM, value, low, high), *rest], 0.1, 3, n_runs)
    assert verdict == "not enough evidence"
    return explanation


def test_an_undecided_verdict_says_how_many_runs_would_settle_it_by_hand() -> None:
    # the lower 0.2 must shrink to the gain of 0.1: four times the runs
    explanation = explain(0.1, -0.1, 0.3, n_runs=1500)
    assert "0.10 [-0.10, 0.30]" in explanation
    assert (
        "about 4.0 times as many architectures, draws or both would settle it, whichever holds the noise" in explanation
    )
    assert "noise: 4,500 to 22,500 runs more than the 1,500 here." in explanation  # 3 * 1500, (4² - 1) * 1500
    # no gain: 0.2 must shrink to 0.05 to rule one out
    explanation = explain(0.0, -0.2, 0.2, n_runs=100)
    assert "about 16.0 times" in explanation
    assert "noise: 1,500 to 25,500 runs more than the 100 here." in explanation


def test_an_undecided_verdict_never_asks_for_fewer_runs_than_there_are() -> None:
    # a skewed interval, as tau's is near its bounds: half of it is less than the gain, yet it reaches below zero
    explanation = explain(0.3, -0.01, 0.35, n_runs=100)
    fewest, most = re.search(r"noise: (-?[\d,]+) to (-?[\d,]+) runs more", explanation).groups()
    assert 0 < int(fewest.replace(",", "")) <= int(most.replace(",", "")), explanation
    assert float(re.search(r"about (\S+) times", explanation)[1]) > 1, explanation


def test_one_draw_decides_nothing() -> None:
    full, proxy = around(QUALITY, 0.001, seed=1, repeats=3), around(QUALITY, 0.001, seed=2, repeats=1)
    rows = rows_of(FULL, full) + rows_of(PROXY, proxy)
    for number, control in enumerate((RANDOM, STRATIFIED, FEWER_EPOCHS)):
        rows += rows_of(control, hopeless(number, repeats=1))
    found = weigh(rows)
    assert {each.outcome for each in found.comparisons} == {"undecided"}
    assert found.verdict == "not enough evidence"
    assert "check with 3 draws or more" in found.explanation


def test_a_comparison_without_an_interval_asks_for_architectures() -> None:
    rest = [compared("flops", *BETTER), compared(FEWER_EPOCHS, *BETTER)]
    verdict, explanation = judge([compared(RANDOM, 0.1, None, None), *rest], 0.1, 3, 100)
    assert verdict == "not enough evidence"
    assert "0.10 [no interval]" in explanation
    assert "More architectures and draws are needed." in explanation


# -- thresholds -------------------------------------------------------------------------------------------------------


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
    assert 0.6 < low < 0.98
    for target, sufficient in ((-1.0, 0.02), (0.6, 0.1), (0.99, 0.3)):
        record = weigh(rows, Check(target=target))
        assert (record.sufficient_ratio, record.target, record.passed) == (sufficient, target, None)
    # the target comes before the threshold, which is for the proxy's own ratio
    record = weigh(rows, Check(target=0.6, threshold=0.99))
    assert (record.sufficient_ratio, record.target, record.passed) == (0.1, 0.6, False)
    record = weigh(rows, Check(threshold=0.99))
    assert (record.sufficient_ratio, record.target, record.passed) == (0.3, 0.99, False)
    assert weigh(rows, Check(threshold=0.99), own_ratio=0.3).passed is True
    assert weigh([row for row in rows if row["ratio"] != 0.3], Check(target=0.99)).sufficient_ratio is None


# -- what no statistic can be made of ---------------------------------------------------------------------------------


def test_fewer_than_five_architectures_are_refused_and_what_was_left_out_is_named() -> None:
    full = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    proxy = np.array([[0.1, 0.2, math.nan, 0.4, None, 0.6]])
    with pytest.raises(EvidenceError, match=r"at least 5 architectures .*found 4") as caught:
        weigh(rows_of(FULL, full) + rows_of(PROXY, proxy), failures=["net 04 on proxy: it diverged", "another"])
    assert "net 02, net 04" in str(caught.value)
    assert "2 runs failed, the first: net 04 on proxy: it diverged" in str(caught.value)


def test_five_architectures_are_enough() -> None:
    five = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    record = weigh(rows_of(FULL, five) + rows_of(PROXY, five))
    assert record.of(PROXY, 0.1).statistics["tau"].value == pytest.approx(1)


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


@pytest.mark.parametrize(("accuracy", "advice"), [(1.0, "train shorter"), (0.1, "train longer")])
def test_what_helps_against_accuracies_that_are_all_the_same_depends_on_them(accuracy: float, advice: str) -> None:
    rows = [{**row, "accuracy": accuracy} if row["dataset"] == PROXY else row for row in everything()]
    with pytest.raises(EvidenceError, match=advice):
        weigh(rows)


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


def test_a_constant_repeat_of_the_proxy_at_another_ratio_is_not_refused() -> None:
    rows = everything() + rows_of(PROXY, [[0.1] * N, [0.1] * N], ratio=0.02, costs=COSTS)
    record = weigh(rows, Check(target=0.5))
    assert record.of(PROXY, 0.02).statistics["tau"].value is None
    assert record.verdict == weigh(everything()).verdict
    assert {each.outcome for each in record.comparisons if each.ratio == 0.02} == {"undecided"}
    assert record.sufficient_ratio == 0.1


def test_where_all_cost_the_same_flops_take_no_part_in_the_verdict() -> None:
    record = weigh(everything(costs=np.full(N, 1000)))
    assert difference_to(record, "flops").difference.value is None
    assert difference_to(record, "flops").outcome == "undecided"
    assert record.verdict == "preserves the ranking"
    assert "counting FLOPs" not in record.explanation
    none = ComparisonRecord(
        control="flops", ratio=0.1, difference=EstimateRecord(value=None, low=None, high=None), outcome="undecided"
    )
    for random, verdict in ((WORSE, "worse than random"), (UNDECIDED, "not enough evidence")):
        every = [none, compared(RANDOM, *random), compared(FEWER_EPOCHS, *BETTER)]
        found, explanation = judge(every, 0.1, 3, 100)
        assert found == verdict
        assert "FLOPs" not in explanation


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


# -- spending ---------------------------------------------------------------------------------------------------------


def stage(seconds: float, flops: int) -> StageRecord:
    return StageRecord(stage="any", work_seconds=seconds, elapsed_seconds=999, flops=flops, was_stored=True)


def spending_rows(dataset: str, flops: Sequence[int], seconds: Sequence[float], **about: Any) -> Rows:
    """Rows of two architectures; a test takes half a second."""
    rows = rows_of(dataset, [[0.1, 0.2]], costs=[3, 5], **about)
    return [{**row, "run_flops": f, "training_seconds": s} for row, f, s in zip(rows, flops, seconds, strict=True)]


def test_spending_by_hand() -> None:
    rows = [
        *spending_rows(FULL, [1000, 3000], [10.0, 30.0]),
        *spending_rows(PROXY, [100, 300], [2.0, 2.0]),
        *spending_rows(PROXY, [700, 900], [6.0, 8.0], ratio=0.5),  # another size: a part of the check alone
        *spending_rows(RANDOM, [100, 300], [1.0, 3.0]),
    ]
    found = weigh_spending(make_runs_table(rows), 0.1, 1000, 0, [stage(30.0, 4000), stage(15.0, 1000)])
    assert (found.full_flops, found.proxy_flops) == (2000, 200)
    assert (found.full_seconds, found.proxy_seconds) == (20.5, 2.5)  # training and test
    assert found.speed_up == 10  # of training alone
    assert (found.build_flops, found.build_seconds) == (5000, 45)
    assert found.check_flops == 4000 + 400 + 1600 + 400
    assert found.check_seconds == 40 + 4 + 14 + 4 + 8 * 0.5
    assert found.pays_after == 3  # 45 s / 18 s saved each
    assert found.pays_after_with_check == 7  # 45 + 66 s


def test_a_proxy_that_saves_nothing_never_pays() -> None:
    rows = spending_rows(FULL, [1000, 3000], [1.0, 3.0]) + spending_rows(PROXY, [100, 300], [2.0, 2.0])
    found = weigh_spending(make_runs_table(rows), 0.1, 1000, 0, [stage(30.0, 4000)])
    assert found.speed_up == 1
    assert found.pays_after is None
    assert found.pays_after_with_check is None


def test_flops_decide_where_the_full_accuracies_were_known() -> None:
    known = spending_rows(FULL, [10**9] * 2, [10**9] * 2, origin="table t.csv")
    for row in known:
        row.update(run_flops=None, training_seconds=None, test_seconds=None, n_epochs=None, n_steps=None)
    trained = spending_rows(PROXY, [400, 600], [2.0, 4.0], n_epochs=10.0)
    found = weigh_spending(make_runs_table(known + trained), 0.1, 100, 0, [stage(30.0, 7000)])
    assert found.full_flops == (10 * 100 * 3 + 10 * 100 * 5) / 2  # epochs, samples, FLOPs of one sample
    assert (found.full_seconds, found.speed_up) == (None, None)
    assert (found.proxy_flops, found.proxy_seconds) == (500, 3.5)
    assert (found.check_flops, found.check_seconds) == (1000, 7)
    assert found.pays_after == 2  # 7000 / 3500 saved each
    assert found.pays_after_with_check == 3


def test_runs_of_another_proxy_cost_this_check_nothing() -> None:
    rows = spending_rows(FULL, [10**9] * 2, [10**6] * 2, origin="proxy other 1.0.0") + spending_rows(
        PROXY, [400, 600], [2.0, 4.0], n_epochs=10.0
    )
    found = weigh_spending(make_runs_table(rows), 0.1, 100, 0, [])
    assert (found.full_flops, found.full_seconds) == (4000, None)
    assert (found.check_flops, found.check_seconds) == (1000, 7)
    assert found.pays_after == 0


def test_where_nothing_was_trained_nothing_was_spent() -> None:
    rows = rows_of(FULL, [[0.1, 0.2]], origin="table t.csv") + rows_of(PROXY, [[0.1, 0.2]], origin="table t.csv")
    found = weigh_spending(make_runs_table(rows), 0.1, 100, 0, [stage(30.0, 7000)])
    assert (found.full_flops, found.proxy_flops, found.full_seconds, found.proxy_seconds) == (None,) * 4
    assert (found.check_flops, found.check_seconds) == (0, 0)
    assert (found.pays_after, found.pays_after_with_check, found.speed_up) == (None, None, None)
    assert (found.build_flops, found.build_seconds) == (7000, 30)


def test_evidence_holds_what_was_spent() -> None:
    rows = everything()
    stages = [stage(30.0, 7000)]
    assert weigh(rows, stages=stages).spending == weigh_spending(make_runs_table(rows), 0.1, 1000, 359, stages)
