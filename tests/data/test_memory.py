"""Data in memory are what the same samples on disk are, whatever their form, and nothing that a program holds is copied."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.transforms import ToTensor

from proxyds.data.memory.given import InMemory, take_data
from proxyds.data.memory.parts import ArrayPart, TablePart
from proxyds.data.readers import open_splits
from proxyds.data.samples import Samples, Source
from proxyds.data.source import load_source
from proxyds.errors import BadImageError, LabelError, SourceError, SourceNotFoundError, SplitNotFoundError
from proxyds.pipeline.reading import choose_source, name_data, read_source
from proxyds.progress import ignore_progress
from proxyds.recipe.models import Recipe
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Task, run_stored
from tests.data.test_source import encode, read_encoded, write_image_folder

N = 40
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (N, 8, 8, 3), np.uint8)
GREY = RNG.integers(0, 256, (N, 8, 8), np.uint8)
LABELS = np.arange(N) % 4
NAMES = ("ant", "bee", "cat", "dog")
TEXTS = [NAMES[label] for label in LABELS]
HEAD = "name: tiny\nspace: {network: resnet, choices: {depth: [8, 14]}}\n"


class Pairs(Dataset[tuple[Any, Any]]):
    """A data set of pictures of Pillow that counts how often it is asked."""

    classes = NAMES

    def __init__(self, images: Any = COLOUR, transform: Callable[[Any], Any] = lambda image: image) -> None:
        self.images, self.transform, self.n_asked = images, transform, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.n_asked += 1
        return self.transform(Image.fromarray(self.images[index])), torch.tensor(LABELS[index])


def make_table(labels: Any = LABELS, **features: Any) -> datasets.Dataset:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES)), **features}
    images = [{"bytes": encode(Image.fromarray(image)), "path": None} for image in COLOUR]
    return datasets.Dataset.from_dict({"image": images, "label": list(labels)}, datasets.Features(kinds))


@pytest.fixture
def recipe(write_recipe_file: Callable[..., Path]) -> Recipe:
    return read_recipe(write_recipe_file(HEAD))


@pytest.fixture
def read(tmp_path: Path, recipe: Recipe) -> Callable[..., Source]:
    """Reads what a recipe says, or what is passed in its place."""

    def load(source: Any, recipe: Recipe = recipe, streamed: bool | None = None) -> Source:
        run = partial(run_stored, store=Store(tmp_path / "store"), engine=InProcess(), on_progress=ignore_progress)
        recipe, data = choose_source(recipe, source)
        return read_source(recipe, data, run, streamed)

    return load


@pytest.fixture
def on_disk(read: Callable[..., Source], tmp_path: Path) -> Source:
    rows = [(encode(Image.fromarray(image)), int(label)) for image, label in zip(COLOUR, LABELS, strict=True)]
    write_image_folder(tmp_path / "pictures", rows, NAMES)
    return read(tmp_path / "pictures")


def columns(part: Samples) -> list[Any]:
    return [part.ids.tolist(), part.labels.tolist(), part.encoded_sha256.tolist(), part.pixels()[:].tolist()]


def check_same(found: Source, wanted: Source) -> None:
    assert found.label_names == wanted.label_names
    assert found.facts.fingerprint == wanted.facts.fingerprint
    for part, other in zip(
        (found.train, found.evaluation, found.test), (wanted.train, wanted.evaluation, wanted.test), strict=True
    ):
        assert columns(part.load()) == columns(other.load())
        assert read_encoded(found, part.load()) == read_encoded(wanted, other.load())


FORMS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (COLOUR, TEXTS),
    "channels first": lambda: (COLOUR.transpose(0, 3, 1, 2), np.array(TEXTS)),
    "tensors": lambda: (torch.from_numpy(COLOUR).permute(0, 3, 1, 2), TEXTS),
    "a list of arrays": lambda: (list(COLOUR), TEXTS),
    "an array of objects": lambda: (np.array([*map(Image.fromarray, COLOUR), None], object)[:-1], np.array(TEXTS)),
    "a list of tensors": lambda: ([torch.from_numpy(image).permute(2, 0, 1) for image in COLOUR], TEXTS),
    "pictures": lambda: ([Image.fromarray(image) for image in COLOUR], TEXTS),
    "pairs": lambda: list(zip(map(Image.fromarray, COLOUR), TEXTS, strict=True)),
    "a data set of pairs": Pairs,
    "a subset": lambda: Subset(Subset(Pairs(), range(N)), list(range(N))[::-1]),
    "joined": lambda: ConcatDataset([Subset(Pairs(), range(30)), Subset(Pairs(), range(30, N))]),
    "a table": make_table,
    "a shuffled table": lambda: make_table().shuffle(seed=1),
    "a table of texts": lambda: make_table(TEXTS, label=datasets.Value("string")),
    "a table in torch's format": lambda: make_table().with_format("torch"),
    "a dictionary of one table": lambda: datasets.DatasetDict(train=make_table()),
    "a mapping": lambda: {"training": (COLOUR, TEXTS)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_samples_that_files_give(read: Callable[..., Source], on_disk: Source, form: str) -> None:
    found = read(FORMS[form]())
    assert (found.facts.kind, found.warnings) == ("memory", ())
    check_same(found, on_disk)


def test_image_files_of_torchvision_stay_what_they_are(
    read: Callable[..., Source], on_disk: Source, tmp_path: Path
) -> None:
    check_same(read(torchvision.datasets.ImageFolder(str(tmp_path / "pictures"))), on_disk)
    changed = torchvision.datasets.ImageFolder(str(tmp_path / "pictures"), transform=lambda image: image.rotate(90))
    assert read(changed).facts.fingerprint != on_disk.facts.fingerprint


def test_numbers_are_labels_of_their_own_where_nothing_names_them(read: Callable[..., Source]) -> None:
    source = read((GREY, torch.from_numpy(LABELS * 10)))
    assert source.label_names == ("0", "10", "20", "30")
    assert source.image_shape == (1, 8, 8)  # grey images are seen as grey, unless the recipe says otherwise
    pairs = TensorDataset(torch.from_numpy(GREY)[:, None], torch.from_numpy(LABELS * 10))
    check_same(read(pairs), source)
    held = take_data(pairs).hold(None, choose_source(Recipe.model_construct(source=_section()), pairs)[0].source)
    assert isinstance(held.parts[0], ArrayPart)


def _section() -> Any:
    from proxyds.recipe.sections.source import MemorySource

    return MemorySource(kind="memory", image_mode="RGB")


def test_torchvisions_cifar10_is_what_its_folder_is(
    read: Callable[..., Source], recipe: Recipe, tmp_path: Path, fake_cifar10: Path
) -> None:
    splits = {
        name: torchvision.datasets.CIFAR10(str(fake_cifar10), train=name == "train") for name in ("train", "test")
    }
    found = read(splits)
    assert found.facts.name == "torchvision CIFAR10"
    assert found.facts.n_samples == {"train": 40, "test": 20}
    from proxyds.recipe.sections.source import TorchvisionSource

    section = TorchvisionSource(kind="torchvision", dataset="CIFAR10", path=str(fake_cifar10))
    run = partial(run_stored, store=Store(tmp_path / "other"), engine=InProcess(), on_progress=ignore_progress)
    check_same(found, load_source(recipe.model_copy(update={"source": section}), run))
    few = Subset(splits["train"], [3, 1, 2] * 5)
    (part,) = take_data(few).hold(None, _section()).parts
    assert isinstance(part, ArrayPart)
    assert part.images is splits["train"].data


def test_splits_have_their_uses_by_their_names(read: Callable[..., Source]) -> None:
    given = {"train": (COLOUR[:20], TEXTS[:20]), "val": Pairs(COLOUR[20:32]), "test": (COLOUR[32:], TEXTS[32:])}
    with pytest.raises(LabelError, match="must be numbers of the names"):
        read(given)
    given["val"] = (COLOUR[20:32], TEXTS[20:32])
    source = read({**given, "more": (COLOUR, TEXTS)})
    assert source.facts.n_samples == {"train": 20, "validation": 12, "test": 8}
    assert "no use for the splits more" in source.warnings[0]
    with pytest.raises(SourceError, match="both mean validation"):
        read({**given, "dev": (COLOUR, TEXTS)})
    with pytest.raises(SplitNotFoundError, match="got 'train'; it has: test"):
        read({"test": (COLOUR, TEXTS)})
    other = make_table().cast_column("label", datasets.ClassLabel(names=list(NAMES[::-1])))
    with pytest.raises(LabelError, match="same labels in the same order"):
        read({"train": make_table(), "test": other})


def test_what_a_recipe_says_of_images_and_splits_stays(
    read: Callable[..., Source], write_recipe_file: Callable[..., Path]
) -> None:
    said = "{kind: hub, name: a/b, revision: r, image_mode: RGB, image_size: 4, test_fraction: 0.5, label_column: fine}"
    recipe = read_recipe(write_recipe_file(f"{HEAD}source: {said}\n"))
    section = choose_source(recipe, (GREY, LABELS))[0].source
    kept = (section.kind, section.image_mode, section.image_size, section.test_fraction, section.label_column)
    assert kept == ("memory", "RGB", 4, 0.5, "fine")
    table = make_table().add_column("fine", [0, 1] * (N // 2))
    assert read(table, recipe).label_names == ("0", "1")
    assert len(read((GREY, LABELS), recipe).test) == N // 2


def test_a_recipe_of_data_knows_them_in_whatever_order_and_form(read: Callable[..., Source], recipe: Recipe) -> None:
    named = name_data(choose_source(recipe, (COLOUR, TEXTS))[0], read((COLOUR, TEXTS)))
    assert (named.source.name, len(named.source.fingerprint)) == ("data in memory", 64)
    again, data = choose_source(named, make_table().shuffle(seed=2))
    assert isinstance(data, InMemory)
    assert name_data(again, read(make_table().shuffle(seed=2), named)).sha256 == named.sha256
    with pytest.raises(SourceError, match=r"source\.fingerprint: must be that of the data"):
        name_data(named, read((COLOUR[:-1], TEXTS[:-1]), named))
    with pytest.raises(
        SourceNotFoundError, match=r"data in memory \('data in memory', fingerprint .* must pass the same data"
    ):
        read(None, named)


def test_a_transform_that_a_table_has_is_told_of(read: Callable[..., Source]) -> None:
    source = read(make_table().with_transform(lambda rows: rows))
    assert source.warnings == ("train: its transform is not applied, images are as they are stored",)


# Memory


def test_arrays_and_tables_are_referred_to_and_workers_get_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyds.data.memory.parts.ARRAY_BYTES", COLOUR.nbytes // 4)
    monkeypatch.setattr("proxyds.data.memory.parts.TABLE_BYTES", make_table().data.nbytes // 4 + 4)
    for given, kind in (
        ((COLOUR, LABELS), ArrayPart),
        ((torch.from_numpy(COLOUR), LABELS), ArrayPart),
        (TensorDataset(torch.from_numpy(COLOUR).permute(0, 3, 1, 2), torch.from_numpy(LABELS)), ArrayPart),
        (make_table(), TablePart),
        (make_table().shuffle(seed=0), TablePart),
    ):
        parts = take_data(given).hold(None, _section()).parts
        assert len(parts) == 4
        assert [part.first for part in parts] == [0, 10, 20, 30]
        for part in parts:
            assert isinstance(part, kind)
            if isinstance(part, ArrayPart):
                assert np.shares_memory(part.images, COLOUR)
            sent = pickle.dumps(part)
            assert len(sent) < 10 * (COLOUR[0].nbytes + 150) + 2000
            received = pickle.loads(sent)
            assert list(received.rows()) == list(part.rows())
            assert received.content == part.content
            assert [received.encoded(i) for i in range(10)] == [encoded for encoded, _, _ in part.rows()]


def test_a_data_set_is_asked_for_each_image_once(read: Callable[..., Source]) -> None:
    pairs = Pairs()
    source = read(Subset(pairs, range(0, N, 2)))
    read_encoded(source, source.train.load())
    assert pairs.n_asked == N // 2 + 1  # the first once more, to see that it is the same


def test_a_data_set_that_changes_its_images_at_random_is_refused(read: Callable[..., Source]) -> None:
    class Changing(Pairs):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, label = super().__getitem__(index)
            return np.asarray(image) + np.uint8(self.n_asked), label

    with pytest.raises(SourceError, match="the same image each time"):
        read(Changing())


def test_equal_data_are_decoded_once(recipe: Recipe, tmp_path: Path) -> None:
    done: list[Task] = []

    class Counting(InProcess):
        def run(self, tasks: Any, *others: Any, **how: Any) -> Any:
            done.extend(tasks)
            return super().run(tasks, *others, **how)

    run = partial(run_stored, store=Store(tmp_path / "store"), engine=Counting(), on_progress=ignore_progress)
    for form, n_done in (((COLOUR, TEXTS), 2), ((COLOUR.copy(), TEXTS), 0), (([*COLOUR], np.array(TEXTS)), 0)):
        done.clear()
        read_source(*choose_source(recipe, form), run)
        assert len(done) == n_done


# What is wrong


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Broken(Pairs):
    def __getitem__(self, index: int) -> Any:
        raise OSError("gone")


class Frame:
    """What looks like a data frame of pandas."""

    __module__ = "pandas.core.frame"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return index


FLOATS = (COLOUR / 255).astype(np.float32)
WRONG: dict[str, tuple[Any, type[SourceError], str]] = {
    "unequal length": ((COLOUR, TEXTS[1:]), SourceError, "found 40 images and 39 labels"),
    "floats": ((FLOATS, TEXTS), SourceError, r"must be of uint8.*found float32 from 0 to 1.*\(images \* 255\)"),
    "normalised": ((FLOATS - 0.5, TEXTS), SourceError, "before they are scaled or normalised"),
    "whole numbers": ((COLOUR.astype(np.int64), TEXTS), SourceError, r"take images.astype\('uint8'\)"),
    "16 bits": ((COLOUR.astype(np.uint16) * 256, TEXTS), SourceError, "make 8 bits of them"),
    "a transform": (Pairs(transform=ToTensor()), SourceError, r"train\[0\] must be of uint8.*transform=None"),
    "tensors of floats": (TensorDataset(torch.rand(4, 1, 8, 8), torch.zeros(4)), LabelError, "whole numbers or texts"),
    "tensors without values": (
        (torch.empty(4, 1, 8, 8, device="meta"), [0, 1] * 2),
        SourceError,
        "that numpy can hold",
    ),
    "tensors of bfloat16": ((COLOUR, torch.zeros(N, dtype=torch.bfloat16)), SourceError, "that numpy can hold"),
    "labels beyond 64 bits": (
        ([*map(Image.fromarray, COLOUR)], [2**70, *LABELS[1:].tolist()]),
        LabelError,
        "label 0 is longer",
    ),
    "two channels": ((COLOUR[..., :2], TEXTS), SourceError, "with C of 1, 3 or 4 channels"),
    "flat": ((COLOUR.reshape(N, -1), TEXTS), SourceError, r"found \(40, 192\); reshape"),
    "sizes": (([*COLOUR[:-1], COLOUR[0, :4]], TEXTS), SourceError, "image_size: must be given"),
    "no labels": ((COLOUR, None), SourceError, "found None for labels"),
    "images alone": (COLOUR, SourceError, r"found a numpy.ndarray alone.*pass \(images, labels\)"),
    "a tensor": (torch.from_numpy(COLOUR), SourceError, "found a torch.Tensor alone"),
    "one label": ((COLOUR, ["a"] * N), LabelError, "two labels or more"),
    "one hot": ((COLOUR, np.eye(4)[LABELS]), LabelError, r"argmax"),
    "one hot in a list": ((COLOUR, list(np.eye(4)[LABELS])), LabelError, r"label 0 is a numpy.ndarray.*argmax"),
    "labels of floats": ((COLOUR, LABELS / 2), LabelError, "label 0 is a float; turn them into"),
    "mixed labels": ((COLOUR, ["a", 1] * (N // 2)), LabelError, "found both"),
    "a label that is missing": ((COLOUR, [None, *TEXTS[1:]]), LabelError, r"1 of 40 .* have none"),
    "no such class": (Subset(Pairs(), [0] * 4), LabelError, "two labels or more"),
    "empty": ((COLOUR[:0], TEXTS[:0]), SourceError, "must hold images, found none"),
    "empty list": ([], SourceError, "must hold images, found none"),
    "empty table": (make_table().select([]), SourceError, "must hold images, found none"),
    "empty mapping": ({}, SourceError, "an empty mapping"),
    "a generator": ((pair for pair in [(COLOUR[0], 1)]), SourceError, "can be read but once"),
    "a stream": (Endless(), SourceError, "can be read but once"),
    "a streamed table": (make_table().to_iterable_dataset(), SourceError, "can be read but once"),
    "a loader": (DataLoader(Pairs()), SourceError, "gives batches; pass its data set, loader.dataset"),
    "a frame": (Frame(), SourceError, r"found a pandas.Frame; pass \(images, labels\)"),
    "a mapping of columns": ({"image": COLOUR, "label": LABELS}, SourceError, r"source\['image'\]: must be"),
    "a mapping of paths": ({"train": "pictures"}, SourceError, r"source\['train'\]: must be .*found a str"),
    "numbered splits": ({0: (COLOUR, LABELS)}, SourceError, "must be texts"),
    "a pair of pairs": (((COLOUR, LABELS), (COLOUR, LABELS)), SourceError, "name the splits"),
    "three": ((COLOUR, LABELS, LABELS), SourceError, "of 3; pass"),
    "a number": (5, SourceError, "source: must be .*found an int"),
    "a set": ({1, 2}, SourceError, "found a set"),
    "no path": ("nowhere", SourceNotFoundError, "there is neither"),
    "no pairs": ([1, 2], SourceError, r"train\[0\] must be an \(image, label\), found an int"),
    "texts for images": ((["a"] * N, TEXTS), SourceError, r"train\[0\] must be an image"),
    "a text for all images": (("a" * N, TEXTS), SourceError, "must be an array, a tensor or a list, found a str"),
    "fails": (Broken(), SourceError, r"train\[0\] .* says OSError: gone"),
    "a subset of more": (
        Subset(TensorDataset(torch.from_numpy(COLOUR), torch.arange(N)), [99]),
        SourceError,
        "subset of",
    ),
    "deep pictures": (([Image.new("F", (8, 8))] * N, TEXTS), SourceError, "8 bits a channel, found Pillow's mode F"),
    "no column of images": (datasets.Dataset.from_dict({"label": [0, 1]}), SourceError, "image_column"),
    "no column of labels": (make_table().remove_columns("label"), LabelError, "label_column"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_what_to_pass(read: Callable[..., Source], case: str) -> None:
    given, kind, said = WRONG[case]
    with pytest.raises(kind, match=said) as caught:
        read(given)
    assert "Traceback" not in str(caught.value)


def test_damaged_files_of_a_table_are_left_out_if_the_recipe_says_so(
    read: Callable[..., Source], write_recipe_file: Callable[..., Path]
) -> None:
    rows = make_table().cast_column("image", datasets.Image(decode=False)).to_list()
    rows[7]["image"]["bytes"] = b"no image"
    damaged = datasets.Dataset.from_list(rows, features=make_table().features)
    with pytest.raises(BadImageError, match=r"train\[7\]"):
        read(damaged)
    lenient = read_recipe(write_recipe_file(f"{HEAD}source: {{kind: memory, on_bad_image: skip}}\n"))
    assert read(damaged, lenient).facts.bad_images == ("train[7]",)


def test_pictures_are_upright_and_of_any_mode(read: Callable[..., Source], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder, pictures = tmp_path / "turned", []
    for number, (image, text) in enumerate(zip(COLOUR, TEXTS, strict=True)):
        file = folder / text / f"{number}.webp"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, lossless=True, exif=exif.tobytes())
        pictures.append(Image.open(file))
    pictures[3] = pictures[3].convert("RGBA")
    assert read((pictures, TEXTS)).facts.fingerprint == read(folder).facts.fingerprint


def test_places_in_a_split_are_counted_through_its_parts(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    monkeypatch.setattr("proxyds.data.memory.parts.PART", 7)
    placed, data = choose_source(recipe, (COLOUR, TEXTS))
    (split,) = open_splits(placed.source, None, 0, data).splits.values()
    assert [part.first for part in split.parts] == [0, 7, 14, 21, 28, 35]
