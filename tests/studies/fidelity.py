"""Which selection keeps the ranking of architectures: every method at equal size, beside the full data at equal cost.

`make study` runs it. Rows are appended after each draw and the subsets are kept beside them, so that whoever has the two goes on where they
stop, and trains no probe again. Equal for all: source, architectures, epochs, batch size, learning rate, schedule, augmentation, test
samples; and for one number of a draw the training's seed.

`parts.py` says what is run; `candidates.py` holds methods that are tried here alone; `subsets.py` chooses and keeps samples, `rows.py` keeps what was measured. `results.py` makes pages of
rows: `weighing.py` estimates, `report.py` tables, `pictures.py` pictures, `page.py` and `together.py` the pages of one study and of two. `paper_tables.py` is another matter: the paper's tables.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from proxyds.cli.output import print_table
from proxyds.data.source import load_source
from proxyds.errors import ProxydsError
from proxyds.evaluation.runs import Run, TrainingSet, list_runs, show_together
from proxyds.pipeline.stages import describe_machine
from proxyds.progress import OnProgress
from proxyds.progress_bars import show_progress
from proxyds.recipe.models import Recipe, Training
from proxyds.recipe.yaml import read_recipe, write_recipe
from proxyds.runtime.local import LocalWorkers
from proxyds.runtime.machine import describe_arithmetic
from proxyds.runtime.storage.store import Store
from proxyds.runtime.task import Done, run_each, run_stored
from proxyds.seeding import derive_seed
from proxyds.space.listing import list_architectures
from proxyds.text import duration, with_prefix
from proxyds.training.job import TrainingSetup, expect_image_seconds
from proxyds.training.loop import count_steps
from tests.studies.parts import STUDIES, Part, Study, change_training, count_draws, take_half
from tests.studies.results import write_report, write_together
from tests.studies.rows import OTHER_MEASURES, Key, append_rows, key_of, list_missing, list_rows
from tests.studies.subsets import Probes, find_subset

HERE = Path(__file__).parent


def list_sets(study: Study, part: Part, probes: Probes, numbers: Iterable[int]) -> Iterator[TrainingSet]:
    """The data sets of a part, one for each of some draws; their samples are read, or selected and kept."""
    train, base, settings = probes.data.train.load(), probes.recipe.training, change_training(part, probes.recipe)
    n_seen = count_steps(base, round(part.ratio * len(train))) * base.batch_size
    n_steps = n_seen // settings.batch_size
    for number in numbers:
        samples, kept, draw = train, None, None
        if part.method is not None:
            selected, kept, draw = *choose_subset(study, part, probes, number), number
            samples = train.take(selected) if kept is None else train.take(selected).keep_labels(kept)
        yield TrainingSet(part.dataset, part.ratio, draw, number, len(samples), samples, settings, n_steps, kept)


def choose_subset(
    study: Study, part: Part, probes: Probes, number: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
    """The samples of a draw, (N,) bool, kept from now on, and the labels that they are of; None for all."""
    assert part.method is not None
    kept = None if part.n_labels is None else choose_labels(part, probes, number)
    return find_subset(study.subsets, part.method, part.share, number, probes, kept), kept


def choose_labels(part: Part, probes: Probes, number: int) -> NDArray[np.int64]:
    """The labels that a draw keeps, at random."""
    rng = np.random.default_rng(derive_seed(probes.recipe.seed, "study", "labels", number))
    return np.sort(rng.permutation(len(probes.data.label_names))[: part.n_labels])


def list_part_runs(study: Study, part: Part, sets: Sequence[TrainingSet], probes: Probes) -> list[Run]:
    """Every architecture of a part on its data sets, as `proxyds check` would train it."""
    setup = set_up(probes, change_training(part, probes.recipe))
    return list_runs(take_half(probes.architectures, study.half), sets, probes.data.test, setup)


def set_up(probes: Probes, settings: Training) -> TrainingSetup:
    """What the trainings of a part have in common."""
    return TrainingSetup(
        n_labels=len(probes.data.label_names),
        image_shape=probes.data.image_shape,
        settings=settings,
        seed=probes.recipe.seed,
        device="cpu",
        arithmetic=describe_arithmetic("cpu"),
    )


def key_of_run(run: Run) -> Key:
    """A run's key."""
    of = run.training_set
    return Key(run.architecture.name, of.dataset, of.ratio, of.training_seed)


