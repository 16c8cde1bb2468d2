"""A check from end to end: real trainings, the evidence that they give, and what happens when it is stopped half-way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from scipy import stats

import proxyds
from proxyds.artifact import reader as opening
from proxyds.artifact.card.render import escape_markdown, render_card
from proxyds.artifact.reader import verify_proxy
from proxyds.artifact.summary import summarize_tables
from proxyds.artifact.tables import read_proxy, read_tables, read_weights
from proxyds.errors import (
    AccuracyTableError,
    ArtifactError,
    CardDriftError,
    ChangedSourceError,
    DivergedError,
    OutputExistsError,
    VerificationError,
)
from proxyds.pipeline.audit import audit_proxy
from proxyds.pipeline.build import _tell_of_other_check
from proxyds.pipeline.check import list_own_draws
from proxyds.pipeline.stages import open_session, read_scores
from proxyds.progress import Progress, StageEnded
from proxyds.recipe.sections.selection import Selection
from proxyds.recipe.sections.training import FullTraining
from proxyds.runtime.execution import Execution
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_each
from proxyds.seeding import parse_ids
from proxyds.selection.draw import design_by, draw_again
from proxyds.selection.records import SampleScores
from proxyds.training.loop import train_network
from tests.conftest import copy_store

pytestmark = pytest.mark.e2e

RECIPE = """\
name: checked
source: {kind: digits}
space:
  network: resnet
  choices: {depth: 8, base_filters: [3, 4, 6, 8], multiplier: [1, 2]}
