"""Whatever lies in tars and parquet files, every image is used with its own label, or somebody is told of it."""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyds.data.readers import RawSource, open_splits
from proxyds.data.survey.listing import READ_SUFFIXES, UNREAD_SUFFIXES
from proxyds.errors import SourceError
from proxyds.recipe.sections.source import FolderSource

MEMORY = 10**9


def open_folder(folder: Path, streamed: bool, **choices: Any) -> RawSource:
    return open_splits(FolderSource(kind="folder", path=str(folder), **choices), streamed, MEMORY)


def list_rows(raw: RawSource) -> dict[str, list[tuple[bytes, Any]]]:
    """By split, encoded images and labels in the order in which they are read."""
    return {
        split.name: [(encoded, label) for part in split.parts for encoded, label, _ in part.rows()]
        for split in raw.splits.values()
    }


# Tars

TARS = ("train-000.tar", "train-001.tar", "set-val-000.tar", "test/0.tar", "deep/er/training.tar")
FOLDERS = ("", "a/", "./", "A/", "b/c/", ".hidden/")
STEMS = ("0", "1", "2", "x y", "é")
ENDINGS = ("png", "PNG", "jpg", "webp", "avif", "tga", "cls", "CLS", "json", "txt", "png.txt")
ODD = ("._0.png", ".DS_Store", "README", "5", "LINK.png", "HARD.png", "sub/")
"""What is part of no sample: hidden members, names without a dot of a text and of an image, links, folders."""


@st.composite
def tidy_members(draw: st.DrawFn) -> list[str]:
    """Samples as they should be, and perhaps something beside."""
    folder, more = draw(st.sampled_from(FOLDERS)), draw(st.sampled_from(["json", "txt", "png.txt"]))
    images = draw(st.lists(st.sampled_from(["png", "PNG", "jpg", "webp"]), min_size=1, max_size=3))
    members = []
    for stem, image in zip(STEMS, images, strict=False):
        members += [f"{folder}{stem}.{ending}" for ending in draw(st.permutations([image, "cls", more]))]
    for each in draw(st.lists(st.sampled_from([*ODD, "9.avif", "9.png"]), max_size=1)):
        members.insert(draw(st.integers(0, len(members))), folder + each)
    return members


WILD_MEMBERS = st.lists(
    st.one_of(
        st.builds("{}{}.{}".format, st.sampled_from(FOLDERS), st.sampled_from(STEMS), st.sampled_from(ENDINGS)),
        st.builds("{}{}".format, st.sampled_from(FOLDERS), st.sampled_from(ODD)),
    ),
    max_size=8,
)


