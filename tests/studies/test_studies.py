"""The study of selection methods: it goes on from its rows and subsets alone, and its report is what the rows give."""

from __future__ import annotations

import json
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
from proxyds.data import source
from proxyds.progress import ignore_progress
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Recipe
from proxyds.recipe.yaml import write_recipe
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_stored
from proxyds.space import listing as space
from proxyds.space.architecture import Architecture

ROOT = Path(__file__).parent.parent.parent
STUDIES = ROOT / "tests" / "studies"
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
training: {epochs: 4, batch_size: 32, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
check: {draws: 2, full_seeds: 2}
"""


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(STUDIES)
    from tests.studies import fidelity, parts

    monkeypatch.setattr(parts, "RESULTS", tmp_path / "results")
    return fidelity


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "study.yaml").write_text(RECIPE)
    return proxyds.read_recipe(tmp_path / "study.yaml")


def make_probes(fidelity: Any, recipe: Recipe, store: Path) -> Any:
    """What a study's subsets are chosen by, of the digits."""
    engine = InProcess()
    run = partial(run_stored, store=Store(store), engine=engine, on_progress=ignore_progress)
    data = source.load_source(recipe, run, False)
    architectures = space.list_architectures(recipe.space, 10, data.image_shape, seed=recipe.seed)
    return fidelity.Probes(recipe, data, architectures, Store(store), engine, ignore_progress)


def list_studied(recipe: Recipe) -> list[Architecture]:
    """The architectures of a study's recipe."""
    n_labels = 100 if recipe.source.config == "cifar100" else 10
    return space.list_architectures(recipe.space, n_labels, (3, 16, 16), seed=recipe.seed)


def read_accuracies(path: Path) -> dict[str, str]:
    """Each row without what it took."""
    return {line.rsplit(",", 4)[0]: "" for line in path.read_text().splitlines()}


def test_a_study_goes_on_from_its_rows_and_subsets_alone(fidelity: Any, recipe: Recipe, tmp_path: Path) -> None:
    from tests.studies import parts

    methods = ("random", "herding", "forgetting")
    every = (parts.Part("full", 1.0), *parts.by_method(0.1, *methods), parts.fewer_epochs(0.1))
    study, folder = parts.Study("little", "little", every), parts.RESULTS / "little"
    probes = make_probes(fidelity, recipe, tmp_path / "store")
    for each in study.parts:
        fidelity.run_part(study, each, probes, range(2))
    rows, subsets = folder / "rows.csv", folder / "subsets.npz"
    whole = read_accuracies(rows)
    assert len(whole) == 1 + 5 * 2 * 5
    assert set(np.load(subsets)) == {
        "labels",
        *(f"{name} 0.1 {draw}" for name in ("random", "herding", "forgetting") for draw in (0, 1)),
    }

    from tests.studies import subsets as kept_subsets

    labels = np.asarray(probes.data.train.labels)
    with np.load(subsets) as kept:
        assert (kept["labels"] == labels).all()
    drawn = [labels[fidelity.find_subset(subsets, "random", 0.1, draw, probes)] for draw in (0, 1)]
    counts = [int((each == label).sum()) for each in drawn for label in range(10)]
    assert kept_subsets.count_labels(subsets, "random", 0.1, 2) == (min(counts), max(counts))
    assert kept_subsets.count_labels(subsets, "random", 0.1, 3) is None
    assert kept_subsets.count_labels(tmp_path / "none.npz", "random", 0.1, 2) is None

    # another machine, with an empty store: killed in the middle of a line, and of a part
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:-8]) + lines[-8][:30])
    other = make_probes(fidelity, recipe, tmp_path / "other")
    for each in study.parts:
        fidelity.run_part(study, each, other, range(2))
    assert read_accuracies(rows) == whole
    trained = {entry.stage for entry in other.store.entries()}
    assert "check" in trained
    assert not trained & {"probes", "features"}
    assert sum(entry.stage == "check" for entry in other.store.entries()) == 8

    # once more: nothing is left to do
    held = rows.read_bytes()
    for each in study.parts:
        fidelity.run_part(study, each, make_probes(fidelity, recipe, tmp_path / "third"), range(2))
    assert rows.read_bytes() == held
    assert not {entry.stage for entry in Store(tmp_path / "third").entries()} & {"probes", "check"}

    wanted = replace(study, parts=(*every, *parts.by_method(0.1, "easiest")))
    fidelity.write_report(wanted, recipe, other.architectures, 1295, 143)
    found = {(each["method"], each["ratio"]): each for each in json.loads((folder / "results.json").read_text())}
    assert set(found) == {
        ("full", None), ("flops", None), ("parameters", None),
        *((name, 0.1) for name in ("random", "herding", "forgetting", "fewer-epochs")),
    }  # fmt: skip
    assert set(found["random", 0.1]["tau_less"]) == {"parameters"}
    assert set(found["herding", 0.1]["tau_less"]) == {"random", "parameters"}
    differs = found["herding", 0.1]["statistics"]["tau"]["value"] - found["random", 0.1]["statistics"]["tau"]["value"]
    assert found["herding", 0.1]["tau_less"]["random"]["value"] == pytest.approx(differs, abs=1e-9)
    regrets = [found[name, 0.1]["statistics"]["regret"]["value"] for name in ("herding", "random")]
    assert found["herding", 0.1]["regret_less"]["random"]["value"] == pytest.approx(regrets[0] - regrets[1], abs=1e-9)
    table = pd.read_csv(rows)
    accuracies = table.pivot_table(index="architecture", columns=["dataset", "training_seed"], values="accuracy")
    by_mean = [
        kendalltau(accuracies["herding"].mean(axis=1), accuracies["full"][seed])[0] for seed in accuracies["full"]
    ]
    assert found["herding", 0.1]["averaged"]["value"] == pytest.approx(np.mean(by_mean), abs=1e-9)
    page = (folder / "README.md").read_text()
    assert "| herding | " in page
    assert re.search(r"\| herding \| 10 % \| [^|]+ \| 2 \| 20 % \| ", page)
    assert "**Not run yet**, or not with every draw: easiest at 10 %." in page
    assert "51 trainings" not in page
    assert "50 trainings and tests" in page
    assert re.search(rf"\| random \| 2 \|.*\| {min(counts)} to {max(counts)} \| nothing \|", page)

    # subsets of other samples are not mixed with these
    with np.load(subsets) as kept:
        np.savez_compressed(subsets, **{**kept, "labels": kept["labels"][::-1]})
    with pytest.raises(SystemExit, match=r"subsets\.npz: must be subsets of the samples at hand"):
        fidelity.run_part(study, study.parts[1], probes, range(2))


