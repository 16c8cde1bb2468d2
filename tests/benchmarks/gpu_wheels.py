"""Fetches wheels of what proxyds and its tests need besides torch, for a machine that reaches no registry: `make gpu-wheels`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest", "pytest-timeout")
"""What runs the tests marked gpu."""
THERE = ("torch", "torchvision")
"""What the machine must have, with all that these need."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def find_needed(names: Iterable[str], known: set[str], python_version: str) -> dict[str, str]:
    """Finds what packages need, and what that needs, as it is installed here.

    Args:
        names: Of packages.
        known: Names that are left out, and what they need with them.
        python_version: That they are needed for.

    Returns:
        Versions by name.
    """
    needed: dict[str, str] = {}
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in known or name in needed:
            continue
        needed[name] = version(name)
        requirements = [Requirement(text) for text in requires(name) or []]
        waiting += [
            canonicalize_name(each.name)
            for each in requirements
            if each.marker is None or each.marker.evaluate({"extra": "", "python_version": python_version})
        ]
    return needed


def main() -> None:
    """Fetches the wheels, and makes one of this checkout, whose version the manifests record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheels go")
    parser.add_argument("--python-version", default="3.12", help="of the machine with the GPU (default 3.12)")
    parser.add_argument("--without", nargs="*", default=[], help="packages that it has already")
    given = parser.parse_args()
    there = set(find_needed(THERE, set(), given.python_version)) | {canonicalize_name(name) for name in given.without}
    needed = find_needed(["proxyds", *TOOLS], there, given.python_version)
    del needed["proxyds"]
    pip = [sys.executable, "-m", "pip"]
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    pins = [f"{name}=={number}" for name, number in needed.items()]
    subprocess.run(
        [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation", "cp", *platforms,
         "--python-version", given.python_version, "--dest", str(given.folder), *pins],
        check=True,
    )  # fmt: skip
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(given.folder), str(ROOT)], check=True)
    files = list(given.folder.glob("*.whl"))
    size = sum(file.stat().st_size for file in files) / 2**20
    print(f"{len(files)} wheels in {given.folder}, {size:.0f} MiB")


if __name__ == "__main__":
    main()
