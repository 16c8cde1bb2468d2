"""The notebooks of the documentation run from start to end, and are kept without outputs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import Run, serve_hub

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


assert set(NAMES) == {"first-proxy", "own-trainer", "search-on-a-proxy"}, "each is run by a test of its own below"


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def run(name: str, folder: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a notebook in a folder; returns all that its cells print and show, as text."""
    from nbclient import NotebookClient

    for variable, value in {**environment, "PYTHONPATH": str(FOLDER.parents[1])}.items():
        monkeypatch.setenv(variable, value)
    notebook = read(name)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [each for each in outputs if each.get("name") == "stderr"], outputs
    return "\n".join(each.get("text") or each.get("data", {}).get("text/plain", "") for each in outputs)


@pytest.mark.e2e
def test_a_first_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("first-proxy", tmp_path, {}, monkeypatch)
    assert "verdict: " in shown
    assert re.search(r"^(take |train on everything: |order only)", shown, re.MULTILINE)


@pytest.mark.e2e
def test_your_own_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("own-trainer", tmp_path, {}, monkeypatch)
    assert "probes" in shown
    assert "accuracy" in shown


@pytest.mark.e2e
def test_a_search_on_a_proxy_from_the_hub(
    checked_proxy: Path,
    run_on_hub: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(checked_proxy, tmp_path / "proxy")
    with serve_hub() as own:  # where nobody has taken the name yet
        assert run_on_hub("push", tmp_path / "proxy", "me/digits-proxy", **own).returncode == 0
        shown = run("search-on-a-proxy", tmp_path, {**own, "HF_HOME": str(tmp_path / "hf")}, monkeypatch)
    assert "base_filters" in shown
