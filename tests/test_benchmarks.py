"""The README's table of speed is the committed measurement, and the benchmark runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxyds.methods import METHODS

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "tests" / "benchmarks"


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import timing

    return timing


def test_the_readme_shows_the_committed_measurement(timing) -> None:
    report = json.loads((BENCHMARKS / "results" / "cpu.json").read_text(encoding="utf-8"))
    shown = timing.render(report)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.partition(timing.MARKS[0])[2].partition(timing.MARKS[1])[0].strip() == shown.strip()
    assert (BENCHMARKS / "results" / "cpu.md").read_text(encoding="utf-8") == shown
    assert sorted({int(row["row"]) for row in report["rows"]}) == list(range(1, 12))
    assert report["seconds"] < 25 * 60


def test_the_readme_shows_what_was_measured_of_scale(timing) -> None:
    import scale

    report = json.loads((BENCHMARKS / "results" / "scale.json").read_text(encoding="utf-8"))
    shown = scale.render_all(report)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.partition(scale.MARKS[0])[2].partition(scale.MARKS[1])[0].strip() == shown.strip()
    assert (BENCHMARKS / "results" / "scale.md").read_text(encoding="utf-8") == shown
    small, large = report["runs"][:2]
    assert (small["n_train"], large["n_train"], small["n_evaluation"]) == (1_280_000, 5_120_000, 50_000)
    assert sum(small["seconds"].values()) < 300
    assert max(small["together_bytes"], large["together_bytes"]) < 2e9
    assert large["together_bytes"] < 1.1 * small["together_bytes"]


def test_what_a_larger_data_set_would_cost_by_hand(timing) -> None:
    import scale

    rates = {"decode": 100.0, "nearest": 1e9, "draw": 1e-6, "tables": 2e-6}
    task = scale.Task("x", 1_000_000, 1000, 224, 10)
    hours = scale.expect(task, rates, 8)
    assert hours["decode"] == pytest.approx(1_001_000 / 100 / (8 * 16) / 3600)
    assert hours["probes"] == pytest.approx((3 * 1.125 + 1) * 8.2e9 * 1e6 * 10 / 8 / 150e12 / 3600)
    assert hours["nearest"] == pytest.approx(2 * 65 * 1e6 * 1000 / 1e9 / 128 / 3600)
    assert hours["draw and tables"] == pytest.approx(3 / 3600)
    assert hours["check"] == pytest.approx(16 / 3 * 3 * 8.2e9 * 1e6 * 10 * 3.6 / 8 / 150e12 / 3600)
    assert scale.expect(task, rates, 64)["check"] == pytest.approx(3 * 8.2e9 * 1e6 * 10 / 150e12 / 3600)


def test_scale_is_measured_in_small(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "scale.py"), "--run", "20000", "500", "1", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "scale.json").read_text())["runs"]
    assert run["n_selected"] == 1000
    assert run["table_bytes"] > 20000 * 100
    assert 100e6 < run["largest_bytes"] <= run["together_bytes"] + 1e9
    assert "| 20,000 | 500 | 1 |" in (tmp_path / "scale.md").read_text()


def test_the_memory_of_a_draw_is_that_of_what_its_method_asks_for(timing) -> None:
    import drawing

    of_method = drawing.measure_draws(20_000)["bytes_a_sample"]
    assert set(METHODS) - set(of_method) == {"random", "stratified", "cases", "cases-stratified"}
    held = 4 * drawing.WIDTH  # features alone
    assert all((of_method[name] > held) == ("features" in METHODS[name].needs) for name in of_method)
    assert min(of_method.values()) > 4  # an answer of one epoch
