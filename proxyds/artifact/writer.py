"""The proxy as a folder of ordinary files, written. `docs/format.md` is its specification."""

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
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proxyds.artifact.card.croissant import render_croissant
from proxyds.artifact.index import HEADER, format_rows
from proxyds.artifact.manifest import CONFIGS, CROISSANT, FORMAT_VERSION, INDEX, MANIFEST, Manifest
from proxyds.artifact.reader import measure_file, present_files, read_manifest
from proxyds.artifact.summary import SampleCounts, Summary, collect_images, count_samples
from proxyds.artifact.tables import WEIGHT, iter_rows, list_columns
from proxyds.data.chunked import chunks_of, cut_chunks
from proxyds.data.images import open_image
from proxyds.data.samples import SHARD, ReadEncoded, Samples, Source, StreamedSamples
from proxyds.errors import ArtifactError, NoPermissionError, OutputExistsError, SourceError
from proxyds.runtime.storage.atomic import replace_file
from proxyds.selection.records import PAIRS, Draw, NearestMap, Outcomes

if TYPE_CHECKING:
    import datasets

_FORMATS = re.compile(rb"(?s)(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpg>\xff\xd8\xff)|(?P<webp>RIFF....WEBP)")
"""How images of the commonest formats begin: their extensions are found without opening them."""
_TAR_METADATA: dict[str, Any] = {"user": "bigdata", "group": "bigdata", "mode": 0o444, "mtime": 0}
"""The metadata of every member, so that equal samples give equal bytes."""


