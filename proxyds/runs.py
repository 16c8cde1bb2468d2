"""The table `ranking`: one row for each training and test behind the evidence. `FORMAT.md` says what a column means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from proxyds.records import Architecture

FULL, PROXY, RANDOM, STRATIFIED, FEWER_EPOCHS = "full", "proxy", "random", "stratified", "fewer-epochs"
DATASETS = {
    FULL: "everything that may be drawn",
    PROXY: "the proxy, or another draw of it",
    RANDOM: "as many samples, every one with the same chance",
    STRATIFIED: "as many samples, the same share of every label",
    FEWER_EPOCHS: "everything, for as many steps as the proxy takes",
}
"""What architectures are trained on, by the name that the table `ranking` uses."""


COLUMNS = pa.schema(
    [
        ("architecture", pa.string()),
        ("network", pa.string()),
        ("parameters", pa.string()),
        ("forward_flops", pa.int64()),
        ("training_flops", pa.int64()),
        ("n_parameters", pa.int64()),
        ("dataset", pa.string()),
        ("ratio", pa.float64()),
        ("draw_seed", pa.int64()),
        ("training_seed", pa.int64()),
        ("n_samples", pa.int64()),
        ("n_steps", pa.int64()),
        ("n_epochs", pa.float64()),
        ("run_flops", pa.int64()),
        ("accuracy", pa.float64()),
        ("training_seconds", pa.float64()),
        ("test_seconds", pa.float64()),
        ("device", pa.string()),
        ("origin", pa.string()),
    ]
)


def about_architecture(architecture: Architecture) -> dict[str, Any]:
    """An architecture's columns."""
    return {
        "architecture": architecture.name,
        "network": architecture.network,
        "parameters": parameters_text(architecture),
        "forward_flops": architecture.forward_flops,
        "training_flops": architecture.training_flops,
        "n_parameters": architecture.n_parameters,
    }


def parameters_text(architecture: Architecture) -> str:
    """An architecture's parameters as JSON, keys sorted: the same text for the same network."""
    return json.dumps(architecture.parameters, sort_keys=True)


def make_runs_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Puts rows into their one order, whatever order the runs ended in; a column that a row lacks is null."""
    order = list(DATASETS)

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        of_set = (order.index(row["dataset"]), row["ratio"], row.get("draw_seed") or 0, row["training_seed"])
        return (*of_set, row["training_flops"], row["n_parameters"], row["architecture"])

    return pa.Table.from_pylist(sorted(rows, key=place), schema=COLUMNS)
