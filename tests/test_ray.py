"""A real Ray cluster of two nodes on one machine: the engine's contract, and what happens to processes and nodes in the middle of work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tasks
from conftest import TINY_RECIPE, Run
from test_check import evidence_of, rows
from test_engine import is_running, session_members, text_tasks, wait_until
from test_pipeline import identical_bytes, names_of_stored_work

import proxyds
from proxyds import verification
from proxyds.engine import Task, run_each, run_stored
from proxyds.errors import DeviceError, DivergedError, NoSpaceError, OutputError, RemoteError, WorkerDiedError
from proxyds.records import Progress, ignore_progress
from proxyds.store import Store

pytest.importorskip("ray", reason="needs the extra ray")
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a CPU each, the head and another."""
    before = {name: os.environ.get(name) for name in ("RAY_USAGE_STATS_ENABLED", "PYTHONPATH")}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS), before["PYTHONPATH"] or ""])
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    nodes.add_node(num_cpus=1, num_gpus=0)
    yield nodes
    nodes.shutdown()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def address(cluster: Any) -> str:
    return f"ray:{cluster.address}"


@contextmanager
def ray_engine(address: str, device: str = "cpu", workers: int = 0, gpus_per_task: float = 1.0) -> Iterator[Any]:
    from proxyds.pipeline import choose_engine

    _, engine = choose_engine(device, workers, address, gpus_per_task)
    with engine:
        yield engine


@pytest.fixture
def engine(address: str) -> Iterator[Any]:
    with ray_engine(address) as made:
        yield made


def done_alone(task: Task, store: Store, engine: Any, file: str) -> str:
    (done,) = run_stored([task], store, engine, ignore_progress)
    return (done.entry.folder / file).read_text()


def test_results_come_in_the_order_given_and_done_work_is_not_done_again(engine: Any, tmp_path: Path) -> None:
    store, ran = Store(tmp_path / "store"), tmp_path / "ran"
    steps: list[Progress] = []
    first = run_stored(text_tasks("abc", ran), store, engine, steps.append)
    assert [(done.entry.folder / "text").read_text() for done in first] == ["a", "b", "c"]
    assert {step.task for step in steps} == {"task a", "task b", "task c"}
    assert all(step.note == "done" for step in {step.task: step for step in steps}.values())  # the last word of each
    second = run_stored(text_tasks("dcba", ran), store, engine, ignore_progress)
    assert [done.was_stored for done in second] == [False, True, True, True]
    assert sorted(ran.read_text().split()) == ["a", "b", "c", "d"]
    assert engine.n_workers == 2
    assert sorted(path.name for path in store.root.iterdir()) == ["t"]  # nothing is left of what nodes looked for


def test_errors_of_tasks_are_their_own_and_stop_the_rest_or_not_as_asked(engine: Any, tmp_path: Path) -> None:
    store, ran = Store(tmp_path / "store"), tmp_path / "ran"
    first, second = text_tasks("ab", ran)
    bad, full = Task("t", "bad", {"bad": 1}, tasks.diverge, {}), Task("t", "full", {"f": 1}, tasks.fill_the_disk, {})
    with pytest.raises(DivergedError, match="probe x") as raised:
        run_stored([first, bad], store, engine, ignore_progress)
    assert type(raised.value) is DivergedError
    results, failures = run_each([first, bad, second], store, engine, lambda missing: ignore_progress)
    assert [result is None for result in results] == [False, True, False]
    assert [(failure.task.name, type(failure.error)) for failure in failures] == [("bad", DivergedError)]
    with pytest.raises(NoSpaceError):
        run_each([full], store, engine, lambda missing: ignore_progress)
    assert not list(store.root.rglob(".unfinished-*"))


def test_a_display_that_fails_stops_nothing_but_is_not_hidden(engine: Any, tmp_path: Path) -> None:
    def fail(step: Progress) -> None:
        raise RuntimeError("no terminal")

    with pytest.raises(RuntimeError, match="no terminal"):
        run_stored(text_tasks("ab", tmp_path / "ran"), Store(tmp_path / "store"), engine, fail)
    assert len(Store(tmp_path / "store").entries()) == 2


