"""Text laid out for people: templates filled in, tables, lines as wide as a terminal or a page. Imports nothing heavy."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from proxyds.text import duration, with_prefix

MOST_UNBROKEN = 20
"""Letters of a table's cell that a narrow terminal does not break, at most."""
GAP = 2
"""Spaces between the columns of a table."""
PAGE_WIDTH = 120
"""Letters of a line where there is no terminal, as in a notebook."""


class Readable(ABC):
    """A result that people read: `print` and a notebook show the text of `describe`."""

    @abstractmethod
    def describe(self, width: int | None) -> str:
        """Writes the text.

        Args:
            width: Letters of a line, at most; None for no limit, and tables with tabs between the columns.
        """

    def __str__(self) -> str:
        return self.describe(shutil.get_terminal_size((PAGE_WIDTH, 0)).columns)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Shows the text where a notebook's cell ends with the result."""
        return {"text/plain": str(self)}


def fill_in(template: Path, width: int | None, **values: object) -> str:
    """Fills in a template.

    Args:
        template: Its file, of Jinja; it may include those beside it.
        width: See `Readable.describe`; lines that begin with spaces, such as commands to copy, stay whole.
        values: What the template names; a name without a value is a defect, never written as nothing.
    """
    import jinja2

    templates = jinja2.Environment(  # noqa: S701 - plain text
        loader=jinja2.FileSystemLoader(template.parent),
        extensions=["jinja2.ext.do"],
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["table"] = partial(format_table, width=width)
    templates.filters |= {
        "duration": lambda seconds: "unknown" if seconds is None else duration(seconds),
        "flop": lambda value: "unknown" if value is None else with_prefix(value, "FLOP"),
        "share": lambda n, total: f"{n:,} ({n / total:.1%})",
        "percent": lambda share: f"{share:.1%}",
        "json": partial(json.dumps, ensure_ascii=False),
        "quote": shlex.quote,
        "thousands": lambda n: f"{n:,}",
        "counted": lambda n, what: f"{n:,} {what}{'' if n == 1 else 's'}",
    }
    return wrap(templates.get_template(template.name).render(values).rstrip("\n"), width)


def wrap(text: str, width: int | None) -> str:
    """Breaks lines that are longer than the width, but for those that begin with spaces; see `Readable.describe`."""
    return text if width is None else "\n".join(_wrap_line(line, width) for line in text.splitlines())


def _wrap_line(line: str, width: int) -> str:
    if len(line) <= width or line.startswith(" "):  # such as a command to copy
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def format_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], title: str = "", *, width: int | None
) -> str:
    """Lays out a table; see `Readable.describe`.

    Nothing is cut off: long texts go on in the next line.
    """
    cells = [[" ".join(str(cell).split()) for cell in row] for row in (headings, *rows)]
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
