"""Selection methods: each by a hand-computed example, and what all of them promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyds.recipe.methods import METHODS
from proxyds.seeding import derive_seed, uniform_keys
from proxyds.selection.designs import DESIGNS, STEEPNESS, count_forgetting, fill_evenly, find_cutoff
from proxyds.selection.records import MEASURES, Answers, SampleScores
from proxyds.selection.sampling import DRAW_LAWS, draw_designed, find_inclusion, share_out
from tests.selection.ids import make_ids


def make_answers(**of: object) -> Answers:
    """Answers of one training where not said otherwise; what is not given is all the same."""
    arrays = {name: np.array(values, np.float32) for name, values in of.items()}
    arrays = {name: array.reshape((1,) * (3 - array.ndim) + array.shape) for name, array in arrays.items()}
    same = np.zeros_like(next(iter(arrays.values())))
    return wrap_answers(np.stack([arrays.get(name, same) for name in MEASURES], axis=1))


def wrap_answers(held: np.ndarray) -> Answers:
    """Of (R, 4, E, N) in memory."""
    return Answers(lambda training, measure, epoch: held[training, measure, epoch], len(held), held.shape[2])


def score(labels: list[int], **of: object) -> SampleScores:
    return SampleScores(make_ids(len(labels)), np.array(labels), **of)  # type: ignore[arg-type]


def taken(method: str, scores: SampleScores, n: int, seed: int = 0) -> list[int]:
    """What a method takes that leaves nothing to chance."""
    design = DESIGNS[method](scores, n, seed)
    assert set(design.weights) <= {0.0, 1.0}
    return np.flatnonzero(design.weights).tolist()


def test_what_is_left_over_goes_to_the_largest_remainders() -> None:
    assert share_out(np.array([3, 5, 2]), 5).tolist() == [2, 2, 1]  # 1.5, 2.5, 1
    assert share_out(np.array([0, 4, 4]), 1).tolist() == [0, 1, 0]


def test_stratified_methods_give_every_label_its_share() -> None:
    labels, importance = [0, 0, 0, 0, 1, 1], np.array([1.0, 2, 3, 4, 5, 6])
    for method, weights in (("stratified", [1.0] * 6), ("cases-stratified", importance.tolist())):
        design = DESIGNS[method](score(labels, importance=importance), 3, 0)
        assert design.weights.tolist() == weights
        assert design.quotas is not None
        assert design.quotas.tolist() == [2, 1]
    np.testing.assert_allclose(find_inclusion(design, 3), [0.2, 0.4, 0.6, 0.8, 5 / 11, 6 / 11])


def test_random_and_cases_weigh_as_they_say() -> None:
    scores = score([0, 0, 1], importance=np.array([6.0, 1, 2]))
    assert DESIGNS["random"](scores, 1, 0).weights.tolist() == [1, 1, 1]
    assert DESIGNS["cases"](scores, 1, 0).weights.tolist() == [6, 1, 2]


def test_easiest_and_hardest_go_by_the_mean_loss_at_the_end_label_by_label() -> None:
    loss = [[[9, 9, 9, 9, 9, 9], [1, 5, 3, 7, 2, 6]], [[0, 0, 0, 0, 0, 0], [1, 1, 9, 1, 4, 4]]]  # means 1 3 6 4 3 5
    scores = score([0, 0, 0, 1, 1, 1], answers=make_answers(loss=loss))
    assert taken("easiest", scores, 2) == [0, 4]
    assert taken("hardest", scores, 2) == [2, 5]
    assert taken("easiest", scores, 4) == [0, 1, 3, 4]


def test_easier_weighs_by_the_place_among_the_label_by_the_loss_at_the_end() -> None:
    loss = [[[9] * 6, [5, 5, 3, 7, 2, 6]], [[0] * 6, [4, 4, 1, 6, 4, 5]]]  # sums 9 9 4, and 13 6 11
    scores = score([0, 0, 0, 1, 1, 1], answers=make_answers(loss=loss))
    assert STEEPNESS == 9
    first, second, third = (
        (3**10 - 2**10) / 10 / 3**9,
        (2**10 - 1) / 10 / 3**9,
        1 / 10 / 3**9,
    )  # 3 (1 - u)^10 / 10, cut at thirds
    shared = (second + third) / 2  # equal ones share the second and the third
    expected = [shared, shared, first, third, first, second]
    np.testing.assert_allclose(DESIGNS["easier"](scores, 2, 0).weights, expected)
    assert find_inclusion(DESIGNS["easier"](scores, 2, 0), 2)[[2, 4]].sum() == pytest.approx(2, abs=0.1)


def test_easier_gives_every_label_its_share_whatever_its_losses_and_however_few() -> None:
    labels = np.repeat([0, 1, 2, 3], [1, 2, 40, 400])
    loss = np.random.default_rng(0).random(443) * np.repeat(
        [1, 1, 1, 0], [1, 2, 40, 400]
    )  # of the last all are the same
    scores = score(labels, answers=make_answers(loss=[[loss]]))
    weights = DESIGNS["easier"](scores, 10, 0).weights
    np.testing.assert_allclose(np.bincount(labels, weights), [0.1, 0.2, 4, 40])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("entropy-tails", [0.25, 0.25, 4, 4, 0.25, 0.25]),  # bins of 4, 1 and 1: max - h + 1 is 1, 4 and 4
        ("entropy-tails-p2", [0.25, 0.25, 1, 1, 0.25, 0.25]),
        ("entropy-tails-p3", [1 / 16, 1 / 16, 1, 1, 1 / 16, 1 / 16]),
    ],
)
def test_entropy_tails_weigh_a_bins_samples_by_how_many_they_are(method: str, expected: list[float]) -> None:
    entropy = [2e-3, 1.5e-3, 0.2, 1.5, 3e-3, 2.5e-3]  # bins of half a decade
    scores = score([0, 1, 0, 1, 0, 1], answers=make_answers(entropy=[[0] * 6, entropy]))
    np.testing.assert_allclose(DESIGNS[method](scores, 2, 0).weights, expected)


def test_entropies_of_many_labels_have_narrower_bins_and_none_is_below_the_smallest() -> None:
    entropy = [0.4, 0.9, *[1e-20] * 8, 0.0]  # log10: -0.40 and -0.05, in one half decade and in two quarters
    of_eleven = score(list(range(11)), answers=make_answers(entropy=[entropy]))
    weights = DESIGNS["entropy-tails-p3"](of_eleven, 2, 0).weights
    np.testing.assert_allclose(weights, [1, 1, *[1 / 81] * 9])
    of_ten = replace(of_eleven, labels=np.array([*range(10), 57]) % 48)  # numbers with gaps: the last is 9
    of_ten_weights = DESIGNS["entropy-tails-p3"](of_ten, 2, 0).weights
    np.testing.assert_allclose(of_ten_weights, [1 / 4, 1 / 4, *[1 / 81] * 9])
    with_gaps = replace(of_eleven, labels=np.array([*range(0, 90, 10), 99, 99]))
    np.testing.assert_allclose(DESIGNS["entropy-tails-p3"](with_gaps, 2, 0).weights, of_ten_weights)


@pytest.mark.parametrize(("n_epochs", "epoch"), [(3, 0), (13, 0), (20, 1), (200, 19)])
def test_el2n_is_taken_early_and_averaged_over_trainings(n_epochs: int, epoch: int) -> None:
    el2n = np.zeros((2, n_epochs, 4))
    el2n[0, epoch], el2n[1, epoch] = [1.0, 0.2, 0.5, 0.1], [0.0, 0.5, 0.6, 0.1]  # means 0.5, 0.35, 0.55, 0.1
    scores = score([0, 0, 0, 1], answers=make_answers(el2n=el2n))
    assert taken("el2n", scores, 2) == [0, 2]


def test_forgetting_counts_falls_from_right_to_wrong_and_most_what_was_never_right() -> None:
    margin = [
        [[1, -1, 1, 1], [-1, -1, 1, 1], [1, -1, -1, 1], [-1, -1, -1, 1]],
        [[1, -1, 1, 1], [1, 1, 1, 1], [1, -1, 1, 1], [-1, 1, -1, 1]],
    ]
    answers = make_answers(margin=margin)
    assert count_forgetting(answers).tolist() == [1.5, 2.5, 1, 0]  # (2 + 1, 4 + 1, 1 + 1, 0 + 0) / 2
    assert taken("forgetting", score([0, 1, 0, 1], answers=answers), 2) == [0, 1]


def test_ties_are_broken_by_the_seed_alone() -> None:
    scores = score([0] * 40, answers=make_answers(margin=np.ones((3, 40))))
    chosen = [taken("forgetting", scores, 10, seed) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(
    ("ratio", "n_labels", "expected"),
    [(0.1, 10, 0.3), (0.05, 10, 0.3), (0.15, 10, 0.1), (0.5, 10, 0), (0.9, 10, 0), (0.05, 100, 0.5), (0.3, 100, 0.2)],
)
def test_the_cut_off_goes_by_ratio_and_labels(ratio: float, n_labels: int, expected: float) -> None:
    assert find_cutoff(ratio, n_labels) == expected


def test_quotas_are_even_as_far_as_strata_reach() -> None:
    assert fill_evenly(np.array([9, 0, 1, 5]), 9).tolist() == [4, 0, 1, 4]
    assert fill_evenly(np.array([9, 0, 1, 2]), 9).tolist() == [6, 0, 1, 2]
    assert fill_evenly(np.array([5, 5, 5]), 14).tolist() == [4, 5, 5]


def test_ccs_leaves_out_the_hardest_and_spreads_over_the_scores() -> None:
    margin = np.array([[-1.0, -0.5, -0.4, 0, 0, 0, 0, 0.005, 0.5, 1], [-1, -0.5, -0.4, 0, 0, 0, 0, 0.005, 0.5, 1]])
    design = DESIGNS["ccs"](score([0] * 5 + [9] * 5, answers=make_answers(margin=margin)), 1, 0)
    assert design.weights.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]  # a tenth is kept: the hardest 30 % go
    assert design.strata is not None
    assert design.strata[3:].tolist() == [0, 0, 0, 0, 0, 25, 49]  # of 50 between 0 and 2
    two = DESIGNS["ccs"](score([0] * 5 + [9] * 5, answers=make_answers(margin=margin)), 2, 0)
    assert two.weights.tolist() == [0] + [1] * 9  # a fifth is kept: the hardest 10 % go
    four = DESIGNS["ccs"](score([0] * 5 + [9] * 5, answers=make_answers(margin=margin)), 4, 0)
    assert four.quotas is not None
    assert four.weights[0] == 1  # half is kept: nothing goes
    assert sorted(four.quotas[four.quotas > 0].tolist()) == [1, 1, 1, 1]


@pytest.mark.parametrize(("first", "then"), [(0, [4]), (1, [4]), (2, [4]), (3, [0]), (4, [0])])
def test_k_center_takes_the_farthest_from_all_that_it_has(first: int, then: list[int]) -> None:
    features = np.array([[0.0], [1], [2], [9], [12]], np.float32)
    scores = score([0] * 5, features=features)
    seed = next(seed for seed in range(100) if uniform_keys(scores.ids, derive_seed(seed, "first")).argmin() == first)
    assert taken("k-center", scores, 1, seed) == [first]
    assert taken("k-center", scores, 2, seed) == sorted([first, *then])
    third = 4 if first == 3 else 3  # the distances to 0 and 9 are 0 1 2 0 3, to 0 and 12: 0 1 2 3 0
    assert taken("k-center", scores, 3, seed) == sorted([first, *then, third])


def test_herding_keeps_each_labels_mean() -> None:
    unit = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, 0.6]])
    features = np.concatenate([unit * [[1], [2], [3], [4]], unit * 5]).astype(np.float32)  # lengths do not matter
    scores = score([0] * 4 + [1] * 4, features=features)
    # the mean is (0.6, 0.6); |x - mean|^2: 0.52, 0.04, 0.52, 0.04 (the first of equal ones)
    assert taken("herding", scores, 2) == [1, 5]
    # with (0.6, 0.8): (0.8, 0.4) -> 0.08, (0.3, 0.9) -> 0.18, (0.7, 0.7) -> 0.02
    assert taken("herding", scores, 4) == [1, 3, 5, 7]


def test_moderate_takes_the_middle_of_the_distances_to_the_labels_medians() -> None:
    features = np.array([[0.0], [1], [2], [4], [10], [100], [100.5], [107]], np.float32)
    scores = score([0] * 5 + [1] * 3, features=features)  # medians 2 and 100.5; distances 2 1 0 2 8 0.5 0 6.5
    assert taken("moderate", scores, 4) == [0, 1, 3, 5]  # in order: 0 0 | 0.5 1 2 2 | 6.5 8


N = 120


def everything(rng: np.random.Generator, n: int = N) -> SampleScores:
    return SampleScores(
        ids=make_ids(n),
        labels=rng.integers(0, 4, n),
        importance=rng.choice([2.0, 1.0, 6.0], n),
        features=rng.normal(size=(n, 5)).astype(np.float32),
        answers=wrap_answers(
            (rng.gamma(1.0, size=(3, 4, 6, n)) - 0.5 * (np.arange(4) == 3)[:, None, None]).astype(np.float32)
        ),
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("law", DRAW_LAWS)
def test_every_method_draws_exactly_n_from_what_it_declares(name: str, law: str) -> None:
    method, scores = METHODS[name], everything(np.random.default_rng(0))
    asked = {"cases": "importance", "features": "features", "answers": "answers"}
    declared = replace(scores, **{field: None for need, field in asked.items() if need not in method.needs})
    for n in (1, 7, 60, N):
        design = DESIGNS[name](declared, n, 3)
        chances = find_inclusion(design, n)
        selected = draw_designed(design, n, scores.ids, law, 5)
        assert selected.sum() == n
        assert not selected[design.weights == 0].any()
        assert chances.sum() == pytest.approx(n)
        assert law != "systematic" or (selected >= (chances > 1 - 1e-9)).all()  # certain ones are in
        assert (design.strata is None) == (design.quotas is None)
        if design.quotas is not None:
            assert np.bincount(design.strata[selected], minlength=len(design.quotas)).tolist() == design.quotas.tolist()


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 40))
def test_every_method_depends_on_samples_never_on_their_order(name: str, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores = everything(rng, 40)
    order = rng.permutation(40)
    answers = scores.answers
    assert answers is not None
    mixed = SampleScores(
        scores.ids[order],
        scores.labels[order],
        None if scores.importance is None else scores.importance[order],
        None if scores.features is None else scores.features[order],
        replace(answers, read=lambda *which: answers.read(*which)[order]),
    )
    one = draw_designed(DESIGNS[name](scores, n, seed), n, scores.ids, "systematic", seed)
    other = draw_designed(DESIGNS[name](mixed, n, seed), n, mixed.ids, "systematic", seed)
    assert set(scores.ids[one].tolist()) == set(mixed.ids[other].tolist())


def test_what_scores_single_samples_asks_for_several_trainings_and_names_its_source() -> None:
    assert {name for name, method in METHODS.items() if method.n_seeds > 1} == {"el2n", "forgetting"}
    assert [name for name, method in METHODS.items() if not method.source] == ["random", "stratified"]
