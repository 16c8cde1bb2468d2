"""Probes: what is kept of them besides their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import ranks
import torch
from safetensors.torch import load_file

from proxyds.known import MEASURES
from proxyds.probe import probe_task, train_probe, write_answers


def test_what_a_probe_says_after_each_epoch_is_recorded_and_changes_nothing(tmp_path: Path) -> None:
    asked, plain = tmp_path / "asked", tmp_path / "plain"
    for folder, is_recorded in ((asked, True), (plain, False)):
        folder.mkdir()
        given = {**ranks.probe_arguments(tmp_path), "keep_answers": is_recorded}
        train_probe(folder=folder, report=lambda *_: None, **given)
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


def test_a_probe_whose_answers_are_kept_is_another_piece_of_work(tmp_path: Path) -> None:
    given = {**ranks.probe_arguments(tmp_path), "repeat": 0, "arithmetic": {}}
    asked, plain = probe_task(**given), probe_task(**{**given, "keep_answers": False})
    assert asked.inputs == {**plain.inputs, "answers": True}
    assert asked.arguments["seed"] == plain.arguments["seed"]
