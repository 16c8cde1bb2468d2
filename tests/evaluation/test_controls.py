"""What a proxy is compared with, and other draws of the proxy itself."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyds.artifact.ranking_table import DATASETS
from proxyds.errors import ShortageError
from proxyds.recipe.methods import METHODS
from proxyds.recipe.sections.selection import Selection
from proxyds.seeding import derive_seed
from proxyds.selection import draw as selection
from proxyds.selection.designs import DESIGNS
from proxyds.selection.draw import design_by, draw_control, draw_samples
from proxyds.selection.records import SampleScores
from proxyds.selection.sampling import DRAW_LAWS
from tests.selection.ids import make_ids

N_DRAWS = 2000


def mixed_labels(counts: list[int]) -> np.ndarray:
    """So many of each label, in no order."""
    return np.random.default_rng(7).permutation(np.repeat(np.arange(len(counts)), counts))


def draw(name: str, ids: np.ndarray, labels: np.ndarray, n: int, seed: int, law: str = "systematic") -> np.ndarray:
    drawn = draw_control(DESIGNS[name], SampleScores(ids, labels), n, law=law, seed=seed)
    assert drawn.kept_labels is None
    return drawn.selected


def draw_again(ids: np.ndarray, importance: np.ndarray, ratio: float, draw: int, *, law: str, seed: int) -> np.ndarray:
    scores, rule = SampleScores(ids, np.zeros(len(ids), np.int64), importance), design_by(importance)
    drawn = selection.draw_again(scores, rule, Selection(ratio=ratio, draw=law), seed, draw)
    assert drawn.kept_labels is None
    return drawn.selected


def of_each_label(labels: np.ndarray, selected: np.ndarray) -> list[int]:
    return np.bincount(labels[selected], minlength=labels.max() + 1).tolist()


def frequencies(draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """How often each sample is drawn, over many seeds that are derived as a check derives them."""
    return sum(draw(derive_seed(0, "test", number)).astype(float) for number in range(N_DRAWS)) / N_DRAWS


# Both controls


def test_controls_go_by_the_names_of_the_table_of_runs() -> None:
    assert set(METHODS) < set(DATASETS)


@pytest.mark.parametrize("law", DRAW_LAWS)
@pytest.mark.parametrize("name", ["random", "stratified"])
@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=8), seed=st.integers(0, 2**62), data=st.data())
def test_every_control_draws_exactly_n(name: str, law: str, counts: list[int], seed: int, data: st.DataObject) -> None:
    counts[-1] += 1
    labels = mixed_labels(counts)
    n = data.draw(st.integers(0, len(labels)))
    selected = draw(name, make_ids(len(labels)), labels, n, seed, law)
    assert selected.dtype == np.bool_
    assert selected.shape == labels.shape
    assert selected.sum() == n


@pytest.mark.parametrize("law", DRAW_LAWS)
@pytest.mark.parametrize("name", ["random", "stratified"])
def test_a_control_depends_on_ids_and_seed_never_on_order(name: str, law: str) -> None:
    ids, labels = make_ids(200), mixed_labels([100, 60, 40])
    order = np.random.default_rng(0).permutation(200)
    first = draw(name, ids, labels, 20, 5, law)
    again = ids[order][draw(name, ids[order], labels[order], 20, 5, law)]
    assert set(ids[first].tolist()) == set(again.tolist())
    assert (first == draw(name, ids, labels, 20, 5, law)).all()
    assert (first != draw(name, ids, labels, 20, 6, law)).any()


# Random


@pytest.mark.parametrize("n", [1, 5, 11])
def test_random_takes_every_sample_as_often_whatever_its_label(n: int) -> None:
    ids, labels = make_ids(12), mixed_labels([9, 2, 1])
    expected = n / 12
    standard_error = np.sqrt(expected * (1 - expected) / N_DRAWS)
    found = frequencies(lambda seed: draw("random", ids, labels, n, seed))
    assert (np.abs(found - expected) <= 3 * standard_error).all()


def test_random_takes_every_pair_as_often() -> None:
    ids, labels, pairs = make_ids(5), np.zeros(5, np.int64), np.zeros((5, 5))
    for number in range(N_DRAWS):
        first, second = np.flatnonzero(draw("random", ids, labels, 2, derive_seed(0, "test", number)))
        pairs[first, second] += 1 / N_DRAWS
    standard_error = np.sqrt(0.1 * 0.9 / N_DRAWS)
    assert (np.abs(pairs[np.triu_indices(5, 1)] - 0.1) <= 4 * standard_error).all()


def test_random_does_not_look_at_labels() -> None:
    ids = make_ids(30)
    some, other = (draw("random", ids, labels, 9, 4) for labels in (mixed_labels([15, 15]), mixed_labels([28, 1, 1])))
    assert (some == other).all()


# Stratified


@pytest.mark.parametrize(
    ("counts", "n", "expected"),
    [
        ([6, 3, 1], 0, [0, 0, 0]),
        ([6, 3, 1], 10, [6, 3, 1]),
        ([6, 3, 1], 5, [3, 2, 0]),  # 3, 1.5, 0.5: one is left over, remainders are equal, the first label takes it
        ([6, 3, 1], 2, [1, 1, 0]),  # 1.2, 0.6, 0.2
        ([6, 3, 1], 1, [1, 0, 0]),  # 0.6, 0.3, 0.1
        ([5, 3, 2], 4, [2, 1, 1]),  # 2, 1.2, 0.8
        ([7, 0, 3], 5, [4, 0, 1]),  # 3.5, 0, 1.5: a label without samples takes none
        ([49, 49], 2, [1, 1]),  # 49 * (2 / 98) is a little below 1 in floating point
        ([1, 1, 1, 1, 96], 50, [1, 1, 0, 0, 48]),  # four halves, of which two are left over
        ([40, 30, 20, 10], 9, [3, 3, 2, 1]),  # 3.6, 2.7, 1.8, 0.9: three are left over
    ],
)
def test_stratified_takes_of_each_label_what_was_worked_out_by_hand(
    counts: list[int], n: int, expected: list[int]
) -> None:
    labels = mixed_labels(counts)
    for seed in range(5):
        assert of_each_label(labels, draw("stratified", make_ids(len(labels)), labels, n, seed)) == expected


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (4, [3, 1, 0]),  # 2.4, 1.2, 0.4: one is left over
        (6, [4, 2, 0]),  # 3.6, 1.8, 0.6: two are left over, the second label's is the largest remainder
    ],
)
def test_stratified_gives_what_is_left_over_to_the_first_of_equal_remainders(n: int, expected: list[int]) -> None:
    labels = mixed_labels([6, 3, 1])
    assert of_each_label(labels, draw("stratified", make_ids(10), labels, n, 0)) == expected


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=8), data=st.data())
def test_stratified_gives_what_is_left_over_to_the_largest_remainders(counts: list[int], data: st.DataObject) -> None:
    counts[-1] += 1
    labels = mixed_labels(counts)
    n = data.draw(st.integers(0, len(labels)))
    found = of_each_label(labels, draw("stratified", make_ids(len(labels)), labels, n, 1))
    shares = [Fraction(count * n, len(labels)) for count in counts]  # exact
    assert all(share // 1 <= quota <= -(-share // 1) for quota, share in zip(found, shares, strict=True))
    favoured = [share % 1 for quota, share in zip(found, shares, strict=True) if quota > share]
    passed_over = [share % 1 for quota, share in zip(found, shares, strict=True) if quota < share]
    assert not favoured or not passed_over or min(favoured) >= max(passed_over)


def test_stratified_takes_every_sample_of_a_label_as_often() -> None:
    ids, labels = make_ids(12), mixed_labels([6, 4, 2])
    expected = np.array([3 / 6, 2 / 4, 1 / 2])[labels]
    standard_error = np.sqrt(expected * (1 - expected) / N_DRAWS)
    found = frequencies(lambda seed: draw("stratified", ids, labels, 6, seed))
    assert (np.abs(found - expected) <= 3 * standard_error).all()


def test_stratified_takes_every_sample_as_often_within_a_label_where_quotas_are_rounded() -> None:
    ids, labels = make_ids(12), mixed_labels([7, 4, 1])
    expected = np.array([3 / 7, 2 / 4, 0])[labels]  # 2.92, 1.67, 0.42 of 5
    standard_error = np.sqrt(expected * (1 - expected) / N_DRAWS)
    found = frequencies(lambda seed: draw("stratified", ids, labels, 5, seed))
    assert (np.abs(found - expected) <= 3 * standard_error).all()


def test_stratified_draws_one_label_without_regard_to_another() -> None:
    """Over many draws, two labels' first samples are in together as often as chance has it."""
    ids, labels = make_ids(12), mixed_labels([6, 6])
    first = [int(np.flatnonzero(labels == label)[0]) for label in (0, 1)]
    together = 0.0
    for number in range(N_DRAWS):
        together += draw("stratified", ids, labels, 6, derive_seed(0, "test", number))[first].all() / N_DRAWS
    assert abs(together - 0.25) <= 3 * np.sqrt(0.25 * 0.75 / N_DRAWS)


