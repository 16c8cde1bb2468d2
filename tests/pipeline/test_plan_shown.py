"""What plans say to people: in Python, and on the command line, the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import proxyds
from proxyds.cli.results import print_build_plan, print_check_plan
from proxyds.pipeline.plan import PlannedRuns


def test_a_plan_says_what_the_command_prints(
    write_recipe_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = proxyds.plan_build(write_recipe_file(), device="cpu", workers=1)
    print_build_plan(plan, as_json=False)
    assert capsys.readouterr().out == plan.describe(None) + "\n"
    assert "probes to train" in str(plan)
    assert "nothing was trained" in str(plan)
    check = proxyds.CheckPlan(plan.architectures, [PlannedRuns("full", 1.0, 8, 0, None, None)], n_workers=2)
    print_check_plan(check, as_json=False)
    assert capsys.readouterr().out == check.describe(None) + "\n"
    assert "trainings of the check" in str(check)
    for each in (plan, check):
        assert len(repr(each)) < 150
        assert "4 architectures" in repr(each)
