"""What a user sees: help everywhere, results on standard output, progress on standard error, JSON for programs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from proxyds import errors
from proxyds.cli.main import cli
from tests.conftest import TINY_RECIPE, copy_store

Run = Callable[..., subprocess.CompletedProcess[str]]


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_has_help(name: str, command: click.Command) -> None:
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


def all_errors(kind: type[errors.ProxydsError] = errors.ProxydsError) -> Iterator[type[errors.ProxydsError]]:
    for below in kind.__subclasses__():
        yield below
        yield from all_errors(below)


def test_errors_of_one_kind_have_one_exit_code() -> None:
    codes = [kind.exit_code for kind in errors.ProxydsError.__subclasses__() if kind is not errors.StoreError]
    assert len(codes) == len(set(codes))
    assert all("exit_code" not in vars(kind) for kind in all_errors() if errors.ProxydsError not in kind.__bases__)


def test_help_and_validate_import_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(TINY_RECIPE)
    code = """
import sys
from proxyds.cli.main import cli
for arguments in (["--help"], ["validate", "r.yaml"]):
    try: cli.main(arguments, standalone_mode=True)
    except SystemExit as end: assert not end.code
heavy = {"torch", "datasets", "matplotlib", "sklearn", "pyarrow", "scipy", "pandas", "loky"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_init_writes_a_recipe_that_is_valid_and_names_its_schema(run_proxyds: Run, tmp_path: Path) -> None:
    ran = run_proxyds("init", "new/r.yaml", "--preset", "cifar10-small")
    assert ran.returncode == 0
    assert "next: proxyds validate new/r.yaml" in ran.stdout
    text = (tmp_path / "new" / "r.yaml").read_text()
    schema = next(line.partition("$schema=")[2] for line in text.splitlines() if "$schema=" in line)
    assert json.loads(Path(schema).read_text())["title"] == "Recipe"
    assert run_proxyds("validate", "new/r.yaml").stdout.startswith(
        "new/r.yaml: valid, cifar10-small-proxy 1.0.0, sha256 "
    )


def test_validate_prints_json_for_programs(run_proxyds: Run, write_recipe_file: Callable[..., Path]) -> None:
    write_recipe_file()
    good = json.loads(run_proxyds("validate", "recipe.yaml", "--json").stdout)
    assert good["valid"] is True
    assert len(good["sha256"]) == 64
    ran = run_proxyds("validate", "recipe.yaml", "--json", "--set", "selection.ratio=3", "--set", "seed=-1")
    assert ran.returncode == errors.RecipeError.exit_code
    bad = json.loads(ran.stdout)
    assert bad["exit_code"] == ran.returncode
    assert {problem["field"] for problem in bad["problems"]} == {
        "override (--set) selection.ratio=3: selection.ratio",
        "override (--set) seed=-1: seed",
    }


def test_build_tells_what_it_made_and_what_to_do_next(
    run_proxyds: Run, write_recipe_file: Callable[..., Path], tiny_proxy: Path
) -> None:
    assert tiny_proxy.exists()  # so that the store holds its probes
    write_recipe_file()
    ran = run_proxyds("build", "recipe.yaml", "-o", "out/p's own")
    assert ran.returncode == 0, ran.stderr
    assert "tiny 1.0.0 built: out/p's own" in ran.stdout
    assert "130 of 1,295 training samples of scikit-learn digits" in ran.stdout
    assert "evidence: none yet" in ran.stdout
    commands = [shlex.split(line) for line in ran.stdout.partition("next:")[2].splitlines()]
    code = next(words[2] for words in commands if words[1:2] == ["-c"])
    assert code == """from datasets import load_dataset; print(load_dataset("out/p's own"))"""
    of_it = [words[words.index("out/p's own") - 1] for words in commands if "out/p's own" in words]
    assert of_it == ["inspect", "check", "rank"]
    assert "probes" in ran.stderr
    assert "found done" in ran.stderr
    again = run_proxyds("build", "recipe.yaml", "-o", "out/p's own", "--quiet")
    assert "is there already, unchanged" in again.stdout
    assert again.stderr == ""


def test_dry_run_says_what_would_be_trained_and_makes_nothing(
    run_proxyds: Run, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_recipe_file()
    fresh = {"PROXYDS_STORE": str(tmp_path / "fresh")}
    ran = run_proxyds("build", "recipe.yaml", "-o", "p", "--dry-run", "--json", **fresh)
    plan = json.loads(ran.stdout)
    assert plan["n_selected"] == 130
    assert plan["n_architectures"] == 4
    assert [probe["is_stored"] for probe in plan["probes"]] == [False, False]
    assert (plan["n_evaluation"], plan["n_test"], plan["n_validation"]) == (143, 359, 143)
    assert 0 < plan["expected_seconds"] < 600
    assert plan["expected_build_seconds"] == plan["expected_seconds"]  # it has no check
    assert plan["warnings"] == []
    assert not (tmp_path / "p").exists()
    assert not list((tmp_path / "fresh").glob("probes/*"))
    few = ("--set", "source.validation_fraction=0.01")
    shown = run_proxyds("build", "recipe.yaml", "-o", "p", "--dry-run", *few, **fresh).stdout
    assert "nothing was trained" in shown
    assert "warning: source: should have 30 evaluation samples" in shown
    assert "warning: samples to rank on: " in shown
    assert "359 test samples (carved from the training split, 0.2 of each label: source.test_fraction)" in shown
    assert "resnet base_filters=8 multiplier=2" in shown


def test_inspect_verify_card_and_list_read_a_proxy(run_proxyds: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_proxy, tmp_path / "here")
    inspected = run_proxyds("inspect", "here").stdout
    for expected in ("130 of 1,295", "scikit-learn digits", "exact duplicates", "torch 2"):
        assert expected in inspected
    assert json.loads(run_proxyds("inspect", "here", "--json").stdout)["counts"]["proxy"] == 130
    assert run_proxyds("verify", "here").stdout.startswith("here: whole, 27 files, ")
    assert json.loads(run_proxyds("verify", "here", "--json").stdout)["whole"] is True
    assert run_proxyds("card", "here", "--check").stdout == "here: the card is what its records render to\n"
    listed = run_proxyds("list").stdout
    for expected in (
        "cifar10-resnet20",
        "torchvision",
        "resnet",
        "systematic",
        "successive",
        "tiny 1.0.0, 130 samples",
    ):
        assert expected in listed
    assert "here" in json.loads(run_proxyds("list", "--json").stdout)["proxies here"]


def test_the_store_can_be_listed_and_cleaned(
    run_proxyds: Run, session_store: Path, tmp_path: Path, tiny_proxy: Path
) -> None:
    assert tiny_proxy.exists()
    copy = tmp_path / "store"
    copy_store(session_store, copy)
    held = json.loads(run_proxyds("store", "list", "--json", PROXYDS_STORE=str(copy)).stdout)
    assert {"source", "probes", "features"} <= {entry["stage"] for entry in held}
    shown = run_proxyds("store", "list", PROXYDS_STORE=str(copy)).stdout
    assert "probe resnet" in shown
    assert re.fullmatch(rf"entries: {len(held)}, .+ of work, [\d.]+ [kM]B", shown.splitlines()[-1])
    unanswered = run_proxyds("store", "clean", PROXYDS_STORE=str(copy))
    assert unanswered.returncode == 2
    assert "nothing was removed; give --yes" in unanswered.stderr
    cleaned = run_proxyds("store", "clean", "--yes", PROXYDS_STORE=str(copy))
    assert cleaned.stdout.startswith(f"removed {len(held)} entries")
    assert run_proxyds("store", "list", "--json", PROXYDS_STORE=str(copy)).stdout.strip() == "[]"


def test_wrong_use_exits_with_2(run_proxyds: Run) -> None:
    ran = run_proxyds("build")
    assert ran.returncode == 2
    assert "Missing argument 'RECIPE'" in ran.stderr
    assert run_proxyds("no-such-command").returncode == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "raay"], "must be local, ray, ray:HOST:PORT or ray://HOST:PORT, got 'raay'"),
        (["--gpus-per-task", "0.5"], "give --engine ray too"),
    ],
)
def test_options_of_a_cluster_are_refused_as_wrong_use(
    options: list[str], said: str, run_proxyds: Run, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    done = run_proxyds("build", write_recipe_file(), "-o", tmp_path / "p", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "p").exists()
