"""What the page of bfloat16 compares, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.studies import precision
from tests.studies.precision import collect, compare


def test_both_precisions_are_compared_with_float32_of_other_numbers_by_hand() -> None:
    exact = {0: np.array([0.1, 0.2, 0.3]), 1: np.array([0.1, 0.3, 0.2]), 2: np.array([0.3, 0.2, 0.1])}
    found = compare({0: np.array([0.2, 0.4, 0.3])}, exact, has_common_draws=False)
    assert found.mixed == pytest.approx([1, -1 / 3])  # with 1 in the same order, with 2 one pair of three
    assert found.alike == pytest.approx([1 / 3, -1])
    assert found.gain.value == pytest.approx(2 / 3)
    assert found.gain.low is None  # three architectures are too few for an interval
    assert found.above == pytest.approx(0.1)


def test_accuracies_stand_in_the_order_of_the_names() -> None:
    rows = [{"number": "1", "architecture": name, "accuracy": str(of)} for name, of in (("b", 0.2), ("a", 0.1))]
    assert collect(rows, "number")[1].tolist() == [0.1, 0.2]


def test_the_page_is_current() -> None:
    assert precision.PAGE.read_text(encoding="utf-8") == precision.render()
