"""A proxy is published: on the Hub with a tag that is put last and never moved, at any other address with the manifest last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

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
from proxyds.pipeline.audit import audit_proxy
from proxyds.pipeline.pull import HubProxy, UrlProxy, fetch_proxy, named_as
from proxyds.progress import OnProgress, ignore_progress
from proxyds.runtime.storage import hub
from proxyds.runtime.storage.address import AtUrl, OnHub, read_address, read_remote, show_address
from proxyds.runtime.storage.atomic import temporary_folder
from proxyds.runtime.storage.hub_errors import patiently
from proxyds.runtime.storage.remote import UNFINISHED, RemoteFolder, open_url
from proxyds.text import make_plain

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Change = Literal["new", "changed", "unchanged", "removed"]


@dataclass(frozen=True)
class PushedFile:
    """One file of a push: what became of it, or would."""

    name: str
    n_bytes: int
    change: Change

    @property
    def is_sent(self) -> bool:
        """Whether its bytes go over the line."""
        return self.change in ("new", "changed")


@dataclass(frozen=True)
class Pushed:
    """What a push did, or would do.

    Attributes:
        place: For people: `user/name`, or an address.
        manifest: Of the proxy.
        files: Every file, and those that were removed from the place.
        tag: That was put on it; None for a pull request and where places have no versions.
        commit: On the Hub; None for a dry run.
        pull_request: Its address, if it is one.
        replaced: Version of the proxy that the repository's `main` held, if it was another.
        is_new_place: Whether the repository was made for it.
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
    is_new_place: bool = False
    was_there: bool = False
    is_plan: bool = False


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

    Raises:
        ArtifactError: It is no proxy, or holds what it may not.
        VerificationError: Its files differ from its manifest.
        BelowThresholdError: Its check fell below its threshold.
        TagExistsError: The tag is there, on other bytes.
        OutputExistsError: The place holds something else.
        RemoteError: The place cannot be reached or does not allow it; see its subclasses.
    """
    folder = Path(folder)
    target = read_remote(place)
    manifest, _ = audit_proxy(folder)
    evidence = manifest.evidence
    if evidence is not None and evidence.passed is False and not below_threshold:
        raise BelowThresholdError(
            f"{folder}: its check fell below its threshold ({evidence.check.threshold:g}) and it was not published; publish it all the "
            "same with --below-threshold: the card says so"
        )
    facts = {**manifest.files, MANIFEST: measure_file(folder / MANIFEST)}
    if isinstance(target, OnHub):
        repo = _check_repository(target, place)
        tag = None if create_pr else _check_tag(f"v{manifest.version}" if tag is None else tag, manifest)
        # each try begins with a look: what was done already, even if its answer got lost, is not done again
        return patiently(partial(_push_to_hub, folder, manifest, facts, repo, tag, private, dry_run, on_progress))
    if tag is not None or private or create_pr:
        raise PushError(
            f"{show_address(place)}: only the Hub has tags, private repositories and pull requests; leave these options out"
        )
    assert isinstance(target, AtUrl)
    if target.url.startswith("file://"):
        check_outside_proxies(Path(target.url.removeprefix("file://")))
    return _push_to_url(folder, manifest, facts, open_url(target.url), dry_run=dry_run, on_progress=on_progress)


def _check_repository(target: OnHub, place: str) -> str:
    if target.revision is not None:
        raise RemoteNotFoundError(f"{place}: must be user/name; a version is given by --tag {target.revision}")
    return target.repo


def _check_tag(tag: str, manifest: Manifest) -> str:
    """A tag that git takes, and that does not call a version by another's number."""
    if not _TAG.fullmatch(tag) or re.search(r"\.\.|\.$|\.lock$|^(main|HEAD|[0-9a-f]{40})$", tag):
        raise PushError(
            f"--tag: must be 1 to 100 letters, digits, `.`, `_` and `-`, as git takes them for a tag (a letter or digit first, no `..`, no `.` or "
            f"`.lock` last, not main, HEAD or a commit's hash), got {tag[:100]!r}; for example v{manifest.version}"
        )
    if re.fullmatch(r"v?\d+(\.\d+)*", tag) and tag.removeprefix("v") != manifest.version:
        raise PushError(
            f"--tag: must be the proxy's own version, v{manifest.version}, got {tag}; build it with --set version={tag.removeprefix('v')}, or "
            "leave --tag out"
        )
    return tag


