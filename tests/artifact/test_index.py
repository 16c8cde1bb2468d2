"""The indexes of a proxy: plain tables that say what `data` and `validation` say, and one that a stranger sends is read cell by cell."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import proxyds
from proxyds.artifact.index import COLUMNS, HEADER, as_cell, format_rows, read_index
from proxyds.artifact.manifest import INDEX, INDEXES, Manifest
from proxyds.artifact.reader import read_manifest
from proxyds.errors import ArtifactError
from proxyds.pipeline.audit import audit_proxy
from tests.artifact.hostile import DATA, OLDER, Proxy


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    """The index of a small proxy of an earlier format, which its manifest does not list: what a cell says is all that is looked at."""
    return proxyds.index(OLDER, tmp_path / "taken").parent


def test_it_says_what_the_data_say(tiny_proxy: Path) -> None:
    import pandas as pd

    data, names = proxyds.read_tables(tiny_proxy).data, read_manifest(tiny_proxy).proxy_label_names
    listed = pd.read_csv(tiny_proxy / INDEX, dtype={"label": str})
    assert tuple(listed.columns) == COLUMNS
    assert listed["label"].tolist() == [names[label] for label in data["label"].to_pylist()]
    assert set(listed["split"]) == {"train"}
    assert not listed["inclusion_probability"].isna().any()
    for name in set(COLUMNS) - {"label", "split"}:
        own = data[name].to_pylist()
        assert listed[name].tolist() == (own if isinstance(own[0], str) else pytest.approx(own, rel=1e-12)), name
    with (tiny_proxy / INDEX).open(newline="") as stream:
        assert [row["sample_id"] for row in csv.DictReader(stream)] == data["sample_id"].to_pylist()


@pytest.mark.parametrize("table", INDEXES)
def test_it_reads_back_to_the_last_bit(table: str, tiny_proxy: Path) -> None:
    data = getattr(proxyds.read_tables(tiny_proxy), table)
    read = read_index(tiny_proxy, read_manifest(tiny_proxy), table)
    assert read.num_rows == data.num_rows
    assert set(data.column_names) - set(read.column_names) == {"image", "encoded_sha256"}
    for name in read.column_names:
        assert read[name].to_pylist() == data[name].to_pylist(), name


def list_samples(proxy: Proxy) -> str:
    """The index of a proxy, as a writer has it."""
    return HEADER + format_rows(proxy.table(DATA), proxy.manifest["label_names"], "train")


def test_a_proxy_of_an_earlier_format_may_have_one_or_lack_it(tmp_path: Path) -> None:
    proxy = Proxy(OLDER)
    audit_proxy(proxy.write(tmp_path / "without"))
    proxy.files[INDEX] = list_samples(proxy).encode()
    proxy.sign()
    audit_proxy(proxy.write(tmp_path / "with"))


def test_that_of_a_proxy_of_an_earlier_format_is_made_from_its_tables(taken: Path) -> None:
    assert (taken / INDEX).read_text(encoding="utf-8") == list_samples(Proxy(OLDER))
    assert sorted(path.name for path in taken.iterdir()) == [INDEX, "manifest.json", "recipe.yaml"]
    assert (taken / "manifest.json").read_bytes() == (OLDER / "manifest.json").read_bytes()


ODD_NAMES = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "'", "''=x", 'a "b", c', "two\nlines", "ö", ""]


def named(*names: str) -> Manifest:
    """The manifest of the small proxy with other names of labels."""
    manifest = read_manifest(OLDER)
    return manifest.model_copy(update={"label_names": (*names, *map(str, range(3 - len(names))))})


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_cell_is_a_formula_and_every_name_is_read_back(name: str, tmp_path: Path) -> None:
    manifest, data = named(name), pq.read_table(OLDER / DATA)
    text = HEADER + format_rows(data, manifest.label_names, "train")
    (tmp_path / INDEX).write_text(text, encoding="utf-8", newline="")
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert read_index(tmp_path, manifest)["label"].to_pylist() == data["label"].to_pylist()


def test_no_two_names_have_one_cell() -> None:
    assert len({as_cell(name) for name in ODD_NAMES}) == len(ODD_NAMES)


def in_cell(column: str, value: str, line: int = 2) -> Callable[[str], str]:
    """Gives another value in one line, from 1, the header being the first."""

    def change(text: str) -> str:
        lines = text.split("\n")
        cells = lines[line - 1].split(",")
        cells[COLUMNS.index(column)] = value
        lines[line - 1] = ",".join(cells)
        return "\n".join(lines)

    return change


def in_lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: "".join(change(text.splitlines(keepends=True)))


HOSTILE: dict[str, tuple[Callable[[str], str], str]] = {
    "nothing": (lambda text: "", "line 0: must name the columns"),
    "no header": (in_lines(lambda lines: lines[1:]), "line 1: must name the columns"),
    "a column more": (lambda text: text.replace("\n", ",x\n"), "line 1: must name the columns"),
    "a column less": (lambda text: re.sub(",[^,\n]*\n", "\n", text), "line 1: must name the columns"),
    "a cell more": (lambda text: text + "x", "must have 9 cells, it has 1"),
    "a sample less": (in_lines(lambda lines: lines[:-1]), "there must be 8 samples, there are 7"),
    "a sample more": (
        lambda text: f"{text}{'f' * 64},train,1,0,1,1.0,1.0,0.1,0.1\n",
        "line 10: there must be 8 samples",
    ),
    "a sample twice": (in_lines(lambda lines: [*lines[:2], *lines[1:-1]]), "line 3: .* it stands twice"),
    "no order": (in_lines(lambda lines: [lines[0], *lines[:0:-1]]), "line 3: .* must stand in the order of ids"),
    "an open quote": (lambda text: text.replace(",train,", ',"train,', 1), "must be CSV"),
    "a quote in a cell": (lambda text: text.replace(",train,", ',"tra"in,', 1), "must be CSV"),
    "a cell without end": (in_cell("label", "x" * 200_000), "must have .* bytes at most"),
    "an id that is none": (in_cell("sample_id", "../x"), "line 2: sample_id must be"),
    "an id in capitals": (in_cell("sample_id", "F" * 64), "line 2: sample_id must be"),
    "an index below 0": (in_cell("source_index", "-1"), "line 2: source_index must be"),
    "an index without end": (in_cell("source_index", "9" * 400), "line 2: source_index must be"),
    "a label that is none": (in_cell("label", "7"), "line 2: label must be one of the proxy's"),
    "a formula for a label": (in_cell("label", '=HYPERLINK("http://x")'), "line 2: label must be one of the proxy's"),
    "a case that is none": (in_cell("case", "5"), "line 2: case must be"),
    "not a number": (in_cell("importance", "nan"), "line 2: importance must be"),
    "infinity": (in_cell("importance", "1e999"), "line 2: importance must be from 0 to 1e\\+09"),
    "Python's own digits": (in_cell("importance", "1_0"), "line 2: importance must be"),
    "other digits": (in_cell("source_index", "\u0663"), "line 2: source_index must be"),
    "a weight of nothing": (in_cell("weight", "0.0"), "line 2: weight must be from"),
    "a weight that is not the importance": (in_cell("weight", "7.5"), "weight must be the importance"),
    "a chance above 1": (in_cell("keep_probability", "1.5"), "line 2: keep_probability must be from 0 to 1"),
    "chances of some": (in_cell("inclusion_probability", ""), "inclusion_probability must be there for all"),
    "a split that is none": (in_cell("split", "=1+1"), "line 2: split must be one of the source"),
    "two splits": (in_cell("split", "test", line=5), "line 5: split must be one of the source"),
}


@pytest.mark.parametrize(("change", "refused"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_index_is_refused_by_its_line(change: Callable[[str], str], refused: str, taken: Path) -> None:
    path, manifest = taken / INDEX, read_manifest(taken)
    assert read_index(taken, manifest).num_rows == 8
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8", newline="")
    with pytest.raises(ArtifactError, match=refused) as caught:
        read_index(taken, manifest)
    assert caught.value.place == path


def test_one_that_is_no_text_or_no_file_is_refused(taken: Path) -> None:
    path, manifest = taken / INDEX, read_manifest(taken)
    whole = path.read_bytes()

    def refuse(why: str) -> None:
        with pytest.raises(ArtifactError, match=why):
            read_index(taken, manifest)

    path.write_bytes(whole[:-30] + b"\xff" + whole[-29:])
    refuse("must be UTF-8")
    path.write_bytes(b"\xef\xbb\xbf" + whole)
    refuse("must name the columns")
    with path.open("wb") as stream:
        stream.truncate(10_000_000_000)  # a hole: it takes no space
    refuse("must have [0-9,]+ bytes at most")
    path.unlink()
    refuse("must be a file, there is none")
    os.mkfifo(path)
    refuse("must be a file, there is none")
    path.unlink()
    path.symlink_to(OLDER / "README.md")
    refuse("must be a file, there is none")


def test_the_index_of_a_damaged_proxy_is_not_taken(tiny_proxy: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_proxy, tmp_path / "copy"))
    (copy / INDEX).write_text(HEADER)
    with pytest.raises(ArtifactError, match=r"indices\.csv: must have"):
        proxyds.index(copy, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_a_table_without_a_weight_lists_the_importance(tmp_path: Path) -> None:
    data = pq.read_table(OLDER / DATA)
    assert "weight" not in data.column_names
    rows = list(csv.DictReader(io.StringIO(HEADER + format_rows(data, ("0", "1", "2"), "train"))))
    assert [float(row["weight"]) for row in rows] == data["importance"].to_pylist()
    nulls = data.set_column(
        data.schema.get_field_index("inclusion_probability"),
        "inclusion_probability",
        pa.nulls(data.num_rows, pa.float64()),
    )
    (tmp_path / INDEX).write_text(HEADER + format_rows(nulls, ("0", "1", "2"), "train"))
    assert read_index(tmp_path, read_manifest(OLDER))["inclusion_probability"].null_count == data.num_rows
