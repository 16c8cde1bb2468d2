"""Families of networks from elsewhere: installed packages, and modules that are named on the command line.

A recipe alone never imports code. A package that is installed may offer families by the entry point group `proxyds.networks`
(entry point name = family name, value = a `Family`); it is imported when a recipe names the family. Any other module must be
named by whoever runs the command, with `--plugin` or `load_plugins`; it holds a mapping `FAMILIES` of names to `Family`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isclass
from pathlib import Path
from typing import Any, get_args, get_origin

from proxyds.callables import list_handed_over, receive
from proxyds.errors import ArgumentError, PluginError, UnknownNameError
from proxyds.space.networks.families import FAMILIES, Family
from proxyds.space.networks.parameters import Parameters
from proxyds.text import short_json

GROUP = "proxyds.networks"

_loaded: list[str] = []


def load_plugins(modules: str | Sequence[str]) -> None:
    """Registers the families of a module, or of some; what is loaded already is left alone.

    Modules are named by import path; one in the current folder is found too.

    Raises:
        PluginError: One cannot be imported, holds no families, or one of its names is taken.
    """
    modules = [modules] if isinstance(modules, str) else modules
    if not isinstance(modules, Sequence) or not all(isinstance(module, str) for module in modules):
        raise ArgumentError(f"modules: must be a module's name, or a list of names, got {short_json(modules)}")
    for module in modules:
        if module not in _loaded:
            _load_module(module)
            _loaded.append(module)


@dataclass(frozen=True)
class LoadedCode:
    """Code from elsewhere, which a worker must know too.

    Attributes:
        plugins: The modules of `load_plugins`.
        handed_over: See `callables.list_handed_over`.
    """

    plugins: list[str]
    handed_over: dict[str, bytes]


def list_code() -> LoadedCode:
    """Returns all code from elsewhere that this process knows."""
    return LoadedCode(list(_loaded), list_handed_over())


def load_code(code: LoadedCode) -> None:
    """Lets a worker know what `list_code` of the main process returned.

    Raises:
        PluginError: See `load_plugins`.
    """
    load_plugins(code.plugins)
    receive(code.handed_over)


@cache
def offer_installed(network: str) -> None:
    """Registers a family that an installed package offers under this name, if there is one.

    Raises:
        PluginError: It cannot be imported, is no family, its name is taken, or two packages offer the name.
    """
    offers = entry_points(group=GROUP, name=network)
    packages = ", ".join(sorted(map(_package_of, offers)))
    if offers and network in FAMILIES:
        raise PluginError(
            f"network {network!r}: must be one family, the installed package {packages} takes a name that is taken; remove the package or "
            "rename its entry point"
        )
    if len(offers) > 1:
        raise PluginError(
            f"network {network!r}: must be offered by one installed package, it is by {packages}; remove one of them"
        )
    for offer in offers:
        where = f"entry point {GROUP}: {network} = {offer.value} (of {packages})"
        try:
            family = offer.load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
        _refuse_unusable(network, family, where)
        FAMILIES[network] = family


def installed_offers() -> dict[str, str]:
    """Lists the families that installed packages offer, with the package's name; imports nothing."""
    return {offer.name: _package_of(offer) for offer in entry_points(group=GROUP)}


def _load_module(module: str) -> None:
    if not all(part.isidentifier() for part in module.split(".")) or module.endswith(".py"):
        raise PluginError(
            f"plugin {module}: must be the import path of a module, such as my_networks or my.networks, without .py"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        imported = import_module(module)
    except (Exception, SystemExit) as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        advice = f"it must be installed, or a file {module.replace('.', '/')}.py in the current folder"
        raise PluginError(
            f"plugin {module}: cannot be imported: {type(error).__name__}: {error}; {advice if is_missing else 'mend it'}"
        ) from error
    families = getattr(imported, "FAMILIES", None)
    if not isinstance(families, dict) or not families:
        raise PluginError(
            f"plugin {module}: must hold a mapping FAMILIES of names to proxyds.Family, it holds "
            f"{'none' if families is None else type(families).__name__}"
        )
    taken = sorted(set(families) & set(FAMILIES))
    if taken:
        raise PluginError(
            f"plugin {module}: must give its families names of their own, {taken[0]!r} is taken (known: "
            f"{', '.join(FAMILIES)}); rename it"
        )
    for name, family in families.items():
        _refuse_unusable(name, family, f"plugin {module}: FAMILIES[{name!r}]")
    FAMILIES.update(families)  # all, or none


def _refuse_unusable(name: str, family: Any, where: str) -> None:
    parameters = getattr(family, "parameters", None)
    if not isinstance(family, Family) or not isclass(parameters) or not issubclass(parameters, Parameters):
        raise PluginError(
            f"{where}: must be a proxyds.Family whose parameters are a subclass of "
            f"proxyds.Parameters, it is {type(family).__name__}"
        )
    if not isinstance(name, str) or not name:
        raise PluginError(f"{where}: a family's name must be a text, it is {name!r}")
    for parameter, field in family.parameters.model_fields.items():
        if field.is_required() or field.default_factory is not None:
            raise PluginError(
                f"{where}: every parameter must have a default (and no default_factory), {parameter!r} has none"
            )
        if get_origin(field.annotation) is tuple and Ellipsis in get_args(field.annotation):
            raise PluginError(
                f"{where}: a tuple must have an entry for each stage, {parameter!r} is open: {field.annotation}"
            )


def _package_of(offer: EntryPoint) -> str:
    return offer.dist.name if offer.dist is not None else "an unknown package"


def find_family(network: str) -> Family:
    """Returns a family that is registered, or one that an installed package offers.

    Raises:
        UnknownNameError: There is none of that name.
        PluginError: What is offered cannot be used.
    """
    offer_installed(network)
    if network not in FAMILIES:
        raise UnknownNameError(
            f"network {network!r}: must be a family that is known ({', '.join(FAMILIES)}), or one of a plugin: load it with "
            "proxyds.load_plugins (--plugin MODULE), or install the package that offers it"
        )
    return FAMILIES[network]
