"""A proxy's indexes, `indices.csv` and `validation.csv`: which samples of the source it holds, as plain text for people who keep the data set.

Every proxy is written with them. An index may be a stranger's: it is read line by line, and each cell must be what the format has.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from proxyds.artifact.manifest import INDEXES, Manifest, count_rows
from proxyds.artifact.reader import refused
from proxyds.artifact.tables import MIN_WEIGHT, SAMPLE_ID, WEIGHT, Extras, list_columns
from proxyds.errors import ArtifactError, NoPermissionError
from proxyds.recipe.methods import BY_IMPORTANCE
from proxyds.recipe.models import MAX_IMPORTANCE

COLUMNS = (
    "sample_id",
    "split",
    "source_index",
    "label",
    "case",
    "importance",
    WEIGHT,
    "keep_probability",
    "inclusion_probability",
)
"""As in the table, but for `label` (its name) and `weight` (of all that was drawn by weight); `split` is the source's name of it."""
HEADER = f"{','.join(COLUMNS)}\n"
MAX_INDEX_BYTES = 1_000_000_000
"""Some six million samples."""
_BYTES_OF_NUMBERS = 400
"""What a line takes besides names, at most."""

_MARK = "'"
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t")
"""How cells begin that programs for tables take for formulas."""
_PATTERNS = {
    "sample_id": SAMPLE_ID,
    "source_index": "[0-9]{1,18}",
    "case": "[1-4]",
    **dict.fromkeys(
        ("importance", WEIGHT, "keep_probability", "inclusion_probability"), r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?"
    ),
}
_EMPTY_CELLS = {
    "data": ("inclusion_probability",),
    "validation": (WEIGHT, "keep_probability", "inclusion_probability"),
}
"""Cells that may be empty; of `validation` they must."""
_BOUNDS = {
    "importance": (0.0, MAX_IMPORTANCE),
    WEIGHT: (MIN_WEIGHT, MAX_IMPORTANCE),
    "keep_probability": (0.0, 1.0),
    "inclusion_probability": (0.0, 1.0),
}


def format_rows(data: pa.Table, label_names: Sequence[str], split: str) -> str:
    """Writes samples as lines of an index, below `HEADER`.

    Args:
        data: Rows of the table `data` or `validation`; the column `image` is not looked at.
        label_names: Text of each label, as these tables number them.
        split: The source's name of the split that `source_index` counts in.
    """
    columns = {name: data[name] for name in COLUMNS if name in data.column_names}
    drawn_by = pc.if_else(
        pc.is_valid(columns["keep_probability"]), columns["importance"], pa.scalar(None, pa.float64())
    )
    columns = {WEIGHT: drawn_by, **columns}
    columns["label"] = pa.array([_quote(as_cell(name)) for name in label_names], pa.string()).take(columns["label"])
    columns["split"] = pa.repeat(_quote(as_cell(split)), data.num_rows)
    cells = [pc.fill_null(columns[name].cast(pa.string()), "") for name in COLUMNS]
    return "".join(f"{line}\n" for line in pc.binary_join_element_wise(*cells, ",").to_pylist())


def as_cell(name: str) -> str:
    """Writes a name so that no program for tables takes it for a formula: an apostrophe stands before one that begins like it."""
    return _MARK + name if name.startswith((*_RUN_BY_SPREADSHEETS, _MARK)) else name


def _quote(cell: str) -> str:
    """Quotes a cell, where it must be, as RFC 4180 has it."""
    return '"' + cell.replace('"', '""') + '"' if re.search(r'[",\r\n]', cell) else cell


def read_index(folder: Path, manifest: Manifest, table: str = "data") -> pa.Table:
    """Reads an index, a few lines at a time.

    Args:
        folder: Holds it; its bytes are not compared with the manifest here.
        manifest: Of the proxy that it is of.
        table: The table that it lists, a key of `INDEXES`.

    Returns:
        A row for each sample in the order of ids: the table's columns but `image`, `encoded_sha256` and `source_label`.

    Raises:
        ArtifactError: There is none, or it is not what `docs/format.md` has; the message names the line.
        NoPermissionError: It may not be read.
    """
    path, n_samples = folder / INDEXES[table], count_rows(manifest, table)
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(
            "must be a file, there is none: proxies of a format before 1.7 have no index; `proxyds index PLACE -o DIR` makes one",
            place=path,
        )
    n_bytes, n_most = path.stat().st_size, _count_most_bytes(manifest, n_samples)
    if n_bytes > n_most:
        raise refused(path, f"must have {n_most:,} bytes at most for {n_samples:,} samples, has {n_bytes:,}")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return _read_rows(path, stream, manifest, table)
    except UnicodeDecodeError as error:
        raise refused(path, f"must be UTF-8 text, byte {error.object[error.start]:#x} is not") from None
    except PermissionError:
        raise NoPermissionError("may not be read", place=path) from None


