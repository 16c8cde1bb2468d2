"""The entry point of the command line: its commands, and how it ends. What takes long to import is imported by who needs it."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click

from proxyds.cli.commands.decision import rank
from proxyds.cli.commands.proxies import apply, build, card, check, index, inspect, resample, verify
from proxyds.cli.commands.recipes import init, list_, validate
from proxyds.cli.commands.sharing import pull, push
from proxyds.cli.commands.store import store
from proxyds.cli.output import print_json
from proxyds.errors import EXIT_INTERRUPTED, ProxydsError


def main() -> None:
    """Runs the command line and turns every expected error into one message and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported: idle threads must not spin
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when datasets is: the bars here are our own
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the client logs every try, with an upload's signed address
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # unless a shell has told it to ignore Ctrl-C
        signal.signal(signal.SIGINT, _interrupt_once)
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except ProxydsError as error:
        if "--json" in sys.argv:
            fault = {"error": type(error).__name__, "exit_code": error.exit_code, "message": str(error)}
            print_json({**fault, "problems": getattr(error, "problems", [])})
        click.echo(f"proxyds: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "proxyds: interrupted. Finished work is kept: run the same command again, and it goes on where it stopped.",
            err=True,
        )
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _interrupt_once(*_: object) -> NoReturn:
    """Ends the command at the first Ctrl-C; others would break off the cleaning up, and kill the programs that do it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="proxyds")
def cli() -> None:
    """Make small data sets that rank neural architectures as the whole data set does.

    A recipe names a data set, a search space and a size; `build` makes the proxy. Start with `proxyds init`.
    """


for command in (
    init,
    validate,
    build,
    check,
    rank,
    inspect,
    push,
    pull,
    resample,
    index,
    apply,
    verify,
    card,
    list_,
    store,
):
    cli.add_command(command)
