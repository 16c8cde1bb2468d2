"""docs/format.md is enough to write a proxy from, and to read one: what was written by hand is taken everywhere."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import proxyds
from proxyds.pipeline.audit import audit_index, audit_proxy
from tests import handread, handwritten
from tests.artifact.hostile import OLDER, WHOLE


@pytest.fixture(params=["1.3", "2.0"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "by-hand").mkdir()
    handwritten.write_proxy(tmp_path / "by-hand", request.param)
    return tmp_path / "by-hand"


@pytest.mark.parametrize("by_hand", [handwritten, handread])
def test_it_is_written_and_read_without_proxyds(by_hand: ModuleType) -> None:
    assert by_hand.__file__
    tree = ast.parse(Path(by_hand.__file__).read_text())
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
    if manifest.format_version == "2.0":
        assert len(proxyds.torch_dataset(proxy, "validation")) == 9
        assert audit_index(proxy)[1]["validation"]["sample_id"] == tables.evaluation["sample_id"]


def test_datasets_takes_it(proxy: Path, tmp_path: Path) -> None:
    code = f"""
import json
from datasets import load_dataset
splits = load_dataset({str(proxy)!r})
proxy = splits["train"]
table = load_dataset({str(proxy)!r}, "importance", split="train")
tars = load_dataset({str(proxy)!r}, data_files="webdataset/train-*.tar", split="train")
print(json.dumps([*splits, proxy.num_rows, proxy[0]["image"].size, proxy.features["label"].names, table.num_rows, tars.num_rows]))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    splits = ["train"] if '"1.3"' in (proxy / "manifest.json").read_text() else ["train", "validation"]
    assert json.loads(ran.stdout.splitlines()[-1]) == [*splits, 6, [8, 8], ["cat", "dog", "owl"], 24, 6]


def test_a_reader_of_1_5_and_one_of_2_0_open_what_they_should(tmp_path: Path, tiny_proxy: Path) -> None:
    """And each refuses by name what it does not know."""
    for version in ("1.3", "2.0"):
        (tmp_path / version).mkdir()
        handwritten.write_proxy(tmp_path / version, version)
    of_all = {"data", "importance", "evaluation"}
    for old in (OLDER, tmp_path / "1.3"):
        for reader in (handread.OF_1_5, handread.OF_2_0):
            assert set(reader.read(old)[1]) == of_all
    for new in (WHOLE, tiny_proxy, tmp_path / "2.0"):
        with pytest.raises(handread.RefusedError, match=r"proxyds 2\.0"):
            handread.OF_1_5.read(new)
        tables = handread.OF_2_0.read(new)[1]
        assert set(tables) == {*of_all, "validation"}
        assert set(tables["validation"]["sample_id"].to_pylist()) <= set(tables["evaluation"]["sample_id"].to_pylist())
        assert tables["validation"].column_names == tables["data"].column_names
    later = tmp_path / "2.0" / "manifest.json"
    later.write_text(later.read_text().replace('"2.0"', '"3.1"'))
    with pytest.raises(handread.RefusedError, match=r"proxyds 3\.1"):
        handread.OF_2_0.read(tmp_path / "2.0")
