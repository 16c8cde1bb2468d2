"""A proxy is opened, and may be a stranger's: its manifest is checked before it is believed, its files against the manifest.

`docs/format.md` says what is refused; `tables.py` reads what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxyds.artifact.manifest import CARD, CONFIGS, FORMAT_VERSION, MANIFEST, RECIPE, FileFacts, Manifest
from proxyds.errors import ArtifactError, NoPermissionError, VerificationError
from proxyds.text import find_active_text, iter_texts

MAX_MANIFEST_BYTES = 8_000_000
MAX_TEXT_LENGTH, MAX_DEPTH = 10_000, 50
"""Of one name or sentence in a manifest; levels of objects and lists around it."""
FILE_KINDS = (
    re.escape(CARD),
    re.escape(RECIPE),
    *(rf"{folder}/{split}-[0-9]+-of-[0-9]+\.parquet" for split, folder in CONFIGS.values()),
    r"webdataset/train-[0-9]+\.tar",
    r"assets/[^/]+\.png",
    r"weights/[^/]+\.safetensors",
)
"""Files that a proxy may hold: those that are looked into, and none that a reader of data sets would take besides."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks a proxy's manifest.

    Raises:
        ArtifactError: There is none, it is malformed, its format version is not known, or it names files that a proxy may not
            hold or text that is more than text.
    """
    path = folder / MANIFEST
    held = _parse_manifest(path, _read_manifest_text(folder, path))
    version = held.get("format_version") if isinstance(held, dict) else None
    if not isinstance(version, str) or held.get("format") != "proxyds":
        raise ArtifactError("must be a proxy's manifest, it names no format and format_version", place=path)
    if (
        not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", version)
        or version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]
    ):
        raise ArtifactError(
            f"format_version must be {FORMAT_VERSION.partition('.')[0]}.x, got {version[:20]!r}; use another version of proxyds",
            place=path,
        )
    for parts, text in iter_texts(held):
        if len(parts) > MAX_DEPTH:
            raise ArtifactError(f"must be {MAX_DEPTH} levels deep at most; do not use this proxy", place=path)
        trouble = find_active_text(text)
        if len(text) <= MAX_TEXT_LENGTH and trouble is None:
            continue
        place = ".".join(parts)[:100]
        if len(text) > MAX_TEXT_LENGTH:
            raise ArtifactError(
                f"{place!r} must have {MAX_TEXT_LENGTH:,} letters at most, has {len(text):,}; do not use this proxy",
                place=path,
            )
        raise ArtifactError(
            f"{place!r} must be plain text, it holds {trouble}: {text[:60]!r}; do not use this proxy", place=path
        )
    try:
        manifest = Manifest.model_validate_json(json.dumps(held))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        raise ArtifactError(f"{place}: {told}" if place else told, place=path) from None
    for trouble in _find_bad_files(manifest):
        raise ArtifactError(f"files: {trouble}; do not use this proxy", place=path)
    return manifest


def _read_manifest_text(folder: Path, path: Path) -> str:
    try:
        if not folder.exists():
            raise ArtifactError(
                "no such folder; `proxyds list` shows the proxies in this one, `proxyds pull` fetches others",
                place=folder,
            )
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
            raise ArtifactError(
                f"must be a file, found a {'link' if path.is_symlink() else 'pipe or device'}", place=path
            )
        if about.st_size > MAX_MANIFEST_BYTES:
            raise ArtifactError(
                f"must have {MAX_MANIFEST_BYTES:,} bytes at most, has {about.st_size:,}; do not use this proxy",
                place=path,
            )
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ArtifactError(
            f"must be a proxy, it has no {MANIFEST}; `proxyds build RECIPE -o DIR` makes one", place=folder
        ) from None
    except PermissionError:
        raise NoPermissionError("may not be read", place=path) from None
    except UnicodeDecodeError:
        raise ArtifactError("must be UTF-8 text", place=path) from None
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", place=path) from None


def _parse_manifest(path: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"must be JSON: {error}", place=path) from None


def parse_json(text: str | bytes) -> Any:
    """Parses JSON as RFC 8259 has it, which Python's own parser takes lightly.

    Raises:
        ValueError: It is none, a key stands twice in one object, or a number is NaN or infinite.
        RecursionError: It is nested too deep.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held = dict(pairs)
        if len(held) < len(pairs):
            twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
            raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
        return held

    def finite(number: str) -> float:
        value = float(number)
        if math.isinf(value):
            refuse(number)
        return value

    return json.loads(text, object_pairs_hook=without_repeats, parse_constant=refuse, parse_float=finite)


