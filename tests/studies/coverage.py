"""Whether intervals hold what they say: checks are simulated whose true agreements are known, and counted is how often intervals hold them.

`make coverage` runs every world and writes `docs/coverage.md`. The truth is what the same estimate gives on average over many simulated
checks, since it is the estimate's own expectation that an interval speaks of.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from proxyds.artifact.ranking_table import FULL, RANDOM, collect_accuracies
from proxyds.evaluation.intervals import (
    compare_repeats,
    compare_seeds,
    other_seeds,
    subtract,
)
from proxyds.evaluation.rank_metrics import Floats
from tests.studies.parts import STUDIES
from tests.studies.results import open_study, take_whole
from tests.studies.weighing import make_table

RESULTS = Path(__file__).parent / "results" / "coverage.json"
AGREEMENTS = {
    "tau": "Kendall tau",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "tau_given_cost": "tau given FLOPs",
    "tau_like_cost": "tau at like FLOPs",
}
SEED = 20261201


@dataclass(frozen=True)
class World:
    """What checks are simulated of.

    Attributes:
        noise: «independent»: every training has noise of its own. «shared»: methods share what short training does to an architecture, and
            the architectures of a draw share its luck. «rows»: architectures and draws of the first study, with its noise.
        gain: The better method's true tau less the other's, about.
        n: Architectures.
        n_draws: Draws of each method.
        n_seeds: Trainings of each architecture on everything.
    """

    noise: str
    gain: float
    n: int
    n_draws: int
    n_seeds: int

    def simulate(self, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, Floats]:
        """Makes one check up: accuracies on everything (F, n), of the better method and the other one (D, n) each, FLOPs (n,)."""
        if self.noise == "rows":
            return self._take_rows(rng)
        quality, bias, tilt = rng.normal(size=(3, self.n))
        full = quality + FULL_NOISE * rng.normal(size=(self.n_seeds, self.n))
        cost = np.exp(0.6 * quality + 0.6 * rng.normal(size=self.n))

        def measure(total: float) -> Floats:
            alone = rng.normal(size=(self.n_draws, self.n))
            if self.noise == "independent":
                return quality + total * alone
            luck = LUCK * total * rng.normal(size=(self.n_draws, 1)) * tilt
            rest = total * math.sqrt(1 - BIAS**2 - LUCK**2)
            return quality + BIAS * total * bias + luck + rest * alone

        return full, measure(NOISE_OF_GAIN[self.gain]), measure(NOISE_OF_GAIN[0.0]), cost

    def _take_rows(self, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, Floats]:
        """Draws architectures and draws from those that were trained, with replacement; an architecture's seeds in any order."""
        full, better, other, cost = _read_rows("easier" if self.gain else "stratified")
        names = rng.integers(len(cost), size=self.n)
        order = np.argsort(rng.random((len(full), self.n)), axis=0)[: self.n_seeds]
        draws = rng.integers(len(better), size=(2, self.n_draws))
        # copies of an architecture are told apart, as two that are alike would be
        apart = 1e-4 * rng.normal(size=self.n)
        return (
            full[order, names] + apart,
            better[draws[0]][:, names] + 1e-4 * rng.normal(size=(self.n_draws, self.n)),
            other[draws[1]][:, names] + 1e-4 * rng.normal(size=(self.n_draws, self.n)),
            cost[names] * (1 + 1e-3 * rng.random(self.n)),
        )


FULL_NOISE = 0.1
NOISE_OF_GAIN = {0.0: 0.73, 0.15: 0.414}
"""Standard deviations of a method's noise beside that of quality: tau .60, and .15 more."""
BIAS, LUCK = 0.8, 0.2
"""Parts of that which methods share, and which the architectures of a draw share; squares add up to 1 with the rest."""


