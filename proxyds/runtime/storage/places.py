"""Where sources lay on this machine. A store remembers it, since a proxy holds no path; an address gets none of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from proxyds.runtime.storage.atomic import replace_file
from proxyds.runtime.storage.store import Store

FOLDER = ".places"
"""The folder of a store with a file for each source."""


def remember_place(store: Store, key: str, path: Path) -> None:
    """Remembers where a source lies, the last place alone. A store that cannot be written forgets it: no work is lost.

    Args:
        store: The store; of one at an address, its folder on this machine.
        key: What the source is, as a name of a file.
        path: Absolute.
    """
    if recall_place(store, key) == path:
        return
    with suppress(OSError):
        (store.root / FOLDER).mkdir(parents=True, exist_ok=True)
        replace_file(store.root / FOLDER / key, str(path).encode(errors="surrogateescape"))


def recall_place(store: Store, key: str) -> Path | None:
    """Returns where a source lay when it was last read; None where no store remembers."""
    try:
        return Path((store.root / FOLDER / key).read_bytes().decode(errors="surrogateescape"))
    except OSError:
        return None
