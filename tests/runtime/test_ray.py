"""A real Ray cluster of two nodes on one machine: the engine's contract, and what happens to processes and nodes in the middle of work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proxyds
from proxyds.errors import DeviceError, DivergedError, NoSpaceError, OutputError, WorkerDiedError
from proxyds.evaluation.runs import STAGE
from proxyds.progress import Progress, StageEnded, ignore_progress
from proxyds.runtime.execution import Execution
from proxyds.runtime.machine import describe_arithmetic
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Task, run_each, run_stored
from tests import tasks
from tests.conftest import TINY_RECIPE, Run, check_manners, read_tree
from tests.pipeline.test_build import identical_bytes
from tests.pipeline.test_check import evidence_of, rows
from tests.runtime.test_local import is_running, session_members, text_tasks, wait_until

pytestmark = pytest.mark.e2e

pytest.importorskip("ray", reason="needs the extra ray")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a CPU each, the head and another."""
    before = {name: os.environ.get(name) for name in ("RAY_USAGE_STATS_ENABLED", "PYTHONPATH")}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), before["PYTHONPATH"] or ""])
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    nodes.add_node(num_cpus=1, num_gpus=0)
    # this process stays connected, so that workers stay too; others of these tests connect by themselves
    ray.init(nodes.address, log_to_driver=False, logging_level="error", include_dashboard=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@contextmanager
def ray_engine(device: str = "cpu", gpus_per_task: float = 1.0) -> Iterator[Any]:
    _, engine = Execution(device=device, engine="ray", gpus_per_task=gpus_per_task).choose_engine()
    with engine:
        yield engine


@pytest.fixture
def engine(cluster: Any) -> Iterator[Any]:
    import ray

    # a node that an earlier test has lost is missed after a while
    wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, 120)
    with ray_engine() as made:
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
    assert sorted(path.name for path in store.root.glob("[!.]*")) == ["t"]  # nothing is left of what nodes looked for


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
    assert re.search(r"^killer: its worker process or node was lost.*WorkerCrashed.*--workers", str(failures[0].error))
    assert len((tmp_path / "killer").read_text()) == len((tmp_path / "unlucky").read_text()) == 3
    assert sorted(ran.read_text().split()) == ["a", "b"]
    wait_until(lambda: store.sweep() or not list(store.root.rglob(".unfinished-*")), 10)


def test_what_the_cluster_has_not_is_told_before_anything_is_started(
    recipe: proxyds.Recipe, engine: Any, tmp_path: Path
) -> None:
    here = {"store": Store(tmp_path / "store"), "engine": "ray"}
    with pytest.raises(DeviceError, match=r"cuda: needs a node with 1 CPU, 0.25 GPU, .* 1 CPU, 0 GPU; 1 CPU, 0 GPU;"):
        proxyds.build(recipe, tmp_path / "p", device="cuda", gpus_per_task=0.25, **here)
    with pytest.raises(DeviceError, match=r"device: must be auto, cpu or cuda on a cluster.*cuda:1"):
        proxyds.build(recipe, tmp_path / "p", device="cuda:1", **here)
    with pytest.raises(DeviceError, match=r"gpus_per_task: must be a share of a GPU.*1\.5"):
        proxyds.build(recipe, tmp_path / "p", gpus_per_task=1.5, **here)
    gpu = Task("t", "on a GPU", {}, tasks.say_pid, {"device": "cuda"})
    crowd = Task("t", "a crowd", {}, tasks.say_pid, {}, n_processes=3)
    with pytest.raises(DeviceError, match=r"on a GPU: needs a node with 1 CPU, 1 GPU"):
        engine.run([gpu], Store(tmp_path), ignore_progress)
    with pytest.raises(
        DeviceError, match=r"a crowd: needs 3 times 1 CPU, .* have: 1 CPU, 0 GPU; 1 CPU, 0 GPU; add such"
    ):
        engine.run([crowd], Store(tmp_path), ignore_progress)
    assert list(tmp_path.iterdir()) == []


