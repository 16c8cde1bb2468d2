"""A proxy's tables, read as those of a stranger: no larger than their bytes allow, of the right types, and all saying one thing.

What a parquet file says of itself is compared with its bytes before it is read, text is read as dictionaries, and what they
would grow to is counted before they are written out: a small file cannot fill the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proxyds.artifact.evidence_records import EvidenceRecord
from proxyds.artifact.manifest import CONFIGS, MANIFEST, Manifest
from proxyds.artifact.ranking_table import COLUMNS, DATASETS, FULL, LATER_COLUMNS, PROXY, collect_accuracies
from proxyds.artifact.reader import list_shards, parse_json, read_manifest
from proxyds.artifact.summary import COUNTED, COUNTED_TOO, Summary, Tables, count_samples
from proxyds.errors import ArtifactError
from proxyds.recipe.methods import BY_IMPORTANCE, METHODS, Method
from proxyds.recipe.models import MAX_IMPORTANCE
from proxyds.selection.records import CASE_MEANINGS, PAIRS
from proxyds.text import first_line

MAX_RANKING_ROWS = 200_000
MAX_GROWTH, MAX_IMAGE_GROWTH, FREE_BYTES = 100, 20, 64_000_000
"""How many times the bytes of its files a table may take, or one with images; and how many bytes more any table may."""
BYTES_OF_A_ROW = 8
"""A table of n samples has n times as many bytes at least: ids are hashes, which hardly compress unless pictures are repeated."""
SAMPLE_ID = r"^[0-9a-f]{64}(-[1-9][0-9]{0,9})?$"

_TEXT, _WHOLE, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_IMAGE = pa.struct({"bytes": pa.binary(), "path": _TEXT})
_IDENTITY = {"label": _WHOLE, "sample_id": _TEXT, "source_index": _WHOLE, "encoded_sha256": _TEXT}
_SCORES = {"case": pa.int8(), "importance": _REAL}
WEIGHT = "weight"
"""The column of what samples were drawn by; not there where the method is `cases`, which draws by importance."""
MIN_WEIGHT = 1e-250
"""The least weight of a sample that may be drawn: chances that follow from smaller ones would overflow."""
_KINDS: tuple[Callable[[pa.DataType], bool], ...] = (
    *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_list),
    lambda kind: kind in (pa.string(), pa.large_string()),
    lambda kind: kind in (pa.binary(), pa.large_binary()),
)
"""Kinds of types, of which a column must have the one that the format has."""
_MAY_BE_NULL = {"inclusion_probability", "image", "source_label"}
_KEY_OF_RUNS = ["architecture", "dataset", "ratio", "draw_seed", "training_seed"]
_NEVER_NULL_OF_RUNS = {*_KEY_OF_RUNS, "forward_flops", "training_flops", "n_parameters", "accuracy", "origin"} - {
    "draw_seed"
}


def list_columns(config: str, *, has_weight: bool, keeps_labels: bool) -> dict[str, pa.DataType]:
    """Lists what a table must hold, in the order in which it is written; other columns are of a later version and not read.

    Args:
        config: A key of `CONFIGS`.
        has_weight: Whether samples were drawn by something else than their importance.
        keeps_labels: Whether the proxy keeps some labels only.
    """
    weight = {WEIGHT: _REAL} if has_weight else {}
    draw = {**weight, "keep_probability": _REAL, "inclusion_probability": _REAL}
    source_label = {"source_label": _WHOLE} if keeps_labels else {}
    nearest = {"nearest_evaluation_id": _TEXT, "nearest_distance": _REAL}
    answers = {"predicted": pa.list_(_WHOLE), "correct": pa.list_(_FLAG), **dict.fromkeys(PAIRS, _WHOLE)}
    return {
        "default": {"image": _IMAGE, **_IDENTITY, **source_label, **_SCORES, **draw},
        "importance": {**_IDENTITY, **nearest, **_SCORES, **draw, "selected": _FLAG},
        "evaluation": {**_IDENTITY, **answers, **_SCORES},
        "ranking": dict(zip(COLUMNS.names, COLUMNS.types, strict=True)),
    }[config]


def _broken(place: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{why}; fetch or build it again", place=place)


def list_own_columns(manifest: Manifest, config: str) -> dict[str, pa.DataType]:
    """Lists what a table of a proxy must hold; see `list_columns`."""
    has_weight = manifest.draw.method != BY_IMPORTANCE
    return list_columns(config, has_weight=has_weight, keeps_labels=manifest.kept_labels is not None)


def read_proxy(folder: Path, *, with_ranking: bool = True, with_images: bool = True) -> tuple[Manifest, Tables]:
    """Reads a proxy's manifest and tables, which must say one thing.

    Args:
        folder: The proxy.
        with_ranking: Whether to read the runs behind its evidence, if it was checked.
        with_images: Whether to read the column `image` of `data`. Otherwise `data` is taken from the table `importance`, and
            its own files need not be there. A proxy that was made from an index has no other table: its images are read.

    Raises:
        ArtifactError: It is no proxy, or manifest and tables contradict each other.
    """
    manifest = read_manifest(folder)
    if manifest.index_of is not None:
        data = _read_table(folder, manifest, "default")
        _check_alone(folder, manifest, data)
        return manifest, with_no_others(data)
    importance = _read_table(folder, manifest, "importance")
    evaluation = _read_table(folder, manifest, "evaluation")
    _check_values(folder, manifest, importance, evaluation)
    if with_images:
        data = _read_table(folder, manifest, "default")
        _check_data(folder, manifest, data, importance)
    else:
        data = _select_data(manifest, importance)
    ranking = None
    if with_ranking and manifest.evidence is not None:
        ranking = _read_table(folder, manifest, "ranking")
        _check_ranking(folder, manifest.evidence, manifest.draw.ratio, ranking)
    return manifest, Tables(data, importance, evaluation, ranking)


def read_summary(folder: Path) -> tuple[Manifest, Summary]:
    """Counts the samples of a proxy of one's own, without reading images and runs; a few rows are in memory at a time.

    Raises:
        ArtifactError: It is no proxy.
    """
    manifest = read_manifest(folder)

    def read(config: str) -> Iterator[pa.Table]:
        for name in list_shards(manifest, config):
            with pq.ParquetFile(folder / name) as shard:
                names = [name for name in (*COUNTED, COUNTED_TOO) if name in shard.schema_arrow.names]
                yield from (pa.Table.from_batches([batch]) for batch in shard.iter_batches(columns=names))

    try:
        evaluation, training, proxy = (
            count_samples(read(config)) for config in ("evaluation", "importance", "default")
        )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _broken(folder, f"must hold the tables that docs/format.md describes: {first_line(error)}") from None
    return manifest, Summary(evaluation, training, proxy, {})


def read_tables(folder: Path, *, with_ranking: bool = False) -> Tables:
    """Reads a proxy's tables; see `read_proxy`."""
    return read_proxy(folder, with_ranking=with_ranking)[1]