def write_tar(path: Path, members: list[str], number: int) -> None:
    """Writes members, each with a content of its own; whole numbers where labels are to be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for place, name in enumerate(members):
            member, held = tarfile.TarInfo(name), f"{path.name} {number} {place}".encode()
            ending = name.rpartition("/")[2].partition(".")[2].lower()
            if ending == "cls":
                held = b"%d" % (100 * number + place)
            elif name.rpartition("/")[2] == "5":
                held = b"\x89PNG\r\n" + held
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            elif "LINK" in name or "HARD" in name:
                member.type = tarfile.SYMTYPE if "LINK" in name else tarfile.LNKTYPE
                member.linkname = members[0]
            member.size = len(held) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(held))


def find_images(path: Path) -> tuple[dict[bytes, int | None], list[str]]:
    """By hand: the images of a tar, each with the label beside it; and the images that are hidden, or that nobody can read."""
    images: dict[bytes, tuple[str, int | None]] = {}
    labels: dict[str, int] = {}
    others = []
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            folder, _, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            if member.issym() or member.islnk() or name == "5" or not stem:
                others += [member.name] if not member.isdir() else []
                continue
            file = tar.extractfile(member)
            held = b"" if file is None else file.read()
            if ending.lower() == "cls":
                labels[f"{folder}/{stem}"] = int(held)
            elif Path(f"x.{ending}").suffix.lower() in READ_SUFFIXES | UNREAD_SUFFIXES:
                images[held] = f"{folder}/{stem}", None
    return {held: labels.get(key) for held, (key, _) in images.items()}, others


@given(
    tars=st.dictionaries(st.sampled_from(TARS), tidy_members() | tidy_members() | WILD_MEMBERS, min_size=1, max_size=3),
    streamed=st.booleans(),
)
@settings(max_examples=200)
def test_every_image_in_a_tar_is_used_with_its_label_or_told_of(tars: dict[str, list[str]], streamed: bool) -> None:
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held) / "pictures"
        for number, (name, members) in enumerate(tars.items()):
            write_tar(folder / name, members, number)
        try:
            raw = open_folder(folder, streamed)
            rows = list_rows(raw)
        except SourceError:
            return  # it says so
        assert raw.survey is not None
        used = [row for split in rows.values() for row in split]
        expected: list[tuple[bytes, int | None]] = []
        for name, split in raw.survey.splits.items():
            of_split = [find_images(folder / file.path) for file in split.files]
            passed_over = [each for _, others in of_split for each in others]
            assert all(each.rpartition("/")[2].startswith(".") for each in passed_over)
            assert len([note for note in raw.survey.warnings if f"tars of {name} " in note]) >= bool(passed_over)
            expected += [image for images, _ in of_split for image in images.items()]
        assert sorted(row for row in used if row[0]) == sorted(expected, key=lambda row: row[0])
        assert {file.path for split in raw.survey.splits.values() for file in split.files} == set(tars)


def test_a_link_in_a_tar_and_an_image_without_a_name_of_one_are_told_of(tmp_path: Path) -> None:
    for number, name in enumerate(("HARD.png", "LINK.png", "5")):
        write_tar(tmp_path / f"{number}" / "train.tar", ["0.png", "0.cls", name], 0)
        for streamed in (False, True):
            with pytest.raises(SourceError, match=re.escape(name)):
                list_rows(open_folder(tmp_path / f"{number}", streamed))


# Parquet

FILES = (
    *("train.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "data/test.parquet"),
    *("Val/x.parquet", "extra.parquet", "more/TRAIN.PARQUET"),
)
COLUMNS = st.fixed_dictionaries(
    {
        "image": st.sampled_from(["struct", "bytes"]),
        "label": st.sampled_from(["numbers", "texts", "none"]),
        "n": st.integers(0, 3),
        "n_null": st.integers(0, 1),
        "more": st.booleans(),
    }
)


def make_table(columns: dict[str, Any], name: str) -> pa.Table:
    encoded: list[bytes | None] = [f"{name} {number}".encode() for number in range(columns["n"])]
    encoded += [None] * columns["n_null"]
    images = pa.array(encoded, pa.binary())
    if columns["image"] == "struct":
        images = pa.StructArray.from_arrays([images], ["bytes"], mask=images.is_null())
    made = {"photo": images}
    if columns["label"] != "none":
        labels = list(range(len(encoded))) if columns["label"] == "numbers" else list("abcd"[: len(encoded)])
        made["kind"] = pa.array(labels, pa.int64() if columns["label"] == "numbers" else pa.string())
    if columns["more"]:
        made["more"] = pa.array(range(len(encoded)), pa.int64())
    return pa.table(made)


@st.composite
def folders_of_parquet(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Files of the same columns, but for one at most."""
    names = draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=3, unique=True))
    of_all = draw(COLUMNS)
    files = {name: {**of_all, "n": draw(st.integers(0, 3)), "n_null": draw(st.integers(0, 1))} for name in names}
    if draw(st.booleans()):
        files[draw(st.sampled_from(names))] = draw(COLUMNS)
    return files


@given(files=folders_of_parquet(), streamed=st.booleans())
@settings(max_examples=20)
def test_every_row_of_parquet_is_used_with_its_label_or_told_of(
    files: dict[str, dict[str, Any]], streamed: bool
) -> None:
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held) / "pictures"
        for name, columns in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(make_table(columns, name), folder / name)
        try:
            raw = open_folder(folder, streamed, image_column="photo", label_column="kind")
            rows = list_rows(raw)
        except SourceError:
            return  # it says so
        assert raw.survey is not None
        used = {file.path for split in raw.survey.splits.values() for file in split.files}
        assert used == set(files)
        for name, split in raw.survey.splits.items():
            expected = []
            for file in split.files:
                for row in make_table(files[file.path], file.path).to_pylist():
                    image = row["photo"]["bytes"] if isinstance(row["photo"], dict) else row["photo"]
                    expected.append((image or b"", str(row.get("kind"))))  # who has no label is told of later
            assert [(encoded, str(label)) for encoded, label in rows[name]] == expected
