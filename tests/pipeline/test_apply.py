"""A proxy from an index and its source, without training: the same samples, wherever and however the source lies now."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import proxyds
from proxyds.artifact.card.render import escape_markdown
from proxyds.artifact.manifest import INDEX, INDEXES
from proxyds.artifact.reader import read_manifest, verify_proxy
from proxyds.artifact.writer import rewrite_manifest
from proxyds.errors import ChangedSourceError, OutputExistsError
from proxyds.pipeline.sharing.push import output_at
from tests.artifact.hostile import INDICES, OLDER, VALIDATION_INDICES, WHOLE, Proxy, make_source
from tests.conftest import TINY_RECIPE, Run, check_manners, read_tree
from tests.docs.cards import keep_card
from tests.pipeline.test_resample import write_images

pytestmark = pytest.mark.e2e

OF_SAMPLES = ("data/", "webdataset/", *INDEXES.values(), "recipe.yaml")
"""What an index gives back byte by byte where the source has its bytes."""


IMAGES = "data/train-00000-of-00004.parquet"


def of_samples(folder: Path) -> dict[str, bytes]:
    return {name: held for name, held in read_tree(folder).items() if name.startswith(OF_SAMPLES)}


def ids(folder: Path, table: str = "data") -> list[str]:
    found: list[str] = getattr(proxyds.read_tables(folder), table)["sample_id"].to_pylist()
    return found


def write_digits(folder: Path, suffix: str, *, leave_out: tuple[int, ...] = (), **options: object) -> Path:
    """The digits as images in folders by label, in an order of their own."""
    digits = load_digits()
    for i in np.random.default_rng(0).permutation(len(digits.images)):
        if i not in leave_out:
            path = folder / str(digits.target[i]) / f"{(i * 7919) % 100_000:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.round(digits.images[i] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return folder


def test_the_very_source_gives_the_very_bytes(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    taken = run_here("index", tiny_proxy, "-o", "taken", "--json")
    assert taken.returncode == 0, taken.stderr
    told = json.loads(taken.stdout)
    assert (told["index"], told["n_samples"]) == (f"taken/{INDEX}", 130)
    n_validation = read_manifest(tiny_proxy).counts.validation
    assert (told["validation"], told["n_validation"]) == ("taken/validation.csv", n_validation)
    assert {path.name for path in (tmp_path / "taken").iterdir()} == {*INDEXES.values(), "manifest.json", "recipe.yaml"}
    done = run_here("apply", "taken", "-o", "new")
    assert done.returncode == 0, done.stderr
    assert "tiny 1.0.0 made from an index: new" in done.stdout
    assert of_samples(tmp_path / "new") == of_samples(tiny_proxy)
    for place in ("taken/indices.csv", tiny_proxy):
        shutil.rmtree(tmp_path / "new")
        assert run_here("apply", place, "-o", "new").returncode == 0
        assert of_samples(tmp_path / "new") == of_samples(tiny_proxy)


def test_it_is_a_proxy_as_others(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    assert run_here("apply", tiny_proxy, "-o", "new").returncode == 0
    assert run_here("verify", "new").returncode == 0
    assert run_here("card", "new", "--check").returncode == 0
    shelf = f"file://{tmp_path / 'shelf'}"
    assert run_here("push", "new", shelf).returncode == 0
    assert run_here("pull", shelf, "-o", "again").returncode == 0
    assert read_tree(tmp_path / "again") == read_tree(tmp_path / "new")
    for place in ("new", shelf):
        shown = run_here("inspect", place)
        assert shown.returncode == 0, shown.stderr
        assert "made from the index of tiny 1.0.0" in shown.stdout
    assert json.loads(run_here("inspect", "new", "--json").stdout)["evidence"] is None
    taken = run_here("index", "new", "-o", "taken")
    assert (taken.returncode, "taken/validation.csv: " in taken.stdout) == (0, True), taken.stderr
    assert (tmp_path / "taken" / INDEX).read_bytes() == (tiny_proxy / INDEX).read_bytes()
    assert run_here("apply", "taken", "-o", "second").returncode == 0
    assert of_samples(tmp_path / "second") == of_samples(tiny_proxy)
    assert proxyds.verify_proxy(tmp_path / "second").index_of.name == "tiny"  # type: ignore[union-attr]


def test_readers_of_data_sets_and_trainers_open_it(tiny_proxy: Path, tmp_path: Path) -> None:
    proxyds.apply(tiny_proxy, tmp_path / "new")
    code = """
