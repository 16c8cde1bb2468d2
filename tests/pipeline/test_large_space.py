"""A dry run of a space with networks too large to time: their time is FLOPs over the machine's rate, said at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from proxyds.pipeline.plan import plan_build
from proxyds.runtime.storage.store import Store
from proxyds.space.architecture import Architecture
from proxyds.training import job
from proxyds.training.job import TrainingSetup, measure_rate
from tests.conftest import TINY_RECIPE


def test_what_is_too_large_to_time_is_expected_from_its_flops(
    write_recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def expect(setup: TrainingSetup, architecture: Architecture) -> float:
        timed.append(architecture.name)
        return 1e-3

    monkeypatch.setattr(job, "expect_image_seconds", expect)
    text = TINY_RECIPE.replace("depth: 8, base_filters: [4, 8]", "depth: [8, 110], base_filters: [4, 1024]")
    planned = plan_build(write_recipe_file(text), store=Store(tmp_path / "store"), device="cpu", workers=1)
    light, heavy = planned.probes
    assert timed == [light.name]
    assert light.expected_seconds == pytest.approx(1e-3 * light.flops / light.architecture.training_flops)
    (said,) = [each for each in planned.warnings if "too large to time" in each]
    assert heavy.name in said
    assert heavy.flops / 1e13 < heavy.expected_seconds < heavy.flops / 1e8  # at the rate of any machine


def test_the_rate_of_a_machine_is_measured_in_a_moment() -> None:
    assert 1e8 < measure_rate("cpu") < 1e13
