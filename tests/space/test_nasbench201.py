"""NAS-Bench-201: the grammar, the networks' size by hand and as published, bounds of all 15,625 cells."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from proxyds.recipe.models import Probes, Recipe
from proxyds.selection.probe import choose_probes
from proxyds.space import listing as space
from proxyds.space.architecture import Architecture
from proxyds.space.cost import measure_cost
from proxyds.space.listing import list_architectures
from proxyds.space.networks.build import build_network
from proxyds.space.networks.cells import EDGES, OPERATIONS, list_cells, reaches_output, read_cell, write_cell

CONVOLUTIONS_ALONE = write_cell(("nor_conv_3x3",) * 6)
SKIPS_ALONE = write_cell(("skip_connect",) * 6)
MIXED = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"

# by hand, for C = 16, five cells a stage, ten labels: stem, two residual blocks of stride 2, last norm, classifier
STEM = 9 * 3 * 16 + 2 * 16
FIRST_BLOCK = 9 * 16 * 32 + 2 * 32 + 9 * 32 * 32 + 2 * 32 + 16 * 32
SECOND_BLOCK = 9 * 32 * 64 + 2 * 64 + 9 * 64 * 64 + 2 * 64 + 32 * 64
SKELETON = STEM + FIRST_BLOCK + SECOND_BLOCK + 2 * 64 + 64 * 10 + 10
EDGE_3X3 = 5 * sum(9 * width * width + 2 * width for width in (16, 32, 64))
EDGE_1X1 = 5 * sum(width * width + 2 * width for width in (16, 32, 64))
# multiply-adds at 32x32
SKELETON_MULTIPLY_ADDS = (
    32 * 32 * 9 * 3 * 16
    + 16 * 16 * (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32)
    + 8 * 8 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64)
    + 64 * 10
)
EDGE_3X3_MULTIPLY_ADDS = 5 * 9 * (32 * 32 * 16 * 16 + 16 * 16 * 32 * 32 + 8 * 8 * 64 * 64)


def measure(cell: str, **parameters: int) -> Architecture:
    return measure_cost(cell, "nasbench201", {"cell": cell, **parameters}, 10, (3, 32, 32))


@pytest.mark.parametrize(
    ("cell", "n_parameters", "multiply_adds"),
    [
        (CONVOLUTIONS_ALONE, SKELETON + 6 * EDGE_3X3, SKELETON_MULTIPLY_ADDS + 6 * EDGE_3X3_MULTIPLY_ADDS),
        (SKIPS_ALONE, SKELETON, SKELETON_MULTIPLY_ADDS),
        (MIXED, SKELETON + 2 * EDGE_3X3 + EDGE_1X1, SKELETON_MULTIPLY_ADDS + EDGE_3X3_MULTIPLY_ADDS * 19 // 9),
    ],
)
def test_weights_and_operations_are_those_of_hand_arithmetic(cell: str, n_parameters: int, multiply_adds: int) -> None:
    measured = measure(cell)
    assert measured.n_parameters == n_parameters
    assert measured.forward_flops == 2 * multiply_adds


def test_the_published_sizes_are_met() -> None:
    convolutions, skips = measure(CONVOLUTIONS_ALONE), measure(SKIPS_ALONE)
    assert (convolutions.n_parameters, skips.n_parameters) == (1_531_546, 73_306)
    assert convolutions.forward_flops / 2 == 220_119_680  # the benchmark counts multiply-adds


@pytest.mark.parametrize("place", range(6))
def test_an_edge_that_is_none_costs_nothing_and_carries_nothing(place: int) -> None:
    cell = ["nor_conv_3x3"] * 6
    cell[place] = "none"
    measured = measure(write_cell(tuple(cell)))
    assert measured.n_parameters == SKELETON + 5 * EDGE_3X3
    assert measured.forward_flops == 2 * (SKELETON_MULTIPLY_ADDS + 5 * EDGE_3X3_MULTIPLY_ADDS)
    built = build_network("nasbench201", {"cell": write_cell(tuple(cell)), "channels": 4, "cells": 1}, 10, (3, 8, 8))
    start, end = EDGES[place]
    assert f"{start}-{end}" not in built.stages[0][0].edges


def test_nodes_sum_what_their_edges_carry() -> None:
    cell = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|"
    built = build_network("nasbench201", {"cell": cell, "channels": 4, "cells": 1}, 10, (3, 8, 8))
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(built.stages[0][0](x), 3 * x)  # node 1: x, node 2: 2 x, node 3: their sum
    nothing = build_network(
        "nasbench201", {"cell": write_cell(("none",) * 6), "channels": 4, "cells": 1}, 10, (3, 8, 8)
    )
    assert not nothing.stages[0][0](x).any()


def test_the_stack_scales_in_width_and_depth() -> None:
    small = measure(MIXED, channels=8, cells=1)
    built = build_network("nasbench201", {"cell": MIXED, "channels": 8, "cells": 2}, 10, (1, 17, 23))
    assert built(torch.randn(2, 1, 17, 23)).shape == (2, 10)
    assert [len(stage) for stage in built.stages] == [
        2,
        3,
        3,
    ]  # two cells, after a block of stride 2 where there is one
    assert small.n_parameters < measure(MIXED).n_parameters / 8


def test_there_are_15625_cells_and_each_reads_as_it_is_written() -> None:
    cells = list_cells()
    assert len(set(cells)) == 5**6 == 15_625
    assert all(write_cell(read_cell(cell)) == cell for cell in cells)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "three nodes joined by +; it has 1"),
        (SKIPS_ALONE + "+|none~0|", "it has 4"),
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2 must have 2 edges between bars, it reads '|none~0|'"),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 must have 1 edges between bars"),
        (
            "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "edge 1 of node 1 must be one of none, skip_connect",
        ),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "and then ~0, it reads 'none~1'"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "it reads 'none'"),
        ("|+|none~0|none~1|+|none~0|none~1|none~2|", "it reads '|'"),
    ],
)
def test_a_string_off_the_grammar_is_told_where(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="must read") as refused:
        read_cell(text)
    assert said in str(refused.value)


def test_a_recipe_says_so_with_line_and_column(
    run_proxyds: Callable[..., object], write_recipe_file: Callable[..., Path]
) -> None:
    text = "name: x\nspace:\n  network: nasbench201\n  choices:\n    cell: ['|none~0|+|none~0|']\n"
    refused = run_proxyds("validate", write_recipe_file(text))
    assert refused.returncode == 10
    assert "recipe.yaml:5:12 space.choices.cell[0]: must read |op~0|+" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def every() -> tuple[list[Architecture], float, int]:
    """All cells of a small stack, the seconds that it took to list them, and the networks that were built for it."""
    recipe = Recipe.model_validate_json(
        '{"name": "x", "space": {"network": "nasbench201", "choices": {"cell": "every", "channels": 8, "cells": 1}}}'
    )
    n_built = 0
    measure_one = space.measure_cost

    def count(*arguments: object) -> Architecture:
        nonlocal n_built
        n_built += 1
        return measure_one(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "measure_cost", count)
        started = time.perf_counter()
        listed = list_architectures(recipe.space, 10, (3, 16, 16))
        return listed, time.perf_counter() - started, n_built


def test_all_cells_are_listed_in_time_from_a_few_networks(every: tuple[list[Architecture], float, int]) -> None:
    listed, seconds, n_built = every
    assert len({each.name for each in listed}) == 15_625
    assert seconds < 60  # some five seconds on an idle core
    assert n_built < 30
    costs = [(each.training_flops, each.n_parameters, each.name) for each in listed]
    assert costs == sorted(costs)


def test_costs_that_were_added_up_are_those_of_the_networks(every: tuple[list[Architecture], float, int]) -> None:
    listed = every[0]
    for each in [*listed[:: len(listed) // 40], listed[-1]]:
        assert measure_cost(each.name, each.network, each.parameters, 10, (3, 16, 16)) == each


def test_bounds_have_a_path_from_input_to_output_and_break_ties_by_string(
    every: tuple[list[Architecture], float, int],
) -> None:
    lightest, heaviest = choose_probes(every[0], Probes())
    assert heaviest.name == CONVOLUTIONS_ALONE
    free = [  # without a convolution all cost the same: the first string of them
        cell
        for cell in list_cells()
        if not any("conv" in operation for operation in read_cell(cell)) and reaches_output(read_cell(cell))
    ]
    assert lightest.name == min(free)
    assert not reaches_output(read_cell(every[0][0].name))  # cheaper still, but the image does not reach its output


def test_a_path_is_found_by_hand() -> None:
    assert reaches_output(("none", "none", "none", "skip_connect", "none", "none"))  # 0 to 3
    assert reaches_output(("skip_connect", "none", "none", "none", "avg_pool_3x3", "none"))  # 0, 1, 3
    assert not reaches_output(("skip_connect", "none", "none", "none", "none", "skip_connect"))  # 2 has no input
    assert sum(reaches_output(read_cell(cell)) for cell in list_cells()) == sum(
        any(all(cell[i] != "none" for i in path) for path in ((3,), (0, 4), (1, 5), (0, 2, 5)))
        for cell in map(read_cell, list_cells())
    )


def test_the_published_table_holds_cells_of_the_space(data_folder: Path) -> None:
    with (data_folder / "nas-bench-201" / "accuracy_1000.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 1000
    assert {row["arch_str"] for row in rows} <= set(list_cells())
    disconnected = [row for row in rows if not reaches_output(read_cell(row["arch_str"]))]
    assert len(disconnected) == 18
    assert all(float(row["cifar10_test_200ep"]) == pytest.approx(10, abs=0.1) for row in disconnected)
    assert set(OPERATIONS) == {operation for row in rows for operation in read_cell(row["arch_str"])}
