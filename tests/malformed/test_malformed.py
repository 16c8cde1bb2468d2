"""Hostile proxies: one hostile file a test, each refused with a message that names it. The rest of the proxy is whole and signed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from proxyds.audit import audit_proxy
from proxyds.errors import ProxydsError

DATA = "data/train-00000-of-00001.parquet"
IMPORTANCE = "importance/train-00000-of-00001.parquet"
EVALUATION = "evaluation/evaluation-00000-of-00001.parquet"
TAR = "webdataset/train-000000.tar"


@pytest.fixture
def proxy(tiny_proxy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_proxy, tmp_path / "proxy"))


def sign(proxy: Path) -> None:
    """Makes the manifest tell the truth about the files that it lists."""
    path = proxy / "manifest.json"
    held = json.loads(path.read_text())
    for name in held["files"]:
        content = (proxy / name).read_bytes()
        held["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(held))


def refuse(proxy: Path, said: str) -> None:
    before = sorted(proxy.parent.rglob("*"))
    with pytest.raises(ProxydsError, match=said):
        audit_proxy(proxy)
    assert sorted(proxy.parent.rglob("*")) == before


def test_what_the_cases_start_from_is_taken(proxy: Path) -> None:
    sign(proxy)
    audit_proxy(proxy)


# The manifest


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(held: dict[str, Any]) -> None:
        inner: Any = held
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


def list_file(name: str) -> Callable[[dict[str, Any]], None]:
    return put("files", name, value={"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()})


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an unknown version": (put("format_version", value="2.0"), r"format_version must be 1\.x, got '2\.0'"),
    "a version that is no number": (put("format_version", value="1.x\x1b"), r"format_version must be 1\.x"),
    "a version that is no text": (put("format_version", value=1.3), "names no format and format_version"),
    "an absolute path": (list_file("/etc/passwd.md"), "files: '/etc/passwd.md' must be a path inside"),
    "a path that leaves": (list_file("../x.md"), r"files: '\.\./x\.md' must be a path inside"),
    "a path that leaves within": (list_file("data/../../x.md"), "must be a path inside the folder"),
    "a backslash": (list_file("data\\x.md"), "must be a path inside the folder"),
    "a hidden file": (list_file(".git/config.md"), "must be a path inside the folder"),
    "names that differ by capitals": (list_file("readme.md"), "must differ by more than capitals"),
    "a table that nobody looks into": (list_file("data/train-evil.parquet"), "must be a kind of file"),
    "another description": (list_file("dataset_infos.json"), "must be a kind of file"),
    "a program": (list_file("load.py"), "'load.py' must be a kind of file that a proxy holds"),
    "a pickle": (list_file("weights.pkl"), "'weights.pkl' must be a kind of file"),
    "itself": (list_file("manifest.json"), "and not the manifest"),
    "a file below a file": (list_file("README.md/x.md"), "must not lie below another file"),
    "no card": (lambda held: held["files"].pop("README.md"), "README.md must be among them"),
    "no data": (lambda held: held["files"].pop(DATA), "data/ must hold parquet files"),
    "evidence without its runs": (list_file("ranking/ranking-00000-of-00001.parquet"), "ranking/ must not hold"),
    "a size that lies": (put("files", DATA, "bytes", value=10), r"must have 10 bytes, has"),
    "a size below nothing": (put("files", DATA, "bytes", value=-1), "files.*bytes: Input should be greater"),
    "a hash of something else": (put("files", DATA, "sha256", value="0" * 64), "its bytes have changed"),
    "a hash that is none": (put("files", DATA, "sha256", value="x"), "sha256: String should match"),
    "HTML in a label": (put("label_names", 0, value="<script>alert(1)</script>"), "'label_names.0' must be plain text, it holds HTML"),
    "HTML in a key": (put("space", "shared_parameters", value={"<img src=x>": 1}), "must be plain text, it holds HTML"),
    "template code in the source's name": (put("source", "name", value="{{ 7 * 7 }}"), "'source.name' must be plain text"),
    "a script's address": (put("licence", value="JavaScript:alert(1)"), "'licence' must be plain text"),
    "control characters": (put("name", value="a\x1b[2Jb"), "'name' must be plain text, it holds control"),
    "turned text": (put("name", value="a\u202eb"), "it holds characters that turn the order"),
    "half a surrogate": (put("name", value="a\ud800b"), "it holds control characters"),
    "a very long text": (put("name", value="a" * 10_001), "must have 10,000 letters at most"),
    "counts that lie": (put("counts", "train", value=9), "rows, more than the 9 that manifest.json leaves"),
    "more counts than rows": (put("counts", "evaluation", value=900_000), "the tables must be those that manifest.json"),
    "other label names": (put("label_names", value=["a", "b"]), "its features must name the labels as manifest"),
    "kept labels without a reduction": (put("kept_labels", value=[0, 1]), "kept_labels and draw.labels must both"),
    "an enormous shape": (put("image_shape", value=[3, 10**6, 10**6]), "image_shape.1: Input should be less"),
    "a probe less": (lambda held: held["probes"].append(held["probes"][0]), "column predicted of evaluation must be"),
    "another licence than the card": (put("licence", value="mit"), "license must be the manifest's, mit"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest(change: Callable[[dict[str, Any]], Any], said: str, proxy: Path) -> None:
    held = json.loads((proxy / "manifest.json").read_text())
    change(held)
    (proxy / "manifest.json").write_text(json.dumps(held))
    refuse(proxy, f"manifest.json.*{said}|{said}")


TEXTS: dict[str, tuple[Callable[[str], str], str]] = {
    "a key twice": (lambda text: text.replace('"name":', '"name": "x", "name":', 1), "must be JSON: the key 'name' stands twice"),
    "a key twice within": (lambda text: text.replace('"train":', '"train": 1, "train":', 1), "the key 'train' stands twice"),
    "no number": (lambda text: re.sub(r'"accuracy": [\d.]+', '"accuracy": NaN', text, count=1), "NaN is no number"),
    "no end": (lambda text: re.sub(r'"accuracy": [\d.]+', '"accuracy": 1e999', text, count=1), "manifest.json"),
    "too deep": (lambda text: "[" * 200_000, "must be JSON"),
    "too many digits": (lambda text: re.sub(r'"seed": \d+', f'"seed": {"9" * 5000}', text), "manifest.json"),
    "too large": (lambda text: text + " " * 8_000_001, "must have 8,000,000 bytes at most"),
    "nothing": (lambda text: "", "must be JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), TEXTS.values(), ids=TEXTS)
def test_a_manifests_text(change: Callable[[str], str], said: str, proxy: Path) -> None:
    path = proxy / "manifest.json"
    path.write_text(change(path.read_text()))
    refuse(proxy, said)


# The tables


def column(name: str, values: Callable[[list[Any]], Any], kind: pa.DataType | None = None):
    """Changes a column's values."""

    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        found = pa.array(values(table[name].to_pylist()), kind or table.schema.field(name).type)
        return table.set_column(place, name, found)

    return change


