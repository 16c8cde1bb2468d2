"""Everything in a folder, as it lies there: files by what they can be, folders, links, and what systems leave behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from proxyds.data.survey.records import FoundFile
from proxyds.errors import SourceError
from proxyds.text import make_plain

READ_SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    }
)
"""How the names of images end, in any case, that are read: of the formats of `images.FORMATS`."""
UNREAD_SUFFIXES = frozenset(
    {
        *(
            ".avif",
            ".avifs",
            ".heic",
            ".heif",
            ".jxl",
            ".jxr",
            ".ico",
            ".cur",
            ".icns",
            ".tga",
            ".icb",
            ".vda",
            ".vst",
            ".psd",
        ),
        *(
            ".svg",
            ".eps",
            ".ps",
            ".dds",
            ".exr",
            ".hdr",
            ".pcx",
            ".dcx",
            ".sgi",
            ".rgb",
            ".rgba",
            ".bw",
            ".xbm",
            ".xpm",
            ".qoi",
        ),
        *(
            ".fit",
            ".fits",
            ".dcm",
            ".mpo",
            ".pfm",
            ".fli",
            ".flc",
            ".msp",
            ".pcd",
            ".ras",
            ".wmf",
            ".emf",
            ".blp",
            ".im",
        ),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"),
    }
)
"""How the names of other images end: none of these formats is read."""
ARCHIVE_SUFFIXES = frozenset({".zip", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".rar", ".7z", ".lzma"})
DATA_SUFFIXES = READ_SUFFIXES | UNREAD_SUFFIXES | ARCHIVE_SUFFIXES | {".parquet", ".tar"}
"""How the names of files end that may hold images."""

_OF_SYSTEMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"}
)
"""What systems and programs leave in folders, besides names that begin with a dot: `.DS_Store`, `._1.png`, `.ipynb_checkpoints`."""

BEGINNING = 16
"""Bytes of a file that tell whether it begins as images do."""
_BEGINNINGS = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)

_BOXES = (b"ftypavif", b"ftypavis", b"ftypheic", b"ftypheix", b"ftypmif1")
"""How files of the formats with a suffix begin that are images, and those that do so from their fifth byte."""

LINK = "links to folders (source.follow_links: true reads them)"
LOOP = "links to folders that are read already"
NOWHERE = "links that lead nowhere"
NO_FILE = "things that are neither files nor folders"
NO_NAME = "names that are no text (not UTF-8)"


@dataclass(frozen=True)
class Listing:
    """Everything in a folder.

    Attributes:
        files: In the order of their paths.
        folders: Paths of all that were looked into, in order.
        of_systems: Hidden files, and those that systems leave; a folder's path ends with `/`, and nobody looked into it.
        unusable: By reason, the paths of what cannot be read.
    """

    files: list[FoundFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    of_systems: list[str] = field(default_factory=list)
    unusable: dict[str, list[str]] = field(default_factory=dict)


def list_folder(folder: Path, *, follow_links: bool) -> Listing:
    """Lists everything in a folder and below.

    A link to a file is that file. A link to a folder is followed only if that is asked for, and no folder is read twice.

    Args:
        folder: The folder.
        follow_links: Whether to look into folders that links lead to.

    Raises:
        SourceError: A folder cannot be read.
    """
    listing, links, seen = Listing(), [""], set[tuple[int, int]]()
    while links:
        links.sort(reverse=True)
        link = links.pop()
        status = (folder / link).stat()
        if (status.st_dev, status.st_ino) in seen:
            listing.unusable.setdefault(LOOP, []).append(link)
        elif link and not follow_links:
            listing.unusable.setdefault(LINK, []).append(link)
        else:
            if link:
                listing.folders.append(link)
            _walk(folder, link, listing, links, seen)
    listing.files.sort()
    listing.folders.sort()
    return listing


def _walk(folder: Path, start: str, listing: Listing, links: list[str], seen: set[tuple[int, int]]) -> None:
    """Lists a folder and those below, but for links to folders, which are put to the others."""
    waiting = [start]
    while waiting:
        path = waiting.pop()
        try:
            status = (folder / path).stat()
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder / path), key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(
                f"source: {make_plain(f'{folder.name}/{path}'.rstrip('/'))} cannot be read: {error.strerror}; give permission, or move it away"
            ) from None
        for entry in entries:
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.name.startswith(".") or entry.name.lower() in _OF_SYSTEMS:
                listing.of_systems.append(below + "/" if entry.is_dir(follow_symlinks=False) else below)
            elif not _is_text(entry.name):
                listing.unusable.setdefault(NO_NAME, []).append(make_plain(below))
            elif entry.is_dir(follow_symlinks=False):
                listing.folders.append(below)
                waiting.append(below)
            elif _leads_to(entry.is_dir):
                links.append(below)
            elif _leads_to(entry.is_file):
                status = entry.stat()
                listing.files.append(FoundFile(below, status.st_size, status.st_mtime_ns))
            else:
                listing.unusable.setdefault(NOWHERE if entry.is_symlink() else NO_FILE, []).append(below)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_to(test: Callable[[], bool]) -> bool:
    """Asks an entry what it is; a link that leads around in a circle is nothing."""
    try:
        return test()
    except OSError:
        return False


def suffix_of(file: FoundFile) -> str:
    """Returns how a file's name ends, in small letters, with the dot."""
    return PurePosixPath(file.path).suffix.lower()


def find_unnamed_images(folder: Path, files: Iterable[FoundFile]) -> list[str]:
    """Finds files that begin as images do although they are not named so."""
    return [file.path for file in files if file.n_bytes and begins_as_image(_read_beginning(folder / file.path))]


def _read_beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BEGINNING)
    except OSError:
        return b""  # who cannot read it cannot use it


def begins_as_image(head: bytes) -> bool:
    """Says whether a file begins as images do, from its first `BEGINNING` bytes."""
    return head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] in _BOXES
