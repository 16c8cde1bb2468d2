"""The heads of shipped recipes say what the manifests of their cards do."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyds.artifact.manifest import MANIFEST
from proxyds.artifact.reader import read_manifest
from tests.docs.cards import CARDS, ROOT
from tests.docs.recipe_notes import NOTES, WIDTH, write_notes

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


def test_notes_that_are_wrong_are_written_anew_and_nothing_else_is(tmp_path: Path) -> None:
    text = (ROOT / "recipes" / "digits.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "digits.yaml"
    wrong.write_text(text.replace("#   proxy 0.", "#   proxy 1."), encoding="utf-8")
    assert write_notes(wrong) == text != wrong.read_text(encoding="utf-8")


def test_a_recipe_without_a_card_stays_as_it_is(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("# Cost: a guess\nname: mine\n", encoding="utf-8")
    assert write_notes(recipe) == "# Cost: a guess\nname: mine\n"
