from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from proxyds.artifact.manifest import TrainingRecord
from proxyds.errors import DuplicateKeyError, RecipeError, RecipeNotFoundError, RecipeSyntaxError, UnknownNameError
from proxyds.recipe import yaml as recipe_yaml
from proxyds.recipe.models import Recipe, recipe_json_schema
from proxyds.recipe.presets import SCHEMA_FILE, preset_names, preset_purpose, preset_text
from proxyds.recipe.sections.training import choose_crop_padding
from proxyds.recipe.yaml import MAX_RECIPE_BYTES, read_recipe, write_recipe
from proxyds.text import find_active_text

RecipeFile = Callable[..., Path]

# Four lines: what a test appends starts on line 5.
MINIMAL = "name: tiny\nspace:\n  network: resnet\n  choices: {depth: [8, 14]}\n"

RECIPES = sorted((Path(__file__).parent.parent.parent / "recipes").glob("*.yaml"))


@pytest.fixture
def read(write_recipe_file: RecipeFile) -> Callable[..., Recipe]:
    def from_text(text: str = MINIMAL, *overrides: str) -> Recipe:
        return read_recipe(write_recipe_file(text), overrides)

    return from_text


@pytest.fixture
def complaint(write_recipe_file: RecipeFile) -> Callable[..., str]:
    """The message for a bad recipe, its file's name cut to `r.yaml`; exactly of the class that is expected."""

    def from_text(text: str, *overrides: str, kind: type[RecipeError] = RecipeError) -> str:
        path = write_recipe_file(text, "r.yaml")
        with pytest.raises(RecipeError) as caught:
            read_recipe(path, overrides)
        assert type(caught.value) is kind, caught.value
        return str(caught.value).replace(str(path), "r.yaml")

    return from_text


# Defaults


def test_defaults_are_the_papers(read: Callable[..., Recipe]) -> None:
    recipe = read()
    assert recipe.importance.constants == (2, 1, 6, 1)
    assert recipe.probes.count == 2
    assert recipe.similarity.neighbours == 1
    assert recipe.selection.ratio == 0.05
    assert recipe.training.optimizer == "adam"
    settings = recipe.training
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (13, 64, 0.01)  # of the second study


def test_a_manifest_that_lacks_a_setting_means_the_former_default() -> None:
    held = TrainingRecord.model_validate({"weight_decay": 0.1})
    assert (held.epochs, held.batch_size, held.learning_rate, held.crop_padding) == (30, 128, 0.001, 4)
    assert TrainingRecord.model_validate({"epochs": 2}).epochs == 2


def test_departures_from_the_paper_are_the_careful_ones(read: Callable[..., Recipe]) -> None:
    recipe = read()
    assert recipe.importance.protocol == "validation"
    assert recipe.selection.draw == "systematic"
    assert recipe.source.validation_fraction == 0.1
    assert recipe.seed == 0


def test_choices_not_given_are_the_papers_resnet20(read: Callable[..., Recipe]) -> None:
    choices = read("name: tiny\nspace: {network: resnet, choices: {depth: [8, 20]}}\n").space.choices
    assert choices.model_dump() == {"depth": (8, 20), "base_filters": (16,), "kernel_size": (3,), "multiplier": (2,)}


def test_one_choice_and_a_list_of_one_are_the_same(read: Callable[..., Recipe]) -> None:
    one, other = (read(MINIMAL.replace("}", f", multiplier: {value}}}")) for value in ("1", "[1]"))
    assert one == other


def test_a_recipe_is_frozen(read: Callable[..., Recipe]) -> None:
    recipe = read()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        recipe.selection.ratio = 0.5
    with pytest.raises(ValidationError, match="frozen"):
        recipe.space.choices.depth = (8,)


# Identity


def test_sha256_is_that_of_the_canonical_form(read: Callable[..., Recipe]) -> None:
    recipe = read()
    assert recipe.sha256 == hashlib.sha256(recipe.canonical.encode()).hexdigest()
    held = json.loads(recipe.canonical)
    assert json.dumps(held, sort_keys=True, separators=(",", ":")) == recipe.canonical
    assert held["importance"]["constants"] == [2.0, 1.0, 6.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "space:\n  choices: {depth: [8, 14]}\n  network: resnet\nname: tiny\n",
        "# why\nname: tiny  # what\n\nspace:\n  network: resnet\n  choices:\n    depth:\n    - 8\n    - 14\n",
        MINIMAL + "training: {learning_rate: 1e-2}\n",
        MINIMAL + "training: {learning_rate: 0.01}\n",
        MINIMAL + "training: {learning_rate: 0.1e-1}\n",
        MINIMAL + "importance: {constants: [2, 1, 6, 1]}\n",
        MINIMAL + "importance: {constants: [2.0, 1.0, 6.0, 1.0], protocol: validation}\n",
        MINIMAL + "source: {kind: digits}\nselection: {}\nseed: 0\n",
        MINIMAL.replace("name: tiny", "'name': \"tiny\""),
        MINIMAL.replace("\n", "\r\n"),
        "\ufeff" + MINIMAL,
    ],
)
def test_writing_a_recipe_differently_keeps_its_identity(read: Callable[..., Recipe], text: str) -> None:
    assert read(text).sha256 == read().sha256


OTHER_VALUES = {
    "name": "other",
    "version": "1.0.1",
    "licence": "mit",
    "seed": "1",
    "source.kind": "torchvision",
    "source.image_mode": "RGB",
    "source.image_size": "16",
    "source.on_bad_image": "skip",
    "source.validation_fraction": "0.2",
    "source.test_fraction": "0.1",
    "space.network": "resnet",
    "space.choices.depth": "[8, 20]",
    "space.choices.base_filters": "8",
    "space.choices.kernel_size": "5",
    "space.choices.multiplier": "4",
    "probes.count": "3",
    "importance.constants": "[2, 1, 6, 2]",
    "importance.protocol": "paper",
    "similarity.layer": "stages.2",
    "similarity.dimensions": "32",
    "similarity.metric": "cosine",
    "similarity.neighbours": "2",
    "selection.method": "cases",
    "selection.ratio": "0.1",
    "selection.draw": "successive",
    "training.epochs": "31",
    "training.batch_size": "96",
    "training.optimizer": "sgd",
    "training.learning_rate": "2e-3",
    "training.weight_decay": "1e-4",
    "training.schedule": "step",
    "training.crop_padding": "0",
    "training.horizontal_flip": "false",
    "output.samples_per_shard": "100",
    "output.gallery": "false",
}
NOT_VARIED_HERE = {"source.kind", "space.network"}  # they change which other keys there are