def _count_most_bytes(manifest: Manifest, n_samples: int) -> int:
    """Counts the bytes that an index can have at most: names may be quoted, with each quote doubled."""
    longest = [
        max((len(name.encode()) for name in names), default=0)
        for names in (manifest.label_names, manifest.source.n_samples)
    ]
    return min(MAX_INDEX_BYTES, (n_samples + 1) * (_BYTES_OF_NUMBERS + 2 * sum(longest)))


def _read_rows(path: Path, stream: TextIO, manifest: Manifest, table: str) -> pa.Table:
    rows = csv.reader(stream, strict=True)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    numbers = {as_cell(name): number for number, name in enumerate(manifest.proxy_label_names)}
    n_samples, splits = count_rows(manifest, table), {as_cell(name) for name in manifest.source.n_samples}
    before, split = ("", 0), None

    def refuse(why: str) -> NoReturn:
        raise refused(path, f"line {rows.line_num}: {why}")

    try:
        header = next(rows, [])
        if header != list(COLUMNS):
            refuse(f"must name the columns {', '.join(COLUMNS)}, it names {', '.join(header)[:200] or 'nothing'}")
        for row in rows:
            if len(row) != len(COLUMNS):
                refuse(f"must have {len(COLUMNS)} cells, it has {len(row)}")
            if len(columns["label"]) == n_samples:
                refuse(f"there must be {n_samples:,} samples, there are more")
            cells = dict(zip(COLUMNS, row, strict=True))
            values = _read_cells(cells, numbers, _EMPTY_CELLS[table], refuse)
            place = (values["sample_id"][:64], int(values["sample_id"][65:] or 1))
            if place <= before:
                how = "stand once, it stands twice" if place == before else "stand in the order of ids, it does not"
                refuse(f"{values['sample_id']} must {how}")
            split = cells["split"] if split is None else split
            if split not in splits or cells["split"] != split:
                refuse(f"split must be one of the source, the same in all lines, it is {cells['split'][:60]!r}")
            before = place
            for name, value in values.items():
                columns[name].append(value)
    except csv.Error as error:
        refuse(f"must be CSV: {error}")
    if len(columns["label"]) != n_samples:
        refuse(f"there must be {n_samples:,} samples, there are {len(columns['label']):,}")
    return _as_table(path, columns, manifest, table)


def _read_cells(
    cells: Mapping[str, str],
    numbers: Mapping[str, int],
    may_be_empty: Collection[str],
    refuse: Callable[[str], NoReturn],
) -> dict[str, Any]:
    """Reads the cells of one sample but its split; `numbers` are those of labels by cell."""
    values: dict[str, Any] = {}
    for name, pattern in _PATTERNS.items():
        cell = cells[name]
        if name in may_be_empty and not cell:
            values[name] = None
            continue
        if re.fullmatch(pattern, cell) is None:
            refuse(f"{name} must be as docs/format.md has it, it is {cell[:80]!r}")
        values[name] = cell if name == "sample_id" else float(cell) if name in _BOUNDS else int(cell)
        low, high = _BOUNDS.get(name, (0, 10**18))
        if name in _BOUNDS and not low <= values[name] <= high:
            refuse(f"{name} must be from {low:g} to {high:g}, it is {cell[:80]}")
    if cells["label"] not in numbers:
        refuse(f"label must be one of the proxy's, it is {cells['label'][:60]!r}")
    values["label"] = numbers[cells["label"]]
    return values


def _as_table(path: Path, columns: Mapping[str, list[Any]], manifest: Manifest, table: str) -> pa.Table:
    """Makes a table of what was read, if its columns can stand beside each other."""
    if table == "data" and not manifest.has_weight and columns[WEIGHT] != columns["importance"]:
        raise refused(path, f"weight must be the importance where the method is {BY_IMPORTANCE}, it is something else")
    if columns["inclusion_probability"].count(None) not in (0, len(columns["label"])):
        raise refused(path, "inclusion_probability must be there for all samples or for none")
    drawn = [name for name in _EMPTY_CELLS["validation"] if any(value is not None for value in columns[name])]
    if table == "validation" and drawn:
        raise refused(path, f"{drawn[0]} must be empty, its samples were not drawn by weight")
    kinds = list_columns(table, Extras(has_weight=manifest.has_weight))
    kinds = {name: kind for name, kind in kinds.items() if name in COLUMNS}
    return pa.table({name: pa.array(columns[name], kind) for name, kind in kinds.items()})
