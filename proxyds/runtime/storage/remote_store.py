"""Finished work at an address, and copies of it here.

An entry is `<address>/<stage>/<key>/`: its files in a sub-folder of the attempt that made them, so that two who do the same
work never mix theirs, and `entry.json`, sent last, which names attempt and files with sizes and sha256. It alone is read to
know what is there; files are fetched when they are asked for, and compared with what it says.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import platformdirs

from proxyds.errors import DamagedEntryError, RemoteError, RemoteNotFoundError, StoreError, translate_os_errors
from proxyds.runtime.storage.atomic import sweep_unfinished
from proxyds.runtime.storage.hub_errors import retry
from proxyds.runtime.storage.remote import open_url

RECORD = "entry.json"
PAUSES = (1, 2, 4, 8, 16)
"""Seconds between tries: a store that does not answer for half a minute stops a build."""
_S3 = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 0}}}
"""The client's own patience would multiply ours: hours, where a server is silent."""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class EntryRecord:
    """The content of `entry.json` at an address.

    Attributes:
        name: What the work is, for people.
        seconds: Wall-clock time that it took.
        created: Unix time of its end, in seconds.
        attempt: The sub-folder of its files.
        files: Bytes and sha256 of each, by its name.
    """

    name: str
    seconds: float
    created: float
    attempt: str
    files: Mapping[str, tuple[int, str]]

    @property
    def n_bytes(self) -> int:
        """Size of its files."""
        return sum(size for size, _ in self.files.values())


