"""Keep and inclusion probabilities, and both draw laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyds.errors import ShortageError, StarvedLabelError
from proxyds.recipe.sections.selection import Selection
from proxyds.seeding import derive_seed, uniform_keys
from proxyds.selection.draw import check_ratio, design_by, draw_samples
from proxyds.selection.records import NearestMap, Outcomes, SampleScores
from proxyds.selection.sampling import DRAW_LAWS, draw_successive, draw_systematic, inclusion_probabilities
from proxyds.selection.similarity import carry_importance
from tests.selection.ids import make_ids

N_DRAWS = 8_000
WEIGHTS = np.array([6.0, 6.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0])


def drawn(
    importance: list[float], *, ratio: float, law: str = "systematic", labels: list[int] | None = None, seed: int = 0
):
    values = np.array(importance, np.float64)
    n = len(values)
    scores = SampleScores(make_ids(n), np.array(labels if labels is not None else [0] * n), values)
    names = [f"label {i}" for i in range(scores.labels.max() + 1)]
    return draw_samples(scores, np.ones(n, np.int64), names, design_by(values), Selection(ratio=ratio, draw=law), seed)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, [0] * 9),
        (2, [0.6, 0.6, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0]),
        (4, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0]),  # 6/20 of 4 is above 1: two are certain, two are shared by 8
        (6, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0]),
        (8, [1, 1, 1, 1, 1, 1, 1, 1, 0]),
    ],
)
def test_inclusion_is_proportional_and_capped_by_hand(n: int, expected: list[float]) -> None:
    np.testing.assert_allclose(inclusion_probabilities(WEIGHTS, n), expected, atol=1e-12)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60), st.data())
def test_inclusion_sums_to_n_stays_in_bounds_and_keeps_the_order(weights: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(weights)))
    array = np.array(weights)
    probabilities = inclusion_probabilities(array, n)
    assert probabilities.sum() == pytest.approx(n)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert (np.diff(probabilities[np.argsort(array)]) >= -1e-12).all()
    below = probabilities < 1 - 1e-9
    if n and below.any():
        np.testing.assert_allclose(
            probabilities[below] / array[below], (probabilities[below] / array[below])[0], rtol=1e-6
        )


@pytest.mark.parametrize("law", DRAW_LAWS)
@given(
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 6.0]), min_size=2, max_size=80),
    seed=st.integers(0, 2**62),
    data=st.data(),
)
def test_every_law_draws_exactly_n_samples_of_positive_weight(
    law: str, weights: list[float], seed: int, data: st.DataObject
) -> None:
    array = np.array(weights)
    n = data.draw(st.integers(0, int((array > 0).sum())))
    selected = DRAW_LAWS[law](array, n, make_ids(len(array)), seed)
    assert selected.dtype == np.bool_
    assert selected.sum() == n
    assert not selected[array == 0].any()


@pytest.mark.parametrize("law", DRAW_LAWS)
def test_a_law_depends_on_ids_and_seed_never_on_order(law: str) -> None:
    ids, weights = make_ids(200), np.tile([6.0, 2.0, 1.0, 1.0], 50)
    order = np.random.default_rng(0).permutation(200)
    first = DRAW_LAWS[law](weights, 20, ids, 5)
    again = ids[order][DRAW_LAWS[law](weights[order], 20, ids[order], 5)]
    assert set(ids[first].tolist()) == set(again.tolist())
    assert (first == DRAW_LAWS[law](weights, 20, ids, 5)).all()
    assert (first != DRAW_LAWS[law](weights, 20, ids, 6)).any()


def frequencies(law: str, n: int) -> np.ndarray:
    ids = make_ids(len(WEIGHTS))
    return sum(DRAW_LAWS[law](WEIGHTS, n, ids, seed).astype(float) for seed in range(N_DRAWS)) / N_DRAWS


@pytest.mark.parametrize("n", [2, 3, 4])
def test_systematic_inclusion_is_exact_over_many_draws(n: int) -> None:
    expected = inclusion_probabilities(WEIGHTS, n)
    standard_error = np.sqrt(expected * (1 - expected) / N_DRAWS)
    assert (np.abs(frequencies("systematic", n) - expected) <= 3 * standard_error).all()


def test_successive_draws_follow_numpys_law_and_include_the_heavy_less() -> None:
    n, rng = 3, np.random.default_rng(1)
    ours = frequencies("successive", n)
    probabilities = WEIGHTS / WEIGHTS.sum()
    numpys = (
        sum(np.bincount(rng.choice(9, n, replace=False, p=probabilities), minlength=9) for _ in range(N_DRAWS))
        / N_DRAWS
    )
    standard_error = np.sqrt(2 * numpys * (1 - numpys) / N_DRAWS)
    assert (np.abs(ours - numpys) <= 4 * standard_error).all()
    assert (ours[:2] < inclusion_probabilities(WEIGHTS, n)[:2] - 0.05).all()


def walk_systematically(probabilities: list[float], order: list[int], start: float) -> list[int]:
    """The rule in its simplest words: walk along the samples, take the one under each mark start, start + 1, ..."""
    taken, position, mark = [], 0.0, start
    for sample in order:
        position += probabilities[sample]
        if mark < position:
            taken.append(sample)
            mark += 1
    return sorted(taken)


def test_systematic_takes_the_sample_under_each_mark() -> None:
    ids, weights = make_ids(12), np.array([3.0, 1, 1, 2, 2, 3, 1, 1, 2, 2, 1, 1])  # sum 20: n = 5 gives w / 4
    for seed in range(200):
        order = np.argsort(uniform_keys(ids, derive_seed(seed, "order"))).tolist()
        start = derive_seed(seed, "start") / 2**63
        expected = walk_systematically((weights / 4).tolist(), order, start)
        assert np.flatnonzero(draw_systematic(weights, 5, ids, seed)).tolist() == expected


def test_successive_takes_the_earliest_arrivals() -> None:
    ids, weights = make_ids(12), np.array([6.0, 1, 1, 2, 2, 6, 1, 1, 2, 6, 1, 1])
    arrivals = [
        -math.log(key) / weight for key, weight in zip(uniform_keys(ids, derive_seed(1, "order")), weights, strict=True)
    ]
    earliest = sorted(range(12), key=lambda sample: arrivals[sample])[:4]
    assert np.flatnonzero(draw_successive(weights, 4, ids, 1)).tolist() == sorted(earliest)


def test_draws_are_pinned_for_ever() -> None:
    ids, weights = make_ids(12), np.array([6.0, 1, 1, 2, 2, 6, 1, 1, 2, 6, 1, 1])
    assert np.flatnonzero(draw_systematic(weights, 4, ids, 1)).tolist() == [0, 4, 5, 9]
    assert np.flatnonzero(draw_successive(weights, 4, ids, 1)).tolist() == [2, 5, 8, 9]


@pytest.mark.parametrize("law", DRAW_LAWS)
@pytest.mark.parametrize(("n", "ratio", "expected"), [(100, 0.05, 5), (1295, 0.1, 130), (30, 0.05, 2), (10, 1.0, 10)])
def test_a_proxy_holds_exactly_its_ratio(law: str, n: int, ratio: float, expected: int) -> None:
    draw = drawn([2.0, 6.0] * (n // 2) + [1.0] * (n % 2), ratio=ratio, law=law)
    assert draw.selected.sum() == expected
    assert draw.keep_probability.sum() == pytest.approx(1)
    assert (draw.inclusion_probability is None) == (law == "successive")


def test_importance_is_the_mean_over_neighbours_and_the_case_the_nearests() -> None:
    outcomes = Outcomes(
        np.zeros((3, 2), np.int64),
        np.ones((3, 2), bool),
        np.array([1, 3, 2]),
        np.array([2.0, 6.0, 1.0]),
        np.zeros((3, 4), np.int64),
    )
    mapping = NearestMap(np.array([[0, 1], [1, 2], [2, 1], [1, 0]]), np.zeros(4), 2, 1, 1.0)
    case, importance = carry_importance(mapping, outcomes)
    scores = SampleScores(make_ids(4), np.zeros(4, np.int64), importance)
    draw = draw_samples(scores, case, ["a"], design_by(importance), Selection(ratio=0.5), seed=0)
    assert draw.importance.tolist() == [4, 3.5, 3.5, 4]
    assert draw.case.tolist() == [1, 3, 2, 3]
    np.testing.assert_allclose(draw.keep_probability, [4 / 15, 3.5 / 15, 3.5 / 15, 4 / 15])


def test_a_shortage_says_what_would_fit() -> None:
    with pytest.raises(
        ShortageError, match=r"asks for 5 samples, but only 3 have an importance above zero; use 0\.3 or less"
    ):
        drawn([0.0] * 7 + [6.0] * 3, ratio=0.5)
    with pytest.raises(ShortageError, match=r"only 3 have an importance above zero; use 0\.00059 or less, or have no"):
        drawn([0.0] * 5000 + [6.0] * 3, ratio=0.5)
    with pytest.raises(
        ShortageError, match=r"only 0 have an importance above zero; have no zero in importance\.constants"
    ):
        drawn([0.0] * 10, ratio=0.5)


def test_a_label_without_a_sample_in_the_draw_is_named() -> None:
    with pytest.raises(StarvedLabelError, match=r"'label 1' has none among the 2 drawn"):
        drawn([1.0] * 8 + [0.0] * 2, ratio=0.2, labels=[0] * 8 + [1] * 2)


def test_a_ratio_that_must_starve_a_label_is_refused_before_training() -> None:
    counts = np.array([90, 10])
    check_ratio(counts, ["many", "few"], 0.1)  # 10 drawn, one of them of `few` in an even draw
    with pytest.raises(StarvedLabelError, match=r"label 'few' with its 10 can expect 0\.9; use 0\.1 or more"):
        check_ratio(counts, ["many", "few"], 0.09)
    check_ratio(np.array([90, 10, 0]), ["many", "few", "none at all"], 0.1)  # nothing of it can be drawn at any ratio


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6))
def test_the_ratio_that_is_advised_is_accepted(counts: list[int]) -> None:
    names = [str(label) for label in range(len(counts))]
    with pytest.raises(StarvedLabelError) as refused:
        check_ratio(np.array(counts), names, 1e-9)
    advised = float(str(refused.value).rpartition("use ")[2].removesuffix(" or more"))
    check_ratio(np.array(counts), names, advised)
