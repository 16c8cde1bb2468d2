"""Results of candidates that were trained on a proxy: tables, data frames and mappings, read and compared with what they must be."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from proxyds.artifact.ranking_table import DATASETS, FULL, PROXY
from proxyds.artifact.reader import without_repeats
from proxyds.errors import AccuracyTableError
from proxyds.evaluation.external import explain_no_number, find_scale, read_csv, read_each
from proxyds.text import find_active_text, short_json, suggest_names

COLUMNS = (
    "architecture",
    "accuracy",
    "draw_seed",
    "training_seed",
    "n_parameters",
    "forward_flops",
    "full_accuracy",
    "loss",
)
"""What is read of results; the first two must be there."""


@dataclass(frozen=True)
class Run:
    """One training on the proxy.

    Attributes:
        draw: Number of the draw; the proxy's own is 0.
        seed: Number of the training.
        accuracy: In [0, 1].
        loss: Mean cross-entropy with the labels of the same samples, in nats; None where unknown.
    """

    draw: int
    seed: int
    accuracy: float
    loss: float | None = None


@dataclass(frozen=True)
class Candidate:
    """An architecture to choose or not.

    Attributes:
        name: As the results have it.
        runs: Its trainings on the proxy; none where only its accuracy on everything is given.
        n_parameters: Weights; None where unknown.
        forward_flops: Of one image; None where unknown.
        full_accuracy: On everything, in [0, 1], the mean of what is given; None where unknown.
        n_full: Trainings that this is the mean of. The same accuracy in several rows counts as one.
    """

    name: str
    runs: tuple[Run, ...]
    n_parameters: int | None = None
    forward_flops: int | None = None
    full_accuracy: float | None = None
    n_full: int = 0

    @property
    def mean(self) -> float:
        """Mean accuracy on the proxy, in [0, 1]."""
        return sum(run.accuracy for run in self.runs) / len(self.runs)

    @property
    def mean_loss(self) -> float | None:
        """Mean loss on the proxy, in nats; None unless every training has one."""
        losses = [run.loss for run in self.runs if run.loss is not None]
        return sum(losses) / len(losses) if losses and len(losses) == len(self.runs) else None


@dataclass(frozen=True)
class Results:
    """Candidates, and what of their table was not used.

    Attributes:
        candidates: In the order of the table.
        unused: Names of columns that are not read.
        is_ranking: Whether it is the table of a check, whose accuracies are on test samples.
    """

    candidates: tuple[Candidate, ...]
    unused: tuple[str, ...]
    is_ranking: bool


def read_results(given: Any, own_ratio: float) -> Results:
    """Reads candidates' accuracies.

    Args:
        given: The path of a CSV, JSON or parquet file; a data frame; a mapping from names to accuracies, or to mappings of columns;
            or rows as mappings. Of a table `ranking`, with the column `dataset`, the rows of the proxy and of everything are taken.
        own_ratio: The proxy's; of a table `ranking` other ratios are left aside.

    Raises:
        AccuracyTableError: It cannot be read, lacks a column, holds an accuracy that is none, names a run twice, mixes percent and
            shares, or holds nothing to rank: one candidate, one without an accuracy on the proxy, or the same accuracy for all.
    """
    place, rows = _list_rows(given)
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    if missing := [name for name in COLUMNS[:2] if name not in columns]:
        others = [name for name in columns if name not in COLUMNS]
        near = f"; {suggest_names(missing[0], others)}" if others else ""
        raise AccuracyTableError(
            f"{place}: must have the columns architecture and accuracy; it lacks {', '.join(missing)}{near}"
        )
    is_ranking = "dataset" in columns
    unused = tuple(
        name for name in columns if name not in COLUMNS and not (is_ranking and name in ("dataset", "ratio"))
    )
    if is_ranking:
        rows = [(at, _as_row_of_results(row)) for at, row in rows if _is_of_proxy(at, row, own_ratio)]
        if not any("accuracy" in row for _, row in rows):
            raise AccuracyTableError(
                f"{place}: must hold rows of the data set `proxy` at the ratio {own_ratio:g}, it has none"
            )
    read = _CandidateReader()
    read_each(rows, read.add)
    scale = find_scale(read.numbers, place)
    candidates = tuple(read.list_candidates(scale, one_each=not is_ranking))
    _check_rankable(candidates, place)
    return Results(candidates, unused, is_ranking=is_ranking)


def _check_rankable(candidates: Sequence[Candidate], place: str) -> None:
    """Refuses candidates that no ranking can tell apart."""
    if len(candidates) < 2:
        raise AccuracyTableError(
            f"{place}: must hold two candidates at least to choose from, it holds {len(candidates)}"
        )
    if without := [each.name for each in candidates if not each.runs]:
        raise AccuracyTableError(
            f"{place}: every candidate must have an accuracy on the proxy; {len(without)} of {len(candidates)} have none, such as {without[0]!r}"
        )
    accuracies = {each.mean for each in candidates}
    if len(accuracies) == 1:
        raise AccuracyTableError(
            f"{place}: accuracies on the proxy must differ to be ranked; all {len(candidates)} candidates have {accuracies.pop():.4g}. Look "
            "whether the column is the right one. If it is, train them longer"
        )


def _list_rows(given: Any) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """Lists rows as mappings, each with its place for messages."""
    if isinstance(given, str | Path):
        return _read_file(Path(given))
    if isinstance(given, pa.Table):
        given = given.to_pylist()
    elif hasattr(given, "to_dicts"):  # a data frame of polars
        given = given.to_dicts()
    elif hasattr(given, "to_dict") and hasattr(given, "columns"):  # of pandas
        given = given.to_dict("records")
    elif isinstance(given, Mapping):
        given = _name_rows(given)
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        raise AccuracyTableError(
            f"results: must be a file, a data frame, a mapping or rows, got {type(given).__name__}"
        )
    return "results", _check_rows("results", list(given))


def _read_file(path: Path) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    place = str(path)
    _check_file(path)
    if path.suffix.lower() == ".csv":
        return place, [
            (at, {name: cell for name, cell in row.items() if name}) for at, row in read_csv(path, COLUMNS[:2])
        ]
    try:
        if path.suffix.lower() == ".json":
            held = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=without_repeats)
            if isinstance(held, dict):
                held = _name_rows(held)
            if not isinstance(held, list):
                raise AccuracyTableError(
                    f"{place}: must hold a list of rows or an object by name, found {short_json(held)}"
                )
            return place, _check_rows(place, held)
        if path.suffix.lower() == ".parquet":
            return place, _check_rows(place, pq.read_table(path).to_pylist())
    except (OSError, ValueError, pa.ArrowException, RecursionError) as error:
        what = getattr(error, "strerror", None) or error
        raise AccuracyTableError(
            f"{place}: must be a {path.suffix[1:].upper()} file that can be read: {what}"
        ) from None
    raise AccuracyTableError(
        f"{place}: must be a .csv, .json or .parquet file of results, its name ends in {path.suffix or 'nothing'}"
    )


def _check_file(path: Path) -> None:
    """Refuses what is no file, or holds nothing."""
    if os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir it takes a name of any length
        raise AccuracyTableError(f"{path}: must be a file of results, it is a folder; name the file in it")
    if not os.path.exists(path):  # noqa: PTH110 - as above
        raise AccuracyTableError(f"{path}: no such file; it must be a .csv, .json or .parquet file of results")
    if not path.stat().st_size:
        raise AccuracyTableError(f"{path}: is empty; it must hold a row for each training of a candidate")


def _name_rows(by_name: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Turns a mapping from names to accuracies, or to columns, into rows."""
    return [
        {"architecture": str(name), **(value if isinstance(value, Mapping) else {"accuracy": value})}
        for name, value in by_name.items()
    ]


