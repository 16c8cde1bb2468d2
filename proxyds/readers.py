"""Where a source's images lie: digits, torchvision's CIFAR folders, and whatever `datasets` opens.

Each reader returns encoded images and labels, undecoded and in the source's own order. To add a kind of source: its
section in `recipe.py`, a reader here, and its line in `open_splits`.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from proxyds import hub
from proxyds.errors import (
    LabelError,
    RemoteError,
    SourceError,
    SourceNotFoundError,
    SplitNotFoundError,
    translate_os_errors,
)
from proxyds.plain_text import first_line, make_plain
from proxyds.recipe import Columns, DigitsSource, FolderSource, HubSource, Images, TorchvisionSource

LABEL_COLUMNS = ("label", "labels", "cls", "class", "target")
"""Names by which a column of plain numbers or text is taken for the labels."""
FINE_LABEL = "fine_label"
"""Of several columns of labels the one that CIFAR-100 and its like are told apart by."""


@dataclass(frozen=True)
class RawSplit:
    """One split as the source holds it, in the source's order.

    Attributes:
        images: Arrow structs of `bytes` and `path`, as `datasets` keeps undecoded images.
        labels: (n,) int64 in [0, n_labels).
    """

    images: pa.ChunkedArray
    labels: NDArray[np.int64]

    def encoded(self, index: int) -> bytes:
        """The bytes of one image file; none where the source holds none.

        Raises:
            SourceError: The file cannot be read.
        """
        image = self.images[index].as_py()
        if image is None:
            return b""
        held: bytes | None = image["bytes"]
        if held is not None:
            return held
        try:
            return Path(image["path"]).read_bytes()
        except OSError as error:
            raise SourceError(f"source: image [{index}]{self.place(index)} cannot be read: {error.strerror}") from None

    def place(self, index: int) -> str:
        """The file's name of one image where the source has one, for messages."""
        path = (self.images[index].as_py() or {}).get("path")
        return f" ({make_plain(Path(path).name)})" if path else ""


@dataclass(frozen=True)
class RawSource:
    """A source's splits before decoding.

    Attributes:
        name: As a reader would look for it.
        revision: Pinned revision, or None.
        is_local_copy: Whether a hub source was found in `PROXYDS_DATA`.
        label_names: Text for each label.
        splits: By role: `train`, and `validation` and `test` where the source has them.
        split_names: The source's names for the roles.
        test_note: Why a split that looks like the test split is not taken, or nothing.
    """

    name: str
    revision: str | None
    is_local_copy: bool
    label_names: tuple[str, ...]
    splits: dict[str, RawSplit]
    split_names: dict[str, str]
    test_note: str = ""


def open_splits(spec: Images) -> RawSource:
    """Finds a source's encoded images and labels without decoding them."""
    if isinstance(spec, DigitsSource):
        return _open_digits()
    if isinstance(spec, TorchvisionSource):
        return _open_torchvision(spec)
    assert isinstance(spec, HubSource | FolderSource)
    return _open_datasets(spec)


def _open_digits() -> RawSource:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    split = RawSplit(_encode_png(pixels), digits.target.astype(np.int64))
    names = tuple(str(name) for name in digits.target_names)
    return RawSource("scikit-learn digits", None, False, names, {"train": split}, {"train": "train"})


def _open_torchvision(spec: TorchvisionSource) -> RawSource:
    import torchvision

    root = _find_folder(spec.path)
    kind = getattr(torchvision.datasets, spec.dataset)
    splits, names = {}, ()
    for role in ("train", "test"):
        try:
            held = kind(root, train=role == "train", download=False)
        except (RuntimeError, OSError) as error:
            raise SourceNotFoundError(
                f"source.path: must hold torchvision's {spec.dataset}, found none in {root} ({error}); "
                f"torchvision.datasets.{spec.dataset}(root, download=True) fetches it"
            ) from error
        splits[role] = RawSplit(_encode_png(held.data), np.array(held.targets, np.int64))
        names = tuple(held.classes)
    return RawSource(f"torchvision {spec.dataset}", None, False, names, splits, {"train": "train", "test": "test"})


def _encode_png(pixels: NDArray[np.uint8]) -> pa.ChunkedArray:
    """Encodes arrays as PNG, for sources that hold no image files."""

    def encode(image: NDArray[np.uint8]) -> dict[str, bytes | None]:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    kind = pa.struct({"bytes": pa.large_binary(), "path": pa.string()})
    return pa.chunked_array([pa.array([encode(image) for image in pixels], type=kind)])


def _open_datasets(spec: HubSource | FolderSource) -> RawSource:
    import datasets

    name, location, revision, is_local_copy = _locate(spec)
    held = _load_dataset(location, name, spec.config if isinstance(spec, HubSource) and not is_local_copy else None)
    roles = _find_roles(held, spec)
    train = held[roles["train"]]
    image_column = _find_image_column(train.features, spec)
    label_column = _find_label_column(train.features, spec)
    label_names = _name_labels(train, label_column)
    splits, test_note = {}, ""
    for role, split_name in list(roles.items()):
        split = held[split_name]
        missing = [column for column in (image_column, label_column) if column not in split.column_names]
        if missing:
            raise SourceError(
                f"source: split {split_name} must have the columns of {spec.train_split}, it lacks {missing[0]}"
            )
        labels = _number_labels(split, label_column, label_names)
        if role == "test" and spec.test_split is None and (labels < 0).all():
            test_note = f"the source's split `{split_name}` has no labels; "
            del roles[role]
            continue
        _check_labels(labels, split[label_column], split_name, role)
        images = split.cast_column(image_column, datasets.Image(decode=False)).with_format("arrow")[:][image_column]
        splits[role] = RawSplit(images, labels)
    return RawSource(name, revision, is_local_copy, label_names, splits, roles, test_note)


