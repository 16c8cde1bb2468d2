"""Commands about the store of finished work: store list, store clean."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from proxyds.cli.options import as_json
from proxyds.cli.output import print_json, print_table, say
from proxyds.text import duration, with_prefix

if TYPE_CHECKING:
    from proxyds.runtime.storage.store import Entry


@click.group()
def store() -> None:
    """List or remove finished work.

    Builds and checks keep finished work in the store, so that nothing is done twice. `proxyds.open` keeps proxies there that it
    fetched. The store is the folder or address in PROXYDS_STORE. Without it, a folder in your cache.
    """


@store.command("list")
@as_json
def list_entries(as_json: bool) -> None:
    """List finished work, oldest first."""
    from proxyds.runtime.storage.store import Store

    opened = Store()
    entries = opened.entries()
    if as_json:
        names = ("stage", "name", "key", "n_bytes", "seconds")
        print_json([{name: getattr(each, name) for name in names} | {"stage": _name_stage(each)} for each in entries])
        return
    sizes = [each.n_bytes for each in entries]
    rows = [
        (
            f"{datetime.fromtimestamp(each.created):%Y-%m-%d %H:%M}",
            _name_stage(each),
            each.name,
            duration(each.seconds),
            with_prefix(n_bytes, "B"),
        )
        for each, n_bytes in zip(entries, sizes, strict=True)
    ]
    print_table(f"finished work in {opened.name}", ("when", "stage", "what", "took", "size"), rows)
    work = duration(sum(each.seconds for each in entries))
    say(f"entries: {len(entries)}, {work} of work, {with_prefix(sum(sizes), 'B')}")


def _name_stage(entry: Entry) -> str:
    """Names what an entry is of: a stage, or `proxies` for one that was fetched."""
    return entry.stage.removeprefix(".")


@store.command("clean")
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(0),
    default=0.0,
    metavar="DAYS",
    help="Remove only what is older than this.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(days: float, yes: bool) -> None:
    """Remove finished work and fetched proxies. Builds that need the work do it again."""
    from proxyds.runtime.storage.store import Store

    opened = Store()
    try:
        is_meant = yes or click.confirm(f"Remove finished work and fetched proxies from {opened.name}?")
    except click.Abort:
        raise click.UsageError(
            "nobody answers here, and nothing was removed; give --yes to remove without asking"
        ) from None
    if not is_meant:
        say("nothing was removed")
        return
    n_entries, n_bytes = opened.clean(days)
    say(f"removed {n_entries} entries, {with_prefix(n_bytes, 'B')}, from {opened.name}")
