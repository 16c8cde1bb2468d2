"""The audit of a proxy before it is shared or taken in: whether everything in it is what `docs/format.md` allows."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from proxyds.artifact.card.croissant import check_croissant
from proxyds.artifact.evidence_records import EvidenceRecord, list_claims, list_later_claims
from proxyds.artifact.index import read_index
from proxyds.artifact.manifest import (
    CARD,
    INDEXES,
    MANIFEST,
    RECIPE,
    TABLES,
    Manifest,
    has_table,
    list_configs,
)
from proxyds.artifact.ranking_table import BY_BOTH
from proxyds.artifact.reader import (
    list_index,
    list_tables,
    list_tars,
    parse_json,
    read_manifest,
    refused,
    verify_files,
    verify_proxy,
)
from proxyds.artifact.summary import Tables
from proxyds.artifact.tables import WEIGHT, iter_rows, read_proxy, read_weights, with_no_others
from proxyds.data.chunked import materialize
from proxyds.data.images import DECODE_ERRORS, open_image
from proxyds.errors import ArtifactError, EvidenceError, RecipeError
from proxyds.evaluation.evidence import Provenance, weigh_evidence
from proxyds.plain_values import parse_mapping
from proxyds.recipe.methods import METHODS
from proxyds.recipe.sections.training import Training
from proxyds.recipe.yaml import FORMER_DEFAULTS, MAX_RECIPE_BYTES
from proxyds.seeding import parse_ids
from proxyds.selection.designs import DESIGNS
from proxyds.selection.importance import score_importance
from proxyds.selection.records import PAIRS, SampleScores
from proxyds.selection.sampling import find_inclusion, find_keep_probability
from proxyds.text import find_active_text

MAX_CARD_BYTES = 5_000_000
_SIZES = re.compile(r"n<1K|\d+[KM]<n<\d+[KM]")
"""The Hub's names for sizes of data sets, which look like HTML."""
_ROUNDING = 1e-6
"""How far a statistic may differ between machines and versions of numpy."""
_REHEARSED = 0.05
"""How far what is counted over random draws may."""
_OF_CARDS = re.compile("</?(details|summary)>")
"""The HTML that cards themselves are made with."""
_LABEL, _OTHERS = "cls", "json"
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, KeyError, OverflowError, RecursionError, MemoryError)


def audit_proxy(folder: Path) -> tuple[Manifest, Tables]:
    """Verifies a proxy's bytes, then what they hold: tables, images, tars, index, card, recipe, `croissant.json`.

    Importances must follow from the probes' answers, the evidence from its runs. Images are opened to tell their size, and not
    decoded.

    Raises:
        ArtifactError: The folder holds no proxy, or one with what it may not hold; the message names the file.
        VerificationError: A file is missing, changed, or not in the manifest.
    """
    verify_proxy(folder)
    manifest, tables = read_proxy(folder)
    manifest = _audit_claims(folder, manifest, tables)
    for name, table in (("data", tables.data), ("validation", tables.validation)):
        if table is not None:
            _audit_images(folder, name, table)
            _audit_tars(folder, manifest, name, table)
            _audit_index(folder, manifest, name, table)
    _audit_pictures(folder, manifest)
    _audit_card(folder, manifest)
    check_croissant(folder, manifest)
    return manifest, tables


def audit_tables(folder: Path) -> tuple[Manifest, Tables]:
    """Audits what can be told without the images: recipe, tables, importances, evidence; other files need not be there.

    Of a proxy that was made from an index, `data` and `validation` are what the index says; of others `validation` is not read.

    Raises:
        ArtifactError: The folder holds no proxy, or one with what it may not hold; the message names the file.
        VerificationError: One of these files is missing or changed.
    """
    manifest = read_manifest(folder)
    if manifest.index_of is not None:
        manifest, indexes = audit_index(folder)
        return manifest, with_no_others(**indexes)
    verify_files(folder, list_tables(manifest))
    manifest, tables = read_proxy(folder, images_of=())
    return _audit_claims(folder, manifest, tables), tables


