"""What a survey finds: the files that are used, by split and label, and those that are not, by reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from proxyds.text import make_plain

MOST_NAMED = 3
"""Paths that a message names, at most, of those that it counts."""

Label = str | int | None
"""A label as the source has it; None where it has none."""
LABEL_BITS = 64
"""Bits of a label that is a whole number, its sign among them."""


class FoundFile(NamedTuple):
    """A file of the folder: its path from there, with `/`; its size in bytes; when it was last changed, in nanoseconds."""

    path: str
    n_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class SurveyedSplit:
    """The files of a split in the order in which they are read; for images the label of each beside them."""

    files: tuple[FoundFile, ...]
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What lies in a folder, and what of it is used.

    Attributes:
        folder: The folder.
        form: `images`; `parquet`; `tars`; or `configs`: what the folder's README.md tells `datasets` to read.
        splits: By name. Of `configs` none: `datasets` finds them.
        rule: By what splits and labels are told, for people.
        label_names: Of images in label folders, sorted; None where labels come from elsewhere.
        left_out: By reason, the paths that are not used; a folder's ends with `/` and stands for all that is in it.
        notes: What else should be known.
    """

    folder: Path
    form: Literal["images", "parquet", "tars", "configs"]
    splits: dict[str, SurveyedSplit]
    rule: str
    label_names: tuple[str, ...] | None = None
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Counts the bytes of all files that are used."""
        return sum(file.n_bytes for split in self.splits.values() for file in split.files)

    @property
    def warnings(self) -> list[str]:
        """Says what is left out, and what else should be known."""
        left = (
            f"left out of {self.folder.name}: {why}: {len(paths):,} ({name_paths(paths)})"
            for why, paths in self.left_out.items()
        )
        return [make_plain(each) for each in (*left, *self.notes)]

    def describe(self) -> str:
        """Says what is used, and by which rule."""
        what = {"images": "images", "parquet": "parquet files", "tars": "tars", "configs": "files"}[self.form]
        counts = []
        for name, split in self.splits.items():
            n_labels = len(set(split.labels))
            counts.append(f"{name}: {what} {len(split.files):,}" + (f", labels {n_labels:,}" if n_labels else ""))
        return make_plain("; ".join([*counts, self.rule]))


def name_paths(paths: Sequence[str]) -> str:
    """Names some paths, the first `MOST_NAMED` of them."""
    return ", ".join(map(make_plain, paths[:MOST_NAMED])) + (", ..." if len(paths) > MOST_NAMED else "")


def identify(files: Iterable[FoundFile], *others: object) -> str:
    """Hashes names, sizes and times of files, and whatever else makes their content: what is equal holds the same."""
    return hashlib.sha256(repr(([tuple(file) for file in files], others)).encode()).hexdigest()