def cell(name: str, value: Any, row: int = 1):
    return column(name, lambda values: [*values[:row], value, *values[row + 1 :]])


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def image(held: bytes | None):
    """Puts other bytes into an image, with their own sha256."""

    def change(table: pa.Table) -> pa.Table:
        sha256 = hashlib.sha256(held or b"").hexdigest()
        return cell("encoded_sha256", sha256)(cell("image", {"bytes": held, "path": None})(table))

    return change


TABLES: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "a column less": (IMPORTANCE, lambda t: t.drop_columns(["case"]), "must have the column case once, it has it 0 times"),
    "a column twice": (IMPORTANCE, lambda t: t.append_column("case", t["case"]), "the column case once, it has it 2"),
    "labels in words": (IMPORTANCE, column("label", lambda v: [str(x) for x in v], pa.string()), "must hold int64, it holds"),
    "no label": (IMPORTANCE, cell("label", None), "the column label must have a value"),
    "a label beyond the names": (IMPORTANCE, cell("label", 99), "the column label of importance"),
    "an id that is none": (IMPORTANCE, cell("sample_id", "../../x"), "the column sample_id of importance"),
    "an id twice": (EVALUATION, lambda t: cell("sample_id", t["sample_id"][0].as_py())(t), "the column sample_id of evaluation"),
    "another order": (IMPORTANCE, lambda t: t.take(np.arange(t.num_rows)[::-1]), "the column sample_id of importance"),
    "a case of its own": (IMPORTANCE, cell("case", 9), "the column case of importance"),
    "importance that is no number": (IMPORTANCE, cell("importance", float("nan")), "of importance must be as"),
    "importance below nothing": (IMPORTANCE, cell("importance", -1.0), "of importance must be as"),
    "another keep probability": (IMPORTANCE, cell("keep_probability", 0.5), "the column keep_probability"),
    "a chance above 1": (IMPORTANCE, cell("inclusion_probability", 1.5), "the column inclusion_probability"),
    "a neighbour that is not there": (IMPORTANCE, cell("nearest_evaluation_id", "0" * 64), "nearest_evaluation_id"),
    "another selection": (IMPORTANCE, column("selected", lambda v: v[1:] + v[:1]), "must select the very samples of data"),
    "one answer too many": (EVALUATION, cell("predicted", [0, 0, 0]), "the column predicted of evaluation|says .* values"),
    "an answer that is missing": (EVALUATION, cell("predicted", [0, None]), "the column predicted of evaluation"),
    "a path beside an image": (DATA, column("image", lambda v: [{**x, "path": "/etc/passwd"} for x in v]), "the column image of data"),
    "answers that are not right": (EVALUATION, column("correct", lambda v: [[not x for x in row] for row in v]), "the column correct"),
    "other values in data": (DATA, cell("importance", 3.25), "importance must select the very samples of data"),
    "no image": (DATA, cell("image", {"bytes": None, "path": None}), "the column image of data"),
    "an image of other bytes": (DATA, cell("image", {"bytes": png(8, 8), "path": None}), "bytes of its encoded_sha256"),
    "no image format": (DATA, image(b"GIF89a"), "image 1 must be an image"),
    "a program for Ghostscript": (DATA, image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"), "image 1 must be an image: cannot identify"),
    "a picture that is a bomb": (DATA, image(png(9_000, 9_000)), "9,000 x 9,000 pixels"),
    "a dictionary that is a bomb": (DATA, column("image", lambda v: [{"bytes": b"x" * 2_000_000, "path": None}] * len(v)), "a decompression bomb"),
    "text that is a bomb": (IMPORTANCE, column("sample_id", lambda v: ["0" * 1_000_000] * len(v)), "a decompression bomb|sample_id"),
    "a million rows": (IMPORTANCE, lambda t: t.take(np.zeros(1_000_000, np.int64)), "more than the 1,295 that manifest.json"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change", "said"), TABLES.values(), ids=TABLES)
def test_a_table(name: str, change: Callable[[pa.Table], pa.Table], said: str, proxy: Path) -> None:
    changed = change(pq.read_table(proxy / name))
    pq.write_table(changed, proxy / name, compression="zstd")
    if name == DATA:  # the table of all samples knows these bytes too
        sums = dict(zip(changed["sample_id"].to_pylist(), changed["encoded_sha256"].to_pylist(), strict=True))
        table = pq.read_table(proxy / IMPORTANCE)
        known = [
            sums.get(each, had)
            for each, had in zip(*(table[c].to_pylist() for c in ("sample_id", "encoded_sha256")), strict=True)
        ]
        pq.write_table(column("encoded_sha256", lambda _: known)(table), proxy / IMPORTANCE)
    sign(proxy)
    refuse(proxy, said)


def test_rows_without_bytes_are_a_bomb(proxy: Path) -> None:
    table = pq.read_table(proxy / EVALUATION)
    pq.write_table(table.take(np.zeros(100_000, np.int64)), proxy / EVALUATION, compression="zstd")
    held = json.loads((proxy / "manifest.json").read_text())
    held["counts"]["evaluation"] = 100_000
    (proxy / "manifest.json").write_text(json.dumps(held))
    sign(proxy)
    refuse(proxy, r"says 100,000 rows in [\d,]+ bytes: a decompression bomb")


def test_a_shape_that_unfolds_in_memory_is_refused(proxy: Path) -> None:
    import proxyds

    held = json.loads((proxy / "manifest.json").read_text())
    held["image_shape"] = [1, 4096, 4096]
    (proxy / "manifest.json").write_text(json.dumps(held))
    with pytest.raises(ProxydsError, match="image_shape must be one that its images can have"):
        proxyds.torch_dataset(proxy)


# Tars


def member(name: str, held: bytes = b"", **about: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(held)
    for key, value in about.items():
        setattr(info, key, value)
    return info, held


def rewrite_tar(path: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], Any]) -> None:
    with tarfile.open(path) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    changed = change(members) or members
    with tarfile.open(path, "w") as archive:
        for info, held in changed:
            info.size = len(held)
            archive.addfile(info, io.BytesIO(held))


def rename(place: int, name: str):
    return lambda members: setattr(members[place][0], "name", name)


TARS: dict[str, tuple[Callable[[list[tuple[tarfile.TarInfo, bytes]]], Any], str]] = {
    "a member that leaves": (rename(0, "../x.png"), r"the member '\.\./x\.png' must be named by a sample id"),
    "a member anywhere": (rename(0, "/etc/x.png"), "must be named by a sample id"),
    "a link": (lambda m: [member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), *m], "'x' must be a plain file"),
    "a hard link": (lambda m: [member("x", type=tarfile.LNKTYPE, linkname="y"), *m], "'x' must be a plain file"),
    "a device": (lambda m: [member("x", type=tarfile.CHRTYPE), *m], "'x' must be a plain file"),
    "a folder": (lambda m: [member("x", type=tarfile.DIRTYPE), *m], "'x' must be a plain file"),
    "a pipe": (lambda m: [member("x", type=tarfile.FIFOTYPE), *m], "'x' must be a plain file"),
    "a member twice": (lambda m: [m[0], m[0], *m[1:]], "must stand once"),
    "another order": (lambda m: [*m[3:6], *m[:3], *m[6:]], "must come next, as in data"),
    "a sample less": (lambda m: m[:-3], "the tars must hold every sample"),
    "a sample more": (lambda m: [*m, *[member(f"{'f' * 64}.{end}", b"{}") for end in ("png", "cls", "json")]], "it holds more"),
    "a part of a sample": (lambda m: m[:-1], "the last sample must have three members"),
    "another image": (lambda m: [(i, png(8, 8) if i.name.endswith("png") else held) for i, held in m], "the image and label that data has"),
    "another label": (lambda m: [(i, b"77" if i.name.endswith("cls") else held) for i, held in m], "the image and label that data has"),
    "a key twice": (lambda m: [(i, b'{"a": 1, "a": 2}' if i.name.endswith("json") else held) for i, held in m], "the key 'a' stands twice"),
    "no JSON": (lambda m: [(i, b"[" * 100_000 if i.name.endswith("json") else held) for i, held in m], "train-000000.tar"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), TARS.values(), ids=TARS)
