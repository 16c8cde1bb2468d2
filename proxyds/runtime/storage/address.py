"""Where a proxy may lie: a folder, a data set repository of the Hub, or any address that `fsspec` knows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from proxyds.errors import ArtifactError, RemoteNotFoundError

_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
_HUB_ADDRESS = "hf://datasets/"
_HUB_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/([^/?#]+/[^/?#]+)(?:/tree/([^?#]+))?/?(?:[?#].*)?"
)
"""What a browser shows of a data set."""


@dataclass(frozen=True)
class OnHub:
    """A data set repository: `user/name`, and the tag, branch or commit that is meant."""

    repo: str
    revision: str | None


@dataclass(frozen=True)
class AtUrl:
    """A folder somewhere else, such as `s3://bucket/folder`."""

    url: str


Place = Path | OnHub | AtUrl


def read_place(text: str) -> Place:
    """Reads what a user gives as the place of a proxy: a folder that is there, an address, or `user/name@v1.0.0`.

    Raises:
        ArtifactError: It is none of the three.
        RemoteNotFoundError: It is an address that names no place.
    """
    if os.path.exists(text):  # noqa: PTH110 - a name that is too long is no error here
        return Path(text)
    if "://" not in text and _REPOSITORY.fullmatch(text) is None:
        raise ArtifactError(
            "must be a proxy: a folder, of which none has this name here; user/name@v1.0.0 on the Hub; or an address such as "
            "s3://bucket/folder. `proxyds list` shows the proxies in this folder",
            place=text,
        )
    return read_address(text) or read_remote(text)


def read_remote(text: str) -> OnHub | AtUrl:
    """Reads the place of a proxy that is not meant to be a folder here, whatever folders there are.

    Raises:
        RemoteNotFoundError: It is neither an address nor `user/name@v1.0.0`.
    """
    if page := _HUB_PAGE.fullmatch(text):
        text = f"{page[1]}@{unquote(page[2]).rstrip('/')}" if page[2] else page[1]
    if "://" in text and not text.startswith(_HUB_ADDRESS):
        if not text.partition("://")[2].strip("/"):
            raise RemoteNotFoundError(f"{text}: must name a place after ://, such as s3://bucket/folder")
        if text.startswith(("http://", "https://")) and "?" in text:
            raise RemoteNotFoundError(f"{show_address(text)}: must be the address of a folder, it has a query")
        if ".." in text.split("/"):
            raise RemoteNotFoundError(f"{show_address(text)}: an address must not hold `..`; write the folder out")
        local = _read_local(text)
        return AtUrl(text.rstrip("/") if local is None else f"file://{local}")
    parts = _REPOSITORY.fullmatch(text.removeprefix(_HUB_ADDRESS))
    if parts is None:
        raise RemoteNotFoundError(
            f"{text}: must be user/name on the Hub, or user/name@v1.0.0 to fetch a version, or an address such as s3://bucket/folder"
        )
    return OnHub(parts[1], parts[2])


def read_address(text: str) -> Place | None:
    """Reads an address: `file://` is a folder here, `hf://datasets/user/name` a repository; None where it is no address."""
    if "://" not in text:
        return None
    return _read_local(text) or read_remote(text)


def _read_local(text: str) -> Path | None:
    """Returns the folder that a `file://` address means; None for others."""
    parts = urlsplit(text)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
        raise RemoteNotFoundError(f"{text}: must name a folder of this machine from its root, as file:///home/me/shelf")
    return Path(unquote(parts.path))


def show_address(text: str) -> str:
    """Takes users, passwords and queries out of an address, or out of a message that holds one."""
    return re.sub(r"\?[^\s'\"]*", "", re.sub(r"//[^/\s]*@", "//", text)) if "://" in text else text
