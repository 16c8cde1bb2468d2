"""What each command prints of its result: text from a template for people, or JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proxyds.artifact.card.plots import count_labels, list_weights
from proxyds.artifact.card.render import show_evidence
from proxyds.artifact.manifest import Manifest
from proxyds.artifact.ranking_table import PROXY, TRAINED_HERE
from proxyds.artifact.summary import Summary, Tables, summarize_tables
from proxyds.cli.options import repeat_plugins
from proxyds.cli.output import (
    name_programs,
    print_json,
    print_plain,
    print_text,
    say,
    show_command,
    terminal_width,
)
from proxyds.selection.records import CASE_MEANINGS
from proxyds.space.architecture import Architecture

if TYPE_CHECKING:
    from proxyds.data.samples import Source
    from proxyds.evaluation.decision.ranked import Ranking
    from proxyds.pipeline.plan import BuildPlan, CheckPlan, PlannedProbe
    from proxyds.pipeline.sharing.pull import Pulled
    from proxyds.pipeline.sharing.push import Pushed
    from proxyds.space.choices import Space

MOST_SHOWN = 24
"""Architectures of a space that are printed, at most, besides the probes."""
MOST_NAMED = 20
"""Images that were left out and are named, at most."""
MOST_VALUES = 50
"""Values of one parameter whose cost is summed up, at most: more say nothing."""


def print_space(
    space: Space,
    architectures: Sequence[Architecture],
    probes: Sequence[Architecture],
    source: Source,
    *,
    as_json: bool,
) -> None:
    """Prints a search space and its source: what each choice costs, the architectures (for people a part, spread over cost), the probes."""
    values = {"network": space.network, "n_listed": space.n_listed, "choices": _weigh_choices(architectures)}
    if as_json:
        listed, names = [asdict(each) for each in architectures], [each.name for each in probes]
        print_json({**values, "architectures": listed, "probes": names, "source": _summarize_source(source)})
        return
    last = len(architectures) - 1
    spread = range(last + 1) if last < MOST_SHOWN else {round(i * last / (MOST_SHOWN - 1)) for i in range(MOST_SHOWN)}
    shown = [each for number, each in enumerate(architectures) if number in spread or each in probes]
    print_text("space", **values, architectures=architectures, probes=probes, shown=shown, source=source)


def _summarize_source(source: Source) -> dict[str, Any]:
    """Describes for programs what a survey found, and what in a source may not be meant so."""
    facts = source.facts
    counted = ("name", "n_samples", "n_duplicates", "n_shared", "n_conflicting", "layout", "left_out", "bad_images")
    return {**{name: getattr(facts, name) for name in counted}, "warnings": list(source.warnings)}


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


def print_build_plan(plan: BuildPlan, *, as_json: bool) -> None:
    """Prints what a build would do."""
    if not as_json:
        print_plain(plan.describe(terminal_width()))
        return
    summary = {
        "source": _summarize_source(plan.source),
        "n_train": len(plan.source.train),
        "reading": plan.source.reading,
        "n_evaluation": len(plan.source.evaluation),
        "n_test": len(plan.source.test),
        "n_selected": plan.n_selected,
        "n_validation": plan.n_validation,
        "n_architectures": len(plan.architectures),
        "expected_seconds": plan.expected_seconds,
        "expected_build_seconds": plan.expected_build_seconds,
        "probes": _summarize_probes(plan.probes),
        "check": None if plan.check is None else _summarize_check_plan(plan.check),
        "warnings": plan.warnings,
    }
    print_json(summary)


def print_check_plan(plan: CheckPlan, *, as_json: bool) -> None:
    """Prints what a check would do."""
    if as_json:
        print_json(_summarize_check_plan(plan))
    else:
        print_plain(plan.describe(terminal_width()))


def _summarize_check_plan(plan: CheckPlan) -> dict[str, Any]:
    return {
        "expected_seconds": plan.expected_seconds,
        "architectures": [each.name for each in plan.architectures],
        "probes": _summarize_probes(plan.probes),
        "runs": [asdict(each) for each in plan.runs],
        "warnings": plan.warnings,
    }


def _summarize_probes(probes: Sequence[PlannedProbe]) -> list[dict[str, Any]]:
    shown = ("name", "is_stored", "flops", "expected_seconds")
    return [{name: getattr(each, name) for name in shown} for each in probes]


def print_built(manifest: Manifest, summary: Summary, out: str, *, was_there: bool, as_json: bool) -> None:
    """Prints where a proxy is, what is in it and what to do next."""
    if as_json:
        print_json(_summarize_proxy(out, manifest))
        return
    values = _gather_evidence(manifest) | name_programs()
    values |= {"card": Path(out) / "README.md", "pictures": Path(out) / "assets", "out": out, "was_there": was_there}
    values["plugins"] = repeat_plugins()
    print_text(
        "built", summary=summary, weights=list_weights(summary), case_meanings=CASE_MEANINGS, whole=False, **values
    )


def print_inspection(manifest: Manifest, tables: Tables, name: str, *, as_json: bool) -> None:
    """Prints a proxy's counts, evidence, cases and probes; its class balance, cost and provenance."""
    if as_json:
        print_json(_summarize_proxy(name, manifest))
        return
    summary = summarize_tables(tables)
    n_before, n_after = count_labels(manifest, summary)
    values = _gather_evidence(manifest) | {"n_before": n_before, "n_after": n_after, "most_named": MOST_NAMED}
    say(f"{manifest.name} {manifest.version} at {name}, licence {manifest.licence}")
    print_text(
        "inspection", summary=summary, weights=list_weights(summary), case_meanings=CASE_MEANINGS, whole=True, **values
    )


