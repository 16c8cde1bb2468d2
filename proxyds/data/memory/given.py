"""What a program passes as `source=`: its splits, each in one of the forms of `forms.py`, or what to pass instead."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from proxyds.data.memory.forms import Held, hold_arrays, hold_pairs, hold_table
from proxyds.data.memory.values import is_tensor
from proxyds.errors import LabelError, SourceError
from proxyds.recipe.sections.source import Columns
from proxyds.text import describe_type, make_plain

CAN_BE = (
    "(images, labels), a datasets.Dataset, a torch data set of (image, label), or a mapping of split names to these"
)
"""Data in memory."""
DEFAULT_NAME = "data in memory"


@dataclass(frozen=True)
class InMemory:
    """Data that a program passes, of a form that is known.

    Attributes:
        name: What they are called; None where nothing tells.
        splits: As they were passed, by the name of the split; that of the only one is None where data were passed without.
        held: The splits that were opened, so that nothing is asked for twice.
    """

    name: str | None
    splits: dict[str | None, Any]
    held: dict[tuple[str | None, ...], Held] = field(default_factory=dict, repr=False, compare=False)

    def hold(self, split: str | None, spec: Columns) -> Held:
        """Opens a split.

        Args:
            split: Its name, one of `splits`.
            spec: The recipe's section, which may name columns.

        Raises:
            SourceError: It does not hold what it must; see `forms.py`.
        """
        place = split or spec.train_split
        key = (split, place, spec.image_column, spec.label_column)
        if key not in self.held:
            self.held[key] = self._open(self.splits[split], spec, place)
        return self.held[key]

    def _open(self, data: Any, spec: Columns, place: str) -> Held:
        if _is_table(data):
            return hold_table(data, spec, place)
        return hold_arrays(data[0], data[1], place) if isinstance(data, tuple) else hold_pairs(data, place)


def take_data(source: Any) -> InMemory:
    """Takes what a program passes, and refuses what is no data, or not so that it can be read more than once.

    Raises:
        SourceError: It is something else; says what to pass.
    """
    if not isinstance(source, Mapping):
        _check_form(source, "source")
        return InMemory(_find_name(source), {None: source})
    if not source:
        raise SourceError(f"source: must be {CAN_BE}, found an empty mapping")
    for name, split in source.items():
        if not isinstance(name, str):
            raise SourceError(f"source: names of splits must be texts such as `train`, found {make_plain(repr(name))}")
        _check_form(split, f"source[{name!r}]")
    names = {_find_name(split) for split in source.values()}
    return InMemory(names.pop() if len(names) == 1 else None, dict(source))


def join_label_names(held: Mapping[str, Held]) -> tuple[str, ...] | None:
    """Returns the names of labels that all splits have.

    Raises:
        LabelError: Splits have other names, or one has texts where another has numbers of names.
    """
    named = {split: each.label_names for split, each in held.items() if each.label_names is not None}
    if not named:
        return None
    (first, names), *others = named.items()
    for split, other in others:
        if other != names:
            raise LabelError(
                f"source: splits must have the same labels in the same order, {split} has others than {first}; give both the same names"
            )
    for split, each in held.items():
        if each.has_texts:
            raise LabelError(
                f"source: labels of {split} must be numbers of the names that {first} has, they are texts; number them in that order"
            )
    return names


def _check_form(data: Any, place: str) -> None:
    """Refuses what is no split of a form that can be read, by what it is."""
    found = f"{place}: must be {CAN_BE}, found {describe_type(data)}"
    kinds = {kind.__name__ for kind in type(data).__mro__}
    package = type(data).__module__.partition(".")[0]
    if "DataLoader" in kinds:
        raise SourceError(f"{found}, which gives batches; pass its data set, loader.dataset")
    if package == "pandas" or package == "polars":
        raise SourceError(f"{found}; pass (images, labels), for example (list(frame['image']), frame['label'])")
    if "IterableDataset" in kinds or isinstance(data, Iterator):
        raise SourceError(
            f"{found}, which can be read but once and in its own order; pass a list of it, or name its files in a recipe"
        )
    if isinstance(data, np.ndarray | Image.Image) or is_tensor(data):
        raise SourceError(f"{found} alone; labels must come with images: pass (images, labels)")
    if isinstance(data, tuple):
        if len(data) != 2:
            raise SourceError(f"{found} of {len(data)}; pass (images, labels)")
        if all(isinstance(each, tuple) and len(each) == 2 for each in data):
            raise SourceError(
                f"{found} of two pairs; name the splits: {{'train': (images, labels), 'test': (images, labels)}}"
            )
        return
    if isinstance(data, str | bytes | Mapping | set | frozenset) or not hasattr(data, "__getitem__"):
        raise SourceError(found)
    if not hasattr(data, "__len__"):
        raise SourceError(f"{found}, which has no length; give it a method __len__")


def _is_table(data: Any) -> bool:
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(data, datasets.Dataset)


def _find_name(data: Any) -> str | None:
    """Finds what data are called, as a reader would look for them."""
    while type(data).__name__ == "Subset":
        data = data.dataset
    if _is_table(data):
        return data.info.dataset_name or None
    kind = type(data)
    return f"torchvision {kind.__name__}" if kind.__module__.startswith("torchvision.datasets.") else None
