"""How a command ends: a reader that stops reading, a full disk, wrong use told to programs; and what `--help` begins with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxyds.cli import main as entry
from proxyds.errors import EXIT_READER_GONE, NoSpaceError
from tests.conftest import Run


def test_help_lists_every_command_once_in_the_order_of_use(run_here: Run) -> None:
    shown = run_here("--help").stdout
    listed = [line.split()[0] for line in shown.partition("Start:")[2].splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(entry.cli.commands)
    places = [shown.index(f"{title}:\n") for title in entry.SECTIONS]
    assert places == sorted(places)


def test_the_version_has_a_short_option(run_here: Run) -> None:
    assert run_here("-V").stdout == run_here("--version").stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["validate", "nowhere.yaml"], ["list", "--json"]])
def test_a_reader_that_stops_reading_ends_a_command_quietly(arguments: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "proxyds", *arguments]
    ended = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=writing if "validate" in arguments else -1)
    os.close(writing)
    assert ended.returncode == EXIT_READER_GONE
    assert not ended.stderr


def test_another_pipe_that_breaks_is_no_reader_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr(entry.cli.commands["list"], "invoke", fail)
    monkeypatch.setattr(sys, "argv", ["proxyds", "list"])
    with pytest.raises(entry._PipeError) as raised:
        entry.main()
    assert str(raised.value.__cause__) == "of a worker"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_results_that_find_no_space_are_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "proxyds", "list"]
        ended = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == NoSpaceError.exit_code
    assert ended.stderr.startswith("proxyds: standard output: no space")
    assert "Traceback" not in ended.stderr


def test_wrong_use_is_told_to_programs_too(run_here: Run) -> None:
    ended = run_here("build", "--json")
    fault = json.loads(ended.stdout)
    assert (ended.returncode, fault["exit_code"]) == (2, 2)
    assert "RECIPE" in fault["message"]
    assert "RECIPE" in ended.stderr


def test_a_folder_is_no_recipe_and_the_one_in_it_is_meant(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "recipe.yaml").write_text("")
    ended = run_here("build", "proxy")
    assert ended.returncode == 10
    assert "proxy/recipe.yaml" in ended.stderr
