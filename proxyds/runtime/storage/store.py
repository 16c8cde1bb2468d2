"""Finished work, kept by the content of what it depends on, outside any proxy's folder.

An entry is a folder `<root>/<stage>/<key>`; the key is the sha256 of the work's inputs, so equal inputs find it and any
change misses it. An entry is filled under another name and renamed when it is whole: a killed build leaves no half entry.
`remote_store.py` keeps the same at an address; `locks.py` lets one of several builds do a piece of work.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import platformdirs

from proxyds.arguments import as_place
from proxyds.errors import ArgumentError, DamagedEntryError, RemoteError, StoreError, translate_os_errors
from proxyds.runtime.storage.address import AtUrl, OnHub, read_address
from proxyds.runtime.storage.atomic import remove_folder, sweep_unfinished, whole_folder
from proxyds.runtime.storage.locks import holding_lock, sweep_locks
from proxyds.runtime.storage.remote_store import RECORD, EntryRecord, RemoteStore, new_attempt
from proxyds.text import describe_type, make_plain

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
LOCKS = ".locks"
"""The folder of a store that holds the locks of entries that are being made."""
SHELF = ".proxies"
"""The folder of a store that holds proxies which were fetched from elsewhere, each in a folder of its own."""
_MOST_DAMAGED = 3
"""Damaged entries that one command does anew; a store that damages more is of no use."""


@dataclass(frozen=True)
class Entry:
    """One piece of finished work.

    Attributes:
        stage: The stage it belongs to.
        key: sha256 of its inputs, in hexadecimal.
        name: What it is, for people.
        seconds: Wall-clock time that the work took when it was done.
        created: Unix time of its end, in seconds.
        store: Where it is.
        record: What the address says of it; None where the store is a folder.
    """

    stage: str
    key: str
    name: str
    seconds: float
    created: float
    store: Store = field(repr=False)
    record: EntryRecord | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """Its files, fetched if they are not here yet.

        Raises:
            DamagedEntryError: They are not what was written.
            StoreError: They cannot be fetched.
        """
        return self.store.fetch(self)

    def file(self, name: str) -> StoredFile:
        """Names one of its files, for whoever may work on another machine."""
        return StoredFile(self.store.place, self.stage, self.key, name)

    @property
    def n_bytes(self) -> int:
        """Size of its files."""
        if self.record is not None:
            return self.record.n_bytes
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class StoredFile:
    """A file of an entry, by what it is and not by where it lies, so that a task may name it to a worker of another machine.

    Its `store` is a place as `Store` takes it; `stage` and `key` are the entry's, `name` is the file's.
    """

    store: str = field(repr=False)  # may hold a password
    stage: str
    key: str
    name: str

    @property
    def path(self) -> Path:
        """Where it lies on this machine, fetched if it is not here yet.

        Raises:
            DamagedEntryError: It is not what was written.
            StoreError: It cannot be fetched.
        """
        path = _FETCHED.get(self)
        if path is None or not path.exists():  # `store clean` may have been here
            path = _FETCHED[self] = Store(self.store).fetch_file(self)
        return path


_FETCHED: dict[StoredFile, Path] = {}
"""Where files lie that this process has asked for: an address would be asked again at every reading."""


def content_key(stage: str, inputs: dict[str, Any]) -> str:
    """Computes the sha256 of a stage's name and its inputs (anything that JSON can hold)."""
    canonical = json.dumps([stage, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Store:
    """A place with entries, which many processes and machines may use at once. It pickles.

    Args:
        place: A folder, or an address that `fsspec` knows; None for `PROXYDS_STORE`, or else the user's cache folder.

    Attributes:
        place: The same as text.
        name: As it may be shown.
        root: The folder; of an address, the one that holds what was fetched from there or written here.

    Raises:
        MissingExtraError: The package for the address's protocol is not installed; names it.
        StoreError: It is no address that can be written to.
    """

    def __init__(self, place: str | Path | None = None) -> None:
        self._remote: RemoteStore | None = None
        if place is None:
            place = os.environ.get("PROXYDS_STORE") or platformdirs.user_cache_dir("proxyds")
        at = _read_place(place if isinstance(place, Path) else as_place(place, "place"))
        if isinstance(at, Path):
            self.root, self.place, self.name = at.absolute(), str(at.absolute()), str(at)
        else:
            self._remote = RemoteStore(at.url)
            self.root, self.place, self.name = self._remote.folder, at.url, self._remote.name

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.place,)

    @property
    def is_remote(self) -> bool:
        """Whether it is at an address."""
        return self._remote is not None

    def find(self, stage: str, key: str) -> Entry | None:
        """Returns a finished entry, or None; an entry that something has damaged is removed.

        Raises:
            StoreError: The address does not say.
        """
        if self._remote is not None:
            record = self._remote.find(stage, key)
            return None if record is None else self._entry(stage, key, record)
        folder = self.root / stage / key
        try:
            fields, sizes = json.loads((folder / RECORD).read_text()), _measure_files(folder)
            entry = Entry(stage, key, fields["name"], fields["seconds"], fields["created"], self)
            if fields.get("files", sizes) == sizes:  # earlier versions did not say
                return entry
        except NotADirectoryError:
            return None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        with suppress(FileNotFoundError):
            remove_folder(folder)
        return None

    @contextmanager
    def locking(self, stage: str, key: str, on_wait: Callable[[], None]) -> Iterator[bool]:
        """Lets one of several builds write an entry in the block; the others wait until it has, or take over.

        An address has no locks: there, two builds may do the same work, and the second entry gives way to the first.

        Args:
            stage: The entry's stage.
            key: The entry's key.
            on_wait: Called now and then while another build writes the entry.

        Yields:
            True where the entry is the caller's to write; False where it is there.

        Raises:
            NoPermissionError: The store may not be written.
            StoreError: The address does not do what is asked.
        """
        with ExitStack() as stack:
            if self._remote is not None:
                self._remote.check_writable()
            else:
                with self._translating():
                    stack.enter_context(holding_lock(self.root / LOCKS / f"{stage}-{key}", on_wait))
            yield self.find(stage, key) is None

    @contextmanager
    def writing(self, stage: str, key: str, name: str) -> Iterator[Path]:
        """Gives an empty folder to fill; it becomes the entry when the block ends well, and is removed when not.

        Raises:
            NoSpaceError: The disk is full.
            NoPermissionError: The store may not be written.
            StoreError: The address does not take it.
        """
        started, attempt = time.time(), new_attempt()
        final = self.root / stage / key if self._remote is None else self.root / stage / key / attempt
        with self._translating(), whole_folder(final, "give way") as folder:
            yield folder
            if self._remote is not None:
                self._remote.send(stage, key, name, started, folder, attempt)
            else:
                files = _measure_files(folder)
                fields = {"name": name, "seconds": time.time() - started, "created": time.time(), "files": files}
                (folder / RECORD).write_text(json.dumps(fields))

    def fetch(self, entry: Entry) -> Path:
        """Returns the folder of an entry's files; see `Entry.folder`."""
        if self._remote is None or entry.record is None:
            return self.root / entry.stage / entry.key
        return self._remote.fetch(entry.stage, entry.key, entry.record, entry.record.files)

    def fetch_file(self, file: StoredFile) -> Path:
        """Finds where one of an entry's files lies; see `StoredFile.path`."""
        folder = self.root / file.stage / file.key
        if self._remote is not None:
            record = self._remote.find(file.stage, file.key)
            if record is not None and file.name in record.files:
                return self._remote.fetch(file.stage, file.key, record, [file.name]) / file.name
        elif (folder / file.name).exists():
            return folder / file.name
        elif folder.exists():
            remove_folder(folder)
        raise DamagedEntryError(
            f"the store {self.name}: must still hold {file.name} of {file.stage}/{file.key}, it is gone; run it again"
        )

    def entries(self) -> list[Entry]:
        """Lists every finished entry and, as of the stage `SHELF`, every proxy that was fetched; oldest first. Nothing else is fetched."""
        if self._remote is not None:
            entries = [self._entry(stage, key, record) for (stage, key), record in self._remote.find_all().items()]
        else:
            places = self.root.glob("[!.]*/[!.]*")  # others come and go: locks, attempts to write
            entries = [entry for path in places if (entry := self.find(path.parent.name, path.name))]
        return sorted([*entries, *self._list_fetched()], key=lambda entry: entry.created)

    def _list_fetched(self) -> list[Entry]:
        fetched = []
        for path in (self.root / SHELF).glob("[!.]*/"):
            with suppress(FileNotFoundError):  # another process removed it meanwhile
                fetched.append(Entry(SHELF, path.name, _name_proxy(path), 0.0, path.stat().st_mtime, self))
        return fetched

    def sweep(self) -> None:
        """Removes what killed processes of this machine left unfinished."""
        if self._remote is not None:
            self._remote.sweep()
            sweep_unfinished(self.root / SHELF)
            return
        for stage in (*self.root.glob("[!.]*/"), self.root / SHELF):
            sweep_unfinished(stage)
        sweep_locks(self.root / LOCKS)

    def clean(self, older_than_days: float = 0.0) -> tuple[int, int]:
        """Removes entries and fetched proxies that are older, and what killed builds left behind.

        Returns:
            How many entries were removed, and their bytes.
        """
        deadline = time.time() - older_than_days * 86_400
        at_address = [] if self._remote is None else self._remote.clean(deadline)
        here = self.entries() if self._remote is None else self._list_fetched()
        sizes = [record.n_bytes for record in at_address]
        for entry in here:
            with suppress(FileNotFoundError):  # another process removed it meanwhile
                if entry.created <= deadline:
                    n_bytes = entry.n_bytes
                    remove_folder(entry.folder)
                    sizes.append(n_bytes)
        self.sweep()
        return len(sizes), sum(sizes)

    def _entry(self, stage: str, key: str, record: EntryRecord) -> Entry:
        return Entry(stage, key, record.name, record.seconds, record.created, self, record)

    def _translating(self) -> AbstractContextManager[None]:
        if self._remote is not None:
            return self._remote.translating()
        return translate_os_errors(f"the store {self.root}", "set PROXYDS_STORE to another folder")


def retry_if_damaged(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Calls a function again when finished work that it reads proves damaged: that is done anew, the rest is found."""

    @wraps(function)
    def call(*arguments: _Parameters.args, **named: _Parameters.kwargs) -> _Result:
        for _ in range(_MOST_DAMAGED):
            with suppress(DamagedEntryError):
                return function(*arguments, **named)
        return function(*arguments, **named)

    return call


def as_store(store: Store | None) -> Store:
    """Returns a store that a program passed, or the user's own; raises `ArgumentError` for anything else."""
    if store is not None and not isinstance(store, Store):
        raise ArgumentError(f"store: must be a proxyds.Store, got {describe_type(store)}")
    return store or Store()


def _read_place(place: str | Path) -> Path | AtUrl:
    try:
        at = read_address(place) if isinstance(place, str) else place
    except RemoteError as error:
        raise StoreError(f"the store {error}") from None
    if isinstance(at, OnHub):
        raise StoreError(
            f"the store {place}: must be a folder or an address such as s3://bucket/folder, it is on the Hub"
        )
    return Path(place) if at is None else at


def _name_proxy(folder: Path) -> str:
    """Names a fetched proxy for people, by what its manifest says; one whose manifest is gone by its folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return make_plain(f"{manifest['name']} {manifest['version']}")
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name


def _measure_files(folder: Path) -> dict[str, int]:
    """Measures the bytes of each file of an entry: what a crash of the machine has cut off shows by its size."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.name != RECORD and path.is_file()
    }
