"""Words for what pydantic checks by itself, and for the validators of a plugin's parameters, which stand as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field

from proxyds import Family, Parameters
from proxyds.errors import RecipeError, UnknownNameError
from proxyds.recipe.yaml import read_recipe
from proxyds.space.networks.families import FAMILIES


def _is_small(value: int) -> int:
    assert value < 100, f"must be small, got {value}"
    return value


class OddParameters(Parameters):
    width: Annotated[int, Field(multiple_of=8), AfterValidator(_is_small)] = Field(8, description="Channels.")
    kind: Literal["plain", "deep"] = Field("plain", description="Form.")
    arguments: dict[Annotated[str, Field(max_length=3)], int] = Field({}, description="Others.")


@pytest.mark.parametrize(
    ("choices", "error", "place", "keyword"),
    [
        ("width: 12", RecipeError, "4:20 space.choices.width[0]", "a multiple of 8, got 12"),
        ("width: 104", RecipeError, "4:20 space.choices.width[0]", "must be small, got 104"),
        ("kind: deap", UnknownNameError, "4:19 space.choices.kind[0]", "`deep`"),
        ("arguments: {long: 3}", RecipeError, "4:25 space.choices.arguments.long", 'got "long"'),
    ],
)
def test_parameters_of_a_plugin_are_explained(
    monkeypatch: pytest.MonkeyPatch,
    write_recipe_file: Callable[..., Path],
    choices: str,
    error: type[RecipeError],
    place: str,
    keyword: str,
) -> None:
    monkeypatch.setitem(FAMILIES, "odd", Family(OddParameters, "odd_networks", None, "of a test"))
    path = write_recipe_file(f"name: x\nspace:\n  network: odd\n  choices: {{{choices}}}\n")
    with pytest.raises(error) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}:{place}: must ")
    assert keyword in str(caught.value)
    assert len(caught.value.problems) == 1
