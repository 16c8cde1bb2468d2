"""Publishing as several people do it over months, with a network that fails: what `test_hub.py` does not go through."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Ask = Callable[..., Any]
WRITING = ("POST", "PUT", "DELETE")


@pytest.fixture
def ask(hub_environment: dict[str, str]) -> Iterator[Ask]:
    """Asks the server something as its user `me`; faults end with the test."""

    def request(method: str, path: str, held: Any = None) -> Any:
        body = None if held is None else json.dumps(held).encode()
        headers = {"Authorization": "Bearer hf_me", "Content-Type": "application/json"}
        asked = urllib.request.Request(hub_environment["HF_ENDPOINT"] + path, body, headers, method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    request("POST", "/test/faults", [])
    request("DELETE", "/test/requests")
    yield request
    request("POST", "/test/faults", [])


@pytest.fixture
def proxyds_(run_proxyds: Run, hub_environment: dict[str, str], tmp_path: Path) -> Run:
    """The command line as user `me`, with a cache of its own; no token is printed, or left outside the cache."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {**hub_environment, "HF_HOME": str(tmp_path / "hf"), **environment}
        done = run_proxyds(*arguments, **own)
        assert "Traceback" not in done.stderr, done.stderr
        if own["HF_TOKEN"]:
            assert own["HF_TOKEN"] not in done.stdout + done.stderr
            written = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(tmp_path / "hf")]
            assert not [p for p in written if own["HF_TOKEN"].encode() in p.read_bytes()]
        if done.returncode not in (0, 2):
            assert done.stderr.count("proxyds: ") == 1, done.stderr
            assert not list(tmp_path.glob(".unfinished*"))
        return done

    return run


