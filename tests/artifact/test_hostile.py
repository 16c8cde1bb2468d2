"""A stranger's proxy: each hostile file is refused with a message that names it; `hostile.py` makes them in memory."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import proxyds
from proxyds.artifact.card.render import render_card
from proxyds.artifact.manifest import FORMAT_VERSION
from proxyds.artifact.reader import parse_json, verify_proxy
from proxyds.artifact.summary import summarize_tables
from proxyds.errors import ArtifactError, ProxydsError, VerificationError
from proxyds.pipeline.audit import audit_proxy, audit_tables
from proxyds.selection.records import PAIRS
from tests.artifact.hostile import CASES, EVALUATION, MANIFEST, RANKING, RECIPE, Case, Proxy, column, make_former


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    return Proxy().write(tmp_path / "proxy")


def change_manifest(proxy: Path, place: tuple[str | int, ...], value: object) -> None:
    path = proxy / MANIFEST
    manifest = inner = json.loads(path.read_text(encoding="utf-8"))
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(manifest), encoding="utf-8")


def refuse(proxy: Path, refused: str, error: type[ProxydsError] = ArtifactError) -> None:
    before = sorted(proxy.parent.rglob("*"))
    with pytest.raises(error, match=refused) as caught:
        audit_proxy(proxy)
    assert type(caught.value) is error
    assert sorted(proxy.parent.rglob("*")) == before


def test_the_proxy_that_is_changed_is_whole(proxy: Path) -> None:
    manifest, tables = audit_proxy(proxy)
    assert tables.data.num_rows == manifest.counts.proxy == len(proxyds.torch_dataset(proxy))
    again = Proxy()
    again.set_table(EVALUATION, again.table(EVALUATION))
    again.sign()
    audit_proxy(again.write(proxy.parent / "again"))  # it is not the writing that is refused


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_hostile_file_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    changed = Proxy()
    case.change(changed)
    if case.is_signed:
        changed.sign()
    refuse(changed.write(tmp_path / "proxy"), case.refused, case.error)


HUGE = 10**400
"""More than any float, though JSON and whole numbers allow it."""
ODD = {
    "FLOPs of a probe": (("probes", 0, "training_flops"), HUGE),
    "FLOPs of the space": (("space", "lightest_training_flops"), HUGE),
    "FLOPs of a stage": (("stages", 0, "flops"), HUGE),
    "no losses": (("probes", 0, "losses"), []),
    "a trainer that trained what is known": (("training",), {"trainer": {"name": "a|b `c`", "sha256": "0" * 64}}),
    "a trainer with a name to run": (("training",), {"trainer": {"name": "<script>", "sha256": "0" * 64}}),
    "a trainer beside settings": (("training", "trainer"), {"name": "train", "sha256": "0" * 64}),
    "losses near the largest float": (("probes", 0, "losses"), [1e308] * 3),
    "a huge seed": (("seed",), HUGE),
    "huge seconds": (("probes", 0, "training_seconds"), 1e308),
    "a ratio below nothing": (("draw", "ratio"), -1e308),
}


@pytest.mark.parametrize(("place", "value"), ODD.values(), ids=ODD)
def test_odd_numbers_are_shown_on_a_card_or_refused(place: tuple[str | int, ...], value: object, proxy: Path) -> None:
    change_manifest(proxy, place, value)
    try:
        manifest, tables = audit_proxy(proxy)
        render_card(manifest, summarize_tables(tables))
    except ProxydsError as error:
        assert "manifest.json" in str(error)  # noqa: PT017 - either will do


# What would be large, or is no file


def test_a_shape_that_unfolds_in_memory_is_refused(proxy: Path) -> None:
    path = proxy / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_shape": [1, 4096, 4096]}))
    with pytest.raises(ProxydsError, match="image_shape must be one that its images can have"):
        proxyds.torch_dataset(proxy)


def test_one_key_many_times_is_found_at_once() -> None:
    with pytest.raises(ValueError, match="stands twice"):
        parse_json("{" + ", ".join(f'"{i}": 0' for i in range(200_000)) + ', "7": 1}')


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [" + "1," * 80_000 + "]\n", "recipe.yaml:1:.*must hold 70,000 keys and values at most"),
        ("a: 1\n" + "#\n" * 80_000, "recipe.yaml: must have 70,000 lines at most"),
    ],
    ids=["values", "lines"],
)
def test_a_recipe_that_would_take_long_to_parse_is_refused_at_once(text: str, said: str, tmp_path: Path) -> None:
    changed = Proxy()
    changed.files[RECIPE] = text.encode()
    changed.sign()
    proxy = changed.write(tmp_path / "proxy")
    started = time.perf_counter()
    refuse(proxy, said)
    assert time.perf_counter() - started < 15  # a slow machine takes 6


def test_an_agreement_of_repeats_that_the_answers_do_not_give_is_refused(tmp_path: Path) -> None:
    changed = Proxy()
    table = changed.table(EVALUATION)
    for name in ("predicted", "correct", *PAIRS):  # every probe twice, with the same answers
        table = column(name, lambda values: [2 * each for each in values])(table)
    changed.set_table(EVALUATION, table)
    cases = table["case"].to_pylist()
    agreement = {
        "share": 1.0,
        "by_chance": sum((cases.count(case) / len(cases)) ** 2 for case in (1, 2, 3, 4)),
        "of_cases": [1.0 if case in cases else None for case in (1, 2, 3, 4)],
    }
    probes = changed.manifest["probes"]
    changed.set("probes", value=[{**each, "repeat": repeat} for repeat in (0, 1) for each in probes])
    changed.set("agreement", value=agreement)
    changed.sign()
    proxy = changed.write(tmp_path / "proxy")
    audit_tables(proxy)
    change_manifest(proxy, ("agreement", "share"), 0.5)
    with pytest.raises(ArtifactError, match="agreement must be what the answers in evaluation/ give"):
        audit_tables(proxy)


CLAIMS: dict[str, tuple[tuple[str | int, ...], object]] = {
    "a better tau": (("methods", 0, "statistics", "tau", "value"), 0.5),
    "another verdict": (("verdict",), "not enough evidence"),
    "a gate that was never passed": (("passed",), True),
    "more draws": (("n_draws",), 50),
    "a greater gain in speed": (("spending", "speed_up"), 1000.0),
    "that it pays at once": (("spending", "pays_after"), 1),
}


@pytest.mark.parametrize(("place", "value"), CLAIMS.values(), ids=CLAIMS)
def test_evidence_that_its_runs_do_not_give_is_refused(
    place: tuple[str | int, ...], value: object, checked_proxy: Path, tmp_path: Path
) -> None:
    proxy = Path(shutil.copytree(checked_proxy, tmp_path / "proxy"))
    change_manifest(proxy, ("evidence", *place), value)
    refuse(proxy, "manifest.json: evidence: .* must be what the runs in ranking/ give")


def fill(name: str, value: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {**row, name: value}


ODD_RUNS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no seconds": fill("training_seconds", None),
    "seconds that are no number": fill("test_seconds", float("nan")),
    "seconds without end": fill("training_seconds", float("inf")),
    "seconds below zero": fill("training_seconds", -1.0),
    "FLOPs below zero": fill("run_flops", -1),
    "no epochs": fill("n_epochs", None),
    "the same accuracies": fill("accuracy", 0.5),
}


@pytest.mark.parametrize("change", ODD_RUNS.values(), ids=ODD_RUNS)
def test_odd_runs_are_refused(
    change: Callable[[dict[str, Any]], dict[str, Any]], checked_proxy: Path, tmp_path: Path
) -> None:
    changed = Proxy(checked_proxy)
    runs = changed.table(RANKING)
    changed.set_table(RANKING, pa.Table.from_pylist([change(row) for row in runs.to_pylist()], runs.schema))
    changed.sign()
    refuse(changed.write(tmp_path / "proxy"), "ranking")


def test_a_verdict_is_explained_in_our_own_words(checked_proxy: Path, tmp_path: Path) -> None:
    proxy = Path(shutil.copytree(checked_proxy, tmp_path / "proxy"))
    change_manifest(proxy, ("evidence", "explanation"), "Trust it.")
    shown, own = (audit_tables(each)[0].evidence for each in (proxy, checked_proxy))
    assert shown is not None
    assert own is not None
    assert shown.explanation == own.explanation != "Trust it."


@pytest.fixture
def older(checked_proxy: Path, tmp_path: Path) -> Path:
    """A checked proxy as version 1.5 wrote it: without what 1.6 added, and with a verdict by other intervals."""
    proxy = Path(shutil.copytree(checked_proxy, tmp_path / "older"))
    manifest = json.loads((proxy / "manifest.json").read_text())
    evidence = manifest["evidence"]
    for name in ("below_ceiling", "caution", "architectures", "searches"):
        del evidence[name]
    evidence["check"].pop("parameter_weight", None)
    for kind in ("methods", "comparisons"):
        evidence[kind] = [each for each in evidence[kind] if each.pop("ranked_by") == "accuracy"]
    for method in evidence["methods"]:
        for name in ("regret_of_3", "regret_of_5"):
            method["statistics"].pop(name, None)
    evidence["verdict"] = "no better than random"
    (proxy / "manifest.json").write_text(json.dumps(manifest))
    make_former(proxy, "1.5")
    return proxy


def test_older_evidence_is_read_verified_and_audited_but_its_verdict_is_not_compared(older: Path) -> None:
    evidence = verify_proxy(older).evidence
    assert evidence is not None
    assert (evidence.verdict, evidence.below_ceiling, evidence.architectures) == ("no better than random", None, ())
    assert {each.ranked_by for each in (*evidence.methods, *evidence.comparisons)} == {"accuracy"}
    assert evidence.check.parameter_weight == 0.5
    audit_tables(older)


def test_values_of_older_evidence_are_compared(older: Path) -> None:
    change_manifest(older, ("evidence", "methods", 0, "statistics", "tau", "value"), 0.123)
    refuse(older, "manifest.json: evidence: tau of .* must be what the runs in ranking/ give")


def test_a_claim_about_evaluation_samples_must_follow_from_the_runs(checked_proxy: Path, tmp_path: Path) -> None:
    proxy = Path(shutil.copytree(checked_proxy, tmp_path / "p"))
    claim = {"full": {"value": 0.99, "low": None, "high": None}, "proxy": None}
    change_manifest(proxy, ("evidence", "on_evaluation"), claim)
    refuse(proxy, "manifest.json: evidence: tau on evaluation samples of full must be what the runs in ranking/ give")


def test_intervals_of_1_6_are_not_compared_and_its_values_are(checked_proxy: Path, tmp_path: Path) -> None:
    proxy = Path(shutil.copytree(checked_proxy, tmp_path / "1.6"))
    make_former(proxy, "1.6")
    change_manifest(proxy, ("evidence", "verdict"), "no better than random")
    change_manifest(proxy, ("evidence", "methods", 1, "statistics", "tau", "low"), -0.9)
    audit_tables(proxy)
    change_manifest(proxy, ("evidence", "methods", 1, "statistics", "tau", "value"), 0.123)
    refuse(proxy, "manifest.json: evidence: tau of .* must be what the runs in ranking/ give")


def test_what_1_5_wrote_is_refused_as_todays_where_runs_do_not_give_its_verdict(older: Path) -> None:
    change_manifest(older, ("format_version",), FORMAT_VERSION)
    refuse(older, "manifest.json: evidence: .* must be what the runs in ranking/ give")


def test_a_manifest_of_more_than_eight_megabytes_is_refused(proxy: Path) -> None:
    with (proxy / "manifest.json").open("a") as stream:
        stream.write(" " * 8_000_001)
    refuse(proxy, r"manifest\.json: must have 8,000,000 bytes at most")


@pytest.mark.parametrize(
    ("name", "error"), [(RECIPE, VerificationError), ("data", VerificationError), (MANIFEST, ArtifactError)]
)
def test_a_link_is_refused(name: str, error: type[ProxydsError], proxy: Path) -> None:
    shutil.move(proxy / name, proxy.parent / "outside")
    (proxy / name).symlink_to(proxy.parent / "outside")
    refuse(proxy, f"{name}.*: must be a file( inside the folder)?, found a link", error)


def test_an_additional_link_to_nowhere_is_refused(proxy: Path) -> None:
    (proxy / "x.png").symlink_to("nowhere")
    refuse(proxy, r"x\.png: not in the manifest", VerificationError)


@pytest.mark.timeout(30)
def test_a_folder_that_leads_into_itself_is_refused(proxy: Path) -> None:
    (proxy / "assets").symlink_to(proxy)
    refuse(proxy, "assets: not in the manifest", VerificationError)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("name", "said", "error"),
    [
        (MANIFEST, "manifest.json: must be a file, found a pipe", ArtifactError),
        ("README.md", r"README\.md: missing", VerificationError),
        ("assets.png", r"assets\.png: not in the manifest", VerificationError),
    ],
)
def test_a_pipe_is_refused_and_not_waited_for(name: str, said: str, error: type[ProxydsError], proxy: Path) -> None:
    (proxy / name).unlink(missing_ok=True)
    os.mkfifo(proxy / name)
    refuse(proxy, said, error)
