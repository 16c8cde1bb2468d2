"""The command line as a user runs it, each command in a process of its own that is forked from one where torch is imported already.

A fresh interpreter takes three seconds to import torch and what stands on it; a fork takes a few hundredths of a second. `tests/preloaded.py` says
what is there already.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_COMMAND = "from proxyds.cli.main import main\nmain()"
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.preloaded"])


def run_forked(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], first: str = "", seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs `proxyds` with some arguments in a folder; after some Python, if told.

    Raises:
        TimeoutError: It has not ended within so many seconds.
    """
    return _fork(["proxyds", *arguments], folder, environment, f"{first}\n{_COMMAND}", seconds)


def run_forked_python(code: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs some Python in a folder; its warnings are errors.

    Raises:
        TimeoutError: It has not ended within ten minutes.
    """
    return _fork(["-c"], folder, {**environment, "PYTHONWARNINGS": "error"}, code, 600)


def _fork(
    arguments: list[str], folder: Path, environment: Mapping[str, str], code: str, seconds: float
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place, "stdout"), Path(place, "stderr")]
        process = _FORKS.Process(target=_run, args=(arguments, str(folder), dict(environment), code, outputs))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"{' '.join(arguments)}: still running after {seconds} seconds")
        exit_code = process.exitcode
        assert exit_code is not None
        return subprocess.CompletedProcess(arguments, exit_code, *(path.read_text("utf-8") for path in outputs))


def _run(arguments: list[str], folder: str, environment: dict[str, str], code: str, outputs: list[Path]) -> None:
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
    sys.argv = arguments
    exit_code = 0
    try:
        if os.environ.get("PYTHONWARNINGS") == "error":
            warnings.simplefilter("error")
        sys.modules["__main__"] = program = ModuleType("__main__")
        exec(compile(code, "<string>", "exec", dont_inherit=True), vars(program))
    except SystemExit as ended:
        exit_code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as an interpreter prints it
        exit_code = 1
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(exit_code)


CLIENT = """\
#!{python} -IS
import json, os, socket, sys
asking = socket.socket(socket.AF_UNIX)
asking.connect({address!r})
asking.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
asking.shutdown(socket.SHUT_WR)
code, out, err = json.load(asking.makefile())
print(out, end="", flush=True)
print(err, end="", file=sys.stderr, flush=True)
sys.exit(code)
"""


class _Forks(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        arguments, folder, environment = json.load(self.rfile)
        done = run_forked(arguments, Path(folder), environment)
        self.wfile.write(json.dumps([done.returncode, done.stdout, done.stderr]).encode())


@contextmanager
def install_forked(program: Path) -> Iterator[None]:
    """Makes a program `proxyds` for scripts whose every call is forked; it works until the block ends."""
    with tempfile.TemporaryDirectory() as place:
        address = f"{place}/forks"
        program.write_text(CLIENT.format(python=sys.executable, address=address))
        program.chmod(0o755)
        with socketserver.ThreadingUnixStreamServer(address, _Forks) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield
            server.shutdown()
