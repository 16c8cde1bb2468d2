"""Locks for builds that share a store in a folder: one build does a task, the others wait for its result.

The system holds the lock of a file for as long as its process lives: a killed build keeps nobody waiting. Stores at
addresses have no locks. Two builds may do the same work there, which is wasted and never wrong (`remote_store.py`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from proxyds.runtime.storage.atomic import try_folder

POLL_SECONDS = 1.0
"""How often those who wait say so; they look four times as often."""
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""What a file system says that cannot lock files."""


@contextmanager
def holding_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of a file for the block, waiting while another process or thread does.

    Where the file system cannot lock, the block runs all the same: at worst, the same work is done twice.

    Args:
        path: The file. It is made, and removed at the end.
        on_wait: Called now and then while another holds the lock.

    Raises:
        OutputError: The path is where no folders can be made.
        OSError: The file may not be written.
    """
    try_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False)  # the other kind outlives a killed process
    try:
        while not lock.is_locked:
            try:
                lock.acquire(timeout=POLL_SECONDS, poll_interval=POLL_SECONDS / 4)
            except Timeout:
                on_wait()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        _remove(lock)


def sweep_locks(folder: Path) -> None:
    """Removes lock files that killed processes left behind."""
    for path in folder.glob("*"):
        lock = FileLock(path, fallback_to_soft=False)
        with suppress(OSError):  # another holds it, or it may not be written
            lock.acquire(blocking=False)
            _remove(lock)


def _remove(lock: FileLock) -> None:
    with suppress(OSError):  # removed while it is locked, so that who waits for this file starts over with a new one
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
