"""Whether intervals hold what they say: checks are simulated whose truth is known, and it is counted how often the intervals hold it.

`make coverage` runs every world and writes `docs/coverage.md`; it goes on where it was stopped. The truth of an estimate is its mean over
simulated checks, since it is of this that an interval speaks.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.artifact.ranking_table import FULL, RANDOM, STRATIFIED, collect_accuracies
from proxyds.evaluation.intervals import LeftOut, compare_repeats, compare_seeds, other_seeds, subtract
from proxyds.evaluation.rank_metrics import Floats, add_parameters
from proxyds.evaluation.verdict import find_settling
from tests.studies.parts import STUDIES
from tests.studies.results import open_study, take_whole
from tests.studies.weighing import make_table

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "coverage.json"
PAGE = ROOT / "docs" / "coverage.md"
N_CHECKS = {8: 600, 12: 600, 24: 600, 60: 240}
"""Simulated checks of each world, by the number of architectures."""
HELD = (0.93, 0.97)
"""What is asked of every interval."""
AGREEMENTS = {
    "tau": "tau .75",
    "tau_given_cost": "tau given FLOPs",
    "tau_like_cost": "tau at like FLOPs",
    "spearman": "Spearman",
    "pearson": "Pearson",
}
NOISES = {
    "independent": "every training has noise of its own",
    "shared": "methods share what short training does to an architecture, and the architectures of a draw share some of its luck",
    "rows": "architectures, draws and noise of the first study on CIFAR-10: `easier` as the better method, `stratified` and `random` as the others",
    "draws": "the architectures of a draw share half of its noise, so that one draw ranks well and the next one badly",
}
SIZES = ((8, 2, 2), (8, 3, 3), (24, 2, 3), *product((12, 24, 60), (3, 5), (2, 3)))
"""Architectures, draws and trainings on everything."""
WHY_NOT = """\
## Why some cells are not within

- *Ceiling*: too wide, most of all with 12 architectures. Nearly all of 66 pairs agree, so that tau takes few values, and the jackknife of a handful of
  discordant pairs is rough. With the whole of Efron and Stein's correction it was too narrow in first trials; too wide was chosen.
- *tau at like FLOPs*: too wide where few pairs cost alike, as in the made-up spaces. On the study's rows, with more such pairs, it is nearer.
- *Spearman* and *Pearson*, 12 architectures: up to 1.5 points too wide. They are no statistics of pairs, so nothing is corrected.
- *difference 0*, shared noise: up to 2 points too wide: a variance of draws that is none is estimated as zero or more.
- *Rows*: draws and architectures are drawn again from 5 and 24, so that some stand twice, and with 60 most stand several times. Some cells are too narrow;
  the worst, 60 architectures with 3 draws and 2 seeds, is not explained.
- *Draws*: too narrow with 2 or 3 draws and many architectures. There the variance of draws decides, and two or three draws tell it badly: by chance
  it comes out small. More draws help, not more architectures. In the study's rows a draw shares far less.
- *8 and 12 architectures*: agreements up to 4 points too wide. Where the jackknife sees less variance than independent pairs have, it is not believed
  (`docs/decisions/intervals.md`). It came out small by chance there, and too few of those intervals held the truth. Spearman and Pearson of eight have a jackknife of eight.
- What chose the share of the correction are the first three kinds of worlds, so they are no test of it.
"""
SEED = 20261201
FULL_NOISE = 0.1
NOISE, NOISE_OF_BETTER, NOISE_OF_LITTLE_BETTER = 0.73, 0.414, 0.55
"""Standard deviations of a method's noise beside that of quality: tau .60, .75 and .68."""
N_SETTLED = 120
"""Checks that are asked how many runs would settle them, and as many with those."""
SHARES = {"independent": (0.0, 0.0), "shared": (0.8, 0.2), "draws": (0.0, math.sqrt(0.5))}
"""Shares of that which methods share, and which the architectures of a draw share; the squares add up to 1 with the rest."""


@dataclass(frozen=True)
class Check:
    """One check that was made up.

    Attributes:
        full: (F, n) accuracies on everything.
        better: (D, n) of a method that ranks better.
        others: Two that rank equally well, (D, n) each.
        cost: (n,) FLOPs.
    """

    full: Floats
    better: Floats
    others: tuple[Floats, Floats]
    cost: Floats


