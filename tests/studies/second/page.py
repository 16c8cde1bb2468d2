"""The page of the second study, from its rows: `python -m tests.studies.second.page`. What there are no rows of is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from proxyds.artifact.card.plots import Draw, as_png
from proxyds.recipe.models import Recipe
from proxyds.space.architecture import Architecture
from proxyds.space.networks.plugins import load_plugins
from tests.studies.parts import RESULTS, take_half
from tests.studies.results import open_study
from tests.studies.rows import read_whole_lines
from tests.studies.second.choosing import list_published, list_runs, tabulate, weigh, weigh_by_loss
from tests.studies.second.pictures import draw_gains
from tests.studies.second.plan import BASE, CHOSEN_TRAINING, FULL_TRIED, GROUPS, LENGTHS, OF_CELLS, STAGES, VARIANTS
from tests.studies.second.run import PLUGIN, STUDIES
from tests.studies.second.summary import N_SEEDS, TITLES, list_summary_pictures, render_summary
from tests.studies.second.weighing import (
    Gain,
    Ranked,
    Rows,
    Way,
    choose,
    keep_whole,
    rank,
    read_first_seed,
    read_reference,
    read_seeds,
    weigh_variants,
)

SCORES = {
    "accuracy": "accuracy",
    "accuracy_mirrored": "accuracy, with mirror images",
    "accuracy_statistics": "accuracy, batch norm statistics taken again",
    "accuracy_mean_weights": "accuracy of mean weights",
    "margin": "mean margin",
    "loss": "loss",
    "train_loss_sum": "sum of training losses",
}
FACTORS_PICTURE = "factors.png"


ABOUT_COLUMNS = (
    "*With parameters*: accuracy and the number of parameters rank together. *Regret*: the accuracy that is lost by taking the network called best. *Of the best of three*: if the three",
    "called best are trained in full, and the best of them is taken. In brackets are [95 % intervals](../../../docs/coverage.md).",
)


def tabulate_reference_trials(rows: Rows) -> list[str]:
    """Tabulates the trainings on everything that were tried: accuracy on the evaluation samples."""
    lines = ["| training on everything | epochs | mean accuracy, points | of each network |", "|---|---|---|---|"]
    for variant in (*FULL_TRIED, *LENGTHS):
        of = [
            row for row in rows if row["stage"] in ("tune-reference", "reference-length") and row["variant"] == variant
        ]
        accuracies = [100 * float(row["accuracy"]) for row in of if row["accuracy"]]
        settings = VARIANTS[variant].settings
        told = f"{settings.get('optimizer', 'adam')} at {settings['learning_rate']:g} | {settings['epochs']}"
        if accuracies and len(accuracies) == len(of):
            each = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
            lines.append(f"| {told} | {np.mean(accuracies):.2f} | {each} |")
        elif of:
            lines.append(f"| {told} | diverged | |")
    return lines


def tabulate_factors(gains: Sequence[Gain]) -> list[str]:
    """Tabulates what each value gains in tau over the base."""
    lines = [
        "| factor | value | tau | less the base's | cost | needed | accuracy, points | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    of = {each.variant: each for each in gains}
    found = [(factor, of[name]) for factor, variants in GROUPS.items() for name in variants if name in of]
    return lines + [
        f"| {factor} | {each.variant} | {each.tau:.3f} | {each.gain.shown()} | {each.cost:.2f} | {each.needed:.2f} | "
        f"{100 * each.accuracy:.1f} | {'gains enough' if each.is_taken else ''} |"
        for factor, each in found
    ]


def read_factors(rows: Rows, architectures: Sequence[Architecture]) -> Ranked:
    """Takes the trainings of part A that change one factor, of the tuning half, and the first seed of the reference."""
    tuning = take_half(architectures, "tuning")
    return Ranked([row for row in rows if row["stage"] == "factors"], tuning, read_first_seed(rows, tuning))


def weigh_together(rows: Rows, factors: Ranked) -> list[Gain]:
    """Weighs the chosen factors together against the base; none without rows."""
    together = replace(factors, rows=[row for row in rows if row["stage"] == "together"])
    return weigh_variants(together, beside=factors)


def tabulate_together(gains: Sequence[Gain]) -> list[str]:
    """Tabulates what the chosen factors gain together over the base, once there are rows."""
    if not gains:
        return []
    lines = [
        "## Chosen factors together",
        "",
        "| together | tau | less the base's | cost | accuracy, points |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.variant} | {each.tau:.3f} | {each.gain.shown()} | {each.cost:.2f} | {100 * each.accuracy:.1f} |"
        for each in gains
    ]
    return [*lines, ""]


def tabulate_scores(ranked: Ranked) -> list[str]:
    """Tabulates what other scores rank, of the trainings that measured them."""
    lines = ["| score | tau, base | tau, 52 epochs |", "|---|---|---|"]
    for score, told in SCORES.items():
        taus = [rank([ranked], Way(variant, score=score)) for variant in (BASE, "epochs-52")]
        lines.append(f"| {told} | {' | '.join('–' if tau is None else f'{tau.mean[0]:.3f}' for tau in taus)} |")
    return lines


def tabulate_methods(rows: Rows, architectures: Sequence[Architecture]) -> list[str]:
    """Tabulates how well samples of each method rank all networks, once the reference has two whole seeds."""
    of_stages = [
        row
        for row in rows
        if row["stage"] == "reference"
        or (row["stage"] in ("judging", "methods", "sizes") and row["variant"] == CHOSEN_TRAINING)
    ]
    whole = keep_whole([{**row, "stage": _pool(row)} for row in of_stages if row["accuracy"]], architectures)
    seeds = {row["number"] for row in whole if row["stage"] == "reference"}
    if len(seeds) < 2 or {row["stage"] for row in whole} == {"reference"}:
        return []
    return [
        "## Ways to choose",
        "",
        f"All {len(architectures)} networks, trained for 52 epochs in batches of 32 with soft labels. What costs nothing stands last.",
        "",
        *tabulate(weigh(list_runs(whole), architectures)),
        "",
        *ABOUT_COLUMNS,
        "",
    ]


def _pool(row: Mapping[str, str]) -> str:
    """Says which rows belong together: draws of random samples are of two stages, a half of the networks in each."""
    return "methods" if row["stage"] == "judging" else row["stage"]


def render(title: str, rows: Rows, architectures: Sequence[Architecture]) -> str:
    """Writes the page of a data set in Markdown."""
    lines = [
        f"# The second study: {title}",
        "",
        "[The protocol](../protocol.md) says what is compared and what is concluded from what; it was written before the rows. `make study-2` makes rows, in",
        "`rows.csv`, and `python -m tests.studies.second.page` this page.",
        "",
        "## The reference",
        "",
    ]
    trials = tabulate_reference_trials(rows)
    lines += [*trials, ""] if len(trials) > 2 else []
    tuning = take_half(architectures, "tuning")
    seeds, reference = read_seeds(rows, tuning), read_reference(rows, tuning)
    if reference is None:
        n = len(
            {
                row["architecture"]
                for row in rows
                if row["stage"] == "reference" and row["number"] == "0" and row["accuracy"]
            }
        )
        return "\n".join([*lines, f"{n} of {len(architectures)} networks are trained on everything, once.", ""])
    lines += [
        f"What is ranked here is compared with {len(seeds)} of {N_SEEDS} seeds of the reference: 80 epochs, {100 * reference.min():.1f} to {100 * reference.max():.1f} % on the test samples.",
        "",
    ]
    factors = read_factors(rows, architectures)
    if (base := rank([factors], Way(BASE))) is not None:
        gains = weigh_variants(factors)
        lines += [
            "## One factor at a time",
            "",
            f"5 % of CIFAR-10, random and stratified, three draws, {len(tuning)} networks of the tuning half, the first seed of the reference. The base has a tau of {base.estimate().as_agreement().shown()}.",
            "",
            *([f"![What each value gains over the base]({FACTORS_PICTURE})", ""] if gains else []),
            *tabulate_factors(gains),
            "",
            f"Chosen to be tried together: {', '.join(choose(gains)) or 'none'}.",
            "",
            *tabulate_together(weigh_together(rows, factors)),
            "## Other scores",
            "",
            *tabulate_scores(factors),
            "",
        ]
    return "\n".join([*lines, *tabulate_methods(rows, architectures)])


def list_pictures(rows: Rows, architectures: Sequence[Architecture]) -> dict[str, Draw]:
    """Lists the pictures of a data set's page by file name, with what draws them."""
    factors = read_factors(rows, architectures)
    gains = [*weigh_variants(factors), *weigh_together(rows, factors)]
    title = "5 % of CIFAR-10, tuning half: what other trainings gain over the base"  # part A is of this data set alone
    return {FACTORS_PICTURE: partial(draw_gains, gains, title)} if gains else {}


