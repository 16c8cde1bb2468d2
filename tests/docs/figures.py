"""Writes figures of committed results into README, docs, cards and recipes: `make figures`; `make figures-check` says where one is not current.

A figure stands between `<!-- figures: NAME -->` and `<!-- end -->`: within a line, not at its start, where Markdown would take the line as HTML; or, a whole table, on lines
between these two. The name says where the figure comes from, in parts with `;` between them:

    benchmark; cpu                                              the table in tests/benchmarks/results/cpu.md
    fidelity/cifar10; How large must it be?                     the first table below a heading of cards/fidelity/cifar10/README.md
    fidelity/cifar10; 5 %; easier; minus random                 heading, row and column of a cell
    fidelity/cifar10; 5 %; easier; tau; value                   the cell's estimate without its interval
    fidelity/cifar10; The architectures; every; MFLOP; range    the least and the largest value of a column, whole
    fidelity/cifar10; The architectures; every; MFLOP; up to 5  how many of them are 5 or less
    fidelity/cifar10; What to expect                            the sentence that this heads
    fidelity/cifar10; What to expect; as many FLOPs as          the first number after these words of it
    checks                                                      one row for the card of each recipe in `CHECKED`
    costs                                                       what builds and checks of recipes took, from the manifests of their cards

The head of a recipe needs no markers: `recipe_notes` writes its end. Nothing is measured or weighed here: pages of studies are written by `make study-pages`, results of benchmarks by `make bench`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.docs.cards import ROOT
from tests.docs.recipe_notes import tabulate_costs, write_notes

MARK = re.compile(r"<!-- figures: (?P<name>.+?) -->(?P<shown>.*?)<!-- end -->", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
CHECKED = {
    "digits": "twelve networks, 10 % of scikit-learn's digits",
    "cifar10-small": "twelve residual networks, 5 % of CIFAR-10",
    "cifar100-resnet20-small": "CIFAR-100, 10 %, 20 of 100 labels",
    "cifar10-efficientnet-b0-small": "EfficientNet-B0 at a quarter of its width, 10 % of CIFAR-10",
    "cifar10-nasbench201-small": "NAS-Bench-201 cells, 5 % of CIFAR-10",
}
"""Cards of shipped recipes, by folder: what was checked."""
Row = dict[str, str]


class FigureError(Exception):
    """A marker that is not closed, or whose name names no figure."""


def list_pages() -> list[Path]:
    """Lists the pages that hold figures, or may."""
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    return [ROOT / "README.md", ROOT / "cards" / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *recipes]


def write_figures(text: str) -> str:
    """Returns a page with every figure between its markers written anew.

    Raises:
        FigureError: A marker is not closed, or its name names no figure.
    """

    def write(mark: re.Match[str]) -> str:
        name, shown = mark["name"], mark["shown"]
        if "<!-- figures:" in shown:
            raise FigureError(f"figures: {name}: must be closed by `<!-- end -->` before the next marker")
        figure, start = find_figure(name), mark[0][: -len(shown) - len("<!-- end -->")]
        if not shown.startswith("\n"):
            return f"{start}{figure}<!-- end -->"
        indent = mark.string[mark.string.rfind("\n", 0, mark.start()) + 1 : mark.start()]
        lines = "\n".join(f"{indent}{line}".rstrip() for line in figure.splitlines())
        return f"{start}\n{lines}\n{indent}<!-- end -->"

    written = MARK.sub(write, text)
    if len(MARK.findall(text)) != text.count("<!-- figures:"):
        raise FigureError(f"figures: {text.rpartition('<!-- figures:')[2][:60]!r}: must be closed by `<!-- end -->`")
    return written


def find_figure(name: str) -> str:
    """Finds the figure that a marker names.

    Raises:
        FigureError: There is none; the message says which part is unknown, and what is known.
    """
    page, *parts = (part.strip() for part in name.split(";"))
    if page in TABLES:
        return TABLES[page]()
    if page == "benchmark":
        path = ROOT / "tests" / "benchmarks" / "results" / f"{parts[0]}.md"
    else:
        path = ROOT / "cards" / page / "README.md"
    if not path.is_file():
        raise FigureError(f"figures: {name}: must name a page, {path.relative_to(ROOT)} is none")
    text = path.read_text(encoding="utf-8")
    if page == "benchmark":
        return text.strip()
    if parts[0] == "What to expect":
        sentence = take_match(r"^\*\*What to expect of `.*?`\*\* on .*?: (.*)$", text, name)
        return take_match(rf"{re.escape(parts[1])}\D*?({NUMBER.pattern})", sentence, name) if parts[1:] else sentence
    tables = list_tables(take_section(text, parts[0], name))
    if len(parts) == 1:
        return tables[0].text
    row, column, *how = parts[1:]
    fitting = [table for table in tables if column in table.columns and (row == "every" or row in table.rows)]
    if not fitting:
        known = "; ".join(f"{', '.join(table.rows)} by {', '.join(table.columns)}" for table in tables)
        raise FigureError(f"figures: {name}: must name a row and a column of one table, which are {known}")
    if row == "every":
        return summarize([each[column] for each in fitting[0].rows.values()], how[0])
    cell = fitting[0].rows[row][column]
    if not cell:
        raise FigureError(f"figures: {name}: must name a cell that holds something, this one is empty")
    return cell.split()[0] if how == ["value"] else cell


class Table:
    """A table in Markdown.

    Attributes:
        text: As it stands on its page.
        columns: The headings.
        rows: By the row's first cell: each cell by its column's heading.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        heading, _, *rows = (
            [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
            for line in text.splitlines()
        )
        self.columns = heading
        self.rows: dict[str, Row] = {row[0]: dict(zip(heading, row, strict=False)) for row in rows}


def take_section(text: str, heading: str, name: str) -> str:
    """Takes what stands below a heading, or below a line such as `At 5 %:`, up to the next heading of a section."""
    return take_match(rf"^(?:## )?{re.escape(heading)}$(.*?)(?=^## |\Z)", text, name)


def take_match(pattern: str, text: str, name: str) -> str:
    """Takes the first group of a pattern's first match on a page."""
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL if "(?=" in pattern else re.MULTILINE)
    if match is None:
        raise FigureError(f"figures: {name}: must name a heading of its page, which has none like this")
    return match[1]


