"""A proxy that a trainer of one's own built and checked, end to end: what stands in it, who may build it again, what its evidence is of."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from proxyds.artifact.manifest import Manifest
from proxyds.artifact.reader import read_manifest, read_own_recipe
from proxyds.artifact.tables import read_proxy
from proxyds.errors import CallableError, OutputExistsError, TrainingError
from proxyds.pipeline.audit import audit_tables
from proxyds.pipeline.build import build, render
from proxyds.pipeline.check import check
from proxyds.pipeline.plan import plan_build, plan_check
from proxyds.pipeline.rank import rank
from proxyds.progress import Progress, StageEnded
from proxyds.runtime.storage.store import Store
from tests.conftest import copy_store

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RECIPE = """\
name: tiny
source: {kind: digits}
space:
  network: resnet
  choices: {depth: 8, base_filters: [4, 6, 8, 10, 12]}
selection: {ratio: 0.1}
check: {draws: 1, full_seeds: 1}
"""


def make_trainer(rate: float) -> Any:
    """A trainer as a script has it: pickled by value."""

    def fit_an_epoch(network: nn.Module, train: Any, *, seed: int, device: str) -> nn.Module:
        optimizer = torch.optim.Adam(network.train().parameters(), rate)
        for images, labels in DataLoader(train, 32, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            cross_entropy(network(images), labels).backward()
            optimizer.step()
        return network

    return fit_an_epoch


OWN, OTHER = make_trainer(0.02), make_trainer(0.01)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def built(recipe: Path, tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    out = tmp_path_factory.mktemp("built") / "proxy"
    return build(recipe, out, trainer=OWN, store=Store(session_store), device="cpu").folder


def card_of(proxy: Path) -> str:
    return (proxy / "README.md").read_text()


def test_a_proxy_says_who_trained_and_what_is_not_known(built: Path) -> None:
    manifest: Manifest
    manifest, tables = audit_tables(built)
    trainer = manifest.trainer
    assert trainer is not None
    assert (trainer.name, manifest.check_trainer) == ("fit_an_epoch", trainer)
    assert not hasattr(manifest.training, "epochs")
    assert [(probe.training_flops, probe.losses) for probe in manifest.probes] == [(None, ())] * 2
    assert [stage.stage for stage in manifest.stages if stage.flops is None] == ["probes"]
    evidence = manifest.evidence
    assert evidence is not None
    assert "fewer-epochs" not in {each.method for each in evidence.methods}
    spending = evidence.spending
    assert (spending.full_flops, spending.proxy_flops, spending.build_flops, spending.check_flops) == (None,) * 4
    assert spending.full_seconds is not None
    assert evidence.searches == ()
    assert set(tables.ranking["run_flops"].to_pylist()) == {None}
    assert "trainer:" in (built / "recipe.yaml").read_text()
    assert "epochs" not in (built / "recipe.yaml").read_text()
    assert read_own_recipe(built).sha256 == manifest.recipe_sha256
    assert trainer.sha256 in card_of(built)
    assert render(built, check_only=True) == []


def test_a_ranking_says_whose_candidates_its_chances_are_of(built: Path) -> None:
    _, tables = read_proxy(built, images_of=("data",))
    names = sorted(set(tables.ranking["architecture"].to_pylist()))
    ranking = rank(str(built), {name: 0.5 + i / 100 for i, name in enumerate(names)})
    assert any("fit_an_epoch" in note for note in ranking.notes)


def test_the_same_trainer_finds_all_of_it_done_and_none_is_asked_for(
    built: Path, recipe: Path, tmp_path: Path, session_store: Path
) -> None:
    events: list[Progress | StageEnded] = []
    store = Store(session_store)
    assert build(recipe, built, trainer=OWN, store=store).was_there
    again = build(recipe, tmp_path / "again", trainer=OWN, store=store, device="cpu", on_progress=events.append)
    ended = {each.stage: each.was_stored for each in events if isinstance(each, StageEnded)}
    assert ended["probes"]
    assert (again.folder / "indices.csv").read_bytes() == (built / "indices.csv").read_bytes()
    plan = plan_build(recipe, trainer=OWN, store=store, device="cpu")
    assert plan.check is not None
    assert [probe.is_stored for probe in plan.probes] == [True, True]
    assert {each.dataset for each in plan.check.runs if each.n_stored < each.n_runs} == {"proxy"}  # not drawn yet
    assert (plan.expected_seconds, plan.probes[0].flops) == (None, None)
    with pytest.raises(CallableError, match="fit_an_epoch"):
        build(built / "recipe.yaml", tmp_path / "alone", store=store)
    with pytest.raises(CallableError, match="fit_an_epoch"):
        check(built, store=store)
    with pytest.raises(OutputExistsError):
        build(recipe, built, trainer=OTHER, store=store)


def test_a_check_by_another_trainer_is_of_that_one(built: Path, tmp_path: Path, session_store: Path) -> None:
    copy, store = tmp_path / "copy", Store(session_store)
    shutil.copytree(built, copy)
    checked = check(copy, trainer=OTHER, store=store, device="cpu").manifest
    assert checked.evidence is not None
    assert checked.check_trainer == checked.evidence.check.trainer != checked.trainer
    assert checked.recipe_sha256 == read_manifest(built).recipe_sha256
    assert "another than what trained the probes" in card_of(copy)
    audit_tables(copy)
    plan = plan_check(copy, trainer=OTHER, store=store, device="cpu")
    assert {each.n_runs - each.n_stored for each in plan.runs} == {0}
    with pytest.raises(CallableError, match=r"check\.trainer"):
        check(copy, store=store)
    back = check(copy, trainer=OWN, store=store, device="cpu").manifest
    assert back.evidence is not None
    assert back.evidence.check.trainer is None


def test_a_check_by_another_trainer_leaves_the_probes_to_their_own(
    built: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("proxyds.pipeline.check.is_handed_over", lambda sha256: False)  # as in another program
    store = copy_store(session_store, tmp_path / "store")
    how: dict[str, Any] = {"trainer": OTHER, "store": store, "device": "cpu"}
    n_stored = len(store.entries())
    for ask in (check, plan_check):
        with pytest.raises(CallableError, match=r"herding among check\.controls.*fit_an_epoch"):
            ask(built, overrides=["check.controls=[herding]"], **how)
    assert len(store.entries()) == n_stored
    plan = plan_check(built, overrides=["check.controls=[easiest]"], **how)  # the build has asked for as much
    assert {probe.is_stored for probe in plan.probes} == {True}


def test_a_trainer_that_fails_says_where_and_nothing_is_trained_for_it(
    recipe: Path, tmp_path: Path, session_store: Path
) -> None:
    def fit_wrongly(network: nn.Module, train: Any, *, seed: int, device: str) -> nn.Module:
        raise KeyError("momentum")

    with pytest.raises(TrainingError, match=r"trainer fit_wrongly on .*KeyError: 'momentum' .line \d+, in fit_wrongly"):
        build(recipe, tmp_path / "out", trainer=fit_wrongly, store=Store(session_store), device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("example", ["trainer", pytest.param("lightning_trainer", marks=pytest.mark.slow)])
def test_the_examples_build_a_proxy(example: str, tmp_path: Path) -> None:
    if example == "lightning_trainer" and importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed: pip install lightning")
    text = RECIPE.replace("[4, 6, 8, 10, 12]", "[4, 8]").replace("check: {draws: 1, full_seeds: 1}\n", "")
    (tmp_path / "recipe.yaml").write_text(text)
    shutil.copy(EXAMPLES / f"{example}.py", tmp_path)
    told = subprocess.run(
        [sys.executable, f"{example}.py", "recipe.yaml", "out"],
        cwd=tmp_path,
        env={**os.environ, "PROXYDS_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    probes = read_manifest(tmp_path / "out").probes
    assert min(probe.accuracy for probe in probes) > 0.8
    assert [len(probe.losses) for probe in probes] == ([4, 4] if example == "lightning_trainer" else [0, 0])
