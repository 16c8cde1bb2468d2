"""Publishes a proxy: on the Hub with a tag that is put last and never moved, at any other address with the manifest last."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from proxyds.arguments import as_path, as_place
from proxyds.artifact.manifest import MANIFEST, FileFacts, Manifest
from proxyds.artifact.reader import MAX_MANIFEST_BYTES, measure_file, verify_proxy
from proxyds.artifact.writer import check_outside_proxies
from proxyds.errors import (
    ArtifactError,
    BelowThresholdError,
    OutputExistsError,
    PushError,
    RemoteError,
    RemoteNotFoundError,
    TagExistsError,
)
from proxyds.layout import Readable, fill_in
from proxyds.pipeline.audit import audit_proxy
from proxyds.pipeline.sharing.pull import HubProxy, UrlProxy, fetch_proxy, named_as
from proxyds.progress import OnProgress, ignore_progress
from proxyds.progress_bars import showing_progress
from proxyds.runtime.storage import hub
from proxyds.runtime.storage.address import OnHub, read_address, read_remote, show_address
from proxyds.runtime.storage.atomic import temporary_folder
from proxyds.runtime.storage.hub_errors import retry
from proxyds.runtime.storage.remote import UNFINISHED, RemoteFolder, open_url
from proxyds.text import make_plain

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Change = Literal["new", "changed", "unchanged", "removed"]


@dataclass(frozen=True)
class PushedFile:
    """One file of a push, and what became of it, or would."""

    name: str
    n_bytes: int
    change: Change

    @property
    def is_sent(self) -> bool:
        """Whether the file's bytes go over the line."""
        return self.change in ("new", "changed")


@dataclass(frozen=True)
class Pushed(Readable):
    """What a push did, or would do.

    Attributes:
        place: For people: `user/name`, or an address.
        manifest: Manifest of the proxy.
        files: Every file, and those that were removed from the place.
        tag: Tag of the commit; None for a pull request and where places have no versions.
        commit: Commit on the Hub; None for a dry run.
        pull_request: Address of the pull request, if it is one.
        replaced: Version of the proxy that the repository's `main` had, if another.
        shares_version: Whether the repository has other bytes under the same version, on `main` until now or at the version's tag.
        is_new_place: Whether the repository was made for it.
        is_private: Whether the repository is private; None where the place is no repository.
        was_there: Whether the very proxy was there already, tag and all, and nothing was changed.
        is_plan: Whether nothing was done, only looked at.
    """

    place: str
    manifest: Manifest
    files: tuple[PushedFile, ...]
    tag: str | None = None
    commit: str | None = None
    pull_request: str | None = None
    replaced: str | None = None
    shares_version: bool = False
    is_new_place: bool = False
    is_private: bool | None = None
    was_there: bool = False
    is_plan: bool = False

    def describe(self, width: int | None) -> str:
        """Writes what was done, or would be, with each file of a dry run; see `Readable.describe`."""
        return fill_in(Path(__file__).with_name("pushed.jinja"), width, pushed=self)

    def __repr__(self) -> str:
        done = "a dry run" if self.is_plan else "was there already" if self.was_there else "done"
        return f"<Pushed {self.manifest.name} {self.manifest.version} to {self.place}: {done}>"