def _leaves(tree: dict[str, Any], prefix: str = "") -> set[str]:
    return {
        leaf
        for key, value in tree.items()
        for leaf in (_leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"})
    }


def test_every_value_has_another_below(read: Callable[..., Recipe]) -> None:
    assert _leaves(read().model_dump()) == {*OTHER_VALUES, "check"}


FORMER_TRAINING = (
    "training.epochs=30",
    "training.batch_size=128",
    "training.learning_rate=1e-3",
    "training.crop_padding=4",
)
"""What a recipe trained with that did not name it, before defaults followed from measurements."""


def test_recipes_of_proxies_from_before_there_were_methods_are_of_the_papers(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(MINIMAL + "selection: {ratio: 0.1}\n")
    papers = read_recipe(tmp_path / "recipe.yaml", ["selection.method=cases", *FORMER_TRAINING])
    assert "method" not in json.loads(papers.canonical)["selection"]  # their identity is what it was
    assert "method: cases" in write_recipe(papers)
    assert read_recipe(tmp_path / "recipe.yaml").selection.method == "easier"
    in_full = write_recipe(papers)
    for section in ("", "selection: {ratio: 0.1}\n"):
        (tmp_path / "held.yaml").write_text(f"{in_full.splitlines()[0]}\n{MINIMAL}{section}")
        assert read_recipe(tmp_path / "held.yaml").selection.method == "cases"
    assert read_recipe(tmp_path / "held.yaml") == papers
    assert read_recipe(tmp_path / "held.yaml", ["selection.method=random"]).selection.method == "random"


@pytest.mark.parametrize(
    ("side", "padding"),
    [(3, 0), (4, 1), (8, 1), (11, 1), (12, 2), (16, 2), (20, 3), (28, 4), (32, 4), (224, 28), (4096, 64)],
)
def test_crops_are_padded_by_an_eighth_of_the_side_a_half_rounded_up(side: int, padding: int) -> None:
    assert choose_crop_padding(side) == padding


@pytest.mark.parametrize(
    ("source", "padding"),
    [
        ("{kind: digits}", 1),
        ("{kind: digits, image_size: 20}", 3),
        ("{kind: folder, path: images, image_size: 16}", 2),
        ("{kind: folder, path: images}", 4),  # as for 32 pixels, until the images are read
        ("{kind: torchvision, path: images, dataset: CIFAR10}", 4),
    ],
)
def test_a_padding_left_to_the_images_counts_as_if_it_were_named(
    read: Callable[..., Recipe], source: str, padding: int
) -> None:
    recipe = read(f"{MINIMAL}source: {source}\n")
    assert recipe.training.crop_padding is None
    assert recipe.sha256 == read(f"{MINIMAL}source: {source}\ntraining: {{crop_padding: {padding}}}\n").sha256
    assert recipe.with_crop_padding(padding).sha256 == recipe.sha256


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        (
            "cifar10-resnet20",
            "b5d84c8bbef42caf05118e712abddbd6dbebcee0b9255740238f3c512dccb6b1",
        ),  # 32 pixels, not named
        ("cifar100-resnet20", "b013c3338425394ff06cc51b0aadf30f2c6ac893160bedeb94800d6b36b3b40c"),
        ("digits", "548b3c3c02b331ee19fd8ca44cc430c6f78159db5d6e46a51f6ec3a99f6b0dfe"),  # named
    ],
)
def test_recipes_whose_padding_stays_keep_their_identity(name: str, sha256: str) -> None:
    former = ["training.epochs=8", "probes.epochs=null"] if name == "digits" else []
    assert read_recipe(RECIPES[0].parent / f"{name}.yaml", former).sha256 == sha256


def test_a_recipe_in_full_that_names_no_padding_dates_from_when_it_was_4(
    write_recipe_file: RecipeFile, read: Callable[..., Recipe]
) -> None:
    in_full = write_recipe(read(MINIMAL, "training.crop_padding=4"))
    without = in_full.replace("  crop_padding: 4\n", "")
    assert without != in_full
    assert read_recipe(write_recipe_file(without)).sha256 == read_recipe(write_recipe_file(in_full)).sha256
    assert read_recipe(write_recipe_file(without), ["training.crop_padding=1"]).training.crop_padding == 1


@pytest.mark.parametrize(
    "check", ["{}", "{draws: 7, full_seeds: 1, ratios: [0.2], threshold: 0.5, reference: known.csv}"]
)
def test_how_the_ranking_is_checked_is_no_part_of_the_proxy(read: Callable[..., Recipe], check: str) -> None:
    text = MINIMAL.replace("[8, 14]", "[8, 14, 20, 26, 32]")
    assert read(f"{text}check: {check}\n").sha256 == read(text).sha256
    assert read(f"{text}check: {check}\n").check is not None


def test_a_reference_is_found_from_the_recipes_own_folder_and_written_without_it(
    read: Callable[..., Recipe], tmp_path: Path
) -> None:
    text = MINIMAL.replace("[8, 14]", "[8, 14, 20, 26, 32]")
    recipe = read(f"{text}check: {{reference: {{path: far/known.csv, accuracy_column: top1}}}}\n")
    assert recipe.check is not None
    assert recipe.check.reference is not None
    assert Path(recipe.check.reference.path).is_absolute()
    assert recipe.check.reference.accuracy_column == "top1"
    written = write_recipe(recipe)
    assert "path: known.csv" in written
    assert str(tmp_path) not in written


def test_a_section_that_is_null_can_be_set_into(read: Callable[..., Recipe]) -> None:
    text = MINIMAL.replace("[8, 14]", "[8, 14, 20, 26, 32]") + "check: null\n"
    recipe = read(text, "check.draws=7")
    assert recipe.check is not None
    assert (recipe.check.draws, recipe.check.full_seeds) == (7, 3)


