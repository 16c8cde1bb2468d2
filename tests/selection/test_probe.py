"""Probes: what is kept of them besides their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from proxyds.runtime.storage.store import Store
from proxyds.selection.probe import open_answers, train_probe, write_answers
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
