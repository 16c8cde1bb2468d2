"""Tables and templates, as wide as somebody reads."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from proxyds.layout import PAGE_WIDTH, Readable, fill_in, format_table, wrap
from proxyds.text import duration, with_prefix

lay_out = partial(format_table, width=80)


def test_programs_get_tables_with_tabs_and_without_padding() -> None:
    table = format_table(
        ["name", "samples", "note"], [("a", "1,000", "[b]\tc\nd"), ("x" * 150, 5, "")], "title", width=None
    )
    assert table.splitlines() == ["title", "name\tsamples\tnote", "a\t1,000\t[b] c d", f"{'x' * 150}\t5\t"]


def test_people_get_numbers_right_aligned() -> None:
    table = lay_out(["name", "samples", "note"], [("a", "1,000", "[b]"), ("猫" * 3, 5, "none")], "title")
    assert table.splitlines() == ["title", "name    samples  note", "a         1,000  [b]", "猫猫猫        5  none"]


def test_intervals_that_do_not_fit_go_below_their_values() -> None:
    intervals = ["0.78 [0.64, 0.87]", "-0.71 [-0.84, 0.51]", "–", "0.64 [0.46, 0.77]", "0.1"]
    headings = ["ranking by", "Kendall tau", "with parameters", "given FLOPs", "of a kind", "regret, points"]
    assert lay_out(headings, [("full data, another seed", *intervals)]).splitlines() == [
        "ranking by             Kendall tau   with           given  of a kind     regret,",
        "                                     parameters     FLOPs                 points",
        "full data, another     0.78          -0.71          –      0.64              0.1",
        "seed                   [0.64, 0.87]  [-0.84, 0.51]         [0.46, 0.77]",
    ]


@given(
    st.lists(
        st.lists(st.text("ab c猫[,1", max_size=60), min_size=4, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_tables_fit_the_terminal_and_nothing_is_cut_off(rows: list[list[str]]) -> None:
    table = lay_out(["one", "two words", "three", "four"], rows)
    assert all(cell_len(line) <= 80 for line in table.splitlines())
    written = Counter("".join(["one", "twowords", "three", "four", *map("".join, rows)]))
    shown = Counter(table)
    for letter in " \n":
        written.pop(letter, None)
        shown.pop(letter, None)
    assert shown == written


def test_texts_are_broken_at_spaces_and_commands_to_copy_stay_whole() -> None:
    command = f"  proxyds inspect {'x' * 90} --json"
    *texts, last = wrap(f"{'word ' * 30}\n{command}", 80).splitlines()
    assert last == command
    assert all(len(line) <= 80 for line in texts)
    assert " ".join(texts).split() == ["word"] * 30
    assert wrap("word " * 30, None) == "word " * 30


def test_a_name_without_a_value_is_a_defect_and_never_written_as_nothing(tmp_path: Path) -> None:
    template = tmp_path / "greeting.jinja"
    template.write_text("hello {{ name }}\n")
    assert fill_in(template, 80, name="you") == "hello you"
    with pytest.raises(jinja2.UndefinedError, match="name"):
        fill_in(template, 80)


class Found(Readable):
    def describe(self, width: int | None) -> str:
        return f"{width} letters"

    def __repr__(self) -> str:
        return "<Found>"


def test_print_and_notebooks_show_a_results_text(monkeypatch: pytest.MonkeyPatch) -> None:
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    monkeypatch.setenv("COLUMNS", "77")
    assert str(Found()) == formatter.format(Found())[0]["text/plain"] == "77 letters"
    assert repr(Found()) == "<Found>"
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("sys.__stdout__", None)
    assert str(Found()) == f"{PAGE_WIDTH} letters"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5 B"),
        (999.4, "999 B"),
        (999.6, "1 kB"),
        (999_400_000, "999 MB"),
        (999_600_000, "1 GB"),
        (31.4e9, "31.4 GB"),
    ],
)
def test_quantities_have_the_prefix_of_what_they_are_rounded_to(value: float, shown: str) -> None:
    assert with_prefix(value, "B") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.44, "0.4 s"), (59.94, "59.9 s"), (59.97, "1 min 0 s"), (7500, "2 h 5 min")]
)
def test_times_have_the_unit_of_what_they_are_rounded_to(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
