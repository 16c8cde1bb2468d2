"""A Hugging Face Hub for data sets, in memory, for tests and for trying things out: `python tests/hub_server.py`.

It speaks enough of the Hub's protocol for `huggingface_hub`, `datasets` and the `hf` command: create, upload, tag, pull
request, download, stream. It prints the lines that point a shell at it and serves until Ctrl-C, or until the process that
started it is gone.

The tokens: `hf_me` is user `me`, `hf_other` is user `other`, `hf_me_read` is user `me` who may only read.

For tests, `/test/...` (no token needed, not in the request log):

- `POST /test/faults`, a JSON list of faults, replaces all faults. Each has `method`, `path` (a regular expression,
  searched in the decoded path without its query), `times` (1 unless told), `skip` (0) and some of (a request meets the first that applies):
  `delay_seconds`; `status` with `headers`; `body` (base64: other bytes, with status 200); `cut_after` (so many bytes of
  the request's body are read, or of the answer's body sent, then the connection is closed); `answer_lost` (the request
  is carried out, but the connection is closed before the answer). A close is a plain one, as when the server's process
  dies, or with `reset` a TCP reset, as from a router.
- `GET /test/requests` lists `method`, `path`, `status` (null: no answer was sent), `n_bytes` (of the body that came, or
  of the answer's for GET and HEAD) and `user` (null also for an LFS upload: its address, not a token, lets it in).
  `DELETE /test/requests` empties the list.
- `POST /test/files` with `repo`, `files` (path to base64), `branch` ("main"), `tag` (null), `private` (false) makes a
  commit of exactly these files, whatever their paths, and moves branch and tag there.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote

LFS_SUFFIXES = (".parquet", ".tar", ".png", ".safetensors")
LFS_SIZE = 10 * 1000**2  # any file above this goes to LFS
_PATTERNS = """7z arrow avro bin bz2 ckpt ftz gz h5 joblib lz4 model msgpack npy npz onnx parquet pb pickle pkl pt pth rar
safetensors tar tgz wasm xz zip zst pcm flac mp3 ogg wav bmp gif png tiff jpg jpeg webp mp4 webm"""
GITATTRIBUTES = "".join(f"*.{each} filter=lfs diff=lfs merge=lfs -text\n" for each in _PATTERNS.split()).encode()


@dataclass(frozen=True)
class User:
    name: str
    may_write: bool


USERS = {"hf_me": User("me", True), "hf_other": User("other", True), "hf_me_read": User("me", False)}


class Refusal(Exception):  # noqa: N818 (it is an answer)
    """An answer that is an error; `code` is what the clients choose their exception by."""

    def __init__(self, status: int, message: str, code: str | None = None, **extra: str) -> None:
        super().__init__(message)
        self.answer = as_json({"error": message, **extra}, status)
        # a header cannot hold line breaks or what is not latin-1
        self.answer.headers["X-Error-Message"] = re.sub(r"[^ -~]", "?", message)
        if code is not None:
            self.answer.headers["X-Error-Code"] = code


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


@dataclass(frozen=True)
class Blob:
    data: bytes
    is_lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def git_oid(self) -> str:
        """What git calls the file: for an LFS file that is the name of its pointer."""
        data = self.pointer if self.is_lfs else self.data
        return hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: Commit | None
    author: str
    title: str
    message: str
    date: str
    files: dict[str, Blob]

    def inside(self, folder: str) -> dict[str, Blob]:
        """The files of a folder and below it; all of them for an empty name."""
        return {path: blob for path, blob in self.files.items() if not folder or path.startswith(f"{folder}/")}

    def last_change(self, path: str) -> Commit:
        """The newest commit that changed a file or folder."""
        commit, now = self, (self.files.get(path), self.inside(path))
        while commit.parent is not None and (commit.parent.files.get(path), commit.parent.inside(path)) == now:
            commit = commit.parent
        return commit


@dataclass
class PullRequest:
    number: int
    author: str
    title: str
    status: str
    base: Commit
    created: str


@dataclass
class Repository:
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    heads: dict[str, Commit] = field(default_factory=dict)  # branches, and refs/pr/N
    tags: dict[str, Commit] = field(default_factory=dict)
    pull_requests: dict[int, PullRequest] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def at(self, revision: str, *, only_heads: bool = False) -> Commit:
        for known in [self.heads] if only_heads else [self.heads, self.tags, self.commits]:
            if revision in known:
                return known[revision]
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


class Hub:
    """Everything the server knows, and the operations on it. Whoever calls one holds `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, tuple[Repository, str, int]] = {}  # key of an LFS upload: repository, sha256, size
        self.faults: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.n_commits = 0

    def readable(self, name: str, user: User | None) -> Repository:
        """The repository; who may not know of it is told the same as if there were none."""
        found = self.repositories.get(name)
        if found is None or (found.private and (user is None or user.name != found.owner)):
            if user is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return found

    def writable(self, name: str, user: User | None, *, to_propose: bool = False) -> Repository:
        """The repository, for its owner, or for anyone who only proposes a change."""
        found = self.readable(name, user)
        if user is None:
            # the clients take any 401 of a repository's https address for a missing one; on http they need the code
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        if not user.may_write:
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        if user.name != found.owner and not to_propose:
            raise Refusal(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        return found

    def create(self, name: str, private: bool) -> Repository:
        repository = self.repositories[name] = Repository(name, private)
        files = {".gitattributes": Blob(GITATTRIBUTES, False)}
        repository.heads["main"] = self.add_commit(repository, None, files, repository.owner, "initial commit")
        return repository

    def add_commit(
        self,
        repository: Repository,
        parent: Commit | None,
        files: dict[str, Blob],
        author: str,
        title: str,
        text: str = "",
    ) -> Commit:
        self.n_commits += 1
        tree = sorted((path, blob.git_oid) for path, blob in files.items())
        content = json.dumps([self.n_commits, parent and parent.oid, title, tree])
        oid = hashlib.sha1(content.encode()).hexdigest()
        repository.commits[oid] = Commit(oid, parent, author, title, text, now(), files)
        return repository.commits[oid]

    def next_fault(self, method: str, path: str) -> dict[str, Any]:
        """The first fault that applies to this request, counted as used; empty where none does."""
        for fault in self.faults:
            if fault["method"] == method and re.search(fault["path"], path):
                if fault.get("skip", 0) > 0:
                    fault["skip"] -= 1
                elif fault.setdefault("times", 1) > 0:
                    fault["times"] -= 1
                    return fault
        return {}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_lfs(path: str, size: int) -> bool:
    return size > LFS_SIZE or path.endswith(LFS_SUFFIXES)


@dataclass(frozen=True)
class Request:
    hub: Hub
    user: User | None
    query: dict[str, str]
    headers: Message
    body: bytes
    endpoint: str

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")


# Accounts and repositories


def whoami(request: Request) -> Answer:
    if request.user is None:
        raise Refusal(401, "Invalid username or password.")
    role = "write" if request.user.may_write else "read"
    token = {"accessToken": {"displayName": "test", "role": role}, "type": "access_token"}
    return as_json({"type": "user", "name": request.user.name, "orgs": [], "auth": token})


def owned_name(request: Request, verb: str) -> tuple[str, dict[str, Any]]:
    """The name of the repository to create or delete, if that is the user's right."""
    asked = request.json()
    if request.user is None:
        raise Refusal(401, "Invalid username or password.")
    if asked.get("type") != "dataset" or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}", asked["name"]):
        raise Refusal(400, "This server holds data sets only, with names of letters, digits, '-', '_' and '.'")
    owner = asked.get("organization") or request.user.name
    if owner != request.user.name or not request.user.may_write:
        raise Refusal(403, f'You don\'t have the rights to {verb} a dataset under the namespace "{owner}"')
    return f"{owner}/{asked['name']}", asked


def create_repository(request: Request) -> Answer:
    name, asked = owned_name(request, "create")
    url = f"{request.endpoint}/datasets/{name}"
    if name in request.hub.repositories:
        raise Refusal(409, "You already created this dataset repo", url=url)
    request.hub.create(name, asked.get("visibility") == "private" or asked.get("private") is True)
    return as_json({"url": url, "name": name, "id": name})


def delete_repository(request: Request) -> Answer:
    name, _ = owned_name(request, "delete")
    request.hub.readable(name, request.user)
    del request.hub.repositories[name]
    return as_json({})


def validate_yaml(request: Request) -> Answer:
    return as_json({"errors": [], "warnings": []})


# Branches and tags


def refs(request: Request, repo: str) -> Answer:
    repository = request.hub.readable(repo, request.user)
    kinds: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    for name, commit in repository.heads.items():
        kind, ref = ("pullRequests", name) if name.startswith("refs/pr/") else ("branches", f"refs/heads/{name}")
        kinds[kind].append({"name": name, "ref": ref, "targetCommit": commit.oid})
    for name, commit in repository.tags.items():
        kinds["tags"].append({"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit.oid})
    if not request.flag("include_prs"):
        del kinds["pullRequests"]
    return as_json(kinds)


def create_tag(request: Request, repo: str, revision: str) -> Answer:
    repository, tag = request.hub.writable(repo, request.user), request.json()["tag"]
    if tag in repository.tags or tag in repository.heads:
        raise Refusal(409, f"Reference already exists: {tag}")
    repository.tags[tag] = repository.at(revision)
    return as_json({})


def delete_tag(request: Request, repo: str, revision: str) -> Answer:
    repository = request.hub.writable(repo, request.user)
    if revision not in repository.tags:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    del repository.tags[revision]
    return as_json({})


# Pushing


def preupload(request: Request, repo: str, revision: str) -> Answer:
    proposes = request.flag("create_pr") or revision.startswith("refs/pr/")
    commit = request.hub.writable(repo, request.user, to_propose=proposes).at(revision, only_heads=True)
    files = []
    for each in request.json()["files"]:
        path, blob = each["path"], commit.files.get(each["path"])
        mode = "lfs" if is_lfs(path, each["size"]) else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": blob and blob.etag})
    return as_json({"files": files, "commitOid": commit.oid})


def lfs_batch(request: Request, repo: str) -> Answer:
    # the request does not say whether a pull request will follow, so anyone who might open one may upload
    repository = request.hub.writable(repo, request.user, to_propose=True)
    objects = []
    for each in request.json()["objects"]:
        entry = {"oid": each["oid"], "size": each["size"]}
        if each["oid"] not in repository.lfs:
            key = secrets.token_hex(16)
            request.hub.uploads[key] = repository, each["oid"], each["size"]
            upload = {"href": f"{request.endpoint}/lfs/{each['oid']}?key={key}"}
            entry |= {"authenticated": True, "actions": {"upload": upload}}
        objects.append(entry)
    return as_json({"transfer": "basic", "objects": objects})


def lfs_upload(request: Request, oid: str) -> Answer:
    repository, expected, size = request.hub.uploads.get(request.query.get("key", ""), (None, "", 0))
    if repository is None or expected != oid:
        raise Refusal(403, "This address was not given for an upload")
    if len(request.body) != size or hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, "The content does not match its size or its sha256")
    repository.lfs[oid] = request.body
    return Answer()


def commit(request: Request, repo: str, revision: str) -> Answer:
    hub, user, as_pull = request.hub, request.user, request.flag("create_pr")
    number = re.fullmatch(r"refs/pr/(\d+)", revision)
    pull = hub.readable(repo, user).pull_requests.get(int(number[1])) if number else None
    proposes = as_pull or (pull is not None and user is not None and pull.author == user.name)
    repository = hub.writable(repo, user, to_propose=proposes)
    assert user is not None
    parent, files, header = repository.at(revision, only_heads=True), None, {}
    for key, value in ((each["key"], each["value"]) for each in map(json.loads, request.body.splitlines())):
        if key == "header":
            header = value
            if as_pull and "parentCommit" in value:
                parent = repository.at(value["parentCommit"])
            elif value.get("parentCommit", parent.oid) != parent.oid:
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            files = dict(parent.files)  # a copy: where a later line fails, nothing has happened
            continue
        if files is None:
            raise Refusal(400, "The first line must be the header")
        apply_change(repository, files, key, value)
    if files is None:
        raise Refusal(400, "The commit is empty")
    made = hub.add_commit(repository, parent, files, user.name, header["summary"], header.get("description", ""))
    answer = {
        "success": True,
        "commitOid": made.oid,
        "commitUrl": f"{request.endpoint}/datasets/{repo}/commit/{made.oid}",
    }
    if as_pull:
        n = len(repository.pull_requests) + 1
        repository.pull_requests[n] = PullRequest(n, user.name, made.title, "open", parent, made.date)
        repository.heads[f"refs/pr/{n}"] = made
        answer["pullRequestUrl"] = f"{request.endpoint}/datasets/{repo}/discussions/{n}"
    else:
        repository.heads[revision] = made
    return as_json(answer)


def apply_change(repository: Repository, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key in ("file", "lfsFile") and (path.startswith("/") or {"", ".", "..", ".git"} & set(path.split("/"))):
        raise Refusal(400, f"Invalid path: {path}")
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"], validate=True), False)
    elif key == "lfsFile":
        if value["oid"] not in repository.lfs:
            raise Refusal(400, "Your push was rejected because an LFS pointer pointed to a file that does not exist.")
        files[path] = Blob(repository.lfs[value["oid"]], True)
    elif key in ("deletedFile", "deletedFolder"):
        folder = path.rstrip("/")
        gone = [each for each in files if each == path or (key == "deletedFolder" and each.startswith(f"{folder}/"))]
        if not gone:
            raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for each in gone:
            del files[each]
    else:
        raise Refusal(400, f"Unknown operation: {key}")


# Pull requests


def list_discussions(request: Request, repo: str) -> Answer:
    repository = request.hub.readable(repo, request.user)
    status, kind = request.query.get("status", "all"), request.query.get("type", "all")
    found = []
    for pull in reversed(repository.pull_requests.values()):
        # the Hub counts what was merged among the closed
        if kind in ("all", "pull_request") and status in ("all", "open" if pull.status == "open" else "closed"):
            entry = {
                "num": pull.number,
                "title": pull.title,
                "author": {"name": pull.author},
                "createdAt": pull.created,
            }
            entry |= {"status": pull.status, "repo": {"name": repo, "type": "dataset"}, "isPullRequest": True}
            found.append(entry)
    return as_json({"discussions": found, "count": len(found), "start": 0})


def merge(request: Request, repo: str, number: str) -> Answer:
    """Brings what the pull request changed onto main, unless main changed the same files otherwise."""
    repository = request.hub.writable(repo, request.user)
    pull = repository.pull_requests.get(int(number))
    if pull is None:
        raise Refusal(404, "This discussion does not exist")
    if pull.status == "merged":
        raise Refusal(409, "This pull request is already merged")
    main, base, theirs = repository.heads["main"], pull.base.files, repository.heads[f"refs/pr/{number}"].files
    files = dict(main.files)
    for path in {path for path in base.keys() | theirs.keys() if base.get(path) != theirs.get(path)}:
        if files.get(path) not in (base.get(path), theirs.get(path)):
            raise Refusal(409, f"This pull request conflicts with main: {path}")
        files.pop(path, None)
        if path in theirs:
            files[path] = theirs[path]
    title = f"{pull.title} (#{number})"
    repository.heads["main"] = request.hub.add_commit(repository, main, files, repository.owner, title)
    pull.status = "merged"
    return as_json({})


# Reading


def file_json(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_oid}
    if blob.is_lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return entry


def entry_json(commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    if path in commit.files:
        entry = file_json(path, commit.files[path])
    else:
        names = "\n".join(f"{name} {blob.git_oid}" for name, blob in sorted(commit.inside(path).items()))
        entry = {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(names.encode()).hexdigest()}
    if expand:
        last = commit.last_change(path)
        entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return entry


def info(request: Request, repo: str, revision: str = "main") -> Answer:
    repository = request.hub.readable(repo, request.user)
    commit = repository.at(revision)
    siblings: list[dict[str, Any]] = []
    for path, blob in sorted(commit.files.items()):
        siblings.append({"rfilename": path})
        if request.flag("blobs"):
            siblings[-1] |= {"size": len(blob.data), "blobId": blob.git_oid}
            siblings[-1] |= {"lfs": file_json(path, blob)["lfs"] | {"sha256": blob.sha256}} if blob.is_lfs else {}
    made = min(each.date for each in repository.commits.values())
    answer = {"id": repo, "author": repository.owner, "sha": commit.oid, "private": repository.private, "gated": False}
    answer |= {"disabled": False, "tags": [], "createdAt": made, "lastModified": commit.date}
    return as_json(answer | {"siblings": siblings})


def commits(request: Request, repo: str, revision: str) -> Answer:
    commit: Commit | None = request.hub.readable(repo, request.user).at(revision)
    found = []
    while commit is not None:
        entry = {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
        found.append(entry | {"authors": [{"user": commit.author}]})
        commit = commit.parent
    return as_json(found)


def tree(request: Request, repo: str, revision: str, path: str = "") -> Answer:
    commit, path = request.hub.readable(repo, request.user).at(revision), path.strip("/")
    files, start = commit.inside(path), len(path) + 1 if path else 0
    if path and not files:
        raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
    folders = {each[:i] for each in files for i, letter in enumerate(each) if letter == "/" and i > start}
    found = sorted(each for each in folders | files.keys() if request.flag("recursive") or "/" not in each[start:])
    return as_json([entry_json(commit, each, request.flag("expand")) for each in found])


def paths_info(request: Request, repo: str, revision: str) -> Answer:
    commit = request.hub.readable(repo, request.user).at(revision)
    form = parse_qs(request.body.decode())
    found = [path for path in form.get("paths", []) if path in commit.files or commit.inside(path)]
    return as_json([entry_json(commit, path, form.get("expand") == ["true"]) for path in found])


def resolve(request: Request, repo: str, revision: str, path: str) -> Answer:
    commit = request.hub.readable(repo, request.user).at(revision)
    blob = commit.files.get(path)
    if blob is None:
        refusal = Refusal(404, "Entry not found", "EntryNotFound")
        refusal.answer.headers["X-Repo-Commit"] = commit.oid  # the clients cache that the file is not there
        raise refusal
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    headers["Content-Type"] = "application/octet-stream" if blob.is_lfs else "text/plain; charset=utf-8"
    if blob.is_lfs:
        headers |= {"X-Linked-Size": str(len(blob.data)), "X-Linked-ETag": f'"{blob.etag}"'}
    size, wanted = len(blob.data), re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if wanted is None or wanted[0] == "bytes=-":
        return Answer(200, blob.data, headers)
    first = int(wanted[1]) if wanted[1] else max(size - int(wanted[2]), 0)
    last = min(int(wanted[2]), size - 1) if wanted[1] and wanted[2] else size - 1
    if first > last:
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{size}"})
    return Answer(206, blob.data[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{size}"})


# For tests


def set_faults(request: Request) -> Answer:
    request.hub.faults = request.json()
    return as_json({})


def list_requests(request: Request) -> Answer:
    return as_json(request.hub.requests)


def clear_requests(request: Request) -> Answer:
    request.hub.requests = []
    return as_json({})


def set_files(request: Request) -> Answer:
    hub, asked = request.hub, request.json()
    repository = hub.repositories.get(asked["repo"]) or hub.create(asked["repo"], asked.get("private", False))
    contents = {path: base64.b64decode(data) for path, data in asked["files"].items()}
    files = {path: Blob(data, is_lfs(path, len(data))) for path, data in contents.items()}
    repository.lfs |= {blob.sha256: blob.data for blob in files.values() if blob.is_lfs}
    branch, tag = asked.get("branch", "main"), asked.get("tag")
    made = hub.add_commit(repository, repository.heads.get(branch), files, repository.owner, "Set by a test")
    repository.heads[branch] = made
    if tag is not None:
        repository.tags[tag] = made
    return as_json({"commit": made.oid})


_API, _REV = r"/api/datasets/(?P<repo>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"
_PAGE = r"/datasets/(?P<repo>[^/]+/[^/]+?)"
ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create_repository),
    ("DELETE", "/api/repos/delete", delete_repository),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("GET", r"/api/datasets/(?P<repo>[^/]+(/[^/]+)?)", info),  # a name without an owner: no such repository
    ("GET", f"{_API}/revision/{_REV}", info),
    ("GET", f"{_API}/refs", refs),
    ("GET", f"{_API}/commits/{_REV}", commits),
    ("GET", f"{_API}/tree/{_REV}(/(?P<path>.*))?", tree),
    ("POST", f"{_API}/paths-info/{_REV}", paths_info),
    ("POST", f"{_API}/tag/{_REV}", create_tag),
    ("DELETE", f"{_API}/tag/{_REV}", delete_tag),
    ("POST", f"{_API}/preupload/{_REV}", preupload),
    ("POST", f"{_API}/commit/{_REV}", commit),
    ("GET", f"{_API}/discussions", list_discussions),
    ("POST", rf"{_API}/discussions/(?P<number>[1-9]\d*)/merge", merge),
    ("POST", rf"{_PAGE}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", lfs_upload),
    ("GET", f"{_PAGE}/resolve/{_REV}/(?P<path>.+)", resolve),
    ("POST", "/test/faults", set_faults),
    ("GET", "/test/requests", list_requests),
    ("DELETE", "/test/requests", clear_requests),
    ("POST", "/test/files", set_files),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        hub, (path, _, query) = self.server.hub, self.path.partition("?")
        is_test = path.startswith("/test/")
        with hub.lock:
            fault = {} if is_test else hub.next_fault(self.command, unquote(path))
        time.sleep(fault.get("delay_seconds", 0))
        length, cut = int(self.headers.get("Content-Length", 0)), fault.get("cut_after")
        body = self.rfile.read(length if cut is None else min(length, cut))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = USERS.get(token)
        answer: Answer | None = None
        if len(body) == length and (cut is None or length == 0):  # else the request came to an end before its time
            if "status" in fault:
                answer = as_json({"error": "A fault that a test asked for"}, fault["status"])
            elif "body" in fault:
                answer = Answer(200, base64.b64decode(fault["body"]))
            elif token and user is None and not is_test:
                answer = Refusal(401, "Invalid credentials in Authorization header").answer
            else:
                request = Request(hub, user, dict(parse_qsl(query)), self.headers, body, self.server.endpoint)
                answer = self._route(path, request)
            answer.headers |= fault.get("headers", {})
            if fault.get("answer_lost"):
                answer = None
        if not is_test:
            # noted before it is sent: whoever has the answer finds it in the list
            sent = len(answer.body[:cut]) if answer is not None and self.command == "GET" else 0
            n_bytes = sent if self.command in ("GET", "HEAD") else len(body)
            entry = {"method": self.command, "path": unquote(path), "status": answer and answer.status}
            with hub.lock:
                hub.requests.append({**entry, "n_bytes": n_bytes, "user": user and user.name})
        if answer is not None:
            self._send(answer, cut)
        if answer is None or cut is not None:
            self._hang_up(fault.get("reset", False))

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (the names that the base class looks for)

    def _route(self, path: str, request: Request) -> Answer:
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, function in ROUTES:
            match = re.fullmatch(pattern, path) if wanted == method else None
            if match is None:
                continue
            parts = {name: unquote(part) for name, part in match.groupdict().items() if part is not None}
            try:
                with request.hub.lock:
                    return function(request, **parts)
            except Refusal as refusal:
                return refusal.answer
            except (ValueError, KeyError, TypeError) as error:  # the request's JSON is not what the Hub takes
                return Refusal(400, f"Malformed request: {error!r}").answer
        return Refusal(404, f"No such page: {method} {unquote(path)}").answer

    def _send(self, answer: Answer, cut: int | None) -> None:
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:cut])

    def _hang_up(self, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # the reader and writer hold the socket, too: only closing its descriptor closes it now
        os.close(self.connection.detach())
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """No log: `/test/requests` has what tests need."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.hub = Hub()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away; anything else is this server's mistake."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def end_with_parent() -> None:
    """Ends this process soon after the one that started it, however that ends."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Hugging Face Hub for data sets, in memory.")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    try:
        server = Server(parser.parse_args().port)
    except OSError as error:
        raise SystemExit(f"the port cannot be used: {error.strerror}; leave --port out for a free one") from None
    end_with_parent()
    lines = [f"export HF_ENDPOINT={server.endpoint}", "export HF_TOKEN=hf_me", "export HF_HUB_DISABLE_XET=1"]
    print(*lines, "unset HF_HUB_OFFLINE", sep="\n", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
