"""A named data set at a pinned revision becomes samples with stable ids, split for the work ahead.

`readers.py` finds encoded images and labels, in parts; `decoding.py` turns a part into pixels and ids; `splits.py` merges the parts and carves what
is missing among training, evaluation and test samples. All of it is stored, and read into memory at the end where a source is not streamed.
Encoded bytes are never changed: they pass through to the proxy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, pairwise
from typing import Any

import loky
import numpy as np
from numpy.typing import NDArray

from proxyds.data.decoding import (
    CONVERSION_VERSION,
    Decoded,
    decoding_task,
    gathering_task,
    is_missing,
    list_pixels,
    read_decoded,
)
from proxyds.data.images import ID_RULE
from proxyds.data.memory.given import InMemory
from proxyds.data.memory.parts import HeldPart
from proxyds.data.parts import Part, show_image
from proxyds.data.readers import STREAMED_SHARE, RawSource, open_splits
from proxyds.data.samples import (
    CARVED,
    Origin,
    ReadEncoded,
    Samples,
    Source,
    SourceFacts,
    StreamedSamples,
    tell_repeats,
)
from proxyds.data.splits import Carving, DecodedPart, DecodedSplit, Splits, read_splits, splitting_task
from proxyds.data.survey.records import name_paths
from proxyds.errors import BadImageError, ChangedSourceError, LabelError, SourceError
from proxyds.recipe.models import Recipe
from proxyds.recipe.sections.source import Images
from proxyds.runtime.machine import measure_memory
from proxyds.runtime.storage.store import Entry, StoredFile
from proxyds.runtime.task import RunTasks
from proxyds.text import find_active_text, with_prefix

COPIES = 2
"""Copies of a data set's pixels in every worker that trains: as they are, and padded."""
MOST_DAMAGED = 20
"""Images whose damage one message tells."""
MOST_LEFT_OUT = 3_000_000
"""Characters that the places of images take which do not decode and are left out: a manifest names each, and may not grow without limit."""


@dataclass(frozen=True)
class _Split:
    """A split whose parts are decoded: the source's name of it, its parts, and of each what decoding left in the store."""

    name: str
    parts: Sequence[Part]
    entries: Sequence[Entry]
    decoded: Sequence[Decoded]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Index in the split of each part's first image; last the number of all."""
        starts: NDArray[np.int64] = np.cumsum([0, *(each.n_rows for each in self.decoded)])
        return starts

    def count_labels(self) -> Counter[Any]:
        """Counts the images that have each label, as the source has it."""
        return sum((Counter(dict(zip(each.values, each.counts, strict=True))) for each in self.decoded), Counter())

    @property
    def enlarged(self) -> tuple[int, int]:
        """Images with a side shorter than networks see, and the shortest side of all in pixels."""
        sides = [each.smallest_side for each in self.decoded if each.smallest_side]
        return sum(each.n_enlarged for each in self.decoded), min(sides, default=0)

    def list_bad_images(self) -> list[str]:
        """Says where each image that was left out stood."""
        parts = zip(self.decoded, self.starts, strict=False)
        return [
            show_image(f"{self.name}[{start + i}]", file) for each, start in parts for i, file, _ in each.bad_images
        ]


