"""The Hugging Face Hub: the only module that talks to it. Everything here may fail by no fault of the user's, and says how."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub  # imports what is used of it when it is used
from huggingface_hub import constants

from proxyds.errors import (
    HeadMovedError,
    RemoteAccessError,
    RemoteError,
    RemoteNotFoundError,
    TagExistsError,
    translate_os_errors,
)
from proxyds.progress import OnProgress, Progress, ignore_progress
from proxyds.runtime.storage.hub_errors import retry, translate_hub_errors

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

DATASET = "dataset"
MAIN = "main"
OWN_FILE = ".gitattributes"
"""Put into every repository by the Hub itself."""
AT_ONCE = 8
"""Files fetched or sent side by side."""


@dataclass(frozen=True)
class Revision:
    """A data set repository at one commit.

    Attributes:
        repo: `user/name`.
        asked: The tag, branch or commit that was asked for; None for the head of `main`.
        commit: What that is, 40 hexadecimal digits.
        tags: Every tag of the repository with its commit; empty where the Hub was not asked.
        files: Every file's size in bytes; None where the Hub was not asked.
        is_from_cache: Whether the Hub was not asked (`HF_HUB_OFFLINE`), and the commit is what a fetch before it found.
    """

    repo: str
    asked: str | None
    commit: str
    tags: Mapping[str, str]
    files: Mapping[str, int] | None
    is_from_cache: bool = False

    @property
    def name(self) -> str:
        """For people: `user/name@v1.0.0`."""
        return f"{self.repo}@{self.asked or self.commit[:12]}"


@dataclass(frozen=True)
class Repository:
    """What there is of a data set repository before something is pushed to it.

    Attributes:
        repo: `user/name`.
        is_private: Whether others cannot see it.
        head: The commit of `main`.
        tags: Every tag with its commit.
    """

    repo: str
    is_private: bool
    head: str
    tags: Mapping[str, str]


def find_revision(repo: str, asked: str | None) -> Revision:
    """Asks the Hub which commit a tag or branch is, and which files it has.

    Where `HF_HUB_OFFLINE` is set, what was fetched before under that very name is taken: `datasets` would take any revision.

    Raises:
        OfflineError: `HF_HUB_OFFLINE` is set, and it was not fetched before.
        RemoteNotFoundError: There is no such repository or revision, or it is not for this user.
        RemoteError: The Hub cannot be reached.
    """
    name = f"{repo}@{asked}" if asked else repo
    if constants.HF_HUB_OFFLINE:
        with translate_hub_errors(name):
            cached = huggingface_hub.hf_hub_download(
                repo, "manifest.json", repo_type=DATASET, revision=asked or MAIN, local_files_only=True
            )
        return Revision(repo, asked, Path(cached).parent.name, {}, None, is_from_cache=True)

    def ask() -> Revision:
        with translate_hub_errors(name):
            commit = str(huggingface_hub.HfApi().dataset_info(repo, revision=asked).sha)
            files = {each.path: each.size for each in _list_tree(repo, commit)}
            return Revision(repo, asked, commit, _list_tags(repo), files)

    return retry(ask)


def fetch_files(
    at: Revision,
    sizes: Mapping[str, int],
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    anew: bool = False,
) -> None:
    """Fetches some files of a revision into a folder, through the Hub client's cache: what it holds is not fetched again.

    Args:
        at: The revision.
        sizes: Names of files, with their bytes for the progress.
        folder: Where they are put, as plain files.
        on_progress: Called as files arrive.
        anew: Fetch what the cache holds, too: it may be damaged.

    Raises:
        RemoteError: A file cannot be fetched; the others stay in the cache.
        NoSpaceError: The disk is full.
    """
    n_done, total = 0, sum(sizes.values())
    with _without_bars(), ThreadPoolExecutor(AT_ONCE) as pool:
        pending = {pool.submit(retry, partial(_fetch_file, at, name, folder, anew)): name for name in sizes}
        try:
            for done in as_completed(pending):
                done.result()
                n_done += sizes[pending[done]]
                on_progress(Progress("fetch", at.name, n_done, max(total, 1)))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fetch_file(at: Revision, name: str, folder: Path, anew: bool) -> None:
    with (
        translate_hub_errors(f"{at.name}: {name}"),
        translate_os_errors(f"{at.name}: {name}", "let HF_HOME (the cache) and the new folder lie where there is more"),
    ):
        # by the name that was asked for, so that the cache knows which commit it is when there is no network
        revision = at.asked or MAIN if name == "manifest.json" else at.commit
        cached = huggingface_hub.hf_hub_download(
            at.repo,
            name,
            repo_type=DATASET,
            revision=revision,
            local_files_only=at.is_from_cache,
            force_download=anew,
        )
        if Path(cached).parents[name.count("/")].name != at.commit:
            raise RemoteError(f"{at.name}: it moved to another commit while it was fetched; run it again")
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cached, place)


def find_repository(repo: str, *, to_write: bool = True) -> Repository | None:
    """Looks up what there is of a repository; returns None where there is none that this user may see.

    Raises:
        RemoteAccessError: `to_write` asks for a token, and there is none or a wrong one.
        RemoteError: The Hub cannot be reached.
    """
    api = huggingface_hub.HfApi()
    if to_write:
        if huggingface_hub.get_token() is None:
            raise RemoteAccessError(
                f"{repo}: needs a token that may write, found none; `hf auth login` keeps one, or set HF_TOKEN"
            )
        with translate_hub_errors(repo):
            api.whoami()
    try:
        with translate_hub_errors(repo):
            info = api.dataset_info(repo)
            return Repository(repo, bool(info.private), str(info.sha), _list_tags(repo))
    except RemoteNotFoundError:
        return None


def create_repository(repo: str, *, is_private: bool) -> None:
    """Makes an empty data set repository.

    Raises:
        RemoteAccessError: It would be somebody else's, or the token may not write.
    """
    with translate_hub_errors(repo):
        huggingface_hub.HfApi().create_repo(repo, repo_type=DATASET, private=is_private, exist_ok=True)


def list_contents(repo: str, commit: str) -> dict[str, str]:
    """Lists every file of a commit with the hash that the Hub knows it by: sha256, or git's own for small text."""
    with translate_hub_errors(repo):
        return {each.path: each.lfs.sha256 if each.lfs else each.blob_id for each in _list_tree(repo, commit)}


