"""Tables beside images, `metadata.csv` and the like, that name each image's label."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxyds.data.survey.labels import Layout
from proxyds.data.survey.naming import normalize
from proxyds.data.survey.records import LABEL_BITS, FoundFile, Label, SurveyedSplit
from proxyds.errors import LabelError, SourceError
from proxyds.recipe.sections.source import FolderSource
from proxyds.text import first_line, make_plain

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
FILE_COLUMN = "file_name"
LABEL_COLUMNS = ("label", "labels", "cls", "class", "target")
"""Names by which a column of plain numbers or text is taken for the labels."""
FINE_LABEL = "fine_label"
"""The column that is taken where there are several of labels: CIFAR-100 and its like have coarse ones beside it."""
UNLISTED = "images that no table of labels lists"

_WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")  # longer ones are names
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Table:
    """A table of labels: its path, the column of labels, and for each row the path of an image and its label."""

    path: str
    column: str
    rows: list[tuple[str, Label]]


def read_tables(folder: Path, files: Sequence[FoundFile], spec: FolderSource) -> tuple[list[Table], list[str]]:
    """Reads the tables that name files and labels.

    Args:
        folder: The source's.
        files: The tables.
        spec: The recipe's section.

    Returns:
        The tables, and the paths of those that name no files or no labels, and so are none.

    Raises:
        SourceError: A table cannot be read, or names files outside of the folder.
        LabelError: It does not tell which of its columns are the labels.
    """
    tables, others = [], []
    for file in files:
        columns, rows = _read_rows(folder / file.path, file.path)
        column = _choose_column(columns, spec, file.path) if FILE_COLUMN in columns else None
        if column is None:
            others.append(file.path)
            continue
        named = [
            (_join_path(file.path, row.get(FILE_COLUMN)), _read_label(row.get(column), file.path, column))
            for row in rows
        ]
        tables.append(Table(file.path, column, named))
    return _as_numbers(tables), others


def label_by_tables(layout: Layout, tables: Sequence[Table]) -> tuple[dict[str, SurveyedSplit], list[str]]:
    """Takes for each image's label what a table says of it; the images stand in the order of the tables' rows.

    Returns:
        The splits, and the images that no table lists.

    Raises:
        SourceError: A table lists a file that is not there, or one twice.
    """
    found = {place.file.path: (split, place.file) for split, places in layout.places.items() for place in places}
    beside, listed = set(layout.beside), set[str]()
    files: dict[str, list[FoundFile]] = {split: [] for split in layout.places}
    labels: dict[str, list[Label]] = {split: [] for split in layout.places}
    for table in tables:
        for path, label in table.rows:
            if path in beside:
                continue
            if path in listed or path not in found:
                trouble = "twice" if path in listed else "where no image is"
                raise SourceError(
                    f"source: {make_plain(table.path)} must list images of the folder, each once; it lists {make_plain(path)} {trouble}; mend the table"
                )
            listed.add(path)
            split, file = found[path]
            files[split].append(file)
            labels[split].append(label)
    splits = {split: SurveyedSplit(tuple(files[split]), tuple(labels[split])) for split in files if files[split]}
    return splits, sorted(set(found) - listed)


def _read_rows(path: Path, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Reads a table's columns and rows, whose values in CSV are texts, all of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            wanted = [each for each in table.column_names if _holds_values(table[each].type)]
            return wanted, table.select(wanted).to_pylist()
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file, strict=True)
                return list(reader.fieldnames or ()), list(reader)
            rows = [json.loads(line) for line in file if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no JSON object")
        return list(dict.fromkeys(key for row in rows for key in row)), rows
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise SourceError(
            f"source: {make_plain(name)} must be a table of images and labels, it cannot be read: {first_line(error)}"
        ) from error


def _holds_values(kind: pa.DataType) -> bool:
    """Whether a column holds one number or text for each row; such as the texts of a category, which stand in a dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_values(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_text or pa.types.is_primitive(kind))


def _choose_column(columns: Sequence[str], spec: FolderSource, name: str) -> str | None:
    candidates = [each for each in LABEL_COLUMNS if each in columns]
    if spec.label_column is not None:
        return spec.label_column if spec.label_column in columns else None
    if FINE_LABEL in columns:
        return FINE_LABEL
    if len(candidates) > 1:
        raise LabelError(
            f"source.label_column: must name the column of labels, {make_plain(name)} has {', '.join(candidates)}; name one"
        )
    return candidates[0] if candidates else None


def _join_path(table: str, name: object) -> str:
    """Returns the path, from the source's folder, of a file that a table names from its own."""
    path = (
        posixpath.normpath(posixpath.join(posixpath.dirname(table), name)) if isinstance(name, str) and name else ".."
    )
    if posixpath.isabs(path) or path.split("/")[0] == "..":
        raise SourceError(
            f"source: {make_plain(table)} must name files of the folder, relative to its own, in the column {FILE_COLUMN}; found {make_plain(repr(name))}"
        )
    return path


def _read_label(value: object, table: str, column: str) -> Label:
    """Takes a label as it stands in the table: a text is a name, whatever it says; none at all is none."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return normalize(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) and value.bit_length() < LABEL_BITS:
        return value
    held = f"a number of more than {LABEL_BITS} bits" if isinstance(value, int) else type(value).__name__
    raise LabelError(
        f"source.label_column: labels must be whole numbers or text, column {make_plain(column)} of {make_plain(table)} holds {held}"
    )


def _as_numbers(tables: list[Table]) -> list[Table]:
    """Makes labels numbers where all of all tables are whole numbers; refuses fractions, which are no labels.

    Raises:
        LabelError: All are numbers, and some of them fractions.
    """
    labels = {label for table in tables for _, label in table.rows if label is not None}
    texts = {label for label in labels if isinstance(label, str)}
    if texts and all(_WHOLE.fullmatch(text) for text in texts):
        return [
            Table(each.path, each.column, [(path, None if label is None else int(label)) for path, label in each.rows])
            for each in tables
        ]
    if texts and all(_WHOLE.fullmatch(text) or _FRACTION.fullmatch(text) for text in texts):
        raise LabelError(
            f"source.label_column: labels must be whole numbers or text, {make_plain(tables[0].path)} holds fractions in column {make_plain(tables[0].column)}"
        )
    if texts and len(texts) < len(labels):  # of several tables, or of lines of JSON
        return [
            Table(each.path, each.column, [(path, None if label is None else str(label)) for path, label in each.rows])
            for each in tables
        ]
    return tables
