"""What each command prints of its result: the values of the templates, and the same for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proxyds.artifact.card import ratio_rows, show_statistic, weigh_reduction
from proxyds.artifact.manifest import Manifest
from proxyds.artifact.plots import count_labels
from proxyds.artifact.ranking_table import METHOD_LABELS, PROXY, TRAINED_HERE
from proxyds.artifact.summary import Summary
from proxyds.cli.output import name_programs, print_text
from proxyds.selection.records import CASE_MEANINGS
from proxyds.space.architecture import Architecture
from proxyds.text import duration, with_prefix

if TYPE_CHECKING:
    from proxyds.pipeline.plan import BuildPlan, CheckPlan, PlannedProbe, SearchSpace
    from proxyds.pipeline.pull import Pulled
    from proxyds.pipeline.push import Pushed

MOST_SHOWN = 24
"""Architectures of a space that are printed, at most, besides the probes."""
MOST_VALUES = 50
"""Values of one parameter whose cost is summed up, at most: more say nothing."""


# Search spaces


def summarize_space(space: SearchSpace) -> dict[str, Any]:
    """Describes a measured search space for programs."""
    return {
        "network": space.network,
        "n_listed": space.n_listed,
        "architectures": [asdict(each) for each in space.architectures],
        "probes": [each.name for each in space.probes],
        "choices": _weigh_choices(space.architectures),
    }


def print_space(space: SearchSpace) -> None:
    """Prints a search space: what each choice costs, the architectures (of many some, spread over cost), the probes."""
    every = space.architectures
    last = len(every) - 1
    spread = range(last + 1) if last < MOST_SHOWN else {round(i * last / (MOST_SHOWN - 1)) for i in range(MOST_SHOWN)}
    choices = [
        (
            row["parameter"],
            row["value"],
            f"{row['n_architectures']:,}",
            _flop(row["median_forward_flops"]),
            f"{row['median_n_parameters']:,.0f}",
        )
        for row in _weigh_choices(every)
    ]
    shown = [
        (
            each.name,
            _flop(each.forward_flops),
            _flop(each.training_flops),
            f"{each.n_parameters:,}",
            "probe" if each in space.probes else "",
        )
        for number, each in enumerate(every)
        if number in spread or each in space.probes
    ]
    print_text(
        "space", network=space.network, n_listed=space.n_listed, architectures=every, choices=choices, shown=shown
    )


def _weigh_choices(architectures: Sequence[Architecture]) -> list[dict[str, Any]]:
    """Returns for every value of a parameter that varies the number of architectures with it, and their median cost."""
    having: dict[tuple[str, str], list[Architecture]] = {}
    for each in architectures:
        for name, setting in each.parameters.items():
            for key, value in (setting if isinstance(setting, dict) else {"": setting}).items():
                having.setdefault((f"{name}.{key}" if key else name, json.dumps(value)), []).append(each)
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


# Plans


def summarize_build_plan(plan: BuildPlan) -> dict[str, Any]:
    """Describes for programs what a build would do."""
    return {
        "n_train": len(plan.source.train),
        "reading": plan.source.reading,
        "n_evaluation": len(plan.source.evaluation),
        "n_selected": plan.n_selected,
        "n_architectures": len(plan.architectures),
        "expected_seconds": plan.expected_seconds,
        "probes": _summarize_probes(plan.probes),
        "check": None if plan.check is None else summarize_check_plan(plan.check),
    }


def summarize_check_plan(plan: CheckPlan) -> dict[str, Any]:
    """Describes for programs what a check would do."""
    return {
        "expected_seconds": plan.expected_seconds,
        "architectures": [each.name for each in plan.architectures],
        "probes": _summarize_probes(plan.probes),
        "runs": [asdict(each) for each in plan.runs],
    }


def _summarize_probes(probes: Sequence[PlannedProbe]) -> list[dict[str, Any]]:
    shown = ("name", "is_stored", "flops", "expected_seconds")
    return [{name: getattr(each, name) for name in shown} for each in probes]


def print_build_plan(plan: BuildPlan) -> None:
    """Prints what a build would do."""
    print_text(
        "plan", plan=plan, source=plan.source, probes=_probe_rows(plan.probes), runs=_run_rows(plan.check), ranked=[]
    )


def print_check_plan(plan: CheckPlan) -> None:
    """Prints what a check would do."""
    ranked = [(each.name, _flop(each.training_flops), f"{each.n_parameters:,}") for each in plan.architectures]
    print_text("plan", plan=plan, source=None, probes=_probe_rows(plan.probes), runs=_run_rows(plan), ranked=ranked)


def _probe_rows(probes: Sequence[PlannedProbe]) -> list[tuple[str, ...]]:
    return [
        (
            each.name,
            _flop(each.architecture.training_flops),
            _flop(each.flops),
            "in the store" if each.is_stored else duration(each.expected_seconds),
        )
        for each in probes
    ]


def _run_rows(plan: CheckPlan | None) -> list[tuple[str, ...]]:
    return [
        (
            each.dataset if each.dataset == "full" else f"{each.dataset} {each.ratio:g}",
            f"{each.n_runs:,}",
            f"{each.n_stored:,}",
            _flop(each.flops),
            duration(each.expected_seconds),
        )
        for each in (plan.runs if plan else [])
    ]


# Proxies


def summarize_proxy(place: str | Path, manifest: Manifest) -> dict[str, Any]:
    """Describes a proxy for programs: its manifest without the list of files."""
    return {"folder": str(place), **manifest.model_dump(mode="json", exclude={"files"})}


def print_built(manifest: Manifest, summary: Summary, out: str, was_there: bool) -> None:
    """Prints where a proxy is, what is in it and what to do next."""
    files = {"card": Path(out) / "README.md", "pictures": Path(out) / "assets"}
    values = _describe_proxy(manifest, summary) | files | name_programs()
    print_text("built", out=out, was_there=was_there, whole=False, **values)


def print_inspection(manifest: Manifest, summary: Summary) -> None:
    """Prints a proxy's counts, evidence, cases and probes; its class balance, cost and provenance."""
    n_before, n_after = count_labels(manifest, summary)
    kept = range(len(n_before)) if manifest.kept_labels is None else manifest.kept_labels
    stages = [(each.stage, each.work_seconds, each.elapsed_seconds) for each in manifest.stages]
    if (evidence := manifest.evidence) is not None:
        stages.append(("check", evidence.spending.check_seconds, evidence.elapsed_seconds))
    print_text(
        "inspection",
        whole=True,
        balance=[
            (
                name,
                _share(n_before[label], n_before.sum()),
                _share(n_after[label], n_after.sum()) if label in kept else "dropped",
            )
            for label, name in enumerate(manifest.label_names)
        ],
        stages=[(stage, f"{work:.1f}", f"{elapsed:.1f}") for stage, work, elapsed in stages],
        computations=sorted(set(manifest.machine.computations.values())),
        **_describe_proxy(manifest, summary),
    )