@cache
def _read_rows(method: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Reads the first study's rows: everything, a method and random samples, at 5 % of CIFAR-10."""
    study, recipe, architectures = open_study(STUDIES["cifar10"])
    measured = collect_accuracies(make_table(take_whole(study, recipe, architectures)[2], architectures))
    return (
        measured.accuracies[FULL, 1.0],
        measured.accuracies[method, 0.05],
        measured.accuracies[RANDOM, 0.05],
        measured.costs["flops"],
    )


def weigh(world: World, number: int, names: Sequence[str]) -> dict[str, tuple[float, float | None, float | None]]:
    """Simulates one check and estimates everything: value, lower and upper end by the estimate's name."""
    full, better, other, cost = world.simulate(np.random.default_rng([SEED, number]))
    references, draws = other_seeds(full), np.arange(world.n_draws)
    found = {}
    of = {}
    for name in names:
        for method, measured in (("better", better), ("other", other)):
            if name != "tau" and method == "other":
                continue
            of[name, method] = LeftOut_ = compare_repeats(references, measured, draws, cost, name)
            found[f"{AGREEMENTS[name]}" + (" of the other" if method == "other" else "")] = (
                LeftOut_.estimate().as_agreement()
            )
    p, r = of["tau", "better"], of["tau", "other"]
    found["difference of taus"] = subtract(p, r).as_difference()
    found["difference mover"] = mover(p, r)
    ceiling = compare_seeds(references, full, cost, "tau")
    found["noise ceiling"] = ceiling.estimate().as_agreement()
    found["ceiling less tau"] = subtract(ceiling, p).as_difference()
    found["ceiling less mover"] = mover(ceiling, p)
    e = subtract(ceiling, p)
    from scipy import stats

    from proxyds.evaluation.intervals import make_record

    h = stats.t.ppf(0.975, world.n - 1) * math.sqrt(e.variance + 1 / e.n_pairs**2)
    found["ceiling less t"] = make_record(e.value, e.value - h, e.value + h)
    e = subtract(p, r)
    h = stats.t.ppf(0.975, world.n - 1) * math.sqrt(e.variance + 1 / e.n_pairs**2)
    found["difference t"] = make_record(e.value, e.value - h, e.value + h)
    return {name: (each.value, each.low, each.high) for name, each in found.items()}


def mover(one, other):
    d = subtract(one, other)
    e1, e2 = one.estimate(), other.estimate()
    a1, a2 = e1.as_agreement(), e2.as_agreement()
    q = 1.0
    r = (
        (e1.variance + e2.variance - d.variance) / (2 * math.sqrt(e1.variance * e2.variance))
        if e1.variance and e2.variance
        else 0
    )
    r = max(-1, min(1, r))
    dl1, du2 = a1.value - a1.low, a2.high - a2.value
    du1, dl2 = a1.high - a1.value, a2.value - a2.low
    lo = d.value - math.sqrt(max(0, dl1**2 + du2**2 - 2 * r * dl1 * du2))
    hi = d.value + math.sqrt(max(0, du1**2 + dl2**2 - 2 * r * du1 * dl2))
    from proxyds.evaluation.intervals import make_record

    return make_record(d.value, lo, hi)


def run(world: World, n_checks: int, pool) -> dict[str, dict[str, float]]:
    names = list(AGREEMENTS)
    checks = list(pool.map(partial(weigh, world, names=names), range(n_checks), chunksize=20))
    rows = {}
    for name in checks[0]:
        values = np.array([c[name] for c in checks], dtype=float)
        value, low, high = values.T
        truth = np.nanmean(value)
        has = np.isfinite(low)
        rows[name] = dict(
            truth=truth,
            sd=np.nanstd(value),
            n=int(has.sum()),
            held=float(np.mean((low <= truth) & (truth <= high), where=has)),
            above=float(np.mean(low > truth, where=has)),
            below=float(np.mean(high < truth, where=has)),
            width=float(np.mean(high - low, where=has)),
            found=float(np.mean(low > 0, where=has)),
        )
    return rows


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--n", type=int, default=400)
    p.add_argument("--big", type=int, default=100)
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--only", default="")
    a = p.parse_args()
    with threadpool_limits(1), ProcessPoolExecutor(a.jobs) as pool:
        for n in (12, 24, 60):
            for d, f in ((3, 2), (5, 3)):
                for noise in ("independent", "shared", "rows"):
                    for gain in (0.0, 0.15):
                        w = World(noise, gain, n, d, f)
                        if a.only and a.only not in str(w):
                            continue
                        t = time.time()
                        out = run(w, a.big if n == 60 else a.n, pool)
                        print(w, f"{time.time() - t:.0f} s")
                        for name, r in out.items():
                            flag = "" if 0.93 <= r["held"] <= 0.97 else " <<<"
                            print(
                                f"   {name:28s} truth {r['truth']:.3f} sd {r['sd']:.3f} held {r['held']:.3f} ({r['above']:.3f} {r['below']:.3f}) width {r['width']:.2f} >0 {r['found']:.2f} n {r['n']}{flag}",
                                flush=True,
                            )
