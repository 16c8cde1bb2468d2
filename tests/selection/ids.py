"""Sample ids for tests."""

from __future__ import annotations

import hashlib

import numpy as np

from proxyds.seeding import ParsedIds, parse_ids


def make_ids(n: int) -> ParsedIds:
    """Makes n parsed sample ids, in their order."""
    return parse_ids(np.sort([hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]))
