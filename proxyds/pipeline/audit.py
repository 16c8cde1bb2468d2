"""What comparing bytes cannot tell: whether everything in a proxy is what `docs/format.md` allows. Done before one is shared or taken in."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from proxyds.artifact.manifest import CARD, MANIFEST, RECIPE, AgreementRecord, EvidenceRecord, Manifest, list_configs
from proxyds.artifact.reader import list_tables, parse_json, read_manifest, verify_files, verify_proxy
from proxyds.artifact.summary import Tables
from proxyds.artifact.tables import WEIGHT, iter_rows, read_proxy, read_weights
from proxyds.data.chunked import materialize
from proxyds.data.images import DECODE_ERRORS, open_image
from proxyds.errors import ArtifactError, RecipeError
from proxyds.evaluation.evidence import Provenance, weigh_evidence
from proxyds.recipe.methods import BY_IMPORTANCE, METHODS
from proxyds.recipe.yaml import MAX_RECIPE_BYTES, parse_mapping
from proxyds.seeding import parse_ids
from proxyds.selection.designs import DESIGNS
from proxyds.selection.importance import score_importance
from proxyds.selection.records import PAIRS, Agreement, SampleScores
from proxyds.selection.sampling import find_inclusion, find_keep_probability
from proxyds.text import find_active_text

MAX_CARD_BYTES = 5_000_000
_SIZES = re.compile(r"n<1K|\d+[KM]<n<\d+[KM]")
"""Of data sets, as the Hub writes them."""
_ROUNDING = 1e-6
"""How far a statistic may differ between machines and versions of numpy."""
_OF_CARDS = re.compile("</?(details|summary)>")
"""The HTML that cards themselves are made with."""
_LABEL, _ABOUT = "cls", "json"
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, KeyError, OverflowError, RecursionError, MemoryError)


def audit_proxy(folder: Path) -> tuple[Manifest, Tables]:
    """Verifies a proxy's bytes, then what they hold: tables, images, tars, card, recipe.

    Importances must follow from the probes' answers, the evidence from its runs.
    Images are opened and not decoded: their size is known before a pixel is.

    Raises:
        ArtifactError: It is no proxy, or holds what it may not; names the file.
        VerificationError: A file is missing, changed, or not in the manifest.
    """
    verify_proxy(folder)
    manifest, tables = read_proxy(folder)
    _audit_claims(folder, manifest, tables)
    _audit_images(folder, tables.data)
    _audit_tars(folder, manifest, tables.data)
    _audit_pictures(folder, manifest)
    _audit_card(folder, manifest)
    return manifest, tables


def audit_tables(folder: Path) -> tuple[Manifest, Tables]:
    """As `audit_proxy`, of what can be told without the images: recipe, tables, importances, evidence; other files need not be there.

    Raises:
        ArtifactError: It is no proxy, or holds what it may not; names the file.
        VerificationError: One of these files is missing or changed.
    """
    verify_files(folder, list_tables(read_manifest(folder)))
    manifest, tables = read_proxy(folder, with_images=False)
    _audit_claims(folder, manifest, tables)
    return manifest, tables


def _audit_claims(folder: Path, manifest: Manifest, tables: Tables) -> None:
    """What the manifest says of itself follows from recipe and tables."""
    _audit_recipe(folder, manifest)
    _audit_outcomes(folder, manifest, tables)
    if manifest.evidence is not None and tables.ranking is not None:
        _audit_evidence(folder, manifest, manifest.evidence, tables.ranking)


def _refused(place: Path, why: object) -> ArtifactError:
    return ArtifactError(f"{why}; do not use this proxy", place=place)


def _audit_outcomes(folder: Path, manifest: Manifest, tables: Tables) -> None:
    """Cases, pairs and importances are what the probes' answers give, and training samples have those of their nearest."""
    evaluation, importance = tables.evaluation, tables.importance
    labels = evaluation["label"].to_numpy()
    answers = evaluation["predicted"].combine_chunks().flatten().to_numpy().reshape(len(labels), manifest.n_repeats, -1)
    found = score_importance(answers.transpose(1, 2, 0), labels, manifest.draw.constants)
    nearest = pc.index_in(importance["nearest_evaluation_id"], evaluation["sample_id"]).to_numpy()
    said = {name: evaluation[name].to_numpy() for name in ("case", "importance", *PAIRS)}
    accuracies = [probe.accuracy for probe in manifest.probes]
    checks = {
        f"{MANIFEST}: accuracy of probes": np.allclose(found.correct.mean(axis=0), accuracies, rtol=0, atol=_ROUNDING),
        "evaluation/: case": np.array_equal(said["case"], found.case),
        "evaluation/: importance": np.allclose(said["importance"], found.importance, rtol=_ROUNDING, atol=0),
        "evaluation/: pairs": all(np.array_equal(said[name], found.pair_counts[:, i]) for i, name in enumerate(PAIRS)),
        "importance/: case": np.array_equal(importance["case"].to_numpy(), found.case[nearest]),
        "importance/: importance": _are_means(
            importance["importance"].to_numpy(),
            found.importance[nearest],
            found.importance,
            manifest.mapping.neighbours,
        ),
    }
    method = METHODS.get(manifest.draw.method)
    if method is not None and method.needs <= {"cases"}:
        labels = importance["label"].to_numpy()
        ids = parse_ids(np.array(importance["sample_id"].to_pylist()))
        known = SampleScores(ids, labels, importance["importance"].to_numpy())
        n = manifest.counts.proxy
        design = DESIGNS[manifest.draw.method](known, n, 0)
        of_design = {
            WEIGHT: materialize(design.weights),
            "keep_probability": materialize(find_keep_probability(design, n)),
        }
        if manifest.draw.law == "systematic" and manifest.kept_labels is None:
            of_design["inclusion_probability"] = materialize(find_inclusion(design, n))
        told = {WEIGHT: read_weights(importance)} | {
            name: importance[name].to_numpy() for name in of_design if name != WEIGHT
        }
        for name, values in of_design.items():
            checks[f"importance/: {name}"] = np.allclose(told[name], values, rtol=_ROUNDING, atol=0)
    if manifest.agreement is not None and found.agreement is not None:
        pairs = zip(_list_agreement(manifest.agreement), _list_agreement(found.agreement), strict=True)
        checks[f"{MANIFEST}: agreement"] = all(_agree(one, other) for one, other in pairs)
    for what, is_so in checks.items():
        if not is_so:
            raise _refused(folder, f"{what} must be what the answers in evaluation/ give, it is something else")


