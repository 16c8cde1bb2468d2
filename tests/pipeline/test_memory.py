"""A proxy of data in memory is the proxy of the same samples on disk, and works as any other where the data are passed again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Subset

import proxyds
from proxyds.errors import ChangedSourceError, RecipeError, SourceError, SourceNotFoundError
from proxyds.runtime.storage.store import Store
from tests.conftest import Run, check_manners, read_tree

pytestmark = pytest.mark.e2e

RECIPE = """\
name: tiny
source: {kind: folder, path: pictures, image_mode: L}
space: {network: resnet, choices: {depth: 8, base_filters: [4, 6, 8], multiplier: [1, 2]}}
selection: {ratio: 0.2}
training: {epochs: 5, batch_size: 16, learning_rate: 0.02, crop_padding: 0, horizontal_flip: false}
"""
SAME = ("data", "importance", "evaluation", "webdataset", "indices.csv", "validation.csv")


def load_some_digits() -> tuple[Any, list[str]]:
    """Loads the digits 0 to 3."""
    images, labels = load_digits(n_class=4, return_X_y=True)
    return np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), [f"digit {label}" for label in labels]


IMAGES, LABELS = load_some_digits()


def in_order_of_folder(images: Any, labels: list[str]) -> tuple[Any, list[str]]:
    """Puts samples into the order that they have in label folders: places in the source stand in tables and tars."""
    order = sorted(range(len(labels)), key=lambda place: (labels[place], place))
    return images[order], [labels[place] for place in order]


IMAGES, LABELS = in_order_of_folder(IMAGES, LABELS)


def write_folder(folder: Path, images: Any = IMAGES, labels: Any = LABELS) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{number:04d}.png")
    return folder


def same_files(folder: Path) -> dict[str, bytes]:
    return {name: held for name, held in read_tree(folder).items() if name.split("/")[0] in SAME}


def list_drawn(folder: Path) -> list[tuple[str, int, bytes]]:
    table = pa.concat_tables(map(pq.read_table, sorted((folder / "data").glob("train-*.parquet"))))
    images = [image["bytes"] for image in table["image"].to_pylist()]
    return list(zip(table["sample_id"].to_pylist(), table["label"].to_pylist(), images, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a proxy `on-disk` of pictures, and one of the same in memory, `in-memory`, with a store that knows of neither place."""
    folder = tmp_path_factory.mktemp("memory")
    write_folder(folder / "pictures")
    (folder / "recipe.yaml").write_text(RECIPE)
    how: Any = {"store": Store(folder / "first-store")}
    on_disk = proxyds.build(folder / "recipe.yaml", folder / "on-disk", **how).manifest
    built = proxyds.build(folder / "recipe.yaml", folder / "in-memory", source=(IMAGES, LABELS), **how).manifest
    assert [each.was_stored for each in built.stages if each.stage == "probes"] == [True]
    assert built.source.fingerprint == on_disk.source.fingerprint
    assert built.recipe_sha256 != on_disk.recipe_sha256
    return folder


@pytest.fixture
def how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    return {"store": Store(tmp_path / "store"), "device": "cpu"}


def test_it_has_the_bytes_of_the_one_from_files(folder: Path) -> None:
    assert same_files(folder / "in-memory") == same_files(folder / "on-disk")
    assert proxyds.verify_proxy(folder / "in-memory").source.kind == "memory"


def test_who_builds_it_again_is_told_what_to_pass(folder: Path, how: dict[str, Any], run_here: Run) -> None:
    recipe = folder / "in-memory" / "recipe.yaml"
    for make in (proxyds.build, lambda recipe, out, **how: proxyds.plan_build(recipe, **how)):
        with pytest.raises(SourceNotFoundError, match=r"'data in memory', fingerprint \w{16}.*source=\.\.\."):
            make(recipe, folder / "again", **how)
        with pytest.raises(ChangedSourceError, match="pass the data that the recipe is of"):
            make(recipe, folder / "again", source=(IMAGES[1:], LABELS[1:]), **how)
    assert not (folder / "again").exists()
    again = proxyds.build(recipe, folder / "in-memory", source=(IMAGES[::-1], LABELS[::-1]), **how)
    assert again.was_there
    for command in (["build", recipe, "-o", "new"], ["check", folder / "in-memory"], ["inspect", recipe]):
        done = run_here(*command)
        check_manners(done)
        assert done.returncode == 20
        assert "'data in memory'" in done.stderr


