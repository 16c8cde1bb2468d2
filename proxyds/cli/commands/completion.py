"""The command that lets a shell complete what one types: completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from proxyds.cli.output import print_plain


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands in SHELL: bash, zsh or fish.

    It completes commands, options, files, and the names that a recipe may hold. To have it in every new shell:

    \b
    bash   echo 'eval "$(proxyds completion bash)"' >> ~/.bashrc
    zsh    echo 'eval "$(proxyds completion zsh)"' >> ~/.zshrc
    fish   proxyds completion fish > ~/.config/fish/completions/proxyds.fish

    In zsh, the line must stand below the one with compinit.
    """  # noqa: D301 - \b keeps click from filling the lines below it
    kind = get_completion_class(shell)
    assert kind is not None  # the three come with click
    print_plain(kind(context.find_root().command, {}, "proxyds", "_PROXYDS_COMPLETE").source())
