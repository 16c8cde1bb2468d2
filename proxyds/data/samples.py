"""Labelled images of one split: their columns in memory, or in files that are read a shard at a time.

Samples stand in the order of their ids everywhere, so that nothing depends on a source's order or shards. Their pixels lie in files either way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from proxyds.data.chunked import Column, count, cut_chunks, materialize
from proxyds.data.images import ID_RULE
from proxyds.data.pixels import FileAt, ImageArray, Pixels
from proxyds.seeding import ParsedIds, parse_ids

CARVED = "carved "
"""What the origin of samples begins with that were taken from others."""
SHARD = 8192
"""Samples whose features are extracted, and whose neighbours are found, by one task."""

COLUMNS = ("ids", "labels", "source_index", "encoded_sha256", "rows")
"""What there is of each sample."""
_TEXTS = ("ids", "encoded_sha256")


@dataclass(frozen=True)
class Origin:
    """Where a split's samples come from, and where their pixels lie.

    Attributes:
        split: The source's name of the split.
        pixels_files: `.npy` files of uint8 (m, C, H, W).
        file_starts: Number of each file's first image, the files laid end to end.
        conversion: What turned images into pixels: mode, size, version of the code.
    """

    split: str
    pixels_files: tuple[FileAt, ...]
    file_starts: tuple[int, ...]
    conversion: str


@dataclass(frozen=True)
class SoftLabels:
    """What a network makes of some samples: a probability for every label.

    Attributes:
        files: `.npy` files of float32 (m, L), log probabilities.
        file_starts: Number of each file's first sample, the files laid end to end.
        rows: (N,) int64, where each sample stands in the files.
        fingerprint: What tells these answers from others.
        kept: (K,) int64, the labels that count; None for all.
    """

    files: tuple[FileAt, ...]
    file_starts: tuple[int, ...]
    rows: NDArray[np.int64]
    fingerprint: str
    kept: NDArray[np.int64] | None = None

    def take(self, indices: NDArray[np.int64] | NDArray[np.bool_] | slice) -> SoftLabels:
        """Takes those of the samples at some indices, which must keep the order."""
        return replace(self, rows=self.rows[indices])

    def read(self) -> NDArray[np.float32]:
        """Reads the probabilities, (N, L) float32, in memory; of kept labels (N, K), which sum to 1 too."""
        file_of = np.searchsorted(self.file_starts, self.rows, side="right") - 1
        probabilities: NDArray[np.float32] = np.empty((0, 0), np.float32)
        for file in np.unique(file_of):
            rows = file_of == file
            log_p = np.load(self.files[file].path)[self.rows[rows] - self.file_starts[file]]
            log_p = log_p if self.kept is None else log_p[:, self.kept]
            if not len(probabilities):  # one copy of all, and what one file holds
                probabilities = np.empty((len(self.rows), log_p.shape[1]), np.float32)
            probabilities[rows] = softmax(log_p, axis=1)
        return probabilities


@dataclass(frozen=True)
class Samples:
    """Labelled images of one split.

    Attributes:
        ids: (N,) text, sorted; sha256 of the picture's mode, size and pixels and of the label, then `-2`, `-3`, ... for repeats.
        labels: (N,) int64 in [0, n_labels).
        source_index: (N,) int64, position in the source's split.
        encoded_sha256: (N,) text, of the image file's bytes as the source holds them.
        rows: (N,) int64, where each sample's pixels stand in the files of the origin.
        origin: Where the samples come from.
        stay_on_disk: Whether there are too many pixels to be held in memory.
        soft_labels: What networks learn in place of labels; None for labels.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    source_index: NDArray[np.int64]
    encoded_sha256: NDArray[np.str_]
    rows: NDArray[np.int64]
    origin: Origin
    stay_on_disk: bool = False
    soft_labels: SoftLabels | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, some: slice) -> Samples:
        return self.take(some)

    def part(self, shard: int) -> Samples:
        """Takes one shard of `SHARD` samples; the last has fewer."""
        return self[shard * SHARD : (shard + 1) * SHARD]

    def shards(self) -> Iterator[Samples]:
        """Goes over the shards."""
        return (self.part(shard) for shard in range(-(-len(self) // SHARD)))

    def load(self) -> Samples:
        """Returns itself: its columns are in memory."""
        return self

    def take(self, indices: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Samples:
        """Takes the samples at some indices, which must keep the order of ids."""
        columns: dict[str, Any] = {name: getattr(self, name)[indices] for name in COLUMNS}
        soft_labels = None if self.soft_labels is None else self.soft_labels.take(indices)
        return replace(self, **columns, soft_labels=soft_labels)

    def keep_labels(self, kept: NDArray[np.int64]) -> Samples:
        """Takes the samples of some labels, (L,) sorted, whose numbers become 0 to L - 1."""
        some = self.take(np.isin(self.labels, kept))
        soft_labels = None if some.soft_labels is None else replace(some.soft_labels, kept=kept)
        return replace(some, labels=np.searchsorted(kept, some.labels), soft_labels=soft_labels)

    def read_targets(self) -> NDArray[np.int64] | NDArray[np.float32]:
        """Reads what networks learn: labels (N,), or soft labels (N, L)."""
        return self.labels if self.soft_labels is None else self.soft_labels.read()

    @cached_property
    def parsed_ids(self) -> ParsedIds:
        """(N,) what random keys are hashed from."""
        return parse_ids(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of all that a network sees of the samples: ids, numbers of labels, conversion; soft labels, where there are any."""
        content = hashlib.sha256(f"{self.origin.conversion}\n".encode())
        content.update("\n".join(self.ids).encode())
        content.update(self.labels.astype("<i8").tobytes())
        if self.soft_labels is not None:
            kept = "" if self.soft_labels.kept is None else ",".join(map(str, self.soft_labels.kept))
            content.update(f"{self.soft_labels.fingerprint} {kept}".encode())
        return content.hexdigest()

    def pixels(self) -> ImageArray:
        """Opens the pixels, (N, C, H, W) uint8: in memory, or read as they are indexed where they must stay on disk."""
        pixels = Pixels(self.origin.pixels_files, self.origin.file_starts, self.rows)
        return pixels if self.stay_on_disk else pixels[:]


@dataclass(frozen=True)
class StreamedSamples:
    """Labelled images of one split, too many to be held: the columns of `Samples` lie in files, a shard in each.

    Attributes:
        files: `.npz` files of `SHARD` samples each, the last of fewer; see `write_shard`.
        counts: Samples of each file.
        origin: Where the samples come from.
        fingerprint: As of `Samples`.
    """

    files: tuple[FileAt, ...]
    counts: tuple[int, ...]
    origin: Origin
    fingerprint: str = field(default="", compare=False)

    def __len__(self) -> int:
        return sum(self.counts)

    def part(self, shard: int) -> StreamedSamples:
        """Takes one shard, still on disk."""
        return replace(self, files=(self.files[shard],), counts=(self.counts[shard],), fingerprint="")

    def shards(self) -> Iterator[Samples]:
        """Reads one shard after the other."""
        for file in self.files:
            with np.load(file.path) as shard:
                columns = {name: shard[name].astype(np.str_) if name in _TEXTS else shard[name] for name in COLUMNS}
            yield Samples(**columns, origin=self.origin, stay_on_disk=True)

    def load(self) -> Samples:
        """Reads all columns into memory, some 600 bytes a sample, for a moment twice that; the pixels stay where they are."""
        return join_samples(list(self.shards()))

    @property
    def labels(self) -> Column:
        """(N,) int64."""
        return self._column("labels")

    def read_targets(self) -> NDArray[np.int64]:
        """Reads what networks learn: labels (N,)."""
        return materialize(self.labels)

    @property
    def parsed_ids(self) -> Column:
        """(N,) what random keys are hashed from."""
        ids = self._column("ids")
        return Column(len(self), lambda: (parse_ids(chunk.astype(np.str_)) for chunk in ids.chunks()))

    def pixels(self) -> Pixels:
        """Opens the pixels, (N, C, H, W) uint8, to be read as they are indexed; eight bytes a sample are held."""
        rows = np.concatenate([np.zeros(0, np.int64), *self._column("rows").chunks()])
        return Pixels(self.origin.pixels_files, self.origin.file_starts, rows)

    def _column(self, name: str) -> Column:
        def read() -> Iterator[NDArray[Any]]:
            for file in self.files:
                with np.load(file.path) as shard:
                    yield shard[name]

        return Column(len(self), lambda: cut_chunks(read()))


def join_samples(pieces: Sequence[Samples]) -> Samples:
    """Puts pieces of one split together, which must follow each other and have no soft labels."""
    assert all(each.soft_labels is None for each in pieces)
    columns: dict[str, Any] = {name: np.concatenate([getattr(each, name) for each in pieces]) for name in COLUMNS}
    return replace(pieces[0], **columns)


def write_shard(file: Path, samples: Samples) -> None:
    """Writes what `StreamedSamples` reads."""
    columns: dict[str, Any] = {name: getattr(samples, name) for name in COLUMNS}
    np.savez(file, **columns | {name: columns[name].astype(np.bytes_) for name in _TEXTS})


@dataclass(frozen=True)
class SourceFacts:
    """What is recorded of a source: names and fingerprints, never local paths.

    Attributes:
        name: As a reader would look for it.
        revision: Pinned revision, or None where the kind of source has none.
        kind: `digits`, `hub`, `folder`, `torchvision` or `memory`.
        is_local_copy: Whether a hub source was read from a local copy instead.
        fingerprint: sha256 over the sorted ids of all splits: the content, whatever its order.
        n_samples: For each split of the source, the samples read.
        n_duplicates: For each split, samples whose picture and label stand there already.
        n_shared: Training samples whose picture, as networks see it, also stands under the same label among evaluation or test samples.
        bad_images: Where each image that was left out stood (`train[17]`).
        evaluation_from: How the evaluation samples came about.
        test_from: How the test samples came about.
        layout: Of a folder, what of it is used, and by which rule.
        left_out: Of a folder, by reason the number of files that are not used; a folder that was not looked into counts once.
        n_conflicting: Images whose picture, as networks see it, also stands under another label, in whichever split.
        id_rule: By which rule of `docs/format.md` sample ids are made.
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
    layout: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    n_conflicting: int = 0
    id_rule: int = ID_RULE

    def tell_how_to_have_more(self, use: Literal["evaluation", "test"]) -> str:
        """Says what to do to have more evaluation or test samples: a fraction says nothing of what has a split of its own."""
        origin = self.evaluation_from if use == "evaluation" else self.test_from
        setting = "test" if use == "test" else "validation"
        if "(the paper's protocol)" in origin:
            origin, setting = self.test_from, "test"
        if origin.startswith(CARVED):
            return f"set more {use} samples aside (source.{setting}_fraction)"
        return f"add images to {origin}"


def tell_repeats(n_conflicting: int, n_shared: int) -> list[str]:
    """Says which images stand where they mislead; nothing where there are none. See `SourceFacts`."""
    conflicting = (
        f"source: images that stand under two labels or more: {n_conflicting:,}; no network can be right on all of them"
    )
    shared = f"source: training samples that also stand among the evaluation or test samples, on which networks are measured: {n_shared:,}"
    return [conflicting] * bool(n_conflicting) + [shared] * bool(n_shared)


ReadEncoded = Callable[[Samples], list[bytes]]
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
        warnings: What was left out of it, and what in it may not be meant so.
    """

    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Samples | StreamedSamples
    evaluation: Samples
    test: Samples
    facts: SourceFacts
    reading: str
    open_encoded: OpenEncoded = field(repr=False)
    warnings: tuple[str, ...] = ()

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        """Counts the samples that may be drawn of each label, once."""
        return count(self.train.labels, len(self.label_names))
