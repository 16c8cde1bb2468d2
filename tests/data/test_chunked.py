"""What goes over values that are not held gives the same as over arrays, bit for bit, however they come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyds.data import chunked
from proxyds.data.chunked import Column, chunks_of, cut_chunks, find_nth_smallest, in_key_order, sum_by, total
from proxyds.recipe.sections.selection import LabelReduction, Selection
from proxyds.seeding import parse_ids
from proxyds.selection import sampling as draws
from proxyds.selection.draw import design_by, draw_samples
from proxyds.selection.records import SampleScores
from proxyds.selection.sampling import DRAW_LAWS, draw_systematic, inclusion_probabilities


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand samples are many chunks, and several files on disk."""
    monkeypatch.setattr(chunked, "CHUNK", 64)
    monkeypatch.setattr(chunked, "BUCKET", 256)


class Passes:
    """Counts how often a column is gone over, and how much of it is out at a time."""

    def __init__(self, values: np.ndarray, piece: int) -> None:
        self.values, self.piece, self.n = values, piece, 0

    def __call__(self) -> Iterator[np.ndarray]:
        self.n += 1
        pieces = (self.values[start : start + self.piece].copy() for start in range(0, len(self.values), self.piece))
        yield from cut_chunks(pieces, chunked.CHUNK)


def as_column(values: np.ndarray, piece: int = 37) -> Column:
    return Column(len(values), Passes(values, piece))


def make_ids(n: int) -> np.ndarray:
    return parse_ids(np.sort([hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]))


IDS = make_ids(1000)
LABELS = np.random.default_rng(1).integers(0, 7, 1000)
WEIGHTS = {
    "cases": np.random.default_rng(2).choice([2.0, 1.0, 6.0, 1.0], 1000),
    "spread": np.random.default_rng(3).exponential(size=1000),
    "heavy": np.random.default_rng(4).pareto(0.5, 1000),  # many are certain
    "zeros": np.random.default_rng(5).choice([0.0, 1.0, 5.0], 1000),
    "equal": np.ones(1000),
}


@pytest.mark.parametrize("piece", [1, 37, 64, 5000])
@pytest.mark.parametrize("n", [1, 50, 500])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("law", DRAW_LAWS)
def test_a_draw_is_the_same_from_disk(law: str, weights: np.ndarray, n: int, piece: int) -> None:
    held = DRAW_LAWS[law](weights, n, IDS, 9)
    assert held.sum() == n
    streamed = DRAW_LAWS[law](as_column(weights, piece), n, as_column(IDS, piece), 9)
    assert np.array_equal(held, streamed)


@pytest.mark.parametrize("n", [1, 50, 500])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_inclusion_probabilities_are_the_same_and_sum_to_the_number_drawn(weights: np.ndarray, n: int) -> None:
    held = inclusion_probabilities(weights, n)
    streamed = np.concatenate(list(chunks_of(inclusion_probabilities(as_column(weights), n))))
    assert np.array_equal(held, streamed)
    assert held.sum() == pytest.approx(n)


@pytest.mark.parametrize("order", ["samples-first", "labels-first"])
@pytest.mark.parametrize("choice", ["top", "drawn"])
@pytest.mark.parametrize("law", DRAW_LAWS)
def test_labels_are_reduced_alike_from_disk(law: str, order: str, choice: str) -> None:
    reduction = LabelReduction(keep=3, order=order, choice=choice)
    names, importance = [str(label) for label in range(7)], WEIGHTS["cases"]
    case = np.ones(1000, np.int64)
    selection = Selection(ratio=0.1, draw=law, labels=reduction)
    held, streamed = (
        draw_samples(SampleScores(ids, labels, weights), cases, names, design_by(weights), selection, seed=4)
        for ids, labels, weights, cases in (
            (IDS, LABELS, importance, case),
            [as_column(values) for values in (IDS, LABELS, importance, case)],
        )
    )
    assert np.array_equal(held.selected, streamed.selected)
    assert np.array_equal(held.kept_labels, streamed.kept_labels)
    for name in ("keep_probability", "inclusion_probability"):
        one, other = getattr(held, name), getattr(streamed, name)
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, np.concatenate(list(chunks_of(other))))


@pytest.mark.parametrize(
    ("law", "weights_of", "most"),
    [("systematic", "cases", 6), ("systematic", "heavy", 14), ("successive", "cases", 6), ("successive", "heavy", 6)],
)
def test_a_draw_takes_few_passes(law: str, weights_of: str, most: int) -> None:
    """As many for more samples; and one more each time that further samples become certain."""
    counts = []
    for n_samples in (200, 1000):
        weights, ids = as_column(WEIGHTS[weights_of][:n_samples]), as_column(IDS[:n_samples])
        DRAW_LAWS[law](weights, n_samples // 20, ids, 1)
        counts.append((weights.chunks.n, ids.chunks.n))
    assert counts[0] == counts[1] or weights_of == "heavy"
    assert max(map(max, counts)) <= most


def test_a_systematic_draw_holds_no_more_than_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watch(*arguments: object) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for indices, values in in_key_order(*arguments):
            seen.append(len(indices))
            yield indices, values

    monkeypatch.setattr(draws, "in_key_order", watch)
    draw_systematic(as_column(WEIGHTS["spread"]), 50, as_column(IDS), 1)
    assert len(seen) == 4
    assert max(seen) < 2 * chunked.BUCKET


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1e300, exclude_min=True), min_size=1, max_size=300), st.data())
def test_the_nth_smallest_by_radix_is_the_nth_smallest(values: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(values)))
    array = np.array(values)
    assert find_nth_smallest(as_column(array), n) == sorted(values)[n - 1] == find_nth_smallest(array, n)


def test_equal_keys_keep_their_indices() -> None:
    keys = np.array([0.5, 0.25, 0.5, 0.25] * 250)
    values = np.arange(1000.0)
    held = np.concatenate([indices for indices, _ in in_key_order(keys, values)])
    streamed = np.concatenate([indices for indices, _ in in_key_order(as_column(keys), as_column(values))])
    assert np.array_equal(held, streamed)
    assert held[:3].tolist() == [1, 3, 5]  # 0 has no value


def test_sums_do_not_depend_on_how_values_come() -> None:
    values = WEIGHTS["heavy"]
    assert total(values) == total(as_column(values)) == total(as_column(values, 1))
    held = sum_by(LABELS, values, 7)
    assert np.array_equal(held, sum_by(as_column(LABELS), as_column(values), 7))
    np.testing.assert_allclose(held, [values[label == LABELS].sum() for label in range(7)])


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 7))
def test_chunks_are_of_one_length_and_lose_nothing(lengths: list[int], size: int) -> None:
    values = np.arange(sum(lengths))
    chunks = list(cut_chunks(np.split(values, np.cumsum(lengths)[:-1]) if lengths else [], size))
    assert np.array_equal(np.concatenate([np.zeros(0, int), *chunks]), values)
    assert all(len(chunk) == size for chunk in chunks[:-1])