def _push_to_hub(
    folder: Path,
    manifest: Manifest,
    facts: Mapping[str, FileFacts],
    repo: str,
    tag: str | None,
    private: bool,
    dry_run: bool,
    on_progress: OnProgress,
) -> Pushed:
    """See `push`; without a tag it is a pull request."""
    there = hub.look_at(repo, to_write=not dry_run)
    is_new = there is None
    as_pull_request = tag is None
    if there is None and as_pull_request:
        raise RemoteNotFoundError(f"{repo}: must be there to be asked for a change; push to a name of your own")
    if there is None and not dry_run:
        hub.create_repository(repo, is_private=private)
        there = hub.look_at(repo)
    if there is not None and private and not there.is_private:
        raise PushError(f"{repo}: is public; make it private in its settings first, or leave --private out")
    if there is not None and tag is not None and tag in there.tags:
        files = _compare(folder, facts, hub.list_contents(repo, there.tags[tag]))
        if any(each.change != "unchanged" for each in files):
            raise TagExistsError(
                f"{repo}: the tag {tag} is there on other bytes and is never moved; make the proxy again under another version (--set version=..., "
                "nothing is trained again), or name a --tag of words"
            )
        return Pushed(repo, manifest, files, tag, there.tags[tag], was_there=True, is_plan=dry_run)

    held = {} if there is None else hub.list_contents(repo, there.head)
    before = _check_repository_is_ours(repo, manifest, held)
    replaced = before.version if before is not None and before.version != manifest.version else None
    files = _compare(folder, facts, held)
    names = [each.name for each in files if each.is_sent]
    gone = [each.name for each in files if each.change == "removed"]
    if dry_run:
        return Pushed(repo, manifest, files, tag, replaced=replaced, is_new_place=is_new, is_plan=True)
    assert there is not None
    sent = {name: each.sha256 for name, each in facts.items()}
    has_changes = bool(names or gone)
    commit, pull = there.head, None
    if as_pull_request:
        pull = hub.find_pull_request(repo, sent, folder) if has_changes else None
        if pull is not None or not has_changes:
            return Pushed(repo, manifest, files, None, commit, pull, was_there=True)
    if has_changes:
        message = f"{manifest.name} {manifest.version}"
        commit, pull = hub.commit_files(
            there, folder, names, gone, message=message, as_pull_request=as_pull_request, on_progress=on_progress
        )
    if tag is not None:
        arrived = _compare(folder, facts, hub.list_contents(repo, commit))
        if any(each.change != "unchanged" for each in arrived):
            raise RemoteError(
                f"{repo}: must hold the bytes that were sent, it holds others; it was not tagged: run the same command again"
            )
        hub.tag_commit(repo, tag, commit)
    return Pushed(repo, manifest, files, tag, commit, pull, replaced, is_new_place=is_new)


def _compare(folder: Path, facts: Mapping[str, FileFacts], held: Mapping[str, str]) -> tuple[PushedFile, ...]:
    """What sending a proxy's files would change, where a repository holds files of some hashes."""
    files = []
    for name, each in sorted(facts.items()):
        change: Change = "new"
        if name in held:
            change = "unchanged" if hub.is_same_file(folder / name, each.sha256, held[name]) else "changed"
        files.append(PushedFile(name, each.bytes, change))
    gone = sorted(set(held) - set(facts) - {hub.OWN_FILE})
    return (*files, *(PushedFile(name, 0, "removed") for name in gone))


def _check_repository_is_ours(repo: str, manifest: Manifest, held: Mapping[str, str]) -> Manifest | None:
    """Refuses to replace what is no proxy or another one, and what somebody has put beside one.

    Returns:
        The manifest of the version that is there.

    Raises:
        OutputExistsError: There is something; names it.
    """
    there, foreign = None, set(held) - {hub.OWN_FILE}
    if MANIFEST in held:
        with temporary_folder() as folder, suppress(ArtifactError):  # it may be a manifest of something else
            there = HubProxy(hub.find_revision(repo, None)).fetch_manifest(folder)
            foreign -= {MANIFEST, *there.files}
    if foreign:
        raise OutputExistsError(
            f"{repo}: must be empty or hold a proxy and nothing else, found {make_plain(min(foreign))}; it was not touched: use "
            "another name"
        )
    if there is not None and there.name != manifest.name:
        raise OutputExistsError(
            f"{repo}: must hold versions of {manifest.name}, it holds {there.name} {there.version}; it was not touched: use another name"
        )
    return there