def test_workers_have_one_thread_and_keep_their_memory(engine: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert done_alone(Task("t", "n", {}, tasks.count_threads, {}), store, engine, "threads") == "1 passive"
    assert float(done_alone(Task("t", "m", {"m": 1}, tasks.count_faults, {}), store, engine, "faults")) < 1000


def test_what_kills_its_worker_is_begun_three_times_then_named_and_nothing_else_is_lost(
    engine: Any, tmp_path: Path
) -> None:
    store, ran = Store(tmp_path / "store"), tmp_path / "ran"
    killer, unlucky = (
        Task("t", name, {"n": n}, tasks.fail_at_first, {"tries": tmp_path / name, "n_deaths": n})
        for name, n in (("killer", 99), ("unlucky", 2))
    )
    results, failures = run_each([killer, *text_tasks("ab", ran), unlucky], store, engine, lambda _: ignore_progress)
    assert [result is None for result in results] == [True, False, False, False]
    assert [failure.task.name for failure in failures] == ["killer"]
    assert isinstance(failures[0].error, WorkerDiedError)
    assert len((tmp_path / "killer").read_text()) == len((tmp_path / "unlucky").read_text()) == 3
    assert sorted(ran.read_text().split()) == ["a", "b"]
    wait_until(lambda: store.sweep() or not list(store.root.rglob(".unfinished-*")), 10)
    (tmp_path / "killer").write_text("")
    with pytest.raises(WorkerDiedError, match=r"killer: its worker process or node was lost.*WorkerCrashed.*--workers 1"):
        run_stored([killer], store, engine, ignore_progress)


# Small networks, but long enough to be killed in the middle.
RECIPE = (
    TINY_RECIPE.replace("name: tiny", "name: on-ray")
    .replace("depth: 8", "depth: [8, 14]")
    .replace("epochs: 5", "epochs: 2")
    + "check: {draws: 1, full_seeds: 1}\n"
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> proxyds.Recipe:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return proxyds.read_recipe(path)


@pytest.fixture(scope="module")
def undisturbed(recipe: proxyds.Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proxy as local workers build and check it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return proxyds.build(recipe, folder / "p", store=Store(folder / "store"), device="cpu").folder


def check_same(proxy: Path, other: Path) -> None:
    assert identical_bytes(proxy) == identical_bytes(other)
    assert rows(proxy) == rows(other)
    assert evidence_of(proxy) == evidence_of(other)


def test_a_build_and_a_check_give_what_local_workers_give(
    recipe: proxyds.Recipe, undisturbed: Path, address: str, tmp_path: Path
) -> None:
    steps: list[Progress] = []
    store = Store(tmp_path / "store")
    built = proxyds.build(recipe, tmp_path / "p", store=store, engine=address, on_progress=steps.append)
    check_same(built.folder, undisturbed)
    assert built.manifest.machine.n_workers == 2
    assert any(step.note.startswith("loss ") for step in steps)
    again = proxyds.check(tmp_path / "p", store=store, engine=address)
    assert again.manifest.evidence is not None
    check_same(again.folder, undisturbed)


class Disturbance:
    """Called with progress; does something once, when so many runs of a check are in the store."""

    def __init__(self, store: Store, n_runs: int, disturb: Callable[[], None]) -> None:
        self.store, self.n_runs, self.disturb, self.was_done = store, n_runs, disturb, False

    def __call__(self, step: Progress) -> None:
        if not self.was_done and len(list(self.store.root.glob(f"{verification.STAGE}/[!.]*"))) >= self.n_runs:
            self.was_done = True
            self.disturb()


def kill_a_busy_worker() -> None:
    found = [pid for pid in all_processes() if b"ray::_work" in command_of(pid)]
    os.kill(found[0], signal.SIGKILL)


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_killed_worker_and_a_lost_node_change_nothing(
    recipe: proxyds.Recipe, undisturbed: Path, cluster: Any, address: str, tmp_path: Path
) -> None:
    store, node = Store(tmp_path / "store"), cluster.add_node(num_cpus=1, num_gpus=0)
    created: dict[str, float] = {}

    def lose_the_node() -> None:
        created.update({entry.key: entry.created for entry in store.entries()})
        cluster.remove_node(node, allow_graceful=False)

    killed, lost = Disturbance(store, 5, kill_a_busy_worker), Disturbance(store, 15, lose_the_node)

    def watch(step: Progress) -> None:
        killed(step)
        lost(step)

    built = proxyds.build(recipe, tmp_path / "p", store=store, engine=address, on_progress=watch)
    assert killed.was_done
    assert lost.was_done
    check_same(built.folder, undisturbed)
    after = {entry.key: entry.created for entry in store.entries()}
    assert {key: after[key] for key in created} == created  # what was done then was not done again


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_stopped_goes_on_where_it_was(
    how: signal.Signals, recipe: proxyds.Recipe, undisturbed: Path, cluster: Any, tmp_path: Path
) -> None:
    """Once with a cluster that runs on, once with one that the command starts and that ends with it."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    store = Store(tmp_path / "store")
    command = [sys.executable, "-m", "proxyds", "build", "recipe.yaml", "-o", "p", "--engine", "ray", "--device", "cpu"]
    environment = {**os.environ, "PROXYDS_STORE": "store", "RAY_ADDRESS": cluster.address}
    if how == signal.SIGINT:
        environment["RAY_ADDRESS"] = "local"
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: process.poll() is not None or len(list(store.root.glob(f"{verification.STAGE}/[!.]*"))) >= 5)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.kill()
    message = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if how == signal.SIGINT else -9), message
    if how == signal.SIGINT:
        assert "run the same command again" in message
        assert "Traceback" not in message
        assert not list(store.root.rglob(".unfinished-*"))
    wait_until(lambda: not [pid for pid in all_processes() if b"ray::_work" in command_of(pid)], 30)
    wait_until(lambda: not [pid for pid in session_members(process.pid) if is_running(pid)], 30)
    created = {entry.key: entry.created for entry in store.entries()}
    assert len(created) >= 5
    assert not (tmp_path / "p" / "ranking").exists()

    ran = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "FutureWarning" not in ran.stderr
    after = {entry.key: entry.created for entry in store.entries()}
    assert {key: after[key] for key in created} == created
    check_same(tmp_path / "p", undisturbed)
    assert not list(store.root.rglob(".unfinished-*"))