def test_it_is_checked_and_drawn_again_with_the_data_in_any_form(
    folder: Path, how: dict[str, Any], tmp_path: Path
) -> None:
    place, table = (
        folder / "in-memory",
        datasets.Dataset.from_dict({"image": [Image.fromarray(image) for image in IMAGES], "label": LABELS}).shuffle(
            seed=0
        ),
    )
    for forget in (
        lambda: proxyds.plan_check(place, **how),
        lambda: proxyds.resample(place, tmp_path / "half", **how),
        lambda: proxyds.apply(place, tmp_path / "applied", **how),
        lambda: proxyds.torch_dataset(place, "test", store=how["store"]),
    ):
        with pytest.raises(SourceNotFoundError, match="a Python program must pass the same data"):
            forget()
    with pytest.raises(ChangedSourceError, match="1 are gone"):
        proxyds.resample(place, tmp_path / "half", source=(IMAGES[1:], LABELS[1:]), **how)
    assert proxyds.plan_check(place, source=table, **how).runs
    held_out = proxyds.torch_dataset(place, "test", source=(IMAGES, LABELS), store=how["store"])
    assert len(held_out) == proxyds.read_manifest(place).counts.test
    for name, source in (("memory", table), ("disk", folder / "pictures")):
        drawn = proxyds.resample(
            place, tmp_path / name, overrides=["selection.ratio=0.4"], source=source, **how
        ).manifest
        assert (drawn.source.kind, drawn.source.name) == ("memory", "data in memory")
    assert list_drawn(tmp_path / "memory") == list_drawn(tmp_path / "disk")
    with pytest.raises(SourceError, match="must pass the same data"):
        proxyds.resample(place, tmp_path / "other", source=proxyds.read_recipe(place / "recipe.yaml"), **how)
    applied = proxyds.apply(place, tmp_path / "applied", source=[*zip(IMAGES, LABELS, strict=True)], **how)
    assert list_drawn(applied.folder) == list_drawn(place)


def test_data_in_memory_stand_for_a_folder_and_a_folder_for_what_a_recipe_says(
    folder: Path, how: dict[str, Any], tmp_path: Path
) -> None:
    drawn = proxyds.resample(folder / "on-disk", tmp_path / "new", source=(IMAGES, LABELS), **how).manifest
    assert (drawn.source.kind, drawn.source.name) == ("folder", "pictures")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("source: {kind: folder, path: pictures, image_mode: L}\n", ""))
    for source, kind in ((folder / "pictures", "folder"), (proxyds.read_recipe(folder / "recipe.yaml"), "folder")):
        plan = proxyds.plan_build(recipe, source=source, **how)
        assert plan.source.facts.kind == kind
        assert plan.source.facts.fingerprint == drawn.source.fingerprint
    assert proxyds.plan_build(recipe, source=(IMAGES, LABELS), **how).source.image_shape == (1, 8, 8)
    with pytest.raises(RecipeError):
        proxyds.plan_build(recipe, source=write_folder(tmp_path / "f", IMAGES[:1], LABELS[:1]) / LABELS[0] / "0000.png")


def test_the_real_cifar10_gives_the_same_proxy_from_memory_and_from_disk(data_folder: Path, tmp_path: Path) -> None:
    two = datasets.load_dataset(str(data_folder / "cifar10"), split="train", cache_dir=str(tmp_path / "cache"))
    two = two.select(range(2000)).filter(lambda label: label in (0, 6), input_columns="label")
    (tmp_path / "encoded").mkdir()
    two.to_parquet(tmp_path / "encoded" / "train.parquet")
    images, names = np.stack([np.asarray(image) for image in two["image"]]), two.features["label"].names
    images, texts = in_order_of_folder(images, [names[label] for label in two["label"]])
    write_folder(tmp_path / "png", images, texts)
    sources: dict[str, Any] = {
        "files": tmp_path / "encoded",
        "table": two,
        "png": tmp_path / "png",
        "arrays": (images, texts),
        "pairs": Subset([*zip(map(Image.fromarray, images), texts, strict=True)], range(len(two))),
    }
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.replace(
            "kind: folder, path: pictures, image_mode: L",
            "kind: memory, image_size: 8, image_mode: RGB, validation_fraction: 0.3",
        )
    )
    built = {}
    for name, source in sources.items():
        out = tmp_path / f"proxy-{name}"
        manifest = proxyds.build(tmp_path / "recipe.yaml", out, source=source, store=Store(tmp_path / "store")).manifest
        built[name] = (manifest, same_files(out))
    for name, other in (("table", "files"), ("arrays", "png"), ("pairs", "png")):
        assert built[name][0].source.fingerprint == built[other][0].source.fingerprint
        assert built[name][1] == built[other][1], name
    table = datasets.load_dataset(str(tmp_path / "proxy-table"), split="train", cache_dir=str(tmp_path / "cache"))
    held = {image["bytes"] for image in two.cast_column("image", datasets.Image(decode=False))["image"]}
    drawn = table.cast_column("image", datasets.Image(decode=False))["image"]
    assert drawn
    assert all(image["bytes"] in held for image in drawn)
    with Image.open(io.BytesIO(drawn[0]["bytes"])) as image:
        assert image.format == "WEBP"
