"""A recipe that a program makes: the same as a file's, with the same words for what is wrong."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proxyds
from proxyds.errors import CallableError, OutputError, RecipeError, UnknownNameError
from proxyds.recipe.presets import preset_folder, preset_names
from proxyds.recipe.sections.selection import Selection

SPACE = {"network": "resnet", "choices": {"depth": 8, "base_filters": [4, 8]}}
make = partial(proxyds.Recipe, name="tiny", source={"kind": "digits"}, space=SPACE)


def read(text: str, tmp_path: Path) -> proxyds.Recipe:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    return proxyds.read_recipe(tmp_path / "r.yaml")


def test_it_is_the_recipe_of_a_file_with_the_same_values(tmp_path: Path) -> None:
    text = "name: tiny\nspace: {network: resnet, choices: {depth: 8, base_filters: [4, 8]}}\nselection: {ratio: 0.1, method: cases}\n"
    assert make(ratio=0.1, method="cases") == read(text, tmp_path)


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "folder"])
def test_what_it_writes_reads_back_with_equal_identity(name: str, tmp_path: Path) -> None:
    recipe = proxyds.read_recipe(preset_folder() / f"{name}.yaml")
    again = proxyds.Recipe(**{key: getattr(recipe, key) for key in type(recipe).model_fields})
    assert again.sha256 == recipe.sha256 == read(recipe.to_yaml(), tmp_path).sha256
    assert recipe.to_yaml() == proxyds.write_recipe(recipe)


@pytest.mark.parametrize(
    "selection", [{"ratio": 0.25}, Selection(ratio=0.25), {"ratio": np.float32(0.25)}, {"ratio": np.array(0.25)}]
)
def test_a_section_is_a_mapping_or_a_section_and_numbers_may_be_numpys(selection: Any) -> None:
    assert make(selection=selection).selection.ratio == 0.25
    assert make(ratio=np.float64(0.25)) == make(selection=selection)


def test_lists_may_be_tuples_ranges_and_arrays() -> None:
    def widths(values: Any) -> str:
        return make(space={"network": "resnet", "choices": {"base_filters": values}}).sha256

    assert widths([4, 5, 6]) == widths((4, 5, 6)) == widths(range(4, 7)) == widths(np.arange(4, 7))


def test_a_folder_is_taken_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("images", Path("images"), tmp_path / "images"):
        assert make(source={"kind": "folder", "path": path}).source.path == str(tmp_path / "images")


@pytest.mark.parametrize(
    ("words", "kind", "fields"),
    [
        ({"name": None}, RecipeError, ["name"]),
        ({"name": "Two Words", "ratio": 5}, RecipeError, ["name", "ratio"]),
        ({"ratio": "a lot"}, RecipeError, ["ratio"]),
        ({"ratio": float("nan")}, RecipeError, ["ratio"]),
        ({"ratio": 0.1, "selection": {"ratio": 0.2}}, RecipeError, ["ratio"]),
        ({"ratio": 0.1, "selection": 3}, RecipeError, ["selection"]),
        ({"method": "eassier"}, UnknownNameError, ["method"]),
        ({"selection": {"ratoi": 1}}, UnknownNameError, ["selection.ratoi"]),
        ({"selektion": {}}, UnknownNameError, ["selektion"]),
        ({"space": {"network": "resnt"}}, UnknownNameError, ["space.network"]),
        ({"space": {"network": "resnet", "choices": {"depth": [8, 7]}}}, RecipeError, ["space.choices.depth[1]"]),
        ({"space": object()}, RecipeError, ["space"]),
        ({"training": {"epochs": lambda: 3, "batch_size": {1}}}, RecipeError, ["training.epochs", "training.batch_size"]),
        ({"source": {"kind": "folder", "path": b"images"}}, RecipeError, ["source.path"]),
        ({"seed": True}, RecipeError, ["seed"]),
        ({"licence": "\ud800"}, RecipeError, ["licence"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_of_its_place_all_at_once(
    words: dict[str, Any], kind: type[RecipeError], fields: list[str]
) -> None:
    with pytest.raises(RecipeError) as raised:
        make(**words)
    assert type(raised.value) is kind
    assert [problem["field"] for problem in raised.value.problems] == fields
    assert "pydantic" not in str(raised.value)
    json.dumps(raised.value.problems)


def test_a_mistyped_shorthand_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match="did you mean `ratio`"):
        make(ration=0.1)


def test_what_must_be_given_is_named() -> None:
    with pytest.raises(RecipeError) as raised:
        proxyds.Recipe()
    assert [problem["field"] for problem in raised.value.problems] == ["name", "space"]


def test_values_without_end_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecipeError, match="levels deep"):
        make(training={"epochs": endless})


def test_it_is_written_into_a_file(tmp_path: Path) -> None:
    recipe, path = make(ratio=0.1), tmp_path / "mine" / "r.yaml"
    assert proxyds.write_recipe(recipe, path) == path.read_text() == recipe.to_yaml()
    assert proxyds.read_recipe(path) == recipe
    with pytest.raises(OutputError):
        proxyds.write_recipe(recipe, tmp_path)


def test_a_network_at_hand_and_a_text_stand_on_one_line_each() -> None:
    space = {f"a network with the name of its width, {width}": partial(net, width) for width in (4, 8)}
    source = {"kind": "memory", "name": "images " * 20}
    lines = proxyds.Recipe(name="mine", space=space, source=source).to_yaml().splitlines()
    assert sum(line.strip().startswith("- {name: ") and line.endswith("}") for line in lines) == 2
    assert sum("images images" in line for line in lines) == 1


def net(width: int, n_labels: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, n_labels))


def test_networks_at_hand_are_a_space_by_name_or_as_a_list(tmp_path: Path) -> None:
    recipe = proxyds.Recipe(name="mine", space={f"width-{width}": partial(net, width) for width in (4, 8)})
    assert read(recipe.to_yaml(), tmp_path).sha256 == recipe.sha256
    assert {each.name for each in recipe.space.architectures} == {"width-4", "width-8"}
    assert len(proxyds.Recipe(name="mine", space=[partial(net, width) for width in (4, 8)]).space.architectures) == 2


@pytest.mark.parametrize("space", [[], [3], {"a": partial(net, 4), "b": 3}])
def test_what_is_no_network_is_refused(space: Any) -> None:
    with pytest.raises(CallableError):
        proxyds.Recipe(name="mine", space=space)


@pytest.mark.parametrize(
    ("word", "meant"), [("spce", "space"), ("spaces", "space"), ("ratoi", "ratio"), ("licens", "license")]
)
def test_a_mistyped_word_is_all_that_is_wrong_whatever_it_holds(word: str, meant: str) -> None:
    words = {"space": [partial(net, width) for width in (4, 8)], "ratio": 0.1}
    words[word] = words.pop(meant, None) or {"a": partial(net, 4), "b": object()}
    with pytest.raises(UnknownNameError, match=f"did you mean `{meant}`") as raised:
        proxyds.Recipe(name="mine", **words)
    assert [problem["field"] for problem in raised.value.problems] == [word]


def test_reading_a_file_does_not_pass_through_what_programs_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyds.recipe.models.validate_words", None)
    assert read("name: tiny\nspace: {network: resnet, choices: {depth: [8, 14]}}\n", tmp_path).name == "tiny"


def test_what_data_in_memory_are_called_is_no_part_of_identity() -> None:
    space = {"network": "resnet", "choices": {"base_filters": [4, 8]}}
    made = [
        proxyds.Recipe(name="n", space=space, source={"kind": "memory", "name": name}) for name in ("arrays", "table")
    ]
    assert made[0].sha256 == made[1].sha256


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        proxyds.write_recipe(proxyds.read_recipe("recipes/digits.yaml"), tmp_path / "folder")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
