"""A named data set at a pinned revision becomes samples with stable ids, split for the work ahead.

A source is read in three steps: `open_splits` finds encoded images and labels, `decode_split` (a stored task) turns them
into pixels and ids, `load_source` carves what is missing among training, evaluation and test samples. Encoded bytes are
never changed: they pass through to the proxy.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from proxyds.engine import Engine, Report, Task, run_stored
from proxyds.errors import BadImageError, LabelError, SourceError, SourceNotFoundError, SplitNotFoundError
from proxyds.recipe import Columns, DigitsSource, FolderSource, HubSource, Images, Recipe, TorchvisionSource
from proxyds.records import OnProgress, Samples, Source, SourceFacts
from proxyds.seeding import derive_seed, hash_ids
from proxyds.store import Store

STAGE = "source"
STAGE_VERSION = 1
LABEL_COLUMNS = ("label", "labels", "cls", "class", "target")
_DECODE_ERRORS = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    zlib.error,
)


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
        """The bytes of one image file."""
        image = self.images[index].as_py()
        if image is None:
            return b""
        held: bytes | None = image["bytes"]
        return held if held is not None else Path(image["path"]).read_bytes()

    def place(self, index: int) -> str:
        """The file's name of one image where the source has one, for messages."""
        path = (self.images[index].as_py() or {}).get("path")
        return f" ({Path(path).name})" if path else ""


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
    """

    name: str
    revision: str | None
    is_local_copy: bool
    label_names: tuple[str, ...]
    splits: dict[str, RawSplit]
    split_names: dict[str, str]


@dataclass(frozen=True)
class _Decoded:
    samples: Samples
    bad_images: tuple[str, ...]


def load_source(recipe: Recipe, store: Store, engine: Engine, on_progress: OnProgress) -> Source:
    """Reads a recipe's source and splits it.

    Args:
        recipe: Its source, seed and protocol.
        store: Where decoded pixels are kept.
        engine: Decodes splits that the store does not hold.
        on_progress: Shown while decoding.

    Raises:
        SourceNotFoundError: There is no such data set.
        SplitNotFoundError: It has no such split.
        LabelError: It has no labels, or fewer than two.
        BadImageError: An image cannot be decoded and `on_bad_image` is `fail`.
        SourceError: Images differ in size and the recipe names none, or a split is empty.
    """
    spec, protocol = recipe.source, recipe.importance.protocol
    raw = open_splits(spec)
    roles = [role for role in raw.splits if role != "validation" or protocol == "validation"]
    tasks = [_decoding_task(raw, role, spec) for role in roles]
    entries = run_stored(tasks, store, engine, on_progress)
    decoded = {
        role: _read_decoded(done.entry.folder, raw.split_names[role]) for role, done in zip(roles, entries, strict=True)
    }
    shapes = {np.load(d.samples.pixels_file, mmap_mode="r").shape[1:] for d in decoded.values()}
    if len(shapes) > 1:
        raise SourceError(f"source: splits must have one image size, found {sorted(shapes)}; set source.image_size")

    train, evaluation, test, evaluation_from, test_from = _split(decoded, recipe)
    for role, samples in (("be drawn", train), ("measure importance on", evaluation), ("test on", test)):
        if not len(samples):
            raise SourceError(
                f"source: must leave samples to {role}, none are left; use more samples, or smaller fractions"
            )
    everything = np.sort(np.concatenate([d.samples.ids for d in decoded.values()]))
    elsewhere = np.concatenate([_base_ids(evaluation.ids), _base_ids(test.ids)])
    facts = SourceFacts(
        name=raw.name,
        revision=raw.revision,
        kind=spec.kind,
        is_local_copy=raw.is_local_copy,
        fingerprint=hashlib.sha256("\n".join(everything).encode()).hexdigest(),
        n_samples={raw.split_names[role]: len(d.samples) for role, d in decoded.items()},
        n_duplicates={raw.split_names[role]: _count_repeats(d.samples.ids) for role, d in decoded.items()},
        n_shared=int(np.isin(_base_ids(train.ids), elsewhere).sum()),
        bad_images=tuple(place for d in decoded.values() for place in d.bad_images),
        evaluation_from=evaluation_from,
        test_from=test_from,
    )
    by_name = {raw.split_names[role]: raw.splits[role] for role in roles}

    def read_encoded(samples: Samples) -> list[bytes]:
        return [by_name[samples.split].encoded(int(index)) for index in samples.source_index]

    n_channels, height, width = shapes.pop()
    return Source(raw.label_names, (n_channels, height, width), train, evaluation, test, facts, read_encoded)


def open_splits(spec: Images) -> RawSource:
    """Finds a source's encoded images and labels without decoding them."""
    if isinstance(spec, DigitsSource):
        return _open_digits()
    if isinstance(spec, TorchvisionSource):
        return _open_torchvision(spec)
    assert isinstance(spec, HubSource | FolderSource)
    return _open_datasets(spec)