def test_a_part_that_is_not_whole_is_not_weighed(fidelity: Any, recipe: Recipe, tmp_path: Path, capsys: Any) -> None:
    from tests.studies import parts

    study = parts.Study("little", "little", (parts.Part("full", 1.0), *parts.by_method(0.1, "random")))
    probes = make_probes(fidelity, recipe, tmp_path / "store")
    fidelity.run_part(study, study.parts[0], probes, [0])
    fidelity.run_part(study, study.parts[1], probes, [0, 1])
    fidelity.write_report(study, recipe, probes.architectures, 1295, 143)
    assert not (parts.RESULTS / "little" / "README.md").exists()
    assert "there is nothing to weigh yet" in capsys.readouterr().out
    fidelity.show_plan(study, probes)
    told = capsys.readouterr().out
    assert [line.split()[2:4] for line in told.splitlines() if line.startswith(("full", "random"))] == [
        ["10", "5"],
        ["10", "0"],
    ]


def test_a_draws_probes_are_its_own_and_averaged_where_scores_are(
    fidelity: Any, recipe: Recipe, tmp_path: Path
) -> None:
    probes = make_probes(fidelity, recipe, tmp_path / "store")

    def read(answers: Any) -> list[np.ndarray]:
        return [np.stack([*answers.over_epochs(training, "loss")]) for training in range(answers.n_trainings)]

    ((first,), (second,)) = (read(probes.know("easiest", draw).answers) for draw in (0, 1))
    averaged = read(probes.know("el2n", 2).answers)
    assert (first != second).any()
    assert len(averaged) == 3
    assert (averaged[1] == first).all()  # trainings 2, 0 and 1
    assert (averaged[2] == second).all()
    assert (probes.know("cases", 0).importance != probes.know("cases", 1).importance).any()


