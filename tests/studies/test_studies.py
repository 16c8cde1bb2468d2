"""The study of selection methods: it goes on from its rows and subsets alone, and its report is what the rows give."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import kendalltau

import proxyds
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.data.source import load_source
from proxyds.evaluation.intervals import Estimate
from proxyds.progress import ignore_progress
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Recipe
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_stored
from proxyds.space.listing import list_architectures
from tests.studies import fidelity, page, paper_tables, parts, results, weighing
from tests.studies.candidates import CANDIDATES
from tests.studies.subsets import Probes, count_labels, find_subset
from tests.studies.weighing import Estimated, Found

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cards" / "fidelity"
RECIPE = """\
name: little-study
source: {kind: digits}
space:
  network: resnet
  architectures:
    - {depth: 8, base_filters: 6, kernel_size: 3, multiplier: 1}
    - {depth: 8, base_filters: 4, kernel_size: 3, multiplier: 1}
    - {depth: 8, base_filters: 8, kernel_size: 3, multiplier: 1}
    - {depth: 14, base_filters: 4, kernel_size: 3, multiplier: 1}
    - {depth: 8, base_filters: 4, kernel_size: 3, multiplier: 2}
probes: {seeds: 3}
selection: {ratio: 0.1}
training: {epochs: 2, batch_size: 64, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
check: {draws: 2, full_seeds: 2}
"""


@pytest.fixture(autouse=True)
def results_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parts, "RESULTS", tmp_path / "results")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "study.yaml").write_text(RECIPE)
    return proxyds.read_recipe(tmp_path / "study.yaml")


def make_probes(recipe: Recipe, store: Path) -> Any:
    """What a study's subsets are chosen by, of the digits."""
    engine = InProcess()
    run = partial(run_stored, store=Store(store), engine=engine, on_progress=ignore_progress)
    data = load_source(recipe, run, False)
    architectures = list_architectures(recipe.space, 10, data.image_shape, seed=recipe.seed)
    return Probes(recipe, data, architectures, Store(store), engine, ignore_progress)


def read_accuracies(path: Path) -> dict[str, str]:
    """Each row without what it took."""
    return {line.rsplit(",", 4)[0]: "" for line in path.read_text().splitlines()}


@pytest.mark.slow
def test_a_study_goes_on_from_its_rows_and_subsets_alone(recipe: Recipe, tmp_path: Path) -> None:
    methods = ("random", "herding", "forgetting")
    every = (parts.Part("full", 1.0), *parts.by_method(0.1, *methods), parts.fewer_epochs(0.1))
    study, folder = parts.Study("little", "little", every), parts.RESULTS / "little"
    probes = make_probes(recipe, tmp_path / "store")
    for each in study.parts:
        fidelity.run_part(study, each, probes, range(2))
    rows, subsets = folder / "rows.csv", folder / "subsets.npz"
    whole = read_accuracies(rows)
    assert len(whole) == 1 + 5 * 2 * 5
    assert set(np.load(subsets)) == {
        "labels",
        *(f"{name} 0.1 {draw}" for name in ("random", "herding", "forgetting") for draw in (0, 1)),
    }

    labels = np.asarray(probes.data.train.labels)
    with np.load(subsets) as kept:
        assert (kept["labels"] == labels).all()
    drawn = [labels[find_subset(subsets, "random", 0.1, draw, probes)] for draw in (0, 1)]
    counts = [int((each == label).sum()) for each in drawn for label in range(10)]
    assert count_labels(subsets, "random", 0.1, 2) == (min(counts), max(counts))
    assert count_labels(subsets, "random", 0.1, 3) is None
    assert count_labels(tmp_path / "none.npz", "random", 0.1, 2) is None

    # another machine, with an empty store: killed in the middle of a line, and of a part
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:-8]) + lines[-8][:30])
    other = make_probes(recipe, tmp_path / "other")
    for each in study.parts:
        fidelity.run_part(study, each, other, range(2))
    assert read_accuracies(rows) == whole
    trained = {entry.stage for entry in other.store.entries()}
    assert "check" in trained
    assert not trained & {"probes", "features"}
    assert sum(entry.stage == "check" for entry in other.store.entries()) == 8

    # once more: nothing is left to do
    before = rows.read_bytes()
    for each in study.parts:
        fidelity.run_part(study, each, make_probes(recipe, tmp_path / "third"), range(2))
    assert rows.read_bytes() == before
    assert not {entry.stage for entry in Store(tmp_path / "third").entries()} & {"probes", "check"}

    wanted = replace(study, parts=(*every, *parts.by_method(0.1, "easiest")))
    results.write_report(wanted, recipe, other.architectures, 1295, 143)
    found = {(each["method"], each["ratio"]): each for each in json.loads((folder / "results.json").read_text())}
    assert set(found) == {
        ("full", None), ("flops", None), ("parameters", None),
        *((name, 0.1) for name in ("random", "herding", "forgetting", "fewer-epochs")),
    }  # fmt: skip
    assert set(found["random", 0.1]["tau_less"]) == {"parameters"}
    assert set(found["herding", 0.1]["tau_less"]) == {"random", "random with parameters", "parameters"}
    differs = found["herding", 0.1]["statistics"]["tau"]["value"] - found["random", 0.1]["statistics"]["tau"]["value"]
    assert found["herding", 0.1]["tau_less"]["random"]["value"] == pytest.approx(differs, abs=1e-9)
    differs = (
        found["herding", 0.1]["with_parameters"]["tau"]["value"]
        - found["random", 0.1]["with_parameters"]["tau"]["value"]
    )
    assert found["herding", 0.1]["tau_less"]["random with parameters"]["value"] == pytest.approx(differs, abs=1e-9)
    regrets = [found[name, 0.1]["statistics"]["regret"]["value"] for name in ("herding", "random")]
    assert found["herding", 0.1]["regret_less"]["random"]["value"] == pytest.approx(regrets[0] - regrets[1], abs=1e-9)
    table = pd.read_csv(rows)
    accuracies = table.pivot_table(index="architecture", columns=["dataset", "training_seed"], values="accuracy")
    by_mean = [
        kendalltau(accuracies["herding"].mean(axis=1), accuracies["full"][seed])[0] for seed in accuracies["full"]
    ]
    assert found["herding", 0.1]["averaged"]["value"] == pytest.approx(np.mean(by_mean), abs=1e-9)
    told = (folder / "README.md").read_text()
    assert "| herding | " in told
    assert re.search(r"\| herding \| 10 % \| [^|]+ \| 2 \| 20 % \| ", told)
    assert "**Not run yet**, or not with every draw: easiest at 10 %." in told
    assert "51 trainings" not in told
    assert "50 trainings and tests" in told
    assert re.search(rf"\| random \| 2 \|.*\| {min(counts)} to {max(counts)} \| nothing \|", told)

    # subsets of other samples are not mixed with these
    with np.load(subsets) as kept:
        np.savez_compressed(subsets, **{**kept, "labels": kept["labels"][::-1]})
    with pytest.raises(SystemExit, match=r"subsets\.npz: must be subsets of the samples at hand"):
        fidelity.run_part(study, study.parts[1], probes, range(2))


