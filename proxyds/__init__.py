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
    from proxyds.artifact.reader import read_manifest, verify_proxy
    from proxyds.artifact.tables import read_tables
    from proxyds.errors import ProxydsError
    from proxyds.pipeline.build import Built, build, check, render
    from proxyds.pipeline.plan import BuildPlan, CheckPlan, plan_build, plan_check
    from proxyds.pipeline.pull import Pulled, pull
    from proxyds.pipeline.push import Pushed, push
    from proxyds.pipeline.resample import resample
    from proxyds.recipe.models import Recipe
    from proxyds.recipe.yaml import read_recipe, write_recipe
    from proxyds.runtime.storage.store import Store
    from proxyds.space.listing import list_architectures
    from proxyds.space.networks.build import build_network
    from proxyds.space.networks.families import Family
    from proxyds.space.networks.parameters import Parameters
    from proxyds.space.networks.plugins import load_plugins
    from proxyds.torch_data import torch_dataset

__version__ = version("proxyds")

_HOMES = {
    "read_manifest": "artifact.reader",
    "read_tables": "artifact.tables",
    "verify_proxy": "artifact.reader",
    "ProxydsError": "errors",
    "Pulled": "pipeline.pull",
    "pull": "pipeline.pull",
    "torch_dataset": "torch_data",
    "build_network": "space.networks.build",
    "Family": "space.networks.families",
    "Parameters": "space.networks.parameters",
    "load_plugins": "space.networks.plugins",
    "Built": "pipeline.build",
    "build": "pipeline.build",
    "check": "pipeline.build",
    "render": "pipeline.build",
    "BuildPlan": "pipeline.plan",
    "CheckPlan": "pipeline.plan",
    "plan_build": "pipeline.plan",
    "plan_check": "pipeline.plan",
    "Pushed": "pipeline.push",
    "push": "pipeline.push",
    "resample": "pipeline.resample",
    "Recipe": "recipe.models",
    "list_architectures": "space.listing",
    "read_recipe": "recipe.yaml",
    "write_recipe": "recipe.yaml",
    "Store": "runtime.storage.store",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `import proxyds` alone imports neither torch nor datasets."""
    if name not in _HOMES:
        raise AttributeError(f"module 'proxyds' has no attribute {name!r}")
    return getattr(import_module(f"proxyds.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names alone."""
    return sorted(__all__)
