"""Shared by all tests: a store of their own, small recipes, a built proxy, the real data where it is at hand."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from proxyds.runtime.storage.store import Entry, Store
from tests.commands import run_forked
from tests.shortcuts import PICTURES, WORKERS, take_shortcuts

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# a shell's background job ignores Ctrl-C, and so would the processes that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
take_shortcuts()
_HF_HOME = tempfile.TemporaryDirectory(prefix="proxyds-tests-hf-")
os.environ["HF_HOME"] = _HF_HOME.name  # read when datasets is imported: the user's own cache stays out of it
settings.register_profile("no deadline", settings(deadline=None))  # a busy machine, or a first import, takes its time
settings.load_profile("no deadline")
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
Run = Callable[..., subprocess.CompletedProcess[str]]
_NUMBERS = count()

# For `run_proxyds(first=...)`
LITTLE_SPACE = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
"""Lets no file grow large: writing more fails as on a full disk."""
NO_WAITING = "import time; time.sleep = lambda seconds: None"
"""Lets no time pass between tries, neither ours nor those of others' clients."""


LONGEST_FIRST = (
    "docs/test_pages.py",
    "pipeline/test_check.py",
    "runtime/test_ray.py",
    "runtime/test_shared_store.py",
    "pipeline/test_build.py",
)
"""Files that take minutes: a worker that began one last would be waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def read_tree(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets cards have real pictures; elsewhere in the tests one pixel stands for each."""
    monkeypatch.setenv(PICTURES, "1")


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tasks run in workers, as users' do; elsewhere in the tests they run in the command's own process."""
    monkeypatch.setenv(WORKERS, "1")


def copy_store(store: Path, place: Path, without: Callable[[Entry], bool] = lambda entry: False) -> Store:
    """Copies the finished work of a store, but for some: others may be at work in it."""
    for entry in Store(store).entries():
        if not without(entry):
            shutil.copytree(entry.folder, place / entry.folder.relative_to(store))
    return Store(place)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Lets torch compute in one thread, as workers do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def session_store(shared_folder: Path) -> Path:
    """A store shared by the whole run, so that equal probes are trained once."""
    return shared_folder / "store"


@pytest.fixture(scope="session")
def make_once(shared_folder: Path) -> Callable[..., Path]:
    """Makes a proxy unless another worker of the run has; `make` is called with an empty folder and returns the proxy's."""

    def once(name: str, make: Callable[[Path], Path]) -> Path:
        folder = shared_folder / name
        with FileLock(shared_folder / f"{name}.lock"):
            if not (folder / "made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed to
                folder.mkdir()
                (folder / "made").write_text(str(make(folder)))
        return Path((folder / "made").read_text())

    return once


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
def tiny_proxy(make_once: Callable[..., Path], session_store: Path) -> Path:
    """The proxy of `TINY_RECIPE`, built once. Do not change it: copy it."""
    return make_once("tiny", lambda folder: _build(folder, TINY_RECIPE, session_store))


def _build(folder: Path, recipe: str, store: Path) -> Path:
    from proxyds.pipeline.build import build

    path = folder / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    return build(path, folder / "proxy", store=Store(store), device="cpu").folder


@pytest.fixture(scope="session")
def checked_proxy(make_once: Callable[..., Path], session_store: Path) -> Path:
    """A proxy for eight architectures, checked with made-up accuracies. Do not change it: copy it."""
    return make_once("checked", lambda folder: _build_and_check(folder, session_store))


def _build_and_check(folder: Path, store: Path) -> Path:
    from proxyds.pipeline.check import check
    from proxyds.recipe.yaml import read_recipe
    from proxyds.space.listing import list_architectures

    proxy = _build(folder, TINY_RECIPE.replace("depth: 8", "depth: [8, 14]"), store)
    recipe = read_recipe(folder / "recipe.yaml")
    names = [each.name for each in list_architectures(recipe.space, 10, (1, 8, 8))]
    lines = ["architecture,dataset,accuracy,draw_seed,training_seed"]
    for dataset in ("full", "proxy", "random", "stratified", "fewer-epochs"):
        for repeat in range(2):
            for i, name in enumerate(names):
                rank = len(names) - i if dataset in ("full", "proxy") else i
                draw = "" if dataset in ("full", "fewer-epochs") else repeat
                lines.append(f"{name},{dataset},{0.5 + rank / 40 + repeat / 1000:.3f},{draw},{repeat}")
    (folder / "runs.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return check(proxy, runs=folder / "runs.csv", store=Store(store), device="cpu").folder


@pytest.fixture(scope="session")
def second_proxy(make_once: Callable[..., Path], tiny_proxy: Path, session_store: Path) -> Path:
    """The tiny proxy as 1.1.0, with more samples and in more shards: files of 1.0.0 are gone. Do not change it: copy it."""
    from proxyds.pipeline.resample import resample

    overrides = ["version=1.1.0", "selection.ratio=0.2", "output.samples_per_shard=50"]

    def make(folder: Path) -> Path:
        return resample(tiny_proxy, folder / "proxy", overrides=overrides, store=Store(session_store)).folder

    return make_once("second", make)


@pytest.fixture
def run_proxyds(tmp_path: Path, session_store: Path) -> Run:
    """Runs the command line in a process of its own, in an empty folder; after some Python, if told."""

    def run(*arguments: str | Path, first: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        own = {**os.environ, "PROXYDS_STORE": str(session_store), "COLUMNS": "120", **environment}
        return run_forked([str(each) for each in arguments], tmp_path, own, first)

    return run


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process, where torch is there already."""
    from proxyds.cli.main import main

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", ["proxyds", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


def check_manners(done: subprocess.CompletedProcess[str], *secrets: str) -> None:
    """What holds of every command, however it ends: no secret is printed, and what went wrong is one message without a trace."""
    assert "Traceback" not in done.stderr, done.stderr
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
    if done.returncode not in (0, 2):  # 2 is click's own way of telling
        assert done.stderr.count("proxyds: ") == 1, done.stderr


@contextmanager
def serve_hub() -> Iterator[dict[str, str]]:
    """Gives the variables with which programs talk to a stand-in for the Hub, `hub_server.py`, as its user `me`; it ends with the block."""
    script = Path(__file__).parent / "hub_server.py"
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        exports = [server.stdout.readline().removeprefix("export ").strip() for _ in range(3)]
        yield {**dict(line.split("=", 1) for line in exports), "HF_HUB_OFFLINE": "0"}
        server.terminate()


@pytest.fixture(scope="session")
def hub_environment() -> Iterator[dict[str, str]]:
    """The variables for one stand-in for the Hub, see `serve_hub`."""
    with serve_hub() as environment:
        yield environment


class Hub:
    """The stand-in for the Hub, asked over plain HTTP as its user `me`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._address = environment["HF_ENDPOINT"]

    def fetch(self, method: str, path: str, held: Any = None) -> bytes:
        body = None if held is None else json.dumps(held).encode()
        headers = {"Authorization": "Bearer hf_me", "Content-Type": "application/json"}
        asked = urllib.request.Request(self._address + path, body, headers, method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    def ask(self, method: str, path: str, held: Any = None) -> Any:
        return json.loads(self.fetch(method, path, held) or b"null")

    def fail(self, *faults: dict[str, Any]) -> None:
        """Lets it fail from now on, see `hub_server.py`; by nothing, if none is given."""
        self.ask("POST", "/test/faults", list(faults))

    def put(self, repo: str, files: dict[str, bytes], tag: str | None = None) -> None:
        """Makes a commit of files without the command line, whatever they are, as a stranger could."""
        encoded = {name: base64.b64encode(held).decode() for name, held in files.items()}
        self.ask("POST", "/test/files", {"repo": repo, "files": encoded, "tag": tag})

    def tags(self, repo: str) -> dict[str, str]:
        return {tag["name"]: tag["targetCommit"] for tag in self.ask("GET", f"/api/datasets/{repo}/refs")["tags"]}

    def state(self, repo: str) -> tuple[int, list[str]]:
        """How many commits `main` has, the Hub's own first among them, and the tags."""
        return len(self.ask("GET", f"/api/datasets/{repo}/commits/main")), sorted(self.tags(repo))

    def files(self, repo: str, revision: str) -> dict[str, bytes]:
        """The bytes of every file, but for the one that the Hub itself adds."""
        listed = self.ask("GET", f"/api/datasets/{repo}/tree/{revision}?recursive=true")
        names = [each["path"] for each in listed if each["type"] == "file" and each["path"] != ".gitattributes"]
        return {name: self.fetch("GET", f"/datasets/{repo}/resolve/{revision}/{name}") for name in names}

    def pull_requests(self, repo: str) -> list[int]:
        """The numbers of those that are open."""
        found = self.ask("GET", f"/api/datasets/{repo}/discussions?type=pull_request&status=open")["discussions"]
        return [each["num"] for each in found]

    def requests(self, *methods: str) -> list[str]:
        """The paths that were asked for since `forget_requests`, all or those by some methods."""
        asked = self.ask("GET", "/test/requests")
        return [each["path"] for each in asked if not methods or each["method"] in methods]

    def writes(self) -> list[str]:
        return self.requests("POST", "PUT", "DELETE")

    def forget_requests(self) -> None:
        self.ask("DELETE", "/test/requests")


@pytest.fixture
def hub(hub_environment: dict[str, str]) -> Iterator[Hub]:
    """The stand-in for the Hub, without faults and with an empty list of requests."""
    server = Hub(hub_environment)
    server.forget_requests()
    yield server
    server.fail()


@pytest.fixture
def repo() -> str:
    """A name on the Hub that no other test has."""
    return f"me/proxy-{next(_NUMBERS)}"


@pytest.fixture
def run_on_hub(run_proxyds: Run, hub_environment: dict[str, str], tmp_path: Path) -> Run:
    """`run_proxyds` as the Hub's user `me`, with a cache of its own. No token is ever printed or written anywhere."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {**hub_environment, "HF_HOME": str(tmp_path / "hf"), **environment}
        done = run_proxyds(*arguments, **own)
        tokens = {"hf_me", own["HF_TOKEN"]} - {""}
        check_manners(done, *tokens)
        for name, held in read_tree(tmp_path).items():
            assert not any(token.encode() in held for token in tokens), name
        assert not list(tmp_path.glob(".unfinished*"))
        return done

    return run


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The variables with which programs talk to a stand-in for S3 that holds an empty bucket `bucket`."""
    command, root = [sys.executable, "-m", "tests.s3_server"], Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        secrets = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "very-secret"}
        yield {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **secrets}
        server.terminate()


class Bucket:
    """The bucket by plain HTTP, behind everybody's back."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, method: str, name: str, held: bytes | None = None) -> bytes:
        asked = urllib.request.Request(f"{self._address}/bucket/{name}", held, method=method)
        signed = "Credential=somebody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"  # for moto
        asked.add_header("Authorization", f"AWS4-HMAC-SHA256 {signed}")
        asked.add_header("Content-Type", "application/octet-stream")  # or moto takes it for a form
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    def put(self, prefix: str, files: dict[str, bytes]) -> None:
        for name, held in files.items():
            self.ask("PUT", f"{prefix}/{name}", held)

    def names(self, prefix: str) -> set[str]:
        listed = self.ask("GET", f"?list-type=2&prefix={prefix}/").decode()
        return {each.partition("</Key>")[0].removeprefix(f"{prefix}/") for each in listed.split("<Key>")[1:]}

    def files(self, prefix: str) -> dict[str, bytes]:
        return {name: self.ask("GET", f"{prefix}/{name}") for name in self.names(prefix)}


@pytest.fixture
def bucket(s3: dict[str, str]) -> Bucket:
    return Bucket(s3["AWS_ENDPOINT_URL"])


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; skips where there is none."""
    folder = os.environ.get("PROXYDS_DATA")
    if not folder or not (Path(folder) / "cifar10").is_dir():
        pytest.skip("PROXYDS_DATA does not name a folder with the real CIFAR-10")
    return Path(folder)
