"""Cards that keep their runs say what these give when they are weighed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.cards import CARDS, RUNS, weigh_again

WITH_RUNS = sorted(path.parent for path in CARDS.glob(f"*/{RUNS}"))


@pytest.mark.parametrize("card", WITH_RUNS, ids=lambda card: card.name)
def test_a_card_says_what_its_runs_give(card: Path) -> None:
    said, weighed = weigh_again(card)
    shown = (card / "README.md").read_text(encoding="utf-8")
    assert said.verdict == weighed.verdict
    assert shown.count(f"**{weighed.verdict[0].upper()}{weighed.verdict[1:]}.**") == 1
    assert len(said.methods) == len(weighed.methods)
    for then, now in zip(said.methods, weighed.methods, strict=True):
        assert (then.method, then.ratio, then.ranked_by) == (now.method, now.ratio, now.ranked_by)
        for name, estimate in now.statistics.items():
            assert then.statistics[name].shown() == estimate.shown(), (now.method, name)


def test_the_card_of_the_demo_keeps_its_runs() -> None:
    assert CARDS / "digits" in WITH_RUNS
