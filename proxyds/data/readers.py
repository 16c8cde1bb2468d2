"""Where a source's images lie: digits, torchvision's CIFAR folders, and whatever `datasets` opens.

Each reader returns encoded images and labels, undecoded and in the source's own order. To add a kind of source: its
section in `recipe/source.py`, a reader here, and its line in `open_splits`.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from proxyds.data.parts import LoadedPart, Part, StreamedPart, refusing_unreadable
from proxyds.errors import (
    LabelError,
    RemoteError,
    SourceError,
    SourceNotFoundError,
    SplitNotFoundError,
    translate_os_errors,
)
from proxyds.recipe.source import Columns, FolderSource, HubSource, Images, TorchvisionSource
from proxyds.runtime.storage import hub
from proxyds.text import first_line

LABEL_COLUMNS = ("label", "labels", "cls", "class", "target")
"""Names by which a column of plain numbers or text is taken for the labels."""
FINE_LABEL = "fine_label"
"""The column that is taken where there are several of labels: CIFAR-100 and its like have coarse ones beside it."""

PART = 8192
"""Images of one part of a split that is in memory; one that is streamed has a part for each of its files."""
PART_BYTES = 500_000_000
"""Bytes of their files, at most, about."""
MAX_FILE_GROUPS = 4096
"""Parts of a split that is streamed, at most: a folder of images has a file for each."""
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
    """

    name: str
    label_names: tuple[str, ...] | None
    splits: dict[str, RawSplit]
    revision: str | None = None
    is_local_copy: bool = False
    is_test_asked: bool = False
    n_bytes: int = 0
    is_streamed: bool = False


def open_splits(spec: Images, streamed: bool | None, memory_bytes: int) -> RawSource:
    """Finds a source's encoded images and labels without decoding them.

    Args:
        spec: Where they are.
        streamed: Whether to read its files only as they are needed; None to decide from their size.
        memory_bytes: Of the machine.
    """
    match spec:
        case TorchvisionSource():
            return _open_torchvision(spec)
        case HubSource() | FolderSource():
            return _open_datasets(spec, streamed, memory_bytes)
        case _:
            return _open_digits()