def test_a_part_that_is_not_whole_is_not_weighed(recipe: Recipe, tmp_path: Path, capsys: Any) -> None:
    study = parts.Study("little", "little", (parts.Part("full", 1.0), *parts.by_method(0.1, "random")))
    probes = make_probes(recipe, tmp_path / "store")
    fidelity.run_part(study, study.parts[0], probes, [0])
    fidelity.run_part(study, study.parts[1], probes, [0, 1])
    results.write_report(study, recipe, probes.architectures, 1295, 143)
    assert not (parts.RESULTS / "little" / "README.md").exists()
    assert "there is nothing to weigh yet" in capsys.readouterr().out
    fidelity.show_plan(study, probes)
    told = capsys.readouterr().out
    assert [line.split()[2:4] for line in told.splitlines() if line.startswith(("full", "random"))] == [
        ["10", "5"],
        ["10", "0"],
    ]


def test_a_draws_probes_are_its_own_and_averaged_where_scores_are(recipe: Recipe, session_store: Path) -> None:
    probes = make_probes(recipe, session_store)

    def read(answers: Any) -> list[np.ndarray]:
        return [np.stack([*answers.over_epochs(training, "loss")]) for training in range(answers.n_trainings)]

    ((first,), (second,)) = (read(probes.know("easiest", draw).answers) for draw in (0, 1))
    averaged = read(probes.know("el2n", 2).answers)
    assert (first != second).any()
    assert len(averaged) == 3
    assert (averaged[1] == first).all()  # trainings 2, 0 and 1
    assert (averaged[2] == second).all()
    assert (probes.know("cases", 0).importance != probes.know("cases", 1).importance).any()


