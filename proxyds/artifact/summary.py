"""What a card shows of a proxy's samples: counts, and a few images. Small, however many samples there are."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proxyds.selection.records import CASE_MEANINGS

COUNTED = ["label", "case", "importance"]
COUNTED_TOO = "weight"
"""A column that is counted where it is there."""
_GROUPS = pa.schema([("label", pa.int64()), ("case", pa.int8()), ("importance", pa.float64()), ("n", pa.int64())])
N_SHOWN = 12
"""Images of each case, at most."""


@dataclass(frozen=True)
class SampleCounts:
    """How many samples have a label, a case and an importance together.

    Attributes:
        groups: Columns `label`, `case`, `importance` and `n`, a row for each that are there, in order.
        powers: By the power of ten that a sample's weight reaches at most, how many; None is a weight of 0. Empty where samples have no weight
            besides their importance.
    """

    groups: pa.Table
    powers: Mapping[int | None, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """The number of samples in all."""
        return sum(self.groups["n"].to_pylist())

    def count(self, column: str) -> dict[Any, int]:
        """Counts the samples of each value that a column has, the values in order."""
        counts = self.groups.group_by(column, use_threads=False).aggregate([("n", "sum")]).sort_by(column)
        return dict(zip(counts[column].to_pylist(), counts["n_sum"].to_pylist(), strict=True))

    def add(self, piece: pa.Table) -> SampleCounts:
        """Counts the samples of another piece besides."""
        ones = pa.array(np.ones(piece.num_rows, np.int64))
        both = pa.concat_tables([self.groups, piece.select(COUNTED).append_column("n", ones).cast(_GROUPS)])
        grouped = both.group_by(COUNTED, use_threads=False).aggregate([("n", "sum")])
        groups = grouped.rename_columns([*COUNTED, "n"]).sort_by([(name, "ascending") for name in COUNTED])
        return SampleCounts(groups, Counter(self.powers) + _count_powers(piece))


def _count_powers(piece: pa.Table) -> Counter[int | None]:
    """Counts the powers of ten of a piece's weights, if it has any."""
    if COUNTED_TOO not in piece.column_names:
        return Counter()
    weights = piece[COUNTED_TOO].to_numpy()
    positive = weights[weights > 0]
    powers, counts = np.unique(np.ceil(np.log10(positive)).astype(np.int64), return_counts=True)
    n_never = len(weights) - len(positive)
    return Counter({**dict(zip(powers.tolist(), counts.tolist(), strict=True)), **({None: n_never} if n_never else {})})


@dataclass(frozen=True)
class Summary:
    """What a card shows of a proxy's tables.

    Attributes:
        evaluation: Counts of the evaluation samples.
        training: Counts of the samples that could be drawn.
        proxy: Counts of the samples that were drawn, labels numbered as in the proxy.
        images: For each case the encoded images of the proxy's first samples, at most `N_SHOWN`.
        ranking: Every run behind the evidence; None where the ranking was not checked.
    """

    evaluation: SampleCounts
    training: SampleCounts
    proxy: SampleCounts
    images: dict[int, list[bytes]]
    ranking: pa.Table | None = None


def count_samples(pieces: Iterable[pa.Table]) -> SampleCounts:
    """Counts the samples of a table that comes in pieces, which must have the columns `label`, `case` and `importance`."""
    return functools.reduce(SampleCounts.add, pieces, SampleCounts(_GROUPS.empty_table()))


def collect_images(images: dict[int, list[bytes]], piece: pa.Table) -> None:
    """Adds the first images of each case to those of earlier pieces of a proxy's table `data`, until there are `N_SHOWN`."""
    for case in CASE_MEANINGS:
        n_wanted = N_SHOWN - len(images.setdefault(case, []))
        rows = np.flatnonzero(piece["case"].to_numpy() == case)[:n_wanted]
        if len(rows):
            images[case] += pc.struct_field(piece["image"].take(pa.array(rows)), [0]).to_pylist()


def summarize_tables(tables: Tables) -> Summary:
    """Summarizes tables that are in memory."""
    images: dict[int, list[bytes]] = {}
    if "image" in tables.data.column_names:
        collect_images(images, tables.data)
    evaluation, training, proxy = (
        count_samples([each]) for each in (tables.evaluation, tables.importance, tables.data)
    )
    return Summary(evaluation, training, proxy, images, tables.ranking)


@dataclass(frozen=True)
class Tables:
    """A proxy's tables, as Arrow; `docs/format.md` names their columns. Made from an index, those of all samples have no rows.

    Attributes:
        data: The proxy, a row for each sample.
        importance: Every sample that could have been drawn.
        evaluation: Every evaluation sample with the probes' outcomes.
        validation: The evaluation samples that the proxy holds with their images; None where it holds none, or they were not read.
        ranking: Every run behind the evidence; None where the ranking was not checked.
    """

    data: pa.Table
    importance: pa.Table
    evaluation: pa.Table
    validation: pa.Table | None = None
    ranking: pa.Table | None = None
