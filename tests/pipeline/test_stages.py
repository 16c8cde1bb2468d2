"""What builds, checks and plans share: the clock of stages, what methods need together, the machine."""

from __future__ import annotations

import platform
from dataclasses import fields
from pathlib import Path

from proxyds.pipeline.stages import LIBRARIES, StageClock, describe_machine, join_needs
from proxyds.progress import Progress, StageEnded
from proxyds.runtime.execution import Execution, Options
from proxyds.runtime.storage.store import Entry, Store
from proxyds.runtime.task import Done


def done(folder: Path, seconds: float, was_stored: bool) -> Done:
    return Done(Entry("probes", "0" * 64, "probe", seconds, 0.0, Store(folder)), was_stored)


def test_a_clock_records_stages_and_tells_of_each_end(tmp_path: Path) -> None:
    events: list[Progress | StageEnded] = []
    clock = StageClock(events.append)
    clock.end_stage("source")
    clock.end_stage("probes", [done(tmp_path, 2.0, True), done(tmp_path, 3.0, True)], flops=7)
    clock.end_stage("features", warning="w", results=[done(tmp_path, 1.0, True), done(tmp_path, 1.0, False)])
    assert events == [StageEnded("source"), StageEnded("probes", was_stored=True), StageEnded("features", warning="w")]
    source, probes, features = clock.stages
    assert source.work_seconds == source.elapsed_seconds  # it has no tasks
    assert (probes.work_seconds, probes.flops, probes.was_stored) == (5.0, 7, True)
    assert not features.was_stored  # one of its tasks was done now
    assert probes.elapsed_seconds < probes.work_seconds


def test_needs_are_those_of_every_method() -> None:
    assert join_needs() == frozenset()
    assert join_needs("cases", "herding") == join_needs("cases") | join_needs("herding")


def test_a_machine_is_described_without_its_name() -> None:
    machine = describe_machine("cpu", 3, {"net": "contiguous"})
    assert (machine.n_workers, machine.computations) == (3, {"net": "contiguous"})
    assert set(machine.libraries) == set(LIBRARIES)
    assert platform.node() not in machine.model_dump().values()


def test_options_are_the_fields_of_an_execution() -> None:
    assert list(Options.__annotations__) == [*(each.name for each in fields(Execution)), "quiet"]