import sys
from datasets import get_dataset_config_names, load_dataset
proxy = load_dataset(sys.argv[1], cache_dir=sys.argv[2])
print(get_dataset_config_names(sys.argv[1]), *proxy["train"]["sample_id"], *proxy["validation"]["sample_id"])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "new"), str(tmp_path / "cache")]
    configs, *found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert (configs, found) == ("['default']", [*ids(tiny_proxy), *ids(tiny_proxy, "validation")])
    for split in ("train", "validation", "test"):
        own, others = (proxyds.torch_dataset(folder, split) for folder in (tmp_path / "new", tiny_proxy))
        assert all(one.equal(other) for one, other in zip(own.tensors, others.tensors, strict=True)), split


def test_its_card_names_the_other_proxy_and_shows_no_evidence(checked_proxy: Path, tmp_path: Path) -> None:
    new = proxyds.apply(checked_proxy, tmp_path / "new")
    card = (new.folder / "README.md").read_text(encoding="utf-8")
    origin = new.manifest.index_of
    assert origin is not None
    assert origin.manifest_sha256 in card
    assert origin.index_sha256 in card
    assert new.manifest.evidence is None
    verdict = read_manifest(checked_proxy).evidence.verdict  # type: ignore[union-attr]
    assert verdict not in card.lower()
    assert "Kendall" not in card
    assert {path.name for path in (new.folder / "assets").iterdir()} == {"gallery.png"}


