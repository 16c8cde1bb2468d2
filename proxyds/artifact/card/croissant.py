"""What a proxy is, for programs that gather data sets: `croissant.json`, Croissant 1.1 with its vocabulary of responsible AI.

It follows from the manifest alone. A reader takes other words too, but nothing that leads out of the proxy, nor another licence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from proxyds.artifact.evidence_records import EvidenceRecord
from proxyds.artifact.manifest import CROISSANT, INDEXES, MANIFEST, TABLES, Manifest, has_table
from proxyds.artifact.reader import MAX_DEPTH, parse_json, refused
from proxyds.artifact.tables import SOFT_LABEL, list_own_columns
from proxyds.recipe.methods import BY_IMPORTANCE, METHODS, UNKNOWN_METHOD, chooses_by_evaluation
from proxyds.text import find_active_text, iter_texts

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The specification's own context, whole: readers warn of another."""
_OF_PROXIES = "Park, Data Proxy Generation for Fast and Efficient Neural Architecture Search, 2019, arXiv 1911.09322"
_DATA_TYPES = {
    pa.int64(): "cr:Int64",
    pa.int8(): "cr:Int8",
    pa.float64(): "cr:Float64",
    pa.float32(): "cr:Float32",
    pa.bool_(): "sc:Boolean",
    pa.string(): "sc:Text",
}
_OF_SOFT_LABELS = f"The column {SOFT_LABEL} holds the probability that the probe {{}} gives each label."
_PARQUET = "application/x-parquet"
_CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
MAX_CROISSANT_BYTES = 32_000_000
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//\S+")
_URLS = {*_CONFORMS_TO, *(value for value in _CONTEXT.values() if isinstance(value, str) and "//" in value)}
"""Addresses that every Croissant file names: they say what words mean, and nobody loads data from them."""
_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.*-]*(/[A-Za-z0-9_*][A-Za-z0-9_.*-]*)*")


def render_croissant(manifest: Manifest) -> bytes:
    """Renders a proxy's `croissant.json`, the same bytes for the same manifest.

    Args:
        manifest: The proxy's; its list of files holds every table.
    """
    counts, source = manifest.counts, manifest.source
    own = "labels" if manifest.kept_labels is None else "kept_labels"
    names = {"labels": manifest.label_names, own: manifest.proxy_label_names}
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": manifest.name,
        "description": (
            f"A data proxy: {counts.proxy} of the {counts.train} training samples of {source.name}, chosen so that a neural architecture "
            "search can rank its candidates on them."
        ),
        "conformsTo": _CONFORMS_TO,
        "citeAs": _cite(manifest.draw.method),
        "datePublished": manifest.created,
        "keywords": ["data proxy", "neural architecture search"],
        "license": manifest.licence,
        "version": manifest.version,
        **{f"rai:{name}": value for name, value in _describe_responsibly(manifest).items()},
        "distribution": [*_list_files(manifest), *_list_file_sets(manifest)],
        "recordSet": [
            *(_list_names(record_set, of_set) for record_set, of_set in names.items()),
            *_list_record_sets(manifest, own),
        ],
    }
    return f"{json.dumps(document, indent=1, ensure_ascii=False)}\n".encode()


def check_croissant(folder: Path, manifest: Manifest) -> None:
    """Refuses a proxy whose `croissant.json`, if there is one, leads out of it or has another licence; words and columns may be others.

    Raises:
        ArtifactError: It leads out of the proxy, has another licence, or is not such a file.
    """
    facts = manifest.files.get(CROISSANT)
    if facts is None:
        return
    place = folder / CROISSANT
    if facts.bytes > MAX_CROISSANT_BYTES:
        raise refused(place, f"must have {MAX_CROISSANT_BYTES:,} bytes at most, has {facts.bytes:,}")
    try:
        problem = next(_find_ways_out(parse_json(place.read_bytes().decode()), manifest), None)
    except (ValueError, RecursionError) as error:
        problem = f"must be JSON: {error}"
    if problem is not None:
        raise refused(place, problem)


def _find_ways_out(document: Any, manifest: Manifest) -> Iterator[str]:
    """Says what of a Croissant file leads out of its proxy, or says another licence."""
    if not isinstance(document, dict) or document.get("@context") != _CONTEXT:
        yield "must be an object with the @context of Croissant 1.1, and no other"
        return
    if document.get("license") != manifest.licence:
        yield f"license must be {manifest.licence!r} as in {MANIFEST}"
    within = {name: value for name, value in document.items() if name != "@context"}
    known = {url for _, text in iter_texts(manifest.model_dump(mode="json")) for url in _list_urls(text)}
    for parts, text in iter_texts(within):
        name = ".".join(parts)[:100]
        if len(parts) > MAX_DEPTH:
            yield f"must be {MAX_DEPTH} levels deep at most"
        if (active := find_active_text(text)) is not None:
            yield f"{name!r} must be plain text, it holds {active}: {text[:60]!r}"
        for url in _list_urls(text) - known - _URLS:
            yield f"{name!r} must not name an address that {MANIFEST} does not name, it names {url[:60]!r}"
    for node in _iter_objects(within):
        yield from _find_ways_out_of(node, manifest)


