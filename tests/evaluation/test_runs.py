"""The runs behind the evidence: which architectures, on what, from which seeds, and what becomes of a finished run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from proxyds.artifact.ranking_table import COLUMNS
from proxyds.data.samples import Origin, Samples
from proxyds.errors import DivergedError, EvidenceError
from proxyds.evaluation.runs import (
    STAGE,
    DrawAgain,
    Run,
    TrainingSet,
    all_ratios,
    list_runs,
    list_training_sets,
    sample_architectures,
    show_together,
    tabulate_runs,
    train_and_test,
)
from proxyds.progress import Progress, ignore_progress
from proxyds.recipe.models import Check, Training
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Done, run_each
from proxyds.seeding import derive_seed
from proxyds.selection.records import Drawn
from proxyds.space.architecture import Architecture
from proxyds.training.job import TrainingSetup
from proxyds.training.loop import count_steps, cut_batch, train_network
from proxyds.training.model import make_network

CPU = {"torch": "2", "device": "cpu x86_64"}
SMALL = {"depth": 8, "base_filters": 4, "kernel_size": 3, "multiplier": 1}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def architecture_of(cost: int, **parameters: int) -> Architecture:
    """An architecture that costs 3 * cost to train on an image; its name says its cost."""
    return Architecture(f"net {cost}", "resnet", {**SMALL, **parameters}, cost, 3 * cost, 10 * cost)


LIGHT, HEAVY = architecture_of(100), architecture_of(400, multiplier=2)


def settings_of(**changes: object) -> Training:
    small = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "crop_padding": 0, "horizontal_flip": False}
    return Training(**{**small, **changes})


SETUP = TrainingSetup(n_labels=2, image_shape=(1, 8, 8), settings=settings_of(), seed=0, device="cpu", arithmetic=CPU)


def blobs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brighter half tells the label, not so clearly that every network sees it in all."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    pixels = rng.integers(0, 200, (n, 1, 8, 8))
    pixels[labels == 1, :, :4] += 30
    pixels[labels == 0, :, 4:] += 30
    return pixels.astype(np.uint8), labels


@pytest.fixture
def make_samples(tmp_path: Path) -> Callable[..., Samples]:
    """Makes samples of `blobs`, their pixels in a file."""

    def make(n: int, seed: int = 0) -> Samples:
        pixels, labels = blobs(n, seed)
        ids = np.sort([hashlib.sha256(f"{seed} {i}".encode()).hexdigest() for i in range(n)])
        file = tmp_path / f"pixels-{seed}-{n}.npy"
        np.save(file, pixels)
        origin = Origin("train", (SimpleNamespace(path=file),), (0,), "L 8")
        return Samples(ids, labels, np.arange(n), ids, np.arange(n), origin)

    return make


@pytest.fixture
def train(make_samples: Callable[..., Samples]) -> Samples:
    return make_samples(64)


@pytest.fixture
def held_out(make_samples: Callable[..., Samples]) -> Samples:
    return make_samples(40, seed=1)


def draw_of(samples: Samples, law: str) -> DrawAgain:
    """Some draw that differs for each law, ratio and number."""

    def draw(ratio: float, number: int) -> np.ndarray:
        order = np.random.default_rng(derive_seed(0, law, str(ratio), number)).permutation(len(samples))
        return order < round(ratio * len(samples))

    return draw


def draws_of(samples: Samples) -> dict[str, DrawAgain]:
    def known(law: str) -> DrawAgain:
        return lambda ratio, number: Drawn(draw_of(samples, law)(ratio, number))

    return {law: known(law) for law in ("proxy", "random", "stratified")}


def not_known(ratio: float, number: int) -> None:
    """A draw whose importances are not there yet."""


def sets_of(
    train: Samples, own_ratio: float = 0.5, settings: Training | None = None, **check: Any
) -> list[TrainingSet]:
    return list_training_sets(train, draws_of(train), Check(**check), own_ratio, settings or settings_of())


def runs_of(
    sets: Sequence[TrainingSet],
    held_out: Samples,
    architectures: Sequence[Architecture] = (LIGHT, HEAVY),
    **changes: Any,
) -> list[Run]:
    return list_runs(architectures, sets, held_out, replace(SETUP, **changes))


def key_of(run: Run) -> str:
    assert run.task is not None
    return run.task.key


# Which architectures


@pytest.mark.parametrize("n", [5, 6, 100])
def test_every_architecture_is_taken_where_there_are_no_more_than_asked_for(n: int) -> None:
    few = [architecture_of(cost) for cost in range(1, 6)]
    assert sample_architectures(few, n, seed=3) == few


@pytest.mark.parametrize(("n_all", "n"), [(20, 5), (23, 7), (6, 5), (100, 99)])
@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_architectures_are_spread_over_cost_one_from_each_equal_part(n_all: int, n: int, seed: int) -> None:
    every = [architecture_of(cost) for cost in range(n_all)]
    taken = [each.forward_flops for each in sample_architectures(every, n, seed)]
    assert len(set(taken)) == len(taken) == n
    # the first n_all % n parts are one larger
    sizes = [n_all // n + (part < n_all % n) for part in range(n)]
    starts = np.cumsum([0, *sizes])
    assert all(starts[part] <= cost < starts[part + 1] for part, cost in enumerate(taken))


def test_more_architectures_than_can_be_compared_are_refused_before_any_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = [architecture_of(100 + i) for i in range(12)]
    monkeypatch.setattr("proxyds.evaluation.runs.MAX_RANKED", 8)
    assert len(sample_architectures(space, 8, 0)) == 8
    for n in (9, 20):
        with pytest.raises(EvidenceError, match="must be at most 8, the check would take"):
            sample_architectures(space, n, 0)


def test_the_same_seed_takes_the_same_architectures_and_another_others() -> None:
    every = [architecture_of(cost) for cost in range(60)]
    taken = [tuple(each.name for each in sample_architectures(every, 6, seed)) for seed in range(40)]
    assert taken == [tuple(each.name for each in sample_architectures(every, 6, seed)) for seed in range(40)]
    assert len(set(taken)) == 40
    assert {name for names in taken for name in names} > {f"net {cost}" for cost in (0, 1, 8, 9, 58, 59)}


# Training sets


def test_on_everything_other_settings_may_hold_and_nothing_else_changes(train: Samples, held_out: Samples) -> None:
    own = settings_of()
    in_full = {"epochs": 2 * own.epochs, "batch_size": own.batch_size // 2, "optimizer": "sgd"}
    plain, changed = (
        runs_of(sets_of(train, draws=1, full_seeds=1, **check), held_out) for check in ({}, {"full_training": in_full})
    )
    of = {(run.training_set.dataset, run.architecture.name): run for run in plain}
    for run in changed:
        before = of[run.training_set.dataset, run.architecture.name]
        assert (key_of(run) == key_of(before)) == (run.training_set.dataset != "full")
        if run.training_set.dataset == "full":
            assert run.job.settings == own.model_copy(update=in_full)
            assert run.training_set.n_steps == 4 * before.training_set.n_steps
            assert run.flops - before.flops == own.epochs * len(train) * run.architecture.training_flops


def test_everything_comes_first_then_each_ratio_from_the_smallest_with_its_controls(train: Samples) -> None:
    sets = sets_of(train, draws=2, full_seeds=3, ratios=(0.25,))
    found = [(each.dataset, each.ratio, each.draw_seed, each.training_seed, each.n_samples) for each in sets]
    assert found == [
        *(("full", 1.0, None, seed, 64) for seed in range(3)),
        *(
            of_draw
            for ratio, n in ((0.25, 16), (0.5, 32))
            for draw in range(2)
            for of_draw in (
                ("proxy", ratio, draw, draw, n),
                ("random", ratio, draw, draw, n),
                ("stratified", ratio, draw, draw, n),
                ("fewer-epochs", ratio, None, draw, 64),
            )
        ),
    ]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ({}, 3 + 3 * 4),
        ({"draws": 1, "full_seeds": 1}, 1 + 4),
        ({"draws": 5, "full_seeds": 2, "ratios": (0.25, 0.75)}, 2 + 3 * 5 * 4),
        ({"draws": 2, "reference": {"path": "known.csv"}}, 2 * 4),
    ],
)
def test_the_number_of_training_sets_is_what_the_check_asks_for(
    train: Samples, check: dict[str, object], expected: int
) -> None:
    assert len(sets_of(train, **check)) == expected


def test_nothing_is_trained_on_everything_where_a_reference_knows_it(train: Samples) -> None:
    sets = sets_of(train, reference={"path": "known.csv"}, full_seeds=3)
    assert {each.dataset for each in sets} == {"proxy", "random", "stratified", "fewer-epochs"}


def test_the_proxys_own_ratio_is_checked_once() -> None:
    assert all_ratios(Check(), 0.5) == [0.5]
    assert all_ratios(Check(ratios=(0.75, 0.5, 0.25)), 0.5) == [0.25, 0.5, 0.75]


def test_steps_are_as_many_epochs_of_what_is_trained_on(train: Samples) -> None:
    """64 samples are 4 batches of 16, 32 are 2, 16 are 1, and 8 are one of 8: three times each."""
    sets = sets_of(train, draws=1, full_seeds=1, ratios=(0.25, 0.125))
    steps = {(each.dataset, each.ratio): each.n_steps for each in sets}
    assert steps.pop(("full", 1.0)) == 12
    assert steps == {
        (dataset, ratio): n_steps
        for ratio, n_steps in ((0.5, 6), (0.25, 3), (0.125, 3))
        for dataset in ("proxy", "random", "stratified", "fewer-epochs")
    }


def test_fewer_epochs_trains_on_everything(train: Samples) -> None:
    fewer = [each for each in sets_of(train) if each.dataset == "fewer-epochs"]
    assert [each.training_seed for each in fewer] == [0, 1, 2]
    assert all(each.samples is train for each in fewer)


def test_a_training_set_holds_the_samples_that_were_drawn(train: Samples) -> None:
    for each in sets_of(train, ratios=(0.25,)):
        if each.dataset in ("proxy", "random", "stratified"):
            assert each.samples is not None
            mask = draw_of(train, each.dataset)(each.ratio, each.draw_seed or 0)
            assert each.samples.ids.tolist() == train.ids[mask].tolist()
            assert len(each.samples) == each.n_samples
            assert (each.samples.pixels() == train.pixels()[mask]).all()


def test_a_draw_that_is_not_known_yet_has_a_size_and_steps_all_the_same(train: Samples) -> None:
    draws = {**draws_of(train), "proxy": not_known}
    sets = list_training_sets(train, draws, Check(), 0.5, settings_of())
    known = sets_of(train)
    assert [each.samples is None for each in sets] == [each.dataset == "proxy" for each in known]
    assert [replace(each, samples=None) for each in sets] == [replace(each, samples=None) for each in known]


def test_training_sets_have_names_for_people(train: Samples) -> None:
    names = [each.name for each in sets_of(train, draws=2, full_seeds=2, ratios=(0.25,))]
    assert len(set(names)) == len(names)
    assert names[:2] == ["full, number 1", "full, number 2"]
    assert names[2:6] == [
        *("proxy 0.25, number 1", "random 0.25, number 1", "stratified 0.25, number 1", "fewer-epochs 0.25, number 1")
    ]
    assert names[-1] == "fewer-epochs 0.5, number 2"


# Runs


def test_every_architecture_is_trained_on_every_set_and_the_most_expensive_first(
    train: Samples, held_out: Samples
) -> None:
    sets = sets_of(train, ratios=(0.25,))
    runs = runs_of(sets, held_out)
    assert len(runs) == 2 * len(sets)
    assert {(run.architecture.name, run.training_set.name) for run in runs} == {
        (name, each.name) for name in ("net 100", "net 400") for each in sets
    }
    assert [run.flops for run in runs] == sorted((run.flops for run in runs), reverse=True)
    assert (runs[0].architecture, runs[0].training_set.dataset) == (HEAVY, "full")


def test_more_runs_than_the_table_holds_are_refused_before_any_is_made(
    train: Samples, held_out: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = sets_of(train, ratios=(0.25,))
    monkeypatch.setattr("proxyds.evaluation.runs.MAX_RANKING_ROWS", 2 * len(sets))
    assert len(runs_of(sets, held_out)) == 2 * len(sets)
    monkeypatch.setattr("proxyds.evaluation.runs.MAX_RANKING_ROWS", 2 * len(sets) - 1)
    with pytest.raises(EvidenceError, match=f"must have at most {2 * len(sets) - 1} runs, it has {2 * len(sets)}"):
        runs_of(sets, held_out)


def test_a_runs_flops_are_those_of_its_training_and_its_test(train: Samples, held_out: Samples) -> None:
    runs = {(run.architecture.name, run.training_set.name): run for run in runs_of(sets_of(train, 0.125), held_out)}
    full, fewer = runs["net 100", "full, number 1"], runs["net 400", "fewer-epochs 0.125, number 1"]
    proxy = runs["net 400", "proxy 0.125, number 1"]
    assert full.flops == 12 * 16 * 300 + 40 * 100
    assert fewer.flops == 3 * 16 * 1200 + 40 * 400
    assert proxy.flops == 3 * 8 * 1200 + 40 * 400  # a batch is the whole of its 8 samples


def test_runs_are_told_apart_by_name_and_by_key(train: Samples, held_out: Samples) -> None:
    tasks = [run.task for run in runs_of(sets_of(train, ratios=(0.25,), draws=3), held_out)]
    assert len({task.name for task in tasks if task}) == len({task.key for task in tasks if task}) == len(tasks)
    assert {task.stage for task in tasks if task} == {STAGE}
    assert "net 100 on random 0.25, number 2" in {task.name for task in tasks if task}


def test_a_run_whose_samples_are_not_known_has_a_cost_and_no_task(train: Samples, held_out: Samples) -> None:
    sets = list_training_sets(train, {**draws_of(train), "proxy": not_known}, Check(), 0.5, settings_of())
    runs = runs_of(sets, held_out)
    assert all((run.task is None) == (run.training_set.dataset == "proxy") for run in runs)
    assert all(run.flops > 0 for run in runs)


CHANGES: dict[str, Callable[[TrainingSet, Samples, Callable[..., Samples]], Run]] = {
    "seed": lambda each, held_out, make: runs_of([each], held_out, [LIGHT], seed=1)[0],
    "settings": lambda each, held_out, make: runs_of(
        [replace(each, settings=settings_of(learning_rate=0.1))], held_out, [LIGHT]
    )[0],
    "steps": lambda each, held_out, make: runs_of([replace(each, n_steps=each.n_steps + 1)], held_out, [LIGHT])[0],
    "draw": lambda each, held_out, make: runs_of([replace(each, training_seed=1)], held_out, [LIGHT])[0],
    "training samples": lambda each, held_out, make: runs_of([replace(each, samples=make(32, 5))], held_out, [LIGHT])[
        0
    ],
    "test samples": lambda each, held_out, make: runs_of([each], make(40, 6), [LIGHT])[0],
    "labels": lambda each, held_out, make: runs_of([each], held_out, [LIGHT], n_labels=3)[0],
    "image shape": lambda each, held_out, make: runs_of([each], held_out, [LIGHT], image_shape=(1, 9, 9))[0],
    "parameters": lambda each, held_out, make: runs_of([each], held_out, [replace(HEAVY, name=LIGHT.name)])[0],
    "family": lambda each, held_out, make: runs_of([each], held_out, [replace(LIGHT, network="efficientnet")])[0],
    "kind of device": lambda each, held_out, make: runs_of(
        [each], held_out, [LIGHT], arithmetic={**CPU, "device": "H100"}
    )[0],
    "torch": lambda each, held_out, make: runs_of([each], held_out, [LIGHT], arithmetic={**CPU, "torch": "3"})[0],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_another_where_anything_differs_that_its_result_depends_on(
    train: Samples, held_out: Samples, make_samples: Callable[..., Samples], change: str
) -> None:
    each = sets_of(train)[3]
    assert each.name == "proxy 0.5, number 1"
    (run,) = runs_of([each], held_out, [LIGHT])
    assert key_of(CHANGES[change](each, held_out, make_samples)) != key_of(run)


def test_a_run_is_the_same_whatever_it_is_called_and_wherever_it_is_done(
    train: Samples, held_out: Samples, tmp_path: Path
) -> None:
    each = sets_of(train)[3]
    (run,) = runs_of([each], held_out, [LIGHT])
    pixels_files = (SimpleNamespace(path=tmp_path / "elsewhere.npy"),)
    elsewhere = replace(train, origin=replace(train.origin, pixels_files=pixels_files, split="all"))
    renamed = replace(LIGHT, name="another name", forward_flops=1, training_flops=3)
    (again,) = runs_of([sets_of(elsewhere)[3]], replace(held_out, rows=held_out.rows + 100), [renamed], device="cuda:1")
    assert key_of(again) == key_of(run)
    assert key_of(runs_of([replace(each, dataset="random")], held_out, [LIGHT])[0]) == key_of(run)


def seeds_of(runs: Sequence[Run]) -> dict[tuple[str, str, int], int]:
    """Of every run: its architecture, its data set with ratio and its number."""
    seeds = {}
    for run in runs:
        assert run.task is not None
        each = run.training_set
        seeds[run.architecture.name, each.name.partition(",")[0], each.training_seed] = run.task.arguments["seed"]
    return seeds


def test_no_run_starts_from_the_weights_of_one_that_it_is_measured_by(train: Samples, held_out: Samples) -> None:
    seeds = seeds_of(runs_of(sets_of(train, ratios=(0.25,)), held_out))
    full = {seed for (_, dataset, _), seed in seeds.items() if dataset == "full"}
    drawn = {seed for (_, dataset, _), seed in seeds.items() if dataset != "full"}
    assert len(full) == 2 * 3  # architectures and seeds
    assert len(drawn) == 2 * 3  # architectures and draws
    assert not full & drawn


def test_what_is_compared_with_the_proxy_starts_from_the_proxys_weights(train: Samples, held_out: Samples) -> None:
    seeds = seeds_of(runs_of(sets_of(train, ratios=(0.25,)), held_out))
    for name in ("net 100", "net 400"):
        for draw in range(3):
            of_draw = {seeds[name, f"{law} {ratio}", draw] for law in draws_of(train) for ratio in (0.25, 0.5)}
            assert of_draw == {seeds[name, "fewer-epochs 0.5", draw]}


def test_weights_come_from_the_recipes_seed_and_the_network_and_not_from_its_name(
    train: Samples, held_out: Samples
) -> None:
    sets = sets_of(train, full_seeds=1, draws=1)
    first = list(seeds_of(runs_of(sets, held_out, [LIGHT])).values())
    assert list(seeds_of(runs_of(sets, held_out, [replace(LIGHT, name="another")])).values()) == first
    assert list(seeds_of(runs_of(sets[::-1], held_out, [HEAVY, LIGHT])).values()) != first
    assert not set(first) & set(seeds_of(runs_of(sets, held_out, [LIGHT], seed=1)).values())


# Results


def finish(runs: Sequence[Run], store: Store) -> list[Done | None]:
    """Puts made-up results into the store; a run's accuracy is its place among them."""
    results: list[Done | None] = []
    for number, run in enumerate(runs):
        assert run.task is not None
        with store.writing(run.task.stage, run.task.key, run.task.name) as folder:
            about = {
                "accuracy": number / 100,
                "loss": 1.5 + number,
                "evaluation_loss": math.inf,
                "losses": [1.0],
                "training_seconds": 2.0,
                "test_seconds": 0.5,
            }
            (folder / "run.json").write_text(json.dumps(about))
        entry = store.find(run.task.stage, run.task.key)
        assert entry is not None
        results.append(Done(entry, was_stored=False))
    return results


