"""What a folder holds is told by the rules of `docs/sources.md`: nothing is dropped, and nothing guessed, in silence."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import tempfile
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from proxyds.data.images import FORMATS
from proxyds.data.readers import NOT_READ
from proxyds.data.survey.folder import check_one_form, survey_folder
from proxyds.data.survey.listing import READ_SUFFIXES, UNREAD_SUFFIXES
from proxyds.data.survey.records import Survey
from proxyds.errors import BadImageError, LabelError, SourceError, SourceNotFoundError, SplitNotFoundError
from proxyds.recipe.sections.source import FolderSource
from tests.data import test_source
from tests.data.pngs import COLOUR, COLOUR_AND_ALPHA, GREY, GREY_AND_ALPHA, write_png
from tests.data.test_source import NAMES, Load, encode, every, picture, some_rows, write_parquet

load = test_source.load
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def lay(folder: Path, *paths: str) -> Path:
    """Lays images, each another one, where nothing else is said; paths that end with `/` are folders."""
    for number, path in enumerate(paths):
        place = folder / path
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode(picture(1000 + number)))
    return folder


def lay_classes(folder: Path, labels: tuple[str, ...] = ("cat", "dog"), n: int = 8, first: int = 0) -> Path:
    for label_number, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            (folder / label / f"{number}.png").write_bytes(encode(picture(first + label_number * n + number)))
    return folder


def survey(folder: Path, **choices: Any) -> Survey:
    return survey_folder(folder, FolderSource(kind="folder", path=str(folder), **choices))


def show(found: Survey) -> dict[str, dict[Any, list[str]]]:
    """The paths by split and label."""
    shown: dict[str, dict[Any, list[str]]] = {}
    for name, split in found.splits.items():
        labels = shown.setdefault(name, {})
        for file, label in zip(split.files, split.labels, strict=True):
            labels.setdefault(label, []).append(file.path)
    return shown


# Splits and labels


def test_a_label_may_have_the_name_of_a_split(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "train", ("test", "control"))
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == ("control", "test")
    assert source.facts.n_samples == {"train": 16}
    assert source.facts.n_shared == 0


def test_labels_that_are_named_as_splits_are_in_both_splits(load: Load, tmp_path: Path) -> None:
    labels = ("eval", "dev", "cat")
    lay_classes(tmp_path / "pictures" / "train", labels)
    lay_classes(tmp_path / "pictures" / "test", labels, 4, 100)
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == ("cat", "dev", "eval")
    assert source.facts.n_samples == {"train": 24, "test": 12}
    assert Counter(source.test.labels.tolist()) == {0: 4, 1: 4, 2: 4}


def test_splits_are_splits_in_any_case(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "Train/cat/0.png",
        "Train/dog/0.png",
        "TEST/cat/1.png",
        "TEST/dog/1.png",
        "val/cat/2.png",
        "val/dog/2.png",
    )
    found = survey(tmp_path)
    assert show(found) == {
        "test": {"cat": ["TEST/cat/1.png"], "dog": ["TEST/dog/1.png"]},
        "train": {"cat": ["Train/cat/0.png"], "dog": ["Train/dog/0.png"]},
        "validation": {"cat": ["val/cat/2.png"], "dog": ["val/dog/2.png"]},
    }


def test_two_folders_of_one_split_are_named(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{split}/{label}/0.png" for split in ("train", "val", "dev") for label in ("cat", "dog")))
    with pytest.raises(SourceError, match=r"dev, val.*source\.validation_split"):
        survey(tmp_path)
    found = survey(tmp_path, validation_split="dev")
    assert set(found.splits) == {"train", "dev", "validation"}


def test_a_split_may_be_named_by_the_recipe(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "fit")
    lay_classes(tmp_path / "pictures" / "judge", n=4, first=100)
    with pytest.raises(LabelError, match=r"fit/cat, judge/cat.*source\.train_split"):
        load("{kind: folder, path: pictures}")
    source = load("{kind: folder, path: pictures, train_split: fit, test_split: judge}")
    assert source.facts.n_samples == {"fit": 16, "judge": 8}


def test_a_split_that_the_recipe_has_no_use_for_is_told(load: Load, tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test", "judge")):
        lay_classes(tmp_path / "pictures" / split, first=100 * number)
    source = load("{kind: folder, path: pictures, test_split: judge}")
    assert source.facts.n_samples == {"train": 16, "judge": 16}
    assert any("no use for the splits test" in warning for warning in source.warnings)


def test_folders_that_may_be_splits_or_labels_are_asked_for(tmp_path: Path) -> None:
    lay(tmp_path, "test/0.png", "control/1.png")
    with pytest.raises(SourceError, match=r"test.*control.*source\.split_folders: false"):
        survey(tmp_path)
    assert show(survey(tmp_path, split_folders=False)) == {
        "train": {"control": ["control/1.png"], "test": ["test/0.png"]}
    }


def test_images_in_split_folders_have_no_label(tmp_path: Path) -> None:
    lay(tmp_path, "train/0.png", "test/1.png")
    with pytest.raises(LabelError, match=r"/LABEL/NAME\.png.*train/0\.png.*split_folders"):
        survey(tmp_path)


def test_a_folder_above_all_counts_for_nothing(tmp_path: Path) -> None:
    lay(tmp_path, *(f"data/v2/{split}/{label}/0.png" for split in ("train", "test") for label in ("cat", "dog")))
    assert show(survey(tmp_path)) == {
        split: {label: [f"data/v2/{split}/{label}/0.png"] for label in ("cat", "dog")} for split in ("test", "train")
    }


def test_a_recipe_may_ask_for_a_split_that_is_not_there(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "test")
    with pytest.raises(SplitNotFoundError, match="'train'; it has: test"):
        load("{kind: folder, path: pictures}")


def test_labels_that_only_one_split_has_are_named(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "train")
    lay_classes(tmp_path / "pictures" / "test", ("cat", "yak"), 4, 100)
    with pytest.raises(LabelError, match=r"test alone has yak and test lacks dog.*source\.labels_may_differ: true"):
        load("{kind: folder, path: pictures}")
    assert load("{kind: folder, path: pictures, labels_may_differ: true}").label_names == ("cat", "dog", "yak")


def test_a_name_is_the_same_however_its_letters_are_composed(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "train", (COMPOSED, "dog"))
    lay_classes(tmp_path / "pictures" / "test", (DECOMPOSED, "dog"), 4, 100)
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == (COMPOSED, "dog")
    assert Counter(source.test.labels.tolist()) == {0: 4, 1: 4}


def test_two_folders_of_one_label_are_named(tmp_path: Path) -> None:
    lay(tmp_path, f"{COMPOSED}/0.png", f"{DECOMPOSED}/1.png", "dog/2.png")
    with pytest.raises(LabelError, match="one folder"):
        survey(tmp_path)
    lay(tmp_path / "deep", "a/x/0.png", "b/x/1.png", "b/y/2.png")
    with pytest.raises(LabelError, match="a/x, b/x"):
        survey(tmp_path / "deep")


def test_texts_in_parquet_are_normalized_too(load: Load, tmp_path: Path) -> None:
    import datasets

    rows = [(encoded, (COMPOSED, DECOMPOSED, "dog", "elk")[label]) for encoded, label in some_rows()]
    write_parquet(tmp_path / "pictures", rows, label=datasets.Value("string"))
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == (COMPOSED, "dog", "elk")
    assert Counter(every(source, "labels")) == {0: 20, 1: 10, 2: 10}


# What is left over


@pytest.mark.parametrize(
    "path",
    ["train/cat/more/x.png", "train/x.png", "x.png", "extra/cat/x.png"],
    ids=["deeper", "in a split", "at the top", "beside"],
)
def test_an_image_elsewhere_than_others_is_named_with_what_is_needed(tmp_path: Path, path: str) -> None:
    lay(tmp_path, "train/cat/0.png", "train/dog/1.png", "train/dog/2.png", path)
    with pytest.raises(SourceError, match=rf"{path}.*like train/cat/0\.png.*source\.on_left_over: skip"):
        survey(tmp_path)
    found = survey(tmp_path, on_left_over="skip")
    assert show(found) == {"train": {"cat": ["train/cat/0.png"], "dog": ["train/dog/1.png", "train/dog/2.png"]}}
    assert list(found.left_out.values()) == [(path,)]
    assert any(path in warning for warning in found.warnings)


def test_one_class_only_says_which_folders_are_needed(tmp_path: Path) -> None:
    lay(tmp_path / "pictures", "train/cat/0.png", "train/cat/1.png")
    with pytest.raises(LabelError, match=r"found 1 in split train \(cat\).*pictures/train/LABEL/NAME\.png"):
        survey(tmp_path / "pictures")


def test_images_of_formats_that_are_not_read_are_named_alike(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "train")
    for name in ("a.avif", "b.ico", "c.tga"):
        (tmp_path / "pictures" / "train" / "cat" / name).write_bytes(b"whatever")
    with pytest.raises(SourceError, match=r"images of formats that are not read: 3 \(.*a\.avif, .*b\.ico, .*c\.tga\)"):
        load("{kind: folder, path: pictures}")
    source = load("{kind: folder, path: pictures, on_left_over: skip}")
    assert source.facts.n_samples == {"train": 16}
    assert list(source.facts.left_out.values()) == [3]
    assert sum("c.tga" in warning for warning in source.warnings) == 1


def test_the_suffixes_are_those_of_the_formats() -> None:
    Image.init()
    of_formats = {suffix for suffix, name in Image.EXTENSION.items() if name in FORMATS}
    assert of_formats - {".pfm"} <= READ_SUFFIXES
    assert not READ_SUFFIXES & UNREAD_SUFFIXES
    readable = {suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN}
    others = {".hdf", ".h5", ".mpg", ".mpeg", ".bufr", ".grib", ".iim", ".gbr", ".ftc", ".ftu", ".pxr", ".pdf"}
    assert readable - READ_SUFFIXES - others <= UNREAD_SUFFIXES


def test_an_image_that_is_not_named_as_one_is_named(tmp_path: Path) -> None:
    lay(tmp_path, "cat/0.png", "dog/1.png", "dog/2")
    with pytest.raises(SourceError, match=r"names do not end .*: 1 \(dog/2\)"):
        survey(tmp_path)


def test_what_systems_leave_is_left_out_and_counted(tmp_path: Path) -> None:
    left = (".DS_Store", "cat/Thumbs.db", "cat/._0.png", "__MACOSX/cat/0.png", "dog/.ipynb_checkpoints/0.png")
    lay(tmp_path, "cat/0.png", "dog/1.png", *left)
    (tmp_path / "cat" / "0.txt").write_text("a cat")
    found = survey(tmp_path)
    assert show(found) == {"train": {"cat": ["cat/0.png"], "dog": ["dog/1.png"]}}
    hidden, side_cars = sorted(found.left_out.values(), key=len, reverse=True)
    assert set(hidden) == {".DS_Store", "cat/Thumbs.db", "cat/._0.png", "__MACOSX/", "dog/.ipynb_checkpoints/"}
    assert side_cars == ("cat/0.txt",)
    assert len(found.warnings) == 2


def test_a_class_folder_that_is_a_link_is_named_and_followed_if_asked(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "elsewhere", ("dog",), first=50)
    lay_classes(tmp_path / "pictures" / "train", ("cat", "elk"))
    (tmp_path / "pictures" / "train" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    with pytest.raises(SourceError, match=r"train/dog.*") as caught:
        load("{kind: folder, path: pictures}")
    assert "source.follow_links: true" in str(caught.value)
    source = load("{kind: folder, path: pictures, follow_links: true}")
    assert source.label_names == ("cat", "dog", "elk")
    assert source.facts.n_samples == {"train": 24}


def test_links_that_lead_around_or_nowhere_are_named(tmp_path: Path) -> None:
    lay(tmp_path, "cat/0.png", "dog/1.png")
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "elk").symlink_to("dog")
    (tmp_path / "yak.png").symlink_to("nowhere.png")
    (tmp_path / "circle").symlink_to("circle")
    for follow_links in (False, True):
        with pytest.raises(SourceError) as caught:
            survey(tmp_path, follow_links=follow_links)
        for name in ("cat/up", "elk", "yak.png", "circle"):
            assert name in str(caught.value)


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    lay(tmp_path, "all/0.png", "all/1.png", "pictures/cat/", "pictures/dog/")
    for label, number in (("cat", 0), ("dog", 1)):
        (tmp_path / "pictures" / label / "x.png").symlink_to(tmp_path / "all" / f"{number}.png")
    assert show(survey(tmp_path / "pictures")) == {"train": {"cat": ["cat/x.png"], "dog": ["dog/x.png"]}}


def test_an_archive_among_images_is_named(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/0.png", "train/dog/1.png")
    (tmp_path / "train" / "all.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"archives.*: 1 \(train/all\.zip"):
        survey(tmp_path)


def test_a_folder_with_magic_letters_is_read(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "y[1] set*" / "train")
    assert load("{kind: folder, path: 'y[1] set*'}").facts.n_samples == {"train": 16}
    write_parquet(tmp_path / "z[1] set", some_rows())
    assert load("{kind: folder, path: 'z[1] set'}").facts.n_samples == {"train": 40}


def test_a_readme_does_not_override_a_folder_of_images(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "train")
    lay_classes(tmp_path / "pictures" / "test", first=100)
    header = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'test/**'}\n---\n"
    (tmp_path / "pictures" / "README.md").write_text(header)
    source = load("{kind: folder, path: pictures}")
    assert source.facts.n_samples == {"train": 16, "test": 16}
    assert any("configs" in warning for warning in source.warnings)


def test_a_readme_over_parquet_is_followed_and_told(load: Load, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pictures", some_rows())
    write_parquet(tmp_path / "pictures", some_rows(24, 100), "other")
    header = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'other*'}\n---\n"
    (tmp_path / "pictures" / "README.md").write_text(header)
    source = load("{kind: folder, path: pictures}")
    assert source.facts.n_samples == {"train": 24}
    assert "README.md" in source.facts.layout
    assert source.facts.left_out == {NOT_READ: 1}
    assert any("train-00000-of-00001.parquet" in warning for warning in source.warnings)


def test_a_class_folder_without_images_is_told(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/0.png", "train/dog/1.png", "train/elk/", "train/yak/deep/")
    found = survey(tmp_path)
    assert show(found) == {"train": {"cat": ["train/cat/0.png"], "dog": ["train/dog/1.png"]}}
    (warning,) = found.warnings
    assert "train/elk, train/yak" in warning


def test_two_forms_of_data_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, some_rows())
    lay(tmp_path, "assets/example.png")
    with pytest.raises(SourceError, match=r"assets/example\.png.*on_left_over"):
        survey(tmp_path)
    found = survey(tmp_path, on_left_over="skip")
    assert found.form == "parquet"
    check_one_form(found)  # one folder of pictures is no data set


@pytest.mark.parametrize("backup", ["backup.tar", "tables/all.parquet"])
def test_images_in_folders_beside_other_data_are_two_forms_that_are_to_be_told_apart(
    tmp_path: Path, backup: str
) -> None:
    lay_classes(tmp_path)
    (tmp_path / backup).parent.mkdir(exist_ok=True)
    (tmp_path / backup).write_bytes(bytes(1024))
    with pytest.raises(SourceError, match=rf"{backup}.*images in folders: 16 .*move away.*skip"):
        survey(tmp_path)
    with pytest.raises(SourceError, match=rf"{backup}.*beside images in folders: 16 .*move away"):
        check_one_form(survey(tmp_path, on_left_over="skip"))


def test_a_label_whose_folder_is_there_and_empty_is_named_where_splits_differ(tmp_path: Path) -> None:
    lay(tmp_path, "Train/cat/0.png", "Train/elk/1.png", "Train/dog/", "val/cat/2.png", "val/elk/3.png", "val/dog/4.png")
    with pytest.raises(LabelError, match=r"alone has dog and no image that is used is in Train/dog, "):
        survey(tmp_path)


def test_names_that_are_no_text_are_named(tmp_path: Path) -> None:
    lay(tmp_path, "cat/0.png", "dog/1.png")
    (tmp_path / os.fsdecode(b"cat/\xff.png")).write_bytes(b"")
    with pytest.raises(SourceError, match="not UTF-8"):
        survey(tmp_path)


def test_a_folder_of_nothing_to_read_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(SourceNotFoundError, match=r"notes\.txt"):
        survey(tmp_path)


PARTS = (
    "train",
    "Test",
    "val",
    "dev",
    "cat",
    "dog",
    COMPOSED,
    DECOMPOSED,
    "y[1] set",
    "a b",
    ".hidden",
    "__MACOSX",
    "Training",
)
FILES = (
    *("0.png", "1.JPG", "2.webp", "3.avif", "4.tga", "5", "all.zip", "notes.txt", ".DS_Store", "Thumbs.db", "._0.png"),
    *("train.png", "6.jpeg", "metadata.csv", "x.parquet", "x.tar"),
)
WILD = st.lists(
    st.tuples(st.lists(st.sampled_from(PARTS), max_size=3), st.sampled_from(FILES)), min_size=1, max_size=12
)
"""Whatever can lie in a folder."""


@st.composite
def tidy_trees(draw: st.DrawFn) -> list[tuple[list[str], str]]:
    """A folder with splits and labels, and a few things that do not belong there."""
    above = draw(st.lists(st.sampled_from(["a b", "data"]), max_size=2))
    chosen = draw(st.lists(st.sampled_from(["TRAIN", "val", "Test"]), max_size=3, unique=True))
    labels = draw(st.lists(st.sampled_from(["cat", "dev", "test", COMPOSED, "y[1] set"]), min_size=2, unique=True))
    tree = [
        ([*above, *split, label], f"{number}.{suffix}")
        for split in ([[each] for each in chosen] or [[]])
        for label in labels
        for number, suffix in enumerate(draw(st.lists(st.sampled_from(["png", "JPG", "webp"]), min_size=1, max_size=3)))
    ]
    names = [name for name in FILES if not name.startswith(("metadata", "x."))]
    noise = st.tuples(
        st.lists(st.sampled_from([*above, *chosen, *labels, "__MACOSX", "deep"]), max_size=4), st.sampled_from(names)
    )
    return tree + draw(st.lists(noise, max_size=3))


PNG = encode(picture(0))


@given(
    tree=WILD | tidy_trees() | tidy_trees(),
    links=st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from(PARTS)), max_size=2),
    skip=st.booleans(),
    split_folders=st.booleans(),
    follow_links=st.booleans(),
)
@settings(max_examples=300)
def test_every_image_is_used_with_its_folders_label_or_accounted_for(
    tree: list[tuple[list[str], str]], links: list[tuple[str, str]], skip: bool, split_folders: bool, follow_links: bool
) -> None:
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held) / "pictures"
        folder.mkdir()
        for parts, name in tree:
            place = folder.joinpath(*parts)
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(PNG if name != "x.tar" else bytes(1024))
        for name, target in links:
            if not (folder / name).exists() and not (folder / name).is_symlink():
                (folder / name).symlink_to(target)
        choices = {
            "on_left_over": "skip" if skip else "fail",
            "split_folders": split_folders,
            "follow_links": follow_links,
            "labels_may_differ": True,
        }
        try:
            found = survey(folder, **choices)
        except SourceError:
            return  # it says so
        there = {
            (Path(root) / name).relative_to(folder).as_posix()
            for root, _, names in os.walk(folder)
            for name in names
            if not (Path(root) / name).is_symlink() or (Path(root) / name).is_file()
        }
        used = [file.path for split in found.splits.values() for file in split.files]
        left = [path for paths in found.left_out.values() for path in paths]
        assert len(used) == len({(folder / path).stat().st_ino for path in used})
        assert not set(used) & set(left)
        is_images = found.form == "images"
        for path in there - set(used):
            known = path in left or any(each.endswith("/") and path.startswith(each) for each in left)
            assert known or (is_images and path.endswith("metadata.csv"))
        if not skip:
            assert set(found.left_out) <= {"hidden files, or those of systems", "other files"}
        if not is_images:
            return
        for name, split in found.splits.items():
            for file, label in zip(split.files, split.labels, strict=True):
                above = Path(file.path).parent
                assert label == unicodedata.normalize("NFC", above.name)
                if name == "train" and split_folders:
                    assert not any(part in ("Test", "val", "dev") for part in above.parts[:1]) or len(above.parts) == 1
                if name != "train":
                    assert split_folders
                    assert len(above.parts) > 1


@pytest.mark.slow
def test_a_hundred_thousand_files_are_surveyed_in_seconds(tmp_path: Path) -> None:
    for label in range(100):
        folder = tmp_path / "train" / f"label{label:03d}"
        folder.mkdir(parents=True)
        for number in range(1000):
            (folder / f"{number}.png").touch()
    started = time.perf_counter()
    found = survey(tmp_path)
    assert time.perf_counter() - started < 10
    assert len(found.splits["train"].files) == 100_000


# Tables of labels


def write_table(folder: Path, labels: list[Any], form: str = "csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(len(labels))]
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode(picture(number)))
    if form == "csv":
        lines = ["file_name,label", *(f"{name},{label}" for name, label in zip(names, labels, strict=True))]
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    elif form == "jsonl":
        lines = [json.dumps({"file_name": name, "label": label}) for name, label in zip(names, labels, strict=True)]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    else:
        pq.write_table(pa.table({"file_name": names, "label": labels}), folder / "metadata.parquet")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_names_in_a_table_are_names_whatever_they_say(load: Load, tmp_path: Path, form: str) -> None:
    write_table(tmp_path / "pictures", ["NA", "None", "EU", "null"] * 10, form)
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == ("EU", "NA", "None", "null")
    assert Counter(every(source, "labels")) == {0: 10, 1: 10, 2: 10, 3: 10}


def test_numbers_in_a_table_are_numbers(load: Load, tmp_path: Path) -> None:
    write_table(tmp_path / "pictures", [2, 10, 33] * 8)
    assert load("{kind: folder, path: pictures}").label_names == ("2", "10", "33")


def test_numbers_with_zeros_in_front_are_names(load: Load, tmp_path: Path) -> None:
    write_table(tmp_path / "pictures", ["007", "10"] * 8)
    assert load("{kind: folder, path: pictures}").label_names == ("007", "10")


def test_numbers_that_are_too_long_to_count_with_are_names_or_refused(load: Load, tmp_path: Path) -> None:
    write_table(tmp_path / "csv", [10**30, 2 * 10**30] * 8)
    assert load("{kind: folder, path: csv}").label_names == (str(10**30), str(2 * 10**30))
    write_table(tmp_path / "jsonl", [10**30, 1] * 8, "jsonl")
    with pytest.raises(LabelError, match="a number of more than 64 bits"):
        load("{kind: folder, path: jsonl}")


def test_a_table_that_is_nested_too_deep_is_refused(load: Load, tmp_path: Path) -> None:
    write_table(tmp_path / "pictures", [0, 1] * 8, "jsonl")
    (tmp_path / "pictures" / "metadata.jsonl").write_text("[" * 100_000)
    with pytest.raises(SourceError, match="cannot be read"):
        load("{kind: folder, path: pictures}")


def test_fractions_in_a_table_are_no_labels(load: Load, tmp_path: Path) -> None:
    write_table(tmp_path / "pictures", ["0.5", "1", "1.5"] * 8)
    with pytest.raises(LabelError, match="whole numbers or text"):
        load("{kind: folder, path: pictures}")


def test_categories_of_a_table_are_labels(load: Load, tmp_path: Path) -> None:
    write_table(tmp_path / "pictures", ["cat", "dog"] * 8, "parquet")
    path = tmp_path / "pictures" / "metadata.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("label")
    pq.write_table(table.set_column(place, "label", table["label"].dictionary_encode()), path)
    assert load("{kind: folder, path: pictures}").label_names == ("cat", "dog")


def test_a_label_that_a_table_lacks_is_counted(load: Load, tmp_path: Path) -> None:
    write_table(tmp_path / "pictures", ["cat", "", "dog", ""])
    with pytest.raises(LabelError, match="2 of 4 in split train have none"):
        load("{kind: folder, path: pictures}")


def test_tables_of_splits_and_one_of_all(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_table(tmp_path / "each" / split, ["cat", "dog"])
    expected = {
        split: {label: [f"{split}/{n}.png"] for n, label in enumerate(("cat", "dog"))} for split in ("train", "test")
    }
    assert show(survey(tmp_path / "each")) == expected
    lay(tmp_path / "one", *(path for labels in expected.values() for paths in labels.values() for path in paths))
    lines = [f"{path},{label}" for labels in expected.values() for label, paths in labels.items() for path in paths]
    (tmp_path / "one" / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    assert show(survey(tmp_path / "one")) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2.png,elk", r"lists 2\.png where no image is"),
        ("0.png,elk", r"lists 0\.png twice"),
        ("../0.png,elk", "must name files of the folder"),
        ("/etc/passwd,elk", "must name files of the folder"),
        ('"0.png', "cannot be read"),
        (",elk", "must name files of the folder"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path: Path, line: str, said: str) -> None:
    write_table(tmp_path, ["cat", "dog"])
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write(line)
    with pytest.raises(SourceError, match=said) as caught:
        survey(tmp_path)
    assert "metadata.csv" in str(caught.value)


def test_an_image_that_no_table_lists_is_left_over(tmp_path: Path) -> None:
    write_table(tmp_path, ["cat", "dog"])
    lay(tmp_path, "more.png")
    with pytest.raises(SourceError, match=r"no table of labels lists: 1 \(more\.png\)"):
        survey(tmp_path)
    assert show(survey(tmp_path, on_left_over="skip")) == {"train": {"cat": ["0.png"], "dog": ["1.png"]}}


def test_a_table_without_labels_leaves_them_to_folders(tmp_path: Path) -> None:
    lay(tmp_path, "cat/0.png", "dog/1.png")
    (tmp_path / "metadata.csv").write_text("file_name,caption\ncat/0.png,a cat\ndog/1.png,a dog\n")
    found = survey(tmp_path)
    assert show(found) == {"train": {"cat": ["cat/0.png"], "dog": ["dog/1.png"]}}
    assert any("metadata.csv" in warning for warning in found.warnings)


# Tars


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, held in members:
            member = tarfile.TarInfo(name)
            member.size = len(held)
            tar.addfile(member, io.BytesIO(held))


def test_a_tar_of_jpeg_first_and_png_later_is_read(load: Load, tmp_path: Path) -> None:
    members = []
    for number in range(40):
        kind, ending = ("JPEG", "jpg") if number < 20 else ("PNG", "png")
        members += [
            (f"a/{number:03d}.{ending}", encode(picture(number), kind)),
            (f"a/{number:03d}.cls", b"%d" % (number % 4)),
        ]
    write_tar(tmp_path / "pictures" / "train-000.tar", members)
    source = load("{kind: folder, path: pictures}")
    assert source.label_names == NAMES
    assert source.facts.n_samples == {"train": 40}


def test_members_that_do_not_stand_together_are_told_of_the_rules(load: Load, tmp_path: Path) -> None:
    images = [(f"{number}.png", encode(picture(number))) for number in range(8)]
    labels = [(f"{number}.cls", b"%d" % (number % 4)) for number in range(8)]
    for members in (images + labels, labels + images):
        write_tar(tmp_path / "pictures" / "train.tar", members)
        with pytest.raises(SourceError, match=r"next to each other.*train\.tar.*WebDataset.*--sort=name"):
            load("{kind: folder, path: pictures}")


def test_keys_with_dots_are_told_of_the_rules(load: Load, tmp_path: Path) -> None:
    members = [
        (f"img.{n:03d}.{end}", held)
        for n in range(8)
        for end, held in (("png", encode(picture(n))), ("cls", b"%d" % (n % 4)))
    ]
    write_tar(tmp_path / "pictures" / "train.tar", members)
    with pytest.raises(SourceError, match=r"img.*first dot"):
        load("{kind: folder, path: pictures}")


def test_other_members_are_named_by_the_recipe(load: Load, tmp_path: Path) -> None:
    members = []
    for n in range(16):
        for ending, held in (
            ("jpg", encode(picture(n), "JPEG")),
            ("seg.png", encode(picture(99))),
            ("txt", b"bee\n" if n % 2 else b"cat\n"),
        ):
            members.append((f"{n:02d}.{ending}", held))
    write_tar(tmp_path / "pictures" / "train.tar", members)
    with pytest.raises(SourceError, match=r"source\.image_column.*\.jpg, \.seg\.png"):
        load("{kind: folder, path: pictures, label_column: txt}")
    with pytest.raises(LabelError, match=r"source\.label_column"):
        load("{kind: folder, path: pictures, image_column: jpg}")
    source = load("{kind: folder, path: pictures, image_column: jpg, label_column: txt}")
    assert source.label_names == ("bee", "cat")
    assert source.facts.n_duplicates == {"train": 0}


@pytest.mark.parametrize(
    ("members", "kind", "said"),
    [
        ([("0.png", b"x"), ("0.cls", b"cat")], LabelError, "whole numbers"),
        ([("0.png", b"x"), ("0.cls", b"9" * 30)], LabelError, "whole numbers of 64 bits"),
        ([("0.txt", b"x"), ("0.cls", b"1")], SourceError, "an image"),
        ([("0.png", b"x"), ("0.png", b"y"), ("0.cls", b"1")], SourceError, "once"),
    ],
)
def test_samples_that_are_none_are_named(
    load: Load, tmp_path: Path, members: list[tuple[str, bytes]], kind: type[SourceError], said: str
) -> None:
    write_tar(tmp_path / "pictures" / "train.tar", members)
    with pytest.raises(kind, match=said) as caught:
        load("{kind: folder, path: pictures}")
    assert "train.tar" in str(caught.value)


def test_files_tell_their_split_by_a_word_of_their_names(tmp_path: Path) -> None:
    tar = bytes(1024)
    for name in ("imagenet-train-000.tar", "imagenet-val-000.tar", "more/testing/000.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(tar)
    found = survey(tmp_path)
    assert {name: [file.path for file in split.files] for name, split in found.splits.items()} == {
        "train": ["imagenet-train-000.tar"],
        "validation": ["imagenet-val-000.tar"],
        "test": ["more/testing/000.tar"],
    }
    (tmp_path / "extra.tar").write_bytes(tar)
    with pytest.raises(SourceError, match=r"tell no split.*extra\.tar"):
        survey(tmp_path)
    (tmp_path / "train-test.tar").write_bytes(tar)
    with pytest.raises(SourceError, match=r"train-test\.tar tells test and train"):
        survey(tmp_path)


# Parquet that nobody marked


@pytest.mark.parametrize("form", ["struct", "binary", "bytes alone"])
def test_plain_parquet_is_read_where_its_columns_are_named(load: Load, tmp_path: Path, form: str) -> None:
    rows = some_rows()
    encoded = [each for each, _ in rows]
    images = {
        "struct": [{"bytes": each, "path": "x.png"} for each in encoded],
        "binary": encoded,
        "bytes alone": [{"bytes": each} for each in encoded],
    }[form]
    (tmp_path / "pictures").mkdir()
    table = pa.table({"photo": images, "kind": [label + 5 for _, label in rows], "score": [0.5] * len(rows)})
    pq.write_table(table, tmp_path / "pictures" / "train.parquet")
    with pytest.raises(SourceError, match=r"source\.image_column: photo"):
        load("{kind: folder, path: pictures}")
    with pytest.raises(LabelError, match=r"source\.label_column: kind"):
        load("{kind: folder, path: pictures, image_column: photo}")
    source = load("{kind: folder, path: pictures, image_column: photo, label_column: kind}")
    assert source.label_names == ("5", "6", "7", "8")
    assert set(every(source, "ids")) == {test_source.content_id(picture(n), str(n % 4 + 5)) for n in range(40)}


# Images


def png_of_16_bits(kind: int, *n_channels: int) -> bytes:
    return write_png(np.random.default_rng(1).integers(0, 2**16, (8, 8, *n_channels)), kind, 16)


def tiff_of_16_bits() -> bytes:
    return encode(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "TIFF")


WIDE = {
    "grey png": png_of_16_bits(GREY),
    "colour png": png_of_16_bits(COLOUR, 3),
    "grey png with alpha": png_of_16_bits(GREY_AND_ALPHA, 2),
    "colour png with alpha": png_of_16_bits(COLOUR_AND_ALPHA, 4),
    "grey jpeg 2000": encode(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "JPEG2000"),
    "grey tiff": tiff_of_16_bits(),
    "colour ppm": b"P6 8 8 65535\n" + bytes(range(192)) * 2,
    "colour ppm of 10 bits": b"P6 8 8 1023\n" + bytes(384),
    "grey ppm": b"P5 8 8 65535\n" + bytes(128),
    "fractions": encode(Image.new("F", (8, 8), 0.5), "TIFF"),
}


@pytest.mark.parametrize("encoded", WIDE.values(), ids=WIDE)
def test_more_than_8_bits_a_channel_are_refused_in_grey_and_in_colour(
    load: Load, tmp_path: Path, encoded: bytes
) -> None:
    rows = some_rows()
    rows[3] = (encoded, 3)
    write_parquet(tmp_path / "pictures", rows)
    with pytest.raises(BadImageError, match=r"train\[3\].*bits a channel"):
        load("{kind: folder, path: pictures}")
    assert load("{kind: folder, path: pictures, on_bad_image: skip}").facts.bad_images == ("train[3]",)


def exif_that_breaks() -> bytes:
    """EXIF that asks for a turn and has a negative resolution, which cannot be written again."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x011A, 10, 1, 38)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0) + struct.pack("<ii", -1, 1)


