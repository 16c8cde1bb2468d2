"""A split's encoded images and labels, in parts that can be sent to workers: in memory, or read by `datasets` as they are asked for."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

import pyarrow as pa

from proxyds.data.survey.records import Label
from proxyds.data.survey.tars import Members, read_samples
from proxyds.errors import SourceError
from proxyds.text import first_line, make_plain

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    tarfile.TarError,
    pa.ArrowException,
)
"""What `datasets` raises, besides its own errors, over folders that are no data set."""


@contextmanager
def refusing_unreadable(what: str) -> Iterator[None]:
    """Makes what `datasets` raises over `what` is read one error.

    Raises:
        SourceError: It cannot be read.
    """
    try:
        yield
    except UNREADABLE as error:
        raise SourceError(
            f"source: must be parquet files, image folders or WebDataset tars, {what} is not: {first_line(error)}; "
            "fetch or write it again"
        ) from error


Row = tuple[bytes, Any, str]
"""An encoded image (no bytes where there is none), its label as the source has it, where its file lies in the source; empty where it is no file."""


class Part(Protocol):
    """Some images of a split, next to each other; can be sent to a worker."""

    @property
    def content(self) -> str:
        """What the part holds: two parts with equal content hold the same."""

    def rows(self) -> Iterator[Row]:
        """Reads the images.

        Raises:
            SourceError: They cannot be read.
        """


@dataclass(frozen=True)
class LoadedPart:
    """Images in memory, or mapped into it.

    Attributes:
        images: Arrow structs of `bytes` and `path`, as `datasets` keeps undecoded images.
        labels: As the source has them.
        first: Index of the first one in the split.
        folder: That messages name image files from; empty where there is none.
    """

    images: pa.Array
    labels: pa.Array
    first: int
    folder: str = ""

    @property
    def content(self) -> str:
        """The sha256 of every image's and every label's."""
        content = hashlib.sha256(repr(self.labels.to_pylist()).encode())
        for encoded, _, _ in self.rows():
            content.update(hashlib.sha256(encoded).digest())
        return content.hexdigest()

    def encoded(self, index: int) -> bytes:
        """Reads one image of the part, as the source holds it."""
        return _read_image(self.images[index].as_py(), f"[{self.first + index}]", self.folder)

    def rows(self) -> Iterator[Row]:
        """See `Part`."""
        for index, (image, label) in enumerate(zip(self.images, self.labels.to_pylist(), strict=True)):
            file = image.as_py()
            yield _read_image(file, f"[{self.first + index}]", self.folder), label, _name_image(file, self.folder)


@dataclass(frozen=True)
class FilesPart:
    """Image files, read as they are asked for.

    Attributes:
        folder: That all are in.
        files: Their paths in there.
        labels: As the source has them.
        content: Names, sizes, times and labels of the files.
        first: Index of the first one in the split.
    """

    folder: Path
    files: tuple[str, ...]
    labels: tuple[Label, ...]
    content: str
    first: int

    def rows(self) -> Iterator[Row]:
        """See `Part`."""
        for index, (file, label) in enumerate(zip(self.files, self.labels, strict=True)):
            image, folder = {"bytes": None, "path": str(self.folder / file)}, str(self.folder)
            yield _read_image(image, f"[{self.first + index}]", folder), label, _name_image(image, folder)


@dataclass(frozen=True)
class TarsPart:
    """WebDataset tars, read as they are asked for.

    Attributes:
        tars: Their paths.
        members: Which members are images and labels.
        content: Names, sizes and times of the tars, and their members.
    """

    tars: tuple[Path, ...]
    members: Members
    content: str

    def rows(self) -> Iterator[Row]:
        """See `Part`."""
        for tar in self.tars:
            with refusing_unreadable(tar.name):
                for sample in read_samples(tar, self.members):
                    yield sample.encoded, sample.label, _name_image({"path": sample.name})


@dataclass(frozen=True)
class StreamedPart:
    """A file of images, or several, read by `datasets` as they are asked for.

    Attributes:
        stream: A `datasets.IterableDataset` of these files.
        image_column: Its column of images, undecoded.
        label_column: Its column of labels.
        content: Names, sizes and times of all of the source's files, and which of them these are.
        name: Which files these are, for messages.
        folder: That messages name image files from; empty where there is none.
    """

    stream: Any
    image_column: str
    label_column: str
    content: str
    name: str
    folder: str = ""

    def rows(self) -> Iterator[Row]:
        """See `Part`."""
        with refusing_unreadable(self.name):
            for index, row in enumerate(self.stream):
                image = row[self.image_column]
                where = f"[{index}] of {self.name}"
                name = _name_image(image, self.folder)
                yield _read_image(image, where, self.folder), row[self.label_column], name


def _read_image(image: dict[str, Any] | bytes | None, where: str, folder: str = "") -> bytes:
    """Reads the bytes of an image file as `datasets` keeps it, or as a plain column does; none where the source holds none."""
    if image is None or isinstance(image, bytes):
        return image or b""
    encoded: bytes | None = image["bytes"]
    if encoded is not None or image.get("path") is None:
        return encoded or b""
    try:
        return Path(image["path"]).read_bytes()
    except OSError as error:
        place = show_image(where, _name_image(image, folder))
        raise SourceError(f"source: image {place} cannot be read: {error.strerror}") from None


def show_image(place: str, file: str) -> str:
    """Shows an image's place, and where its file lies, if it is one."""
    return f"{place} ({file})" if file else place


def _name_image(image: dict[str, Any] | bytes | None, folder: str = "") -> str:
    """Returns where an image's file lies in its source; elsewhere its name alone, since a path tells of somebody's machine."""
    path = image.get("path") if isinstance(image, dict) else None
    if not path:
        return ""
    place = PurePath(path)
    if folder and place.is_relative_to(folder):
        place = place.relative_to(folder)
    is_of_source = not place.is_absolute() and "://" not in path and ".." not in place.parts
    return make_plain(place.as_posix() if is_of_source else place.name)
