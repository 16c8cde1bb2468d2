"""Hostile files, made in memory from `whole/`, a very small proxy: `CASES` names each, changes a copy and says how it is refused.

Nothing here does harm when it is opened by mistake: the pickle holds None, the program prints a word. Where the format
changes, `python -m tests.artifact.hostile` builds `whole/` anew out of a few digits (some 15 seconds). `older/` is the same proxy as
format 1.4 had it, and is never built again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from proxyds.errors import ArtifactError, ProxydsError, VerificationError
from tests.conftest import read_tree

WHOLE = Path(__file__).parent / "whole"
OLDER = Path(__file__).parent / "older"
MANIFEST, RECIPE, CARD = "manifest.json", "recipe.yaml", "README.md"
INDEX, VALIDATION_INDEX = "indices.csv", "validation.csv"
DATA = "data/train-00000-of-00001.parquet"
VALIDATION = "data/validation-00000-of-00001.parquet"
IMPORTANCE = "importance/train-00000-of-00001.parquet"
EVALUATION = "evaluation/evaluation-00000-of-00001.parquet"
RANKING = "ranking/ranking-00000-of-00001.parquet"
TAR, VALIDATION_TAR = "webdataset/train-000000.tar", "webdataset/validation-000000.tar"
N_DRAWN, N_EVALUATED = 8, 18


def make_former(folder: Path, version: str) -> dict[str, Any]:
    """Makes a proxy on disk one of a version before 2.0, without samples to rank on and `croissant.json`; returns its manifest."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name in list(manifest["files"]):
        if name in ("croissant.json", VALIDATION_INDEX) or re.match("(data|webdataset)/validation-", name):
            del manifest["files"][name]
            (folder / name).unlink()
    manifest["format_version"] = version
    manifest["counts"].pop("validation", None)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


# A proxy in memory


class Proxy:
    """A copy of `whole/`, or `older/`, in memory: the bytes of every file by its path, to be changed."""

    def __init__(self, folder: Path = WHOLE) -> None:
        self._whole = _read(folder)
        self.files = dict(self._whole)

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest; a change of what is returned changes nothing."""
        loaded: dict[str, Any] = json.loads(self.files[MANIFEST])
        return loaded

    def set(self, *path: str | int, value: Any) -> None:
        """Gives a value in the manifest."""
        manifest = inner = self.manifest
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value  # type: ignore[index]
        self.files[MANIFEST] = json.dumps(manifest, indent=1).encode()

    def table(self, path: str) -> pa.Table:
        """Reads a table."""
        return pq.read_table(io.BytesIO(self.files[path]))

    def set_table(self, path: str, table: pa.Table, **options: Any) -> None:
        """Gives a table, written with options of parquet."""
        stream = io.BytesIO()
        pq.write_table(table, stream, **{"compression": "zstd", **options})
        self.files[path] = stream.getvalue()

    def sign(self) -> None:
        """Makes the manifest tell the truth about files that were changed or added; without them it stays as it is, byte for byte."""
        changed = {
            name: content
            for name, content in self.files.items()
            if name != MANIFEST and content != self._whole.get(name)
        }
        if changed:
            facts = {name: measure(content) for name, content in changed.items()}
            self.set("files", value={**self.manifest["files"], **facts})

    def write(self, folder: Path) -> Path:
        """Writes every file below a new folder, and returns it."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder


@cache
def _read(folder: Path) -> dict[str, bytes]:
    return read_tree(folder)


def measure(content: bytes) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@dataclass(frozen=True)
class Case:
    """One way to be hostile.

    Attributes:
        change: Changes a copy of the whole proxy.
        refused: A regular expression that the message matches: the place and a keyword.
        error: What is raised.
        is_signed: Whether the manifest knows the changed files.
    """

    change: Callable[[Proxy], None]
    refused: str
    error: type[ProxydsError] = ArtifactError
    is_signed: bool = True


def with_files(refused: str, files: dict[str, bytes], **how: Any) -> Case:
    """A case of other files."""
    return Case(lambda proxy: proxy.files.update(files), refused, **how)


# manifest.json


def in_manifest(keyword: str, *path: str | int, value: Any, error: type[ProxydsError] = ArtifactError) -> Case:
    """A case of one value in the manifest."""
    return Case(lambda proxy: proxy.set(*path, value=value), rf"(?s)manifest\.json.*{keyword}", error)


def in_manifest_text(keyword: str, pattern: str, by: str) -> Case:
    """A case of text in the manifest that no JSON writer would give."""

    def change(proxy: Proxy) -> None:
        text, n = re.subn(pattern, by, proxy.files[MANIFEST].decode(), count=1)
        assert n, pattern
        proxy.files[MANIFEST] = text.encode()

    return Case(change, rf"manifest\.json.*{keyword}")


def listed(path: str, keyword: str, error: type[ProxydsError] = ArtifactError) -> Case:
    """A case of an empty file that the manifest lists."""
    return in_manifest(keyword, "files", path, value=measure(b""), error=error)


def unlisted(path: str, keyword: str) -> Case:
    """A case of a file that the manifest does not list."""
    files = {name: facts for name, facts in Proxy().manifest["files"].items() if name != path}
    return in_manifest(keyword, "files", value=files)


def with_counts(refused: str, **counts: int) -> Case:
    """A case of counts that lie."""
    return Case(lambda proxy: proxy.set("counts", value={**proxy.manifest["counts"], **counts}), refused)


