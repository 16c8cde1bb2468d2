"""What happened in a build becomes the proxy's manifest, but for the list of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

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
from proxyds.recipe.models import Recipe
from proxyds.selection.records import Agreement, Architecture, Draw, Mapping, Probe, Source
from proxyds.space.networks import describe_origin


def describe_build(
    recipe: Recipe,
    data: Source,
    architectures: Sequence[Architecture],
    probes: Sequence[Probe],
    agreement: Agreement | None,
    draw: Draw,
    layer: str,
    mapping: Mapping,
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
