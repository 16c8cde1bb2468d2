"""Finished work, kept by the content of what it depends on, outside any proxy's folder.

An entry is a folder `<root>/<stage>/<key>`; the key is the sha256 of the work's inputs, so equal inputs find it and any
change misses it. An entry is filled under another name and renamed when it is whole: a killed build leaves no half entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from proxyds.errors import translate_os_errors
from proxyds.folders import remove_folder, sweep_unfinished, whole_folder

_ABOUT = "entry.json"


@dataclass(frozen=True)
class Entry:
    """One piece of finished work.

    Attributes:
        stage: The stage it belongs to.
        key: sha256 of its inputs, in hexadecimal.
        name: What it is, for people.
        folder: Its files.
        seconds: Wall-clock time that the work took when it was done.
        created: Unix time of its end, in seconds.
    """

    stage: str
    key: str
    name: str
    folder: Path
    seconds: float
    created: float

    def file(self, name: str) -> StoredFile:
        """One of its files, for whoever may work on another machine."""
        return StoredFile(str(self.folder.parents[1]), self.stage, self.key, name)

    @property
    def n_bytes(self) -> int:
        """Size of its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class StoredFile:
    """A file of an entry, by what it is and not by where it lies, so that a task may name it to a worker of another machine.

    Attributes:
        store: The store's place, as `Store` takes it.
        stage: Of the entry.
        key: Of the entry.
        name: Of the file.
    """

    store: str
    stage: str
    key: str
    name: str

    @property
    def path(self) -> Path:
        """Where it lies on this machine."""
        return Store(self.store).root / self.stage / self.key / self.name


def default_store_root() -> Path:
    """`PROXYDS_STORE`, or the user's cache folder."""
    return Path(os.environ.get("PROXYDS_STORE") or platformdirs.user_cache_dir("proxyds"))


def content_key(stage: str, inputs: dict[str, Any]) -> str:
    """The sha256 of a stage's name and its inputs (anything that JSON can hold)."""
    canonical = json.dumps([stage, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Store:
    """A folder of entries."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else default_store_root()

    def find(self, stage: str, key: str) -> Entry | None:
        """Returns a finished entry, or None; an entry that something has damaged is removed."""
        folder = self.root / stage / key
        try:
            about = json.loads((folder / _ABOUT).read_text())
            return Entry(stage, key, about["name"], folder, about["seconds"], about["created"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            remove_folder(folder)
            return None

    @contextmanager
    def writing(self, stage: str, key: str, name: str) -> Iterator[Path]:
        """Gives an empty folder to fill; it becomes the entry when the block ends well, and is removed when not.

        Raises:
            NoSpaceError: The disk is full.
            NoPermissionError: The store may not be written.
        """
        started = time.time()
        with (
            translate_os_errors(f"the store {self.root}", "set PROXYDS_STORE to another folder"),
            whole_folder(self.root / stage / key, "give way") as folder,
        ):
            yield folder
            about = {"name": name, "seconds": time.time() - started, "created": time.time()}
            (folder / _ABOUT).write_text(json.dumps(about))

    def entries(self) -> list[Entry]:
        """Every finished entry, oldest first."""
        found = [self.find(path.parent.name, path.name) for path in self.root.glob("*/[!.]*")]
        return sorted((entry for entry in found if entry), key=lambda entry: entry.created)

    def sweep(self) -> None:
        """Removes what killed processes of this machine left unfinished."""
        for stage in self.root.glob("*/"):
            sweep_unfinished(stage)

    def clean(self, older_than_days: float = 0.0) -> tuple[int, int]:
        """Removes entries that are older, and what killed builds left behind.

        Returns:
            How many entries were removed, and their bytes.
        """
        deadline = time.time() - older_than_days * 86_400
        removed = [(entry, entry.n_bytes) for entry in self.entries() if entry.created <= deadline]
        for entry, _ in removed:
            remove_folder(entry.folder)
        self.sweep()
        return len(removed), sum(n_bytes for _, n_bytes in removed)
