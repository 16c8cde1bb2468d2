"""WebDataset tars by the format's own rules: members with one key, next to each other, are a sample.

The key is a member's path up to the first dot of its name; what follows the dot, in small letters, says what it holds.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

from proxyds.data.survey.listing import BEGINNING, READ_SUFFIXES, UNREAD_SUFFIXES, begins_as_image
from proxyds.data.survey.metadata import LABEL_COLUMNS
from proxyds.data.survey.naming import normalize
from proxyds.data.survey.records import LABEL_BITS, Label, name_paths
from proxyds.errors import LabelError, SourceError
from proxyds.recipe.sections.source import Columns
from proxyds.text import make_plain

RULE = (
    "WebDataset takes members for one sample whose paths are the same up to the first dot of their names, and which stand next to each other "
    "(tar --sort=name)"
)
MOST_LOOKED_AT = 10_000
"""Samples that are looked at to find out what samples hold, at most."""

_NUMBERS = frozenset({"cls", "cls2", "index", "inx", "id"})
"""Members that hold a whole number, as `datasets` and `webdataset` decode them."""
_MOST_LABEL_BYTES = 10_000


@dataclass(frozen=True)
class Members:
    """Which of a sample's members are its image and its label, by what follows the key; None: whichever is named as an image."""

    image: str | None
    label: str


@dataclass(frozen=True)
class TarSample:
    """A sample: its image (no bytes where it has none), its label, and the image's name for messages."""

    encoded: bytes
    label: Label
    name: str


def _split_key(path: str) -> tuple[str, str] | None:
    """Splits a member's path into key and what follows; None for what is part of no sample."""
    folder, slash, name = path.rpartition("/")
    stem, dot, rest = name.partition(".")
    return (folder + slash + stem, rest.lower()) if stem and dot else None


def _is_image(ending: str) -> bool:
    return PurePosixPath("x." + ending).suffix in READ_SUFFIXES | UNREAD_SUFFIXES


def _name_tar(tar: Path) -> str:
    return make_plain(f"{tar.parent.name}/{tar.name}")


def _find_files(
    tar: Path, opened: tarfile.TarFile, pass_over: Callable[[str], object]
) -> Iterator[tuple[tuple[str, str], tarfile.TarInfo]]:
    """Goes over a tar's files that are part of a sample: key, what follows it, and the member; others are told to `pass_over`.

    Raises:
        SourceError: One that is part of no sample may be an image.
    """
    while (member := opened.next()) is not None:
        vars(opened)["members"] = []  # which would hold all of a large tar
        if member.isdir():
            continue
        if not member.isfile():
            raise SourceError(
                f"source: members of a tar must be files, {_name_tar(tar)} holds a link, or a device, {make_plain(member.name)}; write it "
                "again with the files themselves (tar --dereference --hard-dereference)"
            )
        if (parts := _split_key(member.name)) is not None:
            yield parts, member
        elif not PurePosixPath(member.name).name.startswith(".") and begins_as_image(_read(opened, member, BEGINNING)):
            raise SourceError(
                f"source: an image in a tar must have a name that ends as those of images do, {make_plain(member.name)} in "
                f"{_name_tar(tar)} has none; {RULE}; write it again"
            )
        else:
            pass_over(member.name)


