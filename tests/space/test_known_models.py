"""What is known of models' names without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxyds.space.known_models import list_torchvision_models
from tests.conftest import Run

RECIPE = """\
name: models
space:
  network: torchvision
  choices:
    model: [resnet18, sqeezenet]
    small_stem: true
"""


def test_the_list_is_torchvisions_own() -> None:
    from torchvision import models

    assert list(list_torchvision_models()) == sorted(models.list_models(module=models))


def test_the_list_takes_no_torch() -> None:
    code = "import sys; from proxyds.space.known_models import list_torchvision_models as f; f(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (RECIPE, ":5:23 space.choices.model[1]: "),
        (
            RECIPE.replace("[resnet18, sqeezenet]", "sqeezenet").replace("true", "[true, false]"),
            ":5:12 space.choices.model",
        ),
        (
            "name: models\nspace:\n  network: torchvision\n  architectures:\n  - model: resnet18\n  - model: sqeezenet\n",
            ":6:12 space.architectures[1].model: ",
        ),
    ],
)
def test_a_model_that_torchvision_does_not_have_is_told_by_validate(
    run_here: Run, write_recipe_file: Callable[..., Path], text: str, place: str
) -> None:
    refused = run_here("validate", write_recipe_file(text), "--json")
    (problem,) = json.loads(refused.stdout)["problems"]
    assert (refused.returncode, problem["is_unknown_name"]) == (10, True)
    assert place in refused.stderr
    assert "did you mean `squeezenet1_0`?" in refused.stderr


def test_a_model_that_an_override_names_is_told_too(run_here: Run, write_recipe_file: Callable[..., Path]) -> None:
    recipe = write_recipe_file(RECIPE.replace("sqeezenet", "vgg11"))
    assert run_here("validate", recipe).returncode == 0
    refused = run_here("validate", recipe, "--set", "space.choices.model=[vgg11, vgg12]")
    assert (refused.returncode, "(--set) space.choices.model=" in refused.stderr) == (10, True), refused.stderr


def test_what_a_proxys_recipe_names_need_not_be_here(write_recipe_file: Callable[..., Path]) -> None:
    from proxyds.recipe.yaml import read_recipe, write_recipe

    written = write_recipe(read_recipe(write_recipe_file(RECIPE.replace("sqeezenet", "vgg11"))))
    assert read_recipe(write_recipe_file(written.replace("vgg11", "of_tomorrow"))).space.n_listed == 2


def test_what_is_not_checked_is_said(run_here: Run, write_recipe_file: Callable[..., Path]) -> None:
    recipe = write_recipe_file(RECIPE.replace("torchvision", "timm"))
    done = run_here("validate", recipe)
    assert (done.returncode, "timm" in done.stdout, "--dry-run" in done.stdout) == (0, True, True)
    assert json.loads(run_here("validate", recipe, "--json").stdout)["unchecked"]
    checked = run_here("validate", write_recipe_file())
    assert "not checked" not in checked.stdout
