"""A proxy written by hand from docs/format.md alone: nothing of proxyds is imported here."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

LABELS = ["cat", "dog", "owl"]
N_TRAIN, N_EVALUATION, N_PROXY = 24, 9, 6
CONSTANTS = [2.0, 1.0, 6.0, 1.0]

CARD = """\
---
license: cc0-1.0
configs:
- config_name: default
  default: true
  data_files: [SPLITS]
- config_name: importance
  data_files: [{split: train, path: importance/train-*.parquet}]
- config_name: evaluation
  data_files: [{split: evaluation, path: evaluation/evaluation-*.parquet}]
---

# A proxy by hand
"""
OWN_SPLITS = {
    "1.3": "{split: train, path: data/train-*.parquet}",
    "2.0": "{split: train, path: data/train-*.parquet}, {split: validation, path: data/validation-*.parquet}",
}
INDEX_COLUMNS = [
    *("sample_id", "split", "source_index", "label", "case", "importance"),
    *("weight", "keep_probability", "inclusion_probability"),
]
RECIPE = "name: by-hand\nspace: {network: resnet, choices: {depth: [8, 14]}}\n"

CLASS_LABEL = {"names": LABELS, "_type": "ClassLabel"}
FEATURES: dict[str, dict[str, Any]] = {
    name: {"dtype": dtype, "_type": "Value"}
    for dtype, names in {
        "string": ("sample_id", "encoded_sha256", "nearest_evaluation_id"),
        "int64": ("source_index", "pairs_all_right", "pairs_all_wrong", "pairs_with_order", "pairs_against_order"),
        "int8": ("case",),
        "float64": ("importance", "keep_probability", "inclusion_probability", "nearest_distance"),
        "bool": ("selected",),
    }.items()
    for name in names
} | {
    "label": CLASS_LABEL,
    "image": {"_type": "Image"},
    "predicted": {"feature": CLASS_LABEL, "_type": "List"},
    "correct": {"feature": {"dtype": "bool", "_type": "Value"}, "_type": "List"},
}
TYPES = {
    "label": pa.int64(),
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "predicted": pa.list_(pa.int64()),
    "correct": pa.list_(pa.bool_()),
}


def write_proxy(folder: Path, version: str = "2.0") -> None:
    """Writes a proxy of six 8x8 grey images, two probes, no evidence; of 2.0 with samples to rank on, of 1.3 without."""
    rng = np.random.default_rng(0)
    train, evaluation = draw_samples(rng, N_TRAIN), draw_samples(rng, N_EVALUATION)
    for i, sample in enumerate(evaluation):
        predicted = [(sample["label"] + i % 2) % 3, (sample["label"] + i // 4) % 3]  # the first right if even
        right = [each == sample["label"] for each in predicted]
        case = 1 if all(right) else 2 if not any(right) else 3 if right[0] else 4  # 5 of 9 are right, and 4
        pairs = [int(case == each) for each in (1, 2, 3, 4)]
        names = ("pairs_all_right", "pairs_all_wrong", "pairs_with_order", "pairs_against_order")
        sample |= {"predicted": predicted, "correct": right, **dict(zip(names, pairs, strict=True))}
        sample |= {"case": case, "importance": CONSTANTS[case - 1]}
    for i, sample in enumerate(train):
        nearest = evaluation[i % N_EVALUATION]
        sample |= {"nearest_evaluation_id": nearest["sample_id"], "nearest_distance": i / 10}
        sample |= {"case": nearest["case"], "importance": nearest["importance"], "selected": i % 4 == 0}
        sample |= {"inclusion_probability": None}
    total = sum(sample["importance"] for sample in train)
    for sample in train:
        sample["keep_probability"] = sample["importance"] / total
    common = ["label", "sample_id", "source_index", "encoded_sha256", "case", "importance"]
    drawn = ["keep_probability", "inclusion_probability"]
    chosen = [sample for sample in train if sample["selected"]]
    write_table(folder / "data" / "train-00000-of-00001.parquet", chosen, ["image", *common, *drawn])
    nearest_columns = ["nearest_evaluation_id", "nearest_distance", "selected"]
    write_table(folder / "importance" / "train-00000-of-00001.parquet", train, [*common, *drawn, *nearest_columns])
    outcome = ["predicted", "correct", *[name for name in FEATURES if name.startswith("pairs_")]]
    write_table(folder / "evaluation" / "evaluation-00000-of-00001.parquet", evaluation, [*common, *outcome])
    write_tar(folder / "webdataset" / "train-000000.tar", chosen, [*common, *drawn])
    if version == "2.0":
        held = [sample | dict.fromkeys(drawn) for sample in evaluation]
        write_table(folder / "data" / "validation-00000-of-00001.parquet", held, ["image", *common, *drawn])
        write_tar(folder / "webdataset" / "validation-000000.tar", held, [*common, *drawn])
        write_index(folder / "indices.csv", [sample | {"weight": sample["importance"]} for sample in chosen])
        write_index(folder / "validation.csv", held)
    (folder / "README.md").write_text(CARD.replace("SPLITS", OWN_SPLITS[version]))
    (folder / "recipe.yaml").write_text(RECIPE)
    write_manifest(folder, version)


def draw_samples(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Random images of the labels in turn, in the order of their ids."""
    samples = []
    for i in range(n):
        pixels, label = rng.integers(0, 256, (8, 8), np.uint8), i % 3
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        sample_id = hashlib.sha256(f"L 8x8 {LABELS[label]}\n".encode() + pixels.tobytes()).hexdigest()
        encoded = stream.getvalue()
        about = {"label": label, "sample_id": sample_id, "source_index": i, "image": {"bytes": encoded, "path": None}}
        samples.append({**about, "encoded_sha256": hashlib.sha256(encoded).hexdigest()})
    return sorted(samples, key=lambda sample: str(sample["sample_id"]))