def list_trained(rows: Rows, architectures: Sequence[Architecture]) -> list[Architecture]:
    """Lists the cells that count while some are not trained yet: every second by cost, which are trained first; none before these are whole."""
    found = {row["architecture"] for row in rows if row["number"] == "0"}
    for each in STAGES["nasbench201"]["random"][::-1]:
        if {one.name for one in each.choose(architectures)} <= found:
            return each.choose(architectures)
    return []


def render_benchmark(rows: Rows, recipe: Recipe, architectures: Sequence[Architecture]) -> str:
    """Writes part C's page in Markdown; it needs the benchmark's table."""
    assert recipe.check is not None
    assert recipe.check.reference is not None
    runs = [*list_runs(rows), *list_published(recipe.check.reference, architectures)]
    epochs, n, planned = VARIANTS[OF_CELLS].settings["epochs"], len(architectures), recipe.check.architectures
    cells = f"{n} cells" if n == planned else f"{n} of {planned} cells"
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    return "\n".join(
        [
            "# The second study: NAS-Bench-201",
            "",
            f"{cells}, drawn by seed 0 over the published 1,000, in the benchmark's own stack at 32x32 (part C of [the protocol](../protocol.md)). Each is trained for {epochs} epochs on",
            "5 % of CIFAR-10, by soft labels. With its share of the teacher that costs as much as two epochs of everything. Accuracies are compared with the published ones after 200 epochs,",
            f"the mean of the benchmark's seeds. `full data, fewer epochs` are the published accuracies after 12 epochs. `rows.csv` holds {len(rows)} trainings ({hours:.1f} hours, one after the other, in one thread).",
            "",
            "Ranked by accuracy:",
            "",
            *tabulate(weigh(runs, architectures)),
            "",
            "Ranked by the loss on the test samples:",
            "",
            *tabulate(weigh_by_loss(runs, architectures)),
            "",
            *ABOUT_COLUMNS,
            "",
        ]
    )


