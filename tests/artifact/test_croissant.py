"""`croissant.json`: the reference validator takes it and loads every table by it; it follows from the manifest, or is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

import proxyds
from proxyds.artifact.card.croissant import check_croissant, render_croissant
from proxyds.artifact.card.render import render_card
from proxyds.artifact.manifest import CROISSANT, TABLES, ReductionRecord
from proxyds.artifact.reader import measure_file, read_manifest
from proxyds.artifact.summary import summarize_tables
from proxyds.artifact.tables import read_proxy, read_tables
from proxyds.errors import ArtifactError
from proxyds.pipeline.audit import audit_proxy
from tests.artifact.hostile import make_former

LOAD = """\
import json, sys, warnings
warnings.simplefilter("ignore")
import mlcroissant
dataset = mlcroissant.Dataset(sys.argv[1])
issues = dataset.metadata.ctx.issues
def show(value):
    if isinstance(value, bytes): return value.decode()
    if isinstance(value, list): return [show(each) for each in value]
    if hasattr(value, "tobytes") and hasattr(value, "mode"): return [value.mode, list(value.size), value.tobytes().hex()]
    return value.item() if hasattr(value, "item") else value
found = {"errors": sorted(issues.errors), "warnings": sorted(issues.warnings), "records": {}}
for record_set in dataset.metadata.record_sets:
    rows = dataset.records(record_set.id)
    found["records"][record_set.id] = [{name.partition("/")[2]: show(value) for name, value in row.items()} for row in rows]