@showing_progress
def push(
    folder: str | Path,
    place: str,
    *,
    tag: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    below_threshold: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress = ignore_progress,
    quiet: bool | None = None,  # noqa: ARG001 - for `showing_progress`
) -> Pushed:
    """Publishes a proxy.

    On the Hub all files go in one commit, which is compared with the folder before the tag is put on it: a push that breaks off
    leaves what was there, and can be repeated. At other addresses the manifest is written last.

    Args:
        folder: The proxy.
        place: `user/name` on the Hub, or an address such as `s3://bucket/folder`.
        tag: Of this version on the Hub: `v` and the proxy's version, as None means, or a name; not another version's number.
        private: Make the repository private, if it is new.
        create_pr: Ask the repository's owner for the change instead of making it; no tag is put.
        below_threshold: Publish it although its check fell below its threshold.
        dry_run: Look, and change nothing.
        on_progress: Called as files are sent.
        quiet: See `runtime.execution.Options`.

    Raises:
        ArtifactError: It is no proxy, or holds what it may not.
        VerificationError: Its files differ from its manifest.
        BelowThresholdError: Its check fell below its threshold.
        TagExistsError: The tag is there, on other bytes.
        OutputExistsError: The place holds something else.
        RemoteError: The place cannot be reached or does not allow it; see its subclasses.
    """
    folder = as_path(folder, "folder")
    target = read_remote(as_place(place, "place"))
    if create_pr and tag is not None:
        raise PushError(
            "tag (--tag): must be left out of a pull request; push again with it once the request is merged"
        )
    manifest, _ = audit_proxy(folder)
    evidence = manifest.evidence
    if evidence is not None and evidence.passed is False and not below_threshold:
        raise BelowThresholdError(
            f"its check fell below its threshold ({evidence.check.threshold:g}) and it was not published; publish it all the "
            "same with below_threshold=True (--below-threshold): the card says so",
            place=folder,
        )
    upload = _Upload(folder, manifest, dry_run, on_progress)
    if isinstance(target, OnHub):
        if target.revision is not None:
            raise RemoteNotFoundError(
                f"{place}: must be user/name; a version is given as tag (--tag {target.revision})"
            )
        tag = None if create_pr else _check_tag(f"v{manifest.version}" if tag is None else tag, manifest)
        # each try begins with a look: what was done already, even if its answer got lost, is not done again
        return retry(partial(_push_to_hub, upload, target.repo, tag, private))
    if tag is not None or private or create_pr:
        raise PushError(
            f"{show_address(place)}: only the Hub has tags, private repositories and pull requests; leave these options out"
        )
    if target.url.startswith("file://"):
        check_outside_proxies(Path(target.url.removeprefix("file://")))
    return _push_to_url(upload, open_url(target.url))


@dataclass(frozen=True)
class _Upload:
    """A proxy to be sent; `is_plan` says that nothing is sent, only looked at."""

    folder: Path
    manifest: Manifest
    is_plan: bool
    on_progress: OnProgress

    @cached_property
    def facts(self) -> dict[str, FileFacts]:
        """Size and sha256 of every file in the order of names, the manifest too."""
        return dict(sorted({**self.manifest.files, MANIFEST: measure_file(self.folder / MANIFEST)}.items()))

    def compare(self, contents: Mapping[str, str]) -> tuple[PushedFile, ...]:
        """Says what sending the files would change in a repository; `contents` are its files' hashes, of `hub.list_contents`."""

        def find_change(name: str) -> Change:
            if name not in contents:
                return "new"
            is_same = hub.is_same_file(self.folder / name, self.facts[name].sha256, contents[name])
            return "unchanged" if is_same else "changed"

        files = (PushedFile(name, each.bytes, find_change(name)) for name, each in self.facts.items())
        gone = sorted(set(contents) - set(self.facts) - {hub.OWN_FILE})
        return (*files, *(PushedFile(name, 0, "removed") for name in gone))


def _check_tag(tag: str, manifest: Manifest) -> str:
    """Refuses a tag that git does not take, or that calls a version by another's number."""
    if not _TAG.fullmatch(tag) or re.search(r"\.\.|\.$|\.lock$|^(main|HEAD|[0-9a-f]{40})$", tag):
        raise PushError(
            f"tag: must be 1 to 100 letters, digits, `.`, `_` and `-`, as git takes them for a tag (a letter or digit first, no `..`, no `.` or "
            f"`.lock` last, not main, HEAD or a commit's hash), got {tag[:100]!r}; for example v{manifest.version}"
        )
    version = tag.removeprefix("v")
    if re.fullmatch(r"\d+(\.\d+)*", version) and version != manifest.version:
        remedy = f"build it with version: {version}, or leave tag out" if version.count(".") == 2 else "leave tag out"
        raise PushError(f"tag: must be the proxy's own version, v{manifest.version}, got {tag}; {remedy}")
    return tag