def test_what_choosing_costs_by_hand(fidelity: Any, recipe: Recipe, tmp_path: Path) -> None:
    from tests.studies import weighing

    chosen = make_probes(fidelity, recipe, tmp_path / "store").architectures[::4]
    light, heavy = chosen
    n_seen, n_all = 4 * (1295 // 32) * 32, 1295 + 143
    costs = {name: weighing.find_cost(name, recipe, chosen, 1295, 143) for name in (*METHODS, None)}
    assert costs["random"] == costs["stratified"] == costs[None] == 0
    assert costs["cases"] == n_seen * (light.training_flops + heavy.training_flops) + n_all * heavy.forward_flops
    assert costs["k-center"] == n_seen * heavy.training_flops + n_all * heavy.forward_flops
    assert costs["easiest"] == n_seen * heavy.training_flops + 4 * 1295 * heavy.forward_flops
    assert costs["el2n"] == 3 * costs["easiest"]


def test_the_study_holds_every_method_and_every_part_once(fidelity: Any) -> None:
    from tests.studies import parts

    for study in parts.STUDIES.values():
        rows = [
            (part.dataset, part.ratio) for name in (*study.beside, study.name) for part in parts.STUDIES[name].parts
        ]
        assert len(set(rows)) == len(rows)
    assert {part.method for part in parts.STUDIES["cifar10"].parts if part.ratio == 0.05} == {*METHODS, None}


def test_what_is_judged_on_is_another_data_set_with_other_architectures_and_nothing_else(fidelity: Any) -> None:
    from tests.studies import parts

    names = ("cifar10", "cifar100")
    tuned, judged = (proxyds.read_recipe(STUDIES / f"{name}.yaml") for name in names)
    assert {study.recipe for study in parts.STUDIES.values()} == set(names)
    assert (tuned.source.name, judged.source.name) == ("uoft-cs/cifar10", "uoft-cs/cifar100")
    same = {name: getattr(tuned, name) for name in ("name", "source", "space")}
    assert judged.model_copy(update=same) == tuned
    of_tuned, of_judged = ({each.name for each in list_studied(recipe)} for recipe in (tuned, judged))
    assert (len(of_tuned), len(of_judged), len(of_tuned & of_judged)) == (24, 24, 0)


def test_what_a_user_may_expect_by_hand(fidelity: Any) -> None:
    from proxyds.artifact.manifest import EstimateRecord
    from tests.studies import page
    from tests.studies.weighing import Found

    def found(method: str, ratio: float, tau: float, regret: float, low: float = -0.1) -> Found:
        told = {
            name: EstimateRecord(value=value, low=value - 0.01, high=value + 0.01)
            for name, value in (("tau", tau), ("regret", regret))
        }
        less = {} if method == "random" else {"random": EstimateRecord(value=0.1, low=low, high=0.2)}
        return Found(method, ratio, 5, 0.5, told, less, {}, None)

    every = [
        found("random", 0.02, 0.5, 0.04),
        found("cases", 0.02, 0.6, 0.03, low=0.01),
        found("random", 0.04, 0.55, 0.04),
    ]
    every += [found("cases", 0.1, 0.8, 0.01), found("random", 0.1, 0.7, 0.02), found("cases", 0.2, 0.9, 0.01)]
    assert page.tell_expectation(every, "cases") == (
        "at 10 % tau 0.80 and a regret of 1.0 points (random samples: 0.70 and 2.0; tau undecided); "
        "at 2 % tau 0.60 and a regret of 3.0 points (random samples: 0.50 and 4.0)."
    )
    # 22 to choose; a training on everything 8; random samples of twice the size cost 0.1 x 8, 0.02 x 8 more each
    assert page.tell_cost(every, "cases", 22, 8.0) == (
        "Choosing takes at least as many FLOPs as 2.8 trainings of the mean architecture on everything. Twice as many samples at random, which nothing has to "
        "choose, take fewer FLOPs in all until more than 27 (at 10 %), 137 (at 2 %) architectures are ranked. 2 % by `cases` have a tau of 0.60, 4 % at random one of 0.55."
    )
    assert page.tell_cost(every, "random", 0, 8.0) == ""


def test_of_several_studies_each_counts_the_same_and_resamples_are_its_own(fidelity: Any) -> None:
    from tests.studies import weighing

    def resampled(tau: float, *methods: str) -> Any:
        noise = np.concatenate([[0.0], np.random.default_rng(0).normal(0, 0.1, 2000)])  # the same in every study
        taus = {
            ("full", None): tau + noise,
            ("random", 0.05): tau - 0.3 + noise,
            **{(name, 0.05): tau - 0.1 + noise for name in methods},
        }
        values = {key: {"tau": each, "regret": 1 - each} for key, each in taus.items()}
        averaged = {key: each["tau"] for key, each in values.items() if key[1]}
        return weighing.Resampled(values, averaged, dict.fromkeys(values, 5), dict.fromkeys(values, tau / 2))

    mean = weighing.take_mean([resampled(0.9, "cases", "easiest"), resampled(0.7, "cases", "herding")], 0)
    found = {each.method: each for each in weighing.weigh(mean)}
    assert set(found) == {"full", "random", "cases"}
    cases, less = found["cases"], found["cases"].tau_less["random"]
    assert (cases.tau, cases.averaged.value, cases.n_draws, cases.mean_accuracy) == pytest.approx((0.7, 0.7, 5, 0.4))
    assert (less.value, less.low, less.high) == pytest.approx((0.2, 0.2, 0.2))  # within a study, resample by resample
    assert cases.regret_less["random"].value == pytest.approx(-0.2)
    width = cases.statistics["tau"].high - cases.statistics["tau"].low
    assert width == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(2), rel=0.1)
    more_often = replace(resampled(0.9, "cases"), n_draws={("cases", 0.05): 7})
    with pytest.raises(ValueError, match="must be drawn as often in every study"):
        weighing.take_mean([resampled(0.9, "cases"), more_often], 0)