def _find_ways_out_of(node: dict[str, Any], manifest: Manifest) -> Iterator[str]:
    """Says what of one object leads elsewhere: a name of a file that is none, a pattern of others, another licence or meaning of names."""
    for name, value in node.items():
        last = re.split("[:#]", name)[-1]
        if last in ("@context", "@import", "@base", "@vocab"):
            yield f"{last} must not stand within"
        elif last == "license" and value != manifest.licence:
            yield f"license must be {manifest.licence!r} as in {MANIFEST}"
        elif last == "contentUrl":
            facts = manifest.files.get(value) if isinstance(value, str) else None
            if facts is None or node.get("sha256") != facts.sha256:
                yield f"contentUrl must be a file of {MANIFEST}, with its sha256, it is {str(value)[:60]!r}"
        elif last in ("includes", "excludes"):
            patterns = value if isinstance(value, list) else [value]
            if not all(isinstance(each, str) and _PATTERN.fullmatch(each) and ".." not in each for each in patterns):
                yield f"{last} must be a pattern of files in the folder, it is {str(value)[:60]!r}"


def _iter_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Goes through all objects of a JSON value."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _list_urls(text: str) -> set[str]:
    """Lists what a program could take for an address, without the punctuation that follows it."""
    return {url.rstrip(".,;:!?)]}'\"") for url in _URL.findall(text)}


def _cite(method: str) -> str:
    """Says whose the proxy's ways are: data proxies are Park's, and so is `cases`; other methods are others'."""
    source = METHODS.get(method, UNKNOWN_METHOD).source
    own = f" The selection method {method}: {source}." if source and method != BY_IMPORTANCE else ""
    return f"Data proxies: {_OF_PROXIES}.{own}"


def _describe_responsibly(manifest: Manifest) -> dict[str, str | list[str]]:
    """Describes what the proxy was made from, how, what it is for and what it is not, in the terms of Croissant's RAI vocabulary."""
    source, draw, counts = manifest.source, manifest.draw, manifest.counts
    at, n_labels = f" at revision {source.revision}" if source.revision else "", len(manifest.label_names)
    left_out = [f"{n} files that were not used ({why})" for why, n in source.left_out.items()]
    probes = ", ".join(dict.fromkeys(probe.name for probe in manifest.probes))
    biases = [
        "Samples were chosen to rank architectures, not to stand for their source: what the method prefers is more frequent here.",
        "What is biased in the source is biased here. Nobody looked for it.",
    ]
    if manifest.kept_labels is not None:
        biases.append(f"Only {len(manifest.kept_labels)} of the source's {n_labels} labels are kept.")
    return {
        "dataCollection": (
            f"Nothing was collected for this data set. Images and labels are those of {source.name}{at}; images have the bytes that they "
            "have there."
        ),
        "dataCollectionType": ["Secondary Data Analysis"],
        "dataCollectionRawData": f"{source.name}{at}; the sha256 of the ids of its samples is {source.fingerprint}.",
        "dataCollectionMissingData": (
            f"Left out of the source: {', '.join([f'{len(source.bad_images)} images that do not decode', *left_out])}."
        ),
        "dataPreprocessingProtocol": [
            f"Probe networks ({probes}) were trained on all {counts.train} training samples, and asked about {counts.evaluation} "
            f"evaluation samples: {source.evaluation_from}.",
            f"{counts.proxy} training samples were chosen by the method {draw.method}, with the draw law {draw.law}, without replacement "
            f"and with the seed {manifest.seed}.",
            "Images are not changed.",
        ],
        "dataAnnotationProtocol": [
            "Labels are the source's. The columns of cases and importances were computed from the probes' answers.",
            *([_OF_SOFT_LABELS.format(manifest.heaviest.name)] if manifest.has_soft_labels else []),
        ],
        "dataBiases": biases,
        "dataUseCases": [
            f"Ranking {_name_space(manifest)} in a search, trained with the settings in recipe.yaml.",
            "Not for training a network that is to be used, nor for telling how accurate one is.",
        ],
        "dataLimitations": [*_list_limits(manifest)],
        "personalSensitiveInformation": ["What the source holds of it is here too. Nobody looked for it."],
    }


