"""Tar files from bytes that are at hand, several times as fast as a general writer and byte for byte what WebDataset's gives.

Of a member's header only name, size and checksum differ from the next one's, so that it is put together from parts that
were made once.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

MODE, OWNER = 0o444, "bigdata"
"""As `webdataset.TarWriter` has them."""

_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)  # POSIX.1-1988 (ustar)


def write_tar(file: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes a tar file with the same metadata for every member, time 0.

    Args:
        file: To write.
        members: Names, of 100 ASCII characters at most, and contents, in order.
    """
    before_size, before_checksum, after, sum_of_same = _same_for_all()
    n_bytes = 0
    with file.open("wb") as tar:
        for text, content in members:
            name, size = text.encode("ascii"), b"%011o\0" % len(content)
            assert len(name) <= 100, text
            checksum = sum_of_same + sum(name) + sum(size)
            header = b"%s%s%s%s%06o\0 %s" % (
                name.ljust(100, b"\0"),
                before_size,
                size,
                before_checksum,
                checksum,
                after,
            )
            n_bytes += tar.write(b"%s%s%s" % (header, content, bytes(-len(content) % tarfile.BLOCKSIZE)))
        n_bytes += tar.write(bytes(2 * tarfile.BLOCKSIZE))
        tar.write(bytes(-n_bytes % tarfile.RECORDSIZE))


def _same_for_all() -> tuple[bytes, bytes, bytes, int]:
    """The header's parts between name, size and checksum, and behind it, and what they add to the checksum."""
    member = tarfile.TarInfo()
    member.mode, member.uname, member.gname = MODE, OWNER, OWNER
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    header[_NAME], header[_SIZE], header[_CHECKSUM] = bytes(100), bytes(12), b" " * 8  # it counts itself as blanks
    parts = header[_NAME.stop : _SIZE.start], header[_SIZE.stop : _CHECKSUM.start], header[_CHECKSUM.stop :]
    return bytes(parts[0]), bytes(parts[1]), bytes(parts[2]), sum(header)
