"""Every engine keeps the contract; local workers survive what happens to processes."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from proxyds.errors import DivergedError, NoSpaceError, WorkerDiedError
from proxyds.progress import Progress, ignore_progress
from proxyds.runtime.local import InProcess, LocalWorkers
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Engine, Task, run_each, run_stored
from tests import tasks


@pytest.fixture(scope="module", params=[InProcess, lambda: LocalWorkers(2)], ids=["here", "local workers"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every engine, to hold each to the contract: the same one for all tests, whatever failed in it before."""
    with request.param() as made:
        yield made


def text_tasks(texts: str, ran: Path) -> list[Task]:
    return [Task("t", f"task {text}", {"text": text}, tasks.write_text, {"text": text, "ran": ran}) for text in texts]


def test_results_come_in_the_order_given_and_done_work_is_not_done_again(engine: Engine, tmp_path: Path) -> None:
    store, ran = Store(tmp_path / "store"), tmp_path / "ran"
    steps: list[Progress] = []
    first = run_stored(text_tasks("abc", ran), store, engine, steps.append)
    assert [(done.entry.folder / "text").read_text() for done in first] == ["a", "b", "c"]
    assert not any(done.was_stored for done in first)
    assert {step.task for step in steps} == {"task a", "task b", "task c"}
    assert any(step.note == "done" and step.done == step.total == 2 for step in steps)
    second = run_stored(text_tasks("dcba", ran), store, engine, ignore_progress)
    assert [(done.entry.folder / "text").read_text() for done in second] == ["d", "c", "b", "a"]
    assert [done.was_stored for done in second] == [False, True, True, True]
    assert sorted(ran.read_text().split()) == ["a", "b", "c", "d"]


