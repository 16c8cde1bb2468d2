"""Probes: what is kept of them besides their weights, and what is said of their accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from proxyds.errors import ChanceLevelError, SaturatedError
from proxyds.runtime.storage.store import Entry, Store
from proxyds.runtime.task import Done
from proxyds.selection.probe import (
    Probe,
    check_above_chance,
    check_some_wrong,
    compare_accuracies,
    find_needed_accuracy,
    open_answers,
    train_probe,
    warn_of_few,
    warn_of_likeness,
    warn_of_small,
    write_answers,
)
from proxyds.selection.records import MEASURES
from tests import ranks


def test_what_a_probe_says_after_each_epoch_is_recorded_and_changes_nothing(tmp_path: Path) -> None:
    asked, plain = tmp_path / "asked", tmp_path / "plain"
    for folder, is_recorded in ((asked, True), (plain, False)):
        folder.mkdir()
        job = ranks.make_probe_job(tmp_path, keep_answers=is_recorded)
        train_probe(folder=folder, report=lambda *_: None, **vars(job))
    assert {file.name for file in asked.iterdir()} - {file.name for file in plain.iterdir()} == {
        "answers.npy",
    }
    weights = [
        load_file(folder / "weights.safetensors") for folder in (asked, plain)
    ]  # whose header has no fixed order
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(held, weights[1][name]) for name, held in weights[0].items())
    recorded = np.load(asked / "answers.npy")
    _, labels = ranks.images()
    assert recorded.shape == (4, ranks.SHORT.epochs, len(labels))
    assert recorded.dtype == np.float32
    at_the_end = recorded[MEASURES.index("margin"), -1] > 0
    assert (at_the_end == (np.load(asked / "predictions.npy") == labels)).all()
    assert (recorded[:, 0] != recorded[:, -1]).any()


def test_answers_are_written_epoch_by_epoch_as_if_they_were_written_at_once(tmp_path: Path) -> None:
    answers = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    np.save(tmp_path / "at-once.npy", answers)
    for epoch in range(3):
        write_answers(tmp_path / "one-by-one.npy", answers[:, epoch], epoch, 3)
    assert (tmp_path / "one-by-one.npy").read_bytes() == (tmp_path / "at-once.npy").read_bytes()


def test_of_answers_in_a_store_what_is_asked_for_is_read(tmp_path: Path) -> None:
    store, said = Store(tmp_path), np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)
    for training in range(2):
        with store.writing("probes", str(training), "probe") as folder:
            np.save(folder / "answers.npy", said[training])
    entries = [store.find("probes", str(training)) for training in range(2)]
    answers = open_answers([entry for entry in entries if entry is not None])
    assert (answers.n_trainings, answers.n_epochs) == (2, 3)
    for place, measure in enumerate(("loss", "entropy", "el2n", "margin")):
        assert (np.stack([*answers.over_epochs(1, measure)]) == said[1, place]).all()
        np.testing.assert_allclose(answers.at(1, measure), said[:, place, 1].mean(axis=0), atol=1e-6)
        assert (answers.at_end(measure) == answers.at(2, measure)).all()
    some = answers.take(np.array([True, False, True, True, False])).take(np.array([False, True, True]))
    assert (next(some.over_epochs(0, "margin")) == said[0, 3, 0, [2, 3]]).all()
    assert (some.at_end("loss") == answers.at_end("loss")[[2, 3]]).all()


def test_a_probe_whose_answers_are_kept_is_another_piece_of_work(tmp_path: Path) -> None:
    asked, plain = (ranks.make_probe_job(tmp_path, keep_answers=is_asked) for is_asked in (True, False))
    assert asked.task.inputs == {**plain.task.inputs, "answers": True}
    assert asked.training_seed == plain.training_seed


def make_probe(folder: Path, wrong: list[int], repeat: int = 0) -> Probe:
    """A probe that is wrong on some of 64 evaluation samples of two labels, 32 each."""
    job = ranks.make_probe_job(folder, repeat=repeat)
    predictions = job.held_out.labels.copy()
    predictions[wrong] = 1 - predictions[wrong]
    done = Done(Entry("probes", "0" * 64, "probe", 1.0, 0.0, Store(folder)), was_stored=False)
    return Probe(job, done, predictions, 1 - len(wrong) / 64, (0.5, 0.4), 1.0)


def right_on(n: int, *wrong: range) -> np.ndarray:
    """On which of n samples a network is right, training by training, that is wrong on some."""
    right = np.ones((len(wrong), n), np.bool_)
    for of_training, samples in zip(right, wrong, strict=True):
        of_training[list(samples)] = False
    return right


def test_accuracies_on_the_same_samples_are_compared_by_those_on_which_networks_differ() -> None:
    # of 100 samples the one alone is right on 2, the other alone on 6: sqrt(8 - 16 / 100) / 100 = sqrt(7.84) / 100
    one, other = right_on(100, range(20, 36)), right_on(100, range(26, 38))
    assert compare_accuracies(one, other) == pytest.approx((0.04, 0.028))
    assert compare_accuracies(other, one) == pytest.approx((-0.04, 0.028))
    assert compare_accuracies(one, one) == (0, 0)
    # all the difference on one side: sqrt(8 - 64 / 100) / 100
    assert compare_accuracies(right_on(100, range(8)), right_on(100, range(0))) == pytest.approx((0.08, 0.0271293))


def test_of_several_trainings_a_samples_difference_is_the_mean() -> None:
    # in the first training the one is wrong on sample 0 alone, in the second on none: differences 1/2, 0, 0, 0
    one, other = right_on(4, range(1), range(0)), right_on(4, range(0), range(0))
    assert compare_accuracies(one, other) == pytest.approx((1 / 8, np.sqrt((1 / 4 / 4 - 1 / 64) / 4)))


def warn(lightest: Sequence[Probe], heaviest: Sequence[Probe], method: str = "cases") -> str:
    return warn_of_likeness(lightest, heaviest, "set more aside", method)


def test_probes_that_cannot_be_told_apart_are_warned_of(tmp_path: Path) -> None:
    heavy = make_probe(tmp_path, [0])
    # of 64 samples the heaviest alone is right on c: c / 64 against 2 sqrt(c - c^2 / 64) / 64, so that c must be above 64 / 17
    said = warn([make_probe(tmp_path, [0, 1, 2])], [heavy])
    assert "too close" in said
    assert "on 0 the lightest alone is right, on 2 the heaviest" in said
    assert "95.3%" in said
    assert "98.4%" in said
    assert "too close" in warn([make_probe(tmp_path, [*range(4)])], [heavy])
    assert warn([make_probe(tmp_path, [*range(5)])], [heavy]) == ""
    assert warn([heavy], [make_probe(tmp_path, [*range(5)])]) == ""  # the other way round they differ, too
    assert "too close" in warn([heavy], [heavy])
    assert "set more aside" in warn([heavy], [heavy])
    assert "method easier" in warn([heavy], [heavy], "easier")
    assert "method" not in warn([heavy], [heavy])


def test_a_heaviest_probe_that_is_always_right_is_warned_of(tmp_path: Path) -> None:
    light, perfect = make_probe(tmp_path, [*range(20)]), make_probe(tmp_path, [])
    said = warn([light], [perfect])
    assert "saturated" in said
    assert "all 64 evaluation samples" in said
    assert "Train shorter" in said
    again, once_wrong = make_probe(tmp_path, [*range(20)], 1), make_probe(tmp_path, [0], 1)
    assert "saturated" not in warn([light, again], [perfect, once_wrong])


def test_methods_that_choose_by_outcomes_need_some_that_are_wrong(tmp_path: Path) -> None:
    perfect, once_wrong = make_probe(tmp_path, []), make_probe(tmp_path, [5])
    for method in ("cases", "cases-stratified"):
        with pytest.raises(SaturatedError, match=r"^probes: .*method cases.*all 64"):
            check_some_wrong([perfect, perfect], method)
        check_some_wrong([once_wrong, perfect], method)
    for method in ("random", "easier", "herding"):
        check_some_wrong([perfect, perfect], method)


def test_a_probe_must_be_three_standard_errors_above_chance(tmp_path: Path) -> None:
    # 0.5 + 3 sqrt(0.25 / 64) = 0.6875, 44 of 64
    assert find_needed_accuracy(0.5, 64) == 0.6875
    assert find_needed_accuracy(0.5, 4) == 1  # not 1.25
    learned, failed = make_probe(tmp_path, [*range(20)]), make_probe(tmp_path, [*range(21)])
    check_above_chance([learned])
    with pytest.raises(ChanceLevelError, match=r"better than chance.*Not so: .*\(67\.2%\)\. No probe learned"):
        check_above_chance([failed])
    with pytest.raises(ChanceLevelError, match=r"Learned: .*\(68\.8%\).*probes\.architectures"):
        check_above_chance([failed, learned])


@pytest.mark.parametrize(
    ("counts", "n_needed"),
    [
        ([3] * 10, None),
        ([3] * 9 + [2], 30),  # of 29
        ([15, 15], None),  # three standard errors above 0.5 are 0.774
        ([112, 28], 144),  # 80 %, and 90 % is to be reached: 9 * 0.8 * 0.2 / 0.1^2
        ([116, 29], None),
        ([90, 10], 324),  # 90 %, and 95 % is to be reached: 9 * 0.9 * 0.1 / 0.05^2
        ([297, 33], None),
        ([40], None),  # of a single label every network is right
    ],
)
def test_samples_that_are_too_few_to_tell_a_network_from_chance_are_warned_of(
    counts: list[int], n_needed: int | None
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    said = warn_of_few(labels, "evaluation", "source.validation_fraction")
    assert (said == "") == (n_needed is None)
    if n_needed is not None:
        assert said.startswith(f"source: should have {n_needed} evaluation samples")
        assert f"it has {len(labels)}:" in said
        assert "source.validation_fraction" in said


def test_few_samples_of_a_label_are_warned_of() -> None:
    assert warn_of_small(50, 5, "rank on", "add images") == []
    (said,) = warn_of_small(14, 5, "be drawn", "raise selection.ratio")
    assert "14, 2.8 of a label" in said
    assert "raise selection.ratio" in said
