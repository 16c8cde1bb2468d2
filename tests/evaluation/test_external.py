"""Accuracies that were measured elsewhere: which tables are read, what is refused, and with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from proxyds.artifact.ranking_table import COLUMNS, describe_architecture, make_runs_table
from proxyds.errors import AccuracyTableError
from proxyds.evaluation.external import find_reference, read_accuracies, read_reference, read_runs, take_full_runs
from proxyds.recipe.models import Check, Reference
from proxyds.space.architecture import Architecture

SMALL = Architecture("net depth=8", "resnet", {"depth": 8, "multiplier": 1}, 10, 30, 100)
MIDDLE = Architecture("net depth=14", "resnet", {"depth": 14, "multiplier": 1}, 20, 60, 200)
LARGE = Architecture("net depth=20", "resnet", {"depth": 20, "multiplier": 1}, 40, 120, 400)
ALL = [SMALL, MIDDLE, LARGE]

PLAIN = "architecture,accuracy\nnet depth=8,0.5\nnet depth=14,0.625\nnet depth=20,0.75\n"
SHARES = {"net depth=8": 0.5, "net depth=14": 0.625, "net depth=20": 0.75}

Table = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Writes a CSV file."""

    def write(text: str | bytes, name: str = "known.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def reference_of(path: Path | str = "known.csv", **columns: str) -> Reference:
    return Reference(path=str(path), **columns)


def read(path: Path, architectures: list[Architecture] = ALL, **columns: str) -> dict[str, float]:
    return read_accuracies(path, reference_of(path, **columns), architectures)


def message(of: Callable[[], object]) -> str:
    with pytest.raises(AccuracyTableError) as refused:
        of()
    return str(refused.value)


# A table of full-data accuracies


def test_accuracies_are_taken_as_they_are_where_none_is_above_one(table: Table) -> None:
    assert read(table(PLAIN)) == SHARES


def test_accuracies_are_percent_where_they_are_above_one(table: Table) -> None:
    assert read(table(PLAIN.replace("0.5", "8").replace("0.75", "62.5").replace("0.625", "1"))) == {
        "net depth=8": 0.08,
        "net depth=14": 0.01,
        "net depth=20": 0.625,
    }


def test_shares_and_percent_in_one_table_are_refused(table: Table) -> None:
    said = message(lambda: read(table(PLAIN.replace("0.75", "62.5"))))
    assert "must all be in [0, 1], or all in percent, found both" in said


@pytest.mark.parametrize(("least", "most"), [("0", "1"), ("0", "100"), ("-0.0", "1e0"), (" 0.0 ", "1e2")])
def test_the_bounds_themselves_are_accuracies(table: Table, least: str, most: str) -> None:
    found = read(table(f"architecture,accuracy\nnet depth=8,{least}\nnet depth=14,{most}\n"), [SMALL, MIDDLE])
    assert found == {"net depth=8": 0, "net depth=14": 1}


def test_columns_are_those_that_the_recipe_names(table: Table) -> None:
    path = table("accuracy,top-1,the model\n0.1,50,net depth=8\n0.2,60,net depth=14\n0.3,70,net depth=20\n")
    found = read(path, architecture_column="the model", accuracy_column="top-1")
    assert found == {"net depth=8": 0.5, "net depth=14": 0.6, "net depth=20": 0.7}


QUOTED = (
    'architecture,accuracy,note\n"net depth=8",0.5,"one, two"\n"net depth=14","0.625","a\nb"\n net depth=20 ,0.75,\n'
)
ODD_TABLES = {
    "extra columns": PLAIN.replace("\n", ",x\n").replace("accuracy,x", "accuracy,note"),
    "quoted": QUOTED,
    "byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "Windows' line ends": PLAIN.replace("\n", "\r\n"),
    "no last line end": PLAIN.rstrip(),
    "empty lines": PLAIN.replace("\n", "\n\n"),
    "another order": "accuracy,architecture\n0.75,net depth=20\n0.625,net depth=14\n0.5,net depth=8\n",
    "rows of others": PLAIN + "other,0.99\nnet depth=26,0.9\n",
    "empty cells beyond the columns": PLAIN.replace("0.625", "0.625,, "),
}


@pytest.mark.parametrize("text", ODD_TABLES.values(), ids=ODD_TABLES)
def test_a_table_may_be_written_in_many_ways(table: Table, text: str | bytes) -> None:
    found = read(table(text))
    assert found == SHARES
    assert list(found) == [each.name for each in ALL]  # in the architectures' order, not the table's


def test_a_name_with_a_comma_is_one_name_where_it_is_quoted(table: Table) -> None:
    named = Architecture('net "a", b', "resnet", {"depth": 8}, 1, 3, 1)
    assert read(table('architecture,accuracy\n"net ""a"", b",0.5\n'), [named]) == {'net "a", b': 0.5}


def test_whether_it_is_percent_depends_on_the_architectures_that_are_checked_alone(table: Table) -> None:
    assert read(table(PLAIN + "other,99\n")) == SHARES


@pytest.mark.parametrize("name", ["net depth=14", " net depth=14"])
def test_an_architecture_that_stands_twice_is_refused_with_its_line(table: Table, name: str) -> None:
    path = table(PLAIN + f"other,0.5\n{name},0.625\n")
    assert message(lambda: read(path)) == (
        f"{path}:6 architecture 'net depth=14': must stand in the table once, it is there twice"
    )


def test_architectures_that_are_missing_are_counted_and_one_is_named(table: Table) -> None:
    path = table("architecture,accuracy\nnet depth=14,0.5\nresnet-14,0.6\n")
    said = message(lambda: read(path))
    assert said.startswith(f"{path}: must hold every architecture that is checked; it misses 2 of 3, such as ")
    assert "'net depth=8' (it holds 2, such as 'net depth=14')" in said
    assert said.endswith("names must be those of `proxyds check --dry-run`")


@pytest.mark.parametrize(
    ("header", "lacks", "has"),
    [
        ("architecture,top1", "lacks accuracy", "top1"),
        ("model,top1", "lacks architecture, accuracy", "model, top1"),
        ("architecture,Accuracy", "lacks accuracy", "`Accuracy`"),
        ("architecture;accuracy", "semicolons", "commas"),
        ("architecture\taccuracy", "tabs", "commas"),
    ],
)
def test_a_table_without_the_columns_says_what_it_has(table: Table, header: str, lacks: str, has: str) -> None:
    path = table(PLAIN.replace("architecture,accuracy", header))
    said = message(lambda: read(path))
    assert said.startswith(f"{path}: must be a CSV file with the columns architecture, accuracy; ")
    assert lacks in said
    assert has in said


def test_a_column_that_the_recipe_names_and_the_table_lacks_is_named(table: Table) -> None:
    said = message(lambda: read(table(PLAIN), accuracy_column="top-1"))
    assert "lacks top-1" in said
    assert "architecture, accuracy" in said


def test_an_empty_table_is_refused(table: Table) -> None:
    assert message(lambda: read(table(""))).endswith("it is empty")


def test_a_table_of_a_header_alone_is_refused(table: Table) -> None:
    path = table("architecture,accuracy\n")
    assert message(lambda: read(path)) == f"{path}: must hold rows, it has none"


UNREADABLE = {
    "not UTF-8": PLAIN.replace("depth=8", "Größe").encode("latin-1"),
    "UTF-16": PLAIN.encode("utf-16"),
    "a quote that does not end": PLAIN.replace("net depth=20", '"net depth=20'),
    "text after a quote": PLAIN.replace("net depth=20", '"net" depth=20'),
    "a field without end": PLAIN.replace("net depth=20", "x" * 200_000),
}


@pytest.mark.parametrize("held", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_csv_file_is_refused(table: Table, held: str | bytes) -> None:
    path = table(held)
    assert message(lambda: read(path)).startswith(f"{path}: must be a CSV file that can be read: ")


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file" in message(lambda: read(tmp_path / "nowhere.csv"))


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    assert "it is a folder" in message(lambda: read(tmp_path))


@pytest.mark.parametrize("written", ["", "abc", "0,5", "50%", "nan", "NaN", "inf", "-inf", "1e999", "None", "0x1"])
def test_what_is_no_finite_number_is_refused_with_its_line(table: Table, written: str) -> None:
    path = table(PLAIN.replace("0.625", f'"{written}"'))
    helps = {"0,5": "write 0.5", "50%": "write 50 or 0.5"}.get(written, "leave out the row of a training that failed")
    assert message(lambda: read(path)) == f"{path}:3 accuracy: must be a finite number, got {written!r}; {helps}"


@pytest.mark.parametrize("written", ["-0.1", "100.5", "-1e-9"])
def test_what_is_no_accuracy_is_refused_with_its_line(table: Table, written: str) -> None:
    path = table(PLAIN.replace("0.625", written))
    said = message(lambda: read(path))
    assert said == f"{path}:3 accuracy: accuracies must be in [0, 1], or in percent, got {float(written):g}"


def test_what_looks_like_losses_or_places_is_refused_as_a_reference_too(table: Table) -> None:
    said = message(lambda: read(table("architecture,accuracy\nnet depth=8,1.2\nnet depth=14,1.5\nnet depth=20,1.9\n")))
    assert "Are they a loss?" in said


def test_a_row_that_is_too_long_is_refused_with_its_line(table: Table) -> None:
    path = table(PLAIN.replace("0.625", "62,5"))
    said = message(lambda: read(path))
    assert said.startswith(f"{path}:3 must have 2 values, it has 3; write decimal points")


@pytest.mark.parametrize("row", ["net depth=14", '"net depth=14"'])
def test_a_row_that_is_too_short_is_refused_with_its_line(table: Table, row: str) -> None:
    path = table(PLAIN.replace("net depth=14,0.625", row))
    assert message(lambda: read(path)) == f"{path}:3 must have a value in each of the columns architecture, accuracy"


def test_lines_are_those_of_the_file_where_a_cell_spans_several(table: Table) -> None:
    path = table('architecture,accuracy,note\nnet depth=8,0.5,"a\nb\nc"\nnet depth=14,abc,\nnet depth=20,0.75,\n')
    assert message(lambda: read(path)).startswith(f"{path}:5 accuracy: must be a finite number")


# Where it is found


def test_a_reference_is_found_where_it_says(table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = table(PLAIN)
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    assert find_reference(reference_of(path)) == path
    monkeypatch.chdir(tmp_path)
    assert find_reference(reference_of("known.csv")).read_text() == PLAIN
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_reference(reference_of("~/known.csv")) == path


def test_a_reference_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    assert find_reference(reference_of(tmp_path / "proxy")) == tmp_path / "proxy"


def test_a_reference_is_found_by_its_name_among_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: Table
) -> None:
    (tmp_path / "copies").mkdir()
    there = table("there", "copies/known.csv")
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "copies"))
    assert find_reference(reference_of(tmp_path / "far" / "away" / "known.csv")) == there
    here = table("here")  # what stands where the recipe says comes first
    assert find_reference(reference_of(here)) == here


