"""A named data set at a pinned revision becomes samples with stable ids, split for the work ahead.

`readers.py` finds encoded images and labels, in parts; `decoding.py` turns a part into pixels and ids; `splitting.py` merges the parts and carves what
is missing among training, evaluation and test samples. All of it is stored, and none of it holds a whole data set: in memory is a source whose
samples, and their pixels, are read into it at the end. Encoded bytes are never changed: they pass through to the proxy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
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
from proxyds.data.readers import STREAMED_SHARE, HeldPart, Part, RawSource, open_splits
from proxyds.data.samples import ReadEncoded, Samples, Source, SourceFacts, StreamedSamples
from proxyds.data.splits import Carving, DecodedPart, DecodedSplit, Splits, read_splits, splitting_task
from proxyds.errors import ChangedSourceError, LabelError, SourceError
from proxyds.recipe.models import Recipe
from proxyds.recipe.source import Images
from proxyds.runtime.machine import measure_memory
from proxyds.runtime.storage.store import Entry, StoredFile
from proxyds.runtime.task import Done, RunTasks
from proxyds.text import find_active_text, with_prefix

COPIES = 2
"""Of a data set's pixels in every worker that trains: as they are, and padded."""


def load_source(recipe: Recipe, run: RunTasks, streamed: bool | None = None) -> Source:
    """Reads a recipe's source and splits it.

    Args:
        recipe: Its source, seed and protocol.
        run: Decodes the parts that the store does not hold.
        streamed: Whether samples and pixels stay on disk; None to decide from their size.

    Raises:
        SourceNotFoundError: There is no such data set.
        SplitNotFoundError: It has no such split.
        LabelError: It has no labels, or fewer than two.
        BadImageError: An image cannot be decoded and `on_bad_image` is `fail`.
        SourceError: Images differ in size and the recipe names none, or no samples are left for one of the three uses.
    """
    spec, protocol, memory = recipe.source, recipe.importance.protocol, measure_memory()
    raw = open_splits(spec, streamed, memory)
    parts = {role: each for role, each in raw.splits.items() if role != "validation" or protocol != "paper"}
    results = _decode(raw, parts, spec, run)
    decoded = {role: [read_decoded(done.entry) for done in of_role] for role, of_role in results.items()}
    label_names = _name_labels(raw, decoded["train"])
    test_note = _drop_hidden_test(raw, parts, decoded)
    for role in parts:
        _check_labels(decoded[role], raw.split_names[role], label_names, raw.label_names, role)
    _check_names((*label_names, *raw.split_names.values(), raw.name))
    image_shape = _find_shape({raw.split_names[role]: decoded[role] for role in parts})
    splits = {
        role: _join_parts(raw, role, [done.entry for done in results[role]], decoded[role], label_names, spec)
        for role in parts
    }
    carving = Carving(
        None if "test" in parts else spec.test_fraction,
        None if protocol == "paper" or "validation" in parts else spec.validation_fraction,
        recipe.seed,
    )
    keys = [done.entry.key for role in splits for done in results[role]]
    (done,) = run([splitting_task(splits, keys, carving, label_names)])
    found = read_splits(done.entry)
    _check_left(found, protocol)
    n_pixel_bytes = COPIES * len(splits["train"]) * int(np.prod(image_shape)) * loky.cpu_count()
    if streamed is None:
        streamed = raw.is_streamed or n_pixel_bytes > STREAMED_SHARE * memory
    train = _open_training(done.entry, found, splits["train"])
    test = _open_samples(done.entry, "test", found.n_test, splits.get("test", splits["train"]), streamed)
    evaluation = test
    if protocol != "paper":
        origin = splits.get("validation", splits["train"])
        evaluation = _open_samples(done.entry, "evaluation", found.n_evaluation, origin, streamed)
    encoded = {raw.split_names[role]: (parts[role], decoded[role]) for role in parts}

    def open_encoded(split: str, source_index: NDArray[np.int64]) -> ReadEncoded:
        return _open_encoded(*encoded[split], split, source_index, run)

    return Source(
        label_names=label_names,
        image_shape=image_shape,
        train=train if streamed else replace(train.load(), stay_on_disk=False),
        evaluation=evaluation,
        test=test,
        facts=SourceFacts(
            name=raw.name,
            revision=raw.revision,
            kind=spec.kind,
            is_local_copy=raw.is_local_copy,
            fingerprint=found.content,
            n_samples={splits[role].split: len(splits[role]) for role in splits},
            n_duplicates={splits[role].split: found.n_duplicates[role] for role in splits},
            n_shared=found.n_shared,
            bad_images=tuple(place for role in parts for place in _name_bad(raw.split_names[role], decoded[role])),
            **_tell_origins(raw, parts, spec, protocol, test_note),
        ),
        reading=_describe_reading(raw, n_pixel_bytes, memory, streamed),
        open_encoded=open_encoded,
    )


