"""What a search over the ranked architectures would have paid with each way to rank, and what it would have lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from proxyds.artifact.evidence_records import HALVING, SearchRecord
from proxyds.artifact.manifest import CountsRecord
from proxyds.artifact.ranking_table import (
    ALL_LABELS,
    BY_ACCURACY,
    BY_LOSS,
    FEWER_EPOCHS,
    FREE_RANKINGS,
    FULL,
    PROXY,
    REGRETS,
    Measured,
    RankedBy,
    Score,
    best_first,
)
from proxyds.evaluation.rank_metrics import Floats
from proxyds.recipe.methods import METHODS


@dataclass(frozen=True)
class Search:
    """What a search has to do with.

    Attributes:
        full: (F, n) accuracies on everything.
        references: (F, n) of `intervals.other_seeds`: by them what is chosen is judged.
        full_flops: (n,) of one training on everything and its test.
        flops: (n,) of one training and test on a data set at a ratio.
        choosing: FLOPs of what a build trains and asks before it draws; None where they are not known.
        teaching: FLOPs of the probe that gives soft labels, which all that is trained on parts learns; 0 where it learns labels.
    """

    full: Floats
    references: Floats
    full_flops: Floats
    flops: Mapping[tuple[str, float], Floats]
    choosing: float | None
    teaching: float = 0.0


def open_search(
    measured: Measured,
    references: Floats,
    runs: pa.Table,
    choosing: float | None,
    samples: CountsRecord,
    teaching: float = 0.0,
) -> Search:
    """Finds what trainings cost, where that is known; what was not trained here is priced by the epochs of the proxy's trainings.

    Args:
        measured: Accuracies.
        references: Of `intervals.other_seeds`.
        runs: The table `ranking`.
        choosing: FLOPs of the build; None where they are not known.
        samples: How many the proxy has: that may be drawn, and test samples.
        teaching: FLOPs of the probe that gives soft labels; 0 where networks learn labels.
    """
    position = {name: i for i, name in enumerate(measured.names)}
    sums: dict[tuple[str, float], Floats] = {}
    counts: dict[tuple[str, float], NDArray[np.int64]] = {}
    on_everything = np.full(len(position), np.nan)
    for row in runs.to_pylist():
        if row["run_flops"] is None or row["architecture"] not in position:
            continue
        key, i = (row["dataset"], row["ratio"]), position[row["architecture"]]
        sums.setdefault(key, np.zeros(len(position)))[i] += row["run_flops"]
        counts.setdefault(key, np.zeros(len(position), np.int64))[i] += 1
        if row["dataset"] == PROXY and row["n_epochs"] is not None:
            on_everything[i] = (
                row["n_epochs"] * samples.train * row["training_flops"] + samples.test * row["forward_flops"]
            )
    flops = {key: sums[key] / np.maximum(counts[key], 1) for key in sums}
    full = measured.accuracies[FULL, 1.0]
    return Search(full, references, flops.pop((FULL, 1.0), on_everything), flops, choosing, teaching)


def list_searches(
    search: Search, scores: Mapping[tuple[str, float | None, RankedBy], Floats], measured: Measured, own_ratio: float
) -> Iterator[SearchRecord]:
    """Lists what a search would have paid and lost: all architectures on the subset, then the best k on everything, once.

    Of these k it takes the one with the best accuracy there, and another training on everything judges what was lost.
    With one training on everything nothing else judges, so that losses are too small.

    Args:
        search: Prices and accuracies.
        scores: (R, n) what ranks, by method, ratio and what it ranks by.
        measured: Accuracies.
        own_ratio: The proxy's.
    """
    if np.isnan(search.full_flops).any():
        return
    n = len(measured.names)
    everything = np.broadcast_to(np.arange(n), (1, n))
    yield _sum_up(search, FULL, BY_ACCURACY, 0.0, everything)
    for (method, ratio, ranked_by), of_way in scores.items():
        cost = _price_ranking(search, method, own_ratio)
        if ratio in (None, own_ratio) and cost is not None:
            for k in REGRETS:
                if k < n:
                    yield _sum_up(search, method, ranked_by, cost, np.array([best_first(each)[:k] for each in of_way]))
    yield from _halve(search, scores, measured)


def _price_ranking(search: Search, method: str, own_ratio: float) -> float | None:
    """Prices the choice of samples and the trainings on them; None where that is not known."""
    if method in FREE_RANKINGS:
        return 0.0
    if (method, own_ratio) not in search.flops:
        return None
    is_drawn_by_proxy = method in (PROXY, ALL_LABELS)
    if method in METHODS and METHODS[method].needs:
        return None  # another method's probes are not those of this build
    if is_drawn_by_proxy and search.choosing is None:
        return None
    before = search.choosing if is_drawn_by_proxy and search.choosing else search.teaching
    return before + float(search.flops[method, own_ratio].sum())


def _sum_up(
    search: Search, method: str, ranked_by: RankedBy, flops: float, finalists: NDArray[np.int64]
) -> SearchRecord:
    """Averages over repeats and seeds what a search pays and loses that trains its finalists, (R, k), on everything."""
    losses = [
        reference.max() - reference[kept[np.argmax(full[kept])]]
        for kept in finalists
        for full, reference in zip(search.full, search.references, strict=True)
    ]
    paid = flops + float(search.full_flops[finalists].sum(axis=1).mean())
    lost = float(np.mean(losses))
    return SearchRecord(method=method, ranked_by=ranked_by, n_finalists=finalists.shape[1], flops=paid, lost=lost)


def _halve(
    search: Search, scores: Mapping[tuple[str, float | None, RankedBy], Floats], measured: Measured
) -> Iterator[SearchRecord]:
    """Halves the architectures after each budget of fewer epochs on everything (Jamieson and Talwalkar 2016); needs two budgets.

    Every budget is trained from scratch, as the check did. Losses rank where there are any.
    """
    of_sets = search.flops.keys() & measured.accuracies.keys()  # every run of a budget may have failed
    budgets = sorted(ratio for dataset, ratio in of_sets if dataset == FEWER_EPOCHS)
    if len(budgets) < 2:
        return
    has_losses = all((FEWER_EPOCHS, budget, BY_LOSS) in scores for budget in budgets)
    ranked_by: Score = BY_LOSS if has_losses else BY_ACCURACY
    of_budgets = {budget: scores[FEWER_EPOCHS, budget, ranked_by] for budget in budgets}
    n_repeats = min(map(len, of_budgets.values()))
    for k in (k for k in REGRETS if k < len(measured.names)):
        flops, finalists = search.teaching, []
        for repeat in range(n_repeats):
            kept = np.arange(len(measured.names))
            for budget in budgets:
                flops += float(search.flops[FEWER_EPOCHS, budget][kept].sum()) / n_repeats
                n_left = k if budget == budgets[-1] else max(k, len(kept) // 2)
                kept = kept[best_first(of_budgets[budget][repeat][kept])[:n_left]]
            finalists.append(kept)
        yield _sum_up(search, HALVING, ranked_by, flops, np.array(finalists))