def _push_to_url(
    folder: Path,
    manifest: Manifest,
    facts: Mapping[str, FileFacts],
    remote: RemoteFolder,
    *,
    dry_run: bool = False,
    replace: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Pushed:
    """See `push`; with `replace` another proxy that is there gives way."""
    held = remote.list_files()
    if held is None:
        raise PushError(f"{remote.name}: cannot be written to; use s3://, gs:// or another store")
    own = (folder / MANIFEST).read_bytes()
    there = remote.read_file(MANIFEST, MAX_MANIFEST_BYTES) if MANIFEST in held else None
    of_proxy = {name: n_bytes for name, n_bytes in held.items() if name != UNFINISHED}
    is_same = there == own and of_proxy == {name: each.bytes for name, each in facts.items()}
    files = tuple(
        PushedFile(name, each.bytes, "unchanged" if is_same else "changed" if name in held else "new")
        for name, each in sorted(facts.items())
    )
    if is_same:
        return Pushed(remote.name, manifest, files, was_there=True, is_plan=dry_run)
    if there is not None and there != own and not replace:
        raise OutputExistsError(
            f"{remote.name}: must be empty, another proxy is there; it was not touched: use another address"
        )
    _check_address_is_ours(remote, held)
    if not dry_run:
        remote.write_file(UNFINISHED, "\n".join(sorted({*held, *facts} - {UNFINISHED})).encode())
        remote.remove_files([name for name in (MANIFEST, *sorted({*held} - {*facts, UNFINISHED})) if name in held])
        remote.send_files(folder, [*(name for name in sorted(facts) if name != MANIFEST), MANIFEST], on_progress)
        remote.remove_files([UNFINISHED])
        arrived = remote.list_files() or {}
        if different := [name for name, each in facts.items() if arrived.get(name) != each.bytes]:
            raise RemoteError(
                f"{remote.name}/{different[0]}: must have arrived whole, it has not; run the same command again"
            )
    return Pushed(remote.name, manifest, files, is_new_place=not held, is_plan=dry_run)


def _check_address_is_ours(remote: RemoteFolder, held: Mapping[str, int]) -> None:
    """Refuses an address that holds any file which no push has put there: such a file could be replaced or removed.

    Ours are the files that the manifest there lists, and, of a push that broke off, those that its marker names.

    Raises:
        OutputExistsError: There is another; names it.
    """
    ours = {UNFINISHED}
    if MANIFEST in held:
        with temporary_folder() as folder, suppress(ArtifactError):  # it may be a manifest of something else
            ours |= {MANIFEST, *UrlProxy(remote).fetch_manifest(folder).files}
    if UNFINISHED in held:
        named = remote.read_file(UNFINISHED, MAX_MANIFEST_BYTES) or b""
        ours |= set(named.decode(errors="replace").split("\n"))
    if foreign := set(held) - ours:
        raise OutputExistsError(
            f"{remote.name}: must be empty or hold a proxy and nothing else, found {make_plain(min(foreign))}; it was not touched: use "
            "another address"
        )


@contextmanager
def output_at(place: str | Path, on_progress: OnProgress = ignore_progress) -> Iterator[Path]:
    """A folder to write a proxy into that is to lie at some place: the folder itself or, of an address, one that is sent there.

    What lies at the address already is fetched first, so that whoever writes sees it as in a folder of its own.

    Raises:
        RemoteError: The address cannot be reached or written.
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
        with named_as(remote.name, folder):
            held = remote.list_files() or {}
            _check_address_is_ours(remote, held)
            if MANIFEST in held:
                folder.mkdir()
                fetch_proxy(UrlProxy(remote), folder, on_progress)
            yield folder
            manifest = verify_proxy(folder)
        facts = {**manifest.files, MANIFEST: measure_file(folder / MANIFEST)}
        _push_to_url(folder, manifest, facts, remote, replace=True, on_progress=on_progress)