def test_what_choosing_costs_by_hand(recipe: Recipe, session_store: Path) -> None:
    chosen = make_probes(recipe, session_store).architectures[::4]
    light, heavy = chosen
    n_seen, n_all = 2 * (1295 // 64) * 64, 1295 + 143
    costs = {name: weighing.find_cost(name, recipe, chosen, 1295, 143) for name in (*METHODS, None)}
    assert costs["random"] == costs["stratified"] == costs[None] == 0
    assert costs["cases"] == n_seen * (light.training_flops + heavy.training_flops) + n_all * heavy.forward_flops
    assert costs["k-center"] == n_seen * heavy.training_flops + n_all * heavy.forward_flops
    assert costs["easiest"] == n_seen * heavy.training_flops + 2 * 1295 * heavy.forward_flops
    assert costs["el2n"] == 3 * costs["easiest"]


def test_the_study_holds_every_method_and_every_part_once() -> None:
    for study in parts.STUDIES.values():
        rows = [
            (part.dataset, part.ratio) for name in (*study.beside, study.name) for part in parts.STUDIES[name].parts
        ]
        assert len(set(rows)) == len(rows)
    assert {part.method for part in parts.STUDIES["cifar10"].parts if part.ratio == 0.05} == {*METHODS, None}


def test_what_is_judged_on_is_another_data_set_with_other_architectures_and_nothing_else() -> None:
    names = ("cifar10", "cifar100")
    (_, tuned, of_tuned), (_, judged, of_judged) = (results.open_study(parts.STUDIES[name]) for name in names)
    assert {study.recipe for study in parts.STUDIES.values()} == set(names)
    assert (tuned.source.name, judged.source.name) == ("uoft-cs/cifar10", "uoft-cs/cifar100")
    same = {name: getattr(tuned, name) for name in ("name", "source", "space")}
    assert judged.model_copy(update=same) == tuned
    assert (len(of_tuned), len(of_judged)) == (24, 24)
    assert not {each.name for each in of_tuned} & {each.name for each in of_judged}


def test_what_a_user_may_expect_by_hand() -> None:
    def found(method: str, ratio: float, tau: float, regret: float, low: float = -0.1) -> Found:
        told = {
            name: EstimateRecord(value=value, low=value - 0.01, high=value + 0.01)
            for name, value in (("tau", tau), ("regret", regret))
        }
        less = {} if method == "random" else {"random": EstimateRecord(value=0.1, low=low, high=0.2)}
        return Found(method, ratio, 5, 0.5, told, {}, less, None)

    every = [
        found("random", 0.02, 0.5, 0.04),
        found("cases", 0.02, 0.6, 0.03, low=0.01),
        found("random", 0.04, 0.55, 0.04),
    ]
    every += [found("cases", 0.1, 0.8, 0.01), found("random", 0.1, 0.7, 0.02), found("cases", 0.2, 0.9, 0.01)]
    assert page.tell_expectation(every, "cases") == (
        "At 10 % tau 0.80 and a regret of 1.0 points (random samples: 0.70 and 2.0; tau undecided). "
        "At 2 % tau 0.60 and a regret of 3.0 points (random samples: 0.50 and 4.0)."
    )
    # 22 to choose; a training on everything 8; random samples of twice the size cost 0.1 x 8, 0.02 x 8 more each
    assert page.tell_cost(every, "cases", 22, 8.0) == (
        "Choosing takes at least as many FLOPs as 2.8 trainings of the mean architecture on everything. Random samples need no choosing. "
        "Twice as many of them take fewer FLOPs in all where no more than this many architectures are ranked: 27 at 10 %, 137 at 2 %. 2 % by `cases` have a tau of 0.60, 4 % at random one of 0.55."
    )
    assert page.tell_cost(every, "random", 0, 8.0) == ""


def test_of_several_studies_each_counts_the_same_and_variances_are_shared() -> None:
    def estimated(tau: float, *methods: str) -> list[Estimated]:
        def estimate(value: float, variance: float = 0.01) -> Estimate:
            return Estimate(value, variance, 0.0, math.inf, 24, 276)

        def find(method: str, ratio: float | None, tau: float) -> Estimated:
            statistics = {"tau": estimate(tau), "regret": estimate(1 - tau, math.nan)}
            less = {"random": estimate(0.2, 0.0004)} if method in methods else {}
            return Estimated(method, ratio, 5, tau / 2, statistics, {"tau": estimate(tau)}, less, estimate(tau))

        rest = [find(name, 0.05, tau - 0.1) for name in methods]
        return [find("full", None, tau), find("random", 0.05, tau - 0.3), *rest]

    mean = weighing.take_mean([estimated(0.9, "cases", "easiest"), estimated(0.7, "cases", "herding")])
    found = {each.method: each for each in weighing.weigh(mean)}
    assert set(found) == {"full", "random", "cases"}
    cases, less = found["cases"], found["cases"].tau_less["random"]
    assert (cases.tau, cases.averaged.value, cases.n_draws, cases.mean_accuracy) == pytest.approx((0.7, 0.7, 5, 0.35))
    half = 1.96 * math.sqrt(0.0002 + 1 / 552**2)  # two variances of 0.0004, each over four; a pair of 552 in doubt
    assert (less.value, less.low, less.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=2e-4)
    assert cases.regret_less["random"] == EstimateRecord(value=-0.2, low=None, high=None)
    assert cases.statistics["regret"].low is None
    width = cases.statistics["tau"].high - cases.statistics["tau"].low
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.01 / 2), rel=0.1)
    more_often = [replace(each, n_draws=7) for each in estimated(0.9, "cases")]
    with pytest.raises(ValueError, match="must be drawn as often in every study"):
        weighing.take_mean([estimated(0.9, "cases"), more_often])


