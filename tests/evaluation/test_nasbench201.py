"""A thousand cells of NAS-Bench-201, trained by others: twelve epochs on all of CIFAR-10 against two hundred."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from proxyds.artifact.evidence_records import MachineRecord
from proxyds.artifact.manifest import CountsRecord, DrawRecord, Manifest, SpaceRecord
from proxyds.artifact.ranking_table import BY_BOTH, FULL, PARAMETERS, PROXY, Measured, collect_accuracies
from proxyds.evaluation.decision.ranking import expect
from proxyds.evaluation.decision.results import Candidate, Run
from proxyds.evaluation.decision.shortlist import choose_shortlist, find_chances
from proxyds.evaluation.evidence import Provenance, weigh_evidence
from proxyds.evaluation.external import read_runs
from proxyds.recipe.models import Check
from proxyds.recipe.yaml import read_recipe
from proxyds.space.listing import list_architectures


@pytest.fixture(scope="module")
def table(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, int]:
    """Runs of the cells, twelve epochs as those of a proxy; and how many cells there are in the space."""
    folder = tmp_path_factory.mktemp("cells")
    with (data_folder / "nas-bench-201" / "cifar10_12epochs_1000.csv").open() as file:
        rows = list(csv.DictReader(file))
    space = "{network: nasbench201, choices: {cell: every, channels: 16, cells: 5}}"
    (folder / "recipe.yaml").write_text(f"name: cells\nspace: {space}\n")
    architectures = list_architectures(read_recipe(folder / "recipe.yaml").space, 10, (3, 32, 32))
    lines = ["architecture,dataset,accuracy"]
    for row in rows:
        lines += [
            f"{row['arch_str']},full,{row['cifar10_test_acc_200ep']}",
            f"{row['arch_str']},proxy,{row['cifar10_test_acc_12ep']}",
        ]
    (folder / "runs.csv").write_text("\n".join(lines))
    return read_runs(folder / "runs.csv", architectures, 0.05), len(architectures)


@pytest.mark.e2e  # the space alone takes a quarter of a minute
def test_parameters_take_back_what_short_training_does(table: tuple[pa.Table, int]) -> None:
    runs, n_cells = table
    machine = MachineRecord(device="cpu", processor="any", n_cores=2, python="3", libraries={})
    manifest = Manifest.model_construct(
        draw=DrawRecord.model_construct(ratio=0.05),
        counts=CountsRecord.model_construct(train=45_000, test=10_000),
        space=SpaceRecord.model_construct(n_architectures=n_cells),
        label_names=tuple("abcdefghij"),
        kept_labels=None,
        seed=0,
        stages=(),
    )
    started = time.perf_counter()
    evidence = weigh_evidence(runs, Check(), Provenance([], "table", "table", [], 0.0, machine), manifest)
    assert time.perf_counter() - started < 60
    by_accuracy, by_both = evidence.of(PROXY, 0.05), evidence.of(PROXY, 0.05, BY_BOTH)
    assert by_accuracy is not None
    assert by_both is not None
    assert by_accuracy.statistics["tau"].value == pytest.approx(0.727, abs=0.0006)
    assert by_both.statistics["tau"].value == pytest.approx(0.80, abs=0.01)


@pytest.mark.e2e
def test_a_shortlist_from_24_cells_holds_the_best_of_the_others(table: tuple[pa.Table, int]) -> None:
    measured = collect_accuracies(table[0])
    full, proxy = measured.accuracies[FULL, 1.0][0], measured.accuracies[PROXY, 0.05][0]
    lost, held, seconds = [], [], []
    for seed in range(15):
        order = np.random.default_rng(seed).permutation(len(full))
        checked, asked = order[:24], order[24:]
        candidates = [
            Candidate(measured.names[i], (Run(0, 0, proxy[i]),), int(measured.costs[PARAMETERS][i])) for i in asked
        ]
        of_check = Measured(
            [measured.names[i] for i in checked],
            {name: cost[checked] for name, cost in measured.costs.items()},
            {key: values[:, checked] for key, values in measured.accuracies.items()},
            measured.draws,
            (),
        )
        started = time.perf_counter()
        samples = expect(candidates, of_check, 0.05, seed).samples
        chances = find_chances(samples)
        seconds.append(time.perf_counter() - started)
        true = full[asked]
        lost.append(true.max() - true[choose_shortlist(samples, 0.9)[0]].max())
        held.append(((true >= chances.low) & (true <= chances.high)).mean())
    assert np.median(lost) <= 0.002
    assert 0.85 <= np.mean(held) <= 0.95
    assert np.median(seconds) < 10
