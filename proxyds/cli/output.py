"""What commands print with: JSON for programs, and for people text from templates, with tables. Imports nothing heavy."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from proxyds.text import duration, with_prefix


def print_json(value: object) -> None:
    """Prints a result for programs."""
    click.echo(json.dumps(value, indent=1, default=str))


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
    click.echo(templates.get_template(f"{template}.jinja").render(values).rstrip("\n"))


def format_table(headings: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> str:
    """Lays out a table as wide as the terminal; numbers are right-aligned, nothing is cut off."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, heading in enumerate(headings):
        is_number = bool(rows) and column > 0 and all(str(row[column])[:1].isdigit() for row in rows)
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=200)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table on standard output."""
    click.echo(format_table(headings, rows, title))


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
