"""A proxy's tables, read as those of a stranger: no larger than their bytes allow, of the right types, and all saying one thing.

`parquet.py` reads one file; here they become tables, whose values must be possible and agree with each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proxyds.arguments import as_path
from proxyds.artifact.evidence_records import EvidenceRecord
from proxyds.artifact.manifest import INDEXES, MANIFEST, TABLES, Manifest, count_rows, has_table
from proxyds.artifact.parquet import IMAGE, ExpectedShard, check_features, read_shard
from proxyds.artifact.ranking_table import COLUMNS, DATASETS, FULL, PROXY, collect_accuracies
from proxyds.artifact.reader import list_shards, read_manifest
from proxyds.artifact.summary import COUNTED, COUNTED_TOO, Summary, Tables, count_samples
from proxyds.errors import ArtifactError
from proxyds.recipe.methods import METHODS, Method
from proxyds.recipe.models import MAX_IMPORTANCE
from proxyds.selection.records import CASE_MEANINGS, PAIRS
from proxyds.text import first_line

MAX_RANKING_ROWS = 200_000
MAX_GROWTH, MAX_IMAGE_GROWTH, FREE_BYTES = 100, 20, 64_000_000
"""How many times the bytes of its files a table may take, or one with images; and how many bytes more any table may."""
SAMPLE_ID = r"^[0-9a-f]{64}(-[1-9][0-9]{0,9})?$"

_TEXT, _WHOLE, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_IDENTITY = {"label": _WHOLE, "sample_id": _TEXT, "source_index": _WHOLE, "encoded_sha256": _TEXT}
_SCORES = {"case": pa.int8(), "importance": _REAL}
WEIGHT = "weight"
"""The column of what samples were drawn by; not there where the method is `cases`, which draws by importance."""
SOFT_LABEL = "soft_label"
"""The column of a probability for every label, which networks learn in place of the label."""
SUMS_TO_ONE = 1e-3
"""How far the sum of these may be from 1."""
MIN_WEIGHT = 1e-250
"""The least weight of a sample that may be drawn: chances that follow from smaller ones would overflow."""
_OF_TRAINING = (WEIGHT, "keep_probability", "inclusion_probability", SOFT_LABEL)
"""Columns that tell how a sample was drawn, and what networks learn of it: null for those of `validation`."""
_MAY_BE_NULL = {"inclusion_probability", "image", "source_label"}
_KEY_OF_RUNS = ["architecture", "dataset", "ratio", "draw_seed", "training_seed"]
_NEVER_NULL_OF_RUNS = {*_KEY_OF_RUNS, "forward_flops", "training_flops", "n_parameters", "accuracy", "origin"} - {
    "draw_seed"
}
_SECONDS_OF_RUNS = ("training_seconds", "test_seconds")


@dataclass(frozen=True)
class Extras:
    """What not every proxy has, and columns tell.

    Attributes:
        has_weight: Whether samples were drawn by something else than their importance.
        keeps_labels: Whether the proxy keeps some labels only.
        has_soft_labels: Whether its samples have soft labels.
    """

    has_weight: bool = False
    keeps_labels: bool = False
    has_soft_labels: bool = False


def find_extras(manifest: Manifest) -> Extras:
    """Finds what a proxy has that not every proxy has."""
    return Extras(manifest.has_weight, manifest.kept_labels is not None, manifest.has_soft_labels)


def list_columns(table: str, extras: Extras) -> dict[str, pa.DataType]:
    """Lists what a table must hold, in the order in which it is written; other columns are of a later version and not read.

    Args:
        table: A key of `TABLES`.
        extras: What the proxy has that not every proxy has.
    """
    weight = {WEIGHT: _REAL} if extras.has_weight else {}
    draw = {**weight, "keep_probability": _REAL, "inclusion_probability": _REAL}
    source_label = {"source_label": _WHOLE} if extras.keeps_labels else {}
    soft_label = {SOFT_LABEL: pa.list_(pa.float32())} if extras.has_soft_labels else {}
    nearest = {"nearest_evaluation_id": _TEXT, "nearest_distance": _REAL}
    answers = {"predicted": pa.list_(_WHOLE), "correct": pa.list_(_FLAG), **dict.fromkeys(PAIRS, _WHOLE)}
    own = {"image": IMAGE, **_IDENTITY, **source_label, **soft_label, **_SCORES, **draw}
    return {
        **dict.fromkeys(INDEXES, own),
        "importance": {**_IDENTITY, **nearest, **_SCORES, **draw, "selected": _FLAG},
        "evaluation": {**_IDENTITY, **answers, **_SCORES},
        "ranking": dict(zip(COLUMNS.names, COLUMNS.types, strict=True)),
    }[table]


def _broken(place: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{why}; fetch or build it again", place=place)


def list_own_columns(manifest: Manifest, table: str) -> dict[str, pa.DataType]:
    """Lists what a table of a proxy must hold; see `list_columns`."""
    return list_columns(table, find_extras(manifest))


def read_proxy(
    folder: Path, *, with_ranking: bool = True, images_of: Collection[str] = tuple(INDEXES)
) -> tuple[Manifest, Tables]:
    """Reads a proxy's manifest and tables, which must say one thing.

    Args:
        folder: The proxy.
        with_ranking: Whether to read the runs behind its evidence, if it was checked.
        images_of: The tables that are read with their images, keys of `INDEXES`. Files of the others need not be there: `data` is
            then taken from the table `importance`, and `validation` left out. A proxy that was made from an index has no table
            `importance`: its images are read.

    Raises:
        ArtifactError: It is no proxy, or manifest and tables contradict each other.
    """
    manifest = read_manifest(folder)
    validation = None
    if "validation" in images_of and has_table(manifest, "validation"):
        validation = _read_table(folder, manifest, "validation")
        _check_images(folder, manifest, "validation", validation)
    if manifest.index_of is not None:
        data = _read_table(folder, manifest, "data")
        _check_images(folder, manifest, "data", data)
        _check_alone(folder, data)
        return manifest, with_no_others(data, validation)
    importance = _read_table(folder, manifest, "importance")
    evaluation = _read_table(folder, manifest, "evaluation")
    _check_values(folder, manifest, importance, evaluation)
    chosen = _number_as_own(folder, manifest, "importance", importance.filter(importance["selected"]))
    data = chosen
    if "data" in images_of:
        data = _read_table(folder, manifest, "data")
        _check_images(folder, manifest, "data", data)
        _compare_rows(folder, data, chosen, "the table importance must select the very samples of data")
    if validation is not None:
        _check_validation(folder, manifest, validation, evaluation)
    ranking = None
    if with_ranking and manifest.evidence is not None:
        ranking = _read_table(folder, manifest, "ranking")
        _check_ranking(folder, manifest.evidence, manifest.draw.ratio, ranking)
    return manifest, Tables(data, importance, evaluation, validation, ranking)


def read_summary(folder: Path) -> tuple[Manifest, Summary]:
    """Counts the samples of a proxy of one's own, without reading images and runs; a few rows are in memory at a time.

    Raises:
        ArtifactError: It is no proxy.
    """
    manifest = read_manifest(folder)

    def read(table: str) -> Iterator[pa.Table]:
        for name in list_shards(manifest, table):
            with pq.ParquetFile(folder / name) as shard:
                names = [name for name in (*COUNTED, COUNTED_TOO) if name in shard.schema_arrow.names]
                yield from (pa.Table.from_batches([batch]) for batch in shard.iter_batches(columns=names))

    try:
        evaluation, training, proxy = (count_samples(read(table)) for table in ("evaluation", "importance", "data"))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _broken(folder, f"must hold the tables that docs/format.md describes: {first_line(error)}") from None
    return manifest, Summary(evaluation, training, proxy, {})


def read_tables(folder: str | Path, *, with_ranking: bool = False) -> Tables:
    """Reads a proxy's tables; see `read_proxy`."""
    return read_proxy(as_path(folder, "folder"), with_ranking=with_ranking)[1]


