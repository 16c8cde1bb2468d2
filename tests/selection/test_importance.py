"""Cases and importances against tables worked out by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from proxyds.selection.importance import score_importance

CONSTANTS = (2.0, 1.0, 6.0, 1.0)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def outcomes_of(*right: str, labels: np.ndarray = LABELS, constants: tuple[float, ...] = CONSTANTS):
    """A probe for each text; `x` where it is right."""
    predictions = [np.where([mark == "x" for mark in marks], labels, labels + 7) for marks in right]
    return score_importance([predictions], labels, constants)


def test_four_cases_of_two_probes_by_hand() -> None:
    #                lower     upper: 4 right against 3, so the upper is the more accurate
    outcomes = outcomes_of("xx.x..", "xxx..x")
    assert outcomes.case.tolist() == [1, 1, 3, 4, 2, 3]
    assert outcomes.importance.tolist() == [2, 2, 6, 1, 1, 6]
    assert outcomes.pair_counts.tolist() == [
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
    ]


def test_section_three_decides_where_the_lower_probe_is_the_more_accurate() -> None:
    # Algorithm 1 prints c4 for «lower not less accurate, only lower right»; section 3 calls that agreement: case 3
    outcomes = outcomes_of("xxx...", "x....x")
    assert outcomes.case.tolist() == [1, 3, 3, 2, 2, 4]


def test_the_order_of_two_probes_does_not_matter() -> None:
    assert outcomes_of("xx.x..", "xxx..x").case.tolist() == outcomes_of("xxx..x", "xx.x..").case.tolist()


def test_equal_accuracies_have_no_order_so_disagreement_is_case_four() -> None:
    outcomes = outcomes_of("xx....", "x.x...")
    assert outcomes.case.tolist() == [1, 4, 4, 2, 2, 2]
    assert outcomes.importance.tolist() == [2, 1, 1, 1, 1, 1]


def test_three_probes_average_their_pairs_by_hand() -> None:
    # accuracies 1/6, 3/6, 4/6: a < b < c
    outcomes = outcomes_of("x.....", "xx.x..", "xxx..x")
    # sample 0: all right. 1: a wrong, b and c right: ab with order, ac with order, bc both right: (6 + 6 + 2) / 3.
    # 2: only c: ab both wrong, ac and bc with order: (1 + 6 + 6) / 3.
    # 3: only b: ab with order, bc against, ac both wrong: (6 + 1 + 1) / 3, a tie of one against one: case 4.
    # 4: all wrong. 5: as 2.
    assert outcomes.case.tolist() == [1, 3, 3, 4, 2, 3]
    np.testing.assert_allclose(outcomes.importance, [2, 14 / 3, 13 / 3, 8 / 3, 1, 13 / 3])
    assert outcomes.pair_counts[1].tolist() == [1, 0, 2, 0]
    assert outcomes.pair_counts[3].tolist() == [0, 1, 1, 1]


@given(arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(2, 5))), st.tuples(*[st.floats(0, 10)] * 4))
def test_pairs_always_add_up_and_importance_stays_between_the_constants(
    correct: np.ndarray, constants: tuple[float, ...]
) -> None:
    labels = np.zeros(len(correct), np.int64)
    outcomes = score_importance([[np.where(column, 0, 1) for column in correct.T]], labels, constants)
    k = correct.shape[1]
    assert (outcomes.pair_counts.sum(axis=1) == k * (k - 1) // 2).all()
    assert (outcomes.importance >= min(constants) - 1e-9).all()
    assert (outcomes.importance <= max(constants) + 1e-9).all()
    assert ((outcomes.case == 1) == correct.all(axis=1)).all()
    assert ((outcomes.case == 2) == ~correct.any(axis=1)).all()
    if k == 2:
        np.testing.assert_allclose(outcomes.importance, np.array(constants)[outcomes.case - 1])
