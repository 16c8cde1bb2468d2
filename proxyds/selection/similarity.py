"""From evaluation to training samples: features, PCA, nearest evaluation sample (paper, section 3.2).

Every sum runs in a fixed order over tiles of a fixed size, so that a result does not depend on memory, shards or workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from proxyds.data.chunked import Column, Values, cut_chunks, map_chunks, materialize
from proxyds.data.pixels import FileAt
from proxyds.data.samples import SHARD, Samples, StreamedSamples
from proxyds.errors import RecipeError, UnknownNameError
from proxyds.recipe.models import Similarity
from proxyds.runtime.storage.store import Entry
from proxyds.runtime.task import Done, Report, Task
from proxyds.selection.records import NearestMap, Outcomes
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import ask_network
from proxyds.space.networks.plugins import find_family
from proxyds.training.inference import extract_features, list_layers
from proxyds.training.job import within_memory
from proxyds.training.model import load_network

FEATURES, MAPPING = "features", "similarity"
FEATURES_VERSION, MAPPING_VERSION = 3, 4
TILE = 128
"""Training samples whose distances are in memory at once: with 10,000 evaluation samples, 5 MB."""
BLOCK = 16_384
"""Evaluation samples that are compared with all of a shard before the next are: they and their distances stay in the cache."""


@dataclass(frozen=True)
class Projection:
    """A principal component analysis.

    Attributes:
        mean: (D,) float64.
        components: (d, D) float64, orthonormal rows; the entry of largest size in each is positive.
        explained_variance: Share of the variance that the components keep, in [0, 1].
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance: float


def check_layer(architecture: Architecture, layer: str | None, n_labels: int, image_shape: tuple[int, int, int]) -> str:
    """Finds the layer to take features from: the one asked for, or else the family's own, or else the last before the head.

    Raises:
        UnknownNameError: The network has no such layer.
        RecipeError: None is asked for, and the network has no head to go by.
    """
    asked = layer or find_family(architecture.network).feature_layer

    def ask(network: nn.Module, images: Tensor) -> tuple[list[str], str | None]:
        layers = list_layers(network, images)
        return layers, asked or _before_heads(network, layers, n_labels)

    layers, asked = ask_network(architecture.network, architecture.parameters, n_labels, image_shape, ask)
    if asked is None:
        raise RecipeError(
            f"similarity.layer: must name the layer of {architecture.name} that features are taken from, since it has no linear layer to "
            f"take them before; it has: {_show(layers)}"
        )
    if asked not in layers:
        place = "similarity.layer" if layer else f"feature_layer of the family {architecture.network}"
        raise UnknownNameError(
            f"{place}: must be a layer of {architecture.name}, got {asked!r}; it has: {_show(layers)}"
        )
    return asked


def _show(layers: Sequence[str]) -> str:
    shown = [name for name in layers if name.count(".") < 2] or layers[:9]
    return (
        ", ".join([*shown, *(["..."] if len(shown) < len(layers) else [])])
        or "none, make its parts modules of their own"
    )


def _before_heads(network: nn.Module, layers: Sequence[str], n_labels: int) -> str | None:
    """Finds the last layer that is computed before the head, or before the first of several heads that are computed side by side.

    A head is linear, or a 1x1 convolution, and gives as many values as there are labels; where there is none, the last linear
    layer stands for it; None where there is none either. The layers are in the order of computation.
    """

    def can_be_head(module: nn.Module) -> bool:
        if isinstance(module, nn.Linear):
            return module.out_features == n_labels
        return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels == n_labels

    modules = [network.get_submodule(layer) for layer in layers]
    linear = [index for index, module in enumerate(modules) if isinstance(module, nn.Linear)]
    heads = [index for index, module in enumerate(modules) if can_be_head(module)] or linear
    if not heads:
        return None
    head = heads[-1]
    while head - 1 in heads:
        head -= 1
    return layers[head - 1] if head else layers[-1]


