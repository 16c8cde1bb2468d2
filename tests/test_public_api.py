"""What `import proxyds` offers: exactly the public names, each from where it is written, without importing torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import proxyds


def test_dir_lists_the_public_names_alone() -> None:
    assert dir(proxyds) == sorted(proxyds.__all__)
    assert {"build", "read_recipe", "Family", "Parameters", "__version__"} < set(dir(proxyds))


@pytest.mark.parametrize("name", proxyds.__all__)
def test_a_public_name_is_that_of_its_module(name: str) -> None:
    assert getattr(getattr(proxyds, name), "__name__", name) == name


def test_type_checkers_see_each_name_where_it_is_imported_from() -> None:
    tree = ast.parse(Path(proxyds.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: str(line.module).removeprefix("proxyds.")
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert imported == proxyds._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="biuld"):
        proxyds.biuld  # noqa: B018 - the access is what is tested


def test_recipes_and_plugins_need_no_torch() -> None:
    code = (
        "import sys, proxyds; proxyds.Family, proxyds.Parameters, proxyds.read_recipe; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
