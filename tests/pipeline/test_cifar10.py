"""The real CIFAR-10, from a recipe to loaded rows; skipped where `PROXYDS_DATA` does not name it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from datasets import ClassLabel, Image, load_dataset
from torch.nn.functional import cross_entropy
from torchvision import transforms

import proxyds
from proxyds.artifact.reader import verify_proxy
from proxyds.artifact.tables import read_tables
from proxyds.recipe.models import Training
from proxyds.runtime.storage.store import Store
from proxyds.training.inference import predict_labels
from proxyds.training.loop import train_network
from proxyds.training.model import make_network

pytestmark = pytest.mark.e2e

RECIPES = Path(__file__).parent.parent.parent / "recipes"
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
QUICK = (
    "source.image_size=8",
    "space.choices.depth=8",
    "space.choices.base_filters=[4, 8]",
    "training.epochs=2",
    "training.crop_padding=1",
    "check=null",
)
"""The same data and the whole pipeline with small images and short training."""


@pytest.fixture(scope="module")
def proxy(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = proxyds.read_recipe(RECIPES / "cifar10-small.yaml", QUICK)
    folder = tmp_path_factory.mktemp("cifar10")
    return proxyds.build(recipe, folder / "proxy", store=Store(folder / "store"), device="cpu").folder


def source_bytes(data_folder: Path) -> dict[str, bytes]:
    files = sorted((data_folder / "cifar10").glob("train-*.parquet"))
    images = pa.concat_tables([pq.read_table(file) for file in files])["image"].to_pylist()
    return {hashlib.sha256(image["bytes"]).hexdigest(): image["bytes"] for image in images}


def check_whole(proxy: Path, data_folder: Path) -> None:
    cache = str(
        proxy.parent / "hf-cache"
    )  # of its own: offline, `datasets` may answer with another folder of the same name
    rows = load_dataset(str(proxy), split="train", cache_dir=cache)
    assert rows.num_rows == round(0.05 * 45_000) == 2_250
    assert isinstance(rows.features["image"], Image)
    assert rows.features["label"] == ClassLabel(names=NAMES)
    importance = load_dataset(str(proxy), "importance", split="train", cache_dir=cache)
    assert importance.num_rows == 45_000
    assert sum(importance["selected"]) == 2_250
    assert np.bincount(importance["label"]).tolist() == [4_500] * 10
    streamed = next(iter(load_dataset(str(proxy), split="train", streaming=True)))
    assert streamed["image"].size == (32, 32)
    assert streamed["sample_id"] == rows[0]["sample_id"]

    tables, known = read_tables(proxy), source_bytes(data_folder)
    assert tables.validation is not None
    for split, table in (("train", tables.data), ("validation", tables.validation)):
        held = table.to_pylist()
        assert all(row["image"]["bytes"] == known[row["encoded_sha256"]] for row in held)
        tars = sorted(str(path) for path in (proxy / "webdataset").glob(f"{split}-*.tar"))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        assert [sample["__key__"] for sample in samples] == [row["sample_id"] for row in held]
        assert all(sample["webp"] == row["image"]["bytes"] for sample, row in zip(samples, held, strict=True))
        assert [int(sample["cls"]) for sample in samples] == [row["label"] for row in held]
    manifest = verify_proxy(proxy)
    assert np.bincount(tables.validation["label"].to_numpy()).tolist() == [500] * 10
    assert manifest.source.is_local_copy
    assert manifest.counts.evaluation == 5_000
    assert manifest.counts.test == 10_000


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves files to the collector
def test_a_proxy_of_cifar10_is_whole_and_holds_the_sources_bytes(proxy: Path, data_folder: Path) -> None:
    check_whole(proxy, data_folder)


@pytest.mark.slow
def test_a_short_check_of_cifar10_gives_evidence(data_folder: Path, proxy: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(proxy, tmp_path / "copy"))
    overrides = ["check.draws=2", "check.full_seeds=2", "check.architectures=5"]
    evidence = proxyds.check(copy, overrides=overrides, store=Store(tmp_path / "store"), device="cpu").manifest.evidence
    assert evidence is not None
    assert evidence.n_architectures == 5
    full, shipped = evidence.of("full", None), evidence.of("proxy", 0.05)
    assert full is not None
    assert shipped is not None
    assert full.mean_accuracy is not None
    assert shipped.mean_accuracy is not None
    assert 0.2 < full.mean_accuracy < 0.6
    assert 0.1 < shipped.mean_accuracy < full.mean_accuracy
    assert evidence.spending.speed_up is not None
    assert evidence.spending.speed_up > 5
    verify_proxy(copy)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_shipped_recipe_takes_under_15_minutes_and_3_gb_and_goes_on_after_a_kill(
    data_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "proxyds", "build", str(RECIPES / "cifar10-small.yaml"), "--quiet"]
    command += ["--set", "check=null", "-o"]
    environment = {**os.environ, "PROXYDS_STORE": str(tmp_path / "store")}
    started, peak = time.monotonic(), 0
    process = subprocess.Popen([*command, str(tmp_path / "p")], env=environment)
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.5)
    seconds = time.monotonic() - started
    print(f"{seconds:.0f} s, {peak / 1e9:.2f} GB resident over all processes")
    assert process.returncode == 0
    check_whole(tmp_path / "p", data_folder)
    assert seconds < 15 * 60
    assert peak < 3e9

    again = {**os.environ, "PROXYDS_STORE": str(tmp_path / "store-2")}
    process = subprocess.Popen([*command, str(tmp_path / "q")], env=again)
    while not any(entry.stage == "probes" for entry in Store(tmp_path / "store-2").entries()):
        time.sleep(1)
    process.kill()
    process.wait()
    (lighter,) = [entry for entry in Store(tmp_path / "store-2").entries() if entry.stage == "probes"]
    subprocess.run([*command, str(tmp_path / "q")], env=again, check=True)
    found = Store(tmp_path / "store-2").find("probes", lighter.key)
    assert found is not None
    assert found.created == lighter.created
    for name in ("data", "importance", "evaluation", "webdataset"):
        for path in (tmp_path / "p" / name).iterdir():
            assert path.read_bytes() == (tmp_path / "q" / name / path.name).read_bytes()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and those it started, in bytes; pages that several share are counted once (PSS)."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if str(pid) in (folder.name, parent):
                rollup = (folder / "smaps_rollup").read_text()
                total += 1024 * int(rollup.partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    return total


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_networks_become_as_good_as_by_a_plain_loop(data_folder: Path) -> None:
    """Five seeds of each; the loops draw their own orders, crops and flips."""
    pixels, labels = read_pixels(data_folder, "train", 10_000)
    test_pixels, test_labels = read_pixels(data_folder, "test", 10_000)
    settings = Training(epochs=5, batch_size=64, learning_rate=0.01, crop_padding=4)
    parameters, shape = {"depth": 8, "base_filters": 8}, (3, 32, 32)
    ours, plain = [], []
    for seed in range(5):
        network = make_network("resnet", parameters, 10, shape, seed=seed)
        train_network(network, pixels, labels, settings, seed=seed)
        ours.append((predict_labels(network, test_pixels) == test_labels).mean())

        network = make_network("resnet", parameters, 10, shape, seed=100 + seed)
        network.fit_normalisation(pixels)
        torch.manual_seed(seed)
        train_plainly(
            network.network, pixels, labels, settings, network.mean.flatten() / 255, network.deviation.flatten() / 255
        )
        plain.append((predict_labels(network, test_pixels) == test_labels).mean())
    difference = np.mean(ours) - np.mean(plain)
    standard_error = np.sqrt((np.var(ours, ddof=1) + np.var(plain, ddof=1)) / 5)
    print(
        f"ours {np.mean(ours):.4f}, plain {np.mean(plain):.4f}, standard error of the difference {standard_error:.4f}"
    )
    assert np.mean(ours) > 0.4
    assert standard_error < 0.01
    assert abs(difference) < 2 * standard_error


def read_pixels(data_folder: Path, split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    files = sorted((data_folder / "cifar10").glob(f"{split}-*.parquet"))
    rows = pa.concat_tables([pq.read_table(file) for file in files]).slice(0, n)
    pictures = [PIL.Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in rows["image"].to_pylist()]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures]), rows["label"].to_numpy().copy()


def train_plainly(
    network: torch.nn.Module,
    pixels: np.ndarray,
    labels: np.ndarray,
    settings: Training,
    mean: torch.Tensor,
    deviation: torch.Tensor,
) -> None:
    """What a user would write with torchvision."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, 4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, deviation),
        ]
    )
    pictures = [PIL.Image.fromarray(image.transpose(1, 2, 0)) for image in pixels]
    n_steps = len(labels) // settings.batch_size
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * n_steps + 1, cycle_momentum=False
    )
    network.train()
    for _ in range(settings.epochs):
        order = torch.randperm(len(labels)).tolist()
        for step in range(n_steps):
            chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            optimizer.zero_grad()
            batch = torch.stack([transform(pictures[number]) for number in chosen])
            cross_entropy(network(batch), torch.from_numpy(labels[chosen])).backward()
            optimizer.step()
            schedule.step()
    network.eval()
