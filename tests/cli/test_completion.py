"""What a shell completes, by click's protocol, and the scripts that make it ask."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from proxyds.cli.main import cli
from proxyds.recipe.methods import METHODS
from proxyds.recipe.presets import preset_names
from tests.conftest import Run


def complete(*words: str) -> list[str]:
    asked = BashComplete(cli, {}, "proxyds", "_PROXYDS_COMPLETE")
    return [item.value for item in asked.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(run_here: Run, shell: str) -> None:
    done = run_here("completion", shell)
    assert done.returncode == 0
    assert f"_PROXYDS_COMPLETE={shell}_complete" in done.stdout


def test_bash_takes_its_script_and_completes(run_here: Run, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    script = run_here("completion", "bash").stdout
    program = tmp_path / "proxyds"
    program.write_text("#!/bin/sh\necho plain,validate\n")
    program.chmod(0o755)
    ask = f'{script}\nCOMP_WORDS=(proxyds val); COMP_CWORD=1\n_proxyds_completion {program}\necho "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True).stdout == "validate\n"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("va",), ["validate"]),
        (("init", "--preset", ""), preset_names()),
        (("resample", "p", "--draw", "sy"), ["systematic"]),
        (("build", "r.yaml", "--device", "c"), ["cpu", "cuda"]),
        (("build", "r.yaml", "--set", "selection.meth"), [f"selection.method={name}" for name in METHODS]),
        (("build", "r.yaml", "--set", "selection.method=easies"), ["selection.method=easiest"]),
        (("build", "r.yaml", "--set", "space.network=eff"), ["space.network=efficientnet"]),
        (("build", "r.yaml", "--set", "training.ho"), ["training.horizontal_flip=true", "training.horizontal_flip=false"]),
        (("build", "r.yaml", "--set", "selection.ra"), ["selection.ratio="]),
        (("build", "r.yaml", "--set", "selection.ratio=0.1"), []),
        (("build", "r.yaml", "--set", "nothing"), []),
    ],
)  # fmt: skip
def test_names_are_completed(words: tuple[str, ...], completed: list[str]) -> None:
    assert complete(*words) == completed


def test_settings_are_completed_to_whole_keys() -> None:
    begun = complete("build", "r.yaml", "--set", "training.")
    assert "training.epochs=" in begun
    assert all(each.startswith("training.") and each.endswith("=") for each in begun)


@pytest.mark.parametrize("command", ["inspect", "rank", "push", "check", "apply", "verify"])
def test_places_are_completed_by_files(command: str) -> None:
    asked = BashComplete(cli, {}, "proxyds", "_PROXYDS_COMPLETE")
    assert {item.type for item in asked.get_completions([command], "dig")} <= {"file", "dir"}


def test_every_command_shows_help_of_lines_that_fit() -> None:
    def check(command: click.Command, context: click.Context) -> None:
        assert all(len(line) <= 80 for line in command.get_help(context).splitlines()), command.name
        for each in getattr(command, "commands", {}).values():
            check(each, click.Context(each, context, each.name, terminal_width=80))

    check(cli, click.Context(cli, info_name="proxyds", terminal_width=80))