# Small networks, but long enough to be killed in the middle.
RECIPE = (
    TINY_RECIPE.replace("name: tiny", "name: on-ray")
    .replace("base_filters: [4, 8], multiplier: [1, 2]", "base_filters: [4, 5, 6, 7, 8]")
    .replace("epochs: 5", "epochs: 2, soft_labels: true")
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


class Disturbance:
    """Called with progress; does something once, when so many runs of a check are in the store."""

    def __init__(self, store: Store, n_runs: int, disturb: Callable[[], None]) -> None:
        self.store, self.n_runs, self.disturb, self.was_done = store, n_runs, disturb, False

    def __call__(self, step: Progress) -> None:
        if not self.was_done and len(list(self.store.root.glob(f"{STAGE}/[!.]*"))) >= self.n_runs:
            self.was_done = True
            self.disturb()


def kill_a_busy_worker() -> None:
    found = [pid for pid in all_processes() if b"ray::work" in command_of(pid)]
    os.kill(found[0], signal.SIGKILL)


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def children(pid: int) -> list[int]:
    return [int(each) for file in Path(f"/proc/{pid}/task").glob("*/children") for each in file.read_text().split()]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_build_and_a_check_give_what_local_workers_give_whatever_is_killed_and_lost(
    recipe: proxyds.Recipe, undisturbed: Path, cluster: Any, tmp_path: Path
) -> None:
    store, node = Store(tmp_path / "store"), cluster.add_node(num_cpus=1, num_gpus=0)
    created: dict[str, float] = {}
    notes: set[str] = set()

    def lose_the_node() -> None:
        raylet = node.all_processes["raylet"][0].process.pid
        deadline = time.monotonic() + 150  # a busy machine starts a worker anew in a minute
        while not any(b"ray::work" in command_of(pid) for pid in children(raylet)):
            assert time.monotonic() < deadline, "no task came to the node"
            time.sleep(0.02)
        created.update({entry.key: entry.created for entry in store.entries()})
        cluster.remove_node(node, allow_graceful=False)

    killed, lost = Disturbance(store, 3, kill_a_busy_worker), Disturbance(store, 8, lose_the_node)

    def watch(step: Progress | StageEnded) -> None:
        if isinstance(step, Progress):
            notes.add(step.note)
            killed(step)
            lost(step)

    built = proxyds.build(recipe, tmp_path / "p", store=store, engine="ray", on_progress=watch)
    assert killed.was_done
    assert lost.was_done
    check_same(built.folder, undisturbed)
    after = {entry.key: entry.created for entry in store.entries()}
    assert {key: after[key] for key in created} == created  # what was done then was not done again
    assert any(note.startswith("loss ") for note in notes)
    again = proxyds.check(tmp_path / "p", store=store, engine="ray")
    assert built.manifest.machine.n_workers == 3
    check_same(again.folder, undisturbed)


@pytest.mark.slow
def test_probes_are_trained_by_several_processes_together(recipe: proxyds.Recipe, cluster: Any, tmp_path: Path) -> None:
    """Through Ray Train and torch's DDP, beside one process that computes the parts in turn: equal but for rounding."""
    changes = {"probes": recipe.probes.model_copy(update={"data_parallel": 2}), "check": None}
    shared = recipe.model_copy(update=changes)
    ours = proxyds.build(shared, tmp_path / "ray", store=Store(tmp_path / "one"), engine="ray").manifest.probes
    theirs = proxyds.build(shared, tmp_path / "local", store=Store(tmp_path / "two")).manifest.probes
    for one, other in zip(ours, theirs, strict=True):
        assert one.losses == pytest.approx(other.losses, abs=1e-2)
        assert one.losses[0] == pytest.approx(other.losses[0], abs=1e-4)
        assert one.accuracy == pytest.approx(other.accuracy, abs=0.02)


def is_swept(store: Store) -> bool:
    """Whether nothing unfinished is left but what the next command would sweep; what a dying process holds is."""
    store.sweep()
    return not list(store.root.rglob(".unfinished-*"))


@pytest.mark.slow  # two minutes each; `tests/pipeline/test_build.py` stops local workers by default
@pytest.mark.parametrize(
    ("how", "joins"),
    [(signal.SIGKILL, True), (signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, True)],
    ids=str,
)
def test_a_driver_that_is_stopped_goes_on_where_it_was(
    how: signal.Signals, joins: bool, recipe: proxyds.Recipe, undisturbed: Path, cluster: Any, tmp_path: Path
) -> None:
    """With a cluster that runs on, and with one that the command starts and that ends with it."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    store = Store(tmp_path / "store")
    engine = f"ray:{cluster.address}" if joins else "ray"
    command = [sys.executable, "-m", "proxyds", "build", "recipe.yaml", "-o", "p", "--engine", engine]
    environment = {**os.environ, "PROXYDS_STORE": "store", "RAY_ADDRESS": "local"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    is_told = how != signal.SIGKILL
    stage, n = ("source", 1) if is_told else (STAGE, 3)
    wait_until(lambda: process.poll() is not None or len(list(store.root.glob(f"{stage}/[!.]*"))) >= n, 240)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if is_told else -9), message
    if is_told:
        assert "interrupted" in message
        assert "Traceback" not in message
        assert joins or not list(store.root.rglob(".unfinished-*"))
    wait_until(lambda: not [pid for pid in all_processes() if b"ray::work" in command_of(pid)], 30)
    wait_until(lambda: is_swept(store), 30)  # a cluster that runs on ends workers after the driver
    wait_until(lambda: not [pid for pid in session_members(process.pid) if is_running(pid)], 30)
    if is_told:
        return
    created = {entry.key: entry.created for entry in store.entries()}
    assert len(created) >= 3
    assert not (tmp_path / "p" / "ranking").exists()

    ran = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "FutureWarning" not in ran.stderr
    after = {entry.key: entry.created for entry in store.entries()}
    assert {key: after[key] for key in created} == created
    check_same(tmp_path / "p", undisturbed)
    assert not list(store.root.rglob(".unfinished-*"))


@pytest.mark.slow
def test_tasks_share_gpus_that_this_machine_has_not_and_do_not_wait_for_ever_when_they_are_gone(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyds.runtime.ray.PATIENCE_SECONDS", 1)
    monkeypatch.setattr("proxyds.runtime.ray.LOOK_SECONDS", 0.5)
    monkeypatch.setattr("proxyds.runtime.ray.loaded_plugins", lambda: ["tests.fake_gpu"])
    node, store, two, three = cluster.add_node(num_cpus=2, num_gpus=1), Store(tmp_path), tmp_path / "2", tmp_path / "3"
    two.mkdir()
    three.mkdir()
    with ray_engine("auto", gpus_per_task=0.5) as engine:
        assert engine.device == "cuda"
        assert engine.n_workers == 2
        assert engine.ask("cuda", describe_arithmetic, "cuda")["device"] == "a GPU of the tests"
        arguments = {"device": "cuda", "others": two, "n": 2}
        together = [Task("t", f"task {i}", {"i": i}, tasks.write_device, arguments) for i in range(2)]
        done = run_stored(together, store, engine, ignore_progress)
        assert [(each.entry.folder / "device").read_text() for each in done] == ["cuda 0", "cuda 0"]

        def lose_the_gpu() -> None:
            wait_until(lambda: list(three.iterdir()))
            cluster.remove_node(node, allow_graceful=False)

        losing = threading.Thread(target=lose_the_gpu)
        losing.start()
        lonely = Task("t", "lonely", {}, tasks.write_device, {"device": "cuda", "others": three, "n": 3})
        with pytest.raises(DeviceError, match=r"lonely: needs a node with 1 CPU, 0.5 GPU"):
            run_stored([lonely], store, engine, ignore_progress)
        losing.join()


def test_a_node_that_does_not_see_the_store_is_named(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("/proc/self/cwd/store")  # another folder for every process, as it were on other machines
    with pytest.raises(OutputError, match=r"must be seen by every node of the cluster, .*PROXYDS_STORE"):
        run_stored(text_tasks("a", tmp_path / "ran"), store, engine, ignore_progress)
    assert not (tmp_path / "ran").exists()
    assert read_tree(tmp_path / "store") == {}


@pytest.mark.slow
def test_several_processes_work_on_a_task_together(engine: Any, tmp_path: Path) -> None:
    store, ran = Store(tmp_path / "store"), tmp_path / "ran"
    steps: list[Progress] = []

    def task(trouble: bool) -> Task:
        arguments = {"device": "cpu", "ran": ran, "trouble": trouble, "weights": np.zeros(10**6)}
        return Task("t", "sum", {"trouble": trouble}, tasks.add_up, arguments, n_processes=2)

    (done,) = run_stored([task(False)], store, engine, steps.append)
    assert (done.entry.folder / "total").read_text() == "3 of 2 with 1 on cpu"
    assert steps[-1].done == steps[-1].total == 1
    assert sorted(ran.read_text().split()) == ["0", "1"]
    assert sorted(path.name for path in done.entry.folder.iterdir()) == ["entry.json", "total"]
    ran.write_text("")
    with pytest.raises(DivergedError, match="probe x") as raised:  # when it is begun again, one of them having died
        run_stored([task(True)], store, engine, steps.append)
    assert type(raised.value) is DivergedError
    assert sorted(ran.read_text().split()) == ["0", "0", "1", "1"]
    wait_until(lambda: store.sweep() or not list(store.root.rglob(".unfinished-*")), 10)


def test_what_is_no_engine_or_no_cluster_is_told_by_the_command(
    write_recipe_file: Callable[..., Path], run_proxyds: Run, tmp_path: Path
) -> None:
    recipe = write_recipe_file()
    for engine, code, message in (
        ("dask", 2, r"must be local, ray, ray:HOST:PORT or ray://HOST:PORT, got 'dask'"),
        ("ray:127.0.0.1:1", 70, r"must reach a Ray cluster, 127\.0\.0\.1:1 is none that answers"),
    ):
        done = run_proxyds("build", recipe, "-o", tmp_path / "p", "--engine", engine)
        check_manners(done)
        assert done.returncode == code, done.stderr
        assert re.search(message, done.stderr), done.stderr
    done = run_proxyds("build", recipe, "--engine", "ray", first="import sys; sys.modules['ray'] = None")
    check_manners(done)
    assert done.returncode == 15
    assert "must have Ray, which is not installed: pip install 'proxyds[ray]'" in done.stderr