def test_what_needs_tables_of_all_samples_is_refused(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    assert run_here("apply", tiny_proxy, "-o", "new").returncode == 0
    before = read_tree(tmp_path)
    for command in (("check", "new"), ("check", "new", "--dry-run"), ("resample", "new", "--seed", "5", "-o", "x")):
        refused = run_here(*command)
        check_manners(refused)
        assert (refused.returncode, "made from the index of tiny 1.0.0" in refused.stderr) == (50, True), refused.stderr
    assert read_tree(tmp_path) == before


def test_it_takes_no_other_proxys_place_nor_another_its(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(TINY_RECIPE)
    assert run_here("apply", tiny_proxy, "-o", "new").returncode == 0
    before = read_tree(tmp_path / "new")
    assert "unchanged" in run_here("apply", tiny_proxy, "-o", "new").stdout
    assert run_here("build", "recipe.yaml", "-o", "new").returncode == 40  # which would have tables
    assert run_here("resample", tiny_proxy, "-o", "new").returncode == 40
    assert read_tree(tmp_path / "new") == before
    shutil.copytree(tiny_proxy, tmp_path / "built")
    assert run_here("apply", tiny_proxy, "-o", "built").returncode == 40
    assert run_here("index", tiny_proxy, "-o", "built").returncode == 40
    assert read_tree(tmp_path / "built") == read_tree(tiny_proxy)
    assert run_here("apply", tiny_proxy, "-o", "built", "--force").returncode == 0
    assert of_samples(tmp_path / "built") == of_samples(tiny_proxy)


# Wherever and however the source lies


def test_a_copy_of_a_hub_data_set_keeps_its_name_and_revision(tiny_proxy: Path, tmp_path: Path) -> None:
    taken = proxyds.index(tiny_proxy, tmp_path / "taken").parent
    manifest = json.loads((taken / "manifest.json").read_text())
    manifest["source"] |= {"kind": "hub", "name": "user/digits", "revision": "0b2714987fa4"}
    (taken / "manifest.json").write_text(json.dumps(manifest))
    own = write_digits(tmp_path / "images", "png")
    of_same = proxyds.apply(taken, tmp_path / "same", source=own).manifest.source
    assert (of_same.kind, of_same.name, of_same.revision) == ("hub", "user/digits", "0b2714987fa4")
    assert of_same.is_local_copy
    manifest["source"]["fingerprint"] = "0" * 64
    (taken / "manifest.json").write_text(json.dumps(manifest))
    of_other = proxyds.apply(taken, tmp_path / "other", source=own).manifest.source
    assert (of_other.kind, of_other.name, of_other.revision, of_other.is_local_copy) == (
        "folder",
        "images",
        None,
        False,
    )


@pytest.mark.parametrize(("suffix", "options"), [("png", {"compress_level": 0}), ("tiff", {})])
def test_a_folder_in_another_order_and_encoding_gives_the_same_samples(
    run_here: Run, tiny_proxy: Path, tmp_path: Path, suffix: str, options: dict[str, object]
) -> None:
    write_digits(tmp_path / "images", suffix, **options)
    done = run_here("apply", tiny_proxy, "images", "-o", "new")
    assert done.returncode == 0, done.stderr
    assert run_here("verify", "new").returncode == 0
    found = {"image", "source_index", "encoded_sha256"}
    for table in INDEXES:
        new, before = (getattr(proxyds.read_tables(folder), table) for folder in (tmp_path / "new", tiny_proxy))
        for name in set(before.column_names) - found:
            assert new[name].to_pylist() == before[name].to_pylist(), (table, name)
        assert new["encoded_sha256"] != before["encoded_sha256"]
    manifest = read_manifest(tmp_path / "new")
    assert (manifest.source.kind, manifest.source.name) == ("digits", read_manifest(tiny_proxy).source.name)
    assert manifest.source.fingerprint == read_manifest(tiny_proxy).source.fingerprint
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert escape_markdown(manifest.source.layout) in card
    assert not [name for name, held in read_tree(tmp_path / "new").items() if str(tmp_path).encode() in held]
    shutil.rmtree(tmp_path / "new")
    recipe = TINY_RECIPE.replace("{kind: digits}", "{kind: folder, path: images, validation_fraction: 0.4}")
    (tmp_path / "mine.yaml").write_text(recipe.replace("ratio: 0.1", "ratio: 0.5"))
    assert run_here("apply", tiny_proxy, "mine.yaml", "-o", "new").returncode == 0
    assert ids(tmp_path / "new") == ids(tiny_proxy)  # split as the index's own recipe says


@pytest.mark.e2e
@pytest.mark.parametrize(
    "options", [{"shift": 11}, {"suffix": "webp", "lossless": True}, {"suffix": "bmp"}], ids=["png", "webp", "bmp"]
)
def test_colour_images_are_found_too(
    run_here: Run, session_store: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    write_images(tmp_path / "images")
    text = TINY_RECIPE.replace("{kind: digits}", "{kind: folder, path: images}").replace("0.1}", "0.2}")
    (tmp_path / "recipe.yaml").write_text(text.replace("crop_padding: 1", "crop_padding: 0"))
    recipe = proxyds.read_recipe(tmp_path / "recipe.yaml")
    built = proxyds.build(recipe, tmp_path / "built", store=proxyds.Store(session_store), device="cpu").folder
    write_images(tmp_path / "again", **options)  # type: ignore[arg-type]
    assert run_here("apply", "built", "again", "-o", "new").returncode == 0
    assert run_here("verify", "new").returncode == 0
    assert ids(tmp_path / "new") == ids(built)
    places = [proxyds.read_tables(folder).data["source_index"] for folder in (tmp_path / "new", built)]
    assert (places[0] == places[1]) == ("shift" not in options)


@pytest.mark.parametrize(
    "overrides",
    [
        ["selection.labels={keep: 4}"],
        ["selection.method=cases", "output.samples_per_shard=50"],
        ["selection.draw=successive", "output.gallery=false"],
        ["output.validation=none"],
        ["output.validation=30", "selection.labels={keep: 4}"],
    ],
    ids=["some labels", "by cases, in shards", "chances unknown", "nothing to rank on", "a part to rank on"],
)
def test_every_kind_of_draw_comes_back(overrides: list[str], tiny_proxy: Path, tmp_path: Path) -> None:
    drawn = proxyds.resample(tiny_proxy, tmp_path / "drawn", overrides=overrides).folder
    new = proxyds.apply(drawn, tmp_path / "new")
    assert of_samples(new.folder) == of_samples(drawn)
    assert new.manifest.resampled_from is None
    assert new.manifest.draw == read_manifest(drawn).draw
    assert proxyds.pull(f"file://{new.folder}", tmp_path / "again").manifest == new.manifest  # audited


def test_a_card_is_an_index(checked_proxy: Path, tmp_path: Path) -> None:
    keep_card(checked_proxy, tmp_path / "card")
    assert not (tmp_path / "card" / "data").exists()
    new = proxyds.apply(tmp_path / "card", tmp_path / "new").folder
    assert {**of_samples(new), "recipe.yaml": b""} == {**of_samples(checked_proxy), "recipe.yaml": b""}


def test_a_proxy_of_an_earlier_format_gives_one(run_here: Run, tmp_path: Path) -> None:
    make_source(tmp_path / "few-digits")
    refused = run_here("apply", OLDER, "few-digits", "-o", "new")
    assert (refused.returncode, "proxyds index" in refused.stderr) == (50, True), refused.stderr
    taken = run_here("index", OLDER, "-o", "taken")
    assert (taken.returncode, "validation.csv" in taken.stdout) == (0, False), taken.stderr
    done = run_here("apply", "taken", "few-digits", "-o", "new")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / INDEX).read_bytes() == (tmp_path / "taken" / INDEX).read_bytes()
    new, before = (proxyds.read_tables(folder) for folder in (tmp_path / "new", OLDER))
    assert new.data.equals(before.data)
    assert new.validation is None  # which its index did not know of
    assert run_here("verify", "new").returncode == 0


def test_one_that_is_published_is_applied_without_its_images(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    shelf = "memory://shelf/tiny"
    assert run_here("push", tiny_proxy, shelf).returncode == 0
    memory = fsspec.filesystem("memory")
    for name in (IMAGES, "data/validation-00003-of-00004.parquet", "importance/train-00000-of-00001.parquet"):
        memory.pipe(f"/shelf/tiny/{name}", bytes((tiny_proxy / name).stat().st_size))  # as long, and of no use
    done = run_here("apply", shelf, "-o", "new")
    assert done.returncode == 0, done.stderr
    assert of_samples(tmp_path / "new") == of_samples(tiny_proxy)
    assert run_here("index", shelf, "-o", "taken").returncode == 0
    assert (tmp_path / "taken" / INDEX).read_bytes() == (tiny_proxy / INDEX).read_bytes()
    assert run_here("push", "new", "memory://shelf/new").returncode == 0
    memory.pipe(f"/shelf/new/{IMAGES}", bytes((tmp_path / "new" / IMAGES).stat().st_size))
    assert "made from the index of tiny 1.0.0" in run_here("inspect", "memory://shelf/new").stdout


def test_a_proxy_that_came_to_an_address_meanwhile_is_left_alone(tiny_proxy: Path, second_proxy: Path) -> None:
    shelf, memory = "memory://shelf/meanwhile", fsspec.filesystem("memory")

    def write_late() -> None:
        with output_at(shelf) as folder:
            shutil.copytree(second_proxy, folder)
            proxyds.push(tiny_proxy, shelf)

    with pytest.raises(OutputExistsError, match="another proxy is there"):
        write_late()
    held = memory.cat("/shelf/meanwhile/manifest.json")
    assert held == (tiny_proxy / "manifest.json").read_bytes()
    with output_at(shelf) as folder:  # what was there from the first may give way
        shutil.rmtree(folder)
        shutil.copytree(second_proxy, folder)
    assert memory.cat("/shelf/meanwhile/manifest.json") == (second_proxy / "manifest.json").read_bytes()


# What is not there, and what is not to be believed


def test_a_source_that_lacks_samples_is_refused_by_count(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    places = proxyds.read_tables(tiny_proxy).data["source_index"].to_pylist()
    write_digits(tmp_path / "images", "png", leave_out=tuple(places[:3]))
    write_images(tmp_path / "others")
    before = read_tree(tmp_path)
    for source, lacks in (("images", r"lacks (\d+)"), ("others", r"lacks (130)")):
        refused = run_here("apply", tiny_proxy, source, "-o", "new")
        check_manners(refused)
        assert refused.returncode == 20, refused.stderr
        found = re.search(lacks, refused.stderr)
        assert found, refused.stderr
        assert int(found[1]) >= 3
    for missing in ("nowhere", "nothing.yaml"):
        assert run_here("apply", tiny_proxy, missing, "-o", "new").returncode == 20
    assert read_tree(tmp_path) == before


def test_a_larger_source_will_do_and_the_card_says_so(tmp_path: Path) -> None:
    """It has splits of its own, so that what is added changes none of them."""
    make_source(tmp_path / "more-digits")
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "more-digits" / "train" / "0" / "more.png")
    proxyds.index(WHOLE, tmp_path / "taken")
    new = proxyds.apply(tmp_path / "taken", tmp_path / "new", source=tmp_path / "more-digits")
    assert new.manifest.source.fingerprint != new.manifest.index_of.fingerprint  # type: ignore[union-attr]
    assert new.manifest.source.name == "more-digits"  # another source has a name of its own
    assert ids(new.folder) == ids(WHOLE)
    assert new.manifest.counts == read_manifest(WHOLE).counts
    assert new.manifest.index_of.fingerprint in (new.folder / "README.md").read_text(encoding="utf-8")  # type: ignore[union-attr]


def test_samples_that_a_source_measures_on_are_refused(tmp_path: Path) -> None:
    make_source(tmp_path / "few-digits")
    proxyds.index(WHOLE, tmp_path / "taken")
    train, held_out = tmp_path / "few-digits" / "train", tmp_path / "few-digits" / "test"
    for label in "012":
        for path in sorted((train / label).iterdir())[:6]:
            path.rename(held_out / label / f"was-{path.name}")
    with pytest.raises(ChangedSourceError, match="stand among its other samples"):
        proxyds.apply(tmp_path / "taken", tmp_path / "new", source=tmp_path / "few-digits")
    assert not (tmp_path / "new").exists()


def test_other_labels_are_refused(tmp_path: Path) -> None:
    make_source(tmp_path / "few-digits")
    proxyds.index(WHOLE, tmp_path / "taken")
    for split in ("train", "validation", "test"):
        extra = tmp_path / "few-digits" / split / "3"
        extra.mkdir()
        for level in (10, 20, 30):
            Image.fromarray(np.full((8, 8), level, np.uint8)).save(extra / f"{level}.png")
    with pytest.raises(ChangedSourceError, match="labels"):
        proxyds.apply(tmp_path / "taken", tmp_path / "new", source=tmp_path / "few-digits")


def swap_ids(text: str) -> str:
    """Gives two samples of other labels each other's label, in a list that is right else."""
    header, *rows = csv.reader(text.splitlines())
    other = next(row for row in rows if row[3] != rows[0][3])
    rows[0][3], other[3] = other[3], rows[0][3]
    return "\n".join(",".join(row) for row in (header, *rows)) + "\n"


def of_nobody(text: str) -> str:
    header, *rows = csv.reader(text.splitlines())
    rows = [[f"{number:064x}", *row[1:]] for number, row in enumerate(rows)]
    return "\n".join(",".join(row) for row in (header, *rows)) + "\n"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda text: text + "x\n", 50, "indices.csv: line 10"),
        (lambda text: "", 50, "must name the columns"),
        (swap_ids, 50, "indices.csv: label must be that of the sample"),
        (of_nobody, 20, "lacks 8"),
    ],
    ids=["a line more", "nothing", "labels of others", "ids of others"],
)
def test_a_hostile_index_makes_no_proxy(
    change: Callable[[str], str], code: int, said: str, run_here: Run, tmp_path: Path
) -> None:
    make_source(tmp_path / "few-digits")
    path = proxyds.index(OLDER, tmp_path / "taken")
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    before = read_tree(tmp_path)
    refused = run_here("apply", "taken", "few-digits", "-o", "new")
    check_manners(refused)
    assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    assert read_tree(tmp_path) == before