def test_other_trainings_cost_the_same_and_labels_are_kept(fidelity: Any, recipe: Recipe, tmp_path: Path) -> None:
    from tests.studies import parts

    probes = make_probes(fidelity, recipe, tmp_path / "store")
    every = {
        "plain": parts.Part("plain", 0.1, "random"),
        "twice the samples, half the epochs": parts.Part("larger", 0.1, "random", size=0.2),
        "smaller batches": parts.Part("batches", 0.1, "random", settings={"batch_size": 16, "learning_rate": 0.01}),
        "four labels": parts.Part("labels", 0.1, "random", n_labels=4),
    }
    study = parts.Study("little", "little", tuple(every.values()))
    sets = {name: list(fidelity.list_sets(study, part, probes, range(2))) for name, part in every.items()}
    assert {name: (each[0].n_samples, each[0].n_steps) for name, each in sets.items()} == {
        "plain": (130, 16), "twice the samples, half the epochs": (259, 16), "smaller batches": (130, 32), "four labels": (130, 16),
    }  # fmt: skip
    kept = [each.kept_labels for each in sets["four labels"]]
    assert all(len(labels) == 4 for labels in kept)
    assert kept[0].tolist() != kept[1].tolist()
    runs = fidelity.list_runs(study, every["smaller batches"], sets["smaller batches"], probes)
    assert {run.task.arguments["settings"].batch_size for run in runs} == {16}
    assert "probes" not in {entry.stage for entry in probes.store.entries()}  # random samples need none
    tuned, judged = (parts.take_half(probes.architectures, half) for half in ("tuning", "judging"))
    assert sorted(each.name for each in (*tuned, *judged)) == sorted(each.name for each in probes.architectures)
    assert (len(tuned), len(judged)) == (3, 2)


