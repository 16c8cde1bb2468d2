"""Cells of NAS-Bench-201 (Dong and Yang 2020): the field's strings, which of them reach the output, what their cost is the sum of.

A cell has four nodes. Node 0 is its input, node 3 its output, and every node sums what its edges from earlier nodes carry:
`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|` holds the edges into node 1, into node 2, into node 3, each with the node it comes from.
Free of torch: `nasbench201.py` builds the networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from functools import cache
from itertools import product

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CONVOLUTIONS = ("nor_conv_1x1", "nor_conv_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From which node to which, in the order of the string."""

Cell = tuple[str, ...]
"""The operation of each edge."""


def write_cell(cell: Cell) -> str:
    """Writes a cell as the field does."""
    into = [[f"{op}~{a}" for op, (a, b) in zip(cell, EDGES, strict=True) if b == node] for node in (1, 2, 3)]
    return "+".join(f"|{'|'.join(edges)}|" for edges in into)


@cache
def read_cell(text: str) -> Cell:
    """Reads an architecture string.

    Raises:
        ValueError: It is off the grammar; says where.
    """
    form = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
    nodes = text.split("+")
    if len(nodes) != 3:
        raise ValueError(f"must read {form}, three nodes joined by +; it has {len(nodes)}")
    cell = []
    for node, edges in enumerate(nodes, 1):
        if not (edges.startswith("|") and edges.endswith("|") and len(edges) > 1) or len(edges.split("|")) != node + 2:
            raise ValueError(f"must read {form}; node {node} must have {node} edges between bars, it reads {edges!r}")
        for place, edge in enumerate(edges[1:-1].split("|")):
            operation, _, start = edge.partition("~")
            if start != str(place) or operation not in OPERATIONS:
                raise ValueError(
                    f"must read {form}; edge {place + 1} of node {node} must be one of {', '.join(OPERATIONS)} and then ~{place}, "
                    f"it reads {edge!r}"
                )
            cell.append(operation)
    return tuple(cell)


@cache
def list_cells() -> tuple[str, ...]:
    """Lists all 15,625 cells, in a fixed order."""
    return tuple(write_cell(cell) for cell in product(OPERATIONS, repeat=len(EDGES)))


def reaches_output(cell: Cell) -> bool:
    """Says whether a path leads from the input to the output."""
    return 0 in _nodes_to_output(cell)


def count_parts(cell: Cell) -> dict[Hashable, int]:
    """Counts what a cell's cost is the sum of: convolutions by kind, and by what they cost backward.

    Every edge is computed forward, as in the benchmark. Backward a convolution costs nothing where its node leads nowhere, its
    weights' gradient alone where nothing before it is learnt, else also its input's. In a cell without a path from input to
    output nothing before the last such cell is learnt, so that the network's other cells cost nothing backward.

    Returns:
        How many there are of each part; `True` or `False`, once, says whether a path leads to the output.
    """
    leads = _nodes_to_output(cell)
    is_connected = 0 in leads
    learnt = _learnt_nodes(cell, {0} if is_connected else set())
    parts = Counter[Hashable]({is_connected: 1})
    for operation, (start, end) in zip(cell, EDGES, strict=True):
        if operation in CONVOLUTIONS:
            parts[is_connected, operation, end in leads, end in leads and start in learnt] += 1
    return parts


def _nodes_to_output(cell: Cell) -> set[int]:
    """Finds the nodes from which a path leads to the output."""
    leads = {3}
    for operation, (start, end) in reversed(list(zip(cell, EDGES, strict=True))):
        if operation != "none" and end in leads:
            leads.add(start)
    return leads


def _learnt_nodes(cell: Cell, before: set[int]) -> set[int]:
    """Finds the nodes whose value depends on weights: `before` on those of the network before the cell, others on the cell's own."""
    learnt = set(before)
    for operation, (start, end) in zip(cell, EDGES, strict=True):
        if operation in CONVOLUTIONS or (operation != "none" and start in learnt):
            learnt.add(end)
    return learnt
