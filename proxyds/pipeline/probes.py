"""The stages around probes, in order: train, score outcomes, extract features, map to the nearest; and what is then known of samples.

probes -> importance -> features -> similarity
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxyds.data.chunked import Values
from proxyds.data.samples import Samples, Source
from proxyds.pipeline.provenance import Ledger
from proxyds.recipe.methods import METHODS, Need
from proxyds.recipe.models import Recipe
from proxyds.runtime import machine
from proxyds.runtime.task import Done, Engine, RunTasks
from proxyds.selection import probe, similarity
from proxyds.selection.importance import score_importance
from proxyds.selection.probe import ProbeJob
from proxyds.selection.records import NearestMap, Outcomes, Probe, SampleScores
from proxyds.space.architecture import Architecture
from proxyds.training.job import TrainingSetup


@dataclass(frozen=True)
class Trained:
    """Probes that are trained.

    Attributes:
        probes: For each repeat from the lightest to the heaviest.
        done: Their tasks' results.
    """

    probes: list[Probe]
    done: list[Done]

    def take(self, repeats: Sequence[int]) -> Trained:
        """Those of some repeats, in this order."""
        places = [i for repeat in repeats for i, each in enumerate(self.probes) if each.repeat == repeat]
        return Trained([self.probes[i] for i in places], [self.done[i] for i in places])

    @property
    def n_repeats(self) -> int:
        """Trainings of each probe."""
        return len({each.repeat for each in self.probes})

    @property
    def of_heaviest(self) -> range:
        """Where the heaviest probe stands, once for each repeat."""
        n_chosen = len(self.probes) // self.n_repeats
        return range(n_chosen - 1, len(self.probes), n_chosen)


@dataclass(frozen=True)
class Learnt:
    """What probes tell of samples.

    Attributes:
        outcomes: Of the evaluation samples.
        mapping: To the nearest of them.
        case: (N,) of the training samples.
        importance: (N,) of the same.
        known: What selection methods choose by.
    """

    outcomes: Outcomes
    mapping: NearestMap
    case: Values
    importance: Values
    known: SampleScores


def find_needs(*methods: str) -> frozenset[Need]:
    """What some methods need together."""
    return frozenset[Need]().union(*(METHODS[method].needs for method in methods))


def set_up_training(recipe: Recipe, data: Source, device: str, engine: Engine) -> TrainingSetup:
    """Says what all trainings for a recipe have in common."""
    return TrainingSetup(
        n_labels=len(data.label_names),
        image_shape=data.image_shape,
        settings=recipe.training,
        seed=recipe.seed,
        device=device,
        arithmetic=engine.ask(device, machine.describe_arithmetic, device),
    )


def list_probe_jobs(
    recipe: Recipe, data: Source, chosen: Sequence[Architecture], needs: frozenset[Need], device: str, engine: Engine
) -> list[ProbeJob]:
    """Lists the trainings of a build's probes: for each repeat every one of them; the heaviest is asked on the way where that is needed."""
    setup = set_up_training(recipe, data, device, engine)
    return [
        ProbeJob(
            **vars(setup),
            architecture=architecture,
            train=data.train,
            held_out=data.evaluation,
            data_parallel=recipe.probes.data_parallel,
            repeat=repeat,
            keep_answers="answers" in needs and architecture == chosen[-1],
        )
        for repeat in range(recipe.probes.seeds)
        for architecture in chosen
    ]


def train_probes(
    recipe: Recipe,
    data: Source,
    chosen: Sequence[Architecture],
    needs: frozenset[Need],
    device: str,
    engine: Engine,
    run: RunTasks,
) -> Trained:
    """Trains every probe with every seed; in the order of `list_probe_jobs`.

    Raises:
        ChanceLevelError: One has learnt nothing.
    """
    jobs = list_probe_jobs(recipe, data, chosen, needs, device, engine)
    order = sorted(range(len(jobs)), key=lambda i: (-(i % len(chosen)), i))  # the heaviest start first
    done = dict(zip(order, run([jobs[i].task for i in order]), strict=True))
    results = [done[i] for i in range(len(jobs))]
    trained = [probe.read_probe(result.entry, job) for result, job in zip(results, jobs, strict=True)]
    for each in trained:
        probe.check_above_chance(each, data.evaluation.labels)
    return Trained(trained, results)


