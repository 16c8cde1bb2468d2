"""The command line as a user runs it, each command in a process of its own that is forked from one where torch is imported already.

A fresh interpreter takes three seconds to import torch and what stands on it; a fork takes a few hundredths of a second. `tests/preloaded.py` says
what is there already.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.preloaded"])


def run_forked(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], first: str = "", seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs `proxyds` with some arguments in a folder; after some Python, if told.

    Raises:
        TimeoutError: It has not ended within so many seconds.
    """
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place, "stdout"), Path(place, "stderr")]
        process = _FORKS.Process(target=_run, args=(list(arguments), str(folder), dict(environment), first, outputs))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"proxyds {' '.join(arguments)}: still running after {seconds} seconds")
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(list(arguments), code, *(path.read_text("utf-8") for path in outputs))


def _run(arguments: list[str], folder: str, environment: dict[str, str], first: str, outputs: list[Path]) -> None:
    for path, descriptor in zip(outputs, (1, 2), strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [
        each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each
    ]  # as an interpreter starts
    sys.argv = ["proxyds", *arguments]
    code = 1
    try:
        exec(first, {})
        from proxyds.cli.main import main

        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter prints it
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