def print_evidence(manifest: Manifest, folder: Path, *, as_json: bool) -> None:
    """Prints how well a proxy ranks: the verdict, every way to rank, differences, costs."""
    if as_json:
        print_json(_summarize_proxy(folder, manifest)["evidence"])
        return
    print_text("evidence", **_gather_evidence(manifest))
    say(
        f"\nnext:\n  {folder / 'README.md'}        the card, with pictures in {folder / 'assets'}"
        f"\n  {name_programs()['program']} rank {show_command(folder)} RESULTS.csv{repeat_plugins()}      which of your candidates to train on everything, once they are trained on the proxy"
    )


def print_ranking(ranking: Ranking, *, as_json: bool) -> None:
    """Prints candidates in order, the shortlist and what to do next."""
    if as_json:
        print_json(asdict(ranking))
    else:
        print_plain(ranking.describe(terminal_width(), others_in="--json"))


def print_pushed(pushed: Pushed, *, as_json: bool) -> None:
    """Prints what a push did, or would do, and what to do next."""
    if as_json:
        identity = {"name": pushed.manifest.name, "version": pushed.manifest.version}
        outcome = {name: value for name, value in vars(pushed).items() if name not in ("manifest", "files")}
        print_json({**identity, **outcome, "files": [asdict(each) for each in pushed.files]})
        return
    print_plain(pushed.describe(terminal_width()))
    if pushed.tag and not pushed.is_plan:
        load = f'from datasets import load_dataset; print(load_dataset("{pushed.place}", revision="{pushed.tag}"))'
        programs, place = name_programs(), show_command(f"{pushed.place}@{pushed.tag}")
        say(f"\nnext:\n  {programs['program']} pull {place}\n  {programs['python']} -c {show_command(load)}")


def print_pulled(pulled: Pulled, out: str, *, as_json: bool) -> None:
    """Prints what was fetched, whether to believe it, and what to do next."""
    if as_json:
        proxy = _summarize_proxy(out, pulled.manifest)
        print_json({**proxy, "origin": asdict(pulled.origin), "was_there": pulled.was_there})
        return
    print_plain(pulled.describe(terminal_width(), out))
    if "://" not in out:
        say(f"\nnext:\n  {name_programs()['program']} inspect {show_command(out)}")


def _summarize_proxy(place: str | Path, manifest: Manifest) -> dict[str, Any]:
    """Describes a proxy for programs: its manifest without the list of files."""
    return {"folder": str(place), **manifest.model_dump(mode="json", exclude={"files"})}


def _gather_evidence(manifest: Manifest) -> dict[str, Any]:
    evidence = manifest.evidence
    return {
        "manifest": manifest,
        "evidence": evidence,
        "is_trained_here": evidence is not None and evidence.runs == TRAINED_HERE,
        "own": evidence and evidence.of(PROXY, evidence.own_ratio),
        **(show_evidence(evidence, manifest.space.n_architectures) if evidence else {}),
    }
