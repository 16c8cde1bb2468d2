"""From a proxy's records to its card: a pure function, so that a card can be rendered again and checked for drift."""

from __future__ import annotations

import html
import io
import re
from importlib.resources import files
from typing import Any

import jinja2
from ruamel.yaml import YAML

from proxyds.artifact.card.evidence_plots import label_search, list_evidence_pictures
from proxyds.artifact.card.plots import Draw, as_png, count_labels, list_pictures, list_weights
from proxyds.artifact.evidence_records import HALVING, EstimateRecord, EvidenceRecord
from proxyds.artifact.manifest import CARD, CROISSANT, INDEXES, Manifest, list_configs
from proxyds.artifact.ranking_table import (
    ALL_LABELS,
    BY_ACCURACY,
    BY_LOSS,
    FULL,
    METHOD_LABELS,
    RANDOM,
    REGRETS,
    STATISTICS,
    WITH_PARAMETERS,
    RankedBy,
)
from proxyds.artifact.summary import Summary
from proxyds.recipe.methods import METHODS, UNKNOWN_METHOD, chooses_by_evaluation
from proxyds.selection.records import CASE_MEANINGS
from proxyds.text import duration, show_value, with_prefix

_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
"""The Hub's names for sizes of data sets, each by the number of samples that it stays under."""
_CHEAPER = {
    "worse than random": "a random subset",
    "no better than random": "a random subset",
    "no better than counting FLOPs": "counting FLOPs",
    "no better than counting parameters": "counting parameters",
    "no better than fewer epochs": "training on everything for fewer epochs",
    "no better than random with parameters": "a random subset, with the number of parameters",
}
"""By verdict, what takes less work than choosing samples and ranks at least as well."""
_TEMPLATES = jinja2.FunctionLoader(
    lambda name: files("proxyds.artifact.card").joinpath(name).read_text(encoding="utf-8")
)


def render_card(manifest: Manifest, summary: Summary) -> dict[str, bytes]:
    """Renders a proxy's card: Markdown with the YAML metadata that the Hub reads, and its pictures.

    Args:
        manifest: The proxy's; its list of files holds all but the card's: the card names what is there.
        summary: The counts of the proxy's tables.

    Returns:
        The bytes of every file of the card by its path in the proxy.

    Raises:
        jinja2.UndefinedError: The template names something that is not there (a defect, never printed as nothing).
    """
    environment = jinja2.Environment(  # noqa: S701 - Markdown: names are escaped by the filter `plain`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=_TEMPLATES,
    )
    environment.filters |= {
        "plain": escape_markdown,
        "code": code_span,
        "flop": lambda value: "unknown" if value is None else with_prefix(value, "FLOP"),
        "duration": duration,
        "settings": lambda settings: ", ".join(f"{name} {show_value(value)}" for name, value in settings.items()),
        "percent": lambda share: f"{share:.1%}",
    }
    template = environment.get_template("card.md.jinja" if manifest.index_of is None else "indexed.md.jinja")
    method = METHODS.get(manifest.draw.method, UNKNOWN_METHOD)
    readme = template.render(
        metadata=_metadata(manifest),
        m=manifest,
        e=manifest.evidence,
        method=method,
        chose_by_evaluation=chooses_by_evaluation(manifest.draw.method),
        files=_list_named(manifest),
        cases=_case_rows(manifest, summary),
        weights=list_weights(summary),
        labels=_label_rows(manifest, summary),
        **(show_evidence(manifest.evidence, manifest.space.n_architectures) if manifest.evidence else {}),
    )
    pictures = list_all_pictures(manifest, summary)
    return {CARD: readme.encode(), **{f"assets/{name}": as_png(draw) for name, draw in pictures.items()}}


def list_all_pictures(manifest: Manifest, summary: Summary) -> dict[str, Draw]:
    """Lists every picture of a proxy by file name, with what draws it: of its samples, and of its check if there was one."""
    pictures = list_pictures(manifest, summary)
    if manifest.evidence is not None and summary.ranking is not None:
        pictures |= list_evidence_pictures(manifest.evidence, summary.ranking)
    return pictures


