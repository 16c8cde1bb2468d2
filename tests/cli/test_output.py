"""The names of programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxyds.cli.output import name_programs


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