def test_a_reference_that_is_nowhere_is_refused_with_every_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked, among_data = tmp_path / "known.csv", tmp_path / "copies" / "known.csv"
    begins = "check.reference: must be a CSV file or a proxy's folder, found nothing at "
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    said = message(lambda: find_reference(reference_of(asked)))
    assert said.startswith(f"{begins}{asked}")
    assert " or " not in said.removeprefix(begins)
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "copies"))
    assert message(lambda: find_reference(reference_of(asked))).startswith(f"{begins}{asked} or {among_data}")


# Full-data accuracies as rows


def test_a_reference_becomes_a_row_for_each_architecture_from_the_lightest(table: Table) -> None:
    path, source = table(f"{PLAIN}other,0.9\n"), cast(Any, SimpleNamespace(train=range(1000)))
    origin, listed = read_reference(
        cast(Any, None), Check(reference=reference_of(path)), source, [LARGE, SMALL, MIDDLE]
    )
    assert origin == "table known.csv"
    rows = make_runs_table(listed).to_pylist()
    assert [(row["architecture"], row["accuracy"]) for row in rows] == list(SHARES.items())
    for row, architecture in zip(rows, ALL, strict=True):
        assert row == {
            **dict.fromkeys(COLUMNS.names),
            "architecture": architecture.name,
            "network": "resnet",
            "parameters": f'{{"depth": {architecture.parameters["depth"]}, "multiplier": 1}}',
            "forward_flops": architecture.forward_flops,
            "training_flops": architecture.training_flops,
            "n_parameters": architecture.n_parameters,
            "dataset": "full",
            "ratio": 1.0,
            "training_seed": 0,
            "n_samples": 1000,
            "accuracy": row["accuracy"],
            "origin": "table known.csv",
        }


