"""The proxy as a folder of ordinary files: written, opened, verified. `FORMAT.md` is its specification."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import ValidationError

from proxyds import runs
from proxyds.errors import ArtifactError, NoPermissionError, OutputExistsError, SourceError, VerificationError
from proxyds.folders import replace_file
from proxyds.manifest import CARD, CONFIGS, FORMAT_VERSION, MANIFEST, EvidenceRecord, FileFacts, Manifest
from proxyds.records import Draw, Mapping, Outcomes, Probe, Samples, Source, Tables

if TYPE_CHECKING:
    import datasets


_OF_ALL = ("label", "sample_id", "source_index", "encoded_sha256", "case", "importance")
_NEEDED_COLUMNS = {
    "default": (*_OF_ALL, "image", "keep_probability", "inclusion_probability"),
    "importance": (*_OF_ALL, "keep_probability", "inclusion_probability", "nearest_evaluation_id", "selected"),
    "evaluation": (*_OF_ALL, "predicted", "correct"),
}


def make_tables(
    source: Source, probes: Sequence[Probe], outcomes: Outcomes, mapping: Mapping, draw: Draw
) -> dict[str, datasets.Dataset]:
    """Puts a build's records into the data sets `default`, `importance` and `evaluation`."""
    import datasets

    label = datasets.ClassLabel(names=list(source.label_names))
    identity = {
        "label": label,
        "sample_id": datasets.Value("string"),
        "source_index": datasets.Value("int64"),
        "encoded_sha256": datasets.Value("string"),
    }
    choice = {
        "case": datasets.Value("int8"),
        "importance": datasets.Value("float64"),
        "keep_probability": datasets.Value("float64"),
        "inclusion_probability": datasets.Value("float64"),
    }
    chosen = source.train.take(draw.selected)
    images = [{"bytes": encoded, "path": None} for encoded in _read_unchanged(source, chosen)]
    data = {"image": images, **_identity_columns(chosen), **_draw_columns(draw, draw.selected)}
    own_labels = {"label": label}
    if draw.kept_labels is not None:
        own_names = [source.label_names[kept] for kept in draw.kept_labels]
        own_labels = {"label": datasets.ClassLabel(names=own_names), "source_label": label}
        data |= {"label": np.searchsorted(draw.kept_labels, chosen.labels), "source_label": chosen.labels}
    importance = {
        **_identity_columns(source.train),
        "nearest_evaluation_id": source.evaluation.ids[mapping.nearest[:, 0]],
        "nearest_distance": mapping.distance,
        **_draw_columns(draw, np.ones(len(source.train), np.bool_)),
        "selected": draw.selected,
    }
    evaluation = {
        **_identity_columns(source.evaluation),
        "predicted": np.stack([probe.predictions for probe in probes], axis=1).tolist(),
        "correct": outcomes.correct.tolist(),
        "pairs_all_right": outcomes.pair_counts[:, 0],
        "pairs_all_wrong": outcomes.pair_counts[:, 1],
        "pairs_with_order": outcomes.pair_counts[:, 2],
        "pairs_against_order": outcomes.pair_counts[:, 3],
        "case": outcomes.case,
        "importance": outcomes.importance,
    }
    pairs = {name: datasets.Value("int64") for name in evaluation if name.startswith("pairs_")}
    outcome = {"predicted": datasets.List(label), "correct": datasets.List(datasets.Value("bool"))}
    nearest = {"nearest_evaluation_id": datasets.Value("string"), "nearest_distance": datasets.Value("float64")}
    features = {
        "default": {"image": datasets.Image(), **identity, **own_labels, **choice},
        "importance": {**identity, **nearest, **choice, "selected": datasets.Value("bool")},
        "evaluation": {
            **identity,
            **outcome,
            **pairs,
            "case": datasets.Value("int8"),
            "importance": datasets.Value("float64"),
        },
    }
    columns = {"default": data, "importance": importance, "evaluation": evaluation}
    return {name: _make_dataset(columns[name], datasets.Features(features[name])) for name in columns}