def with_probes(keyword: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Case:
    """A case of the probes, whose answers the table `evaluation` holds."""
    return in_manifest(keyword, "probes", value=change(Proxy().manifest["probes"]))


def nest(n: int) -> Any:
    """An object in an object in an object ..."""
    nested: Any = "x"
    for _ in range(n):
        nested = {"k": nested}
    return nested


def add_rows_without_bytes(proxy: Proxy) -> None:
    """A hundred thousand equal rows, which the manifest counts too."""
    proxy.set_table(EVALUATION, proxy.table(EVALUATION).take(np.zeros(100_000, np.int64)))
    proxy.set("counts", "evaluation", value=100_000)


PLAIN = "must be plain text, it holds"
MANIFESTS = {
    "key-twice": in_manifest_text("the key 'name' stands twice", '"name":', '"name": "x",\n "name":'),
    "key-twice-within": in_manifest_text("the key 'evaluation' stands twice", '"evaluation":', '"evaluation": 1,\n  "evaluation":'),
    "key-twice-by-an-escape": in_manifest_text("the key 'name' stands twice", '"name":', '"n\\\\u0061me": "x",\n "name":'),
    "nan": in_manifest_text("NaN is no number", r'"accuracy": [\d.]+', '"accuracy": NaN'),
    "infinity": in_manifest_text("-Infinity is no number", r'"accuracy": [\d.]+', '"accuracy": -Infinity'),
    "number-without-end": in_manifest_text("1e999 is no number", r'"accuracy": [\d.]+', '"accuracy": 1e999'),
    "byte-order-mark": in_manifest_text("must be JSON", r"\A", "\ufeff"),
    "two-objects": in_manifest_text("must be JSON", r"\Z", "{}"),
    "deep": with_files(r"manifest\.json: must be JSON", {MANIFEST: b"[" * 20_000}),
    "deep-objects": with_files(r"manifest\.json: must be JSON", {MANIFEST: b'{"a":' * 5_000 + b"1" + b"}" * 5_000}),
    "empty": with_files(r"manifest\.json: must be JSON", {MANIFEST: b""}),
    "unknown-version": in_manifest("format_version must be 1.x or 2.x, got '3.0'", "format_version", value="3.0"),
    "version-no-text": in_manifest("names no format and format_version", "format_version", value=1.3),
    "version-no-number": in_manifest("format_version must be", "format_version", value="1.\u0663x"),
    "absolute-path": listed("/etc/x.png", "'/etc/x.png' must be a path inside the folder"),
    "path-above": listed("assets/../../x.png", "must be a path inside the folder"),
    "backslash": listed("assets\\x.png", "must be a path inside the folder"),
    "drive": listed("C:/x.png", "must be a path inside the folder"),
    "line-feed-in-a-path": listed("assets/x.png\n", "must be a path inside the folder"),
    "hidden-file": listed("assets/.x.png", "must be a path inside the folder"),
    "capitals": listed("readme.md", "'readme.md' and 'README.md' must differ by more than capitals"),
    "file-below-a-file": listed("README.md/x.png", "must not lie below another file"),
    "table-that-nobody-looks-into": listed("data/train-evil.parquet", "must be a kind of file"),
    "another-description": listed("dataset_infos.json", "must be a kind of file"),
    "itself": listed("manifest.json", "and not the manifest"),
    "shard-too-many": listed("data/train-00001-of-00002.parquet", "must be numbered"),
    "tar-out-of-count": listed("webdataset/train-000007.tar", "'webdataset/train-000007.tar' must be numbered"),
    "missing-file": listed("assets/gone.png", r"assets/gone\.png: missing", VerificationError),
    "evidence-table-without-evidence": listed(RANKING, r"ranking/ranking-\* must not hold"),
    "no-card": unlisted(CARD, "README.md must be among them"),
    "no-data": unlisted(DATA, r"data/train-\* must hold parquet files"),
    "no-validation": unlisted(VALIDATION, r"data/validation-\* must hold parquet files"),
    "no-index": unlisted(INDEX, "indices.csv must be among them"),
    "no-index-of-validation": unlisted(VALIDATION_INDEX, "validation.csv must be among them"),
    "validation-out-of-count": listed("data/validation-00001-of-00002.parquet", "must be numbered"),
    "validation-tar-out-of-count": listed("webdataset/validation-000007.tar", "must be numbered"),
    "another-split": listed("data/test-00000-of-00001.parquet", "must be a kind of file"),
    "another-tar": listed("webdataset/test-000000.tar", "must be a kind of file"),
    "test-samples": in_manifest("counts.validation must be counts.evaluation at most, and 0 where", "protocol", value="paper"),
    "sha256-none": in_manifest("sha256: ", "files", DATA, "sha256", value="x"),
    "wrong-size": in_manifest(f"{DATA}: must have 10 bytes", "files", DATA, "bytes", value=10, error=VerificationError),
    "wrong-sha256": in_manifest("bytes have changed", "files", DATA, "sha256", value="0" * 64, error=VerificationError),
    "negative-size": in_manifest("bytes: ", "files", DATA, "bytes", value=-1),
    "rule-of-ids-unknown": in_manifest("id_rule: ", "source", "id_rule", value=3),
    "html": in_manifest(f"'label_names.0' {PLAIN} HTML", "label_names", 0, value="<script>alert(1)</script>"),
    "html-in-a-later-key": in_manifest(f"{PLAIN} HTML", "news", value=[{"<img src=x onerror=y>": 1}]),
    "template-code": in_manifest(f"'source.name' {PLAIN} HTML or template", "source", "name", value="{{ 7 * 7 }}"),
    "address-of-a-script": in_manifest("'licence' must be plain text", "licence", value="JavaScript:alert(1)"),
    "escape": in_manifest(f"'name' {PLAIN} control characters", "name", value="a\x1b]0;x\x07b"),
    "turned-text": in_manifest(f"'name' {PLAIN} characters that turn", "name", value="a\u202egnp.exe"),
    "lone-surrogate": in_manifest(f"'name' {PLAIN} control characters", "name", value="a\ud800b"),
    "odd-line-break": in_manifest(f"'name' {PLAIN} odd line breaks", "name", value="a\u2028b"),
    "long-text": in_manifest("must have 10,000 letters at most", "name", value="a" * 10_001),
    "nested": in_manifest("must be 50 levels deep at most", "news", value=nest(60)),
    "kept-labels-without-a-draw-of-labels": in_manifest("kept_labels and draw.labels must both", "kept_labels", value=[0, 1]),
    "kept-labels-twice": in_manifest("kept_labels must be numbers of label_names", "kept_labels", value=[1, 1]),
    "other-label-names": Case(
        lambda proxy: proxy.set("label_names", value=["a", "b", "c"]), "features must name the labels as manifest"
    ),
    "no-date": in_manifest("created: ", "created", value="yesterday"),
    "impossible-date": in_manifest("created: ", "created", value="9999-99-99T99:99:99Z"),
    "date-elsewhere": in_manifest("created: must be a time of UTC", "created", value="2026-11-25T09:30:00+01:00"),
    "no-neighbours": in_manifest(r"mapping\.neighbours", "mapping", "neighbours", value=0),
    "more-neighbours-than-samples": in_manifest("mapping.neighbours must be counts.evaluation", "mapping", "neighbours", value=99),
    "ratio-zero": in_manifest(r"draw\.ratio", "draw", "ratio", value=0.0),
    "constant-negative": in_manifest(r"draw\.constants\.1", "draw", "constants", value=[2.0, -1.0, 6.0, 1.0]),
    "duplicates-negative": in_manifest(r"source\.n_duplicates\.train", "source", "n_duplicates", "train", value=-1),
    "seed-of-5000-digits": in_manifest_text("must be JSON|seed", r'"seed": \d+', f'"seed": {"9" * 5000}'),
    "evidence-without-table": in_manifest("evidence", "evidence", value={"verdict": "preserves the ranking"}),
    "enormous-shape": in_manifest(r"image_shape\.1", "image_shape", value=[1, 10**9, 8]),
    "counts-fewer": with_counts(r"importance/.*more than the 9 that manifest\.json", train=9, proxy=3),
    "counts-more": with_counts("evaluation: the tables must be those that manifest", evaluation=900_000),
    "counts-more-validation-than-evaluation": with_counts(r"manifest\.json: counts\.validation must be", validation=N_EVALUATED + 1),
    "counts-no-validation": with_counts(r"files: (validation\.csv|webdataset/.*) must not be among them", validation=0),
    "counts-less-validation": with_counts(r"data/validation.*more than the 17 that manifest\.json", validation=N_EVALUATED - 1),
    "an-empty-proxy": with_counts(r"manifest\.json: counts\.proxy: .*greater than or equal to 1", proxy=0),
    "counts-of-the-proxy": with_counts(r"manifest\.json: counts\.proxy must be draw\.ratio", proxy=N_DRAWN + 1),
    "probes-once-more": with_probes("probes must be two or more, each once", lambda p: [*p, p[0]]),
    "probes-repeat-out-of-count": with_probes("probes must be two or more, each once", lambda p: [p[0], {**p[1], "repeat": 10**15}]),
    "probes-of-another-order": with_probes("probes must stand from the lightest to the heaviest", lambda p: p[::-1]),
    "probes-too-many": with_probes("probes must be 64 at most", lambda p: [{**p[0], "name": f"p{i}", "parameters": {}} for i in range(65)]),
    "probes-repeated": with_probes("agreement must be there", lambda p: [{**each, "repeat": i} for i in range(2) for each in p]),
    "probes-better": with_probes("accuracy of probes must be what the answers", lambda p: [p[0], {**p[1], "accuracy": 0.99}]),
}  # fmt: skip


# Tables, and the images in them


def in_table(path: str, refused: str, change: Callable[[pa.Table], pa.Table], **options: Any) -> Case:
    """A case of one table."""
    return Case(lambda proxy: proxy.set_table(path, change(proxy.table(path)), **options), refused)


def replace(table: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    """A table with other values in a column."""
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    kind = kind or field.type
    return table.set_column(place, pa.field(name, kind, metadata=field.metadata), pa.array(values, kind))


def cell(name: str, value: Any, row: int = 1) -> Callable[[pa.Table], pa.Table]:
    """Replaces one value."""
    return column(name, lambda values: [*values[:row], value, *values[row + 1 :]])


def column(
    name: str, values: Callable[[list[Any]], Any], kind: pa.DataType | None = None
) -> Callable[[pa.Table], pa.Table]:
    """Replaces a column."""
    return lambda table: replace(table, name, values(table[name].to_pylist()), kind)


def cut(keep: Callable[[bytes], bytes]) -> Case:
    """A case of a parquet file that is none."""

    def change(proxy: Proxy) -> None:
        proxy.files[IMPORTANCE] = keep(proxy.files[IMPORTANCE])

    return Case(change, OF_PARQUET)


def not_utf8(table: pa.Table) -> pa.Table:
    """Text that is none."""
    texts = [each.encode() for each in table["encoded_sha256"].to_pylist()]
    return replace(table, "encoded_sha256", pa.array([b"\xff\xfe", *texts[1:]], pa.binary()).view(pa.string()))


def add_unread_zeros(table: pa.Table) -> pa.Table:
    """A column that nobody asks for, of 96 MB in a few KB."""
    zeros = pa.array([b"\0" * (96_000_000 // table.num_rows)] * table.num_rows, pa.binary())
    return table.append_column("news", zeros)


def with_features(text: str) -> Callable[[pa.Table], pa.Table]:
    """Tells readers of data sets something else in the metadata."""
    return lambda table: table.replace_schema_metadata({"huggingface": text})


def leave_out_image(table: pa.Table) -> pa.Table:
    """Leaves the features that only say what labels are."""
    label = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]
    return with_features(json.dumps({"info": {"features": {"label": label}}}))(table)


def draw_by(proxy: Proxy, importances: dict[str, float]) -> None:
    """Gives training samples importances by id, which keep probabilities follow."""
    total = sum(importances.values())
    for path in (DATA, IMPORTANCE):
        table = proxy.table(path)
        values = [importances[each] for each in table["sample_id"].to_pylist()]
        table = replace(table, "importance", values)
        proxy.set_table(path, replace(table, "keep_probability", [each / total for each in values]))


def change_evaluation(proxy: Proxy, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes a column of evaluation samples in both tables that have them."""
    for path in (EVALUATION, VALIDATION):
        proxy.set_table(path, change(proxy.table(path)))


def in_evaluation(refused: str, change: Callable[[pa.Table], pa.Table]) -> Case:
    """A case of a column of evaluation samples, in both tables that have them."""
    return Case(lambda proxy: change_evaluation(proxy, change), refused)


def hold_a_training_sample(proxy: Proxy) -> None:
    """Puts a sample that the proxy is trained on among those to rank on."""
    train, own = proxy.table(DATA), proxy.table(VALIDATION)
    rows = [*train.slice(0, 1).to_pylist(), *own.slice(1).to_pylist()]
    rows[0] |= {"keep_probability": None, "inclusion_probability": None}
    rows.sort(key=lambda row: row["sample_id"])
    proxy.set_table(VALIDATION, pa.Table.from_pylist(rows, own.schema))


def change_training_cases(proxy: Proxy) -> None:
    """Gives training samples another case, in both tables."""
    for path in (DATA, IMPORTANCE):
        proxy.set_table(path, column("case", next_cases)(proxy.table(path)))


def change_training_importances(proxy: Proxy) -> None:
    """Gives training samples another importance, in both tables."""
    table = proxy.table(IMPORTANCE)
    pairs = zip(table["sample_id"].to_pylist(), table["importance"].to_pylist(), strict=True)
    draw_by(proxy, {each: value + 1 for each, value in pairs})


def next_cases(cases: list[int]) -> list[int]:
    """Another case for each."""
    return [1 + case % 4 for case in cases]


def draw_at_random(proxy: Proxy, scale: float) -> None:
    """Gives training samples importances that no neighbours have."""
    ids = proxy.table(IMPORTANCE)["sample_id"].to_pylist()
    draw_by(proxy, dict(zip(ids, np.random.default_rng(0).random(len(ids)) * scale, strict=True)))


def make_tiny_importances(proxy: Proxy) -> None:
    """Importances so small that a loose comparison lets others through."""
    draw_at_random(proxy, 9e-9)
    change_evaluation(proxy, column("importance", lambda values: [1e-9] * len(values)))
    proxy.set("draw", "constants", value=[1e-9] * 4)
    proxy.files[RECIPE] = re.sub(rb"(?s)constants: \[.*?\]", b"constants: [1.0e-9, 1.0e-9, 1.0e-9, 1.0e-9]", proxy.files[RECIPE])  # fmt: skip


def make_importances_of_neighbours(proxy: Proxy) -> None:
    """Importances that no mean over two neighbours gives."""
    draw_at_random(proxy, 1e8)
    proxy.set("mapping", "neighbours", value=2)
    proxy.files[RECIPE] = proxy.files[RECIPE].replace(b"neighbours: 1", b"neighbours: 2")


def in_image(keyword: str, *images: bytes, paths: tuple[str, str] = (DATA, IMPORTANCE), **options: Any) -> Case:
    """A case of other images in `data`, or another table with images, which the table of all samples knows by their sha256, too."""

    def change(proxy: Proxy) -> None:
        data, importance = map(proxy.table, paths)
        encoded = [each["bytes"] for each in data["image"].to_pylist()]
        encoded[: len(images)] = images
        digests = [hashlib.sha256(each).hexdigest() for each in encoded]
        of_id = dict(zip(data["sample_id"].to_pylist(), digests, strict=True))
        data = replace(data, "image", [{"bytes": each, "path": None} for each in encoded])
        proxy.set_table(paths[0], replace(data, "encoded_sha256", digests), **options)
        before = zip(importance["sample_id"].to_pylist(), importance["encoded_sha256"].to_pylist(), strict=True)
        proxy.set_table(paths[1], replace(importance, "encoded_sha256", [of_id.get(each, had) for each, had in before]))

    return Case(change, keyword)  # fmt: skip


def picture(side: int) -> bytes:
    """A PNG that says to have so many pixels."""
    stream = io.BytesIO()
    Image.new("1", (8, 8)).save(stream, "PNG")
    header = b"IHDR" + struct.pack(">II", side, side) + stream.getvalue()[24:29]
    return stream.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + stream.getvalue()[33:]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
OF_PARQUET = "importance/train-00000-of-00001.parquet: must be a parquet file"
ANSWERS = "must be what the answers in evaluation/ give"
BOMB = "a decompression bomb"
TABLES = {
    "not-parquet": cut(lambda content: b"not parquet"),
    "empty-file": cut(lambda content: b""),
    "truncated": cut(lambda content: content[: len(content) // 2]),
    "footer-longer-than-the-file": cut(lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1"),
    "column-missing": in_table(IMPORTANCE, "must have the column case once, it has it 0", lambda t: t.drop_columns(["case"])),
    "column-twice": in_table(IMPORTANCE, "must have the column case once, it has it 2", lambda t: t.append_column("case", t["case"])),
    "type": in_table(IMPORTANCE, "must hold int64, it holds string", column("label", lambda v: list(map(str, v)), pa.string())),
    "label-null": in_table(IMPORTANCE, "the column label must have a value in every row", cell("label", None)),
    "label-out-of-range": in_table(IMPORTANCE, "the column label of importance", cell("label", 10)),
    "ids-out-of-order": in_table(IMPORTANCE, "the column sample_id of importance", lambda t: t.take(np.arange(t.num_rows)[::-1])),
    "id-twice": in_table(EVALUATION, "the column sample_id of evaluation", column("sample_id", lambda v: [v[0], v[0], *v[2:]])),
    "id-a-path": in_table(IMPORTANCE, "the column sample_id of importance", cell("sample_id", "../" * 21 + "x")),
    "id-not-utf8": in_table(IMPORTANCE, OF_PARQUET, not_utf8),
    "importance-nan": in_table(IMPORTANCE, "of importance must be as", cell("importance", float("nan"))),
    "importance-negative": in_table(IMPORTANCE, "of importance must be as", cell("importance", -1.0)),
    "importance-infinite": in_table(EVALUATION, "the column importance of evaluation", cell("importance", float("inf"))),
    "keep-probability": in_table(IMPORTANCE, "the column keep_probability of importance", cell("keep_probability", 0.5)),
    "inclusion-probability": in_table(IMPORTANCE, "the column inclusion_probability of importance", cell("inclusion_probability", 1.5)),
    "case-9": in_table(IMPORTANCE, "the column case of importance", cell("case", 9)),
    "selected-others": in_table(IMPORTANCE, "must select the very samples of data", column("selected", lambda v: [*v[1:], v[0]])),
    "nearest-unknown": in_table(IMPORTANCE, "the column nearest_evaluation_id of importance", cell("nearest_evaluation_id", "0" * 64)),
    "predicted-null": in_table(EVALUATION, "the column predicted of evaluation", cell("predicted", [0, None])),
    "predicted-too-long": in_table(EVALUATION, "predicted|says [0-9,]+ values", cell("predicted", [0, 0, 0])),
    "predicted-out-of-range": in_table(EVALUATION, "the column predicted of evaluation", cell("predicted", [0, 10])),
    "correct-contradicts": in_table(EVALUATION, "the column correct of evaluation", column("correct", lambda v: [[not x for x in row] for row in v])),
    "text-bomb": in_table(IMPORTANCE, BOMB, column("encoded_sha256", lambda v: ["0" * 3_000_000] * len(v))),
    "zstd-bomb": in_table(IMPORTANCE, rf"says [\d,]+ bytes in a file of [\d,]+: {BOMB}", add_unread_zeros, use_dictionary=False),
    "million-rows": in_table(IMPORTANCE, r"1,000,000 rows, more than the \d+ that manifest", lambda t: t.take(np.zeros(1_000_000, np.int64))),
    "rows-without-bytes": Case(add_rows_without_bytes, f"says 100,000 rows in .*: {BOMB}"),
    "data-of-other-values": in_table(DATA, "must select the very samples of data", cell("importance", 3.25)),
    "features-none": in_table(DATA, "features must name the labels", lambda t: t.replace_schema_metadata(None)),
    "features-without-image": in_table(DATA, "features must make the column image an Image", leave_out_image),
    "features-that-name-others": in_table(DATA, "features must name the labels", with_features('{"info": {"features": {"label": {"names": ["a"]}}}}')),
    "features-deep": in_table(DATA, r"train-00000-of-00001\.parquet: must be a parquet file", with_features("[" * 20_000)),
    "case-of-its-own": in_evaluation(f"evaluation/: case {ANSWERS}", column("case", next_cases)),
    "importance-of-its-own": in_evaluation(f"evaluation/: importance {ANSWERS}", cell("importance", 5.5)),
    "pairs-of-their-own": in_table(EVALUATION, f"evaluation/: pairs {ANSWERS}", cell("pairs_all_right", 7)),
    "training-case": Case(change_training_cases, f"importance/: case {ANSWERS}"),
    "training-importance": Case(change_training_importances, f"importance/: importance {ANSWERS}"),
    "importances-tiny": Case(make_tiny_importances, f"importance/: importance {ANSWERS}"),
    "importances-of-neighbours": Case(make_importances_of_neighbours, f"importance/: importance {ANSWERS}"),
    "validation-of-nobody": in_table(VALIDATION, "must hold samples of evaluation and no others", cell("sample_id", "0" * 64, row=0)),
    "validation-of-training": Case(hold_a_training_sample, "must hold samples of evaluation and no others"),
    "validation-of-another-label": in_table(VALIDATION, "as they stand there, they differ in label", column("label", lambda v: [(x + 1) % 3 for x in v])),
    "validation-of-another-case": in_table(VALIDATION, "as they stand there, they differ in case", column("case", next_cases)),
    "validation-of-another-place": in_table(VALIDATION, "as they stand there, they differ in source_index", cell("source_index", 777)),
    "validation-out-of-order": in_table(VALIDATION, "the column sample_id of validation", lambda t: t.take(np.arange(t.num_rows)[::-1])),
    "validation-with-chances": in_table(VALIDATION, "the column keep_probability of validation", cell("keep_probability", 0.5)),
    "validation-included": in_table(VALIDATION, "the column inclusion_probability of validation", column("inclusion_probability", lambda v: [1.0] * len(v))),
    "validation-label-null": in_table(VALIDATION, "the column label must have a value in every row", cell("label", None)),
    "validation-less": in_table(VALIDATION, "validation has 17 rows instead of 18", lambda t: t.slice(1)),
    "validation-without-image": in_table(VALIDATION, "must have the column image once", lambda t: t.drop_columns(["image"])),
    "validation-image-path": in_table(VALIDATION, "the column image of validation", column("image", lambda v: [{**x, "path": "/etc/passwd"} for x in v])),
    "validation-image-of-other-bytes": in_table(VALIDATION, "validation: image 1 must have the bytes of its", cell("image", {"bytes": picture(8), "path": None})),
    "validation-features-that-name-others": in_table(VALIDATION, "features must name the labels", with_features('{"info": {"features": {"label": {"names": ["a"]}}}}')),
    "validation-text-bomb": in_table(VALIDATION, BOMB, column("encoded_sha256", lambda v: ["0" * 4_000_000] * len(v))),
    "validation-million-rows": in_table(VALIDATION, r"1,000,000 rows, more than the \d+ that manifest", lambda t: t.take(np.zeros(1_000_000, np.int64))),
    "image-path": in_table(DATA, "the column image of data", column("image", lambda v: [{**x, "path": "/etc/passwd"} for x in v])),
    "image-null": in_table(DATA, "the column image of data", cell("image", None)),
    "image-bytes-null": in_table(DATA, "the column image of data", cell("image", {"bytes": None, "path": None})),
    "image-of-other-bytes": in_table(DATA, "image 1 must have the bytes of its encoded_sha256", cell("image", {"bytes": picture(8), "path": None})),
}  # fmt: skip
IMAGES = {
    "eps": in_image("image 0 must be an image: cannot identify", EPS),
    "none": in_image("image 0 must be an image: cannot identify", b"not an image"),
    "svg": in_image("image 0 must be an image: cannot identify", SVG),
    "bomb": in_image("image 0 must be an image: .*(400000000 pixels|20,000 x 20,000)", picture(20_000)),
    "large": in_image("image 0 must be an image: it has 9,000 x 9,000 pixels", picture(9_000)),
    "validation-none": in_image("validation: image 0 must be an image: cannot identify", b"not an image", paths=(VALIDATION, EVALUATION)),
    "validation-large": in_image("validation: image 0 must be an image: it has 9,000", picture(9_000), paths=(VALIDATION, EVALUATION)),
    # 96 MB once the dictionary is written out, more than a table of a few KB may take
    "dictionary-bomb": in_image(f"grows to .*: {BOMB}", *[b"\0" * 12_000_000] * N_DRAWN, dictionary_pagesize_limit=2**25),
}  # fmt: skip


# Tars

Member = tuple[tarfile.TarInfo, bytes]


def in_tar(keyword: str, change: Callable[[list[Member]], list[Member]], tar: str = TAR) -> Case:
    """A case of the members of a tar."""

    def rewrite(proxy: Proxy) -> None:
        with tarfile.open(fileobj=io.BytesIO(proxy.files[tar])) as archive:
            members = [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for info, content in change(members):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        proxy.files[tar] = stream.getvalue()

    return Case(rewrite, rf"{re.escape(tar)}: .*{keyword}")


def describe_member(name: str, **fields: Any) -> tarfile.TarInfo:
    """What a tar says of a member."""
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def first(name: str, **fields: Any) -> Case:
    """A case of an empty member before all others."""
    return in_tar("must be a plain file", lambda members: [(describe_member(name, **fields), b""), *members])


def renamed(name: str) -> Case:
    """A case of another name of the first member."""
    return in_tar(
        "must be named by a sample id", lambda members: [(describe_member(name), members[0][1]), *members[1:]]
    )


def ending(name: str, content: bytes, keyword: str) -> Case:
    """A case of other bytes in the members of an ending."""
    return in_tar(
        keyword, lambda members: [(info, content if info.name.endswith(name) else had) for info, had in members]
    )


def in_header(keyword: str, **fields: Any) -> Case:
    """A case of a header that says what no archiver would write, before all members."""
    info = describe_member(f"{'0' * 64}.png", **fields)
    header = info.tobuf(tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT)
    return in_tar_bytes(lambda content: header + content, keyword)


def in_tar_bytes(change: Callable[[bytes], bytes], keyword: str = "") -> Case:
    """A case of a tar that is none."""

    def rewrite(proxy: Proxy) -> None:
        proxy.files[TAR] = change(proxy.files[TAR])

    return Case(rewrite, rf"webdataset/train-000000\.tar: .*{keyword}")


OTHERS = "must have the image and label of its row"
ENORMOUS = r"says 1,000,000,000,000,000 bytes in a tar of"
TARS = {
    "leaves": renamed("../x.png"),
    "absolute": renamed("/etc/x.png"),
    "symlink": first("x", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hardlink": first("x", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": first("x", type=tarfile.BLKTYPE),
    "pipe": first("x", type=tarfile.FIFOTYPE),
    "folder": first("x", type=tarfile.DIRTYPE),
    "folder-after-all": in_tar("must be a plain file", lambda m: [*m, (describe_member("x", type=tarfile.DIRTYPE), b"")]),
    "sparse": in_header("must be a plain file", type=tarfile.GNUTYPE_SPARSE),
    "sparse-of-pax": in_header("must be a plain file", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "99999999999"}),
    "member-twice": in_tar("must stand once", lambda m: [m[0], *m]),
    "order": in_tar("must come next, as in data", lambda m: [*m[3:6], *m[:3], *m[6:]]),
    "image": ending(".png", picture(8), OTHERS),
    "cls": ending(".cls", b"77", OTHERS),
    "json": ending(".json", b"{}", "must hold the other columns of its row"),
    "json-key-twice": ending(".json", b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
    "json-deep": ending(".json", b"[" * 3_000, ""),
    "sample-more": in_tar("it holds more", lambda m: [*m, *((describe_member(f"{'f' * 64}.{end}"), b"{}") for end in ("png", "cls", "json"))]),
    "sample-less": in_tar("must hold every sample of data", lambda m: m[:-3]),
    "part-of-a-sample": in_tar("the last sample must have three members", lambda m: m[:-1]),
    "validation-order": in_tar("must come next", lambda m: [*m[3:6], *m[:3], *m[6:]], VALIDATION_TAR),
    "validation-less": in_tar("must hold every sample of validation", lambda m: m[:-3], VALIDATION_TAR),
    "validation-link": in_tar("must be a plain file", lambda m: [(describe_member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""), *m], VALIDATION_TAR),
    "validation-image": in_tar(OTHERS, lambda m: [(info, picture(8) if info.name.endswith(".png") else had) for info, had in m], VALIDATION_TAR),
    "validation-of-training": Case(lambda proxy: proxy.files.update({VALIDATION_TAR: proxy.files[TAR]}), "validation-000000.tar: .* must come next"),
    "gz": in_tar_bytes(lambda content: gzip.compress(content, mtime=0)),
    "empty": in_tar_bytes(lambda content: b""),
    "zeros": in_tar_bytes(lambda content: b"\0" * 100),
    "truncated": in_tar_bytes(lambda content: content[:1300]),
    "size-beyond-memory": in_header(ENORMOUS, size=10**15),
    "size-beyond-memory-of-pax": in_header(ENORMOUS, pax_headers={"size": str(10**15)}),
    "long-name-beyond-memory": in_header("", size=10**15, type=tarfile.GNUTYPE_LONGNAME),
    "pax-header-beyond-memory": in_header("", size=10**15, type=tarfile.XHDTYPE),
    "size-beyond-integers": in_header("", size=2**63),
    "size-below-nothing": in_header("", size=-512),
}  # fmt: skip


# Card and recipe


def in_card(keyword: str, change: Callable[[str], str]) -> Case:
    """A case of the card."""

    def rewrite(proxy: Proxy) -> None:
        text = proxy.files[CARD].decode()
        assert change(text) != text
        proxy.files[CARD] = change(text).encode()

    return Case(rewrite, rf"README\.md:.*{keyword}")


def below(text: str, keyword: str) -> Case:
    """A case of text below the card's."""
    return in_card(keyword, lambda card: f"{card}{text}\n")


def above(line: str, keyword: str) -> Case:
    """A case of lines in the card's block of YAML."""
    return in_card(keyword, lambda card: card.replace("---\n", f"---\n{line}\n", 1))


HTML = r"must be plain Markdown, line \d+ holds HTML"
OWN_TABLES = "configs must name this proxy's own tables"
ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
)
TAG = "a: !!python/object/apply:os.system [ls]"
DEEP = "[" * 30_000 + "]" * 30_000
CARDS = {
    "script": below("<script>alert(1)</script>", HTML),
    "onerror": below("<img src=x onerror=alert(1)>", HTML),
    "ontoggle": below("<details open ontoggle=alert(1)>", HTML),
    "hidden-in-summary": below("<scr<summary>ipt>alert(1)", HTML),
    "template-code": below("{{ config }}", "must be plain Markdown"),
    "address-of-a-script": below("[x](javascript:alert(1))", "must be plain Markdown"),
    "escape": below("\x1b[2J", "holds control characters"),
    "carriage-return": below("a\rb\x85", "holds control characters"),
    "turned-text": below("a\u202eb", "holds characters that turn"),
    "another-data-set": in_card(OWN_TABLES, lambda card: card.replace("data/train-*", "hf://datasets/a/b/*")),
    "another-folder": in_card(OWN_TABLES, lambda card: card.replace("data/train-*", "../other/*")),
    "another-licence": in_card("license must be the manifest's", lambda card: card.replace("license: unknown", "license: mit")),
    "no-front-matter": in_card("must begin with the block of YAML", lambda card: card.split("---\n", 2)[2]),
    "dataset-info": above("dataset_info: {}", OWN_TABLES),
    "html-above": above("x: <script>", "must begin with plain YAML"),
    "yaml-deep": above(f"x: {DEEP}", "must be 50 levels deep at most"),
    "yaml-line-separators": above("#\u2028" * 4_000, "odd line breaks"),
    "key-twice": above("license: mit", "a key must stand once"),
    "alias-bomb": above(ALIASES, "must not use aliases"),
    "tag": above(TAG, "must not use tags"),
}  # fmt: skip
ELSEWHERE = "path must be a name without folders"
RECIPES = {
    "source-of-this-machine": ("source: {kind: folder, path: /etc}\n", ELSEWHERE),
    "source-above": ("source: {kind: folder, path: ../x}\n", ELSEWHERE),
    "source-of-windows": ("source: {kind: folder, path: 'C:\\x'}\n", ELSEWHERE),
    "source-a-list": ("source: {kind: folder, path: [/etc]}\n", ELSEWHERE),
    "source-at-home": ("source: {kind: folder, path: '~'}\n", ELSEWHERE),
    "source-of-dots": ("source: {kind: folder, path: ..}\n", ELSEWHERE),
    "reference-at-home": ("check: {reference: {path: ~/x}}\n", rf"check\.reference\.{ELSEWHERE}"),
    "scalar-that-ruamel-falls-over": ("a: 0x_\n", "not valid YAML"),
    "alias-bomb": (f"{ALIASES}\n", "must not use aliases"),
    "tag": (f"{TAG}\n", "must not use tags"),
    "list": ("- a\n", "must be a mapping"),
    "text": ("a\n", "must be a mapping"),
    "line-separators": ("a: 1\n" + "#\u2028" * 4_000, "must have line feeds between lines"),
    "next-lines": ("a: 1\n" + "#\x85" * 4_000, "must have line feeds between lines"),
    "deep": (f"a: {DEEP}\n", "must be 50 levels deep at most"),
    "key-twice": ("a: 1\na: 2\n", "a key must stand once"),
    "fewer-to-rank-on": ("output: {validation: 1}\n", r"output\.validation must give what manifest\.json says"),
    "none-to-rank-on": ("output: {validation: none}\n", r"output\.validation must give what manifest\.json says"),
}
OF_THE_MANIFEST = {
    key: Case(
        lambda proxy, key=key, value=value: proxy.set(key, value=value),  # type: ignore[misc]
        rf"recipe\.yaml: {key} must be what manifest\.json says",
    )
    for key, value in (("version", "9.9.9"), ("seed", 77))
}


def in_index(keyword: str, change: Callable[[str], str], index: str = INDEX) -> Case:
    """A case of an index that was changed."""

    def rewrite(proxy: Proxy) -> None:
        text = proxy.files[index].decode()
        assert change(text) != text
        proxy.files[index] = change(text).encode()

    return Case(rewrite, rf"{re.escape(index)}: .*{keyword}")


INDICES = {
    "a-sample-less": in_index("there must be 8 samples, there are 7", lambda text: text[: text[:-1].rindex("\n") + 1]),
    "another-place": in_index("source_index must be what data says", lambda text: re.sub(r"(\n(?:[^,]*,){2})[^,]*", r"\g<1>9999", text, count=1)),
    "a-formula": in_index("line 2: label must be one", lambda text: re.sub(r"(\n(?:[^,]*,){3})[^,]*", r"\g<1>=1+1", text, count=1)),
    "another-split": in_index("split must be one of the source", lambda text: text.replace(",train,", ",=1+1,")),
    "another-column": in_index("line 1: must name the columns", lambda text: text.replace("\n", ",=1+1\n")),
    "nothing": in_index("must name the columns", lambda text: ""),
}  # fmt: skip
VALIDATION_INDICES = {
    "validation-less": in_index("there must be 18 samples, there are 17", lambda text: text[: text[:-1].rindex("\n") + 1], VALIDATION_INDEX),
    "validation-weighted": in_index("weight must be empty", lambda text: text.replace(",,,\n", ",1.0,,\n", 1), VALIDATION_INDEX),
    "validation-of-training": Case(lambda proxy: proxy.files.update({VALIDATION_INDEX: proxy.files[INDEX]}), r"validation\.csv: "),
    "validation-a-formula": in_index("line 2: label must be one", lambda text: re.sub(r"(\n(?:[^,]*,){3})[^,]*", r"\g<1>=1+1", text, count=1), VALIDATION_INDEX),
    "data-of-validation": Case(lambda proxy: proxy.files.update({INDEX: proxy.files[VALIDATION_INDEX]}), r"indices\.csv: line 2: "),
}  # fmt: skip
OF_ANOTHER = {
    "name": "x",
    "version": "1.0.0",
    **dict.fromkeys(("recipe_sha256", "manifest_sha256", "index_sha256", "fingerprint"), "0" * 64),
}
"""The record of a proxy that was made from an index."""


def say_made_from_index(proxy: Proxy) -> None:
    """Says of a proxy with all tables that it was made from an index."""
    proxy.set("index_of", value=OF_ANOTHER)


CASES: dict[str, Case] = {
    **{f"manifest-{name}": case for name, case in MANIFESTS.items()},
    **{f"table-{name}": case for name, case in TABLES.items()},
    **{f"image-{name}": case for name, case in IMAGES.items()},
    **{f"tar-{name}": case for name, case in TARS.items()},
    **{f"card-{name}": case for name, case in CARDS.items()},
    **{
        f"recipe-{name}": with_files(rf"recipe\.yaml.*{keyword}", {RECIPE: text.encode()})
        for name, (text, keyword) in RECIPES.items()
    },
    **{f"recipe-another-{name}": case for name, case in OF_THE_MANIFEST.items()},
    **{f"index-{name}": case for name, case in (INDICES | VALIDATION_INDICES).items()},
    "index-not-utf8": with_files(r"indices\.csv: must be UTF-8", {INDEX: b"sample_id\xff\n"}),
    "index-beside-tables": Case(
        say_made_from_index, r"manifest\.json: .*importance/train-\* must not hold parquet files where"
    ),
    "croissant-another": with_files(r"croissant\.json: must be an object with the @context", {"croissant.json": b"{}"}),
    "croissant-no-json": with_files(r"croissant\.json: must be JSON", {"croissant.json": b"\xff{"}),
    "croissant-deep": with_files(r"croissant\.json: must be JSON", {"croissant.json": b"[" * 100_000}),
    "validation-before-2.0": in_manifest(
        "counts.validation must be 0 before format 2.0", "format_version", value="1.7"
    ),
    "picture-bomb": with_files("assets/x.png: it must be an image: .* pixels", {"assets/x.png": picture(9_000)}),
    "program": with_files("'load.py' must be a kind of file", {"load.py": b'print("hostile")\n'}),
    "pickle": with_files("'weights/w.pkl' must be a kind of file", {"weights/w.pkl": b"\x80\x04N."}),
    "unsigned-changed-card": with_files(
        "README.md: must have .* bytes, has 5", {CARD: b"short"}, error=VerificationError, is_signed=False
    ),
    "unsigned-additional-file": with_files(
        "data/x.parquet: not in the manifest", {"data/x.parquet": b"PAR1"}, error=VerificationError, is_signed=False
    ),
    "text-not-utf8-manifest": with_files("manifest.json: must be UTF-8", {MANIFEST: b"\xff\xfe"}),
    "text-not-utf8-recipe": with_files("recipe.yaml: must be UTF-8", {RECIPE: b"\xff\xfe"}),
    "text-not-utf8-card": with_files("README.md: must be UTF-8", {CARD: b"---\n\xff\xfe\n---\n"}),
}
"""Every case, by name."""


# The whole proxy

N_OF_LABEL = {"train": 8, "validation": 6, "test": 4}
WHOLE_RECIPE = """\
name: whole
source: {kind: folder, path: few-digits, image_size: 8}
space:
  network: resnet
  choices: {depth: 8, base_filters: [4, 8], multiplier: [1, 2]}
selection: {method: cases, ratio: 0.3333}
training: {epochs: 10, batch_size: 6, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
output: {gallery: false}
"""


def make_source(folder: Path) -> None:
    """Writes a few pictures of three digits."""
    digits = load_digits()
    for label in ("0", "1", "2"):
        pictures = iter(digits.images[digits.target == int(label)])
        for split, n in N_OF_LABEL.items():
            (folder / split / label).mkdir(parents=True)
            for number in range(n):
                pixels = np.round(next(pictures) * (255 / 16)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")


def join_shards(proxy: Path) -> None:
    """Makes one file of each table with images, so that a case changes all of it, and one tar."""
    from proxyds.artifact.writer import write_tars

    shutil.rmtree(proxy / "webdataset")
    for path in (DATA, VALIDATION):
        shards = sorted((proxy / "data").glob(f"{Path(path).name.partition('-')[0]}-*.parquet"))
        table = pa.concat_tables([pq.read_table(shard) for shard in shards])
        for shard in shards:
            shard.unlink()
        pq.write_table(table, proxy / path)
        write_tars(proxy, [proxy / path], ["0", "1", "2"], "png")


def make_whole() -> None:
    """Builds a very small proxy without pictures."""
    from proxyds.artifact.reader import read_manifest
    from proxyds.artifact.writer import list_written, rewrite_manifest
    from proxyds.pipeline.audit import audit_proxy
    from proxyds.pipeline.build import build
    from proxyds.recipe.yaml import read_recipe
    from proxyds.runtime.storage.store import Store

    with tempfile.TemporaryDirectory() as place:
        make_source(Path(place) / "few-digits")
        recipe = Path(place) / "recipe.yaml"
        recipe.write_text(WHOLE_RECIPE, encoding="utf-8")
        built = build(
            read_recipe(recipe), Path(place) / "proxy", store=Store(Path(place) / "store"), device="cpu"
        ).folder
        shutil.rmtree(WHOLE, ignore_errors=True)
        shutil.copytree(built, WHOLE)
    shutil.rmtree(WHOLE / "assets")
    join_shards(WHOLE)
    rewrite_manifest(WHOLE, list_written(WHOLE, read_manifest(WHOLE)), written=[])
    counts = audit_proxy(WHOLE)[0].counts
    assert (counts.proxy, counts.validation) == (N_DRAWN, N_EVALUATED)


if __name__ == "__main__":
    make_whole()