@pytest.fixture(scope="module")
def second(tiny_proxy: Path, session_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny proxy as 1.1.0, in other shards: files of 1.0.0 are gone."""
    import proxyds

    out = tmp_path_factory.mktemp("second") / "proxy"
    overrides = ["version=1.1.0", "output.samples_per_shard=100"]
    return proxyds.resample(tiny_proxy, out, overrides=overrides, store=proxyds.Store(session_store)).folder


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def state(ask: Ask, repo: str) -> tuple[int, list[str]]:
    """How many commits `main` has, the Hub's own first among them, and the tags."""
    commits, refs = ask("GET", f"/api/datasets/{repo}/commits/main"), ask("GET", f"/api/datasets/{repo}/refs")
    return len(commits), sorted(tag["name"] for tag in refs["tags"])


def pulls(ask: Ask, repo: str) -> list[int]:
    found = ask("GET", f"/api/datasets/{repo}/discussions?type=pull_request&status=open")["discussions"]
    return [each["num"] for each in found]


def put(ask: Ask, repo: str, files: dict[str, bytes], tag: str | None = None) -> None:
    """Makes a repository of files without the command line: anything may be in it."""
    encoded = {name: base64.b64encode(held).decode() for name, held in files.items()}
    ask("POST", "/test/files", {"repo": repo, "files": encoded, "tag": tag})


def requests(ask: Ask, *methods: str) -> list[str]:
    return [each["path"] for each in ask("GET", "/test/requests") if each["method"] in methods]


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


LOAD = """
import json
from pathlib import Path
from datasets import load_dataset
from huggingface_hub import snapshot_download
kept = {}
for tag in ("v1.0.0", "v1.1.0"):
    here = Path(snapshot_download("me/story", repo_type="dataset", revision=tag))
    names = sorted(p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file())
    rows = load_dataset("me/story", revision=tag, split="train")
    streamed = load_dataset("me/story", revision=tag, split="train", streaming=True)
    tars = load_dataset("me/story", revision=tag, data_files="webdataset/*.tar", split="train")
    assert [r["sample_id"] for r in rows] == [r["sample_id"] for r in streamed] == [r["__key__"] for r in tars]
    kept[tag] = [rows.num_rows, names]
print(json.dumps(kept))
"""


def test_a_dry_run_sends_nothing_and_a_second_version_takes_the_place_of_the_first(
    proxyds_: Run, tiny_proxy: Path, second: Path, ask: Ask, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    planned = json.loads(proxyds_("push", tiny_proxy, "me/story", "--dry-run", "--json", HF_TOKEN="").stdout)
    sizes = {each["name"]: each["n_bytes"] for each in planned["files"]}
    assert sizes == {name: len(held) for name, held in tree(tiny_proxy).items()}
    assert (planned["is_plan"], planned["is_new_place"], planned["commit"]) == (True, True, None)
    assert not requests(ask, *WRITING)

    assert proxyds_("push", tiny_proxy, "me/story").returncode == 0
    written = requests(ask, *WRITING)
    assert sum("/commit/" in path for path in written) == 1
    assert "/tag/" in written[-1]
    planned = json.loads(proxyds_("push", second, "hf://datasets/me/story", "--dry-run", "--json").stdout)
    gone = {each["name"] for each in planned["files"] if each["change"] == "removed"}
    assert gone == set(tree(tiny_proxy)) - set(tree(second))
    assert "data/train-00000-of-00001.parquet" in gone
    assert state(ask, "me/story") == (2, ["v1.0.0"])
    assert proxyds_("push", second, "me/story").returncode == 0
    assert "me/story@v1.0.0 has the very bytes" in proxyds_("push", tiny_proxy, "me/story").stdout.replace(":", "")
    assert state(ask, "me/story") == (3, ["v1.0.0", "v1.1.0"])

    environment = {**os.environ, **hub_environment, "HF_HOME": str(tmp_path / "hf")}
    ran = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    loaded = json.loads(ran.stdout.splitlines()[-1])
    for tag, folder in {"v1.0.0": tiny_proxy, "v1.1.0": second}.items():
        assert loaded[tag] == [130, sorted([".gitattributes", *tree(folder)])]


def test_offline_main_stays_what_it_was_and_what_was_not_fetched_whole_is_not_given(
    proxyds_: Run, tiny_proxy: Path, second: Path, ask: Ask, tmp_path: Path
) -> None:
    put(ask, "me/offline", tree(tiny_proxy), "v1.0.0")
    assert proxyds_("inspect", "me/offline@v1.0.0").returncode == 0  # its images are not in the cache
    half = proxyds_("pull", "me/offline@v1.0.0", HF_HUB_OFFLINE="1")
    assert (half.returncode, "HF_HUB_OFFLINE is set" in half.stderr) == (71, True), half.stderr
    assert not (tmp_path / "offline").exists()
    first = proxyds_("pull", "me/offline")
    assert "no version was asked for, so this is the head of main" in first.stdout
    assert "its versions: v1.0.0" in first.stdout
    put(ask, "me/offline", tree(second), "v1.1.0")
    again = proxyds_("pull", "me/offline", "-o", "again", HF_HUB_OFFLINE="1")
    assert "this is what was fetched before under that name" in again.stdout, again.stderr
    assert tree(tmp_path / "again") == tree(tmp_path / "offline") == tree(tiny_proxy)
    changed = proxyds_("pull", "me/offline")  # the folder holds what main was
    assert (changed.returncode, "found another proxy, tiny 1.0.0" in changed.stderr) == (41, True)
    assert tree(tmp_path / "offline") == tree(tiny_proxy)
    assert proxyds_("push", tiny_proxy, "me/offline", HF_HUB_OFFLINE="1").returncode == 72


@pytest.mark.slow  # minutes: the client's patience times ours
def test_a_push_whose_uploads_are_always_cut_leaves_neither_commit_nor_tag(
    proxyds_: Run, tiny_proxy: Path, ask: Ask
) -> None:
    ask("POST", "/test/faults", [{"method": "PUT", "path": ".", "cut_after": 1000, "times": 1000, "reset": True}])
    cut = proxyds_("push", tiny_proxy, "me/cut")
    assert cut.returncode == 70, cut.stderr
    assert state(ask, "me/cut") == (1, [])
    ask("POST", "/test/faults", [])
    assert proxyds_("push", tiny_proxy, "me/cut").returncode == 0
    assert state(ask, "me/cut") == (2, ["v1.0.0"])


def test_a_push_that_could_not_put_its_tag_puts_nothing_else_when_it_is_repeated(
    proxyds_: Run, tiny_proxy: Path, ask: Ask
) -> None:
    ask("POST", "/test/faults", [{"method": "POST", "path": "/tag/", "status": 500, "times": 1000}])
    untagged = proxyds_("push", tiny_proxy, "me/untagged")
    assert (untagged.returncode, "answered 500" in untagged.stderr) == (70, True), untagged.stderr
    assert state(ask, "me/untagged") == (2, [])
    ask("POST", "/test/faults", [])
    ask("DELETE", "/test/requests")
    assert proxyds_("push", tiny_proxy, "me/untagged").returncode == 0
    assert [path.split("/")[-2] for path in requests(ask, *WRITING)] == ["tag"]
    assert state(ask, "me/untagged") == (2, ["v1.0.0"])


def test_an_upload_that_is_tried_again_does_not_print_its_signed_address(
    proxyds_: Run, tiny_proxy: Path, ask: Ask
) -> None:
    ask("POST", "/test/faults", [{"method": "PUT", "path": ".", "cut_after": 1000}])
    pushed = proxyds_("push", tiny_proxy, "me/told", "--quiet")
    assert "?key=" not in pushed.stderr
    assert pushed.stderr == ""


def test_a_push_waits_as_long_as_the_hub_asks_it_to(proxyds_: Run, tiny_proxy: Path, ask: Ask) -> None:
    asked = time.monotonic()
    limit = {"status": 429, "headers": {"Retry-After": "9"}}
    ask("POST", "/test/faults", [{"method": "POST", "path": "/tag/", **limit}])
    assert proxyds_("push", tiny_proxy, "me/limited").returncode == 0
    assert time.monotonic() - asked > 9


def test_a_push_lives_through_many_troubles_at_once(proxyds_: Run, tiny_proxy: Path, second: Path, ask: Ask) -> None:
    patience = {"status": 429, "headers": {"Retry-After": "1"}}
    troubles = [
        {"method": "POST", "path": "/repos/create", "answer_lost": True},
        {"method": "POST", "path": "/preupload/", **patience},
        {"method": "PUT", "path": ".", "cut_after": 5000, "reset": True},
        {"method": "POST", "path": "/commit/", "answer_lost": True, "reset": True},
        {"method": "POST", "path": "/tag/", **patience},
    ]
    ask("POST", "/test/faults", troubles)
    pushed = proxyds_("push", tiny_proxy, "me/stormy", "--private")
    assert pushed.returncode == 0, pushed.stderr
    assert state(ask, "me/stormy") == (2, ["v1.0.0"])
    assert ask("GET", "/api/datasets/me/stormy")["private"] is True
    put(ask, "other/asked", tree(tiny_proxy))
    ask("POST", "/test/faults", [{"method": "POST", "path": "/commit/", "answer_lost": True}])
    asked = proxyds_("push", second, "other/asked", "--create-pr")
    assert asked.returncode == 0, asked.stderr
    assert pulls(ask, "other/asked") == [1]  # not one for each try


def test_somebody_elses_commit_in_the_middle_of_a_push_is_not_overrun(
    proxyds_: Run, tiny_proxy: Path, ask: Ask
) -> None:
    ask("POST", "/test/faults", [{"method": "PUT", "path": ".", "delay_seconds": 3, "times": 100}])
    done: list[subprocess.CompletedProcess[str]] = []
    pushing = threading.Thread(target=lambda: done.append(proxyds_("push", tiny_proxy, "me/raced")))
    pushing.start()
    wait_for(lambda: any("/preupload/" in path for path in requests(ask, "POST")))
    put(ask, "me/raced", {"notes.txt": b"mine"})
    pushing.join()
    assert (done[0].returncode, "found notes.txt" in done[0].stderr) == (41, True), done[0].stderr
    assert state(ask, "me/raced") == (2, [])


def test_ctrl_c_in_a_push_leaves_no_tag(
    tiny_proxy: Path, ask: Ask, hub_environment: dict[str, str], proxyds_: Run, tmp_path: Path
) -> None:
    ask("POST", "/test/faults", [{"method": "PUT", "path": ".", "delay_seconds": 2, "times": 100}])
    command = [sys.executable, "-m", "proxyds", "push", str(tiny_proxy), "me/stopped"]
    environment = {**os.environ, **hub_environment, "HF_HOME": str(tmp_path / "hf")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as pushing:
        wait_for(lambda: any("/preupload/" in path for path in requests(ask, "POST")))
        pushing.send_signal(signal.SIGINT)
        _, said = pushing.communicate(timeout=60)
    assert (pushing.returncode, "Traceback" in said) == (130, False), said
    assert state(ask, "me/stopped") == (1, [])
    ask("POST", "/test/faults", [])
    assert proxyds_("push", tiny_proxy, "me/stopped").returncode == 0
    assert state(ask, "me/stopped") == (2, ["v1.0.0"])


def test_a_download_that_breaks_off_leaves_nothing_and_goes_on_later(
    proxyds_: Run, tiny_proxy: Path, ask: Ask, tmp_path: Path
) -> None:
    put(ask, "me/down", tree(tiny_proxy), "v1.0.0")
    ask("POST", "/test/faults", [{"method": "GET", "path": "/resolve/.*tar", "status": 404, "times": 1000}])
    cut = proxyds_("pull", "me/down@v1.0.0")
    assert cut.returncode in (70, 71), cut.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}
    faults = [{"method": "GET", "path": "resolve/.*/data/", "cut_after": 100}]
    ask("POST", "/test/faults", [*faults, {"method": "HEAD", "path": "/resolve/", "status": 500}])
    assert proxyds_("pull", "me/down@v1.0.0").returncode == 0
    assert tree(tmp_path / "down") == tree(tiny_proxy)
    ask("POST", "/test/faults", [])
    assert proxyds_("pull", "me/down@v9").returncode == 71
    assert proxyds_("pull", "me/down", "-o", "other", HF_TOKEN="hf_wrong").returncode == 72
    assert not (tmp_path / "other").exists()


def test_files_that_were_exchanged_on_the_hub_are_refused_by_pull_inspect_and_resample(
    proxyds_: Run, tiny_proxy: Path, ask: Ask, tmp_path: Path
) -> None:
    files = tree(tiny_proxy)
    name = next(name for name in files if name.startswith("importance/"))
    put(ask, "me/exchanged", {**files, name: files[name][:-20] + b"\0" * 20}, "v1.0.0")  # of the same size
    for command in (["pull"], ["resample", "-o", "new", "--ratio", "0.2"], ["inspect"]):
        refused = proxyds_(command[0], "me/exchanged@v1.0.0", *command[1:])
        assert (refused.returncode, f"{name}: its bytes have changed" in refused.stderr) == (51, True), refused.stderr
        assert "me/exchanged@v1.0.0" in refused.stderr
    put(ask, "me/exchanged", {name: held for name, held in files.items() if name != "README.md"})
    lost = proxyds_("pull", "me/exchanged")
    assert (lost.returncode, "README.md: missing" in lost.stderr) == (51, True)
    put(ask, "me/exchanged", {**files, "manifest.json": b"{}"})
    assert proxyds_("pull", "me/exchanged").returncode == 50
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}


def test_a_pull_request_can_be_tried_out_and_when_merged_only_the_tag_is_put(
    proxyds_: Run, tiny_proxy: Path, second: Path, ask: Ask, tmp_path: Path
) -> None:
    put(ask, "me/merged", tree(tiny_proxy), "v1.0.0")
    assert proxyds_("push", second, "me/merged", HF_TOKEN="hf_other").returncode == 72
    before = state(ask, "me/merged")
    asked = proxyds_("push", second, "me/merged", "--create-pr", HF_TOKEN="hf_other")
    assert "/datasets/me/merged/discussions/1" in asked.stdout, asked.stderr
    assert state(ask, "me/merged") == before
    assert proxyds_("pull", "me/merged@refs/pr/1", "-o", "proposed").returncode == 0
    assert tree(tmp_path / "proposed") == tree(second)
    ask("POST", "/api/datasets/me/merged/discussions/1/merge", {})
    late = proxyds_("push", second, "me/merged", "--create-pr", HF_TOKEN="hf_other")
    assert ("nothing was changed" in late.stdout, pulls(ask, "me/merged")) == (True, [])
    ask("DELETE", "/test/requests")
    assert proxyds_("push", second, "me/merged").returncode == 0
    assert [path.split("/")[-2] for path in requests(ask, *WRITING)] == ["tag"]
    assert state(ask, "me/merged") == (before[0] + 1, ["v1.0.0", "v1.1.0"])
    absent = proxyds_("push", second, "me/nowhere", "--create-pr")
    assert (absent.returncode, "must be there" in absent.stderr) == (71, True)


def test_what_cannot_be_published_is_refused_before_the_hub_is_asked(
    proxyds_: Run, tiny_proxy: Path, checked_proxy: Path, ask: Ask, tmp_path: Path
) -> None:
    claims = Path(shutil.copytree(checked_proxy, tmp_path / "claims"))
    manifest = json.loads((claims / "manifest.json").read_text())
    manifest["evidence"]["check"]["threshold"] = 0.99
    manifest["evidence"]["passed"] = False
    (claims / "manifest.json").write_text(json.dumps(manifest))
    assert proxyds_("push", claims, "me/refused").returncode in (3, 50)  # 50: its runs say otherwise
    for arguments, code in {
        ("me/refused@v1.0.0",): 71,
        ("refused",): 71,
        ("me/refused", "--tag", "v2.0.0"): 75,
        ("me/refused", "--tag", "main"): 75,
        ("me/refused", "--tag", "x", "--create-pr"): 2,
    }.items():
        assert proxyds_("push", tiny_proxy, *arguments).returncode == code, arguments
    extra = Path(shutil.copytree(tiny_proxy, tmp_path / "extra"))
    (extra / "token.txt").write_text("x")
    told = proxyds_("push", extra, "me/refused")
    assert (told.returncode, "token.txt" in told.stderr) == (51, True)
    assert not ask("GET", "/test/requests")


def test_a_token_that_no_header_can_hold_is_refused_without_a_trace(run_proxyds: Run, tiny_proxy: Path) -> None:
    environment = {"HF_TOKEN": "hf_grün", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run_proxyds("push", tiny_proxy, "me/x", **environment)
    assert "Traceback" not in done.stderr
    assert done.returncode == 72