def escape_markdown(text: object) -> str:
    """Makes a name from a source or recipe show as it is: no markup, no HTML, on one line."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", html.escape(line, quote=False))


def code_span(text: object) -> str:
    """Writes a name as a code span, in a table or out of it: on one line, without what would end it."""
    line = " ".join(str(text).split()).replace("`", "'")
    return f"`{line}`".replace("|", "\\|")


def _list_named(manifest: Manifest) -> dict[str, list[str]]:
    """Lists the files for other readers that are there, as the card names them: tars, lists of samples, `croissant.json`."""
    tars = any(name.startswith("webdataset/") for name in manifest.files)
    return {
        "tars": ["webdataset/*.tar"] if tars else [],
        "lists": [name for name in INDEXES.values() if name in manifest.files],
        "croissant": [name for name in (CROISSANT,) if name in manifest.files],
    }


def _metadata(manifest: Manifest) -> str:
    """Writes the YAML block that the Hub reads."""
    size = next((name for bound, name in _SIZES.items() if manifest.counts.proxy < bound), "10M<n<100M")
    metadata: dict[str, Any] = {
        "license": manifest.licence,
        "pretty_name": f"{manifest.name} {manifest.version}",
        "task_categories": ["image-classification"],
        "size_categories": [size],
        "tags": ["data-proxy", "neural-architecture-search", "proxyds"],
        "configs": list_configs(manifest),
    }
    if manifest.source.kind == "hub":
        metadata["source_datasets"] = [manifest.source.name]
    stream = io.StringIO()
    YAML(typ="rt", pure=True).dump(metadata, stream)
    return stream.getvalue()


def show_evidence(evidence: EvidenceRecord, n_in_space: int) -> dict[str, Any]:
    """Prepares what templates show of the evidence besides its record, by the name of the template's variable.

    Args:
        evidence: The proxy's.
        n_in_space: Architectures of its search space.
    """
    evidence_rows = []
    ways, other_scores = evidence.list_ways(), _list_other_scores(evidence)
    for each in ways:
        others = {name: evidence.of(each.method, each.ratio, score) for name, score in other_scores.items()}
        evidence_rows.append(
            {
                "label": METHOD_LABELS[each.method],
                "n_draws": each.n_draws,
                "accuracy": each.mean_accuracy,
                **{name: _show_statistic("tau", of.statistics["tau"] if of else None) for name, of in others.items()},
                **{name: _show_statistic(name, each.statistics.get(name)) for name in STATISTICS},
            }
        )
    return {
        "evidence_rows": evidence_rows,
        "ranks_by_loss": evidence.ranked_by == BY_LOSS,
        "taus": {**dict.fromkeys((FULL, RANDOM)), **{each.method: each.statistics["tau"].shown() for each in ways}},
        "comparison_rows": _comparison_rows(evidence),
        "search_rows": _search_rows(evidence),
        "has_halving": any(each.method == HALVING for each in evidence.searches),
        "without_price": _list_without_price(evidence),
        "ratio_rows": _ratio_rows(evidence),
        "label_worth": _weigh_reduction(evidence),
        "worth": _tell_whether_it_pays(evidence, n_in_space),
        "statistics": STATISTICS,
        "method_labels": METHOD_LABELS,
    }


def _list_other_scores(evidence: EvidenceRecord) -> dict[str, RankedBy]:
    """Lists what ranks besides what candidates rank by, by its name in templates."""
    return {"with_parameters": WITH_PARAMETERS[evidence.ranked_by], "by_accuracy": BY_ACCURACY}


def _tell_whether_it_pays(evidence: EvidenceRecord, n_in_space: int) -> str:
    """Says why choosing samples does not pay; nothing where it does, or where nobody knows."""
    if (rival := _CHEAPER.get(evidence.verdict)) is not None:
        return f"It does not pay: {rival} ranks at least as well."
    after, with_check = evidence.spending.pays_after, evidence.spending.pays_after_with_check
    if after is not None and after > n_in_space:
        return f"It does not pay for one search of this space, which has {n_in_space:,} architectures."
    if with_check is not None and with_check > n_in_space:
        return f"The check does not pay for one search of this space, which has {n_in_space:,} architectures."
    return ""


def _comparison_rows(evidence: EvidenceRecord) -> list[dict[str, str]]:
    """Makes a row for each control: the difference of taus and what it says, by each score, as text."""
    rows = []
    for each in evidence.comparisons:
        if (each.ratio, each.ranked_by) == (evidence.own_ratio, evidence.ranked_by):
            row = {"label": METHOD_LABELS[each.control], "difference": each.difference.shown(), "so": each.outcome}
            for name, score in _list_other_scores(evidence).items():
                other = evidence.compare_with(each.control, each.ratio, score)
                row[name] = other.difference.shown() if other else "–"
                row[f"so_{name}"] = other.outcome if other else "–"
            rows.append(row)
    return rows


def _search_rows(evidence: EvidenceRecord) -> list[dict[str, Any]]:
    """Makes a row for each way to search: FLOPs and accuracy points lost, as text, by the number of finalists."""
    rows: dict[str, dict[str, Any]] = {}
    for each in evidence.searches:
        way = label_search(each)
        row = rows.setdefault(way, {"way": way, "finalists": {}})
        row["finalists"][each.n_finalists] = f"{with_prefix(each.flops, 'FLOP')}, {100 * each.lost:.1f}"
    return list(rows.values())


def _list_without_price(evidence: EvidenceRecord) -> list[str]:
    """Names the data sets of the proxy's size that no search is priced with."""
    priced = {each.method for each in evidence.searches}
    return [
        METHOD_LABELS[name]
        for name in evidence.at_one_ratio
        if evidence.of(name, evidence.own_ratio) and name not in priced
    ]


