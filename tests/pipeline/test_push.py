"""Publishing on the Hub: `proxyds push` against a stand-in, as several people do it over months, with a network that fails.

How it is fetched again stands in `test_pull.py`, other addresses in `tests/runtime/test_remote.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NO_WAITING, Hub, Run, read_tree


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def kinds(paths: list[str]) -> list[str]:
    """Which of the Hub's services were asked for: `commit`, `tag`, ..."""
    return [path.split("/")[-2] for path in paths]


# What a push does


def test_a_push_is_one_commit_and_its_tag_a_dry_run_sends_nothing_and_a_second_changes_nothing(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path
) -> None:
    planned = json.loads(run_on_hub("push", tiny_proxy, repo, "--dry-run", "--json", HF_TOKEN="").stdout)
    sizes = {each["name"]: each["n_bytes"] for each in planned["files"]}
    assert sizes == {name: len(held) for name, held in read_tree(tiny_proxy).items()}
    assert (planned["is_plan"], planned["is_new_place"], planned["commit"]) == (True, True, None)
    shown = run_on_hub("push", tiny_proxy, repo, "--dry-run")
    assert (shown.returncode, "manifest.json" in shown.stdout) == (0, True), shown.stderr
    assert "which would be made; nothing was done" in shown.stdout
    assert (planned["is_private"], "public" in shown.stdout) == (False, True)
    privately = run_on_hub("push", tiny_proxy, repo, "--dry-run", "--private")
    assert ("public" in privately.stdout, "private" in privately.stdout) == (False, True)
    assert hub.writes() == []

    pushed = run_on_hub("push", tiny_proxy, repo)
    assert pushed.returncode == 0, pushed.stderr
    assert f"tiny 1.0.0 published: {repo}@v1.0.0" in pushed.stdout
    written = kinds(hub.writes())
    assert (written.count("commit"), written[-1]) == (1, "tag")
    assert hub.state(repo) == (2, ["v1.0.0"])
    assert hub.files(repo, "v1.0.0") == read_tree(tiny_proxy)

    before = hub.tags(repo)
    hub.forget_requests()
    again = run_on_hub("push", tiny_proxy, repo, "--tag", "v1.0.0")
    assert (again.returncode, "nothing was changed" in again.stdout) == (0, True), again.stderr
    assert hub.writes() == []
    assert (hub.tags(repo), hub.state(repo)) == (before, (2, ["v1.0.0"]))


def test_a_second_version_takes_the_place_of_the_first_whose_tag_keeps_its_bytes(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, second_proxy: Path
) -> None:
    hub.put(repo, read_tree(tiny_proxy), "v1.0.0")
    planned = json.loads(run_on_hub("push", second_proxy, f"hf://datasets/{repo}", "--dry-run", "--json").stdout)
    gone = {each["name"] for each in planned["files"] if each["change"] == "removed"}
    assert gone == set(read_tree(tiny_proxy)) - set(read_tree(second_proxy))
    assert "data/train-00000-of-00004.parquet" in gone
    assert hub.state(repo) == (2, ["v1.0.0"])
    assert run_on_hub("push", second_proxy, repo).returncode == 0
    first = run_on_hub("push", tiny_proxy, repo)
    assert f"{repo}@v1.0.0: has the very bytes" in first.stdout, first.stderr
    assert hub.state(repo) == (3, ["v1.0.0", "v1.1.0"])
    for tag, folder in {"v1.0.0": tiny_proxy, "v1.1.0": second_proxy, "main": second_proxy}.items():
        assert hub.files(repo, tag) == read_tree(folder)


def test_a_tag_is_never_moved(run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, second_proxy: Path) -> None:
    assert run_on_hub("push", tiny_proxy, repo, "--tag", "best").returncode == 0
    before = hub.tags(repo)
    refused = run_on_hub("push", second_proxy, repo, "--tag", "best")
    assert (refused.returncode, "is never moved" in refused.stderr) == (70, True), refused.stderr
    assert (hub.tags(repo), hub.state(repo)) == (before, (2, ["best"]))