def test_estimates_of_a_table_by_hand() -> None:
    """Nine architectures, the larger the better: random samples swap two, the method none."""
    names = [f"a{i}" for i in range(9)]
    accuracies = {"full": range(9), "random": [1, 0, *range(2, 9)], "easier": range(9)}
    rows = [
        {
            "architecture": name, "training_flops": i, "n_parameters": i, "dataset": dataset, "ratio": 1.0 if dataset == "full" else 0.05,
            "draw_seed": None if dataset == "full" else seed, "training_seed": seed, "accuracy": accuracies[dataset][i] / 10 + seed / 100,
        }
        for dataset in accuracies for seed in (0, 1) for i, name in enumerate(names)
    ]  # fmt: skip
    found = {each.method: each for each in weighing.weigh(weighing.estimate_all(pa.Table.from_pylist(rows), 0.5))}
    assert list(found) == ["full", "flops", "parameters", "random", "easier"]
    assert (found["easier"].tau, found["random"].tau) == pytest.approx((1.0, 1 - 2 / 36))
    less = found["easier"].tau_less
    assert set(less) == {"random", "random with parameters", "parameters"}
    assert less["random"].value == pytest.approx(2 / 36)
    # the worst two swap in accuracy; half of the same difference of scores the other way does not turn them
    assert less["random with parameters"].value == pytest.approx(2 / 36)
    assert less["random"].low < 0 < less["random"].high
    assert found["random"].averaged.value == pytest.approx(1 - 2 / 36)
    assert found["full"].with_parameters == {}
    assert found["full"].averaged is None
    assert (found["full"].n_draws, found["flops"].n_draws) == (2, 0)


