"""Opening a proxy, which may be a stranger's: its manifest is checked before it is believed, its files against the manifest.

`docs/format.md` says what is refused; `tables.py` reads what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxyds.arguments import as_path
from proxyds.artifact.manifest import (
    CARD,
    CROISSANT,
    EVIDENCE_FILES,
    FORMAT_VERSION,
    FORMER_VERSION,
    INDEXES,
    MANIFEST,
    RECIPE,
    TABLES,
    TRAINED_BY,
    FileFacts,
    Manifest,
    has_table,
)
from proxyds.errors import ArtifactError, NoPermissionError, VerificationError, translate_os_errors
from proxyds.layout import Readable, wrap
from proxyds.recipe.models import Recipe
from proxyds.recipe.sections.training import FORMER_SETTINGS
from proxyds.recipe.yaml import read_recipe
from proxyds.runtime.storage.atomic import sweep_half_files
from proxyds.text import find_active_text, iter_texts

MAX_MANIFEST_BYTES = 8_000_000
MAX_TEXT_LENGTH, MAX_DEPTH = 10_000, 50
"""The most letters of one text in a manifest, and the most levels of objects and lists around it."""
FILE_KINDS = (
    re.escape(CARD),
    re.escape(RECIPE),
    re.escape(CROISSANT),
    *map(re.escape, INDEXES.values()),
    *(rf"{folder}/{split}-[0-9]+-of-[0-9]+\.parquet" for _, split, folder in TABLES.values()),
    *(rf"webdataset/{TABLES[table].split}-[0-9]+\.tar" for table in INDEXES),
    r"assets/[^/]+\.png",
    r"weights/[^/]+\.safetensors",
)
"""Files that a proxy may hold: those that are looked into, and none that a reader of data sets would take besides."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Built(Readable):
    """A proxy on disk, as it was built, checked or drawn again; `proxyds.open` takes it as its folder.

    Attributes:
        folder: Where the proxy is.
        manifest: Its manifest.
        was_there: Whether the very proxy stood there already and nothing was written.
    """

    folder: Path
    manifest: Manifest
    was_there: bool = False

    def describe(self, width: int | None) -> str:
        """Writes what the proxy is, the verdict of its check, and how to see the rest; see `Readable.describe`."""
        manifest, counts, evidence = self.manifest, self.manifest.counts, self.manifest.evidence
        found = "not checked: proxyds.check measures how well it ranks"
        if evidence is not None:
            found = f"verdict: {evidence.verdict}. {evidence.explanation}"
        elif manifest.index_of is not None:
            found = f"not checked itself: see the evidence of {manifest.index_of.name} {manifest.index_of.version}, of whose index it was made"
        lines = [
            f"{manifest.name} {manifest.version}: {counts.proxy:,} of {counts.train:,} training samples of {manifest.source.name}, "
            f"{counts.validation:,} more to rank on{', was there already' if self.was_there else ''}",
            found,
            "its samples, evidence and pictures:",
            f"  proxyds.open({str(self.folder)!r})",
        ]
        return wrap("\n".join(lines), width)

    def __repr__(self) -> str:
        found = "not checked" if self.manifest.evidence is None else self.manifest.evidence.verdict
        return f"<Built {self.manifest.name} {self.manifest.version}: {found}; {self.folder}>"

    def __fspath__(self) -> str:
        """The folder: what was built serves where a proxy is asked for."""
        return os.fspath(self.folder)


def read_manifest(folder: str | Path) -> Manifest:
    """Reads and checks a proxy's manifest.

    Raises:
        ArtifactError: There is none, it is malformed, of an unknown format version, names files that a proxy may not hold,
            or holds text that a reader's program could run.
    """
    folder = as_path(folder, "folder")
    path = folder / MANIFEST
    try:
        tree = parse_json(_read_manifest_text(folder, path))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"must be JSON: {error}", place=path) from None
    majors = [version.partition(".")[0] for version in (FORMER_VERSION, FORMAT_VERSION)]
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if not isinstance(version, str) or tree.get("format") != "proxyds":
        raise ArtifactError("must be a proxy's manifest, it names no format and format_version", place=path)
    if not re.fullmatch(rf"({'|'.join(majors)})\.[0-9]{{1,9}}", version):
        known = " or ".join(f"{major}.x" for major in majors)
        raise ArtifactError(
            f"format_version must be {known}, got {version[:20]!r}; use another version of proxyds", place=path
        )
    for parts, text in iter_texts(tree):
        name = ".".join(parts)[:100]
        if len(parts) > MAX_DEPTH:
            raise refused(path, f"must be {MAX_DEPTH} levels deep at most")
        if len(text) > MAX_TEXT_LENGTH:
            raise refused(path, f"{name!r} must have {MAX_TEXT_LENGTH:,} letters at most, has {len(text):,}")
        if (active := find_active_text(text)) is not None:
            raise refused(path, f"{name!r} must be plain text, it holds {active}: {text[:60]!r}")
    try:
        manifest = Manifest.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if part not in TRAINED_BY)
        problem = first["msg"].removeprefix("Value error, ")
        raise ArtifactError(f"{name}: {problem}" if name else problem, place=path) from None
    for problem in _find_bad_files(manifest):
        raise refused(path, f"files: {problem}")
    return manifest


