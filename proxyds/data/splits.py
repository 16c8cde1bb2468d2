"""Decoded parts become samples in the order of their ids, and these training, evaluation and test samples.

The parts, each sorted, are merged a bucket of ids at a time: ids are hashes, so buckets are of like size. In memory are a bucket, the
evaluation and test samples, 24 bytes of each sample, and some 120 of each training sample where some of these are to be carved out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyds.data.chunked import cut_chunks
from proxyds.data.decoding import STAGE, STAGE_VERSION, sort_rows
from proxyds.data.pixels import FileAt
from proxyds.data.samples import SHARD, Origin, Samples, join_samples, write_shard
from proxyds.runtime.storage.store import Entry
from proxyds.runtime.task import Report, Task
from proxyds.seeding import ID_HEX_DIGITS, ParsedIds, derive_seed, hash_ids, parse_ids

BUCKET = 65_536
"""Samples that are merged at once, at most, as chance has it."""


@dataclass(frozen=True)
class DecodedPart:
    """A part of a split, decoded.

    Attributes:
        rows: `.npy` file of `decoding.ROW`, in the order of ids.
        n: Rows of the file.
        offset: Index in the split of the part's first image.
        first_pixels: Index of the part's first image among the decoded images of the split.
        labels: The number of each of the part's labels.
    """

    rows: FileAt
    n: int
    offset: int
    first_pixels: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class DecodedSplit:
    """A split, decoded: where its samples come from, and its parts in the source's order."""

    origin: Origin
    parts: tuple[DecodedPart, ...]

    def __len__(self) -> int:
        return sum(part.n for part in self.parts)


@dataclass(frozen=True)
class Carving:
    """What is set aside of the training split.

    Attributes:
        test_fraction: For the test samples; None where the source has a test split.
        validation_fraction: For the evaluation samples, of what is left; None where there are others.
        seed: The recipe's.
    """

    test_fraction: float | None
    validation_fraction: float | None
    seed: int


@dataclass(frozen=True)
class Repeats:
    """Images that networks cannot tell apart, and that stand where this misleads.

    Attributes:
        n_conflicting: Images whose picture also stands under another label, in whichever split.
        n_shared: Training samples whose picture also stands, under the same label, among the evaluation or test samples.
        n_measured_twice: Evaluation samples whose picture also stands, under the same label, among the test samples.
    """

    n_conflicting: int
    n_shared: int
    n_measured_twice: int


@dataclass(frozen=True)
class Splits:
    """What `split_samples` says of its result.

    Attributes:
        counts: Training samples in each of the files `train-00000.npz`, ...
        n_evaluation: Samples in `evaluation.npz`, which is not there where there are none.
        n_test: Samples in `test.npz`.
        fingerprint: Of the training samples, see `samples.Samples`.
        content: sha256 of a source's content, whatever its order: names of the labels, then each role and its ids.
        n_duplicates: By role, samples whose picture and label stand in the split already.
        repeats: What stands where it misleads.
    """

    counts: tuple[int, ...]
    n_evaluation: int
    n_test: int
    fingerprint: str
    content: str
    n_duplicates: dict[str, int]
    repeats: Repeats


def splitting_task(
    roles: dict[str, DecodedSplit], keys: Sequence[str], carving: Carving, label_names: Sequence[str]
) -> Task:
    """Describes the merging of decoded parts; see `split_samples`.

    Args:
        roles: By role: `train`, and `validation` and `test` where the source has them.
        keys: Content keys of the decoded parts.
        carving: What is set aside.
        label_names: Text for each label.
    """
    return Task(
        stage=STAGE,
        name="sort samples by their ids",
        inputs={
            "version": STAGE_VERSION,
            "parts": list(keys),
            "roles": list(roles),
            "labels": {role: [part.labels for part in each.parts] for role, each in roles.items()},
            "label_names": list(label_names),
            "carving": asdict(carving),
        },
        function=split_samples,
        arguments={"roles": roles, "carving": carving, "label_names": list(label_names)},
    )