def test_a_jpeg_with_a_broken_exif_rational_is_a_damaged_image(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures")
    broken = encode(picture(3), "JPEG", exif=exif_that_breaks())
    (tmp_path / "pictures" / "cat" / "3.png").write_bytes(broken)
    with pytest.raises(BadImageError, match=r"train\[3\] \(cat/3\.png\)"):
        load("{kind: folder, path: pictures}")
    source = load("{kind: folder, path: pictures, on_bad_image: skip}")
    assert source.facts.bad_images == ("train[3] (cat/3.png)",)


@pytest.mark.parametrize(
    "error", [struct.error("x"), ZeroDivisionError(), KeyError("x"), AssertionError(), RecursionError()]
)
def test_whatever_a_decoder_raises_is_the_images_fault(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def stumble(image: Image.Image) -> None:
        raise error

    lay_classes(tmp_path / "pictures")
    monkeypatch.setattr("proxyds.data.decoding.ImageOps.exif_transpose", stumble)
    with pytest.raises(BadImageError, match=type(error).__name__):
        load("{kind: folder, path: pictures}")


def test_the_same_picture_under_two_labels_and_in_two_splits_is_counted(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures" / "train")
    lay_classes(tmp_path / "pictures" / "test", n=4, first=100)
    assert load("{kind: folder, path: pictures}").facts.n_conflicting == 0
    twice, shared = encode(picture(500)), encode(picture(600))
    again = encode(picture(500), "BMP")
    for path, held in {"train/cat/a": twice, "train/dog/b": again, "train/cat/c": shared, "test/cat/d": shared}.items():
        (tmp_path / "pictures" / f"{path}.png").write_bytes(held)
    (tmp_path / "pictures" / "test" / "dog" / "e.png").write_bytes(encode(picture(0)))  # a cat in training
    source = load("{kind: folder, path: pictures}")
    assert source.facts.n_conflicting == 4
    assert source.facts.n_shared == 1
    assert sum("under two labels or more: 4" in warning for warning in source.warnings) == 1
    assert sum("are measured: 1" in warning for warning in source.warnings) == 1


def test_images_that_are_enlarged_are_told(load: Load, tmp_path: Path) -> None:
    lay_classes(tmp_path / "pictures")
    (tmp_path / "pictures" / "cat" / "large.png").write_bytes(encode(picture(99, size=(40, 64))))
    (warning,) = load("{kind: folder, path: pictures, image_size: 32}").warnings
    assert "16 of 17 images" in warning
    assert "from 8" in warning
    assert load("{kind: folder, path: pictures, image_size: 8}").warnings == ()


def test_the_survey_is_recorded_without_local_paths(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_classes(tmp_path / "pictures" / "Train")
    lay(tmp_path / "pictures", ".DS_Store")
    monkeypatch.chdir(tmp_path)
    facts = load("{kind: folder, path: pictures}").facts
    assert "Train/" in facts.layout
    assert facts.left_out == {"hidden files, or those of systems": 1}
    assert str(tmp_path) not in repr(facts)
