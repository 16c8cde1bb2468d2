"""Options that several commands have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from proxyds.cli.names import complete_setting

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PLUGINS = "proxyds.plugins"
"""Where a command's context keeps the modules of its `--plugin` options."""
COUNT = click.IntRange(0)
COUNT.name = "whole number"  # as messages have it
PATH = click.Path(path_type=Path, readable=False)
"""What cannot be read is told where it is read, with its exit code."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_set = partial(click.option, "--set", "overrides", multiple=True, metavar="A.B=C", shell_complete=complete_setting)
overrides = _set(help="Change a value of the recipe, such as selection.ratio=0.1. Can be given several times.")
check_overrides = _set(help="Change a setting of the check, such as check.draws=5. Can be given several times.")
workers = click.option(
    "--workers",
    type=COUNT,
    default=0,
    metavar="N",
    help="How many trainings run at once.  [default: one for each core, or one on a GPU]",
)
plugins = click.option(
    "--plugin",
    "_",
    multiple=True,
    metavar="MODULE",
    expose_value=False,
    callback=lambda context, _, modules: _load_plugins(context, modules),
    help="Import MODULE and use the networks in its FAMILIES. Can be given several times.",
)
source = click.option(
    "--source",
    type=PATH,
    metavar="PATH",
    help="Where the source lies: a folder, or a recipe that names it.  [default: where this machine read it last]",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Show warnings only, no progress.")


def execution_options(command: _Command) -> Callable[..., Any]:
    """Declares the options that say how work is done, and hands the command all but `--quiet` as one `execution.Options`."""

    @wraps(command)
    def call(**values: Any) -> Any:
        names = ("workers", "device", "engine", "gpus_per_task", "streamed")
        return command(execution={name: values.pop(name) for name in names}, **values)

    for option in reversed((workers, *_PLACE, quiet)):  # click lists them in the order of decorators
        call = option(call)
    return call


def _check_engine(context: click.Context, parameter: click.Parameter, engine: str) -> str:  # noqa: ARG001
    if engine != "local" and not re.fullmatch(r"ray(:(//)?.+:\d+)?", engine):
        raise click.BadParameter(f"must be local, ray, ray:HOST:PORT or ray://HOST:PORT, got {engine!r}")
    return engine


def _check_share(context: click.Context, parameter: click.Parameter, share: float | None) -> float:  # noqa: ARG001
    if share is None:
        return 1.0
    if context.params.get("engine") == "local":
        raise click.BadParameter("is for a cluster: give --engine ray too")
    return share


def _load_plugins(context: click.Context, modules: tuple[str, ...]) -> None:
    context.meta[_PLUGINS] = modules
    if modules:
        from proxyds.space.networks.plugins import load_plugins

        load_plugins(list(modules))


def repeat_plugins() -> str:
    """Writes the `--plugin` options of the running command, each with a space before it, for commands that need them too."""
    context = click.get_current_context(silent=True)
    modules: tuple[str, ...] = context.meta.get(_PLUGINS, ()) if context is not None else ()
    return "".join(f" {shlex.join(['--plugin', module])}" for module in modules)


_PLACE = (
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="DEVICE",
        shell_complete=lambda *given: [name for name in ("auto", "cpu", "cuda") if name.startswith(given[-1])],
        help="cpu, cuda, cuda:N, or auto: CUDA if there is any.",
    ),
    click.option(
        "--engine",
        is_eager=True,
        callback=_check_engine,
        default="local",
        show_default=True,
        metavar="ENGINE",
        shell_complete=lambda *given: [name for name in ("local", "ray") if name.startswith(given[-1])],
        help="Where the work runs: local, ray (the cluster at hand, or a new one), ray:HOST:PORT or ray://HOST:PORT.",
    ),
    click.option(
        "--gpus-per-task",
        type=float,
        callback=_check_share,
        metavar="N",
        help="Share of a GPU for each training on a cluster. With 0.25, four trainings share one.  [default: 1]",
    ),
    click.option(
        "--stream/--in-memory",
        "streamed",
        default=None,
        help="Read samples from disk when needed, or hold all in memory.  [default: by their size]",
    ),
)