def _name_space(manifest: Manifest) -> str:
    if "code" in manifest.space.origin:
        return "networks of a Python program, whose names are in recipe.yaml and whose code is not here,"
    return f"architectures of the family {manifest.space.network}"


def _list_limits(manifest: Manifest) -> Iterator[str]:
    """Says what is known of how far to trust the proxy."""
    evidence = manifest.evidence
    if manifest.index_of is not None:
        yield f"How well it ranks is not shown here; it is made from the index of {manifest.index_of.name} {manifest.index_of.version}."
    elif evidence is None:
        yield "How well it ranks was not checked: nothing shows how far to trust it."
    else:
        yield from _list_limits_of_evidence(evidence)
    yield _tell_independence(manifest)
    if manifest.is_saturated:
        yield "The heaviest probe is right on every evaluation sample: no architecture can be seen to be better."


def _tell_independence(manifest: Manifest) -> str:
    """Says how far a ranking is independent of the choice, as the card does."""
    chose, is_paper = chooses_by_evaluation(manifest.draw.method), manifest.protocol == "paper"
    if is_paper and chose:
        return "The test samples chose it: a ranking that is measured on them is circular."
    if is_paper:
        return "Evaluation samples and test samples are the same. They did not choose it, but no others are left to measure the winner on."
    if chose:
        return "The evaluation samples chose it: a ranking on them is not independent. The test samples chose nothing."
    return f"The method {manifest.draw.method} did not choose by evaluation samples. The test samples chose nothing."


def _list_limits_of_evidence(evidence: EvidenceRecord) -> Iterator[str]:
    yield f"Checked with {evidence.n_architectures} architectures: {evidence.verdict}. {evidence.explanation}"
    yield "The check holds for its search space, training settings and source, and for no other."
    if evidence.caution is not None:
        yield evidence.caution


def _list_splits(manifest: Manifest) -> Iterator[tuple[str, str, dict[str, pa.DataType]]]:
    """Lists the tables that are there: each one's name here, the beginning of its files, its columns."""
    for table, (_, split, folder) in TABLES.items():
        if has_table(manifest, table):
            columns = list_own_columns(manifest, table)
            yield (split if table in INDEXES else table), f"{folder}/{split}-", columns


def _list_files(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for _, beginning, _ in _list_splits(manifest):
        for name, facts in sorted(manifest.files.items()):
            if name.startswith(beginning):
                yield {
                    "@type": "cr:FileObject",
                    "@id": name,
                    "name": name,
                    "contentUrl": name,
                    "contentSize": f"{facts.bytes} B",
                    "encodingFormat": _PARQUET,
                    "sha256": facts.sha256,
                }


def _list_file_sets(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for split, beginning, _ in _list_splits(manifest):
        includes = f"{beginning}*.parquet"
        yield {"@type": "cr:FileSet", "@id": f"{split}-files", "encodingFormat": _PARQUET, "includes": includes}


def _list_names(record_set: str, names: Sequence[str]) -> dict[str, Any]:
    """Lists the names of labels by their numbers."""
    number, name = f"{record_set}/number", f"{record_set}/name"
    return {
        "@type": "cr:RecordSet",
        "@id": record_set,
        "key": {"@id": number},
        "field": [
            {"@type": "cr:Field", "@id": number, "dataType": "sc:Integer"},
            {"@type": "cr:Field", "@id": name, "dataType": "sc:Text"},
        ],
        "data": [{number: i, name: each} for i, each in enumerate(names)],
    }


def _list_record_sets(manifest: Manifest, own_labels: str) -> Iterator[dict[str, Any]]:
    for split, _, columns in _list_splits(manifest):
        labels = own_labels if split in ("train", "validation") else "labels"
        yield {
            "@type": "cr:RecordSet",
            "@id": split,
            **({"key": {"@id": f"{split}/sample_id"}} if "sample_id" in columns else {}),
            "field": [_describe_field(split, name, kind, labels) for name, kind in columns.items()],
        }


def _describe_field(split: str, column: str, kind: pa.DataType, labels: str) -> dict[str, Any]:
    """Describes a column; what numbers labels says in which record set their names are."""
    is_list, is_image = pa.types.is_list(kind), pa.types.is_struct(kind)
    numbered_in = {"label": labels, "source_label": "labels", "predicted": "labels"}.get(column)
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{column}",
        **({"description": f"numbers of the record set {numbered_in}"} if numbered_in else {}),
        "dataType": "sc:ImageObject" if is_image else _DATA_TYPES[kind.value_type if is_list else kind],
        **({"isArray": True, "arrayShape": "-1"} if is_list else {}),
        "source": {
            "fileSet": {"@id": f"{split}-files"},
            "extract": {"column": column},
            **({"transform": {"jsonPath": "bytes"}} if is_image else {}),
        },
    }
