"""Errors carry the place at fault."""

from __future__ import annotations

import ast
import errno
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import proxyds
from proxyds.errors import ArtifactError, NoSpaceError, ProxydsError, translate_os_errors


def test_an_error_shows_its_place_before_its_message_and_keeps_it_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(ArtifactError("must be a proxy", place=Path("a/b"))))
    assert (str(error), error.place, error.message) == ("a/b: must be a proxy", Path("a/b"), "must be a proxy")
    assert str(ProxydsError("device: must be cpu")) == "device: must be cpu"


def test_in_a_notebook_an_error_is_its_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_cell("import proxyds\nproxyds.open('no-such-proxy')")
    shown = capsys.readouterr()
    assert (shown.out + shown.err).strip().splitlines() == [ANY]
    assert "no-such-proxy" in shown.out + shown.err


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
    with pytest.raises(NoSpaceError) as raised, translate_os_errors(Path("out"), "choose another folder"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.place == Path("out")
    assert str(raised.value).startswith("out: no space")


def iter_texts(node: ast.AST) -> Iterator[str]:
    """Yields the texts of some code, with `...` for what is filled in, but for docstrings."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)
        case ast.Constant(value=str(text)):
            yield text
    for below in ast.iter_child_nodes(node):
        yield from (
            iter_texts(below) if not isinstance(node, ast.JoinedStr) or isinstance(below, ast.FormattedValue) else ()
        )


def test_messages_below_the_command_line_name_options_beside_what_python_takes() -> None:
    package = Path(proxyds.__file__).parent
    for file in sorted(package.rglob("*.py")):
        if "cli" in file.relative_to(package).parts:
            continue
        for text in iter_texts(ast.parse(file.read_text(encoding="utf-8"))):
            plain = re.sub(r"`[^`]*`|\([^()]*\)", "", text)  # whole commands, and what stands in brackets
            assert not re.search(r"(?<![\w-])(--[a-z]|-o\b)", plain), f"{file}: {text}"