def decode_split(
    *, folder: Path, report: Report, raw: RawSplit, spec: Images, split: str, label_names: tuple[str, ...]
) -> None:
    """Decodes one split into `pixels.npy` (uint8, (n, C, H, W)) and `samples.npz`, in the order of ids.

    A sample's id is the sha256 of its decoded mode, size and pixels, before any conversion, and its label's name: the
    same picture has one id as PNG and as WebP, in any order, shard or split. Repeats of a picture with the same label
    get `-2`, `-3`, ... in the order of their encoded bytes, then of the source.

    Args:
        folder: Filled with the result.
        report: Told how many images are done.
        raw: The split.
        spec: Mode and size that networks see, and what to do about bad images.
        split: The source's name of the split, for messages.
        label_names: Text for each label.

    Raises:
        BadImageError: An image cannot be decoded and `on_bad_image` is `fail`.
        SourceError: Sizes differ and the recipe names none, or no image decodes.
    """
    n = len(raw.labels)
    found: list[tuple[str, str, int]] = []
    bad: list[str] = []
    sizes: set[tuple[int, ...]] = set()
    pixels = np.empty((n, 0), np.uint8)
    for index in range(n):  # one thread: Pillow's decoders are slower in several
        encoded = _encoded_or_nothing(raw, index)
        try:
            content_id, image = _decode_image(encoded, label_names[raw.labels[index]], spec)
        except _DECODE_ERRORS as error:
            place = f"{split}[{index}]{raw.place(index)}"
            if spec.on_bad_image == "fail":
                raise BadImageError(
                    f"source: image {place} must decode, found {len(encoded):,} bytes that do not: {error}; mend it, or "
                    "leave such images out with source.on_bad_image: skip"
                ) from None
            bad.append(place)
            continue
        if not sizes:
            pixels = np.empty((n, *image.shape), np.uint8)
        sizes.add(image.shape)
        if len(sizes) == 1:
            pixels[index] = image
        found.append((content_id, hashlib.sha256(encoded).hexdigest(), index))
        if index % 1000 == 999 or index == n - 1:
            report(index + 1, n, "")
    if not found:
        raise SourceError(f"source: split {split} must hold images, found none that decode")
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for _, height, width in sorted(sizes)[:3])
        raise SourceError(
            f"source.image_size: must be given for images of {len(sizes)} sizes ({shown}, ...) in split {split}; "
            "for example `image_size: 32`"
        )
    found.sort()
    rows = np.array([index for _, _, index in found], np.int64)
    np.save(folder / "pixels.npy", pixels[rows])
    np.savez(
        folder / "samples.npz",
        ids=_number_repeats([content_id for content_id, _, _ in found]),
        labels=raw.labels[rows],
        source_index=rows,
        encoded_sha256=np.array([encoded_sha256 for _, encoded_sha256, _ in found]),
        bad_images=np.array(bad, dtype=np.str_),
    )


