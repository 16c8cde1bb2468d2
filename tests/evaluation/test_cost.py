"""What a proxy costs and saves, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxyds.artifact.ranking_table import FULL, PROXY, RANDOM, make_runs_table
from proxyds.evaluation.cost import weigh_spending
from tests.evaluation.made_up import Rows, everything, rows_of, stage, weigh


def spending_rows(dataset: str, flops: Sequence[int], seconds: Sequence[float], **about: Any) -> Rows:
    """Rows of two architectures; a test takes half a second."""
    rows = rows_of(dataset, [[0.1, 0.2]], costs=[3, 5], **about)
    return [{**row, "run_flops": f, "training_seconds": s} for row, f, s in zip(rows, flops, seconds, strict=True)]


def test_spending_by_hand() -> None:
    rows = [
        *spending_rows(FULL, [1000, 3000], [10.0, 30.0]),
        *spending_rows(PROXY, [100, 300], [2.0, 2.0]),
        *spending_rows(PROXY, [700, 900], [6.0, 8.0], ratio=0.5),  # another size: a part of the check alone
        *spending_rows(RANDOM, [100, 300], [1.0, 3.0]),
    ]
    found = weigh_spending(make_runs_table(rows), 0.1, 1000, 0, [stage(30.0, 4000), stage(15.0, 1000)])
    assert (found.full_flops, found.proxy_flops) == (2000, 200)
    assert (found.full_seconds, found.proxy_seconds) == (20.5, 2.5)  # training and test
    assert found.speed_up == 10  # of training alone
    assert (found.build_flops, found.build_seconds) == (5000, 45)
    assert found.check_flops == 4000 + 400 + 1600 + 400
    assert found.check_seconds == 40 + 4 + 14 + 4 + 8 * 0.5
    assert found.pays_after == 3  # 45 s / 18 s saved each
    assert found.pays_after_with_check == 7  # 45 + 66 s


def test_a_proxy_that_saves_nothing_never_pays() -> None:
    rows = spending_rows(FULL, [1000, 3000], [1.0, 3.0]) + spending_rows(PROXY, [100, 300], [2.0, 2.0])
    found = weigh_spending(make_runs_table(rows), 0.1, 1000, 0, [stage(30.0, 4000)])
    assert found.speed_up == 1
    assert found.pays_after is None
    assert found.pays_after_with_check is None


def test_flops_decide_where_the_full_accuracies_were_known() -> None:
    known = spending_rows(FULL, [10**9] * 2, [10**9] * 2, origin="table t.csv")
    for row in known:
        row.update(run_flops=None, training_seconds=None, test_seconds=None, n_epochs=None, n_steps=None)
    trained = spending_rows(PROXY, [400, 600], [2.0, 4.0], n_epochs=10.0)
    found = weigh_spending(make_runs_table(known + trained), 0.1, 100, 0, [stage(30.0, 7000)])
    assert found.full_flops == (10 * 100 * 3 + 10 * 100 * 5) / 2  # epochs, samples, FLOPs of one sample
    assert (found.full_seconds, found.speed_up) == (None, None)
    assert (found.proxy_flops, found.proxy_seconds) == (500, 3.5)
    assert (found.check_flops, found.check_seconds) == (1000, 7)
    assert found.pays_after == 2  # 7000 / 3500 saved each
    assert found.pays_after_with_check == 3


def test_of_a_trainer_whose_flops_nobody_counts_seconds_decide() -> None:
    rows = [*spending_rows(FULL, [1, 1], [10.0, 30.0]), *spending_rows(PROXY, [1, 1], [2.0, 2.0])]
    for row in rows:
        row.update(run_flops=None, n_epochs=None, n_steps=None)
    unknown = stage(30.0, 0).model_copy(update={"flops": None})
    found = weigh_spending(make_runs_table(rows), 0.1, 1000, 0, [unknown, stage(6.0, 1000)])
    assert (found.full_flops, found.proxy_flops, found.build_flops, found.check_flops) == (None,) * 4
    assert (found.full_seconds, found.proxy_seconds, found.speed_up) == (20.5, 2.5, 10)
    assert (found.pays_after, found.pays_after_with_check) == (2, 5)  # 36 s, and 82 s, of 18 s saved each
    known = spending_rows(FULL, [1, 1], [1.0, 1.0], origin="table t.csv")
    for row in known:
        row.update(run_flops=None, training_seconds=None, test_seconds=None, n_epochs=None, n_steps=None)
    found = weigh_spending(make_runs_table(known + rows[2:]), 0.1, 1000, 0, [unknown])
    assert (found.full_flops, found.pays_after) == (None, None)


def test_runs_of_another_proxy_cost_this_check_nothing() -> None:
    rows = spending_rows(FULL, [10**9] * 2, [10**6] * 2, origin="proxy other 1.0.0") + spending_rows(
        PROXY, [400, 600], [2.0, 4.0], n_epochs=10.0
    )
    found = weigh_spending(make_runs_table(rows), 0.1, 100, 0, [])
    assert (found.full_flops, found.full_seconds) == (10**9, None)
    assert (found.check_flops, found.check_seconds) == (1000, 7)
    assert found.pays_after == 0


def test_accuracies_of_a_table_would_have_cost_the_epochs_of_the_proxys_trainings() -> None:
    of_table = {"origin": "table t.csv", "run_flops": None}
    rows = rows_of(FULL, [[0.1, 0.2]], **of_table) + spending_rows(PROXY, [400, 600], [2.0, 4.0], n_epochs=10.0)
    assert weigh_spending(make_runs_table(rows), 0.1, 100, 0, []).full_flops == 4000


def test_where_nothing_was_trained_nothing_was_spent() -> None:
    of_table = {"origin": "table t.csv", "run_flops": None, "training_seconds": None, "test_seconds": None}
    rows = rows_of(FULL, [[0.1, 0.2]], **of_table) + rows_of(PROXY, [[0.1, 0.2]], **of_table)
    found = weigh_spending(make_runs_table(rows), 0.1, 100, 0, [stage(30.0, 7000)])
    assert (found.full_flops, found.proxy_flops, found.full_seconds, found.proxy_seconds) == (None,) * 4
    assert (found.check_flops, found.check_seconds) == (0, 0)
    assert (found.pays_after, found.pays_after_with_check, found.speed_up) == (None, None, None)
    assert (found.build_flops, found.build_seconds) == (7000, 30)


def test_evidence_holds_what_was_spent() -> None:
    rows = everything()
    stages = [stage(30.0, 7000)]
    assert weigh(rows, stages=stages).spending == weigh_spending(make_runs_table(rows), 0.1, 1000, 359, stages)