print(json.dumps(found))
"""
"""Opens a Croissant file with the reference implementation, and prints what it says of it and all records, images as their pixels."""


def load(file: Path) -> dict[str, Any]:
    """Runs `LOAD` in a process of its own: what the reference implementation imports warns of itself."""
    done = subprocess.run([sys.executable, "-c", LOAD, str(file)], capture_output=True, text=True, timeout=300)
    if "No module named 'mlcroissant'" in done.stderr:
        pytest.skip("mlcroissant is not installed")
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / CROISSANT).read_text(encoding="utf-8"))
    return document


@pytest.fixture
def copy(tiny_proxy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_proxy, tmp_path / "copy"))


def test_the_reference_validator_takes_it_and_loads_every_table(checked_proxy: Path) -> None:
    loaded, (manifest, tables) = load(checked_proxy / CROISSANT), read_proxy(checked_proxy)
    assert (loaded["errors"], loaded["warnings"]) == ([], [])
    records = loaded["records"]
    assert set(records) == {"labels", "train", "validation", "importance", "evaluation", "ranking"}
    assert records["labels"] == [{"number": i, "name": name} for i, name in enumerate(manifest.label_names)]
    of_set = {
        "train": tables.data,
        "validation": tables.validation,
        "importance": tables.importance,
        "evaluation": tables.evaluation,
        "ranking": tables.ranking,
    }
    for name, table in of_set.items():
        rows = table.drop_columns(["image"]).to_pylist() if "image" in table.column_names else table.to_pylist()
        loaded_rows = [{key: value for key, value in row.items() if key != "image"} for row in records[name]]
        assert loaded_rows == rows, name
    for row, image in zip(records["train"], tables.data["image"].to_pylist(), strict=True):
        with Image.open(io.BytesIO(image["bytes"])) as picture:
            assert row["image"] == [picture.mode, list(picture.size), picture.tobytes().hex()]


def test_it_says_what_the_manifest_says_and_how_far_to_trust_it(tiny_proxy: Path, checked_proxy: Path) -> None:
    for folder in (tiny_proxy, checked_proxy):
        manifest, document = read_manifest(folder), read(folder)
        assert (document["name"], document["version"], document["license"]) == (
            manifest.name,
            manifest.version,
            manifest.licence,
        )
        facts = {each["contentUrl"]: each["sha256"] for each in document["distribution"] if "sha256" in each}
        assert facts == {name: each.sha256 for name, each in manifest.files.items() if name.endswith(".parquet")}
        said = {name.removeprefix("rai:"): value for name, value in document.items() if name.startswith("rai:")}
        assert {"dataCollection", "dataLimitations", "dataBiases", "dataUseCases", "dataPreprocessingProtocol"} <= set(
            said
        )
        assert manifest.source.name in said["dataCollection"]
        assert any(manifest.draw.method in each for each in said["dataPreprocessingProtocol"])
    assert "not checked" in " ".join(read(tiny_proxy)["rai:dataLimitations"])
    evidence = read_manifest(checked_proxy).evidence
    assert evidence is not None
    assert evidence.verdict in " ".join(read(checked_proxy)["rai:dataLimitations"])


def test_it_is_a_function_of_the_manifest(tiny_proxy: Path) -> None:
    manifest = read_manifest(tiny_proxy)
    assert render_croissant(manifest) == render_croissant(manifest) == (tiny_proxy / CROISSANT).read_bytes()


def test_evaluation_samples_with_images_and_labels_that_are_kept_have_sets_of_their_own(tiny_proxy: Path) -> None:
    manifest = read_manifest(tiny_proxy)
    kept = ReductionRecord(order="samples-first", choice="top", share=0.5)
    draw = manifest.draw.model_copy(update={"labels": kept})
    manifest = manifest.model_copy(update={"kept_labels": (2, 5), "draw": draw})
    document = json.loads(render_croissant(manifest))
    sets = {each["@id"]: each for each in document["recordSet"]}
    assert set(sets) == {"labels", "kept_labels", "train", "validation", "importance", "evaluation"}
    assert [row["kept_labels/name"] for row in sets["kept_labels"]["data"]] == [manifest.label_names[i] for i in (2, 5)]
    numbered = {
        name: next(field["description"] for field in sets[name]["field"] if field["@id"] == f"{name}/label")
        for name in ("train", "validation", "importance")
    }
    assert {name: text.split()[-1] for name, text in numbered.items()} == {
        "train": "kept_labels",
        "validation": "kept_labels",
        "importance": "labels",
    }
    assert any(each["@id"].startswith("data/validation-0") for each in document["distribution"])


def replace_in(folder: Path, old: str, new: str) -> None:
    """Changes a word of `croissant.json` and signs it."""
    text = (folder / CROISSANT).read_text(encoding="utf-8")
    assert old in text
    (folder / CROISSANT).write_text(text.replace(old, new, 1), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][CROISSANT] = measure_file(folder / CROISSANT).model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"contentUrl": "data/', '"contentUrl": "https://evil.example/data/', "must not name an address"),
        ('"contentUrl": "data/', '"contentUrl": "../data/', "contentUrl must be a file"),
        ('"contentUrl": "data/', '"sc:contentUrl": "/etc/', "contentUrl must be a file"),
        ('"contentUrl": "data/train', '"contentUrl": "README.md", "x": "data/train', "with its sha256"),
        ('"includes": "data/', '"includes": "../', "includes must be a pattern"),
        ('"includes": "data/', '"includes": "/data/', "includes must be a pattern"),
        ('"license": "', '"license": "free of ', "license must be 'unknown'"),
        ('"@vocab": "https://schema.org/"', '"@vocab": "https://evil.example/"', "must be an object with the @context"),
        ('"distribution": [', '"x": {"@context": {}},\n "distribution": [', "@context must not stand within"),
        ('"version": "', '"sameAs": "//evil.example/x",\n "version": "', "must not name an address"),
        ('"Images are not changed."', '"See https://evil.example."', "must not name an address"),
        ('"Images are not changed."', '"<script>x</script>"', "must be plain text"),
        ('"@type": "sc:Dataset"', '"@type": "sc:Dataset", "@type": "sc:Dataset"', "must be JSON: the key '@type'"),
    ],
)
def test_one_that_leads_elsewhere_or_gives_another_licence_is_refused(
    old: str, new: str, said: str, copy: Path
) -> None:
    replace_in(copy, old, new)
    with pytest.raises(ArtifactError, match=rf"croissant\.json: .*{said}"):
        audit_proxy(copy)


def test_one_with_the_words_and_columns_of_another_version_is_taken(copy: Path) -> None:
    replace_in(copy, '"rai:dataBiases": [', '"rai:news": {"a": [1, null]},\n "rai:dataBiases": [\n  "As of 2.1.",')
    replace_in(copy, '"field": [', '"field": [\n {"@type": "cr:Field", "@id": "labels/new", "dataType": "sc:Text"},')
    audit_proxy(copy)


def test_an_address_that_the_manifest_holds_may_stand_in_it(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["source"]["name"] = "https://example.org/pictures"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / CROISSANT).write_bytes(render_croissant(read_manifest(copy)))
    manifest["files"][CROISSANT] = measure_file(copy / CROISSANT).model_dump()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    check_croissant(copy, read_manifest(copy))


@pytest.mark.parametrize("protocol", ["validation", "paper"])
@pytest.mark.parametrize("method", ["cases", "easier", "of-a-later-version"])
def test_it_tells_of_independence_as_the_card_does(tiny_proxy: Path, method: str, protocol: str) -> None:
    manifest = read_manifest(tiny_proxy)
    draw = manifest.draw.model_copy(update={"method": method})
    manifest = manifest.model_copy(update={"draw": draw, "protocol": protocol})
    card = render_card(manifest, summarize_tables(read_tables(tiny_proxy)))["README.md"].decode()
    said = " ".join(json.loads(render_croissant(manifest))["rai:dataLimitations"])
    words = {"validation": ("not independent", "**not independent**"), "paper": ("circular", "test set is circular")}
    for text, word in zip((said, card), words[protocol], strict=True):
        assert (word in text) == (method != "easier"), word
    assert ("did not choose" in said) == ("did not choose by" in card) == (method == "easier")


def test_it_cites_the_paper_and_who_proposed_the_method(tiny_proxy: Path) -> None:
    manifest = read_manifest(tiny_proxy)
    for method, source in (("easier", "Shleifer"), ("cases", "")):
        draw = manifest.draw.model_copy(update={"method": method})
        cited = json.loads(render_croissant(manifest.model_copy(update={"draw": draw})))["citeAs"]
        assert "1911.09322" in cited
        assert (source in cited, "selection method" in cited) == (True, bool(source))


def test_a_changed_one_is_rendered_again_with_the_card(copy: Path) -> None:
    (copy / CROISSANT).write_text("{}")
    assert proxyds.render(copy) == [CROISSANT]
    audit_proxy(copy)


@pytest.mark.parametrize("version", ["1.6", "2.0"])
def test_a_proxy_that_has_none_gets_none_and_its_card_names_none(copy: Path, version: str) -> None:
    if version == "1.6":
        make_former(copy, version)
    else:
        (copy / CROISSANT).unlink()
        manifest = json.loads((copy / "manifest.json").read_text())
        del manifest["files"][CROISSANT]
        (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "README.md").write_text("something else")
    proxyds.render(copy)
    assert not (copy / CROISSANT).exists()
    card = (copy / "README.md").read_text(encoding="utf-8")
    assert [name in card for name in (CROISSANT, "indices.csv", "`validation.csv`")] == [False, True, version == "2.0"]
    audit_proxy(copy)


def test_a_proxy_before_2_0_may_hold_none(copy: Path) -> None:
    manifest = make_former(copy, "1.7")
    (copy / CROISSANT).write_text("{}")
    manifest["files"][CROISSANT] = measure_file(copy / CROISSANT).model_dump()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"must not be among them before format 2\.0"):
        read_manifest(copy)


# What the Hub makes of the proxy's parquet files

VALUES = {
    "bool": "sc:Boolean",
    "string": "sc:Text",
    **{name: f"cr:{name.title()}" for name in ("int8", "int64", "float64")},
}


def describe_as_the_hub(config: str, name: str, feature: Any) -> dict[str, Any]:
    """A field as the Hub's dataset viewer describes a feature, of the kinds that it knows."""
    if isinstance(feature, datasets.List):
        return {**describe_as_the_hub(config, name, feature.feature), "isArray": True, "arrayShape": "-1"}
    kinds = {datasets.Image: "sc:ImageObject", datasets.ClassLabel: "sc:Integer"}
    kind = VALUES[feature.dtype] if isinstance(feature, datasets.Value) else kinds[type(feature)]
    transform = {"transform": {"jsonPath": "bytes"}} if isinstance(feature, datasets.Image) else {}
    source = {"fileSet": {"@id": f"parquet-files-for-config-{config}"}, "extract": {"column": name}, **transform}
    return {"@type": "cr:Field", "@id": f"{config}/{name}", "dataType": kind, "source": source}