def test_a_check_of_too_few_architectures_is_refused_with_its_place(read: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"space\.choices: must make at least 5 architectures.*found 2"):
        read(MINIMAL + "check: {}\n")


@pytest.mark.parametrize("field", sorted(set(OTHER_VALUES) - NOT_VARIED_HERE))
def test_any_other_value_changes_the_identity(read: Callable[..., Recipe], field: str) -> None:
    text = MINIMAL.replace("[8, 14]", "[8, 14, 26]")
    assert read(text, "source.kind=digits", f"{field}={OTHER_VALUES[field]}").sha256 != read(text).sha256


def test_another_kind_of_source_changes_the_identity(read: Callable[..., Recipe]) -> None:
    digests = {
        read(MINIMAL + source).sha256
        for source in (
            "source: {kind: folder, path: images}\n",
            "source: {kind: torchvision, path: images, dataset: CIFAR10}\n",
            "source: {kind: torchvision, path: images, dataset: CIFAR100}\n",
            "source: {kind: hub, name: images, revision: abc}\n",
            "source: {kind: hub, name: images, revision: abd}\n",
            "source: {kind: hub, name: images, revision: abc, config: plain}\n",
            "source: {kind: memory}\n",
            f"source: {{kind: memory, fingerprint: {'ab' * 32}}}\n",
            f"source: {{kind: memory, fingerprint: {'cd' * 32}}}\n",
            "",
        )
    }
    assert len(digests) == 10


@pytest.mark.parametrize("kind", ["kind: folder", "kind: torchvision, dataset: CIFAR10"])
def test_where_a_local_folder_stands_is_no_part_of_the_identity(tmp_path: Path, kind: str) -> None:
    digests = []
    for place, path in (("here", "images"), ("there", "far/images"), ("elsewhere", "/mnt/images/")):
        (tmp_path / place).mkdir()
        file = tmp_path / place / "recipe.yaml"
        file.write_text(f"{MINIMAL}source: {{{kind}, path: {path}}}\n")
        recipe = read_recipe(file)
        assert Path(recipe.source.path).is_absolute()
        assert place not in recipe.canonical
        assert "/" not in json.loads(recipe.canonical)["source"]["path"]
        digests.append(recipe.sha256)
    assert len(set(digests)) == 1
    (tmp_path / "other.yaml").write_text(f"{MINIMAL}source: {{{kind}, path: pictures}}\n")
    assert read_recipe(tmp_path / "other.yaml").sha256 != digests[0]


def test_a_local_folder_is_taken_from_the_recipes_own_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "recipe.yaml"
    file.write_text(MINIMAL + "source: {kind: folder, path: data/images}\n")
    assert read_recipe(file).source.path == str(tmp_path / "deep" / "data" / "images")


# Strict YAML


def test_a_number_with_an_exponent_is_a_number(read: Callable[..., Recipe]) -> None:
    assert read(MINIMAL + "training: {learning_rate: 1e-2}\n").training.learning_rate == 0.01


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "'true'"])
def test_only_true_and_false_are_booleans(complaint: Callable[..., str], word: str) -> None:
    said = complaint(MINIMAL + f"training: {{horizontal_flip: {word}}}\n")
    assert said.startswith("r.yaml:5:29 training.horizontal_flip: ")
    assert f'true or false, got "{word.strip(chr(39))}"' in said


def test_a_number_that_nothing_can_write_is_refused(complaint: Callable[..., str]) -> None:
    assert "a number of 20,000 bits" in complaint(MINIMAL + f"seed: 0x{'f' * 5000}\n")


def test_a_leading_zero_is_no_octal(read: Callable[..., Recipe]) -> None:
    assert read(MINIMAL + "seed: 010\n").seed == 10


@pytest.mark.parametrize(
    ("value", "shown"),
    [("5.0", "5.0"), ("1e3", "1000.0"), ("true", "true"), ("'5'", '"5"'), ("2026-01-01", '"2026-01-01"')],
)
def test_a_whole_number_is_asked_for_as_such(complaint: Callable[..., str], value: str, shown: str) -> None:
    said = complaint(MINIMAL + f"seed: {value}\n")
    assert said.startswith("r.yaml:5:7 seed: ")
    assert f"whole number, got {shown};" in said


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (MINIMAL + "name: again\n", "r.yaml:5:1 name"),
        (MINIMAL + "selection:\n  ratio: 0.1\n  draw: systematic\n  ratio: 0.2\n", "r.yaml:8:3 ratio"),
        (MINIMAL + "selection: {ratio: 0.1, ratio: 0.1}\n", "r.yaml:5:25 ratio"),
    ],
)
def test_a_duplicate_key_is_named_with_the_place_of_the_second(
    complaint: Callable[..., str], text: str, place: str
) -> None:
    said = complaint(text, kind=DuplicateKeyError)
    assert said == f"{place}: a key must stand once in a mapping; remove one of the two"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "r.yaml:1:1: a recipe must be a mapping (`name: ...`), found nothing"),
        ("# only a comment\n", "r.yaml:1:1: a recipe must be a mapping (`name: ...`), found nothing"),
        ("- name: tiny\n", "r.yaml:1:1: a recipe must be a mapping (`name: ...`), found a seq"),
        ("tiny\n", "r.yaml:1:1: a recipe must be a mapping (`name: ...`), found a str"),
        (MINIMAL + "---\nname: two\n", "r.yaml:5:1: not valid YAML: but found another document"),
        ("name: tiny\nspace:\n\tnetwork: resnet\n", "r.yaml:3:1: not valid YAML: found character '\\t'"),
        ("name: tiny\nspace: {network: resnet\n", "r.yaml:3:1: not valid YAML: expected ',' or '}'"),
        ("name: tiny\nspace: [1, 2\n", "r.yaml:3:1: not valid YAML: expected ',' or ']'"),
        ("name: tiny\n  space: 1\n", "r.yaml:2:8: not valid YAML: mapping values are not allowed here"),
        ("name: *nothing\n", "r.yaml:1:7: a recipe must not use aliases, found *nothing; write the value out"),
        ("[" * 1500, "r.yaml:1:51: must be 50 levels deep at most"),
        (MINIMAL + "seed: " + "9" * 5000, "r.yaml: not valid YAML: "),
        (MINIMAL + "seed: 2026-13-45\n", "r.yaml: not valid YAML: month must be in 1..12"),
    ],
)
def test_what_is_no_yaml_mapping_is_a_syntax_error(complaint: Callable[..., str], text: str, said: str) -> None:
    assert complaint(text, kind=RecipeSyntaxError).startswith(said)