def _group_members(
    tar: Path, opened: tarfile.TarFile, pass_over: Callable[[str], object]
) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Goes over a tar's samples: the key, and members by what follows it; see `_find_files`.

    Raises:
        SourceError: A key stands in two places, or a sample holds two members of one kind.
    """
    key, members, done = "", dict[str, tarfile.TarInfo](), set[str]()
    place = _name_tar(tar)
    for parts, member in _find_files(tar, opened, pass_over):
        if parts[0] != key:
            if members:
                yield key, members
                done.add(key)
            key, members = parts[0], {}
            if key in done:
                raise SourceError(
                    f"source: members of a sample must stand next to each other, {place} holds those of {make_plain(key)} in two places; {RULE}; write it again"
                )
        if parts[1] in members:
            raise SourceError(
                f"source: a sample must hold each kind of member once, {make_plain(key)} in {place} holds two .{make_plain(parts[1])}; {RULE}; write it again"
            )
        members[parts[1]] = member
    if members:
        yield key, members


def check_end(tar: Path, n_bytes: int) -> None:
    """Refuses a tar that does not end as tars do, in two blocks of 512 zeros: readers stop where the file does, and notice nothing."""
    try:
        with tar.open("rb") as file:
            file.seek(max(0, n_bytes - 1024))
            end = file.read()
    except OSError as error:
        raise SourceError(f"source: {tar.parent.name}/{tar.name} cannot be read: {error.strerror}") from None
    if end != bytes(1024):
        raise SourceError(
            f"source: {tar.parent.name}/{tar.name} must be a whole tar, it has no end: it was cut off, or is no tar; fetch or write it again"
        )


def find_members(tars: list[Path], spec: Columns) -> tuple[Members, list[str]]:
    """Finds which members are images and labels, from the first samples.

    Args:
        tars: All of them.
        spec: The recipe's section; its columns are what follows the key.

    Returns:
        Which they are; and the names of members beside these samples that are part of none, and are passed over.

    Raises:
        SourceError: There are no images, or several in a sample.
        LabelError: There are no labels, or several kinds.
    """
    endings: dict[str, None] = {}
    place, n_samples, crowded, passed_over = _name_tar(tars[0]), 0, None, list[str]()
    for tar, key, members in islice(_look_at(tars, passed_over.append), MOST_LOOKED_AT):
        n_samples += 1
        endings |= dict.fromkeys(members)
        images = sorted(filter(_is_image, members))
        if len(images) > 1 and crowded is None:
            crowded = f"{make_plain(key)} in {_name_tar(tar)}", images
        if len(endings) > MOST_LOOKED_AT:
            break
    found = f"found {name_paths(['.' + each for each in endings])}" if endings else "it holds none"
    images = sorted(filter(_is_image, endings))
    if spec.image_column is not None and spec.image_column not in endings:
        raise SourceError(f"source.image_column: must name members of {place}, got {spec.image_column!r}; {found}")
    if spec.image_column is None and not images:
        raise SourceError(
            f"source: must hold samples with an image, {place} has none among its {n_samples:,}; {found}; {RULE}"
        )
    if spec.image_column is None and crowded is not None:
        raise SourceError(
            f"source.image_column: must name the image of a sample that holds several, {crowded[0]} holds "
            f"{name_paths(['.' + each for each in crowded[1]])}; name one, or rename files whose names have dots: {RULE}"
        )
    labels = [each for each in LABEL_COLUMNS if each in endings]
    if spec.label_column is not None:
        if spec.label_column not in endings:
            raise LabelError(f"source.label_column: must name members of {place}, got {spec.label_column!r}; {found}")
        return Members(spec.image_column, spec.label_column), passed_over
    if len(labels) != 1:
        raise LabelError(
            f"source.label_column: must name the members that are labels, {place} has {', '.join(labels) or 'none that is named as such'}; {found}; {RULE}"
        )
    return Members(spec.image_column, labels[0]), passed_over


def _look_at(
    tars: list[Path], pass_over: Callable[[str], object]
) -> Iterator[tuple[Path, str, dict[str, tarfile.TarInfo]]]:
    for tar in tars:
        with _open(tar, "r:") as opened:
            for key, members in _group_members(tar, opened, pass_over):
                yield tar, key, members


def read_samples(tar: Path, wanted: Members) -> Iterator[TarSample]:
    """Reads a tar's samples, one after the other.

    Raises:
        SourceError: It cannot be read, or is not as WebDataset's rules have it.
        LabelError: A label is no number where it must be one.
    """
    place = _name_tar(tar)
    with _open(tar, "r:") as opened:
        for key, members in _group_members(tar, opened, lambda _: None):
            images = [each for each in members if (_is_image(each) if wanted.image is None else each == wanted.image)]
            if len(images) > 1:
                raise SourceError(
                    f"source.image_column: must name the image of a sample that holds several, {make_plain(key)} in {place} holds "
                    f"{name_paths(['.' + each for each in images])}; name one, or rename files whose names have dots: {RULE}"
                )
            label = _read_label(opened, members, wanted.label, f"{place}, sample {make_plain(key)}")
            encoded = _read(opened, members[images[0]]) if images else b""
            yield TarSample(encoded, label, f"{key}.{images[0]}" if images else key)


def _open(tar: Path, mode: str) -> tarfile.TarFile:
    opened: Callable[..., tarfile.TarFile] = tarfile.open
    return opened(tar, mode)


def _read(opened: tarfile.TarFile, member: tarfile.TarInfo, n_bytes: int = -1) -> bytes:
    file: IO[bytes] | None = opened.extractfile(member)
    return b"" if file is None else file.read(n_bytes)


def _read_label(opened: tarfile.TarFile, members: dict[str, tarfile.TarInfo], ending: str, place: str) -> Label:
    if ending not in members:
        return None
    if members[ending].size > _MOST_LABEL_BYTES:
        raise LabelError(
            f"source.label_column: labels must be short, {place} has one of {members[ending].size:,} bytes; name another"
        )
    held = _read(opened, members[ending])
    try:
        text = held.decode().strip()
        if ending not in _NUMBERS:
            return normalize(text) or None
        if (number := int(text)).bit_length() >= LABEL_BITS:
            raise ValueError("is too large")
        return number
    except ValueError:
        must = f"whole numbers of {LABEL_BITS} bits" if ending in _NUMBERS else "text"
        raise LabelError(
            f"source.label_column: .{make_plain(ending)} must hold {must}, {place} holds {held[:40]!r}; write it so, or name others"
        ) from None
