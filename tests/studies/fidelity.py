"""Which selection keeps the ranking of architectures: every method at equal size, beside the full data at equal cost.

`make study` runs it. Rows are appended as runs end and the subsets are kept beside them, so that whoever has the two goes on where they
stop, and trains no probe again. Equal for all: source, architectures, epochs, batch size, learning rate, schedule, augmentation, test
samples; and for one number of a draw the training's seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import report
from rows import OTHER_MEASURES, Key, append_rows, key_of, read_rows
from subsets import Probes, find_subset

from proxyds import accuracies, machine, source, space, verification
from proxyds.display import print_table, show_progress
from proxyds.engine import Done, LocalWorkers, run_each, run_stored
from proxyds.quantities import duration, with_prefix
from proxyds.recipe import Recipe
from proxyds.recipe_yaml import read_recipe
from proxyds.runs import FEWER_EPOCHS, FULL, RANDOM, make_runs_table
from proxyds.store import Store
from proxyds.training import count_steps
from proxyds.verification import Run, TrainingSet

HERE = Path(__file__).parent
RESULTS = HERE.parent.parent / "cards" / "fidelity"


@dataclass(frozen=True)
class Part:
    """A data set that every architecture is trained on, in every draw.

    Attributes:
        dataset: `full`, `fewer-epochs`, or a method.
        ratio: Of the subset, or that it is to cost as much as; 1 for the full data.
    """

    dataset: str
    ratio: float


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        name: Of the recipe beside this file, and of the results' folder.
        parts: In the order in which they are run.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return RESULTS / self.name


METHODS = (
    *("random", "stratified", "cases", "cases-stratified", "easiest", "hardest"),
    *(
        "entropy-tails",
        "entropy-tails-p2",
        "entropy-tails-p3",
        "el2n",
        "forgetting",
        "ccs",
        "k-center",
        "herding",
        "moderate",
    ),
)
LEADING = ("random", "stratified", "cases")
STUDIES = {
    "cifar10": Study(
        "cifar10",
        (
            Part(FULL, 1.0),
            *(Part(dataset, 0.05) for dataset in (*METHODS, FEWER_EPOCHS)),
            *(Part(dataset, ratio) for ratio in (0.1, 0.02) for dataset in (*LEADING, FEWER_EPOCHS)),
        ),
    )
}


def count_draws(part: Part, recipe: Recipe) -> int:
    """How often everything is trained on a part's data set."""
    assert recipe.check is not None
    return recipe.check.full_seeds if part.dataset == FULL else recipe.check.draws


def list_sets(study: Study, part: Part, probes: Probes) -> list[TrainingSet]:
    """The data sets of a part, one for each draw; their samples are read, or selected and kept."""
    train, settings = probes.data.train.load(), probes.recipe.training
    n = round(part.ratio * len(train))
    n_steps, numbers = count_steps(settings, n), range(count_draws(part, probes.recipe))
    if part.dataset in (FULL, FEWER_EPOCHS):
        return [TrainingSet(part.dataset, part.ratio, None, i, len(train), train, n_steps) for i in numbers]
    drawn = [find_subset(study.folder / "subsets.npz", part.dataset, part.ratio, i, probes) for i in numbers]
    return [TrainingSet(part.dataset, part.ratio, i, i, n, train.take(drawn[i]), n_steps) for i in numbers]


def list_runs(sets: Sequence[TrainingSet], probes: Probes) -> list[Run]:
    """Every architecture on every data set, as `proxyds check` would train it."""
    return verification.list_runs(
        probes.architectures,
        sets,
        probes.data.test,
        n_labels=len(probes.data.label_names),
        image_shape=probes.data.image_shape,
        settings=probes.recipe.training,
        seed=probes.recipe.seed,
        device="cpu",
        arithmetic=machine.describe_arithmetic("cpu"),
    )


def key_of_run(run: Run) -> Key:
    """A run's key."""
    of = run.training_set
    return Key(run.architecture.name, of.dataset, of.ratio, of.training_seed)


def run_part(study: Study, part: Part, probes: Probes, numbers: Sequence[int]) -> None:
    """Does what is missing of a part, one draw after the other, and appends the rows of each."""
    path = study.folder / "rows.csv"
    known = {key_of(row) for row in read_rows(path)}
    for training_set in list_sets(study, part, probes):
        if training_set.training_seed not in numbers:
            continue
        runs = [run for run in list_runs([training_set], probes) if key_of_run(run) not in known]
        if not runs:
            continue
        watch = partial(verification.show_together, runs=runs, on_progress=probes.on_progress)
        started = time.monotonic()
        tasks = [run.task for run in runs if run.task is not None]
        results, failures = run_each(tasks, probes.store, probes.engine, watch)
        table = verification.tabulate_runs(runs, results, probes.recipe.training)
        measured = {key_of_run(run): _read_losses(done) for run, done in zip(runs, results, strict=True) if done}
        append_rows(
            path,
            [
                {**row, **measured[key_of(row)], "seconds": round(row["training_seconds"], 1)}
                for row in table.to_pylist()
            ],
        )
        for failure in failures:
            print(f"failed: {failure.task.name}: {failure.error}", file=sys.stderr)
        print(
            f"{time.strftime('%H:%M')} {training_set.name}: {len(runs)} runs in {duration(time.monotonic() - started)}",
            flush=True,
        )


