"""Commands that publish and fetch proxies: push, pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from proxyds.cli.names import complete_path
from proxyds.cli.options import PATH, as_json, quiet
from proxyds.progress_bars import show_progress
from proxyds.runtime.storage.address import show_address


@click.command()
@click.argument("folder", type=PATH)
@click.argument("place", shell_complete=complete_path)
@click.option(
    "--tag",
    metavar="TAG",
    help="Name of this version on the Hub.  [default: v1.0.0 for version 1.0.0]",
)
@click.option("--private", is_flag=True, help="If the repository is new, make it private.")
@click.option("--create-pr", is_flag=True, help="Open a pull request. Sets no tag.")
@click.option("--below-threshold", is_flag=True, help="Publish even if the check fell below its threshold.")
@click.option("--dry-run", is_flag=True, help="List the files and what would be done. Changes nothing.")
@quiet
@as_json
def push(folder: Path, place: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Publish the proxy in FOLDER at PLACE.

    PLACE is user/name on the Hub or an address such as s3://bucket/folder. The tag is set last and never moved. A push that broke
    off can be repeated.
    """
    with show_progress(quiet=quiet) as on_progress:
        from proxyds.pipeline.sharing.push import push

        pushed = push(folder, place, **options, on_progress=on_progress)
    from proxyds.cli.results import print_pushed

    print_pushed(pushed, as_json=as_json)


@click.command()
@click.argument("place", shell_complete=complete_path)
@click.option(
    "-o",
    "--output",
    "out",
    metavar="FOLDER",
    shell_complete=complete_path,
    help="The new folder, or an address.  [default: the repository's name]",
)
@quiet
@as_json
def pull(place: str, out: str | None, quiet: bool, as_json: bool) -> None:
    """Fetch the proxy at PLACE and verify it.

    PLACE is user/name@v1.0.0 on the Hub or an address.
    """
    with show_progress(quiet=quiet) as on_progress:
        from proxyds.pipeline.sharing.pull import default_folder, pull
        from proxyds.pipeline.sharing.push import output_at

        out = out or default_folder(place)
        with output_at(out, on_progress) as folder:
            pulled = pull(place, folder, on_progress=on_progress)
    from proxyds.cli.results import print_pulled

    print_pulled(pulled, show_address(out), as_json=as_json)
