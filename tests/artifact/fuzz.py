"""Fuzzes proxies, each by its seed, and tells as lines of JSON what became of it: `python -m tests.artifact.fuzz WHOLE PLACE FIRST LAST`."""

from __future__ import annotations

import copy
import faulthandler
import hashlib
import json
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import proxyds
from proxyds.artifact.card.render import render_card
from proxyds.artifact.summary import summarize_tables
from proxyds.artifact.tables import read_proxy
from proxyds.errors import ProxydsError
from proxyds.pipeline.audit import audit_proxy


def sign(proxy: Path) -> None:
    path = proxy / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        for name in manifest["files"]:
            content = (proxy / name).read_bytes()
            manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        path.write_text(json.dumps(manifest))
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        pass  # the manifest is no manifest any more: all the better


def fuzz_bytes(rng: random.Random, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(rng.choice([1, 1, 3, 30])):
        at = rng.randrange(len(content) or 1)
        kind = rng.randrange(4)
        if kind == 0 and content:
            content[at] = rng.randrange(256)
        elif kind == 1:
            del content[at : at + rng.choice([1, 8, 500])]
        elif kind == 2:
            content[at:at] = rng.randbytes(rng.choice([1, 8, 100]))
        else:
            content[at : at + 8] = rng.choice([b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7])
    return bytes(content)


def paths_of(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from paths_of(value, (*path, key))


def fuzz_json(rng: random.Random, text: str) -> str:
    tree = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 5])):
        path = rng.choice([p for p in paths_of(tree) if p])
        inner = tree
        for key in path[:-1]:
            inner = inner[key]
        value = rng.choice(
            [
                None,
                True,
                -1,
                0,
                1,
                2**31,
                2**63,
                10**30,
                0.5,
                -0.5,
                1e308,
                "",
                "x",
                "x" * 20_000,
                "<b>",
                "../x",
                [],
                {},
                [[]],
                {"a": 1},
                copy.deepcopy(tree),
                "delete",
                "more",
            ]
        )
        if value == "delete":
            del inner[path[-1]]
        elif value == "more" and isinstance(inner, dict):
            inner["news"] = rng.choice([1, "text", [1]])
        else:
            inner[path[-1]] = value
    return json.dumps(tree)


def fuzz_table(rng: random.Random, path: Path) -> None:
    table = pq.read_table(path)
    name = rng.choice(table.column_names)
    at = table.schema.get_field_index(name)
    kind = rng.randrange(7)
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.take(np.random.default_rng(rng.randrange(999)).permutation(table.num_rows))
    elif kind == 2:
        table = table.slice(rng.randrange(table.num_rows))
    elif kind == 3:
        table = table.append_column("news", pa.array(range(table.num_rows)))
    elif kind == 4:
        table = table.set_column(at, name, pa.nulls(table.num_rows, table.schema.field(name).type))
    elif kind == 5:
        values = rng.choice(
            [
                ["x"],
                [1],
                [0.5],
                [float("nan")],
                [2**62],
                [[1, 2]],
                [b"x"],
                [{"bytes": b"x", "path": "/etc/passwd"}],
                [True],
            ]
        )
        table = table.set_column(at, name, pa.array(values * table.num_rows))
    else:
        values = table[name].to_pylist()
        values[rng.randrange(len(values))] = values[rng.randrange(len(values))]
        table = table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path, compression=rng.choice(["zstd", "snappy", "none"]))


def fuzz(rng: random.Random, proxy: Path) -> None:
    parquets, tars = sorted(proxy.glob("*/*.parquet")), sorted(proxy.glob("*/*.tar"))
    texts = [proxy / "README.md", proxy / "recipe.yaml", *sorted(proxy.glob("*.csv"))]
    kind = rng.randrange(8)
    if kind == 0:
        path = proxy / "manifest.json"
        path.write_bytes(fuzz_bytes(rng, path.read_bytes()))
    elif kind in (1, 2):
        path = proxy / "manifest.json"
        path.write_text(fuzz_json(rng, path.read_text()))
    elif kind == 3:
        path = rng.choice(parquets)
        path.write_bytes(fuzz_bytes(rng, path.read_bytes()))
    elif kind in (4, 5):
        fuzz_table(rng, rng.choice(parquets))
    elif kind == 6:
        path = rng.choice([*tars, *texts])
        path.write_bytes(fuzz_bytes(rng, path.read_bytes()))
    else:
        one, other = rng.sample([*parquets, *tars, *texts], 2)
        shutil.copy(one, other)
    if kind > 2 and rng.random() < 0.85:
        sign(proxy)


def render_again(proxy: Path) -> None:
    manifest, tables = read_proxy(proxy)
    render_card(manifest, summarize_tables(tables))


def attempt(proxy: Path) -> list[str]:
    outcomes = []
    for do in (audit_proxy, render_again, proxyds.torch_dataset, partial(proxyds.torch_dataset, split="validation")):
        try:
            do(proxy)
            outcomes.append("loaded")
        except ProxydsError as error:
            assert str(error).encode()  # noqa: PT017 - either will do
            outcomes.append("refused")
    return outcomes


def main(whole: Path, place: Path, first: int, last: int) -> None:
    faulthandler.register(signal.SIGALRM, chain=True)
    for seed in range(first, last):
        rng = random.Random(seed)
        proxy = place / f"case-{seed}" / "proxy"
        shutil.copytree(whole, proxy)
        fuzz(rng, proxy)
        before = sorted(str(p) for p in place.rglob("*"))
        signal.alarm(60)
        started = time.process_time()  # not by the clock, which other processes slow down; what hangs meets the alarm
        outcomes = attempt(proxy)
        seconds = time.process_time() - started
        signal.alarm(0)
        assert sorted(str(p) for p in place.rglob("*")) == before, seed
        # not getrusage, whose maximum a process inherits from the one that started it
        n_bytes = 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
        print(json.dumps({"seed": seed, "outcomes": outcomes, "seconds": seconds, "n_bytes": n_bytes}), flush=True)
        shutil.rmtree(proxy.parent)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
