"""Soft labels, from a recipe to a proxy that others read: what they are, who learns them, and who does not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

import proxyds
from proxyds.artifact.manifest import CROISSANT
from proxyds.artifact.ranking_table import FEWER_EPOCHS, FULL, PROXY
from proxyds.data.samples import SoftLabels
from proxyds.errors import ArgumentError, ArtifactError, RecipeError
from proxyds.evaluation.runs import Run
from proxyds.pipeline import check as check_module
from proxyds.pipeline.audit import audit_proxy
from proxyds.progress import StageEnded
from proxyds.runtime.storage.store import Store
from proxyds.space.listing import list_architectures
from proxyds.training.model import load_network
from tests.artifact.hostile import Proxy
from tests.artifact.test_croissant import load as load_croissant
from tests.conftest import TINY_RECIPE, copy_store, read_tree

RECIPE = TINY_RECIPE.replace("name: tiny", "name: soft").replace(
    "horizontal_flip: false", "horizontal_flip: true, soft_labels: true"
)


@pytest.fixture(scope="session")
def soft_proxy(make_once: Callable[..., Path], session_store: Path) -> Path:
    """A proxy whose recipe asks for soft labels. Do not change it: copy it."""

    def make(folder: Path) -> Path:
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        return proxyds.build(folder / "recipe.yaml", folder / "proxy", store=Store(session_store)).folder

    return make_once("soft", make)


def soft_labels_of(proxy: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(proxyds.read_tables(proxy).data["soft_label"].to_pylist())


def test_they_are_what_the_heaviest_probe_makes_of_an_image_and_its_mirror_image(
    soft_proxy: Path, session_store: Path
) -> None:
    manifest = proxyds.read_manifest(soft_proxy)
    (entry,) = [
        each
        for each in Store(session_store).entries()
        if each.name == f"probe {manifest.heaviest.name}" and _has_accuracy(each.folder, manifest.heaviest.losses)
    ]
    network = load_network(entry.folder / "weights.safetensors", "resnet", manifest.heaviest.parameters)
    images = proxyds.torch_dataset(soft_proxy).tensors[0] * 255
    with torch.no_grad():
        expected = (network(images).softmax(1) + network(images.flip(3)).softmax(1)) / 2
    assert soft_labels_of(soft_proxy) == pytest.approx(expected.numpy(), abs=1e-5)
    assert 0.2 < expected.max(1).values.mean() < 0.999


def _has_accuracy(folder: Path, losses: tuple[float, ...]) -> bool:
    return tuple(json.loads((folder / "training.json").read_text())["losses"]) == losses


def test_every_reader_finds_them(soft_proxy: Path, tmp_path: Path) -> None:
    expected, tables = soft_labels_of(soft_proxy), proxyds.read_tables(soft_proxy)
    loaded = datasets.load_dataset(str(soft_proxy), cache_dir=str(tmp_path / "hf"))
    assert np.array(loaded["train"]["soft_label"]) == pytest.approx(expected)
    assert loaded["validation"]["soft_label"][:] == [None] * len(loaded["validation"])
    assert tables.validation is not None
    assert tables.validation.schema == tables.data.schema
    images, learned = proxyds.torch_dataset(soft_proxy, soft_labels=True).tensors
    assert learned.numpy() == pytest.approx(expected)
    assert torch.isfinite(F.cross_entropy(torch.zeros(len(images), 10), learned))
    opened = proxyds.open(soft_proxy)
    assert torch.equal(opened.torch(soft_labels=True).tensors[1], learned)
    assert opened.train.features == loaded["train"].features
    audit_proxy(soft_proxy)
    assert "soft_label" in (soft_proxy / "README.md").read_text()


def test_the_reference_reader_of_croissant_finds_them_and_none_in_validation(soft_proxy: Path) -> None:
    loaded = load_croissant(soft_proxy / CROISSANT)
    assert (loaded["errors"], loaded["warnings"]) == ([], [])
    found = np.array([row["soft_label"] for row in loaded["records"]["train"]])
    assert np.array_equal(found, soft_labels_of(soft_proxy))
    assert not any(row["soft_label"] for row in loaded["records"]["validation"])


def test_who_asks_for_what_is_not_there_is_told(soft_proxy: Path, tiny_proxy: Path) -> None:
    with pytest.raises(ArgumentError, match=r"training\.soft_labels"):
        proxyds.torch_dataset(tiny_proxy, soft_labels=True)
    with pytest.raises(ArgumentError, match="train"):
        proxyds.torch_dataset(soft_proxy, "validation", soft_labels=True)


def test_a_build_tells_what_asking_took_whether_the_store_has_it_or_not(
    soft_proxy: Path, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    again = proxyds.build(write_recipe_file(RECIPE), tmp_path / "again")
    flops = [
        {each.stage: each.flops for each in manifest.stages}
        for manifest in (again.manifest, proxyds.read_manifest(soft_proxy))
    ]
    assert flops[0] == flops[1]
    assert flops[0]["soft labels"]
    assert next(each for each in again.manifest.stages if each.stage == "soft labels").was_stored


def test_probes_learn_labels_whatever_the_recipe_asks_for(
    soft_proxy: Path, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    assert proxyds.read_manifest(soft_proxy).has_soft_labels
    built = proxyds.build(write_recipe_file(RECIPE.replace("soft_labels: true", "soft_labels: false")), tmp_path / "p")
    assert next(each for each in built.manifest.stages if each.stage == "probes").was_stored
    assert not built.manifest.has_soft_labels
    assert "soft_label" not in built.folder.joinpath("README.md").read_text()


def list_runs(proxy: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, trainer: object = None) -> list[Run]:
    """Lists the trainings of a check, and trains none of them."""
    listed: list[Run] = []

    def stop(*arguments: Any, **named: Any) -> list[Run]:
        listed.extend(real(*arguments, **named))
        raise KeyboardInterrupt

    real = check_module.list_check_runs
    monkeypatch.setattr(check_module, "list_check_runs", stop)
    with pytest.raises(KeyboardInterrupt):
        proxyds.check(proxy, overrides=["check={draws: 1, full_seeds: 1}", *overrides], trainer=trainer)
    return listed


def test_all_that_is_trained_on_parts_learns_them_and_all_on_everything_labels(
    eight_soft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = {
        run.training_set.dataset: run.job.train.read_targets() for run in list_runs(eight_soft, monkeypatch) if run.job
    }
    assert {name for name, targets in learned.items() if targets.ndim == 1} == {FULL}
    assert {FULL, PROXY, "random", "stratified", FEWER_EPOCHS} == set(learned)
    assert learned[PROXY] == pytest.approx(soft_labels_of(eight_soft), rel=1e-4, abs=1e-7)
    assert {len(targets) for name, targets in learned.items() if name in (FULL, FEWER_EPOCHS)} == {1295}


def build_eight(recipe: str, folder: Path, store: Path) -> Path:
    """Builds a proxy of eight architectures."""
    (folder / "recipe.yaml").write_text(recipe.replace("depth: 8", "depth: [8, 14]"), encoding="utf-8")
    return proxyds.build(folder / "recipe.yaml", folder / "proxy", store=Store(store)).folder


@pytest.fixture(scope="session")
def eight_soft(make_once: Callable[..., Path], session_store: Path) -> Path:
    """A proxy of eight architectures with soft labels. Do not change it: copy it."""
    return make_once("eight-soft", lambda folder: build_eight(RECIPE, folder, session_store))


def test_of_some_labels_they_are_shares_of_what_is_kept(
    soft_proxy: Path, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    recipe = proxyds.read_recipe(write_recipe_file(RECIPE), ["selection.labels={keep: 4}", "selection.ratio=0.05"])
    built = proxyds.build(recipe, tmp_path / "some")
    kept, ids = list(built.manifest.kept_labels or ()), proxyds.read_tables(built.folder).data["sample_id"].to_pylist()
    of_all = dict(
        zip(proxyds.read_tables(soft_proxy).data["sample_id"].to_pylist(), soft_labels_of(soft_proxy), strict=True)
    )
    found = {name: row for name, row in zip(ids, soft_labels_of(built.folder), strict=True) if name in of_all}
    assert len(kept) == 4
    assert len(found) > 5
    for name, row in found.items():
        assert row == pytest.approx(of_all[name][kept] / of_all[name][kept].sum(), rel=1e-3, abs=1e-6)
    audit_proxy(built.folder)


def test_streamed_they_are_the_same_bytes(
    soft_proxy: Path, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    streamed = proxyds.build(
        write_recipe_file(RECIPE), tmp_path / "streamed", streamed=True, store=Store(tmp_path / "store")
    )
    files = read_tree(streamed.folder)
    assert {
        name: files[name] == content
        for name, content in read_tree(soft_proxy).items()
        if name.startswith(("data", "webdataset"))
    } == {name: True for name in files if name.startswith(("data", "webdataset"))}


def test_other_samples_are_not_drawn_without_them_and_an_index_says_that_it_has_none(
    soft_proxy: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"training\.soft_labels"):
        proxyds.resample(soft_proxy, tmp_path / "drawn", overrides=["version=1.1.0", "selection.seed=3"])
    assert not (tmp_path / "drawn").exists()
    proxyds.index(soft_proxy, tmp_path / "index")
    made = proxyds.apply(tmp_path / "index", tmp_path / "made")
    assert not made.manifest.has_soft_labels
    assert "soft_label" not in proxyds.read_tables(made.folder).data.column_names
    assert "an index does not list" in (made.folder / "README.md").read_text()
    audit_proxy(made.folder)


def swap(values: list[float | None] | None, number: int = 0) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: [values if i == number else row for i, row in enumerate(rows)]


HOSTILE: dict[str, Callable[[list[Any]], list[Any]]] = {
    "one too few": swap([0.5, 0.5]),
    "one too many": swap([1.0, *[0.0] * 10]),
    "more than all": swap([0.9, 0.9, *[0.0] * 8]),
    "less than nothing": swap([2.0, -1.0, *[0.0] * 8], 3),
    "no number": swap([float("nan"), *[0.1] * 9]),
    "none among them": swap([None, *[1 / 9] * 9]),
    "none at all": swap(None),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_one_is_refused_by_its_column(
    change: Callable[[list[Any]], list[Any]], soft_proxy: Path, tmp_path: Path
) -> None:
    proxy = Proxy(soft_proxy)
    for name in [each for each in proxy.files if each.startswith("data/train-")]:
        table = proxy.table(name)
        column = pa.array(change(table["soft_label"].to_pylist()), table.schema.field("soft_label").type)
        place = table.column_names.index("soft_label")
        proxy.set_table(name, table.set_column(place, table.schema.field("soft_label"), column))
    proxy.sign()
    with pytest.raises(ArtifactError, match="soft_label"):
        audit_proxy(proxy.write(tmp_path / "p"))


def test_a_proxy_that_lacks_the_column_it_promises_is_refused(soft_proxy: Path, tmp_path: Path) -> None:
    proxy = Proxy(soft_proxy)
    for name in [each for each in proxy.files if each.startswith("data/")]:
        proxy.set_table(name, proxy.table(name).drop_columns(["soft_label"]))
    proxy.sign()
    with pytest.raises(ArtifactError, match="soft_label"):
        audit_proxy(proxy.write(tmp_path / "p"))


def test_a_recipe_that_says_otherwise_than_the_manifest_is_refused(soft_proxy: Path, tmp_path: Path) -> None:
    proxy = Proxy(soft_proxy)
    proxy.files["recipe.yaml"] = proxy.files["recipe.yaml"].replace(b"soft_labels: true", b"soft_labels: false")
    proxy.sign()
    with pytest.raises(ArtifactError, match="soft_labels"):
        audit_proxy(proxy.write(tmp_path / "p"))


@pytest.mark.parametrize(
    ("recipe", "manifest"),
    [(b"  soft_labels: true\n", True), (b"", False)],
    ids=["left out of the recipe", "of the manifest"],
)
def test_a_recipe_and_a_manifest_of_which_one_is_silent_are_refused(
    recipe: bytes, manifest: bool, soft_proxy: Path, tmp_path: Path
) -> None:
    proxy = Proxy(soft_proxy)
    assert proxy.files["recipe.yaml"].count(b"  soft_labels: true\n") == 1
    proxy.files["recipe.yaml"] = (
        proxy.files["recipe.yaml"].replace(recipe, b"") if recipe else proxy.files["recipe.yaml"]
    )
    training = {name: value for name, value in proxy.manifest["training"].items() if name != "soft_labels"}
    proxy.set("training", value=training | ({"soft_labels": True} if manifest else {}))
    if not manifest:  # as proxies without soft labels are
        for name in [each for each in proxy.files if each.startswith("data/")]:
            proxy.set_table(name, proxy.table(name).drop_columns(["soft_label"]))
    proxy.sign()
    with pytest.raises(ArtifactError, match="soft_labels"):
        audit_proxy(proxy.write(tmp_path / "p"))


@pytest.mark.parametrize(
    "more",
    ["full_training: {batch_size: 64}", "controls: [k-center]", "architectures: 5"],
    ids=["other batches", "controls", "few"],
)
def test_a_dry_run_says_what_a_check_would_train(
    more: str, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    text = RECIPE.replace("depth: 8", "depth: [8, 14]") + f"check: {{draws: 1, full_seeds: 1, {more}}}\n"
    plan = proxyds.plan_build(write_recipe_file(text))
    assert plan.check is not None
    assert {each.dataset for each in plan.check.runs} >= {FULL, PROXY, FEWER_EPOCHS}
    assert all((each.expected_seconds or 0) > 0 for each in plan.check.runs if each.n_stored < each.n_runs)


def test_several_trainings_of_the_probes_leave_them_those_of_the_first(
    soft_proxy: Path, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    several = proxyds.build(write_recipe_file(RECIPE + "probes: {seeds: 2}\n"), tmp_path / "p")
    expected = dict(
        zip(proxyds.read_tables(soft_proxy).data["sample_id"].to_pylist(), soft_labels_of(soft_proxy), strict=True)
    )
    rows = zip(
        proxyds.read_tables(several.folder).data["sample_id"].to_pylist(), soft_labels_of(several.folder), strict=True
    )
    shared = [(row, expected[name]) for name, row in rows if name in expected]
    assert len(shared) > 5
    assert all((row == of_one).all() for row, of_one in shared)


def test_they_are_read_from_several_files_in_the_order_of_the_samples(tmp_path: Path) -> None:
    log_p = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 10)).astype(np.float32)
    for number, (first, after) in enumerate(((0, 4), (4, 8), (8, 10))):
        np.save(tmp_path / f"{number}.npy", log_p[first:after])
    files = tuple(SimpleNamespace(path=tmp_path / f"{number}.npy") for number in range(3))
    whole = SoftLabels(files, (0, 4, 8), np.arange(10), "of ten")
    assert whole.read() == pytest.approx(np.exp(log_p))
    some = whole.take(np.array([1, 3, 4, 9]))
    assert some.read() == pytest.approx(np.exp(log_p[[1, 3, 4, 9]]))
    assert some.take(np.array([False, False, True, True])).read() == pytest.approx(np.exp(log_p[[4, 9]]))
    two = replace(some, kept=np.array([0, 3])).read()
    assert two == pytest.approx(
        np.exp(log_p[[1, 3, 4, 9]])[:, [0, 3]] / np.exp(log_p[[1, 3, 4, 9]])[:, [0, 3]].sum(1)[:, None]
    )
    assert whole.take(np.zeros(0, np.int64)).read().size == 0


def test_the_draw_that_is_the_proxy_learns_what_the_proxy_says(
    eight_soft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(eight_soft)
    for name in [each for each in proxy.files if each.startswith("data/train-")]:
        table = proxy.table(name)
        turned = [row[1:] + row[:1] for row in table["soft_label"].to_pylist()]
        field = table.schema.field("soft_label")
        column = pa.array(turned, field.type)
        proxy.set_table(name, table.set_column(table.column_names.index("soft_label"), field, column))
    proxy.sign()
    learned = {
        (run.training_set.dataset, run.training_set.draw_seed): run.job.train.read_targets()
        for run in list_runs(proxy.write(tmp_path / "p"), monkeypatch, "check.draws=2")
        if run.job
    }
    own, expected = learned[PROXY, 0], soft_labels_of(eight_soft)
    assert own == pytest.approx(np.roll(expected, -1, axis=1), rel=1e-4, abs=1e-7)
    assert learned[PROXY, 1].argmax(1).tolist() != learned[PROXY, 0].argmax(1).tolist()


def test_a_check_by_a_trainer_learns_labels(eight_soft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = list_runs(eight_soft, monkeypatch, trainer=train_nothing)
    assert runs
    assert {run.job.train.read_targets().ndim for run in runs if run.job} == {1}


def train_nothing(network: Any, train: Any, *, seed: int, device: str) -> Any:
    return network


def _rank_by_loss(checked: Path) -> None:
    """Ranks a check's own networks by what they reached on the split `validation`, whose losses count once all are given."""
    runs = proxyds.open(checked).runs
    first = runs[(runs["dataset"] == "proxy") & (runs["draw_seed"] == 0)]
    assert (first["evaluation_loss"] > 0).all()
    results = [
        {"architecture": f"like {row.architecture}", "accuracy": row.evaluation_accuracy, "loss": row.evaluation_loss}
        for row in first.itertuples()
    ]
    ranking = proxyds.rank(checked, results)
    assert ranking.uses_loss
    assert "by loss" in str(ranking)
    without = proxyds.rank(checked, [*results[:-1], {**results[-1], "loss": None}])
    assert not without.uses_loss
    assert any("loss" in note for note in without.notes)
    too_large = proxyds.rank(checked, [{**each, "loss": 1e3 * each["loss"]} for each in results])
    assert [each.name for each in too_large.candidates] == [each.name for each in without.candidates]
    assert any("nats" in note for note in too_large.notes)


