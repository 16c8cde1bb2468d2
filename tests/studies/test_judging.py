"""The second study's judgements: on networks and data where nothing was chosen, by intervals."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.stats import kendalltau

from proxyds.recipe.yaml import read_recipe
from proxyds.space.architecture import Architecture
from proxyds.space.networks.plugins import load_plugins
from tests.studies.parts import RECIPES
from tests.studies.second.judging import TRAININGS, find_gain, find_leading, find_methods, read_judging, tabulate_ways
from tests.studies.second.plan import BASE, CHOSEN_TRAINING, JUDGED, LONGER, METHODS, STAGES, TRAINING
from tests.studies.second.run import PLUGIN
from tests.studies.second.summary import render_summary
from tests.studies.second.weighing import find_cost, read_reference

ARCHITECTURES = [Architecture(f"net {i:02}", "stacked", {}, 100 + 20 * i, 300 + 60 * i, 10 + i) for i in range(24)]
Rows = list[dict[str, str]]


def make_rows(noise: dict[tuple[str, str, str], float], seed: int) -> Rows:
    """Made-up rows: accuracies of a stage, variant and method are those on everything with so much noise; margins with a fifth of it."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=len(ARCHITECTURES))
    rows = []
    for (stage, variant, method), deviation in {("reference", "full-80", "full"): 0.05, **noise}.items():
        for number, (each, worth) in product(range(5), zip(ARCHITECTURES, quality, strict=True)):
            shift = deviation * rng.normal()
            row = {"stage": stage, "variant": variant, "method": method, "ratio": 0.05, "number": number}
            scores = {"accuracy": 0.5 + 0.05 * (worth + shift), "margin": 0.1 * (worth + 0.2 * shift)}
            rows.append({key: str(value) for key, value in (row | scores | {"architecture": each.name}).items()})
    return rows


def make_study(*, chosen: float = 0.3, easier: float = 0.1) -> dict[str, Rows]:
    noise = {("judging", name, "random"): 1.2 for name in (BASE, LONGER)}
    noise |= {("judging", CHOSEN_TRAINING, "random"): chosen}
    noise |= {("methods", TRAINING, method): chosen for method in ("random", "stratified")}
    noise |= {("methods", TRAINING, "easier"): easier}
    return {"cifar10": make_rows(noise, 0), "cifar100": make_rows(noise, 1)}


def summarize(study: dict[str, Rows]) -> str:
    load_plugins([PLUGIN])
    return render_summary(study, read_recipe(RECIPES / "second" / "cifar10.yaml"), ARCHITECTURES)


def test_what_judges_is_the_judging_half_of_one_data_set_and_all_of_the_other() -> None:
    ranked = read_judging(make_study(), ARCHITECTURES)
    assert [each.name for each in ranked["cifar10"].architectures] == [each.name for each in ARCHITECTURES[1::2]]
    assert [*ranked["cifar100"].architectures] == ARCHITECTURES
    study = make_study()
    study["cifar100"] = [row for row in study["cifar100"] if row["stage"] != "reference"]
    assert list(read_judging(study, ARCHITECTURES)) == ["cifar10"]


def test_a_cell_is_the_mean_tau_over_draws() -> None:
    study = make_study()
    table = tabulate_ways(read_judging(study, ARCHITECTURES), TRAININGS, ["base"])
    judging = ARCHITECTURES[1::2]
    reference, taus = read_reference(study["cifar10"], judging), []
    for number in range(5):
        of = {
            row["architecture"]: float(row["accuracy"])
            for row in study["cifar10"]
            if (row["variant"], row["method"], row["number"]) == (TRAINING, "random", str(number))
        }
        taus.append(kendalltau(reference, [of[each.name] for each in judging]).statistic)
    (chosen,) = (line.split("|") for line in table if line.startswith("| without soft labels |"))
    assert chosen[2].split()[0] == f"{np.mean(taus):.2f}"
    assert [cell.strip() for cell in table[0].split("|")] == ["", "", "cifar10", "cifar100", "mean", "less base", ""]
    mean = (float(chosen[2].split()[0]) + float(chosen[3].split()[0])) / 2
    assert float(chosen[4].split()[0]) == pytest.approx(mean, abs=0.011)


def test_a_training_becomes_the_default_by_its_interval_alone() -> None:
    clear, alike = make_study(), make_study(chosen=1.2)
    for study, is_default in ((clear, True), (alike, False)):
        gain = find_gain(
            [*read_judging(study, ARCHITECTURES).values()], TRAININGS["without soft labels"], TRAININGS["base"]
        )
        assert (gain.low > 0) == is_default
        assert ("they become the default" in summarize(study)) == is_default


def test_choosing_helps_if_the_leading_method_is_above_random_with_parameters() -> None:
    helps, alike = make_study(chosen=1.0, easier=0.1), make_study(chosen=0.3, easier=0.29)
    assert find_leading(helps["cifar10"], ARCHITECTURES, 0.5)[0] == "easier"
    assert "Choosing helps." in summarize(helps)
    assert "Choosing helps." not in summarize(alike)


def test_methods_that_one_data_set_lacks_are_not_judged() -> None:
    study = make_study()
    study["cifar100"] = [row for row in study["cifar100"] if row["method"] != "easier"]
    ranked = read_judging(study, ARCHITECTURES)
    assert list(find_methods(ranked, "accuracy", 0.5)) == ["random", "stratified"]
    *of_half, _ = [row for row in study["cifar10"] if row["architecture"] != ARCHITECTURES[-1].name]
    assert set(find_leading(of_half, ARCHITECTURES, 0.5)) == {
        "random",
        "stratified",
    }  # a training of `easier` is missing


def test_nothing_is_written_before_there_is_something_to_judge() -> None:
    assert summarize({"cifar10": [], "cifar100": []}) == ""
    only_reference = {name: [row for row in rows if row["stage"] == "reference"] for name, rows in make_study().items()}
    assert summarize(only_reference) == ""


def test_the_base_that_is_judged_beside_the_chosen_training_costs_as_much() -> None:
    assert find_cost(LONGER) == pytest.approx(find_cost(CHOSEN_TRAINING), abs=0.05)
    for stages in (STAGES["cifar10"], STAGES["cifar100"]):
        assert [each.variant for each in stages["judging"]] == [*JUDGED]


def test_of_each_method_every_network_is_trained_on_as_many_draws() -> None:
    stages = STAGES["cifar10"]
    sets = [each for name in ("judging", "methods") for each in stages[name] if each.variant == TRAINING]
    drawn = Counter(
        (each.method, one.name) for each in sets for one in each.choose(ARCHITECTURES) for _ in range(each.n_draws)
    )
    assert {method for method, _ in drawn} == {*METHODS}
    assert len(drawn) == len(METHODS) * len(ARCHITECTURES)
    assert set(drawn.values()) == {5}


def test_costs_are_told_in_trainings_of_the_mean_network() -> None:
    table = {
        line.split("|")[1].strip(): line.split("|")[2].strip()
        for line in summarize(make_study()).split("## What it costs")[1].splitlines()
        if "|" in line
    }
    mean = np.mean([each.training_flops for each in ARCHITECTURES])
    heaviest = ARCHITECTURES[-2]  # of the tuning half
    taught = 13 * heaviest.training_flops + 2 * heaviest.forward_flops
    assert table["soft labels"] == f"{taught / (80 * mean):.2f}"
    assert table["random"] == "0.00"
    assert 0 < float(table["easier-by-start"]) < 0.3 < float(table["cases"])
