"""Fetching from the Hub: `pull`, `inspect` and `resample` against a stand-in, and the clients that people load data sets with.

How it got there stands in `test_push.py`, other addresses in `tests/runtime/test_remote.py`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import run_forked
from tests.conftest import LITTLE_SPACE, NO_WAITING, Hub, Run, read_tree


@pytest.fixture(scope="module")
def published(
    hub_environment: dict[str, str], tiny_proxy: Path, second_proxy: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A repository with the tiny proxy as v1.0.0 and the second as v1.1.0, as `push` makes it."""
    place = tmp_path_factory.mktemp("hf")
    environment = {**os.environ, **hub_environment, "HF_HOME": str(place)}
    for folder in (tiny_proxy, second_proxy):
        pushed = run_forked(["push", str(folder), "me/published"], place, environment)
        assert pushed.returncode == 0, pushed.stderr
    return "me/published"


# What is fetched


def test_what_is_pulled_is_what_was_pushed_and_a_second_pull_changes_nothing(
    run_on_hub: Run, published: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    pulled = run_on_hub("pull", f"{published}@v1.0.0", "-o", "got")
    assert pulled.returncode == 0, pulled.stderr
    assert read_tree(tmp_path / "got") == read_tree(tiny_proxy)
    assert "is there already, unchanged" in run_on_hub("pull", f"{published}@v1.0.0", "-o", "got").stdout
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    assert run_on_hub("pull", published, "-o", "mine").returncode == 40
    assert read_tree(tmp_path / "mine") == {"x": b""}


LOAD = """
import json, sys
from pathlib import Path
from datasets import load_dataset
from huggingface_hub import snapshot_download
kept, repo = {}, sys.argv[1]
for tag in ("v1.0.0", "v1.1.0"):
    here = Path(snapshot_download(repo, repo_type="dataset", revision=tag))
    names = sorted(p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file())
    rows = load_dataset(repo, revision=tag, split="train")
    streamed = load_dataset(repo, revision=tag, split="train", streaming=True)
    tars = load_dataset(repo, revision=tag, data_files="webdataset/train-*.tar", split="train")
    assert [r["sample_id"] for r in rows] == [r["sample_id"] for r in streamed] == [r["__key__"] for r in tars]
    kept[tag] = [rows.num_rows, load_dataset(repo, "importance", revision=tag, split="train").num_rows, names]
print(json.dumps(kept))
"""


def test_each_version_loads_by_its_tag_with_datasets_huggingface_hub_and_hf(
    published: str, tiny_proxy: Path, second_proxy: Path, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    def run(*command: str | Path) -> str:
        environment = {**os.environ, **hub_environment, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    loaded = json.loads(run(sys.executable, "-c", LOAD, published).splitlines()[-1])
    for tag, folder, n_rows in (("v1.0.0", tiny_proxy, 130), ("v1.1.0", second_proxy, 259)):
        assert loaded[tag] == [n_rows, 1295, sorted([".gitattributes", *read_tree(folder)])]
    hf, out = Path(sys.executable).with_name("hf"), tmp_path / "by-hf"
    run(hf, "download", published, "--repo-type", "dataset", "--revision", "v1.0.0", "--local-dir", out)
    assert (out / "manifest.json").read_bytes() == (tiny_proxy / "manifest.json").read_bytes()


def test_inspect_and_resample_fetch_no_images_and_resample_draws_what_a_build_would(
    run_on_hub: Run,
    run_here: Run,
    hub: Hub,
    published: str,
    tmp_path: Path,
    write_recipe_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "130 of 1,295 training samples" in run_on_hub("inspect", f"{published}@v1.0.0").stdout
    drawn = run_on_hub("resample", f"{published}@v1.0.0", "--ratio", "0.05", "-o", "small")
    assert "tiny 1.0.0 drawn again: small" in drawn.stdout, drawn.stderr
    paths = [path for path in hub.requests() if "/resolve/" in path]
    assert paths
    assert not [path for path in paths if "/data/" in path or "webdataset" in path or "assets" in path]
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    built = run_here("build", write_recipe_file(), "--set", "selection.ratio=0.05", "-o", "built")
    assert built.returncode == 0, built.stderr
    assert not any(b"hf_me" in held for held in read_tree(tmp_path / "built").values())

    def what_is_drawn(folder: str) -> dict[str, bytes]:
        drawn = ("data/", "importance/", "evaluation/", "webdataset/", "indices.csv", "validation.csv", "recipe.yaml")
        return {name: held for name, held in read_tree(tmp_path / folder).items() if name.startswith(drawn)}

    assert what_is_drawn("small") == what_is_drawn("built")
    assert "Drawn again from the importance table of **tiny 1.0.0**" in (tmp_path / "small" / "README.md").read_text()
    assert run_here("verify", "small").returncode == 0


def test_offline_a_pull_gives_what_was_fetched_whole_under_that_name_or_nothing(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, second_proxy: Path, tmp_path: Path
) -> None:
    head = tmp_path / repo.partition("/")[2]
    hub.put(repo, read_tree(tiny_proxy), "v1.0.0")
    assert run_on_hub("inspect", f"{repo}@v1.0.0").returncode == 0  # its images are not in the cache
    half = run_on_hub("pull", f"{repo}@v1.0.0", HF_HUB_OFFLINE="1")
    assert (half.returncode, "HF_HUB_OFFLINE is set" in half.stderr) == (70, True), half.stderr
    assert not head.exists()
    assert run_on_hub("pull", f"{repo}@v1.0.0", "-o", "first").returncode == 0
    told = run_on_hub("pull", repo)
    assert (
        "no version was asked for, so this is the head of main, which can change; its versions: v1.0.0\n" in told.stdout
    )

    hub.put(repo, read_tree(second_proxy), "v1.1.0")
    was = run_on_hub("pull", repo, "-o", "was", HF_HUB_OFFLINE="1")
    assert "this is what was fetched before under that name" in was.stdout, was.stderr
    assert read_tree(tmp_path / "was") == read_tree(head) == read_tree(tiny_proxy)
    changed = run_on_hub("pull", repo)  # the folder holds what main was
    assert (changed.returncode, "found another proxy, tiny 1.0.0" in changed.stderr) == (40, True), changed.stderr
    assert read_tree(head) == read_tree(tiny_proxy)
    assert "its versions: v1.0.0, v1.1.0" in run_on_hub("pull", repo, "-o", "new").stdout
    assert read_tree(tmp_path / "new") == read_tree(second_proxy)

    again = run_on_hub("pull", f"{repo}@v1.0.0", "-o", "again", HF_HUB_OFFLINE="1")
    assert "the Hub was not asked" in again.stdout, again.stderr
    assert read_tree(tmp_path / "again") == read_tree(tiny_proxy)
    assert run_on_hub("pull", f"{repo}@v1.1.0", "-o", "other", HF_HUB_OFFLINE="1").returncode == 70
    assert not (tmp_path / "other").exists()


# What is not there, or not to be believed


def test_what_is_not_there_or_no_proxy_is_told_apart(
    run_on_hub: Run, hub: Hub, repo: str, published: str, tmp_path: Path
) -> None:
    hub.put(repo, {"notes.txt": b"mine"})
    assert run_on_hub("pull", repo).returncode == 50
    assert run_on_hub("pull", "me/nowhere").returncode == 70
    assert run_on_hub("pull", f"{published}@v9").returncode == 70
    assert run_on_hub("pull", published, HF_TOKEN="hf_wrong").returncode == 70
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}


def test_a_pull_lives_through_what_passes(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    hub.put(repo, read_tree(tiny_proxy), "v1.0.0")
    hub.forget_requests()
    cut = {"method": "GET", "path": "resolve/.*/data/", "cut_after": 100}
    hub.fail(cut, {"method": "HEAD", "path": "/resolve/", "status": 503, "times": 12})  # more than the client bears
    pulled = run_on_hub("pull", f"{repo}@v1.0.0", "-o", "got", first=NO_WAITING)
    assert pulled.returncode == 0, pulled.stderr
    assert read_tree(tmp_path / "got") == read_tree(tiny_proxy)
    n_files = len(list((tiny_proxy / "data").iterdir()))
    assert sum("/data/" in path for path in hub.requests("GET")) == n_files + 1  # one was cut, and asked for again


def test_a_download_that_breaks_off_leaves_nothing_and_goes_on_later(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    hub.put(repo, read_tree(tiny_proxy), "v1.0.0")
    hub.fail({"method": "GET", "path": "/resolve/.*tar", "status": 404, "times": 1000})
    broken = run_on_hub("pull", f"{repo}@v1.0.0", "-o", "got", first=NO_WAITING)
    assert broken.returncode == 70, broken.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}
    hub.fail()
    assert run_on_hub("pull", f"{repo}@v1.0.0", "-o", "got").returncode == 0
    assert read_tree(tmp_path / "got") == read_tree(tiny_proxy)


def test_bytes_that_changed_on_the_way_are_refused_and_not_kept(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    files = read_tree(tiny_proxy)
    hub.put(repo, files, "v1.0.0")
    other = base64.b64encode(b"#" * len(files["recipe.yaml"])).decode()
    hub.fail({"method": "GET", "path": "resolve/.*/recipe.yaml", "body": other, "times": 1000})
    refused = run_on_hub("pull", f"{repo}@v1.0.0", "-o", "got")
    assert (refused.returncode, "recipe.yaml: its bytes have changed" in refused.stderr) == (50, True), refused.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}
    hub.fail()
    assert run_on_hub("pull", f"{repo}@v1.0.0", "-o", "got").returncode == 0
    assert read_tree(tmp_path / "got") == files


def test_files_that_were_exchanged_on_the_hub_are_refused_by_pull_inspect_and_resample(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    files = read_tree(tiny_proxy)
    name = next(name for name in files if name.startswith("importance/"))
    hub.put(repo, {**files, name: files[name][:-20] + b"\0" * 20}, "v1.0.0")  # of the same size
    for command in (["pull"], ["resample", "-o", "new", "--ratio", "0.2"], ["inspect"]):
        refused = run_on_hub(command[0], f"{repo}@v1.0.0", *command[1:])
        assert (refused.returncode, f"{name}: its bytes have changed" in refused.stderr) == (50, True), refused.stderr
        assert f"{repo}@v1.0.0" in refused.stderr
    hub.put(repo, {name: held for name, held in files.items() if name != "README.md"})
    lost = run_on_hub("pull", repo)
    assert (lost.returncode, "README.md: missing" in lost.stderr) == (50, True), lost.stderr
    hub.put(repo, {**files, "manifest.json": b"{}"})
    malformed = run_on_hub("pull", repo)
    assert malformed.returncode == 50
    assert f"{repo}@" in malformed.stderr  # not a passing folder's name
    assert tempfile.gettempdir() not in malformed.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}


def test_files_that_a_strangers_manifest_does_not_list_are_refused_before_anything_is_fetched(
    run_on_hub: Run, hub: Hub, repo: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    evil = {"data/train-00001-of-00002.parquet": b"evil", "x/../../y": b"evil"}
    hub.put(repo, {**read_tree(tiny_proxy), **evil}, "v1.0.0")
    hub.forget_requests()
    refused = run_on_hub("pull", f"{repo}@v1.0.0", "-o", "got")
    assert refused.returncode == 50, refused.stderr
    assert all(f"{name}: not in the manifest" in refused.stderr for name in evil)
    fetched = [path for path in hub.requests("GET") if "/resolve/" in path]
    assert {path.rpartition("/")[2] for path in fetched} <= {"manifest.json"}
    assert not (tmp_path / "got").exists()


def test_a_manifest_that_was_damaged_in_the_clients_cache_is_fetched_once_more(
    run_on_hub: Run, published: str, tiny_proxy: Path, tmp_path: Path
) -> None:
    page = f"https://huggingface.co/datasets/{published}/tree/v1.0.0"  # as a browser shows it
    assert run_on_hub("inspect", page).returncode == 0
    for held in (tmp_path / "hf").rglob("manifest.json"):
        held.resolve().write_bytes(b"{")
    assert run_on_hub("pull", page).returncode == 0
    assert read_tree(tmp_path / "published") == read_tree(tiny_proxy)


MOVED = """
from dataclasses import replace
from proxyds.runtime.storage import hub
find = hub.find_revision
hub.find_revision = lambda repo, asked: replace(find(repo, asked), commit="0" * 40)
"""
"""Lets `main` be another commit by the time that the first file is fetched."""


def test_two_commits_are_not_mixed(run_on_hub: Run, published: str, tmp_path: Path) -> None:
    refused = run_on_hub("pull", published, "-o", "got", first=NO_WAITING + MOVED)
    assert (refused.returncode, "it moved to another commit" in refused.stderr) == (70, True), refused.stderr
    assert not (tmp_path / "got").exists()


def test_what_does_not_fit_is_not_fetched(run_on_hub: Run, hub: Hub, published: str, tmp_path: Path) -> None:
    no_room = "import shutil, collections; shutil.disk_usage = lambda _: collections.namedtuple('Usage', 'free')(1000)"
    hub.forget_requests()
    full = run_on_hub("pull", f"{published}@v1.0.0", "-o", "got", first=no_room)
    assert (full.returncode, "bytes free for the proxy, has 1,000" in full.stderr) == (40, True), full.stderr
    fetched = [path for path in hub.requests("GET") if "/resolve/" in path]
    assert {path.rpartition("/")[2] for path in fetched} <= {"manifest.json"}
    assert not (tmp_path / "got").exists()


def test_no_message_holds_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxyds.errors import RemoteError
    from proxyds.runtime.storage.hub_errors import translate_hub_errors

    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    with (
        pytest.raises(RemoteError, match=r"me/x: the Hub cannot be reached: .*\*\*\*") as caught,
        translate_hub_errors("me/x"),
    ):
        raise OSError("no answer to Authorization: Bearer hf_very_secret")
    assert "hf_very_secret" not in str(caught.value)


def test_a_full_disk_on_the_way_down_leaves_nothing(run_on_hub: Run, published: str, tmp_path: Path) -> None:
    full = run_on_hub("pull", f"{published}@v1.0.0", "-o", "got", first=LITTLE_SPACE)
    assert (full.returncode, "no space left" in full.stderr) == (40, True), full.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"hf"}
