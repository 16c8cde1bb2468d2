"""What commands print with: JSON for programs, and for people text from templates, with tables. Imports nothing heavy."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import click

from proxyds.errors import translate_os_errors
from proxyds.text import duration, with_prefix

MOST_UNBROKEN = 20
"""Letters of a table's cell that a narrow terminal does not break, at most."""
GAP = 2
"""Spaces between the columns of a table."""


def say(text: str) -> None:
    """Prints a part of the result for people; on a terminal no line is wider than it, but for those that begin with spaces.

    Raises:
        NoSpaceError: It goes into a file, and the disk is full.
        OutputError: It cannot be written for another reason.
    """
    width = _terminal_width()
    print_plain(text if width is None else "\n".join(_wrap(line, width) for line in text.splitlines()))


def _wrap(line: str, width: int) -> str:
    if len(line) <= width or line.startswith(" "):  # such as a command to copy
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


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
        values: What the template names; a name without a value is a defect, never printed as nothing.
    """
    import jinja2

    templates = jinja2.Environment(  # noqa: S701 - plain text for a terminal
        loader=jinja2.PackageLoader("proxyds.cli"),
        extensions=["jinja2.ext.do"],
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["table"] = format_table
    templates.filters |= {
        "duration": lambda seconds: "unknown" if seconds is None else duration(seconds),
        "flop": lambda value: "unknown" if value is None else with_prefix(value, "FLOP"),
        "share": lambda n, total: f"{n:,} ({n / total:.1%})",
        "percent": lambda share: f"{share:.1%}",
        "thousands": lambda n: f"{n:,}",
        "counted": lambda n, what: f"{n:,} {what}{'' if n == 1 else 's'}",
    }
    say(templates.get_template(f"{template}.jinja").render(values).rstrip("\n"))


def format_table(headings: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> str:
    """Lays out a table: as wide as the terminal at most, or with tabs between the columns where programs read it.

    Nothing is cut off: on a terminal, long texts go on in the next line.
    """
    cells = [[" ".join(str(cell).split()) for cell in row] for row in (headings, *rows)]
    width = _terminal_width()
    if width is not None:
        return _lay_out(cells, title, width)
    return "\n".join([title] * bool(title) + ["\t".join(row) for row in cells])


def _lay_out(rows: Sequence[Sequence[str]], title: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    room = width - GAP * (len(widths) - 1)
    if sum(widths) > room:
        widths = _fit(columns, widths, room)
    are_numbers = [len(column) > 1 and all(re.match(r"\d[^[]*$", cell) for cell in column[1:]) for column in columns]
    are_numbers[0] = False  # names
    lines = [title] if title else []
    for row in rows:
        broken = [_break(cell, fitting) for cell, fitting in zip(row, widths, strict=True)]
        for parts in zip_longest(*broken, fillvalue=""):
            cells = [
                " " * (fitting - cell_len(part)) + part if is_number else set_cell_size(part, fitting)
                for part, fitting, is_number in zip(parts, widths, are_numbers, strict=True)
            ]
            lines.append((" " * GAP).join(cells).rstrip())
    return "\n".join(lines)


def _fit(columns: Sequence[Sequence[str]], widths: Sequence[int], room: int) -> list[int]:
    """Shares out the room: short cells stay whole, but that intervals may go below their values; longer texts get what is left."""
    from rich.cells import cell_len

    fitted = list(widths)
    texts = [
        0,
        *(n for n, (_, *cells) in enumerate(columns) if n and max(map(cell_len, cells), default=0) > MOST_UNBROKEN),
    ]
    for number, (heading, *cells) in enumerate(columns):
        if number not in texts:
            fitted[number] = max(map(cell_len, [*heading.split(), *"\n".join(cells).replace(" [", "\n[").splitlines()]))
    left = room - sum(fitting for number, fitting in enumerate(fitted) if number not in texts)
    for place, number in enumerate(sorted(texts, key=widths.__getitem__)):
        fitted[number] = min(widths[number], max(left // (len(texts) - place), MOST_UNBROKEN // 2))
        left -= fitted[number]
    return fitted


def _break(cell: str, width: int) -> list[str]:
    """Breaks a cell that is too wide: an interval goes below its value, other texts go on at a space."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    value, bracket, rest = cell.rpartition(" [")
    if bracket and max(cell_len(value), cell_len(rest) + 1) <= width < cell_len(cell):
        return [value, f"[{rest}"]
    return [str(line).rstrip() for line in Text(cell).wrap(Console(), width)] or [""]


def _terminal_width() -> int | None:
    """Returns how many letters fit into a line of the terminal; None where standard output is none."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else None


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table on standard output."""
    say(format_table(headings, rows, title))


def name_programs() -> dict[str, str]:
    """Finds what to type for `python` and for this `program`: short where the shell finds them."""
    installed = shutil.which("proxyds")
    if installed is not None and installed == shutil.which(sys.argv[0]):
        return {"python": "python", "program": "proxyds"}
    here = Path.cwd()
    python, program = Path(sys.executable), Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return {"python": str(python), "program": f"{python} -m proxyds"}
    names = [str(path.relative_to(here)) if path.is_relative_to(here) else str(path) for path in (python, program)]
    return {"python": names[0], "program": names[1]}
