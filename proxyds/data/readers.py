"""Where a source's images lie: digits, torchvision's CIFAR folders, and whatever `datasets` opens.

Each reader returns encoded images and labels, undecoded and in the source's own order. To add a kind of source: its
section in `recipe/sections/source.py`, a reader here, and its line in `open_splits`.
"""

from __future__ import annotations

import glob
import hashlib
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from proxyds.data.memory.given import DEFAULT_NAME, InMemory, join_label_names
from proxyds.data.memory.parts import IMAGES, as_images, copy_rows, cut_arrays
from proxyds.data.parts import FilesPart, LoadedPart, Part, Row, StreamedPart, TarsPart, refusing_unreadable
from proxyds.data.survey.columns import find_image_column, find_label_column, refuse_other_names
from proxyds.data.survey.folder import survey_folder
from proxyds.data.survey.listing import DATA_SUFFIXES, list_folder, suffix_of
from proxyds.data.survey.naming import name_split
from proxyds.data.survey.records import FoundFile, Survey, SurveyedSplit, identify, name_paths
from proxyds.data.survey.tars import check_end, find_members
from proxyds.errors import (
    RemoteError,
    SourceError,
    SourceNotFoundError,
    SplitNotFoundError,
    translate_os_errors,
)
from proxyds.progress_bars import without_datasets_bars
from proxyds.recipe.places import ask_for_data
from proxyds.recipe.sections.source import Columns, FolderSource, HubSource, Images, MemorySource, TorchvisionSource
from proxyds.runtime.storage import hub
from proxyds.text import first_line, make_plain

PART = 8192
"""Images of one part of a split that is in memory; one that is streamed has a part for each of its files."""
PART_BYTES = 500_000_000
"""Bytes of their files, at most, about."""
MAX_FILE_GROUPS = 4096
"""Parts of a split that is streamed, at most: a folder of images has a file for each."""
NOT_READ = "files of data that `datasets` does not read"
BY_DATASETS = "splits and labels as `datasets` finds them, by rules of its own"
STREAMED_SHARE = 0.25
"""A source is streamed where its files are a larger share of the memory."""


@dataclass(frozen=True)
class RawSplit:
    """A split before decoding: the source's name of it, and its parts in the source's order."""

    name: str
    parts: list[Part]