def test_a_failing_task_raises_its_own_error_and_finished_work_is_kept(engine: Engine, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    good = text_tasks("a", tmp_path / "ran")
    with pytest.raises(DivergedError, match="probe x"):
        run_stored([*good, Task("t", "bad", {"bad": 1}, tasks.diverge, {})], store, engine, ignore_progress)
    names = [entry.name for entry in store.entries()]
    assert names == ["task a"] if isinstance(engine, InProcess) else names in (["task a"], [])  # two workers race
    assert not list((tmp_path / "store").rglob(".unfinished-*"))


def test_a_network_that_cannot_be_trained_stops_nothing_where_that_is_asked(engine: Engine, tmp_path: Path) -> None:
    store, ran = Store(tmp_path / "store"), tmp_path / "ran"
    run_stored(text_tasks("a", ran), store, engine, ignore_progress)
    watched: list[str] = []

    def watch(missing: Sequence[Task]) -> Callable[[Progress], None]:
        watched.extend(task.name for task in missing)
        return ignore_progress

    first, second, third = text_tasks("abc", ran)
    bad = Task("t", "bad", {"bad": 1}, tasks.diverge, {})
    results, failures = run_each([first, bad, second, third], store, engine, watch)
    assert watched == ["bad", "task b", "task c"]
    assert [result and (result.entry.folder / "text").read_text() for result in results] == ["a", None, "b", "c"]
    assert [result and result.was_stored for result in results] == [True, None, False, False]
    assert [(failure.task.name, type(failure.error)) for failure in failures] == [("bad", DivergedError)]


@pytest.mark.e2e
def test_the_task_that_kills_its_worker_is_found_and_named_and_the_others_are_done(tmp_path: Path) -> None:
    store, ran = Store(tmp_path / "store"), tmp_path / "ran"
    killer = Task("t", "killer", {"die": 1}, tasks.die, {})
    with LocalWorkers(2) as engine:
        results, failures = run_each(
            [*text_tasks("ab", ran), killer, *text_tasks("cdefgh", ran)], store, engine, lambda missing: ignore_progress
        )
        assert [failure.task.name for failure in failures] == ["killer"]
        assert isinstance(failures[0].error, WorkerDiedError)
        assert [result is None for result in results] == [False, False, True, *[False] * 6]
        assert len(store.entries()) == 8
        assert not list(store.root.rglob(".unfinished-*"))
        assert run_stored(text_tasks("xy", ran), store, engine, ignore_progress)  # the engine is as good as new


def test_a_full_disk_is_no_failed_run_and_stops_everything(engine: Engine, tmp_path: Path) -> None:
    bad = Task("t", "full", {"full": 1}, tasks.fill_the_disk, {})
    with pytest.raises(NoSpaceError):
        run_each([bad], Store(tmp_path / "store"), engine, lambda missing: ignore_progress)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_workers_keep_their_memory(tmp_path: Path) -> None:
    with LocalWorkers(1) as engine:
        (done,) = run_stored([Task("t", "n", {}, tasks.count_faults, {})], Store(tmp_path), engine, ignore_progress)
    assert float((done.entry.folder / "faults").read_text()) < 1000  # for a step; thousands, were memory given back


def test_tasks_run_with_one_thread(engine: Engine, tmp_path: Path) -> None:
    (done,) = run_stored([Task("t", "n", {}, tasks.count_threads, {})], Store(tmp_path), engine, ignore_progress)
    assert (done.entry.folder / "threads").read_text() == "1 passive"


def test_nothing_to_do_starts_no_process(tmp_path: Path) -> None:
    started = time.monotonic()
    with LocalWorkers(2) as engine:
        assert run_stored([], Store(tmp_path), engine, ignore_progress) == []
    assert time.monotonic() - started < 0.5


def test_workers_are_kept_for_the_block_and_end_with_it(tmp_path: Path) -> None:
    pids = []
    with LocalWorkers(1) as engine:
        for i in range(2):
            (done,) = run_stored(
                [Task("t", "n", {"i": i}, tasks.say_pid, {})], Store(tmp_path), engine, ignore_progress
            )
            pids.append(int((done.entry.folder / "pid").read_text()))
        assert is_running(pids[0])
    assert pids[0] == pids[1] != os.getpid()
    wait_until(lambda: not is_running(pids[0]), 20)


def test_an_engine_can_be_used_again_after_a_failure(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        run_stored([Task("t", "bad", {"bad": 1}, tasks.diverge, {})], Store(tmp_path), engine, ignore_progress)
    (done,) = run_stored(text_tasks("a", tmp_path / "ran"), Store(tmp_path), engine, ignore_progress)
    assert (done.entry.folder / "text").read_text() == "a"


def test_a_display_that_fails_stops_nothing_but_is_not_hidden(tmp_path: Path) -> None:
    def fail(step: Progress) -> None:
        raise RuntimeError("no terminal")

    with LocalWorkers(1) as engine, pytest.raises(RuntimeError, match="no terminal"):
        run_stored(text_tasks("ab", tmp_path / "ran"), Store(tmp_path / "store"), engine, fail)
    assert len(Store(tmp_path / "store").entries()) == 2


def test_a_killed_worker_is_named_with_what_to_do(tmp_path: Path) -> None:
    message = r"task y: a worker process ended without a result .*--workers"
    with LocalWorkers(2) as engine, pytest.raises(WorkerDiedError, match=message):
        run_stored([Task("t", "task y", {}, tasks.die, {})], Store(tmp_path), engine, ignore_progress)
    assert [path.name for path in (tmp_path / "t").iterdir()] == []


@pytest.mark.e2e
def test_in_a_build_the_task_that_kills_its_worker_is_named_and_not_one_beside_it(tmp_path: Path) -> None:
    beside = Task("t", "slow one", {}, tasks.write_slowly, {"seconds": 2.0, "ran": tmp_path / "ran"})
    killer = Task("t", "killer", {"die": 1}, tasks.die, {})
    store, notes = Store(tmp_path / "store"), list[str]()
    with LocalWorkers(2) as engine, pytest.raises(WorkerDiedError, match=r"^killer: "):
        run_stored([beside, killer], store, engine, lambda step: notes.append(step.note))
    assert len(store.entries()) == 1  # the other is done
    assert [note for note in notes if note] == 2 * ["again, alone: a worker died (--workers takes fewer)"]


SLEEPER = """
import sys; sys.path.insert(0, {tests!r})
from tests import tasks
from pathlib import Path
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.task import Task, run_stored
from proxyds.runtime.storage.store import Store
folder = Path({folder!r})
with LocalWorkers(1) as engine:
    run_stored([Task("t", "n", {{}}, tasks.sleep, {{"started": folder / "started"}})], Store(folder / "store"), engine, print)
"""


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
@pytest.mark.parametrize(
    ("how", "times"), [(signal.SIGKILL, 1), (signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1)]
)
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, how: signal.Signals, times: int) -> None:
    # a script without «if __name__ == "__main__"», as users write them
    code = SLEEPER.format(tests=str(Path(__file__).parent.parent.parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until((tmp_path / "started").exists)
    wait_until(lambda: (tmp_path / "started").read_text())
    worker = int((tmp_path / "started").read_text())
    for _ in range(times):
        if process.poll() is None:
            os.kill(process.pid, how)
        time.sleep(0.02)
    process.wait(timeout=30)
    wait_until(lambda: not is_running(worker), 20)
    assert process.returncode != 0


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
@pytest.mark.parametrize(
    "seconds", [0.05, 1.0, *(pytest.param(seconds, marks=pytest.mark.slow) for seconds in (0.0, 0.3, 2.0))]
)
def test_an_interrupt_while_workers_start_ends_everything(tmp_path: Path, seconds: float) -> None:
    code = SLEEPER.format(tests=str(Path(__file__).parent.parent.parent), folder=str(tmp_path)).replace(
        "with LocalWorkers", "print('go', flush=True)\nwith LocalWorkers"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    process.stdout.close()
    process.wait(timeout=60)
    wait_until(lambda: not [pid for pid in session_members(process.pid) if is_running(pid)], 20)


def session_members(session: int) -> list[int]:
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            members.append(int(stat.parent.name))
    return members


SLOW_TO_TIME = """\
name: slow
source: {kind: digits, image_size: 32}
space:
  network: resnet
  choices: {depth: [8, 14, 20, 26, 32], base_filters: [8, 16], kernel_size: [3, 5], multiplier: [1, 2]}
training: {epochs: 5}
check: {draws: 1, full_seeds: 1, architectures: 40}
"""


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
@pytest.mark.parametrize(("gap", "times"), [pytest.param(0.0, 1, marks=pytest.mark.slow), (0.2, 4), (0.2, 0)])
def test_a_stopped_dry_run_says_so_and_nothing_else(tmp_path: Path, gap: float, times: int) -> None:
    (tmp_path / "recipe.yaml").write_text(SLOW_TO_TIME)
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-m", "proxyds", "build", str(tmp_path / "recipe.yaml"), "--dry-run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PROXYDS_STORE": str(store)},
        start_new_session=True,
        text=True,
    )
    wait_until(lambda: len(list(store.glob("source/[!.]*"))) >= 2, 240)  # decoded and split: steps are timed now
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of its processes
        time.sleep(gap)
    if not times:
        os.killpg(process.pid, signal.SIGTERM)  # as schedulers do
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), said
    (line,) = said.strip().splitlines()  # click ends the line that the terminal shows ^C in
    assert "interrupted" in line
    wait_until(lambda: not [pid for pid in session_members(process.pid) if is_running(pid)], 20)