def check_neighbours(n_neighbours: int, n_evaluation: int) -> None:
    """Raises `RecipeError` for more neighbours than there are evaluation samples."""
    if n_neighbours > n_evaluation:
        raise RecipeError(
            f"similarity.neighbours: must be at most the number of evaluation samples, {n_evaluation:,}, got {n_neighbours:,}"
        )


def feature_tasks(
    architecture: Architecture,
    weights: Entry,
    layer: str,
    samples: Samples | StreamedSamples,
    role: str,
    device: str,
    precision: str,
) -> list[Task]:
    """Splits feature extraction into tasks of `SHARD` samples.

    Args:
        architecture: The network.
        weights: What `probe.train_probe` stored of it.
        layer: A layer of `check_layer`.
        samples: The samples, in the order of ids.
        role: What the samples are, for people.
        device: `cpu` or a CUDA device.
        precision: That of the weights' own training, so that their key tells it.
    """
    n_shards = -(-len(samples) // SHARD)
    return [
        Task(
            stage=FEATURES,
            name=f"features of {role} samples {shard + 1}/{n_shards}",
            inputs={
                "version": FEATURES_VERSION,
                "probe": weights.key,
                "layer": layer,
                "samples": samples.fingerprint,
                "shard": shard,
            },
            function=extract_shard,
            arguments={
                "weights_file": weights.file("weights.safetensors"),
                "architecture": architecture,
                "layer": layer,
                "samples": samples.part(shard),
                "device": device,
                "precision": precision,
            },
        )
        for shard in range(n_shards)
    ]


def extract_shard(
    *,
    folder: Path,
    report: Report,
    weights_file: FileAt,
    architecture: Architecture,
    layer: str,
    samples: Samples | StreamedSamples,
    device: str,
    precision: str,
) -> None:
    """Writes `features.npy`, (n, D) float32: the features of some samples."""
    with within_memory(architecture.name, device, "smaller images (source.image_size)"):
        network = load_network(weights_file.path, architecture.network, architecture.parameters)
        np.save(folder / "features.npy", extract_features(network, layer, samples.pixels(), device, precision))
    report(1, 1, "")


@dataclass(frozen=True)
class Features:
    """Where features are, and how samples are compared by them.

    Attributes:
        training: Finished tasks of `feature_tasks`, shard by shard, for the samples that may be drawn.
        evaluation: The same for the evaluation samples.
        settings: Dimensions, metric, neighbours.
        arithmetic: What bits depend on besides: see `machine.describe_arithmetic`.
    """

    training: list[Done]
    evaluation: list[Done]
    settings: Similarity
    arithmetic: dict[str, str]


def projection_task(features: Features) -> Task:
    """Describes the fit of the PCA: one task, so that its arithmetic runs in one thread."""
    settings = features.settings
    return Task(
        stage=MAPPING,
        name="principal components",
        inputs={
            "version": MAPPING_VERSION,
            "features": [done.entry.key for done in features.evaluation],
            "dimensions": settings.dimensions,
            "metric": settings.metric,
            **features.arithmetic,
        },
        function=write_projection,
        arguments={
            "evaluation": [done.entry.file("features.npy") for done in features.evaluation],
            "settings": settings,
        },
    )


def write_projection(*, folder: Path, report: Report, evaluation: Sequence[FileAt], settings: Similarity) -> None:
    """Writes `projection.npz`, fitted on the evaluation samples' features, and these as it projects them, `references.npy`."""

    def read() -> Iterator[NDArray[np.float32]]:
        return cut_chunks((np.load(file.path) for file in evaluation), SHARD)

    projection = fit_projection(read, settings.dimensions)
    np.savez(folder / "projection.npz", **asdict(projection))
    references = [project(tile, projection, settings.metric) for tile in read()]
    np.save(folder / "references.npy", np.concatenate(references))
    report(1, 1, "")


def mapping_tasks(features: Features, projection: Done) -> list[Task]:
    """Splits the search for nearest evaluation samples into tasks of a shard of training samples, once `projection_task` is done."""
    settings, n_shards = features.settings, len(features.training)
    return [
        Task(
            stage=MAPPING,
            name=f"nearest evaluation samples {shard + 1}/{n_shards}",
            inputs={
                "version": MAPPING_VERSION,
                "features": training.entry.key,
                "projection": projection.entry.key,
                "metric": settings.metric,
                "neighbours": settings.neighbours,
                **features.arithmetic,
            },
            function=map_shard,
            arguments={
                "training": training.entry.file("features.npy"),
                "projection": projection.entry.file("projection.npz"),
                "references": projection.entry.file("references.npy"),
                "settings": settings,
            },
        )
        for shard, training in enumerate(features.training)
    ]


def map_shard(
    *, folder: Path, report: Report, training: FileAt, projection: FileAt, references: FileAt, settings: Similarity
) -> None:
    """Maps a shard's features by `map_to_nearest` and writes `mapping.npz`; projection and references are those of `write_projection`."""
    fitted = _read_projection(projection)
    mapping = map_to_nearest(np.load(training.path), np.load(references.path), fitted, settings)
    np.savez(folder / "mapping.npz", **asdict(mapping))
    report(1, 1, "")


def open_mapping(entries: Sequence[Entry], n: int, *, in_memory: bool) -> NearestMap:
    """Opens what the tasks of `mapping_tasks` wrote of n samples; reads it into memory or leaves it in its files."""

    def column(name: str) -> Values:
        def read() -> Iterator[NDArray[Any]]:
            for entry in entries:
                with np.load(entry.file("mapping.npz").path) as arrays:
                    yield arrays[name]

        values = Column(n, lambda: cut_chunks(read()))
        return materialize(values) if in_memory else values

    with np.load(entries[0].file("mapping.npz").path) as arrays:
        numbers = {name: arrays[name].item() for name in ("n_neighbours", "n_dimensions", "explained_variance")}
    return NearestMap(column("nearest"), column("distance"), **numbers)


def gather_features(features: Features, projection: Done) -> NDArray[np.float32]:
    """Projects the training samples' features, (N, d) float32 in memory, by the finished `projection_task`."""
    fitted = _read_projection(projection.entry.file("projection.npz"))
    with threadpool_limits(1):  # as the search for neighbours projects them
        shards = (np.load(done.entry.file("features.npy").path) for done in features.training)
        return np.concatenate([project(shard, fitted, features.settings.metric) for shard in shards])


def fit_projection(tiles: Callable[[], Iterator[NDArray[np.float32]]], n_dimensions: int) -> Projection:
    """Fits a PCA by the covariance in float64, accumulated tile by tile in order, in two passes with one tile in memory.

    Args:
        tiles: Begins a pass over the features (M, D) of the evaluation samples, `SHARD` at a time.
        n_dimensions: Components to keep at most; fewer where M or D is smaller.
    """
    n, mean = 0, np.zeros(1)
    for tile in tiles():
        n += len(tile)
        mean = mean + tile.astype(np.float64).sum(axis=0)
    mean, width = mean / n, len(mean)
    covariance = np.zeros((width, width))
    for tile in tiles():
        centred = tile.astype(np.float64) - mean
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance)
    kept = min(n_dimensions, width, n)
    components = vectors[:, ::-1][:, :kept].T
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(kept), largest])[:, None]
    total = values.sum()
    explained = float(values[::-1][:kept].sum() / total) if total > 0 else 1.0
    return Projection(mean, np.ascontiguousarray(components), explained)


