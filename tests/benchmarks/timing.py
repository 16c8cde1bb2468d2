"""How rows are measured and told: contenders take turns in one run, and a ratio is the median of the turns' own ratios."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "webdataset", "datasets", "pyarrow", "pillow")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        row: Its number in the table.
        what: What is compared.
        ours: Median of what proxyds does.
        yardstick: Median of what it is compared with.
        yardstick_is: What that is.
        unit: Of both.
        ratio: Median of the turns' ratios; above 1 is better where `at_least`, below 1 where not.
        ratios: Of every turn.
        reach: The ratio to be reached.
        at_least: Whether the ratio must be at least that, or at most.
        aim: What would be better still.
        note: What a reader should know.
    """

    row: str
    what: str
    ours: float
    yardstick: float
    yardstick_is: str
    unit: str
    ratio: float
    ratios: list[float]
    reach: float | None
    at_least: bool = True
    aim: float | None = None
    note: str = ""

    @property
    def reaches(self) -> bool | None:
        """Whether the row reaches; None where nothing is to be reached."""
        if self.reach is None:
            return None
        return self.ratio >= self.reach if self.at_least else self.ratio <= self.reach


@dataclass
class Report:
    """A run of the benchmark.

    Attributes:
        title: Which.
        machine: Processor, cores, device.
        versions: Of Python and libraries.
        date: Of the run.
        seconds: That it took.
        rows: In the order of the table.
        left_out: Rows that could not be measured here, and why.
    """

    title: str
    machine: str
    versions: dict[str, str]
    date: str
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def start_report(title: str, device: str = "") -> Report:
    """A report with this machine and its libraries, without rows."""
    machine = f"{os.cpu_count()} cores of {processor()}" + (f", {device}" if device else "")
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    return Report(title, machine, versions, datetime.now(UTC).date().isoformat())


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def take_turns(contenders: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Measures contenders one after the other, every second time in the reverse order; returns each one's figures."""
    figures: list[list[float]] = [[] for _ in contenders]
    for turn in range(repeats):
        places = range(len(contenders)) if turn % 2 == 0 else reversed(range(len(contenders)))
        for place in places:
            figures[place].append(contenders[place]())
    return figures


def seconds_of(work: Callable[[], object], times: int = 1) -> Callable[[], float]:
    """Makes a contender whose figure is the seconds of some work."""

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - started) / times

    return measure


def compare_seconds(
    row: str,
    what: str,
    ours: list[float],
    yardstick: list[float],
    yardstick_is: str,
    reach: float | None,
    **more: object,
) -> Row:
    """A row of two lists of seconds, of the same turns: how many times as fast ours is."""
    ratios = [theirs / mine for mine, theirs in zip(ours, yardstick, strict=True)]
    median = statistics.median
    return Row(row, what, median(ours), median(yardstick), yardstick_is, "s", median(ratios), ratios, reach, **more)


def compare_rates(
    row: str,
    what: str,
    ours: list[float],
    yardstick: list[float],
    yardstick_is: str,
    unit: str,
    reach: float | None,
    **more: object,
) -> Row:
    """A row of two lists of rates, of the same turns."""
    ratios = [mine / theirs for mine, theirs in zip(ours, yardstick, strict=True)]
    median = statistics.median
    return Row(row, what, median(ours), median(yardstick), yardstick_is, unit, median(ratios), ratios, reach, **more)


def run_yardstick(*arguments: object) -> float:
    """Runs one of `yardsticks.py` in a process of its own, as a user would, and returns the figure that it prints last."""
    command = [sys.executable, "-m", "tests.benchmarks.yardsticks", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=clean_environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return float(done.stdout.split()[-1])


def clean_environment() -> dict[str, str]:
    """This process's environment without what sets the threads and the memory of others."""
    settings = ("OMP_", "MKL_", "OPENBLAS_", "MALLOC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


def write_report(report: Report, folder: Path, name: str) -> None:
    """Writes `NAME.json` and `NAME.md`."""
    (folder / f"{name}.json").write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(render(asdict(report)), encoding="utf-8")


def render(report: dict) -> str:
    """A report as markdown, from what its JSON holds."""
    lines = [
        "| | what | proxyds | yardstick | | ratio | to reach |",
        "|---|---|---|---|---|---|---|",
    ]
    for fields in report["rows"]:
        row = Row(**fields)
        low, high = min(row.ratios), max(row.ratios)
        spread = f" ({tell_ratio(low)} to {tell_ratio(high)}, {len(row.ratios)})" if len(row.ratios) > 1 else ""
        reach = "" if row.reach is None else f"{'' if row.at_least else 'at most '}{row.reach:g}"
        reach += f", aim {row.aim:g}" if row.aim is not None else ""
        missed = "" if row.reaches is not False else ", **missed**"
        ratio = f"**{tell_ratio(row.ratio)}**{spread}"
        lines.append(
            f"| {row.row} | {row.what}{f' ({row.note})' if row.note else ''} | {tell(row.ours, row.unit)} | "
            f"{tell(row.yardstick, row.unit)} | {row.yardstick_is} | {ratio} | {reach}{missed} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines += ["", f"{report['machine']}; {versions}; {report['date']}, {report['seconds'] / 60:.0f} min."]
    lines += [f"Not measured: {reason}." for reason in report["left_out"]]
    return "\n".join([*lines, ""])


def tell(figure: float, unit: str) -> str:
    """A figure with three digits and its unit."""
    if unit == "s" and figure < 1:
        return f"{figure * 1000:.3g} ms"
    return f"{figure:,.0f} {unit}" if figure >= 1000 else f"{figure:.3g} {unit}"


def tell_ratio(ratio: float) -> str:
    """A ratio with two decimals, a small one with two digits."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
