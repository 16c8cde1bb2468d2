"""What each stage took: the clock of this build, and the time of the work whenever it was done."""

from __future__ import annotations

import time
from collections.abc import Sequence

from proxyds.artifact.manifest import StageRecord
from proxyds.runtime.task import Done
from proxyds.selection.records import OnProgress, Progress


class Ledger:
    """Records stages that follow one another; a stage begins where the one before ended.

    Args:
        on_progress: Told of every stage that ends.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self.stages: list[StageRecord] = []
        self._on_progress = on_progress
        self._started = time.perf_counter()

    def end_stage(self, name: str, results: Sequence[Done] = (), flops: int = 0) -> None:
        """Ends a stage.

        Args:
            name: Of the stage.
            results: Of its tasks, if it has any.
            flops: Floating-point operations of its networks.
        """
        now = time.perf_counter()
        elapsed = now - self._started
        record = StageRecord(
            stage=name,
            work_seconds=sum(result.entry.seconds for result in results) if results else elapsed,
            elapsed_seconds=elapsed,
            flops=flops,
            was_stored=bool(results) and all(result.was_stored for result in results),
        )
        self.stages.append(record)
        self._started = now
        self._on_progress(Progress(name, "", 1, 1, "found done" if record.was_stored else ""))
