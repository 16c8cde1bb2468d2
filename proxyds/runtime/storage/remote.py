"""Proxies at addresses that `fsspec` knows: object stores and other machines, by one set of functions for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxyds.errors import (
    FULL,
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

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Protocols for which this package has an extra with what they need."""
UNFINISHED = ".proxyds"
"""A file that stands at an address while a proxy is being sent there; it names the files that the push may replace."""
_CHUNK_BYTES = 1 << 20
_AGAIN = "run the same command again"


@dataclass(frozen=True)
class UrlFolder:
    """A folder at an address.

    Attributes:
        name: The address as it may be shown: without user, password and query.
        filesystem: Of `fsspec`.
        root: The folder, as the file system names it.
    """

    name: str
    filesystem: Any = field(repr=False)
    root: str

    def below(self, name: str) -> UrlFolder:
        """A folder in it."""
        return UrlFolder(f"{self.name}/{name}", self.filesystem, f"{self.root}/{name}")

    def list_files(self) -> dict[str, int] | None:
        """Every file below, with its bytes; None where the protocol cannot tell.

        Raises:
            RemoteError: It cannot be read.
        """
        if self.root.startswith(("http://", "https://")):
            return None
        with _reaching(self.name):
            self.filesystem.invalidate_cache()
            found = self.filesystem.find(self.root, detail=True)
        odd = [name for name, about in found.items() if about["type"] != "file" or about.get("islink")]
        if odd:
            raise VerificationError(
                f"{self.name}: must hold files alone, {make_plain(odd[0])} is a link, pipe or device"
            )
        prefix = f"{self.root.rstrip('/')}/"
        return {name.removeprefix(prefix): about["size"] for name, about in found.items() if name.startswith(prefix)}

    def list_names(self) -> list[str]:
        """The names of the files below; none where nothing is there. Unlike `list_files` it takes what it finds, in a place that is our own.

        Raises:
            RemoteError: It cannot be read.
        """
        try:
            with _reaching(self.name):
                self.filesystem.invalidate_cache()
                found = self.filesystem.find(self.root)
        except RemoteNotFoundError:
            return []
        prefix = f"{self.root}/"
        return [path.removeprefix(prefix) for path in found if path.startswith(prefix)]

    def read_file(self, name: str, n_most: int) -> bytes | None:
        """A small file's bytes; None where there is none.

        Args:
            name: Of the file.
            n_most: Bytes that it may have; one more is read and no further.
        """
        try:
            with _reaching(f"{self.name}/{name}"), self.filesystem.open(f"{self.root}/{name}", "rb") as stream:
                held: bytes = stream.read(n_most + 1)
        except RemoteNotFoundError:
            return None
        return held

    def read_files(self, names: Sequence[str]) -> dict[str, bytes]:
        """Several small files' bytes, at once where the protocol can; those that are not there are left out.

        Raises:
            RemoteError: One cannot be read.
        """
        if not names:
            return {}
        with _reaching(self.name):
            found = self.filesystem.cat([f"{self.root}/{name}" for name in names], on_error="return")
        held: dict[str, bytes] = {}
        for path, got in found.items():
            name = path.removeprefix(f"{self.root}/")
            if isinstance(got, Exception):
                with suppress(RemoteNotFoundError), _reaching(f"{self.name}/{name}"):
                    raise got
            else:
                held[name] = got
        return held

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
        n_done, total = 0, sum(sizes.values())
        for name, size in sizes.items():
            place = folder / name
            n_file = 0
            with translate_os_errors(str(place), "choose another -o"):
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as out:
                    for chunk in self._iter_chunks(name):
                        n_file += len(chunk)
                        if n_file > size:
                            raise RemoteError(f"{self.name}/{name}: must have {size:,} bytes, it has more")
                        out.write(chunk)
                        on_progress(Progress("fetch", self.name, n_done + n_file, max(total, 1)))
            n_done += n_file

    def _iter_chunks(self, name: str) -> Iterator[bytes]:
        with _reaching(f"{self.name}/{name}"), self.filesystem.open(f"{self.root}/{name}", "rb") as stream:
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
            with _reaching(f"{self.name}/{name}"):
                self._make_folder(f"{self.root}/{name}".rpartition("/")[0])
                self.filesystem.put_file(str(folder / name), f"{self.root}/{name}")
            n_done += size
            on_progress(Progress("push", self.name, n_done, max(sum(sizes.values()), 1)))

    def remove_files(self, names: Sequence[str]) -> None:
        """Removes files."""
        with _reaching(self.name):
            for name in names:
                self.filesystem.rm_file(f"{self.root}/{name}")

    def write_file(self, name: str, held: bytes) -> None:
        """Writes a small file."""
        with _reaching(self.name):
            self._make_folder(self.root)
            self.filesystem.pipe_file(f"{self.root}/{name}", held)

    def create_file(self, name: str, held: bytes) -> bool:
        """Writes a small file unless it is there; returns whether it was not.

        Of several who do so at once one alone is told that it was not where `creates_exclusively`, elsewhere maybe all.

        Raises:
            RemoteError: It cannot be written.
        """
        if not self.creates_exclusively:
            if self.read_files([name]):
                return False
            self.write_file(name, held)
            return True
        try:
            with _reaching(f"{self.name}/{name}"):
                self.filesystem.pipe_file(f"{self.root}/{name}", held, mode="create")
        except (OutputExistsError, RemoteError) as error:
            # each server refuses in its own words, and a try whose answer got lost may have made it: what is there tells
            there = self.read_files([name]).get(name)
            if there is None and not isinstance(error, OutputExistsError):  # else it was there, and is gone by now
                raise
            return there == held
        return True

    @property
    def creates_exclusively(self) -> bool:
        """Whether a file is created for one of several who try at once: S3 and its like do so by a condition on the request."""
        protocols = self.filesystem.protocol
        return not EXTRAS.keys().isdisjoint([protocols] if isinstance(protocols, str) else protocols)

    def _make_folder(self, path: str) -> None:
        """Object stores have no folders: asked for one they would make a bucket, where a name is misspelt."""
        if not self.creates_exclusively:
            self.filesystem.makedirs(path, exist_ok=True)

    def check_writable(self) -> None:
        """Writes a file and removes it, so that hours of work are not done for a place that may not be written.

        Raises:
            RemoteError: It may not.
        """
        self.write_file(f"{UNFINISHED}-try", b"")
        self.remove_files([f"{UNFINISHED}-try"])


