"""Encoded images become pixels and ids: a part of a split at a time, by a worker that holds a few thousand images.

A sample's id is the sha256 of the picture that networks see (its mode, size and pixels, before they are made the recipe's) and of its
label's name. No shuffle and no lossless re-encoding changes it, unless grey becomes colour; see `docs/format.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from proxyds.data.images import (
    DECODE_ERRORS,
    FORMER_ID_RULE,
    ID_RULE,
    check_depth,
    convert_mode,
    describe_damage,
    open_image,
    see_picture,
)
from proxyds.data.parts import Part
from proxyds.data.survey.naming import normalize
from proxyds.errors import SourceError
from proxyds.recipe.sections.source import Images
from proxyds.runtime.storage.store import Entry, StoredFile
from proxyds.runtime.task import Report, Task

STAGE = "source"
STAGE_VERSION = 6
CONVERSION_VERSION = 1
"""Raised when `convert_image` gives other pixels: then trainings on them are others too."""
RUN, RUN_BYTES = 8192, 128_000_000
"""Images of one file of pixels, and their bytes, at most."""

ROW = np.dtype(
    [
        ("id", "S64"),
        ("sha256", "S64"),
        ("label", np.int64),
        ("index", np.int64),
        ("place", np.int64),
        ("picture", np.uint64),
    ]
)
"""Row of one decoded image: its id before repeats are numbered, the sha256 of its file, the index of its label among its
part's labels, its own index in the part, that of its pixels in the part's files, laid end to end, and the first bits of the sha256 of
these pixels, which tell what networks cannot tell apart."""


@dataclass(frozen=True)
class Decoded:
    """What decoding says of a part's images, besides their rows and pixels.

    Attributes:
        n_rows: Images of the part, those that were left out too.
        shapes: The shapes (C, H, W) of their pixels: one, if all is well.
        runs: Images in each of the files `pixels-0.npy`, `pixels-1.npy`, ...
        values: The labels that occur, as the source has them, in the order of their first images.
        counts: How many images have each label.
        firsts: Index in the part of the first image of each label.
        bad_images: Of each image that does not decode its index in the part, where its file lies in the source, and what is wrong with it.
        n_enlarged: Images with a side of fewer pixels than `image_size`.
        smallest_side: The shortest side of all, in pixels; 0 where there are none.
    """

    n_rows: int
    shapes: list[tuple[int, int, int]]
    runs: list[int]
    values: list[Any]
    counts: list[int]
    firsts: list[int]
    bad_images: list[tuple[int, str, str]]
    n_enlarged: int
    smallest_side: int


def decoding_task(
    part: Part, spec: Images, split: str, label_names: Sequence[str] | None, number: int, n: int, id_rule: int
) -> Task:
    """Describes the decoding of part `number` of a split's n parts; see `decode_part`."""
    return Task(
        stage=STAGE,
        name=f"decode {split}" + (f" {number + 1}/{n}" if n > 1 else ""),
        inputs={
            "version": STAGE_VERSION,
            "content": part.content,
            "label_names": label_names,
            "image_mode": spec.image_mode,
            "image_size": spec.image_size,
            "id_rule": id_rule,
        },
        function=decode_part,
        arguments={
            "part": part,
            "spec": spec,
            "label_names": label_names,
            "id_rule": id_rule,
        },
    )


def decode_part(
    *,
    folder: Path,
    report: Report,
    part: Part,
    spec: Images,
    label_names: Sequence[str] | None,
    id_rule: int = ID_RULE,
) -> None:
    """Decodes a part into `pixels-*.npy`, uint8 (n, C, H, W), `rows.npy` of `ROW` in the order of ids, and `part.json`.

    Images without a label are counted and not decoded, and those that do not decode are listed: whether that is an error is for whoever sees
    all parts.

    Args:
        folder: Of the result.
        report: Receives how many images are done.
        part: The images.
        spec: Mode and size that networks see.
        label_names: Text for each label number; None where the labels are texts, or numbers of their own.
        id_rule: By which rule ids are made.

    Raises:
        SourceError: The part cannot be read, or memory is not enough.
    """
    label_indices: dict[Any, int] = {}
    counts: list[int] = []
    firsts: list[int] = []
    rows: list[tuple[bytes, bytes, int, int, int, int]] = []
    images: list[NDArray[np.uint8]] = []
    bad_images: list[tuple[int, str, str]] = []
    runs: list[int] = []
    shapes: set[tuple[int, int, int]] = set()
    n_rows = n_enlarged = smallest_side = 0

    def write_run() -> None:
        if len(shapes) == 1:  # else `source` refuses the split
            np.save(folder / f"pixels-{len(runs)}.npy", np.stack(images))
        runs.append(len(images))
        images.clear()

    for index, (encoded, value, name) in enumerate(part.rows()):  # one thread: Pillow's decoders are slower in several
        n_rows += 1
        if isinstance(value, str):
            value = normalize(value)
        label = label_indices.setdefault(value, len(counts))
        if label == len(counts):
            counts.append(0)
            firsts.append(index)
        counts[label] += 1
        if is_missing(value, label_names):
            continue
        text = str(value) if label_names is None else label_names[value]
        try:
            content_id, pixels, side = _decode_image(encoded, text, spec, id_rule)
        except MemoryError:
            raise SourceError(
                f"source: {f'the image {name}' if name else 'an image'} must fit into memory, it does not; fewer workers (--workers) need less"
            ) from None
        except DECODE_ERRORS as error:
            bad_images.append((index, name, f"{len(encoded):,} bytes, {describe_damage(error)}"))
            continue
        n_enlarged += spec.image_size is not None and side < spec.image_size
        smallest_side = min(smallest_side or side, side)
        n_channels, height, width = pixels.shape
        shapes.add((n_channels, height, width))
        file_hash, pixels_hash = hashlib.sha256(encoded).hexdigest().encode(), hashlib.sha256(pixels.data).digest()
        rows.append((content_id, file_hash, label, index, len(rows), int.from_bytes(pixels_hash[:8], "big")))
        images.append(pixels)
        if len(images) == RUN or len(images) * pixels.nbytes >= RUN_BYTES:
            write_run()
        if index % 1000 == 999:
            report(index + 1, max(RUN, index + 2), "")  # a stream does not tell how many there are
    if images:
        write_run()
    np.save(folder / "rows.npy", sort_rows(np.array(rows, ROW)))
    decoded = Decoded(
        n_rows, sorted(shapes), runs, list(label_indices), counts, firsts, bad_images, n_enlarged, smallest_side
    )
    (folder / "part.json").write_text(json.dumps(asdict(decoded)))
    report(1, 1, "")


