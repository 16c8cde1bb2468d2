"""Several processes that train one network: equal to one process that computes the parts of each batch in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from proxyds.errors import RecipeError, TrainingError
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.task import Task
from proxyds.seeding import derive_seed
from proxyds.selection.probe import train_probe
from proxyds.training.loop import count_steps, train_network
from proxyds.training.model import PixelNetwork, load_network, make_network
from tests import ranks

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def ranks_that(what: str, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that train together, and that end with the block."""
    with ExitStack() as stack:
        started = []
        for rank in range(ranks.N_RANKS):
            command = [sys.executable, "-W", "error", str(Path(ranks.__file__)), str(rank), str(folder), what]
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
            stack.enter_context(process)  # waits, and closes the pipe
            stack.callback(process.kill)
            started.append(process)
        yield started


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind that trained together."""
    folder = tmp_path_factory.mktemp("together")
    ranks.on_disk(folder, ranks.images()[0])
    ranks.make_probe_job(folder)  # writes the images
    with ranks_that("train", folder) as processes:
        for process in processes:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
    return folder


def read_rank(folder: Path, name: str, rank: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    return json.loads((folder / f"{name}-{rank}.json").read_text()), load_file(folder / f"{name}-{rank}.safetensors")


def plain_halves() -> tuple[list[float], dict[str, torch.Tensor]]:
    """A plain loop by hand: each half of a batch is normalised by itself, the second's statistics are forgotten."""
    pixels, labels = ranks.images()
    plain = make_network(*ranks.RESNET, 2, (3, 16, 16), seed=1).network.train()
    mean, deviation = (held.reshape(3, 1, 1) for held in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))))
    images = torch.from_numpy(((pixels - mean) / deviation).astype(np.float32))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=21, cycle_momentum=False)
    losses = []
    for step in range(20):
        chosen = torch.randperm(64, generator=torch.Generator().manual_seed(derive_seed(9, "epoch", step)))
        halves = []
        optimizer.zero_grad()
        for half in (chosen[:32], chosen[32:]):
            halves.append(F.cross_entropy(plain(images[half]), torch.from_numpy(labels)[half]))
            (halves[-1] / 2).backward()  # adds up
            if len(halves) == 1:
                statistics = {name: held.clone() for name, held in plain.named_buffers()}
        for name, held in plain.named_buffers():
            held.copy_(statistics[name])
        optimizer.step()
        schedule.step()
        losses.append((halves[0].item() + halves[1].item()) / 2)
    return losses, plain.state_dict()


@pytest.mark.e2e
def test_two_processes_equal_one_that_normalises_the_same_halves_separately(together: Path) -> None:
    in_turn, state = ranks.train(ranks.RESNET, ranks.PLAIN, ranks.images()[0], n_parts=2)
    expected, plain = plain_halves()
    assert expected[-1] < 0.7 * expected[0]
    whole, _ = ranks.train(ranks.RESNET, ranks.PLAIN, ranks.images()[0], n_parts=1)
    assert max(abs(a - b) for a, b in zip(whole, expected, strict=True)) > 1e-3  # or this test would show nothing
    assert len(expected) == 20
    assert in_turn == pytest.approx(expected, abs=1e-4)
    for rank in range(2):
        losses, found = read_rank(together, "plain", rank)
        assert losses == pytest.approx(expected, abs=1e-4)
        assert losses == pytest.approx(in_turn, abs=1e-4)
        assert found.keys() == state.keys()
        for name, held in found.items():
            torch.testing.assert_close(held, state[name], rtol=1e-3, atol=1e-4)
            if name.startswith("network."):  # weights, and running statistics
                torch.testing.assert_close(held, plain[name.removeprefix("network.")], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ranks.CASES)
def test_every_process_ends_with_the_same_losses_weights_and_statistics(together: Path, name: str) -> None:
    (losses, first), (other_losses, other) = (read_rank(together, name, rank) for rank in range(2))
    assert losses == other_losses
    assert all(torch.equal(held, other[key]) for key, held in first.items())
    assert any("running_mean" in key for key in first)


@pytest.mark.parametrize("name", ["drawing", "leaving-out", "disk"])
def test_processes_equal_one_that_takes_turns(together: Path, name: str) -> None:
    expected, state = ranks.train(*ranks.CASES[name], ranks.images()[0], n_parts=2)
    losses, found = read_rank(together, name, 0)
    assert losses == pytest.approx(expected, abs=1e-4)
    for key, held in found.items():
        torch.testing.assert_close(held, state[key], rtol=1e-3, atol=1e-4)


