"""The second study's judgements: on networks and data where nothing was chosen, by intervals."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.stats import kendalltau

from proxyds.artifact.ranking_table import FEWER_EPOCHS
from proxyds.recipe.yaml import read_recipe
from proxyds.space.architecture import Architecture
from proxyds.space.networks.plugins import load_plugins
from tests.studies.parts import RECIPES
from tests.studies.second.judging import (
    BESIDE_LABELS,
    BESIDE_SOFT_LABELS,
    N_DRAWS,
    N_DRAWS_OF_METHODS,
    PLAIN,
    SHORT,
    SOFT,
    TRAININGS,
    find_gain,
    find_leading,
    list_methods,
    read_judging,
    tabulate_ways,
)
from tests.studies.second.plan import BASE, CHOSEN_TRAINING, FORMER, LONGER, METHODS, STAGES, TRAINING
from tests.studies.second.run import PLUGIN
from tests.studies.second.summary import UNDECIDED, Comparison, compare_looked_for, render_summary
from tests.studies.second.weighing import Ranked, Way, find_cost, find_regret, rank, read_reference

ARCHITECTURES = [Architecture(f"net {i:02}", "stacked", {}, 100 + 20 * i, 300 + 60 * i, 10 + i) for i in range(24)]
NETWORKS = {"cifar10": ARCHITECTURES, "cifar100": ARCHITECTURES}
Rows = list[dict[str, str]]


def make_rows(noise: dict[tuple[str, str, str], float], seed: int) -> Rows:
    """Made-up rows: accuracies of a stage, variant and method are those on everything with so much noise; margins with a fifth of it.

    They are of 5 % of the samples, and of 10 % in stages of other sizes.
    """
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=len(ARCHITECTURES))
    rows = []
    for (stage, variant, method), deviation in {("reference", "full-80", "full"): 0.05, **noise}.items():
        n = 3 if stage == "reference" else 5
        for number, (each, worth) in product(range(n), zip(ARCHITECTURES, quality, strict=True)):
            shift = deviation * rng.normal()
            row = {"stage": stage, "variant": variant, "method": method, "number": number}
            row["ratio"] = 0.1 if stage.startswith("sizes") else 0.05
            scores = {"accuracy": 0.5 + 0.05 * (worth + shift), "margin": 0.1 * (worth + 0.2 * shift)}
            scores["loss"] = 1 - scores["accuracy"]
            rows.append({key: str(value) for key, value in (row | scores | {"architecture": each.name}).items()})
    return rows


def make_study(*, plain: float = 0.3, soft: float = 0.3, easier: float = 0.1, others: float = 0.4) -> dict[str, Rows]:
    noise = {("judging", name, "random"): 1.2 for name in (BASE, LONGER, FORMER)}
    noise |= {("judging", CHOSEN_TRAINING, "random"): soft, ("judging", TRAINING, "random"): plain}
    noise |= {("methods", CHOSEN_TRAINING, name): easier if name == "easier" else others for name in METHODS[1:]}
    return {"cifar10": make_rows(noise, 0), "cifar100": make_rows(noise, 1)}


def summarize(study: dict[str, Rows]) -> str:
    load_plugins([PLUGIN])
    return render_summary(study, read_recipe(RECIPES / "second" / "cifar10.yaml"), NETWORKS)


def test_what_judges_is_the_judging_half_of_one_data_set_and_all_of_the_other() -> None:
    study = make_study()
    ranked = read_judging(study, NETWORKS)
    assert [each.name for each in ranked["cifar10"].architectures] == [each.name for each in ARCHITECTURES[1::2]]
    assert [*ranked["cifar100"].architectures] == ARCHITECTURES
    study["cifar100"] = [row for row in study["cifar100"] if row["stage"] != "reference"]
    assert list(read_judging(study, NETWORKS)) == ["cifar10"]


def test_a_cell_is_the_mean_tau_over_draws() -> None:
    study = make_study()
    table = tabulate_ways(read_judging(study, NETWORKS), TRAININGS, [SHORT])
    judging = ARCHITECTURES[1::2]
    reference, taus = read_reference(study["cifar10"], judging), []
    for number in range(5):
        of = {
            row["architecture"]: float(row["accuracy"])
            for row in study["cifar10"]
            if (row["variant"], row["method"], row["number"]) == (TRAINING, "random", str(number))
        }
        taus.append(kendalltau(reference, [of[each.name] for each in judging]).statistic)
    (cells,) = (line.split("|") for line in table if line.startswith(f"| {PLAIN} |"))
    assert cells[2].split()[0] == f"{np.mean(taus):.2f}"
    assert [cell.strip() for cell in table[0].split("|")[2:-1]] == ["cifar10", "cifar100", "mean", f"less {SHORT}"]
    mean = (float(cells[2].split()[0]) + float(cells[3].split()[0])) / 2
    assert float(cells[4].split()[0]) == pytest.approx(mean, abs=0.011)


def test_a_training_becomes_the_default_by_its_intervals_alone() -> None:
    clear, alike = make_study(), make_study(plain=1.2)
    for study, is_default in ((clear, True), (alike, False)):
        assert ("so the base is the default." in summarize(study)) != is_default
        gain = find_gain([*read_judging(study, NETWORKS).values()], TRAININGS[PLAIN], TRAININGS[SHORT])
        assert (gain.low > 0) == is_default
        assert ("so this is the default" in summarize(study)) == is_default


def test_soft_labels_and_the_margin_are_taken_by_what_they_gain_over_the_training_without() -> None:
    similar = make_study(plain=0.3, soft=0.29)
    gain = find_gain([*read_judging(similar, NETWORKS).values()], TRAININGS[SOFT], TRAININGS[PLAIN])
    assert gain.low < 0 < gain.value
    better, alike = summarize(make_study(plain=0.6, soft=0.05)), summarize(similar)
    assert "Their share is above zero." in better
    assert "So the margin ranks." in better
    assert "Their share is not settled." in alike
    assert "So accuracy ranks." in summarize(make_study(plain=0.0))


@pytest.mark.parametrize("lacking", ["reference", "judging", "the last draw"])
def test_nothing_is_decided_before_all_rows_are_there_on_both_data_sets(lacking: str) -> None:
    study = make_study()
    if lacking == "the last draw":
        study["cifar100"] = [row for row in study["cifar100"] if (row["variant"], row["number"]) != (TRAINING, "4")]
    else:
        study["cifar100"] = [row for row in study["cifar100"] if row["stage"] != lacking]
    page = summarize(study)
    assert UNDECIDED in page
    assert f"| {SHORT} |" in page
    assert "is the default." not in page
    assert "Choosing helps" not in page


def test_a_data_set_that_lacks_rows_leaves_the_figures_of_the_other_alone() -> None:
    study = make_study()
    alone = summarize({**study, "cifar100": []})
    study["cifar100"] = [row for row in study["cifar100"] if row["variant"] in ("full-80", BASE)]
    assert [line for line in summarize(study).splitlines() if line.startswith("| ")] == [
        line for line in alone.splitlines() if line.startswith("| ")
    ]


def test_choosing_helps_if_the_leading_method_is_above_random() -> None:
    helps, alike = make_study(soft=1.0, easier=0.1), make_study(soft=0.3, easier=0.35)
    assert find_leading(helps["cifar10"], ARCHITECTURES, BESIDE_SOFT_LABELS) == ["easier"]
    assert "Choosing helps, by `easier`." in summarize(helps)
    assert "Choosing helps" not in summarize(alike)


def test_methods_that_share_the_lead_are_all_judged() -> None:
    study = make_study(soft=1.0, easier=0.1)
    for rows in study.values():
        of_easier = [row for row in rows if (row["stage"], row["method"]) == ("methods", "easier")]
        rows[:] = [row for row in rows if (row["stage"], row["method"]) != ("methods", "cases")]
        rows += [row | {"method": "cases"} for row in of_easier]
    assert find_leading(study["cifar10"], ARCHITECTURES, BESIDE_SOFT_LABELS) == ["cases", "easier"]
    assert "Choosing helps, by `cases` or `easier`." in summarize(study)


@pytest.mark.parametrize(("of_stratified", "better"), [("loss", "random"), ("margin", "stratified")])
def test_the_better_of_random_and_stratified_samples_is_named_where_choosing_does_not_help(
    of_stratified: str, better: str
) -> None:
    study = make_study(soft=0.3, easier=0.31, others=1.2)
    for rows in study.values():
        for row in rows:
            if row["method"] == "stratified" and of_stratified == "margin":  # of a fifth of the noise
                row["loss"] = str(-float(row["margin"]))
    ranked = [*read_judging(study, NETWORKS).values()]
    taus = {name: rank(ranked, list_methods(BESIDE_SOFT_LABELS)[name]).mean[0] for name in ("random", "stratified")}
    assert max(taus, key=lambda name: taus[name]) == better
    assert f"`{better}` ones have the higher tau" in summarize(study)


def is_of_net_22(row: dict[str, str], method: str) -> bool:
    return (row["method"], row["architecture"], row["variant"]) == (method, "net 22", CHOSEN_TRAINING)


def test_no_method_leads_while_one_lacks_a_training() -> None:
    study = make_study()
    for name in METHODS:
        *_, last = [row for row in study["cifar10"] if is_of_net_22(row, name)][:N_DRAWS_OF_METHODS]
        without = [row for row in study["cifar10"] if row is not last]
        assert (find_leading(without, ARCHITECTURES, BESIDE_SOFT_LABELS) == []) == (name != FEWER_EPOCHS)


def test_nothing_is_written_before_there_is_something_to_judge() -> None:
    assert summarize({"cifar10": [], "cifar100": []}) == ""
    only_reference = {name: [row for row in rows if row["stage"] == "reference"] for name, rows in make_study().items()}
    assert summarize(only_reference) == ""


def test_the_longer_base_costs_as_much_as_the_training_with_soft_labels() -> None:
    assert find_cost(LONGER) == pytest.approx(find_cost(CHOSEN_TRAINING), abs=0.05)


def test_of_each_method_every_network_is_trained_on_as_many_draws() -> None:
    stages = STAGES["cifar10"]
    sets = [each for name in ("judging", "methods") for each in stages[name] if each.variant == CHOSEN_TRAINING]
    drawn = Counter(
        (each.method, one.name) for each in sets for one in each.choose(ARCHITECTURES) for _ in range(each.n_draws)
    )
    assert {method for method, _ in drawn} == {*METHODS}
    assert len(drawn) == len(METHODS) * len(ARCHITECTURES)
    judged = {
        (method, name): n for (method, name), n in drawn.items() if method == "random" and n != N_DRAWS_OF_METHODS
    }
    assert set(judged.values()) == {N_DRAWS}  # random samples of the judging half judge trainings, too
    assert set(drawn.values()) == {N_DRAWS_OF_METHODS, N_DRAWS}


def test_costs_are_told_in_trainings_of_the_mean_network() -> None:
    table = {
        line.split("|")[1].strip(): line.split("|")[2].strip()
        for line in summarize(make_study()).split("## What it costs")[1].splitlines()
        if "|" in line
    }
    assert table["random"] == "0.00"
    # the heaviest of the tuning half for 13 epochs of 80; it costs 1.64 times the mean, and is asked twice about each sample
    assert table["soft labels"] == f"{(13 * 1620 + 2 * 540) / (80 * 990):.2f}"
    assert 0 < float(table["easier-by-start"]) < 0.3 < float(table["cases"])


def test_random_samples_and_fewer_epochs_together_are_compared_with_twice_as_many_samples() -> None:
    study = make_study()
    assert "trained twice" not in summarize(study)
    worth = {}
    for noise in (0.0, 3.0):
        sizes = make_rows({("sizes", CHOSEN_TRAINING, "random"): noise}, 0)
        rows = [*study["cifar10"], *(row for row in sizes if row["stage"] == "sizes")]
        worth[noise] = "So they are worth it." in summarize({**study, "cifar10": rows})
    assert worth == {0.0: False, 3.0: True}


@pytest.mark.parametrize(
    ("stage", "training", "of_5_percent", "title"),
    [
        ("sizes", CHOSEN_TRAINING, "methods", "soft labels"),
        ("sizes-base", BASE, "methods-base", "the default training"),
    ],
)
def test_methods_are_compared_at_other_sizes_on_the_judging_half(
    stage: str, training: str, of_5_percent: str, title: str
) -> None:
    study = make_study()
    assert "## Other sizes" not in summarize(study)
    noise = {(stage, training, name): 0.0 if name == "cases" else 2.0 for name in ("random", "cases")}
    noise |= {(of_5_percent, training, name): 0.4 for name in METHODS[1:]}
    rows = [*study["cifar10"], *(row for row in make_rows(noise, 0) if row["stage"] != "reference")]
    section = summarize({**study, "cifar10": rows}).partition(f"## Other sizes, with {title}\n")[2].partition("## ")[0]
    of = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in section.splitlines() if "|" in line)
    }
    assert of[""][0::3] == ["2 %", "less random at 2 %"]
    assert "easier" not in of  # it is at 5 % alone
    assert of["cases"][0] == of["cases"][3] == "–"  # no rows of 2 %
    assert float(of["cases"][2].split()[0]) > 0.8
    assert float(of["cases"][5].split()[0]) > 0.3
    assert of["random"][3:] == [""] * 3


def test_what_a_search_loses_with_three_finalists_is_the_mean_over_draws() -> None:
    names = ["a", "b", "c", "d"]
    networks = [Architecture(name, "stacked", {}, 1, 1, 1) for name in names]
    reference = np.array([0.9, 0.8, 0.7, 0.6])
    of_draws = {0: [0.5, 0.4, 0.3, 0.2], 1: [0.1, 0.4, 0.3, 0.2], 2: [0.1, 0.1, 0.1, 0.2]}
    rows = [
        {"variant": BASE, "method": "random", "number": str(number), "architecture": name, "accuracy": str(accuracy)}
        for number, accuracies in of_draws.items()
        for name, accuracy in zip(names, accuracies, strict=True)
    ]
    way = Way(BASE, ("random",))
    # nothing, what the best has above the second, a third of that: two of three networks alike are taken besides the last one
    assert find_regret(Ranked(rows, networks, reference), way, 3) == pytest.approx((0 + 0.1 + 0.1 / 3) / 3)
    assert find_regret(Ranked(rows[:-1], networks, reference), way, 3) is None


def test_methods_are_judged_with_the_default_training_by_accuracy_and_parameters() -> None:
    study = make_study()
    assert "with the default training" not in summarize(study)
    for seed, rows in enumerate(study.values()):
        noise = {("methods-base", BASE, name): 0.05 if name == "cases" else 1.5 for name in METHODS}
        rows += [row for row in make_rows(noise, seed) if row["stage"] != "reference"]
    assert find_leading(study["cifar10"], ARCHITECTURES, BESIDE_LABELS) == ["cases"]
    assert find_leading(study["cifar10"], ARCHITECTURES, BESIDE_SOFT_LABELS) == ["easier"]
    of_base = summarize(study).partition("with the default training")[2].partition("## ")[0]
    assert "`cases` leads" in of_base
    assert "Choosing helps, by `cases`." in of_base
    assert "ranked by loss" not in of_base


def test_cheaper_probes_do_in_place_of_easier_by_their_intervals_alone() -> None:
    study = make_study()
    for seed, rows in enumerate(study.values()):
        noise = {("judging", BASE, "random"): 3.0, ("methods-base", BASE, "easier"): 0.05}
        noise |= {("methods-base", BASE, name): 1.5 for name in METHODS if name != "easier"}
        noise |= {("looked-for", BASE, "easier-by-start"): 0.1, ("looked-for", BASE, "easier-by-middle"): 3.0}
        rows[:] = make_rows(noise, seed)
    made_before = {name: [row for row in rows if row["stage"] != "looked-for"] for name, rows in study.items()}
    section = tell_looked_for(study)
    assert tell_looked_for(made_before) == ""
    verdicts = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("- ")}
    assert "It does in place of" in verdicts["easier-by-start"]
    assert "It is not shown to do" in verdicts["easier-by-middle"]
    assert "| cases-easier-half |" not in section


def tell_looked_for(study: dict[str, Rows]) -> str:
    titled = read_judging(study, NETWORKS)
    return "\n".join(compare_looked_for(Comparison(titled, [*titled.values()], study["cifar10"], ARCHITECTURES)))
