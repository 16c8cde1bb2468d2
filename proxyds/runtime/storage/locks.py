"""Who does a piece of work where several builds share a store: one does it, the others wait for it or take over.

A claim is a small file that one alone can create, `<name>-0`. Its holder writes into it every few seconds. It is dead when
its process is gone, where that can be seen, or when whoever waits has seen it unchanged for a while by its own clock: no
two machines' clocks are compared. A dead claim is left alone, since two who both replaced it would both hold it; who takes
over creates the next one, `<name>-1`, which again one alone can. In the worst case (a holder that was only asleep, a
protocol that cannot create exclusively) work is done twice; the store keeps one result of equal ones.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from proxyds.errors import ProxydsError, RemoteNotFoundError
from proxyds.runtime.storage.atomic import is_running, replace_file, try_folder
from proxyds.runtime.storage.remote import UrlFolder

BEAT_SECONDS, DEAD_SECONDS = 5.0, 60.0
"""How often a holder writes; how long it may not before others take over."""
POLL_SECONDS = 1.0
"""How often those who wait look."""
READ_BACK_SECONDS = 0.5
"""Where a protocol cannot create exclusively: others who created the same claim have written by then, and the last one holds it."""
_LAST_BEAT_SECONDS = 10.0
"""How long a holder that has ended waits for a beat under way; one that comes later leaves a dead claim behind."""
_FORGOTTEN_SECONDS = 86_400.0
"""A claim without a beat for so long is swept; no clocks differ by that."""


class ClaimFiles(Protocol):
    """A folder of claims, somewhere.

    Attributes:
        creates_exclusively: Whether `create` lets one of several who try at once.
    """

    @property
    def creates_exclusively(self) -> bool:
        """See the attributes."""

    def names(self) -> list[str]:
        """Those that are there."""

    def read(self, name: str) -> bytes | None:
        """What one holds; None where it is not there."""

    def create(self, name: str, held: bytes) -> bool:
        """Makes one unless it is there; returns whether it was not."""

    def write(self, name: str, held: bytes) -> None:
        """Replaces what one holds."""

    def remove(self, name: str) -> None:
        """Removes one, if it is there."""


class LocalClaims:
    """Claims in a folder here.

    Args:
        folder: Where they are.
        translating: Makes the block that says what cannot be written.
    """

    creates_exclusively = True

    def __init__(self, folder: Path, translating: Callable[[], AbstractContextManager[None]]) -> None:
        self._folder, self._translating = folder, translating

    def names(self) -> list[str]:
        """See `ClaimFiles`."""
        return [path.name for path in self._folder.glob("[!.]*")]

    def read(self, name: str) -> bytes | None:
        """See `ClaimFiles`."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, name: str, held: bytes) -> bool:
        """See `ClaimFiles`."""
        path = self._folder / name
        with self._translating():
            try_folder(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                stream = path.open("xb")
            except FileExistsError:
                return False
            with stream:
                stream.write(held)
        return True

    def write(self, name: str, held: bytes) -> None:
        """See `ClaimFiles`."""
        replace_file(self._folder / name, held)

    def remove(self, name: str) -> None:
        """See `ClaimFiles`."""
        (self._folder / name).unlink(missing_ok=True)


class RemoteClaims:
    """Claims at an address."""

    def __init__(self, remote: UrlFolder) -> None:
        self._remote = remote

    @property
    def creates_exclusively(self) -> bool:
        """See `ClaimFiles`."""
        return self._remote.creates_exclusively

    def names(self) -> list[str]:
        """See `ClaimFiles`."""
        return self._remote.list_names()

    def read(self, name: str) -> bytes | None:
        """See `ClaimFiles`."""
        return self._remote.read_files([name]).get(name)

    def create(self, name: str, held: bytes) -> bool:
        """See `ClaimFiles`."""
        return self._remote.create_file(name, held)

    def write(self, name: str, held: bytes) -> None:
        """See `ClaimFiles`."""
        self._remote.write_file(name, held)

    def remove(self, name: str) -> None:
        """See `ClaimFiles`."""
        with suppress(RemoteNotFoundError):
            self._remote.remove_files([name])


@contextmanager
def claiming(
    files: ClaimFiles,
    name: str,
    is_done: Callable[[], bool],
    on_wait: Callable[[], None],
    patiently: Callable[[Callable[[], Any]], Any],
) -> Iterator[bool]:
    """Claims a piece of work for the block, or waits until another has done it.

    Args:
        files: Where claims are.
        name: Of the work.
        is_done: Whether its result is there.
        on_wait: Called now and then while another holds it.
        patiently: Asks for something again that failed by what may pass, and tells what does not.

    Yields:
        True where the work is the caller's to do; False where it is done.
    """
    held = _wait(files, name, is_done, on_wait, patiently)
    if held is None:
        yield False
        return
    number, beat = held
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(stop, partial(files.write, f"{name}-{number}"), beat), daemon=True)
    heart.start()
    try:
        yield not is_done()  # it may have been done between the caller's last look and the claim
    finally:
        stop.set()
        heart.join(timeout=_LAST_BEAT_SECONDS)
        for each in range(number + 1):  # the oldest first: what is left is the newest, and holds until it is gone
            with suppress(ProxydsError, OSError):
                files.remove(f"{name}-{each}")


