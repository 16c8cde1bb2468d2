"""Soft labels: what the heaviest probe makes of every training sample, a probability for each label (Hinton et al. 2015).

The paper has none. A study found that networks which learn them rank better on few samples, see docs/soft-labels.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from proxyds.data.pixels import FileAt
from proxyds.data.samples import SHARD, Samples, SoftLabels, StreamedSamples
from proxyds.runtime.storage.store import Entry
from proxyds.runtime.task import Done, Report, Task
from proxyds.selection.probe import Probe
from proxyds.training.inference import measure_probabilities
from proxyds.training.job import within_memory
from proxyds.training.model import load_network

STAGE, STAGE_VERSION = "soft-labels", 1
_FILE = "log_probabilities.npy"


def soft_label_tasks(probe: Probe, device: str) -> list[Task]:
    """Splits the question what a probe makes of its training samples into tasks of `SHARD` samples.

    Where training mirrors images, probabilities are means over an image and its mirror image.

    Args:
        probe: The heaviest one's first training.
        device: `cpu` or a CUDA device.
    """
    job, weights = probe.job, probe.result.entry
    n_shards, mirrored = -(-len(job.train) // SHARD), job.settings.horizontal_flip
    asked = {"version": STAGE_VERSION, "probe": weights.key, "samples": job.train.fingerprint, "mirrored": mirrored}
    return [
        Task(
            stage=STAGE,
            name=f"soft labels {shard + 1}/{n_shards}",
            inputs={**asked, "shard": shard},
            function=ask_shard,
            arguments={
                "weights_file": weights.file("weights.safetensors"),
                "network": job.architecture.network,
                "parameters": job.architecture.parameters,
                "samples": job.train.part(shard),
                "mirrored": mirrored,
                "device": device,
                "precision": job.settings.precision,
            },
        )
        for shard in range(n_shards)
    ]


def count_flops(probe: Probe) -> int:
    """Counts the operations of `soft_label_tasks`."""
    job = probe.job
    return (1 + job.settings.horizontal_flip) * len(job.train) * job.architecture.forward_flops


def ask_shard(
    *,
    folder: Path,
    report: Report,
    weights_file: FileAt,
    network: str,
    parameters: dict[str, Any],
    samples: Samples | StreamedSamples,
    mirrored: bool,
    device: str,
    precision: str,
) -> None:
    """Writes `log_probabilities.npy`, (n, L) float32: what a network makes of some samples."""
    with within_memory(network, device, "smaller images (source.image_size)"):
        loaded = load_network(weights_file.path, network, parameters)
        np.save(folder / _FILE, measure_probabilities(loaded, samples.pixels(), device, precision, mirrored=mirrored))
    report(1, 1, "")


def open_soft_labels(results: Sequence[Done], n: int) -> SoftLabels:
    """Opens the soft labels of n samples that tasks of `soft_label_tasks` wrote; reads nothing yet."""
    entries: list[Entry] = [result.entry for result in results]
    return SoftLabels(
        files=tuple(entry.file(_FILE) for entry in entries),
        file_starts=tuple(range(0, n, SHARD)),
        rows=np.arange(n),
        fingerprint=hashlib.sha256("\n".join(entry.key for entry in entries).encode()).hexdigest(),
    )