def load_source(
    recipe: Recipe,
    run: RunTasks,
    streamed: bool | None = None,
    id_rule: int = ID_RULE,
    data: InMemory | None = None,
) -> Source:
    """Reads a recipe's source and splits it.

    Args:
        recipe: Its source, seed and protocol.
        run: Decodes the parts that the store does not hold.
        streamed: Whether samples and pixels stay on disk; None to decide from their size.
        id_rule: By which rule ids are made, and so how the source is split: that of the proxy whose source it is.
        data: For a source in memory, what was passed.

    Raises:
        SourceNotFoundError: There is no such data set.
        SplitNotFoundError: It has no such split.
        LabelError: It has no labels, or fewer than two.
        BadImageError: An image cannot be decoded and `on_bad_image` is `fail`, or `MOST_LEFT_OUT` is not enough.
        SourceError: Images differ in size and the recipe names none, or no samples are left for one of the three uses.
    """
    spec, protocol, memory = recipe.source, recipe.importance.protocol, measure_memory()
    raw = open_splits(spec, streamed, memory, data)
    _check_names((*(raw.label_names or ()), *(split.name for split in raw.splits.values()), raw.name))
    used = [role for role in raw.splits if role != "validation" or protocol != "paper"]
    splits = _decode(raw, used, spec, run, id_rule)
    _check_images(splits.values(), MOST_LEFT_OUT if spec.on_bad_image == "skip" else 0)
    label_names = raw.label_names or tuple(
        str(value) for value in sorted(value for value in splits["train"].count_labels() if not is_missing(value, None))
    )
    test_note = ""
    if (
        not raw.is_test_asked
        and "test" in splits
        and all(is_missing(value, raw.label_names) for value in splits["test"].count_labels())
    ):  # many data sets on the Hub hide them
        test_note = f"the source's split `{splits.pop('test').name}` has no labels; "
    for role, split in splits.items():
        _check_labels(split, label_names, raw.label_names, role)
    _check_names(label_names)
    image_shape = _find_shape(splits.values())
    roles = {role: _join_parts(split, label_names, raw.label_names, spec) for role, split in splits.items()}
    carving = Carving(
        None if "test" in splits else spec.test_fraction,
        None if protocol == "paper" or "validation" in splits else spec.validation_fraction,
        recipe.seed,
    )
    keys = [entry.key for split in splits.values() for entry in split.entries]
    (done,) = run([splitting_task(roles, keys, carving, label_names)])
    result = read_splits(done.entry)
    _check_left(result, protocol)
    n_pixel_bytes = COPIES * len(roles["train"]) * math.prod(image_shape) * loky.cpu_count()
    is_streamed = raw.is_streamed or n_pixel_bytes > STREAMED_SHARE * memory if streamed is None else streamed

    def open_samples(counts: Mapping[str, int], role: str, fingerprint: str = "") -> StreamedSamples:
        files = tuple(done.entry.file(f"{name}.npz") for name in counts)
        return StreamedSamples(files, tuple(counts.values()), roles.get(role, roles["train"]).origin, fingerprint)

    def load_held_out(name: str, n: int, role: str) -> Samples:
        return replace(open_samples({name: n}, role).load(), stay_on_disk=is_streamed)

    shards = {f"train-{shard:05d}": n for shard, n in enumerate(result.counts)}
    train = open_samples(shards, "train", result.fingerprint)
    evaluation_from = "the test samples (the paper's protocol)"
    if protocol != "paper":
        evaluation_from = _tell_origin(splits.get("validation"), "training samples", spec.validation_fraction)
    test = load_held_out("test", result.n_test, "test")
    by_name = {split.name: split for split in splits.values()}

    def open_encoded(split: str, source_index: NDArray[np.int64]) -> ReadEncoded:
        return _open_encoded(by_name[split], source_index, run)

    return Source(
        label_names=label_names,
        image_shape=image_shape,
        train=train if is_streamed else replace(train.load(), stay_on_disk=False),
        evaluation=test if protocol == "paper" else load_held_out("evaluation", result.n_evaluation, "validation"),
        test=test,
        facts=SourceFacts(
            name=raw.name,
            revision=raw.revision,
            kind=spec.kind,
            is_local_copy=raw.is_local_copy,
            fingerprint=result.content,
            n_samples={split.name: len(roles[role]) for role, split in splits.items()},
            n_duplicates={split.name: result.n_duplicates[role] for role, split in splits.items()},
            n_shared=result.repeats.n_shared,
            bad_images=tuple(place for split in splits.values() for place in split.list_bad_images()),
            evaluation_from=evaluation_from,
            test_from=test_note + _tell_origin(splits.get("test"), "training split", spec.test_fraction),
            layout=raw.survey.describe() if raw.survey else "",
            left_out={why: len(paths) for why, paths in raw.survey.left_out.items()} if raw.survey else {},
            n_conflicting=result.repeats.n_conflicting,
            id_rule=id_rule,
        ),
        warnings=_list_warnings(raw, splits.values(), spec, result),
        reading=_describe_reading(raw, n_pixel_bytes, memory, is_streamed),
        open_encoded=open_encoded,
    )


def check_same(data: Source, fingerprint: str, train_ids: Sequence[str], evaluation_ids: Sequence[str]) -> None:
    """Makes sure that a source is the one that a proxy was made from, in whatever order; re-encoded without loss, unless grey became colour.

    Args:
        data: The source.
        fingerprint: That the proxy recorded.
        train_ids: Of all samples that could be drawn then.
        evaluation_ids: Of the samples that importance was measured on.

    Raises:
        ChangedSourceError: It is not; says how many samples are gone, new or in another split.
    """
    then = (set(train_ids), set(evaluation_ids))
    now = (set(data.train.load().ids.tolist()), set(data.evaluation.ids.tolist()))
    if then == now and data.facts.fingerprint == fingerprint:
        return
    all_then, all_now = then[0] | then[1], now[0] | now[1]
    everywhere = all_now | set(data.test.ids.tolist())
    n_gone, n_new = len(all_then - everywhere), len(all_now - all_then)
    n_moved = len((all_then & everywhere) - (then[0] & now[0]) - (then[1] & now[1]))
    change = "its test samples or its labels' names are others"
    if n_gone or n_new or n_moved:
        change = f"of {len(all_then):,} samples {n_gone:,} are gone and {n_moved:,} stand in another split, {n_new:,} are new"
    raise ChangedSourceError(
        f"source: must be the one that the proxy was made from, {data.facts.name} is not: {change}; find the data that was used "
        "and pass it, source=FOLDER (--source FOLDER), or build again"
    )