def carve(samples: Samples, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Chooses the same share of every label by ids and seed, never by order.

    Repeats of a picture go together, but for the one group of a label that the share may cut.

    Returns:
        (N,) bool: round(fraction * n) of each label's n samples, one at least.
    """
    bases = _base_ids(samples.ids)
    keys = hash_ids(bases, seed)
    chosen = np.zeros(len(samples), np.bool_)
    for label in np.unique(samples.labels):
        members = np.flatnonzero(samples.labels == label)
        n = max(1, round(fraction * len(members)))
        chosen[members[np.lexsort((samples.ids[members], bases[members], keys[members]))[:n]]] = True
    return chosen


def _split(decoded: dict[str, _Decoded], recipe: Recipe) -> tuple[Samples, Samples, Samples, str, str]:
    spec = recipe.source
    rest = decoded["train"].samples
    if "test" in decoded:
        test, test_from = decoded["test"].samples, f"the source's split `{decoded['test'].samples.split}`"
    else:
        chosen = carve(rest, spec.test_fraction, derive_seed(recipe.seed, "test split"))
        test, rest = rest.take(chosen), rest.take(~chosen)
        test_from = f"carved from the training split, {spec.test_fraction:g} of each label"
    if recipe.importance.protocol == "paper":
        return rest, test, test, "the test samples (the paper's protocol)", test_from
    if "validation" in decoded:
        evaluation = decoded["validation"].samples
        return rest, evaluation, test, f"the source's split `{evaluation.split}`", test_from
    chosen = carve(rest, spec.validation_fraction, derive_seed(recipe.seed, "validation split"))
    evaluation_from = f"carved from the training samples, {spec.validation_fraction:g} of each label"
    return rest.take(~chosen), rest.take(chosen), test, evaluation_from, test_from


def _decoding_task(raw: RawSource, role: str, spec: Images) -> Task:
    split = raw.splits[role]
    content = hashlib.sha256(split.labels.tobytes())
    for index in range(len(split.labels)):
        content.update(hashlib.sha256(_encoded_or_nothing(split, index)).digest())
    return Task(
        stage=STAGE,
        name=f"decode {raw.split_names[role]}",
        inputs={
            "version": STAGE_VERSION,
            "content": content.hexdigest(),
            "label_names": raw.label_names,
            "image_mode": spec.image_mode,
            "image_size": spec.image_size,
            "on_bad_image": spec.on_bad_image,
        },
        function=decode_split,
        arguments={"raw": split, "spec": spec, "split": raw.split_names[role], "label_names": raw.label_names},
    )


def _read_decoded(folder: Path, split: str) -> _Decoded:
    with np.load(folder / "samples.npz") as held:
        samples = Samples(
            ids=held["ids"],
            labels=held["labels"],
            source_index=held["source_index"],
            encoded_sha256=held["encoded_sha256"],
            split=split,
            pixels_file=folder / "pixels.npy",
            rows=np.arange(len(held["ids"])),
        )
        return _Decoded(samples, tuple(str(place) for place in held["bad_images"]))


def _encoded_or_nothing(raw: RawSplit, index: int) -> bytes:
    try:
        return raw.encoded(index)
    except OSError:
        return b""  # reported as a bad image where it is decoded


def _decode_image(encoded: bytes, label: str, spec: Images) -> tuple[str, NDArray[np.uint8]]:
    """Returns the content's id and the pixels that networks see, (C, H, W)."""
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
    return _content_id(image, label), _convert(image, spec)


def _content_id(image: Image.Image, label: str) -> str:
    header = f"{image.mode} {image.width}x{image.height} {label}\n"
    pixels = image.tobytes()
    if image.mode == "P" and image.palette is not None:
        pixels += image.palette.tobytes()
    return hashlib.sha256(header.encode() + pixels).hexdigest()


def _convert(image: Image.Image, spec: Images) -> NDArray[np.uint8]:
    """Turns an image of any mode and size into (C, H, W) uint8 as the recipe says; transparency shows white."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        raise ValueError(f"images of 16 bits or more a channel are not supported, this one is {image.mode}")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert(spec.image_mode)
    if spec.image_size is not None and image.size != (spec.image_size, spec.image_size):
        image = ImageOps.fit(image, (spec.image_size, spec.image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _number_repeats(sorted_ids: Sequence[str]) -> NDArray[np.str_]:
    """Appends `-2`, `-3`, ... to equal neighbours."""
    numbered, repeat = [], 0
    for position, content_id in enumerate(sorted_ids):
        repeat = repeat + 1 if position and sorted_ids[position - 1] == content_id else 1
        numbered.append(content_id if repeat == 1 else f"{content_id}-{repeat}")
    return np.array(numbered)


def _base_ids(ids: NDArray[np.str_]) -> NDArray[np.str_]:
    bases: NDArray[np.str_] = ids.astype("<U64")
    return bases


def _count_repeats(ids: NDArray[np.str_]) -> int:
    return len(ids) - len(np.unique(_base_ids(ids)))


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

    name, location, is_local_copy = _locate(spec)
    held = _load_dataset(spec, location, name)
    train = _find_split(held, spec.train_split, "train_split")
    roles = {"train": spec.train_split}
    for role, wanted in (("validation", spec.validation_split), ("test", spec.test_split)):
        if wanted is not None:
            _find_split(held, wanted, f"{role}_split")
            roles[role] = wanted
        elif role in held and role != spec.train_split:
            roles[role] = role
    image_column = _find_image_column(train.features, spec)
    label_column = _find_label_column(train.features, spec)
    label_names = _name_labels(train, label_column)
    splits = {}
    for role, split_name in roles.items():
        split = held[split_name]
        missing = [column for column in (image_column, label_column) if column not in split.column_names]
        if missing:
            raise SourceError(
                f"source: split {split_name} must have the columns of {spec.train_split}, it lacks {missing[0]}"
            )
        images = split.cast_column(image_column, datasets.Image(decode=False)).with_format("arrow")[:][image_column]
        splits[role] = RawSplit(images, _number_labels(split, label_column, label_names, split_name))
    revision = spec.revision if isinstance(spec, HubSource) else None
    return RawSource(name, revision, is_local_copy, label_names, splits, roles)


def _locate(spec: HubSource | FolderSource) -> tuple[str, str, bool]:
    """Returns a source's name, where `datasets` finds it, and whether that is a local copy of a Hub data set."""
    if isinstance(spec, FolderSource):
        return Path(spec.path).name, str(_find_folder(spec.path)), False
    copies = os.environ.get("PROXYDS_DATA")
    copy = Path(copies) / spec.name.rpartition("/")[2] if copies else None
    if copy is not None and copy.is_dir():
        return spec.name, str(copy), True
    return spec.name, spec.name, False


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


def _load_dataset(spec: HubSource | FolderSource, location: str, name: str) -> Any:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    arguments = {}
    if isinstance(spec, HubSource) and location == name:
        arguments = {"name": spec.config, "revision": spec.revision}
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(location, **arguments)
    except (FileNotFoundError, ConnectionError, HfHubHTTPError) as error:
        where = f"{name} at {spec.revision} on the Hub" if isinstance(spec, HubSource) else f"images in {location}"
        raise SourceNotFoundError(
            f"source: must be a data set that can be opened, found no {where}: {_first_line(error)}; check the name and the "
            "connection, or put a local copy into PROXYDS_DATA"
        ) from error
    except (
        datasets.exceptions.DatasetGenerationError,
        datasets.exceptions.DataFilesNotFoundError,
        ValueError,
    ) as error:
        cause = error.__cause__ or error
        raise SourceError(
            f"source: must be parquet files, image folders or WebDataset tars, {name} is not: {_first_line(cause)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _find_split(held: Any, wanted: str, field: str) -> Any:
    if wanted not in held:
        raise SplitNotFoundError(
            f"source.{field}: must be a split of the source, got {wanted!r}; it has: {', '.join(held)}"
        )
    return held[wanted]


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
    values = {value for value in train[column] if value is not None}
    if not all(isinstance(value, int | str) for value in values):
        raise LabelError(
            f"source.label_column: labels must be whole numbers or text, column {column} holds {feature.dtype}"
        )
    return tuple(str(value) for value in sorted(values))


def _number_labels(split: Any, column: str, label_names: tuple[str, ...], split_name: str) -> NDArray[np.int64]:
    import datasets

    values = list(split[column])
    if isinstance(split.features[column], datasets.ClassLabel):
        numbers = [-1 if value is None else value for value in values]
    else:
        index = {name: number for number, name in enumerate(label_names)}
        numbers = [-1 if value is None else index.get(str(value), -1) for value in values]
    labels = np.array(numbers, np.int64)
    if len(labels) and labels.min() < 0:
        first = int(np.argmax(labels < 0))
        raise LabelError(
            f"source: every sample must have a label of the training split, {int((labels < 0).sum()):,} of {len(labels):,} in "
            f"split {split_name} have none (the first is {split_name}[{first}]: {values[first]!r}); label them, or name "
            "another split"
        )
    if len(np.unique(labels)) < 2 and split_name == "train":
        raise LabelError(f"source: must have two labels or more, found {len(np.unique(labels))} in split {split_name}")
    return labels
