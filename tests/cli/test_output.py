"""Tables, templates and the names of programs."""

from __future__ import annotations

import sys
from pathlib import Path

import jinja2
import pytest

from proxyds.cli.output import format_table, name_programs, print_text


def test_numbers_of_a_table_are_right_aligned_and_nothing_is_cut_off() -> None:
    long = "x" * 150
    table = format_table(["name", "samples", "note"], [("a", "1,000", "[b]"), (long, 5, "none")], "title")
    assert table.splitlines() == [
        "title",
        f"{'name':<150}  samples  note",
        f"{'a':<150}    1,000  [b]",
        f"{long}        5  none",
    ]


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