@pytest.mark.parametrize("tag", ["!!omap 3", "!!set 3", "!!int x"])
def test_a_tag_that_does_not_fit_its_value_is_a_recipe_error(write_recipe_file: RecipeFile, tag: str) -> None:
    with pytest.raises(RecipeError):
        read_recipe(write_recipe_file(MINIMAL + f"seed: {tag}\n"))


def test_a_tag_runs_no_code(complaint: Callable[..., str], tmp_path: Path) -> None:
    made = tmp_path / "made"
    said = complaint(MINIMAL + f"seed: !!python/object/apply:pathlib.Path.touch [{made}]\n", kind=RecipeSyntaxError)
    assert said.startswith("r.yaml:5:7: a recipe must not use tags")
    assert not made.exists()


def test_a_recipe_that_is_not_utf8_says_which_byte(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeSyntaxError) as caught:
        read_recipe(path)
    assert str(caught.value) == f"{path}: a recipe must be UTF-8 text, byte 9 is not"


def test_a_recipe_that_is_too_large_is_not_read(write_recipe_file: RecipeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_RECIPE_BYTES == 1_000_000
    monkeypatch.setattr(recipe_yaml, "MAX_RECIPE_BYTES", 10_000)  # a million take a minute to be read
    filling = "#" * (10_000 - len(MINIMAL) - 1) + "\n"
    assert read_recipe(write_recipe_file(filling + MINIMAL)).name == "tiny"
    with pytest.raises(RecipeSyntaxError, match=r"must be smaller than 10,000 bytes, this has 10,001$"):
        read_recipe(write_recipe_file("#" + filling + MINIMAL))


def test_a_missing_recipe_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeNotFoundError, match=r"nowhere\.yaml: no such recipe; `proxyds init .*nowhere\.yaml`"):
        read_recipe(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeNotFoundError, match=rf"it is a folder; `proxyds init --from {tmp_path}`"):
        read_recipe(tmp_path)
    for name in ("manifest.json", "recipe.yaml"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RecipeNotFoundError, match=rf"a proxy's folder; its recipe is {tmp_path}/recipe\.yaml"):
        read_recipe(tmp_path)


# Every problem, with its place


def test_every_problem_is_reported_at_once_in_the_order_of_the_file(complaint: Callable[..., str]) -> None:
    text = """\
name: Tiny Proxy
seed: -1
space:
  network: resnet
  choices:
    depth: [8, 9]
    kernel_size: 4
    base_filters: []
training:
  epochs: 0
  optimizer: adamw
  batch_sise: 8
selection: {ratio: 5, draw: sistematic}
"""
    expected = [
        ("r.yaml:1:7 name: ", "Tiny Proxy"),
        ("r.yaml:2:7 seed: ", "at least 0"),
        ("r.yaml:6:16 space.choices.depth[1]: ", "8 and 14"),
        ("r.yaml:7:18 space.choices.kernel_size[0]: ", "odd"),
        ("r.yaml:8:19 space.choices.base_filters: ", "is empty"),
        ("r.yaml:10:11 training.epochs: ", "at least 1"),
        ("r.yaml:11:14 training.optimizer: ", "`adam`"),
        ("r.yaml:12:3 training.batch_sise: ", "`batch_size`"),
        ("r.yaml:13:20 selection.ratio: ", "(0, 1]"),
        ("r.yaml:13:29 selection.draw: ", "`systematic`"),
        ("10 problems", "r.yaml"),
    ]
    for line, (place, keyword) in zip(complaint(text).splitlines(), expected, strict=True):
        assert line.startswith(place)
        assert keyword in line


def test_problems_are_there_for_programs_too(write_recipe_file: RecipeFile) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(write_recipe_file(MINIMAL + "seed: -1\nselection:\n  ratio: 5\n"))
    assert [(p["line"], p["column"], p["field"]) for p in caught.value.problems] == [
        (5, 7, "seed"),
        (7, 10, "selection.ratio"),
    ]


def test_a_training_on_everything_changes_what_it_names_and_must_name_something(
    complaint: Callable[..., str], read: Callable[..., Recipe]
) -> None:
    text = MINIMAL.replace("depth: [8, 14]", "depth: [8, 14], base_filters: [4, 8, 16]")
    recipe = read(text + "check: {full_training: {epochs: 80}}\n")
    assert recipe.check.choose_full_training(recipe.training) == recipe.training.model_copy(update={"epochs": 80})
    assert read(text + "check: {}\n").check.choose_full_training(recipe.training) == recipe.training
    assert recipe.sha256 == read(text).sha256
    assert complaint(text + "check:\n  full_training: {}\n").startswith("r.yaml:6:18 check.full_training: must name")


@pytest.mark.parametrize("ratio", ["5", "0", "1.0001", "-0.05", ".inf", ".nan"])
def test_a_ratio_is_in_0_to_1(complaint: Callable[..., str], ratio: str) -> None:
    said = complaint(MINIMAL + f"selection:\n  ratio: {ratio}\n")
    assert said.startswith("r.yaml:6:10 selection.ratio: must be in (0, 1], got ")
    assert said.endswith("write 0.05")


def test_the_whole_of_a_source_is_a_ratio(read: Callable[..., Recipe]) -> None:
    assert read(MINIMAL + "selection: {ratio: 1}\n").selection.ratio == 1.0