@dataclass(frozen=True)
class RawSource:
    """A source's splits before decoding.

    Attributes:
        name: As a reader would look for it.
        label_names: Text for each label number; None where labels are numbers or texts of their own.
        splits: By role: `train`, and `validation` and `test` where the source has them.
        revision: Pinned revision, or None.
        is_local_copy: Whether a hub source was found in `PROXYDS_DATA`.
        is_test_asked: Whether the recipe names the test split.
        n_bytes: Of its files; 0 where it has none.
        is_streamed: Whether its files are read as they are needed.
        survey: Of a folder, what lies there and what of it is used.
        notes: Of data in memory, what should be known.
    """

    name: str
    label_names: tuple[str, ...] | None
    splits: dict[str, RawSplit]
    revision: str | None = None
    is_local_copy: bool = False
    is_test_asked: bool = False
    n_bytes: int = 0
    is_streamed: bool = False
    survey: Survey | None = None
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Says what is left out, and what else should be known."""
        return [*(self.survey.warnings if self.survey else []), *map(make_plain, self.notes)]


def open_splits(spec: Images, streamed: bool | None, memory_bytes: int, data: InMemory | None = None) -> RawSource:
    """Finds a source's encoded images and labels without decoding them.

    Args:
        spec: Where they are.
        streamed: Whether to read its files only as they are needed; None to decide from their size.
        memory_bytes: Of the machine.
        data: For a source in memory, what was passed.
    """
    match spec:
        case MemorySource():
            return _open_memory(spec, data)
        case TorchvisionSource():
            return _open_torchvision(spec)
        case HubSource():
            return _open_hub(spec, streamed, memory_bytes)
        case FolderSource():
            return _open_folder(spec, streamed, memory_bytes)
        case _:
            return _open_digits()


def read_some(split: RawSplit, n: int | None) -> Iterator[Row]:
    """Reads about n images of a split, spread over its parts; None for all of them."""
    n_of_part = None if n is None else math.ceil(n / len(split.parts))
    for part in split.parts[:: 1 if n is None else max(1, len(split.parts) // n)]:
        if isinstance(part, FilesPart) and n_of_part is not None:  # a file costs as much wherever it lies
            step = max(1, len(part.files) // n_of_part)
            yield from replace(part, files=part.files[::step], labels=part.labels[::step]).rows()
        else:
            yield from islice(part.rows(), n_of_part)


def _cut_parts(images: pa.ChunkedArray, labels: pa.ChunkedArray, folder: str = "") -> list[Part]:
    """Cuts what is in memory into parts, each with bytes of its own: slices would be sent to workers with all that they are cut from."""
    n_rows = max(1, min(PART, PART_BYTES * len(labels) // max(1, images.nbytes)))

    def copy(column: pa.ChunkedArray, start: int) -> pa.Array:
        return copy_rows(column.slice(start, n_rows)).combine_chunks()

    starts = range(0, len(labels), n_rows)
    return [LoadedPart(copy(images, start), copy(labels, start), start, folder) for start in starts]


def _open_digits() -> RawSource:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    parts = cut_arrays(pixels, digits.target.tolist())
    names = tuple(str(name) for name in digits.target_names)
    return RawSource("scikit-learn digits", names, {"train": RawSplit("train", parts)})


def _open_torchvision(spec: TorchvisionSource) -> RawSource:
    import torchvision

    root = find_folder(spec.path)
    kind = getattr(torchvision.datasets, spec.dataset)
    splits, names = {}, ()
    for role in ("train", "test"):
        try:
            split = kind(root, train=role == "train", download=False)
        except (RuntimeError, OSError) as error:
            raise SourceNotFoundError(
                f"source.path: must hold torchvision's {spec.dataset}, found none in {root} ({error}); "
                f"torchvision.datasets.{spec.dataset}(root, download=True) fetches it"
            ) from error
        splits[role] = RawSplit(role, cut_arrays(split.data, split.targets))
        names = tuple(split.classes)
    return RawSource(f"torchvision {spec.dataset}", names, splits)


def _open_memory(spec: MemorySource, data: InMemory | None) -> RawSource:
    if data is None:
        raise SourceNotFoundError(ask_for_data(spec))
    by_name: dict[str, str | None] = {}
    for name in data.splits:
        meant = spec.train_split if name is None else name_split(name, spec) or name
        if meant in by_name:
            raise SourceError(
                f"source: splits must have names of their own, {by_name[meant]} and {name} both mean {meant}"
            )
        by_name[meant] = name
    roles = _find_roles(by_name, spec)
    held = {role: data.hold(by_name[name], spec) for role, name in roles.items()}
    notes = [note for each in held.values() for note in each.notes]
    if unused := sorted(set(by_name) - set(roles.values())):
        notes.append(f"the recipe has no use for the splits {', '.join(unused)} of what was passed")
    splits = {role: RawSplit(roles[role], each.parts) for role, each in held.items()}
    is_test_asked = spec.test_split is not None
    name = spec.name or data.name or DEFAULT_NAME
    return RawSource(name, join_label_names(held), splits, is_test_asked=is_test_asked, notes=tuple(notes))


def _open_hub(spec: HubSource, streamed: bool | None, memory_bytes: int) -> RawSource:
    name, location, revision, is_local_copy = _locate(spec)
    listing = list_folder(location, follow_links=False)
    n_bytes = sum(file.n_bytes for file in listing.files)
    for file in listing.files:
        if file.path.endswith(".tar"):
            check_end(location / file.path, file.n_bytes)
    if streamed is None:
        streamed = n_bytes > STREAMED_SHARE * memory_bytes
    config = None if is_local_copy else spec.config
    opened, read = _load_dataset(location, name, config, streamed)
    raw = _read_tables(opened, spec, name, identify(listing.files, config), location, read)
    left_out = _find_unread(listing.files, read)
    survey = Survey(Path(name), "configs", {}, BY_DATASETS, left_out=left_out)
    return replace(raw, revision=revision, is_local_copy=is_local_copy, n_bytes=n_bytes, survey=survey)


def _open_folder(spec: FolderSource, streamed: bool | None, memory_bytes: int) -> RawSource:
    folder = find_folder(spec.path)
    survey = survey_folder(folder, spec)
    if streamed is None:
        streamed = survey.n_bytes > STREAMED_SHARE * memory_bytes
    notes = list(survey.notes)
    if survey.form in ("images", "tars"):
        roles, splits = _find_roles(survey.splits, spec), {}
        for role, name in roles.items():
            if survey.form == "images":
                parts = _read_images(survey, survey.splits[name], streamed)
            else:
                parts, passed_over = _read_tars(survey, survey.splits[name], spec, streamed)
                if passed_over:
                    notes.append(
                        f"tars of {name} hold members that are part of no sample and are passed over: at least {len(passed_over):,} "
                        f"({name_paths(passed_over)})"
                    )
            splits[role] = RawSplit(name, parts)
        is_test_asked = spec.test_split is not None
        raw = RawSource(folder.name, survey.label_names, splits, is_test_asked=is_test_asked, is_streamed=streamed)
    else:
        data_files = None
        if survey.form == "parquet":
            data_files = {
                name: [glob.escape(str(folder.absolute() / file.path)) for file in split.files]
                for name, split in survey.splits.items()
            }
        opened, read = _load_dataset(folder, folder.name, None, streamed, data_files)
        files = [file for split in survey.splits.values() for file in split.files]
        raw = _read_tables(opened, spec, folder.name, identify(files), folder, read)
        survey = replace(survey, left_out=survey.left_out | _find_unread(files, read))
    used = {split.name for split in raw.splits.values()}
    if unused := sorted(set(survey.splits) - used) if survey.form != "configs" else []:
        notes.append(f"the recipe has no use for the splits {', '.join(unused)} of {folder.name}")
    return replace(raw, n_bytes=survey.n_bytes, survey=replace(survey, notes=tuple(notes)))


def _read_images(survey: Survey, split: SurveyedSplit, streamed: bool) -> list[Part]:
    """Cuts the images of a split's files into parts."""
    names = {name: number for number, name in enumerate(survey.label_names or ())}
    labels = [names[str(label)] for label in split.labels] if names else list(split.labels)
    folder = survey.folder.absolute()
    if not streamed:
        paths = pa.array([str(folder / file.path) for file in split.files], pa.string())
        nothing = pa.nulls(len(paths), pa.large_binary())
        images = pa.StructArray.from_arrays([nothing, paths], ["bytes", "path"])
        return _cut_parts(pa.chunked_array([images]), pa.chunked_array([pa.array(labels)]), str(folder))
    parts: list[Part] = []
    for start in range(0, len(labels), PART):
        some = slice(start, start + PART)
        files, own_labels = split.files[some], tuple(labels[some])
        content = identify(files, own_labels)
        parts.append(FilesPart(folder, tuple(file.path for file in files), own_labels, content, start))
    return parts


