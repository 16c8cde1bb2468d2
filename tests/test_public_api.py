"""What `import proxyds` offers: exactly the public names, each from where it is written, without importing torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import proxyds
from proxyds.errors import ArgumentError


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


CALLS: dict[str, Any] = {
    "read_manifest": lambda odd: proxyds.read_manifest(odd),
    "verify_proxy": lambda odd: proxyds.verify_proxy(odd),
    "read_tables": lambda odd: proxyds.read_tables(odd),
    "build": lambda odd: proxyds.build(odd, "out"),
    "build out": lambda odd: proxyds.build(RECIPE, odd),
    "build store": lambda odd: proxyds.build(RECIPE, "out", store=odd),
    "build workers": lambda odd: proxyds.build(RECIPE, "out", workers=[odd]),
    "build device": lambda odd: proxyds.build(RECIPE, "out", device=[odd]),
    "render": lambda odd: proxyds.render(odd),
    "check": lambda odd: proxyds.check(odd),
    "plan_build": lambda odd: proxyds.plan_build(odd),
    "plan_check": lambda odd: proxyds.plan_check(odd),
    "pull": lambda odd: proxyds.pull(odd),
    "pull out": lambda odd: proxyds.pull("me/proxy", [odd]),
    "push": lambda odd: proxyds.push(odd, "me/proxy"),
    "push place": lambda odd: proxyds.push("folder", odd),
    "rank": lambda odd: proxyds.rank(odd, {}),
    "apply": lambda odd: proxyds.apply(odd, "out"),
    "apply out": lambda odd: proxyds.apply("index.csv", odd),
    "index": lambda odd: proxyds.index(odd, "out"),
    "resample": lambda odd: proxyds.resample(odd, "out"),
    "resample out": lambda odd: proxyds.resample("folder", odd),
    "open": lambda odd: proxyds.open(odd),
    "Proxy": lambda odd: proxyds.Proxy(odd),
    "Recipe": lambda odd: proxyds.Recipe(name="tiny", space=odd),
    "read_recipe": lambda odd: proxyds.read_recipe(odd),
    "write_recipe": lambda odd: proxyds.write_recipe(odd),
    "Store": lambda odd: proxyds.Store([odd]),
    "list_architectures": lambda odd: proxyds.list_architectures(odd, 10, (1, 8, 8)),
    "build_network": lambda odd: proxyds.build_network(odd, {}, 10, (1, 8, 8)),
    "build_network parameters": lambda odd: proxyds.build_network("resnet", odd, 10, (1, 8, 8)),
    "build_network parameter": lambda odd: proxyds.build_network("resnet", {"depth": odd}, 10, (1, 8, 8)),
    "load_plugins": lambda odd: proxyds.load_plugins(odd),
    "torch_dataset": lambda odd: proxyds.torch_dataset(odd),
}
RECIPE = proxyds.Recipe(
    name="tiny", source={"kind": "digits"}, space={"network": "resnet", "choices": {"depth": [8, 14]}}
)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_an_error_of_ours(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for odd in (3, None, b"bytes", object(), ""):
        if (name, odd) in {("build store", None), ("list_architectures", "")}:
            continue
        with pytest.raises(proxyds.ProxydsError):
            CALLS[name](odd)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["build", "check", "plan_build", "plan_check", "resample", "apply"])
def test_a_mistyped_argument_is_told_with_the_nearest(name: str) -> None:
    places = {"build": (RECIPE, "out"), "plan_build": (RECIPE,), "resample": ("a", "out"), "apply": ("a", "out")}
    for word, meant in (("worker", "workers"), ("sources", "source"), ("on_progres", "on_progress")):
        with pytest.raises(ArgumentError, match=f"{name} .*{word}: did you mean `{meant}`"):
            getattr(proxyds, name)(*places.get(name, ("a",)), **{word: 2})


def test_every_public_function_is_tried_with_wrong_types() -> None:
    functions = {name for name in proxyds.__all__ if type(getattr(proxyds, name)).__name__ == "function"}
    assert functions <= {name.partition(" ")[0] for name in CALLS}
