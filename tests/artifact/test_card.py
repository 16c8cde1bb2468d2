"""The card: real metadata, no gaps, nothing that a name from a stranger can break, the same from the same records."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

import proxyds
from proxyds.artifact.card import render as card
from proxyds.artifact.card.render import escape_markdown
from proxyds.artifact.card.render import render_card as render_shown
from proxyds.artifact.manifest import Manifest
from proxyds.artifact.reader import read_manifest, verify_proxy
from proxyds.artifact.summary import Tables, summarize_tables
from proxyds.artifact.tables import read_proxy, read_tables
from proxyds.errors import CardDriftError, VerificationError

HOSTILE = "cat | <script>alert(1)</script> {{ m.name }} [x](javascript:1) $\\frac$ \n# heading `x`"


def render_card(manifest: Manifest, tables: Tables) -> dict[str, bytes]:
    return render_shown(manifest, summarize_tables(tables))


@pytest.fixture(scope="module")
def records(tiny_proxy: Path) -> tuple[Manifest, Tables]:
    return read_manifest(tiny_proxy), read_tables(tiny_proxy)


def test_the_metadata_is_what_the_hub_reads(tiny_proxy: Path) -> None:
    card = DatasetCard.load(tiny_proxy / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "unknown"
    assert data["task_categories"] == ["image-classification"]
    assert data["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in data["configs"]] == ["default", "importance", "evaluation"]
    assert data["configs"][0]["default"] is True
    for config in data["configs"]:
        assert list(tiny_proxy.glob(config["data_files"][0]["path"]))


def test_every_picture_is_named_by_the_card_and_every_named_picture_is_there(tiny_proxy: Path) -> None:
    named = set(re.findall(r"!\[[^]]*\]\((assets/[^)]+)\)", (tiny_proxy / "README.md").read_text()))
    assert named == {f"assets/{path.name}" for path in (tiny_proxy / "assets").iterdir()}
    assert len(named) == 5
    for name in named:
        with Image.open(tiny_proxy / name) as picture:
            assert picture.width > 600


def test_the_counts_on_the_card_are_the_tables(tiny_proxy: Path, records: tuple[Manifest, Tables]) -> None:
    text, (manifest, tables) = (tiny_proxy / "README.md").read_text(), records
    rows = re.findall(
        r"^\| (\d): [^|]+\| (\S+) \| ([\d,]+) \(.*?\) \| ([\d,]+) \(.*?\) \| ([\d,]+) \(", text, re.MULTILINE
    )
    assert [row[:2] for row in rows] == [("1", "2"), ("2", "1"), ("3", "6"), ("4", "1")]
    for case, row in enumerate(rows, start=1):
        for printed, table in zip(row[2:], (tables.evaluation, tables.importance, tables.data), strict=True):
            assert int(printed.replace(",", "")) == sum(value == case for value in table["case"].to_pylist())
    for probe in manifest.probes:
        assert f"{probe.n_parameters:,}" in text
        assert f"{probe.accuracy:.1%}" in text


def test_it_says_that_nothing_has_been_checked(tiny_proxy: Path) -> None:
    assert (
        "Nothing on this card shows that it\n> ranks better than a random subset"
        in (tiny_proxy / "README.md").read_text()
    )


def test_a_card_is_a_function_of_its_records(records: tuple[Manifest, Tables], tiny_proxy: Path) -> None:
    files = render_card(*records)
    assert files == render_card(*records)
    assert all((tiny_proxy / name).read_bytes() == content for name, content in files.items())


def test_a_missing_value_is_an_error_and_never_an_empty_place(records: tuple[Manifest, Tables]) -> None:
    manifest = records[0].model_copy(update={"mapping": None})
    with pytest.raises(jinja2.UndefinedError):
        render_card(manifest, records[1])


def test_names_from_a_stranger_show_as_they_are(records: tuple[Manifest, Tables]) -> None:
    manifest, tables = records
    names = (HOSTILE, *manifest.label_names[1:])
    source = manifest.source.model_copy(update={"name": HOSTILE, "bad_images": (HOSTILE,)})
    readme = render_card(manifest.model_copy(update={"label_names": names, "source": source}), tables)[
        "README.md"
    ].decode()
    assert "<script" not in readme
    assert "\n# heading" not in readme
    assert "](javascript" not in readme
    assert all(line.count("|") - line.count("\\|") == 4 for line in readme.splitlines() if line.startswith("| cat"))


@pytest.fixture(scope="module")
def checked_records(checked_proxy: Path) -> tuple[Manifest, Tables]:
    return read_proxy(checked_proxy)


EVIL = "<script>alert(1)</script>\n# heading\n![image](https://evil.example/x.png) | [x](javascript:1)\n- `item`"


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda evil: {"explanation": evil}, 1),
        (lambda evil: {"created": evil}, 1),
        (lambda evil: {"failures": (evil,)}, 1),
        (lambda evil: {"failures": tuple(f"{evil} {number}" for number in range(11))}, 10),
        (lambda evil: {"left_out": (evil, "net")}, 1),
        (lambda evil: {"runs": evil}, 1),
        (lambda evil: {"runs": "trained here", "reference": evil}, 1),
        (lambda evil: {"machine": {"libraries": {"torch": evil}}}, 1),
        (lambda evil: {"machine": {"device": evil}}, 1),
        (lambda evil: {"machine": {"processor": evil}}, 1),
    ],
    ids=[
        *("explanation", "created", "failure", "failures", "left out", "runs", "reference"),
        *("library", "device", "processor"),
    ],
)
@pytest.mark.parametrize("evil", [EVIL, "<b>x</b>", "\n# heading", "![i](x)", "| a | b"])
def test_evidence_from_a_stranger_shows_as_it_is(
    checked_records: tuple[Manifest, Tables],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str], dict[str, Any]],
    shown: int,
    evil: str,
) -> None:
    monkeypatch.setattr(card, "draw_pictures", lambda *records: {})
    monkeypatch.setattr(card, "draw_evidence", lambda *records: {})
    manifest, tables = checked_records
    evidence, changes = manifest.evidence, change(evil)
    if "machine" in changes:
        changes["machine"] = evidence.machine.model_copy(update=changes["machine"])
    readme = render_card(manifest.model_copy(update={"evidence": evidence.model_copy(update=changes)}), tables)[
        "README.md"
    ].decode()
    as_text = escape_markdown(evil[:10] if "created" in changes else evil)
    assert readme.count(as_text) >= shown
    # nothing of it but what is escaped: the rest is what an innocent card says
    innocent_changes = change("innocent")
    if "machine" in innocent_changes:
        innocent_changes["machine"] = evidence.machine.model_copy(update=innocent_changes["machine"])
    innocent = render_card(
        manifest.model_copy(update={"evidence": evidence.model_copy(update=innocent_changes)}), tables
    )["README.md"].decode()
    assert readme.replace(as_text, "") == innocent.replace("innocent", "")
    assert not re.search(r"<(script|b)\b", readme)
    assert not re.search(r"^\s*# heading", readme, re.MULTILINE)
    assert not re.search(r"!\[[^\]]*\]\((?!assets/)", readme)
    assert "](javascript" not in readme


def test_evidence_of_a_machine_without_torch_has_a_card(checked_records: tuple[Manifest, Tables]) -> None:
    manifest, tables = checked_records
    machine = manifest.evidence.machine.model_copy(update={"libraries": {}})
    evidence = manifest.evidence.model_copy(update={"machine": machine})
    assert b"torch unknown." in render_card(manifest.model_copy(update={"evidence": evidence}), tables)["README.md"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain name", "plain name"),
        ("a|b", "a\\|b"),
        ("<b>", "&lt;b&gt;"),
        ("a\n\nb", "a b"),
        ("x_1*", "x\\_1\\*"),
        (3, "3"),
    ],
)
def test_escaping_by_hand(text: object, expected: str) -> None:
    assert escape_markdown(text) == expected


def test_many_labels_long_names_and_many_importances_can_be_drawn(records: tuple[Manifest, Tables]) -> None:
    manifest, tables = records
    names = tuple(f"a rather long name of a label, number {i}" for i in range(40))
    for labels in (names, names[:15]):
        files = render_card(manifest.model_copy(update={"label_names": labels}), tables)
        with Image.open(io.BytesIO(files["assets/labels.png"])) as picture:
            picture.load()


def test_without_a_gallery_no_image_of_the_source_is_on_the_card(records: tuple[Manifest, Tables]) -> None:
    files = render_card(records[0].model_copy(update={"gallery": False}), records[1])
    assert "assets/gallery.png" not in files
    assert b"gallery" not in files["README.md"]


def test_render_mends_a_changed_card_and_check_only_tells(tiny_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    shutil.copytree(tiny_proxy, folder)
    assert proxyds.render(folder) == []
    (folder / "README.md").write_text("something else")
    (folder / "assets" / "cases.png").unlink()
    with pytest.raises(CardDriftError, match=r"README\.md, assets/cases\.png must be what the records render to"):
        proxyds.render(folder, check_only=True)
    assert (folder / "README.md").read_text() == "something else"
    assert proxyds.render(folder) == ["README.md", "assets/cases.png"]
    assert verify_proxy(folder) == read_manifest(tiny_proxy)


def test_render_does_not_bless_a_damaged_proxy(tiny_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    shutil.copytree(tiny_proxy, folder)
    (folder / "README.md").write_text("something else")
    (folder / "recipe.yaml").write_text("name: other")
    with pytest.raises(VerificationError, match=r"recipe\.yaml"):
        proxyds.render(folder)
