"""A proxy is fetched, whole or its tables alone. It is a stranger's: its manifest is read first, and believed in nothing that its bytes do not show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxyds.artifact.manifest import MANIFEST, FileFacts, Manifest
from proxyds.artifact.reader import MAX_MANIFEST_BYTES, list_tables, measure_file, read_manifest, verify_proxy
from proxyds.artifact.writer import check_output
from proxyds.errors import (
    ArtifactError,
    NoSpaceError,
    OutputExistsError,
    ProxydsError,
    VerificationError,
    translate_os_errors,
)
from proxyds.pipeline.audit import audit_proxy
from proxyds.progress import OnProgress, ignore_progress
from proxyds.runtime.storage import hub
from proxyds.runtime.storage.address import AtUrl, OnHub, read_place, read_remote, show_address
from proxyds.runtime.storage.atomic import temporary_folder, whole_folder
from proxyds.runtime.storage.remote import UNFINISHED, RemoteFolder, open_url


@dataclass(frozen=True)
class PublishedProxy:
    """Where a proxy was fetched from.

    Attributes:
        name: For people: `user/name@v1.0.0`, or an address.
        commit: On the Hub.
        tags: Of the repository, where the Hub was asked.
        is_from_cache: Whether the Hub was not asked, since `HF_HUB_OFFLINE` is set.
        is_head: Whether no version was asked for.
    """

    name: str
    commit: str | None = None
    tags: tuple[str, ...] = ()
    is_from_cache: bool = False
    is_head: bool = False


@dataclass(frozen=True)
class Pulled:
    """A proxy that was fetched.

    Attributes:
        folder: Where it is.
        manifest: What it says of itself; all of it was compared with its bytes.
        origin: Where it came from.
        was_there: Whether the very proxy was in the folder already.
    """

    folder: Path
    manifest: Manifest
    origin: PublishedProxy
    was_there: bool


class HubProxy:
    """What fetching needs of a revision on the Hub.

    Attributes:
        origin: What it is.
        listed: Its files with their bytes, but for the Hub's own; None where the Hub was not asked.
    """

    def __init__(self, at: hub.Revision) -> None:
        self._at = at
        self.origin = PublishedProxy(
            at.name, at.commit, tuple(sorted(at.tags)), at.is_from_cache, is_head=at.asked is None
        )
        self.listed = None if at.files is None else {name: n for name, n in at.files.items() if name != hub.OWN_FILE}

    def fetch_manifest(self, folder: Path) -> Manifest:
        """Fetches the manifest into a folder and reads it; one that the client's cache holds damaged is asked for once more.

        Raises:
            ArtifactError: There is none, or it is malformed or too large.
        """
        size = 0 if self.listed is None else self.listed.get(MANIFEST)
        if size is None:
            raise _no_proxy(self.origin)
        if size > MAX_MANIFEST_BYTES:
            raise ArtifactError(
                f"{self.origin.name}: {MANIFEST} must have {MAX_MANIFEST_BYTES:,} bytes at most, has {size:,}; do not use this proxy"
            )
        hub.fetch_files(self._at, {MANIFEST: size}, folder)
        try:
            return read_manifest(folder)
        except ArtifactError:
            if self._at.is_from_cache:
                raise
            hub.fetch_files(self._at, {MANIFEST: size}, folder, anew=True)
            return read_manifest(folder)

    def fetch_files(self, files: Mapping[str, FileFacts], folder: Path, on_progress: OnProgress) -> None:
        """Fetches files into a folder; one that the client's cache holds damaged is asked for once more."""
        sizes = {name: each.bytes for name, each in files.items()}
        hub.fetch_files(self._at, sizes, folder, on_progress)
        damaged = {name: sizes[name] for name, each in files.items() if measure_file(folder / name) != each}
        if damaged and not self._at.is_from_cache:
            hub.fetch_files(self._at, damaged, folder, on_progress, anew=True)


class UrlProxy:
    """What fetching needs of a folder at an address; see `HubProxy`."""

    def __init__(self, remote: RemoteFolder) -> None:
        self._remote = remote
        self.origin = PublishedProxy(remote.name)
        listed = remote.list_files()
        self.listed = None if listed is None else {name: n for name, n in listed.items() if name != UNFINISHED}

    def fetch_manifest(self, folder: Path) -> Manifest:
        """Fetches as `HubProxy` does."""
        content = self._remote.read_file(MANIFEST, MAX_MANIFEST_BYTES)
        if content is None and self._remote.read_file(UNFINISHED, 0) is not None:
            raise ArtifactError(
                f"{self.origin.name}: must be a whole proxy, a push to it has not ended; repeat that push"
            )
        if content is None:
            raise _no_proxy(self.origin)
        (folder / MANIFEST).write_bytes(content)
        return read_manifest(folder)

    def fetch_files(self, files: Mapping[str, FileFacts], folder: Path, on_progress: OnProgress) -> None:
        """Fetches as `HubProxy` does."""
        self._remote.fetch_files({name: each.bytes for name, each in files.items()}, folder, on_progress)


def _no_proxy(origin: PublishedProxy) -> ArtifactError:
    return ArtifactError(f"{origin.name}: must be a proxy, it has no {MANIFEST}; `proxyds push` publishes one")