def _find_bad_files(manifest: Manifest) -> Iterator[str]:
    """What is wrong with the names of a manifest's files."""
    names = manifest.files
    folded: dict[str, str] = {}
    for name in names:
        if not _FILE_NAME.fullmatch(name) or len(name) > 200:
            yield f"{name[:100]!r} must be a path inside the folder, of letters, digits, `.`, `_`, `-` and `/`"
        elif (other := folded.setdefault(name.lower(), name)) != name:
            yield f"{name!r} and {other!r} must differ by more than capitals"
        elif any(str(parent) in names for parent in Path(name).parents):
            yield f"{name!r} must not lie below another file"
        elif not re.fullmatch("|".join(FILE_KINDS), name):
            yield f"{name!r} must be a kind of file that a proxy holds (docs/format.md, Limits), and not the manifest"
    for needed in (CARD, RECIPE):
        if needed not in names:
            yield f"{needed} must be among them"
    for config, (_, subfolder) in CONFIGS.items():
        is_there = bool(list_shards(manifest, config))
        if is_there != (config != "ranking" or manifest.evidence is not None):
            yield f"{subfolder}/ must {'not ' if is_there else ''}hold parquet files" + (
                " unless there is evidence" if is_there else ""
            )
    for name in sorted(set(filter(_is_shard, names)) - set(_number_shards(manifest))):
        yield f"{name!r} must be numbered with its like, from 0 and without gaps"


def _is_shard(name: str) -> bool:
    return name.endswith((".parquet", ".tar"))


def _number_shards(manifest: Manifest) -> Iterator[str]:
    """The names that as many parquet and tar files as there are must have."""
    for config, (split, subfolder) in CONFIGS.items():
        n = len(list_shards(manifest, config))
        yield from (f"{subfolder}/{split}-{shard:05d}-of-{n:05d}.parquet" for shard in range(n))
    n = sum(name.endswith(".tar") for name in manifest.files)
    yield from (f"webdataset/train-{shard:06d}.tar" for shard in range(n))


def list_shards(manifest: Manifest, config: str) -> list[str]:
    """The parquet files of one table, in order."""
    split, subfolder = CONFIGS[config]
    return sorted(
        name for name in manifest.files if re.fullmatch(rf"{subfolder}/{split}-[0-9]+-of-[0-9]+\.parquet", name)
    )


def list_tables(manifest: Manifest) -> dict[str, FileFacts]:
    """The recipe and every table without images, with their facts."""
    shards = [name for config in CONFIGS if config != "default" for name in list_shards(manifest, config)]
    return {name: manifest.files[name] for name in (RECIPE, *shards)}


def verify_proxy(folder: Path, but_for: Collection[str] = ()) -> Manifest:
    """Compares every byte of a proxy with its manifest.

    Args:
        folder: The proxy.
        but_for: Files that may differ.

    Raises:
        ArtifactError: It is no proxy.
        VerificationError: A file is missing, changed, or not in the manifest; names each.
    """
    manifest = read_manifest(folder)
    problems = _find_differences(folder, manifest.files)
    surplus = [
        f"{name}: not in the manifest" for name in sorted(present_files(folder) - set(manifest.files) - {MANIFEST})
    ]
    problems = [problem for problem in problems + surplus if problem.partition(":")[0] not in but_for]
    if not problems:
        return manifest
    advice = "fetch or build it again"
    if set(problems) <= set(surplus):
        advice = "move away what is not in the manifest"
    elif all(map(_is_of_card, problems)):
        advice = "`proxyds card` renders the card again, without what was edited"
    raise _differ(folder, problems, advice)


def verify_files(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Compares some files of a proxy with what its manifest says of them.

    Raises:
        VerificationError: One is missing or changed; names each.
    """
    if problems := _find_differences(folder, files):
        raise _differ(folder, problems, "fetch or build it again")


def _differ(folder: Path, problems: Sequence[str], advice: str) -> VerificationError:
    listed = "\n".join(f"  {problem}" for problem in problems)
    n_files = "1 file differs" if len(problems) == 1 else f"{len(problems)} files differ"
    return VerificationError(f"{n_files} from {MANIFEST}:\n{listed}\n{advice}", place=folder)


def _find_differences(folder: Path, files: Mapping[str, FileFacts]) -> list[str]:
    problems = []
    for name, facts in files.items():
        try:
            difference = _find_difference(folder, name, facts)
        except PermissionError:
            raise NoPermissionError("may not be read", place=folder / name) from None
        except OSError as error:
            difference = f"cannot be read: {error.strerror}"
        if difference is not None:
            problems.append(f"{name}: {difference}")
    return problems


def _is_of_card(problem: str) -> bool:
    return problem.startswith((f"{CARD}:", "assets/"))


def _find_difference(folder: Path, name: str, facts: FileFacts) -> str | None:
    path = folder / name
    links = [each for each in (path, *path.parents[: name.count("/")]) if each.is_symlink()]
    if links:
        return "must be a file inside the folder, found a link; `proxyds pull` and `hf download --local-dir` give files"
    if not path.is_file():
        return "missing"
    if path.stat().st_size != facts.bytes:
        return f"must have {facts.bytes:,} bytes, has {path.stat().st_size:,}"
    return None if measure_file(path) == facts else "its bytes have changed (sha256)"


def measure_file(path: Path) -> FileFacts:
    """A file's size and sha256."""
    with path.open("rb") as stream:
        return FileFacts(bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def present_files(folder: Path) -> set[str]:
    """The paths of a folder's files and links, relative to it."""
    files = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in files}


def read_bytes(path: Path) -> bytes | None:
    """A file's bytes, or None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
