"""The padding of random crops that a recipe leaves to its images: what is trained with it, and what proxies of before it keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import proxyds
from proxyds.artifact.reader import read_own_recipe
from proxyds.errors import ArtifactError, OutputExistsError, RecipeError
from proxyds.pipeline.audit import audit_proxy
from proxyds.pipeline.check import read_checked_recipe
from proxyds.pipeline.stages import list_probe_jobs, list_space, open_session
from proxyds.recipe.models import Recipe
from proxyds.runtime.execution import Execution
from proxyds.runtime.storage.store import Store
from tests.artifact.hostile import OLDER, RECIPE, Proxy, make_source
from tests.conftest import TINY_RECIPE, read_tree

FEW = """\
name: few
source: {{kind: folder, path: images}}
space: {{network: resnet, choices: {{depth: 8, base_filters: [2, 4]}}}}
selection: {{ratio: 0.5}}
training: {{epochs: 2, batch_size: 8{}}}
"""


def make_images(folder: Path, width: int, height: int) -> None:
    """Writes noise of two labels."""
    rng = np.random.default_rng(0)
    for number in range(40):
        place = folder / "train" / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)).save(place / f"{number}.png")


def look_up(recipe: Recipe, store: Path, place: Path | None = None) -> tuple[int, str, list[str]]:
    """The padding that probes are trained with, the recipe's identity and the keys of their trainings, before any is done."""
    with open_session(recipe, Execution(store=Store(store)), place) as session:
        jobs = list_probe_jobs(session, list_space(session), frozenset())
        return session.set_up_training().settings.padding, session.recipe.sha256, [job.task.key for job in jobs]


@pytest.mark.parametrize(
    ("width", "height", "padding"), [(32, 32, 4), (16, 16, 2), (8, 8, 1), (64, 64, 8), (20, 12, 2)]
)
def test_images_tell_the_padding(
    tmp_path: Path, write_recipe_file: Callable[..., Path], width: int, height: int, padding: int
) -> None:
    make_images(tmp_path / "images", width, height)
    left_out, named, four = (
        proxyds.read_recipe(write_recipe_file(FEW.format(more)))
        for more in ("", f", crop_padding: {padding}", ", crop_padding: 4")
    )
    found = look_up(left_out, tmp_path / "store")
    assert found == look_up(named, tmp_path / "store")
    assert found[:2] == (padding, named.sha256)
    of_four = look_up(four, tmp_path / "store")  # of 32 pixels finished work of before is found again, of others not
    assert of_four[:2] == (4, four.sha256)
    assert {one == other for one, other in zip(found[2], of_four[2], strict=True)} == {padding == 4}


def test_a_proxy_shows_the_padding_of_its_images(
    tiny_proxy: Path, tmp_path: Path, write_recipe_file: Callable[..., Path]
) -> None:
    recipe = write_recipe_file(TINY_RECIPE.replace(", crop_padding: 1", ""))  # the digits are of 8 pixels
    built = proxyds.build(recipe, tmp_path / "proxy")
    assert built.manifest.training is not None
    assert built.manifest.training.crop_padding == 1
    assert "crop\\_padding 1," in (built.folder / "README.md").read_text()
    assert (built.folder / RECIPE).read_bytes() == (tiny_proxy / RECIPE).read_bytes()
    assert next(stage for stage in built.manifest.stages if stage.stage == "probes").was_stored
    assert proxyds.build(recipe, tmp_path / "proxy").was_there
    assert all(probe.is_stored for probe in proxyds.plan_build(recipe).probes)
    with pytest.raises(OutputExistsError):  # what was built with four is another proxy
        proxyds.build(proxyds.read_recipe(recipe, ["training.crop_padding=4"]), tmp_path / "proxy")


# Proxies of before, all trained with 4 where none was named

FORMER_IDENTITY = "c4a9460098cc19e9c01e3447430bfbaaac5c19b844be0461efc5f591009624fa"
"""The recipe of `whole/` had this identity with a padding of 4, or without one, before the default went by the images' side."""
FORMER_RECIPES: dict[str, Callable[[str], str]] = {
    "names it": lambda text: text,
    "leaves it out": lambda text: text.replace("  crop_padding: 4\n", ""),
    "says nothing of being whole": lambda text: (
        text.partition("\n")[2]
        .replace("  crop_padding: 4\n", "")
        .replace("selection:\n", "selection:\n  method: cases\n")
    ),
}
FORMER_TRAININGS: dict[str, Callable[[Proxy], None]] = {
    "named": lambda proxy: proxy.set("training", "crop_padding", value=4),
    "left out": lambda proxy: proxy.set(
        "training", value={name: value for name, value in proxy.manifest["training"].items() if name != "crop_padding"}
    ),
    "before 1.2": lambda proxy: proxy.set("training", value=None),
}


@pytest.mark.parametrize("training", FORMER_TRAININGS.values(), ids=FORMER_TRAININGS)
@pytest.mark.parametrize("recipe", FORMER_RECIPES.values(), ids=FORMER_RECIPES)
def test_a_proxy_of_before_keeps_the_padding_that_it_was_trained_with(
    recipe: Callable[[str], str], training: Callable[[Proxy], None], tmp_path: Path
) -> None:
    proxy = Proxy(OLDER)
    proxy.files[RECIPE] = recipe(proxy.files[RECIPE].decode().replace("crop_padding: 1", "crop_padding: 4")).encode()
    proxy.set("recipe_sha256", value=FORMER_IDENTITY)
    training(proxy)
    proxy.sign()
    folder, source = proxy.write(tmp_path / "proxy"), f"source.path={tmp_path / 'few-digits'}"
    make_source(tmp_path / "few-digits")
    before = read_tree(folder)
    audit_proxy(folder)
    read, _, moved = read_checked_recipe(folder, [source])
    assert moved is not None
    padding, identity, keys = look_up(read, tmp_path / "store", Path(moved))
    assert (padding, identity) == (4, FORMER_IDENTITY)
    again = proxyds.resample(folder, tmp_path / "again", overrides=["selection.ratio=0.5", source])
    audit_proxy(again.folder)
    assert "crop_padding: 4" in (again.folder / RECIPE).read_text()
    assert look_up(read_own_recipe(again.folder, [source]), tmp_path / "store")[2] == keys
    assert read_tree(folder) == before


def test_a_recipe_that_says_another_training_than_the_manifest_is_refused(tmp_path: Path) -> None:
    proxy = Proxy(OLDER)
    proxy.set("training", "crop_padding", value=4)
    with pytest.raises(ArtifactError, match=r"training\.crop_padding"):
        audit_proxy(proxy.write(tmp_path / "proxy"))


@pytest.mark.parametrize("padding", [2, "null"])
def test_a_proxy_is_not_checked_with_another_padding(tiny_proxy: Path, padding: object) -> None:
    with pytest.raises(RecipeError, match="recipe"):
        read_checked_recipe(tiny_proxy, [f"training.crop_padding={padding}"])
