"""The package as others get it: what the wheel holds, what the package index shows, and that it works where there is no checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
MOST_BYTES = 2_000_000
"""A wheel or a source distribution that is larger holds what nobody needs to use it."""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def test_the_wheel_holds_the_package_and_its_recipes_and_nothing_else(built: tuple[Path, Path]) -> None:
    listed = run("git", "ls-files", "proxyds", cwd=ROOT).splitlines()
    recipes = [f"proxyds/recipe/presets/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")]
    with zipfile.ZipFile(built[1]) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name for name in held if not name.endswith(".pyc")} == {*listed, *recipes}
    assert "proxyds/py.typed" in held


def test_both_are_small_and_without_tests_and_cards(built: tuple[Path, Path]) -> None:
    assert all(path.stat().st_size < MOST_BYTES for path in built)
    with tarfile.open(built[0]) as source:
        tops = {Path(name).parts[1] for name in source.getnames()}
    assert tops.isdisjoint({"tests", "cards", "docs"})


def test_the_package_index_can_show_its_page(built: tuple[Path, Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=ROOT)
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = (each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
        page = Parser().parsestr(wheel.read(name).decode()).get_payload()
    assert isinstance(page, str)
    assert "pip install" in page or "make demo" in page
    assert set(re.findall(r"\]\((\w*:?)", page)) <= {"https:", "http:"}


def test_the_citation_is_of_this_version() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)


@pytest.mark.slow
@pytest.mark.network
def test_the_wheel_builds_and_checks_a_proxy_in_an_empty_environment(built: tuple[Path, Path], tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "environment", cwd=tmp_path)
    programs = tmp_path / "environment" / "bin"
    constraints = ROOT / "constraints.txt"
    run(programs / "pip", "install", "--quiet", "--constraint", constraints, built[1], cwd=tmp_path)
    settings = ("training.epochs=2", "check.draws=2", "check.full_seeds=1", "check.architectures=6")
    smaller = [part for setting in settings for part in ("--set", setting)]
    alone = {"PYTHONPATH": "", "PROXYDS_STORE": str(tmp_path / "store")}

    def proxyds(*arguments: str) -> str:
        return run(programs / "proxyds", *arguments, cwd=tmp_path, **alone)

    proxyds("init")
    assert "built: digits-proxy" in proxyds("build", "recipe.yaml", "-o", "digits-proxy", *smaller)
    assert "verdict" in proxyds("check", "digits-proxy")
    assert "whole" in proxyds("verify", "digits-proxy")
    where = "import proxyds; print(proxyds.__file__)"
    assert run(programs / "python", "-c", where, cwd=tmp_path, **alone).startswith(str(tmp_path))
