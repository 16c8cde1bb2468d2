"""The split `validation`: which evaluation samples a proxy holds, and that it says the same of them everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

import proxyds
from proxyds.artifact import writer
from proxyds.artifact.manifest import version_with_evidence
from proxyds.artifact.parquet import READERS, count_shards
from proxyds.data.samples import ReadEncoded, Samples
from proxyds.errors import RecipeError
from tests.artifact.hostile import OLDER, WHOLE, make_source
from tests.conftest import TINY_RECIPE, read_tree

OF_DRAW = {"weight", "keep_probability", "inclusion_probability"}


def draw(proxy: Path, out: Path, *overrides: str) -> Path:
    """Draws a proxy again, which trains nothing."""
    return proxyds.resample(proxy, out, overrides=list(overrides)).folder


def ids(proxy: Path, table: str = "validation") -> list[str]:
    found: list[str] = getattr(proxyds.read_tables(proxy), table)["sample_id"].to_pylist()
    return found


def test_it_holds_every_evaluation_sample_as_the_table_of_these_has_it(tiny_proxy: Path) -> None:
    manifest, tables = proxyds.read_manifest(tiny_proxy), proxyds.read_tables(tiny_proxy)
    assert tables.validation is not None
    assert tables.validation.num_rows == manifest.counts.validation == manifest.counts.evaluation == 143
    for name in set(tables.validation.column_names) - OF_DRAW - {"image"}:
        assert tables.validation[name].to_pylist() == tables.evaluation[name].to_pylist(), name
    assert all(tables.validation[name].null_count == 143 for name in OF_DRAW)
    assert tables.validation.schema == tables.data.schema
    assert not set(ids(tiny_proxy)) & set(tables.importance["sample_id"].to_pylist())


def test_no_test_sample_travels(tiny_proxy: Path) -> None:
    of_splits = [
        {(label.item(), image.numpy().tobytes()) for image, label in proxyds.torch_dataset(tiny_proxy, split)}
        for split in ("train", "validation", "test")
    ]
    assert min(map(len, of_splits)) > 100
    assert not of_splits[2] & (of_splits[0] | of_splits[1])


def test_of_some_labels_it_holds_these_numbered_as_what_is_trained_on(tiny_proxy: Path, tmp_path: Path) -> None:
    proxy = draw(tiny_proxy, tmp_path / "p", "selection.labels={keep: 4}")
    kept, tables = proxyds.read_manifest(proxy).kept_labels, proxyds.read_tables(proxy)
    assert kept is not None
    assert tables.validation is not None
    expected = [label for label in tables.evaluation["label"].to_pylist() if label in kept]
    assert tables.validation["source_label"].to_pylist() == expected
    assert tables.validation["label"].to_pylist() == [kept.index(label) for label in expected]
    names = datasets.load_dataset(str(proxy), cache_dir=str(tmp_path / "hf"))["validation"].features["label"].names
    assert names == [str(label) for label in kept]


def test_a_number_takes_the_same_share_of_every_label_whatever_is_drawn_besides(
    tiny_proxy: Path, tmp_path: Path
) -> None:
    some = draw(tiny_proxy, tmp_path / "some", "output.validation=50")
    other = draw(tiny_proxy, tmp_path / "other", "output.validation=50", "selection.seed=5", "selection.ratio=0.2")
    more = draw(tiny_proxy, tmp_path / "more", "output.validation=5000")
    assert ids(other) == ids(some)
    assert len(ids(some)) == 50
    assert ids(more) == ids(tiny_proxy)
    labels = proxyds.read_tables(some).validation["label"].to_pylist()  # type: ignore[union-attr]
    of_all = Counter(proxyds.read_tables(tiny_proxy).evaluation["label"].to_pylist())
    assert all(abs(n - 50 * of_all[label] / 143) < 1 for label, n in Counter(labels).items())
    assert set(labels) == set(of_all)


def test_none_is_a_whole_proxy_with_nothing_of_it(tiny_proxy: Path, tmp_path: Path) -> None:
    proxy = draw(tiny_proxy, tmp_path / "p", "output.validation=none")
    manifest = proxyds.verify_proxy(proxy)
    assert (manifest.counts.validation, manifest.format_version) == (0, "2.0")
    assert not [name for name in manifest.files if "validation" in name]
    card = (proxy / "README.md").read_text(encoding="utf-8")
    assert "It holds no samples to rank on" in card
    assert list(datasets.load_dataset(str(proxy), cache_dir=str(tmp_path / "hf"))) == ["train"]
    train = {name: held for name, held in read_tree(proxy).items() if "train-" in name}
    assert train == {name: held for name, held in read_tree(tiny_proxy).items() if "train-" in name}


def test_images_are_read_a_few_at_a_time(tiny_proxy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, sizes = writer._read_unchanged, list[int]()

    def note(read_encoded: ReadEncoded, samples: Samples) -> list[bytes]:
        sizes.append(len(samples))
        return read(read_encoded, samples)

    monkeypatch.setattr(writer, "_read_unchanged", note)
    monkeypatch.setattr(writer, "IMAGES_AT_ONCE", 16)
    proxy = draw(tiny_proxy, tmp_path / "p", "version=1.0.1")
    assert (max(sizes), sum(sizes)) == (16, 130 + 143)
    assert read_tree(proxy / "data") == read_tree(tiny_proxy / "data")
    assert read_tree(proxy / "webdataset") == read_tree(tiny_proxy / "webdataset")


def test_a_proxy_of_an_earlier_format_is_drawn_again_with_it(tmp_path: Path) -> None:
    make_source(tmp_path / "few-digits")
    proxy = draw(OLDER, tmp_path / "p", f"source.path={tmp_path / 'few-digits'}")
    before, after = proxyds.read_manifest(OLDER), proxyds.verify_proxy(proxy)
    assert (before.format_version, before.counts.validation) == ("1.4", 0)
    assert (after.format_version, after.counts.validation) == ("2.0", 18)
    assert after.recipe_sha256 == before.recipe_sha256
    assert proxyds.read_tables(proxy).data.equals(proxyds.read_tables(OLDER).data)
    assert proxyds.pull(f"file://{OLDER}", tmp_path / "pulled").manifest == before
    assert proxyds.pull(f"file://{proxy}", tmp_path / "again").manifest == after


def test_evidence_makes_no_proxy_of_1_x_one_of_2_0() -> None:
    assert version_with_evidence(proxyds.read_manifest(OLDER)) == "1.7"
    assert version_with_evidence(proxyds.read_manifest(WHOLE)) == "2.0"


# The recipe


def read(tmp_path: Path, *overrides: str) -> proxyds.Recipe:
    (tmp_path / "recipe.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    return proxyds.read_recipe(tmp_path / "recipe.yaml", list(overrides))


@pytest.mark.parametrize(
    ("value", "n", "held"),
    [
        ("auto", 9_999, 9_999),
        ("auto", 50_000, 10_000),
        ("all", 50_000, 50_000),
        ("none", 50_000, 0),
        ("5", 50_000, 5),
        ("20000", 50_000, 20_000),
        ("20000", 300, 300),
    ],
)
def test_the_recipe_says_how_many(value: str, n: int, held: int, tmp_path: Path) -> None:
    assert read(tmp_path, f"output.validation={value}").output.count_validation(n) == held


def test_recipes_that_do_not_name_it_keep_their_identity(tmp_path: Path) -> None:
    assert "validation" not in read(tmp_path).model_dump()["output"]
    assert read(tmp_path, "output.validation=auto").sha256 == read(tmp_path).sha256
    assert read(tmp_path, "output.validation=none").sha256 != read(tmp_path).sha256


@pytest.mark.parametrize("value", ["0", "-1", "0.5", "some", "true", "null", "[1]"])
def test_what_is_no_number_of_samples_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"output\.validation"):
        read(tmp_path, f"output.validation={value}")


@pytest.mark.parametrize("value", ["all", "10"])
def test_test_samples_may_not_be_asked_for(value: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"output\.validation: must be auto or none"):
        read(tmp_path, "importance.protocol=paper", f"output.validation={value}")
    assert read(tmp_path, "importance.protocol=paper", "output.validation=none").output.validation == "none"


# Files for several readers


@pytest.mark.parametrize(
    ("n", "most"), [(1, 10), (3, 10), (5, 10), (130, 10_000), (130, 1), (41, 10), (100_000, 10_000)]
)
def test_four_readers_have_as_many_files_each(n: int, most: int) -> None:
    n_shards = count_shards(n, most, n_readers=READERS)
    assert n_shards == n or n_shards % READERS == 0
    assert n <= n_shards * most
    assert n_shards - READERS < n / most or n_shards == READERS


@pytest.mark.parametrize("table", ["data", "validation"])
def test_files_hold_equally_many_rows(table: str, tiny_proxy: Path) -> None:
    split = {"data": "train", "validation": "validation"}[table]
    sizes = [pq.read_metadata(path).num_rows for path in (tiny_proxy / "data").glob(f"{split}-*")]
    assert len(sizes) == READERS
    assert np.ptp(sizes) <= 1


STREAM = """
import sys
from datasets import load_dataset
from torch.utils.data import DataLoader

for split, n_workers in zip(("train", "validation"), sys.argv[2:]):
    stream = load_dataset(sys.argv[1], split=split, streaming=True).shuffle(seed=0, buffer_size=50)
    rows = DataLoader(stream.select_columns(["sample_id"]), batch_size=None, num_workers=int(n_workers))
    print(*(row["sample_id"] for row in rows))
"""


def test_a_stream_serves_four_workers_each_sample_once(tiny_proxy: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", STREAM, str(tiny_proxy), str(READERS), str(READERS + 1)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr
    of_splits = (ids(tiny_proxy, "data"), ids(tiny_proxy))
    for line, expected in zip(ran.stdout.splitlines(), of_splits, strict=True):
        assert line.split() != expected
        assert sorted(line.split()) == expected
    assert ran.stderr.count("Too many dataloader workers") == 1  # of one more than there are files
