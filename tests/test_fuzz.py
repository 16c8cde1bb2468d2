"""200 fuzzed proxies: each is loaded right or refused with a `ProxydsError`; none hangs, writes outside its folder, or fills the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

N_PROXIES, N_PROCESSES = 200, 2
MOST_SECONDS, MOST_BYTES = 5.0, 1_000_000_000

CHILD = r"""
import copy, faulthandler, hashlib, json, pathlib, random, re, shutil, signal, sys, time
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
import proxyds
from proxyds.pipeline.audit import audit_proxy
from proxyds.artifact.card import render_card
from proxyds.errors import ProxydsError
from proxyds.artifact.tables import read_proxy
from proxyds.artifact.summary import show_tables

whole, place, first, last = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
faulthandler.register(signal.SIGALRM, chain=True)


def sign(proxy):
    path = proxy / "manifest.json"
    try:
        held = json.loads(path.read_text())
        for name in held["files"]:
            content = (proxy / name).read_bytes()
            held["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        path.write_text(json.dumps(held))
    except Exception:
        pass  # the manifest is no manifest any more: all the better


def fuzz_bytes(rng, held):
    held = bytearray(held)
    for _ in range(rng.choice([1, 1, 3, 30])):
        at = rng.randrange(len(held) or 1)
        kind = rng.randrange(4)
        if kind == 0 and held:
            held[at] = rng.randrange(256)
        elif kind == 1:
            del held[at : at + rng.choice([1, 8, 500])]
        elif kind == 2:
            held[at:at] = rng.randbytes(rng.choice([1, 8, 100]))
        else:
            held[at : at + 8] = rng.choice([b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7])
    return bytes(held)


def paths_of(held, path=()):
    yield path
    inner = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for key, value in inner:
        yield from paths_of(value, (*path, key))


def fuzz_json(rng, text):
    held = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 5])):
        path = rng.choice([p for p in paths_of(held) if p])
        inner = held
        for key in path[:-1]:
            inner = inner[key]
        value = rng.choice(
            [None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308, "", "x", "x" * 20_000, "<b>", "../x", [], {}, [[]], {"a": 1},
             copy.deepcopy(held), "delete", "more"]
        )
        if value == "delete":
            del inner[path[-1]]
        elif value == "more" and isinstance(inner, dict):
            inner["news"] = rng.choice([1, "text", [1]])
        else:
            inner[path[-1]] = value
    return json.dumps(held)


def fuzz_table(rng, path):
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
        values = rng.choice([["x"], [1], [0.5], [float("nan")], [2**62], [[1, 2]], [b"x"], [{"bytes": b"x", "path": "/etc/passwd"}], [True]])
        table = table.set_column(at, name, pa.array(values * table.num_rows))
    else:
        values = table[name].to_pylist()
        values[rng.randrange(len(values))] = values[rng.randrange(len(values))]
        table = table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path, compression=rng.choice(["zstd", "snappy", "none"]))


def fuzz(rng, proxy):
    parquets, tars = sorted(proxy.glob("*/*.parquet")), sorted(proxy.glob("*/*.tar"))
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
        path = rng.choice([*tars, proxy / "README.md", proxy / "recipe.yaml"])
        path.write_bytes(fuzz_bytes(rng, path.read_bytes()))
    else:
        one, other = rng.sample([*parquets, *tars, proxy / "README.md"], 2)
        shutil.copy(one, other)
    if kind > 2 and rng.random() < 0.85:
        sign(proxy)


def render_again(proxy):
    manifest, tables = read_proxy(proxy)
    render_card(manifest, show_tables(tables))


def attempt(proxy):
    outcomes = []
    for do in (audit_proxy, render_again, proxyds.torch_dataset):
        try:
            do(proxy)
            outcomes.append("loaded")
        except ProxydsError as error:
            assert str(error)
            str(error).encode()
            outcomes.append("refused")
    return outcomes


for seed in range(first, last):
    rng = random.Random(seed)
    proxy = place / f"case-{seed}" / "proxy"
    shutil.copytree(whole, proxy)
    fuzz(rng, proxy)
    before = sorted(str(p) for p in place.rglob("*"))
    signal.alarm(20)
    started = time.perf_counter()
    outcomes = attempt(proxy)
    seconds = time.perf_counter() - started
    signal.alarm(0)
    assert sorted(str(p) for p in place.rglob("*")) == before, seed
    # not getrusage, whose maximum a process inherits from the one that started it
    n_bytes = 1024 * int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])
    print(json.dumps({"seed": seed, "outcomes": outcomes, "seconds": seconds, "n_bytes": n_bytes}), flush=True)
    shutil.rmtree(proxy.parent)
"""


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_fuzzed_proxy_is_loaded_right_or_refused(
    part: int, tiny_proxy: Path, checked_proxy: Path, tmp_path: Path
) -> None:
    n = N_PROXIES // N_PROCESSES
    whole = (tiny_proxy, checked_proxy)[part]
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    (tmp_path / "cases").mkdir()
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            str(script),
            str(whole),
            str(tmp_path / "cases"),
            str(part * n),
            str((part + 1) * n),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PROXYDS_STORE": str(tmp_path / "store")},
        timeout=500,
    )
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, f"after {len(found)} proxies: {ran.stderr[-3000:]}"
    assert len(found) == n
    assert max(each["seconds"] for each in found) < MOST_SECONDS
    assert max(each["n_bytes"] for each in found) < MOST_BYTES
    n_refused = sum("refused" in each["outcomes"] for each in found)
    assert n / 2 < n_refused < n  # some changes are harmless, and are taken
    assert list((tmp_path / "cases").iterdir()) == []
