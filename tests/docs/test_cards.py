"""Cards that keep their runs say what these give when they are weighed again; what a card lists is what its proxy holds."""

from __future__ import annotations

from pathlib import Path

import pytest

import proxyds
from proxyds.artifact.manifest import INDEX
from proxyds.pipeline.audit import audit_index
from tests.docs.cards import CARDS, RUNS, weigh_again

WITH_INDEX = sorted(path.parent for path in CARDS.glob(f"*/{INDEX}"))
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


@pytest.mark.parametrize("card", WITH_INDEX, ids=lambda card: card.name)
def test_an_index_of_a_card_is_what_its_manifest_and_recipe_say(card: Path) -> None:
    manifest, indexes = audit_index(card)
    counts = {"data": manifest.counts.proxy, "validation": manifest.counts.validation}
    assert {table: index.num_rows for table, index in indexes.items()} == {k: n for k, n in counts.items() if n}


def test_the_demo_is_made_from_its_card_alone(tmp_path: Path) -> None:
    assert CARDS / "digits" in WITH_INDEX
    made, kept = (
        proxyds.read_manifest(proxyds.apply(CARDS / "digits", tmp_path / "p").folder),
        proxyds.read_manifest(CARDS / "digits"),
    )
    assert made.files[INDEX] == kept.files[INDEX]
    assert made.counts == kept.counts
