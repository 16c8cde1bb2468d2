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
    from proxyds.errors import ProxydsError
    from proxyds.fetching import Pulled, pull
    from proxyds.loading import torch_dataset
    from proxyds.networks import build_network
    from proxyds.networks.plugins import load_plugins
    from proxyds.opening import read_manifest, verify_proxy
    from proxyds.pipeline import Built, build, check, render
    from proxyds.plans import BuildPlan, CheckPlan, plan_build, plan_check
    from proxyds.publish import Pushed, push
    from proxyds.recipe import Recipe
    from proxyds.recipe_yaml import read_recipe, write_recipe
    from proxyds.resampling import resample
    from proxyds.space import list_architectures
    from proxyds.store import Store
    from proxyds.tables import read_tables

__version__ = version("proxyds")

_HOMES = {
    "read_manifest": "opening",
    "read_tables": "tables",
    "verify_proxy": "opening",
    "ProxydsError": "errors",
    "Pulled": "fetching",
    "pull": "fetching",
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
    "Pushed": "publish",
    "push": "publish",
    "resample": "resampling",
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