def _decode(raw: RawSource, roles: Sequence[str], spec: Images, run: RunTasks, id_rule: int) -> dict[str, _Split]:
    """Decodes the parts of some splits, all at once."""
    tasks = [
        decoding_task(part, spec, split.name, raw.label_names, number, len(split.parts), id_rule)
        for split in map(raw.splits.__getitem__, roles)
        for number, part in enumerate(split.parts)
    ]
    all_entries = (done.entry for done in run(tasks))
    splits = {}
    for role in roles:
        split = raw.splits[role]
        entries = list(islice(all_entries, len(split.parts)))
        splits[role] = _Split(split.name, split.parts, entries, [read_decoded(entry) for entry in entries])
    return splits


def _check_images(splits: Collection[_Split], n_allowed: int) -> None:
    """Makes sure that every image was decoded, but for those whose places take so many characters; says what is wrong with them."""
    damages = [damage for split in splits for each in split.decoded for *_, damage in each.bad_images]
    places = [place for split in splits for place in split.list_bad_images()]
    if sum(map(len, places)) <= n_allowed:
        return
    told = [f"  {place}: {damage}" for place, damage in zip(places[:MOST_DAMAGED], damages, strict=False)]
    if len(places) > len(told):
        told.append(f"  and {len(places) - len(told):,} more")
    n_all = sum(each.n_rows for split in splits for each in split.decoded)
    must, remedy = "source: every image must decode", "mend them, or leave them out with source.on_bad_image: skip"
    if n_allowed:
        must = f"source: places of images that are left out may take {n_allowed:,} characters in a manifest"
        remedy = "mend these images, or take them out of the source"
    raise BadImageError("\n".join([f"{must}, {len(places):,} of {n_all:,} do not decode; {remedy}", *told]))


def _check_labels(split: _Split, label_names: Sequence[str], own_names: Sequence[str] | None, role: str) -> None:
    """Makes sure that every image has a label that the training split has, and that there are two labels or more."""
    n_missing, first, names = 0, "", set(label_names)
    for each, start in zip(split.decoded, split.starts, strict=False):
        for value, count, index in zip(each.values, each.counts, each.firsts, strict=True):
            if is_missing(value, own_names) or (own_names is None and str(value) not in names):
                first = first or f"{split.name}[{start + index}]: {value!r}"
                n_missing += count
    if n_missing:
        raise LabelError(
            f"source: every sample must have a label that the training split has, {n_missing:,} of {split.starts[-1]:,} in split "
            f"{split.name} have none (the first is {first}); label them, or name another split"
        )
    n_labels = len(split.count_labels())
    if role == "train" and n_labels < 2:
        raise LabelError(f"source: must have two labels or more, found {n_labels} in split {split.name}")


def _check_names(names: Sequence[str]) -> None:
    """Refuses what could be more than plain text on a card."""
    for name in names:
        if (trouble := find_active_text(name)) is not None:
            raise LabelError(
                f"source: the names of labels, splits and data sets must be plain text, {name[:60]!r} holds {trouble}; rename it"
            )


def _check_left(result: Splits, protocol: str) -> None:
    """Makes sure that there are samples for each of the three uses."""
    n_evaluation = result.n_test if protocol == "paper" else result.n_evaluation
    counts = {"be drawn": sum(result.counts), "measure importance on": n_evaluation, "test on": result.n_test}
    for use, n in counts.items():
        if not n:
            raise SourceError(
                f"source: must leave samples to {use}, none are left; use more samples, or other fractions"
            )


def _find_shape(splits: Iterable[_Split]) -> tuple[int, int, int]:
    """Finds the shape (C, H, W) of all images."""
    shapes_of_splits = set()
    for split in splits:
        shapes = sorted({shape for each in split.decoded for shape in each.shapes})
        if not shapes:
            raise SourceError(f"source: split {split.name} must hold images, found none that decode")
        if len(shapes) > 1:
            shown = ", ".join(f"{width}x{height}" for _, height, width in shapes[:3])
            raise SourceError(
                f"source.image_size: must be given for images of {len(shapes)} sizes ({shown}, ...) in split {split.name}; "
                "for example `image_size: 32`"
            )
        shapes_of_splits.add(shapes[0])
    if len(shapes_of_splits) > 1:
        raise SourceError(
            f"source: splits must have one image size, found {sorted(shapes_of_splits)}; set source.image_size"
        )
    return shapes_of_splits.pop()