def _push_to_hub(upload: _Upload, repo: str, tag: str | None, private: bool) -> Pushed:
    """Pushes to the Hub, see `push`; without a tag it is a pull request."""
    repository = hub.find_repository(repo, to_write=not upload.is_plan)
    is_new = repository is None
    if repository is None and tag is None:
        raise RemoteNotFoundError(f"{repo}: must be there to be asked for a change; push to a name of your own")
    if repository is None and not upload.is_plan:
        hub.create_repository(repo, is_private=private)
        repository = hub.find_repository(repo)
    if repository is not None and private and not repository.is_private:
        raise PushError(f"{repo}: is public; make it private in its settings first, or leave private out")
    if repository is not None and tag is not None and tag in repository.tags:
        files = upload.compare(hub.list_contents(repo, repository.tags[tag]))
        if any(each.change != "unchanged" for each in files):
            _find_replaced(
                repo, hub.list_contents(repo, repository.head), upload.manifest
            )  # refuses another proxy first
            raise TagExistsError(
                f"{repo}: the tag {tag} is there on other bytes and is never moved; make the proxy again under another version, for which "
                "nothing is trained again (--set version=...), or take a tag of words"
            )
        return Pushed(
            repo,
            upload.manifest,
            files,
            tag,
            repository.tags[tag],
            is_private=repository.is_private,
            was_there=True,
            is_plan=upload.is_plan,
        )

    contents, manifest = {} if repository is None else hub.list_contents(repo, repository.head), upload.manifest
    before = _find_replaced(repo, contents, manifest)
    files, same = upload.compare(contents), f"v{manifest.version}"
    replaced = None if before in (None, manifest.version) else before
    others = [files] if before == manifest.version else []
    if repository is not None and same in repository.tags:
        others.append(upload.compare(hub.list_contents(repo, repository.tags[same])))
    shares_version = any(each.change != "unchanged" for held in others for each in held)
    planned = Pushed(
        place=repo,
        manifest=manifest,
        files=files,
        tag=tag,
        replaced=replaced,
        shares_version=shares_version,
        is_new_place=is_new,
        is_private=private if repository is None else repository.is_private,
        is_plan=upload.is_plan,
    )
    if upload.is_plan:
        return planned
    assert repository is not None
    return _commit_to_hub(upload, repository, planned)


def _find_replaced(repo: str, contents: Collection[str], manifest: Manifest) -> str | None:
    """Finds the version of the proxy at a repository's head; refuses what is no version of it."""
    before = _read_manifest_at(HubProxy(hub.find_revision(repo, None))) if MANIFEST in contents else None
    _refuse_foreign(repo, set(contents) - {hub.OWN_FILE} - _list_files(before), "another name")
    if before is not None and before.name != manifest.name:
        raise OutputExistsError(
            f"{repo}: must hold versions of {manifest.name}, it holds {before.name} {before.version}; it was not touched: use another name"
        )
    return None if before is None else before.version


def _commit_to_hub(upload: _Upload, repository: hub.Repository, planned: Pushed) -> Pushed:
    """Makes the commit of a push, if anything changes, and tags it; or makes the pull request, if there is none yet."""
    repo, tag, commit, pull = repository.repo, planned.tag, repository.head, None
    names = [each.name for each in planned.files if each.is_sent]
    gone = [each.name for each in planned.files if each.change == "removed"]
    has_changes = bool(names or gone)
    if tag is None:
        sent = {name: each.sha256 for name, each in upload.facts.items()}
        pull = hub.find_pull_request(repo, sent, upload.folder) if has_changes else None
        if pull is not None or not has_changes:
            return replace(planned, commit=commit, pull_request=pull, replaced=None, was_there=True)
    if has_changes:
        commit, pull = hub.commit_files(
            repository,
            upload.folder,
            names,
            gone,
            message=f"{upload.manifest.name} {upload.manifest.version}",
            as_pull_request=tag is None,
            on_progress=upload.on_progress,
        )
    if tag is not None:
        if any(each.change != "unchanged" for each in upload.compare(hub.list_contents(repo, commit))):
            raise RemoteError(
                f"{repo}: must hold the bytes that were sent, it holds others; it was not tagged: run it again"
            )
        hub.tag_commit(repo, tag, commit)
    return replace(planned, commit=commit, pull_request=pull)


