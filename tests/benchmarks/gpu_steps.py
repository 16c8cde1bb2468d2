"""The steps of `gpu_check.py`, each in a process of its own: `python -m tests.benchmarks.gpu_steps STEP FINDINGS.jsonl [--rehearse]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

import proxyds
from proxyds.recipe.models import Training
from proxyds.runtime.storage.store import Store
from proxyds.seeding import derive_seed
from proxyds.training import loop
from proxyds.training.cuda_graph import GraphedStep
from proxyds.training.loop import Epoch, cut_batch, draw_epoch, pad_images, train_network
from proxyds.training.model import PixelNetwork, make_network
from tests.benchmarks.gpu import ON_GPU, REHEARSED, Scope, measure_grid, measure_loops
from tests.benchmarks.timing import processor

ROOT = Path(__file__).parents[2]
IMAGE, N_LABELS = (3, 16, 16), 10
NETWORK = {"depth": 8, "base_filters": 8}
FEWEST_TAU = 0.6
"""Ranks by both devices' trainings must agree at least so far: seeds and samples are the same, and rounding grows."""

FEW = ("check.draws=1", "check.full_seeds=1", "check.architectures=5")
"""What a rehearsal checks with."""
LIGHT = "space={network: resnet, choices: {depth: 8, base_filters: [8, 12, 16], multiplier: [1, 2]}}"
"""The search space of a rehearsal on CIFAR-10."""


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        what: What was looked at.
        found: What was found.
        is_right: Whether it is as it must be; None for a figure alone.
    """

    what: str
    found: str
    is_right: bool | None = None


def describe(scope: Scope) -> str:
    """Names the machine and what computes on it."""
    device = torch.cuda.get_device_name() if scope.device == "cuda" else "rehearsed on the CPU"
    cuda = f", CUDA {torch.version.cuda}" if torch.version.cuda and scope.device == "cuda" else ""
    cores = f"{os.cpu_count()} cores of {processor()}"
    return f"{device}; {cores}; Python {platform.python_version()}, torch {torch.__version__}{cuda}."


def check_tests(scope: Scope) -> Iterator[Finding]:
    """Runs the tests that are marked gpu; where there is no GPU they are left out one by one."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/training"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    for line in lines:
        if failed := re.match(r"(?:FAILED|ERROR) (\S+)(?: - )?(.*)", line):
            yield Finding(failed[1], failed[2] or "failed", is_right=False)
    summary = lines[-1].strip("= ") if lines else done.stderr.strip()
    is_right = done.returncode == 0 and (scope is REHEARSED or " passed" in summary)
    yield Finding("all of them", summary, is_right)


