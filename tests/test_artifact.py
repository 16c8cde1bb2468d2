"""A proxy on disk: what FORMAT.md says is what is there; damage and lies are found."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from proxyds import runs
from proxyds.artifact import read_manifest, read_proxy, read_tables, verify_proxy
from proxyds.errors import EXIT_VERDICTS, ArtifactError, VerificationError
from proxyds.manifest import (
    ComparisonRecord,
    EstimateRecord,
    EvidenceRecord,
    Manifest,
    MethodRecord,
    SpendingRecord,
)
from proxyds.ranking import STATISTICS

FORMAT = (Path(__file__).parent.parent / "proxyds" / "FORMAT.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(tiny_proxy: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_proxy, tmp_path / "p")
    return tmp_path / "p"


def described_columns(table: str) -> set[str]:
    """The columns that FORMAT.md gives to one table."""
    text = FORMAT[FORMAT.index("## Tables") : FORMAT.index("## The table ranking")]
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    names: set[str] = set()
    for row in re.findall(r"^\|(.+)\|$", text, re.MULTILINE):
        cells = [cell.strip() for cell in row.split("|")]
        owner = cells[0].strip("`")
        if owner in ("data", "importance", "evaluation") and len(cells) == 4:
            names |= set(re.findall(r"`(\w+)`", cells[1])) if owner == table else set()
        elif cells[0].startswith("`") and not (table == "evaluation" and "probability" in cells[0]):
            names |= set(re.findall(r"`(\w+)`", cells[0]))
    assert rows
    return names


@pytest.mark.parametrize("table", ["data", "importance", "evaluation"])
def test_the_specification_names_every_column(table: str, tiny_proxy: Path) -> None:
    assert set(getattr(read_tables(tiny_proxy), table).column_names) == described_columns(table)


def test_the_specification_names_every_column_of_a_run() -> None:
    text = FORMAT[FORMAT.index("## The table ranking") : FORMAT.index("## Tars")]
    named = [name for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert named == runs.COLUMNS.names
    assert all(f"`{name}`" in text for name in runs.DATASETS)


def test_the_specification_names_every_key_of_the_evidence() -> None:
    text = FORMAT[FORMAT.index("### evidence") :]
    for record in (EvidenceRecord, MethodRecord, ComparisonRecord, EstimateRecord, SpendingRecord):
        assert not [name for name in record.model_fields if f"`{name}`" not in text], record
    assert all(f"`{name}`" in text for name in STATISTICS)
    assert all(f"`{verdict}`" in text for verdict in EXIT_VERDICTS)


def test_the_specification_names_every_key_of_the_manifest(tiny_proxy: Path) -> None:
    text = FORMAT[FORMAT.index("## manifest.json") :]
    held = json.loads((tiny_proxy / "manifest.json").read_text())
    assert set(held) == set(Manifest.model_fields)
    for key, value in held.items():
        assert f"`{key}`" in text, key
        inner = value if isinstance(value, dict) else value[0] if isinstance(value, list) and value else {}
        if isinstance(inner, dict) and key != "files":
            assert not [name for name in inner if f"`{name}`" not in text], key


def test_ids_can_be_computed_from_the_specification_alone(tiny_proxy: Path) -> None:
    import io

    from PIL import Image

    names = json.loads((tiny_proxy / "manifest.json").read_text())["label_names"]
    for row in read_tables(tiny_proxy).data.to_pylist():
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            header = f"{image.mode} {image.width}x{image.height} {names[row['label']]}\n".encode()
            assert row["sample_id"] == hashlib.sha256(header + np.asarray(image).tobytes()).hexdigest()
        assert row["encoded_sha256"] == hashlib.sha256(row["image"]["bytes"]).hexdigest()


def test_rows_stand_in_the_order_of_ids(tiny_proxy: Path) -> None:
    tables = read_tables(tiny_proxy)
    for table in (tables.data, tables.importance, tables.evaluation):
        ids = table["sample_id"].to_pylist()
        assert ids == sorted(ids)


def test_parquet_carries_the_features(tiny_proxy: Path) -> None:
    metadata = pq.read_schema(next((tiny_proxy / "data").iterdir())).metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["image"]["_type"] == "Image"
    assert features["label"]["names"] == [str(digit) for digit in range(10)]


def test_a_whole_proxy_verifies(tiny_proxy: Path) -> None:
    manifest = verify_proxy(tiny_proxy)
    assert manifest == read_manifest(tiny_proxy)
    for name, facts in manifest.files.items():
        held = (tiny_proxy / name).read_bytes()
        assert (len(held), hashlib.sha256(held).hexdigest()) == (facts.bytes, facts.sha256)


def change_byte(copy: Path) -> None:
    path = copy / "data" / "train-00000-of-00001.parquet"
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def lose_file(copy: Path) -> None:
    (copy / "recipe.yaml").unlink()


def add_file(copy: Path) -> None:
    (copy / "data" / "extra.parquet").write_bytes(b"x")


def cut_file(copy: Path) -> None:
    (copy / "README.md").write_bytes(b"short")


def link_file(copy: Path) -> None:
    held = (copy / "README.md").read_bytes()
    (copy.parent / "outside").write_bytes(held)
    (copy / "README.md").unlink()
    (copy / "README.md").symlink_to(copy.parent / "outside")


def leave_the_folder(copy: Path) -> None:
    held = json.loads((copy / "manifest.json").read_text())
    (copy.parent / "outside").write_bytes(b"")
    held["files"]["../outside"] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(held))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change_byte, r"data/train-00000-of-00001\.parquet: its bytes have changed"),
        (lose_file, r"recipe\.yaml: missing"),
        (add_file, r"data/extra\.parquet: not in the manifest"),
        (cut_file, r"README\.md: must have [\d,]+ bytes, has 5"),
        (link_file, r"README\.md: must be a file inside the folder"),
        (leave_the_folder, r"\.\./outside: must be a file inside the folder"),
    ],
)
def test_damage_is_found_and_named(damage, said: str, copy: Path) -> None:
    damage(copy)
    with pytest.raises(VerificationError, match=said):
        verify_proxy(copy)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "must be JSON"),
        ("[]", "names no format"),
        ('{"format": "other", "format_version": "1.0"}', "names no format"),
        (
            '{"format": "proxyds", "format_version": "2.0"}',
            r"format_version must be 1\.x, got 2\.0; use another version",
        ),
        ('{"format": "proxyds", "format_version": "1.0"}', "name: Field required"),
        ("\udcff", "UTF-8"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(text: str, said: str, copy: Path) -> None:
    (copy / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=said):
        read_manifest(copy)


def test_keys_of_a_later_minor_version_are_ignored(copy: Path) -> None:
    held = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**held, "format_version": "1.7", "news": 1}))
    assert read_manifest(copy).format_version == "1.7"


@pytest.mark.parametrize(
    "change", [{"label_names": ["one"]}, {"counts": {"train": 1, "evaluation": 2, "test": 3, "proxy": 4}}]
)
def test_a_manifest_that_disagrees_with_the_tables_is_refused(change: dict[str, object], copy: Path) -> None:
    held = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**held, **change}))
    with pytest.raises(ArtifactError, match="the tables must be those that"):
        read_proxy(copy)


def test_tables_that_cannot_be_read_are_refused(copy: Path) -> None:
    next((copy / "evaluation").iterdir()).write_bytes(b"not parquet")
    with pytest.raises(ArtifactError, match="evaluation: must hold parquet files that can be read"):
        read_tables(copy)
