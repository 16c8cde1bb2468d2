from __future__ import annotations

import errno
import hashlib
import io
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from proxyds.data.readers import NOT_READ
from proxyds.data.samples import Samples, Source, StreamedSamples
from proxyds.data.source import load_source
from proxyds.data.splits import carve
from proxyds.data.survey.proposal import look_at
from proxyds.errors import BadImageError, LabelError, SourceError, SourceNotFoundError, SplitNotFoundError
from proxyds.progress import ignore_progress
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import run_stored
from proxyds.seeding import parse_ids

Load = Callable[..., Source]
Row = tuple[bytes | None, Any]

NAMES = ("0", "1", "2", "3")
FINGERPRINTS = {
    "cifar10": "547a43ce3c052dd5ca5ea24a36288b2fa0ccb700be3a41138e539c2f909f9e66",
    "digits": "acca979775f46aa2347cc8026e67a87d35f9a431843ec397227d98c5d0a02331",
}
"""Fingerprints that published cards tell: no later rule of ids changes them."""


TINY = "name: tiny\nspace: {network: resnet, choices: {depth: [8, 14]}}\n"


@pytest.fixture(params=[False, True], ids=["held", "streamed"])
def load(tmp_path: Path, write_recipe_file: Callable[..., Path], request: pytest.FixtureRequest) -> Load:
    """Loads a source given as YAML; folders in it are taken from `tmp_path`. What is true of one in memory is true of one that is streamed."""

    def from_yaml(source: str, **sections: str) -> Source:
        rest = "".join(f"{name}: {value}\n" for name, value in sections.items())
        recipe = read_recipe(write_recipe_file(f"{TINY}{rest}source: {source}\n"))
        run = partial(run_stored, store=Store(tmp_path / "store"), engine=InProcess(), on_progress=ignore_progress)
        source = load_source(recipe, run, streamed=request.param)
        assert isinstance(source.train, StreamedSamples if request.param else Samples)
        train, evaluation, test = (replace(part.load(), stay_on_disk=False) for part in parts(source))
        return replace(source, train=train, evaluation=evaluation, test=test)

    return from_yaml


def read_encoded(source: Source, part: Samples) -> list[bytes]:
    return source.open_encoded(part.origin.split, part.source_index)(part)


def picture(number: int, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    n_channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], n_channels), np.uint8)
    return Image.frombytes(mode, size, noise.tobytes())


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def some_rows(n: int = 40, start: int = 0, kind: str = "PNG", **options: Any) -> list[Row]:
    """Pictures `start` to `start + n`, each with the label of its number modulo 4."""
    return [(encode(picture(number), kind, **options), number % 4) for number in range(start, start + n)]


def write_parquet(
    folder: Path, rows: Sequence[Row], split: str = "train", n_shards: int = 1, label: Any = None, name: str = "label"
) -> None:
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), name: label or datasets.ClassLabel(names=list(NAMES))})
    for shard in range(n_shards):
        part = rows[shard::n_shards]
        images = [None if encoded is None else {"bytes": encoded, "path": None} for encoded, _ in part]
        table = datasets.Dataset.from_dict({"image": images, name: [row[1] for row in part]}, features)
        table.to_parquet(folder / f"{split}-{shard:05d}-of-{n_shards:05d}.parquet")


def write_image_folder(folder: Path, rows: Sequence[Row], names: Sequence[str] = NAMES, suffix: str = "png") -> None:
    for number, (encoded, label) in enumerate(rows):
        file = folder / names[label] / f"picture-{number:03d}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded or b"")


def write_tars(folder: Path, rows: Sequence[Row], n_tars: int = 2) -> None:
    import webdataset

    folder.mkdir()
    for tar in range(n_tars):
        with webdataset.TarWriter(str(folder / f"train-{tar:03d}.tar"), mtime=0) as writer:
            for number, (encoded, label) in list(enumerate(rows))[tar::n_tars]:
                writer.write({"__key__": f"picture{number:03d}", "png": encoded, "cls": str(label)})


def parts(source: Source) -> tuple[Samples, Samples, Samples]:
    return source.train, source.evaluation, source.test


def every(source: Source, column: str) -> list[Any]:
    return [value for part in parts(source) for value in getattr(part, column).tolist()]


def content_id(image: Image.Image, label: str) -> str:
    """By hand: mode, size, label's name, pixels."""
    return hashlib.sha256(f"{image.mode} {image.width}x{image.height} {label}\n".encode() + image.tobytes()).hexdigest()


# Identity


