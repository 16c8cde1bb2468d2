"""Push, pull, inspect and resample against a stand-in for the Hub, with the real clients, each in a process of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_RECIPE

Run = Callable[..., subprocess.CompletedProcess[str]]
_NUMBERS = count()
LITTLE_SPACE = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


@pytest.fixture(scope="session")
def second(tiny_proxy: Path, session_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second version of the tiny proxy: more samples."""
    import proxyds

    overrides = ["version=1.1.0", "selection.ratio=0.2"]
    out = tmp_path_factory.mktemp("second") / "proxy"
    return proxyds.resample(tiny_proxy, out, overrides=overrides, store=proxyds.Store(session_store)).folder


@pytest.fixture
def repo() -> str:
    """A name that no other test has."""
    return f"me/proxy-{next(_NUMBERS)}"


@pytest.fixture
def ask(hub_environment: dict[str, str]) -> Callable[..., Any]:
    """Asks the server something, as its owner."""

    def request(method: str, path: str, held: Any = None, user: str = "hf_me") -> Any:
        body = None if held is None else json.dumps(held).encode()
        asked = urllib.request.Request(hub_environment["HF_ENDPOINT"] + path, body, method=method)
        asked.add_header("Authorization", f"Bearer {user}")
        asked.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    return request


@pytest.fixture
def fault(ask: Callable[..., Any]):
    """Lets the server fail; it recovers when the test ends."""
    yield lambda *faults: ask("POST", "/test/faults", list(faults))
    ask("POST", "/test/faults", [])


@pytest.fixture
def proxyds_(run_proxyds: Run, hub_environment: dict[str, str], tmp_path: Path) -> Run:
    """The command line as user `me`, with a cache of its own; says that no token was ever printed."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        done = run_proxyds(*arguments, **{**hub_environment, "HF_HOME": str(tmp_path / "hf"), **environment})
        assert "hf_me" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def commits(ask: Callable[..., Any], repo: str) -> int:
    return len(ask("GET", f"/api/datasets/{repo}/commits/main"))


def tags(ask: Callable[..., Any], repo: str) -> dict[str, str]:
    return {tag["name"]: tag["targetCommit"] for tag in ask("GET", f"/api/datasets/{repo}/refs")["tags"]}


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_push_makes_one_commit_and_tags_it_and_a_second_changes_nothing(
    proxyds_: Run, tiny_proxy: Path, repo: str, ask: Callable[..., Any], tmp_path: Path
) -> None:
    planned = proxyds_("push", tiny_proxy, repo, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "manifest.json" in planned.stdout
    assert "which would be made; nothing was done" in planned.stdout
    assert proxyds_("pull", repo).returncode == 71
    pushed = proxyds_("push", tiny_proxy, repo)
    assert pushed.returncode == 0, pushed.stderr
    assert f"tiny 1.0.0 published: {repo}@v1.0.0" in pushed.stdout
    assert commits(ask, repo) == 2  # the Hub's own first, and ours
    before = tags(ask, repo)
    ask("DELETE", "/test/requests")
    again = proxyds_("push", tiny_proxy, repo, "--tag", "v1.0.0")
    assert "nothing was changed" in again.stdout
    written = [r for r in ask("GET", "/test/requests") if r["method"] in ("POST", "PUT", "DELETE")]
    assert written == []
    assert tags(ask, repo) == before
    assert commits(ask, repo) == 2
    pulled = proxyds_("pull", f"{repo}@v1.0.0", "-o", "got")
    assert pulled.returncode == 0, pulled.stderr
    assert tree(tmp_path / "got") == tree(tiny_proxy)
    assert "is there already, unchanged" in proxyds_("pull", f"{repo}@v1.0.0", "-o", "got").stdout


def test_two_versions_load_by_tag_with_the_real_clients(
    proxyds_: Run, tiny_proxy: Path, second: Path, repo: str, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    assert proxyds_("push", tiny_proxy, repo).returncode == 0
    assert proxyds_("push", second, repo).returncode == 0
    code = f"""