def _join_parts(
    split: _Split, label_names: Sequence[str], own_names: Sequence[str] | None, spec: Images
) -> DecodedSplit:
    """Lays a split's decoded parts end to end."""
    numbers = {name: number for number, name in enumerate(label_names)}
    parts: list[DecodedPart] = []
    pixels_files: list[StoredFile] = []
    counts: list[int] = []
    for entry, each, start in zip(split.entries, split.decoded, split.starts.tolist(), strict=False):
        labels = tuple(value if own_names is not None else numbers[str(value)] for value in each.values)
        parts.append(DecodedPart(entry.file("rows.npy"), sum(each.runs), start, sum(counts), labels))
        pixels_files += list_pixels(entry, each)
        counts += each.runs
    file_starts = tuple(int(start) for start in np.cumsum([0, *counts])[:-1])
    conversion = f"{spec.image_mode} {spec.image_size} {CONVERSION_VERSION}"
    return DecodedSplit(Origin(split.name, tuple(pixels_files), file_starts, conversion), tuple(parts))


def _tell_origin(split: _Split | None, carved_from: str, fraction: float) -> str:
    """Says how evaluation or test samples came about."""
    return (
        f"the source's split `{split.name}`" if split else f"{CARVED}from the {carved_from}, {fraction:g} of each label"
    )


def _list_warnings(raw: RawSource, splits: Collection[_Split], spec: Images, result: Splits) -> tuple[str, ...]:
    """Says what was left out, and what of the images may not be meant so."""
    warnings = raw.warnings
    for split in splits:
        n_enlarged, side = split.enlarged
        if n_enlarged:
            warnings.append(
                f"source.image_size: {n_enlarged:,} of {split.starts[-1]:,} images in split {split.name} are enlarged to "
                f"{spec.image_size} pixels, the smallest from {side}, which adds no detail and costs time"
            )
    if bad := [place for split in splits for place in split.list_bad_images()]:
        warnings.append(
            f"source.on_bad_image: images that do not decode are left out: {len(bad):,} ({name_paths(bad)})"
        )
    warnings += tell_repeats(result.repeats.n_conflicting, result.repeats.n_shared)
    if n := result.repeats.n_measured_twice:
        warnings.append(f"source: evaluation samples that also stand among the test samples: {n:,}")
    return tuple(warnings)


def _open_encoded(split: _Split, source_index: NDArray[np.int64], run: RunTasks) -> ReadEncoded:
    """Gives access to some images: in memory, or in the store, where they are written by one reading of the parts that hold some."""
    starts, parts = split.starts, split.parts
    held = [part for part in parts if isinstance(part, HeldPart)]

    def find_parts(samples: Samples) -> NDArray[np.int64]:
        numbers: NDArray[np.int64] = np.searchsorted(starts, samples.source_index, side="right") - 1
        return numbers

    def read_loaded(samples: Samples) -> list[bytes]:
        images = zip(find_parts(samples).tolist(), samples.source_index.tolist(), strict=True)
        return [held[part].encoded(index - int(starts[part])) for part, index in images]

    if len(held) == len(parts):
        return read_loaded
    wanted = np.sort(source_index)
    bounds = np.searchsorted(wanted, starts)
    tasks = {
        number: gathering_task(part, split.name, wanted[first:after] - start)
        for number, (part, start, (first, after)) in enumerate(zip(parts, starts, pairwise(bounds), strict=False))
        if first < after
    }
    entries = {number: done.entry for number, done in zip(tasks, run(list(tasks.values())), strict=True)}
    ends_of = cache(lambda part: np.load(entries[part].file("ends.npy").path))
    file_of = cache(lambda part: entries[part].file("encoded.bin").path)

    def read(samples: Samples) -> list[bytes]:
        indices, of_parts = np.searchsorted(wanted, samples.source_index), find_parts(samples)
        images: list[bytes] = [b""] * len(samples)
        for part in np.unique(of_parts).tolist():
            ends = np.concatenate([[0], ends_of(part)])
            with file_of(part).open("rb") as file:
                for number in np.flatnonzero(of_parts == part).tolist():
                    index = int(indices[number] - bounds[part])
                    file.seek(ends[index])
                    images[number] = file.read(ends[index + 1] - ends[index])
        return images

    return read


def _describe_reading(raw: RawSource, n_pixel_bytes: int, memory: int, is_streamed: bool) -> str:
    """Says whether a source is in memory, and why, for people."""
    sizes = f"{with_prefix(raw.n_bytes, 'B')} of files, " if raw.n_bytes else ""
    sizes += f"{with_prefix(n_pixel_bytes, 'B')} of pixels in {loky.cpu_count()} workers, {with_prefix(memory, 'B')} of memory"
    return f"{'streamed from disk' if is_streamed else 'held in memory'} ({sizes})"
