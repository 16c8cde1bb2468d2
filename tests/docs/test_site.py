"""What the site takes from the code is whole: every key, name, method and error has its place."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import proxyds
from proxyds.recipe.methods import METHODS
from proxyds.recipe.models import Recipe

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_name_what_there_is(generated: ModuleType) -> None:
    named = {name for page in DOCS.rglob("*.md") for name in generated.MARK.findall(page.read_text(encoding="utf-8"))}
    assert named == set(generated.GENERATORS)


def test_a_recipe_has_every_key_with_its_meaning(generated: ModuleType) -> None:
    text = generated.describe_recipe()
    for section in (
        Recipe,
        *(
            type(getattr(Recipe(name="a", space={"network": "resnet", "choices": {"depth": [8, 14]}}), name))
            for name in ("probes", "selection", "training", "output")
        ),
    ):
        for key, field in section.model_fields.items():
            (row,) = [
                line
                for line in text.splitlines()
                if line.startswith(f"| `{key}` |") and (field.description or "") in line.replace("\\|", "|")
            ][:1]
            assert row.count("|") >= 5
    assert "| `ratio` | number above 0 to 1 | `0.05` |" in text


def test_public_names_methods_and_errors_are_all_listed(generated: ModuleType) -> None:
    python = re.findall(r"auto(?:class|function):: proxyds\.(\w+)", generated.list_python())
    assert sorted(python) == sorted(set(proxyds.__all__) - {"__version__"})
    assert re.findall(r"^\| `([\w-]+)`", generated.list_methods(), re.MULTILINE) == list(METHODS)
    codes = re.findall(r"^\| (\d+) ", generated.list_exit_codes(), re.MULTILINE)
    assert codes == ["0", "2", "3", "10", "15", "20", "30", "40", "50", "60", "70", "130", "141"]
