"""What a proxy costs and saves, from the stages of its build and the runs of its check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from proxyds.artifact.evidence_records import SpendingRecord
from proxyds.artifact.manifest import SOFT_LABELS, Manifest, StageRecord
from proxyds.artifact.ranking_table import FULL, PROXY


def weigh_spending(
    runs: pa.Table, own_ratio: float, n_full: int, n_test: int, stages: Sequence[StageRecord]
) -> SpendingRecord:
    """Sums what the proxy costs and saves.

    An architecture's cost is that of training and test, the mean over architectures and repeats. The proxy has paid for itself after
    so many architectures that the savings reach what build (and check) took, in seconds where they were measured here,
    else in FLOPs.

    Args:
        runs: The table `ranking`.
        own_ratio: The proxy's.
        n_full: Samples that may be drawn.
        n_test: Test samples.
        stages: What the build took.
    """
    rows = runs.to_pylist()
    trained = [row for row in rows if row["origin"] == "trained"]
    on_proxy, on_full = (
        [row for row in trained if (row["dataset"], row["ratio"]) == key] for key in ((PROXY, own_ratio), (FULL, 1.0))
    )
    proxy_flops, proxy_training, proxy_seconds = _average(on_proxy)
    full_flops, full_training, full_seconds = _average(on_full)
    of_another = [row["run_flops"] for row in rows if row["dataset"] == FULL and row["run_flops"] is not None]
    if full_flops is None and of_another:  # another proxy's runs on everything tell what they took
        full_flops = float(np.mean(of_another))
    if full_flops is None and proxy_flops is not None:  # what they would have taken
        would = [row["n_epochs"] * n_full * row["training_flops"] + n_test * row["forward_flops"] for row in on_proxy]
        full_flops = float(np.mean(would))
    build_flops = _add([stage.flops for stage in stages])
    build_seconds = sum(stage.work_seconds for stage in stages)
    check_flops = _add([row["run_flops"] for row in trained])
    check_seconds = sum(row["training_seconds"] + row["test_seconds"] for row in trained)
    saved, build, check = 0.0, 0.0, 0.0
    if full_seconds is not None and proxy_seconds is not None:
        saved, build, check = full_seconds - proxy_seconds, build_seconds, check_seconds
    elif full_flops is not None and proxy_flops is not None and build_flops is not None and check_flops is not None:
        saved, build, check = full_flops - proxy_flops, build_flops, check_flops
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
        pays_after=math.ceil(build / saved) if saved > 0 else None,
        pays_after_with_check=math.ceil((build + check) / saved) if saved > 0 else None,
    )


def find_teaching_flops(manifest: Manifest) -> float:
    """Finds the FLOPs of the training that gives soft labels, and of asking for them; 0 where networks learn labels."""
    if not manifest.has_soft_labels:
        return 0.0
    asking = [stage.flops for stage in manifest.stages if stage.stage == SOFT_LABELS]
    return _add([manifest.heaviest.training_flops, *asking]) or 0.0


def _average(rows: Sequence[dict[str, Any]]) -> tuple[float | None, float | None, float | None]:
    """Averages FLOPs, seconds of training, and seconds of training and test over runs; None where there are none, or FLOPs are not known."""
    if not rows:
        return None, None, None
    training, test = (float(np.mean([row[column] for row in rows])) for column in ("training_seconds", "test_seconds"))
    flops = [row["run_flops"] for row in rows]
    return None if None in flops else float(np.mean(flops)), training, training + test


def _add(flops: Sequence[int | None]) -> float | None:
    """Adds FLOPs; None where some are not known."""
    known = [each for each in flops if each is not None]
    return float(sum(known)) if len(known) == len(flops) else None
