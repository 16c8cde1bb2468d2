"""What a search over the ranked architectures would have paid with each way to rank, and what it would have lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from proxyds.artifact.evidence_records import SearchRecord
from proxyds.artifact.ranking_table import (
    BY_BOTH,
    FEWER_EPOCHS,
    FREE_RANKINGS,
    FULL,
    METHOD_LABELS,
    REGRETS,
    Measured,
    RankedBy,
    best_first,
)
from proxyds.evaluation.rank_metrics import Floats
from proxyds.recipe.methods import METHODS


@dataclass(frozen=True)
class Prices:
    """FLOPs of a search's parts.

    Attributes:
        choosing: Of what a build trains and asks before it draws.
        full: Of one architecture's training on everything and its test, the mean.
        training: Of one architecture's training and test on a data set of a ratio, the mean.
    """

    choosing: float
    full: float
    training: Mapping[tuple[str, float], float]


def find_prices(runs: pa.Table, choosing: float, full: float) -> Prices:
    """Finds what trainings cost; what was not trained here has no price."""
    trained = runs.filter(pa.compute.field("run_flops").is_valid())
    means = trained.group_by(["dataset", "ratio"]).aggregate([("run_flops", "mean")]).to_pylist()
    return Prices(choosing, full, {(row["dataset"], row["ratio"]): row["run_flops_mean"] for row in means})


def list_searches(
    regrets: Mapping[tuple[str, float | None, RankedBy], Mapping[str, float]],
    measured: Measured,
    references: Floats,
    prices: Prices,
    own_ratio: float,
) -> Iterator[SearchRecord]:
    """Lists what a search would have paid by each way to rank: n trainings on the subset, then the best k on everything.

    Args:
        regrets: The statistics of `REGRETS` by method, ratio and what it ranks by.
        measured: Accuracies.
        references: (F, n) full-data accuracies.
        prices: FLOPs.
        own_ratio: The proxy's.
    """
    n = len(measured.names)
    for (method, ratio, ranked_by), lost in regrets.items():
        if ratio not in (None, own_ratio):
            continue
        label = METHOD_LABELS[method] + (", with parameters" if ranked_by == BY_BOTH else "")
        if method == FULL:
            yield SearchRecord(way="everything", n_finalists=n, flops=n * prices.full, lost=lost["regret"])
            continue
        if method not in FREE_RANKINGS and (method, own_ratio) not in prices.training:
            continue
        ranking = 0.0 if method in FREE_RANKINGS else _price_choosing(method, prices)
        ranking += n * prices.training.get((method, own_ratio), 0.0)
        for k, name in REGRETS.items():
            yield SearchRecord(way=label, n_finalists=k, flops=ranking + k * prices.full, lost=lost[name])
    yield from _halve(measured, references, prices)


def _price_choosing(method: str, prices: Prices) -> float:
    """Prices the choice of samples: nothing where the method needs no probe."""
    needs_probes = method not in METHODS or METHODS[method].needs
    return prices.choosing if needs_probes and method != FEWER_EPOCHS else 0.0


def _halve(measured: Measured, references: Floats, prices: Prices) -> Iterator[SearchRecord]:
    """Halves the architectures after each budget of fewer epochs on everything (Jamieson and Talwalkar 2016); needs two budgets."""
    budgets = sorted(ratio for dataset, ratio in prices.training if dataset == FEWER_EPOCHS)
    if len(budgets) < 2:
        return
    n_repeats = min(len(measured.accuracies[FEWER_EPOCHS, budget]) for budget in budgets)
    for k in REGRETS:
        flops, losses = k * prices.full, []
        for repeat in range(n_repeats):
            kept = np.arange(len(measured.names))
            for budget in budgets:
                flops += len(kept) * prices.training[FEWER_EPOCHS, budget] / n_repeats
                n_left = k if budget == budgets[-1] else max(k, len(kept) // 2)
                kept = kept[best_first(measured.accuracies[FEWER_EPOCHS, budget][repeat][kept])[:n_left]]
            losses.append(np.mean(references.max(axis=1) - references[:, kept].max(axis=1)))
        yield SearchRecord(way="successive halving", n_finalists=k, flops=flops, lost=float(np.mean(losses)))
