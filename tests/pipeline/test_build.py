"""A build from end to end: what it gives, that it gives the same again, and that it goes on where it was."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

import proxyds
from proxyds.artifact.reader import verify_proxy
from proxyds.artifact.tables import read_tables
from proxyds.data.source import load_source
from proxyds.errors import OutputExistsError, VerificationError
from proxyds.progress import Progress, StageEnded, ignore_progress
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_stored
from tests.conftest import TINY_RECIPE, copy_store

IDENTICAL = ("data", "importance", "evaluation", "webdataset", "indices.csv", "validation.csv", "recipe.yaml")
"""What two builds of one recipe share byte by byte; the rest holds times."""


def tiny(**sections: str) -> proxyds.Recipe:
    text = TINY_RECIPE
    for name, value in sections.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{name}:")]
        text = "\n".join([*lines, f"{name}: {value}"])
    path = Path(os.environ["PROXYDS_STORE"]) / "recipe.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return proxyds.read_recipe(path)


def identical_bytes(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.relative_to(folder).parts[0] in IDENTICAL}


def names_of_stored_work(store: Path) -> list[str]:
    return sorted(entry.name for entry in Store(store).entries())


def test_the_tables_say_one_thing(tiny_proxy: Path) -> None:
    tables = read_tables(tiny_proxy)
    data, importance, evaluation = (t.to_pylist() for t in (tables.data, tables.importance, tables.evaluation))
    assert len(data) == round(0.1 * len(importance)) == sum(row["selected"] for row in importance)
    by_id = {row["sample_id"]: row for row in importance}
    assert len(by_id) == len(importance)
    for row in data:
        same = by_id[row["sample_id"]]
        assert same["selected"]
        assert {k: row[k] for k in row if k != "image"} == {k: same[k] for k in row if k != "image"}
    assert sum(row["keep_probability"] for row in importance) == pytest.approx(1)
    assert sum(row["inclusion_probability"] for row in importance) == pytest.approx(len(data))
    cases = {row["sample_id"]: (row["case"], row["importance"]) for row in evaluation}
    assert all(cases[row["nearest_evaluation_id"]] == (row["case"], row["importance"]) for row in importance)
    assert not set(cases) & set(by_id)


def test_cases_follow_from_the_predictions_that_stand_beside_them(tiny_proxy: Path) -> None:
    for row in read_tables(tiny_proxy).evaluation.to_pylist():
        assert row["correct"] == [label == row["label"] for label in row["predicted"]]
        lower, upper = row["correct"]  # the heavier of the two is the more accurate here
        assert row["case"] == {(True, True): 1, (False, False): 2, (False, True): 3, (True, False): 4}[lower, upper]
        assert row["importance"] == (2, 1, 6, 1)[row["case"] - 1]


def test_load_dataset_opens_it_without_proxyds(tiny_proxy: Path, tmp_path: Path) -> None:
    code = f"""
