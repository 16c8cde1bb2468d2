"""What a proxy costs and saves, from the ledger of its build and the runs of its check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    trained = [row for row in runs.to_pylist() if row["origin"] == "trained"]
    on_proxy, on_full = (
        [row for row in trained if (row["dataset"], row["ratio"]) == key] for key in ((PROXY, own_ratio), (FULL, 1.0))
    )
    proxy_flops, full_flops = _mean(on_proxy, "run_flops"), _mean(on_full, "run_flops")
    proxy_training, full_training = _mean(on_proxy, "training_seconds"), _mean(on_full, "training_seconds")
    proxy_seconds = _plus(proxy_training, _mean(on_proxy, "test_seconds"))
    full_seconds = _plus(full_training, _mean(on_full, "test_seconds"))
    if full_flops is None and on_proxy:  # the accuracies on everything were known: what they would have taken
        would = [row["n_epochs"] * n_full * row["training_flops"] + n_test * row["forward_flops"] for row in on_proxy]
        full_flops = float(np.mean(would))
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


def _mean(rows: Sequence[dict[str, Any]], column: str) -> float | None:
    return float(np.mean([row[column] for row in rows])) if rows else None


def _plus(some: float | None, more: float | None) -> float | None:
    return None if some is None or more is None else some + more