def split_samples(
    *, folder: Path, report: Report, roles: dict[str, DecodedSplit], carving: Carving, label_names: Sequence[str]
) -> None:
    """Writes `train-*.npz`, `evaluation.npz` and `test.npz`, of `samples.write_shard`, and `splits.json`.

    Roles without samples have no file.
    """
    other_roles = {role: join_samples(list(_merge(each))) for role, each in roles.items() if role != "train"}
    pictures = {role: _read_pictures(each) for role, each in roles.items()}
    is_test, is_evaluation = _carve_both(roles["train"], carving)
    content = hashlib.sha256("\n".join(label_names).encode())
    carved: dict[str, list[Samples]] = {"test": [], "evaluation": []}
    n_duplicates = dict.fromkeys(sorted(roles), 0)
    standings: list[NDArray[Any]] = []

    def note(role: str, samples: Samples, use: NDArray[np.int8] | int) -> None:
        """Counts a role's repeats, takes its ids into the content, and keeps what tells pictures that stand twice."""
        standing = np.empty(len(samples), _STANDING)
        standing["picture"], standing["label"], standing["use"] = pictures[role][samples.rows], samples.labels, use
        standings.append(standing)
        ids = samples.ids.tolist()
        content.update("".join(f"\n{each}" for each in sorted(ids)).encode())
        n_duplicates[role] += sum(len(each) > ID_HEX_DIGITS for each in ids)

    def carve_out(pieces: Iterable[Samples]) -> Iterator[Samples]:
        """Sets test and evaluation samples aside, and passes the others on."""
        start = 0
        for samples in pieces:
            here = slice(start, start + len(samples))
            start += len(samples)
            note("train", samples, np.select([is_test[here], is_evaluation[here]], [_TEST, _EVALUATION], _TRAINING))
            carved["test"].append(samples.take(is_test[here]))
            carved["evaluation"].append(samples.take(is_evaluation[here]))
            yield samples.take(~(is_test[here] | is_evaluation[here]))
            report(start, len(is_test) + 1, "")

    for role in sorted(roles):
        content.update(f"\n{role}:".encode())
        if role == "train":
            counts, fingerprint = _write_training(folder, carve_out(_merge(roles[role])))
        else:
            note(role, other_roles[role], _TEST if role == "test" else _EVALUATION)
    test = other_roles.get("test") or join_samples(carved["test"])
    evaluation = other_roles.get("validation") or join_samples(carved["evaluation"])
    for name, samples in (("test", test), ("evaluation", evaluation)):
        if len(samples):
            write_shard(folder / f"{name}.npz", samples)
    repeats = _count_repeats(np.concatenate(standings))
    splits = Splits(counts, len(evaluation), len(test), fingerprint, content.hexdigest(), n_duplicates, repeats)
    (folder / "splits.json").write_text(json.dumps(asdict(splits)))
    report(1, 1, "")


_STANDING = np.dtype([("picture", np.uint64), ("label", np.int32), ("use", np.int8)])
"""What networks see of an image (see `decoding.ROW`), the image's label, and what it is used for."""
_TRAINING, _EVALUATION, _TEST = range(3)


def _read_pictures(decoded: DecodedSplit) -> NDArray[np.uint64]:
    """Reads what networks see of a split's images, (n,), in the order of their pixels."""
    pictures = np.empty(len(decoded), np.uint64)
    for part in decoded.parts:
        rows = np.load(part.rows.path, mmap_mode="r")
        pictures[part.first_pixels + rows["place"]] = rows["picture"]
    return pictures


def _count_repeats(standings: NDArray[Any]) -> Repeats:
    """Counts what stands twice and misleads, of all images of all splits, (n,) of `_STANDING`."""
    standings = standings[np.lexsort((standings["label"], standings["picture"]))]
    is_new_picture, is_new_label = (
        np.append(True, standings[name][1:] != standings[name][:-1]) for name in ("picture", "label")
    )
    is_new_pair = is_new_picture | is_new_label
    of_picture, of_pair = np.cumsum(is_new_picture) - 1, np.cumsum(is_new_pair) - 1
    n_labels = np.bincount(of_picture[is_new_pair])
    last_use = np.maximum.reduceat(standings["use"], np.flatnonzero(is_new_pair))
    stands_later_too = standings["use"] < last_use[of_pair]
    return Repeats(
        n_conflicting=int((n_labels > 1)[of_picture].sum()),
        n_shared=int(stands_later_too[standings["use"] == _TRAINING].sum()),
        n_measured_twice=int(stands_later_too[standings["use"] == _EVALUATION].sum()),
    )


