"""Builds shipped recipes and keeps their cards, with what weighs them again without training: `make cards CARDS="digits ..."`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

import proxyds
from proxyds.artifact.evidence_records import EvidenceRecord
from proxyds.artifact.manifest import CARD, INDEXES, MANIFEST, RECIPE, RUNS_FILE
from proxyds.evaluation.evidence import Provenance, weigh_evidence
from proxyds.recipe.models import Check

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "cards"
RUNS = "ranking.parquet"
"""A card's table of runs."""


def keep_card(proxy: Path, card: Path) -> None:
    """Replaces a card by that of a proxy: its page, its pictures, its table of runs, and what `proxyds apply` makes the proxy from."""
    proxyds.verify_proxy(proxy)
    if card.exists():
        shutil.rmtree(card)
    card.mkdir(parents=True)
    indexes = [name for name in INDEXES.values() if (proxy / name).exists()]
    for name in (CARD, MANIFEST, RECIPE, *indexes):
        shutil.copy(proxy / name, card / name)
    shutil.copytree(proxy / "assets", card / "assets")
    shutil.copy(proxy / RUNS_FILE, card / RUNS)


def weigh_again(card: Path) -> tuple[EvidenceRecord, EvidenceRecord]:
    """Weighs the runs that a card keeps; returns what its manifest says, and what they give now."""
    manifest = proxyds.read_manifest(card)
    said = manifest.evidence
    assert said is not None
    table = pq.read_table(card / RUNS)
    planned = sorted({*table["architecture"].to_pylist(), *said.left_out})
    provenance = Provenance(planned, said.runs, said.reference, said.failures, said.elapsed_seconds, said.machine)
    return said, weigh_evidence(table, Check.model_validate(said.check.model_dump()), provenance, manifest)


def main() -> None:
    """Builds and checks recipes, what is stored of them being taken from the store, and keeps their cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cards", nargs="+", help="folders of cards/, named as the recipes are")
    for name in parser.parse_args().cards:
        with tempfile.TemporaryDirectory(prefix="proxyds-card-") as folder:
            built = proxyds.build(ROOT / "recipes" / f"{name}.yaml", Path(folder) / name)
            keep_card(built.folder, CARDS / name)
        evidence = built.manifest.evidence
        print(f"{name}: {evidence.verdict if evidence else 'not checked'}")


if __name__ == "__main__":
    main()
