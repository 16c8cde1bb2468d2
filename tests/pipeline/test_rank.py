from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from proxyds.artifact.ranking_table import FULL, PROXY
from proxyds.artifact.tables import read_proxy
from proxyds.errors import AccuracyTableError, ArgumentError, CallableError, PluginError, RecipeError
from proxyds.evaluation.decision.plot import draw_ranking
from proxyds.pipeline.rank import rank
from proxyds.pipeline.resample import apply
from proxyds.runtime.storage.store import Store
from proxyds.space.cost import measure_network
from tests.conftest import Run

OTHERS = {f"mine-{i}": 0.55 + i / 40 for i in range(6)}
"""Candidates of no search space, within the accuracies of the check."""


@pytest.fixture(scope="session")
def names(checked_proxy: Path) -> list[str]:
    manifest, _ = read_proxy(checked_proxy)
    assert manifest.evidence is not None
    return [each.name for each in manifest.evidence.architectures]


def test_candidates_come_with_chances_and_a_shortlist(checked_proxy: Path) -> None:
    ranking = rank(str(checked_proxy), OTHERS)
    assert ranking.order_only is None
    assert ranking.n_fitted == 8
    expected = [each.expected for each in ranking.candidates]
    assert expected == sorted(expected, reverse=True)
    assert sum(each.chance_of_best or 0 for each in ranking.candidates) == pytest.approx(1)
    assert all(each.low < each.expected < each.high for each in ranking.candidates)
    assert {each.name for each in ranking.candidates if each.is_listed} == set(ranking.shortlist)
    assert ranking.chance_of_shortlist >= 0.9
    assert any("search space" in note for note in ranking.notes)
    assert rank(str(checked_proxy), OTHERS) == ranking


def test_more_confidence_asks_for_no_shorter_list(checked_proxy: Path) -> None:
    sizes = [len(rank(str(checked_proxy), OTHERS, confidence=confidence).shortlist) for confidence in (0.5, 0.9, 0.99)]
    assert sizes == sorted(sizes)


def test_accuracies_that_become_known_settle_it(checked_proxy: Path) -> None:
    open_ranking = rank(str(checked_proxy), OTHERS)
    first = open_ranking.shortlist[0]
    results: dict[str, Any] = {name: {"accuracy": accuracy} for name, accuracy in OTHERS.items()}
    results[first]["full_accuracy"] = 0.95
    ranking = rank(str(checked_proxy), results)
    of_first = next(each for each in ranking.candidates if each.name == first)
    assert of_first.expected == pytest.approx(0.95, abs=0.001)
    assert ranking.n_fitted == 9
    assert ranking.is_settled
    assert ranking.chance_of_known > 0.9


def test_the_check_knows_its_own_architectures_already(checked_proxy: Path, names: list[str]) -> None:
    results = {name: 0.55 + i / 40 for i, name in enumerate(names)}
    ranking = rank(str(checked_proxy), results)
    assert ranking.is_settled
    assert ranking.to_train == ()
    assert f"take {names[0]}" in str(ranking)
    assert ranking.shortlist == (names[0],)
    assert ranking.n_fitted == 8
    assert not any("search space" in note for note in ranking.notes)
    assert any(f"all {len(names)}" in note for note in ranking.notes)


def test_an_accuracy_on_everything_that_differs_from_the_checks_is_told(checked_proxy: Path, names: list[str]) -> None:
    results: dict[str, Any] = {name: {"accuracy": 0.55 + i / 40} for i, name in enumerate(names)}
    results[names[1]]["full_accuracy"] = 0.123
    notes = rank(str(checked_proxy), results).notes
    assert any(note.startswith(names[1]) and "12.30%" in note for note in notes)


def test_a_table_of_the_check_is_taken_as_it_is(checked_proxy: Path, tmp_path: Path) -> None:
    _, tables = read_proxy(checked_proxy)
    rows = tables.ranking.to_pylist()
    with (tmp_path / "ranking.csv").open("w", newline="") as file:  # as pandas writes what it has read
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    ranking = rank(str(checked_proxy), tmp_path / "ranking.csv")
    full = {row["architecture"]: [] for row in rows}
    for row in rows:
        if row["dataset"] == FULL:
            full[row["architecture"]].append(row["accuracy"])
    n_repeats = sum(row["dataset"] == PROXY and row["architecture"] == rows[0]["architecture"] for row in rows)
    for each in ranking.candidates:
        assert each.full_accuracy == pytest.approx(np.mean(full[each.name]))
        assert each.n_runs == n_repeats


