"""One store for many processes and machines: a folder, or an address; who does what; what happens when things break or die."""

from __future__ import annotations

import errno
import http.client
import http.server
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from proxyds.errors import DamagedEntryError, MissingExtraError, NoPermissionError, NoSpaceError, StoreError
from proxyds.progress import ignore_progress
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.storage.remote import RemoteFolder, open_url
from proxyds.runtime.storage.store import SHELF, Store, StoredFile, retry_if_damaged
from proxyds.runtime.task import Task, run_stored, run_task
from tests import tasks
from tests.conftest import TINY_RECIPE, Bucket, Run, check_manners, read_tree

_NUMBERS = count()
TESTS = str(Path(__file__).parent.parent.parent)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROXYDS_STORE_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setattr("proxyds.runtime.storage.remote_store.PAUSES", (0.05,) * 5)
    monkeypatch.setattr("proxyds.runtime.storage.locks.POLL_SECONDS", 0.05)


@pytest.fixture
def s3_place(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import s3fs

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield f"s3://bucket/store-{next(_NUMBERS)}"
    s3fs.S3FileSystem.clear_instance_cache()  # they keep the address of this server


@pytest.fixture
def memory_place() -> Iterator[str]:
    from fsspec.implementations.memory import MemoryFileSystem

    yield f"memory://store-{next(_NUMBERS)}"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(params=["memory", "s3"])
def address(request: pytest.FixtureRequest) -> str:
    """Every kind of address, as far as it can be had here."""
    return str(request.getfixturevalue(f"{request.param}_place"))


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every kind of place, to hold each to the contract."""
    return str(tmp_path / "store" if request.param == "folder" else request.getfixturevalue(f"{request.param}_place"))


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Store]:
    """Opens a store as another machine does, with a mirror of its own."""

    def open_store(place: str) -> Store:
        monkeypatch.setenv("PROXYDS_STORE_MIRROR", str(tmp_path / f"mirror-{next(_NUMBERS)}"))
        return Store(place)

    return open_store


def write(store: Store, key: str = "k1", **files: str) -> None:
    with store.writing("s", key, f"name of {key}") as folder:
        for name, text in files.items():
            (folder / "sub").mkdir(exist_ok=True)
            (folder / "sub" / name).write_text(text)


def names_at(place: str) -> set[str]:
    """Every file of a store, wherever it is."""
    if "://" not in place:
        return set(read_tree(Path(place)))
    return set(open_url(place).list_names())


def locks_of(folder: Path) -> list[str]:
    """The lock files of a store."""
    return [path.name for path in (folder / ".locks").glob("*")]


def a_task(seconds: float, ran: Path) -> Task:
    return Task("t", "a task", {"a": 1}, tasks.write_slowly, {"seconds": seconds, "ran": ran})


# The contract


def test_an_entry_is_found_listed_read_and_removed_by_another_machine(
    place: str, other_machine: Callable[[str], Store]
) -> None:
    store = Store(place)
    assert (store.find("s", "k1"), store.entries()) == (None, [])
    write(store, x="12345", y="67")
    write(store, "k2", z="")
    store = other_machine(place)
    entry = store.find("s", "k1")
    assert entry is not None
    assert (entry.name, entry.stage, entry.key) == ("name of k1", "s", "k1")
    assert entry.n_bytes >= 7
    assert [each.key for each in store.entries()] == ["k1", "k2"]
    assert (entry.folder / "sub" / "x").read_text() == "12345"
    assert (entry.folder / "sub" / "y").read_text() == "67"
    kept = store.clean(older_than_days=1)
    assert kept == (0, 0)
    n_entries, n_bytes = store.clean()
    assert (n_entries, n_bytes >= 7) == (2, True)
    assert (store.entries(), names_at(place)) == ([], set())
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_a_store_and_its_files_pickle_and_mean_the_same_on_another_machine(
    place: str, other_machine: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(place)
    write(store, x="12345", y="67")
    entry = store.find("s", "k1")
    assert entry is not None
    carried = pickle.dumps([store, entry, entry.file("sub/x")])
    other_machine(place)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store, entry, file = pickle.loads(carried)
    assert (store.place, file.store) == (place, place)
    assert store.find("s", "k1") == entry or "://" in place
    assert file.path.read_text() == "12345"
    assert (entry.folder / "sub" / "y").read_text() == "67"


def test_nothing_is_fetched_before_it_is_asked_for_and_only_what_is(
    address: str, other_machine: Callable[[str], Store]
) -> None:
    write(Store(address), x="12345", y="67")
    store = other_machine(address)
    entry = store.find("s", "k1")
    assert entry is not None
    assert (entry.n_bytes, len(store.entries())) == (7, 1)
    assert read_tree(store.root) == {}
    entry.file("sub/x").path.read_text()
    assert list(read_tree(store.root).values()) == [b"12345"]
    assert sorted(read_tree(entry.folder).values()) == [b"12345", b"67"]


def test_what_was_fetched_or_written_here_is_not_fetched_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(address)
    write(store, x="12345")

    def refuse(*_: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("proxyds.runtime.storage.remote.RemoteFolder.fetch_file", refuse)
    entry = store.find("s", "k1")
    assert entry is not None
    assert (entry.folder / "sub" / "x").read_text() == "12345"


def test_what_somebody_else_removed_is_not_there_whatever_the_mirror_holds(
    address: str, other_machine: Callable[[str], Store]
) -> None:
    store = Store(address)
    write(store, x="old")
    other_machine(address).clean()
    assert store.find("s", "k1") is None
    write(store, x="new")
    entry = store.find("s", "k1")
    assert entry is not None
    assert (entry.folder / "sub" / "x").read_text() == "new"


def test_work_that_fails_leaves_nothing(place: str) -> None:
    store = Store(place)

    def work() -> None:
        with store.writing("s", "k1", "n") as folder:
            (folder / "x").write_text("1")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        work()
    assert store.find("s", "k1") is None
    assert names_at(place) == set()
    assert read_tree(store.root) == {}


def test_of_two_who_write_the_same_entry_the_second_gives_way_and_nothing_is_mixed(
    address: str, other_machine: Callable[[str], Store]
) -> None:
    slow = Store(address)  # folders: test_store.py
    with slow.writing("s", "k1", "slow") as folder:
        (folder / "x").write_text("slow")
        write(other_machine(address), x="fast")
    entry = other_machine(address).find("s", "k1")
    assert entry is not None
    assert entry.name == "name of k1"
    assert list(read_tree(entry.folder).values()) == [b"fast"]
    assert len(names_at(address)) == 2


def test_an_entry_that_is_not_whole_is_not_there_and_can_be_written(place: str) -> None:
    for text in (b"", b"{}", b'{"name": "n", "seconds": 1, "created"', b"[]", b"null"):
        if "://" in place:
            open_url(place).below("s/k1").write_file("entry.json", text)
        else:
            Path(place, "s", "k1").mkdir(parents=True, exist_ok=True)
            Path(place, "s", "k1", "entry.json").write_bytes(text)
        assert Store(place).find("s", "k1") is None
        assert Store(place).entries() == []
    write(Store(place), x="1")
    assert Store(place).find("s", "k1") is not None


def test_an_entry_that_names_files_outside_its_folder_is_not_there(address: str) -> None:
    for attempt, name in (("a", "../../x"), ("/tmp", "x"), ("..", "x")):
        about = {"name": "n", "seconds": 1, "created": 1, "attempt": attempt, "files": {name: [1, "0"]}}
        open_url(address).below("s/k1").write_file("entry.json", json.dumps(about).encode())
        assert Store(address).find("s", "k1") is None


# Who does what


def test_those_who_need_the_same_work_at_once_do_it_once_and_those_who_wait_say_so(tmp_path: Path) -> None:
    task, notes, store = a_task(0.5, tmp_path / "ran"), [], Store(tmp_path / "store")
    threads = [
        threading.Thread(target=run_task, args=(task, store, lambda progress: notes.append(progress.note)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len((tmp_path / "ran").read_text().split()) == 1
    assert set(notes) == {"waiting for another build", "done by another build"}
    assert notes.count("done by another build") == 3
    assert store.find(task.stage, task.key) is not None
    assert not locks_of(store.root)


def test_two_who_do_the_same_work_at_an_address_leave_one_result(address: str, tmp_path: Path) -> None:
    task, notes = a_task(0.5, tmp_path / "ran"), []
    threads = [
        threading.Thread(target=run_task, args=(task, Store(address), lambda progress: notes.append(progress.note)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (entry,) = Store(address).entries()
    assert list(read_tree(entry.folder).values()) == [b"slow"]
    run_task(task, Store(address), lambda progress: notes.append(progress.note))
    assert notes == ["done by another build"]


def test_who_waits_for_work_that_fails_takes_over(tmp_path: Path) -> None:
    store, task = Store(tmp_path / "store"), a_task(0, tmp_path / "ran")
    entered, failed = threading.Event(), threading.Event()

    def fail() -> None:
        with suppress(RuntimeError), store.locking("t", task.key, lambda: None):
            entered.set()
            failed.wait(30)
            raise RuntimeError("broken")

    thread = threading.Thread(target=fail)
    thread.start()
    assert entered.wait(30)
    run_task(task, store, lambda _: failed.set())
    thread.join()
    assert store.find("t", task.key) is not None


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK])
def test_work_is_done_without_locks_where_the_file_system_has_none(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", fail)
    store, task = Store(tmp_path / "store"), a_task(0, tmp_path / "ran")
    run_task(task, store, ignore_progress)
    assert store.find("t", task.key) is not None
    assert not locks_of(store.root)


def test_a_store_that_may_not_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = os.open

    def refuse(path: object, *rest: object, **named: object) -> int:
        if ".locks" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opening(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NoPermissionError, match="PROXYDS_STORE"):
        run_task(a_task(0, tmp_path / "ran"), Store(tmp_path / "store"), ignore_progress)
    assert not (tmp_path / "ran").exists()


def test_what_a_broken_attempt_left_at_an_address_is_cleaned(address: str) -> None:
    open_url(address).below("s/k1/half").write_file("x", b"1")
    write(Store(address), "k2", x="1")
    assert Store(address).clean(older_than_days=1) == (0, 0)
    assert {name.rpartition("/")[2] for name in names_at(address)} == {"entry.json", "x"}
    assert len(names_at(address)) == 2


def test_an_attempt_that_was_cleaned_away_while_it_was_sent_is_done_again(
    address: str, other_machine: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = RemoteFolder.send_files

    def send_and_lose(self: RemoteFolder, folder: Path, names: Sequence[str]) -> None:
        sending(self, folder, names)
        self.remove_files(names)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "send_files", send_and_lose)
        write(Store(address), x="1")
    store = other_machine(address)

    @retry_if_damaged
    def build() -> str:
        if store.find("s", "k1") is None:
            write(store, x="2")
        return StoredFile(address, "s", "k1", "sub/x").path.read_text()

    assert build() == "2"


def test_locks_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.locking("t", "held", lambda: None):
        (tmp_path / ".locks" / "t-left").touch()
        store.sweep()
        assert locks_of(tmp_path) == ["t-held"]
    assert not locks_of(tmp_path)


def test_workers_use_the_store_where_it_is(s3_place: str, tmp_path: Path) -> None:
    with LocalWorkers(1) as engine:
        (done,) = run_stored([a_task(0, tmp_path / "ran")], Store(s3_place), engine, ignore_progress)
    assert (done.entry.folder / "text").read_text() == "slow"


# Real processes

KILLED = """
import sys; sys.path.insert(0, {tests!r})
from tests import tasks
from pathlib import Path
from proxyds.runtime.local import {engine}
from proxyds.runtime.task import Task, run_stored
from proxyds.runtime.storage.store import Store
with {engine}({arguments}) as engine:
    run_stored([Task("t", "a task", {{"a": 1}}, tasks.sleep, {{"started": Path({started!r})}})], Store({place!r}), engine, print)
"""


@pytest.mark.e2e
@pytest.mark.parametrize(("engine", "arguments"), [("LocalWorkers", "1"), ("InProcess", "")])
def test_a_build_that_was_killed_is_taken_over_at_once(engine: str, arguments: str, tmp_path: Path) -> None:
    place, started = tmp_path / "store", tmp_path / "started"
    code = KILLED.format(tests=TESTS, engine=engine, arguments=arguments, started=str(started), place=str(place))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: started.exists() and started.read_text())
    assert len(locks_of(place)) == 1
    waits = threading.Event()
    waiting = threading.Thread(target=run_task, args=(a_task(0, tmp_path / "ran"), Store(place), lambda _: waits.set()))
    waiting.start()
    assert waits.wait(30)
    assert not (tmp_path / "ran").exists()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    waiting.join(timeout=10)
    assert (tmp_path / "ran").exists()
    assert [entry.name for entry in Store(place).entries()] == ["a task"]
    assert not locks_of(place)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


LOG_WORK = """
import os, proxyds.runtime.storage.store
writing = proxyds.runtime.storage.store.Store.writing
def log(self, stage, key, name):
    with open(os.environ["WORK_LOG"], "a") as out: out.write(f"{stage} {key}\\n")
    return writing(self, stage, key, name)
proxyds.runtime.storage.store.Store.writing = log
"""
"""As `sitecustomize`: every process of a build, workers too, leaves a line for each task that it does."""


@pytest.fixture(scope="module", params=["folder", "s3"])
def built_twice(
    request: pytest.FixtureRequest, s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The place of a store that two builds of one recipe have used at once, and the folder with what they made: `out-0`, `out-1`, `log`."""
    folder = tmp_path_factory.mktemp("twice")
    place = str(folder / "store") if request.param == "folder" else "s3://bucket/twice"
    (folder / "recipe.yaml").write_text(TINY_RECIPE.replace("[4, 8]", "4"))
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(LOG_WORK)
    path = os.pathsep.join([str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    builds = []
    for i in range(2):
        own = {"PROXYDS_STORE": place, "PROXYDS_STORE_MIRROR": str(folder / f"mirror-{i}")}
        builds.append(
            subprocess.Popen(
                [*(sys.executable, "-m", "proxyds", "build", "recipe.yaml", "-o", f"out-{i}", "--workers", "1")],
                cwd=folder,
                env={**os.environ, **s3, **own, "PYTHONPATH": path, "WORK_LOG": str(folder / "log")},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for build in builds:
        _, said = build.communicate(timeout=200)
        assert build.returncode == 0, said
    return place, folder


@pytest.mark.e2e
def test_two_builds_of_one_recipe_at_once_do_each_task_once_in_a_folder_and_never_wrong(
    built_twice: tuple[str, Path],
) -> None:
    place, made = built_twice
    done = (made / "log").read_text().splitlines()
    assert len(set(done)) > 5
    if "://" not in place:
        assert sorted(done) == sorted(set(done))
        assert not locks_of(Path(place))
    for folder in ("data", "importance", "evaluation", "webdataset"):
        assert read_tree(made / "out-0" / folder) == read_tree(made / "out-1" / folder)


@pytest.mark.e2e
@pytest.mark.parametrize("built_twice", ["s3"], indirect=True)
def test_a_build_over_damaged_entries_does_them_anew_and_the_store_is_listed_and_cleaned(
    run_here: Run,
    built_twice: tuple[str, Path],
    s3_place: str,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, made = built_twice
    monkeypatch.setenv("PROXYDS_STORE", place)
    listed = json.loads(run_here("store", "list", "--json").stdout)
    assert not (tmp_path / "mirror").exists()
    assert len(listed) == len(set((made / "log").read_text().splitlines()))
    assert all(each["n_bytes"] > 0 for each in listed)
    assert f"finished work in {place}" in run_here("store", "list").stdout
    damaged = [name for name in bucket.names("twice") if name.endswith("/predictions.npy")]
    bucket.put("twice", {damaged[0]: b"#" * 10})
    again = run_here("build", made / "recipe.yaml", "-o", "again", "--workers", "1")
    check_manners(again, "very-secret")
    assert again.returncode == 0, again.stderr
    assert read_tree(made / "out-0" / "data") == read_tree(tmp_path / "again" / "data")
    cleaned = run_here("store", "clean", "--yes")
    assert f"removed {len(listed)} entries" in cleaned.stdout, cleaned.stderr
    assert bucket.names("twice") == set()
    assert not [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()]


# Damage


DAMAGES: dict[str, Callable[[Bucket, str, str], object]] = {
    "other bytes": lambda bucket, prefix, name: bucket.put(prefix, {name: b"#####"}),
    "shorter": lambda bucket, prefix, name: bucket.put(prefix, {name: b"123"}),
    "longer": lambda bucket, prefix, name: bucket.put(prefix, {name: b"12345678"}),
    "gone": lambda bucket, prefix, name: bucket.ask("DELETE", f"{prefix}/{name}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_entry_whose_files_are_damaged_is_removed_and_done_again(
    damage: str, s3_place: str, bucket: Bucket, other_machine: Callable[[str], Store]
) -> None:
    prefix = s3_place.removeprefix("s3://bucket/")
    write(Store(s3_place), x="12345")
    (name,) = [name for name in bucket.names(prefix) if name.endswith("/x")]
    DAMAGES[damage](bucket, prefix, name)
    store, tries = other_machine(s3_place), []

    @retry_if_damaged
    def build() -> str:
        tries.append(1)
        if store.find("s", "k1") is None:
            write(store, x="12345")
        return StoredFile(s3_place, "s", "k1", "sub/x").path.read_text()

    assert (build(), len(tries)) == ("12345", 2)
    entry = other_machine(s3_place).find("s", "k1")
    assert entry is not None
    assert (entry.folder / "sub" / "x").read_text() == "12345"


def test_a_store_that_damages_all_that_it_is_given_is_told(
    s3_place: str, bucket: Bucket, other_machine: Callable[[str], Store]
) -> None:
    prefix, tries = s3_place.removeprefix("s3://bucket/"), []

    @retry_if_damaged
    def build() -> None:
        tries.append(1)
        write(other_machine(s3_place), x="12345")
        for name in bucket.names(prefix):
            if name.endswith("/x"):
                bucket.put(prefix, {name: b"#"})
        entry = other_machine(s3_place).find("s", "k1")
        assert entry is not None
        _ = entry.folder

    with pytest.raises(DamagedEntryError, match=r"sub/x: must have the bytes .* «name of k1».*run it again"):
        build()
    assert len(tries) == 4


# A store that is slow or refuses


class Flaky:
    """Stands before the S3 server and answers some requests itself.

    Attributes:
        n_left: How many it refuses yet.
        status: What it answers to them.
        only: The method that it refuses; empty for all.
    """

    def __init__(self, server: str) -> None:
        self.n_left, self.status, self.only = 0.0, 503, ""
        flaky = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if flaky.n_left > 0 and flaky.only in ("", self.command):
                    flaky.n_left -= 1
                    status, headers = flaky.status, []
                    code = "AccessDenied" if status == 403 else "ServiceUnavailable"
                    held = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                else:
                    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=30)
                    connection.request(self.command, self.path, body, dict(self.headers.items()))
                    answer = connection.getresponse()
                    status, headers, held = answer.status, answer.getheaders(), answer.read()
                    connection.close()
                self.send_response(status)
                own = {"transfer-encoding", "connection", "date", "server"}
                if self.command != "HEAD" or not headers:
                    own.add("content-length")
                    self.send_header("Content-Length", str(len(held) if self.command != "HEAD" else 0))
                for name, value in headers:
                    if name.lower() not in own:
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(held)

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler._pass_on)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def flaky(s3_place: str, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    made = Flaky(s3["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.address)
    yield made
    made.close()


def test_a_server_that_refuses_for_a_while_is_asked_again(flaky: Flaky, s3_place: str, tmp_path: Path) -> None:
    store = Store(s3_place)
    flaky.n_left = 4
    run_task(a_task(0, tmp_path / "ran"), store, ignore_progress)
    flaky.n_left = 4
    (entry,) = store.entries()
    flaky.n_left = 4
    store.fetch(entry)
    assert flaky.n_left == 4  # it was written here
    assert store.find(entry.stage, entry.key) is not None
    assert flaky.n_left == 0


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_server_that_refuses_for_ever_is_told_and_leaves_no_entry(
    flaky: Flaky, s3_place: str, s3: dict[str, str], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(s3_place)

    def work() -> None:
        with store.writing("s", "k1", "n") as folder:
            (folder / "x").write_text("1")
            flaky.n_left, flaky.only = 1e9, method

    with pytest.raises(StoreError, match=r"the store s3://bucket/store-.*finished work is kept, PROXYDS_STORE"):
        work()
    flaky.n_left = 0
    assert store.find("s", "k1") is None
    assert read_tree(store.root) == {}


def test_a_command_says_in_one_line_that_the_store_does_not_answer(
    run_here: Run, flaky: Flaky, s3_place: str, write_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXYDS_STORE", s3_place)
    flaky.n_left = 1e9
    for status, said in ((503, "cannot be reached"), (403, "check the credentials")):
        flaky.status = status
        for command in (
            ["build", write_recipe_file(), "-o", "a", "--workers", "1"],
            ["store", "list"],
            ["store", "clean", "--yes"],
        ):
            refused = run_here(*command)
            check_manners(refused, "very-secret")
            assert (refused.returncode, refused.stderr.count("\n")) == (70, 1), refused.stderr
            assert said in refused.stderr
            assert "PROXYDS_STORE" in refused.stderr
    flaky.n_left = 0
    assert names_at(s3_place) == set()


def test_a_bucket_that_is_not_there_is_not_made(s3_place: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/a.*: nothing is there"):
        run_task(a_task(0, tmp_path / "ran"), Store("s3://no-such-bucket/a"), ignore_progress)
    assert not (tmp_path / "ran").exists()  # it was known before the work
    with pytest.raises(StoreError, match="nothing is there"):
        write(Store("s3://no-such-bucket/a"), x="1")


# What is no place


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ("nope://x/y", StoreError, "no such protocol"),
        ("http://127.0.0.1:9/a", StoreError, "cannot be written to"),
        ("hf://datasets/me/x", StoreError, "is on the Hub"),
        ("s3://", StoreError, "must name a place after ://"),
        ("gs://bucket/a", MissingExtraError, r"proxyds\[gs\]"),
    ],
)
def test_what_cannot_be_a_store_is_told(given: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Store(given)


def test_a_folder_may_be_given_by_its_address(tmp_path: Path) -> None:
    assert Store(f"file://{tmp_path}/a%20store").root == tmp_path / "a store"


def test_a_password_in_the_address_is_not_shown(memory_place: str) -> None:
    store = Store(memory_place.replace("memory://", "memory://me:hidden@"))
    write(store, x="1")
    entry = store.find("s", "k1")
    assert entry is not None
    assert "hidden" not in f"{store.name} {entry!r} {entry.file('x')!r} {store!r}"


def test_a_full_or_forbidden_mirror_is_said(
    memory_place: str, other_machine: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Store(memory_place), x="1")
    entry = other_machine(memory_place).find("s", "k1")
    assert entry is not None
    for code, kind in ((28, NoSpaceError), (13, NoPermissionError)):

        def fail(*_: object, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("proxyds.runtime.storage.remote.RemoteFolder.fetch_file", fail)
        with pytest.raises(kind, match="PROXYDS_STORE_MIRROR"):
            _ = entry.folder
    assert not [path for path in entry.store.root.rglob("*") if path.is_file()]


def test_cleaning_leaves_younger_fetched_proxies_whole(memory_place: str) -> None:
    store = Store(memory_place)
    for key in ("p1", "p2"):
        (store.root / SHELF / key / "data").mkdir(parents=True)
        for name in ("manifest.json", "data/train.parquet"):
            (store.root / SHELF / key / name).write_text("{}")
    os.utime(store.root / SHELF / "p1", (1.0, 1.0))
    assert store.clean(older_than_days=1)[0] == 1
    assert not (store.root / SHELF / "p1").exists()
    assert (store.root / SHELF / "p2" / "data" / "train.parquet").is_file()