def keep_recipe(study: Study, recipe: Recipe) -> None:
    """Writes the recipe beside the rows; refuses to add to rows of another.

    Raises:
        SystemExit: They are of another.
    """
    path = study.folder / "recipe.yaml"
    if not path.exists():
        write_recipe(recipe, path)
    elif read_recipe(path).sha256 != recipe.sha256:
        raise SystemExit(
            f"{path}: must be the recipe that the study runs, its rows are of another; move the folder away"
        )


def run_part(study: Study, part: Part, probes: Probes, numbers: Sequence[int]) -> None:
    """Does what is missing of a part, one draw after the other, and appends the rows of each."""
    path = study.folder / "rows.csv"
    run_already = {key_of(row) for row in list_rows(study)}
    for training_set in list_sets(study, part, probes, numbers):
        runs = [
            run for run in list_part_runs(study, part, [training_set], probes) if key_of_run(run) not in run_already
        ]
        if not runs:
            continue
        watch = partial(show_together, runs=runs, on_progress=probes.on_progress)
        started = time.monotonic()
        tasks = [run.task for run in runs if run.task is not None]
        results, failures = run_each(tasks, probes.store, probes.engine, watch)
        append_rows(path, [_describe(run, done) for run, done in zip(runs, results, strict=True) if done])
        for failure in failures:
            print(f"failed: {failure.task.name}: {failure.error}", file=sys.stderr)
        print(
            f"{time.strftime('%H:%M')} {training_set.name}: {len(runs)} runs in {duration(time.monotonic() - started)}",
            flush=True,
        )


def _describe(run: Run, done: Done) -> dict[str, Any]:
    """A finished run's row."""
    here = describe_machine("cpu")
    about, of = json.loads((done.entry.folder / "run.json").read_text()), run.training_set
    losses = about["losses"]
    measured = dict(zip(OTHER_MEASURES, (about.get("loss"), losses[-1], sum(losses)), strict=True))
    return {
        "architecture": run.architecture.name,
        "dataset": of.dataset,
        "ratio": of.ratio,
        "draw_seed": of.draw_seed,
        "training_seed": of.training_seed,
        "n_steps": of.n_steps,
        "accuracy": round(about["accuracy"], 6),
        **{name: None if value is None else round(value, 4) for name, value in measured.items()},
        "seconds": round(about["training_seconds"], 1),
        "day": time.strftime("%Y-%m-%d"),
        "processor": here.processor,
        "torch": here.libraries["torch"],
    }


def show_plan(study: Study, probes: Probes) -> None:
    """Prints what there is to do, and how long it may take."""
    run_already = {key_of(row) for row in list_rows(study)}
    settings, n_train = probes.recipe.training, len(probes.data.train)
    setup = set_up(probes, settings)
    image_seconds = {each.name: expect_image_seconds(setup, each) for each in probes.architectures}
    flops = {each.name: each.training_flops for each in probes.architectures}
    lines, seconds = [], 0.0
    for part in study.parts:
        n_seen = count_steps(settings, round(part.ratio * n_train)) * settings.batch_size
        missing = [
            key.architecture for key in list_missing(study, part, probes.recipe, probes.architectures, run_already)
        ]
        n_runs = count_draws(part, probes.recipe) * len(take_half(probes.architectures, study.half))
        cost = n_seen * sum(flops[name] for name in missing)
        takes = n_seen * sum(image_seconds[name] for name in missing)
        seconds += takes
        told = duration(takes) if missing else "done"
        lines.append((part.dataset, f"{part.ratio:g}", n_runs, len(missing), with_prefix(cost, "FLOP"), told))
    print_table(f"study {study.name}", ("trained on", "ratio", "runs", "to do", "cost", "one at a time"), lines)
    n_workers = probes.engine.n_workers
    print(f"expected: about {duration(seconds / n_workers)} with {n_workers} at once, and the probes that subsets need")


