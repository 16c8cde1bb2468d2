"""What a recipe's search space makes: choices, lists, bounds, samples, probes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from torch import nn

import proxyds
from proxyds.errors import ArgumentError, RecipeError, UnknownNameError
from proxyds.recipe.models import Probes, Recipe
from proxyds.recipe.yaml import read_recipe, write_recipe
from proxyds.selection.probe import choose_probes
from proxyds.space.choices import Space, space_section
from proxyds.space.cost import measure_cost
from proxyds.space.listing import _numbers, list_architectures
from proxyds.space.networks.families import FAMILIES, Family
from proxyds.space.networks.parameters import Parameters

Run = Callable[..., "subprocess.CompletedProcess[str]"]

built: list[dict[str, Any]] = []


class StagedParameters(Parameters):
    """A tower of three stages, for these tests."""

    widths: tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]] = Field(
        (4, 4), description="Of each stage.", examples=[[4, 8]]
    )
    kind: str = Field("a", description="A letter.", examples=["a"])
    options: dict[str, int] = Field({}, description="More.", examples=[{"bias": 1}])
    scale: float = Field(1.0, description="Does nothing.", examples=[0.5])

    every: ClassVar = {"kind": lambda: ("a", "b", "c")}

    def cost_parts(self) -> dict[Any, int]:
        return {(self.widths, tuple(self.options.items())): 1}

    def is_connected(self) -> bool:
        return self.kind != "c"


def build(parameters: StagedParameters, n_labels: int, image_shape: tuple[int, int, int]) -> nn.Module:
    built.append(parameters.model_dump())
    first, second = parameters.widths
    bias = bool(parameters.options.get("bias", 0))
    n_in = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(n_in, first, bias=bias), nn.Linear(first, second), nn.Linear(second, n_labels)
    )


@pytest.fixture(autouse=True)
def _staged() -> Iterator[None]:
    FAMILIES["staged"] = Family(StagedParameters, __name__, "2", "for tests")
    built.clear()
    yield
    del FAMILIES["staged"]


def space_of(**section: Any) -> Space:
    return space_section().validate_json(json.dumps({"network": "staged", **section}))


def names(space: Space, **about: Any) -> list[str]:
    return [each.name for each in list_architectures(space, 3, (1, 4, 4), **about)]


def test_an_entry_of_a_stage_may_be_a_list_of_its_own() -> None:
    space = space_of(choices={"widths": [[4, 8], [[4, 16], [2, 8]], [1, 1]]})
    values = [space.parameters_at(i)["widths"] for i in range(space.n_listed)]
    assert values == [[4, 8], [4, 2], [4, 8], [16, 2], [16, 8], [1, 1]]
    assert names(space) == [
        "staged widths=1-1",
        "staged widths=4-2",
        "staged widths=4-8",
        "staged widths=16-2",
        "staged widths=16-8",
    ]  # one that two settings make is there once


def test_one_setting_needs_no_list_around_it() -> None:
    assert space_of(choices={"widths": [4, [8, 16]]}).n_listed == 2
    assert space_of(choices={"widths": [4, 8]}).n_listed == 1


def test_named_entries_are_choices_too() -> None:
    space = space_of(choices={"widths": [[4, 4]], "options": {"bias": [0, 1], "other": 3}})
    assert [space.parameters_at(i)["options"] for i in range(space.n_listed)] == [
        {"bias": 0, "other": 3},
        {"bias": 1, "other": 3},
    ]
    assert names(space) == ["staged bias=0", "staged bias=1"]


def test_every_stands_for_all_values_and_a_lone_text_names_itself() -> None:
    space = space_of(choices={"kind": "every"})
    assert space.n_listed == 3
    assert names(space) == ["a", "b", "c"]


def test_what_costs_the_same_is_built_once() -> None:
    space = space_of(choices={"kind": "every", "widths": [[[4, 8], 4]]})
    assert len(names(space)) == 6
    assert len(built) == 2


def test_a_list_of_architectures_takes_the_place_of_choices() -> None:
    space = space_of(architectures=[{"widths": [8, 4]}, {"widths": [4, 4], "kind": "b"}])
    assert names(space) == ["staged widths=4-4 kind=b", "staged widths=8-4 kind=a"]


@pytest.mark.parametrize(
    "architectures",
    [
        [{"kind": "a"}, {"kind": "a", "options": {"bias": 1}}],  # one has what the other lacks
        [{"options": {"bias": 0}}, {"options": {"bias": 1}}, {"options": {"other": 1}}],
        [{"scale": 0.33333331}, {"scale": 0.33333332}],
        [{"scale": 1e-7}, {"scale": 1.0}, {"scale": 0.5}],
    ],
)
def test_unlike_architectures_have_unlike_names(architectures: list[dict[str, Any]]) -> None:
    assert len(names(space_of(architectures=architectures))) == len(architectures)


def test_names_that_cannot_tell_architectures_apart_are_refused() -> None:
    space = space_of(choices={"kind": ["x y", "x-y"], "widths": [[4, 4]]})
    object.__setattr__(space, "name_of", lambda parameters: parameters["kind"].replace("-", " "))
    with pytest.raises(RecipeError, match="must be told apart by name, two are called 'x y'"):
        names(space)


def test_bounds_leave_out_what_costs_more_or_less() -> None:
    every = list_architectures(space_of(choices={"widths": [[[4, 8, 16], 4]]}), 3, (1, 4, 4))
    flops, n_parameters = every[1].forward_flops, every[2].n_parameters
    inside = space_of(choices={"widths": [[[4, 8, 16], 4]]}, bounds={"forward_flops": [flops, 1e12]})
    assert names(inside) == [every[1].name, every[2].name]
    both = {"forward_flops": [flops, 1e12], "n_parameters": [0, n_parameters - 1]}
    assert names(space_of(choices={"widths": [[[4, 8, 16], 4]]}, bounds=both)) == ["staged widths=8-4"]
    empty = space_of(choices={"widths": [[[4, 8, 16], 4]]}, bounds={"n_parameters": [0, 1]})
    with pytest.raises(RecipeError, match=r"space\.bounds: must leave architectures, none of the 3 looked at") as error:
        names(empty)
    assert f"{every[2].n_parameters:,}" in str(error.value)  # what there is


def test_a_sample_is_the_seeds_and_has_no_double() -> None:
    space = space_of(choices={"widths": [[list(range(1, 65)), list(range(1, 65))]]}, sample=20)
    first, again, other = names(space, seed=1), names(space, seed=1), names(space, seed=2)
    assert first == again != other
    assert len(set(first)) == 20
    within = space_of(choices={"widths": [[list(range(1, 65)), 4]]}, sample=5, bounds={"n_parameters": [200, 400]})
    architectures = list_architectures(within, 3, (1, 4, 4))
    assert len(architectures) == 5
    assert all(200 <= each.n_parameters <= 400 for each in architectures)


def test_a_sample_of_a_space_that_nobody_can_list() -> None:
    wide = {f"o{i}": list(range(10)) for i in range(30)}
    space = space_of(choices={"options": wide}, sample=7)
    assert space.n_listed == 10**30
    assert len(set(names(space))) == 7
    drawn = [number for number, _ in zip(_numbers(space, seed=0), range(2000), strict=False)]
    shares = np.array([number / space.n_listed for number in drawn])  # all of the space, not its first part
    assert np.histogram(shares, 10, (0, 1))[0] == pytest.approx([200] * 10, abs=60)
    with pytest.raises(
        RecipeError, match=r"space: must hold at most 5,000 architectures .* for example space\.sample: 500"
    ):
        names(space_of(choices={"options": wide}))


def test_what_must_be_measured_one_by_one_is_refused_before_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyds.space.listing.MAX_MEASURED", 20)
    resnets = {"network": "resnet", "choices": {"depth": 8, "base_filters": list(range(1, 31))}}

    def listed(**about: Any) -> list[str]:
        space = space_section().validate_json(json.dumps({**resnets, **about}))
        return [each.name for each in list_architectures(space, 10, (1, 8, 8))]

    measured = Mock(wraps=measure_cost)
    monkeypatch.setattr("proxyds.space.listing.measure_cost", measured)
    with pytest.raises(RecipeError, match="must hold at most 20 architectures"):
        listed()
    with pytest.raises(RecipeError, match="must hold at most 20 architectures"):
        listed(sample=25)
    assert not measured.called
    assert len(listed(sample=20)) == 20
    with pytest.raises(
        RecipeError, match=r"space\.bounds: must leave architectures, none of the 20 looked at \(of 30\)"
    ):
        listed(sample=5, bounds={"n_parameters": [0, 1]})


@given(st.integers(0, 4 * 3 * 2 - 1))
def test_numbers_run_through_all_combinations_the_last_choice_first(number: int) -> None:
    space = space_section().validate_json(
        json.dumps(
            {
                "network": "resnet",
                "choices": {"depth": [8, 14, 20, 26], "base_filters": [2, 3, 4], "kernel_size": [3, 5]},
            }
        )
    )
    parameters = space.parameters_at(number)
    place = ([8, 14, 20, 26].index(parameters["depth"]) * 3 + parameters["base_filters"] - 2) * 2
    assert place + (parameters["kernel_size"] - 3) // 2 == number
    assert parameters["multiplier"] == 2


def test_probes_are_connected_or_named() -> None:
    every = list_architectures(space_of(choices={"kind": "every", "widths": [[[4, 8], 4]]}), 3, (1, 4, 4))
    assert [each.name for each in choose_probes(every, Probes())] == [
        "staged widths=4-4 kind=a",
        "staged widths=8-4 kind=b",
    ]
    named = Probes(architectures=("staged widths=8-4 kind=c", "staged widths=4-4 kind=a"))
    assert [each.name for each in choose_probes(every, named)] == [
        "staged widths=4-4 kind=a",
        "staged widths=8-4 kind=c",
    ]
    with pytest.raises(UnknownNameError, match="must be architectures of the space, got 'staged widths=8-4'; "):
        choose_probes(every, Probes(architectures=("staged widths=8-4", "staged widths=4-4 kind=a")))
    lost = list_architectures(space_of(choices={"kind": "c", "widths": [[[4, 8], 4]]}), 3, (1, 4, 4))
    with pytest.raises(RecipeError, match=r"it holds 0 whose output the image reaches \(of 2\)"):
        choose_probes(lost, Probes())


COMPLAINTS = [
    (
        {},
        "space: must hold either choices (for each parameter a value or a list) or architectures (a list), it holds neither",
    ),
    ({"choices": {}, "architectures": [{}]}, "it holds both"),
    ({"architectures": []}, "space.architectures: must hold at least one value, it is empty"),
    ({"architectures": [{"depth": 8}, {"depth": 8}]}, "space.architectures: must hold each choice once"),
    ({"architectures": [{"depth": 9}]}, "space.architectures[0].depth: must be 6 n + 2"),
    ({"architectures": [{"deepth": 8}]}, "space.architectures[0].deepth: unknown key; did you mean `depth`?"),
    ({"choices": {"depth": [8, 14]}, "sample": 1}, "space.sample: must be at least 2, got 1"),
    ({"choices": {"depth": [8, 14]}, "bounds": {"forward_flops": [5, 1]}}, "must be the lowest, then the highest"),
    ({"choices": {"depth": [8, 14]}, "bounds": {"forward_flops": [5]}}, "space.bounds.forward_flops"),
    ({"choices": {"depth": [8, 14]}, "bounds": {"flops": [1, 5]}}, "space.bounds.flops: unknown key"),
    ({"choices": {"depth": 8}}, "must make at least probes.count = 2 architectures to rank, found 1"),
    ({"architectures": [{"depth": 8}]}, "space.architectures: must make at least probes.count = 2 architectures"),
    ({"choices": {"depth": "every"}}, 'space.choices.depth[0]: must be a whole number, got "every"'),
    (
        {"network": "torchvision", "choices": {"model": "every"}},
        "space.choices.model[0]: must be a value or a list of values: nothing lists all of them",
    ),
    (
        {"network": "timm", "choices": {"model": ["resnet10t", "resnet18"], "arguments": {"pretrained": True}}},
        "arguments.pretrained: must not be among the arguments: labels and channels are the source's, and no weights are ever loaded",
    ),
]


@pytest.mark.parametrize(("section", "said"), COMPLAINTS)
def test_a_wrong_space_is_one_message_with_its_place(tmp_path: Path, section: dict[str, Any], said: str) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps({"name": "x", "space": {"network": "resnet"} | section}))
    with pytest.raises(RecipeError) as error:
        read_recipe(tmp_path / "r.yaml")
    assert said in str(error.value)
    assert f"{tmp_path / 'r.yaml'}:1:" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_stage_too_few_is_told(tmp_path: Path) -> None:
    for widths, place in ([[4]], "[0]"), ([4, 8, 16], "[0]"), ([[4, 8], [4, 0]], "[1][1][0]"):
        section = {"network": "staged", "choices": {"widths": widths}}
        (tmp_path / "r.yaml").write_text(json.dumps({"name": "x", "space": section}))
        with pytest.raises(RecipeError) as error:
            read_recipe(tmp_path / "r.yaml")
        assert f"space.choices.widths{place}: must " in str(error.value)


def test_a_space_reads_back_as_it_was_written(tmp_path: Path) -> None:
    sections = [
        {"choices": {"widths": [[4, [8, 16]], [2, 2]], "kind": "every", "options": {"bias": [0, 1]}}},
        {"choices": {"widths": [4, 8], "kind": ["a", "b"]}, "sample": 2, "bounds": {"n_parameters": [0, 5000]}},
        {"architectures": [{"widths": [8, 4]}, {"kind": "b"}]},
    ]
    for section in sections:
        recipe = Recipe.model_validate({"name": "x", "space": {"network": "staged", **section}})
        (tmp_path / "r.yaml").write_text(write_recipe(recipe), encoding="utf-8")
        assert read_recipe(tmp_path / "r.yaml").sha256 == recipe.sha256


def test_settings_that_came_later_leave_older_identities_alone() -> None:
    training = '{"epochs": 30, "batch_size": 128, "learning_rate": 0.001, "crop_padding": 4}'  # defaults then
    choices = f'"space": {{"network": "resnet", "choices": {{"depth": [8, 14]}}}}, "training": {training}'
    recipe = Recipe.model_validate_json(f'{{"name": "x", {choices}, "selection": {{"method": "cases"}}}}')
    assert recipe.sha256 == "0517ed966a60282453b3615bbb53b55d45f5cb77854963202b0513839da7c726"
    assert not {"sample", "bounds", "architectures", "seeds", "labels", "method"} & set(
        recipe.canonical.replace('"', " ").split()
    )


def test_inspect_shows_a_recipes_space(run_proxyds: Run, write_recipe_file: Callable[..., Path]) -> None:
    recipe = write_recipe_file()
    shown = run_proxyds("inspect", recipe)
    assert shown.returncode == 0, shown.stderr
    assert "4 architectures of the family resnet" in shown.stdout
    assert shown.stdout.count("probe\n") == 2
    found = json.loads(run_proxyds("inspect", recipe, "--json").stdout)
    assert [row["value"] for row in found["choices"] if row["parameter"] == "multiplier"] == [1, 2]
    assert all(row["n_architectures"] == 2 for row in found["choices"])
    costs = [each["training_flops"] for each in found["architectures"]]
    assert costs == sorted(costs)
    refused = run_proxyds("inspect", write_recipe_file().parent, "--set", "seed=1")
    assert refused.returncode == 2


@pytest.mark.parametrize("shape", [32, "3x8", (3, 8), (3, 8.0, 8), (3, 0, 8), (3, True, 8), None])
def test_what_is_no_shape_of_images_is_refused(shape: Any) -> None:
    space = space_section().validate_json('{"network": "resnet", "choices": {"depth": [8, 14]}}')
    with pytest.raises(ArgumentError, match="image_shape: must be"):
        list_architectures(space, 10, shape)
    with pytest.raises(ArgumentError, match="image_shape: must be"):
        proxyds.build_network("resnet", {}, 10, shape)


@pytest.mark.parametrize("n_labels", [0, -1, "10", 2.0, True, None])
def test_what_is_no_number_of_labels_is_refused(n_labels: Any) -> None:
    space = space_section().validate_json('{"network": "resnet", "choices": {"depth": [8, 14]}}')
    with pytest.raises(ArgumentError, match="n_labels: must be"):
        list_architectures(space, n_labels, (3, 8, 8))
    with pytest.raises(ArgumentError, match="n_labels: must be"):
        proxyds.build_network("resnet", {}, n_labels, (3, 8, 8))


def test_shapes_and_numbers_may_be_lists_and_numpys() -> None:
    space = space_section().validate_json('{"network": "resnet", "choices": {"depth": [8, 14]}}')
    assert list_architectures(space, np.int64(10), [3, np.int32(8), 8]) == list_architectures(space, 10, (3, 8, 8))