# Runs that were made elsewhere


def runs(path: Path, own_ratio: float = 0.05) -> list[dict[str, Any]]:
    found = read_runs(path, ALL, own_ratio)
    assert found.schema == COLUMNS
    return found.to_pylist()


HEADER = "architecture,dataset,accuracy,draw_seed,training_seed,ratio\n"


@pytest.mark.parametrize("cells", ["", ",,", ",,,"])
@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("full", (1.0, None, 0)),
        ("proxy", (0.05, 0, 0)),
        ("random", (0.05, 0, 0)),
        ("stratified", (0.05, 0, 0)),
        ("fewer-epochs", (0.05, None, 0)),
    ],
)
def test_seeds_and_ratio_have_defaults_whether_the_columns_are_there_or_empty(
    table: Table, dataset: str, expected: tuple[float, int | None, int], cells: str
) -> None:
    header = HEADER if cells else "architecture,dataset,accuracy\n"
    (row,) = runs(table(f"{header}net depth=8,{dataset},0.5{cells}\n"))
    assert (row["ratio"], row["draw_seed"], row["training_seed"]) == expected
    assert (row["architecture"], row["dataset"], row["accuracy"]) == ("net depth=8", dataset, 0.5)
    assert {name for name in COLUMNS.names if row[name] is None} - {"draw_seed"} == {
        *("n_samples", "n_labels", "n_steps", "n_epochs", "run_flops", "training_seconds", "test_seconds", "device"),
        "evaluation_accuracy",
        "loss",
        "evaluation_loss",
    }


