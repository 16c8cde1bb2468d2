"""A thousand cells of NAS-Bench-201, trained by others: twelve epochs on all of CIFAR-10 against two hundred."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from proxyds.artifact.evidence_records import MachineRecord
from proxyds.artifact.manifest import CountsRecord, DrawRecord, Manifest, SpaceRecord
from proxyds.artifact.ranking_table import BY_BOTH, PROXY
from proxyds.evaluation.evidence import Provenance, weigh_evidence
from proxyds.evaluation.external import read_runs
from proxyds.recipe.models import Check
from proxyds.recipe.yaml import read_recipe
from proxyds.space.listing import list_architectures


@pytest.mark.e2e  # twenty seconds
def test_parameters_take_back_what_short_training_does(data_folder: Path, tmp_path: Path) -> None:
    with (data_folder / "nas-bench-201" / "cifar10_12epochs_1000.csv").open() as file:
        rows = list(csv.DictReader(file))
    space = "{network: nasbench201, choices: {cell: every, channels: 16, cells: 5}}"
    (tmp_path / "recipe.yaml").write_text(f"name: cells\nspace: {space}\n")
    recipe = read_recipe(tmp_path / "recipe.yaml")
    architectures = list_architectures(recipe.space, 10, (3, 32, 32))
    lines = ["architecture,dataset,accuracy"]
    for row in rows:
        lines += [
            f"{row['arch_str']},full,{row['cifar10_test_acc_200ep']}",
            f"{row['arch_str']},proxy,{row['cifar10_test_acc_12ep']}",
        ]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    machine = MachineRecord(device="cpu", processor="any", n_cores=2, python="3", libraries={})
    manifest = Manifest.model_construct(
        draw=DrawRecord.model_construct(ratio=0.05),
        counts=CountsRecord.model_construct(train=45_000, test=10_000),
        space=SpaceRecord.model_construct(n_architectures=len(architectures)),
        label_names=tuple("abcdefghij"),
        kept_labels=None,
        stages=(),
    )
    started = time.perf_counter()
    table = read_runs(tmp_path / "runs.csv", architectures, 0.05)
    evidence = weigh_evidence(table, Check(), Provenance([], "table", "table", [], 0.0, machine), manifest)
    assert time.perf_counter() - started < 60
    by_accuracy, by_both = evidence.of(PROXY, 0.05), evidence.of(PROXY, 0.05, BY_BOTH)
    assert by_accuracy is not None
    assert by_both is not None
    assert by_accuracy.statistics["tau"].value == pytest.approx(0.727, abs=0.0006)
    assert by_both.statistics["tau"].value == pytest.approx(0.80, abs=0.01)
