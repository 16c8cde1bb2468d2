"""Tars are what WebDataset's own writer gives, byte for byte."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from proxyds.artifact.tars import write_tar


@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_a_tar_is_webdatasets_byte_for_byte(n: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(n)
    keys = [f"{'0123456789abcdef' * 4}-{number}" for number in range(n)]
    samples = [{"cls": b"%d" % (number % 10), "png": rng.bytes(int(rng.integers(0, 3000)))} for number in range(n)]
    with webdataset.TarWriter(str(tmp_path / "theirs.tar"), mtime=0) as writer:
        for key, sample in zip(keys, samples, strict=True):
            writer.write({"__key__": key, **sample})
    members = [(f"{key}.{name}", held) for key, of in zip(keys, samples, strict=True) for name, held in of.items()]
    write_tar(tmp_path / "ours.tar", iter(members))
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_members_of_every_length_around_a_block_are_read_back(tmp_path: Path) -> None:
    members = [
        (f"{'n' * (95 + n % 6)}"[: 100 - n % 3], bytes([n]) * size)
        for n, size in enumerate((0, 1, 511, 512, 513, 70_000))
    ]
    write_tar(tmp_path / "x.tar", members)
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert [(member.name, tar.extractfile(member).read()) for member in tar] == members
        assert {(member.mtime, member.mode) for member in tar} == {(0, 0o444)}