def list_tables(text: str) -> list[Table]:
    """Lists the tables of a section, in their order."""
    return [Table(table.strip()) for table in re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)]


def summarize(cells: Sequence[str], how: str) -> str:
    """Summarizes the first numbers of a column's cells: `range`, or `up to X`: how many are X or less."""
    values = [float(match[0]) for cell in cells if (match := NUMBER.search(cell))]
    if how == "range":
        return f"{min(values):.0f} to {max(values):.0f}"
    most = float(how.removeprefix("up to "))
    return str(sum(value <= most for value in values))


def tabulate_checks() -> str:
    """Tabulates Kendall's tau of the checks that the cards of shipped recipes show, in Markdown."""
    columns = {
        "**proxy**": "proxy",
        **{name: name for name in ("random", "fewer epochs", "counting FLOPs", "counting parameters")},
    }
    ceiling = "full data, another seed"
    lines = [
        f"| recipe | drawn by | {' | '.join(columns.values())} | ceiling | verdict |",
        f"|---|---|{'---|' * (len(columns) + 2)}",
    ]
    for folder, told in CHECKED.items():
        text = (ROOT / "cards" / folder / "README.md").read_text(encoding="utf-8")
        method = re.search(r"(?:chosen by the method |The method (?=`[^`]*` chose))(`.*?`)", text)
        verdict = take_match(r"^> \*\*(.*?)\.\*\*", text, f"checks; {folder}")
        (table, *_) = list_tables(take_section(text, "Evidence", f"checks; {folder}"))
        taus = [table.rows[row]["Kendall tau"] for row in columns]
        taus.append(table.rows[ceiling]["Kendall tau"] if ceiling in table.rows else "unknown")
        drawn_by = method[1] if method else "`cases`"  # the paper's, which a card does not name
        lines.append(
            f"| [{told}](../cards/{folder}/README.md) | {drawn_by} | {' | '.join(taus)} | {verdict[0].lower()}{verdict[1:]} |"
        )
    return "\n".join(lines)


TABLES = {"checks": tabulate_checks, "costs": tabulate_costs}
"""Tables that are of all cards."""


def update_pages(pages: Sequence[Path], keep: Callable[[Path, str], object]) -> list[Path]:
    """Writes figures anew, hands each page that changed to `keep`, and lists these pages.

    Raises:
        FigureError: A marker of a page is wrong; the message begins with the page.
    """
    changed = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        try:
            written = write_notes(text, page.stem) if page.suffix == ".yaml" else write_figures(text)
        except FigureError as error:
            raise FigureError(f"{page}: {error}") from error
        if written != text:
            keep(page, written)
            changed.append(page)
    return changed


def main() -> None:
    """Reads the command line; writes the figures, or says which pages are not current."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 where a figure is not current"
    )
    given = parser.parse_args()

    def keep(page: Path, text: str) -> None:
        if not given.check:
            page.write_text(text, encoding="utf-8")

    try:
        changed = update_pages(list_pages(), keep)
    except FigureError as error:
        sys.exit(str(error))
    for page in changed:
        print(
            f"{page.relative_to(ROOT)}: {'figures are not current: run `make figures`' if given.check else 'written'}"
        )
    sys.exit(1 if given.check and changed else 0)


if __name__ == "__main__":
    main()
