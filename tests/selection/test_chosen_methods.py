"""Selection methods in a recipe: what a proxy is drawn by, and what a check compares it with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import proxyds
from proxyds.artifact.reader import measure_file, read_manifest, verify_proxy
from proxyds.artifact.tables import WEIGHT, read_tables, read_weights
from proxyds.errors import ArtifactError, RecipeError, StarvedLabelError
from proxyds.pipeline.audit import audit_proxy
from proxyds.recipe.methods import METHODS
from proxyds.runtime.storage.store import Store
from tests.artifact.hostile import make_former
from tests.conftest import Run, copy_store

pytestmark = pytest.mark.e2e

RECIPE = """\
name: chosen
source: {kind: digits}
space:
  network: resnet
  choices: {depth: 8, base_filters: [4, 6, 8], multiplier: [1, 2]}
probes: {seeds: 3}
selection: {ratio: 0.1}
training: {epochs: 4, batch_size: 32, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
"""
STARVING = "el2n"
"""Some digits are learnt so soon that their errors are never among the largest."""
BUILT = [method for method in METHODS if method != STARVING]
WEIGHING = [name for name, method in METHODS.items() if method.is_weighting]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def proxies(recipe: Path, tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> dict[str, Path]:
    """A proxy by each method; answers are asked for once."""
    folder, built = tmp_path_factory.mktemp("chosen"), {}
    for method in BUILT:
        read = proxyds.read_recipe(recipe, [f"selection.method={method}"])
        built[method] = proxyds.build(read, folder / method, store=Store(session_store), device="cpu").folder
    return built


def test_a_method_that_leaves_a_label_without_samples_is_told_so(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StarvedLabelError, match=r"every label must have a sample in the proxy, '[0-9]' and [0-9] more have none"
    ):
        proxyds.build(proxyds.read_recipe(recipe, [f"selection.method={STARVING}"]), tmp_path / "no", device="cpu")


@pytest.mark.parametrize("method", BUILT)
def test_a_proxy_by_every_method_is_whole_and_says_so(method: str, proxies: dict[str, Path], run_proxyds: Run) -> None:
    manifest = verify_proxy(proxies[method])
    audit_proxy(proxies[method])
    tables = read_tables(proxies[method])
    assert manifest.draw.method == method
    assert manifest.counts.proxy == tables.data.num_rows == 130
    importance = tables.importance
    assert (WEIGHT in importance.column_names) == (method != "cases")
    assert importance["keep_probability"].to_numpy().sum() == pytest.approx(1)
    assert importance["inclusion_probability"].to_numpy().sum() == pytest.approx(130)
    drawn = np.array(importance["selected"].to_pylist())
    assert (read_weights(importance)[drawn] > 0).all()
    assert (importance["inclusion_probability"].to_numpy()[drawn] > 0).all()
    card = (proxies[method] / "README.md").read_text()
    assert f"method `{method}`" in card
    if method != "cases":
        assert METHODS[method].summary in card
    assert ("by accuracy: by their loss" in card) == (method in ("easier", "easiest"))
    assert f"by {method}, drawn" in run_proxyds("inspect", proxies[method]).stdout


def test_methods_choose_different_samples_by_the_same_cases(proxies: dict[str, Path]) -> None:
    tables = {method: read_tables(proxy) for method, proxy in proxies.items()}
    chosen = {frozenset(each.data["sample_id"].to_pylist()) for each in tables.values()}
    assert len(chosen) == len(BUILT)
    for each in tables.values():
        assert each.importance["importance"].equals(tables["cases"].importance["importance"])


def test_asking_a_probe_changes_nothing_of_its_training(proxies: dict[str, Path]) -> None:
    asked, not_asked = (read_manifest(proxies[method]) for method in ("easiest", "cases"))
    assert [each.losses for each in asked.probes] == [each.losses for each in not_asked.probes]
    flops = [{each.stage: each.flops for each in manifest.stages}["probes"] for manifest in (asked, not_asked)]
    n_asked, heaviest = asked.counts.train, asked.probes[-1]
    assert flops[0] - flops[1] == 3 * 4 * n_asked * heaviest.forward_flops


def test_a_check_compares_with_the_methods_that_are_asked_for(
    recipe: Path, tmp_path: Path, session_store: Path, run_proxyds: Run
) -> None:
    check = "check={draws: 1, full_seeds: 2, architectures: 5, controls: [easiest, herding, entropy-tails]}"
    read = proxyds.read_recipe(recipe, ["selection.method=cases-stratified", check])
    plan = proxyds.plan_build(read, store=Store(session_store), device="cpu")
    assert plan.check is not None
    planned = {each.dataset: each.n_runs for each in plan.check.runs}
    built = proxyds.build(read, tmp_path / "proxy", store=Store(session_store), device="cpu")
    audit_proxy(built.folder)
    ranking = read_tables(built.folder, with_ranking=True).ranking
    assert ranking is not None
    told = {name: ranking["dataset"].to_pylist().count(name) for name in dict.fromkeys(ranking["dataset"].to_pylist())}
    assert told == planned == {
        "full": 10,
        **dict.fromkeys(("proxy", "random", "stratified"), 5),
        **dict.fromkeys(("easiest", "entropy-tails", "herding", "fewer-epochs"), 5),
    }  # fmt: skip
    assert list(told) == [
        "full",
        "proxy",
        "random",
        "stratified",
        "easiest",
        "entropy-tails",
        "herding",
        "fewer-epochs",
    ]
    evidence = built.manifest.evidence
    assert evidence is not None
    assert {"easiest", "herding", "entropy-tails"} <= {each.control for each in evidence.comparisons}
    assert "herding" in (built.folder / "README.md").read_text()

    # later, without what the store held of probes: they are trained again, what was run is not
    empty = tmp_path / "store"
    copy_store(session_store, empty, lambda entry: entry.stage in ("probes", "features", "similarity"))
    again = run_proxyds("check", built.folder, "--set", "check.controls=[easiest, moderate]", PROXYDS_STORE=str(empty))
    assert again.returncode == 0, again.stderr
    runs = read_tables(built.folder, with_ranking=True).ranking
    assert runs is not None
    assert set(runs["dataset"].to_pylist()) == {"full", "proxy", "random", "stratified", "easiest", "moderate", "fewer-epochs"}  # fmt: skip
    of_easiest = [
        [row["accuracy"] for row in table.to_pylist() if row["dataset"] == "easiest"] for table in (ranking, runs)
    ]
    assert of_easiest[0] == of_easiest[1]


def test_another_draw_of_a_proxy_is_by_its_own_method(recipe: Path, tmp_path: Path, session_store: Path) -> None:
    """The easiest samples are the same in every draw, and so are the runs' samples."""
    read = proxyds.read_recipe(recipe, ["selection.method=easiest", "check={draws: 2, full_seeds: 2}"])
    proxyds.build(read, tmp_path / "proxy", store=Store(session_store), device="cpu")
    with_proxy = read.model_copy(update={"check": read.check.model_copy(update={"controls": ("easiest",)})})  # type: ignore[union-attr]
    other = proxyds.build(with_proxy, tmp_path / "other", store=Store(session_store), device="cpu")
    ranking = read_tables(other.folder, with_ranking=True).ranking
    assert ranking is not None
    by = {
        name: [row["accuracy"] for row in ranking.to_pylist() if row["dataset"] == name]
        for name in ("proxy", "easiest")
    }
    assert by["proxy"] == by["easiest"]


@pytest.mark.parametrize("method", WEIGHING)
def test_another_size_needs_no_probe_where_a_method_weighs(
    method: str, proxies: dict[str, Path], recipe: Path, tmp_path: Path, session_store: Path
) -> None:
    resampled = proxyds.resample(
        proxies[method], tmp_path / "resampled", overrides=["selection.ratio=0.2"], store=Store(session_store)
    )
    read = proxyds.read_recipe(recipe, [f"selection.method={method}", "selection.ratio=0.2"])
    built = proxyds.build(read, tmp_path / "built", store=Store(session_store), device="cpu")
    audit_proxy(resampled.folder)
    for name in ("data/train-00000-of-00004.parquet", "importance/train-00000-of-00001.parquet"):
        assert (resampled.folder / name).read_bytes() == (built.folder / name).read_bytes()


def test_methods_that_tables_are_enough_for_can_be_drawn_from_any_proxy(
    proxies: dict[str, Path], tmp_path: Path, session_store: Path
) -> None:
    out, store = tmp_path / "stratified", Store(session_store)
    resampled = proxyds.resample(proxies["k-center"], out, overrides=["selection.method=cases-stratified"], store=store)
    audit_proxy(resampled.folder)
    built = read_tables(proxies["cases-stratified"])
    assert read_tables(resampled.folder).data["sample_id"].equals(built.data["sample_id"])
    with pytest.raises(
        RecipeError, match=r"the method easiest must ask the probes anew.* random, stratified, cases, cases-stratified"
    ):
        proxyds.resample(proxies["cases"], tmp_path / "no", overrides=["selection.method=easiest"], store=store)
    with pytest.raises(RecipeError, match="the method ccs must ask the probes anew"):
        proxyds.resample(proxies["ccs"], tmp_path / "no", overrides=["selection.ratio=0.2"], store=store)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["selection.method=esiest"], r"selection.method: must be a selection method, got .*`easiest`"),
        (["selection.method=el2n", "probes.seeds=2"], "selection.method: el2n averages scores over at least 3 trainings .* probes.seeds is 2; set probes.seeds: 3"),
        (["check.controls=[random, forgetting]", "probes.seeds=1"], "check.controls: forgetting averages scores .* probes.seeds is 1"),
        (["selection.method=ccs", "selection.labels.keep=5"], "selection.labels: must be left out with the method ccs, .* possible: random, cases, [a-z0-9, -]*$"),
        (["check.controls=[herding, herding]"], "check.controls: must hold each choice once"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_trained(recipe: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        proxyds.read_recipe(recipe, overrides)


def test_labels_are_kept_by_importance_whatever_the_method(recipe: Path, tmp_path: Path, session_store: Path) -> None:
    read = proxyds.read_recipe(
        recipe,
        [
            "selection.method=easier",
            "selection.labels={keep: 5, order: labels-first, choice: top}",
            "check={draws: 1, full_seeds: 1, architectures: 5, controls: [easiest]}",
        ],
    )
    built = proxyds.build(read, tmp_path / "proxy", store=Store(session_store), device="cpu")
    audit_proxy(built.folder)
    table = read_tables(built.folder).importance
    of_label = np.bincount(table["label"].to_numpy(), table["importance"].to_numpy())
    assert list(built.manifest.kept_labels) == sorted(np.argsort(-of_label)[:5])
    assert "those with the largest importance in sum" in (built.folder / "README.md").read_text()
    ranking = read_tables(built.folder, with_ranking=True).ranking
    assert ranking is not None
    of_easiest = [row for row in ranking.to_pylist() if row["dataset"] == "easiest"]
    assert {row["n_labels"] for row in of_easiest} == {5}
    assert {row["n_samples"] for row in of_easiest} == {130}


def change_weights(proxy: Path, out: Path, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Path:
    """A copy whose column `weight` says something else, from weights and what is selected; all else as it was."""
    folder = Path(shutil.copytree(proxy, out))
    table = read_tables(folder).importance
    selected = np.array(table["selected"].to_pylist())
    weights = change(table[WEIGHT].to_numpy().copy(), selected)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, values in (("importance", weights), ("data", weights[selected])):
        for path in sorted((folder / name).glob("train-*.parquet")):
            held = pq.read_table(path)
            own, values = values[: held.num_rows], values[held.num_rows :]
            held = held.set_column(held.column_names.index(WEIGHT), WEIGHT, [own])
            pq.write_table(held.replace_schema_metadata(pq.read_schema(path).metadata), path)
            manifest["files"][path.relative_to(folder).as_posix()] = measure_file(path).model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_weight_that_the_method_does_not_give_is_refused(proxies: dict[str, Path], tmp_path: Path) -> None:
    folder = change_weights(proxies["cases-stratified"], tmp_path / "copy", lambda weights, _: weights * 2)
    with pytest.raises(ArtifactError, match="importance/: weight must be what the answers in evaluation/ give"):
        audit_proxy(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights, _: weights + 1e308,
        lambda weights, _: weights * 0 + 5e-324,
        lambda weights, selected: np.where(selected, 0.0, weights),
        lambda weights, _: -weights,
        lambda weights, _: weights * np.nan,
    ],
    ids=["huge", "tiny", "none-of-what-is-drawn", "negative", "not-a-number"],
)
def test_weights_that_nothing_can_be_drawn_by_are_refused(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray], proxies: dict[str, Path], tmp_path: Path
) -> None:
    folder = change_weights(proxies["easiest"], tmp_path / "copy", change)
    with pytest.raises(ArtifactError, match="column weight of importance"):
        audit_proxy(folder)


def test_a_proxy_by_a_method_of_a_later_version_is_read(
    proxies: dict[str, Path], tmp_path: Path, run_proxyds: Run
) -> None:
    folder = Path(shutil.copytree(proxies["easiest"], tmp_path / "later"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["draw"]["method"] = "telepathy"
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("method: easiest", "method: telepathy"))
    manifest["files"]["recipe.yaml"] = measure_file(recipe).model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    verify_proxy(folder)
    audit_proxy(folder)
    assert read_tables(folder).data.num_rows == 130
    assert "by telepathy, drawn" in run_proxyds("inspect", folder).stdout


def test_a_proxy_from_before_there_were_methods_is_checked_and_drawn_again(
    proxies: dict[str, Path], tmp_path: Path, session_store: Path
) -> None:
    folder = Path(shutil.copytree(proxies["cases"], tmp_path / "earlier"))
    manifest = make_former(folder, "1.4")
    del manifest["draw"]["method"]
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  method: cases\n", ""))
    assert "method" not in recipe.read_text()
    manifest["files"]["recipe.yaml"] = measure_file(recipe).model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    proxyds.render(folder)
    audit_proxy(folder)
    store = Store(session_store)
    assert proxyds.read_recipe(recipe).selection.method == "cases"
    resampled = proxyds.resample(folder, tmp_path / "more", overrides=["selection.ratio=0.2"], store=store)
    assert resampled.manifest.draw.method == "cases"


def test_a_check_trains_probes_only_where_tables_are_not_enough_and_its_plan_says_so(
    proxies: dict[str, Path], tmp_path: Path, run_proxyds: Run
) -> None:
    planned, store = {}, Store(tmp_path / "store")
    for name, overrides in {
        "entropy-tails": [],
        "easiest": [],
        "easiest, once": ["check.draws=1"],
        "cases": ["check.controls=[cases-stratified]"],
        "cases and easiest": ["check.controls=[easiest]"],
    }.items():
        folder = proxies[name.split(",")[0].split(" ")[0]]
        planned[name] = len(proxyds.plan_check(folder, overrides=overrides, store=store, device="cpu").probes)
    assert planned == {"entropy-tails": 0, "easiest": 6, "easiest, once": 0, "cases": 0, "cases and easiest": 6}
    arguments = ("check", proxies["cases"], "--dry-run", "--set", "check.controls=[easiest]")
    told = run_proxyds(*arguments, PROXYDS_STORE=str(tmp_path / "empty")).stdout
    assert "probes to train" in told
    assert "easiest 0.1" in told
