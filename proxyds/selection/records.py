"""What the stages hand to each other, besides samples. Plain data: arrays of one length for each sample, frozen, free of behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from proxyds.data.chunked import Values
from proxyds.data.pixels import FileAt
from proxyds.data.samples import Samples, StreamedSamples

ALL_RIGHT, ALL_WRONG, WITH_ORDER, AGAINST_ORDER = 1, 2, 3, 4
CASE_MEANINGS = {
    ALL_RIGHT: "every probe right",
    ALL_WRONG: "every probe wrong",
    WITH_ORDER: "probes differ, the more accurate right",
    AGAINST_ORDER: "probes differ, the less accurate right",
}
PAIRS = ("pairs_all_right", "pairs_all_wrong", "pairs_with_order", "pairs_against_order")
"""Columns of the table `evaluation`: how many pairs of probes fall into each case."""


@dataclass(frozen=True)
class SourceFacts:
    """What is recorded of a source: names and fingerprints, never local paths.

    Attributes:
        name: As a reader would look for it.
        revision: Pinned revision, or None where the kind of source has none.
        kind: `digits`, `hub`, `folder` or `torchvision`.
        is_local_copy: Whether a hub source was read from a local copy instead.
        fingerprint: sha256 over the sorted ids of all splits: the content, whatever its order.
        n_samples: For each split of the source, the samples read.
        n_duplicates: For each split, samples whose picture and label stand there already.
        n_shared: Training samples that also stand in the evaluation or test samples.
        bad_images: Where each image that was left out stood (`train[17]`).
        evaluation_from: How the evaluation samples came about.
        test_from: How the test samples came about.
    """

    name: str
    revision: str | None
    kind: str
    is_local_copy: bool
    fingerprint: str
    n_samples: dict[str, int]
    n_duplicates: dict[str, int]
    n_shared: int
    bad_images: tuple[str, ...]
    evaluation_from: str
    test_from: str


ReadEncoded = Callable[["Samples"], list[bytes]]
"""Returns the encoded images (as bytes, untouched) of some samples."""
OpenEncoded = Callable[[str, NDArray[np.int64]], ReadEncoded]
"""Takes a split's name and places in it, (n,); makes the images there ready to be read."""


@dataclass(frozen=True)
class Source:
    """A whole data set, split.

    Attributes:
        label_names: Text for each label.
        image_shape: (C, H, W) that networks see.
        train: The samples that may be drawn; streamed where they are too many to be held.
        evaluation: The samples that importance is measured on; the test samples under the paper's protocol.
        test: The samples that choose nothing and only ever measure.
        facts: What is recorded.
        reading: Whether it is held in memory or streamed, and why, for people.
        open_encoded: Gives access to encoded images.
    """

    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Samples | StreamedSamples
    evaluation: Samples
    test: Samples
    facts: SourceFacts
    reading: str
    open_encoded: OpenEncoded = field(repr=False)


@dataclass(frozen=True)
class Architecture:
    """One network of the search space, and its cost on one image.

    Attributes:
        name: Short and unique in the space, for example `resnet depth=8 base_filters=4`.
        network: Registered family.
        parameters: The family's parameters, as JSON has them.
        forward_flops: Floating-point operations forward (a multiply-add is two).
        training_flops: The same, forward and backward.
        n_parameters: Weights.
    """

    name: str
    network: str
    parameters: dict[str, Any]
    forward_flops: int
    training_flops: int
    n_parameters: int


@dataclass(frozen=True)
class Probe:
    """A trained probe network and what it made of the evaluation samples.

    Attributes:
        architecture: Which network.
        repeat: Number of the training, from 0; each has a seed of its own.
        predictions: (M,) int64, the label it gives each evaluation sample.
        accuracy: Share of the evaluation samples that it gets right, in [0, 1].
        losses: Mean training loss of each epoch, in nats.
        training_seconds: Time of the training alone, in whichever build it was done.
        training_flops: Of the whole training.
        asking_flops: Of asking it about every sample after each epoch; 0 where it was not asked.
        weights_file: Its weights as safetensors, in the store.
    """

    architecture: Architecture
    repeat: int
    predictions: NDArray[np.int64]
    accuracy: float
    losses: tuple[float, ...]
    training_seconds: float
    training_flops: int
    asking_flops: int
    weights_file: FileAt