def audit_index(folder: Path) -> tuple[Manifest, dict[str, pa.Table]]:
    """Audits what a proxy can be made from with its source: recipe and indexes; other files need not be there.

    Returns:
        The manifest, and the samples by table, a key of `INDEXES`; see `artifact.index.read_index`.

    Raises:
        ArtifactError: The folder holds no index, or one with what it may not hold; the message names the file.
        VerificationError: One of these files is missing or changed.
    """
    manifest = read_manifest(folder)
    verify_files(folder, list_index(manifest))
    _audit_recipe(folder, manifest)
    return manifest, {table: read_index(folder, manifest, table) for table in INDEXES if has_table(manifest, table)}


def refuse_without_tables(manifest: Manifest, place: Path | str, verb: str) -> None:
    """Refuses a proxy that was made from an index for what needs tables of all samples.

    Raises:
        ArtifactError: It was; the message names the proxy that has them.
    """
    if (parent := manifest.index_of) is not None:
        raise ArtifactError(
            f"must have the tables importance and evaluation to be {verb}, it was made from the index of {parent.name} {parent.version} "
            f"and has none; use that proxy (its manifest has the sha256 {parent.manifest_sha256[:16]}...)",
            place=place,
        )


def _audit_claims(folder: Path, manifest: Manifest, tables: Tables) -> Manifest:
    """Checks that what the manifest says of itself follows from recipe and tables; returns it with the verdict explained in our own words."""
    _audit_recipe(folder, manifest)
    if manifest.index_of is None:
        _audit_outcomes(folder, manifest, tables)
    if manifest.evidence is None or tables.ranking is None:
        return manifest
    words = _audit_evidence(folder, manifest, manifest.evidence, tables.ranking)
    return manifest.model_copy(update={"evidence": manifest.evidence.model_copy(update=words)})


def _audit_outcomes(folder: Path, manifest: Manifest, tables: Tables) -> None:
    """Checks that cases, pairs and importances follow from the probes' answers, for training samples by way of their nearest."""
    evaluation, importance = tables.evaluation, tables.importance
    labels = evaluation["label"].to_numpy()
    answers = evaluation["predicted"].combine_chunks().flatten().to_numpy().reshape(len(labels), manifest.n_repeats, -1)
    scored = score_importance(answers.transpose(1, 2, 0), labels, manifest.draw.constants)
    nearest = pc.index_in(importance["nearest_evaluation_id"], evaluation["sample_id"]).to_numpy()
    written = {name: evaluation[name].to_numpy() for name in ("case", "importance", *PAIRS)}
    accuracies = [probe.accuracy for probe in manifest.probes]
    n_neighbours = manifest.mapping.neighbours
    checks = {
        f"{MANIFEST}: accuracy of probes": np.allclose(scored.correct.mean(axis=0), accuracies, rtol=0, atol=_ROUNDING),
        "evaluation/: case": np.array_equal(written["case"], scored.case),
        "evaluation/: importance": np.allclose(written["importance"], scored.importance, rtol=_ROUNDING, atol=0),
        "evaluation/: pairs": np.array_equal(np.stack([written[name] for name in PAIRS], 1), scored.pair_counts),
        "importance/: case": np.array_equal(importance["case"].to_numpy(), scored.case[nearest]),
        "importance/: importance": _are_means(importance["importance"], scored.importance, nearest, n_neighbours),
        **_check_design(manifest, importance),
    }
    if manifest.agreement is not None and scored.agreement is not None:
        shares = [(each.share, each.by_chance, *each.of_cases) for each in (manifest.agreement, scored.agreement)]
        checks[f"{MANIFEST}: agreement"] = all(itertools.starmap(_agree, zip(*shares, strict=True)))
    if wrong := [what for what, is_so in checks.items() if not is_so]:
        raise refused(folder, f"{wrong[0]} must be what the answers in evaluation/ give, it is something else")


def _check_design(manifest: Manifest, importance: pa.Table) -> dict[str, bool]:
    """Checks, where a method needs importances alone, whether each column of weights and chances follows from these."""
    method = METHODS.get(manifest.draw.method)
    if method is None or not method.needs <= {"cases"}:
        return {}
    ids = parse_ids(np.array(importance["sample_id"].to_pylist()))
    scores = SampleScores(ids, importance["label"].to_numpy(), importance["importance"].to_numpy())
    n = manifest.counts.proxy
    design = DESIGNS[manifest.draw.method](scores, n, 0)
    columns = {
        WEIGHT: (read_weights(importance), design.weights),
        "keep_probability": (importance["keep_probability"].to_numpy(), find_keep_probability(design, n)),
    }
    if manifest.draw.law == "systematic" and manifest.kept_labels is None:
        chances = importance["inclusion_probability"].to_numpy()
        columns["inclusion_probability"] = (chances, find_inclusion(design, n))
    return {
        f"importance/: {name}": np.allclose(written, materialize(of_design), rtol=_ROUNDING, atol=0)
        for name, (written, of_design) in columns.items()
    }