def _write_training(folder: Path, pieces: Iterable[Samples]) -> tuple[tuple[int, ...], str]:
    """Writes training samples as they come, `SHARD` in each file; returns the files' counts and `samples.Samples.fingerprint` of all."""
    fingerprint = hashlib.sha256()
    labels: list[bytes] = []
    counts: list[int] = []
    for samples in cut_chunks(pieces, SHARD, join_samples):
        write_shard(folder / f"train-{len(counts):05d}.npz", samples)
        fingerprint.update(("\n" if counts else f"{samples.origin.conversion}\n").encode())
        fingerprint.update("\n".join(samples.ids).encode())
        labels.append(samples.labels.astype("<i8").tobytes())  # which a fingerprint takes after all ids
        counts.append(len(samples))
    fingerprint.update(b"".join(labels))
    return tuple(counts), fingerprint.hexdigest()


def read_splits(entry: Entry) -> Splits:
    """Reads what `split_samples` says of its result."""
    fields: dict[str, Any] = json.loads(entry.file("splits.json").path.read_text())
    return Splits(**{**fields, "counts": tuple(fields["counts"]), "repeats": Repeats(**fields["repeats"])})


def carve(ids: ParsedIds, labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Chooses the same share of every label by ids and seed, never by order.

    Repeats of a picture go together, but for the one group of a label that the share may cut.

    Returns:
        (N,) bool: round(fraction * n) of each label's n samples; one at least, and one at least is left.
    """
    bases = ids.copy()
    bases["repeat"] = 0
    keys = hash_ids(bases, seed)
    chosen = np.zeros(len(ids), np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        n = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[members[np.lexsort((ids["repeat"][members], keys[members]))[:n]]] = True
    return chosen


def _carve_both(train: DecodedSplit, carving: Carving) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Chooses which samples of the training split become test and which evaluation samples; each (N,) bool."""
    n = len(train)
    to_test, to_evaluation = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    if carving.test_fraction is None and carving.validation_fraction is None:
        return to_test, to_evaluation
    columns = [(parse_ids(samples.ids), samples.labels) for samples in _merge(train)]
    ids, labels = (np.concatenate(each) for each in zip(*columns, strict=True))
    if carving.test_fraction is not None:
        to_test = carve(ids, labels, carving.test_fraction, derive_seed(carving.seed, "test split"))
    if carving.validation_fraction is not None:
        rest = np.flatnonzero(~to_test)
        seed = derive_seed(carving.seed, "validation split")
        to_evaluation[rest[carve(ids[rest], labels[rest], carving.validation_fraction, seed)]] = True
    return to_test, to_evaluation


def _merge(decoded: DecodedSplit) -> Iterator[Samples]:
    """Goes over a split's samples in the order of their ids, a bucket of some `BUCKET` of them at a time; equal ones are numbered."""
    n_bits = max(0, -(-len(decoded) // BUCKET) - 1).bit_length()
    files = [part.rows.path for part in decoded.parts]
    for bucket in range(2**n_bits):
        bounds = np.array([_first_id(bucket, n_bits), _first_id(bucket + 1, n_bits)], "S64")
        pieces = [_read_bucket(file, part, bounds) for file, part in zip(files, decoded.parts, strict=True)]
        rows = sort_rows(np.concatenate(pieces))
        if not len(rows):
            continue
        yield Samples(
            ids=_number_repeats(rows["id"].astype(np.str_).tolist()),
            labels=rows["label"],
            source_index=rows["index"],
            encoded_sha256=rows["sha256"].astype(np.str_),
            rows=rows["place"],
            origin=decoded.origin,
        )


def _first_id(bucket: int, n_bits: int) -> bytes:
    """Returns the first id of a bucket; past all ids for the bucket after the last."""
    return b"g" if bucket == 2**n_bits else b"%016x" % (bucket << (64 - n_bits) if n_bits else 0)


def _read_bucket(file: Path, part: DecodedPart, bounds: NDArray[np.bytes_]) -> NDArray[Any]:
    """Reads a part's rows with ids from the first bound up to the second; makes labels and indices those of the whole split."""
    mapped = np.load(file, mmap_mode="r")
    first, after = np.searchsorted(mapped["id"], bounds)
    rows = np.array(mapped[first:after])
    rows["label"] = np.array(part.labels, np.int64)[rows["label"]]
    rows["index"] += part.offset
    rows["place"] += part.first_pixels
    return rows


def _number_repeats(sorted_ids: Sequence[str]) -> NDArray[np.str_]:
    """Appends `-2`, `-3`, ... to equal neighbours."""
    numbered, repeat = [], 0
    for position, content_id in enumerate(sorted_ids):
        repeat = repeat + 1 if position and sorted_ids[position - 1] == content_id else 1
        numbered.append(content_id if repeat == 1 else f"{content_id}-{repeat}")
    return np.array(numbered)