def _ratio_rows(evidence: EvidenceRecord) -> list[dict[str, Any]]:
    """Makes a row for each ratio that was checked: Kendall's tau of each data set of that size, as text."""
    rows = []
    for ratio in evidence.ratios:
        methods = {name: evidence.of(name, ratio) for name in evidence.at_one_ratio}
        shown = {name: each.statistics["tau"].shown() if each else "–" for name, each in methods.items()}
        against = evidence.compare_with(RANDOM, ratio)
        rows.append({"ratio": ratio, **shown, "difference": against.difference.shown() if against else "–"})
    return rows


def _weigh_reduction(evidence: EvidenceRecord) -> str | None:
    """Writes a sentence on whether dropping labels was worth it; None where none were dropped or nobody looked."""
    against = evidence.compare_with(ALL_LABELS, evidence.own_ratio)
    if against is None:
        return None
    words = {
        "better": "dropping labels was worth it",
        "worse": "dropping labels made it worse",
        "no better": "dropping labels was not worth it: a gain of 0.05 is ruled out",
        "undecided": "whether dropping labels was worth it is open",
    }[against.outcome]
    difference = against.difference.shown()
    return f"The proxy's Kendall tau less that of as many samples of all labels is {difference}: {words}."


def _show_statistic(name: str, estimate: EstimateRecord | None) -> str:
    """Writes a statistic for people: regret in accuracy points, nothing as a dash."""
    if estimate is None or estimate.value is None:
        return "–"
    if estimate.low is None:
        return f"{100 * estimate.value:.1f}" if name in REGRETS.values() else f"{estimate.value:.2f}"
    return estimate.shown(scale=100, digits=1) if name in REGRETS.values() else estimate.shown()


def _case_rows(manifest: Manifest, summary: Summary) -> list[dict[str, Any]]:
    tables = {"evaluation": summary.evaluation, "train": summary.training, "proxy": summary.proxy}
    rows = []
    for case, meaning in CASE_MEANINGS.items():
        counts = {name: samples.count("case").get(case, 0) for name, samples in tables.items()}
        shares = {f"{name}_share": counts[name] / max(1, samples.n) for name, samples in tables.items()}
        again = manifest.agreement.of_cases[case - 1] if manifest.agreement else None
        rows.append({"case": case, "meaning": meaning, "again": again, **counts, **shares})
    return rows


def _label_rows(manifest: Manifest, summary: Summary) -> list[dict[str, Any]]:
    before, after = count_labels(manifest, summary)
    kept = set(range(len(before)) if manifest.kept_labels is None else manifest.kept_labels)
    columns = {
        "name": manifest.label_names,
        "is_kept": [number in kept for number in range(len(before))],
        "before": before,
        "before_share": before / max(1, before.sum()),
        "after": after,
        "after_share": after / after.sum(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
