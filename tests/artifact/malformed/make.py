"""Makes `whole/`, a very small proxy, and `cases/`, hostile files to lay over it, for `test_malformed.py`.

Run by hand, from the root of the repository, where the format or the cases change; what it writes is committed:

    python tests/malformed/make.py

It builds a proxy of a few digits (some 15 seconds), and replaces both folders. A case is a folder
`cases/NAME/` with files by their path in the proxy and `refused.txt`, a regular expression that the message must match. The
test signs what is laid over, unless that is `manifest.json` itself or NAME begins with `unsigned-`. Nothing here does harm
when it is opened by mistake: the pickle holds None, the program prints a word.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
WHOLE, CASES = HERE / "whole", HERE / "cases"
DATA = "data/train-00000-of-00001.parquet"
IMPORTANCE = "importance/train-00000-of-00001.parquet"
EVALUATION = "evaluation/evaluation-00000-of-00001.parquet"
TAR = "webdataset/train-000000.tar"
N_OF_LABEL = {"train": 8, "validation": 6, "test": 4}
N_DRAWN = 8
RECIPE = """\
name: whole
source: {kind: folder, path: few-digits, image_size: 8}
space:
  network: resnet
  choices: {depth: 8, base_filters: [4, 8], multiplier: [1, 2]}
