"""The tests' own Hub, under the clients that people use: `huggingface_hub`, `datasets` and the `hf` command."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxyds.runtime.storage.atomic import is_running

SERVER = Path(__file__).parent.parent / "hub_server.py"
# what the clients' scripts start with
PRELUDE = """
import io, json, sys, tarfile
from pathlib import Path
from huggingface_hub import *
from huggingface_hub.errors import *

api, tmp = HfApi(), Path(sys.argv[1])
kind = {"repo_type": "dataset"}

def put(repo, **files):
    return api.create_commit(repo, [CommitOperationAdd(name.replace("__", "."), data) for name, data in files.items()],
                             commit_message="put", **kind).oid

def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
        return [type(error).__name__, cause.response.status_code if isinstance(cause, HfHubHTTPError) else None]
"""
Client = Callable[..., Any]
Test = Callable[..., Any]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    found = re.fullmatch(r"export HF_ENDPOINT=(http://127\.0\.0\.1:\d+)\n", lines[0])
    assert found
    assert lines[1:] == ["export HF_TOKEN=hf_me\n", "export HF_HUB_DISABLE_XET=1\n", "unset HF_HUB_OFFLINE\n"]
    yield found[1]
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture
def ask(address: str) -> Iterator[Test]:
    """Calls one of the server's own test addresses."""

    def call(method: str, path: str, value: Any = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(urllib.request.Request(address + path, data, method=method)) as answer:
            return json.load(answer)

    call("DELETE", "/test/requests")
    yield call
    call("POST", "/test/faults", [])


@pytest.fixture
def environment(address: str, tmp_path: Path) -> dict[str, str]:
    own = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_me", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    return {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | own | quiet


@pytest.fixture
def client(environment: dict[str, str], tmp_path: Path) -> Client:
    """Runs a script in a process of its own, and gives back what it printed as JSON in its last line."""

    def run(script: str, **variables: str) -> Any:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env={**environment, **variables}, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_pushed_version_stays_loadable_when_main_moves_on(
    client: Client, ask: Test, environment: dict[str, str], tmp_path: Path
) -> None:
    commits = client("""
        import pyarrow as pa, pyarrow.parquet as pq

        def write(folder, labels):
            (folder / "data").mkdir(parents=True), (folder / "webdataset").mkdir()
            pq.write_table(pa.table({"label": labels}), folder / "data" / "train-00000.parquet")
            (folder / "README.md").write_text(
                "---\\nconfigs:\\n- config_name: default\\n  data_files: data/*.parquet\\n---\\n# X\\n")
            with tarfile.open(folder / "webdataset" / "000000.tar", "w") as tar:
                for i, label in enumerate(labels):
                    member = tarfile.TarInfo(f"{i:04}.cls"); member.size = 1
                    tar.addfile(member, io.BytesIO(str(label).encode()))

        api.create_repo("me/x", **kind, exist_ok=True)
        api.create_repo("me/x", **kind, exist_ok=True)
        commits = []
        for version, labels in ("v1.0.0", [1, 2]), ("v1.1.0", [3, 4, 5]):
            write(tmp / version, labels)
            commits.append(api.upload_folder(repo_id="me/x", folder_path=tmp / version, **kind).oid)
            again = api.upload_folder(repo_id="me/x", folder_path=tmp / version, **kind).oid
            assert again == commits[-1], "an upload of what is there makes no commit"
            api.create_tag("me/x", tag=version, revision=commits[-1], **kind)
        assert refused(api.create_tag, "me/x", tag="v1.0.0", **kind) == ["HfHubHTTPError", 409]
        api.upload_file(path_in_repo="data/train-00000.parquet", repo_id="me/x", path_or_fileobj=b"broken", **kind)

        refs = api.list_repo_refs("me/x", include_pull_requests=True, **kind)
        assert {each.name: each.target_commit for each in refs.tags} == dict(zip(["v1.0.0", "v1.1.0"], commits))
        assert [each.name for each in refs.branches] == ["main"] and refs.pull_requests == []
        assert [each.title for each in api.list_repo_commits("me/x", **kind)][-1] == "initial commit"
        assert len(api.list_repo_commits("me/x", **kind)) == 4
        print(json.dumps(commits))
    """)

    loaded = client("""
        import datasets
        found = []
        for version in "v1.0.0", "v1.1.0":
            for streaming in False, True:
                data = datasets.load_dataset("me/x", revision=version, split="train", streaming=streaming)
                found.append([row["label"] for row in data])
        tars = datasets.load_dataset("me/x", revision="v1.0.0", data_files="webdataset/*.tar", split="train",
                                     streaming=True)
        found.append([row["cls"] for row in tars])
        print(json.dumps(found))
    """)
    assert loaded == [[1, 2], [1, 2], [3, 4, 5], [3, 4, 5], [1, 2]]

    folders = client(f"""
        found = []
        for revision in "v1.0.0", {commits[1]!r}:
            folder = Path(snapshot_download("me/x", revision=revision, **kind))
            found.append([folder.name, (folder / "data/train-00000.parquet").read_bytes()
                          == (tmp / ["v1.0.0", "v1.1.0"][len(found)] / "data/train-00000.parquet").read_bytes()])
        fs = HfFileSystem()
        assert fs.glob("datasets/me/x@v1.0.0/**/*.tar") == ["datasets/me/x@v1.0.0/webdataset/000000.tar"]
        with fs.open("datasets/me/x@v1.0.0/webdataset/000000.tar") as file:
            file.seek(512)
            assert file.read(2) == b"1" + bytes(1)
        infos = api.get_paths_info("me/x", ["data", "README.md", "no"], expand=True, **kind)
        assert [each.path for each in infos] == ["data", "README.md"]
        assert infos[1].last_commit.oid == {commits[0]!r}
        assert refused(hf_hub_download, "me/x", "no.txt", **kind) == ["RemoteEntryNotFoundError", 404]
        assert refused(snapshot_download, "me/x", revision="v9", **kind) == ["RevisionNotFoundError", 404]
        assert refused(snapshot_download, "me/none", **kind) == ["RepositoryNotFoundError", 404]
        print(json.dumps(found))
    """)
    assert folders == [[commits[0], True], [commits[1], True]]

    hf = Path(sys.executable).with_name("hf")
    command = [
        hf,
        "download",
        "me/x",
        "--repo-type",
        "dataset",
        "--revision",
        "v1.0.0",
        "--local-dir",
        tmp_path / "out",
    ]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert (tmp_path / "out" / "README.md").read_bytes() == (tmp_path / "v1.0.0" / "README.md").read_bytes()

    requests = ask("GET", "/test/requests")
    assert {each["user"] for each in requests} == {"me", None}
    assert "hf_me" not in json.dumps(requests)


def test_a_commit_happens_whole_or_not_at_all(client: Client) -> None:
    client("""
        api.create_repo("me/whole", **kind)
        first = put("me/whole", a__txt=b"1")
        head = put("me/whole", a__txt=b"2")
        stale = refused(api.upload_file, repo_id="me/whole", path_or_fileobj=b"3", path_in_repo="a.txt",
                        parent_commit=first, **kind)
        assert stale == ["HfHubHTTPError", 412], stale

        missing = [CommitOperationAdd("b.txt", b"b"), CommitOperationDelete("none.txt")]
        failed = refused(api.create_commit, "me/whole", missing, commit_message="no", **kind)
        assert failed == ["RemoteEntryNotFoundError", 404], failed
        lines = [{"key": "header", "value": {"summary": "no"}},
                 {"key": "lfsFile", "value": {"path": "c.tar", "algo": "sha256", "oid": "0" * 64, "size": 1}}]
        answer = get_session().post(f"{api.endpoint}/api/datasets/me/whole/commit/main", headers=api._build_hf_headers(),
                                    content="\\n".join(map(json.dumps, lines)))
        assert answer.status_code == 400, answer.text
        assert api.dataset_info("me/whole").sha == head
        assert api.list_repo_files("me/whole", **kind) == [".gitattributes", "a.txt"]
        api.delete_tag("me/whole", tag="v1", **kind) if api.create_tag("me/whole", tag="v1", **kind) else None
        api.delete_repo("me/whole", **kind)
        assert not api.repo_exists("me/whole", **kind)
        print(0)
    """)


def test_a_pull_request_is_listed_and_merged(client: Client) -> None:
    client(
        """
        me = HfApi(token="hf_me")
        me.create_repo("me/pull", **kind)
        change = [CommitOperationAdd("new.tar", b"new"), CommitOperationDelete(".gitattributes")]
        assert refused(api.create_commit, "me/pull", change, commit_message="Mine", **kind) == ["HfHubHTTPError", 403]
        made = api.create_commit("me/pull", change, commit_message="Better", create_pr=True, **kind)
        assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
        me.upload_file(repo_id="me/pull", path_or_fileobj=b"1", path_in_repo="a.txt", **kind)

        listed = list(api.get_repo_discussions("me/pull", discussion_type="pull_request", discussion_status="open", **kind))
        assert [(each.num, each.title, each.author) for each in listed] == [(1, "Better", "other")]
        assert api.list_repo_files("me/pull", revision="refs/pr/1", **kind) == ["new.tar"]
        path = hf_hub_download("me/pull", "new.tar", revision="refs/pr/1", **kind)
        assert Path(path).read_bytes() == b"new"
        assert refused(api.merge_pull_request, "me/pull", 1, **kind) == ["HfHubHTTPError", 403]
        me.merge_pull_request("me/pull", 1, **kind)
        assert api.list_repo_files("me/pull", **kind) == ["a.txt", "new.tar"]
        assert not list(api.get_repo_discussions("me/pull", discussion_status="open", **kind))
        assert api.list_repo_refs("me/pull", include_pull_requests=True, **kind).pull_requests[0].ref == "refs/pr/1"
        print(0)
        """,
        HF_TOKEN="hf_other",
    )


def test_faults_hit_the_requests_they_name(client: Client, ask: Test) -> None:
    big = base64.b64encode(bytes(3_000_000)).decode()
    ask("POST", "/test/files", {"repo": "me/faulty", "files": {"big.tar": big, "../x": ""}, "tag": "v1"})
    ask(
        "POST",
        "/test/faults",
        [
            {"method": "PUT", "path": "^/lfs/", "times": 1, "status": 500},
            {"method": "PUT", "path": "^/lfs/", "times": 6, "skip": 1, "cut_after": 100_000},
            {"method": "GET", "path": r"resolve/v1/big\.tar$", "cut_after": 1000},
        ],
    )
    client("""
        import time
        time.sleep = lambda seconds: None  # the client's pauses between its attempts
        put("me/faulty", first__tar=b"first")
        new = bytes(range(256)) * 10_000
        assert refused(put, "me/faulty", second__tar=new) == ["RuntimeError", None]
        assert "second.tar" not in api.list_repo_files("me/faulty", **kind)
        put("me/faulty", second__tar=new)
        assert Path(hf_hub_download("me/faulty", "second.tar", **kind)).read_bytes() == new
        path = hf_hub_download("me/faulty", "big.tar", revision="v1", **kind)
        assert Path(path).read_bytes() == bytes(3_000_000)
        assert [each.path for each in api.list_repo_tree("me/faulty", recursive=True, revision="v1", **kind)] == [
            "..", "../x", "big.tar"]
        print(0)
    """)
    requests = ask("GET", "/test/requests")
    uploads = [each["status"] for each in requests if each["method"] == "PUT"]
    assert uploads == [500, 200, *[None] * 6, 200]
    parts = [(each["status"], each["n_bytes"]) for each in requests if each["path"].endswith("resolve/v1/big.tar")]
    assert parts == [(200, 0), (200, 1000), (200, 3_000_000)]  # the client keeps parts of 10 MB or more only


def test_rights_follow_the_token(client: Client, ask: Test) -> None:
    ask("POST", "/test/files", {"repo": "me/secret", "files": {"a.txt": "MQ=="}, "private": True})
    ask("POST", "/test/files", {"repo": "me/open", "files": {"a.txt": "MQ=="}})
    client("""
        wrong, other, reader = (HfApi(token=token) for token in ("hf_wrong", "hf_other", "hf_me_read"))
        nobody = HfApi(token=False)
        assert refused(wrong.whoami) == ["HfHubHTTPError", 401]
        assert refused(wrong.dataset_info, "me/open") == ["HfHubHTTPError", 401]
        assert refused(wrong.create_repo, "me/y", **kind) == ["HfHubHTTPError", 401]
        assert refused(nobody.create_repo, "me/y", **kind) == ["HfHubHTTPError", 401]
        assert [each.whoami()["name"] for each in (api, other, reader)] == ["me", "other", "me"]
        assert refused(other.create_repo, "me/y", **kind) == ["HfHubHTTPError", 403]
        assert refused(reader.create_repo, "me/y", **kind) == ["HfHubHTTPError", 403]
        tag = {"tag": "v1", **kind}
        assert refused(nobody.create_tag, "me/open", **tag) == ["RepositoryNotFoundError", 401]
        assert refused(other.create_tag, "me/open", **tag) == ["HfHubHTTPError", 403]
        assert refused(reader.create_tag, "me/open", **tag) == ["HfHubHTTPError", 403]
        assert refused(nobody.dataset_info, "me/secret") == ["RepositoryNotFoundError", 401]
        assert refused(other.dataset_info, "me/secret") == ["RepositoryNotFoundError", 404]
        assert reader.dataset_info("me/secret").private
        assert nobody.dataset_info("me/open", files_metadata=True).siblings[0].size == 1
        print(0)
    """)


def test_a_malformed_request_is_the_clients_fault(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/api/repos/create", b"{")
    with caught.value as answer:
        assert answer.code == 400


STARTER = """
import subprocess, sys
server = subprocess.Popen([sys.executable, "-m", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(server.pid, "http" in server.stdout.readline(), flush=True)
server.wait()
"""


@pytest.mark.parametrize("server", ["tests.hub_server", "tests.s3_server"])
def test_a_server_ends_with_the_process_that_started_it_even_a_killed_one(server: str) -> None:
    command = [sys.executable, "-c", STARTER, server]
    with subprocess.Popen(command, cwd=SERVER.parent.parent, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, is_up = starter.stdout.readline().split()
        starter.kill()
    assert is_up == "True"
    deadline = time.monotonic() + 30
    while is_running(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
