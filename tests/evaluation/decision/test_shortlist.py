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


def test_the_shortlist_is_the_fewest_that_reach_the_confidence() -> None:
    best = np.array([0.3, 0.5, 0.15, 0.05])
    assert choose_shortlist(best, 0.5).tolist() == [1]
    assert choose_shortlist(best, 0.8).tolist() == [1, 0]
    assert choose_shortlist(best, 0.81).tolist() == [1, 0, 2]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30).filter(lambda values: sum(values) > 0), st.floats(0.5, 0.999))
def test_a_shortlist_holds_enough_and_not_one_too_many(weights: list[float], confidence: float) -> None:
    best = np.array(weights) / sum(weights)
    listed = choose_shortlist(best, confidence)
    assert best[listed].sum() >= confidence - 1e-6
    assert best[listed[:-1]].sum() < confidence


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
