"""Shared by the tests of data: a small CIFAR-10."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def fake_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that torchvision takes for CIFAR-10, with 40 training and 20 test images."""
    import torchvision

    folder = tmp_path / "tv" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, held: dict[str, Any]) -> tuple[str, str]:
        (folder / name).write_bytes(pickle.dumps(held))
        return name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(n: int) -> dict[str, Any]:
        return {"data": rng.integers(0, 256, (n, 3072), np.uint8), "labels": [i % 10 for i in range(n)]}

    names = [f"label {i}" for i in range(10)]
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(
        kind, "train_list", [list(write("data_batch_1", batch(20))), list(write("data_batch_2", batch(20)))]
    )
    monkeypatch.setattr(kind, "test_list", [list(write("test_batch", batch(20)))])
    name, md5 = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path / "tv"