def test_finished_runs_become_rows_in_one_order_whatever_order_they_ended_in(
    train: Samples, held_out: Samples, tmp_path: Path
) -> None:
    runs = runs_of(sets_of(train, ratios=(0.25,), draws=2, full_seeds=2), held_out)
    results = finish(runs, Store(tmp_path / "store"))
    found = tabulate_runs(runs, results)
    assert found.schema == COLUMNS
    assert found.num_rows == len(runs)
    rows = found.to_pylist()
    assert [(r["dataset"], r["ratio"], r["draw_seed"], r["training_seed"], r["architecture"]) for r in rows] == [
        *(("full", 1.0, None, seed, name) for seed in range(2) for name in ("net 100", "net 400")),
        *(
            (dataset, ratio, None if dataset == "fewer-epochs" else draw, draw, name)
            for dataset in ("proxy", "random", "stratified", "fewer-epochs")
            for ratio in (0.25, 0.5)
            for draw in range(2)
            for name in ("net 100", "net 400")
        ),
    ]
    accuracies = {(run.architecture.name, run.training_set.name): i / 100 for i, run in enumerate(runs)}
    assert sorted(row["accuracy"] for row in rows) == sorted(accuracies.values())
    assert rows[0]["accuracy"] == accuracies["net 100", "full, number 1"]
    assert rows[-1]["accuracy"] == accuracies["net 400", "fewer-epochs 0.5, number 2"]
    order = np.random.default_rng(0).permutation(len(runs))
    assert tabulate_runs([runs[i] for i in order], [results[i] for i in order]) == found


