"""Pictures of the second study, from made-up rows: every estimate has its dot and interval, every network its marker."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from proxyds.artifact.card.plots import as_png
from proxyds.artifact.evidence_records import EstimateRecord
from proxyds.space.architecture import Architecture
from tests.studies.second.judging import (
    BESIDE_SOFT_LABELS,
    PLAIN,
    SHORT,
    TRAININGS,
    find_gain,
    list_methods,
    read_judging,
)
from tests.studies.second.page import SCORES, list_pictures, render
from tests.studies.second.pictures import DATA_COLOURS, FACTOR_NAMES, draw_gains, draw_networks, draw_ways
from tests.studies.second.plan import BASE, FACTORS, TRAINING
from tests.studies.second.summary import list_summary_pictures
from tests.studies.second.weighing import Gain, Ranked, Way, rank
from tests.studies.test_judging import NETWORKS, make_study, summarize
from tests.studies.test_second import make_rows

ARCHITECTURES = [Architecture(f"net {i}", "stacked", {}, 100 + 20 * i, 300 + 60 * i, 10 + i) for i in range(8)]
_IN_ORDER = [0.4, 0.5, 0.6, 0.7, 0.8]
REACHED = {
    BASE: ([0.1, 0.2, 0.3, *_IN_ORDER], [0.1, 0.2, 0.3, *_IN_ORDER]),
    TRAINING: ([0.4, 0.2, 0.1, *_IN_ORDER], [0.2, 0.2, 0.1, *_IN_ORDER]),
}
"""By variant, of two draws."""
WAYS = {name: Way(name, ("random",), n_draws=2) for name in REACHED}


def make_ranked(*variants: str) -> Ranked:
    rows = [
        {"variant": name, "method": "random", "number": str(i), "architecture": each.name, "accuracy": str(accuracy)}
        for name in variants
        for i, of_draw in enumerate(REACHED[name])
        for each, accuracy in zip(ARCHITECTURES, of_draw, strict=True)
    ]
    return Ranked(rows, ARCHITECTURES, np.linspace(0.6, 0.95, 8))


def read_points(axes: Axes, **wanted: Any) -> list[tuple[float, float]]:
    """Points of the lines that have such a label, colour or marker."""
    lines = [
        line for line in axes.lines if all(getattr(line, f"get_{key}")() == value for key, value in wanted.items())
    ]
    return [tuple(point) for line in lines for point in line.get_xydata().tolist()]


def read_intervals(axes: Axes) -> list[tuple[float, float, float]]:
    """Low ends, high ends and places of the level lines."""
    of = [line.get_xydata().tolist() for line in axes.lines if len(line.get_xydata()) == 2]
    return [(low, high, place) for (low, place), (high, other) in of if place == other and (low, high) != (0, 1)]


def test_networks_two_places_off_are_marked_by_the_mean_of_their_draws() -> None:
    left, right = draw_networks({"CIFAR-10": make_ranked(*REACHED)}, WAYS, "title").axes
    assert len(read_points(left, marker="o")) == 8
    assert read_points(left, marker="^") == read_points(left, marker="v") == []
    assert read_points(right, marker="^") == [(0.6, pytest.approx(0.3))]
    assert read_points(right, marker="v") == [(0.7, pytest.approx(0.1))]
    assert len(read_points(right, marker="o")) == 6


def test_a_training_without_rows_is_not_left_out_in_silence() -> None:
    with pytest.raises(AssertionError, match="CIFAR-10"):
        draw_networks({"CIFAR-10": make_ranked(BASE)}, WAYS, "title")


def test_every_way_has_its_tau_on_each_data_set_and_on_the_mean() -> None:
    sets = {"one": make_ranked(*REACHED), "other": make_ranked(BASE, TRAINING)}
    left, right = draw_ways(sets, WAYS, [BASE], "title").axes
    for colour, each in zip(DATA_COLOURS, ([sets["one"]], [sets["other"]], [*sets.values()]), strict=True):
        taus = [rank(each, way).estimate().as_agreement() for way in WAYS.values()]
        assert [x for x, _ in read_points(left, marker="o", color=colour)] == [tau.value for tau in taus]
        assert {(tau.low, tau.high) for tau in taus} <= {(low, high) for low, high, _ in read_intervals(left)}
    assert len({place for _, place in read_points(left, marker="o")}) == 6
    gain = find_gain([*sets.values()], WAYS[TRAINING], WAYS[BASE])
    assert gain.value < 0
    assert read_points(right, marker="o") == [(gain.value, 1)]
    assert read_intervals(right) == [(gain.low, gain.high, 1)]


def test_a_way_without_rows_has_no_dot() -> None:
    left, right = draw_ways({"one": make_ranked(BASE)}, WAYS, [BASE], "title").axes
    assert len(read_points(left, marker="o")) == 1
    assert not read_points(right, marker="o")


def test_gains_stand_beside_what_their_cost_asks_for() -> None:
    estimate = EstimateRecord(value=0.05, low=0.0, high=0.1)
    gains = [Gain(name, 0.7, estimate, cost, 0.4) for name, cost in (("padding-1", 1.0), ("epochs-52+soft-1", 4.0))]
    (axes,) = draw_gains(gains, "title").axes
    colours = {label: line.get_color() for line in axes.lines if not (label := line.get_label()).startswith("_")}
    assert read_points(axes, marker="o", color=colours["reaches what its cost asks for"]) == [(0.05, 0)]
    ((value, below),) = read_points(axes, marker="o", color=colours["falls short of it"])
    assert (value, below) == (0.05, 2)  # a gap before what stands together
    assert read_points(axes, marker="|") == [(0.03, 0), (pytest.approx(0.09), below)]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "crops padded by 1: cost x 1.00",
        "52 epochs, soft labels: cost x 4.00",
    ]


def test_every_factor_has_a_name_in_pictures() -> None:
    assert FACTOR_NAMES.keys() == FACTORS.keys() - {BASE}


def list_shown(page: str) -> list[str]:
    return re.findall(r"!\[[^]]+\]\((.+?)\)", page)


def test_a_page_shows_the_pictures_that_there_are() -> None:
    study = make_study()
    pictures = list_summary_pictures(study, NETWORKS)
    assert [*pictures] == ["trainings.png", "networks.png", "methods.png"]
    assert {as_png(draw)[:4] for draw in pictures.values()} == {b"\x89PNG"}
    assert list_shown(summarize(study)) == [*pictures]
    only_judging = {name: [row for row in rows if row["stage"] != "methods"] for name, rows in study.items()}
    assert list_shown(summarize(only_judging)) == [*list_summary_pictures(only_judging, NETWORKS)] == [*pictures][:2]
    assert list_summary_pictures({"cifar10": [], "cifar100": []}, NETWORKS) == {}


def test_a_data_set_is_drawn_once_it_has_the_rows() -> None:
    study = make_study()
    study["cifar100"] = [row for row in study["cifar100"] if row["stage"] == "reference" or row["variant"] == BASE]
    assert list_summary_pictures(study, NETWORKS)["networks.png"]().axes[0].get_title() == f"CIFAR-10, {SHORT}"
    assert len(list_summary_pictures(study, NETWORKS)["networks.png"]().axes) == 2
    left, right = list_summary_pictures(study, NETWORKS)["methods.png"]().axes
    of_cifar10 = [read_judging(study, NETWORKS)["cifar10"]]
    ways = list_methods(BESIDE_SOFT_LABELS)
    assert [x for x, _ in read_points(left, marker="o")] == [
        rank(of_cifar10, way).estimate().as_agreement().value for way in ways.values()
    ]
    assert len(read_points(right, marker="o")) == len(ways) - 1
    assert rank(of_cifar10, TRAININGS[PLAIN]) is not None


def test_a_data_sets_page_shows_its_factors_where_these_were_weighed() -> None:
    made, tuning = make_rows({BASE: 1.0, "decay": 0.8})
    rows = [dict.fromkeys(SCORES, "") | row for row in made]
    both = [one for each in tuning for one in (each, Architecture(f"judging {each.name}", "stacked", {}, 1, 3, 1))]
    for of, shown in ((rows, ["factors.png"]), ([row for row in rows if row["stage"] == "reference"], [])):
        assert [*list_pictures(of, both)] == shown
        assert list_shown(render("CIFAR-10", of, both)) == shown
