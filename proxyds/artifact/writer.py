"""The proxy as a folder of ordinary files, written. `docs/format.md` is its specification."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proxyds.artifact.card.croissant import render_croissant
from proxyds.artifact.index import HEADER, format_rows
from proxyds.artifact.manifest import CROISSANT, INDEXES, MANIFEST, Manifest
from proxyds.artifact.parquet import READERS, ShardWriter, count_shards
from proxyds.artifact.reader import measure_file, present_files, read_manifest
from proxyds.artifact.summary import SampleCounts, Summary, collect_images, count_samples
from proxyds.artifact.tables import SOFT_LABEL, WEIGHT, Extras, iter_rows, list_columns
from proxyds.data.chunked import chunks_of, cut_chunks
from proxyds.data.images import open_image
from proxyds.data.samples import SHARD, ReadEncoded, Samples, SoftLabels, Source, StreamedSamples
from proxyds.errors import ArtifactError, NoPermissionError, OutputExistsError, SourceError
from proxyds.progress_bars import without_datasets_bars
from proxyds.runtime.storage.atomic import replace_file
from proxyds.selection.records import PAIRS, Draw, NearestMap, Outcomes

if TYPE_CHECKING:
    import datasets

_FORMATS = re.compile(rb"(?s)(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpg>\xff\xd8\xff)|(?P<webp>RIFF....WEBP)")
"""How images of the commonest formats begin: their extensions are found without opening them."""
_TAR_METADATA: dict[str, Any] = {"user": "bigdata", "group": "bigdata", "mode": 0o444, "mtime": 0}
"""The metadata of every member, so that equal samples give equal bytes."""


IMAGES_AT_ONCE = 1024
"""Images that are read at once, at most."""


@dataclass(frozen=True)
class _Layout:
    """What the files of all of a proxy's samples have in common.

    Attributes:
        folder: The proxy.
        features: The columns of `data` and `validation`.
        kept_labels: (L,) the labels that the proxy keeps; None for all.
        samples_per_shard: Rows of each file, at most.
    """

    folder: Path
    features: datasets.Features
    kept_labels: NDArray[np.int64] | None
    samples_per_shard: int


class _OwnFiles:
    """The files of some of a proxy's samples, written piece by piece: the table `data` or `validation`, its tars, its index.

    Attributes:
        counts: What was written by now.
        images: The first images of each case.
    """

    def __init__(self, layout: _Layout, table: str, n_rows: int) -> None:
        self.counts: SampleCounts = count_samples([])
        self.images: dict[int, list[bytes]] = {}
        self._layout, self._table = layout, table
        self._formats: Counter[str] = Counter()
        n_shards = count_shards(n_rows, layout.samples_per_shard, n_readers=READERS)
        self._shards = ShardWriter(layout.folder, table, layout.features, n_rows, n_shards)
        (layout.folder / INDEXES[table]).write_text(HEADER, encoding="utf-8")

    def add(self, rows: pa.Table, samples: Samples, read_encoded: ReadEncoded) -> None:
        """Takes more samples, with their rows of another table; what reads their images is given too."""
        for start in range(0, len(samples), IMAGES_AT_ONCE):
            self._add(rows.slice(start, IMAGES_AT_ONCE), samples[start : start + IMAGES_AT_ONCE], read_encoded)

    def _add(self, rows: pa.Table, samples: Samples, read_encoded: ReadEncoded) -> None:
        encoded, features = _read_unchanged(read_encoded, samples), self._layout.features
        own = _own_table(rows, encoded, samples.soft_labels, self._layout.kept_labels, features)
        self._shards.add(own)
        with (self._layout.folder / INDEXES[self._table]).open("a", encoding="utf-8", newline="") as index:
            index.write(format_rows(own, features["label"].names, samples.origin.split))
        self._formats.update(map(_image_extension, encoded))
        collect_images(self.images, own)
        self.counts = self.counts.add(own)

    def end(self) -> None:
        """Writes the tars, once all samples are there."""
        extension, names = self._formats.most_common(1)[0][0], self._layout.features["label"].names
        write_tars(self._layout.folder, self._shards.files, names, extension)


def write_tables(
    folder: Path,
    source: Source,
    outcomes: Outcomes,
    mapping: NearestMap,
    draw: Draw,
    samples_per_shard: int,
    soft_labels: SoftLabels | None = None,
) -> Summary:
    """Writes a build's tables, the proxy's tars and its indexes, in one pass over the training samples, a shard of them in memory.

    Args:
        folder: The folder to be filled.
        source: The data set; images go into the proxy as their encoded bytes.
        outcomes: What the table `evaluation` says of the evaluation samples.
        mapping: The nearest evaluation samples, for the table `importance`.
        draw: The samples that are chosen, to train on and to rank on.
        samples_per_shard: Rows of each file, at most.
        soft_labels: Of all training samples, in their order; None where networks learn labels.

    Returns:
        The summary that a card is made from.

    Raises:
        SourceError: An image has changed since the build began.
    """
    extras = Extras(draw.weight is not None, draw.kept_labels is not None, soft_labels is not None)
    features = list_features(source.label_names, draw.kept_labels, extras)
    evaluation = pa.table(_evaluation_columns(source, outcomes), schema=features["evaluation"].arrow_schema)
    n_rows = {"importance": len(source.train), "evaluation": evaluation.num_rows}
    tables = {
        table: ShardWriter(folder, table, features[table], n, count_shards(n, samples_per_shard))
        for table, n in n_rows.items()
    }
    tables["evaluation"].add(evaluation)
    layout = _Layout(folder, features["data"], draw.kept_labels, samples_per_shard)
    is_held = np.zeros(len(source.evaluation), np.bool_) if draw.validation is None else draw.validation
    validation = source.evaluation.take(is_held)
    selected = _list_selected(source.train, draw.selected)
    read_encoded = _open_chosen(
        source, (source.train.origin.split, selected), (validation.origin.split, validation.source_index)
    )
    own = _OwnFiles(layout, "data", len(selected))
    training = count_samples([])
    for samples, row in _iter_rows(source, mapping, draw, soft_labels):
        importance = pa.table(row, schema=features["importance"].arrow_schema)
        tables["importance"].add(importance)
        own.add(importance.filter(importance["selected"]), samples.take(row["selected"]), read_encoded)
        training = training.add(importance)
    own.end()
    _write_validation(layout, validation, evaluation.filter(pa.array(is_held)), read_encoded)
    return Summary(count_samples([evaluation]), training, own.counts, own.images)


def _write_validation(layout: _Layout, samples: Samples, rows: pa.Table, read_encoded: ReadEncoded) -> None:
    """Writes the evaluation samples that the proxy holds, if it holds some, with their rows of another table."""
    if len(samples):
        own = _OwnFiles(layout, "validation", len(samples))
        own.add(rows, samples, read_encoded)
        own.end()


def _open_chosen(source: Source, *chosen: tuple[str, NDArray[np.int64]]) -> ReadEncoded:
    """Opens the images of some splits at some places, those of one split together: a streamed split is read once."""
    places: dict[str, list[NDArray[np.int64]]] = {}
    for split, source_index in chosen:
        if len(source_index):
            places.setdefault(split, []).append(source_index)
    read_of = {split: source.open_encoded(split, np.concatenate(of_split)) for split, of_split in places.items()}
    return lambda samples: read_of[samples.origin.split](samples)


def write_indexed(
    folder: Path,
    source: Source,
    indexed: Mapping[str, tuple[Samples, pa.Table]],
    kept_labels: NDArray[np.int64] | None,
    samples_per_shard: int,
) -> Summary:
    """Writes a proxy of the samples of an index: the table `data`, `validation` if it lists some, tars and indexes of its own; no others.

    Args:
        folder: The folder to be filled.
        source: The data set; images go into the proxy as their encoded bytes.
        indexed: By table, a key of `INDEXES`, the samples as the source has them now, and their rows in the index; see
            `artifact.index.read_index`.
        kept_labels: (L,) the labels that the proxy keeps; None for all.
        samples_per_shard: Rows of each file, at most.

    Returns:
        The summary that a card is made from.

    Raises:
        SourceError: An image has changed since it was found.
    """
    extras = Extras(WEIGHT in indexed["data"][1].column_names, kept_labels is not None)
    features = list_features(source.label_names, kept_labels, extras)["data"]
    layout = _Layout(folder, features, kept_labels, samples_per_shard)
    places = ((samples.origin.split, samples.source_index) for samples, _ in indexed.values())
    read_encoded, written = _open_chosen(source, *places), {}
    for table, (samples, rows) in indexed.items():
        columns = {name: rows[name] for name in rows.column_names}
        written[table] = _OwnFiles(layout, table, len(samples))
        written[table].add(pa.table(columns | _identity_columns(samples)), samples, read_encoded)
        written[table].end()
    own = written["data"]
    return Summary(count_samples([]), count_samples([]), own.counts, own.images)


def _list_selected(train: Samples | StreamedSamples, selected: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lists the selected samples' indices in the source."""
    starts = range(0, len(train), SHARD)
    shards = zip(train.shards(), starts, strict=True)
    return np.concatenate([samples.source_index[selected[start : start + SHARD]] for samples, start in shards])


