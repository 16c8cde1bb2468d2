"""What a command prints of its result: plans, proxies, inspections."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from proxyds.artifact.card import ratio_rows, show_statistic, weigh_reduction
from proxyds.artifact.manifest import EvidenceRecord, Manifest
from proxyds.artifact.plots import count_labels
from proxyds.artifact.ranking_table import METHOD_LABELS, PROXY, TRAINED_HERE
from proxyds.artifact.summary import Summary
from proxyds.cli.progress import print_table
from proxyds.selection.records import CASE_MEANINGS
from proxyds.space.architecture import Architecture
from proxyds.text import duration, with_prefix

if TYPE_CHECKING:
    from proxyds.pipeline.plan import BuildPlan, CheckPlan, PlannedProbe, SearchSpace

MOST_SHOWN = 24
"""Architectures of a space that are printed, at most, besides the probes."""
MOST_VALUES = 50
"""Values of one parameter whose cost is summed up, at most: more say nothing."""


def summarise_proxy(place: str | Path, manifest: Manifest) -> dict[str, Any]:
    """For programs: the manifest without its list of files."""
    return {"folder": str(place), **manifest.model_dump(mode="json", exclude={"files"})}


def summarise_plan(plan: BuildPlan) -> dict[str, Any]:
    """For programs: what a build would do."""
    return {
        "n_train": len(plan.source.train),
        "reading": plan.source.reading,
        "n_evaluation": len(plan.source.evaluation),
        "n_selected": plan.n_selected,
        "n_architectures": len(plan.architectures),
        "expected_seconds": plan.expected_seconds,
        "probes": [_summarise_probe(each) for each in plan.probes],
        "check": None if plan.check is None else summarise_check_plan(plan.check),
    }


def _summarise_probe(probe: PlannedProbe) -> dict[str, Any]:
    return {
        "name": probe.name,
        "is_stored": probe.is_stored,
        "flops": probe.flops,
        "expected_seconds": probe.expected_seconds,
    }


def summarise_space(found: SearchSpace) -> dict[str, Any]:
    """For programs: a search space, measured."""
    return {
        "network": found.network,
        "n_listed": found.n_listed,
        "architectures": [asdict(each) for each in found.architectures],
        "probes": [each.name for each in found.probes],
        "choices": _weigh_choices(found.architectures),
    }


def _weigh_choices(architectures: Sequence[Architecture]) -> list[dict[str, Any]]:
    """For every value of a parameter that varies: the architectures that have it, and their median cost."""
    having: dict[tuple[str, str], list[Architecture]] = {}
    for each in architectures:
        for name, value in each.parameters.items():
            below = value if isinstance(value, dict) else {"": value}
            for key, held in below.items():
                place = (f"{name}.{key}" if key else name, json.dumps(held))
                having.setdefault(place, []).append(each)
    n_values = Counter(name for name, _ in having)
    return [
        {
            "parameter": name,
            "value": json.loads(value),
            "n_architectures": len(those),
            "median_forward_flops": float(np.median([each.forward_flops for each in those])),
            "median_n_parameters": float(np.median([each.n_parameters for each in those])),
        }
        for name in n_values
        for (of_name, value), those in having.items()
        if of_name == name and 1 < n_values[name] <= MOST_VALUES
    ]


def print_space(found: SearchSpace) -> None:
    """Prints a search space: what each choice costs, the architectures (of many some, spread over cost), the probes."""
    every = found.architectures
    left_out = f" of {found.n_listed:,} (the rest is not in the sample or out of bounds)"
    click.echo(
        f"{_count(len(every), 'architecture')}{left_out if found.n_listed > len(every) else ''} of the family {found.network}; one image "
        f"forward {with_prefix(every[0].forward_flops, 'FLOP')} to {with_prefix(every[-1].forward_flops, 'FLOP')}, weights "
        f"{min(a.n_parameters for a in every):,} to {max(a.n_parameters for a in every):,}\n"
    )
    choices = [
        (
            row["parameter"],
            str(row["value"]),
            f"{row['n_architectures']:,}",
            with_prefix(row["median_forward_flops"], "FLOP"),
            f"{row['median_n_parameters']:,.0f}",
        )
        for row in _weigh_choices(every)
    ]
    if choices:
        headings = ("choice", "value", "architectures", "one image, median", "weights, median")
        print_table("", headings, choices)
        click.echo()
    shown = (
        [round(i * (len(every) - 1) / (MOST_SHOWN - 1)) for i in range(MOST_SHOWN)] if len(every) > MOST_SHOWN else None
    )
    rows = [
        (
            each.name,
            with_prefix(each.forward_flops, "FLOP"),
            with_prefix(each.training_flops, "FLOP"),
            f"{each.n_parameters:,}",
            "probe" if each in found.probes else "",
        )
        for i, each in enumerate(every)
        if shown is None or i in shown or each in found.probes
    ]
    title = "" if shown is None else f"{len(rows)} of them, spread over cost (--json lists all)"
    print_table(title, ("architecture", "one image, forward", "in training", "weights", ""), rows)


def summarise_check_plan(plan: CheckPlan) -> dict[str, Any]:
    """For programs: what a check would do."""
    return {
        "expected_seconds": plan.expected_seconds,
        "architectures": [each.name for each in plan.architectures],
        "probes": [_summarise_probe(each) for each in plan.probes],
        "runs": [asdict(each) for each in plan.runs],
    }


def print_plan(plan: BuildPlan) -> None:
    """Prints what a build would do."""
    facts = plan.source.facts
    copy = " (a local copy)" if facts.is_local_copy else ""
    click.echo(f"source: {facts.name}{copy}, {len(plan.source.train):,} training samples may be drawn, ", nl=False)
    click.echo(f"{len(plan.source.evaluation):,} evaluation samples ({facts.evaluation_from}), {plan.source.reading}")
    click.echo(f"space: {len(plan.architectures)} architectures; proxy: {plan.n_selected:,} samples\n")
    _print_probes(plan.probes)
    if plan.check is not None:
        click.echo()
        _print_runs(plan.check)
    _print_expectation(plan.expected_seconds, plan.n_workers)


def print_check_plan(plan: CheckPlan) -> None:
    """Prints what a check would do."""
    rows = [(a.name, with_prefix(a.training_flops, "FLOP"), f"{a.n_parameters:,}") for a in plan.architectures]
    print_table("architectures to rank", ("architecture", "one image", "weights"), rows)
    click.echo()
    if plan.probes:
        _print_probes(plan.probes)
        click.echo()
    _print_runs(plan)
    _print_expectation(plan.expected_seconds, plan.n_workers)


def _print_probes(probes: Sequence[PlannedProbe]) -> None:
    rows = [
        (
            p.name,
            with_prefix(p.architecture.training_flops, "FLOP"),
            with_prefix(p.flops, "FLOP"),
            "in the store" if p.is_stored else duration(p.expected_seconds),
        )
        for p in probes
    ]
    print_table("probes to train", ("architecture", "one image", "training", "expected"), rows)


def _print_runs(plan: CheckPlan) -> None:
    rows = [
        (
            each.dataset if each.dataset == "full" else f"{each.dataset} {each.ratio:g}",
            f"{each.n_runs:,}",
            f"{each.n_stored:,}",
            with_prefix(each.flops, "FLOP"),
            duration(each.expected_seconds),
        )
        for each in plan.runs
    ]
    print_table("trainings of the check", ("on", "runs", "in the store", "to do", "expected, one at a time"), rows)


def _print_expectation(seconds: float, n_workers: int) -> None:
    click.echo(
        f"\nexpected: about {duration(seconds)} with {n_workers} at once on this machine, measured just now over a few steps; "
        "nothing was trained"
    )


def print_evidence(manifest: Manifest) -> None:
    """Prints how well a proxy ranks: the verdict, every way to rank, differences, costs."""
    evidence = manifest.evidence
    if evidence is None:
        click.echo(
            "evidence: none yet; nothing shows that it ranks better than a random subset; `proxyds check` adds it"
        )
        return
    click.echo(f"verdict: {evidence.verdict}. {evidence.explanation}")
    if evidence.passed is not None:
        tau = evidence.of(PROXY, evidence.own_ratio)
        low = tau.statistics["tau"].low if tau else None
        click.echo(
            f"threshold {evidence.check.threshold:g} for the lower end of Kendall tau, {'unknown' if low is None else f'{low:.2f}'}: "
            f"{'passed' if evidence.passed else 'NOT passed'}"
        )
    if manifest.protocol == "paper":
        click.echo("circular: the test samples that measured this ranking also chose the proxy (the paper's protocol)")
    click.echo(
        f"{evidence.n_architectures} architectures ({_count(evidence.n_like_cost_pairs, 'pair')} of like FLOPs), "
        f"{_count(evidence.n_draws, 'draw')}, {_count(evidence.n_full_seeds, 'training')} on everything ({evidence.reference}); 95 % "
        "bootstrap intervals"
    )
    if evidence.left_out:
        click.echo(f"left out for want of a run: {', '.join(evidence.left_out)}")
    if evidence.runs == TRAINED_HERE:
        click.echo(
            f"{manifest.counts.test:,} test samples; Kendall tau of the very samples of this proxy: {evidence.own_tau.shown()}\n"
        )
    else:
        click.echo(f"all accuracies are those of {evidence.runs}: how they were trained and tested is not known here\n")
    names = ("tau", "tau_given_cost", "tau_top", "regret")
    rows = [
        (METHOD_LABELS[each.method], *(show_statistic(name, each.statistics.get(name)) for name in names))
        for each in evidence.in_order
    ]
    headings = ("Kendall tau", "given FLOPs", f"best {evidence.n_top}", "regret, points")
    print_table("", ("ranking by", *headings), rows)
    click.echo()
    differences = [
        (f"{METHOD_LABELS[c.control]}", c.difference.shown(), c.outcome)
        for c in evidence.comparisons
        if c.ratio == evidence.own_ratio
    ]
    print_table("", ("proxy's tau less that of", "difference", "so it is"), differences)
    if (worth := weigh_reduction(evidence)) is not None:
        click.echo(f"{worth} Mean accuracies over different numbers of labels cannot be compared.")
    if evidence.n_draws == 1:
        click.echo("with one draw nothing is decided")
    ratios = ratio_rows(evidence)
    if len(ratios) > 1:
        click.echo()
        columns = (*evidence.at_one_ratio, "difference")
        table = [(f"{row['ratio']:g}", *(row[name] for name in columns)) for row in ratios]
        print_table("", ("ratio", *columns[:-1], "proxy less random"), table)
        if evidence.target is not None:
            enough = evidence.sufficient_ratio
            found = f"{enough:g}" if enough is not None else "none"
            click.echo(f"smallest ratio whose lower end reaches {evidence.target:g}: {found}")
    click.echo()
    _print_spending(evidence)
    for failure in evidence.failures:
        click.echo(f"failed: {failure}")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _print_spending(evidence: EvidenceRecord) -> None:
    spent = evidence.spending
    if spent.speed_up is not None and spent.full_seconds is not None and spent.proxy_seconds is not None:
        click.echo(
            f"one architecture: {duration(spent.full_seconds)} on everything, {duration(spent.proxy_seconds)} on the proxy "
            f"({spent.speed_up:.1f} times as fast)"
        )
    if spent.pays_after is not None:
        click.echo(
            f"building took {duration(spent.build_seconds)} of work, the check {duration(spent.check_seconds)}: paid for after "
            f"{spent.pays_after:,} architectures, with the check after {spent.pays_after_with_check:,}"
            + ("" if spent.full_seconds is not None else " (counted in operations)")
        )


def print_built(manifest: Manifest, shown: Summary, out: str, was_there: bool) -> None:
    """Prints where a proxy is, what is in it and what to do next."""
    python, program = name_programs()
    done = "built" if manifest.resampled_from is None else "drawn again"
    verb = "is there already, unchanged (--force makes it again)" if was_there else done
    click.echo(f"{manifest.name} {manifest.version} {verb}: {out}\n")
    print_inspection(manifest, shown, whole=False)
    if "://" in out:
        click.echo(f"\nnext:\n  {program} pull {out}")
        return
    click.echo(
        f"\nnext:\n  {python} -c \"from datasets import load_dataset; print(load_dataset('{out}'))\"\n"
        f"  {program} inspect {out}      class balance, provenance, cost\n"
        f"  {Path(out) / 'README.md'}        the card, with pictures in {Path(out) / 'assets'}"
    )


def name_programs() -> tuple[str, str]:
    """What to type for Python and for this program: short where the shell finds them."""
    if shutil.which("proxyds") == sys.argv[0] or shutil.which("proxyds") == shutil.which(sys.argv[0]):
        return "python", "proxyds"
    here = Path.cwd()
    python, program = Path(sys.executable), Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return str(python), f"{python} -m proxyds"
    names = [str(path.relative_to(here)) if path.is_relative_to(here) else str(path) for path in (python, program)]
    return names[0], names[1]


def print_inspection(manifest: Manifest, shown: Summary, *, whole: bool = True) -> None:
    """Prints a proxy's counts, cases and probes; the whole with class balance, cost and provenance."""
    counts, source = manifest.counts, manifest.source
    click.echo(
        f"{counts.proxy:,} of {counts.train:,} training samples of {source.name} ({100 * manifest.draw.ratio:.3g} % of them, by "
        f"{manifest.draw.method}, drawn {manifest.draw.law}), {len(manifest.proxy_label_names)} labels"
        + ("" if manifest.kept_labels is None else f" of {len(manifest.label_names)}")
    )
    if (parent := manifest.resampled_from) is not None:
        click.echo(f"drawn again from the importance table of {parent.name} {parent.version}; nothing was trained")
    if manifest.protocol == "paper":
        click.echo("the paper's protocol: importance from the TEST set; a ranking measured there is circular")
    click.echo()
    print_evidence(manifest)
    click.echo()

    def shares(case: int) -> list[str]:
        tallies = (shown.evaluation, shown.training, shown.proxy)
        return [f"{n:,} ({n / tally.n:.1%})" for tally in tallies for n in (int(tally.of_cases()[case - 1]),)]

    rows = [
        (f"{case}: {meaning}", f"{manifest.draw.constants[case - 1]:g}", *shares(case))
        for case, meaning in CASE_MEANINGS.items()
    ]
    print_table("", ("case", "importance", "evaluation", "training", "proxy"), rows)
    click.echo()
    probes = [
        (
            manifest.name_of(p),
            with_prefix(p.training_flops_per_sample, "FLOP"),
            f"{p.n_parameters:,}",
            f"{p.accuracy:.1%}",
            duration(p.training_seconds),
        )
        for p in manifest.probes
    ]
    print_table("", ("probe", "one image", "weights", "right", "trained in"), probes)
    if manifest.agreement is not None:
        same = manifest.agreement
        click.echo(
            f"{same.share:.1%} of the evaluation samples have the same case in two trainings of the probes with other seeds "
            f"({same.by_chance:.1%} by chance)"
        )
    if manifest.has_lighter_winner:
        click.echo("note: the heaviest probe is not the most accurate; case 3 favours what lighter ones get right")
    if not whole:
        return
    click.echo()
    before, after = count_labels(manifest, shown)
    kept = range(len(before)) if manifest.kept_labels is None else manifest.kept_labels
    balance = [
        (
            name,
            f"{b:,} ({b / before.sum():.1%})",
            f"{a:,} ({a / after.sum():.1%})" if number in kept else "dropped",
        )
        for number, (name, b, a) in enumerate(zip(manifest.label_names, before, after, strict=True))
    ]
    print_table("", ("label", "training", "proxy"), balance)
    click.echo()
    stages = [(s.stage, f"{s.work_seconds:.1f}", f"{s.elapsed_seconds:.1f}") for s in manifest.stages]
    if manifest.evidence is not None:
        check = manifest.evidence
        stages.append(("check", f"{check.spending.check_seconds:.1f}", f"{check.elapsed_seconds:.1f}"))
    print_table("", ("stage", "work (s)", "this build (s)"), stages)
    revision = f" at {source.revision}" if source.revision else ""
    copy = ", from a local copy whose revision was not checked" if source.is_local_copy else ""
    duplicates = ", ".join(f"{n:,} in {split}" for split, n in source.n_duplicates.items())
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.machine.libraries.items())
    at_once = f", {manifest.machine.n_workers} at once" if manifest.machine.n_workers is not None else ""
    computations = " or ".join(sorted(set(manifest.machine.computations.values())))
    computed = f"; networks in {computations}" if computations else ""
    click.echo(
        f"\nsource: {source.name}{revision}{copy}\n  content {source.fingerprint}\n  evaluation samples: {source.evaluation_from}"
        f"\n  test samples: {source.test_from}\n  exact duplicates: {duplicates}; images left out: {len(source.bad_images)}"
        f"\nrecipe: {manifest.recipe_sha256} (recipe.yaml)\nbuilt: {manifest.created}, {manifest.machine.processor}, "
        f"{manifest.machine.n_cores} cores{at_once}, {manifest.machine.device}{computed}; {libraries}"
    )