import sys, json
sys.modules["proxyds"] = None
from datasets import load_dataset
d = load_dataset({str(tiny_proxy)!r}, split="train")
s = next(iter(load_dataset({str(tiny_proxy)!r}, split="train", streaming=True)))
t = load_dataset({str(tiny_proxy)!r}, data_files="webdataset/train-*.tar", split="train")
v = load_dataset({str(tiny_proxy)!r})["validation"]
print(json.dumps({{
    "n": len(d), "n_validation": len(v), "same_columns": v.features == d.features, "image": d[0]["image"].size, "label": d.features["label"].names, "kinds": [type(f).__name__ for f in d.features.values()],
    "importance": len(load_dataset({str(tiny_proxy)!r}, "importance", split="train")),
    "evaluation": load_dataset({str(tiny_proxy)!r}, "evaluation")["evaluation"].num_rows,
    "streamed": s["sample_id"] == d[0]["sample_id"] and s["image"].tobytes() == d[0]["image"].tobytes(),
    "tars": len(t), "same_label": t[0]["cls"] == d[0]["label"],
}}))
"""
    # a cache of its own: offline, `datasets` may answer with another folder of the same name
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf-home")}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    seen = json.loads(ran.stdout)
    assert seen == {
        "n": 130,
        "n_validation": 143,
        "same_columns": True,
        "image": [8, 8],
        "label": [str(digit) for digit in range(10)],
        "kinds": ["Image", "ClassLabel", *["Value"] * 8],
        "importance": 1295,
        "evaluation": 143,
        "streamed": True,
        "tars": 130,
        "same_label": True,
    }


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves its files to the collector
@pytest.mark.parametrize(("split", "table"), [("train", "data"), ("validation", "validation")])
def test_webdataset_reads_the_tars(split: str, table: str, tiny_proxy: Path) -> None:
    tars = sorted(str(path) for path in (tiny_proxy / "webdataset").glob(f"{split}-*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    rows = getattr(read_tables(tiny_proxy), table).to_pylist()
    assert [sample["__key__"] for sample in samples] == [row["sample_id"] for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        assert sample["cls"] == row["label"]
        assert sample["json"]["case"] == row["case"]
        assert sample["png"].size == (8, 8)


@pytest.mark.parametrize(("split", "table"), [("train", "data"), ("evaluation", "validation")])
def test_images_are_the_sources_bytes(split: str, table: str, tiny_proxy: Path, tmp_path: Path) -> None:
    source = load_source(
        tiny(), partial(run_stored, store=Store(tmp_path), engine=InProcess(), on_progress=ignore_progress)
    )
    rows = getattr(read_tables(tiny_proxy), table).to_pylist()
    samples = getattr(source, split)
    position = {sample_id: i for i, sample_id in enumerate(samples.ids)}
    chosen = samples.take(np.array([position[row["sample_id"]] for row in rows]))
    assert [row["image"]["bytes"] for row in rows] == source.open_encoded(chosen.origin.split, chosen.source_index)(
        chosen
    )
    with Image.open(io.BytesIO(rows[0]["image"]["bytes"])) as image:
        assert (np.asarray(image) == chosen.pixels()[0, 0]).all()


def test_two_builds_give_identical_bytes_whatever_the_number_of_workers(
    workers: None, tiny_proxy: Path, tmp_path: Path
) -> None:
    built = proxyds.build(tiny(), tmp_path / "all", store=Store(tmp_path / "store"), device="cpu")
    assert built.manifest.machine.n_workers == built.manifest.machine.n_cores
    assert identical_bytes(built.folder) == identical_bytes(tiny_proxy)  # which was built in one process


def test_a_proxy_says_how_its_networks_computed(tiny_proxy: Path) -> None:
    manifest = verify_proxy(tiny_proxy)
    assert manifest.machine.n_workers == 1  # see `shortcuts.py`
    assert manifest.machine.computations == {each.name: "contiguous, float32, 1 thread" for each in manifest.probes}
    card = (tiny_proxy / "README.md").read_text(encoding="utf-8")
    n = manifest.machine.n_cores
    assert f"{n} cores, 1 at once; networks in contiguous, float32, 1 thread" in card


def test_another_ratio_trains_nothing(tiny_proxy: Path, tmp_path: Path, session_store: Path) -> None:
    session_store = copy_store(session_store, tmp_path / "store").root
    before = names_of_stored_work(session_store)
    built = proxyds.build(
        tiny(selection="{ratio: 0.25, draw: successive}"), tmp_path / "p", store=Store(session_store), device="cpu"
    )
    assert built.manifest.counts.proxy == round(0.25 * 1295)
    assert names_of_stored_work(session_store) == before
    assert {s.stage: s.was_stored for s in built.manifest.stages if s.stage in ("probes", "features")} == {
        "probes": True,
        "features": True,
    }
    assert read_tables(built.folder).data["inclusion_probability"].null_count == built.manifest.counts.proxy


@pytest.mark.e2e
def test_what_changes_a_probe_trains_it_again_and_shows_how_far_it_is(tmp_path: Path, session_store: Path) -> None:
    copy, steps = tmp_path / "store", list[Progress | StageEnded]()
    n = len(copy_store(session_store, copy).entries())
    proxyds.build(tiny(seed="1"), tmp_path / "p", store=Store(copy), device="cpu", on_progress=steps.append)
    added = [entry.name for entry in Store(copy).entries()[n:]]
    assert sum(name.startswith("probe ") for name in added) == 2
    stages = [step.stage for step in steps if isinstance(step, StageEnded)]
    assert stages == ["source", "space", "probes", "importance", "features", "similarity", "selection", "artifact"]
    epochs = [step for step in steps if step.stage == "probes" and isinstance(step, Progress)]
    assert epochs[-1].total == 5
    assert any(step.note.startswith("loss ") for step in epochs)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "1"},
        {"training": "{epochs: 6, batch_size: 32, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}"},
        {"source": "{kind: digits, validation_fraction: 0.2}"},
        {"source": "{kind: digits, image_size: 16}"},
        {"probes": "{epochs: 2}"},
    ],
)
def test_a_probes_key_changes_with_whatever_changes_it(
    change: dict[str, str], session_store: Path, tiny_proxy: Path
) -> None:
    store = Store(session_store)
    assert tiny_proxy.exists()
    assert all(planned.is_stored for planned in proxyds.plan_build(tiny(), store=store, device="cpu").probes)
    assert not any(
        planned.is_stored for planned in proxyds.plan_build(tiny(**change), store=store, device="cpu").probes
    )


def test_probes_may_train_for_fewer_epochs_than_a_check(session_store: Path) -> None:
    recipe = tiny(probes="{epochs: 2}")
    plans = [proxyds.plan_build(each, store=Store(session_store), device="cpu").probes for each in (tiny(), recipe)]
    costs = [[planned.flops for planned in probes] for probes in plans]
    assert [few / many for many, few in zip(*costs, strict=True)] == pytest.approx([2 / tiny().training.epochs] * 2)
    assert tiny(probes="{epochs: null}").sha256 == tiny().sha256 != recipe.sha256


@pytest.mark.e2e
def test_the_papers_protocol_draws_from_everything_and_says_so(tmp_path: Path, session_store: Path) -> None:
    built = proxyds.build(
        tiny(importance="{protocol: paper}"), tmp_path / "p", store=Store(session_store), device="cpu"
    )
    counts = built.manifest.counts
    assert (counts.train, counts.evaluation, counts.test) == (1438, 359, 359)
    assert counts.validation == 0  # they are the test samples
    assert not [name for name in built.manifest.files if "validation" in name]
    assert "Evaluation samples and test samples are the same" in (built.folder / "README.md").read_text()
    assert "The paper's own protocol" in (built.folder / "README.md").read_text()
    assert "choose the proxy, see above" in (built.folder / "README.md").read_text()


@pytest.mark.e2e
def test_more_probes_another_layer_and_several_neighbours(tmp_path: Path, session_store: Path) -> None:
    recipe = tiny(
        probes="{count: 3, epochs: 4}", similarity="{layer: stages.1, neighbours: 3, metric: cosine, dimensions: 4}"
    )
    built = proxyds.build(recipe, tmp_path / "p", store=Store(session_store), device="cpu")
    assert [len(probe.losses) for probe in built.manifest.probes] == [4, 4, 4] != [recipe.training.epochs] * 3
    assert "; of probes for 4 epochs." in (built.folder / "README.md").read_text()
    assert built.manifest.mapping.n_dimensions == 4
    evaluation = read_tables(built.folder).evaluation.to_pylist()
    assert all(len(row["correct"]) == 3 for row in evaluation)
    assert all(
        sum(row[f"pairs_{name}"] for name in ("all_right", "all_wrong", "with_order", "against_order")) == 3
        for row in evaluation
    )


def test_small_shards_hold_the_same_samples(tiny_proxy: Path, tmp_path: Path, session_store: Path) -> None:
    built = proxyds.build(
        tiny(output="{samples_per_shard: 20}"), tmp_path / "p", store=Store(session_store), device="cpu"
    )
    files = sorted(path.name for path in (built.folder / "data").iterdir())
    assert files == [f"{split}-0000{i}-of-00008.parquet" for split in ("train", "validation") for i in range(8)]
    assert len(list((built.folder / "webdataset").iterdir())) == 16
    for table in ("data", "validation"):
        assert getattr(read_tables(built.folder), table).equals(getattr(read_tables(tiny_proxy), table))
    sizes = [pq.read_table(built.folder / "data" / name).num_rows for name in files]
    assert sizes == [16, 16, 16, 17, 16, 16, 16, 17, 17, 18, 18, 18, 18, 18, 18, 18]


def find_warnings(steps: list[Progress | StageEnded]) -> str:
    return " ".join(step.warning for step in steps if isinstance(step, StageEnded))


def test_a_proxy_that_is_there_is_left_alone_and_replaced_only_by_force(
    tmp_path: Path, session_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, store = tmp_path / "p", Store(session_store)
    first = proxyds.build(tiny(), out, store=store, device="cpu")
    inode = (out / "manifest.json").stat().st_ino
    assert proxyds.build(tiny(), out, store=store, device="cpu").was_there
    assert (out / "manifest.json").stat().st_ino == inode
    with monkeypatch.context() as patched:
        patched.setattr("proxyds.pipeline.build.open_build", None)  # the recipe alone tells
        with pytest.raises(OutputExistsError, match="of another recipe, source or code of networks"):
            proxyds.build(tiny(selection="{ratio: 0.2}"), out, store=store, device="cpu")
    assert verify_proxy(out) == first.manifest
    (out / "data" / "my-notes.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"nothing else to be replaced, found data/my-notes\.txt"):
        proxyds.build(tiny(selection="{ratio: 0.2}"), out, store=store, device="cpu", force=True)
    (out / "data" / "my-notes.txt").unlink()
    steps, again = list[Progress | StageEnded](), list[Progress | StageEnded]()
    larger = tiny(selection="{ratio: 0.2}")
    replaced = proxyds.build(larger, out, store=store, device="cpu", force=True, on_progress=steps.append)
    assert "version: tiny 1.0.0 is the proxy that gives way" in find_warnings(steps)
    replaced = proxyds.build(larger, out, store=store, device="cpu", force=True, on_progress=again.append)
    assert "version:" not in find_warnings(again)
    assert verify_proxy(out).counts.proxy == 259 == replaced.manifest.counts.proxy
    (out / "recipe.yaml").write_text("damaged")
    with pytest.raises(VerificationError, match=r"force=True .--force. builds it anew"):
        proxyds.build(tiny(selection="{ratio: 0.2}"), out, store=store, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_nothing_that_appears_during_a_build_is_overwritten(tmp_path: Path, session_store: Path) -> None:
    out = tmp_path / "p"

    def intrude(step: Progress | StageEnded) -> None:
        if step.stage == "selection":
            out.mkdir(exist_ok=True)
            (out / "mine").write_text("precious")

    with pytest.raises(OutputExistsError, match="not touched"):
        proxyds.build(tiny(), out, store=Store(session_store), device="cpu", on_progress=intrude)
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "mine"]


def write_folder(folder: Path, names: list[str]) -> Path:
    """Images of two kinds, bright above or below, as parquet."""
    rng, images, labels = np.random.default_rng(0), [], []
    for i in range(600):
        pixels = rng.integers(0, 60, (8, 8), dtype=np.uint8)
        pixels[:4] += np.uint8(150 * (i % 2))
        pixels[4:] += np.uint8(150 * (1 - i % 2))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": None})
        labels.append(names.index("up" if i % 2 else "down"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    folder.mkdir(parents=True)
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    table.to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


@pytest.mark.e2e
def test_probes_are_not_shared_between_sources_that_number_labels_otherwise(tmp_path: Path) -> None:
    store, proxies = Store(tmp_path / "store"), []
    for i, names in enumerate((["up", "down"], ["down", "up"], ["up", "down", "sideways"])):
        text = TINY_RECIPE.replace(
            "{kind: digits}", f"{{kind: folder, path: {write_folder(tmp_path / str(i) / 'd', names)}, image_mode: L}}"
        )
        (tmp_path / f"{i}.yaml").write_text(text.replace("ratio: 0.1", "ratio: 0.2"))
        proxies.append(proxyds.build(tmp_path / f"{i}.yaml", tmp_path / f"p{i}", store=store, device="cpu", workers=1))
    assert len({built.manifest.recipe_sha256 for built in proxies}) == 1  # the path is no part of it
    assert len({built.manifest.source.fingerprint for built in proxies}) == 3
    assert sum(entry.stage == "probes" for entry in store.entries()) == 6


def test_nothing_in_a_proxy_names_a_place_on_this_machine(tiny_proxy: Path) -> None:
    places = [str(Path.home()), str(tiny_proxy.parent), os.environ["PROXYDS_STORE"], os.uname().nodename]
    for path in [p for p in tiny_proxy.rglob("*") if p.is_file()]:
        held = path.read_bytes()
        assert not [place for place in places if len(place) > 3 and place.encode() in held], path


SLOW_HEAVY = TINY_RECIPE.replace("base_filters: [4, 8]", "base_filters: [2, 16]").replace("epochs: 5", "epochs: 6")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proxy of `SLOW_HEAVY`, built without a stop."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "recipe.yaml").write_text(SLOW_HEAVY, encoding="utf-8")
    recipe = proxyds.read_recipe(folder / "recipe.yaml")
    return proxyds.build(recipe, folder / "p", store=Store(folder / "store"), device="cpu").folder


@pytest.mark.e2e
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_build_stopped_in_its_second_probe_goes_on_where_it_was(
    how: signal.Signals, undisturbed: Path, write_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, store = write_recipe_file(SLOW_HEAVY), tmp_path / "store"
    command = [sys.executable, "-m", "proxyds", "build", str(recipe), "-o", str(tmp_path / "p"), "--quiet"]
    environment = {**os.environ, "PROXYDS_STORE": str(store)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 240
    while not any(name.startswith("probe ") for name in names_of_stored_work(store)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: workers get it too
    else:
        process.kill()
    message = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    if how == signal.SIGINT:
        assert "interrupted" in message
        assert "Traceback" not in message
    (lighter,) = [entry for entry in Store(store).entries() if entry.name.startswith("probe ")]
    assert not (tmp_path / "p").exists()

    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert verify_proxy(tmp_path / "p")
    again = Store(store).find("probes", lighter.key)
    assert again is not None
    assert again.created == lighter.created  # it was not trained again
    assert not list(store.rglob(".unfinished-*"))
    assert identical_bytes(tmp_path / "p") == identical_bytes(undisturbed)
