"""Folders that appear whole or not at all: filled under another name, made durable, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from uuid import uuid4

from proxyds.errors import DISK_FULL, NoPermissionError, OutputError, OutputExistsError, translate_os_errors

_UNFINISHED, _REPLACED = ".unfinished", ".replaced"
_NAMESPACE_OF_MACHINE = 0xEFFFFFFC
"""Linux' number of the namespace of processes that a machine starts with."""


@contextmanager
def whole_folder(final: Path, if_there: Literal["refuse", "replace", "give way"]) -> Iterator[Path]:
    """Gives an empty folder beside `final`, which takes its name when the block ends well and is removed when not.

    Args:
        final: Where the folder is to be. Its parents are made.
        if_there: What happens when `final` is there at the end and not empty: an error, it is replaced, or the new folder
            gives way to it (another process finished the same work).

    Raises:
        OutputExistsError: `final` is there and `if_there` is `refuse`; it is not touched.
        OutputError: It is a place where no folders can be made.
    """
    try_folder(final)
    new_parents = [parent for parent in final.parents if not parent.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(final.parent)
    folder = _beside(final, _UNFINISHED)
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had this one's number
    folder.mkdir()
    try:
        yield folder
        _flush(folder)
        if not final.exists() or not any(final.iterdir()):
            folder.rename(final)
        elif if_there == "replace":
            _replace(final, folder)
        elif if_there == "refuse":
            raise OutputExistsError(
                "something appeared there meanwhile and was not touched; choose another folder", place=final
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in new_parents if not final.exists() else []:
            with suppress(OSError):  # somebody else may use it by now
                parent.rmdir()


def try_folder(final: Path) -> None:
    """Makes a folder near to where one is to be, and removes it, so that no hours of work go to a place that may not be written.

    Raises:
        OutputError: It is a place where no folders can be made.
        OSError: It may not be written.
    """
    existing = next(parent for parent in final.parents if parent.exists())
    try:
        with TemporaryDirectory(dir=existing, prefix=".proxyds-"):
            pass
    except FileNotFoundError:  # as /proc says it
        raise OutputError("cannot be made, no folders can be made there; choose another place", place=final) from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Gives an empty folder among the system's temporary ones, which is gone after the block.

    Raises:
        NoSpaceError: What is written there does not fit.
        NoPermissionError: There is no place for temporary files.
    """
    with translate_os_errors("temporary files", "set TMPDIR to another place"):
        try:
            folder = TemporaryDirectory(prefix="proxyds-")
        except FileNotFoundError:  # so it says that it may write nowhere
            raise NoPermissionError(
                "temporary files: must have a place that may be written and has room; set TMPDIR to one"
            ) from None
    with folder as place:
        try:
            yield Path(place)
        except OSError as error:  # others are of what else is done in the block
            if error.errno in DISK_FULL or str(error.filename).startswith(place):
                with translate_os_errors("temporary files", "set TMPDIR to another place"):
                    raise
            raise


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file at a stroke: it has its old bytes or its new ones, never half of them."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid4().hex[:12]}.new")  # of this writer alone
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def sweep_half_files(folder: Path) -> None:
    """Removes what killed processes left of files that `replace_file` was writing."""
    for path in folder.rglob(".*.new"):
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder so that a stop half-way does not leave half of it under its name."""
    doomed = _beside(folder, _UNFINISHED)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def sweep_unfinished(parent: Path) -> None:
    """Puts right what killed processes of this machine left in `parent`.

    Unfinished folders go; a folder that was being replaced comes back unless its successor is there.
    """
    made_here = re.compile(rf"(\.\w+)-{re.escape(name_processes())}-(\d+)-(.+)", re.DOTALL)
    for path in [*parent.glob(f"{_UNFINISHED}-*"), *parent.glob(f"{_REPLACED}-*")]:
        parts = made_here.fullmatch(path.name)
        if parts is None or is_running(int(parts[2])):
            continue
        final = parent / parts[3]
        if parts[1] == _REPLACED and not final.exists():
            path.rename(final)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _replace(final: Path, folder: Path) -> None:
    aside = _beside(final, _REPLACED)
    final.rename(aside)
    try:
        folder.rename(final)
    except BaseException:
        aside.rename(final)
        raise
    shutil.rmtree(aside)


def _beside(final: Path, kind: str) -> Path:
    return final.parent / f"{kind}-{name_processes()}-{os.getpid()}-{final.name}"


@cache
def name_processes() -> str:
    """Names those processes whose numbers this one can tell: of this machine; in a container, which may share the machine's name, of that alone."""
    with suppress(OSError):
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        if namespace != _NAMESPACE_OF_MACHINE:
            return f"{socket.gethostname()}.{namespace}"
    return socket.gethostname()


def is_running(pid: int) -> bool:
    """Tells whether this machine has such a process, and not only what is left of one until its parent asks."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # there is no such list here
        return True


def _flush(folder: Path) -> None:
    """Makes the files durable before the rename, so that a power cut cannot leave a folder of empty files."""
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
