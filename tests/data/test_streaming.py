"""A source that stays on disk gives the proxy that the same source in memory gives, byte by byte."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from webdataset import TarWriter

import proxyds
from proxyds.data import splits
from proxyds.data.samples import SHARD, StreamedSamples
from proxyds.data.source import load_source
from proxyds.errors import SourceError
from proxyds.progress import ignore_progress
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_stored
from tests.conftest import TINY_RECIPE, read_tree

SAME = ("data", "importance", "evaluation", "webdataset", "assets", "indices.csv", "validation.csv")
SMALL_CIFAR = """\
name: streamed
source: {kind: folder, path: tars, image_size: 8}
space: {network: resnet, choices: {depth: 8, base_filters: [4, 8]}}
training: {epochs: 1, crop_padding: 1}
"""


def write_tars(folder: Path, rows: Sequence[tuple[bytes, int]], n_tars: int, split: str = "train") -> None:
    folder.mkdir(exist_ok=True)
    for tar in range(n_tars):
        with (
            (folder / f"{split}-{tar:03d}.tar").open("wb") as stream,
            TarWriter(stream, encoder=False, mtime=0) as writer,
        ):
            for number, (encoded, label) in list(enumerate(rows))[tar::n_tars]:
                writer.write({"__key__": f"{number:06d}", "cls": b"%d" % label, "png": encoded})


@pytest.fixture(scope="module")
def digits_rows() -> list[tuple[bytes, int]]:
    digits = load_digits()
    rows = []
    for pixels, label in zip(np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target, strict=True):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        rows.append((stream.getvalue(), int(label)))
    return rows


def tars_recipe(write_recipe_file: Callable[..., Path], text: str = TINY_RECIPE) -> proxyds.Recipe:
    return read_recipe(write_recipe_file(text.replace("{kind: digits}", "{kind: folder, path: tars, image_mode: L}")))


def same_files(folder: Path) -> dict[str, bytes]:
    kept = {name: held for name, held in read_tree(folder).items() if name.split("/")[0] in SAME}
    kept.pop("assets/probes.png")  # of losses, which are those of one training
    return kept


def lend_probes(store: Store, to: Path) -> Store:
    """A store that holds the trained probes of another and nothing else."""
    shutil.copytree(store.root / "probes", to / "probes")
    return Store(to)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "sections",
    ["", pytest.param("selection: {ratio: 0.1, draw: successive, labels: {keep: 5}}\n", marks=pytest.mark.slow)],
)
def test_a_streamed_build_gives_the_same_bytes(
    sections: str, digits_rows: list[tuple[bytes, int]], write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_tars(tmp_path / "tars", digits_rows, 5)
    text = TINY_RECIPE.replace("selection: {ratio: 0.1}\n", sections) if sections else TINY_RECIPE
    text += "output: {samples_per_shard: 50}\nsimilarity: {neighbours: 3}\n"
    recipe = tars_recipe(write_recipe_file, text)
    held = proxyds.build(recipe, tmp_path / "held", store=Store(tmp_path / "one"), streamed=False)
    streamed = proxyds.build(recipe, tmp_path / "streamed", store=Store(tmp_path / "two"), streamed=True)
    assert same_files(held.folder) == same_files(streamed.folder)
    assert len(list((streamed.folder / "importance").iterdir())) > 20
    assert streamed.manifest.counts.validation == streamed.manifest.counts.evaluation
    assert streamed.manifest.probes[0].losses == held.manifest.probes[0].losses  # trained from disk
    proxyds.verify_proxy(streamed.folder)


@pytest.mark.e2e
def test_other_tars_of_the_same_samples_give_the_same_selection(
    workers: None, digits_rows: list[tuple[bytes, int]], write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever the shards and the number of workers: only places in the source differ."""
    recipe, drawn = tars_recipe(write_recipe_file, TINY_RECIPE.replace("epochs: 5", "epochs: 2")), []
    for n_tars, n_workers in ((1, 1), (7, 2)):
        shutil.rmtree(tmp_path / "tars", ignore_errors=True)
        write_tars(tmp_path / "tars", digits_rows, n_tars)
        out = tmp_path / f"of-{n_tars}"
        proxyds.build(recipe, out, store=Store(tmp_path / f"store-{n_tars}"), streamed=True, workers=n_workers)
        table = pa.concat_tables([pq.read_table(file) for file in sorted((out / "importance").iterdir())])
        drawn.append(table.drop_columns(["source_index"]).to_pylist())
    assert drawn[0] == drawn[1]
    assert sum(row["selected"] for row in drawn[0]) > 100


