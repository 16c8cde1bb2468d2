"""Decoded parts become samples in the order of their ids, and these training, evaluation and test samples.

Ids are hashes, so those that begin alike are as many as chance has it: the parts, each sorted, are merged a bucket of ids at a time. What is
held besides a bucket are the evaluation and test samples, and some 120 bytes of each training sample where some of these are to be carved out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyds.data.decoding import STAGE, STAGE_VERSION
from proxyds.data.pixels import FileAt
from proxyds.data.samples import SHARD, Samples, join_samples, write_shard
from proxyds.runtime.storage.store import Entry
from proxyds.runtime.task import Report, Task
from proxyds.seeding import ParsedIds, derive_seed, hash_ids, parse_ids

BUCKET = 65_536
"""Samples that are merged at once, at most, as chance has it."""


@dataclass(frozen=True)
class DecodedPart:
    """A part of a split, decoded.

    Attributes:
        rows: `.npy` file of `decoding.ROW`, in the order of ids.
        n: How many.
        offset: Place in the split of the part's first image.
        first_pixels: Place of the part's first image among all pixels of the split.
        labels: The number of each of the part's labels.
    """

    rows: FileAt
    n: int
    offset: int
    first_pixels: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class DecodedSplit:
    """A split, decoded.

    Attributes:
        split: The source's name of it.
        parts: In the source's order.
        pixels_files: See `samples.Samples`.
        file_starts: See `samples.Samples`.
        conversion: See `samples.Samples`.
    """

    split: str
    parts: tuple[DecodedPart, ...]
    pixels_files: tuple[FileAt, ...]
    file_starts: tuple[int, ...]
    conversion: str

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
class Splits:
    """What `split_samples` says of its result.

    Attributes:
        counts: Training samples in each of the files `train-00000.npz`, ...
        n_evaluation: Samples in `evaluation.npz`, which is not there where there are none.
        n_test: Samples in `test.npz`.
        fingerprint: Of the training samples, see `samples.Samples`.
        content: sha256 of a source's content, whatever its order: names of the labels, then each role and its ids.
        n_duplicates: By role, samples whose picture and label stand in the split already.
        n_shared: Training samples that also stand in the evaluation or test samples.
    """

    counts: tuple[int, ...]
    n_evaluation: int
    n_test: int
    fingerprint: str
    content: str
    n_duplicates: dict[str, int]
    n_shared: int


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
    others = {role: _join(list(_merge(each))) for role, each in roles.items() if role != "train"}
    to_test, to_evaluation = _carve_both(roles["train"], carving)
    content = hashlib.sha256("\n".join(label_names).encode())
    kept = _Writer(folder)
    carved: dict[str, list[Samples]] = {"test": [], "evaluation": []}
    elsewhere = np.concatenate([np.zeros(0, "S64"), *(_base_ids(each) for each in others.values() if each is not None)])
    n_duplicates, n_shared, start = {}, 0, 0
    for role in sorted(roles):
        content.update(f"\n{role}:".encode())
        n_repeats = 0
        for samples in _merge(roles["train"]) if role == "train" else _list(others[role]):
            content.update("".join(f"\n{each}" for each in sorted(samples.ids.tolist())).encode())
            n_repeats += sum(len(each) > 64 for each in samples.ids.tolist())
            if role != "train":
                continue
            these = slice(start, start + len(samples))
            start += len(samples)
            of_test, of_evaluation = to_test[these], to_evaluation[these]
            carved["test"].append(samples.take(of_test))
            carved["evaluation"].append(samples.take(of_evaluation))
            train = samples.take(~(of_test | of_evaluation))
            beside = np.concatenate([elsewhere, _base_ids(samples.take(of_test | of_evaluation))])
            n_shared += int(np.isin(_base_ids(train), beside).sum())
            kept.add(train)
            report(start, len(to_test) + 1, "")
        n_duplicates[role] = n_repeats
    kept.end()
    test = others.get("test") or _join(carved["test"])
    evaluation = others.get("validation") or _join(carved["evaluation"])
    for name, some in (("test", test), ("evaluation", evaluation)):
        if some is not None and len(some):
            write_shard(folder / f"{name}.npz", some)
    n_evaluation, n_test = (0 if some is None else len(some) for some in (evaluation, test))
    splits = Splits(
        tuple(kept.counts),
        n_evaluation,
        n_test,
        kept.find_fingerprint(roles["train"].conversion),
        content.hexdigest(),
        n_duplicates,
        n_shared,
    )
    (folder / "splits.json").write_text(json.dumps(asdict(splits)))
    report(1, 1, "")


def read_splits(entry: Entry) -> Splits:
    """Reads what `split_samples` says of its result."""
    held: dict[str, Any] = json.loads(entry.file("splits.json").path.read_text())
    return Splits(counts=tuple(held.pop("counts")), **held)


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
    """Which samples of the training split become test and which evaluation samples; each (N,) bool."""
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
        pieces = [_renumber(_read_between(file, bounds), part) for file, part in zip(files, decoded.parts, strict=True)]
        rows = np.concatenate(pieces)
        if not len(rows):
            continue
        rows = rows[np.lexsort((rows["index"], rows["sha256"], rows["id"]))]
        yield Samples(
            ids=_number_repeats(rows["id"].astype(np.str_).tolist()),
            labels=rows["label"],
            source_index=rows["index"],
            encoded_sha256=rows["sha256"].astype(np.str_),
            split=decoded.split,
            pixels_files=decoded.pixels_files,
            file_starts=decoded.file_starts,
            rows=rows["place"],
            conversion=decoded.conversion,
        )


def _first_id(bucket: int, n_bits: int) -> bytes:
    """The first id of a bucket; past all ids for the one after the last."""
    return b"g" if bucket == 2**n_bits else b"%016x" % (bucket << (64 - n_bits) if n_bits else 0)


def _read_between(file: Path, bounds: NDArray[np.bytes_]) -> NDArray[Any]:
    """Reads the rows with ids from the first bound up to the second."""
    held = np.load(file, mmap_mode="r")
    first, after = np.searchsorted(held["id"], bounds)
    return np.array(held[first:after])


def _renumber(rows: NDArray[Any], part: DecodedPart) -> NDArray[Any]:
    """Makes labels and places those of the whole split."""
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


def _join(pieces: list[Samples]) -> Samples | None:
    return join_samples(pieces) if pieces else None


def _list(samples: Samples | None) -> list[Samples]:
    return [] if samples is None else [samples]


def _base_ids(samples: Samples) -> NDArray[np.bytes_]:
    bases: NDArray[np.bytes_] = samples.ids.astype("<U64").astype("S64")
    return bases


class _Writer:
    """Training samples written as they come, `SHARD` in each file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts = folder, list[int]()
        self._waiting: list[Samples] = []

    def add(self, samples: Samples) -> None:
        self._waiting.append(samples)
        if sum(map(len, self._waiting)) >= SHARD:
            together = join_samples(self._waiting)
            n_full = len(together) // SHARD
            for shard in range(n_full):
                self._write(together.part(shard))
            self._waiting = [together.take(np.arange(n_full * SHARD, len(together)))]

    def end(self) -> None:
        rest = [each for each in self._waiting if len(each)]
        if rest:
            self._write(join_samples(rest))

    def _write(self, samples: Samples) -> None:
        write_shard(self.folder / f"train-{len(self.counts):05d}.npz", samples)
        self.counts.append(len(samples))

    def find_fingerprint(self, conversion: str) -> str:
        """See `samples.Samples.fingerprint`: first all ids, then all labels."""
        content = hashlib.sha256(f"{conversion}\n".encode())
        for column in ("ids", "labels"):
            for shard in range(len(self.counts)):
                with np.load(self.folder / f"train-{shard:05d}.npz") as held:
                    values = held[column]
                if column == "ids":
                    content.update(("\n" * bool(shard) + "\n".join(values.astype(np.str_))).encode())
                else:
                    content.update(values.astype("<i8").tobytes())
        return content.hexdigest()