class RemoteStore:
    """The entries at an address.

    Args:
        url: The address.

    Attributes:
        name: The address as it may be shown.
        folder: What was fetched from there or written here, below `PROXYDS_STORE_MIRROR` or the user's cache folder.

    Raises:
        MissingExtraError: The package for its protocol is not installed; names it.
        StoreError: No such protocol is known.
    """

    def __init__(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        try:
            self._remote = open_url(url, **(_S3 if scheme in ("s3", "s3a") else {}))
        except RemoteError as error:
            raise _as_store_error(error) from None
        self.name = self._remote.name
        if scheme in ("http", "https"):
            raise StoreError(
                f"the store {self.name}: cannot be written to; set PROXYDS_STORE to a folder, s3:// or gs://"
            )
        copies = os.environ.get("PROXYDS_STORE_MIRROR") or Path(platformdirs.user_cache_dir("proxyds"), ".mirrors")
        self.folder = Path(copies) / hashlib.sha256(url.encode()).hexdigest()[:16]

    def translating(self) -> AbstractContextManager[None]:
        """Translates errors of writing the copies here; see `translate_os_errors`."""
        return translate_os_errors(
            f"local copies of the store {self.name}, {self.folder}", "set PROXYDS_STORE_MIRROR to another folder"
        )

    def check_writable(self) -> None:
        """Makes sure that the address takes files, before hours of work.

        Raises:
            StoreError: It does not.
        """
        self.ask(self._remote.check_writable)

    def ask(self, do: Callable[[], _Result]) -> _Result:
        """Asks the address for something, again after growing pauses when it fails by what may pass.

        Raises:
            StoreError: It does not do it.
        """
        try:
            return retry(do, PAUSES)
        except RemoteError as error:
            raise _as_store_error(error) from None

    def find(self, stage: str, key: str) -> EntryRecord | None:
        """Returns the record of a finished entry; fetches nothing else."""
        return next(iter(self._read([(stage, key)]).values()), None)

    def find_all(self) -> dict[tuple[str, str], EntryRecord]:
        """Reads the record of every finished entry, by stage and key."""
        return self._read([(stage, key) for (stage, key), names in self._list().items() if RECORD in names])

    def send(self, stage: str, key: str, name: str, started: float, folder: Path, attempt: str) -> None:
        """Makes an entry of a folder's files, unless another has made it meanwhile.

        Args:
            stage: The entry's stage.
            key: The entry's key.
            name: What the work is, for people.
            started: Unix time when it began, in seconds.
            folder: The folder with the files.
            attempt: A name from `new_attempt`.
        """
        seconds = time.time() - started
        remote, paths = self._remote.below(f"{stage}/{key}"), [p for p in sorted(folder.rglob("*")) if p.is_file()]
        files = {path.relative_to(folder).as_posix(): (path.stat().st_size, _sha256(path)) for path in paths}
        for each in files:
            self.ask(partial(remote.below(attempt).send_files, folder, [each]))
        if self.find(stage, key) is not None:
            self._remove(f"{stage}/{key}/{attempt}/{each}" for each in files)
            return
        record = EntryRecord(name, seconds, time.time(), attempt, files)
        self.ask(partial(remote.write_file, RECORD, json.dumps(asdict(record)).encode()))

    def fetch(self, stage: str, key: str, record: EntryRecord, names: Iterable[str]) -> Path:
        """Returns the folder of an entry's files, with those that are asked for.

        Raises:
            DamagedEntryError: They are not what was written; the entry is gone.
            NoSpaceError: The disk is full.
        """
        folder = self.folder / stage / key / record.attempt
        with self.translating():
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                path, (size, sha256) = folder / name, record.files[name]
                if not path.exists() or path.stat().st_size != size:
                    self._fetch_file(stage, key, record, name, path, sha256)
        return folder

    def clean(self, deadline: float) -> list[EntryRecord]:
        """Removes entries that are not younger, attempts that were not ended, and the copies of either here.

        An attempt that is being sent meanwhile goes, too: whoever needs its entry finds it damaged and does it anew.

        Args:
            deadline: Unix time, in seconds.

        Returns:
            The entries.
        """
        present, records = self._list(), self.find_all()  # in this order: an entry that is made in between stays
        old = {place: each for place, each in records.items() if each.created <= deadline}
        for (stage, key), names in present.items():
            record = records.get((stage, key))
            if (stage, key) in old:
                record = None
                self._remove([f"{stage}/{key}/{RECORD}"])  # first: an entry is whole or not there
            self._remove(
                f"{stage}/{key}/{name}"
                for name in names
                if record is None or (name != RECORD and not name.startswith(f"{record.attempt}/"))
            )
        for folder in self.folder.glob("[!.]*/*/*"):  # not the proxies that were fetched
            record = records.get((folder.parts[-3], folder.parts[-2]))
            if record is None or record in old.values() or record.attempt != folder.name:
                shutil.rmtree(folder, ignore_errors=True)
        return list(old.values())

    def sweep(self) -> None:
        """Removes what killed processes of this machine left unfinished here."""
        for entry in self.folder.glob("[!.]*/*/"):
            sweep_unfinished(entry)

    def _read(self, places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], EntryRecord]:
        names = {f"{stage}/{key}/{RECORD}": (stage, key) for stage, key in places}
        texts = self.ask(partial(self._remote.read_files, list(names)))
        records = {names[name]: _parse(text) for name, text in texts.items()}
        return {place: each for place, each in records.items() if each is not None}

    def _list(self) -> dict[tuple[str, str], list[str]]:
        """Lists the names of all files there, by the stage and key of their entry."""
        names: dict[tuple[str, str], list[str]] = {}
        for path in self.ask(self._remote.list_names):
            stage, key, name = (*path.split("/", 2), "", "")[:3]
            if name and not stage.startswith("."):
                names.setdefault((stage, key), []).append(name)
        return names

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.ask(partial(self._remote.remove_files, [name]))

    def _fetch_file(self, stage: str, key: str, record: EntryRecord, name: str, path: Path, sha256: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        remote = self._remote.below(f"{stage}/{key}/{record.attempt}")
        new = path.with_name(f".{path.name}.{new_attempt()}.new")

        def fetch() -> bool:
            with suppress(RemoteNotFoundError):
                remote.fetch_file(name, new)
                return _sha256(new) == sha256
            return False

        try:
            if self.ask(fetch) or self.ask(fetch):  # it may have broken on the way
                new.replace(path)
                return
        finally:
            new.unlink(missing_ok=True)
        if self.find(stage, key) == record:  # not another that is there by now
            self._remove([f"{stage}/{key}/{RECORD}"])
        raise DamagedEntryError(
            f"the store {remote.name}/{name}: must have the bytes that were written for «{record.name}», it has others or is gone; "
            "it counts as not done from now on: run it again"
        )


def new_attempt() -> str:
    """Makes a name that nobody else has."""
    return uuid4().hex[:12]


def _as_store_error(error: RemoteError) -> StoreError:
    return StoreError(f"the store {error}; finished work is kept, PROXYDS_STORE names another place")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parse(text: bytes) -> EntryRecord | None:
    """Reads `entry.json`; returns None where it is not whole, or names a file outside its folder."""
    try:
        fields = json.loads(text)
        files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in fields["files"].items()}
        record = EntryRecord(fields["name"], fields["seconds"], fields["created"], fields["attempt"], files)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    paths = [PurePosixPath(record.attempt), *map(PurePosixPath, files)]
    return None if any(path.is_absolute() or ".." in path.parts for path in paths) else record