def test_a_loss_is_read_where_it_is_given(table: Table) -> None:
    header = "architecture,dataset,accuracy,loss\n"
    found = runs(table(f"{header}net depth=8,full,0.5,\nnet depth=8,proxy,0.5,1.25\nnet depth=8,random,0.5, 0\n"))
    assert [row["loss"] for row in found] == [None, 1.25, 0]
    with pytest.raises(AccuracyTableError, match=r"csv:3 loss: .*1 rows lack"):
        runs(table(f"{header}net depth=8,proxy,0.5,1.25\nnet depth=8,random,0.5,\n"))
    for written in ("-1", "nan", "inf", "low"):
        with pytest.raises(AccuracyTableError, match="loss"):
            runs(table(f"{header}net depth=8,proxy,0.5,{written}\n"))


def test_a_training_seed_is_the_draws_where_it_is_not_given(table: Table) -> None:
    path = table(HEADER + "net depth=8,proxy,0.5,3,,\nnet depth=8,proxy,0.6,3,0,\nnet depth=8,random,0.7,,2,\n")
    found = [(row["dataset"], row["draw_seed"], row["training_seed"], row["accuracy"]) for row in runs(path)]
    assert found == [("proxy", 3, 0, 0.6), ("proxy", 3, 3, 0.5), ("random", 0, 2, 0.7)]


def test_a_draw_is_unknown_where_nothing_is_drawn(table: Table) -> None:
    path = table(HEADER + "net depth=8,full,0.5,4,1,0.3\nnet depth=8,fewer-epochs,0.6,4,1,0.3\n")
    found = [(row["dataset"], row["draw_seed"], row["training_seed"], row["ratio"]) for row in runs(path)]
    assert found == [("full", None, 1, 1.0), ("fewer-epochs", None, 1, 0.3)]


@pytest.mark.parametrize("dataset", ["full", "fewer-epochs"])
def test_draws_do_not_tell_repeats_apart_where_nothing_is_drawn(table: Table, dataset: str) -> None:
    path = table(f"{HEADER}net depth=8,{dataset},0.5,0,0,\nnet depth=8,{dataset},0.6,1,0,\n")
    assert message(lambda: runs(path)).endswith("the column training_seed tells repeats apart")


def test_runs_stand_in_one_order_and_say_where_they_come_from(table: Table) -> None:
    lines = [
        "net depth=20,random,70,0,0,",
        "net depth=20,full,90,,1,",
        "net depth=8,full,80,,1,",
        "net depth=8,full,81,,0,",
        "net depth=14,proxy,60,1,1,0.2",
        "net depth=14,proxy,61,0,0,0.2",
        "net depth=14,proxy,50,1,1,0.05",
    ]
    expected = [lines[i] for i in (3, 2, 1, 6, 5, 4, 0)]
    for order in (lines, lines[::-1]):
        found = runs(table(HEADER + "\n".join(order), "my runs.csv"))
        assert [(row["architecture"], row["dataset"], row["accuracy"]) for row in found] == [
            (name, dataset, float(accuracy) / 100)  # the 0.5 too: one is above 1
            for name, dataset, accuracy, *_ in (line.split(",") for line in expected)
        ]
        assert {row["origin"] for row in found} == {"table my runs.csv"}