@dataclass(frozen=True)
class World:
    """What checks are made up of: the kind of noise, architectures, draws, trainings on everything."""

    noise: str
    n: int
    n_draws: int
    n_seeds: int
    noise_of_better: float = NOISE_OF_BETTER

    @property
    def name(self) -> str:
        return f"{self.noise} {self.n} {self.n_draws} {self.n_seeds}"

    def simulate(self, number: int) -> Check:
        """Makes a check up."""
        rng = np.random.default_rng([SEED, list(NOISES).index(self.noise), self.n, self.n_draws, self.n_seeds, number])
        if self.noise == "rows":
            return self._take_rows(rng)
        quality, bias, tilt = rng.normal(size=(3, self.n))
        full = quality + FULL_NOISE * rng.normal(size=(self.n_seeds, self.n))

        of_methods, of_draws = SHARES[self.noise]

        def measure(total: float) -> Floats:
            alone = rng.normal(size=(self.n_draws, self.n))
            luck = rng.normal(size=(self.n_draws, 1)) * tilt
            rest = math.sqrt(1 - of_methods**2 - of_draws**2)
            return quality + total * (of_methods * bias + of_draws * luck + rest * alone)

        cost = np.exp(0.6 * quality + 0.6 * rng.normal(size=self.n))
        return Check(full, measure(self.noise_of_better), (measure(NOISE), measure(NOISE)), cost)

    def _take_rows(self, rng: np.random.Generator) -> Check:
        """Takes architectures and draws of those that were trained, with replacement; an architecture's seeds in any order."""
        full, cost, *methods = _read_rows()
        names = rng.integers(len(cost), size=self.n)
        order = np.argsort(rng.random((len(full), self.n)), axis=0)[: self.n_seeds]
        drawn = [each[rng.integers(len(each), size=self.n_draws)][:, names] for each in methods]
        # copies of an architecture are told apart, as two that are alike would be
        better, *others = [each + 1e-4 * rng.normal(size=each.shape) for each in drawn]
        full = full[order, names] + 1e-4 * rng.normal(size=self.n)
        return Check(full, better, (others[0], others[1]), cost[names] * (1 + 1e-3 * rng.random(self.n)))


@cache
def _read_rows() -> tuple[Floats, ...]:
    """Reads the first study's rows at 5 % of CIFAR-10: everything, FLOPs, `easier`, stratified and random samples."""
    study, recipe, architectures = open_study(STUDIES["cifar10"])
    measured = collect_accuracies(make_table(take_whole(study, recipe, architectures)[2], architectures))
    methods = (measured.accuracies[name, 0.05] for name in ("easier", STRATIFIED, RANDOM))
    return measured.accuracies[FULL, 1.0], measured.costs["flops"], *methods


def estimate(world: World, number: int) -> dict[str, EstimateRecord]:
    """Makes a check up and estimates everything of it."""
    check = world.simulate(number)
    references, draws, cost = other_seeds(check.full), np.arange(world.n_draws), check.cost
    compare = partial(compare_repeats, references, draws=draws, cost=cost)
    found = {
        AGREEMENTS[name]: compare(check.better, name=name).estimate().as_agreement()
        for name in AGREEMENTS
        if name != "tau"
    }
    better, *others = (compare(each, name="tau") for each in (check.better, *check.others))
    ceiling = compare_seeds(references, check.full, cost, "tau")
    both = compare(add_parameters(check.better, cost, 0.5), name="tau")
    return found | {
        "tau .75": better.estimate().as_agreement(),
        "tau .60": others[0].estimate().as_agreement(),
        "tau with parameters": both.estimate().as_agreement(),
        "difference .15": subtract(better, others[0]).as_difference(),
        "difference 0": subtract(*others).as_difference(),
        "ceiling": ceiling.estimate().as_agreement(),
        "ceiling less tau": subtract(ceiling, better).as_gap(),
    }


def count(world: World, run_all: Any) -> dict[str, dict[str, float]]:
    """Simulates a world's checks: for each estimate its truth, how often the interval held it, how often it was above zero."""
    checks = list(run_all(partial(estimate, world), range(N_CHECKS[world.n])))
    rows = {}
    for name in checks[0]:
        ends = [(c[name].value, c[name].low, c[name].high) for c in checks]
        value, low, high = np.array(ends, dtype=float).T
        truth, has = np.nanmean(value), np.isfinite(low)
        held = (low <= truth) & (truth <= high)
        rows[name] = {
            "truth": round(float(truth), 4),
            "held": round(float(held[has].mean()), 4),
            "above_zero": round(float((low[has] > 0).mean()), 4),
            "width": round(float((high - low)[has].mean()), 4),
            "without": round(float(1 - has.mean()), 4),
        }
    return rows


def subtract_taus(world: World, number: int) -> tuple[LeftOut, LeftOut]:
    """Makes a check up; returns the taus of the better method and of another."""
    check = world.simulate(number)
    compare = partial(
        compare_repeats, other_seeds(check.full), draws=np.arange(world.n_draws), cost=check.cost, name="tau"
    )
    return compare(check.better), compare(check.others[0])


