"""The forms in which a program holds a split: arrays, a `datasets.Dataset`, a torch data set of pairs. Each becomes parts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from proxyds.data.memory.parts import IMAGES, PART, cut_arrays, cut_table, encode_png
from proxyds.data.memory.values import as_array, is_tensor, lay_out, list_labels, to_picture
from proxyds.data.parts import LoadedPart, Part
from proxyds.data.survey.columns import find_image_column, find_label_column
from proxyds.data.survey.records import Label
from proxyds.errors import SourceError
from proxyds.recipe.sections.source import Columns
from proxyds.text import describe_type, first_line


@dataclass(frozen=True)
class Held:
    """A split that a program holds.

    Attributes:
        parts: Its parts.
        label_names: Text for each label number; None where labels are numbers or texts of their own.
        has_texts: Whether labels are texts.
        notes: What should be known of it.
    """

    parts: list[Part]
    label_names: tuple[str, ...] | None = None
    has_texts: bool = False
    notes: tuple[str, ...] = ()


def hold_arrays(images: Any, labels: Any, place: str) -> Held:
    """Holds images and labels, each an array, a tensor or a list; arrays stay where they are, other images become PNG files.

    Raises:
        SourceError: Images are something else, or are not as many as labels.
        LabelError: Labels are neither whole numbers nor texts.
    """
    if labels is None:
        raise SourceError(f"source: {place} must be (images, labels), found None for labels")
    plain = list_labels(labels, place)
    many = as_array(images)
    is_many = many.ndim > 0 if isinstance(many, np.ndarray) else isinstance(many, Sequence)
    if not is_many or isinstance(many, str | bytes):
        raise SourceError(
            f"source: images of {place} must be an array, a tensor or a list, found {describe_type(images)}"
        )
    if len(many) != len(plain):
        raise SourceError(
            f"source: {place} must have a label for each image, found {len(many):,} images and {len(plain):,} labels"
        )
    if not plain:
        raise SourceError(f"source: {place} must hold images, found none")
    if isinstance(many, np.ndarray) and many.dtype != object:
        return _hold(cut_arrays(lay_out(images, 1, f"images of {place}"), plain), plain)
    if not any(isinstance(image, Image.Image) for image in many):
        return _hold(cut_arrays([_to_array(image, f"{place}[{i}]") for i, image in enumerate(many)], plain), plain)
    encoded = [encode_png(to_picture(image, f"{place}[{i}]")) for i, image in enumerate(many)]
    return _hold(_cut_encoded(encoded, plain), plain)


def hold_table(table: Any, spec: Columns, place: str) -> Held:
    """Holds a `datasets.Dataset`, whose images stay the files that they are.

    Raises:
        SourceError: It has no column of images, or holds none.
        LabelError: It has no column of labels.
    """
    import datasets

    columns = dict(table.features)
    image_column, label_column = find_image_column(columns, spec), find_label_column(columns, spec)
    if not len(table):
        raise SourceError(f"source: {place} must hold images, found none")
    notes: tuple[str, ...] = ()
    if table.format["type"] == "custom":
        notes = (f"{place}: its transform is not applied, images are as they are stored",)
    if isinstance(columns[image_column], datasets.Image):
        table = table.cast_column(image_column, datasets.Image(decode=False))
    feature = columns[label_column]
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    has_texts = names is None and "string" in feature.dtype
    return Held(cut_table(table, image_column, label_column), names, has_texts, notes)


def hold_pairs(pairs: Any, place: str) -> Held:
    """Holds a data set that gives an (image, label) for each index, as torch's do.

    Arrays of torchvision's data sets and of a `TensorDataset` stay where they are, image files of an `ImageFolder` what they are. Of
    others each pair is asked for once, the first twice to see that it stays the same, and its image kept as a PNG file.

    Raises:
        SourceError: It gives something else, or fails.
        LabelError: Labels are neither whole numbers nor texts.
    """
    places, base, levels = None, pairs, []
    while _is_subset(base):
        indices = np.asarray(as_array(base.indices), np.int64)
        if ((indices < 0) | (indices >= len(base.dataset))).any():
            raise SourceError(f"source: {place} must be a subset of {len(base.dataset):,} images, it asks for others")
        levels.append(indices)
        base = base.dataset
    for indices in reversed(levels):
        places = indices if places is None else places[indices]
    if not len(pairs):
        raise SourceError(f"source: {place} must hold images, found none")
    names = _find_classes(base)
    if (held := _find_arrays(base)) is not None:
        whole = list_labels(held[1], place)
        if len(held[0]) != len(whole):
            raise SourceError(
                f"source: {place} must have a label for each image, found {len(held[0]):,} images and {len(whole):,} labels"
            )
        return _hold(cut_arrays(lay_out(held[0], 1, f"images of {place}"), whole, places), whole, names)
    those = range(len(base)) if places is None else places.tolist()
    if (files := _find_files(base)) is not None:
        chosen = [files[index] for index in those]
        labels = list_labels([label for _, label in chosen], place)
        return _hold(_cut_encoded([str(Path(path).absolute()) for path, _ in chosen], labels), labels, names)
    encoded: list[bytes] = []
    given: list[Any] = []
    for number, index in enumerate(those):
        image, label = _ask(base, index, f"{place}[{number}]")
        encoded.append(encode_png(to_picture(image, f"{place}[{number}]")))
        given.append(label)
    again, _ = _ask(base, those[0], f"{place}[0]")
    if encode_png(to_picture(again, f"{place}[0]")) != encoded[0]:
        raise SourceError(
            f"source: {place} must give the same image each time that it is asked, it does not; take its transform away (transform=None)"
        )
    labels = list_labels(given, place)
    return _hold(_cut_encoded(encoded, labels), labels, names)


def _hold(parts: list[Part], labels: Sequence[Label], names: tuple[str, ...] | None = None) -> Held:
    has_texts = any(isinstance(label, str) for label in labels)
    return Held(parts, None if has_texts else names, has_texts)


def _to_array(image: Any, place: str) -> NDArray[np.uint8]:
    picture = to_picture(image, place)
    assert isinstance(picture, np.ndarray)
    return picture


def _cut_encoded(images: Sequence[bytes | str], labels: Sequence[Label]) -> list[Part]:
    """Cuts encoded images, or the paths of their files, into parts."""
    parts: list[Part] = []
    for start in range(0, len(labels), PART):
        some = images[start : start + PART]
        rows = [
            {"bytes": image, "path": None} if isinstance(image, bytes) else {"bytes": None, "path": image}
            for image in some
        ]
        parts.append(LoadedPart(pa.array(rows, IMAGES), pa.array(labels[start : start + PART]), start))
    return parts


def _ask(pairs: Any, index: int, place: str) -> tuple[Any, Any]:
    """Asks a data set for one pair."""
    try:
        pair = pairs[index]
    except Exception as error:
        raise SourceError(
            f"source: {place} must be an (image, label), asking for it says {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        found = f"{describe_type(pair)} of {len(pair)}" if hasattr(pair, "__len__") else describe_type(pair)
        raise SourceError(
            f"source: {place} must be an (image, label), found {found}; pass (images, labels), two arrays or lists, or a data set of pairs"
        )
    return pair[0], pair[1]


def _is_subset(pairs: Any) -> bool:
    return type(pairs).__name__ == "Subset" and type(pairs).__module__ == "torch.utils.data.dataset"


def _find_classes(pairs: Any) -> tuple[str, ...] | None:
    """Finds the names of labels that a data set of torchvision has, or all of those that one is put together from."""
    if _is_subset(pairs):
        return _find_classes(pairs.dataset)
    if isinstance(members := getattr(pairs, "datasets", None), list) and members:
        of_members = {_find_classes(member) for member in members}
        return of_members.pop() if len(of_members) == 1 else None
    classes = getattr(pairs, "classes", None)
    if not isinstance(classes, list | tuple) or not classes:
        return None
    names = tuple(", ".join(name) if isinstance(name, list | tuple) else name for name in classes)
    return names if all(isinstance(name, str) for name in names) else None


def _find_arrays(pairs: Any) -> tuple[Any, Any] | None:
    """Finds the arrays of images and labels that a data set of torch or torchvision gives pairs from unchanged; None where there are none."""
    kind = type(pairs)
    if kind.__name__ == "TensorDataset" and kind.__module__ == "torch.utils.data.dataset" and len(pairs.tensors) == 2:
        return pairs.tensors[0], pairs.tensors[1]
    if not kind.__module__.startswith("torchvision.datasets.") or _has_transform(pairs):
        return None
    images: Any = getattr(pairs, "data", None)
    labels: Any = getattr(pairs, "targets", None)
    if not (isinstance(images, np.ndarray) or is_tensor(images)) or labels is None or np.ndim(labels) != 1:
        return None
    first = _ask(pairs, 0, "train[0]")[0]
    return (images, labels) if np.array_equal(np.asarray(first), as_array(images[0])) else None


def _find_files(pairs: Any) -> list[tuple[str, Any]] | None:
    """Finds the image files and labels of torchvision's `ImageFolder`; None of other data sets, and where its images are changed."""
    folder = sys.modules.get("torchvision.datasets.folder")
    if folder is None or type(pairs) is not folder.ImageFolder or _has_transform(pairs):
        return None
    samples: list[tuple[str, Any]] = pairs.samples
    return samples if pairs.loader is folder.default_loader else None


def _has_transform(pairs: Any) -> bool:
    return any(getattr(pairs, name, None) is not None for name in ("transform", "target_transform", "transforms"))
