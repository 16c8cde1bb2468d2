from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from proxyds.evaluation.decision.prediction import Architectures, find_noise, fit_model, to_accuracy, to_log_odds
from proxyds.evaluation.rank_metrics import Floats

N_SAMPLES = 20_000


def make(
    on_proxy: Floats, on_everything: Floats | None = None, n_runs: int = 1, parameters: Floats | None = None
) -> Architectures:
    n = len(on_proxy)
    unknown = np.full(n, np.nan)
    return Architectures(on_proxy, np.full(n, n_runs), parameters, unknown if on_everything is None else on_everything)


def nothing(candidates: Architectures) -> np.ndarray:
    return np.zeros(len(candidates.on_proxy), np.bool_)


def test_intervals_are_those_of_least_squares_with_students_t() -> None:
    generator = np.random.default_rng(1)
    x, parameters = generator.normal(size=12), generator.normal(size=12)
    y = 1 + 0.5 * x + 0.2 * parameters + 0.1 * generator.normal(size=12)
    new_x, new_parameters = np.array([0.3, 2.0]), np.array([1.0, -1.0])
    columns = np.stack([np.ones(12), x, parameters], axis=1)
    coefficients, (left,), _, _ = np.linalg.lstsq(columns, y)
    new = np.stack([np.ones(2), new_x, new_parameters], axis=1)
    deviations = np.sqrt(left / 9 * (1 + np.einsum("ij,jk,ik->i", new, np.linalg.inv(columns.T @ columns), new)))
    low = new @ coefficients + stats.t.ppf(0.05, 9) * deviations

    candidates = make(new_x, parameters=new_parameters)
    model = fit_model(make(x, y, parameters=parameters), candidates, nothing(candidates), noise=0.0)
    samples = to_log_odds(model.sample(candidates, N_SAMPLES, seed=0))

    assert model.freedom == 9
    assert np.allclose(np.median(samples, axis=0), new @ coefficients, atol=0.01)
    assert np.allclose(np.quantile(samples, 0.05, axis=0), low, atol=0.02)


@pytest.mark.parametrize(("n_runs_of_check", "n_runs"), [(1, 1), (1, 4), (4, 1)])
def test_intervals_hold_what_they_say_however_often_candidates_were_trained(n_runs_of_check: int, n_runs: int) -> None:
    held = []
    for seed in range(150):
        generator = np.random.default_rng(seed)
        quality, noise = generator.normal(size=24), 0.3
        y = 0.8 * quality + 0.2 * generator.normal(size=24)
        measured = [quality + noise * generator.normal(size=24) / np.sqrt(n) for n in (n_runs_of_check, n_runs)]
        candidates = make(measured[1][16:], n_runs=n_runs)
        model = fit_model(make(measured[0][:16], y[:16], n_runs_of_check), candidates, nothing(candidates), noise**2)
        low, high = np.quantile(to_log_odds(model.sample(candidates, 2_000, seed)), [0.05, 0.95], axis=0)
        held += list((y[16:] >= low) & (y[16:] <= high))
    assert 0.86 < np.mean(held) < 0.95


def test_more_trainings_of_a_candidate_tell_more() -> None:
    generator = np.random.default_rng(0)
    quality = generator.normal(size=40)
    check = make(quality + 0.5 * generator.normal(size=40), quality + 0.3 * generator.normal(size=40))
    model = fit_model(check, check, nothing(check), noise=0.25)
    scatter = [model.find_scatter(n) for n in (1, 2, 4)]
    assert scatter[0] > scatter[1] > scatter[2] > 0


def test_a_known_accuracy_stays_and_moves_what_is_expected_of_others() -> None:
    x = np.linspace(-1, 1, 10)
    check = make(x, x + 0.1 * np.sin(20 * x))
    candidates = make(np.array([0.0, 0.1, 0.2]), np.array([2.0, 2.1, np.nan]))
    known = np.isfinite(candidates.on_everything)
    alone = fit_model(check, candidates, nothing(candidates), noise=0.0).sample(candidates, N_SAMPLES, 0)
    both = fit_model(check, candidates, known, noise=0.0).sample(candidates, N_SAMPLES, 0)
    assert np.allclose(both[:, 0], to_accuracy(np.array(2.0)))
    assert both[:, 2].mean() > alone[:, 2].mean() + 0.02


def test_parameters_that_do_not_differ_or_are_unknown_do_not_count() -> None:
    x = np.linspace(-1, 1, 10)
    check = make(x, x, parameters=np.full(10, 3.0))
    for candidates in (make(x, parameters=np.full(10, 3.0)), make(x)):
        assert not fit_model(check, candidates, nothing(candidates), 0.0).uses_parameters


def test_noise_is_that_of_repeats_alone() -> None:
    assert find_noise([np.array([1.0, 3.0]), np.array([10.0, 10.0, 13.0])]) == pytest.approx((2.0 + 6.0) / 3)
    assert find_noise([np.array([1.0]), np.array([2.0])]) == 0.0


def test_the_same_seed_gives_the_same_draws() -> None:
    x = np.linspace(-1, 1, 10)
    model = fit_model(make(x, x + 0.1 * np.cos(9 * x)), make(x), nothing(make(x)), 0.0)
    assert np.array_equal(model.sample(make(x), 100, 7), model.sample(make(x), 100, 7))
    assert not np.array_equal(model.sample(make(x), 100, 7), model.sample(make(x), 100, 8))


def test_accuracies_of_none_and_all_have_log_odds() -> None:
    assert np.isfinite(to_log_odds(np.array([0.0, 1.0]))).all()
    assert np.allclose(to_accuracy(to_log_odds(np.array([0.1, 0.5, 0.99]))), [0.1, 0.5, 0.99])


def test_accuracies_that_do_not_differ_tell_nothing_and_break_nothing() -> None:
    x = np.linspace(-1, 1, 10)
    candidates = make(np.array([0.5, -0.5]), parameters=np.array([1.0, 2.0]))
    for on_proxy, parameters in ((np.zeros(10), x), (x, x)):
        model = fit_model(make(on_proxy, np.sin(5 * x), parameters=parameters), candidates, nothing(candidates), 0.0)
        assert np.isfinite(model.sample(candidates, 100, 0)).all()