def test_other_trainings_cost_the_same_and_labels_are_kept(recipe: Recipe, tmp_path: Path) -> None:
    probes = make_probes(recipe, tmp_path / "store")
    every = {
        "plain": parts.Part("plain", 0.1, "random"),
        "twice the samples, half the epochs": parts.Part("larger", 0.1, "random", size=0.2),
        "smaller batches": parts.Part("batches", 0.1, "random", settings={"batch_size": 16, "learning_rate": 0.01}),
        "four labels": parts.Part("labels", 0.1, "random", n_labels=4),
    }
    study = parts.Study("little", "little", tuple(every.values()))
    sets = {name: list(fidelity.list_sets(study, part, probes, range(2))) for name, part in every.items()}
    assert {name: (each[0].n_samples, each[0].n_steps) for name, each in sets.items()} == {
        "plain": (130, 4), "twice the samples, half the epochs": (259, 4), "smaller batches": (130, 16), "four labels": (130, 4),
    }  # fmt: skip
    kept = [each.kept_labels for each in sets["four labels"]]
    assert all(len(labels) == 4 for labels in kept)
    assert kept[0].tolist() != kept[1].tolist()
    runs = fidelity.list_part_runs(study, every["smaller batches"], sets["smaller batches"], probes)
    assert {run.task.arguments["settings"].batch_size for run in runs} == {16}
    assert "probes" not in {entry.stage for entry in probes.store.entries()}  # random samples need none
    tuned, judged = (parts.take_half(probes.architectures, half) for half in ("tuning", "judging"))
    assert sorted(each.name for each in (*tuned, *judged)) == sorted(each.name for each in probes.architectures)
    assert (len(tuned), len(judged)) == (3, 2)


def test_every_candidate_draws_what_it_is_asked_for(recipe: Recipe, tmp_path: Path, session_store: Path) -> None:
    probes = make_probes(recipe, session_store)
    chosen = {name: find_subset(tmp_path / "subsets.npz", name, 0.1, 0, probes) for name in CANDIDATES}
    assert {selected.sum() for selected in chosen.values()} == {130}
    assert len({selected.tobytes() for selected in chosen.values()}) == len(CANDIDATES)


@pytest.mark.e2e
@pytest.mark.parametrize(("number", "n_labels"), [(1, 10), (2, 100), (3, 10)])
def test_the_papers_own_figures_are_found_again(number: int, n_labels: int) -> None:
    """With what is printed in place of what is measured, both of every two columns are the same."""
    table = next(each for each in paper_tables.TABLES if each.number == number)
    recipe = proxyds.read_recipe(ROOT / "recipes" / f"{table.recipe}.yaml", table.overrides)
    assert recipe.importance.protocol == "paper"
    assert recipe.check is not None
    assert {recipe.selection.ratio, *recipe.check.ratios} == ({0.05, 0.1} if number == 1 else {0.1})
    architectures = list_architectures(recipe.space, n_labels, (3, 32, 32))
    printed = paper_tables.read_printed(number)
    names = {each.name: table.name_of(each.parameters) for each in architectures}
    assert set(names.values()) == set(printed["full"])
    rows = [
        {"architecture": name, "dataset": dataset, "ratio": ratio, "accuracy": printed[column][names[name]] + repeat}
        for column, (dataset, ratio) in {"full": ("full", 1.0), **paper_tables.COLUMNS}.items()
        if column in printed
        for name in names
        for repeat in (-0.01, 0.01)
    ]
    measured = paper_tables.collect_measured(
        pa.Table.from_pylist(rows), table.name_of, {each.name: each.parameters for each in architectures}
    )
    told = paper_tables.compare(number, measured, None)
    of_pearson = next(line for line in told.splitlines() if line.startswith("| **Pearson")).split(" | ")[3:]
    expected = {1: ["0.978", "0.970", "0.927", "0.967"], 2: ["0.955", "0.975"], 3: ["0.171", "0.612"]}[number]
    assert [cell.rstrip(" |") for cell in of_pearson] == [value for value in expected for _ in range(2)]


