"""The speed of proxyds on one GPU, beside what a user would write: `make bench-gpu`. Says so and ends where there is no GPU.

The loop of `proxyds/training/loop.py` (data on the device, one CUDA graph a step, bfloat16 with float32 statistics) beside a plain eager loop;
the largest architecture's share of the device's own rate; and the paper's grid of table 1, as long as it would take by what each of
its architectures took here.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from proxyds.recipe.models import Training
from proxyds.space.architecture import Architecture
from proxyds.space.cost import measure_cost
from proxyds.training.loop import count_steps, train_network
from proxyds.training.model import make_network
from tests.benchmarks.timing import Report, Row, compare_rates, compare_seconds, start_report, take_turns, write_report

HERE = Path(__file__).parent
BATCH, IMAGE = 128, (3, 32, 32)
N_FULL, N_PROXY, N_SEEDS, EPOCHS = 45_000, 2_250, 5, 30
GRID = tuple(itertools.product((8, 16, 32), (3, 5), (2, 4)))
"""Base filters, kernel size and multiplier of the paper's table 1."""


@dataclass(frozen=True)
class Scope:
    """Where the rows are measured, and with how much work.

    Attributes:
        device: A CUDA device; the CPU for a rehearsal.
        n_steps: Of an epoch of the small networks.
        largest: Base filters, kernel size and multiplier of the network that is held against the device's rate.
        side: Of the matrices whose product tells that rate.
        grid: Architectures that are timed for the paper's grid.
        repeats: Turns.
    """

    device: str
    n_steps: int
    largest: tuple[int, int, int]
    side: int
    grid: tuple[tuple[int, int, int], ...]
    repeats: int


ON_GPU = Scope("cuda", 100, GRID[-1], 8192, GRID, 5)
REHEARSED = Scope("cpu", 1, GRID[0], 512, GRID[:1], 1)


def architecture_of(filters: int, kernel_size: int, multiplier: int) -> Architecture:
    """A ResNet20."""
    parameters = {"depth": 20, "base_filters": filters, "kernel_size": kernel_size, "multiplier": multiplier}
    return measure_cost(f"ResNet20 B{filters} K{kernel_size} M{multiplier}", "resnet", parameters, 10, IMAGE)


def make_pixels(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise and labels: what they show makes no difference to speed."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *IMAGE), np.uint8), rng.integers(0, 10, n)


def wait_for(device: str) -> None:
    """Waits until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def our_rate(architecture: Architecture, n_steps: int, device: str) -> float:
    """Images a second of one run's later epochs."""
    pixels, labels = make_pixels(BATCH * n_steps)
    network = make_network("resnet", architecture.parameters, 10, IMAGE, 0)
    settings = Training(epochs=4, batch_size=BATCH, crop_padding=4)
    epochs = train_network(network, pixels, labels, settings, seed=0, device=device)
    return BATCH * n_steps / float(np.median([epoch.seconds for epoch in epochs[1:]]))


def eager_rate(architecture: Architecture, n_steps: int, device: str) -> float:
    """Images a second of a plain loop over a data set on the device, in float32 with TF32 convolutions, as torch is by default."""
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = True, False  # our loop sets them otherwise
    pixels, labels = (torch.from_numpy(array).to(device) for array in make_pixels(BATCH * n_steps))
    network = make_network("resnet", architecture.parameters, 10, IMAGE, 0).network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=4 * n_steps + 1)
    seconds = []
    for _ in range(4):
        wait_for(device)
        started = time.perf_counter()
        for chosen in torch.randperm(len(labels), device=device).view(n_steps, BATCH):
            batch = F.pad((pixels[chosen].float() - 127) / 64, (4,) * 4)
            above, left = torch.randint(9, (2,)).tolist()  # one window for the whole batch
            batch = batch[:, :, above : above + 32, left : left + 32]
            batch = torch.where((torch.rand(BATCH, device=device) < 0.5)[:, None, None, None], batch.flip(3), batch)
            optimizer.zero_grad()
            F.cross_entropy(network(batch), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return BATCH * n_steps / float(np.median(seconds[1:]))


def product_rate(side: int, device: str) -> float:
    """FLOP a second in a large bfloat16 product."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(12):
        wait_for(device)
        started = time.perf_counter()
        torch.mm(a, b)
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / float(np.median(seconds[2:]))


def measure_loops(scope: Scope) -> Iterator[Row]:
    """Measures our loop beside an eager one, and beside the device's rate."""
    device, n_steps = scope.device, scope.n_steps
    for filters in (8, 16):
        each = architecture_of(filters, 3, 2)
        ours, eager = take_turns(
            [lambda a=each: our_rate(a, n_steps, device), lambda a=each: eager_rate(a, n_steps, device)], scope.repeats
        )
        told = "plain eager loop in TF32; ours in bfloat16"
        yield compare_rates("G1", f"training, {each.name}", ours, eager, told, "images/s", 2)
    largest = architecture_of(*scope.largest)
    ours, product = take_turns(
        [lambda: our_rate(largest, max(1, n_steps // 3), device), lambda: product_rate(scope.side, device)],
        scope.repeats,
    )
    done = [rate * largest.training_flops / 1e12 for rate in ours]
    product = [rate / 1e12 for rate in product]
    yield compare_rates("G2", f"training, {largest.name}", done, product, "bf16 matrix product", "TFLOP/s", 0.15)


def measure_grid(scope: Scope) -> Row:
    """The whole of table 1 with five seeds: everything, the proxy and a random subset; put together from each architecture's rate."""
    settings = Training(epochs=EPOCHS, batch_size=BATCH, crop_padding=4)
    n_seen = N_SEEDS * BATCH * (count_steps(settings, N_FULL) + 2 * count_steps(settings, N_PROXY))
    seconds = 0.0
    for each in scope.grid:
        seconds += n_seen / our_rate(architecture_of(*each), max(1, scope.n_steps // 3), scope.device)
    what = "the paper's table 1, five seeds, 30 epochs, put together from each architecture's rate"
    return compare_seconds("G3", what, [seconds], [45 * 60.0], "45 minutes", 1)


def run(scope: Scope) -> Report:
    """Measures every row."""
    report = start_report("GPU", torch.cuda.get_device_name())
    started = time.perf_counter()
    report.rows += [*measure_loops(scope), measure_grid(scope)]
    report.seconds = time.perf_counter() - started
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=HERE / "results", help="where gpu.json and gpu.md go")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("make bench-gpu: skipped, it needs a CUDA device and this machine has none")
        sys.exit()
    given.out.mkdir(parents=True, exist_ok=True)
    done = run(ON_GPU)
    for row in done.rows:
        print(f"{row.row:>3} {row.what}: {row.ratio:.2f} (to reach: {row.reach})")
    write_report(done, given.out, "gpu")
