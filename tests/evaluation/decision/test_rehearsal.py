from __future__ import annotations

import numpy as np
import pytest

from proxyds.artifact.ranking_table import FULL, PARAMETERS, PROXY, Measured
from proxyds.evaluation.decision.prediction import to_accuracy
from proxyds.evaluation.decision.rehearsal import rehearse


def make_check(n: int, scatter: float, noise: float, seed: int = 0) -> Measured:
    """Accuracies whose log odds on everything are linear in those on the proxy, but for a scatter."""
    generator = np.random.default_rng(seed)
    quality = generator.normal(size=n)
    proxy = quality + noise * generator.normal(size=(3, n))
    return Measured(
        [f"a{i}" for i in range(n)],
        {"flops": np.arange(1.0, n + 1), PARAMETERS: np.exp(generator.normal(size=n)) * 1000},
        {
            (FULL, 1.0): to_accuracy(quality + scatter * generator.normal(size=n))[None],
            (PROXY, 0.1): to_accuracy(proxy),
        },
        {(FULL, 1.0): np.zeros(1, np.int64), (PROXY, 0.1): np.arange(3)},
        (),
    )


def test_intervals_hold_what_they_say_where_the_model_is_right() -> None:
    held = [rehearse(make_check(24, 0.3, 0.2, seed), 0.1, seed) for seed in range(8)]
    assert all(each is not None for each in held)
    assert 0.84 < np.mean([each.intervals_hold for each in held if each]) < 0.96
    assert np.mean([each.shortlists_hold for each in held if each]) > 0.85


def test_what_tells_more_makes_shorter_lists() -> None:
    sizes = [rehearse(make_check(24, scatter, 0.05), 0.1, 0) for scatter in (0.05, 1.0)]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[0].shortlist_size < sizes[1].shortlist_size
    assert sizes[0].chance_of_best > sizes[1].chance_of_best


@pytest.mark.parametrize(("n", "n_candidates"), [(10, None), (11, 3), (12, 4), (16, 8), (30, 15)])
def test_eight_architectures_are_left_to_tell_of_the_others(n: int, n_candidates: int | None) -> None:
    found = rehearse(make_check(n, 0.3, 0.2), 0.1, 0)
    assert (found and found.n_candidates) == n_candidates
    assert found is None or found.n_fitted >= 8


def test_the_same_seed_rehearses_the_same() -> None:
    check = make_check(12, 0.3, 0.2)
    assert rehearse(check, 0.1, 3) == rehearse(check, 0.1, 3)