# What cannot be drawn


@pytest.mark.parametrize("law", DRAW_LAWS)
def test_a_control_of_more_than_can_be_drawn_says_what_would_fit(law: str) -> None:
    ids, labels = make_ids(100), np.repeat([0, 1], 50)
    importance = np.where(np.arange(100) % 50 < 10, 6.0, 0.0)  # ten of each label
    importance[60:70] = 1.0  # and ten more of the second
    scores = SampleScores(ids, labels, importance)
    refused = {"cases": (0.4, r"0\.4 of 100 asks for 40 .* but only 30 have .* use 0\.3 or less"),
               "cases-stratified": (0.3, r"0\.3 of 100 asks for 30 .* but only 20 in the same shares have .* use 0\.2 or less")}  # fmt: skip
    for name, (ratio, said) in refused.items():
        with pytest.raises(ShortageError, match=f"check.controls: {said}"):
            draw_control(DESIGNS[name], scores, round(100 * ratio), law=law, seed=0)
        fits = draw_control(DESIGNS[name], scores, round(100 * ratio) - 10, law=law, seed=0)
        assert fits.selected.sum() == round(100 * ratio) - 10
        assert (importance[fits.selected] > 0).all()


# The proxy again

IMPORTANCE = np.tile([6.0, 2.0, 1.0, 1.0], 25)


