"""Accuracies that were measured elsewhere: published tables, other people's runs, another proxy's reference."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel

from proxyds.artifact.ranking_table import (
    DATASETS,
    FEWER_EPOCHS,
    FULL,
    TRAINED_HERE,
    describe_architecture,
    make_runs_table,
    parameters_text,
)
from proxyds.artifact.reader import read_own_recipe
from proxyds.artifact.tables import read_proxy
from proxyds.data.samples import Source
from proxyds.errors import AccuracyTableError
from proxyds.recipe.models import MIN_RANKED, Check, Recipe, Reference
from proxyds.space.architecture import Architecture
from proxyds.text import make_plain, suggest_names

MAX_SEED_DIGITS = 9
MOST_LIKE_A_LOSS = 2
"""Numbers above 1 and up to this one are taken for losses: in percent, no network would have learned anything."""
MOST_LOSS = 4
"""Losses are doubted above so many times that of guessing."""

MOST_TOLD = 5
"""Rows of a table whose faults are told at once, at most."""

_Row = TypeVar("_Row")
_RUN_COLUMNS = ("architecture", "dataset", "accuracy")


def find_reference(reference: Reference) -> Path:
    """Finds the table or proxy that a recipe names: where it says, or at the end of that path in `PROXYDS_DATA`.

    Raises:
        AccuracyTableError: There is none.
    """
    path = Path(reference.path).expanduser()
    candidates = [path]
    if copies := os.environ.get("PROXYDS_DATA"):
        candidates += [Path(copies, *path.parts[-n_parts:]) for n_parts in (1, 2)]
    for candidate in candidates:
        with suppress(OSError):  # a name that is too long
            if candidate.exists():
                return candidate
    tried = " or ".join(map(str, candidates))
    raise AccuracyTableError(
        f"check.reference: must be a CSV file or a proxy's folder, found nothing at {tried}; say where it is"
    )


def keep_listed(architectures: Sequence[Architecture], reference: Reference) -> list[Architecture]:
    """Keeps the architectures that a table of full-data accuracies holds, in their order; all where the reference is a proxy.

    Raises:
        AccuracyTableError: The table cannot be found or read, or holds too few of them to speak of a ranking.
    """
    if (path := find_reference(reference)).is_dir():
        return list(architectures)
    columns = reference.architecture_column, reference.accuracy_column
    listed = {row[columns[0]].strip() for _, row in read_csv(path, columns)}
    kept = [each for each in architectures if each.name in listed]
    if len(kept) < MIN_RANKED:
        raise AccuracyTableError(
            f"{path}: must hold at least {MIN_RANKED} of the space's {len(architectures):,} architectures, such as "
            f"{architectures[0].name!r}, it holds {len(kept)} (of {len(listed):,} rows, such as {next(iter(listed))!r}); names must be "
            "those of `proxyds inspect RECIPE`"
        )
    return kept


def read_reference(
    recipe: Recipe, check: Check, data: Source, architectures: Sequence[Architecture]
) -> tuple[str, list[dict[str, Any]]]:
    """Reads full-data accuracies that were measured elsewhere, from a CSV file or another proxy.

    Args:
        recipe: The proxy's, with networks trained as in its check.
        check: Names where the accuracies are, unless it trains for them.
        data: The recipe's source.
        architectures: Those that must have one.

    Returns:
        The origin of the accuracies, and their rows of the table `ranking`.

    Raises:
        AccuracyTableError: There are none at that place, or they are of other architectures or another training.
    """
    if check.reference is None:
        return TRAINED_HERE, []
    reference, path = check.reference, find_reference(check.reference)
    if not path.is_dir():
        origin = f"table {make_plain(path.name)}"
        accuracies = read_accuracies(path, reference, architectures)
        of_all = {"dataset": FULL, "ratio": 1.0, "training_seed": 0, "n_samples": len(data.train), "origin": origin}
        rows = [{**describe_architecture(each), **of_all, "accuracy": accuracies[each.name]} for each in architectures]
        return origin, rows
    manifest, tables = read_proxy(path, images_of=())
    origin = f"proxy {manifest.name} {manifest.version}"
    other = read_own_recipe(path)
    checked = other.check or Check()
    in_full = checked.choose_full_training(checked.choose_training(other.training))
    for what, there, here in (
        ("source", manifest.source.fingerprint, data.facts.fingerprint),
        ("section source", *(each.source.model_dump(exclude={"path"}) for each in (other, recipe))),
        ("seed, which carves the splits", other.seed, recipe.seed),
        ("training on everything", in_full, check.choose_full_training(recipe.training)),
        ("protocol", other.importance.protocol, recipe.importance.protocol),
    ):
        if there != here:
            raise AccuracyTableError(
                f"check.reference: {origin} must have the same {what} as this proxy; {_tell_difference(there, here)}. Check that proxy with what "
                "stands here, or leave the reference out"
            )
    if tables.ranking is None:
        raise AccuracyTableError(f"check.reference: {origin} must have been checked; run `proxyds check` on it first")
    return origin, take_full_runs(tables.ranking, architectures, origin)


def _tell_difference(there: object, here: object) -> str:
    """Says how two settings differ; of sections of a recipe, in which keys."""
    one, other = (each.model_dump() if isinstance(each, BaseModel) else each for each in (there, here))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return f"it is {there} there, and {here} here"
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} is {one.get(name)} there, and {other.get(name)} here" for name in names)


def read_accuracies(path: Path, reference: Reference, architectures: Sequence[Architecture]) -> dict[str, float]:
    """Reads a table of full-data accuracies.

    Args:
        path: A CSV file with a header.
        reference: Names its columns.
        architectures: Those that must be in it.

    Returns:
        Accuracy in [0, 1] by the architecture's name.

    Raises:
        AccuracyTableError: The table cannot be read or has no such column, an accuracy is no number, an architecture stands
            in the table twice or is missing.
    """
    names, column = [each.name for each in architectures], reference.accuracy_column
    rows = read_csv(path, (reference.architecture_column, column))
    wanted, accuracies, places = set(names), dict[str, float](), dict[str, str]()
    for place, row in rows:
        name = row[reference.architecture_column].strip()
        if name in accuracies:
            raise AccuracyTableError(f"{place} architecture {name!r}: must stand in the table once, it is there twice")
        if name in wanted:
            accuracies[name], places[name] = _as_number(row[column], column, place), f"{place} {column}"
    if missing := [name for name in names if name not in accuracies]:
        example = next(iter(accuracies), rows[0][1][reference.architecture_column].strip())
        raise AccuracyTableError(
            f"{path}: must hold every architecture that is checked; it misses {len(missing)} of {len(architectures)}, such as "
            f"{missing[0]!r} (it holds {len(rows)}, such as {example!r}); names must be those of `proxyds check --dry-run`"
        )
    scale = find_scale([(accuracies[name], places[name]) for name in names], str(path))
    return {name: accuracies[name] / scale for name in names}


def take_full_runs(ranking: pa.Table, architectures: Sequence[Architecture], origin: str) -> list[dict[str, Any]]:
    """Takes another proxy's runs on everything.

    Args:
        ranking: Its table of runs.
        architectures: Those that must be in it, with the same parameters.
        origin: Its name.

    Raises:
        AccuracyTableError: It has no such runs of some architecture.
    """
    wanted = {(each.network, parameters_text(each)): describe_architecture(each) for each in architectures}
    rows = [
        {**row, **wanted[row["network"], row["parameters"]], "origin": origin}
        for row in ranking.to_pylist()
        if (row["dataset"], row["origin"]) == (FULL, "trained") and (row["network"], row["parameters"]) in wanted
    ]
    with_runs = {row["architecture"] for row in rows}
    missing = [each.name for each in architectures if each.name not in with_runs]
    if missing:
        raise AccuracyTableError(
            f"check.reference: {origin} must hold runs on everything of every architecture that is checked; it misses "
            f"{len(missing)} of {len(architectures)}, such as {missing[0]!r}; check that proxy with them, or choose fewer here"
        )
    return rows


def read_runs(
    path: Path, architectures: Sequence[Architecture], own_ratio: float, warn: Callable[[str], None] = lambda _: None
) -> pa.Table:
    """Reads runs that were made elsewhere, with any trainer.

    Args:
        path: A CSV file with the columns `architecture`, `dataset`, `accuracy`, and where they differ from 0, 0 and the
            proxy's own: `draw_seed`, `training_seed`, `ratio`. `loss` may be there, too: the mean cross-entropy with the true
            labels of the same samples, in nats.
        architectures: Those of the search space.
        own_ratio: The proxy's.
        warn: Called where accuracies are taken as percent.

    Returns:
        A table `ranking`; what is not known is null.

    Raises:
        AccuracyTableError: The table cannot be read, a row names what is not there or stands twice, or only some rows have a loss.
    """
    by_name = {each.name: describe_architecture(each) for each in architectures}
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    identities: dict[tuple[object, ...], str] = {}

    def read(place: str, row: Mapping[str, str]) -> None:
        run = _read_run(place, row, own_ratio)
        name, draw_seed = run.pop("architecture"), run["draw_seed"]
        if name not in by_name:
            near = suggest_names(name, by_name)
            raise AccuracyTableError(
                f"{place} architecture: must be one of the search space's {len(by_name):,}, got {name!r}; {near}"
            )
        identity = (name, *(run[column] for column in ("dataset", "ratio", "draw_seed", "training_seed")))
        if identity in identities:
            told_by = "column training_seed tells" if draw_seed is None else "columns draw_seed and training_seed tell"
            raise AccuracyTableError(
                f"{place}: each run must stand in the table once, this one stands at {identities[identity]} too; the {told_by} repeats apart"
            )
        identities[identity] = place
        places.append(f"{place} accuracy")
        rows.append({**by_name[name], **run, "origin": f"table {path.name}"})

    read_each(read_csv(path, _RUN_COLUMNS), read)
    accuracies = [row["accuracy"] for row in rows]
    scale = find_scale(list(zip(accuracies, places, strict=True)), str(path))
    if scale != 1:
        warn(
            f"{path.name}: accuracies are taken as percent and divided by 100, found {min(accuracies):g} to {max(accuracies):g}, all of them 0 or at "
            "least 1"
        )
    _check_losses(rows, places)
    return make_runs_table([{**row, "accuracy": row["accuracy"] / scale} for row in rows])


def doubt_losses(runs: pa.Table, n_labels: int, *, has_soft_labels: bool) -> str | None:
    """Says where losses of `read_runs` do not count, are missed, or seem to be of another unit than nats.

    Args:
        runs: Those of a proxy.
        n_labels: Labels of the proxy.
        has_soft_labels: Whether the proxy has soft labels, after which losses rank.
    """
    losses, chance = runs["loss"].drop_null().to_pylist(), math.log(max(2, n_labels))
    if not has_soft_labels:
        why = "the column loss does not count: the proxy has no soft labels, and after learning hard labels the loss may rank the wrong way round"
        return why if losses else None
    if not losses:
        return "the verdict goes by accuracy: the runs give no loss, by which networks that learned the proxy's soft labels rank"
    if (middle := median(losses)) > MOST_LOSS * chance:
        return f"losses are {middle:.3g} at the median, and guessing has {chance:.3g}. Are they the mean cross-entropy in nats?"
    return None


def _check_losses(rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> None:
    """Refuses runs of which some have a loss, and others lack one; those on everything need none."""
    lacking = [place for row, place in zip(rows, places, strict=True) if row["loss"] is None and row["dataset"] != FULL]
    if lacking and any(row["loss"] is not None for row in rows):
        raise AccuracyTableError(
            f"{lacking[0].removesuffix(' accuracy')} loss: must be given, as in other rows; {len(lacking)} rows lack it. Give it for every "
            "run but those on everything, or leave the column out"
        )


def _read_run(place: str, row: Mapping[str, str], own_ratio: float) -> dict[str, Any]:
    """Reads a row of `read_runs`; what no sample was drawn for has no `draw_seed`."""
    dataset = row["dataset"].strip()
    if dataset not in DATASETS:
        raise AccuracyTableError(f"{place} dataset: must be one of {', '.join(DATASETS)}, got {dataset!r}")
    draw_seed = _as_count(row.get("draw_seed") or "0", place)
    ratio = 1.0 if dataset == FULL else _as_number(row.get("ratio") or str(own_ratio), "ratio", place)
    if not 0 < ratio <= 1:
        raise AccuracyTableError(f"{place} ratio: must be in (0, 1], got {ratio:g}; for five percent write 0.05")
    return {
        "architecture": row["architecture"].strip(),
        "dataset": dataset,
        "ratio": ratio,
        "draw_seed": None if dataset in (FULL, FEWER_EPOCHS) else draw_seed,
        "training_seed": _as_count(row.get("training_seed") or str(draw_seed), place),
        "accuracy": _as_number(row["accuracy"], "accuracy", place),
        "loss": _read_loss(row, place),
    }


def _read_loss(row: Mapping[str, str], place: str) -> float | None:
    written = (row.get("loss") or "").strip()
    loss = _as_number(written, "loss", place) if written else None
    if loss is not None and loss < 0:
        raise AccuracyTableError(
            f"{place} loss: must be a cross-entropy from 0, got {loss:g}; leave the column out where losses are not known"
        )
    return loss


def read_each(rows: Iterable[tuple[str, _Row]], read: Callable[[str, _Row], object]) -> None:
    """Reads every row of a table.

    Args:
        rows: Each with its place.
        read: Called with the place and the row; raises `AccuracyTableError` where something is wrong.

    Raises:
        AccuracyTableError: Rows are wrong. The message names the first `MOST_TOLD` of them.
    """
    faults: list[str] = []
    for place, row in rows:
        if len(faults) == MOST_TOLD:  # finding the name that was meant takes a while
            faults.append(f"{place} and what follows were not looked at")
            break
        try:
            read(place, row)
        except AccuracyTableError as error:
            faults.append(str(error))
    if faults:
        raise AccuracyTableError("\n".join(faults))


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Reads the rows of a CSV file, at least one, each with its place: file and line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = list(reader.fieldnames or ())
            if missing := [name for name in columns if name not in names]:
                raise AccuracyTableError(
                    f"{path}: must be a CSV file with the columns {', '.join(columns)}; "
                    + _explain_header(missing, names)
                )
            if len(set(names)) < len(names):
                raise AccuracyTableError(f"{path}: each column must stand in the header once, it is {', '.join(names)}")
            rows = [(f"{path}:{reader.line_num}", row) for row in reader]
    except FileNotFoundError:
        raise AccuracyTableError(
            f"{path}: must be a CSV file with the columns {', '.join(columns)}, there is no such file; see where it lies"
        ) from None
    except IsADirectoryError:
        raise AccuracyTableError(f"{path}: must be a CSV file, it is a folder; name the file in it") from None
    except OSError as error:
        raise AccuracyTableError(f"{path}: must be a CSV file that can be read, it cannot: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise AccuracyTableError(f"{path}: must be a CSV file that can be read: {error}") from None
    for place, row in rows:
        if any(row[name] is None for name in columns):
            raise AccuracyTableError(f"{place} must have a value in each of the columns {', '.join(columns)}")
        surplus = row.pop(None, [])
        if any(cell.strip() for cell in surplus):
            raise AccuracyTableError(
                f"{place} must have {len(names)} values, it has {len(names) + len(surplus)}; write decimal points, and quote text that holds commas"
            )
    if not rows:
        raise AccuracyTableError(f"{path}: must hold rows, it has none")
    return rows


def _explain_header(missing: Sequence[str], names: Sequence[str]) -> str:
    """Says why columns are missing among those of a header: nothing is there, or other separators or names are."""
    if not names:
        return "it is empty"
    if len(names) == 1 and (other := next((each for each in ";\t|" if each in names[0]), None)):
        called = {";": "semicolons", "\t": "tabs"}.get(other, repr(other))
        return f"its first line has no commas but {called}: separate columns with commas, and write decimal points"
    return f"it lacks {', '.join(missing)}; {suggest_names(missing[0], names)}"


def _as_number(text: str, column: str, place: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise AccuracyTableError(f"{place} {column}: must be a finite number, got {text!r}; {explain_no_number(text)}")
    return number


def explain_no_number(value: object) -> str:
    """Says how to write an accuracy that has a percent sign or a decimal comma, and what to do where there is none."""
    if isinstance(value, str) and any(each in value for each in ",%"):
        with suppress(ValueError):
            number = float(value.strip().removesuffix("%").replace(",", "."))
            return f"write {number:g} or {number / 100:g}" if "%" in value else f"write {number:g}"
    return "leave out the row of a training that failed"


def _as_count(text: str, place: str) -> int:
    digits = text.strip().removesuffix(".0")  # as pandas writes whole numbers of a column with gaps
    if not digits.isdecimal() or len(digits) > MAX_SEED_DIGITS:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise AccuracyTableError(
            f"{place} a seed must be a whole number from 0, of {MAX_SEED_DIGITS} digits at most, got {shown!r}"
        )
    return int(digits)


def find_scale(numbers: Sequence[tuple[float, str]], place: str) -> float:
    """Finds whether accuracies are shares (1) or in percent (100).

    Args:
        numbers: Each with its place.
        place: Of all of them, for messages.

    Raises:
        AccuracyTableError: There are none, some lie outside [0, 100], both kinds occur, or they look like losses.
    """
    if not numbers:
        raise AccuracyTableError(f"{place}: must hold accuracies on the proxy, it has none")
    (least, at_least), (most, at_most) = min(numbers), max(numbers)
    if least < 0 or most > 100:
        odd, at = (least, at_least) if least < 0 else (most, at_most)
        raise AccuracyTableError(f"{at}: accuracies must be in [0, 1], or in percent, got {odd:g}")
    if most > 1 and (shares := [each for each in numbers if 0 < each[0] < 1]):
        raise AccuracyTableError(
            f"{place}: accuracies must all be in [0, 1], or all in percent, found both: {most:g} at {at_most}, and {shares[0][0]:g} at {shares[0][1]}"
        )
    if 1 < most <= MOST_LIKE_A_LOSS:
        raise AccuracyTableError(
            f"{at_most}: accuracies must be in [0, 1], or in percent; none is above {most:g}. Are they a loss? Give accuracies. If they are "
            f"percent, write {most / 100:.4g} for {most:g}"
        )
    return 100 if most > 1 else 1
