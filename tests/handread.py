"""Proxies read from docs/format.md alone, as of two versions of it: nothing of proxyds or datasets is imported here."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class RefusedError(Exception):
    """The proxy is none that this reader takes."""


@dataclass(frozen=True)
class Reader:
    """A reader of a version of the format.

    Attributes:
        majors: The first numbers of the versions that it knows.
        tables: By name of a table, folder and split of its files; those that a proxy may lack are read where they are.
    """

    majors: tuple[str, ...]
    tables: dict[str, tuple[str, str]]

    def read(self, proxy: Path) -> tuple[dict[str, Any], dict[str, pa.Table]]:
        """Reads manifest and tables, and verifies every file."""
        manifest = json.loads((proxy / "manifest.json").read_text(encoding="utf-8"))
        version = manifest["format_version"]
        if manifest["format"] != "proxyds" or version.partition(".")[0] not in self.majors:
            raise RefusedError(f"{manifest['format']} {version}")
        there = {path.relative_to(proxy).as_posix() for path in proxy.rglob("*") if path.is_file()} - {"manifest.json"}
        if there != set(manifest["files"]):
            raise RefusedError(f"files: {there ^ set(manifest['files'])}")
        for name, facts in manifest["files"].items():
            held = (proxy / name).read_bytes()
            if (len(held), hashlib.sha256(held).hexdigest()) != (facts["bytes"], facts["sha256"]):
                raise RefusedError(name)
        tables = {name: self._read_table(proxy, manifest, name) for name in self.tables}
        return manifest, {name: table for name, table in tables.items() if table is not None}

    def _read_table(self, proxy: Path, manifest: dict[str, Any], name: str) -> pa.Table | None:
        folder, split = self.tables[name]
        pattern = rf"{folder}/{split}-\d{{5}}-of-(\d{{5}})\.parquet"
        shards = sorted(shard for shard in manifest["files"] if re.fullmatch(pattern, shard))
        n_rows = {"data": "proxy", "validation": "validation", "importance": "train", "evaluation": "evaluation"}[name]
        counted = manifest["counts"].get(n_rows, 0)
        if not shards and not counted:
            return None
        table = pa.concat_tables([pq.read_table(proxy / shard) for shard in shards])
        if table.num_rows != counted or int(shards[0][-13:-8]) != len(shards):
            raise RefusedError(f"{name}: {table.num_rows} rows in {shards}")
        return table


OF_1_5 = Reader(
    ("1",),
    {"data": ("data", "train"), "importance": ("importance", "train"), "evaluation": ("evaluation", "evaluation")},
)
OF_2_0 = Reader(("1", "2"), OF_1_5.tables | {"validation": ("data", "validation")})