@pytest.mark.parametrize("law", DRAW_LAWS)
@pytest.mark.parametrize("ratio", [0.1, 0.25])
def test_draw_0_is_the_proxy_that_a_build_gives(law: str, ratio: float) -> None:
    n, ids = len(IMPORTANCE), make_ids(len(IMPORTANCE))
    scores = SampleScores(ids, np.zeros(n, np.int64), IMPORTANCE)
    settings = Selection(method="cases", ratio=ratio, draw=law)
    built = draw_samples(scores, np.ones(n, np.int64), ["a"], design_by(IMPORTANCE), settings, seed=3)
    assert built.weight is None
    assert (draw_again(ids, built.importance, ratio, 0, law=law, seed=3) == built.selected).all()
    as_ever = DRAW_LAWS[law](IMPORTANCE, round(ratio * n), ids, derive_seed(3, "draw"))  # before there were other draws
    assert (built.selected == as_ever).all()


@pytest.mark.parametrize("law", DRAW_LAWS)
def test_every_draw_is_another_of_the_same_size(law: str) -> None:
    ids = make_ids(len(IMPORTANCE))
    drawn = [draw_again(ids, IMPORTANCE, 0.2, number, law=law, seed=3) for number in range(12)]
    assert [each.sum() for each in drawn] == [20] * 12
    assert len({each.tobytes() for each in drawn}) == 12
    again = [draw_again(ids, IMPORTANCE, 0.2, number, law=law, seed=3) for number in range(12)]
    assert all((one == other).all() for one, other in zip(drawn, again, strict=True))
    others = [draw_again(ids, IMPORTANCE, 0.2, number, law=law, seed=4) for number in range(12)]
    assert len({each.tobytes() for each in [*drawn, *others]}) == 24


def test_draws_follow_the_draw_law() -> None:
    """Of weights 6 and 2 and ten of 1 the first is drawn six times as often, over draws as over seeds."""
    ids, weights = make_ids(12), np.array([6.0, 2.0, *[1.0] * 10])
    found = sum(
        draw_again(ids, weights, 0.25, number, law="systematic", seed=0).astype(float) for number in range(N_DRAWS)
    )
    expected = weights * 3 / 18
    standard_error = np.sqrt(expected * (1 - expected) / N_DRAWS)
    assert (np.abs(found / N_DRAWS - expected) <= 3 * standard_error).all()


@pytest.mark.parametrize("law", DRAW_LAWS)
@pytest.mark.parametrize(("ratio", "expected"), [(0.05, 5), (0.125, 12), (1.0, 100)])
def test_a_draw_has_the_size_that_is_asked_for(law: str, ratio: float, expected: int) -> None:
    for number in (0, 1):
        ids = make_ids(len(IMPORTANCE))
        assert draw_again(ids, IMPORTANCE, ratio, number, law=law, seed=3).sum() == expected


@pytest.mark.parametrize("number", [0, 1])
def test_a_draw_of_more_than_can_be_drawn_says_what_would_fit(number: int) -> None:
    importance = np.array([0.0] * 7 + [6.0] * 3)
    assert (
        draw_again(make_ids(10), importance, 0.3, number, law="systematic", seed=0).tolist() == [False] * 7 + [True] * 3
    )
    with pytest.raises(
        ShortageError,
        match=r"0\.5 of 10 asks for 5 samples, but only 3 have an importance above zero; use 0\.3 or less",
    ):
        draw_again(make_ids(10), importance, 0.5, number, law="systematic", seed=0)