@dataclass(frozen=True)
class Agreement:
    """How far two trainings of the same probes, with other seeds, give evaluation samples the same case.

    Attributes:
        share: Of the samples that have the same case in two repeats, the mean over pairs of repeats.
        by_chance: What that would be if cases were dealt at random in the same shares.
        of_cases: For each case, of the samples that have it in one repeat, the share that have it in another; None where
            no sample has it.
    """

    share: float
    by_chance: float
    of_cases: tuple[float | None, ...]


@dataclass(frozen=True)
class Outcomes:
    """Who was right on which evaluation sample, case by case.

    Attributes:
        predictions: (M, R * k) int64, each probe's label for each evaluation sample, one repeat after the other.
        correct: (M, R * k) bool, whether it is right.
        case: (M,) int64 in 1..4.
        importance: (M,) float64.
        pair_counts: (M, 4) int64, how many pairs of probes fall into each case, over all repeats.
        agreement: Of the repeats' cases; None where each probe was trained once.
    """

    predictions: NDArray[np.int64]
    correct: NDArray[np.bool_]
    case: NDArray[np.int64]
    importance: NDArray[np.float64]
    pair_counts: NDArray[np.int64]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Mapping:
    """Each training sample's nearest evaluation samples.

    Attributes:
        nearest: (N, n_neighbours) int64, positions in the evaluation samples, nearest first.
        distance: (N,) float64, to the nearest, in the metric of the recipe.
        n_neighbours: Of each sample.
        n_dimensions: Of the features after PCA.
        explained_variance: Share of the evaluation features' variance that these keep, in [0, 1].
    """

    nearest: Values
    distance: Values
    n_neighbours: int
    n_dimensions: int
    explained_variance: float


@dataclass(frozen=True)
class Drawn:
    """Samples that were drawn to be trained on.

    Attributes:
        selected: (N,) bool.
        kept_labels: (L,) int64, sorted: the labels that training and test are confined to; None for all.
    """

    selected: NDArray[np.bool_]
    kept_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Draw:
    """The samples of the proxy, and why.

    Attributes:
        case: (N,) whole numbers in 1..4, of the nearest evaluation sample.
        importance: (N,) float64, by cases.
        weight: (N,) float64, what the samples were drawn by; None where that is the importance.
        keep_probability: (N,) float64, the weight over its sum (the paper's; a draw distribution); by strata where the method deals them out.
        inclusion_probability: (N,) float64, chance of being in the proxy; None where draw law or choice of labels leave it no closed form.
        selected: (N,) bool, with exactly round(ratio * N) true.
        kept_labels: (L,) int64, sorted: the labels that the proxy keeps; None for all.
    """

    case: Values
    importance: Values
    weight: Values | None
    keep_probability: Values
    inclusion_probability: Values | None
    selected: NDArray[np.bool_]
    kept_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Tables:
    """A proxy's tables, as Arrow; `FORMAT.md` names their columns.

    Attributes:
        data: The proxy, a row for each sample.
        importance: Every sample that could have been drawn.
        evaluation: Every evaluation sample with the probes' outcomes.
        ranking: Every run behind the evidence; None where the ranking was not checked.
    """

    data: pa.Table
    importance: pa.Table
    evaluation: pa.Table
    ranking: pa.Table | None = None


@dataclass(frozen=True)
class Progress:
    """One step of work under way, for whoever shows it.

    Attributes:
        stage: Which stage.
        task: Which task of it.
        done: Units done.
        total: Units in all.
        note: A figure worth seeing, such as the loss.
    """

    stage: str
    task: str
    done: float
    total: float
    note: str = ""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Shows nothing."""