def test_an_id_is_the_hash_of_mode_size_label_and_pixels(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    source = load("{kind: folder, path: pictures}")
    expected = {content_id(picture(number), NAMES[number % 4]) for number in range(40)}
    assert set(every(source, "ids")) == expected
    lines = [*source.label_names, "train:", *sorted(expected)]
    assert source.facts.fingerprint == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_same_picture_as_png_and_lossless_webp_has_one_id(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "png", some_rows())
    write_parquet(tmp_path / "webp", some_rows(kind="WEBP", lossless=True))
    png, webp = load("{kind: folder, path: png}"), load("{kind: folder, path: webp}")
    for one, other in zip(parts(png), parts(webp), strict=True):
        assert one.ids.tolist() == other.ids.tolist()
    assert png.facts.fingerprint == webp.facts.fingerprint
    assert not set(every(png, "encoded_sha256")) & set(every(webp, "encoded_sha256"))


def test_another_label_another_mode_and_another_pixel_have_other_ids(load: Load, tmp_path: Path) -> None:
    base = picture(0)
    touched = base.copy()
    touched.putpixel((7, 7), (1, 2, 3))
    images = [(image, label) for image in (base, base.convert("L"), touched) for label in range(4)]
    write_parquet(tmp_path / "pictures", [(encode(image), label) for image, label in images])
    source = load("{kind: folder, path: pictures}")
    assert len(set(every(source, "ids"))) == 12
    assert source.facts.n_duplicates == {"train": 0}


def test_ids_and_splits_survive_shuffling_and_resharding(load: Load, tmp_path: Path) -> None:
    rows = some_rows(100)
    write_parquet(tmp_path / "tidy", rows)
    write_parquet(tmp_path / "shuffled", random.Random(1).sample(rows, 100), n_shards=3)
    tidy, shuffled = load("{kind: folder, path: tidy}"), load("{kind: folder, path: shuffled}")
    for one, other in zip(parts(tidy), parts(shuffled), strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.labels.tolist() == other.labels.tolist()
        assert np.array_equal(one.pixels(), other.pixels())
        assert one.source_index.tolist() != other.source_index.tolist()
    assert tidy.facts.fingerprint == shuffled.facts.fingerprint


def test_parquet_image_folder_and_tars_give_the_same_ids_and_splits(load: Load, tmp_path: Path) -> None:
    rows = some_rows()
    write_parquet(tmp_path / "parquet", rows)
    write_image_folder(tmp_path / "folders", rows)
    write_tars(tmp_path / "tars", rows)
    sources = [load(f"{{kind: folder, path: {name}}}") for name in ("parquet", "folders", "tars")]
    assert {source.label_names for source in sources} == {NAMES}
    assert len({tuple(tuple(part.ids) for part in parts(source)) for source in sources}) == 1
    assert {source.facts.name for source in sources} == {"parquet", "folders", "tars"}


def test_samples_stand_in_the_order_of_their_ids(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows(100))
    for part in parts(load("{kind: folder, path: pictures}")):
        assert part.ids.tolist() == sorted(part.ids.tolist())


def test_duplicates_are_numbered_and_counted(load: Load, tmp_path: Path) -> None:
    thrice = picture(0)
    rows = [*some_rows(), (encode(thrice, "WEBP", lossless=True), 0), (encode(thrice), 0), (encode(thrice), 1)]
    write_parquet(tmp_path / "pictures", rows)
    source = load("{kind: folder, path: pictures}")
    base = content_id(thrice, "0")
    ids = every(source, "ids")
    assert sorted(name for name in ids if name.startswith(base)) == [base, f"{base}-2", f"{base}-3"]
    assert len(set(ids)) == len(ids) == 43
    assert source.facts.n_duplicates == {"train": 2}
    assert source.facts.n_samples == {"train": 43}


def test_training_samples_that_stand_elsewhere_are_counted(load: Load, tmp_path: Path) -> None:
    rows = some_rows()
    write_parquet(tmp_path / "pictures", [*rows, rows[0]])
    write_parquet(tmp_path / "pictures", [*some_rows(8, 100), rows[0], rows[1]], "validation")
    write_parquet(tmp_path / "pictures", [*some_rows(8, 200), rows[1], rows[2]], "test")
    source = load("{kind: folder, path: pictures}")
    assert source.facts.n_shared == 4  # picture 0 twice, 1, 2
    assert source.facts.n_duplicates == {"train": 1, "validation": 0, "test": 0}
    assert source.facts.n_samples == {"train": 41, "validation": 10, "test": 10}


def test_the_same_picture_with_another_label_is_not_shared(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    write_parquet(tmp_path / "pictures", some_rows(8, 100), "validation")
    write_parquet(tmp_path / "pictures", [(encode(picture(n)), (n + 1) % 4) for n in range(8)], "test")
    assert load("{kind: folder, path: pictures}").facts.n_shared == 0


def test_no_local_path_is_recorded(load: Load, tmp_path: Path) -> None:
    write_image_folder(tmp_path / "pictures", [*some_rows(), (b"broken", 0)])
    facts = load("{kind: folder, path: pictures, on_bad_image: skip}").facts
    assert facts.name == "pictures"
    assert facts.kind == "folder"
    assert str(tmp_path) not in str(asdict(facts))


def test_more_images_than_a_manifest_may_name_are_not_left_out(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_folder(tmp_path / "pictures", [*some_rows(), (b"broken", 0), (b"broken", 1)])
    spec = "{kind: folder, path: pictures, on_bad_image: skip}"
    places = load(spec).facts.bad_images
    assert len(places) == 2
    n = sum(map(len, places))
    monkeypatch.setattr("proxyds.data.source.MOST_LEFT_OUT", n)
    assert load(spec).facts.bad_images == places
    monkeypatch.setattr("proxyds.data.source.MOST_LEFT_OUT", n - 1)
    with pytest.raises(BadImageError, match=f"may take {n - 1} characters in a manifest, 2 of"):
        load(spec)


# Pixels


def only_pixels(load: Load, tmp_path: Path, image: Image.Image, source: str, kind: str = "PNG") -> np.ndarray:
    """What networks see of one picture, (C, H, W)."""
    rows = [*[(encode(picture(n, size=image.size)), n % 2) for n in range(12)], (encode(image, kind), 0)]
    write_parquet(tmp_path / "pictures", rows)
    write_parquet(tmp_path / "pictures", rows[:2], "validation")
    write_parquet(tmp_path / "pictures", rows[:2], "test")
    train = load(f"{{kind: folder, path: pictures, {source}}}").train
    return train.pixels()[train.source_index.tolist().index(12)]


def test_grey_becomes_three_equal_channels(load: Load, tmp_path: Path) -> None:
    image = picture(50, "L")
    seen = only_pixels(load, tmp_path, image, "image_mode: RGB")
    assert np.array_equal(seen, np.stack([np.asarray(image)] * 3))


def test_colour_becomes_its_luma(load: Load, tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    seen = only_pixels(load, tmp_path, image, "image_mode: L")
    assert seen.shape == (1, 8, 8)
    assert np.unique(seen).tolist() == [124]  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2


def test_what_is_transparent_is_seen_white(load: Load, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (10, 20, 30, 255))
    image.paste((10, 20, 30, 0), (0, 0, 4, 8))
    seen = only_pixels(load, tmp_path, image, "image_mode: RGB")
    assert np.unique(seen[:, :, :4]).tolist() == [255]
    assert seen[:, 0, 7].tolist() == [10, 20, 30]


def test_a_palette_is_looked_up(load: Load, tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    assert only_pixels(load, tmp_path, image, "image_mode: RGB")[:, 3, 3].tolist() == [9, 8, 7]


def test_two_pictures_that_differ_in_the_palette_alone_have_two_ids(load: Load, tmp_path: Path) -> None:
    rows = some_rows()
    for colour in (9, 10):
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, colour, 8, 7])
        rows.append((encode(image), 0))
    write_parquet(tmp_path / "pictures", rows)
    assert load("{kind: folder, path: pictures}").facts.n_duplicates == {"train": 0}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize(("wanted", "n_channels"), [("RGB", 3), ("L", 1)])
def test_every_mode_and_size_becomes_the_recipes(
    load: Load, tmp_path: Path, mode: str, wanted: str, n_channels: int
) -> None:
    image = picture(1, size=(9, 13)).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    seen = only_pixels(load, tmp_path, image, f"image_mode: {wanted}, image_size: 8", kind)
    assert seen.shape == (n_channels, 8, 8)
    assert seen.dtype == np.uint8


def test_a_wide_picture_is_cut_to_its_centre(load: Load, tmp_path: Path) -> None:
    image = Image.new("RGB", (24, 8), "red")
    image.paste((0, 0, 255), (8, 0, 16, 8))
    seen = only_pixels(load, tmp_path, image, "image_size: 8")
    assert np.unique(seen[0]).tolist() == [0]
    assert np.unique(seen[2]).tolist() == [255]


def test_sizes_that_vary_ask_for_one(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", [*some_rows(), (encode(picture(1, size=(9, 7))), 1)])
    with pytest.raises(SourceError, match=r"source\.image_size: must be given .* 2 sizes \(9x7, 8x8") as caught:
        load("{kind: folder, path: pictures}")
    assert "split train" in str(caught.value)
    assert "image_size: 32" in str(caught.value)
    assert load("{kind: folder, path: pictures, image_size: 8}").image_shape == (3, 8, 8)


def test_splits_of_two_sizes_ask_for_one(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    write_parquet(tmp_path / "pictures", [(encode(picture(n, size=(9, 9))), n % 4) for n in range(8)], "test")
    with pytest.raises(SourceError, match=r"set source\.image_size"):
        load("{kind: folder, path: pictures}")


@pytest.mark.parametrize("form", ["parquet", "folders", "tars"])
def test_encoded_bytes_pass_through_untouched(load: Load, tmp_path: Path, form: str) -> None:
    rows = [(encode(picture(n), "PNG", compress_level=n % 10), n % 4) for n in range(40)]
    write = {"parquet": write_parquet, "folders": write_image_folder, "tars": write_tars}[form]
    write(tmp_path / "pictures", rows)
    source = load("{kind: folder, path: pictures}")
    given = {encoded for encoded, _ in rows}
    passed = [encoded for part in parts(source) for encoded in read_encoded(source, part)]
    assert len(passed) == 40
    assert set(passed) == given
    assert [hashlib.sha256(encoded).hexdigest() for encoded in passed] == every(source, "encoded_sha256")
    for part in parts(source):
        for encoded, pixels, label in zip(read_encoded(source, part), part.pixels(), part.labels, strict=True):
            with Image.open(io.BytesIO(encoded)) as image:
                assert np.array_equal(np.asarray(image).transpose(2, 0, 1), pixels)
            assert (encoded, int(label)) in rows


# Splits


def test_a_source_without_test_and_validation_has_both_carved_in_every_label(load: Load, tmp_path: Path) -> None:
    rows = [(encode(picture(n)), label) for n, label in enumerate([0] * 60 + [1] * 40 + [2] * 3 + [3] * 20)]
    write_parquet(tmp_path / "pictures", rows)
    source = load("{kind: folder, path: pictures}")
    assert np.bincount(source.test.labels).tolist() == [12, 8, 1, 4]  # a fifth
    assert np.bincount(source.evaluation.labels).tolist() == [5, 3, 1, 2]  # a tenth of 48, 32, 2, 16; one at least
    assert np.bincount(source.train.labels).tolist() == [43, 29, 1, 14]
    ids = every(source, "ids")
    assert len(set(ids)) == len(ids) == 123
    assert source.facts.test_from == "carved from the training split, 0.2 of each label"
    assert source.facts.evaluation_from == "carved from the training samples, 0.1 of each label"


def test_the_sources_own_splits_are_used(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows(40))
    write_parquet(tmp_path / "pictures", some_rows(8, 100), "validation")
    write_parquet(tmp_path / "pictures", some_rows(12, 200), "test")
    source = load("{kind: folder, path: pictures}")
    assert [len(part) for part in parts(source)] == [40, 8, 12]
    assert [part.origin.split for part in parts(source)] == ["train", "validation", "test"]
    assert set(source.evaluation.ids) == {content_id(picture(n), NAMES[n % 4]) for n in range(100, 108)}
    assert "`validation`" in source.facts.evaluation_from
    assert "`test`" in source.facts.test_from


def test_a_source_with_a_test_split_has_only_validation_carved(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows(40))
    write_parquet(tmp_path / "pictures", some_rows(12, 200), "test")
    source = load("{kind: folder, path: pictures}")
    assert [len(part) for part in parts(source)] == [36, 4, 12]
    assert [part.origin.split for part in parts(source)] == ["train", "train", "test"]


def test_splits_are_taken_by_the_names_given(load: Load, tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    folder = tmp_path / "pictures" / "data"
    folder.mkdir(parents=True)
    for split, (start, n) in {"fit": (0, 40), "tune": (100, 8), "judge": (200, 12)}.items():
        rows = some_rows(n, start)
        images = [{"bytes": encoded, "path": None} for encoded, _ in rows]
        table = datasets.Dataset.from_dict({"image": images, "label": [label for _, label in rows]}, features)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    source = load("{kind: folder, path: pictures, train_split: fit, validation_split: tune, test_split: judge}")
    assert [len(part) for part in parts(source)] == [40, 8, 12]
    assert [part.origin.split for part in parts(source)] == ["fit", "tune", "judge"]
    assert source.facts.n_samples == {"fit": 40, "tune": 8, "judge": 12}


def test_another_seed_carves_otherwise_and_the_same_seed_alike(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows(100))
    first, again, other = (load("{kind: folder, path: pictures}", seed=seed) for seed in ("1", "1", "2"))
    assert first.test.ids.tolist() == again.test.ids.tolist()
    assert first.evaluation.ids.tolist() == again.evaluation.ids.tolist()
    assert first.test.ids.tolist() != other.test.ids.tolist()
    assert first.evaluation.ids.tolist() != other.evaluation.ids.tolist()
    assert first.facts.fingerprint == other.facts.fingerprint


def test_the_papers_protocol_evaluates_on_test_and_carves_no_validation(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows(40))
    write_parquet(tmp_path / "pictures", some_rows(8, 100), "validation")
    write_parquet(tmp_path / "pictures", some_rows(12, 200), "test")
    source = load("{kind: folder, path: pictures}", importance="{protocol: paper}")
    assert len(source.train) == 40
    assert source.evaluation.ids.tolist() == source.test.ids.tolist()
    assert len(source.test) == 12
    assert source.facts.evaluation_from == "the test samples (the paper's protocol)"


def test_the_papers_protocol_without_a_test_split_carves_that_alone(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows(40))
    source = load("{kind: folder, path: pictures}", importance="{protocol: paper}")
    assert [len(part) for part in parts(source)] == [32, 8, 8]
    assert source.evaluation.ids.tolist() == source.test.ids.tolist()


def test_a_validation_split_named_as_test_does_not_choose_samples_too(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows(40))
    write_parquet(tmp_path / "pictures", some_rows(8, 100), "validation")
    source = load("{kind: folder, path: pictures, test_split: validation}")
    assert set(source.test.ids) == {content_id(picture(n), NAMES[n % 4]) for n in range(100, 108)}
    assert not set(source.evaluation.ids) & set(source.test.ids)


@pytest.mark.parametrize(
    "roles", ["validation_split: train", "test_split: train", "validation_split: test, test_split: test"]
)
def test_one_split_cannot_have_two_roles(load: Load, tmp_path: Path, roles: str) -> None:
    write_parquet(tmp_path / "pictures", some_rows(40))
    write_parquet(tmp_path / "pictures", some_rows(8, 100), "test")
    with pytest.raises(SourceError):
        load(f"{{kind: folder, path: pictures, {roles}}}")


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
    order=st.randoms(use_true_random=False),
)
def test_carving_takes_a_share_of_every_label_whatever_the_order(
    labels: list[int], fraction: float, seed: int, order: random.Random
) -> None:
    ids = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(len(labels))]
    chosen = carve(parse_ids(np.array(ids)), np.array(labels), fraction, seed)
    for label, n in Counter(labels).items():
        assert chosen[np.array(labels) == label].sum() == min(max(1, round(fraction * n)), n - 1)
    shuffled = order.sample(range(len(labels)), len(labels))
    again = carve(parse_ids(np.array(ids)[shuffled]), np.array(labels)[shuffled], fraction, seed)
    assert {ids[i] for i, taken in enumerate(chosen) if taken} == {
        ids[i] for i, taken in zip(shuffled, again, strict=True) if taken
    }


def test_carving_keeps_repeats_of_a_picture_together() -> None:
    bases = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(20)]
    ids = sorted(name for base in bases for name in (base, f"{base}-2"))
    for seed in range(5):
        chosen = carve(parse_ids(np.array(ids)), np.zeros(40, np.int64), 0.5, seed)
        sides = {base: {bool(c) for name, c in zip(ids, chosen, strict=True) if name[:64] == base} for base in bases}
        assert all(len(side) == 1 for side in sides.values())
        assert chosen.sum() == 20


# Labels


def test_whole_numbers_are_labels_in_their_own_order(load: Load, tmp_path: Path) -> None:
    import datasets

    rows = [(encoded, (2, 10, 33, 4)[label]) for encoded, label in some_rows()]
    write_parquet(tmp_path / "pictures", rows, label=datasets.Value("int64"))
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == ("2", "4", "10", "33")
    assert Counter(every(source, "labels")) == {0: 10, 1: 10, 2: 10, 3: 10}
    assert content_id(picture(1), "10") in every(source, "ids")


@pytest.mark.parametrize("column", ["label", "labels", "cls", "class", "target"])
def test_texts_are_labels_in_alphabetical_order(load: Load, tmp_path: Path, column: str) -> None:
    import datasets

    rows = [(encoded, ("owl", "cat", "elk", "bee")[label]) for encoded, label in some_rows()]
    write_parquet(tmp_path / "pictures", rows, label=datasets.Value("string"), name=column)
    assert load("{kind: folder, path: pictures}").label_names == ("bee", "cat", "elk", "owl")


def test_folders_are_labels(load: Load, tmp_path: Path) -> None:
    names = ("owl", "cat", "elk", "bee")
    for split, (start, n) in {"train": (0, 40), "test": (100, 8)}.items():
        write_image_folder(tmp_path / "pictures" / split, some_rows(n, start), names)
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == ("bee", "cat", "elk", "owl")
    assert [len(part) for part in parts(source)] == [36, 4, 8]
    assert content_id(picture(1), "cat") in every(source, "ids")


def test_two_columns_of_labels_ask_for_one(load: Load, tmp_path: Path) -> None:
    import datasets

    label = datasets.ClassLabel(names=list(NAMES))
    features = datasets.Features({"img": datasets.Image(), "fine": label, "coarse": label})
    rows = some_rows()
    columns = {
        "img": [{"bytes": encoded, "path": None} for encoded, _ in rows],
        "fine": [label for _, label in rows],
        "coarse": [label // 2 for _, label in rows],
    }
    (tmp_path / "pictures").mkdir()
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "pictures" / "train.parquet")
    with pytest.raises(LabelError, match=r"source\.label_column: must name the column of labels, .*fine, coarse"):
        load("{kind: folder, path: pictures}")
    source = load("{kind: folder, path: pictures, label_column: coarse, image_column: img}")
    assert Counter(every(source, "labels")) == {0: 20, 1: 20}


def test_a_label_that_only_the_test_split_has_is_refused(load: Load, tmp_path: Path) -> None:
    import datasets

    text = datasets.Value("string")
    names = ("owl", "cat", "elk", "bee")
    write_parquet(tmp_path / "pictures", [(encoded, names[n]) for encoded, n in some_rows()], label=text)
    rows = [(encoded, names[n]) for encoded, n in some_rows(8, 100)]
    write_parquet(tmp_path / "pictures", [*rows, (encode(picture(0)), "yak")], "test", label=text)
    with pytest.raises(LabelError, match=r"1 of 9 in split test .*test\[8\]: 'yak'"):
        load("{kind: folder, path: pictures}")


def test_missing_labels_are_counted_and_the_first_is_named(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", [*some_rows(5), (encode(picture(5)), None), (encode(picture(6)), None)])
    with pytest.raises(LabelError, match=r"2 of 7 in split train have none \(the first is train\[5\]: None\)"):
        load("{kind: folder, path: pictures}")


def test_the_label_minus_one_is_a_missing_label(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    write_parquet(tmp_path / "pictures", [(encoded, -1) for encoded, _ in some_rows(8, 100)], "test")
    with pytest.raises(LabelError, match=r"8 of 8 in split test have none \(the first is test\[0\]: -1\)"):
        load("{kind: folder, path: pictures, test_split: test}")
    source = load(
        "{kind: folder, path: pictures}"
    )  # a test split that hides its labels, as on the Hub, is not asked for
    assert source.facts.test_from.startswith("the source's split `test` has no labels; carved from the training split")
    assert len(every(source, "ids")) == 40


def test_a_source_without_a_column_of_labels_says_what_it_has(load: Load, tmp_path: Path) -> None:
    import datasets

    write_parquet(
        tmp_path / "pictures", [(e, "x") for e, _ in some_rows()], label=datasets.Value("string"), name="caption"
    )
    with pytest.raises(LabelError, match=r"source\.label_column: .*found columns image, caption, none of labels"):
        load("{kind: folder, path: pictures}")


def test_a_flat_folder_of_images_has_no_labels(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number, (encoded, _) in enumerate(some_rows(8)):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(encoded or b"")
    with pytest.raises(LabelError, match=r"pictures/LABEL/NAME\.png.*8 .*\(0\.png"):
        load("{kind: folder, path: pictures}")


def test_labels_that_are_fractions_are_refused(load: Load, tmp_path: Path) -> None:
    import datasets

    write_parquet(tmp_path / "pictures", [(e, n / 2) for e, n in some_rows()], label=datasets.Value("float64"))
    with pytest.raises(LabelError, match="must be whole numbers or text, column label holds float64"):
        load("{kind: folder, path: pictures}")


@pytest.mark.parametrize("split", ["train", "fit"])
def test_a_single_class_is_refused(load: Load, tmp_path: Path, split: str) -> None:
    (tmp_path / "pictures").mkdir()
    write_parquet(tmp_path / "pictures" / "data", [(encoded, 2) for encoded, _ in some_rows()], split)
    with pytest.raises(LabelError, match=rf"must have two labels or more, found 1 in split {split}"):
        load(f"{{kind: folder, path: pictures, train_split: {split}}}")


def test_another_column_of_labels_is_another_source(load: Load, tmp_path: Path) -> None:
    import datasets

    value = datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "label": value, "class": value})
    rows = some_rows()
    images = [{"bytes": encoded, "path": None} for encoded, _ in rows]
    columns = {"image": images, "label": [label for _, label in rows], "class": [label // 2 for _, label in rows]}
    (tmp_path / "pictures").mkdir()
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "pictures" / "train.parquet")
    by_column = [load(f"{{kind: folder, path: pictures, label_column: {name}}}") for name in ("label", "class")]
    assert [len(source.label_names) for source in by_column] == [4, 2]


@pytest.mark.parametrize("label", [-2, 4])
def test_a_number_without_a_name_is_no_label(load: Load, tmp_path: Path, label: int) -> None:
    import datasets

    write_parquet(tmp_path / "pictures", [*some_rows(), (encode(picture(50)), label)], label=datasets.Value("int64"))
    table = pq.read_table(tmp_path / "pictures" / "train-00000-of-00001.parquet")
    names = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    pq.write_table(
        table.replace_schema_metadata(names.arrow_schema.metadata),
        tmp_path / "pictures" / "train-00000-of-00001.parquet",
    )
    with pytest.raises(LabelError, match=rf"1 of 41 in split train have none \(the first is train\[40\]: {label}\)"):
        load("{kind: folder, path: pictures}")


# What is not there


@pytest.mark.parametrize("field", ["train_split", "validation_split", "test_split"])
def test_an_unknown_split_lists_those_there_are(load: Load, tmp_path: Path, field: str) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    write_parquet(tmp_path / "pictures", some_rows(8, 100), "test")
    with pytest.raises(SplitNotFoundError) as caught:
        load(f"{{kind: folder, path: pictures, {field}: trian}}")
    assert str(caught.value) == f"source.{field}: must be a split of the source, got 'trian'; it has: train, test"


@pytest.mark.parametrize(
    ("field", "kind", "said"),
    [
        (
            "image_column",
            SourceError,
            "source.image_column: must name the column of images, got 'nothing'; found columns",
        ),
        (
            "label_column",
            LabelError,
            "source.label_column: must name the column of labels, got 'nothing'; found columns",
        ),
    ],
)
def test_an_unknown_column_lists_those_there_are(
    load: Load, tmp_path: Path, field: str, kind: type[SourceError], said: str
) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    with pytest.raises(kind) as caught:
        load(f"{{kind: folder, path: pictures, {field}: nothing}}")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{said} image, label")


def test_a_split_that_lacks_a_column_is_named(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    rows = [(encoded, label) for encoded, label in some_rows(8, 100)]
    write_parquet(tmp_path / "pictures", rows, "test", name="kind")
    with pytest.raises(SourceError):
        load("{kind: folder, path: pictures}")


def test_a_missing_folder_says_where_it_was_sought(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "copies"))
    with pytest.raises(SourceNotFoundError) as caught:
        load("{kind: folder, path: nowhere}")
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert str(tmp_path / "copies" / "nowhere") in str(caught.value)


def test_a_folder_is_sought_in_proxyds_data_too(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copies").mkdir()
    write_parquet(tmp_path / "copies" / "pictures", some_rows())
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "copies"))
    assert len(every(load("{kind: folder, path: far/away/pictures}"), "ids")) == 40


def test_a_folder_that_may_not_be_read_is_a_source_error(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(location: str, config: str | None, **arguments: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", location)

    write_parquet(tmp_path / "pictures", some_rows())
    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(SourceError, match=r"pictures.*Permission denied"):
        load("{kind: folder, path: pictures}")


def test_an_empty_folder_is_no_source(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SourceNotFoundError, match="must be a data set that can be opened"):
        load("{kind: folder, path: pictures}")


def test_a_folder_of_texts_holds_no_images(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "notes.txt").write_text("no picture\nnone here\n")
    with pytest.raises(SourceNotFoundError, match=r"pictures.*notes\.txt"):
        load("{kind: folder, path: pictures}")


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "train-000.tar"])
@pytest.mark.parametrize("held", [b"", b"neither the one nor the other"])
def test_a_damaged_container_is_a_source_error(load: Load, tmp_path: Path, name: str, held: bytes) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / name).write_bytes(held)
    with pytest.raises(SourceError, match="pictures"):
        load("{kind: folder, path: pictures}")


@pytest.mark.parametrize("form", ["parquet", "tars"])
def test_a_truncated_container_is_a_source_error(load: Load, tmp_path: Path, form: str) -> None:
    {"parquet": write_parquet, "tars": write_tars}[form](tmp_path / "pictures", some_rows())
    for file in (tmp_path / "pictures").iterdir():
        held = file.read_bytes()
        file.write_bytes(held[: len(held) // 2 + 100])
    with pytest.raises(SourceError):
        load("{kind: folder, path: pictures}")


@pytest.mark.parametrize("n_bytes", [0, 512, 1536, 2048, 2600])
def test_a_tar_that_was_cut_off_is_named_wherever_it_was_cut(load: Load, tmp_path: Path, n_bytes: int) -> None:
    write_tars(tmp_path / "pictures", some_rows())
    file = tmp_path / "pictures" / "train-001.tar"
    file.write_bytes(file.read_bytes()[:n_bytes])
    with pytest.raises(SourceError, match=r"train-001\.tar must be a whole tar"):
        load("{kind: folder, path: pictures}")


def test_a_tar_that_may_not_be_read_is_a_source_error(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tars(tmp_path / "pictures", some_rows())
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "train-001.tar":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match=r"pictures/train-001\.tar cannot be read: Permission denied"):
        load("{kind: folder, path: pictures}")


def test_a_script_in_the_folder_is_not_run(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    (tmp_path / "pictures" / "pictures.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert load("{kind: folder, path: pictures}").facts.n_samples == {"train": 40}
    assert not (tmp_path / "ran").exists()


# Bad images


BAD_IMAGES = {
    "no image at all": b"not an image",
    "truncated png": encode(picture(7, size=(32, 32)))[:-600],
    "truncated jpeg": encode(picture(7, size=(32, 32)), "JPEG")[:400],
    "zero bytes": b"",
    "16 bits": encode(Image.new("I;16", (8, 8), 40_000)),
}


@pytest.mark.parametrize("encoded", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_named(load: Load, tmp_path: Path, encoded: bytes) -> None:
    rows = some_rows()
    rows[3] = (encoded, 3)
    write_parquet(tmp_path / "pictures", rows)
    with pytest.raises(BadImageError, match=r"^source: every image .*1 of 40 (?s:.)*train\[3\]: ") as caught:
        load("{kind: folder, path: pictures}")
    assert "on_bad_image: skip" in str(caught.value)
    assert " object at 0x" not in str(caught.value)


@pytest.mark.parametrize("encoded", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_can_be_left_out_and_is_counted(load: Load, tmp_path: Path, encoded: bytes) -> None:
    rows = some_rows()
    rows[3] = (encoded, 3)
    write_parquet(tmp_path / "pictures", rows)
    source = load("{kind: folder, path: pictures, on_bad_image: skip}")
    assert source.facts.bad_images == ("train[3]",)
    assert source.facts.n_samples == {"train": 39}
    assert 3 not in every(source, "source_index")


def test_a_bad_image_of_an_image_folder_is_named_by_where_it_lies(load: Load, tmp_path: Path) -> None:
    rows = some_rows()
    rows[3] = (b"not an image", 3)
    write_image_folder(tmp_path / "pictures", rows)
    with pytest.raises(BadImageError, match=r"train\[\d+\] \(\w+/picture-003\.png\)"):
        load("{kind: folder, path: pictures}")
    source = load("{kind: folder, path: pictures, on_bad_image: skip}")
    (place,) = source.facts.bad_images
    assert (tmp_path / "pictures" / place.split()[1].strip("()")).read_bytes() == b"not an image"


def test_all_bad_images_of_all_splits_are_named_at_once(load: Load, tmp_path: Path) -> None:
    for split, damaged in (("train", (3, 5)), ("test", (1,))):
        rows = some_rows()
        for place in damaged:
            rows[place] = (b"not an image", rows[place][1])
        write_parquet(tmp_path / "pictures", rows, split)
    with pytest.raises(BadImageError, match="3 of 80") as caught:
        load("{kind: folder, path: pictures}")
    assert all(place in str(caught.value) for place in ("train[3]", "train[5]", "test[1]"))


def test_of_very_many_bad_images_the_first_are_named(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", [*some_rows(), *((b"bad", n % 4) for n in range(1000))])
    with pytest.raises(BadImageError, match="1,000 of 1,040") as caught:
        load("{kind: folder, path: pictures}")
    lines = str(caught.value).splitlines()
    assert len(lines) < 30
    assert lines[-1].split() == ["and", f"{1000 - len(lines) + 2}", "more"]


def test_a_moment_without_memory_makes_no_image_a_bad_one(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack_memory(*_: object) -> None:
        raise MemoryError

    write_parquet(tmp_path / "pictures", some_rows())
    with monkeypatch.context() as patched:
        patched.setattr("proxyds.data.decoding.see_picture", lack_memory)
        with pytest.raises(SourceError, match="must fit into memory"):
            load("{kind: folder, path: pictures, on_bad_image: skip}")
    assert load("{kind: folder, path: pictures, on_bad_image: skip}").facts.n_samples == {"train": 40}


def test_a_damaged_file_that_is_streamed_is_named(tmp_path: Path, write_recipe_file: Callable[..., Path]) -> None:
    write_parquet(tmp_path / "pictures", some_rows(), n_shards=3)
    second = tmp_path / "pictures" / "train-00001-of-00003.parquet"
    second.write_bytes(second.read_bytes()[:-100])
    recipe = read_recipe(write_recipe_file(f"{TINY}source: {{kind: folder, path: pictures, image_size: 8}}\n"))
    run = partial(run_stored, store=Store(tmp_path / "store"), engine=InProcess(), on_progress=ignore_progress)
    with pytest.raises(SourceError, match=r"file 2 of 3 of split train is not: .*; fetch or write it again"):
        load_source(recipe, run, streamed=True)


def test_a_damaged_file_is_named_whatever_its_name_is() -> None:
    assert look_at([(b"damaged", 0, "(old)/a.png"), (b"damaged", 1, "")]).bad == [
        ("(old)/a.png", "no image of a format that is read"),
        ("image 1", "no image of a format that is read"),
    ]


def test_a_missing_image_is_a_bad_one(load: Load, tmp_path: Path) -> None:
    rows = some_rows()
    rows[3] = (None, 3)
    write_parquet(tmp_path / "pictures", rows)
    with pytest.raises(BadImageError, match=r"train\[3\]"):
        load("{kind: folder, path: pictures}")
    assert load("{kind: folder, path: pictures, on_bad_image: skip}").facts.bad_images == ("train[3]",)


def test_a_split_of_bad_images_only_is_refused(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", [(b"bad", n % 4) for n in range(8)])
    with pytest.raises(SourceError, match="split train must hold images, found none that decode"):
        load("{kind: folder, path: pictures, on_bad_image: skip}")


def test_leaving_a_bad_image_out_leaves_the_others_splits_alone(load: Load, tmp_path: Path) -> None:
    rows = some_rows(100)
    write_parquet(tmp_path / "good", rows)
    write_parquet(tmp_path / "bad", [(b"bad", 0), *rows])
    good, bad = load("{kind: folder, path: good}"), load("{kind: folder, path: bad, on_bad_image: skip}")
    assert [part.ids.tolist() for part in parts(good)] == [part.ids.tolist() for part in parts(bad)]


# Other kinds of source


def test_the_digits_are_scikit_learns(load: Load) -> None:
    from sklearn.datasets import load_digits

    source = load("{kind: digits}")
    assert len(every(source, "ids")) == 1797
    assert source.image_shape == (1, 8, 8)
    assert source.label_names == tuple("0123456789")
    assert source.facts.name == "scikit-learn digits"
    digits = load_digits()
    for part in parts(source):
        assert np.array_equal(part.labels, digits.target[part.source_index])
        shown = part.pixels()[:, 0] * (16 / 255)
        assert np.abs(shown - digits.images[part.source_index]).max() < 16 / 255
    assert source.facts.fingerprint == FINGERPRINTS["digits"]


def test_torchvisions_cifar10_is_read(load: Load, fake_cifar10: Path) -> None:
    source = load("{kind: torchvision, dataset: CIFAR10, path: tv}")
    assert source.label_names == tuple(f"label {i}" for i in range(10))
    assert source.image_shape == (3, 32, 32)
    assert [len(part) for part in parts(source)] == [30, 10, 20]  # of four a label, one is carved
    held = pickle.loads((fake_cifar10 / "cifar-10-batches-py" / "test_batch").read_bytes())
    assert np.array_equal(source.test.pixels(), held["data"].reshape(-1, 3, 32, 32)[source.test.source_index])
    assert np.array_equal(source.test.labels, np.array(held["labels"])[source.test.source_index])
    with Image.open(io.BytesIO(read_encoded(source, source.test)[0])) as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1), source.test.pixels()[0])
    assert str(fake_cifar10) not in str(asdict(source.facts))


def test_torchvisions_cifar10_that_is_not_there_says_how_to_fetch_it(load: Load, tmp_path: Path) -> None:
    (tmp_path / "tv").mkdir()
    with pytest.raises(SourceNotFoundError, match=r"must hold torchvision's CIFAR10, .*download=True"):
        load("{kind: torchvision, dataset: CIFAR10, path: tv}")
    with pytest.raises(SourceNotFoundError, match=r"source\.path: must be a folder"):
        load("{kind: torchvision, dataset: CIFAR10, path: nowhere}")


def test_a_damaged_cifar10_is_not_read(load: Load, fake_cifar10: Path) -> None:
    with (fake_cifar10 / "cifar-10-batches-py" / "test_batch").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(SourceNotFoundError):
        load("{kind: torchvision, dataset: CIFAR10, path: tv}")


HUB = "{kind: hub, name: someone/pictures, revision: abc123}"


def test_a_hub_source_is_read_from_its_local_copy(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copies").mkdir()
    write_parquet(tmp_path / "copies" / "pictures", some_rows())
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "copies"))
    facts = load(HUB).facts
    assert (facts.name, facts.revision, facts.kind) == ("someone/pictures", "abc123", "hub")
    assert facts.is_local_copy
    assert facts.n_samples == {"train": 40}
    assert facts.left_out == {}


def test_what_datasets_leaves_of_a_hub_source_is_counted_and_told(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copies").mkdir()
    write_parquet(tmp_path / "copies" / "pictures" / "data", some_rows())
    for path in ("more.zip", "example.png", "notes.txt"):
        (tmp_path / "copies" / "pictures" / path).write_bytes(b"")
    monkeypatch.setenv("PROXYDS_DATA", str(tmp_path / "copies"))
    source = load(HUB)
    assert source.facts.n_samples == {"train": 40}
    assert source.facts.left_out == {NOT_READ: 2}
    (warning,) = source.warnings
    assert "example.png, more.zip" in warning


@pytest.mark.parametrize("has_copies", [False, True])
def test_a_hub_source_that_cannot_be_found_names_it_and_the_way_out(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_copies: bool
) -> None:
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    if has_copies:
        monkeypatch.setenv("PROXYDS_DATA", str(tmp_path))
    with pytest.raises(SourceNotFoundError, match=r"found no someone/pictures at abc123 on the Hub: .*PROXYDS_DATA"):
        load(HUB)


def test_a_hub_source_is_never_a_folder_that_happens_to_stand_there(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someone").mkdir()
    write_parquet(tmp_path / "someone" / "pictures", some_rows())
    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFoundError):
        load(HUB)


def test_a_folder_source_is_no_local_copy(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    facts = load("{kind: folder, path: pictures}").facts
    assert not facts.is_local_copy
    assert facts.revision is None


def _parquet_images(files: Iterable[Path]) -> tuple[list[bytes], list[int]]:
    table = pa.concat_tables(pq.read_table(file) for file in sorted(files))
    return pa.compute.struct_field(table["image"], "bytes").to_pylist(), table["label"].to_pylist()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "load", [pytest.param(False, marks=pytest.mark.slow), True], indirect=True, ids=["held", "streamed"]
)
def test_cifar10_is_read_whole_with_its_bytes(load: Load, data_folder: Path) -> None:
    source = load("{kind: hub, name: uoft-cs/cifar10, revision: 0b27149}")
    assert [len(part) for part in parts(source)] == [45_000, 5_000, 10_000]
    assert source.image_shape == (3, 32, 32)
    assert source.facts.fingerprint == FINGERPRINTS["cifar10"]
    assert source.label_names == (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    for part in (source.train, source.evaluation):
        assert len(set(np.bincount(part.labels))) == 1
    for part, pattern in ((source.train, "train-*"), (source.evaluation, "train-*"), (source.test, "test-*")):
        images, labels = _parquet_images((data_folder / "cifar10").glob(f"{pattern}.parquet"))
        assert read_encoded(source, part) == [images[i] for i in part.source_index]
        assert part.labels.tolist() == [labels[i] for i in part.source_index]


def test_a_hub_source_is_read_at_exactly_its_revision(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    monkeypatch.delenv("PROXYDS_DATA", raising=False)
    repository = Path(HF_HUB_CACHE) / "datasets--someone--versions"  # as downloads leave it; the tests are offline
    for revision, first in (("a" * 40, 0), ("b" * 40, 500)):
        (repository / "snapshots" / revision).mkdir(parents=True, exist_ok=True)
        write_parquet(repository / "snapshots" / revision, some_rows(40, first))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "v1").write_text("a" * 40)
    sources = {
        revision: load(f"{{kind: hub, name: someone/versions, revision: {revision}}}")
        for revision in ("v1", "a" * 40, "b" * 40)
    }
    assert [source.facts.revision for source in sources.values()] == ["a" * 40, "a" * 40, "b" * 40]
    assert not any(source.facts.is_local_copy for source in sources.values())
    ids = {revision: set(every(source, "ids")) for revision, source in sources.items()}
    assert ids["v1"] == ids["a" * 40]
    assert not ids["v1"] & ids["b" * 40]


@pytest.mark.parametrize("other", ["train-00001-of-00002", "test-00000-of-00001"])
def test_parquet_files_that_number_their_labels_otherwise_are_refused(load: Load, tmp_path: Path, other: str) -> None:
    import datasets

    write_parquet(tmp_path / "pictures", some_rows())
    write_parquet(tmp_path / "turned", some_rows(20, 100), label=datasets.ClassLabel(names=[*reversed(NAMES)]))
    (tmp_path / "turned" / "train-00000-of-00001.parquet").rename(tmp_path / "pictures" / f"{other}.parquet")
    with pytest.raises(LabelError, match=f"{other}.parquet must name its labels as the training samples do"):
        load("{kind: folder, path: pictures}")


@pytest.mark.parametrize("name", ["carved", "uncarved-test", "carved test"])
def test_a_split_of_any_name_is_told_from_samples_that_were_set_aside(load: Load, tmp_path: Path, name: str) -> None:
    write_image_folder(tmp_path / "folders" / "train", some_rows())
    write_image_folder(tmp_path / "folders" / name, some_rows(12, 100))
    source = load(f"{{kind: folder, path: folders, validation_split: {name!r}}}")
    assert name in source.facts.tell_how_to_have_more("evaluation")
    assert "fraction" not in source.facts.tell_how_to_have_more("evaluation")
    assert "test_fraction" in source.facts.tell_how_to_have_more("test")


def test_a_path_of_any_length_is_looked_for(load: Load) -> None:
    with pytest.raises(SourceNotFoundError, match="must be a folder"):
        load(f"{{kind: folder, path: {'a' * 300}}}")
