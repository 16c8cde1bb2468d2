"""What commands are forked from: libraries, this package, and the costs of the networks of `TINY_RECIPE`; see `tests/commands.py`.

What reads the environment as it is imported (`huggingface_hub`, `datasets`) is left to each command.
"""

from __future__ import annotations

import sys
from importlib import import_module

from tests.shortcuts import take_shortcuts

_MODULES = (
    "torch", "torchvision", "numpy", "pyarrow.parquet", "pyarrow.dataset", "pandas", "sklearn.datasets", "sklearn.decomposition", "scipy.stats",
    "matplotlib.figure", "PIL.Image", "pydantic", "ruamel.yaml", "rich.progress", "click", "jinja2", "fsspec", "loky", "safetensors.torch",
    "aiohttp", "dill", "s3fs",
    "proxyds.cli.main", "proxyds.cli.results", "proxyds.pipeline.audit", "proxyds.artifact.card.render",
)  # fmt: skip


def _count_costs() -> None:
    from proxyds.space.choices import space_section
    from proxyds.space.listing import list_architectures
    from proxyds.space.networks.plugins import offer_installed

    choices = {"depth": [8, 14], "base_filters": [4, 8], "multiplier": [1, 2]}
    list_architectures(space_section().validate_python({"network": "resnet", "choices": choices}), 10, (1, 8, 8))
    offer_installed.cache_clear()  # each command looks for installed packages itself


for _each in _MODULES:
    import_module(_each)
_count_costs()
take_shortcuts()
for _each in ("huggingface_hub", "datasets"):
    assert _each not in sys.modules, _each