selection: {ratio: 0.1}
training: {epochs: 3, batch_size: 64, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
"""
CHECK = "check: {draws: 2, full_seeds: 2}\n"
N_RUNS = 8 * (2 + 2 * 4)  # full, then proxy, random, stratified and fewer epochs of each draw
TIMES = ("training_seconds", "test_seconds")
ACCURACIES = ("accuracy", "evaluation_accuracy")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE + CHECK)
    return path


@pytest.fixture(scope="module")
def checked(recipe: Path, tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    """A proxy that was built and checked at a stroke. Do not change it: copy it."""
    out = tmp_path_factory.mktemp("checked") / "proxy"
    return proxyds.build(recipe, out, store=Store(session_store), device="cpu").folder


@pytest.fixture
def copy(checked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checked, tmp_path / "copy"))


def copy_without(session_store: Path, place: Path, text: str) -> Store:
    """Copies the store, but for the runs whose names hold some text: only these are trained again."""
    return copy_store(session_store, place, lambda entry: entry.stage == "check" and text in entry.name)


def rows(proxy: Path) -> list[dict[str, object]]:
    """The runs, but for what they took."""
    ranking = read_proxy(proxy)[1].ranking
    assert ranking is not None
    return [{name: value for name, value in row.items() if name not in TIMES} for row in ranking.to_pylist()]


def evidence_of(proxy: Path) -> dict[str, object]:
    """The evidence, but for times and how many runs there were at once."""
    evidence = opening.read_manifest(proxy).evidence
    assert evidence is not None
    return evidence.model_dump(
        exclude={"created": True, "elapsed_seconds": True, "spending": True, "machine": {"n_workers"}}
    )


def test_every_run_is_a_row_and_the_proxy_is_whole(checked: Path, tmp_path: Path) -> None:
    manifest = verify_proxy(checked)
    evidence, held = manifest.evidence, rows(checked)
    assert evidence is not None
    assert len(held) == N_RUNS
    counts = {dataset: sum(row["dataset"] == dataset for row in held) for dataset in {row["dataset"] for row in held}}
    assert counts == {"full": 16, "proxy": 16, "random": 16, "stratified": 16, "fewer-epochs": 16}
    for row in held:
        n = {"full": 1295, "fewer-epochs": 1295}.get(str(row["dataset"]), 130)
        assert row["n_samples"] == n
        assert row["n_steps"] == (3 * (1295 // 64) if row["dataset"] == "full" else 3 * (130 // 64))
        assert 0 <= float(str(row["accuracy"])) <= 1
        assert 0 <= float(str(row["evaluation_accuracy"])) <= 1
        assert row["run_flops"] == (
            int(str(row["n_steps"])) * 64 * int(str(row["training_flops"])) + 359 * int(str(row["forward_flops"]))
        )
    assert (evidence.n_architectures, evidence.n_draws, evidence.n_full_seeds) == (8, 2, 2)
    assert {each.method for each in evidence.methods} == {
        "full", "proxy", "random", "stratified", "fewer-epochs", "flops", "parameters",
    }  # fmt: skip
    assert {each.control for each in evidence.comparisons} == {
        "random", "stratified", "fewer-epochs", "flops", "parameters",
    }  # fmt: skip
    loaded = load_dataset(str(checked), "ranking", split="ranking", cache_dir=str(tmp_path / "hf"))
    assert loaded.num_rows == N_RUNS
    assert not [name for name in loaded.column_names if "path" in name]


def test_a_ranking_on_evaluation_samples_is_compared_and_must_follow_from_the_runs(checked: Path, copy: Path) -> None:
    said = opening.read_manifest(checked).evidence.on_evaluation  # type: ignore[union-attr]
    assert said is not None
    of_full = [row for row in rows(checked) if row["dataset"] == "full"]
    of_seeds = [
        stats.kendalltau(*([row[on] for row in of_full if row["training_seed"] == seed] for on in ACCURACIES)).statistic
        for seed in range(2)
    ]
    assert said.full.value == pytest.approx(np.mean(of_seeds))
    assert said.proxy is not None
    text = (checked / "README.md").read_text()
    assert all(each.shown() in text for each in (said.full, said.proxy))
    audit_proxy(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for value, is_refused in (({**manifest["evidence"]["on_evaluation"], "proxy": None}, True), (None, False)):
        manifest["evidence"]["on_evaluation"] = value
        (copy / "manifest.json").write_text(json.dumps(manifest))
        if is_refused:
            with pytest.raises(ArtifactError, match=r"evaluation samples of proxy.* must be what the runs"):
                audit_proxy(copy)
        else:
            audit_proxy(copy)


def test_the_papers_protocol_has_no_ranking_on_evaluation_samples(tmp_path: Path, session_store: Path) -> None:
    changes = ["importance.protocol=paper", "check.draws=1", "check.full_seeds=1", "check.architectures=5"]
    (tmp_path / "recipe.yaml").write_text(RECIPE + CHECK)
    recipe = proxyds.read_recipe(tmp_path / "recipe.yaml", changes)
    built = proxyds.build(recipe, tmp_path / "p", store=Store(session_store), device="cpu")
    assert built.manifest.evidence.on_evaluation is None  # type: ignore[union-attr]
    assert {row["evaluation_accuracy"] for row in rows(built.folder)} == {None}


def test_the_draws_differ_and_the_first_is_the_proxy_itself(checked: Path, recipe: Path, session_store: Path) -> None:
    manifest, tables = read_proxy(checked)
    read = proxyds.read_recipe(recipe)
    with open_session(read, Execution(store=Store(session_store), device="cpu", workers=1)) as session:
        data = session.data
        draw = list_own_draws(read, read_scores(data, manifest, tables), manifest, tables)["proxy"]
    drawn = [draw(0.1, 0), draw(0.1, 1), draw(0.2, 0)]
    first, second, larger = (each.selected for each in drawn if each is not None)
    assert data.train.ids[first].tolist() == tables.data["sample_id"].to_pylist()
    assert (first.sum(), second.sum(), larger.sum()) == (130, 130, 259)
    assert 0 < (first & second).sum() < 130
    assert manifest.counts.proxy == 130
    other = data.train.take(np.arange(len(data.train)) > 0)
    with pytest.raises(ChangedSourceError, match="of 1,438 samples 1 are gone and 0 stand in another split, 0 are new"):
        read_scores(replace(data, train=other), manifest, tables)


def test_another_ratio_draws_what_a_build_of_that_ratio_draws(
    checked: Path, recipe: Path, tmp_path: Path, session_store: Path
) -> None:
    read = proxyds.read_recipe(recipe, ["selection.ratio=0.2", "check=null"])
    larger = proxyds.build(read, tmp_path / "larger", store=Store(session_store), device="cpu").folder
    table = read_tables(checked).importance
    scores = SampleScores(parse_ids(np.array(table["sample_id"].to_pylist())), table["label"].to_numpy())
    drawn = draw_again(scores, design_by(read_weights(table)), Selection(ratio=0.2), seed=0)
    assert drawn.selected.tolist() == read_tables(larger).importance["selected"].to_pylist()


def test_the_card_shows_the_evidence_and_names_every_picture(pictures: None, copy: Path) -> None:
    checked = copy
    proxyds.render(checked)
    text, evidence = (checked / "README.md").read_text(), opening.read_manifest(checked).evidence
    assert evidence is not None
    assert "Not checked yet" not in text
    assert evidence.verdict[1:] in text
    assert escape_markdown(evidence.explanation) in text
    for each in evidence.methods:
        if each.statistics:
            assert each.statistics["tau"].shown() in text
        if each.statistics and each.ranked_by == "accuracy":  # with parameters the table shows tau alone
            assert each.statistics["regret"].value is not None
            assert f"| {100 * each.statistics['regret'].value:.1f} |" in text
    for comparison in evidence.comparisons:
        assert f"{comparison.difference.shown()} | {comparison.outcome}" in text
    named = set(re.findall(r"!\[[^]]*\]\((assets/[^)]+)\)", text))
    assert named == {f"assets/{path.name}" for path in (checked / "assets").iterdir()}
    assert {"assets/correlation.png", "assets/orders.png", "assets/accuracy.png", "assets/searches.png"} <= named
    for name in named:
        with Image.open(checked / name) as picture:
            assert picture.width > 600
    assert "None" not in text
    assert "nan" not in text


def test_the_card_renders_again_to_the_same_bytes(copy: Path) -> None:
    assert proxyds.render(copy, check_only=True) == []
    (copy / "assets" / "orders.png").write_bytes(b"another")
    with pytest.raises(CardDriftError, match="orders"):
        proxyds.render(copy, check_only=True)
    assert proxyds.render(copy) == ["assets/orders.png"]
    assert verify_proxy(copy)


def test_building_again_changes_nothing_and_other_settings_check_again(
    recipe: Path, copy: Path, session_store: Path, tmp_path: Path
) -> None:
    session_store = copy_store(session_store, tmp_path / "store").root
    before = (copy / "manifest.json").read_bytes()
    assert proxyds.build(recipe, copy, store=Store(session_store), device="cpu").was_there
    assert (copy / "manifest.json").read_bytes() == before
    n = len(Store(session_store).entries())
    again = proxyds.build(
        proxyds.read_recipe(recipe, ["check.draws=1"]), copy, store=Store(session_store), device="cpu"
    )
    assert not again.was_there
    assert len(Store(session_store).entries()) == n  # one draw less: nothing to train
    assert len(rows(copy)) == 8 * (2 + 4)
    assert opening.read_manifest(copy).recipe_sha256 == proxyds.read_recipe(recipe).sha256


def test_networks_may_train_otherwise_on_everything_and_the_card_says_how(
    copy: Path, session_store: Path, tmp_path: Path
) -> None:
    before = rows(copy)
    session_store = copy_store(session_store, tmp_path / "store").root
    overrides = ["check.full_training={epochs: 4, batch_size: 32}", "check.draws=1"]
    planned = proxyds.plan_check(copy, overrides=overrides, store=Store(session_store), device="cpu")
    full, *others = planned.runs
    assert (full.dataset, full.n_stored) == ("full", 0)
    assert full.expected_seconds > 0
    assert all(each.n_stored == each.n_runs for each in others)  # of these nothing changes
    proxyds.check(copy, overrides=overrides, store=Store(session_store), device="cpu")
    audit_proxy(copy)
    of = {(row["dataset"], row["architecture"], row["training_seed"]): row for row in before}
    for row in rows(copy):
        same = of[row["dataset"], row["architecture"], row["training_seed"]]
        assert (row["n_epochs"] == same["n_epochs"]) == (row["dataset"] != "full")
        assert (row["n_steps"] == same["n_steps"]) == (row["dataset"] != "full")
    assert opening.read_manifest(copy).evidence.check.full_training.epochs == 4
    told = escape_markdown("epochs 4, batch_size 32")
    text = (copy / "README.md").read_text()
    assert f"Trainings on everything differed: {told}." in text
    assert f"On everything the check trained with other settings: {told}." in text
    assert proxyds.read_recipe(copy / "recipe.yaml").check.full_training.batch_size == 32


def test_build_then_check_gives_what_a_build_with_a_check_gives(
    checked: Path, recipe: Path, tmp_path: Path, session_store: Path
) -> None:
    out, store = tmp_path / "p", Store(session_store)
    built = proxyds.build(recipe, out, store=store, device="cpu", check=False)
    assert built.manifest.evidence is None
    assert proxyds.plan_build(recipe, store=store, device="cpu", check=False).check is None
    assert "Not checked yet" in (out / "README.md").read_text()
    proxyds.check(out, store=store, device="cpu", workers=1)  # as the recipe says
    assert rows(out) == rows(checked)
    assert evidence_of(out) == evidence_of(checked)
    assert (out / "recipe.yaml").read_bytes() == (checked / "recipe.yaml").read_bytes()
    verify_proxy(out)


def test_rows_do_not_depend_on_how_many_run_at_once(workers: None, checked: Path, tmp_path: Path, copy: Path) -> None:
    overrides = ["check.draws=1", "check.full_seeds=1", "check.architectures=5"]
    proxyds.check(copy, overrides=overrides, store=Store(tmp_path / "fresh"), device="cpu", workers=2)
    fresh, before = rows(copy), rows(checked)
    assert len(fresh) == 5 * (1 + 4)
    assert all(row in before for row in fresh)


def test_one_seed_has_no_ceiling_and_the_card_says_so(copy: Path, session_store: Path) -> None:
    proxyds.check(copy, overrides=["check.full_seeds=1"], store=Store(session_store), device="cpu")
    evidence = opening.read_manifest(copy).evidence
    assert evidence is not None
    full = evidence.of("full", None)
    assert full is not None
    assert full.statistics == {}
    assert "Noise ceiling unknown" in (copy / "README.md").read_text()
    assert proxyds.render(copy, check_only=True) == []


def test_other_ratios_give_a_curve(copy: Path, session_store: Path) -> None:
    overrides = ["check.ratios=[0.3]", "check.draws=2", "check.full_seeds=1", "check.target=-1"]
    proxyds.check(copy, overrides=overrides, store=Store(session_store), device="cpu")
    evidence, text = opening.read_manifest(copy).evidence, (copy / "README.md").read_text()
    assert evidence is not None
    assert evidence.sufficient_ratio == 0.1
    assert {each.ratio for each in evidence.methods if each.method == "random"} == {0.1, 0.3}
    assert {row["ratio"] for row in rows(copy)} == {0.1, 0.3, 1.0}
    assert "How large must it be?" in text
    assert "whose lower end reaches -1.0: **10 %**" in text
    assert (copy / "assets" / "ratios.png").is_file()
    proxyds.check(copy, overrides=["check.ratios=[]"], store=Store(session_store), device="cpu")
    assert not (copy / "assets" / "ratios.png").exists()  # a picture that the card no longer shows
    verify_proxy(copy)


def test_the_papers_protocol_is_marked_as_circular(checked: Path) -> None:
    manifest, tables = read_proxy(checked)
    circular = manifest.model_copy(update={"protocol": "paper"})
    cards = [render_card(each, summarize_tables(tables))["README.md"] for each in (manifest, circular)]
    assert [b"**Circular**" in card for card in cards] == [False, True]


def test_a_name_from_outside_cannot_break_the_card(copy: Path, tmp_path: Path, session_store: Path) -> None:
    table = write_table(tmp_path / "a|b<script>[x](y).csv", copy)
    path = json.dumps(str(table))
    proxyds.check(
        copy, overrides=[f"check.reference={path}", "check.draws=1"], store=Store(session_store), device="cpu"
    )
    text = (copy / "README.md").read_text()
    assert "<script>" not in text
    assert "[x](y)" not in text


def write_table(path: Path, proxy: Path) -> Path:
    full = [row for row in rows(proxy) if row["dataset"] == "full" and row["training_seed"] == 0]
    lines = [f"{row['architecture']},{100 * float(str(row['accuracy']))}" for row in full]
    path.write_text("\n".join(["architecture,accuracy", *lines, "resnet depth=998,12"]))
    return path


def test_a_table_of_full_accuracies_saves_their_training(copy: Path, tmp_path: Path, session_store: Path) -> None:
    table, store = (
        write_table(tmp_path / "known.csv", copy),
        copy_without(session_store, tmp_path / "store", " on full"),
    )
    overrides = [f"check.reference={table}", "check.draws=1"]
    proxyds.check(copy, overrides=overrides, store=store, device="cpu")
    assert not any(" on full" in entry.name for entry in store.entries())
    assert len(rows(copy)) == 8 * (1 + 4)
    evidence, text = opening.read_manifest(copy).evidence, (copy / "README.md").read_text()
    assert evidence is not None
    assert evidence.reference == "table known.csv"
    assert evidence.n_full_seeds == 1
    assert {row["origin"] for row in rows(copy) if row["dataset"] == "full"} == {"table known.csv"}
    assert "those of **table known.csv**" in text
    # the next check does not look for a file that is gone
    assert "known.csv" not in (copy / "recipe.yaml").read_text()
    assert str(tmp_path) not in text + (copy / "manifest.json").read_text() + (copy / "recipe.yaml").read_text()


def test_another_proxys_reference_runs_serve_too(
    checked: Path, recipe: Path, tmp_path: Path, session_store: Path
) -> None:
    store = copy_without(session_store, tmp_path / "store", " on full")
    changes = ["selection.ratio=0.2", "check.draws=1", f"check.reference={checked}", "check.architectures=5"]
    changes += [
        "training.epochs=4",
        "probes.epochs=3",
        "check.full_training.epochs=3",
    ]  # on everything as that proxy did
    built = proxyds.build(proxyds.read_recipe(recipe, changes), tmp_path / "p", store=store, device="cpu")
    assert not [entry for entry in store.entries() if " on full" in entry.name]
    assert built.manifest.evidence is not None
    assert built.manifest.evidence.reference == "proxy checked 1.0.0"
    assert built.manifest.evidence.n_full_seeds == 2
    accuracies = {
        (row["architecture"], row["training_seed"]): row["accuracy"]
        for row in rows(checked)
        if row["dataset"] == "full"
    }
    full = [row for row in rows(tmp_path / "p") if row["dataset"] == "full"]
    assert len(full) == 5 * 2
    assert all(row["accuracy"] == accuracies[row["architecture"], row["training_seed"]] for row in full)


def test_a_reference_that_was_trained_otherwise_is_refused(
    checked: Path, tmp_path: Path, session_store: Path, tiny_proxy: Path
) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(RECIPE.replace("epochs: 3", "epochs: 4") + f"check: {{reference: {checked}}}\n")
    with pytest.raises(AccuracyTableError, match="must have the same training"):
        proxyds.build(path, tmp_path / "p", store=Store(session_store), device="cpu")
    path.write_text(f"{RECIPE}check: {{reference: {checked}, full_training: {{epochs: 4}}}}\n")
    with pytest.raises(AccuracyTableError, match=r"training on everything .* epochs is 3 there, and 4 here"):
        proxyds.build(path, tmp_path / "p", store=Store(session_store), device="cpu")
    path.write_text(f"{RECIPE}seed: 7\ncheck: {{reference: {checked}}}\n")
    with pytest.raises(AccuracyTableError, match="must have the same seed, which carves the splits"):
        proxyds.build(path, tmp_path / "p", store=Store(session_store), device="cpu")
    text = RECIPE.replace("{kind: digits}", "{kind: digits, test_fraction: 0.4}")
    path.write_text(f"{text}check: {{reference: {checked}}}\n")
    with pytest.raises(AccuracyTableError, match="must have the same section source"):
        proxyds.build(path, tmp_path / "p", store=Store(session_store), device="cpu")
    path.write_text(RECIPE + f"check: {{reference: {tiny_proxy}}}\n")
    with pytest.raises(AccuracyTableError, match="must have the same training"):
        proxyds.build(path, tmp_path / "q", store=Store(session_store), device="cpu")
    assert not (tmp_path / "p").exists()  # it is said before anything is trained


def test_runs_that_fail_are_named_and_the_rest_go_on(
    copy: Path, tmp_path: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy_without(session_store, tmp_path / "store", "base_filters=8 multiplier=2 ")

    def sometimes(*arguments: object, **named: object) -> object:
        if "base_filters=8 multiplier=2" in str(named["name"]):
            raise DivergedError("the training loss must stay finite")
        return train_network(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("proxyds.training.job.train_network", sometimes)
    proxyds.check(copy, overrides=["check.draws=1", "check.full_seeds=1"], store=store)
    evidence, text = opening.read_manifest(copy).evidence, (copy / "README.md").read_text()
    assert evidence is not None
    assert evidence.n_architectures == 7
    assert len(evidence.failures) == 5
    assert all("base_filters=8 multiplier=2 on " in failure for failure in evidence.failures)
    assert len(rows(copy)) == 7 * 5
    assert "5 runs failed" in text
    assert "must stay finite" in text
    verify_proxy(copy)


def test_a_stop_between_the_files_is_seen_and_mended_by_checking_again(
    checked: Path, copy: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("proxyds.pipeline.check.rewrite_manifest", lambda *arguments, **named: sys.exit("killed"))
        with pytest.raises(SystemExit):
            proxyds.check(copy, overrides=["check.draws=1"], store=Store(session_store), device="cpu")
    (copy / "assets" / ".orders.png.new").write_bytes(b"half")
    with pytest.raises(VerificationError):
        verify_proxy(copy)
    proxyds.check(copy, overrides=["check.draws=2"], store=Store(session_store), device="cpu")
    assert verify_proxy(copy)
    assert rows(copy) == rows(checked)
    assert not (copy / "assets" / ".orders.png.new").exists()


def test_a_build_stopped_while_it_wrote_the_evidence_goes_on_too(
    checked: Path, recipe: Path, tmp_path: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, store = tmp_path / "p", Store(session_store)
    with monkeypatch.context() as patch:
        patch.setattr("proxyds.pipeline.check.rewrite_manifest", lambda *arguments, **named: sys.exit("killed"))
        with pytest.raises(SystemExit):
            proxyds.build(recipe, out, store=store, device="cpu")
    (out / ".README.md.new").write_bytes(b"half")
    proxyds.build(recipe, out, store=store, device="cpu")
    verify_proxy(out)
    assert rows(out) == rows(checked)


def test_a_build_says_that_the_evidence_of_another_check_gives_way(
    checked: Path, copy: Path, recipe: Path, session_store: Path
) -> None:
    told: list[str] = []

    def listen(event: Progress | StageEnded) -> None:
        told.extend([event.warning] if isinstance(event, StageEnded) and event.warning else [])

    proxyds.check(copy, overrides=["check.draws=1"], store=Store(session_store), device="cpu")
    proxyds.build(recipe, copy, store=Store(session_store), device="cpu", on_progress=listen)
    assert any("check.draws was 1, is 2" in each for each in told), told
    evidence, settings = opening.read_manifest(copy).evidence, proxyds.read_recipe(recipe).check
    assert evidence is not None
    assert settings is not None
    longer = settings.model_copy(update={"full_training": FullTraining(epochs=9)})
    assert "check.full_training was null, is {" in _tell_of_other_check(evidence, longer)
    former = evidence.model_copy(update={"check": evidence.check.model_copy(update={"parameter_weight": 0.25})})
    assert "check.parameter_weight was 0.25" in _tell_of_other_check(former, settings)
    assert _tell_of_other_check(evidence, settings) == ""
    assert "table a.csv" in _tell_of_other_check(evidence.model_copy(update={"runs": "table a.csv"}), settings)
    assert rows(copy) == rows(checked)
    told.clear()
    proxyds.build(recipe, copy, store=Store(session_store), device="cpu", on_progress=listen)
    assert not any("gives way" in each for each in told)


def test_damage_during_a_check_is_not_signed(copy: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = min((copy / "data").glob("train-*.parquet"))

    def meanwhile(*arguments: object) -> object:
        done = run_each(*arguments)  # type: ignore[arg-type]
        held = bytearray(data.read_bytes())
        held[len(held) // 2] ^= 1
        data.write_bytes(held)
        (copy / "notes.txt").write_text("mine")
        return done

    monkeypatch.setattr("proxyds.pipeline.check.run_each", meanwhile)
    with pytest.raises(ArtifactError, match="fetch or build it again"):
        proxyds.check(copy, overrides=["check.draws=1"], store=Store(session_store), device="cpu")
    with pytest.raises(VerificationError, match=r"2 files differ(.|\n)*data/train.*\n.*notes.txt"):
        verify_proxy(copy)


def test_a_proxy_that_was_replaced_during_its_check_is_left_alone(
    copy: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: object) -> object:
        held = (copy / "manifest.json").read_text()
        (copy / "manifest.json").write_text(
            held.replace('"version":"1.0.0"', '"version":"2.0.0"').replace('"version": "1.0.0"', '"version": "2.0.0"')
        )
        return run_each(*arguments)  # type: ignore[arg-type]

    card = (copy / "README.md").read_bytes()
    monkeypatch.setattr("proxyds.pipeline.check.run_each", meanwhile)
    with pytest.raises(OutputExistsError, match="another command has written to it"):
        proxyds.check(copy, overrides=["check.draws=1"], store=Store(session_store), device="cpu")
    assert (copy / "README.md").read_bytes() == card


def test_a_plan_counts_what_is_stored_and_trains_nothing(
    copy: Path, recipe: Path, session_store: Path, tmp_path: Path
) -> None:
    store = copy_store(session_store, tmp_path / "store")  # another worker adds to the shared one
    n = len(store.entries())
    plan = proxyds.plan_check(copy, overrides=["check.draws=3"], store=store, device="cpu")
    found = {(each.dataset, each.ratio): (each.n_runs, each.n_stored) for each in plan.runs}
    assert found["full", 1.0] == (16, 16)
    assert found["proxy", 0.1] == (24, 16)
    assert found["fewer-epochs", 0.1] == (24, 16)
    assert plan.expected_seconds > 0
    assert len(plan.architectures) == 8
    assert plan.warnings == []
    few = proxyds.read_recipe(recipe, ["source.test_fraction=0.01"])
    of_build = proxyds.plan_build(few, store=Store(tmp_path / "fresh"), device="cpu").check
    assert of_build is not None
    assert "source.test_fraction" in of_build.warnings[0]
    assert {each.dataset: each.n_runs for each in of_build.runs} == dict.fromkeys(
        ("full", "proxy", "random", "stratified", "fewer-epochs"), 16
    )
    assert len(store.entries()) == n


def test_a_user_sees_the_plan_the_evidence_and_one_bar(
    run_proxyds: Callable[..., subprocess.CompletedProcess[str]], copy: Path
) -> None:
    planned = run_proxyds("check", copy, "--dry-run")
    assert planned.returncode == 0
    assert "trainings of the check" in planned.stdout
    ran = run_proxyds("check", copy, "--strict")
    evidence = opening.read_manifest(copy).evidence
    assert evidence is not None
    assert ran.returncode == (0 if evidence.verdict == "preserves the ranking" else 3), ran.stderr
    assert f"verdict: {evidence.verdict}" in ran.stdout
    assert "counting FLOPs" in ran.stdout
    inspected = run_proxyds("inspect", copy)
    assert f"verdict: {evidence.verdict}" in inspected.stdout
    held = json.loads(run_proxyds("inspect", copy, "--json").stdout)
    assert held["evidence"]["verdict"] == evidence.verdict
    steps: list[Progress | StageEnded] = []
    proxyds.check(copy, overrides=["check.draws=1"], device="cpu", on_progress=steps.append)
    assert {step.task for step in steps if isinstance(step, Progress) and step.stage == "check"} <= {"runs"}


def stored_runs(store: Path) -> dict[str, float]:
    return {entry.key: entry.created for entry in Store(store).entries() if entry.stage == "check"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_check_stopped_half_way_does_only_what_is_left_and_finds_the_same(
    how: signal.Signals, checked: Path, tmp_path: Path, session_store: Path
) -> None:
    proxy, store = tmp_path / "proxy", tmp_path / "store"
    shutil.copytree(checked, proxy)
    copy_without(session_store, store, "base_filters=8")
    n_before, n_left = len(stored_runs(store)), N_RUNS // 4
    command = [sys.executable, "-m", "proxyds", "check", str(proxy), "--quiet"]
    environment = {**os.environ, "PROXYDS_STORE": str(store)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(stored_runs(store)) < n_before + 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(how)
    message = process.communicate()[1]
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    assert how == signal.SIGKILL or f"The proxy at {proxy} is whole" in message
    time.sleep(1)  # the workers notice
    before = stored_runs(store)
    assert n_before + 2 <= len(before) < n_before + n_left
    assert verify_proxy(proxy)  # what was there is whole

    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = stored_runs(store)
    assert len(after) == n_before + n_left
    assert {key: after[key] for key in before} == before  # none of them was done again
    assert rows(proxy) == rows(checked)
    assert evidence_of(proxy) == evidence_of(checked)
    assert verify_proxy(proxy)