@pytest.mark.parametrize(
    ("has_soft_labels", "unit", "doubt"),
    [(True, 1, ""), (True, 10, "nats"), (True, None, "give no loss"), (False, 1, "loss does not count")],
)
def test_losses_of_runs_made_elsewhere_count_where_the_proxy_has_soft_labels(
    has_soft_labels: bool, unit: int | None, doubt: str, tmp_path: Path, session_store: Path
) -> None:
    proxy = build_eight(RECIPE if has_soft_labels else TINY_RECIPE, tmp_path, session_store)
    names = [each.name for each in list_architectures(proxyds.open(proxy).recipe.space, 10, (1, 8, 8))]
    n, lines = len(names), ["architecture,dataset,draw_seed,training_seed,accuracy,loss"]
    for i, name in enumerate(names):
        lines += [f"{name},full,,{seed},{0.9 - 0.01 * i}," for seed in (0, 1)]
        for dataset, place in (("proxy", i), ("random", n - i), ("fewer-epochs", n - i)):
            loss = "" if unit is None else unit * place
            lines += [f"{name},{dataset},{seed},{seed},{0.5 + 0.01 * i},{loss}" for seed in (0, 1)]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    warnings: list[str] = []
    checked = proxyds.check(
        proxy,
        runs=tmp_path / "runs.csv",
        on_progress=lambda step: (
            warnings.append(step.warning) if isinstance(step, StageEnded) and step.warning else None
        ),
    )
    evidence = checked.manifest.evidence
    assert evidence is not None
    is_by_loss = has_soft_labels and unit is not None
    assert evidence.ranked_by == ("loss" if is_by_loss else "accuracy")
    assert evidence.own_tau.value == (1 if is_by_loss else -1)
    assert [doubt in each for each in warnings] == ([True] if doubt else [])
    audit_proxy(checked.folder)


