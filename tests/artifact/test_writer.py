"""A proxy on disk: what docs/format.md says is what is there; damage and lies are found."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from proxyds.artifact.evidence_records import (
    ComparisonRecord,
    EstimateRecord,
    EvidenceRecord,
    MachineRecord,
    MethodRecord,
    RankedRecord,
    SearchRecord,
    SpendingRecord,
    Verdict,
)
from proxyds.artifact.manifest import (
    AgreementRecord,
    CountsRecord,
    DrawRecord,
    IndexedRecord,
    Manifest,
    MappingRecord,
    ParentRecord,
    ProbeRecord,
    SourceRecord,
    SpaceRecord,
    StageRecord,
    TrainingRecord,
)
from proxyds.artifact.ranking_table import COLUMNS, DATASETS, LATER_COLUMNS, STATISTICS
from proxyds.artifact.reader import read_manifest, verify_proxy
from proxyds.artifact.tables import read_proxy, read_tables
from proxyds.artifact.writer import rewrite_manifest, write_tars
from proxyds.errors import ArtifactError, VerificationError
from tests.artifact.hostile import make_former
from tests.conftest import read_tree

FORMAT = (Path(__file__).parent.parent.parent / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(tiny_proxy: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_proxy, tmp_path / "p")
    return tmp_path / "p"


@pytest.fixture
def checked(checked_proxy: Path, tmp_path: Path) -> Path:
    """A copy of a proxy whose ranking was checked."""
    shutil.copytree(checked_proxy, tmp_path / "checked")
    return tmp_path / "checked"


def described_columns(table: str) -> set[str]:
    """The columns that docs/format.md gives to one table."""
    text = FORMAT[FORMAT.index("## Tables") : FORMAT.index("## The table ranking")]
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    names: set[str] = set()
    for row in re.findall(r"^\|(.+)\|$", text, re.MULTILINE):
        cells = [cell.strip() for cell in row.split("|")]
        owners = set(re.findall(r"`(\w+)`", cells[0]))
        if owners <= {"data", "validation", "importance", "evaluation"} and len(cells) == 4:
            names |= set(re.findall(r"`(\w+)`", cells[1])) if table in owners else set()
        elif cells[0].startswith("`") and not (
            table == "evaluation" and ("probability" in cells[0] or cells[0] == "`weight`")
        ):
            names |= set(re.findall(r"`(\w+)`", cells[0]))
    assert rows
    return names


@pytest.mark.parametrize("table", ["data", "validation", "importance", "evaluation"])
def test_the_specification_names_every_column(table: str, tiny_proxy: Path) -> None:
    has_images = table in ("data", "validation")
    of_some = (
        {"source_label", "soft_label"} if has_images else set()
    )  # see selection/test_labels.py, pipeline/test_soft_labels.py
    assert set(getattr(read_tables(tiny_proxy), table).column_names) == described_columns(table) - of_some


def test_the_specification_names_every_column_of_a_run() -> None:
    text = FORMAT[FORMAT.index("## The table ranking") : FORMAT.index("## Tars")]
    named = [name for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert named == COLUMNS.names
    assert all(f"`{name}`" in text for name in DATASETS)


RECORDS = {
    "## manifest.json": Manifest,
    "### counts": CountsRecord,
    "### source": SourceRecord,
    "### space": SpaceRecord,
    "### training": TrainingRecord,
    "### probes": ProbeRecord,
    "### agreement": AgreementRecord,
    "### mapping": MappingRecord,
    "### draw": DrawRecord,
    "### stages": StageRecord,
    "### machine": MachineRecord,
    "### resampled_from": ParentRecord,
    "### index_of": IndexedRecord,
    "### evidence": EvidenceRecord,
}


@pytest.mark.parametrize("section", RECORDS)
def test_the_specification_says_of_every_key_whether_it_must_be_there(section: str) -> None:
    text = FORMAT[FORMAT.index(f"\n{section}\n") :].partition("\n\n### ")[0]
    said = {
        name: must == "MUST"
        for keys, must in re.findall(r"^\| (`.+?) \| .*? \| (MUST|MAY.*?) \|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", keys)
    }
    fields = RECORDS[section].model_fields
    written_always = {"format", "format_version", "files"}  # defaults are for making a manifest, not for reading one
    assert said == {name: field.is_required() or name in written_always for name, field in fields.items()}


def test_the_specification_names_every_key_of_the_evidence() -> None:
    text = FORMAT[FORMAT.index("### evidence") :]
    records = (
        EvidenceRecord,
        MethodRecord,
        ComparisonRecord,
        EstimateRecord,
        SpendingRecord,
        SearchRecord,
        RankedRecord,
    )
    for record in records:
        assert not [name for name in record.model_fields if f"`{name}`" not in text], record
    assert all(f"`{name}`" in text for name in STATISTICS)
    assert all(f"`{verdict}`" in text for verdict in get_args(Verdict))


def test_the_specification_names_every_key_of_the_manifest(tiny_proxy: Path) -> None:
    text = FORMAT[FORMAT.index("## manifest.json") :]
    manifest = json.loads((tiny_proxy / "manifest.json").read_text())
    assert set(manifest) == set(Manifest.model_fields)
    for key, value in manifest.items():
        assert f"`{key}`" in text, key
        inner = value if isinstance(value, dict) else value[0] if isinstance(value, list) and value else {}
        if isinstance(inner, dict) and key != "files":
            assert not [name for name in inner if f"`{name}`" not in text], key


def test_ids_can_be_computed_from_the_specification_alone(tiny_proxy: Path) -> None:
    import io

    from PIL import Image

    names = json.loads((tiny_proxy / "manifest.json").read_text())["label_names"]
    tables = read_tables(tiny_proxy)
    for row in (*tables.data.to_pylist(), *tables.validation.to_pylist()):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            header = f"{image.mode} {image.width}x{image.height} {names[row['label']]}\n".encode()
            assert row["sample_id"] == hashlib.sha256(header + np.asarray(image).tobytes()).hexdigest()
        assert row["encoded_sha256"] == hashlib.sha256(row["image"]["bytes"]).hexdigest()


def test_rows_stand_in_the_order_of_ids(tiny_proxy: Path) -> None:
    tables = read_tables(tiny_proxy)
    for table in (tables.data, tables.validation, tables.importance, tables.evaluation):
        ids = table["sample_id"].to_pylist()
        assert ids == sorted(ids)


def test_parquet_carries_the_features(tiny_proxy: Path) -> None:
    metadata = pq.read_schema(next((tiny_proxy / "data").iterdir())).metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["image"]["_type"] == "Image"
    assert features["label"]["names"] == [str(digit) for digit in range(10)]


def test_equal_samples_give_equal_tars_in_the_order_of_the_data(tiny_proxy: Path, tmp_path: Path) -> None:
    manifest = read_manifest(tiny_proxy)
    for split in ("train", "validation"):
        shards = sorted((tiny_proxy / "data").glob(f"{split}-*"))
        write_tars(tmp_path, shards, manifest.proxy_label_names, "png")
    assert read_tree(tmp_path / "webdataset") == read_tree(tiny_proxy / "webdataset")
    members: dict[str, list[tarfile.TarInfo]] = {"train": [], "validation": []}
    for path in sorted((tmp_path / "webdataset").iterdir()):
        with tarfile.open(path) as tar:
            members[path.name.partition("-")[0]] += list(tar)
    tables = read_tables(tiny_proxy)
    for split, table in (("train", tables.data), ("validation", tables.validation)):
        names = [f"{each}.{end}" for each in table["sample_id"].to_pylist() for end in ("cls", "json", "png")]
        assert [each.name for each in members[split]] == names
    metadata = {(each.mtime, each.mode, each.uname, each.gname) for split in members.values() for each in split}
    assert metadata == {(0, 0o444, "bigdata", "bigdata")}


def test_a_whole_proxy_verifies(tiny_proxy: Path) -> None:
    manifest = verify_proxy(tiny_proxy)
    assert manifest == read_manifest(tiny_proxy)
    for name, facts in manifest.files.items():
        content = (tiny_proxy / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (facts.bytes, facts.sha256)


def change_byte(copy: Path) -> None:
    path = copy / "data" / "train-00000-of-00004.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_file(copy: Path) -> None:
    (copy / "recipe.yaml").unlink()


def add_file(copy: Path) -> None:
    (copy / "data" / "extra.parquet").write_bytes(b"x")


def cut_file(copy: Path) -> None:
    (copy / "README.md").write_bytes(b"short")


def link_file(copy: Path) -> None:
    content = (copy / "README.md").read_bytes()
    (copy.parent / "outside").write_bytes(content)
    (copy / "README.md").unlink()
    (copy / "README.md").symlink_to(copy.parent / "outside")


def leave_the_folder(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy.parent / "outside").write_bytes(b"")
    manifest["files"]["../outside"] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change_byte, r"data/train-00000-of-00004\.parquet: its bytes have changed"),
        (lose_file, r"recipe\.yaml: missing"),
        (add_file, r"data/extra\.parquet: not in the manifest"),
        (cut_file, r"README\.md: must have [\d,]+ bytes, has 5"),
        (link_file, r"README\.md: must be a file inside the folder"),
    ],
)
def test_damage_is_found_and_named(damage, said: str, copy: Path) -> None:
    damage(copy)
    with pytest.raises(VerificationError, match=said):
        verify_proxy(copy)


def test_a_manifest_that_leaves_the_folder_is_refused(copy: Path) -> None:
    leave_the_folder(copy)
    with pytest.raises(ArtifactError, match=r"files: '\.\./outside' must be a path inside the folder"):
        verify_proxy(copy)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "must be JSON"),
        ("[]", "names no format"),
        ('{"format": "other", "format_version": "1.0"}', "names no format"),
        (
            '{"format": "proxyds", "format_version": "3.0"}',
            r"format_version must be 1\.x or 2\.x, got '3\.0'; use another version",
        ),
        ('{"format": "proxyds", "format_version": "1.0"}', "name: Field required"),
        ("\udcff", "UTF-8"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(text: str, said: str, copy: Path) -> None:
    (copy / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=said):
        read_manifest(copy)


@pytest.mark.parametrize("version", ["1.9", "2.9"])
def test_keys_of_a_later_minor_version_are_ignored(copy: Path, version: str) -> None:
    manifest = make_former(copy, "1.7") if version == "1.9" else json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format_version": version, "news": 1}))
    assert read_manifest(copy).format_version == version


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_names": ["one"]}, "its features must name the labels as manifest"),
        (
            {"counts": {"train": 100, "evaluation": 143, "validation": 143, "test": 3, "proxy": 10}},
            "rows, more than the 100 that manifest.json",
        ),
        (
            {"counts": {"train": 5000, "evaluation": 143, "validation": 143, "test": 3, "proxy": 500}},
            "the tables must be those that",
        ),
        (
            {"counts": {"train": 1295, "evaluation": 143, "validation": 143, "test": 3, "proxy": 4}},
            r"counts\.proxy must be draw\.ratio of counts\.train, 130",
        ),
    ],
)
def test_a_manifest_that_disagrees_with_the_tables_is_refused(change: dict[str, object], said: str, copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(ArtifactError, match=said):
        read_proxy(copy)


def test_tables_that_cannot_be_read_are_refused(copy: Path) -> None:
    next((copy / "evaluation").iterdir()).write_bytes(b"not parquet")
    with pytest.raises(ArtifactError, match=r"evaluation-00000-of-00001\.parquet: must be a parquet file as docs"):
        read_tables(copy)


# What a stranger may have changed: everything is refused, with the one error


NEEDED = [name for name in COLUMNS.names if name not in LATER_COLUMNS]


def rewrite_table(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Writes the tables of a folder again, changed."""
    for path in folder.glob("*.parquet"):
        pq.write_table(change(pq.read_table(path)), path)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def change_cell(name: str, value: Any, row: int = 0) -> Callable[[pa.Table], pa.Table]:
    """Replaces one cell of a table."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        return with_column(table, name, values)

    return change


def without(name: str, value: str) -> Callable[[pa.Table], pa.Table]:
    """Leaves out the rows with a value."""
    return lambda table: table.filter(pc.not_equal(table[name], value))


def test_a_checked_proxy_can_be_read_as_it_is(checked: Path) -> None:
    manifest, tables = read_proxy(checked)
    assert manifest == verify_proxy(checked)
    assert tables.ranking.num_rows == 8 * 2 * 5
    assert manifest.evidence.verdict == "preserves the ranking"
    rewrite_table(checked / "ranking", lambda table: table)
    assert read_proxy(checked)[1].ranking == tables.ranking  # it is not the writing that is refused below


@pytest.mark.parametrize("labels", [[0.5], ["a"], [None], [-1], [99]])
def test_labels_that_are_no_numbers_of_labels_are_refused(copy: Path, labels: list[Any]) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = pa.array(labels * table.num_rows)
        return table.set_column(table.schema.get_field_index("label"), "label", values)

    rewrite_table(copy / "data", change)
    with pytest.raises(
        ArtifactError, match=r"column (label of (data|validation) )?must (be as|hold|have)|column label must have"
    ):
        read_proxy(copy)


def test_an_importance_table_that_selects_other_samples_than_the_data_is_refused(copy: Path) -> None:
    rewrite_table(
        copy / "importance", lambda table: with_column(table, "selected", np.roll(table["selected"].to_numpy(), 1))
    )
    with pytest.raises(ArtifactError, match="the table importance must select the very samples of data"):
        read_proxy(copy)


WRONG_RANKINGS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no architecture": change_cell("architecture", None),
    "no accuracy": change_cell("accuracy", None),
    "no training seed": change_cell("training_seed", None),
    "no data set": change_cell("dataset", None),
    "no ratio": change_cell("ratio", None),
    "no cost": change_cell("training_flops", None),
    "no weights": change_cell("n_parameters", None),
    "no origin": change_cell("origin", None),
    "unknown data set": change_cell("dataset", "guessed"),
    "accuracy above 1": change_cell("accuracy", 1.5),
    "accuracy below 0": change_cell("accuracy", -0.1),
    "accuracy not a number": change_cell("accuracy", float("nan")),
    "accuracy without end": change_cell("accuracy", float("inf")),
    "ratio 0": change_cell("ratio", 0.0, row=20),
    "ratio 2": change_cell("ratio", 2.0, row=20),
    "ratio not a number": change_cell("ratio", float("nan"), row=20),
    "a row twice": lambda table: pa.concat_tables([table, table.slice(3, 1)]),
    "a row twice with another accuracy": lambda table: pa.concat_tables(
        [table, change_cell("accuracy", 0.25)(table.slice(3, 1))]
    ),
    "nothing on full data": without("dataset", "full"),
    "nothing on the proxy": without("dataset", "proxy"),
    "no rows": lambda table: table.slice(0, 0),
    "an architecture less": lambda table: without("architecture", table["architecture"][0].as_py())(table),
    "a row less": lambda table: table.slice(1),
    "another architecture": change_cell("architecture", "a net of nobody"),
}
"""Tables that cannot be the runs that the evidence speaks of."""


@pytest.mark.parametrize("change", WRONG_RANKINGS.values(), ids=WRONG_RANKINGS)
def test_runs_that_are_not_what_the_evidence_speaks_of_are_refused(
    change: Callable[[pa.Table], pa.Table], checked: Path
) -> None:
    rewrite_table(checked / "ranking", change)
    with pytest.raises(ArtifactError, match="ranking: must hold the runs that the evidence in manifest"):
        read_proxy(checked)
    assert read_proxy(checked, with_ranking=False)[1].ranking is None


@pytest.mark.parametrize(
    "change",
    [
        *(lambda table, name=name: table.drop_columns([name]) for name in NEEDED),
        lambda table: table.append_column("accuracy", table["accuracy"]),
        lambda table: table.set_column(
            table.schema.get_field_index("accuracy"), "accuracy", pa.array(["high"] * len(table))
        ),
    ],
    ids=[*(f"no {name}" for name in NEEDED), "accuracy twice", "accuracy in words"],
)
def test_runs_in_other_columns_are_refused(change: Callable[[pa.Table], pa.Table], checked: Path) -> None:
    rewrite_table(checked / "ranking", change)
    with pytest.raises(
        ArtifactError, match=r"ranking-00000-of-00001.parquet: must be a parquet file as docs/format.md has it"
    ):
        read_proxy(checked)


def test_evidence_without_its_runs_is_refused(checked: Path) -> None:
    shutil.rmtree(checked / "ranking")
    with pytest.raises(ArtifactError, match=r"ranking-00000-of-00001\.parquet: must be a parquet file as"):
        read_proxy(checked)


def unknown_method(evidence: dict[str, Any]) -> None:
    evidence["methods"][0]["method"] = "guessing"


def unknown_control(evidence: dict[str, Any]) -> None:
    evidence["comparisons"][0]["control"] = "guessing"


def unknown_outcome(evidence: dict[str, Any]) -> None:
    evidence["comparisons"][0]["outcome"] = "splendid"


def unknown_verdict(evidence: dict[str, Any]) -> None:
    evidence["verdict"] = "splendid"


def no_tau(evidence: dict[str, Any]) -> None:
    del evidence["methods"][0]["statistics"]["tau"]


def no_own_tau(evidence: dict[str, Any]) -> None:
    del evidence["own_tau"]


def other_ratio(evidence: dict[str, Any]) -> None:
    evidence["own_ratio"] = 0.3


def other_count(evidence: dict[str, Any]) -> None:
    evidence["n_architectures"] += 1


def no_proxy(evidence: dict[str, Any]) -> None:
    evidence["methods"] = [each for each in evidence["methods"] if each["method"] != "proxy"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unknown_method, r"manifest\.json: evidence\.methods\.0\.method: must be one of full, proxy"),
        (unknown_control, r"manifest\.json: evidence\.comparisons\.0\.control: must be one of full, proxy"),
        (unknown_outcome, r"manifest\.json: evidence\.comparisons\.0\.outcome: Input should be"),
        (unknown_verdict, r"manifest\.json: evidence\.verdict: Input should be"),
        (no_tau, r"manifest\.json: evidence\.methods\.0: .*statistics must hold tau"),
        (no_own_tau, r"manifest\.json: evidence\.own_tau: Field required"),
        (other_ratio, r"ranking: must hold the runs that the evidence"),
        (other_count, r"ranking: must hold the runs that the evidence"),
        (no_proxy, r"ranking: must hold the runs that the evidence"),
    ],
)
def test_evidence_that_cannot_be_is_refused(change: Callable[[dict[str, Any]], None], said: str, checked: Path) -> None:
    manifest = json.loads((checked / "manifest.json").read_text())
    change(manifest["evidence"])
    (checked / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=said):
        read_proxy(checked)


def test_a_manifest_written_again_keeps_the_facts_of_files_that_were_not_written(checked: Path) -> None:
    manifest = read_manifest(checked)
    change_byte(checked)
    (checked / "README.md").write_text("another card")
    (checked / "assets" / "orders.png").unlink()
    written = rewrite_manifest(checked, manifest, written=["README.md"], gone=["assets/orders.png"])
    assert written == read_manifest(checked)
    assert written.files["README.md"].bytes == len("another card")
    assert written.files["data/train-00000-of-00004.parquet"] == manifest.files["data/train-00000-of-00004.parquet"]
    assert set(manifest.files) - set(written.files) == {"assets/orders.png"}
    assert list(written.files) == sorted(written.files)
    with pytest.raises(VerificationError, match="its bytes have changed") as caught:
        verify_proxy(checked)
    assert "1 file differs" in str(caught.value)