def prepare_probes(
    recipe: Recipe, data: Source, architectures: Sequence[Architecture]
) -> tuple[list[Architecture], str]:
    """Chooses a build's probes, and the layer of the heaviest that features come from; refuses what could not be done with them.

    Raises:
        RecipeError: There are fewer evaluation samples than neighbours.
        UnknownNameError: The space has no such architecture, or the network no such layer.
    """
    chosen = probe.choose_probes(architectures, recipe.probes)
    similarity.check_neighbours(recipe.similarity.neighbours, len(data.evaluation))
    return chosen, similarity.check_layer(chosen[-1], recipe.similarity.layer, len(data.label_names), data.image_shape)


def know_samples(
    recipe: Recipe,
    data: Source,
    architectures: Sequence[Architecture],
    needs: frozenset[Need],
    device: str,
    engine: Engine,
    run: RunTasks,
    ledger: Ledger,
) -> SampleScores:
    """Finds what methods need to know of the training samples: trains probes where the store does not hold them."""
    chosen, layer = prepare_probes(recipe, data, architectures)
    trained = train_probes(recipe, data, chosen, needs, device, engine, run)
    ledger.end_stage("probes", trained.done)
    return learn_samples(recipe, data, trained, needs, layer, device, engine, run, ledger).known


def learn_samples(
    recipe: Recipe,
    data: Source,
    trained: Trained,
    needs: frozenset[Need],
    layer: str,
    device: str,
    engine: Engine,
    run: RunTasks,
    ledger: Ledger,
) -> Learnt:
    """Finds what trained probes tell of the samples.

    Args:
        recipe: As run.
        data: The source.
        trained: The probes; features are those of the heaviest one's first training.
        needs: What methods choose by.
        layer: That features come from.
        device: `cpu` or a CUDA device.
        engine: Where work is done.
        run: Runs tasks.
        ledger: Told of each stage's end.
    """
    n_chosen = len(trained.probes) // trained.n_repeats
    predictions = [each.predictions for each in trained.probes]
    repeats = [predictions[start : start + n_chosen] for start in range(0, len(predictions), n_chosen)]
    outcomes = score_importance(repeats, data.evaluation.labels, recipe.importance.constants)
    ledger.end_stage("importance")

    place = trained.of_heaviest[0]
    heaviest, weights_key = trained.probes[place], trained.done[place].entry.key
    training = similarity.feature_tasks(heaviest, weights_key, layer, data.train, "training", device)
    evaluation = similarity.feature_tasks(heaviest, weights_key, layer, data.evaluation, "evaluation", device)
    results = run([*training, *evaluation])
    arithmetic = engine.ask("cpu", machine.describe_arithmetic, "cpu")
    features = similarity.Features(results[: len(training)], results[len(training) :], recipe.similarity, arithmetic)
    n_featured = len(data.train) + len(data.evaluation)
    ledger.end_stage("features", results, n_featured * heaviest.architecture.forward_flops)

    (projection,) = run([similarity.projection_task(features)])
    results = run(similarity.mapping_tasks(features, projection))
    entries = [result.entry for result in results]
    mapping = similarity.open_mapping(entries, len(data.train), is_held=isinstance(data.train, Samples))
    ledger.end_stage("similarity", [projection, *results])

    case, importance = similarity.carry_importance(mapping, outcomes)
    known = SampleScores(
        data.train.parsed_ids,
        data.train.labels,
        importance,
        similarity.gather_features(features, projection) if "features" in needs else None,
        probe.open_answers([trained.done[i].entry for i in trained.of_heaviest]) if "answers" in needs else None,
    )
    return Learnt(outcomes, mapping, case, importance, known)