def settle(noise: str, run_all: Any) -> dict[str, Any]:
    """Asks small checks how many architectures, or draws, would find a small difference, and counts how often that many do.

    Returns:
        The true difference; by what is raised what is said, the median, and the shares found with half of it, with it and with twice as many.
    """
    small = World(noise, 16, 3, 3, NOISE_OF_LITTLE_BETTER)
    taus = list(run_all(partial(subtract_taus, small), range(N_SETTLED)))
    gain = float(np.mean([subtract(*each).value for each in taus]))
    told = np.array([find_settling(gain, *each) for each in taus], dtype=float)
    found: dict[str, Any] = {"gain": round(gain, 3)}
    for column, what in enumerate(("architectures", "draws")):
        number = float(np.median(np.where(np.isnan(told[:, column]), np.inf, told[:, column])))
        shares = []
        for times in (0.5, 1, 2):
            n = max(2, round(times * number))
            world = replace(small, **{"n" if what == "architectures" else "n_draws": n})
            differences = [
                subtract(*each).as_difference() for each in run_all(partial(subtract_taus, world), range(N_SETTLED))
            ]
            shares.append(round(float(np.mean([each.low is not None and each.low > 0 for each in differences])), 3))
        found[what] = {"told": round(number, 1), "found": shares}
    return found


def list_worlds() -> list[World]:
    """Lists all worlds, the quick ones first."""
    return [World(noise, *size) for size, noise in product(sorted(SIZES), NOISES)]


def render_page(results: dict[str, Any]) -> str:
    """Writes the page in Markdown."""
    counted = results["worlds"]
    worlds = [world for world in list_worlds() if world.name in counted]
    names = list(counted[worlds[0].name])
    n_cells = sum(len(counted[world.name]) for world in worlds)
    n_held = sum(HELD[0] <= row["held"] <= HELD[1] for world in worlds for row in counted[world.name].values())
    text = [
        "# What the intervals hold",
        "",
        "`make coverage` wrote this. Checks were simulated whose true agreement is known. The table says in what share of them the 95 % interval held the truth: "
        f"{HELD[0]:.0%} to {HELD[1]:.0%} is asked, others are **bold**. {n_held} of {n_cells} cells are within. A share of {N_CHECKS[12]} checks has a standard error of 0.9 points, "
        f"one of {N_CHECKS[60]} (60 architectures) 1.4.",
        "",
        *(f"- *{name}*: {what}." for name, what in NOISES.items()),
        "",
        f"Measured on {results['date']} ({results['processor']}, Python {results['python']}, numpy {results['numpy']}).",
        "",
    ]
    for noise in NOISES:
        rows = [world for world in worlds if world.noise == noise]
        if not rows:
            continue
        text += [
            f"## {noise.capitalize()}",
            "",
            f"| architectures, draws, full seeds | {' | '.join(names)} |",
            f"|---|{'---|' * len(names)}",
        ]
        for world in rows:
            cells = [_show(counted[world.name][name]["held"]) for name in names]
            text.append(f"| {world.n}, {world.n_draws}, {world.n_seeds} | {' | '.join(cells)} |")
        text.append("")
    text += [
        "## How many would settle it",
        "",
        "Checks of 16 architectures and 3 draws were asked how many would find a difference as small as this. At the right number half of the checks find it.",
        "",
        "| noise | difference | told | found with half as many | with as many | with twice as many |",
        "|---|---|---|---|---|---|",
    ]
    for noise, of_noise in results.get("settling", {}).items():
        for what in ("architectures", "draws"):
            shares = " | ".join(f"{share:.0%}" for share in of_noise[what]["found"])
            text.append(f"| {noise} | {of_noise['gain']:.2f} | {of_noise[what]['told']:.0f} {what} | {shares} |")
    text += [
        "",
        "## How often a difference of .15 is found",
        "",
        "The share of checks in which its whole interval is above zero.",
        "",
        f"| architectures, draws, full seeds | {' | '.join(NOISES)} |",
        f"|---|{'---|' * len(NOISES)}",
    ]
    for size in sorted(SIZES):
        of = [counted.get(World(noise, *size).name) for noise in NOISES]
        cells = ["–" if each is None else f"{each['difference .15']['above_zero']:.0%}" for each in of]
        text.append(f"| {', '.join(map(str, size))} | {' | '.join(cells)} |")
    return "\n".join([*text, "", WHY_NOT])


def _show(held: float) -> str:
    text = f"{100 * held:.1f}"
    return text if HELD[0] <= held <= HELD[1] else f"**{text}**"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulates the worlds that are missing, and writes results and page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--page", action="store_true", help="write the page alone, from what there is")
    given = parser.parse_args(arguments)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"worlds": {}}
    with ProcessPoolExecutor(given.jobs, initializer=threadpool_limits, initargs=(1,)) as pool:
        for world in list_worlds() if not given.page else []:
            if world.name in results["worlds"]:
                continue
            results["worlds"][world.name] = count(world, partial(pool.map, chunksize=10))
            results |= {
                "date": datetime.now(UTC).date().isoformat(),
                "processor": platform.processor() or platform.machine(),
                "python": platform.python_version(),
                "numpy": np.__version__,
            }
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(world.name, {name: row["held"] for name, row in results["worlds"][world.name].items()}, flush=True)
        for noise in () if given.page else ("independent", "shared"):
            results.setdefault("settling", {})[noise] = settle(noise, partial(pool.map, chunksize=10))
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(render_page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