def test_samples_are_the_same_in_many_buckets_and_shards(
    digits_rows: list[tuple[bytes, int]],
    write_recipe_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [*digits_rows, *digits_rows[:300], *digits_rows[:20] * 10]  # many repeats
    write_tars(tmp_path / "tars", rows, 4)
    recipe = tars_recipe(write_recipe_file)
    monkeypatch.setattr("proxyds.data.decoding.RUN", 100)
    found = []
    for size in (usual := splits.BUCKET, 64):
        monkeypatch.setattr(splits, "BUCKET", size)
        run = partial(run_stored, store=Store(tmp_path / str(size)), engine=InProcess(), on_progress=ignore_progress)
        found.append(load_source(recipe, run, streamed=True))
    assert usual == 65_536
    one, other = found
    assert one.facts == other.facts
    assert one.facts.n_duplicates["train"] == 500
    for each, again in zip((one.train, one.test), (other.train, other.test), strict=True):
        assert each.fingerprint == again.fingerprint == each.load().fingerprint
        assert each.load().ids.tolist() == again.load().ids.tolist()
        assert np.array_equal(each.pixels()[:], again.pixels()[:])
    base = max(one.train.load().ids, key=len)[:64]
    numbers = [int(each[65:] or 1) for each in one.train.load().ids if each.startswith(base)]
    assert numbers == sorted(numbers)  # 2 before 10


@pytest.mark.e2e
def test_the_size_decides_and_the_plan_says_so(
    digits_rows: list[tuple[bytes, int]],
    write_recipe_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_tars(tmp_path / "tars", digits_rows[:300], 2)
    recipe = tars_recipe(write_recipe_file)
    assert proxyds.plan_build(recipe).source.reading.startswith("held in memory (")
    n_bytes = sum(file.stat().st_size for file in (tmp_path / "tars").iterdir())
    monkeypatch.setattr("proxyds.data.source.measure_memory", lambda: 3 * n_bytes)
    plan = proxyds.plan_build(recipe)
    assert plan.source.reading.startswith("streamed from disk (")
    assert isinstance(plan.source.train, StreamedSamples)
    assert proxyds.plan_build(recipe, streamed=False).source.reading.startswith("held in memory")


def test_pixels_too_many_for_all_workers_stay_on_disk(
    write_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyds.data.source.measure_memory", lambda: 500_000)
    assert isinstance(proxyds.plan_build(write_recipe_file()).source.train, StreamedSamples)


def test_a_tar_that_changed_while_it_was_built_from_is_noticed(
    digits_rows: list[tuple[bytes, int]], write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_tars(tmp_path / "tars", digits_rows, 2)
    recipe = tars_recipe(write_recipe_file)
    run = partial(run_stored, store=Store(tmp_path / "store"), engine=InProcess(), on_progress=ignore_progress)
    source = load_source(recipe, run, streamed=True)
    write_tars(tmp_path / "tars", digits_rows[:100], 2)
    with pytest.raises(SourceError, match="some are gone; build again"):
        source.open_encoded("train", source.train.load().source_index)


@pytest.mark.e2e
def test_a_streamed_proxy_is_checked_and_drawn_again(
    digits_rows: list[tuple[bytes, int]], write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    write_tars(tmp_path / "tars", digits_rows, 3)
    text = TINY_RECIPE.replace("depth: 8", "depth: [8, 14]").replace("epochs: 5", "epochs: 2")
    recipe = tars_recipe(write_recipe_file, text + "check: {architectures: 5, draws: 1, full_seeds: 1}\n")
    store = Store(tmp_path / "store")
    tables = []
    for streamed in (True, False):
        built = proxyds.build(recipe, tmp_path / f"proxy-{streamed}", store=store, streamed=streamed)
        tables.append(pq.read_table(built.folder / "ranking").to_pylist())
    assert tables[0] == tables[1]
    keys = {entry.key for entry in store.entries() if entry.stage == "check"}
    assert len(keys) == len(tables[0])  # each training once: what was trained from disk is found again
    again = proxyds.resample(
        tmp_path / "proxy-True",
        tmp_path / "again",
        overrides=[f"source.path={tmp_path / 'tars'}", "selection.ratio=0.2"],
    )
    assert again.manifest.counts.proxy == round(0.2 * built.manifest.counts.train)


@pytest.mark.slow
def test_the_real_cifar10_from_tars_gives_the_very_selection(
    data_folder: Path, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    for split in ("train", "test"):
        files = sorted((data_folder / "cifar10").glob(f"{split}-*.parquet"))
        table = pa.concat_tables([pq.read_table(file) for file in files])
        rows = [(row["image"]["bytes"], row["label"]) for row in table.to_pylist()]
        write_tars(tmp_path / "tars", rows, 10, split)
    recipe = read_recipe(write_recipe_file(SMALL_CIFAR))
    store = Store(tmp_path / "store")
    held = proxyds.build(recipe, tmp_path / "held", store=store, streamed=False)
    lent = lend_probes(store, tmp_path / "other")
    streamed = proxyds.build(recipe, tmp_path / "streamed", store=lent, streamed=True)
    assert held.manifest.counts.train == 45_000 > 5 * SHARD
    assert same_files(held.folder) == same_files(streamed.folder)
    assert {stage.stage: stage.was_stored for stage in streamed.manifest.stages}["probes"]
