"""Small data sets that rank neural architectures as the whole data set does.

import proxyds
built = proxyds.build(proxyds.read_recipe("recipe.yaml"), "my-proxy")
built.manifest.counts.proxy
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxyds.artifact.reader import Built, read_manifest, verify_proxy
    from proxyds.artifact.tables import read_tables
    from proxyds.errors import ProxydsError
    from proxyds.evaluation.decision.ranked import Ranking
    from proxyds.pipeline.build import build, render
    from proxyds.pipeline.check import check
    from proxyds.pipeline.plan import BuildPlan, CheckPlan, plan_build, plan_check
    from proxyds.pipeline.rank import rank
    from proxyds.pipeline.resample import apply, index, resample
    from proxyds.pipeline.sharing.pull import Pulled, pull
    from proxyds.pipeline.sharing.push import Pushed, push
    from proxyds.proxy import Proxy, open
    from proxyds.recipe.models import Recipe
    from proxyds.recipe.yaml import read_recipe, write_recipe
    from proxyds.runtime.storage.store import Store
    from proxyds.space.listing import list_architectures
    from proxyds.space.networks.build import build_network
    from proxyds.space.networks.families import Family
    from proxyds.space.networks.parameters import Parameters
    from proxyds.space.networks.plugins import load_plugins
    from proxyds.torch_data import torch_dataset

    __version__: str

_MODULES = {
    "artifact.reader": ("Built", "read_manifest", "verify_proxy"),
    "artifact.tables": ("read_tables",),
    "errors": ("ProxydsError",),
    "evaluation.decision.ranked": ("Ranking",),
    "pipeline.build": ("build", "render"),
    "pipeline.check": ("check",),
    "pipeline.plan": ("BuildPlan", "CheckPlan", "plan_build", "plan_check"),
    "pipeline.sharing.pull": ("Pulled", "pull"),
    "pipeline.sharing.push": ("Pushed", "push"),
    "pipeline.rank": ("rank",),
    "pipeline.resample": ("apply", "index", "resample"),
    "proxy": ("Proxy", "open"),
    "recipe.models": ("Recipe",),
    "recipe.yaml": ("read_recipe", "write_recipe"),
    "runtime.storage.store": ("Store",),
    "space.listing": ("list_architectures",),
    "space.networks.build": ("build_network",),
    "space.networks.families": ("Family",),
    "space.networks.parameters": ("Parameters",),
    "space.networks.plugins": ("load_plugins",),
    "torch_data": ("torch_dataset",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `import proxyds` alone imports neither torch nor datasets."""
    if name == "__version__":
        from importlib.metadata import version  # a third of the time of `proxyds --help`

        return version("proxyds")
    if name not in _HOMES:
        raise AttributeError(f"module 'proxyds' has no attribute {name!r}")
    return getattr(import_module(f"proxyds.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names alone."""
    return sorted(__all__)