def with_no_others(data: pa.Table) -> Tables:
    """Makes the tables of a proxy that was made from an index: all but `data` have no rows."""
    columns = (list_columns(config, has_weight=False, keeps_labels=False) for config in ("importance", "evaluation"))
    return Tables(data, *(pa.schema(list(each.items())).empty_table() for each in columns))


def read_weights(importance: pa.Table) -> NDArray[np.float64]:
    """Reads what the samples of the table `importance`, or `data`, were drawn by, (N,) float64."""
    weights: NDArray[np.float64] = importance[WEIGHT if WEIGHT in importance.column_names else "importance"].to_numpy()
    return weights


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yields the rows of a table; a few are in memory at a time."""
    for batch in table.to_batches(max_chunksize=100):
        yield from batch.to_pylist()


def _read_table(folder: Path, manifest: Manifest, config: str) -> pa.Table:
    """Reads the columns of one table that the format names, and checks that it has as many rows as the manifest says."""
    columns, shards = list_own_columns(manifest, config), list_shards(manifest, config)
    has_images, has_samples = config == "default", config != "ranking"
    label_names = manifest.proxy_label_names if has_images else manifest.label_names
    counts = manifest.counts
    n_rows = {"default": counts.proxy, "importance": counts.train, "evaluation": counts.evaluation}
    n_left = n_rows.get(config, MAX_RANKING_ROWS)
    growth = MAX_IMAGE_GROWTH if has_images else MAX_GROWTH
    n_left_bytes = FREE_BYTES + growth * sum(manifest.files[name].bytes for name in shards)
    parts = []
    for name in shards:
        try:
            part = _read_shard(folder / name, columns, n_left, n_left_bytes, len(manifest.probes))
            if has_samples:
                _check_features(folder / name, label_names, has_images=has_images)
        except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError, OverflowError, RecursionError) as error:
            why = f"must be a parquet file as docs/format.md has it: {first_line(error)}"
            raise _broken(folder / name, why) from None
        n_left -= part.num_rows
        n_left_bytes -= part.nbytes
        parts.append(part)
    table = pa.concat_tables(parts)
    if has_samples and (n_left or not table.num_rows):
        raise _broken(
            folder / CONFIGS[config][1],
            f"the tables must be those that {MANIFEST} describes, it has {table.num_rows:,} rows instead of {n_rows[config]:,}",
        )
    return table


def _read_shard(path: Path, columns: dict[str, pa.DataType], n_most: int, n_most_bytes: int, n_probes: int) -> pa.Table:
    """Reads one parquet file, if it has no more than `n_most` rows and takes no more than `n_most_bytes`.

    Raises:
        ValueError: The file is larger, lacks columns, or holds other types.
        pyarrow.ArrowException: The file is damaged.
    """
    n_bytes, has_samples = path.stat().st_size, "sample_id" in columns
    with pq.ParquetFile(path) as shard:
        metadata, names = shard.metadata, shard.schema_arrow.names
    lacking = [] if has_samples else [name for name in LATER_COLUMNS if name not in names]
    columns = {name: kind for name, kind in columns.items() if name not in lacking}
    for name in columns:
        if names.count(name) != 1:
            raise ValueError(f"it must have the column {name} once, it has it {names.count(name)} times")
    if metadata.num_rows > n_most:
        raise ValueError(f"it has {metadata.num_rows:,} rows, more than the {n_most:,} that {MANIFEST} leaves for it")
    if has_samples and metadata.num_rows * BYTES_OF_A_ROW > n_bytes:
        raise ValueError(f"it says {metadata.num_rows:,} rows in {n_bytes:,} bytes: a decompression bomb")
    _check_declared(metadata, n_bytes, n_most_bytes, n_probes)
    # as dictionaries: a value that is repeated a million times stays one value until its size is known
    repeated = [name if kind == _TEXT else f"{name}.bytes" for name, kind in columns.items() if kind in (_TEXT, _IMAGE)]
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
    for name in set(columns) - _MAY_BE_NULL if has_samples else ():
        if table[name].null_count:
            raise ValueError(f"the column {name} must have a value in every row")
    for name in lacking:
        table = table.append_column(name, pa.nulls(table.num_rows, COLUMNS.field(name).type))
    return table if has_samples else table.select(COLUMNS.names)


def _check_features(path: Path, label_names: Sequence[str], *, has_images: bool) -> None:
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


def _check_declared(metadata: pq.FileMetaData, n_bytes: int, n_most_bytes: int, n_probes: int) -> None:
    """Compares what a parquet file says of its own size with its bytes."""
    n_rows = metadata.num_rows
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(metadata.num_columns)):
            if chunk.total_uncompressed_size > n_most_bytes:
                raise ValueError(
                    f"{chunk.path_in_schema} says {chunk.total_uncompressed_size:,} bytes in a file of {n_bytes:,}: a decompression bomb"
                )
            if chunk.num_values > n_probes * max(n_rows, 1):
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


def _check_values(folder: Path, manifest: Manifest, importance: pa.Table, evaluation: pa.Table) -> None:
    """Makes sure that both tables of all samples can be what they say."""
    n_labels, n_probes = len(manifest.label_names), len(manifest.probes)
    for name, table in (("importance", importance), ("evaluation", evaluation)):
        _refuse(folder, _common_checks(name, table, n_labels))
    selected = importance["selected"].to_numpy()
    n_answers = [pc.list_value_length(evaluation[name]).to_numpy() for name in ("predicted", "correct")]
    answers, correct = (evaluation[name].combine_chunks().flatten() for name in ("predicted", "correct"))
    checks = [
        ("importance", WEIGHT, _are_weights(read_weights(importance), selected)),
        ("importance", "keep_probability", _are_shares(importance, METHODS.get(manifest.draw.method))),
        ("importance", "inclusion_probability", _are_probabilities(importance["inclusion_probability"])),
        ("importance", "nearest_distance", _are_amounts(importance["nearest_distance"].to_numpy())),
        ("importance", "nearest_evaluation_id", bool(pc.all(pc.is_in(importance["nearest_evaluation_id"], evaluation["sample_id"])).as_py())),
        ("importance", "selected", int(selected.sum()) == manifest.counts.proxy),
        ("evaluation", "predicted", not answers.null_count and bool((n_answers[0] == n_probes).all()) and _are_labels(answers, n_labels)),
        ("evaluation", "correct", not correct.null_count and bool((n_answers[1] == n_probes).all())),
    ]  # fmt: skip
    _refuse(folder, checks)
    right = answers.to_numpy().reshape(-1, n_probes) == evaluation["label"].to_numpy()[:, None]
    was_right = correct.to_numpy(zero_copy_only=False).reshape(-1, n_probes)
    _refuse(folder, [("evaluation", "correct", bool((right == was_right).all()))])


def _check_images(folder: Path, manifest: Manifest, data: pa.Table) -> None:
    """Makes sure that `data` is a table of samples with images."""
    encoded, paths = (pc.struct_field(data["image"], [i]) for i in range(2))
    has_images = encoded.null_count == 0 and paths.null_count == data.num_rows
    _refuse(folder, [*_common_checks("data", data, len(manifest.proxy_label_names)), ("data", "image", has_images)])


def _check_data(folder: Path, manifest: Manifest, data: pa.Table, importance: pa.Table) -> None:
    """Makes sure that `data` holds the very samples that `importance` selects."""
    _check_images(folder, manifest, data)
    expected = _select_data(manifest, importance)
    names = expected.column_names
    if differ := ", ".join(name for name in names if not data[name].equals(expected[name].cast(data[name].type))):
        raise _broken(folder, f"the table importance must select the very samples of data, they differ in {differ}")


def _check_alone(folder: Path, manifest: Manifest, data: pa.Table) -> None:
    """Makes sure that `data` can be what it says where no other table is there to compare it with."""
    _check_images(folder, manifest, data)
    every = np.ones(data.num_rows, np.bool_)
    checks = [
        ("data", WEIGHT, _are_weights(read_weights(data), every)),
        ("data", "keep_probability", _are_amounts(data["keep_probability"].to_numpy(), 1.0)),
        ("data", "inclusion_probability", _are_probabilities(data["inclusion_probability"])),
    ]
    if manifest.kept_labels is not None:
        of_kept = np.array(manifest.kept_labels)[data["label"].to_numpy()]
        checks.append(("data", "source_label", np.array_equal(data["source_label"].to_pylist(), of_kept)))
    _refuse(folder, checks)


def _select_data(manifest: Manifest, importance: pa.Table) -> pa.Table:
    """Takes the table `data` without images from the table `importance`."""
    selected = importance.filter(importance["selected"])
    names = list_own_columns(manifest, "default")
    columns = {name: selected[name] for name in names if name in selected.column_names}
    if manifest.kept_labels is not None:
        columns["source_label"] = columns["label"]
        columns["label"] = pa.chunked_array([np.searchsorted(manifest.kept_labels, columns["label"].to_numpy())])
    return pa.table(columns)


def _common_checks(name: str, table: pa.Table, n_labels: int) -> list[tuple[str, str, bool]]:
    """Lists what every table of samples must be: each check with its table and column."""
    ids = table["sample_id"].to_pylist()

    def matches(column: str, pattern: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(table[column], pattern)).as_py())

    return [
        (name, "label", _are_labels(table["label"], n_labels)),
        (name, "sample_id", matches("sample_id", SAMPLE_ID) and _are_in_order(ids)),
        (name, "encoded_sha256", matches("encoded_sha256", "^[0-9a-f]{64}$")),
        (name, "case", bool(np.isin(table["case"].to_numpy(), list(CASE_MEANINGS)).all())),
        (name, "importance", _are_amounts(table["importance"].to_numpy(), MAX_IMPORTANCE)),
    ]


def _refuse(folder: Path, checks: Sequence[tuple[str, str, bool]]) -> None:
    for table, column, is_sound in checks:
        if not is_sound:
            must = f"must be as docs/format.md and {MANIFEST} have it"
            raise _broken(folder, f"the column {column} of {table} {must}, it holds other values")


def _are_labels(labels: pa.ChunkedArray | pa.Array, n: int) -> bool:
    """Tells whether all of a column are whole numbers in [0, n)."""
    numbers = labels.to_numpy()
    return not len(numbers) or bool(0 <= numbers.min() <= numbers.max() < n)


def _are_amounts(values: NDArray[np.float64], most: float = np.finfo(np.float64).max) -> bool:
    return bool(((values >= 0) & (values <= most)).all())


def _are_weights(weights: NDArray[np.float64], selected: NDArray[np.bool_]) -> bool:
    """Tells whether samples can have been drawn by these weights."""
    positive = weights[weights != 0]
    return _are_amounts(weights, MAX_IMPORTANCE) and bool(np.all(positive >= MIN_WEIGHT) and np.all(weights[selected]))


def _are_shares(importance: pa.Table, method: Method | None) -> bool:
    """Tells whether `keep_probability` is the weight over its sum; of a method with strata, which are not written, whether it can be one."""
    keep, values = importance["keep_probability"].to_numpy(), read_weights(importance)
    if method is None or not method.is_weighting:
        return _are_amounts(keep, 1.0) and bool(np.isclose(keep.sum(), 1.0)) and not keep[values == 0].any()
    total = values.sum()
    return _are_amounts(keep, 1.0) and np.allclose(keep * total, values, atol=1e-9 * total)


def _are_probabilities(column: pa.ChunkedArray) -> bool:
    values = column.drop_null().to_numpy()
    return len(values) in (0, len(column)) and _are_amounts(values, 1.0)


def _are_in_order(ids: Sequence[str]) -> bool:
    """Tells whether ids stand in the order of their hashes, repeats in that of their numbers, each once."""
    keys = [(each[:64], int(each[65:] or 1)) for each in ids]
    return all(one < other for one, other in itertools.pairwise(keys))


def _check_ranking(folder: Path, evidence: EvidenceRecord, ratio: float, table: pa.Table) -> None:
    """Makes sure that a table of runs can be what its evidence says."""
    rows = table.to_pylist()
    is_sound = (
        not any(table[name].null_count for name in _NEVER_NULL_OF_RUNS)
        and all(row["dataset"] in DATASETS and 0 < row["ratio"] <= 1 and 0 <= row["accuracy"] <= 1 for row in rows)
        and all(0 <= (row["evaluation_accuracy"] or 0) <= 1 for row in rows)
        and all(min(row["forward_flops"], row["training_flops"], row["n_parameters"]) >= 0 for row in rows)
        and len({tuple(row[name] for name in _KEY_OF_RUNS) for row in rows}) == len(rows)
    )
    if is_sound:
        measured = collect_accuracies(table)
        is_sound = (
            evidence.own_ratio == ratio
            and {(FULL, 1.0), (PROXY, ratio)} <= set(measured.accuracies)
            and len(measured.names) == evidence.n_architectures
            and evidence.of(PROXY, ratio) is not None
        )
    if not is_sound:
        why = f"must hold the runs that the evidence in {MANIFEST} speaks of; fetch or check it again"
        raise ArtifactError(why, place=folder / "ranking")