def test_a_tar(change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], Any], said: str, proxy: Path) -> None:
    rewrite_tar(proxy / TAR, change)
    sign(proxy)
    refuse(proxy, said)


@pytest.mark.parametrize("change", [gzip.compress, lambda held: held[:700], lambda held: b"\0" * 100, lambda held: b""])
def test_tar_bytes(change: Callable[[bytes], bytes], proxy: Path) -> None:
    (proxy / TAR).write_bytes(change((proxy / TAR).read_bytes()))
    sign(proxy)
    refuse(proxy, r"train-000000\.tar")


# Card and recipe


CARDS: dict[str, tuple[Callable[[str], str], str]] = {
    "a script": (lambda text: text + "<script>alert(1)</script>\n", r"README\.md: must be plain Markdown, line \d+ holds HTML"),
    "a picture that runs": (lambda text: text + "<img src=x onerror=alert(1)>\n", "must be plain Markdown"),
    "details that run": (lambda text: text + "<details ontoggle=alert(1)>\n", "must be plain Markdown"),
    "template code": (lambda text: text + "{% include '/etc/passwd' %}\n", "must be plain Markdown"),
    "a script's address": (lambda text: text + "[x](javascript:alert(1))\n", "must be plain Markdown"),
    "other data": (lambda text: text.replace("data/train-*", "hf://datasets/evil/x/*"), "configs must name this proxy's own"),
    "data above": (lambda text: text.replace("data/train-*", "../*"), "configs must name this proxy's own"),
    "other names of labels": (lambda text: text.replace("---\n", "---\ndataset_info: {}\n", 1), "configs must name this proxy's own"),
    "HTML above": (lambda text: text.replace("---\n", "---\nx: <script>\n", 1), "must begin with plain YAML"),
    "a carriage return": (lambda text: text + "a\rb\x85\n", "holds control characters"),
    "no metadata": (lambda text: text.partition("---\n")[2].partition("---\n")[2], "must begin with the block of YAML"),
    "an alias": (lambda text: text.replace("---\n", "---\na: &a [x]\nb: *a\n", 1), "must not use aliases"),
    "a tag": (lambda text: text.replace("---\n", "---\na: !!python/object/apply:os.system [ls]\n", 1), "must not use tags"),
    "a key twice": (lambda text: text.replace("---\n", "---\nlicense: mit\n", 1), "a key must stand once"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CARDS.values(), ids=CARDS)
def test_a_card(change: Callable[[str], str], said: str, proxy: Path) -> None:
    (proxy / "README.md").write_bytes(change((proxy / "README.md").read_text()).encode())
    sign(proxy)
    refuse(proxy, said)


RECIPES = {
    "a path of this machine": ("source: {kind: folder, path: /etc}\n", "source.path must be a name without folders"),
    "somebody's home": ("source: {kind: folder, path: '~'}\n", "source.path must be a name without folders"),
    "a reference of this machine": ("check: {reference: {path: /etc/x}}\n", r"check\.reference\.path must be a name"),
    "a scalar that ruamel falls over": ("a: 0x_\n", "not valid YAML"),
    "a path above": ("source: {kind: folder, path: ..}\n", "source.path must be a name without folders"),
    "an alias": ("a: &a [x]\nb: *a\n", "must not use aliases"),
    "a tag": ("a: !!python/object/apply:os.system [ls]\n", "must not use tags"),
    "a list": ("- a\n", "must be a mapping"),
}


@pytest.mark.parametrize(("text", "said"), RECIPES.values(), ids=RECIPES)
def test_a_recipe(text: str, said: str, proxy: Path) -> None:
    (proxy / "recipe.yaml").write_text(text)
    sign(proxy)
    refuse(proxy, f"recipe.yaml.*{said}")


@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "manifest.json"])
def test_text_that_is_not_utf8(name: str, proxy: Path) -> None:
    (proxy / name).write_bytes(b"\xff\xfe")
    if name != "manifest.json":
        sign(proxy)
    refuse(proxy, f"{name}: must be UTF-8 text")


