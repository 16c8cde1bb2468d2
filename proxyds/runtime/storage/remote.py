"""Proxies at addresses that `fsspec` knows: object stores and other machines, by one set of functions for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from proxyds.errors import (
    DISK_FULL,
    MissingExtraError,
    NoSpaceError,
    OutputExistsError,
    ProxydsError,
    RemoteAccessError,
    RemoteError,
    RemoteNotFoundError,
    VerificationError,
    translate_os_errors,
)
from proxyds.progress import OnProgress, Progress, ignore_progress
from proxyds.runtime.storage.address import show_address
from proxyds.text import first_line, make_plain

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.implementations.dirfs import DirFileSystem

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Protocols for which this package has an extra with what they need."""
UNFINISHED = ".proxyds"
"""A file that stands at an address while a proxy is being sent there; it names the files that the push may replace."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at an address; names of files are relative to it.

    Attributes:
        name: The address as it may be shown: without user, password and query.
        files: The file system of `fsspec` within it.
    """

    name: str
    files: DirFileSystem = field(repr=False)

    def below(self, name: str) -> RemoteFolder:
        """Opens a folder in it."""
        return _open_folder(f"{self.name}/{name}", self.files.fs, f"{self.files.path}/{name}")

    def list_files(self) -> dict[str, int] | None:
        """Lists every file below, with its bytes; returns None where the protocol cannot tell.

        Raises:
            RemoteError: It cannot be read.
            VerificationError: There is something besides files; names it.
        """
        if self.files.path.startswith(("http://", "https://")):
            return None
        facts = self._find()
        if odd := [name for name, each in facts.items() if each["type"] != "file" or each.get("islink")]:
            raise VerificationError(
                f"{self.name}: must hold files alone, {make_plain(odd[0])} is a link, pipe or device"
            )
        return {name: each["size"] for name, each in facts.items()}

    def list_names(self) -> list[str]:
        """Lists the names of all that lies below, which may be nothing; for places that are our own, unlike `list_files`.

        Raises:
            RemoteError: It cannot be read.
        """
        try:
            return list(self._find())
        except RemoteNotFoundError:
            return []

    def _find(self) -> dict[str, Any]:
        with _translate_errors(self.name):
            self.files.invalidate_cache()
            facts: dict[str, Any] = self.files.find("", detail=True)
        return {name: each for name, each in facts.items() if name}  # the empty name: a file stands at the address

    def read_file(self, name: str, n_most: int) -> bytes | None:
        """Reads a file that should have `n_most` bytes at most: one more is read and no further. None where there is none."""
        try:
            with _translate_errors(f"{self.name}/{name}"), self.files.open(name, "rb") as stream:
                content: bytes = stream.read(n_most + 1)
        except RemoteNotFoundError:
            return None
        return content

    def read_files(self, names: Sequence[str]) -> dict[str, bytes]:
        """Reads several small files, at once where the protocol can; those that are not there are left out.

        Raises:
            RemoteError: One cannot be read.
        """
        if not names:
            return {}
        with _translate_errors(self.name):
            answers = self.files.cat(list(names), on_error="return")
        contents: dict[str, bytes] = {}
        for name, answer in answers.items():
            if isinstance(answer, Exception):
                with suppress(RemoteNotFoundError), _translate_errors(f"{self.name}/{name}"):
                    raise answer
            else:
                contents[name] = answer
        return contents

    def fetch_file(self, name: str, path: Path) -> None:
        """Fetches one file, whatever its size.

        Raises:
            RemoteError: It cannot be read.
            OSError: It cannot be written here.
        """
        with path.open("wb") as out:
            for chunk in self._iter_chunks(name):
                out.write(chunk)

    def fetch_files(self, sizes: Mapping[str, int], folder: Path, on_progress: OnProgress = ignore_progress) -> None:
        """Fetches files of known sizes into a folder, and not a byte more.

        Raises:
            RemoteError: One cannot be read, or is longer than it should be.
            NoSpaceError: The disk is full.
        """
        n_done, total = 0, max(sum(sizes.values()), 1)
        for name, size in sizes.items():
            path, end = folder / name, n_done + size
            with translate_os_errors(path, "choose another folder"):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    for chunk in self._iter_chunks(name):
                        n_done += len(chunk)
                        if n_done > end:
                            raise RemoteError(f"{self.name}/{name}: must have {size:,} bytes, it has more")
                        out.write(chunk)
                        on_progress(Progress("fetch", self.name, n_done, total))

    def _iter_chunks(self, name: str) -> Iterator[bytes]:
        with _translate_errors(f"{self.name}/{name}"), self.files.open(name, "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def send_files(self, folder: Path, names: Sequence[str], on_progress: OnProgress = ignore_progress) -> None:
        """Sends files, one after the other, in the order given.

        Raises:
            RemoteError: One cannot be written.
        """
        sizes = {name: (folder / name).stat().st_size for name in names}
        n_done = 0
        for name, size in sizes.items():
            with _translate_errors(f"{self.name}/{name}"):
                self._make_folder(name.rpartition("/")[0])
                self.files.put_file(str(folder / name), name)
            n_done += size
            on_progress(Progress("push", self.name, n_done, max(sum(sizes.values()), 1)))

    def write_file(self, name: str, content: bytes) -> None:
        """Writes a small file."""
        with _translate_errors(self.name):
            self._make_folder("")
            self.files.pipe_file(name, content)

    def remove_files(self, names: Sequence[str]) -> None:
        """Removes files; those that somebody else has removed are no error."""
        for name in names:
            with suppress(RemoteNotFoundError), _translate_errors(self.name):
                self.files.rm_file(name)

    def _make_folder(self, name: str) -> None:
        """Object stores have no folders: asked for one they would make a bucket, where a name is misspelt."""
        protocols = self.files.fs.protocol
        if EXTRAS.keys().isdisjoint([protocols] if isinstance(protocols, str) else protocols):
            self.files.makedirs(name, exist_ok=True)

    def check_writable(self) -> None:
        """Writes a file and removes it, so that hours of work are not done for a place that may not be written.

        Raises:
            RemoteError: It may not.
        """
        self.write_file(f"{UNFINISHED}-try", b"")
        self.remove_files([f"{UNFINISHED}-try"])


def _open_folder(name: str, filesystem: AbstractFileSystem, root: str) -> RemoteFolder:
    from fsspec.implementations.dirfs import DirFileSystem

    return RemoteFolder(name, DirFileSystem(root, filesystem, skip_instance_cache=True))


def open_url(url: str, **options: object) -> RemoteFolder:
    """Opens an address, with options for its file system besides its own configuration; nothing is asked of it yet.

    Raises:
        MissingExtraError: The package for its protocol is not installed; names it.
        RemoteNotFoundError: No such protocol is known.
    """
    import fsspec

    name, scheme = show_address(url), urlsplit(url).scheme
    try:
        with _translate_errors(name):
            filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'proxyds[{extra}]'" if extra else str(error)
        raise MissingExtraError(f"{name}: needs a package that is not installed: {how}") from None
    return _open_folder(name, filesystem, root.rstrip("/"))


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Turns what a file system's client raises, each its own, into errors that name the address."""
    try:
        yield
    except (ProxydsError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - each client has errors of its own; all are explained
        raise _explain(name, error) from None


def _explain(name: str, error: Exception) -> ProxydsError:
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
    said = first_line(cause or error, hide=show_address)
    match error:
        case FileNotFoundError():  # so fsspec says what a web server answered, or that it did not
            status = getattr(cause, "status", 404)
            if status in (401, 403):
                return RemoteAccessError(f"{name}: access was refused ({status}); check the credentials")
            if status == 404 and not isinstance(cause, OSError):
                return RemoteNotFoundError(f"{name}: nothing is there; check the address")
        case IsADirectoryError():
            return OutputExistsError(f"{name}: must be a file, found a folder; use another address")
        case FileExistsError() | NotADirectoryError():
            return OutputExistsError(f"{name}: must be a folder, found a file; use another address")
        case PermissionError():
            return RemoteAccessError(f"{name}: access was refused: {said}; check the credentials")
        case OSError() if error.errno in DISK_FULL:
            return NoSpaceError(f"{name}: no space left there; make some, or use another address")
        case ValueError() if "Protocol not known" in str(error):
            return RemoteNotFoundError(f"{name}: no such protocol is known; for example s3://, gs:// or file://")
        case ValueError():
            return RemoteError(f"{name}: {said}")
        case _ if "redential" in type(error).__name__:
            return RemoteAccessError(f"{name}: {said}; set the credentials of its protocol")
    return RemoteError(f"{name}: cannot be reached: {said}; run it again")