def write_table(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    types = [TYPES.get(name) or pa.type_for_alias(FEATURES[name]["dtype"]) for name in columns]
    arrays = [pa.array([row[name] for row in rows], kind) for name, kind in zip(columns, types, strict=True)]
    info = json.dumps({"info": {"features": {name: FEATURES[name] for name in columns}}})
    schema = pa.schema(list(zip(columns, types, strict=True)), {"huggingface": info})
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def write_tar(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for row in rows:
            about = {"label_name": LABELS[row["label"]], **{name: row[name] for name in columns if name != "label"}}
            members = {
                "png": row["image"]["bytes"],
                "cls": str(row["label"]).encode(),
                "json": json.dumps(about).encode(),
            }
            for ending, held in members.items():
                member = tarfile.TarInfo(f"{row['sample_id']}.{ending}")
                member.size = len(held)
                archive.addfile(member, io.BytesIO(held))


def write_index(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [",".join(INDEX_COLUMNS)]
    for row in rows:
        cells = row | {"split": "train", "label": LABELS[row["label"]]}
        values = [cells.get(name) for name in INDEX_COLUMNS]
        lines.append(",".join("" if value is None else str(value) for value in values))
    path.write_text("".join(f"{line}\n" for line in lines))


def write_manifest(folder: Path, version: str) -> None:
    def probe(name: str, flops: int, accuracy: float) -> dict[str, Any]:
        return {
            "name": name,
            "network": "resnet",
            "parameters": {},
            "forward_flops": flops,
            "training_flops_per_sample": 3 * flops,
            "n_parameters": 10,
            "accuracy": accuracy,
            "losses": [1.0, 0.5],
            "training_seconds": 1.0,
            "training_flops": 100 * flops,
        }

    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": "proxyds",
        "format_version": version,
        "name": "by-hand",
        "version": "1.0.0",
        "licence": "cc0-1.0",
        "recipe_sha256": hashlib.sha256(b"a recipe").hexdigest(),
        "protocol": "validation",
        "seed": 0,
        "label_names": LABELS,
        "image_shape": [1, 8, 8],
        "counts": {"train": N_TRAIN, "evaluation": N_EVALUATION, "test": 10, "proxy": N_PROXY}
        | ({"validation": N_EVALUATION} if version == "2.0" else {}),
        "source": {
            "name": "noise",
            "revision": None,
            "kind": "by hand",
            "is_local_copy": False,
            "fingerprint": hashlib.sha256(b"a source").hexdigest(),
            "n_samples": {"train": N_TRAIN},
            "n_duplicates": {"train": 0},
            "n_shared": 0,
            "bad_images": [],
            "evaluation_from": "drawn",
            "test_from": "drawn",
        },
        "space": {
            "network": "resnet",
            "n_architectures": 2,
            "lightest_training_flops": 30,
            "heaviest_training_flops": 60,
        },
        "probes": [probe("light", 10, 5 / 9), probe("heavy", 20, 4 / 9)],
        "mapping": {
            "layer": "stages.2",
            "metric": "euclidean",
            "neighbours": 1,
            "n_dimensions": 4,
            "explained_variance": 0.9,
        },
        "draw": {"law": "by hand", "ratio": 0.25, "constants": CONSTANTS},
        "stages": [],
        "machine": {"device": "cpu", "processor": "a hand", "n_cores": 1, "python": "3.11", "libraries": {}},
        "created": "2026-11-25T00:00:00+00:00",
        "gallery": False,
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