def list_features(
    label_names: Sequence[str], kept_labels: NDArray[np.int64] | None, extras: Extras
) -> dict[str, datasets.Features]:
    """Lists the columns of each table of samples as readers of data sets take them."""
    import datasets

    label = own_label = datasets.ClassLabel(names=list(label_names))
    if kept_labels is not None:
        own_label = datasets.ClassLabel(names=[label_names[kept] for kept in kept_labels])
    features = {}
    for table in ("data", "importance", "evaluation"):
        columns = list_columns(table, extras)
        special = {
            "image": datasets.Image(),
            "label": own_label if table == "data" else label,
            "source_label": label,
            "predicted": datasets.List(label),
        }
        features[table] = datasets.Features.from_arrow_schema(pa.schema(list(columns.items())))
        features[table].update({name: special[name] for name in columns if name in special})
    return features


def _evaluation_columns(source: Source, outcomes: Outcomes) -> dict[str, Any]:
    return {
        **_identity_columns(source.evaluation),
        "predicted": outcomes.predictions.tolist(),
        "correct": outcomes.correct.tolist(),
        **dict(zip(PAIRS, outcomes.pair_counts.T, strict=True)),
        "case": outcomes.case,
        "importance": outcomes.importance,
    }


def _iter_rows(
    source: Source, mapping: NearestMap, draw: Draw, soft_labels: SoftLabels | None
) -> Iterator[tuple[Samples, dict[str, Any]]]:
    """Yields the samples with the columns of the table `importance`, shard by shard."""
    whole = {
        "nearest": mapping.nearest,
        "nearest_distance": mapping.distance,
        "case": draw.case,
        "importance": draw.importance,
        "keep_probability": draw.keep_probability,
        "selected": draw.selected,
        WEIGHT: draw.weight,
        "inclusion_probability": draw.inclusion_probability,
    }
    columns = {name: cut_chunks(chunks_of(values), SHARD) for name, values in whole.items() if values is not None}
    for shard, samples in enumerate(source.train.shards()):
        row = {name: next(tiles) for name, tiles in columns.items()}
        row["nearest_evaluation_id"] = source.evaluation.ids[row.pop("nearest")[:, 0]]
        of_shard = soft_labels and soft_labels.take(slice(shard * SHARD, (shard + 1) * SHARD))
        yield (
            replace(samples, soft_labels=of_shard),
            {"inclusion_probability": [None] * len(samples), **row, **_identity_columns(samples)},
        )