@pytest.mark.parametrize(
    ("constants", "place", "keyword"),
    [
        ("[2, 1, -6, 1]", "5:32 importance.constants[2]", "got -6"),
        ("[-2, 1, 6, 1]", "5:26 importance.constants[0]", "got -2"),
        ("[2, 1, 6, 1e10]", "5:35 importance.constants[3]", "at most"),
        ("[2, 1, .inf, 1]", "5:32 importance.constants[2]", "finite"),
        ("[2, 1, .nan, 1]", "5:32 importance.constants[2]", "finite"),
        ("[0, 0, 0.0, 0]", "5:25 importance.constants", "zero"),
        ("[2, 1e-300, 6, 1]", "5:29 importance.constants[1]", "0, or 1e-200 or more"),
        ("[2, one, 6, 1]", "5:29 importance.constants[1]", 'number, got "one"'),
        ("2", "5:25 importance.constants", "list, got 2; for example [2, 1, 6, 1]"),
    ],
)
def test_constants_are_four_numbers_not_negative_not_all_zero(
    complaint: Callable[..., str], constants: str, place: str, keyword: str
) -> None:
    said = complaint(MINIMAL + f"importance: {{constants: {constants}}}\n")
    assert said.startswith(f"r.yaml:{place}: must ")
    assert keyword in said


@pytest.mark.parametrize("constants", ["[2, 1, 6]", "[2, 1, 6, 1, 1]", "[]"])
def test_another_number_of_constants_than_four_is_one_problem_that_says_so(
    complaint: Callable[..., str], constants: str
) -> None:
    said = complaint(MINIMAL + f"importance: {{constants: {constants}}}\n")
    assert len(said.splitlines()) == 1
    assert said.startswith("r.yaml:5:25 importance.constants: must hold ")
    assert "4 values" in said


def test_some_constants_may_be_zero(read: Callable[..., Recipe]) -> None:
    assert read(MINIMAL + "importance: {constants: [0, 0, 1, 0]}\n").importance.constants == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("depth", "nearest"), [(9, "8 and 14"), (13, "8 and 14"), (15, "14 and 20"), (18, "14 and 20"), (21, "20 and 26")]
)
def test_a_residual_depth_is_6n_plus_2(complaint: Callable[..., str], depth: int, nearest: str) -> None:
    said = complaint(MINIMAL.replace("[8, 14]", str(depth)))
    assert said.startswith("r.yaml:4:20 space.choices.depth[0]: must be 6 n + 2")
    assert f"{nearest}, got {depth}" in said


@pytest.mark.parametrize(("depth", "bound"), [(2, "at least 8"), (7, "at least 8"), (116, "at most 110")])
def test_a_depth_has_bounds(complaint: Callable[..., str], depth: int, bound: str) -> None:
    said = complaint(MINIMAL.replace("[8, 14]", str(depth)))
    assert said.startswith(f"r.yaml:4:20 space.choices.depth[0]: must be {bound}, got {depth}")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ("kernel_size: [3, 4]", "r.yaml:4:30 space.choices.kernel_size[1]: must be odd, "),
        ("multiplier: []", "r.yaml:4:25 space.choices.multiplier: must hold at least one value"),
        ("depth: [8, 14, 8]", "r.yaml:4:20 space.choices.depth: must hold each choice once, 8 "),
        ("base_filters: [4, 0]", "r.yaml:4:31 space.choices.base_filters[1]: must be at least 1, got 0"),
        ("base_filters: '4'", 'r.yaml:4:27 space.choices.base_filters[0]: must be a whole number, got "4"'),
        ("multiplier: 2.0", "r.yaml:4:25 space.choices.multiplier[0]: must be a whole number, got 2.0"),
    ],
)
def test_choices_are_checked_one_by_one(complaint: Callable[..., str], choices: str, said: str) -> None:
    assert complaint(MINIMAL.replace("depth: [8, 14]", choices)).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            MINIMAL + "selecton: {ratio: 0.1}\n",
            "r.yaml:5:1 selecton: unknown key; did you mean `selection`? known: check, importance, licence, name, "
            "output, probes, seed, selection, similarity, source, space, training, version",
        ),
        (
            MINIMAL + "selection: {ratoi: 0.1}\n",
            "r.yaml:5:13 selection.ratoi: unknown key; did you mean `ratio`? known: draw, labels, method, ratio, seed",
        ),
        (
            MINIMAL.replace("network: resnet", "network: resnt"),
            'r.yaml:3:12 space.network: must be a known name (of a module of yours after load_plugins, --plugin), got "resnt"; did you mean `resnet`? '
            "known: efficientnet, nasbench201, python, resnet, timm, torchvision",
        ),
        (
            MINIMAL.replace("depth", "deepth"),
            "r.yaml:4:13 space.choices.deepth: unknown key; did you mean `depth`? known: base_filters, depth, "
            "kernel_size, multiplier",
        ),
        (
            MINIMAL + "source: {kind: folderr, path: x}\n",
            'r.yaml:5:16 source.kind: must be a known name, got "folderr"; did you mean `folder`? known: digits, '
            "folder, hub, memory, torchvision",
        ),
        (
            MINIMAL + "source: {kind: digits, path: x}\n",
            "r.yaml:5:24 source.path: unknown key; known: image_mode, image_size, kind, on_bad_image, test_fraction, "
            "validation_fraction",
        ),
        (
            MINIMAL + "similarity: {metric: xyz}\n",
            'r.yaml:5:22 similarity.metric: must be a known name, got "xyz"; known: cosine, euclidean',
        ),
    ],
)
def test_an_unknown_name_lists_the_known_ones_and_the_nearest(
    complaint: Callable[..., str], text: str, said: str
) -> None:
    found = complaint(text, kind=UnknownNameError)
    head, known = found.split("known: ")
    said_head, said_known = said.split("known: ")
    assert (head, sorted(known.split(", "))) == (said_head, sorted(said_known.split(", ")))


