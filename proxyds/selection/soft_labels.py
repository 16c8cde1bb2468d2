"""Soft labels: what the heaviest probe makes of every training sample, a probability for each label (Hinton et al. 2015).

The paper has none. A study found a training with them that ranks better on few samples, see docs/soft-labels.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxyds.data.pixels import FileAt
from proxyds.data.samples import SHARD, Samples, SoftLabels, StreamedSamples
from proxyds.runtime.storage.store import Entry, Store, StoredFile, content_key
from proxyds.runtime.task import Report, Task
from proxyds.selection.probe import ProbeJob
from proxyds.space.architecture import Architecture
from proxyds.training.inference import measure_probabilities
from proxyds.training.job import within_memory
from proxyds.training.model import load_network

STAGE, STAGE_VERSION = "soft-labels", 1
_FILE = "log_probabilities.npy"


def name_soft_labels(teacher: ProbeJob, store: Store) -> SoftLabels:
    """Names the soft labels of a probe's training samples by where the store has them, or will have them.

    Args:
        teacher: The training of the probe; whether it was asked after each epoch, too, makes no difference.
        store: Where results are kept.
    """
    keys = [content_key(STAGE, inputs) for inputs in _list_inputs(teacher)]
    return SoftLabels(
        files=tuple(StoredFile(store.place, STAGE, key, _FILE) for key in keys),
        file_starts=tuple(range(0, len(teacher.train), SHARD)),
        rows=np.arange(len(teacher.train)),
        fingerprint=hashlib.sha256("\n".join(keys).encode()).hexdigest(),
    )


def are_stored(teacher: ProbeJob, store: Store) -> bool:
    """Tells whether the store has a probe's soft labels."""
    return all(store.find(STAGE, content_key(STAGE, inputs)) is not None for inputs in _list_inputs(teacher))


def find_weights(teacher: ProbeJob, store: Store) -> Entry | None:
    """Finds the stored training of a probe, whether it was asked after each epoch or not: that changes nothing of its weights."""
    tasks = [replace(teacher, keep_answers=keep).task for keep in (False, True)]
    found = (store.find(task.stage, task.key) for task in tasks)
    return next((entry for entry in found if entry is not None), None)


def soft_label_tasks(teacher: ProbeJob, weights: Entry, device: str) -> list[Task]:
    """Splits the question what a probe makes of its training samples into tasks of `SHARD` samples.

    Where training mirrors images, probabilities are means over an image and its mirror image.

    Args:
        teacher: The probe's training.
        weights: What `probe.train_probe` stored of it.
        device: `cpu` or a CUDA device.
    """
    listed = list(_list_inputs(teacher))
    return [
        Task(
            stage=STAGE,
            name=f"soft labels {shard + 1}/{len(listed)}",
            inputs=inputs,
            function=ask_shard,
            arguments={
                "weights_file": weights.file("weights.safetensors"),
                "architecture": teacher.architecture,
                "samples": teacher.train.part(shard),
                "mirrored": teacher.settings.horizontal_flip,
                "device": device,
                "precision": teacher.settings.precision,
            },
        )
        for shard, inputs in enumerate(listed)
    ]


def _list_inputs(teacher: ProbeJob) -> Iterator[dict[str, Any]]:
    """Lists what each task's result depends on."""
    probe, mirrored = replace(teacher, keep_answers=False).task.key, teacher.settings.horizontal_flip
    for shard in range(-(-len(teacher.train) // SHARD)):
        yield {"version": STAGE_VERSION, "probe": probe, "mirrored": mirrored, "shard": shard}


def count_flops(teacher: ProbeJob) -> int:
    """Counts the operations of `soft_label_tasks`."""
    n_asked = (1 + teacher.settings.horizontal_flip) * len(teacher.train)
    return n_asked * teacher.architecture.forward_flops


def ask_shard(
    *,
    folder: Path,
    report: Report,
    weights_file: FileAt,
    architecture: Architecture,
    samples: Samples | StreamedSamples,
    mirrored: bool,
    device: str,
    precision: str,
) -> None:
    """Writes `log_probabilities.npy`, (n, L) float32: what a network makes of some samples."""
    with within_memory(architecture.name, device, "smaller images (source.image_size)"):
        network = load_network(weights_file.path, architecture.network, architecture.parameters)
        np.save(folder / _FILE, measure_probabilities(network, samples.pixels(), device, precision, mirrored=mirrored))
    report(1, 1, "")


def store_soft_labels(probabilities: NDArray[np.float32], store: Store) -> SoftLabels:
    """Puts the soft labels that a proxy has of its own samples, (n, L), into the store, so that trainings anywhere can read them."""
    content = hashlib.sha256(f"{probabilities.shape}".encode() + probabilities.astype("<f4").tobytes()).hexdigest()
    key = content_key(STAGE, {"version": STAGE_VERSION, "content": content})
    with store.locking(STAGE, key, lambda: None) as is_missing:
        if is_missing:
            with store.writing(STAGE, key, "soft labels of a proxy") as folder, np.errstate(divide="ignore"):
                np.save(folder / _FILE, np.log(probabilities))
    return SoftLabels((StoredFile(store.place, STAGE, key, _FILE),), (0,), np.arange(len(probabilities)), content)