def sort_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Puts rows, (n,) of `ROW`, in the order of ids; equal ones by their files' sha256, then as the source has them."""
    return rows[np.lexsort((rows["index"], rows["sha256"], rows["id"]))]


def read_decoded(entry: Entry) -> Decoded:
    """Reads what `decode_part` says of a part."""
    fields = json.loads(entry.file("part.json").path.read_text())
    tuples = {name: [tuple(each) for each in fields[name]] for name in ("shapes", "bad_images")}
    return Decoded(**{**fields, **tuples})


def list_pixels(entry: Entry, decoded: Decoded) -> list[StoredFile]:
    """Names the files of a part's pixels."""
    return [entry.file(f"pixels-{run}.npy") for run in range(len(decoded.runs))]


def is_missing(value: Any, label_names: Sequence[str] | None) -> bool:
    """Says whether a label is none: -1, or not the number of a name."""
    if value is None or isinstance(value, str):
        return value is None
    return value == -1 if label_names is None else not 0 <= value < len(label_names)


def convert_image(image: Image.Image, spec: Images) -> NDArray[np.uint8]:
    """Turns an image of any mode and size into the pixels that networks see; see `images.see_picture`.

    Args:
        image: As it was decoded.
        spec: The mode and size wanted.

    Returns:
        (C, H, W) uint8.

    Raises:
        ValueError: It has 16 bits or more a channel.
    """
    return _fit_picture(see_picture(image), spec)


def _fit_picture(picture: Image.Image, spec: Images) -> NDArray[np.uint8]:
    """Makes a picture of the mode and size that a recipe asks for; returns its pixels, (C, H, W) uint8."""
    picture = convert_mode(picture, spec.image_mode)
    if spec.image_size is not None and picture.size != (spec.image_size, spec.image_size):
        picture = ImageOps.fit(picture, (spec.image_size, spec.image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _decode_image(encoded: bytes, label: str, spec: Images, id_rule: int) -> tuple[bytes, NDArray[np.uint8], int]:
    """Returns an image's id, the pixels that networks see, (C, H, W), and the shorter side of the image in pixels."""
    with open_image(encoded) as image:
        check_depth(image, encoded)
        image.load()
        picture = see_picture(image)
        named = image if id_rule == FORMER_ID_RULE else picture
        return _content_id(named, label), _fit_picture(picture, spec), min(picture.size)


def _content_id(image: Image.Image, label: str) -> bytes:
    """Returns the id of an image, before repeats are numbered; a palette is there by the former rule alone."""
    header = f"{image.mode} {image.width}x{image.height} {label}\n"
    pixels = image.tobytes()
    if image.mode == "P":
        pixels += bytes(image.getpalette("RGBA" if image.has_transparency_data else "RGB") or ())
    return hashlib.sha256(header.encode() + pixels).hexdigest().encode()


def gathering_task(part: Part, split: str, wanted: NDArray[np.int64]) -> Task:
    """Describes the reading of some images of a part, by their places in it, as the source holds them; see `gather_images`."""
    return Task(
        stage=STAGE,
        name=f"read what was drawn of {split}",
        inputs={
            "version": STAGE_VERSION,
            "content": part.content,
            "wanted": hashlib.sha256(wanted.astype("<i8").tobytes()).hexdigest(),
        },
        function=gather_images,
        arguments={"part": part, "wanted": wanted},
    )


def gather_images(*, folder: Path, report: Report, part: Part, wanted: NDArray[np.int64]) -> None:
    """Writes `encoded.bin`, the wanted images one after the other, and `ends.npy`, (n,) int64, where each ends.

    The part is read as far as the last of them; others of it are passed over, and parts of which none is wanted are not opened.

    Raises:
        SourceError: The part cannot be read, or has fewer images than when it was decoded.
    """
    ends, remaining = [], set(wanted.tolist())
    with (folder / "encoded.bin").open("wb") as file:
        for index, (encoded, _, _) in enumerate(part.rows()):
            if index in remaining:
                file.write(encoded)
                ends.append(file.tell())
                remaining.remove(index)
            if not remaining:
                break
    if remaining:
        raise SourceError("source: must hold the images that it held when the build began, some are gone; build again")
    np.save(folder / "ends.npy", np.array(ends, np.int64))
    report(1, 1, "")
