"""A named data set at a pinned revision becomes samples with stable ids, split for the work ahead.

`readers.py` finds encoded images and labels; `decode_split` (a stored task) turns them into pixels and ids; `load_source`
carves what is missing among training, evaluation and test samples. Encoded bytes are never changed: they pass through to
the proxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from proxyds.engine import Report, RunTasks, Task
from proxyds.errors import BadImageError, ChangedSourceError, LabelError, SourceError
from proxyds.images import DECODE_ERRORS, open_image
from proxyds.pixels import Pixels
from proxyds.plain_text import find_active_text
from proxyds.readers import RawSource, RawSplit, open_splits
from proxyds.recipe import Images, Recipe
from proxyds.records import Samples, Source, SourceFacts
from proxyds.seeding import derive_seed, hash_ids, parse_ids
from proxyds.store import Entry

STAGE = "source"
STAGE_VERSION = 1


@dataclass(frozen=True)
class _Decoded:
    samples: Samples
    bad_images: tuple[str, ...]


def load_source(recipe: Recipe, run: RunTasks) -> Source:
    """Reads a recipe's source and splits it.

    Args:
        recipe: Its source, seed and protocol.
        run: Decodes the splits that the store does not hold.

    Raises:
        SourceNotFoundError: There is no such data set.
        SplitNotFoundError: It has no such split.
        LabelError: It has no labels, or fewer than two.
        BadImageError: An image cannot be decoded and `on_bad_image` is `fail`.
        SourceError: Images differ in size and the recipe names none, or no samples are left for one of the three uses.
    """
    spec, protocol = recipe.source, recipe.importance.protocol
    raw = open_splits(spec)
    for name in (*raw.label_names, *raw.split_names.values(), raw.name):
        if (trouble := find_active_text(name)) is not None:
            raise LabelError(
                f"source: the names of labels, splits and data sets must be plain text, {name[:60]!r} holds {trouble}; rename it"
            )
    roles = [role for role in raw.splits if role != "validation" or protocol == "validation"]
    results = run([_decoding_task(raw, role, spec) for role in roles])
    decoded = {
        role: _read_decoded(done.entry, raw.split_names[role], spec) for role, done in zip(roles, results, strict=True)
    }
    shapes = {
        Pixels(s.pixels_files, s.file_starts, s.rows).shape[1:] for s in (each.samples for each in decoded.values())
    }
    if len(shapes) > 1:
        raise SourceError(f"source: splits must have one image size, found {sorted(shapes)}; set source.image_size")
    train, evaluation, test, evaluation_from, test_from = _split(decoded, recipe)
    for use, samples in (("be drawn", train), ("measure importance on", evaluation), ("test on", test)):
        if not len(samples):
            raise SourceError(
                f"source: must leave samples to {use}, none are left; use more samples, or other fractions"
            )
    elsewhere = np.concatenate([_base_ids(evaluation.ids), _base_ids(test.ids)])
    facts = SourceFacts(
        name=raw.name,
        revision=raw.revision,
        kind=spec.kind,
        is_local_copy=raw.is_local_copy,
        fingerprint=_fingerprint(raw.label_names, {role: each.samples for role, each in decoded.items()}),
        n_samples={each.samples.split: len(each.samples) for each in decoded.values()},
        n_duplicates={each.samples.split: _count_repeats(each.samples.ids) for each in decoded.values()},
        n_shared=int(np.isin(_base_ids(train.ids), elsewhere).sum()),
        bad_images=tuple(place for each in decoded.values() for place in each.bad_images),
        evaluation_from=evaluation_from,
        test_from=raw.test_note + test_from,
    )
    by_name = {raw.split_names[role]: raw.splits[role] for role in roles}

    def read_encoded(samples: Samples) -> list[bytes]:
        return [by_name[samples.split].encoded(int(index)) for index in samples.source_index]

    n_channels, height, width = shapes.pop()
    return Source(raw.label_names, (n_channels, height, width), train, evaluation, test, facts, read_encoded)


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
    now = (set(data.train.ids.tolist()), set(data.evaluation.ids.tolist()))
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


def decode_split(
    *, folder: Path, report: Report, raw: RawSplit, spec: Images, split: str, label_names: tuple[str, ...]
) -> None:
    """Decodes one split into `pixels.npy` (uint8, (n, C, H, W)) and `samples.npz`, in the order of ids.

    A sample's id is the sha256 of its decoded mode, size and pixels, before any conversion, and its label's name: the
    same picture has one id as PNG and as WebP, in any order, shard or split. Repeats of a picture with the same label
    get `-2`, `-3`, ... in the order of their encoded bytes, then of the source.

    Args:
        folder: Filled with the result.
        report: Told how many images are done.
        raw: The split.
        spec: Mode and size that networks see, and what to do about bad images.
        split: The source's name of the split, for messages.
        label_names: Text for each label.

    Raises:
        BadImageError: An image cannot be decoded and `on_bad_image` is `fail`.
        SourceError: Sizes differ and the recipe names none, or no image decodes.
    """
    n = len(raw.labels)
    found: list[tuple[str, str, int]] = []
    bad: list[str] = []
    sizes: set[tuple[int, ...]] = set()
    pixels = np.empty((n, 0), np.uint8)
    for index in range(n):  # one thread: Pillow's decoders are slower in several
        encoded = raw.encoded(index)
        try:
            content_id, image = _decode_image(encoded, label_names[raw.labels[index]], spec)
        except DECODE_ERRORS as error:
            place = f"[{index}]{raw.place(index)}"
            if spec.on_bad_image == "fail":
                raise BadImageError(
                    f"source: image {split}{place} must decode, found {len(encoded):,} bytes that do not: {_describe_damage(error)}; mend it, or "
                    "leave such images out with source.on_bad_image: skip"
                ) from None
            bad.append(place)
            continue
        if not sizes:
            pixels = np.empty((n, *image.shape), np.uint8)
        sizes.add(image.shape)
        if len(sizes) == 1:
            pixels[index] = image
        found.append((content_id, hashlib.sha256(encoded).hexdigest(), index))
        if index % 1000 == 999 or index == n - 1:
            report(index + 1, n, "")
    if not found:
        raise SourceError(f"source: split {split} must hold images, found none that decode")
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for _, height, width in sorted(sizes)[:3])
        raise SourceError(
            f"source.image_size: must be given for images of {len(sizes)} sizes ({shown}, ...) in split {split}; "
            "for example `image_size: 32`"
        )
    found.sort()
    rows = np.array([index for _, _, index in found], np.int64)
    np.save(folder / "pixels.npy", pixels[rows])
    np.savez(
        folder / "samples.npz",
        ids=_number_repeats([content_id for content_id, _, _ in found]),
        labels=raw.labels[rows],
        source_index=rows,
        encoded_sha256=np.array([encoded_sha256 for _, encoded_sha256, _ in found]),
        bad_images=np.array(bad, dtype=np.str_),
    )


def carve(samples: Samples, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Chooses the same share of every label by ids and seed, never by order.

    Repeats of a picture go together, but for the one group of a label that the share may cut.

    Returns:
        (N,) bool: round(fraction * n) of each label's n samples; one at least, and one at least is left.
    """
    bases = _base_ids(samples.ids)
    keys = hash_ids(parse_ids(bases), seed)
    chosen = np.zeros(len(samples), np.bool_)
    for label in np.unique(samples.labels):
        members = np.flatnonzero(samples.labels == label)
        n = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[members[np.lexsort((samples.ids[members], bases[members], keys[members]))[:n]]] = True
    return chosen


