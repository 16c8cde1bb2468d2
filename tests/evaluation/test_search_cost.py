"""What a search would have paid and lost, by hand."""

from __future__ import annotations

import pytest

from proxyds.artifact.evidence_records import HALVING, SearchRecord
from proxyds.artifact.ranking_table import (
    BY_ACCURACY,
    BY_BOTH,
    BY_LOSS,
    FEWER_EPOCHS,
    FLOPS,
    FULL,
    PROXY,
    RANDOM,
    RankedBy,
)
from proxyds.recipe.models import Check
from proxyds.section import CodeSpec
from tests.evaluation.made_up import SOFT, Rows, everything, rows_of, stage, weigh

FULL_ACCURACY = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def priced(dataset: str, flops: int, accuracies: list[list[float]], **about: float) -> Rows:
    return [{**row, "run_flops": flops} for row in rows_of(dataset, accuracies, **about)]


def found_in(
    searches: tuple[SearchRecord, ...], method: str, ranked_by: RankedBy = BY_ACCURACY
) -> list[tuple[int, float, float]]:
    return [
        (each.n_finalists, each.flops, pytest.approx(each.lost))
        for each in searches
        if (each.method, each.ranked_by) == (method, ranked_by)
    ]


def test_a_search_pays_for_choosing_for_every_training_and_for_its_finalists() -> None:
    proxy = [0.1, 0.2, 0.3, 0.6, 0.5, 0.4]  # names the fourth as the best; the best is third
    rows = priced(FULL, 100, [FULL_ACCURACY] * 2)
    rows += priced(PROXY, 10, [proxy] * 2) + priced(RANDOM, 10, [proxy] * 2) + priced(FEWER_EPOCHS, 20, [proxy] * 2)
    searches = weigh(rows, stages=[stage(1.0, 7)]).searches
    lost = {1: 0.95 - 0.8, 3: 0.0, 5: 0.0}
    assert found_in(searches, FULL) == [(6, 600, 0)]
    assert found_in(searches, PROXY) == [(k, 7 + 6 * 10 + k * 100, of) for k, of in lost.items()]
    assert found_in(searches, RANDOM) == [(k, 6 * 10 + k * 100, of) for k, of in lost.items()]  # asks no probe
    assert found_in(searches, FEWER_EPOCHS) == [(k, 6 * 20 + k * 100, of) for k, of in lost.items()]
    assert found_in(searches, FLOPS) == [(k, k * 100, 0) for k in lost]  # the dearest is the best
    assert [each[:2] for each in found_in(searches, PROXY, BY_BOTH)] == [(1, 167), (3, 367), (5, 567)]
    assert not found_in(searches, HALVING)  # one budget


def test_every_way_that_learns_soft_labels_pays_for_the_probe_that_gives_them_by_hand() -> None:
    rows = priced(FULL, 100, [FULL_ACCURACY] * 2)
    rows += priced(PROXY, 10, [FULL_ACCURACY] * 2) + priced(RANDOM, 10, [FULL_ACCURACY] * 2)
    rows += priced(FEWER_EPOCHS, 10, [FULL_ACCURACY] * 2, ratio=0.1)
    rows += priced(FEWER_EPOCHS, 30, [FULL_ACCURACY] * 2, ratio=0.3)
    searches = weigh(rows, **SOFT).searches
    paid = {
        name: next(each.flops for each in searches if (each.method, each.n_finalists) == (name, 1))
        for name in (FLOPS, PROXY, RANDOM, FEWER_EPOCHS, HALVING)
    }
    assert paid == {
        FLOPS: 100,
        PROXY: 43 + 5 + 6 * 10 + 100,  # both probes chose its samples
        RANDOM: 40 + 5 + 6 * 10 + 100,
        FEWER_EPOCHS: 40 + 5 + 6 * 10 + 100,
        HALVING: 40 + 5 + 6 * 10 + 3 * 30 + 100,
    }
    by_trainer = weigh(rows, Check(trainer=CodeSpec(name="t", sha256="0" * 64)), **SOFT).searches  # which learns labels
    assert found_in(by_trainer, RANDOM)[0][1] == 6 * 10 + 100


def test_what_was_measured_elsewhere_has_no_price() -> None:
    rows = everything()
    for row in rows:
        row.update(run_flops=None, n_epochs=None, origin="table t.csv")
    assert weigh(rows).searches == ()


def test_successive_halving_trains_half_on_each_larger_budget_by_hand() -> None:
    small, large = [[0.6, 0.5, 0.4, 0.3, 0.2, 0.1]], [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]
    rows = priced(FULL, 100, [FULL_ACCURACY]) + priced(PROXY, 10, [FULL_ACCURACY])
    rows += priced(FEWER_EPOCHS, 10, small, ratio=0.1) + priced(FEWER_EPOCHS, 30, large, ratio=0.3)
    # 6 at 10, the three best of them at 30, of which the best: architecture 2; with 5 finalists no half is left out
    halved = {1: (6 * 10 + 3 * 30 + 100, 0.95 - 0.7), 3: (60 + 90 + 300, 0.95 - 0.7), 5: (60 + 150 + 500, 0.95 - 0.9)}
    expected = [(k, flops, pytest.approx(lost)) for k, (flops, lost) in halved.items()]
    assert [
        (each.n_finalists, each.flops, each.lost) for each in weigh(rows).searches if each.method == HALVING
    ] == expected


def test_successive_halving_goes_by_loss_where_networks_learned_soft_labels() -> None:
    wrong, right = [FULL_ACCURACY[::-1]], [[1 - each for each in FULL_ACCURACY]]
    rows = priced(FULL, 100, [FULL_ACCURACY])
    for each, ratio in ((PROXY, 0.1), (FEWER_EPOCHS, 0.1), (FEWER_EPOCHS, 0.3)):
        of_set = priced(each, 10, wrong, ratio=ratio)
        rows += [row | {"loss": loss} for row, loss in zip(of_set, right[0], strict=True)]
    assert [each[2] for each in found_in(weigh(rows, **SOFT).searches, HALVING, BY_LOSS)] == [0, 0, 0]
    assert found_in(weigh(rows).searches, HALVING)[0][2] != 0


def test_halving_that_leaves_nobody_out_is_no_search() -> None:
    five = [FULL_ACCURACY[:5]]
    rows = priced(FULL, 100, five) + priced(PROXY, 10, five)
    rows += priced(FEWER_EPOCHS, 10, five, ratio=0.1) + priced(FEWER_EPOCHS, 30, five, ratio=0.3)
    assert [each[0] for each in found_in(weigh(rows).searches, HALVING)] == [1, 3]


def test_another_ratio_is_no_way_to_search_and_a_budget_without_accuracies_none_to_halve_at() -> None:
    rows = priced(FULL, 100, [FULL_ACCURACY]) + priced(PROXY, 10, [FULL_ACCURACY])
    rows += priced(FEWER_EPOCHS, 10, [FULL_ACCURACY]) + priced(PROXY, 30, [FULL_ACCURACY], ratio=0.3)
    rows += [{**row, "accuracy": None} for row in priced(FEWER_EPOCHS, 30, [FULL_ACCURACY], ratio=0.3)]
    searches = weigh(rows, stages=[stage(1.0, 5)]).searches
    assert found_in(searches, PROXY) == [(1, 165, 0), (3, 365, 0), (5, 565, 0)]
    assert not found_in(searches, HALVING)
