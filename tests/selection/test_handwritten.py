"""docs/format.md is enough to write a proxy from: one that was written by hand is taken everywhere."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import proxyds
from proxyds.pipeline.audit import audit_proxy
from tests import handwritten


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    (tmp_path / "by-hand").mkdir()
    handwritten.write_proxy(tmp_path / "by-hand")
    return tmp_path / "by-hand"


def test_it_is_written_without_proxyds() -> None:
    tree = ast.parse(Path(handwritten.__file__).read_text())
    imported = [
        each.module if isinstance(each, ast.ImportFrom) else each.names[0].name
        for each in ast.walk(tree)
        if isinstance(each, ast.Import | ast.ImportFrom)
    ]
    assert imported
    assert not [name for name in imported if name and name.startswith(("proxyds", "datasets"))]


def test_proxyds_takes_it(proxy: Path, run_proxyds: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    manifest, tables = audit_proxy(proxy)
    assert (manifest.counts.proxy, tables.data.num_rows, manifest.probes[1].repeat) == (6, 6, 0)
    images, labels = proxyds.torch_dataset(proxy).tensors
    assert images.shape == (6, 1, 8, 8)
    assert labels.tolist() == tables.data["label"].to_pylist()
    shown = run_proxyds("inspect", proxy)
    assert "6 of 24 training samples of noise" in shown.stdout, shown.stderr


def test_datasets_takes_it(proxy: Path, tmp_path: Path) -> None:
    code = f"""
import json
from datasets import load_dataset
proxy = load_dataset({str(proxy)!r}, split="train")
table = load_dataset({str(proxy)!r}, "importance", split="train")
tars = load_dataset({str(proxy)!r}, data_files="webdataset/*.tar", split="train")
print(json.dumps([proxy.num_rows, proxy[0]["image"].size, proxy.features["label"].names, table.num_rows, tars.num_rows]))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == [6, [8, 8], ["cat", "dog", "owl"], 24, 6]
