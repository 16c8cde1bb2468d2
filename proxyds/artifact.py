"""The proxy as a folder of ordinary files, written. `FORMAT.md` is its specification."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from proxyds.errors import ArtifactError, NoPermissionError, OutputExistsError, SourceError
from proxyds.folders import replace_file
from proxyds.images import open_image
from proxyds.manifest import CONFIGS, MANIFEST, Manifest
from proxyds.opening import measure_file, present_files, read_manifest
from proxyds.records import PAIRS, Draw, Mapping, Outcomes, Samples, Source, Tables
from proxyds.tables import iter_rows
from proxyds.tars import write_tar

if TYPE_CHECKING:
    import datasets

_FORMATS = re.compile(rb"(?s)(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpg>\xff\xd8\xff)|(?P<webp>RIFF....WEBP)")
"""How images of the commonest formats begin, so that they need not be opened to be named."""


def make_tables(source: Source, outcomes: Outcomes, mapping: Mapping, draw: Draw) -> dict[str, datasets.Dataset]:
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
        "predicted": outcomes.predictions.tolist(),
        "correct": outcomes.correct.tolist(),
        **dict(zip(PAIRS, outcomes.pair_counts.T, strict=True)),
        "case": outcomes.case,
        "importance": outcomes.importance,
    }
    pairs = {name: datasets.Value("int64") for name in PAIRS}
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
    formats = Counter(_image_extension(row["image"]["bytes"]) for row in iter_rows(data.select(["image"])))
    extension = formats.most_common(1)[0][0]
    (folder / "webdataset").mkdir()

    def members(rows: pa.Table) -> Iterator[tuple[str, bytes]]:
        for row in iter_rows(rows):
            image, label, key = row.pop("image")["bytes"], row.pop("label"), row["sample_id"]
            about = json.dumps({"label_name": label_names[label], **row}, sort_keys=True)
            yield from sorted(
                [(f"{key}.{extension}", image), (f"{key}.cls", b"%d" % label), (f"{key}.json", about.encode())]
            )

    for shard, start in enumerate(range(0, len(data), samples_per_shard)):
        write_tar(folder / "webdataset" / f"train-{shard:06d}.tar", members(data.slice(start, samples_per_shard)))


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Writes `manifest.json` over every file in the folder; the last file of a proxy to be written."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: measure_file(folder / name) for name in names if name != MANIFEST}
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
    files = {**kept, **{name: measure_file(folder / name) for name in written}}
    whole = manifest.model_copy(update={"files": dict(sorted(files.items()))})
    replace_file(folder / MANIFEST, f"{whole.model_dump_json(indent=1)}\n".encode())
    return whole


def check_output(out: Path) -> Manifest | None:
    """Makes sure that a proxy may be written at `out`, before any work is done.

    Returns:
        The manifest of the proxy that is there, or None where nothing is.

    Raises:
        OutputExistsError: There is something that is not a proxy, or it lies within one.
        NoPermissionError: The place may not be written.
    """
    check_outside_proxies(out)
    if out.is_dir() and any(out.iterdir()):
        try:
            return read_manifest(out)
        except ArtifactError:
            raise OutputExistsError(
                f"{out}: must be a new folder or a proxy, it holds something else; it was not touched, nor ever would be: "
                "choose another -o"
            ) from None
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        what = "a file" if out.exists() else "a link to nowhere"
        raise OutputExistsError(f"{out}: must be a folder, found {what}; it was not touched: choose another -o")
    return None


def check_outside_proxies(place: Path) -> None:
    """Refuses a place within a proxy, which would not be whole any more.

    Raises:
        OutputExistsError: It lies within one; names it.
    """
    nearest = Path(os.path.realpath(place.parent))
    for parent in (nearest, *nearest.parents):
        try:
            if not (parent / MANIFEST).is_file():
                continue
            read_manifest(parent)
        except (ArtifactError, NoPermissionError, OSError):
            continue  # somebody else's manifest.json
        raise OutputExistsError(
            f"{place}: must not lie within the proxy {parent}, which holds its own files alone; nothing was written: choose another place"
        )


def another_proxy(out: Path, there: Manifest) -> OutputExistsError:
    """The error for a folder that holds another proxy than the one to be built."""
    return OutputExistsError(
        f"{out}: must be a new folder, found the proxy {there.name} {there.version} of another recipe or source "
        f"({there.recipe_sha256[:16]}); it was not touched: choose another -o, or replace it with --force"
    )


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


def _read_unchanged(source: Source, samples: Samples) -> list[bytes]:
    """The samples' encoded images, which must be those that were decoded when the build began."""
    images = source.read_encoded(samples)
    for encoded, sha256, index in zip(images, samples.encoded_sha256, samples.source_index, strict=True):
        if hashlib.sha256(encoded).hexdigest() != sha256:
            raise SourceError(f"source: image {samples.split}[{index}] has changed since the build began; build again")
    return images


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


def _image_extension(encoded: bytes) -> str:
    if (known := _FORMATS.match(encoded)) is not None:
        return str(known.lastgroup)
    with open_image(encoded) as image:
        return {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}.get(image.format or "", (image.format or "bin").lower())
