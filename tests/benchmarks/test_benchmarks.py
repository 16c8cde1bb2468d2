"""The committed measurements are whole and reach what they must, and the benchmarks run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import drawing, scale, timing

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"


def run_module(name: str, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def test_the_committed_speed_is_whole() -> None:
    report = json.loads((RESULTS / "cpu.json").read_text(encoding="utf-8"))
    assert (RESULTS / "cpu.md").read_text(encoding="utf-8") == timing.render(report)
    assert sorted({int(row["row"]) for row in report["rows"]}) == list(range(1, 12))
    assert report["seconds"] < 25 * 60


@pytest.mark.parametrize(("instructions", "least"), [("amx", 1.4), ("avx512", 1.1)])
def test_the_committed_speed_in_bfloat16_is_whole(instructions: str, least: float) -> None:
    report = json.loads((RESULTS / f"cpu-12-{instructions}.json").read_text(encoding="utf-8"))
    assert (RESULTS / f"cpu-12-{instructions}.md").read_text(encoding="utf-8") == timing.render(report)
    assert {row["row"] for row in report["rows"]} == {"12"}
    assert min(row["ratio"] for row in report["rows"]) > least


def test_the_committed_scale_reaches() -> None:
    report = json.loads((RESULTS / "scale.json").read_text(encoding="utf-8"))
    assert (RESULTS / "scale.md").read_text(encoding="utf-8") == scale.render_all(report)
    small, large = report["runs"][:2]
    assert (small["n_train"], large["n_train"], small["n_evaluation"]) == (1_280_000, 5_120_000, 50_000)
    assert sum(small["seconds"].values()) < 300
    assert max(small["together_bytes"], large["together_bytes"]) < 2e9
    assert large["together_bytes"] < 1.1 * small["together_bytes"]


def test_what_a_larger_data_set_would_cost_by_hand() -> None:
    rates = {"decode": 100.0, "nearest": 1e9, "draw": 1e-6, "tables": 2e-6}
    task = scale.Task("x", 1_000_000, 1000, 224, 10)
    hours = scale.expect(task, rates, 8)
    assert hours["decode"] == pytest.approx(1_001_000 / 100 / (8 * 16) / 3600)
    assert hours["probes"] == pytest.approx((3 * 1.125 + 1) * 8.2e9 * 1e6 * 10 / 8 / 150e12 / 3600)
    assert hours["nearest"] == pytest.approx(2 * 65 * 1e6 * 1000 / 1e9 / 128 / 3600)
    assert hours["draw and tables"] == pytest.approx(3 / 3600)
    assert hours["check"] == pytest.approx(16 / 3 * 3 * 8.2e9 * 1e6 * 10 * 3.6 / 8 / 150e12 / 3600)
    assert scale.expect(task, rates, 64)["check"] == pytest.approx(3 * 8.2e9 * 1e6 * 10 / 150e12 / 3600)


@pytest.mark.slow
def test_scale_is_measured_in_small(tmp_path: Path) -> None:
    done = run_module("scale", "--run", 20000, 500, 1, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "scale.json").read_text())["runs"]
    assert run["n_selected"] == 1000
    assert run["table_bytes"] > 20000 * 100
    assert 100e6 < run["largest_bytes"] <= run["together_bytes"] + 1e9
    shown = (tmp_path / "scale.md").read_text()
    assert "| 20,000 | 500 | 1 |" in shown
    assert "20,000 and at 40,000 streamed samples" in shown


def test_what_a_draw_takes_by_hand() -> None:
    found = drawing.compare_sizes((100, 300), {"easier": 1500}, {"easier": 3500})
    assert (found["bytes_a_sample"], found["fixed_bytes"]) == ({"easier": 10}, {"easier": 500})
    assert "| `easier` | answers | 10 | 0 MB |" in drawing.render_draws(found)


def test_a_row_says_whether_it_reaches() -> None:
    faster = timing.compare_seconds("1", "x", [1.0, 2.0, 1.0], [2.0, 6.0, 2.5], "y", 2.5)
    assert faster.ratio == 2.5
    assert faster.reaches
    slower = timing.compare_rates("1", "x", [1.0, 2.0], [2.0, 6.0], "y", "images/s", 0.5)
    assert slower.ratio == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert not slower.reaches
    most = timing.Row("9", "x", 1.0, 4.0, "y", "s", 0.25, [0.25], 0.3, at_least=False)
    assert most.reaches
    report = timing.start_report("CPU")
    report.rows += [faster, slower, most]
    shown = timing.render(json.loads(json.dumps(timing.asdict(report))))
    assert shown.count("missed") == 1
    assert "| **2.50** (2.00 to 3.00, 3) | 2.5 |" in shown
    assert "at most 0.3" in shown


def test_turns_go_both_ways() -> None:
    order: list[str] = []
    contenders = [lambda name=name: order.append(name) or 1.0 for name in "ab"]
    assert timing.take_turns(contenders, 3) == [[1.0] * 3] * 2
    assert "".join(order) == "abbaab"


@pytest.mark.e2e
def test_rows_can_be_measured_one_by_one_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    ran = run_module("cpu", "--only", "4", "11", "-o", tmp_path)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "cpu-4-11.json").read_text())
    assert [row["row"] for row in report["rows"]] == ["4"]
    assert any("row 11 builds cifar10-small" in reason for reason in report["left_out"])


def test_a_row_is_shown_with_its_spread() -> None:
    report = timing.start_report("CPU")
    report.rows.append(timing.Row("9", "x", 1.0, 4.0, "y", "s", 0.0123, [0.0123, 0.3], 0.3, at_least=False))
    shown = timing.render(timing.asdict(report))
    assert shown.startswith("| | what |")
    assert "**0.012** (0.012 to 0.30, 2)" in shown


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", [["train", "PIXELS", "8", "0", "2"], ["matmul"]])
def test_yardsticks_print_a_rate(arguments: list[str], tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "pixels.npy", np.zeros((1000, 3, 32, 32), np.uint8))
    given = [str(tmp_path / "pixels.npy") if argument == "PIXELS" else argument for argument in arguments]
    ran = run_module("yardsticks", *given)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout.split()[-1]) > 0