def open_url(url: str, **options: object) -> UrlFolder:
    """Opens an address; nothing is asked of it yet.

    Args:
        url: The address.
        options: For its file system, besides what its own configuration says.

    Raises:
        MissingExtraError: The package for its protocol is not installed; names it.
        RemoteNotFoundError: No such protocol is known.
    """
    import fsspec

    name, scheme = show_address(url), urlsplit(url).scheme
    try:
        with _reaching(name):
            filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'proxyds[{extra}]'" if extra else str(error)
        raise MissingExtraError(f"{name}: needs a package that is not installed: {how}") from None
    return UrlFolder(name, filesystem, root.rstrip("/"))


@contextmanager
def _reaching(name: str) -> Iterator[None]:
    """Turns what a file system's client raises, each its own, into errors that name the address."""
    try:
        yield
    except (ProxydsError, ImportError):
        raise
    except FileNotFoundError as error:
        cause = error.__cause__  # so fsspec tells what a web server answered, or that it did not
        status = getattr(cause, "status", 404)
        if status in (401, 403):
            raise RemoteAccessError(f"{name}: access was refused ({status}); check the credentials") from None
        if status != 404 or isinstance(cause, OSError):
            raise RemoteError(f"{name}: cannot be reached: {_first_line(cause or error)}; {_AGAIN}") from None
        raise RemoteNotFoundError(f"{name}: nothing is there; check the address") from None
    except IsADirectoryError:
        raise OutputExistsError(f"{name}: must be a file, found a folder; use another address") from None
    except (FileExistsError, NotADirectoryError):
        raise OutputExistsError(f"{name}: must be a folder, found a file; use another address") from None
    except PermissionError as error:
        raise RemoteAccessError(f"{name}: access was refused: {_first_line(error)}; check the credentials") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise RemoteError(f"{name}: {_first_line(error)}") from None
        raise RemoteNotFoundError(f"{name}: no such protocol is known; for example s3://, gs:// or file://") from None
    except Exception as error:  # noqa: BLE001 - each client has errors of its own; all are told
        if isinstance(error, OSError) and error.errno in FULL:
            raise NoSpaceError(f"{name}: no space left there; make some, or use another address") from None
        if "redential" in type(error).__name__:
            raise RemoteAccessError(f"{name}: {_first_line(error)}; set the credentials of its protocol") from None
        raise RemoteError(f"{name}: cannot be reached: {_first_line(error)}; {_AGAIN}") from None


def _first_line(error: BaseException) -> str:
    """As `plain_text.first_line`, without what an address may hold of secrets."""
    return first_line(error, hide=show_address)