class Drawing(torch.nn.Module):
    """Notes a random number at each of its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * 16 * 16, 2)
        self.drawn: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.drawn.append(torch.rand(()).item())
        return self.layer(x.flatten(1))


def test_each_part_draws_from_a_seed_of_its_own_and_the_first_as_the_whole_would() -> None:
    pixels, labels = ranks.images()
    drawn = {}
    for n_parts in (1, 2, 4):
        network = Drawing()
        train_network(PixelNetwork(network, 3), pixels, labels, ranks.SHORT, seed=9, n_parts=n_parts)
        drawn[n_parts] = np.array(network.drawn).reshape(4, n_parts)[:, ::-1]  # the first part comes last
    assert len(np.unique(drawn[4])) == 16
    assert (drawn[4][:, :2] == drawn[2]).all()
    assert (drawn[4][:, :1] == drawn[1]).all()


def test_a_probe_is_written_and_reported_by_the_first_process_alone(together: Path, tmp_path: Path) -> None:
    train_probe(folder=tmp_path, report=lambda *_: None, **vars(ranks.make_probe_job(together)))
    assert {file.name for file in (together / "probe-0").iterdir()} == {file.name for file in tmp_path.iterdir()}
    assert not list((together / "probe-1").iterdir())
    assert [json.loads((together / f"said-{rank}.json").read_text()) for rank in range(2)] == [[0, 1, 2, 3, 4], []]
    networks = [load_network(f / "weights.safetensors", *ranks.RESNET) for f in (tmp_path, together / "probe-0")]
    for ours, theirs in zip(*(network.state_dict().values() for network in networks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_all_processes_tell_that_the_loss_diverged_and_that_they_are_too_many(together: Path) -> None:
    refused = [json.loads((together / f"refused-{rank}.json").read_text()) for rank in range(2)]
    assert refused[0] == refused[1]
    assert refused[0]["diverged"].startswith("DivergedError: network: the training loss must stay finite")
    assert refused[0]["mismatch"] == (
        "TrainingError: network: must be trained by as many processes as a batch has parts (probes.data_parallel, now 4), "
        "torch.distributed is set up for 2; start 4 of them, or leave torch.distributed alone to have one compute all parts"
    )
    assert "(probes.data_parallel, now 1)" in refused[0]["alone"]


def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    with ranks_that("die", tmp_path) as (first, dying):
        assert dying.wait(timeout=60) == -9
        died = time.monotonic()
        _, said = first.communicate(timeout=30)
    assert first.returncode == 1
    assert time.monotonic() - died < 20  # and does not wait for 120 seconds
    assert "Connection closed by peer" in said or "Connection reset" in said


def test_batches_of_fewer_samples_than_asked_for_are_cut_to_equal_parts() -> None:
    settings = ranks.SHORT.model_copy(update={"batch_size": 100})
    pixels, labels = ranks.images()
    network = make_network(*ranks.RESNET, 2, (3, 16, 16), seed=1)
    seen: list[int] = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    history = train_network(network, pixels[:63], labels[:63], settings, seed=9, n_parts=4)
    assert len(history) == count_steps(settings, 63) == 4
    assert seen == [15] * 4 * 4
    with pytest.raises(
        TrainingError, match=r"two training samples or more for each part of a batch, 8 in all, there are 7"
    ):
        train_network(network, pixels[:7], labels[:7], settings, seed=9, n_parts=4)


@pytest.mark.parametrize(("batch_size", "n"), [(128, 3), (64, 5), (8, 8), (2, 2)])
def test_parts_that_are_not_equal_are_refused_with_their_place(
    write_recipe_file: Callable[..., Path], batch_size: int, n: int
) -> None:
    text = f"name: x\nspace: {{network: resnet, choices: {{depth: [8, 14]}}}}\nprobes:\n  data_parallel: {n}\ntraining: {{batch_size: {batch_size}}}\n"
    with pytest.raises(
        RecipeError, match=rf"recipe.yaml:4:18 probes.data_parallel: must divide .* = {batch_size} .*got {n}"
    ):
        read_recipe(write_recipe_file(text))


def test_older_identities_stay_and_parts_make_another(write_recipe_file: Callable[..., Path]) -> None:
    text = "name: x\nspace: {network: resnet, choices: {depth: [8, 14]}}\n"
    plain, one, two = (
        read_recipe(write_recipe_file(text + more))
        for more in ("", "probes: {data_parallel: 1}\n", "probes: {data_parallel: 2}\n")
    )
    assert plain.sha256 == one.sha256 != two.sha256
    assert "data_parallel" not in plain.canonical


def test_a_task_is_found_again_unless_its_batches_have_parts(tmp_path: Path) -> None:
    def task_of(n: int, *, on_disk: bool = True) -> Task:
        job = ranks.make_probe_job(tmp_path, data_parallel=n, keep_answers=False)
        return replace(job, train=replace(job.train, stay_on_disk=on_disk)).task

    assert task_of(1).key == task_of(1, on_disk=False).key
    assert (task_of(1).n_processes, task_of(2).n_processes) == (1, 2)
    assert task_of(2).inputs == {**task_of(1).inputs, "data_parallel": 2}
    known = "version network parameters settings seed n_labels image_shape train evaluation torch device"
    assert set(task_of(1).inputs) == set(known.split())  # what older versions asked for
