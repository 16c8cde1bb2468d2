"""Folders that appear whole or not at all: filled under another name, made durable, then renamed."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".unfinished-"


@contextmanager
def whole_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Gives an empty folder beside `final`, which takes its name when the block ends well and is removed when not.

    Args:
        final: Where the folder is to be. Its parents are made.
        replace: Whether a folder that is already there gives way; else it stays and the new one is dropped (another
            process finished the same work meanwhile). An empty folder always gives way.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(final.parent)
    folder = final.parent / f"{_unfinished_prefix()}{os.getpid()}-{final.name[:32]}"
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had this one's number
    folder.mkdir()
    try:
        yield folder
        _flush(folder)
        aside = folder.with_name(f"{folder.name}-old")
        if replace and final.exists():
            final.rename(aside)
        if not final.exists() or not any(final.iterdir()):
            folder.rename(final)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_unfinished(parent: Path) -> None:
    """Removes folders in `parent` that killed processes of this machine left unfinished."""
    prefix = _unfinished_prefix()
    for path in parent.glob(f"{prefix}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _unfinished_prefix() -> str:
    return f"{_UNFINISHED}{socket.gethostname()}-"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(folder: Path) -> None:
    """Makes the files durable before the rename, so that a power cut cannot leave a folder of empty files."""
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