def map_to_nearest(
    training: NDArray[np.float32], references: NDArray[np.float32], projection: Projection, settings: Similarity
) -> NearestMap:
    """Finds each training sample's nearest evaluation samples (Algorithm 1 steps 5 to 7).

    Args:
        training: (N, D) features.
        references: (M, d) the evaluation samples' features, of `project`.
        projection: Fitted on these.
        settings: Metric, and neighbours: 1 in the paper; at most M.

    Returns:
        Positions in `references`, nearest first; which of equal ones comes first is left to rounding.
    """
    queries = project(training, projection, settings.metric)
    nearest = find_nearest(queries, references, settings.neighbours)
    squared = ((queries - references[nearest[:, 0]]) ** 2).sum(axis=1).astype(np.float64)
    distance = squared / 2 if settings.metric == "cosine" else np.sqrt(squared)
    return NearestMap(nearest, distance, settings.neighbours, len(projection.components), projection.explained_variance)


def project(features: NDArray[np.float32], projection: Projection, metric: str) -> NDArray[np.float32]:
    """Projects (n, D) features to (n, d), tile by tile; to length 1 where the metric looks at directions alone."""

    def project_tile(tile: NDArray[np.float32]) -> NDArray[np.float32]:
        projected = ((tile - projection.mean) @ projection.components.T).astype(np.float32)
        if metric == "cosine":
            projected = projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(projected, dtype=np.float32)

    return np.concatenate([project_tile(tile) for tile in cut_chunks([features], SHARD)])


