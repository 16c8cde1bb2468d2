"""Whether ranks survive bfloat16: the first study's networks and the digits trained in it, beside float32. Needs a processor that computes in it.

python -m tests.studies.precision [--page]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import kendalltau

import proxyds
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.manifest import RUNS_FILE
from proxyds.artifact.ranking_table import FULL, RANDOM
from proxyds.evaluation.intervals import LeftOut, compare_pairs, subtract
from proxyds.progress_bars import show_progress
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.storage.store import Store
from tests.studies.fidelity import prepare, run_part
from tests.studies.parts import STUDIES, Part, Study
from tests.studies.rows import read_rows

IN_HALF = {"precision": "bfloat16"}
STUDY = Study(
    "precision",
    "cifar10",
    (
        Part("random-bfloat16", 0.05, "random", settings=IN_HALF, n_draws=2),
        Part("full-bfloat16", 1.0, settings=IN_HALF, n_draws=1),
    ),
)
PAGE, DIGITS = STUDY.folder / "README.md", STUDY.folder / "digits.csv"
DIGITS_COLUMNS = ("precision", "dataset", "number", "architecture", "accuracy")
Floats = NDArray[np.float64]


def train_digits() -> None:
    """Builds and checks the digits in either precision, and keeps the accuracies."""
    recipe = Path(__file__).parents[2] / "recipes" / "digits.yaml"
    rows = []
    for precision in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            read = proxyds.read_recipe(recipe, [f"training.precision={precision}", "selection.method=random"])
            proxyds.build(read, Path(folder) / "proxy", device="cpu")
            table = pq.read_table(Path(folder) / "proxy" / RUNS_FILE).to_pylist()
        rows += [
            (precision, row["dataset"], row["training_seed"], row["architecture"], row["accuracy"])
            for row in table
            if row["dataset"] in (FULL, RANDOM)
        ]
    with DIGITS.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([DIGITS_COLUMNS, *rows])


def collect(rows: Sequence[dict[str, object]], number: str) -> dict[int, Floats]:
    """Collects accuracies (n,) of the architectures in the order of their names, by the number of draw or training."""
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        found.setdefault(int(str(row[number])), {})[str(row["architecture"])] = float(str(row["accuracy"]))
    return {key: np.array([of[name] for name in sorted(of)]) for key, of in found.items()}


class Comparison(NamedTuple):
    """Both precisions beside float32 of other numbers.

    Attributes:
        mixed: Taus of bfloat16 with float32, of each pair of numbers.
        alike: Taus of float32 with float32, of the same pairs.
        gain: The mean of the first less that of the second, with its interval.
        above: By how much accuracies in bfloat16 are above those in float32 of the same number, the mean.
    """

    mixed: list[float]
    alike: list[float]
    gain: EstimateRecord
    above: float


def compare(half: dict[int, Floats], exact: dict[int, Floats], *, has_common_draws: bool) -> Comparison:
    """Compares both precisions with float32 of other numbers.

    Args:
        half: Accuracies (n,) in bfloat16, by the number of draw or training.
        exact: Those in float32.
        has_common_draws: Whether all architectures of a number are trained on the same drawn samples.
    """
    pairs = [(one, other) for one, other in itertools.product(half, exact) if one != other]
    references = np.array([exact[other] for _, other in pairs])
    numbers, no_cost = np.array([one for one, _ in pairs]), np.ones(references.shape[1])

    def rank(of: dict[int, Floats]) -> tuple[list[float], LeftOut]:
        measured = np.array([of[one] for one, _ in pairs])
        taus = [float(kendalltau(*each).statistic) for each in zip(measured, references, strict=True)]
        left_out = compare_pairs(references, measured, numbers, no_cost, "tau", has_common_draws=has_common_draws)
        return taus, left_out

    (mixed, of_half), (alike, of_exact) = rank(half), rank(exact)
    above = float(np.mean([(half[number] - exact[number]).mean() for number in half]))
    return Comparison(mixed, alike, subtract(of_half, of_exact).as_difference(), above)


def list_comparisons() -> Iterator[tuple[str, Comparison]]:
    """Lists what is compared, as far as there are rows."""
    half, exact = read_rows(STUDY.folder / "rows.csv"), read_rows(STUDIES["cifar10"].folder / "rows.csv")
    for told, dataset, ratio in (("all of CIFAR-10", FULL, 1.0), ("5 % of CIFAR-10 at random", RANDOM, 0.05)):
        of_half = collect([row for row in half if row["dataset"] == f"{dataset}-bfloat16"], "training_seed")
        of_exact = [row for row in exact if (row["dataset"], row["ratio"]) == (dataset, ratio)]
        if of_half and {len(each) for each in of_half.values()} == {24}:
            compared = compare(of_half, collect(of_exact, "training_seed"), has_common_draws=dataset == RANDOM)
            yield f"{told}, 24 networks", compared
    if DIGITS.exists():
        rows = list(csv.DictReader(DIGITS.read_text().splitlines()))
        for told, dataset in (("all of the digits", FULL), ("10 % of the digits at random", RANDOM)):
            of = [
                collect([row for row in rows if (row["precision"], row["dataset"]) == (precision, dataset)], "number")
                for precision in ("bfloat16", "float32")
            ]
            yield f"{told}, 12 networks", compare(of[0], of[1], has_common_draws=dataset == RANDOM)


def render() -> str:
    """Writes the page in Markdown."""
    lines = [
        "# Whether ranks survive bfloat16",
        "",
        "Networks were trained in bfloat16 and in float32 (`training.precision`), with the same settings. Kendall's tau says how far two",
        "trainings of other seeds, and of other draws where samples were drawn, rank them alike. If bfloat16 did harm, it would agree less with",
        "float32 than float32 does with itself.",
        "",
        "## Agreement",
        "",
        "| trained on | bfloat16 with float32 | float32 with float32 | difference | pairs | accuracy in bfloat16 less that in float32, points |",
        "|---|---|---|---|---|---|",
    ]
    for told, found in list_comparisons():
        cells = [f"{np.mean(taus):.3f} ({min(taus):.2f} to {max(taus):.2f})" for taus in (found.mixed, found.alike)]
        lines.append(
            f"| {told} | {' | '.join(cells)} | {found.gain.shown()} | {len(found.mixed)} | {100 * found.above:+.2f} |"
        )
    lines += [
        "",
        "In round brackets: the lowest and the highest of the pairs. In square ones: the 95 % interval of the difference; where it holds zero, no",
        "difference can be told. The networks and settings are those of [the first study](../cifar10/README.md); its rows are the ones in float32.",
        "`python -m tests.studies.precision` makes the rows, on a processor that computes in bfloat16, and this page.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Trains what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    if not parser.parse_args().page:
        STUDY.folder.mkdir(parents=True, exist_ok=True)
        if not DIGITS.exists():
            train_digits()
        with show_progress(quiet=False) as on_progress, LocalWorkers() as engine:
            probes = prepare(STUDY, Store(), engine, on_progress)
            for part in STUDY.parts:
                run_part(STUDY, part, probes, range(part.n_draws or 1))
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
