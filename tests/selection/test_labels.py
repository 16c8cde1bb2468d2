"""Which labels a proxy keeps (section 3.3), by hand and on digits, from recipe to card and check."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxyds.artifact.reader import read_manifest
from proxyds.artifact.tables import read_proxy
from proxyds.errors import ArtifactError, LabelError, ShortageError, StarvedLabelError
from proxyds.pipeline.build import build
from proxyds.recipe.sections.selection import LabelReduction, Selection
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.storage.store import Store
from proxyds.selection.draw import check_ratio, design_by, draw_again, draw_samples
from proxyds.selection.labels import count_kept, draw_random_labels, draw_reduced
from proxyds.selection.records import SampleScores
from tests.selection.ids import make_ids

Run = Callable[..., "subprocess.CompletedProcess[str]"]

RECIPE = """\
name: reduced
source: {kind: digits}
space:
  network: resnet
  choices: {depth: [8, 14], base_filters: [4, 8], multiplier: [1, 2]}
selection:
  ratio: 0.1
  labels: {keep: 4}
training: {epochs: 4, batch_size: 32, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
"""


def reduce(
    labels: np.ndarray, importance: np.ndarray, ratio: float, *, seed: int = 0, law: str = "systematic", **about: Any
):
    scores = SampleScores(make_ids(len(labels)), labels, importance)
    return draw_reduced(scores, importance, Selection(ratio=ratio, draw=law, labels=LabelReduction(**about)), seed)


# By hand: 20 samples, 4 labels of 5; a fifth of them is 4 samples, of 2 labels half of their 10 would be 5, of 0.4 x 10.
LABELS = np.tile(np.arange(4), 5)
COUNTS = np.bincount(LABELS)
#                      label: 0  1  2  3, importances of the first of each, then of the others
IMPORTANCE = np.concatenate([[1.0, 6.0, 1.0, 6.0], np.tile([1.0, 2.0, 1.0, 2.0], 4)])  # sums 5, 14, 5, 14


@pytest.mark.parametrize("order", ["labels-first", "samples-first"])
def test_the_counts_by_hand(order: str) -> None:
    drawn = reduce(LABELS, IMPORTANCE, 0.2, keep=2, order=order)
    assert drawn.selected.sum() == 4  # a fifth of 20, exactly
    assert drawn.kept_labels is not None
    assert len(drawn.kept_labels) == 2
    assert set(LABELS[drawn.selected]) <= set(drawn.kept_labels.tolist())
    if order == "labels-first":  # sums over all samples: 14 each for labels 1 and 3
        assert drawn.kept_labels.tolist() == [1, 3]


def test_labels_are_weighed_by_what_was_drawn_where_samples_come_first() -> None:
    # with importances of 0 and 1 alone the first draw is known: 8 of 20 samples, the very 8 that have one
    importance = np.zeros(20)
    importance[[0, 4, 8, 12]] = 1.0  # four of label 0
    importance[[1, 5]] = 1.0  # two of label 1
    importance[[2]] = 1.0  # one of label 2
    importance[[3]] = 1.0  # one of label 3
    drawn = reduce(LABELS, importance, 0.2, keep=2, order="samples-first")  # intermediate 0.2 * 4 / 2 = 0.4: 8 samples
    assert drawn.kept_labels is not None
    assert drawn.kept_labels.tolist() == [0, 1]
    assert drawn.selected.sum() == 4
    assert set(np.flatnonzero(drawn.selected)) <= {0, 4, 8, 12, 1, 5}


def test_equal_labels_are_kept_by_their_number() -> None:
    drawn = reduce(LABELS, np.ones(20), 0.2, keep=2, order="labels-first")
    assert drawn.kept_labels is not None
    assert drawn.kept_labels.tolist() == [0, 1]


@pytest.mark.parametrize("choice", ["top", "drawn"])
@pytest.mark.parametrize("order", ["labels-first", "samples-first"])
def test_cifar_100_at_ten_percent_has_20_labels_with_half_of_their_samples(order: str, choice: str) -> None:
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.repeat(np.arange(100), 450))
    of_label = rng.uniform(0.7, 1.5, 100)  # labels differ in how much their samples count
    importance = rng.choice([1.0, 2.0, 6.0], 45_000) * of_label[labels]
    drawn = reduce(labels, importance, 0.1, keep=20, order=order, choice=choice)
    assert drawn.kept_labels is not None
    assert len(drawn.kept_labels) == 20
    assert drawn.selected.sum() == 4_500  # half of 20 x 450
    assert set(labels[drawn.selected]) == set(drawn.kept_labels.tolist())
    of_kept = np.bincount(labels[drawn.selected], minlength=100)[drawn.kept_labels]
    assert of_kept.min() < 225 < of_kept.max()  # half in all, not of each
    if choice == "top" and order == "labels-first":
        sums = np.bincount(labels, weights=importance)
        assert sums[drawn.kept_labels].min() > np.delete(sums, drawn.kept_labels).max()


@given(
    counts=st.lists(st.integers(15, 30), min_size=3, max_size=8),
    keep=st.integers(2, 3),
    seed=st.integers(0, 2**40),
    order=st.sampled_from(["labels-first", "samples-first"]),
    choice=st.sampled_from(["top", "drawn"]),
    law=st.sampled_from(["systematic", "successive"]),
)
@example(
    counts=[15, 24, 18], keep=3, seed=0, order="samples-first", choice="drawn", law="systematic"
)  # of two labels first
def test_any_reduction_draws_exactly_n_of_the_kept_labels(
    counts: list[int], keep: int, seed: int, order: str, choice: str, law: str
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    importance = rng.choice([0.5, 1.0, 6.0], len(labels))
    drawn = reduce(labels, importance, 0.1, seed=seed, law=law, keep=keep, order=order, choice=choice)
    assert drawn.selected.sum() == round(0.1 * len(labels))
    assert drawn.kept_labels is not None
    assert len(drawn.kept_labels) == keep
    assert (np.diff(drawn.kept_labels) > 0).all()
    assert np.isin(labels[drawn.selected], drawn.kept_labels).all()


def test_drawn_labels_come_in_proportion_to_their_importance() -> None:
    importance = np.where(LABELS == 0, 6.0, 1.0)
    found = np.zeros(4)
    for seed in range(600):
        drawn = reduce(LABELS, importance, 0.1, seed=seed, keep=2, order="labels-first", choice="drawn")
        found[drawn.kept_labels] += 1
    # two of weights 6, 1, 1, 1, one after the other: label 0 is missed with chance 3/9 * 2/8
    assert found[0] / 600 == pytest.approx(1 - 3 / 9 * 2 / 8, abs=0.04)
    assert found[1:] / 600 == pytest.approx([(2 - 11 / 12) / 3] * 3, abs=0.07)


@pytest.mark.parametrize(
    ("keep", "samples_per_label", "expected"),
    [(3, 100, 3), (0.5, 100, 2), ("auto", 2, 2), ("auto", 1, 4)],
)
def test_how_many_labels_are_kept(keep: int | float | str, samples_per_label: int, expected: int) -> None:
    assert count_kept(LabelReduction(keep=keep, samples_per_label=samples_per_label), COUNTS, 0.2) == expected


def test_what_cannot_be_kept_is_refused_with_what_would_fit() -> None:
    names = ["a", "b", "c", "d"]
    with pytest.raises(LabelError, match="between 2 and the 4 labels that have training samples, got 5"):
        check_ratio(COUNTS, names, 0.2, reduction=LabelReduction(keep=5))
    with pytest.raises(
        LabelError, match=r"between 2 and the 4 labels that have training samples, got 0\.2, which is 1"
    ):
        check_ratio(COUNTS, names, 0.2, reduction=LabelReduction(keep=0.2))
    with pytest.raises(
        ShortageError,
        match=r"2 labels must hold the 12 samples .* they hold 10; keep at least 3 labels, or use a ratio of 0\.5 or less",
    ):
        check_ratio(COUNTS, names, 0.6, reduction=LabelReduction(keep=2))
    with pytest.raises(StarvedLabelError, match=r"a sample, 0\.1 of 20 is 2 for 3 labels"):
        check_ratio(COUNTS, names, 0.1, reduction=LabelReduction(keep=3))
    with pytest.raises(StarvedLabelError, match=r"0\.1 of 20 is 2 samples, and label 'a'"):  # all of them are kept
        check_ratio(COUNTS, names, 0.1, reduction=LabelReduction(keep=4))
    with pytest.raises(
        LabelError, match=r"must leave two labels, check\.ratios 0\.2 gives 4 samples, 50 each; ask for 2 or fewer"
    ):
        check_ratio(
            COUNTS, names, 0.2, reduction=LabelReduction(keep="auto", samples_per_label=50), field="check.ratios"
        )
    unlike = np.array([60, 30, 10])
    with pytest.raises(
        StarvedLabelError, match=r"use 0\.1 or more, or keep fewer labels: selection\.labels: \{keep: 2\}"
    ):
        check_ratio(unlike, names, 0.05)


@pytest.mark.parametrize("choice", ["top", "drawn"])
def test_a_choice_of_labels_with_too_few_samples_is_made_again(choice: str) -> None:
    labels = np.tile(np.arange(20), 50)
    for seed in range(40):  # of labels alike, every other first choice holds too few of the samples that were drawn
        drawn = reduce(labels, np.ones(1000), 0.1, seed=seed, keep=4, order="samples-first", choice=choice)
        assert drawn.selected.sum() == 100
        assert len(np.unique(labels[drawn.selected])) == 4
    rare = np.where(np.isin(labels, [0, 1, 2]), 1.0, 0.0)  # three labels alone can be drawn
    with pytest.raises(ShortageError, match=r"must hold the 200 samples .* they held fewer, last 1.* keep more labels"):
        reduce(labels, rare, 0.2, keep=4, order="samples-first", choice="top")


def test_a_reduction_that_keeps_all_labels_is_none() -> None:
    importance = np.ones(20)
    scores, rule = SampleScores(make_ids(20), LABELS, importance), design_by(importance)
    plain = draw_again(scores, rule, Selection(ratio=0.2), seed=3)
    for keep in (4, "auto"):
        reduction = LabelReduction(keep=keep, samples_per_label=1)
        drawn = draw_again(scores, rule, Selection(ratio=0.2, labels=reduction), seed=3)
        assert drawn.kept_labels is None
        assert (drawn.selected == plain.selected).all()


@pytest.mark.parametrize("order", ["labels-first", "samples-first"])
def test_labels_are_kept_by_importance_whatever_samples_are_drawn_by(order: str) -> None:
    labels = np.repeat(np.arange(4), 50)
    importance = np.array([1.0, 6.0, 2.0, 6.0])[labels]
    weights = np.tile(
        np.r_[np.full(25, 1.0), np.full(25, 1e-9)], 4
    )  # as those of `easier`: each label has the same sum
    kept = LabelReduction(keep=2, order=order, choice="top")
    scores = SampleScores(make_ids(200), labels, importance)
    drawn = draw_reduced(scores, weights, Selection(ratio=0.1, labels=kept), seed=0)
    assert drawn.kept_labels.tolist() == [1, 3]
    assert set(labels[drawn.selected]) == {1, 3}
    assert (weights[drawn.selected] == 1).all()


def test_inclusion_has_a_closed_form_only_for_the_top_labels_first() -> None:
    def draw(**about: Any):
        scores = SampleScores(make_ids(20), LABELS, IMPORTANCE)
        selection = Selection(ratio=0.2, labels=LabelReduction(keep=2, **about))
        return draw_samples(scores, np.ones(20, np.int64), list("abcd"), design_by(IMPORTANCE), selection, seed=0)

    known = draw(order="labels-first").inclusion_probability
    assert known is not None
    assert known.sum() == pytest.approx(4)
    assert (known[np.isin(LABELS, [0, 2])] == 0).all()
    assert known[1] == pytest.approx(4 * 6 / 28)
    assert draw(order="samples-first").inclusion_probability is None
    assert draw(order="labels-first", choice="drawn").inclusion_probability is None


def test_every_draw_chooses_its_own_labels() -> None:
    rng = np.random.default_rng(1)
    labels, importance = np.arange(400) % 10, rng.choice([1.0, 6.0], 400)
    scores, rule = SampleScores(make_ids(400), labels, importance), design_by(importance)
    selection = Selection(ratio=0.1, labels=LabelReduction(keep=4))
    kept, again = (
        [tuple(draw_again(scores, rule, selection, 3, number).kept_labels) for number in range(10)] for _ in range(2)
    )
    assert kept == again
    assert len(set(kept)) > 1


def test_random_labels_are_labels_at_random() -> None:
    ids = make_ids(200)
    alike = SampleScores(ids, np.arange(200) % 10)
    drawn = [draw_random_labels(alike, 20, 3, seed) for seed in range(300)]
    found = np.bincount(np.concatenate([each.kept_labels for each in drawn]), minlength=10) / 300
    assert found == pytest.approx([0.3] * 10, abs=0.1)
    assert all(each.selected.sum() == 20 and len(each.kept_labels) == 3 for each in drawn)
    unlike = SampleScores(ids, np.repeat(np.arange(4), [185, 5, 5, 5]))  # only choices with label 0 have 50 samples
    assert all(0 in draw_random_labels(unlike, 50, 2, seed).kept_labels for seed in range(20))


# On digits


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("reduced")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return build(read_recipe(folder / "recipe.yaml"), folder / "proxy", store=Store(session_store), device="cpu").folder


def test_the_proxys_labels_are_numbered_without_gaps_and_keep_their_names(reduced: Path) -> None:
    import datasets

    manifest, tables = read_proxy(reduced)
    assert manifest.kept_labels is not None
    assert len(manifest.kept_labels) == 4
    loaded = datasets.load_dataset(str(reduced), split="train", cache_dir=str(reduced.parent / "cache"))
    assert loaded.features["label"].names == [str(label) for label in manifest.kept_labels]
    assert loaded.features["source_label"].names == [str(digit) for digit in range(10)]
    assert set(loaded["label"]) == {0, 1, 2, 3}
    assert [manifest.kept_labels[label] for label in loaded["label"]] == list(loaded["source_label"])
    assert len(loaded) == manifest.counts.proxy == 130
    whole = tables.importance
    assert set(whole["label"].to_pylist()) == set(range(10))  # the audit table keeps the source's
    assert set(whole.filter(whole["selected"])["label"].to_pylist()) == set(manifest.kept_labels)
    members: dict[str, bytes] = {}
    for path in (reduced / "webdataset").iterdir():
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert len(members) == 3 * (manifest.counts.proxy + manifest.counts.validation)
    for name, held in members.items():
        if name.endswith(".json"):
            about, label = json.loads(held), int(members[name.replace(".json", ".cls")])
            assert manifest.kept_labels[label] == about["source_label"]
            assert about["label_name"] == str(about["source_label"])


def test_the_card_and_inspect_name_the_labels_that_were_kept(reduced: Path, run_proxyds: Run) -> None:
    card, manifest = (reduced / "README.md").read_text(), read_manifest(reduced)
    assert "The proxy keeps **4 of 10 labels**" in card
    assert card.count("| dropped |") == 6
    shown = run_proxyds("inspect", reduced).stdout
    assert "4 labels of 10" in shown
    assert shown.count("dropped") == 6
    assert manifest.draw.labels is not None
    assert manifest.draw.labels.share == pytest.approx(130 / 520, abs=0.05)


@pytest.mark.parametrize(
    "lie",
    [
        lambda about: about.update(kept_labels=[0, 1, 2, 12]),
        lambda about: about.update(kept_labels=[3, 2, 1, 0]),
        lambda about: about.update(kept_labels=[1, 1, 2, 3]),
        lambda about: about.update(kept_labels=None),
        lambda about: about.update(kept_labels=[label for label in range(10) if label not in about["kept_labels"]][:4]),
    ],
)
def test_a_manifest_that_lies_about_its_labels_is_refused(
    reduced: Path, tmp_path: Path, lie: Callable[[dict[str, Any]], None]
) -> None:
    import shutil

    proxy = Path(shutil.copytree(reduced, tmp_path / "proxy"))
    about = json.loads((proxy / "manifest.json").read_text())
    lie(about)
    (proxy / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ArtifactError):
        read_proxy(proxy)


@pytest.mark.e2e
def test_a_check_compares_with_random_labels_and_with_all(reduced: Path, tmp_path: Path, run_proxyds: Run) -> None:
    import shutil

    proxy = Path(shutil.copytree(reduced, tmp_path / "proxy"))
    settings = ["--set", "check.draws=1", "--set", "check.full_seeds=1", "--set", "check.architectures=5"]
    planned = json.loads(run_proxyds("check", proxy, "--dry-run", "--json", *settings).stdout)
    checked = run_proxyds("check", proxy, "-q", *settings)
    assert checked.returncode == 0, checked.stderr
    assert "dropping labels" in checked.stdout
    manifest, tables = read_proxy(proxy)
    assert tables.ranking is not None
    rows = tables.ranking.to_pylist()
    n_labels = {
        name: {row["n_labels"] for row in rows if row["dataset"] == name} for name in {r["dataset"] for r in rows}
    }
    assert n_labels == {
        "full": {10},
        "fewer-epochs": {10},
        "all-labels": {10},
        "proxy": {4},
        "random": {4},
        "stratified": {4},
        "random-labels": {4},
    }
    assert {row["dataset"]: row["n_runs"] for row in planned["runs"]} == {
        name: sum(row["dataset"] == name for row in rows) for name in n_labels
    }
    assert manifest.evidence is not None
    assert {c.control for c in manifest.evidence.comparisons} >= {"random-labels", "all-labels", "random"}
    card = (proxy / "README.md").read_text()
    assert "**Labels.** The proxy's Kendall tau less that of as many samples of all labels is" in card
    assert "| random labels |" in card
    assert run_proxyds("verify", proxy).returncode == 0
    assert run_proxyds("card", proxy, "--check").returncode == 0


@pytest.mark.parametrize(
    ("labels", "code", "said"),
    [
        (
            "{keep: 11}",
            20,
            "selection.labels.keep: must be between 2 and the 10 labels that have training samples, got 11",
        ),
        (
            "{keep: 1}",
            10,
            "selection.labels.keep: must be a number of labels from 2, a share of them in (0, 1), or `auto`, got 1",
        ),
        ("{keep: most}", 10, "selection.labels.keep"),
        ("{keep: 1.5}", 10, "a share of them in (0, 1)"),
        ("{}", 10, "selection.labels.keep: must be given, it is missing"),
        ("{keep: 4, order: both}", 10, 'selection.labels.order: must be a known name, got "both"'),
        ("{keep: 2, samples_per_label: 0}", 10, "selection.labels.samples_per_label"),
    ],
)
def test_bad_settings_are_one_message(
    write_recipe_file: Callable[..., Path], run_proxyds: Run, labels: str, code: int, said: str
) -> None:
    refused = run_proxyds("build", write_recipe_file(RECIPE.replace("{keep: 4}", labels)), "-o", "p", "-q")
    assert refused.returncode == code, refused.stderr
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