def _cut_parts(images: pa.ChunkedArray, labels: pa.ChunkedArray) -> list[Part]:
    """Cuts what is in memory into parts, each with bytes of its own: slices would be sent to workers with all that they are cut from."""
    n_rows = max(1, min(PART, PART_BYTES * len(labels) // max(1, images.nbytes)))

    def copy(column: pa.ChunkedArray, start: int) -> pa.Array:
        rows = column.slice(start, n_rows)
        return rows.take(pa.array(np.arange(len(rows)))).combine_chunks()

    return [LoadedPart(copy(images, start), copy(labels, start), start) for start in range(0, len(labels), n_rows)]


def _open_digits() -> RawSource:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    parts = _cut_parts(_encode_png(pixels), pa.chunked_array([digits.target.astype(np.int64)]))
    names = tuple(str(name) for name in digits.target_names)
    return RawSource("scikit-learn digits", names, {"train": RawSplit("train", parts)})


def _open_torchvision(spec: TorchvisionSource) -> RawSource:
    import torchvision

    root = _find_folder(spec.path)
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
        labels = pa.chunked_array([np.array(split.targets, np.int64)])
        splits[role] = RawSplit(role, _cut_parts(_encode_png(split.data), labels))
        names = tuple(split.classes)
    return RawSource(f"torchvision {spec.dataset}", names, splits)


def _encode_png(pixels: NDArray[np.uint8]) -> pa.ChunkedArray:
    """Encodes arrays as PNG, for sources that hold no image files."""

    def encode(image: NDArray[np.uint8]) -> dict[str, bytes | None]:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    kind = pa.struct({"bytes": pa.large_binary(), "path": pa.string()})
    return pa.chunked_array([pa.array([encode(image) for image in pixels], type=kind)])


def _open_datasets(spec: HubSource | FolderSource, streamed: bool | None, memory_bytes: int) -> RawSource:
    import datasets

    name, location, revision, is_local_copy = _locate(spec)
    listing, n_bytes = _list_files(location)
    if streamed is None:
        streamed = n_bytes > STREAMED_SHARE * memory_bytes
    config = spec.config if isinstance(spec, HubSource) and not is_local_copy else None
    opened = _load_dataset(location, name, config, streamed)
    roles = _find_roles(opened, spec)
    columns = _list_columns(opened[roles["train"]])
    images = [column for column, feature in columns.items() if isinstance(feature, datasets.Image)]
    image_column = _choose_column(images, spec.image_column, "image", columns)
    label_column = _find_label_column(columns, spec)
    splits: dict[str, RawSplit] = {}
    for role, split_name in roles.items():
        split = opened[split_name]
        for column in (image_column, label_column):
            if column not in _list_columns(split):
                raise SourceError(
                    f"source: split {split_name} must have the columns of {spec.train_split}, it lacks {column}"
                )
        split = split.cast_column(image_column, datasets.Image(decode=False))
        parts: list[Part]
        if streamed:
            parts = _cut_stream(split, image_column, label_column, repr((listing, config, split_name)))
        else:
            table = split.with_format("arrow")[:]
            parts = _cut_parts(table[image_column], table[label_column])
        splits[role] = RawSplit(split_name, parts)
    feature = columns[label_column]
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    is_test_asked = spec.test_split is not None
    return RawSource(name, names, splits, revision, is_local_copy, is_test_asked, n_bytes, streamed)


def _cut_stream(split: Any, image_column: str, label_column: str, content: str) -> list[Part]:
    split = split.select_columns([image_column, label_column])
    n_parts = min(split.num_shards, MAX_FILE_GROUPS)
    return [
        StreamedPart(
            split.shard(num_shards=n_parts, index=part, contiguous=True),
            image_column,
            label_column,
            repr((content, image_column, label_column, part, n_parts)),
            None if part else 0,
        )
        for part in range(n_parts)
    ]


def _list_files(folder: Path) -> tuple[str, int]:
    """Lists all files in a folder: a hash of their names, sizes and times; and their bytes in all.

    Raises:
        SourceError: A tar was cut off, or cannot be read.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except OSError:
            continue  # a link to nowhere: who reads it says so
        if path.is_file():
            if path.suffix == ".tar":
                _check_end(path, status.st_size)
            files.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(files).encode()).hexdigest(), sum(size for _, size, _ in files)


def _check_end(tar: Path, n_bytes: int) -> None:
    """Refuses a tar that does not end as tars do, in two blocks of 512 zeros: readers stop where the file does, and notice nothing."""
    try:
        with tar.open("rb") as file:
            file.seek(max(0, n_bytes - 1024))
            end = file.read()
    except OSError as error:
        raise SourceError(f"source: {tar.parent.name}/{tar.name} cannot be read: {error.strerror}") from None
    if end != bytes(1024):
        raise SourceError(
            f"source: {tar.parent.name}/{tar.name} must be a whole tar, it has no end: it was cut off, or is no tar; fetch or write it again"
        )


def _locate(spec: HubSource | FolderSource) -> tuple[str, Path, str | None, bool]:
    """Returns a source's name, the folder that holds it, its revision, and whether that is a local copy of a Hub one.

    The Hub is asked for exactly the revision, and what it resolves to is returned: `load_dataset` itself would take
    whatever revision is cached when it is offline, and a folder of that name before the Hub.
    """
    if isinstance(spec, FolderSource):
        return Path(spec.path).name, _find_folder(spec.path), None, False
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


def _find_folder(path: str) -> Path:
    folders = [Path(path)]
    if copies := os.environ.get("PROXYDS_DATA"):
        folders.append(Path(copies) / Path(path).name)
    for folder in folders:
        if folder.is_dir():
            return folder
    tried = " or ".join(map(str, folders))
    raise SourceNotFoundError(
        f"source.path: must be a folder, found none at {tried}; give another path (--set source.path=PATH), or set PROXYDS_DATA"
    )


def _load_dataset(folder: Path, name: str, config: str | None, streamed: bool) -> Any:
    import datasets

    # a cache for each folder: offline, `datasets` may answer with another folder of the same name
    folder_hash = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "proxyds" / folder_hash
    with refusing_unreadable(name):
        try:
            with translate_os_errors("the Hugging Face cache", "set HF_HOME to another folder"):
                try:
                    return datasets.load_dataset(str(folder), config, cache_dir=str(cache), streaming=streamed)
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


def _find_roles(opened: Any, spec: Columns) -> dict[str, str]:
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
            f"source: one split must serve one purpose, got {taken}; name others, or leave them to be carved"
        )
    return roles


_LABEL_TYPES = ("int", "uint", "bool", "string", "large_string", "null")


def _list_columns(split: Any) -> dict[str, Any]:
    """Lists a split's columns and their features, for which a stream may have to read its first rows."""
    if split.features is None:
        with refusing_unreadable("it"):
            split = split._resolve_features()
    return dict(split.features)


def _find_label_column(columns: dict[str, Any], spec: Columns) -> str:
    import datasets

    named = [name for name, feature in columns.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [
        name
        for name, feature in columns.items()
        if isinstance(feature, datasets.Value) and (name == spec.label_column or name in LABEL_COLUMNS)
    ]
    candidates = named if named and spec.label_column not in plain else plain
    if spec.label_column is None and FINE_LABEL in candidates:
        return FINE_LABEL
    column = _choose_column(candidates, spec.label_column, "label", columns)
    if column in plain and not columns[column].dtype.startswith(_LABEL_TYPES):
        raise LabelError(
            f"source.label_column: labels must be whole numbers or text, column {column} holds {columns[column].dtype}"
        )
    return column


def _choose_column(candidates: list[str], wanted: str | None, what: str, columns: dict[str, Any]) -> str:
    if wanted is not None and wanted in candidates:
        return wanted
    if wanted is None and len(candidates) == 1:
        return candidates[0]
    there = f", of which {', '.join(candidates)} hold {what}s" if candidates else f", none of {what}s"
    asked = f"got {wanted!r}; " if wanted is not None else ""
    message = f"source.{what}_column: must name the column of {what}s, {asked}found columns {', '.join(columns)}{there}"
    raise (LabelError if what == "label" else SourceError)(message)
