"""What commands print with: JSON for programs, and for people text as wide as the terminal. Imports nothing heavy."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from proxyds.errors import translate_os_errors
from proxyds.layout import fill_in, format_table, wrap

TEMPLATES = Path(__file__).parent / "templates"


def say(text: str) -> None:
    """Prints a part of the result for people; on a terminal no line is wider than it, but for those that begin with spaces.

    Raises:
        NoSpaceError: It goes into a file, and the disk is full.
        OutputError: It cannot be written for another reason.
    """
    print_plain(wrap(text, terminal_width()))


def print_plain(text: str) -> None:
    """Prints a text as it is on standard output.

    Raises:
        NoSpaceError: It goes into a file, and the disk is full.
        OutputError: It cannot be written for another reason.
    """
    with translate_os_errors("standard output", "send it to another place"):
        click.echo(text)


def print_json(value: object) -> None:
    """Prints a result for programs."""
    print_plain(json.dumps(value, indent=1, default=str))


def print_text(template: str, **values: object) -> None:
    """Prints a result for people.

    Args:
        template: A file of `proxyds/cli/templates`, without `.jinja`.
        values: See `layout.fill_in`.
    """
    print_plain(fill_in(TEMPLATES / f"{template}.jinja", terminal_width(), **values))


def terminal_width() -> int | None:
    """Returns how many letters fit into a line of the terminal; None where standard output is none."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else None


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table on standard output."""
    say(format_table(headings, rows, title, width=terminal_width()))


def show_command(*words: object) -> str:
    """Writes words as a command to copy: a shell reads each as one."""
    return shlex.join(map(str, words))


def name_programs() -> dict[str, str]:
    """Finds what to type for `python` and for this `program`: short where the shell finds them."""
    installed = shutil.which("proxyds")
    if installed is not None and installed == shutil.which(sys.argv[0]):
        return {"python": "python", "program": "proxyds"}
    here = Path.cwd()
    python, program = Path(sys.executable), Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return {"python": show_command(python), "program": show_command(python, "-m", "proxyds")}
    names = [str(path.relative_to(here)) if path.is_relative_to(here) else str(path) for path in (python, program)]
    return {"python": show_command(names[0]), "program": show_command(names[1])}