def test_names_of_the_search_space_are_counted(checked_proxy: Path, names: list[str]) -> None:
    assert rank(str(checked_proxy), {names[1]: 0.6, names[2]: 0.7}).uses_parameters
    ranking = rank(str(checked_proxy), OTHERS)
    assert not ranking.uses_parameters
    assert any("n_parameters" in note for note in ranking.notes)


def make(width: int, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[-1] ** 2, width), nn.Linear(width, n_labels))


def test_networks_are_counted_as_modules_and_as_functions_that_make_them(checked_proxy: Path, names: list[str]) -> None:
    factories = {name: partial(make, 4 * i) for i, name in enumerate(OTHERS, 1)}
    modules = {name: factory(10, (1, 8, 8)) for name, factory in factories.items()}
    before = torch.random.get_rng_state()
    ranking = rank(str(checked_proxy), OTHERS, space=factories)
    assert torch.equal(before, torch.random.get_rng_state())
    assert ranking.uses_parameters
    assert rank(str(checked_proxy), OTHERS, space=modules) == ranking
    # the whole space, of which results hold some
    assert rank(str(checked_proxy), OTHERS, space={names[0]: partial(make, 3), **factories}) == ranking


def test_a_network_at_hand_is_counted_and_left_as_it_was() -> None:
    frozen = nn.BatchNorm2d(3).eval()
    network = nn.Sequential(frozen, nn.Flatten(), nn.Linear(12, 5, bias=False))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert measure_network("x", network, (3, 2, 2)) == (60 + 6, 2 * 12 * 5)
    assert network.training
    assert not frozen.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(RecipeError, match="x must work"):
        measure_network("x", network, (3, 9, 9))
    assert network.training


@pytest.mark.parametrize("network", [nn.Flatten(), "resnet", nn.Linear, lambda: 3, lambda: 1 / 0])
def test_what_is_no_network_is_refused(checked_proxy: Path, network: Any) -> None:
    with pytest.raises((CallableError, RecipeError), match="mine-0"):
        rank(str(checked_proxy), OTHERS, space={"mine-0": network})


def test_a_network_of_no_candidate_is_refused(checked_proxy: Path) -> None:
    with pytest.raises(AccuracyTableError, match="mine-9"):
        rank(str(checked_proxy), OTHERS, space={"mine-9": nn.Linear(2, 2)})


def test_samples_that_accuracies_are_of_are_named(checked_proxy: Path) -> None:
    said = [
        any("test samples" in note for note in rank(str(checked_proxy), OTHERS, measured_on=on).notes)
        for on in ("validation", "test")
    ]
    assert said == [True, False]  # the check is of a table, which has no accuracies on validation
    with pytest.raises(ArgumentError, match="measured_on"):
        rank(str(checked_proxy), OTHERS, measured_on="val")  # type: ignore[arg-type]


@pytest.mark.parametrize("confidence", [0.4, 1, "0.9", None, float("nan")])
def test_a_confidence_that_is_none_is_refused(checked_proxy: Path, confidence: Any) -> None:
    with pytest.raises(ArgumentError, match="confidence: must be a number"):
        rank(str(checked_proxy), OTHERS, confidence=confidence)


