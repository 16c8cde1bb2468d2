"""The card: real metadata, no gaps, nothing that a name from a stranger can break, the same from the same records."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.compute as pc
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

import proxyds
from proxyds.artifact.card import render as card
from proxyds.artifact.card.evidence_plots import list_evidence_pictures
from proxyds.artifact.card.render import escape_markdown
from proxyds.artifact.card.render import render_card as render_shown
from proxyds.artifact.evidence_records import EstimateRecord, OnEvaluationRecord
from proxyds.artifact.manifest import Manifest
from proxyds.artifact.reader import read_manifest, verify_proxy
from proxyds.artifact.summary import Tables, summarize_tables
from proxyds.artifact.tables import read_proxy, read_tables
from proxyds.artifact.writer import rewrite_manifest
from proxyds.errors import CardDriftError, VerificationError
from proxyds.recipe.methods import METHODS

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


def test_every_picture_is_named_by_the_card_and_every_named_picture_is_there(
    pictures: None, tiny_proxy: Path, tmp_path: Path
) -> None:
    tiny_proxy = shutil.copytree(tiny_proxy, tmp_path / "proxy")
    assert set(proxyds.render(tiny_proxy)) == {f"assets/{path.name}" for path in (tiny_proxy / "assets").iterdir()}
    proxyds.render(tiny_proxy, check_only=True)  # they have the same bytes every time
    named = set(re.findall(r"!\[[^]]*\]\((assets/[^)]+)\)", (tiny_proxy / "README.md").read_text()))
    assert named == {f"assets/{path.name}" for path in (tiny_proxy / "assets").iterdir()}
    assert len(named) == 4
    for name in named:
        with Image.open(tiny_proxy / name) as picture:
            assert picture.width > 600


def by_cases(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"draw": manifest.draw.model_copy(update={"method": "cases"})})


def test_the_counts_on_the_card_are_the_tables(records: tuple[Manifest, Tables]) -> None:
    manifest, tables = records
    files = render_card(by_cases(manifest), tables)
    assert {"assets/cases.png", "assets/importance.png"} <= set(files)
    text = files["README.md"].decode()
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


def test_what_another_method_chose_shows_its_weights_and_no_cases(records: tuple[Manifest, Tables]) -> None:
    manifest, tables = records
    assert manifest.draw.method != "cases"
    files = render_card(manifest, tables)
    text = files["README.md"].decode()
    assert not re.search(r"^\| \d: ", text, re.MULTILINE)
    assert "assets/weights.png" in files
    assert not {"assets/cases.png", "assets/importance.png"} & set(files)
    shown = re.findall(r"^\| ([\d.e-]+) to ([\d.e-]+) \| ([\d,]+) \(.*?\) \| ([\d,]+) \(", text, re.MULTILINE)
    assert shown
    for low, high, *printed in shown:
        for n, table in zip(printed, (tables.importance, tables.data), strict=True):
            weights = table["weight"].to_numpy()
            assert int(n.replace(",", "")) == ((weights > float(low)) & (weights <= float(high))).sum()
    (rest,) = re.findall(r"^\| up to ([\d.e-]+) \| ([\d,]+) ", text, re.MULTILINE)
    assert int(rest[1].replace(",", "")) == (tables.importance["weight"].to_numpy() <= float(rest[0])).sum()


HEADINGS = ["May I trust it?", "How do I load it?", "What do I rank on?", "What does it cost me?"]


def find_section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_card_answers_first_what_a_reader_asks_first(tiny_proxy: Path, checked_proxy: Path) -> None:
    for proxy in (tiny_proxy, checked_proxy):
        text = (proxy / "README.md").read_text()
        assert re.findall(r"^## (.*)$", text, re.MULTILINE)[:4] == HEADINGS
        assert text.index("A *data proxy*") < text.index("## May I trust it?")
        assert [len(re.findall(r"!\[", find_section(text, heading))) for heading in HEADINGS] == [
            proxy == checked_proxy,
            *[0] * 3,
        ]
    evidence = read_manifest(checked_proxy).evidence
    assert evidence is not None
    trust = find_section(text, HEADINGS[0])
    assert evidence.verdict in trust.lower()
    assert evidence.of("proxy", evidence.own_ratio).statistics["tau"].shown() in trust


def test_the_code_on_the_card_runs_in_the_proxys_folder(checked_proxy: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (checked_proxy / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 10
    own = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    code += 'print(train[0]["image"].size, len(importance["train"]), len(ranking["ranking"]))'
    done = subprocess.run([sys.executable, "-c", code], cwd=checked_proxy, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "(8, 8) 1295 80"


def test_the_card_says_what_to_rank_on_with_and_without_images_of_evaluation_samples(
    records: tuple[Manifest, Tables],
) -> None:
    manifest, tables = records
    counts = manifest.counts.model_copy(update={"validation": 0})
    bare = manifest.model_copy(update={"counts": counts})
    without = find_section(render_card(bare, tables)["README.md"].decode(), HEADINGS[2])
    text = render_card(manifest, tables)["README.md"].decode()
    assert "`validation`" in find_section(text, HEADINGS[2])
    assert 'split="validation"' in find_section(text, HEADINGS[1])
    assert "`validation`" not in without
    assert "torch_dataset" in without
    assert "not independent" not in text
    assert "did not choose by evaluation samples" in find_section(text, HEADINGS[2])
    by_case = render_card(by_cases(manifest), tables)["README.md"].decode()
    assert by_case.count("**not independent**") == 1
    caution = METHODS[manifest.draw.method].caution
    assert caution
    assert text.count(caution) == 1


def test_the_card_shows_how_far_a_ranking_on_evaluation_samples_agrees(
    checked_records: tuple[Manifest, Tables],
) -> None:
    manifest, tables = checked_records
    assert "was not measured" in find_section(render_card(manifest, tables)["README.md"].decode(), HEADINGS[2])
    measured = OnEvaluationRecord(
        full=EstimateRecord(value=0.81, low=0.5, high=0.92), proxy=EstimateRecord(value=0.73, low=None, high=None)
    )
    evidence = manifest.evidence.model_copy(update={"on_evaluation": measured})
    changed = manifest.model_copy(update={"evidence": evidence})
    shown = find_section(render_card(changed, tables)["README.md"].decode(), HEADINGS[2])
    assert "0.81 [0.50, 0.92]" in shown
    assert "0.73 [no interval]" in shown
    circular = find_section(
        render_card(changed.model_copy(update={"protocol": "paper"}), tables)["README.md"].decode(), HEADINGS[2]
    )
    assert "did not choose by them" in circular
    assert "0.81" not in circular


def test_it_says_that_nothing_has_been_checked(tiny_proxy: Path) -> None:
    assert "Nothing on this card shows\n> how well it ranks" in (tiny_proxy / "README.md").read_text()


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
    monkeypatch.setattr(card, "list_pictures", lambda *records: {})
    monkeypatch.setattr(card, "list_evidence_pictures", lambda *records: {})
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
    (folder / "assets" / "labels.png").unlink()
    with pytest.raises(CardDriftError, match=r"README\.md, assets/labels\.png must be what the records render to"):
        proxyds.render(folder, check_only=True)
    assert (folder / "README.md").read_text() == "something else"
    assert proxyds.render(folder) == ["README.md", "assets/labels.png"]
    assert verify_proxy(folder) == read_manifest(tiny_proxy)


def test_render_does_not_bless_a_damaged_proxy(tiny_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    shutil.copytree(tiny_proxy, folder)
    (folder / "README.md").write_text("something else")
    (folder / "recipe.yaml").write_text("name: other")
    with pytest.raises(VerificationError, match=r"recipe\.yaml"):
        proxyds.render(folder)


def test_render_removes_a_picture_that_the_card_has_no_more(tiny_proxy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    shutil.copytree(tiny_proxy, folder)
    shutil.copyfile(folder / "assets" / "labels.png", folder / "assets" / "cases.png")
    rewrite_manifest(folder, read_manifest(folder), written=["assets/cases.png"])
    assert proxyds.render(folder) == ["assets/cases.png"]
    assert verify_proxy(folder) == read_manifest(tiny_proxy)


def test_the_card_says_how_to_prepare_images_and_which_samples_are_the_test_samples(
    records: tuple[Manifest, Tables],
) -> None:
    manifest, tables = records
    said = find_section(render_card(manifest, tables)["README.md"].decode(), HEADINGS[2])
    assert "ImageOps.fit(image, (8, 8), Image.Resampling.BILINEAR)" in said
    assert "a window of 8x8 pixels at a random place of the picture in a black border of 1 pixel" in said
    assert "mirror" not in said  # the recipe flips nothing
    assert 'torch_dataset(place, "test")' in said  # digits need no folder
    assert "encoded_sha256" in said
    source = manifest.source.model_copy(update={"test_from": "the source's split `test`", "kind": "folder"})
    of_split = manifest.model_copy(update={"source": source})
    said = find_section(render_card(of_split, tables)["README.md"].decode(), HEADINGS[2])
    assert "encoded_sha256" not in said
    assert "source=FOLDER" in said


@pytest.mark.parametrize(
    ("verdict", "pays_after", "with_check", "keyword"),
    [
        ("no better than random", 2, 3, "random subset"),
        ("no better than counting FLOPs", 2, 3, "counting FLOPs"),
        ("not enough evidence", 10_000, 20_000, "does not pay for one search"),
        ("not enough evidence", 1, 20_000, "check does not pay"),
        ("preserves the ranking", 1, 2, ""),
    ],
)
def test_the_card_says_when_choosing_samples_does_not_pay(
    checked_records: tuple[Manifest, Tables], verdict: str, pays_after: int, with_check: int, keyword: str
) -> None:
    manifest, _ = checked_records
    evidence = manifest.evidence
    assert evidence is not None
    spending = evidence.spending.model_copy(update={"pays_after": pays_after, "pays_after_with_check": with_check})
    told = card.show_evidence(evidence.model_copy(update={"verdict": verdict, "spending": spending}), 8)["worth"]
    assert keyword in told
    assert bool(told) == bool(keyword)


@pytest.mark.parametrize("ranked_by", ["accuracy", "loss"])
def test_the_picture_of_accuracies_shows_on_the_subset_what_ranks(
    checked_records: tuple[Manifest, Tables], ranked_by: str
) -> None:
    manifest, tables = checked_records
    evidence = manifest.evidence
    assert evidence is not None
    runs = tables.ranking
    assert runs is not None
    runs = runs.set_column(runs.schema.get_field_index("loss"), "loss", pc.subtract(9.0, runs["accuracy"]))
    pictures = list_evidence_pictures(evidence.model_copy(update={"ranked_by": ranked_by}), runs)
    axes = pictures["accuracy.png"]().axes[0]
    by_loss = ranked_by == "loss"
    assert (min(axes.get_ylim()) > 1) == by_loss
    assert axes.yaxis_inverted() == by_loss  # the better is higher
    assert axes.get_ylabel().startswith(ranked_by)