def is_same_file(path: Path, sha256: str, hub_hash: str) -> bool:
    """Tells whether a file, with this sha256, has the bytes that the Hub knows by a hash of `list_contents`."""
    if len(hub_hash) == len(sha256):
        return hub_hash == sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == hub_hash


def find_pull_request(repo: str, sent: Mapping[str, str], folder: Path) -> str | None:
    """Returns the address of an open pull request that would bring in the very files of a folder, if there is one.

    `sent` gives the sha256 of each file by its name.
    """
    api = huggingface_hub.HfApi()
    with translate_hub_errors(repo):
        pulls = list(
            api.get_repo_discussions(repo, repo_type=DATASET, discussion_type="pull_request", discussion_status="open")
        )
    for pull in pulls:
        hashes = list_contents(repo, f"refs/pr/{pull.num}")
        if all(name in hashes and is_same_file(folder / name, sent[name], hashes[name]) for name in sent):
            return str(pull.url)
    return None


def commit_files(
    repository: Repository,
    folder: Path,
    names: Sequence[str],
    removed: Sequence[str],
    *,
    message: str,
    as_pull_request: bool,
    on_progress: OnProgress,
) -> tuple[str, str | None]:
    """Sends files and makes one commit of them, all or nothing.

    Args:
        repository: The repository, as it was when the files were compared with it.
        folder: Where they are.
        names: Files to add or replace.
        removed: Files to remove.
        message: Of the commit.
        as_pull_request: Whether to ask its owner for it.
        on_progress: Called as files are sent.

    Returns:
        The commit, and the address of the pull request if it is one.

    Raises:
        HeadMovedError: Somebody else has changed the repository meanwhile.
        RemoteAccessError: The token may not write there.
        RemoteError: The Hub cannot be reached; what was sent need not be sent again.
    """
    api = huggingface_hub.HfApi()
    additions = [huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names]
    n_done, total = 0, sum((folder / name).stat().st_size for name in names)
    with translate_hub_errors(repository.repo), _without_bars(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the client's, of its own HTTP library
        for first in range(0, len(additions), AT_ONCE):
            group = additions[first : first + AT_ONCE]
            api.preupload_lfs_files(
                repository.repo,
                group,
                repo_type=DATASET,
                create_pr=as_pull_request,
                num_threads=AT_ONCE,
                free_memory=False,
            )
            n_done += sum((folder / each.path_in_repo).stat().st_size for each in group)
            on_progress(Progress("push", repository.repo, n_done, max(total, 1)))
        made = api.create_commit(
            repository.repo,
            [*additions, *(huggingface_hub.CommitOperationDelete(path_in_repo=name) for name in removed)],
            repo_type=DATASET,
            commit_message=message,
            create_pr=as_pull_request,
            parent_commit=repository.head,
        )
    return made.oid, made.pr_url


def tag_commit(repo: str, tag: str, commit: str) -> None:
    """Gives a commit a tag.

    Raises:
        TagExistsError: There is one of that name already, which is never moved.
    """
    try:
        with translate_hub_errors(repo):
            huggingface_hub.HfApi().create_tag(repo, tag=tag, revision=commit, repo_type=DATASET)
    except HeadMovedError:
        repository = find_repository(repo)
        if repository is None or repository.tags.get(tag) != commit:  # ours may have arrived and its answer got lost
            raise TagExistsError(
                f"{repo}: the tag {tag} appeared there meanwhile and is never moved; use another tag"
            ) from None


def fetch_snapshot(name: str, revision: str) -> Path:
    """Fetches a whole data set repository, a source to choose from, into the Hub client's cache.

    Raises:
        RemoteNotFoundError: There is no such data set or revision.
        RemoteError: The Hub cannot be reached.
        NoSpaceError: The disk is full.
    """
    with (
        translate_hub_errors(f"{name}@{revision}"),
        translate_os_errors("the Hugging Face cache", "set HF_HOME to another folder"),
    ):
        return Path(huggingface_hub.snapshot_download(name, repo_type=DATASET, revision=revision))


def _list_tree(repo: str, commit: str) -> list[RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    tree = huggingface_hub.HfApi().list_repo_tree(repo, recursive=True, revision=commit, repo_type=DATASET)
    return [each for each in tree if isinstance(each, RepoFile)]


def _list_tags(repo: str) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in huggingface_hub.HfApi().list_repo_refs(repo, repo_type=DATASET).tags}


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps the Hub's client from drawing its own progress bars over ours."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled() or "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