def test_a_row_says_what_was_trained_on_what_and_what_it_took(
    train: Samples, held_out: Samples, tmp_path: Path
) -> None:
    runs = [
        run for run in runs_of(sets_of(train), held_out, [HEAVY]) if run.training_set.name == "random 0.5, number 2"
    ]
    (row,) = tabulate_runs(runs, finish(runs, Store(tmp_path / "store"))).to_pylist()
    assert row == {
        "architecture": "net 400",
        "network": "resnet",
        "parameters": '{"base_filters": 4, "depth": 8, "kernel_size": 3, "multiplier": 2}',
        "forward_flops": 400,
        "training_flops": 1200,
        "n_parameters": 4000,
        "dataset": "random",
        "ratio": 0.5,
        "draw_seed": 1,
        "training_seed": 1,
        "n_samples": 32,
        "n_labels": 2,
        "n_steps": 6,
        "n_epochs": 3.0,
        "run_flops": 6 * 16 * 1200 + 40 * 400,
        "accuracy": 0.0,
        "evaluation_accuracy": None,
        "loss": 1.5,
        "evaluation_loss": None,
        "training_seconds": 2.0,
        "test_seconds": 0.5,
        "device": "cpu x86_64",
        "origin": "trained",
    }


def test_epochs_are_counted_over_what_is_trained_on(train: Samples, held_out: Samples, tmp_path: Path) -> None:
    runs = runs_of(sets_of(train, ratios=(0.25, 0.125), draws=1, full_seeds=1), held_out, [LIGHT])
    rows = tabulate_runs(runs, finish(runs, Store(tmp_path / "store"))).to_pylist()
    epochs = {(row["dataset"], row["ratio"]): row["n_epochs"] for row in rows}
    assert {epochs.pop((dataset, ratio)) for dataset, ratio in list(epochs) if dataset != "fewer-epochs"} == {3}
    # 6, 3 and 3 steps of 4 an epoch
    assert epochs == {("fewer-epochs", 0.5): 1.5, ("fewer-epochs", 0.25): 0.75, ("fewer-epochs", 0.125): 0.75}


