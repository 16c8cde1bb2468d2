"""The table of contents: the stages in order, and nothing else that is clever.

recipe -> source -> space -> probes -> importance -> similarity -> selection -> artifact and card
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from proxyds import artifact, machine, probe, selection, similarity, source, space
from proxyds.card import render_card
from proxyds.engine import Done, Engine, Here, LocalWorkers, Task, run_stored
from proxyds.errors import CardDriftError, translate_os_errors
from proxyds.folders import whole_folder
from proxyds.importance import score_importance
from proxyds.manifest import (
    RECIPE,
    CountsRecord,
    DrawRecord,
    Manifest,
    MappingRecord,
    ProbeRecord,
    SourceRecord,
    SpaceRecord,
    StageRecord,
)
from proxyds.recipe import Recipe
from proxyds.recipe_yaml import read_recipe, write_recipe
from proxyds.records import Architecture, Mapping, OnProgress, Probe, Progress, Samples, Source, Tables, ignore_progress
from proxyds.store import Store


@dataclass(frozen=True)
class Built:
    """A proxy on disk.

    Attributes:
        folder: Where it is.
        manifest: What it says of itself.
        was_there: Whether the very proxy stood there already and nothing was written.
    """

    folder: Path
    manifest: Manifest
    was_there: bool


@dataclass(frozen=True)
class PlannedProbe:
    """A probe that a build would train.

    Attributes:
        architecture: Which network.
        is_stored: Whether the store holds it already.
        flops: Of the whole training.
        expected_seconds: Of the training alone on this machine; 0 where it is stored.
    """

    architecture: Architecture
    is_stored: bool
    flops: int
    expected_seconds: float


@dataclass(frozen=True)
class Plan:
    """What a build would do.

    Attributes:
        source: The data set, read and split.
        architectures: The space, from the lightest to the heaviest.
        probes: What each would cost.
        n_selected: Samples that the proxy would hold.
        n_workers: Trainings at once.
    """

    source: Source
    architectures: list[Architecture]
    probes: list[PlannedProbe]
    n_selected: int
    n_workers: int

    @property
    def expected_seconds(self) -> float:
        """Of all trainings, side by side: the longest, or an even share of the sum."""
        seconds = [each.expected_seconds for each in self.probes]
        return max(max(seconds), sum(seconds) / self.n_workers)


def build(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    store: Store | None = None,
    workers: int = 0,
    device: str = "auto",
    force: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Built:
    """Builds a proxy (Algorithm 1 of the paper, whole).

    Finished stages are kept in the store, so that a build that was stopped goes on where it was, and another ratio
    trains nothing. The folder appears whole or not at all.

    Args:
        recipe: What to build, or the file that says so.
        out: The folder to make. A proxy that is there is replaced only with `force`; anything else is never touched.
        store: Where finished work is kept; None for the user's own.
        workers: Processes at once; 0 for one for each core.
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.
        force: Replace another proxy at `out`.
        on_progress: Called as work goes on.

    Raises:
        ProxydsError: Anything that the user can mend; each class says what.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    store, out = store or Store(), Path(out).absolute()
    device, engine = choose_engine(device, workers)
    there = artifact.check_output(out)
    _check_writable(out)
    with engine:
        return _build(recipe, out, there, force, store, engine, device, on_progress)