def _read_tars(
    survey: Survey, split: SurveyedSplit, spec: FolderSource, streamed: bool
) -> tuple[list[Part], list[str]]:
    """Cuts the samples of a split's tars into parts: one for each tar where they are streamed; also returns what `find_members` passes over."""
    folder = survey.folder.absolute()
    tars = [folder / file.path for file in split.files]
    with refusing_unreadable(tars[0].name):
        members, passed_over = find_members(tars, spec)
    n_parts = min(len(tars), MAX_FILE_GROUPS)
    bounds = [len(tars) * part // n_parts for part in range(n_parts + 1)]
    parts = [
        TarsPart(tuple(tars[start:end]), members, identify(split.files[start:end], members))
        for start, end in pairwise(bounds)
    ]
    if streamed:
        return list(parts), passed_over
    rows = [row for part in parts for row in part.rows()]
    images = pa.array([{"bytes": encoded, "path": name or None} for encoded, _, name in rows], IMAGES)
    labels = pa.array([label for _, label, _ in rows])
    return _cut_parts(pa.chunked_array([images]), pa.chunked_array([labels])), passed_over


def _read_tables(
    opened: Any,
    spec: HubSource | FolderSource,
    name: str,
    content: str,
    location: Path,
    read: Mapping[str, Sequence[str]],
) -> RawSource:
    """Reads images and labels of what `datasets` has opened at a location, from the files `read` of each split; `content` is that of all files."""
    import datasets

    streamed = isinstance(next(iter(opened.values())), datasets.IterableDataset)
    roles, folder = _find_roles(opened, spec), str(location.absolute())
    columns = _list_columns(opened[roles["train"]])
    image_column = find_image_column(columns, spec)
    label_column = find_label_column(columns, spec)
    splits: dict[str, RawSplit] = {}
    for role, split_name in roles.items():
        split = opened[split_name]
        for column in (image_column, label_column):
            if column not in _list_columns(split):
                raise SourceError(
                    f"source: split {split_name} must have the columns of {spec.train_split}, it lacks {column}"
                )
        if isinstance(columns[image_column], datasets.Image):
            split = split.cast_column(image_column, datasets.Image(decode=False))
        parts: list[Part]
        if streamed:
            parts = _cut_stream(split, split_name, image_column, label_column, repr((content, split_name)), folder)
        else:
            table = split.with_format("arrow")[:]
            parts = _cut_parts(as_images(table[image_column]), table[label_column], folder)
        splits[role] = RawSplit(split_name, parts)
    feature = columns[label_column]
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    if names is not None:
        files = [location / path for split_name in roles.values() for path in read.get(split_name, ())]
        refuse_other_names(files, label_column, names)
    return RawSource(name, names, splits, is_test_asked=spec.test_split is not None, is_streamed=streamed)


def _cut_stream(split: Any, name: str, image_column: str, label_column: str, content: str, folder: str) -> list[Part]:
    split = split.select_columns([image_column, label_column])
    n_parts = min(split.num_shards, MAX_FILE_GROUPS)
    return [
        StreamedPart(
            split.shard(num_shards=n_parts, index=part, contiguous=True),
            image_column,
            label_column,
            repr((content, image_column, label_column, part, n_parts)),
            f"file {part + 1} of {n_parts} of split {name}",
            folder,
        )
        for part in range(n_parts)
    ]


def _locate(spec: HubSource) -> tuple[str, Path, str | None, bool]:
    """Returns a source's name, the folder that holds it, its revision, and whether that is a local copy.

    The Hub is asked for exactly the revision, and what it resolves to is returned: `load_dataset` itself would take
    whatever revision is cached when it is offline, and a folder of that name before the Hub.
    """
    copies = os.environ.get("PROXYDS_DATA")
    copy = Path(copies) / spec.name.rpartition("/")[2] if copies else None
    if copy is not None and copy.is_dir():
        return spec.name, copy, spec.revision, True
    try:
        folder = hub.fetch_snapshot(spec.name, spec.revision)
    except RemoteError as error:
        raise SourceNotFoundError(
            f"source: must be a data set on the Hub, found no {spec.name} at {spec.revision} on the Hub: {error}. Check the name and the "
            "connection, or put a local copy into PROXYDS_DATA"
        ) from error
    return spec.name, folder, folder.name, False


def find_folder(path: str) -> Path:
    """Finds the folder of a source: where its recipe says, or by its name in `PROXYDS_DATA`.

    Raises:
        SourceNotFoundError: It is at neither place.
    """
    folders = [Path(path)]
    if copies := os.environ.get("PROXYDS_DATA"):
        folders.append(Path(copies) / Path(path).name)
    for folder in folders:
        if os.path.isdir(folder):  # noqa: PTH112 - unlike Path.is_dir it takes a name of any length
            return folder
    tried = " or ".join(map(str, folders))
    raise SourceNotFoundError(
        f"source.path: must be a folder, found none at {tried}; give another path (--set source.path=PATH), or set PROXYDS_DATA"
    )


def _load_dataset(
    folder: Path, name: str, config: str | None, streamed: bool, data_files: dict[str, list[str]] | None = None
) -> tuple[Any, dict[str, list[str]]]:
    """Has `datasets` open parquet files by split, or a folder as it finds it; also returns the paths in the folder that it reads, by split."""
    import datasets

    # a cache for each folder: offline, `datasets` may answer with another folder of the same name
    folder_hash = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "proxyds" / folder_hash
    with refusing_unreadable(name), without_datasets_bars():
        try:
            with translate_os_errors("the Hugging Face cache", "set HF_HOME to another folder"):
                try:
                    path = str(folder) if data_files is None else "parquet"
                    found = datasets.load_dataset_builder(path, config, data_files=data_files, cache_dir=str(cache))
                    read = found.config.data_files or {}
                    opened = datasets.load_dataset(
                        path, config, data_files=data_files, cache_dir=str(cache), streaming=streamed
                    )
                    return opened, {str(name): [os.path.relpath(file, folder) for file in read[name]] for name in read}
                except datasets.exceptions.DatasetGenerationError as error:
                    raise error.__cause__ or error from None
                except PermissionError as error:
                    raise SourceError(
                        f"source: {name} cannot be read, nor its copy in HF_HOME written: {error}"
                    ) from error
        except FileNotFoundError as error:
            raise SourceNotFoundError(
                f"source: must be a data set that can be opened, found none in {name}: {first_line(error)}"
            ) from error


def _find_unread(files: Iterable[FoundFile], read: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Finds files of data that `datasets` leaves alone, by the reason that is told; none where there are none."""
    known = {*chain.from_iterable(read.values())}
    left = tuple(file.path for file in files if file.path not in known and suffix_of(file) in DATA_SUFFIXES)
    return {NOT_READ: left} if left else {}


def _find_roles(opened: Collection[str], spec: Columns) -> dict[str, str]:
    """Finds which split serves as training, validation and test samples; the last two only where the source has them."""
    asked = {"train": spec.train_split, "validation": spec.validation_split, "test": spec.test_split}
    roles = {role: split_name for role, split_name in asked.items() if split_name is not None}
    for role in asked:
        if role not in roles and role in opened and role not in roles.values():
            roles[role] = role
    for role, split_name in roles.items():
        if split_name not in opened:
            raise SplitNotFoundError(
                f"source.{role}_split: must be a split of the source, got {split_name!r}; it has: {', '.join(opened)}"
            )
    if len(set(roles.values())) < len(roles):
        taken = ", ".join(f"{role}_split: {split_name}" for role, split_name in roles.items())
        raise SourceError(
            f"source: one split must serve one purpose, got {taken}; name others, or leave them out: they are then set aside from the training split"
        )
    return roles


def _list_columns(split: Any) -> dict[str, Any]:
    """Lists a split's columns and their features, for which a stream may have to read its first rows."""
    if split.features is None:
        with refusing_unreadable("its first file"):
            split = split._resolve_features()
    return dict(split.features)