def _are_means(column: pa.ChunkedArray, of_all: NDArray[np.float64], nearest: NDArray[np.int64], n: int) -> bool:
    """Tells whether a column can be means over n neighbours, of which the nearest is known and the others are any."""
    least, most = ((of_all[nearest] + (n - 1) * end) / n for end in (of_all.min(), of_all.max()))
    values = column.to_numpy()
    return bool(np.all((values >= least * (1 - _ROUNDING)) & (values <= most * (1 + _ROUNDING))))


def _audit_images(folder: Path, name: str, table: pa.Table) -> None:
    """Checks that images have the bytes that were chosen, and are images of an allowed size."""
    place = folder / TABLES[name].folder
    for i, row in enumerate(iter_rows(table.select(["image", "encoded_sha256"]))):
        encoded, what = row["image"]["bytes"], f"{name}: image {i}"
        if hashlib.sha256(encoded).hexdigest() != row["encoded_sha256"]:
            raise refused(place, f"{what} must have the bytes of its encoded_sha256, it has others")
        _audit_image(place, what, encoded)


def _audit_pictures(folder: Path, manifest: Manifest) -> None:
    """Checks that the card's pictures are images of an allowed size."""
    for name in manifest.files:
        if name.endswith(".png"):
            _audit_image(folder / name, "it", (folder / name).read_bytes())


def _audit_image(place: Path, what: str, encoded: bytes) -> None:
    try:
        with open_image(encoded):
            pass
    except DECODE_ERRORS as error:
        raise refused(place, f"{what} must be an image: {str(error) or type(error).__name__}") from None


def _audit_tars(folder: Path, manifest: Manifest, table: str, own: pa.Table) -> None:
    """Checks that a table's tars, where there are any, hold its samples and nothing else, as plain files in its order."""
    names, rows = list_tars(manifest, table), iter_rows(own)
    for name in names:
        try:
            with tarfile.open(folder / name, "r:") as archive:
                members = _iter_members(archive, manifest.files[name].bytes)
                while sample := list(itertools.islice(members, 3)):
                    _compare_sample(sample, next(rows, None), manifest.proxy_label_names)
        except _TAR_ERRORS as error:
            raise refused(folder / name, str(error) or type(error).__name__) from None
    if names and next(rows, None) is not None:
        raise refused(folder / names[-1], f"the tars must hold every sample of {table}, they end before")


def _iter_members(archive: tarfile.TarFile, n_bytes: int) -> Iterator[tuple[str, str, bytes]]:
    """Reads the members of a tar: each one's key, ending and bytes; raises ValueError where one cannot be a sample's."""
    for member in archive:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise ValueError(f"the member {member.name[:100]!r} must be a plain file, it is a link, folder or device")
        if not re.fullmatch(r"[0-9a-f]{64}(-[1-9][0-9]*)?\.[a-z0-9]{1,8}", member.name):
            raise ValueError(f"the member {member.name[:100]!r} must be named by a sample id and an ending")
        if member.size > n_bytes:  # before a buffer of that size is asked for
            raise ValueError(f"the member {member.name!r} says {member.size:,} bytes in a tar of {n_bytes:,}")
        stream = archive.extractfile(member)
        assert stream is not None  # it is a plain file
        key, _, ending = member.name.partition(".")
        yield key, ending, stream.read()