def check_same(data: Source, fingerprint: str, train_ids: Sequence[str], evaluation_ids: Sequence[str]) -> None:
    """Makes sure that a source is the one that a proxy was made from, in whatever order and encoding it is now.

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
    known, here = then[0] | then[1], now[0] | now[1]
    everywhere = here | set(data.test.ids.tolist())
    n_gone, n_new = len(known - everywhere), len(here - known)
    n_moved = len((known & everywhere) - (then[0] & now[0]) - (then[1] & now[1]))
    counts = f"of {len(known):,} samples {n_gone:,} are gone and {n_moved:,} stand in another split, {n_new:,} are new"
    found = counts if n_gone or n_new or n_moved else "its test samples or its labels' names are others"
    raise ChangedSourceError(
        f"source: must be the one that the proxy was made from, {data.facts.name} is not: {found}; find the data that was used "
        "(source.path), or build again"
    )


def _decode(raw: RawSource, parts: dict[str, list[Part]], spec: Images, run: RunTasks) -> dict[str, list[Done]]:
    tasks = [
        decoding_task(part, spec, raw.split_names[role], raw.label_names, number, len(of_role))
        for role, of_role in parts.items()
        for number, part in enumerate(of_role)
    ]
    results = iter(run(tasks))
    return {role: [next(results) for _ in of_role] for role, of_role in parts.items()}


def _count_labels(decoded: Sequence[Decoded]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for each in decoded:
        counts.update(dict(zip(each.values, each.counts, strict=True)))
    return counts


def _name_labels(raw: RawSource, decoded: Sequence[Decoded]) -> tuple[str, ...]:
    """Text for each label: the source's names, or the training split's numbers or texts in order."""
    if raw.label_names is not None:
        return raw.label_names
    return tuple(
        str(value) for value in sorted(value for value in _count_labels(decoded) if not is_missing(value, None))
    )


def _drop_hidden_test(raw: RawSource, parts: dict[str, list[Part]], decoded: dict[str, list[Decoded]]) -> str:
    """Leaves out a test split that hides its labels, as on the Hub, unless the recipe asks for it; says so."""
    if (
        "test" not in parts
        or raw.is_test_asked
        or not all(is_missing(value, raw.label_names) for value in _count_labels(decoded["test"]))
    ):
        return ""
    del parts["test"]
    return f"the source's split `{raw.split_names['test']}` has no labels; "


def _check_labels(
    decoded: Sequence[Decoded], split: str, label_names: Sequence[str], own_names: Sequence[str] | None, role: str
) -> None:
    known = set(label_names)
    n_missing, first, start = 0, "", 0
    for each in decoded:
        for value, count, place in zip(each.values, each.counts, each.firsts, strict=True):
            if is_missing(value, own_names) or (own_names is None and str(value) not in known):
                first = first or f"{split}[{start + place}]: {value!r}"
                n_missing += count
        start += each.n_rows
    if n_missing:
        raise LabelError(
            f"source: every sample must have a label that the training split has, {n_missing:,} of {start:,} in split "
            f"{split} have none (the first is {first}); label them, or name another split"
        )
    n_labels = len(_count_labels(decoded))
    if role == "train" and n_labels < 2:
        raise LabelError(f"source: must have two labels or more, found {n_labels} in split {split}")


def _check_names(names: Sequence[str]) -> None:
    """Refuses what could be more than plain text on a card."""
    for name in names:
        if (trouble := find_active_text(name)) is not None:
            raise LabelError(
                f"source: the names of labels, splits and data sets must be plain text, {name[:60]!r} holds {trouble}; rename it"
            )


def _check_left(found: Splits, protocol: str) -> None:
    """Makes sure that there are samples for each of the three uses."""
    for use, n in (
        ("be drawn", sum(found.counts)),
        ("measure importance on", found.n_test if protocol == "paper" else found.n_evaluation),
        ("test on", found.n_test),
    ):
        if not n:
            raise SourceError(
                f"source: must leave samples to {use}, none are left; use more samples, or other fractions"
            )


def _find_shape(decoded: dict[str, list[Decoded]]) -> tuple[int, int, int]:
    """The shape (C, H, W) of all images."""
    of_splits = {split: sorted({shape for each in parts for shape in each.shapes}) for split, parts in decoded.items()}
    for split, shapes in of_splits.items():
        if not shapes:
            raise SourceError(f"source: split {split} must hold images, found none that decode")
        if len(shapes) > 1:
            shown = ", ".join(f"{width}x{height}" for _, height, width in shapes[:3])
            raise SourceError(
                f"source.image_size: must be given for images of {len(shapes)} sizes ({shown}, ...) in split {split}; "
                "for example `image_size: 32`"
            )
    every = {shapes[0] for shapes in of_splits.values()}
    if len(every) > 1:
        raise SourceError(f"source: splits must have one image size, found {sorted(every)}; set source.image_size")
    return every.pop()


def _join_parts(
    raw: RawSource,
    role: str,
    entries: Sequence[Entry],
    decoded: Sequence[Decoded],
    label_names: Sequence[str],
    spec: Images,
) -> DecodedSplit:
    """A split's decoded parts laid end to end."""
    numbers = {name: number for number, name in enumerate(label_names)}
    parts: list[DecodedPart] = []
    pixels_files: list[StoredFile] = []
    counts: list[int] = []
    offset = 0
    for entry, each in zip(entries, decoded, strict=True):
        labels = tuple(value if raw.label_names is not None else numbers[str(value)] for value in each.values)
        parts.append(DecodedPart(entry.file("rows.npy"), sum(each.runs), offset, sum(counts), labels))
        offset += each.n_rows
        pixels_files += list_pixels(entry, each)
        counts += each.runs
    starts = tuple(int(start) for start in np.cumsum([0, *counts])[:-1])
    conversion = f"{spec.image_mode} {spec.image_size} {CONVERSION_VERSION}"
    return DecodedSplit(raw.split_names[role], tuple(parts), tuple(pixels_files), starts, conversion)