selection: {ratio: 0.3333}
training: {epochs: 20, batch_size: 6, learning_rate: 0.02, crop_padding: 1, horizontal_flip: false}
output: {gallery: false}
"""


# The whole proxy


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


def make_whole() -> None:
    """Builds a very small proxy without pictures."""
    from proxyds.artifact.reader import read_manifest
    from proxyds.artifact.writer import write_manifest
    from proxyds.pipeline.audit import audit_proxy
    from proxyds.pipeline.build import build
    from proxyds.recipe.yaml import read_recipe
    from proxyds.runtime.storage.store import Store

    with tempfile.TemporaryDirectory() as place:
        make_source(Path(place) / "few-digits")
        recipe = Path(place) / "recipe.yaml"
        recipe.write_text(RECIPE, encoding="utf-8")
        built = build(
            read_recipe(recipe), Path(place) / "proxy", store=Store(Path(place) / "store"), device="cpu"
        ).folder
        shutil.rmtree(WHOLE, ignore_errors=True)
        shutil.copytree(built, WHOLE)
    shutil.rmtree(WHOLE / "assets")
    write_manifest(WHOLE, read_manifest(WHOLE))
    assert audit_proxy(WHOLE)[0].counts.proxy == N_DRAWN


def replace(table: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    """A table with other values in a column."""
    place, kind = table.schema.get_field_index(name), kind or table.schema.field(name).type
    return table.set_column(
        place, pa.field(name, kind, metadata=table.schema.field(name).metadata), pa.array(values, kind)
    )


# The cases


def write_case(name: str, said: str, files: dict[str, bytes]) -> None:
    """Writes one case."""
    for path, content in {**files, "refused.txt": f"{said}\n".encode()}.items():
        (CASES / name / path).parent.mkdir(parents=True, exist_ok=True)
        (CASES / name / path).write_bytes(content)


def change_manifest(*path: str | int, value: Any) -> bytes:
    """The manifest with another value."""
    held = json.loads((WHOLE / "manifest.json").read_text(encoding="utf-8"))
    inner = held
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return f"{json.dumps(held, indent=1)}\n".encode()


def in_manifest(name: str, said: str, *path: str | int, value: Any) -> None:
    """A case of one value in the manifest."""
    write_case(f"manifest-{name}", rf"manifest\.json.*{said}", {"manifest.json": change_manifest(*path, value=value)})


def in_manifest_text(name: str, said: str, pattern: str, by: str) -> None:
    """A case of text in the manifest that no JSON writer would give."""
    text, n = re.subn(pattern, by, (WHOLE / "manifest.json").read_text(encoding="utf-8"), count=1)
    assert n, name
    write_case(f"manifest-{name}", rf"manifest\.json.*{said}", {"manifest.json": text.encode()})


def listed(name: str, path: str, said: str) -> None:
    """A case of an empty file that the manifest lists."""
    in_manifest(name, said, "files", path, value={"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()})


def make_manifests() -> None:
    """Cases of `manifest.json`."""
    in_manifest_text("key-twice", "the key 'name' stands twice", '"name":', '"name": "x",\n "name":')
    in_manifest_text(
        "key-twice-within", "the key 'evaluation' stands twice", '"evaluation":', '"evaluation": 1,\n  "evaluation":'
    )
    in_manifest_text(
        "key-twice-by-an-escape", "the key 'name' stands twice", '"name":', '"n\\\\u0061me": "x",\n "name":'
    )
    in_manifest_text("nan", "NaN is no number", r'"accuracy": [\d.]+', '"accuracy": NaN')
    in_manifest_text("infinity", "-Infinity is no number", r'"accuracy": [\d.]+', '"accuracy": -Infinity')
    in_manifest_text("number-without-end", "1e999 is no number", r'"accuracy": [\d.]+', '"accuracy": 1e999')
    in_manifest_text("byte-order-mark", "must be JSON", r"\A", "\ufeff")
    in_manifest_text("two-objects", "must be JSON", r"\Z", "{}")
    write_case("manifest-deep", r"manifest\.json: must be JSON", {"manifest.json": b"[" * 20_000})
    write_case(
        "manifest-deep-objects",
        r"manifest\.json: must be JSON",
        {"manifest.json": b'{"a":' * 5_000 + b"1" + b"}" * 5_000},
    )
    in_manifest("unknown-version", r"format_version must be 1\.x, got '2\.0'", "format_version", value="2.0")
    in_manifest("version-no-text", "names no format and format_version", "format_version", value=1.3)
    in_manifest("version-no-number", r"format_version must be 1\.x", "format_version", value="1.\u0663x")
    listed("absolute-path", "/etc/x.png", "'/etc/x.png' must be a path inside the folder")
    listed("path-above", "assets/../../x.png", "must be a path inside the folder")
    listed("backslash", "assets\\x.png", "must be a path inside the folder")
    listed("drive", "C:/x.png", "must be a path inside the folder")
    listed("line-feed-in-a-path", "assets/x.png\n", "must be a path inside the folder")
    listed("capitals", "readme.md", "'readme.md' and 'README.md' must differ by more than capitals")
    listed("hidden-file", "assets/.x.png", "must be a path inside the folder")
    listed("file-below-a-file", "README.md/x.png", "must not lie below another file")
    listed("table-that-nobody-looks-into", "data/train-evil.parquet", "must be a kind of file that a proxy holds")
    listed("another-description", "dataset_infos.json", "must be a kind of file that a proxy holds")
    listed("shard-too-many", "data/train-00001-of-00002.parquet", "must be numbered with its like")
    listed("tar-out-of-count", "webdataset/train-000007.tar", "'webdataset/train-000007.tar' must be numbered")
    listed("itself", "manifest.json", "and not the manifest")
    listed("missing-file", "assets/gone.png", r"[\s\S]*assets/gone\.png: missing")
    listed("evidence-table-without-evidence", "ranking/ranking-00000-of-00001.parquet", "ranking/ must not hold")
    files = json.loads((WHOLE / "manifest.json").read_text(encoding="utf-8"))["files"]
    in_manifest(
        "no-card", "README.md must be among them", "files", value={k: v for k, v in files.items() if k != "README.md"}
    )
    in_manifest(
        "no-data", "data/ must hold parquet files", "files", value={k: v for k, v in files.items() if k != DATA}
    )
    in_manifest("sha256-none", "sha256: String should match", "files", DATA, "sha256", value="x")
    in_manifest(
        "wrong-size", r"[\s\S]*train-00000-of-00001\.parquet: must have 10 bytes", "files", DATA, "bytes", value=10
    )
    in_manifest("wrong-sha256", r"[\s\S]*its bytes have changed", "files", DATA, "sha256", value="0" * 64)
    in_manifest("negative-size", "bytes: Input should be greater", "files", DATA, "bytes", value=-1)
    in_manifest(
        "html", "'label_names.0' must be plain text, it holds HTML", "label_names", 0, value="<script>alert(1)</script>"
    )
    in_manifest(
        "template-code",
        "'source.name' must be plain text, it holds HTML or template",
        "source",
        "name",
        value="{{ 7 * 7 }}",
    )
    in_manifest("address-of-a-script", "'licence' must be plain text", "licence", value="JavaScript:alert(1)")
    in_manifest("escape", "'name' must be plain text, it holds control characters", "name", value="a\x1b]0;x\x07b")
    in_manifest(
        "turned-text", "'name' must be plain text, it holds characters that turn", "name", value="a\u202egnp.exe"
    )
    in_manifest("lone-surrogate", "'name' must be plain text, it holds control characters", "name", value="a\ud800b")
    in_manifest("long-text", "must have 10,000 letters at most", "name", value="a" * 10_001)
    in_manifest(
        "html-in-a-later-key", "must be plain text, it holds HTML", "news", value=[{"<img src=x onerror=y>": 1}]
    )
    write_case_of_counts()
    in_manifest(
        "kept-labels-without-a-draw-of-labels", "kept_labels and draw.labels must both", "kept_labels", value=[0, 1]
    )
    in_manifest(
        "kept-labels-twice", "kept_labels must be numbers of label_names, each once", "kept_labels", value=[1, 1]
    )
    make_manifests_of_probes()
    nested: Any = "x"
    for _ in range(60):
        nested = {"k": nested}
    in_manifest("nested", "must be 50 levels deep at most", "news", value=nested)
    in_manifest("no-date", "created: String should match", "created", value="yesterday")
    in_manifest("impossible-date", "created: ", "created", value="9999-99-99T99:99:99Z")
    in_manifest("date-elsewhere", "created: must be a time of UTC", "created", value="2026-11-25T09:30:00+01:00")
    in_manifest("no-neighbours", r"mapping\.neighbours", "mapping", "neighbours", value=0)
    in_manifest(
        "more-neighbours-than-samples",
        "mapping.neighbours must be counts.evaluation at most",
        "mapping",
        "neighbours",
        value=99,
    )
    in_manifest("odd-line-break", "'name' must be plain text, it holds odd line breaks", "name", value="a\u2028b")
    for key, value in (("version", "9.9.9"), ("seed", 77)):
        write_case(
            f"recipe-another-{key}",
            rf"recipe\.yaml: {key} must be what manifest\.json says",
            {"manifest.json": change_manifest(key, value=value)},
        )
    in_manifest("ratio-zero", r"draw\.ratio", "draw", "ratio", value=0.0)
    in_manifest("constant-negative", r"draw\.constants\.1", "draw", "constants", value=[2.0, -1.0, 6.0, 1.0])
    in_manifest("duplicates-negative", r"source\.n_duplicates\.train", "source", "n_duplicates", "train", value=-1)
    write_case(
        "manifest-other-label-names",
        "its features must name the labels as manifest",
        {"manifest.json": change_manifest("label_names", value=["a", "b", "c"])},
    )
    in_manifest_text("seed-of-5000-digits", "must be JSON|seed", r'"seed": \d+', f'"seed": {"9" * 5000}')
    write_case("manifest-empty", r"manifest\.json: must be JSON", {"manifest.json": b""})
    in_manifest("evidence-without-table", "evidence", "evidence", value={"verdict": "preserves the ranking"})
    in_manifest("enormous-shape", r"image_shape\.1", "image_shape", value=[1, 10**9, 8])
    write_case("unsigned-changed-card", r"README\.md: must have [\d,]+ bytes, has 5", {"README.md": b"short"})
    write_case("unsigned-additional-file", r"data/x\.parquet: not in the manifest", {"data/x.parquet": b"PAR1"})
    write_case("program", r"'load\.py' must be a kind of file", {"load.py": b'print("hostile")\n'})
    write_case("pickle", r"'weights/w\.pkl' must be a kind of file", {"weights/w.pkl": b"\x80\x04N."})


def make_manifests_of_probes() -> None:
    """Cases of the probes, whose answers the table `evaluation` holds."""
    probes = json.loads((WHOLE / "manifest.json").read_text(encoding="utf-8"))["probes"]
    for name, value, said in (
        ("once-more", [*probes, probes[0]], "probes must be two or more, each once in each repeat"),
        ("repeat-out-of-count", [probes[0], {**probes[1], "repeat": 10**15}], "probes must be two or more, each once"),
        ("of-another-order", probes[::-1], "probes must stand from the lightest to the heaviest"),
        (
            "too-many",
            [{**probes[0], "name": f"p{i}", "parameters": {}} for i in range(65)],
            "probes must be 64 at most",
        ),
        ("repeated", [{**each, "repeat": i} for i in range(2) for each in probes], "agreement must be there"),
    ):
        in_manifest(f"probes-{name}", said, "probes", value=value)
    better = [probes[0], {**probes[1], "accuracy": 0.99}]
    write_case(
        "manifest-probes-better",
        r"accuracy of probes must be what the answers in evaluation/ give",
        {"manifest.json": change_manifest("probes", value=better)},
    )


def write_case_of_counts() -> None:
    """Cases of counts that lie; the message names the table."""
    third = {"train": 9, "proxy": 3}
    for name, counts, said in (
        ("fewer", third, r"importance/.*more than the 9 that manifest\.json"),
        ("more", {"evaluation": 900_000}, r"evaluation: the tables must be those that manifest\.json"),
        (
            "of-the-proxy",
            {"proxy": N_DRAWN + 1},
            r"manifest\.json: counts\.proxy must be draw\.ratio of counts\.train, 8",
        ),
    ):
        held = json.loads((WHOLE / "manifest.json").read_text(encoding="utf-8"))["counts"]
        write_case(
            f"manifest-counts-{name}", said, {"manifest.json": change_manifest("counts", value={**held, **counts})}
        )
    rows = pq.read_table(WHOLE / EVALUATION).take(np.zeros(100_000, np.int64))
    content = encode(rows)
    held = json.loads((WHOLE / "manifest.json").read_text(encoding="utf-8"))
    held["counts"]["evaluation"] = 100_000
    held["files"][EVALUATION] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_case(
        "table-rows-without-bytes",
        r"says 100,000 rows in [\d,]+ bytes: a decompression bomb",
        {EVALUATION: content, "manifest.json": f"{json.dumps(held, indent=1)}\n".encode()},
    )


def encode(table: pa.Table, **options: Any) -> bytes:
    """A table as parquet."""
    stream = io.BytesIO()
    pq.write_table(table, stream, **{"compression": "zstd", **options})
    return stream.getvalue()


def in_table(name: str, path: str, said: str, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    """A case of one table."""
    write_case(f"table-{name}", said, {path: encode(change(pq.read_table(WHOLE / path)), **options)})


def cell(name: str, value: Any, row: int = 1) -> Callable[[pa.Table], pa.Table]:
    """Replaces one value."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        return replace(table, name, [*values[:row], value, *values[row + 1 :]])

    return change


