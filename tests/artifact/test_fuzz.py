"""200 fuzzed proxies: each is loaded right or refused with a `ProxydsError`; none hangs, writes outside its folder, or fills the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

N_PROXIES, N_PROCESSES = 200, 10
MOST_SECONDS, MOST_BYTES = 5.0, 1_000_000_000


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        (0, "tiny_proxy"),
        *(pytest.param(part, "tiny_proxy", marks=pytest.mark.slow) for part in (1, 2, 3, 4)),
        *(pytest.param(part, "checked_proxy", marks=pytest.mark.slow) for part in (5, 6, 7, 8, 9)),
    ],
)
def test_a_fuzzed_proxy_is_loaded_right_or_refused(
    part: int, whole: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    n = N_PROXIES // N_PROCESSES
    (tmp_path / "cases").mkdir()
    ran = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "tests.artifact.fuzz"),
            *map(str, (request.getfixturevalue(whole), tmp_path / "cases", part * n, (part + 1) * n)),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
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
