"""What happened in a build becomes the proxy's manifest, but for the list of files."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import loky

from proxyds.artifact.manifest import (
    FORMAT_VERSION,
    AgreementRecord,
    CountsRecord,
    DrawRecord,
    MachineRecord,
    Manifest,
    MappingRecord,
    ParentRecord,
    ProbeRecord,
    ReductionRecord,
    SourceRecord,
    SpaceRecord,
    StageRecord,
    TrainingRecord,
)
from proxyds.data.chunked import count
from proxyds.data.samples import Source
from proxyds.progress import OnProgress, Progress
from proxyds.recipe.models import Recipe
from proxyds.runtime.machine import describe_arithmetic
from proxyds.runtime.task import Done
from proxyds.selection.records import Agreement, Draw, NearestMap, Probe
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import describe_origin


def describe_build(
    recipe: Recipe,
    data: Source,
    architectures: Sequence[Architecture],
    probes: Sequence[Probe],
    agreement: Agreement | None,
    draw: Draw,
    layer: str,
    mapping: NearestMap,
    stages: Sequence[StageRecord],
    built_on: MachineRecord,
) -> Manifest:
    """Puts a build's records into a manifest, but for the list of files.

    Args:
        recipe: As run.
        data: The source.
        architectures: The space, from the lightest to the heaviest.
        probes: For each repeat from the lightest to the heaviest.
        agreement: Of the repeats' cases.
        draw: The proxy's samples and labels.
        layer: That features came from.
        mapping: To the nearest evaluation samples.
        stages: What each took.
        built_on: The machine.
    """
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        licence=recipe.licence,
        recipe_sha256=recipe.sha256,
        protocol=recipe.importance.protocol,
        seed=recipe.seed,
        label_names=data.label_names,
        kept_labels=_list_kept(draw),
        image_shape=(1 if data.image_shape[0] == 1 else 3, *data.image_shape[1:]),
        counts=_count_samples(data, draw),
        source=SourceRecord(**asdict(data.facts)),
        space=SpaceRecord(
            network=architectures[0].network,
            origin=describe_origin(architectures[0].network),
            shared_parameters=_find_shared(architectures),
            n_architectures=len(architectures),
            lightest_training_flops=architectures[0].training_flops,
            heaviest_training_flops=architectures[-1].training_flops,
        ),
        training=TrainingRecord.model_validate(recipe.training.model_dump()),
        probes=tuple(
            ProbeRecord(
                name=each.architecture.name,
                repeat=each.repeat,
                network=each.architecture.network,
                parameters=each.architecture.parameters,
                forward_flops=each.architecture.forward_flops,
                training_flops_per_sample=each.architecture.training_flops,
                n_parameters=each.architecture.n_parameters,
                accuracy=each.accuracy,
                losses=each.losses,
                training_seconds=each.training_seconds,
                training_flops=each.training_flops,
            )
            for each in probes
        ),
        agreement=None if agreement is None else AgreementRecord(**asdict(agreement)),
        mapping=MappingRecord(
            layer=layer,
            metric=recipe.similarity.metric,
            neighbours=mapping.n_neighbours,
            n_dimensions=mapping.n_dimensions,
            explained_variance=mapping.explained_variance,
        ),
        draw=_describe_draw(recipe, data, draw),
        stages=tuple(stages),
        machine=built_on,
        created=_now(),
        gallery=recipe.output.gallery,
    )


def describe_resampling(
    parent: Manifest,
    parent_sha256: str,
    recipe: Recipe,
    data: Source,
    draw: Draw,
    stages: Sequence[StageRecord],
) -> Manifest:
    """The manifest of a proxy that was drawn again from another's importance table, but for the list of files.

    What the probes were, took and ran on stays as it was.

    Args:
        parent: The other's manifest.
        parent_sha256: Of that manifest's file.
        recipe: Of the new proxy.
        data: The source.
        draw: The new proxy's samples and labels.
        stages: What each stage took that was run again.
    """
    again = {each.stage: each for each in stages}
    return parent.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "name": recipe.name,
            "version": recipe.version,
            "licence": recipe.licence,
            "recipe_sha256": recipe.sha256,
            "kept_labels": _list_kept(draw),
            "counts": _count_samples(data, draw),
            "source": SourceRecord(**asdict(data.facts)),
            "draw": _describe_draw(recipe, data, draw),
            "stages": tuple(again.get(each.stage, _as_stored(each)) for each in parent.stages),
            "created": _now(),
            "gallery": recipe.output.gallery,
            "resampled_from": ParentRecord(
                name=parent.name,
                version=parent.version,
                recipe_sha256=parent.recipe_sha256,
                manifest_sha256=parent_sha256,
            ),
            "evidence": None,
            "files": {},
        }
    )


def _as_stored(stage: StageRecord) -> StageRecord:
    return stage.model_copy(update={"elapsed_seconds": 0.0, "was_stored": True})


def _list_kept(draw: Draw) -> tuple[int, ...] | None:
    return None if draw.kept_labels is None else tuple(draw.kept_labels.tolist())


def _count_samples(data: Source, draw: Draw) -> CountsRecord:
    return CountsRecord(
        train=len(data.train), evaluation=len(data.evaluation), test=len(data.test), proxy=int(draw.selected.sum())
    )


def _describe_draw(recipe: Recipe, data: Source, draw: Draw) -> DrawRecord:
    return DrawRecord(
        method=recipe.selection.method,
        law=recipe.selection.draw,
        ratio=recipe.selection.ratio,
        constants=recipe.importance.constants,
        labels=_describe_reduction(recipe, data, draw),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _find_shared(architectures: Sequence[Architecture]) -> dict[str, Any]:
    """The parameters that have one value in all architectures."""
    first = architectures[0].parameters
    return {name: first[name] for name in first if all(each.parameters[name] == first[name] for each in architectures)}


def _describe_reduction(recipe: Recipe, data: Source, draw: Draw) -> ReductionRecord | None:
    reduction = recipe.selection.labels
    if reduction is None or draw.kept_labels is None:
        return None
    of_kept = int(count(data.train.labels, len(data.label_names))[draw.kept_labels].sum())
    return ReductionRecord(order=reduction.order, choice=reduction.choice, share=float(draw.selected.sum() / of_kept))


LIBRARIES = ("proxyds", "torch", "numpy", "datasets", "pillow", "pyarrow", "webdataset", "scikit-learn", "matplotlib")


def describe_machine(
    device: str, n_workers: int | None = None, computations: Mapping[str, str] | None = None
) -> MachineRecord:
    """What the manifest says of the machine; no host name, no path.

    Args:
        device: Where networks were trained.
        n_workers: How many at once; None where none was.
        computations: How each of them computed, by its name.
    """
    return MachineRecord(
        device=describe_arithmetic(device)["device"],
        processor=_processor(),
        n_cores=loky.cpu_count(),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
        n_workers=n_workers,
        computations=dict(computations or {}),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Ledger:
    """Records stages that follow one another; a stage begins where the one before ended.

    Args:
        on_progress: Told of every stage that ends.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self.stages: list[StageRecord] = []
        self._on_progress = on_progress
        self._started = time.perf_counter()

    def end_stage(self, name: str, results: Sequence[Done] = (), flops: int = 0) -> None:
        """Ends a stage.

        Args:
            name: Of the stage.
            results: Of its tasks, if it has any.
            flops: Floating-point operations of its networks.
        """
        now = time.perf_counter()
        elapsed = now - self._started
        record = StageRecord(
            stage=name,
            work_seconds=sum(result.entry.seconds for result in results) if results else elapsed,
            elapsed_seconds=elapsed,
            flops=flops,
            was_stored=bool(results) and all(result.was_stored for result in results),
        )
        self.stages.append(record)
        self._started = now
        self._on_progress(Progress(name, "", 1, 1, "found done" if record.was_stored else ""))