def write_tables(folder: Path, tables: dict[str, datasets.Dataset], samples_per_shard: int) -> None:
    """Writes every table as parquet shards `FOLDER/SPLIT-00000-of-00001.parquet`."""
    for config, table in tables.items():
        split, subfolder = CONFIGS[config]
        (folder / subfolder).mkdir()
        n_shards = -(-len(table) // samples_per_shard)
        for shard in range(n_shards):
            rows = range(shard * samples_per_shard, min((shard + 1) * samples_per_shard, len(table)))
            table.select(rows).to_parquet(folder / subfolder / f"{split}-{shard:05d}-of-{n_shards:05d}.parquet")


def encode_runs(table: pa.Table) -> bytes:
    """The runs behind the evidence as a parquet file."""
    import datasets

    stream = io.BytesIO()
    datasets.Dataset(table).to_parquet(stream)
    return stream.getvalue()


def write_tars(folder: Path, data: pa.Table, label_names: Sequence[str], samples_per_shard: int) -> None:
    """Writes the proxy as WebDataset tars: for each sample its image, `.cls` (label number) and `.json` (the rest).

    All images carry the extension of the commonest format: readers infer the members of a shard from its first samples.
    """
    import webdataset

    formats = Counter(_image_extension(row["image"]["bytes"]) for row in _iter_rows(data))
    extension = formats.most_common(1)[0][0]
    (folder / "webdataset").mkdir()
    pattern = str(folder / "webdataset" / "train-%06d.tar")
    with webdataset.ShardWriter(
        pattern, maxcount=samples_per_shard, maxsize=float("inf"), verbose=0, mtime=0
    ) as writer:
        for row in _iter_rows(data):
            image, label = row.pop("image")["bytes"], row.pop("label")
            about = json.dumps({"label_name": label_names[label], **row}, sort_keys=True)
            writer.write({"__key__": row["sample_id"], extension: image, "cls": str(label), "json": about.encode()})


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Writes `manifest.json` over every file in the folder; the last file of a proxy to be written."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: _file_facts(folder / name) for name in names if name != MANIFEST}
    whole = manifest.model_copy(update={"files": files})
    replace_file(folder / MANIFEST, f"{whole.model_dump_json(indent=1)}\n".encode())
    return whole


def rewrite_manifest(
    folder: Path, manifest: Manifest, *, written: Collection[str], gone: Collection[str] = ()
) -> Manifest:
    """Writes `manifest.json` again after some files of a proxy were written anew; what it says of the others stays.

    Args:
        folder: The proxy.
        manifest: With the facts of its files as they were.
        written: Files that were written.
        gone: Files that were removed.
    """
    kept = {name: facts for name, facts in manifest.files.items() if name not in gone}
    files = {**kept, **{name: _file_facts(folder / name) for name in written}}
    whole = manifest.model_copy(update={"files": dict(sorted(files.items()))})
    replace_file(folder / MANIFEST, f"{whole.model_dump_json(indent=1)}\n".encode())
    return whole


def check_output(out: Path) -> Manifest | None:
    """Makes sure that a proxy may be written at `out`, before any work is done.

    Returns:
        The manifest of the proxy that is there, or None where nothing is.

    Raises:
        OutputExistsError: There is something that is not a proxy.
        NoPermissionError: The place may not be written.
    """
    if out.is_dir() and any(out.iterdir()):
        try:
            return read_manifest(out)
        except ArtifactError:
            raise OutputExistsError(
                f"{out}: must be a new folder or a proxy, it holds something else; it was not touched, nor would --force: "
                "choose another -o"
            ) from None
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        what = "a file" if out.exists() else "a link to nowhere"
        raise OutputExistsError(f"{out}: must be a folder, found {what}; it was not touched: choose another -o")
    return None


def another_proxy(out: Path, there: Manifest) -> OutputExistsError:
    """The error for a folder that holds another proxy than the one to be built."""
    return OutputExistsError(
        f"{out}: must be a new folder, found the proxy {there.name} {there.version} of another recipe or source "
        f"({there.recipe_sha256[:16]}); it was not touched: choose another -o, or replace it with --force"
    )


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks a proxy's manifest.

    Raises:
        ArtifactError: There is none, it is malformed, or its format version is not known.
    """
    path = folder / MANIFEST
    try:
        if not folder.exists():
            raise ArtifactError(f"{folder}: no such folder; `proxyds list` shows the proxies in this one")
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ArtifactError(
            f"{folder}: must be a proxy, it has no {MANIFEST}; `proxyds build RECIPE -o DIR` makes one"
        ) from None
    except PermissionError:
        raise NoPermissionError(f"{path}: may not be read") from None
    except UnicodeDecodeError:
        raise ArtifactError(f"{path}: must be UTF-8 text") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: must be JSON: {error}") from None
    version = held.get("format_version") if isinstance(held, dict) else None
    if not isinstance(version, str) or held.get("format") != "proxyds":
        raise ArtifactError(f"{path}: must be a proxy's manifest, it names no format and format_version")
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise ArtifactError(
            f"{path}: format_version must be {FORMAT_VERSION.partition('.')[0]}.x, got {version}; use another version of proxyds"
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path}: {place}: {first['msg']}") from None


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
    problems = []
    for name, facts in manifest.files.items():
        try:
            difference = _find_difference(folder, name, facts)
        except PermissionError:
            raise NoPermissionError(f"{folder / name}: may not be read") from None
        except OSError as error:
            difference = f"cannot be read: {error.strerror}"
        if difference is not None:
            problems.append(f"{name}: {difference}")
    problems += [
        f"{name}: not in the manifest" for name in sorted(present_files(folder) - set(manifest.files) - {MANIFEST})
    ]
    problems = [problem for problem in problems if problem.partition(":")[0] not in but_for]
    advice = "`proxyds card` renders the card again" if all(map(_is_of_card, problems)) else "fetch or build it again"
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise VerificationError(
            f"{folder}: {len(problems)} of {len(manifest.files)} files differ from {MANIFEST}:\n{listed}\n{advice}"
        )
    return manifest


def _is_of_card(problem: str) -> bool:
    return problem.startswith((f"{CARD}:", "assets/"))


def _find_difference(folder: Path, name: str, facts: FileFacts) -> str | None:
    path = folder / name
    if not _is_inside(name) or path.is_symlink():
        return "must be a file inside the folder"
    if not path.is_file():
        return "missing"
    if path.stat().st_size != facts.bytes:
        return f"must have {facts.bytes:,} bytes, has {path.stat().st_size:,}"
    return None if _file_facts(path) == facts else "its bytes have changed (sha256)"


def read_proxy(folder: Path, *, with_ranking: bool = True) -> tuple[Manifest, Tables]:
    """Reads a proxy's manifest and tables, which must say one thing.

    Args:
        folder: The proxy.
        with_ranking: Whether to read the runs behind its evidence, if it was checked.

    Raises:
        ArtifactError: It is no proxy, or they do not.
    """
    manifest = read_manifest(folder)
    tables = read_tables(folder, checked=with_ranking and manifest.evidence is not None)
    held = (tables.importance.num_rows, tables.evaluation.num_rows, tables.data.num_rows)
    said = (manifest.counts.train, manifest.counts.evaluation, manifest.counts.proxy)
    n_labels, n_own = len(manifest.label_names), len(manifest.proxy_label_names)
    labels = [(tables.importance, n_labels), (tables.evaluation, n_labels), (tables.data, n_own)]
    if held != said or not all(_are_numbers(table["label"], n) for table, n in labels):
        raise ArtifactError(
            f"{folder}: the tables must be those that {MANIFEST} describes, rows {held} against {said} or labels beyond its "
            f"{len(manifest.label_names)}; fetch or build it again"
        )
    selected = tables.importance.filter(tables.importance["selected"])
    own = tables.data["label"].to_numpy()
    source_labels = own if manifest.kept_labels is None else np.array(manifest.kept_labels)[own]
    if (
        selected["sample_id"].to_pylist() != tables.data["sample_id"].to_pylist()
        or (selected["label"].to_numpy() != source_labels).any()
    ):
        raise ArtifactError(
            f"{folder}: the table importance must select the very samples of data, it selects others; fetch or build it again"
        )
    if manifest.evidence is not None and tables.ranking is not None:
        _check_ranking(folder, manifest.evidence, manifest.draw.ratio, tables.ranking)
    return manifest, tables


def _are_numbers(labels: pa.ChunkedArray, n: int) -> bool:
    """Whether all of a column are whole numbers in [0, n)."""
    if not pa.types.is_integer(labels.type) or labels.null_count:
        return False
    numbers = labels.to_numpy()
    return not len(numbers) or bool(0 <= numbers.min() <= numbers.max() < n)


def _check_ranking(folder: Path, evidence: EvidenceRecord, ratio: float, table: pa.Table) -> None:
    """Makes sure that a table of runs, maybe a stranger's, can be what its evidence says.

    Raises:
        ArtifactError: It cannot.
    """
    rows = table.to_pylist()
    needed = (
        "architecture",
        "dataset",
        "ratio",
        "training_seed",
        "training_flops",
        "n_parameters",
        "accuracy",
        "origin",
    )
    identity = ("architecture", "dataset", "ratio", "draw_seed", "training_seed")
    is_sound = (
        all(row[name] is not None for row in rows for name in needed)
        and all(row["dataset"] in runs.DATASETS and 0 < row["ratio"] <= 1 and 0 <= row["accuracy"] <= 1 for row in rows)
        and len({tuple(row[name] for name in identity) for row in rows}) == len(rows)
    )
    if is_sound:
        measured = runs.collect_accuracies(table)
        is_sound = (
            evidence.own_ratio == ratio
            and {(runs.FULL, 1.0), (runs.PROXY, ratio)} <= set(measured.accuracies)
            and len(measured.names) == evidence.n_architectures
            and evidence.of(runs.PROXY, ratio) is not None
        )
    if not is_sound:
        raise ArtifactError(
            f"{folder / 'ranking'}: must hold the runs that the evidence in {MANIFEST} speaks of; fetch or check it again"
        )


def read_tables(folder: Path, *, checked: bool = False) -> Tables:
    """Reads a proxy's tables.

    Args:
        folder: The proxy.
        checked: Whether to read the runs behind its evidence too.

    Raises:
        ArtifactError: One cannot be read, or lacks columns.
    """
    tables = {}
    for config, (_, subfolder) in CONFIGS.items():
        if config == "ranking" and not checked:
            continue
        files = sorted((folder / subfolder).glob("*.parquet"))
        try:
            tables[config] = pa.concat_tables([pq.read_table(file) for file in files])
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{folder / subfolder}: must hold parquet files that can be read: {error}") from None
    for config, columns in _NEEDED_COLUMNS.items():
        missing = [name for name in columns if name not in tables[config].column_names]
        if missing:
            raise ArtifactError(
                f"{folder / CONFIGS[config][1]}: must hold the columns of FORMAT.md, it lacks {missing[0]}"
            )
    ranking = tables.get("ranking")
    if ranking is not None:
        try:
            if "n_labels" not in ranking.column_names:  # format 1.1
                ranking = ranking.append_column("n_labels", pa.nulls(ranking.num_rows, pa.int64()))
            ranking = ranking.select(runs.COLUMNS.names).cast(runs.COLUMNS)
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise ArtifactError(f"{folder / 'ranking'}: must hold the columns of a table of runs: {error}") from None
    return Tables(tables["default"], tables["importance"], tables["evaluation"], ranking)


def check_only_own_files(out: Path, there: Manifest) -> None:
    """Refuses to replace a proxy that somebody has put other files into.

    Raises:
        OutputExistsError: There are some; names one.
    """
    foreign = sorted(present_files(out) - set(there.files) - {MANIFEST})
    if foreign:
        raise OutputExistsError(
            f"{out}: must hold a proxy and nothing else to be replaced, found {foreign[0]}"
            + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else "")
            + "; nothing was touched: move it away, or choose another -o"
        )


def as_tables(datasets: dict[str, datasets.Dataset]) -> Tables:
    """The Arrow tables of `make_tables`."""
    return Tables(*(datasets[config].data.table for config in datasets))


def read_bytes(path: Path) -> bytes | None:
    """A file's bytes, or None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read_unchanged(source: Source, samples: Samples) -> list[bytes]:
    """The samples' encoded images, which must be those that were decoded when the build began."""
    images = source.read_encoded(samples)
    for encoded, sha256, index in zip(images, samples.encoded_sha256, samples.source_index, strict=True):
        if hashlib.sha256(encoded).hexdigest() != sha256:
            raise SourceError(f"source: image {samples.split}[{index}] has changed since the build began; build again")
    return images


def present_files(folder: Path) -> set[str]:
    """The paths of a folder's files and links, relative to it."""
    files = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in files}


def _identity_columns(samples: Samples) -> dict[str, Any]:
    return {
        "label": samples.labels,
        "sample_id": samples.ids,
        "source_index": samples.source_index,
        "encoded_sha256": samples.encoded_sha256,
    }


def _draw_columns(draw: Draw, rows: Any) -> dict[str, Any]:
    n, inclusion = int(rows.sum()), draw.inclusion_probability
    return {
        "case": draw.case[rows],
        "importance": draw.importance[rows],
        "keep_probability": draw.keep_probability[rows],
        "inclusion_probability": [None] * n if inclusion is None else inclusion[rows],
    }


def _make_dataset(columns: dict[str, Any], features: datasets.Features) -> datasets.Dataset:
    import datasets

    schema = features.arrow_schema
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    return datasets.Dataset(pa.Table.from_arrays(arrays, schema=schema))


def _iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _image_extension(encoded: bytes) -> str:
    with Image.open(io.BytesIO(encoded)) as image:
        return {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}.get(image.format or "", (image.format or "bin").lower())


def _file_facts(path: Path) -> FileFacts:
    with path.open("rb") as stream:
        return FileFacts(bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and name == path.as_posix()
