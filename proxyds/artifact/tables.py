"""A proxy's tables, read as those of a stranger: no larger than their bytes allow, of the right types, and all saying one thing.

What a parquet file says of itself is compared with its bytes before it is read, text is read as dictionaries, and what they
would grow to is counted before they are written out: a small file cannot fill the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proxyds.artifact import ranking_table as runs
from proxyds.artifact.manifest import CONFIGS, MANIFEST, EvidenceRecord, Manifest
from proxyds.artifact.reader import list_shards, parse_json, read_manifest
from proxyds.artifact.summary import COUNTED, Summary, Tables, count_samples
from proxyds.errors import ArtifactError
from proxyds.recipe.methods import BY_IMPORTANCE, METHODS, Method
from proxyds.recipe.models import MAX_IMPORTANCE
from proxyds.selection.records import CASE_MEANINGS, PAIRS
from proxyds.text import first_line

MAX_RANKING_ROWS = 200_000
MAX_GROWTH, MAX_IMAGE_GROWTH, FREE_BYTES = 100, 20, 64_000_000
"""A table, or one with images, may take so many times the bytes of its files, and so many more."""
BYTES_OF_A_ROW = 8
"""A table of n samples has n times as many bytes at least: ids are hashes, which hardly compress unless pictures are repeated."""
_SAMPLE_ID = r"^[0-9a-f]{64}(-[1-9][0-9]{0,9})?$"

_TEXT, _WHOLE, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_OF_ALL = {
    "label": _WHOLE,
    "sample_id": _TEXT,
    "source_index": _WHOLE,
    "encoded_sha256": _TEXT,
    "case": pa.int8(),
    "importance": _REAL,
}
_OF_DRAWN = {"keep_probability": _REAL, "inclusion_probability": _REAL}
_IMAGE = pa.struct({"bytes": pa.binary(), "path": _TEXT})
_COLUMNS = {
    "default": {**_OF_ALL, "image": _IMAGE, **_OF_DRAWN},
    "importance": {
        **_OF_ALL,
        **_OF_DRAWN,
        "nearest_evaluation_id": _TEXT,
        "nearest_distance": _REAL,
        "selected": _FLAG,
    },
    "evaluation": {
        **_OF_ALL,
        "predicted": pa.list_(_WHOLE),
        "correct": pa.list_(_FLAG),
        **dict.fromkeys(PAIRS, _WHOLE),
    },
    "ranking": dict(zip(runs.COLUMNS.names, runs.COLUMNS.types, strict=True)),
}
"""What each table must hold; other columns are of a later version and not read."""
WEIGHT = "weight"
"""What samples were drawn by, beside `_OF_DRAWN`; where the method is not `cases`, which draws by importance."""
MIN_WEIGHT = 1e-250
"""Of a sample that may be drawn: chances that follow from smaller ones would overflow."""
_MAY_BE_NULL = {"inclusion_probability", "image", "source_label"}


def read_proxy(folder: Path, *, with_ranking: bool = True, with_images: bool = True) -> tuple[Manifest, Tables]:
    """Reads a proxy's manifest and tables, which must say one thing.

    Args:
        folder: The proxy.
        with_ranking: Whether to read the runs behind its evidence, if it was checked.
        with_images: Whether `data` is to have its column `image`. Without, `data` is taken from the table `importance` and
            its own files need not be there.

    Raises:
        ArtifactError: It is no proxy, or they do not.
    """
    manifest = read_manifest(folder)
    importance = _read_table(folder, manifest, "importance", manifest.counts.train)
    evaluation = _read_table(folder, manifest, "evaluation", manifest.counts.evaluation)
    _check_values(folder, manifest, importance, evaluation)
    if with_images:
        data = _read_table(folder, manifest, "default", manifest.counts.proxy)
        _check_data(folder, manifest, data, importance)
    else:
        data = _select_data(manifest, importance)
    ranking = None
    if with_ranking and manifest.evidence is not None:
        ranking = _read_table(folder, manifest, "ranking", None)
        _check_ranking(folder, manifest.evidence, manifest.draw.ratio, ranking)
    return manifest, Tables(data, importance, evaluation, ranking)


def read_summary(folder: Path) -> tuple[Manifest, Summary]:
    """Reads what is shown of a proxy of one's own, but for its images and runs: of its tables a few rows are held at a time.

    Raises:
        ArtifactError: It is no proxy.
    """
    manifest = read_manifest(folder)

    def read(config: str, columns: list[str]) -> Iterator[pa.Table]:
        for name in list_shards(manifest, config):
            with pq.ParquetFile(folder / name) as held:
                yield from (pa.Table.from_batches([batch]) for batch in held.iter_batches(columns=columns))

    def select(piece: pa.Table) -> pa.Table:
        chosen = piece.filter(piece["selected"])
        if manifest.kept_labels is None:
            return chosen
        own = np.searchsorted(manifest.kept_labels, chosen["label"].to_numpy())
        return chosen.set_column(0, "label", pa.array(own, _WHOLE))

    try:
        evaluation = count_samples(read("evaluation", COUNTED))
        training = count_samples(read("importance", COUNTED))
        proxy = count_samples(map(select, read("importance", [*COUNTED, "selected"])))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"must hold the tables that docs/format.md describes: {first_line(error)}; fetch or build it again",
            place=folder,
        ) from None
    return manifest, Summary(evaluation, training, proxy, {})


def read_tables(folder: Path, *, with_ranking: bool = False) -> Tables:
    """Reads a proxy's tables; see `read_proxy`."""
    return read_proxy(folder, with_ranking=with_ranking)[1]


