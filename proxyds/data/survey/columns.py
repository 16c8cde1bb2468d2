"""Columns of parquet files: which holds images, which labels.

They are told by what `datasets` says of them; what nobody has marked is named by the recipe, or offered to whoever writes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from proxyds.data.survey.metadata import FINE_LABEL, LABEL_COLUMNS
from proxyds.errors import LabelError, SourceError
from proxyds.recipe.sections.source import Columns
from proxyds.text import make_plain

_LABEL_TYPES = ("int", "uint", "bool", "string", "large_string", "null")


def find_image_column(columns: dict[str, Any], spec: Columns) -> str:
    """Finds the column of images: the one that is known as such, or one of bytes that the recipe names.

    Args:
        columns: Of a split, each with the feature that `datasets` has for it.
        spec: The recipe's section.

    Raises:
        SourceError: There is none, or none that is named.
    """
    import datasets

    known = [name for name, feature in columns.items() if isinstance(feature, datasets.Image)]
    possible = [name for name, feature in columns.items() if _may_hold_images(feature)]
    if spec.image_column in possible:
        return spec.image_column
    offer = (
        f"; {', '.join(possible)} may hold some: set source.image_column: {possible[0]}"
        if possible and not known
        else ""
    )
    return _choose_column(known, spec.image_column, "image", columns, offer)


def _may_hold_images(feature: Any) -> bool:
    """Says whether a column holds bytes, alone or beside a path, as images are kept that nobody has marked as such."""
    feature = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def find_label_column(columns: dict[str, Any], spec: Columns) -> str:
    """Finds the column of labels; see `find_image_column`.

    Raises:
        LabelError: There is none, or none that is named, or it holds neither whole numbers nor text.
    """
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
    possible = [
        name
        for name, feature in columns.items()
        if isinstance(feature, datasets.Value) and feature.dtype.startswith(_LABEL_TYPES)
    ]
    offer = (
        f"; {', '.join(possible)} may: set source.label_column: {possible[0]}" if possible and not candidates else ""
    )
    column = _choose_column(candidates, spec.label_column, "label", columns, offer)
    if column in plain and not columns[column].dtype.startswith(_LABEL_TYPES):
        raise LabelError(
            f"source.label_column: labels must be whole numbers or text, column {column} holds {columns[column].dtype}"
        )
    return column


def refuse_other_names(files: Iterable[Path], column: str, names: tuple[str, ...]) -> None:
    """Refuses parquet files whose labels have other names than the training samples': `datasets` takes their numbers as they are.

    Args:
        files: Of any format; one that tells no names of its labels, or cannot be read, is passed over.
        column: Of the labels.
        names: Of the training samples' labels.

    Raises:
        LabelError: There is one; the message names it.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        if file.suffix != ".parquet":
            continue
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowException):  # whoever reads its samples says so
            continue
        feature = datasets.Features.from_arrow_schema(schema).get(column)
        if isinstance(feature, datasets.ClassLabel) and tuple(feature.names) != names:
            wanted, found = (make_plain(", ".join(map(repr, each)))[:200] for each in (names, feature.names))
            raise LabelError(
                f"source: {make_plain(file.name)} must name its labels as the training samples do, in the same order: {wanted}; it has {found}. "
                "Write its labels with these names"
            )


def _choose_column(
    candidates: list[str], wanted: str | None, what: str, columns: dict[str, Any], offer: str = ""
) -> str:
    if wanted is not None and wanted in candidates:
        return wanted
    if wanted is None and len(candidates) == 1:
        return candidates[0]
    there = f", of which {', '.join(candidates)} hold {what}s" if candidates else f", none of {what}s"
    asked = f"got {wanted!r}; " if wanted is not None else ""
    message = f"source.{what}_column: must name the column of {what}s, {asked}found columns {', '.join(columns)}{there}{offer}"
    raise (LabelError if what == "label" else SourceError)(message)
