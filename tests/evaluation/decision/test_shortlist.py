from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyds.evaluation.decision.prediction import Architectures, fit_model
from proxyds.evaluation.decision.shortlist import choose_shortlist, find_chances, find_groups, weigh_steps

# four draws of three candidates: the first is the best in two, the second in one, both tie in one
SAMPLES = np.array([[0.9, 0.8, 0.5], [0.9, 0.895, 0.5], [0.7, 0.8, 0.5], [0.6, 0.6, 0.5]])


def test_chances_are_counted_over_draws() -> None:
    chances = find_chances(SAMPLES)
    assert chances.best.tolist() == [0.625, 0.375, 0.0]
    assert chances.close.tolist() == [0.75, 0.75, 0.0]
    assert chances.expected.tolist() == pytest.approx([0.775, 0.77375, 0.5])


def draw_best(*shares: int) -> np.ndarray:
    """Draws in which each candidate is the best so many times, in both halves alike."""
    best = np.repeat(np.arange(len(shares)), shares)
    return np.repeat(np.eye(len(shares))[best], 2, axis=0)


def test_the_shortlist_is_the_fewest_that_reach_the_confidence() -> None:
    samples = draw_best(30, 50, 15, 5)
    for confidence, expected, chance in (
        (0.5, [1], 0.5),
        (0.8, [1, 0], 0.8),
        (0.81, [1, 0, 2], 0.95),
        (1.0, [1, 0, 2, 3], 1.0),
    ):
        listed, reached = choose_shortlist(samples, confidence)
        assert listed.tolist() == expected
        assert reached == pytest.approx(chance)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=12).filter(any), st.floats(0.5, 0.999))
def test_a_shortlist_holds_enough_and_not_one_too_many(shares: list[int], confidence: float) -> None:
    best = np.array(shares) / sum(shares)
    listed, chance = choose_shortlist(draw_best(*shares), confidence)
    assert best[listed].sum() == pytest.approx(chance)
    assert chance >= confidence - 1e-6
    assert best[listed[:-1]].sum() < confidence


def test_what_a_list_says_of_itself_holds_on_other_draws() -> None:
    generator = np.random.default_rng(0)
    means = 0.3 * generator.normal(size=300)
    listed, chance = choose_shortlist(means + generator.normal(size=(1_000, 300)), 0.9)
    others = (means + generator.normal(size=(20_000, 300))).argmax(axis=1)
    assert np.isin(others, listed).mean() == pytest.approx(chance, abs=0.04)


def test_a_group_opens_where_a_candidate_is_surely_worse_than_the_first_of_the_last() -> None:
    generator = np.random.default_rng(0)
    samples = np.array([0.9, 0.895, 0.6, 0.59]) + 0.01 * generator.normal(size=(2_000, 4))
    assert find_groups(samples, np.array([0, 1, 2, 3]), 0.9).tolist() == [1, 1, 2, 2]


def test_what_helps_next_is_what_may_change_the_choice() -> None:
    generator = np.random.default_rng(0)
    n = 16
    quality = generator.normal(size=n)
    check = Architectures(quality + 0.3 * generator.normal(size=n), np.ones(n, int), None, quality)
    candidates = Architectures(np.array([1.0, 0.9, -3.0]), np.ones(3, int), None, np.full(3, np.nan))
    model = fit_model(check, candidates, np.zeros(3, np.bool_), noise=0.09)
    samples = model.sample(candidates, 4_000, 0)
    steps = {step.kind: step for step in weigh_steps(samples, samples.mean(axis=0), candidates, model)}
    assert steps["everything"].position in (0, 1)
    assert steps["proxy"].position in (0, 1)
    assert steps["everything"].gain > steps["proxy"].gain > 0

    known = Architectures(candidates.on_proxy, candidates.n_runs, None, np.array([1.0, 0.9, -3.0]))
    samples = model.sample(known, 100, 0)
    assert weigh_steps(samples, samples.mean(axis=0), known, model) == []
