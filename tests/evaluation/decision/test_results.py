from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyds.errors import AccuracyTableError
from proxyds.evaluation.decision.results import COLUMNS, read_results

ROWS = [
    {"architecture": "a", "accuracy": 0.5, "n_parameters": 10},
    {"architecture": "b", "accuracy": 0.6, "n_parameters": 20},
]
CSV = "architecture,accuracy,n_parameters\na,0.5,10\nb,0.6,20\n"


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_every_form_gives_the_same_candidates(tmp_path: Path) -> None:
    class Polars:  # what is used of it
        def to_dicts(self) -> list[dict[str, Any]]:
            return ROWS

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "r.parquet")
    by_name = {row["architecture"]: {k: v for k, v in row.items() if k != "architecture"} for row in ROWS}
    forms = [
        write(tmp_path, "r.csv", CSV),
        str(tmp_path / "r.csv"),
        write(tmp_path, "r.json", json.dumps(ROWS)),
        write(tmp_path, "named.json", json.dumps(by_name)),
        tmp_path / "r.parquet",
        pa.Table.from_pylist(ROWS),
        pd.DataFrame(ROWS),
        Polars(),
        by_name,
        ROWS,
    ]
    first, *others = [read_results(form, 0.1) for form in forms]
    assert all(other == first for other in others)
    assert [each.name for each in first.candidates] == ["a", "b"]
    assert first.candidates[1].n_parameters == 20
    assert first.candidates[0].runs[0].accuracy == 0.5


def test_names_with_accuracies_are_enough() -> None:
    read = read_results({"a": 50, "b": 60.5}, 0.1)
    assert [each.runs[0].accuracy for each in read.candidates] == [0.5, 0.605]


def test_repeats_and_known_accuracies_are_gathered_by_name() -> None:
    rows = [
        {"architecture": "a", "accuracy": 0.5, "training_seed": 0},
        {"architecture": "a", "accuracy": 0.52, "training_seed": 1.0, "full_accuracy": 0.9},
        {"architecture": "b", "accuracy": 0.6, "training_seed": None, "full_accuracy": float("nan")},
    ]
    a, b = read_results(rows, 0.1).candidates
    assert [(run.draw, run.seed) for run in a.runs] == [(0, 0), (0, 1)]
    assert a.full_accuracy == 0.9
    assert b.full_accuracy is None


@pytest.mark.parametrize(("second", "mean", "n_full"), [(0.9, 0.9, 1), (0.8, 0.85, 2)])
def test_accuracies_on_everything_of_one_candidate_are_trainings_where_they_differ(
    second: float, mean: float, n_full: int
) -> None:
    rows = [
        {"architecture": "a", "accuracy": 0.5, "training_seed": 0, "full_accuracy": 0.9},
        {"architecture": "a", "accuracy": 0.52, "training_seed": 1, "full_accuracy": second},
        {"architecture": "b", "accuracy": 0.6},
    ]
    a, _ = read_results(rows, 0.1).candidates
    assert (a.full_accuracy, a.n_full) == (pytest.approx(mean), n_full)


