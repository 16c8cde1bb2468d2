"""Opens a proxy, and the samples that its source holds out, as torch data sets: all that a search needs.

A proxy's own splits need nothing but its folder; held-out samples come from the source that its recipe names.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from proxyds.arguments import as_path
from proxyds.artifact.manifest import Manifest
from proxyds.artifact.reader import read_manifest, read_own_recipe
from proxyds.artifact.summary import Tables
from proxyds.artifact.tables import FREE_BYTES, SOFT_LABEL, read_proxy
from proxyds.data.decoding import convert_image
from proxyds.data.images import DECODE_ERRORS, open_image
from proxyds.data.samples import Source
from proxyds.data.source import check_same
from proxyds.errors import ArgumentError, ArtifactError, ChangedSourceError, SplitNotFoundError
from proxyds.pipeline.reading import find_source, naming_place, read_source, remember_source
from proxyds.progress import ignore_progress
from proxyds.recipe.sections.source import Images
from proxyds.runtime.local import InProcess
from proxyds.runtime.storage.store import Store, as_store, retry_if_damaged
from proxyds.runtime.task import run_stored

MAX_DECODED_GROWTH = 1000
"""Times the bytes of their files (and `tables.FREE_BYTES`) that images in memory may take: no honest proxy comes near."""
_BYTES_OF_A_VALUE = 5
"""One as decoded, four as float32."""

_OWN_TABLES = {"train": ("data",), "validation": ("validation",)}
"""The table of each split that the proxy itself holds."""
SPLITS = {
    "train": "the proxy",
    "validation": "the evaluation samples that the proxy holds: rank candidates on it",
    "evaluation": "what its probes were asked about, all of it",
    "test": "what chose nothing: measure the winner on it, once",
}


@retry_if_damaged
def torch_dataset(
    folder: str | Path,
    split: str = "train",
    *,
    soft_labels: bool = False,
    source: Any = None,
    store: Store | None = None,
) -> TensorDataset:
    """Opens a proxy for training and for ranking, or its source's held-out samples for measuring.

    Images are as the probe networks saw them, in the recipe's mode and size; where the proxy keeps some labels only, so do the
    other samples, and labels are numbered as in the proxy. Everything is in memory, four bytes a value.

    Args:
        folder: The proxy.
        split: `train` to train on, `validation` to rank on; `evaluation` or `test` for the samples that its source holds out.
        soft_labels: Whether to give, of the split `train`, soft labels in place of labels: float32 (L,), which torch's `cross_entropy` takes.
        source: For `evaluation` and `test`, where the source lies: a folder or a recipe that says so, or the same data in memory; None
            for where this machine last read it. The proxy holds the samples of its own splits.
        store: Where decoded images are kept; None for the user's own.

    Returns:
        Pairs of an image, float32 (C, H, W) in [0, 1], and its label, int64; all of them are in `.tensors`.

    Raises:
        SplitNotFoundError: There is no such split, or the proxy holds no samples to rank on.
        ArgumentError: A source is given for a split of the proxy itself, or soft labels are asked for that are not there.
        ArtifactError: The folder is no proxy.
        SourceError: The source is not at hand.
        ChangedSourceError: The source is not the one that the proxy was made from.
    """
    folder = as_path(folder, "folder")
    if split not in SPLITS:
        raise SplitNotFoundError(f"torch_dataset: split must be one of {', '.join(SPLITS)}, got {split!r}")
    images_of = _OWN_TABLES.get(split, ())
    if images_of and source is not None:
        raise ArgumentError(f"source: must be left out for the split {split}, which the proxy holds itself")
    if soft_labels and (why := _find_no_soft_labels(folder, split)):
        raise ArgumentError(f"soft_labels: must be left out, {why}")
    manifest, tables = read_proxy(folder, with_ranking=False, images_of=images_of)
    if images_of:
        table = tables.data if split == "train" else tables.validation
        if table is None:
            raise SplitNotFoundError(
                f"{folder}: must hold samples to rank on, it holds none: {_advise_ranking(manifest)}"
            )
        pixels, labels = (
            _decode_table(folder, manifest, images_of[0], table),
            table["label"].to_numpy().astype(np.int64),
        )
        if soft_labels:
            values = table[SOFT_LABEL].combine_chunks().flatten().to_numpy()
            labels = values.reshape(len(pixels), -1).copy()
    else:
        recipe, store = read_own_recipe(folder), as_store(store)
        place = find_source(recipe.source, manifest, source, store)
        run = partial(run_stored, store=store, engine=InProcess(), on_progress=ignore_progress)
        data = read_source(recipe, place, run, id_rule=manifest.source.id_rule)
        with naming_place(place):
            _check_source(data, manifest, tables)
        remember_source(recipe, data, place, store)
        pixels, labels = _take_held_out(data, split, manifest)
    return TensorDataset(torch.from_numpy(pixels).float().div_(255), torch.from_numpy(labels))


def _find_no_soft_labels(folder: Path, split: str) -> str:
    """Says why a split has no soft labels, and who has some; nothing where it has."""
    if split != "train":
        return f"the split {split} has none; only train, which networks learn, has"
    manifest = read_manifest(folder)
    if manifest.index_of is not None:
        return f"{folder} was made from an index, which lists none; build it from its recipe"
    return "" if manifest.has_soft_labels else f"{folder} has none; build it with training.soft_labels: true"


def _advise_ranking(manifest: Manifest) -> str:
    """Says why a proxy holds no samples to rank on, and which there are instead."""
    if manifest.protocol == "paper":
        return (
            "by the paper's protocol they are the test samples, which never travel; the source has them, split `evaluation`, but a ranking "
            "on them is circular where they chose the proxy, and no others are left to measure the winner on"
        )
    return "its recipe or its format leaves them out; rank on those of its source, split `evaluation`"


def _decode_table(folder: Path, manifest: Manifest, name: str, table: pa.Table) -> NDArray[np.uint8]:
    if manifest.image_shape is None:
        raise ArtifactError(f"{folder}: must say its images' shape, which format 1.0 did not; build it again")
    n_channels, height, width = manifest.image_shape
    size = height if height == width else None  # others are as they are
    images = [image["bytes"] for image in table["image"].to_pylist()]
    n_encoded = sum(map(len, images))
    n_decoded = _BYTES_OF_A_VALUE * table.num_rows * n_channels * height * width
    if n_decoded > MAX_DECODED_GROWTH * n_encoded + FREE_BYTES:
        raise ArtifactError(
            f"{folder}: image_shape must be one that its images can have, {n_channels}x{height}x{width} makes {n_decoded:,} bytes of "
            f"{n_encoded:,}; do not use this proxy"
        )
    spec = Images.model_construct(image_mode="L" if n_channels == 1 else "RGB", image_size=size)
    pixels = np.empty((table.num_rows, n_channels, height, width), np.uint8)
    for i, encoded in enumerate(images):
        try:
            with open_image(encoded) as image:
                decoded = convert_image(image, spec)
            if decoded.shape != pixels.shape[1:]:
                raise ValueError(f"it has {'x'.join(map(str, decoded.shape))}")
            pixels[i] = decoded
        except DECODE_ERRORS as error:
            raise ArtifactError(
                f"{folder}: image {i} of {name} must decode to {n_channels}x{height}x{width} pixels, it does not: {error}; fetch or build "
                "it again"
            ) from None
    return pixels


def _check_source(data: Source, manifest: Manifest, tables: Tables) -> None:
    if manifest.index_of is None:
        ids = [table["sample_id"].to_pylist() for table in (tables.importance, tables.evaluation)]
        check_same(data, manifest.source.fingerprint, *ids)
    elif data.facts.fingerprint != manifest.source.fingerprint:
        raise ChangedSourceError(
            f"source: must be the one that the proxy was made from, {data.facts.name} has another fingerprint; find the data that was used "
            "(source=...)"
        )


def _take_held_out(data: Source, split: str, manifest: Manifest) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    samples = data.evaluation if split == "evaluation" else data.test
    if manifest.kept_labels is not None:
        samples = samples.keep_labels(np.array(manifest.kept_labels))
    return samples.pixels()[:], samples.labels