def _compare_sample(
    members: Sequence[tuple[str, str, bytes]], row: dict[str, Any] | None, label_names: Sequence[str]
) -> None:
    """Compares a sample of a tar, three adjacent members, with its row; raises ValueError where they differ."""
    if row is None:
        raise ValueError("it must hold the samples of its split, it holds more")
    id_, label, image = row.pop("sample_id"), row.pop("label"), row.pop("image")["bytes"]
    contents = {ending: content for _, ending, content in members}
    if len(members) < 3:
        raise ValueError(f"the last sample must have three members, it has {len(members)}")
    if keys := sorted({key for key, _, _ in members} - {id_}):
        raise ValueError(f"the members {id_}.* must come next, as in data/, it has {keys[0]}.*")
    if len(contents) < 3:
        raise ValueError(f"each member of {id_} must stand once")
    endings = set(contents) - {_LABEL, _OTHERS}
    if len(endings) != 1:
        raise ValueError(f"{id_} must have an image, .{_LABEL} and .{_OTHERS}, it has {sorted(contents)}")
    others = parse_json(contents[_OTHERS])
    expected = {**row, "sample_id": id_, "label_name": label_names[label]}
    if not isinstance(others, dict) or any(others.get(name) != value for name, value in expected.items()):
        raise ValueError(f"{id_}.{_OTHERS} must hold the other columns of its row, it holds others")
    if contents[_LABEL] != str(label).encode() or contents[endings.pop()] != image:
        raise ValueError(f"{id_} must have the image and label of its row, it has others")


def _read_text(folder: Path, manifest: Manifest, name: str, n_most_bytes: int) -> str:
    """Reads a file of text that is not too large."""
    if manifest.files[name].bytes > n_most_bytes:
        raise refused(folder / name, f"must have {n_most_bytes:,} bytes at most, has {manifest.files[name].bytes:,}")
    try:
        return (folder / name).read_bytes().decode()
    except UnicodeDecodeError:
        raise refused(folder / name, "must be UTF-8 text") from None


def _audit_index(folder: Path, manifest: Manifest, table: str, own: pa.Table) -> None:
    """Checks that a table's index, if there is one, says what the table says and nothing else."""
    if INDEXES[table] not in manifest.files:
        return
    index = read_index(folder, manifest, table)
    for name in index.column_names:
        if not index[name].equals(own[name].cast(index[name].type)):
            raise refused(folder / INDEXES[table], f"{name} must be what {table} says, it is something else")


def _audit_card(folder: Path, manifest: Manifest) -> None:
    """Checks that the card is Markdown without HTML, and tells readers of data sets to read these files and no others."""
    path, text = folder / CARD, _read_text(folder, manifest, CARD, MAX_CARD_BYTES)
    front = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    if front is None:
        raise refused(path, "must begin with the block of YAML that names its data files")
    first = front[0].count("\n") + 1
    if (active := find_active_text(_SIZES.sub("", front[0]))) is not None:
        raise refused(path, f"must begin with plain YAML, it holds {active}")
    for number, line in enumerate(text[front.end() :].split("\n"), start=first):
        if (active := find_active_text(_OF_CARDS.sub("", line))) is not None:
            raise refused(path, f"must be plain Markdown, line {number} holds {active}")
    metadata = _parse(path, front[1])
    if metadata.get("configs") != list_configs(manifest) or "dataset_info" in metadata:
        raise refused(path, "configs must name this proxy's own tables, as docs/format.md has them, it names others")
    if metadata.get("license") != manifest.licence:
        raise refused(path, f"license must be the manifest's, {manifest.licence}, it is {metadata.get('license')!r}")


def _audit_recipe(folder: Path, manifest: Manifest) -> None:
    """Checks that the recipe is a plain mapping that leads to no place on the reader's machine, and says what the manifest says."""
    path, text = folder / RECIPE, _read_text(folder, manifest, RECIPE, MAX_RECIPE_BYTES)
    tree = _parse(path, text.replace("\r\n", "\n"))
    check = tree.get("check")
    reference = check.get("reference") if isinstance(check, dict) else None
    for name, value in (("source", tree.get("source")), ("check.reference", reference)):
        where = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
        if where is not None and (not isinstance(where, str) or not where.strip(".") or re.search(r"[/\\]|^~", where)):
            raise refused(path, f"{name}.path must be a name without folders, it is {where!r}")
    output, counts = tree.get("output"), manifest.counts
    wanted = output.get("validation") if isinstance(output, dict) else None
    most = 0 if wanted == "none" else wanted if type(wanted) is int else counts.evaluation
    least = most if wanted == "all" and manifest.kept_labels is None and manifest.protocol != "paper" else 0
    if not least <= counts.validation <= most:
        raise refused(path, f"output.validation must give what {MANIFEST} says, {counts.validation}, it is {wanted!r}")
    for place, said in _list_settings(manifest).items():
        section, _, key = place.rpartition(".")
        inner = tree.get(section) if section else tree
        default = _ABSENT.get((section, key), said)
        value = inner.get(key, default) if isinstance(inner, dict) else default
        if value != said:
            raise refused(path, f"{place} must be what {MANIFEST} says, {said!r}, it is {value!r}")


