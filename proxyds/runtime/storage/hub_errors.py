"""What the Hub's client raises, turned into errors that say what was asked for and what to do; and what may pass is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from proxyds.errors import HeadMovedError, OfflineError, RemoteAccessError, RemoteError, RemoteNotFoundError
from proxyds.text import first_line

_Result = TypeVar("_Result")

MOST_WAIT_SECONDS = 60
"""Longest pause between two tries, whatever the Hub asks for."""
_AGAIN = "run it again, it goes on where it was"


@contextmanager
def translate_hub_errors(what: str) -> Iterator[None]:
    """Turns what the Hub's client raises into errors that say what was asked for and what to do."""
    try:
        yield
    except Exception as error:  # of several libraries; what is not of the network is raised as it is
        explained = _explain(what, error)
        if explained is None:
            raise
        raise explained from None


def _explain(what: str, error: BaseException) -> RemoteError | None:
    """Explains an error of the Hub's client; returns None for one that is not of the network."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = get_token()
    said = first_line(error, hide=lambda text: text.replace(token, "***") if token else text)
    if isinstance(error, LocalEntryNotFoundError | RuntimeError) and error.__cause__ is not None:
        return _explain(what, error.__cause__)  # the first wraps errors of downloads, the other those of uploads
    if isinstance(error, LocalEntryNotFoundError):
        return OfflineError(
            f"{what}: was not fetched before, and the Hub is not asked, as HF_HUB_OFFLINE is set; unset it"
        )
    if isinstance(error, UnicodeEncodeError):
        return RemoteAccessError(f"{what}: the token holds characters that no token has; set HF_TOKEN to another")
    if isinstance(error, HFValidationError):
        return RemoteNotFoundError(f"{what}: must read user/name: {said}")
    if isinstance(error, OfflineModeIsEnabled):
        return OfflineError(f"{what}: HF_HUB_OFFLINE is set, so the Hub is not asked; unset it")
    if isinstance(error, RevisionNotFoundError):
        return RemoteNotFoundError(
            f"{what}: no such tag, branch or commit; without a version the head of main is taken"
        )
    if isinstance(error, RepositoryNotFoundError):
        private = "or it is private and the token is not its owner's" if token else "or it is private: `hf auth login`"
        return RemoteNotFoundError(f"{what}: no such data set on the Hub, {private}")
    if isinstance(error, EntryNotFoundError):
        return RemoteNotFoundError(f"{what}: no such file on the Hub")
    if isinstance(error, HfHubHTTPError):
        explained = _explain_status(what, error.response.status_code, said)
        asked = error.response.headers.get("Retry-After", "")
        explained.wait_seconds = min(int(asked), MOST_WAIT_SECONDS) if asked.isdecimal() else 0
        return explained
    # the client's HTTP library is not ours to import: the name of its package tells its errors
    is_of_network = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "hf_xet")
    if is_of_network or (isinstance(error, OSError) and error.errno is None):
        return RemoteError(f"{what}: the Hub cannot be reached: {said}; {_AGAIN}")
    return None


def _explain_status(what: str, status: int, said: str) -> RemoteError:
    if status == 401:
        return RemoteAccessError(
            f"{what}: the Hub does not know the token; `hf auth login` keeps another, or set HF_TOKEN"
        )
    if status == 403:
        return RemoteAccessError(
            f"{what}: the token may not do this: {said}; use one that may write, a name of your own, or create_pr (--create-pr)"
        )
    if status in (409, 412):
        return HeadMovedError(f"{what}: somebody else has changed it meanwhile; {_AGAIN}")
    return RemoteError(f"{what}: the Hub answered {status}: {said}; {_AGAIN}")


def retry(do: Callable[[], _Result], pauses: Sequence[float] = (1, 2, 4)) -> _Result:
    """Does something again, after a pause, each time that it fails by what may pass; at most once for each pause."""
    for wait_seconds in pauses:
        try:
            return do()
        except RemoteError as error:
            if not error.may_pass:
                raise
            time.sleep(max(wait_seconds, error.wait_seconds))
    return do()
