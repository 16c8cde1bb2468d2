"""The parquet files of a table: written piece by piece, for several readers; and a stranger's, read no larger than their bytes allow.

What such a file says of itself is compared with its bytes before it is read, text is read as dictionaries, and what they would grow to
is counted before they are written out: a small file cannot fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyds.artifact.manifest import MANIFEST, TABLES
from proxyds.artifact.ranking_table import COLUMNS, LATER_COLUMNS
from proxyds.artifact.reader import parse_json
from proxyds.progress_bars import without_datasets_bars

if TYPE_CHECKING:
    import datasets

READERS = 4
"""Readers of a stream that share the files of a split evenly: each takes whole files."""
BYTES_OF_A_ROW = 8
"""A table of n samples has n times as many bytes at least: ids are hashes, which hardly compress unless pictures are repeated."""

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
"""The type of the column `image`."""
_KINDS: tuple[Callable[[pa.DataType], bool], ...] = (
    *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_list),
    lambda kind: kind in (pa.string(), pa.large_string()),
    lambda kind: kind in (pa.binary(), pa.large_binary()),
)
"""Kinds of types, of which a column must have the one that the format has."""


def count_shards(n_rows: int, samples_per_shard: int, *, n_readers: int = 1) -> int:
    """Counts the files of a table: enough for its rows, and a multiple of the readers unless there are fewer rows."""
    return min(n_rows, n_readers * -(-n_rows // (n_readers * samples_per_shard)))


class ShardWriter:
    """The files of a table that is written piece by piece: `FOLDER/SPLIT-00000-of-00001.parquet`, its rows shared evenly."""

    def __init__(self, folder: Path, table: str, features: datasets.Features, n_rows: int, n_shards: int) -> None:
        _, self.split, subfolder = TABLES[table]
        self.folder = folder / subfolder
        self.files: list[Path] = []
        self._bounds = [n_rows * shard // n_shards for shard in range(n_shards + 1)]
        self._waiting = features.arrow_schema.empty_table()
        self.folder.mkdir(exist_ok=True)

    def add(self, rows: pa.Table) -> None:
        """Takes more rows, and writes what fills a file: with the last row the last file."""
        self._waiting = pa.concat_tables([self._waiting, rows])
        while len(self.files) < len(self._bounds) - 1 and self._waiting.num_rows >= self._size_of_next():
            self._write_rows(self._size_of_next())

    def _size_of_next(self) -> int:
        first, after = self._bounds[len(self.files) : len(self.files) + 2]
        return after - first

    def _write_rows(self, n: int) -> None:
        import datasets

        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        file = self.folder / f"{self.split}-{len(self.files):05d}-of-{len(self._bounds) - 1:05d}.parquet"
        with without_datasets_bars():
            datasets.Dataset(rows.combine_chunks()).to_parquet(file)
        self.files.append(file)


@dataclass(frozen=True)
class ExpectedShard:
    """What a parquet file must be.

    Attributes:
        columns: Its columns and their types; others are not read.
        never_null: Those that must have a value in every row.
        n_rows: Its rows, at most.
        n_bytes: What it takes in memory, at most.
        n_listed: Values of a row in a list, at most.
    """

    columns: Mapping[str, pa.DataType]
    never_null: Collection[str]
    n_rows: int
    n_bytes: int
    n_listed: int


def read_shard(path: Path, expected: ExpectedShard) -> pa.Table:
    """Reads one parquet file, if it is what is expected.

    Raises:
        ValueError: The file is larger, lacks columns, or holds other types.
        pyarrow.ArrowException: The file is damaged.
    """
    columns, n_most, n_most_bytes = expected.columns, expected.n_rows, expected.n_bytes
    n_bytes, has_samples = path.stat().st_size, "sample_id" in columns
    with pq.ParquetFile(path) as shard:
        metadata, names = shard.metadata, shard.schema_arrow.names
    lacking = [name for name in LATER_COLUMNS if name in columns and name not in names]
    columns = {name: kind for name, kind in columns.items() if name not in lacking}
    for name in columns:
        if names.count(name) != 1:
            raise ValueError(f"it must have the column {name} once, it has it {names.count(name)} times")
    if metadata.num_rows > n_most:
        raise ValueError(f"it has {metadata.num_rows:,} rows, more than the {n_most:,} that {MANIFEST} leaves for it")
    if has_samples and metadata.num_rows * BYTES_OF_A_ROW > n_bytes:
        raise ValueError(f"it says {metadata.num_rows:,} rows in {n_bytes:,} bytes: a decompression bomb")
    _check_declared(metadata, n_bytes, n_most_bytes, expected.n_listed)
    # as dictionaries: a value that is repeated a million times stays one value until its size is known
    repeated = [
        name if kind == pa.string() else f"{name}.bytes"
        for name, kind in columns.items()
        if kind in (pa.string(), IMAGE)
    ]
    with pq.ParquetFile(path, read_dictionary=repeated) as shard:
        batches, n_grown = [], 0
        for batch in shard.iter_batches(batch_size=256 if "image" in columns else 4096, columns=list(columns)):
            n_grown += _dense_bytes(batch)
            if n_grown > n_most_bytes:
                raise ValueError(f"it grows to {n_grown:,} bytes and more out of {n_bytes:,}: a decompression bomb")
            arrays = [_as_type(batch[name], kind) for name, kind in columns.items()]
            batches.append(pa.RecordBatch.from_arrays(arrays, list(columns)))
    table = pa.Table.from_batches(batches, pa.schema(list(columns.items())))
    table.validate(full=True)  # text that is not UTF-8, lists that reach beyond their values
    for name in expected.never_null:
        if table[name].null_count:
            raise ValueError(f"the column {name} must have a value in every row")
    for name in lacking:
        table = table.append_column(name, pa.nulls(table.num_rows, COLUMNS.field(name).type))
    if lacking:
        table = table.select(COLUMNS.names)
    return table


def check_features(path: Path, label_names: Sequence[str], *, has_images: bool) -> None:
    """Checks what readers of data sets take a table of samples for: labels with the manifest's names, and images.

    Raises:
        ValueError: The file says something else.
    """
    info: Any = parse_json((pq.read_schema(path).metadata or {}).get(b"huggingface", b"null"))
    for key in ("info", "features"):
        info = info.get(key) if isinstance(info, dict) else None
    features: dict[str, Any] = info if isinstance(info, dict) else {}
    label, image = (features.get(name) for name in ("label", "image"))
    if not isinstance(label, dict) or (label.get("_type"), label.get("names")) != ("ClassLabel", list(label_names)):
        raise ValueError(f"its features must name the labels as {MANIFEST} does")
    if has_images and not (isinstance(image, dict) and image.get("_type") == "Image"):
        raise ValueError("its features must make the column image an Image")


def _check_declared(metadata: pq.FileMetaData, n_bytes: int, n_most_bytes: int, n_listed: int) -> None:
    """Compares what a parquet file says of its own size with its bytes."""
    n_rows = metadata.num_rows
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(metadata.num_columns)):
            if chunk.total_uncompressed_size > n_most_bytes:
                raise ValueError(
                    f"{chunk.path_in_schema} says {chunk.total_uncompressed_size:,} bytes in a file of {n_bytes:,}: a decompression bomb"
                )
            if chunk.num_values > n_listed * max(n_rows, 1):
                raise ValueError(f"{chunk.path_in_schema} says {chunk.num_values:,} values in {n_rows:,} rows")


def _dense_bytes(batch: pa.RecordBatch) -> int:
    """Counts the bytes that a batch takes when its dictionaries are written out."""
    total = 0
    for column in batch.columns:
        leaf = pc.struct_field(column, [0]) if pa.types.is_struct(column.type) else column
        if pa.types.is_dictionary(leaf.type):
            lengths = pc.binary_length(leaf.dictionary).fill_null(0)
            total += pc.sum(lengths.take(leaf.indices.drop_null())).as_py() or 0
        else:
            total += leaf.nbytes
    return total


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Casts a column to what the format has; whole numbers may be narrower."""
    if pa.types.is_struct(kind):
        if not pa.types.is_struct(column.type) or [f.name for f in column.type] != [f.name for f in kind]:
            raise ValueError("the column image must hold bytes and path")
        fields = [_as_type(pc.struct_field(column, [i]), kind.field(i).type) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(kind))
    own = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_alike = any(is_of(own) and is_of(kind) for is_of in _KINDS)
    if not is_alike and not pa.types.is_null(own):
        raise ValueError(f"a column must hold {kind}, it holds {own}")
    return column.cast(kind)