def read_weights(importance: pa.Table) -> NDArray[np.float64]:
    """What the samples of the table `importance` were drawn by, (N,) float64."""
    weights: NDArray[np.float64] = importance[WEIGHT if WEIGHT in importance.column_names else "importance"].to_numpy()
    return weights


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, of which a few are held in memory at a time."""
    for batch in table.to_batches(max_chunksize=100):
        yield from batch.to_pylist()


def _read_table(folder: Path, manifest: Manifest, config: str, n_rows: int | None) -> pa.Table:
    """Reads one table, the columns that are known.

    Args:
        folder: The proxy.
        manifest: Its manifest.
        config: A key of `CONFIGS`.
        n_rows: That it must have; None for a table of runs.
    """
    columns = dict(_COLUMNS[config])
    if config in ("default", "importance") and manifest.draw.method != BY_IMPORTANCE:
        columns[WEIGHT] = _REAL
    if config == "default" and manifest.kept_labels is not None:
        columns["source_label"] = _WHOLE
    parts = []
    shards = list_shards(manifest, config)
    growth = MAX_IMAGE_GROWTH if config == "default" else MAX_GROWTH
    n_left_bytes = FREE_BYTES + growth * sum(manifest.files[name].bytes for name in shards)
    names = manifest.proxy_label_names if config == "default" else manifest.label_names
    n_left = n_rows if n_rows is not None else MAX_RANKING_ROWS
    for name in shards:
        try:
            part = _read_shard(folder / name, columns, n_left, n_left_bytes, config != "ranking", len(manifest.probes))
            if config != "ranking":
                _check_features(folder / name, names, has_images=config == "default")
        except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError, OverflowError, RecursionError) as error:
            raise ArtifactError(
                f"must be a parquet file as docs/format.md has it: {first_line(error)}; fetch or build it again",
                place=folder / name,
            ) from None
        n_left -= part.num_rows
        n_left_bytes -= part.nbytes
        parts.append(part)
    table = pa.concat_tables(parts)
    if n_rows is not None and (table.num_rows != n_rows or not n_rows):
        raise ArtifactError(
            f"the tables must be those that {MANIFEST} describes, it has {table.num_rows:,} rows instead of "
            f"{n_rows:,}; fetch or build it again",
            place=folder / CONFIGS[config][1],
        )
    return table


def _read_shard(
    path: Path, columns: dict[str, pa.DataType], n_most: int, n_most_bytes: int, has_ids: bool, n_probes: int
) -> pa.Table:
    """Reads one parquet file, if it has no more than `n_most` rows and takes no more than `n_most_bytes`.

    Raises:
        ValueError: It is, or lacks columns, or holds other types.
        pyarrow.ArrowException: It is damaged.
    """
    n_bytes = path.stat().st_size
    with pq.ParquetFile(path) as held:
        about, names = held.metadata, held.schema_arrow.names
    if "n_labels" not in names:  # format 1.1
        columns = {name: kind for name, kind in columns.items() if name != "n_labels"}
    for name in columns:
        if names.count(name) != 1:
            raise ValueError(f"it must have the column {name} once, it has it {names.count(name)} times")
    if about.num_rows > n_most:
        raise ValueError(f"it has {about.num_rows:,} rows, more than the {n_most:,} that {MANIFEST} leaves for it")
    if has_ids and about.num_rows * BYTES_OF_A_ROW > n_bytes:
        raise ValueError(f"it says {about.num_rows:,} rows in {n_bytes:,} bytes: a decompression bomb")
    _check_declared(about, n_bytes, n_most_bytes, n_probes)
    # as dictionaries: a value that is repeated a million times stays one value until its size is known
    repeated = [name if kind == _TEXT else f"{name}.bytes" for name, kind in columns.items() if kind in (_TEXT, _IMAGE)]
    with pq.ParquetFile(path, read_dictionary=repeated) as held:
        batches, n_grown = [], 0
        for batch in held.iter_batches(batch_size=256 if "image" in columns else 4096, columns=list(columns)):
            n_grown += _dense_bytes(batch)
            if n_grown > n_most_bytes:
                raise ValueError(f"it grows to {n_grown:,} bytes and more out of {n_bytes:,}: a decompression bomb")
            batches.append(
                pa.RecordBatch.from_arrays([_as_type(batch[name], columns[name]) for name in columns], list(columns))
            )
    schema = pa.schema(list(columns.items()))
    table = pa.Table.from_batches(batches, schema)
    table.validate(full=True)  # text that is not UTF-8, lists that reach beyond their values
    for name in set(columns) - _MAY_BE_NULL if has_ids else ():
        if table[name].null_count:
            raise ValueError(f"the column {name} must have a value in every row")
    if not has_ids and "n_labels" not in columns:
        table = table.append_column("n_labels", pa.nulls(table.num_rows, _WHOLE)).select(runs.COLUMNS.names)
    return table


def _check_features(path: Path, label_names: Sequence[str], *, has_images: bool) -> None:
    """What readers of data sets take a table of samples for: labels with the manifest's names, and images.

    Raises:
        ValueError: It is something else.
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