def read_own_recipe(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads the recipe of a proxy, with overrides of the form `a.b=c`; where it names no crop padding, it is an older one.

    Raises:
        RecipeError: It, or an override, is malformed; see `read_recipe`.
    """
    return read_recipe(folder / RECIPE, overrides).with_crop_padding(FORMER_SETTINGS["crop_padding"])


def refused(place: Path, why: object) -> ArtifactError:
    """Makes the error for a proxy that holds what it may not."""
    return ArtifactError(f"{why}; do not use this proxy", place=place)


def _read_manifest_text(folder: Path, path: Path) -> str:
    try:
        if not folder.exists():
            raise ArtifactError(
                "no such folder; `proxyds list` shows the proxies in this one, `proxyds pull` fetches others",
                place=folder,
            )
        if folder.is_file():
            raise ArtifactError(
                f"must be a proxy's folder, it is a file; where it is a recipe, `proxyds build {shlex.quote(str(folder))} -o DIR` makes a proxy of it",
                place=folder,
            )
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
            kind = "link" if path.is_symlink() else "pipe or device"
            raise ArtifactError(f"must be a file, found a {kind}", place=path)
        if facts.st_size > MAX_MANIFEST_BYTES:
            raise refused(path, f"must have {MAX_MANIFEST_BYTES:,} bytes at most, has {facts.st_size:,}")
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


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a dictionary of a JSON object's pairs, as `json.loads` asks its `object_pairs_hook` for.

    Raises:
        ValueError: A key stands twice.
    """
    for name, n in Counter(name for name, _ in pairs).items():
        if n > 1:
            raise ValueError(f"the key {name[:60]!r} stands twice in one object")
    return dict(pairs)


def parse_json(text: str | bytes) -> Any:
    """Parses JSON as RFC 8259 has it, which Python's own parser takes lightly.

    Raises:
        ValueError: It is none, a key stands twice in one object, or a number is NaN or infinite.
        RecursionError: It is nested too deep.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    def finite(number: str) -> float:
        if math.isinf(value := float(number)):
            refuse(number)
        return value

    return json.loads(text, object_pairs_hook=without_repeats, parse_constant=refuse, parse_float=finite)


def _find_bad_files(manifest: Manifest) -> Iterator[str]:
    """Says what is wrong with the names of a manifest's files."""
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
    for needed in (CARD, RECIPE, *_list_needed_indexes(manifest)):
        if needed not in names:
            yield f"{needed} must be among them"
    if manifest.major < 2 and CROISSANT in names:
        yield f"{CROISSANT} must not be among them before format 2.0"
    for table, index in INDEXES.items():
        surplus = () if has_table(manifest, table) else {index, *list_tars(manifest, table)} & set(names)
        for name in sorted(surplus):
            yield f"{name} must not be among them where counts.{table} is 0"
    for table, (_, split, subfolder) in TABLES.items():
        shards, tars = list_shards(manifest, table), list_tars(manifest, table)
        if bool(shards) != has_table(manifest, table):
            must = f"must not hold parquet files {_WHERE_THERE[table]}" if shards else "must hold parquet files"
            yield f"{subfolder}/{split}-* {must}"
        numbered = {f"{subfolder}/{split}-{i:05d}-of-{len(shards):05d}.parquet" for i in range(len(shards))}
        numbered |= {f"webdataset/{split}-{i:06d}.tar" for i in range(len(tars))}
        for name in sorted({*shards, *tars} - numbered):
            yield f"{name!r} must be numbered with its like, from 0 and without gaps"


_OF_INDEXED = "where the proxy was made from an index"
_WHERE_THERE = {
    "ranking": "unless there is evidence",
    "validation": "where counts.validation is 0",
    **dict.fromkeys(("importance", "evaluation"), _OF_INDEXED),
}
"""Where a table must not be."""


def _list_needed_indexes(manifest: Manifest) -> list[str]:
    """Lists the indexes that a proxy must have: all since 2.0, and before where there is nothing else to tell its samples by."""
    if manifest.major < 2 and manifest.index_of is None:
        return []
    return [index for table, index in INDEXES.items() if has_table(manifest, table)]


def list_shards(manifest: Manifest, table: str) -> list[str]:
    """Lists the parquet files of one table, a key of `TABLES`, in order."""
    _, split, subfolder = TABLES[table]
    return sorted(
        name for name in manifest.files if re.fullmatch(rf"{subfolder}/{split}-[0-9]+-of-[0-9]+\.parquet", name)
    )


def list_tars(manifest: Manifest, table: str) -> list[str]:
    """Lists the tars of one table, a key of `INDEXES` (others have none), in order."""
    pattern = rf"webdataset/{TABLES[table].split}-[0-9]+\.tar"
    return sorted(name for name in manifest.files if table in INDEXES and re.fullmatch(pattern, name))


def list_tables(manifest: Manifest) -> dict[str, FileFacts]:
    """Lists the recipe and every table without images, with their facts; of a proxy that was made from an index, that in their place."""
    if manifest.index_of is not None:
        return list_index(manifest)
    shards = [name for table in TABLES if table not in INDEXES for name in list_shards(manifest, table)]
    return {name: manifest.files[name] for name in (RECIPE, *shards)}


def list_index(manifest: Manifest) -> dict[str, FileFacts]:
    """Lists what a proxy's samples can be found by in their source, with their facts: recipe, and indexes where there are some."""
    return {name: manifest.files[name] for name in (RECIPE, *INDEXES.values()) if name in manifest.files}


def verify_proxy(folder: str | Path, but_for: Collection[str] = ()) -> Manifest:
    """Compares every byte of a proxy with its manifest.

    Args:
        folder: The proxy.
        but_for: Files that may differ.

    Raises:
        ArtifactError: It is no proxy.
        VerificationError: A file is missing, changed, or not in the manifest; names each.
    """
    folder = as_path(folder, "folder")
    manifest = read_manifest(folder)
    surplus = sorted(present_files(folder) - set(manifest.files) - {MANIFEST})
    problems = _find_differences(folder, manifest.files) | dict.fromkeys(surplus, "not in the manifest")
    problems = {name: problem for name, problem in problems.items() if name not in but_for}
    advice = "fetch or build it again"
    if set(problems) <= set(surplus):
        advice = "move away what is not in the manifest"
    elif all(name in (CARD, CROISSANT) or name.startswith("assets/") for name in problems):
        advice = f"`proxyds card {shlex.quote(str(folder))}` renders the card again, without what was edited"
    _refuse_differences(folder, problems, advice)
    return manifest


def verify_for_check(folder: Path) -> Manifest:
    """Verifies all of a proxy but what a check writes, which a stopped check may have left half-way; sweeps its remains."""
    manifest = read_manifest(folder)
    with translate_os_errors(folder, "copy the proxy to another place"):
        sweep_half_files(folder)
    of_card = {name for name in manifest.files if name.startswith("assets/")}
    return verify_proxy(folder, but_for={CARD, CROISSANT, RECIPE, *EVIDENCE_FILES, *of_card})


def verify_files(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Compares some files of a proxy with what its manifest says of them.

    Raises:
        VerificationError: One is missing or changed; names each.
    """
    _refuse_differences(folder, _find_differences(folder, files), "fetch or build it again")


def _refuse_differences(folder: Path, problems: Mapping[str, str], advice: str) -> None:
    if problems:
        listed = "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
        n_files = "1 file differs" if len(problems) == 1 else f"{len(problems)} files differ"
        raise VerificationError(f"{n_files} from {MANIFEST}:\n{listed}\n{advice}", place=folder)


def _find_differences(folder: Path, files: Mapping[str, FileFacts]) -> dict[str, str]:
    """Finds the files that differ from what the manifest says, with what is wrong with each."""
    problems = {name: _find_difference(folder, name, facts) for name, facts in files.items()}
    return {name: problem for name, problem in problems.items() if problem is not None}


def _find_difference(folder: Path, name: str, facts: FileFacts) -> str | None:
    path = folder / name
    try:
        if any(each.is_symlink() for each in (path, *path.parents[: name.count("/")])):
            return "must be a file inside the folder, found a link; `proxyds pull` and `hf download --local-dir` give files"
        if not path.is_file():
            return "missing"
        if path.stat().st_size != facts.bytes:
            return f"must have {facts.bytes:,} bytes, has {path.stat().st_size:,}"
        return None if measure_file(path) == facts else "its bytes have changed (sha256)"
    except PermissionError:
        raise NoPermissionError("may not be read", place=path) from None
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def measure_file(path: Path) -> FileFacts:
    """Measures a file's size and sha256."""
    with path.open("rb") as stream:
        return FileFacts(bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def present_files(folder: Path) -> set[str]:
    """Lists the paths of a folder's files and links, relative to it."""
    files = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in files}
