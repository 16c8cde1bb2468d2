"""Fetches a proxy, whole or its tables alone. A proxy is a stranger's: its manifest is read first, and everything in it is compared with the bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxyds.arguments import as_path, as_place
from proxyds.artifact.manifest import MANIFEST, FileFacts, Manifest
from proxyds.artifact.reader import MAX_MANIFEST_BYTES, list_tables, measure_file, read_manifest, verify_proxy
from proxyds.artifact.writer import check_output
from proxyds.errors import (
    ArtifactError,
    NoSpaceError,
    OutputExistsError,
    ProxydsError,
    RemoteError,
    VerificationError,
    translate_os_errors,
)
from proxyds.layout import Readable, fill_in
from proxyds.pipeline.audit import audit_proxy
from proxyds.progress import OnProgress, ignore_progress
from proxyds.progress_bars import showing_progress
from proxyds.runtime.storage import hub
from proxyds.runtime.storage.address import AtUrl, OnHub, read_place, read_remote, show_address
from proxyds.runtime.storage.atomic import temporary_folder, whole_folder
from proxyds.runtime.storage.remote import UNFINISHED, RemoteFolder, open_url


@dataclass(frozen=True)
class PublishedProxy:
    """Where a proxy was fetched from.

    Attributes:
        name: For people: `user/name@v1.0.0`, or an address.
        commit: Commit on the Hub.
        tags: Tags of the repository, where the Hub was asked.
        is_from_cache: Whether the Hub was not asked, since `HF_HUB_OFFLINE` is set.
        is_head: Whether no version was asked for.
    """

    name: str
    commit: str | None = None
    tags: tuple[str, ...] = ()
    is_from_cache: bool = False
    is_head: bool = False


@dataclass(frozen=True)
class Pulled(Readable):
    """A proxy that was fetched.

    Attributes:
        folder: Where the proxy is.
        manifest: Its manifest; all of it was compared with the bytes.
        origin: Where the proxy came from.
        was_there: Whether the very proxy was in the folder already.
    """

    folder: Path
    manifest: Manifest
    origin: PublishedProxy
    was_there: bool

    def describe(self, width: int | None, place: str = "") -> str:
        """Writes what was fetched, and whether to believe it.

        Args:
            width: See `Readable.describe`.
            place: Where it is for people; the folder, if empty.
        """
        template = Path(__file__).with_name("pulled.jinja")
        return fill_in(template, width, place=place or self.folder, **vars(self))

    def __repr__(self) -> str:
        return f"<Pulled {self.manifest.name} {self.manifest.version} from {self.origin.name}; {self.folder}>"

    def __fspath__(self) -> str:
        """The folder: what was fetched serves where a proxy is asked for."""
        return os.fspath(self.folder)


class HubProxy:
    """A proxy in a revision on the Hub. Files that the Hub client's cache holds damaged are asked for once more.

    Attributes:
        origin: What it is.
        sizes: Bytes of its files, by name, but for the Hub's own file; None where the Hub was not asked.
    """

    def __init__(self, revision: hub.Revision) -> None:
        self._revision = revision
        tags, is_head = tuple(sorted(revision.tags)), revision.asked is None
        self.origin = PublishedProxy(revision.name, revision.commit, tags, revision.is_from_cache, is_head)
        self.sizes = _leave_out(hub.OWN_FILE, revision.files)

    def fetch_manifest(self, folder: Path) -> Manifest:
        """Fetches the manifest into a folder and reads it.

        Raises:
            ArtifactError: There is none, or it is malformed or too large.
        """
        size = 0 if self.sizes is None else self.sizes.get(MANIFEST)
        if size is None:
            raise _no_proxy(self.origin)
        if size > MAX_MANIFEST_BYTES:
            raise ArtifactError(
                f"{self.origin.name}: {MANIFEST} must have {MAX_MANIFEST_BYTES:,} bytes at most, has {size:,}; do not use this proxy"
            )
        hub.fetch_files(self._revision, {MANIFEST: size}, folder)
        try:
            return read_manifest(folder)
        except ArtifactError:
            if self._revision.is_from_cache:
                raise
            hub.fetch_files(self._revision, {MANIFEST: size}, folder, anew=True)
            return read_manifest(folder)

    def fetch_files(self, files: Mapping[str, FileFacts], folder: Path, on_progress: OnProgress) -> None:
        """Fetches files into a folder."""
        sizes = {name: each.bytes for name, each in files.items()}
        hub.fetch_files(self._revision, sizes, folder, on_progress)
        damaged = {name: sizes[name] for name, each in files.items() if measure_file(folder / name) != each}
        if damaged and not self._revision.is_from_cache:
            hub.fetch_files(self._revision, damaged, folder, on_progress, anew=True)


class UrlProxy:
    """A proxy in a folder at an address; see `HubProxy`."""

    def __init__(self, remote: RemoteFolder) -> None:
        self._remote = remote
        self.origin = PublishedProxy(remote.name)
        self.sizes = _leave_out(UNFINISHED, remote.list_files())

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


def _leave_out(name: str, sizes: Mapping[str, int] | None) -> dict[str, int] | None:
    return None if sizes is None else {each: size for each, size in sizes.items() if each != name}


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


@showing_progress
def pull(
    place: str,
    out: str | Path | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
    quiet: bool | None = None,  # noqa: ARG001 - for `showing_progress`
) -> Pulled:
    """Fetches a proxy and verifies every byte of it; the folder appears whole or not at all.

    Args:
        place: `user/name@v1.0.0` on the Hub (without a version: the head of its `main`), or an address.
        out: The folder to make; None for one of the repository's name in this folder.
        on_progress: Called as files arrive.
        quiet: See `runtime.execution.Options`.

    Raises:
        RemoteNotFoundError: There is nothing at the place.
        RemoteError: The place cannot be reached; what arrived from the Hub is kept in its client's cache.
        ArtifactError: What is there is no proxy, or holds what a proxy may not.
        VerificationError: Files differ from the manifest, or are not in it.
        OutputExistsError: The folder holds something else.
        NoSpaceError: The proxy does not fit on the disk.
    """
    target = read_remote(as_place(place, "place"))
    out = as_path(default_folder(place) if out is None else out, "out").absolute()
    with translate_os_errors(out, "choose another folder"):
        existing = check_output(out)
        out = out.resolve()
    source = open_published(target)
    if existing is not None:
        with temporary_folder() as folder, named_as(source.origin.name, folder):
            manifest = source.fetch_manifest(folder)
        if existing != manifest:
            raise OutputExistsError(
                f"must be a new folder, found another proxy, {existing.name} {existing.version}; it was not touched: choose another folder, or "
                "move it away",
                place=out,
            )
        return Pulled(out, verify_proxy(out), source.origin, was_there=True)
    with translate_os_errors(out, "choose another folder"), whole_folder(out, "refuse") as folder:
        manifest = fetch_proxy(source, folder, on_progress)
    return Pulled(out, manifest, source.origin, was_there=False)


def keep_here(place: OnHub | AtUrl, shelf: Path, on_progress: OnProgress = ignore_progress) -> Path:
    """Fetches a proxy into a folder that is named by its manifest, unless it is there; raises what `pull` does.

    Args:
        place: Where the proxy lies.
        shelf: The folder that proxies are kept in.
        on_progress: Called as files arrive.
    """
    source = open_published(place)
    with temporary_folder() as folder, named_as(source.origin.name, folder):
        source.fetch_manifest(folder)
        own = shelf / measure_file(folder / MANIFEST).sha256[:32]
    if not (own / MANIFEST).is_file():
        with translate_os_errors(own, "set PROXYDS_STORE to another folder"), whole_folder(own, "give way") as folder:
            fetch_proxy(source, folder, on_progress)
    return own


def default_folder(place: str) -> str:
    """Names the folder that a place is fetched into unless another is given."""
    target = read_remote(place)
    shown = target.repo if isinstance(target, OnHub) else show_address(target.url)
    return shown.rpartition("/")[2]


def fetch_proxy(source: HubProxy | UrlProxy, folder: Path, on_progress: OnProgress) -> Manifest:
    """Fetches a whole proxy into an empty folder and audits it; raises what `pull` does, errors name the place it came from."""
    with named_as(source.origin.name, folder):
        manifest = _fetch_manifest(source, folder)
        needed, free = sum(each.bytes for each in manifest.files.values()), shutil.disk_usage(folder).free
        if needed > free:
            raise NoSpaceError(
                f"{folder.parent}: must have {needed:,} bytes free for the proxy, has {free:,}; free some space, or choose another folder"
            )
        source.fetch_files(manifest.files, folder, on_progress)
        return audit_proxy(folder)[0]


def _fetch_manifest(source: HubProxy | UrlProxy, folder: Path) -> Manifest:
    """Fetches a manifest, and compares its list of files with those at its place before anything large is fetched."""
    manifest, sizes = source.fetch_manifest(folder), source.sizes
    if sizes is None:
        return manifest
    problems = [f"{name}: not in the manifest" for name in sorted(set(sizes) - set(manifest.files) - {MANIFEST})]
    for name, facts in manifest.files.items():
        if name not in sizes:
            problems.append(f"{name}: missing")
        elif sizes[name] != facts.bytes:
            problems.append(f"{name}: must have {facts.bytes:,} bytes, has {sizes[name]:,}")
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:20])
        raise VerificationError(
            f"{source.origin.name}: {len(problems)} files differ from {MANIFEST}:\n{shown}\nnothing was fetched; do not use this proxy"
        )
    return manifest


@contextmanager
def open_tables(
    place: str,
    on_progress: OnProgress = ignore_progress,
    choose: Callable[[Manifest], Mapping[str, FileFacts]] = list_tables,
) -> Iterator[tuple[Path, str]]:
    """Opens a proxy's folder for `audit_tables`; for a place elsewhere, a temporary copy of the files that it reads, without images.

    Args:
        place: A folder, `user/name@v1.0.0`, or an address.
        on_progress: Called as files arrive.
        choose: Lists the files that are read besides the manifest.

    Yields:
        The folder, and the place for people.

    Raises:
        RemoteError: The place cannot be reached.
    """
    target = read_place(place)
    if isinstance(target, Path):
        yield target, str(target)
        return
    try:
        source = open_published(target)
    except RemoteError as error:
        if isinstance(target, OnHub) and "://" not in place:  # as a folder's name may read
            error.message += f"; nor is there a folder {place} here"
        raise
    with temporary_folder() as folder, named_as(source.origin.name, folder):
        source.fetch_files(choose(_fetch_manifest(source, folder)), folder, on_progress)
        yield folder, source.origin.name


@contextmanager
def named_as(name: str, folder: Path) -> Iterator[None]:
    """Lets errors name the place that a temporary folder stands for."""
    try:
        yield
    except ProxydsError as error:
        error.show_folder_as(folder, name)
        raise