def test_what_the_hub_generates_is_valid_and_loads(checked_proxy: Path, tmp_path: Path) -> None:
    document, tables = read(checked_proxy), read_proxy(checked_proxy)[1]
    file_sets, record_sets = [], []
    for config, split, folder in TABLES.values():
        loaded = datasets.load_dataset(str(checked_proxy), config, split=split, cache_dir=str(tmp_path / "hf"))
        for number, file in enumerate(sorted((checked_proxy / folder).glob(f"{split}-*.parquet"))):
            place = tmp_path / "converted" / config / split / f"{number:04d}.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        if config in [each["@id"] for each in record_sets]:
            continue  # the splits of a configuration are one set of records
        id_, includes = f"parquet-files-for-config-{config}", f"{config}/*/*.parquet"
        file_sets.append(
            {"@type": "cr:FileSet", "@id": id_, "encodingFormat": "application/x-parquet", "includes": includes}
        )
        fields = [describe_as_the_hub(config, name, feature) for name, feature in loaded.features.items()]
        record_sets.append({"@type": "cr:RecordSet", "@id": config, "field": fields})
    generated = {
        **{name: document[name] for name in ("@context", "@type", "name", "description", "license", "version")},
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "citeAs": "x",
        "datePublished": "2026-12-01",
        "distribution": file_sets,
        "recordSet": record_sets,
    }
    (tmp_path / "converted" / "croissant.json").write_text(json.dumps(generated))
    found = load(tmp_path / "converted" / "croissant.json")
    assert (found["errors"], found["warnings"]) == ([], [])
    both = [*tables.data["sample_id"].to_pylist(), *tables.validation["sample_id"].to_pylist()]
    assert [row["sample_id"] for row in found["records"]["default"]] == both
    assert found["records"]["evaluation"][0]["predicted"] == tables.evaluation["predicted"][0].as_py()
