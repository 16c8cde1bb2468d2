"""Where a proxy may lie: a folder, a data set repository of the Hub, or any address that `fsspec` knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from proxyds.errors import RemoteNotFoundError

_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
_HUB_ADDRESS = "hf://datasets/"


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
        RemoteNotFoundError: It is none of the three.
    """
    return Path(text) if Path(text).exists() else read_address(text) or read_remote(text)


def read_remote(text: str) -> OnHub | AtUrl:
    """Reads the place of a proxy that is not meant to be a folder here, whatever folders there are.

    Raises:
        RemoteNotFoundError: It is neither an address nor `user/name@v1.0.0`.
    """
    if "://" in text and not text.startswith(_HUB_ADDRESS):
        return AtUrl(text.rstrip("/"))
    found = _REPOSITORY.fullmatch(text.removeprefix(_HUB_ADDRESS))
    if found is None:
        raise RemoteNotFoundError(
            f"{text}: must be user/name or user/name@v1.0.0 on the Hub, an address such as s3://bucket/folder, or a proxy's folder; "
            "it is no folder here"
        )
    return OnHub(found[1], found[2])


def read_address(text: str) -> Place | None:
    """Reads an address: `file://` is a folder here, `hf://datasets/user/name` a repository; None where it is no address."""
    if "://" not in text:
        return None
    return Path(unquote(urlsplit(text).path)) if text.startswith("file://") else read_remote(text)