def test_every_candidate_draws_what_it_is_asked_for(fidelity: Any, recipe: Recipe, tmp_path: Path) -> None:
    from tests.studies.candidates import CANDIDATES
    from tests.studies.subsets import find_subset

    probes = make_probes(fidelity, recipe, tmp_path / "store")
    chosen = {name: find_subset(tmp_path / "subsets.npz", name, 0.1, 0, probes) for name in CANDIDATES}
    assert {selected.sum() for selected in chosen.values()} == {130}
    assert len({selected.tobytes() for selected in chosen.values()}) == len(CANDIDATES)


@pytest.mark.parametrize(("number", "n_labels"), [(1, 10), (2, 100), (3, 10)])
def test_the_papers_own_figures_are_found_again(fidelity: Any, number: int, n_labels: int) -> None:
    """With what is printed in place of what is measured, both of every two columns are the same."""
    from tests.studies import paper_tables

    table = next(each for each in paper_tables.TABLES if each.number == number)
    recipe = proxyds.read_recipe(ROOT / "recipes" / f"{table.recipe}.yaml", table.overrides)
    assert recipe.importance.protocol == "paper"
    assert recipe.check is not None
    assert {recipe.selection.ratio, *recipe.check.ratios} == ({0.05, 0.1} if number == 1 else {0.1})
    architectures = space.list_architectures(recipe.space, n_labels, (3, 32, 32))
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


def test_the_readme_says_what_the_study_found() -> None:
    readme, page = ((path / "README.md").read_text() for path in (ROOT, FOLDER / "cifar10"))
    told = re.search(r"\*\*What to expect of `easier`\*\* on cifar10: (.*)", page)
    sizes = re.search(r"## How large must it be\?\n\n(\|.*?\|)\n\n", page, re.DOTALL)
    assert told
    assert sizes
    assert told[1] in readme[: readme.index("\n## ")]
    assert sizes[1] in readme[: readme.index("\n## ")]


