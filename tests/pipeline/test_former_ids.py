"""Proxies whose sample ids are of the rule before format 2.0: their source is read, and split, by that rule."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import proxyds
from proxyds.data.images import FORMER_ID_RULE, ID_RULE
from proxyds.errors import AccuracyTableError, ChangedSourceError
from proxyds.pipeline.plan import plan_check
from proxyds.pipeline.stages import open_session
from proxyds.recipe.models import Recipe
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.storage.store import Store
from tests.pipeline.test_apply import of_samples
from tests.pipeline.test_bad_input import encoded_picture

pytestmark = pytest.mark.e2e

RECIPE = """\
name: former
source: {kind: folder, path: pictures, validation_fraction: 0.3}
space: {network: resnet, choices: {depth: [8, 14], base_filters: [4, 8], multiplier: [1, 2]}}
selection: {ratio: 0.2}
training: {epochs: 8, batch_size: 8, learning_rate: 0.02, crop_padding: 0, horizontal_flip: false}
"""


def write_palettes(folder: Path, n: int, first: int = 0) -> None:
    """Pictures with a palette, of which each rule makes another id."""
    for label, name in enumerate(("bee", "cat", "elk")):
        (folder / name).mkdir(parents=True)
        for number in range(first, first + n):
            with Image.open(io.BytesIO(encoded_picture(label, 1000 * label + number))) as image:
                image.quantize(16).save(folder / name / f"{number}.png")


Built = Callable[[str, int], Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, session_store: Path) -> Built:
    """Builds proxies of a source with splits or without, by a rule of ids; as earlier versions did where it is the former."""
    folder = tmp_path_factory.mktemp("former")
    for split, (n, first) in {"train": (20, 0), "validation": (8, 100), "test": (8, 200)}.items():
        write_palettes(folder / "split" / "pictures" / split, n, first)
    write_palettes(folder / "whole" / "pictures", 30)
    done: dict[tuple[str, int], Path] = {}

    def build(kind: str, id_rule: int) -> Path:
        if (kind, id_rule) not in done:
            done[kind, id_rule] = _build(folder / kind, id_rule, Store(session_store))
        return done[kind, id_rule]

    return build


def _build(folder: Path, id_rule: int, store: Store) -> Path:
    (folder / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxyds.pipeline.stages.open_session", partial(open_session, id_rule=id_rule))
        out = proxyds.build(folder / "recipe.yaml", folder / f"by-{id_rule}", store=store, device="cpu").folder
    if id_rule == FORMER_ID_RULE:
        manifest = json.loads((out / "manifest.json").read_text())
        del manifest["source"]["id_rule"]
        (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def ids(folder: Path) -> list[str]:
    found: list[str] = proxyds.read_tables(folder).data["sample_id"].to_pylist()
    return found


def own_source(proxy: Path) -> Any:
    recipe: Recipe = read_recipe(proxy.parent / "recipe.yaml")
    return recipe.source.path  # type: ignore[union-attr]


def test_another_rule_makes_other_ids_and_another_split(built: Built) -> None:
    former, now = built("whole", FORMER_ID_RULE), built("whole", ID_RULE)
    assert not set(ids(former)) & set(ids(now))
    tables = [proxyds.read_tables(each) for each in (former, now)]
    assert len({tuple(sorted(each.evaluation["source_index"].to_pylist())) for each in tables}) == 2
    assert [proxyds.read_manifest(each).source.id_rule for each in (former, now)] == [FORMER_ID_RULE, ID_RULE]


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_a_former_proxy_is_drawn_from_again_applied_and_opened(
    built: Built, kind: str, tmp_path: Path, session_store: Path
) -> None:
    former, store = built(kind, FORMER_ID_RULE), Store(session_store)
    overrides = [f"source.path={own_source(former)}"]
    again = proxyds.resample(former, tmp_path / "again", overrides=overrides, store=store)
    assert ids(again.folder) == ids(former)
    larger = [*overrides, "selection.ratio=0.4"]
    new = proxyds.resample(again.folder, tmp_path / "new", overrides=larger, store=store)
    assert new.manifest.source.id_rule == FORMER_ID_RULE
    assert len(ids(new.folder)) == 2 * len(ids(former))
    applied = proxyds.apply(former, tmp_path / "applied", source=own_source(former), store=store)
    assert of_samples(applied.folder) == of_samples(former)
    assert applied.manifest.source.fingerprint == proxyds.read_manifest(former).source.fingerprint
    held_out = proxyds.torch_dataset(applied.folder, "evaluation", source=own_source(former), store=store)
    assert len(held_out) == proxyds.read_manifest(former).counts.evaluation


def test_a_former_proxy_is_checked(built: Built, session_store: Path) -> None:
    former = built("whole", FORMER_ID_RULE)
    overrides = [f"source.path={own_source(former)}", "check.draws=1", "check.full_seeds=1"]
    assert plan_check(former, overrides=overrides, store=Store(session_store), device="cpu").runs


def test_a_former_proxy_is_a_reference_where_both_split_the_source_alike(built: Built, session_store: Path) -> None:
    for kind, said in (("split", "must have been checked"), ("whole", "must have the same source")):
        now = built(kind, ID_RULE)
        overrides = [f"source.path={own_source(now)}", f"check.reference={built(kind, FORMER_ID_RULE)}"]
        with pytest.raises(AccuracyTableError, match=said):
            plan_check(now, overrides=overrides, store=Store(session_store), device="cpu")


def test_a_former_proxy_of_another_source_is_refused(built: Built, tmp_path: Path, session_store: Path) -> None:
    write_palettes(tmp_path / "pictures", 30, first=1)
    overrides = [f"source.path={tmp_path / 'pictures'}"]
    with pytest.raises(ChangedSourceError, match="gone"):
        proxyds.resample(
            built("whole", FORMER_ID_RULE), tmp_path / "new", overrides=overrides, store=Store(session_store)
        )
