"""Tables, templates and the names of programs."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import jinja2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from proxyds.cli.output import format_table, name_programs, print_text, say


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is taken for a terminal of 80 letters a line."""
    monkeypatch.setattr("proxyds.cli.output._terminal_width", lambda: 80)


def test_programs_get_tables_with_tabs_and_without_padding() -> None:
    table = format_table(["name", "samples", "note"], [("a", "1,000", "[b]\tc\nd"), ("x" * 150, 5, "")], "title")
    assert table.splitlines() == ["title", "name\tsamples\tnote", "a\t1,000\t[b] c d", f"{'x' * 150}\t5\t"]


def test_people_get_numbers_right_aligned(terminal: None) -> None:
    table = format_table(["name", "samples", "note"], [("a", "1,000", "[b]"), ("猫" * 3, 5, "none")], "title")
    assert table.splitlines() == ["title", "name    samples  note", "a         1,000  [b]", "猫猫猫        5  none"]


def test_intervals_that_do_not_fit_go_below_their_values(terminal: None) -> None:
    intervals = ["0.78 [0.64, 0.87]", "-0.71 [-0.84, 0.51]", "–", "0.64 [0.46, 0.77]", "0.1"]
    headings = ["ranking by", "Kendall tau", "with parameters", "given FLOPs", "of a kind", "regret, points"]
    assert format_table(headings, [("full data, another seed", *intervals)]).splitlines() == [
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
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tables_fit_the_terminal_and_nothing_is_cut_off(terminal: None, rows: list[list[str]]) -> None:
    table = format_table(["one", "two words", "three", "four"], rows)
    assert all(cell_len(line) <= 80 for line in table.splitlines())
    written = Counter("".join(["one", "twowords", "three", "four", *map("".join, rows)]))
    shown = Counter(table)
    for letter in " \n":
        written.pop(letter, None)
        shown.pop(letter, None)
    assert shown == written


def test_a_terminal_breaks_texts_at_spaces_and_leaves_commands_to_copy_whole(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"  proxyds inspect {'x' * 90} --json"
    say(f"{'word ' * 30}\n{command}")
    *texts, last = capsys.readouterr().out.splitlines()
    assert last == command
    assert all(len(line) <= 80 for line in texts)
    assert " ".join(texts).split() == ["word"] * 30


def test_a_name_without_a_value_is_a_defect_and_never_printed_as_nothing() -> None:
    with pytest.raises(jinja2.UndefinedError, match="manifest"):
        print_text("inspection")


def test_programs_are_named_as_the_shell_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "proxyds"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert name_programs() == {"python": sys.executable, "program": "bin/proxyds"}
    monkeypatch.setattr(sys, "argv", ["/somewhere/proxyds/__main__.py"])
    assert name_programs()["program"] == f"{sys.executable} -m proxyds"
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(sys, "argv", ["proxyds"])
    assert name_programs() == {"python": "python", "program": "proxyds"}
