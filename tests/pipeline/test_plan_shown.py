"""What plans say to people: in Python, and on the command line, the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import proxyds
from tests.conftest import TINY_RECIPE, Run

TIMES = re.compile(r"[0-9.]+ (?:h|min|s)\b ?")


def test_a_plan_is_printed_as_the_command_prints_it(write_recipe_file: Callable[..., Path], run_proxyds: Run) -> None:
    recipe = write_recipe_file(TINY_RECIPE.replace("depth: 8", "depth: [8, 14]") + "check: {draws: 2, full_seeds: 2}\n")
    plan = proxyds.plan_build(recipe, device="cpu", workers=1)
    shown = run_proxyds("build", recipe, "--dry-run", "-q", "--workers", "1", "--device", "cpu").stdout
    assert TIMES.sub("", plan.describe(None)) == TIMES.sub("", shown).rstrip("\n")
    assert "nothing was trained" in str(plan)
    assert "trainings of the check" in str(plan)
    for each in (plan, plan.check):
        assert len(repr(each)) < 150
        assert "8 architectures" in repr(each)
        assert "architectures to rank" in str(plan.check)