def _build(
    recipe: Recipe,
    out: Path,
    there: Manifest | None,
    force: bool,
    store: Store,
    engine: Engine,
    device: str,
    on_progress: OnProgress,
) -> Built:
    """Runs the stages in order; see `build`."""
    clock = _Clock(on_progress)
    data = source.load_source(recipe, store, engine, on_progress)
    clock.stage("source")
    if there is not None and _is_same(there, recipe, data):
        if not force:
            return Built(out, artifact.verify_proxy(out), was_there=True)
    elif there is not None and not force:
        raise artifact.another_proxy(out, there)
    selection.check_ratio(data.train.labels, data.label_names, recipe.selection.ratio)

    architectures = space.list_architectures(recipe.space, len(data.label_names), data.image_shape)
    chosen = space.choose_probes(architectures, recipe.probes)
    layer = similarity.check_layer(chosen[-1], recipe.similarity.layer, len(data.label_names), data.image_shape)
    clock.stage("space")

    trained, probe_results = _train_probes(recipe, data, chosen, device, store, engine, on_progress)
    for each in trained:
        probe.check_above_chance(each, data.evaluation.labels)
    clock.stage("probes", probe_results, sum(each.training_flops for each in trained))

    outcomes = score_importance(
        [each.predictions for each in trained], data.evaluation.labels, recipe.importance.constants
    )
    clock.stage("importance")

    weights_key = probe_results[-1].entry.key
    train_features, evaluation_features, feature_results = _extract_features(
        data, trained[-1], weights_key, layer, device, store, engine, on_progress
    )
    n_featured = len(data.train) + len(data.evaluation)
    clock.stage("features", feature_results, n_featured * trained[-1].architecture.forward_flops)

    mapping = similarity.map_to_nearest(
        train_features,
        evaluation_features,
        n_neighbours=recipe.similarity.neighbours,
        metric=recipe.similarity.metric,
        dimensions=recipe.similarity.dimensions,
    )
    clock.stage("similarity")

    draw = selection.draw_samples(
        data.train.ids,
        data.train.labels,
        data.label_names,
        mapping,
        outcomes,
        ratio=recipe.selection.ratio,
        law=recipe.selection.draw,
        seed=recipe.seed,
    )
    clock.stage("selection")

    with translate_os_errors(str(out), "choose another -o"), whole_folder(out, replace=there is not None) as folder:
        datasets = artifact.make_tables(data, trained, outcomes, mapping, draw)
        artifact.write_tables(folder, datasets, recipe.output.samples_per_shard)
        tables = artifact.as_tables(datasets)
        artifact.write_tars(folder, tables.data, data.label_names, recipe.output.samples_per_shard)
        (folder / RECIPE).write_text(write_recipe(recipe), encoding="utf-8")
        clock.stage("artifact")
        manifest = _describe(recipe, data, architectures, trained, layer, mapping, tables, clock.stages, device)
        _write_card(folder, manifest, tables)
        manifest = artifact.write_manifest(folder, manifest)
    return Built(out, manifest, was_there=False)


def plan_build(
    recipe: Recipe | str | Path,
    *,
    store: Store | None = None,
    workers: int = 0,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
) -> Plan:
    """Says what `build` would do: reads the source and times a few training steps, but trains and writes nothing."""
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    store = store or Store()
    device, engine = choose_engine(device, workers)
    with engine:
        data = source.load_source(recipe, store, engine, on_progress)
    selection.check_ratio(data.train.labels, data.label_names, recipe.selection.ratio)
    architectures = space.list_architectures(recipe.space, len(data.label_names), data.image_shape)
    chosen = space.choose_probes(architectures, recipe.probes)
    similarity.check_layer(chosen[-1], recipe.similarity.layer, len(data.label_names), data.image_shape)
    tasks = _probe_tasks(recipe, data, chosen, device)
    planned = []
    for architecture, task in zip(chosen, tasks, strict=True):
        is_stored = store.find(task.stage, task.key) is not None
        flops = recipe.training.epochs * len(data.train) * architecture.training_flops
        seconds = 0.0 if is_stored else probe.expect_seconds(task)
        planned.append(PlannedProbe(architecture, is_stored, flops, seconds))
    n_workers = engine.n_workers if isinstance(engine, LocalWorkers) else 1
    return Plan(data, architectures, planned, round(recipe.selection.ratio * len(data.train)), n_workers)


def render(folder: str | Path, *, check_only: bool = False) -> list[str]:
    """Renders a proxy's card again from its records.

    Args:
        folder: The proxy.
        check_only: Compare and change nothing.

    Returns:
        The card's files that differed from what the records render to (and, unless `check_only`, were replaced).

    Raises:
        VerificationError: The proxy itself is damaged.
        CardDriftError: With `check_only`, a file differs.
    """
    folder = Path(folder)
    manifest = artifact.read_manifest(folder)
    tables = artifact.read_tables(folder)
    files = render_card(manifest, tables).files()
    changed = [name for name, held in files.items() if artifact.read_bytes(folder / name) != held]
    if changed and check_only:
        raise CardDriftError(
            f"{folder}: {', '.join(changed)} must be what the records render to; `proxyds card {folder}` renders them again"
        )
    if changed:
        artifact.verify_proxy(folder, but_for=set(files))
        with translate_os_errors(str(folder), "copy the proxy to another place"):
            for name in changed:
                artifact.replace_file(folder / name, files[name])
            artifact.write_manifest(folder, manifest)
    return changed


def choose_engine(device: str, workers: int) -> tuple[str, Engine]:
    """Decides where tasks run: one after the other on a GPU, else in as many processes as cores."""
    device = machine.choose_device(device)
    return device, Here() if device.startswith("cuda") else LocalWorkers(workers)