def _open_training(entry: Entry, found: Splits, origin: DecodedSplit) -> StreamedSamples:
    return StreamedSamples(
        tuple(entry.file(f"train-{shard:05d}.npz") for shard in range(len(found.counts))),
        found.counts,
        origin.split,
        origin.pixels_files,
        origin.file_starts,
        origin.conversion,
        found.fingerprint,
    )


def _open_samples(entry: Entry, name: str, n: int, origin: DecodedSplit, streamed: bool) -> Samples:
    of_file = StreamedSamples(
        (entry.file(f"{name}.npz"),), (n,), origin.split, origin.pixels_files, origin.file_starts, origin.conversion
    )
    return replace(of_file.load(), stay_on_disk=streamed)


def _name_bad(split: str, decoded: Sequence[Decoded]) -> list[str]:
    """Where each image that was left out stood."""
    starts = np.cumsum([0, *(each.n_rows for each in decoded)])
    return [
        f"{split}[{start + index}]{name}"
        for each, start in zip(decoded, starts, strict=False)
        for index, name in each.bad_images
    ]


def _tell_origins(
    raw: RawSource, parts: dict[str, list[Part]], spec: Images, protocol: str, test_note: str
) -> dict[str, str]:
    """How the evaluation and the test samples came about."""
    test_from = f"carved from the training split, {spec.test_fraction:g} of each label"
    if "test" in parts:
        test_from = f"the source's split `{raw.split_names['test']}`"
    evaluation_from = f"carved from the training samples, {spec.validation_fraction:g} of each label"
    if protocol == "paper":
        evaluation_from = "the test samples (the paper's protocol)"
    elif "validation" in parts:
        evaluation_from = f"the source's split `{raw.split_names['validation']}`"
    return {"evaluation_from": evaluation_from, "test_from": test_note + test_from}


def _open_encoded(
    parts: Sequence[Part], decoded: Sequence[Decoded], split: str, source_index: NDArray[np.int64], run: RunTasks
) -> ReadEncoded:
    """Gives access to some images: in memory, or in the store, where they are written by one reading of the parts that hold some."""
    starts = np.cumsum([0, *(each.n_rows for each in decoded)])

    def read_held(samples: Samples) -> list[bytes]:
        of_parts = np.searchsorted(starts, samples.source_index, side="right") - 1
        places = zip(of_parts.tolist(), samples.source_index.tolist(), strict=True)
        return [held[part].encoded(index - int(starts[part])) for part, index in places]

    held = [part for part in parts if isinstance(part, HeldPart)]
    if len(held) == len(parts):
        return read_held
    wanted = np.sort(source_index)
    bounds = np.searchsorted(wanted, starts)
    has_some = [part for part in range(len(parts)) if bounds[part] < bounds[part + 1]]
    tasks = [
        gathering_task(parts[part], split, wanted[bounds[part] : bounds[part + 1]] - starts[part]) for part in has_some
    ]
    entries = dict(zip(has_some, (done.entry for done in run(tasks)), strict=True))

    ends_of = cache(lambda part: np.load(entries[part].file("ends.npy").path))
    file_of = cache(lambda part: entries[part].file("encoded.bin").path)

    def read(samples: Samples) -> list[bytes]:
        places = np.searchsorted(wanted, samples.source_index)
        of_parts = np.searchsorted(starts, samples.source_index, side="right") - 1
        images: list[bytes] = [b""] * len(samples)
        for part in np.unique(of_parts).tolist():
            ends = np.concatenate([[0], ends_of(part)])
            with file_of(part).open("rb") as file:
                for number in np.flatnonzero(of_parts == part).tolist():
                    place = int(places[number] - bounds[part])
                    file.seek(ends[place])
                    images[number] = file.read(ends[place + 1] - ends[place])
        return images

    return read


def _describe_reading(raw: RawSource, n_pixel_bytes: int, memory: int, streamed: bool) -> str:
    """Whether a source is in memory, and why, for people."""
    sizes = f"{with_prefix(raw.n_bytes, 'B')} of files, " if raw.n_bytes else ""
    sizes += f"{with_prefix(n_pixel_bytes, 'B')} of pixels in {loky.cpu_count()} workers, {with_prefix(memory, 'B')} of memory"
    return f"{'streamed from disk' if streamed else 'held in memory'} ({sizes})"
