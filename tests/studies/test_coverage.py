"""The simulation of what intervals hold, in short; and its page."""

from __future__ import annotations

import numpy as np
import pytest

from proxyds.evaluation.intervals import subtract
from tests.studies import coverage
from tests.studies.coverage import NOISE, World, count, list_worlds, render_page, subtract_taus


@pytest.mark.parametrize("noise", ["independent", "shared"])
def test_intervals_of_made_up_checks_hold_the_truth(noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(coverage.N_CHECKS, 12, 80)
    rows = count(World(noise, 12, 3, 3), map)
    assert rows["tau .75"]["truth"] == pytest.approx(0.75, abs=0.04)
    assert rows["difference 0"]["truth"] == pytest.approx(0, abs=0.03)
    for name, row in rows.items():
        assert row["held"] >= 0.875, name  # three standard errors below .95
    assert rows["difference 0"]["above_zero"] <= 0.08
    assert rows["difference .15"]["above_zero"] >= 0.1


def test_a_difference_is_not_held_where_it_is_not() -> None:
    """Intervals of a null difference leave out .3: the simulation can fail."""
    world = World("independent", 24, 3, 2, noise_of_better=NOISE)
    ends = [subtract(*subtract_taus(world, number)).as_difference() for number in range(30)]
    assert (
        np.mean([each.low is not None and each.high is not None and each.low <= 0.3 <= each.high for each in ends])
        < 0.2
    )


def test_checks_are_the_same_every_time() -> None:
    first, again = (World("shared", 12, 3, 2).simulate(number) for number in (5, 5))
    assert (first.better == again.better).all()
    assert not (World("shared", 12, 3, 2).simulate(6).better == first.better).any()


def test_the_page_is_current() -> None:
    import json

    results = json.loads(coverage.RESULTS.read_text())
    assert coverage.PAGE.read_text(encoding="utf-8") == render_page(results)
    assert set(results["worlds"]) == {world.name for world in list_worlds()}