def test_a_run_says_what_its_architecture_costs(table: Table) -> None:
    (row,) = runs(table("dataset,accuracy,architecture,note\n proxy ,0.5, net depth=14 ,x\n"))
    assert {name: row[name] for name in describe_architecture(MIDDLE)} == describe_architecture(MIDDLE)
    assert row["dataset"] == "proxy"


@pytest.mark.parametrize(("accuracies", "is_told"), [(("50", "62.5"), True), (("0.5", "0.625"), False)])
def test_runs_in_percent_are_told(table: Table, accuracies: tuple[str, str], is_told: bool) -> None:
    path = table(f"{HEADER}net depth=8,proxy,{accuracies[0]},,,\nnet depth=14,proxy,{accuracies[1]},,,\n")
    told: list[str] = []
    found = read_runs(path, ALL, 0.05, told.append)
    assert sorted(found["accuracy"].to_pylist()) == [0.5, 0.625]
    assert [("percent" in each, "50 to 62.5" in each) for each in told] == [(True, True)] * is_told


BAD_RUNS = {
    "unknown architecture": (
        "net depth=9,proxy,0.5,,,",
        ":3 architecture: must be one of the search space's 3, got 'net depth=9'; did you mean `net depth=8`?",
    ),
    "no architecture": (",proxy,0.5,,,", ":3 architecture: must be one of the search space's 3, got ''"),
    "unknown data set": (
        "net depth=8,prxy,0.5,,,",
        ":3 dataset: must be one of full, proxy, random, stratified, cases, ",
    ),
    "no data set": ("net depth=8,,0.5,,,", ":3 dataset: must be one of full, proxy, "),
    "the same run": ("net depth=8,proxy,0.6,,,", ":3: each run must stand in the table once"),
    "the same run in full": ("net depth=8,proxy,0.6,0,0,0.05", ":3: each run must stand in the table once"),
    "negative draw": ("net depth=8,proxy,0.5,-1,,", ":3 a seed must be a whole number from 0, of 9 digits at most, got '-1'"),
    "broken draw": ("net depth=8,proxy,0.5,1.5,,", ":3 a seed must be a whole number from 0, of 9 digits at most, got '1.5'"),
    "worded seed": ("net depth=8,full,0.5,,one,", ":3 a seed must be a whole number from 0, of 9 digits at most, got 'one'"),
    "superscript seed": ("net depth=8,full,0.5,,²,", ":3 a seed must be a whole number from 0, of 9 digits at most, got '²'"),
    "worded ratio": ("net depth=8,random,0.5,,,small", ":3 ratio: must be a finite number, got 'small'"),
    "no accuracy": ("net depth=8,random,,,,", ":3 accuracy: must be a finite number, got ''; leave out the row of a training"),
    "infinite accuracy": ("net depth=8,random,inf,,,", ":3 accuracy: must be a finite number, got 'inf'"),
    "negative accuracy": ("net depth=8,random,-0.1,,,", ":3 accuracy: accuracies must be in [0, 1], or in percent, got -0.1"),
    "beyond 100 %": ("net depth=8,random,101,,,", ":3 accuracy: accuracies must be in [0, 1], or in percent, got 101"),
    "short row": ("net depth=8,random", ":3 must have a value in each of the columns architecture, dataset, accuracy"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "said"), BAD_RUNS.values(), ids=BAD_RUNS)
def test_a_bad_run_is_refused_with_its_line(table: Table, row: str, said: str) -> None:
    path = table(f"{HEADER}net depth=8,proxy,0.5,,,\n{row}\n")
    assert message(lambda: runs(path)).startswith(f"{path}{said}")


def test_the_mistakes_of_all_rows_are_told_at_once_up_to_a_few(table: Table) -> None:
    rows = ["net depth=8,prxy,0.5,,,", "net depth=8,proxy,x,,,", "net depth=8,proxy,0.5,,,", "net depth=7,proxy,0.5,,,"]
    told = message(lambda: runs(table("\n".join([HEADER.strip(), *rows])))).splitlines()
    assert [re.search(r":(\d+) (\w+): ", line)[1] for line in told] == ["2", "3", "5"]  # type: ignore[index]
    many = message(lambda: runs(table("\n".join([HEADER.strip(), *(rows[:1] * 9)])))).splitlines()
    assert len(many) == 6
    assert len(message(lambda: runs(table("\n".join([HEADER.strip(), *(rows[:1] * 5)])))).splitlines()) == 5


