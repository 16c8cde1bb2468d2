"""Pictures of the second study, from made-up rows: every estimate has its dot, every network its marker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from proxyds.artifact.card.plots import as_png
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.space.architecture import Architecture
from tests.studies.second.pictures import draw_gains, draw_networks, draw_ways
from tests.studies.second.plan import BASE, TRAINING
from tests.studies.second.summary import list_summary_pictures
from tests.studies.second.weighing import Gain, Ranked, Way, rank
from tests.studies.test_judging import NETWORKS, make_study

ARCHITECTURES = [Architecture(f"net {i}", "stacked", {}, 100 + 20 * i, 300 + 60 * i, 10 + i) for i in range(5)]
REACHED = {BASE: [0.1, 0.2, 0.3, 0.4, 0.5], TRAINING: [0.3, 0.2, 0.1, 0.4, 0.5]}
WAYS = {name: Way(name, ("random",), n_draws=1) for name in REACHED}


def make_ranked(reached: dict[str, list[float]]) -> Ranked:
    rows = [
        {"variant": variant, "method": "random", "number": "0", "architecture": each.name, "accuracy": str(accuracy)}
        for variant, accuracies in reached.items()
        for each, accuracy in zip(ARCHITECTURES, accuracies, strict=True)
    ]
    return Ranked(rows, ARCHITECTURES, np.array([0.6, 0.65, 0.7, 0.75, 0.8]))


def read_points(axes: Axes, **wanted: Any) -> list[tuple[float, float]]:
    """Points of the lines that have such a label, or such a marker."""
    lines = [
        line for line in axes.lines if all(getattr(line, f"get_{key}")() == value for key, value in wanted.items())
    ]
    return [tuple(point) for line in lines for point in line.get_xydata().tolist()]


def test_networks_two_ranks_off_are_marked() -> None:
    left, right = draw_networks({"CIFAR-10": make_ranked(REACHED)}, WAYS, "title").axes
    assert (read_points(left, label="too high"), read_points(left, label="too low")) == ([], [])
    assert read_points(right, label="too high") == [(0.6, 0.3)]
    assert read_points(right, label="too low") == [(0.7, 0.1)]
    assert len(read_points(right, label="ranked right, or one rank off")) == 3


def test_a_network_without_accuracy_is_not_drawn_in_silence() -> None:
    with pytest.raises(AssertionError, match="CIFAR-10"):
        draw_networks({"CIFAR-10": make_ranked({BASE: REACHED[BASE]})}, WAYS, "title")


def test_every_way_has_its_tau_on_each_data_set_and_on_the_mean() -> None:
    sets = {"one": make_ranked(REACHED), "other": make_ranked({**REACHED, TRAINING: REACHED[BASE]})}
    left, right = draw_ways(sets, WAYS, BASE, "title").axes
    taus = sorted(x for x, _ in read_points(left, marker="o"))
    assert taus == pytest.approx([0.4, 0.7, 1, 1, 1, 1])
    ((gain, place),) = read_points(right, marker="o")
    assert (gain, place) == (pytest.approx(-0.3), 1)
    assert rank([sets["one"]], WAYS[TRAINING]).mean[0] == pytest.approx(0.4)  # 3 of 10 pairs stand wrong


def test_a_way_without_rows_has_no_dot() -> None:
    left, right = draw_ways({"one": make_ranked({BASE: REACHED[BASE]})}, WAYS, BASE, "title").axes
    assert len(read_points(left, marker="o")) == 1
    assert not read_points(right, marker="o")


def test_gains_are_coloured_by_whether_they_are_worth_their_cost() -> None:
    gains = [
        Gain("padding-1", 0.7, EstimateRecord(value=0.05, low=0.0, high=0.1), 1.0, 0.4),
        Gain("epochs-52", 0.7, EstimateRecord(value=0.05, low=0.0, high=0.1), 4.0, 0.5),
    ]
    (axes,) = draw_gains(gains, "title").axes
    colours = {label: line.get_color() for line in axes.lines if not (label := line.get_label()).startswith("_")}
    assert read_points(axes, marker="o", color=colours["gains enough for its cost"]) == [(0.05, 0)]
    assert read_points(axes, marker="o", color=colours["does not"]) == [(0.05, 1)]


def test_a_page_has_its_pictures_once_there_is_something_to_judge() -> None:
    pictures = list_summary_pictures(make_study(), NETWORKS)
    assert {name: as_png(draw)[:4] for name, draw in pictures.items()} == dict.fromkeys(
        ["trainings.png", "networks.png", "methods.png"], b"\x89PNG"
    )
    only_judging = {name: [row for row in rows if row["stage"] != "methods"] for name, rows in make_study().items()}
    assert [*list_summary_pictures(only_judging, NETWORKS)] == ["trainings.png", "networks.png"]
    assert list_summary_pictures({"cifar10": [], "cifar100": []}, NETWORKS) == {}