def read_soft_labels(folder: Path, manifest: Manifest) -> NDArray[np.float32]:
    """Reads the soft labels of a proxy that has some, (n, L) float32 in the order of its samples; without the images.

    Raises:
        ArtifactError: The table `data` does not hold them.
    """
    n, n_left, n_labels = manifest.counts.proxy, manifest.counts.proxy, len(manifest.proxy_label_names)
    n_bytes, pieces = FREE_BYTES + 4 * n * n_labels, []
    for shard in list_shards(manifest, "data"):
        expected = ExpectedShard({SOFT_LABEL: pa.list_(pa.float32())}, {SOFT_LABEL}, n_left, n_bytes, n_labels)
        try:
            piece = read_shard(folder / shard, expected)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _broken(folder / shard, f"must hold soft labels: {first_line(error)}") from None
        n_left -= piece.num_rows
        pieces.append(piece[SOFT_LABEL])
    column = pa.chunked_array([chunk for each in pieces for chunk in each.chunks])
    _refuse(folder, [("data", SOFT_LABEL, len(column) == n and _are_distributions(column, n_labels))])
    probabilities: NDArray[np.float32] = column.combine_chunks().flatten().to_numpy().reshape(n, n_labels)
    return probabilities


def with_no_others(data: pa.Table, validation: pa.Table | None = None) -> Tables:
    """Makes the tables of a proxy that was made from an index: those of all samples have no rows."""
    columns = [list_columns(table, Extras()) for table in ("importance", "evaluation")]
    importance, evaluation = (pa.schema(list(each.items())).empty_table() for each in columns)
    return Tables(data, importance, evaluation, validation)