def test_one_that_its_manifest_does_not_know_is_refused(run_here: Run, tiny_proxy: Path, tmp_path: Path) -> None:
    folder = proxyds.index(tiny_proxy, tmp_path / "taken").parent
    whole = (folder / INDEX).read_text()
    (folder / INDEX).write_text(whole.replace(",train,", ",training,", 1))
    assert run_here("apply", "taken", "-o", "new").returncode == 50
    (folder / INDEX).write_text(whole.replace(",train,", ",tra1n,"))
    refused = run_here("apply", "taken", "-o", "new")
    assert (refused.returncode, "its bytes have changed" in refused.stderr) == (50, True), refused.stderr
    (folder / INDEX).write_text(whole)
    (folder / "manifest.json").unlink()
    for place in ("taken", "taken/indices.csv"):
        refused = run_here("apply", place, "-o", "new")
        assert (refused.returncode, "manifest.json" in refused.stderr) == (50, True), refused.stderr
    assert not (tmp_path / "new").exists()


def test_samples_to_rank_on_are_found_where_the_source_measures(tmp_path: Path) -> None:
    make_source(tmp_path / "few-digits")
    proxyds.index(WHOLE, tmp_path / "taken")
    (moved, *_) = sorted((tmp_path / "few-digits" / "validation" / "0").iterdir())
    moved.rename(tmp_path / "few-digits" / "test" / "0" / "moved.png")
    with pytest.raises(ChangedSourceError, match=r"lacks 1, 1 of them stand among its other samples"):
        proxyds.apply(tmp_path / "taken", tmp_path / "new", source=tmp_path / "few-digits")