def column(
    name: str, values: Callable[[list[Any]], Any], kind: pa.DataType | None = None
) -> Callable[[pa.Table], pa.Table]:
    """Replaces a column."""
    return lambda table: replace(table, name, values(table[name].to_pylist()), kind)


def in_image(name: str, said: str, *images: bytes, **options: Any) -> None:
    """A case of other images in `data`, which both tables know by their sha256."""
    data, importance = (pq.read_table(WHOLE / path) for path in (DATA, IMPORTANCE))
    ids, held = data["sample_id"].to_pylist(), [each["bytes"] for each in data["image"].to_pylist()]
    held[: len(images)] = images
    sums = {each: hashlib.sha256(image).hexdigest() for each, image in zip(ids, held, strict=True)}
    data = replace(data, "image", [{"bytes": image, "path": None} for image in held])
    data = replace(data, "encoded_sha256", list(sums.values()))
    known = zip(importance["sample_id"].to_pylist(), importance["encoded_sha256"].to_pylist(), strict=True)
    importance = replace(importance, "encoded_sha256", [sums.get(each, had) for each, had in known])
    write_case(f"image-{name}", said, {DATA: encode(data, **options), IMPORTANCE: encode(importance)})


def picture(side: int) -> bytes:
    """A PNG of one colour."""
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