def _probe_tasks(recipe: Recipe, data: Source, chosen: Sequence[Architecture], device: str) -> list[Task]:
    content = {
        "train": _fingerprint(data.train),
        "evaluation": _fingerprint(data.evaluation),
        "image_shape": "x".join(str(side) for side in data.image_shape),
        **machine.describe_arithmetic(device),
    }
    return [
        probe.probe_task(
            architecture,
            data.train,
            data.evaluation,
            n_labels=len(data.label_names),
            image_shape=data.image_shape,
            settings=recipe.training,
            seed=recipe.seed,
            device=device,
            content=content,
        )
        for architecture in chosen
    ]


def _train_probes(
    recipe: Recipe,
    data: Source,
    chosen: Sequence[Architecture],
    device: str,
    store: Store,
    engine: Engine,
    on_progress: OnProgress,
) -> tuple[list[Probe], list[Done]]:
    tasks = _probe_tasks(recipe, data, chosen, device)
    results = run_stored(tasks[::-1], store, engine, on_progress)[::-1]  # the heaviest starts first
    probes = [
        probe.read_probe(result.entry, architecture, data.evaluation.labels, recipe.training, len(data.train))
        for result, architecture in zip(results, chosen, strict=True)
    ]
    return probes, results


def _extract_features(
    data: Source,
    heaviest: Probe,
    weights_key: str,
    layer: str,
    device: str,
    store: Store,
    engine: Engine,
    on_progress: OnProgress,
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[Done]]:
    groups = [
        similarity.feature_tasks(heaviest, weights_key, layer, samples, _fingerprint(samples), device)
        for samples in (data.train, data.evaluation)
    ]
    results = run_stored([task for group in groups for task in group], store, engine, on_progress)
    folders = [result.entry.folder for result in results]
    n_shards = len(groups[0])
    return similarity.read_features(folders[:n_shards]), similarity.read_features(folders[n_shards:]), results


def _fingerprint(samples: Samples) -> str:
    return hashlib.sha256("\n".join(samples.ids).encode()).hexdigest()


def _is_same(there: Manifest, recipe: Recipe, data: Source) -> bool:
    return there.recipe_sha256 == recipe.sha256 and there.source.fingerprint == data.facts.fingerprint


def _check_writable(out: Path) -> None:
    """Finds out before hours of training that the folder cannot be written after them."""
    existing = next(parent for parent in out.parents if parent.exists())
    with translate_os_errors(str(out), "choose another -o"), TemporaryDirectory(dir=existing, prefix=".proxyds-"):
        pass


def _write_card(folder: Path, manifest: Manifest, tables: Tables) -> None:
    for name, held in render_card(manifest, tables).files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(held)


def _describe(
    recipe: Recipe,
    data: Source,
    architectures: Sequence[Architecture],
    probes: Sequence[Probe],
    layer: str,
    mapping: Mapping,
    tables: Tables,
    stages: Sequence[StageRecord],
    device: str,
) -> Manifest:
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        licence=recipe.licence,
        recipe_sha256=recipe.sha256,
        protocol=recipe.importance.protocol,
        seed=recipe.seed,
        label_names=data.label_names,
        counts=CountsRecord(
            train=len(data.train), evaluation=len(data.evaluation), test=len(data.test), proxy=tables.data.num_rows
        ),
        source=SourceRecord(**asdict(data.facts)),
        space=SpaceRecord(
            network=architectures[0].network,
            n_architectures=len(architectures),
            lightest_training_flops=architectures[0].training_flops,
            heaviest_training_flops=architectures[-1].training_flops,
        ),
        probes=tuple(
            ProbeRecord(
                name=each.architecture.name,
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
        mapping=MappingRecord(
            layer=layer,
            metric=recipe.similarity.metric,
            neighbours=mapping.nearest.shape[1],
            n_dimensions=mapping.n_dimensions,
            explained_variance=mapping.explained_variance,
        ),
        draw=DrawRecord(law=recipe.selection.draw, ratio=recipe.selection.ratio, constants=recipe.importance.constants),
        stages=tuple(stages),
        machine=machine.describe_machine(device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        gallery=recipe.output.gallery,
    )


class _Clock:
    """Keeps the ledger: what each stage took in this build, and what its work took when it was done."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.stages: list[StageRecord] = []
        self._on_progress = on_progress
        self._started = time.perf_counter()

    def stage(self, name: str, results: Sequence[Done] = (), flops: int = 0) -> None:
        """Ends a stage that began where the one before ended; `results` are its tasks, if it has any."""
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
