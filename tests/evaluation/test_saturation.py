"""When accuracies lie too near to 100 %, or to chance, to be ranked: three toy data sets, and the bounds by hand."""

from __future__ import annotations

import numpy as np
import pytest

from proxyds.evaluation.saturation import explain_saturation, find_ceiling

N_LABELS, N_TEST = 10, 991
"""Chance is 0.1, three standard errors above it 0.1 + 3 sqrt(0.1 * 0.9 / 991) = 0.1286; the ceiling is 991 / 1000."""
NORMAL = np.array([[0.50, 0.60, 0.70, 0.80, 0.90], [0.52, 0.58, 0.71, 0.79, 0.91]])
PERFECT, AT_CHANCE = np.ones((2, 5)), np.full((3, 5), 0.1)


def explain(full: np.ndarray, proxy: np.ndarray) -> str | None:
    return explain_saturation(full, proxy, N_LABELS, N_TEST)


def test_networks_that_are_all_right_need_less_training() -> None:
    said = explain(PERFECT, PERFECT)
    assert said is not None
    assert "5 of 5 architectures trained on everything and 5 of 5 architectures trained on the proxy" in said
    assert "train shorter" in said
    assert "train longer" not in said


def test_networks_at_chance_need_more_training() -> None:
    said = explain(AT_CHANCE, AT_CHANCE)
    assert said is not None
    assert "everything" in said
    assert "chance" in said
    assert "train longer" in said
    assert "shorter" not in said


def test_accuracies_that_are_spread_out_are_left_alone() -> None:
    assert explain(NORMAL, NORMAL) is None


def test_what_is_concerned_is_named_alone() -> None:
    said = explain(NORMAL, AT_CHANCE)
    assert said is not None
    assert "the proxy" in said
    assert "everything" not in said
    both = explain(PERFECT, AT_CHANCE)
    assert both is not None
    assert both.index("on the proxy are no better than chance") < both.index("on everything are as good as 100 %")
    assert both.endswith(".")


def test_the_ceiling_is_three_standard_errors_from_all_right() -> None:
    a = find_ceiling(N_TEST)
    assert a == pytest.approx(0.991)
    assert 1 - a == pytest.approx(3 * np.sqrt(a * (1 - a) / N_TEST))


@pytest.mark.parametrize(
    ("accuracies", "keyword"),
    [
        ([0.9915, 0.9915, 0.9915, 0.5, 0.6], "shorter"),  # most, above 0.991
        ([0.9905, 0.9905, 0.9915, 0.9915, 0.5], None),  # 0.9905 is below it: two of five
        ([0.128, 0.128, 0.05, 0.5, 0.6], "longer"),  # most, below 0.1286
        ([0.129, 0.129, 0.05, 0.128, 0.6], None),
        ([1.0, 1.0, 0.5, 0.6], None),  # half is not most
    ],
)
def test_most_architectures_must_lie_beyond_a_bound(accuracies: list[float], keyword: str | None) -> None:
    said = explain(np.array([accuracies]), NORMAL[:, : len(accuracies)])
    assert (said is None) == (keyword is None)
    assert keyword is None or f"train {keyword}" in str(said)


def test_of_several_trainings_the_mean_counts() -> None:
    up_and_down = np.array([[1.0] * 5, [0.9] * 5])  # 0.95 on average
    assert explain(up_and_down, NORMAL) is None


def test_with_few_test_samples_all_right_is_no_chance() -> None:
    # of 9 samples and two labels three standard errors above chance are 0.5 + 3 sqrt(0.25 / 9) = 1, and below all right 0.5
    for accuracy, keyword in ((1.0, "train shorter"), (7 / 9, "train longer")):
        assert keyword in str(explain_saturation(np.full((1, 5), accuracy), np.full((1, 5), accuracy), 2, 9))