def read_weights(importance: pa.Table) -> NDArray[np.float64]:
    """Reads what the samples of the table `importance`, or `data`, were drawn by, (N,) float64."""
    weights: NDArray[np.float64] = importance[WEIGHT if WEIGHT in importance.column_names else "importance"].to_numpy()
    return weights


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yields the rows of a table; a few are in memory at a time."""
    for batch in table.to_batches(max_chunksize=100):
        yield from batch.to_pylist()


def _read_table(folder: Path, manifest: Manifest, name: str) -> pa.Table:
    """Reads the columns of one table that the format names, and checks that it has as many rows as the manifest says."""
    columns, shards = list_own_columns(manifest, name), list_shards(manifest, name)
    has_images, has_samples = name in INDEXES, name != "ranking"
    may_be_null = _MAY_BE_NULL.union(_OF_TRAINING) if name == "validation" else _MAY_BE_NULL
    never_null = set(columns) - may_be_null if has_samples else set()
    label_names = manifest.proxy_label_names if has_images else manifest.label_names
    n_rows = count_rows(manifest, name) if has_samples else MAX_RANKING_ROWS
    n_left = n_rows
    growth = MAX_IMAGE_GROWTH if has_images else MAX_GROWTH
    n_left_bytes = FREE_BYTES + growth * sum(manifest.files[shard].bytes for shard in shards)
    parts = []
    for shard in shards:
        try:
            n_listed = max(len(manifest.probes), len(label_names) if SOFT_LABEL in columns else 0)
            expected = ExpectedShard(columns, never_null, n_left, n_left_bytes, n_listed)
            part = read_shard(folder / shard, expected)
            if has_samples:
                check_features(folder / shard, label_names, has_images=has_images)
        except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError, OverflowError, RecursionError) as error:
            why = f"must be a parquet file as docs/format.md has it: {first_line(error)}"
            raise _broken(folder / shard, why) from None
        n_left -= part.num_rows
        n_left_bytes -= part.nbytes
        parts.append(part)
    table = pa.concat_tables(parts)
    if has_samples and (n_left or not table.num_rows):
        raise _broken(
            folder / TABLES[name].folder,
            f"the tables must be those that {MANIFEST} describes, {name} has {table.num_rows:,} rows instead of {n_rows:,}",
        )
    return table


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


def _check_images(folder: Path, manifest: Manifest, name: str, table: pa.Table) -> None:
    """Makes sure that a table is one of samples with images, and of `validation` that none says it was drawn by weight or is learnt."""
    encoded, paths = (pc.struct_field(table["image"], [i]) for i in range(2))
    has_images = encoded.null_count == 0 and paths.null_count == table.num_rows
    checks = [*_common_checks(name, table, len(manifest.proxy_label_names)), (name, "image", has_images)]
    if name == "validation":
        nulls = (column for column in _OF_TRAINING if column in table.column_names)
        checks += [(name, column, table[column].null_count == table.num_rows) for column in nulls]
    elif SOFT_LABEL in table.column_names:
        checks.append((name, SOFT_LABEL, _are_distributions(table[SOFT_LABEL], len(manifest.proxy_label_names))))
    _refuse(folder, checks)
    if manifest.kept_labels is not None:
        of_kept = np.array(manifest.kept_labels)[table["label"].to_numpy()]
        _refuse(folder, [(name, "source_label", np.array_equal(table["source_label"].to_pylist(), of_kept))])


def _check_alone(folder: Path, data: pa.Table) -> None:
    """Makes sure that `data` can be what it says where no other table is there to compare it with."""
    every = np.ones(data.num_rows, np.bool_)
    checks = [
        ("data", WEIGHT, _are_weights(read_weights(data), every)),
        ("data", "keep_probability", _are_amounts(data["keep_probability"].to_numpy(), 1.0)),
        ("data", "inclusion_probability", _are_probabilities(data["inclusion_probability"])),
    ]
    _refuse(folder, checks)


def _check_validation(folder: Path, manifest: Manifest, validation: pa.Table, evaluation: pa.Table) -> None:
    """Makes sure that `validation` holds samples of `evaluation`, as they stand there."""
    places = pc.index_in(validation["sample_id"], evaluation["sample_id"])
    must = "the table validation must hold samples of evaluation"
    if places.null_count:
        raise _broken(folder, f"{must} and no others, it holds {places.null_count:,} others")
    expected = _number_as_own(folder, manifest, "validation", evaluation.take(places))
    _compare_rows(folder, validation, expected, f"{must} as they stand there")


def _compare_rows(folder: Path, table: pa.Table, expected: pa.Table, must: str) -> None:
    """Makes sure that a table holds the very rows that another one expects."""
    names = expected.column_names
    if differ := ", ".join(name for name in names if not table[name].equals(expected[name].cast(table[name].type))):
        raise _broken(folder, f"{must}, they differ in {differ}")


def _number_as_own(folder: Path, manifest: Manifest, name: str, rows: pa.Table) -> pa.Table:
    """Makes of rows of `importance` or `evaluation` those of a table with images, without these: labels are numbered as in the proxy."""
    columns = {column: rows[column] for column in list_own_columns(manifest, "data") if column in rows.column_names}
    if manifest.kept_labels is not None:
        labels = columns["label"].to_numpy()
        _refuse(folder, [(name, "label", bool(np.isin(labels, manifest.kept_labels).all()))])
        columns["source_label"] = columns["label"]
        columns["label"] = pa.chunked_array([np.searchsorted(manifest.kept_labels, labels)])
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


def _are_distributions(column: pa.ChunkedArray, n: int) -> bool:
    """Tells whether every value of a column is a probability for each of n labels."""
    lengths, values = pc.list_value_length(column).to_numpy(), column.combine_chunks().flatten()
    if values.null_count or (lengths != n).any():
        return False
    probabilities = values.to_numpy().reshape(-1, n)
    sums = probabilities.sum(axis=1, dtype=np.float64)
    return bool((probabilities >= 0).all() and (np.abs(sums - 1) <= SUMS_TO_ONE).all())


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


def _is_cost(value: float | None, *, is_known: bool = False) -> bool:
    """Tells whether a run can have taken so much; null where it need not be known."""
    return not is_known if value is None else 0 <= value < math.inf


def _check_ranking(folder: Path, evidence: EvidenceRecord, ratio: float, table: pa.Table) -> None:
    """Makes sure that a table of runs can be what its evidence says."""
    rows = table.to_pylist()
    is_sound = (
        not any(table[name].null_count for name in _NEVER_NULL_OF_RUNS)
        and all(row["dataset"] in DATASETS and 0 < row["ratio"] <= 1 and 0 <= row["accuracy"] <= 1 for row in rows)
        and all(0 <= (row["evaluation_accuracy"] or 0) <= 1 for row in rows)
        and all(min(row["forward_flops"], row["training_flops"], row["n_parameters"]) >= 0 for row in rows)
        and all(_is_cost(row[name], is_known=row["origin"] == "trained") for row in rows for name in _SECONDS_OF_RUNS)
        and all(
            _is_cost(row["run_flops"]) and all(map(_is_cost, (row["loss"], row["evaluation_loss"]))) for row in rows
        )
        and all(_is_cost(row["n_epochs"], is_known=row["run_flops"] is not None) for row in rows)
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
