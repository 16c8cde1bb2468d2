"""One training as a record: stored trainings of older versions are found, and those that cannot be done say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxyds.data.samples import Origin, Samples
from proxyds.errors import TrainingError
from proxyds.evaluation.runs import list_runs, list_training_sets, train_and_test
from proxyds.recipe.models import Check, Training
from proxyds.selection.probe import ProbeJob, train_probe
from proxyds.selection.records import Drawn
from proxyds.space.architecture import Architecture
from proxyds.training.job import TrainingJob, TrainingSetup, expect_image_seconds
from proxyds.training.model import PixelNetwork
from tests import ranks

NET = Architecture("net", "resnet", {"depth": 8, "base_filters": 8}, 10, 30, 100)
SETUP = TrainingSetup(
    n_labels=4,
    image_shape=(3, 16, 16),
    settings=Training(epochs=2, batch_size=16, learning_rate=0.01, crop_padding=4),
    seed=7,
    device="cpu",
    arithmetic={"torch": "2", "device": "cpu x86_64"},
)


def samples_of(n: int, seed: int) -> Samples:
    """Samples whose pixels are nowhere: a key depends on ids, labels and conversion."""
    ids, numbers = np.array([f"{i + 1000 * seed:064x}" for i in range(n)]), np.arange(n)
    return Samples(ids, numbers % 4, numbers, ids, numbers, Origin("train", (), (), "RGB 16 1"))


TRAIN, HELD_OUT = samples_of(64, 0), samples_of(24, 1)


@pytest.mark.parametrize(
    ("changes", "key", "seed"),
    [
        ({}, "3937541cc3413552e2ce85f5bd7765e2eaed8a7c25a9151b54cf599bc333c568", 707861631296707477),
        ({"repeat": 2}, "66ec7cf07d431376724640c1bac62a058f2227a357825f0c500cb6b31525a149", 8146295712919057115),
        ({"data_parallel": 2}, "5d6f851a5f271eef4fe1a8afc9bb1901b02e7fd07f7929f423374d84415afdc6", 707861631296707477),
        (
            {"keep_answers": True},
            "a87b8fcf3871004adf45c03a6bc8083c5c559a492befb5efa4f2b81ce38484b3",
            707861631296707477,
        ),
    ],
)
def test_probes_of_older_versions_are_found_in_the_store(changes: dict[str, Any], key: str, seed: int) -> None:
    job = ProbeJob(**vars(SETUP), architecture=NET, train=TRAIN, held_out=HELD_OUT, **changes)
    assert (job.task.key, job.training_seed) == (key, seed)


OLDER_RUNS = {
    "full": ("999507725cf56cadfd66d675f4a28319457b98664b555c9396d2cd65f6aa6aef", 2550861432879093025),
    "proxy": ("57734358163d4b6a2ea52edadadd82863f6dc6aa42de4db245b81999920c8c55", 7357212440331535428),
    "fewer-epochs": ("094f6e067d5455f8cd5c248b58aeceec615c60b07bccb019e98b58f4992e0a35", 7357212440331535428),
    "random-labels": ("cc23df543082e4179f772214eb5678570f36eaf3f42d85b990950db19d550be1", 7357212440331535428),
}
"""By data set: the key that was given to the run below when runs were first stored, and the seed of its training."""


def test_runs_of_older_versions_are_found_in_the_store() -> None:
    draws = {
        "proxy": lambda ratio, number: Drawn(np.arange(64) % 2 == number % 2),
        "random-labels": lambda ratio, number: Drawn(np.arange(64) % 4 > 1, np.array([2, 3])),
    }
    sets = list_training_sets(TRAIN, draws, Check(draws=1, full_seeds=1), 0.5, SETUP.settings)
    runs = list_runs([NET], sets, HELD_OUT, SETUP)
    found = {run.training_set.dataset: (run.task.key, run.job.training_seed) for run in runs if run.task and run.job}
    assert found == OLDER_RUNS


@pytest.mark.parametrize("kind", [TrainingJob, ProbeJob])
def test_a_training_that_does_not_fit_into_memory_fails_and_says_what_needs_less(
    kind: type[TrainingJob], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_out(*_: object) -> PixelNetwork:
        raise MemoryError

    monkeypatch.setattr(TrainingJob, "run", run_out)
    job = kind(**vars(SETUP), architecture=NET, train=TRAIN, held_out=HELD_OUT)
    with pytest.raises(TrainingError, match=r"^net: .*memory.*batch_size, now 16"):
        (train_probe if kind is ProbeJob else train_and_test)(folder=tmp_path, report=lambda *_: None, **vars(job))


def test_an_expectation_is_for_one_image_and_leaves_the_number_of_threads() -> None:
    n_threads = torch.get_num_threads()
    assert 0 < expect_image_seconds(SETUP, NET) < 1
    assert torch.get_num_threads() == n_threads


def test_too_little_memory_of_a_cpu_is_told_as_that_of_a_gpu(tmp_path: Path) -> None:
    job = ranks.make_probe_job(tmp_path)
    with pytest.raises(TrainingError, match="must fit into memory"), job.within_memory():
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="another"), job.within_memory():
        raise RuntimeError("another")