def open_published(place: OnHub | AtUrl) -> HubProxy | UrlProxy:
    """Opens a place that is no folder here.

    Raises:
        RemoteError: There is nothing, or it cannot be reached.
    """
    if isinstance(place, OnHub):
        return HubProxy(hub.find_revision(place.repo, place.revision))
    return UrlProxy(open_url(place.url))


def pull(place: str, out: str | Path | None = None, *, on_progress: OnProgress = ignore_progress) -> Pulled:
    """Fetches a proxy and verifies every byte of it; the folder appears whole or not at all.

    Args:
        place: `user/name@v1.0.0` on the Hub (without a version: the head of its `main`), or an address.
        out: The folder to make; None for one of the repository's name in this folder.
        on_progress: Called as files arrive.

    Raises:
        RemoteNotFoundError: There is nothing.
        RemoteError: It cannot be reached; what arrived from the Hub is kept in its client's cache.
        ArtifactError: What is there is no proxy, or holds what it may not.
        VerificationError: Files differ from the manifest, or are not in it.
        OutputExistsError: The folder holds something else.
        NoSpaceError: It does not fit.
    """
    target = read_remote(place)
    out = Path(default_folder(place) if out is None else out).absolute()
    with translate_os_errors(out, "choose another -o"):
        existing = check_output(out)
        out = out.resolve()
    source = open_published(target)
    if existing is not None:
        with temporary_folder() as folder, named_as(source.origin.name, folder):
            manifest = source.fetch_manifest(folder)
        if existing != manifest:
            raise OutputExistsError(
                f"must be a new folder, found another proxy, {existing.name} {existing.version}; it was not touched: choose another -o, or "
                "move it away",
                place=out,
            )
        return Pulled(out, verify_proxy(out), source.origin, was_there=True)
    with translate_os_errors(out, "choose another -o"), whole_folder(out, "refuse") as folder:
        manifest = fetch_proxy(source, folder, on_progress)
    return Pulled(out, manifest, source.origin, was_there=False)


def default_folder(place: str) -> str:
    """Names the folder that a place is fetched into unless another is given."""
    target = read_remote(place)
    shown = target.repo if isinstance(target, OnHub) else show_address(target.url)
    return shown.rpartition("/")[2]


def fetch_proxy(source: HubProxy | UrlProxy, folder: Path, on_progress: OnProgress) -> Manifest:
    """Fetches a whole proxy into an empty folder and audits it; errors name the place it came from.

    Raises:
        VerificationError: Files differ from the manifest, or are not in it.
        ArtifactError: It holds what a proxy may not.
        NoSpaceError: It does not fit.
    """
    with named_as(source.origin.name, folder):
        manifest = _fetch_manifest(source, folder)
        _check_room(folder, manifest)
        source.fetch_files(manifest.files, folder, on_progress)
        return audit_proxy(folder)[0]


def _fetch_manifest(source: HubProxy | UrlProxy, folder: Path) -> Manifest:
    """Fetches a manifest, and compares what it says with what is at its place, before anything large is fetched.

    Raises:
        VerificationError: Files are missing, of another size, or not in the manifest; names each.
    """
    manifest = source.fetch_manifest(folder)
    listed, name = source.listed, source.origin.name
    if listed is None:
        return manifest
    problems = [f"{each}: not in the manifest" for each in sorted(set(listed) - set(manifest.files) - {MANIFEST})]
    for each, facts in manifest.files.items():
        if each not in listed:
            problems.append(f"{each}: missing")
        elif listed[each] != facts.bytes:
            problems.append(f"{each}: must have {facts.bytes:,} bytes, has {listed[each]:,}")
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:20])
        raise VerificationError(
            f"{name}: {len(problems)} files differ from {MANIFEST}:\n{shown}\nnothing was fetched; do not use this proxy"
        )
    return manifest


def _check_room(folder: Path, manifest: Manifest) -> None:
    needed, free = sum(each.bytes for each in manifest.files.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(
            f"{folder.parent}: must have {needed:,} bytes free for the proxy, has {free:,}; free some space, or choose another -o"
        )


@contextmanager
def open_tables(place: str, on_progress: OnProgress = ignore_progress) -> Iterator[tuple[Path, str]]:
    """Opens a proxy's folder for `audit_tables`; of a place elsewhere a temporary copy of what that reads, without the images.

    Args:
        place: A folder, `user/name@v1.0.0`, or an address.
        on_progress: Called as files arrive.

    Yields:
        The folder, and the place for people.

    Raises:
        RemoteError: It cannot be reached.
    """
    target = read_place(place)
    if isinstance(target, Path):
        yield target, str(target)
        return
    source = open_published(target)
    with temporary_folder() as folder, named_as(source.origin.name, folder):
        source.fetch_files(list_tables(_fetch_manifest(source, folder)), folder, on_progress)
        yield folder, source.origin.name


@contextmanager
def named_as(name: str, folder: Path) -> Iterator[None]:
    """Lets errors name the place that a temporary folder stands for."""
    try:
        yield
    except ProxydsError as error:
        error.show_folder_as(folder, name)
        raise