class _Shards:
    """The files of a table that is written piece by piece: `FOLDER/SPLIT-00000-of-00001.parquet`, so many rows each."""

    def __init__(
        self, folder: Path, config: str, features: datasets.Features, n_rows: int, samples_per_shard: int
    ) -> None:
        self.split, subfolder = CONFIGS[config]
        self.folder = folder / subfolder
        self.samples_per_shard, self.n_shards = samples_per_shard, -(-n_rows // samples_per_shard)
        self.files: list[Path] = []
        self._waiting = features.arrow_schema.empty_table()
        self.folder.mkdir()

    def add(self, rows: pa.Table) -> None:
        """Takes more rows, and writes what fills a file."""
        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows >= self.samples_per_shard:
            self._write_rows()

    def end(self) -> list[Path]:
        """Writes the rest; returns the files."""
        if self._waiting.num_rows:
            self._write_rows()
        return self.files

    def _write_rows(self) -> None:
        import datasets

        rows, self._waiting = self._waiting[: self.samples_per_shard], self._waiting[self.samples_per_shard :]
        file = self.folder / f"{self.split}-{len(self.files):05d}-of-{self.n_shards:05d}.parquet"
        datasets.Dataset(rows.combine_chunks()).to_parquet(file)
        self.files.append(file)


class _OwnFiles:
    """The files of a proxy's own samples, written piece by piece: the table `data`, its tars, the index.

    Attributes:
        counts: What was written by now.
        images: The first images of each case.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        source_index: NDArray[np.int64],
        features: datasets.Features,
        kept_labels: NDArray[np.int64] | None,
        samples_per_shard: int,
    ) -> None:
        self.counts: SampleCounts = count_samples([])
        self.images: dict[int, list[bytes]] = {}
        self._folder, self._features, self._kept_labels = folder, features, kept_labels
        self._split = source.train.origin.split
        self._read_encoded = source.open_encoded(self._split, source_index)
        self._formats: Counter[str] = Counter()
        self._shards = _Shards(folder, "default", features, len(source_index), samples_per_shard)
        (folder / INDEX).write_text(HEADER, encoding="utf-8")

    def add(self, chosen: pa.Table, samples: Samples) -> None:
        """Takes more samples, and their rows of the table `importance`."""
        encoded = _read_unchanged(self._read_encoded, samples)
        data = _data_table(chosen, encoded, self._kept_labels, self._features)
        self._shards.add(data)
        with (self._folder / INDEX).open("a", encoding="utf-8", newline="") as index:
            index.write(format_rows(data, self._features["label"].names, self._split))
        self._formats.update(map(_image_extension, encoded))
        collect_images(self.images, data)
        self.counts = self.counts.add(data)

    def end(self) -> None:
        """Writes the rest, and the tars."""
        names = self._features["label"].names
        write_tars(self._folder, self._shards.end(), names, self._formats.most_common(1)[0][0])


def write_tables(
    folder: Path, source: Source, outcomes: Outcomes, mapping: NearestMap, draw: Draw, samples_per_shard: int
) -> Summary:
    """Writes a build's tables, the proxy's tars and its index, in one pass over the training samples, a shard of them in memory.

    Args:
        folder: The folder to be filled.
        source: The data set; images go into the proxy as their encoded bytes.
        outcomes: What the table `evaluation` says of the evaluation samples.
        mapping: The nearest evaluation samples, for the table `importance`.
        draw: The samples that are chosen.
        samples_per_shard: Rows of each file, at most.

    Returns:
        The summary that a card is made from.

    Raises:
        SourceError: An image has changed since the build began.
    """
    features = _list_features(source.label_names, draw.kept_labels, has_weight=draw.weight is not None)
    evaluation = pa.table(_evaluation_columns(source, outcomes), schema=features["evaluation"].arrow_schema)
    n_rows = {"importance": len(source.train), "evaluation": evaluation.num_rows}
    tables = {config: _Shards(folder, config, features[config], n, samples_per_shard) for config, n in n_rows.items()}
    tables["evaluation"].add(evaluation)
    tables["evaluation"].end()
    selected = _list_selected(source.train, draw.selected)
    own = _OwnFiles(folder, source, selected, features["default"], draw.kept_labels, samples_per_shard)
    training = count_samples([])
    for samples, row in _iter_rows(source, mapping, draw):
        importance = pa.table(row, schema=features["importance"].arrow_schema)
        tables["importance"].add(importance)
        own.add(importance.filter(importance["selected"]), samples.take(row["selected"]))
        training = training.add(importance)
    tables["importance"].end()
    own.end()
    return Summary(count_samples([evaluation]), training, own.counts, own.images)


def write_indexed(
    folder: Path,
    source: Source,
    samples: Samples,
    index: pa.Table,
    kept_labels: NDArray[np.int64] | None,
    samples_per_shard: int,
) -> Summary:
    """Writes a proxy of the samples of an index: the table `data`, tars and its own index; other tables it has none.

    Args:
        folder: The folder to be filled.
        source: The data set; images go into the proxy as their encoded bytes.
        samples: (n,) the samples of the index, as the source has them now.
        index: Their rows in the index; see `artifact.index.read_index`.
        kept_labels: (L,) the labels that the proxy keeps; None for all.
        samples_per_shard: Rows of each file, at most.

    Returns:
        The summary that a card is made from.

    Raises:
        SourceError: An image has changed since it was found.
    """
    features = _list_features(source.label_names, kept_labels, has_weight=WEIGHT in index.column_names)["default"]
    own = _OwnFiles(folder, source, samples.source_index, features, kept_labels, samples_per_shard)
    for start in range(0, len(samples), SHARD):
        some, rows = samples[start : start + SHARD], index.slice(start, SHARD)
        columns = {name: rows[name] for name in rows.column_names}
        own.add(pa.table(columns | _identity_columns(some)), some)
    own.end()
    return Summary(count_samples([]), count_samples([]), own.counts, own.images)


def _list_selected(train: Samples | StreamedSamples, selected: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lists the selected samples' indices in the source."""
    starts = range(0, len(train), SHARD)
    shards = zip(train.shards(), starts, strict=True)
    return np.concatenate([samples.source_index[selected[start : start + SHARD]] for samples, start in shards])


def _list_features(
    label_names: Sequence[str], kept_labels: NDArray[np.int64] | None, *, has_weight: bool
) -> dict[str, datasets.Features]:
    """Lists the columns of each table of samples as readers of data sets take them."""
    import datasets

    label = own_label = datasets.ClassLabel(names=list(label_names))
    if kept_labels is not None:
        own_label = datasets.ClassLabel(names=[label_names[kept] for kept in kept_labels])
    features = {}
    for config in ("default", "importance", "evaluation"):
        columns = list_columns(config, has_weight=has_weight, keeps_labels=kept_labels is not None)
        special = {
            "image": datasets.Image(),
            "label": own_label if config == "default" else label,
            "source_label": label,
            "predicted": datasets.List(label),
        }
        features[config] = datasets.Features.from_arrow_schema(pa.schema(list(columns.items())))
        features[config].update({name: special[name] for name in columns if name in special})
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


def _iter_rows(source: Source, mapping: NearestMap, draw: Draw) -> Iterator[tuple[Samples, dict[str, Any]]]:
    """Yields the columns of the table `importance`, shard by shard."""
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
    for samples in source.train.shards():
        row = {name: next(tiles) for name, tiles in columns.items()}
        row["nearest_evaluation_id"] = source.evaluation.ids[row.pop("nearest")[:, 0]]
        yield samples, {"inclusion_probability": [None] * len(samples), **row, **_identity_columns(samples)}


def _data_table(
    chosen: pa.Table, encoded: list[bytes], kept_labels: NDArray[np.int64] | None, features: datasets.Features
) -> pa.Table:
    """Makes rows of the table `data`, from those of `importance` that are selected and their images."""
    columns: dict[str, Any] = {name: chosen[name] for name in chosen.column_names if name in features}
    columns["image"] = [{"bytes": each, "path": None} for each in encoded]
    if kept_labels is not None:
        columns["source_label"] = chosen["label"]
        columns["label"] = np.searchsorted(kept_labels, chosen["label"].to_numpy())
    return pa.table(columns, schema=features.arrow_schema)


def encode_runs(table: pa.Table) -> bytes:
    """Encodes the runs behind the evidence as a parquet file."""
    import datasets

    stream = io.BytesIO()
    datasets.Dataset(table).to_parquet(stream)
    return stream.getvalue()


def write_tars(folder: Path, shards: Sequence[Path], label_names: Sequence[str], extension: str) -> None:
    """Writes the proxy as WebDataset tars, from its parquet files: for each sample its image, `.cls` (label number) and `.json` (the rest).

    All images carry the extension of the commonest format: readers infer the members of a shard from its first samples.
    """
    from webdataset import TarWriter

    (folder / "webdataset").mkdir()
    for number, shard in enumerate(shards):
        file = folder / "webdataset" / f"train-{number:06d}.tar"
        with file.open("wb") as stream, TarWriter(stream, **_TAR_METADATA, encoder=False) as tar:
            for row in iter_rows(pq.read_table(shard)):
                image, label = row.pop("image")["bytes"], row.pop("label")
                others = json.dumps({"label_name": label_names[label], **row}, sort_keys=True).encode()
                tar.write({"__key__": row["sample_id"], extension: image, "cls": b"%d" % label, "json": others})


def list_written(folder: Path, manifest: Manifest) -> Manifest:
    """Puts the facts of every file that is in the folder into a manifest, but for `manifest.json`."""
    files = {name: measure_file(folder / name) for name in sorted(present_files(folder) - {MANIFEST})}
    return manifest.model_copy(update={"files": files})


def rewrite_manifest(
    folder: Path, manifest: Manifest, *, written: Collection[str], gone: Collection[str] = ()
) -> Manifest:
    """Writes `croissant.json` and, last, `manifest.json` after some files of a proxy were written; the facts of the others stay.

    A proxy of an earlier format, which had no `croissant.json`, gets none.

    Args:
        folder: The proxy.
        manifest: The manifest with the facts of the files as they were.
        written: Files that were written.
        gone: Files that were removed.
    """
    kept = {name: facts for name, facts in manifest.files.items() if name not in gone}
    files = {**kept, **{name: measure_file(folder / name) for name in written}}
    whole = manifest.model_copy(update={"files": dict(sorted(files.items()))})
    if manifest.format_version == FORMAT_VERSION:
        replace_file(folder / CROISSANT, render_croissant(whole))
        files[CROISSANT] = measure_file(folder / CROISSANT)
        whole = manifest.model_copy(update={"files": dict(sorted(files.items()))})
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
            why = "must be a new folder or a proxy, it holds something else; it was not touched: choose another -o"
            raise OutputExistsError(why, place=out) from None
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        what = "a file" if out.exists() else "a link to nowhere"
        raise OutputExistsError(f"must be a folder, found {what}; it was not touched: choose another -o", place=out)
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
        f"must be a new folder, found the proxy {existing.name} {existing.version} of another recipe or source "
        f"({existing.recipe_sha256[:16]}); it was not touched: choose another -o, or replace it with --force",
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
        raise OutputExistsError(f"{why}; nothing was touched: move it away, or choose another -o", place=out)


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
