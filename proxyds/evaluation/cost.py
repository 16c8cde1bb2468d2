"""What a proxy costs and saves, from the ledger of its build and the runs of its check."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from proxyds.artifact.manifest import SpendingRecord, StageRecord
from proxyds.artifact.ranking_table import FULL, PROXY


def weigh_spending(
    runs: pa.Table, own_ratio: float, n_full: int, n_test: int, stages: Sequence[StageRecord]
) -> SpendingRecord:
    """Sums what the proxy costs and saves.

    An architecture's cost is that of training and test, the mean over architectures and repeats. The proxy has paid for itself after
    so many architectures that the savings reach what build (and check) took, in seconds where they were measured here,
    else in FLOPs.
    """
    rows = runs.to_pylist()
    trained = [row for row in rows if row["origin"] == "trained"]

    def mean(column: str, dataset: str, ratio: float) -> float | None:
        held = [row[column] for row in trained if (row["dataset"], row["ratio"]) == (dataset, ratio)]
        return float(np.mean(held)) if held else None

    proxy_flops, full_flops = mean("run_flops", PROXY, own_ratio), mean("run_flops", FULL, 1.0)
    proxy_training, full_training = mean("training_seconds", PROXY, own_ratio), mean("training_seconds", FULL, 1.0)
    proxy_seconds = _plus(proxy_training, mean("test_seconds", PROXY, own_ratio))
    full_seconds = _plus(full_training, mean("test_seconds", FULL, 1.0))
    if full_flops is None:  # the accuracies on everything were known: what they would have taken
        of_proxy = [row for row in trained if (row["dataset"], row["ratio"]) == (PROXY, own_ratio)]
        would = [row["n_epochs"] * n_full * row["training_flops"] + n_test * row["forward_flops"] for row in of_proxy]
        full_flops = float(np.mean(would)) if would else None
    build_flops = float(sum(stage.flops for stage in stages))
    build_seconds = sum(stage.work_seconds for stage in stages)
    check_flops = float(sum(row["run_flops"] for row in trained))
    check_seconds = sum(row["training_seconds"] + row["test_seconds"] for row in trained)
    in_seconds = full_seconds is not None and proxy_seconds is not None
    full, proxy = (full_seconds, proxy_seconds) if in_seconds else (full_flops, proxy_flops)
    saved = full - proxy if full is not None and proxy is not None else None

    def pays_after(spent: float) -> int | None:
        return math.ceil(spent / saved) if saved is not None and saved > 0 else None

    build, checked = (build_seconds, check_seconds) if in_seconds else (build_flops, check_flops)
    return SpendingRecord(
        full_flops=full_flops,
        full_seconds=full_seconds,
        proxy_flops=proxy_flops,
        proxy_seconds=proxy_seconds,
        speed_up=full_training / proxy_training if full_training is not None and proxy_training else None,
        build_flops=build_flops,
        build_seconds=build_seconds,
        check_flops=check_flops,
        check_seconds=check_seconds,
        pays_after=pays_after(build),
        pays_after_with_check=pays_after(build + checked),
    )


def _plus(some: float | None, more: float | None) -> float | None:
    return None if some is None or more is None else some + more