def _push_to_url(upload: _Upload, remote: RemoteFolder, former: bytes | None = None) -> Pushed:
    """Pushes to an address, see `push`.

    Args:
        upload: The proxy.
        remote: The address.
        former: Manifest of another proxy that gives way if it is there; None if none may.
    """
    sizes, facts = remote.list_files(), upload.facts
    if sizes is None:
        raise PushError(f"{remote.name}: cannot be written to; use s3://, gs:// or another store")
    own = (upload.folder / MANIFEST).read_bytes()
    theirs = remote.read_file(MANIFEST, MAX_MANIFEST_BYTES) if MANIFEST in sizes else None
    of_proxy = {name: n_bytes for name, n_bytes in sizes.items() if name != UNFINISHED}
    is_same = theirs == own and of_proxy == {name: each.bytes for name, each in facts.items()}
    files = tuple(
        PushedFile(name, each.bytes, "unchanged" if is_same else "changed" if name in sizes else "new")
        for name, each in facts.items()
    )
    if is_same:
        return Pushed(remote.name, upload.manifest, files, was_there=True, is_plan=upload.is_plan)
    if theirs not in (None, own, former):
        raise OutputExistsError(
            f"{remote.name}: must be empty, another proxy is there; it was not touched: use another address"
        )
    _check_address_is_ours(remote, sizes)
    if not upload.is_plan:
        remote.write_file(UNFINISHED, "\n".join(sorted({*sizes, *facts} - {UNFINISHED})).encode())
        remote.remove_files([name for name in (MANIFEST, *sorted({*sizes} - {*facts, UNFINISHED})) if name in sizes])
        remote.send_files(upload.folder, [*(name for name in facts if name != MANIFEST), MANIFEST], upload.on_progress)
        remote.remove_files([UNFINISHED])
        arrived = remote.list_files() or {}
        if different := [name for name, each in facts.items() if arrived.get(name) != each.bytes]:
            raise RemoteError(f"{remote.name}/{different[0]}: must have arrived whole, it has not; run it again")
    return Pushed(remote.name, upload.manifest, files, is_new_place=not sizes, is_plan=upload.is_plan)


def _check_address_is_ours(remote: RemoteFolder, sizes: Mapping[str, int]) -> None:
    """Refuses an address with any file that no push has put there: such a file could be replaced or removed.

    Ours are the files that the manifest there lists, and, of a push that broke off, those that its marker names.
    """
    ours = {UNFINISHED, *_list_files(_read_manifest_at(UrlProxy(remote)) if MANIFEST in sizes else None)}
    if UNFINISHED in sizes:
        named = remote.read_file(UNFINISHED, MAX_MANIFEST_BYTES) or b""
        ours |= set(named.decode(errors="replace").split("\n"))
    _refuse_foreign(remote.name, set(sizes) - ours, "another address")


def _read_manifest_at(proxy: HubProxy | UrlProxy) -> Manifest | None:
    """Reads the manifest at a place; returns None where it is a manifest of something else."""
    with temporary_folder() as folder, suppress(ArtifactError):
        return proxy.fetch_manifest(folder)
    return None


def _list_files(manifest: Manifest | None) -> set[str]:
    return set() if manifest is None else {MANIFEST, *manifest.files}


def _refuse_foreign(name: str, foreign: Collection[str], instead: str) -> None:
    """Refuses a place that holds files of somebody else, be it beside a proxy."""
    if foreign:
        raise OutputExistsError(
            f"{name}: must be empty or hold a proxy and nothing else, found {make_plain(min(foreign))}; it was not touched: use {instead}"
        )


@contextmanager
def output_at(place: str | Path, on_progress: OnProgress = ignore_progress) -> Iterator[Path]:
    """Gives a folder to write a proxy into: the place itself or, for an address, a temporary folder that is sent there.

    What lies at the address already is fetched first, so that whoever writes sees it as in a folder of its own.

    Raises:
        RemoteError: The address cannot be reached or written.
        OutputExistsError: Another proxy came there while this one was written.
    """
    target = read_address(str(place)) or Path(place)
    if isinstance(target, Path):
        yield target
        return
    if isinstance(target, OnHub):
        raise PushError(f"{place}: a repository cannot be written to directly; write to a folder, then `proxyds push`")
    remote = open_url(target.url)
    remote.check_writable()
    with temporary_folder() as parent:
        folder = parent / remote.name.rpartition("/")[2]
        former = None
        with named_as(remote.name, folder):
            sizes = remote.list_files() or {}
            _check_address_is_ours(remote, sizes)
            if MANIFEST in sizes:
                folder.mkdir()
                fetch_proxy(UrlProxy(remote), folder, on_progress)
                former = (folder / MANIFEST).read_bytes()
            yield folder
            manifest = verify_proxy(folder)
        _push_to_url(_Upload(folder, manifest, False, on_progress), remote, former)