def make_tables() -> None:
    """Cases of parquet files, and of the images in them."""
    whole = (WHOLE / IMPORTANCE).read_bytes()
    of_parquet = r"importance/train-00000-of-00001\.parquet: must be a parquet file as FORMAT\.md has it"
    write_case("table-not-parquet", of_parquet, {IMPORTANCE: b"not parquet"})
    write_case("table-empty-file", of_parquet, {IMPORTANCE: b""})
    write_case("table-truncated", of_parquet, {IMPORTANCE: whole[: len(whole) // 2]})
    write_case("table-footer-longer-than-the-file", of_parquet, {IMPORTANCE: whole[:-8] + b"\xff\xff\xff\x7fPAR1"})
    in_table(
        "column-missing",
        IMPORTANCE,
        "must have the column case once, it has it 0 times",
        lambda t: t.drop_columns(["case"]),
    )
    in_table(
        "column-twice",
        IMPORTANCE,
        "must have the column case once, it has it 2",
        lambda t: t.append_column("case", t["case"]),
    )
    in_table(
        "type",
        IMPORTANCE,
        "must hold int64, it holds string",
        column("label", lambda v: list(map(str, v)), pa.string()),
    )
    in_table("label-null", IMPORTANCE, "the column label must have a value in every row", cell("label", None))
    in_table("label-out-of-range", IMPORTANCE, "the column label of importance", cell("label", 10))
    in_table(
        "ids-out-of-order",
        IMPORTANCE,
        "the column sample_id of importance",
        lambda t: t.take(np.arange(t.num_rows)[::-1]),
    )
    in_table(
        "id-twice",
        EVALUATION,
        "the column sample_id of evaluation",
        lambda t: cell("sample_id", t["sample_id"][0].as_py())(t),
    )
    in_table("id-a-path", IMPORTANCE, "the column sample_id of importance", cell("sample_id", "../" * 21 + "x"))
    in_table("id-not-utf8", IMPORTANCE, of_parquet, not_utf8)
    in_table("importance-nan", IMPORTANCE, "of importance must be as", cell("importance", float("nan")))
    in_table("importance-negative", IMPORTANCE, "of importance must be as", cell("importance", -1.0))
    in_table("importance-infinite", EVALUATION, "the column importance of evaluation", cell("importance", float("inf")))
    in_table("keep-probability", IMPORTANCE, "the column keep_probability of importance", cell("keep_probability", 0.5))
    in_table(
        "inclusion-probability",
        IMPORTANCE,
        "the column inclusion_probability of importance",
        cell("inclusion_probability", 1.5),
    )
    in_table("case-9", IMPORTANCE, "the column case of importance", cell("case", 9))
    in_table(
        "selected-others",
        IMPORTANCE,
        "must select the very samples of data",
        column("selected", lambda v: [*v[1:], v[0]]),
    )
    in_table(
        "nearest-unknown",
        IMPORTANCE,
        "the column nearest_evaluation_id of importance",
        cell("nearest_evaluation_id", "0" * 64),
    )
    in_table("predicted-null", EVALUATION, "the column predicted of evaluation", cell("predicted", [0, None]))
    in_table(
        "text-bomb",
        IMPORTANCE,
        "a decompression bomb",
        column("encoded_sha256", lambda v: ["0" * 3_000_000] * len(v)),
    )
    in_table("data-of-other-values", DATA, "must select the very samples of data", cell("importance", 3.25))
    in_table("features-none", DATA, "its features must name the labels", lambda t: t.replace_schema_metadata(None))
    in_table("features-without-image", DATA, "its features must make the column image an Image", without_image)
    answers = "must be what the answers in evaluation/ give"
    in_table(
        "case-of-its-own", EVALUATION, f"evaluation/: case {answers}", column("case", lambda v: [1 + x % 4 for x in v])
    )
    in_table("importance-of-its-own", EVALUATION, f"evaluation/: importance {answers}", cell("importance", 5.5))
    in_table("pairs-of-their-own", EVALUATION, f"evaluation/: pairs {answers}", cell("pairs_all_right", 7))
    in_training("case", f"importance/: case {answers}", "case", lambda v: [1 + x % 4 for x in v])
    make_importances_of_ones_own()
    in_training("importance", f"importance/: importance {answers}", "importance", lambda v: [x + 1 for x in v])
    in_table("predicted-too-long", EVALUATION, "predicted|says [0-9,]+ values", cell("predicted", [0, 0, 0]))
    in_table("predicted-out-of-range", EVALUATION, "the column predicted of evaluation", cell("predicted", [0, 10]))
    in_table(
        "correct-contradicts",
        EVALUATION,
        "the column correct of evaluation",
        column("correct", lambda v: [[not x for x in row] for row in v]),
    )
    in_table("million-rows", IMPORTANCE, r"1,000,000 rows, more than the \d+ that manifest\.json", zeros)
    in_table(
        "zstd-bomb",
        IMPORTANCE,
        r"says [\d,]+ bytes in a file of [\d,]+: a decompression bomb",
        unread_zeros,
        use_dictionary=False,
    )
    in_table(
        "features-that-name-others",
        DATA,
        "its features must name the labels as manifest",
        lambda t: with_features(t, '{"info": {"features": {"label": {"names": ["a"]}}}}'),
    )
    in_table(
        "features-deep",
        DATA,
        r"train-00000-of-00001\.parquet: must be a parquet file",
        lambda t: with_features(t, "[" * 20_000),
    )
    in_table(
        "image-path",
        DATA,
        "the column image of data",
        column("image", lambda v: [{**x, "path": "/etc/passwd"} for x in v]),
    )
    in_table("image-null", DATA, "the column image of data", cell("image", None))
    in_table("image-bytes-null", DATA, "the column image of data", cell("image", {"bytes": None, "path": None}))
    in_table(
        "image-of-other-bytes",
        DATA,
        "image 1 must have the bytes of its encoded_sha256",
        cell("image", {"bytes": picture(8), "path": None}),
    )
    in_image(
        "eps",
        "image 0 must be an image: cannot identify",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
    )
    in_image("none", "image 0 must be an image: cannot identify", b"not an image")
    in_image(
        "svg",
        "image 0 must be an image: cannot identify",
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    )
    in_image("bomb", r"image 0 must be an image: .*(400000000 pixels|20,000 x 20,000)", picture(20_000))
    in_image(
        "large", r"image 0 must be an image: it has 9,000 x 9,000 pixels, more than the 64,000,000", picture(9_000)
    )
    # 96 MB once the dictionary is written out, more than a table of a few KB may take
    in_image("dictionary-bomb", r"grows to [\d,]+ bytes and more out of [\d,]+: a decompression bomb", *[b"\0" * 12_000_000] * N_DRAWN, dictionary_pagesize_limit=2**25)  # fmt: skip
    write_case(
        "picture-bomb",
        r"assets/x\.png: it must be an image: it has 9,000 x 9,000 pixels",
        {"assets/x.png": picture(9_000)},
    )


def without_image(table: pa.Table) -> pa.Table:
    """The features that only say what labels are."""
    label = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]
    return with_features(table, json.dumps({"info": {"features": {"label": label}}}))


def in_training(name: str, said: str, of: str, values: Callable[[list[Any]], list[Any]]) -> None:
    """A case of a column of all training samples, which `data` repeats and keep probabilities follow."""
    tables = {path: column(of, values)(pq.read_table(WHOLE / path)) for path in (DATA, IMPORTANCE)}
    total = sum(tables[IMPORTANCE]["importance"].to_pylist())
    keep = {path: [x / total for x in held["importance"].to_pylist()] for path, held in tables.items()}
    files = {path: encode(replace(held, "keep_probability", keep[path])) for path, held in tables.items()}
    write_case(f"table-training-{name}", said, files)


def make_importances_of_ones_own() -> None:
    """Cases of importances that a loose comparison would let through: very small ones, and means over several neighbours."""
    for name, place, value, scale in (
        ("tiny", ("draw", "constants"), [1e-9] * 4, 9e-9),
        ("of-neighbours", ("mapping", "neighbours"), 2, 1e8),
    ):
        files = {}
        tables = {path: pq.read_table(WHOLE / path) for path in (DATA, IMPORTANCE, EVALUATION)}
        ids = tables[IMPORTANCE]["sample_id"].to_pylist()
        values = dict(zip(ids, np.random.default_rng(0).random(len(ids)) * scale, strict=True))
        total = sum(values.values())
        for path in (DATA, IMPORTANCE):
            drawn = [values[each] for each in tables[path]["sample_id"].to_pylist()]
            table = replace(tables[path], "importance", drawn)
            files[path] = encode(replace(table, "keep_probability", [each / total for each in drawn]))
        if name == "tiny":
            small = replace(tables[EVALUATION], "importance", [1e-9] * tables[EVALUATION].num_rows)
            files[EVALUATION] = encode(small)
        held = json.loads(change_manifest(*place, value=value))
        recipe = (WHOLE / "recipe.yaml").read_text(encoding="utf-8")
        recipe = (
            recipe.replace("neighbours: 1", "neighbours: 2")
            if name == "of-neighbours"
            else re.sub(r"constants: \[.*?\]", "constants: [1.0e-9, 1.0e-9, 1.0e-9, 1.0e-9]", recipe, flags=re.DOTALL)
        )
        files["recipe.yaml"] = recipe.encode()
        for path, content in files.items():
            held["files"][path] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files["manifest.json"] = f"{json.dumps(held, indent=1)}\n".encode()
        write_case(
            f"table-importances-{name}", "importance/: importance must be what the answers in evaluation/ give", files
        )


def not_utf8(table: pa.Table) -> pa.Table:
    """Text that is none."""
    held = [each.encode() for each in table["encoded_sha256"].to_pylist()]
    return replace(table, "encoded_sha256", pa.array([b"\xff\xfe", *held[1:]], pa.binary()).view(pa.string()))


def zeros(table: pa.Table) -> pa.Table:
    """A million rows that compress to nothing."""
    return table.take(np.zeros(1_000_000, np.int64))


def unread_zeros(table: pa.Table) -> pa.Table:
    """A column that nobody asks for, of 96 MB in a few KB."""
    many = pa.array([b"\0" * (96_000_000 // table.num_rows)] * table.num_rows, pa.binary())
    return table.append_column("news", many)


def with_features(table: pa.Table, text: str) -> pa.Table:
    """A table whose metadata tell readers of data sets something else."""
    return table.replace_schema_metadata({"huggingface": text})


_Member = tuple[tarfile.TarInfo, bytes]


def in_tar(name: str, said: str, change: Callable[[list[_Member]], list[_Member]]) -> None:
    """A case of the members of a tar."""
    with tarfile.open(WHOLE / TAR) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, held in change(members):
            info.size = len(held)
            archive.addfile(info, io.BytesIO(held))
    write_case(f"tar-{name}", rf"webdataset/train-000000\.tar: .*{said}", {TAR: stream.getvalue()})


def member(name: str, held: bytes = b"", **about: Any) -> _Member:
    """A member of a tar."""
    info = tarfile.TarInfo(name)
    for key, value in about.items():
        setattr(info, key, value)
    return info, held


def named(name: str) -> Callable[[list[_Member]], list[_Member]]:
    """Gives the first member another name."""
    return lambda members: [member(name, members[0][1]), *members[1:]]


def ending(name: str, held: bytes) -> Callable[[list[_Member]], list[_Member]]:
    """Gives the members of an ending other bytes."""
    return lambda members: [(info, held if info.name.endswith(name) else had) for info, had in members]


def in_header(name: str, said: str, **about: Any) -> None:
    """A case of a header that says what no archiver would write, before all members."""
    info = tarfile.TarInfo(f"{'0' * 64}.png")
    for key, value in about.items():
        setattr(info, key, value)
    header = info.tobuf(tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT)
    write_case(f"tar-{name}", rf"webdataset/train-000000\.tar: .*{said}", {TAR: header + (WHOLE / TAR).read_bytes()})


def make_tars() -> None:
    """Cases of the tar."""
    whole = (WHOLE / TAR).read_bytes()
    plain = "must be a plain file"
    in_tar("leaves", r"the member '\.\./x\.png' must be named by a sample id", named("../x.png"))
    in_tar("absolute", "must be named by a sample id", named("/etc/x.png"))
    in_tar("symlink", plain, lambda m: [member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), *m])
    in_tar("hardlink", plain, lambda m: [member("x", type=tarfile.LNKTYPE, linkname="/etc/passwd"), *m])
    in_tar("device", plain, lambda m: [member("x", type=tarfile.BLKTYPE), *m])
    in_tar("pipe", plain, lambda m: [member("x", type=tarfile.FIFOTYPE), *m])
    in_tar("folder", plain, lambda m: [member("x", type=tarfile.DIRTYPE), *m])
    in_tar("folder-after-all", plain, lambda m: [*m, member("x", type=tarfile.DIRTYPE)])
    in_header("sparse", plain, type=tarfile.GNUTYPE_SPARSE)
    in_header("sparse-of-pax", plain, pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "99999999999"})
    in_tar("member-twice", "must stand once", lambda m: [m[0], *m])
    in_tar("order", "must come next, as in data", lambda m: [*m[3:6], *m[:3], *m[6:]])
    in_tar("image", "must have the image and label that data has", ending(".png", picture(8)))
    in_tar("cls", "must have the image and label that data has", ending(".cls", b"77"))
    in_tar("json", "must hold the other columns of its row", ending(".json", b"{}"))
    in_tar("json-key-twice", "the key 'a' stands twice", ending(".json", b'{"a": 1, "a": 2}'))
    in_tar("json-deep", "", ending(".json", b"[" * 3_000))
    in_tar(
        "sample-more",
        "it holds more",
        lambda m: [*m, *(member(f"{'f' * 64}.{end}", b"{}") for end in ("png", "cls", "json"))],
    )
    in_tar("sample-less", "must hold every sample of data", lambda m: m[:-3])
    in_tar("part-of-a-sample", "the last sample must have three members", lambda m: m[:-1])
    write_case("tar-gz", r"webdataset/train-000000\.tar", {TAR: gzip.compress(whole, mtime=0)})
    write_case("tar-empty", r"webdataset/train-000000\.tar", {TAR: b""})
    write_case("tar-zeros", r"webdataset/train-000000\.tar", {TAR: b"\0" * 100})
    write_case("tar-truncated", r"webdataset/train-000000\.tar", {TAR: whole[:1300]})
    in_header("size-beyond-memory", r"says 1,000,000,000,000,000 bytes in a tar of", size=10**15)
    in_header(
        "size-beyond-memory-of-pax", r"says 1,000,000,000,000,000 bytes in a tar of", pax_headers={"size": str(10**15)}
    )
    in_header("long-name-beyond-memory", "", size=10**15, type=tarfile.GNUTYPE_LONGNAME)
    in_header("pax-header-beyond-memory", "", size=10**15, type=tarfile.XHDTYPE)
    in_header("size-beyond-integers", "", size=2**63)
    in_header("size-below-nothing", "", size=-512)


def in_card(name: str, said: str, change: Callable[[str], str]) -> None:
    """A case of the card."""
    text = (WHOLE / "README.md").read_text(encoding="utf-8")
    assert change(text) != text, name
    write_case(f"card-{name}", rf"README\.md:.*{said}", {"README.md": change(text).encode()})


def above(line: str) -> Callable[[str], str]:
    """Puts lines into the block of YAML."""
    return lambda text: text.replace("---\n", f"---\n{line}\n", 1)


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
)
TAG = "a: !!python/object/apply:os.system [ls]"


def make_cards() -> None:
    """Cases of the card."""
    in_card("script", r"must be plain Markdown, line \d+ holds HTML", lambda text: text + "<script>alert(1)</script>\n")
    in_card(
        "onerror", r"must be plain Markdown, line \d+ holds HTML", lambda text: text + "<img src=x onerror=alert(1)>\n"
    )
    in_card(
        "ontoggle",
        r"must be plain Markdown, line \d+ holds HTML",
        lambda text: text + "<details open ontoggle=alert(1)>\n",
    )
    in_card(
        "hidden-in-summary",
        r"must be plain Markdown, line \d+ holds HTML",
        lambda text: text + "<scr<summary>ipt>alert(1)\n",
    )
    in_card("template-code", "must be plain Markdown", lambda text: text + "{{ config }}\n")
    in_card("escape", "holds control characters", lambda text: text + "\x1b[2J\n")
    in_card("turned-text", "holds characters that turn", lambda text: text + "a\u202eb\n")
    in_card(
        "another-data-set",
        "configs must name this proxy's own tables",
        lambda text: text.replace("data/train-*", "hf://datasets/a/b/*"),
    )
    in_card(
        "another-folder",
        "configs must name this proxy's own tables",
        lambda text: text.replace("data/train-*", "../other/*"),
    )
    in_card(
        "another-licence",
        "license must be the manifest's, unknown, it is 'mit'",
        lambda text: text.replace("license: unknown", "license: mit"),
    )
    in_card(
        "no-front-matter",
        "must begin with the block of YAML",
        lambda text: text.partition("---\n")[2].partition("---\n")[2],
    )
    in_card("address-of-a-script", "must be plain Markdown", lambda text: text + "[x](javascript:alert(1))\n")
    in_card("carriage-return", "holds control characters", lambda text: text + "a\rb\x85\n")
    in_card("dataset-info", "configs must name this proxy's own tables", above("dataset_info: {}"))
    in_card("html-above", "must begin with plain YAML", above("x: <script>"))
    in_card(
        "yaml-deep",
        "must be 50 levels deep at most",
        above("x: " + "[" * 30_000 + "]" * 30_000),
    )
    in_card("yaml-line-separators", "odd line breaks", above("#\u2028" * 4_000))
    in_card("key-twice", "a key must stand once", above("license: mit"))
    in_card("alias-bomb", "must not use aliases", above(BOMB))
    in_card("tag", "must not use tags", above(TAG))


def make_recipes() -> None:
    """Cases of the recipe."""
    for name, text, said in (
        ("source-of-this-machine", "source: {kind: folder, path: /etc}\n", "source.path must be a name without folders"),
        ("source-above", "source: {kind: folder, path: ../x}\n", "source.path must be a name without folders"),
        ("source-of-windows", "source: {kind: folder, path: 'C:\\x'}\n", "source.path must be a name without folders"),
        ("source-a-list", "source: {kind: folder, path: [/etc]}\n", "source.path must be a name without folders"),
        ("source-at-home", "source: {kind: folder, path: '~'}\n", "source.path must be a name without folders"),
        ("source-of-dots", "source: {kind: folder, path: ..}\n", "source.path must be a name without folders"),
        ("scalar-that-ruamel-falls-over", "a: 0x_\n", "not valid YAML"),
        ("reference-at-home", "check: {reference: {path: ~/x}}\n", r"check\.reference\.path must be a name"),
        ("alias-bomb", BOMB + "\n", "must not use aliases"),
        ("tag", TAG + "\n", "must not use tags"),
        ("list", "- a\n", "must be a mapping"),
        ("text", "a\n", "must be a mapping"),
        ("line-separators", "a: 1\n" + "#\u2028" * 4_000, "must have line feeds between lines"),
        ("next-lines", "a: 1\n" + "#\x85" * 4_000, "must have line feeds between lines"),
        ("deep", "a: " + "[" * 30_000 + "]" * 30_000 + "\n", "must be 50 levels deep at most"),
        ("key-twice", "a: 1\na: 2\n", "a key must stand once"),
    ):  # fmt: skip
        write_case(f"recipe-{name}", rf"recipe\.yaml.*{said}", {"recipe.yaml": text.encode()})


if __name__ == "__main__":
    make_whole()
    shutil.rmtree(CASES, ignore_errors=True)
    for make in (make_manifests, make_tables, make_tars, make_cards, make_recipes):
        make()