@pytest.mark.parametrize("seed", [str(2**63), "9" * 30, "9" * 5000], ids=["2 ** 63", "30 digits", "5000 digits"])
@pytest.mark.parametrize("column", ["draw_seed", "training_seed"])
def test_a_seed_that_no_table_can_hold_is_refused_with_its_line(table: Table, column: str, seed: str) -> None:
    path = table(f"architecture,dataset,accuracy,{column}\nnet depth=8,proxy,0.5,{seed}\n")
    assert message(lambda: runs(path)).startswith(f"{path}:2 ")


@pytest.mark.parametrize("ratio", ["0", "-0.05", "1.5", "5"])
def test_a_ratio_that_is_no_share_is_refused_with_its_line(table: Table, ratio: str) -> None:
    path = table(f"{HEADER}net depth=8,proxy,0.5,,,{ratio}\n")
    assert message(lambda: runs(path)).startswith(f"{path}:2 ")


@pytest.mark.parametrize("row", ["net depth=8,random,0.5,,,", "net depth=14,proxy,0.5,,,", "net depth=8,proxy,0.5,1,,",
                                 "net depth=8,proxy,0.5,0,1,", "net depth=8,proxy,0.5,,,0.1"])  # fmt: skip
def test_runs_that_differ_in_anything_are_two(table: Table, row: str) -> None:
    assert len(runs(table(f"{HEADER}net depth=8,proxy,0.5,,,\n{row}\n"))) == 2


def test_a_table_of_runs_names_the_columns_that_it_lacks(table: Table) -> None:
    path = table(PLAIN)
    assert message(lambda: runs(path)).startswith(
        f"{path}: must be a CSV file with the columns architecture, dataset, accuracy; it lacks dataset"
    )


# Another proxy's runs


def own(architecture: Architecture, dataset: str = "full", **changes: object) -> dict[str, Any]:
    run = {
        **describe_architecture(architecture),
        "dataset": dataset,
        "ratio": 1.0,
        "training_seed": 0,
        "accuracy": 0.5,
        "run_flops": 7,
        "training_seconds": 2.0,
        "origin": "trained",
    }
    return {**run, **changes}


def taken(rows: list[dict[str, Any]], architectures: list[Architecture]) -> pa.Table:
    return make_runs_table(take_full_runs(make_runs_table(rows), architectures, "proxy other 1.0.0"))


def test_only_runs_on_everything_are_taken_from_another_proxy() -> None:
    others = [own(SMALL, dataset, ratio=0.05) for dataset in ("proxy", "random", "stratified", "fewer-epochs")]
    full = [own(SMALL), own(SMALL, training_seed=1, accuracy=0.6)]
    found = taken([*full, *others], [SMALL])
    assert found.schema == COLUMNS
    assert [(row["dataset"], row["training_seed"], row["accuracy"]) for row in found.to_pylist()] == [
        ("full", 0, 0.5),
        ("full", 1, 0.6),
    ]


def test_runs_of_another_proxy_keep_what_they_took_and_say_whose_they_are() -> None:
    (row,) = taken([own(SMALL)], [SMALL]).to_pylist()
    assert (row["run_flops"], row["training_seconds"], row["origin"]) == (7, 2.0, "proxy other 1.0.0")


def test_another_proxys_architecture_is_known_by_its_parameters_and_not_by_its_name() -> None:
    renamed = Architecture("resnet depth=14", "resnet", {"multiplier": 1, "depth": 14}, 20, 60, 200)
    namesake = Architecture("net depth=14", "resnet", {"depth": 14, "multiplier": 2}, 25, 75, 250)
    of_another_family = Architecture("net depth=14", "other", {"depth": 14, "multiplier": 1}, 20, 60, 200)
    rows = [own(MIDDLE, accuracy=0.7), own(namesake, accuracy=0.1), own(of_another_family, accuracy=0.2)]
    (row,) = taken(rows, [renamed]).to_pylist()
    assert (row["architecture"], row["accuracy"]) == ("resnet depth=14", 0.7)


def test_what_another_proxy_does_not_know_is_counted_and_one_is_named() -> None:
    rows = [own(SMALL), own(MIDDLE, "proxy", ratio=0.05)]
    assert message(lambda: taken(rows, ALL)) == (
        "check.reference: proxy other 1.0.0 must hold runs on everything of every architecture that is checked; it "
        "misses 2 of 3, such as 'net depth=14'; check that proxy with them, or choose fewer here"
    )
