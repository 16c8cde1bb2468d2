"""Small data sets that rank neural architectures as the whole data set does.

import proxyds
built = proxyds.build(proxyds.read_recipe("recipe.yaml"), "my-proxy")
built.manifest.counts.proxy
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxyds.artifact import read_manifest, read_tables, verify_proxy
    from proxyds.errors import ProxydsError
    from proxyds.loading import torch_dataset
    from proxyds.networks import build_network
    from proxyds.networks.plugins import load_plugins
    from proxyds.pipeline import Built, build, check, render
    from proxyds.plans import BuildPlan, CheckPlan, plan_build, plan_check
    from proxyds.recipe import Recipe
    from proxyds.recipe_yaml import read_recipe, write_recipe
    from proxyds.space import list_architectures
    from proxyds.store import Store

__version__ = version("proxyds")

_HOMES = {
    "read_manifest": "artifact",
    "read_tables": "artifact",
    "verify_proxy": "artifact",
    "ProxydsError": "errors",
    "torch_dataset": "loading",
    "build_network": "networks",
    "load_plugins": "networks.plugins",
    "Built": "pipeline",
    "build": "pipeline",
    "check": "pipeline",
    "render": "pipeline",
    "BuildPlan": "plans",
    "CheckPlan": "plans",
    "plan_build": "plans",
    "plan_check": "plans",
    "Recipe": "recipe",
    "list_architectures": "space",
    "read_recipe": "recipe_yaml",
    "write_recipe": "recipe_yaml",
    "Store": "store",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `import proxyds` alone imports neither torch nor datasets."""
    if name not in _HOMES:
        raise AttributeError(f"module 'proxyds' has no attribute {name!r}")
    return getattr(import_module(f"proxyds.{_HOMES[name]}"), name)