def test_candidates_of_a_proxy_without_a_check_stand_in_the_order_of_their_losses(eight_soft: Path) -> None:
    results = [
        {"architecture": name, "accuracy": accuracy, "loss": loss}
        for name, accuracy, loss in (("x", 0.6, 2.0), ("y", 0.5, 1.0))
    ]
    ranking = proxyds.rank(eight_soft, results)
    assert [each.name for each in ranking.candidates] == ["y", "x"]
    assert [each.loss for each in ranking.candidates] == [1, 2]
    assert "order only, by loss" in str(ranking)
    without = proxyds.rank(eight_soft, [results[0], {**results[1], "loss": None}])
    assert [each.name for each in without.candidates] == ["x", "y"]
    assert "order only, by accuracy" in str(without)


@pytest.mark.e2e
def test_a_check_finds_the_probe_of_the_build_and_prices_it_for_every_way_to_search(
    eight_soft: Path, tmp_path: Path
) -> None:
    shutil.copytree(eight_soft, tmp_path / "p")
    store = copy_store(Path(os.environ["PROXYDS_STORE"]), tmp_path / "store")
    plan = proxyds.plan_check(tmp_path / "p", overrides=["check={draws: 2, full_seeds: 2}"], store=store)
    assert all(probe.is_stored for probe in plan.probes)
    ended: list[str] = []
    checked = proxyds.check(
        tmp_path / "p",
        overrides=["check={draws: 2, full_seeds: 2}"],
        store=store,
        on_progress=lambda step: ended.append(step.stage) if isinstance(step, StageEnded) else None,
    )
    assert "probes" not in ended  # the store has them
    evidence = checked.manifest.evidence
    assert evidence is not None
    assert not evidence.failures
    stages = {each.stage: each.flops for each in checked.manifest.stages}
    teaching = (checked.manifest.heaviest.training_flops or 0) + (stages["soft labels"] or 0)
    runs = proxyds.open(checked.folder).runs
    trained = runs[runs["dataset"] == "random"].groupby("architecture")["run_flops"].mean().sum()
    full = runs[runs["dataset"] == FULL].groupby("architecture")["run_flops"].mean().max()
    (random,) = [
        each.flops
        for each in evidence.searches
        if (each.method, each.ranked_by, each.n_finalists) == ("random", "loss", 1)
    ]
    assert teaching > 0
    assert random == pytest.approx(teaching + trained + full, rel=0.3)  # the finalist need not be the dearest
    assert random > teaching + trained
    audit_proxy(checked.folder)
    _rank_by_loss(checked.folder)
    again = proxyds.plan_check(checked.folder, overrides=["check.controls=[easiest]"], store=store)
    assert all(each.n_stored == each.n_runs for each in again.runs if each.dataset != "easiest")
    assert sum(each.n_stored for each in again.runs if each.dataset == "easiest") == 0