def _check_declared(about: pq.FileMetaData, n_bytes: int, n_most_bytes: int, n_probes: int) -> None:
    """Compares what a parquet file says of its own size with its bytes."""
    for group in range(about.num_row_groups):
        row_group = about.row_group(group)
        for column in range(about.num_columns):
            chunk = row_group.column(column)
            if chunk.total_uncompressed_size > n_most_bytes:
                raise ValueError(
                    f"{chunk.path_in_schema} says {chunk.total_uncompressed_size:,} bytes in a file of {n_bytes:,}: a decompression bomb"
                )
            if chunk.num_values > max(n_probes, 1) * max(about.num_rows, 1):
                raise ValueError(f"{chunk.path_in_schema} says {chunk.num_values:,} values in {about.num_rows:,} rows")


def _dense_bytes(batch: pa.RecordBatch) -> int:
    """Bytes that a batch takes when its dictionaries are written out."""
    total = 0
    for column in batch.columns:
        leaf = pc.struct_field(column, [0]) if pa.types.is_struct(column.type) else column
        if pa.types.is_dictionary(leaf.type):
            lengths = pc.binary_length(leaf.dictionary).fill_null(0)
            taken = lengths.take(leaf.indices.drop_null())
            total += pc.sum(taken).as_py() or 0
        else:
            total += leaf.nbytes
    return total


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as the format has it; whole numbers may be narrower."""
    if pa.types.is_struct(kind):
        if not pa.types.is_struct(column.type) or [f.name for f in column.type] != [f.name for f in kind]:
            raise ValueError("the column image must hold bytes and path")
        fields = [_as_type(pc.struct_field(column, [i]), kind.field(i).type) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(kind))
    found = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_alike = any(
        check(found) and check(kind)
        for check in (
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_boolean,
            pa.types.is_list,
            lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
            lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
        )
    )
    if not is_alike and not pa.types.is_null(found):
        raise ValueError(f"a column must hold {kind}, it holds {found}")
    return column.cast(kind)


def _check_values(folder: Path, manifest: Manifest, importance: pa.Table, evaluation: pa.Table) -> None:
    """Makes sure that both tables of all samples can be what they say.

    Raises:
        ArtifactError: They cannot; names the column.
    """
    n_labels, n_probes = len(manifest.label_names), len(manifest.probes)
    evaluation_ids = evaluation["sample_id"]
    _refuse(folder, _common_checks("importance", importance, n_labels))
    _refuse(folder, _common_checks("evaluation", evaluation, n_labels))
    selected = importance["selected"].to_numpy()
    n_answers = [pc.list_value_length(evaluation[name]).to_numpy() for name in ("predicted", "correct")]
    answers, said = (evaluation[name].combine_chunks().flatten() for name in ("predicted", "correct"))
    checks: list[tuple[str, str, bool]] = [
        ("importance", WEIGHT, _are_weights(read_weights(importance), selected)),
        ("importance", "keep_probability", _are_shares(importance, METHODS.get(manifest.draw.method))),
        ("importance", "inclusion_probability", _are_probabilities(importance["inclusion_probability"])),
        ("importance", "nearest_distance", _are_amounts(_numbers(importance, "nearest_distance"))),
        ("importance", "nearest_evaluation_id", bool(pc.all(pc.is_in(importance["nearest_evaluation_id"], evaluation_ids)).as_py())),
        ("importance", "selected", int(selected.sum()) == manifest.counts.proxy),
        ("evaluation", "predicted", not answers.null_count and bool((n_answers[0] == n_probes).all()) and _are_labels(answers, n_labels)),
        ("evaluation", "correct", not said.null_count and bool((n_answers[1] == n_probes).all())),
    ]  # fmt: skip
    _refuse(folder, checks)
    right = answers.to_numpy().reshape(-1, n_probes) == evaluation["label"].to_numpy()[:, None]
    was_right = said.to_numpy(zero_copy_only=False).reshape(-1, n_probes)
    _refuse(folder, [("evaluation", "correct", bool((right == was_right).all()))])


def _check_data(folder: Path, manifest: Manifest, data: pa.Table, importance: pa.Table) -> None:
    """Makes sure that `data` holds the very samples that `importance` selects.

    Raises:
        ArtifactError: It does not; names the column.
    """
    encoded, paths = (pc.struct_field(data["image"], [i]) for i in range(2))
    has_images = encoded.null_count == 0 and paths.null_count == data.num_rows
    _refuse(folder, [*_common_checks("data", data, len(manifest.proxy_label_names)), ("data", "image", has_images)])
    expected = _select_data(manifest, importance)
    differs = [name for name in expected.column_names if not _are_equal(data[name], expected[name])]
    if differs:
        raise ArtifactError(
            f"the table importance must select the very samples of data, they differ in {', '.join(differs)}; fetch or "
            "build it again",
            place=folder,
        )


def _select_data(manifest: Manifest, importance: pa.Table) -> pa.Table:
    """The table `data` without images, as the table `importance` has it."""
    selected = importance.filter(importance["selected"])
    drawn_by = [WEIGHT] if WEIGHT in selected.column_names else []
    columns = {name: selected[name] for name in (*_OF_ALL, *_OF_DRAWN, *drawn_by)}
    if manifest.kept_labels is not None:
        columns["source_label"] = columns["label"]
        columns["label"] = pa.chunked_array([np.searchsorted(manifest.kept_labels, columns["label"].to_numpy())])
    return pa.table(columns)


def _are_equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    return bool(one.combine_chunks().equals(other.combine_chunks().cast(one.type)))


def _common_checks(table: str, held: pa.Table, n_labels: int) -> list[tuple[str, str, bool]]:
    """What every table of samples must be: each check with its table and column."""
    ids = held["sample_id"].to_pylist()
    cases = held["case"].to_numpy()
    return [
        (table, "label", _are_labels(held["label"], n_labels)),
        (table, "sample_id", bool(pc.all(pc.match_substring_regex(held["sample_id"], _SAMPLE_ID)).as_py()) and _are_in_order(ids)),
        (table, "encoded_sha256", bool(pc.all(pc.match_substring_regex(held["encoded_sha256"], "^[0-9a-f]{64}$")).as_py())),
        (table, "case", bool(np.isin(cases, list(CASE_MEANINGS)).all())),
        (table, "importance", _are_amounts(_numbers(held, "importance"), MAX_IMPORTANCE)),
    ]  # fmt: skip


def _refuse(folder: Path, checks: Sequence[tuple[str, str, bool]]) -> None:
    for table, column, is_sound in checks:
        if not is_sound:
            raise ArtifactError(
                f"the column {column} of {table} must be as docs/format.md and {MANIFEST} have it, it holds other values; fetch "
                "or build it again",
                place=folder,
            )


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = table[name].to_numpy()
    return numbers


def _are_labels(labels: pa.ChunkedArray | pa.Array, n: int) -> bool:
    """Whether all of a column are whole numbers in [0, n)."""
    numbers = labels.to_numpy()
    return not len(numbers) or bool(0 <= numbers.min() <= numbers.max() < n)


def _are_amounts(values: NDArray[np.float64], most: float = np.finfo(np.float64).max) -> bool:
    return bool(((values >= 0) & (values <= most)).all())


def _are_weights(weights: NDArray[np.float64], selected: NDArray[np.bool_]) -> bool:
    """Whether samples can have been drawn by these weights."""
    positive = weights[weights != 0]
    return _are_amounts(weights, MAX_IMPORTANCE) and bool(
        (positive >= MIN_WEIGHT).all() and (weights[selected] > 0).all()
    )


def _are_shares(importance: pa.Table, method: Method | None) -> bool:
    """Whether `keep_probability` is the weight over its sum; of a method with strata, which are not written, whether it can be one."""
    keep, values = _numbers(importance, "keep_probability"), read_weights(importance)
    if method is None or not method.is_weighting:
        return _are_amounts(keep, 1.0) and bool(np.isclose(keep.sum(), 1.0)) and not keep[values == 0].any()
    total = values.sum()
    return _are_amounts(keep, 1.0) and bool(np.allclose(keep * total, values, atol=1e-9 * total))


def _are_probabilities(column: pa.ChunkedArray) -> bool:
    values = column.drop_null().to_numpy()
    return len(values) in (0, len(column)) and bool(((values >= 0) & (values <= 1)).all())


def _are_in_order(ids: Sequence[str]) -> bool:
    """Whether ids stand in the order of their hashes, repeats in that of their numbers, each once."""
    keys = [(each[:64], int(each[65:] or 1)) for each in ids]
    return all(one < other for one, other in itertools.pairwise(keys))


def _check_ranking(folder: Path, evidence: EvidenceRecord, ratio: float, table: pa.Table) -> None:
    """Makes sure that a table of runs, maybe a stranger's, can be what its evidence says.

    Raises:
        ArtifactError: It cannot.
    """
    rows = table.to_pylist()
    needed = (
        "architecture",
        "dataset",
        "ratio",
        "training_seed",
        "training_flops",
        "n_parameters",
        "accuracy",
        "origin",
    )
    identity = ("architecture", "dataset", "ratio", "draw_seed", "training_seed")
    is_sound = (
        all(row[name] is not None for row in rows for name in needed)
        and all(row["dataset"] in runs.DATASETS and 0 < row["ratio"] <= 1 and 0 <= row["accuracy"] <= 1 for row in rows)
        and len({tuple(row[name] for name in identity) for row in rows}) == len(rows)
    )
    if is_sound:
        measured = runs.collect_accuracies(table)
        is_sound = (
            evidence.own_ratio == ratio
            and {(runs.FULL, 1.0), (runs.PROXY, ratio)} <= set(measured.accuracies)
            and len(measured.names) == evidence.n_architectures
            and evidence.of(runs.PROXY, ratio) is not None
        )
    if not is_sound:
        raise ArtifactError(
            f"must hold the runs that the evidence in {MANIFEST} speaks of; fetch or check it again",
            place=folder / "ranking",
        )