import json, pathlib
from datasets import load_dataset
from huggingface_hub import snapshot_download
n = {{tag: load_dataset({repo!r}, revision=tag, split="train").num_rows for tag in ("v1.0.0", "v1.1.0")}}
stream = load_dataset({repo!r}, revision="v1.0.0", split="train", streaming=True)
n["streamed"] = sum(1 for _ in stream)
n["tars"] = load_dataset({repo!r}, revision="v1.0.0", data_files="webdataset/*.tar", split="train").num_rows
n["table"] = load_dataset({repo!r}, "importance", revision="v1.1.0", split="train").num_rows
n["files"] = len([p for p in pathlib.Path(snapshot_download({repo!r}, repo_type="dataset", revision="v1.1.0")).rglob("*") if p.is_file()])
print(json.dumps(n))
"""
    environment = {**os.environ, **hub_environment, "HF_HOME": str(tmp_path / "hf")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    n_files = len(tree(second)) + 1  # and the Hub's own
    expected = {"v1.0.0": 130, "v1.1.0": 259, "streamed": 130, "tars": 130, "table": 1295, "files": n_files}
    assert json.loads(ran.stdout.splitlines()[-1]) == expected
    hf = [str(Path(sys.executable).parent / "hf"), "download", repo, "--repo-type", "dataset", "--revision", "v1.0.0"]
    ran = subprocess.run(
        [*hf, "--local-dir", str(tmp_path / "by-hf")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "by-hf" / "manifest.json").read_bytes() == (tiny_proxy / "manifest.json").read_bytes()


def test_a_tag_is_never_moved_and_names_its_own_version(
    proxyds_: Run, tiny_proxy: Path, second: Path, repo: str, ask: Callable[..., Any]
) -> None:
    assert proxyds_("push", tiny_proxy, repo, "--tag", "best").returncode == 0
    before = tags(ask, repo)
    refused = proxyds_("push", second, repo, "--tag", "best")
    assert refused.returncode == 73
    assert "is never moved" in refused.stderr
    assert (tags(ask, repo), commits(ask, repo)) == (before, 2)
    assert proxyds_("push", second, repo, "--tag", "v1.0.0").returncode == 75
    assert proxyds_("push", second, repo, "--create-pr", "--tag", "v1.1.0").returncode == 2


def test_offline_a_pull_gives_the_version_that_was_asked_for_or_none(
    proxyds_: Run, tiny_proxy: Path, second: Path, repo: str, tmp_path: Path
) -> None:
    assert proxyds_("push", tiny_proxy, repo).returncode == 0
    assert proxyds_("pull", f"{repo}@v1.0.0", "-o", "first").returncode == 0
    assert proxyds_("push", second, repo).returncode == 0
    head = proxyds_("pull", repo, "-o", "head")
    assert "the head of main, which can change; its versions: v1.0.0, v1.1.0" in head.stdout
    offline = proxyds_("pull", f"{repo}@v1.0.0", "-o", "again", HF_HUB_OFFLINE="1")
    assert "the Hub was not asked" in offline.stdout
    assert tree(tmp_path / "again") == tree(tiny_proxy)
    assert proxyds_("pull", f"{repo}@v1.1.0", "-o", "other", HF_HUB_OFFLINE="1").returncode == 71
    assert not (tmp_path / "other").exists()


def test_inspect_and_resample_fetch_no_images(
    proxyds_: Run, tiny_proxy: Path, repo: str, ask: Callable[..., Any], tmp_path: Path, write_recipe_file
) -> None:
    assert proxyds_("push", tiny_proxy, repo).returncode == 0
    ask("DELETE", "/test/requests")
    assert "130 of 1,295 training samples" in proxyds_("inspect", f"{repo}@v1.0.0").stdout
    drawn = proxyds_("resample", f"{repo}@v1.0.0", "--ratio", "0.05", "-o", "small")
    assert "tiny 1.0.0 drawn again: small" in drawn.stdout, drawn.stderr
    paths = [r["path"] for r in ask("GET", "/test/requests") if "/resolve/" in r["path"]]
    assert paths
    assert not [p for p in paths if "/data/" in p or "webdataset" in p or "assets" in p]
    recipe = write_recipe_file(TINY_RECIPE)
    assert proxyds_("build", recipe, "--set", "selection.ratio=0.05", "-o", "built").returncode == 0
    same = ("data/", "importance/", "evaluation/", "webdataset/", "recipe.yaml")
    small, built = tree(tmp_path / "small"), tree(tmp_path / "built")
    assert {k: v for k, v in small.items() if k.startswith(same)} == {
        k: v for k, v in built.items() if k.startswith(same)
    }
    assert "Drawn again from the importance table of **tiny 1.0.0**" in (tmp_path / "small" / "README.md").read_text()
    assert proxyds_("verify", "small").returncode == 0


@pytest.mark.parametrize(
    "trouble",
    [
        {"method": "PUT", "path": ".", "cut_after": 1000, "times": 1},
        {"method": "POST", "path": "/commit/", "answer_lost": True, "times": 1},
        {"method": "POST", "path": "/commit/", "status": 500, "times": 1},
        {"method": "POST", "path": "/preupload/", "status": 500, "times": 2},
        {"method": "POST", "path": "/tag/", "status": 429, "times": 1},
        {"method": "POST", "path": "/tag/", "answer_lost": True, "times": 1},
    ],
    ids=lambda each: f"{each['method']} {each['path']} {each.get('status', '')}".strip(),
)
def test_a_push_lives_through_what_passes(
    trouble: dict[str, Any], fault, proxyds_: Run, tiny_proxy: Path, repo: str, ask: Callable[..., Any]
) -> None:
    fault(trouble)
    pushed = proxyds_("push", tiny_proxy, repo)
    assert pushed.returncode == 0, pushed.stderr
    assert list(tags(ask, repo)) == ["v1.0.0"]
    assert commits(ask, repo) == 2


def test_a_push_that_breaks_off_leaves_no_tag_and_can_be_repeated(
    fault, proxyds_: Run, tiny_proxy: Path, repo: str, ask: Callable[..., Any]
) -> None:
    fault({"method": "POST", "path": "/commit/", "status": 500, "times": 100})
    broken = proxyds_("push", tiny_proxy, repo)
    assert broken.returncode == 70
    assert broken.stderr.count("\n") <= 2
    assert (tags(ask, repo), commits(ask, repo)) == ({}, 1)
    fault()
    assert proxyds_("push", tiny_proxy, repo).returncode == 0
    assert list(tags(ask, repo)) == ["v1.0.0"]


def test_what_arrives_broken_is_refused_and_leaves_nothing(
    fault, proxyds_: Run, tiny_proxy: Path, repo: str, ask: Callable[..., Any], tmp_path: Path
) -> None:
    assert proxyds_("push", tiny_proxy, repo).returncode == 0
    before = {path.name for path in tmp_path.iterdir()}
    held = (tiny_proxy / "recipe.yaml").read_bytes()
    other = base64.b64encode(b"#" * len(held)).decode()
    fault({"method": "GET", "path": "resolve/.*/recipe.yaml", "body": other, "times": 100})
    refused = proxyds_("pull", f"{repo}@v1.0.0", "-o", "got")
    assert refused.returncode == 51, refused.stderr
    assert "recipe.yaml: its bytes have changed" in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} <= before | {"hf"}
    fault({"method": "GET", "path": "resolve/.*/data/", "cut_after": 100, "times": 1})
    assert proxyds_("pull", f"{repo}@v1.0.0", "-o", "got").returncode == 0


def test_a_full_disk_on_the_way_down_leaves_nothing(
    proxyds_: Run, tiny_proxy: Path, repo: str, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    assert proxyds_("push", tiny_proxy, repo).returncode == 0
    code = f"{LITTLE_SPACE.format(20_000)}\nimport sys\nsys.argv = ['proxyds', 'pull', '{repo}@v1.0.0', '-o', 'got']\nfrom proxyds.cli import main\nmain()"
    environment = {**os.environ, **hub_environment, "HF_HOME": str(tmp_path / "hf2")}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 42, ran.stderr
    assert "no space left" in ran.stderr
    assert not (tmp_path / "got").exists()
    assert not list(tmp_path.glob(".unfinished*"))


def test_tokens_decide_who_may_do_what(
    proxyds_: Run, tiny_proxy: Path, second: Path, repo: str, ask: Callable[..., Any]
) -> None:
    none = proxyds_("push", tiny_proxy, repo, HF_TOKEN="")
    assert (none.returncode, "hf auth login" in none.stderr) == (72, True)
    wrong = proxyds_("push", tiny_proxy, repo, HF_TOKEN="hf_wrong")
    assert wrong.returncode == 72
    assert "hf_wrong" not in wrong.stderr
    assert proxyds_("push", tiny_proxy, repo, HF_TOKEN="hf_me_read").returncode == 72
    assert proxyds_("push", tiny_proxy, repo).returncode == 0
    stranger = proxyds_("push", second, repo, HF_TOKEN="hf_other")
    assert (stranger.returncode, commits(ask, repo)) == (72, 2), stderr_of(stranger)
    asked = proxyds_("push", second, repo, "--create-pr", HF_TOKEN="hf_other")
    assert "asked to take tiny 1.1.0" in asked.stdout, stderr_of(asked)
    again = proxyds_("push", second, repo, "--create-pr", HF_TOKEN="hf_other")
    assert "nothing was changed" in again.stdout
    pulls = ask("GET", f"/api/datasets/{repo}/discussions?type=pull_request&status=open")["discussions"]
    assert len(pulls) == 1
    ask("POST", f"/api/datasets/{repo}/discussions/{pulls[0]['num']}/merge", {})
    n_commits = commits(ask, repo)
    assert proxyds_("push", second, repo).returncode == 0
    assert commits(ask, repo) == n_commits
    assert sorted(tags(ask, repo)) == ["v1.0.0", "v1.1.0"]


def stderr_of(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr


def test_private_is_private_and_a_public_repository_is_not_taken_for_it(
    proxyds_: Run, tiny_proxy: Path, repo: str
) -> None:
    assert proxyds_("push", tiny_proxy, repo, "--private").returncode == 0
    assert proxyds_("pull", repo, HF_TOKEN="hf_other").returncode == 71
    assert proxyds_("push", tiny_proxy, f"{repo}-public").returncode == 0
    refused = proxyds_("push", tiny_proxy, f"{repo}-public", "--private")
    assert (refused.returncode, "is public" in refused.stderr) == (75, True)


def test_what_is_not_a_proxys_is_left_alone(
    proxyds_: Run, tiny_proxy: Path, repo: str, ask: Callable[..., Any], tmp_path: Path
) -> None:
    note = base64.b64encode(b"mine").decode()
    ask("POST", "/test/files", {"repo": repo, "files": {"notes.txt": note}, "branch": "main", "tag": None})
    n_commits = commits(ask, repo)
    refused = proxyds_("push", tiny_proxy, repo)
    assert (refused.returncode, "found notes.txt" in refused.stderr) == (41, True)
    assert commits(ask, repo) == n_commits
    assert proxyds_("pull", repo).returncode == 50
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    assert proxyds_("pull", repo, "-o", "mine").returncode == 41


@pytest.mark.parametrize(
    ("name", "said"),
    [("data/train-00001-of-00002.parquet", "not in the manifest"), ("x/../../y", "not in the manifest")],
)
def test_files_that_a_strangers_manifest_does_not_list_are_refused_before_anything_is_fetched(
    name: str, said: str, proxyds_: Run, tiny_proxy: Path, repo: str, ask: Callable[..., Any], tmp_path: Path
) -> None:
    files = {path: base64.b64encode(held).decode() for path, held in tree(tiny_proxy).items()}
    files[name] = base64.b64encode(b"evil").decode()
    ask("POST", "/test/files", {"repo": repo, "files": files, "branch": "main", "tag": "v1.0.0"})
    ask("DELETE", "/test/requests")
    refused = proxyds_("pull", f"{repo}@v1.0.0", "-o", "got")
    assert refused.returncode == 51, refused.stderr
    assert f"{name}: {said}" in refused.stderr
    fetched = [r["path"] for r in ask("GET", "/test/requests") if r["method"] == "GET" and "/resolve/" in r["path"]]
    assert {path.rpartition("/")[2] for path in fetched} <= {"manifest.json"}
    assert not (tmp_path / "got").exists()


def test_a_damaged_proxy_or_one_below_its_threshold_is_not_published(
    proxyds_: Run, tiny_proxy: Path, checked_proxy: Path, repo: str, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(tiny_proxy, tmp_path / "damaged"))
    (damaged / "README.md").write_text("another")
    assert proxyds_("push", damaged, repo).returncode == 51
    assert proxyds_("pull", repo).returncode == 71
    below = Path(shutil.copytree(checked_proxy, tmp_path / "below"))
    runs = (checked_proxy.parent / "runs.csv").read_text()
    swapped = runs.replace(",proxy,", ",x,").replace(",random,", ",proxy,").replace(",x,", ",random,")
    (tmp_path / "runs.csv").write_text(swapped)  # ranks the wrong way round
    checked = proxyds_("check", below, "--runs", "runs.csv", "--set", "check.threshold=0.5")
    assert checked.returncode == 3, checked.stderr
    refused = proxyds_("push", below, repo)
    assert (refused.returncode, "--below-threshold" in refused.stderr) == (3, True)
    assert proxyds_("pull", repo).returncode == 71
    assert proxyds_("push", below, repo, "--below-threshold").returncode == 0


def test_the_token_is_written_nowhere(
    proxyds_: Run, tiny_proxy: Path, repo: str, tmp_path: Path, write_recipe_file
) -> None:
    assert proxyds_("build", write_recipe_file(), "-o", "built").returncode == 0
    assert proxyds_("push", "built", repo).returncode == 0
    assert proxyds_("pull", f"{repo}@v1.0.0", "-o", "got").returncode == 0
    for path, held in tree(tmp_path).items():
        assert b"hf_me" not in held, path
