"""The paper's tables 1, 2 and 3 again, with several seeds, beside what it prints (`printed.csv`).

`make paper-tables` builds and checks the three proxies by the paper's own protocol, importance from the test set, and writes
`paper-tables/README.md`. It takes a GPU half an hour to hours, and two cores weeks: its plan is shown first, and what is finished is kept.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from proxyds.artifact.manifest import Manifest
from proxyds.artifact.tables import read_proxy
from proxyds.cli.output import print_table
from proxyds.evaluation.rank_metrics import include_all, kendall_tau, pearson, spearman
from proxyds.pipeline.build import build
from proxyds.pipeline.plan import plan_build
from proxyds.progress_bars import show_progress
from proxyds.recipe.yaml import read_recipe
from proxyds.text import duration

HERE = Path(__file__).parent
RECIPES = HERE.parent.parent / "recipes"
PRINTED = HERE / "printed.csv"
COLUMNS = {
    "random_10": ("random", 0.1),
    "proxy_10": ("proxy", 0.1),
    "random_5": ("random", 0.05),
    "proxy_5": ("proxy", 0.05),
}
"""What the paper trains on, by our names."""

_REPEATS = ([1, 2, 2, 2, 2, 3, 1], [1, 2, 2, 3, 3, 4, 1])
_KERNELS = ([3, 3, 3, 3, 3, 3, 3], [3, 3, 5, 3, 5, 5, 3])
_FILTERS = ([18, 16, 16, 24, 48, 68, 116], [24, 16, 20, 32, 64, 90, 152], [32, 16, 24, 40, 80, 112, 192])


def name_resnet(parameters: Mapping[str, Any]) -> str:
    """An architecture as tables 1 and 2 name it."""
    return "B{base_filters} K{kernel_size} M{multiplier}".format(**parameters)


def name_efficientnet(parameters: Mapping[str, Any]) -> str:
    """An architecture as table 3 names it."""
    places = (
        ("r", _REPEATS.index(parameters["repeats"])),
        ("k", _KERNELS.index(parameters["kernel_sizes"])),
        ("f", _FILTERS.index(parameters["filters"])),
    )
    return " ".join(f"{letter}{place + 1}" for letter, place in places)


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        number: As printed.
        recipe: The shipped recipe of its space.
        overrides: What makes it the paper's.
        name_of: An architecture's parameters to the name that is printed.
    """

    number: int
    recipe: str
    overrides: tuple[str, ...]
    name_of: Callable[[Mapping[str, Any]], str]


OWN_PROTOCOL = "importance.protocol=paper"
TABLES = (
    PaperTable(1, "cifar10-resnet20", (OWN_PROTOCOL, "check.ratios=[0.1]"), name_resnet),
    PaperTable(2, "cifar100-resnet20", (OWN_PROTOCOL,), name_resnet),
    PaperTable(3, "cifar10-efficientnet-b0", (OWN_PROTOCOL,), name_efficientnet),
)


def read_printed(number: int) -> dict[str, dict[str, float]]:
    """A table as printed: for each column the accuracy of each architecture."""
    with PRINTED.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == str(number)]
    columns = [name for name in ("full", *COLUMNS) if rows[0][name]]
    return {column: {row["architecture"]: float(row[column]) for row in rows} for column in columns}