def test_a_key_that_is_a_number_is_unknown_where_it_stands(complaint: Callable[..., str]) -> None:
    assert complaint(MINIMAL + "12: 1\n", kind=UnknownNameError).startswith("r.yaml:5:1 12: unknown key")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "space: {network: resnet, choices: {}}\n",
            "r.yaml:1:1 name: must be given, it is missing; add it (for example",
        ),
        ("name: tiny\n", "r.yaml:1:1 space: must be given, it is missing"),
        (
            "name: tiny\nspace: {network: resnet}\n",
            "r.yaml:2:8 space: must hold either choices (for each parameter a value or a list) or architectures",
        ),
        ("name: tiny\nspace:\n  choices: {}\n", "r.yaml:3:3 space.network: must be given, it is missing"),
        (
            MINIMAL + "source: {image_size: 8}\n",
            "r.yaml:5:9 source.kind: must be given, it is missing; add it (digits, hub, folder, torchvision, memory)",
        ),
        (
            MINIMAL + "source: {kind: hub, name: a/b}\n",
            "r.yaml:5:9 source.revision: must be given, it is missing; add it (for example `revision: 0b2714987fa4`)",
        ),
    ],
)
def test_what_is_missing_is_asked_for(complaint: Callable[..., str], text: str, said: str) -> None:
    assert complaint(text).startswith(said)


@pytest.mark.parametrize("text", ["source: digits\n", "selection: 0.1\n", "space: resnet\nname: a\n"])
def test_a_value_where_a_section_belongs_is_found_at_its_place(complaint: Callable[..., str], text: str) -> None:
    field, value = text.splitlines()[0].split(": ")
    said = complaint(text if "name" in text else MINIMAL + text)
    line = 1 if "name" in text else 5
    assert said.startswith(f"r.yaml:{line}:{len(field) + 3} {field}: must be")
    assert value in said


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        (MINIMAL + "selection:\n  ratio:\noutput: {}\n", 6, "selection.ratio"),
        (MINIMAL + "selection:\noutput: {}\n", 5, "selection"),
        (MINIMAL + "seed:\n\n\n", 5, "seed"),
    ],
)
def test_an_empty_value_is_reported_on_its_own_line(
    complaint: Callable[..., str], text: str, line: int, field: str
) -> None:
    place, _, rest = complaint(text).partition(" ")
    assert place.startswith(f"r.yaml:{line}:")
    assert rest.startswith(f"{field}: must be")


def test_text_that_is_no_unicode_is_reported_at_its_place(complaint: Callable[..., str]) -> None:
    said = complaint(MINIMAL + 'licence: "\\ud800"\n')
    assert said.startswith("r.yaml:5:10 licence: must ")


def test_a_home_folder_that_does_not_exist_is_a_recipe_error(write_recipe_file: RecipeFile) -> None:
    with pytest.raises(RecipeError, match=r"source\.path"):
        read_recipe(write_recipe_file(MINIMAL + "source: {kind: folder, path: '~nobody-of-that-name/images'}\n"))


# Licences


@pytest.mark.parametrize(
    "licence", ["openmdw-1.0", "fair-noncommercial-research-license", "grok2-community", "other", "unknown"]
)
def test_a_licence_that_the_hub_knows_is_taken(read: Callable[..., Recipe], licence: str) -> None:
    assert read(MINIMAL + f"licence: {licence}\n").warnings == []


def test_a_licence_that_the_hub_may_not_know_is_warned_of(read: Callable[..., Recipe]) -> None:
    recipe = read(MINIMAL + "licence: open-mdw\n")
    assert recipe.licence == "open-mdw"
    (warning,) = recipe.warnings
    assert warning.startswith("licence: ")
    assert "openmdw-1.0" in warning
    assert "`other`" in warning


def test_a_licence_that_is_written_as_people_do_is_told_the_hubs_name(complaint: Callable[..., str]) -> None:
    for written, meant in (("CC BY 4.0", "cc-by-4.0"), ("Apache-2.0", "apache-2.0"), ("MIT", "mit")):
        said = complaint(MINIMAL + f"licence: {written}\n")
        assert f"did you mean `{meant}`?" in said
        assert "`other`" in said


@pytest.mark.parametrize("licence", ["MIT License", "''", "<b>", "javascript:alert(1)", "x" * 65])
def test_a_licence_is_a_name(complaint: Callable[..., str], licence: str) -> None:
    assert complaint(MINIMAL + f"licence: {licence}\n").startswith("r.yaml:5:10 licence: must be")


# Lists


def test_a_long_list_names_the_choice_that_stands_twice(complaint: Callable[..., str]) -> None:
    numbers = ", ".join(map(str, [*range(4, 64), 17]))
    said = complaint(MINIMAL.replace("[8, 14]", f"8, base_filters: [{numbers}]"))
    assert "base_filters: must hold each choice once, 17 stands twice" in said
    assert "entries 14 and 61" in said


def test_a_long_value_is_shown_with_its_end(complaint: Callable[..., str]) -> None:
    said = complaint(MINIMAL.replace("name: tiny", f"name: {'a' * 70}!z"))
    assert said.startswith("r.yaml:1:7 name: must ")
    assert '!z"' in said


# One key, two spellings


def test_licence_may_be_spelt_license(read: Callable[..., Recipe]) -> None:
    one, other = (read(MINIMAL + f"{key}: mit\n") for key in ("licence", "license"))
    assert one.licence == other.licence == "mit"
    assert one.sha256 == other.sha256
    assert write_recipe(one) == write_recipe(other)
    assert "\nlicence: mit\n" in write_recipe(other)
    assert Recipe.model_validate_json(one.canonical).canonical == one.canonical


@pytest.mark.parametrize("texts", [("licence: mit", "license: mit"), ("license: mit", "licence: cc0-1.0")])
def test_both_spellings_of_licence_are_refused(complaint: Callable[..., str], texts: tuple[str, str]) -> None:
    line = 5 + texts.index(next(text for text in texts if text.startswith("license")))
    said = complaint(MINIMAL + "\n".join(texts) + "\n")
    assert said.startswith(f"r.yaml:{line}:1 license: ")
    assert "`licence`" in said


def test_a_spelling_is_taken_from_set_too(read: Callable[..., Recipe], complaint: Callable[..., str]) -> None:
    assert read(MINIMAL, "license=mit").licence == "mit"
    assert complaint(MINIMAL + "licence: mit\n", "license=mit").startswith("override (--set) license=mit: license: ")


# Overrides