def _find_roles(held: Any, spec: Columns) -> dict[str, str]:
    """Which split serves as training, validation and test samples; the last two only where the source has them."""
    asked = {"train": spec.train_split, "validation": spec.validation_split, "test": spec.test_split}
    roles = {role: split_name for role, split_name in asked.items() if split_name is not None}
    for role in asked:
        if role not in roles and role in held and role not in roles.values():
            roles[role] = role
    for role, split_name in roles.items():
        if split_name not in held:
            raise SplitNotFoundError(
                f"source.{role}_split: must be a split of the source, got {split_name!r}; it has: {', '.join(held)}"
            )
    if len(set(roles.values())) < len(roles):
        taken = ", ".join(f"{role}_split: {split_name}" for role, split_name in roles.items())
        raise SourceError(
            f"source: one split must serve one purpose, got {taken}; name others, or leave them to be carved"
        )
    return roles


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
    places = [Path(path)]
    if copies := os.environ.get("PROXYDS_DATA"):
        places.append(Path(copies) / Path(path).name)
    for place in places:
        if place.is_dir():
            return place
    tried = " or ".join(str(place) for place in places)
    raise SourceNotFoundError(
        f"source.path: must be a folder, found none at {tried}; give another path, or set PROXYDS_DATA"
    )


_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    tarfile.TarError,
    pa.ArrowException,
)
"""What `datasets` raises, besides its own errors, over folders that are no data set."""


def _load_dataset(folder: Path, name: str, config: str | None) -> Any:
    import datasets

    try:
        with translate_os_errors("the Hugging Face cache", "set HF_HOME to another folder"):
            try:
                # a cache for each folder: offline, `datasets` may answer with another folder of the same name
                place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
                cache = Path(datasets.config.HF_DATASETS_CACHE) / "proxyds" / place
                return datasets.load_dataset(str(folder), config, cache_dir=str(cache))
            except datasets.exceptions.DatasetGenerationError as error:
                raise error.__cause__ or error from None
            except PermissionError as error:
                raise SourceError(f"source: {name} cannot be read, nor its copy in HF_HOME written: {error}") from error
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            f"source: must be a data set that can be opened, found none in {name}: {first_line(error)}"
        ) from error
    except _UNREADABLE as error:
        raise SourceError(
            f"source: must be parquet files, image folders or WebDataset tars, {name} is not: {first_line(error)}"
        ) from error


def _find_image_column(features: Any, spec: Columns) -> str:
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    return _find_column(images, spec.image_column, "image", list(features), SourceError)


def _find_label_column(features: Any, spec: Columns) -> str:
    import datasets

    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Value) and (name == spec.label_column or name in LABEL_COLUMNS)
    ]
    candidates = named if named and spec.label_column not in plain else plain
    if spec.label_column is None and FINE_LABEL in candidates:  # coarse ones stand beside it
        return FINE_LABEL
    return _find_column(candidates, spec.label_column, "label", list(features), LabelError)


def _find_column(
    candidates: list[str], wanted: str | None, what: str, columns: list[str], error: type[SourceError]
) -> str:
    if wanted is not None and wanted in candidates:
        return wanted
    if wanted is None and len(candidates) == 1:
        return candidates[0]
    found = f"columns {', '.join(columns)}" + (
        f", of which {', '.join(candidates)} hold {what}s" if candidates else f", none of {what}s"
    )
    asked = f"got {wanted!r}; " if wanted is not None else ""
    raise error(f"source.{what}_column: must name the column of {what}s, {asked}found {found}")


def _name_labels(train: Any, column: str) -> tuple[str, ...]:
    import datasets

    feature = train.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return tuple(feature.names)
    values = {value for value in train[column] if value is not None and value != -1}
    if not all(isinstance(value, int | str) for value in values):
        raise LabelError(
            f"source.label_column: labels must be whole numbers or text, column {column} holds {feature.dtype}"
        )
    return tuple(str(value) for value in sorted(values))


def _number_labels(split: Any, column: str, label_names: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels as numbers, -1 where there is none or none that the training split has."""
    import datasets

    values = list(split[column])
    if isinstance(split.features[column], datasets.ClassLabel):
        return np.array([-1 if value is None else value for value in values], np.int64)
    numbers = {name: number for number, name in enumerate(label_names)}
    return np.array([-1 if value is None else numbers.get(str(value), -1) for value in values], np.int64)


def _check_labels(labels: NDArray[np.int64], values: Any, split_name: str, role: str) -> None:
    if len(labels) and labels.min() < 0:
        n_missing, first = int((labels < 0).sum()), int(np.argmax(labels < 0))
        raise LabelError(
            f"source: every sample must have a label that the training split has, {n_missing:,} of {len(labels):,} in split "
            f"{split_name} have none (the first is {split_name}[{first}]: {values[first]!r}); label them, or name another split"
        )
    if role == "train" and len(np.unique(labels)) < 2:
        raise LabelError(f"source: must have two labels or more, found {len(np.unique(labels))} in split {split_name}")
