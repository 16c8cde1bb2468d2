"""Makes the proxy's manifest, but for the list of files, from what happened in a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from proxyds.artifact.evidence_records import MachineRecord
from proxyds.artifact.manifest import (
    FORMAT_VERSION,
    AgreementRecord,
    CountsRecord,
    DrawRecord,
    IndexedRecord,
    Manifest,
    MappingRecord,
    ParentRecord,
    ProbeRecord,
    ReductionRecord,
    SourceRecord,
    SpaceRecord,
    TrainerRecord,
    TrainingRecord,
)
from proxyds.data.samples import SourceFacts
from proxyds.pipeline.stages import Scored, Session, describe_machine
from proxyds.recipe.models import Recipe
from proxyds.recipe.sections.training import Training
from proxyds.selection.probe import Probe
from proxyds.selection.records import Draw
from proxyds.space.architecture import Architecture
from proxyds.space.networks.build import describe_origin


def describe_build(
    session: Session, architectures: Sequence[Architecture], scored: Scored, draw: Draw, built_on: MachineRecord
) -> Manifest:
    """Makes the manifest of a proxy that was built on a machine; `architectures` is the space, from the lightest to the heaviest."""
    recipe, data, mapping, agreement = session.recipe, session.data, scored.mapping, scored.outcomes.agreement
    return Manifest(
        **_describe_draw(session, draw),
        protocol=recipe.importance.protocol,
        seed=recipe.seed,
        label_names=data.label_names,
        image_shape=(1 if data.image_shape[0] == 1 else 3, *data.image_shape[1:]),
        space=SpaceRecord(
            network=architectures[0].network,
            origin=describe_origin(architectures[0].network),
            shared_parameters=_find_shared(architectures),
            n_architectures=len(architectures),
            lightest_training_flops=architectures[0].training_flops,
            heaviest_training_flops=architectures[-1].training_flops,
        ),
        training=_describe_training(recipe.training),
        probes=tuple(map(_describe_probe, scored.probes)),
        agreement=None if agreement is None else AgreementRecord(**asdict(agreement)),
        mapping=MappingRecord(
            layer=scored.layer,
            metric=recipe.similarity.metric,
            neighbours=mapping.n_neighbours,
            n_dimensions=mapping.n_dimensions,
            explained_variance=mapping.explained_variance,
        ),
        stages=tuple(session.clock.stages),
        machine=built_on,
    )


def describe_resampling(session: Session, parent: Manifest, parent_sha256: str, draw: Draw) -> Manifest:
    """Makes the manifest of a proxy that was drawn again from another's importance table.

    What the probes were, took and ran on stays as it was.

    Args:
        session: The new proxy's recipe at work.
        parent: The other proxy's manifest.
        parent_sha256: The sha256 of that manifest's file.
        draw: The new proxy's samples and labels.
    """
    again = {each.stage: each for each in session.clock.stages}
    return parent.model_copy(
        update={
            **_describe_draw(session, draw),
            "source": _describe_source(session.data.facts, parent.source),
            "format_version": FORMAT_VERSION,
            "stages": tuple(
                again.get(each.stage) or each.model_copy(update={"elapsed_seconds": 0.0, "was_stored": True})
                for each in parent.stages
            ),
            "resampled_from": ParentRecord(
                name=parent.name,
                version=parent.version,
                recipe_sha256=parent.recipe_sha256,
                manifest_sha256=parent_sha256,
            ),
            "index_of": None,
            "evidence": None,
            "files": {},
        }
    )


def describe_indexed(session: Session, parent: Manifest, index_of: IndexedRecord) -> Manifest:
    """Makes the manifest of a proxy that was made from an index: how its samples were chosen is as the other proxy's manifest says.

    Args:
        session: The recipe at work.
        parent: The other proxy's manifest.
        index_of: What tells of that proxy and its index.
    """
    return parent.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "source": _describe_source(session.data.facts, parent.source),
            "stages": tuple(session.clock.stages),
            "machine": describe_machine("cpu"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "resampled_from": None,
            "index_of": index_of,
            "evidence": None,
            "files": {},
        }
    )


def tell_same_version(recipe: Recipe, other: Manifest, what: str, remedy: str) -> list[str]:
    """Says that another proxy has the name and version of the new one, if it has.

    Args:
        recipe: The new proxy's.
        other: The other proxy's manifest.
        what: What the other proxy is to the new one.
        remedy: What to do.
    """
    if (recipe.name, recipe.version) != (other.name, other.version):
        return []
    is_another = f"{other.name} {other.version} is the proxy that {what}, and the new one is another"
    return [f"version: {is_another}; {remedy} (--set version=...)"]


def _describe_source(facts: SourceFacts, known: SourceRecord) -> SourceRecord:
    """Describes a source that was read again: the very one keeps the name by which it is known, wherever it lies now.

    Args:
        facts: Of what was read.
        known: What the other proxy's manifest says of its own source.
    """
    read = SourceRecord(**asdict(facts))
    if read.fingerprint != known.fingerprint:
        return read
    is_from_hub = (read.kind, read.name, read.revision) == (known.kind, known.name, known.revision)
    is_local_copy = known.kind == "hub" and (read.is_local_copy or not is_from_hub)
    origin = {"name": known.name, "revision": known.revision, "kind": known.kind}
    return read.model_copy(update={**origin, "is_local_copy": is_local_copy})


def _describe_draw(session: Session, draw: Draw) -> dict[str, Any]:
    """Describes what was drawn, by which recipe and from which source: whether probes were trained for it or not."""
    recipe, data, n_proxy, labels = session.recipe, session.data, int(draw.selected.sum()), None
    n_validation = 0 if draw.validation is None else int(draw.validation.sum())
    reduction = recipe.selection.labels
    if reduction is not None and draw.kept_labels is not None:
        n_of_kept = int(data.label_counts[draw.kept_labels].sum())
        labels = ReductionRecord(order=reduction.order, choice=reduction.choice, share=n_proxy / n_of_kept)
    return {
        "name": recipe.name,
        "version": recipe.version,
        "licence": recipe.licence,
        "recipe_sha256": recipe.sha256,
        "kept_labels": None if draw.kept_labels is None else tuple(draw.kept_labels.tolist()),
        "counts": CountsRecord(
            train=len(data.train),
            evaluation=len(data.evaluation),
            test=len(data.test),
            proxy=n_proxy,
            validation=n_validation,
        ),
        "source": SourceRecord(**asdict(data.facts)),
        "draw": DrawRecord(
            method=recipe.selection.method,
            law=recipe.selection.draw,
            ratio=recipe.selection.ratio,
            constants=recipe.importance.constants,
            labels=labels,
        ),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "gallery": recipe.output.gallery,
    }


def _describe_training(settings: Training) -> TrainingRecord | TrainerRecord:
    if settings.trainer is not None:
        return TrainerRecord(trainer=settings.trainer)
    return TrainingRecord.model_validate(settings.model_dump())


def _describe_probe(probe: Probe) -> ProbeRecord:
    job, architecture = probe.job, probe.job.architecture
    return ProbeRecord(
        name=architecture.name,
        repeat=job.repeat,
        network=architecture.network,
        parameters=architecture.parameters,
        forward_flops=architecture.forward_flops,
        training_flops_per_sample=architecture.training_flops,
        n_parameters=architecture.n_parameters,
        accuracy=probe.accuracy,
        losses=probe.losses,
        training_seconds=probe.training_seconds,
        training_flops=job.training_flops,
    )


def _find_shared(architectures: Sequence[Architecture]) -> dict[str, Any]:
    """Finds the parameters that have one value in all architectures."""
    first = architectures[0].parameters
    return {name: first[name] for name in first if all(each.parameters[name] == first[name] for each in architectures)}
