"""Shows on a machine with a GPU what works and how fast: `make gpu-check`; `docs/gpu.md` says how to send its table.

The machine needs Python 3.11 or newer and torch with CUDA; what else is missing is installed from a folder of wheels into a folder of
its own (`--wheels`), since such a machine may reach no registry. Every step runs in a process of its own: one that fails is named, and
the others run all the same. `--rehearse` runs the same code on the CPU, in small.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = {
    "tests": "the tests marked gpu",
    "graph": "a step as a CUDA graph, one kernel at a time, and as a plain loop",
    "speed": "speed beside a plain loop and the device's own rate",
    "several": "several trainings at once on one device",
    "digits": "scikit-learn's digits, built and checked here and on the CPU",
    "cifar10": "10,000 images of CIFAR-10, built and checked here and on the CPU",
}
MINUTES = 8
LONGEST_STEP = 240
"""Seconds that a step may take, or what is left of all minutes where that is less."""


@dataclass
class Step:
    """What a step found.

    Attributes:
        name: Of `STEPS`.
        findings: Rows of `gpu_steps.Finding`, as far as it came.
        failure: Why it ended early; empty if it did not.
        seconds: That it took.
    """

    name: str
    findings: list[dict] = field(default_factory=list)
    failure: str = ""
    seconds: float = 0.0


def run_step(name: str, limit: float, environment: dict[str, str], *, rehearse: bool) -> Step:
    """Runs one step in a process of its own, for so many seconds at most."""
    if limit < 1:
        return Step(name, failure="not begun: the time was used up")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="proxyds-gpu-", ignore_cleanup_errors=True) as folder:
        found = Path(folder) / "findings.jsonl"
        command = [sys.executable, "-m", "tests.benchmarks.gpu_steps", name, str(found)]
        command += ["--rehearse"] if rehearse else []
        environment = {**environment, "TMPDIR": folder}
        with (
            (Path(folder) / "errors").open("w+", encoding="utf-8") as errors,
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=errors, stderr=errors, start_new_session=True
            ) as process,
        ):
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                failure = f"stopped after {limit:.0f} s"
            else:
                errors.seek(0)
                failure = _last_line(errors.read()) if process.returncode else ""
            with suppress(ProcessLookupError):  # what the step started may still be there
                os.killpg(process.pid, signal.SIGKILL)
        lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    return Step(name, [json.loads(line) for line in lines], failure, time.monotonic() - started)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "ended without a word")


def install_wheels(wheels: Path, folder: Path) -> None:
    """Installs all wheels of a folder, and nothing else, into a folder for `PYTHONPATH`."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"--wheels {wheels}: must hold files *.whl, found none; `make gpu-wheels` fetches them")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, *files], check=True)


def render(steps: Sequence[Step], about: str) -> str:
    """Writes the table."""
    rows = ["| step | what | found | |", "|---|---|---|---|"]
    for step in steps:
        for finding in step.findings:
            mark = {True: "ok", False: "**failed**", None: ""}[finding["is_right"]]
            rows.append(f"| {step.name} | {_plain(finding['what'])} | {_plain(finding['found'])} | {mark} |")
        if step.failure:
            rows.append(f"| {step.name} | {STEPS[step.name]} | {_plain(step.failure)} | **failed** |")
    took = ", ".join(f"{step.name} {step.seconds:.0f} s" for step in steps)
    return "\n".join([about, "", *rows, "", f"Took {took}.", ""])


def _plain(text: str) -> str:
    """Makes a text a table's cell that names no folder of this machine."""
    return re.sub(r"(/[^\s/:'\"]+)+/", "", text).replace("|", "\\|")


def failures(steps: Iterable[Step]) -> list[str]:
    """Names what failed."""
    return [
        f"{step.name}: {what}"
        for step in steps
        for what in [
            *(finding["what"] for finding in step.findings if finding["is_right"] is False),
            *([step.failure] if step.failure else []),
        ]
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all steps, prints and writes the table; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheels", type=Path, help="a folder of wheels of what the machine lacks")
    parser.add_argument("--rehearse", action="store_true", help="run on the CPU, in small")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS), help="some steps alone")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"in all, at most (default {MINUTES})")
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu-check.md"), help="where the table goes")
    given = parser.parse_args(arguments)
    ends = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory(prefix="proxyds-gpu-site-") as site:
        places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        if given.wheels is not None:
            install_wheels(given.wheels, Path(site))
            places.insert(0, site)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}
        about = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.gpu_steps", "about", *(["--rehearse"] if given.rehearse else [])],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if about.returncode:
            print(about.stderr, file=sys.stderr)
            return 1
        steps = []
        for name in given.only:
            print(f"{name}: {STEPS[name]} ...", flush=True)
            limit = min(LONGEST_STEP, ends - time.monotonic())
            steps.append(run_step(name, limit, environment, rehearse=given.rehearse))
            for failure in failures(steps[-1:]):
                print(f"  failed: {failure}", flush=True)
            table = render(steps, about.stdout.strip())
            given.out.write_text(table, encoding="utf-8")  # whatever comes next
    failed = failures(steps)
    print(f"\n{table}\n{len(failed)} failed. The table is in {given.out}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