def sweep_claims(files: ClaimFiles) -> list[str]:
    """Removes claims of processes of this machine that are gone, and those that everybody has forgotten.

    Returns:
        The names of work that is claimed still.
    """
    alive = []
    for claim in files.names():
        held, now = files.read(claim), time.time()
        if held is not None and not _is_gone(held) and now - _read(held).get("time", now) < _FORGOTTEN_SECONDS:
            alive.append(claim.rpartition("-")[0])
        else:
            files.remove(claim)
    return alive


def _wait(
    files: ClaimFiles,
    name: str,
    is_done: Callable[[], bool],
    on_wait: Callable[[], None],
    patiently: Callable[[Callable[[], Any]], Any],
) -> tuple[int, _Beat] | None:
    """Waits for a claim or for the result, whichever comes first; returns the claim's number and what it holds, or None."""
    watched: tuple[int, bytes | None] | None = None
    since = 0.0
    while True:
        newest = _newest(patiently(files.names), name)
        is_free = newest < 0
        if not is_free:
            held = patiently(partial(files.read, f"{name}-{newest}"))
            if (newest, held) != watched:
                watched, since = (newest, held), time.monotonic()
            is_free = held is not None and (_is_gone(held) or time.monotonic() - since > DEAD_SECONDS)
        if is_free:
            beat = _Beat()
            if patiently(partial(_create, files, f"{name}-{newest + 1}", bytes(beat))):
                return newest + 1, beat
        if is_done():
            return None
        on_wait()
        time.sleep(POLL_SECONDS)


def _create(files: ClaimFiles, claim: str, held: bytes) -> bool:
    created = files.create(claim, held)
    if created and not files.creates_exclusively:
        time.sleep(READ_BACK_SECONDS)
        return files.read(claim) == held
    return created


def _newest(claims: Sequence[str], name: str) -> int:
    """The number of the newest claim on a piece of work; -1 where there is none."""
    numbers = [claim.removeprefix(f"{name}-") for claim in claims if claim.startswith(f"{name}-")]
    return max((int(number) for number in numbers if number.isdecimal()), default=-1)


class _Beat:
    """What a claim holds: whose it is, and what changes with every beat."""

    def __init__(self) -> None:
        self._about = {"machine": _this_machine(), "pid": os.getpid(), "claim": uuid4().hex}
        self._number = 0

    def __bytes__(self) -> bytes:
        self._number += 1
        return json.dumps({**self._about, "beat": self._number, "time": time.time()}).encode()


def _beat(stop: threading.Event, write: Callable[[bytes], None], beat: _Beat) -> None:
    while not stop.wait(BEAT_SECONDS):
        with suppress(ProxydsError, OSError):  # the next one may do better; without any, others take over
            write(bytes(beat))


def _is_gone(held: bytes) -> bool:
    """Whether a claim's process is known to have ended."""
    about = _read(held)
    return about.get("machine") == _this_machine() and not is_running(about["pid"])


def _read(held: bytes) -> dict[str, Any]:
    """What a claim says; nothing where its holder was killed before it was written."""
    try:
        about = json.loads(held)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


@cache
def _this_machine() -> str:
    """Within which numbers of processes mean the same: a container has a machine's name, maybe, but numbers of its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
