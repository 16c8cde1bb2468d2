"""What the stages hand to each other. Plain data: arrays of one length for each sample, frozen, free of behaviour.

Samples stand in the order of their ids everywhere, so that nothing depends on a source's order or shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from proxyds.columns import Column, Values, cut_tiles
from proxyds.pixels import FileAt, Pixels
from proxyds.seeding import ParsedIds, parse_ids

ALL_RIGHT, ALL_WRONG, WITH_ORDER, AGAINST_ORDER = 1, 2, 3, 4
CASE_MEANINGS = {
    ALL_RIGHT: "every probe right",
    ALL_WRONG: "every probe wrong",
    WITH_ORDER: "probes differ, the more accurate right",
    AGAINST_ORDER: "probes differ, the less accurate right",
}
SHARD = 8192
"""Samples whose features are extracted, and whose neighbours are found, by one task."""
PAIRS = ("pairs_all_right", "pairs_all_wrong", "pairs_with_order", "pairs_against_order")
"""Columns of the table `evaluation`: how many pairs of probes fall into each case."""


@dataclass(frozen=True)
class Samples:
    """Labelled images of one split.

    Attributes:
        ids: (N,) text, sorted; sha256 of decoded mode, size, pixels and label, then `-2`, `-3`, ... for repeats.
        labels: (N,) int64 in [0, n_labels).
        source_index: (N,) int64, position in the source's split.
        encoded_sha256: (N,) text, of the image file's bytes as the source holds them.
        split: The source's name of the split.
        pixels_files: `.npy` files of uint8 (m, C, H, W).
        file_starts: Number of each file's first image, the files laid end to end.
        rows: (N,) int64, where each sample's pixels stand in them.
        conversion: What turned images into pixels: mode, size, version of the code.
        stay_on_disk: Whether there are too many pixels to be held in memory.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    source_index: NDArray[np.int64]
    encoded_sha256: NDArray[np.str_]
    split: str
    pixels_files: tuple[FileAt, ...]
    file_starts: tuple[int, ...]
    rows: NDArray[np.int64]
    conversion: str
    stay_on_disk: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, shard: int) -> Samples:
        """One shard of `SHARD` samples; the last has fewer."""
        return self.take(np.arange(shard * SHARD, min((shard + 1) * SHARD, len(self))))

    def shards(self) -> Iterator[Samples]:
        """One shard after the other."""
        return (self.part(shard) for shard in range(-(-len(self) // SHARD)))

    def load(self) -> Samples:
        """Itself: its columns are in memory."""
        return self

    def take(self, positions: NDArray[np.int64] | NDArray[np.bool_]) -> Samples:
        """The samples at some positions, which must keep the order of ids."""
        return replace(
            self,
            ids=self.ids[positions],
            labels=self.labels[positions],
            source_index=self.source_index[positions],
            encoded_sha256=self.encoded_sha256[positions],
            rows=self.rows[positions],
        )

    def keep_labels(self, kept: NDArray[np.int64]) -> Samples:
        """The samples of some labels, (L,) sorted, whose numbers become 0 to L - 1."""
        some = self.take(np.isin(self.labels, kept))
        return replace(some, labels=np.searchsorted(kept, some.labels))

    @cached_property
    def parsed_ids(self) -> ParsedIds:
        """(N,) what random keys are hashed from."""
        return parse_ids(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of all that a network sees of the samples: ids, numbers of labels, conversion."""
        content = hashlib.sha256(f"{self.conversion}\n".encode())
        content.update("\n".join(self.ids).encode())
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def pixels(self) -> NDArray[np.uint8] | Pixels:
        """The pixels, (N, C, H, W) uint8: in memory, or read as they are indexed where they must stay on disk."""
        held = Pixels(self.pixels_files, self.file_starts, self.rows)
        return held if self.stay_on_disk else held.load()


@dataclass(frozen=True)
class StreamedSamples:
    """Labelled images of one split, too many to be held: the columns of `Samples` lie in files, a shard in each.

    Attributes:
        files: `.npz` files of `SHARD` samples each, the last of fewer; see `write_shard`.
        counts: Samples of each file.
        split: As of `Samples`.
        pixels_files: As of `Samples`.
        file_starts: As of `Samples`.
        conversion: As of `Samples`.
        fingerprint: As of `Samples`.
    """

    files: tuple[FileAt, ...]
    counts: tuple[int, ...]
    split: str
    pixels_files: tuple[FileAt, ...]
    file_starts: tuple[int, ...]
    conversion: str
    fingerprint: str = field(default="", compare=False)

    def __len__(self) -> int:
        return sum(self.counts)

    def part(self, shard: int) -> StreamedSamples:
        """One shard, still on disk."""
        return replace(self, files=(self.files[shard],), counts=(self.counts[shard],), fingerprint="")

    def shards(self) -> Iterator[Samples]:
        """Reads one shard after the other."""
        for file in self.files:
            with np.load(file.path) as held:
                columns = {name: held[name] for name in ("labels", "source_index", "rows")}
                texts = {name: held[name].astype(np.str_) for name in ("ids", "encoded_sha256")}
            yield Samples(
                **texts,
                **columns,
                split=self.split,
                pixels_files=self.pixels_files,
                file_starts=self.file_starts,
                conversion=self.conversion,
                stay_on_disk=True,
            )

    def load(self) -> Samples:
        """All columns in memory, some 600 bytes a sample, for a moment twice that; the pixels stay where they are."""
        return join_samples(list(self.shards()))

    @property
    def labels(self) -> Column:
        """(N,) int64."""
        return self._column("labels")

    @property
    def parsed_ids(self) -> Column:
        """(N,) what random keys are hashed from."""
        ids = self._column("ids")
        return Column(len(self), lambda: (parse_ids(tile.astype(np.str_)) for tile in ids.tiles()))

    def pixels(self) -> Pixels:
        """The pixels, (N, C, H, W) uint8, read as they are indexed; eight bytes a sample are held."""
        rows = np.concatenate([np.zeros(0, np.int64), *self._column("rows").tiles()])
        return Pixels(self.pixels_files, self.file_starts, rows)

    def _column(self, name: str) -> Column:
        def read() -> Iterator[NDArray[Any]]:
            for file in self.files:
                with np.load(file.path) as held:
                    yield held[name]

        return Column(len(self), lambda: cut_tiles(read()))


def join_samples(pieces: Sequence[Samples]) -> Samples:
    """Puts pieces of one split together, which must follow each other."""
    names = ("ids", "labels", "source_index", "encoded_sha256", "rows")
    columns: dict[str, Any] = {name: np.concatenate([getattr(each, name) for each in pieces]) for name in names}
    return replace(pieces[0], **columns)


def write_shard(file: Path, samples: Samples) -> None:
    """Writes what `StreamedSamples` reads."""
    np.savez(
        file,
        ids=samples.ids.astype(np.bytes_),
        labels=samples.labels,
        source_index=samples.source_index,
        encoded_sha256=samples.encoded_sha256.astype(np.bytes_),
        rows=samples.rows,
    )


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
        weights_file: Its weights as safetensors, in the store.
    """

    architecture: Architecture
    repeat: int
    predictions: NDArray[np.int64]
    accuracy: float
    losses: tuple[float, ...]
    training_seconds: float
    training_flops: int
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
        importance: (N,) float64.
        keep_probability: (N,) float64, importance over its sum (the paper's; a draw distribution).
        inclusion_probability: (N,) float64, chance of being in the proxy; None where draw law or choice of labels leave it no closed form.
        selected: (N,) bool, with exactly round(ratio * N) true.
        kept_labels: (L,) int64, sorted: the labels that the proxy keeps; None for all.
    """

    case: Values
    importance: Values
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
