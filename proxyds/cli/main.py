"""The entry point of the command line: its commands, and how it ends. What takes long to import is imported by who needs it."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from proxyds.cli.commands.completion import completion
from proxyds.cli.commands.decision import rank
from proxyds.cli.commands.proxies import apply, build, card, check, index, inspect, resample, verify
from proxyds.cli.commands.recipes import init, list_, validate
from proxyds.cli.commands.sharing import pull, push
from proxyds.cli.commands.store import store
from proxyds.cli.output import print_json
from proxyds.errors import EXIT_INTERRUPTED, EXIT_READER_GONE, ProxydsError

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Start": (init, list_, validate),
    "Build and check": (build, check, inspect, resample),
    "Decide": (rank,),
    "Share": (push, pull, index, apply),
    "Look after": (verify, card, store, completion),
}
"""The commands in the order in which a user meets them."""
_STOPS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what `kill` and the schedulers of clusters send."""


def main() -> None:
    """Runs the command line and turns every expected error into one message and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported: idle threads must not spin
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when datasets is: the bars here are our own
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the client logs every try, with an upload's signed address
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it for programs in the background
            signal.signal(number, _interrupt_once)
    try:
        sys.exit(_run())
    except (BrokenPipeError, _PipeError):
        if not _is_reader_gone():
            raise
        for stream in (sys.stdout, sys.stderr):  # what they still hold would be written once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(EXIT_READER_GONE)


def _run() -> int:
    try:
        return cli.main(standalone_mode=False) or 0
    except (ProxydsError, click.ClickException) as error:
        if "--json" in sys.argv:
            message = error.format_message() if isinstance(error, click.ClickException) else str(error)
            fault = {"error": type(error).__name__, "exit_code": error.exit_code, "message": message}
            print_json({**fault, "problems": getattr(error, "problems", [])})
        if isinstance(error, click.ClickException):
            error.show()
        else:
            click.echo(f"proxyds: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        notes = getattr(stop.__cause__ or stop, "__notes__", [])  # click puts an Abort around the interrupt
        kept = "Finished work is kept: run the same command again, and it goes on where it stopped."
        click.echo(" ".join(["proxyds: interrupted.", *notes, kept]), err=True)
        return EXIT_INTERRUPTED


def _is_reader_gone() -> bool:
    """Says whether the program that reads our output has ended, as `head` does; other pipes may break, too."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _interrupt_once(number: int, _: object) -> NoReturn:
    """Ends the command at the first stop; another one would break off the cleaning up. Only `kill` after Ctrl-C does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)
    raise KeyboardInterrupt


class _PipeError(Exception):
    """Something could not be written to a pipe, which click must not see: it ends without a word, whatever the pipe was."""


class _Commands(click.Group):
    """A group whose help lists commands under `SECTIONS`."""

    def make_context(self, *given: Any, **options: Any) -> click.Context:
        """Parses options; some print and end."""
        with _hide_broken_pipe():
            return super().make_context(*given, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with _hide_broken_pipe():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        width = max(map(len, self.list_commands(ctx)))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                limit = formatter.width - 6 - width
                rows = [(f"{each.name:{width}}", each.get_short_help_str(limit)) for each in commands]
                formatter.write_dl(rows)


@contextmanager
def _hide_broken_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _PipeError from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(None, "-V", "--version", package_name="proxyds", help="Show the version and exit.")
def cli() -> None:
    """Make small data sets that rank neural architectures as the whole data set does.

    A recipe names a data set, a search space and a size. `proxyds init` writes one, `proxyds build` makes the small data set, the
    proxy. `proxyds check` measures how well it ranks.
    """


for command in (command for commands in SECTIONS.values() for command in commands):
    cli.add_command(command)