NUMBER = r"-?\b\d+(?:\.\d+)?(?:e-?\d+)?\b"


@pytest.mark.parametrize(
    "study", ["cifar10", "cifar100", *(pytest.param(name, marks=pytest.mark.slow) for name in ("search", "judging"))]
)
def test_the_page_is_what_the_rows_give(study: str) -> None:
    take_rows()
    opened = results.open_study(parts.STUDIES[study])
    results.write_report(*opened, parts.N_TRAIN, parts.N_EVALUATION)
    again, committed = parts.RESULTS / study, FOLDER / study
    assert proxyds.read_recipe(committed / "recipe.yaml").sha256 == opened[1].sha256
    assert {path.name for path in again.iterdir()} == {path.name for path in committed.iterdir()}
    assert_same_pages(again, committed)


@pytest.mark.e2e
def test_the_page_of_two_data_sets_is_what_their_rows_give() -> None:
    take_rows()
    results.write_together([results.open_study(parts.STUDIES[name]) for name in parts.TOGETHER])
    files = [{path.name for path in place.iterdir() if path.is_file()} for place in (parts.RESULTS, FOLDER)]
    assert files[0] == files[1] - {"protocol.md"}
    assert_same_pages(parts.RESULTS, FOLDER)


@pytest.mark.e2e
def test_the_page_of_two_data_sets_stays_as_it_was_where_one_is_missing(capsys: Any) -> None:
    studies = [results.open_study(parts.STUDIES[name]) for name in ("cifar10", "cifar100", "judging")]
    told = []
    for named in (studies[2:], [studies[1], *studies[1:]], studies):
        results.write_together(named)
        told.append(capsys.readouterr().out)
    assert told == [
        "",
        "the page of cifar10 and cifar100 is as it was: it is written when both are named\n",
        "there is nothing to weigh together yet: cifar10 lacks the full data or random subsets of 5 %\n",
    ]
    assert not parts.RESULTS.exists()


def take_rows() -> None:
    """Puts every study's rows, subsets and recipe where its report reads them."""
    for path in (path for name in ("rows.csv", "recipe.yaml", "subsets.npz") for path in FOLDER.glob(f"*/{name}")):
        taken = parts.RESULTS / path.relative_to(FOLDER)
        taken.parent.mkdir(parents=True, exist_ok=True)
        taken.write_bytes(path.read_bytes())


def assert_same_pages(again: Path, committed: Path) -> None:
    """Two folders' pages and estimates say the same, but for what arithmetic may change."""
    for name in ("README.md", "results.json"):
        one, other = ((place / name).read_text() for place in (again, committed))
        assert re.sub(NUMBER, "#", one) == re.sub(NUMBER, "#", other)
        figures = [re.findall(NUMBER, text) for text in (one, other)]
        n_digits = [len(figure.partition(".")[2]) for figure in figures[1]]
        last_digit = [1.1 * 10.0 ** -min(n, 3) if n else 0.0 for n in n_digits]  # which may differ
        values = [np.array([float(figure) for figure in of_text]) for of_text in figures]
        assert (abs(values[0] - values[1]) <= last_digit).all()
