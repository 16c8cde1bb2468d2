"""Shared by all tests: a store of their own, small recipes, a built proxy, the real data where it is at hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# a shell's background job ignores Ctrl-C, and so would the processes that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
_HF_HOME = tempfile.TemporaryDirectory(prefix="proxyds-tests-hf-")
os.environ["HF_HOME"] = _HF_HOME.name  # read when datasets is imported: the user's own cache stays out of it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the default tests may reach the network

TINY_RECIPE = """\
name: tiny
source: {kind: digits}
space:
  network: resnet
  choices: {depth: 8, base_filters: [4, 8], multiplier: [1, 2]}
selection: {ratio: 0.1}
training: {epochs: 5, batch_size: 32, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
"""


@pytest.fixture(scope="session")
def session_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store shared by the whole run, so that equal probes are trained once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _own_store(session_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXYDS_STORE", str(session_store))


@pytest.fixture
def write_recipe_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe's text to a file."""

    def write(text: str = TINY_RECIPE, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def tiny_proxy(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    """The proxy of `TINY_RECIPE`, built once. Do not change it: copy it."""
    from proxyds.pipeline import build
    from proxyds.recipe_yaml import read_recipe
    from proxyds.store import Store

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "recipe.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    return build(read_recipe(folder / "recipe.yaml"), folder / "proxy", store=Store(session_store), device="cpu").folder


@pytest.fixture(scope="session")
def checked_proxy(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    """A proxy for eight architectures, checked with made-up accuracies. Do not change it: copy it."""
    from proxyds.pipeline import build, check
    from proxyds.recipe_yaml import read_recipe
    from proxyds.space import list_architectures
    from proxyds.store import Store

    folder, store = tmp_path_factory.mktemp("checked"), Store(session_store)
    (folder / "recipe.yaml").write_text(TINY_RECIPE.replace("depth: 8", "depth: [8, 14]"), encoding="utf-8")
    recipe = read_recipe(folder / "recipe.yaml")
    proxy = build(recipe, folder / "proxy", store=store, device="cpu").folder
    names = [each.name for each in list_architectures(recipe.space, 10, (1, 8, 8))]
    lines = ["architecture,dataset,accuracy,draw_seed,training_seed"]
    for dataset in ("full", "proxy", "random", "stratified", "fewer-epochs"):
        for repeat in range(2):
            for i, name in enumerate(names):
                rank = len(names) - i if dataset in ("full", "proxy") else i
                draw = "" if dataset in ("full", "fewer-epochs") else repeat
                lines.append(f"{name},{dataset},{0.5 + rank / 40 + repeat / 1000:.3f},{draw},{repeat}")
    (folder / "runs.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return check(proxy, runs=folder / "runs.csv", store=store, device="cpu").folder


@pytest.fixture
def run_proxyds(tmp_path: Path, session_store: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line as a user does, in a process of its own, in an empty folder."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "proxyds", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PROXYDS_STORE": str(session_store), "COLUMNS": "120", **environment},
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def hub_environment() -> Iterator[dict[str, str]]:
    """The variables with which programs talk to a stand-in for the Hub, `hub_server.py`, as its user `me`."""
    script = Path(__file__).parent / "hub_server.py"
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        exports = [server.stdout.readline().removeprefix("export ").strip() for _ in range(3)]
        yield {**dict(line.split("=", 1) for line in exports), "HF_HUB_OFFLINE": "0"}
        server.terminate()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; skips where there is none."""
    folder = os.environ.get("PROXYDS_DATA")
    if not folder or not (Path(folder) / "cifar10").is_dir():
        pytest.skip("PROXYDS_DATA does not name a folder with the real CIFAR-10")
    return Path(folder)