def find_nearest(queries: NDArray[np.float32], references: NDArray[np.float32], n_neighbours: int) -> NDArray[np.int64]:
    """Finds the nearest references (M, d) of every query (N, d) by all their distances, `TILE` rows at a time.

    |r|^2 / 2 - q r orders references as their distances do. One product gives it, of queries with a 1 behind and of
    negative references with |r|^2 / 2 behind.

    Returns:
        (N, n_neighbours) positions, nearest first. Of equal distances the first is taken, but for rounding: a product may round
        equal references unlike.
    """
    nearest, best = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for start in range(0, len(references), BLOCK):
        indices, scores = _find_in_block(queries, references[start : start + BLOCK], n_neighbours)
        nearest, best = np.concatenate([nearest, indices + start], axis=1), np.concatenate([best, scores], axis=1)
        if start:  # of both those that are nearer, of equal ones those that came first
            order = np.argsort(best, axis=1, kind="stable")[:, :n_neighbours]
            nearest, best = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(best, order, axis=1)
    return nearest


def _find_in_block(
    queries: NDArray[np.float32], references: NDArray[np.float32], n_neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Finds positions and scores of the nearest of some references; of all of them where there are fewer than asked for."""
    half_norms = (references**2).sum(axis=1, keepdims=True) / 2
    against = np.concatenate([-references, half_norms], axis=1).T
    n_nearest = min(n_neighbours, len(references))
    nearest = np.empty((len(queries), n_nearest), np.int64)
    best = np.empty((len(queries), n_nearest), np.float32)
    buffer = np.empty((min(TILE, len(queries)), len(references)), np.float32)
    for start in range(0, len(queries), TILE):
        tile = queries[start : start + TILE]
        scores = buffer[: len(tile)]
        np.matmul(np.concatenate([tile, np.ones((len(tile), 1), np.float32)], axis=1), against, out=scores)
        rows = np.arange(len(tile))
        for rank in range(n_nearest):
            smallest = scores.argmin(axis=1)
            nearest[start : start + TILE, rank] = smallest
            best[start : start + TILE, rank] = scores[rows, smallest]
            scores[rows, smallest] = np.inf
    return nearest, best


def carry_importance(mapping: NearestMap, outcomes: Outcomes) -> tuple[Values, Values]:
    """Gives training samples the case of their nearest evaluation sample, (N,) int64, and the mean importance of all near ones, (N,) float64."""
    case = map_chunks(lambda nearest: outcomes.case[nearest[:, 0]], mapping.nearest)
    return case, map_chunks(lambda nearest: outcomes.importance[nearest].mean(axis=1), mapping.nearest)


def _read_projection(file: FileAt) -> Projection:
    with np.load(file.path) as arrays:
        return Projection(arrays["mean"], arrays["components"], float(arrays["explained_variance"]))
