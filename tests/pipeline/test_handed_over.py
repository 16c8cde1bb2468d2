"""Networks of a program from start to end: a script, a notebook's cell; built and checked by workers, ranked, and built again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxyds.errors import CallableError
from proxyds.pipeline.build import build
from proxyds.pipeline.check import check
from proxyds.pipeline.rank import rank
from proxyds.recipe.yaml import read_recipe

NETS = """\
from torch import nn

def make(n_labels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, n_labels))
"""
NETWORKS = """\
print("top of the program")
import functools, json, sys
import proxyds
from torch import nn
from proxyds.recipe.models import Recipe
from proxyds.space.candidates import make_space
import nets

class Net(nn.Module):
    def __init__(self, width, n_labels, image_shape):
        super().__init__()
        self.hidden, self.head = nn.Linear(image_shape[1] * image_shape[2], width), nn.Linear(width, n_labels)

    def forward(self, images):
        return self.head(self.hidden(images.flatten(1)).relu())

networks = {
    **{f"width {width}": functools.partial(Net, width) for width in (8, 16, 32)},
    "imported": nets.make,
    "module": nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)),
}
"""
BUILD = """\
recipe = Recipe.model_validate_json(json.dumps({
    "name": "own", "space": make_space(networks), "selection": {"ratio": 0.1},
    "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.02, "crop_padding": 0, "horizontal_flip": False},
    "check": {"architectures": 5, "draws": 1, "full_seeds": 1},
}))
print(proxyds.build(recipe, sys.argv[1], workers=2, device="cpu").manifest.evidence.n_architectures)
"""
AGAIN = """\
print(proxyds.check(sys.argv[1], space=networks, overrides=["check.draws=2"], workers=1, device="cpu").manifest.evidence.n_architectures)
"""
CELL = """\
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in open(sys.argv[2]).read().split("# cell"):
    shell.run_cell(cell).raise_error()
"""


def run(folder: Path, text: str, *arguments: str) -> list[str]:
    (folder / "nets.py").write_text(NETS)
    (folder / "script.py").write_text(text)
    told = subprocess.run(
        [sys.executable, str(folder / "script.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        env=os.environ,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout.splitlines()


@pytest.fixture(scope="module")
def own_proxy(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROXYDS_STORE", str(session_store))
        # workers do not run the program again
        assert run(folder, NETWORKS + BUILD, str(folder / "proxy")) == ["top of the program", "5"]
    return folder / "proxy"


@pytest.mark.e2e
def test_another_program_with_the_same_networks_goes_on_and_others_are_refused(own_proxy: Path, tmp_path: Path) -> None:
    assert run(own_proxy.parent, NETWORKS + AGAIN, str(own_proxy))[-1] == "5"
    with pytest.raises(CallableError, match=r"'width 8'.* were not passed"):
        build(own_proxy / "recipe.yaml", tmp_path / "out")
    with pytest.raises(CallableError, match="space="):
        check(own_proxy)
    with pytest.raises(CallableError, match="'width 8'"):
        check(own_proxy, space={"width 8": lambda: None})
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_the_proxy_says_that_code_identifies_its_networks_and_ranks_them_by_name(own_proxy: Path) -> None:
    manifest = json.loads((own_proxy / "manifest.json").read_text())
    assert "sha256" in manifest["space"]["origin"]["code"]
    assert "networks of a Python program" in (own_proxy / "README.md").read_text()
    names = ["width 8", "width 16", "width 32", "imported", "module"]
    assert {each["name"] for each in manifest["evidence"]["architectures"]} == set(names)
    ranking = rank(str(own_proxy), {name: 0.5 + i / 20 for i, name in enumerate(names)})
    assert not any("not of the proxy's search space" in note for note in ranking.notes)
    (said,) = [note for note in rank(str(own_proxy), {"width 8": 0.5, "mine": 0.6}).notes if "search space" in note]
    assert "'mine'" in said
    assert "space=" not in said
    assert read_recipe(own_proxy / "recipe.yaml").sha256 == manifest["recipe_sha256"]


@pytest.mark.e2e
def test_a_notebooks_cells_give_the_same_recipe(own_proxy: Path, tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    plan = "plan = proxyds.plan_build(recipe, workers=1, device='cpu'); print(recipe.sha256, len(plan.architectures))"
    cells = (
        NETWORKS
        + "\n# cell\n"
        + BUILD.replace("print(proxyds.build(", "0 and print(proxyds.build(")
        + "\n# cell\n"
        + plan
    )
    (tmp_path / "cells.txt").write_text(cells)
    shown = run(tmp_path, f"import sys\n{CELL}", "-", str(tmp_path / "cells.txt"))
    assert shown[-1] == f"{read_recipe(own_proxy / 'recipe.yaml').sha256} 5"