@pytest.mark.parametrize("case", (INDICES | VALIDATION_INDICES).values(), ids=INDICES | VALIDATION_INDICES)
def test_an_applied_proxy_is_audited_as_others(case: object, tmp_path: Path) -> None:
    make_source(tmp_path / "few-digits")
    proxyds.index(WHOLE, tmp_path / "taken")
    new = proxyds.apply(tmp_path / "taken", tmp_path / "new", source=tmp_path / "few-digits").folder
    proxy = Proxy()
    case.change(proxy)  # type: ignore[attr-defined]
    changed = [name for name in INDEXES.values() if proxy.files[name] != (new / name).read_bytes()]
    for name in changed:
        (new / name).write_bytes(proxy.files[name])
    with pytest.raises(proxyds.ProxydsError, match=rf"{changed[0]}: "):
        proxyds.push(new, f"file://{tmp_path / 'shelf'}")
    rewrite_manifest(new, read_manifest(new), written=changed)
    verify_proxy(new)
    with pytest.raises(proxyds.ProxydsError, match=case.refused):  # type: ignore[attr-defined]
        proxyds.push(new, f"file://{tmp_path / 'shelf'}")
    assert not (tmp_path / "shelf").exists()


def test_one_that_is_stopped_leaves_nothing(tiny_proxy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("proxyds.artifact.writer.write_tars", stop)
    with pytest.raises(KeyboardInterrupt):
        proxyds.apply(tiny_proxy, tmp_path / "new")
    monkeypatch.setattr("proxyds.artifact.card.render.list_pictures", stop)
    with pytest.raises(KeyboardInterrupt):
        proxyds.apply(tiny_proxy, tmp_path / "new")
    monkeypatch.setattr("shutil.copyfile", stop)
    with pytest.raises(KeyboardInterrupt):
        proxyds.index(tiny_proxy, tmp_path / "taken")
    assert not list(tmp_path.iterdir())
