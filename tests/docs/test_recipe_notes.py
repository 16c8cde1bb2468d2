"""The heads of shipped recipes say what the manifests of their cards do."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyds.artifact.manifest import MANIFEST, RECIPE
from proxyds.artifact.reader import read_manifest
from proxyds.recipe.yaml import read_recipe
from tests.docs.cards import CARDS, ROOT
from tests.docs.recipe_notes import NOTES, WIDTH, tabulate_costs, write_notes

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
WITH_CARD = [path for path in RECIPES if (CARDS / path.stem / MANIFEST).exists()]


@pytest.mark.parametrize("recipe", WITH_CARD, ids=lambda path: path.stem)
def test_the_notes_of_a_recipe_are_those_of_its_card(recipe: Path) -> None:
    evidence = read_manifest(CARDS / recipe.stem).evidence
    assert evidence is not None
    (notes,) = NOTES.findall(recipe.read_text(encoding="utf-8"))
    tau = next(each for each in evidence.methods if each.method == "proxy").statistics["tau"]
    assert f"#   proxy {tau.shown()}\n" in notes
    assert f"Verdict: {evidence.verdict}." in notes
    assert max(map(len, notes.splitlines())) <= WIDTH


@pytest.mark.parametrize("recipe", WITH_CARD, ids=lambda path: path.stem)
def test_a_card_is_of_the_recipe_as_it_is(recipe: Path) -> None:
    """Else its head would show figures of former settings: `make cards CARDS=...` builds the card anew."""
    measured = read_recipe(CARDS / recipe.stem / RECIPE)
    assert measured.training.crop_padding is not None
    given = read_recipe(recipe).with_crop_padding(measured.training.crop_padding)
    paths = {"check": {"reference"}}  # a card keeps no path of the machine that made it
    assert given.model_dump(exclude=paths) == measured.model_dump(exclude=paths)


def test_notes_that_are_wrong_are_written_anew_and_nothing_else_is() -> None:
    text = (ROOT / "recipes" / "digits.yaml").read_text(encoding="utf-8")
    wrong = text.replace("#   proxy 0.", "#   proxy 1.")
    assert write_notes(wrong, "digits") == text != wrong


def test_a_head_without_a_place_for_the_figures_is_refused() -> None:
    with pytest.raises(SystemExit, match="# Cost"):
        write_notes("# A recipe.\nname: digits-proxy\n", "digits")


def test_a_recipe_without_a_card_stays_as_it_is() -> None:
    assert write_notes("# Cost: a guess\nname: mine\n", "mine") == "# Cost: a guess\nname: mine\n"


def test_accuracies_of_a_table_are_no_trainings() -> None:
    (row,) = (line for line in tabulate_costs().splitlines() if "cifar10-nasbench201-small" in line)
    assert "288 trainings" in row  # 24 cells on 3 draws of 4 subsets; everything is published
