"""Made-up tables of runs, and what is made of them, for the tests of the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from proxyds.artifact.evidence_records import ComparisonRecord, EvidenceRecord, MachineRecord
from proxyds.artifact.manifest import (
    CountsRecord,
    DrawRecord,
    Manifest,
    ProbeRecord,
    SpaceRecord,
    StageRecord,
    TrainingRecord,
)
from proxyds.artifact.ranking_table import (
    BY_ACCURACY,
    FEWER_EPOCHS,
    FULL,
    PROXY,
    RANDOM,
    RankedBy,
    make_runs_table,
)
from proxyds.evaluation.evidence import Provenance, weigh_evidence
from proxyds.recipe.models import Check

Rows = list[dict[str, Any]]
MACHINE = MachineRecord(device="cpu", processor="any", n_cores=2, python="3.11", libraries={"numpy": "2"})

SOFT: dict[str, Any] = {
    "training": TrainingRecord(soft_labels=True),
    "probes": [ProbeRecord.model_construct(repeat=0, training_flops=flops) for flops in (3, 40)],
    "stages": [
        StageRecord(stage=name, work_seconds=1, elapsed_seconds=1, flops=flops, was_stored=False)
        for name, flops in (("probes", 43), ("soft labels", 5))
    ],
}
"""What a manifest says of a proxy with soft labels: the heaviest probe took 40 FLOPs, and 5 to be asked."""

N = 20
QUALITY = np.linspace(0.5, 0.9, N)
"""What the architectures are worth on full data, the last the best."""
COSTS = 1000 + 100 * np.random.default_rng(10).permutation(N)


def rows_of(
    dataset: str,
    accuracies: Sequence[Sequence[float | None]] | np.ndarray,
    *,
    ratio: float = 0.1,
    costs: Sequence[int] | np.ndarray | None = None,
    **about: Any,
) -> Rows:
    """Rows of a data set: accuracies are repeats by architectures."""
    rows = []
    for repeat, of_each in enumerate(accuracies):
        for i, accuracy in enumerate(of_each):
            cost = int(costs[i]) if costs is not None else 1000 + 10 * i
            rows.append(
                {
                    "architecture": f"net {i:02}",
                    "network": "resnet",
                    "parameters": f'{{"depth": {i}}}',
                    "forward_flops": cost // 3,
                    "training_flops": cost,
                    "n_parameters": cost + i,
                    "dataset": dataset,
                    "ratio": 1.0 if dataset == FULL else ratio,
                    "draw_seed": None if dataset in (FULL, FEWER_EPOCHS) else repeat,
                    "training_seed": repeat,
                    "n_samples": 100,
                    "n_steps": 10,
                    "n_epochs": 5.0,
                    "run_flops": 50 * cost,
                    "accuracy": accuracy,
                    "training_seconds": 1.0,
                    "test_seconds": 0.5,
                    "device": "cpu",
                    "origin": "trained",
                    **about,
                }
            )
    return rows


def weigh(rows: Rows, check: Check | None = None, *, own_ratio: float = 0.1, **about: Any) -> EvidenceRecord:
    """Weighs rows; `about` replaces what a provenance or a manifest says."""
    provenance: dict[str, Any] = {
        "planned": [],
        "runs": "trained here",
        "reference": "trained here",
        "failures": [],
        "elapsed_seconds": 3.0,
        "machine": MACHINE,
    }
    said: dict[str, Any] = {
        "draw": DrawRecord.model_construct(ratio=own_ratio),
        "counts": CountsRecord.model_construct(train=1000, test=359),
        "space": SpaceRecord.model_construct(n_architectures=1000),
        "label_names": tuple("0123456789"),
        "kept_labels": None,
        "seed": 0,
        "stages": [StageRecord(stage="probe", work_seconds=2, elapsed_seconds=1, flops=10, was_stored=False)],
    }
    for name, value in about.items():
        (provenance if name in provenance else said)[name] = value
    manifest = Manifest.model_construct(**said)
    return weigh_evidence(make_runs_table(rows), check or Check(), Provenance(**provenance), manifest)


def around(truth: np.ndarray, noise: float, *, seed: int, repeats: int = 2) -> np.ndarray:
    """Repeats of accuracies around a truth."""
    return truth + noise * np.random.default_rng(seed).normal(size=(repeats, len(truth)))


def hopeless(seed: int, repeats: int = 2, n: int = N) -> np.ndarray:
    """Repeats that say nothing."""
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(n) / 100 + 0.2 for _ in range(repeats)])


def everything(
    *,
    full: np.ndarray | None = None,
    proxy: np.ndarray | None = None,
    random: np.ndarray | None = None,
    fewer_epochs: np.ndarray | None = None,
    costs: np.ndarray = COSTS,
) -> Rows:
    """A good proxy, controls that say nothing, costs that say nothing; replace what a test is about."""
    return [
        *rows_of(FULL, around(QUALITY, 0.005, seed=1) if full is None else full, costs=costs),
        *rows_of(PROXY, around(QUALITY - 0.3, 0.01, seed=2) if proxy is None else proxy, costs=costs),
        *rows_of(RANDOM, hopeless(3) if random is None else random, costs=costs),
        *rows_of(FEWER_EPOCHS, hopeless(4) if fewer_epochs is None else fewer_epochs, costs=costs),
    ]


def difference_to(
    record: EvidenceRecord, control: str, ratio: float = 0.1, ranked_by: RankedBy = BY_ACCURACY
) -> ComparisonRecord:
    """Finds a comparison that must be there."""
    found = record.compare_with(control, ratio, ranked_by)
    assert found is not None
    return found


def taus(reference: np.ndarray, measured: np.ndarray) -> float:
    """Computes Kendall's tau-b as scipy does."""
    return float(stats.kendalltau(reference, measured).statistic)


def trained_again(dataset: str, accuracies: np.ndarray, n_trainings: int, **about: Any) -> Rows:
    """Rows of (D, T, n) or (D, n) accuracies: every draw with as many training seeds, copies where there is one."""
    rows = []
    for draw, of_draw in enumerate(accuracies):
        trainings = [of_draw] * n_trainings if of_draw.ndim == 1 else of_draw
        for seed, of_training in enumerate(trainings):
            rows += [{**row, "draw_seed": draw, "training_seed": 10 * draw + seed}
                     for row in rows_of(dataset, [of_training], **about)]  # fmt: skip
    return rows


def stage(seconds: float, flops: int) -> StageRecord:
    return StageRecord(stage="any", work_seconds=seconds, elapsed_seconds=999, flops=flops, was_stored=True)