def _own_table(
    chosen: pa.Table,
    encoded: list[bytes],
    soft_labels: SoftLabels | None,
    kept_labels: NDArray[np.int64] | None,
    features: datasets.Features,
) -> pa.Table:
    """Makes rows of a table with images, from those of another table, their images and soft labels; columns that this one lacks are null."""
    columns: dict[str, Any] = {name: [None] * len(encoded) for name in features}
    columns |= {name: chosen[name] for name in chosen.column_names if name in features}
    columns["image"] = [{"bytes": each, "path": None} for each in encoded]
    if soft_labels is not None:
        columns[SOFT_LABEL] = list(replace(soft_labels, kept=kept_labels).read())
    if kept_labels is not None:
        columns["source_label"] = chosen["label"]
        columns["label"] = np.searchsorted(kept_labels, chosen["label"].to_numpy())
    return pa.table(columns, schema=features.arrow_schema)


def encode_runs(table: pa.Table) -> bytes:
    """Encodes the runs behind the evidence as a parquet file."""
    import datasets

    stream = io.BytesIO()
    with without_datasets_bars():
        datasets.Dataset(table).to_parquet(stream)
    return stream.getvalue()


def write_tars(folder: Path, shards: Sequence[Path], label_names: Sequence[str], extension: str) -> None:
    """Writes a split as WebDataset tars, from its parquet files: for each sample its image, `.cls` (label number) and `.json` (the rest).

    All images of a split carry the extension of the commonest format: readers infer the members of a shard from its first samples.
    """
    from webdataset import TarWriter

    (folder / "webdataset").mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        file = folder / "webdataset" / f"{shard.name.partition('-')[0]}-{number:06d}.tar"
        with file.open("wb") as stream, TarWriter(stream, **_TAR_METADATA, encoder=False) as tar:
            for row in iter_rows(pq.read_table(shard)):
                image, label = row.pop("image")["bytes"], row.pop("label")
                others = json.dumps({"label_name": label_names[label], **row}, sort_keys=True).encode()
                tar.write({"__key__": row["sample_id"], extension: image, "cls": b"%d" % label, "json": others})


def list_written(folder: Path, manifest: Manifest) -> Manifest:
    """Puts the facts of every file that is in the folder into a manifest, but for `manifest.json`."""
    files = {name: measure_file(folder / name) for name in sorted(present_files(folder) - {MANIFEST})}
    return manifest.model_copy(update={"files": files})