def test_other_bytes_under_one_version_are_told(run_on_hub: Run, repo: str, tiny_proxy: Path, tmp_path: Path) -> None:
    first = run_on_hub("push", tiny_proxy, repo)
    assert "other bytes are published" not in first.stdout
    edited = Path(shutil.copytree(tiny_proxy, tmp_path / "edited"))
    text = (edited / "manifest.json").read_text()
    (edited / "manifest.json").write_text(text + "\n")
    planned = run_on_hub("push", edited, repo, "--tag", "words", "--dry-run")
    assert "other bytes are published as version 1.0.0" in planned.stdout, planned.stderr
    pushed = run_on_hub("push", edited, repo, "--tag", "words")
    assert "other bytes are published as version 1.0.0" in pushed.stdout, pushed.stderr


# Who may, and what


def test_without_a_token_that_may_write_nothing_is_published(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path
) -> None:
    told = [
        ({"HF_TOKEN": ""}, "hf auth login"),
        ({"HF_TOKEN": "hf_wrong"}, "does not know the token"),
        ({"HF_TOKEN": "hf_me_read"}, "may write"),
        ({"HF_TOKEN": "hf_grün", "HF_ENDPOINT": "http://127.0.0.1:9"}, "characters"),  # no header can hold it
    ]
    for environment, said in told:
        refused = run_on_hub("push", tiny_proxy, repo, **environment)
        assert (refused.returncode, said in refused.stderr) == (70, True), (environment, refused.stderr)
    offline = run_on_hub("push", tiny_proxy, repo, HF_HUB_OFFLINE="1")
    assert (offline.returncode, "HF_HUB_OFFLINE is set" in offline.stderr) == (70, True), offline.stderr
    assert not any("/commit/" in path for path in hub.writes())


def test_a_stranger_can_only_ask_and_when_that_is_merged_only_the_tag_is_put(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, second_proxy: Path, tmp_path: Path
) -> None:
    hub.put(repo, read_tree(tiny_proxy), "v1.0.0")
    before = hub.state(repo)
    assert run_on_hub("push", second_proxy, repo, HF_TOKEN="hf_other").returncode == 70
    asked = run_on_hub("push", second_proxy, repo, "--create-pr", HF_TOKEN="hf_other")
    assert "asked to take tiny 1.1.0" in asked.stdout, asked.stderr
    assert f"/datasets/{repo}/discussions/1" in asked.stdout
    again = run_on_hub("push", second_proxy, repo, "--create-pr", HF_TOKEN="hf_other")
    assert f"{repo}: was asked to take tiny 1.1.0 before; nothing was changed" in again.stdout, again.stderr
    assert (hub.pull_requests(repo), hub.state(repo)) == ([1], before)
    tried = run_on_hub("pull", f"{repo}@refs/pr/1", "-o", "proposed")
    assert tried.returncode == 0, tried.stderr
    assert read_tree(tmp_path / "proposed") == read_tree(second_proxy)

    hub.ask("POST", f"/api/datasets/{repo}/discussions/1/merge", {})
    late = run_on_hub("push", second_proxy, repo, "--create-pr", HF_TOKEN="hf_other")
    assert ("nothing was changed" in late.stdout, hub.pull_requests(repo)) == (True, []), late.stderr
    hub.forget_requests()
    assert run_on_hub("push", second_proxy, repo).returncode == 0
    assert kinds(hub.writes()) == ["tag"]
    assert hub.state(repo) == (before[0] + 1, ["v1.0.0", "v1.1.0"])

    absent = run_on_hub("push", second_proxy, "me/nowhere", "--create-pr")
    assert (absent.returncode, "must be there" in absent.stderr) == (70, True), absent.stderr