def _check_rows(place: str, rows: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    if not rows:
        raise AccuracyTableError(f"{place}: must hold rows, it has none")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise AccuracyTableError(
                f"{place}, row {number}: must be an object with columns, found {type(row).__name__}"
            )
    return [
        (f"{place}, row {number}", {str(name): value for name, value in row.items()})
        for number, row in enumerate(rows, start=1)
    ]


def _is_of_proxy(place: str, row: Mapping[str, Any], own_ratio: float) -> bool:
    """Tells whether a row of the table `ranking` is of everything, or of the proxy at its own ratio; refuses what names neither this nor another data set."""
    dataset, ratio = str(row.get("dataset")).strip(), _as_number(row.get("ratio"))
    if dataset not in DATASETS:
        raise AccuracyTableError(
            f"{place} dataset: must be one of {', '.join(DATASETS)}, got {short_json(row.get('dataset'))}"
        )
    if ratio is not None and not 0 < ratio <= 1:
        raise AccuracyTableError(
            f"{place} ratio: must be in (0, 1], got {short_json(row['ratio'])}; for five percent write 0.05"
        )
    return dataset == FULL or (dataset == PROXY and (ratio is None or math.isclose(ratio, own_ratio)))


def _as_row_of_results(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turns a row of the table `ranking` into one of results: an accuracy on everything has a column of its own."""
    if str(row["dataset"]).strip() != FULL:
        return dict(row)
    return {
        **{name: value for name, value in row.items() if name != "accuracy"},
        "full_accuracy": row.get("accuracy"),
    }


class _CandidateReader:
    """What was read of candidates, row by row.

    Attributes:
        numbers: Every accuracy with its place.
    """

    def __init__(self) -> None:
        self.numbers: list[tuple[float, str]] = []
        self._costs: dict[str, dict[str, int]] = {}  # of every candidate, in the order of the rows
        self._runs: dict[str, list[Run]] = {}
        self._full: dict[str, dict[tuple[int, int], float]] = {}
        self._places: dict[tuple[str, int, int], str] = {}

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        """Reads a row, at its place.

        Raises:
            AccuracyTableError: Something in it is wrong, or is at odds with another row.
        """
        name = _read_name(row, place)
        of = self._costs.setdefault(name, {})
        for column in ("n_parameters", "forward_flops"):
            count = _read_count(row, column, place, least=1)
            if count is not None and of.setdefault(column, count) != count:
                raise AccuracyTableError(
                    f"{place} {column}: must be the same in all rows of {name!r}, got {of[column]} and {count}"
                )
        draw, given_seed = _read_count(row, "draw_seed", place) or 0, _read_count(row, "training_seed", place)
        seed = draw if given_seed is None else given_seed
        has_full = not _is_empty(row.get("full_accuracy"))
        if has_full:
            self._add_full(name, (draw, seed), row, place)
        if has_full and _is_empty(row.get("accuracy")):
            return
        accuracy = _read_accuracy(row, "accuracy", place)
        if (name, draw, seed) in self._places:
            raise AccuracyTableError(
                f"{place}: {name!r} must stand in the results once for each training, it stands at {self._places[name, draw, seed]} too; "
                + _explain_twice(row, given_seed)
            )
        self._places[name, draw, seed] = place
        self.numbers.append((accuracy, f"{place} accuracy"))
        self._runs.setdefault(name, []).append(Run(draw, seed, accuracy, _read_loss(row, place)))

    def _add_full(self, name: str, training: tuple[int, int], row: Mapping[str, Any], place: str) -> None:
        accuracy = _read_accuracy(row, "full_accuracy", place)
        self.numbers.append((accuracy, f"{place} full_accuracy"))
        before = self._full.setdefault(name, {}).setdefault(training, accuracy)
        if before != accuracy:
            raise AccuracyTableError(
                f"{place} full_accuracy: must be one number for each training of {name!r}, got {before:g} and {accuracy:g}; the column "
                "training_seed tells trainings apart"
            )

    def list_candidates(self, scale: float, *, one_each: bool) -> Iterator[Candidate]:
        """Lists the candidates.

        Args:
            scale: What accuracies are divided by.
            one_each: Whether one accuracy on everything in several rows of a candidate is one training's.
        """
        for name, costs in self._costs.items():
            full = [accuracy / scale for accuracy in self._full.get(name, {}).values()]
            if one_each and len(set(full)) == 1:
                full = full[:1]
            yield Candidate(
                name,
                tuple(replace(run, accuracy=run.accuracy / scale) for run in self._runs.get(name, ())),
                n_parameters=costs.get("n_parameters"),
                forward_flops=costs.get("forward_flops"),
                full_accuracy=sum(full) / len(full) if full else None,
                n_full=len(full),
            )


def _read_name(row: Mapping[str, Any], place: str) -> str:
    name = str(row.get("architecture") or "").strip()
    if not name or name == "nan":
        raise AccuracyTableError(f"{place} architecture: must be a name, it is empty")
    if (active := find_active_text(name)) is not None:
        raise AccuracyTableError(f"{place} architecture: must be plain text, it holds {active}")
    return name


def _explain_twice(row: Mapping[str, Any], training_seed: int | None) -> str:
    """Says how rows of one candidate are told apart, and why these are not."""
    if training_seed is not None:
        return f"both have the training_seed {training_seed}. Give each training its own"
    if like := [name for name in row if "seed" in name.lower() and name not in COLUMNS]:
        return f"the column {like[0]!r} is not read: call it training_seed"
    return "the columns draw_seed and training_seed tell trainings apart"


def _is_empty(value: Any) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))  # pandas' NA


def _as_number(value: Any) -> float | None:
    try:
        return None if _is_empty(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _read_accuracy(row: Mapping[str, Any], column: str, place: str) -> float:
    number, given = _as_number(row.get(column)), row.get(column)
    if number is None or not math.isfinite(number):
        raise AccuracyTableError(
            f"{place} {column}: must be a finite number, got {short_json(given)}; {explain_no_number(given)}"
        )
    return number


def _read_loss(row: Mapping[str, Any], place: str) -> float | None:
    number = _as_number(row.get("loss"))
    if number is not None and not 0 <= number < math.inf:
        raise AccuracyTableError(
            f"{place} loss: must be a finite number from 0, got {short_json(row['loss'])}; leave it empty where it is not known"
        )
    return number


def _read_count(row: Mapping[str, Any], column: str, place: str, least: int = 0) -> int | None:
    number = _as_number(row.get(column))
    if number is None:
        return None
    if not math.isfinite(number) or number != int(number) or not least <= number < 2**62:
        raise AccuracyTableError(
            f"{place} {column}: must be a whole number from {least}, got {short_json(row[column])}"
        )
    return int(number)