def main() -> None:
    """Writes the page of each data set that there are rows of, and the one of what is judged."""
    load_plugins([PLUGIN])
    pages: dict[Path, str] = {}
    pictures: dict[Path, dict[str, Draw]] = {}
    of_each, recipes, networks = {}, {}, {}
    for name, of in STUDIES.items():
        study, recipe, architectures = open_study(of)
        rows = read_whole_lines(study.folder / "rows.csv")
        if name == "nasbench201":
            trained = list_trained(rows, architectures)
            rows = keep_whole(rows, trained)
            pages[study.folder] = render_benchmark(rows, recipe, trained) if rows else ""
        else:
            of_each[name], recipes[name], networks[name] = rows, recipe, architectures
            pages[study.folder] = render(TITLES[name], rows, architectures) if rows else ""
            pictures[study.folder] = list_pictures(rows, architectures)
    pages[RESULTS / "second"] = render_summary(of_each, recipes["cifar10"], networks)
    pictures[RESULTS / "second"] = list_summary_pictures(of_each, networks)
    for folder, text in pages.items():
        if text:
            folder.mkdir(exist_ok=True)
            (folder / "README.md").write_text(text, encoding="utf-8")
            print(folder / "README.md")
            for name, draw in pictures.get(folder, {}).items():
                (folder / name).write_bytes(as_png(draw))


if __name__ == "__main__":
    main()