def test_private_is_private_and_a_public_repository_is_not_taken_for_it(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path
) -> None:
    assert run_on_hub("push", tiny_proxy, repo, "--private").returncode == 0
    assert run_on_hub("pull", repo, HF_TOKEN="hf_other").returncode == 70
    hub.put(f"{repo}-public", read_tree(tiny_proxy))
    refused = run_on_hub("push", tiny_proxy, f"{repo}-public", "--private")
    assert (refused.returncode, "is public" in refused.stderr) == (70, True), refused.stderr


def test_what_is_not_a_proxys_is_left_alone(run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path) -> None:
    hub.put(repo, {"notes.txt": b"mine"})
    before = hub.state(repo)
    refused = run_on_hub("push", tiny_proxy, repo)
    assert (refused.returncode, "found notes.txt" in refused.stderr) == (40, True), refused.stderr
    assert hub.state(repo) == before


def test_a_repository_holds_versions_of_one_proxy(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, second_proxy: Path, tmp_path: Path
) -> None:
    import proxyds

    hub.put(repo, read_tree(second_proxy), "v1.1.0")
    other = proxyds.resample(tiny_proxy, tmp_path / "other", overrides=["name=other", "version=1.1.0"]).folder
    for tag in ("v1.1.0", "other"):  # one that is there, on another proxy, and one that is not
        refused = run_on_hub("push", other, repo, "--tag", tag)
        assert (refused.returncode, "it holds tiny 1.1.0" in refused.stderr) == (40, True), refused.stderr
    assert hub.state(repo) == (2, ["v1.1.0"])
    for options, said in ((["--dry-run"], "main holds version 1.1.0 now"), ([], "main held version 1.1.0 until now")):
        older = run_on_hub("push", tiny_proxy, repo, *options)
        assert f"note: {said}" in older.stdout, older.stderr


def test_somebody_elses_commit_in_the_middle_of_a_push_is_not_overrun(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path
) -> None:
    hub.fail({"method": "PUT", "path": ".", "delay_seconds": 1, "times": 100})
    done: list[subprocess.CompletedProcess[str]] = []
    pushing = threading.Thread(target=lambda: done.append(run_on_hub("push", tiny_proxy, repo, first=NO_WAITING)))
    pushing.start()
    wait_for(lambda: any("/preupload/" in path for path in hub.requests("POST")))
    hub.put(repo, {"notes.txt": b"mine"})
    pushing.join()
    assert (done[0].returncode, "found notes.txt" in done[0].stderr) == (40, True), done[0].stderr
    assert hub.state(repo) == (2, [])


