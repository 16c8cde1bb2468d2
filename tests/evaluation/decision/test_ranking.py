from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from proxyds.artifact.ranking_table import FULL, PARAMETERS, PROXY, Measured
from proxyds.evaluation.decision.prediction import to_accuracy, to_log_odds
from proxyds.evaluation.decision.ranking import expect
from proxyds.evaluation.decision.rehearsal import take, take_candidates
from proxyds.evaluation.decision.results import Candidate, Run

WAY = PROXY, 0.1


def make_check(n: int = 16, of_draws: tuple[float, ...] = (0.0, 0.5, -0.5)) -> Measured:
    """Accuracies of architectures on draws that add something to all of them."""
    generator = np.random.default_rng(0)
    quality = generator.normal(size=n)
    noise = 0.1 * generator.normal(size=(len(of_draws), n))
    full = quality + 0.1 * generator.normal(size=(3, n))
    return Measured(
        [f"a{i}" for i in range(n)],
        {"flops": np.arange(1.0, n + 1), PARAMETERS: np.full(n, 1000.0)},
        {(FULL, 1.0): to_accuracy(full), WAY: to_accuracy(quality + noise + np.array(of_draws)[:, None])},
        {(FULL, 1.0): np.arange(3), WAY: np.arange(len(of_draws))},
        (),
    )


def ask(log_odds: float, *draws: int) -> list[Candidate]:
    """Two candidates, the first with such an accuracy on each of some draws."""
    accuracy = float(to_accuracy(np.array(log_odds)))
    return [
        Candidate("x", tuple(Run(draw, draw, accuracy) for draw in draws)),
        Candidate("y", (Run(draws[0], 0, 0.5),)),
    ]


def expected_of(candidates: list[Candidate], measured: Measured) -> float:
    return float(expect(candidates, measured, 0.1, seed=0).samples[:, 0].mean())


def test_what_a_draw_adds_to_all_says_nothing_of_a_candidate() -> None:
    check = make_check()
    on_each = [expected_of(ask(1.0 + added, draw), check) for draw, added in enumerate((0.0, 0.5, -0.5))]
    assert np.ptp(on_each) < 0.02
    assert abs(expected_of(ask(1.0, 1), check) - on_each[0]) > 0.05  # as if it were of the first draw


def test_only_trainings_on_the_candidates_own_draws_tell_of_them() -> None:
    check = make_check()
    others = check.accuracies[WAY].copy()
    others[1:] = others[1:, ::-1]  # two draws that rank quite otherwise
    changed = replace(check, accuracies={**check.accuracies, WAY: others})
    assert expected_of(ask(1.0, 0), changed) == expected_of(ask(1.0, 0), check)
    assert expected_of(ask(1.0, 1), changed) != pytest.approx(expected_of(ask(1.0, 1), check), abs=0.02)


def test_a_draw_that_the_check_does_not_have_is_ranked_by_all_of_its() -> None:
    assert 0.6 < expected_of(ask(1.0, 7), make_check()) < 0.85


def test_trainings_of_the_check_count_with_their_names() -> None:
    check = make_check()
    rest, own = take(check, np.arange(8, 16), WAY), take_candidates(check, np.arange(8), WAY, repeat=0)
    samples = expect(own, rest, 0.1, seed=0).samples
    true = check.accuracies[FULL, 1.0].mean(axis=0)[:8]
    assert np.corrcoef(to_log_odds(samples.mean(axis=0)), to_log_odds(true))[0, 1] > 0.9


def test_one_training_on_everything_is_less_sure_than_as_many_as_the_checks() -> None:
    check = make_check()
    spread = [
        expect([replace(ask(1.0, 0)[0], full_accuracy=0.7, n_full=n), ask(1.0, 0)[1]], check, 0.1, seed=0)
        .samples[:, 0]
        .std()
        for n in (1, 2, 3, 5)
    ]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2:] == pytest.approx([0.0, 0.0])


def test_of_many_candidates_fewer_draws_are_made() -> None:
    many = [Candidate(f"c{i}", (Run(0, 0, 0.4 + i / 100_000),)) for i in range(20_000)]
    assert expect(many, make_check(), 0.1, seed=0).samples.shape == (2_000, 20_000)
