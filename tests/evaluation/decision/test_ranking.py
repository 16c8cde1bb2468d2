from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from proxyds.artifact.ranking_table import FULL, PARAMETERS, PROXY, Measured
from proxyds.evaluation.decision.prediction import find_noise, to_accuracy, to_log_odds
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


def spread_of_known(n_full: int, check: Measured, accuracy: float = 0.7, n_test: int | None = None) -> float:
    """Standard deviation of the log odds that a candidate with a known accuracy may have."""
    first, second = ask(1.0, 0)
    known = [replace(first, full_accuracy=accuracy, n_full=n_full), second]
    return float(to_log_odds(expect(known, check, 0.1, seed=0, n_test=n_test).samples[:, 0]).std())


def test_a_known_accuracy_has_the_noise_of_its_trainings() -> None:
    check = make_check()
    noise = find_noise(list(to_log_odds(check.accuracies[FULL, 1.0]).T))
    for n_full in (1, 2, 3, 5):
        assert spread_of_known(n_full, check) == pytest.approx((noise / n_full) ** 0.5, rel=0.05)


def test_where_nothing_was_repeated_the_test_samples_say_how_sure_a_known_accuracy_is() -> None:
    check = make_check()
    once = replace(check, accuracies={**check.accuracies, (FULL, 1.0): check.accuracies[FULL, 1.0][:1]})
    assert spread_of_known(1, once, n_test=400) == pytest.approx((1 / (400 * 0.7 * 0.3)) ** 0.5, rel=0.05)
    assert spread_of_known(1, once) == pytest.approx(0.0)


def test_one_answer_more_up_to_all_right_is_not_sure_to_be_better() -> None:
    check = make_check()
    once = replace(check, accuracies={**check.accuracies, (FULL, 1.0): check.accuracies[FULL, 1.0][:1]})
    first, second = ask(1.0, 0)
    known = [replace(first, full_accuracy=1.0, n_full=1), replace(second, full_accuracy=358 / 359, n_full=1)]
    samples = expect(known, once, 0.1, seed=0, n_test=359).samples
    assert 0.5 < (samples[:, 0] > samples[:, 1]).mean() < 0.9


def test_of_many_candidates_fewer_draws_are_made() -> None:
    many = [Candidate(f"c{i}", (Run(0, 0, 0.4 + i / 100_000),)) for i in range(20_000)]
    assert expect(many, make_check(), 0.1, seed=0).samples.shape == (2_000, 20_000)


def with_losses(check: Measured) -> Measured:
    """The same accuracies, now of no use, with losses that tell as much as these did."""
    losses = np.exp(-to_log_odds(check.accuracies[WAY]))
    useless = np.random.default_rng(1).uniform(0.4, 0.6, check.accuracies[WAY].shape)
    return replace(check, accuracies={**check.accuracies, WAY: useless}, losses={WAY: losses})


def test_losses_take_the_place_of_accuracies_where_the_check_and_all_trainings_have_them() -> None:
    check = make_check()
    by_loss = with_losses(check)
    asked = [Candidate(name, (Run(0, 0, 0.5, float(np.exp(-score))),)) for name, score in (("x", 1.0), ("y", 0.0))]
    found = expect(asked, by_loss, 0.1, seed=0)
    assert found.uses_loss
    assert found.samples[:, 0].mean() == pytest.approx(expected_of(ask(1.0, 0), check), abs=1e-9)
    assert not expect(asked, check, 0.1, seed=0).uses_loss


def test_losses_are_rehearsed_where_the_check_has_them() -> None:
    by_loss = with_losses(make_check())
    rest, own = take(by_loss, np.arange(8, 16), WAY), take_candidates(by_loss, np.arange(8), WAY, repeat=0)
    found = expect(own, rest, 0.1, seed=0)
    true = by_loss.accuracies[FULL, 1.0].mean(axis=0)[:8]
    assert found.uses_loss
    assert np.corrcoef(to_log_odds(found.samples.mean(axis=0)), to_log_odds(true))[0, 1] > 0.9


def test_a_loss_of_nothing_is_the_best_and_breaks_nothing() -> None:
    asked = [Candidate(name, (Run(0, 0, 0.5, loss),)) for name, loss in (("x", 0.0), ("y", 1.0), ("z", 1e300))]
    samples = expect(asked, with_losses(make_check()), 0.1, seed=0).samples
    assert np.isfinite(samples).all()
    assert np.array_equal(np.argsort(-samples.mean(axis=0)), [0, 1, 2])