def prepare(study: Study, store: Store, engine: LocalWorkers, on_progress: OnProgress) -> Probes:
    """Reads a study's recipe and source; no probe is trained."""
    recipe = read_recipe(HERE / f"{study.recipe}.yaml")
    run = partial(run_stored, store=store, engine=engine, on_progress=on_progress)
    data = load_source(recipe, run, False)
    architectures = list_architectures(recipe.space, len(data.label_names), data.image_shape, seed=recipe.seed)
    return Probes(recipe, data, architectures, store, engine, on_progress)


def run_study(
    study: Study,
    probes: Probes,
    only: Collection[str],
    ratios: Collection[float],
    numbers: Collection[int],
    only_subsets: bool,
) -> None:
    """Does what is missing of a study, or of some data sets, ratios or draws of it, and writes its report.

    Args:
        study: Which.
        probes: Of `prepare`.
        only: Data sets' names; all where it is empty, and so with the next two.
        ratios: Sizes.
        numbers: Of draws.
        only_subsets: Whether nothing is done but to choose subsets.
    """
    keep_recipe(study, probes.recipe)
    parts = [p for p in study.parts if (not only or p.dataset in only) and (not ratios or p.ratio in ratios)]
    every = [[n for n in range(count_draws(p, probes.recipe)) if not numbers or n in numbers] for p in parts]
    subsets_of = [(n, part) for part, drawn in zip(parts, every, strict=True) if part.method for n in drawn]
    for number, part in sorted(subsets_of, key=lambda each: each[0]):  # a number's probes are looked at once
        choose_subset(study, part, probes, number)  # before any run: whoever has the subsets needs no probes
    for part, drawn in zip(parts, every, strict=True) if not only_subsets else ():
        run_part(study, part, probes, drawn)
    write_report(study, probes.recipe, probes.architectures, len(probes.data.train), len(probes.data.evaluation))


@click.command(help=__doc__)
@click.argument("studies", nargs=-1, type=click.Choice([*STUDIES]))
@click.option("--plan", is_flag=True, help="Show what there is to do, and do nothing.")
@click.option("--subsets", is_flag=True, help="Choose subsets, and train nothing but their probes.")
@click.option("--only", multiple=True, metavar="DATASET", help="This data set alone; may be said several times.")
@click.option("--ratio", "ratios", multiple=True, type=float, help="This ratio alone.")
@click.option("--number", "numbers", multiple=True, type=int, help="This draw alone.")
def main(
    studies: tuple[str, ...],
    plan: bool,
    subsets: bool,
    only: tuple[str, ...],
    ratios: tuple[float, ...],
    numbers: tuple[int, ...],
) -> None:
    """Reads the command line and runs what is missing; all studies unless some are named."""
    store = Store()
    with show_progress(quiet=False) as on_progress, LocalWorkers() as engine:
        chosen = [STUDIES[name] for name in studies or STUDIES]
        studied = {part.dataset for study in chosen for part in study.parts}
        if unknown := sorted(set(only) - studied):
            raise click.BadParameter(
                f"must be what is studied, got {', '.join(unknown)}; known: {', '.join(sorted(studied))}"
            )
        prepared = [(study, prepare(study, store, engine, on_progress)) for study in chosen]
        for study, probes in prepared:
            show_plan(study, probes)
        for study, probes in prepared if not plan else ():
            run_study(study, probes, only, ratios, numbers, subsets)
        if not plan:
            write_together([(study, probes.recipe, probes.architectures) for study, probes in prepared])


if __name__ == "__main__":
    try:
        main()
    except ProxydsError as error:  # expected: no data, no room; one message, as `proxyds` says it
        sys.exit(f"fidelity: {error}")
