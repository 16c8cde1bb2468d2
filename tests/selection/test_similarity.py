"""PCA and nearest neighbours against scikit-learn, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from proxyds.data.chunked import cut_chunks
from proxyds.data.samples import SHARD
from proxyds.errors import RecipeError, UnknownNameError
from proxyds.recipe.models import Similarity
from proxyds.selection.records import NearestMap
from proxyds.selection.similarity import TILE, check_layer, check_neighbours, fit_projection, project
from proxyds.selection.similarity import map_to_nearest as map_by_projection
from proxyds.space.cost import measure_cost


def features(n: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)).astype(np.float32)


def map_to_nearest(training: np.ndarray, evaluation: np.ndarray, **of: Any) -> NearestMap:
    similarity = Similarity(**of)
    projection = fit_projection(lambda: cut_chunks([evaluation], SHARD), similarity.dimensions)
    return map_by_projection(training, project(evaluation, projection, similarity.metric), projection, similarity)


def test_the_nearest_evaluation_sample_by_hand() -> None:
    evaluation = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    training = np.array([[1, 1], [9, 0], [2, 8], [100, 1]], np.float32)
    mapping = map_to_nearest(training, evaluation, neighbours=1, metric="euclidean", dimensions=2)
    assert mapping.nearest.tolist() == [[0], [1], [2], [1]]
    np.testing.assert_allclose(mapping.distance, [2**0.5, 1, 8**0.5, (90**2 + 1) ** 0.5], rtol=1e-5)


def test_cosine_looks_at_the_direction_alone() -> None:
    evaluation = np.array([[1, 0], [-1, 0], [0, 3], [0, -3]], np.float32)  # mean 0: PCA only turns the axes
    training = np.array([[100, 1], [0.1, 5], [-0.5, 0.1]], np.float32)
    mapping = map_to_nearest(training, evaluation, neighbours=1, metric="cosine", dimensions=2)
    assert mapping.nearest.ravel().tolist() == [0, 2, 1]
    np.testing.assert_allclose(mapping.distance[0], 1 - 100 / np.hypot(100, 1), atol=1e-6)


def test_equal_distances_go_to_the_first_in_the_order_of_ids() -> None:
    evaluation = np.array([[1, 0], [1, 0], [5, 5]], np.float32)
    mapping = map_to_nearest(np.array([[1, 0]], np.float32), evaluation, neighbours=2, metric="euclidean", dimensions=2)
    assert mapping.nearest.tolist() == [[0, 1]]


@settings(max_examples=20)
@given(st.integers(1, 3 * TILE), st.integers(2, 40), st.integers(1, 8), st.integers(1, 5), st.integers(0, 10**6))
def test_neighbours_equal_scikit_learns(n: int, m: int, width: int, k: int, seed: int) -> None:
    training, evaluation = features(n, width, seed), features(m, width, seed + 1)
    k = min(k, m)
    mapping = map_to_nearest(training, evaluation, neighbours=k, metric="euclidean", dimensions=width)
    distances, _ = (
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(evaluation.astype(np.float64)).kneighbors(training)
    )
    found = np.linalg.norm(training[:, None].astype(np.float64) - evaluation[mapping.nearest], axis=2)
    np.testing.assert_allclose(found, distances, rtol=1e-3, atol=1e-3)  # the same distances, whatever breaks a tie


@pytest.mark.parametrize(("n", "width", "kept"), [(500, 12, 5), (20_000, 7, 7), (6, 10, 64)])
def test_the_projection_equals_scikit_learns_pca(n: int, width: int, kept: int) -> None:
    data = features(n, width, 3)
    projection = fit_projection(lambda: cut_chunks([data], SHARD), kept)
    reference = PCA(min(kept, n, width), svd_solver="full").fit(data.astype(np.float64))
    rank = min(n - 1, kept, width)
    signs = np.sign((projection.components[:rank] * reference.components_[:rank]).sum(axis=1))
    np.testing.assert_allclose(projection.components[:rank] * signs[:, None], reference.components_[:rank], atol=1e-5)
    assert projection.explained_variance == pytest.approx(reference.explained_variance_ratio_.sum(), abs=1e-6)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are() -> None:
    architecture = measure_cost("r8", "resnet", {"depth": 8, "base_filters": 4}, 10, (3, 16, 16))
    assert check_layer(architecture, None, 10, (3, 16, 16)) == "pool"
    assert check_layer(architecture, "stages.1", 10, (3, 16, 16)) == "stages.1"
    with pytest.raises(
        UnknownNameError, match=r"similarity\.layer: must be a layer of r8, got 'layer9'; it has: stem.*pool"
    ):
        check_layer(architecture, "layer9", 10, (3, 16, 16))


def test_features_are_those_that_enter_the_heads_of_a_network() -> None:
    two_heads = measure_cost("d", "timm", {"model": "deit_tiny_distilled_patch16_224"}, 10, (3, 16, 16))
    assert check_layer(two_heads, None, 10, (3, 16, 16)) == "head_drop"
    of_convolution = measure_cost("s", "torchvision", {"model": "squeezenet1_1"}, 10, (3, 32, 32))
    assert check_layer(of_convolution, None, 10, (3, 32, 32)) == "classifier.0"


def test_more_neighbours_than_evaluation_samples_are_refused() -> None:
    check_neighbours(5, 5)
    with pytest.raises(RecipeError, match=r"similarity\.neighbours: must be at most .* 5, got 6"):
        check_neighbours(6, 5)