def test_a_picture_of_the_card_that_is_a_bomb(proxy: Path) -> None:
    (proxy / "assets" / "cases.png").write_bytes(png(9_000, 9_000))
    sign(proxy)
    refuse(proxy, "cases.png: it must be an image: it has 9,000 x 9,000 pixels")


# Links and pipes


def test_a_file_that_is_a_link(proxy: Path) -> None:
    shutil.move(proxy / DATA, proxy.parent / "outside")
    (proxy / DATA).symlink_to(proxy.parent / "outside")
    refuse(proxy, f"{DATA}: must be a file inside the folder, found a link")


def test_a_folder_that_is_a_link(proxy: Path) -> None:
    shutil.move(proxy / "data", proxy.parent / "outside")
    (proxy / "data").symlink_to(proxy.parent / "outside")
    refuse(proxy, f"{DATA}: must be a file inside the folder, found a link")


def test_a_manifest_that_is_a_link(proxy: Path) -> None:
    shutil.move(proxy / "manifest.json", proxy.parent / "outside")
    (proxy / "manifest.json").symlink_to(proxy.parent / "outside")
    refuse(proxy, "manifest.json: must be a file, found a link")


@pytest.mark.timeout(20)
def test_a_manifest_that_is_a_pipe(proxy: Path) -> None:
    (proxy / "manifest.json").unlink()
    os.mkfifo(proxy / "manifest.json")
    refuse(proxy, "manifest.json: must be a file, found a pipe")


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_file(proxy: Path) -> None:
    (proxy / "recipe.yaml").unlink()
    os.mkfifo(proxy / "recipe.yaml")
    refuse(proxy, "recipe.yaml: missing")


# Evidence


CLAIMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a better tau": put("evidence", "methods", 0, "statistics", "tau", "value", value=0.5),
    "a better verdict": put("evidence", "verdict", value="not enough evidence"),
    "a gate that was never passed": put("evidence", "passed", value=True),
    "more draws": put("evidence", "n_draws", value=50),
}


@pytest.mark.parametrize("change", CLAIMS.values(), ids=CLAIMS)
def test_evidence_that_its_runs_do_not_give(
    change: Callable[[dict[str, Any]], Any], checked_proxy: Path, tmp_path: Path
) -> None:
    proxy = Path(shutil.copytree(checked_proxy, tmp_path / "proxy"))
    held = json.loads((proxy / "manifest.json").read_text())
    change(held)
    (proxy / "manifest.json").write_text(json.dumps(held))
    refuse(proxy, "manifest.json: evidence: .* must be what the runs in ranking/ give")


def test_one_key_a_thousand_times_is_found_at_once() -> None:
    from proxyds.opening import parse_json

    with pytest.raises(ValueError, match="stands twice"):
        parse_json("{" + ", ".join(f'"{i}": 0' for i in range(200_000)) + ', "7": 1}')