def test_what_cannot_be_published_is_refused_before_the_hub_is_asked(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    for arguments, code in {
        (f"{repo}@v1.0.0",): 70,
        ("refused",): 70,
        (repo, "--tag", "v2.0.0"): 70,  # another version's number
        (repo, "--tag", "main"): 70,
        (repo, "--tag", "HEAD"): 70,
        (repo, "--tag", "a..b"): 70,
        (repo, "--tag", "x.lock"): 70,
        (repo, "--tag", "0" * 40): 70,
        (repo, "--tag", ""): 70,
        (repo, "--tag", "x", "--create-pr"): 70,  # which would have no tag
    }.items():
        assert run_on_hub("push", tiny_proxy, *arguments).returncode == code, arguments
    changed = Path(shutil.copytree(tiny_proxy, tmp_path / "changed"))
    (changed / "README.md").write_text("another")
    assert run_on_hub("push", changed, repo).returncode == 50
    extra = Path(shutil.copytree(tiny_proxy, tmp_path / "extra"))
    (extra / "token.txt").write_text("x")
    told = run_on_hub("push", extra, repo)
    assert (told.returncode, "token.txt" in told.stderr) == (50, True), told.stderr
    assert hub.requests() == []


def test_a_proxy_below_its_threshold_is_published_only_when_that_is_meant(
    run_on_hub: Run, hub: Hub, repo: str, checked_proxy: Path, tmp_path: Path
) -> None:
    import proxyds

    claims = Path(shutil.copytree(checked_proxy, tmp_path / "claims"))
    manifest = json.loads((claims / "manifest.json").read_text())
    manifest["evidence"]["check"]["threshold"] = 0.2
    manifest["evidence"]["passed"] = False
    (claims / "manifest.json").write_text(json.dumps(manifest))
    assert run_on_hub("push", claims, repo).returncode == 50  # its runs say otherwise

    below = Path(shutil.copytree(checked_proxy, tmp_path / "below"))
    runs = (checked_proxy.parent / "runs.csv").read_text()
    swapped = runs.replace(",proxy,", ",x,").replace(",random,", ",proxy,").replace(",x,", ",random,")
    (tmp_path / "runs.csv").write_text(swapped)  # ranks the wrong way round
    checked = proxyds.check(below, runs=tmp_path / "runs.csv", overrides=["check.threshold=0.5"], device="cpu")
    assert checked.manifest.evidence is not None
    assert checked.manifest.evidence.passed is False
    refused = run_on_hub("push", below, repo)
    assert (refused.returncode, "--below-threshold" in refused.stderr) == (3, True), refused.stderr
    assert hub.requests() == []
    published = run_on_hub("push", below, repo, "--below-threshold")
    assert "note: its check fell below its threshold, 0.5" in published.stdout, published.stderr
    assert hub.state(repo) == (2, ["v1.0.0"])
    assert "note: its check fell below its threshold, 0.5" in run_on_hub("pull", f"{repo}@v1.0.0", "-o", "got").stdout


# A network that fails


@pytest.mark.parametrize(
    "trouble",
    [
        {"method": "PUT", "path": ".", "cut_after": 1000},
        {"method": "POST", "path": "/preupload/", "status": 500, "times": 2},
        {"method": "POST", "path": "/commit/", "status": 500},
        {"method": "POST", "path": "/commit/", "answer_lost": True},
        {"method": "POST", "path": "/tag/", "status": 429},
        {"method": "POST", "path": "/tag/", "answer_lost": True},
    ],
    ids=lambda each: f"{each['method']} {each['path']} {each.get('status', '')}".strip(),
)
def test_a_push_lives_through_what_passes_without_a_word(
    trouble: dict[str, Any], run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path
) -> None:
    hub.fail(trouble)
    pushed = run_on_hub("push", tiny_proxy, repo, "--quiet", first=NO_WAITING)
    assert (pushed.returncode, pushed.stderr) == (0, "")  # no signed address of an upload either
    assert hub.state(repo) == (2, ["v1.0.0"])


def test_a_push_lives_through_many_troubles_at_once(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, second_proxy: Path
) -> None:
    patience = {"status": 429, "headers": {"Retry-After": "1"}}
    hub.fail(
        {"method": "POST", "path": "/repos/create", "answer_lost": True},
        {"method": "POST", "path": "/preupload/", **patience},
        {"method": "PUT", "path": ".", "cut_after": 5000, "reset": True},
        {"method": "POST", "path": "/commit/", "answer_lost": True, "reset": True},
        {"method": "POST", "path": "/tag/", **patience},
    )
    pushed = run_on_hub("push", tiny_proxy, repo, "--private", first=NO_WAITING)
    assert pushed.returncode == 0, pushed.stderr
    assert hub.state(repo) == (2, ["v1.0.0"])
    assert hub.ask("GET", f"/api/datasets/{repo}")["private"] is True
    hub.put(f"other/{repo[3:]}", read_tree(tiny_proxy))
    hub.fail({"method": "POST", "path": "/commit/", "answer_lost": True})
    asked = run_on_hub("push", second_proxy, f"other/{repo[3:]}", "--create-pr", first=NO_WAITING)
    assert asked.returncode == 0, asked.stderr
    assert hub.pull_requests(f"other/{repo[3:]}") == [1]  # not one for each try


def test_a_repository_that_others_change_all_the_time_is_told_as_such(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path
) -> None:
    hub.fail({"method": "POST", "path": "/commit/", "status": 412, "times": 100})
    refused = run_on_hub("push", tiny_proxy, repo, first=NO_WAITING)
    assert (refused.returncode, "somebody else has changed it" in refused.stderr) == (70, True), refused.stderr
    assert hub.tags(repo) == {}


OTHER_BYTES = """
from proxyds.runtime.storage import hub
def listed(repo, commit, really=hub.list_contents):
    held = really(repo, commit)
    return {**held, "README.md": "0" * 64} if "manifest.json" in held else held
hub.list_contents = listed
"""
"""Lets the Hub say that it holds another card than the one that was sent."""


def test_what_arrived_is_compared_before_it_is_tagged(run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path) -> None:
    refused = run_on_hub("push", tiny_proxy, repo, first=NO_WAITING + OTHER_BYTES)
    assert (refused.returncode, "it holds others; it was not tagged" in refused.stderr) == (70, True), refused.stderr
    assert hub.tags(repo) == {}


def test_a_push_waits_as_long_as_the_hub_asks_it_to(run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path) -> None:
    hub.fail({"method": "POST", "path": "/tag/", "status": 429, "headers": {"Retry-After": "9"}})
    tell = "import sys, time; time.sleep = lambda seconds: print(f'waited {seconds:g} s', file=sys.stderr)"
    pushed = run_on_hub("push", tiny_proxy, repo, "--quiet", first=tell)
    assert (pushed.returncode, pushed.stderr) == (0, "waited 9 s\n")


@pytest.mark.parametrize(
    ("fault", "said", "n_commits", "repeated"),
    [
        ({"method": "PUT", "path": ".", "cut_after": 1000, "reset": True}, "cannot be reached", 1, None),
        ({"method": "POST", "path": "/commit/", "status": 500}, "answered 500", 1, None),
        ({"method": "POST", "path": "/tag/", "status": 500}, "answered 500", 2, ["tag"]),
    ],
    ids=["uploads", "commit", "tag"],
)
def test_a_push_that_breaks_off_leaves_no_tag_and_goes_on_when_it_is_repeated(
    fault: dict[str, Any],
    said: str,
    n_commits: int,
    repeated: list[str] | None,
    run_on_hub: Run,
    hub: Hub,
    repo: str,
    tiny_proxy: Path,
) -> None:
    hub.fail({**fault, "times": 1000})
    broken = run_on_hub("push", tiny_proxy, repo, first=NO_WAITING)
    assert (broken.returncode, said in broken.stderr) == (70, True), broken.stderr
    assert broken.stderr.count("\n") <= 2
    assert hub.state(repo) == (n_commits, [])
    hub.fail()
    hub.forget_requests()
    assert run_on_hub("push", tiny_proxy, repo).returncode == 0
    if repeated is not None:
        assert kinds(hub.writes()) == repeated
    assert hub.state(repo) == (2, ["v1.0.0"])


def test_ctrl_c_in_a_push_leaves_no_tag(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    hub.fail({"method": "PUT", "path": ".", "delay_seconds": 1, "times": 100})
    command = [sys.executable, "-m", "proxyds", "push", str(tiny_proxy), repo]
    environment = {**os.environ, **hub_environment, "HF_HOME": str(tmp_path / "hf")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as pushing:
        wait_for(lambda: any("/preupload/" in path for path in hub.requests("POST")))
        pushing.send_signal(signal.SIGINT)
        _, said = pushing.communicate(timeout=60)
    assert (pushing.returncode, "Traceback" in said) == (130, False), said
    assert hub.state(repo) == (1, [])
    hub.fail()
    assert run_on_hub("push", tiny_proxy, repo).returncode == 0
    assert hub.state(repo) == (2, ["v1.0.0"])