def test_overrides_change_values_before_validation(read: Callable[..., Recipe]) -> None:
    recipe = read(
        MINIMAL + "seed: -1\n",
        "seed=7",
        "selection.ratio=1e-1",
        "space.choices.depth=[8, 20]",
        "training={epochs: 3}",
        "source.kind=digits",
    )
    assert recipe.seed == 7
    assert recipe.selection.ratio == 0.1
    assert recipe.space.choices.depth == (8, 20)
    assert recipe.training.epochs == 3


def test_an_override_is_the_same_as_the_value_in_the_file(read: Callable[..., Recipe]) -> None:
    assert read(MINIMAL, "selection.ratio=0.1").sha256 == read(MINIMAL + "selection:\n  ratio: 0.1\n").sha256


@pytest.mark.parametrize(
    ("override", "kind", "said"),
    [
        ("selection.ratio=5", RecipeError, "selection.ratio: must be in (0, 1], got 5; for five percent write 0.05"),
        ("selection={ratio: 7}", RecipeError, "selection.ratio: must be in (0, 1], got 7; for five percent write 0.05"),
        (
            "selection.ratoi=1",
            UnknownNameError,
            "selection.ratoi: unknown key; did you mean `ratio`? known: draw, labels, method, ratio, seed",
        ),
        ("space.choices.depth=[8, 9]", RecipeError, "space.choices.depth[1]: must be 6 n + 2"),
        ("sede=1", UnknownNameError, "sede: unknown key; did you mean `seed`? known: "),
        ("selecton.ratio=0.1", UnknownNameError, "selecton: unknown key; did you mean `selection`? known: "),
        ("training.adam.beta=0.1", UnknownNameError, "training.adam: unknown key; known: "),
        ("name.first=x", RecipeError, "`name` is a value, not a section"),
        ("selection.ratio", RecipeError, "must read a.b=value, for example selection.ratio=0.1"),
        ("=3", RecipeError, "must read a.b=value, for example selection.ratio=0.1"),
        ("training.batch-size=3", RecipeError, "must read a.b=value, did you mean training.batch_size?"),
        ("soft_labels=true", UnknownNameError, "soft_labels: unknown key; did you mean `training.soft_labels`?"),
        ("epochs=3", UnknownNameError, "epochs: unknown key; did you mean `probes.epochs` or `training.epochs`?"),
        ("a b=3", RecipeError, "must read a.b=value, for example selection.ratio=0.1"),
        ("selection..ratio=3", RecipeError, "must read a.b=value, for example selection.ratio=0.1"),
        ("selection.ratio=[", RecipeError, "the value is not valid YAML"),
        ("seed=2026-13-45", RecipeError, "the value is not valid YAML"),
        ("seed=" + "9" * 5000, RecipeError, "the value is not valid YAML"),
        ("seed=" + "[" * 1500, RecipeSyntaxError, "1:51: must be 50 levels deep at most"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_bad_override_is_reported_as_such(
    complaint: Callable[..., str], override: str, kind: type[RecipeError], said: str
) -> None:
    found = complaint(MINIMAL, override, kind=kind)
    assert found.startswith(f"override (--set) {override}:")
    assert found.removeprefix(f"override (--set) {override}:").lstrip().startswith(said)


# Written in full


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20).filter(
    lambda text: find_active_text(text) is None  # refused, as another test holds
)
_FRACTION = st.floats(0, 1, exclude_min=True, exclude_max=True)
_IMAGES: dict[str, Any] = {
    "image_mode": st.sampled_from(["L", "RGB"]),
    "image_size": st.none() | st.integers(4, 1024),
    "on_bad_image": st.sampled_from(["fail", "skip"]),
    "validation_fraction": _FRACTION,
    "test_fraction": _FRACTION,
}
_COLUMNS: dict[str, Any] = {
    **_IMAGES,
    "train_split": _TEXT,
    "validation_split": st.none() | _TEXT,
    "test_split": st.none() | _TEXT,
    "image_column": st.none() | _TEXT,
    "label_column": st.none() | _TEXT,
}
_PATH = st.from_regex(r"[a-z0-9_-]{1,8}(/[A-Za-z0-9 .]{0,8}[a-z])?", fullmatch=True)


def _section(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def _choices(values: st.SearchStrategy[int]) -> st.SearchStrategy[int | list[int]]:
    return values | st.lists(values, min_size=1, max_size=4, unique=True)


_SOURCES = (
    _section({"kind": st.just("digits")}, _IMAGES)
    | _section(
        {
            "kind": st.just("hub"),
            "name": st.from_regex(re.compile(r"\w[\w.-]{0,8}(/\w[\w.-]{0,8})?", re.ASCII), fullmatch=True),
            "revision": _TEXT.filter(bool),
        },
        {**_COLUMNS, "config": st.none() | _TEXT},
    )
    | _section({"kind": st.just("folder"), "path": _PATH}, _COLUMNS)
    | _section(
        {"kind": st.just("torchvision"), "dataset": st.sampled_from(["CIFAR10", "CIFAR100"]), "path": _PATH}, _IMAGES
    )
    | _section(
        {"kind": st.just("memory")},
        {
            **_COLUMNS,
            "name": st.none() | _TEXT.filter(bool),
            "fingerprint": st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        },
    )
)
_SPACES = _section(
    {
        "network": st.just("resnet"),
        "choices": _section(
            {},
            {
                "depth": _choices(st.sampled_from([8, 14, 20, 110])),
                "base_filters": _choices(st.integers(1, 1024)),
                "kernel_size": _choices(st.sampled_from([1, 3, 15])),
                "multiplier": _choices(st.integers(1, 16)),
            },
        ),
    },
    {},
)
_RECIPES = _section(
    {"name": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,30}", fullmatch=True), "space": _SPACES},
    {
        "version": st.sampled_from(["1.0.0", "10.20.30", "0.1.0-rc.1"]),
        "licence": st.sampled_from(["mit", "cc-by-4.0", "other", "unknown"]),
        "seed": st.integers(0, 2**53 - 1),
        "source": _SOURCES,
        "probes": _section({}, {"count": st.integers(2, 4)}),
        "importance": _section(
            {},
            {
                "constants": st.lists(st.just(0.0) | st.floats(1e-200, 1e9), min_size=4, max_size=4).filter(any),
                "protocol": st.sampled_from(["validation", "paper"]),
            },
        ),
        "similarity": _section({}, {"layer": st.none() | _TEXT, "neighbours": st.integers(1, 1000)}),
        "selection": _section({}, {"ratio": _FRACTION, "draw": st.sampled_from(["systematic", "successive"])}),
        "training": _section(
            {},
            {
                "epochs": st.integers(1, 10_000),
                "learning_rate": st.floats(0, 100, exclude_min=True),
                "weight_decay": st.floats(0, 1),
                "horizontal_flip": st.booleans(),
            },
        ),
        "output": _section(
            {},
            {
                "gallery": st.booleans(),
                "samples_per_shard": st.integers(1, 10_000_000),
                "validation": st.sampled_from(["auto", "none"]),
            },
        ),
    },
)


@settings(max_examples=100)
@given(data=_RECIPES)
def test_a_written_recipe_reads_as_itself(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    choices = data["space"]["choices"].values()
    n_architectures = math.prod(len(values) if isinstance(values, list) else 1 for values in choices)
    assume(n_architectures >= data.get("probes", {}).get("count", 2))
    recipe = Recipe.model_validate_json(json.dumps(data))
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    file.write_text(write_recipe(recipe), encoding="utf-8")
    again = read_recipe(file)
    assert again.canonical == recipe.canonical
    assert again.sha256 == recipe.sha256
    assert write_recipe(again) == write_recipe(recipe)


def test_a_written_recipe_fills_in_every_default_and_names_its_identity(read: Callable[..., Recipe]) -> None:
    recipe = read()
    text = write_recipe(recipe)
    assert text.splitlines()[0] == (
        f"# The recipe as run, with every default filled in. Identity (sha256): {recipe.sha256}"
    )
    assert _leaves(YAML(typ="safe", pure=True).load(text)) == {*OTHER_VALUES, "check"}
    assert "  constants: [2.0, 1.0, 6.0, 1.0]\n" in text


@pytest.mark.parametrize("path", ["data/images", ".", "..", "/"])
def test_a_written_recipe_of_a_local_folder_reads_again(
    read: Callable[..., Recipe], write_recipe_file: RecipeFile, path: str
) -> None:
    recipe = read(MINIMAL + f"source: {{kind: folder, path: {path}}}\n")
    assert read_recipe(write_recipe_file(write_recipe(recipe), "written.yaml")).source.kind == "folder"


# The schema, and the recipes that come along


def test_the_shipped_schema_is_the_current_one() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == recipe_json_schema()


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    held = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(held)
    return jsonschema.Draft202012Validator(held)


def _plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_there_are_recipes() -> None:
    assert "digits" in {path.stem for path in RECIPES}
    assert preset_names() == sorted(path.stem for path in RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_comes_along_is_valid(path: Path, schema: jsonschema.Draft202012Validator) -> None:
    recipe = read_recipe(path)
    assert recipe.name
    schema.validate(_plain(path.read_text(encoding="utf-8")))
    schema.validate(_plain(write_recipe(recipe)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_comes_along_opens_with_its_schema_purpose_and_command(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert "# yaml-language-server: $schema=../proxyds/recipe/recipe.schema.json" in header
    assert preset_purpose(path.stem)
    assert any("proxyds build" in line for line in header)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_preset_is_the_recipe_that_comes_along(path: Path, write_recipe_file: RecipeFile) -> None:
    text = preset_text(path.stem)
    assert f"$schema={SCHEMA_FILE}\n" in text
    assert "recipes/" not in preset_text(path.stem, "mine.yaml")  # which a checkout has, and nobody else
    assert read_recipe(write_recipe_file(text)).sha256 == read_recipe(path).sha256


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL,
        MINIMAL.replace("[8, 14]", "8, base_filters: [8, 16]"),
        MINIMAL + "source: {kind: hub, name: a/b, revision: abc}\nimportance: {constants: [2, 1, 6, 1]}\n",
    ],
)
def test_the_schema_accepts_what_is_valid(
    text: str, read: Callable[..., Recipe], schema: jsonschema.Draft202012Validator
) -> None:
    assert read(text).name == "tiny"
    assert schema.is_valid(_plain(text))


@pytest.mark.parametrize(
    "text",
    [
        "name: tiny\n",
        MINIMAL.replace("name: tiny", "name: Tiny"),
        MINIMAL.replace("network: resnet", "network: resnt"),
        MINIMAL.replace("[8, 14]", "[]"),
        MINIMAL.replace("[8, 14]", "'8'"),
        MINIMAL.replace("[8, 14]", "7"),
        MINIMAL.replace("depth", "deepth"),
        MINIMAL + "selection: {ratio: 5}\n",
        MINIMAL + "selection: {ratio: 0}\n",
        MINIMAL + "selecton: {ratio: 0.1}\n",
        MINIMAL + "importance: {constants: [2, 1, 6]}\n",
        MINIMAL + "importance: {constants: [2, 1, -6, 1]}\n",
        MINIMAL + "source: {kind: folder}\n",
        MINIMAL + "source: {kind: nothing}\n",
        MINIMAL + "training: {horizontal_flip: 'on'}\n",
    ],
)
def test_the_schema_rejects_what_is_not(
    text: str, complaint: Callable[..., str], schema: jsonschema.Draft202012Validator, write_recipe_file: RecipeFile
) -> None:
    with pytest.raises(RecipeError):
        read_recipe(write_recipe_file(text))
    assert not schema.is_valid(_plain(text))


@pytest.mark.parametrize(
    ("method", "soft_labels"),
    [("easier", True), ("cases", True), ("stratified", True), ("random", True), ("easier", False)],
)
def test_choosing_by_probes_beside_soft_labels_is_doubted(method: str, soft_labels: bool) -> None:
    space = {"network": "resnet", "choices": {"depth": [8, 14]}}
    recipe = Recipe(name="r", space=space, selection={"method": method}, training={"soft_labels": soft_labels})
    doubted = [warning.split(":")[0] for warning in recipe.warnings if "soft labels" in warning]
    assert doubted == (["selection.method"] if soft_labels and method in ("easier", "cases") else [])
