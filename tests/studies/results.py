"""Rows become pages: what is whole is weighed and written beside them, with pictures and estimates. Nothing is trained, and no data are needed.

`make study-pages` runs it for every study, from the committed rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from proxyds.artifact.ranking_table import FULL, RANDOM
from proxyds.recipe.models import Recipe
from proxyds.recipe.yaml import read_recipe
from proxyds.selection.probe import choose_probes
from proxyds.space.architecture import Architecture
from proxyds.space.listing import list_architectures
from tests.studies import page, parts, pictures, report, together, weighing
from tests.studies.parts import STUDIES, Part, Study, count_draws, take_half
from tests.studies.rows import key_of, list_missing, list_rows
from tests.studies.subsets import count_labels


def take_whole(
    study: Study, recipe: Recipe, architectures: Sequence[Architecture]
) -> tuple[list[Part], list[Part], list[dict[str, Any]]]:
    """A study's parts and those of the ones beside it, those of them that are whole, and their rows."""
    rows, trained = list_rows(study), {each.name for each in take_half(architectures, study.half)}
    run_already = {key_of(row) for row in rows}
    every = [part for name in (*study.beside, study.name) for part in STUDIES.get(name, study).parts]
    whole = [part for part in every if not list_missing(study, part, recipe, architectures, run_already)]
    names = {(part.dataset, part.ratio) for part in whole}
    rows_of_whole = [row for row in rows if (row["dataset"], row["ratio"]) in names and row["architecture"] in trained]
    return every, whole, rows_of_whole


def is_enough(whole: Iterable[Part]) -> bool:
    """Whether there is something to compare: the full data and random subsets."""
    return {FULL, RANDOM} <= {part.dataset for part in whole}


def write_report(
    study: Study, recipe: Recipe, architectures: Sequence[Architecture], n_train: int, n_evaluation: int
) -> None:
    """Weighs the parts that are whole, and writes page, pictures and estimates beside the rows; needs no data.

    Args:
        study: Which.
        recipe: Its own.
        architectures: Of the recipe's space.
        n_train: Samples to choose from.
        n_evaluation: Evaluation samples.
    """
    folder, weighed = study.folder, take_half(architectures, study.half)
    every, whole, rows = take_whole(study, recipe, architectures)
    if not is_enough(whole):
        print("there is nothing to weigh yet: a report needs the full data and random subsets")
        return
    assert recipe.check is not None
    table = weighing.make_table(rows, weighed)
    found = weighing.weigh(weighing.estimate_all(table, recipe.check.parameter_weight))
    chosen = choose_probes(architectures, recipe.probes)
    costs = {part.dataset: weighing.find_cost(part.method, recipe, chosen, n_train, n_evaluation) for part in whole}
    labels = {
        (part.dataset, part.ratio): count_labels(study.subsets, part.method, part.share, count_draws(part, recipe))
        for part in whole
        if part.method and part.n_labels is None
    }
    weighing.write_results(folder / "results.json", found)
    ratios = sorted({each.ratio for each in found if each.ratio is not None})
    measures = {ratio: report.tabulate_measures(rows, weighed, ratio) for ratio in ratios}
    missing = [(part.dataset, part.ratio) for part in every if part not in whole]
    tables = ["rows.csv"] * (folder / "rows.csv").exists() + [f"../{name}/rows.csv" for name in study.beside]
    text = page.render_page(
        study,
        recipe,
        rows,
        weighed,
        found,
        costs=costs,
        labels=labels,
        n_train=n_train,
        measures=measures,
        missing=missing,
        tables=tables,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    for ratio in ratios:
        (folder / f"taus-{100 * ratio:g}pct.png").write_bytes(
            pictures.draw_taus(found, ratio, recipe.selection.method, study.name)
        )
    if len(ratios) > 1:
        (folder / "ratios.png").write_bytes(pictures.draw_ratios(found, recipe.selection.method, study.name))
    if len(ratios) > 1 and study.half is None:
        title = f"How well {len(architectures)} networks rank on a part of {study.name.replace('cifar', 'CIFAR-')}"
        (folder / "overview.png").write_bytes(pictures.draw_overview(found, recipe.selection.method, title))
    print(f"{folder / 'README.md'}: {len(whole)} of {len(every)} parts are weighed")


def write_together(studies: Sequence[tuple[Study, Recipe, Sequence[Architecture]]]) -> None:
    """Weighs those of `parts.TOGETHER`, at 5 %, and writes page, picture and estimates above their folders; needs no data.

    Args:
        studies: Each with its recipe and the architectures of that, in any order; the page stays as it was where one of them is missing.
    """
    named = {each[0].name: each for each in studies}
    joined = [named[name] for name in parts.TOGETHER if name in named]
    if len(joined) < len(parts.TOGETHER):
        if joined:
            print(f"the page of {' and '.join(parts.TOGETHER)} is as it was: it is written when both are named")
        return
    estimated = {}
    for study, recipe, architectures in joined:
        _, whole, rows = take_whole(study, recipe, architectures)
        if not is_enough(part for part in whole if part.ratio in (together.RATIO, 1.0)):
            print(f"there is nothing to weigh together yet: {study.name} lacks the full data or random subsets of 5 %")
            return
        rows = [row for row in rows if row["ratio"] in (together.RATIO, 1.0)]
        assert recipe.check is not None
        table = weighing.make_table(rows, architectures)
        estimated[study.name] = weighing.estimate_all(table, recipe.check.parameter_weight)
    default = joined[0][1].selection.method
    found = weighing.weigh(weighing.take_mean([*estimated.values()]))
    of_each = {name: weighing.weigh(each) for name, each in estimated.items()}
    weighing.write_results(parts.RESULTS / "results.json", found)
    (parts.RESULTS / "README.md").write_text(
        together.render_page(found, of_each, parts.ABOUT_TOGETHER), encoding="utf-8"
    )
    picture = pictures.draw_taus(found, together.RATIO, default, "the mean of " + " and ".join(of_each))
    (parts.RESULTS / f"taus-{100 * together.RATIO:g}pct.png").write_bytes(picture)
    print(f"{parts.RESULTS / 'README.md'}: {' and '.join(of_each)} are weighed together")


def open_study(study: Study) -> tuple[Study, Recipe, list[Architecture]]:
    """Reads a study's recipe and lists the architectures of its space; needs no data."""
    recipe = read_recipe(parts.RECIPES / f"{study.recipe}.yaml")
    side = recipe.source.image_size
    assert side is not None
    return study, recipe, list_architectures(recipe.space, study.n_labels, (3, side, side), seed=recipe.seed)


def main() -> None:
    """Writes the page of every study, and of those that are weighed together, from their rows; needs no data."""
    opened = [open_study(study) for study in STUDIES.values()]
    for each in opened:
        write_report(*each, parts.N_TRAIN, parts.N_EVALUATION)
    write_together(opened)


if __name__ == "__main__":
    main()