def _are_means(
    values: NDArray[np.float64], of_nearest: NDArray[np.float64], of_all: NDArray[np.float64], n: int
) -> bool:
    """Whether values can be means over n neighbours, of which the nearest is known and the others are any."""
    ends = [(of_nearest + (n - 1) * end) / n for end in (of_all.min(), of_all.max())]
    return bool(((values >= ends[0] * (1 - _ROUNDING)) & (values <= ends[1] * (1 + _ROUNDING))).all())


def _list_agreement(agreement: AgreementRecord | Agreement) -> list[float | None]:
    return [agreement.share, agreement.by_chance, *agreement.of_cases]


def _audit_images(folder: Path, data: pa.Table) -> None:
    """Every image's bytes are those that were chosen, and an image of a size that can be meant."""
    for i, row in enumerate(iter_rows(data.select(["image", "encoded_sha256"]))):
        encoded = row["image"]["bytes"]
        if hashlib.sha256(encoded).hexdigest() != row["encoded_sha256"]:
            raise _refused(folder / "data", f"image {i} must have the bytes of its encoded_sha256, it has others")
        _audit_image(folder / "data", f"image {i}", encoded)


def _audit_image(place: Path, what: str, encoded: bytes) -> None:
    try:
        with open_image(encoded):
            pass
    except DECODE_ERRORS as error:
        raise _refused(place, f"{what} must be an image: {str(error) or type(error).__name__}") from None