def _read_losses(done: Done) -> dict[str, float | None]:
    """Of a finished run, the other measures of `rows.py`."""
    about = json.loads((done.entry.folder / "run.json").read_text())
    losses, of_test = about["losses"], about.get("loss")
    measures = (of_test, losses[-1], sum(losses))
    return {
        name: None if value is None else round(value, 6) for name, value in zip(OTHER_MEASURES, measures, strict=True)
    }


def write_report(study: Study, probes: Probes) -> None:
    """Weighs the parts that are whole, and writes page, pictures and estimates beside the rows."""
    path, recipe = study.folder / "rows.csv", probes.recipe
    rows = read_rows(path)
    known = {key_of(row) for row in rows}
    whole = {
        (part.dataset, part.ratio)
        for part in study.parts
        if all(
            Key(each.name, part.dataset, part.ratio, number) in known
            for each in probes.architectures
            for number in range(count_draws(part, recipe))
        )
    }
    if (FULL, 1.0) not in whole or not any((RANDOM, part.ratio) in whole for part in study.parts):
        print("there is nothing to weigh yet: a report needs the full data and random subsets")
        return
    every = accuracies.read_runs(path, probes.architectures, recipe.selection.ratio).to_pylist()
    table = make_runs_table([row for row in every if (row["dataset"], row["ratio"]) in whole])
    found = report.weigh(table, recipe.seed)
    n_train, n_evaluation = len(probes.data.train), len(probes.data.evaluation)
    chosen = space.choose_probes(probes.architectures, recipe.probes)
    costs = {
        part.dataset: report.find_cost(part.dataset, recipe, chosen, n_train, n_evaluation) for part in study.parts
    }
    spent = sum(row["seconds"] for row in rows if (row["dataset"], row["ratio"]) in whole)
    report.write_results(study.folder / "results.json", found)
    page = report.render_page(study.name, recipe, table, found, costs, n_train, spent)
    (study.folder / "README.md").write_text(page, encoding="utf-8")
    ratios = sorted({each.ratio for each in found if each.ratio is not None})
    for ratio in ratios:
        (study.folder / f"taus-{100 * ratio:g}pct.png").write_bytes(report.draw_taus(found, ratio))
    if len(ratios) > 1:
        (study.folder / "ratios.png").write_bytes(report.draw_ratios(found, ratios))
    print(f"{study.folder / 'README.md'}: {len(whole)} of {len(study.parts)} parts are weighed")


def show_plan(study: Study, probes: Probes) -> None:
    """Prints what there is to do, and how long it may take."""
    known = {key_of(row) for row in read_rows(study.folder / "rows.csv")}
    settings, n_train = probes.recipe.training, len(probes.data.train)
    image_seconds = {
        each.name: verification.expect_image_seconds(
            each, len(probes.data.label_names), probes.data.image_shape, settings, "cpu"
        )
        for each in probes.architectures
    }
    lines, seconds = [], 0.0
    for part in study.parts:
        n_seen = count_steps(settings, round(part.ratio * n_train)) * settings.batch_size
        missing = [
            each
            for each in probes.architectures
            for number in range(count_draws(part, probes.recipe))
            if Key(each.name, part.dataset, part.ratio, number) not in known
        ]
        n_runs = count_draws(part, probes.recipe) * len(probes.architectures)
        cost = n_seen * sum(each.training_flops for each in missing)
        takes = n_seen * sum(image_seconds[each.name] for each in missing)
        seconds += takes
        told = duration(takes) if missing else "done"
        lines.append((part.dataset, f"{part.ratio:g}", n_runs, len(missing), with_prefix(cost, "FLOP"), told))
    print_table(f"study {study.name}", ("trained on", "ratio", "runs", "to do", "cost", "one at a time"), lines)
    n_workers = probes.engine.n_workers
    print(f"expected: about {duration(seconds / n_workers)} with {n_workers} at once, and the probes that subsets need")


def main() -> None:
    """Reads the command line and runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="cifar10", choices=STUDIES)
    parser.add_argument("--plan", action="store_true", help="show what there is to do, and do nothing")
    parser.add_argument("--only", nargs="+", metavar="DATASET", help="these data sets alone")
    parser.add_argument("--ratio", type=float, help="this ratio alone")
    parser.add_argument("--numbers", nargs="+", type=int, help="these draws alone")
    given = parser.parse_args()
    study, store = STUDIES[given.study], Store()
    recipe = read_recipe(HERE / f"{study.name}.yaml")
    with show_progress(quiet=False) as on_progress, LocalWorkers() as engine:
        run = partial(run_stored, store=store, engine=engine, on_progress=on_progress)
        data = source.load_source(recipe, run, False)
        architectures = space.list_architectures(
            recipe.space, len(data.label_names), data.image_shape, seed=recipe.seed
        )
        probes = Probes(recipe, data, architectures, store, engine, on_progress)
        show_plan(study, probes)
        for part in study.parts if not given.plan else ():
            if (given.only is None or part.dataset in given.only) and given.ratio in (None, part.ratio):
                run_part(study, part, probes, given.numbers or range(count_draws(part, recipe)))
        write_report(study, probes)


if __name__ == "__main__":
    main()
