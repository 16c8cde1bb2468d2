"""Python code that a program hands over: factories of networks, trainers. A recipe holds its sha256, workers get it pickled.

Nothing is ever unpickled from a file: whoever builds again from a recipe hands the code over again.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cloudpickle

from proxyds.code_identity import hash_code
from proxyds.errors import CallableError, ProxydsError
from proxyds.text import first_line

_PICKLED: dict[str, bytes] = {}


def hand_over(value: object, where: str) -> str:
    """Keeps a value for this process and its workers.

    Args:
        value: A function, a class, a `functools.partial`, or anything else that pickles; what stands in `__main__` or a notebook goes by
            value.
        where: What it is, for messages, such as `space: net-a`.

    Returns:
        Its identity, see `identify_code`.

    Raises:
        CallableError: It does not pickle, or cannot be read from its pickle again.
    """
    identity = identify_code(value, where)
    with _explaining(where):
        pickled = cloudpickle.dumps(value)
        pickle.loads(pickled)  # noqa: S301 - written in the line before
    _PICKLED[identity] = pickled
    return identity


def take_over(identity: str, missing: str) -> Any:
    """Returns a copy of a value that was handed over; raises `CallableError` with the message `missing` where none was."""
    if identity not in _PICKLED:
        raise CallableError(missing)
    return pickle.loads(_PICKLED[identity])  # noqa: S301 - pickled by this program


def is_handed_over(identity: str) -> bool:
    """Says whether a value of this identity was handed over."""
    return identity in _PICKLED


def list_handed_over() -> dict[str, bytes]:
    """Returns everything that was handed over, pickled, by identity: for a worker that must know it too."""
    return dict(_PICKLED)


def receive(pickled: Mapping[str, bytes]) -> None:
    """Takes what `list_handed_over` of the main process returned."""
    _PICKLED.update(pickled)


def identify_code(value: object, where: str) -> str:
    """Identifies a value by the code that it runs, see `code_identity`; `where` says what it is, for messages.

    Returns:
        A sha256 in hexadecimal.

    Raises:
        CallableError: It does not pickle.
    """
    with _explaining(where):
        return hash_code(value)


@contextmanager
def _explaining(where: str) -> Iterator[None]:
    try:
        yield
    except ProxydsError:
        raise
    except Exception as error:
        raise CallableError(
            f"{where}: must be code that can be copied to other processes, pickling it says {type(error).__name__}: "
            f"{first_line(error)}; open files, locks and generators cannot: make them where they are used"
        ) from error