def print_evidence(manifest: Manifest) -> None:
    """Prints how well a proxy ranks: the verdict, every way to rank, differences, costs."""
    print_text("evidence", **_describe_evidence(manifest))


def _describe_proxy(manifest: Manifest, summary: Summary) -> dict[str, Any]:
    counted = (summary.evaluation, summary.training, summary.proxy)
    return {
        "cases": [
            (
                f"{case}: {meaning}",
                f"{manifest.draw.constants[case - 1]:g}",
                *(_share(counts.count("case").get(case, 0), counts.n) for counts in counted),
            )
            for case, meaning in CASE_MEANINGS.items()
        ],
        "probes": [
            (
                manifest.name_of(each),
                _flop(each.training_flops_per_sample),
                f"{each.n_parameters:,}",
                f"{each.accuracy:.1%}",
                duration(each.training_seconds),
            )
            for each in manifest.probes
        ],
        **_describe_evidence(manifest),
    }


def _describe_evidence(manifest: Manifest) -> dict[str, Any]:
    evidence = manifest.evidence
    values: dict[str, Any] = {"manifest": manifest, "evidence": evidence, "TRAINED_HERE": TRAINED_HERE}
    if evidence is None:
        return values
    own = evidence.of(PROXY, evidence.own_ratio)
    names = ("tau", "tau_given_cost", "tau_top", "regret")
    columns = (*evidence.at_one_ratio, "difference")
    return values | {
        "low": own.statistics["tau"].low if own else None,
        "rankings": [
            (METHOD_LABELS[each.method], *(show_statistic(name, each.statistics.get(name)) for name in names))
            for each in evidence.in_order
        ],
        "differences": [
            (METHOD_LABELS[each.control], each.difference.shown(), each.outcome)
            for each in evidence.comparisons
            if each.ratio == evidence.own_ratio
        ],
        "reduction": weigh_reduction(evidence),
        "ratios": [(f"{row['ratio']:g}", *(row[name] for name in columns)) for row in ratio_rows(evidence)],
    }


# Published proxies


def summarize_push(pushed: Pushed) -> dict[str, Any]:
    """Describes for programs what a push did, or would do."""
    rest = {name: value for name, value in vars(pushed).items() if name not in ("manifest", "files")}
    files = [asdict(each) for each in pushed.files]
    return {"name": pushed.manifest.name, "version": pushed.manifest.version, **rest, "files": files}


def print_pushed(pushed: Pushed) -> None:
    """Prints what a push did, or would do."""
    files = [(each.name, "" if each.change == "removed" else f"{each.n_bytes:,}", each.change) for each in pushed.files]
    n_bytes = sum(each.n_bytes for each in pushed.files if each.is_sent)
    print_text("pushed", pushed=pushed, manifest=pushed.manifest, files=files, n_bytes=n_bytes, **name_programs())


def summarize_pull(pulled: Pulled, out: str) -> dict[str, Any]:
    """Describes for programs what was fetched."""
    return {**summarize_proxy(out, pulled.manifest), "origin": asdict(pulled.origin), "was_there": pulled.was_there}


def print_pulled(pulled: Pulled, out: str) -> None:
    """Prints what was fetched, and whether to believe it."""
    n_bytes = sum(facts.bytes for facts in pulled.manifest.files.values())
    print_text("pulled", out=out, n_bytes=n_bytes, **vars(pulled), **name_programs())


def _flop(value: float) -> str:
    return with_prefix(value, "FLOP")


def _share(n: int, total: int) -> str:
    return f"{n:,} ({n / total:.1%})"