def test_a_run_without_a_result_is_left_out(train: Samples, held_out: Samples, tmp_path: Path) -> None:
    runs = runs_of(sets_of(train, draws=1), held_out)
    results = finish(runs, Store(tmp_path / "store"))
    whole = tabulate_runs(runs, results).to_pylist()
    lacking = tabulate_runs(runs, [None, *results[1:]]).to_pylist()
    assert [row for row in whole if row["accuracy"] != 0] == lacking
    assert len(lacking) == len(whole) - 1
    nothing = tabulate_runs(runs, [None] * len(runs))
    assert (nothing.schema, nothing.num_rows) == (COLUMNS, 0)


# Progress


def test_many_runs_are_one_bar_in_proportion_to_their_work_that_reaches_its_end(
    train: Samples, held_out: Samples
) -> None:
    runs = runs_of(sets_of(train, draws=1, full_seeds=1), held_out)
    tasks = [run.task for run in runs[2:] if run.task is not None]  # two are in the store
    shown: list[Progress] = []
    show = show_together(tasks, runs, shown.append)
    for task in tasks:
        for done in range(4):
            show(Progress(STAGE, task.name, done, 3, "loss 0.5"))
    total = sum(run.flops for run in runs[2:])
    assert {(step.stage, step.task, step.total) for step in shown} == {(STAGE, "runs", total)}
    seen = [step.done for step in shown]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, total)
    assert seen[3] == runs[2].flops
    assert seen[4 + 1] == pytest.approx(runs[2].flops + runs[3].flops / 3)
    assert shown[0].note == f"0 of {len(tasks)} runs, {tasks[0].name}"
    assert shown[3].note == f"1 of {len(tasks)} runs, {tasks[0].name}"
    assert shown[-1].note == f"{len(tasks)} of {len(tasks)} runs, {tasks[-1].name}"


