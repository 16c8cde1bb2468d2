"""A proxy as a torch data set: the very images that networks saw, and its source's held-out samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import proxyds
from proxyds.artifact.tables import read_proxy
from proxyds.data.samples import Source
from proxyds.data.source import load_source
from proxyds.errors import (
    ArgumentError,
    ArtifactError,
    ChangedSourceError,
    ProxydsError,
    SourceError,
    SplitNotFoundError,
)
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_stored
from tests.artifact.hostile import OLDER
from tests.conftest import TINY_RECIPE


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("reduced")
    text = TINY_RECIPE.replace("{ratio: 0.1}", "{ratio: 0.1, labels: {keep: 4}}")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return proxyds.build(folder / "recipe.yaml", folder / "proxy", store=Store(session_store), device="cpu").folder


def source_of(proxy: Path, store: Path) -> Source:
    recipe = proxyds.read_recipe(proxy / "recipe.yaml")
    return load_source(
        recipe, partial(run_stored, store=Store(store), engine=InProcess(), on_progress=lambda progress: None)
    )


def test_the_proxy_holds_the_pixels_and_labels_that_networks_are_trained_on(
    tiny_proxy: Path, session_store: Path
) -> None:
    images, labels = proxyds.torch_dataset(tiny_proxy).tensors
    _, tables = read_proxy(tiny_proxy)
    train = source_of(tiny_proxy, session_store).train
    chosen = train.take(np.array(tables.importance["selected"].to_pylist()))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal((images * 255).round().to(torch.uint8), torch.from_numpy(chosen.pixels()))
    assert labels.tolist() == chosen.labels.tolist()
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("split", ["evaluation", "test"])
def test_held_out_samples_are_the_sources(tiny_proxy: Path, session_store: Path, split: str) -> None:
    images, labels = proxyds.torch_dataset(tiny_proxy, split).tensors
    held_out = getattr(source_of(tiny_proxy, session_store), split)
    assert torch.equal((images * 255).round().to(torch.uint8), torch.from_numpy(held_out.pixels()))
    assert labels.tolist() == held_out.labels.tolist()


def test_the_splits_share_no_sample(tiny_proxy: Path) -> None:
    rows = [
        {(label.item(), image.numpy().tobytes()) for image, label in proxyds.torch_dataset(tiny_proxy, split)}
        for split in ("train", "validation", "test")
    ]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_a_loader_takes_it_as_it_is(tiny_proxy: Path) -> None:
    images, labels = next(iter(DataLoader(proxyds.torch_dataset(tiny_proxy), batch_size=16, shuffle=True)))
    assert images.shape == (16, 1, 8, 8)
    assert labels.shape == (16,)


def test_with_kept_labels_all_splits_number_them_alike(reduced: Path) -> None:
    manifest, tables = read_proxy(reduced)
    kept = manifest.kept_labels
    assert kept is not None
    train, validation, evaluation, test = (
        proxyds.torch_dataset(reduced, split).tensors[1] for split in proxyds.torch_data.SPLITS
    )
    assert train.tolist() == tables.data["label"].to_pylist()
    of_kept = [kept.index(label) for label in tables.evaluation["label"].to_pylist() if label in kept]
    assert validation.tolist() == evaluation.tolist() == of_kept
    assert set(test.tolist()) == {0, 1, 2, 3}


def test_samples_to_rank_on_need_no_source(tmp_path: Path, tiny_proxy: Path) -> None:
    proxy = Path(shutil.copytree(tiny_proxy, tmp_path / "proxy"))
    held_out = proxyds.torch_dataset(proxy, "evaluation").tensors
    (proxy / "recipe.yaml").unlink()  # which tells where the source lies
    assert all(map(torch.equal, proxyds.torch_dataset(proxy, "validation").tensors, held_out))
    with pytest.raises(ProxydsError):
        proxyds.torch_dataset(proxy, "evaluation")


def test_a_proxy_that_holds_none_says_where_they_are(tmp_path: Path, tiny_proxy: Path) -> None:
    bare = proxyds.resample(tiny_proxy, tmp_path / "bare", overrides=["output.validation=none"]).folder
    for proxy in (bare, OLDER):
        with pytest.raises(SplitNotFoundError, match="split `evaluation`"):
            proxyds.torch_dataset(proxy, "validation")
    assert len(proxyds.torch_dataset(bare)) == len(proxyds.torch_dataset(tiny_proxy))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_plain_datasets_is_enough(tiny_proxy: Path, tmp_path: Path, split: str) -> None:
    loaded = datasets.load_dataset(str(tiny_proxy), split=split, cache_dir=str(tmp_path)).with_format("torch")
    images, labels = proxyds.torch_dataset(tiny_proxy, split).tensors
    assert torch.equal(loaded[:]["label"], labels)
    assert torch.equal(torch.stack(list(loaded[:]["image"])).reshape(images.shape).float() / 255, images)


def test_images_come_in_the_size_that_networks_saw(
    tmp_path: Path, session_store: Path, write_recipe_file: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 20)):
        for label, level in (("dark", 20), ("light", 200)):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(level, level + 50, (17, 23, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    text = (
        TINY_RECIPE.replace("{kind: digits}", "{kind: folder, path: images, image_mode: L, image_size: 9}")
        .replace("crop_padding: 1", "crop_padding: 0")
        .replace("ratio: 0.1", "ratio: 0.3")
    )
    proxy = proxyds.build(
        write_recipe_file(text), tmp_path / "proxy", store=Store(session_store), device="cpu", workers=1
    ).folder
    images = proxyds.torch_dataset(proxy).tensors[0]
    assert images.shape[1:] == (1, 9, 9)
    with pytest.raises(SourceError, match="images"):  # a recipe in a proxy does not know where the data lies
        proxyds.torch_dataset(proxy, "test", store=Store(tmp_path / "empty"))
    held_out = proxyds.torch_dataset(proxy, "test", source=tmp_path / "images")
    assert held_out.tensors[0].shape == (40, 1, 9, 9)
    (tmp_path / "images" / "test" / "dark" / "0.png").unlink()
    with pytest.raises(ChangedSourceError, match="its test samples or its labels' names are others"):
        proxyds.torch_dataset(proxy, "test", source=tmp_path / "images")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_source_is_refused_where_the_proxy_holds_the_samples(tiny_proxy: Path, split: str) -> None:
    with pytest.raises(ArgumentError, match="source: must be left out"):
        proxyds.torch_dataset(tiny_proxy, split, source=".")


def test_what_is_not_there_is_refused_by_name(tiny_proxy: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitNotFoundError, match="must be one of train, validation, evaluation, test, got 'val'"):
        proxyds.torch_dataset(tiny_proxy, "val")
    with pytest.raises(ArtifactError):
        proxyds.torch_dataset(tmp_path)
    damaged = Path(shutil.copytree(tiny_proxy, tmp_path / "proxy"))
    (damaged / "manifest.json").write_text((damaged / "manifest.json").read_text().replace('"image_shape"', '"other"'))
    with pytest.raises(ArtifactError, match=r"format 1\.0 did not; build it again"):
        proxyds.torch_dataset(damaged)


@pytest.mark.parametrize("held", [b"", b"GIF89a"])
def test_a_strangers_image_that_does_not_decode_is_named(tiny_proxy: Path, tmp_path: Path, held: bytes) -> None:
    proxy = Path(shutil.copytree(tiny_proxy, tmp_path / "proxy"))
    file = min((proxy / "data").glob("train-*.parquet"))
    table = pq.read_table(file)
    images = table["image"].to_pylist()
    images[2]["bytes"] = held
    place = table.schema.get_field_index("image")
    field = table.schema.field("image")
    pq.write_table(table.set_column(place, field, pa.array(images, field.type)), file)
    with pytest.raises(ArtifactError, match="image 2 of data must decode to 1x8x8 pixels, it does not"):
        proxyds.torch_dataset(proxy)


@pytest.mark.parametrize("shape", [[2, 8, 8], [1, -8, 8], [1, 8, 100_000], [1, 8], "8x8"])
def test_a_strangers_image_shape_is_refused(tiny_proxy: Path, tmp_path: Path, shape: object) -> None:
    proxy = Path(shutil.copytree(tiny_proxy, tmp_path / "proxy"))
    about = json.loads((proxy / "manifest.json").read_text()) | {"image_shape": shape}
    (proxy / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match="image_shape"):
        proxyds.torch_dataset(proxy)


def test_a_strangers_image_of_another_shape_is_named(
    tiny_proxy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyds.torch_data.convert_image", lambda image, spec: np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(ArtifactError, match="image 0 of data must decode to 1x8x8 pixels, it does not: it has 1x1x1"):
        proxyds.torch_dataset(tiny_proxy)


@pytest.mark.parametrize("function", [proxyds.torch_dataset, proxyds.open])
def test_what_is_no_store_is_refused(tiny_proxy: Path, function: Callable[..., object]) -> None:
    place = "user/name@v1.0.0" if function is proxyds.open else tiny_proxy
    options = {} if function is proxyds.open else {"split": "test"}
    with pytest.raises(ArgumentError, match=r"store: must be a proxyds\.Store, got"):
        function(place, store="/tmp/store", **options)