def test_where_the_space_cannot_be_listed_that_is_said(checked_proxy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PluginError("no module my_networks")

    monkeypatch.setattr("proxyds.pipeline.rank.list_architectures", refuse)
    ranking = rank(str(checked_proxy), OTHERS)
    assert ranking.shortlist
    assert any("my_networks" in note for note in ranking.notes)


def test_a_proxy_of_an_index_names_the_one_that_has_the_check(
    checked_proxy: Path, session_store: Path, tmp_path: Path
) -> None:
    made = apply(checked_proxy, tmp_path / "made", store=Store(session_store)).folder
    ranking = rank(str(made), OTHERS)
    assert ranking.shortlist == ()
    assert any("made from an index" in note for note in ranking.notes)


def test_without_a_check_there_is_an_order_and_the_reason(tiny_proxy: Path) -> None:
    ranking = rank(str(tiny_proxy), OTHERS)
    assert [each.name for each in ranking.candidates] == sorted(OTHERS, key=lambda name: -OTHERS[name])
    assert ranking.shortlist == ()
    assert all(each.chance_of_best is None for each in ranking.candidates)
    assert "proxyds check" in (ranking.order_only or "")
    assert "proxyds check" in str(ranking).partition("candidate ")[0]
    assert "proxyds check" in repr(ranking)
    assert any("search space" in note for note in ranking.notes)


def test_accuracies_unlike_the_checks_get_no_chances(checked_proxy: Path) -> None:
    ranking = rank(str(checked_proxy), {name: accuracy / 20 for name, accuracy in OTHERS.items()})
    assert ranking.shortlist == ()
    assert "6 of 6" in (ranking.order_only or "")
    assert any("below chance" in note for note in ranking.notes)


def test_the_best_known_is_the_one_with_the_highest_accuracy_however_close(checked_proxy: Path) -> None:
    results = {name: {"accuracy": accuracy, "full_accuracy": 0.9} for name, accuracy in OTHERS.items()}
    first, second, *_ = results
    results[first]["full_accuracy"], results[second]["full_accuracy"] = 0.9999, 1.0
    assert rank(str(checked_proxy), results).best_known == second


def test_known_accuracies_unlike_what_was_expected_are_told(checked_proxy: Path) -> None:
    results = {name: {"accuracy": accuracy, "full_accuracy": 0.2 + accuracy / 100} for name, accuracy in OTHERS.items()}
    assert any("trained otherwise" in note for note in rank(str(checked_proxy), results).notes)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (dict.fromkeys(OTHERS, 0.5), "differ"),
        ({"a": {"full_accuracy": 0.5}, "b": {"accuracy": 0.5}}, "accuracy on the proxy"),
        ({"a": 0.5}, "two"),
    ],
)
def test_what_cannot_be_ranked_is_refused(checked_proxy: Path, results: Any, said: str) -> None:
    with pytest.raises(AccuracyTableError, match=said):
        rank(str(checked_proxy), results)


def write(folder: Path, results: dict[str, float]) -> Path:
    lines = ["architecture,accuracy", *(f"{name},{accuracy}" for name, accuracy in results.items())]
    (folder / "results.csv").write_text("\n".join([*lines, ""]))
    return folder / "results.csv"


def test_one_open_candidate_beside_known_ones_is_not_given_their_chance(
    run_proxyds: Run, checked_proxy: Path, tmp_path: Path
) -> None:
    results: dict[str, Any] = {name: {"accuracy": accuracy} for name, accuracy in OTHERS.items()}
    results["mine-5"]["full_accuracy"] = 0.66
    results["mine-4"]["full_accuracy"] = 0.40
    (tmp_path / "results.json").write_text(json.dumps(results))
    ranking = rank(str(checked_proxy), results)
    shown = run_proxyds("rank", str(checked_proxy), str(tmp_path / "results.json")).stdout
    is_open = [each for each in ranking.shortlist if "full_accuracy" not in results[each]]
    assert is_open
    assert ranking.to_train == tuple(is_open)
    assert f"train on everything: {', '.join(is_open)}" in shown
    assert ("mine-5" in ranking.shortlist) == ("among these and mine-5" in shown)


def test_the_command_says_which_to_train(pictures: None, run_proxyds: Run, checked_proxy: Path, tmp_path: Path) -> None:
    ended = run_proxyds("rank", str(checked_proxy), str(write(tmp_path, OTHERS)), "--plot", str(tmp_path / "p.png"))
    assert ended.returncode == 0
    assert "mine-5" in ended.stdout
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert ended.stdout == rank(str(checked_proxy), OTHERS).describe(None, others_in="--json") + "\n"
    as_json = json.loads(run_proxyds("rank", str(checked_proxy), str(tmp_path / "results.csv"), "--json").stdout)
    assert set(as_json["shortlist"]) <= set(OTHERS)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_ranking_gives_the_same_picture(
    suffix: str, pictures: None, checked_proxy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = rank(checked_proxy, write(tmp_path, OTHERS))
    drawn = [tmp_path / f"{number}.{suffix}" for number in (1, 2)]
    for path, now in zip(drawn, ("1000000000", "1500000000"), strict=True):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", now)  # the time that matplotlib writes into PDF and SVG files
        draw_ranking(ranking, path)
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


@pytest.mark.parametrize(
    "arguments", [("none.csv",), ("results.csv", "--plot", "p.doc"), ("results.csv", "--confidence", "2")]
)
def test_the_command_names_what_it_cannot_use(
    run_proxyds: Run, checked_proxy: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    write(tmp_path, OTHERS)
    ended = run_proxyds("rank", str(checked_proxy), *(str(tmp_path / a) if "." in a else a for a in arguments))
    assert ended.returncode not in (0, 1)
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 4