def test_runs_side_by_side_are_added_up(train: Samples, held_out: Samples) -> None:
    runs = runs_of(sets_of(train, draws=1, full_seeds=1), held_out)
    tasks = [run.task for run in runs if run.task is not None]
    shown: list[Progress] = []
    show = show_together(tasks, runs, shown.append)
    for number in (0, 1, 1, 0):
        show(Progress(STAGE, tasks[number].name, 1, 2))
    assert shown[-1].done == shown[1].done == pytest.approx((runs[0].flops + runs[1].flops) / 2)
    assert shown[-1].done < shown[-1].total == sum(run.flops for run in runs)


# Trainings


def plain_losses(
    pixels: np.ndarray, labels: np.ndarray, settings: Training, seed: int, n_steps: int, per_epoch: int
) -> list[list[float]]:
    """The loss of every step of every epoch, in the simplest words."""
    network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1).network.train()
    images = (torch.from_numpy(pixels).float() - pixels.mean()) / pixels.std()
    steps = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    if settings.schedule == "one-cycle":
        rate = torch.optim.lr_scheduler.OneCycleLR(
            steps, settings.learning_rate, total_steps=n_steps + 1, cycle_momentum=False
        )
    else:
        rate = torch.optim.lr_scheduler.MultiStepLR(steps, [n_steps // 2, n_steps * 3 // 4], 0.1)
    losses: list[list[float]] = []
    for step in range(n_steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            losses.append([])
            order = torch.randperm(
                len(labels), generator=torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
            )
        chosen = order[place * 16 : (place + 1) * 16]
        loss = F.cross_entropy(network(images[chosen]), torch.from_numpy(labels)[chosen])
        steps.zero_grad()
        loss.backward()
        steps.step()
        rate.step()
        losses[-1].append(loss.item())
    return losses


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every batch that is trained on from now on."""
    sizes: list[int] = []

    def noted(padded: torch.Tensor, settings: Training, chosen: torch.Tensor, *draws: torch.Tensor) -> torch.Tensor:
        sizes.append(len(chosen))
        return cut_batch(padded, settings, chosen, *draws)

    monkeypatch.setattr("proxyds.training.loop.cut_batch", noted)
    return sizes


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "schedule": "step"}, {"crop_padding": 1}])
def test_as_many_steps_as_a_whole_training_has_are_the_whole_training(changes: dict[str, Any]) -> None:
    pixels, labels = blobs(70)  # of which every epoch leaves out 6
    settings = settings_of(**changes)
    weights = []
    for n_steps in (None, count_steps(settings, 70)):
        network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
        history = train_network(network, pixels, labels, settings, seed=2, n_steps=n_steps)
        assert len(history) == 3
        weights.append(network.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


STEPS = {1: [1], 3: [3], 5: [5], 7: [5, 2], 10: [5, 5], 11: [5, 5, 1], 18: [5, 5, 5, 3]}
"""Of so many steps, those of each epoch where five make a whole one."""


@pytest.mark.parametrize(
    ("schedule", "n_steps"),
    [("one-cycle", n) for n in STEPS] + [("step", n) for n in STEPS if n >= 4],  # of fewer, the milestones coincide
)
def test_a_training_stops_after_its_steps_with_the_schedule_fitted_to_them(
    batches: list[int], schedule: str, n_steps: int
) -> None:
    pixels, labels = blobs(80)  # 5 batches of 16
    settings = settings_of(schedule=schedule)
    network, seen = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1), []
    history = train_network(
        network, pixels, labels, settings, seed=9, n_steps=n_steps, on_epoch=lambda index, epoch: seen.append(index)
    )
    assert batches == [16] * n_steps
    assert seen == list(range(len(STEPS[n_steps])))
    plain = plain_losses(pixels, labels, settings, 9, n_steps, 5)
    assert [len(losses) for losses in plain] == STEPS[n_steps]
    # the mean of the steps that an epoch had: a short one's loss is no smaller for being short
    assert [epoch.loss for epoch in history] == pytest.approx([np.mean(losses) for losses in plain], abs=1e-4)
    assert not network.training


def test_a_longer_training_begins_with_the_same_samples_and_other_rates() -> None:
    pixels, labels = blobs(80)
    losses = {}
    for n_steps in (5, 10):
        network = make_network("resnet", SMALL, 2, (1, 8, 8), seed=1)
        losses[n_steps] = train_network(network, pixels, labels, settings_of(), seed=9, n_steps=n_steps)[0].loss
    assert losses[5] != losses[10]


def train_once(
    folder: Path,
    train: Samples,
    held_out: Samples,
    reports: list[tuple[float, float, str]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """What `train_and_test` leaves behind, but for the times."""
    folder.mkdir()
    train_and_test(
        folder=folder,
        report=lambda *report: None if reports is None else reports.append(report),
        **{
            **vars(SETUP),
            "architecture": LIGHT,
            "train": train,
            "held_out": held_out,
            "n_steps": 9,
            "seed": 4,
            **changes,
        },
    )
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    about = json.loads((folder / "run.json").read_text())
    assert about.pop("training_seconds") > 0
    assert about.pop("test_seconds") > 0
    assert set(about) == {"accuracy", "evaluation_accuracy", "loss", "evaluation_loss", "losses"}
    return about


def test_a_run_is_the_same_twice_and_another_with_another_seed(
    make_samples: Callable[..., Samples], tmp_path: Path
) -> None:
    train, held_out = make_samples(64), make_samples(300, seed=1)
    first = train_once(tmp_path / "first", train, held_out)
    assert train_once(tmp_path / "second", train, held_out) == first
    other = train_once(tmp_path / "other", train, held_out, seed=5)
    assert other["accuracy"] != first["accuracy"]
    assert other["losses"] != first["losses"]


def test_a_run_takes_its_steps_and_no_more_and_says_how_far_it_is(
    train: Samples, held_out: Samples, tmp_path: Path, batches: list[int]
) -> None:
    reports: list[tuple[float, float, str]] = []
    about = train_once(tmp_path / "run", train, held_out, reports)
    assert batches == [16] * 9  # 4, 4 and 1
    assert [report[:2] for report in reports] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [report[2] for report in reports] == ["", *(f"loss {loss:.3f}" for loss in about["losses"])]


def test_a_run_on_fewer_samples_than_a_batch_takes_all_of_them_at_each_step(
    train: Samples, held_out: Samples, tmp_path: Path, batches: list[int]
) -> None:
    about = train_once(tmp_path / "run", train.take(np.arange(64) < 10), held_out, n_steps=3)
    assert batches == [10] * 3
    assert len(about["losses"]) == 3


def test_the_accuracy_is_the_share_of_the_test_samples_that_are_right(
    make_samples: Callable[..., Samples], tmp_path: Path
) -> None:
    train, held_out = make_samples(64), make_samples(300, seed=1)
    steps = {"n_steps": 60, "settings": settings_of(epochs=15)}
    right = train_once(tmp_path / "right", train, held_out, **steps)
    assert right["accuracy"] > 0.8
    assert right["losses"][-1] < 0.5 * right["losses"][0]
    wrong = train_once(tmp_path / "wrong", train, replace(held_out, labels=1 - held_out.labels), **steps)
    assert wrong["accuracy"] == pytest.approx(1 - right["accuracy"])
    assert wrong["losses"] == right["losses"]


def test_listed_runs_can_be_run_and_tabulated(train: Samples, held_out: Samples, tmp_path: Path) -> None:
    settings = settings_of(epochs=2)
    sets = sets_of(train, 0.3, settings, draws=1, full_seeds=1)  # 19 samples: one batch of 16 an epoch
    runs = runs_of(sets, held_out, [LIGHT], settings=settings)
    tasks = [run.task for run in runs if run.task is not None]
    store, shown = Store(tmp_path / "store"), []
    with InProcess() as engine:
        results, failures = run_each(tasks, store, engine, lambda missing: show_together(missing, runs, shown.append))
        again, _ = run_each(tasks, store, engine, lambda missing: ignore_progress)
    assert failures == []
    assert shown[-1].done == shown[-1].total == sum(run.flops for run in runs)
    rows = tabulate_runs(runs, results).to_pylist()
    assert [(row["dataset"], row["n_samples"], row["n_steps"], row["n_epochs"]) for row in rows] == [
        ("full", 64, 8, 2.0),
        ("proxy", 19, 2, 2.0),
        ("random", 19, 2, 2.0),
        ("stratified", 19, 2, 2.0),
        ("fewer-epochs", 64, 2, 0.5),
    ]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert tabulate_runs(runs, again).to_pylist() == rows
    assert all(result is not None and result.was_stored for result in again)


def test_a_run_is_measured_on_evaluation_samples_besides_and_nothing_else_changes(
    make_samples: Callable[..., Samples], tmp_path: Path
) -> None:
    train, held_out, others = make_samples(64), make_samples(300, seed=1), make_samples(200, seed=2)
    alone = train_once(tmp_path / "alone", train, held_out, n_steps=60)
    both = train_once(tmp_path / "both", train, held_out, n_steps=60, evaluation=others)
    swapped = train_once(tmp_path / "swapped", train, others, n_steps=60, evaluation=held_out)
    for name in ("accuracy", "loss"):
        assert alone.pop(f"evaluation_{name}") is None
        assert both.pop(f"evaluation_{name}") == swapped[name]
        assert swapped[f"evaluation_{name}"] == alone[name]
    assert both == alone


def test_evaluation_samples_are_part_of_a_runs_key_and_of_its_row(
    train: Samples, make_samples: Callable[..., Samples], tmp_path: Path
) -> None:
    held_out, others = make_samples(40, seed=1), make_samples(30, seed=2)
    sets = sets_of(train, draws=1, full_seeds=1)
    keys = {
        str(evaluation and len(evaluation)): [
            run.task.key for run in list_runs([LIGHT], sets, held_out, SETUP, evaluation) if run.task
        ]
        for evaluation in (None, others, make_samples(31, seed=3))
    }
    assert len({key for of_each in keys.values() for key in of_each}) == sum(map(len, keys.values()))
    runs = list_runs([LIGHT], sets[:1], held_out, SETUP, others)
    with InProcess() as engine:
        results, _ = run_each([runs[0].task], Store(tmp_path / "store"), engine, lambda missing: ignore_progress)
    (row,) = tabulate_runs(runs, results).to_pylist()
    assert row["evaluation_accuracy"] * 30 == pytest.approx(round(row["evaluation_accuracy"] * 30))
    assert row["run_flops"] == runs[0].flops


def test_a_training_set_with_some_labels_is_measured_on_evaluation_samples_of_these_alone(
    train: Samples, make_samples: Callable[..., Samples]
) -> None:
    held_out, others = make_samples(40, seed=1), make_samples(30, seed=2)
    one = replace(sets_of(train)[0], kept_labels=np.array([1]))
    (run,) = list_runs([LIGHT], [one], held_out, SETUP, others)
    assert run.job is not None
    assert len(run.job.evaluation) == (others.labels == 1).sum()
    (run,) = list_runs([LIGHT], [one], held_out, SETUP, others.take(others.labels == 0))
    assert run.job is not None
    assert run.job.evaluation is None


def test_a_network_whose_loss_on_test_samples_is_no_number_has_failed(
    train: Samples, held_out: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs_of(sets_of(train, draws=1, full_seeds=1), held_out, [LIGHT])[0]
    assert run.job is not None
    monkeypatch.setattr("proxyds.evaluation.runs.measure_network", lambda *_: (0.1, math.nan))
    with pytest.raises(DivergedError, match=r"test samples.*learning_rate"):
        train_and_test(folder=tmp_path, report=lambda *_: None, **vars(run.job))
    assert not (tmp_path / "run.json").exists()


def test_a_stored_loss_that_is_no_number_is_not_in_the_table(train: Samples, held_out: Samples, tmp_path: Path) -> None:
    runs = runs_of(sets_of(train, draws=1, full_seeds=1), held_out, [LIGHT])
    results = finish(runs, Store(tmp_path / "store"))
    first = results[0]
    assert first is not None
    about = json.loads((first.entry.folder / "run.json").read_text())
    del about["evaluation_loss"]  # as in a run of an older version
    (first.entry.folder / "run.json").write_text(json.dumps({**about, "loss": math.inf}))
    losses = [row["loss"] for row in tabulate_runs(runs, results).to_pylist()]
    assert losses.count(None) == 1
