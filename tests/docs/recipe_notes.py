"""Writes what the checks of shipped recipes cost and showed, from the manifests of their cards: part of `make figures`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pyarrow.parquet as pq

from proxyds.artifact.evidence_records import EvidenceRecord
from proxyds.artifact.manifest import MANIFEST
from proxyds.artifact.ranking_table import METHOD_LABELS, PROXY, RANDOM, TRAINED_HERE
from proxyds.artifact.reader import read_manifest
from proxyds.text import duration
from tests.docs.cards import CARDS, ROOT, RUNS

NOTES = re.compile(r"^# Cost.*?(?=^name:)", re.MULTILINE | re.DOTALL)
"""What is written: the end of a recipe's head, from `# Cost` on. Remarks of people stand above it."""
WIDTH = 130
"""Characters of a line."""


def write_notes(text: str, name: str) -> str:
    """Returns a recipe's text with what its card shows in its head; as it is where its card has no manifest with a check.

    Args:
        text: Of the recipe.
        name: Of its file without `.yaml`, and of its card's folder.

    Raises:
        SystemExit: The head has no place for it.
    """
    card = CARDS / name
    evidence = read_manifest(card).evidence if (card / MANIFEST).exists() else None
    if evidence is None:
        return text
    written, n_found = NOTES.subn(lambda _: note(evidence, card), text, count=1)
    if not n_found:
        raise SystemExit(
            f"recipes/{name}.yaml: its head must end with a line `# Cost`, where the figures of its card go"
        )
    return written


def tabulate_costs() -> str:
    """Tabulates what builds and checks took, in Markdown: of the recipes whose cards have a manifest, the cheapest first."""
    manifests = {path.parent.name: read_manifest(path.parent) for path in CARDS.glob(f"*/{MANIFEST}")}
    checked = {name: (each, each.evidence) for name, each in manifests.items() if each.evidence is not None}
    lines = ["| recipe | images | build, work | check, work | trainings at once | measured on |", f"|---|{'---|' * 5}"]
    for name, (manifest, evidence) in sorted(checked.items(), key=lambda one: one[1][1].spending.check_seconds):
        seconds = pq.read_table(CARDS / name / RUNS, columns=["training_seconds"])["training_seconds"]
        n_trained = len(seconds) - seconds.null_count  # accuracies of a table have no training here
        assert manifest.image_shape is not None
        _, height, width = manifest.image_shape
        cells = [
            f"[`{name}`](../recipes/{name}.yaml)",
            f"{manifest.counts.train:,}, {width}x{height}",
            duration(evidence.spending.build_seconds),
            f"{duration(evidence.spending.check_seconds)}: {n_trained} trainings",
            f"{evidence.machine.n_workers}",
            f"{evidence.machine.processor}, {evidence.created[:10]}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def note(evidence: EvidenceRecord, card: Path) -> str:
    """Writes what a check cost and showed, as comments of a recipe."""
    ways = [
        each for each in evidence.methods if each.ratio == evidence.own_ratio and each.ranked_by == evidence.ranked_by
    ]
    ways += [each for each in evidence.methods if each.ratio is None]
    found = {METHOD_LABELS[each.method]: each.statistics.get("tau") for each in ways}
    taus = [f"{label} {tau.shown()}" for label, tau in found.items() if tau is not None]  # published, it has no ceiling
    return "".join(
        [
            _comment(f"Cost: {_tell_cost(evidence)} `--no-check` leaves the check out."),
            _comment(f"Verdict: {evidence.verdict}. Kendall tau by {evidence.ranked_by}, with intervals of 95 %:"),
            *(_comment(tau, indent="  ") for tau in taus),
            _comment(f"{_tell_scope(evidence)} {_tell_learning(evidence)} The card: {card.relative_to(ROOT)}."),
        ]
    )


def _tell_cost(evidence: EvidenceRecord) -> str:
    spent, machine = evidence.spending, evidence.machine
    day, torch = evidence.created[:10], machine.libraries["torch"]
    return (
        f"the build took {duration(spent.build_seconds)} of work, the check {duration(spent.check_seconds)}, "
        f"with {machine.n_workers} trainings at once ({machine.processor}, torch {torch}, {day})."
    )


def _tell_scope(evidence: EvidenceRecord) -> str:
    trained = f" and {evidence.n_full_seeds} trainings on everything" if evidence.reference == TRAINED_HERE else ""
    regrets = {}
    for name in (PROXY, RANDOM):
        found = evidence.of(name, evidence.own_ratio, evidence.ranked_by)
        assert found is not None
        regret = found.statistics["regret"].value
        assert regret is not None
        regrets[name] = f"{100 * regret:.1f}"
    return (
        f"{evidence.n_architectures} architectures were ranked, with {evidence.n_draws} draws{trained}. "
        f"Regret is {regrets[PROXY]} points, that of random {regrets[RANDOM]}."
    )


def _tell_learning(evidence: EvidenceRecord) -> str:
    n = sum(each.proxy_accuracy >= each.full_accuracy / 2 for each in evidence.architectures)
    of = "all" if n == evidence.n_architectures else f"{n} of {evidence.n_architectures}"
    return f"On the proxy, {of} reach at least half of their full-data accuracy."


def _comment(text: str, indent: str = "") -> str:
    return (
        textwrap.fill(
            text, WIDTH, break_on_hyphens=False, initial_indent=f"# {indent}", subsequent_indent=f"# {indent}"
        )
        + "\n"
    )