def write_croissant(folder: Path, manifest: Manifest) -> Manifest:
    """Writes `croissant.json` of the tables that a manifest lists, and returns the manifest with its facts."""
    replace_file(folder / CROISSANT, render_croissant(manifest))
    files = {**manifest.files, CROISSANT: measure_file(folder / CROISSANT)}
    return manifest.model_copy(update={"files": dict(sorted(files.items()))})


def rewrite_manifest(
    folder: Path, manifest: Manifest, *, written: Collection[str], gone: Collection[str] = ()
) -> Manifest:
    """Writes `manifest.json` after some files of a proxy were written; the facts of the others stay.

    `croissant.json` is written again before it, where there is one; a proxy that has none gets none.

    Args:
        folder: The proxy.
        manifest: The manifest with the facts of the files as they were.
        written: Files that were written.
        gone: Files that were removed.
    """
    kept = {name: facts for name, facts in manifest.files.items() if name not in gone}
    files = {**kept, **{name: measure_file(folder / name) for name in written}}
    whole = manifest.model_copy(update={"files": dict(sorted(files.items()))})
    if CROISSANT in files:
        whole = write_croissant(folder, whole)
    replace_file(folder / MANIFEST, f"{whole.model_dump_json(indent=1)}\n".encode())
    return whole


def check_output(out: Path) -> Manifest | None:
    """Makes sure that a proxy may be written at `out`, before any work is done.

    Returns:
        The manifest of the proxy that is there, or None where nothing is.

    Raises:
        OutputExistsError: There is something that is not a proxy, or `out` lies within a proxy.
        NoPermissionError: What is there may not be read.
    """
    check_outside_proxies(out)
    if out.is_dir() and any(out.iterdir()):
        try:
            return read_manifest(out)
        except ArtifactError:
            why = "must be a new folder or a proxy, it holds something else; it was not touched: choose another folder"
            raise OutputExistsError(why, place=out) from None
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        what = "a file" if out.exists() else "a link to nowhere"
        raise OutputExistsError(f"must be a folder, found {what}; it was not touched: choose another folder", place=out)
    return None


def check_outside_proxies(place: Path) -> None:
    """Refuses a place within a proxy, which would no longer be whole.

    Raises:
        OutputExistsError: The place lies within a proxy; the message names the proxy.
    """
    nearest = Path(os.path.realpath(place.parent))
    for parent in (nearest, *nearest.parents):
        try:
            if not (parent / MANIFEST).is_file():
                continue
            read_manifest(parent)
        except (ArtifactError, NoPermissionError, OSError):
            continue  # somebody else's manifest.json
        why = f"must not lie within the proxy {parent}, which holds its own files alone; nothing was written"
        raise OutputExistsError(f"{why}: choose another place", place=place)


def another_proxy(out: Path, existing: Manifest) -> OutputExistsError:
    """Makes the error for a folder that holds another proxy than the one to be built."""
    return OutputExistsError(
        f"must be a new folder, found the proxy {existing.name} {existing.version} of another recipe, source or code of networks "
        f"({existing.recipe_sha256[:16]}); it was not touched: choose another folder, or replace it: force=True (--force)",
        place=out,
    )


def check_only_own_files(out: Path, existing: Manifest) -> None:
    """Refuses to replace a proxy that somebody has put other files into.

    Raises:
        OutputExistsError: There are such files; the message names one.
    """
    if foreign := sorted(present_files(out) - set(existing.files) - {MANIFEST}):
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        why = f"must hold a proxy and nothing else to be replaced, found {foreign[0]}{more}"
        raise OutputExistsError(f"{why}; nothing was touched: move it away, or choose another folder", place=out)


def _read_unchanged(read_encoded: ReadEncoded, samples: Samples) -> list[bytes]:
    """Reads the samples' encoded images, which must be those that were decoded when the build began."""
    images = read_encoded(samples)
    for encoded, sha256, index in zip(images, samples.encoded_sha256, samples.source_index, strict=True):
        if hashlib.sha256(encoded).hexdigest() != sha256:
            place = f"{samples.origin.split}[{index}]"
            raise SourceError(f"source: image {place} has changed since the build began; build again")
    return images


def _identity_columns(samples: Samples) -> dict[str, Any]:
    return {
        "label": samples.labels,
        "sample_id": samples.ids,
        "source_index": samples.source_index,
        "encoded_sha256": samples.encoded_sha256,
    }


def _image_extension(encoded: bytes) -> str:
    if (matched := _FORMATS.match(encoded)) is not None:
        return str(matched.lastgroup)
    with open_image(encoded) as image:
        return (image.format or "bin").lower()