def collect_measured(
    ranking: pa.Table, name_of: Callable[[Mapping[str, Any]], str], parameters: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """The mean accuracies of a check's runs, as `read_printed` has the paper's.

    Args:
        ranking: The table `ranking`.
        name_of: Of `PaperTable`.
        parameters: Of each architecture by its own name.
    """
    wanted = {("full", 1.0): "full", **{key: column for column, key in COLUMNS.items()}}
    accuracies: dict[str, dict[str, list[float]]] = {}
    for row in ranking.to_pylist():
        column = wanted.get((row["dataset"], row["ratio"]))
        if column is not None:
            name = name_of(parameters[row["architecture"]])
            accuracies.setdefault(column, {}).setdefault(name, []).append(row["accuracy"])
    return {column: {name: float(np.mean(each)) for name, each in of.items()} for column, of in accuracies.items()}


def compare(number: int, measured: Mapping[str, Mapping[str, float]], manifest: Manifest | None) -> str:
    """A table in Markdown: what is printed and what was measured, architecture by architecture, and how well each column ranks."""
    printed = read_printed(number)
    columns = [column for column in ("full", *COLUMNS) if column in printed and column in measured]
    heads = [f"{column.replace('_', ' ')} {kind}" for column in columns for kind in ("printed", "here")]
    lines = [f"| architecture | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name in printed["full"]:
        cells = [
            f"{accuracies[column][name]:.4f}" if name in accuracies[column] else "failed"
            for column in columns
            for accuracies in (printed, measured)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for what, statistic in (("Pearson", pearson), ("Spearman", spearman), ("Kendall tau", kendall_tau)):
        cells = ["", ""]
        for column in columns[1:]:
            for accuracies in (printed, measured):
                names = [name for name in printed["full"] if name in accuracies["full"] and name in accuracies[column]]
                one, other = (np.array([accuracies[each][name] for name in names]) for each in ("full", column))
                cells.append(f"{statistic(one, other, include_all(len(one)))[0]:.3f}")
        lines.append(f"| **{what} with full** | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    if manifest is not None and manifest.evidence is not None:
        found = manifest.evidence
        taus = [
            f"{each.method} {each.ratio:g}: {each.statistics['tau'].shown()}"
            for each in found.methods
            if each.ratio is not None and "tau" in each.statistics
        ]
        text += (
            f"\nHere: the mean of {found.n_full_seeds} trainings on everything and {found.n_draws} draws, on {found.machine.device}. Kendall tau of single draws, with "
            f"intervals: {'; '.join(taus)}. {found.verdict[0].upper()}{found.verdict[1:]}: {found.explanation}\n"
        )
    return text


def main() -> None:
    """Reads the command line, shows the plan, builds, checks and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", type=int, default=[1, 2, 3], help="which of the tables")
    parser.add_argument("--plan", action="store_true", help="show what there is to do, and do nothing")
    parser.add_argument("-o", "--out", type=Path, default=Path("paper-tables"), help="where proxies and page go")
    given = parser.parse_args()
    chosen = [table for table in TABLES if table.number in given.tables]
    recipes = [read_recipe(RECIPES / f"{table.recipe}.yaml", table.overrides) for table in chosen]
    with show_progress(quiet=False) as on_progress:
        plans = [plan_build(recipe, on_progress=on_progress) for recipe in recipes]
        lines = [
            (
                table.number,
                table.recipe,
                sum(each.n_runs for each in plan.check.runs) if plan.check else 0,
                duration(plan.expected_seconds),
            )
            for table, plan in zip(chosen, plans, strict=True)
        ]
        print_table("the paper's tables", ("table", "recipe", "trainings", "expected here"), lines)
        if given.plan:
            return
        page = [
            "# The paper's tables again",
            "",
            "By the paper's own protocol: importance comes from the test set that also measures the ranking, which is circular.",
        ]
        for table, recipe, plan in zip(chosen, recipes, plans, strict=True):
            folder = build(recipe, given.out / table.recipe, on_progress=on_progress).folder
            manifest, tables = read_proxy(folder)
            assert tables.ranking is not None
            parameters = {each.name: each.parameters for each in plan.architectures}
            measured = collect_measured(tables.ranking, table.name_of, parameters)
            page += [
                "",
                f"## Table {table.number}: {table.recipe}",
                "",
                compare(table.number, measured, manifest).rstrip(),
            ]
            (given.out / "README.md").write_text("\n".join(page) + "\n", encoding="utf-8")
        print((given.out / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