def check_graph(scope: Scope) -> Iterator[Finding]:
    """Trains with and without a CUDA graph, and in a plain loop that takes the same batches."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, N_LABELS, 640)
    pixels = (rng.integers(0, 200, (640, *IMAGE)) + 5 * labels[:, None, None, None]).astype(np.uint8)
    for precision in ("auto", "float32"):
        settings = Training(epochs=4, batch_size=64, learning_rate=0.01, crop_padding=2, precision=precision)

        def train(settings: Training = settings) -> tuple[PixelNetwork, list[float]]:
            network = make_network("resnet", NETWORK, N_LABELS, IMAGE, seed=1)
            epochs = train_network(network, pixels, labels, settings, seed=2, device=scope.device)
            return network.cpu(), [epoch.loss for epoch in epochs]

        recorded: list[GraphedStep] = []
        with patch.object(loop, "GraphedStep", lambda step, kept=recorded: kept.append(GraphedStep(step)) or kept[-1]):
            graphed, losses = train()
        with patch.object(loop, "GraphedStep", lambda step: step):
            plain, _ = train()
        has_graph = all(step.is_recorded for step in recorded) and bool(recorded)
        weights = zip(graphed.state_dict().values(), plain.state_dict().values(), strict=True)
        differing = sum(not torch.equal(one, other) for one, other in weights)
        found = "every weight has the same bits" if not differing else f"{differing} tensors differ"
        if scope is REHEARSED:
            yield Finding(f"40 steps in {precision}, twice without a CUDA graph", found, differing == 0)
        else:
            yield Finding(f"a CUDA graph was recorded in {precision}", str(has_graph).lower(), has_graph)
            yield Finding(f"40 steps in {precision}, with and without a CUDA graph", found, differing == 0)
        if precision == "float32":
            expected = train_plainly(pixels, labels, settings, scope.device)
            apart = max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))
            yield Finding("losses of 4 epochs, beside a plain loop's", f"{apart:.1e} apart at most", apart < 0.01)


def train_plainly(pixels: np.ndarray, labels: np.ndarray, settings: Training, device: str) -> list[float]:
    """Trains as the loop does, with nothing of it but the batches it takes; returns each epoch's mean loss."""
    network = make_network("resnet", NETWORK, N_LABELS, IMAGE, seed=1)
    network.fit_normalisation(pixels)
    network.to(device).train()
    n_steps = len(labels) // settings.batch_size
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * n_steps + 1, cycle_momentum=False
    )
    images, targets = pad_images(pixels, settings, device), torch.from_numpy(labels).to(device)
    losses = []
    for epoch in range(settings.epochs):
        generator = torch.Generator().manual_seed(derive_seed(2, "epoch", epoch))
        of_epoch = []
        drawn = draw_epoch(len(labels), settings.batch_size, n_steps, settings, generator, device)
        for chosen, offsets, mirrored in zip(*drawn, strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(cut_batch(images, settings, chosen, offsets, mirrored)), targets[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            of_epoch.append(loss.item())
        losses.append(float(np.mean(of_epoch)))
    return losses


def check_speed(scope: Scope) -> Iterator[Finding]:
    """Measures the rows of `make bench-gpu`; what they reach is no failure of a rehearsal."""
    is_real = scope is not REHEARSED
    for row in (*measure_loops(scope), measure_grid(scope)):
        found = f"{row.ours:,.3g} {row.unit}; {row.yardstick_is}: {row.yardstick:,.3g}; {row.ratio:.2f} times"
        yield Finding(row.what, f"{found} (to reach: {row.reach:g})", row.reaches if is_real else None)


def check_several(scope: Scope) -> Iterator[Finding]:
    """Times processes that train side by side on the device; all must end with the loss of one alone, to the bit."""
    n_steps = 2 * scope.n_steps
    alone: list[str] = []  # images a second and last loss
    for n in (1, 2, 4) if scope is not REHEARSED else (1, 2):
        command = [sys.executable, "-m", "tests.benchmarks.gpu_steps", "train", scope.device, str(n_steps)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        running = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(n)]
        ready = [process.stdout.readline() for process in running]  # all have trained for an epoch
        said = []
        for process in running if all(ready) else ():
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate()[0].split() for process in running]
        if any(process.returncode for process in running):
            yield Finding(f"{n} at once", "a training failed", is_right=False)
            return
        rate = sum(float(each[0]) for each in said)
        alone = alone or said[0]
        found = f"{rate:,.0f} images/s, {rate / float(alone[0]):.2f} times one alone"
        are_same = all(each[1] == alone[1] for each in said)
        yield Finding(f"{n} at once", found if are_same else f"{found}; losses differ", are_same)


def train_once(device: str, n_steps: int) -> str:
    """Trains a small network, waiting after the first epoch for a line; returns images a second from then on, and the last loss to the bit."""
    rng = np.random.default_rng(0)
    pixels, labels = (
        rng.integers(0, 256, (128 * n_steps, 3, 32, 32), np.uint8),
        rng.integers(0, N_LABELS, 128 * n_steps),
    )
    network = make_network("resnet", {"depth": 20, "base_filters": 8}, N_LABELS, (3, 32, 32), 0)

    def wait(index: int, _: Epoch) -> None:
        if index == 0:
            print("ready", flush=True)
            sys.stdin.readline()

    settings = Training(epochs=3, crop_padding=4)
    epochs = train_network(network, pixels, labels, settings, seed=0, device=device, on_epoch=wait)
    seconds = float(np.median([epoch.seconds for epoch in epochs[1:]]))
    return f"{len(labels) / seconds} {epochs[-1].loss.hex()}"


def check_digits(scope: Scope) -> Iterator[Finding]:
    """Builds and checks scikit-learn's digits."""
    same = ["training.precision=float32", "selection.method=random"]  # so that both devices train on the same samples
    small = ["training.epochs=3", *FEW]
    yield from compare_devices(scope, ROOT / "recipes" / "digits.yaml", [*same, *(small if scope is REHEARSED else [])])


def check_cifar10(scope: Scope) -> Iterator[Finding]:
    """Builds and checks 10,000 images of CIFAR-10, where `PROXYDS_DATA` has them."""
    source = Path(os.environ.get("PROXYDS_DATA", "/nowhere")) / "cifar10"
    if not source.is_dir():
        yield Finding("10,000 images", "left out: PROXYDS_DATA has no CIFAR-10")
        return
    import datasets

    n = 10_000 if scope is not REHEARSED else 2_000
    with tempfile.TemporaryDirectory(prefix="proxyds-cifar10-") as folder:
        for split in ("train", "test"):
            files = sorted(str(file) for file in source.rglob(f"*{split}*.parquet"))
            whole = datasets.Dataset.from_parquet(files, cache_dir=f"{folder}/cache")
            n_taken = n if split == "train" else n // 5
            whole.select(range(n_taken)).to_parquet(Path(folder) / "data" / f"{split}-0.parquet")
        changes = [f"source={{kind: folder, path: {folder}/data, image_size: 16}}", "selection.ratio=0.1"]
        changes += ["check.draws=2", "check.full_seeds=2", "check.architectures=8"]
        changes += ["training.epochs=6", LIGHT, *FEW] if scope is REHEARSED else []
        yield from compare_devices(scope, ROOT / "recipes" / "cifar10-small.yaml", changes, is_exact=False)


def compare_devices(
    scope: Scope, recipe_file: Path, changes: Sequence[str], *, is_exact: bool = True
) -> Iterator[Finding]:
    """Builds and checks a recipe on the device and on the CPU, and compares how they rank its architectures.

    Args:
        scope: Where.
        recipe_file: The recipe.
        changes: To it.
        is_exact: Whether both train on the same samples in float32, so that only rounding keeps them apart; else what is found
            is a figure, and not judged.
    """
    recipe = proxyds.read_recipe(recipe_file, [*changes])
    measured = {}
    with tempfile.TemporaryDirectory(prefix="proxyds-proxies-") as folder:
        for number, device in enumerate((scope.device, "cpu")):
            started = time.perf_counter()
            out = Path(folder) / f"proxy {number}"
            built = proxyds.build(recipe, out, store=Store(Path(folder) / f"store {number}"), device=device)
            proxyds.verify_proxy(out)
            evidence = built.manifest.evidence
            assert evidence is not None
            measured[number] = {each.name: each for each in evidence.architectures}
            seconds = time.perf_counter() - started
            yield Finding(f"built, checked and verified on {device}", f"{seconds:.0f} s; {evidence.verdict}", True)
    names = sorted(measured[0])
    for of in ("full", "proxy"):
        here, there = ([getattr(each[name], f"{of}_accuracy") for name in names] for each in measured.values())
        tau = float(stats.kendalltau(here, there).statistic)
        apart = float(np.abs(np.subtract(here, there)).mean())
        what = f"{len(names)} architectures on {'everything' if of == 'full' else 'the proxy'}, both devices"
        yield Finding(
            what,
            f"Kendall tau {tau:.2f}, accuracies {100 * apart:.1f} points apart",
            tau >= FEWEST_TAU if is_exact else None,
        )


CHECKS: dict[str, Callable[[Scope], Iterator[Finding]]] = {
    "tests": check_tests,
    "graph": check_graph,
    "speed": check_speed,
    "several": check_several,
    "digits": check_digits,
    "cifar10": check_cifar10,
}


def main() -> None:
    """Runs one step, and writes each of its findings as it is known."""
    if sys.argv[1] == "train":
        torch.set_num_threads(1)  # as workers do: side by side, more would wait for each other
        print(train_once(sys.argv[2], int(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["about", *CHECKS])
    parser.add_argument("findings", type=Path, nargs="?")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    if not given.rehearse and not torch.cuda.is_available():
        sys.exit(
            "gpu-check: needs a GPU that torch can use, and this machine has none; --rehearse runs the same on the CPU"
        )
    scope = REHEARSED if given.rehearse else ON_GPU
    if given.step == "about":
        print(describe(scope))
        return
    with given.findings.open("a", encoding="utf-8") as file:
        for finding in CHECKS[given.step](scope):
            file.write(json.dumps(asdict(finding)) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
