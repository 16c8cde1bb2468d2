"""The study's rows: one for each training and test, appended after each draw, so that a study that was stopped goes on."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from proxyds.recipe.models import Recipe
from proxyds.space.architecture import Architecture
from tests.studies import parts
from tests.studies.parts import Part, Study, count_draws, take_half

OTHER_MEASURES = ("loss", "train_loss", "train_loss_sum")
"""What else might rank architectures: cross-entropy on the test samples, that of training in the last epoch, and its sum over epochs."""
COLUMNS = (
    *("architecture", "dataset", "ratio", "draw_seed", "training_seed", "n_steps"),
    *("accuracy", *OTHER_MEASURES),
    *("seconds", "day", "processor", "torch"),
)
"""The first five and the accuracy are what `proxyds check --runs` reads; the last four are what a run took, and when and where its row was written."""


class Key(NamedTuple):
    """What a run is of."""

    architecture: str
    dataset: str
    ratio: float
    number: int
    """Of the draw and of the training."""


def key_of(row: dict[str, Any]) -> Key:
    """A row's key."""
    return Key(row["architecture"], row["dataset"], float(row["ratio"]), int(row["training_seed"]))


def read_whole_lines(path: Path) -> list[dict[str, str]]:
    """Reads the rows that are whole, as text; a last line that a kill cut off is taken away from the file."""
    if not path.exists():
        return []
    text = path.read_text()
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        os.truncate(path, len(text.encode()))
    return [dict(row) for row in csv.DictReader(text.splitlines())]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of `read_whole_lines`, with numbers."""
    rows: list[dict[str, Any]] = [*read_whole_lines(path)]
    for row in rows:
        numbers = ("ratio", "accuracy", *OTHER_MEASURES, "seconds")
        row |= {name: float(row[name]) if row[name] else None for name in numbers}
    return rows


def list_rows(study: Study) -> list[dict[str, Any]]:
    """The rows of a study and of those beside it."""
    return [row for name in (*study.beside, study.name) for row in read_rows(parts.RESULTS / name / "rows.csv")]


def list_missing(
    study: Study, part: Part, recipe: Recipe, architectures: Sequence[Architecture], run_already: set[Key]
) -> list[Key]:
    """The runs of a part that there are no rows of."""
    return [
        key
        for each in take_half(architectures, study.half)
        for number in range(count_draws(part, recipe))
        if (key := Key(each.name, part.dataset, part.ratio, number)) not in run_already
    ]


def append_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Appends rows, and the header before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)
