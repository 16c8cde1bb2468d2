"""Seeds and keys are the same on every machine and for ever."""

from __future__ import annotations

import hashlib

import numpy as np

from proxyds.seeding import derive_seed, hash_ids, parse_ids, uniform_keys


def test_derived_seeds_are_pinned_distinct_and_in_range() -> None:
    expected = int.from_bytes(hashlib.sha256(b"7\0probe\0depth=8").digest()[:8], "big") >> 1
    assert derive_seed(7, "probe", "depth=8") == expected
    assert len({derive_seed(seed, name, i) for seed in range(5) for name in "ab" for i in range(5)}) == 50
    assert derive_seed(1, "a", "b") != derive_seed(1, "ab")
    assert 0 <= derive_seed(2**53, "x") < 2**63


def splitmix64(state: int) -> int:
    """Vigna's reference, in whole numbers."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_keys_mix_the_first_64_bits_of_the_id_its_repeat_and_the_seed() -> None:
    base = hashlib.sha256(b"x").hexdigest()
    keys = hash_ids(parse_ids(np.array([base, f"{base}-2", f"{base}-13"])), 99)
    inner = splitmix64(int(base[:16], 16) ^ 99)
    assert keys.tolist() == [splitmix64(inner), splitmix64((inner + 2) % 2**64), splitmix64((inner + 13) % 2**64)]


def test_keys_of_ids_alone_and_beside_longer_ids_agree() -> None:
    base = hashlib.sha256(b"y").hexdigest()
    assert hash_ids(parse_ids(np.array([base])), 5)[0] == hash_ids(parse_ids(np.array([base, f"{base}-1000"])), 5)[0]


def test_ids_are_read_as_python_reads_them() -> None:
    texts = [hashlib.sha256(str(i).encode()).hexdigest() + ("" if i % 3 else f"-{i + 2}") for i in range(70_000)]
    parsed = parse_ids(np.array(texts))  # more than two tiles
    assert parsed["bits"].tolist() == [int(text[:16], 16) for text in texts]
    assert parsed["repeat"].tolist() == [int(text[65:] or 0) for text in texts]
    assert hash_ids(parsed, 7)[-1] == hash_ids(parsed[-1:], 7)[0]  # wherever a tile begins


def test_uniform_keys_are_uniform_and_open() -> None:
    ids = parse_ids(np.array([hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]))
    keys = uniform_keys(ids, 3)
    assert keys.min() > 0
    assert keys.max() < 1
    counts = np.histogram(keys, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-squared with 19 degrees of freedom: 45 has p = 0.0007
    assert len(uniform_keys(parse_ids(np.array([], "<U64")), 3)) == 0