@pytest.mark.parametrize(("name", "text", "said"), [
    ("none.csv", None, "no such file"), ("none.json", None, "no such file"), ("r.json", "", "empty"), ("r.csv", "", "empty"),
    ("r.parquet", "", "empty"), ("r.csv", CSV.replace(",", ";"), "semicolons"),
    ("r.csv", "architecture,accuracy\na,93,51\nb,94,02\n", "decimal points"), ("r.json", '{"a": 0.5, "b": 0.6, "a": 0.7}', "twice"),
])  # fmt: skip
def test_what_a_file_lacks_is_said(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    path = tmp_path / name if text is None else write(tmp_path, name, text)
    with pytest.raises(AccuracyTableError, match=said):
        read_results(path, 0.1)


def test_a_table_of_a_check_is_taken_as_it_is() -> None:
    rows = [
        {
            "architecture": name,
            "dataset": dataset,
            "ratio": ratio,
            "draw_seed": draw,
            "training_seed": 0,
            "accuracy": accuracy,
        }
        for name, better in (("a", 0.0), ("b", 0.1))
        for dataset, ratio, draw, accuracy in [
            ("full", 1.0, None, 0.8 + better),
            ("proxy", 0.1, 0, 0.5 + better),
            ("proxy", 0.1, 1, 0.52 + better),
            ("proxy", 0.2, 0, 0.1),
            ("random", 0.1, 0, 0.2),
        ]
    ]
    a, b = read_results(rows, 0.1).candidates
    assert [run.accuracy for run in a.runs] == [0.5, 0.52]
    assert b.full_accuracy == pytest.approx(0.9)


def test_gaps_of_a_data_frame_are_gaps() -> None:
    frame = pd.DataFrame({**pd.DataFrame(ROWS), "full_accuracy": pd.array([0.9, None], dtype="Float64"), 0: [1, 2]})
    read = read_results(frame, 0.1)
    assert [each.full_accuracy for each in read.candidates] == [0.9, None]
    assert read.unused == ("0",)


def test_columns_that_are_not_read_are_told() -> None:
    assert read_results([{**row, "precision": 1.0} for row in ROWS], 0.1).unused == ("precision",)


def test_losses_are_read_where_they_are_given() -> None:
    read = read_results([{**ROWS[0], "loss": "1.25"}, {**ROWS[1], "loss": ""}], 0.1)
    assert [run.loss for each in read.candidates for run in each.runs] == [1.25, None]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"architecture": "a", "acc": 0.5}, {"architecture": "b", "acc": 0.6}], "accuracy"),
        ([{"name": "a", "accuracy": 0.5}, {"name": "b", "accuracy": 0.6}], "architecture"),
        ([{"architecture": "a", "accuracy": 0.5}, {"architecture": "b", "accuracy": 60}], "percent"),
        ([{"architecture": "a", "accuracy": 0.5}, {"architecture": "b", "accuracy": -0.1}], "percent"),
        ([{"architecture": "a", "accuracy": 0.5}, {"architecture": "b", "accuracy": 101}], "percent"),
        ([{"architecture": "a", "accuracy": 0.5}, {"architecture": "b", "accuracy": 60}], "row 2.*row 1"),
        ([{"architecture": "a", "accuracy": 0.5}, {"architecture": "b", "accuracy": -0.1}], "row 2 accuracy"),
        ([{"architecture": "a", "accuracy": 1.8}, {"architecture": "b", "accuracy": 1.9}], "loss"),
        ([{"architecture": "a", "accuracy": 0.5}, {"architecture": "b", "accuracy": 0.5}], "differ"),
        ([{"architecture": "a", "full_accuracy": 0.5}, {"architecture": "b", "accuracy": 0.5}], "on the proxy"),
        ([{"architecture": "a", "accuracy": "80.11%"}, {"architecture": "b", "accuracy": "70%"}], "80.11 or 0.8011"),
        ([{"architecture": "a", "accuracy": "0,8"}, {"architecture": "b", "accuracy": "0,7"}], "write 0.8"),
        ([{"architecture": "a", "Accuracy": 0.5}, {"architecture": "b", "Accuracy": 0.6}], "`Accuracy`"),
        (
            [{"architecture": "a", "accuracy": 0.5, "seed": 0}, {"architecture": "a", "accuracy": 0.6, "seed": 1}],
            "'seed' is not read",
        ),
        ([{"architecture": "a", "accuracy": 0.5, "training_seed": 3}] * 2, "training_seed 3"),
        (
            [
                {"architecture": "a", "accuracy": 0.5, "full_accuracy": 0.9},
                {"architecture": "a", "full_accuracy": 0.8},
                {"architecture": "b", "accuracy": 0.6},
            ],
            "row 2 full_accuracy",
        ),
        ([*ROWS, {"architecture": "a", "training_seed": 1, "acuracy": 0.7}], "row 3 accuracy"),
        ([{**row, "dataset": name} for row, name in zip(ROWS, ("proxy", "Proxy"), strict=True)], "row 2 dataset"),
        ([{**row, "dataset": "proxy", "ratio": "5%"} for row in ROWS], "row 1 ratio.*0.05"),
        ([*({**row, "dataset": "proxy"} for row in ROWS), {"architecture": "a", "dataset": "full"}], "row 3 accuracy"),
        ([{"architecture": "a", "accuracy": 0.5}], "two"),
        ([{"architecture": "a", "accuracy": 0.5}, {"architecture": "a", "accuracy": 0.6}], "training_seed"),
        ([{"architecture": "a", "accuracy": float("nan")}, {"architecture": "b", "accuracy": 0.6}], "row 1"),
        ([{"architecture": "a", "accuracy": "high"}, {"architecture": "b", "accuracy": 0.6}], "row 1"),
        ([{"architecture": None, "accuracy": 0.5}, {"architecture": "b", "accuracy": 0.6}], "row 1"),
        (
            [{"architecture": "a", "accuracy": 0.5, "n_parameters": 0}, {"architecture": "b", "accuracy": 0.6}],
            "n_parameters",
        ),
        (
            [{"architecture": "a", "accuracy": 0.5, "draw_seed": 0.5}, {"architecture": "b", "accuracy": 0.6}],
            "draw_seed",
        ),
        *(([{**row, "loss": loss} for row in ROWS], "row 1 loss") for loss in (-0.1, "inf", "low")),
        ([], "rows"),
        ([1, 2], "row 1"),
        (3, "mapping"),
        ({"a": {"accuracy": 0.5}, "b": [1]}, "accuracy"),
    ],
)
def test_what_cannot_be_used_is_named(rows: Any, said: str) -> None:
    with pytest.raises(AccuracyTableError, match=said):
        read_results(rows, 0.1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.json", "{"),
        ("r.json", "3"),
        ("r.json", "[" * 100_000),
        ("r.parquet", "no"),
        ("r.txt", CSV),
        ("r.csv", ""),
        ("r.csv", "\0"),
        ("none.csv", None),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name if text is None else write(tmp_path, name, text)
    with pytest.raises(AccuracyTableError, match=name):
        read_results(path, 0.1)


_VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@given(st.lists(st.dictionaries(st.sampled_from([*COLUMNS, "dataset", "ratio"]), _VALUES), max_size=4))
def test_whatever_rows_hold_is_read_or_refused(rows: list[dict[str, Any]]) -> None:
    try:
        read = read_results(rows, 0.1)
    except AccuracyTableError:
        return
    assert all(0 <= run.accuracy <= 1 for each in read.candidates for run in each.runs)