def read_table(text: str, heading: str) -> dict[str, dict[str, str]]:
    """The first table below a heading: row by row, by its first cell; cells by their column."""
    rows = re.search(rf"{re.escape(heading)}.*?\n\n(\|.*?\|)\n\n", text, re.DOTALL)[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def read_size(page: str, size: int) -> dict[str, dict[str, str]]:
    """What a study's page says of one size: row by row of its two tables."""
    of_size = page[page.index(f"\n## {size} %\n") :]
    less = read_table(of_size, "The same taus less those of the controls")
    return {name: {**row, **less.get(name, {})} for name, row in read_table(of_size, f"## {size} %").items()}


def is_above(cell: str) -> bool:
    """Whether an estimate's interval is above zero."""
    return float(re.findall(NUMBER, cell)[1]) > 0


def is_decided(cell: str) -> bool:
    """Whether an estimate's interval leaves out zero."""
    _, low, high = (float(figure) for figure in re.findall(NUMBER, cell))
    return low > 0 or high < 0


def test_what_the_readme_says_beside_its_table_is_on_the_page() -> None:
    readme, page = ((path / "README.md").read_text() for path in (ROOT, FOLDER / "cifar10"))
    of_5_percent = read_size(page, 5)
    easier = of_5_percent["easier"]
    of_other = read_size((FOLDER / "cifar100" / "README.md").read_text(), 5)["easier"]
    less = {name: row.get("minus random", "") for name, row in of_5_percent.items()}
    by_loss = read_table(page, "\nAt 5 %:")["easier"]["by test loss"]
    at_10, at_2 = (read_size(page, size)["easier"]["minus random"] for size in (10, 2))
    for told in (
        f"flattered by CIFAR-10 ({less['easier']} above random samples)",
        f"there `easier` is {at_10} and {at_2} above random samples",
        f"(`easier` at 5 %: {easier['at the top']} on CIFAR-10, {of_other['at the top']} on CIFAR-100)",
        f"(tau {by_loss} on CIFAR-10 at 5 %)",
        f"({less['el2n']} and\n  {less['forgetting']})",
        f"`cases` cannot be told from random samples ({less['cases']} more)",
        f"full data for fewer epochs ({less['full data, fewer epochs']} more)",
        f"a label gets between {of_5_percent['entropy-tails']['samples of a label'].replace(' to ', ' and ')};",
    ):
        assert told in readme
    undecided = (at_10, at_2, less["cases"], less["full data, fewer epochs"])
    assert not any(is_decided(cell) for cell in (*undecided, easier["at the top"], of_other["at the top"]))
    assert is_above(less["easier"])
    assert is_decided(less["el2n"])
    assert is_decided(less["forgetting"])
    assert of_5_percent["random"]["tau"] < read_size(page, 2)["random"]["tau"]
    for of_size in (read_size(page, size) for size in (10, 2)):
        assert of_size["entropy-tails"]["tau"] < of_size["easier"]["tau"]


def test_what_the_readme_says_of_two_data_sets_is_on_their_pages() -> None:
    readme, together, other, search = (
        (path / "README.md").read_text() for path in (ROOT, FOLDER, *(FOLDER / name for name in ("cifar100", "search")))
    )
    readme = readme[: readme.index("\n## ")]
    table = re.search(r"\n(\| trained on \| cifar10 .*?\|)\n\n", together, re.DOTALL)[1]
    assert table.replace("\n", "\n  ") in readme
    of_both, alone = read_table(together, "## Kendall tau at 5 %"), read_size(other, 5)
    easier, tails, lost = (
        of_both["easier"],
        of_both["entropy-tails"],
        read_table(together, "## Regret at 5 %")["easier"],
    )
    for told in (
        f"`easier` is {alone['easier']['minus random']} above random samples and {alone['easier']['minus cases']} above",
        f"of both data sets is {easier['minus random']} and {easier['minus cases']} above, and {easier['minus stratified']} above stratified",
        f"which is free ({easier['minus counting parameters']} more)",
        f"loses {lost['more than random']} points *more*",
        f"as well or better at 5 % ({tails['minus easier']} more; not at 10 and 2 %",
        f"or not at all (on CIFAR-100 {read_table(other, 'At 5 %:')['easier']['by test loss']})",
    ):
        assert told in readme
    assert next(iter(of_both)) == "entropy-tails"
    ahead = [easier[f"minus {control}"] for control in ("random", "stratified", "cases")]
    ahead += [tails[f"minus {control}"] for control in ("random", "stratified", "cases", "counting parameters")]
    assert all(is_above(cell) for cell in ahead)
    undecided = (
        *(alone[name][f"minus {control}"] for name in ("easier", "entropy-tails") for control in ("random", "cases")),
        easier["minus counting parameters"],
        tails["minus easier"],
        lost["more than random"],
    )
    assert not any(is_decided(cell) for cell in undecided)
    assert alone["entropy-tails"]["samples of a label"].startswith("0 to ")
    learnt = [
        float(row["accuracy on everything"][:-1]) for row in read_table(other + "\n", "## The architectures").values()
    ]
    assert sum(accuracy <= 11 for accuracy in learnt) == 7
    assert {"entropy-tails-stratified", "easier-of-any-label"} <= set(read_size(search, 5))


def test_what_the_architecture_page_says_of_the_study_is_on_its_pages() -> None:
    names = (".", "cifar100", "search", "judging")
    together, other, search, judging = ((FOLDER / name / "README.md").read_text() for name in names)
    of_both, alone = read_table(together, "## Kendall tau at 5 %"), read_size(other, 5)
    easier, tails = of_both["easier"], of_both["entropy-tails"]
    lost = read_table(together, "## Regret at 5 %")["easier"]["more than random"]
    tried, judged = ({name: row["tau"] for name, row in read_size(page, 5).items()} for page in (search, judging))

    ahead = {name: row.get("minus random") for name, row in read_size(judging, 5).items()}

    def tau(of: dict[str, str], name: str) -> str:
        return of[name].split()[0]

    said = " ".join((ROOT / "proxyds" / "ARCHITECTURE.md").read_text().split())
    for told in (
        f"its tau is {easier['minus random']} above that of random samples, {easier['minus stratified']} above that of stratified ones and {easier['minus cases']} above that of `cases`",
        f"the same direction and are undecided ({alone['easier']['minus random']}, {alone['easier']['minus cases']})",
        f"In regret nothing is gained: {lost} points more than random samples",
        f"({tails['minus easier']} above `easier`;",
        f"{tails['minus random']} above random samples, {tails['minus cases']} above `cases`;",
        f"at random from the easier half by the mean loss of all epochs {tau(tried, 'easier-half-area')}; from the easier tenth {tau(tried, 'easier-tenth')}, quarter {tau(tried, 'easier-quarter')}, half {tau(tried, 'easier-half')}, three quarters {tau(tried, 'easier-three-quarters')}, middle half {tau(tried, 'middle-half')};",
        f"as features allow {tau(tried, 'spread-easier-half')}; by cases within it {tau(tried, 'cases-easier-half')}; nearest to the label's mean feature {tau(tried, 'typical')}; what the probe changes its mind about {tau(tried, 'ambiguous')}.",
        f"a third of the learning rate {tau(tried, 'random-low-rate')}; two of the ten labels {tau(tried, 'random-two-labels')}, five {tau(tried, 'random-five-labels')}, three {tau(tried, 'random-three-labels')};",
        f"for half the epochs {tau(tried, 'random-twice-the-size')}, four times {tau(tried, 'random-four-times-the-size')}; batches of 32 {tau(tried, 'random-small-batches')}, of 16 {tau(tried, 'random-tiny-batches')} and of 128 {tau(tried, 'random-large-batches')}",
        f"without crops and flips {tau(tried, 'random-as-it-is')}",
        f"The easiest with batches of 32 {tau(tried, 'easiest-small-batches')}, of 16 {tau(tried, 'easiest-tiny-batches')}, of five labels {tau(tried, 'easiest-five-labels')},",
        f"`easier` of five labels {tau(tried, 'easier-five-labels')}, of two {tau(tried, 'easier-two-labels')}.",
        f"the easiest with batches of 32 have {judged['easiest-small-batches']}, {ahead['easiest-small-batches']} above random samples ({tau(judged, 'random')}, with batches of 32 {tau(judged, 'random-small-batches')}); the easiest with batches of 64 have {tau(judged, 'easiest')}.",
        f"`easier` ({tau(judged, 'easier')}) neither",
    ):
        assert told in said
    assert next(iter(tried)) == "easiest-small-batches"
    assert {name for name, less in ahead.items() if less and is_decided(less)} == {"hardest", "forgetting", "el2n"}


def test_what_the_readme_says_of_a_card_is_on_it() -> None:
    readme = (ROOT / "README.md").read_text()
    of_cards = read_table(readme, "Results differ on other search spaces")
    assert len(of_cards) == 5
    named = {"proxy": "**proxy**", "ceiling": "full data, another seed"}
    for name, told in of_cards.items():
        card = (ROOT / re.search(r"\((.*?)\)", name)[1]).read_text()
        assert f"**{told['verdict'][0].upper()}{told['verdict'][1:]}.**" in card
        method = re.search(r"chosen by the method (`.*?`)", card)
        assert told["drawn by"] == (method[1] if method else "`cases`")  # the paper's, which a card does not name
        for column in ("proxy", "random", "fewer epochs", "counting FLOPs", "counting parameters", "ceiling"):
            if column == "ceiling" and told[column] == "unknown":
                assert "Noise ceiling unknown" in card
            else:
                shown = rf"\| {re.escape(named.get(column, column))} \| \d+ \| {re.escape(told[column])} \|"
                assert re.search(shown, card), (name, column)


NUMBER = r"-?\b\d+(?:\.\d+)?(?:e-?\d+)?\b"


@pytest.mark.parametrize(
    "study", ["cifar10", "cifar100", *(pytest.param(name, marks=pytest.mark.slow) for name in ("search", "judging"))]
)
def test_the_page_is_what_the_rows_give(study: str, fidelity: Any) -> None:
    from tests.studies import parts

    take_rows()
    recipe = proxyds.read_recipe(STUDIES / f"{parts.STUDIES[study].recipe}.yaml")
    fidelity.write_report(parts.STUDIES[study], recipe, list_studied(recipe), 45_000, 5_000)
    again, held = parts.RESULTS / study, FOLDER / study
    assert write_recipe(recipe) == (held / "recipe.yaml").read_text()
    assert {path.name for path in again.iterdir()} == {path.name for path in held.iterdir()}
    assert_same_pages(again, held)


def test_the_page_of_two_data_sets_is_what_their_rows_give(fidelity: Any) -> None:
    from tests.studies import parts

    take_rows()
    recipes = {name: proxyds.read_recipe(STUDIES / f"{name}.yaml") for name in parts.TOGETHER}
    fidelity.write_together([(parts.STUDIES[name], each, list_studied(each)) for name, each in recipes.items()])
    files = [{path.name for path in place.iterdir() if path.is_file()} for place in (parts.RESULTS, FOLDER)]
    assert files[0] == files[1]
    assert_same_pages(parts.RESULTS, FOLDER)


def test_the_page_of_two_data_sets_stays_as_it_was_where_one_is_missing(fidelity: Any, capsys: Any) -> None:
    from tests.studies import parts

    studies = []
    for name in ("cifar10", "cifar100", "judging"):
        recipe = proxyds.read_recipe(STUDIES / f"{parts.STUDIES[name].recipe}.yaml")
        studies.append((parts.STUDIES[name], recipe, list_studied(recipe)))
    told = []
    for named in (studies[2:], [studies[1], *studies[1:]], studies):
        fidelity.write_together(named)
        told.append(capsys.readouterr().out)
    assert told == [
        "",
        "the page of cifar10 and cifar100 is as it was: it is written when both are named\n",
        "there is nothing to weigh together yet: cifar10 lacks the full data or random subsets of 5 %\n",
    ]
    assert not parts.RESULTS.exists()


def take_rows() -> None:
    """Puts every study's rows, subsets and recipe where its report reads them."""
    from tests.studies import parts

    for path in (path for name in ("rows.csv", "recipe.yaml", "subsets.npz") for path in FOLDER.glob(f"*/{name}")):
        taken = parts.RESULTS / path.relative_to(FOLDER)
        taken.parent.mkdir(parents=True, exist_ok=True)
        taken.write_bytes(path.read_bytes())


def assert_same_pages(again: Path, held: Path) -> None:
    """Two folders' pages and estimates say the same, but for what arithmetic may change."""
    for name in ("README.md", "results.json"):
        one, other = ((place / name).read_text() for place in (again, held))
        assert re.sub(NUMBER, "#", one) == re.sub(NUMBER, "#", other)
        figures = [re.findall(NUMBER, text) for text in (one, other)]
        n_digits = [len(figure.partition(".")[2]) for figure in figures[1]]
        last_digit = [1.1 * 10.0 ** -min(n, 3) if n else 0.0 for n in n_digits]  # which may differ
        values = [np.array([float(figure) for figure in of_text]) for of_text in figures]
        assert (abs(values[0] - values[1]) <= last_digit).all()