def _list_settings(manifest: Manifest) -> dict[str, Any]:
    """Lists what recipe and manifest both say, by its place in the recipe."""
    training = manifest.training
    return {
        "name": manifest.name,
        "version": manifest.version,
        "licence": manifest.licence,
        "seed": manifest.seed,
        "importance.protocol": manifest.protocol,
        "importance.constants": list(manifest.draw.constants),
        "similarity.neighbours": manifest.mapping.neighbours,
        "selection.method": manifest.draw.method,
        "selection.ratio": manifest.draw.ratio,
        "selection.draw": manifest.draw.law,
        **({} if training is None else {f"training.{name}": value for name, value in training.list_settings().items()}),
    }


_ABSENT = {
    **{("training", name): Training.model_fields[name].default for name in Training.later},
    **FORMER_DEFAULTS,
}
"""What a recipe means that lacks a setting, by section and key."""


def _audit_evidence(folder: Path, manifest: Manifest, said: EvidenceRecord, table: pa.Table) -> dict[str, str | None]:
    """Checks that the statistics, the verdict, the gate and the costs are what the runs in the table `ranking` give when they are weighed again.

    Returns:
        Why the verdict is what it is, and what to beware of, in the words of this version; nothing for formats whose verdicts came about otherwise.
    """
    planned = sorted({*table["architecture"].to_pylist(), *said.left_out})
    provenance = Provenance(planned, said.runs, said.reference, said.failures, said.elapsed_seconds, said.machine)
    try:
        weighed = weigh_evidence(table, said.check, provenance, manifest)
    except EvidenceError as error:
        raise refused(
            folder / MANIFEST, f"evidence: must follow from the runs in ranking/, these give none: {error}"
        ) from None
    if said.on_evaluation is None:  # it may be left out
        weighed = weighed.model_copy(update={"on_evaluation": None})
    claims, expected = list_claims(said), list_claims(weighed)
    is_explained = tuple(int(part) for part in manifest.format_version.split(".")) >= (1, 7)
    if is_explained:
        claims, expected = claims | list_later_claims(said), expected | list_later_claims(weighed)
    else:  # its intervals were others, and what parameters add was not known
        claims = {what: value for what, value in claims.items() if not what.startswith(_OTHERWISE)}
        expected = {
            what: value
            for what, value in expected.items()
            if not what.startswith(_OTHERWISE) and (what in claims or _was_known(what))
        }
    for what in sorted(claims.keys() | expected.keys()):
        claim, value = claims.get(what), expected.get(what)
        if not _agree(claim, value):
            why = f"evidence: {what} must be what the runs in ranking/ give, {value}, it is {claim}; if you checked this proxy yourself, check it again"
            raise refused(folder / MANIFEST, why)
    rehearsed = said.rehearsal is None or weighed.rehearsal is not None
    claims, expected = (dict(each.rehearsal or ()) if rehearsed else {} for each in (said, weighed))
    far = {
        name
        for name, claim in claims.items()
        if abs(claim - expected[name]) > (0 if name.startswith("n_") else _REHEARSED * max(1.0, claim))
    }
    if far or not rehearsed:
        why = f"evidence: rehearsal must be what the runs in ranking/ give, {weighed.rehearsal!r}, it is {said.rehearsal!r}"
        raise refused(folder / MANIFEST, why)
    return {"explanation": weighed.explanation, "caution": weighed.caution} if is_explained else {}


_OTHERWISE = ("verdict", "passed", "sufficient_ratio", "regret_of_3", "regret_of_5")
"""Claims that format 1.6 and earlier ones computed in another way, or from other intervals."""


def _was_known(claim: str) -> bool:
    """Tells whether format 1.5 had such a claim."""
    return not claim.endswith(f" by {BY_BOTH}")


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    return bool(one == other)


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return parse_mapping(text, path.name)
    except RecipeError as error:
        raise refused(path.parent, error) from None
