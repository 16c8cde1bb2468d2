"""Errors carry the place at fault."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from proxyds.errors import ArtifactError, NoSpaceError, ProxydsError, translate_os_errors


def test_an_error_shows_its_place_before_its_message_and_keeps_it_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(ArtifactError("must be a proxy", place=Path("a/b"))))
    assert (str(error), error.place, error.message) == ("a/b: must be a proxy", Path("a/b"), "must be a proxy")
    assert str(ProxydsError("--device x: must be cpu")) == "--device x: must be cpu"


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (Path("/tmp/x"), "me/proxy@v1: m"),
        (Path("/tmp/x/data/a.parquet"), "me/proxy@v1/data/a.parquet: m"),
        (Path("/tmp/xy"), "/tmp/xy: m"),
        ("/tmp/x", "/tmp/x: m"),
        (None, "m"),
    ],
)
def test_a_place_within_a_temporary_folder_is_shown_as_one_within_the_address(
    place: Path | str | None, shown: str
) -> None:
    error = ArtifactError("m", place=place)
    error.show_folder_as(Path("/tmp/x"), "me/proxy@v1")
    assert str(error) == shown


def test_what_the_system_says_to_writing_names_the_place() -> None:
    with pytest.raises(NoSpaceError) as raised, translate_os_errors(Path("out"), "choose another -o"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.place == Path("out")
    assert str(raised.value).startswith("out: no space")