def convert_image(image: Image.Image, spec: Images) -> NDArray[np.uint8]:
    """Turns an image of any mode and size into what networks see: upright by its EXIF, on white where it is transparent.

    Args:
        image: As it was decoded.
        spec: The mode and size wanted.

    Returns:
        (C, H, W) uint8.

    Raises:
        ValueError: It has 16 bits or more a channel.
    """
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        raise ValueError(f"images of 16 bits or more a channel are not supported, this one is {image.mode}")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert(spec.image_mode)
    if spec.image_size is not None and image.size != (spec.image_size, spec.image_size):
        image = ImageOps.fit(image, (spec.image_size, spec.image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _split(decoded: dict[str, _Decoded], recipe: Recipe) -> tuple[Samples, Samples, Samples, str, str]:
    spec = recipe.source
    rest = decoded["train"].samples
    if "test" in decoded:
        test, test_from = decoded["test"].samples, f"the source's split `{decoded['test'].samples.split}`"
    else:
        chosen = carve(rest, spec.test_fraction, derive_seed(recipe.seed, "test split"))
        test, rest = rest.take(chosen), rest.take(~chosen)
        test_from = f"carved from the training split, {spec.test_fraction:g} of each label"
    if recipe.importance.protocol == "paper":
        return rest, test, test, "the test samples (the paper's protocol)", test_from
    if "validation" in decoded:
        evaluation = decoded["validation"].samples
        return rest, evaluation, test, f"the source's split `{evaluation.split}`", test_from
    chosen = carve(rest, spec.validation_fraction, derive_seed(recipe.seed, "validation split"))
    evaluation_from = f"carved from the training samples, {spec.validation_fraction:g} of each label"
    return rest.take(~chosen), rest.take(chosen), test, evaluation_from, test_from


def _decoding_task(raw: RawSource, role: str, spec: Images) -> Task:
    split = raw.splits[role]
    content = hashlib.sha256(split.labels.tobytes())
    for index in range(len(split.labels)):
        content.update(hashlib.sha256(split.encoded(index)).digest())
    return Task(
        stage=STAGE,
        name=f"decode {raw.split_names[role]}",
        inputs={
            "version": STAGE_VERSION,
            "content": content.hexdigest(),
            "label_names": raw.label_names,
            "image_mode": spec.image_mode,
            "image_size": spec.image_size,
            "on_bad_image": spec.on_bad_image,
        },
        function=decode_split,
        arguments={"raw": split, "spec": spec, "split": raw.split_names[role], "label_names": raw.label_names},
    )


def _read_decoded(entry: Entry, split: str, spec: Images) -> _Decoded:
    with np.load(entry.folder / "samples.npz") as held:
        samples = Samples(
            ids=held["ids"],
            labels=held["labels"],
            source_index=held["source_index"],
            encoded_sha256=held["encoded_sha256"],
            split=split,
            pixels_files=(entry.file("pixels.npy"),),
            file_starts=(0,),
            rows=np.arange(len(held["ids"])),
            conversion=f"{spec.image_mode} {spec.image_size} {STAGE_VERSION}",
        )
        return _Decoded(samples, tuple(f"{split}{place}" for place in held["bad_images"]))


def _fingerprint(label_names: Sequence[str], splits: dict[str, Samples]) -> str:
    """sha256 of a source's content, whatever its order: names of the labels, then each role and its ids."""
    lines = list(label_names)
    for role in sorted(splits):
        lines += [f"{role}:", *sorted(splits[role].ids)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _decode_image(encoded: bytes, label: str, spec: Images) -> tuple[str, NDArray[np.uint8]]:
    """Returns the content's id and the pixels that networks see, (C, H, W)."""
    with open_image(encoded) as image:
        image.load()
    return _content_id(image, label), convert_image(image, spec)


def _describe_damage(error: Exception) -> str:
    return "no known image format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


def _content_id(image: Image.Image, label: str) -> str:
    header = f"{image.mode} {image.width}x{image.height} {label}\n"
    pixels = image.tobytes()
    if image.mode == "P":
        pixels += bytes(image.getpalette("RGBA" if image.has_transparency_data else "RGB") or ())
    return hashlib.sha256(header.encode() + pixels).hexdigest()


def _number_repeats(sorted_ids: Sequence[str]) -> NDArray[np.str_]:
    """Appends `-2`, `-3`, ... to equal neighbours."""
    numbered, repeat = [], 0
    for position, content_id in enumerate(sorted_ids):
        repeat = repeat + 1 if position and sorted_ids[position - 1] == content_id else 1
        numbered.append(content_id if repeat == 1 else f"{content_id}-{repeat}")
    return np.array(numbered)


def _base_ids(ids: NDArray[np.str_]) -> NDArray[np.str_]:
    bases: NDArray[np.str_] = ids.astype("<U64")
    return bases


def _count_repeats(ids: NDArray[np.str_]) -> int:
    return len(ids) - len(np.unique(_base_ids(ids)))