def _audit_pictures(folder: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        if name.endswith(".png"):
            _audit_image(folder / name, "it", (folder / name).read_bytes())


def _audit_tars(folder: Path, manifest: Manifest, data: pa.Table) -> None:
    """The tars, where there are any, hold the samples of `data` and nothing else, as plain files in its order."""
    names = sorted(name for name in manifest.files if name.endswith(".tar"))
    if not names:
        return
    rows = iter_rows(data)
    label_names = manifest.proxy_label_names
    for name in names:
        try:
            with tarfile.open(folder / name, "r:") as archive:
                for sample in _iter_samples(archive, manifest.files[name].bytes):
                    _compare_sample(sample, next(rows, None), label_names)
        except _TAR_ERRORS as error:
            raise _refused(folder / name, str(error) or type(error).__name__) from None
    if next(rows, None) is not None:
        raise _refused(folder / names[-1], "the tars must hold every sample of data, they end before")


def _iter_samples(archive: tarfile.TarFile, n_bytes: int) -> Iterator[dict[str, tuple[str, bytes]]]:
    """The samples of a tar: for each ending of three adjacent members its key and bytes.

    Raises:
        ValueError: A member is no plain file, or its name not that of a sample.
    """
    members: dict[str, tuple[str, bytes]] = {}
    for member in archive:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise ValueError(f"the member {member.name[:100]!r} must be a plain file, it is a link, folder or device")
        if not re.fullmatch(r"[0-9a-f]{64}(-[1-9][0-9]*)?\.[a-z0-9]{1,8}", member.name):
            raise ValueError(f"the member {member.name[:100]!r} must be named by a sample id and an ending")
        if member.size > n_bytes:  # before a buffer of that size is asked for
            raise ValueError(f"the member {member.name!r} says {member.size:,} bytes in a tar of {n_bytes:,}")
        key, _, ending = member.name.partition(".")
        stream = archive.extractfile(member)
        assert stream is not None  # it is a plain file
        if ending in members:
            raise ValueError(f"the member {member.name!r} must stand once")
        members[ending] = (key, stream.read())
        if len(members) == 3:
            yield members
            members = {}
    if members:
        raise ValueError(f"the last sample must have three members, it has {len(members)}")


def _compare_sample(
    sample: dict[str, tuple[str, bytes]], row: dict[str, Any] | None, label_names: Sequence[str]
) -> None:
    """Compares a sample of a tar with its row in `data`.

    Raises:
        ValueError: They differ.
    """
    if row is None:
        raise ValueError("it must hold the samples of data, it holds more")
    key = row["sample_id"]
    if {found for found, _ in sample.values()} != {key}:
        raise ValueError(
            f"the members {key}.* must come next, as in data, it has {sorted(k for k, _ in sample.values())[0]}.*"
        )
    endings = set(sample) - {_LABEL, _ABOUT}
    if len(endings) != 1:
        raise ValueError(f"{key} must have an image, .{_LABEL} and .{_ABOUT}, it has {sorted(sample)}")
    about = parse_json(sample[_ABOUT][1])
    others = {name: value for name, value in row.items() if name not in ("label", "image")}
    others["label_name"] = label_names[row["label"]]
    if not isinstance(about, dict) or any(about.get(name) != value for name, value in others.items()):
        raise ValueError(f"{key}.{_ABOUT} must hold the other columns of its row, it holds others")
    if sample[_LABEL][1] != str(row["label"]).encode() or sample[endings.pop()][1] != row["image"]["bytes"]:
        raise ValueError(f"{key} must have the image and label that data has, it has others")


def _audit_card(folder: Path, manifest: Manifest) -> None:
    """The card is Markdown without HTML, and tells readers of data sets to read these files and no others."""
    path = folder / CARD
    if manifest.files[CARD].bytes > MAX_CARD_BYTES:
        raise _refused(path, f"must have {MAX_CARD_BYTES:,} bytes at most, has {manifest.files[CARD].bytes:,}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise _refused(path, "must be UTF-8 text") from None
    front = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    if front is None:
        raise _refused(path, "must begin with the block of YAML that names its data files")
    first = front[0].count("\n") + 1
    if (trouble := find_active_text(_SIZES.sub("", front[0]))) is not None:
        raise _refused(path, f"must begin with plain YAML, it holds {trouble}")
    for number, line in enumerate(text[front.end() :].split("\n"), start=first):
        if (trouble := find_active_text(_OF_CARDS.sub("", line))) is not None:
            raise _refused(path, f"must be plain Markdown, line {number} holds {trouble}")
    metadata = _parse(path, front[1])
    if metadata.get("configs") != list_configs(manifest) or "dataset_info" in metadata:
        raise _refused(path, "configs must name this proxy's own tables, as docs/format.md has them, it names others")
    if metadata.get("license") != manifest.licence:
        raise _refused(path, f"license must be the manifest's, {manifest.licence}, it is {metadata.get('license')!r}")


def _audit_recipe(folder: Path, manifest: Manifest) -> None:
    """The recipe is a plain mapping that leads to no place on the reader's machine, and says what the manifest says.

    Raises:
        ArtifactError: It is not.
    """
    path = folder / RECIPE
    if manifest.files[RECIPE].bytes > MAX_RECIPE_BYTES:
        raise _refused(path, f"must have {MAX_RECIPE_BYTES:,} bytes at most, has {manifest.files[RECIPE].bytes:,}")
    try:
        tree = _parse(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise _refused(path, "must be UTF-8 text") from None
    check = tree.get("check")
    reference = check.get("reference") if isinstance(check, dict) else None
    for name, held in (("source", tree.get("source")), ("check.reference", reference)):
        where = held.get("path") if isinstance(held, dict) else held if isinstance(held, str) else None
        if where is not None and (not isinstance(where, str) or not where.strip(".") or re.search(r"[/\\]|^~", where)):
            raise _refused(path, f"{name}.path must be a name without folders, it is {where!r}")
    for place, said in _list_settings(manifest).items():
        section, _, key = place.rpartition(".")
        inner = tree.get(section) if section else tree
        unwritten = BY_IMPORTANCE if place == "selection.method" else said
        found = inner.get(key, unwritten) if isinstance(inner, dict) else unwritten
        if found != said:
            raise _refused(path, f"{place} must be what {MANIFEST} says, {said!r}, it is {found!r}")


def _list_settings(manifest: Manifest) -> dict[str, Any]:
    """What recipe and manifest both say, by its place in the recipe."""
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
    }


def _audit_evidence(folder: Path, manifest: Manifest, said: EvidenceRecord, table: pa.Table) -> None:
    """The statistics, the verdict and the gate are what the runs in the table `ranking` give when they are weighed again."""
    planned = sorted({*table["architecture"].to_pylist(), *said.left_out})
    provenance = Provenance(planned, said.runs, said.reference, said.failures, said.elapsed_seconds, said.machine)
    found = weigh_evidence(
        table,
        said.check,
        provenance,
        own_ratio=said.own_ratio,
        n_full=manifest.counts.train,
        n_test=manifest.counts.test,
        seed=manifest.seed,
        stages=manifest.stages,
    )
    of_said, of_found = _list_claims(said), _list_claims(found)
    for what in sorted(set(of_said) | set(of_found)):
        if not _agree(of_said.get(what), of_found.get(what)):
            raise _refused(
                folder / MANIFEST,
                f"evidence: {what} must be what the runs in ranking/ give, {of_found.get(what)}, it is {of_said.get(what)}",
            )


def _list_claims(evidence: EvidenceRecord) -> dict[str, Any]:
    """What evidence claims, by name: the values of every statistic, and what follows from them."""
    claims: dict[str, Any] = {
        name: getattr(evidence, name)
        for name in ("verdict", "passed", "sufficient_ratio", "n_architectures", "n_draws", "n_full_seeds", "n_top")
    }
    for each in evidence.methods:
        for name, estimate in each.statistics.items():
            claims[f"{name} of {each.method} {each.ratio or ''}".strip()] = estimate.value
    for comparison in evidence.comparisons:
        claims[f"difference to {comparison.control} {comparison.ratio}"] = comparison.difference.value
    return {**claims, "own tau": evidence.own_tau.value}


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < _ROUNDING
    return bool(one == other)


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return parse_mapping(text, path.name)
    except RecipeError as error:
        raise _refused(path.parent, error) from None
